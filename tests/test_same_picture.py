"""The full-resolution image of a slide is that of its hires image: another section, or a turned copy, is refused."""

from __future__ import annotations

import importlib.util
import sys
import warnings
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
import tifffile
from PIL import Image

import spahgc as sp
from spahgc.image import _same_picture as same
from spahgc.image import open_image, thumbnail
from spahgc.image._same_picture import TURNS, compare_pictures
from spahgc.pp._embed.slide_image import ImageRequirements, check_slide


def _slide_files() -> Any:
    spec = importlib.util.spec_from_file_location("slide_files", Path(__file__).with_name("slide_files.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules["slide_files"] = module
    spec.loader.exec_module(module)
    return module


files = _slide_files()


@pytest.fixture(scope="module")
def slides() -> list[ad.AnnData]:
    return sp.datasets.simulated(2, n_patients=2, n_spots=24, n_genes=20, seed=1)


@pytest.fixture(scope="module")
def run(slides, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    files.write_visium(root / "V2", slides[0])
    return root / "V2"


@pytest.fixture(scope="module")
def pixels(slides) -> np.ndarray:
    return files.full_image(slides[0])


@pytest.fixture(scope="module")
def square(pixels) -> np.ndarray:
    return pixels[:880, :880]


def _write(path: Path, pixels: np.ndarray) -> Path:
    tifffile.imwrite(path, np.ascontiguousarray(pixels), photometric="rgb", tile=(256, 256))
    return path


def _as_large_as(pixels: np.ndarray, like: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).resize(like.shape[1::-1]))


def test_another_section_of_the_same_size_is_refused(run, slides, pixels, tmp_path):
    other = _as_large_as(files.full_image(slides[1]), pixels)
    with pytest.raises(ValueError, match=r"is not the picture of which the hires image was made.*another section"):
        sp.io.visium(run, image=_write(tmp_path / "other.tif", other))


@pytest.mark.parametrize("turn", ["turned by 180 degrees", "mirrored left to right", "mirrored top to bottom"])
def test_a_turned_copy_is_refused_with_its_turn(turn, run, pixels, tmp_path):
    with pytest.raises(ValueError, match=f"is the picture of the hires image, but {turn}"):
        sp.io.visium(run, image=_write(tmp_path / "turned.tif", TURNS[turn](pixels)))


@pytest.mark.parametrize("turn", list(TURNS))
def test_each_turn_is_told_from_the_others(turn, square):
    hires = files.reduced(square, 0.25)
    found = compare_pictures(open_image(np.ascontiguousarray(TURNS[turn](square))), hires, 0.25)
    assert found.turn == turn and found.similarity < same.MIN_SIMILARITY


def test_an_image_whose_sides_changed_places_says_so(run, slides, tmp_path):
    tall = files.full_image(slides[0])[:, :640]
    target = tmp_path / "V2"
    files.write_visium(target, slides[0])
    spatial = target / "outs/spatial"
    Image.fromarray(files.reduced(tall, 0.25)).save(spatial / "tissue_hires_image.png")
    with pytest.raises(ValueError, match="Turned by 90 degrees it would have that size"):
        sp.io.visium(target, image=_write(tmp_path / "turned.tif", np.rot90(tall)))


@pytest.mark.parametrize("image", ["array", "path"])
def test_an_embedding_refuses_the_picture_of_another_section(image, run, slides, pixels, tmp_path):
    adata = sp.io.visium(run)
    other = _as_large_as(files.full_image(slides[1]), pixels)
    source = other if image == "array" else _write(tmp_path / "other.tif", other)
    with pytest.raises(ValueError, match='the image of slide "V2" is not the picture'):
        sp.pp.embed(adata, encoder="efficientnet_lite0", image=source)


def test_a_path_that_another_reader_noted_is_checked_as_well(run, slides, pixels, tmp_path):
    adata = sp.io.visium(run)
    metadata = adata.uns["spatial"]["V2"]["metadata"]
    del metadata["reader"]
    metadata["source_image_path"] = str(_write(tmp_path / "turned.tif", pixels[::-1]))
    with pytest.raises(ValueError, match="but mirrored top to bottom"):
        check_slide(adata, None, None, 0, requirements=ImageRequirements())


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda a: (255 * (a / 255.0) ** 1.8).astype(np.uint8), id="gamma"),
        pytest.param(lambda a: (a // 2 + 90).astype(np.uint8), id="contrast"),
        pytest.param(lambda a: np.roll(a, (2, 2), (0, 1)), id="shift"),
        pytest.param(lambda a: a[:-8, :-8], id="cropped at the far border"),
    ],
)
def test_another_gamma_contrast_or_crop_is_the_same_picture(change, run, pixels, tmp_path):
    image = _write(tmp_path / "V2.tif", change(pixels))
    assert sp.io.visium(run, image=image).n_obs == 24


def test_jpeg_artefacts_do_not_matter(run, pixels, tmp_path):
    Image.fromarray(pixels).save(tmp_path / "V2.jpg", quality=20)
    assert sp.io.visium(run, image=tmp_path / "V2.jpg").n_obs == 24


def test_of_two_blank_pictures_nothing_is_said(recwarn):
    blank = np.full((400, 400, 3), 240, np.uint8)
    assert compare_pictures(open_image(blank), blank[:100, :100], 0.25).similarity is None
    same.refuse_other_picture(open_image(blank), blank[:100, :100], 0.25, "the image")
    assert not recwarn


def test_a_blank_picture_beside_one_that_is_not_is_said(square):
    with pytest.warns(UserWarning, match="the image and the hires image .* cannot be compared: one of them is blank"):
        same.refuse_other_picture(open_image(np.full_like(square, 240)), files.reduced(square, 0.25), 0.25, "the image")


def test_a_large_image_without_levels_is_read_in_samples(square, monkeypatch):
    monkeypatch.setattr(same, "MAX_READ_PIXELS", 60_000)
    hires = files.reduced(square, 0.25)
    read = []

    class Counting(type(open_image(square))):
        def read(self, left, top, width, height):
            read.append(width * height)
            return super().read(left, top, width, height)

    found = compare_pictures(Counting(square), hires, 0.25)
    assert found.similarity > 0.97
    assert max(read) < 10_000
    turned = compare_pictures(Counting(np.ascontiguousarray(square[::-1])), hires, 0.25)
    assert turned.turn == "mirrored top to bottom"


def test_a_pyramid_is_read_at_a_small_level(square, tmp_path, monkeypatch):
    with tifffile.TiffWriter(tmp_path / "p.tif") as tiff:
        options = {"photometric": "rgb", "tile": (128, 128), "metadata": None}
        tiff.write(square, **options)
        for scale in (0.5, 0.25, 0.125):
            tiff.write(files.reduced(square, scale), subfiletype=1, **options)
    with open_image(tmp_path / "p.tif") as image:
        monkeypatch.setattr(type(image), "read", lambda *_: pytest.fail("the full resolution was read"))
        assert compare_pictures(image, files.reduced(square, 0.25), 0.25).similarity > 0.97


def test_the_hires_image_of_a_hest_sample_is_compared_with_its_file(slides, tmp_path):
    files.write_hest(tmp_path, slides[0], "S1")
    path = tmp_path / "wsis/S1.tif"
    _write(path, tifffile.imread(path)[:, ::-1])
    with pytest.raises(ValueError, match="but mirrored left to right"):
        sp.io.hest(tmp_path, "S1")


@pytest.mark.data
def test_measured_sections_are_told_from_each_other(her2st):
    with open_image(her2st / "C2.jpg") as image, open_image(her2st / "B4.jpg") as other:
        hires, scale = thumbnail(image, 2000)
        assert compare_pictures(image, hires, scale).similarity > 0.99
        assert compare_pictures(other, hires, scale).similarity < 0.5
        assert compare_pictures(image, np.ascontiguousarray(hires[:, ::-1]), scale).turn == "mirrored left to right"


@pytest.mark.data
def test_capture_areas_of_one_visium_slide_are_told_from_each_other(her2st):
    areas = her2st.parent / "kidney_organoid"
    pictures = [
        np.asarray(Image.open(areas / name / "spatial/tissue_hires_image.png").convert("RGB"))
        for name in ("B1", "C1", "D1")
    ]
    for i, a in enumerate(pictures):
        for j, b in enumerate(pictures):
            found = compare_pictures(open_image(a), b, b.shape[1] / a.shape[1]).similarity
            assert (found > same.MIN_SIMILARITY) == (i == j)


def test_good_input_raises_no_warning(run, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sp.io.visium(run, image=run.parent / "V2.tif")
