"""Output bundles of the Xenium analyser: cells, on the H&E image that was aligned to them."""

from __future__ import annotations

import importlib.util
import io
import logging
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csc_matrix, csr_matrix

from spahgc._installation import install_command
from spahgc._logging import HINT, warn
from spahgc._reading import broken_arrays, reading, unreadable
from spahgc._slides.polygons import Polygons
from spahgc._validate import quoted, user_path
from spahgc.io._alignment import length_scale, read_alignment, transformed
from spahgc.io._cell_slide import MIN_COUNTS, Cells, check_finite, check_min_counts, check_outline_size, finish_cells
from spahgc.io._controls import without_controls
from spahgc.io._files import existing_file, folder_content, read_bytes, read_json, refuse_repeated
from spahgc.io._space_ranger import COUNTS_REMEDY, FEATURE_TYPES, check_counts, whole_counts
from spahgc.io._write_library import library_name

EXPERIMENT = "experiment.xenium"
MATRICES = ("cell_feature_matrix.h5", "cell_feature_matrix.zarr.zip", "cell_feature_matrix.zarr", "cell_feature_matrix")
"""The counts, the fastest to read first."""
CELLS, CELL_BOUNDARIES, NUCLEUS_BOUNDARIES = "cells", "cell_boundaries", "nucleus_boundaries"
TABLE_ENDINGS = (".parquet", ".csv.gz", ".csv")
CENTRE, VERTEX, CELL_ID = ("x_centroid", "y_centroid"), ("vertex_x", "vertex_y"), "cell_id"
CELL_AREA = "cell_area"
"""Column of the table of cells: square microns."""
LETTERS = "abcdefghijklmnop"
"""The sixteen digits of a cell's name."""
REMEDY = "Copy the bundle again."
NOTED = ("analysis_sw_version", "panel_name", "region_name")
"""Entries of the experiment file that are kept."""
OUTLINES = {"cell": CELL_BOUNDARIES, "nucleus": NUCLEUS_BOUNDARIES}

_logger = logging.getLogger(__name__)


