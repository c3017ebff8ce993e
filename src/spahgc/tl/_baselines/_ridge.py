"""Ridge regression on the embedding as it is."""

from __future__ import annotations

import numpy as np

from spahgc._features import reduce
from spahgc._line import fit_line
from spahgc._spots import Spots

N_COMPONENTS = 128
"""Principal components of the embedding on which the regression stands."""


def predict_ridge(references: Spots, target: Spots, seed: int) -> np.ndarray:
    """Ridge regression on 128 principal components of the embedding, target spots x panel; the seed is not used."""
    known, wanted = reduce(references.z, target.z, N_COMPONENTS)
    return fit_line(known, references.y, references.slide).predict(wanted)
