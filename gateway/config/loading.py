"""From a file and an environment to settings, or to all that is wrong with them.

Three passes, each reporting everything it finds and stopping before the next if it found anything:
the YAML itself, single values, and rules over more than one key. The environment is an argument:
nothing here looks at the process's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gateway.config.changes import shown
from gateway.config.checks import check_file
from gateway.config.conversion import convert_file
from gateway.config.document import document_of, read_text
from gateway.config.errors import ConfigError
from gateway.config.settings import Settings, settings_of


def load(path: Path, environ: Mapping[str, str]) -> Settings:
    """Read and check the file; ConfigError lists what is wrong with it, secrets never."""
    return load_text(read_text(path), path, environ)


def load_text(text: str, path: Path, environ: Mapping[str, str]) -> Settings:
    """Check this text as that of the file at `path`. Whoever hands it on to another process of the
    same environment gets the same settings there."""
    document = document_of(text, path, environ)
    file = convert_file(document) if not document.problems else None
    if file is not None:
        document.problems.extend(check_file(file))
    if file is None or document.problems:
        raise ConfigError(str(path), document.problems, document.lines)
    return replace(settings_of(file), text=text, path=path)


def effective(settings: Settings) -> dict[str, Any]:
    """All settings in force, defaults included, in the shape of the file and ready for JSON.

    A secret that is set shows as `***`, one that is empty as an empty text; a store's URL shows
    without user, password and parameters.
    """
    return dict(shown(settings.file))
