"""Embedding a SpatialData: the patches are those of the same pixels, however shapes and image are transformed."""

from __future__ import annotations

import warnings
from functools import partial

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from torch import nn

import spahgc as sp
from spahgc.encoders import Encoder, EncoderRecord

spatialdata = pytest.importorskip("spatialdata")
from spatialdata.models import Image2DModel, ShapesModel, TableModel  # noqa: E402
from spatialdata.transformations import Affine  # noqa: E402

embed_patch = partial(sp.pp.embed, context=False)
"""The patch alone, which is what these tests are about; what stands beside it by default: test_context.py."""

INPUT_PX = 32
KEY = "X_colours"


class MeanColours(nn.Module):
    def forward(self, x):
        return nn.functional.adaptive_avg_pool2d(x, 4).flatten(1)


RECORD = EncoderRecord("colours", "1", 48, INPUT_PX, None, (0.0,) * 3, (1.0,) * 3, "area", "mean", "fp32", "patch")
ENCODER = Encoder(RECORD, MeanColours())
PIXELS = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
XY = np.random.default_rng(1).uniform(40, [360, 280], (12, 2))
IDENTITY = np.eye(3)


@pytest.fixture(autouse=True)
def on_cpu(monkeypatch):
    monkeypatch.setattr(sp.settings, "device", "cpu")


def affine(linear, shift=(0, 0)) -> np.ndarray:
    matrix = np.eye(3)
    matrix[:2, :2], matrix[:2, 2] = linear, shift
    return matrix


def turned(degrees: float) -> np.ndarray:
    turn = np.deg2rad(degrees)
    return np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])


TRANSFORMATIONS = {
    "scale": affine(np.diag([0.25, 0.25])),
    "translation": affine(np.eye(2), (300, -40)),
    "quarter turn": affine(turned(90), (500, 0)),
    "affine": affine(turned(20) @ np.diag([1.5, 0.7]), (-12, 90)),
}


def applied(matrix: np.ndarray, xy: np.ndarray) -> np.ndarray:
    return xy @ matrix[:2, :2].T + matrix[:2, 2]


def parsed(matrix: np.ndarray) -> Affine:
    return Affine(matrix, ("x", "y"), ("x", "y"))


