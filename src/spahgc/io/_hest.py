"""Samples of HEST-1k, as the data set lays them out."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData, read_h5ad
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from spahgc._keys import HEST, SPATIAL, Obs
from spahgc._validate import quoted
from spahgc.image import describe_outside, open_image
from spahgc.image._source import Pixels
from spahgc.io._hest_metadata import read_metadata, sample_mpp, where_to_fetch
from spahgc.io._library import check_full_image, check_library_id, reduced_images, reduced_lowres
from spahgc.io._positions import PIXEL_COL, PIXEL_ROW
from spahgc.io._st_tables import refuse_repeated

COUNTS, SLIDE = "st/{}.h5ad", "wsis/{}.tif"
IMAGE, IMAGE_SCALE = "downscaled_fullres", "tissue_downscaled_fullres_scalef"
"""HEST's names of the reduced image and its scale factor."""
DIAMETER = "spot_diameter_fullres"
PUBLISHED = ("patient", "organ", "disease_state")
"""Metadata that become columns of ``obs``."""
MAX_OUTSIDE = 0.05
"""Share of spots that may lie off the image; HEST leaves these out itself. More means a wrong image."""

_logger = logging.getLogger(__name__)


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
    root = Path(path)
    name = check_library_id(sample_id if library_id is None else library_id)
    counts_path = _sample_file(root, COUNTS, sample_id)
    image_path = _sample_file(root, SLIDE, sample_id) if image is None else Path(image)
    if not image_path.is_file():
        raise FileNotFoundError(f'image: "{image_path}" is not a file. Check the path.')
    known = read_metadata(root, sample_id, None if metadata is None else Path(metadata))
    mpp = sample_mpp(known, sample_id)

    source = _read_counts(counts_path)
    xy = _positions(source, counts_path)
    inside = _on_image(xy, image_path, sample_id)
    images, scales = _images(source, image_path)
    noted = check_full_image(image_path, xy[inside], counts_path, images, scales)
    diameter = _spot_diameter(source, known, mpp)
    if diameter is not None:
        scales[DIAMETER] = diameter

    obs = source.obs[inside].copy()
    obs[Obs.slide] = pd.Categorical([name] * len(obs))
    for key in PUBLISHED:
        if key in known:
            obs[key] = pd.Categorical([str(known[key])] * len(obs))
    adata = AnnData(csr_matrix(source.X, dtype=np.float32)[inside], obs=obs, var=source.var.copy())
    adata.var_names_make_unique()
    adata.obsm[SPATIAL] = xy[inside]
    adata.uns[HEST] = known
    adata.uns[SPATIAL] = {
        name: {
            "images": images,
            "scalefactors": {**scales, "microns_per_pixel": mpp},
            "metadata": {"reader": "spahgc.io.hest", **noted, "n_spots_outside_image": int((~inside).sum())},
        }
    }
    return adata


def _sample_file(root: Path, layout: str, sample_id: str) -> Path:
    """Find a file of the sample."""
    file = root / layout.format(sample_id)
    if file.is_file():
        return file
    there = sorted(item.stem for item in file.parent.glob(f"*{file.suffix}")) if file.parent.is_dir() else []
    if not root.is_dir():
        raise FileNotFoundError(f'path: "{root}" is not a folder. Pass the folder that holds st/, wsis/ and metadata/.')
    raise FileNotFoundError(
        f'"{file}" is missing; samples in "{file.parent}": {quoted(there)}. '
        f"{where_to_fetch(root, layout.format(sample_id))}"
    )


def _read_counts(path: Path) -> AnnData:
    try:
        adata = read_h5ad(path)
    except MemoryError:
        raise
    except Exception as error:
        raise ValueError(
            f'"{path}" ({path.stat().st_size:,} bytes) cannot be read: {error}. It is damaged or was not downloaded to '
            "its end; fetch it again."
        ) from error
    if not adata.n_obs or not adata.n_vars or adata.X is None:
        raise ValueError(f'"{path}" holds {adata.n_obs} spots and {adata.n_vars} genes. Fetch it again.')
    refuse_repeated(adata.obs_names, f'spots in "{path}"', "Fetch the file again.")
    return adata


def _record(adata: AnnData) -> dict[str, Any]:
    """Return HEST's own entry of ``uns["spatial"]``, which it calls ST whatever the technology."""
    records = adata.uns.get(SPATIAL, {})
    return dict(records.get("ST") or next(iter(records.values()), {}))


def _positions(adata: AnnData, path: Path) -> NDArray[np.float64]:
    """Spot centres (x, y) in pixels of the image."""
    if SPATIAL in adata.obsm:
        xy = np.asarray(adata.obsm[SPATIAL], dtype=np.float64)[:, :2]
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


def _on_image(xy: NDArray[np.float64], path: Path, sample_id: str) -> NDArray[np.bool_]:
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


def _spot_diameter(adata: AnnData, known: dict[str, Any], mpp: float) -> float | None:
    """Diameter of a spot in pixels; HEST knows none of some technologies."""
    found = _record(adata).get("scalefactors", {}).get(DIAMETER)
    diameter = float(pd.to_numeric(known.get("spot_diameter", np.nan), errors="coerce")) / mpp
    diameter = diameter if found is None else float(found)
    return diameter if np.isfinite(diameter) and diameter > 0 else None


def _images(adata: AnnData, path: Path) -> tuple[dict[str, Pixels], dict[str, Any]]:
    """Take HEST's reduced image as hires; without one, reduce the full-size image."""
    record = _record(adata)
    hires = record.get("images", {}).get(IMAGE)
    scale = record.get("scalefactors", {}).get(IMAGE_SCALE)
    if hires is None or scale is None or not np.size(hires):
        with open_image(path) as image:
            return reduced_images(image)
    with open_image(np.asarray(hires)) as image:
        pixels = image.read(0, 0, image.width, image.height)
    lowres, lowres_scale = reduced_lowres(pixels)
    scale = float(scale)
    return (
        {"hires": pixels, "lowres": lowres},
        {"tissue_hires_scalef": scale, "tissue_lowres_scalef": scale * lowres_scale},
    )
