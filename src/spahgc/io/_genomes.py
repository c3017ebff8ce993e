"""Counts that were mapped to several genomes at once: which gene is of which, and which genome the slide is about."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData

from spahgc._logging import warn
from spahgc._slides.matrix import column_sums
from spahgc._validate import quoted

GENOME, GENE_IDS = "genome", "gene_ids"
"""Columns of ``var``, as Space Ranger's matrix has them."""
MAX_OTHER_SHARE = 0.05
"""Share of the counts up to which the genes of other genomes are left out: reads that were mapped to the wrong genome, and
a few cells of a host. With more, nobody but the user knows which genome is meant."""
MIN_PREFIXED_SHARE, MIN_PREFIXED_GENES = 0.01, 2
"""Share and number of the genes that must carry a prefix which no column confirms; fewer are genes of that name."""
PREFIX = re.compile(r"([A-Za-z0-9.\-]+)__+(?=[^_])")
"""A name's genome. Space Ranger fills prefixes up to one length: ``GRCh38_`` and ``mm10___``. A single line ends many a
name of a gene, so that it counts only where a column or an identifier confirms it."""
PREFIXED_ID = re.compile(r"([A-Za-z0-9.\-]+?)_+(?=ENS[A-Z]*G\d)")
"""The genome of an Ensembl identifier: ``GRCh38_ENSG00000107796``."""
ANY_PREFIX = re.compile(r"([A-Za-z0-9.\-]+)_")
NO_GENOME = ""
"""Of genes that name no genome."""


def one_genome(adata: AnnData, genome: str | None, path: Path) -> tuple[AnnData, dict[str, str | int | float]]:
    """Keep the genes of one genome, and take its prefix off their names and identifiers.

    Which genome a gene is of is said by ``var["genome"]``, where it names several, else by what its name (``mm10___Actb``)
    or its identifier (``mm10___ENSMUSG00000029580``) begins with.

    Parameters
    ----------
    adata
        Counts of genes, spots x genes, their names as they stand in the file.
    genome
        The genome to keep, by name; ``""`` are genes that name none, where others do. ``None`` takes the only one, or the
        one whose genes hold at least 95 % of the counts.
    path
        File of the counts, for messages.

    Returns
    -------
    The counts, and where there are several genomes what was left out: `genome`, the one that was kept,
    `n_genes_of_other_genomes`, and `share_of_other_genomes` (of the counts, 0 to 1).

    Raises
    ------
    ValueError
        If there are several genomes of which none has 95 % of the counts, or none is called `genome`.

    Warns
    -----
    UserWarning
        If genes are left out that nobody asked to leave out, or all names begin alike and nothing says whether that is a
        genome.
    """
    genomes = _genomes(adata.var, genome)
    names = sorted(set(genomes))
    if len(names) > 2 and NO_GENOME in names:  # such as transgenes: of no other genome than the rest
        names.remove(NO_GENOME)
    if names == [NO_GENOME]:
        if genome:
            raise ValueError(
                f'genome="{genome}": no gene of the counts "{path}" names a genome; their names look like '
                f"{quoted(adata.var_names)}. Leave genome= out."
            )
        _warn_of_common_start(adata.var_names, path)
        return adata, {}
    counts = column_sums(adata.X)
    total = float(counts.sum())
    shares = {name: float(counts[genomes == name].sum()) / total if total else 0.0 for name in names}
    if genome is not None and genome not in names:
        raise ValueError(
            f'genome="{genome}" is none of those of the counts "{path}": {_described(genomes, shares)}. Pass one of these.'
        )
    chosen = max(names, key=lambda name: shares[name]) if genome is None else genome
    others = [name for name in names if name != chosen]
    other_share = sum(shares[name] for name in others)
    if genome is None and others:
        found = f'the counts "{path}" were mapped to {len(names)} genomes: {_described(genomes, shares)}'
        if not total or other_share > MAX_OTHER_SHARE:
            raise ValueError(
                f"{found}. More than {MAX_OTHER_SHARE:.0%} of the counts are of another one than the first, so that nobody "
                f'can tell which one is meant. Pass genome= with its name, e.g. genome="{chosen}".'
            )
        warn(
            f"{found}. Assumed: the slide is about {_named(chosen)}; {int(np.isin(genomes, others).sum())} genes of the "
            f"others, with {other_share:.2%} of the counts, are left out, also of the total of a spot. Pass genome= if that "
            "is wrong.",
            stacklevel=5,
        )
    kept = ~np.isin(genomes, others)
    adata = adata if kept.all() else adata[:, kept].copy()
    _strip(adata, chosen)
    if not others:
        return adata, {}
    n_left_out = int((~kept).sum())
    return adata, {GENOME: chosen, "n_genes_of_other_genomes": n_left_out, "share_of_other_genomes": other_share}


