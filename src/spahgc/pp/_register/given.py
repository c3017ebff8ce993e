"""Transformations that the user has: matrices, landmarks, and coordinate systems in which slides are aligned already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spahgc._slides.spatialdata import spots_on_image
from spahgc._slides.tables import is_spatialdata
from spahgc._validate import quoted
from spahgc.pp._register.picture import Matrix
from spahgc.pp._register.slides import SlideToRegister, scale_and_shift

MIN_LANDMARKS, MIN_LANDMARKS_AFFINE = 2, 4
"""Pairs of landmarks that fix a similarity without mirroring, and from which on an affine transformation is fitted."""
MIN_STRETCH = 1e-3
"""Smaller over larger stretch of a transformation below which it puts a section onto a line."""
SAME_POINTS = 1e-9
"""Spread of landmarks below which they are one point, or lie on one line, as a share of their size."""


def check_matrix(matrix: ArrayLike, label: str) -> Matrix:
    """A matrix that takes (x, y, 1) to (x, y, 1); refuses any other.

    Raises
    ------
    ValueError
        If it is not 3 x 3 (or 2 x 3), not finite, not affine, or has no inverse.
    """
    try:
        array = np.asarray(matrix, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{label} holds no numbers ({error}). {_REMEDY}") from error
    if array.shape == (2, 3):
        array = np.vstack([array, [0.0, 0.0, 1.0]])
    if array.shape != (3, 3):
        raise ValueError(f"{label} has the shape {array.shape}. {_REMEDY}")
    if not np.isfinite(array).all():
        raise ValueError(f"{label} has entries that are not finite. {_REMEDY}")
    if not np.allclose(array[2], [0, 0, 1]):
        raise ValueError(
            f"{label} has the last row {array[2].tolist()}, and that of an affine transformation is [0, 0, 1]. {_REMEDY}"
        )
    stretches = np.linalg.svd(array[:2, :2], compute_uv=False)
    if not stretches[0] > 0 or stretches[1] < MIN_STRETCH * stretches[0]:
        raise ValueError(f"{label} is singular: it puts the section onto a line or a point. {_REMEDY}")
    return array


_REMEDY = "Pass a 3 x 3 matrix that takes (x, y, 1) in full-resolution pixels of the reference to (x, y, 1) in those of the target."


def matrix_of_landmarks(landmarks: Any, label: str) -> Matrix:
    """Transformation that takes landmarks of a reference to the same ones of the target, least squares.

    Parameters
    ----------
    landmarks
        Two arrays, points x 2 each: ``(x, y)`` on the reference and on the target, full-resolution pixels. Two or three
        pairs give a similarity (shift, rotation, scale), four and more an affine transformation.
    label
        How messages call them.

    Raises
    ------
    ValueError
        If these are no pairs of points, too few, or all on one line.
    """
    remedy = "Pass two arrays, points x 2: (x, y) on the reference and the same points on the target, in full-resolution pixels."
    if not isinstance(landmarks, Sequence | np.ndarray) or len(landmarks) != 2:
        raise ValueError(f"{label} are no pair of arrays. {remedy}")
    try:
        here, there = (np.asarray(points, dtype=np.float64) for points in landmarks)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{label} hold no numbers ({error}). {remedy}") from error
    if here.ndim != 2 or here.shape[1] != 2 or here.shape != there.shape:
        raise ValueError(f"{label} have the shapes {here.shape} and {there.shape}. {remedy}")
    if not (np.isfinite(here).all() and np.isfinite(there).all()):
        raise ValueError(f"{label} have coordinates that are not finite. {remedy}")
    if len(here) < MIN_LANDMARKS:
        raise ValueError(f"{label} are {len(here)} pairs, and at least {MIN_LANDMARKS} are needed. {remedy}")
    affine = len(here) >= MIN_LANDMARKS_AFFINE
    for points, side in ((here, "reference"), (there, "target")):
        spread = np.linalg.svd(points - points.mean(0), compute_uv=False)
        flat = spread[-1] if affine else spread[0]
        if flat <= SAME_POINTS * max(np.abs(points).max(), 1.0):
            what = "lie on one line" if affine else "are all the same point"
            raise ValueError(f"{label} {what} on the {side}. Choose points that are spread over the section.")
    return check_matrix(_affine(here, there) if affine else _similarity(here, there), label)


def _affine(here: NDArray[np.float64], there: NDArray[np.float64]) -> Matrix:
    extended = np.column_stack([here, np.ones(len(here))])
    matrix = np.eye(3)
    matrix[:2] = np.linalg.lstsq(extended, there, rcond=None)[0].T
    return matrix


def _similarity(here: NDArray[np.float64], there: NDArray[np.float64]) -> Matrix:
    """Complex numbers: z -> a z + b."""
    z, w = here @ [1, 1j], there @ [1, 1j]
    (a, b), *_ = np.linalg.lstsq(np.column_stack([z, np.ones_like(z)]), w, rcond=None)
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag], [0, 0, 1.0]])


def matrix_to_system(slide: SlideToRegister, coordinate_system: str) -> Matrix:
    """Transformation from ``obsm["spatial"]`` of a slide of a SpatialData to one of its coordinate systems.

    Raises
    ------
    KeyError
        If the image of the slide is not in that system.
    ValueError
        If the slide is no SpatialData.
    """
    label = f'slide "{slide.name}"'
    if not is_spatialdata(slide.holder):
        raise ValueError(
            f'coordinate_system="{coordinate_system}" is for SpatialData, and {label} is of type '
            f"{type(slide.holder).__name__}. Pass transforms= or landmarks= for it."
        )
    from spatialdata.transformations import get_transformation

    spots = spots_on_image(slide.holder, slide.table)
    systems = dict(get_transformation(slide.holder.images[spots.image_key], get_all=True))
    if coordinate_system not in systems:
        raise KeyError(
            f'image "{spots.image_key}" of {label} is not in coordinate_system="{coordinate_system}", but in '
            f"{quoted(systems)}. Set it with spatialdata.transformations.set_transformation."
        )
    to_system = np.asarray(systems[coordinate_system].to_affine_matrix(("x", "y"), ("x", "y")), dtype=np.float64)
    to_system = check_matrix(to_system, f'the transformation of {label} to "{coordinate_system}"')
    scale, shift = scale_and_shift(spots.xy, slide.xy)
    from_image = np.array([[scale, 0, shift[0]], [0, scale, shift[1]], [0, 0, 1.0]])
    return np.asarray(to_system @ np.linalg.inv(from_image))


def check_names(given: Mapping[str, Any] | None, argument: str, names: Sequence[str]) -> dict[str, Any]:
    """What a user passed by slide; refuses what is no mapping, and names of no slide."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise TypeError(f"{argument} is of type {type(given).__name__}; pass a dict by the name of the slide.")
    unknown = [name for name in given if name not in names]
    if unknown:
        raise KeyError(f"{argument} names {quoted(unknown)}, and the slides are {quoted(names)}.")
    return dict(given)
