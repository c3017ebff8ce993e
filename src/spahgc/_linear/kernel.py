"""Kernel ridge regression with the arc-cosine kernel: what a network of one very wide layer would learn, in closed form.

Functions take arrays of numpy or tensors of torch, and compute where these are, in double precision: they are written in the
names of the array API standard, which array-api-compat gives to both. What is kept of a fit, and what it predicts, are arrays
of numpy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import NamedTuple

import numpy as np
from array_api_compat import array_namespace
from array_api_compat import device as device_of

from spahgc._linear.on_device import Array, as_numpy, on_device, rows_on
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

Kernel = Callable[[Array, Array], Array]
"""From the rows of two arrays to the kernel between them, rows of the first x rows of the second; both lie on one device."""


def arc_cosine(a: Array, b: Array) -> Array:
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
    xp = array_namespace(a, b)
    a, b = xp.astype(a, xp.float64, copy=False), xp.astype(b, xp.float64, copy=False)
    lengths = xp.linalg.vector_norm(a, axis=1)[:, None] * xp.linalg.vector_norm(b, axis=1)
    # Of a spot without length the product is 0 as well.
    cosine = xp.clip((a @ b.T) / xp.where(lengths > 0, lengths, 1.0), -1.0, 1.0)
    angle = xp.acos(cosine)
    return lengths * (xp.sin(angle) + (np.pi - angle) * cosine) / np.pi


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

    def predict(self, x: np.ndarray, kernel: Kernel = arc_cosine, *, device: str = "cpu") -> np.ndarray:
        """Responses at spots of these features, spots x responses, float64.

        Parameters
        ----------
        x
            Spots x features; a block of spots at a time is on the device.
        kernel
            With which it was fitted.
        device
            Torch device; one other than CUDA computes on the CPU.
        """
        out, spots = np.empty((len(x), self.coefficients.shape[1])), rows_on(x, device)
        landmarks, coefficients = on_device(self.landmarks, device), on_device(self.coefficients, device)
        for rows in blocks_of(len(x)):
            out[rows] = as_numpy(kernel(spots[rows], landmarks) @ coefficients)
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

    landmarks: Array
    basis: Array
    values: Array
    products: Array

    @property
    def penalty_unit(self) -> float:
        """What a penalty of 1 adds to the eigenvalues; 1 where all spots look the same and the kernel is zero."""
        xp = array_namespace(self.values)
        return float(xp.mean(self.values)) if xp.any(self.values != 0) else 1.0

    def solve(self, penalties: np.ndarray) -> Array:
        """Coefficients of the kernel to the landmarks, landmarks x responses, with a penalty for each response."""
        added = _beside(self.values, penalties * self.penalty_unit)
        return self.basis @ (self.products / (self.values[:, None] + added))

    def scores(self, x: Array, kernel: Kernel) -> Array:
        """Scores of other spots."""
        return kernel(x, self.landmarks) @ self.basis


def fit_kernel_ridge(
    x: Array,
    y: Array,
    slide: np.ndarray,
    *,
    kernel: Kernel = arc_cosine,
    max_exact: int = MAX_EXACT_SPOTS,
    n_landmarks: int = N_LANDMARKS,
    device: str = "cpu",
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
    device
        Torch device on which arrays of numpy are computed with; one other than CUDA means the CPU. It holds a handful of
        matrices of the size of the kernel at a time (72 MB each for 3,000 spots), and a block of the spots where these are seen
        through landmarks. Tensors are computed with where they are.
    """
    xp = array_namespace(y)
    known, told = rows_on(x, device), rows_on(xp.astype(y, xp.float64, copy=False), device)
    if len(x) <= max_exact:
        landmarks, whole = x, decompose(known[:], told[:], kernel)
        folds = held_out(whole, told, slide)
    else:
        chosen = even_rows(slide, n_landmarks)
        through = Through.fit(known, told, slide, kernel, chosen)
        landmarks, whole = x[chosen], through.decompose()
        folds = through.held_out(known, slide, kernel)
    penalties, slopes = _best_of(folds, told)
    return KernelRidge(as_numpy(landmarks), as_numpy(whole.solve(penalties)) * slopes, penalties, slopes)


def _best_of(folds: Iterator[tuple[np.ndarray, list[Array]]], y: Array) -> tuple[np.ndarray, np.ndarray]:
    """Penalty of the least squared error of every response, and the slope of truth on what it predicts."""
    errors, moments = np.zeros((len(PENALTIES), y.shape[1])), np.zeros((2, len(PENALTIES), y.shape[1]))
    for rows, predicted in folds:
        truth = y[rows]
        xp = array_namespace(truth)
        for i, each in enumerate(predicted):
            errors[i] += as_numpy(xp.sum(xp.square(truth - each), axis=0))
            moments[0, i] += as_numpy(xp.sum(truth * each, axis=0))
            moments[1, i] += as_numpy(xp.sum(xp.square(each), axis=0))
    best, columns = errors.argmin(axis=0), np.arange(y.shape[1])
    with_truth, own = moments[:, best, columns]
    slopes = np.clip(np.divide(with_truth, own, out=np.zeros_like(own), where=own > 0), 0, MAX_SLOPE)
    return np.array(PENALTIES)[best], slopes


