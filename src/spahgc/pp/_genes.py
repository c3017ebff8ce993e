"""Which genes to predict: variable on every reference, chosen without the target."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from anndata import AnnData
from scipy.sparse import csr_matrix

from spahgc._logging import HINT, warn
from spahgc._settings import limited_threads
from spahgc._slides.measured import MeasuredSlide, measured_slides
from spahgc._slides.stored import stored_slides
from spahgc._slides.tables import tables_of
from spahgc._validate import did_you_mean, quoted

if TYPE_CHECKING:
    from pathlib import Path

    from spatialdata import SpatialData

logger = logging.getLogger(__name__)

N_TOP_GENES = 1000
"""Most variable genes of a slide, as in the paper."""

MIN_SPOTS = 3
"""Spots of a slide that must have seen a gene before it may count as variable there."""

MIN_SHARE = 0.01
"""Share of the references' spots that must have seen a gene before ``genes="all"`` predicts it."""

ALL_GENES = "all"
"""Panel of all genes that the references cover."""

UNION_GENES = "union"
"""Panel of the genes that at least one reference measured."""

MIN_SHARED = 10
"""Genes that references of different panels must share for ``genes="union"``."""

SPANS = (0.3, 0.5, 0.75, 1.0)
"""Shares of a slide's genes to which each piece of the curve of variance on mean is fitted, in the order in which they are
tried. The first one is scanpy's own; the curve of a shallow slide, whose genes have few different means, needs a wider one."""

MIN_CURVE_GENES = 4
"""Genes, at least, to which that curve is fitted. The library that does so ends the whole process on fewer."""

RESIDUALS = "Pearson residuals"
"""What ranks the genes of a slide to which no curve can be fitted: the variance of their Pearson residuals (Lause, Berens and
Kobak, 2021)."""


def select_genes(
    refs: AnnData | SpatialData | Iterable[AnnData | SpatialData | str | Path] | str | Path,
    *,
    n_top: int = N_TOP_GENES,
    n_abundant: int = 0,
    min_spots: int = MIN_SPOTS,
    layer: str | None = None,
    units: str | None = None,
    table_key: str | None = None,
) -> list[str]:
    """Genes that are among the most variable, or among the most abundant, of every reference.

    The target has no part in it: a panel that saw the target's counts would leak them.

    Parameters
    ----------
    refs
        The references, AnnData or SpatialData, or their paths. Counts are expected. Spots off the tissue (``obs["in_tissue"]``) are left
        out, with a warning.
    n_top
        Genes taken of each reference, ranked by :func:`scanpy.pp.highly_variable_genes` with
        ``flavor="seurat_v3"``. A reference with no more than this many genes contributes all of them. Where its curve of
        variance on mean cannot be fitted, as on shallow slides, wider spans of it are tried, then the variance of Pearson
        residuals ranks the genes; a warning says so, and so does ``uns["spahgc"]["bank"]["gene_selection"]`` of a bank.
    n_abundant
        Genes of highest mean count that are taken of each reference as well, again only those that are among them in
        every reference. Variance alone, in relation to the mean, passes over markers such as ERBB2 that are seen at
        every spot.
    min_spots
        Genes seen in fewer spots of a reference are left out there.
    layer
        Layer with the counts; ``None`` takes ``X``.
    units
        What its values are, as in :func:`spahgc.tl.predict`; ``None`` finds out.
    table_key
        Key of the table of every SpatialData among them; ``None`` takes the only one.

    Returns
    -------
    Gene names, sorted.

    Raises
    ------
    ValueError
        If no gene is left, or if a number is negative.

    Warns
    -----
    UserWarning
        If the genes of a reference could not be ranked as they are elsewhere.

    Notes
    -----
    Paper, section 4.1: the 1,000 most variable genes of each slide, intersected; here over the references only, and
    without abundant genes, which ``preset="default"`` adds.

    Examples
    --------
    >>> import spahgc as sp
    >>> target, *refs = sp.datasets.simulated(n_slides=3, n_spots=60, n_genes=60)
    >>> panel = sp.pp.select_genes(refs, n_top=20)
    >>> len(panel) <= 20, set(panel) <= set(refs[0].var_names)
    (True, True)
    """
    for name, number in {"n_top": n_top, "n_abundant": n_abundant, "min_spots": min_spots}.items():
        if number < 0:
            raise ValueError(f"{name} must be at least 0, found {number}.")
    slides = measured_slides(
        tables_of(stored_slides(refs, "reference"), table_key, "reference"), layer=layer, units=units
    )
    return selected_genes(slides, n_top=n_top, n_abundant=n_abundant, min_spots=min_spots)


