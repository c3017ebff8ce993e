"""A slide in blocks of neighbouring spots, and the halo around a block."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix


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
