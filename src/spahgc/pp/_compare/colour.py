"""Stain and brightness of a slide, from the small picture of its tissue that goes with it everywhere."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spahgc.image._focus import LUMINANCE
from spahgc.pp._embed.stain import MIN_TISSUE_PIXELS, OPTICAL_DENSITY, TISSUE_OD, Macenko
from spahgc.pp._register.picture import Picture


@dataclass(frozen=True)
class Colour:
    """Colours of a slide's tissue.

    Parameters
    ----------
    density
        Mean optical density (natural logarithm) over the tissue, of red, green and blue.
    stains
        Optical density of haematoxylin and eosin, (red, green, blue) x 2, each of length 1; ``None`` where they cannot be told.
    brightness
        Mean brightness over the tissue, 0 to 255 (ITU-R BT.601).
    """

    density: NDArray[np.float64]
    stains: NDArray[np.float64] | None
    brightness: float

    @classmethod
    def of(cls, picture: Picture | None) -> Colour | None:
        """That of the tissue on a picture; ``None`` without a picture or with too little tissue on it."""
        if picture is None:
            return None
        pixels = picture.rgb.reshape(-1, 3) if picture.inside is None else picture.rgb[picture.inside]
        tissue = pixels[OPTICAL_DENSITY[pixels].mean(axis=-1) > TISSUE_OD]
        if len(tissue) < MIN_TISSUE_PIXELS:
            return None
        try:
            stains = Macenko.estimate(tissue, "the slide").stains
        except ValueError:  # all its tissue has nearly the same hue
            stains = None
        return cls(OPTICAL_DENSITY[tissue].mean(axis=0, dtype=np.float64), stains, float((tissue @ LUMINANCE).mean()))

    def angle(self, other: Colour) -> float:
        """Larger one of the angles between the two haematoxylins and between the two eosins, degrees; NaN if unknown."""
        if self.stains is None or other.stains is None:
            return float("nan")
        cosines = (self.stains * other.stains).sum(axis=0) / (
            np.linalg.norm(self.stains, axis=0) * np.linalg.norm(other.stains, axis=0)
        )
        return float(np.rad2deg(np.arccos(np.clip(cosines, -1, 1))).max())
