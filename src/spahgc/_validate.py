"""Checks whose errors say what is wrong, what was found and what to do. They run before any long work."""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.sparse import issparse

from spahgc import _aliases
from spahgc._keys import PATCH_CONTEXT, SPATIAL, UNS, Obs, Obsm, Uns
from spahgc._logging import warn

_OWN_CONTEXT = re.compile("(areas [a-z0-9,]+; tile [0-9]+; )?(scales [0-9.,e+-]+|widths [0-9.,e+-]+ um); levels ")
"""How the context of a record begins that this package wrote, and whose columns stand under two keys."""
MAX_LISTED = 5
"""Names that a message lists before it says how many more there are."""
ENSEMBL = "ENS"
"""How identifiers of Ensembl begin, of which two that are spelt much the same have nothing to do with each other."""

LARGEST_EMBEDDING = 1e15
"""Largest number of an embedding. The squares of larger ones, summed over its columns, leave the range of float32."""

SMALLEST_RANGE = 1e-5
"""Least range, over the spots of a slide, of the column of an embedding that varies most. A column whose standard deviation
is below 1e-6 counts as constant, so that an embedding of smaller numbers would be seen in part or not at all."""


REDUCTIONS = ("X_pca", "X_umap", "X_tsne", "X_diffmap", "X_pca_harmony")
"""Keys of ``obsm`` that scanpy writes, none of which is an embedding of an image."""

LOST_UNS = (
    'If slides were joined with anndata.concat, it dropped uns: join them again with uns_merge="same" (keeps what all share) '
    'or "unique"'
)
"""Where a record goes that was there before."""


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
                f"Run spahgc.pp.embed(adata) first, or pass embedding= with a key that is there."
            )
        whole = _embedding_of_context(adata, embedding)
        if whole is not None:
            raise ValueError(
                f'obsm["{embedding}"] of {label} is a part of the embedding obsm["{whole}"], what that shows beside the patch. '
                f'Pass embedding="{whole}", which takes both.'
            )
        return embedding
    found = [key for key in encoder_records(adata) if key in adata.obsm]
    lost = _embeddings_without_record(adata) if not found else []
    if lost:
        raise KeyError(
            f'obsm["{lost[0]}"] is there in {label}, but the record of its encoder in uns["{UNS}"] is not. {LOST_UNS}, or '
            f'pass the slides as a list. For an embedding of your own pass embedding="{lost[0]}".'
        )
    if not found:
        raise KeyError(
            f"no image embedding found in {label}, obsm has {quoted(adata.obsm)}. "
            'Run spahgc.pp.embed(adata, encoder="uni") first, or pass embedding= with the key of your own.'
        )
    if len(found) > 1:
        raise ValueError(f"{label} holds several embeddings: {quoted(found)}. Say which one with embedding=.")
    return found[0]


def _embeddings_without_record(adata: AnnData) -> list[str]:
    """Keys that look like image embeddings which lost their record: ``embed`` left a column in ``obs`` beside them."""
    if Obs.patch_padded not in adata.obs:
        return []
    contexts = {Obsm.context(key) for key in adata.obsm}
    return [key for key in adata.obsm if key.startswith("X_") and key not in REDUCTIONS and key not in contexts]


def _embedding_of_context(adata: AnnData, key: str) -> str | None:
    """The embedding of which a key of ``obsm`` holds what it shows beside the patch; ``None`` for any other key."""
    records = encoder_records(adata)
    if key in records:
        return None
    return next((name for name, record in records.items() if Obsm.context(name) == key and has_context(record)), None)


def has_context(record: Mapping[str, Any]) -> bool:
    """Whether a record is of an embedding that :func:`spahgc.pp.embed` wrote with more than the patch."""
    return _OWN_CONTEXT.match(str(record.get("context", PATCH_CONTEXT))) is not None


