"""Samples of HEST-1k, as the data set lays them out."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, issparse

from spahgc._keys import HEST, SPATIAL
from spahgc._reading import read_h5ad, reading, unreadable
from spahgc._validate import quoted, user_path
from spahgc.image import describe_outside, open_image
from spahgc.image._eight_bits import rgb_of_8_bits
from spahgc.image._source import Pixels
from spahgc.io._files import existing_file, read_json, refuse_repeated
from spahgc.io._space_ranger import PIXEL_COL, PIXEL_ROW
from spahgc.io._write_library import (
    SPOT_DIAMETER,
    check_full_image,
    check_library_id,
    reduced_images,
    reduced_lowres,
    write_library,
)

COUNTS, SLIDE = "st/{}.h5ad", "wsis/{}.tif"
IMAGE, IMAGE_SCALE = "downscaled_fullres", "tissue_downscaled_fullres_scalef"
"""HEST's names of the reduced image and its scale factor."""
REPOSITORY = "MahmoodLab/hest"
METADATA, TABLE = "metadata/{}.json", "HEST_v*.csv"
RESOLUTIONS = ("pixel_size_um_estimated", "pixel_size_um_embedded")
"""Microns per pixel: what HEST measured on the spots, and what the image file says."""
METADATA_COLUMNS = ("patient", "organ", "disease_state")
"""Metadata that become columns of ``obs``."""
MAX_OUTSIDE = 0.05
"""Share of spots that may lie off the image; HEST leaves these out itself. More means a wrong image."""

COUNTS_REMEDY = "It is damaged or was not downloaded to its end; fetch it again."
REPEATED_GENES = "Variable names are not unique"
"""How anndata warns of gene names that occur twice, at each step; here they are made unique."""

_logger = logging.getLogger(__name__)

Metadata = dict[str, str | bool | int | float]
"""What HEST says of a sample, by its own names."""


def hest(
    path: str | os.PathLike[str],
    sample_id: str,
    *,
    image: str | os.PathLike[str] | None = None,
    metadata: str | os.PathLike[str] | None = None,
    library_id: str | None = None,
) -> AnnData:
    """Read a sample of HEST-1k: ``st/ID.h5ad``, ``wsis/ID.tif`` and its metadata.

    Parameters
    ----------
    path
        The folder of the data set, which holds ``st``, ``wsis`` and ``metadata``.
    sample_id
        HEST's name of the sample, e.g. ``"NCBI681"`` or ``"TENX116"``.
    image
        The full-resolution image, if it does not lie in ``wsis``.
    metadata
        HEST's table of all samples (``HEST_v1_1_0.csv``); ``None`` takes one that lies in `path`. What
        ``metadata/ID.json`` says goes before it.
    library_id
        Name of the slide; ``None`` takes `sample_id`.

    Returns
    -------
    All spots of the sample whose centre lies on the image:

    - `X`: counts, CSR, float32, spots x genes; `var` as HEST has it, its names made unique;
    - `obs`: as HEST has it, and `slide`, and `patient`, `organ`, `disease_state` where they are known. HEST's
      `in_tissue` is kept but not used, since HEST itself calls it inaccurate;
    - `obsm["spatial"]`: spot centres (x, y), float64, pixels of the image;
    - `uns["spatial"][library_id]`: `images` (`hires`: HEST's reduced image, and `lowres`), `scalefactors` (with
      `microns_per_pixel`: `pixel_size_um_estimated` of the metadata), and `metadata` (where the image is and its size,
      how many spots were left out);
    - `uns["hest"]`: the metadata of the sample: technology, species, licence, ...

    Raises
    ------
    FileNotFoundError
        If one of the files is missing; the message says how to fetch it.
    ValueError
        If a file is damaged, positions are missing or not finite, the resolution is unknown, or the image is not the
        one that the positions belong to.

    Examples
    --------
    >>> import spahgc as sp
    >>> adata = sp.io.hest("hest_data", "NCBI681")  # doctest: +SKIP
    """
    root = user_path(path, "path")
    name = check_library_id(sample_id if library_id is None else library_id)
    counts_path = _sample_file(root, COUNTS, sample_id)
    image_path = _sample_file(root, SLIDE, sample_id) if image is None else existing_file(image, "image")
    sample = _read_metadata(root, sample_id, None if metadata is None else user_path(metadata, "metadata"))
    mpp = _sample_mpp(sample, sample_id)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=REPEATED_GENES)
        source = _read_counts(counts_path)
    xy = _positions(source, counts_path)
    inside = _spots_on_image(xy, image_path, sample_id)
    images, scales = _stored_images(source, counts_path)
    image_metadata = check_full_image(image_path, xy[inside], counts_path, images, scales)
    if not images:
        with open_image(image_path) as opened:
            images, scales = reduced_images(opened)
    diameter = _spot_diameter(source, sample, mpp)
    if diameter is not None:
        scales[SPOT_DIAMETER] = diameter

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=REPEATED_GENES)
        counts = csr_matrix(source.X, dtype=np.float32)[inside]
        adata = AnnData(counts, obs=source.obs[inside].copy(), var=source.var.copy())
    adata.var_names_make_unique()
    adata.obsm[SPATIAL] = xy[inside]
    adata.uns[HEST] = sample
    left_out = {"n_spots_outside_image": int((~inside).sum())}
    write_library(adata, name, images, scales, {"reader": "spahgc.io.hest", **image_metadata, **left_out}, mpp=mpp)
    for key in METADATA_COLUMNS:
        if key in sample:
            adata.obs[key] = pd.Categorical([str(sample[key])] * adata.n_obs)
    return adata


