"""From a bank of references to the graphs on which the network learns and predicts, and the tasks of a training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count, cycle
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.sparse import csr_matrix

from spahgc._keys import SPATIAL, UNS, Obs, Obsm, Uns
from spahgc._slides.matrix import in_memory
from spahgc._spots.plane import reached, spatial_blocks, with_halo
from spahgc._spots.rows import Rows, SomeRows, Spots, as_rows, in_float, leave_one_out, read
from spahgc._training.placed import Laid
from spahgc.nn import RETRIEVED_EDGES, Edges, HeteroGraph, Task
from spahgc.pp._bank.coverage import measured_expression
from spahgc.pp._bank.references import make_rs_graph
from spahgc.pp._bank.scale import references_in_microns
from spahgc.pp._edge_types import CS, EDGE_TYPES, PLACE, REFERENCE, RS, TARGET, TS, Nodes, build_edges

if TYPE_CHECKING:
    from anndata import AnnData

    from spahgc._linear.node_features import NodeFeatures
    from spahgc._parameters import Parameters
    from spahgc.pp._register.lays import Lays

SMALL_BANK = 20_000
"""Reference spots up to which all are nodes of every graph; of a larger bank only those whose state reaches the target."""

MAX_TASK_SPOTS = 10_000
"""Spots beyond which a slide plays the target in blocks. An epoch sees as many of its spots and no more."""

MAX_TASK_BANK = 50_000
"""Reference spots beyond which a task holds only those that its spots retrieve, with their RS neighbours."""

TASK_BLOCK_SPOTS = 2_048
"""Spots of a block, at most, its halo not counted."""

SAMPLE_STREAM = 1
"""Tells the stream of samples of a bank from that of the order of the blocks, which has the same seed."""

PAIR_BLOCK = 2_048
"""Target spots of which the similarity along edges by place is computed at a time."""

SPARE_NEIGHBORS = 2
"""RS neighbours that are looked for, over those that are wanted: some lie on the slide that plays the target."""


def bank_spots(bank: AnnData, *, dense: bool = True, parameters: Parameters | None = None) -> Spots:
    """The spots of the bank; what of their embedding lies on disk is read in blocks, where it is needed.

    A gene that a reference did not measure is NaN at its spots.

    Parameters
    ----------
    bank
        All references.
    dense
        Hold the expression of the panel as an array; otherwise it is dense where it is read.
    parameters
        May ask for surroundings of another radius than the references' own.
    """
    if Obsm.transcriptome not in bank.obsm:
        raise KeyError(
            f'obsm["{Obsm.transcriptome}"] not found in the bank: an earlier version made it. Make it again with '
            "spahgc.pp.reference_bank(refs), or fit the model again."
        )
    z = in_float(as_rows(bank.obsm[bank.uns[UNS][Uns.bank]["embedding"]]))
    slide = bank.obs[Obs.slide].astype(str).to_numpy()
    transcriptome, y = csr_matrix(in_memory(bank.obsm[Obsm.transcriptome])), measured_expression(bank)
    spots = Spots(z, np.asarray(bank.obsm[SPATIAL]), slide, np.asarray(y[:]) if dense else y, transcriptome)
    return references_in_microns(spots, bank, parameters)


def check_sizes(spots: Spots, parameters: Parameters) -> None:
    """Refuse references too small for the graph before anything is computed."""
    needed = max(parameters.n_cross, parameters.n_reference + 1)
    for target, bank in leave_one_out(spots):
        if len(bank) < needed or len(target) < 2:
            alone = len(np.unique(spots.slide)) == 1
            detail = "one reference acts as two halves, and each" if alone else "all references but one"
            raise ValueError(
                f"the references are too small: {detail} must hold at least {needed} spots for K = "
                f"{parameters.n_cross} (CS) and K = {parameters.n_reference} (RS) neighbours, found {len(bank)}. "
                "Pass larger or more references."
            )


def training_task(
    spots: Spots,
    node_features: NodeFeatures,
    target: np.ndarray,
    bank: np.ndarray,
    parameters: Parameters,
    device: str,
    laid: Laid | None = None,
) -> Task:
    """One slide in the role of the target, given the indices of its spots and of those of its bank, and how it is laid out.

    Nothing measured on the target enters its graph.
    """
    features = node_features.features
    nodes = {
        TARGET: Nodes(features[target], spots.xy[target], step=spots.step_of(target)),
        REFERENCE: Nodes(features[bank], spots.xy[bank], node_features.expression[bank]),
    }
    nodes = nodes if laid is None else laid.beside(nodes)
    graph = hetero_graph(nodes, build_edges(nodes, parameters), device)
    return judged_task(graph, node_features, target, device)


def judged_task(graph: HeteroGraph, node_features: NodeFeatures, spots: np.ndarray, device: str) -> Task:
    """A task of a graph whose first target nodes are some spots, by number."""
    return Task(graph, *judged(node_features, spots, device))


def judged(
    node_features: NodeFeatures, spots: np.ndarray, device: str
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """What a prediction of some spots of a slide, by number, is compared with, and the way there from the network's outputs.

    Last come the numbers of the genes that the slide measured; ``None`` where these are all.
    """
    loadings, target = node_features.gene_loadings, read(node_features.training_target, spots)
    known = ~np.isnan(target).any(axis=0)
    if not known.all():
        target = target[:, known]
    return (
        as_tensor(target, device),
        None if loadings is None else as_tensor(loadings, device),
        None if known.all() else torch.from_numpy(np.flatnonzero(known)).to(device),
    )


def hetero_graph(nodes: Mapping[str, Nodes], graphs: Mapping[str, csr_matrix], device: str) -> HeteroGraph:
    """Nodes of both types and the graphs between them, by name, as tensors on a device.

    Edges by place become one graph with those across slices, along which expression is retrieved.
    """
    edges = {
        name: _edges(graph, device, is_similarity=name == CS.name)
        for name, graph in graphs.items()
        if name != PLACE.name
    }
    if PLACE.name in graphs:
        edges[RETRIEVED_EDGES] = _retrieved(nodes, graphs[CS.name], graphs[PLACE.name], device)
    return HeteroGraph(
        as_tensor(nodes[TARGET].features, device),
        as_tensor(nodes[REFERENCE].features, device),
        as_tensor(nodes[REFERENCE].expression, device),
        edges,
    )


def without_place(graph: HeteroGraph) -> HeteroGraph:
    """The same graph as if no slide had been laid over another."""
    return replace(graph, edges={name: edges for name, edges in graph.edges.items() if name != RETRIEVED_EDGES})


def retrieved_edges(cross: csr_matrix, place: csr_matrix | None) -> csr_matrix:
    """Edges across slices and by place together, in the order in which a network attends along them; without values."""
    if place is None:
        return cross
    keys = np.union1d(edge_keys(cross), edge_keys(place))
    receiver, source = np.divmod(keys, cross.shape[1])
    ends = np.searchsorted(receiver, np.arange(cross.shape[0] + 1))
    return csr_matrix((np.ones(len(keys), np.float32), source, ends), shape=cross.shape)


def edge_keys(graph: csr_matrix) -> np.ndarray:
    """A number for every edge, in the order of receivers and then of sources where columns are sorted."""
    row = np.repeat(np.arange(graph.shape[0], dtype=np.int64), np.diff(graph.indptr))
    return row * graph.shape[1] + graph.indices


def _retrieved(nodes: Mapping[str, Nodes], cross: csr_matrix, place: csr_matrix, device: str) -> Edges:
    """Edges across slices and by place as one type, with how alike their ends are and how far they lie apart."""
    union = retrieved_edges(cross, place)
    keys = edge_keys(union)
    of_cross, of_place = (np.searchsorted(keys, edge_keys(graph)) for graph in (cross, place))
    alike, distance = np.zeros(len(keys), dtype=bool), np.full(len(keys), np.inf, dtype=np.float32)
    alike[of_cross], distance[of_place] = True, place.data
    similarity = np.empty(len(keys), dtype=np.float32)
    similarity[of_cross] = cross.data
    receiver, source = np.divmod(keys, union.shape[1])
    similarity[~alike] = _similarities(nodes, receiver[~alike], source[~alike])
    edges = _edges(union, device, is_similarity=False)
    return replace(
        edges,
        similarity=as_tensor(similarity, device),
        distance=as_tensor(distance, device),
        alike=torch.from_numpy(alike).to(device),
    )


def _similarities(nodes: Mapping[str, Nodes], target: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Cosine similarity of pairs of target and reference nodes, by number; the former ascend."""
    found = np.empty(len(target), dtype=np.float32)
    n_targets = nodes[TARGET].features.shape[0]
    for start in range(0, n_targets, PAIR_BLOCK):
        inside = slice(*np.searchsorted(target, (start, start + PAIR_BLOCK)))
        units = []
        for kind, numbers in ((TARGET, target[inside]), (REFERENCE, reference[inside])):
            some, position = np.unique(numbers, return_inverse=True)
            features = torch.from_numpy(np.array(read(nodes[kind].features, some), dtype=np.float32))
            units.append(torch.nn.functional.normalize(features, dim=1)[torch.from_numpy(position)])
        found[inside] = (units[0] * units[1]).sum(dim=1).numpy()
    return found


