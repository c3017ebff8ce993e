"""References held out in turn: what is learned from the others, in terms that the folds share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from spahgc._linear.low_rank import GeneComponents, loadings_of
from spahgc._linear.node_features import fit_components
from spahgc._parameters import Parameters
from spahgc._spots.rows import Spots, StandardizedRows, slide_or_half

MAX_GROUPS = 5
"""Groups of references that are held out, so that the work does not grow with the square of their number."""


@dataclass(frozen=True)
class Fold:
    """Some references held out, and the components of the others.

    Nothing of the expression of those held out has a part in the components, in what is read off them, or in
    the scores of the others: these are their own components, turned to those of all references as far as the others tell.

    Parameters
    ----------
    rows, others
        Spots that are held out, and those that are learned from, by number.
    spots
        The others.
    components
        Of the others; their scores stand for the components of all references.
    """

    rows: np.ndarray
    others: np.ndarray
    spots: Spots
    components: GeneComponents


def hold_out_each(
    spots: Spots, components: GeneComponents, parameters: Parameters, groups: np.ndarray
) -> Iterator[Fold]:
    """Hold out every group of references once: one after another, or in five where there are more.

    Those held out together are of neighbouring names, which are often sections of one patient. Each fold is made when it
    is asked for, so that the expression of the others is copied for one of them at a time; their embedding never is.

    Parameters
    ----------
    spots
        Spots of all references.
    components
        Of all references.
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
        own = fit_components(known, parameters)
        turn = np.linalg.lstsq(own.scores, components.scores[others], rcond=None)[0]
        yield Fold(rows, others, known, _turned(own, own.scores @ turn, known))


def groups_of(spots: Spots, patients: np.ndarray | None) -> np.ndarray:
    """What is held out together: patients where two are named, else slides; two halves of a single slide."""
    if patients is not None and len(np.unique(patients)) > 1:
        return patients
    return slide_or_half(spots)


def _turned(components: GeneComponents, scores: np.ndarray, spots: Spots) -> GeneComponents:
    """The same genes, read off other scores."""
    return replace(
        components,
        scores=scores,
        loadings=loadings_of(scores, StandardizedRows.fit(spots.y, spots.slide)),
        training_loadings=loadings_of(scores, components.training_target),
    )
