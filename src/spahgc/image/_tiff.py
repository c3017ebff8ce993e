"""TIFF and whole-slide files, read region by region."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tifffile
import zarr
from numpy.typing import NDArray

from spahgc.image._blocks import BlockCache, assemble
from spahgc.image._colour import WHITE, as_rgb, check_pixels
from spahgc.image._damage import MAX_BLOCK_BYTES, FileImage, UnusableImageError
from spahgc.image._levels import PyramidImage
from spahgc.image._mpp import Resolution, agreed, mpp_from_aperio, mpp_from_tags
from spahgc.image._ome import mpp_from_ome
from spahgc.image._series import slide_series
from spahgc.image._source import Pixels

SIGNATURES = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
"""First bytes of a TIFF and a BigTIFF, little and big endian."""
CACHE_BYTES = 32 * 2**20
"""Decoded tiles that are kept, about 160 of 256 x 256 px: neighbouring patches share tiles."""
STITCHED = {"is_bif": "Ventana", "is_scn": "Leica"}
"""Formats whose tiles or areas must be put into place by a reader that knows the vendor's rules."""
MAX_HELD_BYTES = 2 * 2**30
"""A compressed file in strips is held decoded up to this size: a strip spans the width, and each patch needs many."""
AXES = ("YX", "YXS", "SYX", "CYX")
"""Orders of axes that mean one image: greyscale, colour last, colour first."""
PHOTOMETRIC = {1: "greyscale", 2: "RGB", 6: "YCbCr"}
"""Values of the tag PhotometricInterpretation that can be read."""
YCBCR, APERIO_YCBCR = 6, 33003
"""Of PhotometricInterpretation, and of Compression: colours that must be turned into RGB."""
JPEG_COMPRESSIONS = (6, 7, 33007, 34892)
"""Values of the tag Compression whose decoder turns YCbCr into RGB."""
BITS_PER_BYTE = 8
MAX_EXPANSION = {1: 1, 5: 2_000, 8: 1_100, 32773: 130, 32946: 1_100, 50013: 1_100}
"""By the tag Compression, bytes that one compressed byte can become: none, LZW, Deflate and PackBits have such a limit."""

if TYPE_CHECKING:
    from zarr.abc.store import Store

Reader = Callable[[int, int, int, int], Pixels]
"""Left, top, width, height -> pixels."""


class UnsupportedTiff(UnusableImageError):
    """A whole TIFF file of one image, stored in a way that tifffile does not turn into RGB."""


def is_tiff(path: Path) -> bool:
    """Tell a TIFF by its first bytes; the ending of a whole-slide file's name may be anything."""
    with path.open("rb") as file:
        return file.read(4) in SIGNATURES


def check_pages(path: Path) -> None:
    """Refuse a TIFF that announces tiles or strips that cannot be, before a library is asked that believes all of it.

    openslide would ask for the memory, and end the process where it gets none.
    """
    size = path.stat().st_size
    with tifffile.TiffFile(path) as file:
        for page in file.pages:
            if not isinstance(page, tifffile.TiffPage):
                continue
            counts = np.asarray(page.databytecounts, dtype=np.uint64)
            check_blocks(page, counts)
            if counts.max(initial=0) > size:
                raise ValueError(f"a tile or strip of {counts.max():,} bytes is announced, and the file has {size:,}")


