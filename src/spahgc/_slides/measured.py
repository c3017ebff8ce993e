"""Measured slides: every part read, converted and checked once; from what lies in X to log1p counts per 10,000."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any, TypeVar, cast

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.sparse import csr_matrix, issparse

from spahgc._keys import COUNTS_PER_SPOT, SPATIAL, UNS, Obs, Obsm, Uns
from spahgc._slides.matrix import row_sums
from spahgc._slides.resolution import known_mpp
from spahgc._slides.split import split_slides
from spahgc._slides.tissue import only_on_tissue
from spahgc._slides.totals import library_sizes
from spahgc._slides.units import COUNTS, TRANSFORMED, Reading, check_units, find_reading
from spahgc._validate import check_coordinates, embedding_matrix, encoder_records

MAX_HELD_VALUES = 200_000_000
"""Counts that are not zero, of all slides of a call together, up to which they are held once they are read: 4 GB with the
expression made of them. Those of more slides are read again where they are needed."""


def log_expression(
    adata: AnnData, *, layer: str | None = None, units: str | None = None, label: str = "the slide"
) -> csr_matrix:
    """Expression of every spot as ``log1p`` counts per 10,000.

    Counts are scaled by the spot's total over all genes that were measured, as far as that is known: see
    :func:`~spahgc._slides.totals.library_sizes`. Input that is no counts is recognised, and a warning says what was
    assumed: see :func:`~spahgc._slides.units.find_reading`.

    Parameters
    ----------
    adata
        A slide. It is not changed.
    layer
        Layer that holds the counts; ``None`` takes ``X``.
    units
        What the values are: ``"counts"``, ``"log1p"`` or ``"normalized"``; ``None`` finds out.
    label
        How messages call the slide.

    Returns
    -------
    Spots x genes, CSR, float32. A spot without counts is a row of zeros.

    Raises
    ------
    ValueError
        If values are NaN or infinite, if there are none, or if nothing tells what they are.
    """
    return log_expression_and_totals(adata, layer=layer, units=units, label=label)[0]


def log_expression_and_totals(
    adata: AnnData, *, layer: str | None, units: str | None, label: str
) -> tuple[csr_matrix, np.ndarray | None]:
    """The same, and the spots' totals where they are known to differ from those of the genes that are there."""
    values, reading = find_reading(adata, layer, units, label)
    totals = _totals(adata, values, reading, label)
    return to_log_expression(values, reading, totals), totals


def _totals(adata: AnnData, values: csr_matrix, reading: Reading, label: str) -> np.ndarray | None:
    """Totals by which spots are scaled, if not by those of their values."""
    if reading.total is not None:
        return np.full(adata.n_obs, reading.total)
    return library_sizes(adata, values, label) if reading.units == COUNTS else None


def to_log_expression(values: csr_matrix, reading: Reading, totals: np.ndarray | None) -> csr_matrix:
    """What :func:`log_expression` makes of values that are read and checked, which are not changed.

    Parameters
    ----------
    values
        Spots x genes, float64.
    reading
        What they are.
    totals
        Totals of the spots over all genes; ``None`` takes the sums of the values.
    """
    if reading.units == TRANSFORMED:
        return values.astype(np.float32)
    matrix = reading.linear(values)
    totals = row_sums(matrix) if totals is None else totals
    scale = np.divide(COUNTS_PER_SPOT, totals, out=np.zeros_like(totals), where=totals > 0)
    matrix.data *= np.repeat(scale, np.diff(matrix.indptr))
    np.log1p(matrix.data, out=matrix.data)
    return matrix.astype(np.float32)


def zero_spots(expression: csr_matrix) -> np.ndarray:
    """Spots without a single count, boolean, one entry a spot."""
    return np.asarray((expression != 0).sum(axis=1)).ravel() == 0


def padded_spots(adata: AnnData) -> np.ndarray:
    """Spots whose patch is known to reach past the image, boolean: their embedding tells where they lie on it."""
    return _flagged(adata, Obs.patch_padded)


def padded_around(adata: AnnData) -> np.ndarray:
    """Spots of which any patch of the context is known to reach past the image, boolean."""
    return _flagged(adata, Obs.context_padded)


