"""How wide a patch is on a slide, so that it shows as much tissue on every slide."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from spahgc.image._resample import FILTERS
from spahgc.pp._context import Context
from spahgc.pp._slide_image import SlideImage

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
