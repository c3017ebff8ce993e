"""Ridge regression on what a spot and its surroundings look like on their slide."""

from __future__ import annotations

import numpy as np

from spahgc._line import fit_line
from spahgc._spots import Spots
from spahgc.tl._baselines._tissue import tissue_features


def predict_ridge_neighbours(references: Spots, target: Spots, seed: int) -> np.ndarray:
    """Ridge regression on features standardised by slide and those of neighbours, target spots x panel."""
    known, wanted = tissue_features(references, target)
    return fit_line(known, references.y, references.slide).predict(wanted)
