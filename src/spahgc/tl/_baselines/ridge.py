"""Ridge regression: on the embedding, on features with those of neighbours, and onto components of the transcriptome."""

from __future__ import annotations

import numpy as np

from spahgc._linear.low_rank import GeneComponents
from spahgc._linear.ridge import fit_ridge
from spahgc._spots.rows import Spots, neighbour_mean, reduce, standardize

N_COMPONENTS = 128
"""Principal components of the embedding, or of the spots' own features and of those of their neighbours."""


def tissue_features(references: Spots, target: Spots) -> tuple[np.ndarray, np.ndarray]:
    """Features standardised by slide and their means over neighbours, each in 128 principal components.

    Returns
    -------
    Reference spots x features, and target spots x features, float64.
    """
    known = standardize(references.z, references.slide)
    wanted = standardize(target.z, target.slide)
    own = reduce(known, wanted, N_COMPONENTS)
    around = reduce(
        neighbour_mean(known, references.xy, references.slide, steps=references.steps),
        neighbour_mean(wanted, target.xy, target.slide, steps=target.steps),
        N_COMPONENTS,
    )
    return np.hstack([own[0], around[0]]), np.hstack([own[1], around[1]])


def predict_ridge(references: Spots, target: Spots, seed: int) -> np.ndarray:
    """Ridge regression on 128 principal components of the embedding, target spots x panel; the seed is not used."""
    known, wanted = reduce(references.z, target.z, N_COMPONENTS)
    return fit_ridge(known, references.y, references.slide).predict(wanted)


def predict_ridge_neighbours(references: Spots, target: Spots, seed: int) -> np.ndarray:
    """Ridge regression on features standardised by slide and those of neighbours, target spots x panel."""
    known, wanted = tissue_features(references, target)
    return fit_ridge(known, references.y, references.slide).predict(wanted)


N_TRANSCRIPTOME_COMPONENTS = 20
"""Components of the transcriptome that are predicted."""


def predict_ridge_components(references: Spots, target: Spots, seed: int) -> np.ndarray:
    """Ridge regression onto 20 components of the transcriptome, read out as target spots x panel.

    Genes share their strength, and the noise of single genes stays out.
    """
    known, wanted = tissue_features(references, target)
    components = GeneComponents.fit(references, N_TRANSCRIPTOME_COMPONENTS)
    return components.decode(fit_ridge(known, components.scores, references.slide).predict(wanted))
