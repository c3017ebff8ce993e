"""Which search finds the neighbours, exact or approximate, and how well it found them."""

from __future__ import annotations

import logging
import warnings
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from spahgc._settings import settings
from spahgc.pp._search.exact import (
    MIN_LENGTH,
    Rows,
    as_stored,
    check_enough,
    cosine_neighbors,
    neighbor_graph,
    unit_array,
)
from spahgc.pp._search.index import EXTRA, Index, faiss_or_none, require_faiss
from spahgc.pp._search.kept_index import index_of
from spahgc.pp._search.recall import Sample, best_of

logger = logging.getLogger(__name__)

AUTO, EXACT, APPROXIMATE = SEARCHES = ("auto", "exact", "approximate")
"""Values of ``settings.search``."""

MAX_EXACT = 5e12
"""Query spots x bank spots x numbers of a spot up to which the search is exact: a minute on two cores that multiply 40
billion numbers a second each. So far a slide of 5,000 spots, 1,024 numbers each, is compared with a million others."""

ACCELERATOR = 100
"""How many times more of them an accelerator does in that time."""

MIN_RECALL = 0.95
"""Share of the true neighbours that an approximate search has to find."""

MARGIN = 0.02
"""What the measured share must be above the least one: two standard errors of 512 x 7 / 8 neighbours."""

FIRST_PROBES = 16
"""Lists that are looked through at first; twice as many while too few of the neighbours are found in them."""

MAX_SHARE = 1 / 8
"""Share of the lists beyond which looking through them saves too little."""

CANDIDATES = (32, 64, 128, 256, 512, 1024)
"""Candidates of a spot that are compared exactly: the smallest number that suffices."""

LOOKED_UP = 4096
"""Query spots that are looked up in the index at a time."""

COMPARED_NUMBERS = 2**27
"""Numbers of their candidates that are read at a time, 268 MB in half precision."""


class Neighbors(NamedTuple):
    """Neighbours, and in types that ``uns`` can hold how they were found.

    Parameters
    ----------
    graph
        Query spots x bank spots, CSR, float32, values = cosine similarity, columns of a row sorted.
    record
        ``search``: ``"exact"`` or ``"approximate"``. Of the latter also ``recall``, the share of the true neighbours that
        were found, of ``recall_queries`` query spots among ``recall_bank`` spots of the bank, and ``lists``, ``probes`` and
        ``candidates`` of the index.
    """

    graph: csr_matrix
    record: dict[str, Any]


def search_neighbors(query: Rows, bank: Rows, k: int, *, exclude_self: bool = False, device: str = "cpu") -> Neighbors:
    """The ``k`` bank spots of highest cosine similarity for every query spot, by the search that ``settings`` names.

    ``"auto"`` is exact up to 5e12 products of two numbers (100 times as many on an accelerator); beyond that an index
    proposes candidates, which are compared exactly. Its recall is measured in every call, on up to 512 query spots against
    their exact search in an eighth of the bank or 65,536 spots. Where it is too low the index is looked through further, and
    in the end given up.

    Parameters
    ----------
    query, bank
        Spots x dim, of which rows of any indices can be read.
    k
        Neighbours of a query spot.
    exclude_self
        Query and bank are the same spots, and none is its own neighbour.
    device
        Torch device of the exact products.

    Raises
    ------
    ImportError
        If ``settings.search`` is ``"approximate"`` and faiss is not installed. Under ``"auto"`` the search is then exact,
        with a warning.
    ValueError
        If the bank holds fewer than ``k`` spots that could be neighbours, or the setting is none.
    """
    check_enough(bank, k, exclude_self=exclude_self)
    if _is_approximate(query, bank, device):
        found = _approximate(query, bank, k, exclude_self, device)
        if found is not None:
            return found
    return Neighbors(cosine_neighbors(query, bank, k, exclude_self=exclude_self, device=device), {"search": EXACT})


def _is_approximate(query: Rows, bank: Rows, device: str) -> bool:
    if settings.search not in SEARCHES:
        raise ValueError(f'settings.search="{settings.search}" is not known. Choose one of {", ".join(SEARCHES)}.')
    if settings.search == APPROXIMATE:
        require_faiss()
        return query.shape[0] > 0
    limit = MAX_EXACT * (1 if device == "cpu" else ACCELERATOR)
    if settings.search == EXACT or query.shape[0] * bank.shape[0] * bank.shape[1] <= limit:
        return False
    if faiss_or_none() is None:
        warnings.warn(
            f"{query.shape[0]} spots are compared with each of {bank.shape[0]}, which takes minutes. With faiss it would "
            f'take seconds: run pip install "spahgc[{EXTRA}]". The search goes on exactly.',
            stacklevel=3,
        )
        return False
    return True


