"""Arrays of spots and their rows, read in blocks from memory or disk; standardising, axes and means over neighbours on them."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike
from scipy.sparse import csr_matrix, issparse

from spahgc._reading import reading, unreadable
from spahgc._spots.known import mean_where_known
from spahgc._spots.plane import nearest_in_plane
from spahgc._spots.scale import spots_around

MIN_SPREAD = 1e-6
"""What varies less than this is centred, not scaled."""

N_HEXAGONAL = 6
"""Nearest spots whose features are averaged: those around a spot of a hexagonal array."""

MIN_VARIANCE = 1e-12
"""Principal axes of less variance, as a share of the first one's, are noise of the arithmetic."""

ITERATIONS = 5
"""Passes over the data of the randomised principal axes."""

OVERSAMPLED = 10
"""Directions beyond the wanted ones that the randomised principal axes follow."""

DIGESTS = "spahgc_marks"
"""Attribute of the array: after every write the number of spots and the SHA-256 of all of them."""

ZARR_FILE = "zarr.json"
"""Describes an array or a group of zarr, format 3, in its folder."""

LABEL = "the embedding of a bank"
REMEDY = "Copy the whole folder of the bank again, or write it again with spahgc.pp.reference_bank."
"""How errors of an embedding on disk that cannot be read call it, and what they advise."""

HALF_EXPONENT = np.uint16(0x7C00)
"""Bits of the exponent of a number in half precision; NaN and the infinite have all of them."""


class Rows(Protocol):
    """Spots x dim of which some rows can be read: an array, a memory map, an array of zarr, or what computes them."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    def __getitem__(self, rows: slice | np.ndarray, /) -> np.ndarray: ...


class LazyRows(Rows, Protocol):
    """What all classes of rows have beside ``shape`` and ``[rows]``: a length, and all rows as an array."""

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        """All of it in memory, for code that works on nothing less."""
        return np.asarray(self[:], dtype=dtype)


@dataclass(frozen=True)
class SomeRows(LazyRows):
    """Some rows of an array, each read when it is asked for.

    Parameters
    ----------
    rows
        The array.
    chosen
        Numbers of its rows.
    """

    rows: Rows
    chosen: np.ndarray

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Chosen rows, and columns."""
        return (len(self.chosen), *self.rows.shape[1:])

    def __getitem__(self, rows: slice | np.ndarray, /) -> np.ndarray:
        return read(self.rows, self.chosen[rows])


@dataclass(frozen=True)
class DenseRows(LazyRows):
    """A sparse matrix whose rows are dense when they are read."""

    matrix: csr_matrix

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """That of the matrix."""
        return tuple(self.matrix.shape)

    def __getitem__(self, rows: slice | np.ndarray, /) -> np.ndarray:
        return np.asarray(self.matrix[rows].toarray())


def dense(rows: Rows | csr_matrix) -> Rows:
    """Rows that are dense where they are read: of a sparse matrix, or as they are."""
    return DenseRows(rows) if issparse(rows) else rows


@dataclass(frozen=True)
class SomeColumns(LazyRows):
    """Some columns of an array, taken from each row when it is read."""

    rows: Rows
    chosen: np.ndarray

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Rows, and chosen columns."""
        return self.rows.shape[0], len(self.chosen)

    def __getitem__(self, rows: slice | np.ndarray, /) -> np.ndarray:
        return np.asarray(self.rows[rows][:, self.chosen])


class Joined(LazyRows):
    """Two arrays side by side, joined block by block: ``[embedding ; expression]`` without a dense matrix of either.

    Parameters
    ----------
    z
        Spots x dim.
    y
        Spots x genes, dense or CSR.
    """

    def __init__(self, z: Rows, y: Rows | csr_matrix) -> None:
        self.z, self.y = z, dense(y)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Rows, and the columns of both."""
        return self.z.shape[0], self.z.shape[1] + self.y.shape[1]

    def __getitem__(self, rows: slice | np.ndarray, /) -> np.ndarray:
        return np.hstack([self.z[rows], self.y[rows]], dtype=np.float32)