def needed_references(
    nodes: Mapping[str, Nodes], graphs: Mapping[str, csr_matrix], hops: int
) -> tuple[dict[str, Nodes], dict[str, csr_matrix]]:
    """Nodes and graphs without the reference spots on which no target spot depends.

    A spot that was not retrieved sends its state along RS edges alone, an edge a layer. So those that are retrieved, and
    those from which at most so many edges as there are layers lead to them, are all that a prediction depends on.

    Parameters
    ----------
    nodes, graphs
        See :func:`hetero_graph`; with a bank of at most 20,000 spots they come back as they are.
    hops
        Layers of the network.
    """
    references = nodes[REFERENCE]
    if references.features.shape[0] <= SMALL_BANK:
        return dict(nodes), dict(graphs)
    chosen = _with_peers(graphs, joined(graphs, REFERENCE, TARGET).indices, hops)
    some = Nodes(read(references.features, chosen), expression=references.expression[chosen])
    return {**nodes, REFERENCE: some}, subgraphs(graphs, {REFERENCE: chosen})


def _with_peers(graphs: Mapping[str, csr_matrix], retrieved: np.ndarray, hops: int) -> np.ndarray:
    """Reference spots and those from which so many edges lead to them, ascending."""
    peers = joined(graphs, REFERENCE, REFERENCE) if hops else csr_matrix((0, 0))  # a network without layers has none
    return reached(retrieved, peers, hops)


