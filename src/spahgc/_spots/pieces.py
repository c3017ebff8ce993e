"""Pieces of tissue on one slide: spots that steps between neighbours join, and no edge across the gap to another piece."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from spahgc._spots.pitch import is_array
from spahgc._spots.plane import nearest_distances, nearest_in_plane, within
from spahgc._spots.scale import is_sparser, neighbours_at, or_nearest

N_CANDIDATES = 8
"""Nearest spots that may be one step away: all around a spot of a square array."""
ARRAY_REACH = 1.5
"""Pitches of an array up to which two spots are neighbours: the diagonal of a square array (1.41) is a step, the second
ring of a hexagonal one (1.73), between which and the first nothing was measured, is none."""
OPEN_REACH = 10.0
"""The same where there is no array, such as for cells, times the median distance to the nearest one. Of points at random
even the loneliest of 100,000 lies within 5."""
SMALL_PIECE = 6
"""Spots below which a piece cannot give its spots the five neighbours of the method."""
MAX_STRAY_SHARE = 0.25
"""Share of the spots in small pieces above which gaps are taken for spots that were left out, as where every other one was
drawn at random, and the slide for one piece. Organoids on Visium have 0.06 at most."""


def tissue_pieces(xy: np.ndarray, slide: np.ndarray | None = None) -> np.ndarray:
    """Number of the piece of tissue on which each spot lies.

    Spots within reach of each other are of one piece, and so are all that such steps join. Reach is 1.5 pitches on an
    array, which the positions tell, and 10 times the median distance to the nearest spot elsewhere. A slide more than a
    quarter of whose spots would be in pieces of fewer than 6 is a thinned array, and one piece.

    Parameters
    ----------
    xy
        Spot centres, spots x 2.
    slide
        Name of each spot's slide; ``None`` for one slide.

    Returns
    -------
    One whole number a spot, from 0, of spots of different slides different ones.
    """
    slide = np.zeros(len(xy), dtype=np.int64) if slide is None else np.unique(slide, return_inverse=True)[1]
    pieces, n_pieces = np.zeros(len(xy), dtype=np.int64), 0
    for members in _groups(slide):
        own = _pieces_of_one_slide(xy[members])
        pieces[members] = own + n_pieces
        n_pieces += int(own.max()) + 1
    return pieces


def nearest_in_piece(
    xy: np.ndarray, n_neighbors: int, slide: np.ndarray | None = None, step: float | None = None
) -> csr_matrix:
    """Distances to the nearest spots of the same piece of tissue (:func:`tissue_pieces`).

    A slide in one piece has the graph of :func:`~spahgc._spots.plane.nearest_in_plane`. A spot of a small piece has fewer
    neighbours, one that is alone has none.

    Parameters
    ----------
    xy
        Spot centres, spots x 2.
    n_neighbors
        Neighbours of a spot, at most.
    slide
        Name of each spot's slide; ``None`` for one slide.
    step
        Of one slide whose spots lie denser than those of its references: how far these lie apart, in its pixels. The
        neighbours of a spot are then those nearest to places at that distance, evenly around it; the nearest ones where
        it has none there. On a slide that is sparser they are the nearest, as there are no others.

    Returns
    -------
    Spots x spots, CSR: the distance at ``(i, j)`` where ``j`` is a neighbour of ``i``.

    Raises
    ------
    ValueError
        If a slide has a single spot, or no neighbour is asked for.
    """
    nearest = _nearest_in_piece(xy, n_neighbors, slide)
    if step is None or is_sparser(xy, step):
        return nearest
    rows, columns, distances = [], [], []
    for members in _groups(tissue_pieces(xy, slide)):
        graph = neighbours_at(xy[members], n_neighbors, step).tocoo()
        rows.append(members[graph.row])
        columns.append(members[graph.col])
        distances.append(graph.data)
    far = csr_matrix((np.concatenate(distances), (np.concatenate(rows), np.concatenate(columns))), shape=nearest.shape)
    return or_nearest(far, nearest)


def _nearest_in_piece(xy: np.ndarray, n_neighbors: int, slide: np.ndarray | None) -> csr_matrix:
    whole = nearest_in_plane(xy, n_neighbors, slide)[1]
    pieces = tissue_pieces(xy, slide)
    if not _crosses(whole, pieces):
        return whole
    together = np.flatnonzero(np.bincount(pieces)[pieces] > 1)  # most spots, or the slide were one piece
    near = nearest_in_plane(xy[together], n_neighbors, pieces[together])[1].tocoo()
    return csr_matrix((near.data, (together[near.row], together[near.col])), shape=whole.shape)


def describe_pieces(xy: np.ndarray, slide: np.ndarray | None = None) -> dict[str, int]:
    """How many pieces of tissue there are, ``n_pieces``, and how many of them are single spots, ``n_isolated``."""
    sizes = np.bincount(tissue_pieces(xy, slide))
    return {"n_pieces": len(sizes), "n_isolated": int((sizes == 1).sum())}


def _crosses(graph: csr_matrix, pieces: np.ndarray) -> bool:
    """Whether an edge leads from one piece to another."""
    return bool((np.repeat(pieces, np.diff(graph.indptr)) != pieces[graph.indices]).any())


def _groups(labels: np.ndarray) -> list[np.ndarray]:
    """Numbers of the spots of each label."""
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(labels[order])) + 1) if len(order) else []


def _pieces_of_one_slide(xy: np.ndarray) -> np.ndarray:
    one = np.zeros(len(xy), dtype=np.int64)
    if len(xy) < 2:
        return one
    distances = nearest_in_plane(xy, N_CANDIDATES)[1]
    pieces = connected_components(within(distances, _reach(distances)), directed=False)[1].astype(np.int64)
    in_small = np.bincount(pieces)[pieces] < min(SMALL_PIECE, len(xy))
    return one if in_small.mean() > MAX_STRAY_SHARE else pieces


def _reach(distances: csr_matrix) -> float:
    """Distance up to which spots are one step apart; distances to the nearest spots, a row a spot."""
    nearest = nearest_distances(distances)
    pitch = float(np.median(nearest))
    if pitch == 0:  # spots in the same place say nothing of how far others are
        return np.inf
    return pitch * (ARRAY_REACH if is_array(nearest) else OPEN_REACH)
