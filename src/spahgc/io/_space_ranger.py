"""The outputs of Space Ranger: counts, positions, scale factors and reduced images of one slide."""

from __future__ import annotations

import importlib.util
import io
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

from spahgc._installation import install_command
from spahgc._keys import SPATIAL, Obs
from spahgc._logging import HINT, warn
from spahgc._reading import broken_sparse, reading, unreadable
from spahgc._validate import quoted, user_path
from spahgc.image import open_image
from spahgc.image._source import Pixels
from spahgc.io._files import existing_file, read_bytes, read_json, read_text, refuse_repeated, unpacked
from spahgc.io._genomes import one_genome
from spahgc.io._joined import check_counts_on_tissue, check_off_tissue, check_without_counts
from spahgc.io._run_files import FILTERED, SPATIAL_FOLDER, CountTables, count_tables, find_run, refuse_aggregate
from spahgc.io._write_library import (
    MPP,
    SPOT_DIAMETER,
    check_full_image,
    check_library_id,
    reduced_images,
    write_library,
)

OUTS, BINS_FOLDER, SEGMENTED = "outs", "binned_outputs", "segmented_outputs"
IMAGE_SCALES = {"hires": "tissue_hires_scalef", "lowres": "tissue_lowres_scalef"}
"""Scale factor of each reduced image."""
MAX_POSITION = 1e7
"""Pixels, and steps of the array: no image is as wide."""
BIN_SIZE = "bin_size_um"
"""Scale factor: side of a bin, microns."""
LENGTHS = (
    SPOT_DIAMETER,
    "fiducial_diameter_fullres",
    MPP,
    BIN_SIZE,
    *IMAGE_SCALES.values(),
    "regist_target_img_scalef",
)
"""Scale factors that must be positive numbers where they are there."""

BARCODE, IN_TISSUE = "barcode", "in_tissue"
PIXEL_ROW, PIXEL_COL = "pxl_row_in_fullres", "pxl_col_in_fullres"
POSITIONS_COLUMNS = (BARCODE, IN_TISSUE, Obs.array_row, Obs.array_col, PIXEL_ROW, PIXEL_COL)
"""The columns, in the order in which files without a header have them."""
POSITIONS_REMEDY = "They are damaged or were not copied to their end; copy them again."

SOURCE_IMAGE = "source_image_path"
"""Entry of the metadata: where the full-resolution image is."""
COARSEST_ENCODER_MPP = 1.0
"""Microns per pixel of the coarsest encoder that is listed (``spahgc.encoders.list``)."""

