"""The files of a Space Ranger run, however a copy keeps them: flat, with a prefix, packed, several samples in one folder."""

from __future__ import annotations

import gzip
import importlib.util
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest

import spahgc as sp


def _slide_files() -> Any:
    spec = importlib.util.spec_from_file_location("slide_files", Path(__file__).with_name("slide_files.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules["slide_files"] = module
    spec.loader.exec_module(module)
    return module


files = _slide_files()
H5 = "filtered_feature_bc_matrix.h5"


@pytest.fixture(scope="module")
def slides() -> list[ad.AnnData]:
    return sp.datasets.simulated(2, n_patients=2, n_spots=24, n_genes=20, seed=1)


@pytest.fixture(scope="module")
def _written(slides, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    files.write_visium(root / "A", slides[0], version=1)
    files.write_visium(root / "B", slides[1], version=1)
    files.write_visium_hd(root / "HD", slides[0])
    return root


@pytest.fixture
def run(_written, tmp_path) -> Path:
    return Path(shutil.copytree(_written / "A", tmp_path / "A"))


@pytest.fixture(scope="module")
def expected(_written) -> ad.AnnData:
    return sp.io.visium(_written / "A")


def _deposit(run: Path, folder: Path, prefix: str, *, packed: bool = True, h5_packed: bool = False) -> Path:
    """The files of a run as GEO has them."""
    folder.mkdir(exist_ok=True)
    outs = run / "outs"
    for file in [outs / H5, *(outs / "spatial").iterdir()]:
        pack = h5_packed if file.name == H5 else packed
        content = file.read_bytes()
        (folder / f"{prefix}{file.name}{'.gz' if pack else ''}").write_bytes(
            gzip.compress(content) if pack else content
        )
    return folder


def _same(a: ad.AnnData, b: ad.AnnData) -> None:
    assert (a.X != b.X).nnz == 0 and a.obs_names.equals(b.obs_names) and a.var_names.equals(b.var_names)
    np.testing.assert_array_equal(a.obsm["spatial"], b.obsm["spatial"])
    (one,), (other,) = a.uns["spatial"].values(), b.uns["spatial"].values()
    assert one["scalefactors"] == other["scalefactors"] and set(one["images"]) == set(other["images"])
    for key, image in one["images"].items():
        np.testing.assert_array_equal(image, other["images"][key])


@pytest.mark.parametrize("prefix", ["GSM123_sampleA_", "GSM123.", ""])
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("h5_packed", [True, False])
def test_a_deposit_in_one_folder_gives_what_the_run_gives(prefix, packed, h5_packed, _written, expected, tmp_path):
    folder = _deposit(_written / "A", tmp_path / "geo", prefix, packed=packed, h5_packed=h5_packed)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message="no full-resolution image was named")
        _same(sp.io.visium(folder), expected)


def test_packed_files_with_a_prefix_in_spatial_are_found(run, expected):
    spatial = run / "outs/spatial"
    for file in list(spatial.iterdir()):
        (spatial / f"GSM1_{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    _same(sp.io.visium(run), expected)


def test_a_file_that_was_unpacked_and_kept_its_name_is_read(run, expected):
    path = run / "outs/spatial/tissue_positions_list.csv"
    path.rename(path.with_name("tissue_positions_list.csv.gz"))
    _same(sp.io.visium(run), expected)


@pytest.mark.parametrize("packed", [True, False])
def test_three_tables_with_a_prefix_are_found_beside_the_other_files(packed, _written, slides, expected, tmp_path):
    folder = _deposit(_written / "A", tmp_path / "geo", "GSM1_", packed=packed)
    (folder / f"GSM1_{H5}").unlink()
    names = files.tissue_barcodes(slides[0], files.visium_positions(slides[0]))
    files.write_mtx(tmp_path / "tables", slides[0], names, packed=packed)
    for file in (tmp_path / "tables").iterdir():
        file.rename(folder / f"GSM1_{file.name}")
    got = sp.io.visium(folder)
    pd.testing.assert_frame_equal(got.to_df().loc[expected.obs_names], expected.to_df())


def test_an_hd_folder_may_be_packed_too(_written, tmp_path):
    run = Path(shutil.copytree(_written / "HD", tmp_path / "HD"))
    for file in list((run / "outs/binned_outputs/square_008um/spatial").iterdir()):
        file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    _same(sp.io.visium_hd(run), sp.io.visium_hd(_written / "HD"))


def test_several_samples_in_one_folder_are_asked_for_and_told_apart(_written, expected, tmp_path):
    for name in "AB":
        _deposit(_written / name, tmp_path / "geo", f"GSM_{name}_")
    with pytest.raises(ValueError, match='of 2 samples: "GSM_A", "GSM_B". Say with prefix= which one'):
        sp.io.visium(tmp_path / "geo")
    _same(sp.io.visium(tmp_path / "geo", prefix="GSM_A"), expected)
    _same(sp.io.visium(tmp_path / "geo", prefix="GSM_B_"), sp.io.visium(_written / "B"))
    _same(sp.io.visium(tmp_path / "geo", counts=f"GSM_A_{H5}"), expected)
    with pytest.raises(FileNotFoundError, match='no filtered counts of prefix="GSM_C" .* begin with "GSM_A", "GSM_B"'):
        sp.io.visium(tmp_path / "geo", prefix="GSM_C")


def test_counts_of_one_sample_are_not_joined_with_positions_of_another(_written, tmp_path):
    folder = _deposit(_written / "A", tmp_path / "geo", "GSM_A_")
    (folder / f"GSM_A_{H5}").rename(folder / f"GSM_B_{H5}")
    with pytest.raises(ValueError, match='belong to several samples: they begin with "GSM_A", "GSM_B"'):
        sp.io.visium(folder)


def test_a_sample_may_be_named_more_shortly_in_some_files(_written, expected, tmp_path):
    folder = _deposit(_written / "A", tmp_path / "geo", "A_")
    (folder / f"A_{H5}").rename(folder / f"GSM7_A_{H5}")
    _same(sp.io.visium(folder), expected)


def test_images_of_another_format_are_not_left_out(run):
    from PIL import Image

    path = run / "outs/spatial/tissue_hires_image.png"
    Image.open(path).save(path.with_suffix(".jpg"), quality=95)
    path.unlink()
    assert set(sp.io.visium(run).uns["spatial"]["A"]["images"]) == {"hires", "lowres"}


def test_an_archive_that_was_not_unpacked_is_named(run):
    shutil.rmtree(run / "outs/spatial")
    (run / "outs/GSM1_spatial.tar.gz").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match='Unpack "GSM1_spatial.tar.gz" first'):
        sp.io.visium(run)


@pytest.mark.parametrize("name", ["aggregation.csv", "aggr_tissue_positions.csv"])
def test_an_aggregate_is_refused_as_such(name, run):
    shutil.rmtree(run / "outs/spatial")
    (run / "outs" / name).write_text("library_id,molecule_h5\n")
    with pytest.raises(ValueError, match="is an aggregate of several runs.*Read each run by itself"):
        sp.io.visium(run)


def test_counts_of_an_aggregate_beside_one_runs_positions_are_said(run):
    with h5py.File(run / "outs" / H5, "a") as file:
        names = file["matrix/barcodes"][()]
        names[::2] = [name.replace(b"-1", b"-2") for name in names[::2]]
        file["matrix/barcodes"][...] = names
    with pytest.raises(ValueError, match="12 of 24 barcodes .*those of 2 runs that were aggregated"):
        sp.io.visium(run)


# Tables of positions.


def _with_header(run: Path, names: list[str]) -> None:
    path = run / "outs/spatial/tissue_positions_list.csv"
    table = pd.read_csv(path, header=None)
    table.columns = names
    table.to_csv(path, index=False)


KNOWN = ["in_tissue", "array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres"]


@pytest.mark.parametrize("first", ["spot", "", "Unnamed: 0", "Barcode", " BARCODE "])
def test_another_name_of_the_first_column_is_a_header(first, run, expected):
    _with_header(run, [first, *KNOWN])
    _same(sp.io.visium(run), expected)


def test_a_header_that_lacks_a_column_is_shown_as_it_stands_there(run):
    _with_header(run, ["spot", *KNOWN[:-1], "column_px"])
    with pytest.raises(
        ValueError, match='no column "barcode", "pxl_col_in_fullres"; found "spot", "in_tissue".*column_px'
    ):
        sp.io.visium(run)


@pytest.mark.parametrize("name", ["NA", "nan", "null", "None"])
@pytest.mark.parametrize("header", [True, False])
def test_a_barcode_may_be_called_like_a_missing_value(name, header, run):
    path = run / "outs/spatial/tissue_positions_list.csv"
    table = pd.read_csv(path, header=None)
    with h5py.File(run / "outs" / H5, "a") as file:
        old = file["matrix/barcodes"][0].decode()
        names = [name.encode(), *file["matrix/barcodes"][1:]]
        del file["matrix/barcodes"]
        file["matrix/barcodes"] = np.array(names)
    table[0] = table[0].replace(old, name)
    table.columns = ["barcode", *KNOWN]
    table.to_csv(path, index=False, header=header)
    assert sp.io.visium(run).obs_names[0] == name


@pytest.mark.parametrize("packed,columns", [(True, 3), (False, 3), (False, 1)])
@pytest.mark.parametrize("gene", ["NA", "nan", "null"])
def test_a_gene_may_be_called_like_a_missing_value(gene, packed, columns, run, slides):
    (run / "outs" / H5).unlink()
    slide = slides[0].copy()
    slide.var_names = [gene, *slide.var_names[1:]]
    names = files.tissue_barcodes(slide, files.visium_positions(slide))
    files.write_mtx(run / "outs/filtered_feature_bc_matrix", slide, names, packed=packed, columns=columns)
    adata = sp.io.visium(run)
    assert adata.var_names[0] == gene and all(isinstance(name, str) for name in adata.var_names)
