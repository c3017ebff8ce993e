"""How figures show the measured spots of a target that was measured in part: grey, and with words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from spahgc._keys import Uns
from spahgc.pl._style import text_colour
from spahgc.pl._tissue import Tissue, draw_filled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FACE, EDGE, EDGE_PT = "0.8", "0.35", 0.4
"""Colours of a measured spot, and width of its edge in points: no colour map that is used has such a grey."""
MARKER_PT = 5.0
"""Diameter of the spot in the legend, points."""


def measured_note(n: int) -> str:
    """What is said of so many measured spots; empty where there are none."""
    return f"{n:,} {'spot' if n == 1 else 'spots'} measured, used as reference" if n else ""


def measured_sentence(record: Mapping[str, Any]) -> str:
    """The same in full, of the record of a prediction; empty where the whole slide was predicted."""
    part = record.get(Uns.measured)
    if not part:
        return ""
    return (
        f'{measured_note(int(part["n_measured"]))} "{part["reference"]}" (obs["{part["column"]}"]); '
        f"{int(part['n_predicted']):,} others predicted"
    )


def draw_measured(ax: Axes, tissue: Tissue, spots: np.ndarray, *, legend: bool = False, right: bool = False) -> None:
    """Draw the measured spots of a panel that shows predicted values; nothing where there are none.

    Parameters
    ----------
    ax
        The panel, with its tissue.
    tissue
        What it shows.
    spots
        True for the measured spots.
    legend
        Say below the panel what they are.
    right
        Say it at the right end, beside a scale bar.
    """
    if not spots.any():
        return
    from matplotlib.legend import Legend
    from matplotlib.lines import Line2D

    draw_filled(ax, tissue, spots, facecolors=FACE, edgecolors=EDGE, linewidths=EDGE_PT)
    if not legend:
        return
    mark = Line2D([], [], marker="o", linestyle="", ms=MARKER_PT, mfc=FACE, mec=EDGE, mew=EDGE_PT)
    # A legend by itself: ax.legend would take away the one that a panel may have.
    below = Legend(
        ax,
        [mark],
        [measured_note(int(spots.sum())).replace(", ", ",\n")],
        loc="upper right" if right else "upper left",
        bbox_to_anchor=(1 if right else 0, 0),
        bbox_transform=ax.transAxes,
        frameon=False,
        handletextpad=0.2,
        borderpad=0.1,
        borderaxespad=0.0,
        labelcolor=text_colour(ax),
    )
    ax.add_artist(below)
    below.set_clip_on(False)  # so that the layout leaves room for it
