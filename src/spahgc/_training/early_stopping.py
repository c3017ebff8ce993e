"""How long to train: as long as a reference held out is predicted better, and then so long on all references."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import numpy as np

from spahgc._random import drawing_from
from spahgc._spots.rows import Spots, leave_one_out
from spahgc._training.graphs import as_tensor
from spahgc.nn import gene_correlations
from spahgc.nn._baselines import BatchSettings, JointSpace, Perceptron, train_in_batches
from spahgc.nn._deep_sets import DeepSets, SpotSets

Network = TypeVar("Network", bound=Perceptron | JointSpace | DeepSets)
Inputs = TypeVar("Inputs", np.ndarray, SpotSets)


def train_early_stopped(
    make: Callable[[], Network],
    predict: Callable[[Network, Inputs, np.ndarray], np.ndarray],
    references: Spots,
    x: Inputs,
    y: np.ndarray,
    settings: BatchSettings,
    seed: int,
) -> Network:
    """Train a network on all references, for the number of epochs that serves a held-out one best.

    The last reference by name is held out, or one half of a single one. The score is the mean correlation over the
    genes of the panel that it measured. All random numbers depend on the seed alone, whatever other Python threads draw, and
    torch's own stream stays where it was.

    Parameters
    ----------
    make
        A new network.
    predict
        Expression of spots: from the network, their rows of ``x``, and the indices of the references that it knows.
    references
        Reference spots, with expression.
    x, y
        What the network is trained on, a row a reference spot.
    settings
        Numbers of the training; its epochs are the most that are tried.
    seed
        Seed of initial weights, order of the spots and dropout.
    """
    return train_for(make, x, y, chosen_epochs(make, predict, references, x, y, settings, seed), seed)


def chosen_epochs(
    make: Callable[[], Network],
    predict: Callable[[Network, Inputs, np.ndarray], np.ndarray],
    references: Spots,
    x: Inputs,
    y: np.ndarray,
    settings: BatchSettings,
    seed: int,
) -> BatchSettings:
    """The settings with the number of epochs that serves a held-out reference best: see :func:`train_early_stopped`."""
    held_out, others = leave_one_out(references)[-1]
    expression = np.asarray(references.y[held_out])
    known = np.flatnonzero(~np.isnan(expression).any(axis=0))
    measured = as_tensor(expression[:, known], "cpu")

    def score(network: Network) -> float:
        predicted = predict(network, x[held_out], others)
        return gene_correlations(as_tensor(predicted[:, known], "cpu"), measured).mean().item()

    _, scores = _train(make, x[others], y[others], settings, seed, score)
    return replace(settings, epochs=int(np.argmax(scores)) + 1)


def train_for(make: Callable[[], Network], x: Inputs, y: np.ndarray, settings: BatchSettings, seed: int) -> Network:
    """Train a network on all spots for the epochs of the settings; torch's own stream stays where it was."""
    network, _ = _train(make, x, y, settings, seed, None)
    return network


def _train(
    make: Callable[[], Network],
    x: Inputs,
    y: np.ndarray,
    settings: BatchSettings,
    seed: int,
    score: Callable[[Network], float] | None,
) -> tuple[Network, list[float]]:
    with drawing_from(seed) as generator:
        network = make()
    report = None if score is None else lambda: score(network)
    inputs = x if isinstance(x, SpotSets) else as_tensor(x, "cpu")
    scores = train_in_batches(network, inputs, as_tensor(y, "cpu"), settings, score=report, generator=generator)
    return network, scores