def joined(graphs: Mapping[str, csr_matrix], source: str, receiver: str) -> csr_matrix:
    """All edges between two types of nodes, of whatever type they are."""
    first, *others = (
        graphs[kind.name]
        for kind in EDGE_TYPES.values()
        if kind.name in graphs and (kind.source, kind.receiver) == (source, receiver)
    )
    if not others:
        return first
    parts = (csr_matrix((np.ones(graph.nnz), graph.indices, graph.indptr), graph.shape) for graph in (first, *others))
    return sum(parts, csr_matrix(first.shape))  # of ones: values may be 0, or cancel


def subgraphs(graphs: Mapping[str, csr_matrix], chosen: Mapping[str, np.ndarray]) -> dict[str, csr_matrix]:
    """The graphs among some nodes, which are numbered anew; of a type that is not named all nodes stay."""
    parts = {}
    for name, graph in graphs.items():
        kind = EDGE_TYPES[name]
        graph = graph[chosen[kind.receiver]] if kind.receiver in chosen else graph
        parts[name] = among(graph, chosen[kind.source]) if kind.source in chosen else graph
    return parts


def among(graph: csr_matrix, nodes: np.ndarray) -> csr_matrix:
    """The edges from some columns, which are numbered anew; the order of the edges stays."""
    position = np.full(graph.shape[1], -1)
    position[nodes] = np.arange(len(nodes))
    columns = position[graph.indices]
    is_inside = columns >= 0
    ends = np.concatenate([[0], np.cumsum(is_inside)])[graph.indptr]
    return csr_matrix((graph.data[is_inside], columns[is_inside], ends), shape=(graph.shape[0], len(nodes)))


def _edges(graph: csr_matrix, device: str, *, is_similarity: bool) -> Edges:
    """A row of the matrix receives from its columns."""
    coo = graph.tocoo()
    source, receiver = (torch.from_numpy(index.astype(np.int64)).to(device) for index in (coo.col, coo.row))
    similarity = as_tensor(coo.data, device) if is_similarity else None
    return Edges(source, receiver, n_source=graph.shape[1], n_receiver=graph.shape[0], similarity=similarity)


def as_tensor(x: Rows, device: str) -> torch.Tensor:
    """The array on the device, float32."""
    return torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32)).to(device)


