"""How much of the tissue around a spot an embedding shows, from how deep in the network, and turned how often."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from spahgc.encoders._layout import Layout, write_layout
from spahgc.encoders._record import PATCH_CONTEXT, EncoderRecord

FULL_SCALES = (1.0, 2.0, 4.0)
"""Widths of the patches of the full context, multiples of the encoder's patch."""
DEFAULT_WIDTHS_UM = (448.0, 1344.0)
"""Widths of the patches that the default looks at beside the encoder's own, microns: structures of a tissue, and where on
the slide a spot lies. Found on breast, spinal cord, olfactory bulb and kidney organoids (``benchmarks/NOTES.md``)."""
ROTATIONS = (1, 4)
"""Numbers of quarter turns that favour no direction, or are none."""


@dataclass(frozen=True)
class Context:
    """Several patch sizes around a spot, several depths of the encoder, turned: what :func:`embed` writes side by side.

    Every patch gives the encoder's output, `dim` numbers, followed by two blocks for each intermediate level, from
    shallow to deep: the mean over the plane, then the standard deviation over it. The patches follow one another in
    the order of `scales`. The first `dim` columns are the embedding without a context; all others are averages over
    the turns of the patch, since tissue has no upper side.

    Parameters
    ----------
    scales
        Widths of the patches, multiples of the encoder's own (no unit). The first is 1, all are positive and distinct.
        Every patch is brought to the same `input_px` pixels. ``None``: 1, 2 and 4, or 1 alone beside `widths_um`.
    depths
        Number of intermediate levels beside the output: the last ones of a network whose resolution falls from level
        to level, evenly spaced blocks of a transformer (its patch tokens; 3 are those at 1/4, 1/2 and 3/4 of its
        depth). ``None``: all levels of the former, 3 blocks of the latter. 0: the output alone.
    rotations
        Quarter turns of a patch over which its numbers are averaged, all 4, or 1 for the upright patch alone.
    widths_um
        Widths of the patches beside the encoder's own, microns, instead of `scales`: the same on every slide, whatever
        its resolution, which has to be known.

    Raises
    ------
    TypeError
        If `scales` is no sequence of numbers, or `depths` or `rotations` no whole number.
    ValueError
        If `scales` does not begin with 1, is not positive or repeats itself, `widths_um` is not positive, repeats itself
        or is given beside other scales, `depths` is negative, or `rotations` is neither 1 nor 4.

    Notes
    -----
    A spot costs ``patches * rotations`` passes through the network, 12 as ``Context()``, where the patch alone takes 1
    (``rotations - 1`` fewer with ``depths=0``, where nothing of the first patch is turned). It fills
    ``patches * (dim + 2 * channels of all levels)`` columns of float32. With three patches these are

    - 6,912 columns, 28 kB a spot, with EfficientNet-Lite0: 3 * (1280 + 2 * (16 + 24 + 40 + 112 + 320));
    - 21,504 columns, 86 kB a spot, with a ViT-L such as UNI: 3 * (1024 + 2 * (1024 + 1024 + 1024)).

    Examples
    --------
    >>> import spahgc as sp
    >>> sp.pp.Context(scales=(1, 2), depths=0)
    Context(scales=(1.0, 2.0), depths=0, rotations=4, widths_um=())

    What :func:`embed` looks at by default, three passes a spot:

    >>> sp.pp.Context(widths_um=(448, 1344), rotations=1)
    Context(scales=(1.0,), depths=None, rotations=1, widths_um=(448.0, 1344.0))
    """

    scales: Sequence[float] | None = None
    depths: int | None = None
    rotations: int = 4
    widths_um: Sequence[float] = ()

    def __post_init__(self) -> None:
        hint = "pass the widths of patches in microns, e.g. widths_um=(448, 1344)"
        object.__setattr__(self, "widths_um", _check_widths(self.widths_um, "widths_um", hint))
        own = (1.0,) if self.widths_um else FULL_SCALES
        scales = own if self.scales is None else _check_scales(self.scales)
        object.__setattr__(self, "scales", scales)
        if self.widths_um and len(scales) > 1:
            raise ValueError(
                f"scales is {self.scales!r} and widths_um is {self.widths_um!r}; pass the widths of patches as multiples of "
                "the encoder's own, or in microns"
            )
        if self.depths is not None:
            depths = _as_int(self.depths, "depths", "pass a whole number, 0 for the output of the network alone")
            if depths < 0:
                raise ValueError(f"depths is {depths}; pass 0 or more")
            object.__setattr__(self, "depths", depths)
        rotations = _as_int(self.rotations, "rotations", "pass 4, or 1 for the upright patch alone")
        if rotations not in ROTATIONS:
            raise ValueError(f"rotations is {rotations}; pass 4, or 1 for the upright patch alone")
        object.__setattr__(self, "rotations", rotations)


