"""Whether two slides are one, or parts of one: known again by what their spots look like, however either was changed.

A slide that is embedded again is not the same in its last digits; moved by a pixel, saved as JPEG, mirrored or turned it is
less so. What is left is that its spots still resemble their counterparts more than any other spot, and that these lie in the
same constellation. Of two different slides, even two sections cut one after the other, the most similar spots lie anywhere.
Neither looks at expression. Arrays alone, which are the same on all slides of a make, never make two slides one.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.spatial import KDTree

from spahgc._settings import limited_threads
from spahgc._slides.split import as_complex, shared_spots
from spahgc._spots.rows import LazyRows, Rows, read
from spahgc.pp._search.exact import cosine_neighbors

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SAME_SHARE = 0.35
"""Share of the spots compared, those of the smaller slide, from which on two slides are one. Measured with
``benchmarks/identity.py`` and EfficientNet-Lite0, alone and with its context, on slides of four cohorts: of one slide that was
embedded again, moved by up to 4 pixels, mirrored or saved as JPEG of quality 80, at least 0.57 lie in one constellation; of two
slides of one cohort at most 0.18, and at most 0.12 where 50 spots or more are compared."""

CLEARLY_CLOSER = 0.98
"""A spot counts for a constellation if the most similar spot is closer to it than this share of what the second one is. What
the two are on different slides: 0.97 in the middle."""

ALL_BUT_THE_SAME = 0.1
"""A spot is another one, seen again, if it is closer than this share to it of what it is to the second most similar spot.
Measured: below 0.001 where only last digits differ, above 0.7 for all spots of any two different slides. A patch of bare glass
resembles all others of its kind alike, and is none of them."""

MIN_SAME, MIN_IN_PLACE = 3, 8
"""Spots, at least, that are all but the same, and that lie in the same constellation; or all, of a slide of fewer."""

FREE_SPOTS = 3
"""Spots of a constellation that fit together by chance: two lay it down, and a third one lies near its place often."""

TOLERANCE = 0.1
"""How far from its place in a constellation a spot may lie, as a share of the distance between neighbouring spots."""

N_COMPARED = 100
"""Spots of the smaller slide, drawn at random, that are looked for on the larger one."""

N_TRIALS = 512
"""Pairs of spots that are tried as the base of a constellation. If a third of the spots lies in one, the chance to meet no
pair of them is below 1e-20."""


class Look(NamedTuple):
    """What is known of a slide without its expression.

    Parameters
    ----------
    z
        Image embedding, spots x dim, read in blocks.
    xy
        Spot centres, spots x 2, pixels.
    padded
        Spots whose patch reaches past the image, boolean; ``None`` where nobody knows. They look like their place on the
        image, whatever the tissue, and are not compared.
    patch
        Of an embedding with a context the encoder's own columns, spots x dim; ``None`` where there are no others.
    padded_around
        Spots of which any patch of the context reaches past the image, boolean; ``None`` where nobody knows.
    """

    z: Rows
    xy: np.ndarray
    padded: np.ndarray | None = None
    patch: Rows | None = None
    padded_around: np.ndarray | None = None


class Overlap(NamedTuple):
    """How many spots of one slide are found on another one, of how many that were compared."""

    n_same: int
    n_compared: int

    def __str__(self) -> str:
        return f"{self.n_same} of {self.n_compared} spots that were compared"


class _Centred(LazyRows):
    """Rows without what they all have in common, so that their directions tell them apart."""

    def __init__(self, rows: Rows, mean: np.ndarray) -> None:
        self.rows, self.mean = rows, mean

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the rows."""
        return self.rows.shape

    def __getitem__(self, rows: slice | np.ndarray, /) -> np.ndarray:
        return np.asarray(self.rows[rows], dtype=np.float32) - self.mean


def overlap(one: Look, other: Look) -> Overlap | None:
    """Spots that two slides have in common, if these make them one slide or parts of one; otherwise ``None``.

    A hundred spots of the smaller slide are compared with all of the larger one, which is read in blocks: 1.3e11
    multiplications for one of a million spots with 1,280 numbers each. Embeddings with a context are compared as a whole,
    in spots of which no patch reaches past the image, and then by the patch alone: on a small image all wide ones do.

    Parameters
    ----------
    one, other
        The slides. Embeddings of the same encoder, of any precision.
    """
    if one.patch is None or other.patch is None:
        return _overlap(one, other)
    whole = (look._replace(padded=_either(look.padded, look.padded_around)) for look in (one, other))
    return _overlap(*whole) or _overlap(one._replace(z=one.patch), other._replace(z=other.patch))


