"""What is looked at of a slide: a small picture of its tissue, and where that lies on the full-resolution image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial import KDTree

from spahgc._spots.pitch import spot_pitch
from spahgc.image._source import Pixels

Matrix = NDArray[np.float64]
"""Affine transformation of (x, y, 1), 3 x 3."""

MAX_SIDE_PX = 320
"""Longest side of a picture: 20 um a pixel on a section of 6.4 mm, 200 kB at most."""
MIN_PIXEL_UM = 20.0
"""Width of a pixel of a picture, where the resolution is known: cells are below it, and no two sections share them."""
REACH_PITCHES = 1.25
"""Distance from the nearest spot up to which tissue belongs to the slide, in distances of neighbouring spots: several
sections may lie on one image."""
NOMINAL_SIDE_UM = 6000.0
"""Longest side that a section is thought to have where nothing tells the resolution, an array of 6.5 mm filled."""
NOMINAL_PITCH_UM = 100.0
"""Distance that spots are thought to have where nothing but their coordinates tells the resolution."""
MIN_SIDE_PX = 16
"""Sides below which a picture shows nothing that could be compared."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A small picture of one section, without what else lies on its image.

    Parameters
    ----------
    rgb
        uint8, height x width x 3.
    inside
        Which pixels belong to the slide, bool, height x width; ``None`` for all of them.
    origin
        Upper left corner of the picture ``(x, y)``, in pixels of the full-resolution image: pixel i covers [i, i + 1).
    scale
        Full-resolution pixels for one pixel of the picture.
    mpp
        Microns per pixel of the full-resolution image, if known.
    pitch_px
        Distance of neighbouring spots in full-resolution pixels, if known; stands in for `mpp`.
    """

    rgb: Pixels
    inside: NDArray[np.bool_] | None = None
    origin: tuple[float, float] = (0.0, 0.0)
    scale: float = 1.0
    mpp: float | None = None
    pitch_px: float | None = None

    @property
    def pixel_um(self) -> float:
        """Width of a pixel of the picture in microns, as far as anything tells."""
        if self.mpp is not None:
            return self.mpp * self.scale
        if self.pitch_px is not None:
            return NOMINAL_PITCH_UM * self.scale / self.pitch_px
        return NOMINAL_SIDE_UM / max(self.rgb.shape[:2])

    @property
    def to_full(self) -> Matrix:
        """From centres of the picture's pixels to pixels of the full-resolution image."""
        shift = np.asarray(self.origin) + self.scale / 2
        return np.array([[self.scale, 0, shift[0]], [0, self.scale, shift[1]], [0, 0, 1.0]])

    def to_record(self) -> dict[str, Any]:
        """Arrays and numbers that ``uns`` can hold on disk; :meth:`from_record` makes the picture of them again."""
        record: dict[str, Any] = {"rgb": self.rgb, "origin": np.asarray(self.origin), "scale": float(self.scale)}
        if self.inside is not None:
            record["inside"] = np.packbits(self.inside, axis=1)
        for name in ("mpp", "pitch_px"):
            value = getattr(self, name)
            if value is not None:
                record[name] = float(value)
        return record

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Picture:
        """The picture of which :meth:`to_record` made a record."""
        rgb = np.asarray(record["rgb"], dtype=np.uint8)
        packed = record.get("inside")
        inside = None
        if packed is not None:
            inside = np.unpackbits(np.asarray(packed, dtype=np.uint8), axis=1, count=rgb.shape[1]).astype(bool)
        x, y = (float(value) for value in record["origin"])
        known = {name: float(record[name]) for name in ("mpp", "pitch_px") if record.get(name) is not None}
        return cls(rgb, inside, (x, y), float(record["scale"]), **known)


def cut_picture(
    rgb: Pixels,
    scale: float,
    xy: NDArray[np.float64] | None,
    *,
    mpp: float | None,
    origin: tuple[float, float] = (0, 0),
) -> Picture:
    """Cut a slide's own tissue out of a picture, and make it small.

    Parameters
    ----------
    rgb
        The whole image, or a reduced version of it, uint8, height x width x 3.
    scale
        Full-resolution pixels for one pixel of it.
    xy
        Spot centres (x, y) in full-resolution pixels: what lies farther from all of them than 1.25 times their
        distance does not belong to the slide. ``None`` keeps all.
    mpp
        Microns per pixel of the full-resolution image, if known.
    origin
        Upper left corner of `rgb` in full-resolution pixels.
    """
    height, width = rgb.shape[:2]
    left, top, right, bottom = 0, 0, width, height
    pitch = None if xy is None else spot_pitch(xy)
    if xy is not None and pitch is not None:
        reach = REACH_PITCHES * pitch
        low, high = (xy.min(0) - reach - origin) / scale, (xy.max(0) + reach - origin) / scale
        left, top = (int(max(np.floor(edge), 0)) for edge in low)
        right, bottom = min(int(np.ceil(high[0])), width), min(int(np.ceil(high[1])), height)
    if right - left < 1 or bottom - top < 1:
        raise ValueError("the spots lie outside the image.")
    sides = np.array([right - left, bottom - top], dtype=np.float64)
    factor = max(1.0, sides.max() / MAX_SIDE_PX)
    if mpp is not None:
        factor = max(factor, MIN_PIXEL_UM / (mpp * scale))
    size = np.maximum(np.floor(sides / factor), 1).astype(int)
    box = (float(left), float(top), left + min(size[0] * factor, sides[0]), top + min(size[1] * factor, sides[1]))
    small = np.asarray(Image.fromarray(rgb).resize((int(size[0]), int(size[1])), Image.Resampling.BOX, box=box)).copy()
    corner = (origin[0] + left * scale, origin[1] + top * scale)
    picture = Picture(small, None, corner, scale * factor, mpp, pitch)
    if xy is None or pitch is None:
        return picture
    rows, columns = np.indices(small.shape[:2])
    places = np.column_stack([columns.ravel(), rows.ravel(), np.ones(rows.size)]) @ picture.to_full[:2].T
    near = KDTree(xy).query(places, distance_upper_bound=REACH_PITCHES * pitch)[0]
    return Picture(small, np.isfinite(near).reshape(rows.shape), corner, scale * factor, mpp, pitch)