def sdata_of(image=IDENTITY, shapes=IDENTITY, *, n=len(XY), scales=None, name="he", systems=("global",)):
    """Spots that lie at `XY` of the pixels, whatever the transformations of image and shapes to the global system."""
    places = applied(np.linalg.inv(shapes), applied(image, XY[:n]))
    table = ad.AnnData(
        np.ones((n, 3), np.float32),
        obs=pd.DataFrame(
            {"region": pd.Categorical(["spots"] * n), "spot": np.arange(n)}, index=[f"s{i}" for i in range(n)]
        ),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return spatialdata.SpatialData(
            images={
                name: Image2DModel.parse(
                    PIXELS,
                    dims=("y", "x", "c"),
                    scale_factors=scales,
                    transformations={system: parsed(image) for system in systems},
                )
            },
            shapes={
                "spots": ShapesModel.parse(
                    places, geometry=0, radius=5, transformations={system: parsed(shapes) for system in systems}
                )
            },
            tables={"table": TableModel.parse(table, region="spots", region_key="region", instance_key="spot")},
        )


@pytest.fixture(scope="module")
def expected() -> ad.AnnData:
    adata = ad.AnnData(np.ones((len(XY), 3), np.float32), obsm={"spatial": XY})
    embed_patch(adata, encoder=ENCODER, image=PIXELS, device="cpu")
    return adata


@pytest.mark.parametrize("of", ["image", "shapes"])
@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_transformations_between_shapes_and_image_do_not_change_the_embedding(expected, of, name):
    sdata = sdata_of(**{of: TRANSFORMATIONS[name]})
    assert embed_patch(sdata, encoder=ENCODER) is None
    table = sdata.tables["table"]
    np.testing.assert_allclose(table.obsm[KEY], expected.obsm[KEY], atol=1e-6)
    np.testing.assert_allclose(table.obsm["spatial"], XY, atol=1e-6)
    assert table.uns["spahgc"]["embeddings"][KEY] == expected.uns["spahgc"]["embeddings"][KEY]
    assert table.obs["spahgc_patch_padded"].tolist() == expected.obs["spahgc_patch_padded"].tolist()


def test_an_image_of_several_scales_gives_the_embedding_of_its_finest(expected):
    sdata = sdata_of(TRANSFORMATIONS["scale"], scales=[2, 2])
    embed_patch(sdata, encoder=ENCODER)
    np.testing.assert_allclose(sdata.tables["table"].obsm[KEY], expected.obsm[KEY], atol=1e-6)


def test_the_width_of_a_patch_is_that_of_the_image_not_of_the_shapes():
    sdata = sdata_of(TRANSFORMATIONS["scale"])
    embed_patch(sdata, encoder=ENCODER, mpp=0.25, patch_um=16)
    other = ad.AnnData(np.ones((len(XY), 3), np.float32), obsm={"spatial": XY})
    embed_patch(other, encoder=ENCODER, image=PIXELS, mpp=0.25, patch_um=16)
    np.testing.assert_allclose(sdata.tables["table"].obsm[KEY], other.obsm[KEY], atol=1e-6)
    written = sdata.tables["table"].uns["spahgc"]
    assert (written["slide_mpp"], written["slide_image"]) == (0.25, "he")


def test_a_coordinate_system_in_microns_tells_the_resolution():
    sdata = sdata_of(affine(np.diag([0.25, 0.25])), systems=("microns",))
    embed_patch(sdata, encoder=ENCODER, patch_um=16)
    assert sdata.tables["table"].uns["spahgc"]["slide_mpp"] == 0.25


def test_coordinates_that_the_table_has_already_stay_and_are_not_used(expected):
    sdata = sdata_of()
    own = np.full((len(XY), 2), 7.0)
    sdata.tables["table"].obsm["spatial"] = own.copy()
    embed_patch(sdata, encoder=ENCODER)
    np.testing.assert_array_equal(sdata.tables["table"].obsm["spatial"], own)
    np.testing.assert_allclose(sdata.tables["table"].obsm[KEY], expected.obsm[KEY], atol=1e-6)


def test_a_copy_holds_the_embedding_and_the_original_does_not(expected):
    sdata = sdata_of()
    changed = embed_patch(sdata, encoder=ENCODER, copy=True)
    assert isinstance(changed, spatialdata.SpatialData)
    np.testing.assert_allclose(changed.tables["table"].obsm[KEY], expected.obsm[KEY], atol=1e-6)
    table = sdata.tables["table"]
    assert KEY not in table.obsm and "spatial" not in table.obsm and "spahgc" not in table.uns


def test_spatialdata_and_anndata_may_stand_in_one_list(expected):
    sdata, adata = sdata_of(), expected.copy()
    adata.uns["spatial"] = {"S": {"images": {"hires": PIXELS}, "scalefactors": {"tissue_hires_scalef": 1.0}}}
    copies = embed_patch([sdata, adata], encoder=ENCODER, key_added="X_again", copy=True)
    assert [type(copy).__name__ for copy in copies] == ["SpatialData", "AnnData"]
    np.testing.assert_allclose(copies[0].tables["table"].obsm["X_again"], copies[1].obsm["X_again"], atol=1e-6)


def test_the_result_survives_writing(tmp_path, expected):
    sdata = sdata_of(TRANSFORMATIONS["quarter turn"], scales=[2])
    embed_patch(sdata, encoder=ENCODER)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sdata.write(tmp_path / "slide.zarr")
        again = spatialdata.read_zarr(tmp_path / "slide.zarr")
    np.testing.assert_allclose(again.tables["table"].obsm[KEY], expected.obsm[KEY], atol=1e-6)
    embed_patch(again, encoder=ENCODER, key_added="X_again")
    np.testing.assert_array_equal(again.tables["table"].obsm["X_again"], sdata.tables["table"].obsm[KEY])


def test_a_run_goes_on_where_it_ended(tmp_path, expected, monkeypatch):
    folder = tmp_path / "parts"
    embed_patch(sdata_of(scales=[2]), encoder=ENCODER, resume=folder, batch_size=4)
    next(folder.glob("*/spots-000000004*")).unlink()
    again, seen = sdata_of(scales=[2]), []
    encode = Encoder.encode
    monkeypatch.setattr(
        Encoder, "encode", lambda self, patches, **kw: seen.append(patches) or encode(self, patches, **kw)
    )
    embed_patch(again, encoder=ENCODER, resume=folder, batch_size=4)
    assert [len(patches) for patches in seen] == [4]
    np.testing.assert_allclose(again.tables["table"].obsm[KEY], expected.obsm[KEY], atol=1e-6)


def test_a_passed_image_is_taken_with_the_coordinates_of_the_table(expected):
    sdata = sdata_of(TRANSFORMATIONS["scale"])
    sdata.tables["table"].obsm["spatial"] = XY
    embed_patch(sdata, encoder=ENCODER, image=PIXELS)
    np.testing.assert_allclose(sdata.tables["table"].obsm[KEY], expected.obsm[KEY], atol=1e-6)
    assert "slide_image" not in sdata.tables["table"].uns["spahgc"]


def test_a_reduced_image_of_space_ranger_is_refused_unless_it_may_be_enlarged():
    sdata = sdata_of(name="S_hires_image")
    with pytest.raises(ValueError, match=r'reduced image "S_hires_image" only.*0\.8 um wide.*pixels of 0\.5 um'):
        embed_patch(sdata, encoder=ENCODER, mpp=0.8, patch_um=16)
    with pytest.raises(ValueError, match=r"those of the full-resolution image are needed.*allow_upsampling"):
        embed_patch(sdata, encoder=ENCODER)
    embed_patch(sdata, encoder=ENCODER, mpp=0.8, patch_um=16, allow_upsampling=True)
    embed_patch(sdata, encoder=ENCODER, mpp=0.5, patch_um=16, key_added="X_fine_enough")
    assert {KEY, "X_fine_enough"} <= set(sdata.tables["table"].obsm)


def test_spots_beside_the_image_are_refused():
    sdata = sdata_of()
    spatialdata.transformations.set_transformation(
        sdata.shapes["spots"], parsed(affine(np.eye(2), (1000, 0))), "global"
    )
    with pytest.raises(ValueError, match=r'image "he" of the SpatialData: 12 of 12 spot centres.*transformations'):
        embed_patch(sdata, encoder=ENCODER)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"table_key": "other"}, KeyError, 'table_key="other" not found'),
        ({"image_key": "other"}, KeyError, 'image_key="other" not found'),
        ({"coordinate_system": "other"}, KeyError, 'coordinate_system="other" not found'),
        ({"image_key": "he", "image": PIXELS}, ValueError, "image_key= choose an image .* image= is another one"),
    ],
)
def test_names_that_are_not_there_are_refused(arguments, error, match):
    with pytest.raises(error, match=match):
        embed_patch(sdata_of(), encoder=ENCODER, **arguments)


def test_names_of_a_spatialdata_are_refused_with_an_anndata(expected):
    with pytest.raises(ValueError, match="image_key= choose within a SpatialData, but AnnData was passed"):
        embed_patch(expected, encoder=ENCODER, image_key="he")
