"""Features that other tools have computed: files as TRIDENT, CLAM, LazySlide and the HEST benchmark lay them out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import spahgc as sp
from spahgc.encoders import describe_encoder

RNG = np.random.default_rng(0)
N, DIM = 30, 1024
CORNERS = np.array([(512 * (i % 6), 512 * (i // 6)) for i in range(N)])
VALUES = RNG.normal(size=(N, DIM)).astype(np.float32)


def trident(
    folder: Path, *, encoder: str = "uni_v1", values: np.ndarray = VALUES, name: str = "case_7", **changed: Any
) -> Path:
    """A file as TRIDENT's ``extract_patch_features`` saves it; ``None`` takes an attribute away."""
    path = folder / "20x_256px_0px_overlap" / f"features_{encoder}" / f"{name}.h5"
    path.parent.mkdir(parents=True, exist_ok=True)
    attributes = {
        "patch_size": 256,
        "patch_size_level0": 512,
        "level0_magnification": 40,
        "target_magnification": 20,
        "overlap": 0,
        "name": name,
        "savetodir": str(folder),
    } | changed
    with h5py.File(path, "w") as file:
        file.create_dataset("features", data=values).attrs.update({"name": name, "savetodir": str(path.parent)})
        coords = file.create_dataset("coords", data=CORNERS)
        coords.attrs.update({key: value for key, value in attributes.items() if value is not None})
    return path


def hest_bench(folder: Path, *, barcodes: list[str], encoder: str = "uni_v1") -> Path:
    """A file as the benchmark's ``embed_tiles`` saves it."""
    path = folder / "IDC" / encoder / "TENX95.h5"
    path.parent.mkdir(parents=True)
    with h5py.File(path, "w") as file:
        file["embeddings"] = VALUES[: len(barcodes)]
        file["barcodes"] = np.array([[barcode.encode()] for barcode in barcodes])
        file["coords"] = CORNERS[: len(barcodes)]
    return path


def lazyslide(path: Path, *, properties: bool = True) -> Path:
    """A store as wsidata writes it: tiles as boxes at level 0, their features as a table, specifications as attributes."""
    spatialdata = pytest.importorskip("spatialdata")
    from geopandas import GeoDataFrame
    from shapely import box
    from spatialdata.models import ShapesModel, TableModel

    order = np.arange(N)[::-1]  # rows are joined by their ids
    tiles = GeoDataFrame(
        {"tile_id": order, "tissue_id": 0},
        geometry=[box(x, y, x + 512, y + 512) for x, y in CORNERS[order]],
        index=order,
    )
    obs = pd.DataFrame(
        {"tile_id": np.arange(N), "library_id": pd.Categorical(["tiles"] * N)}, index=[str(i) for i in range(N)]
    )
    table = TableModel.parse(AnnData(VALUES, obs=obs), region="tiles", region_key="library_id", instance_key="tile_id")
    spec = {"height": 256, "width": 256, "stride_height": 256, "stride_width": 256, "mpp": 0.5, "ops_level": 0,
            "ops_downsample": 2.0, "base_level": 0, "base_downsample": 2.0, "tissue_name": "tissues"}  # fmt: skip
    attrs: dict[str, Any] = {"tile_spec": {"tiles": spec}}
    if properties:
        attrs["slide_properties"] = {"shape": [4000, 4000], "mpp": 0.25, "magnification": 40}
    other = AnnData(np.zeros((2, 2), dtype=np.float32))
    sdata = spatialdata.SpatialData(
        shapes={"tiles": ShapesModel.parse(tiles)}, tables={"uni_tiles": table, "notes": other}, attrs=attrs
    )
    sdata.write(path)
    return path


def record_of(adata: AnnData, key: str = "X_uni") -> dict[str, Any]:
    return dict(adata.uns["spahgc"]["embeddings"][key])


def record_of_embed(patch_um: float) -> dict[str, Any]:
    """What ``pp.embed(encoder="uni", patch_um=..., context=False)`` writes."""
    from spahgc.pp._embed.patches import record_used

    described = describe_encoder("uni")
    assert described is not None
    return record_used(described, patch_um, "").to_uns()


# --- TRIDENT


