"""Every reference held out once: what a line that has not seen it says of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from spahgc._basis import TissueLine, make_components
from spahgc._components import Components
from spahgc._presets import Parameters
from spahgc._spots import Spots, halves

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
    components: Components
    scores: np.ndarray

    def predicted(self) -> np.ndarray:
        """The panel, spots x genes, ``log1p`` counts per 10,000."""
        return self.components.decode(self.scores)


def hold_out_each(spots: Spots, blocks: tuple[tuple[int, int], ...], parameters: Parameters) -> list[HeldOut]:
    """Hold out every reference once: one after another, or in five groups where there are more.

    Groups are of neighbouring names, which are often sections of one patient.

    Parameters
    ----------
    spots
        Spots of all references.
    blocks
        Columns of the embedding that belong together.
    parameters
        How the line is made.
    """
    members = halves(spots)
    groups = np.array_split(np.unique(members), min(MAX_GROUPS, len(np.unique(members))))
    return [
        _hold_out(spots, np.flatnonzero(held_out), np.flatnonzero(~held_out), blocks, parameters)
        for held_out in (np.isin(members, names) for names in groups)
    ]


def _hold_out(
    spots: Spots,
    rows: np.ndarray,
    others: np.ndarray,
    blocks: tuple[tuple[int, int], ...],
    parameters: Parameters,
) -> HeldOut:
    known = spots[others]
    unseen = replace(Spots.without_expression(spots.z[rows], spots.xy[rows]), slide=spots.slide[rows])
    components = make_components(known, parameters)
    line = TissueLine.of(known, blocks, components, parameters)
    return HeldOut(rows, components, line.predict(unseen))
