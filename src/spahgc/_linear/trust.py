"""References held out in turn, and what they tell: which genes can be trusted, by how much a value is off, which tissue is known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from spahgc._linear.low_rank import GeneComponents
from spahgc._linear.node_features import ImageRidge, fit_components
from spahgc._linear.shared_errors import SharedErrors
from spahgc._parameters import Parameters
from spahgc._spots.rows import MIN_SPREAD, Rows, SomeRows, Spots, blocks_of, mean_and_std, mean_of, read, slide_or_half

MAX_GROUPS = 5
"""Groups of references that are held out, so that the work does not grow with the square of their number."""

NEIGHBOR = 5
"""The distance of a spot is that to the reference spot of this rank: one odd reference spot makes no tissue known."""

MAX_ANCHORS = 3_000
"""Reference spots that are compared with, evenly from each slide; memory and time then do not grow with the bank."""

DISTANCE_BLOCK_SPOTS = 1_024
"""Spots that are compared at a time."""

MAX_PCC = 1 - 1e-6
"""Correlations beyond this are taken for it: Fisher's z of 1 is infinite."""

NORMAL_95 = 1.959964
"""Standard errors to either side of a mean that are its 95 % interval."""

GENES_PER_LEVEL, MAX_LEVELS = 12, 12
"""Genes of similar level share a trend: at least so many each, in at most so many levels."""

MIN_VARIANCE = MIN_SPREAD**2
"""Variance of a residual, in squared ``log1p`` units, below which there is none."""

MAX_LOG_RATIO = 3.0
"""A gene's variance differs from that of other genes of its level by at most this, in natural logarithms."""

MAX_LOG_SLOPE = 0.5
"""A spot's variance differs from that of the gene by at most this, in natural logarithms: 28 % of the spread."""


@dataclass(frozen=True)
class HeldOut:
    """A reference, one half of a single one, or a group of them, predicted by the others.

    Nothing of its expression has a part in it: axes, components and line are those of the other references.

    Parameters
    ----------
    rows
        Its spots.
    components
        Components of the others.
    scores
        Scores on them that the line gives to its spots, spots x components.
    """

    rows: np.ndarray
    components: GeneComponents
    scores: np.ndarray

    def predicted(self) -> np.ndarray:
        """The panel, spots x genes, ``log1p`` counts per 10,000, float32."""
        return self.components.panel(self.scores)


def hold_out_each(spots: Spots, blocks: tuple[tuple[int, int], ...], parameters: Parameters) -> Iterator[HeldOut]:
    """Hold out every reference once: one after another, or in five groups where there are more.

    Groups are of neighbouring names, which are often sections of one patient. Each is made when it is asked for, so that
    the expression of the others is copied for one of them at a time; their embedding never is.

    Parameters
    ----------
    spots
        Spots of all references.
    blocks
        Columns of the embedding that belong together.
    parameters
        How the line is made.
    """
    members = slide_or_half(spots)
    groups = np.array_split(np.unique(members), min(MAX_GROUPS, len(np.unique(members))))
    for names in groups:
        held_out = np.isin(members, names)
        yield _hold_out(spots, np.flatnonzero(held_out), np.flatnonzero(~held_out), blocks, parameters)


def _hold_out(
    spots: Spots,
    rows: np.ndarray,
    others: np.ndarray,
    blocks: tuple[tuple[int, int], ...],
    parameters: Parameters,
) -> HeldOut:
    known = spots.part(others)
    unseen = replace(Spots.without_expression(SomeRows(spots.z, rows), spots.xy[rows]), slide=spots.slide[rows])
    components = fit_components(known, parameters)
    ridge = ImageRidge.fit(known, blocks, components, parameters)
    return HeldOut(rows, components, ridge.predict(unseen))


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
        slide = slide_or_half(spots)
        anchors = _evenly(slide)
        centre = mean_of(spots.z).astype(np.float32)
        weight = 1 / _spread_within(spots)
        for start, stop in blocks:
            weight[start:stop] /= np.sqrt(stop - start)
        known, slide = (_in_float(read(spots.z, anchors)) - centre) * weight, slide[anchors]
        distances = [_distance(known[slide == name], known[slide != name]) for name in np.unique(slide)]
        return cls(anchors, centre, weight, np.sort(np.concatenate(distances)))

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
        as_far = np.empty(z.shape[0], dtype=np.int64)
        for start in range(0, len(as_far), DISTANCE_BLOCK_SPOTS):
            block = slice(start, start + DISTANCE_BLOCK_SPOTS)
            distance = _distance((_in_float(z[block]) - self.centre) * self.weight, known)
            as_far[block] = len(self.distances) - np.searchsorted(self.distances, distance, side="left")
        return (1 + as_far) / (1 + len(self.distances))


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