def _flagged(adata: AnnData, name: str) -> np.ndarray:
    column = adata.obs.get(name)
    known = column is not None and column.dtype == bool
    return column.to_numpy() if known else np.zeros(adata.n_obs, dtype=bool)


Ranking = TypeVar("Ranking")


class MeasuredSlide:
    """A measured slide; nothing of it is looked at before it is asked for, and nothing is changed.

    Parameters
    ----------
    adata
        The slide.
    name
        Its name.
    layer
        Layer that holds the counts; ``None`` takes ``X``.
    units
        What its values are; ``None`` finds out.
    role
        How messages call it beside its name, e.g. ``"reference"``.
    hold
        Keep what was read of the counts.
    """

    def __init__(
        self,
        adata: AnnData,
        name: str,
        *,
        layer: str | None = None,
        units: str | None = None,
        role: str = "reference",
        hold: bool = True,
    ) -> None:
        self.adata = adata
        self.name = name
        self.layer = layer
        self.units = units
        self.role = role
        self.label = f'{role} "{name}"'
        self.hold = hold
        self.var_names = adata.var_names
        self.obs_names = adata.obs_names
        self.gene_selection = ""
        """What ranked its genes, if that was not what ranks those of most slides."""
        self.picture: Any = None
        """Small picture of its tissue, and whether it was looked for: see :mod:`spahgc.pp._register`."""
        self.picture_taken = False
        self._embeddings: dict[str, np.ndarray] = {}
        self._rankings: dict[tuple[object, ...], object] = {}
        self._reading: Reading | None = None

    @cached_property
    def xy(self) -> np.ndarray:
        """Spot centres ``(x, y)``, spots x 2, pixels, float64."""
        return check_coordinates(self.adata, self.label)

    @cached_property
    def mpp(self) -> float | None:
        """Microns per pixel; ``None`` where nothing tells."""
        return known_mpp(self.adata)

    @property
    def padded(self) -> np.ndarray:
        """Spots whose patch reaches past the image, boolean."""
        return padded_spots(self.adata)

    @property
    def padded_around(self) -> np.ndarray:
        """Spots of which any patch of the context reaches past it, boolean."""
        return padded_around(self.adata)

    def embedding(self, key: str) -> np.ndarray:
        """The embedding under a key, spots x dim, float32."""
        if key not in self._embeddings:
            self._embeddings[key] = embedding_matrix(self.adata, key, self.label)
        return self._embeddings[key]

    def held_embedding(self, key: str) -> np.ndarray | None:
        """The same where it was read already."""
        return self._embeddings.get(key)

    def encoder_record(self, key: str) -> dict[str, object]:
        """The encoder record of an embedding; empty where there is none."""
        return encoder_records(self.adata).get(key, {})

    def counts(self) -> csr_matrix:
        """Values as they stand, or the counts that these are the logarithm of, spots x genes, float64; not to be changed."""
        return self._held_counts if self.hold else self._read_counts()

    def expression(self) -> csr_matrix:
        """``log1p`` counts per 10,000, spots x genes, float32; not to be changed."""
        return self._held_expression if self.hold else self._log_expression(self.counts())

    @cached_property
    def totals(self) -> np.ndarray | None:
        """Totals by which spots are scaled; ``None`` where these are the sums of what is there."""
        counts = self.counts()
        return _totals(self.adata, counts, self._found_reading(), self.label)

    @property
    def units_of_counts(self) -> str:
        """What :meth:`counts` are: see :class:`~spahgc._slides.units.Reading`."""
        return self._found_reading().units

    @cached_property
    def measured(self) -> np.ndarray:
        """Which spots have a count at all, boolean."""
        return self._seen[0]

    @cached_property
    def n_seen(self) -> np.ndarray:
        """Spots that have seen each gene."""
        return self._seen[1]

    @cached_property
    def _seen(self) -> tuple[np.ndarray, np.ndarray]:
        seen = self.counts() != 0
        return np.diff(seen.indptr) > 0, np.asarray(seen.sum(axis=0)).ravel()

    def ranking(self, rank: Callable[..., Ranking], *arguments: object) -> Ranking:
        """What a function of this slide returns for some arguments, computed once."""
        known = (rank, *arguments)
        if known not in self._rankings:
            self._rankings[known] = rank(self, *arguments)
        return self._rankings[known]  # type: ignore[return-value]

    def with_counts(self, counts: csr_matrix, genes: pd.Index, totals: np.ndarray | None) -> MeasuredSlide:
        """The same spots and embeddings, as far as these were asked for, with other counts, and nothing else of the slide.

        Parameters
        ----------
        counts
            Spots x genes, float64, finite, of the same units.
        genes
            Their names.
        totals
            Totals of the spots over all genes; ``None`` takes the sums of the counts.
        """
        table = AnnData(
            counts,
            obs=pd.DataFrame(
                {Obs.patch_padded: self.padded, Obs.context_padded: self.padded_around, **self._patient},
                index=self.obs_names,
            ),
            var=pd.DataFrame(index=genes),
            obsm={**self._embeddings, SPATIAL: self.xy},
            uns={UNS: {Uns.embeddings: encoder_records(self.adata)}},
        )
        slide = MeasuredSlide(table, self.name, role=self.role, hold=self.hold)
        slide._embeddings = dict(self._embeddings)
        slide.picture, slide.picture_taken = self.picture, self.picture_taken
        slide._reading = self._found_reading().of_given_counts()
        slide.__dict__["totals"] = totals
        slide.__dict__["mpp"] = self.mpp
        if self.hold:
            slide.__dict__["_held_counts"] = counts
        return slide

    @property
    def _patient(self) -> dict[str, np.ndarray]:
        """The column that names the patient, if there is one."""
        return {Obs.patient: self.adata.obs[Obs.patient].to_numpy()} if Obs.patient in self.adata.obs else {}

    def __getstate__(self) -> dict[str, object]:
        """What travels to another process, which reads the counts again rather than receiving them twice."""
        return {name: value for name, value in self.__dict__.items() if not name.startswith("_held")}

    def _read_counts(self) -> csr_matrix:
        if self._reading is not None:
            return self._reading.values(self.adata, self.label)
        values, self._reading = find_reading(self.adata, self.layer, self.units, self.label)
        return values

    def _found_reading(self) -> Reading:
        if self._reading is None:
            self.counts()
        return cast(Reading, self._reading)

    def _log_expression(self, counts: csr_matrix) -> csr_matrix:
        return to_log_expression(counts, self._found_reading(), self.totals)

    @cached_property
    def _held_counts(self) -> csr_matrix:
        return self._read_counts()

    @cached_property
    def _held_expression(self) -> csr_matrix:
        return self._log_expression(self._held_counts)