def check_key_of_embedding(adata: AnnData, key: str, label: str, *, with_context: bool) -> None:
    """Refuse to write an embedding under a key that holds a part of another one, or whose own part would take its place.

    Parameters
    ----------
    adata
        The slide.
    key
        Key that the embedding is to have.
    label
        How messages call the slide.
    with_context
        Whether it shows more than the patch, which gets a key of its own.
    """
    whole = _embedding_of_context(adata, key)
    if whole is not None:
        raise ValueError(
            f'obsm["{key}"] of {label} is a part of the embedding obsm["{whole}"], which would lose it. Pass another '
            "key_added=."
        )
    if with_context and Obsm.context(key) in encoder_records(adata):
        raise ValueError(
            f'obsm["{Obsm.context(key)}"] of {label} is an embedding of its own, and what obsm["{key}"] shows beside the '
            "patch would take its place. Pass another key_added=."
        )


def embedding_matrix(adata: AnnData, key: str, label: str, *, record: Mapping[str, Any] | None = None) -> np.ndarray:
    """The embedding of a slide with what it shows beside the patch, read and checked: where it becomes an array.

    Parameters
    ----------
    adata
        The slide. ``obsm[key]`` may be an array of numbers, a DataFrame of numeric columns, or an array of dask, zarr or
        h5py.
    key
        Key of the embedding in ``obsm``.
    label
        How messages call the slide.
    record
        Its encoder record; ``None`` takes that of the slide.

    Returns
    -------
    Spots x columns, float32: the encoder's own, then those of ``obsm[f"{key}_context"]``, where there are some.

    Raises
    ------
    KeyError
        If it is missing, lacks the context that its record tells of, or has one and no record that tells of it.
    TypeError
        If it is sparse, or holds something else than real numbers.
    ValueError
        If it is no matrix, holds NaN, infinite, masked or huge numbers, or tells no spot from another.

    Warns
    -----
    UserWarning
        If it is zero in some spots, which therefore look like nothing.
    """
    if key not in adata.obsm:
        known = encoder_records(adata)
        name = known[key]["name"] if key in known else key.removeprefix("X_")
        raise KeyError(
            f'obsm["{key}"] not found in {label}, obsm has {quoted(adata.obsm)}. '
            f'Run spahgc.pp.embed(adata, encoder="{name}") first.'
        )
    called = f'obsm["{key}"] of {label}'
    z = _as_matrix(adata.obsm[key], called)
    record = encoder_records(adata).get(key, {}) if record is None else record
    beside = _key_of_context(adata, key, z.shape[1], record, label)
    if beside is not None:
        z = np.hstack([z, _as_matrix(adata.obsm[beside], f'obsm["{beside}"] of {label}')])
        called = f'obsm["{key}"] with obsm["{beside}"] of {label}'
    # NaN is the highest and the lowest of a column that holds one.
    lowest, highest = z.min(axis=0), z.max(axis=0)
    if not (np.isfinite(lowest).all() and np.isfinite(highest).all()):
        broken = ~np.isfinite(z).all(axis=1)
        raise ValueError(
            f"{called} has NaN or infinite numbers in {int(broken.sum())} of {len(z)} spots "
            f"({quoted(adata.obs_names[broken])}). Embed the slide again, or remove these spots."
        )
    _check_range(lowest.astype(np.float64), highest.astype(np.float64), len(z), called)
    zero = ~z.any(axis=1)
    if zero.any():
        warn(
            f"{called} is zero in {int(zero.sum())} of {len(z)} spots ({quoted(adata.obs_names[zero])}), as where nothing "
            "was embedded. They are similar to no other spot. Embed them, or remove these spots.",
            stacklevel=3,
        )
    return z


def _key_of_context(adata: AnnData, key: str, n_columns: int, record: Mapping[str, Any], label: str) -> str | None:
    """Key of what an embedding shows beside the encoder's own columns; ``None`` where it shows nothing more."""
    beside = Obsm.context(key)
    if not record and beside in adata.obsm and Obs.context_padded in adata.obs:
        raise KeyError(
            f'obsm["{beside}"] is there in {label}, but the record of obsm["{key}"] in uns["{UNS}"], which says that the two '
            f"belong together, is not. {LOST_UNS}, or pass the slides as a list."
        )
    # Files of earlier versions hold all columns under one key.
    if not has_context(record) or n_columns != int(record.get("dim", n_columns)):
        return None
    if beside not in adata.obsm:
        raise KeyError(
            f'obsm["{beside}"] not found in {label}, which belongs to obsm["{key}"]: its record tells of '
            f'"{record["context"]}". Run spahgc.pp.embed again, or copy both.'
        )
    return beside


