"""Tools: fit, predict, evaluate, and what comes after a prediction.

Thin functions over :mod:`spahgc.model` that write into the object; ``_prediction.py`` is the one place through which a
prediction enters it. ``_baselines`` holds plain methods, ``_cross_validation`` folds and their statistics. May import
everything but ``pl`` and ``cli``.
"""

from spahgc.tl._attribution import attribution
from spahgc.tl._cell_types import cell_types
from spahgc.tl._cross_validation.cross_validate import CrossValidation, cross_validate
from spahgc.tl._domains import domains
from spahgc.tl._enrich import enrich
from spahgc.tl._evaluate import evaluate
from spahgc.tl._fit import fit
from spahgc.tl._predict import predict
from spahgc.tl._predict_many import predict_many
from spahgc.tl._regions import regions
from spahgc.tl._transfer import transfer
from spahgc.tl._trusted import trusted_genes

__all__ = [
    "CrossValidation",
    "attribution",
    "cell_types",
    "cross_validate",
    "domains",
    "enrich",
    "evaluate",
    "fit",
    "predict",
    "predict_many",
    "regions",
    "transfer",
    "trusted_genes",
]
