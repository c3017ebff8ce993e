"""What is known of the look of a slide: embedding, colours, sharpness, resolution. No count is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import AnnData

from spahgc._keys import UNS, Obs, Uns
from spahgc._logging import warn
from spahgc._slides.resolution import slide_mpp
from spahgc._slides.tissue import only_on_tissue
from spahgc._validate import check_coordinates, embedding_matrix, encoder_records
from spahgc.image._focus import focus
from spahgc.pp._compare.colour import Colour
from spahgc.pp._compare.embedding import spread_evenly
from spahgc.pp._embed.slide_image import find_source, opened_image
from spahgc.pp._register.picture import Picture
from spahgc.pp._register.slides import NoImageError, SlideToRegister, slide_picture, stored_picture

if TYPE_CHECKING:
    from spatialdata import SpatialData

N_FOCUS = 24
"""Spots around which sharpness is measured, evenly in their order."""
FOCUS_UM = 100.0
"""Width of the square around each, microns."""


@dataclass(frozen=True)
class SlideLook:
    """What is known of a slide that is compared.

    Parameters
    ----------
    colour
        Of its tissue; ``None`` where no image is known.
    sharpness
        Median over spots of the variance of the Laplacian at 1 um per pixel; NaN where the full image is not at hand.
    mpp
        Microns per pixel of the image from which its patches were cut; NaN where that is not known.
    """

    colour: Colour | None = None
    sharpness: float = float("nan")
    mpp: float = float("nan")

    @classmethod
    def of_picture(cls, picture: Picture | None) -> SlideLook:
        """What a small picture alone tells."""
        mpp = None if picture is None else picture.mpp
        return cls(Colour.of(picture), mpp=float("nan") if mpp is None else mpp)

    @classmethod
    def of(cls, adata: AnnData, holder: AnnData | SpatialData, name: str, label: str, key: str) -> SlideLook:
        """That of a slide on the tissue, and of what the user passed it in."""
        xy = check_coordinates(adata, label)
        picture = stored_picture(adata, xy, label)
        if picture is None:
            try:
                picture = slide_picture(SlideToRegister(name, adata, holder))
            except NoImageError:
                picture = None
            except OSError as error:
                warn(f"the colours of {label} are not compared: {error}", stacklevel=2)
        return cls(Colour.of(picture), _sharpness(adata, xy, label), _patch_mpp(adata, key))


def embedding_of(adata: AnnData, key: str, label: str) -> tuple[np.ndarray, Mapping[str, Any]]:
    """The embedding of a slide, spots x dim, and its record."""
    return embedding_matrix(adata, key, label), encoder_records(adata).get(key, {})


def on_tissue(adata: AnnData, label: str) -> AnnData:
    """The spots of a slide on the tissue; a warning counts the others."""
    return only_on_tissue(adata, label, "the comparison")


def _patch_mpp(adata: AnnData, key: str) -> float:
    cut_from = adata.uns.get(UNS, {}).get(Uns.patch_image, {}).get(key, {})
    mpp = cut_from.get("mpp")
    if mpp is None:
        try:
            mpp = slide_mpp(adata)
        except ValueError:  # the resolution contradicts the array: said where patches are cut
            mpp = None
    return float("nan") if mpp is None else float(mpp)


def _sharpness(adata: AnnData, xy: np.ndarray, label: str) -> float:
    if Obs.focus in adata.obs:
        return float(adata.obs[Obs.focus].astype(np.float64).median())  # NaN where no tile has one
    try:
        source, mpp = find_source(adata, label), slide_mpp(adata)
    except (OSError, ValueError):  # no full image at hand: nothing tells how sharp it is
        return float("nan")
    if mpp is None:
        return float("nan")
    try:
        with opened_image(source) as image:
            chosen = xy[spread_evenly(len(xy), N_FOCUS)]
            return float(np.median([focus(image, tuple(place), width_um=FOCUS_UM, mpp=mpp) for place in chosen]))
    except (OSError, ValueError) as error:
        warn(f"the sharpness of {label} is not compared: {error}", stacklevel=2)
        return float("nan")
