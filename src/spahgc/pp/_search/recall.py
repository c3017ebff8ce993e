"""How many of the true neighbours an approximate search finds, measured against the exact one."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from spahgc.pp._search.exact import Rows, as_stored, cosine_neighbors

SAMPLE = 512
"""Query spots for which it is measured."""

SAMPLED_BANK, SHARE, STRETCH = 2**16, 8, 1024
"""Spots of the bank in which their true neighbours are looked for: so many at least, and an eighth of a larger bank, which
is read in stretches of 1,024 spots. To read all of it would take longer than the search itself."""

SAME = 1e-6
"""Similarities that differ by less are those of neighbours that are as good as each other."""


class _Part:
    """Some rows of a bank, read when they are asked for."""

    def __init__(self, bank: Rows, rows: NDArray[np.int64]) -> None:
        self.bank, self.rows, self.shape = bank, rows, (len(rows), bank.shape[1])

    def __getitem__(self, rows: slice) -> Any:
        return as_stored(self.bank, self.rows[rows])


class Sample(NamedTuple):
    """Some query spots, and their true neighbours in a part of the bank.

    Parameters
    ----------
    queries
        Their embeddings.
    own
        Their places in the bank where they are not to be found themselves.
    values, columns
        The true neighbours in that part, most similar first.
    n_bank
        Spots of that part.
    share
        The part as a share of the bank.
    """

    queries: NDArray[Any]
    own: NDArray[np.int64] | None
    values: NDArray[np.float32]
    columns: NDArray[np.int64]
    n_bank: int
    share: float

    @classmethod
    def of(cls, query: Rows, bank: Rows, k: int, exclude_self: bool, device: str) -> Sample:
        """From the spots of a search, taken evenly."""
        chosen = np.linspace(0, query.shape[0] - 1, min(SAMPLE, query.shape[0])).round().astype(np.int64)
        queries, own = query[chosen], chosen if exclude_self else None
        rows = _stretches(bank.shape[0])
        graph = cosine_neighbors(queries, _Part(bank, rows), k + exclude_self, device=device)
        values, columns = best_of(graph, own, k, rows)
        return cls(queries, own, values, columns, len(rows), len(rows) / bank.shape[0])

    def recall(self, values: NDArray[np.float32], columns: NDArray[np.int64]) -> float:
        """Share of the true neighbours among those found, which are given as similarities and places, spots x k.

        One that is missing stands for as many as the bank is larger than the part, and is a true neighbour if with those
        that are more similar, found or missing, it is among the first ``k``. What is as similar as all that was found is
        not missing.
        """
        k = values.shape[1]
        missing = ~(self.columns[:, :, None] == columns[:, None, :]).any(axis=2)
        better = (values[:, None, :] >= self.values[:, :, None] - SAME).sum(axis=2)
        before = (missing.cumsum(axis=1) - missing) / self.share
        missed = (missing & (1 + better + before <= k)).sum(axis=1) / self.share
        return float(1 - np.minimum(missed.mean() / k, 1))


def _stretches(n: int) -> NDArray[np.int64]:
    """Rows of the part of a bank in which the recall is measured: of every eight stretches one, drawn; ascending."""
    if n <= SAMPLED_BANK:
        return np.arange(n)
    wanted = max(SAMPLED_BANK, n // SHARE) // STRETCH
    edges = np.linspace(0, n // STRETCH, wanted + 1).astype(np.int64)
    stretches = np.random.default_rng(0).integers(edges[:-1], edges[1:])
    return np.asarray((stretches[:, None] * STRETCH + np.arange(STRETCH)).ravel())


def best_of(
    graph: csr_matrix, own: NDArray[np.int64] | None, k: int, rows: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Similarities and places of the neighbours, most similar first and without the spots themselves.

    ``rows`` are the places in the bank of the columns of the graph.
    """
    values, columns = (part.reshape(graph.shape[0], -1) for part in (graph.data, graph.indices))
    columns = columns if rows is None else rows[columns]
    if own is not None:
        values = np.where(columns == own[:, None], -np.inf, values)
    best = np.argsort(-values, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(values, best, axis=1), np.take_along_axis(columns, best, axis=1)