def xenium(
    path: str | os.PathLike[str],
    *,
    image: str | os.PathLike[str] | None = None,
    alignment: str | os.PathLike[str] | ArrayLike | None = None,
    polygons: bool | str = False,
    min_counts: int = MIN_COUNTS,
    library_id: str | None = None,
) -> AnnData:
    """Read the cells of a Xenium slide, on the H&E image that was aligned to it.

    Bundles of the analyser 1 to 4: counts from ``cell_feature_matrix.h5``, ``.zarr.zip`` or the folder, cells from
    ``cells.parquet`` or ``cells.csv.gz``.

    Parameters
    ----------
    path
        The folder of the bundle, which holds ``experiment.xenium``.
    image
        The H&E image, scanned after the run. ``None`` leaves the cells in pixels of the morphology image, which no encoder
        of H&E can see.
    alignment
        How that image lies on the morphology image: the file that Xenium Explorer exports, a 3 x 3 matrix
        (``*_imagealignment.csv``) or key points, or the matrix itself, from pixels of the H&E image to pixels of the
        morphology image. Needed with `image`; ``numpy.eye(3)`` for an image that was resampled to the morphology image.
    polygons
        Read the outlines of the cells as well (``True`` or ``"cell"``), or of their nuclei (``"nucleus"``).
    min_counts
        Cells with fewer counts of genes are flagged in ``obs["few_counts"]``; none is left out for it.
    library_id
        Name of the slide; ``None`` takes the name of the folder.

    Returns
    -------
    Cells x genes:

    - `X`: counts, CSR, float32; genes alone;
    - `obs`: the bundle's own columns (``x_centroid`` and ``y_centroid`` in microns), `area_um2`, `few_counts`, `slide`;
    - `obsm["spatial"]`: centres (x, y), float64, pixels of the H&E image (of the morphology image without one);
    - `obsm["controls"]`: counts of control probes and of blank, unassigned and deprecated codewords by kind, their names in
      `uns["spahgc"]["controls"]`;
    - `obsm["polygons"]`: outlines, where they were asked for: CSR, float32, row i holds x0, y0, x1, y1, ... of cell i in
      pixels (:func:`spahgc.io.shapes` makes a table of shapes of them);
    - `uns["spatial"][library_id]`: images, scale factors (``spot_diameter_fullres`` is that of a cell of the median area),
      and `metadata` with the matrix of the alignment.

    Raises
    ------
    ImportError
        If pyarrow is missing and the bundle keeps its cells as parquet alone: ``pip install "spahgc[hd]"``.
    FileNotFoundError
        If the folder, the counts, the cells, or the image is missing.
    ValueError
        If a file is damaged, counts and cells differ, `image` is no H&E image (a morphology image, for example), more than
        5 % of the cells lie outside of it, or the alignment is none.

    Warns
    -----
    UserWarning
        If no H&E image was named, or some cells lie outside of it and are left out.

    Examples
    --------
    >>> import spahgc as sp
    >>> cells = sp.io.xenium("output-XETG0001", image="he.ome.tif", alignment="he_imagealignment.csv")  # doctest: +SKIP
    """
    folder, min_counts = _bundle(path), check_min_counts(min_counts)
    outlines = _outline_file(folder, polygons)
    image_path = None if image is None else existing_file(image, "image")
    to_morphology = _matrix(image_path, alignment)
    name = library_name(library_id, None, otherwise=folder.absolute().name)
    pixel_um, notes = _experiment(folder)

    adata = _read_cells(folder)
    centres_um = adata.obs[list(CENTRE)].to_numpy(np.float64)
    check_finite(centres_um, adata.obs_names, f'"{folder}"')
    from_um = np.asarray(np.linalg.inv(to_morphology) @ np.diag([1 / pixel_um, 1 / pixel_um, 1.0]), dtype=np.float64)
    drawn = None if outlines is None else _read_outlines(outlines, adata.obs_names)
    if drawn is not None:
        # In microns as they stand in the file.
        check_outline_size(drawn, 1.0, f'the outlines in "{outlines}"')
        drawn = drawn.moved(from_um)
    if image_path is None:
        warn(
            f'no H&E image was named for slide "{name}": the cells are in pixels of the morphology image, in which nothing can be '
            "embedded. Pass image= with the H&E image, and alignment= with the file that Xenium Explorer exports.",
            stacklevel=2,
        )
    cells = Cells(
        adata,
        transformed(from_um, centres_um),
        adata.obs[CELL_AREA].to_numpy(np.float64) if CELL_AREA in adata.obs else None,
        drawn,
        f'the cells of "{folder}"',
        {"reader": "spahgc.io.xenium", **notes, "alignment": to_morphology},
    )
    _logger.log(HINT, "%s: %d cells, %d genes", name, *adata.shape)
    return finish_cells(cells, name, pixel_um * length_scale(to_morphology), image_path, min_counts=min_counts)


def _bundle(path: str | os.PathLike[str]) -> Path:
    folder = user_path(path, "path")
    if not folder.is_dir():
        kind = "a file" if folder.exists() else "nothing"
        raise FileNotFoundError(
            f'path: "{folder}" is not a folder ({kind} is there). Pass the folder of a Xenium bundle.'
        )
    if not (folder / EXPERIMENT).is_file():
        raise FileNotFoundError(
            f'"{folder}" has no {EXPERIMENT}, which says how wide a pixel is; it holds {folder_content(folder)}. Pass the folder of a '
            "Xenium bundle (output-XETG...), unpacked."
        )
    return folder


def _matrix(image: Path | None, alignment: str | os.PathLike[str] | ArrayLike | None) -> NDArray[np.float64]:
    """From pixels of the H&E image to those of the morphology image."""
    if image is None:
        if alignment is not None:
            raise ValueError("alignment= says how an H&E image lies on the slide; pass that image as image=.")
        return np.eye(3)
    if alignment is None:
        raise ValueError(
            f'image="{image}" was scanned after the run, and nothing says how it lies on the cells. Pass alignment= with the file '
            "that Xenium Explorer exports (*_imagealignment.csv, or key points), or numpy.eye(3) if it was resampled to the "
            "pixels of the morphology image."
        )
    return read_alignment(alignment)


def _experiment(folder: Path) -> tuple[float, dict[str, object]]:
    """Microns per pixel of the morphology image, and what else is noted of the run."""
    entries = dict(read_json(folder / EXPERIMENT, "the experiment file", REMEDY))
    pixel = entries.get("pixel_size")
    if isinstance(pixel, bool) or not isinstance(pixel, int | float) or not (np.isfinite(pixel) and pixel > 0):
        raise ValueError(
            f'"{folder / EXPERIMENT}" has pixel_size {pixel!r}, not a positive number of microns. {REMEDY}'
        )
    notes: dict[str, object] = {key: str(entries[key]) for key in NOTED if key in entries}
    return float(pixel), {**notes, "morphology_um_per_px": float(pixel)}


