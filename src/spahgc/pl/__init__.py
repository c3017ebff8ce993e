"""Figures: measured and predicted expression on the tissue, and the reference spots behind a prediction."""

from spahgc.pl._attribution import attribution
from spahgc.pl._domains import domains
from spahgc.pl._gene_scores import gene_scores
from spahgc.pl._graph import graph
from spahgc.pl._history import history
from spahgc.pl._report import report
from spahgc.pl._score_vs_abundance import score_vs_abundance
from spahgc.pl._spatial_genes import spatial_genes
from spahgc.pl._support import support
from spahgc.pl._trust import trust

__all__ = [
    "attribution",
    "domains",
    "gene_scores",
    "graph",
    "history",
    "report",
    "score_vs_abundance",
    "spatial_genes",
    "support",
    "trust",
]
