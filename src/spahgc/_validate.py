"""Checks whose errors say what is wrong, what was found and what to do. They run before any long work."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from anndata import AnnData

from spahgc._keys import PATCH_CONTEXT, SPATIAL, UNS, Obsm, Uns

MAX_LISTED = 5
"""Names that a message lists before it says how many more there are."""


def quoted(names: Iterable[object], limit: int = MAX_LISTED) -> str:
    """The first few names in quotes, and how many more there are."""
    names = list(names)
    if not names:
        return "none"
    shown = ", ".join(f'"{name}"' for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def check_anndata(adata: Any, label: str) -> None:
    """Refuse what is no AnnData, has no spots, or names a spot or a gene twice.

    Parameters
    ----------
    adata
        The object in question.
    label
        How messages call it, e.g. ``'reference "C3"'``.
    """
    if not isinstance(adata, AnnData):
        raise TypeError(
            f"{label} must be an AnnData, found {type(adata).__name__}. Pass an AnnData, or a SpatialData that holds it "
            "as a table."
        )
    if adata.n_obs == 0:
        raise ValueError(f"{label} has no spots. Check the filter that was applied to it.")
    check_unique(adata.obs_names, f"{label}: spot names", "adata.obs_names_make_unique()")
    check_unique(adata.var_names, f"{label}: gene names", "adata.var_names_make_unique()")


def check_unique(names: Any, label: str, way_out: str) -> None:
    """Refuse repeated names of an index."""
    if not names.is_unique:
        repeated = names[names.duplicated()].unique()
        raise ValueError(f"{label} are not unique: {quoted(repeated)} occur more than once. Run {way_out} first.")


def check_coordinates(adata: AnnData, label: str) -> np.ndarray:
    """Spot centres ``(x, y)`` in pixels, spots x 2, float64; refuses a missing, misshaped or non-finite array."""
    if SPATIAL not in adata.obsm:
        raise KeyError(
            f'obsm["{SPATIAL}"] not found in {label}, obsm has {quoted(adata.obsm)}. It must hold the spot centres '
            "(x, y) in full-resolution pixels."
        )
    xy = np.asarray(adata.obsm[SPATIAL], dtype=np.float64)
    if xy.ndim != 2 or xy.shape[1] != 2:
        raise ValueError(f'obsm["{SPATIAL}"] of {label} must be spots x 2 (x, y), found shape {xy.shape}.')
    broken = ~np.isfinite(xy).all(axis=1)
    if broken.any():
        raise ValueError(
            f'obsm["{SPATIAL}"] of {label} has NaN or infinite coordinates in {int(broken.sum())} of {len(xy)} spots '
            f"({quoted(adata.obs_names[broken])}). Remove these spots, or give them a position."
        )
    return xy


def encoder_records(adata: AnnData) -> dict[str, dict[str, Any]]:
    """Encoder records by embedding key."""
    return dict(adata.uns.get(UNS, {}).get(Uns.embeddings, {}))


def find_embedding(adata: AnnData, embedding: str | None, label: str) -> str:
    """Key of the embedding in ``obsm``: the one named, or the only one that carries an encoder record."""
    if embedding is not None:
        if embedding not in adata.obsm:
            raise KeyError(
                f'obsm["{embedding}"] not found in {label}, obsm has {quoted(adata.obsm)}. '
                f"Run spahgc.pp.embed(adata, encoder=...) first, or pass embedding= with a key that is there."
            )
        return embedding
    found = [key for key in encoder_records(adata) if key in adata.obsm]
    if not found:
        raise KeyError(
            f"no image embedding found in {label}, obsm has {quoted(adata.obsm)}. "
            'Run spahgc.pp.embed(adata, encoder="uni") first, or pass embedding= with the key of your own.'
        )
    if len(found) > 1:
        raise ValueError(f"{label} holds several embeddings: {quoted(found)}. Say which one with embedding=.")
    return found[0]


def embedding_matrix(adata: AnnData, key: str, label: str) -> np.ndarray:
    """The embedding with what it shows beside the patch, spots x columns, float32.

    Refuses a missing, misshaped or non-finite one, and one without the context that its record tells of.
    """
    z = _finite_matrix(adata, key, label)
    record = encoder_records(adata).get(key, {})
    # Files of earlier versions hold all columns under one key.
    if str(record.get("context", PATCH_CONTEXT)) == PATCH_CONTEXT or z.shape[1] != int(record["dim"]):
        return z
    beside = Obsm.context(key)
    if beside not in adata.obsm and _PARTS.search(str(record["context"])):
        raise KeyError(
            f'obsm["{beside}"] not found in {label}, which belongs to obsm["{key}"]: its record tells of '
            f'"{record["context"]}". Run spahgc.pp.embed again, or copy both.'
        )
    return np.hstack([z, _finite_matrix(adata, beside, label)]) if beside in adata.obsm else z


_PARTS = re.compile("^(scales|widths) ")
"""How the context of a record begins that this package wrote, and whose columns stand under two keys."""


def _finite_matrix(adata: AnnData, key: str, label: str) -> np.ndarray:
    if key not in adata.obsm:
        known = encoder_records(adata)
        name = known[key]["name"] if key in known else key.removeprefix("X_")
        raise KeyError(
            f'obsm["{key}"] not found in {label}, obsm has {quoted(adata.obsm)}. '
            f'Run spahgc.pp.embed(adata, encoder="{name}") first.'
        )
    z = np.asarray(adata.obsm[key], dtype=np.float32)
    if z.ndim != 2:
        raise ValueError(f'obsm["{key}"] of {label} must be spots x dim, found shape {z.shape}.')
    broken = ~np.isfinite(z).all(axis=1)
    if broken.any():
        raise ValueError(
            f'obsm["{key}"] of {label} has NaN or infinite numbers in {int(broken.sum())} of {len(z)} spots '
            f"({quoted(adata.obs_names[broken])}). Embed the slide again, or remove these spots."
        )
    return z


def check_same_encoder(record: dict[str, Any], other: dict[str, Any], key: str, label: str, other_label: str) -> None:
    """Refuse embeddings whose encoder records differ, and name the fields."""
    if bool(record) != bool(other):
        with_record, without = (label, other_label) if record else (other_label, label)
        raise ValueError(
            f'obsm["{key}"] of {without} carries no encoder record, that of {with_record} does, so that nobody can '
            f"tell whether they agree. Embed both with spahgc.pp.embed, or write the record into "
            f'adata.uns["{UNS}"]["{Uns.embeddings}"]["{key}"].'
        )
    differing = [field for field in sorted({*record, *other}) if not _same(record.get(field), other.get(field))]
    if differing:
        details = "; ".join(f"{field}: {record.get(field)!r} and {other.get(field)!r}" for field in differing)
        raise ValueError(
            f'obsm["{key}"] of {label} and of {other_label} come from different encoders ({details}). '
            "Embed all slides with the same encoder and the same settings."
        )


def _same(a: Any, b: Any) -> bool:
    # Lists come back from h5ad and zarr as arrays, strings and numbers as numpy scalars.
    if isinstance(a, str) or isinstance(b, str):
        return str(a) == str(b)
    if a is None or b is None:
        return a is b
    return bool(np.array_equal(np.asarray(a), np.asarray(b)))


def check_genes(wanted: Sequence[str], available: Any, label: str) -> list[str]:
    """The panel as a list; refuses an empty or repeated one, and genes that are not there."""
    if isinstance(wanted, str):
        raise TypeError(f'genes= must be a sequence of gene names, found the string "{wanted}". Pass ["{wanted}"].')
    genes = [str(gene) for gene in wanted]
    if not genes:
        raise ValueError("genes= is empty. Pass the names of the genes to predict, or leave it out to select them.")
    repeated = sorted({gene for gene in genes if genes.count(gene) > 1}) if len(set(genes)) < len(genes) else []
    if repeated:
        raise ValueError(f"genes= names {quoted(repeated)} more than once. Remove the repetition.")
    known = set(available)
    missing = [gene for gene in genes if gene not in known]
    if missing:
        raise KeyError(
            f"{len(missing)} of {len(genes)} genes not found in {label}: {quoted(missing)}; its genes look like "
            f"{quoted(list(available)[:3])}. Check the spelling, and whether one side uses Ensembl identifiers."
        )
    return genes


def check_writable_folder(path: str | Path) -> Path:
    """Make the folder, and prove that it can be written, before hours of work depend on it."""
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(
            f'the output folder "{folder}" cannot be written ({error.strerror or error}). Pass another one.'
        ) from error
    return folder
