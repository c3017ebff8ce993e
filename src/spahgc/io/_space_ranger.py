"""The outputs of Space Ranger: counts, positions, scale factors and reduced images of one slide."""

from __future__ import annotations

import gzip
import importlib.util
import logging
import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy.io import mmread
from scipy.sparse import csr_matrix

from spahgc._keys import SPATIAL, Obs
from spahgc._reading import broken_arrays
from spahgc._validate import quoted, user_path
from spahgc.image import open_image
from spahgc.image._source import Pixels
from spahgc.io._files import (
    READING_ERRORS,
    existing_file,
    first_match,
    folder_content,
    read_json,
    refuse_repeated,
    unreadable,
)
from spahgc.io._write_library import SPOT_DIAMETER, check_full_image, check_library_id, reduced_images, write_library

OUTS, SPATIAL_FOLDER, BINS_FOLDER = "outs", "spatial", "binned_outputs"
SCALE_FILE = "scalefactors_json.json"
IMAGES = {
    "hires": ("tissue_hires_image.png", "tissue_hires_scalef"),
    "lowres": ("tissue_lowres_image.png", "tissue_lowres_scalef"),
}
"""File and scale factor of each reduced image."""

BARCODE, IN_TISSUE = "barcode", "in_tissue"
PIXEL_ROW, PIXEL_COL = "pxl_row_in_fullres", "pxl_col_in_fullres"
POSITIONS_COLUMNS = (BARCODE, IN_TISSUE, Obs.array_row, Obs.array_col, PIXEL_ROW, PIXEL_COL)
"""The columns, in the order in which files without a header have them."""
POSITIONS_FILES = ("tissue_positions.csv", "tissue_positions.parquet", "tissue_positions_list.csv")
"""Versions 2 to 4, Visium HD, version 1. A copy may carry a prefix."""
POSITIONS_REMEDY = "They are damaged or were not copied to their end; copy them again."

FILTERED, RAW = "filtered_feature_bc_matrix", "raw_feature_bc_matrix"
FILE_NOTES = ("chemistry_description", "software_version")
"""Attributes of the HDF5 file that scanpy and squidpy keep too."""
GENE_EXPRESSION = "Gene Expression"
COUNTS_REMEDY = (
    "They are damaged, were not copied to their end, or are no feature-barcode matrix of Space Ranger; copy them again."
)

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Slide:
    """A slide as it was read, before its resolution is known."""

    adata: AnnData
    """Counts, ``obs`` and ``obsm["spatial"]``; nothing in ``uns`` yet."""
    name: str
    positions: pd.DataFrame
    """All spots of the array, also those outside the tissue."""
    images: dict[str, Pixels]
    scales: dict[str, float]
    metadata: dict[str, object]


def run_folder(path: str | os.PathLike[str]) -> Path:
    """Find the folder of a run that holds its results: the one named, or ``outs`` in it.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    """
    folder = user_path(path, "path")
    if not folder.is_dir():
        kind = "a file" if folder.exists() else "nothing"
        raise FileNotFoundError(
            f'path: "{folder}" is not a folder ({kind} is there). Pass the folder of a Space Ranger run, or its outs/.'
        )
    has_results = any((folder / name).exists() for name in (SPATIAL_FOLDER, BINS_FOLDER))
    return folder / OUTS if (folder / OUTS).is_dir() and not has_results else folder


def read_slide(
    folder: Path,
    *,
    counts: str | None,
    image: str | os.PathLike[str] | None,
    library_id: str | None,
    default_name: str,
    reader: str,
) -> Slide:
    """Read counts, positions, scale factors and images of one folder.

    Parameters
    ----------
    folder
        Folder that holds the counts and ``spatial/``.
    counts
        Name of the matrix in it; ``None`` finds the filtered one.
    image
        The full-resolution image, if there is one.
    library_id
        Name of the slide; ``None`` takes what the counts say, or `default_name`.
    default_name
        Name of a slide whose counts do not name it.
    reader
        Name of the public function.
    """
    spatial = folder / SPATIAL_FOLDER
    if not spatial.is_dir():
        raise FileNotFoundError(
            f'"{folder}" has no folder "{SPATIAL_FOLDER}", which holds the positions, scale factors and images; it '
            f"holds {folder_content(folder)}. Copy it from the run, or pass the folder "
            "that has it."
        )
    image_path = None if image is None else existing_file(image, "image")
    counts_path, positions_path = find_counts(folder, counts), find_positions(spatial)
    scales = _read_scales(spatial)
    positions = read_positions(positions_path)
    measured, notes, library = read_counts(counts_path)
    adata, table, left_out = join_positions(measured, positions, (counts_path, positions_path))
    name = check_library_id(library_id if library_id is not None else library or default_name)
    _logger.info("%s: %d spots, %d genes; left out: %s", name, *adata.shape, left_out)

    xy = table[[PIXEL_COL, PIXEL_ROW]].to_numpy(np.float64)
    images = _read_images(spatial, scales)
    metadata: dict[str, object] = {"reader": reader, **notes, **left_out}
    if image_path is not None:
        metadata |= check_full_image(image_path, xy, positions_path, images, scales)
        if "hires" not in images:
            with open_image(image_path) as open_source:
                images, made = reduced_images(open_source)
            scales |= made
    adata.obs = table[[IN_TISSUE, Obs.array_row, Obs.array_col]].astype(np.int64)
    adata.obsm[SPATIAL] = xy
    return Slide(adata, name, positions, images, scales, metadata)