def _as_int(value: object, name: str, hint: str) -> int:
    """Return a whole number as ``int``."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} is {value!r}; {hint}")
    return int(value)


def _check_widths(widths: object, name: str, hint: str) -> tuple[float, ...]:
    """Return widths of patches, in whatever unit, as a tuple of floats."""
    if not isinstance(widths, Sequence | np.ndarray) or isinstance(widths, str):
        raise TypeError(f"{name} is {widths!r}; {hint}")
    numbers = int | float | np.integer | np.floating
    wrong = next((width for width in widths if isinstance(width, bool) or not isinstance(width, numbers)), None)
    if wrong is not None:
        raise TypeError(f"{name} holds {wrong!r}; {hint}")
    checked = tuple(float(width) for width in widths)
    if not all(math.isfinite(width) and width > 0 for width in checked):
        raise ValueError(f"{name} is {widths!r}, but a patch has a positive width; {hint}")
    if len(set(checked)) < len(checked):
        raise ValueError(f"{name} is {widths!r} and names a width twice; {hint}")
    return checked


def _check_scales(scales: object) -> tuple[float, ...]:
    """Return the scales as a tuple of floats."""
    hint = "pass multiples of the encoder's patch, the first of them 1, e.g. scales=(1, 2, 4)"
    checked = _check_widths(scales, "scales", hint)
    if not checked or checked[0] != 1:
        raise ValueError(f"scales is {scales!r}, which does not begin with 1, the patch itself; {hint}")
    return checked


PATCH_ALONE = Context(scales=(1.0,), depths=0, rotations=1)
"""The patch of a spot and nothing else."""

DEFAULT_CONTEXT = Context(widths_um=DEFAULT_WIDTHS_UM, rotations=1)
"""What is looked at where nobody asks for anything: three passes through the network a spot, all its levels."""


def as_context(context: Context | bool) -> Context:
    """The context that was asked for: ``True`` is the full one, ``False`` the plain patch."""
    if isinstance(context, Context):
        # Of the output of the patch itself nothing is turned.
        return PATCH_ALONE if replace(context, rotations=1) == PATCH_ALONE else context
    if context is False:
        return PATCH_ALONE
    if context is True:
        return Context()
    raise TypeError(
        f"context is {context!r}; pass True for the full one, False for the patch alone, "
        "spahgc.pp.Context(...) for another one, or leave it out"
    )


def scales_on_slide(context: Context, patch_um: float | None, label: str) -> tuple[float, ...]:
    """Widths of all patches of a context on one slide, multiples of the encoder's own there.

    Parameters
    ----------
    context
        The context.
    patch_um
        Width of the encoder's own patch on the slide, microns; ``None`` where the resolution is not known.
    label
        How messages call the slide.

    Raises
    ------
    ValueError
        If widths in microns are asked for and the resolution is not known.
    """
    scales = tuple(context.scales or ())
    if not context.widths_um:
        return scales
    if patch_um is None:
        raise ValueError(
            f"the resolution of {label} is not known, but patches of {_in_words(context.widths_um)} um are to be cut around "
            "every spot. Pass mpp= with the microns per pixel of the full-resolution image, e.g. mpp=0.5; or context=False "
            "for the patch alone, which is less accurate."
        )
    return (*scales, *(width / patch_um for width in context.widths_um))


def _in_words(widths_um: Sequence[float]) -> str:
    return " and ".join(f"{width:g}" for width in widths_um)


def context_for(record: EncoderRecord, requested: Context | None) -> Context:
    """The context of an encoder: the one requested, or where none is the default.

    Raises
    ------
    ValueError
        If the encoder has a context of its own, which the record would lose, and another one is requested.
    """
    has_own = record.context != PATCH_CONTEXT
    if requested is None:
        return PATCH_ALONE if has_own else DEFAULT_CONTEXT
    if has_own and requested != PATCH_ALONE:
        raise ValueError(
            f'encoder "{record.name}" has a context of its own ("{record.context}"), and {requested} was asked for. '
            "Leave context= out."
        )
    return requested


def with_context(
    record: EncoderRecord, context: Context, levels: tuple[int, ...], *, shared_tiles: bool = False
) -> EncoderRecord:
    """Enter a context, and the channels of the levels that it takes, into the record of an encoder."""
    if context == PATCH_ALONE and not shared_tiles:
        return record
    layout = Layout(tuple(context.scales or ()), levels, context.rotations, tuple(context.widths_um))
    if shared_tiles:
        layout = replace(layout, areas=levels, tile_dim=record.dim)
    return replace(record, context=write_layout(layout))
