"""One door for all images."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from spahgc._installation import install_command
from spahgc._logging import warn
from spahgc._reading import UnreadableError
from spahgc._validate import user_path
from spahgc.image._array import ArrayImage
from spahgc.image._damage import UnusableImageError, opening
from spahgc.image._dask import DaskImage, is_dask, is_xarray, open_xarray
from spahgc.image._openslide import ENDINGS, EXTRA, OpenSlideImage, has_openslide, is_openslide
from spahgc.image._raster import RasterImage
from spahgc.image._source import ImageSource
from spahgc.image._tiff import TiffImage, UnsupportedTiff, check_pages, is_tiff

if TYPE_CHECKING:
    import dask.array
    from xarray import DataArray, DataTree

Reader = Literal["tifffile", "openslide"]

TIFF_ENDINGS = (".tif", ".tiff", ".svs")
"""Names under which a picture of another format is a mistake of somebody."""


def open_image(
    source: str | os.PathLike[str] | NDArray[np.uint8] | dask.array.Array | DataArray | DataTree | ImageSource,
    *,
    reader: Reader | None = None,
) -> ImageSource:
    """Open an image of which regions can be read.

    Parameters
    ----------
    source
        Path of a JPEG, PNG or TIFF file (OME-TIFF, SVS and others are TIFF) or of a scanner's file that openslide
        knows (extra ``wsi``); a uint8 array of numpy or dask, height x width x 3, or with the channels first where the
        shape leaves no doubt; an image of a SpatialData, single-scale (``DataArray``) or multi-scale (``DataTree``); or
        an :class:`ImageSource`, which comes back as it is. The content decides on the format, not the name of the file.
    reader
        What reads a file: ``"tifffile"`` or ``"openslide"``. ``None`` takes tifffile for a TIFF, openslide for what
        only openslide reads (slides of 3DHistech, Hamamatsu VMS, Leica SCN, Ventana; Aperio's JPEG 2000 in YCbCr), and
        PIL for the rest.

    Returns
    -------
    The image, a context manager. Only its header has been read.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is no image, is damaged, or does not hold 8 bits a channel, which ``read`` says as well where pixels
        cannot be decoded; if an array does not hold 8 bits a channel, or has the shape of no image.
    ImportError
        If only openslide could read the file, and it is not installed.
    TypeError
        If `source` is none of the above.

    Examples
    --------
    >>> import numpy as np
    >>> from spahgc.image import open_image
    >>> with open_image(np.zeros((40, 60, 3), dtype=np.uint8)) as image:
    ...     image.height, image.width, image.read(0, 0, 2, 1).shape
    (40, 60, (1, 2, 3))
    """
    if reader is not None and reader not in get_args(Reader):
        raise ValueError(f'reader="{reader}" is not known; pass "tifffile", "openslide" or None')
    if isinstance(source, str | os.PathLike):
        return _open_file(user_path(source, "image"), reader)
    if reader is not None:
        raise ValueError(f'reader="{reader}" is for files, but image is of type {type(source).__name__}; leave it out')
    if isinstance(source, np.ndarray):
        return ArrayImage(source)
    if is_dask(source):
        return DaskImage(source)
    if is_xarray(source):
        return open_xarray(source)
    if isinstance(source, ImageSource):
        return source
    hint = (
        " Of a SpatialData pass one image, e.g. sdata.images[name]." if type(source).__name__ == "SpatialData" else ""
    )
    raise TypeError(
        f"image is of type {type(source).__name__}. Pass the path of an image file, a uint8 array of height x width x 3 "
        "(numpy or dask), an image of a SpatialData, "
        f"or an object with height, width, mpp, read and close (spahgc.image.ImageSource).{hint}"
    )


def _open_file(path: Path, reader: Reader | None) -> ImageSource:
    """Open a file by what its first bytes say it is."""
    _check_file(path)
    with opening(path):
        tiff = is_tiff(path)
        if reader == "openslide" or (reader is None and path.suffix.lower() in ENDINGS):
            if tiff:
                check_pages(path)
            return OpenSlideImage(path)
        if reader == "tifffile":
            return TiffImage(path)
        return _open_tiff(path) if tiff else _open_other(path)


def _check_file(path: Path) -> None:
    """Refuse what is no file, or an empty one; a pipe would be waited for, and never end."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        raise FileNotFoundError(f'the image "{path}" does not exist. Check the path, or pass another image.') from error
    except (OSError, ValueError) as error:  # a link to itself, a name too long for the system, no permission
        raise UnreadableError(
            f'the image "{path}" cannot be opened ({getattr(error, "strerror", None) or error}). Check the path and its '
            "permissions."
        ) from error
    if stat.S_ISDIR(mode):
        raise UnusableImageError(f'"{path}" is a folder, not an image. Pass the path of a JPEG, PNG or TIFF file.')
    if not stat.S_ISREG(mode):
        raise UnusableImageError(f'"{path}" is a pipe or a device, not an image. Pass the path of a file.')
    if path.stat().st_size == 0:
        raise UnusableImageError(f'the image "{path}" is empty (0 bytes). Copy or download it again.')


def _open_tiff(path: Path) -> ImageSource:
    """Open a TIFF; where tifffile finds a whole file and cannot give its colours, ask openslide."""
    try:
        return TiffImage(path)
    except UnsupportedTiff as error:
        check_pages(path)
        if is_openslide(path):
            return OpenSlideImage(path)
        if not has_openslide():
            raise ImportError(
                f"{error} openslide may read it, but is not installed. Run {install_command(EXTRA)}."
            ) from error
        raise


def _open_other(path: Path) -> ImageSource:
    """Open a file that is no TIFF: as a picture, or else as a slide."""
    try:
        with opening(path):
            image = RasterImage(path)
    except UnreadableError as error:
        if is_openslide(path):
            return OpenSlideImage(path)
        if not has_openslide():
            raise UnusableImageError(
                f"{error} If it is a slide of a scanner, openslide may read it: {install_command(EXTRA)}."
            ) from error
        raise
    if path.suffix.lower() in TIFF_ENDINGS:
        warn(
            f'the image "{path}" is called a TIFF but is none: it is read as the {image.format} that it is, and '
            "decoded as a whole. Rename it, or find the file that it was made from.",
            stacklevel=4,
        )
    return image
