"""A slide before it is embedded: its spots, its image, and whether the two belong together.

Where the full-resolution image is not there, the hires image of ``uns["spatial"]`` stands in for it, if its pixels are as
fine as the encoder's.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray
from scipy.spatial import KDTree

from spahgc._keys import SPATIAL, Obs
from spahgc._logging import warn
from spahgc._slides.library import HIRES_SCALE, Library, find_library
from spahgc._slides.orientation import refuse_swapped
from spahgc._slides.resolution import slide_mpp
from spahgc._slides.spatialdata import SpotsOnImage
from spahgc._validate import LOST_UNS, check_coordinates, user_path
from spahgc.image import ImageSource, describe_outside, open_image
from spahgc.image._eight_bits import rgb_of_8_bits
from spahgc.image._same_picture import refuse_other_picture

if TYPE_CHECKING:
    from xarray import DataArray, DataTree

Source: TypeAlias = str | os.PathLike[str] | NDArray[np.uint8] | ImageSource
"""Where an image may come from."""

MAX_COARSENESS = 1.05
"""Times by which a pixel may be wider than the encoder's own before its patches count as enlarged."""
HIRES_FACTOR = 2
"""How many times larger than the hires image an image must be before mistaken coordinates are looked for."""
OVERLAP = 0.75
"""Neighbouring spots that are closer than this share of their diameter lie on coordinates of another image."""
OWN_READERS = "spahgc."
"""How the name of a reader of this package begins, as it stands in the metadata of a library."""
REDUCED = ("hires_image", "lowres_image")
"""How the keys of images end that Space Ranger reduced, in a SpatialData that spatialdata-io made."""

FULL, HIRES, ELEMENT = "full-resolution image", "hires image", "image of the SpatialData"
"""What a slide's patches may be cut from."""


@dataclass(frozen=True)
class SlideImage:
    """A slide that has passed its checks."""

    adata: AnnData
    name: str
    xy: NDArray[np.float64]
    """Spot centres (x, y), spots x 2, pixels of the image."""
    source: Source | DataArray | DataTree
    """What :func:`opened_image` opens."""
    height: int
    width: int
    mpp: float | None
    """Microns per pixel of the image, if known."""
    mpp_problem: str | None = None
    """Why the resolution that the image states is not believed, if it is not."""
    scale: float = 1.0
    """Pixels of the image for one of the full-resolution image: below 1 where the hires image stands in for it."""
    kind: str = FULL
    """What the image is, in words."""

    @property
    def slide_mpp(self) -> float | None:
        """Microns per pixel of the full-resolution image, if known."""
        return None if self.mpp is None else self.mpp * self.scale


@dataclass(frozen=True)
class ImageRequirements:
    """What an encoder needs of an image; the defaults are what is asked before an encoder is known."""

    mpp: float | None = None
    """Microns per pixel of its input; ``None`` for the slide's own resolution."""
    allow_upsampling: bool = True
    """Go on where only a reduced image is there, and it is too coarse."""
    any_resolution: bool = False
    """Go on with a warning, since the encoder was trained at no resolution of tissue."""


def check_slide(
    adata: AnnData,
    image: Source | None,
    mpp: float | None,
    index: int,
    *,
    spots: SpotsOnImage | None = None,
    requirements: ImageRequirements | None = None,
) -> SlideImage:
    """Check one slide: its spots, its image, and whether the image shows what the hires image of the slide shows.

    Of an image that no hires image vouches for only the header is read.

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
    requirements
        What to ask of a hires image that is there instead of the full-resolution one; ``None`` takes none instead.
    """
    library = find_library(adata)
    name = _slide_name(adata, spots, index) if library is None else library.name
    label = f'slide "{name}"'
    if adata.n_obs == 0:
        raise ValueError(f"{label} has no spots to embed. Check the filter that was applied to it.")
    if spots is not None:
        return _check_element(adata, name, spots, mpp, requirements)
    xy = check_coordinates(adata, label)
    if image is None and requirements is not None and library is not None and _has_only_hires(library):
        return check_hires(adata, library, requirements, mpp=mpp)
    source = find_source(adata, label) if image is None else image
    if isinstance(source, str | os.PathLike):
        source = str(user_path(source, "image="))
    with opened_image(source) as opened:
        height, width = opened.height, opened.width
        outside = describe_outside(xy, height=height, width=width)
        if outside is not None:
            raise ValueError(f"{label}: {outside}{_hires_image_hint(library, height, width)}")
        _check_not_hires_coordinates(library, xy, max(height, width), label)
        if library is not None and (image is not None or not _was_checked(library)):
            _check_same_picture(library, opened, label)
        refuse_swapped(adata, xy, opened, 1.0, label)
        resolution = slide_mpp(adata, mpp=mpp, image=opened, other_image=image is not None)
        problem = getattr(opened, "mpp_problem", None)
    return SlideImage(adata, name, xy, source, height, width, resolution, problem)


