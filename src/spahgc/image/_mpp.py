"""Microns per pixel: which numbers a light microscope can make, and what image files say."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import NamedTuple

MPP_RANGE_UM = (0.1, 20.0)
"""Microns per pixel that are plausible for an image of tissue in bright field.

No scanner of slides goes below 0.1 (a 100x objective): 0.05 or 0.025 is a comma in the wrong place. Above 20 a patch of
an encoder would be some pixels wide; 72, 96 or 300 dpi (353 to 85 um) are defaults of photography and of screens.
"""
ANISOTROPY = 0.01
"""Relative difference of the two axes above which a resolution is not used."""
MAX_DISAGREEMENT = 1.5
"""Factor between two statements of one file above which one must be wrong; inches taken for centimetres make 2.54."""
UM_PER_INCH = 25_400.0
UM_PER_CM = 10_000.0
TIFF_UNIT_UM = {2: UM_PER_INCH, 3: UM_PER_CM}
"""Values of the tag ResolutionUnit, and the length of the unit."""
NO_UNIT = 1
"""Value of the tag ResolutionUnit where the unit stands elsewhere: ImageJ's description has it."""
UNIT_UM = {
    **dict.fromkeys(("um", "\u00b5m", "\u03bcm", "micron", "microns"), 1.0),
    **dict.fromkeys(("micrometer", "micrometers", "micrometre", "micrometres"), 1.0),
    **dict.fromkeys(("nm", "nanometer", "nanometers", "nanometre", "nanometres"), 1e-3),
    **dict.fromkeys(("\u00e5", "\u212b", "angstrom"), 1e-4),
    "pm": 1e-6,
    **dict.fromkeys(("mm", "millimeter", "millimeters", "millimetre", "millimetres"), 1e3),
    **dict.fromkeys(("cm", "centimeter", "centimeters", "centimetre", "centimetres"), UM_PER_CM),
    "dm": 1e5,
    **dict.fromkeys(("m", "meter", "metre"), 1e6),
    **dict.fromkeys(("in", "inch", "inches"), UM_PER_INCH),
}
"""Names of units in OME, ImageJ and elsewhere, in lower case, and their length in microns."""
ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")
"""How Java's properties, and ImageJ with them, write a letter that is not ASCII."""
TAGS, DPI = "its resolution tags say", "its dots per inch say"
APERIO_MPP = re.compile(r"\bMPP\s*=\s*([^|;\s]+)")


class Resolution(NamedTuple):
    """What a source says of the resolution of an image."""

    mpp: float | None = None
    """Microns per pixel, if a microscope can have made it."""
    problem: str | None = None
    """Why there is none although something is said."""
    said: float | None = None
    """What is said, also where nobody can believe it."""


def check_mpp(name: str, value: object) -> None:
    """Refuse what is no plausible resolution; ``None`` passes.

    Parameters
    ----------
    name
        How messages call it, e.g. ``"mpp"``.
    value
        Microns per pixel of an image.

    Raises
    ------
    TypeError
        If it is no number.
    ValueError
        If it is not positive and finite, or outside of 0.1 to 20.

    Examples
    --------
    >>> from spahgc.image._mpp import check_mpp
    >>> check_mpp("mpp", 0.05)
    Traceback (most recent call last):
    ...
    ValueError: mpp=0.05 is no resolution of a light microscope: 0.1 to 20 microns per pixel are plausible...
    """
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name}={value!r}; pass a number, microns per pixel, e.g. {name}=0.5")
    mpp = float(value)
    if not (math.isfinite(mpp) and mpp > 0):
        raise ValueError(f"{name}={value!r}; mpp is microns per pixel: pass a positive number, e.g. {name}=0.5")
    if not is_plausible(mpp):
        raise ValueError(f"{name}={value!r} {implausible()} Is it ten times too small or too large?")


def is_plausible(mpp: float) -> bool:
    """Whether a microscope can have made an image of so many microns per pixel; NaN and infinity are no."""
    return MPP_RANGE_UM[0] <= mpp <= MPP_RANGE_UM[1]


def implausible() -> str:
    """The middle of a message about a resolution out of range."""
    return (
        f"is no resolution of a light microscope: {MPP_RANGE_UM[0]:g} to {MPP_RANGE_UM[1]:g} microns per pixel are "
        "plausible, about 0.5 for a 20x scan and 0.25 for 40x."
    )


