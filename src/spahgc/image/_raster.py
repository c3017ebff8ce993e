"""JPEG, PNG and the like: files that can only be decoded as a whole."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from spahgc.image._colour import as_rgb
from spahgc.image._damage import FileImage, UnusableImageError
from spahgc.image._mpp import agreed, mpp_from_dpi
from spahgc.image._source import Pixels

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "JPEG2000")
MAX_PIXELS = 65_535**2
"""Largest JPEG that can exist. A file that claims more is broken or made to exhaust the memory."""
COLOUR_MODES = {"1": "L", "L": "L", "P": "RGBA", "LA": "RGBA", "RGB": "RGB", "RGBA": "RGBA", "CMYK": "RGB"}
"""PIL's modes that hold 8 bits a channel or fewer, and the mode in which they are taken."""
MAX_PIXELS_PER_BYTE = {"JPEG": 1_024, "PNG": 8_300, "BMP": 130, "WEBP": 100_000, "JPEG2000": 10_000}
"""Pixels for a byte of a file above which its announced size cannot be true.

A JPEG needs a bit for a block of 8 x 8, a PNG a byte for 1,032, which may be pixels of one bit; H&E needs far more.
"""

_limit_lock = threading.Lock()


@contextmanager
def pils_limits_set_aside() -> Iterator[None]:
    """Let PIL open images of the size of a slide, and refuse cut ones, whatever its globals say; they are the user's."""
    with _limit_lock:
        limit, cut = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
        Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = None, False
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = limit, cut


class RasterImage(FileImage):
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
        super().__init__(path)
        self._pixels: Pixels | None = None
        self._lock = threading.Lock()
        self._image: Image.Image | None = None
        try:
            with pils_limits_set_aside():
                self._image = Image.open(path, formats=FORMATS)
        except UnidentifiedImageError as error:
            raise UnusableImageError(
                f'"{path}" is not an image that can be read ({path.stat().st_size:,} bytes). '
                "Pass a JPEG, PNG or TIFF file of the whole slide."
            ) from error
        try:
            self.format = str(self._image.format)
            self.width, self.height = self._image.size
            self.mpp, self.mpp_problem, _ = agreed([mpp_from_dpi(self._image.info.get("dpi"))])
            self._check()
        except BaseException:
            self.close()
            raise

    def _check(self) -> None:
        """Refuse what cannot be held or has no 8-bit meaning."""
        mode = self._image.mode if self._image is not None else ""
        if min(self.width, self.height) < 1:
            raise ValueError(f"it claims {self.width} x {self.height} px")
        possible = MAX_PIXELS_PER_BYTE.get(self.format, 1) * self._path.stat().st_size
        if self.width * self.height > possible:
            raise ValueError(f"it claims {self.width:,} x {self.height:,} px, more than a file of its size can hold")
        if self.width * self.height > MAX_PIXELS:
            raise UnusableImageError(
                f'"{self._path}" claims {self.width} x {self.height} px, too many to decode as a whole. '
                "Convert it to a tiled TIFF, which is read region by region."
            )
        if mode not in COLOUR_MODES and not mode.startswith("YCbCr"):
            raise UnusableImageError(
                f'"{self._path}" holds pixels of PIL mode "{mode}", but 8 bits a channel are needed. '
                "Convert it to an RGB image of 8 bits a channel."
            )

    def _read(self, left: int, top: int, width: int, height: int) -> Pixels:
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
            raise self._closed()
        # Some formats compare with the limit once more while they decode.
        with pils_limits_set_aside():
            mode = COLOUR_MODES.get(self._image.mode, "RGB")
            image = self._image if self._image.mode == mode else self._image.convert(mode)
            pixels = np.asarray(image)
        self._image.close()
        self._image = None
        return as_rgb(pixels)
