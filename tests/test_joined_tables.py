"""Tables of two slides do not become one slide: what a join leaves out is judged, and said."""

from __future__ import annotations

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
H5, POSITIONS = "outs/filtered_feature_bc_matrix.h5", "outs/spatial/tissue_positions.csv"


@pytest.fixture(scope="module")
def slides() -> list[ad.AnnData]:
    return sp.datasets.simulated(1, n_patients=1, n_spots=100, n_genes=20, seed=1)


@pytest.fixture(scope="module")
def _written(slides, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    files.write_visium(root / "V2", slides[0])
    files.write_visium_hd(root / "HD", slides[0])
    return root


@pytest.fixture
def run(_written, tmp_path) -> Path:
    return Path(shutil.copytree(_written / "V2", tmp_path / "V2"))


def _take_off_tissue(run: Path, slides, n: int) -> None:
    table = pd.read_csv(run / POSITIONS)
    under = files.tissue_barcodes(slides[0], table)
    table.loc[table["barcode"].isin(under[:n]), "in_tissue"] = 0
    table.to_csv(run / POSITIONS, index=False)


def _with_counts_of_another_sample(run: Path, share: float) -> None:
    """A share of the spots lies where this sample has no tissue."""
    table = pd.read_csv(run / POSITIONS)
    off = table.loc[table["in_tissue"] == 0, "barcode"].to_numpy()
    with h5py.File(run / H5, "a") as file:
        names = file["matrix/barcodes"][()].astype(object)
        n = int(share * len(names))
        names[:n] = [name.encode() for name in np.resize(off, max(n, 1))[:n]]
        names = list(dict.fromkeys(names))
        assert len(names) == len(file["matrix/barcodes"])
        file["matrix/barcodes"][...] = np.array(names, dtype="S")


def test_filtered_counts_of_another_sample_are_refused(run):
    _with_counts_of_another_sample(run, 0.15)
    with pytest.raises(
        ValueError, match="15 of 100 spots of the filtered counts .* off the tissue.*counts of another sample"
    ):
        sp.io.visium(run)


def test_a_third_of_the_tissue_taken_away_is_refused(run, slides):
    _take_off_tissue(run, slides, 33)
    with pytest.raises(ValueError, match="33 of 100 spots of the filtered counts"):
        sp.io.visium(run)


def test_a_few_spots_that_were_taken_off_the_tissue_by_hand_are_left_out_and_said(run, slides):
    _take_off_tissue(run, slides, 4)
    with pytest.warns(UserWarning, match="4 of 100 spots of the filtered counts .* They are left out"):
        adata = sp.io.visium(run)
    assert adata.n_obs == 96 and adata.uns["spatial"]["V2"]["metadata"]["n_spots_not_in_tissue"] == 4


def test_spots_under_tissue_without_counts_are_said(run):
    adata = ad.AnnData(np.ones((3, 2), np.float32))
    table = pd.DataFrame({"in_tissue": 1, "a": 0}, index=[str(i) for i in range(9)])
    from spahgc.io._space_ranger import join_positions

    adata = ad.AnnData(np.ones((3, 2), np.float32), obs=pd.DataFrame(index=["0", "1", "2"]))
    with pytest.warns(UserWarning, match='6 of 9 spots under tissue in "p" are not in the counts "c"'):
        join_positions(adata, table, (Path("c"), Path("p")))


def test_unfiltered_counts_of_another_sample_are_said(run, slides):
    table = pd.read_csv(run / POSITIONS)
    rng = np.random.default_rng(0)
    whole = ad.AnnData(rng.poisson(1.0, (len(table), 20)).astype(np.float32), obs=pd.DataFrame(index=table["barcode"]))
    whole.var_names = slides[0].var_names
    path = run / "outs/raw_feature_bc_matrix.h5"
    files.write_h5(path, whole, list(table["barcode"]))
    with pytest.warns(UserWarning, match="have no more counts in .*same slide"):
        sp.io.visium(run, counts=path.name)
    path.unlink()
    whole.X[(table["in_tissue"] == 1).to_numpy()] += 5
    files.write_h5(path, whole, list(table["barcode"]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message="no full-resolution image was named")
        assert sp.io.visium(run, counts=path.name).n_obs == 100


def test_hd_bins_that_lie_elsewhere_are_refused(_written, tmp_path):
    run = Path(shutil.copytree(_written / "HD", tmp_path / "HD"))
    path = run / "outs/binned_outputs/square_008um/spatial/tissue_positions.parquet"
    table = pd.read_parquet(path)
    table["array_row"] += 1
    table.to_parquet(path, index=False)
    with pytest.raises(ValueError, match="barcodes in .* do not name the bins of 8 um .*different runs"):
        sp.io.visium_hd(run)


def test_hd_counts_with_the_barcodes_of_another_assay_are_refused(_written, tmp_path):
    run = Path(shutil.copytree(_written / "HD", tmp_path / "HD"))
    folder = run / "outs/binned_outputs/square_016um"
    table = pd.read_parquet(folder / "spatial/tissue_positions.parquet")
    renamed = dict(zip(table["barcode"], files.barcodes(len(table)), strict=True))
    table["barcode"] = table["barcode"].map(renamed)
    table.to_parquet(folder / "spatial/tissue_positions.parquet", index=False)
    with h5py.File(folder / "filtered_feature_bc_matrix.h5", "a") as file:
        names = [renamed[name.decode()].encode() for name in file["matrix/barcodes"][()]]
        del file["matrix/barcodes"]
        file["matrix/barcodes"] = np.array(names)
    with pytest.raises(ValueError, match="do not name the bins of 16 um"):
        sp.io.visium_hd(run, bin_um=16)


@pytest.mark.data
@pytest.mark.parametrize("bin_um", [8, 16])
def test_a_published_hd_folder_of_two_runs_is_refused(bin_um, her2st):
    with pytest.raises(ValueError, match=r"counts of another sample|Do both belong to the same run\?"):
        sp.io.visium_hd(her2st.parent / "files/space_ranger/hd_wrong_barcodes", bin_um=bin_um)


# Legacy ST.


def _st_tables(folder: Path, counts: list[str], spots: list[str], selected: list[int] | None = None, totals=None):
    from PIL import Image

    values = np.ones((len(counts), 3), int) if totals is None else np.repeat(np.asarray(totals)[:, None], 3, axis=1)
    pd.DataFrame(values, index=counts, columns=list("ABC")).to_csv(folder / "c.tsv", sep="\t")
    places = np.array([[int(part) for part in name.split("x")] for name in spots])
    table = pd.DataFrame(places, columns=["x", "y"])
    table[["pixel_x", "pixel_y"]] = places * 10
    table["selected"] = 1 if selected is None else selected
    table.to_csv(folder / "s.tsv", sep="\t", index=False)
    Image.new("RGB", (300, 300), "white").save(folder / "i.png")
    return folder / "c.tsv", folder / "s.tsv", folder / "i.png"


ARRAY = [f"{x}x{y}" for x in range(1, 21) for y in range(1, 21)]


def test_counts_and_spot_table_of_two_sections_are_refused(tmp_path):
    with pytest.raises(ValueError, match="share 60 spots, of 100 with counts and 100 in the table.*two sections"):
        sp.io.st(*_st_tables(tmp_path, ARRAY[:100], ARRAY[40:140]))


def test_a_section_that_lies_within_another_is_said(tmp_path):
    with pytest.warns(UserWarning, match="share 40 spots, of 40 with counts and 100 in the table.*same section"):
        assert sp.io.st(*_st_tables(tmp_path, ARRAY[:40], ARRAY[:100])).n_obs == 40


def test_a_section_that_loses_a_few_spots_passes_silently(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert sp.io.st(*_st_tables(tmp_path, ARRAY[:98], ARRAY[1:100])).n_obs == 97


def test_counts_of_the_whole_array_with_selected_spots_pass_silently(tmp_path):
    selected = [1] * 50 + [0] * 350
    totals = [9] * 50 + [1] * 350
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert sp.io.st(*_st_tables(tmp_path, ARRAY, ARRAY, selected, totals)).n_obs == 50


def test_selected_spots_without_more_counts_than_others_are_said(tmp_path):
    with pytest.warns(UserWarning, match="have no more counts .*same slide"):
        sp.io.st(*_st_tables(tmp_path, ARRAY, ARRAY, [1] * 50 + [0] * 350, [1] * 50 + [9] * 350))


@pytest.mark.data
def test_measured_sections_pass_and_no_two_of_them_fit(her2st):
    names = ("C2", "C3", "C4", "B4")
    for name in names:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            sp.io.st(her2st / f"{name}.tsv.gz", her2st / f"{name}_selection.tsv", her2st / f"{name}.jpg")
    with pytest.raises(ValueError, match="share 122 spots, of 187 with counts and 284 in the table"):
        sp.io.st(her2st / "C2.tsv.gz", her2st / "B4_selection.tsv", her2st / "B4.jpg")
    with pytest.raises(ValueError, match="two sections"):
        sp.io.st(her2st / "C3.tsv.gz", her2st / "C4_selection.tsv", her2st / "C4.jpg")


def test_labels_of_another_section_are_said(tmp_path):
    from spahgc.datasets._her2st import _labels

    obs = pd.DataFrame({"array_col": [1, 2, 3, 4], "array_row": 1}, index=list("abcd"))
    path = tmp_path / "labels.tsv"
    pd.DataFrame({"x": [1.02, 8, 9], "y": 1.0, "label": "a"}).to_csv(path, sep="\t", index=False)
    with pytest.warns(UserWarning, match="know 1 of 4 spots of the slide"):
        _labels(path, ad.AnnData(np.ones((4, 1), np.float32), obs=obs))


@pytest.mark.parametrize("name", ["draw_filtered_feature_bc_matrix.h5", "DRAW_matrix.h5"])
def test_only_a_name_that_says_raw_makes_counts_unfiltered(name):
    from spahgc.io._space_ranger import join_positions

    spots = [str(i) for i in range(80)]
    table = pd.DataFrame({"in_tissue": [1] * 40 + [0] * 40, "a": 0}, index=spots)
    counts = ad.AnnData(np.ones((80, 2), np.float32), obs=pd.DataFrame(index=spots))
    if "filtered" in name:
        with pytest.raises(ValueError, match=r'their name must say "raw"'):
            join_positions(counts, table, (Path(name), Path("p")))
    else:
        with pytest.warns(UserWarning, match="have no more counts"):
            assert join_positions(counts, table, (Path(name), Path("p")))[0].n_obs == 40
