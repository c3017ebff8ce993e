"""An approximate index of a bank: which spots are worth comparing with, found among millions of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spahgc._files import written_whole
from spahgc.pp._search.exact import Rows, as_stored, unit_array

EXTRA = "faiss"
"""Extra of the package that brings the library."""

N_AXES = 256
"""Principal axes on which spots are compared: 1,024 numbers lose nothing by it that a second look does not bring back."""

LISTS_PER_ROOT = 3
"""Lists of an index, as a multiple of the square root of the bank's size."""

SPOTS_PER_LIST = 40
"""Spots of a sample from which a list's centre is learned."""

ITERATIONS = 10
"""Passes over that sample."""

AXES_SAMPLE = 2**25
"""Numbers of the sample from which the axes are learned, 134 MB."""

BLOCK_NUMBERS = 2**24
"""Numbers that are added to an index at a time, 67 MB."""


def faiss_or_none() -> Any | None:
    """The library, with as many threads as torch uses; ``None`` where it is not installed."""
    import torch  # first: whichever brings its OpenMP runtime later may not find it as it needs it

    try:
        import faiss
    except ImportError:
        return None
    faiss.omp_set_num_threads(torch.get_num_threads())
    return faiss


def require_faiss() -> Any:
    """The library, or an error that names the extra."""
    faiss = faiss_or_none()
    if faiss is None:
        raise ImportError(
            f'the approximate search needs faiss, which is not installed. Run pip install "spahgc[{EXTRA}]", or set '
            'spahgc.settings.search = "exact".'
        )
    return faiss


class Index:
    """Spots in lists of similar ones, each as 256 bytes: candidates for a closer look, most similar first.

    Spots are scaled to length 1, where the order by distance is the order by cosine similarity, turned onto their
    principal axes, sorted into lists around centres (k-means), and stored with 8 bits a number. Made by :meth:`build`
    and :meth:`load`.
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
        """From all rows of a bank, read in blocks; axes and lists are learned on a sample.

        Parameters
        ----------
        rows
            Spots x dim; rows of any indices can be read.
        n_lists
            Lists; ``None`` takes three times the square root of the bank's size.
        """
        faiss = require_faiss()
        n, dim = rows.shape
        n_lists = round(LISTS_PER_ROOT * n**0.5) if n_lists is None else n_lists
        n_lists = max(1, min(n_lists, n // SPOTS_PER_LIST))
        n_axes = min(dim, N_AXES)
        centres = faiss.IndexFlatL2(n_axes)
        lists = faiss.IndexIVFScalarQuantizer(centres, n_axes, n_lists, faiss.ScalarQuantizer.QT_8bit)
        lists.cp.niter = ITERATIONS
        index = lists
        sample = _evenly(n, SPOTS_PER_LIST * n_lists)
        axes = None
        if n_axes < dim:
            axes = _axes(unit_array(as_stored(rows, _evenly(n, max(dim, AXES_SAMPLE // dim)))), n_axes)
            index = faiss.IndexPreTransform(axes, lists)
        learned = np.empty((len(sample), n_axes), np.float32)
        for part in _parts(len(sample), dim):
            unit = unit_array(as_stored(rows, sample[part]))
            learned[part] = unit if axes is None else axes.apply(unit)
        lists.train(learned)
        index.is_trained = True
        made = cls(index)
        made.extend(rows)
        return made

    def extend(self, rows: Rows) -> None:
        """Add the rows of a bank that has grown; those that are in the index must be its first ones."""
        for part in _parts(rows.shape[0], rows.shape[1], start=len(self)):
            self._index.add(unit_array(as_stored(rows, part)))

    def candidates(self, queries: NDArray[Any], n: int, *, n_probes: int) -> NDArray[np.int64]:
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
        return np.asarray(self._index.search(unit_array(queries), n)[1])

    def save(self, path: Path) -> None:
        """Write it as faiss does, whole or not at all."""
        with written_whole(path) as part:
            require_faiss().write_index(self._index, str(part))

    @classmethod
    def load(cls, path: Path) -> Index:
        """Read what :meth:`save` wrote."""
        return cls(require_faiss().read_index(str(path)))


def _axes(sample: NDArray[np.float32], n: int) -> Any:
    """The library's map onto the principal axes of a sample."""
    import torch

    faiss = require_faiss()
    rows = torch.from_numpy(sample)
    mean = rows.mean(dim=0)
    _, vectors = torch.linalg.eigh((rows - mean).T @ (rows - mean))
    turn = vectors.T.flip(0)[:n].contiguous()
    axes = faiss.LinearTransform(sample.shape[1], n, True)
    faiss.copy_array_to_vector(turn.numpy().ravel(), axes.A)
    faiss.copy_array_to_vector((-turn @ mean).numpy(), axes.b)
    axes.is_trained = True
    return axes


def _evenly(n: int, wanted: int) -> NDArray[np.int64]:
    """Indices of at most so many of ``n`` spots, one drawn from each stretch of equal length; ascending."""
    if wanted >= n:
        return np.arange(n)
    starts = np.linspace(0, n, wanted + 1).astype(np.int64)
    # Drawn, not every so many-th: a bank in rows and columns of a slide has a period of its own.
    return np.random.default_rng(0).integers(starts[:-1], starts[1:])


def _parts(n: int, dim: int, *, start: int = 0) -> Iterator[slice]:
    size = max(1, BLOCK_NUMBERS // dim)
    return (slice(first, min(first + size, n)) for first in range(start, n, size))
