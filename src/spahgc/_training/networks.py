"""Networks: training on a bank, every slide in its role, and what they predict of a target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from spahgc._random import drawing_from
from spahgc._settings import launched, progress_bar
from spahgc._spots.plane import spatial_blocks
from spahgc._spots.rows import read
from spahgc._training.graphs import training_tasks
from spahgc._training.processes import ProcessGroup, joined_processes, warn_of_idle
from spahgc.nn import (
    WHOLE,
    Blocks,
    LossRecord,
    SpaHGCNetwork,
    Task,
    predict_and_attend,
    retrieval_weights,
    train,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from scipy.sparse import csr_matrix

    from spahgc._linear.node_features import NodeFeatures
    from spahgc._parameters import Parameters
    from spahgc._spots.rows import Spots
    from spahgc.nn import HeteroGraph
    from spahgc.pp._register.lays import Lays

COMPARED = 64
"""Reference spots, evenly spaced, by which processes see whether they were given the same."""

MAX_WHOLE_SPOTS = 20_000
"""Spots beyond which a slide is predicted in blocks; what runs along the edges of so many takes about 1 GB."""

PREDICTION_BLOCK_SPOTS = 8_192
"""Spots of a block, at most."""


def train_networks(
    spots: Spots,
    node_features: NodeFeatures,
    parameters: Parameters,
    *,
    seed: int,
    device: str,
    rs_graph: csr_matrix | None = None,
    lays: Lays | None = None,
) -> tuple[list[SpaHGCNetwork], list[LossRecord]]:
    """Train on all slides, each in turn in the role of the target.

    Processes that torchrun or ``accelerate launch`` started share the slides of every step among them. All call this
    with the same arguments, and get the same networks.

    Parameters
    ----------
    spots
        Spots of all references.
    node_features
        What the nodes carry.
    parameters
        All numbers of the fit.
    seed
        Seed of initial weights and masks.
    device
        Torch device; of several processes each takes its own of that kind.
    rs_graph
        RS graph of all references, if it is known already; see :func:`training_tasks`.
    lays
        How they lie on each other, for networks that know place; ``None`` for networks without.

    Returns
    -------
    The networks, on the CPU, and the losses of every epoch of each of them.
    """
    networks: list[SpaHGCNetwork] = []
    history: list[LossRecord] = []
    if not parameters.epochs:
        return networks, history
    processes = joined_processes(device) if launched() else None
    if processes is not None:
        device = processes.device
        _check_same_references(node_features, processes)
    tasks = training_tasks(spots, node_features, parameters, device, seed=seed, rs_graph=rs_graph, lays=lays)
    pitch_um = None if lays is None or lays.microns is None else lays.microns.pitch_um
    if processes is not None:
        warn_of_idle(processes, parameters.tasks_per_step, len(tasks))
    total = parameters.n_networks * parameters.epochs
    is_first = processes is None or processes.rank == 0
    with progress_bar(total=total, desc="training", unit="epoch") if is_first else nullcontext() as bar:

        def report(record: LossRecord) -> None:
            if bar is not None:
                bar.set_postfix(loss=f"{record.total:.3f}", refresh=False)
                bar.update()

        for member in range(parameters.n_networks):
            member_seed = [seed, member] if member else seed
            network, losses = _train(tasks, node_features, parameters, member_seed, device, report, processes, pitch_um)
            networks.append(network.cpu())
            history += losses
    return networks, history


def loss_columns(history: Sequence[LossRecord]) -> dict[str, list[float]]:
    """The losses of every epoch as one list a term, which ``uns`` and its files can hold."""
    rows = [record.to_dict() for record in history]
    return {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}


def loss_records(columns: Mapping[str, Sequence[float]]) -> list[LossRecord]:
    """The inverse of :func:`loss_columns`."""
    rows = (dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True))
    return [LossRecord(int(row.pop("epoch")), row) for row in rows]


def _check_same_references(node_features: NodeFeatures, processes: ProcessGroup) -> None:
    """Refuse to train together where another process was given other references, or turned an axis the other way."""
    parts = node_features.features, node_features.expression
    processes.check_same(np.array([size for part in parts for size in part.shape]), "references")
    for part in parts:
        rows = np.unique(np.linspace(0, part.shape[0] - 1, COMPARED).round().astype(np.int64))
        processes.check_same(read(part, rows), "references")


def _train(
    tasks: Sequence[Task | Iterator[Task]],
    node_features: NodeFeatures,
    parameters: Parameters,
    seed: int | list[int],
    device: str,
    report: Callable[[LossRecord], None],
    processes: ProcessGroup | None,
    pitch_um: float | None,
) -> tuple[SpaHGCNetwork, list[LossRecord]]:
    rng = np.random.default_rng(seed)
    initial = seed if isinstance(seed, int) else int(np.random.default_rng(seed).integers(2**31))
    with drawing_from(initial), torch.device("cpu"):  # also where the user's default is another device
        sizes = node_features.features.shape[1], node_features.expression.shape[1]
        network = new_network(*sizes, parameters, pitch_um=pitch_um)
    network.to(device)
    history = train(network, tasks, parameters, rng=rng, on_epoch=report, processes=processes)
    if processes is not None:  # equal already, unless the machines round differently
        with torch.no_grad():
            for weights in network.parameters():
                weights.copy_(processes.first(weights))
    return network, history


def new_network(
    feature_dim: int, outputs: int, parameters: Parameters, *, pitch_um: float | None = None
) -> SpaHGCNetwork:
    """A network of the size that the parameters ask for; one that knows place where spots have a distance, microns."""
    return SpaHGCNetwork(
        feature_dim,
        outputs,
        width=parameters.width,
        layers=parameters.layers,
        heads=parameters.heads,
        retrieval=bool(parameters.n_retrieved),
        pitch_um=pitch_um,
    )


@dataclass(frozen=True)
class Prediction:
    """All that a model predicts of a target.

    Parameters
    ----------
    expression
        Spots x genes of the panel, float32.
    cross
        The edges that it stands on, target spots x bank spots, CSR, cosine similarity: the CS graph, and where edges by place have
        a part those as well.
    attention
        The same edges, values = attention of the networks, rows sum to 1; ``None`` without networks.
    support
        How well the references cover what each spot looks like, 0 to 1; ``None`` where nothing says so.
    search
        How the CS graph was found: exactly, or with which recall. Empty where it was given.
    place
        Quality of every pair of target and reference, whether it is used, and the weights of the experts. Empty where the
        target has no place among the references.
    by_place
        Edges by place, target spots x bank spots, CSR, microns; ``None`` where they have no part.
    """

    expression: np.ndarray
    cross: csr_matrix
    attention: csr_matrix | None
    support: np.ndarray | None
    search: Mapping[str, str | float]
    place: Mapping[str, Any] = field(default_factory=dict)
    by_place: csr_matrix | None = None


def empty_network(
    feature_dim: int, outputs: int, parameters: Parameters, *, pitch_um: float | None = None
) -> SpaHGCNetwork:
    """A network of that size whose weights are still to be loaded; none are drawn for it."""
    with torch.device("meta"):
        network = new_network(feature_dim, outputs, parameters, pitch_um=pitch_um)
    return network.to_empty(device="cpu")


def predict_networks(
    networks: Sequence[SpaHGCNetwork],
    graph: HeteroGraph,
    xy: np.ndarray,
    parameters: Parameters,
    device: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Mean over the networks of their outputs and of their attention.

    Parameters
    ----------
    networks
        On the CPU, where they stay: other Python threads may predict with them at the same time.
    graph
        Graph of the target.
    xy
        Centres of its spots.
    parameters
        All numbers of the fit.
    device
        Torch device.

    Returns
    -------
    Output, target spots x outputs, float32; and the attention on the CS edges, mean over layers, pooling and heads, in the
    order of ``graph.cs``, or of retrieval over its heads, in the order of ``graph.retrieved``, float32.
    """
    blocks: Blocks = WHOLE
    if len(xy) > MAX_WHOLE_SPOTS:
        blocks = [torch.from_numpy(rows).to(device) for rows in spatial_blocks(xy, PREDICTION_BLOCK_SPOTS)]
    outputs, attention = [], []
    for network in networks:
        expression, by_layer = predict_and_attend(_on(network, device), graph, parameters, blocks)
        outputs.append(expression.cpu().numpy())
        attention.append(by_layer.mean(0).cpu().numpy())
    mean = np.asarray(np.mean(attention, axis=0, dtype=np.float64), dtype=np.float32)
    return np.asarray(np.mean(outputs, axis=0)), mean


def retrieve_networks(
    networks: Sequence[SpaHGCNetwork], graph: HeteroGraph, parameters: Parameters, device: str
) -> tuple[np.ndarray, np.ndarray]:
    """Mean over networks with retrieval of the factors on its edges, edges x outputs, and of the offset, outputs."""
    weights = [retrieval_weights(_on(network, device), graph, parameters).cpu().numpy() for network in networks]
    offsets = [network.retrieval.offset.detach().numpy() for network in networks if network.retrieval is not None]
    mean = [np.asarray(np.mean(parts, axis=0, dtype=np.float64)) for parts in (weights, offsets)]
    return mean[0], mean[1]


def _on(network: SpaHGCNetwork, device: str) -> SpaHGCNetwork:
    """The network on a device: itself on the CPU, a copy elsewhere."""
    return network if device == "cpu" else deepcopy(network).to(device)
