"""Kernel ridge regression with the arc-cosine kernel: what a network of one very wide layer would learn, in closed form."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from spahgc._spots.rows import blocks_of

PENALTIES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Penalties to choose from, as shares of the mean of the kernel's eigenvalues."""

MAX_EXACT_SPOTS = 3_000
"""Reference spots up to which the kernel between all of them is decomposed; 10 s and 200 MB at the most."""

N_LANDMARKS = 1_500
"""Reference spots, evenly from each slide, through which the kernel is seen where there are more (Nystroem)."""

MAX_SLOPE = 1.5
"""Largest slope of truth on prediction that references held out may ask for."""

MAX_GROUPS = 5
"""Groups of references that are held out, so that the work grows with their number and not with its square."""

MIN_VALUE = 1e-10
"""Eigenvalues of the kernel between landmarks below this share of the largest one are noise of the arithmetic."""

Kernel = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From the rows of two arrays to the kernel between them, rows of the first x rows of the second."""


def arc_cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    r"""Arc-cosine kernel of first order (Cho and Saul 2009, equation 3), the limit of a wide layer of rectified units.

    .. math:: k(a, b) = \frac{1}{\pi} \|a\| \|b\| \left(\sin\theta + (\pi - \theta) \cos\theta\right)

    Parameters
    ----------
    a, b
        Spots x features.

    Returns
    -------
    Spots of ``a`` x spots of ``b``, float64; ``k(a, a)`` is the squared length of ``a``.
    """
    a, b = a.astype(np.float64, copy=False), b.astype(np.float64, copy=False)
    lengths = np.linalg.norm(a, axis=1)[:, None] * np.linalg.norm(b, axis=1)
    cosine = np.divide(a @ b.T, lengths, out=np.zeros_like(lengths), where=lengths > 0)
    np.clip(cosine, -1, 1, out=cosine)
    angle = np.arccos(cosine)
    return lengths * (np.sin(angle) + (np.pi - angle) * cosine) / np.pi


@dataclass(frozen=True)
class KernelRidge:
    """What is left of a fit: a weighted sum of the kernel to some reference spots.

    Parameters
    ----------
    landmarks
        Features of these spots, spots x features: all of the references, or landmarks among them.
    coefficients
        Spots x responses.
    penalties, slopes
        Of every response: the penalty as a share of the mean eigenvalue, and what the prediction is multiplied by.
    """

    landmarks: np.ndarray
    coefficients: np.ndarray
    penalties: np.ndarray
    slopes: np.ndarray

    def predict(self, x: np.ndarray, kernel: Kernel = arc_cosine) -> np.ndarray:
        """Responses at spots of these features, spots x responses, float64."""
        out = np.empty((len(x), self.coefficients.shape[1]))
        for rows in blocks_of(len(x)):
            out[rows] = kernel(x[rows], self.landmarks) @ self.coefficients
        return out


class Decomposed(NamedTuple):
    """The kernel between known spots in its principal axes, on which every penalty costs one division.

    Parameters
    ----------
    landmarks
        Spots to which the kernel is taken, spots x features.
    basis
        From the kernel to them to scores: landmarks x axes.
    values
        Sum of squares of the known spots' scores on each axis, or the kernel's eigenvalues, which is the same.
    products
        Of the scores and the responses, axes x responses.
    """

    landmarks: np.ndarray
    basis: np.ndarray
    values: np.ndarray
    products: np.ndarray

    @property
    def penalty_unit(self) -> float:
        """What a penalty of 1 adds to the eigenvalues; 1 where all spots look the same and the kernel is zero."""
        return float(self.values.mean()) if self.values.any() else 1.0

    def solve(self, penalties: np.ndarray) -> np.ndarray:
        """Coefficients of the kernel to the landmarks, landmarks x responses, with a penalty for each response."""
        return self.basis @ (self.products / (self.values[:, None] + penalties * self.penalty_unit))

    def scores(self, x: np.ndarray, kernel: Kernel) -> np.ndarray:
        """Scores of other spots."""
        return np.asarray(kernel(x, self.landmarks) @ self.basis)


def fit_kernel_ridge(
    x: np.ndarray,
    y: np.ndarray,
    slide: np.ndarray,
    *,
    kernel: Kernel = arc_cosine,
    max_exact: int = MAX_EXACT_SPOTS,
    n_landmarks: int = N_LANDMARKS,
) -> KernelRidge:
    """Kernel ridge regression of ``y`` on ``x``, with a penalty and a slope of its own for every response.

    The penalty is that of the least squared error over slides left out in turn (in at most five groups), each predicted
    by all others; the slope is that of truth on these predictions, from 0 to 1.5. There is no intercept: responses have
    mean zero on every slide.

    Parameters
    ----------
    x
        Spots x features.
    y
        Spots x responses.
    slide
        Name of each spot's slide; two at least.
    kernel
        The kernel between two arrays of features.
    max_exact
        Spots up to which it is exact. With more, spots are seen through the kernel to ``n_landmarks`` of them
        (Williams and Seeger 2001), and memory grows with the number of spots in a straight line.
    n_landmarks
        Landmarks, evenly from each slide.
    """
    errors, moments = np.zeros((len(PENALTIES), y.shape[1])), np.zeros((2, len(PENALTIES), y.shape[1]))
    if len(x) <= max_exact:
        whole = decompose(x, y, kernel)
        folds = held_out(whole, y, slide)
    else:
        through = Through.fit(x, y, slide, kernel, even_rows(slide, n_landmarks))
        whole = through.decompose()
        folds = through.held_out(x, slide, kernel)
    for rows, predicted in folds:
        truth = y[rows]
        for i, each in enumerate(predicted):
            errors[i] += np.square(truth - each).sum(axis=0)
            moments[:, i] += [(truth * each).sum(axis=0), np.square(each).sum(axis=0)]
    best, columns = errors.argmin(axis=0), np.arange(y.shape[1])
    with_truth, own = moments[:, best, columns]
    slopes = np.clip(np.divide(with_truth, own, out=np.zeros_like(own), where=own > 0), 0, MAX_SLOPE)
    penalties = np.array(PENALTIES)[best]
    return KernelRidge(whole.landmarks, whole.solve(penalties) * slopes, penalties, slopes)


def held_out(whole: Decomposed, y: np.ndarray, slide: np.ndarray) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
    """Spots of each group of slides by number, and what the others say of them with each of the penalties.

    No kernel is decomposed again without them. What a ridge regression of all spots misses of some of them is
    :math:`I - H` times what it misses once it is fitted without these, where :math:`H` are their own rows and columns of the
    matrix that takes responses to fitted values (leave-one-out by the hat matrix, Allen 1974, for groups).

    Parameters
    ----------
    whole
        The kernel between all spots.
    y
        Spots x responses.
    slide
        Name of each spot's slide.
    """
    diagonal = np.square(whole.basis) @ whole.values
    for group in groups_of_slides(slide):
        rows = np.flatnonzero(np.isin(slide, group))
        unit = np.delete(diagonal, rows).mean() or 1.0  # the penalty is a share of what the others' own kernel has
        of_rows, predicted = whole.basis[rows], []
        for penalty in PENALTIES:
            shares = of_rows * (whole.values / (whole.values + penalty * unit))
            missed = np.eye(len(rows)) - shares @ of_rows.T
            predicted.append(y[rows] - np.linalg.solve(missed, y[rows] - shares @ whole.products))
        yield rows, predicted


def groups_of_slides(slide: np.ndarray) -> list[np.ndarray]:
    """Names of the slides that are held out together."""
    names = np.unique(slide)
    return np.array_split(names, min(MAX_GROUPS, len(names)))


def decompose(x: np.ndarray, y: np.ndarray, kernel: Kernel) -> Decomposed:
    """Of all spots."""
    values, vectors = np.linalg.eigh(kernel(x, x))
    return Decomposed(x, vectors, np.maximum(values, 0), vectors.T @ y)


def decompose_through(x: np.ndarray, y: np.ndarray, kernel: Kernel, known: np.ndarray) -> Decomposed:
    """Of all spots through the kernel to landmarks, whose features are ``known``."""
    return Through.fit(x, y, np.zeros(len(x)), kernel, known=known).decompose()


@dataclass(frozen=True)
class Through:
    """Spots seen through the kernel to landmarks, summed over each group of slides, so that any of them can be left out.

    The spots are gone through once, not once for every group. Landmarks are those of all slides, also where their slide is left
    out: they are places in what spots look like, and what was measured there is in the sums alone.

    Parameters
    ----------
    landmarks
        Their features, landmarks x features.
    whitened
        From the kernel to them to axes on which it is the product of scores, landmarks x axes.
    squares, products
        Of each group: products of the scores, axes x axes, and of scores and responses, axes x responses.
    sizes
        Spots of each group.
    """

    landmarks: np.ndarray
    whitened: np.ndarray
    squares: list[np.ndarray]
    products: list[np.ndarray]
    sizes: list[int]

    @classmethod
    def fit(
        cls,
        x: np.ndarray,
        y: np.ndarray,
        slide: np.ndarray,
        kernel: Kernel,
        chosen: np.ndarray | None = None,
        *,
        known: np.ndarray | None = None,
    ) -> Through:
        """Of spots ``x`` with responses ``y``; landmarks are ``chosen`` among them, or have the features ``known``."""
        landmarks = x[chosen] if known is None else known
        values, vectors = np.linalg.eigh(kernel(landmarks, landmarks))
        kept = values > MIN_VALUE * values[-1]
        whitened = vectors[:, kept] / np.sqrt(values[kept])
        squares, products, sizes = [], [], []
        for group in groups_of_slides(slide):
            rows = np.flatnonzero(np.isin(slide, group))
            sizes.append(len(rows))
            squares.append(np.zeros([whitened.shape[1]] * 2))
            products.append(np.zeros((whitened.shape[1], y.shape[1])))
            for block in blocks_of(len(rows)):
                part = rows[block]
                scores = kernel(x[part], landmarks) @ whitened
                squares[-1] += scores.T @ scores
                products[-1] += scores.T @ y[part]
        return cls(landmarks, whitened, squares, products, sizes)

    def decompose(self, without: int | None = None) -> Decomposed:
        """Of all groups, or of all but one."""
        kept = [i for i in range(len(self.sizes)) if i != without]
        values, turn = np.linalg.eigh(np.sum([self.squares[i] for i in kept], axis=0))
        products = np.sum([self.products[i] for i in kept], axis=0)
        return Decomposed(self.landmarks, self.whitened @ turn, np.maximum(values, 0), turn.T @ products)

    def held_out(
        self, x: np.ndarray, slide: np.ndarray, kernel: Kernel
    ) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
        """As :func:`held_out`."""
        for i, group in enumerate(groups_of_slides(slide)):
            rows, known = np.flatnonzero(np.isin(slide, group)), self.decompose(without=i)
            # Fewer spots are seen through as many landmarks: the penalty is that of as many landmarks a spot.
            unit = known.penalty_unit * sum(self.sizes) / (sum(self.sizes) - self.sizes[i])
            columns = [known.basis @ (known.products / (known.values + p * unit)[:, None]) for p in PENALTIES]
            predicted = np.empty((len(rows), len(PENALTIES) * self.products[0].shape[1]))
            for block in blocks_of(len(rows)):
                predicted[block] = kernel(x[rows[block]], self.landmarks) @ np.hstack(columns)
            yield rows, np.hsplit(predicted, len(PENALTIES))


def even_rows(slide: np.ndarray, n: int) -> np.ndarray:
    """About ``n`` spots by number, ascending: of each slide its share, drawn with a fixed seed."""
    rng, share = np.random.default_rng(0), min(1.0, n / len(slide))
    chosen = []
    for name in np.unique(slide):
        rows = np.flatnonzero(slide == name)
        chosen.append(rng.choice(rows, max(1, round(share * len(rows))), replace=False))
    return np.sort(np.concatenate(chosen))
