"""Which of the images in a TIFF file is the slide."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import tifffile

from spahgc._validate import quoted
from spahgc.image._damage import UnusableImageError

BESIDE_THE_SLIDE = re.compile(r"(?<![a-z])(label|macro|thumbnail|overview|barcode|map)(?![a-z])", re.IGNORECASE)
"""Words in the name of an image that shows the paper label, the whole glass, or the slide once more as a small picture."""
DESCRIBED_AS_BESIDE = re.compile(r"^\s*(label|macro)\s", re.IGNORECASE | re.MULTILINE)
"""How Aperio's descriptions of such images begin, on their second line."""


def slide_series(series: Sequence[tifffile.TiffPageSeries], path: Path) -> int:
    """Number of the series that is the slide: told by what it is, and only then by its size.

    Label, macro image, overview and thumbnail are passed over, whatever their size, as is what the file marks as a
    reduced copy. Of what is left the largest counts.

    Raises
    ------
    UnusableImageError
        If there are several images and all of them lie beside a slide that is not there.
    ValueError
        If there is no image.
    """
    if not series:
        raise ValueError("it holds no image")
    indices = list(range(len(series)))
    if len(series) > 1:
        indices = [index for index in indices if not _lies_beside(series[index])]
        if not indices:
            names = [each.name or each.keyframe.description for each in series]
            raise UnusableImageError(
                f'"{path}" holds {len(series)} images, and all of them lie beside a slide: {quoted(names)}. Pass the file '
                "with the slide itself."
            )
        whole = [index for index in indices if not series[index].keyframe.is_reduced]
        indices = whole or indices
    return max(indices, key=lambda index: (_n_pixels(series[index]), -index))


def _lies_beside(series: tifffile.TiffPageSeries) -> bool:
    return bool(
        BESIDE_THE_SLIDE.search(series.name or "") or DESCRIBED_AS_BESIDE.search(series.keyframe.description or "")
    )


def _n_pixels(series: tifffile.TiffPageSeries) -> int:
    sizes = dict(zip(series.axes, series.shape, strict=True))
    return int(sizes.get("Y", 0)) * int(sizes.get("X", 0))
