"""Outlines of cells, a row a cell, in a form that is cut, joined and written with the cells.

A ragged list of polygons is a sparse matrix whose row i holds x0, y0, x1, y1, ... of cell i: it lies in ``obsm``, so that
``adata[chosen]`` takes the outlines along, and h5ad and zarr know it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, issparse

from spahgc._installation import install_command
from spahgc._keys import Obsm
from spahgc._validate import quoted

if TYPE_CHECKING:
    from anndata import AnnData

MIN_VERTICES = 3
"""Vertices of a polygon, the first not repeated."""


@dataclass(frozen=True, eq=False)
class Polygons:
    """Polygons one after the other; one without vertices stands for a cell whose outline is not known."""

    vertices: NDArray[np.float64]
    """All vertices (x, y), the first of a polygon not repeated at its end."""
    starts: NDArray[np.int64]
    """Where each polygon begins, and at last the number of vertices: polygons + 1."""

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Polygons:
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        lengths = np.diff(self.starts)[rows]
        starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        offset = np.repeat(self.starts[:-1][rows] - starts[:-1], lengths)
        return Polygons(self.vertices[np.arange(starts[-1]) + offset], starts)

    @classmethod
    def of_rings(cls, rings: Sequence[NDArray[np.floating]]) -> Polygons:
        """Polygons of one array of vertices each; a last vertex that repeats the first is left out."""
        opened = [ring[:-1] if len(ring) > 1 and np.array_equal(ring[0], ring[-1]) else ring for ring in rings]
        starts = np.concatenate([[0], np.cumsum([len(ring) for ring in opened])]).astype(np.int64)
        vertices = np.concatenate([np.asarray(ring, dtype=np.float64).reshape(-1, 2) for ring in opened] or [EMPTY])
        return cls(vertices, starts)

    @classmethod
    def of_table(cls, vertices: NDArray[np.float64], owner: NDArray[np.int64], n: int) -> Polygons:
        """Polygons of a table of vertices, `owner` being the row (0 to n - 1) of each; those of a polygon keep their order."""
        order = np.argsort(owner, kind="stable")
        vertices, owner = vertices[order], owner[order]
        starts = np.searchsorted(owner, np.arange(n + 1)).astype(np.int64)
        lengths = np.diff(starts)
        first, last = starts[:-1][lengths > 1], starts[1:][lengths > 1] - 1
        closing = last[(vertices[first] == vertices[last]).all(axis=1)]
        kept = np.ones(len(vertices), dtype=bool)
        kept[closing] = False
        starts = np.concatenate([[0], np.cumsum(np.bincount(owner[kept], minlength=n))]).astype(np.int64)
        return cls(vertices[kept], starts)

    @property
    def owner(self) -> NDArray[np.int64]:
        """Polygon of each vertex."""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))

    @property
    def known(self) -> NDArray[np.bool_]:
        """Which polygons have an area."""
        return np.diff(self.starts) >= MIN_VERTICES

    def _moments(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Signed areas and centroids, by the shoelace formula about the first vertex of each."""
        owner, lengths = self.owner, np.diff(self.starts)
        if not len(self.vertices):
            return np.zeros(len(self)), np.full((len(self), 2), np.nan)
        some = lengths > 0
        first = np.zeros((len(self), 2))
        first[some] = self.vertices[self.starts[:-1][some]]
        here = self.vertices - first[owner]
        following = np.arange(1, len(here) + 1)
        following[self.starts[1:][some] - 1] = self.starts[:-1][some]
        there = here[following]
        cross = here[:, 0] * there[:, 1] - there[:, 0] * here[:, 1]
        area = np.bincount(owner, cross, minlength=len(self)) / 2
        weighted = (here + there) * cross[:, None]
        sums = np.column_stack([np.bincount(owner, column, minlength=len(self)) for column in weighted.T])
        with np.errstate(divide="ignore", invalid="ignore"):
            return area, first + sums / (6 * area[:, None])

    @property
    def areas(self) -> NDArray[np.float64]:
        """Area of each, 0 without vertices."""
        return np.abs(self._moments()[0])

    @property
    def centres(self) -> NDArray[np.float64]:
        """Centroid (x, y) of each, NaN where there is no area."""
        return self._moments()[1]

    def moved(self, matrix: NDArray[np.float64]) -> Polygons:
        """Polygons in other coordinates, by an affine matrix of 3 x 3."""
        return Polygons(self.vertices @ matrix[:2, :2].T + matrix[:2, 2], self.starts)

    def as_matrix(self) -> csr_matrix:
        """What lies in ``obsm``: CSR, float32, polygons x twice the most vertices."""
        lengths = 2 * np.diff(self.starts)
        column = np.arange(2 * len(self.vertices)) - np.repeat(2 * self.starts[:-1], lengths)
        width = int(lengths.max(initial=2))
        return csr_matrix(
            (self.vertices.astype(np.float32).ravel(), column.astype(np.int32), 2 * self.starts),
            shape=(len(self), width),
        )

    def rings(self) -> list[NDArray[np.float64]]:
        """Vertices of each."""
        return np.split(self.vertices, self.starts[1:-1])


EMPTY = np.empty((0, 2))


def polygons_of(adata: AnnData) -> Polygons | None:
    """The outlines that lie in a slide's ``obsm``, ``None`` where there are none.

    Raises
    ------
    ValueError
        If what lies there is not what :meth:`Polygons.as_matrix` makes.
    """
    if Obsm.polygons not in adata.obsm:
        return None
    matrix: Any = adata.obsm[Obsm.polygons]
    if not issparse(matrix):
        raise ValueError(
            f'obsm["{Obsm.polygons}"] is a {type(matrix).__name__}; it must be the sparse matrix that the readers of cells '
            "write. Read the slide again, or remove the key."
        )
    matrix = csr_matrix(matrix)
    if (np.diff(matrix.indptr) % 2).any():
        raise ValueError(
            f'obsm["{Obsm.polygons}"] holds rows of an odd number of coordinates. Zeros that are stored in it must stay: '
            "read the slide again, or remove the key."
        )
    # Rows of the matrix keep their columns in order, unless somebody has shuffled them.
    matrix.sort_indices()
    return Polygons(matrix.data.reshape(-1, 2).astype(np.float64), (matrix.indptr // 2).astype(np.int64))


def shapes_of(adata: AnnData) -> Any:
    """Outlines as a table of geopandas, named as the cells; see :func:`spahgc.io.shapes`."""
    try:
        import geopandas
        import shapely
    except ImportError as error:
        raise ImportError(
            f"a table of shapes needs geopandas, which comes with spatialdata. Run {install_command('spatialdata')}."
        ) from error

    polygons = polygons_of(adata)
    if polygons is None:
        raise KeyError(
            f'obsm["{Obsm.polygons}"] not found, obsm has {quoted(adata.obsm)}. Read the slide with polygons=True.'
        )
    known = polygons.known
    lacking = adata.obs_names[~known]
    if len(lacking):
        raise ValueError(
            f"{len(lacking)} of {adata.n_obs} cells have no outline ({quoted(lacking)}). Leave them out: "
            f'adata[adata.obsm["{Obsm.polygons}"].getnnz(axis=1) > 0].'
        )
    geometry = [shapely.Polygon(ring) for ring in polygons.rings()]
    return geopandas.GeoDataFrame(geometry=geometry, index=adata.obs_names.copy())