def _approximate(query: Rows, bank: Rows, k: int, exclude_self: bool, device: str) -> Neighbors | None:
    """Neighbours among candidates of the index; ``None`` where too few of the true ones are among them."""
    index = index_of(bank)
    sample = Sample.of(query, bank, k, exclude_self, device)
    reached = _settings_for(index, bank, sample)
    if reached is None:
        warnings.warn(
            f"the approximate search finds fewer than {MIN_RECALL:.0%} of the neighbours in this bank. The search goes on "
            "exactly.",
            stacklevel=4,
        )
        return None
    probes, candidates, recall = reached
    logger.info("approximate search: recall %.3f with %d lists, %d candidates", recall, probes, candidates)
    graph = _look_up(index, query, bank, k, exclude_self, probes, candidates, device)
    measured = {"recall": recall, "recall_queries": len(sample.queries), "recall_bank": sample.n_bank}
    used = {"lists": index.n_lists, "probes": probes, "candidates": candidates}
    return Neighbors(graph, {"search": APPROXIMATE} | measured | used)


def _settings_for(index: Index, bank: Rows, sample: Sample) -> tuple[int, int, float] | None:
    """Lists and candidates with which the sample finds enough of its neighbours, and the share that it finds."""
    k = sample.values.shape[1]
    wanted = min(1.0, MIN_RECALL + MARGIN)
    probes = min(FIRST_PROBES, index.n_lists)
    while True:
        places = index.candidates(sample.queries, min(CANDIDATES[-1], len(index)), n_probes=probes)
        places = _without(places, sample.own)
        similar = np.empty((len(places), 0), np.float32)
        for n in (min(max(n, 4 * k), places.shape[1]) for n in CANDIDATES):
            similar = np.hstack([similar, _similarities(sample.queries, bank, places[:, similar.shape[1] : n])])
            recall = sample.recall(*_most_similar(similar, places[:, :n], k))
            if recall >= wanted:
                return probes, n, recall
        if probes >= MAX_SHARE * index.n_lists:
            return None
        probes *= 2


def _look_up(
    index: Index, query: Rows, bank: Rows, k: int, exclude_self: bool, probes: int, candidates: int, device: str
) -> csr_matrix:
    n = query.shape[0]
    values, columns = np.empty((n, k), np.float32), np.empty((n, k), np.int64)
    for start in range(0, n, LOOKED_UP):
        rows = slice(start, min(start + LOOKED_UP, n))
        queries = np.asarray(query[rows])
        own = np.arange(rows.start, rows.stop) if exclude_self else None
        places = _without(index.candidates(queries, candidates, n_probes=probes), own)
        similar = _similarities(queries, bank, places)
        values[rows], columns[rows] = _most_similar(similar, places, k)
    alone = np.flatnonzero(~np.isfinite(values).all(axis=1))  # their lists hold fewer than k spots
    if len(alone):
        graph = cosine_neighbors(query[alone], bank, k + exclude_self, device=device)
        values[alone], columns[alone] = best_of(graph, alone if exclude_self else None, k)
    return neighbor_graph(values, columns, bank.shape[0])


def _most_similar(
    similar: NDArray[np.float32], places: NDArray[np.int64], k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Similarities and places of the ``k`` most similar of the candidates."""
    best = np.argpartition(-similar, k - 1, axis=1)[:, :k]
    return np.take_along_axis(similar, best, axis=1), np.take_along_axis(places, best, axis=1)


def _without(places: NDArray[np.int64], own: NDArray[np.int64] | None) -> NDArray[np.int64]:
    """Candidates without the spot itself."""
    return places if own is None else np.where(places == own[:, None], -1, places)


def _similarities(queries: NDArray[Any], bank: Rows, places: NDArray[np.int64]) -> NDArray[np.float32]:
    """Exact cosine similarity of every query spot to its candidates; minus infinity where there is none (-1)."""
    queries = unit_array(queries)
    out = np.empty(places.shape, np.float32)
    size = max(1, COMPARED_NUMBERS // max(1, places.shape[1] * bank.shape[1]))
    for start in range(0, len(places), size):
        rows = slice(start, start + size)
        # Sorted, in the order that they have on disk.
        wanted, back = np.unique(np.maximum(places[rows], 0), return_inverse=True)
        vectors = as_stored(bank, wanted)
        for i, others in enumerate(back.reshape(places[rows].shape), start):
            each = vectors[others].astype(np.float32, copy=False)
            lengths = np.sqrt(np.einsum("ij,ij->i", each, each))
            out[i] = each @ queries[i] / np.maximum(lengths, MIN_LENGTH)
    return np.where(places < 0, np.float32(-np.inf), out)