def _sample_file(root: Path, layout: str, sample_id: str) -> Path:
    """Find a file of the sample."""
    file = root / layout.format(sample_id)
    if file.is_file():
        return file
    samples = sorted(item.stem for item in file.parent.glob(f"*{file.suffix}")) if file.parent.is_dir() else []
    if not root.is_dir():
        raise FileNotFoundError(f'path: "{root}" is not a folder. Pass the folder that holds st/, wsis/ and metadata/.')
    raise FileNotFoundError(
        f'"{file}" is missing; samples in "{file.parent}": {quoted(samples)}. '
        f"{_how_to_fetch(root, layout.format(sample_id))}"
    )


def _read_counts(path: Path) -> AnnData:
    adata = read_h5ad(path, "the file", COUNTS_REMEDY)
    if not adata.n_obs or not adata.n_vars or adata.X is None:
        raise ValueError(f'"{path}" holds {adata.n_obs} spots and {adata.n_vars} genes. Fetch it again.')
    refuse_repeated(adata.obs_names, f'spots in "{path}"', "Fetch the file again.")
    values = adata.X.data if issparse(adata.X) else np.asarray(adata.X)
    if values.dtype.kind not in "biuf" or not (np.isfinite(values).all() and (values >= 0).all()):
        raise unreadable(path, "the file", "X holds text, or missing, infinite or negative numbers", COUNTS_REMEDY)
    return adata


def _hest_library(adata: AnnData) -> dict[str, Mapping[str, Any]]:
    """Return HEST's own entry of ``uns["spatial"]``, which it calls ST whatever the technology."""
    records = adata.uns.get(SPATIAL, {})
    records = records if isinstance(records, Mapping) else {}
    record: Any = records.get("ST") or next(iter(records.values()), {})
    record = record if isinstance(record, Mapping) else {}
    return {key: value for key, value in record.items() if isinstance(value, Mapping)}


def _positions(adata: AnnData, path: Path) -> NDArray[np.float64]:
    """Spot centres (x, y) in pixels of the image."""
    if SPATIAL in adata.obsm:
        with reading(path, "the positions in", COUNTS_REMEDY):
            xy = np.asarray(adata.obsm[SPATIAL], dtype=np.float64)[:, :2]
            if xy.shape[1] != 2:
                raise ValueError(f"x and y are needed, found shape {xy.shape}")
    elif {PIXEL_COL, PIXEL_ROW} <= set(adata.obs):
        xy = adata.obs[[PIXEL_COL, PIXEL_ROW]].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    else:
        raise ValueError(
            f'"{path}" has no positions: neither obsm["{SPATIAL}"] nor the columns {PIXEL_COL} and {PIXEL_ROW} of obs '
            f"are there; obsm has {quoted(adata.obsm)}, obs has {quoted(adata.obs.columns)}. Fetch the file again."
        )
    broken = ~np.isfinite(xy).all(axis=1)
    if broken.any():
        raise ValueError(
            f'{broken.sum()} of {len(xy)} spots in "{path}" have positions that are not finite numbers '
            f"({quoted(adata.obs_names[broken])}). Fetch the file again, or remove these spots from it."
        )
    return xy


def _spots_on_image(xy: NDArray[np.float64], path: Path, sample_id: str) -> NDArray[np.bool_]:
    """Find the spots whose centre lies on the image; HEST has a few at the edge that do not."""
    with open_image(path) as image:
        height, width = image.height, image.width
    inside = np.asarray((xy >= 0).all(axis=1) & (xy[:, 0] <= width) & (xy[:, 1] <= height))
    if (~inside).mean() > MAX_OUTSIDE:
        raise ValueError(f'sample "{sample_id}" and "{path}": {describe_outside(xy, height=height, width=width)}')
    if not inside.all():
        _logger.warning(
            "%s: %d of %d spots lie outside the image and are left out", sample_id, (~inside).sum(), len(xy)
        )
    return inside