def check_blocks(page: tifffile.TiffPage, counts: NDArray[np.uint64]) -> None:
    """Refuse tiles or strips that are fewer than the size asks for, or cannot be as large as they claim.

    Parameters
    ----------
    page
        The image.
    counts
        Bytes of its tiles or strips in the file.
    """
    needed, listed, largest = math.prod(page.chunked), len(counts), int(counts.max(initial=0))
    if page.jpegheader is None and listed < needed:
        raise ValueError(
            f"{page.imagewidth:,} x {page.imagelength:,} px are made of {needed:,} tiles or strips, and {listed:,} are "
            "listed"
        )
    rows, columns = page.tilelength * page.tiledepth, page.tilewidth
    if not page.is_tiled:
        rows, columns = min(page.rowsperstrip, page.imagelength), page.imagewidth
    samples = columns * (page.samplesperpixel if page.planarconfig == tifffile.PLANARCONFIG.CONTIG else 1)
    claimed = rows * (samples * page.bitspersample // BITS_PER_BYTE)
    possible = MAX_EXPANSION.get(int(page.compression), math.inf) * largest
    # Nothing at all is a tile that was never written.
    if (largest and claimed > possible) or (page.is_tiled and rows * samples > MAX_BLOCK_BYTES):
        raise ValueError(f"a tile or strip claims {claimed:,} bytes, and the largest has {largest:,} in the file")


class TiffImage(PyramidImage):
    """The slide of a TIFF, SVS, NDPI or OME-TIFF file, with the levels of its pyramid.

    Pictures of the label, of the whole glass and thumbnails that lie beside it in the file are passed over. Errors of
    tifffile are for the caller to name.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    UnsupportedTiff
        If the file stores its pixels in a vendor's way that tifffile does not turn into one RGB image.
    UnusableImageError
        If it holds something else than one 8-bit image in grey or RGB(A).
    ValueError
        If the file is damaged or truncated.
    """

    def __init__(self, path: Path) -> None:
        self._file = tifffile.TiffFile(path)
        try:
            levels, resolution = self._find_levels(path)
            super().__init__(levels)
            self.mpp_problem = resolution.problem
        except BaseException:
            self._file.close()
            raise

    def _find_levels(self, path: Path) -> tuple[list[TiffLevel], Resolution]:
        """Choose the image, check it, and find out its sizes and resolution."""
        for flag, vendor in STITCHED.items():
            if getattr(self._file, flag):
                raise UnsupportedTiff(f'"{path}" is a slide of {vendor}, which tifffile does not put together.')
        index = slide_series(self._file.series, path)
        series = self._file.series[index]
        if self._file.is_qpi and "C" in series.axes and series.sizes["channel"] > 1:
            raise UnusableImageError(
                f'"{path}" holds {series.sizes["channel"]} channels of a fluorescence scan (axes {series.axes}), but one '
                "RGB image is needed. Pass the H&E image of the slide."
            )
        cache, lock = BlockCache(CACHE_BYTES), threading.RLock()
        resolution = self._find_resolution(series.levels[0].keyframe, index)
        levels = [TiffLevel(path, series.levels[0], cache, lock, resolution.mpp)]
        for smaller in series.levels[1:]:
            try:
                levels.append(TiffLevel(path, smaller, cache, lock))
            except UnsupportedTiff:  # this level only: a patch comes from the finer one
                continue
        return levels, resolution

    def _find_resolution(self, page: tifffile.TiffPage, index: int) -> Resolution:
        """Read the resolution from OME metadata, Aperio's description and the resolution tags."""
        file, found = self._file, []
        if file.is_ome and file.ome_metadata:
            found.append(mpp_from_ome(file.ome_metadata, index, (page.imagewidth, page.imagelength)))
        if file.is_svs:
            found.append(mpp_from_aperio(page.description))
        imagej = file.imagej_metadata if file.is_imagej else None
        x, y, unit = (page.tags.valueof(name) for name in ("XResolution", "YResolution", "ResolutionUnit"))
        return agreed([*found, mpp_from_tags(x, y, unit, imagej)])

    def close(self) -> None:
        """Release the file and the pixels."""
        super().close()
        self._file.close()


class TiffLevel(FileImage):
    """One level of a TIFF file.

    Tiles are read and decoded one by one, uncompressed strips are memory-mapped, compressed strips are decoded once
    if the whole level takes less than 2 GiB; what is left (planes, Hamamatsu's restart markers) goes through zarr.
    Tiles that the file leaves out are white. Several threads may read at once: what goes through the file itself is
    locked, decoding is not.

    Parameters
    ----------
    path
        The file.
    series
        The level as tifffile describes it.
    cache
        Decoded tiles, shared by the levels of a file.
    lock
        Guards the file, shared by the levels as well.
    mpp
        Microns per pixel of this level.

    Raises
    ------
    UnsupportedTiff
        If the colours are stored in a way that is not supported.
    ValueError
        If the level is not one image in grey or RGB(A) with 8 bits a channel, or the file ends before its pixels do.
    """

    def __init__(
        self,
        path: Path,
        series: tifffile.TiffPageSeries,
        cache: BlockCache,
        lock: threading.RLock,
        mpp: float | None = None,
    ) -> None:
        super().__init__(path)
        self._series = series
        self._cache = cache
        self._lock = lock
        self._page = series.keyframe
        self._axes = "".join(a for a, n in zip(series.axes, series.shape, strict=True) if n > 1 or a in "YX")
        self._sizes = dict(zip(series.axes, series.shape, strict=True))
        self.height, self.width = int(self._sizes["Y"]), int(self._sizes["X"])
        self._reader: Reader | None = None
        self._store: Store | None = None
        self._is_closed = False
        self.mpp = mpp
        self._check()

    def _check(self) -> None:
        """Refuse what is no single 8-bit colour image, files that end too early, and sizes that cannot be."""
        channels = [self._sizes[axis] for axis in self._axes if axis not in "YX"]
        if self._axes not in AXES or (self._axes == "CYX" and channels[0] not in (3, 4)):
            raise UnusableImageError(
                f'"{self._path}" holds axes {self._series.axes} of sizes {self._series.shape}, but one RGB image is '
                "needed. Extract the H&E image into a file of its own."
            )
        check_pixels((self.height, self.width, *channels), np.dtype(self._page.dtype), f'"{self._path}"')
        photometric, compression = int(self._page.photometric), int(self._page.compression)
        raw_ycbcr = photometric == YCBCR and compression not in JPEG_COMPRESSIONS
        if photometric not in PHOTOMETRIC or raw_ycbcr or compression == APERIO_YCBCR:
            raise UnsupportedTiff(
                f'"{self._path}" stores its colours as {self._page.photometric!r} with compression '
                f"{self._page.compression!r}, which is not supported. Convert it to an RGB TIFF."
            )
        present = self._path.stat().st_size
        for page in self._series.pages:
            if page is None:  # a plane that an OME file leaves out
                continue
            offsets = np.asarray(page.dataoffsets, dtype=np.uint64)
            counts = np.asarray(page.databytecounts, dtype=np.uint64)
            ends = offsets + counts
            if ends.max(initial=0) > present or (ends < offsets).any():
                raise ValueError(f"its pixels reach to byte {ends.max():,}")
            check_blocks(self._page, counts)

    def _read(self, left: int, top: int, width: int, height: int) -> Pixels:
        try:
            with self._lock:
                if self._is_closed:
                    raise _Closed
                reader = self._reader = self._reader or self._open_reader()
            return reader(left, top, width, height)
        except _Closed:
            raise self._closed() from None

    def close(self) -> None:
        """Release the pixels; the file belongs to the image."""
        with self._lock:
            self._is_closed, self._reader = True, None
            if self._store is not None:
                self._store.close()
                self._store = None

    def _open_reader(self) -> Reader:
        """Choose the way that reads least for a patch."""
        if len(self._series.pages) == 1 and self._page.is_memmappable:
            return self._from_array(self._series.asarray(out="memmap"))
        if self._is_plainly_tiled():
            return self._tile_reader()
        if not self._page.is_tiled and self._series.size <= MAX_HELD_BYTES:
            return self._from_array(self._series.asarray(maxworkers=1))
        self._store = self._series.aszarr(level=0, fillvalue=WHITE)
        return self._from_array(zarr.open_array(self._store, mode="r"), lock=self._lock)

    def _from_array(self, data: NDArray[np.uint8] | zarr.Array, lock: threading.RLock | None = None) -> Reader:
        """Read from something that is indexed like an array, one thread after the other if there is a lock."""
        axes, image_axes = self._series.axes, self._axes

        def read(left: int, top: int, width: int, height: int) -> Pixels:
            where = {"Y": slice(top, top + height), "X": slice(left, left + width)}
            index = tuple(where.get(axis, slice(None) if axis in image_axes else 0) for axis in axes)
            if lock is None:
                region = np.asarray(data[index])
            else:
                with lock:
                    region = np.asarray(data[index])
            if image_axes in ("SYX", "CYX"):
                region = np.moveaxis(region, 0, -1)
            return np.array(as_rgb(region), copy=True, order="C")

        return read

    def _is_plainly_tiled(self) -> bool:
        """Tell whether tile ``row * columns + column`` holds all channels of its pixels."""
        page = self._page
        return bool(
            page.is_tiled
            and len(self._series.pages) == 1
            and self._axes in ("YX", "YXS")
            and page.planarconfig == tifffile.PLANARCONFIG.CONTIG
            and page.tiledepth == 1
            and page.jpegheader is None
        )

    def _tile_reader(self) -> Reader:
        """Read and decode single tiles: no task queue, no copy of the list of tiles."""
        page = self._page
        offsets, counts, tables = page.dataoffsets, page.databytecounts, page.jpegtables
        file, decode, lock, cache, level = page.parent.filehandle, page.decode, self._lock, self._cache, id(self)
        y_edges = np.append(np.arange(0, self.height, page.tilelength), self.height)
        x_edges = np.append(np.arange(0, self.width, page.tilewidth), self.width)
        columns = len(x_edges) - 1
        missing = np.full((page.tilelength, page.tilewidth, 3), WHITE, dtype=np.uint8)

        def load(index: int) -> Pixels:
            with lock:
                if file.closed:
                    raise _Closed
                file.seek(offsets[index])
                data = file.read(counts[index])
            if len(data) < counts[index]:
                raise tifffile.TiffFileError(f"tile {index} ends after {len(data)} of {counts[index]} bytes")
            pixels = decode(data, index, jpegtables=tables)[0]
            if pixels is None:
                raise tifffile.TiffFileError(f"tile {index} holds no pixels")
            return np.ascontiguousarray(as_rgb(pixels[0]))

        def tile(row: int, column: int) -> Pixels:
            index = row * columns + column
            # Offset and length 0 mean that the tile was never written.
            if index >= len(counts) or counts[index] == 0:
                return missing
            return cache.get((level, index), lambda: load(index))

        return lambda left, top, width, height: assemble((left, top, width, height), y_edges, x_edges, tile)


class _Closed(Exception):
    """The image was closed, maybe while another thread read it."""
