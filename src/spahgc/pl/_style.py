"""How figures look: colours, sizes of text and panels, the shared colour scale, the wording of titles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from spahgc.pl._output import whole_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backend_bases import RendererBase
    from matplotlib.cm import ScalarMappable
    from matplotlib.transforms import Bbox

TITLE_PT = 8.5
TEXT_PT = 7.5
"""Text sizes in points at the figure's own width; at 89 mm, one column of a journal, 5 pt and more remain."""

COLUMN_IN, PAIR_IN, PAGE_IN = 3.35, 5.0, 6.9
"""Width of a figure with one panel a row, with two, and with more: one, one and a half and two columns of a journal."""
COLOUR_BAR_IN = 0.75
"""Width that a colour bar takes with its numbers and its label."""
TITLE_LINE_IN = 0.14
ROW_ROOM_IN = 0.1
SCALE_BAR_IN = 0.25
"""Heights of a title's line, of the room between rows, and of a scale bar below a row."""
SIDE_NAME_IN = 0.2
"""Width of a slide's name left of its row."""
SIDE_NAME_GAP_PT = 3.0
"""Distance of that name from the panel, points."""
PANEL_HEIGHT_IN = (1.35, 3.2)
"""Least and greatest height of a panel; the least holds the label of the colour bar."""

EXPRESSION_CMAP, SPREAD_CMAP, SUPPORT_CMAP = "viridis", "magma", "cividis"
"""Colour maps, perceptually even and told apart by colour-blind readers; another quantity has another one."""
MIN_CONTRAST = 0.4
"""Least difference between the brightness of text and of its background, 0 to 1."""

TITLE_CHAR_IN, WIDE_CHAR_IN, NARROW_CHAR_IN = 0.066, 0.076, 0.058
"""Mean width of a letter of a title, of its capitals and digits, and of all others."""
LEGEND_IN, LEGEND_CHAR_IN = 0.25, 0.058
"""Width of a legend without its names, and mean width of a letter of these."""
GENE_SHARE = 0.75
"""Longest name of a gene, as a share of the letters of a line: capitals and numbers are wide, and a comma follows."""
MIN_TITLE_CHARS = 12
"""Letters of a line of a title above the narrowest panels."""
MAX_NAME = 24
"""Letters of a name beside a panel or in a legend."""
ROBUST_PERCENTILES = (1.0, 99.0)
"""Range of the values that the colours span where the caller names no limits."""

COLOUR_BAR_ASPECT = 22.0
COLOUR_BAR_PAD = 0.02
COLOUR_BAR_HEIGHT_IN = 1.3
COLOUR_BAR_TICKS = 6
"""Colour bar: height over width, distance as a share of the row's width, least height, most intervals of its axis."""

RC: Any = {
    "font.size": TEXT_PT,
    "axes.titlesize": TITLE_PT,
    "axes.labelsize": TEXT_PT,
    "xtick.labelsize": TEXT_PT,
    "ytick.labelsize": TEXT_PT,
    "legend.fontsize": TEXT_PT,
    "legend.title_fontsize": TEXT_PT,
    # Styles that draw a grid would draw it over the tissue and the colour bar.
    "axes.grid": False,
    # Text stays text in vector files, so that a journal can edit it.
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "svg.fonttype": "none",
}
"""Settings of matplotlib that hold while a figure is drawn and saved."""


@contextmanager
def rc_context(style: Mapping[str, Any]) -> Iterator[None]:
    """Settings of matplotlib for the figures that are drawn meanwhile.

    In a notebook the first figure loads the backend, which makes matplotlib interactive. That is no setting of this figure,
    and stays: otherwise the figures after it would not be shown at the end of their cells.
    """
    import matplotlib

    interactive = matplotlib.is_interactive()
    settings: Any = dict(style)  # matplotlib lists the names that it knows as types
    try:
        with matplotlib.rc_context(settings):
            try:
                yield
            finally:
                interactive = matplotlib.is_interactive()
    finally:
        matplotlib.interactive(interactive)


def check_style(vmin: float | None, vmax: float | None, size: float, img_alpha: float) -> None:
    """Refuse limits of the colours, a size of the spots or an opacity of the image that cannot be drawn."""
    if vmin is not None and vmax is not None and vmin >= vmax:
        raise ValueError(f"vmin must be below vmax, found vmin={vmin:g} and vmax={vmax:g}.")
    if not size > 0:
        raise ValueError(f"size must be above 0, found {size:g}. 1 draws the spots in their true size.")
    if not 0 <= img_alpha <= 1:
        raise ValueError(f"img_alpha must be between 0 (no image) and 1 (full colours), found {img_alpha:g}.")