@dataclass(frozen=True)
class Correlation:
    """PCC of every gene over references held out in turn; NaN where no reference has one.

    Parameters
    ----------
    pcc, low, high
        Mean and 95 % interval of the mean, a number a gene.
    """

    pcc: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def fit(cls, measured: Rows, predicted: np.ndarray, slide: np.ndarray) -> Correlation:
        """From held-out predictions.

        Fisher's z of every slide, of standard error ``1 / sqrt(n - 3)``, averaged with random effects (DerSimonian and
        Laird 1986): what the slides differ by more than that widens the interval. A slide on which the gene is constant
        says nothing of it. Spots that lie side by side are not independent, and few slides tell little of how slides
        differ, so the interval is rather too narrow.

        Parameters
        ----------
        measured, predicted
            Spots x genes.
        slide
            Name of each spot's slide.
        """
        parts = [np.flatnonzero(slide == name) for name in np.unique(slide)]
        pcc = np.array([_correlation(measured, predicted, rows) for rows in parts])
        precision = np.array([max(len(rows) - 3, 0) for rows in parts], dtype=np.float64)[:, None]
        mean, error = _random_effects(np.arctanh(np.clip(pcc, -MAX_PCC, MAX_PCC)), precision)
        return cls(*(np.tanh(mean + side * NORMAL_95 * error) for side in (0, -1, 1)))


@dataclass(frozen=True)
class Spread:
    """Standard deviation of what a prediction of a new slide is off by, as it is on references held out in turn.

    Whatever keeps a prediction from the measurement is in it: the noise of counting, what the image does not show, and
    by how much whole slides differ. A gene's variance is shrunk towards that of genes of the same level, as far as it
    is the noise of few slides that sets it apart (empirical Bayes). A gene's spots differ by how much more or less of
    it is predicted there, with a slope that genes of the same level share.

    It is that of a slide like the references. Counting noise depends on the number of counts, and nobody knows those
    of a slide that was not measured: on one of far fewer counts than the references, it is too small.

    Parameters
    ----------
    variance
        Of every gene where its mean level is predicted, squared ``log1p`` units.
    level
        The gene's mean level on references held out.
    slope
        Change of the logarithm of the variance by each unit of the prediction.
    """

    variance: np.ndarray
    level: np.ndarray
    slope: np.ndarray

    @classmethod
    def fit(cls, measured: Rows, predicted: np.ndarray, slide: np.ndarray) -> Spread:
        """From held-out predictions.

        Every slide counts the same. The last step makes the mean over slides of the squared standardised residuals 1.

        Parameters
        ----------
        measured, predicted
            Spots x genes, ``log1p`` counts per 10,000.
        slide
            Name of each spot's slide.
        """
        parts = [np.flatnonzero(slide == name) for name in np.unique(slide)]
        moments = np.array([_moments(measured, predicted, rows) for rows in parts])
        squares, levels, spreads, covariances = moments.swapaxes(0, 1)
        level = levels.mean(axis=0)
        variance = _shrunk(squares, level)
        size = (squares / variance).mean(axis=1, keepdims=True)  # slides of more noise would rule the slope
        size = np.maximum(size, MIN_VARIANCE)
        slope = _by_level(level, (covariances / (variance * size)).mean(axis=0), spreads.mean(axis=0))
        raw = cls(variance, level, slope)
        of_slides = [raw.standardised_square(measured, predicted, rows) for rows in parts]
        return replace(raw, variance=np.maximum(variance * np.mean(of_slides), MIN_VARIANCE))

    def __call__(self, predicted: np.ndarray) -> np.ndarray:
        """Standard deviations of predictions (spots x genes, ``log1p`` counts per 10,000), same units, float32."""
        change = np.clip((predicted - self.level) * self.slope, -MAX_LOG_SLOPE, MAX_LOG_SLOPE)
        return np.sqrt(self.variance * np.exp(change)).astype(np.float32)

    def standardised_square(self, measured: Rows, predicted: np.ndarray, rows: np.ndarray) -> float:
        """Mean square of the residuals over their standard deviations, at some spots by number."""
        total = 0.0
        for block in blocks_of(len(rows)):
            known, estimate = read(measured, rows[block]), read(predicted, rows[block])
            total += float(np.square((known - estimate) / self(estimate)).sum(dtype=np.float64))
        return total / (len(rows) * measured.shape[1])


