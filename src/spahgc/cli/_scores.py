"""Scores of a cross-validation for a terminal, for a program, and on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spahgc._files import write_text

if TYPE_CHECKING:
    import pandas as pd

    from spahgc.tl import CrossValidation

SUMMARY_COLUMNS = {"pearson": "mean PCC", "low": "low", "high": "high", "n_genes": "genes", "seconds": "seconds"}
"""Columns of a summary that a terminal is shown, and how it calls them."""


def check_methods(methods: Sequence[str], preset: str) -> None:
    """Refuse names that no prediction knows, before slides are embedded."""
    from spahgc._parameters import find_preset
    from spahgc.tl._baselines import BASELINES
    from spahgc.tl._predict import NETWORK

    find_preset(preset)
    known = [NETWORK, *BASELINES]
    for name in methods:
        method, _, own = name.partition(":")
        if method not in known:
            raise ValueError(f"--method {name} is not known. Choose from {', '.join(known)}.")
        if own:
            find_preset(own)


def table_text(table: pd.DataFrame) -> str:
    """One row a method."""
    return table.to_string(
        na_rep="", formatters={"genes": _whole, "seconds": _whole}, float_format=_figure, index_names=False
    )


def of_each_slide(validation: CrossValidation) -> list[str]:
    """A heading and one row a slide."""
    return ["mean PCC of each slide", validation.per_slide.T.to_string(float_format=_figure, index_names=False)]


def scores_for_json(validation: CrossValidation) -> dict[str, Any]:
    """Scores by method, and by method and slide; NaN becomes null."""
    return {
        "methods": json.loads(validation.summary.to_json(orient="index", double_precision=6)),
        "per_slide": json.loads(validation.per_slide.to_json(orient="index", double_precision=6)),
    }


def write_scores(folder: Path, validation: CrossValidation, outcome: Mapping[str, Any]) -> None:
    """Write ``scores.csv``, ``per_slide.csv`` and ``result.json``."""
    write_text(folder / "scores.csv", validation.scores.to_csv(index=False))
    write_text(folder / "per_slide.csv", validation.per_slide.to_csv())
    write_text(folder / "result.json", json.dumps(outcome, indent=1))


def _figure(value: float) -> str:
    return f"{value:.4f}"


def _whole(value: float) -> str:
    return "" if value != value else f"{value:.0f}"
