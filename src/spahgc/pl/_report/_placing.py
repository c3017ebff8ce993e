"""Where the coordinates of a page lie in the full-resolution image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

from spahgc._validate import check_coordinates
from spahgc.pl._tissue import Tissue, has_image
from spahgc.pp._embed.slide_image import SlideImage

if TYPE_CHECKING:
    from spatialdata import SpatialData


@dataclass(frozen=True)
class Placing:
    """A shift and a scale: pixel = unit of the tissue times `pixels_per_unit` plus `shift`."""

    pixels_per_unit: float
    shift: NDArray[np.float64]

    def to_pixels(self, xy: NDArray[np.float64]) -> NDArray[np.float64]:
        """Coordinates of the tissue as pixels of the full-resolution image."""
        return xy * self.pixels_per_unit + self.shift

    def to_tissue(self, xy: NDArray[np.float64]) -> NDArray[np.float64]:
        """Pixels of the full-resolution image as coordinates of the tissue."""
        return (xy - self.shift) / self.pixels_per_unit


def placing_of(data: AnnData | SpatialData, adata: AnnData, slide: SlideImage | None, tissue: Tissue) -> Placing | None:
    """Compare where the spots lie on the tissue and in the image; ``None`` where all lie at one place."""
    on_image = has_image(data) and slide is not None
    xy = slide.xy if on_image and slide is not None else check_coordinates(adata, "the slide")
    width, here = float(np.ptp(xy, axis=0).max()), float(np.ptp(tissue.xy, axis=0).max())
    if not (width > 0 and here > 0):
        return None
    scale = width / here
    return Placing(scale, xy.mean(axis=0) - scale * tissue.xy.mean(axis=0))
