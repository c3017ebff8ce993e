"""Patches of target and reference spots, cut as the encoder saw them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from spahgc._keys import SPATIAL, UNS, Uns
from spahgc._tables import is_spatialdata
from spahgc._validate import check_anndata, encoder_records, listing
from spahgc.encoders._record import NATIVE_MPP
from spahgc.image import cut_patch
from spahgc.image._resample import FILTERS
from spahgc.pp._embed import DEFAULT_INTERPOLATION
from spahgc.pp._slide_image import SlideImage, Source, _find_source, check_slide, opened_image
from spahgc.pp._spatialdata import spots_on_image

DRAWN_PX = 224
"""Side of a drawn patch where no encoder record names its input."""


def has_image(data: Any) -> bool:
    """Whether this is a SpatialData with an image of its own."""
    return is_spatialdata(data) and bool(data.images)


def slide_image(data: Any, table: AnnData, image: Source | None, where: Mapping[str, str | None]) -> SlideImage:
    """A slide with its image: the one that was passed, that of the SpatialData, or the one that the table names."""
    if image is not None or not has_image(data):
        return check_slide(table, image, _known_mpp(table), 0)
    within = {name: where[name] for name in ("image_key", "coordinate_system")}
    return check_slide(table, None, None, 0, spots=spots_on_image(data, table, **within))


def cut_patches(
    slide: SlideImage, positions: Sequence[int] | np.ndarray, embedding: str, patch_um: float | None
) -> list[np.ndarray]:
    """Cut the patches of some spots as the encoder saw them."""
    record = encoder_records(slide.adata).get(embedding, {})
    width_px = _patch_width_px(slide, embedding, patch_um)
    side = int(record.get("input_px", DRAWN_PX))
    interpolation = str(record.get("interpolation"))
    interpolation = interpolation if interpolation in FILTERS else DEFAULT_INTERPOLATION
    with opened_image(slide.source) as image:
        return [
            cut_patch(image, slide.xy[row], width_px=width_px, out_px=side, interpolation=interpolation)[0]
            for row in positions
        ]


def reference_patches(
    references: pd.DataFrame, slides: Mapping[str, tuple[Any, AnnData]], embedding: str, patch_um: float | None
) -> list[np.ndarray | None]:
    """Patch of every reference spot, ``None`` where there is no image; a slide is opened once."""
    patches: list[np.ndarray | None] = [None] * len(references)
    for name, rows in references.groupby("slide", sort=False):
        if name not in slides:
            continue
        data, slide = slides[str(name)]
        check_anndata(slide, f'reference "{name}"')
        missing = [spot for spot in rows["spot"] if spot not in slide.obs_names]
        if missing:
            raise KeyError(
                f'{listing(missing)} not found in reference "{name}", whose spots are {listing(slide.obs_names)}. '
                "Pass the slides that predict was given."
            )
        try:
            # What is wrong with an image that was found is an error, below.
            spots = spots_on_image(data, slide) if has_image(data) else None
            source = _find_source(slide, f'reference "{name}"') if spots is None else None
        except (FileNotFoundError, ValueError):
            warnings.warn(
                f'no full-resolution image of reference "{name}" was found, so its patches stay empty. Write its path '
                f'into adata.uns["{SPATIAL}"][slide]["metadata"]["source_image_path"], or add the image to its SpatialData.',
                stacklevel=4,
            )
            continue
        checked = check_slide(slide, source, _known_mpp(slide) if spots is None else None, 0, spots=spots)
        cut = cut_patches(checked, slide.obs_names.get_indexer(rows["spot"]), embedding, patch_um)
        for place, patch in zip(rows.index, cut, strict=True):
            patches[place] = patch
    return patches


def _known_mpp(adata: AnnData) -> float | None:
    """Microns per pixel with which the slide was embedded."""
    known = adata.uns.get(UNS, {}).get(Uns.slide_mpp)
    return None if known is None else float(known)


def _patch_width_px(slide: SlideImage, embedding: str, patch_um: float | None) -> float:
    """Width of a patch in pixels of the slide: the caller's, that of the embedding, or that of its record."""
    record = encoder_records(slide.adata).get(embedding, {})
    width_um = patch_um
    if width_um is None:
        width_um = slide.adata.uns.get(UNS, {}).get(Uns.patch_um, {}).get(embedding)
    if width_um is None and {"input_px", "mpp"} <= set(record):
        if str(record["mpp"]) == NATIVE_MPP:
            return float(record["input_px"])
        width_um = float(record["input_px"]) * float(record["mpp"])
    if width_um is None:
        raise ValueError(
            f'the width of the patches of obsm["{embedding}"] is not known on slide "{slide.name}": '
            f'uns["{UNS}"]["{Uns.patch_um}"] and the encoder record do not say it. Pass patch_um= with microns.'
        )
    if slide.mpp is None:
        raise ValueError(
            f'the resolution of slide "{slide.name}" is not known, but its patches are {float(width_um):g} um wide. '
            f'Write the microns per pixel of its full-resolution image into adata.uns["{UNS}"]["{Uns.slide_mpp}"].'
        )
    return float(width_um) / slide.mpp
