"""Methods from outside: functions that a user hands to a cross-validation, how they are called and what they may return."""

from __future__ import annotations

import copy
import functools
import inspect
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.sparse import issparse

from spahgc._slides.measured import MeasuredSlide
from spahgc._validate import quoted
from spahgc.tl._cross_validation.unmeasured import UnmeasuredSlide

Function: TypeAlias = Callable[..., Any]
"""``function(target, refs, *, genes, seed)``: spots x genes."""

CALL = "(target, refs, *, genes, seed)"
UNREAD = "un-serialize"
"""In the message of loky where a process cannot read what it was sent."""
PLAIN = (types.FunctionType, types.BuiltinFunctionType, np.ufunc)
"""Callables without a state of their own that a copy could keep apart."""


def qualified_name(function: Function) -> str:
    """Module and name of a function, of the class of an object, or of what a ``functools.partial`` calls."""
    while isinstance(function, functools.partial):
        function = function.func
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"


def check_function(label: str, function: Function, n_jobs: int) -> None:
    """Refuse what cannot be called as a method is, copied for every fold, or sent to another process."""
    if inspect.isclass(function):
        raise TypeError(
            f'method "{label}" is the class {function.__name__}, which makes an object when it is called. Pass an object '
            f"of it that can be called as {CALL}."
        )
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some that are written in C tell nothing of themselves
        signature = None
    if signature is not None:
        try:
            signature.bind(None, None, genes=None, seed=None)
        except TypeError as error:
            raise TypeError(
                f'method "{label}" is called as {CALL}, and takes {signature}: {error}. Give it these parameters.'
            ) from error
    fresh(label, function)
    if n_jobs != 1:
        _check_sendable(label, function)


def _check_sendable(label: str, function: Function) -> None:
    from joblib.externals.loky.backend import reduction  # type: ignore[import-untyped]

    try:
        reduction.dumps(function)
    except Exception as error:
        raise ValueError(
            f'method "{label}" cannot be sent to another process ({type(error).__name__}: {error}). Pass n_jobs=1, or make '
            "what it holds inside the function: an open file, a lock or a connection stays in the process that made it."
        ) from error


def refuse_unread(labels: Iterable[str], error: Exception) -> None:
    """Say so where another process could not read the function of a method, which is how loky words it."""
    if UNREAD in str(error) and (functions := list(dict.fromkeys(labels))):
        said = str(error.__cause__ or error).strip(' "\n').rsplit("\n", 1)[-1]
        raise RuntimeError(
            f"another process could not read what it was sent ({said}), such as the functions of {quoted(functions)}: a "
            "module that it cannot import. Pass n_jobs=1, or install the module that the function is defined in."
        ) from error


def fresh(label: str, function: Function) -> Function:
    """The function for one fold: an object starts each fold as it was handed over, whatever it learned in another."""
    if isinstance(function, PLAIN):
        return function
    try:
        return copy.deepcopy(function)
    except Exception as error:
        raise ValueError(
            f'method "{label}" cannot be copied ({type(error).__name__}: {error}), and every fold gets a copy of its own, '
            "so that nothing learned in one reaches another. Pass a function that makes what it needs."
        ) from error


def predict_with(
    label: str,
    function: Function,
    group: str,
    targets: Mapping[str, UnmeasuredSlide],
    references: Mapping[str, tuple[UnmeasuredSlide, MeasuredSlide]],
    genes: Iterable[str],
    seed: int,
) -> dict[str, pd.DataFrame]:
    """What a function makes of every target of a fold, spots x genes, float32.

    Parameters
    ----------
    label, group
        How messages call the method and the group held out.
    function
        The function; see :func:`spahgc.tl.cross_validate`.
    targets
        Slides of the group.
    references
        Slides that it may learn from.
    genes
        The panel.
    seed
        Passed on.
    """
    panel, method = [str(gene) for gene in genes], fresh(label, function)
    predicted = {}
    for name, target in targets.items():
        # New objects at every call: what a method writes into them harms nobody.
        refs = {other: slide.with_expression(measured) for other, (slide, measured) in references.items()}
        given = target.to_anndata(panel)
        where = f'method "{label}", with group "{group}" held out, slide "{name}"'
        values = _called(method, where, given, refs, panel, seed)
        predicted[name] = pd.DataFrame(checked(values, list(target.obs.index), panel, where), columns=panel)
    return predicted


