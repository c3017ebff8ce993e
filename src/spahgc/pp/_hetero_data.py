"""The heterogeneous graph as a data object of PyTorch Geometric, for networks of one's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from anndata import AnnData
from scipy.sparse import csr_matrix

from spahgc._keys import SPATIAL, Obs
from spahgc._slides.matrix import in_memory
from spahgc._slides.tables import table_of
from spahgc._validate import (
    check_anndata,
    check_coordinates,
    check_same_encoder,
    embedding_matrix,
    encoder_records,
    find_embedding,
)
from spahgc.encoders._record import plain_embedding
from spahgc.pp._bank.coverage import measured_expression
from spahgc.pp._bank.references import check_bank, embedding_rows, plain_rows
from spahgc.pp._edge_types import EDGE_TYPES, REFERENCE, TARGET, EdgeType

if TYPE_CHECKING:
    from spatialdata import SpatialData
    from torch import Tensor
    from torch_geometric.data import HeteroData

    from spahgc._spots.rows import Rows


def hetero_data(
    target: AnnData | SpatialData, bank: AnnData, *, embedding: str | None = None, table_key: str | None = None
) -> HeteroData:
    """The graph of a target and its references, as PyTorch Geometric holds it.

    For those who want to train a network of their own on the graph of the paper: any layer of
    :mod:`torch_geometric.nn` works on the result, :func:`torch_geometric.nn.to_hetero` included. The networks of this
    package do not need it. Everything is read into memory.

    Parameters
    ----------
    target
        The slide to be predicted, AnnData or SpatialData, with the edges of :func:`spahgc.pp.spatial_graph` and
        :func:`spahgc.pp.cross_graph`. Its counts are not looked at.
    bank
        All reference spots, from :func:`spahgc.pp.reference_bank` or :func:`spahgc.pp.open_bank`; the one whose spots
        the cross graph names.
    embedding
        Key of the embedding in ``obsm`` of both; ``None`` takes the only one there is.
    table_key
        Key of the table of the target, if it is a SpatialData; ``None`` takes the only one.

    Returns
    -------
    Nodes

    - ``data["target"]``: ``x``, embedding of the patch, target spots x dim, float32; ``pos``, centres ``(x, y)`` in
      full-resolution pixels;
    - ``data["reference"]``: ``x`` and ``pos`` likewise; ``y``, expression, reference spots x panel, float32, ``log1p``
      counts per 10,000, NaN where a reference did not measure a gene; ``slide``, number of the slide of each spot, and ``slides``, their names; ``genes``, the panel.

    Edges, ``edge_index`` from the first type to the second, 2 x edges, sorted by the spot that receives

    - ``data["target", "ts", "target"]``: ``edge_attr``, distance in pixels;
    - ``data["reference", "cs", "target"]`` and ``data["reference", "rs", "reference"]``: ``edge_attr``, cosine
      similarity.

    Raises
    ------
    KeyError
        If an embedding or a graph is missing.
    ValueError
        If the embeddings come from different encoders, or the cross graph leads to another bank.

    Examples
    --------
    >>> import spahgc as sp
    >>> target, *refs = sp.datasets.simulated(n_slides=3, n_patients=1, n_spots=40, n_genes=30)
    >>> sp.pp.embed([target, *refs], encoder="efficientnet_lite0")
    >>> bank = sp.pp.reference_bank(refs)
    >>> sp.pp.spatial_graph(target)
    >>> sp.pp.cross_graph(target, bank)
    >>> sp.pp.hetero_data(target, bank)["target"].num_nodes
    40
    """
    table = table_of(target, table_key, "the target")
    check_anndata(table, "the target")
    check_anndata(bank, "the bank")
    check_bank(bank)
    key = find_embedding(bank, embedding, "the bank")
    record = encoder_records(bank).get(key, {})
    target_z = embedding_matrix(table, key, "the target")
    check_same_encoder(encoder_records(table).get(key, {}), record, key, "the target", "the bank")
    graphs = {
        kind: _graph(table if kind.receiver == TARGET else bank, kind) for kind in EDGE_TYPES.values() if kind.key
    }
    for kind, graph in graphs.items():
        if kind.source == REFERENCE and graph.shape[1] != bank.n_obs:
            raise ValueError(
                f'{kind.slot}["{kind.key}"] of the {kind.receiver} leads to {graph.shape[1]} reference spots, '
                f"the bank holds {bank.n_obs}. Run {kind.made_by} with this bank."
            )
    data = _nodes(table, bank, plain_embedding(target_z, record), plain_rows(embedding_rows(bank, key), record))
    for kind, graph in graphs.items():
        edges = data[kind.source, kind.name, kind.receiver]
        edges.edge_index, edges.edge_attr = _edges(graph)
    return data


def _nodes(table: AnnData, bank: AnnData, target_z: Rows, bank_z: Rows) -> HeteroData:
    import torch
    from torch_geometric.data import HeteroData

    data = HeteroData()
    centres = check_coordinates(table, "the target"), np.asarray(bank.obsm[SPATIAL])
    for node, rows, xy in zip((TARGET, REFERENCE), (target_z, bank_z), centres, strict=True):
        data[node].x = torch.from_numpy(np.array(rows[:], dtype=np.float32))
        data[node].pos = torch.from_numpy(np.array(xy, dtype=np.float32))
    expression = np.asarray(measured_expression(bank)[:])
    slides = bank.obs[Obs.slide].astype("category").cat
    data[REFERENCE].y = torch.from_numpy(expression.astype(np.float32))
    data[REFERENCE].slide = torch.from_numpy(slides.codes.to_numpy(np.int64))
    data[REFERENCE].slides = [str(name) for name in slides.categories]
    data[REFERENCE].genes = [str(name) for name in bank.var_names]
    return data


def _graph(holder: AnnData, kind: EdgeType) -> csr_matrix:
    graphs = getattr(holder, kind.slot)
    if kind.key not in graphs:
        present = ", ".join(graphs) or "nothing"
        raise KeyError(f'{kind.slot}["{kind.key}"] not found; there is {present}. Run {kind.made_by} first.')
    return csr_matrix(in_memory(graphs[kind.key]))


def _edges(graph: csr_matrix) -> tuple[Tensor, Tensor]:
    """A row receives from its columns: edges run from the columns to the row."""
    import torch

    receiver = np.repeat(np.arange(graph.shape[0]), np.diff(graph.indptr))
    index = np.stack([graph.indices.astype(np.int64), receiver])
    return torch.from_numpy(index), torch.from_numpy(graph.data.astype(np.float32))
