"""Arrays of some spots, which is all that a method of prediction sees of a slide."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix


@dataclass(frozen=True)
class Spots:
    """Arrays of some spots.

    A target that is to be predicted has an expression of no genes: what was measured on it has no place here.

    Parameters
    ----------
    z
        Image embedding, spots x dim, float32.
    xy
        Spot centres, spots x 2, pixels.
    slide
        Name of each spot's slide.
    y
        Expression of the panel, spots x genes, ``log1p`` counts per 10,000.
    transcriptome
        Expression of the genes that the references cover best, CSR, spots x covered genes, same units.
    """

    z: np.ndarray
    xy: np.ndarray
    slide: np.ndarray
    y: np.ndarray
    transcriptome: csr_matrix

    def __getitem__(self, chosen: np.ndarray) -> Spots:
        return Spots(self.z[chosen], self.xy[chosen], self.slide[chosen], self.y[chosen], self.transcriptome[chosen])

    def __len__(self) -> int:
        return len(self.z)

    @classmethod
    def without_expression(cls, z: np.ndarray, xy: np.ndarray, name: str = "target") -> Spots:
        """Spots of a slide of which only image and positions are known."""
        n = len(z)
        nothing = np.empty((n, 0), dtype=np.float32)
        return cls(z, xy, np.full(n, name), nothing, csr_matrix(nothing))


def halves(spots: Spots) -> np.ndarray:
    """The slide of every spot; a single slide is cut at the median of its longer side into two that act as slides."""
    if len(np.unique(spots.slide)) > 1:
        return spots.slide
    axis = int(np.argmax(np.ptp(spots.xy, axis=0)))
    # Ranks, not a threshold: the halves are equal also where many spots share the median coordinate.
    rank = np.argsort(np.lexsort((spots.xy[:, 1 - axis], spots.xy[:, axis])))
    return np.where(rank < len(rank) // 2, "first half", "second half")


def roles(spots: Spots) -> list[tuple[np.ndarray, np.ndarray]]:
    """Who plays the target and who is its bank, each slide (or half of a single one) in turn, as index arrays."""
    members = halves(spots)
    return [(np.flatnonzero(members == name), np.flatnonzero(members != name)) for name in np.unique(members)]
