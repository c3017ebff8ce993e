"""TIFF and whole-slide files, read region by region."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr
from numpy.typing import NDArray

from spahgc.image._colour import as_rgb, check_pixels
from spahgc.image._mpp import mpp_from_aperio, mpp_from_ome, mpp_from_tags
from spahgc.image._source import ClosesItself, Pixels, check_region

SIGNATURES = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
"""First bytes of a TIFF and a BigTIFF, little and big endian."""
MAX_HELD_BYTES = 2 * 2**30
"""A compressed file in strips is held decoded up to this size: a strip spans the width, and each patch needs many."""
AXES = ("YX", "YXS", "SYX", "CYX")
"""Orders of axes that mean one image: greyscale, colour last, colour first."""
PHOTOMETRIC = {1: "greyscale", 2: "RGB", 6: "YCbCr"}
"""Values of the tag PhotometricInterpretation that can be read."""
YCBCR = 6
JPEG_COMPRESSIONS = (6, 7, 33007, 34892)
"""Values of the tag Compression whose decoder turns YCbCr into RGB."""
APERIO_YCBCR = 33003
PARSING_ERRORS = (tifffile.TiffFileError, OSError, ValueError, IndexError, KeyError, struct.error)
"""What tifffile raises on broken files."""


def is_tiff(path: Path) -> bool:
    """Tell a TIFF by its first bytes; the ending of a whole-slide file's name may be anything."""
    with path.open("rb") as file:
        return file.read(4) in SIGNATURES


class TiffImage(ClosesItself):
    """The largest level of the largest image of a TIFF, SVS, NDPI or OME-TIFF file.

    Uncompressed files are memory-mapped, tiled files are read tile by tile.
    Compressed strips are decoded once, at the first ``read``, if the whole image takes less than 2 GiB.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    ValueError
        If the file is damaged or truncated, or holds something else than one 8-bit image in grey or RGB(A).
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._level: Any = None
        self._data: Any = None
        self._store: Any = None
        try:
            self._file = tifffile.TiffFile(path)
        except PARSING_ERRORS as error:
            raise _damaged(path, str(error)) from error
        try:
            self._open()
        except PARSING_ERRORS as error:
            self.close()
            if isinstance(error, ValueError) and str(path) in str(error):
                raise
            raise _damaged(path, str(error)) from error

    def _open(self) -> None:
        """Choose the image, check it, and find out its size and resolution."""
        if not self._file.series:
            raise _damaged(self._path, "it holds no image")
        sizes = [dict(zip(series.axes, series.shape, strict=True)) for series in self._file.series]
        index = int(np.argmax([size.get("Y", 0) * size.get("X", 0) for size in sizes]))
        series = self._file.series[index]
        self._level = series.levels[0]
        self._page = self._level.keyframe
        self._axes = "".join(a for a, n in zip(self._level.axes, self._level.shape, strict=True) if n > 1 or a in "YX")
        self._sizes = dict(zip(self._level.axes, self._level.shape, strict=True))
        self._check()
        self._mpp = self._find_mpp(index)

    def _check(self) -> None:
        """Refuse what is no single 8-bit colour image, and files that end too early."""
        channels = [self._sizes[axis] for axis in self._axes if axis not in "YX"]
        if self._axes not in AXES or (self._axes == "CYX" and channels[0] not in (3, 4)):
            raise ValueError(
                f'"{self._path}" holds axes {self._level.axes} of sizes {self._level.shape}, but one RGB image is '
                "needed. Extract the H&E image into a file of its own."
            )
        check_pixels((self.height, self.width, *channels), np.dtype(self._page.dtype), f'"{self._path}"')
        photometric, compression = int(self._page.photometric), int(self._page.compression)
        raw_ycbcr = photometric == YCBCR and compression not in JPEG_COMPRESSIONS
        if photometric not in PHOTOMETRIC or raw_ycbcr or compression == APERIO_YCBCR:
            raise ValueError(
                f'"{self._path}" stores its colours as {self._page.photometric!r} with compression '
                f"{self._page.compression!r}, which is not supported. Convert it to an RGB TIFF."
            )
        present = self._path.stat().st_size
        for page in self._level.pages:
            ends = [start + n for start, n in zip(page.dataoffsets, page.databytecounts, strict=True)]
            if max(ends, default=0) > present:
                raise _damaged(self._path, f"its pixels reach to byte {max(ends):,}")

    def _find_mpp(self, index: int) -> float | None:
        """Read the resolution from OME metadata, Aperio's description or the resolution tags."""
        if self._file.is_ome and self._file.ome_metadata:
            mpp = mpp_from_ome(self._file.ome_metadata, index)
            if mpp is not None:
                return mpp
        if self._file.is_svs:
            mpp = mpp_from_aperio(self._page.description)
            if mpp is not None:
                return mpp
        tags = self._page.tags
        unit = tags.valueof("ResolutionUnit")
        return mpp_from_tags(tags.valueof("XResolution"), tags.valueof("YResolution"), unit)

    @property
    def height(self) -> int:
        """Height in pixels."""
        return int(self._sizes["Y"])

    @property
    def width(self) -> int:
        """Width in pixels."""
        return int(self._sizes["X"])

    @property
    def mpp(self) -> float | None:
        """Microns per pixel, if the file says so and a microscope could have made it."""
        return self._mpp

    def read(self, left: int, top: int, width: int, height: int) -> Pixels:
        """Read a region that lies inside the image: uint8, height x width x 3."""
        check_region(self, left, top, width, height)
        if self._level is None:
            raise ValueError(f'the image "{self._path}" is closed; open it again with open_image')
        where: dict[str, slice] = {"Y": slice(top, top + height), "X": slice(left, left + width)}
        try:
            if self._data is None:
                self._data = self._access()
            index = tuple(where.get(axis, slice(None) if axis in self._axes else 0) for axis in self._level.axes)
            region: NDArray[Any] = np.asarray(self._data[index])
        except (tifffile.TiffFileError, OSError, ValueError, RuntimeError) as error:
            raise _damaged(self._path, str(error)) from error
        if self._axes in ("SYX", "CYX"):
            region = np.moveaxis(region, 0, -1)
        return np.array(as_rgb(region), copy=True, order="C")

    def close(self) -> None:
        """Release the file and the pixels."""
        self._level = self._data = None
        if self._store is not None:
            self._store.close()
            self._store = None
        self._file.close()

    def _access(self) -> Any:
        """Open the pixels in the way that reads least for a patch."""
        if len(self._level.pages) == 1 and self._page.is_memmappable:
            return self._level.asarray(out="memmap")
        if not self._page.is_tiled and self._level.size <= MAX_HELD_BYTES:
            return self._level.asarray(maxworkers=1)
        self._store = self._level.aszarr(level=0)
        return zarr.open_array(self._store, mode="r")


def _damaged(path: Path, found: str) -> ValueError:
    """Name a file that is not a whole TIFF."""
    return ValueError(
        f'the TIFF file "{path}" ({path.stat().st_size:,} bytes) cannot be read: {found}. '
        "It is damaged or was not copied to its end; copy or download it again."
    )
