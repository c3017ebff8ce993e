"""A slide as one that was never measured, and a measured one beside it: what a method from outside gets to see."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from spahgc._keys import SPATIAL, UNS, Obs, Obsm, Uns
from spahgc._slides.matrix import row_sums
from spahgc._slides.measured import MeasuredSlide
from spahgc._slides.units import COUNTS, COUNTS_LAYER
from spahgc._validate import embedding_matrix, encoder_records
from spahgc.pp._use_embedding import FIELDS

SPOT_COLUMNS = (
    Obs.array_row,
    Obs.array_col,
    Obs.tissue_fraction,
    Obs.focus,
    Obs.patch_padded,
    Obs.context_padded,
)
"""Columns of ``obs`` that say where a spot lies and what its picture is like. Any other may come from the counts."""
SLIDE_COLUMNS = (Obs.patient, Obs.library)
"""Columns that are handed on where they say the same of all spots of a slide."""
PICTURES = ("hires", "lowres", "fullres")
"""Images of ``uns["spatial"]`` that are handed on."""


@dataclass(frozen=True)
class UnmeasuredSlide:
    """What is known of a slide without its counts; nothing here shares memory with them.

    Parameters
    ----------
    name
        The slide.
    obs
        Columns that tell nothing of the counts, by spot.
    obsm
        Embeddings with their contexts, and ``"spatial"``.
    uns
        Encoder records, microns, images with their scale factors.
    """

    name: str
    obs: pd.DataFrame
    obsm: dict[str, np.ndarray]
    uns: dict[str, Any]

    @classmethod
    def of(cls, slide: MeasuredSlide, embeddings: Iterable[str]) -> UnmeasuredSlide:
        """What there is of a slide beside its counts; ``embeddings`` are taken, and all that have an encoder record."""
        records = encoder_records(slide.adata)
        keys = list(dict.fromkeys([*embeddings, *(key for key in records if key in slide.adata.obsm)]))
        obsm = {SPATIAL: np.array(slide.xy)}
        for key in keys:
            obsm |= _embedding(slide, key)
        return cls(slide.name, _columns(slide), obsm, _notes(slide, keys))

    def to_anndata(self, genes: Iterable[str]) -> AnnData:
        """A new object without counts whose ``var`` names these genes; its arrays are copies, its images read-only."""
        return AnnData(
            None,
            obs=self.obs.copy(),
            var=_names(genes),
            obsm={key: np.array(values) for key, values in self.obsm.items()},
            uns=_copy(self.uns),
        )

    def with_expression(self, slide: MeasuredSlide) -> AnnData:
        """The same as a reference: a copy that holds the expression of all genes, without the spots that have no count.

        ``X`` is ``log1p`` counts per 10,000, CSR, float32, ``layers["counts"]`` holds the counts as far as they are known,
        ``obs["spahgc_total_counts"]`` their totals over all genes that were measured.
        """
        adata = self.to_anndata(slide.var_names)
        adata.X = slide.expression().copy()
        if slide.units_of_counts == COUNTS:
            adata.layers[COUNTS_LAYER] = slide.counts().copy()
            adata.obs[Obs.total] = np.array(row_sums(slide.counts()) if slide.totals is None else slide.totals)
        return adata if slide.measured.all() else adata[slide.measured].copy()


def _names(names: Iterable[object]) -> pd.DataFrame:
    """A table of nothing but names, which are no part of another object's."""
    return pd.DataFrame(index=pd.Index([str(name) for name in names]))


def _columns(slide: MeasuredSlide) -> pd.DataFrame:
    obs, columns = slide.adata.obs, _names(slide.obs_names)
    columns[Obs.slide] = slide.name
    for name in SLIDE_COLUMNS:
        if name in obs and obs[name].notna().all() and obs[name].nunique() == 1:
            columns[name] = str(obs[name].iloc[0])
    for name in SPOT_COLUMNS:
        if name in obs and obs[name].dtype.kind in "biuf":
            columns[name] = np.array(obs[name])
    return columns


def _embedding(slide: MeasuredSlide, key: str) -> dict[str, np.ndarray]:
    """An embedding, and what it shows beside the patch, under the keys that they have on the slide."""
    known = slide.held_embedding(key)
    z = embedding_matrix(slide.adata, key, slide.label) if known is None else known
    own = slide.adata.obsm[key].shape[1]
    parts = {key: np.array(z[:, :own])}
    return parts if own == z.shape[1] else parts | {Obsm.context(key): np.array(z[:, own:])}


def _notes(slide: MeasuredSlide, keys: list[str]) -> dict[str, Any]:
    uns, records = slide.adata.uns, encoder_records(slide.adata)
    entries = uns.get(UNS, {})
    notes: dict[str, Any] = {
        Uns.embeddings: {
            key: {field: deepcopy(value) for field, value in records[key].items() if field in FIELDS}
            for key in keys
            if key in records
        }
    }
    if Uns.slide_mpp in entries:
        notes[Uns.slide_mpp] = float(entries[Uns.slide_mpp])
    widths = entries.get(Uns.patch_um, {})
    notes[Uns.patch_um] = {key: float(widths[key]) for key in keys if key in widths}
    libraries = {str(name): _library(library) for name, library in uns.get(SPATIAL, {}).items()}
    return {UNS: notes} | ({SPATIAL: libraries} if libraries else {})


def _library(library: Any) -> dict[str, Any]:
    images, scales = library.get("images", {}), library.get("scalefactors", {})
    return {
        "images": {name: images[name] for name in PICTURES if name in images},
        "scalefactors": {str(name): float(value) for name, value in scales.items() if np.ndim(value) == 0},
    }


def _copy(value: Any) -> Any:
    """A copy of nested records; an image, which may be gigabytes, is a view that nobody can write into by accident."""
    if isinstance(value, dict):
        return {key: _copy(entry) for key, entry in value.items()}
    if isinstance(value, np.ndarray) and value.ndim > 1:
        view = value.view()
        view.flags.writeable = False
        return view
    return deepcopy(value)
