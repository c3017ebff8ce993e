"""Spots of legacy ST are named by their places on the array: ``6x2``, or ``5.907x2.103`` where they were measured."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial import KDTree

from spahgc.io._files import listed

SPOT_NAME = r"(\d+(?:\.\d+)?)x(\d+(?:\.\d+)?)"
"""Names of spots: column x row of the array, whole or real-valued."""
WHOLE_NAME = r"\d+x\d+"
MEASURED = ["new_x", "new_y"]
"""Columns with the places as measured, beside the whole ones."""
SAME_PLACE = 0.06
"""Steps of the array, along either axis, by which a name and the table may differ: one of them is rounded to a tenth."""
MAX_OFF_PLACE = 0.4
"""Steps of the array, along either axis, that a measured place may lie from a whole one that it is rounded to. From 0.5 on
it is another's; 0.31 is the most in the published tables of the 1k array that were read."""


def places_of(names: pd.Index) -> NDArray[np.float64]:
    """Columns and rows that names say, spots x 2; NaN for what names no place."""
    found = pd.Series(names.astype(str).to_numpy()).str.extract(f"^{SPOT_NAME}$")
    return np.asarray(found.to_numpy(), dtype=np.float64)


def whole_names(places: NDArray[np.float64]) -> pd.Index:
    """Names by the nearest whole places."""
    return pd.Index([f"{x:.0f}x{y:.0f}" for x, y in places])


def are_whole(names: pd.Index) -> bool:
    """Whether all names say whole places."""
    return bool(names.astype(str).str.fullmatch(WHOLE_NAME).all())


def positions_in(names: pd.Index, table: pd.DataFrame, counts: object) -> NDArray[np.intp]:
    """Find the spots of the counts in a table of spots.

    Parameters
    ----------
    names
        Names of the counts' rows.
    table
        Spots, named by whole places, perhaps with the columns `new_x` and `new_y`.
    counts
        What messages call the counts.

    Returns
    -------
    Row of the table for each name; -1 for one that it does not have. Whole names are looked up; real-valued ones stand for
    the spot whose `new_x` and `new_y` they are, or where the table has no such columns, for the whole place next to them.

    Raises
    ------
    ValueError
        If two names stand for one spot.
    """
    if are_whole(names):
        return np.asarray(table.index.get_indexer(names), dtype=np.intp)
    places = places_of(names)
    known = np.isfinite(places).all(axis=1)
    found = np.full(len(names), -1, dtype=np.intp)
    if set(MEASURED) <= set(table) and len(table):
        found[known] = _nearest(places[known], table[MEASURED].to_numpy(np.float64))
    else:
        near = known & (np.abs(places - np.round(places)) <= MAX_OFF_PLACE).all(axis=1)
        found[near] = table.index.get_indexer(whole_names(places[near]))
    spots = pd.Index(found[found >= 0])
    if not spots.is_unique:
        twice = found == spots[spots.duplicated()][0]
        raise ValueError(
            f'{listed(names[twice])} of the counts "{counts}" stand for one spot of the array. Sum their counts, or keep one '
            "of them."
        )
    return found


def _nearest(places: NDArray[np.float64], measured: NDArray[np.float64]) -> NDArray[np.intp]:
    """Row of the place that is the same up to rounding; -1 where none is."""
    finite = np.flatnonzero(np.isfinite(measured).all(axis=1))
    found = np.full(len(places), -1, dtype=np.intp)
    if len(finite) and len(places):
        away, row = KDTree(measured[finite]).query(places, p=np.inf)
        found[away <= SAME_PLACE] = finite[row[away <= SAME_PLACE]]
    return found
