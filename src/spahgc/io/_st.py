"""Slides in the layout of the first spatial transcriptomics (ST) studies."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.spatial import KDTree

from spahgc._keys import SPATIAL, Obs
from spahgc.image import describe_outside, open_image
from spahgc.io._library import check_library_id, reduced_images
from spahgc.io._st_tables import existing_file, join, read_counts, read_spots

SPOT_PITCH_UM = 200.0
"""Distance of neighbouring spots on the array."""
SPOT_DIAMETER_UM = 100.0
SAME_DISTANCE = 1e-6

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
        If a table or the image is damaged, a column is missing, a gene or spot stands there twice, the tables share no
        spot, or a spot centre is not finite or not on the image.

    Examples
    --------
    >>> import spahgc as sp
    >>> adata = sp.io.st("C2.tsv.gz", "C2_selection.tsv", "C2.jpg")  # doctest: +SKIP
    """
    spots_path, image_path = existing_file(spots, "spots"), existing_file(image, "image").absolute()
    counts_path = None if counts is None else existing_file(counts, "counts")
    name = check_library_id(image_path.stem if library_id is None else library_id)

    table, n_not_selected = read_spots(spots_path)
    matrix = csr_matrix((len(table), 0), dtype=np.float32)
    genes: pd.Index = pd.Index([], dtype=object)
    left_out = {"n_spots_not_selected": n_not_selected}
    if counts_path is not None:
        measured, names, genes = read_counts(counts_path)
        matrix, table, dropped = join(measured, names, table, (counts_path, spots_path))
        left_out |= dropped
    _logger.info("%s: %d spots, %d genes; left out: %s", name, len(table), len(genes), left_out)

    xy = table[["pixel_x", "pixel_y"]].to_numpy(np.float64)
    mpp = SPOT_PITCH_UM / _pitch_px(table[["x", "y"]].to_numpy(np.float64), xy, spots_path)
    spatial = _spatial(image_path, xy, mpp, left_out, spots_path)

    obs = pd.DataFrame(
        {
            Obs.array_row: table["y"].astype(np.int64),
            Obs.array_col: table["x"].astype(np.int64),
            "in_tissue": np.ones(len(table), dtype=np.int64),
            Obs.slide: pd.Categorical([name] * len(table)),
        },
        index=table.index,
    )
    adata = AnnData(matrix, obs=obs, var=pd.DataFrame(index=genes))
    adata.obsm[SPATIAL] = xy
    adata.uns[SPATIAL] = {name: spatial}
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


def _spatial(
    path: Path, xy: NDArray[np.float64], mpp: float, left_out: dict[str, int], spots_path: Path
) -> dict[str, Any]:
    """Make scanpy's record of the images; the file is decoded only if all spots lie on it."""
    with open_image(path) as image:
        outside = describe_outside(xy, height=image.height, width=image.width)
        if outside is not None:
            raise ValueError(f'"{spots_path}" and "{path}": {outside}')
        size = {"image_height_px": image.height, "image_width_px": image.width}
        images, scales = reduced_images(image)
    return {
        "images": images,
        "scalefactors": {
            **scales,
            "spot_diameter_fullres": SPOT_DIAMETER_UM / mpp,
            "fiducial_diameter_fullres": SPOT_DIAMETER_UM / mpp,
            "microns_per_pixel": mpp,
        },
        "metadata": {"source_image_path": str(path), "reader": "spahgc.io.st", **size, **left_out},
    }