def measured_slides(
    data: AnnData | Iterable[AnnData], *, layer: str | None = None, units: str | None = None, role: str = "reference"
) -> dict[str, MeasuredSlide]:
    """Slides by name as :func:`~spahgc._slides.split.split_slides` tells them apart, without the spots off the tissue.

    Their counts are held if all fit.
    """
    check_units(units)
    slides = {
        name: only_on_tissue(slide, f'{role} "{name}"', f"the {role}s")
        for name, slide in split_slides(data, role).items()
    }
    for name, slide in slides.items():
        if Obsm.transcriptome in slide.obsm:
            raise ValueError(
                f'{role} "{name}" comes from a bank of references (obsm["{Obsm.transcriptome}"]), whose values are no counts '
                "any more; anndata.concat drops the record of a bank. Pass a bank by itself, make one of all slides with "
                "spahgc.pp.reference_bank([...]), or add slides to one on disk with append=True."
            )
    hold = sum(_n_values(slide, layer) for slide in slides.values()) <= MAX_HELD_VALUES
    return {
        name: MeasuredSlide(slide, name, layer=layer, units=units, role=role, hold=hold)
        for name, slide in slides.items()
    }


def _n_values(adata: AnnData, layer: str | None) -> int:
    values = adata.X if layer is None else adata.layers.get(layer)
    return int(values.nnz) if issparse(values) else adata.n_obs * adata.n_vars
