"""The small picture of a slide that goes with an export, and how many of its pixels one of the full resolution is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spahgc._slides.spatialdata import spots_on_image
from spahgc._slides.tables import is_spatialdata, table_of
from spahgc.image import open_image, thumbnail
from spahgc.image._eight_bits import rgb_of_8_bits
from spahgc.image._source import Pixels
from spahgc.io._exports.content import Content

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

PICTURE_PX = 4000
"""Longest side of a picture that is made of the image of a SpatialData."""


def small_picture(content: Content, data: AnnData | SpatialData, table_key: str | None) -> tuple[Pixels, float] | None:
    """Picture, uint8, height x width x 3, and its pixels per pixel of full resolution; ``None`` where there is none."""
    if is_spatialdata(data) and data.images:
        element = spots_on_image(data, table_of(data, table_key, "the slide")).image
        with open_image(element) as image:
            return thumbnail(image, PICTURE_PX)
    library = content.library
    if library is None or library.hires is None or library.hires_scale is None:
        return None
    return rgb_of_8_bits(library.hires, "the hires image of the slide"), library.hires_scale
