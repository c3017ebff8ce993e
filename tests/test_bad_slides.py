"""Slides that are broken, mistaken or only for openslide: each says what is wrong and what to do."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from spahgc.image import open_image

TILE = 128
JPEG_MEAN_TOLERANCE = 3.0
"""Mean absolute difference, of 255, that lossy compression may make."""


@pytest.fixture(scope="module")
def tissue() -> np.ndarray:
    """A smooth picture of odd height and width."""
    coarse = np.random.default_rng(0).integers(90, 255, (30, 34, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((607, 501), Image.Resampling.BICUBIC))


def write_pyramid(path: Path, pixels: np.ndarray, *, ome: bool = False) -> Path:
    """Two levels, JPEG-compressed: a plain chain of directories, or an OME-TIFF with SubIFDs."""
    options: dict[str, Any] = {"tile": (TILE, TILE), "photometric": "rgb", "compression": "jpeg"}
    with tifffile.TiffWriter(path, ome=ome) as writer:
        writer.write(pixels, subifds=1 if ome else None, metadata={"axes": "YXS"} if ome else None, **options)
        writer.write(pixels[:500:2, :606:2], subfiletype=1, metadata=None, **options)
    return path


@pytest.fixture
def without_openslide(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the extra is not installed."""
    monkeypatch.setitem(sys.modules, "openslide", None)


@pytest.mark.parametrize("ome", [False, True])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_truncated_pyramid_is_refused_when_it_is_opened(tmp_path, tissue, ome, share):
    path = write_pyramid(tmp_path / "slide.tif", tissue, ome=ome)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(ValueError, match=r"slide\.tif.* cannot be read.*copy or download it again"):
        open_image(path)


def test_a_jpeg_renamed_to_tif_is_read_as_a_jpeg_and_said_to_be_one(tmp_path, tissue):
    path = tmp_path / "slide.tif"
    Image.fromarray(tissue).save(path, format="JPEG")
    with pytest.warns(UserWarning, match=r'slide\.tif" is called a TIFF but is none: it is read as the JPEG'):
        image = open_image(path)
    np.testing.assert_array_equal(image.read(10, 20, 30, 40), np.asarray(Image.open(path))[20:60, 10:40])


def test_a_picture_under_its_own_name_is_opened_without_a_word(tmp_path, tissue, recwarn):
    Image.fromarray(tissue).save(tmp_path / "slide.jpg", format="JPEG")
    open_image(tmp_path / "slide.jpg").close()
    assert not [warning for warning in recwarn if "TIFF" in str(warning.message)]


def test_a_jpeg_renamed_to_tif_is_refused_by_tifffile_if_that_is_asked_for(tmp_path, tissue):
    path = tmp_path / "slide.tif"
    Image.fromarray(tissue).save(path, format="JPEG")
    with pytest.raises(ValueError, match=r"slide\.tif.* cannot be read"):
        open_image(path, reader="tifffile")


@pytest.mark.parametrize("ending", ["svs", "tif", "ndpi"])
def test_a_text_file_is_no_image_whatever_it_is_called(tmp_path, ending):
    path = tmp_path / f"slide.{ending}"
    path.write_text("404 Not Found\n" * 20)
    with pytest.raises(ValueError, match=rf"slide\.{ending}.* is not an image that can be read"):
        open_image(path)


def test_where_openslide_is_missing_the_message_names_the_extra(tmp_path, without_openslide):
    path = tmp_path / "slide.svs"
    path.write_text("404 Not Found\n" * 20)
    with pytest.raises(ValueError, match=r'is not an image that can be read.*pip install "spahgc\[wsi\]"'):
        open_image(path)


@pytest.mark.parametrize("ending", ["mrxs", "vms", "dcm"])
def test_formats_that_only_openslide_reads_ask_for_the_extra(tmp_path, tissue, without_openslide, ending):
    """A .mrxs is a JPEG by its content: it is not to be taken for the slide."""
    path = tmp_path / f"slide.{ending}"
    Image.fromarray(tissue).save(path, format="JPEG")
    with pytest.raises(ImportError, match=rf'slide\.{ending}.* is read by openslide.*pip install "spahgc\[wsi\]"'):
        open_image(path)


def test_openslide_asked_for_by_name_asks_for_the_extra(tmp_path, tissue, without_openslide):
    path = write_pyramid(tmp_path / "slide.tif", tissue)
    with pytest.raises(ImportError, match=r'pip install "spahgc\[wsi\]"'):
        open_image(path, reader="openslide")


def test_a_jpeg_that_is_called_mrxs_is_no_slide(tmp_path, tissue):
    pytest.importorskip("openslide")
    path = tmp_path / "slide.mrxs"
    Image.fromarray(tissue).save(path, format="JPEG")
    with pytest.raises(ValueError, match=r"slide\.mrxs.*(no whole-slide file|cannot be read)"):
        open_image(path)


def write_aperio_jpeg2000(path: Path, pixels: np.ndarray) -> Path:
    """Aperio's compression 33003: JPEG 2000 of YCbCr, which tifffile hands out as it is."""
    height, width = pixels.shape[:2]
    text = f"Aperio Image Library v1.0\n{width}x{height} [0,0 {width}x{height}] (128x128) J2K/YUV16|AppMag = 20|MPP = 0.4990"
    stored = np.asarray(Image.fromarray(pixels).convert("YCbCr"))
    tifffile.imwrite(
        path, stored, tile=(TILE, TILE), photometric="rgb", compression=33003, metadata=None, description=text
    )
    return path


def test_aperios_jpeg_2000_goes_to_openslide_without_being_asked(tmp_path, tissue):
    pytest.importorskip("openslide")
    path = write_aperio_jpeg2000(tmp_path / "slide.svs", tissue)
    with open_image(path) as image:
        assert image.mpp == pytest.approx(0.499)
        patch = image.read(100, 200, 300, 250)
    assert np.abs(patch.astype(int) - tissue[200:450, 100:400]).mean() < JPEG_MEAN_TOLERANCE


def test_aperios_jpeg_2000_without_openslide_names_the_extra(tmp_path, tissue, without_openslide):
    path = write_aperio_jpeg2000(tmp_path / "slide.svs", tissue)
    with pytest.raises(ImportError, match=r'stores its colours.*pip install "spahgc\[wsi\]"'):
        open_image(path)


@pytest.mark.parametrize("reader", ["tifffile", "openslide"])
def test_a_closed_slide_says_so(tmp_path, tissue, reader):
    if reader == "openslide":
        pytest.importorskip("openslide")
    path = write_pyramid(tmp_path / "slide.tif", tissue)
    with open_image(path, reader=reader) as image:
        image.read(0, 0, 1, 1)
    with pytest.raises(ValueError, match="is closed"):
        image.read(200, 200, 1, 1)
