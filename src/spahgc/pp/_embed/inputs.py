"""How wide a patch is on a slide, so that it shows as much tissue on every slide."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import AnnData

from spahgc._keys import SPATIAL
from spahgc._slides.spatialdata import SpotsOnImage, spots_on_image
from spahgc._slides.tables import is_spatialdata, table_of
from spahgc.image._resample import FILTERS
from spahgc.pp._embed.context import Context
from spahgc.pp._embed.slide_image import SlideImage, Source, Wanted, check_slide

if TYPE_CHECKING:
    from spahgc.encoders import EncoderRecord

DEFAULT_INTERPOLATION = "bicubic"
"""Filter for encoders whose record names none that exists here."""

MIN_PATCH_PX = 4.0
"""Width in slide pixels below which a patch shows nothing."""

MAX_UPSIZE = 4
"""A patch may be wider than the whole slide up to this many times the encoder's input; more is a wrong unit."""


def record_used(record: EncoderRecord, patch_um: float | None, stain: str) -> EncoderRecord:
    """Enter into the record what this call does otherwise than the encoder's publishers."""
    if record.interpolation not in FILTERS:
        record = replace(record, interpolation=DEFAULT_INTERPOLATION)
    if patch_um is not None:
        record = replace(record, mpp=float(patch_um) / record.input_px)
    return replace(record, stain=stain)


def needed_mpp(record: EncoderRecord, patch_um: float | None) -> float | None:
    """Microns per pixel of the encoder's input; ``None`` where it takes the slide's own resolution."""
    return record.mpp if patch_um is None else float(patch_um) / record.input_px


def patch_width_px(slide: SlideImage, record: EncoderRecord, patch_um: float | None, context: Context) -> float:
    """Width of the patch of scale 1 in pixels of the slide; wider ones may reach past the slide as far as they like.

    Raises
    ------
    ValueError
        If the resolution of the slide is needed but not known, or if the width makes no sense on this slide.
    """
    narrowest = min(context.scales)
    if patch_um is None and record.mpp is None:
        width = record.input_px * slide.scale
        _refuse_narrow(width, narrowest, slide.name)
        return float(width)
    wanted_um = float(patch_um) if patch_um is not None else record.input_px * float(record.mpp or 0)
    if slide.mpp is None:
        raise ValueError(
            f'the resolution of slide "{slide.name}" is not known, but a patch has to be {wanted_um:g} um wide '
            f"(encoder {record.name}). Pass mpp= with the microns per pixel of the full-resolution image, e.g. mpp=0.5."
        )
    width = wanted_um / slide.mpp
    widest = max(slide.height, slide.width, MAX_UPSIZE * record.input_px)
    if not MIN_PATCH_PX <= width <= widest:
        raise ValueError(
            f'a patch of {wanted_um:g} um is {width:.4g} px wide on slide "{slide.name}" ({slide.width} x '
            f"{slide.height} px, {slide.mpp:.4g} um per pixel). Is that resolution right? Pass mpp= with microns per "
            "pixel of the full-resolution image."
        )
    _refuse_narrow(width, narrowest, slide.name)
    return width


def _refuse_narrow(width_px: float, scale: float, name: str) -> None:
    """Refuse a context whose narrowest patch shows nothing."""
    if width_px * scale < MIN_PATCH_PX:
        raise ValueError(
            f'at scale {scale:g} of the context a patch is {width_px * scale:.3g} px wide on slide "{name}", less than '
            f"the {MIN_PATCH_PX:g} px that show anything. Pass scales of at least {MIN_PATCH_PX / width_px:.3g}."
        )


@dataclass(frozen=True)
class Given:
    """A slide as it was handed over.

    Parameters
    ----------
    data
        AnnData or SpatialData.
    table
        Its table: the AnnData itself, or the one inside of the SpatialData.
    spots
        Where the spots of a SpatialData lie on its image; ``None`` for an AnnData, or where an image was passed.
    """

    data: Any
    table: AnnData
    spots: SpotsOnImage | None

    def checked(self, image: Source | None, mpp: float | None, index: int, wanted: Wanted) -> SlideImage:
        """The slide with its image, after all checks that need no encoder."""
        return check_slide(self.table, image, mpp, index, spots=self.spots, wanted=wanted)


def given_slides(
    data: Any,
    image: Source | None,
    *,
    table_key: str | None,
    image_key: str | None,
    coordinate_system: str | None,
) -> list[Given]:
    """Make a list of slides of what was passed.

    Raises
    ------
    TypeError
        If it holds something else than AnnData and SpatialData.
    ValueError
        If it is empty, or if arguments do not fit to each other.
    """
    several = isinstance(data, list | tuple)
    items = list(data) if several else [data]
    wrong = next((item for item in items if not isinstance(item, AnnData) and not is_spatialdata(item)), None)
    if wrong is not None:
        raise TypeError(
            f"embed takes an AnnData, a SpatialData or a list of them, found {type(wrong).__name__}. Pass one object for "
            "each slide."
        )
    if not items:
        raise ValueError("the list of slides is empty. Pass at least one AnnData or SpatialData.")
    if several and image is not None:
        raise ValueError(
            "image= goes with one slide, but a list was passed. Embed the slides one by one, or write each path into "
            f'adata.uns["{SPATIAL}"][slide]["metadata"]["source_image_path"].'
        )
    within = {"image_key": image_key, "coordinate_system": coordinate_system}
    named = [f"{name}=" for name, value in within.items() if value is not None]
    if named and not any(is_spatialdata(item) for item in items):
        raise ValueError(
            f"{' and '.join(named)} choose within a SpatialData, but {type(items[0]).__name__} was passed."
        )
    if named and image is not None:
        raise ValueError(
            f"{' and '.join(named)} choose an image of the SpatialData, and image= is another one: pass one."
        )
    return [_given(item, image, table_key, f"slide number {place + 1}", within) for place, item in enumerate(items)]


def _given(item: Any, image: Source | None, table_key: str | None, label: str, within: dict[str, str | None]) -> Given:
    table = table_of(item, table_key, label)
    if image is not None or not is_spatialdata(item) or table.n_obs == 0:
        return Given(item, table, None)
    return Given(item, table, spots_on_image(item, table, **within))


def check_numbers(batch_size: int, mpp: float | None, patch_um: float | None) -> None:
    """Refuse numbers that are no sizes."""
    if isinstance(batch_size, bool) or not isinstance(batch_size, int | np.integer) or batch_size < 1:
        raise ValueError(f"batch_size is {batch_size!r}; pass a whole number of at least 1")
    for name, value in (("mpp", mpp), ("patch_um", patch_um)):
        if value is not None and not (np.isfinite(value) and value > 0):
            raise ValueError(f"{name} is {value!r}; pass a positive number of microns")
