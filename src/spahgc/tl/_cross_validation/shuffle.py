"""Null models: references whose expression was permuted, from which a sound evaluation learns nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_matrix, vstack

from spahgc._slides.matrix import row_sums
from spahgc._slides.measured import MeasuredSlide
from spahgc.pp._genes import common_genes

SHUFFLE, SHUFFLE_ALL = "shuffle", "shuffle_all"
"""Null models, by name."""


def shuffled(slides: Sequence[MeasuredSlide], null: str, seed: int, group: str) -> list[MeasuredSlide]:
    """The slides with their rows of counts permuted, within each slide or among all of them.

    Seeded by the seed, the group held out and the names of the slides that are permuted together.
    """
    genes = [slide.var_names for slide in slides]
    counts = [slide.counts() for slide in slides]
    if null == SHUFFLE_ALL:  # rows change slides, so that only genes of all slides can go with them
        shared = common_genes({str(number): slide for number, slide in enumerate(slides)})
        counts = [slide.counts()[:, slide.var_names.get_indexer(shared)] for slide in slides]
        genes = [slide.var_names[slide.var_names.get_indexer(shared)] for slide in slides]
    totals = _totals(slides)
    pools = [range(len(slides))] if null == SHUFFLE_ALL else [[number] for number in range(len(slides))]
    moved: list[MeasuredSlide] = []
    for pool in pools:
        names = [slides[number].name for number in pool]
        words = np.frombuffer(hashlib.sha256(json.dumps([group, *names]).encode()).digest(), dtype="<u4")
        rows = csr_matrix(vstack([counts[number] for number in pool]))
        order = np.random.default_rng([seed, *words.tolist()]).permutation(rows.shape[0])
        rows = rows[order]
        sizes = None if totals is None else np.concatenate([totals[number] for number in pool])[order]
        ends = np.cumsum([counts[number].shape[0] for number in pool])
        for number, end in zip(pool, ends, strict=True):
            place = slice(end - counts[number].shape[0], end)
            moved.append(
                slides[number].with_counts(rows[place], genes[number], None if sizes is None else sizes[place])
            )
    return moved


def _totals(slides: Sequence[MeasuredSlide]) -> list[np.ndarray] | None:
    """Totals that move with the rows; ``None`` where those of the rows themselves are all that is known."""
    if all(slide.totals is None for slide in slides):
        return None
    return [row_sums(slide.counts()) if slide.totals is None else slide.totals for slide in slides]
