"""Measured beside predicted expression on the tissue."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import issparse

from spahgc._expression import log_expression, zero_spots
from spahgc._keys import UNITS, UNS, Uns, Var
from spahgc._tables import table_of
from spahgc._validate import check_anndata, check_genes, listing
from spahgc.pl._output import hand_over, is_shown, save_path, whole_figure
from spahgc.pl._style import RC, draw_colour_bar, figure_size, shared_limits, titles
from spahgc.pl._tissue import Tissue, draw_scale_bar, draw_tissue, slide_tissue

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure
    from spatialdata import SpatialData

SLIDE = "the slide"


@dataclass(frozen=True)
class Content:
    """What is drawn: values of the genes, spots x genes, and a PCC a gene."""

    genes: list[str]
    predicted: np.ndarray
    measured: np.ndarray | None
    scores: list[float | None]
    units: str


@dataclass(frozen=True)
class Look:
    """How it is drawn."""

    cmap: str | Colormap
    vmin: float | None
    vmax: float | None
    img_alpha: float


def spatial_genes(
    adata: AnnData | SpatialData,
    genes: str | Sequence[str],
    *,
    key: str = "spahgc",
    layer: str | None = None,
    library_id: str | None = None,
    table_key: str | None = None,
    image_key: str | None = None,
    coordinate_system: str | None = None,
    cmap: str | Colormap = "viridis",
    vmin: float | None = None,
    vmax: float | None = None,
    size: float = 1.0,
    img_alpha: float = 0.6,
    ax: Axes | Sequence[Axes] | np.ndarray | None = None,
    show: bool | None = None,
    save: str | Path | bool | None = None,
    return_fig: bool = False,
) -> list[Axes] | Figure | None:
    """Draw measured beside predicted expression on the tissue, one row a gene.

    Both panels of a gene share one colour scale with its colour bar, and the title of the prediction gives the gene's
    Pearson correlation (PCC) with the measurement. Where nothing was measured, the prediction stands alone. The spots
    are circles of their true size. Nothing is written into `adata`.

    Parameters
    ----------
    adata
        One slide with a prediction: an AnnData, or a SpatialData with such a table. Of a SpatialData the tissue is its
        image, and the spots are the shapes that the table annotates.
    genes
        Names of the genes, from the panel of the prediction.
    key
        Layer of the prediction, as `spahgc.tl.predict` was given in ``key_added``.
    layer
        Layer that holds the counts; ``None`` takes ``X``. The counts are drawn as log1p counts per 10,000. Without any
        values, with zeros only, or with NaN in ``X``, the slide counts as not measured. Spots without a single count
        stay blank beside the prediction and are left out of the PCC.
    library_id
        Entry of ``uns["spatial"]`` with the image and its scale factors; ``None`` takes the only one, or the one that
        ``obs["slide"]`` names. Of the images ``"hires"`` comes first, then ``"lowres"``; without any, the spots stand
        on white. Of a SpatialData it asks for the picture in its table instead of its image.
    table_key
        Key of the table of a SpatialData; ``None`` takes the only one.
    image_key
        Key of the image of a SpatialData; ``None`` takes the only one, or the finest of several that show the same.
    coordinate_system
        Coordinate system in which shapes and image of a SpatialData meet; ``None`` takes any as long as all agree.
    cmap
        Colour map.
    vmin, vmax
        Limits of the colours of all genes; ``None`` takes the 1st and 99th percentile of both panels of the gene. A
        pointed end of the colour bar says that there are values beyond.
    size
        Factor on the diameter of the spots. The diameter is the scale factor ``spot_diameter_fullres``, or 0.55 times
        the median distance to the nearest spot where that is missing.
    img_alpha
        Opacity of the tissue image, 0 to 1.
    ax
        Axes to draw on, row by row: two a gene, or one where nothing was measured. ``None`` makes a figure.
    show
        Show the figure; ``None`` follows ``scanpy.settings.autoshow`` where matplotlib has a screen. A figure on given
        axes is not shown.
    save
        Path of a file to write, whose folder must exist; ``True`` writes into ``scanpy.settings.figdir``; ``None``
        follows ``scanpy.settings.autosave``. A figure made here is closed once it is saved, as in scanpy.
    return_fig
        Return the figure, and do not show it.

    Returns
    -------
    The axes, row by row; the figure with `return_fig`; ``None`` if the figure was shown.

    Raises
    ------
    KeyError
        If the prediction, a gene, the spot coordinates or the library is not there; or table, image, coordinate system
        or shapes of a SpatialData.
    ValueError
        If a gene is outside the panel, the number of axes is wrong, the object holds several slides, or a SpatialData
        several tables or images that were not told apart.
    OSError
        If the file cannot be written.

    See Also
    --------
    spahgc.tl.predict : makes the prediction.
    spahgc.tl.evaluate : scores all genes; its PCC is drawn where it has run.

    Examples
    --------
    >>> import spahgc as sp
    >>> slide = sp.datasets.simulated(1, n_patients=1, n_spots=40, n_genes=20)[0]
    >>> slide.layers["spahgc"] = slide.layers["truth"]
    >>> axes = sp.pl.spatial_genes(slide, ["MORPH001", "FLAT001"], show=False)
    >>> [ax.get_title() for ax in axes[::2]]
    ['MORPH001, measured', 'FLAT001, measured']
    """
    from matplotlib import rc_context

    _check_look(vmin, vmax, size, img_alpha)
    data, adata = adata, table_of(adata, table_key, SLIDE)
    names = _drawable_genes(adata, genes, key)
    path = save_path(save, "spatial_genes")
    tissue = slide_tissue(
        data,
        table_key=table_key,
        image_key=image_key,
        coordinate_system=coordinate_system,
        library_id=library_id,
        size=size,
    )
    measured = _measured(adata, names, layer)
    given = None if ax is None else _given_axes(ax, len(names), 1 if measured is None else 2)
    predicted = _columns(adata[:, names].layers[key])
    content = Content(names, predicted, measured, _scores(adata, names, key, predicted, measured), _units(adata, key))
    with rc_context(RC):
        rows = _draw(content, tissue, Look(cmap, vmin, vmax, img_alpha), given)
        figure = whole_figure(rows[0][0])
        shown = is_shown(False if return_fig else show, own_figure=given is None)
        hand_over(figure, path, shown, own_figure=given is None)
    if return_fig:
        return figure
    return None if shown else [panel for row in rows for panel in row]


def _check_look(vmin: float | None, vmax: float | None, size: float, img_alpha: float) -> None:
    if vmin is not None and vmax is not None and vmin >= vmax:
        raise ValueError(f"vmin must be below vmax, found vmin={vmin:g} and vmax={vmax:g}.")
    if not size > 0:
        raise ValueError(f"size must be above 0, found {size:g}. 1 draws the spots in their true size.")
    if not 0 <= img_alpha <= 1:
        raise ValueError(f"img_alpha must be between 0 (no image) and 1 (full colours), found {img_alpha:g}.")


def _drawable_genes(adata: AnnData, genes: str | Sequence[str], key: str) -> list[str]:
    """The genes as a list; refuses a missing prediction and genes that it does not hold."""
    check_anndata(adata, SLIDE)
    if key not in adata.layers:
        raise KeyError(
            f'layer "{key}" not found in {SLIDE}, layers are: {listing(adata.layers)}. '
            "Run spahgc.tl.predict(adata, refs) first."
        )
    wanted = [genes] if isinstance(genes, str) else list(genes)
    if not wanted:
        raise ValueError("genes is empty. Pass the names of the genes to draw.")
    names = check_genes(wanted, adata.var_names, SLIDE)
    panel = Var.panel(key)
    if panel in adata.var:
        inside = adata.var[panel].to_numpy(dtype=bool)
    else:
        inside = np.isfinite(_columns(adata.layers[key])).any(axis=0)
    # A gene of the panel may still be NaN, in a layer that was changed since.
    filled = np.isfinite(_columns(adata[:, names].layers[key])).any(axis=0)
    drawable = inside[adata.var_names.get_indexer(names)] & filled
    outside = [name for name, is_drawable in zip(names, drawable, strict=True) if not is_drawable]
    if outside:
        raise ValueError(
            f'{listing(outside)}: not in the panel of the prediction "{key}", which holds {int(inside.sum())} genes: '
            f"{listing(adata.var_names[inside])}. Draw one of these, or predict with genes=[...] that names it."
        )
    return names


def _columns(values: Any) -> np.ndarray:
    """Dense values, float32."""
    if hasattr(values, "to_memory"):
        values = values.to_memory()
    elif hasattr(values, "compute"):
        values = values.compute()
    return np.asarray(values.toarray() if issparse(values) else values, dtype=np.float32)


def _measured(adata: AnnData, genes: list[str], layer: str | None) -> np.ndarray | None:
    """Measured expression of the genes, spots x genes, NaN in empty spots; ``None`` where nothing was measured."""
    if layer is None and not _has_measurement(adata.X):
        return None
    # Every spot's total is over all genes, so the columns are taken afterwards.
    expression = log_expression(adata, layer=layer, what=SLIDE)
    empty = zero_spots(expression)
    if empty.all():
        return None
    values = _columns(expression[:, adata.var_names.get_indexer(genes)])
    # Where no gene was seen, a zero is no measurement of this one.
    values[empty] = np.nan
    return values


def _has_measurement(x: Any) -> bool:
    """Whether ``X`` has values, none of them NaN: a slide that was never measured is often filled with NaN."""
    if x is None:
        return False
    if hasattr(x, "to_memory"):
        x = x.to_memory()
    elif hasattr(x, "compute"):
        x = x.compute()
    values = x.data if issparse(x) else np.asarray(x)
    missing = int(np.count_nonzero(np.isnan(values)))
    if 0 < missing < values.size:
        warnings.warn(
            f"X has {missing} NaN among {values.size} values, so {SLIDE} counts as not measured and only the "
            "prediction is drawn. Pass layer= with the counts if it was measured.",
            stacklevel=4,
        )
    return values.size > 0 and missing == 0


def _scores(
    adata: AnnData, genes: list[str], key: str, predicted: np.ndarray, measured: np.ndarray | None
) -> list[float | None]:
    """PCC of every gene: that of `spahgc.tl.evaluate` where it has run, else of what is drawn."""
    column = Var.score(key, "pearson")
    known = np.full(len(genes), np.nan)
    if column in adata.var:
        known = adata.var[column].reindex(genes).to_numpy(dtype=np.float64)
    if measured is None:
        return [float(score) if np.isfinite(score) else None for score in known]
    complete = np.isfinite(measured).all(axis=1) & np.isfinite(predicted).all(axis=1)
    if np.isnan(known).any() and complete.any():
        from spahgc.tl._evaluate import gene_scores

        drawn = gene_scores(predicted[complete], measured[complete], genes)["pearson"].to_numpy(dtype=np.float64)
        known = np.where(np.isnan(known), drawn, known)
    return [float(score) for score in known]


def _units(adata: AnnData, key: str) -> str:
    """Units that the prediction's record names, else those of the package."""
    record = adata.uns.get(UNS, {}).get(Uns.predictions, {}).get(key, {})
    return str(record.get("units", UNITS))


