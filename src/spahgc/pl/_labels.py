"""Names of genes beside their points, where they cover neither each other nor, if it can be helped, other points."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from spahgc.pl._output import whole_figure
from spahgc.pl._scores import LABEL_PT, MARK_AREA, MARKS, QUIET

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.patheffects import AbstractPathEffect

POINTS_PER_INCH = 72.0
DISTANCES_PT = (7.0, 12.0, 18.0, 26.0, 36.0, 48.0)
"""How far from its point the near side of a name may stand, in points."""
STEPS = (0.0, 0.5, -0.5, 1.0, -1.0)
DIRECTIONS = tuple((x, y) for y in STEPS for x in (1.0, -1.0)) + tuple((x, y) for x in STEPS[:3] for y in (1.0, -1.0))
"""To which side of its point; the first that is free is taken."""
OVERLAP, OUTSIDE, CROSSING, MISLEADING = 1000.0, 300.0, 100.0, 30.0
"""Cost of covering another name, of leaving the axes, of a line that crosses another one or runs through a name, and of
standing by a point of another name; covering a plain point costs 1."""
PADDING_PT, CLEAR_PT = 1.0, 4.0
"""Room around a name, and between a name and the points of others."""
LINE_SPACING = 1.15
"""Distance of two names below each other, as a share of their height."""
LETTER_EM = 0.62
"""Width of a letter, as a share of the size of the text: capitals and digits of gene names."""


def label_width(n_letters: int) -> float:
    """Width of a name of so many letters, inches."""
    return n_letters * LETTER_EM * LABEL_PT / POINTS_PER_INCH


def spread_labels(positions: np.ndarray, gap: float, low: float, high: float) -> np.ndarray:
    """Positions in ascending order moved as little as possible (least squares) until all are a gap apart and in range.

    Parameters
    ----------
    positions
        Where the labels would stand, ascending.
    gap
        Least distance of two labels.
    low, high
        Range in which they stand; where it has no room for such a gap, the gap is smaller.
    """
    from scipy.optimize import isotonic_regression

    room = max(len(positions) - 1, 1)
    gap = min(gap, (high - low) / room)
    steps = gap * np.arange(len(positions))
    # With the gaps taken out, "a gap apart" is "in ascending order".
    return np.clip(isotonic_regression(positions - steps).x, low, high - gap * (len(positions) - 1)) + steps


def label_column(ax: Axes, points: np.ndarray, names: Sequence[str], x: float) -> None:
    """Write names below each other at one `x`, each joined with its point by a line.

    Parameters
    ----------
    ax
        Axes whose limits are settled.
    points
        Names x 2, data coordinates.
    names
        One a point.
    x
        Where the names begin, data coordinates.
    """
    if not len(names):
        return
    low, high = ax.get_ylim()
    height_pt = _size_pt(ax)[1]
    gap = (high - low) * LABEL_PT * LINE_SPACING / height_pt
    order = np.argsort(points[:, 1], kind="stable")
    heights = spread_labels(points[order, 1], gap, low + gap / 2, high - gap / 2)
    for i, height in zip(order, heights, strict=True):
        ax.plot([points[i, 0], x], [points[i, 1], height], color=QUIET, linewidth=0.4, zorder=1.5)
        ax.text(x, height, f" {names[i]}", fontsize=LABEL_PT, ha="left", va="center", path_effects=_halo(ax))


def mark_points(ax: Axes, points: np.ndarray, marked: Sequence[int], names: Sequence[str]) -> None:
    """Mark some points of a scatter plot and write their names near them.

    Parameters
    ----------
    ax
        Axes whose limits are settled.
    points
        All points of the plot, points x 2, data coordinates.
    marked
        Which of them get a mark and a name, in the order in which their names look for a free place.
    names
        One a point.
    """
    whole_figure(ax).draw_without_rendering()
    chosen = points[marked]
    ax.scatter(chosen[:, 0], chosen[:, 1], s=MARK_AREA, color=MARKS, linewidths=0, zorder=4)
    label_points(ax, chosen, [names[i] for i in marked], points)


def label_points(ax: Axes, points: np.ndarray, names: Sequence[str], others: np.ndarray) -> None:
    """Write names near their points in a scatter plot, joined with them by a line.

    Parameters
    ----------
    ax
        Axes whose limits are settled.
    points
        Names x 2, data coordinates.
    names
        One a point.
    others
        All points of the plot, which the names should not cover.
    """
    from matplotlib.text import Text

    if not len(names):
        return
    dots, named = _in_points(ax, others), _in_points(ax, points)
    size = _size_pt(ax)
    taken: list[tuple[float, float, float, float]] = []
    lines: list[tuple[np.ndarray, np.ndarray]] = []
    for i, (name, point) in enumerate(zip(names, points, strict=True)):
        line = {"arrowstyle": "-", "color": QUIET, "linewidth": 0.4, "shrinkA": 0, "shrinkB": 2, "zorder": 1.5}
        text = ax.annotate(name, point, (0, 0), textcoords="offset points", ha="center", va="center", arrowprops=line)
        text.set(fontsize=LABEL_PT, path_effects=_halo(ax), zorder=5)
        extent = Text.get_window_extent(text)  # its own would hold the line as well
        scale = POINTS_PER_INCH / whole_figure(ax).dpi
        half = np.array([extent.width, extent.height]) * scale / 2 + PADDING_PT
        at, rest = named[i], np.delete(named, i, axis=0)
        cost = partial(_cost, half=half, dots=dots, rest=rest, taken=taken, size=size)
        offset = min(
            _offsets(half), key=lambda offset: cost(at + offset) + _crossings(at, at + offset, half, taken, lines)
        )
        text.set_position(tuple(offset))
        taken.append((*(at + offset - half), *(at + offset + half)))
        lines.append((at, at + offset))


def _crossings(
    point: np.ndarray,
    middle: np.ndarray,
    half: np.ndarray,
    taken: Sequence[tuple[float, float, float, float]],
    lines: Sequence[tuple[np.ndarray, np.ndarray]],
) -> float:
    """Cost of the line from a point to its name: others that it crosses, names that it or they run through."""
    own = (*(middle - half), *(middle + half))
    crossed = sum(_cross(point, middle, *other) for other in lines)
    through = sum(_runs_through(point, middle, box) for box in taken)
    under = sum(_runs_through(*other, own) for other in lines)
    return CROSSING * (crossed + through + under)


def _cross(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> bool:
    """Whether two lines between points cross."""

    def side(p: np.ndarray, q: np.ndarray, r: np.ndarray) -> float:
        return float((q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0]))

    return side(a, b, c) * side(a, b, d) < 0 and side(c, d, a) * side(c, d, b) < 0


def _runs_through(a: np.ndarray, b: np.ndarray, box: Sequence[float]) -> bool:
    """Whether a line between points has a part within a box (left, bottom, right, top)."""
    begin, end, step = 0.0, 1.0, b - a
    for axis in (0, 1):
        low, high = box[axis] - a[axis], box[axis + 2] - a[axis]
        if step[axis] == 0:
            if low > 0 or high < 0:
                return False
            continue
        near, far = sorted((low / step[axis], high / step[axis]))
        begin, end = max(begin, near), min(end, far)
    return bool(begin < end)


def _halo(ax: Axes) -> list[AbstractPathEffect]:
    """Sets a name off from lines below it."""
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=1.8, foreground=ax.get_facecolor())]


def _offsets(half: np.ndarray) -> list[np.ndarray]:
    """From a point to the middle of its name, nearest first."""
    return [np.array(side) * (half + distance) for distance in DISTANCES_PT for side in DIRECTIONS]


def _cost(
    middle: np.ndarray,
    half: np.ndarray,
    dots: np.ndarray,
    rest: np.ndarray,
    taken: Sequence[tuple[float, float, float, float]],
    size: np.ndarray,
) -> float:
    """What a name would cover here: points, those of other names, names, the edge of the axes."""
    (left, bottom), (right, top) = middle - half, middle + half
    overlaps = sum(left < r and right > l and bottom < t and top > b for l, b, r, t in taken)
    leaves = left < 0 or bottom < 0 or right > size[0] or top > size[1]
    covered = (np.abs(dots - middle) < half).all(axis=1).sum()
    misleading = (np.abs(rest - middle) < half + CLEAR_PT).all(axis=1).sum()
    return float(covered) + MISLEADING * float(misleading) + OVERLAP * overlaps + OUTSIDE * leaves


def _in_points(ax: Axes, xy: np.ndarray) -> np.ndarray:
    """Data coordinates in points from the lower left corner of the axes."""
    return ax.transAxes.inverted().transform(ax.transData.transform(xy)) * _size_pt(ax)


def _size_pt(ax: Axes) -> np.ndarray:
    """Width and height of the axes, points."""
    extent = ax.get_window_extent()
    return np.array([extent.width, extent.height]) * POINTS_PER_INCH / whole_figure(ax).dpi
