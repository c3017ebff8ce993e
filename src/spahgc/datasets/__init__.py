"""Data sets for demonstrations, tutorials and tests."""

from spahgc.datasets._simulated import simulated

__all__ = ["simulated"]
