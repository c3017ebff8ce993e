"""The report: what the page holds, and how large it gets. No browser is needed here."""

from __future__ import annotations

import importlib.util
import re
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from PIL import Image

import spahgc as sp
from spahgc.pl._report._pack import MISSING, STEPS, quantised


def helper(name: str) -> Any:
    """Load a neighbour by its path: with ``--import-mode=importlib`` tests cannot import each other."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


helpers = helper("report_slides")
finished_slides, Page, K = helpers.finished_slides, helpers.Page, helpers.K


@pytest.fixture(scope="module")
def _slides() -> list[AnnData]:
    return finished_slides()


@pytest.fixture
def target(_slides: list[AnnData]) -> AnnData:
    return _slides[0].copy()


@pytest.fixture
def refs(_slides: list[AnnData]) -> list[AnnData]:
    return [slide.copy() for slide in _slides[1:]]


def written(slide: AnnData, folder: Path, **settings) -> Page:
    return Page(sp.pl.report(slide, folder / "report.html", **settings))


# What it shows


def test_path_is_returned_and_the_slide_is_not_changed(target, refs, tmp_path):
    before = target.copy()
    path = sp.pl.report(target, str(tmp_path / "report.html"), refs=refs)
    assert path == tmp_path / "report.html"
    assert list(target.obs) == list(before.obs) and list(target.var) == list(before.var)
    assert list(target.layers) == list(before.layers)
    np.testing.assert_array_equal(target.X.toarray(), before.X.toarray())


def test_genes_come_in_the_order_of_trust_with_their_intervals_and_scores(target, tmp_path):
    content = written(target, tmp_path).content
    by_trust = target.var["spahgc_cv_pcc"].sort_values(ascending=False)
    assert content["genes"] == list(by_trust.index)
    for name, column in (("pcc", ""), ("low", "_low"), ("high", "_high")):
        np.testing.assert_allclose(
            content["trust"][name], target.var[f"spahgc_cv_pcc{column}"][by_trust.index], rtol=1e-5
        )
    achieved = np.array(content["achieved"], dtype=float)
    np.testing.assert_allclose(achieved, target.var["spahgc_pearson"][by_trust.index], rtol=1e-5)


def test_values_are_off_by_at_most_half_a_step_of_the_genes_range(target, tmp_path):
    page = written(target, tmp_path)
    for name, layer in (("predicted", "spahgc"), ("spread", "spahgc_std")):
        exact = pd.DataFrame(target.layers[layer], columns=target.var_names)[page.content["genes"]].to_numpy()
        half_a_step = np.ptp(exact, axis=0) / STEPS / 2
        assert (np.abs(page.layer(name) - exact) <= half_a_step + 1e-6).all()
    counts = pd.DataFrame(target.X.toarray(), columns=target.var_names)
    measured = np.log1p(counts.div(counts.sum(axis=1), axis=0) * 1e4)[page.content["genes"]].to_numpy()
    assert (np.abs(page.layer("measured") - measured) <= np.ptp(measured, axis=0) / STEPS / 2 + 1e-5).all()


def test_missing_values_have_a_code_of_their_own():
    codes = quantised(np.array([[0.0, np.nan], [2.0, np.nan], [np.nan, np.nan], [1.0, np.nan]]))
    assert codes.codes[0].tolist() == [0, STEPS, MISSING, STEPS // 2]
    assert codes.codes[1].tolist() == [MISSING] * 4
    assert np.isfinite(codes.low).all() and np.isfinite(codes.high).all()


def test_a_gene_that_is_constant_keeps_its_value():
    codes = quantised(np.full((3, 1), 1.5))
    assert (codes.codes == 0).all() and codes.low[0] == 1.5


def test_spots_without_counts_are_missing_in_the_measurement_alone(target, tmp_path):
    counts = target.X.toarray()
    counts[3] = 0
    target.X = counts
    page = written(target, tmp_path)
    assert np.isnan(page.layer("measured")[3]).all() and np.isfinite(page.layer("predicted")).all()
    assert any("have no counts" in note for note in page.content["notes"])


def test_retrieved_spots_are_those_of_the_attribution_in_its_order(target, refs, tmp_path):
    page = written(target, tmp_path, refs=refs)
    found = page.content["retrieved"]
    edges, attention = (page.array(name).reshape(-1, K) for name in ("edges", "attention"))
    table = sp.tl.attribution(target, 5)
    names = [(found["slides"][found["slideOf"][row]], found["names"][row]) for row in edges[5]]
    assert names == list(zip(table["slide"], table["spot"], strict=True))
    np.testing.assert_allclose(attention[5], table["attention"], rtol=1e-6)
    np.testing.assert_allclose(page.array("similarity").reshape(-1, K)[5], table["similarity"], rtol=1e-6)


def test_patches_are_jpegs_of_the_reference_spots(target, refs, tmp_path):
    page = written(target, tmp_path, refs=refs)
    found, data = page.content["retrieved"], page.array("patches").tobytes()
    lengths = found["patchBytes"]
    assert len(lengths) == len(found["names"]) and sum(lengths) == len(data) and min(lengths) > 0
    first = np.asarray(Image.open(BytesIO(data[: lengths[0]])), dtype=float)
    slide = next(ref for ref in refs if ref.obs["slide"].iloc[0] == found["slides"][found["slideOf"][0]])
    (library,) = slide.uns["spatial"].values()
    x, y = slide.obsm["spatial"][slide.obs_names.get_loc(found["names"][0])].astype(int)
    around = library["images"]["hires"][max(y - 24, 0) : y + 24, max(x - 24, 0) : x + 24]
    assert np.abs(first[20:-20, 20:-20].mean(axis=(0, 1)) - around.mean(axis=(0, 1))).max() < 25


def test_without_references_their_spots_are_named_and_have_no_patches(target, tmp_path):
    page = written(target, tmp_path)
    assert set(page.content["retrieved"]["patchBytes"]) == {0}
    assert "no patches" in page.content["retrieved"]["note"]
    assert 'id="block-patches"' not in page.text


def test_the_picture_lies_where_the_spots_are(target, tmp_path):
    page = written(target, tmp_path)
    place = page.content["picture"]
    picture = np.asarray(Image.open(BytesIO(page.array("picture").tobytes())), dtype=float)
    (library,) = target.uns["spatial"].values()
    scale = picture.shape[1] / (place["right"] - place["left"])
    places = page.array("places").reshape(-1, 2)
    full = library["images"]["hires"].astype(float)
    for (x, y), (own_x, own_y) in zip(places[:20], target.obsm["spatial"][:20].astype(int), strict=True):
        column, row = int((x - place["left"]) * scale), int((y - place["top"]) * scale)
        seen = picture[row - 6 : row + 7, column - 6 : column + 7].mean(axis=(0, 1))
        true = full[own_y - 6 : own_y + 7, own_x - 6 : own_x + 7].mean(axis=(0, 1))
        assert np.abs(seen - true).max() < 12


def test_provenance_says_how_the_prediction_was_made_and_that_it_is_no_measurement(target, tmp_path):
    page = written(target, tmp_path)
    rows = {title: value for section in page.content["provenance"] for title, value in section["rows"]}
    assert rows["Method"] == "spahgc" and rows["Preset"] == "default" and rows["Seed"] == "0"
    assert rows["References (2)"] == ", ".join(target.uns["spahgc"]["predictions"]["spahgc"]["references"])
    assert rows["Name"] == "sim" and rows["width"] == "32" and rows["python"] == "3.12.0"
    assert "in turn" in rows["Held out"]
    assert "A prediction is no measurement and no basis for a diagnosis." in page.text
    assert "Redistribution and use in source and binary forms" in page.content["licence"]


def test_genes_can_be_chosen_and_are_limited_by_trust_otherwise(target, tmp_path, monkeypatch):
    chosen = list(target.var_names[[7, 2]])
    assert set(written(target, tmp_path, genes=chosen).content["genes"]) == set(chosen)
    monkeypatch.setattr("spahgc.pl._report._content.MAX_GENES", 5)
    content = written(target, tmp_path).content
    assert content["genes"] == list(target.var["spahgc_cv_pcc"].nlargest(5).index)
    assert "5 genes of 20 predicted" in content["subtitle"]


# What is not there


def test_what_a_slide_does_not_have_is_left_out(target, tmp_path):
    bare = AnnData(target.X, var=target.var[["spahgc_panel"]])
    bare.obsm["spatial"] = target.obsm["spatial"]
    bare.layers["spahgc"] = target.layers["spahgc"]
    page = written(bare, tmp_path)
    content = page.content
    assert set(content["layers"]) == {"measured", "predicted"}
    for name in ("trust", "achieved", "domains", "retrieved", "picture", "microns"):
        assert content[name] is None
    assert not content["hasSupport"]
    assert set(re.findall(r'id="block-(\w+)"', page.text)) == {"places", "measured", "predicted"}


def test_a_slide_that_was_not_measured_has_no_measurement(target, tmp_path):
    target.X = np.full(target.shape, np.nan, dtype=np.float32)
    assert "measured" not in written(target, tmp_path).content["layers"]


def test_a_baseline_has_a_page(cohort, tmp_path):
    target, *refs = cohort
    sp.tl.predict(target, refs, method="ridge")
    content = written(target, tmp_path, refs=refs).content
    assert content["retrieved"] is None and content["trust"] is None
    assert content["genes"] == list(target.var_names[target.var["spahgc_panel"]])


def test_the_small_picture_stands_in_where_the_image_is_gone(target, tmp_path):
    (library,) = target.uns["spatial"].values()
    library["images"]["hires"] = (library["images"]["hires"][::4, ::4] / 255).astype(np.float32)
    library["scalefactors"]["tissue_hires_scalef"] = 0.25
    content = written(target, tmp_path).content
    assert content["picture"] is not None and content["patchWidth"] is None


def test_a_spatialdata_has_the_same_page(target, tmp_path):
    sd = pytest.importorskip("spatialdata")
    del target.uns["spatial"]
    alone = written(target, tmp_path).content
    content = Page(sp.pl.report(sd.SpatialData(tables={"t": target}), tmp_path / "sd.html", table_key="t")).content
    assert content == alone


# Errors come before the work


def test_what_is_missing_is_said_before_anything_is_written(target, refs, tmp_path):
    path = tmp_path / "report.html"
    with pytest.raises(KeyError, match=r'layers\["other"\] not found.*Run spahgc\.tl\.predict'):
        sp.pl.report(target, path, key="other")
    with pytest.raises(KeyError, match="nowhere"):
        sp.pl.report(target, path, genes=["nowhere"])
    with pytest.raises(ValueError, match="none of refs is a reference"):
        sp.pl.report(target, path, refs=[target])
    with pytest.raises(ValueError, match="no HTML file"):
        sp.pl.report(target, tmp_path / "report.pdf")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        sp.pl.report(target, tmp_path / "nowhere" / "report.html")
    with pytest.raises(ValueError, match="max_mb is 0; pass a positive"):
        sp.pl.report(target, path, max_mb=0)
    assert list(tmp_path.iterdir()) == []


def test_a_page_is_written_whole_or_not_at_all(target, tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("the one before")
    monkeypatch.setattr(Path, "write_text", lambda *_, **__: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        sp.pl.report(target, path)
    monkeypatch.undo()
    assert path.read_text() == "the one before"
    assert list(tmp_path.iterdir()) == [path]


# Size


@pytest.fixture(scope="module")
def large() -> AnnData:
    """4,000 spots x 300 genes of noise, which no compression makes small."""
    rng = np.random.default_rng(0)
    slide = AnnData(rng.poisson(3.0, (4000, 300)).astype(np.float32))
    slide.obsm["spatial"] = np.stack(np.meshgrid(np.arange(80), np.arange(50)), -1).reshape(-1, 2) * 100.0
    slide.layers["spahgc"] = rng.normal(1, 0.5, slide.shape).astype(np.float32)
    slide.layers["spahgc_std"] = rng.uniform(0.2, 1, slide.shape).astype(np.float32)
    picture = rng.integers(0, 255, (1000, 1600, 3), dtype=np.uint8)
    factors = {"tissue_hires_scalef": 0.2, "spot_diameter_fullres": 55.0, "microns_per_pixel": 1.0}
    slide.uns["spatial"] = {"S": {"images": {"hires": picture}, "scalefactors": factors}}
    return slide


def test_300_genes_of_4000_spots_stay_under_12_mb(large, tmp_path):
    path = sp.pl.report(large, tmp_path / "report.html")
    assert path.stat().st_size < 12e6
    assert set(Page(path).content["layers"]) == {"measured", "predicted", "spread"}


def test_pictures_get_coarser_until_they_fit_and_numbers_never(large, tmp_path):
    fine, coarse = (written(large, tmp_path, max_mb=size) for size in (12, 5.4))
    assert len(coarse.text) < 5.4e6
    assert len(coarse.array("picture")) < len(fine.array("picture"))
    np.testing.assert_array_equal(coarse.array("predicted"), fine.array("predicted"))
    with pytest.raises(
        ValueError, match=r"max_mb=3 is too small: the numbers of 300 genes x 4,000 spots .* fewer genes"
    ):
        sp.pl.report(large, tmp_path / "small.html", max_mb=3)


def test_patches_that_do_not_fit_are_those_of_least_attention_and_the_page_says_so(target, refs, tmp_path):
    page = written(target, tmp_path, refs=refs, max_mb=0.56)
    found = page.content["retrieved"]
    kept = np.array(found["patchBytes"]) > 0
    assert len(page.text) < 0.56e6
    assert 0 < kept.sum() < len(kept) and kept[: kept.sum()].all()
    assert f"Patches of {kept.sum()} of {len(kept)} reference spots are kept" in found["note"]


# Its page in the documentation


def test_the_how_to_runs(target, refs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[1] / "docs" / "howto" / "report.md").read_text("utf-8")
    names = {"target": target, "refs": refs}
    for block in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        exec(compile(block, "report.md", "exec"), names)
    assert len(Page(tmp_path / "report.html").content["genes"]) == target.n_vars
    small = tmp_path / "ten_genes.html"
    assert len(Page(small).content["genes"]) == 10 and small.stat().st_size < 3e6