def _spot_diameter(adata: AnnData, sample: Metadata, mpp: float) -> float | None:
    """Diameter of a spot in pixels; HEST knows none of some technologies."""
    stored = _hest_library(adata).get("scalefactors", {}).get(SPOT_DIAMETER)
    diameter = _number(sample.get("spot_diameter")) / mpp if stored is None else _number(stored)
    return diameter if np.isfinite(diameter) and diameter > 0 else None


def _stored_images(adata: AnnData, path: Path) -> tuple[dict[str, Pixels], dict[str, float]]:
    """Take HEST's reduced image as hires, and make lowres of it; nothing where it has none."""
    record = _hest_library(adata)
    hires = record.get("images", {}).get(IMAGE)
    scale = record.get("scalefactors", {}).get(IMAGE_SCALE)
    if hires is None or scale is None or not np.size(hires):
        return {}, {}
    scale = _number(scale)
    if not (np.isfinite(scale) and scale > 0):
        raise ValueError(f'the scale factor {IMAGE_SCALE} in "{path}" is no positive number. Fetch the file again.')
    pixels = rgb_of_8_bits(hires, f'the reduced image in "{path}"')
    lowres, lowres_scale = reduced_lowres(pixels)
    return (
        {"hires": pixels, "lowres": lowres},
        {"tissue_hires_scalef": scale, "tissue_lowres_scalef": scale * lowres_scale},
    )


def _how_to_fetch(root: Path, file: str) -> str:
    """Say how a file of the data set is fetched."""
    return (
        f"Accept the terms on https://huggingface.co/datasets/{REPOSITORY}, log in with hf auth login, and run "
        f'hf download {REPOSITORY} {file} --repo-type dataset --local-dir "{os.fspath(root)}"'
    )


def _read_metadata(root: Path, sample_id: str, table: Path | None) -> Metadata:
    """Read what is known of a sample.

    Parameters
    ----------
    root
        The folder of the data set.
    sample_id
        Name of the sample.
    table
        HEST's table of all samples; ``None`` takes the newest in `root`.

    Returns
    -------
    Text, numbers and yes or no by HEST's own names; what HEST left empty is not there.

    Raises
    ------
    FileNotFoundError
        If there is neither the file of the sample nor a table.
    ValueError
        If one is damaged, or neither knows the sample.
    """
    file = root / METADATA.format(sample_id)
    tables = [table] if table is not None else sorted(root.glob(TABLE))[-1:]
    if not file.is_file() and not tables:
        raise FileNotFoundError(
            f'the metadata of sample "{sample_id}" are missing: neither "{file}" nor a table {TABLE} is there. '
            f"{_how_to_fetch(root, METADATA.format(sample_id))}"
        )
    metadata = _metadata_from_table(tables[0], sample_id) if tables else {}
    if file.is_file():
        metadata |= _filled(read_json(file, "the metadata", "Fetch them again."))
    if not metadata:
        raise ValueError(
            f'"{tables[0]}" does not know the sample "{sample_id}". Check the name. '
            f"{_how_to_fetch(root, METADATA.format(sample_id))}"
        )
    return metadata


def _sample_mpp(sample: Metadata, sample_id: str) -> float:
    """Microns per pixel of a sample's image.

    Raises
    ------
    ValueError
        If the metadata do not tell.
    """
    for key in RESOLUTIONS:
        mpp = _number(sample.get(key))
        if np.isfinite(mpp) and mpp > 0:
            return mpp
    raise ValueError(
        f'the metadata of sample "{sample_id}" have no {" or ".join(RESOLUTIONS)} that is a positive number; they have '
        f"{quoted(sample)}. Fetch them again."
    )


def _metadata_from_table(path: Path, sample_id: str) -> Metadata:
    existing_file(path, "metadata")
    with reading(path, "the table", "Fetch it again."):
        table = pd.read_csv(path, dtype={"patient": str}, converters={"id": str})
    if "id" not in table:
        raise ValueError(f'the table "{path}" has no column "id"; it has {quoted(table.columns)}. Fetch it again.')
    rows = table[table["id"] == sample_id]
    return _filled(rows.iloc[0].items()) if len(rows) else {}


def _filled(entries: Iterable[tuple[object, object]]) -> Metadata:
    """Keep what says something and survives in ``uns``."""
    metadata: Metadata = {}
    for key, value in entries:
        plain = value.item() if isinstance(value, np.generic) else value
        if isinstance(plain, str | bool | int) or (isinstance(plain, float) and np.isfinite(plain)):
            metadata[str(key)] = plain
    return {key: value for key, value in metadata.items() if value != ""}


def _number(value: object) -> float:
    """A number, or NaN for what is none; yes and no are none."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, str | int | float | np.number):
        return float("nan")
    try:
        return float(value)
    except (ValueError, OverflowError):
        return float("nan")
