"""Scores of a cross-validation for a terminal, for a program, and on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from spahgc._files import write_text
from spahgc.cli._choices import method_names

if TYPE_CHECKING:
    import pandas as pd

    from spahgc.tl import CrossValidation

FOLDS = "folds"
"""Folder of the finished folds within the output."""
SUMMARY_COLUMNS = {"pearson": "mean PCC", "low": "low", "high": "high", "n_genes": "genes", "seconds": "seconds"}
"""Columns of a summary that a terminal is shown, and how it calls them."""


def check_methods(methods: Sequence[str], preset: str) -> None:
    """Refuse names that no prediction knows, before slides are embedded."""
    from spahgc._parameters import find_preset

    find_preset(preset)
    known = list(method_names())
    for name in methods:
        method, _, method_preset = name.partition(":")
        if method not in known:
            raise ValueError(f"--method {name} is not known. Choose from {', '.join(known)}.")
        if method_preset:
            find_preset(method_preset)


def summary_table(validation: CrossValidation) -> pd.DataFrame:
    """One row a method, with the columns that a terminal is shown."""
    return validation.summary[list(SUMMARY_COLUMNS)].rename(columns=SUMMARY_COLUMNS).rename_axis("method")


def score_lines(table: pd.DataFrame, validation: CrossValidation) -> list[str]:
    """A table with one row a method, then a heading and one row a slide."""
    figure = "{:.4f}".format
    formats = {"genes": _whole, "seconds": _whole}
    methods = table.to_string(na_rep="", formatters=formats, float_format=figure, index_names=False)
    slides = validation.per_slide.T.to_string(float_format=figure, index_names=False)
    return [methods, "", "mean PCC of each slide", slides]


def scores_for_json(validation: CrossValidation) -> dict[str, object]:
    """Scores by method, and by method and slide; NaN becomes null."""
    return {
        "methods": json.loads(validation.summary.to_json(orient="index", double_precision=6)),
        "per_slide": json.loads(validation.per_slide.to_json(orient="index", double_precision=6)),
    }


def write_scores(folder: Path, validation: CrossValidation, outcome: Mapping[str, object]) -> None:
    """Write ``scores.csv``, ``per_slide.csv`` and ``result.json``."""
    write_text(folder / "scores.csv", validation.scores.to_csv(index=False))
    write_text(folder / "per_slide.csv", validation.per_slide.to_csv())
    write_text(folder / "result.json", json.dumps(outcome, indent=1))


def folds_name(group_by: str, *inputs: object) -> str:
    """Folder of the finished folds: another one for other inputs, which go into its name."""
    from spahgc._files import digest

    return f"{group_by}-{digest(json.dumps(inputs).encode())}"


def _whole(value: float) -> str:
    return "" if value != value else f"{value:.0f}"
