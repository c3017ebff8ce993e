"""Spots in the plane: nearest neighbours, blocks of neighbouring spots, and the halo around a block."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix


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
    ends = np.flatnonzero(slides[order][1:] != slides[order][:-1]) + 1
    for members in np.split(order, ends):
        if len(members) < 2:
            raise ValueError(
                f'slide "{slides[members[0]]}" has a single spot: it has no neighbour in the plane. Leave it out.'
            )
        k = min(n_neighbors, len(members) - 1)
        graph = kneighbors_graph(xy[members], k, mode="distance", include_self=False).tocoo()
        rows.append(members[graph.row])
        columns.append(members[graph.col])
        lengths.append(graph.data)
    where = (np.concatenate(rows), np.concatenate(columns))
    distances = np.concatenate(lengths)
    shape = (len(xy), len(xy))
    return csr_matrix((np.ones_like(distances), where), shape=shape), csr_matrix((distances, where), shape=shape)


def nearest_distances(distances: csr_matrix) -> np.ndarray:
    """Distance of every spot to its nearest one, from those to some of the nearest, of which each has one at least."""
    return np.minimum.reduceat(distances.data, distances.indptr[:-1])


def within(distances: csr_matrix, reach: float) -> csr_matrix:
    """Connectivities of those pairs that lie no further apart than that."""
    entries = distances.tocoo()
    kept = entries.data <= reach
    return csr_matrix((np.ones(int(kept.sum())), (entries.row[kept], entries.col[kept])), shape=distances.shape)


def spatial_blocks(xy: np.ndarray, size: int) -> list[np.ndarray]:
    """Cut a slide at the median of its longer side, and its parts again, until no part has more spots than ``size``.

    Parameters
    ----------
    xy
        Spot centres, spots x 2.
    size
        Spots of a block, at most; all have at least nearly half of that, unless the slide is smaller.

    Returns
    -------
    Numbers of the spots of each block, ascending; blocks that follow each other are neighbours, mostly.
    """
    waiting, blocks = [np.arange(len(xy))], []
    while waiting:
        rows = waiting.pop()
        if len(rows) <= size:
            blocks.append(np.sort(rows))
            continue
        axis = int(np.argmax(np.ptp(xy[rows], axis=0)))
        order = np.lexsort((xy[rows, 1 - axis], xy[rows, axis]))
        waiting += [rows[order[len(rows) // 2 :]], rows[order[: len(rows) // 2]]]
    return blocks


def with_halo(block: np.ndarray, near: csr_matrix, hops: int) -> np.ndarray:
    """The spots of a block, and then those that a chain of so many edges joins to them.

    Parameters
    ----------
    block
        Numbers of the spots.
    near
        Graph, spots x spots: a row receives from its columns.
    hops
        Edges of the longest chain.
    """
    halo = reached(block, near, hops)
    return np.concatenate([block, np.setdiff1d(halo, block, assume_unique=True)])


def reached(nodes: np.ndarray, graph: csr_matrix, hops: int) -> np.ndarray:
    """The nodes, without repetition, and those from which a chain of so many edges leads to them; ascending."""
    found = outermost = np.unique(nodes)
    for _ in range(hops):
        outermost = np.setdiff1d(graph[outermost].indices, found)
        found = np.union1d(found, outermost)
    return found
