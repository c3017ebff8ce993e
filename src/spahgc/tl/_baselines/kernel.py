"""Kernel ridge regression: what a single, very wide layer of a network would make of a spot and its surroundings."""

from __future__ import annotations

import numpy as np

from spahgc._linear.kernel import fit_kernel_ridge
from spahgc._linear.low_rank import GeneComponents
from spahgc._spots.rows import Spots, slide_or_half
from spahgc.tl._baselines.ridge import tissue_features

N_COMPONENTS = 30
"""Components of the transcriptome that are predicted, each with a penalty of its own."""


def predict_kernel(references: Spots, target: Spots, seed: int, *, device: str = "cpu") -> np.ndarray:
    """The arc-cosine kernel on the features of ``ridge_neighbours``, onto components; target spots x panel.

    Exact up to 3,000 reference spots, beyond that through 1,500 landmarks among them, on the device if it is CUDA and
    on the CPU otherwise. The seed is not used.
    """
    known, wanted = tissue_features(references, target)
    components = GeneComponents.fit(references, N_COMPONENTS, weigh=True)
    expert = fit_kernel_ridge(known, components.scores, slide_or_half(references), device=device)
    return components.decode(expert.predict(wanted, device=device))
