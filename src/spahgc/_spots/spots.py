"""Arrays of some spots, which is all that a method of prediction sees of a slide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from spahgc._spots.rows import Rows, SomeRows, dense


@dataclass(frozen=True)
class Spots:
    """Arrays of some spots.

    A target that is to be predicted has an expression of no genes: what was measured on it has no place here.

    Parameters
    ----------
    z
        Image embedding, spots x dim, any float type: an array, or :class:`Rows`, which are read in blocks only.
    xy
        Spot centres, spots x 2, pixels.
    slide
        Name of each spot's slide.
    y
        Expression of the panel, spots x genes, ``log1p`` counts per 10,000: an array, or :class:`Rows`.
    transcriptome
        Expression of the genes that the references cover best, spots x covered genes, same units: CSR, or dense rows.
    """

    z: Any
    xy: np.ndarray
    slide: np.ndarray
    y: Any
    transcriptome: Any

    def __getitem__(self, chosen: np.ndarray) -> Spots:
        return Spots(self.z[chosen], self.xy[chosen], self.slide[chosen], self.y[chosen], self.transcriptome[chosen])

    def __len__(self) -> int:
        return len(self.xy)

    def part(self, chosen: np.ndarray) -> Spots:
        """Some of the spots, by number; neither embedding nor expression is copied."""
        z, y, transcriptome = (SomeRows(dense(part), chosen) for part in (self.z, self.y, self.transcriptome))
        return Spots(z, self.xy[chosen], self.slide[chosen], y, transcriptome)

    @classmethod
    def without_expression(cls, z: Rows, xy: np.ndarray, name: str = "target") -> Spots:
        """Spots of a slide of which only image and positions are known."""
        n = len(xy)
        nothing = np.empty((n, 0), dtype=np.float32)
        return cls(z, xy, np.full(n, name), nothing, csr_matrix(nothing))


def slide_or_half(spots: Spots) -> np.ndarray:
    """The slide of every spot; a single slide is cut at the median of its longer side into two that act as slides."""
    if len(np.unique(spots.slide)) > 1:
        return spots.slide
    axis = int(np.argmax(np.ptp(spots.xy, axis=0)))
    # Ranks, not a threshold: the halves are equal also where many spots share the median coordinate.
    rank = np.argsort(np.lexsort((spots.xy[:, 1 - axis], spots.xy[:, axis])))
    return np.where(rank < len(rank) // 2, "first half", "second half")


def leave_one_out(spots: Spots) -> list[tuple[np.ndarray, np.ndarray]]:
    """Who plays the target and who is its bank, each slide (or half of a single one) in turn, as index arrays."""
    members = slide_or_half(spots)
    return [(np.flatnonzero(members == name), np.flatnonzero(members != name)) for name in np.unique(members)]
