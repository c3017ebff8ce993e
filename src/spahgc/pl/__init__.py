"""Figures: measured and predicted expression on the tissue."""

from spahgc.pl._spatial_genes import spatial_genes

__all__ = ["spatial_genes"]
