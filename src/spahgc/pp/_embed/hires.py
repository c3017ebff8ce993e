"""The reduced image of a slide whose full-resolution image is not there: is it good enough for an encoder?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

from spahgc._keys import SPATIAL
from spahgc._validate import check_coordinates
from spahgc.image import describe_outside
from spahgc.image._colour import as_rgb, check_pixels
from spahgc.image._source import Pixels
from spahgc.pp._embed.resolution import SCALE_FACTORS, slide_mpp

HIRES, HIRES_SCALE = "hires", "tissue_hires_scalef"
COARSER = 1.05
"""Times by which a pixel may be wider than the encoder's own before its patches count as enlarged."""


@dataclass(frozen=True)
class HiresImage:
    """The hires image of a slide, and the slide's spots on it."""

    pixels: Pixels
    """The image, uint8, height x width x 3."""
    xy: NDArray[np.float64]
    """Spot centres (x, y), spots x 2, pixels of the hires image."""
    scale: float
    """Pixels of the hires image for one of the full-resolution image."""
    mpp: float | None
    """Microns a pixel of the hires image is wide, if known."""
    slide_mpp: float | None
    """Microns a pixel of the full-resolution image is wide, if known."""


def has_hires(record: Mapping[str, Any]) -> bool:
    """Say whether a slide's entry of ``uns["spatial"]`` holds a hires image together with its scale."""
    return (
        record.get("images", {}).get(HIRES) is not None and record.get(SCALE_FACTORS, {}).get(HIRES_SCALE) is not None
    )


def check_hires(
    adata: AnnData,
    library: tuple[str, Mapping[str, Any]],
    needed_mpp: float | None,
    allow_upsampling: bool,
    *,
    mpp: float | None = None,
) -> HiresImage:
    """Take the hires image of a slide instead of its full-resolution image, if it shows enough for the encoder.

    A pixel of the hires image is `slide mpp / tissue_hires_scalef` microns wide; the encoder needs `needed_mpp`.

    Parameters
    ----------
    adata
        One slide, with spot centres in pixels of the full-resolution image in ``obsm["spatial"]``.
    library
        Name and record of the slide's entry of ``uns["spatial"]``; :func:`has_hires` of it must be true.
    needed_mpp
        Microns per pixel of the encoder's input (of its record, or the wanted width of a patch over its pixels).
        ``None`` for an encoder that takes the slide's own resolution: then the full-resolution image is what it needs.
    allow_upsampling
        Go on where the hires image is too coarse; its patches are then enlarged.
    mpp
        Microns per pixel of the full-resolution image, if the user knows them.

    Returns
    -------
    The image, the spots on it, and its resolution.

    Raises
    ------
    ValueError
        If the image is too coarse and `allow_upsampling` is False, if its resolution is needed but unknown, if it is no
        image, or if spots lie outside it.
    """
    name, record = library
    label = f'slide "{name}"'
    scale = float(record[SCALE_FACTORS][HIRES_SCALE])
    if not (np.isfinite(scale) and scale > 0):
        raise ValueError(
            f"the scale factor {HIRES_SCALE} of {label} is {scale}; it must be a positive number, the pixels of the hires "
            f'image for one of the full-resolution image. Correct it in uns["{SPATIAL}"]["{name}"].'
        )
    full = slide_mpp(adata, mpp=mpp)
    own = None if full is None else full / scale
    if not allow_upsampling:
        _refuse_coarse(label, scale, own, full if needed_mpp is None else needed_mpp, native=needed_mpp is None)
    pixels = _as_pixels(record["images"][HIRES], label)
    xy = check_coordinates(adata, label) * scale
    outside = describe_outside(xy, height=pixels.shape[0], width=pixels.shape[1])
    if outside is not None:
        raise ValueError(f"{label}, hires image ({HIRES_SCALE} {scale:.4g}): {outside}")
    return HiresImage(pixels, xy, scale, own, full)


def _refuse_coarse(label: str, scale: float, own: float | None, needed: float | None, *, native: bool) -> None:
    """Refuse an image whose pixels are wider than the encoder's."""
    ways_out = (
        "Pass image= with the path of the full-resolution image, or allow_upsampling=True to enlarge what is there."
    )
    if own is None or needed is None:
        if native and scale * COARSER >= 1:
            return
        problem = (
            f"is reduced to {scale:.4g} of the full-resolution image, and that image's resolution is not known, so that "
            "nobody can tell whether the hires image shows what the encoder needs"
        )
        raise ValueError(
            f"only the hires image of {label} is there, and it {problem}. Pass mpp= with the microns per pixel of the "
            f"full-resolution image. {ways_out}"
        )
    if own > COARSER * needed:
        reason = "the slide's own resolution, which this encoder takes" if native else "the encoder's"
        raise ValueError(
            f"only the hires image of {label} is there, and its resolution is too low: a pixel is {own:.4g} um wide, but "
            f"{needed:.4g} um are needed ({reason}). {ways_out}"
        )


def _as_pixels(image: Any, label: str) -> Pixels:
    """Turn an image of ``uns`` into RGB of 8 bits; scanpy reads PNG files as numbers from 0 to 1."""
    array = np.asarray(image)
    if array.dtype.kind == "f" and array.size and 0 <= float(array.min()) and float(array.max()) <= 1:
        array = np.rint(array * 255).astype(np.uint8)
    check_pixels(array.shape, array.dtype, f"the hires image of {label}")
    return as_rgb(array)