def training_tasks(
    spots: Spots,
    node_features: NodeFeatures,
    parameters: Parameters,
    device: str,
    *,
    seed: int = 0,
    rs_graph: csr_matrix | None = None,
    lays: Lays | None = None,
) -> list[Task | Iterator[Task]]:
    """Each slide (or half of a single one) in the role of the target.

    A slide of at most 10,000 spots is one task, whose bank are all other slides, unless these have more than 50,000
    spots together. A larger slide is cut into blocks of neighbouring spots. A task is then a block with the halo in the
    plane that its states depend on; the loss is that of the block's own spots. Its reference nodes are those that its
    spots retrieve, with their RS neighbours.

    With ``step_references`` and more reference spots than that, a position holds an iterator as well: of the slide, or of a
    block of it, with another sample of its bank in every epoch, among which its spots retrieve.

    An epoch takes 10,000 spots of a large slide: a few blocks, and others in the next epoch, in an order that the seed
    draws. The time of a training thus does not grow with the size of a slide beyond that. At such a position stands an
    iterator, which makes the task of its next block when it is asked for one. Which block that is depends on how often it
    was asked and on nothing else, so that processes that share an epoch among them, and ask each at its own positions,
    train on the blocks of one that has all.

    Of a slide on which others lie every other task has edges by place, so that a network learns to predict with and without
    them; its position holds an iterator too.

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
    lays
        How they lie on each other; ``None`` for a network without place.
    """
    tasks: list[Task | Iterator[Task]] = []
    for number, (target, bank) in enumerate(leave_one_out(spots)):
        is_sampled = 0 < parameters.step_references < len(bank)
        laid = None if lays is None else Laid.of(spots.part(target), spots.part(bank), lays)
        if not is_sampled and not _is_large(target, bank):
            task = training_task(spots, node_features, target, bank, parameters, device, laid)
            tasks.append(task if laid is None else _with_and_without_place(task, number))
            continue
        blocks = spatial_blocks(spots.xy[target], TASK_BLOCK_SPOTS if len(target) > MAX_TASK_SPOTS else MAX_TASK_SPOTS)
        np.random.default_rng([seed, number]).shuffle(blocks)
        turns = max(1, min(len(blocks), round(MAX_TASK_SPOTS * len(blocks) / len(target))))
        if is_sampled:
            sampled = SampledTask.of(spots, node_features, target, bank, parameters, device, laid)
            tasks += [sampled.tasks(blocks[first::turns], [seed, number, first]) for first in range(turns)]
            continue
        if parameters.layers and rs_graph is None:
            rs_graph = spare_rs_graph(node_features, parameters)
        slide = SlideTask.of(spots, node_features, target, bank, rs_graph, parameters, device, laid)
        tasks += [slide.tasks(blocks[first::turns], number) for first in range(turns)]
    return tasks


def _with_and_without_place(task: Task, first: int) -> Iterator[Task]:
    """A task with its edges by place and without them, in turn, without end; an even number begins with them."""
    both = task, task._replace(graph=without_place(task.graph))
    return cycle(both if first % 2 == 0 else both[::-1])


def _in_turn(blocks: Sequence[np.ndarray], first: int) -> Iterator[tuple[np.ndarray, bool]]:
    """One block after the other, without end, and whether it has edges by place: in every other turn, and every other block."""
    for turn in count(first):
        for number, block in enumerate(blocks):
            yield block, (turn + number) % 2 == 0


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
        rs_graph: csr_matrix | None,
        parameters: Parameters,
        device: str,
        laid: Laid | None = None,
    ) -> SlideTask:
        """The graphs as a whole, which are small beside what the nodes carry; RS edges where there are any."""
        features = node_features.features
        nodes = {
            TARGET: Nodes(SomeRows(features, target), spots.xy[target], step=spots.step_of(target)),
            REFERENCE: Nodes(SomeRows(features, bank), spots.xy[bank], SomeRows(node_features.expression, bank)),
        }
        nodes = nodes if laid is None else laid.beside(nodes)
        known = {}
        if rs_graph is not None:
            known[RS.name] = most_similar(among(rs_graph[bank], bank), parameters.n_reference)
        graphs = build_edges(nodes, parameters, known=known, device=search_device(device))
        return cls(node_features, target, bank, graphs, parameters.layers, device)

    def tasks(self, blocks: Sequence[np.ndarray], first: int) -> Iterator[Task]:
        """One block after the other, without end; where slides were laid on this one, by turns with place and without."""
        return (self.task(block, by_place=by_place) for block, by_place in _in_turn(blocks, first))

    def task(self, block: np.ndarray, *, by_place: bool = True) -> Task:
        """A block of the target's spots, by number; the graph holds them first and their halo after them."""
        graphs = {name: graph for name, graph in self.graphs.items() if by_place or name != PLACE.name}
        shown = with_halo(block, joined(graphs, TARGET, TARGET), self.layers) if self.layers else block
        retrieved = joined(graphs, REFERENCE, TARGET)[shown].indices
        known = _with_peers(graphs, retrieved, min(self.layers, 1))
        references, features = self.bank[known], self.node_features.features
        nodes = {
            TARGET: Nodes(read(features, self.target[shown])),
            REFERENCE: Nodes(read(features, references), expression=self.node_features.expression[references]),
        }
        graph = hetero_graph(nodes, subgraphs(graphs, {TARGET: shown, REFERENCE: known}), self.device)
        return judged_task(graph, self.node_features, self.target[block], self.device)


