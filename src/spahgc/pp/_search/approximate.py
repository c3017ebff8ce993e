"""Approximate nearest neighbours: an index proposes candidates, which are compared exactly, and the recall is measured.

The index of a bank is cached for the next search: beside a bank on disk, or as long as the bank is in memory.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.sparse import csr_matrix

from spahgc._files import remove_leftovers_in, written_whole
from spahgc._installation import install_command
from spahgc._logging import HINT
from spahgc._reading import reading
from spahgc._spots.rows import Rows, SomeRows, StoredRows, as_stored
from spahgc.pp._search.exact import MIN_NORM, cosine_neighbors, neighbor_graph, normalized

if TYPE_CHECKING:
    from types import ModuleType

logger = logging.getLogger(__name__)

FAISS_EXTRA = "faiss"
"""Extra of the package that brings the library."""

# The index.

N_COMPONENTS = 256
"""Principal components on which spots are compared: 1,024 numbers lose nothing by it that the exact comparison of the
candidates does not bring back."""

LISTS_PER_SQRT = 3
"""Lists of an index, as a multiple of the square root of the bank's size."""

TRAINING_SPOTS_PER_LIST = 40
"""Spots of a sample from which a list's centre is learned."""

KMEANS_ITERATIONS = 10
"""Passes over that sample."""

PCA_SAMPLE_NUMBERS = 2**25
"""Numbers of the sample from which the components are learned, 134 MB."""

INDEX_BLOCK_NUMBERS = 2**24
"""Numbers that are added to an index at a time, 67 MB."""

# Its cache.

INDEX_FOLDER = "index"
"""Folder of a bank on disk that holds its indices."""

DIGEST_LENGTH = 16
"""Figures of the SHA-256 of an embedding that the name of its index carries."""

FINGERPRINT_ROWS = 256
"""Rows of an array in memory by which it is told whether it was written into."""

# The search.

MIN_RECALL = 0.95
"""Share of the true neighbours that an approximate search has to find."""

RECALL_MARGIN = 0.02
"""What the measured share must be above the least one: two standard errors of 512 x 7 / 8 neighbours."""

FIRST_PROBES = 16
"""Lists that are looked through at first; twice as many while too few of the neighbours are found in them."""

MAX_PROBED_SHARE = 1 / 8
"""Share of the lists beyond which looking through them saves too little."""

CANDIDATES = (32, 64, 128, 256, 512, 1024)
"""Candidates of a spot that are compared exactly: the smallest number that suffices."""

QUERY_BATCH = 4096
"""Query spots that are looked up in the index at a time."""

CANDIDATE_NUMBERS = 2**27
"""Numbers of their candidates that are read at a time, 268 MB in half precision."""

# Its recall.

RECALL_QUERIES = 512
"""Query spots for which it is measured."""

RECALL_BANK_SIZE, RECALL_BANK_PART, RECALL_BANK_RUN = 2**16, 8, 1024
"""Spots of the bank in which their true neighbours are looked for: so many at least, and an eighth of a larger bank, which
is read in runs of 1,024 spots. To read all of it would take longer than the search itself."""

EQUAL_SIMILARITY = 1e-6
"""Similarities that differ by less are those of neighbours that are as good as each other."""


def faiss_or_none() -> ModuleType | None:
    """The library, with as many threads as torch uses; ``None`` where it is not installed."""
    import torch  # first: whichever brings its OpenMP runtime later may not find it as it needs it

    try:
        import faiss
    except ImportError:
        return None
    faiss.omp_set_num_threads(torch.get_num_threads())
    return faiss


def require_faiss() -> ModuleType:
    """The library, or an error that names the extra."""
    faiss = faiss_or_none()
    if faiss is None:
        raise ImportError(
            f"the approximate search needs faiss, which is not installed. Run {install_command(FAISS_EXTRA)}, or set "
            'spahgc.settings.search = "exact".'
        )
    return faiss