@dataclass(frozen=True)
class Trust:
    """All that the references say of the trust that a prediction deserves; nothing here has seen a target.

    Parameters
    ----------
    correlation
        Of every gene of the panel.
    spread
        Of every predicted value.
    support
        Of every spot.
    shared
        What spots and genes have in common of their errors; ``None`` in a model of an earlier version, which says nothing of it.
    """

    correlation: Correlation
    spread: Spread
    support: Support
    shared: SharedErrors | None = None

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Plain arrays by name."""
        return {
            f"{part.name}.{field.name}": np.ascontiguousarray(getattr(getattr(self, part.name), field.name))
            for part in fields(self)
            if getattr(self, part.name) is not None
            for field in fields(getattr(self, part.name))
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> Trust:
        """The inverse of :meth:`to_arrays`."""

        def part(name: str, kind: type[Any]) -> Any:
            return kind(**{field.name: arrays[f"{name}.{field.name}"] for field in fields(kind)})

        shared = part("shared", SharedErrors) if "shared.correlation" in arrays else None
        return cls(part("correlation", Correlation), part("spread", Spread), part("support", Support), shared)


def held_out_trust(spots: Spots, blocks: tuple[tuple[int, int], ...], parameters: Parameters) -> Trust:
    """Trust in the predictions of a model of these references; see :func:`held_out_predictions`.

    Parameters
    ----------
    spots
        Spots of all references, with embedding, expression and transcriptome.
    blocks
        Columns of the embedding that belong together, as ``(start, stop)``.
    parameters
        Those of the fit.
    """
    return trust_of(spots, blocks, held_out_predictions(spots, blocks, parameters))


def trust_of(spots: Spots, blocks: tuple[tuple[int, int], ...], predicted: np.ndarray) -> Trust:
    """Trust that predictions of references held out show; ``predicted`` is spots x panel, ``log1p`` units."""
    known = spots.y, predicted, slide_or_half(spots)
    spread = Spread.fit(*known)
    shared = SharedErrors.fit(spots.y, predicted, spread, spots.xy, known[2])
    return Trust(Correlation.fit(*known), spread, Support.fit(spots, blocks), shared)


def held_out_predictions(spots: Spots, blocks: tuple[tuple[int, int], ...], parameters: Parameters) -> np.ndarray:
    """What the line says of every reference without having seen it, spots x panel, ``log1p`` units, float32.

    Axes of appearance, components, read-out and line are all fitted again without the slide that is held out, so that
    nothing of its expression reaches its prediction. The networks are not trained again, which would multiply the time
    of a fit by the number of references: this is the trust that the linear part of a model deserves, and where the
    networks take part in a prediction, as they do in the default's, they may have made it better or worse. A single
    slide acts as two halves. Where sections of one patient are among the references, it is the trust in a further
    section of a known patient.

    Parameters
    ----------
    spots, blocks, parameters
        See :func:`held_out_trust`.

    Raises
    ------
    ValueError
        If the parameters are those of a model without principal axes, which has no linear part.
    """
    if not parameters.n_axes:
        raise ValueError(
            "n_axes=0 makes a model without a linear part, whose trust cannot be told without training it again for "
            'each reference. Use preset="default", or parameters with n_axes=.'
        )
    predicted = np.full(spots.y.shape, np.nan, dtype=np.float32)
    for each in hold_out_each(spots, blocks, parameters):
        predicted[each.rows] = each.predicted()
    return predicted


def _correlation(measured: Rows, predicted: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Pearson correlation of the columns at some spots, by number; NaN where a column is constant."""
    centre = [mean_of(x, rows) for x in (measured, predicted)]
    sums = np.zeros((3, measured.shape[1]))
    for block in blocks_of(len(rows)):
        a, b = (read(x, rows[block]) - mean for x, mean in zip((measured, predicted), centre, strict=True))
        sums += [np.square(a).sum(axis=0), np.square(b).sum(axis=0), (a * b).sum(axis=0)]
    length_a, length_b = np.sqrt(sums[:2])
    constant = np.minimum(length_a, length_b) < MIN_SPREAD * np.sqrt(len(rows))
    return np.where(constant, np.nan, sums[2] / np.where(constant, 1.0, length_a * length_b))