def selected_genes(
    slides: Mapping[str, MeasuredSlide],
    *,
    n_top: int = N_TOP_GENES,
    n_abundant: int = 0,
    min_spots: int = MIN_SPOTS,
) -> list[str]:
    """What :func:`select_genes` returns for slides of which each is ranked once."""
    shared = common_genes(slides)
    of_slides = {name: slide.ranking(_variable_genes, n_top, min_spots) for name, slide in slides.items()}
    variable = set(shared).intersection(*of_slides.values())
    abundant = set(shared).intersection(*(slide.ranking(_abundant_genes, n_abundant) for slide in slides.values()))
    panel = variable | abundant
    if not panel:
        empty = [name for name, genes in of_slides.items() if not genes] if n_top else []
        raise ValueError(
            f"no gene is among the {n_top} most variable of every reference ({quoted(slides)}). "
            + (
                f"In {quoted(empty)} no gene is seen in {min_spots} spots: leave these out, or check their counts. "
                * bool(empty)
            )
            + "Raise n_top=, or pass the genes yourself with genes=."
        )
    logger.log(
        HINT, "%d genes are variable, %d abundant in all of %d references", len(variable), len(abundant), len(slides)
    )
    return sorted(panel)


def union_genes(
    slides: Mapping[str, MeasuredSlide],
    *,
    n_top: int = N_TOP_GENES,
    n_abundant: int = 0,
    min_spots: int = MIN_SPOTS,
) -> list[str]:
    """Genes that are among the most variable, or the most abundant, of every reference that measured them, sorted.

    One reference is enough: of a gene that the others did not measure, they say nothing. Where all measured the same genes
    it is what :func:`selected_genes` returns.

    Raises
    ------
    ValueError
        If no gene is left, if the references differ in their genes and share fewer than :data:`MIN_SHARED`, or if one of
        them measured no gene of the panel.
    """
    if len({frozenset(slide.var_names) for slide in slides.values()}) == 1:
        return selected_genes(slides, n_top=n_top, n_abundant=n_abundant, min_spots=min_spots)
    check_shared(slides)
    variable = _in_each_that_measured(
        slides, {name: slide.ranking(_variable_genes, n_top, min_spots) for name, slide in slides.items()}
    )
    abundant = _in_each_that_measured(
        slides, {name: slide.ranking(_abundant_genes, n_abundant) for name, slide in slides.items()}
    )
    panel = variable | abundant
    without = [name for name, slide in slides.items() if panel.isdisjoint(slide.var_names)]
    if without:
        raise ValueError(
            f"no gene that {quoted(without)} measured is among the {n_top} most variable of every reference that measured it. "
            "Leave these references out, check their counts, or pass the genes yourself with genes=."
        )
    logger.log(
        HINT, "%d genes are variable, %d abundant in all references that measured them", len(variable), len(abundant)
    )
    return sorted(panel)


def _in_each_that_measured(slides: Mapping[str, MeasuredSlide], chosen: Mapping[str, set[str]]) -> set[str]:
    """Genes that every slide that measured them has chosen."""
    refused = set().union(*(set(slide.var_names) - chosen[name] for name, slide in slides.items()))
    return set().union(*chosen.values()) - refused


def check_shared(slides: Mapping[str, MeasuredSlide]) -> None:
    """Refuse slides of different genes that share too few to learn from together."""
    shared = common_genes(slides)
    if len(shared) >= MIN_SHARED:
        return
    fewest = min(slides, key=lambda name: len(slides[name].var_names))
    raise ValueError(
        f'genes="{UNION_GENES}" learns what genes have in common from those that all references measured, and these share '
        f'{len(shared)} ({quoted(shared)}); {MIN_SHARED} are needed. "{fewest}" was measured in the fewest, '
        f"{len(slides[fewest].var_names)}: leave it out, or train on each platform by itself."
    )


def common_genes(slides: Mapping[str, AnnData | MeasuredSlide]) -> list[str]:
    """Genes that every slide has, sorted; refuses slides without a gene in common."""
    shared = set.intersection(*(set(slide.var_names) for slide in slides.values()))
    if not shared:
        samples = "; ".join(f'"{name}": {quoted(slide.var_names, limit=2)}' for name, slide in slides.items())
        first, *others = slides.values()
        other = next((each for each in others if not set(each.var_names) & set(first.var_names)), first)
        meant = did_you_mean(list(other.var_names), first.var_names) if other is not first else ""
        raise ValueError(
            f"the references have no gene in common ({samples}).{meant} Check whether some name genes by symbol and others "
            "by Ensembl identifier."
        )
    return sorted(shared)


def seen_genes(slides: Mapping[str, MeasuredSlide], *, min_share: float = MIN_SHARE) -> list[str]:
    """Genes of all slides that at least this share of all their spots has seen, sorted."""
    shared = np.array(common_genes(slides))
    seen = sum(slide.n_seen[slide.var_names.get_indexer(shared)] for slide in slides.values())
    n_measured = sum(int(slide.measured.sum()) for slide in slides.values())
    genes = shared[seen >= min_share * max(1, n_measured)]
    if not len(genes):
        raise ValueError(f"no gene is seen in {min_share:.0%} of the references' spots. Check their counts.")
    return [str(gene) for gene in genes]


