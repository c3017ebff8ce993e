"""From a slide to its picture: the reduced image that it stores, an image of its SpatialData, or a file."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

from spahgc._keys import SPATIAL
from spahgc._logging import warn
from spahgc._slides.library import HIRES_SCALE, Library, find_library
from spahgc._slides.measured import MeasuredSlide
from spahgc._slides.resolution import slide_mpp
from spahgc._slides.spatialdata import spots_on_image
from spahgc._slides.tables import is_spatialdata
from spahgc._spots.pitch import spot_pitch
from spahgc._validate import check_coordinates, user_path
from spahgc.image import ImageSource, open_image, thumbnail
from spahgc.image._eight_bits import rgb_of_8_bits
from spahgc.image._source import Pixels
from spahgc.pp._register.picture import MAX_SIDE_PX, REACH_PITCHES, Picture, cut_picture

if TYPE_CHECKING:
    from spatialdata import SpatialData
    from xarray import DataArray, DataTree

Source: TypeAlias = "str | os.PathLike[str] | NDArray[np.uint8] | ImageSource"
"""Where an image may come from."""

LOWRES_SCALE = "tissue_lowres_scalef"
"""Scale factor: pixels of the lowres image for one of the full-resolution image."""
MAX_READ_SIDE_PX = 4096
"""Longest side of the reduced version of a whole image of which the slide's part is cut."""
SAME_PLACE = 0.1
"""Distance between two places of one spot, in distances of neighbouring spots, up to which they are the same."""


class NoImageError(ValueError):
    """A slide of which no image is known."""


@dataclass(frozen=True, eq=False)
class SlideToRegister:
    """A slide, and what it came in."""

    name: str
    table: AnnData
    """With spot centres in ``obsm["spatial"]``."""
    holder: AnnData | SpatialData
    """What the user passed."""

    @property
    def xy(self) -> NDArray[np.float64]:
        """Spot centres, spots x 2."""
        return check_coordinates(self.table, f'slide "{self.name}"')


def slide_picture(slide: SlideToRegister, image: Source | None = None) -> Picture:
    """Take the picture of a slide.

    Parameters
    ----------
    slide
        The slide.
    image
        Its full-resolution image; ``None`` takes the hires or lowres image of ``uns["spatial"]``, an image of the
        SpatialData, or the image that ``uns["spatial"]`` names.

    Raises
    ------
    NoImageError
        If no image is known.
    ValueError
        If the image is none, or the spots lie outside it.
    """
    label = f'slide "{slide.name}"'
    xy = slide.xy
    try:
        if image is not None:
            source = str(user_path(image, "image=")) if isinstance(image, str | os.PathLike) else image
            return _picture_of_image(source, xy, slide, other_image=True)
        library = find_library(slide.table)
        stored = None if library is None else stored_image(library, label)
        if stored is not None:
            rgb, scale = stored
            return cut_picture(rgb, 1 / scale, xy, mpp=slide_mpp(slide.table))
        if is_spatialdata(slide.holder) and slide.holder.images:
            return _picture_of_element(slide, xy)
        if library is not None and library.image_path is not None:
            return _picture_of_image(library.image_path, xy, slide, other_image=False)
    except NoImageError:
        raise
    except ValueError as error:
        raise ValueError(f"the picture of {label} cannot be taken: {error}") from error
    raise NoImageError(
        f'no image is known for {label}: uns["{SPATIAL}"] holds neither a hires nor a lowres image with its scale factor, '
        f'and names no file. Pass image={{"{slide.name}": ...}} with its path (JPEG, PNG, TIFF) or a uint8 array of '
        "height x width x 3."
    )


def measured_picture(slide: MeasuredSlide) -> Picture | None:
    """The picture of a measured slide, which is taken once and then kept with it."""
    if not slide.picture_taken:
        slide.picture, slide.picture_taken = stored_picture(slide.adata, slide.xy, slide.label), True
    picture: Picture | None = slide.picture
    return picture


