"""The methods that a cross-validation compares: as they are handed over, and with nothing left to choose."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from spahgc._parameters import KERNEL, METHODS, NETWORK, find_preset
from spahgc._settings import resolve_device
from spahgc._slides.measured import MeasuredSlide
from spahgc._validate import check_genes, find_embedding, quoted
from spahgc.pp._bank.references import check_embeddings
from spahgc.pp._genes import common_genes
from spahgc.tl._cross_validation.functions import check_function
from spahgc.tl._predict import predict

RESERVED = ("target", "refs", "model", "layer", "units", "key_added", "table_key", "copy")
"""Arguments of a prediction that are not a method's own."""


def find_methods(methods: Any, common: dict[str, Any], n_jobs: int = 1) -> dict[str, dict[str, Any]]:
    """What every method is, by label: keyword arguments of a prediction, or a function of the user's under ``"function"``.

    Parameters
    ----------
    methods
        As :func:`spahgc.tl.cross_validate` takes them.
    common
        Arguments of those that do not bring their own.
    n_jobs
        Folds that run at the same time: functions have to reach other processes unless it is 1.
    """
    if isinstance(methods, str):
        raise TypeError(f'methods= must be a sequence of names, found the string "{methods}". Pass ["{methods}"].')
    if callable(methods):
        raise TypeError('methods= is a function. Give it a name: pass {"mine": function}.')
    if not methods:
        raise ValueError("methods= is empty. Pass at least one name.")
    if not isinstance(methods, Mapping):
        nameless = [method for method in methods if not isinstance(method, str)]
        if nameless:
            raise TypeError(
                f"methods= is a list that holds {nameless[0]!r}, which has no name. Pass a dictionary, such as "
                '{"mine": function, "ridge": {"method": "ridge"}}.'
            )
        if len(set(methods)) < len(methods):
            raise ValueError(f"methods= names one more than once: {quoted(methods)}. Remove the repetition.")
        methods = {name: _named_method(name) for name in methods}
    specs = {}
    for label, own in methods.items():
        if callable(own) and not isinstance(own, Mapping):
            check_function(str(label), own, n_jobs)
            specs[str(label)] = common | {"function": own}
        else:
            specs[str(label)] = _arguments(str(label), own, common)
        find_preset(specs[str(label)]["preset"])
    return specs


def _arguments(label: str, own: Any, common: dict[str, Any]) -> dict[str, Any]:
    """Keyword arguments of the prediction; refuses what no prediction knows."""
    own = _named_method(own) if isinstance(own, str) else own
    if not isinstance(own, Mapping):
        raise TypeError(
            f'method "{label}" is {own!r}. Pass a name, keyword arguments of a prediction such as {{"method": "ridge"}}, '
            "or a function of (target, refs, *, genes, seed)."
        )
    allowed = [name for name in inspect.signature(predict).parameters if name not in RESERVED]
    unknown = [name for name in own if name not in allowed]
    if unknown:
        raise ValueError(f'method "{label}" has arguments {quoted(unknown)}. Known are {", ".join(allowed)}.')
    # A label that is the name of a method means it, unless something else is said.
    spec = common | {"method": label if label in METHODS else NETWORK} | dict(own)
    if spec["method"] not in METHODS:
        raise ValueError(f'method "{spec["method"]}" is not known. Choose from {", ".join(METHODS)}.')
    return spec


def _named_method(name: str) -> dict[str, str]:
    method, _, preset = name.partition(":")
    return {"method": method} | ({"preset": preset} if preset else {})


def resolved(spec: dict[str, Any], slides: Mapping[str, MeasuredSlide], device: str | None) -> dict[str, Any]:
    """The arguments with nothing left to choose, once all slides have what they ask for."""
    first = next(iter(slides.values()))
    key = find_embedding(first.adata, spec["embedding"], first.label)
    check_embeddings(slides, key)
    genes, shared = spec["genes"], common_genes(slides)
    if genes is not None and not isinstance(genes, str):  # a word such as "all" is for the prediction to understand
        genes = check_genes(genes, shared, "the genes that all slides share")
    device = spec.get("device", device)
    # Named here, so that a device that is not there is noticed now.
    device = resolve_device(device) if is_network(spec) or spec.get("method") == KERNEL else device
    return spec | {"embedding": key, "genes": genes, "device": device}


def is_network(spec: Mapping[str, Any]) -> bool:
    """Whether it is the network, with its graphs."""
    return spec.get("method") == NETWORK