def finish_slide(slide: Slide, mpp: float | None) -> AnnData:
    """Write the library of a slide, now that its resolution is known."""
    write_library(slide.adata, slide.name, slide.images, slide.scales, slide.metadata, mpp=mpp)
    return slide.adata


def _read_scales(spatial: Path) -> dict[str, float]:
    """Read the scale factors; those that images and spots need must be there."""
    path = spatial / SCALE_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f'"{path}" is missing, without which nobody knows how large spots and images are. Copy it from the run.'
        )
    entries = read_json(path, "the scale factors", "They must be numbers by name, as JSON; copy the file again.")
    scales = {key: float(value) for key, value in entries if isinstance(value, int | float)}
    needed = [SPOT_DIAMETER, *(scale for file, scale in IMAGES.values() if (spatial / file).is_file())]
    wrong = [key for key in needed if not (np.isfinite(scales.get(key, np.nan)) and scales[key] > 0)]
    if wrong:
        raise ValueError(
            f'the scale factors "{path}" lack {quoted(wrong)}, or have no positive number there; found {scales}. '
            "Copy the file again."
        )
    return scales


def _read_images(spatial: Path, scales: dict[str, float]) -> dict[str, Pixels]:
    """Read the reduced images that are there."""
    images: dict[str, Pixels] = {}
    for key, (file, _) in IMAGES.items():
        if (spatial / file).is_file():
            with open_image(spatial / file) as image:
                images[key] = image.read(0, 0, image.width, image.height)
    return images


def pitch_mpp(positions: pd.DataFrame, pitch_um: float, tolerance: float) -> float | None:
    """Microns per pixel of a hexagonal array, from all its spots.

    Position is a linear function of array column and row. Two columns are one pitch, one row is half the square root of
    three of it.

    Parameters
    ----------
    positions
        Spots with `array_row`, `array_col` and their place in pixels.
    pitch_um
        Distance of a spot to its six neighbours.
    tolerance
        Relative difference between the two directions above which the array is not hexagonal.

    Returns
    -------
    Microns per pixel; ``None`` if the array is not hexagonal or has no extent.
    """
    grid: NDArray[np.float64] = positions[[Obs.array_col, Obs.array_row]].to_numpy(np.float64)
    xy: NDArray[np.float64] = positions[[PIXEL_COL, PIXEL_ROW]].to_numpy(np.float64)
    known = np.isfinite(grid).all(1) & np.isfinite(xy).all(1)
    design = np.column_stack([grid[known], np.ones(known.sum())])
    if np.linalg.matrix_rank(design) < design.shape[1]:
        return None
    (column, row, _), *_ = np.linalg.lstsq(design, xy[known], rcond=None)
    along, across = 2 * float(np.linalg.norm(column)), float(np.linalg.norm(row)) * 2 / np.sqrt(3)
    if min(along, across) <= 0 or abs(along / across - 1) > tolerance:
        return None
    return float(pitch_um / np.sqrt(along * across))


