"""Marker panels of a page: the gene sets of a file, as far as their genes are on it."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from spahgc._logging import warn
from spahgc._validate import quoted
from spahgc.tl._gene_sets import SOURCE, TARGET, Net, gene_sets


@dataclass(frozen=True)
class GeneSet:
    """A panel: positions of its genes among those of the page, and how many genes it has in all."""

    name: str
    genes: list[int]
    n: int


def read_sets(net: Net | None) -> pd.DataFrame | None:
    """The gene sets that were passed, as `spahgc.tl.enrich` takes them."""
    return None if net is None else gene_sets(net)


def sets_of(table: pd.DataFrame | None, genes: list[str]) -> list[GeneSet]:
    """The sets with genes on the page; those without any are left out, with a warning.

    Raises
    ------
    ValueError
        If no set has a gene on the page.
    """
    if table is None:
        return []
    place = {gene: i for i, gene in enumerate(genes)}
    found, empty = [], []
    for name, part in table.groupby(SOURCE, sort=False):
        inside = [place[gene] for gene in part[TARGET] if gene in place]
        if inside:
            found.append(GeneSet(str(name), inside, len(part)))
        else:
            empty.append(str(name))
    if not found:
        raise ValueError(
            f"no gene set has a gene on the page, which shows {quoted(genes, 3)}; the sets name genes like "
            f"{quoted(pd.unique(table[TARGET]), 3)}. Check species and kind of gene names, or predict with genes=[...]."
        )
    if empty:
        warn(
            f"{len(empty)} of {len(empty) + len(found)} gene sets have no gene on the page and are left out: {quoted(empty)}.",
            stacklevel=3,
        )
    return found