def stored_picture(adata: AnnData, xy: NDArray[np.float64], label: str) -> Picture | None:
    """The picture on the reduced image that a slide stores; ``None`` where it stores none.

    Warns
    -----
    UserWarning
        If its image or scale factor is broken, or the spots lie outside it: the slide then has no place.
    """
    try:
        library = find_library(adata)
        stored = None if library is None else stored_image(library, label)
        return None if stored is None else cut_picture(stored[0], 1 / stored[1], xy, mpp=slide_mpp(adata))
    except ValueError as error:
        warn(f"{label} is not laid on other slides: {error}", stacklevel=2)
        return None


def stored_image(library: Library, label: str) -> tuple[Pixels, float] | None:
    """The hires or else the lowres image of a library, and its pixels for one of the full-resolution image."""
    images = library.record.get("images", {})
    for resolution, factor in (("hires", HIRES_SCALE), ("lowres", LOWRES_SCALE)):
        if images.get(resolution) is None or library.scale_factors.get(factor) is None:
            continue
        scale = float(library.scale_factors[factor])
        if not (np.isfinite(scale) and scale > 0):
            raise ValueError(f"its scale factor {factor} is {scale}, which must be a positive number. Correct it.")
        return rgb_of_8_bits(images[resolution], f"the {resolution} image of {label}"), scale
    return None


def _picture_of_image(source: Any, xy: NDArray[np.float64], slide: SlideToRegister, *, other_image: bool) -> Picture:
    with _opened(source) as opened:
        mpp = slide_mpp(slide.table, image=opened, other_image=other_image)
        return _reduced(opened, xy, mpp)


def _picture_of_element(slide: SlideToRegister, xy: NDArray[np.float64]) -> Picture:
    """The picture on an image of the SpatialData, in the frame of ``obsm["spatial"]``."""
    spots = spots_on_image(slide.holder, slide.table)
    scale, shift = scale_and_shift(spots.xy, xy)
    off = np.linalg.norm(scale * spots.xy + shift - xy, axis=1).max()
    pitch = spot_pitch(xy)
    if pitch is not None and off > SAME_PLACE * pitch:
        raise ValueError(
            f'obsm["{SPATIAL}"] of the table and the shapes of the SpatialData put its spots at different places of the image '
            f'"{spots.image_key}" (up to {off:.4g} px apart). Remove obsm["{SPATIAL}"], or correct the transformations.'
        )
    with _opened(spots.image) as opened:
        picture = _reduced(opened, spots.xy, spots.mpp)
    x, y = (float(value) for value in scale * np.asarray(picture.origin) + shift)
    mpp = None if picture.mpp is None else picture.mpp / scale
    return Picture(picture.rgb, picture.inside, (x, y), picture.scale * scale, mpp, pitch)


def scale_and_shift(start: NDArray[np.float64], end: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """Scale and shift that take points to others, least squares."""
    a, b = start - start.mean(0), end - end.mean(0)
    spread = float((a**2).sum())
    scale = float((a * b).sum()) / spread if spread > 0 else 1.0
    scale = scale if scale > 0 else 1.0
    return scale, end.mean(0) - scale * start.mean(0)


def _reduced(image: ImageSource, xy: NDArray[np.float64], mpp: float | None) -> Picture:
    """The slide's part of an image, of which a small version is read."""
    pitch = spot_pitch(xy)
    part = float(np.ptp(xy, axis=0).max()) + 2 * REACH_PITCHES * (pitch or 0.0)
    longest = max(image.height, image.width)
    wanted = MAX_SIDE_PX if pitch is None or part <= 0 else int(np.ceil(MAX_SIDE_PX * longest / min(part, longest)))
    rgb, scale = thumbnail(image, min(wanted, MAX_READ_SIDE_PX))
    return cut_picture(rgb, 1 / scale, xy, mpp=mpp)


def _opened(source: Source | DataArray | DataTree) -> AbstractContextManager[ImageSource]:
    """Open an image; one that the caller opened stays open."""
    image = open_image(source)
    return nullcontext(image) if image is source else image
