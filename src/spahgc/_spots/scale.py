"""How wide surroundings are in microns: neighbours by their number where spots lie as dense as the references', by a radius elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, diags
from scipy.spatial import KDTree

from spahgc._spots.pitch import PITCH_UM, spot_spacing
from spahgc._spots.plane import nearest_in_plane

SAME_SPACING = 0.15
"""Relative difference of two spacings up to which spots count as equally dense, and neighbours by their number: printed arrays
and the shrinkage of tissue differ by less, arrays of different kinds by more."""

LEAST_DISTANCE = 0.45
"""Spots nearer than that, in spacings of the references, are on the same spot there, and not around it."""

LEAST_AROUND = 4
"""Nearest spots, at least, that are the surroundings of a spot: those around it on a square array. Spots that are sparser than the
references', or alone, have fewer within the radius."""

THINNED = 0.5
"""Side of the squares, in spacings of the references, of which one spot each stands for all where spots are much denser: so some
seventy spots are averaged, and memory does not grow with the square of how dense they are."""

SPOTS_OF_A_SQUARE = 2.0
"""Spots of such a square, in the mean, from which on that is done."""

ROW_BLOCK = 4096
"""Spots of which the surroundings are looked for at a time."""


@dataclass(frozen=True)
class Surroundings:
    """What neighbours of a slide are, beside those of most references.

    Parameters
    ----------
    by
        ``"count"``: the nearest spots by their number; ``"radius"``: those within a radius.
    spacing_um
        Distance of neighbouring spots of the slide, microns; ``None`` where its resolution is not known.
    wanted_um
        The distance at which its neighbours count: that of most references, or what was asked for; ``None`` where no
        resolution of any is known.
    why
        Why it is so, in words.
    """

    by: str
    spacing_um: float | None
    wanted_um: float | None
    why: str

    @classmethod
    def of(cls, spacing_um: float | None, wanted_um: float | None) -> Surroundings:
        """From two spacings, as far as they are known."""
        if spacing_um is None or wanted_um is None:
            whose = "the slide" if spacing_um is None else "the references"
            return cls(
                "count", spacing_um, wanted_um, f"the resolution of {whose} is not known, so nothing is in microns"
            )
        if abs(spacing_um / wanted_um - 1) <= SAME_SPACING:
            return cls("count", spacing_um, wanted_um, "spots lie as dense as those of the references")
        denser = "denser" if spacing_um < wanted_um else "sparser"
        return cls("radius", spacing_um, wanted_um, f"spots lie {denser} than those of the references")

    def record(self, n_around: int) -> dict[str, object]:
        """For ``uns``: ``by``, ``n_around``, ``why`` and, as far as known, ``spacing_um``, ``references_um``, ``radius_um``."""
        known = {"spacing_um": self.spacing_um, "references_um": self.wanted_um}
        if self.wanted_um is not None:
            known["radius_um"] = radius_of(n_around, self.wanted_um)
        lengths = {name: float(value) for name, value in known.items() if value is not None}
        return {"by": self.by, "n_around": int(n_around), "why": self.why, **lengths}


@dataclass(frozen=True)
class Microns:
    """How long a pixel is on some slides, so that distances between sections that were laid over each other are in microns.

    Parameters
    ----------
    mpp
        Microns per pixel by name of the slide, known or assumed. A slide without two places has none.
    pitch_um
        Distance of neighbouring spots on the typical reference, microns.
    assumed
        Slides of which it is assumed: their spots lie as far apart as those of the typical reference.
    """

    mpp: Mapping[str, float]
    pitch_um: float
    assumed: frozenset[str]

    @classmethod
    def of(
        cls, xy: np.ndarray, slide: np.ndarray, known: Mapping[str, float], pitch_um: float | None = None
    ) -> Microns:
        """Of some slides.

        Parameters
        ----------
        xy
            Spot centres, spots x 2, pixels.
        slide
            Name of each spot's slide.
        known
            Microns per pixel of the slides of which they are known.
        pitch_um
            Distance of neighbouring spots on the typical reference; ``None`` where the resolution of none is known. All are
            then assumed, also one that is known, so that the same distance is the same number on all slides.
        """
        known, pitch = ({}, PITCH_UM) if pitch_um is None else (known, pitch_um)
        names = [str(name) for name in np.unique(slide)]
        mpp = {name: known[name] for name in names if name in known}
        spacings = {name: spot_spacing(xy[slide == name]) for name in names if name not in mpp}
        assumed = {name: pitch / spacing for name, spacing in spacings.items() if spacing is not None}
        return cls({**mpp, **assumed}, pitch, frozenset(assumed))


