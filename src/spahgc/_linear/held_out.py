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

NEVER = -1
"""Fold of spots that are never held out."""


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
    """Hold out every group of references once, in the folds of :func:`folds_of`.

    Parameters
    ----------
    spots
        Spots of all references.
    parameters
        How components are made.
    groups
        Name of each spot's group: its slide, or its patient.
    """
    yield from hold_out_folds(spots, parameters, folds_of(groups))


def hold_out_folds(spots: Spots, parameters: Parameters, folds: np.ndarray) -> Iterator[Fold]:
    """Hold out every fold once.

    Each is made when it is asked for, so that the expression of the others is copied for one of them at a time; their
    embedding never is.

    Parameters
    ----------
    spots
        Spots of all references.
    parameters
        How components are made.
    folds
        Number of each spot's fold; :data:`NEVER` for those that always stay among the others.
    """
    for fold in range(folds.max() + 1):
        rows, others = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        known = spots.part(others)
        components = fit_components(known, parameters)
        yield Fold(rows, others, known, components, components.scores_of(spots.part(rows)))


def folds_of(groups: np.ndarray) -> np.ndarray:
    """Number of each spot's fold: one for each group, or five where there are more, those of neighbouring names together.

    Slides of neighbouring names are often sections of one patient.
    """
    names, of_spot = np.unique(groups, return_inverse=True)
    chosen = np.array_split(np.arange(len(names)), min(MAX_GROUPS, len(names)))
    return np.repeat(np.arange(len(chosen)), [len(part) for part in chosen])[of_spot]


def folds_of_sections(slide: np.ndarray, patients: np.ndarray) -> np.ndarray:
    """Number of each spot's fold, such that another section of its patient stays among the others.

    Parameters
    ----------
    slide, patients
        Names of each spot's slide and patient.

    Returns
    -------
    At most five folds; :data:`NEVER` for the slides of patients with one section.
    """
    folds = np.full(len(slide), NEVER)
    for patient in np.unique(patients):
        sections = np.unique(slide[patients == patient])
        if len(sections) > 1:
            for i, name in enumerate(sections):
                folds[slide == name] = i % MAX_GROUPS
    return folds


def groups_of(spots: Spots, patients: np.ndarray | None) -> np.ndarray:
    """What is held out together: patients where two are named, else slides; two halves of a single slide."""
    if patients is not None and len(np.unique(patients)) > 1:
        return patients
    return slide_or_half(spots)
