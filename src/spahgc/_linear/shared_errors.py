"""What the errors of neighbouring spots and of several genes have in common, from references held out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from itertools import pairwise

import numpy as np
from scipy.sparse import csr_matrix
from scipy.spatial import cKDTree

from spahgc._spots.known import mean_where_known
from spahgc._spots.plane import spatial_blocks
from spahgc._spots.rows import Rows, mean_of, read

EDGES = (1.5, 2.5, 4.0, 6.0, 9.0)
"""Upper ends of the classes of distance, in spot pitches. A last class holds all pairs that lie further apart: what they
share, the whole slide shares."""

N_KINDS = 5
"""Kinds of tissue into which the reference spots are divided by what is predicted of them. Regions are of one kind, mostly, and
a prediction that is off in a kind of tissue is off in all of a region."""

KIND_COMPONENTS, KIND_STARTS = 10, 4
"""Principal components on which the kinds are told apart, and starts of k-means."""

N_PATTERNS = 20
"""Patterns over the genes in which errors are described that several genes share."""

MAX_SPOTS, MIN_SPOTS = 16_000, 400
"""Spots of all slides whose pairs are looked at, and least spots of each: contiguous parts of it, so that time and memory do not
grow with the slides."""

N_PARTS = 4
"""Parts of a larger slide from which these spots come."""

GENES_PER_LEVEL, MAX_LEVELS = 12, 12
"""Genes of similar level share a trend: at least so many each, in at most so many levels."""

MAX_FREEDOM = 100.0
"""Degrees of freedom beyond which a t distribution is taken for normal."""

SMALLEST = 1e-6
"""Mean square of standardised residuals below which a gene has no error to speak of."""


@dataclass(frozen=True)
class SharedErrors:
    """Correlation of the errors at two spots of one kind of tissue by their distance, and of the errors of two genes.

    Errors are residuals of references held out over their spread. They are not centred: what a whole slide, or all of a tissue,
    is off by is a part of them, and the one that no number of spots averages out.

    What a slide says nothing of, since it did not measure a gene, has no part in that gene's correlation, and none in the scores
    of the slide on the patterns.

    Parameters
    ----------
    correlation
        Of a gene's errors at two spots, genes x classes of distance, 0 to 1.
    loadings
        Of the genes on patterns that they share, genes x patterns.
    covariance
        Of the scores on these patterns, 1 + classes x patterns x patterns: at the same spot, and at two spots of each class.
    freedom
        Degrees of freedom of what whole slides are off by, one number: the groups that were held out, or more where they were
        off by the same amount.
    """

    correlation: np.ndarray
    loadings: np.ndarray
    covariance: np.ndarray
    freedom: np.ndarray

    @classmethod
    def fit(
        cls,
        measured: Rows,
        predicted: np.ndarray,
        spread: Callable[[np.ndarray], np.ndarray],
        xy: np.ndarray,
        slide: np.ndarray,
        group: np.ndarray | None = None,
    ) -> SharedErrors:
        """From held-out predictions.

        Parameters
        ----------
        measured, predicted
            Spots x genes, ``log1p`` counts per 10,000; spots of which all of ``predicted`` is NaN were not held out. Some slide
            says something of each gene.
        spread
            Gives the standard deviation of predictions, spots x genes.
        xy
            Spot centres, spots x 2, pixels.
        slide
            Name of each spot's slide.
        group
            Name of what was held out together with each spot, such as its patient; ``None``: its slide.
        """
        held_out = np.isfinite(predicted).any(axis=1)
        names = np.unique(slide[held_out])
        most = max(MAX_SPOTS // len(names), MIN_SPOTS)
        parts = [some_spots(xy, np.flatnonzero((slide == name) & held_out), most) for name in names]
        errors = [(read(measured, rows) - predicted[rows]) / spread(predicted[rows]) for rows in parts]
        square = mean_where_known(np.array([np.square(error).mean(axis=0) for error in errors]))
        errors = [(error / np.sqrt(np.maximum(square, SMALLEST))).astype(np.float32) for error in errors]
        kinds = kinds_of([predicted[rows] / np.sqrt(np.maximum(square, SMALLEST)) for rows in parts])
        pairs = [Pairs.of(xy[rows], kind) for rows, kind in zip(parts, kinds, strict=True)]
        products = np.array([pair.products(error) for pair, error in zip(pairs, errors, strict=True)])
        loadings = _patterns(pairs, [_without_nan(error) for error in errors])
        scores = [_without_nan(error) @ loadings for error in errors]
        covariance = _filled(_mean([pair.covariances(score) for pair, score in zip(pairs, scores, strict=True)]))
        correlation = _shrunk(products, _level(predicted, parts))
        groups = names if group is None else np.array([group[rows[0]] for rows in parts])
        return cls(correlation, loadings, covariance, np.array([_freedom(errors, kinds, groups)]))

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Plain arrays by name."""
        return {field.name: np.ascontiguousarray(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> SharedErrors:
        """The inverse of :meth:`to_arrays`."""
        return cls(**{field.name: arrays[field.name] for field in fields(cls)})


def _without_nan(values: np.ndarray) -> np.ndarray:
    """0 in the place of NaN."""
    unknown = np.isnan(values)
    return np.where(unknown, values.dtype.type(0), values) if unknown.any() else values


def _level(predicted: np.ndarray, parts: list[np.ndarray]) -> np.ndarray:
    """Mean of every gene's prediction over the spots of the slides that say something of it."""
    level = mean_of(predicted, np.concatenate(parts))
    missing = np.flatnonzero(np.isnan(level))
    if len(missing):
        means = np.array([mean_of(predicted, rows)[missing] for rows in parts])
        sizes = np.where(np.isnan(means), 0.0, np.array([len(rows) for rows in parts], dtype=np.float64)[:, None])
        level[missing] = (np.nan_to_num(means) * sizes).sum(axis=0) / np.maximum(sizes.sum(axis=0), 1)
    return level


def some_spots(xy: np.ndarray, rows: np.ndarray, most: int) -> np.ndarray:
    """At most so many of the rows: contiguous parts of a larger slide, spread over it."""
    if len(rows) <= most:
        return rows
    blocks = spatial_blocks(xy[rows], most // N_PARTS)
    chosen = np.linspace(0, len(blocks) - 1, N_PARTS).round().astype(np.int64)
    return rows[np.concatenate([blocks[i] for i in np.unique(chosen)])]


def pitch_of(xy: np.ndarray) -> float:
    """Median distance of a spot to its nearest one; 1 where there is no other."""
    if len(xy) < 2:
        return 1.0
    return float(np.median(cKDTree(xy).query(xy, k=2)[0][:, 1])) or 1.0


def kinds_of(predicted: list[np.ndarray]) -> list[np.ndarray]:
    """Kind of tissue of every spot of some slides by what is predicted of it, a number each.

    Parameters
    ----------
    predicted
        Spots x genes of each slide, on a scale on which genes are alike.
    """
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA

    # Slides as wholes are predicted differently, by those that they were held out from.
    values = _without_nan(np.concatenate([part - part.mean(axis=0) for part in predicted]))
    n = min(KIND_COMPONENTS, *values.shape)
    components = PCA(n, svd_solver="randomized", random_state=0).fit_transform(values)
    n_kinds = min(N_KINDS, len(np.unique(components, axis=0)))
    found = KMeans(n_kinds, n_init=KIND_STARTS, random_state=0).fit_predict(components)
    return np.split(found, np.cumsum([len(part) for part in predicted])[:-1])


@dataclass(frozen=True)
class Pairs:
    """Pairs of spots of one slide and one kind of tissue, by their distance.

    Parameters
    ----------
    near
        A graph for each class but the last, spots x spots.
    kinds
        Spots x kinds, 1 where the spot is of that kind.
    """

    near: tuple[csr_matrix, ...]
    kinds: np.ndarray

    @classmethod
    def of(cls, xy: np.ndarray, kind: np.ndarray) -> Pairs:
        """From spot centres, spots x 2, and the number of each spot's kind of tissue."""
        pitch = pitch_of(xy)
        tree, shape = cKDTree(xy), (len(xy), len(xy))
        pairs = tree.query_pairs(EDGES[-1] * pitch, output_type="ndarray")
        pairs = pairs[kind[pairs[:, 0]] == kind[pairs[:, 1]]]
        distance = np.linalg.norm(xy[pairs[:, 0]] - xy[pairs[:, 1]], axis=1) / pitch
        graphs = []
        for low, high in pairwise((-np.inf, *EDGES)):
            a, b = pairs[(distance > low) & (distance <= high)].T
            graphs.append(csr_matrix((np.ones(len(a), np.float32), (a, b)), shape=shape))
        return cls(tuple(graph + graph.T for graph in graphs), np.eye(kind.max() + 1, dtype=np.float32)[kind])

    def products(self, values: np.ndarray) -> np.ndarray:
        """Mean product of each column at the two spots of a pair, classes x columns; NaN where a class has no pair."""
        sums = [(values * (graph @ values)).sum(axis=0, dtype=np.float64) for graph in self.near]
        square = np.square(values).sum(axis=0, dtype=np.float64)
        sums.append(np.square(self.kinds.T @ values).sum(axis=0, dtype=np.float64) - square - np.sum(sums, axis=0))
        return _over(np.array(sums), self._counts()[:, None])

    def covariances(self, scores: np.ndarray) -> np.ndarray:
        """Mean outer product of the rows at the same spot and at the two spots of a pair, 1 + classes x columns x columns."""
        scores = scores.astype(np.float64)
        same, total = scores.T @ scores, self.kinds.T @ scores
        sums = [scores.T @ (graph @ scores) for graph in self.near]
        sums.append(total.T @ total - same - np.sum(sums, axis=0))
        found = _over(np.array(sums), self._counts()[:, None, None])
        return np.concatenate([same[None] / len(scores), (found + found.swapaxes(1, 2)) / 2])

    def neighbours(self, values: np.ndarray) -> np.ndarray:
        """Mean of the nearest spots' values."""
        degree = np.asarray(self.near[0].sum(axis=1)).ravel()
        return (self.near[0] @ values) / np.maximum(degree, 1)[:, None]

    def _counts(self) -> np.ndarray:
        counts = [graph.nnz for graph in self.near]
        of_kinds = self.kinds.sum(axis=0, dtype=np.float64)
        return np.array([*counts, (of_kinds * (of_kinds - 1)).sum() - sum(counts)], dtype=np.float64)


def _over(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Means; NaN where nothing was counted."""
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _mean(of_slides: list[np.ndarray]) -> np.ndarray:
    """Mean over the slides that have such pairs; NaN where none has."""
    stacked = np.array(of_slides)
    known = np.isfinite(stacked)
    return _over(np.where(known, stacked, 0.0).sum(axis=0), known.sum(axis=0).astype(np.float64))


def _filled(classes: np.ndarray) -> np.ndarray:
    """A class without any pair has what the next nearer one has, which is rather more."""
    filled = classes.copy()
    for i in range(len(filled)):
        filled[i] = np.where(np.isfinite(filled[i]), filled[i], filled[i - 1] if i else 0.0)
    return filled


def _patterns(pairs: list[Pairs], errors: list[np.ndarray]) -> np.ndarray:
    """Patterns of genes in the errors that neighbouring spots share, genes x patterns, orthonormal columns."""
    from sklearn.utils.extmath import randomized_svd

    # The mean of neighbours: what spots have for themselves, the noise of counting above all, mostly cancels.
    shared = np.concatenate([pair.neighbours(error) for pair, error in zip(pairs, errors, strict=True)])
    n = min(N_PATTERNS, *shared.shape)
    return np.ascontiguousarray(randomized_svd(shared, n, random_state=0)[2].T, dtype=np.float64)


def _shrunk(products: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Correlations by class from those on each slide (slides x classes x genes), shrunk towards genes of the same level.

    As far as the noise of few slides sets a gene apart from others of its level, it is not set apart (empirical Bayes).
    Negative correlations count as none: errors are not taken to offset each other.
    """
    own = _filled(_mean(list(products)))
    correlation = np.empty(own.T.shape)
    for i, row in enumerate(own):
        trend = _by_level(level, row)
        of_slides = products[np.isfinite(products[:, i]).any(axis=1), i]
        complete = np.isfinite(of_slides).all(axis=0)
        if not complete.all():  # few slides tell of their noise by genes that all of them measured
            of_slides = of_slides[:, complete] if complete.any() else of_slides[:1]
        total = float(np.square(row - trend).mean())
        noise = float(of_slides.var(axis=0, ddof=1).mean()) / len(of_slides) if len(of_slides) > 1 else total
        kept = max(1 - noise / total, 0.0) if total > 0 else 0.0
        correlation[:, i] = trend + kept * (row - trend)
    return np.clip(correlation, 0.0, 1.0)


def _by_level(level: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Mean over genes of similar level, interpolated at the level of every gene."""
    n_levels = int(np.clip(len(level) // GENES_PER_LEVEL, 1, MAX_LEVELS))
    groups = np.array_split(np.argsort(level, kind="stable"), n_levels)
    return np.interp(level, [level[genes].mean() for genes in groups], [values[genes].mean() for genes in groups])


def _freedom(errors: list[np.ndarray], kinds: list[np.ndarray], groups: np.ndarray) -> float:
    """Degrees of freedom of a t distribution for what a kind of tissue of a slide is off by.

    Groups of slides whose errors are of very different size make heavy tails: the squared size of a t distribution's scale has
    a squared coefficient of variation of about two over its degrees of freedom. Fewer than the number of groups are never
    taken.
    """
    of_slides = np.array([_squared_offsets(error, kind) for error, kind in zip(errors, kinds, strict=True)])
    squares = np.array([mean_where_known(of_slides[groups == name]) for name in np.unique(groups)])
    sizes = mean_where_known(squares / np.maximum(mean_where_known(squares), SMALLEST), axis=1)
    varied = float(sizes.var(ddof=1) / sizes.mean() ** 2) if len(sizes) > 1 and sizes.mean() > 0 else np.inf
    return float(np.clip(2 / max(varied, SMALLEST), len(sizes), MAX_FREEDOM))


def _squared_offsets(error: np.ndarray, kind: np.ndarray) -> np.ndarray:
    """Squared mean error of a slide's kinds of tissue, the mean over its spots, a number a gene."""
    means = [
        np.square(error[kind == one].mean(axis=0, dtype=np.float64)) * (kind == one).mean() for one in np.unique(kind)
    ]
    return np.sum(means, axis=0)