def _table_file(folder: Path, stem: str) -> Path | None:
    """A table of the bundle: as parquet where that can be read, else as text."""
    found = [folder / f"{stem}{ending}" for ending in TABLE_ENDINGS if (folder / f"{stem}{ending}").is_file()]
    readable = [file for file in found if file.suffix != ".parquet" or importlib.util.find_spec("pyarrow") is not None]
    if found and not readable:
        raise ImportError(f'"{found[0]}" is a parquet file, which needs pyarrow. Run {install_command("hd")}.')
    return readable[0] if readable else None


def _read_table(path: Path, label: str, columns: tuple[str, ...]) -> pd.DataFrame:
    with reading(path, label, REMEDY):
        if path.suffix == ".parquet":
            table = pd.read_parquet(io.BytesIO(read_bytes(path)), engine="pyarrow")
        else:
            table = pd.read_csv(
                io.BytesIO(read_bytes(path)), dtype={CELL_ID: str}, keep_default_na=False, na_values=[""]
            )
    missing = [name for name in columns if name not in table]
    if missing:
        raise unreadable(path, label, f"columns {quoted(missing)} are missing, it has {quoted(table.columns)}", REMEDY)
    first = table[CELL_ID].iloc[0] if len(table) else ""
    # Early versions wrote bytes, the first ones numbers.
    text = table[CELL_ID].str.decode("utf-8") if isinstance(first, bytes) else table[CELL_ID].astype(str)
    numbers = table[list(columns[1:])].apply(pd.to_numeric, errors="coerce")
    return table.assign(**{CELL_ID: text, **{name: numbers[name] for name in numbers}})


def _read_cells(folder: Path) -> AnnData:
    """Counts of the genes, with the table of cells in ``obs``; in the order of the counts."""
    file = _table_file(folder, CELLS)
    if file is None:
        raise FileNotFoundError(
            f'no table of cells in "{folder}": neither {CELLS}.parquet nor {CELLS}.csv.gz is there, only {folder_content(folder)}. {REMEDY}'
        )
    counts = _read_counts(folder)
    table = _read_table(file, "the cells", (CELL_ID, *CENTRE))
    if CELL_AREA in table:
        areas = pd.to_numeric(table[CELL_AREA], errors="coerce")
        broken = int((areas.isna() & table[CELL_AREA].notna()).sum())
        if broken:
            raise unreadable(file, "the cells", f'column "{CELL_AREA}" holds no number for {broken} cells', REMEDY)
        table = table.assign(**{CELL_AREA: areas})
    table = table.set_index(CELL_ID)
    table.index.name = None
    refuse_repeated(table.index, f'cells in "{file}"', REMEDY)
    rows = table.index.get_indexer(counts.obs_names)
    unknown = counts.obs_names[rows < 0]
    if len(unknown):
        raise ValueError(
            f'{len(unknown)} of {counts.n_obs} cells of the counts in "{folder}" ({quoted(unknown, 3)}) are not in "{file.name}" '
            f"({quoted(table.index, 3)}, {len(table)} in all). Do both belong to the same run?"
        )
    counts.obs = table.iloc[rows]
    return without_controls(counts)


