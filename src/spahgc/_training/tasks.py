"""Every slide in the role of the target, as the training takes them one after another; large ones in blocks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_matrix

from spahgc._spots.plane import reached, spatial_blocks, with_halo
from spahgc._spots.rows import SomeRows, read
from spahgc._spots.spots import Spots, leave_one_out
from spahgc._training.graphs import among, hetero_graph, joined, judged_task, subgraphs, training_task
from spahgc.nn import Task
from spahgc.pp._bank.build import make_rs_graph
from spahgc.pp._edge_types import REFERENCE, RS, TARGET, Nodes, build_edges

if TYPE_CHECKING:
    from spahgc._linear.node_features import NodeFeatures
    from spahgc._parameters import Parameters

MAX_TASK_SPOTS = 10_000
"""Spots beyond which a slide plays the target in blocks. An epoch sees as many of its spots and no more."""

MAX_TASK_BANK = 50_000
"""Reference spots beyond which a task holds only those that its spots retrieve, with their RS neighbours."""

TASK_BLOCK_SPOTS = 2_048
"""Spots of a block, at most, its halo not counted."""

SPARE_NEIGHBORS = 2
"""RS neighbours that are looked for, over those that are wanted: some lie on the slide that plays the target."""


def training_tasks(
    spots: Spots,
    node_features: NodeFeatures,
    parameters: Parameters,
    device: str,
    *,
    seed: int = 0,
    rs_graph: csr_matrix | None = None,
) -> list[Task | Iterator[Task]]:
    """Each slide (or half of a single one) in the role of the target.

    A slide of at most 10,000 spots is one task, whose bank are all other slides, unless these have more than 50,000
    spots together. A larger slide is cut into blocks of neighbouring spots. A task is then a block with the halo in the
    plane that its states depend on; the loss is that of the block's own spots. Its reference nodes are those that its
    spots retrieve, with their RS neighbours.

    An epoch takes 10,000 spots of a large slide: a few blocks, and others in the next epoch, in an order that the seed
    draws. The time of a training thus does not grow with the size of a slide beyond that. At such a position stands an
    iterator, which makes the task of its next block when it is asked for one. Which block that is depends on how often it
    was asked and on nothing else, so that processes that share an epoch among them, and ask each at its own positions,
    train on the blocks of one that has all.

    Parameters
    ----------
    spots
        Spots of all references.
    node_features
        What the nodes carry.
    parameters
        All numbers of the fit.
    device
        Torch device.
    seed
        Seed of the order of the blocks.
    rs_graph
        RS graph of all references from :func:`spare_rs_graph`; ``None`` makes it where it is needed.
    """
    tasks: list[Task | Iterator[Task]] = []
    for number, (target, bank) in enumerate(leave_one_out(spots)):
        if not _is_large(target, bank):
            tasks.append(training_task(spots, node_features, target, bank, parameters, device))
            continue
        rs_graph = spare_rs_graph(node_features, parameters) if rs_graph is None else rs_graph
        slide = SlideTask.of(spots, node_features, target, bank, rs_graph, parameters, device)
        blocks = spatial_blocks(spots.xy[target], TASK_BLOCK_SPOTS if len(target) > MAX_TASK_SPOTS else MAX_TASK_SPOTS)
        np.random.default_rng([seed, number]).shuffle(blocks)
        turns = max(1, min(len(blocks), round(MAX_TASK_SPOTS * len(blocks) / len(target))))
        tasks += [map(slide.task, cycle(blocks[first::turns])) for first in range(turns)]
    return tasks


def trains_in_blocks(spots: Spots) -> bool:
    """Whether any slide is trained in blocks."""
    return any(_is_large(target, bank) for target, bank in leave_one_out(spots))


def spare_rs_graph(node_features: NodeFeatures, parameters: Parameters) -> csr_matrix:
    """RS graph of all references with twice the neighbours of a spot, as far as there are so many."""
    wanted = min(SPARE_NEIGHBORS * parameters.n_reference, node_features.features.shape[0] - 1)
    return make_rs_graph(node_features.features, node_features.expression, wanted)


def most_similar(graph: csr_matrix, k: int) -> csr_matrix:
    """The ``k`` largest values of every row, or all if fewer; the order within a row stays."""
    row = np.repeat(np.arange(graph.shape[0]), np.diff(graph.indptr))
    order = np.lexsort((-graph.data, row))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order)) - graph.indptr[row[order]]
    is_similar = rank < k
    ends = np.concatenate([[0], np.cumsum(is_similar)])[graph.indptr]
    return csr_matrix((graph.data[is_similar], graph.indices[is_similar], ends), shape=graph.shape)


def _is_large(target: np.ndarray, bank: np.ndarray) -> bool:
    return len(target) > MAX_TASK_SPOTS or len(bank) > MAX_TASK_BANK


@dataclass(frozen=True)
class SlideTask:
    """A slide in the role of the target that is too large, or whose bank is, for one graph of everything.

    Parameters
    ----------
    node_features
        What the nodes carry, of all references.
    target, bank
        Numbers of the spots in either role.
    graphs
        Graphs between them, by the name of their type.
    layers
        Of the network, whose reach is so many edges.
    device
        Torch device.
    """

    node_features: NodeFeatures
    target: np.ndarray
    bank: np.ndarray
    graphs: dict[str, csr_matrix]
    layers: int
    device: str

    @classmethod
    def of(
        cls,
        spots: Spots,
        node_features: NodeFeatures,
        target: np.ndarray,
        bank: np.ndarray,
        rs_graph: csr_matrix,
        parameters: Parameters,
        device: str,
    ) -> SlideTask:
        """The graphs as a whole, which are small beside what the nodes carry."""
        features = node_features.features
        nodes = {
            TARGET: Nodes(SomeRows(features, target), spots.xy[target]),
            REFERENCE: Nodes(SomeRows(features, bank), spots.xy[bank], SomeRows(node_features.expression, bank)),
        }
        peers = most_similar(among(rs_graph[bank], bank), parameters.n_reference)
        where = device if device.startswith("cuda") else "cpu"
        graphs = build_edges(nodes, parameters, known={RS.name: peers}, device=where)
        return cls(node_features, target, bank, graphs, parameters.layers, device)

    def task(self, block: np.ndarray) -> Task:
        """A block of the target's spots, by number; the graph holds them first and their halo after them."""
        shown = with_halo(block, joined(self.graphs, TARGET, TARGET), self.layers)
        retrieved = joined(self.graphs, REFERENCE, TARGET)[shown].indices
        known = reached(retrieved, joined(self.graphs, REFERENCE, REFERENCE), 1)
        references, features = self.bank[known], self.node_features.features
        nodes = {
            TARGET: Nodes(read(features, self.target[shown])),
            REFERENCE: Nodes(read(features, references), expression=self.node_features.expression[references]),
        }
        graph = hetero_graph(nodes, subgraphs(self.graphs, {TARGET: shown, REFERENCE: known}), self.device)
        return judged_task(graph, self.node_features, self.target[block], self.device)
