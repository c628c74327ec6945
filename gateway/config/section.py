"""What every section of the configuration is: a mapping that knows all of its keys.

Here, so that the shape of the file can be told in more than one module. Which sections there are is
not known here.
"""

from __future__ import annotations

from msgspec import Struct

from gateway.config.values import Secret


class Section(Struct, frozen=True, forbid_unknown_fields=True):
    """A mapping whose keys are all known."""


def no_secret() -> Secret:
    """A secret that is not set. A factory, because msgspec writes every plain default into the JSON
    Schema, hidden or not."""
    return Secret("")
