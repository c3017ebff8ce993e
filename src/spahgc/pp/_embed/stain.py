"""Patches as if all slides had been stained alike: Macenko's and Reinhard's normalisation, or a function of the user's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from spahgc.image import ImageSource, thumbnail
from spahgc.image._colour import WHITE
from spahgc.image._source import Pixels

PatchFunction: TypeAlias = Callable[[Pixels], Pixels]
"""From a patch, uint8, height x width x 3, to the same of other colours."""

THUMBNAIL_PX = 2048
"""Longest side of the small image from which a slide's stains are estimated."""
TISSUE_OD = 0.15
"""Mean optical density (natural logarithm) above which a pixel shows tissue: beta of Macenko et al."""
MIN_TISSUE_PIXELS = 100
"""Tissue pixels of the small image below which nothing is estimated."""
EXTREME_PERCENT = 1.0
"""Percentile of the angles at which the stains lie, from either end: alpha of Macenko et al."""
STRONGEST_PERCENT = 99.0
"""Percentile that stands for the largest amount of a stain."""
MIN_ANGLE_DEG = 2.0
"""Angle between two stains below which they cannot be told apart; that of the reference is 22."""

REFERENCE_STAINS = np.array([[0.5626, 0.2159], [0.7201, 0.8012], [0.4062, 0.5581]])
"""Optical density of haematoxylin and eosin, (red, green, blue) x 2: the reference of Macenko's own implementation."""
REFERENCE_STRONGEST = np.array([1.9705, 1.0308])
"""Largest amounts of the two, from the same."""
REFERENCE_MEAN = np.array([8.74108109, -0.12440419, 0.0444982])
"""Mean of the colours of slide TCGA-A2-A3XS (Amgad et al. 2019), the standard of HistomicsTK."""
REFERENCE_SPREAD = np.array([0.6135447, 0.10989545, 0.0286032])
"""Their standard deviation."""

CONES = np.array([[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]])
"""From red, green and blue to what the three cones of the eye see (Reinhard et al., eq. 4)."""
OPPONENTS = np.diag(1 / np.sqrt([3.0, 6.0, 2.0])) @ np.array([[1, 1, 1], [1, 1, -2], [1, -1, 0]])
"""From their logarithms to lightness, yellow-blue and red-green (Ruderman et al. 1998)."""

OPTICAL_DENSITY = -np.log(np.maximum(np.arange(WHITE + 1), 1) / WHITE).astype(np.float32)
"""Of every value of a pixel; that of white is 0, so that white stays white."""


@dataclass(frozen=True)
class Macenko:
    """A slide's two stains, exchanged for those of the reference.

    Macenko et al., A method for normalizing histology slides for quantitative analysis, ISBI 2009.

    Parameters
    ----------
    stains
        Optical density of one unit of haematoxylin and eosin on this slide, (red, green, blue) x 2.
    strongest
        Largest amounts of the two.
    """

    stains: NDArray[np.float64]
    strongest: NDArray[np.float64]

    @classmethod
    def estimate(cls, tissue: Pixels, label: str) -> Macenko:
        """Estimate the stains from tissue pixels, pixels x 3."""
        density = OPTICAL_DENSITY[tissue].astype(np.float64)
        # Two stains span a plane through the origin.
        plane = np.linalg.eigh(density.T @ density)[1][:, [2, 1]]
        plane = plane * np.where(density.mean(axis=0) @ plane < 0, -1.0, 1.0)
        along, across = (density @ plane).T
        ends = np.percentile(np.arctan2(across, along), [EXTREME_PERCENT, 100 - EXTREME_PERCENT])
        if np.rad2deg(ends[1] - ends[0]) < MIN_ANGLE_DEG:
            raise ValueError(
                f"the stains of {label} cannot be told apart: all its tissue has nearly the same hue. Is it stained with "
                "haematoxylin and eosin? Pass stain_normalization=None to leave it as it is."
            )
        stains = plane @ np.stack([np.cos(ends), np.sin(ends)])
        # Haematoxylin is blue: it takes more of the red than eosin does.
        stains = stains[:, np.argsort(-stains[0])]
        amounts = density @ np.linalg.pinv(stains).T
        return cls(stains, np.percentile(amounts, STRONGEST_PERCENT, axis=0))

    def __call__(self, pixels: Pixels) -> Pixels:
        """Exchange the stains of a patch."""
        scaled = REFERENCE_STAINS * (REFERENCE_STRONGEST / self.strongest)
        exchange = (scaled @ np.linalg.pinv(self.stains)).astype(np.float32)
        return _as_uint8(WHITE * np.exp(-(OPTICAL_DENSITY[pixels] @ exchange.T)))

    def to_uns(self) -> dict[str, object]:
        """What was estimated, in types that survive ``write_h5ad`` and ``write_zarr``."""
        return {"method": "macenko", "stains": self.stains, "strongest": self.strongest}


