"""Dask arrays, and the images of a SpatialData: read chunk by chunk."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeGuard, cast

import numpy as np

from spahgc.image._array import ArrayImage, image_axes
from spahgc.image._blocks import BlockCache, assemble, edges
from spahgc.image._colour import as_rgb, check_pixels
from spahgc.image._levels import PyramidImage
from spahgc.image._source import ClosesItself, ImageSource, Pixels, check_region

if TYPE_CHECKING:
    import dask.array
    from xarray import DataArray, DataTree

CACHE_BYTES = 256 * 2**20
"""Computed chunks that are kept. Neighbouring patches lie on the same chunk, which is often 4,096 x 4,096 px large."""
SPATIAL_DIMS = ("y", "x")


def is_dask(source: object) -> TypeGuard[dask.array.Array]:
    """Tell a dask array without importing dask."""
    return _comes_from(source, "dask", "Array")


def is_xarray(source: object) -> TypeGuard[DataArray | DataTree]:
    """Tell an image of a SpatialData, single-scale or multi-scale, without importing xarray."""
    return _comes_from(source, "xarray", "DataArray") or _comes_from(source, "xarray", "DataTree")


def _comes_from(source: object, package: str, name: str) -> bool:
    return any(kind.__module__.split(".")[0] == package and kind.__name__ == name for kind in type(source).__mro__)


class DaskImage(ClosesItself):
    """A dask array as an image; reading a region computes the chunks that it touches, and no others.

    Chunks that were computed are kept up to 256 MiB. Of a chunk that is larger, only the region is asked for.

    Parameters
    ----------
    array
        uint8, height x width, or with 1, 3 or 4 channels as the last or the first axis.
    axes
        Order of its axes, such as ``"cyx"``; ``None`` tells by the shape.
    name
        What errors call the array.

    Raises
    ------
    ValueError
        If the data type or the shape is not that of an image.
    """

    mpp: float | None = None

    def __init__(self, array: dask.array.Array, *, axes: str | None = None, name: str = "the image") -> None:
        if any(np.isnan(size) for size in array.shape):
            raise ValueError(f"{name} has shape {array.shape}: call its compute_chunk_sizes() first.")
        axes = image_axes(array.shape) if axes is None else axes
        shape = tuple(array.shape[axes.index(axis)] for axis in "yxc" if axis in axes)
        check_pixels(shape or array.shape, array.dtype, name)
        self._array: dask.array.Array | None = array
        self._axes = axes
        self.height, self.width = int(shape[0]), int(shape[1])
        chunks = dict(zip(axes, array.chunks, strict=True))
        self._y_edges, self._x_edges = edges(chunks["y"]), edges(chunks["x"])
        self._keeps_chunks = 3 * max(chunks["y"]) * max(chunks["x"]) <= CACHE_BYTES
        self._cache = BlockCache(CACHE_BYTES)

    def read(self, left: int, top: int, width: int, height: int) -> Pixels:
        """Read a region that lies inside the image: uint8, height x width x 3."""
        check_region(self, left, top, width, height)
        if self._array is None:
            raise ValueError("the image is closed; open it again with open_image")
        if not self._keeps_chunks:
            return self._compute(self._array[self._index(slice(top, top + height), slice(left, left + width))])
        blocks = self._array.blocks

        def chunk(row: int, column: int) -> Pixels:
            return self._cache.get((row, column), lambda: self._compute(blocks[self._index(row, column)]))

        return assemble((left, top, width, height), self._y_edges, self._x_edges, chunk)

    def close(self) -> None:
        """Let go of the array and of its chunks."""
        self._array = None
        self._cache.clear()

    def _index(self, y: int | slice, x: int | slice) -> tuple[int | slice, ...]:
        """Index of pixels or blocks in the order of the array's axes."""
        by_axis = {"y": y, "x": x, "c": slice(None)}
        return tuple(by_axis[axis] for axis in self._axes)

    def _compute(self, lazy: dask.array.Array) -> Pixels:
        """Compute a part of the array, and bring it to height x width x 3."""
        part = np.asarray(lazy.compute())
        if "c" in self._axes:
            part = np.moveaxis(part, [self._axes.index(axis) for axis in "yxc"], [0, 1, 2])
        elif self._axes == "xy":
            part = part.T
        return np.array(as_rgb(part), copy=True, order="C")


def open_xarray(source: DataArray | DataTree) -> ImageSource:
    """Open an image as SpatialData keeps it: a ``DataArray``, or a ``DataTree`` with one child a scale.

    Raises
    ------
    ValueError
        If the axes are not y, x and c, or the pixels are not those of an 8-bit image.
    """
    if _comes_from(source, "xarray", "DataArray"):
        return _open_array(cast("DataArray", source), "the image")
    arrays = []
    for scale, node in source.children.items():
        images = list(node.data_vars.values())
        if len(images) != 1:
            raise ValueError(
                f'scale "{scale}" of the DataTree holds {len(images)} arrays ({", ".join(map(str, node.data_vars))}), '
                "but one image is needed. Pass an image of a SpatialData, e.g. sdata.images[name]."
            )
        arrays.append((str(scale), images[0]))
    if not arrays:
        raise ValueError("the DataTree has no scales. Pass an image of a SpatialData, e.g. sdata.images[name].")
    arrays.sort(key=lambda item: -int(item[1].sizes.get("x", 0)) * int(item[1].sizes.get("y", 0)))
    images = [_open_array(array, f'scale "{scale}" of the image') for scale, array in arrays]
    # SpatialData makes scales by xarray's coarsen(boundary="trim", side="right"): of an odd side the first pixel goes.
    return PyramidImage(images, cut_at_start=True)


def _open_array(array: DataArray, name: str) -> ImageSource:
    """Open one scale by the names of its axes."""
    dims = [str(dim) for dim in array.dims]
    if not set(SPATIAL_DIMS) <= set(dims) <= {*SPATIAL_DIMS, "c"}:
        raise ValueError(
            f"{name} has axes {', '.join(dims)}, but y and x, and c for the channels, are needed. "
            'Rename them, e.g. image.rename({"row": "y"}), or take one plane, e.g. image.isel(z=0).'
        )
    axes = "".join(dims)
    pixels = array.data
    if is_dask(pixels):
        return DaskImage(pixels, axes=axes, name=name)
    order = [axes.index(axis) for axis in "yxc" if axis in axes]
    return ArrayImage(np.transpose(np.asarray(pixels), order), name=name)
