"""CS: which reference spots look like a target spot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anndata import AnnData

from spahgc._keys import UNS, Obsm, Uns
from spahgc._parameters import Parameters
from spahgc._slides.tables import table_of, with_table
from spahgc._validate import check_anndata, check_same_encoder, embedding_matrix, encoder_records, find_embedding
from spahgc.encoders._record import plain_embedding
from spahgc.pp._bank.references import embedding_rows, plain_rows
from spahgc.pp._edge_types import CS, Nodes

if TYPE_CHECKING:
    from spatialdata import SpatialData


def cross_graph(
    target: AnnData | SpatialData,
    bank: AnnData,
    *,
    n_neighbors: int = Parameters.n_cross,
    embedding: str | None = None,
    key_added: str = Obsm.cross_graph,
    table_key: str | None = None,
    copy: bool = False,
) -> AnnData | SpatialData | None:
    """Join every target spot to the reference spots that resemble it most (CS edges).

    Parameters
    ----------
    target
        The slide to be predicted, AnnData or SpatialData. Its counts are not looked at.
    bank
        All reference spots, from :func:`spahgc.pp.reference_bank` or :func:`spahgc.pp.open_bank`.
    n_neighbors
        Reference spots of a target spot, over all reference slides (K = 7 in the paper, section 3.2).
    embedding
        Key of the embedding in ``obsm`` of both; ``None`` takes the only one there is.
    key_added
        Key in ``obsm`` of the target.
    table_key
        Key of the table of the target, if it is a SpatialData; ``None`` takes the only one.
    copy
        Return a changed copy instead of writing into ``target``; of a SpatialData a new one that shares all but the
        table.

    Returns
    -------
    ``None``, or the copy. Written are

    - ``obsm["spahgc_cs"]``: target spots x bank spots, CSR, float32, cosine similarity of the embeddings (of the patch
      itself, where they have a context), ``n_neighbors`` stored values a row;
    - ``uns["spahgc"]["search"]["spahgc_cs"]``: whether the search was exact; if not, the share of the true neighbours that
      it found on a sample. See ``spahgc.settings.search``.

    Raises
    ------
    KeyError
        If the embedding is missing on one side.
    ValueError
        If the two embeddings come from different encoders, or if the bank is smaller than ``n_neighbors``.

    Examples
    --------
    >>> import spahgc as sp
    >>> target, *refs = sp.datasets.simulated(n_slides=3, n_spots=60, n_genes=30)
    >>> for slide in [target, *refs]:
    ...     slide.obsm["X_domains"] = slide.obsm["truth_domains"]  # where sp.pp.embed(slide) would write
    >>> bank = sp.pp.reference_bank(refs, embedding="X_domains")
    >>> sp.pp.cross_graph(target, bank, n_neighbors=3, embedding="X_domains")
    >>> target.obsm["spahgc_cs"].shape, target.obsm["spahgc_cs"].nnz
    ((60, 120), 180)
    """
    table = table_of(target, table_key, "the target")
    check_anndata(table, "the target")
    check_anndata(bank, "the bank")
    key = find_embedding(bank, embedding, "the bank")
    record = encoder_records(bank).get(key, {})
    bank_z = plain_rows(embedding_rows(bank, key), record)
    target_z = plain_embedding(embedding_matrix(table, key, "the target"), record)
    check_same_encoder(encoder_records(table).get(key, {}), record, key, "the target", "the bank")
    neighbors = CS.build(Nodes(bank_z), Nodes(target_z), n_neighbors, "cpu")
    table = table.copy() if copy else table
    table.obsm[key_added] = neighbors.graph
    uns = table.uns.setdefault(UNS, {})
    uns[Uns.search] = {**uns.get(Uns.search, {}), key_added: neighbors.record}
    return with_table(target, table, table_key) if copy else None
