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
from spahgc._slides.spatialdata import SpotsOnImage
from spahgc._validate import check_coordinates
from spahgc.image import ImageSource, describe_outside, open_image
from spahgc.pp._embed.hires import COARSER, check_hires, has_hires
from spahgc.pp._embed.resolution import SCALE_FACTORS, library, slide_mpp

Source = str | os.PathLike[str] | NDArray[Any] | ImageSource
"""Where an image may come from."""

HIRES_FACTOR = 2
"""How many times larger than the hires image an image must be before mistaken coordinates are looked for."""
OVERLAP = 0.75
"""Neighbouring spots that are closer than this share of their diameter lie on coordinates of another image."""
REDUCED = ("hires_image", "lowres_image")
"""How the keys of images end that Space Ranger reduced, in a SpatialData that spatialdata-io made."""


@dataclass(frozen=True)
class SlideImage:
    """A slide that has passed its checks."""

    adata: AnnData
    name: str
    xy: NDArray[np.float64]
    """Spot centres, pixels of the image."""
    source: Any
    """What :func:`opened_image` opens."""
    height: int
    width: int
    mpp: float | None
    """Microns per pixel of the image."""
    scale: float = 1.0
    """Pixels of the image for one of the full-resolution image: below 1 where the hires image stands in for it."""

    @property
    def slide_mpp(self) -> float | None:
        """Microns per pixel of the full-resolution image."""
        return None if self.mpp is None else self.mpp * self.scale


@dataclass(frozen=True)
class Wanted:
    """What an encoder needs of an image; without one, nothing is known of that yet."""

    mpp: float | None = None
    """Microns per pixel of its input; ``None`` for the slide's own resolution."""
    allow_upsampling: bool = True
    """Go on where only a reduced image is there, and it is too coarse."""


def check_slide(
    adata: AnnData,
    image: Source | None,
    mpp: float | None,
    index: int,
    *,
    spots: SpotsOnImage | None = None,
    wanted: Wanted | None = None,
) -> SlideImage:
    """Check one slide; of its image only the header is read.

    Parameters
    ----------
    adata
        The slide, or its table in a SpatialData.
    image
        Its image; ``None`` takes the one of `spots`, or the one that ``uns["spatial"]`` names or holds.
    mpp
        Microns per pixel, if the user knows them.
    index
        Number of the slide, by which it is called where it has no name.
    spots
        Where the spots of a SpatialData lie on its image.
    wanted
        What to ask of a hires image that is there instead of the full-resolution one; ``None`` takes none instead.
    """
    found = library(adata)
    name = found[0] if found is not None else _slide_name(adata, spots, index)
    label = f'slide "{name}"'
    if adata.n_obs == 0:
        raise ValueError(f"{label} has no spots to embed. Check the filter that was applied to it.")
    if Obs.slide in adata.obs and adata.obs[Obs.slide].nunique() > 1:
        raise ValueError(
            f'obs["{Obs.slide}"] names {adata.obs[Obs.slide].nunique()} slides, but an image belongs to one. Pass a '
            f'list: [adata[adata.obs["{Obs.slide}"] == s].copy() for s in adata.obs["{Obs.slide}"].unique()].'
        )
    if spots is not None:
        return _check_element(adata, name, spots, mpp, wanted)
    xy = check_coordinates(adata, label)
    if image is None and wanted is not None and _has_hires_only(adata):
        hires = check_hires(adata, library(adata) or (name, {}), wanted.mpp, wanted.allow_upsampling, mpp=mpp)
        height, width = hires.pixels.shape[:2]
        return SlideImage(adata, name, hires.xy, hires.pixels, height, width, hires.mpp, hires.scale)
    source = find_source(adata, label) if image is None else image
    with opened_image(source) as open_references:
        height, width = open_references.height, open_references.width
        outside = describe_outside(xy, height=height, width=width)
        if outside is not None:
            raise ValueError(f"{label}: {outside}{_hires_image_hint(adata, height, width)}")
        _refuse_hires_coordinates(adata, xy, max(height, width), label)
        resolution = slide_mpp(adata, mpp=mpp, image=open_references, other_image=image is not None)
    return SlideImage(adata, name, xy, source, height, width, resolution)


def _check_element(
    adata: AnnData, name: str, spots: SpotsOnImage, mpp: float | None, wanted: Wanted | None
) -> SlideImage:
    """Check a slide whose spots were placed on an image of its SpatialData."""
    label = f'slide "{name}"'
    with opened_image(spots.image) as open_references:
        height, width = open_references.height, open_references.width
        outside = describe_outside(spots.xy, height=height, width=width)
        if outside is not None:
            raise ValueError(
                f'{label}, image "{spots.image_key}" of the SpatialData: {outside} Check the transformations of the shapes '
                "and of the image, or pass another image_key= or coordinate_system=."
            )
        resolution = slide_mpp(adata, mpp=mpp, image=open_references, element_mpp=spots.mpp, xy=spots.xy)
    if wanted is not None and not wanted.allow_upsampling and spots.image_key.endswith(REDUCED):
        _refuse_reduced(label, spots.image_key, resolution, wanted.mpp)
    return SlideImage(adata, name, spots.xy, spots.image, height, width, resolution)


