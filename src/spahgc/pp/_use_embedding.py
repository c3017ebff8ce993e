"""Embeddings that somebody else computed, and the record of what made them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import AnnData

from spahgc._keys import UNS, Obsm, Uns
from spahgc._slides.tables import table_of, with_table
from spahgc._slides.totals import remember_library_sizes
from spahgc._validate import check_anndata, embedding_matrix, encoder_records, has_context, quoted
from spahgc.encoders._layout import context_blocks
from spahgc.encoders._record import NATIVE_MPP, PATCH_CONTEXT, EncoderRecord

if TYPE_CHECKING:
    from spatialdata import SpatialData

FIELDS = tuple(field.name for field in fields(EncoderRecord))
"""What a record may say."""
INTEGER_FIELDS = ("dim", "input_px")
CHANNEL_FIELDS = ("mean", "std")


def use_embedding(
    data: AnnData | SpatialData,
    key: str,
    *,
    record: EncoderRecord | Mapping[str, object],
    table_key: str | None = None,
    copy: bool = False,
) -> AnnData | SpatialData | None:
    """Take an embedding from ``obsm`` that another tool computed, with a record of what it was made with.

    The record keeps embeddings apart that cannot be compared: all slides of a prediction must have the same one. Say as
    much as is known, in the same words on every slide.

    Parameters
    ----------
    data
        One slide, with the embedding in ``obsm[key]``, spots x dim. What an embedding of this package shows beside the
        patch lies in ``obsm[f"{key}_context"]``; it belongs to it where `context` of the record tells of it.
    key
        Key of the embedding in ``obsm``.
    record
        What it was made with: ``name`` of the encoder, and of ``revision``, ``input_px`` (pixels), ``mpp`` (microns per
        pixel of a patch), ``mean``, ``std``, ``interpolation``, ``pooling``, ``precision``, ``stain``, ``sampling`` what is known.
        ``dim`` and ``context`` are filled in where they are missing: all columns, and the patch alone. For an encoder
        that the package knows, ``spahgc.encoders.describe_encoder(name)`` is a record to start from.
    table_key
        Key of the table of a SpatialData; ``None`` takes the only one.
    copy
        Return a changed copy instead of writing into `data`; of a SpatialData one that shares all but the table.

    Returns
    -------
    ``None``, or the copy. Written is ``uns["spahgc"]["embeddings"][key]``: the record. The embedding stays as it is.

    Raises
    ------
    KeyError
        If there is no such embedding.
    TypeError
        If the record is no mapping.
    ValueError
        If the embedding is no matrix of finite numbers, or if the record names no encoder, has a field that no record
        has, does not fit to the embedding, or says nothing of ``obsm[f"{key}_context"]``, which is there.

    Examples
    --------
    >>> import spahgc as sp
    >>> (slide,) = sp.datasets.simulated(1, n_patients=1, n_spots=40, n_genes=20)
    >>> slide.obsm["X_virchow2"] = slide.obsm["truth_domains"]
    >>> sp.pp.use_embedding(slide, "X_virchow2", record={"name": "virchow2", "mpp": 0.5, "input_px": 224})
    >>> slide.uns["spahgc"]["embeddings"]["X_virchow2"]["mpp"]
    0.5
    """
    table = table_of(data, table_key, "the slide")
    check_anndata(table, "the slide")
    if key not in table.obsm:
        raise KeyError(
            f'obsm["{key}"] not found in the slide, obsm has {quoted(table.obsm)}. Put the embedding there first, rows in '
            "the order of obs_names."
        )
    written = _checked_record(table, key, record)
    table = table.copy() if copy else table
    entries = dict(table.uns.get(UNS, {}))
    entries[Uns.embeddings] = {**encoder_records(table), key: written}
    table.uns[UNS] = entries
    remember_library_sizes(table)
    return with_table(data, table, table_key) if copy else None


def _checked_record(table: AnnData, key: str, record: EncoderRecord | Mapping[str, object]) -> dict[str, object]:
    """The record in types that survive ``write_h5ad`` and ``write_zarr``."""
    if isinstance(record, EncoderRecord):
        record = record.to_uns()
    if not isinstance(record, Mapping):
        raise TypeError(
            f"record is of type {type(record).__name__}; pass a dict such as "
            '{"name": "uni", "mpp": 0.5, "input_px": 224}, or a record of spahgc.encoders.describe_encoder.'
        )
    unknown = [name for name in record if name not in FIELDS]
    if unknown:
        raise ValueError(f"the record has the unknown fields {quoted(unknown)}. A record has {', '.join(FIELDS)}.")
    if not str(record.get("name", "")):
        raise ValueError('the record names no encoder. Pass at least {"name": ...}, the same on all slides.')
    beside = Obsm.context(key)
    has_beside = beside in table.obsm and beside not in encoder_records(table)
    if has_beside and "context" not in record:
        raise ValueError(
            f'obsm["{beside}"] is there, and the record says nothing of it. If it belongs to the embedding, pass its "context" '
            f'as spahgc.pp.embed wrote it; if not, pass "context": "{PATCH_CONTEXT}".'
        )
    n_columns = embedding_matrix(table, key, "the slide", record={"context": PATCH_CONTEXT}).shape[1]
    filled = {"dim": n_columns, "context": PATCH_CONTEXT} | dict(record)
    written: dict[str, object] = {name: _plain_value(name, filled[name]) for name in FIELDS if name in filled}
    if written["context"] == PATCH_CONTEXT and written["dim"] != n_columns:
        raise ValueError(
            f'obsm["{key}"] has {n_columns} columns, but the record says dim {written["dim"]}. Correct one of the two, or '
            "leave dim out."
        )
    if has_beside and has_context(written) and written["dim"] == n_columns:
        n_columns = embedding_matrix(table, key, "the slide", record=written).shape[1]
    context_blocks(written, n_columns)
    return written


def _plain_value(name: str, value: Any) -> str | int | float | list[float]:
    """One field as a string, a number or a list of numbers."""
    try:
        if name in INTEGER_FIELDS:
            if isinstance(value, bool) or int(value) != value or value < 1:
                raise ValueError
            return int(value)
        if name in CHANNEL_FIELDS:
            return [float(number) for number in value]
        if name == "mpp":
            if value is None or str(value) == NATIVE_MPP:
                return NATIVE_MPP
            if not (np.isfinite(float(value)) and float(value) > 0):
                raise ValueError
            return float(value)
    except (TypeError, ValueError) as error:
        kinds = {"mpp": f'a positive number of microns per pixel, or "{NATIVE_MPP}"'}
        kind = kinds.get(
            name, "a whole number of at least 1" if name in INTEGER_FIELDS else "a list of numbers, one a channel"
        )
        raise ValueError(f"{name} of the record is {value!r}; it must be {kind}.") from error
    return str(value)
