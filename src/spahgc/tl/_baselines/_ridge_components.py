"""Ridge regression onto components of the whole transcriptome, from which the panel is read."""

from __future__ import annotations

import numpy as np

from spahgc._components import Components
from spahgc._line import fit_line
from spahgc._spots import Spots
from spahgc.tl._baselines._tissue import tissue_features

N_TRANSCRIPTOME_COMPONENTS = 20
"""Components of the transcriptome that are predicted."""


def predict_ridge_components(references: Spots, target: Spots, seed: int) -> np.ndarray:
    """Ridge regression onto 20 components of the transcriptome, read out as target spots x panel.

    Genes share their strength, and the noise of single genes stays out.
    """
    known, wanted = tissue_features(references, target)
    components = Components.of(references, N_TRANSCRIPTOME_COMPONENTS)
    return components.decode(fit_line(known, components.scores, references.slide).predict(wanted))
