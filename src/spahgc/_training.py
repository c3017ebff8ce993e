"""Training of the networks on a bank: every slide in its role, several sets of initial weights, progress."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spahgc._graph_data import training_task
from spahgc._settings import progress_bar
from spahgc._spots import roles

if TYPE_CHECKING:
    from collections.abc import Callable

    from spahgc._basis import Basis
    from spahgc._presets import Parameters
    from spahgc._spots import Spots
    from spahgc.nn import LossRecord, SpaHGCNetwork, Task, TrainingSettings


def train_networks(
    spots: Spots, basis: Basis, parameters: Parameters, *, seed: int, device: str
) -> tuple[list[SpaHGCNetwork], list[LossRecord]]:
    """Train on all slides, each in turn in the role of the target.

    Parameters
    ----------
    spots
        Spots of all references.
    basis
        What the nodes carry.
    parameters
        All numbers of the fit.
    seed
        Seed of initial weights and masks.
    device
        Torch device.

    Returns
    -------
    The networks, on the CPU, and the losses of every epoch of each of them.
    """
    networks: list[SpaHGCNetwork] = []
    history: list[LossRecord] = []
    if not parameters.epochs:
        return networks, history
    tasks = [training_task(spots, basis, target, bank, parameters, device) for target, bank in roles(spots)]
    with progress_bar(total=parameters.n_networks * parameters.epochs, desc="training", unit="epoch") as bar:

        def report(record: LossRecord) -> None:
            bar.set_postfix(loss=f"{record.total:.3f}", refresh=False)
            bar.update()

        for member in range(parameters.n_networks):
            network, losses = _train(tasks, basis, parameters, [seed, member] if member else seed, device, report)
            networks.append(network.cpu())
            history += losses
    return networks, history


def training_settings(parameters: Parameters) -> TrainingSettings:
    """The numbers that concern the training."""
    from spahgc.nn import TrainingSettings

    return TrainingSettings(
        epochs=parameters.epochs,
        learning_rate=parameters.learning_rate,
        weight_decay=parameters.weight_decay,
        target_hidden=parameters.target_hidden,
        reference_hidden=parameters.reference_hidden,
        alignment=parameters.alignment,
    )


def _train(
    tasks: list[Task],
    basis: Basis,
    parameters: Parameters,
    seed: int | list[int],
    device: str,
    report: Callable[[LossRecord], None],
) -> tuple[SpaHGCNetwork, list[LossRecord]]:
    import torch

    from spahgc.nn import train

    rng = np.random.default_rng(seed)
    initial = seed if isinstance(seed, int) else int(np.random.default_rng(seed).integers(2**31))
    with torch.random.fork_rng(devices=[]):  # initial weights depend on the seed alone, and the user's stream stays
        # Not torch.manual_seed: that would set the streams of all accelerators, which are not put back.
        torch.default_generator.manual_seed(initial)
        network = new_network(basis.features.shape[1], basis.expression.shape[1], parameters)
    network.to(device)
    history = train(network, tasks, training_settings(parameters), rng=rng, on_epoch=report)
    return network, history


def new_network(feature_dim: int, outputs: int, parameters: Parameters) -> SpaHGCNetwork:
    """A network of the size that the parameters ask for."""
    from spahgc.nn import SpaHGCNetwork

    return SpaHGCNetwork(feature_dim, outputs, width=parameters.width, layers=parameters.layers, heads=parameters.heads)
