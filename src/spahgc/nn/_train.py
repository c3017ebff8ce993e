"""Training on the references, each in turn in the role of the target; prediction of a target."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch

from spahgc.nn._losses import alignment_loss, expression_loss
from spahgc.nn._masks import expected_view, masked_views

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from torch import Tensor

    from spahgc.nn._graph import HeteroGraph
    from spahgc.nn._network import SpaHGCNetwork

HALF_PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""Number formats of 16 bits by name."""


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
    tasks_per_step: int = 1
    """Slides whose gradients are averaged for one step of the optimiser."""
    precision: str = "fp32"
    """Number format in which the network computes; weights, losses and optimiser stay in fp32."""


class Task(NamedTuple):
    """A slide in the role of the target, with its bank, and what was measured on it.

    Parameters
    ----------
    graph
        Its graph.
    measured
        Genes that the prediction is compared with, spots x genes: of all target nodes, or of the first ones, where the
        others are the halo of a block.
    gene_loadings
        From outputs to genes, outputs x genes, where they are not the same.
    """

    graph: HeteroGraph
    measured: Tensor
    gene_loadings: Tensor | None = None


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


class Processes(Protocol):
    """Processes that train one network together, each with the same weights, as one of them sees them."""

    @property
    def rank(self) -> int:
        """Number of this process, from 0."""

    @property
    def count(self) -> int:
        """How many there are."""

    def total(self, tensor: Tensor) -> Tensor:
        """Sum over all processes; every one of them has to call it, and gets the same numbers."""


@dataclass(frozen=True)
class Alone:
    """The only process."""

    rank: int = 0
    count: int = 1

    def total(self, tensor: Tensor) -> Tensor:
        """The tensor itself."""
        return tensor


def train(
    network: SpaHGCNetwork,
    tasks: Sequence[Task],
    settings: TrainingSettings,
    *,
    rng: np.random.Generator,
    on_epoch: Callable[[LossRecord], None] | None = None,
    processes: Processes | None = None,
) -> list[LossRecord]:
    """Train a network in place: one step for every few slides, all slides an epoch.

    Parameters
    ----------
    network
        On the device of the tasks.
    tasks
        Each slide in the role of the target. Of several processes each takes every so many-th of a step, and looks at no
        other.
    settings
        Numbers of the training.
    rng
        Source of the masks.
    on_epoch
        Called with the losses of every epoch.
    processes
        Those that train it together; ``None`` for this one alone. All pass the same arguments. Their number changes the
        result by rounding only.

    Returns
    -------
    The losses of every epoch.
    """
    processes = Alone() if processes is None else processes
    device = next(network.parameters()).device
    optimiser = torch.optim.Adam(
        network.parameters(),
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
        fused=device.type != "mps",  # where older torch has no fused step
    )
    scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "fp16")
    scaler.scale(torch.zeros(1, device=device))  # makes its scale, also in a process whose first step has no slide
    streams = _streams(rng, settings.tasks_per_step)
    history: list[LossRecord] = []
    for epoch in range(1, settings.epochs + 1):
        network.train()
        terms = torch.zeros(3, device=device)
        for start in range(0, len(tasks), settings.tasks_per_step):
            size = min(settings.tasks_per_step, len(tasks) - start)
            optimiser.zero_grad()
            for place in range(processes.rank, size, processes.count):
                parts = _loss_terms(network, tasks[start + place], settings, streams[place])
                scaler.scale(parts.sum() / size).backward()
                terms += parts.detach()
            if processes.count > 1:
                _add_up_gradients(network, processes)
            scaler.step(optimiser)
            scaler.update()
        history.append(LossRecord(epoch, *(processes.total(terms).cpu() / len(tasks)).tolist()))
        if on_epoch is not None:
            on_epoch(history[-1])
    return history


def _streams(rng: np.random.Generator, tasks_per_step: int) -> list[np.random.Generator]:
    """A source of masks for every place within a step.

    A place belongs to one process. It draws for its own places and no others, and what it draws does not depend on how
    many processes there are.
    """
    return [rng] if tasks_per_step == 1 else rng.spawn(tasks_per_step)


def _add_up_gradients(network: SpaHGCNetwork, processes: Processes) -> None:
    """Give every process the sum of all gradients; one that had no slide in this step adds nothing.

    Not DistributedDataParallel: that wants one forward and backward pass of every process in every step, and divides by
    their number instead of that of the slides.
    """
    parameters = list(network.parameters())
    own = [torch.zeros_like(weights) if weights.grad is None else weights.grad for weights in parameters]
    summed = processes.total(torch.cat([gradient.flatten() for gradient in own]))
    for weights, gradient in zip(parameters, summed.split([weights.numel() for weights in parameters]), strict=True):
        weights.grad = gradient.view_as(weights)


def _loss_terms(network: SpaHGCNetwork, task: Task, settings: TrainingSettings, rng: np.random.Generator) -> Tensor:
    """Expression, alignment of the target nodes, alignment of the reference nodes."""
    view_1, view_2 = masked_views(task.graph, settings.target_hidden, settings.reference_hidden, rng)
    with _precision(settings, task.measured.device):
        target, reference = network.encode(view_1)
        predicted = network.decode(target, reference, task.graph.cs)[: len(task.measured)]
    exact = task.measured.dtype  # what a lower precision computed goes back to that of the task
    predicted = predicted.to(exact)
    predicted = predicted if task.gene_loadings is None else predicted @ task.gene_loadings
    terms = [expression_loss(predicted, task.measured)]
    if settings.alignment:
        # The stop-gradient: view 2 is only what view 1 is aligned to.
        with torch.no_grad(), _precision(settings, task.measured.device):
            target_aim, reference_aim = network.encode(view_2)
        own = slice(len(task.measured))
        terms += [
            settings.alignment * alignment_loss(state.to(exact), aim.to(exact))
            for state, aim in ((target[own], target_aim[own]), (reference, reference_aim))
        ]
    else:
        terms += [terms[0].new_zeros(())] * 2
    return torch.stack(terms)


def _precision(settings: TrainingSettings, device: torch.device) -> torch.autocast:
    """Where the network computes in the number format of the settings."""
    half = HALF_PRECISIONS.get(settings.precision)
    return torch.autocast(device.type, dtype=half, enabled=half is not None)


@torch.inference_mode()
def predict_expression(network: SpaHGCNetwork, graph: HeteroGraph, settings: TrainingSettings) -> Tensor:
    """Expression of the target spots, spots x genes, from features of which nothing is hidden."""
    network.eval()
    predicted: Tensor = network(expected_view(graph, settings.target_hidden, settings.reference_hidden))
    return predicted
