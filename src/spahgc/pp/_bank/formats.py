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
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from anndata import AnnData

from spahgc._files import write_text
from spahgc._keys import SPATIAL, UNS, Obsm, Uns
from spahgc._spots.rows import ZARR_FILE

FORMAT = 2
"""Format in which banks are written."""

BANK = "spahgc_bank"
"""Attribute in the description of the folder that names the valid version."""


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
        """The bank, of which neither embedding nor expression is read."""
        import zarr

        return OPENERS[self.format](zarr.open_group(self.folder, mode="r"))


def current_version(path: Path) -> BankVersion:
    """The valid version of the bank in a folder."""
    try:
        manifest = json.loads((path / ZARR_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(
            f'"{path}" is no bank of references. Write one with spahgc.pp.reference_bank(refs, path="{path}").'
        ) from None
    bank = manifest.get("attributes", {}).get(BANK)
    if bank is not None and bank.get("format") in OPENERS:
        return BankVersion(path / str(bank["version"]), int(bank["format"]))
    found = "no bank of references" if bank is None else f"a bank of format {bank.get('format')!r}"
    is_newer = bank is not None and isinstance(bank.get("format"), int) and bank["format"] > FORMAT
    advice = "Update spahgc: pip install --upgrade spahgc." if is_newer else "Write the bank again."
    raise ValueError(
        f'"{path}" holds {found}; this version of spahgc reads banks of format '
        f"{' or '.join(map(str, OPENERS))}, as spahgc.pp.reference_bank writes them. {advice}"
    )


def write_manifest(path: Path, version_name: str, n_spots: int) -> None:
    """Name the valid version in the folder of a bank: a single file, which is replaced at once, tells readers so."""
    attributes = {BANK: {"format": FORMAT, "version": version_name, "spots": n_spots}}
    manifest = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    write_text(path / ZARR_FILE, json.dumps(manifest, indent=1))


def _open_2(group: Any) -> AnnData:
    from anndata.io import read_elem, sparse_dataset

    uns = _lists(read_elem(group["uns"]))
    key = uns[UNS][Uns.bank]["embedding"]
    return AnnData(
        sparse_dataset(group["X"]),
        obs=read_elem(group["obs"]),
        var=read_elem(group["var"]),
        obsm={
            key: group["obsm"][key],
            SPATIAL: read_elem(group["obsm"][SPATIAL]),
            Obsm.transcriptome: sparse_dataset(group["obsm"][Obsm.transcriptome]),
        },
        obsp=read_elem(group["obsp"]),
        uns=uns,
    )


def _open_1(group: Any) -> AnnData:
    bank = _open_2(group)
    for matrix in (bank.X, bank.obsm[Obsm.transcriptome]):
        if matrix.group["indices"].shape[0] <= np.iinfo(np.int32).max:
            matrix._indptr = matrix._indptr.astype(np.int32)  # anndata caches it, and hands it out with the indices
    return bank


OPENERS: dict[int, Callable[[Any], AnnData]] = {1: _open_1, 2: _open_2}


def _lists(value: Any) -> Any:
    """Arrays of one dimension, as which zarr keeps lists, as lists again."""
    if isinstance(value, dict):
        return {str(key): _lists(part) for key, part in value.items()}
    if isinstance(value, np.ndarray):
        return [str(part) for part in value] if value.dtype.kind in "TOUS" else value.tolist()
    return value.item() if isinstance(value, np.generic) else value
