"""The face that a call sees: OpenAI's, Azure's, or that of a server which only resembles them.

The APIs are the same behind all three. A face says how a key is shown, what a server of that kind
does not know, and what it adds to a stream.
"""

from __future__ import annotations

from enum import Enum


class Face(Enum):
    """Who the stand-in is taken for in one call.

    `AZURE_OLD` is Azure under an api-version from before it knew `stream_options`. `COMPATIBLE`
    ignores what it does not know, the newer `max_completion_tokens` too, as Ollama does.
    """

    OPENAI = "openai"
    AZURE = "azure"
    AZURE_OLD = "azure-old"
    COMPATIBLE = "compatible"

    @property
    def is_azure(self) -> bool:
        return self in (Face.AZURE, Face.AZURE_OLD)

    @property
    def ignores_unknown(self) -> bool:
        return self is Face.COMPATIBLE

    @property
    def knows_stream_options(self) -> bool:
        return self in (Face.OPENAI, Face.AZURE)

    @property
    def comment(self) -> bytes:
        """What goes between the events of a stream to keep it alive."""
        return b": PROCESSING\n\n" if self is Face.COMPATIBLE else b""
