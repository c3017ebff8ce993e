"""The reference spots to which the prediction of a spot attended, as patches of their slides."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData

from spahgc._slides import located_slides
from spahgc._tables import is_spatialdata
from spahgc._validate import listing
from spahgc.pl._output import hand_over, is_shown, save_path, whole_figure
from spahgc.pl._patches import cut_patches, has_image, reference_patches, slide_image
from spahgc.pl._style import RC, TEXT_PT
from spahgc.pl._tissue import Tissue, draw_scale_bar, draw_tissue, slide_tissue
from spahgc.pp._bank import is_bank
from spahgc.pp._places import placed_table, placed_tables
from spahgc.pp._resolution import library
from spahgc.pp._slide_image import Source
from spahgc.tl._attribution import attended_record, spot_position
from spahgc.tl._attribution import attribution as attribution_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from spatialdata import SpatialData

TISSUE_IN, PATCH_IN, ROW_IN, MARGIN_IN = 2.4, 1.15, 1.75, 0.15
"""Widths of the tissue and of a patch, height of a row of patches with their titles, and room around all."""
MAX_NAME = 18
"""Letters of a name above a patch."""
MAX_BARS = 7
"""Reference slides that have a bar of their own."""
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#F0E442", "#999999")
"""One a slide, told apart by colour-blind readers too; slides after the last share it (Okabe and Ito)."""
TARGET_COLOUR = "#D55E00"
MARK_PT = 60.0
"""Area of the ring around the spot, square points: a spot in its true size is lost on a large slide."""
IMAGE_ALPHA = 0.8


@dataclass(frozen=True)
class Content:
    """What is drawn."""

    tissue: Tissue
    position: int
    own_title: str
    own: np.ndarray
    references: pd.DataFrame
    """The drawn reference spots, as :func:`spahgc.tl.attribution` lists them."""
    patches: list[np.ndarray | None]
    """Their patches, uint8; ``None`` without an image."""
    slides: pd.DataFrame
    """All reference slides, as :func:`spahgc.tl.attribution` lists them."""

    @property
    def colours(self) -> dict[str, str]:
        """One colour a reference slide."""
        return {slide: COLOURS[min(i, len(COLOURS) - 1)] for i, slide in enumerate(self.slides["slide"])}


def attribution(
    adata: AnnData | SpatialData,
    spot: str | int,
    refs: AnnData | SpatialData | Iterable[AnnData | SpatialData] | None = None,
    *,
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
    """Draw a target spot and the reference spots to which its prediction attended.

    On the left the target's tissue with the spot in a ring; then the patch of the spot, and below it the attention of
    every reference slide; then the patches of the reference spots of most attention, in order, framed in the colour of
    their slide's bar. Attention is the mean over networks, layers, pooling and heads, and sums to 1 over all retrieved
    spots, of which there may be more than are drawn; similarity is the cosine by which they were retrieved.

    The weights say which reference spots the graph listened to, and attention is no explanation of the values. In
    ``preset="default"`` moreover a linear path from the image carries most of the prediction; the graph adds to it.
    Where all weights are near one over the number of retrieved spots, the networks hardly tell these apart, and the
    retrieval is what has chosen.

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
    key
        Key of the prediction.
    n
        Reference spots to draw, if as many were retrieved.
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
        If the spot or the prediction is not there, or if a reference has lost a spot that was retrieved.
    FileNotFoundError
        If the image of `adata` is not where ``uns["spatial"]`` says.
    ValueError
        If the prediction has no graph, no image of `adata` is known, no reference of the prediction is among `refs`,
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
    from matplotlib import rc_context

    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
        raise ValueError(f"n is {n!r}; pass a whole number of reference spots, at least 1.")
    if patch_um is not None and not (np.isfinite(patch_um) and patch_um > 0):
        raise ValueError(f"patch_um is {patch_um!r}; pass a positive number of microns.")
    references = attribution_table(adata, spot, key=key, table_key=table_key).head(n)
    given = None if ax is None else _given_axes(ax, len(references))
    path = save_path(save, "attribution")
    where = {"table_key": table_key, "image_key": image_key, "coordinate_system": coordinate_system}
    content = _content(adata, where, spot, refs, key, references, image, patch_um)
    with rc_context(RC):
        axes = _new_axes(len(references), content.tissue.aspect) if given is None else given
        _draw(axes, content)
        figure = whole_figure(axes[0])
        shown = is_shown(False if return_fig else show, own_figure=given is None)
        hand_over(figure, path, shown, own_figure=given is None)
    if return_fig:
        return figure
    return None if shown else axes


def _content(
    data: Any,
    where: dict[str, str | None],
    spot: str | int,
    refs: Any,
    key: str,
    references: pd.DataFrame,
    image: Source | None,
    patch_um: float | None,
) -> Content:
    """Collect all that is drawn; after it nothing can fail."""
    table_key = where["table_key"]
    adata = placed_table(data, table_key, "the slide")
    record = attended_record(adata, key)
    embedding = str(record["embedding"])
    position = spot_position(adata, spot)
    slides = _reference_slides(refs, record["references"], table_key)
    target = slide_image(data, adata, image, where)
    (own,) = cut_patches(target, [position], embedding, patch_um)
    found = library(adata)
    return Content(
        tissue=slide_tissue(data, **where, library_id=None if found is None or has_image(data) else found[0], size=1.0),
        position=position,
        own_title=f"target {_short(target.name)}\n{_short(str(adata.obs_names[position]))}",
        own=own,
        references=references,
        patches=reference_patches(references, slides, embedding, patch_um),
        slides=attribution_table(adata, spot, key=key, by="slide"),
    )


