"""Tools: fit, predict, evaluate."""

from spahgc.tl._evaluate import evaluate
from spahgc.tl._fit import fit
from spahgc.tl._predict import predict

__all__ = ["evaluate", "fit", "predict"]