def check_count(name: str, value: object, meaning: str, least: int = 1) -> int:
    """A whole number of what the caller asks for; refuses anything else."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name} is {value!r}; pass a whole number of {meaning}.")
    return int(value)


def check_positive(name: str, value: float | None, meaning: str) -> None:
    """Refuse a number that is not above 0; ``None`` leaves it to the function."""
    if value is not None and not (np.isfinite(value) and value > 0):
        raise ValueError(f"{name} is {value!r}; pass a positive {meaning}.")


def check_figsize(figsize: Sequence[float] | None) -> tuple[float, float] | None:
    """Width and height of a figure, inches; refuses anything else."""
    if figsize is None:
        return None
    try:
        width, height = (float(side) for side in figsize)
    except (TypeError, ValueError) as error:
        raise ValueError(f"figsize={figsize!r}; pass width and height in inches, e.g. figsize=(7, 5).") from error
    if not (np.isfinite([width, height]).all() and min(width, height) > 0):
        raise ValueError(f"figsize={figsize!r}; pass width and height in inches, both above 0.")
    return width, height


def set_style() -> None:
    """Take the sizes of text and the fonts of this package's figures for all figures from now on.

    The functions of ``spahgc.pl`` draw in them anyway, and change nothing for the figures of others; what is drawn beside
    them looks alike after this. ``matplotlib.rcdefaults()`` takes it back.

    Examples
    --------
    >>> import matplotlib
    >>> import spahgc as sp
    >>> with matplotlib.rc_context():
    ...     sp.pl.set_style()
    ...     matplotlib.rcParams["axes.titlesize"]
    8.5
    """
    import matplotlib

    matplotlib.rcParams.update(RC)


def figure_width(n_across: int) -> float:
    """Width in inches of a figure with so many panels side by side."""
    return {1: COLUMN_IN, 2: PAIR_IN}.get(n_across, PAGE_IN)


def panel_height(width: float, aspect: float, share: int = 1) -> float:
    """Height in inches of a panel of that height over width, of which `share` stand beside one colour bar."""
    least, most = PANEL_HEIGHT_IN
    return float(np.clip(width * aspect, least / share, most))


def text_colour(ax: Axes) -> str:
    """Colour of what is written beside the panels: that of the caller's style, unless it would hardly be seen."""
    from matplotlib import rcParams
    from matplotlib.colors import to_hex, to_rgba

    *background, opacity = to_rgba(whole_figure(ax).get_facecolor())
    wanted = to_hex(rcParams["text.color"])
    if opacity == 0 or abs(_brightness(to_rgba(wanted)) - _brightness(background)) >= MIN_CONTRAST:
        return wanted
    return "black" if _brightness(background) > 0.5 else "white"


def on_dark(ax: Axes) -> bool:
    """Whether what is written beside the panels is light, so that the page must be dark."""
    from matplotlib.colors import to_rgba

    return _brightness(to_rgba(text_colour(ax))) > 0.5


def _brightness(colour: Sequence[float]) -> float:
    return float(np.dot(colour[:3], (0.299, 0.587, 0.114)))


def shorten(name: str, most: int = MAX_NAME) -> str:
    """A name of at most so many letters: the middle of a longer one is left out."""
    half = (most - 1) // 2
    return name if len(name) <= most else f"{name[: most - 1 - half]}…{name[len(name) - half :]}"


def draw_side_name(ax: Axes, name: str) -> None:
    """Write the name of a slide left of the first panel of its row, from bottom to top."""
    ax.annotate(
        shorten(name),
        (0, 0.5),
        xytext=(-SIDE_NAME_GAP_PT, 0),
        xycoords="axes fraction",
        textcoords="offset points",
        rotation="vertical",
        ha="right",
        va="center",
        fontsize=TITLE_PT,
        color=text_colour(ax),
    )


def titles(
    genes: Sequence[str],
    scores: Sequence[float | None],
    *,
    kinds: Sequence[str],
    width: float = 2.1,
    expected: Sequence[tuple[float, float, float] | None] | None = None,
) -> list[list[str]]:
    """Titles of all panels, a list a row; those of all rows are broken at the same places.

    Parameters
    ----------
    genes
        Name of the gene of each row.
    scores
        PCC of each; NaN where a constant gene has none, ``None`` where nothing is known.
    kinds
        What the panels of a row show: ``"measured"``, ``"predicted"``, ``"spread"``.
    width
        Width of a panel, inches.
    expected
        PCC of each gene on references held out with its interval, for those of which no PCC is known here.
    """
    room = max(width / TITLE_CHAR_IN, MIN_TITLE_CHARS)
    most = int(room)
    names = [shorten(gene, int(GENE_SHARE * most)) for gene in genes]
    known = [None] * len(names) if expected is None else expected
    notes = [
        _note(score) if score is not None else _held_out_note(held_out)
        for score, held_out in zip(scores, known, strict=True)
    ]
    after_gene = "\n" if max(_letters(f"{name}, predicted") for name in names) > room else " "
    longest = max(_letters(f"{name}, predicted {note}") for name, note in zip(names, notes, strict=True))
    before_note = "\n" if longest > room else " "
    if max(map(len, notes)) > most:
        notes = [note.replace(": ", ":\n") for note in notes]
    rows = []
    for name, note in zip(names, notes, strict=True):
        row = {kind: f"{name},{after_gene}{kind}" for kind in kinds}
        if note:
            row["predicted"] += before_note + note
        rows.append(list(row.values()))
    return rows


