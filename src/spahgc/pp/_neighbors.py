"""Exact nearest neighbours by cosine similarity, block by block."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_matrix

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

BLOCK_SPOTS = 4096
"""Query and bank spots of one block: 67 MB of similarities, whatever the sizes of the two slides."""


def cosine_neighbors(
    query: NDArray[np.float32],
    bank: NDArray[np.float32],
    k: int,
    *,
    exclude_self: bool = False,
    block: int = BLOCK_SPOTS,
) -> csr_matrix:
    """The ``k`` bank spots of highest cosine similarity for every query spot.

    No matrix larger than ``block x block`` is held. A row of zeros is similar to nothing (similarity 0).

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
    block
        Spots of one block.

    Returns
    -------
    Query spots x bank spots, CSR, float32, ``k`` stored values a row, the columns of a row sorted.
    """
    import torch

    available = len(bank) - exclude_self
    if k > available:
        raise ValueError(f"{k} neighbours were asked for, but there are only {available} spots to choose from.")
    columns = np.empty((len(query), k), dtype=np.int64)
    values = np.empty((len(query), k), dtype=np.float32)
    bank_unit = _unit_rows(bank)
    query_unit = bank_unit if exclude_self else _unit_rows(query)
    for start in range(0, len(query), block):
        rows = slice(start, start + block)
        best = _best_of_blocks(query_unit[rows], bank_unit, k, start if exclude_self else None, block)
        values[rows], columns[rows] = (part.numpy() for part in best)
        order = torch.from_numpy(columns[rows]).argsort(dim=1).numpy()
        values[rows] = np.take_along_axis(values[rows], order, axis=1)
        columns[rows] = np.take_along_axis(columns[rows], order, axis=1)
    offsets = np.arange(0, k * len(query) + 1, k)
    return csr_matrix((values.ravel(), columns.ravel(), offsets), shape=(len(query), len(bank)))


def _unit_rows(x: NDArray[np.float32]) -> Tensor:
    import torch

    return torch.nn.functional.normalize(torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32)), dim=1)


def _best_of_blocks(query: Tensor, bank: Tensor, k: int, first_self: int | None, block: int) -> tuple[Tensor, Tensor]:
    """Running top ``k`` over the blocks of the bank; row ``i`` of ``query`` is bank spot ``first_self + i``."""
    import torch

    values = torch.full((len(query), 0), 0.0)
    columns = torch.empty((len(query), 0), dtype=torch.int64)
    for start in range(0, len(bank), block):
        similarity = query @ bank[start : start + block].T
        if first_self is not None:
            own = torch.arange(len(query)) + first_self - start
            inside = (own >= 0) & (own < similarity.shape[1])
            similarity[inside.nonzero().squeeze(1), own[inside]] = -torch.inf
        value, column = similarity.topk(min(k, similarity.shape[1]), dim=1)
        values = torch.cat([values, value], dim=1)
        columns = torch.cat([columns, column + start], dim=1)
        values, keep = values.topk(min(k, values.shape[1]), dim=1)
        columns = columns.gather(1, keep)
    return values, columns
