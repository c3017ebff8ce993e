"""The reference spots behind every spot of the slide, and their patches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData

from spahgc._keys import Obsm, Uns
from spahgc._parameters import NETWORK
from spahgc.pl._patches import reference_patches
from spahgc.pl._report._picture import as_jpeg
from spahgc.tl._attribution import reference_names, stored_edges
from spahgc.tl._prediction import prediction_record

if TYPE_CHECKING:
    from spahgc.pl._patches import References

PATCH_SIZES = ((112, 78), (88, 74), (64, 70))
"""Side in pixels and JPEG quality of the patches, the finest first."""
MAX_PATCHES = 6000
"""Reference spots whose patches are cut, at most: those of most attention."""


@dataclass(frozen=True)
class Retrieved:
    """The CS graph of a prediction with its attention, in a table of fixed width."""

    references: pd.DataFrame
    """Columns ``slide`` and ``spot``; every reference spot that any spot retrieved, most attention first."""
    edges: np.ndarray
    """Spots x k, int32: rows of `references`, most attention first; -1 where a spot retrieved fewer."""
    similarity: np.ndarray
    attention: np.ndarray
    """Spots x k, float32, 0 where there is no edge."""


@dataclass(frozen=True)
class Patches:
    """JPEG of each reference spot, empty where the page has none."""

    jpegs: list[bytes]
    side: int

    @property
    def n_kept(self) -> int:
        """How many there are."""
        return sum(1 for jpeg in self.jpegs if jpeg)


def retrieved(adata: AnnData, key: str) -> Retrieved | None:
    """The reference spots behind a prediction; ``None`` for one without graph or attention.

    Raises
    ------
    ValueError
        If one of the two was overwritten since.
    """
    record = prediction_record(adata, key)
    written = Obsm.cross(key) in adata.obsm and Obsm.attention(key) in adata.obsm and Uns.bank_spots in record
    if str(record.get("method", "")) != NETWORK or not written:
        return None
    names = np.asarray(record[Uns.bank_spots])
    similarity, attention = stored_edges(adata, key, len(names))
    weight = np.asarray(attention.sum(axis=0)).ravel()
    used = np.unique(similarity.indices)
    used = used[np.argsort(-weight[used], kind="stable")]
    position = np.full(len(names), -1, dtype=np.int32)
    position[used] = np.arange(len(used))
    slides, spots = reference_names(names[used], record["references"])

    length = np.diff(similarity.indptr)
    shape = adata.n_obs, int(length.max(initial=0))
    row = np.repeat(np.arange(adata.n_obs), length)
    order = np.lexsort((-similarity.data, -attention.data, row))
    column = np.arange(len(row)) - np.repeat(similarity.indptr[:-1], length)
    edges, cosine, weights = np.full(shape, -1, np.int32), np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for table, values in ((edges, position[similarity.indices]), (cosine, similarity.data), (weights, attention.data)):
        table[row, column] = values[order]
    return Retrieved(pd.DataFrame({"slide": slides, "spot": spots}), edges, cosine, weights)


def cut_reference_patches(
    spots: Retrieved, slides: References, embedding: str, patch_um: float | None
) -> list[np.ndarray | None]:
    """Small patches of the reference spots of most attention; ``None`` without an image, and for all the others."""
    side = PATCH_SIZES[0][0]
    small: list[np.ndarray | None] = [None] * len(spots.references)
    # A slide at a time: patches as the encoder saw them are larger than what is kept of them.
    for name, rows in spots.references.head(MAX_PATCHES).groupby("slide", sort=False):
        if name not in slides:
            continue
        patches = reference_patches(rows.reset_index(drop=True), slides, embedding, patch_um)
        for i, patch in zip(rows.index, patches, strict=True):
            small[int(i)] = None if patch is None else _shrunk(patch, side)
    return small


def fitted_patches(patches: list[np.ndarray | None], budget: int) -> Patches:
    """All patches as fine as at most so many bytes allow; of the coarsest ones as many as fit, in their order."""
    for side, quality in PATCH_SIZES:
        jpegs = [b"" if patch is None else as_jpeg(patch, (side, side), quality) for patch in patches]
        if sum(map(len, jpegs)) <= budget:
            return Patches(jpegs, side)
    fits = np.cumsum([len(jpeg) for jpeg in jpegs]) <= budget
    return Patches([jpeg if has_room else b"" for jpeg, has_room in zip(jpegs, fits, strict=True)], side)


def _shrunk(patch: np.ndarray, side: int) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.fromarray(patch).resize((side, side), Image.Resampling.LANCZOS))
