"""Support: how well references cover what a spot looks like."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spahgc._spots.rows import MIN_SPREAD, Rows, Spots, mean_and_std, mean_of, read, slide_or_half

NEIGHBOR = 5
"""The distance of a spot is that to the reference spot of this rank: one odd reference spot makes no tissue known."""

MAX_ANCHORS = 3_000
"""Reference spots that are compared with, evenly from each slide; memory and time then do not grow with the bank."""

MIN_SUPPORT = 1e-9
"""Support is above 0 however far out a spot lies."""

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

    Parameters
    ----------
    anchors
        Indices of the reference spots that are compared with.
    centre, weight
        Of every dimension; the weight makes dimensions alike, and blocks of the embedding however wide they are.
    distances
        Of every anchor to the anchors of the other slides, ascending.
    """

    anchors: np.ndarray
    centre: np.ndarray
    weight: np.ndarray
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
        anchors = _evenly(slide)
        centre = mean_of(spots.z).astype(np.float32)
        weight = 1 / _spread_within(spots)
        for start, stop in blocks:
            weight[start:stop] /= np.sqrt(stop - start)
        known, slide = (_in_float(read(spots.z, anchors)) - centre) * weight, slide[anchors]
        distances = np.empty(len(anchors), dtype=known.dtype)
        for name in np.unique(slide):
            distances[slide == name] = _distance(known[slide == name], known[slide != name])
        found = cls(anchors, centre, weight, np.sort(distances))
        support = np.full(len(spots), np.nan)
        support[anchors] = found._share_as_far(distances)
        return found, support

    def __call__(self, z: Rows, reference_z: Rows) -> np.ndarray:
        """Support of spots, above 0 and at most 1, float64.

        It is the share of reference spots that lie at least as far from the other reference slides as the spot lies
        from the references, the spot itself counted among them. Below 0.05 the spot is further out than all but a
        twentieth of the reference spots. Spots of a further slide have 0.5 in the mean if it differs from the
        references as they do from each other; less if it comes from another patient or laboratory and they do not.

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
            support[block] = self._share_as_far(_distance((_in_float(z[block]) - self.centre) * self.weight, known))
        return support

    def _share_as_far(self, distance: np.ndarray) -> np.ndarray:
        as_far = len(self.distances) - np.searchsorted(self.distances, distance, side="left")
        furthest = self.distances[-1]
        # Beyond all reference spots it goes on falling: what is another tissue altogether is told from another patient.
        beyond = furthest / np.maximum(distance, furthest) if furthest > 0 else np.where(distance > 0, MIN_SUPPORT, 1.0)
        return np.asarray(np.maximum((1 + as_far) / (1 + len(self.distances)) * beyond, MIN_SUPPORT))


def _evenly(slide: np.ndarray) -> np.ndarray:
    """Indices of at most :data:`MAX_ANCHORS` spots, as many of each slide as it has or as is its part."""
    names = np.unique(slide)
    part = max(NEIGHBOR, MAX_ANCHORS // len(names))
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


def _distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Distance of every row of ``a`` to its :data:`NEIGHBOR`-th nearest row of ``b``, or the last one if fewer."""
    rank = min(NEIGHBOR, len(b)) - 1
    distances = []
    for start in range(0, len(a), DISTANCE_BLOCK_SPOTS):
        rows = a[start : start + DISTANCE_BLOCK_SPOTS]
        squares = np.square(rows).sum(axis=1)[:, None] + np.square(b).sum(axis=1) - 2 * rows @ b.T
        distances.append(np.partition(squares, rank, axis=1)[:, rank])
    return np.sqrt(np.maximum(np.concatenate(distances), 0))