def read(z: Rows, rows: np.ndarray) -> np.ndarray:
    """Rows by number; neighbouring ones as a slice, which takes no search in a file and no copy in memory."""
    if len(rows) and rows[-1] - rows[0] == len(rows) - 1 and (np.diff(rows) == 1).all():
        return np.asarray(z[slice(int(rows[0]), int(rows[-1]) + 1)])
    return np.asarray(z[rows])


def in_float(z: Rows) -> Rows:
    """An array in memory as float32, without a copy where it is so already; what lies on disk as it is."""
    on_disk = isinstance(z, np.memmap) or not isinstance(z, np.ndarray)
    return z if on_disk and hasattr(z, "shape") else np.asarray(z, dtype=np.float32)


ROW_BLOCK = 4096
"""Spots that are converted to double precision at a time."""


def blocks_of(n: int) -> list[slice]:
    """Slices of so many spots that a block is small beside any slide."""
    return [slice(start, start + ROW_BLOCK) for start in range(0, n, ROW_BLOCK)]


def standardize(z: Rows, slide: np.ndarray) -> np.ndarray:
    """Every dimension to mean 0 and standard deviation 1 over the spots of each slide, float32.

    What stains and scanners add to a whole slide goes; a dimension that is constant on a slide becomes 0 there.

    Parameters
    ----------
    z
        Spots x dim.
    slide
        Name of each spot's slide.
    """
    out = np.empty(z.shape, dtype=np.float32)
    for name in np.unique(slide):
        rows = np.flatnonzero(slide == name)
        scale = mean_and_std(z, rows)
        for block in blocks_of(len(rows)):
            out[rows[block]] = scale.transform(read(z, rows[block]))
    return out


def neighbour_mean(
    z: np.ndarray, xy: np.ndarray, slide: np.ndarray, k: int = N_HEXAGONAL, steps: Mapping[str, float] | None = None
) -> np.ndarray:
    """Mean feature of the ``k`` nearest other spots of the same slide, or of all others if fewer.

    Parameters
    ----------
    z
        Spots x dim.
    xy
        Spot centres, spots x 2.
    slide
        Name of each spot's slide.
    k
        Neighbours of a spot.
    steps
        Slides on which they are those within a radius; see :func:`~spahgc._spots.scale.spots_around`.

    Returns
    -------
    Spots x dim, float32.
    """
    near = spots_around(xy, k, slide, steps or {})
    per_spot = np.diff(near.indptr)[:, None]
    return ((near.astype(np.float32) @ z) / per_spot).astype(np.float32)


@dataclass(frozen=True)
class SlideScale:
    """Mean and spread of every gene on a typical slide: means over the slides of a slide's own mean and spread.

    The inverse of :func:`standardize` for a slide on which nothing was measured.
    """

    mean: np.ndarray
    spread: np.ndarray

    @classmethod
    def fit(cls, y: Rows, slide: np.ndarray) -> SlideScale:
        """The scale of some spots, spots x genes, and the name of each spot's slide; a gene's over those that measured it."""
        slides = [mean_and_std(y, np.flatnonzero(slide == name)) for name in np.unique(slide)]
        means, spreads = (np.array([getattr(own, name) for own in slides]) for name in ("mean", "spread"))
        return cls(mean_where_known(means), mean_where_known(spreads))

    def transform(self, y: np.ndarray) -> np.ndarray:
        """To standard deviations from the mean, float32; what does not vary is centred only."""
        spread = np.where(self.spread < MIN_SPREAD, 1.0, self.spread)
        return ((y - self.mean) / spread).astype(np.float32)

    def inverse_transform(self, y: np.ndarray) -> np.ndarray:
        """From standard deviations to the units of the references."""
        return self.mean + y * self.spread


