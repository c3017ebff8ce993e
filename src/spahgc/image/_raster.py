"""JPEG, PNG and the like: files that can only be decoded as a whole."""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from spahgc.image._colour import as_rgb
from spahgc.image._mpp import mpp_from_dpi
from spahgc.image._source import ClosesItself, Pixels, check_region

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "JPEG2000")
MAX_PIXELS = 65_535**2
"""Largest JPEG that can exist. A file that claims more is broken or made to exhaust the memory."""
COLOUR_MODES = {"1": "L", "L": "L", "P": "RGBA", "LA": "RGBA", "RGB": "RGB", "RGBA": "RGBA", "CMYK": "RGB"}
"""PIL's modes that hold 8 bits a channel or fewer, and the mode in which they are taken."""
DECODING_ERRORS = (OSError, SyntaxError, ValueError, struct.error)
"""What PIL raises on broken files."""

_limit_lock = threading.Lock()


@contextmanager
def no_pixel_limit() -> Iterator[None]:
    """Let PIL open images of the size of a slide; its limit is a global that belongs to the user."""
    with _limit_lock:
        limit = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


class RasterImage(ClosesItself):
    """A JPEG or PNG file.

    The header is read when the file is opened. The pixels (3 bytes each) are decoded once, at the first ``read``,
    and held until ``close``; several threads may read. An orientation in the EXIF data is ignored:
    spot coordinates count stored pixels.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    ValueError
        If the file is no image, is truncated (at the first ``read``), or has more than 8 bits a channel.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pixels: Pixels | None = None
        self._lock = threading.Lock()
        self._image: Image.Image | None = None
        try:
            with no_pixel_limit():
                self._image = Image.open(path, formats=FORMATS)
        except UnidentifiedImageError as error:
            raise ValueError(
                f'"{path}" is not an image that can be read ({path.stat().st_size:,} bytes). '
                "Pass a JPEG, PNG or TIFF file of the whole slide."
            ) from error
        except DECODING_ERRORS as error:
            raise _broken(path, error) from error
        self.format = str(self._image.format)
        self.width, self.height = self._image.size
        self.mpp = mpp_from_dpi(self._image.info.get("dpi"))
        try:
            self._check()
        except ValueError:
            self.close()
            raise

    def _check(self) -> None:
        """Refuse what cannot be held or has no 8-bit meaning."""
        mode = self._image.mode if self._image is not None else ""
        if self.width * self.height > MAX_PIXELS:
            raise ValueError(
                f'"{self._path}" claims {self.width} x {self.height} px, too many to decode as a whole. '
                "Convert it to a tiled TIFF, which is read region by region."
            )
        if mode not in COLOUR_MODES and not mode.startswith("YCbCr"):
            raise ValueError(
                f'"{self._path}" holds pixels of PIL mode "{mode}", but 8 bits a channel are needed. '
                "Convert it to an RGB image of 8 bits a channel."
            )

    def read(self, left: int, top: int, width: int, height: int) -> Pixels:
        """Read a region that lies inside the image: uint8, height x width x 3."""
        check_region(self, left, top, width, height)
        with self._lock:
            if self._pixels is None:
                self._pixels = self._decode()
            pixels = self._pixels
        return pixels[top : top + height, left : left + width].copy()

    def close(self) -> None:
        """Release the file and the pixels."""
        self._pixels = None
        if self._image is not None:
            self._image.close()
            self._image = None

    def _decode(self) -> Pixels:
        if self._image is None:
            raise ValueError(f'the image "{self._path}" is closed; open it again with open_image')
        try:
            # Some formats compare with the limit once more while they decode.
            with no_pixel_limit():
                mode = COLOUR_MODES.get(self._image.mode, "RGB")
                image = self._image if self._image.mode == mode else self._image.convert(mode)
                pixels = np.asarray(image)
        except DECODING_ERRORS as error:
            raise _broken(self._path, error) from error
        self._image.close()
        self._image = None
        return as_rgb(pixels)


def _broken(path: Path, error: Exception) -> ValueError:
    """Name a file that could not be decoded."""
    return ValueError(
        f'the image "{path}" ({path.stat().st_size:,} bytes) cannot be decoded: {error}. '
        "It is damaged or was not copied to its end; copy or download it again."
    )
