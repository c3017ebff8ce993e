"""Figures: measured and predicted expression on the tissue, and the reference spots behind a prediction."""

from spahgc.pl._attribution import attribution
from spahgc.pl._spatial_genes import spatial_genes

__all__ = ["attribution", "spatial_genes"]
