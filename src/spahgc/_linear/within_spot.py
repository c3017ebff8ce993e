"""How much expression varies within a spot: what references, measured by the spot, tell of it by how it changes between spots."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.spatial import KDTree

from spahgc._spots.pitch import spot_spacing
from spahgc._spots.rows import Rows, mean_of, read

LAGS = (1.0, 2.0)
"""Distances at which spots are compared, in pitches."""
LAG_TOLERANCE = 0.2
"""How far off them pairs of spots may lie, in pitches."""
MEAN_DISTANCE = 128 / (90 * np.pi)
"""Mean distance of two points of a disc, as a share of its diameter: 0.4527."""


def variance_within(slope: NDArray[np.float64], diameter_um: float, spacing_um: float) -> NDArray[np.float64]:
    """Variance of the value of a finer point around the mean of the spot that it lies in, of every gene.

    It is Krige's relation: the variance of small areas within a large one is the mean difference (half the mean square) of two
    points of the large one less that of two points of a small one. With a difference that grows with the distance by a slope, that
    is the slope times the mean distance of two points of a disc, 0.4527 of its diameter, for a spot less the same for a point's
    own disc. It is 0 where the point is as large as the spot, and grows with the step down.

    Parameters
    ----------
    slope
        From :func:`slopes_between_spots`.
    diameter_um
        Of a spot.
    spacing_um
        Of the finer points; each stands for a disc as wide as that.
    """
    return np.asarray(slope * MEAN_DISTANCE * max(diameter_um - spacing_um, 0.0))


def slopes_between_spots(
    expression: Rows, xy: NDArray[np.float64], slide: NDArray[np.str_], mpp: Mapping[str, float]
) -> NDArray[np.float64]:
    """By how much the covariance of a gene at two spots falls with their distance, squared units a micron, at least 0.

    It is the difference between spots one and two pitches apart. The noise of counting is another at every spot, so that none of
    it is in a covariance of two. Below a pitch nothing was measured: there the slope is assumed to go on.

    Parameters
    ----------
    expression
        Of the reference spots, spots x genes; read a slide at a time.
    xy
        Their centres, pixels.
    slide
        Name of each spot's slide.
    mpp
        Microns per pixel of slides; those of which it is not known are left out.

    Raises
    ------
    ValueError
        If no reference of known resolution has spots at both distances.
    """
    slopes = []
    for name in np.unique(slide):
        rows = np.flatnonzero(slide == name)
        pitch = spot_spacing(xy[rows]) if str(name) in mpp else None
        pairs = [] if pitch is None else [_pairs_at(xy[rows], lag * pitch, LAG_TOLERANCE * pitch) for lag in LAGS]
        if pitch is None or not all(len(each) for each in pairs):
            continue
        values = read(expression, rows) - mean_of(expression, rows)
        near, far = (_covariance(values, each) for each in pairs)
        slopes.append((near - far) / ((LAGS[1] - LAGS[0]) * pitch * mpp[str(name)]))
    if not slopes:
        raise ValueError(
            "no reference of known resolution has spots at one and at two pitches from each other, so nothing tells how much "
            "expression varies within a spot. Pass larger references, or trust=False."
        )
    return np.asarray(np.maximum(np.mean(slopes, axis=0), 0.0))


def _pairs_at(xy: NDArray[np.float64], distance: float, tolerance: float) -> NDArray[np.intp]:
    """Pairs of spots about so far apart, pairs x 2."""
    pairs = KDTree(xy).query_pairs(distance + tolerance, output_type="ndarray")
    apart = np.linalg.norm(xy[pairs[:, 0]] - xy[pairs[:, 1]], axis=1)
    return pairs[apart >= distance - tolerance]


def _covariance(values: NDArray[np.floating], pairs: NDArray[np.intp]) -> NDArray[np.float64]:
    """Mean product of centred values over pairs, a number a gene."""
    n = len(values)
    graph = csr_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    return np.asarray((values * (graph @ values)).sum(axis=0, dtype=np.float64) / len(pairs))
