"""Laying one picture over another: an affine transformation, and a smooth bend after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from spahgc.pp._register.picture import Matrix
from spahgc.pp._register.structure import Floats

N_INVERSIONS = 8
"""Iterations of the inverse of a bend, each of which leaves a fifth of the error or less."""


@dataclass(frozen=True, eq=False)
class Bend:
    """A smooth displacement that is left after the affine transformation, on a grid over the fixed picture.

    What lies at `x` on the fixed picture lies at ``x + displacement(x)`` on the moving one laid over it.
    """

    displacement: Floats
    """Pixels (x, y), rows x columns x 2."""
    spacing: float
    """Distance of the grid's nodes, pixels."""
    origin: tuple[float, float] = (0.0, 0.0)
    """Place (x, y) of its first node."""

    def at(self, xy: NDArray[np.float64]) -> NDArray[np.float64]:
        """Displacement at places (x, y); beyond the grid that of its border."""
        where = (xy - self.origin)[:, ::-1].T / self.spacing
        parts = [ndimage.map_coordinates(self.displacement[..., k], where, order=1, mode="nearest") for k in (0, 1)]
        return np.column_stack(parts)

    def undone(self, xy: NDArray[np.float64]) -> NDArray[np.float64]:
        """Places on the fixed picture of what was laid at `xy`."""
        place = xy.copy()
        for _ in range(N_INVERSIONS):
            place = xy - self.at(place)
        return place

    def after(self, more: Bend) -> Bend:
        """The bend and what was left of it, as one."""
        rows, columns = self.displacement.shape[:2]
        nodes = (
            np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), -1).reshape(-1, 2) * self.spacing + self.origin
        )
        left = more.at(np.asarray(nodes, dtype=np.float64))
        both = left + self.at(nodes + left)
        return Bend(both.reshape(rows, columns, 2).astype(np.float32), self.spacing, self.origin)


def lay(images: Sequence[Floats] | Floats, matrix: Matrix, shape: tuple[int, int], bend: Bend | None = None) -> Floats:
    """Lay images over another frame; what is not covered is 0.

    Parameters
    ----------
    images
        Images of one size.
    matrix
        From their pixels (x, y) to those of the frame.
    shape
        Height and width of the frame.
    bend
        Displacement in the frame.
    """
    back = np.linalg.inv(matrix)
    if bend is None:
        linear, shift = back[:2, :2][::-1, ::-1], back[:2, 2][::-1]
        return np.stack(
            [ndimage.affine_transform(image, linear, shift, output_shape=shape, order=1) for image in images]
        )
    rows, columns = np.indices(shape)
    places = np.column_stack([columns.ravel(), rows.ravel()]).astype(np.float64)
    places = (places + bend.at(places)) @ back[:2, :2].T + back[:2, 2]
    where = places[:, ::-1].T
    return np.stack([ndimage.map_coordinates(image, where, order=1).reshape(shape) for image in images])