UNFILTERED = "raw"
"""What the name of an unfiltered matrix says."""
FILE_NOTES = ("chemistry_description", "software_version")
"""Attributes of the HDF5 file that scanpy and squidpy keep too."""
GENE_EXPRESSION = "Gene Expression"
FEATURE_TYPES = "feature_types"
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
    ValueError
        If it is an aggregate of several runs.
    """
    folder = user_path(path, "path")
    if not folder.is_dir():
        kind = "a file" if folder.exists() else "nothing"
        raise FileNotFoundError(
            f'path: "{folder}" is not a folder ({kind} is there). Pass the folder of a Space Ranger run, or its outs/.'
        )
    has_results = any((folder / name).exists() for name in (SPATIAL_FOLDER, BINS_FOLDER, SEGMENTED))
    results = folder / OUTS if (folder / OUTS).is_dir() and not has_results else folder
    refuse_aggregate(results)
    return results


def read_slide(
    folder: Path,
    *,
    counts: str | None,
    image: str | os.PathLike[str] | None,
    library_id: str | None,
    default_name: str,
    reader: str,
    prefix: str | None = None,
    genome: str | None = None,
) -> Slide:
    """Read counts, positions, scale factors and images of one folder.

    Parameters
    ----------
    folder
        Folder that holds the counts, and the other files or ``spatial/``.
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
    prefix
        Name of the sample, with which its files begin, where the folder holds several.
    genome
        Name of the genome whose genes are kept; ``None`` takes the one that nearly all counts are of.
    """
    files = find_run(folder, counts, prefix)
    image_path = None if image is None else existing_file(image, "image")
    scales = read_scales(files.scales, list(files.images))
    positions = read_positions(files.positions)
    measured, notes, library = read_counts(files.counts, genome)
    adata, table, left_out = join_positions(measured, positions, (files.counts_path, files.positions))
    name = check_library_id(library_id if library_id is not None else library or default_name)
    _logger.log(HINT, "%s: %d spots, %d genes; left out: %s", name, *adata.shape, left_out)

    xy = table[[PIXEL_COL, PIXEL_ROW]].to_numpy(np.float64)
    images = read_images(files.images)
    metadata: dict[str, object] = {"reader": reader, **notes, **left_out}
    if image_path is not None:
        metadata |= check_full_image(image_path, xy, files.positions, images, scales)
        if "hires" not in images:
            with open_image(image_path) as open_source:
                images, made = reduced_images(open_source)
            scales |= made
    adata.obs = table[[IN_TISSUE, Obs.array_row, Obs.array_col]].astype(np.int64)
    adata.obsm[SPATIAL] = xy
    return Slide(adata, name, positions, images, scales, metadata)


def finish_slide(slide: Slide, mpp: float | None) -> AnnData:
    """Write the library of a slide, now that its resolution is known.

    Warns
    -----
    UserWarning
        If no full-resolution image is there, and what is there instead is too coarse for every encoder.
    """
    write_library(slide.adata, slide.name, slide.images, slide.scales, slide.metadata, mpp=mpp)
    _warn_of_coarse_image(slide, mpp)
    return slide.adata


def _warn_of_coarse_image(slide: Slide, mpp: float | None) -> None:
    """Say what is missing where nobody named the full-resolution image."""
    if SOURCE_IMAGE in slide.metadata:
        return
    if "hires" in slide.images:
        pixel_um = None if mpp is None else mpp / slide.scales[IMAGE_SCALES["hires"]]
        if pixel_um is not None and pixel_um <= COARSEST_ENCODER_MPP:
            return
        width = "of unknown width" if pixel_um is None else f"{pixel_um:.3g} um wide"
        found = f"there is the hires image alone, whose pixels are {width}; encoders take {COARSEST_ENCODER_MPP:g} um at most"
        other_way = ", or allow_upsampling=True to spahgc.pp.embed, which then sees tissue and no cells"
    else:
        found, other_way = "nor is there a hires image, so that nothing can be embedded", ""
    warn(
        f'no full-resolution image was named for slide "{slide.name}": {found}. Pass image= with the image that Space Ranger '
        f"was run on, which it does not keep{other_way}.",
        stacklevel=4,
    )


def read_scales(path: Path, images: list[str], spots: bool = True) -> dict[str, float]:
    """Read the scale factors; those that images need must be there, and with `spots` the diameter of a spot."""
    entries = dict(read_json(path, "the scale factors", "They must be numbers by name, as JSON; copy the file again."))
    scales = {
        key: float(value)
        for key, value in entries.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    needed = {*(IMAGE_SCALES[key] for key in images), *(key for key in LENGTHS if key in entries)}
    needed |= {SPOT_DIAMETER} if spots else set()
    wrong = sorted(key for key in needed if not (np.isfinite(scales.get(key, np.nan)) and scales[key] > 0))
    if wrong:
        raise ValueError(
            f'the scale factors "{path}" lack {quoted(wrong)}, or have no positive number there; found {entries}. '
            "Copy the file again."
        )
    return scales


def read_images(paths: dict[str, Path]) -> dict[str, Pixels]:
    """Read the reduced images that are there."""
    images: dict[str, Pixels] = {}
    for key, path in paths.items():
        with (
            reading(path, "the image", "Copy it again, or remove it."),
            unpacked(path) as file,
            open_image(file) as image,
        ):
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
    known = (np.abs(np.column_stack([grid, xy])) < MAX_POSITION).all(axis=1)  # what is no number is not below it
    design = np.column_stack([grid[known], np.ones(known.sum())])
    if np.linalg.matrix_rank(design) < design.shape[1]:
        return None
    (column, row, _), *_ = np.linalg.lstsq(design, xy[known], rcond=None)
    along, across = 2 * float(np.linalg.norm(column)), float(np.linalg.norm(row)) * 2 / np.sqrt(3)
    if min(along, across) <= 0 or abs(along / across - 1) > tolerance:
        return None
    return float(pitch_um / np.sqrt(along * across))


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
    packed = ".parquet" in path.suffixes
    table = _read_positions_parquet(path) if packed else _read_positions_csv(path)
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
        The files that the two come from. Counts whose name says "raw" were not filtered, and hold the whole array.

    Returns
    -------
    The counts, their positions, and how many spots were left out.

    Raises
    ------
    ValueError
        If a barcode of the counts has no position, or one that is no finite number, or none is under tissue, or too many
        of filtered counts are not.
    """
    row = positions.index.get_indexer(counts.obs_names)
    unknown = counts.obs_names[row < 0]
    if len(unknown):
        raise ValueError(
            f'{len(unknown)} of {counts.n_obs} barcodes of the counts "{paths[0]}" ({quoted(unknown, 3)}) have no '
            f'position in "{paths[1]}" ({quoted(positions.index[:3])}, {len(positions)} in all). '
            f"Do both belong to the same run?{_aggregate_hint(counts.obs_names)}"
        )
    table = positions.iloc[row]
    # A matrix that was not filtered holds the whole array.
    # What is not finite is not below the limit either.
    possible = (np.abs(table.to_numpy(np.float64)) < MAX_POSITION).all(axis=1)
    broken = ~possible & (table[IN_TISSUE] != 0).to_numpy()
    if broken.any():
        first = table[broken].iloc[0]
        raise ValueError(
            f'{broken.sum()} of {len(table)} spots of the counts have positions in "{paths[1]}" that no image has; '
            f'the first is "{table.index[broken][0]}": {first.to_dict()}. Correct these rows, or set their '
            "column in_tissue to 0."
        )
    in_tissue = (table[IN_TISSUE] == 1).to_numpy()
    if not in_tissue.any():
        raise ValueError(
            f'none of the {len(table)} spots of "{paths[0]}" has in_tissue = 1 in "{paths[1]}". '
            "Do both belong to the same run?"
        )
    table = table[in_tissue]
    n_under_tissue = int((positions[IN_TISSUE] == 1).sum())
    left_out = {
        "n_spots_not_in_tissue": int((~in_tissue).sum()),
        "n_spots_without_counts": n_under_tissue - len(table),
    }
    if UNFILTERED in (name := paths[0].name.lower()) and FILTERED not in name:
        check_counts_on_tissue(np.asarray(counts.X.sum(axis=1)), in_tissue, *paths)
    else:
        check_off_tissue(left_out["n_spots_not_in_tissue"], counts.n_obs, *paths)
    check_without_counts(left_out["n_spots_without_counts"], n_under_tissue, *paths)
    return counts if in_tissue.all() else counts[in_tissue].copy(), table, left_out


