"""Who is whose neighbour when a map is compared: on the array, or the nearest spots where there is none."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix

from spahgc._spots.plane import nearest_distances, nearest_in_plane, within
from spahgc._spots.rows import N_HEXAGONAL

N_CANDIDATES = 8
"""Nearest spots that may be neighbours on an array: all around a spot of a square one."""
ARRAY_SHARE, ARRAY_TOLERANCE = 0.9, 0.2
"""Spots lie on an array where at least this share of them has the nearest other one at the median distance, give or take
this share of it. Legacy arrays, whose spots are printed a little off, have 0.95 and more; spots at random 0.35."""
ARRAY_REACH = 1.3
"""Neighbours on an array are at most this many pitches away: more than positions are off by, and less than the diagonal
of a square (1.41) or the second ring of a hexagonal array (1.73)."""


def neighbour_graph(xy: np.ndarray, slide: np.ndarray | None = None) -> csr_matrix:
    """The spots that each spot is compared along.

    On an array these are the spots one pitch away: six on a hexagonal array, four on a square one, fewer at the border
    of the tissue. The array is recognised by the positions; its pitch is the median distance to the nearest spot. Where
    there is none (cells, for example), they are the six nearest spots. Spots of different slides are never joined.

    Parameters
    ----------
    xy
        Spot centres, spots x 2.
    slide
        Name of each spot's slide; ``None`` for one slide.

    Returns
    -------
    Spots x spots, CSR: 1 at ``(i, j)`` where ``j`` is a neighbour of ``i``, and never at ``(i, i)``.
    """
    slide = np.zeros(len(xy), dtype=str) if slide is None else slide
    rows, columns = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for name in np.unique(slide):
        members = np.flatnonzero(slide == name)
        if len(members) > 1:
            near = _of_one_slide(xy[members]).tocoo()
            rows.append(members[near.row])
            columns.append(members[near.col])
    where = np.concatenate(rows), np.concatenate(columns)
    return csr_matrix((np.ones(len(where[0])), where), shape=(len(xy), len(xy)))


def _of_one_slide(xy: np.ndarray) -> csr_matrix:
    _, distances = nearest_in_plane(xy, N_CANDIDATES)
    nearest = nearest_distances(distances)
    pitch = float(np.median(nearest))
    regular = np.abs(nearest - pitch) <= ARRAY_TOLERANCE * pitch
    if pitch == 0 or regular.mean() < ARRAY_SHARE:
        return nearest_in_plane(xy, N_HEXAGONAL)[0]
    return within(distances, ARRAY_REACH * pitch)
