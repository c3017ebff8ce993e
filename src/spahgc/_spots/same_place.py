"""Spots of several slides that lie at the same place, once the slides were laid over each other."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix
from scipy.spatial import KDTree


def nearest_on_each(
    xy: np.ndarray, others: np.ndarray, slide: np.ndarray | None, n_neighbors: int, reach: float
) -> csr_matrix:
    """The nearest spots of every other slide, as far as they lie within reach.

    Parameters
    ----------
    xy
        Where the spots lie, spots x 2.
    others
        Where the spots of other slides lie in the same frame, others x 2; NaN where nobody knows.
    slide
        Name of the slide of each of these; ``None`` where all are of one.
    n_neighbors
        Spots of a slide that a spot is joined to, at most.
    reach
        Distance beyond which a spot does not lie at the same place, in the unit of the places.

    Returns
    -------
    Spots x others, CSR, float32, values = distances, a stored 0 where two lie at the very same place; columns of a row sorted.
    """
    known = np.flatnonzero(np.isfinite(others).all(axis=1))
    names = np.zeros(len(known)) if slide is None else slide[known]
    rows, columns, distances = [np.empty(0, np.int64)], [np.empty(0, np.int64)], [np.empty(0)]
    for name in np.unique(names):
        members = known[names == name]
        count = np.arange(1, min(n_neighbors, len(members)) + 1)
        distance, nearest = KDTree(others[members]).query(xy, k=count, distance_upper_bound=reach)
        row, rank = np.nonzero(np.isfinite(distance))
        rows.append(row)
        columns.append(members[nearest[row, rank]])
        distances.append(distance[row, rank])
    ends = np.concatenate(rows), np.concatenate(columns)
    values = np.concatenate(distances).astype(np.float32)
    return csr_matrix((values, ends), shape=(len(xy), len(others)))
