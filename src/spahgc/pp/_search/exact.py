"""Exact nearest neighbours by cosine similarity, block by block, also of what lies on disk."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from scipy.sparse import csr_matrix

from spahgc._spots.stored_rows import StoredRows

if TYPE_CHECKING:
    from torch import Tensor

BANK_BLOCK = 8192
"""Bank spots of one block."""
QUERY_BLOCK = 2048
"""Query spots of one block: with a block of the bank 67 MB of similarities, whatever the sizes of query and bank."""
HELD_NUMBERS = 2**26
"""Numbers of the query spots, 268 MB, that are held while the bank is read from its beginning to its end."""
MIN_LENGTH = 1e-12
"""A row that is shorter is not brought to length 1."""
GROUP = 64
"""Bank spots of a group. The k best spots lie in the k groups of the highest maxima, so that only these are sorted."""


class Rows(Protocol):
    """Spots x dim of which slices can be read: an array, a memory map, an array of zarr or HDF5; any float type."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    def __getitem__(self, rows: Any, /) -> Any: ...


def cosine_neighbors(
    query: Rows,
    bank: Rows,
    k: int,
    *,
    exclude_self: bool = False,
    device: str = "cpu",
    bank_block: int = BANK_BLOCK,
    query_block: int = QUERY_BLOCK,
) -> csr_matrix:
    """The ``k`` bank spots of highest cosine similarity for every query spot.

    The bank is read in blocks, once for every 268 MB of query spots, and a running list of the best is kept for every
    query spot; besides that list no array is held that grows with query or bank. A row of zeros is similar to nothing
    (similarity 0).

    Parameters
    ----------
    query
        Query spots x dim.
    bank
        Bank spots x dim.
    k
        Neighbours of a query spot; the bank must hold as many.
    exclude_self
        Query and bank are the same spots, and none is its own neighbour.
    device
        Torch device of the products.
    bank_block, query_block
        Spots of one block.

    Returns
    -------
    Query spots x bank spots, CSR, float32, ``k`` stored values a row, the columns of a row sorted.

    Raises
    ------
    ValueError
        If the bank holds fewer than ``k`` spots that could be neighbours.
    """
    check_enough(bank, k, exclude_self=exclude_self)
    values, columns = [np.empty((0, k), np.float32)], [np.empty((0, k), np.int64)]
    for row, held in _blocks(query, max(query_block, HELD_NUMBERS // max(1, query.shape[1])), device):
        best = _Best(len(held), k, device, query_block * bank_block)
        for first, unit in _unit_blocks(bank, bank_block, device):
            for start in range(0, len(held), query_block):
                own = row + start - first if exclude_self else None
                best.meet(start, held[start : start + query_block], first, unit, own=own)
        values.append(best.similarities(held))
        columns.append(best.columns.cpu().numpy())
    return neighbor_graph(np.concatenate(values), np.concatenate(columns), bank.shape[0])


def check_enough(bank: Rows, k: int, *, exclude_self: bool) -> None:
    """Refuse to look for more neighbours than there are spots."""
    available = bank.shape[0] - exclude_self
    if k > available:
        raise ValueError(f"{k} neighbours were asked for, but there are only {available} spots to choose from.")


def neighbor_graph(values: np.ndarray, columns: np.ndarray, n_bank: int) -> csr_matrix:
    """Similarities to the neighbours and their places in the bank, spots x k each, as CSR with sorted columns."""
    order = np.argsort(columns, axis=1)
    values, columns = np.take_along_axis(values, order, axis=1), np.take_along_axis(columns, order, axis=1)
    n, k = columns.shape
    return csr_matrix((values.ravel(), columns.ravel(), np.arange(0, k * n + 1, k)), shape=(n, n_bank))


class _Best:
    """The best bank spots so far of every query spot; scores are products with the query as it is."""

    def __init__(self, n_query: int, k: int, device: str, block: int) -> None:
        import torch

        self.scores = torch.full((n_query, k), -torch.inf, device=device)
        self.columns = torch.zeros((n_query, k), dtype=torch.int64, device=device)
        self.buffer = torch.empty(block, device=device)

    def meet(self, start: int, queries: Tensor, first: int, unit: Tensor, *, own: int | None) -> None:
        """Compare a block of queries with a block of the bank that begins at spot ``first``.

        ``own`` is the place in the block of the first query spot itself, which may lie before or behind it.
        """
        import torch

        n, m = len(queries), len(unit)
        scores = torch.mm(queries, unit.T, out=self.buffer[: n * m].view(n, m))
        if own is not None:
            scores.diagonal(own).fill_(-torch.inf)  # empty where the two blocks share no spot
        if m % GROUP:
            scores = torch.nn.functional.pad(scores, (0, GROUP - m % GROUP), value=-torch.inf)
        groups = scores.view(n, -1, GROUP)
        highest = groups.amax(2)
        rows = (highest.amax(1) > self.scores[start : start + n, -1]).nonzero().squeeze(1)
        if len(rows):
            self._take(rows, start, first, groups, highest)

    def _take(self, rows: Tensor, start: int, first: int, groups: Tensor, highest: Tensor) -> None:
        """Merge what these rows of a block found into the lists."""
        import torch

        k = self.scores.shape[1]
        chosen = highest[rows].topk(min(k, highest.shape[1]), dim=1).indices
        found = groups[rows[:, None], chosen].flatten(1)
        scores, places = found.topk(min(k, found.shape[1]), dim=1)
        columns = chosen.gather(1, places // GROUP) * GROUP + places % GROUP + first
        scores = torch.cat([self.scores[start + rows], scores], dim=1)
        columns = torch.cat([self.columns[start + rows], columns], dim=1)
        self.scores[start + rows], keep = scores.topk(k, dim=1)
        self.columns[start + rows] = columns.gather(1, keep)

    def similarities(self, queries: Tensor) -> np.ndarray:
        """Cosine similarities to the best, for all query spots."""
        import torch

        norms = queries.norm(dim=1, keepdim=True)
        return np.asarray((self.scores / torch.where(norms > 0, norms, 1)).cpu().numpy())


def _blocks(rows: Rows, size: int, device: str) -> Iterator[tuple[int, Tensor]]:
    """Blocks of rows on the device, float32, with the number of their first row."""
    for start in range(0, rows.shape[0], size):
        yield start, _tensor(as_stored(rows, slice(start, start + size))).to(device).float()


def _unit_blocks(rows: Rows, size: int, device: str) -> Iterator[tuple[int, Tensor]]:
    """The same, each row over its length. All blocks lie at the same place in memory, one after another."""
    import torch

    work = torch.empty((min(size, rows.shape[0]), rows.shape[1]), device=device)
    for start in range(0, rows.shape[0], size):
        block = _tensor(as_stored(rows, slice(start, start + size))).to(device)
        unit = work[: len(block)].copy_(block)
        yield start, unit.div_(_lengths(unit))


def as_stored(rows: Rows, which: Any) -> Any:
    """Some of the rows in the type that they have on disk, which is half as much to move."""
    return rows.as_stored(which) if isinstance(rows, StoredRows) else rows[which]


def _tensor(block: Any) -> Tensor:
    """Rows as float32, or in half precision, which is converted where they are compared."""
    import torch

    block = np.asarray(block)
    half = block.dtype == np.float16 and block.dtype.isnative
    block = np.ascontiguousarray(block, dtype=np.float16 if half else np.float32)
    return torch.from_numpy(block if block.flags.writeable else block.copy())


def unit_array(block: Any) -> np.ndarray:
    """Rows over their length, float32, as the search compares them; rows of zeros stay."""
    rows = _tensor(block).float()
    return np.asarray((rows / _lengths(rows)).numpy())


def _lengths(rows: Tensor) -> Tensor:
    return rows.norm(dim=1, keepdim=True).clamp_min(MIN_LENGTH)
