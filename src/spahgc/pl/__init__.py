"""Figures: measured and predicted expression on the tissue, and the reference spots behind a prediction.

A figure reads what ``pp`` and ``tl`` wrote and computes nothing new; ``_report`` makes a page of it. What figures share is
in ``_output.py`` (axes, saving), ``_style.py`` (colours, sizes), ``_tissue.py`` (spots on a slide), ``_spot_panels.py``
(single spots) and ``_labels.py``. May import everything but ``cli``.
"""

from spahgc.pl._attribution import attribution
from spahgc.pl._domains import domains
from spahgc.pl._drift import drift
from spahgc.pl._gene_scores import gene_scores
from spahgc.pl._graph import graph
from spahgc.pl._history import history
from spahgc.pl._registration import registration
from spahgc.pl._report import report
from spahgc.pl._score_vs_abundance import score_vs_abundance
from spahgc.pl._spatial_genes import spatial_genes
from spahgc.pl._style import set_style
from spahgc.pl._support import support
from spahgc.pl._trust import trust

__all__ = [
    "attribution",
    "domains",
    "drift",
    "gene_scores",
    "graph",
    "history",
    "registration",
    "report",
    "score_vs_abundance",
    "set_style",
    "spatial_genes",
    "support",
    "trust",
]
