"""Plain methods to hold the network against: each takes spots of references and of a target, and returns the panel.

May import what ``tl`` may; those that train a network take it from ``nn``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from spahgc._parameters import BASELINE_NAMES
from spahgc._spots.rows import Spots
from spahgc.tl._baselines.bleep import predict_bleep
from spahgc.tl._baselines.deepspot import predict_deepspot
from spahgc.tl._baselines.hest import predict_hest, predict_hest_tuned
from spahgc.tl._baselines.kernel import predict_kernel
from spahgc.tl._baselines.mean import predict_mean
from spahgc.tl._baselines.mlp import predict_mlp
from spahgc.tl._baselines.nearest import predict_nearest
from spahgc.tl._baselines.ridge import predict_ridge, predict_ridge_components, predict_ridge_neighbours

Baseline = Callable[[Spots, Spots, int], np.ndarray]

_FUNCTIONS: tuple[Baseline, ...] = (
    predict_mean,
    predict_nearest,
    predict_ridge,
    predict_ridge_neighbours,
    predict_ridge_components,
    predict_kernel,
    predict_mlp,
    predict_bleep,
    predict_deepspot,
    predict_hest,
    predict_hest_tuned,
)

BASELINES = dict(zip(BASELINE_NAMES, _FUNCTIONS, strict=True))
"""Each takes the references, the target, of which only image features and positions are known, and a seed; it returns
target spots x panel, in the units of the references."""
