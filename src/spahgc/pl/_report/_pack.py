"""Numbers and pictures as the page holds them: few bytes, and text."""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

STEPS = 254
"""Steps from the least to the greatest value of a gene."""
MISSING = 255
"""Code of a value that is not there."""
LEVEL = 6
"""Effort of the compression: higher ones take longer and win next to nothing."""
TEXT_PER_BYTE = 4 / 3
"""Letters of base64 for a byte."""


@dataclass(frozen=True)
class Block:
    """An array of the page.

    Parameters
    ----------
    name
        How the page calls it.
    kind
        Kind of its numbers, little-endian: ``u1``, ``i2``, ``i4`` or ``f4``.
    packed
        ``"deflate"``, or ``"raw"`` where compression would win nothing.
    text
        The bytes in base64.
    """

    name: str
    kind: str
    packed: str
    text: str


@dataclass(frozen=True)
class Codes:
    """A layer in one byte a value.

    Parameters
    ----------
    codes
        Genes x spots, uint8: 0 to 254 from the least to the greatest value of the gene, 255 for a missing one.
    low, high
        Least and greatest value of each gene.
    """

    codes: np.ndarray
    low: np.ndarray
    high: np.ndarray


def quantised(values: np.ndarray) -> Codes:
    """Round the values of a layer, each gene on a scale of its own.

    A value is off by at most half a step, ``(high - low) / 254 / 2``.

    Parameters
    ----------
    values
        Spots x genes; NaN and infinite values are missing.
    """
    by_gene = np.asarray(values, dtype=np.float64).T
    known = np.isfinite(by_gene)
    low = np.min(by_gene, axis=1, where=known, initial=np.inf)
    high = np.max(by_gene, axis=1, where=known, initial=-np.inf)
    low, high = (np.where(known.any(axis=1), limit, 0.0) for limit in (low, high))
    width = np.where(high > low, high - low, 1.0)
    steps = np.rint((np.where(known, by_gene, low[:, None]) - low[:, None]) / width[:, None] * STEPS)
    return Codes(np.where(known, steps, MISSING).astype(np.uint8), low, high)


def number_block(name: str, values: np.ndarray) -> Block:
    """An array of uint8, int16, int32 or float32 numbers, compressed."""
    little = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
    return Block(
        name, f"{values.dtype.kind}{values.dtype.itemsize}", "deflate", _text(zlib.compress(little.tobytes(), LEVEL))
    )


def bytes_block(name: str, content: bytes) -> Block:
    """The bytes of pictures, which are compressed already."""
    return Block(name, "u1", "raw", _text(content))


def plain(values: np.ndarray | pd.Series, digits: int = 6) -> list[float | None]:
    """Numbers for JSON, which knows no NaN, to some significant digits."""
    return [float(f"{value:.{digits}g}") if np.isfinite(value) else None for value in np.asarray(values, dtype=float)]


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
