"""The predictions of a fold beside what was measured, which no method has seen."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np
import pandas as pd

from spahgc._keys import POOLED_PEARSON, SLIDE_SCORES
from spahgc._slides.measured import MeasuredSlide
from spahgc.tl._evaluate import correlation, gene_scores
from spahgc.tl._structure.neighbours import neighbour_graph
from spahgc.tl._structure.scores import pathway_structure, slide_structure, structure_scores


def score_fold(
    predicted: Mapping[str, pd.DataFrame], slides: Mapping[str, MeasuredSlide], net: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Compare the predictions of a fold with what was measured.

    Parameters
    ----------
    predicted
        Spots x panel of every slide held out, by name.
    slides
        Measured slides by name.
    net
        Gene sets whose pathways are compared as well.

    Returns
    -------
    One row a slide and gene that the slide has: the scores of genes, those of the slide (the same for all its genes; NaN
    for what was not asked for), and ``pearson_pooled`` (the same on all slides of the fold).
    """
    pairs = {name: _compared(values, slides[name]) for name, values in predicted.items()}
    pooled = pooled_pearson(list(pairs.values()))
    tables = []
    for name, (p, m) in pairs.items():
        genes = list(p.columns)
        near = neighbour_graph(slides[name].xy[slides[name].measured])
        scores = gene_scores(p.to_numpy(), m.to_numpy(), genes).rename(columns={"n_spots": "n"})
        scores = scores.join(structure_scores(p.to_numpy(), m.to_numpy(), genes, near))
        of_slide = {
            **slide_structure(p.to_numpy(), m.to_numpy()),
            **pathway_structure(p.to_numpy(), m.to_numpy(), genes, net),
        }
        for score in SLIDE_SCORES:
            scores[score] = of_slide.get(score, np.nan)
        scores[POOLED_PEARSON] = pooled.reindex(genes)
        tables.append(scores.reset_index().assign(slide=name))
    return pd.concat(tables, ignore_index=True)


def _compared(predicted: pd.DataFrame, slide: MeasuredSlide) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Prediction and measurement of the genes that the slide has, at the spots that have counts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # warned of already where the slide was a reference
        expression = slide.expression()
    genes = [gene for gene in predicted.columns if gene in slide.var_names]
    columns = slide.var_names.get_indexer(genes)
    measured = expression[slide.measured][:, columns].toarray()
    return predicted.loc[:, genes][slide.measured], pd.DataFrame(measured, columns=genes)


def pooled_pearson(pairs: list[tuple[pd.DataFrame, pd.DataFrame]]) -> pd.Series:
    """A gene's PCC over the spots of all slides that have it, taken together; NaN where it is constant.

    Beside the pattern within a slide it counts whether the slides' levels are right: of a single slide it is the PCC.

    Parameters
    ----------
    pairs
        Prediction and measurement of each slide, spots x genes.
    """
    having: dict[tuple[int, ...], list[str]] = {}
    for gene in dict.fromkeys(gene for p, _ in pairs for gene in p.columns):
        having.setdefault(tuple(i for i, (p, _) in enumerate(pairs) if gene in p.columns), []).append(gene)
    parts = []
    for chosen, genes in having.items():
        p, m = (np.concatenate([pairs[i][side][genes].to_numpy(np.float64) for i in chosen]) for side in (0, 1))
        parts.append(pd.Series(correlation(p, m), index=genes))
    return pd.concat(parts) if parts else pd.Series(dtype=np.float64)
