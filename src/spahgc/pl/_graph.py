"""The graph along which expression travels: neighbours on the tissue, and spots that look alike across slides."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from anndata import AnnData

from spahgc._slides.split import placed_table
from spahgc._slides.spot_names import spot_position
from spahgc._validate import check_anndata, quoted
from spahgc.pl._graph_content import EgoGraph, GraphRequest, SpatialGraph, graph_panels
from spahgc.pl._graph_figure import draw_ego_graph, draw_spatial_graph, new_axes
from spahgc.pl._output import finish, given_axes, save_path
from spahgc.pl._style import RC, check_count, check_positive, rc_context
from spahgc.pl._tissue import SpatialKeys
from spahgc.pp._bank.references import check_bank, is_bank
from spahgc.pp._embed.slide_image import Source

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from spatialdata import SpatialData

KINDS = ("TS", "CS", "RS")


def graph(
    adata: AnnData | SpatialData,
    refs: AnnData | SpatialData | Iterable[AnnData | SpatialData] | None = None,
    *,
    kind: Literal["TS", "CS", "RS"] | Sequence[Literal["TS", "CS", "RS"]] = "TS",
    spot: str | int | None = None,
    key: str = "spahgc",
    bank: AnnData | None = None,
    n: int = 7,
    image: Source | None = None,
    patch_um: float | None = None,
    table_key: str | None = None,
    image_key: str | None = None,
    coordinate_system: str | None = None,
    ax: Axes | Sequence[Axes] | np.ndarray | None = None,
    show: bool | None = None,
    save: str | Path | bool | None = None,
    return_fig: bool = False,
) -> list[Axes] | Figure | None:
    """Draw the graph along which expression travels from the references to the target.

    - ``kind="TS"``: the edges between neighbours on the tissue, all of them; those of `spot` stand out.
    - ``kind="CS"``: from a spot of the target to the reference spots that look like it. The spot in a ring on its
      tissue and its patch; below it the patches of the reference spots, the most similar first, each framed in the
      colour of its slide; and their slides, by the same numbers, on the reference slides.
    - ``kind="RS"``: from a reference spot to its peers, which look and express alike, drawn likewise.

    ``["TS", "CS"]`` draws the neighbours of the spot and its reference spots in one figure. With `bank`, ``"RS"`` may
    join them, from the reference spot that is most similar to the target spot. The edges are read from where the
    functions of `spahgc.pp` and `spahgc.tl.predict` wrote them; nothing is computed or written.

    Parameters
    ----------
    adata
        A target slide, AnnData or SpatialData; or a bank of references, for ``kind="RS"``.
    refs
        The references, as `spahgc.tl.predict` or `spahgc.pp.reference_bank` was given them. Their images are found as
        `spahgc.pp.embed` finds them. Of a reference that is not passed, or has no image, names and similarities are
        drawn all the same, with empty frames and the words "no image".
    kind
        Which edges; one, or a list of them.
    spot
        Name of the spot in ``obs_names``, or its position from 0; of a bank its names are ``slide:spot``. Needed for
        ``"CS"`` and ``"RS"``.
    key
        Key of the prediction whose graph is meant: ``obsm["<key>_cs"]``.
    bank
        The bank that `spahgc.pp.cross_graph` was given, where the graph was made without a prediction: it names the
        reference spots. Also the bank for ``"RS"`` beside a target.
    n
        Reference spots to draw, if there are as many edges.
    image
        Full-resolution image of a target, for spots at ``obsm["spatial"]``; ``None`` finds it as `spahgc.pp.embed` does.
    patch_um
        Width of the patches, microns; ``None`` takes that with which the slides were embedded. Patches are drawn as the
        encoder saw them, a stain normalisation included; where that was a function of your own, which is not kept, it
        says "as scanned" at the patch.
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
    The axes: of ``"TS"`` the tissue; of the others tissue, the spot's patch, the patches of the reference spots, the
    reference slides. With ``["TS", "CS"]`` both share the tissue. The figure with `return_fig`; ``None`` if the figure
    was shown.

    Raises
    ------
    KeyError
        If the graph or the spot is not there, or if a reference has lost a spot to which an edge leads.
    ValueError
        If no spot is named where one is needed, the kind does not fit the object, nothing names the reference spots, the
        graph is that of another bank, none of `refs` is a reference, or the number of axes is wrong.
    OSError
        If the file cannot be written.

    See Also
    --------
    spahgc.pl.attribution : how much the prediction of a spot listened to each reference spot.
    spahgc.pp.spatial_graph, spahgc.pp.cross_graph, spahgc.pp.reference_bank : make the edges.

    Examples
    --------
    >>> import spahgc as sp
    >>> target, *refs = sp.datasets.simulated(n_slides=3, n_spots=40, n_genes=30)
    >>> for slide in [target, *refs]:
    ...     sp.pp.embed(slide, encoder="efficientnet_lite0")
    >>> bank = sp.pp.reference_bank(refs)
    >>> sp.pp.spatial_graph(target)
    >>> sp.pp.cross_graph(target, bank)
    >>> axes = sp.pl.graph(target, refs, kind=["TS", "CS"], spot=3, bank=bank, show=False)
    >>> axes[2].get_xlabel().splitlines()[0][:2]
    '1.'
    >>> len(sp.pl.graph(bank, refs, kind="RS", spot=0, n=3, show=False)) > 5
    True
    """
    keys = SpatialKeys(table_key, image_key, coordinate_system)
    path = save_path(save, "graph")
    parts = graph_panels(_request(adata, refs, kind, spot, key, bank, n, image, patch_um, keys))
    needed = sum(part.n_axes for part in parts)
    given = given_axes(ax, 1, needed, _panel_names(parts))
    with rc_context(RC):
        axes = new_axes(parts) if given is None else given
        rest = list(axes)
        for part in parts:
            panels, rest = rest[: part.n_axes], rest[part.n_axes :]
            if isinstance(part, SpatialGraph):
                draw_spatial_graph(panels[0], part)
            else:
                draw_ego_graph(panels, part)
        return finish(axes, path, show=show, return_fig=return_fig, own_figure=given is None)


def _request(
    data: AnnData | SpatialData,
    refs: AnnData | SpatialData | Iterable[AnnData | SpatialData] | None,
    kind: str | Sequence[str],
    spot: str | int | None,
    key: str,
    bank: AnnData | None,
    n: int,
    image: Source | None,
    patch_um: float | None,
    keys: SpatialKeys,
) -> GraphRequest:
    """Check what is asked for, before any image is read."""
    kinds = [kind] if isinstance(kind, str) else list(kind)
    unknown = [one for one in kinds if one not in KINDS]
    if unknown or not kinds or len(set(kinds)) < len(kinds):
        raise ValueError(f"kind is {kind!r}; pass one of {quoted(KINDS)}, or a list of them, each once.")
    n = check_count("n", n, "reference spots, at least 1")
    check_positive("patch_um", patch_um, "number of microns")
    adata = placed_table(data, keys.table_key, "the slide")
    check_anndata(adata, "the slide")
    if is_bank(adata) and kinds != ["RS"]:
        raise ValueError(
            f'kind={kind!r} needs a target slide, and this is a bank of references, whose graph is kind="RS".'
        )
    if not is_bank(adata) and "RS" in kinds and ("CS" not in kinds or bank is None):
        raise ValueError(
            'kind="RS" draws the peers of a reference spot, and this is no bank of references. Pass the bank of '
            'spahgc.pp.reference_bank in its place; or kind=["CS", "RS"] and bank=, for the peers of the reference spot '
            "that is most similar to a target spot."
        )
    if spot is None and set(kinds) != {"TS"}:
        raise ValueError(f"kind={kind!r} needs spot=, the name of a spot or its position, such as spot=0.")
    position = None if spot is None else spot_position(adata, spot)
    if bank is not None:
        check_bank(bank)
    return GraphRequest(data, adata, refs, kinds, position, key, bank, n, image, patch_um, keys)


def _panel_names(parts: list[SpatialGraph | EgoGraph]) -> str:
    """What the axes are for."""
    words = [
        "the tissue"
        if isinstance(part, SpatialGraph)
        else f"tissue, the spot's patch, {len(part.edges)} reference spots, {len(part.slides)} reference slides"
        for part in parts
    ]
    return "; ".join(words)