def _genomes(var: pd.DataFrame, confirmed: str | None) -> np.ndarray:
    """The genome of every gene, by name; empty where it names none."""
    known = _texts(var[GENOME]) if GENOME in var else np.full(len(var), NO_GENOME, dtype=object)
    named = sorted(set(known) - {NO_GENOME})
    if len(named) > 1:
        return known
    names = _texts(var.index.to_series())
    identifiers = _texts(var[GENE_IDS]) if GENE_IDS in var else names
    single = {name for name in (*named, confirmed) if name}
    found = np.full(len(var), NO_GENOME, dtype=object)
    for texts, pattern in ((names, PREFIX), (identifiers, PREFIX), (identifiers, PREFIXED_ID)):
        matches = (pattern.match(text) for text in texts)
        found = np.where(found == NO_GENOME, [match[1] if match else NO_GENOME for match in matches], found)
    values, numbers = np.unique(found, return_counts=True)
    needed = max(MIN_PREFIXED_GENES, MIN_PREFIXED_SHARE * len(var))
    rare = [value for value, number in zip(values, numbers, strict=True) if number < needed and value not in single]
    found[np.isin(found, rare)] = NO_GENOME
    for name in single:
        begins = np.array([text.startswith(f"{name}_") for text in names], dtype=bool)
        found[begins & (found == NO_GENOME)] = name
    if named:  # what carries no prefix is of the genome that the column names
        found[found == NO_GENOME] = named[0]
    return found


def _texts(values: pd.Series) -> np.ndarray:
    return values.astype(object).where(values.notna(), NO_GENOME).astype(str).to_numpy(object)


def _strip(adata: AnnData, genome: str) -> None:
    """Take the prefix of a genome off the names and identifiers of its genes; those that have none stay."""
    if genome == NO_GENOME:
        return
    prefix = re.compile(rf"{re.escape(genome)}_+(?=[^_])")
    adata.var_names = pd.Index(
        [prefix.sub("", name, count=1) if prefix.match(name) else name for name in adata.var_names]
    )
    if GENE_IDS in adata.var:
        adata.var[GENE_IDS] = [
            prefix.sub("", name, count=1) if prefix.match(name) else name for name in _texts(adata.var[GENE_IDS])
        ]


def _described(genomes: np.ndarray, shares: dict[str, float]) -> str:
    """The genomes, that of most counts first."""
    order = sorted(shares, key=lambda name: -shares[name])
    return ", ".join(f"{_named(name)} ({int((genomes == name).sum())} genes, {shares[name]:.2%})" for name in order)


def _named(genome: str) -> str:
    return f'"{genome}"' if genome else '"" (genes that name none)'


def _warn_of_common_start(names: pd.Index, path: Path) -> None:
    """Say so where all names begin as with a genome, which nothing confirms."""
    first = ANY_PREFIX.match(names[0]) if len(names) >= MIN_PREFIXED_GENES else None
    if first is not None and all(name.startswith(first[0]) for name in names):
        warn(
            f'all gene names of the counts "{path}" begin with "{first[0]}", and nothing says whether that is a genome. '
            f'They are kept as they are. Pass genome="{first[1]}" to take it off.',
            stacklevel=6,
        )