def _either(padded: np.ndarray | None, padded_around: np.ndarray | None) -> np.ndarray | None:
    """Spots of which some patch is known to reach past the image."""
    if padded is None or padded_around is None:
        return padded if padded_around is None else padded_around
    return padded | padded_around


def _overlap(one: Look, other: Look) -> Overlap | None:
    """The same by the numbers ``z`` of both."""
    small, large = sorted((one, other), key=lambda look: len(look.xy))
    if not len(small.xy) or len(large.xy) < 2:
        return None
    shared = shared_spots(small.xy, small.z, large.xy, large.z)
    if len(shared) >= SAME_SHARE * len(small.xy):
        return Overlap(len(shared), len(small.xy))
    chosen = compared_spots(small)
    if not len(chosen):
        return None
    found, ratio = _most_similar(small.z, chosen, large.z)
    if large.padded is not None:
        ratio = np.where(large.padded[found], 1.0, ratio)
    same = ratio < ALL_BUT_THE_SAME
    # A spot of the larger slide is one of the smaller, so those that resemble many do not count for each.
    n_same = len(np.unique(found[same]))
    n_in_place = _in_place(small.xy, chosen, large.xy, found, ratio < CLEARLY_CLOSER)
    n = len(chosen)
    if n_same < min(n, max(MIN_SAME, SAME_SHARE * n)):
        n_same = 0
    if n <= FREE_SPOTS or n_in_place < min(n, max(MIN_IN_PLACE, SAME_SHARE * n)):
        n_in_place = 0
    return Overlap(max(n_same, n_in_place), n) if n_same or n_in_place else None


def overlaps(looks: Mapping[str, Look]) -> Iterator[tuple[str, str, Overlap]]:
    """Any two of some slides, by name, that are one slide or parts of one."""
    for first, second in combinations(looks, 2):
        found = overlap(looks[first], looks[second])
        if found is not None:
            yield first, second, found


def compared_spots(look: Look) -> np.ndarray:
    """The spots of a slide that are looked for on another one, by number."""
    usable = np.arange(len(look.xy)) if look.padded is None else np.flatnonzero(~look.padded)
    return np.sort(np.random.default_rng(0).permutation(usable)[:N_COMPARED])


def _most_similar(z: Rows, chosen: np.ndarray, others: Rows) -> tuple[np.ndarray, np.ndarray]:
    """The most similar of other spots to each of those chosen, and its distance as a share of the second one's."""
    queries = np.asarray(read(z, chosen), dtype=np.float32)
    mean = queries.mean(axis=0, dtype=np.float64).astype(np.float32)
    with limited_threads(float(np.prod(queries.shape)) * others.shape[0]):
        near = cosine_neighbors(queries - mean, _Centred(others, mean), 2)
    columns, similarity = near.indices.reshape(-1, 2), near.data.reshape(-1, 2).astype(np.float64)
    order = np.argsort(-similarity, axis=1, kind="stable")
    distance = np.sqrt(np.maximum(0, 2 - 2 * np.take_along_axis(similarity, order, axis=1)))
    ratio = np.divide(distance[:, 0], distance[:, 1], out=np.ones(len(distance)), where=distance[:, 1] > 0)
    return np.take_along_axis(columns, order, axis=1)[:, 0], ratio


def _in_place(xy: np.ndarray, chosen: np.ndarray, other_xy: np.ndarray, found: np.ndarray, clear: np.ndarray) -> int:
    """How many of the spots found lie where one shift, turn, mirroring and scale puts those chosen, at most.

    Only those count of which it is ``clear`` that they are the most similar.
    """
    pitch, tolerance = _pitch(xy), TOLERANCE * _pitch(other_xy)
    here, there = as_complex(xy[chosen[clear]]), as_complex(other_xy[found[clear]])
    if not len(here):
        return 0
    pairs = np.random.default_rng(0).integers(len(here), size=(2, N_TRIALS))
    most = 0
    for seen in (here, here.conj()):
        step, step_there = (points[pairs[1]] - points[pairs[0]] for points in (seen, there))
        scale = np.divide(step_there, step, out=np.zeros_like(step), where=step != 0)
        # Where neighbours would fall upon each other, all spots would be in their place.
        kept = np.abs(scale) * pitch > 2 * tolerance
        base, scale = pairs[0, kept], scale[kept]
        placed = scale[:, None] * (seen - seen[base][:, None]) + there[base][:, None]
        most = max(most, int((np.abs(placed - there) <= tolerance).sum(axis=1).max(initial=0)))
    return most


def _pitch(xy: np.ndarray) -> float:
    """Distance to the nearest other spot, the median over spots."""
    return float(np.median(KDTree(xy).query(xy, k=2)[0][:, 1])) if len(xy) > 1 else 0.0
