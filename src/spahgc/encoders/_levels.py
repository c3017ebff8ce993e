"""Which levels of a network become features: they are chosen and checked by running the network once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spahgc.encoders._encoder import Encoder
from spahgc.encoders._layout import NO_LEVELS, Levels

if TYPE_CHECKING:
    from torch import Tensor, nn

NEEDED_METHODS = ("forward_intermediates", "forward_head")
"""What a network must offer, as the models of timm do, so that one pass yields output and intermediate levels."""

SAME_OUTPUT = 1e-3
"""Share of the largest output up to which two ways through a network may differ: rounding stays far below."""

TRANSFORMER_DEPTHS = 3
"""Levels of a network whose resolution stays the same, unless a number is asked for: at 1/4, 1/2 and 3/4 of it."""

NO_DEPTHS = "Pass context=Context(depths=0), which takes the output of the network alone."


def refuse_oblong_input(encoder: Encoder, *, device: str) -> None:
    """Refuse to turn patches of which the encoder's own transform makes something else than squares.

    Raises
    ------
    ValueError
        If it does: turned after the transform, a patch would be squeezed along its other axis.
    """
    if encoder.transform is None:
        return
    side = encoder.record.input_px
    blank = np.zeros((1, side, side, 3), dtype=np.uint8)
    height, width = encoder.run(blank, lambda _, batch: tuple(batch.shape[-2:]), device=device)
    if height != width:
        raise ValueError(
            f'the transform of encoder "{encoder.record.name}" makes {height} x {width} pixels of a square patch, '
            "which cannot be turned. Pass context=Context(rotations=1), or let the transform keep patches square."
        )


def find_levels(encoder: Encoder, depths: int | None, *, device: str) -> Levels:
    """Choose the levels of an encoder, and prove on one patch of noise that they come with the output it always has.

    Parameters
    ----------
    encoder
        The encoder.
    depths
        How many levels. Of a network whose resolution falls from level to level: the last ones, ``None`` takes all.
        Of one that keeps its resolution (a transformer): evenly spaced blocks before the last one, ``None`` takes 3.
    device
        Torch device.

    Returns
    -------
    The levels; none where `depths` is 0.

    Raises
    ------
    ValueError
        If the network has no such levels, or does not reach the same output by way of them.
    """
    if depths == 0:
        return NO_LEVELS
    network, name = encoder.module, encoder.record.name
    missing = [method for method in NEEDED_METHODS if not callable(getattr(network, method, None))]
    if missing:
        raise ValueError(
            f'encoder "{name}" cannot show its intermediate levels: {type(network).__name__} has no '
            f"{' and no '.join(missing)}, which most networks of timm have. {NO_DEPTHS}"
        )
    side = encoder.record.input_px
    noise = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), dtype=np.uint8)
    levels = _choose_levels(_level_shapes(encoder, noise, device), depths, name)
    check_output(encoder, noise, levels, device)
    return levels


def levels_if_any(encoder: Encoder, depths: int | None, *, device: str) -> Levels:
    """The levels that :func:`find_levels` chooses; none where the network does not show them."""
    try:
        return find_levels(encoder, depths, device=device)
    except ValueError:
        return NO_LEVELS


def _level_shapes(encoder: Encoder, patch: NDArray[np.uint8], device: str) -> list[tuple[int, ...]]:
    """Channels, height and width of every level."""

    def shapes(module: nn.Module, batch: Tensor) -> list[tuple[int, ...]]:
        network: Any = module  # timm's networks have methods that torch's Module does not declare
        return [tuple(level.shape[1:]) for level in network.forward_intermediates(batch)[1]]

    level_shapes = encoder.run(patch, shapes, device=device)
    odd = next((shape for shape in level_shapes if len(shape) != 3), None)
    if odd is not None:
        raise ValueError(
            f'a level of encoder "{encoder.record.name}" has shape {odd}, expected channels x height x width. '
            f"{NO_DEPTHS}"
        )
    return level_shapes


def _choose_levels(shapes: Sequence[tuple[int, ...]], depths: int | None, name: str) -> Levels:
    """Take the last levels of a pyramid, evenly spaced ones where all have the same resolution."""
    n_levels = len(shapes)
    flat = n_levels > 1 and len({shape[1:] for shape in shapes}) == 1
    # The last block of a transformer is what its output is made of.
    most = n_levels - 1 if flat else n_levels
    if depths is None:
        depths = min(most, TRANSFORMER_DEPTHS) if flat else most
    if depths > most:
        raise ValueError(
            f'depths={depths} asks for more than encoder "{name}" has: {most} levels beside its output. '
            f"Pass context=Context(depths={most}) or fewer."
        )
    if flat:
        indices = [round(n_levels * step / (depths + 1)) - 1 for step in range(1, depths + 1)]
    else:
        indices = list(range(n_levels - depths, n_levels))
    return Levels(tuple(indices), tuple(shapes[index][0] for index in indices))


def check_output(encoder: Encoder, patch: NDArray[np.uint8], levels: Levels, device: str) -> None:
    """Refuse a network that reaches another output by way of its levels."""
    alone = encoder.encode(patch, device=device)
    beside = encoder.encode(patch, device=device, levels=levels)[:, : encoder.record.dim]
    difference = float(np.abs(alone - beside).max())
    if difference > SAME_OUTPUT * float(np.abs(alone).max()):
        raise ValueError(
            f'encoder "{encoder.record.name}" has another output when its intermediate levels are read (they differ by '
            f"{difference:.3g}): forward_head(forward_intermediates(x)) is not what its forward computes. {NO_DEPTHS}"
        )
