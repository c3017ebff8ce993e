"""A bank of references on disk: written once, appended to, opened by any number of processes without loading it."""

from __future__ import annotations

import hashlib
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData
from filelock import FileLock, Timeout
from scipy.sparse import csr_matrix

from spahgc._files import errors_of_writing, folder_written_whole
from spahgc._keys import SPATIAL, UNS, Obs, Obsm, Obsp, Uns
from spahgc._spots.rows import DIGESTS, ZARR_FILE, StoredRows
from spahgc._validate import error_of_path, user_path
from spahgc.pp._bank.content import joined_obs
from spahgc.pp._bank.coverage import arrays_of_genes, table_of_genes
from spahgc.pp._bank.formats import FORMAT, BankVersion, current_version, write_manifest
from spahgc.pp._search.exact import BANK_BLOCK

if TYPE_CHECKING:
    import zarr

LOCK = ".lock"
"""File that the process holds which appends."""

CHUNK_ENTRIES = 2**20
"""Entries of a sparse matrix in one chunk."""

MAX_SHORT_INDEX = np.iinfo(np.int32).max
"""Entries of a sparse matrix up to which both its index arrays are of 32 bits; beyond that both are of 64."""

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
        If the folder holds something else, or a format that this version of the package does not know. Those of earlier
        versions it knows.

    Examples
    --------
    >>> import tempfile
    >>> import spahgc as sp
    >>> target, *refs = sp.datasets.simulated(n_slides=3, n_spots=60, n_genes=30)
    >>> for slide in refs:
    ...     slide.obsm["X_domains"] = slide.obsm["truth_domains"]  # where sp.pp.embed(slide) would write
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     written = sp.pp.reference_bank(refs, embedding="X_domains", path=f"{folder}/bank.zarr")
    ...     bank = sp.pp.open_bank(f"{folder}/bank.zarr")
    ...     bank.n_obs, sorted(bank.obs["slide"].unique())
    (120, ['P1S2', 'P2S1'])
    """
    return current_version(user_path(path, "the path of a bank")).open()


@contextmanager
def new_bank(path: Path) -> Iterator[Version]:
    """A bank that is being written, and that takes its place when all has gone well.

    It is entered before the work: a path that cannot be written, or that another process is writing, costs nothing.
    """
    if path.exists() or path.is_symlink():
        raise FileExistsError(
            f'"{path}" exists already. Pass append=True to add slides to a bank, or another path; or remove it.'
        )
    with folder_written_whole(path, alone=True) as part:
        version = Version(part / _name(1))
        yield version
        _commit(part, version)


@contextmanager
def appended_bank(path: Path) -> Iterator[Version]:
    """The next version of a bank, which becomes the valid one when all has gone well.

    What the versions share lies on disk once, as far as the file system knows hard links.
    """
    current_version(path)  # a folder that holds something else is left alone
    with _locked(path):
        current = current_version(path)
        folder = path / _name(int(current.folder.name[1:]) + 1)
        shutil.rmtree(folder, ignore_errors=True)  # what a process left behind that was ended half-way
        try:
            with errors_of_writing(path, folder, "The bank is what it was before."):
                version = Version(folder, current)
                yield version
                _commit(path, version)
        except BaseException:
            if current_version(path).folder != folder:  # it may have been interrupted just after it had become valid
                shutil.rmtree(folder, ignore_errors=True)
            raise
        for other in path.glob("v*"):
            if other not in (current.folder, folder):
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
        Version that it continues. What both have in common lies on disk once; a version of an older format is written
        anew, slide by slide.
    """

    def __init__(self, folder: Path, before: BankVersion | None = None) -> None:
        import zarr

        self.folder = folder
        self._group: Any = zarr.open_group(folder, mode="w-", zarr_format=3)
        self._group.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        for name in ("obsm", "obsp", "varm", "varp", "layers"):
            _write(self._group, name, {})
        self._obs: list[pd.DataFrame] = []
        self._xy: list[np.ndarray] = []
        if before is None:
            return
        bank = before.open()
        key = str(bank.uns[UNS][Uns.bank]["embedding"])
        if before.format != FORMAT:
            slide = bank.obs[Obs.slide].astype(str).to_numpy()
            for rows in np.split(np.arange(bank.n_obs), np.flatnonzero(slide[1:] != slide[:-1]) + 1):
                self.add(bank[rows[0] : rows[-1] + 1].to_memory(), key)
            return
        self._key, self._var, self._obs, self._xy = key, bank.var, [bank.obs], [bank.obsm[SPATIAL]]
        for name in ("X", f"obsm/{key}", f"obsm/{Obsm.transcriptome}"):
            _share(before.folder / name, folder / name)

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

        matrix = csr_matrix((matrix.data, matrix.indices, matrix.indptr), shape=matrix.shape)  # indices of one type
        if name not in self._group:
            _write(self._group, name, matrix, chunks=(CHUNK_ENTRIES,))
            return
        group: Any = self._group[name]
        if group["indptr"].dtype == np.int32 and group["indices"].shape[0] + matrix.nnz > MAX_SHORT_INDEX:
            for array in ("indices", "indptr"):
                _widen(self.folder / name / array)
        sparse_dataset(group).append(matrix)

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

    def finish(self, uns: Mapping[str, object], peers: csr_matrix | None, known: np.ndarray | None = None) -> None:
        """Write what is known of all spots together: their names, the records, the RS graph if there is one.

        Which references measured each gene (genes x references) is written too, if they differ in that.
        """
        var = table_of_genes([str(name) for name in self._var.index], known)
        for name, part in (("obs", joined_obs(self._obs)), ("var", var), ("uns", uns)):
            _write(self._group, name, part)
        for name, array in arrays_of_genes(known).items():
            _write(self._group, f"varm/{name}", array)
        _write(self._group, f"obsm/{SPATIAL}", np.concatenate(self._xy))
        if peers is not None:
            _write(self._group, f"obsp/{Obsp.reference_connectivities}", peers)


