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
    """

    scales: tuple[float, ...] = (1.0,)
    levels: tuple[int, ...] = ()
    rotations: int = 1
    widths_um: tuple[float, ...] = ()

    @property
    def n_patches(self) -> int:
        """Patches of different width around a spot."""
        return len(self.scales) + len(self.widths_um)

    @property
    def has_one_block(self) -> bool:
        """Whether there is nothing beside the network's output for the patch itself."""
        return self.n_patches == 1 and not self.levels

    def widths(self, dim: int) -> list[int]:
        """Columns of every block, for a network whose output has `dim` numbers."""
        of_levels = [width for width in self.levels for _ in range(STATISTICS)]
        return [dim, *of_levels] * self.n_patches


def write_layout(layout: Layout) -> str:
    """The `context` of an encoder record; :func:`parse_layout` reads it."""
    if layout.has_one_block:
        return PATCH_CONTEXT
    patches = f"widths {_joined(layout.widths_um)} um" if layout.widths_um else f"scales {_joined(layout.scales)}"
    levels = ",".join(str(width) for width in layout.levels) or NO_LEVELS_TEXT
    return f"{patches}; levels {levels}; rotations {layout.rotations}"


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
    levels = "" if match["levels"] == NO_LEVELS_TEXT else match["levels"]
    layout = Layout(
        scales=_numbers(match["scales"] or "1"),
        widths_um=_numbers(match["widths"]) if match["widths"] else (),
        levels=tuple(int(width) for width in levels.split(",") if width),
        rotations=int(match["rotations"]),
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
    level. A single slice where there is no context, or none that this package wrote.

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
