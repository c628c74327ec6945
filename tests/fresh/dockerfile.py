"""The part of the Dockerfile language that ours is written in, read into plain values.

It promises to refuse what it does not know, so that an instruction is never passed over. It
knows nothing of images, layers or engines.
"""

import json
import re
from dataclasses import dataclass

KNOWN = {
    *("FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "VOLUME", "EXPOSE"),
    *("STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD"),
}


@dataclass(frozen=True, slots=True)
class Instruction:
    word: str
    text: str

    def exec_form(self) -> list[str]:
        """The words of `["a", "b"]`; an error for the shell form, which would eat signals."""
        words = json.loads(self.text[self.text.index("[") :])
        assert isinstance(words, list)
        assert all(isinstance(word, str) for word in words)
        return words


@dataclass(frozen=True, slots=True)
class Stage:
    name: str
    base: str
    instructions: tuple[Instruction, ...]

    def all(self, word: str) -> list[Instruction]:
        return [instruction for instruction in self.instructions if instruction.word == word]

    def last(self, word: str) -> Instruction:
        return self.all(word)[-1]


def read_stages(text: str) -> list[Stage]:
    """The stages of a Dockerfile in order; ValueError for an instruction we do not know."""
    without_comments = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE)
    joined = re.sub(r"\\\n\s*", "", without_comments)
    stages: list[Stage] = []
    for line in filter(None, map(str.strip, joined.splitlines())):
        word, _, rest = line.partition(" ")
        if word not in KNOWN:
            raise ValueError(f"not an instruction that this project uses: {line}")
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            stages.append(Stage(name or str(len(stages)), base, ()))
        else:
            last = stages.pop()
            added = (*last.instructions, Instruction(word, rest.strip()))
            stages.append(Stage(last.name, last.base, added))
    return stages