def in_half(z: np.ndarray, label: str) -> np.ndarray:
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


def new_rows(group: zarr.Group, name: str, width: int) -> zarr.Array:
    """An array of zarr for embeddings, without rows so far, whose chunks can be mapped into memory."""
    return group.create_array(
        name,
        shape=(0, width),
        chunks=(BANK_BLOCK, width),
        dtype="float16",
        compressors=None,
        attributes={"encoding-type": "array", "encoding-version": "0.2.0", DIGESTS: []},
        config={"write_empty_chunks": True},
    )


def append_rows(array: zarr.Array, half: np.ndarray) -> None:
    """Append to such an array, and note by a digest of all rows what it holds now."""
    digests: Any = array.attrs[DIGESTS]
    digest = hashlib.sha256(digests[-1][1].encode() if digests else b"")
    digest.update(np.ascontiguousarray(half).data)
    array.append(half)
    array.attrs[DIGESTS] = [*digests, [int(array.shape[0]), digest.hexdigest()]]


def _write(group: zarr.Group, name: str, part: object, **options: object) -> None:
    from anndata.io import write_elem

    with warnings.catch_warnings():
        # A word of anndata on its next release, and one of zarr on texts, which anndata writes as it has to.
        warnings.filterwarnings("ignore", message="zarr v3 autosharding")
        warnings.filterwarnings("ignore", category=FutureWarning)
        write_elem(group, name, part, dataset_kwargs=options)


def _name(number: int) -> str:
    return f"v{number:06d}"


def _commit(path: Path, version: Version) -> None:
    """Make a version the valid one."""
    write_manifest(path, version.folder.name, version.n_spots)


def _share(old: Path, new: Path) -> None:
    """The same array, or group of arrays, in another folder; all chunks but the last stay as they are and are shared."""
    chunks = (list(folder.iterdir()) for folder in old.rglob("c"))
    last = {max(numbered, key=lambda chunk: int(chunk.name)) for numbered in chunks if numbered}

    # shutil.copytree makes one text of all errors; here the first one is raised as it is.
    for name, _, files in os.walk(old, onerror=_raise):
        folder = new / Path(name).relative_to(old)
        folder.mkdir()
        for source in (Path(name, file) for file in files):
            if source.name == ZARR_FILE or last & {source, source.parent} or not _linked(source, folder / source.name):
                shutil.copyfile(source, folder / source.name)


def _raise(error: OSError) -> None:
    raise error


def _linked(source: Path, target: Path) -> bool:
    """Whether the file now lies in both places, which takes a file system that knows hard links."""
    try:
        os.link(source, target)
    except OSError:
        return False
    return True


def _widen(folder: Path) -> None:
    """An array of indices of 32 bits becomes one of 64, chunk by chunk."""
    import zarr

    narrow, part = zarr.open_array(folder, mode="r"), folder.with_name(f".{folder.name}")
    wide = zarr.create_array(
        part, shape=narrow.shape, chunks=narrow.chunks, dtype=np.int64, attributes=narrow.attrs.asdict()
    )
    for start in range(0, narrow.shape[0], narrow.chunks[0]):
        wide[start : start + narrow.chunks[0]] = narrow[start : start + narrow.chunks[0]]
    shutil.rmtree(folder)
    part.rename(folder)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep other processes from appending; the system takes the lock back from a process that ends, however it ends."""
    lock = FileLock(path / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise RuntimeError(f'another process is appending to "{path}". Wait until it has finished.') from error
    except OSError as error:
        raise error_of_path(
            error.errno,
            f'"{path}" cannot be written ({error.strerror or error}), so no slide can be appended to it. Ask for the right '
            "to write there, or append to a copy of it.",
        ) from error
    try:
        yield
    finally:
        lock.release()
