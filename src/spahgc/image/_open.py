"""One door for all images."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spahgc.image._array import ArrayImage
from spahgc.image._raster import RasterImage
from spahgc.image._source import ImageSource
from spahgc.image._tiff import TiffImage, is_tiff


def open_image(source: str | os.PathLike[str] | NDArray[Any] | ImageSource) -> ImageSource:
    """Open an image of which regions can be read.

    Parameters
    ----------
    source
        Path of a JPEG, PNG or TIFF file (OME-TIFF, SVS and other whole-slide files that tifffile reads are TIFF);
        a uint8 array of height x width x 3; or an object that is an :class:`ImageSource` already, which comes back
        as it is. The content decides on the format, not the name of the file.

    Returns
    -------
    The image, a context manager. Only its header has been read.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is no image, is damaged, or does not hold 8 bits a channel.
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
    if isinstance(source, np.ndarray):
        return ArrayImage(source)
    if isinstance(source, str | os.PathLike):
        return _open_file(Path(source))
    if isinstance(source, ImageSource):
        return source
    raise TypeError(
        f"image is of type {type(source).__name__}. Pass the path of an image file, a uint8 array of height x width x 3, "
        "or an object with height, width, mpp, read and close (spahgc.image.ImageSource)."
    )


def _open_file(path: Path) -> ImageSource:
    """Open a file by what its first bytes say it is."""
    if path.is_dir():
        raise ValueError(f'"{path}" is a folder, not an image. Pass the path of a JPEG, PNG or TIFF file.')
    if not path.exists():
        raise FileNotFoundError(f'the image "{path}" does not exist. Check the path, or pass another image.')
    if path.stat().st_size == 0:
        raise ValueError(f'the image "{path}" is empty (0 bytes). Copy or download it again.')
    try:
        tiff = is_tiff(path)
    except OSError as error:
        raise ValueError(f'the image "{path}" cannot be opened ({error}). Check its permissions.') from error
    return TiffImage(path) if tiff else RasterImage(path)