def _refuse_reduced(label: str, image_key: str, own: float | None, needed: float | None) -> None:
    """Refuse a reduced image of a SpatialData whose pixels are wider than the encoder's."""
    if own is not None and needed is not None and own <= COARSER * needed:
        return
    has = "of unknown width" if own is None else f"{own:.4g} um wide"
    needs = "those of the full-resolution image" if needed is None else f"pixels of {needed:.4g} um"
    raise ValueError(
        f'the SpatialData of {label} holds the reduced image "{image_key}" only: its pixels are {has}, but {needs} are '
        "needed. Add the full-resolution image to it, pass image= with its path, or allow_upsampling=True to enlarge "
        "what is there."
    )


def _slide_name(adata: AnnData, spots: SpotsOnImage | None, index: int) -> str:
    """Name for messages and the progress bar."""
    if Obs.slide in adata.obs and adata.n_obs:
        return str(adata.obs[Obs.slide].iloc[0])
    return str(index) if spots is None else spots.image_key


def opened_image(source: Any) -> AbstractContextManager[ImageSource]:
    """Open an image; one that the caller opened stays open."""
    image = open_image(source)
    return nullcontext(image) if image is source else image


def _record(adata: AnnData) -> dict[str, Any]:
    """The slide's entry of ``uns["spatial"]``; empty if there is none."""
    found = library(adata)
    return {} if found is None else dict(found[1])


def _hires_scale(record: dict[str, Any]) -> float | None:
    scale = record.get(SCALE_FACTORS, {}).get("tissue_hires_scalef")
    return None if scale is None else float(scale)


def _has_hires_only(adata: AnnData) -> bool:
    """Whether no full-resolution image is known, but a reduced one is there."""
    record = _record(adata)
    return not record.get("metadata", {}).get("source_image_path") and has_hires(record) and _hires_scale(record) != 1.0


def find_source(adata: AnnData, label: str) -> Source:
    """Take the full-resolution image that ``uns["spatial"]`` names or holds."""
    record = _record(adata)
    path = record.get("metadata", {}).get("source_image_path")
    if path:
        if not os.path.exists(str(path)):
            raise FileNotFoundError(
                f'the image of {label} is not where uns["{SPATIAL}"] says: "{path}" does not exist. '
                "Pass image= with the path of the full-resolution image."
            )
        return str(path)
    hires = record.get("images", {}).get("hires")
    scale = _hires_scale(record)
    if hires is not None and scale == 1.0:
        return np.asarray(hires)
    detail = "names no image file"
    if hires is not None:
        detail += f" and holds a hires image that is reduced (tissue_hires_scalef {scale})"
    raise ValueError(
        f'no full-resolution image is known for {label}: uns["{SPATIAL}"] {detail}. '
        "Pass image= with its path (JPEG, PNG, TIFF) or a uint8 array of height x width x 3."
    )


def _hires_size(adata: AnnData) -> tuple[int, int, float] | None:
    """Height, width and scale factor of a hires image that is smaller than the full-resolution one."""
    record = _record(adata)
    hires, scale = record.get("images", {}).get("hires"), _hires_scale(record)
    if hires is None or scale is None or scale >= 1.0:
        return None
    height, width = np.shape(hires)[:2]
    return height, width, scale


def _hires_image_hint(adata: AnnData, height: int, width: int) -> str:
    """Say so if the image that was passed is the hires image."""
    hires = _hires_size(adata)
    if hires is None or hires[:2] != (height, width):
        return ""
    return f" The image has the size of the hires image (tissue_hires_scalef {hires[2]:.4g}): pass the full-size one."


def _refuse_hires_coordinates(adata: AnnData, xy: NDArray[np.float64], longest: int, label: str) -> None:
    """Refuse coordinates that are pixels of the hires image while the image is the full-resolution one."""
    hires = _hires_size(adata)
    if hires is None or longest < HIRES_FACTOR * max(hires[:2]) or len(xy) < 2:
        return
    height, width, scale = hires
    if describe_outside(xy, height=height, width=width) is not None:
        return
    # A subset of the slide may lie in this corner by right; then its spots do not overlap and it does not fill it.
    diameter = _record(adata).get(SCALE_FACTORS, {}).get("spot_diameter_fullres")
    if diameter is not None:
        mistaken = float(np.median(KDTree(xy).query(xy, k=2)[0][:, 1])) < OVERLAP * float(diameter)
    else:
        mistaken = bool((np.ptp(xy, axis=0) > np.array([width, height]) / 2).all())
    if mistaken:
        raise ValueError(
            f'{label}: the coordinates in obsm["{SPATIAL}"] look like pixels of the hires image ({width} x {height} px), '
            f"not of the full-resolution one ({longest} px on its longest side). "
            f"Divide them by tissue_hires_scalef ({scale:.4g})."
        )
