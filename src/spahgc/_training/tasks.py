"""Every slide in the role of the target, as the training takes them one after another; large ones in blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, overload

import numpy as np
from scipy.sparse import csr_matrix

from spahgc._spots.plane import nearest_in_plane, reached, spatial_blocks, with_halo
from spahgc._spots.rows import SomeRows, read
from spahgc._spots.spots import Spots, leave_one_out
from spahgc._training.graphs import among, as_tensor, hetero_graph, training_task
from spahgc.pp._bank.build import make_rs_graph
from spahgc.pp._search.neighbors import search_neighbors

if TYPE_CHECKING:
    from spahgc._linear.node_features import NodeFeatures
    from spahgc._parameters import Parameters
    from spahgc.nn import Task

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
) -> TrainingTasks:
    """Each slide (or half of a single one) in the role of the target.

    A slide of at most 10,000 spots is one task, whose bank are all other slides, unless these have more than 50,000
    spots together. A larger slide is cut into blocks of neighbouring spots. A task is then a block with the halo in the
    plane that its states depend on; the loss is that of the block's own spots. Its reference nodes are those that its
    spots retrieve, with their RS neighbours.

    An epoch takes 10,000 spots of a large slide: a few blocks, and others in the next epoch, in an order that the seed
    draws. The time of a training thus does not grow with the size of a slide beyond that.

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
    places: list[Task | _Turns] = []
    for number, (target, bank) in enumerate(leave_one_out(spots)):
        if not _is_large(target, bank):
            places.append(training_task(spots, node_features, target, bank, parameters, device))
            continue
        rs_graph = spare_rs_graph(node_features, parameters) if rs_graph is None else rs_graph
        role = _LargeRole.of(spots, node_features, target, bank, rs_graph, parameters, device)
        blocks = spatial_blocks(spots.xy[target], TASK_BLOCK_SPOTS if len(target) > MAX_TASK_SPOTS else MAX_TASK_SPOTS)
        np.random.default_rng([seed, number]).shuffle(blocks)
        turns = max(1, min(len(blocks), round(MAX_TASK_SPOTS * len(blocks) / len(target))))
        places += [_Turns(role, blocks[first::turns]) for first in range(turns)]
    return TrainingTasks(places)


def has_large_role(spots: Spots) -> bool:
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
    kept = rank < k
    ends = np.concatenate([[0], np.cumsum(kept)])[graph.indptr]
    return csr_matrix((graph.data[kept], graph.indices[kept], ends), shape=graph.shape)


def _is_large(target: np.ndarray, bank: np.ndarray) -> bool:
    return len(target) > MAX_TASK_SPOTS or len(bank) > MAX_TASK_BANK


class TrainingTasks(Sequence["Task"]):
    """Tasks of an epoch. Those of large slides are made when they are read, another block each time.

    Which block a place holds depends on how often this place was read and on nothing else, so that processes that share
    an epoch among them, and read each its own places, train on the blocks of one that reads all.
    """

    def __init__(self, places: Sequence[Task | _Turns]) -> None:
        self._places = list(places)

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, place: int, /) -> Task: ...
    @overload
    def __getitem__(self, place: slice, /) -> TrainingTasks: ...
    def __getitem__(self, place: int | slice, /) -> Task | TrainingTasks:
        if isinstance(place, slice):
            return TrainingTasks(self._places[place])
        item = self._places[place]
        return item.next() if isinstance(item, _Turns) else item


class _Turns:
    """Blocks of a slide that take turns in one place of an epoch."""

    def __init__(self, role: _LargeRole, blocks: list[np.ndarray]) -> None:
        self._role, self._blocks, self._turn = role, blocks, 0

    def next(self) -> Task:
        """The task of the block whose turn it is."""
        block = self._blocks[self._turn % len(self._blocks)]
        self._turn += 1
        return self._role.task(block)


@dataclass(frozen=True)
class _LargeRole:
    """A slide in the role of the target that is too large, or whose bank is, for one graph of everything.

    Parameters
    ----------
    node_features
        What the nodes carry, of all references.
    target, bank
        Numbers of the spots in either role.
    near, cross, rs_graph
        TS graph of the target, CS graph from bank to target, RS graph of the bank.
    layers
        Of the network, whose reach is so many edges.
    device
        Torch device.
    """

    node_features: NodeFeatures
    target: np.ndarray
    bank: np.ndarray
    near: csr_matrix
    cross: csr_matrix
    rs_graph: csr_matrix
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
    ) -> _LargeRole:
        """The graphs as a whole, which are small beside what the nodes carry."""
        near, _ = nearest_in_plane(spots.xy[target], parameters.n_spatial)
        known = SomeRows(node_features.features, target), SomeRows(node_features.features, bank)
        where = device if device.startswith("cuda") else "cpu"
        cross = search_neighbors(*known, parameters.n_cross, device=where).graph
        own = most_similar(among(rs_graph[bank], bank), parameters.n_reference)
        return cls(node_features, target, bank, near, cross, own, parameters.layers, device)

    def task(self, block: np.ndarray) -> Task:
        """A block of the target's spots, by number; the graph holds them first and their halo after them."""
        from spahgc.nn import Task

        shown = with_halo(block, self.near, self.layers)
        nodes = reached(self.cross[shown].indices, self.rs_graph, 1)
        spots, references = self.target[shown], self.bank[nodes]
        graph = hetero_graph(
            read(self.node_features.features, spots),
            read(self.node_features.features, references),
            self.node_features.expression[references],
            self.near[shown][:, shown],
            among(self.cross[shown], nodes),
            among(self.rs_graph[nodes], nodes),
            self.device,
        )
        gene_loadings = self.node_features.gene_loadings
        return Task(
            graph,
            as_tensor(read(self.node_features.training_target, self.target[block]), self.device),
            None if gene_loadings is None else as_tensor(gene_loadings, self.device),
        )
