"""A slide before it is embedded: its spots, its image, and whether the two belong together."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray
from scipy.spatial import KDTree

from spahgc._keys import SPATIAL, Obs
from spahgc._validate import check_coordinates
from spahgc.image import ImageSource, describe_outside, open_image
from spahgc.pp._resolution import SCALE_FACTORS, library, slide_mpp

Source = str | os.PathLike[str] | NDArray[Any] | ImageSource
"""Where an image may come from."""

HIRES_FACTOR = 2
"""How many times larger than the hires image an image must be before mistaken coordinates are looked for."""
OVERLAP = 0.75
"""Neighbouring spots that are closer than this share of their diameter lie on coordinates of another image."""


@dataclass(frozen=True)
class SlideImage:
    """A slide that has passed its checks."""

    adata: AnnData
    name: str
    xy: NDArray[np.float64]
    source: Source
    height: int
    width: int
    mpp: float | None


def check_slide(adata: AnnData, image: Source | None, mpp: float | None, index: int) -> SlideImage:
    """Check one slide; of its image only the header is read."""
    found = library(adata)
    name = found[0] if found is not None else _slide_name(adata, index)
    what = f'slide "{name}"'
    if adata.n_obs == 0:
        raise ValueError(f"{what} has no spots to embed. Check the filter that was applied to it.")
    if Obs.slide in adata.obs and adata.obs[Obs.slide].nunique() > 1:
        raise ValueError(
            f'obs["{Obs.slide}"] names {adata.obs[Obs.slide].nunique()} slides, but an image belongs to one. Pass a '
            f'list: [adata[adata.obs["{Obs.slide}"] == s].copy() for s in adata.obs["{Obs.slide}"].unique()].'
        )
    xy = check_coordinates(adata, what)
    source = _find_source(adata, what) if image is None else image
    with opened_image(source) as opened:
        height, width = opened.height, opened.width
        outside = describe_outside(xy, height=height, width=width)
        if outside is not None:
            raise ValueError(f"{what}: {outside}{_hires_image_hint(adata, height, width)}")
        _refuse_hires_coordinates(adata, xy, max(height, width), what)
        resolution = slide_mpp(adata, mpp=mpp, image=opened)
    return SlideImage(adata, name, xy, source, height, width, resolution)


def _slide_name(adata: AnnData, index: int) -> str:
    """Name for messages and the progress bar."""
    return str(adata.obs[Obs.slide].iloc[0]) if Obs.slide in adata.obs and adata.n_obs else str(index)


def opened_image(source: Source) -> AbstractContextManager[ImageSource]:
    """Open an image; one that the caller opened stays open."""
    image = open_image(source)
    return nullcontext(image) if image is source else image


def _find_source(adata: AnnData, what: str) -> Source:
    """Take the image that ``uns["spatial"]`` names or holds."""
    found = library(adata)
    record = {} if found is None else found[1]
    path = record.get("metadata", {}).get("source_image_path")
    if path:
        if not os.path.exists(str(path)):
            raise FileNotFoundError(
                f'the image of {what} is not where uns["{SPATIAL}"] says: "{path}" does not exist. '
                "Pass image= with the path of the full-resolution image."
            )
        return str(path)
    hires = record.get("images", {}).get("hires")
    scale = record.get(SCALE_FACTORS, {}).get("tissue_hires_scalef")
    if hires is not None and scale is not None and float(scale) == 1.0:
        return np.asarray(hires)
    detail = "names no image file"
    if hires is not None:
        detail += f" and holds a hires image that is reduced (tissue_hires_scalef {scale})"
    raise ValueError(
        f'no full-resolution image is known for {what}: uns["{SPATIAL}"] {detail}. '
        "Pass image= with its path (JPEG, PNG, TIFF) or a uint8 array of height x width x 3."
    )


def _hires_size(adata: AnnData) -> tuple[int, int, float] | None:
    """Height, width and scale factor of a hires image that is smaller than the full-resolution one."""
    found = library(adata)
    hires = None if found is None else found[1].get("images", {}).get("hires")
    scale = None if found is None else found[1].get(SCALE_FACTORS, {}).get("tissue_hires_scalef")
    if hires is None or scale is None or float(scale) >= 1.0:
        return None
    height, width = np.shape(hires)[:2]
    return height, width, float(scale)


def _hires_image_hint(adata: AnnData, height: int, width: int) -> str:
    """Say so if the image that was passed is the hires image."""
    hires = _hires_size(adata)
    if hires is None or hires[:2] != (height, width):
        return ""
    return f" The image has the size of the hires image (tissue_hires_scalef {hires[2]:.4g}): pass the full-size one."


def _refuse_hires_coordinates(adata: AnnData, xy: NDArray[np.float64], longest: int, what: str) -> None:
    """Refuse coordinates that are pixels of the hires image while the image is the full-resolution one."""
    hires = _hires_size(adata)
    if hires is None or longest < HIRES_FACTOR * max(hires[:2]) or len(xy) < 2:
        return
    height, width, scale = hires
    if describe_outside(xy, height=height, width=width) is not None:
        return
    # A subset of the slide may lie in this corner by right; then its spots do not overlap and it does not fill it.
    found = library(adata)
    diameter = None if found is None else found[1].get(SCALE_FACTORS, {}).get("spot_diameter_fullres")
    if diameter is not None:
        mistaken = float(np.median(KDTree(xy).query(xy, k=2)[0][:, 1])) < OVERLAP * float(diameter)
    else:
        mistaken = bool((np.ptp(xy, axis=0) > np.array([width, height]) / 2).all())
    if mistaken:
        raise ValueError(
            f'{what}: the coordinates in obsm["{SPATIAL}"] look like pixels of the hires image ({width} x {height} px), '
            f"not of the full-resolution one ({longest} px on its longest side). "
            f"Divide them by tissue_hires_scalef ({scale:.4g})."
        )