def _aggregate_hint(barcodes: pd.Index) -> str:
    """Say so where barcodes end with the numbers of several runs."""
    runs = {barcode.rpartition("-")[2] for barcode in barcodes}
    if len(runs) < 2 or not all(run.isdigit() for run in runs):
        return ""
    return f" The barcodes are those of {len(runs)} runs that were aggregated: read each run by itself."


def _read_positions_csv(path: Path) -> pd.DataFrame:
    """Read a table with or without a header, which a known name in the first line tells.

    The first column holds the barcodes also where its name is another one, as long as all other columns are there.
    """
    with reading(path, "the positions", POSITIONS_REMEDY):
        text = read_text(path)
        first = [cell.strip().strip('"').lower() for cell in text.partition("\n")[0].strip().split(",")]
        header = any(cell in POSITIONS_COLUMNS for cell in first)
        # A barcode may be called NA.
        barcodes = first.index(BARCODE) if BARCODE in first else 0
        table = pd.read_csv(io.StringIO(text), header=0 if header else None, converters={barcodes: str})
    if not header:
        if table.shape[1] == len(POSITIONS_COLUMNS):
            table.columns = pd.Index(POSITIONS_COLUMNS)
        return table
    names = [name if name in POSITIONS_COLUMNS else str(old) for name, old in zip(first, table.columns, strict=False)]
    if len(names) == table.shape[1]:
        if BARCODE not in names and set(POSITIONS_COLUMNS[1:]) <= set(names[1:]):
            names[0] = BARCODE
        table.columns = pd.Index(names)
    return table


def _read_positions_parquet(path: Path) -> pd.DataFrame:
    if importlib.util.find_spec("pyarrow") is None:
        raise ImportError(
            f'the positions "{path}" are a parquet file, which needs pyarrow. Run {install_command("hd")}.'
        )
    with reading(path, "the positions", POSITIONS_REMEDY):
        table = pd.read_parquet(io.BytesIO(read_bytes(path)), engine="pyarrow")
    return table.reset_index() if table.index.name == BARCODE else table


def read_counts(
    counts: Path | CountTables, genome: str | None = None
) -> tuple[AnnData, dict[str, str | int | float], str | None]:
    """Read counts of gene expression; what else was measured (antibodies, guides) is left out.

    Parameters
    ----------
    counts
        An HDF5 file, a folder of three tables, or the tables themselves; packed or not.
    genome
        See :func:`~spahgc.io._genomes.one_genome`.

    Returns
    -------
    Spots x genes (CSR, float32; gene names made unique, identifiers in ``var["gene_ids"]``), notes of the file
    (chemistry, software version, genes of other genomes), and the name of the library, if the file tells it.

    Raises
    ------
    ValueError
        If the file is damaged or holds something else, or counts of several genomes.
    """
    path = counts if isinstance(counts, Path) else counts.matrix
    with warnings.catch_warnings():
        # anndata warns of gene names that occur twice at each step; here they are made unique.
        warnings.filterwarnings("ignore", message="Variable names are not unique")
        adata, notes, name = whole_counts(counts, path)
        adata = _gene_expression(adata, path)
    genome_notes: dict[str, str | int | float] = {}
    if adata.n_obs and adata.n_vars:
        adata, genome_notes = one_genome(adata, genome, path)
    if not adata.n_obs or not adata.n_vars:
        raise ValueError(f'the counts "{path}" hold {adata.n_obs} spots and {adata.n_vars} genes. Pass another matrix.')
    refuse_repeated(adata.obs_names, f'barcodes in the counts "{path}"', "Copy the matrix again.")
    adata.X = csr_matrix(adata.X, dtype=np.float32)
    adata.var_names_make_unique()
    return adata, {**notes, **genome_notes}, name