def judged(x_um: float, y_um: float, source: str) -> Resolution:
    """Judge the width and the height of a pixel as a file states them.

    Parameters
    ----------
    x_um, y_um
        Microns per pixel; may be anything.
    source
        Who says so, with the verb, e.g. ``"its resolution tags say"``.

    Returns
    -------
    The mean of the two if they agree and a microscope can have made them, else what is wrong with them.
    """
    said = f"{source} {x_um:.4g}" + ("" if x_um == y_um else f" x {y_um:.4g}") + " um per pixel"
    if not (math.isfinite(x_um) and math.isfinite(y_um)) or min(x_um, y_um) <= 0:
        return Resolution(problem=said)
    mpp = (x_um + y_um) / 2
    if abs(x_um - y_um) > ANISOTROPY * mpp:
        return Resolution(problem=f"{said}, and pixels must be square", said=mpp)
    if not is_plausible(mpp):
        low, high = MPP_RANGE_UM
        return Resolution(problem=f"{said}, and {low:g} to {high:g} are plausible", said=mpp)
    return Resolution(mpp=float(mpp), said=mpp)


def agreed(found: Iterable[Resolution | None]) -> Resolution:
    """The resolution of a file that states it in several places, the most trusted first.

    The first plausible one counts, unless one before it says something else, or a plausible one after it differs by more
    than 1.5 times: then nobody can tell which is right. What a less trusted one says implausibly is a default.
    """
    stated = [each for each in found if each is not None]
    first = next((index for index, each in enumerate(stated) if each.mpp is not None), None)
    if first is None:
        return stated[0] if stated else Resolution()
    mpp = stated[first].mpp or 0.0
    others = [each.said for each in stated[:first]] + [each.mpp for each in stated[first + 1 :]]
    for other in others:
        if other is not None and max(mpp / other, other / mpp) > MAX_DISAGREEMENT:
            return Resolution(problem=f"it says both {mpp:.4g} and {other:.4g} um per pixel")
    return stated[first]


def mpp_from_dpi(dpi: object) -> Resolution | None:
    """What PIL's ``info["dpi"]``, (x, y) pixels per inch, says; ``None`` for nothing."""
    x, y = _number(dpi, 0), _number(dpi, 1)
    return None if x is None or y is None else judged(_over(UM_PER_INCH, x), _over(UM_PER_INCH, y), DPI)


def mpp_from_tags(
    x_resolution: Sequence[int] | None,
    y_resolution: Sequence[int] | None,
    unit: object,
    imagej: Mapping[str, object] | None = None,
) -> Resolution | None:
    """What the tags XResolution, YResolution (numerator, denominator) and ResolutionUnit say; ``None`` for nothing.

    Parameters
    ----------
    x_resolution, y_resolution, unit
        Values of the tags.
    imagej
        ImageJ's own metadata, whose ``unit`` is that of the tags: Fiji leaves ResolutionUnit at "none".
    """
    length_um = TIFF_UNIT_UM.get(int(unit)) if isinstance(unit, int) else None
    named = unit_um((imagej or {}).get("unit"))
    if named is not None and (length_um is None or unit == NO_UNIT):
        length_um = named
    x, y = _fraction(x_resolution), _fraction(y_resolution)
    if length_um is None or x is None or y is None:
        return None
    return judged(_over(length_um * x[1], x[0]), _over(length_um * y[1], y[0]), TAGS)


def mpp_from_aperio(description: str) -> Resolution | None:
    """What the description of an Aperio (.svs) file says; ``None`` for nothing."""
    match = APERIO_MPP.search(description)
    if match is None:
        return None
    try:
        value = float(match[1].replace(",", "."))
    except ValueError:
        return None
    return judged(value, value, "MPP in its description says")


def mpp_from_numbers(x: object, y: object, source: str) -> Resolution | None:
    """What two numbers in microns, or texts of them, say; ``None`` if one of them is none."""
    try:
        return judged(float(x), float(y), source)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None


def unit_um(name: object) -> float | None:
    """Length of a unit in microns, by its name; ``None`` for what is no length, such as a pixel."""
    if not isinstance(name, str):
        return None
    name = ESCAPE.sub(lambda match: chr(int(match[1], 16)), name).strip()
    return UNIT_UM.get(name) or UNIT_UM.get(name.lower())


def _over(length_um: float, pixels: float) -> float:
    """Width of one of so many pixels; infinite where there are none."""
    return length_um / pixels if pixels else math.inf


def _fraction(value: object) -> tuple[float, float] | None:
    """Numerator and denominator of a TIFF tag; ``None`` if it is no fraction."""
    numerator, denominator = _number(value, 0), _number(value, 1)
    return None if numerator is None or not denominator else (numerator, denominator)


def _number(values: object, index: int) -> float | None:
    """One of two numbers; ``None`` where there are no two."""
    if not isinstance(values, tuple | list) or len(values) != 2:
        return None
    try:
        return float(values[index])
    except (TypeError, ValueError, ArithmeticError):
        return None
