"""The two tables of the legacy ST layout: counts and spots."""

from __future__ import annotations

import gzip
import os
import zlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

SPOT_COLUMNS = ("x", "y", "pixel_x", "pixel_y")
SELECTED = "selected"
SPOT_NAME = r"\d+x\d+"
"""Names of spots: column x row of the array."""
SHOWN = 5
"""Number of names that an error lists."""
READING_ERRORS = (OSError, EOFError, zlib.error, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError)


def existing_file(path: str | os.PathLike[str], label: str) -> Path:
    """Return the path of a file that is there.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    """
    file = Path(path)
    if not file.is_file():
        found = "a folder" if file.is_dir() else "nothing"
        raise FileNotFoundError(f'{label}: "{file}" is not a file ({found} is there). Check the path.')
    return file


def read_spots(path: Path) -> tuple[pd.DataFrame, int]:
    """Read the table of spots.

    Parameters
    ----------
    path
        Tab- or comma-separated, with the columns x, y (array), pixel_x, pixel_y and, if it likes, selected.

    Returns
    -------
    The selected spots, indexed by their names, with x, y (int) and pixel_x, pixel_y (float), and how many were not
    selected.

    Raises
    ------
    ValueError
        If columns are missing, a value is no number, a pixel coordinate is not finite, or a spot stands there twice.
    """
    header = _header(path)
    missing = [column for column in SPOT_COLUMNS if column not in header]
    if missing:
        raise ValueError(
            f'the spot table "{path}" has no column {_listed(missing)}; it has {_listed(header)}. '
            f"Pass a table with the columns {', '.join(SPOT_COLUMNS)} (and selected)."
        )
    table = _read(path, header=0)
    columns = [*SPOT_COLUMNS, SELECTED] if SELECTED in table else list(SPOT_COLUMNS)
    numbers = table[columns].apply(pd.to_numeric, errors="coerce")
    kept = numbers[numbers[SELECTED] == 1] if SELECTED in numbers else numbers
    if kept.empty:
        raise ValueError(
            f'the spot table "{path}" has no spot left: of {len(numbers)} rows none has selected = 1. '
            "Pass a table whose column selected is 1 for the spots under tissue, or that has no such column."
        )
    spots = kept[list(SPOT_COLUMNS)].astype(np.float64)
    broken = spots.index[~np.isfinite(spots.to_numpy()).all(axis=1)]
    if len(broken):
        row = table.loc[broken[0], list(SPOT_COLUMNS)].to_dict()
        raise ValueError(
            f'{len(broken)} of {len(spots)} spots in "{path}" have coordinates that are not finite numbers; the first '
            f"is {row}. Correct these rows, or set their column selected to 0."
        )
    array = spots[["x", "y"]]
    if (array != array.round()).to_numpy().any():
        raise ValueError(
            f'the columns x and y of "{path}" are not whole numbers. They must be the position on the array; adjusted '
            "positions belong into the columns new_x and new_y."
        )
    spots[["x", "y"]] = array.astype(np.int64)
    spots.index = pd.Index([f"{x}x{y}" for x, y in array.astype(np.int64).to_numpy()])
    refuse_repeated(spots.index, f'spots in the spot table "{path}"', "Keep one row for each spot.")
    return spots, len(numbers) - len(kept)


def read_counts(path: Path) -> tuple[csr_matrix, pd.Index, pd.Index]:
    """Read the table of counts.

    Parameters
    ----------
    path
        Tab- or comma-separated, spots (named ``XxY``) in rows, genes in columns.

    Returns
    -------
    Counts (CSR, float32, spots x genes), names of the spots, names of the genes.

    Raises
    ------
    ValueError
        If a gene or a spot stands there twice, the table is the wrong way round, or a value is no count.
    """
    header = _header(path)
    first = _read(path, header=None, skiprows=1, nrows=1)
    # R writes no name above the column of the row names.
    genes = pd.Index(header if len(header) == first.shape[1] - 1 else header[1:])
    _check_orientation(path, genes, str(first.iloc[0, 0]))
    refuse_repeated(
        genes,
        f'genes in the counts "{path}"',
        "Sum or rename them before, e.g. counts.T.groupby(level=0).sum().T with pandas.",
    )
    table = _read(path, header=None, skiprows=1, index_col=0)
    if table.shape[1] != len(genes):
        raise ValueError(
            f'the counts "{path}" name {len(genes)} genes but have {table.shape[1]} columns. Write the table again.'
        )
    spots = pd.Index(table.index.astype(str))
    refuse_repeated(spots, f'spots in the counts "{path}"', "Keep one row for each spot.")
    text = [gene for gene, kind in zip(genes, table.dtypes, strict=True) if not pd.api.types.is_numeric_dtype(kind)]
    if text:
        raise ValueError(
            f'{len(text)} columns of the counts "{path}" hold text, the first of them "{text[0]}". '
            "Pass a table of numbers, spots in rows and genes in columns."
        )
    values = table.to_numpy()
    wrong = ~np.isfinite(values) | (values < 0)
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise ValueError(
            f'{wrong.sum()} values in the counts "{path}" are missing, infinite or negative; the first is '
            f"{values[row, column]} at spot {spots[row]}, gene {genes[column]}. Pass raw counts."
        )
    return csr_matrix(values, dtype=np.float32), spots, genes