def _read_counts(folder: Path) -> AnnData:
    """Counts of all features, controls among them."""
    found = next((folder / name for name in MATRICES if (folder / name).exists()), None)
    if found is None:
        raise FileNotFoundError(
            f'no counts in "{folder}": none of {", ".join(MATRICES)} is there, only {folder_content(folder)}. Copy one of them from '
            "the run."
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Variable names are not unique")
        adata = _read_zarr(found) if ".zarr" in found.suffixes else whole_counts(found, found)[0]
        check_counts(adata, found)
        if not adata.n_obs or not adata.n_vars:
            raise ValueError(f'the counts "{found}" hold {adata.n_obs} cells and {adata.n_vars} features. {REMEDY}')
        refuse_repeated(adata.obs_names, f'cells in the counts "{found}"', REMEDY)
        adata.X = csr_matrix(adata.X, dtype=np.float32)
        adata.var_names_make_unique()
    return adata


def _read_zarr(path: Path) -> AnnData:
    """The matrix as Xenium Explorer reads it: features x cells, compressed by feature."""
    import zarr

    with reading(path, "the counts", COUNTS_REMEDY):
        store = zarr.storage.ZipStore(path, mode="r") if path.suffix == ".zip" else path
        group: Any = zarr.open_group(store, mode="r")["cell_features"]
        attributes: dict[str, Any] = dict(group.attrs)
        data, indices, indptr, cell_id = (np.asarray(group[key][:]) for key in ("data", "indices", "indptr", CELL_ID))
        names, ids, types = (list(attributes[key]) for key in ("feature_keys", "feature_ids", "feature_types"))
        if len({len(names), len(ids), len(types)}) > 1:
            raise ValueError(f"{len(names)} features have {len(ids)} identifiers and {len(types)} types")
    problem = broken_arrays(data, indices, indptr, n_major=len(names), n_minor=len(cell_id), places="cells")
    if problem is not None:
        raise unreadable(path, "the counts", problem, COUNTS_REMEDY)
    matrix = csc_matrix((data, indices, indptr), shape=(len(cell_id), len(names))).tocsr().astype(np.float32)
    var = pd.DataFrame(
        {"gene_ids": ids, FEATURE_TYPES: [_type(text) for text in types]}, index=pd.Index(names, dtype=object)
    )
    return AnnData(matrix, obs=pd.DataFrame(index=[_cell_name(row) for row in cell_id]), var=var)


def _type(text: object) -> str:
    """A type of features as the other files of the bundle write it: ``Gene Expression`` for ``gene``."""
    words = str(text).replace("_", " ").strip()
    return "Gene Expression" if words.lower() in {"gene", "gene expression"} else words.title()


def _cell_name(row: NDArray[np.integer] | np.integer) -> str:
    """Name of a cell: eight letters and the number of the segmentation; in the first versions a number."""
    numbers = np.atleast_1d(row)
    if len(numbers) == 1:
        return str(int(numbers[0]))
    digits = f"{int(numbers[0]):08x}"
    return "".join(LETTERS[int(digit, 16)] for digit in digits) + f"-{int(numbers[1])}"


def _outline_file(folder: Path, polygons: bool | str) -> Path | None:
    if polygons is False:
        return None
    kind = "cell" if polygons is True else polygons
    if kind not in OUTLINES:
        raise ValueError(
            f'polygons={polygons!r}; pass True or "cell" for outlines of cells, "nucleus" for those of nuclei, or False'
        )
    file = _table_file(folder, OUTLINES[kind])
    if file is None:
        raise FileNotFoundError(
            f'polygons={polygons!r}: neither {OUTLINES[kind]}.parquet nor .csv.gz is in "{folder}", which holds '
            f"{folder_content(folder)}. Copy it from the run, or pass polygons=False."
        )
    return file


def _read_outlines(path: Path, cells: pd.Index) -> Polygons:
    """Outlines in microns, one a cell; of a cell with several nuclei the largest."""
    table = _read_table(path, "the outlines", (CELL_ID, *VERTEX))
    broken = int((~np.isfinite(table[list(VERTEX)].to_numpy(np.float64))).any(axis=1).sum())
    if broken:
        raise unreadable(path, "the outlines", f"{broken} of its {len(table)} vertices are no finite numbers", REMEDY)
    label = table["label_id"] if "label_id" in table else pd.Series(0, index=table.index)
    grouped = table.groupby([table[CELL_ID], label], sort=False)
    codes = grouped.ngroup().to_numpy()
    pairs = table[CELL_ID].groupby(codes).first()
    all_outlines = Polygons.of_table(table[list(VERTEX)].to_numpy(np.float64), codes.astype(np.int64), len(pairs))
    order = np.argsort(all_outlines.areas, kind="stable")
    # The last one that is written stays: the largest.
    owner = cells.get_indexer(pd.Index(pairs.to_numpy()[order]))
    chosen = np.full(len(cells), -1, dtype=np.int64)
    chosen[owner[owner >= 0]] = order[owner >= 0]
    if not len(pairs) or not (chosen >= 0).any():
        raise ValueError(
            f'"{path}" has the outline of none of the {len(cells)} cells ({quoted(cells, 3)}). Do both belong to one run?'
        )
    kept = Polygons(
        np.concatenate([all_outlines.vertices, np.empty((0, 2))]),
        np.concatenate([all_outlines.starts, all_outlines.starts[-1:]]),
    )
    return kept[np.where(chosen >= 0, chosen, len(pairs))]