def mean_and_std(z: Rows, rows: np.ndarray) -> SlideScale:
    """Mean and standard deviation of every dimension over some spots, by number, in two passes of blocks."""
    mean, squares = mean_of(z, rows), np.zeros(z.shape[1])
    for block in blocks_of(len(rows)):
        squares += np.square(read(z, rows[block]) - mean).sum(axis=0)
    return SlideScale(mean, np.sqrt(squares / len(rows)))


def mean_of(x: Rows, rows: np.ndarray | None = None) -> np.ndarray:
    """Mean of every dimension over all spots, or over some of them by number; float64."""
    total, n = np.zeros(x.shape[1]), x.shape[0] if rows is None else len(rows)
    for block in blocks_of(n):
        total += (x[block] if rows is None else read(x, rows[block])).sum(axis=0, dtype=np.float64)
    return total / n


HELD_NUMBERS = 2**24
"""Spots times dimensions, 67 MB, up to which what was computed is held: the axes look at every spot several times."""


@dataclass(frozen=True)
class StandardizedRows(LazyRows):
    """Embedding (or expression) of the spots, standardised and weighed; float32, held as a whole only where it is small.

    Parameters
    ----------
    z
        Spots x dim; any float type.
    scales
        Mean and spread of every dimension, by slide or of all.
    slide
        Which of the scales is a spot's, a number a spot.
    weight
        Of every dimension.
    """

    z: Rows
    scales: tuple[SlideScale, ...]
    slide: np.ndarray
    weight: np.ndarray

    @classmethod
    def fit(
        cls, z: Rows, slide: np.ndarray, blocks: tuple[tuple[int, int], ...] = (), scale: SlideScale | None = None
    ) -> StandardizedRows:
        """Standardised over the spots of each slide, or with one scale for all; blocks of columns weigh alike."""
        weight = np.ones(z.shape[1], dtype=np.float32)
        for start, stop in blocks:
            weight[start:stop] = 1 / np.sqrt(stop - start)
        if scale is not None:
            return cls(z, (scale,), np.zeros(z.shape[0], dtype=np.int64), weight)
        names, number = np.unique(slide, return_inverse=True)
        scales = tuple(mean_and_std(z, np.flatnonzero(number == i)) for i in range(len(names)))
        return cls(z, scales, number, weight)

    def some(self, chosen: np.ndarray) -> StandardizedRows:
        """Some of the dimensions, by number, as they were standardised."""
        scales = tuple(SlideScale(scale.mean[chosen], scale.spread[chosen]) for scale in self.scales)
        return StandardizedRows(SomeColumns(self.z, chosen), scales, self.slide, self.weight[chosen])

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Spots and dimensions."""
        return self.z.shape

    @cached_property
    def _held(self) -> np.ndarray | None:
        return self._standardized(slice(None)) if np.prod(self.shape) <= HELD_NUMBERS else None

    def __getitem__(self, rows: slice | np.ndarray, /) -> np.ndarray:
        return self._standardized(rows) if self._held is None else self._held[rows]

    def _standardized(self, rows: slice | np.ndarray) -> np.ndarray:
        part, number = np.asarray(self.z[rows]), self.slide[rows]
        out = np.empty(part.shape, dtype=np.float32)
        for i in np.unique(number):
            out[number == i] = self.scales[i].transform(part[number == i])
        return out * self.weight


@dataclass(frozen=True)
class NeighbourMeanRows(LazyRows):
    """Mean over the nearest spots of the same slide, times a weight; computed block by block.

    Parameters
    ----------
    spots_rows
        Of the spots themselves.
    near
        Spots x spots, CSR, rows sum to the weight.
    """

    spots_rows: StandardizedRows
    near: csr_matrix

    @classmethod
    def fit(
        cls,
        spots_rows: StandardizedRows,
        xy: np.ndarray,
        slide: np.ndarray,
        k: int,
        weight: float,
        steps: Mapping[str, float] | None = None,
    ) -> NeighbourMeanRows:
        """The ``k`` nearest other spots of the same slide, or those within a radius: see :func:`spots_around`."""
        near = csr_matrix(spots_around(xy, k, slide, steps or {}), dtype=np.float32)
        near.data *= np.repeat(weight / np.diff(near.indptr), np.diff(near.indptr)).astype(np.float32)
        return cls(spots_rows, near)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Spots and dimensions."""
        return self.spots_rows.shape

    @cached_property
    def _held(self) -> np.ndarray | None:
        return sum_over(self.near, self.spots_rows) if np.prod(self.shape) <= HELD_NUMBERS else None

    def __getitem__(self, rows: slice | np.ndarray, /) -> np.ndarray:
        return sum_over(self.near[rows], self.spots_rows) if self._held is None else self._held[rows]


