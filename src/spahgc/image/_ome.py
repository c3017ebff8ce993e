"""What OME metadata say of the images of a file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree import ElementTree

from spahgc.image._mpp import Resolution, mpp_from_numbers, unit_um

MAX_XML_CHARACTERS = 64 * 2**20
"""Longer metadata are not parsed; a plate of 384 wells has some MB."""
DOCTYPE = re.compile(r"<!\s*(DOCTYPE|ENTITY)", re.IGNORECASE)
"""What OME metadata never hold: entities of their own, with which some lines become gigabytes."""
DEFAULT_UNIT = "\u00b5m"
"""Of PhysicalSize, in the schema of OME."""


@dataclass(frozen=True)
class OmeImage:
    """One image of OME metadata."""

    size: tuple[int, int]
    """Width and height in pixels; 0 where they are not said."""
    resolution: Resolution | None
    """What its metadata say of the size of its pixels; ``None`` for nothing."""


def ome_images(xml: str) -> list[OmeImage]:
    """The images that OME metadata describe, in their order; none where they are no XML, or define entities.

    Examples
    --------
    >>> from spahgc.image._ome import ome_images
    >>> xml = "<OME><Image><Pixels SizeX='9' SizeY='5' PhysicalSizeX='500' PhysicalSizeXUnit='nm' PhysicalSizeY='.5'/></Image></OME>"
    >>> ome_images(xml)[0].resolution.mpp
    0.5
    """
    if len(xml) > MAX_XML_CHARACTERS or DOCTYPE.search(xml):
        return []
    try:
        root = ElementTree.fromstring(xml.strip("\x00 \r\n\t\ufeff"))
    except (ElementTree.ParseError, ValueError, RecursionError):
        return []
    return [
        OmeImage((_size(pixels, "SizeX"), _size(pixels, "SizeY")), _resolution(pixels)) for pixels in _pixels_of(root)
    ]


def mpp_from_ome(xml: str, index: int, size: tuple[int, int]) -> Resolution | None:
    """What OME metadata say of an image of a file: the ``index``-th if it has this size, else the only one that has."""
    images = ome_images(xml)
    if index < len(images) and images[index].size in (size, (0, 0)):
        return images[index].resolution
    matching = [image for image in images if image.size == size]
    return matching[0].resolution if len(matching) == 1 else None


def _pixels_of(root: ElementTree.Element) -> Iterator[ElementTree.Element]:
    """The elements Pixels of all images, whatever the version of the schema, which is in the name space."""
    for image in root.iter():
        if _name(image) == "Image":
            yield from (child for child in image if _name(child) == "Pixels")


def _name(element: ElementTree.Element) -> str:
    return str(element.tag).rpartition("}")[2]


def _size(pixels: ElementTree.Element, attribute: str) -> int:
    text = pixels.get(attribute, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def _resolution(pixels: ElementTree.Element) -> Resolution | None:
    lengths = [unit_um(pixels.get(f"PhysicalSize{axis}Unit", DEFAULT_UNIT)) for axis in "XY"]
    if lengths[0] is None or lengths[1] is None:
        return None
    try:
        x, y = (float(pixels.get(f"PhysicalSize{axis}", "")) for axis in "XY")
    except ValueError:
        return None
    return mpp_from_numbers(x * lengths[0], y * lengths[1], "its OME metadata say")
