"""Genes that some of the slides did not measure: NaN where they are read, and groups of genes of the same slides."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from spahgc._spots.rows import LazyRows, Rows, SlideScale, SomeColumns, SomeRows, mean_and_std, read


@dataclass(frozen=True)
class MeasuredRows(LazyRows):
    """Expression in which every gene that a slide did not measure is NaN on it, whatever the array holds there.

    So what takes an unmeasured gene for a number shows: its result is NaN, and no zero goes by unnoticed.

    Parameters
    ----------
    rows
        Spots x genes, dense where they are read.
    slide
        Number of each spot's slide.
    measured
        Which genes each slide measured, slides x genes, boolean.
    """

    rows: Rows
    slide: np.ndarray
    measured: np.ndarray

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Spots and genes."""
        return self.rows.shape

    def __getitem__(self, rows: slice | np.ndarray, /) -> np.ndarray:
        return np.where(self.measured[self.slide[rows]], self.rows[rows], np.float32(np.nan))


def measured_genes(y: Rows, slide: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which genes each slide measured: names of the slides, sorted, and slides x genes, boolean.

    A slide measured a gene at all of its spots or at none, so that a spot of each tells.
    """
    names, first = np.unique(slide, return_index=True)
    order = np.argsort(first)
    known = np.empty((len(names), y.shape[1]), dtype=bool)
    known[order] = ~np.isnan(read(y, first[order]))
    return names, known


class Pattern(NamedTuple):
    """Genes that the same slides measured, by number, and the spots of these slides, by number."""

    genes: np.ndarray
    rows: np.ndarray

    def of(self, y: Rows) -> Rows:
        """What these spots measured of these genes."""
        return SomeColumns(SomeRows(y, self.rows), self.genes)


def patterns(y: Rows, slide: np.ndarray) -> list[Pattern]:
    """The genes in groups that the same slides measured; a gene that none did is in no group."""
    names, known = measured_genes(y, slide)
    combinations, number = np.unique(known, axis=1, return_inverse=True)
    number = number.ravel()
    return [
        Pattern(np.flatnonzero(number == i), np.flatnonzero(np.isin(slide, names[combination])))
        for i, combination in enumerate(combinations.T)
        if combination.any()
    ]


def is_complete(y: Rows, slide: np.ndarray) -> bool:
    """Whether every slide measured every gene."""
    return bool(measured_genes(y, slide)[1].all())


def scale_where_measured(y: Rows, slide: np.ndarray) -> SlideScale:
    """Mean and spread of every gene over all spots of the slides that measured it; NaN where none did."""
    mean, spread = np.full(y.shape[1], np.nan), np.full(y.shape[1], np.nan)
    for pattern in patterns(y, slide):
        own = mean_and_std(SomeColumns(y, pattern.genes), pattern.rows)
        mean[pattern.genes], spread[pattern.genes] = own.mean, own.spread
    return SlideScale(mean, spread)