def join(
    counts: csr_matrix, names: pd.Index, spots: pd.DataFrame, paths: tuple[Path, Path]
) -> tuple[csr_matrix, pd.DataFrame, dict[str, int]]:
    """Keep the spots that stand in both tables, in the order of the counts.

    Returns
    -------
    Counts, spots, and how many of either table were left out.
    """
    where = spots.index.get_indexer(names)
    found: NDArray[np.intp] = np.flatnonzero(where >= 0)
    if not len(found):
        raise ValueError(
            f'no spot stands both in the counts "{paths[0]}" (spots {_listed(names)}) and in the spot table '
            f'"{paths[1]}" (spots {_listed(spots.index)}). Do both belong to the same slide?'
        )
    left_out = {
        "n_counts_without_spot": int(len(names) - len(found)),
        "n_spots_without_counts": int(len(spots) - len(found)),
    }
    return counts[found], spots.iloc[where[found]], left_out


def refuse_repeated(names: pd.Index, label: str, remedy: str) -> None:
    """Refuse names that occur more than once.

    Raises
    ------
    ValueError
        If there are such names.
    """
    if not names.is_unique:
        repeated = [name for name, count in Counter(names).items() if count > 1]
        raise ValueError(f"{len(repeated)} {label} occur more than once: {_listed(repeated)}. {remedy}")


def _check_orientation(path: Path, genes: pd.Index, first_row: str) -> None:
    """Refuse genes x spots."""
    columns_are_spots = len(genes) > 0 and bool(genes.str.fullmatch(SPOT_NAME).all())
    if columns_are_spots and not pd.Series([first_row]).str.fullmatch(SPOT_NAME).iloc[0]:
        raise ValueError(
            f'the counts "{path}" have spots ({_listed(genes)}) in columns and genes ("{first_row}", ...) in rows. '
            "Write the transposed table: spots in rows, genes in columns."
        )


def _header(path: Path) -> list[str]:
    """Split the first line; pandas would rename repeated columns."""
    try:
        open_references = (
            gzip.open(path, "rt", encoding="utf-8-sig") if path.suffix == ".gz" else path.open(encoding="utf-8-sig")
        )
        with open_references as file:
            line = file.readline().rstrip("\r\n")
    except READING_ERRORS as error:
        raise _unreadable(path, error) from error
    return [cell.strip().strip('"') for cell in line.split(_separator(line))]


def _separator(line: str) -> str:
    return "\t" if line.count("\t") >= line.count(",") else ","


def _read(
    path: Path, *, header: int | None, skiprows: int = 0, nrows: int | None = None, index_col: int | None = None
) -> pd.DataFrame:
    """Read a table whose separator is that of its first line."""
    try:
        open_references = (
            gzip.open(path, "rt", encoding="utf-8-sig") if path.suffix == ".gz" else path.open(encoding="utf-8-sig")
        )
        with open_references as file:
            separator = _separator(file.readline())
        return pd.read_csv(
            path,
            sep=separator,
            header=header,
            skiprows=skiprows,
            nrows=nrows,
            index_col=index_col,
            encoding="utf-8-sig",
        )
    except READING_ERRORS as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> ValueError:
    return ValueError(
        f'the table "{path}" ({path.stat().st_size:,} bytes) cannot be read: {error}. '
        "Pass a tab- or comma-separated table (.tsv, .csv, or either with .gz) that was copied to its end."
    )


def _listed(names: Iterable[object]) -> str:
    """List the first few names."""
    items = [str(name) for name in names]
    return ", ".join(items[:SHOWN]) + (f", ... ({len(items)} in all)" if len(items) > SHOWN else "")
