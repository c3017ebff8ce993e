"""The library of a slide is written into ``uns["spatial"]``: reduced images, scale factors, which file the full one is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from spahgc._keys import SPATIAL, Obs
from spahgc._slides.orientation import refuse_swapped
from spahgc._slides.totals import remember_library_sizes
from spahgc.image import ImageSource, describe_outside, open_image, thumbnail
from spahgc.image._same_picture import refuse_other_picture
from spahgc.image._source import Pixels

MPP = "microns_per_pixel"
"""Scale factor: microns per pixel of the full-size image."""
SPOT_DIAMETER = "spot_diameter_fullres"
"""Scale factor: diameter of a spot, pixels of the full-size image."""
HIRES_PX = 2000
LOWRES_PX = 600
"""Longest sides of the images that the object keeps."""
SAME_SIZE = 0.02
"""Relative difference in size up to which a full-size image fits a reduced one, beside two pixels of rounding."""


def check_library_id(name: str) -> str:
    """Return a name under which ``uns["spatial"]`` can hold a slide.

    Raises
    ------
    ValueError
        If it is empty or has a slash.
    """
    if not name or "/" in name:
        # A slash in a key would open a group in h5ad and zarr files.
        raise ValueError(f'library_id is "{name}"; pass a name that is not empty and has no slash')
    return name


def library_name(library_id: str | None, path: Path | None, otherwise: str = "slide") -> str:
    """Name of the slide: the one given, else the file's without its ending."""
    return check_library_id(library_id if library_id is not None else otherwise if path is None else path.stem)


def write_library(
    adata: AnnData,
    name: str,
    images: Mapping[str, Pixels],
    scales: Mapping[str, float],
    metadata: Mapping[str, object],
    *,
    mpp: float | None,
) -> None:
    """Write name, images and resolution of a slide where scanpy, squidpy and this package look for them.

    Parameters
    ----------
    adata
        The slide. Written are ``obs["slide"]``, ``uns["spatial"][name]`` and the spots' library sizes.
    name
        Name of the slide.
    images
        ``hires`` and ``lowres``, uint8, height x width x 3.
    scales
        Scale factors: pixels of the reduced images per pixel of the full-size one, and diameters in its pixels.
    metadata
        What else is known: the reader, where the full-size image is, its size, how many spots were left out.
    mpp
        Microns per pixel of the full-size image; ``None``: not known.

    Raises
    ------
    ValueError
        If x and y of the spots are swapped, as array and picture tell (:func:`refuse_swapped`).
    """
    hires, scale = images.get("hires"), scales.get("tissue_hires_scalef")
    picture = None if hires is None or scale is None else open_image(hires)
    refuse_swapped(adata, adata.obsm[SPATIAL], picture, 1.0 if scale is None else float(scale), f'slide "{name}"')
    adata.obs[Obs.slide] = pd.Categorical([name] * adata.n_obs)
    factors = dict(scales) if mpp is None else {**scales, MPP: mpp}
    adata.uns[SPATIAL] = {name: {"images": dict(images), "scalefactors": factors, "metadata": dict(metadata)}}
    remember_library_sizes(adata)


def reduced_images(image: ImageSource) -> tuple[dict[str, Pixels], dict[str, float]]:
    """Make the two small images of a slide.

    Returns
    -------
    `hires` and `lowres`, uint8, height x width x 3, longest side 2,000 and 600 px at most; and their scale factors.
    """
    hires, hires_scale = thumbnail(image, HIRES_PX)
    lowres, lowres_scale = reduced_lowres(hires)
    return (
        {"hires": hires, "lowres": lowres},
        {"tissue_hires_scalef": hires_scale, "tissue_lowres_scalef": hires_scale * lowres_scale},
    )


def reduced_lowres(hires: Pixels) -> tuple[Pixels, float]:
    """Make the smallest image of the one above it, and say how much smaller it is."""
    with open_image(hires) as image:
        return thumbnail(image, LOWRES_PX)


def check_full_image(
    path: Path, xy: NDArray[np.float64], spots: Path, images: Mapping[str, Pixels], scales: Mapping[str, float]
) -> dict[str, str | int]:
    """Check that a full-size image is the one that the spots and the hires image belong to.

    Without a hires image only its header is read.

    Parameters
    ----------
    path
        The image.
    xy
        Spots x 2, (x, y) in its pixels.
    spots
        The file that the spots come from.
    images, scales
        Reduced images and scale factors, as ``uns["spatial"]`` holds them.

    Returns
    -------
    What ``uns["spatial"]`` notes of it: `source_image_path`, `image_height_px`, `image_width_px`.

    Raises
    ------
    ValueError
        If spots lie outside it, or it is not a larger version of the hires image: of another size, of another picture,
        or turned.
    """
    hires, scale = images.get("hires"), scales.get("tissue_hires_scalef")
    with open_image(path) as image:
        height, width = image.height, image.width
        if hires is not None and scale is not None:
            _refuse_other_size(path, (height, width), hires.shape[:2], float(scale))
        outside = describe_outside(xy, height=height, width=width)
        if outside is not None:
            raise ValueError(f'"{spots}" and "{path}": {outside}')
        if hires is not None and scale is not None:
            refuse_other_picture(image, hires, float(scale), f'the image "{path}"')
    return {"source_image_path": str(path.absolute()), "image_height_px": height, "image_width_px": width}


def _refuse_other_size(path: Path, size: tuple[int, int], hires: tuple[int, int], scale: float) -> None:
    """Refuse an image of which the hires image is no reduction."""
    expected = [side / scale for side in hires]
    if _fits(size, expected, scale):
        return
    hint = " It has the size of the hires image itself." if size == tuple(hires) else ""
    if _fits(size[::-1], expected, scale):
        hint = " Turned by 90 degrees it would have that size."
    raise ValueError(
        f'the image "{path}" is {size[1]} x {size[0]} px, but the hires image ({hires[1]} x {hires[0]} px, '
        f"tissue_hires_scalef {scale:.4g}) was made of one of about {expected[1]:.0f} x {expected[0]:.0f} px.{hint} "
        "Pass the full-resolution image that the coordinates were measured on."
    )


def _fits(size: tuple[int, ...], expected: list[float], scale: float) -> bool:
    allowed = [max(2 / scale, SAME_SIZE * side) for side in expected]
    return all(abs(actual - side) <= most for actual, side, most in zip(size, expected, allowed, strict=True))
