"""How far the spots of a target lie from those of its references, and these from each other, in the space of the embedding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from scipy.stats import mannwhitneyu

from spahgc._spots.rows import MIN_SPREAD, Rows, Spots, read, slide_or_half
from spahgc._spots.support import distances_between_slides, evenly, mean_over_blocks, nearest_distances

MAX_TARGET_SPOTS = 500
"""Spots of the target that are compared, evenly in their order."""
MAX_REFERENCE_SPOTS = 1_000
"""Spots of all references together that are compared, evenly from each; time then does not grow with the references."""
RANGE_QUANTILE = 0.95
"""Share of the references' own distances that is their range: beyond it is what few of their spots are."""
MIN_MEAN_DISTANCE = 1e-6
"""Distance between means of slides below which they are the same and nothing is divided by it."""


class Difference(NamedTuple):
    """How a target differs from one reference, or from all."""

    distance: float
    """Distance of the means of target and reference, over the median of such distances among the references; NaN where
    there is a single one, of which nobody knows how slides differ."""
    beyond: float
    """Share of the target's spots that lie further from it than 95 % of the spots of other references do, 0 to 1."""
    further: float
    """Probability that a spot of the target lies further from it than a spot of another reference, 0 to 1; .5: no difference."""
    p_value: float
    """One-sided Mann-Whitney U test of the same; spots side by side are alike, so that it is rather too small."""


@dataclass(frozen=True)
class Compared:
    """Spots of references in a space in which all dimensions, and all blocks of them, weigh alike.

    Parameters
    ----------
    centre, weight
        Of every dimension.
    blocks
        Columns that belong together, a row ``(start, stop)`` each.
    known
        Reference spots that are compared with, in that space, spots x dim.
    slide
        Name of the reference of each; a single reference acts as two halves.
    names
        Names of the references.
    """

    centre: np.ndarray
    weight: np.ndarray
    blocks: np.ndarray
    known: np.ndarray
    slide: np.ndarray
    names: tuple[str, ...]

    @classmethod
    def of(cls, references: Spots, blocks: Sequence[tuple[int, int]]) -> Compared:
        """From spots of all references, of which only the image is looked at, and of the image only some spots."""
        slide = slide_or_half(references)
        chosen = evenly(slide, MAX_REFERENCE_SPOTS)
        known, slide = np.asarray(read(references.z, chosen), dtype=np.float32), slide[chosen]
        centre = known.mean(axis=0)
        within = np.sqrt(np.mean([known[slide == name].var(axis=0) for name in np.unique(slide)], axis=0))
        weight = (1 / np.where(within < MIN_SPREAD, 1.0, within)).astype(np.float32)
        columns = np.asarray(blocks, dtype=np.int64)
        known = (known - centre) * weight
        median = np.median(distances_between_slides(known, slide, columns), axis=0)
        for (start, stop), size in zip(columns, median, strict=True):
            if size > MIN_MEAN_DISTANCE:
                weight[start:stop] /= size
                known[:, start:stop] /= size
        return cls(centre, weight, columns, known, slide, tuple(str(name) for name in np.unique(references.slide)))

    def differences(self, z: Rows) -> tuple[dict[str, Difference], Difference]:
        """Of a target with this embedding (spots x dim) to each reference by name, and to all of them together."""
        target = self.placed(z)
        centre, own = (
            target.mean(axis=0),
            mean_over_blocks(distances_between_slides(self.known, self.slide, self.blocks)),
        )
        if len(self.names) == 1:
            alone = self._difference(target, self.known, own, np.nan)
            return {self.names[0]: alone}, alone
        means = {name: self.known[self.slide == name].mean(axis=0) for name in self.names}
        pairs = [
            self._apart(means[one], means[other])
            for place, one in enumerate(self.names)
            for other in self.names[:place]
        ]
        from_others = [
            self._apart(mean, np.mean([means[other] for other in self.names if other != name], axis=0))
            for name, mean in means.items()
        ]
        apart = self._apart(centre, np.mean(list(means.values()), axis=0))
        together = self._difference(target, self.known, own, _relative(apart, from_others))
        each = {}
        for name, mean in means.items():
            of_it = self.slide == name
            others = self.distances(self.known[~of_it], self.known[of_it])
            apart = _relative(self._apart(centre, mean), pairs)
            each[name] = self._difference(target, self.known[of_it], others, apart)
        return each, together

    @cached_property
    def own(self) -> np.ndarray:
        """Distance of every reference spot from the spots of the other references."""
        return mean_over_blocks(distances_between_slides(self.known, self.slide, self.blocks))

    def placed(self, z: Rows) -> np.ndarray:
        """At most 500 spots of a slide with this embedding, evenly in their order, in the space of the references."""
        chosen = spread_evenly(z.shape[0], MAX_TARGET_SPOTS)
        return (np.asarray(read(z, chosen), dtype=np.float32) - self.centre) * self.weight

    def distances(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Distance of each spot of ``a`` from the spots ``b``, both in the space of the references."""
        return mean_over_blocks(nearest_distances(a, b, self.blocks))

    def _difference(self, target: np.ndarray, known: np.ndarray, own: np.ndarray, apart: float) -> Difference:
        distances = self.distances(target, known)
        test = mannwhitneyu(distances, own, alternative="greater")
        return Difference(
            apart,
            float((distances > np.quantile(own, RANGE_QUANTILE)).mean()),
            float(test.statistic) / (len(distances) * len(own)),
            float(test.pvalue),
        )

    def _apart(self, a: np.ndarray, b: np.ndarray) -> float:
        """Distance of two means, the geometric mean over blocks."""
        of_blocks = [np.linalg.norm(a[start:stop] - b[start:stop]) for start, stop in self.blocks]
        return float(mean_over_blocks(np.asarray(of_blocks)[None])[0])


def spread_evenly(n: int, n_chosen: int) -> np.ndarray:
    """Indices of at most so many of ``n`` things, evenly in their order."""
    return np.unique(np.linspace(0, n - 1, min(n, n_chosen)).round().astype(np.int64))


def _relative(apart: float, usual: Sequence[float]) -> float:
    return apart / max(float(np.median(usual)), MIN_MEAN_DISTANCE)
