"""What all outputs of Space Ranger share: counts, positions, scale factors and reduced images of one slide."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from spahgc._keys import SPATIAL, Obs
from spahgc._validate import quoted
from spahgc.image import open_image
from spahgc.image._source import Pixels
from spahgc.io._library import check_full_image, check_library_id, reduced_images
from spahgc.io._positions import IN_TISSUE, PIXEL_COL, PIXEL_ROW, find_positions, join_positions, read_positions
from spahgc.io._st_tables import existing_file
from spahgc.io._ten_x_counts import find_counts, read_counts

OUTS, SPATIAL_FOLDER, BINS_FOLDER = "outs", "spatial", "binned_outputs"
SCALE_FILE = "scalefactors_json.json"
DIAMETER = "spot_diameter_fullres"
IMAGES = {
    "hires": ("tissue_hires_image.png", "tissue_hires_scalef"),
    "lowres": ("tissue_lowres_image.png", "tissue_lowres_scalef"),
}
"""File and scale factor of each reduced image."""

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
    metadata: dict[str, Any]


def run_folder(path: str | os.PathLike[str]) -> Path:
    """Find the folder of a run that holds its results: the one named, or ``outs`` in it.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    """
    folder = Path(path)
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        raise FileNotFoundError(
            f'path: "{folder}" is not a folder ({found} is there). Pass the folder of a Space Ranger run, or its outs/.'
        )
    own = any((folder / name).exists() for name in (SPATIAL_FOLDER, BINS_FOLDER))
    return folder / OUTS if (folder / OUTS).is_dir() and not own else folder


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
            f"holds {quoted(sorted(item.name for item in folder.iterdir()))}. Copy it from the run, or pass the folder "
            "that has it."
        )
    image_path = None if image is None else existing_file(image, "image")
    counts_path, positions_path = find_counts(folder, counts), find_positions(spatial)
    scales = _read_scales(spatial)
    positions = read_positions(positions_path)
    measured, notes, own_name = read_counts(counts_path)
    adata, table, left_out = join_positions(measured, positions, (counts_path, positions_path))
    name = check_library_id(library_id if library_id is not None else own_name or default_name)
    _logger.info("%s: %d spots, %d genes; left out: %s", name, *adata.shape, left_out)

    xy = table[[PIXEL_COL, PIXEL_ROW]].to_numpy(np.float64)
    images = _read_images(spatial, scales)
    metadata = {"reader": reader, **notes, **left_out}
    if image_path is not None:
        metadata |= check_full_image(image_path, xy, positions_path, images, scales)
        if "hires" not in images:
            with open_image(image_path) as open_references:
                images, made = reduced_images(open_references)
            scales |= made
    adata.obs = _obs(table, name)
    adata.obsm[SPATIAL] = xy
    return Slide(adata, name, positions, images, scales, metadata)


def finished(slide: Slide, mpp: float | None) -> AnnData:
    """Put the images and the resolution of a slide where scanpy, squidpy and this package look for them."""
    scales = dict(slide.scales)
    if mpp is not None:
        scales["microns_per_pixel"] = mpp
    slide.adata.uns[SPATIAL] = {
        slide.name: {"images": slide.images, "scalefactors": scales, "metadata": slide.metadata}
    }
    return slide.adata


def _obs(table: pd.DataFrame, name: str) -> pd.DataFrame:
    columns = {key: table[key].astype(np.int64) for key in (IN_TISSUE, Obs.array_row, Obs.array_col)}
    return pd.DataFrame(columns, index=table.index).assign(**{Obs.slide: pd.Categorical([name] * len(table))})


def _read_scales(spatial: Path) -> dict[str, float]:
    """Read the scale factors; those that images and spots need must be there."""
    path = spatial / SCALE_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f'"{path}" is missing, without which nobody knows how large spots and images are. Copy it from the run.'
        )
    try:
        entries = json.loads(path.read_bytes()).items()
    except (ValueError, AttributeError) as error:
        raise ValueError(
            f'the scale factors "{path}" ({path.stat().st_size:,} bytes) cannot be read: {error}. They must be numbers '
            "by name, as JSON; copy the file again."
        ) from error
    scales = {key: float(value) for key, value in entries if isinstance(value, int | float)}
    needed = [DIAMETER, *(scale for file, scale in IMAGES.values() if (spatial / file).is_file())]
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
