"""A slide at any points: of a table, of QuPath, of a SpatialData, or of a grid."""

from __future__ import annotations

import os
from contextlib import nullcontext
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from spahgc._keys import Obs, Obsm
from spahgc._slides.spatialdata import element_matrix
from spahgc._validate import user_path
from spahgc.image import open_image
from spahgc.image._mpp import check_mpp
from spahgc.io._cell_slide import check_outline_size
from spahgc.io._points import read_points
from spahgc.io._slide import at_spots, resolution_of
from spahgc.io._tiles import check_microns
from spahgc.io._write_library import SPOT_DIAMETER, library_name
from spahgc.pp._tile import tile

if TYPE_CHECKING:
    from anndata import AnnData

    from spahgc.pp._embed.slide_image import Source


def points(
    image: Source,
    points: Any,
    *,
    mpp: float | None = None,
    spot_um: float | None = None,
    library_id: str | None = None,
) -> AnnData:
    """Make a slide of an H&E image at any points.

    Parameters
    ----------
    image
        The H&E image at full resolution: path of an image or whole-slide file, uint8 array of height x width x 3, image
        of a SpatialData (``sdata["image"]``), or :class:`~spahgc.image.ImageSource`.
    points
        Where, in pixels of the full-resolution image:

        - a table with the columns x and y, or the path of one as CSV; its index names the points, other columns go to ``obs``;
        - an array of points x 2, (x, y);
        - the path of GeoJSON, such as QuPath writes: detections, cells and annotations, of which areas count at their
          centroids and every point of a set of points by itself;
        - a GeoDataFrame of points, circles or polygons: shapes of a SpatialData go through their transformation to `image`,
          where that is an image of it;
        - a number: a hexagonal grid of so many microns over the tissue, as :func:`spahgc.pp.tile` lays it.
    mpp
        Microns per pixel, 0.1 to 20; ``None`` takes what the image says.
    spot_um
        Diameter at which points are drawn, microns; ``None`` takes that of the median area, or 0.55 of the median distance
        to the nearest point.
    library_id
        Name of the slide; ``None`` takes the file's name without its ending, or ``"slide"`` without a file.

    Returns
    -------
    Points x 0 genes, as :func:`spahgc.io.slide` makes them; of areas also `obs["area_um2"]`, where the resolution is known,
    and `obsm["polygons"]`; of QuPath's objects `obs["class"]`, `obs["object_type"]` and `obs["name"]`, where there are some.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If there are no points, they are in 3-D, not finite, or outside the image, outlines are smaller than any cell (they
        are in microns), GeoJSON is a bare geometry, or shapes and image share no coordinate system.

    See Also
    --------
    spahgc.pp.embed : embeds what lies around the points.
    spahgc.io.cells : cells with counts.

    Examples
    --------
    >>> import numpy as np
    >>> import spahgc as sp
    >>> image = np.full((600, 600, 3), (180, 110, 170), dtype=np.uint8)
    >>> slide = sp.pp.points(image, [[100.0, 120.0], [300.0, 310.0]], mpp=0.5)
    >>> slide.shape
    (2, 0)
    """
    check_mpp("mpp", mpp)
    check_microns("spot_um", spot_um)
    if isinstance(points, Real):
        return tile(image, mpp=mpp, spacing_um=float(points), spot_um=spot_um, library_id=library_id)
    path = user_path(image, "image").absolute() if isinstance(image, str | os.PathLike) else None
    name = library_name(library_id, path)
    found = read_points(points, element_matrix(points, image))
    opened = open_image(image)
    with nullcontext(opened) if opened is image else opened:
        resolution = resolution_of(opened, name, mpp)
        if found.polygons is not None:
            check_outline_size(found.polygons, resolution, "the outlines of points", largest=False)
        adata = at_spots(opened, name, path, found.table, resolution, spot_um)
    if found.polygons is not None:
        areas = np.where(found.polygons.known, found.polygons.areas, np.nan)
        adata.obsm[Obsm.polygons] = found.polygons.as_matrix()
        if resolution is not None:
            adata.obs[Obs.area] = areas * resolution**2
        if spot_um is None:
            (record,) = adata.uns["spatial"].values()
            record["scalefactors"][SPOT_DIAMETER] = float(2 * np.sqrt(np.nanmedian(areas) / np.pi))
    return adata
