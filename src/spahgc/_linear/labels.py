"""Labels and values of reference spots for spots that look like them: experts, and weights that references held out prove."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spahgc._linear.kernel import fit_kernel_ridge
from spahgc._linear.weights import PLACED_SHRINKAGE, prove_weights
from spahgc._spots.rows import blocks_of

LINE, KERNEL, EDGES = "line", "kernel", "edges"
"""Logistic regression, kernel ridge regression, and the mean over the most similar reference spots."""
LABEL_EXPERTS, VALUE_EXPERTS = (LINE, KERNEL, EDGES), (KERNEL, EDGES)
STRENGTHS = (0.003, 0.01, 0.03, 0.1, 0.3)
"""Inverse penalties of the logistic regression to choose from, on features of unit size."""
N_SIMILAR = 30
"""Reference spots of highest cosine similarity that an edge leads to."""
FLOOR = 0.01
"""Share of every prediction that is the frequency of the labels, so that nothing is held for impossible."""
POWERS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5)
"""Powers of the probabilities to choose from: below 1 they were too sure of themselves."""
PRIOR_SPOTS = 20.0
"""Spots that speak for equal weights."""
N_ROUNDS = 200
"""Rounds of the search for weights, which converges long before."""
MAX_ITERATIONS = 500
"""Of the logistic regression."""
MAX_GROUPS = 5
"""Groups of references that are held out."""
SMALLEST = 1e-12
CALIBRATION_BINS = 10

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class LabelProof:
    """What references held out in turn say.

    Parameters
    ----------
    weights
        Of the experts; their sum is 1.
    strength
        Inverse penalty of the logistic regression.
    power
        To which the blended probabilities are raised.
    held_out
        Probabilities of the references, each from the others, spots x labels.
    told
        Numbers of these spots among the references: those of which every expert says something.
    """

    weights: dict[str, float]
    strength: float
    power: float
    held_out: Doubles
    told: NDArray[np.intp]


def prove_labels(
    x: np.ndarray,
    codes: NDArray[np.int64],
    n_labels: int,
    groups: np.ndarray,
    more: Mapping[str, Doubles] | None = None,
) -> LabelProof:
    """Let the experts say the labels of each group of references held out, and weigh them by the log loss.

    Parameters
    ----------
    x
        Features of the reference spots, spots x features.
    codes
        Number of each spot's label, below `n_labels`.
    n_labels
        Labels that there are.
    groups
        Name of each spot's group: its slide, or its patient; two at least.
    more
        What further experts say of the references, each group from the others: probabilities, spots x labels, NaN where they say
        nothing. Weights are then those that the other spots prove.
    """
    n = len(codes)
    lines = {strength: np.empty((n, n_labels)) for strength in STRENGTHS}
    others: dict[str, Doubles] = {name: np.empty((n, n_labels)) for name in (KERNEL, EDGES)}
    for rows, known in _folds(groups):
        given = x[known], codes[known], n_labels, groups[known]
        for strength, said in lines.items():
            said[rows] = say_labels(LINE, *given, x[rows], strength=strength)
        for name, said in others.items():
            said[rows] = say_labels(name, *given, x[rows])
    strength = min(STRENGTHS, key=lambda each: log_loss(lines[each], codes))
    blended: dict[str, Doubles] = {LINE: lines[strength], **others, **(more or {})}
    told = said_by_all(blended, n)
    weights = _mixture_weights([part[told, codes[told]] for part in blended.values()])
    named = dict(zip(blended, weights, strict=True))
    mixed = _mixed(named, {name: part[told] for name, part in blended.items()})
    power = min(POWERS, key=lambda each: log_loss(raised(mixed, each), codes[told]))
    return LabelProof(named, strength, power, raised(mixed, power), told)


def said_by_all(said: Mapping[str, Doubles], n: int) -> NDArray[np.intp]:
    """Spots, by number, of which every expert says something; ``n`` spots in all."""
    known = np.ones(n, dtype=bool)
    for part in said.values():
        known &= np.isfinite(part).all(axis=1)
    return np.flatnonzero(known)


def blend_labels(
    proof: LabelProof,
    x: np.ndarray,
    codes: NDArray[np.int64],
    n_labels: int,
    groups: np.ndarray,
    seen: np.ndarray,
    more: Mapping[str, Doubles] | None = None,
) -> Doubles:
    """Probabilities of the labels of other spots, by all references.

    Parameters as in :func:`prove_labels`; ``more`` is what further experts say of the spots in question.
    """
    given = more or {}
    said = {
        name: given[name]
        if name in given
        else say_labels(name, x, codes, n_labels, groups, seen, strength=proof.strength)
        for name, weight in proof.weights.items()
        if weight > 0
    }
    return raised(_mixed(proof.weights, said), proof.power)


def say_labels(
    name: str,
    x: np.ndarray,
    codes: NDArray[np.int64],
    n_labels: int,
    groups: np.ndarray,
    seen: np.ndarray,
    *,
    strength: float = 1.0,
) -> Doubles:
    """What one expert says: probabilities, spots x labels, none of them 0 that the references show.

    Parameters
    ----------
    name
        One of the experts.
    x, codes, n_labels, groups
        The references, as in :func:`prove_labels`.
    seen
        Features of the spots in question.
    strength
        Inverse penalty of the line.
    """
    one_hot = np.eye(n_labels)[codes]
    frequency = one_hot.mean(axis=0)
    if len(np.unique(codes)) < 2:
        said = np.tile(frequency, (len(seen), 1))
    elif name == LINE:
        said = _logistic(x, codes, n_labels, seen, strength)
    elif name == EDGES:
        said = mean_of_similar(seen, x, one_hot)
    elif name == KERNEL:
        said = np.clip(frequency + _kernel(x, one_hot - frequency, groups, seen), 0, None)
    else:
        raise ValueError(f'no expert of labels is called "{name}".')
    return as_probabilities(said, codes, n_labels)


def as_probabilities(said: Doubles, codes: NDArray[np.int64], n_labels: int) -> Doubles:
    """What an expert says, not negative, as probabilities of which none is 0; by the labels of the references."""
    frequency = np.eye(n_labels)[codes].mean(axis=0)
    sums = said.sum(axis=1, keepdims=True)
    said = np.divide(said, sums, out=np.tile(frequency, (len(said), 1)), where=sums > 0)
    # Labels that a part of the references lacks are rare, not impossible.
    rare = (frequency + 1 / len(codes)) / (1 + n_labels / len(codes))
    return np.asarray((1 - FLOOR) * said + FLOOR * rare)


def say_values(name: str, x: np.ndarray, y: Doubles, groups: np.ndarray, seen: np.ndarray) -> Doubles:
    """What one expert says of values, spots x columns of `y`."""
    mean = y.mean(axis=0)
    if name == EDGES:
        return mean_of_similar(seen, x, y)
    return np.asarray(mean + _kernel(x, y - mean, groups, seen))


def prove_values(
    x: np.ndarray, y: Doubles, groups: np.ndarray, more: Mapping[str, Doubles] | None = None
) -> tuple[dict[str, float], Doubles, NDArray[np.intp]]:
    """Weights of the experts of values by the squared error on references held out, what they say of these, and of which.

    Every column counts alike, over its variance. ``more`` as in :func:`prove_labels`.
    """
    said = {name: np.empty_like(y) for name in VALUE_EXPERTS}
    for rows, known in _folds(groups):
        for name, values in said.items():
            values[rows] = say_values(name, x[known], y[known], groups[known], x[rows])
    size = y.std(axis=0)
    size[size == 0] = 1.0
    if more:
        said |= more
        told = said_by_all(said, len(y))
        mean = y.mean(axis=0)
        proven = prove_weights(
            {name: (part[told] - mean) / size for name, part in said.items()},
            (y[told] - mean) / size,
            shrinkage=PLACED_SHRINKAGE,
        )
        return proven, np.asarray(sum(proven[name] * part[told] for name, part in said.items())), told
    apart = (said[KERNEL] - said[EDGES]) / size
    off = (y - said[EDGES]) / size
    total = float((apart**2).sum())
    share = float(np.clip((apart * off).sum() / total, 0, 1)) if total > 0 else 0.5
    weights = {KERNEL: share, EDGES: 1 - share}
    return weights, np.asarray(sum(weights[name] * said[name] for name in VALUE_EXPERTS)), np.arange(len(y))


def mean_of_similar(seen: np.ndarray, x: np.ndarray, y: Doubles) -> Doubles:
    """Mean of `y` over the reference spots of highest cosine similarity."""
    n = min(N_SIMILAR, len(x))
    keys = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), SMALLEST)
    out = np.empty((len(seen), y.shape[1]))
    for rows in blocks_of(len(seen)):
        chosen = np.argpartition(-(seen[rows] @ keys.T), n - 1, axis=1)[:, :n]
        out[rows] = y[chosen].mean(axis=1)
    return out


def log_loss(probabilities: Doubles, codes: NDArray[np.int64]) -> float:
    """Mean negative logarithm of the probability of the true label."""
    return float(-np.log(np.maximum(probabilities[np.arange(len(codes)), codes], SMALLEST)).mean())


def label_scores(probabilities: Doubles, codes: NDArray[np.int64]) -> dict[str, float]:
    """Accuracy, balanced accuracy (mean recall of the labels that occur), log loss and expected calibration error."""
    chosen = probabilities.argmax(axis=1)
    right = chosen == codes
    sure = probabilities.max(axis=1)
    bins = np.minimum((sure * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    error = sum(
        abs(float(right[bins == each].mean() - sure[bins == each].mean())) * float((bins == each).mean())
        for each in np.unique(bins)
    )
    return {
        "accuracy": float(right.mean()),
        "balanced_accuracy": float(np.mean([right[codes == code].mean() for code in np.unique(codes)])),
        "log_loss": log_loss(probabilities, codes),
        "calibration_error": float(error),
    }


def raised(probabilities: Doubles, power: float) -> Doubles:
    """Probabilities to a power, which sum to 1 again."""
    values = np.maximum(probabilities, SMALLEST) ** power
    return np.asarray(values / values.sum(axis=1, keepdims=True))


def _folds(groups: np.ndarray) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    names = np.unique(groups)
    for chosen in np.array_split(names, min(MAX_GROUPS, len(names))):
        inside = np.isin(groups, chosen)
        yield np.flatnonzero(inside), np.flatnonzero(~inside)


def _mixed(weights: Mapping[str, float], said: Mapping[str, Doubles]) -> Doubles:
    return np.asarray(sum(weights[name] * said[name] for name in said))


def _mixture_weights(of_true: list[Doubles]) -> list[float]:
    """Weights of a mixture that make the true labels most likely (expectation maximisation), drawn to equal ones."""
    likelihood = np.column_stack(of_true)
    n_experts = likelihood.shape[1]
    weights = np.full(n_experts, 1 / n_experts)
    for _ in range(N_ROUNDS):
        shares = likelihood * weights
        shares /= np.maximum(shares.sum(axis=1, keepdims=True), SMALLEST)
        weights = shares.sum(axis=0) + PRIOR_SPOTS / n_experts
        weights /= weights.sum()
    return [float(weight) for weight in weights]


def _logistic(x: np.ndarray, codes: NDArray[np.int64], n_labels: int, seen: np.ndarray, strength: float) -> Doubles:
    from sklearn.linear_model import LogisticRegression

    size = float(x.std()) or 1.0
    model = LogisticRegression(C=strength, max_iter=MAX_ITERATIONS, class_weight="balanced").fit(x / size, codes)
    said = np.zeros((len(seen), n_labels))
    said[:, model.classes_] = model.predict_proba(seen / size)
    return said


def _kernel(x: np.ndarray, y: Doubles, groups: np.ndarray, seen: np.ndarray) -> Doubles:
    """Kernel ridge regression; a single group acts as two halves of its spots."""
    if len(np.unique(groups)) < 2:
        groups = np.where(np.arange(len(x)) % 2, "odd", "even")
    return np.asarray(fit_kernel_ridge(x, y, groups).predict(seen))