def find_positions(spatial: Path) -> Path:
    """Find the table of spots in the folder ``spatial``.

    Raises
    ------
    FileNotFoundError
        If there is none.
    """
    patterns = [pattern for name in POSITIONS_FILES for pattern in (name, f"*_{name}")]
    path = first_match(spatial, patterns, "tables of positions", "Keep the one that belongs to the counts.")
    if path is None:
        raise FileNotFoundError(
            f'no positions in "{spatial}": none of {quoted(POSITIONS_FILES)} is there, only {folder_content(spatial)}. '
            "Copy the table from the run."
        )
    return path


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
    table = _read_positions_parquet(path) if path.suffix == ".parquet" else _read_positions_csv(path)
    missing = [name for name in POSITIONS_COLUMNS if name not in table.columns]
    if missing:
        raise ValueError(
            f'the positions "{path}" have no column {quoted(missing)}; found {quoted(table.columns, len(POSITIONS_COLUMNS))}. '
            f"The columns must be {', '.join(POSITIONS_COLUMNS)}, or, without a header, stand in this order."
        )
    if table.empty:
        raise ValueError(f'the positions "{path}" name no spot. Copy the table again.')
    barcodes = pd.Index(table[BARCODE].astype(str), name=None)
    refuse_repeated(barcodes, f'barcodes in the positions "{path}"', "Keep one row for each spot.")
    numbers = table[list(POSITIONS_COLUMNS[1:])].apply(pd.to_numeric, errors="coerce")
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
    row = positions.index.get_indexer(counts.obs_names)
    unknown = counts.obs_names[row < 0]
    if len(unknown):
        raise ValueError(
            f'{len(unknown)} of {counts.n_obs} barcodes of the counts "{paths[0]}" ({quoted(unknown, 3)}) have no '
            f'position in "{paths[1]}" ({quoted(positions.index[:3])}, {len(positions)} in all). '
            "Do both belong to the same run?"
        )
    table = positions.iloc[row]
    # A matrix that was not filtered holds the whole array.
    broken = ~np.isfinite(table.to_numpy(np.float64)).all(axis=1) & (table[IN_TISSUE] != 0).to_numpy()
    if broken.any():
        first = table[broken].iloc[0]
        raise ValueError(
            f'{broken.sum()} of {len(table)} spots of the counts have positions in "{paths[1]}" that are not finite '
            f'numbers; the first is "{table.index[broken][0]}": {first.to_dict()}. Correct these rows, or set their '
            "column in_tissue to 0."
        )
    in_tissue = (table[IN_TISSUE] == 1).to_numpy()
    if not in_tissue.any():
        raise ValueError(
            f'none of the {len(table)} spots of "{paths[0]}" has in_tissue = 1 in "{paths[1]}". '
            "Do both belong to the same run?"
        )
    table = table[in_tissue]
    left_out = {
        "n_spots_not_in_tissue": int((~in_tissue).sum()),
        "n_spots_without_counts": int((positions[IN_TISSUE] == 1).sum() - len(table)),
    }
    return counts if in_tissue.all() else counts[in_tissue].copy(), table, left_out


