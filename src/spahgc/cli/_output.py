"""What a command prints: a result as text or as JSON, and notes beside it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    import pandas as pd

EXIT_OK, EXIT_FINDINGS, EXIT_ERROR, EXIT_INTERRUPTED = 0, 1, 2, 130
EXIT_BY_SIGNAL = 128
"""And the number of the signal, as shells count."""
EXIT_TERMINATED = EXIT_BY_SIGNAL + 15
"""By the SIGTERM of a scheduler, a container or ``kill``."""
EXIT_CLOSED_PIPE = 141
"""As of other programs whose reader stops reading: 128 and the number of SIGPIPE."""


@dataclass(frozen=True)
class Printed:
    """What stdout gets, and the exit code."""

    text: str
    exit_code: int = EXIT_OK


def result(text: str, values: object, as_json: bool, *, exit_code: int = EXIT_OK) -> Printed:
    """The result as text, or its values as JSON.

    Parameters
    ----------
    text
        For a reader.
    values
        For a program: numbers, texts, paths, and lists and mappings of them.
    as_json
        Which of the two is wanted.
    exit_code
        Exit code of the command.
    """
    return Printed(json.dumps(plain(values), indent=1, allow_nan=False) if as_json else text, exit_code)


def plain(value: object) -> object:
    """The same for JSON, which knows neither NaN nor numpy nor paths; numbers that are none become null."""
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # numpy
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value


def records(table: pd.DataFrame) -> list[dict[str, object]]:
    """Rows of a table, its index among them, for JSON."""
    named = table.reset_index() if table.index.name is not None else table
    return json.loads(named.to_json(orient="records", double_precision=6))


def columns(table: pd.DataFrame, names: Mapping[str, str]) -> str:
    """Columns of a table under other names: texts begin below each other, numbers end so."""
    cells = []
    for column, name in names.items():
        values = table[column]
        texts = ["unknown" if missing else _word(value) for value, missing in zip(values, values.isna(), strict=True)]
        width = max(map(len, [name, *texts]))
        align = "<" if values.dtype == object or str(values.dtype) in ("bool", "str", "string") else ">"
        cells.append([f"{text:{align}{width}}" for text in [name, *texts]])
    return "\n".join("  ".join(row).rstrip() for row in zip(*cells, strict=True))


def _word(value: object) -> str:
    """True and False are words of programmers."""
    return {"True": "yes", "False": "no"}.get(str(value), str(value))


def note(text: str) -> None:
    """A line on stderr, unless it is to be quiet."""
    from spahgc._settings import shows_progress

    if shows_progress():
        typer.echo(text, err=True)