def _given_axes(ax: Axes | Sequence[Axes] | np.ndarray, n_rows: int, n_columns: int) -> list[list[Axes]]:
    """The caller's axes as rows; refuses a wrong number."""
    from matplotlib.axes import Axes

    flat = [ax] if isinstance(ax, Axes) else list(np.asarray(ax, dtype=object).ravel())
    strange = [type(one).__name__ for one in flat if not isinstance(one, Axes)]
    if strange:
        raise TypeError(f"ax must be matplotlib Axes or a sequence of them, found {listing(strange)}.")
    needed = n_rows * n_columns
    if len(flat) != needed:
        panels = "measured and predicted" if n_columns > 1 else "predicted alone, since nothing was measured"
        raise ValueError(
            f"ax must hold {needed} axes ({n_rows} genes, {panels}), found {len(flat)}. Pass "
            f"plt.subplots({n_rows}, {n_columns})[1], or leave ax out."
        )
    if len({id(one.figure) for one in flat}) > 1:
        raise ValueError("the axes in ax belong to several figures. Pass axes of one figure.")
    return [flat[start : start + n_columns] for start in range(0, needed, n_columns)]


def _draw(content: Content, tissue: Tissue, look: Look, given: list[list[Axes]] | None) -> list[list[Axes]]:
    """Draw all rows; returns their axes."""
    from matplotlib import pyplot as plt

    n_rows, n_columns = len(content.genes), 1 if content.measured is None else 2
    names = titles(content.genes, content.scores, measured=n_columns > 1)
    rows = given
    if rows is None:
        n_lines = 1 + max(row[-1].count("\n") for row in names)
        size = figure_size(n_rows, n_columns, tissue.aspect, n_lines)
        rows = plt.figure(figsize=size, layout="constrained").subplots(n_rows, n_columns, squeeze=False).tolist()
    for index, row in enumerate(rows):
        _draw_row(row, names[index], content, index, tissue, look)
    # All panels have one scale; the last row has nothing below that the bar could touch.
    draw_scale_bar(rows[-1][0], tissue)
    return rows


def _draw_row(row: list[Axes], names: list[str], content: Content, index: int, tissue: Tissue, look: Look) -> None:
    """Draw one gene: its panels, their titles and their colour bar."""
    from matplotlib.colors import Normalize

    measured = [] if content.measured is None else [content.measured[:, index]]
    panels = [*measured, content.predicted[:, index]]
    low, high, extend = shared_limits(panels, look.vmin, look.vmax)
    norm = Normalize(low, high)
    for ax, values, title in zip(row, panels, names, strict=True):
        spots = draw_tissue(ax, tissue, values, cmap=look.cmap, norm=norm, img_alpha=look.img_alpha)
        ax.set_title(title)
    draw_colour_bar(row, spots, label=content.units, extend=extend)
