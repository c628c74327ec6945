"""How many tokens a picture is: rules by family of models, and counting by them.

A picture in a data: URL is measured from its header; one at an address, or one whose header cannot
be read, costs the most its detail can. No picture costs more than its rule's most, however large it
says it is, and none is ever counted as text. OpenAI says that its bill may differ by one token.

Source of rules and numbers: OpenAI, "Images and vision" (developers.openai.com/api/docs/guides/
images-vision), as it stood from August to November 2026; where its copies differ, the later one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, floor, sqrt
from types import MappingProxyType
from typing import Final, Protocol

from gateway.core.prompt.picture_size import Size, picture_size

PATCH_PX: Final = 32
TILE_PX: Final = 512
_LONGER_PX_MAX: Final = 2048  # of tiles: first the longer side is made to fit,
_SHORTER_PX_MAX: Final = 768  # then the shorter one
_TILES_MAX: Final = 8  # 2048 x 768; a square has 4


class PictureRule(Protocol):
    """What a picture costs. `detail` is the request's, None where it names none; one that the rule
    does not know costs what its dearest does."""

    def most_tokens(self, detail: str | None) -> int:
        """The most that any picture of this detail can cost."""
        ...

    def tokens(self, size: Size, detail: str | None) -> int:
        """What a picture of this size costs, as OpenAI scales it down; never above the most."""
        ...


@dataclass(frozen=True, slots=True)
class FlatRule:
    """Every picture costs the same: for models whose rule is not known here."""

    each: int

    def most_tokens(self, detail: str | None) -> int:
        return self.each

    def tokens(self, size: Size, detail: str | None) -> int:
        return self.each


@dataclass(frozen=True, slots=True)
class TileRule:
    """A base, and so much for each tile of 512 x 512; at low detail only the base."""

    base: int
    tile: int

    def most_tokens(self, detail: str | None) -> int:
        return self.base if detail == "low" else self.base + _TILES_MAX * self.tile

    def tokens(self, size: Size, detail: str | None) -> int:
        if detail == "low":
            return self.base
        shorter, longer = sorted(size)
        if longer > _LONGER_PX_MAX:
            shorter, longer = max(1, shorter * _LONGER_PX_MAX // longer), _LONGER_PX_MAX
        if shorter > _SHORTER_PX_MAX:
            shorter, longer = _SHORTER_PX_MAX, longer * _SHORTER_PX_MAX // shorter
        tiles = -(-shorter // TILE_PX) * -(-longer // TILE_PX)
        return self.base + min(tiles, _TILES_MAX) * self.tile


@dataclass(frozen=True, slots=True)
class Level:
    """A detail of a rule by patches: how long a side may be, and how many patches there may be,
    before a picture is scaled down."""

    side_px_max: int
    patches_max: int

    @property
    def most_patches(self) -> int:
        """A square of the longest sides, or the budget of patches."""
        return min(self.patches_max, ceil(self.side_px_max / PATCH_PX) ** 2)

    def patches(self, size: Size) -> int:
        """Patches of 32 x 32 once the picture fits."""
        width, height = size
        longer = max(size)
        if longer > self.side_px_max:
            width, height = (max(1, round(side * self.side_px_max / longer)) for side in size)
        patches = _patches(width, height)
        if patches > self.patches_max:
            scale = sqrt(PATCH_PX**2 * self.patches_max / (width * height))
            across, down = width * scale / PATCH_PX, height * scale / PATCH_PX
            scale *= min(floor(across) / across, floor(down) / down)
            patches = _patches(floor(width * scale), floor(height * scale))
        return min(patches, self.most_patches)


@dataclass(frozen=True, slots=True)
class PatchRule:
    """So many hundredths of a token for each patch of 32 x 32. `auto` is what no detail means, and
    `original` the dearest."""

    token_hundredths: int
    low: Level
    high: Level
    auto: Level
    original: Level

    def most_tokens(self, detail: str | None) -> int:
        return self._tokens(self._level(detail).most_patches)

    def tokens(self, size: Size, detail: str | None) -> int:
        return self._tokens(self._level(detail).patches(size))

    def _level(self, detail: str | None) -> Level:
        known = {"low": self.low, "high": self.high, "auto": self.auto}
        return known.get(detail or "auto", self.original)

    def _tokens(self, patches: int) -> int:
        return -(-patches * self.token_hundredths // 100)


def count_picture(url: str, detail: str | None, rule: PictureRule) -> int:
    """Tokens of a picture by its URL: measured where it is a data: URL, else the most."""
    size = picture_size(url)
    return rule.most_tokens(detail) if size is None else rule.tokens(size, detail)


def _patches(width: int, height: int) -> int:
    return -(-width // PATCH_PX) * -(-height // PATCH_PX)


_SMALL: Final = Level(512, 256)
_WIDE: Final = Level(2048, 6144)  # the sides allow 4,096 of them
_HIGH: Final = Level(2048, 2500)
_LARGE: Final = Level(6000, 10_000)
# No budget, but a picture of more than 30,000 patches is refused by OpenAI.
_WHOLE: Final = Level(65_535, 30_000)

PICTURE_RULES: Final[Mapping[str, PictureRule]] = MappingProxyType(
    {
        "gpt-4o": TileRule(85, 170),  # and gpt-4.1
        "gpt-4o-mini": TileRule(2833, 5667),
        "gpt-5": TileRule(70, 140),  # and gpt-5.1
        "o3": TileRule(75, 150),  # and o1
        "gpt-4.1-mini": PatchRule(162, _WIDE, _WIDE, _WIDE, _WIDE),
        "gpt-5.2": PatchRule(120, _WIDE, _WIDE, _WIDE, _WIDE),
        "gpt-5.4": PatchRule(120, _WIDE, _HIGH, _HIGH, _LARGE),  # and its mini and nano
        "gpt-5.5": PatchRule(120, _SMALL, _HIGH, _LARGE, _LARGE),
        # And gpt-6, which the guide's table does not name in every copy: the dearest rule there is.
        "gpt-5.6": PatchRule(120, _SMALL, _HIGH, _WHOLE, _WHOLE),
    }
)
"""The rules by name, each the name of the family that OpenAI states it for."""
