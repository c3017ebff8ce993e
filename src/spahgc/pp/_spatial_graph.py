"""TS: which spots are neighbours in the plane."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anndata import AnnData

from spahgc._keys import UNS, Obsp
from spahgc._parameters import Parameters
from spahgc._slides.split import placed_slides, slide_labels
from spahgc._slides.tables import with_table
from spahgc._spots.pieces import describe_pieces
from spahgc._validate import check_anndata, check_coordinates
from spahgc.pp._edge_types import TS, Nodes

if TYPE_CHECKING:
    from spatialdata import SpatialData


def spatial_graph(
    adata: AnnData | SpatialData,
    *,
    n_neighbors: int = Parameters.n_spatial,
    table_key: str | None = None,
    copy: bool = False,
) -> AnnData | SpatialData | None:
    """Join every spot to the nearest spots of its own piece of tissue (TS edges).

    On a slide in one piece the result is that of :func:`squidpy.gr.spatial_neighbors` with ``coord_type="generic"``; the
    names are the same, so that the functions of ``squidpy.gr`` work on it. Spots of different slides (``obs["slide"]``)
    are never joined, nor are those of pieces of tissue with a gap between them: a piece is what steps of at most 1.5
    pitches of the array join, or, where there is no array, of 10 times the median distance to the nearest spot. A spot of
    a small piece has fewer neighbours, one that is alone has none, and is predicted all the same, from its references. A
    slide more than a quarter of whose spots would be in pieces of fewer than 6 counts as one piece: spots were left out.

    Parameters
    ----------
    adata
        One slide, or several told apart by ``obs["slide"]``; or a SpatialData with its table, whose spots are told
        apart by the element that they annotate where ``obs["slide"]`` is missing.
    n_neighbors
        Neighbours of a spot (Q = 5 in the paper, section 3.2); at most the number of other spots of its piece.
    table_key
        Key of the table of a SpatialData; ``None`` takes the only one.
    copy
        Return a changed copy instead of writing into ``adata``; of a SpatialData a new one that shares all but the
        table.

    Returns
    -------
    ``None``, or the copy. Written are

    - ``obsp["spatial_connectivities"]``: spots x spots, CSR, 1 at ``(i, j)`` where ``j`` is a neighbour of ``i``;
    - ``obsp["spatial_distances"]``: the same, distances in pixels;
    - ``uns["spatial_neighbors"]``: the parameters, and in ``"spahgc"`` the number of pieces of tissue, ``n_pieces``, and of
      spots without a neighbour, ``n_isolated``;
    - ``obsm["spatial"]`` where the table of a SpatialData has none: centres of the shapes that it annotates, in pixels
      of the image, or in the coordinates of the shapes where there is no image.

    Raises
    ------
    KeyError
        If ``obsm["spatial"]`` is missing, or if the table of a SpatialData names spots that its shapes do not have.
    ValueError
        If coordinates are NaN or infinite, or if a slide has a single spot.

    Examples
    --------
    >>> import spahgc as sp
    >>> (slide,) = sp.datasets.simulated(n_slides=1, n_patients=1, n_spots=40, n_genes=20)
    >>> sp.pp.spatial_graph(slide)
    >>> slide.obsp["spatial_connectivities"].shape
    (40, 40)
    """
    table = placed_slides(adata, table_key, "the slide", write=not copy)
    check_anndata(table, "the slide")
    xy = check_coordinates(table, "the slide")
    slides = slide_labels(table, "the slide")
    table = table.copy() if copy else table
    nodes = Nodes(xy=xy, slide=slides)
    distances = TS.build(nodes, nodes, n_neighbors, "cpu").graph
    connectivities = distances.copy()
    connectivities.data[:] = 1
    table.obsp[Obsp.spatial_connectivities] = connectivities
    table.obsp[Obsp.spatial_distances] = distances
    table.uns["spatial_neighbors"] = {
        "connectivities_key": Obsp.spatial_connectivities,
        "distances_key": Obsp.spatial_distances,
        "params": {"n_neighbors": int(n_neighbors), "coord_type": "generic", "radius": 0.0, "transform": "none"},
        UNS: describe_pieces(xy, slides),
    }
    return with_table(adata, table, table_key) if copy else None