def radius_of(n: int, spacing: float) -> float:
    """Radius of the circle that a spot and its ``n`` nearest others fill, in the unit of their spacing.

    On arrays it lies between two rings of neighbours: with 18 it holds two rings of a hexagonal array and 20 spots of a
    square one, with 6 one ring of a hexagonal array and 8 spots of a square one.
    """
    return float(spacing * np.sqrt((n + 1) / np.pi))


def spacing_of(n: int, radius: float) -> float:
    """The inverse of :func:`radius_of`: the spacing at which ``n`` spots around one fill a circle."""
    return float(radius / np.sqrt((n + 1) / np.pi))


def steps_of(
    xy: np.ndarray, slide: np.ndarray, mpp: Mapping[str, float], wanted_um: float | None
) -> tuple[dict[str, float], dict[str, Surroundings]]:
    """Slides whose neighbours count by a radius, with the wanted spacing in their pixels; and what is told of all.

    Parameters
    ----------
    xy
        Spot centres, spots x 2, pixels.
    slide
        Name of each spot's slide.
    mpp
        Microns per pixel of the slides of which it is known.
    wanted_um
        The spacing at which neighbours count, microns; ``None``: not known.
    """
    spacings = spacings_um(xy, slide, mpp)
    told = {name: Surroundings.of(spacing, wanted_um) for name, spacing in spacings.items()}
    steps = {name: wanted_um / mpp[name] for name, one in told.items() if one.by == "radius" and wanted_um is not None}
    return steps, told


def spacings_um(xy: np.ndarray, slide: np.ndarray, mpp: Mapping[str, float]) -> dict[str, float | None]:
    """Spacing of every slide in microns, ``None`` where its resolution is not known or it has no two places."""
    found: dict[str, float | None] = {}
    for name in np.unique(slide):
        spacing = spot_spacing(xy[slide == name]) if str(name) in mpp else None
        found[str(name)] = None if spacing is None else spacing * mpp[str(name)]
    return found


def spots_around(xy: np.ndarray, n: int, slide: np.ndarray, steps: Mapping[str, float]) -> csr_matrix:
    """The surroundings of every spot: spots x spots, CSR, 1 where a spot of a row has that of a column around it.

    Parameters
    ----------
    xy
        Spot centres, spots x 2.
    n
        Nearest other spots of the same slide, or all others if fewer.
    slide
        Name of each spot's slide.
    steps
        Spacing of the references in pixels, for the slides on which the spots around one are those within the radius that
        ``n`` fill there, and not so many; see :func:`steps_of`.
    """
    return _by_slide(xy, n, slide, steps, _within_radius)


def spots_at(xy: np.ndarray, n: int, slide: np.ndarray, steps: Mapping[str, float]) -> csr_matrix:
    """The ``n`` nearest other spots, and of slides of ``steps`` those at that distance; arguments as in :func:`spots_around`.

    Spots x spots, CSR, at least one in a row.
    """
    return _by_slide(xy, n, slide, steps, _at_step)


def _by_slide(
    xy: np.ndarray,
    n: int,
    slide: np.ndarray,
    steps: Mapping[str, float],
    find: Callable[[np.ndarray, int, float], csr_matrix],
) -> csr_matrix:
    """The nearest spots, and on slides of ``steps`` those that a function finds on one slide; connectivities."""
    names = [name for name in np.unique(slide) if str(name) in steps]
    if not names:
        return nearest_in_plane(xy, n, slide)[0]
    parts = []
    others = np.flatnonzero(~np.isin(slide, names))
    if len(others):
        parts.append((others, nearest_in_plane(xy[others], n, slide[others])[0].tocoo()))
    for name in names:
        members = np.flatnonzero(slide == name)
        parts.append((members, find(xy[members], n, steps[str(name)]).tocoo()))
    rows = np.concatenate([members[graph.row] for members, graph in parts])
    columns = np.concatenate([members[graph.col] for members, graph in parts])
    return csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(len(xy), len(xy)))


