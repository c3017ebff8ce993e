"""Damaged files, and sizes that cannot be: refused in our words, without a crash and before memory is taken for them."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageFile
from tests import image_mutants

from spahgc._reading import UnreadableError
from spahgc.image import open_image

MUTANTS = 300
SMALL_BYTES = 50 * 2**20
WIDTH_TAG, LENGTH_TAG, ROWS_TAG, TILE_WIDTH_TAG, TILE_LENGTH_TAG = 256, 257, 278, 322, 323
NOISE = np.random.default_rng(0).integers(0, 255, (200, 240, 3), dtype=np.uint8)


def tiff(path: Path, **options) -> Path:
    tifffile.imwrite(path, NOISE, photometric="rgb", metadata=None, **options)
    return path


def with_tags(path: Path, **values: int) -> Path:
    """Overwrite values of tags in the file, whatever they mean for its pixels."""
    with tifffile.TiffFile(path) as file:
        places = {name: (file.pages[0].tags[name].valueoffset, file.pages[0].tags[name].dtype) for name in values}
    data = bytearray(path.read_bytes())
    for name, value in values.items():
        offset, kind = places[name]
        struct.pack_into("<H" if int(kind) == 3 else "<I", data, offset, value)
    path.write_bytes(data)
    return path


def refused(path: Path, match: str) -> UnreadableError:
    """The error of opening the file or of reading from it, which takes no memory worth mentioning."""
    tracemalloc.start()
    try:
        with pytest.raises(UnreadableError, match=match) as error, open_image(path) as image:
            image.read(0, 0, 1, 1)
        assert tracemalloc.get_traced_memory()[1] < SMALL_BYTES
    finally:
        tracemalloc.stop()
    assert str(path) in str(error.value)
    return error.value


@pytest.mark.parametrize("compression", [None, "zlib", "lzw", "packbits"])
@pytest.mark.parametrize("layout", [{"tile": (64, 64)}, {"rowsperstrip": 16}])
def test_a_tiff_of_an_announced_size_that_cannot_be_is_refused(tmp_path, compression, layout):
    path = tiff(tmp_path / "slide.tif", compression=compression, **layout)
    refused(with_tags(path, ImageWidth=2**31 - 1, ImageLength=2**31 - 1), "cannot be read: .*(listed|claims)")


def test_a_strip_that_claims_more_than_its_bytes_can_become_is_refused(tmp_path):
    path = tiff(tmp_path / "slide.tif", compression="zlib", rowsperstrip=200)
    refused(with_tags(path, ImageWidth=60_000, ImageLength=200 * 200, RowsPerStrip=200 * 200), "claims")


def test_a_tile_of_gigabytes_is_refused_by_both_readers(tmp_path):
    path = tiff(tmp_path / "slide.tif", compression="jpeg", tile=(64, 64))
    with_tags(path, TileWidth=60_000 // 16 * 16, TileLength=60_000 // 16 * 16)
    refused(path, "a tile or strip claims")
    pytest.importorskip("openslide")
    with pytest.raises(UnreadableError, match="a tile or strip claims"):
        open_image(path, reader="openslide")


@pytest.mark.parametrize(
    "values",
    [{"TileWidth": 0}, {"TileLength": 0}, {"ImageWidth": 0}, {"ImageLength": 0}, {"SamplesPerPixel": 0}],
)
def test_sides_of_zero_are_refused_in_our_words(tmp_path, values):
    path = tiff(tmp_path / "slide.tif", compression="zlib", tile=(64, 64))
    refused(with_tags(path, **values), r"slide\.tif")


def test_fewer_tiles_than_the_size_asks_for_are_refused_and_not_white(tmp_path):
    path = tiff(tmp_path / "slide.tif", compression="zlib", tile=(64, 64))
    refused(with_tags(path, ImageLength=400), "28 tiles or strips, and 16 are listed")


@pytest.mark.parametrize("compression", ["zlib", "lzw", "jpeg", "webp", "jpeg2000", "zstd", "lzma"])
@pytest.mark.parametrize("layout", [{"tile": (64, 64)}, {"rowsperstrip": 16}])
def test_pixels_that_cannot_be_decoded_name_the_file_and_the_place(tmp_path, compression, layout):
    path = tiff(tmp_path / "slide.tif", compression=compression, **layout)
    with tifffile.TiffFile(path) as file:
        first, length = file.pages[0].dataoffsets[0], file.pages[0].databytecounts[0]
    data = bytearray(path.read_bytes())
    data[first : first + length] = b"\x13" * length
    path.write_bytes(data)
    error = refused(path, r"the region left=0, top=0, 1 x 1 px of the image .* copy or download it again")
    assert error.__cause__ is not None


def png_that_claims(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [20_000, 65_535, 2**31 - 1])
def test_a_png_bomb_is_refused_by_its_head(tmp_path, side):
    (tmp_path / "slide.png").write_bytes(png_that_claims(side, side))
    refused(tmp_path / "slide.png", "more than a file of its size can hold|cannot be read")


def test_a_jpeg_that_claims_gigapixels_is_refused_by_its_head(tmp_path):
    path = tmp_path / "slide.jpg"
    Image.fromarray(NOISE[:16, :16]).save(path)
    data = bytearray(path.read_bytes())
    frame = data.index(b"\xff\xc0")
    struct.pack_into(">HH", data, frame + 5, 65_500, 65_500)
    path.write_bytes(data)
    refused(path, "it claims 65,500 x 65,500 px, more than a file of its size can hold")


def test_a_blank_jpeg_and_a_blank_png_are_not_taken_for_bombs(tmp_path):
    for name in ("slide.jpg", "slide.png", "slide.webp"):
        Image.new("RGB", (3000, 2000), "white").save(tmp_path / name)
        with open_image(tmp_path / name) as image:
            assert image.read(2990, 1990, 10, 10).min() > 250


def test_a_cut_jpeg_is_refused_also_where_another_library_told_pil_to_fill_it(tmp_path, monkeypatch):
    path = tmp_path / "slide.jpg"
    Image.fromarray(NOISE).save(path)
    path.write_bytes(path.read_bytes()[:9000])
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    refused(path, "truncated")
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


# --- what is no file of an image


def test_a_link_to_itself_a_pipe_and_a_name_that_is_too_long_are_refused(tmp_path):
    (tmp_path / "loop.tif").symlink_to(tmp_path / "loop.tif")
    with pytest.raises(UnreadableError, match=r"loop\.tif.* cannot be opened"):
        open_image(tmp_path / "loop.tif")
    os.mkfifo(tmp_path / "pipe.tif")
    with pytest.raises(UnreadableError, match="is a pipe or a device"):
        open_image(tmp_path / "pipe.tif")
    with pytest.raises(UnreadableError, match="cannot be opened"):
        open_image(tmp_path / ("a" * 5000))
    with pytest.raises(ValueError, match="names nothing: it is empty, or holds the character of number 0"):
        open_image("a\0b.tif")


def test_a_link_to_nothing_is_a_missing_file(tmp_path):
    (tmp_path / "slide.tif").symlink_to(tmp_path / "gone.tif")
    with pytest.raises(FileNotFoundError, match=r"slide\.tif.* does not exist"):
        open_image(tmp_path / "slide.tif")


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"II*\0", b"MM\0+", b"II+\0\x08\0\0\0"])
def test_a_file_of_nothing_but_a_signature_is_refused(tmp_path, content):
    (tmp_path / "slide.bin").write_bytes(content)
    refused(tmp_path / "slide.bin", r"slide\.bin")


def test_a_dicom_file_that_is_none_is_refused(tmp_path):
    pytest.importorskip("openslide")
    (tmp_path / "slide.dcm").write_bytes(bytes(128) + b"DICM" + bytes(64))
    refused(tmp_path / "slide.dcm", r"slide\.dcm")


@pytest.mark.data
def test_a_measured_dicom_that_openslide_refuses_says_so():
    path = Path(os.environ.get("SPAHGC_TEST_DATA", "/none")) / "files" / "slides" / "small_dicom.dcm"
    if not path.exists():
        pytest.skip("the slide is not there")
    pytest.importorskip("openslide")
    refused(path, "cannot be read")


def test_an_own_error_is_not_wrapped_twice(tmp_path):
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, np.stack([NOISE] * 3), photometric="rgb")
    with pytest.raises(UnreadableError) as error:
        open_image(path)
    assert "cannot be read" not in str(error.value) and "one RGB image is needed" in str(error.value)


# --- many damaged files


@pytest.mark.skipif(sys.platform == "win32", reason="memory is limited by a function of POSIX")
def test_damaged_files_end_in_an_error_of_ours_and_never_in_a_crash(tmp_path):
    command = [sys.executable, image_mutants.__file__, str(tmp_path), "17", str(MUTANTS)]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["foreign"] == []
    assert found["outcomes"]["read"] > 0 and sum(found["outcomes"].values()) == MUTANTS
