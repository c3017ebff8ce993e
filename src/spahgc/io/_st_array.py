"""The two arrays of legacy ST, told apart by the places of their spots, and the resolution that their pitch gives."""

from __future__ import annotations

from dataclasses import dataclass
from math import hypot, isfinite, sqrt
from numbers import Real

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from spahgc._logging import warn
from spahgc._spots.pitch import spot_pitch
from spahgc.image._mpp import check_mpp

Floats = NDArray[np.float64]

SAME_DISTANCE = 1e-6
"""Steps of the array by which the distances of neighbours differ by rounding."""
SAME_PIXEL = 1e-6
"""Pixels by which centres that are one differ by rounding."""
MAX_STRAYS = 0.02
"""Share of the spots of a checkerboard that may stand on fields of the other colour, as a place rounded wrongly does.

None does in the published tables that were read."""
MIN_SQUARE_SHARE = 0.2
"""Share of the spots that must stand on either colour of the board for a grid without gaps; a whole one has half."""
MIN_CHECKERBOARD_SPOTS = 10
"""Spots from which on fields of one colour show a checkerboard: of a grid without gaps, few may be chosen like that."""
MAX_ASPECT = 1.25
"""Largest ratio of the steps of columns and rows, pixels. Measured: 1.00 to 1.01 (1k), 1.11 (2k); a hexagonal array has 1.73."""
MAX_SKEW = 0.2
"""Largest cosine of the angle between columns and rows. Measured: 0.01."""
MAX_RESIDUAL = 0.2
"""Median distance of the spots from a regular array, in pitches. Measured: 0.02 to 0.08; counted row by row, a
checkerboard has 0.3 from the grid that its numbers seem to be."""
OTHER_RESOLUTION = 1.5
"""Ratio of two resolutions, passed and measured, from which on a warning says so."""
DRAWN_DIAMETER = 0.5
"""Diameter of a spot, in pitches, where nobody states it: as on the 1k array, and for drawings alone."""


@dataclass(frozen=True)
class Array:
    """What is known of a kind of array.

    Parameters
    ----------
    name
        What it is called in ``uns``.
    pitch_um
        Distance of a spot from its nearest ones, microns.
    step
        The same in steps of columns and rows.
    spot_um
        Diameter of a spot, microns; ``None``: not known.
    """

    name: str
    pitch_um: float
    step: float
    spot_um: float | None


SQUARE = Array("square, 1k array", 200.0, 1.0, 100.0)
CHECKERBOARD = Array("checkerboard, 2k array", 150.0, sqrt(2), None)
UNKNOWN_ARRAY = "not recognised"


@dataclass(frozen=True)
class Layout:
    """An array whose spots were recognised, or why they were not.

    Parameters
    ----------
    array
        The kind; ``None``: neither is recognised.
    counted_along
        On a checkerboard, the axis (0: x, 1: y) along which spots, and not fields, are counted; ``None``: fields are.
    shift
        Fields, 1 or -1, by which the odd rows (columns) then lie further than the even ones.
    reason
        Why neither is recognised.
    """

    array: Array | None
    counted_along: int | None = None
    shift: int = 0
    reason: str = ""

    @property
    def name(self) -> str:
        """What it is called in ``uns``."""
        if self.array is None:
            return UNKNOWN_ARRAY
        counted = "" if self.counted_along is None else f", {'xy'[self.counted_along]} counts spots"
        return f"{self.array.name}{counted}"

    def places(self, grid: Floats) -> Floats:
        """Columns and rows of the fields, spots x 2, of places as the table counts them."""
        places = grid.copy()
        if self.counted_along is not None:
            along, across = grid[:, self.counted_along], grid[:, 1 - self.counted_along]
            places[:, self.counted_along] = 2 * along + self.shift * (across % 2)
        return places


COUNTED_BY_SPOTS = [Layout(CHECKERBOARD, axis, shift) for axis in (0, 1) for shift in (1, -1)]


@dataclass(frozen=True)
class Scale:
    """Resolution of a slide, and where it comes from.

    Parameters
    ----------
    mpp
        Microns per pixel.
    diameter_px
        Diameter of a spot, pixels.
    record
        What ``uns`` says of it.
    """

    mpp: float
    diameter_px: float
    record: dict[str, str | float]


def check_resolution(spot_pitch_um: float | None, mpp: float | None) -> None:
    """Refuse arguments that are no resolution.

    Raises
    ------
    ValueError
        If one of them is out of range, or both were passed.
    """
    check_mpp("mpp", mpp)
    if spot_pitch_um is None:
        return
    if mpp is not None:
        raise ValueError("spot_pitch_um= and mpp= were both passed, and each of them says the resolution. Pass one.")
    if not _is_distance(spot_pitch_um):
        raise ValueError(
            f"spot_pitch_um={spot_pitch_um!r} is no distance of spots. Pass microns between neighbouring spots, e.g. "
            f"{SQUARE.pitch_um:g} for the 1k array and {CHECKERBOARD.pitch_um:g} for the 2k array."
        )


