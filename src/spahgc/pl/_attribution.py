"""The reference spots of which the prediction of a spot is made, as patches of their slides."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData

from spahgc._slides.split import placed_table
from spahgc._slides.spot_names import spot_position
from spahgc.pl._output import finish, given_axes, save_path
from spahgc.pl._patches import (
    cut_patches,
    patch_lines,
    reference_patches,
    reference_slides,
    slide_image,
    unrepeated_stains,
)
from spahgc.pl._spot_panels import (
    COLOURS,
    TARGET_COLOUR,
    draw_patch,
    draw_slide,
    mark_spot,
    short_name,
    slide_colours,
    target_tissue,
)
from spahgc.pl._style import RC, TEXT_PT, check_count, check_positive, rc_context
from spahgc.pl._tissue import SpatialKeys, Tissue
from spahgc.pp._embed.slide_image import SlideImage, Source
from spahgc.tl._attribution import attribution as attribution_table
from spahgc.tl._attribution import check_predicted_spot, network_record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from spatialdata import SpatialData

    from spahgc.model import SpaHGC

TISSUE_IN, PATCH_IN, ROW_IN, MARGIN_IN = 2.15, 1.15, 1.75, 0.15
"""Widths of the tissue and of a patch, height of a row of patches with their titles, and room around all."""
MAX_BARS = 7
"""Reference slides that have a bar of their own."""
MIN_SPAN = 1e-6
"""Half width of the bars where nothing adds anything, in the units of the prediction."""
GREY = "0.6"
"""Colour of what comes from no reference slide."""


@dataclass(frozen=True)
class Attended:
    """The spot in question and the reference spots that add most to its prediction, or to which its graph attended."""

    tissue: Tissue
    position: int
    title: str
    """Above the patch of the spot."""
    patch: np.ndarray
    references: pd.DataFrame
    """The drawn reference spots, as :func:`spahgc.tl.attribution` lists them."""
    patches: list[np.ndarray | None]
    """Their patches, uint8; ``None`` without an image."""
    notes: list[str]
    """On the stain of each; mostly empty."""
    slides: pd.Series
    """Of the reference slides, most first, what each adds, or its attention."""
    all_references: list[str]

    @property
    def colours(self) -> dict[str, str]:
        """One colour a reference slide."""
        return slide_colours(self.slides.index, self.all_references)

    @property
    def adds_up(self) -> bool:
        """Whether contributions are shown, and not attention."""
        return "contribution" in self.references


def attribution(
    adata: AnnData | SpatialData,
    spot: str | int,
    refs: AnnData | SpatialData | Iterable[AnnData | SpatialData] | None = None,
    *,
    gene: str | None = None,
    model: SpaHGC | None = None,
    key: str = "spahgc",
    n: int = 6,
    image: Source | None = None,
    patch_um: float | None = None,
    table_key: str | None = None,
    image_key: str | None = None,
    coordinate_system: str | None = None,
    ax: Sequence[Axes] | np.ndarray | None = None,
    show: bool | None = None,
    save: str | Path | bool | None = None,
    return_fig: bool = False,
) -> list[Axes] | Figure | None:
    """Draw a target spot and the reference spots that its prediction is made of.

    On the left the target's tissue with the spot in a ring; then the patch of the spot, and below it a bar for every
    reference slide; then the patches of the reference spots that matter most, in order, framed in the colour of their slide's
    bar.

    With a gene and the model that predicted, bars and titles say exactly what is added to the prediction of that gene, in its
    units: above the bars stand the prediction and the gene's mean, a bar is the sum over the spots of a slide, and the grey one
    what comes from experts that cannot be told by reference spots. The mean and all bars add up to the prediction; of the
    spots the strongest are drawn, of either sign, and there are many more.

    Without them they show the attention of the graph, which is one expert among several (:func:`spahgc.tl.attribution` says
    its share). Attention is the mean over networks, layers, pooling and heads, and sums to 1 over all retrieved spots, of
    which there may be more than are drawn; similarity is the cosine by which they were retrieved. Attention is no explanation
    of the values. Where all weights are near one over the number of retrieved spots, the networks hardly tell these apart, and
    the retrieval is what has chosen.

    The patches are what the encoder saw. Where their stain was normalised by one of the package's methods, they are
    drawn with it, and the title of the spot's patch names the method. A function of your own is not kept with the
    embedding: then the patches are drawn without it, and their titles say "as scanned".

    Parameters
    ----------
    adata
        A slide with a prediction by the network, AnnData or SpatialData.
    spot
        Name of the target spot in ``obs_names``, or its position from 0.
    refs
        The references, as `spahgc.tl.predict` was given them. Their images are found as `spahgc.pp.embed` finds them:
        the file that ``uns["spatial"]`` names, or its hires image where that is the full-resolution one; of a
        SpatialData its image, the finest if there are several. A reference
        without an image, or one that is not passed, leaves empty frames with the words "no image".
    gene, model
        As in :func:`spahgc.tl.attribution`; ``None`` draws the attention of the graph.
    key
        Key of the prediction.
    n
        Reference spots to draw, if there are as many.
    image
        Full-resolution image of `adata`, for spots at ``obsm["spatial"]``; ``None`` finds it as `spahgc.pp.embed` does.
    patch_um
        Width of the patches, microns; ``None`` takes that with which the slides were embedded. Of an embedding with a
        context it is the patch at scale 1.
    table_key
        Key of the table of every SpatialData; ``None`` takes the only one.
    image_key, coordinate_system
        Key of the image of the target, and the coordinate system in which it meets the shapes, if it is a SpatialData;
        ``None`` takes the only ones, or the finest of several images that show the same.
    ax
        Axes to draw on, in the order of the result. ``None`` makes a figure.
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
    The axes: tissue, the spot's patch, bars, patches of the references; the figure with `return_fig`; ``None`` if the
    figure was shown.

    Raises
    ------
    KeyError
        If the spot, the gene or the prediction is not there, or if a reference has lost a spot that was retrieved.
    FileNotFoundError
        If the image of `adata` is not where ``uns["spatial"]`` says.
    ValueError
        If the prediction has no graph or the model did not make it, no image of `adata` is known, no reference of the prediction is among `refs`,
        the width of the patches is not known, or the number of axes is wrong.
    OSError
        If the file cannot be written.

    See Also
    --------
    spahgc.tl.attribution : the same as a table.

    Examples
    --------
    >>> import spahgc as sp
    >>> target, *refs = sp.datasets.simulated(n_slides=3, n_spots=40, n_genes=30)
    >>> for slide in [target, *refs]:
    ...     sp.pp.embed(slide, encoder="efficientnet_lite0")
    >>> sp.tl.predict(target, refs, preset=sp.Parameters(width=16, layers=1, heads=2, epochs=1))
    >>> axes = sp.pl.attribution(target, target.obs_names[0], refs, n=4, show=False)
    >>> len(axes)
    7
    """
    n = check_count("n", n, "reference spots, at least 1")
    check_positive("patch_um", patch_um, "number of microns")
    references = attribution_table(adata, spot, gene=gene, model=model, key=key, table_key=table_key).head(n)
    meaning = f"tissue, the spot's patch, bars, {len(references)} reference spots"
    given = given_axes(ax, 1, len(references) + 3, meaning)
    path = save_path(save, "attribution")
    keys = SpatialKeys(table_key, image_key, coordinate_system)
    content = _content(adata, keys, spot, refs, key, references, image, patch_um)
    with rc_context(RC):
        axes = _new_axes(len(references), content.tissue.aspect) if given is None else given
        _draw(axes, content)
        return finish(axes, path, show=show, return_fig=return_fig, own_figure=given is None)


def _content(
    data: AnnData | SpatialData,
    keys: SpatialKeys,
    spot: str | int,
    refs: AnnData | SpatialData | Iterable[AnnData | SpatialData] | None,
    key: str,
    references: pd.DataFrame,
    image: Source | None,
    patch_um: float | None,
) -> Attended:
    """Collect all that is drawn; after it nothing can fail."""
    adata = placed_table(data, keys.table_key, "the slide")
    record = network_record(adata, key)
    embedding = str(record["embedding"])
    position = spot_position(adata, spot)
    check_predicted_spot(adata, position, key)
    slides = reference_slides(refs, record["references"], keys.table_key)
    target = slide_image(data, adata, image, keys)
    patches = reference_patches(references, slides, embedding, patch_um)
    (patch,) = cut_patches(target, [position], embedding, patch_um)
    return Attended(
        tissue=target_tissue(data, adata, keys),
        position=position,
        title=_patch_title(target, str(adata.obs_names[position]), embedding, patch_um),
        patch=patch,
        references=references,
        patches=patches,
        notes=unrepeated_stains(references, patches, slides, embedding),
        slides=_slide_sums(adata, spot, key, references),
        all_references=[str(name) for name in record["references"]],
    )


def _slide_sums(adata: AnnData, spot: str | int, key: str, references: pd.DataFrame) -> pd.Series:
    if "contribution" not in references:
        return attribution_table(adata, spot, key=key, by="slide").set_index("slide")["attention"]
    sums = pd.Series(references.attrs["slides"])
    return sums.loc[sums.abs().sort_values(ascending=False, kind="stable").index]


def _patch_title(target: SlideImage, spot: str, embedding: str, patch_um: float | None) -> str:
    return "\n".join([f"target {short_name(target.name)}", short_name(spot), *patch_lines(target, embedding, patch_um)])


def _new_axes(n_references: int, aspect: float) -> list[Axes]:
    """Two rows: tissue over both, the spot above the bars, then the references."""
    from matplotlib import pyplot as plt

    n_rows = min(n_references, 2)
    n_columns = ceil(n_references / n_rows)
    width = TISSUE_IN + (1 + n_columns) * PATCH_IN + MARGIN_IN
    height = max(2 * ROW_IN, TISSUE_IN * min(aspect, 2.0)) + MARGIN_IN
    figure = plt.figure(figsize=(width, height), layout="constrained")
    grid = figure.add_gridspec(2, 2 + n_columns, width_ratios=[TISSUE_IN, *[PATCH_IN] * (1 + n_columns)])
    cells = [grid[i // n_columns, 2 + i % n_columns] for i in range(n_references)]
    return [figure.add_subplot(cell) for cell in (grid[:, 0], grid[0, 1], grid[1, 1], *cells)]


def _draw(axes: list[Axes], content: Attended) -> None:
    tissue, spot, bars, *references = axes
    draw_slide(tissue, content.tissue)
    mark_spot(tissue, content.tissue, content.position)
    draw_patch(spot, content.patch, content.title, TARGET_COLOUR)
    _draw_bars(bars, content)
    colours = content.colours
    shown = zip(references, content.references.itertuples(), content.patches, content.notes, strict=True)
    for ax, row, patch, note in shown:
        title = "\n".join([f"{row.rank}. {short_name(str(row.slide))}", *_weight_lines(row)])
        draw_patch(ax, patch, f"{title}\n{note}" if note else title, colours[str(row.slide)])


def _weight_lines(row: Any) -> list[str]:
    if hasattr(row, "contribution"):
        return [short_name(str(row.spot)), f"adds {row.contribution:+.3f}"]
    return [f"attention {row.attention:.3f}", f"similarity {row.similarity:.2f}"]


def _draw_bars(ax: Axes, content: Attended) -> None:
    """What every reference slide adds, or its attention, the names on the bars."""
    weights, said = content.slides, content.references.attrs
    if len(weights) > MAX_BARS:
        rest = weights.iloc[MAX_BARS - 1 :]
        weights = pd.concat([weights.iloc[: MAX_BARS - 1], pd.Series({f"{len(rest)} others": rest.sum()})])
    colours = [content.colours.get(str(name), COLOURS[-1]) for name in weights.index]
    labels = [
        f"{short_name(str(name))} {value:{'+.2f' if content.adds_up else '.2f'}}" for name, value in weights.items()
    ]
    values, limits, title = weights.to_list(), (0.0, 1.0), "attention by slide"
    if content.adds_up:
        if said["remainder"]:
            values.append(said["remainder"])
            labels.append(f"other {said['remainder']:+.2f}")
            colours.append(GREY)
        span = max(max(map(abs, values)), MIN_SPAN)
        limits = (-span if min(values) < 0 else 0.0, span if max(values) > 0 else 0.0)
        title = f"{short_name(said['gene'])} {said['prediction']:.2f}\n= mean {said['mean']:.2f} and"
    # Bars under their names, so that no long name pushes the patch above out of its place.
    ax.barh(np.arange(len(values)) + 0.25, values, height=0.3, color=colours)
    for row, label in enumerate(labels):
        ax.text(limits[0], row, label, ha="left", va="bottom")
    if limits[0] < 0 < limits[1]:
        ax.axvline(0, color=GREY, linewidth=0.5)
    ax.set(xlim=limits, xticks=[], yticks=[])
    ax.set_ylim(max(len(values), 4) - 0.5, -0.5)
    ax.set_title(title, fontsize=TEXT_PT)
    ax.spines[:].set_visible(False)
