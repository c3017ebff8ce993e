"""Slides in the layout of the first spatial transcriptomics (ST) studies."""

from __future__ import annotations

import gzip
import logging
import os
from pathlib import Path
from typing import TextIO

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.spatial import KDTree

from spahgc._keys import SPATIAL, Obs
from spahgc._reading import reading
from spahgc.image import open_image
from spahgc.io._files import existing_file, is_packed, listed, refuse_repeated
from spahgc.io._joined import check_counts_on_tissue, check_shared
from spahgc.io._write_library import SPOT_DIAMETER, check_full_image, library_name, reduced_images, write_library

SPOT_PITCH_UM = 200.0
"""Distance of neighbouring spots on the array."""
SPOT_DIAMETER_UM = 100.0
SAME_DISTANCE = 1e-6
"""Steps of the array by which the distances of neighbours differ by rounding."""
SPOT_COLUMNS = ("x", "y", "pixel_x", "pixel_y")
SELECTED = "selected"
SPOT_NAME = r"\d+x\d+"
"""Names of spots: column x row of the array."""
TABLE_REMEDY = "Pass a tab- or comma-separated table (.tsv, .csv, or either with .gz) that was copied to its end."

_logger = logging.getLogger(__name__)


def st(
    counts: str | os.PathLike[str] | None,
    spots: str | os.PathLike[str],
    image: str | os.PathLike[str],
    *,
    library_id: str | None = None,
) -> AnnData:
    """Read a slide in the legacy ST layout: counts, spot table, H&E image.

    Parameters
    ----------
    counts
        Table of counts, spots x genes, tab- or comma-separated (.gz or not); rows are named ``XxY`` by the position on
        the array. ``None`` for a slide that was not measured: the result then has no genes.
    spots
        Table with the columns x, y (array), pixel_x, pixel_y (centre in pixels of `image`) and perhaps `selected`;
        rows whose `selected` is not 1 are left out.
    image
        The H&E image at full resolution: JPEG, PNG or TIFF.
    library_id
        Name of the slide; ``None`` takes the image's file name without its ending.

    Returns
    -------
    The spots that stand in both tables, in the order of the counts:

    - `X`: counts, CSR, float32, spots x genes;
    - `obs`: `array_row` (y), `array_col` (x), `in_tissue` (1), `slide`;
    - `obsm["spatial"]`: spot centres (x, y), float64, pixels of the full-resolution image;
    - `uns["spatial"][library_id]`: `images` (`hires`, longest side 2,000 px at most, and `lowres`, 600 px),
      `scalefactors` (as scanpy and squidpy use them, and `microns_per_pixel`, from the spot pitch of 200 um), and
      `metadata` (where the image is, its size, how many spots of either table were left out).

    The full-size image is not kept; :func:`spahgc.pp.embed` opens it again.

    Raises
    ------
    FileNotFoundError
        If one of the files is missing.
    ValueError
        If a table or the image is damaged, a column is missing, a gene or spot stands there twice, the tables share less
        than 0.8 of the spots of the smaller one (they are those of two sections), or a spot centre is not finite, not on
        the image, or has x and y swapped.

    Warns
    -----
    UserWarning
        If the tables share less than 0.9 of the larger one, or spots that are selected have no more counts than others.

    Examples
    --------
    >>> import spahgc as sp
    >>> adata = sp.io.st("C2.tsv.gz", "C2_selection.tsv", "C2.jpg")  # doctest: +SKIP
    """
    spots_path, image_path = existing_file(spots, "spots"), existing_file(image, "image").absolute()
    counts_path = None if counts is None else existing_file(counts, "counts")
    name = library_name(library_id, image_path)

    table, not_selected = _read_spots(spots_path)
    matrix = csr_matrix((len(table), 0), dtype=np.float32)
    genes: pd.Index = pd.Index([], dtype=object)
    left_out = {"n_spots_not_selected": len(not_selected)}
    if counts_path is not None:
        measured, names, genes = _read_counts(counts_path)
        matrix, table, dropped = _join(measured, names, table, not_selected, (counts_path, spots_path))
        left_out |= dropped
    _logger.info("%s: %d spots, %d genes; left out: %s", name, len(table), len(genes), left_out)

    xy = table[["pixel_x", "pixel_y"]].to_numpy(np.float64)
    mpp = SPOT_PITCH_UM / _pitch_px(table[["x", "y"]].to_numpy(np.float64), xy, spots_path)
    # The file is decoded only if all spots lie on it.
    image_metadata = check_full_image(image_path, xy, spots_path, {}, {})
    with open_image(image_path) as open_source:
        images, scales = reduced_images(open_source)

    obs = pd.DataFrame(
        {
            Obs.array_row: table["y"].astype(np.int64),
            Obs.array_col: table["x"].astype(np.int64),
            "in_tissue": np.ones(len(table), dtype=np.int64),
        },
        index=table.index,
    )
    adata = AnnData(matrix, obs=obs, var=pd.DataFrame(index=genes))
    adata.obsm[SPATIAL] = xy
    diameters = dict.fromkeys((SPOT_DIAMETER, "fiducial_diameter_fullres"), SPOT_DIAMETER_UM / mpp)
    metadata = {**image_metadata, "reader": "spahgc.io.st", **left_out}
    write_library(adata, name, images, {**scales, **diameters}, metadata, mpp=mpp)
    return adata


