"""Edges of the graph as they stand in the objects, with the names of the spots to which they lead."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.sparse import csr_matrix, triu

from spahgc._keys import UNS, Obsm, Obsp, Uns
from spahgc._validate import listing
from spahgc.tl._attribution import reference_names, sorted_graph, stored_edges
from spahgc.tl._predicted import prediction_record

MAKE_CROSS = "Run spahgc.tl.predict(adata, refs), or spahgc.pp.cross_graph(adata, bank), first."


def plane_graph(adata: AnnData) -> csr_matrix:
    """TS: stored values at ``(i, j)`` where spot j is a neighbour of spot i."""
    if Obsp.spatial_connectivities not in adata.obsp:
        raise KeyError(
            f'obsp["{Obsp.spatial_connectivities}"] not found in the slide, obsp has {listing(adata.obsp)}. '
            "Run spahgc.pp.spatial_graph(adata) first."
        )
    graph = csr_matrix(sorted_graph(adata.obsp[Obsp.spatial_connectivities]), copy=True)
    graph.setdiag(0)
    graph.eliminate_zeros()
    return graph


def pairs_of(graph: csr_matrix) -> np.ndarray:
    """Joined spots, pairs x 2; those that are neighbours of each other stand there once."""
    return np.column_stack(triu(abs(graph) + abs(graph).T, k=1).nonzero())


def cross_edges(adata: AnnData, row: int, key: str, bank: AnnData | None) -> pd.DataFrame:
    """CS: reference spots of a target spot; columns ``rank``, ``slide``, ``spot``, ``similarity``, best first.

    Parameters
    ----------
    adata
        The target.
    row
        The spot.
    key
        Key of the prediction, or of a graph that was made on its own, without its ending ``_cs``.
    bank
        Names the columns of the graph; ``None`` takes the record of the prediction.
    """
    name = Obsm.cross(key)
    if name not in adata.obsm:
        raise KeyError(f'obsm["{name}"] not found in the slide, obsm has {listing(adata.obsm)}. {MAKE_CROSS}')
    graph = sorted_graph(adata.obsm[name])
    names, slides = (
        _names_of_prediction(adata, key) if bank is None else (bank.obs_names.to_numpy(str), bank_slides(bank))
    )
    if graph.shape != (adata.n_obs, len(names)):
        by = f'the prediction "{key}" names' if bank is None else "the bank holds"
        raise ValueError(
            f'obsm["{name}"] has {graph.shape[1]} columns, but {by} {len(names)} reference spots: the graph was made '
            "with another bank. Pass bank= with the one that spahgc.pp.cross_graph was given, or predict again."
        )
    return _edge_table(graph[row], names, slides)


def peer_edges(bank: AnnData, row: int) -> pd.DataFrame:
    """RS: peers of a reference spot; columns as those of :func:`cross_edges`."""
    if Obsp.reference_connectivities not in bank.obsp:
        raise KeyError(
            f'obsp["{Obsp.reference_connectivities}"] not found in the bank, obsp has {listing(bank.obsp)}: it was '
            "made without peers, or is too large for them. Run spahgc.pp.reference_bank(refs) first."
        )
    graph = sorted_graph(bank.obsp[Obsp.reference_connectivities])
    return _edge_table(graph[row], bank.obs_names.to_numpy(str), bank_slides(bank))


def reference_name(bank: AnnData, row: int) -> tuple[str, str]:
    """Names of the slide and the spot of a row of the bank."""
    (slide,), (spot,) = reference_names([str(bank.obs_names[row])], bank_slides(bank))
    return slide, spot


def bank_slides(bank: AnnData) -> list[str]:
    """Names of the slides of a bank."""
    return [str(name) for name in bank.uns[UNS][Uns.bank]["slides"]]


def _names_of_prediction(adata: AnnData, key: str) -> tuple[np.ndarray, list[str]]:
    """Names of the columns of a prediction's CS graph, and of its references."""
    record = prediction_record(adata, key)
    if Uns.bank_spots not in record:
        raise ValueError(
            f'nothing names the reference spots of obsm["{Obsm.cross(key)}"]: no prediction "{key}" by the network is '
            f'recorded in uns["{UNS}"]. Pass bank= with the bank that spahgc.pp.cross_graph was given.'
        )
    names = np.asarray(record[Uns.bank_spots], dtype=str)
    if Obsm.attention(key) in adata.obsm:
        # A graph that was made on its own since has taken this place, and its columns may be of another bank.
        stored_edges(adata, key, len(names))
    return names, [str(name) for name in record["references"]]


def _edge_table(edges: csr_matrix, names: np.ndarray, slides: Sequence[str]) -> pd.DataFrame:
    """Edges of one spot as a table, the most similar first."""
    slide, spot = reference_names(names[edges.indices], slides)
    table = pd.DataFrame({"slide": slide, "spot": spot, "similarity": edges.data})
    table = table.sort_values("similarity", ascending=False, kind="stable", ignore_index=True)
    table.insert(0, "rank", np.arange(1, len(table) + 1))
    return table
