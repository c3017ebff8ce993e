"""Whole-slide files of all vendors, through openslide."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from spahgc._installation import install_command
from spahgc.image._colour import as_rgb
from spahgc.image._damage import FileImage, UnusableImageError, read_region
from spahgc.image._levels import make_levels
from spahgc.image._mpp import Resolution, agreed, mpp_from_numbers
from spahgc.image._source import Pixels, check_region

ENDINGS = (".mrxs", ".vms", ".vmu", ".dcm", ".czi")
"""Names of slides that another reader would mistake (a .mrxs is a JPEG of the label by its content) or not know."""
EXTRA = "wsi"
"""Of the installation that brings the library."""


def has_openslide() -> bool:
    """Tell whether openslide and its library can be loaded."""
    try:
        import openslide  # noqa: F401
    except (ImportError, OSError):
        return False
    return True


def is_openslide(path: Path) -> bool:
    """Tell whether openslide is there and knows the format of the file."""
    if not has_openslide():
        return False
    import openslide

    try:
        return openslide.OpenSlide.detect_format(path) is not None
    except openslide.OpenSlideError:
        return False


def require_openslide(path: Path) -> None:
    """Ask for the extra.

    Raises
    ------
    ImportError
        If openslide is not installed.
    """
    if not has_openslide():
        raise ImportError(f'"{path}" is read by openslide, which is not installed. Run {install_command(EXTRA)}.')


class OpenSlideImage(FileImage):
    """A slide that openslide reads, with its levels.

    Transparent pixels, which were never scanned, are white. Several threads may read at once: openslide allows it.
    Where sizes of levels are no quotients, openslide puts a region of a level in its place to within half a pixel of the
    full resolution.

    Parameters
    ----------
    path
        The file; of formats that consist of several files, the one that names the others.

    Raises
    ------
    ImportError
        If openslide is not installed.
    ValueError
        If openslide does not know the format, or the file is damaged.
    """

    def __init__(self, path: Path) -> None:
        require_openslide(path)
        import openslide

        super().__init__(path)
        self._slide: Any = None
        try:
            self._slide = openslide.OpenSlide(path)
        except openslide.OpenSlideUnsupportedFormatError as error:
            raise UnusableImageError(
                f'"{path}" ({path.stat().st_size:,} bytes) is no whole-slide file that openslide knows. '
                "Pass a JPEG, PNG or TIFF file, or a slide in the format of a scanner."
            ) from error
        except (openslide.OpenSlideError, OSError) as error:
            raise ValueError(f"{error}; or a file that belongs to it is missing") from error
        try:
            # Of the order of openslide's own numbers of levels.
            self.levels = make_levels(self._slide.level_dimensions)
            self.width, self.height = self.levels[0].width, self.levels[0].height
            self._downsamples = self._slide.level_downsamples
            found = self._find_mpp(openslide.PROPERTY_NAME_MPP_X, openslide.PROPERTY_NAME_MPP_Y)
            self.mpp, self.mpp_problem, _ = agreed([found])
        except BaseException:
            self.close()
            raise

    def _find_mpp(self, x_name: str, y_name: str) -> Resolution | None:
        """Read the resolution that the vendor's properties state."""
        properties = self._slide.properties
        return mpp_from_numbers(properties.get(x_name), properties.get(y_name), "the scanner's properties say")

    def _read(self, left: int, top: int, width: int, height: int) -> Pixels:
        return self._read_level(0, left, top, width, height)

    def read_level(self, level: int, left: int, top: int, width: int, height: int) -> Pixels:
        """Read a region that lies inside a level, in pixels of this level: uint8, height x width x 3."""
        check_region(self.levels[level], left, top, width, height)
        return read_region(self._path, partial(self._read_level, level), left, top, width, height)

    def _read_level(self, level: int, left: int, top: int, width: int, height: int) -> Pixels:
        if self._slide is None:
            raise self._closed()
        # openslide takes positions at full resolution and divides them by its own factor, whatever the pixels cover.
        origin = (round(left * self._downsamples[level]), round(top * self._downsamples[level]))
        region = self._slide.read_region(origin, level, (width, height))
        return np.ascontiguousarray(as_rgb(np.asarray(region)))

    def close(self) -> None:
        """Release the file."""
        if self._slide is not None:
            self._slide.close()
            self._slide = None
