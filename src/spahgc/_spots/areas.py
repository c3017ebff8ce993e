"""Spot-sized areas over a target of finer points: their means, and values that are changed smoothly until the means are as wanted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_matrix, csr_matrix, diags
from scipy.sparse.linalg import splu
from scipy.spatial import KDTree

from spahgc._spots.rows import sum_over

LEAST_FILLED = 0.5
"""An area at the rim of the tissue holds at least this share of the points that one inside it holds."""
LEAST_POINTS = 2
"""Points of an area, at least: the mean of a single one would be that point."""
REACH = 2.0
"""Distance, in pitches of the areas, at which an area changes a point no more."""
ROW_BLOCK, GENE_BLOCK = 4096, 128
"""Points that are smoothed, and genes that are corrected, at a time."""
STEPS = 50
"""Corrections, at most. Without values at their lower bound the first one is exact."""
EXACT = 1e-6
"""Deviation of the means, in the units of the values, at which no further correction is made."""


@dataclass(frozen=True, eq=False)
class Areas:
    """Discs over the points of a slide, laid as the spots of the references lie.

    Parameters
    ----------
    centres
        Areas x 2, the unit of the points.
    means
        Areas x points, CSR, rows sum to 1: the mean over the points of an area.
    weights
        Points x areas, CSR, rows sum to 1, or are empty out of reach of all areas: how far the areas around a point change it.
    points
        The points, points x 2.
    diameter
        Of an area, the unit of the points.
    """

    centres: NDArray[np.float64]
    means: csr_matrix
    weights: csr_matrix
    points: NDArray[np.float64]
    diameter: float

    @classmethod
    def over(cls, xy: NDArray[np.float64], diameter: float, pitch: float) -> Areas:
        """Areas on a hexagonal grid over points.

        Parameters
        ----------
        xy
            The points, points x 2.
        diameter, pitch
            Of the areas, the unit of the points.

        Raises
        ------
        ValueError
            If no area holds enough points.
        """
        tree, found = KDTree(xy), _hexagonal(xy, pitch)
        inside = tree.query_ball_point(found, diameter / 2, return_sorted=True)
        counts = np.array([len(points) for points in inside])
        usual = np.median(counts[counts > 0]) if (counts > 0).any() else 0
        kept = np.flatnonzero(counts >= max(LEAST_POINTS, LEAST_FILLED * usual))
        if not len(kept):
            raise ValueError(
                f"no area of the size of a spot holds {LEAST_POINTS} points of the target, so there is nothing to average."
            )
        centres = found[kept]
        means = _mean_of([inside[i] for i in kept], len(xy))
        return cls(centres, means, _smooth_weights(tree, centres, REACH * pitch), xy, diameter)

    def smoothed(self, values: NDArray[np.floating]) -> NDArray[np.floating]:
        """Mean of values (points x genes) over the disc around each point that is as wide as an area; a block at a time."""
        tree, found = KDTree(self.points), np.empty_like(values)
        for start in range(0, len(values), ROW_BLOCK):
            rows = slice(start, start + ROW_BLOCK)
            near = tree.query_ball_point(self.points[rows], self.diameter / 2, return_sorted=True)
            found[rows] = sum_over(_mean_of(list(near), len(values)), values)
        return found

    def spread_out(self, of_areas: NDArray[np.floating]) -> NDArray[np.floating]:
        """Values of areas at the points: weighted means of the areas around, NaN out of reach of all."""
        found = np.asarray(self.weights @ of_areas, dtype=np.float64)
        found[np.diff(self.weights.indptr) == 0] = np.nan
        return found

    def conserved(
        self, values: NDArray[np.floating], wanted: NDArray[np.floating], lowest: float = -np.inf
    ) -> NDArray[np.float64]:
        """Values whose mean over every area is as wanted, and which differ from those given by a smooth field alone.

        The field is ``weights @ c``, with the one ``c`` for which the means come out. Where that leads below a lower bound, values
        stay at it, and the rest is made up for by the points around, in a few more steps.

        Parameters
        ----------
        values
            Points x genes.
        wanted
            Areas x genes.
        lowest
            Lower bound; what is wanted must not be below it.
        """
        solve, conserved = splu(csc_matrix(self.means @ self.weights)).solve, np.empty_like(values)
        for start in range(0, values.shape[1], GENE_BLOCK):
            genes = slice(start, start + GENE_BLOCK)
            found = np.maximum(values[:, genes].astype(np.float64), lowest)
            for _ in range(STEPS):
                apart = wanted[:, genes] - self.means @ found
                if np.abs(apart).max(initial=0.0) <= EXACT:
                    break
                found = np.maximum(found + self.weights @ solve(apart), lowest)
            conserved[:, genes] = found
        return conserved


def _hexagonal(xy: NDArray[np.float64], pitch: float) -> NDArray[np.float64]:
    """Centres on a hexagonal grid over the rectangle of some points, in its middle."""
    least, most = xy.min(axis=0), xy.max(axis=0)
    step = np.array([pitch, pitch * np.sqrt(3) / 2])
    n = np.floor((most - least) / step).astype(int) + 2
    row, column = (each.ravel() for each in np.indices((n[1], n[0])))
    found = np.column_stack([column + 0.5 * (row % 2), row]) * step
    return np.asarray(found + (least + most - found.min(axis=0) - found.max(axis=0)) / 2)


def _mean_of(members: list[list[int]], n: int) -> csr_matrix:
    counts = np.array([len(points) for points in members])
    columns = np.concatenate([np.asarray(points, dtype=np.int64) for points in members])
    indptr = np.concatenate([[0], np.cumsum(counts)])
    return csr_matrix((np.repeat(1 / counts, counts), columns, indptr), shape=(len(members), n))


def _smooth_weights(tree: KDTree, centres: NDArray[np.float64], reach: float) -> csr_matrix:
    """Wendland's function of the distance (1995), which is smooth and ends at the reach, over its sum in each row."""
    near = tree.sparse_distance_matrix(KDTree(centres), reach, output_type="coo_matrix").tocsr()
    share = near.data / reach
    near.data = (1 - share) ** 4 * (4 * share + 1)
    total = np.asarray(near.sum(axis=1)).ravel()
    return csr_matrix(diags(np.divide(1.0, total, out=np.zeros_like(total), where=total > 0)) @ near)
