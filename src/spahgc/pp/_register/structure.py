"""What a picture shows, analysed once: tissue, the structure inside it free of stain and trend, and both in coarse."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from spahgc.image._tissue import find_tissue, optical_density
from spahgc.pp._register.picture import MIN_SIDE_PX, Matrix, Picture

Floats = NDArray[np.float32]

FINE_UM, BROAD_UM = 25.0, 240.0
"""Structure is what lies between these (standard deviations of two Gaussian windows): cells below differ from section to
section, and the mean and the trend above are stain, thickness and outline."""
OUTLINE_UM = 25.0
"""Standard deviation of the Gaussian window over the tissue whose edge is compared."""
BORDER_PX = 2
"""Pixels along the border of what a picture shows where an edge of the tissue is none."""
COARSE_UM = 60.0
"""Width of the pixels on which all angles are tried."""
SMOOTH_COARSE_PX = 0.7
"""Gaussian window over these, pixels."""
MAX_DEVIATION = 3.0
"""Standard deviations at which the coarse structure is cut, so that folds and specks do not decide."""
STRUCTURE_WEIGHT = 0.5
"""Weight of the structure beside the tissue's outline while angles are tried."""
N_PROOF = 2
"""Channels, density and hematoxylin, by which sections are told apart and angles are tried. Eosin makes a refinement more exact,
but differs more between sections of one block."""
BRIGHTEST = 99.5
"""Percentile at which density is cut: ink and folds."""
MIN_TISSUE_UM2 = 300_000.0
"""Tissue below which nothing can be registered: a piece of .55 by .55 mm, the size of one window."""
MIN_CONTRAST = 0.01
"""Standard deviation of the optical density inside the tissue below which it shows no structure: half a grey level."""


class NoTissueError(ValueError):
    """A picture without tissue, or without anything to see in it."""


@dataclass(frozen=True, eq=False)
class Structure:
    """What is compared of a picture."""

    picture: Picture
    pixel_um: float
    tissue: Floats
    """1 on tissue, height x width."""
    known: Floats
    """1 where the picture shows the slide, and not only its border or another section, height x width."""
    outline: Floats
    """The tissue, smoothed."""
    bands: Floats
    """Structure of density, of hematoxylin and of eosin, 3 x height x width, unit variance nearby, 0 off the tissue."""
    step: int
    """Pixels of the picture for one of the coarse ones."""
    coarse: Floats
    """Tissue, density and hematoxylin, 3 x coarse height x coarse width."""

    @property
    def coarse_to_picture(self) -> Matrix:
        """From centres of coarse pixels to centres of the picture's pixels."""
        half = (self.step - 1) / 2
        return np.array([[self.step, 0, half], [0, self.step, half], [0, 0, 1.0]])


def find_structure(picture: Picture) -> Structure:
    """Analyse a picture.

    Raises
    ------
    NoTissueError
        If it shows too little tissue, or tissue of one colour.
    """
    rgb, um = picture.rgb, picture.pixel_um
    if min(rgb.shape[:2]) < MIN_SIDE_PX:
        raise NoTissueError(f"its picture has only {rgb.shape[1]} x {rgb.shape[0]} px")
    found = find_tissue(rgb, mpp=um)
    mask = found.mask if picture.inside is None else found.mask & picture.inside
    area = float(mask.sum()) * um**2
    if area < MIN_TISSUE_UM2:
        raise NoTissueError(
            f"its picture shows {area / 1e6:.2g} mm2 of tissue, and {MIN_TISSUE_UM2 / 1e6:g} are needed"
        )
    density = optical_density(rgb, np.asarray(found.glass))
    red, green, blue = (density[..., channel] for channel in range(3))
    values = (density.mean(-1), red - blue, 2 * green - red - blue)
    channels = [np.minimum(value, np.percentile(value[mask], BRIGHTEST)) for value in values]
    if max(float(c[mask].std()) for c in channels) < MIN_CONTRAST:
        raise NoTissueError("its tissue is of one colour")
    tissue = mask.astype(np.float32)
    step = max(1, round(COARSE_UM / um))
    coarse = [_reduced(tissue, step)]
    coarse += [STRUCTURE_WEIGHT * _coarse_structure(_reduced(c * tissue, step), coarse[0]) for c in channels[:N_PROOF]]
    bands = np.stack([_band(c, tissue, um) for c in channels])
    known = ndimage.binary_erosion(
        np.ones_like(mask) if picture.inside is None else picture.inside, iterations=BORDER_PX
    )
    outline = ndimage.gaussian_filter(tissue, OUTLINE_UM / um)
    return Structure(
        picture=picture,
        pixel_um=um,
        tissue=tissue,
        known=known.astype(np.float32),
        outline=outline,
        bands=bands,
        step=step,
        coarse=np.stack(coarse),
    )


def _mean_inside(values: Floats, tissue: Floats, sigma: float) -> Floats:
    """Mean over the tissue within a Gaussian window."""
    weight = ndimage.gaussian_filter(tissue, sigma) + 1e-6
    return np.asarray(ndimage.gaussian_filter(values * tissue, sigma) / weight)


def _band(channel: Floats, tissue: Floats, um: float) -> Floats:
    """Structure between two sizes, in units of its deviation nearby."""
    fine, broad = FINE_UM / um, BROAD_UM / um
    band = (_mean_inside(channel, tissue, fine) - _mean_inside(channel, tissue, broad)) * tissue
    deviation = np.sqrt(_mean_inside(band**2, tissue, broad)) + 1e-3
    return np.asarray(band / deviation * tissue, dtype=np.float32)


def _reduced(values: Floats, step: int) -> Floats:
    height, width = (side // step for side in values.shape)
    blocks = values[: height * step, : width * step].reshape(height, step, width, step)
    return np.asarray(blocks.mean((1, 3)), dtype=np.float32)


def _coarse_structure(sums: Floats, tissue: Floats) -> Floats:
    """A channel on coarse pixels, standardised over the tissue, 0 off it."""
    weight = ndimage.gaussian_filter(tissue, SMOOTH_COARSE_PX) + 1e-3
    values = ndimage.gaussian_filter(sums, SMOOTH_COARSE_PX) / weight
    on = tissue > 0.5
    if not on.any():
        return np.zeros_like(tissue)
    values = np.where(on, (values - values[on].mean()) / (values[on].std() + 1e-6), 0)
    return np.asarray(values.clip(-MAX_DEVIATION, MAX_DEVIATION), dtype=np.float32)
