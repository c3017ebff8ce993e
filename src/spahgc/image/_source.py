"""The protocol: an image is something of which a region can be read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
"""Height x width x 3, RGB, 0 to 255."""


@dataclass(frozen=True)
class Level:
    """One level of a pyramid."""

    width: int
    """Width in pixels of this level."""
    height: int
    """Height in pixels of this level."""
    scale_x: float
    """Width of a pixel of this level, in pixels of the full resolution."""
    scale_y: float
    """Height of a pixel of this level, in pixels of the full resolution."""
    left: float = 0.0
    """Where its first column begins, in pixels of the full resolution."""
    top: float = 0.0
    """Where its first row begins, in pixels of the full resolution."""


@runtime_checkable
class ImageSource(Protocol):
    """An image of which regions can be read.

    Any object with these members will do where the package takes an image.
    Reading a region must not need memory for the whole image unless the file format leaves no choice.
    ``read`` may be called from several threads at once; a class whose library does not allow that holds a lock.

    An image that keeps smaller versions of itself may be a :class:`PyramidSource` as well; nothing depends on it.
    """

    @property
    def height(self) -> int:
        """Height in pixels."""
        ...

    @property
    def width(self) -> int:
        """Width in pixels."""
        ...

    @property
    def mpp(self) -> float | None:
        """Microns per pixel, if the image says so."""
        ...

    def read(self, left: int, top: int, width: int, height: int) -> Pixels:
        """Read a region that lies inside the image.

        Parameters
        ----------
        left, top
            First column (x) and first row (y), pixels.
        width, height
            Size of the region, pixels.

        Returns
        -------
        uint8, height x width x 3, RGB.
        """
        ...

    def close(self) -> None:
        """Release the file and the pixels held in memory."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@runtime_checkable
class PyramidSource(ImageSource, Protocol):
    """An image that keeps smaller versions of itself.

    Coordinates of spots, ``width``, ``height``, ``mpp`` and ``read`` are those of the full resolution all the same.
    """

    @property
    def levels(self) -> Sequence[Level]:
        """All levels; the first one is the full resolution."""
        ...

    def read_level(self, level: int, left: int, top: int, width: int, height: int) -> Pixels:
        """Read a region that lies inside a `level`: `left`, `top`, `width` and `height` are pixels of this level."""
        ...


class ClosesItself:
    """Context manager for a class that has ``close``."""

    def close(self) -> None:
        """Release what is held."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def check_region(image: ImageSource | Level, left: int, top: int, width: int, height: int) -> None:
    """Refuse a region that does not lie inside the image, or the level of a pyramid.

    Raises
    ------
    ValueError
        If a side is not positive or the region reaches past the image.
    """
    inside = left >= 0 and top >= 0 and left + width <= image.width and top + height <= image.height
    if width <= 0 or height <= 0 or not inside:
        raise ValueError(
            f"the region left={left}, top={top}, width={width}, height={height} is not inside the image of "
            f"{image.width} x {image.height} px (width x height); use cut_patch, which pads what lies outside"
        )
