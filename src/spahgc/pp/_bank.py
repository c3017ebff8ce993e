"""The references as one object, with the RS graph: which reference spots look and express alike."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.sparse import csr_matrix, vstack

from spahgc._expression import log_expression, zero_spots
from spahgc._keys import SPATIAL, UNITS, UNITS_AS_GIVEN, UNS, Obs, Obsm, Obsp, Uns
from spahgc._slides import canonical_order, split_slides
from spahgc._validate import (
    check_coordinates,
    check_genes,
    check_same_encoder,
    embedding_matrix,
    encoder_records,
    find_embedding,
    listing,
)
from spahgc.encoders._record import plain_embedding
from spahgc.pp._genes import common_genes, covered_genes, select_genes
from spahgc.pp._neighbors import cosine_neighbors
from spahgc.pp._places import placed_tables

if TYPE_CHECKING:
    from spatialdata import SpatialData

N_NEIGHBORS = 7
"""K of the paper."""

N_TRANSCRIPTOME = 2000
"""Genes of the transcriptome: enough for the components that genes share, few enough to hold beside any embedding."""


def reference_bank(
    refs: AnnData | SpatialData | Iterable[AnnData | SpatialData],
    *,
    genes: Sequence[str] | None = None,
    embedding: str | None = None,
    layer: str | None = None,
    n_neighbors: int = N_NEIGHBORS,
    n_transcriptome: int = N_TRANSCRIPTOME,
    table_key: str | None = None,
) -> AnnData:
    """Collect all reference spots, with embedding, expression of panel and transcriptome, and the RS graph.

    Parameters
    ----------
    refs
        The references: measured slides with an embedding, AnnData or SpatialData. They are not changed. Where the table
        of a SpatialData has no ``obsm["spatial"]``, its spots lie at the centres of the shapes that it annotates.
    genes
        The panel; ``None`` selects it with :func:`spahgc.pp.select_genes`.
    embedding
        Key of the embedding in ``obsm``; ``None`` takes the only one there is.
    layer
        Layer with the counts; ``None`` takes ``X``.
    n_neighbors
        Neighbours of a spot in the RS graph (K = 7 in the paper, section 3.2).
    n_transcriptome
        Genes, at most, that are kept beside the panel for what genes have in common: those that all references share
        and cover best, that is in the largest share of the spots of the reference that covers them worst.
    table_key
        Key of the table of every SpatialData among them; ``None`` takes the only one.

    Returns
    -------
    AnnData of reference spots x panel, slides by name and spots by place, so that the order of ``refs`` and of their
    spots does not matter:

    - ``X``: ``log1p`` counts per 10,000, CSR, float32;
    - ``obs["slide"]``; spots are called ``slide:spot``;
    - ``obsm[embedding]``: image embedding, spots x dim, float32; ``obsm["spatial"]``: spot centres ``(x, y)``, pixels;
    - ``obsm["spahgc_transcriptome"]``: expression of the best-covered genes, CSR, spots x genes, float32, units of
      ``X``; ``uns["spahgc"]["bank"]["transcriptome"]`` names the genes;
    - ``obsp["spahgc_rs_connectivities"]``: CSR, cosine similarity of ``[embedding ; expression]`` to the
      ``n_neighbors`` most similar spots, within and across slides;
    - ``uns["spahgc"]``: encoder record, names of the slides, parameters.

    Spots without a single count are left out, with a warning.

    Raises
    ------
    KeyError
        If an embedding or a gene is missing.
    ValueError
        If the references share no gene, come from different encoders, are smaller than ``n_neighbors``, or hold NaN.
    """
    if n_transcriptome < 1:
        raise ValueError(
            f"n_transcriptome must be at least 1, found {n_transcriptome}. The default is {N_TRANSCRIPTOME}."
        )
    slides = split_slides(placed_tables(refs, table_key, "reference"))
    key = find_embedding(next(iter(slides.values())), embedding, f'reference "{next(iter(slides))}"')
    record = _check_embeddings(slides, key)
    panel = (
        check_genes(genes, common_genes(slides), "the genes that all references share")
        if genes is not None
        else (select_genes(slides.values(), layer=layer))
    )
    covered = covered_genes(slides, n_transcriptome, layer=layer)
    parts = [_slide_part(slide, name, key, panel, covered, layer) for name, slide in slides.items()]
    for name, part in zip(slides, parts, strict=True):
        _check_size(part, name, n_neighbors)
    units = _common_units(dict(zip(slides, parts, strict=True)))
    bank = _join(parts)
    bank.obsp[Obsp.reference_connectivities] = similar_peers(
        plain_embedding(bank.obsm[key], record), bank.X, n_neighbors
    )
    bank.uns[UNS] = {
        Uns.embeddings: {key: record} if record else {},
        Uns.bank: {
            "slides": list(slides),
            "embedding": key,
            "n_neighbors": int(n_neighbors),
            "units": units,
            "transcriptome": covered,
        },
    }
    return bank


def similar_peers(z: np.ndarray, y: Any, n_neighbors: int) -> csr_matrix:
    """RS graph: cosine similarity of ``[z ; y]``, each spot to its most similar others."""
    features = np.hstack([z, y.toarray() if hasattr(y, "toarray") else y])
    return cosine_neighbors(features, features, n_neighbors, exclude_self=True)


def is_bank(data: Any) -> bool:
    """Whether the object is what :func:`reference_bank` returns."""
    return isinstance(data, AnnData) and Uns.bank in data.uns.get(UNS, {})


def _check_embeddings(slides: dict[str, AnnData], key: str) -> dict[str, Any]:
    """Every slide has the embedding, of the same encoder and width; returns the record."""
    names = list(slides)
    first_name = f'reference "{names[0]}"'
    record = encoder_records(slides[names[0]]).get(key, {})
    width = embedding_matrix(slides[names[0]], key, first_name).shape[1]
    for name in names[1:]:
        what = f'reference "{name}"'
        z = embedding_matrix(slides[name], key, what)
        check_same_encoder(encoder_records(slides[name]).get(key, {}), record, key, what, first_name)
        if z.shape[1] != width:
            raise ValueError(
                f'obsm["{key}"] has {z.shape[1]} columns in {what} and {width} in {first_name}. '
                "Embed all slides with the same encoder."
            )
    return record


def _slide_part(
    slide: AnnData, name: str, key: str, panel: list[str], covered: list[str], layer: str | None
) -> AnnData:
    what = f'reference "{name}"'
    xy = check_coordinates(slide, what)
    expression = log_expression(slide, layer=layer, what=what)
    empty = zero_spots(expression)
    if empty.all():
        raise ValueError(f"{what} has no counts in any spot. Check X, or pass layer= with its counts.")
    if empty.any():
        warnings.warn(
            f"{what} has {int(empty.sum())} spots without a single count "
            f"({listing(slide.obs_names[empty])}); they are left out of the references.",
            stacklevel=4,
        )
    z = embedding_matrix(slide, key, what)
    order = canonical_order(xy, z)
    order = order[~empty[order]]
    expression = expression[order]
    return AnnData(
        expression[:, slide.var_names.get_indexer(panel)],
        obs=pd.DataFrame({Obs.slide: name}, index=[f"{name}:{spot}" for spot in slide.obs_names[order]]),
        var=pd.DataFrame(index=panel),
        obsm={
            key: z[order],
            SPATIAL: xy[order],
            Obsm.transcriptome: expression[:, slide.var_names.get_indexer(covered)],
        },
        # Looked for in all genes: those of the panel may have no negative value.
        uns={"units": UNITS_AS_GIVEN if expression.nnz and expression.data.min() < 0 else UNITS},
    )


def _common_units(parts: dict[str, AnnData]) -> str:
    """Units of the expression; refuses references of which only some are transformed already."""
    transformed = [name for name, part in parts.items() if part.uns["units"] == UNITS_AS_GIVEN]
    if transformed and len(transformed) < len(parts):
        raise ValueError(
            f"{listing(transformed)} hold negative values, which are no counts, and the other references do not. "
            "Pass layer= with the counts of all."
        )
    return UNITS_AS_GIVEN if transformed else UNITS


def _check_size(part: AnnData, name: str, n_neighbors: int) -> None:
    if part.n_obs <= n_neighbors:
        raise ValueError(
            f'reference "{name}" has {part.n_obs} spots with counts, too few for {n_neighbors} neighbours of a spot. '
            "Leave it out, or ask for fewer neighbours."
        )


def _join(parts: list[AnnData]) -> AnnData:
    joined = AnnData(
        csr_matrix(vstack([part.X for part in parts])),
        obs=pd.concat([part.obs for part in parts]).astype({Obs.slide: "category"}),
        var=parts[0].var.copy(),
    )
    for key in parts[0].obsm:
        blocks = [part.obsm[key] for part in parts]
        joined.obsm[key] = csr_matrix(vstack(blocks)) if key == Obsm.transcriptome else np.concatenate(blocks)
    return joined
