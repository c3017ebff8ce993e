"""Measured beside predicted expression on the tissue, and how far a prediction may be off."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spahgc.pl._figure_slides import figure_slides, figure_tissues
from spahgc.pl._gene_grid import OWN, SHARED, GeneMaps, Grid, Style, draw_genes
from spahgc.pl._gene_values import GeneValues, gene_list, gene_values, shared_units
from spahgc.pl._output import finish, given_axes, save_path
from spahgc.pl._style import (
    EXPRESSION_CMAP,
    RC,
    SPREAD_CMAP,
    check_count,
    check_figsize,
    check_positive,
    check_style,
    rc_context,
)
from spahgc.pl._tissue import SpatialKeys
from spahgc.pl._unknown import check_fade
from spahgc.tl._trust_record import LOW_SUPPORT

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure
    from spatialdata import SpatialData


def spatial_genes(
    adata: AnnData | SpatialData | Iterable[AnnData | SpatialData],
    genes: str | Sequence[str],
    *,
    key: str = "spahgc",
    layer: str | None = None,
    units: str | None = None,
    spread: bool = False,
    fade_below: float | None = LOW_SUPPORT,
    crop_coord: tuple[float, float, float, float] | Sequence[tuple[float, float, float, float] | None] | None = None,
    ncols: int = 1,
    library_id: str | None = None,
    table_key: str | None = None,
    image_key: str | None = None,
    coordinate_system: str | None = None,
    scale: str = SHARED,
    cmap: str | Colormap = EXPRESSION_CMAP,
    spread_cmap: str | Colormap = SPREAD_CMAP,
    vmin: float | None = None,
    vmax: float | None = None,
    size: float = 1.0,
    img_alpha: float = 0.6,
    figsize: tuple[float, float] | None = None,
    dpi: float | None = None,
    ax: Axes | Sequence[Axes] | np.ndarray | None = None,
    show: bool | None = None,
    save: str | Path | bool | None = None,
    return_fig: bool = False,
) -> list[Axes] | Figure | None:
    """Draw measured beside predicted expression on the tissue, one row a gene, or one a gene and slide.

    Measured and predicted values of a gene share one colour scale, over all slides, whose colour bar says the unit;
    the title of the prediction gives the gene's Pearson correlation (PCC) with the measurement of the slide. With
    `spread` a further panel shows by how much each value may be off, on a scale of its own. Where nothing was measured,
    the prediction stands alone, or beside a note if another slide was. The spots are circles of their true size, the bins of Visium HD squares, and cells
    have their outlines, where these were read; more than 200,000 in one view become pixels as wide as a cell. Below
    the last gene of a slide stand a scale bar and the size of a spot, where the resolution is known. Of a slide that was
    measured in part the measured spots, which were a reference and are not predicted, are grey beside the predicted ones,
    and a legend says how many they are. Spots that look like nothing on the references are hatched instead of coloured, since
    nobody knows what a prediction is worth there. Where a gene was not measured, the title gives its PCC on references held out
    with the 95 % interval, for whom :func:`spahgc.get.summary` says. Nothing is written into `adata`.

    Parameters
    ----------
    adata
        A slide with a prediction, or a list of them: AnnData, or SpatialData with such a table. Of a SpatialData the
        tissue is its image, and the spots are the shapes that the table annotates. Each of several slides has a row a
        gene, with its name beside it: ``obs["slide"]``, else its library in ``uns["spatial"]``.
    genes
        Names of the genes, from the panel of the prediction.
    key
        Layer of the prediction, as `spahgc.tl.predict` was given in ``key_added``.
    layer
        Layer that holds the counts; ``None`` takes ``X``. The counts are drawn as log1p counts per 10,000. Without any
        values, with zeros only, or with NaN in ``X``, the slide counts as not measured. Spots without a single count
        stay blank beside the prediction and are left out of the PCC, as are spots off the tissue (``obs["in_tissue"]``).
    units
        What its values are, as in `spahgc.tl.evaluate`; ``None`` finds out.
    spread
        Draw ``layers[f"{key}_std"]`` as well: the standard deviation of what a value may be off by, in its units.
    fade_below
        Support (``obs[f"{key}_support"]``) below which a predicted spot, and its spread, is hatched; ``None`` colours all.
    crop_coord
        ``(left, right, top, bottom)`` of the part to show, in pixels of the full-resolution image, as scanpy has it; for
        several slides also a list, one such or ``None`` for each. Colours and PCC stay those of all spots, so that a
        part can be compared with the whole.
    ncols
        Genes side by side.
    library_id
        Entry of ``uns["spatial"]`` with the image and its scale factors; ``None`` takes the only one, or the one that
        ``obs["slide"]`` names. Of the images ``"hires"`` comes first, then ``"lowres"``; without any, the spots stand
        alone. Of a SpatialData it asks for the picture in its table instead of its image. For one slide only.
    table_key
        Key of the table of a SpatialData; ``None`` takes the only one.
    image_key
        Key of the image of a SpatialData; ``None`` takes the only one, or the finest of several that show the same.
    coordinate_system
        Coordinate system in which shapes and image of a SpatialData meet; ``None`` takes any as long as all agree.
    scale
        ``"shared"``: measured and predicted values of a gene have one colour scale, over all slides, so that colours can be
        compared. ``"own"``: each map has its own, with a colour bar, so that the pattern of a prediction is seen that varies
        less than the measurement.
    cmap
        Colour map of measured and predicted values.
    spread_cmap
        Colour map of the spread.
    vmin, vmax
        Limits of the colours of all genes; ``None`` takes the 1st and 99th percentile over the measured and predicted
        values of the gene on all slides (of the map, with its own scale), which is always done for the spread. A pointed end of the colour bar says that
        there are values beyond.
    size
        Factor on the diameter of the spots. The diameter is the scale factor ``spot_diameter_fullres``, or 0.55 times
        the median distance to the nearest spot where that is missing.
    img_alpha
        Opacity of the tissue image, 0 to 1.
    figsize
        Width and height of the figure, inches; ``None`` takes one, one and a half or two columns of a journal, more where
        panels side by side need it, and the height of what is drawn.
    dpi
        Dots per inch of the figure on the screen and in the file; ``None`` takes matplotlib's, and 300 in the file.
    ax
        Axes to draw on, gene by gene, slide by slide, each with its panels from left to right: measured (unless no
        slide was), predicted, spread (if asked for). ``None`` makes a figure, of at most 72 panels.
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
    The axes, in that order; the figure with `return_fig`; ``None`` if the figure was shown.

    Raises
    ------
    KeyError
        If the prediction, its spread, a gene, the spot coordinates or the library is not there; or table, image,
        coordinate system or shapes of a SpatialData.
    ValueError
        If `scale`, `figsize` or `dpi` is none, `fade_below` is not between 0 and 1, a gene is outside the panel, the number of axes is
        wrong, there are too many panels, `crop_coord` holds no
        spot, predictions have different units, one object holds several slides or two slides have one name, or a
        SpatialData several tables or images that were not told apart.
    OSError
        If the file cannot be written.

    See Also
    --------
    spahgc.tl.predict : makes the prediction.
    spahgc.pl.support : how well the references cover each spot.
    spahgc.tl.evaluate : scores all genes; its PCC is drawn where it has run.

    Examples
    --------
    >>> import spahgc as sp
    >>> slide = sp.datasets.simulated(1, n_patients=1, n_spots=40, n_genes=20)[0]
    >>> slide.layers["spahgc"] = slide.layers["truth"]
    >>> axes = sp.pl.spatial_genes(slide, ["MORPH001", "FLAT001"], show=False)
    >>> [ax.get_title() for ax in axes[::2]]
    ['MORPH001, measured', 'FLAT001, measured']
    >>> part = sp.pl.spatial_genes(slide, "MORPH001", crop_coord=(0, 500, 0, 500), show=False)
    """
    check_style(vmin, vmax, size, img_alpha)
    if scale not in (SHARED, OWN):
        raise ValueError(f'scale="{scale}" is not known; pass "{SHARED}" or "{OWN}".')
    size_in = check_figsize(figsize)
    check_positive("dpi", dpi, "number of dots per inch")
    check_fade(fade_below)
    ncols = check_count("ncols", ncols, "genes side by side, at least 1")
    slides, names = figure_slides(adata, table_key), gene_list(genes)
    path = save_path(save, "spatial_genes")
    values = [
        gene_values(slide, names, key=key, layer=layer, units=units, spread=spread, fade_below=fade_below)
        for slide in slides
    ]
    units = shared_units(values, slides)
    grid = Grid(len(names), len(slides), _kinds(values, spread), ncols, scale, size_in)
    given = _given_axes(ax, grid)
    if given is None:
        grid.check()
    keys = SpatialKeys(table_key, image_key, coordinate_system, library_id)
    tissues = figure_tissues(slides, keys, size=size, crop_coord=crop_coord, n_panels=grid.n_panels)
    maps = GeneMaps(names, [slide.name for slide in slides], values, tissues, units)
    with rc_context(RC):
        axes = draw_genes(given, grid, maps, Style(cmap, spread_cmap, vmin, vmax, img_alpha, scale), dpi)
        return finish(axes, path, show=show, return_fig=return_fig, own_figure=given is None, dpi=dpi)


def _kinds(values: Sequence[GeneValues], spread: bool) -> tuple[str, ...]:
    """The panels of a gene on a slide, the same on all."""
    measured = any(one.measured is not None for one in values)
    return (*(["measured"] if measured else []), "predicted", *(["spread"] if spread else []))


def _given_axes(ax: Axes | Sequence[Axes] | np.ndarray | None, grid: Grid) -> list[Axes] | None:
    """The caller's axes, if there are any; refuses a wrong number."""
    slides = f" on {grid.n_slides} slides" if grid.n_slides > 1 else ""
    panels = ", ".join(grid.kinds[:-1]) + f" and {grid.kinds[-1]}" if len(grid.kinds) > 1 else "predicted alone"
    why = "" if "measured" in grid.kinds else ", since nothing was measured"
    return given_axes(ax, grid.n_genes * grid.n_slides, len(grid.kinds), f"{grid.n_genes} genes{slides}, {panels}{why}")