def _is_distance(value: object) -> bool:
    # numpy's numbers are no int and no float, and what is true is no distance.
    return type(value) is not bool and isinstance(value, Real) and isfinite(value) and float(value) > 0


def recognised_layout(grid: Floats, placed: Floats, xy: Floats) -> Layout:
    """Recognise the array of a slide.

    Parameters
    ----------
    grid
        Columns and rows (x, y) of all spots of the table, spots x 2; also of those that are not under tissue.
    placed
        Those of the spots whose pixels count, spots x 2.
    xy
        Centres (x, y) of the latter, pixels.

    Returns
    -------
    The layout, with the reason where neither array fits.
    """
    if len(grid) < 2:
        return Layout(None, reason="it leaves one spot, from which no pitch can be measured")
    odd = float((grid.sum(axis=1) % 2 == 1).mean())
    strays = min(odd, 1 - odd)
    if strays <= MAX_STRAYS:
        if len(grid) < MIN_CHECKERBOARD_SPOTS or not len(_pairs(grid, CHECKERBOARD.step)):
            neighbours = "" if len(_pairs(grid, CHECKERBOARD.step)) else " and none beside another"
            return Layout(
                None,
                reason=f"its {len(grid)} spots stand on fields of one colour of a board{neighbours}, as all of the 2k "
                "array do, and some of the 1k array may",
            )
        candidates = [Layout(CHECKERBOARD)]
    elif strays >= MIN_SQUARE_SHARE:
        candidates = [Layout(SQUARE), *COUNTED_BY_SPOTS]
    else:
        return Layout(
            None,
            reason=f"{strays:.0%} of its {len(grid)} spots stand on fields of the other colour of a board; of the 2k array "
            "none do, of the 1k array half",
        )
    problem, _ = _misfit(candidates[0], placed, xy)
    if not problem:
        return candidates[0]
    fits = [_misfit(layout, placed, xy) for layout in candidates[1:]]
    fitting = [(away, i) for i, (unfit, away) in enumerate(fits, 1) if not unfit]
    return candidates[min(fitting)[1]] if fitting else Layout(None, reason=problem)


def _misfit(layout: Layout, grid: Floats, xy: Floats) -> tuple[str, float]:
    """Why spots do not lie as those of an array do, empty if they do; and how far they lie from one, in pitches."""
    design = np.column_stack([layout.places(grid), np.ones(len(grid))])
    if len(grid) < design.shape[1] or np.linalg.matrix_rank(design) < design.shape[1]:
        return f"its {len(grid)} spots lie on one line", np.inf
    fit, *_ = np.linalg.lstsq(design, xy, rcond=None)
    column, row = (float(hypot(*axis)) for axis in fit[:2])
    if min(column, row) <= SAME_PIXEL:
        return "the spots of one column, or of one row, have the same pixel_x and pixel_y", np.inf
    aspect, skew = max(column, row) / min(column, row), abs(float(fit[0] @ fit[1])) / (column * row)
    if aspect > MAX_ASPECT or skew > MAX_SKEW:
        return (
            f"one column further is {column:.4g} px and one row {row:.4g} px, at an angle of "
            f"{np.degrees(np.arccos(min(skew, 1.0))):.0f} degrees, and both arrays have equal steps at 90 degrees",
            np.inf,
        )
    pitch = hypot(column, row) * (layout.array.step if layout.array else 1.0) / sqrt(2)
    away = float(np.median(np.linalg.norm(xy - design @ fit, axis=1))) / pitch
    return (f"its spots lie {away:.2g} pitches away from a regular array", away) if away > MAX_RESIDUAL else ("", away)


def check_recognised(layout: Layout, label: str, *, given: bool) -> None:
    """Refuse an array that is not recognised, unless the resolution was given in another way.

    Raises
    ------
    ValueError
        With what was found, and what can be passed.
    """
    if layout.array is None and not given:
        raise ValueError(
            f'the array of "{label}" is not recognised: {layout.reason}. Pass spot_pitch_um= with the distance of neighbouring '
            f"spots in microns ({SQUARE.pitch_um:g} on the square 1k array, {CHECKERBOARD.pitch_um:g} on the checkerboard of "
            "the 2k array), or mpp= with the microns per pixel of the image."
        )