def test_patches_of_trident_have_their_centres_width_and_encoder(tmp_path: Path) -> None:
    target = sp.io.features(trident(tmp_path), mpp=0.25)
    np.testing.assert_array_equal(target.obsm["X_uni"], VALUES)
    np.testing.assert_array_equal(target.obsm["spatial"], CORNERS + 256)
    assert target.shape == (N, 0) and set(target.obs["slide"]) == {"case_7"}
    assert target.uns["spahgc"]["patch_um"]["X_uni"] == 128.0
    assert target.uns["spahgc"]["slide_mpp"] == 0.25
    assert record_of(target) == record_of_embed(128.0)


def test_what_no_file_says_is_named_as_assumed(tmp_path: Path) -> None:
    source = sp.io.features(path := trident(tmp_path), mpp=0.25).uns["spahgc"]["features"]["X_uni"]
    assert source["tool"] == "TRIDENT" and source["file"] == str(path) and source["patch_px"] == 512
    assert {"revision", "precision", "interpolation"} <= set(source["assumed"])
    assert not {"name", "dim", "mpp"} & set(source["assumed"])


def test_a_nominal_width_counts_where_it_agrees_with_pixels_and_resolution(tmp_path: Path) -> None:
    target = sp.io.features(trident(tmp_path), mpp=0.2527, patch_um=128)
    assert record_of(target) == record_of_embed(128.0)
    with pytest.raises(ValueError, match="patch_um=224, but pixels times microns per pixel make 128"):
        sp.io.features(trident(tmp_path), mpp=0.25, patch_um=224)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"patch_size_level0": None}, 512),
        ({"patch_size_level0": None, "level0_magnification": None, "patch_level": 1, "downsample": [2.0, 2.0]}, 512),
        ({"patch_size_level0": None, "level0_magnification": None, "patch_level": 0}, 256),
    ],
)
def test_files_of_other_versions_tell_the_width_otherwise(
    tmp_path: Path, changed: dict[str, Any], expected: int
) -> None:
    target = sp.io.features(trident(tmp_path, **changed), mpp=0.25)
    np.testing.assert_array_equal(target.obsm["spatial"], CORNERS + expected / 2)


def test_a_width_that_no_attribute_tells_is_asked_for(tmp_path: Path) -> None:
    path = trident(tmp_path, patch_size_level0=None, patch_size=None)
    with pytest.raises(ValueError, match="the width of the patches of .* is not known.*Pass patch_px="):
        sp.io.features(path, mpp=0.25)
    np.testing.assert_array_equal(sp.io.features(path, mpp=0.25, patch_px=512).obsm["spatial"], CORNERS + 256)
    with pytest.raises(ValueError, match="patch_px=256, but .* says 512"):
        sp.io.features(trident(tmp_path), mpp=0.25, patch_px=256)


def test_without_a_resolution_the_width_in_microns_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="they are 512 pixels wide.*Pass mpp="):
        sp.io.features(trident(tmp_path))
    assert record_of(sp.io.features(trident(tmp_path), patch_um=128)) == record_of_embed(128.0)


@pytest.mark.parametrize(
    ("theirs", "ours", "dim"),
    [
        ("uni_v2", "uni2_h", 1536),
        ("hoptimus0", "h_optimus_0", 1536),
        ("phikon_v2", "phikon_v2", 1024),
        ("gigapath", "gigapath", 1536),
    ],
)
def test_encoders_have_the_names_of_this_package(tmp_path: Path, theirs: str, ours: str, dim: int) -> None:
    path = trident(tmp_path, encoder=theirs, values=RNG.normal(size=(N, dim)).astype(np.float32))
    assert record_of(sp.io.features(path, mpp=0.25), f"X_{ours}")["name"] == ours


def test_an_encoder_that_nobody_knows_keeps_its_name_and_its_width(tmp_path: Path) -> None:
    record = record_of(sp.io.features(trident(tmp_path, encoder="mine"), mpp=0.25), "X_mine")
    assert record == {"name": "mine", "dim": DIM, "input_px": 256, "mpp": 0.5, "context": "patch"}


