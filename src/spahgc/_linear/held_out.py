"""References held out in turn: what is learned from the others, and what they would say of those held out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from spahgc._linear.low_rank import GeneComponents
from spahgc._linear.node_features import fit_components
from spahgc._parameters import Parameters
from spahgc._spots.rows import Spots, slide_or_half

MAX_GROUPS = 5
"""Groups of references that are held out, so that the work does not grow with the square of their number."""


@dataclass(frozen=True)
class Fold:
    """Some references held out, and the components of the others.

    Nothing of the expression of those held out has a part in the components, in what is read off them, or in
    the scores of the others. So each fold has components of its own.

    Parameters
    ----------
    rows, others
        Spots that are held out, and those that are learned from, by number.
    spots
        The others.
    components
        Of the others.
    truth
        Scores that the spots held out have on these components, spots x components; to be compared with, and no more.
    """

    rows: np.ndarray
    others: np.ndarray
    spots: Spots
    components: GeneComponents
    truth: np.ndarray


def hold_out_each(spots: Spots, parameters: Parameters, groups: np.ndarray) -> Iterator[Fold]:
    """Hold out every group of references once: one after another, or in five where there are more.

    Those held out together are of neighbouring names, which are often sections of one patient. Each fold is made when it
    is asked for, so that the expression of the others is copied for one of them at a time; their embedding never is.

    Parameters
    ----------
    spots
        Spots of all references.
    parameters
        How components are made.
    groups
        Name of each spot's group: its slide, or its patient.
    """
    names = np.unique(groups)
    for chosen in np.array_split(names, min(MAX_GROUPS, len(names))):
        inside = np.isin(groups, chosen)
        rows, others = np.flatnonzero(inside), np.flatnonzero(~inside)
        known = spots.part(others)
        components = fit_components(known, parameters)
        yield Fold(rows, others, known, components, components.scores_of(spots.part(rows)))


def groups_of(spots: Spots, patients: np.ndarray | None) -> np.ndarray:
    """What is held out together: patients where two are named, else slides; two halves of a single slide."""
    if patients is not None and len(np.unique(patients)) > 1:
        return patients
    return slide_or_half(spots)