def _was_checked(library: Library) -> bool:
    """Whether a reader of this package has compared the image that a library names or holds, or made the hires image of it."""
    reader = str(library.record.get("metadata", {}).get("reader", ""))
    return reader.startswith(OWN_READERS) or library.image_path is None


def _check_same_picture(library: Library, image: ImageSource, label: str) -> None:
    """Refuse the picture of another section, or a turned one, where there is a hires image to compare it with."""
    scale = library.hires_scale
    if library.hires is None or scale is None or not (np.isfinite(scale) and scale > 0):
        return
    hires = rgb_of_8_bits(library.hires, f"the hires image of {label}")
    refuse_other_picture(image, hires, scale, f"the image of {label}")


def _slide_name(adata: AnnData, spots: SpotsOnImage | None, index: int) -> str:
    """Name for messages and the progress bar."""
    if Obs.slide in adata.obs and adata.n_obs:
        return str(adata.obs[Obs.slide].iloc[0])
    return str(index) if spots is None else spots.image_key


def opened_image(source: Source | DataArray | DataTree) -> AbstractContextManager[ImageSource]:
    """Open an image; one that the caller opened stays open."""
    image = open_image(source)
    return nullcontext(image) if image is source else image


def find_source(adata: AnnData, label: str) -> str | NDArray[np.uint8]:
    """Take the full-resolution image that ``uns["spatial"]`` names or holds."""
    library = find_library(adata)
    path = None if library is None else library.image_path
    if path is not None:
        if not os.path.exists(path):
            raise FileNotFoundError(
                f'the image of {label} is not where uns["{SPATIAL}"] says: "{path}" does not exist. '
                "Pass image= with the path of the full-resolution image."
            )
        return path
    problem = "names no image file" if library is not None else f"is empty. {LOST_UNS}"
    if library is not None and library.hires is not None:
        if library.hires_scale == 1.0:
            return rgb_of_8_bits(library.hires, f"the hires image of {label}")
        problem += f" and holds a hires image that is reduced ({HIRES_SCALE} {library.hires_scale})"
    raise ValueError(
        f'no full-resolution image is known for {label}: uns["{SPATIAL}"] {problem}. '
        "Pass image= with its path (JPEG, PNG, TIFF) or a uint8 array of height x width x 3."
    )


def _check_element(
    adata: AnnData, name: str, spots: SpotsOnImage, mpp: float | None, requirements: ImageRequirements | None
) -> SlideImage:
    """Check a slide whose spots were placed on an image of its SpatialData."""
    label = f'slide "{name}"'
    with opened_image(spots.image) as opened:
        height, width = opened.height, opened.width
        outside = describe_outside(spots.xy, height=height, width=width)
        if outside is not None:
            raise ValueError(
                f'{label}, image "{spots.image_key}" of the SpatialData: {outside} Check the transformations of the shapes '
                "and of the image, or pass another image_key= or coordinate_system=."
            )
        resolution = slide_mpp(adata, mpp=mpp, image=opened, element_mpp=spots.mpp, xy=spots.xy)
    if requirements is not None and not requirements.allow_upsampling and spots.image_key.endswith(REDUCED):
        _check_reduced(label, spots.image_key, resolution, requirements.mpp)
    return SlideImage(adata, name, spots.xy, spots.image, height, width, resolution, kind=ELEMENT)


def _check_reduced(label: str, image_key: str, mpp: float | None, needed_mpp: float | None) -> None:
    """Refuse a reduced image of a SpatialData whose pixels are wider than the encoder's."""
    if mpp is not None and needed_mpp is not None and mpp <= MAX_COARSENESS * needed_mpp:
        return
    has = "of unknown width" if mpp is None else f"{mpp:.4g} um wide"
    needs = "those of the full-resolution image" if needed_mpp is None else f"pixels of {needed_mpp:.4g} um"
    raise ValueError(
        f'the SpatialData of {label} holds the reduced image "{image_key}" only: its pixels are {has}, but {needs} are '
        "needed. Add the full-resolution image to it, pass image= with its path, or allow_upsampling=True to enlarge "
        "what is there."
    )


def _has_only_hires(library: Library) -> bool:
    """Whether no full-resolution image is known, but a reduced one is there."""
    return library.image_path is None and library.has_scaled_hires and library.hires_scale != 1.0