def _at_step(xy: np.ndarray, n: int, step: float) -> csr_matrix:
    """One slide: spots at a distance, or the nearest ones where there is none, or the slide is sparser than that."""
    nearest = nearest_in_plane(xy, n)[0]
    return nearest if is_sparser(xy, step) else or_nearest(neighbours_at(xy, n, step), nearest)


def is_sparser(xy: np.ndarray, step: float) -> bool:
    """Whether the spots of a slide lie further apart than a step, so that it has no spot at that distance."""
    spacing = spot_spacing(xy)
    return spacing is None or spacing > step * (1 - SAME_SPACING)


def or_nearest(found: csr_matrix, nearest: csr_matrix) -> csr_matrix:
    """The rows of a graph, and those of another one where a row is empty."""
    alone = (np.diff(found.indptr) == 0).astype(np.float64)
    return csr_matrix(found + diags(alone) @ nearest)


def _within_radius(xy: np.ndarray, n: int, step: float) -> csr_matrix:
    """One slide: the spots of a ring around every spot, or the four nearest where there are fewer."""
    radius = radius_of(n, step)
    sources = thinned(xy, step)
    tree = KDTree(xy[sources])
    rows, columns = [], []
    for start in range(0, len(xy), ROW_BLOCK):
        block = xy[start : start + ROW_BLOCK]
        near = tree.query_ball_point(block, radius, return_sorted=True)
        row = np.repeat(np.arange(len(block)), [len(found) for found in near])
        column = sources[np.concatenate([np.asarray(found, dtype=np.int64) for found in near])]
        is_around = np.linalg.norm(block[row] - xy[column], axis=1) >= LEAST_DISTANCE * step
        rows.append(start + row[is_around])
        columns.append(column[is_around])
    where = np.concatenate(rows), np.concatenate(columns)
    found = csr_matrix((np.ones(len(where[0])), where), shape=(len(xy), len(xy)))
    few = np.diff(found.indptr) < min(LEAST_AROUND, len(xy) - 1)
    if few.any():
        nearest = nearest_in_plane(xy, LEAST_AROUND)[0].tocoo()
        kept, added = ~few[where[0]], few[nearest.row]
        where = (
            np.concatenate([where[0][kept], nearest.row[added]]),
            np.concatenate([where[1][kept], nearest.col[added]]),
        )
        found = csr_matrix((np.ones(len(where[0])), where), shape=found.shape)
    return found


def thinned(xy: np.ndarray, step: float) -> NDArray[np.int64]:
    """Spots of one slide that stand for all: of every square of half a step the one nearest to its middle, ascending.

    All, where a square has fewer than two in the mean. The order of the spots does not matter.
    """
    side = THINNED * step
    square = np.floor((xy - xy.min(axis=0)) / side).astype(np.int64)
    number = np.unique(square, axis=0, return_inverse=True)[1].ravel()
    if len(xy) < SPOTS_OF_A_SQUARE * (number.max() + 1):
        return np.arange(len(xy))
    off = np.linalg.norm(xy - xy.min(axis=0) - (square + 0.5) * side, axis=1)
    order = np.lexsort((xy[:, 1], xy[:, 0], off, number))
    return np.sort(order[np.unique(number[order], return_index=True)[1]])


def neighbours_at(xy: np.ndarray, n: int, step: float) -> csr_matrix:
    """Distances to the spots of one slide that are nearest to ``n`` places evenly around every spot, a step away.

    So a dense grid is joined over the distances at which the references are, by as many edges, and a chain of edges leads
    as far. Places without a spot within half a step have none.

    Parameters
    ----------
    xy
        Spot centres, spots x 2.
    n
        Places around a spot.
    step
        Their distance from it, in the unit of the centres.
    """
    tree = KDTree(xy)
    turn = 2 * np.pi * np.arange(n) / n
    rows, columns = [], []
    for way in step * np.column_stack([np.cos(turn), np.sin(turn)]):
        off, nearest = tree.query(xy + way)
        kept = (off <= step / 2) & (nearest != np.arange(len(xy)))
        rows.append(np.flatnonzero(kept))
        columns.append(nearest[kept])
    pairs = np.unique(np.column_stack([np.concatenate(rows), np.concatenate(columns)]), axis=0)
    distances = np.linalg.norm(xy[pairs[:, 0]] - xy[pairs[:, 1]], axis=1)
    return csr_matrix((distances, (pairs[:, 0], pairs[:, 1])), shape=(len(xy), len(xy)))