@dataclass(frozen=True)
class SampledTask:
    """A slide in the role of the target, of whose bank every step sees another sample.

    So a step takes the same time however many references there are. Edges are searched among the sampled spots: the
    nearest of them lie further off than those of the whole bank, and attention learns to tell how near a spot is, not how
    dense the bank.

    Parameters
    ----------
    node_features
        What the nodes carry, of all references.
    target, bank
        Numbers of the spots in either role.
    xy
        Centres of the target's spots.
    near
        TS graph of the target's spots; ``None`` for a network without layers.
    parameters
        All numbers of the fit.
    device
        Torch device.
    laid
        Where its spots and those of the bank lie; ``None`` where no slide lies on it, or place has no part.
    """

    node_features: NodeFeatures
    target: np.ndarray
    bank: np.ndarray
    xy: np.ndarray
    near: csr_matrix | None
    parameters: Parameters
    device: str
    laid: Laid | None = None

    @classmethod
    def of(
        cls,
        spots: Spots,
        node_features: NodeFeatures,
        target: np.ndarray,
        bank: np.ndarray,
        parameters: Parameters,
        device: str,
        laid: Laid | None = None,
    ) -> SampledTask:
        """With the neighbours in the plane, which are the same in every step."""
        xy = spots.xy[target]
        nodes = Nodes(xy=xy, step=spots.step_of(target))
        near = TS.build(nodes, nodes, parameters.n_spatial, "cpu").graph if parameters.layers else None
        return cls(node_features, target, bank, xy, near, parameters, device, laid)

    def tasks(self, blocks: Sequence[np.ndarray], seed: Sequence[int]) -> Iterator[Task]:
        """One block of the target's spots after the other, without end, each with a sample of the bank of its own.

        Where slides were laid on this one, by turns with place and without.
        """
        rng = np.random.default_rng([*seed, SAMPLE_STREAM])
        measured = [judged(self.node_features, self.target[blocks[0]], self.device)] if len(blocks) == 1 else None
        for block, by_place in _in_turn(blocks, seed[1]):
            some = np.sort(rng.choice(self.bank, self.parameters.step_references, replace=False))
            known = judged(self.node_features, self.target[block], self.device) if measured is None else measured[0]
            yield Task(self.graph(block, some, by_place=by_place), *known)

    def graph(self, block: np.ndarray, references: np.ndarray, *, by_place: bool = True) -> HeteroGraph:
        """Graph of a block, whose spots come first and their halo after them, and of some reference spots."""
        known = {}
        shown = block
        if self.near is not None:
            shown = with_halo(block, self.near, self.parameters.layers)
            known = subgraphs({TS.name: self.near}, {TARGET: shown})
        features = self.node_features.features
        nodes = {
            TARGET: Nodes(read(features, self.target[shown]), self.xy[shown]),
            REFERENCE: Nodes(read(features, references), expression=self.node_features.expression[references]),
        }
        if self.laid is not None and by_place:
            nodes = self.laid.part(shown, np.searchsorted(self.bank, references)).beside(nodes)
        edges = build_edges(nodes, self.parameters, known=known, device=search_device(self.device))
        return hetero_graph(nodes, edges, self.device)


def search_device(device: str) -> str:
    """Where neighbours are searched for a computation on a device: there if CUDA is, on the CPU otherwise."""
    return device if device.startswith("cuda") else "cpu"
