"""Whole-slide files of all vendors, through openslide."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from spahgc.image._colour import as_rgb
from spahgc.image._levels import make_levels
from spahgc.image._mpp import plausible_mpp
from spahgc.image._source import ClosesItself, Pixels, check_region

ENDINGS = (".mrxs", ".vms", ".vmu", ".dcm", ".czi")
"""Names of slides that another reader would mistake (a .mrxs is a JPEG of the label by its content) or not know."""
INSTALL = 'pip install "spahgc[wsi]"'


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
        raise ImportError(f'"{path}" is read by openslide, which is not installed. Run {INSTALL}.')


class OpenSlideImage(ClosesItself):
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

        self._path = path
        self._slide: Any = None
        try:
            self._slide = openslide.OpenSlide(path)
        except openslide.OpenSlideUnsupportedFormatError as error:
            raise ValueError(
                f'"{path}" ({path.stat().st_size:,} bytes) is no whole-slide file that openslide knows. '
                "Pass a JPEG, PNG or TIFF file, or a slide in the format of a scanner."
            ) from error
        except (openslide.OpenSlideError, OSError) as error:
            raise _damaged(path, error) from error
        self._errors: tuple[type[Exception], ...] = (openslide.OpenSlideError,)
        # Of the order of openslide's own numbers of levels.
        self.levels = make_levels(self._slide.level_dimensions)
        self.width, self.height = self.levels[0].width, self.levels[0].height
        self._downsamples = self._slide.level_downsamples
        self.mpp = self._find_mpp(openslide.PROPERTY_NAME_MPP_X, openslide.PROPERTY_NAME_MPP_Y)

    def _find_mpp(self, x_name: str, y_name: str) -> float | None:
        """Read the resolution that the vendor's properties state."""
        try:
            properties = self._slide.properties
            return plausible_mpp(float(properties[x_name]), float(properties[y_name]))
        except (KeyError, ValueError):
            return None

    def read(self, left: int, top: int, width: int, height: int) -> Pixels:
        """Read a region of the full resolution: uint8, height x width x 3."""
        return self.read_level(0, left, top, width, height)

    def read_level(self, level: int, left: int, top: int, width: int, height: int) -> Pixels:
        """Read a region that lies inside a level, in pixels of this level: uint8, height x width x 3."""
        check_region(self.levels[level], left, top, width, height)
        if self._slide is None:
            raise ValueError(f'the image "{self._path}" is closed; open it again with open_image')
        # openslide takes positions at full resolution and divides them by its own factor, whatever the pixels cover.
        origin = (round(left * self._downsamples[level]), round(top * self._downsamples[level]))
        try:
            region = self._slide.read_region(origin, level, (width, height))
        except self._errors as error:
            raise _damaged(self._path, error) from error
        return np.ascontiguousarray(as_rgb(np.asarray(region)))

    def close(self) -> None:
        """Release the file."""
        if self._slide is not None:
            self._slide.close()
            self._slide = None


def _damaged(path: Path, error: Exception) -> ValueError:
    """Name a file that openslide could not read."""
    return ValueError(
        f'the slide "{path}" ({path.stat().st_size:,} bytes) cannot be read: {error}. '
        "It is damaged or was not copied to its end, or a file that belongs to it is missing; copy it again."
    )
