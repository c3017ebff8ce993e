"""Damages small image files in ways that a seed determines, and opens them: ``python image_mutants.py FOLDER SEED N``.

Runs as a process of its own with little memory, because what it looks for are crashes, hangs and huge allocations. Prints
how often what happened, and every error that is not one of ours, as one line of JSON.
"""

from __future__ import annotations

import collections
import io
import json
import logging
import signal
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from spahgc._reading import UnreadableError
from spahgc.image import open_image, thumbnail

MEMORY_BYTES = 6 * 2**30
"""Address space of the process; libraries and threads take 2 to 3 GB of it."""
SECONDS = 60
"""Time for one file, after which the process is ended."""
THUMBNAIL_BELOW_PX = 4_000_000
COMPRESSIONS = (None, "lzw", "zlib", "jpeg", "packbits", "lzma")
PIL_FORMATS = {
    "a.jpg": ("JPEG", {}),
    "progressive.jpg": ("JPEG", {"progressive": True}),
    "a.png": ("PNG", {}),
    "a.bmp": ("BMP", {}),
    "a.webp": ("WEBP", {}),
    "a.jp2": ("JPEG2000", {}),
}


def whole_files(folder: Path) -> dict[str, bytes]:
    """Small files of all the formats, layouts and compressions."""
    coarse = np.random.default_rng(0).integers(90, 255, (12, 14, 3), dtype=np.uint8)
    pixels = np.asarray(Image.fromarray(coarse).resize((140, 120)))
    tile = {"tile": (32, 48), "photometric": "rgb"}
    variants: dict[str, tuple[np.ndarray, dict[str, Any]]] = {}
    for compression in COMPRESSIONS:
        variants[f"tiles_{compression}.tif"] = (pixels, {**tile, "compression": compression})
        variants[f"strips_{compression}.tif"] = (
            pixels,
            {"rowsperstrip": 16, "photometric": "rgb", "compression": compression},
        )
    planes = np.moveaxis(pixels, -1, 0)
    variants["planes.tif"] = (planes, {**tile, "planarconfig": "separate", "compression": "zlib"})
    variants["big.tif"] = (pixels, {**tile, "bigtiff": True})
    variants["grey.tif"] = (pixels[..., 0], {"photometric": "minisblack", "compression": "lzw"})
    variants["imagej.tif"] = (pixels, {"imagej": True, "resolution": (2, 2), "metadata": {"unit": "um"}})
    for name, (array, options) in variants.items():
        tifffile.imwrite(folder / name, array, **options)
    _write_pyramid(folder / "pyramid.ome.tif", pixels)
    _write_svs(folder / "slide.svs", pixels)
    for name, (kind, options) in PIL_FORMATS.items():
        Image.fromarray(pixels).save(folder / name, kind, **options)
    Image.fromarray(pixels).convert("P").save(folder / "palette.png")
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def _write_pyramid(path: Path, pixels: np.ndarray) -> None:
    options: dict[str, Any] = {"tile": (32, 32), "photometric": "rgb", "compression": "jpeg"}
    metadata = {"axes": "YXS", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    with tifffile.TiffWriter(path, ome=True) as writer:
        writer.write(pixels, subifds=1, metadata=metadata, **options)
        writer.write(pixels[::2, ::2], subfiletype=1, **options)


def _write_svs(path: Path, pixels: np.ndarray) -> None:
    options: dict[str, Any] = {"tile": (32, 32), "photometric": "rgb", "compression": "jpeg", "metadata": None}
    text = "Aperio Image Library v1.0\n140x120 (32x32) JPEG/RGB|AppMag = 20|MPP = 0.4990"
    with tifffile.TiffWriter(path) as writer:
        writer.write(pixels, description=text, **options)
        writer.write(pixels[::4, ::4], photometric="rgb", description="Aperio\n140x120 -> 35x30", metadata=None)
        writer.write(pixels[::2, ::2], description=text, **options)
        writer.write(
            pixels[:40, :30], photometric="rgb", description="Aperio\nlabel 30x40", subfiletype=1, metadata=None
        )


def damaged(data: bytes, rng: np.random.Generator, tags: list[int]) -> tuple[bytes, str]:
    """A damaged copy, and how: bits flipped, a byte of the head replaced, cut, zeroed, shifted, an entry of a TIFF changed.

    Parameters
    ----------
    data
        The file.
    rng
        Decides.
    tags
        Where the entries of a TIFF's directories begin.
    """
    out, kind = bytearray(data), str(rng.choice(["flip", "head", "cut", "zero", "shift", "entry"]))
    if kind == "flip":
        for position in rng.integers(0, len(data), rng.integers(1, 9)):
            out[position] ^= 1 << int(rng.integers(8))
    elif kind == "cut":
        out = out[: int(rng.integers(1, len(data)))]
    elif kind == "zero":
        start = int(rng.integers(len(data)))
        stop = min(len(data), start + int(rng.integers(1, 200)))
        out[start:stop] = bytes(stop - start)
    elif kind == "shift":
        start = int(rng.integers(len(data)))
        out[start:start] = rng.bytes(int(rng.integers(1, 40)))
    elif kind == "entry" and tags:
        start = tags[int(rng.integers(len(tags)))] + int(rng.choice([2, 4, 8]))  # type, count, value
        values = (bytes(4), b"\xff" * 4, b"\x01\0\0\0", b"\0\0\0\x80", b"\xff\xff\0\0", rng.bytes(4))
        out[start : start + 4] = values[int(rng.integers(len(values)))]
    else:
        for position in rng.integers(0, min(len(data), 400), rng.integers(1, 6)):
            out[position] = int(rng.integers(256))
    return bytes(out), kind


def entries(data: bytes) -> list[int]:
    """Where the entries of a TIFF's directories begin; none of another format."""
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            return [tag.offset for page in file.pages for tag in page.tags]
    except tifffile.TiffFileError:
        return []


def look_at(path: Path) -> None:
    """Open a file and read what an embedding reads."""
    with open_image(path) as image:
        width, height = min(20, image.width), min(20, image.height)
        image.read(0, 0, width, height)
        image.read(image.width - width, image.height - height, width, height)
        if image.width * image.height < THUMBNAIL_BELOW_PX:
            thumbnail(image, 30)


def main(folder: Path, seed: int, n_files: int) -> None:
    """Damage and open `n_files` files."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    files = whole_files(folder)
    tags = {name: entries(data) for name, data in files.items()}
    rng = np.random.default_rng(seed)
    outcomes: collections.Counter[str] = collections.Counter()
    foreign = []
    for number in range(n_files):
        name = str(rng.choice(sorted(files)))
        data, kind = damaged(files[name], rng, tags[name])
        path = folder / f"damaged_{name}"
        path.write_bytes(data)
        signal.alarm(SECONDS)
        try:
            look_at(path)
            outcomes["read"] += 1
        except UnreadableError as error:
            outcomes["refused"] += 1
            if str(path) not in str(error):
                foreign.append([number, name, kind, f"names no file: {error}"])
        except Exception:  # noqa: BLE001 (what is looked for)
            foreign.append([number, name, kind, traceback.format_exc()[-800:]])
        signal.alarm(0)
    print(json.dumps({"outcomes": outcomes, "foreign": foreign}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
