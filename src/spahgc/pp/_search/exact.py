"""Exact nearest neighbours by cosine similarity, block by block, also of what lies on disk."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_matrix

from spahgc._spots.rows import Rows, as_stored

if TYPE_CHECKING:
    from torch import Tensor

BANK_BLOCK = 8192
"""Bank spots of one block."""
QUERY_BLOCK = 2048
"""Query spots of one block: with a block of the bank 67 MB of similarities, whatever the sizes of query and bank."""
MAX_QUERY_NUMBERS = 2**26
"""Numbers of the query spots, 268 MB, that are held while the bank is read from its beginning to its end."""
MIN_NORM = 1e-12
"""A row that is shorter is not brought to length 1."""
GROUP_SIZE = 64
"""Bank spots of a group. The k best spots lie in the k groups of the highest maxima, so that only these are sorted."""


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
    check_n_neighbors(bank, k, exclude_self=exclude_self)
    query, bank = as_stored(query), as_stored(bank)
    values, columns = [np.empty((0, k), np.float32)], [np.empty((0, k), np.int64)]
    size = max(query_block, MAX_QUERY_NUMBERS // max(1, query.shape[1]))
    for row in range(0, query.shape[0], size):
        queries = _tensor(query[row : row + size]).to(device).float()
        top = _TopK(len(queries), k, device, query_block * bank_block)
        for first, unit in _normalized_blocks(bank, bank_block, device):
            for start in range(0, len(queries), query_block):
                self_offset = row + start - first if exclude_self else None
                top.update(start, queries[start : start + query_block], first, unit, self_offset=self_offset)
        values.append(top.similarities(queries))
        columns.append(top.columns.cpu().numpy())
    return neighbor_graph(np.concatenate(values), np.concatenate(columns), bank.shape[0])


def check_n_neighbors(bank: Rows, k: int, *, exclude_self: bool) -> None:
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


class _TopK:
    """The ``k`` best bank spots so far of every query spot; scores are products with the query as it is."""

    def __init__(self, n_query: int, k: int, device: str, block: int) -> None:
        import torch

        self.scores = torch.full((n_query, k), -torch.inf, device=device)
        self.columns = torch.zeros((n_query, k), dtype=torch.int64, device=device)
        self.buffer = torch.empty(block, device=device)

    def update(self, start: int, queries: Tensor, first: int, unit: Tensor, *, self_offset: int | None) -> None:
        """Compare a block of queries with a block of the bank that begins at spot ``first``.

        ``self_offset`` is where in that block the first query spot itself lies, which may be before or behind it.
        """
        import torch

        n, m = len(queries), len(unit)
        scores = torch.mm(queries, unit.T, out=self.buffer[: n * m].view(n, m))
        if self_offset is not None:
            scores.diagonal(self_offset).fill_(-torch.inf)  # empty where the two blocks share no spot
        if m % GROUP_SIZE:
            scores = torch.nn.functional.pad(scores, (0, GROUP_SIZE - m % GROUP_SIZE), value=-torch.inf)
        groups = scores.view(n, -1, GROUP_SIZE)
        highest = groups.amax(2)
        rows = (highest.amax(1) > self.scores[start : start + n, -1]).nonzero().squeeze(1)
        if len(rows):
            self._merge(rows, start, first, groups, highest)

    def _merge(self, rows: Tensor, start: int, first: int, groups: Tensor, highest: Tensor) -> None:
        """Merge the best of a block, for those query spots to which it brings any, into the lists."""
        import torch

        k = self.scores.shape[1]
        chosen = highest[rows].topk(min(k, highest.shape[1]), dim=1).indices
        candidates = groups[rows[:, None], chosen].flatten(1)
        scores, positions = candidates.topk(min(k, candidates.shape[1]), dim=1)
        columns = chosen.gather(1, positions // GROUP_SIZE) * GROUP_SIZE + positions % GROUP_SIZE + first
        scores = torch.cat([self.scores[start + rows], scores], dim=1)
        columns = torch.cat([self.columns[start + rows], columns], dim=1)
        self.scores[start + rows], best = scores.topk(k, dim=1)
        self.columns[start + rows] = columns.gather(1, best)

    def similarities(self, queries: Tensor) -> np.ndarray:
        """Cosine similarities to the best, for all query spots."""
        import torch

        norms = queries.norm(dim=1, keepdim=True)
        return np.asarray((self.scores / torch.where(norms > 0, norms, 1)).cpu().numpy())


def _normalized_blocks(rows: Rows, size: int, device: str) -> Iterator[tuple[int, Tensor]]:
    """Blocks of rows on the device, float32, each row over its length, with the number of their first row.

    All blocks lie at the same place in memory, one after another.
    """
    import torch

    work = torch.empty((min(size, rows.shape[0]), rows.shape[1]), device=device)
    for start in range(0, rows.shape[0], size):
        block = _tensor(rows[start : start + size]).to(device)
        unit = work[: len(block)].copy_(block)
        yield start, unit.div_(_norms(unit))


def _tensor(block: np.ndarray) -> Tensor:
    """Rows as float32, or in half precision, which is converted where they are compared."""
    import torch

    block = np.asarray(block)
    half = block.dtype == np.float16 and block.dtype.isnative
    block = np.ascontiguousarray(block, dtype=np.float16 if half else np.float32)
    return torch.from_numpy(block if block.flags.writeable else block.copy())


def normalized(block: np.ndarray) -> np.ndarray:
    """Rows over their length, float32, as the search compares them; rows of zeros stay."""
    rows = _tensor(block).float()
    return np.asarray((rows / _norms(rows)).numpy())


def _norms(rows: Tensor) -> Tensor:
    return rows.norm(dim=1, keepdim=True).clamp_min(MIN_NORM)
