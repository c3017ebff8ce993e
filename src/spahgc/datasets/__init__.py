"""The cohorts of the paper, small open ones, and a simulated one for demonstrations, tutorials and tests.

``_cohort.py`` holds the record of each cohort, a file for each reads it from a copy, ``_download.py`` fetches what can be
fetched. May import ``io``, ``encoders`` (for errors of the hub), ``image`` and the files at the root.
"""

from spahgc.datasets._cohort import CohortUnavailableError, cohorts
from spahgc.datasets._functions import (
    alex,
    cscc,
    her2st,
    hest_lymph_node,
    hest_pancreas1,
    hest_pancreas2,
    olfactory_bulb,
    spinal_cord,
    visium_bc,
)
from spahgc.datasets._load import fetch
from spahgc.datasets._simulated import simulated, simulated_truth

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
    "olfactory_bulb",
    "simulated",
    "simulated_truth",
    "spinal_cord",
    "visium_bc",
]
