"""The picture of the slide: as fine as the page has room for."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from anndata import AnnData
from PIL import Image

from spahgc.image import ImageSource
from spahgc.image._resample import resample
from spahgc.pl._patches import slide_image
from spahgc.pl._tissue import SpatialKeys, Tissue, has_image
from spahgc.pp._embed.slide_image import SlideImage, Source, find_source, opened_image

if TYPE_CHECKING:
    from spatialdata import SpatialData

QUALITIES = ((4096, 82), (3072, 80), (2400, 78), (1800, 75), (1200, 72), (800, 65))
"""Longest side in pixels and JPEG quality, the finest first."""
BAND_ROWS = 256
"""Rows of the picture that are read at once, so that a whole slide is never held."""
ROOM = 0.15
"""What is read around the spots, as a share of the longer side: a map seldom has their shape."""
EDGE = 0.5
"""Coordinates of the spots name centres of pixels; pixel i covers [i, i + 1)."""


@dataclass(frozen=True)
class Pixels:
    """A picture before it is written, and where it lies among the spots."""

    values: np.ndarray
    """uint8, height x width x 3."""
    extent: tuple[float, float, float, float]
    """Left, top, right and bottom edge, in the units of :class:`spahgc.pl._tissue.Tissue`."""


@dataclass(frozen=True)
class Picture:
    """A picture as the page holds it."""

    jpeg: bytes
    size: tuple[int, int]
    """Width and height, pixels."""
    extent: tuple[float, float, float, float]


def full_image(
    data: AnnData | SpatialData, adata: AnnData, image: Source | None, keys: SpatialKeys
) -> SlideImage | None:
    """The slide's full-resolution image, where there is one; what is wrong with it is an error."""
    if image is None and not has_image(data):
        try:
            find_source(adata, "the slide")
        except (FileNotFoundError, ValueError):
            return None
    return slide_image(data, adata, image, keys)


def read_pixels(slide: SlideImage | None, tissue: Tissue) -> Pixels | None:
    """Pixels below the spots: of the full-resolution image, else of the small picture; ``None`` without either."""
    if slide is not None and np.ptp(slide.xy, axis=0).max() > 0:
        return _fine(slide, tissue)
    if tissue.image is None:
        return None
    left, right, bottom, top = tissue.extent
    return Pixels(_as_rgb(tissue.image), (left, top, right, bottom))


def units_per_pixel(slide: SlideImage, tissue: Tissue) -> float:
    """Units of the tissue for one pixel of the full-resolution image."""
    return float(np.ptp(tissue.xy, axis=0).max() / np.ptp(slide.xy, axis=0).max())


def fitted(pixels: Pixels, budget: int) -> Picture | None:
    """The finest JPEG of at most so many bytes; ``None`` if even the coarsest is larger."""
    height, width = pixels.values.shape[:2]
    for longest, quality in QUALITIES:
        scale = min(1.0, longest / max(height, width))
        size = max(1, round(width * scale)), max(1, round(height * scale))
        jpeg = as_jpeg(pixels.values, size, quality)
        if len(jpeg) <= budget:
            return Picture(jpeg, size, pixels.extent)
    return None


def as_jpeg(values: np.ndarray, size: tuple[int, int], quality: int) -> bytes:
    """Pixels at a size as JPEG, without any metadata."""
    image = Image.fromarray(values)
    if image.size != size:
        image = image.resize(size, Image.Resampling.LANCZOS)
    stream = BytesIO()
    image.save(stream, format="JPEG", quality=quality, optimize=True)
    return stream.getvalue()


def shown_box(image: ImageSource, tissue: Tissue, scale: float) -> tuple[float, float, float, float]:
    """Left, top, right and bottom edge of the part of an image that is shown with room around it, pixels.

    Parameters
    ----------
    image
        The full-resolution image.
    tissue
        What is shown.
    scale
        Units of the tissue for a pixel of the image.
    """
    # y runs downwards, so its limits stand the other way round.
    room = ROOM * max(tissue.xlim[1] - tissue.xlim[0], tissue.ylim[0] - tissue.ylim[1])
    xs, ys = (tissue.xlim[0] - room, tissue.xlim[1] + room), (tissue.ylim[1] - room, tissue.ylim[0] + room)
    left, right = (float(np.clip(x / scale + EDGE, 0, image.width)) for x in xs)
    top, bottom = (float(np.clip(y / scale + EDGE, 0, image.height)) for y in ys)
    return left, top, right, bottom


def _fine(slide: SlideImage, tissue: Tissue) -> Pixels | None:
    scale = units_per_pixel(slide, tissue)
    with opened_image(slide.source) as image:
        left, top, right, bottom = shown_box(image, tissue, scale)
        if right - left < 1 or bottom - top < 1:
            return None
        shrink = min(1.0, QUALITIES[0][0] / max(right - left, bottom - top))
        size = max(1, round((right - left) * shrink)), max(1, round((bottom - top) * shrink))
        values = _region(image, (left, top, right, bottom), size)
    return Pixels(values, tuple((edge - EDGE) * scale for edge in (left, top, right, bottom)))  # type: ignore[arg-type]


def _region(image: ImageSource, box: tuple[float, float, float, float], size: tuple[int, int]) -> np.ndarray:
    """A part of an image at a size, read in bands."""
    left, top, right, bottom = box
    width, height = size
    values = np.empty((height, width, 3), dtype=np.uint8)
    for start in range(0, height, BAND_ROWS):
        stop = min(start + BAND_ROWS, height)
        first, last = (top + row / height * (bottom - top) for row in (start, stop))
        values[start:stop] = resample(image, (left, first, right, last), (width, stop - start), "bilinear")
    return values


def _as_rgb(image: np.ndarray) -> np.ndarray:
    """A picture of a library, which may be grey, have an alpha channel or run from 0 to 1, in plain colours."""
    values = np.asarray(image)
    if values.dtype != np.uint8:
        values = np.asarray(np.clip(values * (255.0 if values.max() <= 1 else 1.0), 0, 255).round(), dtype=np.uint8)
    if values.ndim == 2 or values.shape[2] == 1:
        return np.repeat(values.reshape(*values.shape[:2], 1), 3, axis=2)
    return np.ascontiguousarray(values[:, :, :3])
