"""Several images that show the same at different sizes, as one image."""

from __future__ import annotations

from collections.abc import Sequence

from spahgc.image._levels import make_levels
from spahgc.image._source import ClosesItself, ImageSource, Level, Pixels


class PyramidImage(ClosesItself):
    """Images of one slide, each smaller than the one before, behind the protocol of one.

    Parameters
    ----------
    images
        The full resolution first. They are closed with the pyramid.
    cut_at_start
        Whoever wrote the levels dropped the pixels that fill no block at the left and at the top.
    """

    def __init__(self, images: Sequence[ImageSource], *, cut_at_start: bool = False) -> None:
        self._images = tuple(images)
        self._levels = make_levels(((image.width, image.height) for image in self._images), cut_at_start=cut_at_start)

    @property
    def height(self) -> int:
        """Height in pixels of the full resolution."""
        return self._images[0].height

    @property
    def width(self) -> int:
        """Width in pixels of the full resolution."""
        return self._images[0].width

    @property
    def mpp(self) -> float | None:
        """Microns per pixel of the full resolution, if the image says so."""
        return self._images[0].mpp

    @property
    def levels(self) -> tuple[Level, ...]:
        """All levels, the full resolution first."""
        return self._levels

    def read(self, left: int, top: int, width: int, height: int) -> Pixels:
        """Read a region of the full resolution: uint8, height x width x 3."""
        return self._images[0].read(left, top, width, height)

    def read_level(self, level: int, left: int, top: int, width: int, height: int) -> Pixels:
        """Read a region that lies inside a level, in pixels of this level: uint8, height x width x 3."""
        return self._images[level].read(left, top, width, height)

    def close(self) -> None:
        """Release the files and the pixels of all levels."""
        for image in self._images:
            image.close()