def check_hires(
    adata: AnnData, library: Library, requirements: ImageRequirements, *, mpp: float | None = None
) -> SlideImage:
    """Take the hires image of a slide instead of its full-resolution image, if it shows enough for the encoder.

    A pixel of the hires image is `slide mpp / tissue_hires_scalef` microns wide; the encoder needs `requirements.mpp`.

    Parameters
    ----------
    adata
        One slide, with spot centres in pixels of the full-resolution image in ``obsm["spatial"]``.
    library
        The slide's library, which has a hires image and its scale.
    requirements
        Microns per pixel of the encoder's input (of its record, or the wanted width of a patch over its pixels), and
        whether to go on where the hires image is too coarse; its patches are then enlarged. An encoder that takes the
        slide's own resolution needs what the full-resolution image shows.
    mpp
        Microns per pixel of the full-resolution image, if the user knows them.

    Returns
    -------
    The slide on its hires image, with the spots and the resolution of that.

    Raises
    ------
    ValueError
        If the image is too coarse and must not be enlarged, if its resolution is needed but unknown, if it is no
        image, or if spots lie outside it.
    """
    label, scale = f'slide "{library.name}"', library.hires_scale
    if scale is None or not (np.isfinite(scale) and scale > 0):
        raise ValueError(
            f"the scale factor {HIRES_SCALE} of {label} is {scale}; it must be a positive number, the pixels of the hires "
            f'image for one of the full-resolution image. Correct it in uns["{SPATIAL}"]["{library.name}"].'
        )
    full_mpp = slide_mpp(adata, mpp=mpp)
    hires_mpp = None if full_mpp is None else full_mpp / scale
    if not requirements.allow_upsampling:
        coarse = _too_coarse(label, scale, hires_mpp, full_mpp, requirements.mpp)
        if coarse is not None and not requirements.any_resolution:
            raise ValueError(coarse)
        if coarse is not None:
            warn(f"{coarse} The encoder was trained on photographs, so that it is enlarged.", stacklevel=2)
    pixels = rgb_of_8_bits(library.hires, f"the hires image of {label}")
    height, width = pixels.shape[:2]
    xy = check_coordinates(adata, label) * scale
    outside = describe_outside(xy, height=height, width=width)
    if outside is not None:
        raise ValueError(f"{label}, hires image ({HIRES_SCALE} {scale:.4g}): {outside}")
    refuse_swapped(adata, xy / scale, open_image(pixels), scale, label)
    return SlideImage(adata, library.name, xy, pixels, height, width, hires_mpp, scale=scale, kind=HIRES)


def _too_coarse(
    label: str, scale: float, hires_mpp: float | None, full_mpp: float | None, encoder_mpp: float | None
) -> str | None:
    """What is wrong with an image whose pixels are wider than the encoder's, or than the slide's where it takes these.

    Raises
    ------
    ValueError
        If nobody can tell.
    """
    hint = "Pass image= with the path of the full-resolution image, or allow_upsampling=True to enlarge what is there."
    native = encoder_mpp is None
    needed_mpp = full_mpp if native else encoder_mpp
    if hires_mpp is None or needed_mpp is None:
        if native and scale * MAX_COARSENESS >= 1:
            return None
        raise ValueError(
            f"only the hires image of {label} is there, and it is reduced to {scale:.4g} of the full-resolution image, "
            "and that image's resolution is not known, so that nobody can tell whether the hires image shows what the "
            f"encoder needs. Pass mpp= with the microns per pixel of the full-resolution image. {hint}"
        )
    if hires_mpp <= MAX_COARSENESS * needed_mpp:
        return None
    reason = "the slide's own resolution, which this encoder takes" if native else "the encoder's"
    return (
        f"only the hires image of {label} is there, and its resolution is too low: a pixel is {hires_mpp:.4g} um "
        f"wide, but {needed_mpp:.4g} um are needed ({reason}). {hint}"
    )


def _reduced_size(library: Library | None) -> tuple[int, int, float] | None:
    """Height, width and scale factor of a hires image that is smaller than the full-resolution one."""
    if library is None or library.hires is None or library.hires_scale is None or library.hires_scale >= 1.0:
        return None
    height, width = np.shape(library.hires)[:2]
    return height, width, library.hires_scale


def _hires_image_hint(library: Library | None, height: int, width: int) -> str:
    """Say so if the image that was passed is the hires image."""
    reduced = _reduced_size(library)
    if reduced is None or reduced[:2] != (height, width):
        return ""
    return f" The image has the size of the hires image ({HIRES_SCALE} {reduced[2]:.4g}): pass the full-size one."


def _check_not_hires_coordinates(library: Library | None, xy: NDArray[np.float64], longest_px: int, label: str) -> None:
    """Refuse coordinates that are pixels of the hires image while the image is the full-resolution one."""
    reduced = _reduced_size(library)
    if library is None or reduced is None or longest_px < HIRES_FACTOR * max(reduced[:2]) or len(xy) < 2:
        return
    height, width, scale = reduced
    if describe_outside(xy, height=height, width=width) is not None:
        return
    # A subset of the slide may lie in this corner by right; then its spots do not overlap and it does not fill it.
    diameter = library.scale_factors.get("spot_diameter_fullres")
    if diameter is not None:
        mistaken = float(np.median(KDTree(xy).query(xy, k=2)[0][:, 1])) < OVERLAP * float(diameter)
    else:
        mistaken = bool((np.ptp(xy, axis=0) > np.array([width, height]) / 2).all())
    if mistaken:
        raise ValueError(
            f'{label}: the coordinates in obsm["{SPATIAL}"] look like pixels of the hires image ({width} x {height} px), '
            f"not of the full-resolution one ({longest_px} px on its longest side). "
            f"Divide them by {HIRES_SCALE} ({scale:.4g})."
        )
