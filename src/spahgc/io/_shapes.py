"""Outlines of cells for other packages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spahgc._slides.polygons import shapes_of

if TYPE_CHECKING:
    from anndata import AnnData
    from geopandas import GeoDataFrame


def shapes(adata: AnnData) -> GeoDataFrame:
    """Make a table of shapes of the outlines of cells.

    It is what SpatialData keeps:
    ``sdata.shapes["cells"] = spatialdata.models.ShapesModel.parse(spahgc.io.shapes(cells))``.

    Parameters
    ----------
    adata
        Cells that were read with ``polygons=True``.

    Returns
    -------
    A GeoDataFrame of polygons, pixels of the full-resolution image, indexed by the names of the cells.

    Raises
    ------
    ImportError
        If geopandas is missing: ``pip install "spahgc[spatialdata]"``.
    KeyError
        If there are no outlines.
    ValueError
        If cells have none.

    Examples
    --------
    >>> import spahgc as sp
    >>> cells = sp.io.xenium("output-XETG0001", polygons=True)  # doctest: +SKIP
    >>> table = sp.io.shapes(cells)  # doctest: +SKIP
    """
    return shapes_of(adata)
