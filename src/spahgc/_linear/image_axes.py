"""What a spot and its surroundings look like on their slide, in a few numbers that mean the same on every slide."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spahgc._spots.rows import (
    NeighbourMeanRows,
    Rows,
    SlideScale,
    StandardizedRows,
    Views,
    mean_and_std,
    mean_of,
    principal_axes,
    scores_on_axes,
    sum_of_squared_scores,
)
from spahgc._spots.spots import Spots

AROUND_WEIGHT = 0.5
"""Weight of the surroundings beside the spot itself, whose expression is in question."""


@dataclass(frozen=True)
class ImageAxes:
    """Principal axes of the references' appearance, onto which every other slide is projected.

    Either every dimension of the embedding is standardised over the spots of its own slide, which takes away what stain
    and scanner add to a whole slide, and with it how slides differ in tissue; or over the spots of all references, which
    keeps both. The blocks of an embedding with context then weigh the same however many dimensions they have. The
    mean over the nearest spots of a slide is the appearance of the surroundings, with axes of its own.

    Parameters
    ----------
    means, axes
        Of the spots themselves and, if wanted, of the surroundings: dim, and dim x axes.
    blocks
        Columns of the embedding that belong together, as ``(start, stop)``.
    n_around
        Nearest spots that are the surroundings; 0 for none.
    size
        Root mean square of the references' numbers, by which all are divided.
    scale
        Mean and spread of every dimension over all references; ``None`` where slides are standardised by themselves.
    """

    means: tuple[np.ndarray, ...]
    axes: tuple[np.ndarray, ...]
    blocks: tuple[tuple[int, int], ...]
    n_around: int
    size: float
    scale: SlideScale | None

    @classmethod
    def fit(
        cls, spots: Spots, blocks: tuple[tuple[int, int], ...], *, n_axes: int, n_around: int, by_slide: bool = True
    ) -> tuple[ImageAxes, np.ndarray]:
        """Axes of some reference spots, and where these spots lie on them (spots x axes, float32)."""
        scale = None if by_slide else mean_and_std(spots.z, np.arange(len(spots)))
        views = _views(spots, blocks, n_around, scale)
        parts: tuple[Rows, ...] = views
        means = tuple(mean_of(part) for part in parts)
        axes = tuple(principal_axes(part, n_axes, mean) for part, mean in zip(parts, means, strict=True))
        squares = sum_of_squared_scores(views, means, axes)
        size = float(np.sqrt(squares / len(spots) / sum(part.shape[1] for part in axes))) or 1.0
        image_axes = cls(means, axes, blocks, n_around, size, scale)
        return image_axes, scores_on_axes(views, means, axes, size)

    def transform(self, spots: Spots) -> np.ndarray:
        """Spots x axes, float32. Slides must be complete where they are standardised by themselves."""
        views = _views(spots, self.blocks, self.n_around, self.scale)
        return scores_on_axes(views, self.means, self.axes, self.size)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """All that it is made of, by name."""
        scale = {} if self.scale is None else {"scale.mean": self.scale.mean, "scale.spread": self.scale.spread}
        return scale | {
            **{f"mean.{i}": mean for i, mean in enumerate(self.means)},
            **{f"axes.{i}": axes for i, axes in enumerate(self.axes)},
            "blocks": np.array(self.blocks),
            "n_around": np.array(self.n_around),
            "size": np.array(self.size),
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> ImageAxes:
        """The inverse of :meth:`to_arrays`."""
        views = range(sum(name.startswith("mean.") for name in arrays))
        return cls(
            tuple(arrays[f"mean.{i}"] for i in views),
            tuple(arrays[f"axes.{i}"] for i in views),
            tuple((int(start), int(stop)) for start, stop in arrays["blocks"]),
            arrays["n_around"].item(),
            arrays["size"].item(),
            SlideScale(arrays["scale.mean"], arrays["scale.spread"]) if "scale.mean" in arrays else None,
        )


def _views(spots: Spots, blocks: tuple[tuple[int, int], ...], n_around: int, scale: SlideScale | None) -> Views:
    """The spots as they look on their slide and, if wanted, their surroundings."""
    own = StandardizedRows.fit(spots.z, spots.slide, blocks, scale)
    return (own, NeighbourMeanRows.fit(own, spots.xy, spots.slide, n_around, AROUND_WEIGHT)) if n_around else (own,)