def test_a_file_that_names_no_encoder_asks_for_one(tmp_path: Path) -> None:
    path = tmp_path / "case_7.h5"
    with h5py.File(path, "w") as file:  # as CLAM saves it
        file["features"], file["coords"] = VALUES, CORNERS
    with pytest.raises(ValueError, match="does not say which encoder made it. Pass encoder="):
        sp.io.features(path, mpp=0.25, patch_px=512)
    assert "X_uni" in sp.io.features(path, mpp=0.25, patch_px=512, encoder="uni").obsm
    with pytest.raises(ValueError, match='encoder="virchow", but .* names "uni_v1"'):
        sp.io.features(trident(tmp_path), mpp=0.25, encoder="virchow")


def test_columns_of_another_encoder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds 1024 columns, but uni2_h makes 1536"):
        sp.io.features(trident(tmp_path, encoder="uni_v2"), mpp=0.25)


def test_what_is_known_better_counts(tmp_path: Path) -> None:
    target = sp.io.features(trident(tmp_path), mpp=0.25, record={"precision": "fp16"})
    assert record_of(target) == record_of_embed(128.0) | {"precision": "fp16"}
    assert "precision" not in target.uns["spahgc"]["features"]["X_uni"]["assumed"]
    with pytest.raises(ValueError, match='record= has the unknown fields "precison"'):
        sp.io.features(trident(tmp_path), mpp=0.25, record={"precison": "fp16"})


def test_with_the_slide_there_are_a_picture_and_a_resolution(tmp_path: Path) -> None:
    import tifffile

    pixels = np.full((2700, 3200, 3), 230, dtype=np.uint8)
    pixels[200:2400, 200:3000] = (180, 110, 170)
    image = tmp_path / "case_7.tif"
    tifffile.imwrite(
        image, pixels, photometric="rgb", resolution=(10000 / 0.25, 10000 / 0.25), resolutionunit="CENTIMETER"
    )
    target = sp.io.features(trident(tmp_path), image=image)
    assert record_of(target) == record_of_embed(128.0)
    assert target.uns["spatial"]["case_7"]["images"]["hires"].ndim == 3
    np.testing.assert_array_equal(target.obsm["spatial"], CORNERS + 256)


# --- LazySlide


def test_tiles_of_lazyslide_are_joined_by_their_ids(tmp_path: Path) -> None:
    target = sp.io.features(lazyslide(tmp_path / "case_7.zarr"))
    np.testing.assert_array_equal(target.obsm["X_uni"], VALUES)
    np.testing.assert_allclose(target.obsm["spatial"], CORNERS + 256)
    assert record_of(target) == record_of_embed(128.0)
    assert target.uns["spahgc"]["slide_mpp"] == 0.25


def test_tiles_of_a_slide_without_properties_know_their_width(tmp_path: Path) -> None:
    target = sp.io.features(lazyslide(tmp_path / "case_7.zarr", properties=False))
    assert record_of(target) == record_of_embed(128.0)
    assert "slide_mpp" not in target.uns["spahgc"]


def test_a_table_that_holds_no_features_is_refused(tmp_path: Path) -> None:
    path = lazyslide(tmp_path / "case_7.zarr")
    with pytest.raises(KeyError, match='key="notes" is no table of features in .*those are "uni_tiles"'):
        sp.io.features(path, key="notes")


# --- the HEST benchmark


@pytest.fixture
def sample() -> AnnData:
    adata = AnnData(np.ones((N + 5, 3), dtype=np.float32))
    adata.obs_names = [f"spot{i}" for i in range(N + 5)]
    adata.obsm["spatial"] = RNG.uniform(0, 5000, size=(N + 5, 2))
    return adata


def test_barcodes_of_the_hest_benchmark_lie_where_the_sample_says(tmp_path: Path, sample: AnnData) -> None:
    barcodes = list(sample.obs_names[::-1][:N])
    path = hest_bench(tmp_path, barcodes=barcodes)
    sample.write_h5ad(tmp_path / "TENX95.h5ad")
    table = pd.DataFrame(sample.obsm["spatial"], columns=["x", "y"], index=sample.obs_names)
    for spots in (sample, tmp_path / "TENX95.h5ad", table):
        target = sp.io.features(path, spots=spots)
        assert list(target.obs_names) == barcodes
        np.testing.assert_allclose(target.obsm["spatial"], sample[barcodes].obsm["spatial"])
        assert record_of(target) == record_of_embed(112.0)


