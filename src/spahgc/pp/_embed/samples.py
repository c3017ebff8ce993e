"""Several patches within a spot: its centre, and a ring around it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

FEWEST_AROUND = 3
"""Patches on the ring, below which it favours a direction."""
MOST = 64
"""Patches a spot, above which somebody means something else."""
RING = 2 / 3
"""Radius of the ring, in radii of the spot: at 7 patches each stands for about as much of it."""


@dataclass(frozen=True)
class Look:
    """One of the patches around a spot.

    Parameters
    ----------
    block
        Which of the spot's patches of different width it belongs to.
    scale
        Its width, in widths of the encoder's own patch.
    offset_px
        (x, y) of its centre from that of the spot, pixels of the image.
    share
        Its share in the numbers of its block.
    is_first, is_last
        Whether it is the first of its block, and the last of all.
    """

    block: int
    scale: float
    offset_px: tuple[float, float] = (0.0, 0.0)
    share: float = 1.0
    is_first: bool = True
    is_last: bool = False


def check_samples(samples: object) -> int:
    """Refuse what is no number of patches within a spot.

    Raises
    ------
    ValueError
        If it is not 1, or a whole number from 4 to 64.
    """
    fewest = 1 + FEWEST_AROUND
    number = None if isinstance(samples, bool) or not isinstance(samples, int | np.integer) else int(samples)
    if number is None or not (number == 1 or fewest <= number <= MOST):
        raise ValueError(
            f"samples is {samples!r}; pass 1 for one patch around the centre of a spot, or a whole number from {fewest} to "
            f"{MOST} for its centre and a ring around it, e.g. 7"
        )
    return number


def sampling_text(samples: int) -> str:
    """How the encoder record calls it; empty for one patch."""
    return "" if samples == 1 else f"{samples} patches within the spot"


def looks_of(scales: tuple[float, ...], samples: int, diameter_px: float) -> list[Look]:
    """The patches of a spot: several of the encoder's own width within its circle, one of each other width around its centre."""
    ring = [2 * math.pi * step / (samples - 1) for step in range(samples - 1)]
    radius = RING * diameter_px / 2
    offsets = [(0.0, 0.0), *((radius * math.cos(angle), radius * math.sin(angle)) for angle in ring)]
    own = [Look(0, scales[0], offset, 1 / samples, is_first=not step) for step, offset in enumerate(offsets)]
    *looks, last = [*own, *(Look(block, scale) for block, scale in enumerate(scales) if block)]
    return [*looks, replace(last, is_last=True)]
