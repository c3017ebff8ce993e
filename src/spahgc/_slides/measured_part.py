"""A target that was measured in part: the spots that a column of ``obs`` names are a reference at their own place."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from itertools import chain, count
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from spahgc._keys import Obs
from spahgc._slides.measured import MeasuredSlide
from spahgc._slides.several import library_names
from spahgc._slides.tissue import TissueRows
from spahgc._slides.units import check_units
from spahgc._validate import quoted

MIN_MEASURED_SPOTS = 20
"""Measured spots, at least, on the tissue and with counts: two halves of them, as which a single reference acts, then have
more spots than the seven neighbours of a graph, and a mean and a spread of their own."""

UNNAMED = "target"
"""Name of the measured part of a slide that has no name."""

ROLE = "the measured part of"
"""How messages call the measured part, before the name of its slide."""


@dataclass(frozen=True)
class MeasuredPart:
    """The spots of a target that were measured, and the reference that they are.

    Nothing of any other spot but its place and its look is ever read for them.

    Parameters
    ----------
    column
        Column of ``obs`` that names them.
    spots
        Which they are among all spots of the target, boolean; those off the tissue are not among them.
    slide
        Them alone, as a measured slide under a name that no other reference has.
    n_targets
        Spots of the target on the tissue that were not measured, so that they are predicted.
    """

    column: str
    spots: np.ndarray
    slide: MeasuredSlide
    n_targets: int

    def outside(self, values: Any) -> Any:
        """Values of all spots, of which those of measured ones become NaN, of a sparse matrix empty; ``None`` stays."""
        others = TissueRows(~self.spots)
        return others.in_place(others.only(values))

    def record(self) -> dict[str, Any]:
        """What ``uns`` says of it: column, name as a reference, spots used as reference, and spots predicted."""
        return {
            "column": self.column,
            "reference": self.slide.name,
            "n_measured": int(self.slide.measured.sum()),
            "n_predicted": self.n_targets,
        }


def measured_part(
    target: AnnData,
    column: str,
    rows: TissueRows,
    *,
    others: Collection[str] = (),
    layer: str | None = None,
    units: str | None = None,
    hold: bool = True,
) -> MeasuredPart:
    """Take the measured spots of a target as a reference, and check them.

    Parameters
    ----------
    target
        The slide.
    column
        Boolean column of its ``obs``, True where a spot was measured.
    rows
        Which of its spots lie on the tissue.
    others
        Names of the other references.
    layer, units
        Where their counts lie and what these are, as of every reference.
    hold
        Keep what was read of the counts.

    Raises
    ------
    KeyError
        If there is no such column, or no such layer.
    TypeError
        If `column` is no text.
    ValueError
        If the column is not boolean, if it names all spots or fewer than 20 with counts, or if their counts are missing,
        NaN or infinite.
    """
    check_units(units)
    named = _named(target, column)
    on_tissue = np.ones(target.n_obs, dtype=bool) if rows.on_tissue is None else rows.on_tissue
    spots = named & on_tissue
    n_targets = int((~named & on_tissue).sum())
    if not n_targets:
        raise ValueError(
            f'obs["{column}"] is True in all {int(on_tissue.sum())} spots of the target, so that nothing is left to predict. '
            "It must be False where a spot was not measured."
        )
    if spots.sum() < MIN_MEASURED_SPOTS:
        raise ValueError(_too_few(column, int(spots.sum()), "of the target on the tissue"))
    if not target.n_vars or (target.X is None and layer is None):
        raise ValueError(
            f'obs["{column}"] names measured spots, and the target has no {"counts" if target.n_vars else "genes"}. Read the '
            "counts of the measured spots into it, or leave measured= out."
        )
    slide = MeasuredSlide(target[spots], _name(target, others), layer=layer, units=units, role=ROLE, hold=hold)
    n_with_counts = int(slide.measured.sum())
    if n_with_counts < MIN_MEASURED_SPOTS:
        raise ValueError(_too_few(column, n_with_counts, "of the target with counts"))
    return MeasuredPart(column, spots, slide, n_targets)


def _named(target: AnnData, column: str) -> np.ndarray:
    """The spots that a column says were measured; refuses what is no boolean column."""
    if not isinstance(column, str):
        raise TypeError(
            f"measured= must be the name of a boolean column of obs, found {type(column).__name__}. Write which spots were "
            'measured into target.obs["measured"] and pass measured="measured".'
        )
    if column not in target.obs:
        raise KeyError(
            f'obs["{column}"] not found in the target, obs has {quoted(target.obs)}. Pass measured= with a boolean column, True '
            "where a spot was measured."
        )
    values = target.obs[column]
    # The nullable type of pandas is boolean as well, a category of True and False is not.
    if not isinstance(values.dtype, pd.BooleanDtype) and values.dtype != np.dtype(bool):
        raise ValueError(
            f'obs["{column}"] of the target must be boolean, True where a spot was measured, found {values.dtype} with the '
            f'values {quoted(pd.unique(values))}. Write target.obs["{column}"] = target.obs["{column}"] == ... first.'
        )
    missing = int(values.isna().sum())
    if missing:
        raise ValueError(
            f'obs["{column}"] of the target is missing in {missing} of {len(values)} spots. It must be True or False in every '
            "spot."
        )
    return values.to_numpy(dtype=bool)


def _too_few(column: str, found: int, which: str) -> str:
    return (
        f'obs["{column}"] names {found} spots {which} as measured, at least {MIN_MEASURED_SPOTS} are needed to learn from '
        "them. Name more, or leave measured= out."
    )


def _name(target: AnnData, others: Collection[str]) -> str:
    """Name of the target's slide, by ``obs`` or its only library, made different from those of the other references."""
    name = UNNAMED
    libraries = library_names(target)
    if len(libraries) == 1:
        name = libraries[0]
    for column in (Obs.library, Obs.slide):
        if column in target.obs and target.obs[column].nunique() == 1:
            name = str(target.obs[column].dropna().iloc[0])
    candidates = chain([name, f"{name} (measured part)"], (f"{name} (measured part {n})" for n in count(2)))
    return next(candidate for candidate in candidates if candidate not in others)
