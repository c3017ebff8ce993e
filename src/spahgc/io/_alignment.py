"""How the H&E image of a slide lies on another one: the files that Xenium Explorer writes, or a matrix."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from spahgc._reading import reading, unreadable
from spahgc._validate import quoted
from spahgc.io._files import existing_file

Matrix: TypeAlias = NDArray[np.float64]
"""Affine matrix of (x, y, 1), 3 x 3."""

FIXED, MOVING = ("fixedX", "fixedY"), ("alignmentX", "alignmentY")
"""Columns of a table of key points: on the morphology image, and on the image that was aligned to it."""
MIN_KEYPOINTS = 3
"""Points that an affine matrix needs."""
MAX_KEYPOINT_PX = 100.0
"""Root mean square distance, pixels of the morphology image (about 20 um), above which key points belong to no pair."""
MAX_STRETCH = 1.2
"""Ratio of the two axes of a matrix above which it lays no section over its own image."""
REMEDY = "It must be the 3 x 3 matrix, or the table of key points, that Xenium Explorer exports; export it again."


def read_alignment(alignment: str | os.PathLike[str] | ArrayLike) -> Matrix:
    """The matrix that brings pixels (x, y) of the H&E image to pixels of the morphology image.

    Parameters
    ----------
    alignment
        A file of Xenium Explorer: the matrix (three rows of three numbers), or key points (columns ``fixedX``, ``fixedY``,
        ``alignmentX``, ``alignmentY``), of which an affine matrix is fitted. Or the matrix itself.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is neither, or lays no image over another: it has no inverse, or stretches one axis alone.
    """
    if isinstance(alignment, str | os.PathLike):
        path = existing_file(alignment, "alignment")
        label = f'the alignment "{path}"'
        matrix = _read(path)
    else:
        label, matrix = "alignment", np.asarray(alignment)
    return checked_affine(matrix, label)


def checked_affine(matrix: ArrayLike, label: str) -> Matrix:
    """An affine matrix that can lay one picture over another; see :func:`read_alignment` for what is refused."""
    values = np.asarray(matrix)
    if values.shape != (3, 3) or values.dtype.kind not in "iuf" or not np.isfinite(values).all():
        raise ValueError(
            f"{label} is of shape {values.shape} and type {values.dtype}; 3 x 3 finite numbers are needed."
        )
    values = values.astype(np.float64)
    if not np.allclose(values[2], (0, 0, 1)):
        raise ValueError(
            f"{label} has the last row {values[2].tolist()}; that of an affine matrix is 0, 0, 1. Is it transposed?"
        )
    sizes = np.linalg.svd(values[:2, :2], compute_uv=False)
    if sizes[1] <= 0 or sizes[0] / sizes[1] > MAX_STRETCH:
        raise ValueError(
            f"{label} stretches one axis {sizes[0]:.3g} and the other {sizes[1]:.3g} times, which lays no image over one of the "
            f"same tissue (they may differ by {MAX_STRETCH:g} times). Export it again."
        )
    return values


def length_scale(matrix: Matrix) -> float:
    """Mean factor on lengths."""
    return float(np.sqrt(abs(np.linalg.det(matrix[:2, :2]))))


def transformed(matrix: Matrix, xy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points, n x 2, in other coordinates."""
    return np.asarray(xy @ matrix[:2, :2].T + matrix[:2, 2])


def _read(path: Path) -> NDArray[np.generic]:
    with reading(path, "the alignment", REMEDY):
        table = pd.read_csv(path, header=None, comment="#", dtype=str, skip_blank_lines=True)
    header = [str(name).strip() for name in table.iloc[0]]
    if not set(FIXED + MOVING) <= set(header):
        numbers = table.apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
        if numbers.shape != (3, 3) or np.isnan(numbers).any():
            raise unreadable(path, "the alignment", f"it begins with {quoted(header)}, {len(table)} lines", REMEDY)
        return numbers
    points = table.iloc[1:].set_axis(header, axis=1)[[*FIXED, *MOVING]].apply(pd.to_numeric, errors="coerce")
    points = points.to_numpy(np.float64)
    if np.isnan(points).any():
        raise unreadable(path, "the alignment", "key points are no numbers", REMEDY)
    return _fitted(points[:, :2], points[:, 2:], path)


def _fitted(fixed: NDArray[np.float64], moving: NDArray[np.float64], path: Path) -> Matrix:
    """The affine matrix of key points, by least squares."""
    design = np.column_stack([moving, np.ones(len(moving))])
    if len(design) < MIN_KEYPOINTS or np.linalg.matrix_rank(design - [*moving.mean(axis=0), 0]) < MIN_KEYPOINTS:
        raise ValueError(
            f'the alignment "{path}" names {len(design)} key points; {MIN_KEYPOINTS} that do not lie on a line are needed. Set '
            "more in Xenium Explorer."
        )
    solution = np.linalg.lstsq(design, fixed, rcond=None)[0]
    apart = float(np.sqrt(((design @ solution - fixed) ** 2).sum(axis=1).mean()))
    if apart > MAX_KEYPOINT_PX:
        raise ValueError(
            f'the key points of "{path}" lie {apart:.0f} px from where any affine matrix lays them (root mean square; '
            f"{MAX_KEYPOINT_PX:g} px are the limit). Are points of two slides mixed? Export them again."
        )
    return np.vstack([solution.T, [0.0, 0.0, 1.0]])
