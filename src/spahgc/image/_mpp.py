"""What image files say about their resolution, in microns per pixel."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

MPP_RANGE_UM = (0.05, 20.0)
"""Resolutions of microscopes and slide scanners. 72, 96 or 300 dpi (353 to 85 um) are defaults of photography."""
ANISOTROPY = 0.01
"""Relative difference of the two axes above which a resolution is not used."""
UM_PER_INCH = 25_400.0
UM_PER_CM = 10_000.0
TIFF_UNIT_UM = {2: UM_PER_INCH, 3: UM_PER_CM}
"""Values of the tag ResolutionUnit, and the length of the unit."""
MICRONS = ("\u00b5m", "\u03bcm", "um", "micron")
OME_PIXELS = re.compile(r"<(?:\w+:)?Pixels\b[^>]*>")
OME_ATTRIBUTE = re.compile(r'\b(PhysicalSize[XY](?:Unit)?)="([^"]*)"')
APERIO_MPP = re.compile(r"\bMPP\s*=\s*([0-9.]+)")


def plausible_mpp(x_um: float, y_um: float) -> float | None:
    """Return the mean of the two axes if they agree and a microscope could have made them, else ``None``."""
    if not (np.isfinite(x_um) and np.isfinite(y_um)) or min(x_um, y_um) <= 0:
        return None
    mpp = (x_um + y_um) / 2
    if abs(x_um - y_um) > ANISOTROPY * mpp or not MPP_RANGE_UM[0] <= mpp <= MPP_RANGE_UM[1]:
        return None
    return float(mpp)


def mpp_from_dpi(dpi: object) -> float | None:
    """Microns per pixel from PIL's ``info["dpi"]``, (x, y) pixels per inch, if there is one."""
    if not isinstance(dpi, tuple) or len(dpi) != 2 or float(dpi[0]) <= 0 or float(dpi[1]) <= 0:
        return None
    return plausible_mpp(UM_PER_INCH / float(dpi[0]), UM_PER_INCH / float(dpi[1]))


def mpp_from_tags(
    x_resolution: Sequence[int] | None, y_resolution: Sequence[int] | None, unit: int | None
) -> float | None:
    """Microns per pixel from the tags XResolution, YResolution (numerator, denominator) and ResolutionUnit."""
    length_um = TIFF_UNIT_UM.get(int(unit)) if unit is not None else None
    if length_um is None or x_resolution is None or y_resolution is None:
        return None
    numbers = [*x_resolution, *y_resolution]
    if min(numbers) <= 0:
        return None
    return plausible_mpp(length_um * numbers[1] / numbers[0], length_um * numbers[3] / numbers[2])


def mpp_from_ome(xml: str, index: int) -> float | None:
    """Microns per pixel from the ``index``-th image of OME metadata."""
    pixels = OME_PIXELS.findall(xml)
    if index >= len(pixels):
        return None
    attributes = dict(OME_ATTRIBUTE.findall(pixels[index]))
    # Microns are the default of the OME schema.
    units = [attributes.get(f"PhysicalSize{axis}Unit", MICRONS[0]) for axis in "XY"]
    if not all(unit in MICRONS for unit in units):
        return None
    try:
        return plausible_mpp(float(attributes["PhysicalSizeX"]), float(attributes["PhysicalSizeY"]))
    except (KeyError, ValueError):
        return None


def mpp_from_aperio(description: str) -> float | None:
    """Microns per pixel from the description of an Aperio (.svs) file."""
    match = APERIO_MPP.search(description)
    try:
        return plausible_mpp(float(match[1]), float(match[1])) if match else None
    except ValueError:
        return None
