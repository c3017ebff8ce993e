"""How much of the tissue around a spot an embedding shows, from how deep in the network, and turned how often."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from spahgc.encoders._layout import Layout, write_layout
from spahgc.encoders._record import PATCH_CONTEXT, EncoderRecord

RECOMMENDED_SCALES = (1.0, 2.0, 4.0)
"""Widths of the patches around a spot, multiples of the encoder's patch."""
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
        Every patch is brought to the same `input_px` pixels.
    depths
        Number of intermediate levels beside the output: the last ones of a network whose resolution falls from level
        to level, evenly spaced blocks of a transformer (its patch tokens; 3 are those at 1/4, 1/2 and 3/4 of its
        depth). ``None``: all levels of the former, 3 blocks of the latter. 0: the output alone.
    rotations
        Quarter turns of a patch over which its numbers are averaged, all 4, or 1 for the upright patch alone.

    Raises
    ------
    TypeError
        If `scales` is no sequence of numbers, or `depths` or `rotations` no whole number.
    ValueError
        If `scales` does not begin with 1, is not positive or repeats itself, `depths` is negative, or `rotations` is
        neither 1 nor 4.

    Notes
    -----
    A spot costs ``len(scales) * rotations`` passes through the network, 12 by default, where the patch alone takes 1
    (``rotations - 1`` fewer with ``depths=0``, where nothing of the first patch is turned). It fills
    ``len(scales) * (dim + 2 * channels of all levels)`` columns of float32. By default these are

    - 6,912 columns, 28 kB a spot, with EfficientNet-Lite0: 3 * (1280 + 2 * (16 + 24 + 40 + 112 + 320));
    - 21,504 columns, 86 kB a spot, with a ViT-L such as UNI: 3 * (1024 + 2 * (1024 + 1024 + 1024)).

    Examples
    --------
    >>> import spahgc as sp
    >>> sp.pp.Context(scales=(1, 2), depths=0)
    Context(scales=(1.0, 2.0), depths=0, rotations=4)
    """

    scales: Sequence[float] = RECOMMENDED_SCALES
    depths: int | None = None
    rotations: int = 4

    def __post_init__(self) -> None:
        object.__setattr__(self, "scales", _check_scales(self.scales))
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


def _check_scales(scales: object) -> tuple[float, ...]:
    """Return the scales as a tuple of floats."""
    hint = "pass multiples of the encoder's patch, the first of them 1, e.g. scales=(1, 2, 4)"
    if not isinstance(scales, Sequence | np.ndarray) or isinstance(scales, str):
        raise TypeError(f"scales is {scales!r}; {hint}")
    numbers = int | float | np.integer | np.floating
    wrong = next((scale for scale in scales if isinstance(scale, bool) or not isinstance(scale, numbers)), None)
    if wrong is not None:
        raise TypeError(f"scales holds {wrong!r}; {hint}")
    checked = tuple(float(scale) for scale in scales)
    if not all(math.isfinite(scale) and scale > 0 for scale in checked):
        raise ValueError(f"scales is {scales!r}, but a patch has a positive width; {hint}")
    if len(set(checked)) < len(checked):
        raise ValueError(f"scales is {scales!r} and names a width twice; {hint}")
    if not checked or checked[0] != 1:
        raise ValueError(f"scales is {scales!r}, which does not begin with 1, the patch itself; {hint}")
    return checked


PATCH_ALONE = Context(scales=(1.0,), depths=0, rotations=1)
"""The patch of a spot and nothing else."""


def as_context(context: Context | bool | None) -> Context:
    """The context that was asked for: ``None`` is the plain patch, ``True`` the recommended one."""
    if isinstance(context, Context):
        # Of the output of the patch itself nothing is turned.
        return PATCH_ALONE if replace(context, rotations=1) == PATCH_ALONE else context
    if context is None or context is False:
        return PATCH_ALONE
    if context is True:
        return Context()
    raise TypeError(
        f"context is {context!r}; pass True for the recommended one, "
        "spahgc.pp.Context(scales=..., depths=..., rotations=...), or None for the patch alone"
    )


def refuse_own_context(record: EncoderRecord, context: Context) -> None:
    """Refuse a context for an encoder that has one already, which the record would lose.

    Raises
    ------
    ValueError
        If the record names a context of its own and another one is asked for.
    """
    if context != PATCH_ALONE and record.context != PATCH_CONTEXT:
        raise ValueError(
            f'encoder "{record.name}" has a context of its own ("{record.context}"), and {context} was asked for. '
            "Leave context= out."
        )


def with_context(record: EncoderRecord, context: Context, levels: tuple[int, ...]) -> EncoderRecord:
    """Enter a context, and the channels of the levels that it takes, into the record of an encoder."""
    if context == PATCH_ALONE:
        return record
    return replace(record, context=write_layout(Layout(tuple(context.scales), levels, context.rotations)))
