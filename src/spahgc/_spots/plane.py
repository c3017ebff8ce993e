"""Nearest neighbours in the plane."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_matrix

if TYPE_CHECKING:
    pass


def nearest_in_plane(
    xy: np.ndarray, n_neighbors: int, slides: np.ndarray | None = None
) -> tuple[csr_matrix, csr_matrix]:
    """Connectivities and distances; the order of the spots does not decide which of equally near spots is taken."""
    from sklearn.neighbors import kneighbors_graph

    if n_neighbors < 1:
        raise ValueError(f"n_neighbors must be at least 1, found {n_neighbors}.")
    slides = np.zeros(len(xy), dtype=str) if slides is None else slides
    order = np.lexsort((xy[:, 1], xy[:, 0], slides))
    rows, columns, lengths = [], [], []
    for name in np.unique(slides):
        members = order[slides[order] == name]
        if len(members) < 2:
            raise ValueError(f'slide "{name}" has a single spot: it has no neighbour in the plane. Leave it out.')
        k = min(n_neighbors, len(members) - 1)
        graph = kneighbors_graph(xy[members], k, mode="distance", include_self=False).tocoo()
        rows.append(members[graph.row])
        columns.append(members[graph.col])
        lengths.append(graph.data)
    where = (np.concatenate(rows), np.concatenate(columns))
    distances = np.concatenate(lengths)
    shape = (len(xy), len(xy))
    return csr_matrix((np.ones_like(distances), where), shape=shape), csr_matrix((distances, where), shape=shape)
