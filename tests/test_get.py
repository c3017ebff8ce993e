"""What a prediction says of itself: three lines, a table, and a slide of its own."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import spahgc as sp
from spahgc.cli import main
from spahgc.tl._trust_record import trust_record

KEY = "spahgc"


@pytest.fixture
def slide(target: AnnData) -> AnnData:
    """A slide that seems predicted: 40 genes, of which 10 are trusted, at 70 spots, of which 7 look like nothing."""
    target.layers[KEY] = target.layers["truth"].copy()
    target.layers[KEY][:, 40:] = np.nan
    target.layers[f"{KEY}_std"] = np.where(np.isnan(target.layers[KEY]), np.nan, 0.3).astype(np.float32)
    target.var[f"{KEY}_panel"] = np.arange(target.n_vars) < 40
    for name, shift in (("cv_pcc", 0.0), ("cv_pcc_low", -0.05), ("cv_pcc_high", 0.05)):
        target.var[f"{KEY}_{name}"] = np.where(
            np.arange(60) < 40, np.where(np.arange(60) < 10, 0.5, 0.1) + shift, np.nan
        )
    target.obs[f"{KEY}_support"] = np.where(np.arange(70) < 7, 0.01, 0.5)
    target.uns["spahgc"]["predictions"] = {KEY: {"method": "spahgc", "trust": {"for": "a new patient"}}}
    return target


def test_a_summary_counts_genes_trusted_ones_and_unknown_spots(slide):
    table = sp.get.summary(slide)
    assert table.index.tolist() == [KEY]
    assert table.iloc[0].to_dict() == {
        "method": "spahgc",
        "n_genes": 40,
        "n_spots": 70,
        "n_trusted": 10,
        "for_whom": "a new patient",
        "n_unknown": 7,
    }


def test_three_lines_say_the_same(slide):
    assert trust_record(slide, KEY).lines() == [
        "40 genes predicted at 70 spots",
        "10 of 40 trusted, for a new patient (expected PCC of at least 0.2)",
        "7 of 70 spots (10 %) look like nothing on the references (support below 0.05)",
    ]
    slide.obs[f"{KEY}_support"] = 0.5
    assert trust_record(slide, KEY).lines()[2].startswith("0 of 70 spots look like nothing")


def test_for_whom_is_a_slide_like_the_references_where_nothing_says_it(slide):
    del slide.uns["spahgc"]["predictions"][KEY]["trust"]
    assert sp.get.summary(slide)["for_whom"].item() == "a slide like the references"


def test_each_prediction_has_a_row_and_what_nobody_knows_is_missing(slide, refs):
    sp.tl.predict(slide, refs, method="ridge", key_added="ridge", genes="all")
    table = sp.get.summary(slide)
    assert table.index.tolist() == [KEY, "ridge"]
    assert table.loc["ridge", ["n_trusted", "for_whom", "n_unknown"]].isna().all()
    assert table.loc["ridge", "n_genes"] == 60 and table.loc["ridge", "method"] == "ridge"
    assert sp.get.summary(slide, key="ridge").index.tolist() == ["ridge"]
    assert 'method="ridge" says nothing of which genes can be trusted' in trust_record(slide, "ridge").lines()


def test_a_slide_without_a_prediction_has_no_summary(target):
    with pytest.raises(KeyError, match="the slide has no prediction"):
        sp.get.summary(target)
    with pytest.raises(KeyError, match=r'layers\["spahgc"\] not found'):
        sp.get.summary(target, key=KEY)


def test_spots_that_were_a_reference_or_are_off_the_tissue_are_not_counted(slide):
    slide.layers[KEY][:5] = np.nan
    slide.obs[f"{KEY}_measured"] = np.arange(70) >= 60
    table = sp.get.summary(slide)
    assert table["n_spots"].item() == 55 and table["n_unknown"].item() == 2
    assert sp.get.predicted(slide).obs_names.tolist() == slide.obs_names[5:60].tolist()


# A slide of its own


def test_a_prediction_as_a_slide_has_the_panel_and_no_nan(slide):
    found = sp.get.predicted(slide)
    assert found.shape == (70, 40) and found.X.dtype == np.float32
    np.testing.assert_array_equal(found.X, slide.layers[KEY][:, :40])
    assert np.isfinite(found.layers["std"]).all() and set(found.layers) == {"std"}
    np.testing.assert_array_equal(found.obsm["spatial"], slide.obsm["spatial"])
    assert found.uns["spahgc"]["predicted"] == {
        "key": KEY,
        "units": "log1p counts per 10,000",
        "trusted": False,
        "for_whom": "a new patient",
    }


def test_a_prediction_as_a_slide_keeps_the_intervals_of_its_values(slide):
    for name, shift in (("low", -1.0), ("high", 1.0)):
        slide.layers[f"{KEY}_{name}"] = slide.layers[KEY] + shift
    found = sp.get.predicted(slide)
    assert set(found.layers) == {"std", "low", "high"}
    np.testing.assert_array_equal(found.layers["low"], found.X - 1)
    np.testing.assert_array_equal(found.layers["high"], found.X + 1)


def test_its_trusted_part_has_trusted_genes_at_known_spots(slide):
    found = sp.get.predicted(slide, trusted=True)
    assert found.obs_names.tolist() == slide.obs_names[7:].tolist()
    assert set(found.var_names) == set(sp.tl.trusted_genes(slide))
    assert found.uns["spahgc"]["predicted"]["trusted"]


def test_it_shares_nothing_with_the_slide(slide):
    found = sp.get.predicted(slide)
    found.X[:] = -1
    found.obs["new"] = 1
    found.obsm["spatial"][:] = 0
    found.uns["spahgc"]["predictions"][KEY]["method"] = "other"
    assert slide.layers[KEY][0, 0] != -1 and "new" not in slide.obs and slide.obsm["spatial"].any()
    assert slide.uns["spahgc"]["predictions"][KEY]["method"] == "spahgc"


@pytest.mark.parametrize("form", ["h5ad", "zarr"])
def test_it_is_written_and_read_again(slide, tmp_path, form):
    found = sp.get.predicted(slide, trusted=True)
    getattr(found, f"write_{form}")(tmp_path / f"part.{form}")
    again = getattr(ad, f"read_{form}")(tmp_path / f"part.{form}")
    np.testing.assert_array_equal(again.X, found.X)


def test_scanpy_works_on_it(slide):
    import scanpy as sc

    found = sp.get.predicted(slide)
    sc.pp.pca(found, n_comps=5)
    assert found.obsm["X_pca"].shape == (70, 5)


def test_nothing_left_is_said(slide, refs):
    slide.obs[f"{KEY}_support"] = 0.01
    with pytest.raises(ValueError, match="all its spots look like nothing on the references"):
        sp.get.predicted(slide, trusted=True)
    slide.var[f"{KEY}_cv_pcc"] = 0.0
    with pytest.raises(ValueError, match="no gene of it can be trusted"):
        sp.get.predicted(slide, trusted=True)
    slide.layers[KEY][3, 2] = np.nan
    with pytest.raises(ValueError, match="has NaN in 1 spots that it predicts in other genes"):
        sp.get.predicted(slide)
    sp.tl.predict(slide, refs, method="ridge", key_added="ridge", genes="all")
    with pytest.raises(KeyError, match="ridge_cv_pcc"):
        sp.get.predicted(slide, key="ridge", trusted=True)


# What is printed


def test_a_prediction_prints_what_it_is_worth(target, refs, quick_default, capsys, monkeypatch):
    monkeypatch.setattr(
        logging.getLogger("spahgc"), "propagate", False
    )  # to pytest's, for which the console steps back
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    sp.settings.progress = True
    sp.tl.predict(target, refs, preset=quick_default)
    captured = capsys.readouterr()
    assert "\n".join(trust_record(target, KEY).lines()) in captured.err and captured.out == ""
    sp.settings.progress = False
    sp.tl.predict(target, refs, method="mean", key_added="mean")
    assert capsys.readouterr().err == ""


def shell(*arguments: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    assert not stopped.value.code


def test_the_shell_says_it_as_well_and_json_has_its_numbers(cohort, tmp_path: Path, capsys):
    paths = [tmp_path / f"{place}.h5ad" for place in range(3)]
    for slide, path in zip(cohort, paths, strict=False):
        slide.write_h5ad(path)
    references = [part for path in paths[1:] for part in ("--reference", str(path))]
    common = ["--quiet", "predict", "--target", str(paths[0]), *references, "--method", "ridge"]
    shell(*common, "--output", str(tmp_path / "a.h5ad"))
    first, second, third = capsys.readouterr().out.strip().splitlines()
    assert "genes predicted at 70 spots" in first
    assert second == 'method="ridge" says nothing of which genes can be trusted'
    assert third == "nothing is known of which spots look like the references"
    shell(*common, "--output", str(tmp_path / "b.h5ad"), "--json")
    values = json.loads(capsys.readouterr().out)
    assert values["trusted"] is None and values["unknown"] is None and values["spots"] == 70


def test_the_summary_is_a_table_that_can_be_stacked(slide):
    other = slide.copy()
    stacked = pd.concat({"one": sp.get.summary(slide), "two": sp.get.summary(other)})
    assert stacked["n_trusted"].sum() == 20
