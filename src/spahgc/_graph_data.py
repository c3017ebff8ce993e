"""From a bank of references to the graphs on which the network learns and predicts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_matrix

from spahgc._keys import SPATIAL, UNS, Obs, Obsm, Uns
from spahgc._spots import Spots, roles
from spahgc.pp._bank import similar_peers
from spahgc.pp._neighbors import cosine_neighbors
from spahgc.pp._spatial_graph import nearest_in_plane

if TYPE_CHECKING:
    from anndata import AnnData
    from torch import Tensor

    from spahgc._basis import Basis
    from spahgc._presets import Parameters
    from spahgc.nn import Edges, HeteroGraph, Task


def bank_spots(bank: AnnData) -> Spots:
    """The spots of the bank."""
    if Obsm.transcriptome not in bank.obsm:
        raise KeyError(
            f'obsm["{Obsm.transcriptome}"] not found in the bank: an earlier version made it. Make it again with '
            "spahgc.pp.reference_bank(refs), or fit the model again."
        )
    z = np.asarray(bank.obsm[bank.uns[UNS][Uns.bank]["embedding"]], dtype=np.float32)
    slide = bank.obs[Obs.slide].astype(str).to_numpy()
    transcriptome = csr_matrix(bank.obsm[Obsm.transcriptome])
    return Spots(z, np.asarray(bank.obsm[SPATIAL]), slide, bank.X.toarray(), transcriptome)


def check_sizes(spots: Spots, parameters: Parameters) -> None:
    """Refuse references too small for the graph before anything is computed."""
    needed = max(parameters.n_cross, parameters.n_reference + 1)
    for target, bank in roles(spots):
        if len(bank) < needed or len(target) < 2:
            alone = len(np.unique(spots.slide)) == 1
            detail = "one reference acts as two halves, and each" if alone else "all references but one"
            raise ValueError(
                f"the references are too small: {detail} must hold at least {needed} spots for K = "
                f"{parameters.n_cross} (CS) and K = {parameters.n_reference} (RS) neighbours, found {len(bank)}. "
                "Pass larger or more references."
            )


def training_task(
    spots: Spots, basis: Basis, target: np.ndarray, bank: np.ndarray, parameters: Parameters, device: str
) -> Task:
    """One slide in the role of the target, given the indices of its spots and of those of its bank."""
    from spahgc.nn import Task

    features, expression = basis.features[bank], basis.expression[bank]
    cross = cosine_neighbors(basis.features[target], features, parameters.n_cross)
    peers = similar_peers(features, expression, parameters.n_reference)
    graph = spot_graph(
        basis.features[target], spots.xy[target], features, expression, cross, peers, parameters.n_spatial, device
    )
    return Task(
        graph,
        as_tensor(basis.judged[target], device),
        None if basis.read_out is None else as_tensor(basis.read_out, device),
    )


def spot_graph(
    target: np.ndarray,
    xy: np.ndarray,
    reference: np.ndarray,
    expression: np.ndarray,
    cross: csr_matrix,
    peers: csr_matrix,
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
    cross, peers
        CS graph and RS graph.
    n_spatial
        Q of the TS graph.
    device
        Torch device.
    """
    from spahgc.nn import HeteroGraph

    near, _ = nearest_in_plane(xy, n_spatial)
    return HeteroGraph(
        as_tensor(target, device),
        as_tensor(reference, device),
        as_tensor(expression, device),
        ts=_edges(near, device),
        cs=_edges(cross, device),
        rs=_edges(peers, device),
    )


def _edges(graph: csr_matrix, device: str) -> Edges:
    """A row of the matrix receives from its columns."""
    import torch

    from spahgc.nn import Edges

    coo = graph.tocoo()
    source, receiver = (torch.from_numpy(index.astype(np.int64)).to(device) for index in (coo.col, coo.row))
    return Edges(source, receiver, n_source=graph.shape[1], n_receiver=graph.shape[0])


def as_tensor(x: np.ndarray, device: str) -> Tensor:
    """The array on the device, float32."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32)).to(device)
