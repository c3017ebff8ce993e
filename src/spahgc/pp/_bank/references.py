"""The references as a bank: making one, what it says of itself, and which targets fit to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import AnnData
from scipy.sparse import csr_matrix

from spahgc._keys import SPATIAL, UNS, Obs, Obsm, Obsp, Uns
from spahgc._slides.expression import in_memory
from spahgc._slides.measured import MeasuredSlide, measured_slides
from spahgc._slides.split import shared_spots
from spahgc._spots.rows import in_float, standardize
from spahgc._spots.spots import Spots
from spahgc._validate import (
    check_anndata,
    check_coordinates,
    check_genes,
    check_same_encoder,
    embedding_matrix,
    encoder_records,
    quoted,
)
from spahgc.encoders._layout import context_blocks
from spahgc.encoders._record import plain_embedding
from spahgc.pp._bank.build import build_bank, is_bank, make_rs_graph, plain_rows
from spahgc.pp._bank.store import open_bank, stored_rows
from spahgc.pp._genes import seen_genes, selected_genes

if TYPE_CHECKING:
    from spahgc._parameters import Parameters

ALL_GENES = "all"
"""Panel of all genes that the references cover."""


def open_references(refs: Any) -> Any:
    """The bank that lies at a path; whatever else references are handed over as passes through."""
    return open_bank(refs) if isinstance(refs, str | Path) else refs


def as_bank(
    refs: AnnData | Iterable[AnnData] | Mapping[str, MeasuredSlide] | str | Path,
    *,
    genes: Sequence[str] | str | None,
    embedding: str | None,
    layer: str | None,
    parameters: Parameters,
    rs_graph: bool = True,
) -> AnnData:
    """References as a bank of one's own, with the RS graph that the parameters ask for, unless it is not wanted."""
    if isinstance(genes, str) and genes != ALL_GENES:
        raise ValueError(f'genes="{genes}" is not known. Pass a list of genes, "{ALL_GENES}", or None for a selection.')
    refs = open_references(refs)
    if not is_bank(refs):
        slides = refs if isinstance(refs, Mapping) else measured_slides(refs, layer=layer)
        if genes is None:
            genes = selected_genes(slides, n_abundant=parameters.n_abundant)
        elif isinstance(genes, str):
            genes = seen_genes(slides)
        return build_bank(
            slides, genes=genes, embedding=embedding, n_neighbors=parameters.n_reference, rs_graph=rs_graph
        )
    made_with = bank_embedding(refs)
    if embedding is not None and embedding != made_with:
        raise ValueError(
            f'the bank was made with embedding="{made_with}", embedding="{embedding}" was asked for. '
            "Make a bank with that embedding."
        )
    genes = None if isinstance(genes, str) else genes  # a bank has lost the genes outside its panel
    panel = list(refs.var_names) if genes is None else check_genes(genes, refs.var_names, "the bank")
    if stored_rows(refs.obsm[made_with]) is not None:
        return _with_its_embedding_on_disk(refs, panel, parameters.n_reference)
    bank = refs.copy() if genes is None else refs[:, panel].copy()
    if genes is not None or bank.uns[UNS][Uns.bank]["n_neighbors"] != parameters.n_reference:
        if rs_graph:
            patches = plain_embedding(bank.obsm[made_with], encoder_records(bank).get(made_with, {}))
            bank.obsp[Obsp.reference_connectivities] = make_rs_graph(patches, bank.X, parameters.n_reference)
        bank.uns[UNS][Uns.bank]["n_neighbors"] = parameters.n_reference
    return bank


def _with_its_embedding_on_disk(bank: AnnData, panel: list[str], n_neighbors: int) -> AnnData:
    """A bank of one's own in memory, of which the embedding stays where it is, without an RS graph."""
    made = bank.uns[UNS]
    return AnnData(
        csr_matrix(in_memory(bank.X))[:, bank.var_names.get_indexer(panel)],
        obs=bank.obs.copy(),
        var=bank.var.loc[panel].copy(),
        obsm={
            bank_embedding(bank): bank.obsm[bank_embedding(bank)],
            SPATIAL: np.array(bank.obsm[SPATIAL]),
            Obsm.transcriptome: csr_matrix(in_memory(bank.obsm[Obsm.transcriptome])),
        },
        uns={UNS: {**made, Uns.bank: {**made[Uns.bank], "n_neighbors": int(n_neighbors)}}},
    )


def bank_embedding(bank: AnnData) -> str:
    """Key of the embedding that a bank was made with."""
    return str(bank.uns[UNS][Uns.bank]["embedding"])


def bank_record(bank: AnnData) -> dict[str, Any]:
    """What a prediction owes to its bank, in types that ``uns`` can hold."""
    key = bank_embedding(bank)
    return {
        "references": [str(name) for name in bank.uns[UNS][Uns.bank]["slides"]],
        "genes": [str(gene) for gene in bank.var_names],
        "units": str(bank.uns[UNS][Uns.bank]["units"]),
        "embedding": key,
        "encoder": encoder_records(bank).get(key, {}),
    }


def select_embedding_columns(spots: Spots, bank: AnnData, parameters: Parameters) -> Spots:
    """The spots with the columns of the embedding that a model of these parameters looks at, as it looks at them."""
    if parameters.n_axes:
        return spots
    z = plain_rows(spots.z, encoder_records(bank).get(bank_embedding(bank), {}))
    return replace(spots, z=standardize(np.asarray(z[:]), spots.slide) if parameters.standardized else z)


def embedding_blocks(bank: AnnData) -> tuple[tuple[int, int], ...]:
    """Columns of the embedding that belong together: patch sizes and depths of the encoder."""
    key = bank_embedding(bank)
    blocks = context_blocks(encoder_records(bank).get(key, {}), bank.obsm[key].shape[1])
    return tuple((block.start, block.stop) for block in blocks)


def target_spots(target: AnnData, key: str) -> Spots:
    """Positions and embedding of a target, read and checked, and nothing else of it."""
    check_anndata(target, "the target")
    xy = check_coordinates(target, "the target")
    return Spots.without_expression(in_float(embedding_matrix(target, key, "the target")), xy)


def check_target(spots: Spots, record: Mapping[str, Any], bank: AnnData) -> None:
    """Refuse a target that cannot be predicted from this bank.

    Parameters
    ----------
    spots
        Its spots, from :func:`target_spots`.
    record
        Its encoder record.
    bank
        The references.
    """
    key = bank_embedding(bank)
    check_same_encoder(dict(record), encoder_records(bank).get(key, {}), key, "the target", "the references")
    z = np.asarray(spots.z)
    if z.shape[1] != bank.obsm[key].shape[1]:
        raise ValueError(
            f'obsm["{key}"] has {z.shape[1]} columns in the target and {bank.obsm[key].shape[1]} in the references. '
            "Embed all slides with the same encoder."
        )
    known = stored_rows(bank.obsm[key])
    if bank.obsm[key].dtype == np.float16:
        z = z.astype(np.float16).astype(np.float32)  # as it would stand there
    shared = shared_spots(
        spots.xy, z, np.asarray(bank.obsm[SPATIAL]), np.asarray(bank.obsm[key]) if known is None else known
    )
    if len(shared):
        names = sorted(set(bank.obs[Obs.slide].astype(str).to_numpy()[shared]))
        raise ValueError(
            f"the target is also among the references: {len(shared)} of its spots stand in {quoted(names)}. Their own "
            "expression would reach their prediction. Leave that slide out of the references."
        )
    if len(spots) < 2:
        raise ValueError("the target has a single spot: it has no neighbour in the plane. Predict whole slides.")
