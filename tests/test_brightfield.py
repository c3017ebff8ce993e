"""What cannot be H&E is refused before anything is made of it; what can be is not."""

from __future__ import annotations

import os
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image
from torch import nn

import spahgc as sp
from spahgc.encoders import Encoder, EncoderRecord
from spahgc.image import open_image, thumbnail
from spahgc.image._brightfield import check_brightfield, sample_around

SIDE = 300
RECORD = EncoderRecord("colours", "1", 3, 32, None, (0.0,) * 3, (1.0,) * 3, "area", "mean", "fp32", "patch")


class Colours(nn.Module):
    """Mean colours of a patch."""

    def forward(self, x):
        return x.mean((2, 3))


@pytest.fixture(autouse=True)
def on_cpu(monkeypatch):
    monkeypatch.setattr(sp.settings, "device", "cpu")


def cells(value: tuple[int, int, int], ground: tuple[int, int, int]) -> np.ndarray:
    """Round cells on even ground with noise."""
    rng = np.random.default_rng(0)
    rows, columns = np.indices((SIDE, SIDE))
    is_cell = ((rows % 30 - 15) ** 2 + (columns % 30 - 15) ** 2) < 40
    picture = np.where(is_cell[..., None], value, ground) + rng.integers(-4, 5, (SIDE, SIDE, 1))
    return np.clip(picture, 0, 255).astype(np.uint8)


GREY_ON_BLACK = cells((180,) * 3, (12,) * 3)
FLUORESCENCE = {
    "grey": GREY_ON_BLACK,
    "one channel": GREY_ON_BLACK[..., 0],
    "grey on a lifted ground": cells((220,) * 3, (45,) * 3),
    "blue nuclei": cells((20, 30, 230), (5, 5, 12)),
    "grey on nothing": cells((255,) * 3, (0,) * 3) // 8 * 8,
    "green signal on a glow": cells((30, 240, 40), (8, 60, 10)),
    "black": np.zeros((SIDE, SIDE, 3), np.uint8),
}
STAINED = {
    "tissue without ground": cells((90, 50, 130), (200, 120, 180)),
    "dark tissue": cells((60, 35, 90), (120, 60, 120)),
    "grey ground": cells((110, 75, 120), (165, 165, 168)),
    "a black frame": np.pad(cells((90, 50, 130), (240, 238, 241)), ((400, 0), (0, 0), (0, 0))),
}


def spots(image: np.ndarray) -> ad.AnnData:
    adata = ad.AnnData(np.ones((6, 1), np.float32), obs=pd.DataFrame(index=[f"s{i}" for i in range(6)]))
    height = image.shape[0]
    adata.obsm["spatial"] = np.array([[40.0 + 40 * i, height - 150.0] for i in range(6)])
    return adata


@pytest.mark.parametrize("name", FLUORESCENCE)
def test_fluorescence_is_not_embedded_as_stained_tissue(name):
    image = FLUORESCENCE[name]
    adata, network = spots(image), Colours()
    network.forward = None  # nothing may reach the encoder
    with pytest.raises(ValueError, match="is no H&E image: .*Pass the H&E image"):
        sp.pp.embed(adata, encoder=Encoder(RECORD, network), image=image, context=False)
    assert not len(adata.obsm.keys() - {"spatial"})


@pytest.mark.parametrize("name", FLUORESCENCE)
def test_fluorescence_is_not_tiled_and_not_read_as_a_slide(tmp_path, name):
    image = FLUORESCENCE[name]
    with pytest.raises(ValueError, match=r'slide "slide" is no H&E image'):
        sp.pp.tile(image, mpp=0.5)
    Image.fromarray(image).save(tmp_path / "slide.png")
    with pytest.raises(ValueError, match=r'slide "slide" is no H&E image'):
        sp.io.slide(tmp_path / "slide.png", spots=[[50, 50], [150, 150]])


@pytest.mark.parametrize("name", STAINED)
def test_stained_tissue_passes_whatever_its_ground(name, recwarn):
    image = STAINED[name]
    adata = spots(image)
    sp.pp.embed(adata, encoder=Encoder(RECORD, Colours()), image=image, context=False)
    check_brightfield(image, "the slide")
    assert "X_colours" in adata.obsm and not [w for w in recwarn if "colours:" in str(w.message)]


def test_h_and_e_without_its_colours_is_embedded_and_said():
    image = np.repeat(cells((90,) * 3, (220,) * 3)[..., :1], 3, axis=2)
    adata = spots(image)
    with pytest.warns(UserWarning, match="has no colours: if it is H&E"):
        sp.pp.embed(adata, encoder=Encoder(RECORD, Colours()), image=image, context=False)
    assert "X_colours" in adata.obsm


