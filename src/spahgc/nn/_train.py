"""Training on the references, each in turn in the role of the target; prediction of a target."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from spahgc.nn._losses import alignment_loss, expression_loss
from spahgc.nn._masks import expected_view, masked_views

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from torch import Tensor

    from spahgc.nn._graph import HeteroGraph
    from spahgc.nn._network import SpaHGCNetwork


@dataclass(frozen=True)
class TrainingSettings:
    """How the network is trained; the defaults are those of the paper."""

    epochs: int = 200
    learning_rate: float = 1e-4
    weight_decay: float = 1e-4
    target_hidden: float = 0.8
    """Share of a target spot's entries that view 1 hides."""
    reference_hidden: float = 0.9
    """Share of a reference spot's entries that view 1 hides."""
    alignment: float = 1.0
    """Weight of the alignment losses; without one the second view is not computed."""


class Task(NamedTuple):
    """A slide in the role of the target, with its bank, and what was measured on it.

    Parameters
    ----------
    graph
        Its graph.
    measured
        Genes that the prediction is compared with, spots x genes.
    read_out
        From outputs to genes, outputs x genes, where they are not the same.
    """

    graph: HeteroGraph
    measured: Tensor
    read_out: Tensor | None = None


@dataclass(frozen=True)
class LossRecord:
    """Terms of the loss, averaged over the slides of one epoch."""

    epoch: int
    expression: float
    align_target: float
    align_reference: float

    @property
    def total(self) -> float:
        """The quantity that is minimised."""
        return self.expression + self.align_target + self.align_reference

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers by name."""
        return asdict(self)


def train(
    network: SpaHGCNetwork,
    tasks: Sequence[Task],
    settings: TrainingSettings,
    *,
    rng: np.random.Generator,
    on_epoch: Callable[[LossRecord], None] | None = None,
) -> list[LossRecord]:
    """Train a network in place: one step a slide, all slides an epoch.

    Parameters
    ----------
    network
        On the device of the tasks.
    tasks
        Each slide in the role of the target.
    settings
        Numbers of the training.
    rng
        Source of the masks.
    on_epoch
        Called with the losses of every epoch.

    Returns
    -------
    The losses of every epoch.
    """
    on_mps = tasks[0].measured.device.type == "mps"  # where older torch has no fused step
    optimiser = torch.optim.Adam(
        network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=not on_mps
    )
    history: list[LossRecord] = []
    for epoch in range(1, settings.epochs + 1):
        network.train()
        terms = torch.zeros(3)
        for task in tasks:
            optimiser.zero_grad()
            parts = _loss_terms(network, task, settings, rng)
            parts.sum().backward()
            optimiser.step()
            terms += parts.detach().cpu()
        history.append(LossRecord(epoch, *(terms / len(tasks)).tolist()))
        if on_epoch is not None:
            on_epoch(history[-1])
    return history


def _loss_terms(network: SpaHGCNetwork, task: Task, settings: TrainingSettings, rng: np.random.Generator) -> Tensor:
    """Expression, alignment of the target nodes, alignment of the reference nodes."""
    view_1, view_2 = masked_views(task.graph, settings.target_hidden, settings.reference_hidden, rng)
    target, reference = network.encode(view_1)
    predicted = network.decode(target, reference, task.graph.cs)
    predicted = predicted if task.read_out is None else predicted @ task.read_out
    terms = [expression_loss(predicted, task.measured)]
    if settings.alignment:
        with torch.no_grad():  # the stop-gradient: view 2 is only what view 1 is aligned to
            target_aim, reference_aim = network.encode(view_2)
        terms += [
            settings.alignment * alignment_loss(state, aim)
            for state, aim in ((target, target_aim), (reference, reference_aim))
        ]
    else:
        terms += [terms[0].new_zeros(())] * 2
    return torch.stack(terms)


@torch.inference_mode()
def predict_expression(network: SpaHGCNetwork, graph: HeteroGraph, settings: TrainingSettings) -> Tensor:
    """Expression of the target spots, spots x genes, from features of which nothing is hidden."""
    network.eval()
    predicted: Tensor = network(expected_view(graph, settings.target_hidden, settings.reference_hidden))
    return predicted
