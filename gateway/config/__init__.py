"""The configuration: one YAML file, checked so that a mistake is found before traffic is.

`load` turns the file into frozen settings or raises one ConfigError that lists every problem with
file, line and key. Nothing in here opens a connection or starts anything.
"""

from gateway.config.errors import ConfigError
from gateway.config.loading import effective, load, load_text
from gateway.config.schema import schema
from gateway.config.settings import Settings

__all__ = ["ConfigError", "Settings", "effective", "load", "load_text", "schema"]
