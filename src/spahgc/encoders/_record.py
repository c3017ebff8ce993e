"""What has to be known of an encoder so that two embeddings can be compared."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from spahgc._keys import PATCH_CONTEXT

NATIVE_MPP = "native"
"""How ``mpp=None`` is written into ``uns``, where None does not survive."""

PRECISION = "fp32"
"""Precision in which an encoder runs unless another one is asked for."""

PRECISIONS = (PRECISION, "bf16", "fp16")
"""Precisions that can be asked for."""


@dataclass(frozen=True)
class EncoderRecord:
    """What an embedding was made with; embeddings whose records differ are not comparable.

    Parameters
    ----------
    name
        Name of the encoder; the embedding lies in ``obsm["X_<name>"]``.
    revision
        Version of the weights: the commit on the hub, ``local:<sha256>`` for a file, ``user:<sha256>`` for a module,
        or package and version.
    dim
        Length of the network's output; of areas in the maps of tiles, channels of its last map. With a wider context an
        embedding is longer, and begins with these numbers.
    input_px
        Side of a patch, in pixels.
    mpp
        Microns per pixel of a patch. None: any, the patch is cut at the slide's own resolution.
    mean, std
        Mean and standard deviation of the channels (red, green, blue; 0 to 1) by which a patch is normalised. Empty
        where the user's own transform does it.
    interpolation
        How a patch is resized to `input_px`.
    pooling
        How the network's last layer becomes one vector.
    precision
        Number format in which the network runs.
    context
        What the embedding shows of the tissue: ``patch``, or the sizes of the patches (multiples of the encoder's own, or
        microns of those beside it), the channels of the network's levels and the quarter turns averaged, e.g.
        ``scales 1,2,4; levels 16,24,40,112,320; rotations 4``. With `dim` and the network it fixes the meaning of every
        column.
    stain
        How the stain of the patches was changed before the encoder saw them; empty where it was not. The record in
        ``uns`` has this field only where it was.
    sampling
        How a spot is looked at, where it is not by one patch around its centre: by several patches, or by its area in the
        maps of a tile that spots share. Empty for one patch, and then the record in ``uns`` does not have this field.
    """

    name: str
    revision: str
    dim: int
    input_px: int
    mpp: float | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    pooling: str
    precision: str
    context: str
    stain: str = ""
    sampling: str = ""

    def to_uns(self) -> dict[str, object]:
        """Return the record in types that survive ``write_h5ad`` and ``write_zarr``."""
        return {
            "name": self.name,
            "revision": self.revision,
            "dim": int(self.dim),
            "input_px": int(self.input_px),
            "mpp": NATIVE_MPP if self.mpp is None else float(self.mpp),
            "mean": [float(value) for value in self.mean],
            "std": [float(value) for value in self.std],
            "interpolation": self.interpolation,
            "pooling": self.pooling,
            "precision": self.precision,
            "context": self.context,
            # Records of one patch a spot, as it was scanned, stay equal to those written before there were these fields.
            **({"stain": self.stain} if self.stain else {}),
            **({"sampling": self.sampling} if self.sampling else {}),
        }


def key_name(name: str) -> str:
    """Name that may stand in an AnnData key: a slash there would open a group in the file."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name)


def plain_columns(record: Mapping[str, Any]) -> int | None:
    """How many of an embedding's first columns are the network's output for the patch itself.

    Parameters
    ----------
    record
        The entry of ``uns["spahgc"]["embeddings"]``, also as read from a file; empty where there is none.

    Returns
    -------
    The number; ``None`` where there is no context, or a record written by hand that does not name it, so that
    ``z[:, :plain_columns(record)]`` is always the plain part.
    """
    if str(record.get("context", PATCH_CONTEXT)) == PATCH_CONTEXT:
        return None
    return int(record["dim"]) if "dim" in record else None


def plain_embedding(z: np.ndarray, record: Mapping[str, Any]) -> np.ndarray:
    """The columns of an embedding that are the network's output for the patch itself, spots x dim."""
    return z[:, : plain_columns(record)]
