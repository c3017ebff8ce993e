"""Rows that lie on disk: an array of zarr without compression, whose chunks are mapped into memory as they are."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from spahgc._spots.rows import LazyRows, Rows

DIGESTS = "spahgc_marks"
"""Attribute of the array: after every write the number of spots and the SHA-256 of all of them."""


class StoredRows(LazyRows):
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
    bank_folder
        Folder of the bank, beside which its index may be kept; ``None`` if there is none.
    dtype
        Type in which rows are read.
    """

    def __init__(
        self, folder: Path, n_columns: int | None = None, bank_folder: Path | None = None, dtype: DTypeLike = np.float32
    ) -> None:
        import zarr

        array = zarr.open_array(folder, mode="r")
        n, width = array.shape
        self._chunk_rows = int(array.chunks[0])
        if array.compressors or array.filters or array.shards or array.chunks[1] != width:
            raise ValueError(f'"{folder}" is compressed, or its rows are cut: it cannot be mapped into memory.')
        self.folder, self.bank_folder, self.dtype = folder, bank_folder, np.dtype(dtype)
        self.stored_dtype = np.dtype(array.dtype).newbyteorder("<")
        digests: list[list[int | str]] = array.attrs.asdict().get(DIGESTS, [])  # type: ignore[assignment]
        self.digests = [(int(n_spots), str(digest)) for n_spots, digest in digests]
        self._shape = int(n), int(width if n_columns is None else n_columns)
        self._maps = [_map(folder / "c" / str(i) / "0") for i in range(-(-self._shape[0] // self._chunk_rows))]
        self._chunks = [np.frombuffer(chunk, self.stored_dtype).reshape(-1, width) for chunk in self._maps]

    @property
    def shape(self) -> tuple[int, int]:
        """Spots, and the columns that are read."""
        return self._shape

    def __repr__(self) -> str:
        return f'StoredRows({self.shape[0]} x {self.shape[1]}, {self.stored_dtype.name}, "{self.folder}")'

    def __getstate__(self) -> tuple[Path, int, Path | None, np.dtype]:
        # A map cannot travel to another process, the folder can.
        return self.folder, self.shape[1], self.bank_folder, self.dtype

    def __setstate__(self, state: tuple[Path, int, Path | None, np.dtype]) -> None:
        self.__init__(*state)  # type: ignore[misc]

    def first_columns(self, n: int | None) -> StoredRows:
        """The same rows, of which the first ``n`` columns are read; ``None`` for all."""
        return self._with(_shape=(self.shape[0], self.shape[1] if n is None else n))

    def astype(self, dtype: DTypeLike) -> StoredRows:
        """The same rows, read in another type."""
        return self._with(dtype=np.dtype(dtype))

    def _with(self, **changes: object) -> StoredRows:
        """The same maps, so that it works as long as these rows do."""
        rows = object.__new__(StoredRows)
        vars(rows).update(vars(self) | changes)
        return rows

    def __getitem__(self, rows: slice | np.ndarray, /) -> np.ndarray:
        """Rows as an array of their own: of a slice, of indices in any order, or of a mask."""
        if isinstance(rows, slice):
            start, stop, step = rows.indices(self.shape[0])
            if step == 1:
                return self._block(start, max(start, stop)).astype(self.dtype, copy=False)
            rows = np.arange(start, stop, step)
        rows = np.asarray(rows)
        return self._scattered(np.flatnonzero(rows) if rows.dtype == bool else rows).astype(self.dtype, copy=False)

    def _block(self, start: int, stop: int) -> np.ndarray:
        out = np.empty((stop - start, self.shape[1]), self.stored_dtype)
        for i in range(start // self._chunk_rows, -(-stop // self._chunk_rows)):
            first = i * self._chunk_rows
            a, b = max(start, first), min(stop, first + self._chunk_rows)
            out[a - start : b - start] = self._chunks[i][a - first : b - first, : self.shape[1]]
            _release(self._maps[i])
        return out

    def _scattered(self, rows: np.ndarray) -> np.ndarray:
        rows = np.where(rows < 0, rows + self.shape[0], rows)
        if rows.size and not 0 <= rows.min() <= rows.max() < self.shape[0]:
            raise IndexError(f"rows {rows.min()} to {rows.max()} were asked for, there are {self.shape[0]}.")
        if rows.ndim != 1:
            return self._scattered(rows.ravel()).reshape(*rows.shape, self.shape[1])
        out = np.empty((len(rows), self.shape[1]), self.stored_dtype)
        order = np.argsort(rows, kind="stable")  # a chunk is read once, from its beginning to its end
        ranked = rows[order]
        for i in np.unique(ranked // self._chunk_rows):
            first = i * self._chunk_rows
            part = slice(*np.searchsorted(ranked, [first, first + self._chunk_rows]))
            out[order[part]] = self._chunks[i][ranked[part] - first, : self.shape[1]]
            _release(self._maps[i])
        return out


def as_stored(rows: Rows) -> Rows:
    """The same rows in the type that they have on disk, which is half as much to move; any other rows as they are."""
    return rows.astype(rows.stored_dtype) if isinstance(rows, StoredRows) else rows


def _map(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _release(chunk: mmap.mmap) -> None:
    """The pages of a chunk no longer count as memory of this process; they are read again when they are needed."""
    if hasattr(mmap, "MADV_DONTNEED"):  # not on Windows, where such pages go when the system needs them
        chunk.madvise(mmap.MADV_DONTNEED)
