"""Where a figure goes: into a file, onto the screen, back to the caller."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spahgc._files import written_whole
from spahgc._validate import check_new_name, check_writable_file, check_writable_folder, quoted, user_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROW_HEIGHT_IN = 2.6
"""Height of a figure of one row of axes."""
SAVE_DPI = 300
"""Dots per inch of saved pictures."""

SILENT_BACKENDS = frozenset({"agg", "cairo", "pdf", "pgf", "ps", "svg", "template"})
"""Backends of matplotlib that draw into files and have no screen."""


def save_path(save: str | Path | bool | None, name: str) -> Path | None:
    """The file to write, checked before anything is drawn; ``None`` for no file.

    Parameters
    ----------
    save
        A path; ``True`` for scanpy's folder of figures; ``None`` follows ``scanpy.settings.autosave``.
    name
        Name of the file in scanpy's folder.
    """
    from scanpy import settings

    if save is None:
        save = bool(settings.autosave)
    if save is False:
        return None
    if save is True:
        folder = check_writable_folder(settings.figdir)
        return folder / f"{name}{settings.plot_suffix}.{settings.file_format_figs}"
    path = user_path(save, "save=")
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f'save="{path}": the folder "{path.parent}" does not exist. Make it first, or save elsewhere.'
        )
    check_new_name(path, f'save="{path}"')
    if path.is_dir():
        raise IsADirectoryError(f'save="{path}" is a folder. Pass the path of a file, such as "{path / name}.png".')
    path = _with_format(path)
    check_writable_file(path, f'save="{path}"')
    return path


def _with_format(path: Path) -> Path:
    """The path with the ending of a format that figures have, which is that of matplotlib's settings where it has none."""
    from matplotlib import rcParams
    from matplotlib.backend_bases import FigureCanvasBase

    formats = FigureCanvasBase.get_supported_filetypes()
    if not path.suffix.removeprefix("."):
        return path.with_name(f"{path.name.rstrip('.')}.{rcParams['savefig.format']}")
    suffix = path.suffix.removeprefix(".").lower()
    if suffix and suffix not in formats:
        raise ValueError(
            f'save="{path}": figures cannot be written as "{suffix}". The formats are: '
            f"{quoted(sorted(formats), limit=len(formats))}."
        )
    return path


def _write(figure: Figure, path: Path, dpi: float | None = None) -> None:
    """Write a figure whole or not at all, and what some formats put beside it."""
    with written_whole(path) as part:
        drawn = part.with_name(path.name)
        figure.savefig(drawn, dpi=SAVE_DPI if dpi is None else dpi, format=path.suffix.removeprefix(".").lower())
        drawn.replace(part)
        for beside in part.parent.iterdir():  # the pixels of a figure for TeX
            if beside != part:
                beside.replace(path.with_name(beside.name))


def whole_figure(ax: Axes) -> Figure:
    """The figure of the axes, also of those that stand in a figure's part."""
    figure: Any = ax.figure
    while figure.figure is not figure:
        figure = figure.figure
    return figure


def finish(
    axes: list[Axes],
    path: Path | None,
    *,
    show: bool | None,
    return_fig: bool,
    own_figure: bool,
    dpi: float | None = None,
) -> list[Axes] | Figure | None:
    """Save and show a figure that is complete, and return what the caller of a figure function gets.

    Parameters
    ----------
    axes
        The panels, in the order of the result.
    path
        File to write, as :func:`save_path` gave it.
    show, return_fig
        The caller's wishes.
    own_figure
        False where the caller gave axes: that figure is not shown, since the rest of it may still be missing.
    dpi
        Dots per inch of the file; ``None`` takes 300.
    """
    from matplotlib import pyplot as plt

    figure = whole_figure(axes[0])
    shown = own_figure and not return_fig and (_is_autoshown() if show is None else show)
    if path is not None:
        _write(figure, path, dpi)
    if shown:
        plt.show()
    if path is not None and own_figure:
        # As scanpy does: a saved figure is not drawn again at the end of a notebook's cell, and loops stay small.
        plt.close(figure)
    if return_fig:
        return figure
    return None if shown else axes


def finish_single(
    ax: Axes, path: Path | None, *, show: bool | None, return_fig: bool, own_figure: bool
) -> Axes | Figure | None:
    """The same for a figure of one panel, whose caller gets the axes themselves."""
    result = finish([ax], path, show=show, return_fig=return_fig, own_figure=own_figure)
    return ax if isinstance(result, list) else result


def _is_autoshown() -> bool:
    """Whether scanpy's settings ask for figures to be shown, and there is a screen."""
    import matplotlib
    from scanpy import settings

    return bool(settings.autoshow) and matplotlib.get_backend().lower() not in SILENT_BACKENDS


def new_axes(width: float, n_panels: int = 1, height: float = ROW_HEIGHT_IN) -> list[Axes]:
    """Axes side by side in a new figure of this size, inches."""
    from matplotlib import pyplot as plt

    figure = plt.figure(figsize=(width, height), layout="constrained")
    return list(figure.subplots(1, n_panels, squeeze=False).ravel())


def given_axes(
    ax: Axes | Sequence[Axes] | np.ndarray | None, n_rows: int, n_columns: int, content: str
) -> list[Axes] | None:
    """The caller's axes as a list, ``None`` for none; refuses other things, a wrong number, axes of several figures.

    Parameters
    ----------
    ax
        What the caller passed: axes, or a sequence or an array of them.
    n_rows, n_columns
        Shape of the panels that are drawn.
    content
        What the panels show, for the message.
    """
    from matplotlib.axes import Axes

    if ax is None:
        return None
    flat = [ax] if isinstance(ax, Axes) else list(np.asarray(ax, dtype=object).ravel())
    wrong = [type(one).__name__ for one in flat if not isinstance(one, Axes)]
    if wrong:
        raise TypeError(f"ax must be matplotlib Axes or a sequence of them, found {quoted(wrong)}.")
    needed = n_rows * n_columns
    if len(flat) != needed:
        raise ValueError(
            f"ax must hold {needed} axes ({content}), found {len(flat)}. Pass "
            f"plt.subplots({n_rows}, {n_columns})[1], or leave ax out."
        )
    if len({id(one.figure) for one in flat}) > 1:
        raise ValueError("the axes in ax belong to several figures. Pass axes of one figure.")
    return flat
