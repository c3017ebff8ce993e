"""Where Space Ranger puts the spots: tables of all versions, and their spots under tissue joined with the counts."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData

from spahgc._keys import Obs
from spahgc._validate import quoted
from spahgc.io._st_tables import READING_ERRORS, refuse_repeated

BARCODE, IN_TISSUE = "barcode", "in_tissue"
PIXEL_ROW, PIXEL_COL = "pxl_row_in_fullres", "pxl_col_in_fullres"
COLUMNS = (BARCODE, IN_TISSUE, Obs.array_row, Obs.array_col, PIXEL_ROW, PIXEL_COL)
"""The columns, in the order in which files without a header have them."""
NAMES = ("tissue_positions.csv", "tissue_positions.parquet", "tissue_positions_list.csv")
"""Versions 2 to 4, Visium HD, version 1. A copy may carry a prefix."""


def find_positions(spatial: Path) -> Path:
    """Find the table of spots in the folder ``spatial``.

    Raises
    ------
    FileNotFoundError
        If there is none.
    """
    for name in NAMES:
        found = [spatial / name] if (spatial / name).is_file() else sorted(spatial.glob(f"*_{name}"))
        if len(found) > 1:
            raise ValueError(
                f'"{spatial}" holds {len(found)} tables of positions: {quoted(file.name for file in found)}. '
                "Keep the one that belongs to the counts."
            )
        if found:
            return found[0]
    held = quoted(sorted(item.name for item in spatial.iterdir()))
    raise FileNotFoundError(
        f'no positions in "{spatial}": none of {quoted(NAMES)} is there, only {held}. Copy the table from the run.'
    )


def read_positions(path: Path) -> pd.DataFrame:
    """Read the table of spots.

    Returns
    -------
    All spots of the array, indexed by barcode: `in_tissue`, `array_row`, `array_col` (as they stand there) and
    `pxl_row_in_fullres`, `pxl_col_in_fullres` (float).

    Raises
    ------
    ImportError
        If the table is a parquet file and pyarrow is missing.
    ValueError
        If it is damaged, lacks a column or names a barcode twice.
    """
    table = _read_parquet(path) if path.suffix == ".parquet" else _read_csv(path)
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing:
        raise ValueError(
            f'the positions "{path}" have no column {quoted(missing)}; found {quoted(table.columns, len(COLUMNS))}. '
            f"The columns must be {', '.join(COLUMNS)}, or, without a header, stand in this order."
        )
    if table.empty:
        raise ValueError(f'the positions "{path}" name no spot. Copy the table again.')
    barcodes = pd.Index(table[BARCODE].astype(str), name=None)
    refuse_repeated(barcodes, f'barcodes in the positions "{path}"', "Keep one row for each spot.")
    numbers = table[list(COLUMNS[1:])].apply(pd.to_numeric, errors="coerce")
    return numbers.astype({PIXEL_ROW: np.float64, PIXEL_COL: np.float64}).set_index(barcodes)


def join_positions(
    counts: AnnData, positions: pd.DataFrame, paths: tuple[Path, Path]
) -> tuple[AnnData, pd.DataFrame, dict[str, int]]:
    """Keep the spots of the counts that lie under tissue, in the order of the counts.

    Parameters
    ----------
    counts
        Spots x genes.
    positions
        All spots of the array, indexed by barcode.
    paths
        The files that the two come from.

    Returns
    -------
    The counts, their positions, and how many spots were left out.

    Raises
    ------
    ValueError
        If a barcode of the counts has no position, or one that is no finite number, or none is under tissue.
    """
    where = positions.index.get_indexer(counts.obs_names)
    unknown = counts.obs_names[where < 0]
    if len(unknown):
        raise ValueError(
            f'{len(unknown)} of {counts.n_obs} barcodes of the counts "{paths[0]}" ({quoted(unknown, 3)}) have no '
            f'position in "{paths[1]}" ({quoted(positions.index[:3])}, {len(positions)} in all). '
            "Do both belong to the same run?"
        )
    table = positions.iloc[where]
    # A matrix that was not filtered holds the whole array.
    broken = ~np.isfinite(table.to_numpy(np.float64)).all(axis=1) & (table[IN_TISSUE] != 0).to_numpy()
    if broken.any():
        first = table[broken].iloc[0]
        raise ValueError(
            f'{broken.sum()} of {len(table)} spots of the counts have positions in "{paths[1]}" that are not finite '
            f'numbers; the first is "{table.index[broken][0]}": {first.to_dict()}. Correct these rows, or set their '
            "column in_tissue to 0."
        )
    under = (table[IN_TISSUE] == 1).to_numpy()
    if not under.any():
        raise ValueError(
            f'none of the {len(table)} spots of "{paths[0]}" has in_tissue = 1 in "{paths[1]}". '
            "Do both belong to the same run?"
        )
    table = table[under]
    left_out = {
        "n_spots_not_in_tissue": int((~under).sum()),
        "n_spots_without_counts": int((positions[IN_TISSUE] == 1).sum() - len(table)),
    }
    return counts if under.all() else counts[under].copy(), table, left_out


def _read_csv(path: Path) -> pd.DataFrame:
    """Read a table with or without a header; the first cell tells, as its name does not in every version."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            header = file.readline().split(",")[0].strip().strip('"').lower() == BARCODE
        table = pd.read_csv(path, header=0 if header else None, encoding="utf-8-sig")
    except READING_ERRORS as error:
        raise _unreadable(path, error) from error
    if not header and table.shape[1] == len(COLUMNS):
        table.columns = pd.Index(COLUMNS)
    return table


def _read_parquet(path: Path) -> pd.DataFrame:
    if importlib.util.find_spec("pyarrow") is None:
        raise ImportError(
            f'the positions "{path}" are a parquet file, which needs pyarrow. Run pip install "spahgc[hd]".'
        )
    try:
        table = pd.read_parquet(path, engine="pyarrow")
    except (OSError, ValueError) as error:  # pyarrow's own errors are among these
        raise _unreadable(path, error) from error
    return table.reset_index() if table.index.name == BARCODE else table


def _unreadable(path: Path, error: Exception) -> ValueError:
    return ValueError(
        f'the positions "{path}" ({path.stat().st_size:,} bytes) cannot be read: {error}. They are damaged or were not '
        "copied to their end; copy them again."
    )
