"""From a bank of references to the graphs on which the network learns and predicts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.sparse import csr_matrix

from spahgc._keys import SPATIAL, UNS, Obs, Obsm, Uns
from spahgc._slides.expression import in_memory
from spahgc._spots.plane import reached
from spahgc._spots.rows import DenseRows, Rows, in_float, read
from spahgc._spots.spots import Spots, leave_one_out
from spahgc.nn import Edges, HeteroGraph, Task
from spahgc.pp._bank.store import as_rows
from spahgc.pp._edge_types import EDGE_TYPES, REFERENCE, TARGET, Nodes, build_edges

if TYPE_CHECKING:
    from anndata import AnnData

    from spahgc._linear.node_features import NodeFeatures
    from spahgc._parameters import Parameters

SMALL_BANK = 20_000
"""Reference spots up to which all are nodes of every graph; of a larger bank only those whose state reaches the target."""


def bank_spots(bank: AnnData, *, dense: bool = True) -> Spots:
    """The spots of the bank; what of their embedding lies on disk is read in blocks, where it is needed.

    Parameters
    ----------
    bank
        All references.
    dense
        Hold the expression of the panel as an array; otherwise it is dense where it is read.
    """
    if Obsm.transcriptome not in bank.obsm:
        raise KeyError(
            f'obsm["{Obsm.transcriptome}"] not found in the bank: an earlier version made it. Make it again with '
            "spahgc.pp.reference_bank(refs), or fit the model again."
        )
    z = in_float(as_rows(bank.obsm[bank.uns[UNS][Uns.bank]["embedding"]]))
    slide = bank.obs[Obs.slide].astype(str).to_numpy()
    transcriptome, y = (csr_matrix(in_memory(part)) for part in (bank.obsm[Obsm.transcriptome], bank.X))
    return Spots(z, np.asarray(bank.obsm[SPATIAL]), slide, y.toarray() if dense else DenseRows(y), transcriptome)


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
    spots: Spots, node_features: NodeFeatures, target: np.ndarray, bank: np.ndarray, parameters: Parameters, device: str
) -> Task:
    """One slide in the role of the target, given the indices of its spots and of those of its bank.

    Nothing measured on the target enters its graph.
    """
    features = node_features.features
    nodes = {
        TARGET: Nodes(features[target], spots.xy[target]),
        REFERENCE: Nodes(features[bank], spots.xy[bank], node_features.expression[bank]),
    }
    graph = hetero_graph(nodes, build_edges(nodes, parameters), device)
    return judged_task(graph, node_features, target, device)


def judged_task(graph: HeteroGraph, node_features: NodeFeatures, spots: np.ndarray, device: str) -> Task:
    """A task of a graph whose first target nodes are some spots, by number."""
    loadings = node_features.gene_loadings
    return Task(
        graph,
        as_tensor(read(node_features.training_target, spots), device),
        None if loadings is None else as_tensor(loadings, device),
    )


def hetero_graph(nodes: Mapping[str, Nodes], graphs: Mapping[str, csr_matrix], device: str) -> HeteroGraph:
    """Nodes of both types and the graphs between them, by name, as tensors on a device."""
    return HeteroGraph(
        as_tensor(nodes[TARGET].features, device),
        as_tensor(nodes[REFERENCE].features, device),
        as_tensor(nodes[REFERENCE].expression, device),
        {name: _edges(graph, device) for name, graph in graphs.items()},
    )


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
    chosen = reached(joined(graphs, REFERENCE, TARGET).indices, joined(graphs, REFERENCE, REFERENCE), hops)
    some = Nodes(read(references.features, chosen), expression=references.expression[chosen])
    return {**nodes, REFERENCE: some}, subgraphs(graphs, {REFERENCE: chosen})


def joined(graphs: Mapping[str, csr_matrix], source: str, receiver: str) -> csr_matrix:
    """All edges between two types of nodes, of whatever type they are."""
    first, *others = (
        graphs[kind.name] for kind in EDGE_TYPES.values() if (kind.source, kind.receiver) == (source, receiver)
    )
    return sum(others, first)


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


def _edges(graph: csr_matrix, device: str) -> Edges:
    """A row of the matrix receives from its columns."""
    coo = graph.tocoo()
    source, receiver = (torch.from_numpy(index.astype(np.int64)).to(device) for index in (coo.col, coo.row))
    return Edges(source, receiver, n_source=graph.shape[1], n_receiver=graph.shape[0])


def as_tensor(x: Rows, device: str) -> torch.Tensor:
    """The array on the device, float32."""
    return torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32)).to(device)
