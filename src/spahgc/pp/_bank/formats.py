"""The formats of a bank on disk: which one a folder holds, and how each is opened.

``zarr.json`` in the folder of a bank names its format and its valid version, which is an AnnData in zarr. A bank of any
format that is listed here can be opened; what is written is the newest one, so that the first append to an older bank
brings it up to date, whole or not at all.

1. spahgc 0.1: the two index arrays of a sparse matrix are of 32 and of 64 bits, which scipy takes for no matrix.
2. Both are of 32 bits, or of 64 where the matrix has too many entries for that.

To change the format: raise ``FORMAT``, add a line above, write the function that opens the new one, and register both it
and the functions of the older formats in ``OPENERS``. A function of an older format returns what that of the newest one
would, as far as it lies on disk, and reads no more than that does. Keep a bank of the older format under ``tests/saved``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from anndata import AnnData

from spahgc._files import write_text
from spahgc._installation import update_advice
from spahgc._keys import SPATIAL, UNS, Obs, Obsm, Uns
from spahgc._reading import broken_pointers, check_sparse, reading, unreadable
from spahgc._spots.rows import ZARR_FILE
from spahgc._validate import quoted
from spahgc.pp._bank.content import broken_bank

FORMAT = 2
"""Format in which banks are written."""

BANK = "spahgc_bank"
"""Attribute in the description of the folder that names the valid version."""

VERSION_NAME = r"v\d{6,}"
"""What a version of a bank is called within its folder."""

LABEL, REMEDY = (
    "the bank of references",
    "Copy the whole folder again, or write the bank again with spahgc.pp.reference_bank.",
)
"""How errors of a bank that cannot be read call it, and what they advise."""


class BankVersion(NamedTuple):
    """A version of a bank.

    Parameters
    ----------
    folder
        Its folder, within that of the bank.
    format
        Its format.
    """

    folder: Path
    format: int

    def open(self) -> AnnData:
        """The bank, of which neither embedding nor expression is read.

        Raises
        ------
        ValueError
            If it is damaged.
        """
        import zarr

        path = self.folder.parent
        with reading(path, LABEL, REMEDY):
            bank = OPENERS[self.format](zarr.open_group(self.folder, mode="r"))
        problem = broken_bank(bank) or _lost_parts(bank)
        if problem is not None:
            raise unreadable(path, LABEL, problem, REMEDY)
        return bank


def current_version(path: Path) -> BankVersion:
    """The valid version of the bank in a folder."""
    if path.is_file():
        raise ValueError(f'"{path}" is a file, a bank of references is a folder. {_advice_on_slide(path)}')
    if not (path / ZARR_FILE).exists():
        raise FileNotFoundError(
            f'"{path}" is no bank of references. Write one with spahgc.pp.reference_bank(refs, path="{path}").'
        )
    with reading(path, LABEL, REMEDY):
        manifest = json.loads((path / ZARR_FILE).read_text(encoding="utf-8"))
        attributes = manifest.get("attributes", {})
        bank = attributes.get(BANK)
        number = None if bank is None else bank.get("format")
    if isinstance(number, int) and not isinstance(number, bool) and number in OPENERS:
        name = str(bank.get("version"))
        if re.fullmatch(VERSION_NAME, name) is None or not (path / name).is_dir():
            raise unreadable(path, LABEL, f'its valid version is called "{name}", which is not there', REMEDY)
        return BankVersion(path / name, number)
    if bank is None and (path / "obs").is_dir():
        raise ValueError(f'"{path}" holds a slide and no bank of references. {_advice_on_slide(path)}')
    found = "no bank of references" if bank is None else f"a bank of format {number!r}"
    is_newer = isinstance(number, int) and number > FORMAT
    advice = f"A newer version of spahgc wrote it: {update_advice()}." if is_newer else "Write the bank again."
    raise ValueError(
        f'"{path}" holds {found}; this version of spahgc reads banks of format '
        f"{' or '.join(map(str, OPENERS))}, as spahgc.pp.reference_bank writes them. {advice}"
    )


def _advice_on_slide(path: Path) -> str:
    """What to do with the path of what may be a slide, where a bank is wanted."""
    return f'If it is a measured slide, pass its path as a reference: refs="{path}".'


def write_manifest(path: Path, version_name: str, n_spots: int) -> None:
    """Name the valid version in the folder of a bank: a single file, which is replaced at once, tells readers so."""
    attributes = {BANK: {"format": FORMAT, "version": version_name, "spots": n_spots}}
    manifest = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    write_text(path / ZARR_FILE, json.dumps(manifest, indent=1))


def _open_2(group: Any) -> AnnData:
    from anndata.io import read_elem

    uns = _lists(read_elem(group["uns"]))
    key = uns[UNS][Uns.bank]["embedding"]
    _check_chunks(group["obsm"][SPATIAL])
    return AnnData(
        _dataset(group["X"]),
        obs=read_elem(group["obs"]),
        var=read_elem(group["var"]),
        obsm={
            key: group["obsm"][key],
            SPATIAL: read_elem(group["obsm"][SPATIAL]),
            Obsm.transcriptome: _dataset(group["obsm"][Obsm.transcriptome]),
        },
        obsp=read_elem(group["obsp"]),
        varm=read_elem(group["varm"]) if "varm" in group else {},
        uns=uns,
    )


def _dataset(group: Any) -> Any:
    """A sparse dataset of anndata that is looked at before it is handed out: its pointers here, its indices when it is read.

    scipy believes the index arrays, and takes no two of them of different types.
    """
    from anndata.io import sparse_dataset

    dataset = sparse_dataset(group)
    indices = group["indices"]
    is_long = indices.dtype.itemsize > 4 or indices.shape[0] > np.iinfo(np.int32).max
    pointers = dataset._indptr  # anndata reads it once, keeps it, and hands it out with the indices
    n_entries = min(indices.shape[0], group["data"].shape[0])
    problem = broken_pointers(pointers, dataset.shape[0], n_entries)
    if problem is not None:
        raise ValueError(f'the sparse matrix "{group.name}" is damaged: {problem}')
    dataset._indptr = pointers.astype(np.int64 if is_long else np.int32, copy=False)
    vars(dataset)["to_memory"] = partial(_whole, dataset)
    return dataset


def _lost_parts(bank: AnnData) -> str | None:
    """What a file that is gone has left: zarr takes one of its chunks that is not there for zeros."""
    slides = set(bank.obs[Obs.slide].astype(str))
    made_of = set(bank.uns[UNS][Uns.bank]["slides"])
    if slides != made_of:
        return f"its spots are of the slides {quoted(sorted(slides))}, its record names {quoted(sorted(made_of))}"
    return None


def _check_chunks(array: Any) -> None:
    """Refuse an array of numbers that are never all zero, where files of it are gone."""
    if not _has_all_chunks(array):
        raise ValueError(f'files of "{array.name}" are gone')


def _has_all_chunks(array: Any) -> bool:
    return bool(array.nchunks_initialized == array.nchunks)


def _whole(dataset: Any) -> Any:
    """What a sparse dataset holds, in memory, with index arrays of one type."""
    path = Path(dataset.group.store.root).parent
    with reading(path, LABEL, REMEDY):
        _check_chunks(dataset.group["data"])
        matrix = type(dataset).to_memory(dataset)
    dtype = matrix.indptr.dtype
    check_sparse(matrix, f'"{dataset.group.name}" of a bank on disk')
    if not _has_all_chunks(dataset.group["indices"]):
        # Those of a single gene are all 0, and not written; where there are more, lost ones name the first twice in a spot.
        summed = matrix.copy()
        summed.sum_duplicates()
        if summed.nnz < matrix.nnz:
            raise unreadable(path, LABEL, f'files of "{dataset.group.name}/indices" are gone', REMEDY)
    matrix.indices, matrix.indptr = matrix.indices.astype(dtype, copy=False), matrix.indptr.copy()
    return matrix


OPENERS: dict[int, Callable[[Any], AnnData]] = {1: _open_2, 2: _open_2}


def _lists(value: Any) -> Any:
    """Arrays of one dimension, as which zarr keeps lists, as lists again."""
    if isinstance(value, dict):
        return {str(key): _lists(part) for key, part in value.items()}
    if isinstance(value, np.ndarray) and value.ndim == 1:
        return [str(part) for part in value] if value.dtype.kind in "TOUS" else value.tolist()
    return value.item() if isinstance(value, np.generic) else value
