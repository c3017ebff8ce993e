"""Rows that lie on disk: an array of zarr without compression, whose chunks are mapped into memory as they are."""

from __future__ import annotations

import json
import mmap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray
from scipy.sparse import issparse

MARKS = "spahgc_marks"
"""Attribute of the array: after every write the number of spots and the SHA-256 of all of them."""

PLAIN_CODECS = ["bytes"]
"""Codecs of an array of zarr whose chunks are nothing but their numbers."""


class StoredRows:
    """Spots x dim on disk, read block by block as float32; no more of it is held than what was asked for.

    Made for embeddings of :func:`spahgc.pp.open_bank`: zarr itself would decode a whole chunk for each row of it. Blocks
    and scattered rows are copied out of the mapped chunks, and the pages that were read are let go of, so that they do
    not count as memory of the process. Chunks are mapped at once: what was opened can be read to the end although the
    bank has been appended to since. Processes that read the same bank share the pages.

    Parameters
    ----------
    folder
        Folder of the array, as zarr (format 3) writes it: one dimension of chunks, little-endian numbers, no compressor.
    n_columns
        The first columns alone; ``None`` for all.
    home
        Folder beside which what is derived from the rows may be kept.
    """

    def __init__(self, folder: Path, n_columns: int | None = None, home: Path | None = None) -> None:
        description = json.loads((folder / "zarr.json").read_text(encoding="utf-8"))
        (n, width), (self.chunk, chunk_width) = description["shape"], chunk_shape(description)
        if [codec["name"] for codec in description["codecs"]] != PLAIN_CODECS or chunk_width != width:
            raise ValueError(f'"{folder}" is compressed, or its rows are cut: it cannot be mapped into memory.')
        self.folder, self.home, self.width = folder, home, int(width)
        self.shape = int(n), int(width if n_columns is None else n_columns)
        self.dtype, self._stored = np.dtype(np.float32), np.dtype(description["data_type"]).newbyteorder("<")
        self.marks = [(int(spots), str(mark)) for spots, mark in description["attributes"].get(MARKS, [])]
        self._maps = [_map(folder / "c" / str(i) / "0") for i in range(-(-self.shape[0] // self.chunk))]

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f'StoredRows({self.shape[0]} x {self.shape[1]}, {self._stored.name}, "{self.folder}")'

    def __getstate__(self) -> tuple[Path, int, Path | None]:
        return self.folder, self.shape[1], self.home  # a map cannot travel to another process, the folder can

    def __setstate__(self, state: tuple[Path, int, Path | None]) -> None:
        self.__init__(*state)  # type: ignore[misc]

    def first_columns(self, n: int | None) -> StoredRows:
        """The same rows, of which the first ``n`` columns are read; ``None`` for all."""
        return self if n in (None, self.shape[1]) else StoredRows(self.folder, n, self.home)

    def __getitem__(self, rows: Any) -> NDArray[np.float32]:
        """Rows as an array of their own: of a slice, of indices in any order, or of a mask."""
        return self.as_stored(rows).astype(np.float32, copy=False)

    def as_stored(self, rows: Any) -> NDArray[Any]:
        """The same in the type that they have on disk."""
        if isinstance(rows, slice):
            start, stop, step = rows.indices(self.shape[0])
            if step == 1:
                return self._block(start, max(start, stop))
            rows = np.arange(start, stop, step)
        rows = np.asarray(rows)
        return self._scattered(np.flatnonzero(rows) if rows.dtype == bool else rows)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        """All of it in memory, for code that works on nothing less."""
        return self[:].astype(dtype or np.float32, copy=False)

    def _block(self, start: int, stop: int) -> NDArray[Any]:
        out = np.empty((stop - start, self.shape[1]), self._stored)
        for i in range(start // self.chunk, -(-stop // self.chunk)):
            first = i * self.chunk
            a, b = max(start, first), min(stop, first + self.chunk)
            with _borrowed(self._maps[i]):
                out[a - start : b - start] = self._chunk(i)[a - first : b - first, : self.shape[1]]
        return out

    def _scattered(self, rows: NDArray[Any]) -> NDArray[Any]:
        rows = np.where(rows < 0, rows + self.shape[0], rows)
        if rows.size and not 0 <= rows.min() <= rows.max() < self.shape[0]:
            raise IndexError(f"rows {rows.min()} to {rows.max()} were asked for, there are {self.shape[0]}.")
        if rows.ndim != 1:
            return self._scattered(rows.ravel()).reshape(*rows.shape, self.shape[1])
        out = np.empty((len(rows), self.shape[1]), self._stored)
        order = np.argsort(rows, kind="stable")  # a chunk is read once, from its beginning to its end
        ranked = rows[order]
        for i in np.unique(ranked // self.chunk):
            part = slice(*np.searchsorted(ranked, [i * self.chunk, (i + 1) * self.chunk]))
            with _borrowed(self._maps[i]):
                out[order[part]] = self._chunk(i)[ranked[part] - i * self.chunk, : self.shape[1]]
        return out

    def _chunk(self, i: int) -> NDArray[Any]:
        return np.frombuffer(self._maps[i], self._stored).reshape(self.chunk, self.width)


class Joined:
    """Two arrays side by side, joined block by block: ``[embedding ; expression]`` without a dense matrix of either.

    Parameters
    ----------
    z
        Spots x dim: an array or rows on disk.
    y
        Spots x genes, dense or CSR.
    """

    def __init__(self, z: Any, y: Any) -> None:
        self.z, self.y = z, y
        self.shape = int(z.shape[0]), int(z.shape[1] + y.shape[1])

    def __getitem__(self, rows: slice | NDArray[Any]) -> NDArray[Any]:
        y = self.y[rows]
        return np.hstack([self.z[rows], y.toarray() if issparse(y) else y], dtype=np.float32)


def chunk_shape(description: dict[str, Any]) -> list[int]:
    """Shape of the chunks of an array, from its ``zarr.json``."""
    return [int(side) for side in description["chunk_grid"]["configuration"]["chunk_shape"]]


def _map(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


class _borrowed:
    """While a chunk is read; afterwards its pages no longer count as memory of this process."""

    def __init__(self, chunk: mmap.mmap) -> None:
        self.chunk = chunk

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None:
        if hasattr(mmap, "MADV_DONTNEED"):  # not on Windows, where such pages go when the system needs them
            self.chunk.madvise(mmap.MADV_DONTNEED)
