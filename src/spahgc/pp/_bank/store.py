"""A bank of references on disk: written once, appended to, opened by any number of processes without loading it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from spahgc._files import write_text
from spahgc._keys import SPATIAL, UNS, Obs, Obsm, Obsp, Uns
from spahgc._spots.stored_rows import MARKS, StoredRows, chunk_shape
from spahgc.pp._search.exact import BANK_BLOCK

FORMAT = 1
"""Version of the folder that holds a bank."""

ZARR_FILE, BANK = "zarr.json", "spahgc_bank"
"""Description of a group or array of zarr, and the attribute in that of the folder which names the valid version."""

LOCK = ".lock"
"""File that the process holds which appends."""

CHUNK_ENTRIES = 2**20
"""Entries of a sparse matrix in one chunk."""

MAX_ROUNDING = 1e-3
"""What half precision may take from an embedding, as a share of its length; more where numbers are out of its range."""


def open_bank(path: str | Path) -> AnnData:
    """Open a bank that :func:`spahgc.pp.reference_bank` wrote to disk, without loading its embedding or expression.

    Any number of processes may open it at the same time, also while it is appended to: each goes on with the bank as it
    was when it was opened. What was opened two or more appends ago has to be opened again.

    Parameters
    ----------
    path
        Folder of the bank.

    Returns
    -------
    What :func:`spahgc.pp.reference_bank` returns, backed by zarr: ``obsm[embedding]`` is a zarr array of half
    precision, ``X`` and ``obsm["spahgc_transcriptome"]`` are sparse datasets of anndata. ``bank.to_memory()`` loads all of
    it; ``bank.copy()`` is not possible before that.
    :func:`spahgc.tl.fit`, :func:`spahgc.tl.predict` and :func:`spahgc.pp.cross_graph` take it as it is, and read the
    embedding in blocks.

    Raises
    ------
    FileNotFoundError
        If there is no bank.
    ValueError
        If the folder holds something else, or a format that this version does not know.
    """
    import zarr
    from anndata.io import read_elem, sparse_dataset

    folder = current_version(Path(path))
    group: Any = zarr.open_group(folder, mode="r")
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


def stored_rows(z: Any) -> StoredRows | None:
    """The embedding of an opened bank, to be read in blocks; ``None`` for any other array."""
    import zarr

    if not isinstance(z, zarr.Array) or not isinstance(z.store, zarr.storage.LocalStore):
        return None
    version = Path(z.store.root)
    return StoredRows(version / z.path, home=version.parent) if (version.parent / ZARR_FILE).is_file() else None


def as_rows(z: Any) -> Any:
    """The embedding of an opened bank as rows that are read in blocks; any other array as it is."""
    stored = stored_rows(z)
    return z if stored is None else stored


def current_version(path: Path) -> Path:
    """Folder of the valid version of a bank."""
    try:
        manifest = json.loads((path / ZARR_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(
            f'"{path}" is no bank of references. Write one with spahgc.pp.reference_bank(refs, path="{path}").'
        ) from None
    bank = manifest.get("attributes", {}).get(BANK)
    if bank is None or bank.get("format") != FORMAT:
        found = "no bank of references" if bank is None else f"format {bank.get('format')!r}"
        raise ValueError(
            f'"{path}" holds {found}; this version of spahgc reads banks of format {FORMAT}, as '
            "spahgc.pp.reference_bank writes them. Write the bank again."
        )
    return path / str(bank["version"])


@contextmanager
def new_bank(path: Path) -> Iterator[Version]:
    """A bank that is being written, and that takes its place when all has gone well."""
    if path.exists():
        raise FileExistsError(
            f'"{path}" exists already. Pass append=True to add slides to a bank, or another path; or remove it.'
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        version = Version(part / _name(1))
        yield version
        _commit(part, version)
        part.chmod(0o755)
        part.rename(path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


@contextmanager
def appended_bank(path: Path) -> Iterator[Version]:
    """The next version of a bank, which becomes the valid one when all has gone well.

    What the versions share lies on disk once, as far as the file system knows hard links.
    """
    current_version(path)  # a folder that holds something else is left alone
    with _locked(path):
        current = current_version(path)
        folder = path / _name(int(current.name[1:]) + 1)
        shutil.rmtree(folder, ignore_errors=True)  # what a process left behind that was ended half-way
        try:
            version = Version(folder, current)
            yield version
            _commit(path, version)
        except BaseException:
            if current_version(path) != folder:  # it may have been interrupted just after it had become valid
                shutil.rmtree(folder, ignore_errors=True)
            raise
        for other in path.glob("v*"):
            if other not in (current, folder):
                shutil.rmtree(other, ignore_errors=True)


class Version:
    """A version of a bank that is being written: an AnnData in zarr, slide after slide.

    The embedding is an array of half precision without a compressor, a chunk for each block of the search: a chunk is
    then a file of plain numbers that can be mapped into memory, so that single spots are read without their
    surroundings, and zarr itself reads it as any other array.

    Parameters
    ----------
    folder
        Folder to be made.
    before
        Version that it continues.
    """

    def __init__(self, folder: Path, before: Path | None = None) -> None:
        import zarr
        from anndata.io import read_elem

        self.folder = folder
        self._group: Any = zarr.open_group(folder, mode="w-", zarr_format=3)
        self._group.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        for name in ("obsm", "obsp", "varm", "varp", "layers"):
            _write(self._group, name, {})
        self._obs: list[pd.DataFrame] = []
        self._xy: list[NDArray[Any]] = []
        if before is not None:
            old: Any = zarr.open_group(before, mode="r")
            self._var, self._obs = read_elem(old["var"]), [read_elem(old["obs"])]
            self._xy = [read_elem(old["obsm"][SPATIAL])]
            self._key = str(read_elem(old["uns"])[UNS][Uns.bank]["embedding"])
            for name in ("X", f"obsm/{self._key}", f"obsm/{Obsm.transcriptome}"):
                _share(before / name, folder / name)

    def add(self, part: AnnData, key: str) -> None:
        """Add the spots of a slide; the embedding lies under the key."""
        half = in_half(part.obsm[key], f'obsm["{key}"] of reference "{part.obs[Obs.slide].iloc[0]}"')
        if not self._obs:
            self._key, self._var = key, part.var
            new_rows(self._group["obsm"], key, half.shape[1])
        append_rows(self._group["obsm"][key], half)
        self._add_sparse("X", part.X)
        self._add_sparse(f"obsm/{Obsm.transcriptome}", part.obsm[Obsm.transcriptome])
        self._obs.append(part.obs)
        self._xy.append(part.obsm[SPATIAL])

    def _add_sparse(self, name: str, matrix: csr_matrix) -> None:
        from anndata.io import sparse_dataset

        if name in self._group:
            sparse_dataset(self._group[name]).append(csr_matrix(matrix))
        else:
            _write(self._group, name, csr_matrix(matrix), chunks=(CHUNK_ENTRIES,), indptr_dtype=np.int64)

    @property
    def n_spots(self) -> int:
        """Spots so far."""
        return sum(map(len, self._xy))

    def rows(self) -> StoredRows:
        """The embedding of all spots so far."""
        return StoredRows(self.folder / "obsm" / self._key)

    def expression(self) -> csr_matrix:
        """Expression of the panel of all spots so far, in memory."""
        from anndata.io import read_elem

        return csr_matrix(read_elem(self._group["X"]))

    def finish(self, uns: dict[str, Any], peers: csr_matrix | None) -> None:
        """Write what is known of all spots together: their names, the records, the RS graph if there is one."""
        obs = pd.concat(self._obs).astype({Obs.slide: str}).astype({Obs.slide: "category"})
        for name, part in (("obs", obs), ("var", self._var), ("uns", uns)):
            _write(self._group, name, part)
        _write(self._group, f"obsm/{SPATIAL}", np.concatenate(self._xy))
        if peers is not None:
            _write(self._group, f"obsp/{Obsp.reference_connectivities}", peers)


def in_half(z: NDArray[Any], label: str) -> NDArray[np.float16]:
    """An embedding in half precision; refuses numbers that are too large or too small for it."""
    with np.errstate(over="ignore", invalid="ignore"):
        half = z.astype(np.float16)
        lost = np.linalg.norm(half.astype(np.float32) - z, axis=1)
        broken = ~(lost <= MAX_ROUNDING * np.linalg.norm(z, axis=1))
    if broken.any():
        size = np.abs(z[broken]).max()
        raise ValueError(
            f"{label} does not fit into half precision, in which a bank on disk keeps it: numbers up to {size:.3g} in "
            f"{int(broken.sum())} of {len(z)} spots. Scale the embedding of all slides so that most numbers are between "
            "0.001 and 10,000, or keep the bank in memory (no path=)."
        )
    return half


def new_rows(group: Any, name: str, width: int) -> Any:
    """An array of zarr for embeddings, without rows so far, whose chunks can be mapped into memory."""
    array = group.create_array(
        name,
        shape=(0, width),
        chunks=(BANK_BLOCK, width),
        dtype="float16",
        compressors=None,
        config={"write_empty_chunks": True},
    )
    array.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0", MARKS: []})
    return array


def append_rows(array: Any, half: NDArray[np.float16]) -> None:
    """Append to such an array, and note by a digest of all rows what it holds now."""
    marks = list(array.attrs[MARKS])
    digest = hashlib.sha256(marks[-1][1].encode() if marks else b"")
    digest.update(np.ascontiguousarray(half).data)
    array.append(half)
    array.attrs[MARKS] = [*marks, [int(array.shape[0]), digest.hexdigest()]]


def _write(group: Any, name: str, part: Any, **options: Any) -> None:
    from anndata.io import write_elem

    with warnings.catch_warnings():
        # A word of anndata on its next release, and one of zarr on texts, which anndata writes as it has to.
        warnings.filterwarnings("ignore", message="zarr v3 autosharding")
        warnings.filterwarnings("ignore", category=FutureWarning)
        write_elem(group, name, part, dataset_kwargs=options)


def _name(number: int) -> str:
    return f"v{number:06d}"


def _commit(path: Path, version: Version) -> None:
    """Make a version the valid one: a single file, which is replaced at once, tells readers so."""
    attributes = {BANK: {"format": FORMAT, "version": version.folder.name, "spots": version.n_spots}}
    manifest = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    write_text(path / ZARR_FILE, json.dumps(manifest, indent=1))


def _share(old: Path, new: Path) -> None:
    """The same array, or group of arrays, in another folder; chunks that are full are shared, since they stay as they are."""
    new.mkdir(parents=True)
    shutil.copyfile(old / ZARR_FILE, new / ZARR_FILE)
    description = json.loads((old / ZARR_FILE).read_text(encoding="utf-8"))
    if description["node_type"] == "group":
        for member in old.iterdir():
            if member.is_dir():
                _share(member, new / member.name)
        return
    full = description["shape"][0] // chunk_shape(description)[0]
    for chunk in (old / "c").rglob("*"):
        if chunk.is_file():
            place = chunk.relative_to(old)
            (new / place).parent.mkdir(parents=True, exist_ok=True)
            _link_or_copy(chunk, new / place, link=int(place.parts[1]) < full)


def _link_or_copy(old: Path, new: Path, *, link: bool) -> None:
    if link:
        try:
            os.link(old, new)
            return
        except OSError:  # a file system without hard links
            pass
    shutil.copyfile(old, new)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep other processes from appending; the system takes the lock back from a process that ends, however it ends."""
    with (path / LOCK).open("a") as file:
        try:
            _lock(file.fileno())
        except OSError as error:
            raise RuntimeError(f'another process is appending to "{path}". Wait until it has finished.') from error
        yield


def _lock(descriptor: int) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]
        return
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _lists(value: Any) -> Any:
    """Arrays of one dimension, as which zarr keeps lists, as lists again."""
    if isinstance(value, dict):
        return {str(key): _lists(part) for key, part in value.items()}
    if isinstance(value, np.ndarray):
        return [str(part) for part in value] if value.dtype.kind in "TOUS" else value.tolist()
    return value.item() if isinstance(value, np.generic) else value
