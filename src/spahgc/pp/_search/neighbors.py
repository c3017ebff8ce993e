"""Which search finds the neighbours, exact or approximate, and how well it found them."""

from __future__ import annotations

from typing import NamedTuple

from scipy.sparse import csr_matrix

from spahgc._installation import install_command
from spahgc._logging import warn
from spahgc._settings import limited_threads, settings
from spahgc._spots.rows import Rows
from spahgc.pp._search.approximate import FAISS_EXTRA, MIN_RECALL, approximate_neighbors, faiss_or_none, require_faiss
from spahgc.pp._search.exact import check_n_neighbors, cosine_neighbors

AUTO, EXACT, APPROXIMATE = SEARCHES = ("auto", "exact", "approximate")
"""Values of ``settings.search``."""

MAX_EXACT_PRODUCTS = 5e12
"""Query spots x bank spots x numbers of a spot up to which the search is exact: a minute on two cores that multiply 40
billion numbers a second each. So far a slide of 5,000 spots, 1,024 numbers each, is compared with a million others."""

ACCELERATOR_SPEED = 100
"""How many times more of them an accelerator does in that time."""


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
    record: dict[str, str | float]


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
    with limited_threads(float(query.shape[0]) * bank.shape[0] * bank.shape[1]):
        if _is_approximate(query, bank, device):
            check_n_neighbors(bank, k, exclude_self=exclude_self)
            approximate = approximate_neighbors(query, bank, k, exclude_self=exclude_self, device=device)
            if approximate is not None:
                graph, record = approximate
                return Neighbors(graph, {"search": APPROXIMATE, **record})
            warn(
                f"the approximate search finds fewer than {MIN_RECALL:.0%} of the neighbours in this bank. The search goes "
                "on exactly.",
                stacklevel=3,
            )
        return Neighbors(cosine_neighbors(query, bank, k, exclude_self=exclude_self, device=device), {"search": EXACT})


def _is_approximate(query: Rows, bank: Rows, device: str) -> bool:
    if settings.search not in SEARCHES:
        raise ValueError(f'settings.search="{settings.search}" is not known. Choose one of {", ".join(SEARCHES)}.')
    if settings.search == APPROXIMATE:
        require_faiss()
        return query.shape[0] > 0
    limit = MAX_EXACT_PRODUCTS * (1 if device == "cpu" else ACCELERATOR_SPEED)
    if settings.search == EXACT or query.shape[0] * bank.shape[0] * bank.shape[1] <= limit:
        return False
    if faiss_or_none() is None:
        warn(
            f"{query.shape[0]} spots are compared with each of {bank.shape[0]}, which takes minutes. With faiss it would "
            f"take seconds: run {install_command(FAISS_EXTRA)}. The search goes on exactly.",
            stacklevel=3,
        )
        return False
    return True