def measured_scale(
    layout: Layout,
    grid: Floats,
    xy: Floats,
    kept: NDArray[np.bool_],
    label: str,
    *,
    spot_pitch_um: float | None = None,
    mpp: float | None = None,
) -> Scale:
    """Measure the resolution of a slide by the pitch of its spots, or take the one that is passed.

    Parameters
    ----------
    layout
        Its array.
    grid, xy
        Columns and rows, and centres (x, y) in pixels, of the spots whose pixels count, spots x 2 each.
    kept
        Which of them the slide keeps. They are measured; the others only where those do not do.
    label
        What messages call the table.
    spot_pitch_um, mpp
        As the user passed them, checked.

    Raises
    ------
    ValueError
        If the array is not recognised and nothing was passed, or no two spots are neighbours.

    Warns
    -----
    UserWarning
        If `mpp` is another resolution than the array's.
    """
    array, pitch_px = layout.array, _pitch_px(layout, grid, xy, kept)
    if pitch_px is not None and pitch_px <= 0:
        raise ValueError(
            f'neighbouring spots of "{label}" have the same pixel_x and pixel_y, so no spot pitch can be measured. '
            "Check these columns."
        )
    pitch_um = spot_pitch_um if spot_pitch_um is not None else None if array is None else array.pitch_um
    measured = None if pitch_px is None or pitch_um is None else pitch_um / pitch_px
    if mpp is None:
        if measured is None:
            check_recognised(layout, label, given=spot_pitch_um is not None)
            raise ValueError(
                f'no two spots of "{label}" are neighbours on its array, so spot_pitch_um={spot_pitch_um:g} cannot be turned '
                "into a resolution. Pass mpp= with the microns per pixel of the image."
            )
        if spot_pitch_um is not None:
            check_mpp(f"spot_pitch_um={spot_pitch_um:g} over {pitch_px:.4g} px, mpp", measured)
    elif measured is not None and max(mpp / measured, measured / mpp) > OTHER_RESOLUTION:
        warn(
            f'mpp={mpp:g} was passed, but spots of "{label}" lie {pitch_px:.4g} px apart, which gives {measured:.3g} on the '
            f"array that was recognised ({layout.name}). mpp={mpp:g} is taken.",
            stacklevel=4,
        )
    resolution = float(mpp) if mpp is not None else float(measured or 0.0)
    source = "mpp=" if mpp is not None else "spot_pitch_um=" if spot_pitch_um is not None else "spot pitch of the array"
    record: dict[str, str | float] = {"array": layout.name, "resolution_from": source}
    if pitch_px is not None:
        record["spot_pitch_um"] = pitch_px * resolution
    if array is not None and array.spot_um is not None:
        record["spot_diameter_um"] = array.spot_um
        return Scale(resolution, array.spot_um / resolution, record)
    record["spot_diameter"] = "unknown, drawn as half the pitch"
    nearest = pitch_px if pitch_px is not None else spot_pitch(xy) or 1.0  # of a spot alone
    return Scale(resolution, DRAWN_DIAMETER * nearest, record)


def _pitch_px(layout: Layout, grid: Floats, xy: Floats, kept: NDArray[np.bool_]) -> float | None:
    """Median pixel distance of neighbours on the array; ``None`` where there are none."""
    places = layout.places(grid)
    for chosen in (kept, np.ones(len(grid), dtype=bool)):
        if layout.array is None:
            pitch = _nearest_neighbours(places[chosen], xy[chosen])
        elif layout.array is SQUARE:
            pitch = _one_step(places[chosen], xy[chosen])
        else:
            pairs = _pairs(places[chosen], layout.array.step)
            pitch = _median_distance(xy[chosen], pairs) if len(pairs) else None
        if pitch is not None:
            return pitch
    return None


def _one_step(places: Floats, xy: Floats) -> float | None:
    """Pixels of one step of a square array; where all spots are isolated, the closest ones are several steps apart."""
    if len(places) < 2:
        return None
    step = float(KDTree(places).query(places, k=2)[0][:, 1].min())
    pairs = KDTree(places).query_pairs(step + SAME_DISTANCE, output_type="ndarray")
    return _median_distance(xy, pairs) / step


def _nearest_neighbours(places: Floats, xy: Floats) -> float | None:
    """Median distance of a spot to the nearest of those around it, pixels, on an array that is not known."""
    if len(places) < 2:
        return None
    pairs = KDTree(places).query_pairs(sqrt(2) + SAME_DISTANCE, output_type="ndarray")
    if not len(pairs):
        return None
    distances = np.linalg.norm(xy[pairs[:, 0]] - xy[pairs[:, 1]], axis=1)
    nearest = np.full(len(places), np.inf)
    np.minimum.at(nearest, pairs.ravel(), np.repeat(distances, 2))
    return float(np.median(nearest[np.isfinite(nearest)]))


def _pairs(places: Floats, step: float) -> NDArray[np.intp]:
    """Pairs of spots that are nearest neighbours, pairs x 2; strays that lie closer do not count."""
    pairs = KDTree(places).query_pairs(step + SAME_DISTANCE, output_type="ndarray")
    apart = np.linalg.norm(places[pairs[:, 0]] - places[pairs[:, 1]], axis=1)
    return np.asarray(pairs[apart > step - SAME_DISTANCE], dtype=np.intp)


def _median_distance(xy: Floats, pairs: NDArray[np.intp]) -> float:
    return float(np.median(np.linalg.norm(xy[pairs[:, 0]] - xy[pairs[:, 1]], axis=1)))