def held_out(whole: Decomposed, y: Array, slide: np.ndarray) -> Iterator[tuple[np.ndarray, list[Array]]]:
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
    xp = array_namespace(whole.basis)
    diagonal = as_numpy(xp.square(whole.basis) @ whole.values)
    for group in groups_of_slides(slide):
        rows = np.flatnonzero(np.isin(slide, group))
        unit = np.delete(diagonal, rows).mean() or 1.0  # the penalty is a share of what the others' own kernel has
        truth, of_rows = y[rows], xp.take(whole.basis, _beside(whole.basis, rows), axis=0)
        one, predicted = xp.eye(len(rows), dtype=xp.float64, device=device_of(of_rows)), []
        for penalty in PENALTIES:
            shares = of_rows * (whole.values / (whole.values + penalty * float(unit)))
            missed = one - shares @ of_rows.T
            predicted.append(truth - xp.linalg.solve(missed, truth - shares @ whole.products))
        yield rows, predicted


def _beside(array: Array, numbers: np.ndarray) -> Array:
    """Numbers as an array of the same kind as another one, on its device."""
    return array_namespace(array).asarray(numbers, device=device_of(array))


def groups_of_slides(slide: np.ndarray) -> list[np.ndarray]:
    """Names of the slides that are held out together."""
    names = np.unique(slide)
    return np.array_split(names, min(MAX_GROUPS, len(names)))


def decompose(x: Array, y: Array, kernel: Kernel) -> Decomposed:
    """Of all spots."""
    xp, between = array_namespace(x), kernel(x, x)
    values, vectors = xp.linalg.eigh(between)
    return Decomposed(x, vectors, xp.clip(values, 0.0, None), vectors.T @ y)


def decompose_through(x: Array, y: Array, kernel: Kernel, known: Array) -> Decomposed:
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

    landmarks: Array
    whitened: Array
    squares: list[Array]
    products: list[Array]
    sizes: list[int]

    @classmethod
    def fit(
        cls,
        x: Array,
        y: Array,
        slide: np.ndarray,
        kernel: Kernel,
        chosen: np.ndarray | None = None,
        *,
        known: Array | None = None,
    ) -> Through:
        """Of spots ``x`` with responses ``y``; landmarks are ``chosen`` among them, or have the features ``known``."""
        landmarks = x[chosen] if known is None else known
        xp, where = array_namespace(landmarks), device_of(landmarks)
        values, vectors = xp.linalg.eigh(kernel(landmarks, landmarks))
        kept = _beside(values, np.flatnonzero(as_numpy(values > MIN_VALUE * values[-1])))
        whitened = xp.take(vectors.T, kept, axis=0).T / xp.sqrt(xp.take(values, kept))
        squares, products, sizes = [], [], []
        for group in groups_of_slides(slide):
            rows = np.flatnonzero(np.isin(slide, group))
            sizes.append(len(rows))
            squares.append(xp.zeros((whitened.shape[1],) * 2, dtype=xp.float64, device=where))
            products.append(xp.zeros((whitened.shape[1], y.shape[1]), dtype=xp.float64, device=where))
            for block in blocks_of(len(rows)):
                part = rows[block]
                scores = kernel(x[part], landmarks) @ whitened
                squares[-1] += scores.T @ scores
                products[-1] += scores.T @ y[part]
        return cls(landmarks, whitened, squares, products, sizes)

    def decompose(self, without: int | None = None) -> Decomposed:
        """Of all groups, or of all but one."""
        kept = [i for i in range(len(self.sizes)) if i != without]
        xp = array_namespace(self.whitened)
        values, turn = xp.linalg.eigh(reduce(add, [self.squares[i] for i in kept]))
        products = reduce(add, [self.products[i] for i in kept])
        return Decomposed(self.landmarks, self.whitened @ turn, xp.clip(values, 0.0, None), turn.T @ products)

    def held_out(self, x: Array, slide: np.ndarray, kernel: Kernel) -> Iterator[tuple[np.ndarray, list[Array]]]:
        """As :func:`held_out`."""
        xp, where, n = array_namespace(self.whitened), device_of(self.whitened), self.products[0].shape[1]
        for i, group in enumerate(groups_of_slides(slide)):
            rows, known = np.flatnonzero(np.isin(slide, group)), self.decompose(without=i)
            # Fewer spots are seen through as many landmarks: the penalty is that of as many landmarks a spot.
            unit = known.penalty_unit * sum(self.sizes) / (sum(self.sizes) - self.sizes[i])
            of_penalties = [known.basis @ (known.products / (known.values + p * unit)[:, None]) for p in PENALTIES]
            columns = xp.concat(of_penalties, axis=1)
            predicted = xp.empty((len(rows), columns.shape[1]), dtype=xp.float64, device=where)
            for block in blocks_of(len(rows)):
                predicted[block, :] = kernel(x[rows[block]], self.landmarks) @ columns
            yield rows, [predicted[:, i * n : (i + 1) * n] for i in range(len(PENALTIES))]


def even_rows(slide: np.ndarray, n: int) -> np.ndarray:
    """About ``n`` spots by number, ascending: of each slide its share, drawn with a fixed seed."""
    rng, share = np.random.default_rng(0), min(1.0, n / len(slide))
    chosen = []
    for name in np.unique(slide):
        rows = np.flatnonzero(slide == name)
        chosen.append(rng.choice(rows, max(1, round(share * len(rows))), replace=False))
    return np.sort(np.concatenate(chosen))
