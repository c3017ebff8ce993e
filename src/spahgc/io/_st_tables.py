"""The tables of a legacy ST slide: counts, and the places of the spots."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from spahgc._reading import reading
from spahgc.io._files import is_packed, listed, refuse_repeated
from spahgc.io._st_names import MEASURED, SPOT_NAME, places_of, whole_names

PLACE = ["x", "y"]
PIXELS = ["pixel_x", "pixel_y"]
SPOT_COLUMNS = (*PLACE, *PIXELS)
SELECTED = "selected"
TABLE_REMEDY = "Pass a tab- or comma-separated table (.tsv, .csv, or either with .gz) that was copied to its end."


@dataclass(frozen=True)
class Counts:
    """Counts of a slide, CSR, float32, spots x genes; names of both; and the file, as messages call it."""

    matrix: csr_matrix
    spots: pd.Index
    genes: pd.Index
    label: str

    def without_genes(self, beginning: str) -> Counts:
        """The counts without the features whose names begin like that."""
        kept = ~self.genes.str.startswith(beginning)
        return Counts(self.matrix[:, np.flatnonzero(kept)], self.spots, self.genes[kept], self.label)


@dataclass(frozen=True)
class Spots:
    """Places of the spots of a slide.

    Parameters
    ----------
    selected
        The spots under tissue, named by their whole places on the array: x, y (int), pixel_x, pixel_y (float), and new_x and
        new_y where the table has them.
    others
        The other spots of the array, likewise; their pixels may be NaN.
    label
        The file, as messages call it.
    """

    selected: pd.DataFrame
    others: pd.DataFrame
    label: str


def read_spots(path: Path) -> Spots:
    """Read the table of spots.

    Parameters
    ----------
    path
        Tab- or comma-separated, with the columns x, y (array), pixel_x, pixel_y and, if it likes, new_x, new_y and selected.
        Without x and y these are new_x and new_y, rounded.

    Raises
    ------
    ValueError
        If columns are missing, a value is no number, a pixel coordinate is not finite, or a spot stands there twice.
    """
    header = _header(path)
    missing = [column for column in SPOT_COLUMNS if column not in header]
    if missing == PLACE and set(MEASURED) <= set(header):
        missing = []
    if missing:
        raise ValueError(
            f'the spot table "{path}" has no column {listed(missing)}; it has {listed(header)}. '
            f"Pass a table with the columns {', '.join(SPOT_COLUMNS)} (and selected)."
        )
    return spots_of(_read_table(path, header=0), str(path))


def spots_of(table: pd.DataFrame, label: str) -> Spots:
    """Check a table of spots, and part it into those under tissue and the others.

    Raises
    ------
    ValueError
        As :func:`read_spots`, for all but missing columns.
    """
    wanted = [*SPOT_COLUMNS, *MEASURED, SELECTED]
    numbers = table[[column for column in wanted if column in table]].apply(pd.to_numeric, errors="coerce")
    if not set(PLACE) <= set(numbers):
        numbers[PLACE] = numbers[MEASURED].round()
    chosen = numbers[SELECTED] == 1 if SELECTED in numbers else pd.Series(True, index=numbers.index)
    if not chosen.any():
        raise ValueError(
            f'the spot table "{label}" has no spot left: of {len(numbers)} rows none has selected = 1. '
            "Pass a table whose column selected is 1 for the spots under tissue, or that has no such column."
        )
    spots = numbers.drop(columns=SELECTED, errors="ignore").astype(np.float64)
    _check_places(spots[chosen], table, label)
    selected, others = spots[chosen].copy(), spots[~chosen].copy()
    selected.index, others.index = (whole_names(part[PLACE].to_numpy()) for part in (selected, others))
    selected[PLACE] = selected[PLACE].astype(np.int64)
    refuse_repeated(selected.index, f'spots in the spot table "{label}"', "Keep one row for each spot.")
    return Spots(selected, others, label)


def _check_places(spots: pd.DataFrame, table: pd.DataFrame, label: str) -> None:
    """Refuse spots under tissue whose coordinates are not finite, or whose place on the array is not whole."""
    broken = spots.index[~np.isfinite(spots[list(SPOT_COLUMNS)].to_numpy()).all(axis=1)]
    if len(broken):
        row = table.loc[broken[0], [column for column in SPOT_COLUMNS if column in table]].to_dict()
        raise ValueError(
            f'{len(broken)} of {len(spots)} spots in "{label}" have coordinates that are not finite numbers; the first '
            f"is {row}. Correct these rows, or set their column selected to 0."
        )
    if (spots[PLACE] != spots[PLACE].round()).to_numpy().any():
        raise ValueError(
            f'the columns x and y of "{label}" are not whole numbers. They must be the position on the array; adjusted '
            "positions belong into the columns new_x and new_y."
        )


def read_counts(path: Path) -> Counts:
    """Read the table of counts.

    Parameters
    ----------
    path
        Tab- or comma-separated, spots (named ``XxY``, whole or real-valued) in rows, genes in columns.

    Raises
    ------
    ValueError
        If a gene or a spot stands there twice, the table is the wrong way round, or a value is no count.
    """
    header = _header(path)
    first = _read_table(path, header=None, skiprows=1, nrows=1)
    # R writes no name above the column of the row names.
    genes = pd.Index(header if len(header) == first.shape[1] - 1 else header[1:])
    _check_orientation(path, genes, str(first.iloc[0, 0]))
    refuse_repeated(
        genes,
        f'genes in the counts "{path}"',
        "Sum or rename them before, e.g. counts.T.groupby(level=0).sum().T with pandas.",
    )
    table = _read_table(path, header=None, skiprows=1, index_col=0)
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
    return Counts(csr_matrix(values, dtype=np.float32), spots, genes, str(path))


def _check_orientation(path: Path, genes: pd.Index, first_row: str) -> None:
    """Refuse genes x spots."""
    columns_are_spots = len(genes) > 0 and bool(genes.str.fullmatch(SPOT_NAME).all())
    if columns_are_spots and not np.isfinite(places_of(pd.Index([first_row]))).all():
        raise ValueError(
            f'the counts "{path}" have spots ({listed(genes)}) in columns and genes ("{first_row}", ...) in rows. '
            "Write the transposed table: spots in rows, genes in columns."
        )


def _open_text(path: Path) -> TextIO:
    """Open a table, packed or not."""
    if is_packed(path):
        return gzip.open(path, "rt", encoding="utf-8-sig")
    return path.open(encoding="utf-8-sig")


def _header(path: Path) -> list[str]:
    """Split the first line; pandas would rename repeated columns."""
    with reading(path, "the table", TABLE_REMEDY), _open_text(path) as file:
        line = file.readline().rstrip("\r\n")
    return [cell.strip().strip('"') for cell in line.split(_separator(line))]


def _separator(line: str) -> str:
    return "\t" if line.count("\t") >= line.count(",") else ","


def _read_table(
    path: Path, *, header: int | None, skiprows: int = 0, nrows: int | None = None, index_col: int | None = None
) -> pd.DataFrame:
    """Read a table whose separator is that of its first line."""
    with reading(path, "the table", TABLE_REMEDY):
        with _open_text(path) as file:
            separator = _separator(file.readline())
        return pd.read_csv(
            path,
            sep=separator,
            header=header,
            skiprows=skiprows,
            nrows=nrows,
            index_col=index_col,
            encoding="utf-8-sig",
            compression="gzip" if is_packed(path) else None,
        )
