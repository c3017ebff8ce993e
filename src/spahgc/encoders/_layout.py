"""Which columns of an embedding show what: the levels of a network, and blocks of columns read from a record alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

from spahgc.encoders._record import PATCH_CONTEXT

STATISTICS = 2
"""Blocks of a level: its mean over the plane, then its standard deviation over the plane."""

NO_LEVELS_TEXT = "none"

_NUMBER = r"[0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?"
_TEXT = re.compile(
    r"(?:areas (?P<areas>none|[1-9][0-9]*(?:,[1-9][0-9]*)*); tile (?P<tile_dim>[1-9][0-9]*); )?"
    rf"(?:scales (?P<scales>{_NUMBER}(?:,{_NUMBER})*)|widths (?P<widths>{_NUMBER}(?:,{_NUMBER})*) um); "
    rf"levels (?P<levels>{NO_LEVELS_TEXT}|[1-9][0-9]*(?:,[1-9][0-9]*)*); "
    r"rotations (?P<rotations>[1-9][0-9]*)"
)


@dataclass(frozen=True)
class Levels:
    """Intermediate levels of a network whose statistics over the plane are features, from shallow to deep.

    Parameters
    ----------
    indices
        Which of the network's levels, counted from 0.
    widths
        Number of channels of each.
    """

    indices: tuple[int, ...]
    widths: tuple[int, ...]

    @property
    def n_columns(self) -> int:
        """How many numbers they give: mean and standard deviation of every channel."""
        return STATISTICS * sum(self.widths)


NO_LEVELS = Levels((), ())


@dataclass(frozen=True)
class Layout:
    """The blocks of columns of an embedding: scale by scale the network's output, then two blocks for every level.

    Parameters
    ----------
    scales
        Widths of the patches around a spot, multiples of the encoder's own.
    levels
        Channels of each intermediate level, from shallow to deep.
    rotations
        Quarter turns of the patch over which a block is averaged; the very first block is that of the upright patch.
    widths_um
        Widths of patches beside those of the scales, microns.
    areas
        Where spots share tiles: channels of the intermediate levels of which the mean over a spot's area is a block. They
        stand before all others, behind the mean of the network's last map; ``None`` where every spot has its own patch.
    tile_dim
        Length of the network's output for such a tile.
    """

    scales: tuple[float, ...] = (1.0,)
    levels: tuple[int, ...] = ()
    rotations: int = 1
    widths_um: tuple[float, ...] = ()
    areas: tuple[int, ...] | None = None
    tile_dim: int = 0

    @property
    def n_patches(self) -> int:
        """Patches of different width around a spot."""
        return len(self.scales) + len(self.widths_um)

    @property
    def has_one_block(self) -> bool:
        """Whether there is nothing beside the network's output for the patch itself."""
        return self.n_patches == 1 and not self.levels and self.areas is None

    def widths(self, dim: int) -> list[int]:
        """Columns of every block, for a network whose output, or last map, has `dim` numbers."""
        of_levels = [width for width in self.levels for _ in range(STATISTICS)]
        if self.areas is None:
            return [dim, *of_levels] * self.n_patches
        return [dim, *self.areas] + [self.tile_dim, *of_levels] * self.n_patches


def write_layout(layout: Layout) -> str:
    """The `context` of an encoder record; :func:`parse_layout` reads it."""
    if layout.has_one_block:
        return PATCH_CONTEXT
    patches = f"widths {_joined(layout.widths_um)} um" if layout.widths_um else f"scales {_joined(layout.scales)}"
    areas = "" if layout.areas is None else f"areas {_levels_text(layout.areas)}; tile {layout.tile_dim}; "
    return f"{areas}{patches}; levels {_levels_text(layout.levels)}; rotations {layout.rotations}"


def _levels_text(widths: tuple[int, ...]) -> str:
    return ",".join(str(width) for width in widths) or NO_LEVELS_TEXT


def _level_widths(text: str) -> tuple[int, ...]:
    return () if text == NO_LEVELS_TEXT else tuple(int(width) for width in text.split(","))


def _joined(numbers: tuple[float, ...]) -> str:
    return ",".join(str(int(number)) if number.is_integer() else repr(number) for number in numbers)


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(number) for number in text.split(","))


def parse_layout(text: str) -> Layout | None:
    """Read what :func:`write_layout` wrote; ``None`` for anything else, such as the context of a user's own encoder."""
    if text == PATCH_CONTEXT:
        return Layout()
    match = _TEXT.fullmatch(text)
    if match is None:
        return None
    layout = Layout(
        scales=_numbers(match["scales"] or "1"),
        widths_um=_numbers(match["widths"]) if match["widths"] else (),
        levels=_level_widths(match["levels"]),
        rotations=int(match["rotations"]),
        areas=None if match["areas"] is None else _level_widths(match["areas"]),
        tile_dim=int(match["tile_dim"] or 0),
    )
    # A text that only looks alike, such as "scales 1.0", is not ours.
    return layout if write_layout(layout) == text else None


def context_blocks(record: Mapping[str, Any], n_columns: int) -> list[slice]:
    """The blocks of columns of an embedding, in their order; together they are all of its columns.

    Parameters
    ----------
    record
        The entry of ``uns["spahgc"]["embeddings"]``, also as read from a file; empty where there is none.
    n_columns
        Columns of the embedding.

    Returns
    -------
    A slice a block: for every scale the network's output, then mean and standard deviation over the plane of each
    level; before them, where spots share tiles, the means of the network's last map and of each level over a spot's area.
    A single slice where there is no context, or none that this package wrote.

    Raises
    ------
    ValueError
        If the record tells of blocks that are not so many columns together.
    """
    context = str(record.get("context", PATCH_CONTEXT))
    layout = parse_layout(context)
    if layout is None or layout.has_one_block:
        return [slice(0, n_columns)]
    dim = int(record["dim"])
    edges = [0, *accumulate(layout.widths(dim))]
    if edges[-1] != n_columns:
        raise ValueError(
            f'the record of the embedding tells of {edges[-1]} columns (dim {dim}, context "{context}"), but the '
            f"embedding has {n_columns}. Run spahgc.pp.embed again, or pass the embedding as it was written."
        )
    return [slice(start, stop) for start, stop in pairwise(edges)]
