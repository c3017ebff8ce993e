"""Training on the references, each in turn in the role of the target: masks, loss, steps; and prediction with what was trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import torch

from spahgc.nn._losses import LOSS_TERMS, StepOutputs
from spahgc.nn._network import WHOLE, Blocks, States

if TYPE_CHECKING:
    from torch import Tensor

    from spahgc._parameters import Parameters
    from spahgc.nn._network import HeteroGraph, SpaHGCNetwork

HALF_PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""Number formats of 16 bits by name."""


def complementary_masks(like: Tensor, hidden: float, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Draw two masks of zeros and ones with ``mask_1 + mask_2 == 1`` everywhere.

    Parameters
    ----------
    like
        Features to be masked; the masks take its shape, dtype and device.
    hidden
        Probability, 0 to 1, that an entry is hidden in view 1 (and so is kept in view 2).
    rng
        Source of randomness: NumPy's, so that a seed draws the same masks on every device (and three times as fast as
        torch draws them on a CPU).

    Returns
    -------
    The masks of view 1 and of view 2.
    """
    shown = torch.from_numpy(rng.random(like.shape, dtype=np.float32) >= hidden).to(like)
    return shown, 1 - shown


def masked_views(
    graph: HeteroGraph,
    target_hidden: float,
    reference_hidden: float,
    rng: np.random.Generator,
    expression_hidden: float | None = None,
) -> Iterator[HeteroGraph]:
    """Two views of one graph, one after the other: same edges, complementary entries of image features and expression.

    All masks are drawn with the first view; the second is made only where it is asked for. Of expression the share of a
    reference's other entries is hidden, unless another is passed.
    """
    shares = _hidden(target_hidden, reference_hidden, expression_hidden)
    masks = {name: complementary_masks(getattr(graph, name), hidden, rng) for name, hidden in shares.items()}
    for view in range(2):
        yield replace(graph, **{name: getattr(graph, name) * both[view] for name, both in masks.items()})


def _hidden(target: float, reference: float, expression: float | None) -> dict[str, float]:
    return {"target": target, "reference": reference, "expression": reference if expression is None else expression}


def expected_view(
    graph: HeteroGraph, target_hidden: float, reference_hidden: float, expression_hidden: float | None = None
) -> HeteroGraph:
    """View 1 as it is on average over all masks: every entry times the probability that it is kept.

    The network learned to predict from view 1. Its expectation is to it what unmasked features are to a network
    trained with dropout: nothing is hidden, nothing is random, and sums keep the size that the weights know.
    """
    return replace(graph, hidden=_hidden(target_hidden, reference_hidden, expression_hidden))


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
    known
        Numbers of those genes that ``measured`` holds, where the slide did not measure all; the loss is of these alone.
    """

    graph: HeteroGraph
    measured: Tensor
    gene_loadings: Tensor | None = None
    known: Tensor | None = None


@dataclass(frozen=True)
class LossRecord:
    """Terms of the loss by name, averaged over the slides of one epoch."""

    epoch: int
    terms: Mapping[str, float]

    @property
    def total(self) -> float:
        """The quantity that is minimised."""
        return sum(self.terms.values())

    def to_dict(self) -> dict[str, float]:
        """Number of the epoch and terms by name."""
        return {"epoch": self.epoch, **self.terms}


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
    tasks: Sequence[Task | Iterator[Task]],
    parameters: Parameters,
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
        Each slide in the role of the target, or an iterator that gives another part of it in every epoch. Of
        several processes each takes every so many-th of a step, and reads no
        other.
    parameters
        All numbers of the fit.
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
        lr=parameters.learning_rate,
        weight_decay=parameters.weight_decay,
        fused=device.type != "mps",  # where older torch has no fused step
    )
    scaler = torch.amp.GradScaler(device.type, enabled=parameters.precision == "fp16")
    scaler.scale(torch.zeros(1, device=device))  # makes its scale, also in a process whose first step has no slide
    streams = _streams(rng, parameters.tasks_per_step)
    history: list[LossRecord] = []
    for epoch in range(1, parameters.epochs + 1):
        network.train()
        terms = torch.zeros(len(LOSS_TERMS), device=device)
        for start in range(0, len(tasks), parameters.tasks_per_step):
            size = min(parameters.tasks_per_step, len(tasks) - start)
            optimiser.zero_grad()
            for position in range(processes.rank, size, processes.count):
                item = tasks[start + position]
                task = item if isinstance(item, Task) else next(item)
                parts = _loss_terms(network, task, parameters, streams[position])
                scaler.scale(parts.sum() / size).backward()
                terms += parts.detach()
            if processes.count > 1:
                _add_up_gradients(network, processes)
            scaler.step(optimiser)
            scaler.update()
        means = (processes.total(terms).cpu() / len(tasks)).tolist()
        history.append(LossRecord(epoch, dict(zip(LOSS_TERMS, means, strict=True))))
        if on_epoch is not None:
            on_epoch(history[-1])
    return history


