"""Indices that are kept for the next search: beside a bank on disk, or as long as the bank is in memory."""

from __future__ import annotations

import logging
import weakref
from pathlib import Path
from typing import Any

import numpy as np

from spahgc._spots.stored_rows import StoredRows
from spahgc.pp._search.exact import Rows
from spahgc.pp._search.index import Index

logger = logging.getLogger(__name__)

FOLDER = "index"
"""Folder of a bank on disk that holds its indices."""

MARK_LENGTH = 16
"""Figures of the SHA-256 of an embedding that the name of its index carries."""

COMPARED = 256
"""Rows of an array in memory by which it is told whether it was written into."""


def index_of(bank: Rows) -> Index:
    """The index of a bank: the one that is kept, that one extended by the rows that have come since, or a new one."""
    if isinstance(bank, StoredRows) and bank.marks:
        return _of_stored(bank)
    mark = _some_numbers(bank)
    if _last.bank is None or _last.bank() is not bank or _last.mark != mark:
        _last.keep(Index.build(bank), mark, weakref.ref(bank, _last.forget))
    assert _last.index is not None
    return _last.index


class _Last:
    """The index that was used last; one alone, since that of a million spots takes 150 MB."""

    index: Index | None = None
    mark: object = None
    bank: Any = None

    def keep(self, index: Index | None, mark: object, bank: Any = None) -> None:
        self.index, self.mark, self.bank = index, mark, bank

    def forget(self, _: object = None) -> None:
        self.keep(None, None)


_last = _Last()


def _some_numbers(bank: Rows) -> bytes:
    rows = np.linspace(0, bank.shape[0] - 1, min(COMPARED, bank.shape[0])).round().astype(np.int64)
    return np.ascontiguousarray(bank[rows]).tobytes()


def _of_stored(rows: StoredRows) -> Index:
    mark = rows.shape[1], rows.marks[-1]
    if _last.mark != mark or _last.index is None:
        _last.keep(_read(rows) or _made(rows), mark)
        assert _last.index is not None
    return _last.index


def _read(rows: StoredRows) -> Index | None:
    """The index that lies beside the bank, extended if the bank has grown; ``None`` if there is none."""
    if rows.home is None:
        return None
    for spots, mark in reversed(rows.marks):  # what the bank was after each write, the last one first
        path = _path(rows, mark)
        if path.is_file():
            index = Index.load(path)
            if len(index) == spots:
                if spots < len(rows):
                    index.extend(rows)
                    _write(index, rows)
                return index
    return None


def _made(rows: StoredRows) -> Index:
    logger.info("making an index of %d spots", len(rows))
    index = Index.build(rows)
    _write(index, rows)
    return index


def _write(index: Index, rows: StoredRows) -> None:
    """Beside the bank, in place of those of the bank as it was."""
    if rows.home is None:
        return
    try:
        (rows.home / FOLDER).mkdir(exist_ok=True)
        index.save(_path(rows, rows.marks[-1][1]))
    except OSError as error:  # a bank that others may read alone
        logger.warning("the index is not kept, %s cannot be written: %s", rows.home / FOLDER, error)
        return
    for _, mark in rows.marks[:-1]:
        _path(rows, mark).unlink(missing_ok=True)


def _path(rows: StoredRows, mark: str) -> Path:
    assert rows.home is not None
    return rows.home / FOLDER / f"{rows.shape[1]}-{mark[:MARK_LENGTH]}.faiss"