class Index:
    """Spots in lists of similar ones, each as 256 bytes: candidates for an exact comparison, most similar first.

    Spots are scaled to length 1, where the order by distance is the order by cosine similarity, turned onto their
    principal components, sorted into lists around centres (k-means), and stored with 8 bits a number. Made by
    :meth:`build` and :meth:`load`.
    """

    def __init__(self, index: Any) -> None:
        self._index = index
        self._lists = require_faiss().extract_index_ivf(index)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def n_lists(self) -> int:
        """Lists among which the spots are divided."""
        return int(self._lists.nlist)

    @classmethod
    def build(cls, rows: Rows, *, n_lists: int | None = None) -> Index:
        """From all rows of a bank, read in blocks; components and lists are learned on a sample.

        Parameters
        ----------
        rows
            Spots x dim; rows of any indices can be read.
        n_lists
            Lists; ``None`` takes three times the square root of the bank's size.
        """
        faiss, rows = require_faiss(), as_stored(rows)
        n, dim = rows.shape
        n_lists = round(LISTS_PER_SQRT * n**0.5) if n_lists is None else n_lists
        n_lists = max(1, min(n_lists, n // TRAINING_SPOTS_PER_LIST))
        n_components = min(dim, N_COMPONENTS)
        centres = faiss.IndexFlatL2(n_components)
        lists = faiss.IndexIVFScalarQuantizer(centres, n_components, n_lists, faiss.ScalarQuantizer.QT_8bit)
        lists.cp.niter = KMEANS_ITERATIONS
        index = lists
        sample = _even_sample(n, TRAINING_SPOTS_PER_LIST * n_lists)
        pca = None
        if n_components < dim:
            pca = _fit_pca(normalized(rows[_even_sample(n, max(dim, PCA_SAMPLE_NUMBERS // dim))]), n_components)
            index = faiss.IndexPreTransform(pca, lists)
        training = np.empty((len(sample), n_components), np.float32)
        for block in _index_blocks(len(sample), dim):
            unit = normalized(rows[sample[block]])
            training[block] = unit if pca is None else pca.apply(unit)
        lists.train(training)
        index.is_trained = True
        built = cls(index)
        built.extend(rows)
        return built

    def extend(self, rows: Rows) -> None:
        """Add the rows of a bank that has grown; those that are in the index must be its first ones."""
        rows = as_stored(rows)
        for block in _index_blocks(rows.shape[0], rows.shape[1], start=len(self)):
            self._index.add(normalized(rows[block]))

    def candidates(self, queries: np.ndarray, n: int, *, n_probes: int) -> np.ndarray:
        """The ``n`` most similar spots in the nearest ``n_probes`` lists, for every query; -1 where there are fewer.

        Parameters
        ----------
        queries
            Spots x dim.
        n
            Candidates of a spot.
        n_probes
            Lists that are looked through.
        """
        require_faiss()  # sets the threads
        self._lists.nprobe = min(n_probes, self.n_lists)
        found = np.asarray(self._index.search(normalized(queries), n)[1])
        if found.size and found.max() >= len(self):
            raise ValueError(
                f"the index of the bank names spot {found.max()} of {len(self)}: it is damaged. Remove the folder "
                f'"{INDEX_FOLDER}" of the bank, it is made anew.'
            )
        return found

    def save(self, path: Path) -> None:
        """Write it as faiss does, whole or not at all."""
        with written_whole(path) as part:
            require_faiss().write_index(self._index, str(part))

    @classmethod
    def load(cls, path: Path) -> Index:
        """Read what :meth:`save` wrote; the errors are those of :func:`spahgc._reading.reading`."""
        faiss = require_faiss()
        with reading(path, "the index of a bank", "It is made anew."):
            return cls(faiss.read_index(str(path)))

    @property
    def dim(self) -> int:
        """Columns of the embedding."""
        return int(self._index.d)


def _fit_pca(sample: np.ndarray, n: int) -> Any:
    """The library's map onto the principal components of a sample."""
    import torch

    faiss = require_faiss()
    rows = torch.from_numpy(sample)
    mean = rows.mean(dim=0)
    _, vectors = torch.linalg.eigh((rows - mean).T @ (rows - mean))
    components = vectors.T.flip(0)[:n].contiguous()
    pca = faiss.LinearTransform(sample.shape[1], n, True)
    faiss.copy_array_to_vector(components.numpy().ravel(), pca.A)
    faiss.copy_array_to_vector((-components @ mean).numpy(), pca.b)
    pca.is_trained = True
    return pca


def _even_sample(n: int, size: int) -> np.ndarray:
    """Indices of at most so many of ``n`` spots, one drawn from each run of equal length; ascending."""
    if size >= n:
        return np.arange(n)
    starts = np.linspace(0, n, size + 1).astype(np.int64)
    # Drawn, not every so many-th: a bank in rows and columns of a slide has a period of its own.
    return np.random.default_rng(0).integers(starts[:-1], starts[1:])


def _index_blocks(n: int, dim: int, *, start: int = 0) -> Iterator[slice]:
    size = max(1, INDEX_BLOCK_NUMBERS // dim)
    return (slice(first, min(first + size, n)) for first in range(start, n, size))


class _IndexCache:
    """The index that was used last; one alone, since that of a million spots takes 150 MB."""

    def __init__(self) -> None:
        self.clear()

    def clear(self, _: object = None) -> None:
        """Let go of it."""
        self.index: Index | None = None
        self.fingerprint: object = None
        self.bank: weakref.ref[Rows] | None = None

    def get(self, bank: Rows) -> Index:
        """The index of a bank: the cached one, that one extended by the rows that have come since, or a new one."""
        if isinstance(bank, StoredRows) and bank.bank_folder is not None and bank.digests:
            fingerprint: object = (bank.shape[1], bank.digests[-1])
            if self.index is None or self.fingerprint != fingerprint:
                self.index, self.fingerprint, self.bank = _stored_index(bank, bank.bank_folder), fingerprint, None
            return self.index
        fingerprint = _fingerprint(bank)
        if self.index is None or self.fingerprint != fingerprint or self.bank is None or self.bank() is not bank:
            self.index, self.fingerprint = Index.build(bank), fingerprint
            self.bank = weakref.ref(bank, self.clear)
        return self.index


index_cache = _IndexCache()


def _fingerprint(bank: Rows) -> bytes:
    rows = np.linspace(0, bank.shape[0] - 1, min(FINGERPRINT_ROWS, bank.shape[0])).round().astype(np.int64)
    return np.ascontiguousarray(bank[rows]).tobytes()


def _stored_index(rows: StoredRows, bank_folder: Path) -> Index:
    """The index that lies beside the bank, extended if the bank has grown, or a new one, which is written there."""
    remove_leftovers_in(bank_folder / INDEX_FOLDER)
    # What the bank was after each write, the last one first.
    paths = [_index_path(rows, bank_folder, digest) for _, digest in reversed(rows.digests)]
    for path, (n_spots, _) in zip(paths, reversed(rows.digests), strict=True):
        index = _index_at(path, rows.shape[1])
        if index is not None:
            if len(index) == n_spots == len(rows):
                return index
            if len(index) == n_spots:
                index.extend(rows)
                break
    else:
        logger.log(HINT, "making an index of %d spots", len(rows))
        index = Index.build(rows)
    newest, *outdated = paths
    try:
        newest.parent.mkdir(exist_ok=True)
        index.save(newest)
    except OSError as error:  # a bank that others may read alone
        logger.warning("the index is not kept, %s cannot be written: %s", newest.parent, error)
        return index
    for path in outdated:
        path.unlink(missing_ok=True)
    return index


def _index_at(path: Path, dim: int) -> Index | None:
    """The index that lies at a path, for so many columns; ``None`` where none does that can be read: it is made anew."""
    if not path.is_file():
        return None
    try:
        index = Index.load(path)
    except (OSError, ValueError) as error:
        logger.warning("%s", error)
        return None
    return index if index.dim == dim else None


def _index_path(rows: StoredRows, bank_folder: Path, digest: str) -> Path:
    """File of the index of the rows that have this digest."""
    return bank_folder / INDEX_FOLDER / f"{rows.shape[1]}-{digest[:DIGEST_LENGTH]}.faiss"


def approximate_neighbors(
    query: Rows, bank: Rows, k: int, *, exclude_self: bool = False, device: str = "cpu"
) -> tuple[csr_matrix, dict[str, float]] | None:
    """The ``k`` most similar of the candidates of an index, and how well it found them.

    See :func:`spahgc.pp._search.exact.cosine_neighbors` for the parameters, and
    :class:`spahgc.pp._search.neighbors.Neighbors` for the record. ``None`` where too few of the true neighbours are among the
    candidates.
    """
    index, bank = index_cache.get(bank), as_stored(bank)
    sample = RecallSample.draw(query, bank, k, exclude_self, device)
    tuned = _tune(index, bank, sample)
    if tuned is None:
        return None
    n_probes, n_candidates, recall = tuned
    logger.log(HINT, "approximate search: recall %.3f with %d lists, %d candidates", recall, n_probes, n_candidates)
    n = query.shape[0]
    values, columns = np.empty((n, k), np.float32), np.empty((n, k), np.int64)
    for start in range(0, n, QUERY_BATCH):
        rows = slice(start, min(start + QUERY_BATCH, n))
        queries = np.asarray(query[rows])
        candidates = index.candidates(queries, n_candidates, n_probes=n_probes)
        candidates = _without_self(candidates, np.arange(rows.start, rows.stop) if exclude_self else None)
        similarities = _exact_similarities(queries, bank, candidates)
        values[rows], columns[rows] = _top_k(similarities, candidates, k)
    incomplete = np.flatnonzero(~np.isfinite(values).all(axis=1))  # their lists hold fewer than k spots
    if len(incomplete):
        graph = cosine_neighbors(query[incomplete], bank, k + exclude_self, device=device)
        values[incomplete], columns[incomplete] = top_k_of_graph(graph, incomplete if exclude_self else None, k)
    measured = {"recall": recall, "recall_queries": len(sample.queries), "recall_bank": sample.n_bank}
    used = {"lists": index.n_lists, "probes": n_probes, "candidates": n_candidates}
    return neighbor_graph(values, columns, bank.shape[0]), measured | used


def _tune(index: Index, bank: Rows, sample: RecallSample) -> tuple[int, int, float] | None:
    """Lists and candidates with which the sample finds enough of its neighbours, and the share that it finds."""
    k = sample.values.shape[1]
    wanted = min(1.0, MIN_RECALL + RECALL_MARGIN)
    n_probes = min(FIRST_PROBES, index.n_lists)
    while True:
        candidates = index.candidates(sample.queries, min(CANDIDATES[-1], len(index)), n_probes=n_probes)
        candidates = _without_self(candidates, sample.self_columns)
        similarities = np.empty((len(candidates), 0), np.float32)
        for n in (min(max(n, 4 * k), candidates.shape[1]) for n in CANDIDATES):
            more = _exact_similarities(sample.queries, bank, candidates[:, similarities.shape[1] : n])
            similarities = np.hstack([similarities, more])
            recall = sample.recall(*_top_k(similarities, candidates[:, :n], k))
            if recall >= wanted:
                return n_probes, n, recall
        if n_probes >= MAX_PROBED_SHARE * index.n_lists:
            return None
        n_probes *= 2


def _top_k(similarities: np.ndarray, candidates: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Similarities and columns of the ``k`` most similar of the candidates."""
    best = np.argpartition(-similarities, k - 1, axis=1)[:, :k]
    return np.take_along_axis(similarities, best, axis=1), np.take_along_axis(candidates, best, axis=1)


def _without_self(candidates: np.ndarray, self_columns: np.ndarray | None) -> np.ndarray:
    """Candidates without the spot itself."""
    return candidates if self_columns is None else np.where(candidates == self_columns[:, None], -1, candidates)


def _exact_similarities(queries: np.ndarray, bank: Rows, candidates: np.ndarray) -> np.ndarray:
    """Exact cosine similarity of every query spot to its candidates; minus infinity where there is none (-1)."""
    queries = normalized(queries)
    out = np.empty(candidates.shape, np.float32)
    size = max(1, CANDIDATE_NUMBERS // max(1, candidates.shape[1] * bank.shape[1]))
    for start in range(0, len(candidates), size):
        part = candidates[start : start + size]
        # Sorted, in the order that they have on disk.
        columns, positions = np.unique(np.maximum(part, 0), return_inverse=True)
        vectors = np.asarray(bank[columns])
        for i, chosen in enumerate(positions.reshape(part.shape), start):
            others = vectors[chosen].astype(np.float32, copy=False)
            norms = np.sqrt(np.einsum("ij,ij->i", others, others))
            out[i] = others @ queries[i] / np.maximum(norms, MIN_NORM)
    return np.where(candidates < 0, np.float32(-np.inf), out)


class RecallSample(NamedTuple):
    """Some query spots, and their true neighbours in a part of the bank.

    Parameters
    ----------
    queries
        Their embeddings.
    self_columns
        Their own columns of the bank, where they are not to be found themselves.
    values, columns
        The true neighbours in that part, most similar first.
    n_bank
        Spots of that part.
    share
        The part as a share of the bank.
    """

    queries: np.ndarray
    self_columns: np.ndarray | None
    values: np.ndarray
    columns: np.ndarray
    n_bank: int
    share: float

    @classmethod
    def draw(cls, query: Rows, bank: Rows, k: int, exclude_self: bool, device: str) -> RecallSample:
        """From the spots of a search, taken evenly."""
        chosen = np.linspace(0, query.shape[0] - 1, min(RECALL_QUERIES, query.shape[0])).round().astype(np.int64)
        queries, self_columns = query[chosen], chosen if exclude_self else None
        rows = _recall_rows(bank.shape[0])
        graph = cosine_neighbors(queries, SomeRows(bank, rows), k + exclude_self, device=device)
        values, columns = top_k_of_graph(graph, self_columns, k, rows)
        return cls(queries, self_columns, values, columns, len(rows), len(rows) / bank.shape[0])

    def recall(self, values: np.ndarray, columns: np.ndarray) -> float:
        """Share of the true neighbours among those found, which are given as similarities and columns, spots x k.

        One that is missing stands for as many as the bank is larger than the part, and is a true neighbour if with those
        that are more similar, found or missing, it is among the first ``k``. What is as similar as all that was found is
        not missing.
        """
        k = values.shape[1]
        missing = ~(self.columns[:, :, None] == columns[:, None, :]).any(axis=2)
        better = (values[:, None, :] >= self.values[:, :, None] - EQUAL_SIMILARITY).sum(axis=2)
        before = (missing.cumsum(axis=1) - missing) / self.share
        missed = (missing & (1 + better + before <= k)).sum(axis=1) / self.share
        return float(1 - np.minimum(missed.mean() / k, 1))


def _recall_rows(n: int) -> np.ndarray:
    """Rows of the part of a bank in which the recall is measured: of every eight runs one, drawn; ascending."""
    if n <= RECALL_BANK_SIZE:
        return np.arange(n)
    n_runs = max(RECALL_BANK_SIZE, n // RECALL_BANK_PART) // RECALL_BANK_RUN
    edges = np.linspace(0, n // RECALL_BANK_RUN, n_runs + 1).astype(np.int64)
    runs = np.random.default_rng(0).integers(edges[:-1], edges[1:])
    return np.asarray((runs[:, None] * RECALL_BANK_RUN + np.arange(RECALL_BANK_RUN)).ravel())


def top_k_of_graph(
    graph: csr_matrix, self_columns: np.ndarray | None, k: int, rows: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Similarities and columns of the neighbours, most similar first and without the spots themselves.

    ``rows`` are the rows of the bank for which the columns of the graph stand.
    """
    values, columns = (part.reshape(graph.shape[0], -1) for part in (graph.data, graph.indices))
    columns = columns if rows is None else rows[columns]
    if self_columns is not None:
        values = np.where(columns == self_columns[:, None], -np.inf, values)
    best = np.argsort(-values, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(values, best, axis=1), np.take_along_axis(columns, best, axis=1)