def _as_matrix(values: Any, called: str) -> np.ndarray:
    z = _as_float32(values, called)
    if z.ndim != 2 or not z.shape[1]:
        raise ValueError(f"{called} must be spots x dim, found shape {z.shape}.")
    return z


def _as_float32(values: Any, called: str) -> np.ndarray:
    """Real numbers of any kind as float32; a masked number becomes NaN, one beyond the range of float32 infinite."""
    if issparse(values) or "sparse" in type(values).__name__.lower():
        raise TypeError(
            f"{called} is sparse ({type(values).__name__}), which an embedding is not. If it is one, store it densely: "
            "adata.obsm[key] = adata.obsm[key].toarray()."
        )
    if isinstance(values, pd.DataFrame):
        columns = [str(name) for name, kind in values.dtypes.items() if getattr(kind, "kind", "O") not in "iuf"]
        if columns:
            kinds = sorted({str(kind) for kind in values.dtypes if getattr(kind, "kind", "O") not in "iuf"})
            raise TypeError(
                f"{called} is a DataFrame whose columns {quoted(columns)} hold {', '.join(kinds)}. Keep the columns that "
                "are numbers."
            )
        values = values.to_numpy(dtype=np.float64, na_value=np.nan)
    if not isinstance(values, np.ndarray):
        values = np.asarray(values)  # dask, zarr, h5py
    if values.dtype.kind not in "iuf":
        raise TypeError(
            f"{called} holds values of type {values.dtype}, not real numbers. Store the embedding as numbers: "
            'adata.obsm[key] = adata.obsm[key].astype("float32").'
        )
    with np.errstate(over="ignore"):  # what becomes infinite is refused with its spots
        if isinstance(values, np.ma.MaskedArray):
            return np.asarray(np.ma.filled(values.astype(np.float32), np.nan))
        return np.asarray(values, dtype=np.float32)


def _check_range(lowest: np.ndarray, highest: np.ndarray, n_spots: int, called: str) -> None:
    """Refuse an embedding by the range of its columns: numbers that are huge, or hardly differ between spots."""
    largest = max(abs(lowest.min()), abs(highest.max()))
    if largest > LARGEST_EMBEDDING:
        raise ValueError(
            f"{called} holds numbers up to {largest:.3g}; beyond {LARGEST_EMBEDDING:.0e} they cannot be computed with. "
            "Divide the embeddings of all slides by the same number."
        )
    widest = (highest - lowest).max()
    if n_spots > 1 and widest == 0:
        what = "is zero" if largest == 0 else "is the same"
        raise ValueError(
            f"{called} {what} in all {n_spots} spots, so that nothing tells them apart. Embed the slide again; a look at "
            "the patches shows whether image and coordinates belong together."
        )
    if n_spots > 1 and widest < SMALLEST_RANGE:
        raise ValueError(
            f"{called} differs by {widest:.3g} at most between its {n_spots} spots, less than {SMALLEST_RANGE:.0e}, from "
            "which on differences count. Multiply the embeddings of all slides by the same number."
        )


def check_same_encoder(record: dict[str, Any], other: dict[str, Any], key: str, label: str, other_label: str) -> None:
    """Refuse embeddings whose encoder records differ, and name the fields."""
    if bool(record) != bool(other):
        with_record, without = (label, other_label) if record else (other_label, label)
        raise ValueError(
            f'obsm["{key}"] of {without} carries no encoder record, that of {with_record} does, so that nobody can '
            f"tell whether they agree. Embed both with spahgc.pp.embed, or write the record into "
            f'adata.uns["{UNS}"]["{Uns.embeddings}"]["{key}"]. {LOST_UNS}.'
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
            f"{quoted(list(available)[:3])}.{did_you_mean(missing, available)} Check the spelling, and whether one side uses "
            "Ensembl identifiers."
        )
    return genes


