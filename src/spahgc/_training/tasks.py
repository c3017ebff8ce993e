"""Every slide in the role of the target, as the training takes them one after another; large ones in blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, overload

import numpy as np
from scipy.sparse import csr_matrix

from spahgc._spots.blocks import reached, spatial_blocks, with_halo
from spahgc._spots.plane import nearest_in_plane
from spahgc._spots.rows import SomeRows, read
from spahgc._spots.spots import Spots, roles
from spahgc._training.graphs import among, as_tensor, hetero_graph, training_task
from spahgc.pp._bank.build import similar_peers
from spahgc.pp._search.neighbors import search_neighbors

if TYPE_CHECKING:
    from spahgc._linear.node_features import Basis
    from spahgc._parameters import Parameters
    from spahgc.nn import Task

LARGE_SLIDE = 10_000
"""Spots beyond which a slide plays the target in blocks. An epoch sees as many of its spots and no more."""

LARGE_BANK = 50_000
"""Reference spots beyond which a task holds only those that its spots retrieve, with their RS neighbours."""

BLOCK_SPOTS = 2_048
"""Spots of a block, at most, its halo not counted."""

SPARE_PEERS = 2
"""RS neighbours that are looked for, over those that are wanted: some lie on the slide that plays the target."""


def training_tasks(
    spots: Spots, basis: Basis, parameters: Parameters, device: str, *, seed: int = 0, peers: csr_matrix | None = None
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
    basis
        What the nodes carry.
    parameters
        All numbers of the fit.
    device
        Torch device.
    seed
        Seed of the order of the blocks.
    peers
        RS graph of all references from :func:`spare_peers`; ``None`` makes it where it is needed.
    """
    places: list[Task | _Turns] = []
    for number, (target, bank) in enumerate(roles(spots)):
        if not _is_large(target, bank):
            places.append(training_task(spots, basis, target, bank, parameters, device))
            continue
        peers = spare_peers(basis, parameters) if peers is None else peers
        role = _LargeRole.of(spots, basis, target, bank, peers, parameters, device)
        blocks = spatial_blocks(spots.xy[target], BLOCK_SPOTS if len(target) > LARGE_SLIDE else LARGE_SLIDE)
        np.random.default_rng([seed, number]).shuffle(blocks)
        turns = max(1, min(len(blocks), round(LARGE_SLIDE * len(blocks) / len(target))))
        places += [_Turns(role, blocks[first::turns]) for first in range(turns)]
    return TrainingTasks(places)


def has_large_role(spots: Spots) -> bool:
    """Whether any slide is trained in blocks."""
    return any(_is_large(target, bank) for target, bank in roles(spots))


def spare_peers(basis: Basis, parameters: Parameters) -> csr_matrix:
    """RS graph of all references with twice the neighbours of a spot, as far as there are so many."""
    wanted = min(SPARE_PEERS * parameters.n_reference, basis.features.shape[0] - 1)
    return similar_peers(basis.features, basis.expression, wanted)


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
    return len(target) > LARGE_SLIDE or len(bank) > LARGE_BANK


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
    basis
        What the nodes carry, of all references.
    target, bank
        Numbers of the spots in either role.
    near, cross, peers
        TS graph of the target, CS graph from bank to target, RS graph of the bank.
    layers
        Of the network, whose reach is so many edges.
    device
        Torch device.
    """

    basis: Basis
    target: np.ndarray
    bank: np.ndarray
    near: csr_matrix
    cross: csr_matrix
    peers: csr_matrix
    layers: int
    device: str

    @classmethod
    def of(
        cls,
        spots: Spots,
        basis: Basis,
        target: np.ndarray,
        bank: np.ndarray,
        peers: csr_matrix,
        parameters: Parameters,
        device: str,
    ) -> _LargeRole:
        """The graphs as a whole, which are small beside what the nodes carry."""
        near, _ = nearest_in_plane(spots.xy[target], parameters.n_spatial)
        known = SomeRows(basis.features, target), SomeRows(basis.features, bank)
        where = device if device.startswith("cuda") else "cpu"
        cross = search_neighbors(*known, parameters.n_cross, device=where).graph
        own = most_similar(among(peers[bank], bank), parameters.n_reference)
        return cls(basis, target, bank, near, cross, own, parameters.layers, device)

    def task(self, block: np.ndarray) -> Task:
        """A block of the target's spots, by number; the graph holds them first and their halo after them."""
        from spahgc.nn import Task

        shown = with_halo(block, self.near, self.layers)
        nodes = reached(self.cross[shown].indices, self.peers, 1)
        spots, references = self.target[shown], self.bank[nodes]
        graph = hetero_graph(
            read(self.basis.features, spots),
            read(self.basis.features, references),
            self.basis.expression[references],
            self.near[shown][:, shown],
            among(self.cross[shown], nodes),
            among(self.peers[nodes], nodes),
            self.device,
        )
        read_out = self.basis.read_out
        return Task(
            graph,
            as_tensor(read(self.basis.judged, self.target[block]), self.device),
            None if read_out is None else as_tensor(read_out, self.device),
        )
