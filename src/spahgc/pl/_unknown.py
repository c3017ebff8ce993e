"""How figures show spots that look like nothing on the references: hatched instead of coloured, and with words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from spahgc.pl._output import whole_figure
from spahgc.pl._style import text_colour
from spahgc.pl._tissue import Tissue, draw_filled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FACE, EDGE, EDGE_PT = "white", "0.55", 0.3
"""Colours of such a spot, and width of its edge in points."""
HATCH = "////////"
"""Lines across it."""
BELOW_IN = 0.27
"""Distance of the legend from the panel, inches: below a scale bar, or the two lines of another legend."""
ROOM_IN = 0.5
"""Height that the legend takes below the last panels of a figure, inches."""
OPACITY = 0.85
"""The tissue is seen through it, its colour is not mistaken for a value."""
STYLE: Any = {"linewidth": EDGE_PT, "hatch": HATCH, "alpha": OPACITY}


def check_fade(fade_below: float | None) -> None:
    """Refuse a support below which spots are faded that is none."""
    if fade_below is not None and not 0 <= fade_below <= 1:
        raise ValueError(
            f"fade_below is {fade_below!r}; support lies between 0 and 1, so pass a number between them, or None to draw all "
            "spots in full colour."
        )


def without_unknown(values: np.ndarray, unknown: np.ndarray) -> np.ndarray:
    """Values of the spots, NaN at those that look like nothing on the references."""
    return np.where(unknown, np.nan, values) if unknown.any() else values


def unknown_note(n: int) -> str:
    """What is said of so many spots, in lines short enough for a narrow panel; empty where there are none."""
    return f"{n:,} {'spot looks' if n == 1 else 'spots look'} like\nnothing on the\nreferences" if n else ""


def draw_unknown(ax: Axes, tissue: Tissue, spots: np.ndarray) -> None:
    """Hatch the spots of a panel that look like nothing on the references, True in `spots`; nothing where there are none."""
    if spots.any():
        draw_filled(ax, tissue, spots, facecolors=FACE, edgecolors=EDGE, **STYLE)


def name_unknown(ax: Axes, spots: np.ndarray) -> None:
    """Say below a panel, and below scale bar and other legends there, what its hatched spots are."""
    if not spots.any():
        return
    from matplotlib.legend import Legend
    from matplotlib.patches import Patch
    from matplotlib.transforms import ScaledTranslation

    lower = ScaledTranslation(0, -BELOW_IN, whole_figure(ax).dpi_scale_trans)
    # A legend by itself: ax.legend would take away the one that a panel may have.
    below = Legend(
        ax,
        [Patch(facecolor=FACE, edgecolor=EDGE, **STYLE)],
        [unknown_note(int(spots.sum()))],
        loc="upper left",
        bbox_to_anchor=(0, 0),
        bbox_transform=ax.transAxes + lower,
        frameon=False,
        handlelength=1.2,
        handletextpad=0.4,
        borderpad=0.1,
        borderaxespad=0.0,
        labelcolor=text_colour(ax),
    )
    ax.add_artist(below)
    below.set_clip_on(False)  # so that the layout leaves room for it