def test_barcodes_without_a_place_are_named(tmp_path: Path, sample: AnnData) -> None:
    path = hest_bench(tmp_path, barcodes=["spot1", "nobody"])
    with pytest.raises(ValueError, match="names barcodes and not where they lie. Pass spots="):
        sp.io.features(path)
    with pytest.raises(KeyError, match='1 of 2 barcodes of .* have no place in spots=: "nobody"'):
        sp.io.features(path, spots=sample)
    with pytest.raises(ValueError, match="spots= must be an AnnData"):
        sp.io.features(path, spots=pd.DataFrame({"a": [1]}))


def test_a_folder_that_is_no_encoder_names_none(tmp_path: Path, sample: AnnData) -> None:
    path = hest_bench(tmp_path, barcodes=list(sample.obs_names[:N]), encoder="custom_encoder")
    with pytest.raises(ValueError, match="does not say which encoder made it"):
        sp.io.features(path, spots=sample)
    assert "X_uni" in sp.io.features(path, spots=sample, encoder="uni").obsm


# --- what is no file of features


def test_places_without_features_and_features_of_slides_are_refused(tmp_path: Path) -> None:
    places = tmp_path / "case_7_patches.h5"
    with h5py.File(places, "w") as file:
        file["coords"] = CORNERS
    with pytest.raises(ValueError, match='holds "coords", and neither "features" and "coords"'):
        sp.io.features(places)
    with pytest.raises(ValueError, match="not patches x columns of numbers"):
        sp.io.features(trident(tmp_path, values=VALUES[0]), mpp=0.25)


@pytest.mark.parametrize("content", [b"", b"\x89HDF\r\n\x1a\n" + b"0" * 64, b"features,coords\n"])
def test_a_damaged_file_is_said_to_be_one(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "case_7.h5"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(f'the features "{path}"')):
        sp.io.features(path)
    with pytest.raises(FileNotFoundError, match="is not there"):
        sp.io.features(tmp_path / "absent.h5")
    with pytest.raises(ValueError, match="is no file of features"):
        (tmp_path / "case.pt").write_bytes(b"")
        sp.io.features(tmp_path / "case.pt")


@pytest.mark.parametrize("changed", [{"patch_size": "wide"}, {"patch_size": [b"a"]}, {"patch_size_level0": "x"}])
def test_an_attribute_that_is_no_number_is_said_to_be_none(tmp_path: Path, changed: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match='Attributes of "coords" are no numbers'):
        sp.io.features(trident(tmp_path, **changed), mpp=0.25)


@pytest.mark.parametrize("broken", [np.full((N, DIM), np.nan, np.float32), np.zeros((N, DIM), np.float32), VALUES[:-1]])
def test_features_that_say_nothing_are_refused(tmp_path: Path, broken: np.ndarray) -> None:
    with pytest.raises(ValueError, match="NaN or infinite|is zero in all|29 rows of features and 30 places"):
        sp.io.features(trident(tmp_path, values=broken), mpp=0.25)


# --- prediction


def references(width_um: float) -> list[AnnData]:
    refs = sp.datasets.simulated(2, n_patients=2, n_spots=40, n_genes=20, seed=2)
    for ref in refs:
        ref.obsm["X_uni"] = RNG.normal(size=(ref.n_obs, DIM)).astype(np.float32)
        sp.pp.use_embedding(ref, "X_uni", record=record_of_embed(width_um))
    return refs


def test_references_of_the_same_width_predict_at_once_and_others_are_refused(tmp_path: Path) -> None:
    target = sp.io.features(trident(tmp_path), mpp=0.25)
    sp.tl.predict(target, references(128.0), method="ridge")
    assert target.layers["spahgc"].shape == (N, 20)
    with pytest.raises(ValueError, match="come from different encoders \\(mpp: "):
        sp.tl.predict(sp.io.features(trident(tmp_path), mpp=0.25), references(112.0), method="ridge")


def test_a_target_of_features_survives_its_file(tmp_path: Path) -> None:
    import anndata as ad

    target = sp.io.features(trident(tmp_path), mpp=0.25)
    target.write_h5ad(tmp_path / "target.h5ad")
    again = ad.read_h5ad(tmp_path / "target.h5ad")
    sp.tl.predict(again, references(128.0), method="ridge")
    assert again.layers["spahgc"].shape == (N, 20)