def sum_over(near: csr_matrix, x: Rows) -> np.ndarray:
    """The product of some rows of a graph with rows of ``x``, of which only those joined are read."""
    needed, columns = np.unique(near.indices, return_inverse=True)
    near = csr_matrix((near.data, columns, near.indptr), shape=(near.shape[0], len(needed)))
    return np.asarray(near @ x[needed])


MAX_EXACT = 2_000
"""Spots or dimensions, the fewer of them, up to which principal axes are exact: a second on one core."""


def reduce(reference: np.ndarray, target: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Principal components of the reference spots, and the target's scores on the same axes.

    Parameters
    ----------
    reference
        Spots x dim, on which the axes are fitted.
    target
        Spots x dim.
    n
        Components; fewer come back where the references have no more.

    Returns
    -------
    Reference scores and target scores, spots x components, float64.
    """
    mean = reference.mean(axis=0, dtype=np.float64)
    axes = principal_axes(reference, n)
    return project(reference, mean, axes), project(target, mean, axes)


def rescale(reference: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both over the root mean square of the reference: a network's step then fits the features of any encoder."""
    size = float(np.sqrt(np.mean(np.square(reference, dtype=np.float64))))
    size = size if size > 0 else 1.0
    return reference / size, target / size


def principal_axes(x: Rows, n: int, mean: np.ndarray | None = None) -> np.ndarray:
    """Axes of largest variance, dim x at most ``n``; the largest entry of an axis is positive.

    Exact while spots or dimensions are at most 2,000; beyond that by randomised subspace iteration (Halko, Martinsson
    and Tropp 2011) with a fixed seed. Spots are read in blocks. At least one axis comes back: where nothing varies, all
    scores on it are 0.

    Parameters
    ----------
    x
        Spots x dim: an array, or what computes blocks of rows.
    n
        Axes, at most.
    mean
        Of every dimension, if it is known.
    """
    mean = mean_of(x) if mean is None else mean
    axes = _exact_axes(x, mean, n) if min(x.shape) <= MAX_EXACT else _randomised_axes(x, mean, n)
    length = np.linalg.norm(axes, axis=0)
    signs = np.sign(np.take_along_axis(axes, np.abs(axes).argmax(axis=0)[None], axis=0))
    return axes * np.where(length > 0, signs / np.where(length > 0, length, 1.0), 0.0)


def _exact_axes(x: Rows, mean: np.ndarray, n: int) -> np.ndarray:
    from scipy.linalg import eigh

    few_spots = x.shape[0] < x.shape[1]
    if few_spots:  # the smaller of the two matrices of products has the same information
        centred = x[:] - mean
        products = centred @ centred.T
    else:
        products = np.zeros([x.shape[1]] * 2)
        for rows in blocks_of(x.shape[0]):
            block = x[rows] - mean
            products += block.T @ block
    last = len(products) - 1
    values, vectors = eigh(products, subset_by_index=[max(0, last + 1 - n), last])
    values, vectors = values[::-1], vectors[:, ::-1]
    kept = values > MIN_VARIANCE * values[0]
    kept[0] = True
    return np.asarray(centred.T @ vectors[:, kept] if few_spots else vectors[:, kept])


def _randomised_axes(x: Rows, mean: np.ndarray, n: int) -> np.ndarray:
    start = np.random.default_rng(0).standard_normal((x.shape[1], min(n + OVERSAMPLED, *x.shape)))
    axes, _ = np.linalg.qr(start)
    for _ in range(ITERATIONS):
        products = np.zeros_like(axes)
        for rows in blocks_of(x.shape[0]):
            block = (x[rows] - mean).astype(np.float32)
            products += block.T @ (block @ axes.astype(np.float32))
        axes, _ = np.linalg.qr(products)
    scores = project(x, mean, axes)
    values, turn = np.linalg.eigh(scores.T @ scores)
    order = np.argsort(-values)[:n]
    kept = values[order] > MIN_VARIANCE * values[order[0]]
    kept[0] = True
    return np.asarray(axes @ turn[:, order[kept]])


def project(x: Rows, mean: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Scores of spots (spots x dim) on axes (dim x n) through a mean, in blocks of spots; float64."""
    return np.concatenate([(x[rows] - mean) @ axes for rows in blocks_of(x.shape[0])])


Views = tuple[StandardizedRows] | tuple[StandardizedRows, NeighbourMeanRows]
"""The same spots by themselves and, if wanted, as the mean over their neighbours."""


def scores_on_axes(
    views: Views, means: tuple[np.ndarray, ...], axes: tuple[np.ndarray, ...], size: float
) -> np.ndarray:
    """Scores of each view on axes of its own through its mean, side by side and over a size; spots x axes, float32."""
    out = np.empty((views[0].shape[0], sum(part.shape[1] for part in axes)), dtype=np.float32)
    for rows, columns, part in _score_blocks(views, means, axes):
        out[rows, columns] = part / size
    return out


def sum_of_squared_scores(views: Views, means: tuple[np.ndarray, ...], axes: tuple[np.ndarray, ...]) -> float:
    """Sum of the squares of all these scores, of which a block is held at a time."""
    return float(sum(np.square(part).sum() for _, _, part in _score_blocks(views, means, axes)))


def _score_blocks(
    views: Views, means: tuple[np.ndarray, ...], axes: tuple[np.ndarray, ...]
) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """The scores in blocks: rows, columns, float64."""
    spots, *around = views
    n_own, turns = axes[0].shape[1], np.hstack(axes)
    own, others = slice(n_own), slice(n_own, None)
    # The mean of projections is the projection of the mean, and some hundred times smaller than the embedding.
    on_mean_axes = np.empty((spots.shape[0], turns.shape[1] - n_own))
    blocks = blocks_of(spots.shape[0])
    for rows in blocks:
        together = spots[rows] @ turns
        on_mean_axes[rows] = together[:, others]
        yield rows, own, together[:, own] - means[0] @ axes[0]
    for view in around:
        for rows in blocks:
            yield rows, others, sum_over(view.near[rows], on_mean_axes) - means[1] @ axes[1]


def spatial_autocorrelation(genes: Rows, xy: np.ndarray, slide: np.ndarray) -> np.ndarray:
    """How alike a gene is at a spot and at its six nearest ones, a number a gene; 0 where it is not.

    The mean over slides of the correlation between a gene and its mean over neighbours, up to the spread of the latter:
    Moran's I with weights that add up to one at each spot.

    Parameters
    ----------
    genes
        Expression standardised by slide, spots x genes; read in blocks.
    xy
        Spot centres, spots x 2.
    slide
        Name of each spot's slide.
    """
    near = nearest_in_plane(xy, N_HEXAGONAL, slide)[0].astype(np.float32)
    of_slides = []
    for name in np.unique(slide):
        members, total = np.flatnonzero(slide == name), np.zeros(genes.shape[1], dtype=np.float32)
        for block in blocks_of(len(members)):
            rows = members[block]
            around = sum_over(near[rows], genes) / np.diff(near.indptr)[rows, None]
            total += (read(genes, rows) * around.astype(np.float32)).sum(axis=0)
        of_slides.append(total / len(members))
    return np.clip(np.mean(of_slides, axis=0), 0, None)


def centred_products(
    x: np.ndarray, y: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Means of both over some spots, by number, and products of the first with itself and with the second, both centred.

    A block of spots is held in double precision at a time.
    """
    x_mean, y_mean = mean_of(x, rows), mean_of(y, rows)
    with_itself, with_y = np.zeros([x.shape[1]] * 2), np.zeros((x.shape[1], y.shape[1]))
    for block in blocks_of(len(rows)):
        centred = x[rows[block]] - x_mean
        with_itself += centred.T @ centred
        with_y += centred.T @ (y[rows[block]] - y_mean)
    return x_mean, y_mean, with_itself, with_y


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
        with reading(folder, LABEL, REMEDY):
            array = _mappable(folder)
            n, width = array.shape
            self._chunk_rows = int(array.chunks[0])
            self.folder, self.bank_folder, self.dtype = folder, bank_folder, np.dtype(dtype)
            self.stored_dtype = np.dtype(array.dtype).newbyteorder("<")
            digests: list[list[int | str]] = array.attrs.asdict().get(DIGESTS, [])
            self.digests = [(int(n_spots), str(digest)) for n_spots, digest in digests]
            self._shape = int(n), int(width if n_columns is None else n_columns)
            n_bytes = self._chunk_rows * width * self.stored_dtype.itemsize  # also of the last one, which is filled up
            names = [folder / "c" / str(i) / "0" for i in range(-(-self._shape[0] // self._chunk_rows))]
            self._maps = [_map(path, n_bytes) for path in names]
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
        return self._finite(out)

    def _finite(self, rows: np.ndarray) -> np.ndarray:
        """The rows that were read; refuses those of a damaged file."""
        if not all_finite(rows):
            raise unreadable(self.folder, LABEL, "it has NaN or infinite numbers", REMEDY)
        return rows

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
        return self._finite(out)


def all_finite(rows: np.ndarray) -> bool:
    """Whether no number is NaN or infinite; of half precision by its bits, which is ten times as fast."""
    if rows.dtype == np.float16:
        return not ((rows.view(np.uint16) & HALF_EXPONENT) == HALF_EXPONENT).any()
    return bool(np.isfinite(rows).all())


def as_stored(rows: Rows) -> Rows:
    """The same rows in the type that they have on disk, which is half as much to move; any other rows as they are."""
    return rows.astype(rows.stored_dtype) if isinstance(rows, StoredRows) else rows


def _mappable(folder: Path) -> Any:
    """The array of zarr in a folder; refuses one that is no plain table of numbers."""
    import zarr

    array = zarr.open_array(folder, mode="r")
    if array.ndim != 2 or np.dtype(array.dtype).kind != "f":
        raise ValueError(f"it is of shape {array.shape} and type {array.dtype}, expected are spots x dim of fractions")
    if array.compressors or array.filters or array.shards or array.chunks[1] != array.shape[1]:
        raise ValueError("it is compressed, or its rows are cut, so that it cannot be mapped into memory")
    return array


def _map(path: Path, n_bytes: int) -> mmap.mmap:
    with path.open("rb") as file:
        found = path.stat().st_size
        if found != n_bytes:
            raise ValueError(
                f'"{path.parent.parent.name}/{path.parent.name}/{path.name}" has {found:,} bytes of {n_bytes:,}'
            )
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _release(chunk: mmap.mmap) -> None:
    """The pages of a chunk no longer count as memory of this process; they are read again when they are needed."""
    if hasattr(mmap, "MADV_DONTNEED"):  # not on Windows, where such pages go when the system needs them
        chunk.madvise(mmap.MADV_DONTNEED)


def stored_rows(z: object) -> StoredRows | None:
    """The embedding of an opened bank, to be read in blocks; ``None`` for any other array."""
    import zarr

    if not isinstance(z, zarr.Array) or not isinstance(z.store, zarr.storage.LocalStore):
        return None
    version = Path(z.store.root)
    bank = version.parent
    return StoredRows(version / z.path, bank_folder=bank) if (bank / ZARR_FILE).is_file() else None


def as_rows(z: Rows) -> Rows:
    """The embedding of an opened bank as rows that are read in blocks; any other array as it is."""
    stored = stored_rows(z)
    return z if stored is None else stored


@dataclass(frozen=True)
class Spots:
    """Arrays of some spots.

    A target that is to be predicted has an expression of no genes: what was measured on it has no place here.

    Parameters
    ----------
    z
        Image embedding, spots x dim, any float type: an array, or :class:`Rows`, which are read in blocks only.
    xy
        Spot centres, spots x 2, pixels.
    slide
        Name of each spot's slide.
    y
        Expression of the panel, spots x genes, ``log1p`` counts per 10,000: an array, or :class:`Rows`. A gene that a slide did
        not measure is NaN at all of its spots.
    transcriptome
        Expression of the genes that the references cover best, spots x covered genes, same units: CSR, or dense rows.
    picture
        Of a target, the small picture of its tissue by which it is laid on other slides; ``None`` where there is none.
    own_reference
        Of a target that was measured in part, the name under which its measured part stands among the references.
    registration
        Of a target, how references lie on it by name, where that was found or given before.
    mpp
        Of a target, microns per pixel; ``None`` where they are not known.
    steps
        Slides whose spots lie denser or sparser than those of most references, with the spacing of these in their pixels:
        their neighbours are those within a radius, not a number. See :mod:`spahgc._spots.scale`.
    patients
        Of a target, who it is of, as far as it names them.
    """

    z: Any
    xy: np.ndarray
    slide: np.ndarray
    y: Any
    transcriptome: Any
    picture: Any = None
    own_reference: str | None = None
    registration: Any = None
    mpp: float | None = None
    steps: Mapping[str, float] = field(default_factory=dict)
    patients: frozenset[str] = frozenset()

    def __getitem__(self, chosen: np.ndarray) -> Spots:
        y, transcriptome = self.y[chosen], self.transcriptome[chosen]
        return Spots(self.z[chosen], self.xy[chosen], self.slide[chosen], y, transcriptome, steps=self.steps)

    def __len__(self) -> int:
        return len(self.xy)

    def part(self, chosen: np.ndarray) -> Spots:
        """Some of the spots, by number; neither embedding nor expression is copied."""
        z, y, transcriptome = (SomeRows(dense(part), chosen) for part in (self.z, self.y, self.transcriptome))
        return Spots(z, self.xy[chosen], self.slide[chosen], y, transcriptome, steps=self.steps)

    def step_of(self, chosen: np.ndarray | slice = slice(None)) -> float | None:
        """The step of the slide of some spots, by number; ``None`` where its neighbours count, or there are several slides."""
        names = [str(name) for name in np.unique(self.slide[chosen])] if self.steps else []
        return self.steps.get(names[0]) if len(names) == 1 else None

    @classmethod
    def without_expression(cls, z: Rows, xy: np.ndarray, name: str = "target", picture: Any = None) -> Spots:
        """Spots of a slide of which only image and positions are known."""
        n = len(xy)
        nothing = np.empty((n, 0), dtype=np.float32)
        return cls(z, xy, np.full(n, name), nothing, csr_matrix(nothing), picture)


def slide_or_half(spots: Spots) -> np.ndarray:
    """The slide of every spot; a single slide is cut at the median of its longer side into two that act as slides."""
    if len(np.unique(spots.slide)) > 1:
        return spots.slide
    axis = int(np.argmax(np.ptp(spots.xy, axis=0)))
    # Ranks, not a threshold: the halves are equal also where many spots share the median coordinate.
    rank = np.argsort(np.lexsort((spots.xy[:, 1 - axis], spots.xy[:, axis])))
    return np.where(rank < len(rank) // 2, "first half", "second half")


def leave_one_out(spots: Spots) -> list[tuple[np.ndarray, np.ndarray]]:
    """Who plays the target and who is its bank, each slide (or half of a single one) in turn, as index arrays."""
    members = slide_or_half(spots)
    return [(np.flatnonzero(members == name), np.flatnonzero(members != name)) for name in np.unique(members)]
