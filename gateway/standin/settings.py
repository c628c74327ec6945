"""What a stand-in is told when it is made.

Counting tokens is one of these things: whoever makes a stand-in brings the tokenizer, so that this
package needs none and a test can count words.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.standin.counting import CountTokens


@dataclass(frozen=True, slots=True)
class StandInSettings:
    """Port 0: any free one. `reserved`: whoever holds the port lets us listen there too.
    `chunk_tokens` is how much text one event of a stream carries.

    With `require_key`, any other key is answered 401; without, no key is looked at. `compatible`:
    under /v1 it is a server that only resembles OpenAI, see `Face.COMPATIBLE`.
    """

    count_tokens: CountTokens
    host: str = "127.0.0.1"
    port: int = 0
    reserved: bool = False
    chunk_tokens: int = 4
    require_key: str | None = None
    compatible: bool = False
    models: tuple[str, ...] = ("gpt-6-luna", "gpt-4o-mini", "gpt-4o")

    def __post_init__(self) -> None:
        if self.chunk_tokens < 1:
            raise ValueError(f"chunk_tokens is {self.chunk_tokens}: expected 1 or more")
