"""The YAML file as a plain tree, with `${ENV}` expanded and the line of every key.

Stricter than YAML: a key that stands twice, a key that is not text, an anchor, a merge or an own
tag is refused, because each of them makes a file mean something other than what it seems to say.
The environment is put into finished strings, never into YAML text, so no value of a variable can
add keys. Knows nothing of what the keys mean.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from gateway.config.errors import ConfigError, Problem, key_path

# libyaml reads a file ten times faster; the wheels have it, a build from source may not.
_LOADER: type[yaml.SafeLoader] | type[yaml.CSafeLoader] = (
    yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
)
_STANDARD_TAG = "tag:yaml.org,2002:"
_MERGE_TAG = f"{_STANDARD_TAG}merge"
_TEXT_TAG = f"{_STANDARD_TAG}str"
# In this order: `$$`, `${NAME}` or `${NAME:-default}`, and anything else that opens like one.
_REFERENCE = re.compile(r"\$\$|\$\{([A-Za-z_][A-Za-z0-9_]*)(:-([^}]*))?\}|\$\{")
# Quoted words in a parser's message may be pieces of a value; `<block end>` and `:` are not.
_QUOTED_WORD = re.compile(r"'(?!<)[^']{2,}'")


class Expanded(str):
    """Text that came, at least in part, from the environment: the one way to give it a number."""

    __slots__ = ()


@dataclass(slots=True)
class Document:
    """The tree (mappings, lists, scalars), the line of each key, and what was wrong on the way."""

    root: object = None
    lines: dict[str, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def note(self, path: str, text: str) -> None:
        """Add a problem."""
        self.problems.append(Problem(path, text))


def read_text(path: Path) -> str:
    """The file as it is; ConfigError when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise _unreadable(path, f"cannot be read: {reason}") from error
    except UnicodeDecodeError as error:
        raise _unreadable(path, f"is not UTF-8 text: byte {error.start} is wrong") from None


def document_of(text: str, path: Path, environ: Mapping[str, str]) -> Document:
    """Expand the text of the file at `path`. ConfigError when it is not YAML at all; lesser
    mistakes are listed in the document."""
    loader = _LOADER(text)
    try:
        node = loader.get_single_node()
        if node is None:
            raise _unreadable(path, "is empty")
        tree = _Tree(loader, environ)
        tree.document.root = tree.build(node, "")
        return tree.document
    except yaml.YAMLError as error:
        # `from None`: a traceback of the parser shows the line, which may hold a secret.
        raise _not_yaml(path, error) from None
    except RecursionError:
        raise _unreadable(path, "is nested too deeply") from None
    finally:
        loader.dispose()


class _Tree:
    """Turns nodes into values, noting lines and problems."""

    def __init__(
        self, loader: yaml.SafeLoader | yaml.CSafeLoader, environ: Mapping[str, str]
    ) -> None:
        self.document = Document()
        self._loader = loader
        self._environ = environ
        self._seen: set[int] = set()

    def build(self, node: yaml.Node, path: str) -> object:
        self.document.lines.setdefault(path, node.start_mark.line + 1)
        if id(node) in self._seen:
            self.document.note(path, "an alias (*name) is not supported, write the value out")
            return None
        self._seen.add(id(node))
        if not node.tag.startswith(_STANDARD_TAG):
            self.document.note(path, "a tag (!name) is not supported, write a plain value")
            return None
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, f"{path}[{i}]") for i, item in enumerate(node.value)]
        return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: str) -> dict[str, object]:
        entries: dict[str, object] = {}
        first_line: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag == _MERGE_TAG:
                self.document.note(path, f"line {line}: a merge (<<) is not supported")
                continue
            if key_node.tag != _TEXT_TAG:
                self.document.note(path, f"line {line}: a key must be text, put it in quotes")
                continue
            key = str(key_node.value)
            inner = key_path(path, key)
            if key in entries:
                self.document.note(
                    inner, f"stands twice, in line {first_line[key]} and in line {line}"
                )
                continue
            first_line[key] = self.document.lines[inner] = line
            entries[key] = self.build(value_node, inner)
        return entries

    def _scalar(self, node: yaml.Node, path: str) -> object:
        try:
            value: object = self._loader.construct_object(node)
        except ValueError:
            # 2026-13-01 looks like a date to YAML and is none.
            self.document.note(path, "looks like a date or a number and is none, put it in quotes")
            return None
        return self._expand(value, path) if isinstance(value, str) else value

    def _expand(self, text: str, path: str) -> str:
        """Put the environment in. An unset variable or a malformed reference is a problem."""
        from_environment = False

        def replacement(match: re.Match[str]) -> str:
            nonlocal from_environment
            if match[0] == "$$":
                return "$"
            name = match[1]
            if name is None:
                self.document.note(
                    path, "malformed ${...}: expected ${NAME} or ${NAME:-default}; $$ is a plain $"
                )
                return ""
            from_environment = True
            if match[2] is not None:
                return self._environ.get(name) or match[3]
            if name not in self._environ:
                self.document.note(
                    path, f"environment variable {name} is not set, and no default is given"
                )
                return ""
            return self._environ[name]

        expanded = _REFERENCE.sub(replacement, text)
        return Expanded(expanded) if from_environment else expanded


def _unreadable(path: Path, text: str) -> ConfigError:
    return ConfigError(str(path), [Problem("", text)], {})


def _not_yaml(path: Path, error: yaml.YAMLError) -> ConfigError:
    """The parser's complaint without the line it quotes, which may hold a secret."""
    problem, line = "control characters are not allowed", None
    if isinstance(error, yaml.MarkedYAMLError):
        problem = _QUOTED_WORD.sub("'...'", error.problem or error.context or "")
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark is not None else None
    place = str(path) if line is None else f"{path}:{line}"
    return ConfigError(place, [Problem("", f"is not valid YAML: {problem}")], {})