def _called(
    method: Function, where: str, target: AnnData, refs: dict[str, AnnData], genes: list[str], seed: int
) -> Any:
    try:
        return method(target, refs, genes=list(genes), seed=int(seed))
    except Exception as error:
        raise RuntimeError(f"{where}: {type(error).__name__}: {error}") from error


def checked(values: Any, spots: list[str], genes: list[str], where: str) -> np.ndarray:
    """What a method returned as spots x genes, float32.

    Parameters
    ----------
    values
        Array, sparse matrix, or DataFrame with the genes as columns in any order.
    spots, genes
        Names of rows and columns.
    where
        How messages call the method, the group and the slide.

    Raises
    ------
    TypeError
        If it is something else, or holds no real numbers.
    ValueError
        If it has another shape, other names, or numbers that are not finite.
    """
    if isinstance(values, pd.DataFrame):
        values = _by_name(values, spots, genes, where)
    elif issparse(values):
        values = values.toarray()
    if not isinstance(values, np.ndarray):
        raise TypeError(
            f"{where}: returned {type(values).__name__}, not a prediction. Return a numpy array, a DataFrame or a sparse "
            "matrix, spots x genes; of a tensor tensor.detach().cpu().numpy()."
        )
    if values.dtype.kind not in "iuf":
        raise TypeError(
            f"{where}: returned values of type {values.dtype}, not real numbers. Return float32 or float64."
        )
    wanted = (len(spots), len(genes))
    if values.shape != wanted:
        raise ValueError(
            f"{where}: returned shape {values.shape}, expected {wanted}: {wanted[0]} spots of the target x {wanted[1]} "
            "genes, in the order of target.obs_names and genes."
        )
    with np.errstate(over="ignore"):  # what becomes infinite is refused
        plain = np.ma.filled(values.astype(np.float64), np.nan) if np.ma.isMaskedArray(values) else values
        predicted = np.array(plain, dtype=np.float32)
    broken = ~np.isfinite(predicted)
    if broken.any():
        columns = [gene for gene, found in zip(genes, np.atleast_1d(broken.any(axis=0)), strict=True) if found]
        raise ValueError(
            f"{where}: returned {int(broken.sum())} values that are NaN, infinite or too large, in {len(columns)} genes "
            f"({quoted(columns)}). Return a number for every spot and gene."
        )
    return predicted


def _by_name(table: pd.DataFrame, spots: list[str], genes: list[str], where: str) -> np.ndarray:
    columns = [str(name) for name in table.columns]
    if len(set(columns)) < len(columns) or set(columns) != set(genes):
        missing = [gene for gene in genes if gene not in columns]
        others = [name for name in columns if name not in genes]
        raise ValueError(
            f"{where}: returned a DataFrame of {len(columns)} columns, expected each of the {len(genes)} genes once; missing "
            f"are {quoted(missing)}, too many {quoted(others)}. Its columns are the names in genes."
        )
    if [str(name) for name in table.index] != spots:
        raise ValueError(
            f"{where}: returned a DataFrame whose index does not match the target: it is {quoted(table.index, 3)}, the "
            f"target's spots are {quoted(spots, 3)}. Pass index=target.obs_names."
        )
    table = table.set_axis(columns, axis=1)[genes]
    kinds = sorted({str(kind) for kind in table.dtypes if getattr(kind, "kind", "O") not in "iuf"})
    if kinds:
        raise TypeError(
            f"{where}: returned columns of type {', '.join(kinds)}, not real numbers. Return float32 or float64."
        )
    return table.to_numpy(dtype=np.float64, na_value=np.nan)
