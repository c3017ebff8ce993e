"""Readers of Visium and Visium HD, on folders laid out as Space Ranger 1 to 4 lay them out."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import matplotlib
import numpy as np
import pandas as pd
import pytest
from PIL import Image
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
COUNTS, POSITIONS, SCALES = (
    "outs/filtered_feature_bc_matrix.h5",
    "outs/spatial/tissue_positions.csv",
    "outs/spatial/scalefactors_json.json",
)


@pytest.fixture(scope="module")
def slides() -> list[ad.AnnData]:
    return sp.datasets.simulated(3, n_patients=2, n_spots=24, n_genes=20, seed=1)


@pytest.fixture(scope="module")
def written(slides, tmp_path_factory) -> Path:
    """A run of each kind, written once; tests that change files copy them first."""
    root = tmp_path_factory.mktemp("runs")
    for version in (1, 2, 3, 4):
        files.write_visium(root / f"V{version}", slides[0], version=version, cytassist=version in (2, 4))
    files.write_visium_hd(root / "HD", slides[0])
    return root


@pytest.fixture
def run(written, tmp_path) -> Path:
    """A run of Space Ranger 2 that a test may break."""
    return Path(shutil.copytree(written / "V2", tmp_path / "V2"))


@pytest.fixture
def hd_run(written, tmp_path) -> Path:
    return Path(shutil.copytree(written / "HD", tmp_path / "HD"))


@pytest.fixture(scope="module")
def embedded_refs(slides) -> list[ad.AnnData]:
    sp.settings.progress = False
    refs = [slides[1].copy(), slides[2].copy()]
    sp.pp.embed(refs, encoder="efficientnet_lite0")
    return refs


def _expected(slide: ad.AnnData, names: list[str]) -> pd.DataFrame:
    return pd.DataFrame(slide.X.toarray(), index=names, columns=slide.var_names)


@pytest.mark.parametrize("version", [1, 2, 3, 4])
def test_visium_gives_counts_and_positions_of_every_version(version, written, slides):
    slide = slides[0]
    adata = sp.io.visium(written / f"V{version}", image=written / f"V{version}.tif")

    positions = files.visium_positions(slide)
    expected = _expected(slide, files.tissue_barcodes(slide, positions)).loc[adata.obs_names]
    assert issparse(adata.X) and adata.X.dtype == np.float32
    pd.testing.assert_frame_equal(adata.to_df(), expected, check_dtype=False)
    assert files.PROTEIN not in adata.var_names
    assert list(adata.var["gene_ids"]) == [f"ENSG{i:011d}" for i in range(slide.n_vars)]
    rows = positions.set_index("barcode").loc[adata.obs_names]
    np.testing.assert_array_equal(adata.obsm["spatial"], rows[["pxl_col_in_fullres", "pxl_row_in_fullres"]])
    assert (adata.obs[["array_row", "array_col", "in_tissue"]] == rows[["array_row", "array_col", "in_tissue"]]).all(
        None
    )
    assert set(adata.obs["slide"]) == {f"V{version}"}
    record = adata.uns["spatial"][f"V{version}"]
    assert record["metadata"]["source_image_path"] == str(written / f"V{version}.tif")
    assert record["metadata"]["software_version"] == "spaceranger-3.1.2"
    np.testing.assert_array_equal(record["images"]["hires"], files.reduced(files.full_image(slide), files.HIRES_SCALE))
    assert record["scalefactors"]["spot_diameter_fullres"] == 65.0 / files.MPP


def test_visium_takes_the_resolution_from_the_pitch_not_from_the_spot_diameter(written):
    record = sp.io.visium(written / "V2").uns["spatial"]["V2"]
    assert record["scalefactors"]["microns_per_pixel"] == pytest.approx(files.MPP, rel=2e-3)


def test_an_array_that_is_not_hexagonal_tells_no_resolution(run):
    positions = pd.read_csv(run / POSITIONS)
    positions["pxl_row_in_fullres"] = positions["pxl_row_in_fullres"] * 0.9
    positions.to_csv(run / POSITIONS, index=False)
    assert "microns_per_pixel" not in sp.io.visium(run).uns["spatial"]["V2"]["scalefactors"]


def test_visium_takes_the_run_or_its_outs(written):
    a, b = (sp.io.visium(written / name, image=written / "V2.tif") for name in ("V2", "V2/outs"))
    assert (a.X != b.X).nnz == 0
    assert list(a.uns["spatial"]) == list(b.uns["spatial"]) == ["V2"]


@pytest.mark.parametrize("packed,columns", [(True, 3), (False, 3), (False, 1)])
def test_visium_reads_the_folder_of_three_tables_like_the_h5(packed, columns, run, slides):
    want = sp.io.visium(run)
    (run / COUNTS).unlink()
    names = files.tissue_barcodes(slides[0], files.visium_positions(slides[0]))
    files.write_mtx(run / "outs/filtered_feature_bc_matrix", slides[0], names, packed=packed, columns=columns)
    got = sp.io.visium(run)
    assert list(got.uns["spatial"]) == ["V2"]  # the folder's name: these tables name no library
    pd.testing.assert_frame_equal(got.to_df().loc[want.obs_names], want.to_df())
    if columns == 3:
        assert list(got.var["gene_ids"]) == list(want.var["gene_ids"])


def test_visium_keeps_the_spots_under_tissue_of_an_unfiltered_matrix(run, slides):
    positions = files.visium_positions(slides[0])
    names = files.tissue_barcodes(slides[0], positions)
    positions.loc[positions["barcode"].isin(names[:4]), "in_tissue"] = 0
    positions.to_csv(run / POSITIONS, index=False)
    (run / COUNTS).rename(run / "outs/raw_feature_bc_matrix.h5")
    adata = sp.io.visium(run, counts="raw_feature_bc_matrix.h5")
    assert set(adata.obs_names) == set(names[4:])
    assert adata.uns["spatial"]["V2"]["metadata"]["n_spots_not_in_tissue"] == 4
    with pytest.raises(FileNotFoundError, match=r'pass counts="raw_feature_bc_matrix.h5"'):
        sp.io.visium(run)


def test_visium_makes_repeated_gene_names_unique_and_keeps_their_identifiers(run):
    with h5py.File(run / COUNTS, "a") as file:
        names = file["matrix/features/name"][()]
        names[1] = names[0]
        del file["matrix/features/name"]
        file["matrix/features/name"] = names
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message="no full-resolution image was named")
        adata = sp.io.visium(run)
    assert list(adata.var_names[:2]) == ["MORPH001", "MORPH001-1"]
    assert adata.var["gene_ids"].is_unique


def test_visium_accepts_prefixed_files_and_an_old_name_with_a_header(run):
    (run / COUNTS).rename(run / "outs/GSM1_filtered_feature_bc_matrix.h5")
    (run / POSITIONS).rename(run / "outs/spatial/tissue_positions_list.csv")
    assert sp.io.visium(run).n_obs == 24


def test_visium_makes_the_small_images_from_the_full_one_where_they_are_missing(run, written):
    for name in ("hires", "lowres"):
        (run / f"outs/spatial/tissue_{name}_image.png").unlink()
    record = sp.io.visium(run, image=written / "V2.tif").uns["spatial"]["V2"]
    assert record["images"]["hires"].shape == (960, 928, 3) and record["scalefactors"]["tissue_hires_scalef"] == 1.0
    assert record["scalefactors"]["tissue_lowres_scalef"] == 600 / 960


def test_visium_reads_a_slide_without_full_image(written):
    adata = sp.io.visium(written / "V2")
    record = adata.uns["spatial"]["V2"]
    assert "source_image_path" not in record["metadata"] and set(record["images"]) == {"hires", "lowres"}


@pytest.mark.parametrize("bin_um", [8, 16])
def test_visium_hd_gives_the_bins_of_the_wanted_size(bin_um, written, slides):
    slide = slides[0]
    adata = sp.io.visium_hd(written / "HD", bin_um=bin_um, image=written / "HD.tif")
    names = files.hd_barcodes(slide, bin_um)
    pd.testing.assert_frame_equal(adata.to_df(), _expected(slide, names).loc[adata.obs_names], check_dtype=False)
    rows = files.hd_positions(slide, bin_um).set_index("barcode").loc[adata.obs_names]
    np.testing.assert_array_equal(adata.obsm["spatial"], rows[["pxl_col_in_fullres", "pxl_row_in_fullres"]])
    record = adata.uns["spatial"]["HD"]
    assert record["scalefactors"]["microns_per_pixel"] == files.MPP
    assert record["scalefactors"]["spot_diameter_fullres"] == bin_um / files.MPP
    assert record["metadata"]["bin_um"] == bin_um


@pytest.mark.parametrize("part", ["", "outs", "outs/binned_outputs"])
def test_visium_hd_takes_the_run_its_outs_or_its_bins(part, written):
    assert sp.io.visium_hd(written / "HD" / part, bin_um=16).n_obs == 24


def test_visium_hd_finds_the_image_that_was_published_with_it(hd_run, written):
    (hd_run / "outs/microscope_image").mkdir()
    image = Path(shutil.copy(written / "HD.tif", hd_run / "outs/microscope_image/tissue.tif"))
    assert sp.io.visium_hd(hd_run).uns["spatial"]["HD"]["metadata"]["source_image_path"] == str(image)
    shutil.copy(image, image.with_name("other.tif"))
    with pytest.raises(ValueError, match="holds 2 images.*image="):
        sp.io.visium_hd(hd_run)


@pytest.mark.parametrize("kind", ["V4", "HD"])
def test_a_slide_that_was_read_is_embedded_predicted_and_drawn(kind, written, slides, embedded_refs, quick, tmp_path):
    read = sp.io.visium_hd if kind == "HD" else sp.io.visium
    target = read(written / kind, image=written / f"{kind}.tif")
    sp.pp.embed(target, encoder="efficientnet_lite0")
    sp.tl.predict(target, embedded_refs, preset=quick)
    sp.pl.spatial_genes(target, ["MORPH001"], show=False, save=tmp_path / "genes.png")
    assert np.isfinite(target.layers["spahgc"]).all()
    assert (tmp_path / "genes.png").stat().st_size > 0
    target.write_h5ad(tmp_path / "target.h5ad")
    assert str(written) not in str(ad.read_h5ad(tmp_path / "target.h5ad").uns["spahgc"])


def test_a_run_without_full_image_says_how_coarse_it_is_and_goes_on_when_told(written):
    target = sp.io.visium(written / "V2")[:2].copy()
    with pytest.raises(ValueError, match=r"a pixel is 3\.2\d* um wide, but 0\.5 um are needed.*allow_upsampling=True"):
        sp.pp.embed(target, encoder="uni")
    with pytest.warns(UserWarning, match=r"a pixel is 3\.2\d* um wide, but 0\.7 um are needed.*allow_upsampling=True"):
        sp.pp.embed(target, encoder="efficientnet_lite0")
    assert target.obsm["X_efficientnet_lite0"].shape == (2, 1280)


def test_visium_agrees_with_squidpy(written):
    squidpy = pytest.importorskip("squidpy")
    theirs = squidpy.read.visium(written / "V4" / "outs", source_image_path=written / "V4.tif")
    ours = sp.io.visium(written / "V4", image=written / "V4.tif")
    assert (ours.X != theirs.X).nnz == 0
    assert ours.obs_names.equals(theirs.obs_names) and ours.var_names.equals(theirs.var_names)
    np.testing.assert_array_equal(ours.obsm["spatial"], theirs.obsm["spatial"])
    (a,), (b,) = ours.uns["spatial"].values(), theirs.uns["spatial"].values()
    np.testing.assert_array_equal(a["images"]["hires"], b["images"]["hires"])
    assert b["scalefactors"].items() <= a["scalefactors"].items()
    assert b["metadata"].items() <= a["metadata"].items()


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("version", [1, 4])
def test_visium_agrees_with_spatialdata_io(version, written):
    spatialdata_io = pytest.importorskip("spatialdata_io")
    theirs = spatialdata_io.visium(written / f"V{version}" / "outs", dataset_id="s").tables["table"]
    ours = sp.io.visium(written / f"V{version}")
    assert (ours.X != theirs.X).nnz == 0 and ours.obs_names.equals(theirs.obs_names)
    np.testing.assert_array_equal(ours.obsm["spatial"], theirs.obsm["spatial"])


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_visium_hd_agrees_with_spatialdata_io(written):
    spatialdata_io = pytest.importorskip("spatialdata_io")
    sdata = spatialdata_io.visium_hd(
        written / "HD" / "outs", dataset_id="s", bin_size=16, load_segmentations_only=False
    )
    theirs, ours = sdata.tables["square_016um"], sp.io.visium_hd(written / "HD", bin_um=16)
    assert (ours.X != theirs.X).nnz == 0 and ours.obs_names.equals(theirs.obs_names)
    np.testing.assert_array_equal(ours.obsm["spatial"], theirs.obsm["spatial"])


# Bad files: each with a message that says what to do.


def test_a_path_that_is_no_folder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"is not a folder \(nothing is there\)"):
        sp.io.visium(tmp_path / "none")


def test_a_run_without_spatial_is_refused(run):
    shutil.rmtree(run / "outs/spatial")
    with pytest.raises(FileNotFoundError, match='has no folder "spatial".*filtered_feature_bc_matrix.h5'):
        sp.io.visium(run)


def test_a_missing_matrix_is_refused(run):
    (run / COUNTS).unlink()
    with pytest.raises(FileNotFoundError, match="no counts in .*Copy it from the run"):
        sp.io.visium(run)


def test_missing_positions_are_refused(run):
    (run / POSITIONS).unlink()
    with pytest.raises(FileNotFoundError, match="no positions in .*tissue_positions.parquet"):
        sp.io.visium(run)


def test_positions_of_another_run_are_refused(run):
    positions = pd.read_csv(run / POSITIONS)
    positions["barcode"] = positions["barcode"].str.replace("-1", "-2")
    positions.to_csv(run / POSITIONS, index=False)
    with pytest.raises(ValueError, match=r"24 of 24 barcodes .* have no position .*Do both belong to the same run\?"):
        sp.io.visium(run)


def test_one_barcode_without_position_is_refused(run):
    positions = pd.read_csv(run / POSITIONS)
    under = positions.index[positions["in_tissue"] == 1]
    positions.drop(under[3]).to_csv(run / POSITIONS, index=False)
    with pytest.raises(ValueError, match=f"1 of 24 barcodes.*{positions.loc[under[3], 'barcode']}"):
        sp.io.visium(run)


@pytest.mark.parametrize("column", ["pxl_col_in_fullres", "in_tissue"])
def test_positions_with_nan_are_refused(column, run):
    positions = pd.read_csv(run / POSITIONS)
    row = positions.index[positions["in_tissue"] == 1][5]
    positions[column] = positions[column].astype(float)
    positions.loc[row, column] = np.nan
    positions.to_csv(run / POSITIONS, index=False)
    with pytest.raises(ValueError, match=rf"1 of 24 spots .*that no image has.*{positions.loc[row, 'barcode']}"):
        sp.io.visium(run)


def test_nan_outside_the_tissue_does_not_matter(run):
    positions = pd.read_csv(run / POSITIONS)
    row = positions.index[positions["in_tissue"] == 0][0]
    positions = positions.astype({"pxl_col_in_fullres": float})
    positions.loc[row, "pxl_col_in_fullres"] = np.nan
    positions.to_csv(run / POSITIONS, index=False)
    record = sp.io.visium(run).uns["spatial"]["V2"]
    assert record["scalefactors"]["microns_per_pixel"] == pytest.approx(files.MPP, rel=2e-3)


def test_positions_without_a_column_or_with_a_repeated_barcode_are_refused(run):
    positions = pd.read_csv(run / POSITIONS)
    positions.drop(columns="array_col").to_csv(run / POSITIONS, index=False)
    with pytest.raises(ValueError, match='have no column "array_col"'):
        sp.io.visium(run)
    pd.concat([positions, positions.iloc[:1]]).to_csv(run / POSITIONS, index=False)
    with pytest.raises(ValueError, match="barcodes in the positions .* occur more than once"):
        sp.io.visium(run)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.98])
def test_a_truncated_h5_is_refused(share, run):
    content = (run / COUNTS).read_bytes()
    (run / COUNTS).write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match=r"the counts .* bytes\) cannot be read.*copy them again"):
        sp.io.visium(run)


def test_an_h5_of_something_else_is_refused(run):
    with h5py.File(run / COUNTS, "w") as file:
        file.create_group("matrix")["barcodes"] = np.array([b"A-1"])
    with pytest.raises(ValueError, match="cannot be read.*no feature-barcode matrix"):
        sp.io.visium(run)


def test_missing_broken_and_incomplete_scale_factors_are_refused(run):
    content = json.loads((run / SCALES).read_text())
    (run / SCALES).write_text("{")
    with pytest.raises(ValueError, match="scale factors .* cannot be read"):
        sp.io.visium(run)
    (run / SCALES).write_text(json.dumps({**content, "tissue_hires_scalef": 0}))
    with pytest.raises(ValueError, match='lack "tissue_hires_scalef"'):
        sp.io.visium(run)
    (run / SCALES).unlink()
    with pytest.raises(FileNotFoundError, match="scalefactors_json.json.* is missing"):
        sp.io.visium(run)


def test_an_image_that_is_not_the_full_resolution_one_is_refused(run, tmp_path):
    with pytest.raises(ValueError, match="It has the size of the hires image itself"):
        sp.io.visium(run, image=run / "outs/spatial/tissue_hires_image.png")
    Image.new("RGB", (500, 900)).save(tmp_path / "other.png")
    with pytest.raises(
        ValueError, match="is 500 x 900 px, but the hires image .* was made of one of about 928 x 960 px"
    ):
        sp.io.visium(run, image=tmp_path / "other.png")
    with pytest.raises(FileNotFoundError, match="image: .*none.tif"):
        sp.io.visium(run, image=tmp_path / "none.tif")


def test_visium_and_visium_hd_point_at_each_other(written):
    with pytest.raises(ValueError, match="which is Visium HD. Read it with spahgc.io.visium_hd"):
        sp.io.visium(written / "HD")
    with pytest.raises(FileNotFoundError, match="read it with spahgc.io.visium"):
        sp.io.visium_hd(written / "V2")


def test_a_bin_size_that_is_not_there_is_refused_with_those_that_are(written):
    with pytest.raises(FileNotFoundError, match="no bins of 2 um in .*: there are bins of 8, 16 um"):
        sp.io.visium_hd(written / "HD", bin_um=2)


def test_bins_of_another_size_are_refused(hd_run):
    folder = hd_run / "outs/binned_outputs"
    shutil.rmtree(folder / "square_008um")
    (folder / "square_016um").rename(folder / "square_008um")
    with pytest.raises(ValueError, match="are those of bins of 16 um"):
        sp.io.visium_hd(hd_run)


def test_damaged_parquet_is_refused(hd_run):
    path = hd_run / "outs/binned_outputs/square_008um/spatial/tissue_positions.parquet"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"the positions .*\(200 bytes\) cannot be read"):
        sp.io.visium_hd(hd_run)


def test_missing_pyarrow_names_the_extra(written, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "pyarrow" else find(name, *a))
    with pytest.raises(ImportError, match=r'pip install "spahgc\[hd\]"'):
        sp.io.visium_hd(written / "HD")