def _pitch_px(array: NDArray[np.float64], xy: NDArray[np.float64], path: Path) -> float:
    """Median pixel distance of neighbours on the array, for one step of the array."""
    if len(array) < 2:
        raise ValueError(
            f'the spot table "{path}" leaves one spot, from which no spot pitch can be measured. Pass two spots or more.'
        )
    tree = KDTree(array)
    # Neighbours are one step apart; where all spots are isolated, the closest ones do.
    step = float(tree.query(array, k=2)[0][:, 1].min())
    pairs = tree.query_pairs(step + SAME_DISTANCE, output_type="ndarray")
    pitch = float(np.median(np.linalg.norm(xy[pairs[:, 0]] - xy[pairs[:, 1]], axis=1))) / step
    if pitch <= 0:
        raise ValueError(
            f'neighbouring spots of "{path}" have the same pixel_x and pixel_y, so no spot pitch can be measured. '
            "Check these columns."
        )
    return pitch


def _read_spots(path: Path) -> tuple[pd.DataFrame, pd.Index]:
    """Read the table of spots.

    Parameters
    ----------
    path
        Tab- or comma-separated, with the columns x, y (array), pixel_x, pixel_y and, if it likes, selected.

    Returns
    -------
    The selected spots, indexed by their names, with x, y (int) and pixel_x, pixel_y (float), and the names of those that
    were not selected.

    Raises
    ------
    ValueError
        If columns are missing, a value is no number, a pixel coordinate is not finite, or a spot stands there twice.
    """
    header = _header(path)
    missing = [column for column in SPOT_COLUMNS if column not in header]
    if missing:
        raise ValueError(
            f'the spot table "{path}" has no column {listed(missing)}; it has {listed(header)}. '
            f"Pass a table with the columns {', '.join(SPOT_COLUMNS)} (and selected)."
        )
    table = _read_table(path, header=0)
    columns = [*SPOT_COLUMNS, SELECTED] if SELECTED in table else list(SPOT_COLUMNS)
    numbers = table[columns].apply(pd.to_numeric, errors="coerce")
    selected = numbers[numbers[SELECTED] == 1] if SELECTED in numbers else numbers
    if selected.empty:
        raise ValueError(
            f'the spot table "{path}" has no spot left: of {len(numbers)} rows none has selected = 1. '
            "Pass a table whose column selected is 1 for the spots under tissue, or that has no such column."
        )
    spots = selected[list(SPOT_COLUMNS)].astype(np.float64)
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
    others = numbers.drop(index=selected.index)[["x", "y"]]
    return spots, pd.Index([f"{x:.0f}x{y:.0f}" for x, y in others.to_numpy(np.float64)])


def _read_counts(path: Path) -> tuple[csr_matrix, pd.Index, pd.Index]:
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
    return csr_matrix(values, dtype=np.float32), spots, genes


def _join(
    counts: csr_matrix, names: pd.Index, spots: pd.DataFrame, not_selected: pd.Index, paths: tuple[Path, Path]
) -> tuple[csr_matrix, pd.DataFrame, dict[str, int]]:
    """Keep the spots that stand in both tables, in the order of the counts; `not_selected` are known, and left out.

    Returns
    -------
    Counts, spots, and how many of either table were left out.
    """
    position = spots.index.get_indexer(names)
    shared: NDArray[np.intp] = np.flatnonzero(position >= 0)
    if not len(shared):
        raise ValueError(
            f'no spot stands both in the counts "{paths[0]}" (spots {listed(names)}) and in the spot table '
            f'"{paths[1]}" (spots {listed(spots.index)}). Do both belong to the same slide?'
        )
    off_tissue = names.isin(not_selected)
    check_shared(len(shared), len(names) - int(off_tissue.sum()), len(spots), *paths)
    measured = off_tissue | (position >= 0)
    check_counts_on_tissue(np.asarray(counts.sum(axis=1)).ravel()[measured], position[measured] >= 0, *paths)
    left_out = {
        "n_counts_without_spot": int(len(names) - len(shared)),
        "n_spots_without_counts": int(len(spots) - len(shared)),
    }
    return counts[shared], spots.iloc[position[shared]], left_out


def _check_orientation(path: Path, genes: pd.Index, first_row: str) -> None:
    """Refuse genes x spots."""
    columns_are_spots = len(genes) > 0 and bool(genes.str.fullmatch(SPOT_NAME).all())
    if columns_are_spots and not pd.Series([first_row]).str.fullmatch(SPOT_NAME).iloc[0]:
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
