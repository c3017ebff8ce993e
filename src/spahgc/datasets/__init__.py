"""The cohorts of the paper, and a simulated one for demonstrations, tutorials and tests."""

from spahgc.datasets._cohort import CohortUnavailableError, cohorts
from spahgc.datasets._functions import (
    alex,
    cscc,
    her2st,
    hest_lymph_node,
    hest_pancreas1,
    hest_pancreas2,
    visium_bc,
)
from spahgc.datasets._load import fetch
from spahgc.datasets._simulated import simulated

__all__ = [
    "CohortUnavailableError",
    "alex",
    "cohorts",
    "cscc",
    "fetch",
    "her2st",
    "hest_lymph_node",
    "hest_pancreas1",
    "hest_pancreas2",
    "simulated",
    "visium_bc",
]
