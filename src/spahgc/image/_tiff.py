"""TIFF and whole-slide files, read region by region."""

from __future__ import annotations

import struct
import threading
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from spahgc.image._blocks import BlockCache
from spahgc.image._mpp import mpp_from_aperio, mpp_from_ome, mpp_from_tags
from spahgc.image._pyramid import PyramidImage
from spahgc.image._tiff_level import TiffLevel, UnsupportedTiff, damaged

SIGNATURES = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
"""First bytes of a TIFF and a BigTIFF, little and big endian."""
CACHE_BYTES = 32 * 2**20
"""Decoded tiles that are kept, about 160 of 256 x 256 px: neighbouring patches share tiles."""
PARSING_ERRORS = (tifffile.TiffFileError, OSError, ValueError, IndexError, KeyError, struct.error)
"""What tifffile raises on broken files."""
STITCHED = {"is_bif": "Ventana", "is_scn": "Leica"}
"""Formats whose tiles or areas must be put into place by a reader that knows the vendor's rules."""


def is_tiff(path: Path) -> bool:
    """Tell a TIFF by its first bytes; the ending of a whole-slide file's name may be anything."""
    with path.open("rb") as file:
        return file.read(4) in SIGNATURES


class TiffImage(PyramidImage):
    """The largest image of a TIFF, SVS, NDPI or OME-TIFF file, with the levels of its pyramid.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    UnsupportedTiff
        If the file stores its pixels in a vendor's way that tifffile does not turn into one RGB image.
    ValueError
        If the file is damaged or truncated, or holds something else than one 8-bit image in grey or RGB(A).
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = tifffile.TiffFile(path)
        except PARSING_ERRORS as error:
            raise damaged(path, str(error)) from error
        try:
            super().__init__(self._find_levels(path))
        except PARSING_ERRORS as error:
            self._file.close()
            if isinstance(error, ValueError) and str(path) in str(error):
                raise
            raise damaged(path, str(error)) from error

    def _find_levels(self, path: Path) -> list[TiffLevel]:
        """Choose the image, check it, and find out its sizes and resolution."""
        for flag, vendor in STITCHED.items():
            if getattr(self._file, flag):
                raise UnsupportedTiff(f'"{path}" is a slide of {vendor}, which tifffile does not put together.')
        if not self._file.series:
            raise damaged(path, "it holds no image")
        sizes = [dict(zip(series.axes, series.shape, strict=True)) for series in self._file.series]
        index = int(np.argmax([size.get("Y", 0) * size.get("X", 0) for size in sizes]))
        series = self._file.series[index]
        cache, lock = BlockCache(CACHE_BYTES), threading.RLock()
        mpp = self._find_mpp(series.levels[0].keyframe, index)
        levels = [TiffLevel(path, series.levels[0], cache, lock, mpp)]
        for smaller in series.levels[1:]:
            try:
                levels.append(TiffLevel(path, smaller, cache, lock))
            except UnsupportedTiff:  # this level only: a patch comes from the finer one
                continue
        return levels

    def _find_mpp(self, page: Any, index: int) -> float | None:
        """Read the resolution from OME metadata, Aperio's description or the resolution tags."""
        if self._file.is_ome and self._file.ome_metadata:
            mpp = mpp_from_ome(self._file.ome_metadata, index)
            if mpp is not None:
                return mpp
        if self._file.is_svs:
            mpp = mpp_from_aperio(page.description)
            if mpp is not None:
                return mpp
        unit = page.tags.valueof("ResolutionUnit")
        return mpp_from_tags(page.tags.valueof("XResolution"), page.tags.valueof("YResolution"), unit)

    def close(self) -> None:
        """Release the file and the pixels."""
        super().close()
        self._file.close()
