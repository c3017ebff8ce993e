"""The full-resolution image in tiles, for a page that lies in a folder with them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spahgc.image._resample import resample
from spahgc.pl._report._picture import EDGE, as_jpeg, shown_box, units_per_pixel
from spahgc.pl._tissue import Tissue
from spahgc.pp._embed.slide_image import SlideImage, opened_image

FOLDER = "tiles"
"""Where they lie beside the page, a folder a slide."""
SIDE = 512
"""Side of a tile, pixels."""
QUALITY = 82
"""Of their JPEG."""
COARSEST_PX = 2048
"""Longest side of the coarsest level, pixels: the picture of the page serves what is coarser."""
MAX_TILES = 20_000
"""Tiles of a slide; of a larger slide the finest level is left out, and the page says so. About 1 GB."""


@dataclass(frozen=True)
class Tiles:
    """A pyramid of tiles. Level z has 2^z pixels for a unit of the tissue, and tile (0, 0) begins at its origin."""

    folder: str
    least: int
    most: int
    bounds: tuple[float, float, float, float]
    """Left, top, right and bottom edge of what is covered, units of the tissue."""
    pixels_per_tile_pixel: float
    """Pixels of the full-resolution image for one of the finest level."""

    def places(self, level: int) -> Iterator[tuple[int, int]]:
        """Column and row of the tiles of a level."""
        left, top, right, bottom = (edge * 2.0**level / SIDE for edge in self.bounds)
        for row in range(int(np.floor(top)), int(np.ceil(bottom))):
            for column in range(int(np.floor(left)), int(np.ceil(right))):
                yield column, row

    @property
    def n_tiles(self) -> int:
        """How many there are."""
        return sum(1 for level in range(self.least, self.most + 1) for _ in self.places(level))


def planned_tiles(slide: SlideImage | None, tissue: Tissue, number: int) -> Tiles:
    """The tiles of a slide, from the level at which the page's own picture is too coarse to that of the image.

    Raises
    ------
    ValueError
        If the slide has no full-resolution image.
    """
    if slide is None or slide.scale < 1 or not np.ptp(slide.xy, axis=0).max() > 0:
        raise ValueError(
            "tiles=True cuts the full-resolution image, and the slide has none. Pass image=, or leave tiles= out."
        )
    unit = units_per_pixel(slide, tissue)
    finest = round(float(np.log2(1 / unit)))
    with opened_image(slide.source) as image:
        left, top, right, bottom = shown_box(image, tissue, unit)
    bounds = tuple((edge - EDGE) * unit for edge in (left, top, right, bottom))
    width, height = bounds[2] - bounds[0], bounds[3] - bounds[1]
    coarsest = min(finest, int(np.floor(np.log2(COARSEST_PX / max(width, height)))))
    while True:
        tiles = Tiles(f"{FOLDER}/{number}", coarsest, finest, bounds, 2.0**-finest / unit)  # type: ignore[arg-type]
        if tiles.n_tiles <= MAX_TILES or finest == coarsest:
            return tiles
        finest -= 1


def write_tiles(tiles: Tiles, slide: SlideImage, tissue: Tissue, folder: Path) -> None:
    """Cut and write all tiles of a slide below a folder."""
    unit = units_per_pixel(slide, tissue)
    with opened_image(slide.source) as image:
        for level in range(tiles.least, tiles.most + 1):
            place = folder / tiles.folder / str(level)
            place.mkdir(parents=True)
            side = SIDE / 2.0**level / unit
            for column, row in tiles.places(level):
                left, top = column * side + EDGE, row * side + EDGE
                values = resample(image, (left, top, left + side, top + side), (SIDE, SIDE), "bilinear")
                (place / f"{column}_{row}.jpg").write_bytes(as_jpeg(values, (SIDE, SIDE), QUALITY))