def _reference_slides(refs: Any, names: Sequence[str], table_key: str | None) -> dict[str, tuple[Any, AnnData]]:
    """The references that were handed over, by name: object and table; refuses those of another prediction."""
    if refs is None:
        return {}
    if is_bank(refs):
        raise ValueError("refs is a bank, which holds no images. Pass the slides from which it was made.")
    items = [refs] if is_spatialdata(refs) or isinstance(refs, AnnData) else list(refs)
    located = located_slides(placed_tables(items, table_key, "reference"))
    slides = {name: (items[place], table) for name, (place, table) in located.items()}
    if not set(slides) & {str(name) for name in names}:
        raise ValueError(
            f"none of refs is a reference of the prediction: they are called {listing(slides)}, its references "
            f"{listing(names)}. Pass the slides that predict was given."
        )
    return slides


def _given_axes(ax: Any, n_references: int) -> list[Axes]:
    """The caller's axes; refuses a wrong number."""
    from matplotlib.axes import Axes

    flat = [ax] if isinstance(ax, Axes) else list(np.asarray(ax, dtype=object).ravel())
    strange = [type(one).__name__ for one in flat if not isinstance(one, Axes)]
    if strange:
        raise TypeError(f"ax must be a sequence of matplotlib Axes, found {listing(strange)}.")
    if len(flat) != n_references + 3:
        raise ValueError(
            f"ax must hold {n_references + 3} axes (tissue, the spot's patch, bars, {n_references} reference spots), "
            f"found {len(flat)}. Pass as many, or leave ax out."
        )
    if len({id(one.figure) for one in flat}) > 1:
        raise ValueError("the axes in ax belong to several figures. Pass axes of one figure.")
    return flat


def _new_axes(n_references: int, aspect: float) -> list[Axes]:
    """Two rows: tissue over both, the spot above the bars, then the references."""
    from matplotlib import pyplot as plt

    n_rows = min(n_references, 2)
    n_columns = ceil(n_references / n_rows)
    width = TISSUE_IN + (1 + n_columns) * PATCH_IN + MARGIN_IN
    height = max(2 * ROW_IN, TISSUE_IN * min(aspect, 2.0)) + MARGIN_IN
    figure = plt.figure(figsize=(width, height), layout="constrained")
    grid = figure.add_gridspec(2, 2 + n_columns, width_ratios=[TISSUE_IN, *[PATCH_IN] * (1 + n_columns)])
    places = [grid[i // n_columns, 2 + i % n_columns] for i in range(n_references)]
    return [figure.add_subplot(place) for place in (grid[:, 0], grid[0, 1], grid[1, 1], *places)]


def _draw(axes: list[Axes], content: Content) -> None:
    tissue, own, bars, *frames = axes
    _draw_place(tissue, content)
    _draw_patch(own, content.own, content.own_title, TARGET_COLOUR)
    _draw_bars(bars, content)
    colours = content.colours
    for ax, row, patch in zip(frames, content.references.itertuples(), content.patches, strict=True):
        title = f"{row.rank}. {_short(str(row.slide))}\nattention {row.attention:.3f}\nsimilarity {row.similarity:.2f}"
        _draw_patch(ax, patch, title, colours[str(row.slide)])


def _draw_place(ax: Axes, content: Content) -> None:
    """The tissue, without its spots where there is a picture of it, and a ring around the one in question."""
    from matplotlib.colors import Normalize

    tissue = content.tissue
    plain = np.full(len(tissue.xy), 0.3 if tissue.image is None else np.nan)
    draw_tissue(ax, tissue, plain, cmap="Greys", norm=Normalize(0, 1), img_alpha=IMAGE_ALPHA)
    x, y = tissue.xy[content.position]
    for colour, width in (("white", 3.0), (TARGET_COLOUR, 1.5)):  # the white one sets it off from the stain
        ax.scatter(x, y, s=MARK_PT, facecolors="none", edgecolors=colour, linewidths=width, clip_on=False)
    draw_scale_bar(ax, tissue)


def _draw_patch(ax: Axes, patch: np.ndarray | None, title: str, colour: str) -> None:
    """A patch in a frame, or an empty frame that says so."""
    if patch is None:
        ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", facecolor="0.95")
        ax.text(0.5, 0.5, "no image", ha="center", va="center", color="0.4")
    else:
        ax.imshow(patch)
    ax.set(xticks=[], yticks=[])
    ax.set_title(title, fontsize=TEXT_PT)
    for spine in ax.spines.values():
        spine.set(visible=True, color=colour, linewidth=2)


def _draw_bars(ax: Axes, content: Content) -> None:
    """Attention of every reference slide, the names on the bars."""
    weights = content.slides.set_index("slide")["attention"]
    if len(weights) > MAX_BARS:
        rest = weights.iloc[MAX_BARS - 1 :]
        weights = pd.concat([weights.iloc[: MAX_BARS - 1], pd.Series({f"{len(rest)} others": rest.sum()})])
    colours = [content.colours.get(str(name), COLOURS[-1]) for name in weights.index]
    # Bars under their names, so that no long name pushes the patch above out of its place.
    ax.barh(np.arange(len(weights)) + 0.25, weights.to_numpy(), height=0.3, color=colours)
    for place, (name, weight) in enumerate(weights.items()):
        ax.text(0, place, f"{_short(str(name))} {weight:.2f}", ha="left", va="bottom")
    ax.set(xlim=(0, 1), xticks=[], yticks=[])
    ax.set_ylim(max(len(weights), 4) - 0.5, -0.5)
    ax.set_title("attention by slide", fontsize=TEXT_PT)
    ax.spines[:].set_visible(False)


def _short(name: str) -> str:
    """A name that fits above a patch: the middle of a longer one is left out."""
    half = (MAX_NAME - 1) // 2
    return name if len(name) <= MAX_NAME else f"{name[:half]}…{name[-half:]}"