def _read_positions_csv(path: Path) -> pd.DataFrame:
    """Read a table with or without a header; the first cell tells, as its name does not in every version."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            header = file.readline().split(",")[0].strip().strip('"').lower() == BARCODE
        table = pd.read_csv(path, header=0 if header else None, encoding="utf-8-sig")
    except READING_ERRORS as error:
        raise unreadable("the positions", path, error, POSITIONS_REMEDY) from error
    if not header and table.shape[1] == len(POSITIONS_COLUMNS):
        table.columns = pd.Index(POSITIONS_COLUMNS)
    return table


def _read_positions_parquet(path: Path) -> pd.DataFrame:
    if importlib.util.find_spec("pyarrow") is None:
        raise ImportError(
            f'the positions "{path}" are a parquet file, which needs pyarrow. Run pip install "spahgc[hd]".'
        )
    try:
        table = pd.read_parquet(path, engine="pyarrow")
    except (OSError, ValueError) as error:  # pyarrow's own errors are among these
        raise unreadable("the positions", path, error, POSITIONS_REMEDY) from error
    return table.reset_index() if table.index.name == BARCODE else table


def find_counts(folder: Path, counts: str | None) -> Path:
    """Find the counts of a run.

    Parameters
    ----------
    folder
        The folder that holds the matrices.
    counts
        Name of the file or folder in it; ``None`` looks for the filtered matrix, whose name may carry a prefix.

    Raises
    ------
    FileNotFoundError
        If it is not there.
    ValueError
        If there are several.
    """
    if counts is not None:
        if (folder / counts).exists():
            return folder / counts
        raise FileNotFoundError(f'counts="{counts}" is not in "{folder}", which holds {folder_content(folder)}.')
    # The file is faster to read than the folder beside it, which holds the same.
    patterns = (f"{FILTERED}.h5", f"*_{FILTERED}.h5", FILTERED)
    filtered = first_match(folder, patterns, "filtered matrices", "Say which one with counts=.")
    if filtered is not None:
        return filtered
    raw = next((name for name in (f"{RAW}.h5", RAW) if (folder / name).exists()), None)
    remedy = "Copy it from the run."
    if raw is not None:
        remedy = f'Copy it from the run, or pass counts="{raw}", of which the spots under tissue are kept.'
    raise FileNotFoundError(
        f'no counts in "{folder}": neither {FILTERED}.h5 nor the folder {FILTERED} is there, only {folder_content(folder)}. '
        f"{remedy}"
    )


def read_counts(path: Path) -> tuple[AnnData, dict[str, str], str | None]:
    """Read counts of gene expression; what else was measured (antibodies, guides) is left out.

    Returns
    -------
    Spots x genes (CSR, float32; gene names made unique, identifiers in ``var["gene_ids"]``), notes of the file
    (chemistry, software version), and the name of the library, if the file tells it.

    Raises
    ------
    ValueError
        If the file is damaged or holds something else.
    """
    try:
        with warnings.catch_warnings():
            # Gene names that occur twice are dealt with below.
            warnings.filterwarnings("ignore", message="Variable names are not unique")
            adata = _read_counts_folder(path) if path.is_dir() else _read_counts_file(path)
        notes, name = ({}, None) if path.is_dir() else _counts_notes(path)
    except (ImportError, MemoryError):
        raise
    except Exception as error:
        # scanpy raises a bare Exception where a part is missing.
        raise unreadable("the counts", path, error, COUNTS_REMEDY) from error
    if not adata.n_obs or not adata.n_vars:
        raise ValueError(f'the counts "{path}" hold {adata.n_obs} spots and {adata.n_vars} genes. Pass another matrix.')
    refuse_repeated(adata.obs_names, f'barcodes in the counts "{path}"', "Copy the matrix again.")
    adata.X = csr_matrix(adata.X, dtype=np.float32)
    adata.var_names_make_unique()
    return adata, notes, name


def _read_counts_file(path: Path) -> AnnData:
    import scanpy as sc

    _check_counts_file(path)  # scanpy selects from the matrix at once
    return sc.read_10x_h5(path, gex_only=True)


def _check_counts_file(path: Path) -> None:
    """Refuse a matrix that compiled code must not touch: by columns, of genes x barcodes, in one group or one a genome."""
    with h5py.File(path, "r") as file:
        for name, group in file.items():
            if not isinstance(group, h5py.Group) or not {"indptr", "indices", "data", "shape"} <= set(group):
                continue
            parts = tuple(group[part][()] for part in ("data", "indices", "indptr"))
            problem = broken_arrays(*parts, n_major=int(group["shape"][1]), n_minor=int(group["shape"][0]))
            if problem is not None:
                raise ValueError(f'the sparse matrix "{name}" is damaged: {problem}')


def _counts_notes(path: Path) -> tuple[dict[str, str], str | None]:
    """Attributes of the HDF5 file: chemistry, version, library."""
    with h5py.File(path, "r") as file:
        notes = {key: _text(file.attrs[key]) for key in FILE_NOTES if key in file.attrs}
        names = np.atleast_1d(file.attrs.get("library_ids", []))
    return notes, _text(names[0]) if len(names) else None


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _read_counts_folder(folder: Path) -> AnnData:
    """Read the three tables; scanpy reads them as Space Ranger writes them."""
    import scanpy as sc

    features = _counts_table(folder, "features", "genes")
    if (folder / "genes.tsv").is_file() or (features.name == "features.tsv.gz" and _n_columns(features) > 2):
        return sc.read_10x_mtx(folder, gex_only=True)
    # Published copies are often unpacked, or name the genes in one column.
    matrix = csr_matrix(mmread(_counts_table(folder, "matrix")).T)
    genes = pd.read_csv(features, sep="\t", header=None, dtype=str, keep_default_na=False)
    barcodes = pd.read_csv(_counts_table(folder, "barcodes"), sep="\t", header=None, dtype=str)
    names = genes[min(1, genes.shape[1] - 1)]
    var = pd.DataFrame({"gene_ids": genes[0].to_numpy()}, index=pd.Index(names.to_numpy(), name=None))
    if genes.shape[1] > 2:
        var["feature_types"] = genes[2].to_numpy()
    adata = AnnData(matrix.astype(np.float32), obs=pd.DataFrame(index=barcodes[0].to_numpy()), var=var)
    return adata[:, var["feature_types"] == GENE_EXPRESSION].copy() if "feature_types" in var else adata


def _counts_table(folder: Path, *names: str) -> Path:
    """Find one of the tables, packed or not."""
    ending = ".mtx" if "matrix" in names else ".tsv"
    wanted = [f"{name}{ending}{packed}" for name in names for packed in (".gz", "")]
    path = next((folder / name for name in wanted if (folder / name).is_file()), None)
    if path is None:
        raise FileNotFoundError(f'none of {quoted(wanted)} is in "{folder}", which holds {folder_content(folder)}')
    return path


def _n_columns(path: Path) -> int:
    with gzip.open(path, "rt") as file:
        return file.readline().count("\t") + 1
