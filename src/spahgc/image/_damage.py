"""What is damaged, too large to be true or of no use: the one error of all image files, and where it is made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from spahgc._reading import UnreadableError, reading
from spahgc.image._source import ClosesItself, Pixels, check_region

REMEDY = "It is damaged or was not copied to its end; copy or download it again."

MAX_BLOCK_BYTES = 2 * 2**30
"""Bytes of one tile or strip, decoded, above which a file is not believed."""


class UnusableImageError(UnreadableError):
    """An image that is whole, as far as anybody can tell, and that is of no use here: why, and what to do."""


@contextmanager
def opening(path: Path) -> Iterator[None]:
    """Turn whatever a library raises when it opens an image into an error that names file, problem and remedy."""
    with reading(path, "the image", REMEDY):
        yield


class FileImage(ClosesItself):
    """An image, or one level of it, that is read from a file; a class for each format says how, in ``_read``.

    Parameters
    ----------
    path
        The file.
    """

    width: int
    height: int
    mpp: float | None = None

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, left: int, top: int, width: int, height: int) -> Pixels:
        """Read a region that lies inside the image: uint8, height x width x 3."""
        check_region(self, left, top, width, height)
        return read_region(self._path, self._read, left, top, width, height)

    def _read(self, left: int, top: int, width: int, height: int) -> Pixels:
        """Read a region that is known to lie inside; may raise anything."""
        raise NotImplementedError

    def _closed(self) -> UnusableImageError:
        """The error of an image that is read after it was closed."""
        return UnusableImageError(f'the image "{self._path}" is closed; open it again with open_image')


def read_region(
    path: Path, read: Callable[[int, int, int, int], Pixels], left: int, top: int, width: int, height: int
) -> Pixels:
    """Read a region of a file; whatever the format's library raises becomes an error that names file and place.

    Raises
    ------
    UnreadableError
        If the pixels cannot be decoded, or are not as many as the file announces.
    """
    with reading(path, f"the region left={left}, top={top}, {width} x {height} px of the image", REMEDY):
        pixels = read(left, top, width, height)
        if pixels.shape != (height, width, 3) or pixels.dtype != np.uint8:
            raise ValueError(f"decoding gave {pixels.dtype} of shape {pixels.shape}")
    return pixels
