"""The reader of HEST-1k, on folders laid out as the data set is."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import anndata as ad
import matplotlib
import numpy as np
import pandas as pd
import pytest
import tifffile
from scipy.sparse import issparse

import spahgc as sp

matplotlib.use("Agg")


def _slide_files() -> Any:
    """The helper beside this file; pytest's import mode does not put the folder on the path."""
    spec = importlib.util.spec_from_file_location("slide_files", Path(__file__).with_name("slide_files.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules["slide_files"] = module
    spec.loader.exec_module(module)
    return module


files = _slide_files()
ID = "NCBI681"


@pytest.fixture(scope="module")
def slides() -> list[ad.AnnData]:
    return sp.datasets.simulated(2, n_patients=2, n_spots=24, n_genes=20, seed=1)


@pytest.fixture(scope="module")
def _written(slides, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("hest")
    for slide, sample in zip(slides, (ID, "NCBI682"), strict=True):
        files.write_hest(root, slide, sample)
    return root


@pytest.fixture
def root(_written, tmp_path) -> Path:
    """Two samples; a test may break them."""
    return Path(shutil.copytree(_written, tmp_path / "hest"))


def _changed(root: Path, **entries: Any) -> None:
    path = root / "metadata" / f"{ID}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def _counts(root: Path) -> tuple[Path, ad.AnnData]:
    path = root / "st" / f"{ID}.h5ad"
    return path, ad.read_h5ad(path)


def test_hest_gives_counts_positions_and_image(root, slides):
    slide = slides[0]
    adata = sp.io.hest(root, ID)
    assert issparse(adata.X) and adata.X.dtype == np.float32 and (adata.X != slide.X).nnz == 0
    assert list(adata.obs_names) == files.barcodes(slide.n_obs) and list(adata.var_names) == list(slide.var_names)
    np.testing.assert_array_equal(adata.obsm["spatial"], np.round(slide.obsm["spatial"]))
    assert adata.obsm["spatial"].dtype == np.float64
    assert set(adata.obs["slide"]) == {ID} and set(adata.obs["patient"]) == {"Patient 7"}
    record = adata.uns["spatial"][ID]
    assert record["scalefactors"]["microns_per_pixel"] == files.MPP
    assert record["scalefactors"]["spot_diameter_fullres"] == 55 / files.MPP
    assert record["scalefactors"]["tissue_hires_scalef"] == files.HIRES_SCALE
    np.testing.assert_array_equal(record["images"]["hires"], files.reduced(files.full_image(slide), files.HIRES_SCALE))
    assert record["metadata"]["source_image_path"] == str(root / "wsis" / f"{ID}.tif")
    assert adata.uns["hest"]["organ"] == "Lymph node"
    assert not {"oncotree_code", "pixel_size_um_embedded"} & set(adata.uns["hest"])  # HEST left these empty


def test_hest_samples_are_embedded_predicted_and_drawn(root, quick, tmp_path):
    target, ref = (sp.io.hest(root, sample) for sample in (ID, "NCBI682"))
    sp.pp.embed([target, ref], encoder="efficientnet_lite0")
    sp.tl.predict(target, [ref, _other(ref)], preset=quick)
    sp.pl.spatial_genes(target, ["MORPH001"], show=False, save=tmp_path / "genes.png")
    assert np.isfinite(target.layers["spahgc"]).all()
    assert (tmp_path / "genes.png").stat().st_size > 0
    target.write_h5ad(tmp_path / "target.h5ad")
    read = ad.read_h5ad(tmp_path / "target.h5ad")
    assert str(tmp_path) not in str(read.uns["spahgc"]) and str(tmp_path) not in str(read.uns["hest"])


def _other(slide: ad.AnnData) -> ad.AnnData:
    """Another slide of the same genes, where two references are needed: its spots look like others."""
    copy = slide.copy()
    copy.obs["slide"] = pd.Categorical(["other"] * copy.n_obs)
    z = copy.obsm["X_efficientnet_lite0"]
    copy.obsm["X_efficientnet_lite0"] = np.random.default_rng(0).normal(z.mean(axis=0), z.std(axis=0), size=z.shape)
    return copy


def test_hest_takes_metadata_from_the_table_where_the_sample_has_no_file(root):
    known = json.loads((root / "metadata" / f"{ID}.json").read_text())
    pd.DataFrame([{**known, "patient": 8, "organ": "Bowel"}]).to_csv(root / "HEST_v1_1_0.csv", index=False)
    assert set(sp.io.hest(root, ID).obs["organ"]) == {"Lymph node"}  # the sample's own file goes before the table
    (root / "metadata" / f"{ID}.json").unlink()
    adata = sp.io.hest(root, ID)
    assert set(adata.obs["organ"]) == {"Bowel"} and set(adata.obs["patient"]) == {"8"}
    with pytest.raises(ValueError, match='does not know the sample "NCBI682"'):
        (root / "metadata" / "NCBI682.json").unlink()
        sp.io.hest(root, "NCBI682")


def test_an_unknown_patient_is_no_patient(root):
    _changed(root, patient=None)
    assert "patient" not in sp.io.hest(root, ID).obs


def test_hest_reduces_the_image_where_the_counts_hold_no_small_one(root, slides):
    path, counts = _counts(root)
    del counts.uns["spatial"]
    counts.write_h5ad(path)
    record = sp.io.hest(root, ID).uns["spatial"][ID]
    np.testing.assert_array_equal(record["images"]["hires"], files.full_image(slides[0]))
    assert record["scalefactors"]["spot_diameter_fullres"] == 55 / files.MPP


def test_lowres_and_its_scale_are_made_of_hests_small_image(root, slides):
    path, counts = _counts(root)
    counts.uns["spatial"]["ST"]["images"]["downscaled_fullres"] = files.full_image(slides[0])
    counts.uns["spatial"]["ST"]["scalefactors"] = {"tissue_downscaled_fullres_scalef": 1.0}
    counts.write_h5ad(path)
    record = sp.io.hest(root, ID).uns["spatial"][ID]
    assert record["images"]["lowres"].shape == (600, 580, 3)
    assert record["scalefactors"]["tissue_lowres_scalef"] == 600 / 960


def test_hest_takes_positions_from_obs_where_obsm_has_none(root, slides):
    path, counts = _counts(root)
    del counts.obsm["spatial"]
    counts.write_h5ad(path)
    np.testing.assert_allclose(sp.io.hest(root, ID).obsm["spatial"], slides[0].obsm["spatial"])
    counts.obs = counts.obs.drop(columns="pxl_col_in_fullres")
    counts.write_h5ad(path)
    with pytest.raises(ValueError, match="has no positions"):
        sp.io.hest(root, ID)


def test_a_spot_off_the_image_is_left_out_and_counted(root, caplog):
    path, counts = _counts(root)
    counts.obsm["spatial"][0] = (-3, 5)
    counts.write_h5ad(path)
    adata = sp.io.hest(root, ID)
    assert adata.n_obs == 23 and counts.obs_names[0] not in adata.obs_names
    assert adata.uns["spatial"][ID]["metadata"]["n_spots_outside_image"] == 1
    assert "1 of 24 spots lie outside the image" in caplog.text


def test_positions_on_another_image_are_refused(root):
    path, counts = _counts(root)
    counts.obsm["spatial"] = counts.obsm["spatial"] * 3
    counts.write_h5ad(path)
    with pytest.raises(ValueError, match="of 24 spot centres lie outside the image"):
        sp.io.hest(root, ID)


def test_another_samples_image_is_refused(root):
    tifffile.imwrite(root / "wsis" / f"{ID}.tif", np.zeros((3000, 3000, 3), np.uint8), photometric="rgb")
    with pytest.raises(ValueError, match="is 3000 x 3000 px, but the hires image"):
        sp.io.hest(root, ID)


def test_a_sample_without_its_tiff_is_refused_with_the_way_to_fetch_it(root):
    (root / "wsis" / f"{ID}.tif").unlink()
    fetch = f'hf download MahmoodLab/hest wsis/{ID}.tif --repo-type dataset --local-dir "{root}"'
    with pytest.raises(FileNotFoundError) as error:
        sp.io.hest(root, ID)
    assert str(root / "wsis" / f"{ID}.tif") in str(error.value) and fetch in str(error.value)
    assert '"NCBI682"' in str(error.value)


def test_a_sample_that_is_not_there_is_refused_with_those_that_are(root):
    with pytest.raises(FileNotFoundError, match='TENX1.h5ad" is missing; samples in .*"NCBI681", "NCBI682"'):
        sp.io.hest(root, "TENX1")
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        sp.io.hest(root / "none", ID)


def test_missing_and_broken_metadata_are_refused(root):
    path = root / "metadata" / f"{ID}.json"
    _changed(root, pixel_size_um_estimated=None)
    with pytest.raises(ValueError, match="no pixel_size_um_estimated or pixel_size_um_embedded"):
        sp.io.hest(root, ID)
    path.write_text("{")
    with pytest.raises(ValueError, match="the metadata .* cannot be read"):
        sp.io.hest(root, ID)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=f"metadata of sample .* are missing.*metadata/{ID}.json"):
        sp.io.hest(root, ID)


def test_truncated_counts_are_refused(root):
    path = root / "st" / f"{ID}.h5ad"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"\(5,000 bytes\) cannot be read.*fetch it again"):
        sp.io.hest(root, ID)


def test_positions_with_nan_are_refused(root):
    path, counts = _counts(root)
    xy = counts.obsm["spatial"].astype(float)
    xy[2, 1] = np.nan
    counts.obsm["spatial"] = xy
    counts.write_h5ad(path)
    with pytest.raises(ValueError, match=f"1 of 24 spots .* not finite numbers .*{counts.obs_names[2]}"):
        sp.io.hest(root, ID)
