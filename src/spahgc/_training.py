"""Training of the network on a bank: every slide in its role, choice of the number of epochs, progress."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from spahgc._graph_data import GeneScale, roles, training_task
from spahgc._settings import progress_bar

if TYPE_CHECKING:
    from collections.abc import Callable

    from spahgc._graph_data import Spots
    from spahgc._presets import Parameters
    from spahgc.nn import LossRecord, SpaHGCNetwork, TrainingSettings


def train_network(
    spots: Spots, parameters: Parameters, *, seed: int, device: str
) -> tuple[SpaHGCNetwork, list[LossRecord]]:
    """Train on all slides, each in turn in the role of the target.

    Parameters
    ----------
    spots
        Spots of all references, with expression.
    parameters
        All numbers of the fit.
    seed
        Seed of initial weights and masks.
    device
        Torch device.

    Returns
    -------
    The network, and the losses of every epoch.
    """
    if parameters.early_stopping:
        epochs = choose_epochs(spots, parameters, seed=seed, device=device)
        parameters = replace(parameters, epochs=epochs)
    return _train(spots, parameters, seed=seed, device=device, label="training")


def choose_epochs(spots: Spots, parameters: Parameters, *, seed: int, device: str) -> int:
    """Number of epochs after which a reference held out is predicted best.

    The last reference by name (or one half, of a single one) is held out. A network is trained on the others, and after
    every epoch scored on the held-out one by the mean correlation over genes. The target has no part in it.
    """
    from spahgc.nn import gene_correlations, predict_expression

    held_out, others = roles(spots)[-1]
    known = spots[others]
    task = training_task(spots, held_out, others, GeneScale.of(known.y), parameters, device)
    scores: list[float] = []

    def score(network: SpaHGCNetwork) -> None:
        predicted = predict_expression(network, task.graph, training_settings(parameters))
        scores.append(gene_correlations(predicted, task.measured).mean().item())

    _train(known, parameters, seed=seed, device=device, label="choosing epochs", after_epoch=score)
    return int(np.argmax(scores)) + 1


def training_settings(parameters: Parameters) -> TrainingSettings:
    """The numbers that concern the training."""
    from spahgc.nn import TrainingSettings

    return TrainingSettings(
        epochs=parameters.epochs,
        learning_rate=parameters.learning_rate,
        weight_decay=parameters.weight_decay,
        target_hidden=parameters.target_hidden,
        reference_hidden=parameters.reference_hidden,
    )


def _train(
    spots: Spots,
    parameters: Parameters,
    *,
    seed: int,
    device: str,
    label: str,
    after_epoch: Callable[[SpaHGCNetwork], None] | None = None,
) -> tuple[SpaHGCNetwork, list[LossRecord]]:
    import torch

    from spahgc.nn import SpaHGCNetwork, train

    scale = GeneScale.of(spots.y)
    tasks = [training_task(spots, target, bank, scale, parameters, device) for target, bank in roles(spots)]
    with torch.random.fork_rng(devices=[]):  # initial weights depend on the seed alone, and the user's stream stays
        torch.manual_seed(seed)
        network = SpaHGCNetwork(
            spots.z.shape[1],
            spots.y.shape[1],
            width=parameters.width,
            layers=parameters.layers,
            heads=parameters.heads,
        )
    network.to(device)
    with progress_bar(total=parameters.epochs, desc=label, unit="epoch") as bar:

        def report(record: LossRecord) -> None:
            bar.set_postfix(loss=f"{record.total:.3f}", refresh=False)
            bar.update()
            if after_epoch is not None:
                after_epoch(network)

        rng = np.random.default_rng(seed)
        history = train(network, tasks, training_settings(parameters), rng=rng, on_epoch=report)
    return network, history
