"""Every reference held out once: what a line that has not seen it says of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from spahgc._linear.gene_components import GeneComponents
from spahgc._linear.node_features import ImageRidge, fit_components
from spahgc._parameters import Parameters
from spahgc._spots.rows import SomeRows
from spahgc._spots.spots import Spots, slide_or_half

MAX_GROUPS = 5
"""Groups of references that are held out, so that the work does not grow with the square of their number."""


@dataclass(frozen=True)
class HeldOut:
    """A reference, one half of a single one, or a group of them, predicted by the others.

    Nothing of its expression has a part in it: axes, components and line are those of the other references.

    Parameters
    ----------
    rows
        Its spots.
    components
        Components of the others.
    scores
        Scores on them that the line gives to its spots, spots x components.
    """

    rows: np.ndarray
    components: GeneComponents
    scores: np.ndarray

    def predicted(self) -> np.ndarray:
        """The panel, spots x genes, ``log1p`` counts per 10,000, float32."""
        return self.components.panel(self.scores)


def hold_out_each(spots: Spots, blocks: tuple[tuple[int, int], ...], parameters: Parameters) -> Iterator[HeldOut]:
    """Hold out every reference once: one after another, or in five groups where there are more.

    Groups are of neighbouring names, which are often sections of one patient. Each is made when it is asked for, so that
    the expression of the others is copied for one of them at a time; their embedding never is.

    Parameters
    ----------
    spots
        Spots of all references.
    blocks
        Columns of the embedding that belong together.
    parameters
        How the line is made.
    """
    members = slide_or_half(spots)
    groups = np.array_split(np.unique(members), min(MAX_GROUPS, len(np.unique(members))))
    for names in groups:
        held_out = np.isin(members, names)
        yield _hold_out(spots, np.flatnonzero(held_out), np.flatnonzero(~held_out), blocks, parameters)


def _hold_out(
    spots: Spots,
    rows: np.ndarray,
    others: np.ndarray,
    blocks: tuple[tuple[int, int], ...],
    parameters: Parameters,
) -> HeldOut:
    known = spots.part(others)
    unseen = replace(Spots.without_expression(SomeRows(spots.z, rows), spots.xy[rows]), slide=spots.slide[rows])
    components = fit_components(known, parameters)
    line = ImageRidge.fit(known, blocks, components, parameters)
    return HeldOut(rows, components, line.predict(unseen))
