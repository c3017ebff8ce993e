"""How well references cover what a spot looks like: distances in the space of the embedding, and how large they are among the references."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spahgc._spots.rows import MIN_SPREAD, Rows, Spots, mean_and_std, mean_of, read, slide_or_half

NEIGHBOR = 5
"""The distance of a spot is that to the reference spot of this rank: one odd reference spot makes no tissue known."""

MAX_ANCHORS = 3_000
"""Reference spots that are compared with, evenly from each slide; memory and time then do not grow with the bank."""

MIN_DISTANCE = 1e-6
"""Median distance below which a block is the same on all references and nothing is divided by it."""

LEAST_DISTANCE = 1e-3
"""Distances below this, in median distances between the references, count as this: the logarithm of 0 is infinite."""

DISTANCE_BLOCK_SPOTS = 1_024
"""Spots that are compared at a time."""


@dataclass(frozen=True)
class Support:
    """Distances in the space of the embedding, and how large they are between the references themselves.

    The space is that of the embedding itself, every dimension over its standard deviation within the reference slides,
    and not that of the principal axes on which the model predicts. The axes are those of the references: what only
    another tissue has lies across them and would not be seen. Nor is a slide standardised by itself, which would
    make a tissue that fills much of the slide look common. The price is that another stain counts as something new too,
    as far as it goes beyond the differences between the references.

    Every block of the embedding has nearest neighbours of its own, and a spot's distance is the geometric mean over blocks. A
    known tissue of another stain is then far in the blocks that show the stain, and an unknown one in all of them.

    Parameters
    ----------
    anchors
        Indices of the reference spots that are compared with.
    centre, weight
        Of every dimension; the weight makes dimensions alike, and the median distance between the references that of a
        block 1.
    blocks
        Columns of the embedding that belong together, a row ``(start, stop)`` each.
    distances
        Of every anchor to the anchors of the other slides, ascending.
    """

    anchors: np.ndarray
    centre: np.ndarray
    weight: np.ndarray
    blocks: np.ndarray
    distances: np.ndarray

    @classmethod
    def fit(cls, spots: Spots, blocks: tuple[tuple[int, int], ...]) -> Support:
        """From reference spots, of which only the image is looked at.

        Parameters
        ----------
        spots
            Spots of all references. A single slide acts as two halves.
        blocks
            Columns of the embedding that belong together, as ``(start, stop)``.
        """
        return cls.with_references(spots, blocks)[0]

    @classmethod
    def with_references(cls, spots: Spots, blocks: tuple[tuple[int, int], ...]) -> tuple[Support, np.ndarray]:
        """The same, and the support of every reference spot by the other slides; NaN where it is no anchor."""
        slide = slide_or_half(spots)
        anchors = evenly(slide, MAX_ANCHORS)
        centre = mean_of(spots.z).astype(np.float32)
        weight = 1 / _spread_within(spots)
        known, slide = (_in_float(read(spots.z, anchors)) - centre) * weight, slide[anchors]
        columns = np.asarray(blocks, dtype=np.int64)
        own = distances_between_slides(known, slide, columns)
        median = np.median(own, axis=0)
        median[median < MIN_DISTANCE] = 1.0
        for (start, stop), size in zip(columns, median, strict=True):
            weight[start:stop] /= size
        distances = mean_over_blocks(own / median)
        found = cls(anchors, centre, weight, columns, np.sort(distances))
        support = np.full(len(spots), np.nan)
        support[anchors] = found._of_distances(distances)
        return found, support

    def __call__(self, z: Rows, reference_z: Rows) -> np.ndarray:
        """Support of spots, above 0 and at most 1, float64.

        It is the share of reference spots that lie at least as far from the other reference slides as the spot lies
        from the references, the spot itself counted among them. Below 0.05 the spot is further out than all but a
        twentieth of the reference spots. A spot that is further out than all of them has the least such share times the
        ratio of the furthest one's distance to its own, so that spots of a tissue that no reference has stay below those
        of a known tissue on a slide that differs from the references as a whole. Spots of a further slide have 0.5 in the
        mean if it differs from the references as they do from each other; less if it comes from another patient or
        laboratory and they do not.

        Parameters
        ----------
        z
            Embedding of the spots, spots x dim; read in blocks.
        reference_z
            Embedding of all reference spots, in the order in which they were given to :meth:`fit`; only the anchors are
            read.
        """
        known = (_in_float(read(reference_z, self.anchors)) - self.centre) * self.weight
        support = np.empty(z.shape[0])
        for start in range(0, len(support), DISTANCE_BLOCK_SPOTS):
            block = slice(start, start + DISTANCE_BLOCK_SPOTS)
            distances = nearest_distances((_in_float(z[block]) - self.centre) * self.weight, known, self.blocks)
            support[block] = self._of_distances(mean_over_blocks(distances))
        return support

    def _of_distances(self, distance: np.ndarray) -> np.ndarray:
        as_far = len(self.distances) - np.searchsorted(self.distances, distance, side="left")
        beyond = np.divide(self.distances[-1], distance, out=np.ones_like(distance), where=as_far == 0)
        return (1 + as_far) / (1 + len(self.distances)) * beyond


def evenly(slide: np.ndarray, n: int) -> np.ndarray:
    """Indices of at most ``n`` spots, ascending, as many of each slide as it has or as is its part, at least five."""
    names = np.unique(slide)
    part = max(NEIGHBOR, n // len(names))
    chosen = []
    for name in names:
        rows = np.flatnonzero(slide == name)
        chosen.append(rows[np.linspace(0, len(rows) - 1, min(part, len(rows))).round().astype(np.int64)])
    return np.sort(np.concatenate(chosen))


def _spread_within(spots: Spots) -> np.ndarray:
    """Standard deviation of every dimension within a slide, the root mean square over slides, float32."""
    of_slides = [mean_and_std(spots.z, np.flatnonzero(spots.slide == name)).spread for name in np.unique(spots.slide)]
    spread = np.sqrt(np.mean(np.square(of_slides), axis=0))
    return np.where(spread < MIN_SPREAD, 1.0, spread).astype(np.float32)


def _in_float(z: np.ndarray) -> np.ndarray:
    return np.asarray(z, dtype=np.float32)


def mean_over_blocks(distances: np.ndarray) -> np.ndarray:
    """Geometric mean over blocks of distances (spots x blocks), one number a spot."""
    return np.exp(np.log(np.maximum(distances, LEAST_DISTANCE)).mean(axis=1))


def distances_between_slides(z: np.ndarray, slide: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    """Distance of every spot to the spots of the other slides, spots x blocks, float64."""
    distances = np.empty((len(z), len(blocks)))
    for name in np.unique(slide):
        own = slide == name
        distances[own] = nearest_distances(z[own], z[~own], blocks)
    return distances


def nearest_distances(a: np.ndarray, b: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    """Distance of every row of ``a`` to its :data:`NEIGHBOR`-th nearest row of ``b``, or the last one if fewer.

    Parameters
    ----------
    a, b
        Spots x dim.
    blocks
        Columns ``(start, stop)`` in which neighbours are looked for, one block after another.

    Returns
    -------
    Rows of ``a`` x blocks, float64.
    """
    rank, distances = min(NEIGHBOR, len(b)) - 1, np.empty((len(a), len(blocks)))
    for number, (start, stop) in enumerate(blocks):
        known = np.ascontiguousarray(b[:, start:stop])
        squares_of_known = np.square(known).sum(axis=1)
        for first in range(0, len(a), DISTANCE_BLOCK_SPOTS):
            rows = np.ascontiguousarray(a[first : first + DISTANCE_BLOCK_SPOTS, start:stop])
            squares = squares_of_known - 2 * rows @ known.T  # what a row has in common does not change the order
            nearest = np.argpartition(squares, rank, axis=1)[:, rank]
            # From the differences: by products the last digits depend on which spots are asked for together.
            part = np.square(rows - known[nearest]).sum(axis=1, dtype=np.float64)
            distances[first : first + len(rows), number] = np.sqrt(part)
    return distances