@dataclass(frozen=True)
class Reinhard:
    """A slide's mean colour and its spread, moved to those of the reference.

    Reinhard et al., Color transfer between images, IEEE Computer Graphics and Applications 21, 2001.

    Parameters
    ----------
    mean, spread
        Of lightness, yellow-blue and red-green over the tissue of this slide.
    """

    mean: NDArray[np.float64]
    spread: NDArray[np.float64]

    @classmethod
    def estimate(cls, tissue: Pixels, label: str) -> Reinhard:
        """Estimate the colours from tissue pixels, pixels x 3."""
        colours = _opponents(tissue)
        spread = colours.std(axis=0)
        if not (spread > 0).all():
            raise ValueError(
                f"the colours of {label} do not vary, so that nothing can be normalised. Is its image one of tissue? "
                "Pass stain_normalization=None to leave it as it is."
            )
        return cls(colours.mean(axis=0), spread)

    def __call__(self, pixels: Pixels) -> Pixels:
        """Move the colours of a patch; background stays, and pixels of little tissue are moved part of the way."""
        moved = (_opponents(pixels) - self.mean) / self.spread * REFERENCE_SPREAD + REFERENCE_MEAN
        coloured = np.exp(moved @ np.linalg.inv(OPPONENTS).T) @ np.linalg.inv(CONES).T
        share = np.clip(OPTICAL_DENSITY[pixels].mean(axis=-1, keepdims=True) / TISSUE_OD, 0, 1)
        return _as_uint8(share * coloured + (1 - share) * pixels)

    def to_uns(self) -> dict[str, object]:
        """What was estimated, in types that survive ``write_h5ad`` and ``write_zarr``."""
        return {"method": "reinhard", "mean": self.mean, "spread": self.spread}


@dataclass(frozen=True)
class UserFunction:
    """The user's function, whose patches are checked; one patch at a time, whatever number of threads cuts them."""

    function: PatchFunction
    name: str
    lock: Lock = field(default_factory=Lock, repr=False, compare=False)

    def __call__(self, pixels: Pixels) -> Pixels:
        """Let the function change a patch."""
        with self.lock:
            changed = self.function(pixels.copy())
        if not isinstance(changed, np.ndarray) or changed.dtype != np.uint8 or changed.shape != pixels.shape:
            kind = f"{changed.dtype} of shape {changed.shape}" if hasattr(changed, "dtype") else type(changed).__name__
            raise ValueError(
                f"stain_normalization={self.name} returned {kind} for a patch of uint8 of shape {pixels.shape}. Let it "
                "return an array of uint8 (0 to 255) and of the same shape."
            )
        return changed

    def to_uns(self) -> dict[str, object]:
        """Its name."""
        return {"method": self.name}


METHODS: dict[str, type[Macenko] | type[Reinhard]] = {"macenko": Macenko, "reinhard": Reinhard}

StainNormalizer: TypeAlias = Macenko | Reinhard | UserFunction
"""What is done to the patches of one slide."""


def stain_name(method: str | PatchFunction | None) -> str:
    """What the encoder record says of a stain normalisation; empty for none.

    Raises
    ------
    ValueError
        If no method has this name, or if a function has none.
    TypeError
        If it is neither a name nor a function.
    """
    if method is None:
        return ""
    if isinstance(method, str):
        if method not in METHODS:
            raise ValueError(
                f'stain_normalization="{method}" is not known; pass one of {", ".join(METHODS)}, or a function that '
                "makes of a patch (uint8, height x width x 3) one of the same shape."
            )
        return method
    if not callable(method):
        raise TypeError(
            f"stain_normalization is of type {type(method).__name__}; pass None, one of {', '.join(METHODS)}, or a "
            "function that makes of a patch (uint8, height x width x 3) one of the same shape."
        )
    name = getattr(getattr(method, "func", method), "__qualname__", type(method).__qualname__)
    if "<lambda>" in name:
        raise ValueError(
            "stain_normalization= is a lambda. Its name goes into the record of the embedding, by which embeddings of "
            "other stains are told apart: define the function with def and a name that says what it does."
        )
    return f"user:{name}"


def fit_stain(method: str | PatchFunction, image: ImageSource, label: str) -> StainNormalizer:
    """Estimate what a slide's patches need, once for the whole slide, from the tissue of a small image of it.

    Raises
    ------
    ValueError
        If the slide shows too little tissue, or only one stain.
    """
    if not isinstance(method, str):
        return UserFunction(method, stain_name(method))
    small, _ = thumbnail(image, THUMBNAIL_PX)
    tissue = small[OPTICAL_DENSITY[small].mean(axis=-1) > TISSUE_OD]
    if len(tissue) < MIN_TISSUE_PIXELS:
        raise ValueError(
            f"the stains of {label} cannot be estimated: {len(tissue)} of {small.shape[0] * small.shape[1]} pixels of its "
            f"thumbnail show tissue, at least {MIN_TISSUE_PIXELS} are needed. Pass stain_normalization=None to leave it as "
            "it is."
        )
    return METHODS[method].estimate(tissue, label)


def _opponents(pixels: Pixels) -> NDArray[np.float64]:
    """Lightness, yellow-blue and red-green of pixels; black counts as 1, whose logarithm is finite."""
    return np.log(np.maximum(pixels, 1) @ CONES.T) @ OPPONENTS.T


def _as_uint8(values: NDArray[np.floating]) -> Pixels:
    return np.rint(np.clip(values, 0, WHITE)).astype(np.uint8)