def _random_effects(z: np.ndarray, precision: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean over slides and its standard error, a number a gene; NaN where no slide has a value.

    Parameters
    ----------
    z
        Slides x genes, NaN where a slide has no value.
    precision
        Inverse variance of the slides' values, slides x 1.
    """
    defined = ~np.isnan(z)
    z, weight = np.where(defined, z, 0.0), np.where(defined, precision, 0.0)
    n, total = (weight > 0).sum(axis=0), weight.sum(axis=0)
    mean = _ratio((weight * z).sum(axis=0), total)
    excess = (weight * np.square(z - mean)).sum(axis=0) - (n - 1)
    between = np.maximum(_ratio(excess, total - _ratio(np.square(weight).sum(axis=0), total)), 0.0)
    between = np.where(n > 1, between, 0.0)  # one slide does not tell how slides differ
    weight = weight / (1 + weight * between)
    return _ratio((weight * z).sum(axis=0), weight.sum(axis=0)), np.sqrt(_ratio(np.ones(len(n)), weight.sum(axis=0)))


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator > 0)


def _moments(measured: Rows, predicted: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Of some spots: mean square of the residuals, mean and variance of the predictions, covariance of both."""
    level, sums = mean_of(predicted, rows), np.zeros((3, predicted.shape[1]))
    for block in blocks_of(len(rows)):
        known, estimate = read(measured, rows[block]), read(predicted, rows[block])
        square, deviation = np.square(np.subtract(known, estimate, dtype=np.float64)), estimate - level
        sums += [square.sum(axis=0), np.square(deviation).sum(axis=0), (square * deviation).sum(axis=0)]
    square, spread, covariance = sums / len(rows)
    return np.array([square, level, spread, covariance])


def _shrunk(squares: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Variance of every gene from its mean squares on some slides (slides x genes), shrunk towards the trend."""
    n_slides, n_genes = squares.shape
    own = np.maximum(squares.mean(axis=0), MIN_VARIANCE)
    trend = np.maximum(_by_level(level, own, np.ones(n_genes)), MIN_VARIANCE)
    apart = np.clip(np.log(own / trend), -MAX_LOG_RATIO, MAX_LOG_RATIO)
    of_slides = np.log(np.clip(squares / own, np.exp(-MAX_LOG_RATIO), np.exp(MAX_LOG_RATIO)))
    noise = of_slides - of_slides.mean(axis=0) - of_slides.mean(axis=1, keepdims=True) + of_slides.mean()
    error = np.square(noise).sum() / max((n_slides - 1) * (n_genes - 1), 1) / n_slides
    total = apart.var()
    kept = max(1 - error / total, 0.0) if total > 0 else 0.0
    return trend * np.exp(kept * apart)


def _by_level(level: np.ndarray, numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Ratio of two sums over genes of similar level, interpolated at the level of every gene."""
    n_levels = int(np.clip(len(level) // GENES_PER_LEVEL, 1, MAX_LEVELS))
    groups = np.array_split(np.argsort(level, kind="stable"), n_levels)
    ratios = [numerator[genes].sum() / max(denominator[genes].sum(), MIN_VARIANCE) for genes in groups]
    return np.interp(level, [level[genes].mean() for genes in groups], ratios)
