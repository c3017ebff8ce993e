"""Whether a full-resolution image shows what its reduced version shows, and which turn it needs if it does not."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spahgc._logging import warn
from spahgc.image._array import ArrayImage
from spahgc.image._levels import at_level
from spahgc.image._resample import resample
from spahgc.image._source import ImageSource, Pixels

MIN_SIMILARITY = 0.85
"""Pearson correlation of the brightness of two pictures below which they are not of the same section.

The right picture gives about 1, and 0.97 at another gamma; other sections in the same frame, and turned copies, gave 0.4 to
0.8 on measured slides."""
SURE_TURN = 0.95
"""Correlation at which a turned or mirrored picture is the one, if the picture as it is correlates less by `TURN_GAIN`."""
TURN_GAIN = 0.05
MIN_CONTRAST = 2.0
"""Standard deviation of the brightness, of 255, below which a picture is blank and cannot be compared."""
CELLS, SPARSE_CELLS = 64, 32
"""Cells along the longest side whose brightness is compared; fewer where an image has to be read in samples."""
MAX_READ_PIXELS = 32 * 10**6
"""Pixels that are read to compare. Of an image without a level that small, a part of each cell is read."""

TURNS = {
    "turned by 90 degrees counter-clockwise": lambda pixels: np.rot90(pixels, 1),
    "turned by 180 degrees": lambda pixels: np.rot90(pixels, 2),
    "turned by 90 degrees clockwise": lambda pixels: np.rot90(pixels, 3),
    "mirrored left to right": lambda pixels: pixels[:, ::-1],
    "mirrored top to bottom": lambda pixels: pixels[::-1],
    "mirrored along the diagonal (x and y swapped)": lambda pixels: np.swapaxes(pixels, 0, 1),
    "mirrored along the other diagonal": lambda pixels: np.swapaxes(np.rot90(pixels, 2), 0, 1),
}
"""What may have been done to a picture, done to its reduced version."""


@dataclass(frozen=True)
class Comparison:
    """How alike two pictures are."""

    similarity: float | None
    """Pearson correlation of their brightness; ``None`` where one of them is blank."""
    turn: str | None = None
    """What was done to the image, if that explains it."""
    one_is_blank: bool = False
    """Only one of the two is blank."""


def refuse_other_picture(image: ImageSource, hires: Pixels, scale: float, name: str) -> None:
    """Refuse an image that does not show what its reduced version shows: another section, or a turned copy.

    An image without levels is read in samples if it is large, so that memory and time stay bounded.

    Parameters
    ----------
    image
        The full-resolution image.
    hires
        Its reduced version, uint8, height x width x 3.
    scale
        Pixels of `hires` for one of `image`.
    name
        What messages call the image.

    Raises
    ------
    ValueError
        If brightness correlates by less than 0.85, or a turned or mirrored version fits better.

    Warns
    -----
    UserWarning
        If only one of the two is blank, so that nobody can tell.
    """
    found = compare_pictures(image, hires, scale)
    if found.one_is_blank:
        warn(
            f"{name} and the hires image of the slide cannot be compared: one of them is blank. Check that they are the "
            "same picture.",
            stacklevel=2,
        )
    if found.similarity is None or (found.similarity >= MIN_SIMILARITY and found.turn is None):
        return
    measured = f"their brightness correlates by {found.similarity:.2f}, where the right one gives about 1"
    if found.turn is not None:
        raise ValueError(
            f"{name} is the picture of the hires image, but {found.turn} ({measured}), so the coordinates do not fit it. "
            "Pass the image as Space Ranger, or whoever measured the coordinates, got it."
        )
    raise ValueError(
        f"{name} is not the picture of which the hires image was made: {measured} (at least {MIN_SIMILARITY:g} is asked "
        "for). Is it another section, or another capture area? Pass the image that the coordinates were measured on."
    )


def compare_pictures(image: ImageSource, hires: Pixels, scale: float) -> Comparison:
    """Compare the brightness of an image and of its reduced version, cell by cell.

    Parameters
    ----------
    image
        The full-resolution image.
    hires
        Its reduced version, uint8, height x width x 3.
    scale
        Pixels of `hires` for one of `image`.
    """
    height, width = hires.shape[:2]
    # What one of them has more than the other, at the right or the bottom, has no partner.
    shared = (min(image.width, width / scale), min(image.height, height / scale))
    part, cells = _share_to_read(image, max(shared) / CELLS)
    grid = _grid(shared, min(cells, max(1, int(max(shared) * min(scale, 1.0)))))
    seen = _brightness(image, shared, grid, part)
    expected = _brightness(ArrayImage(hires), (shared[0] * scale, shared[1] * scale), grid, part)
    blank = [bool(values.std() < MIN_CONTRAST) for values in (seen, expected)]
    if any(blank):
        return Comparison(None, one_is_blank=not all(blank))
    similarity = _correlation(seen, expected)
    if similarity >= SURE_TURN:
        return Comparison(similarity)
    # Of a turned copy all is compared: its sides may have changed places.
    whole = (float(image.width), float(image.height))
    seen = seen if shared == whole else _brightness(image, whole, grid, part)
    best, turn = 0.0, None
    for name, turned in TURNS.items():
        pixels = np.ascontiguousarray(turned(hires))
        other = _correlation(seen, _brightness(ArrayImage(pixels), (pixels.shape[1], pixels.shape[0]), grid, part))
        if other > best:
            best, turn = other, name
    return Comparison(similarity, turn if best >= SURE_TURN and similarity < best - TURN_GAIN else None)


def _share_to_read(image: ImageSource, pixel_side: float) -> tuple[float, int]:
    """Which share of a cell's side is read, and how many cells there are along the longest side."""
    source = at_level(image, pixel_side)
    share = math.sqrt(MAX_READ_PIXELS / (source.width * source.height))
    return (1.0, CELLS) if share >= 1 else (share, SPARSE_CELLS)


def _grid(size: tuple[float, float], cells: int) -> tuple[int, int]:
    """Columns and rows of about square cells."""
    columns, rows = (max(1, round(cells * side / max(size))) for side in size)
    return columns, rows


def _brightness(
    image: ImageSource, size: tuple[float, float], grid: tuple[int, int], part: float
) -> NDArray[np.float64]:
    """Mean brightness of each cell of the upper left `size` of an image, rows x columns, 0 to 255."""
    columns, rows = grid
    if part == 1.0:
        return np.asarray(resample(image, (0.0, 0.0, *size), grid, "area").mean(axis=2), dtype=np.float64)
    width, height = size[0] / columns, size[1] / rows
    values = np.empty((rows, columns))
    for row in range(rows):
        for column in range(columns):
            x, y = (column + 0.5) * width, (row + 0.5) * height
            half = (part * width / 2, part * height / 2)
            box = (x - half[0], y - half[1], x + half[0], y + half[1])
            values[row, column] = resample(image, box, (1, 1), "area").mean()
    return values


def _correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])
