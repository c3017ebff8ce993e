"""Pseudo-spots on the tissue of a plain H&E image."""

from __future__ import annotations

import os
from contextlib import nullcontext
from typing import TYPE_CHECKING

from spahgc._validate import user_path
from spahgc.image import open_image
from spahgc.image._mpp import check_mpp
from spahgc.io._tiles import TileOptions, known_mpp, tiled
from spahgc.io._write_library import library_name

if TYPE_CHECKING:
    from anndata import AnnData

    from spahgc.pp._embed.slide_image import Source


def tile(
    image: Source,
    *,
    mpp: float | None = None,
    spacing_um: float = 100.0,
    spot_um: float | None = None,
    layout: str = "hexagonal",
    min_tissue: float = 0.5,
    threshold: float | None = None,
    exclude_pen: bool = True,
    focus: bool = True,
    library_id: str | None = None,
) -> AnnData:
    """Find the tissue of an H&E image and lay a grid of pseudo-spots over it.

    The result is a slide without genes: :func:`spahgc.pp.embed` embeds it, :func:`spahgc.tl.predict` fills it with the
    genes of the panel. Tissue is looked for on a thumbnail of at most 3,000 px and 4 um per pixel: stained tissue
    absorbs the colours unequally and varies from cell to cell, glass, dust, shadows and even smears do not. Otsu's
    method finds the threshold. Gaps (fat, lumina) of up to about 50,000 square microns are filled, pieces below that area are left out. Of marker
    ink, strokes of blue, green, red and black are told by their colour and width and left out with 60 um around them.
    The same image and arguments give the same tiles.

    Parameters
    ----------
    image
        The H&E image at full resolution: path of an image or whole-slide file, uint8 array of height x width x 3, image
        of a SpatialData (``sdata["image"]``), or :class:`~spahgc.image.ImageSource`.
    mpp
        Microns per pixel, 0.1 to 20; ``None`` takes what the image says.
    spacing_um
        Distance of a spot's centre to the nearest others, microns.
    spot_um
        Diameter of a spot, microns, at most `spacing_um`; ``None`` takes 0.55 of it, as in Visium.
    layout
        ``"hexagonal"`` (six nearest neighbours) or ``"square"`` (four).
    min_tissue
        Share of a spot's area that must be tissue, above 0 and up to 1.
    threshold
        Stain from which on a place is tissue; ``None`` takes Otsu's threshold, within 0.03 and 0.12. It is the root of
        the squares of two numbers: the difference of a pixel's largest and smallest optical density (powers of ten),
        averaged over a Gaussian window of 25 um, and three times its standard deviation there.
    exclude_pen
        Leave out marker ink. Bleedings of more than 0.05 square millimetres can have the red of ink: pass ``False``
        where they matter and nobody drew on the slide.
    focus
        Measure how sharp every spot is. It reads all of them at 1 um per pixel.
    library_id
        Name of the slide; ``None`` takes the file's name without its ending, or ``"slide"`` without a file.

    Returns
    -------
    Spots x 0 genes, row by row:

    - `obs`: `array_row`, `array_col` (as in Visium on a hexagonal grid, but with odd sums of the two), `tissue_fraction`
      (share of the spot's area), `focus`, `slide`;
    - `obsm["spatial"]`: spot centres (x, y), float64, pixels of the full-resolution image;
    - `uns["spatial"][library_id]`: `images` (`hires`, longest side 2,000 px at most, and `lowres`, 600 px),
      `scalefactors`, and `metadata` with the path of the image, where there is one;
    - `uns["spahgc"]["slide_mpp"]`: microns per pixel;
    - `uns["spahgc"]["tiles"]`: the arguments, `threshold` (used) and `otsu` (found), `tissue_share` and `pen_share` of
      the image, `glass_rgb` (colour of the empty glass), `mask_mpp` (resolution of the tissue mask).

    `focus` is the variance of the Laplacian (a pixel's four neighbours less four times itself) of the brightness, 0 to
    255, on a square as wide as the spot (8 um at least) at 1 um per pixel. Spots far below the others of the slide are
    blurred, or empty. A slide coarser than 1 um per pixel is interpolated and reads low.

    An image that came from no file cannot be found again: pass it to :func:`spahgc.pp.embed` as ``image=``. (One of at
    most 2,000 px is kept whole as `hires`, and found there.)

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    TypeError
        If `image` is no image.
    ValueError
        If the resolution is not known, no tissue is found, no spot fits on it, or an argument is no size.

    See Also
    --------
    spahgc.io.slide : reads a file at spots of your own.

    Examples
    --------
    >>> import numpy as np
    >>> import spahgc as sp
    >>> image = np.full((1000, 1600, 3), 245, dtype=np.uint8)
    >>> image[:, :800] = (180, 110, 170)
    >>> tiles = sp.pp.tile(image, mpp=1.0, spacing_um=200, layout="square")
    >>> tiles.shape, tiles.obs["array_col"].max().item()
    ((20, 0), 3)
    """
    options = TileOptions(spacing_um, spot_um, layout, min_tissue, threshold, exclude_pen, focus)
    check_mpp("mpp", mpp)
    path = user_path(image, "image").absolute() if isinstance(image, str | os.PathLike) else None
    name = library_name(library_id, path)
    opened = open_image(image)
    # An image that the caller opened stays open.
    with nullcontext(opened) if opened is image else opened:
        return tiled(opened, name, path, known_mpp(opened, mpp, f'slide "{name}"'), options)