def whole_counts(counts: Path | CountTables, path: Path) -> tuple[AnnData, dict[str, str], str | None]:
    """Counts of all features, notes and name of the library, as they stand in the files."""
    # scanpy raises a bare Exception where a part is missing.
    with reading(path, "the counts", COUNTS_REMEDY):
        if isinstance(counts, CountTables):
            return _read_count_tables(counts), {}, None
        if counts.is_dir():
            return _read_count_tables(count_tables(counts)), {}, None
        with unpacked(counts) as file:
            return _read_counts_file(file), *_counts_notes(file)


def _gene_expression(adata: AnnData, path: Path) -> AnnData:
    """Leave out other features, once it is sure that compiled code may touch the matrix."""
    check_counts(adata, path)
    if FEATURE_TYPES not in adata.var:
        return adata
    chosen = (adata.var[FEATURE_TYPES] == GENE_EXPRESSION).to_numpy()
    return adata if chosen.all() else adata[:, chosen].copy()


def check_counts(adata: AnnData, path: Path) -> None:
    """Refuse a matrix that is damaged, or holds what no counts are.

    Raises
    ------
    ValueError
        If an index lies outside it, or values are no numbers, missing, infinite or negative.
    """
    problem = broken_sparse(adata.X)
    if problem is not None:
        raise unreadable(path, "the counts", f"the matrix is damaged: {problem}", COUNTS_REMEDY)
    if adata.X.dtype.kind not in "biuf":
        raise unreadable(path, "the counts", f"the values are of type {adata.X.dtype}", COUNTS_REMEDY)
    wrong = ~(np.isfinite(adata.X.data) & (adata.X.data >= 0))
    if wrong.any():
        raise unreadable(
            path, "the counts", f"{int(wrong.sum())} values are missing, infinite or negative", COUNTS_REMEDY
        )


def _read_counts_file(path: Path) -> AnnData:
    """Read an HDF5 file; features other than genes are kept, since leaving them out touches the matrix."""
    import scanpy as sc

    with h5py.File(path, "r") as file:
        # scipy would cut off the fractions of indices.
        for group in file.values():
            for name in ("indices", "indptr", "shape"):
                if isinstance(group, h5py.Group) and name in group and group[name].dtype.kind not in "iu":
                    raise ValueError(f"{name} are numbers of type {group[name].dtype}")
    return sc.read_10x_h5(path, gex_only=False)


def _counts_notes(path: Path) -> tuple[dict[str, str], str | None]:
    """Attributes of the HDF5 file: chemistry, version, library."""
    with h5py.File(path, "r") as file:
        notes = {key: _text(file.attrs[key]) for key in FILE_NOTES if key in file.attrs}
        names = np.atleast_1d(file.attrs.get("library_ids", []))
    return notes, _text(names[0]) if len(names) else None


def _text(value: object) -> str:
    # The first versions wrote arrays of one text.
    value = value.ravel()[0] if isinstance(value, np.ndarray) and value.size else value
    return value.decode() if isinstance(value, bytes) else str(value)


def _read_count_tables(tables: CountTables) -> AnnData:
    """Read the three tables; a gene, or a barcode, may be called NA."""
    with unpacked(tables.matrix) as file:
        matrix = csr_matrix(mmread(file).T)
    genes, barcodes = (
        pd.read_csv(io.StringIO(read_text(path)), sep="\t", header=None, dtype=str, keep_default_na=False)
        for path in (tables.features, tables.barcodes)
    )
    names = genes[min(1, genes.shape[1] - 1)]
    var = pd.DataFrame({"gene_ids": genes[0].to_numpy()}, index=pd.Index(names.to_numpy(), name=None))
    if genes.shape[1] > 2:
        var[FEATURE_TYPES] = genes[2].to_numpy()
    return AnnData(matrix.astype(np.float32), obs=pd.DataFrame(index=barcodes[0].to_numpy()), var=var)
