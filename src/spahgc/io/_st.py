"""Slides in the layout of the first spatial transcriptomics (ST) studies."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from spahgc._keys import SPATIAL, Obs
from spahgc._logging import HINT
from spahgc.image import open_image
from spahgc.io._files import existing_file, listed
from spahgc.io._joined import check_counts_on_tissue, check_shared
from spahgc.io._st_array import Layout, check_recognised, check_resolution, measured_scale, recognised_layout
from spahgc.io._st_names import positions_in
from spahgc.io._st_tables import PIXELS, PLACE, Counts, Spots, read_counts, read_spots
from spahgc.io._write_library import SPOT_DIAMETER, check_full_image, library_name, reduced_images, write_library

READER = "spahgc.io.st"
MIN_FIT_SPOTS = 3
"""Spots that an array can be fitted to."""

_logger = logging.getLogger(__name__)


def st(
    counts: str | os.PathLike[str] | None,
    spots: str | os.PathLike[str],
    image: str | os.PathLike[str],
    *,
    library_id: str | None = None,
    spot_pitch_um: float | None = None,
    mpp: float | None = None,
) -> AnnData:
    """Read a slide in the legacy ST layout: counts, spot table, H&E image.

    Parameters
    ----------
    counts
        Table of counts, spots x genes, tab- or comma-separated (.gz or not); rows are named by the place on the array,
        ``XxY``: whole (``6x2``) or as measured (``5.907x2.103``). ``None`` for a slide that was not measured: the result
        then has no genes.
    spots
        Table with the columns x, y (array), pixel_x, pixel_y (centre in pixels of `image`) and perhaps new_x, new_y (array,
        as measured) and `selected`; rows whose `selected` is not 1 are left out. Without x and y they are new_x and new_y,
        rounded.
    image
        The H&E image at full resolution: JPEG, PNG or TIFF.
    library_id
        Name of the slide; ``None`` takes the image's file name without its ending.
    spot_pitch_um
        Distance of neighbouring spots, microns. ``None`` recognises the array by the places of all spots of the table, those
        that are not selected included: 200 um on the square grid of the 1k array, 150 um from one field of a checkerboard
        to the next one across on the 2k array.
    mpp
        Microns per pixel of `image`, 0.1 to 20; ``None`` measures them by the pitch.

    Returns
    -------
    The spots that stand in both tables, in the order of the counts, named by their whole places:

    - `X`: counts, CSR, float32, spots x genes, genes named as in the table (Ensembl ids keep their version);
    - `obs`: `array_row` (y), `array_col` (x), `in_tissue` (1), `slide`;
    - `obsm["spatial"]`: spot centres (x, y), float64, pixels of the full-resolution image;
    - `uns["spatial"][library_id]`: `images` (`hires`, longest side 2,000 px at most, and `lowres`, 600 px),
      `scalefactors` (as scanpy and squidpy use them, and `microns_per_pixel`), and `metadata`: where the image is, its size,
      how many spots of either table were left out, `array` (what was recognised), `resolution_from`, `spot_pitch_um`, and
      `spot_diameter_um`, which is known of the 1k array alone (100 um); other spots are drawn half as wide as their pitch,
      and `spot_diameter` says so.

    The full-size image is not kept; :func:`spahgc.pp.embed` opens it again.

    Raises
    ------
    FileNotFoundError
        If one of the files is missing.
    TypeError
        If `mpp` is no number.
    ValueError
        If a table or the image is damaged, a column is missing, a gene or spot stands there twice, the tables share less
        than 0.8 of the spots of the smaller one (they are those of two sections), a spot centre is not finite, not on the
        image, or has x and y swapped, or neither array is recognised and neither `spot_pitch_um` nor `mpp` was passed.

    Warns
    -----
    UserWarning
        If the tables share less than 0.9 of the larger one, spots that are selected have no more counts than others, or `mpp`
        is 1.5 times the resolution that a recognised array gives, or more.

    Examples
    --------
    >>> import spahgc as sp
    >>> adata = sp.io.st("C2.tsv.gz", "C2_selection.tsv", "C2.jpg")  # doctest: +SKIP
    """
    check_resolution(spot_pitch_um, mpp)
    spots_path, image_path = existing_file(spots, "spots"), existing_file(image, "image").absolute()
    counts_path = None if counts is None else existing_file(counts, "counts")
    name = library_name(library_id, image_path)
    table = read_spots(spots_path)
    layout = st_layout(table)
    check_recognised(layout, table.label, given=spot_pitch_um is not None or mpp is not None)
    measured = None if counts_path is None else read_counts(counts_path)
    return st_slide(measured, table, layout, image_path, name, spot_pitch_um=spot_pitch_um, mpp=mpp)


def st_layout(spots: Spots) -> Layout:
    """Recognise the array by all spots of a table; the selected ones say how it lies in the image, if they do."""
    selected = spots.selected
    every = pd.concat([selected, spots.others])
    grid = every[PLACE].to_numpy(np.float64)
    placed = selected if _spread(selected) else _placed(every)
    whole = np.isfinite(grid).all(axis=1) & (grid == grid.round()).all(axis=1)
    return recognised_layout(grid[whole], placed[PLACE].to_numpy(np.float64), placed[PIXELS].to_numpy(np.float64))


def _spread(spots: pd.DataFrame) -> bool:
    """Whether spots do not lie on one line of the array."""
    grid = spots[PLACE].to_numpy(np.float64)
    return len(grid) >= MIN_FIT_SPOTS and bool(np.linalg.matrix_rank(grid - grid[0]) == grid.shape[1])


def _placed(spots: pd.DataFrame) -> pd.DataFrame:
    """The spots whose places and pixels are known."""
    return spots.loc[np.isfinite(spots[[*PLACE, *PIXELS]].to_numpy(np.float64)).all(axis=1)]


def st_slide(
    counts: Counts | None,
    spots: Spots,
    layout: Layout,
    image_path: Path,
    name: str,
    *,
    spot_pitch_um: float | None = None,
    mpp: float | None = None,
    reader: str = READER,
    record: dict[str, str | int] | None = None,
) -> AnnData:
    """Put a slide together from its tables; the parts, results and errors are those of :func:`st`."""
    table = spots.selected
    matrix = csr_matrix((len(table), 0), dtype=np.float32)
    genes: pd.Index = pd.Index([], dtype=object)
    left_out = {"n_spots_not_selected": len(spots.others)}
    if counts is not None:
        genes = counts.genes
        matrix, table, dropped = _join(counts, spots)
        left_out |= dropped
    _logger.log(HINT, "%s: %d spots, %d genes; left out: %s", name, len(table), len(genes), left_out)

    xy = table[PIXELS].to_numpy(np.float64)
    every = pd.concat([table, _placed(pd.concat([spots.selected.drop(index=table.index), spots.others]))])
    kept: NDArray[np.bool_] = np.arange(len(every)) < len(table)
    grid, placed = every[PLACE].to_numpy(np.float64), every[PIXELS].to_numpy(np.float64)
    scale = measured_scale(layout, grid, placed, kept, spots.label, spot_pitch_um=spot_pitch_um, mpp=mpp)
    # The file is decoded only if all spots lie on it.
    image_metadata = check_full_image(image_path, xy, Path(spots.label), {}, {})
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
    diameters = dict.fromkeys((SPOT_DIAMETER, "fiducial_diameter_fullres"), scale.diameter_px)
    metadata = {**image_metadata, "reader": reader, **left_out, **scale.record, **(record or {})}
    write_library(adata, name, images, {**scales, **diameters}, metadata, mpp=scale.mpp)
    return adata


def _join(counts: Counts, spots: Spots) -> tuple[csr_matrix, pd.DataFrame, dict[str, int]]:
    """Keep the spots that stand in both tables, in the order of the counts; those not selected are known, and left out.

    Returns
    -------
    Counts, spots, and how many of either table were left out.
    """
    table, names = spots.selected, counts.spots
    position = positions_in(names, table, counts.label)
    shared: NDArray[np.intp] = np.flatnonzero(position >= 0)
    if not len(shared):
        raise ValueError(
            f'no spot stands both in the counts "{counts.label}" (spots {listed(names)}) and in the spot table '
            f'"{spots.label}" (spots {listed(table.index)}). Do both belong to the same slide?'
        )
    off_tissue = (positions_in(names, spots.others, counts.label) >= 0) & (position < 0)
    check_shared(len(shared), len(names) - int(off_tissue.sum()), len(table), counts.label, spots.label)
    measured = off_tissue | (position >= 0)
    totals = np.asarray(counts.matrix.sum(axis=1)).ravel()
    check_counts_on_tissue(totals[measured], position[measured] >= 0, counts.label, spots.label)
    left_out = {
        "n_counts_without_spot": int(len(names) - len(shared)),
        "n_spots_without_counts": int(len(table) - len(shared)),
    }
    return counts.matrix[shared], table.iloc[position[shared]], left_out