def covered_genes(slides: Mapping[str, MeasuredSlide], n: int) -> list[str]:
    """The genes that all slides cover best.

    A gene is as well covered as on the slide that sees it in the smallest share of its spots. What one slide hardly
    sees cannot be compared between slides, however well others see it.

    Parameters
    ----------
    slides
        Slides by name.
    n
        Genes, at most; equally well covered ones are taken by name.

    Returns
    -------
    Gene names, sorted.
    """
    shared = np.array(common_genes(slides))
    coverage = np.ones(len(shared))
    for slide in slides.values():
        share = slide.n_seen / max(1, int(slide.measured.sum()))
        coverage = np.minimum(coverage, share[slide.var_names.get_indexer(shared)])
    return sorted(shared[np.lexsort((shared, -coverage))[:n]].tolist())


def _abundant_genes(slide: MeasuredSlide, n_abundant: int) -> set[str]:
    """The genes of highest mean count."""
    if not n_abundant:
        return set()
    totals = np.asarray(slide.counts().sum(axis=0)).ravel()
    # By name between equals, so that the order of the columns does not decide.
    ranked = np.lexsort((slide.var_names.to_numpy().astype(str), -totals))
    return set(slide.var_names[ranked[:n_abundant]])


def _variable_genes(slide: MeasuredSlide, n_top: int, min_spots: int) -> set[str]:
    """The genes of highest variance in relation to their mean, among those that enough spots have seen."""
    counts = slide.counts()
    seen = np.asarray((counts > 0).sum(axis=0)).ravel() >= min_spots
    genes = slide.var_names[seen]
    if len(genes) <= n_top:
        return set(genes)
    if not n_top:
        return set()
    # Numba, on which scanpy runs, sets the threads of whatever else shares its OpenMP runtime, such as torch.
    with limited_threads(counts.nnz):
        ranked, slide.gene_selection = _most_variable(csr_matrix(counts[:, seen]), n_top, slide.label)
    return set(genes[ranked])


def _most_variable(counts: csr_matrix, n_top: int, label: str) -> tuple[np.ndarray, str]:
    """Which genes are the most variable, and what ranked them if it was not the curve that ranks those of most slides."""
    import scanpy as sc

    table = AnnData(counts.astype(np.float32))
    varying = np.asarray((counts.max(axis=0) - counts.min(axis=0)).todense()).ravel() > 0
    problem = f"{int(varying.sum())} of its genes vary"
    for span in SPANS if varying.sum() >= MIN_CURVE_GENES else ():
        try:
            ranked = sc.pp.highly_variable_genes(
                table,
                flavor="seurat_v3",
                n_top_genes=n_top,
                inplace=False,
                **({} if span == SPANS[0] else {"span": span}),
            )
        except ValueError as error:  # of loess
            problem = _words_of_loess(error)
            continue
        if np.isfinite(ranked["variances_norm"].to_numpy()[varying]).all():
            if span != SPANS[0]:
                _warn_of_ranking(label, problem, f"with a span of {span} instead of {SPANS[0]}")
            return ranked["highly_variable"].to_numpy(), "" if span == SPANS[0] else f"loess, span {span}"
        problem = "it has no value for some genes"
    _warn_of_ranking(label, problem, f"by the variance of their {RESIDUALS} instead")
    return _largest_residuals(counts, n_top), RESIDUALS


def _words_of_loess(error: ValueError) -> str:
    words = error.args[0] if error.args else ""
    return " ".join((words.decode(errors="replace") if isinstance(words, bytes) else str(words)).split()).rstrip(".")


def _warn_of_ranking(label: str, problem: str, instead: str) -> None:
    warn(
        f"{label} is too shallow, or has too few genes, for the curve of variance on mean that ranks its genes ({problem}). "
        f"They were ranked {instead}. Pass genes= to choose them yourself.",
        stacklevel=6,
    )


def _largest_residuals(counts: csr_matrix, n_top: int) -> np.ndarray:
    """Which genes have the Pearson residuals of largest variance, or the largest variance where values are negative."""
    import scanpy as sc

    seen = counts[np.diff(counts.indptr) > 0]  # a spot without a count has no residual
    if seen.data.min() < 0:
        means = np.asarray(seen.mean(axis=0)).ravel()
        variance = np.asarray(seen.multiply(seen).mean(axis=0)).ravel() - means**2
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of values that are no whole numbers
            ranked = sc.experimental.pp.highly_variable_genes(
                AnnData(seen.astype(np.float64)), flavor="pearson_residuals", n_top_genes=n_top, inplace=False
            )
        variance = np.nan_to_num(ranked["residual_variances"].to_numpy())
    chosen = np.zeros(len(variance), dtype=bool)
    chosen[np.argsort(-variance, kind="stable")[:n_top]] = True
    return chosen
