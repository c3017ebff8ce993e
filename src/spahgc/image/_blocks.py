"""Regions of images that are kept in blocks: tiles of a TIFF, chunks of a dask array."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

import numpy as np
from numpy.typing import NDArray

from spahgc.image._source import Pixels

Block = Callable[[int, int], Pixels]
"""Row and column of a block -> its pixels, height x width x channels."""


def edges(lengths: tuple[int, ...]) -> NDArray[np.int64]:
    """Positions at which the blocks of an axis begin, and where the last one ends."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def assemble(
    region: tuple[int, int, int, int], y_edges: NDArray[np.int64], x_edges: NDArray[np.int64], block: Block
) -> Pixels:
    """Put a region together from the blocks that it touches; no other block is asked for.

    Parameters
    ----------
    region
        Left, top, width, height, inside the image.
    y_edges, x_edges
        Where the blocks begin, see :func:`edges`.
    block
        Gives the RGB pixels of a block. A block may be larger than its share, as the last tiles of a TIFF are.
    """
    left, top, width, height = region
    out = np.empty((height, width, 3), dtype=np.uint8)
    rows, columns = _touched(y_edges, top, top + height), _touched(x_edges, left, left + width)
    for row in rows:
        y0, y1 = max(int(y_edges[row]), top), min(int(y_edges[row + 1]), top + height)
        for column in columns:
            x0, x1 = max(int(x_edges[column]), left), min(int(x_edges[column + 1]), left + width)
            pixels = block(row, column)
            inner = (y0 - int(y_edges[row]), x0 - int(x_edges[column]))
            out[y0 - top : y1 - top, x0 - left : x1 - left] = pixels[
                inner[0] : inner[0] + y1 - y0, inner[1] : inner[1] + x1 - x0
            ]
    return out


def _touched(bounds: NDArray[np.int64], low: int, high: int) -> range:
    """Numbers of the blocks of one axis that hold some of the positions low..high - 1."""
    first, last = np.searchsorted(bounds, [low, high - 1], side="right") - 1
    return range(int(first), int(last) + 1)


class BlockCache:
    """The blocks that were used last; several threads may ask at once.

    Parameters
    ----------
    max_bytes
        How much is kept. A block that is larger is handed out and not kept.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held = 0
        self._blocks: OrderedDict[Hashable, Pixels] = OrderedDict()
        self._loading: dict[Hashable, threading.Lock] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable, load: Callable[[], Pixels]) -> Pixels:
        """Take a block, or load it. It belongs to the cache: copy before writing into it.

        Different blocks are loaded side by side; of threads that ask for the same one, the first loads it.
        """
        with self._lock:
            if key in self._blocks:
                self._blocks.move_to_end(key)
                return self._blocks[key]
            loading = self._loading.setdefault(key, threading.Lock())
        with loading:
            with self._lock:
                if key in self._blocks:
                    return self._blocks[key]
            try:
                block = load()
                self._keep(key, block)
            finally:
                with self._lock:
                    self._loading.pop(key, None)
        return block

    def _keep(self, key: Hashable, block: Pixels) -> None:
        with self._lock:
            if key in self._blocks or block.nbytes > self._max_bytes:
                return
            self._blocks[key] = block
            self._held += block.nbytes
            while self._held > self._max_bytes:
                self._held -= self._blocks.popitem(last=False)[1].nbytes

    def clear(self) -> None:
        """Forget all blocks."""
        with self._lock:
            self._blocks.clear()
            self._held = 0