def _streams(rng: np.random.Generator, tasks_per_step: int) -> list[np.random.Generator]:
    """A source of masks for every position within a step.

    A position belongs to one process, which draws for its own and no others. So what is drawn does not depend on how many
    processes there are.
    """
    return [rng] if tasks_per_step == 1 else rng.spawn(tasks_per_step)


def _add_up_gradients(network: SpaHGCNetwork, processes: Processes) -> None:
    """Give every process the sum of all gradients; one that had no slide in this step adds nothing.

    Weights that no slide of the step used, such as those of place where none had edges by place, have no gradient in the end, as
    in a process that trains alone: the optimiser leaves them as they are.

    Not DistributedDataParallel: that wants one forward and backward pass of every process in every step, and divides by
    their number instead of that of the slides.
    """
    parameters = list(network.parameters())
    own = [torch.zeros_like(weights) if weights.grad is None else weights.grad for weights in parameters]
    used = own[0].new_tensor([weights.grad is not None for weights in parameters])
    summed = processes.total(torch.cat([*(gradient.flatten() for gradient in own), used]))
    *gradients, n_using = summed.split([*(weights.numel() for weights in parameters), len(parameters)])
    for weights, gradient, n in zip(parameters, gradients, n_using.tolist(), strict=True):
        weights.grad = gradient.view_as(weights) if n else None


def _loss_terms(network: SpaHGCNetwork, task: Task, parameters: Parameters, rng: np.random.Generator) -> Tensor:
    """The weighted terms of the loss, in the order of the registry."""
    views = masked_views(
        task.graph, parameters.target_hidden, parameters.reference_hidden, rng, parameters.expression_hidden
    )
    exact, judged = task.measured.dtype, slice(len(task.measured))

    def as_exact(states: States) -> States:
        """What a lower precision computed goes back to that of the task."""
        return States(states.target[judged].to(exact), states.reference.to(exact))

    def encode_view_2() -> States:
        # The stop-gradient: view 2 is only what view 1 is aligned to.
        with torch.no_grad(), _precision(parameters, task.measured.device):
            return as_exact(network.encode(next(views))[0])

    with _precision(parameters, task.measured.device):
        view = next(views)
        states, _ = network.encode(view)
        predicted = network.decode(states, view)[0][judged].to(exact)
    predicted = predicted if task.gene_loadings is None else predicted @ task.gene_loadings
    predicted = predicted if task.known is None else predicted[:, task.known]
    step = StepOutputs(predicted, task.measured, as_exact(states), encode_view_2)
    terms = []
    for loss, name in LOSS_TERMS.values():
        weight = 1.0 if name is None else getattr(parameters, name)
        terms.append(weight * loss(step) if weight else task.measured.new_zeros(()))
    return torch.stack(terms)


def _precision(parameters: Parameters, device: torch.device) -> torch.autocast:
    """Where the network computes in the number format of the parameters."""
    half = HALF_PRECISIONS.get(parameters.precision)
    return torch.autocast(device.type, dtype=half, enabled=half is not None)


@torch.inference_mode()
def predict_expression(network: SpaHGCNetwork, graph: HeteroGraph, parameters: Parameters) -> Tensor:
    """Expression of the target spots, spots x genes, from features of which nothing is hidden."""
    return predict_and_attend(network, graph, parameters)[0]


@torch.inference_mode()
def predict_and_attend(
    network: SpaHGCNetwork, graph: HeteroGraph, parameters: Parameters, blocks: Blocks = WHOLE
) -> tuple[Tensor, Tensor]:
    """Expression of the target spots, and the attention weights of the CS edges from which it came.

    Parameters
    ----------
    network
        On the device of the graph.
    graph
        Graph of a target, of which nothing is hidden.
    parameters
        All numbers of the fit.
    blocks
        Numbers of the target nodes, each in one block, for a slide too large to hold what runs along all its edges.

    Returns
    -------
    Expression and attention, as :meth:`SpaHGCNetwork.attend` returns them.
    """
    network.eval()
    hidden = parameters.target_hidden, parameters.reference_hidden, parameters.expression_hidden
    return network.attend(expected_view(graph, *hidden), blocks)


@torch.no_grad()
def retrieval_weights(network: SpaHGCNetwork, graph: HeteroGraph, parameters: Parameters) -> Tensor:
    """Factor of every source's expression in the retrieval at the end of its edge, edges x genes.

    The prediction of a network without layers is the sum of expression times factor over the edges of a target spot, and
    the offset of the retrieval.

    Parameters
    ----------
    network
        With retrieval, on the device of the graph.
    graph, parameters
        As in :func:`predict_and_attend`.
    """
    network.eval()
    hidden = parameters.target_hidden, parameters.reference_hidden, parameters.expression_hidden
    return network.retrieval_weights(expected_view(graph, *hidden))