def test_fluorescence_of_a_spatialdata_is_refused():
    pytest.importorskip("spatialdata")
    from tests.test_embed_spatialdata import sdata_of

    sdata = sdata_of()
    (key,) = sdata.images
    sdata.images[key] = sdata.images[key] * 0 + 10
    with pytest.raises(ValueError, match="is no H&E image"):
        sp.pp.embed(sdata, encoder=Encoder(RECORD, Colours()), context=False)


def test_fluorescence_is_refused_before_stains_are_looked_for():
    with pytest.raises(ValueError, match="is no H&E image"):
        sp.pp.embed(
            spots(GREY_ON_BLACK),
            encoder=Encoder(RECORD, Colours()),
            image=GREY_ON_BLACK,
            context=False,
            stain_normalization="macenko",
        )


# --- types of pixels


def test_floats_are_refused_with_the_conversion_for_either_range():
    with pytest.raises(ValueError, match=r"\* 255.*between 0 and 1, or image\.round\(\).*between 0 and 255"):
        open_image(STAINED["grey ground"].astype(np.float32))


def test_sixteen_bits_of_rgb_are_refused_with_a_conversion_that_cuts_nothing():
    wide = STAINED["grey ground"].astype(np.uint16) * 257
    with pytest.raises(ValueError, match=r"image / 65535 \* 255.* if its values reach to 65,535") as error:
        open_image(wide)
    assert "astype('uint8') if they end at 255" in str(error.value)
    np.testing.assert_array_equal((wide / 65535 * 255).round().astype("uint8"), STAINED["grey ground"])


@pytest.mark.parametrize("shape", [(40, 50), (40, 50, 1), (40, 50, 5)])
def test_a_wide_channel_is_not_told_how_to_become_h_and_e(shape):
    with pytest.raises(ValueError, match="is how fluorescence is stored, and H&E has colours"):
        open_image(np.zeros(shape, np.uint16))


def test_a_png_of_sixteen_bits_in_rgb_is_scaled_and_not_cut(tmp_path):
    cv = pytest.importorskip("imagecodecs")
    wide = STAINED["grey ground"].astype(np.uint16) * 257
    (tmp_path / "slide.png").write_bytes(cv.png_encode(wide))
    with open_image(tmp_path / "slide.png") as image:
        np.testing.assert_array_equal(image.read(0, 0, SIDE, SIDE), STAINED["grey ground"])


# --- measured images


def data(*parts: str) -> Path:
    folder = os.environ.get("SPAHGC_TEST_DATA")
    path = Path(folder or "/none").joinpath(*parts)
    if not path.exists():
        pytest.skip(f"{'/'.join(parts)} is not there")
    return path


@pytest.mark.data
@pytest.mark.parametrize(
    "parts",
    [
        ("her2st", "B4.jpg"),
        ("als_spinal_cord", "CN51_C2.jpg"),
        ("mob_st", "MOB1.jpg"),
        ("files", "slides", "CMU-1-Small-Region.svs"),
        ("files", "xenium_cells", "NCBI858.jpg"),
    ],
)
def test_measured_h_and_e_passes_as_a_whole_and_in_every_window(parts):
    with open_image(data(*parts)) as image:
        rng = np.random.default_rng(0)
        samples = sample_around(image, rng.uniform(0, 1, (500, 2)) * [image.width, image.height])
        for pixels in (samples, *samples, thumbnail(image, 1500)[0]):
            check_brightfield(pixels, "the slide")


@pytest.mark.data
def test_measured_h_and_e_on_grey_ground_passes(recwarn):
    for path in data("kidney_organoid").glob("**/tissue_hires_image.png"):
        with open_image(path) as image:
            check_brightfield(thumbnail(image, 1500)[0], "the slide")
    assert not len(recwarn)


@pytest.mark.data
def test_measured_fluorescence_is_refused():
    with pytest.raises(ValueError, match="holds 3 channels of a fluorescence scan"):
        open_image(data("files", "slides", "small_vectra.qptiff"))
    with pytest.raises(ValueError, match="uint16.* is how fluorescence is stored"):
        open_image(data("files", "slides", "smalltif.tif"))
    channels = tifffile.imread(data("files", "slides", "small_vectra.qptiff"))
    with pytest.raises(ValueError, match="is no H&E image: its ground is dark"):
        check_brightfield(np.moveaxis(channels, 0, -1), "the slide")
    with (
        tifffile.TiffFile(data("files", "slides", "smalltif.tif")) as file,
        pytest.raises(ValueError, match="grey and dark"),
    ):
        check_brightfield(file.series[1].asarray(), "the slide")
