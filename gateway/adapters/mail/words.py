"""The words of letters: templates that ship with the package, or an operator's own in their place.

`<kind>.txt` opens with the subject, then an empty line, then paragraphs; `page.html` is what they
look like as a page. Both are `string.Template`s: `$name` is a figure, `$$` a dollar. What is put
into the page is escaped. A template that names a figure there is not is refused before traffic.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

from gateway.core.notices import KINDS
from gateway.ports.mail import Letter

FIGURES = (
    "user", "tier", "percent", "used", "limit", "left", "reset",
    "pack_left", "pack_tokens", "pack_ends",
)  # fmt: skip
_PARTS = ("subject", "paragraphs", "ways_on", "unsubscribe_url")
_PAGE = "page.html"
_TEST = "test"


class TemplateError(ValueError):
    """A template cannot be used; the text names the file and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Words:
    """A letter as it is read: `subject` is one line."""

    subject: str
    text: str
    html: str


class Templates:
    """All templates, read once. `folder`: an operator's own, each in place of ours."""

    def __init__(self, folder: Path | None = None) -> None:
        ours = files(__package__) / "templates"
        self._texts: dict[str, Template] = {}
        for name in (*(f"{kind}.txt" for kind in (*KINDS, _TEST)), _PAGE):
            own = None if folder is None else folder / name
            try:
                is_own = own is not None and own.is_file()
                text = (
                    own.read_text("utf-8") if own and is_own else (ours / name).read_text("utf-8")
                )
            except (OSError, UnicodeDecodeError) as error:
                raise TemplateError(f"{own}: {error}") from error
            self._texts[name] = _checked(own if own and is_own else Path(name), text)

    def words(self, letter: Letter) -> Words:
        """What this letter says."""
        filled = self._texts[f"{letter.kind}.txt"].substitute(letter.figures)
        subject, _, body = filled.partition("\n")
        subject = " ".join(subject.split())
        paragraphs = [" ".join(each.split()) for each in body.split("\n\n") if each.strip()]
        ways = [f"{what}: {url}" for what, url in letter.ways_on]
        off = f"To get no more mails of this kind: {letter.unsubscribe_url}"
        text = "\n\n".join([*paragraphs, *ways, f"-- \n{off}" if letter.unsubscribe_url else ""])
        page = self._texts[_PAGE].substitute(
            subject=escape(subject),
            paragraphs="\n".join(f"<p>{escape(each)}</p>" for each in paragraphs),
            ways_on="\n".join(
                f'<p><a class="way" href="{escape(url)}">{escape(what)}</a></p>'
                for what, url in letter.ways_on
            ),
            unsubscribe_url=escape(letter.unsubscribe_url or "#"),
        )
        return Words(subject, text.rstrip() + "\n", page)


def _checked(path: Path, text: str) -> Template:
    template = Template(text)
    known = _PARTS if path.name == _PAGE else FIGURES
    try:
        template.substitute(dict.fromkeys(known, ""))
    except KeyError as error:
        raise TemplateError(
            f"{path}: there is no figure ${error.args[0]}; there are {', '.join(known)}"
        ) from None
    except ValueError as error:
        raise TemplateError(f"{path}: {error}; write $$ for a dollar") from None
    if path.name != _PAGE and not text.partition("\n")[0].strip():
        raise TemplateError(f"{path}: the first line is the subject, and it is empty")
    return template