def did_you_mean(missing: Sequence[str], available: Iterable[str]) -> str:
    """What may have been meant by genes that are not there, as a sentence after a blank; empty where nothing is near.

    Parameters
    ----------
    missing
        Names that are not there, of which the first few are looked for.
    available
        Names that are there. A name is near by another name of the gene ("HER2"), its case, as in another species, its
        hyphens, the version of its identifier, or its spelling; an Ensembl identifier by its version alone.
    """
    names = [str(name) for name in available]
    found = {}
    for name in map(str, missing[:MAX_LISTED]):
        near = _aliases.did_you_mean(name, names)
        if name.upper().startswith(ENSEMBL):
            near = [each for each in near if _aliases.plain_name(each) == _aliases.plain_name(name)]
        if near:
            found[name] = " or ".join(f'"{each}"' for each in near)
    if not found:
        return ""
    if len(missing) == 1:
        return f" Did you mean {next(iter(found.values()))}?"
    pairs = [f'{near} by "{name}"' for name, near in found.items()]
    return f" Did you mean {', '.join(pairs)}?"


def user_path(path: str | os.PathLike[str], label: str = "a path") -> Path:
    """A path as somebody wrote it, with ``~`` as the home folder; every path that a public function takes comes by here.

    Parameters
    ----------
    path
        What was passed.
    label
        How messages call it, e.g. ``"save="``.

    Raises
    ------
    TypeError
        If it is no path.
    ValueError
        If it is empty, or holds what no path may.
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"{label} must be a string or a Path, found {type(path).__name__}.")
    text = os.fsdecode(path)
    if not text or "\0" in text:
        raise ValueError(f"{label}={text!r} names nothing: it is empty, or holds the character of number 0.")
    return Path(os.path.expanduser(text))  # leaves "~nobody" alone, at which Path.expanduser fails


def error_of_path(code: int | None, message: str) -> OSError:
    """An error of the file system in our words that keeps its number, and with it its class."""
    error = OSError(message) if code is None else type(OSError(code, ""))(message)
    error.errno = code
    return error


def make_folder(folder: Path) -> None:
    """Make a folder and those above it where they are not there; one that is a file is said to be no folder."""
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    folder.mkdir(parents=True, exist_ok=True)


def check_writable_folder(path: str | os.PathLike[str]) -> Path:
    """Make the folder, and prove that it can be written, before hours of work depend on it."""
    folder = user_path(path, "the output folder")
    try:
        make_folder(folder)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise error_of_path(
            error.errno,
            f'the output folder "{folder}" cannot be written ({error.strerror or error}). Pass another one.',
        ) from error
    return folder


def check_new_name(path: Path, label: str) -> None:
    """Refuse what cannot be written under a name, whatever it is: a name that is too long, a link into nothing.

    Parameters
    ----------
    path
        What is to be written.
    label
        How messages call it, with the path.
    """
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):  # its folder is another question
        return
    except OSError as error:
        raise error_of_path(
            error.errno, f"{label} cannot be written ({error.strerror or error}). Pass another path."
        ) from error
    if path.is_symlink() and not path.exists():
        raise FileNotFoundError(
            f'{label} is a link to "{os.readlink(path)}", which is not there. Remove the link, or make what it points to.'
        )


def check_writable_file(path: Path, label: str) -> None:
    """Refuse a file that cannot be written, before hours of work depend on it; what is there is replaced.

    Parameters
    ----------
    path
        The file.
    label
        How messages call it, with the path, e.g. ``'save="a.png"'``.
    """
    check_writable_folder(path.parent)
    check_new_name(path, label)
    if path.is_dir():
        raise IsADirectoryError(f"{label} is a folder. Pass the path of a file.")
    if path.exists() and not path.is_file():
        raise FileExistsError(f"{label} is no file but a device or a pipe, which is not replaced. Pass another path.")