def _letters(text: str) -> float:
    """How many letters of mean width are as wide as a text; names of genes are capitals and digits."""
    n_wide = sum(letter.isupper() or letter.isdigit() for letter in text)
    return (n_wide * WIDE_CHAR_IN + (len(text) - n_wide) * NARROW_CHAR_IN) / TITLE_CHAR_IN


def _note(score: float | None) -> str:
    if score is None:
        return ""
    # Adding zero takes the sign off a rounded -0.00.
    return "(PCC not defined: constant)" if np.isnan(score) else f"(PCC {round(score, 2) + 0.0:.2f})"


def _held_out_note(expected: tuple[float, float, float] | None) -> str:
    """What is expected of a gene that was not measured here."""
    if expected is None:
        return ""
    pcc, low, high = (f"{round(value, 2) + 0.0:.2f}" for value in expected)
    return f"(PCC held out: {pcc}, {low} to {high})"


def shared_limits(panels: Sequence[np.ndarray], vmin: float | None, vmax: float | None) -> tuple[float, float, str]:
    """Limits of the colours over all panels of a gene, and on which side values lie beyond them.

    Parameters
    ----------
    panels
        Values of each panel; NaN are left out.
    vmin, vmax
        The caller's limits, which win.

    Returns
    -------
    Lower limit, upper limit (0 and 1 where there is no value), and ``"neither"``, ``"min"``, ``"max"`` or ``"both"``, as matplotlib's ``extend``.
    """
    values = np.concatenate([panel[np.isfinite(panel)] for panel in panels]).astype(np.float64)
    if not len(values):
        values = np.zeros(1)
    low, high = (float(limit) for limit in np.percentile(values, ROBUST_PERCENTILES))
    if low == high:
        # A gene seen in fewer than one spot of a hundred has both percentiles at zero.
        low, high = float(values.min()), float(values.max())
    low, high = low if vmin is None else float(vmin), high if vmax is None else float(vmax)
    if low >= high:
        low, high = (high - 1.0, high) if vmin is None and vmax is not None else (low, low + 1.0)
    extend = ("neither", "min", "max", "both")[int(values.min() < low) + 2 * int(values.max() > high)]
    return low, high, extend


def draw_colour_bar(
    panels: Sequence[Axes], mappable: ScalarMappable, *, label: str, extend: str, n_rows: int = 1
) -> None:
    """Draw one colour bar right of a block of panels, as high as the panels are, or as its numbers need.

    Parameters
    ----------
    panels
        The panels.
    mappable
        What has the colours.
    label
        What they mean, with the unit.
    extend
        On which sides values lie beyond the limits, as matplotlib's ``extend``.
    """
    from matplotlib.colorbar import make_axes
    from matplotlib.ticker import MaxNLocator
    from matplotlib.transforms import Bbox

    figure = panels[0].figure
    # Of the width that a bar of one row would have, however many rows it stands beside.
    bar_ax, _ = make_axes(list(panels), location="right", aspect=COLOUR_BAR_ASPECT * n_rows, pad=COLOUR_BAR_PAD)

    def beside_panels(ax: Any, renderer: RendererBase) -> Bbox:
        # A panel of equal aspect is lower than its cell, and only the drawing tells by how much.
        cell, shown = ax.get_position(original=True), [panel.get_position() for panel in panels]
        bottom, top = min(box.y0 for box in shown), max(box.y1 for box in shown)
        least = COLOUR_BAR_HEIGHT_IN * figure.dpi / figure.bbox.height
        height = min(max(top - bottom, least), cell.height)
        bottom = min(max((bottom + top - height) / 2, cell.y0), cell.y1 - height)
        return Bbox.from_extents(cell.x0, bottom, cell.x1, bottom + height)

    bar_ax.set_axes_locator(beside_panels)
    bar = figure.colorbar(
        mappable,
        cax=bar_ax,
        extend=extend,
        ticks=MaxNLocator(COLOUR_BAR_TICKS, steps=[1, 2, 5, 10]),
        extendfrac=0.03,
    )
    # The dark end of a map would be lost on a dark page.
    bar.outline.set(visible=on_dark(panels[0]), edgecolor=text_colour(panels[0]), linewidth=0.5)
    bar.set_label(label, color=text_colour(panels[0]))
    bar_ax.tick_params(colors=text_colour(panels[0]))
