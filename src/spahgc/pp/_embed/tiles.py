"""Tiles that points share which lie denser than patches, so that one pass through the encoder serves all of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spahgc.encoders._areas import Areas
from spahgc.pp._embed.spot_areas import SpotAreas

STEP = 0.4
"""Least distance of neighbouring tiles, in their widths. The nearer they lie, the more the tile of a point is its own patch, and
the more of them there are."""
STEP_UM = 64.0
"""Least distance of neighbouring tiles, microns: on a hexagonal grid of 20 um then twelve points share a tile."""
WIDEST_STEP = 0.6
"""Largest distance of neighbouring tiles, in their widths: every point lies in the inner part of its tile, at least a fifth of its
width from where it ends."""
SAMPLING = f"areas in shared tiles, {STEP:g} patches or {STEP_UM:g} um apart"
"""How the encoder record calls it."""


def step_of(width_px: float, mpp: float | None) -> float:
    """Distance of neighbouring tiles, in their widths."""
    least = STEP if mpp is None else STEP_UM / (width_px * mpp)
    return min(max(STEP, least), WIDEST_STEP)


@dataclass(frozen=True, eq=False)
class Tiles:
    """Tiles as wide as the encoder's patch, and the points of each.

    Points share a tile that lie in the same square of a grid. It lies around the middle of the box that holds them: a point
    that has a tile for itself, as where spots lie farther apart, is in its very centre.
    """

    centres: NDArray[np.float64]
    """Tiles x 2, (x, y), pixels of the image."""
    points: NDArray[np.int64]
    """All points, tile by tile."""
    starts: NDArray[np.int64]
    """Where the points of each tile begin in `points`, and at last their number."""
    width_px: float
    """Width of a tile, pixels of the image."""

    @classmethod
    def around(cls, xy: NDArray[np.float64], width_px: float, mpp: float | None) -> Tiles:
        """Share tiles among points.

        Parameters
        ----------
        xy
            Points x 2, pixels of the image.
        width_px
            Width of a tile, pixels of the image.
        mpp
            Microns per pixel of the image, if known.
        """
        squares = np.floor(xy / (step_of(width_px, mpp) * width_px)).astype(np.int64)
        _, tile = np.unique(squares[:, ::-1], axis=0, return_inverse=True)  # row by row
        tile = tile.reshape(-1)
        points = np.argsort(tile, kind="stable")
        starts = np.searchsorted(tile[points], np.arange(tile.max() + 2))
        low, high = (bound.reduceat(xy[points], starts[:-1]) for bound in (np.minimum, np.maximum))
        return cls((low + high) / 2, points, starts, width_px)

    def __len__(self) -> int:
        return len(self.centres)

    def points_of(self, tiles: NDArray[np.int64]) -> NDArray[np.int64]:
        """Points of some tiles, tile by tile."""
        lengths = self.n_points[tiles]
        ends = np.cumsum(lengths)
        return self.points[np.arange(lengths.sum()) + np.repeat(self.starts[tiles] - ends + lengths, lengths)]

    @property
    def n_points(self) -> NDArray[np.int64]:
        """Points of each tile."""
        return np.diff(self.starts)

    def areas(self, tiles: NDArray[np.int64], spots: SpotAreas) -> Areas:
        """Areas of the points of some tiles within them.

        What of an area lies outside of its tile does not count; the centre of a point never does.
        """
        points = self.points_of(tiles)
        tile = np.repeat(np.arange(len(tiles)), self.n_points[tiles])
        places, within = spots.places(points)
        inside = (places - self.centres[tiles][tile][:, None]) / self.width_px + 0.5
        counts = within & ((inside >= 0) & (inside <= 1)).all(axis=2)
        lost = ~counts.any(axis=1)
        centre = (spots.xy[points] - self.centres[tiles][tile]) / self.width_px + 0.5
        inside[lost, 0], counts[lost, 0] = centre[lost], True
        return Areas(tile, inside, counts)

    def all_done(self, done: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Tiles all of whose points are done."""
        return np.logical_and.reduceat(done[self.points], self.starts[:-1])
