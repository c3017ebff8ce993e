"""From a bank of references to the graphs on which the network learns and predicts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_matrix

from spahgc._keys import SPATIAL, UNS, Obs, Obsm, Uns
from spahgc._slides.expression import in_memory
from spahgc._spots.plane import nearest_in_plane, reached
from spahgc._spots.rows import DenseRows, Rows, in_float, read
from spahgc._spots.spots import Spots, leave_one_out
from spahgc.pp._bank.build import make_rs_graph
from spahgc.pp._bank.store import as_rows
from spahgc.pp._search.exact import cosine_neighbors

if TYPE_CHECKING:
    from anndata import AnnData
    from torch import Tensor

    from spahgc._linear.node_features import NodeFeatures
    from spahgc._parameters import Parameters
    from spahgc.nn import Edges, HeteroGraph, Task

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
    """One slide in the role of the target, given the indices of its spots and of those of its bank."""
    from spahgc.nn import Task

    features, expression = node_features.features[bank], node_features.expression[bank]
    cross = cosine_neighbors(node_features.features[target], features, parameters.n_cross)
    rs_graph = make_rs_graph(features, expression, parameters.n_reference)
    graph = spot_graph(
        node_features.features[target],
        spots.xy[target],
        features,
        expression,
        cross,
        rs_graph,
        parameters.n_spatial,
        device,
    )
    return Task(
        graph,
        as_tensor(node_features.training_target[target], device),
        None if node_features.gene_loadings is None else as_tensor(node_features.gene_loadings, device),
    )


def spot_graph(
    target: Rows,
    xy: np.ndarray,
    reference: Rows,
    expression: np.ndarray,
    cross: csr_matrix,
    rs_graph: csr_matrix,
    n_spatial: int,
    device: str,
) -> HeteroGraph:
    """Graph of a target and a bank; nothing measured on the target enters.

    Parameters
    ----------
    target, xy
        Features and centres of the target's spots.
    reference, expression
        Features and expression of the reference spots.
    cross, rs_graph
        CS graph and RS graph.
    n_spatial
        Q of the TS graph.
    device
        Torch device.
    """
    near, _ = nearest_in_plane(xy, n_spatial)
    return hetero_graph(target, reference, expression, near, cross, rs_graph, device)


def hetero_graph(
    target: Rows,
    reference: Rows,
    expression: np.ndarray,
    near: csr_matrix,
    cross: csr_matrix,
    rs_graph: csr_matrix,
    device: str,
) -> HeteroGraph:
    """The same, given the TS graph as well."""
    from spahgc.nn import HeteroGraph

    return HeteroGraph(
        as_tensor(target, device),
        as_tensor(reference, device),
        as_tensor(expression, device),
        ts=_edges(near, device),
        cs=_edges(cross, device),
        rs=_edges(rs_graph, device),
    )


def needed_references(
    reference: Rows, expression: np.ndarray, cross: csr_matrix, rs_graph: csr_matrix, hops: int
) -> tuple[Rows, np.ndarray, csr_matrix, csr_matrix]:
    """Features, expression, CS graph and RS graph without the reference spots of which no target spot hears.

    A spot that was not retrieved sends its state along RS edges alone, an edge a layer. So those that are retrieved, and
    those from which at most so many edges as there are layers lead to them, are all that a prediction depends on.

    Parameters
    ----------
    reference, expression, cross, rs_graph
        See :func:`spot_graph`; of a bank of at most 20,000 spots they come back as they are.
    hops
        Layers of the network.
    """
    if reference.shape[0] <= SMALL_BANK:
        return reference, expression, cross, rs_graph
    nodes = reached(cross.indices, rs_graph, hops)
    return read(reference, nodes), expression[nodes], among(cross, nodes), among(rs_graph[nodes], nodes)


def among(graph: csr_matrix, nodes: np.ndarray) -> csr_matrix:
    """The edges from some columns (ascending), which are numbered anew; the order of the edges stays."""
    place = np.minimum(np.searchsorted(nodes, graph.indices), len(nodes) - 1)
    kept = nodes[place] == graph.indices
    ends = np.concatenate([[0], np.cumsum(kept)])[graph.indptr]
    return csr_matrix((graph.data[kept], place[kept], ends), shape=(graph.shape[0], len(nodes)))


def _edges(graph: csr_matrix, device: str) -> Edges:
    """A row of the matrix receives from its columns."""
    import torch

    from spahgc.nn import Edges

    coo = graph.tocoo()
    source, receiver = (torch.from_numpy(index.astype(np.int64)).to(device) for index in (coo.col, coo.row))
    return Edges(source, receiver, n_source=graph.shape[1], n_receiver=graph.shape[0])


def as_tensor(x: Rows, device: str) -> Tensor:
    """The array on the device, float32."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32)).to(device)
