"""Spots that look like nothing on the references: hatched in figures, rings in the report."""

from __future__ import annotations

from pathlib import Path

import matplotlib
from anndata import AnnData

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from tests.tissue_figures import assert_nothing_overlaps, predicted_slides, values, words

import spahgc as sp

NOTE = "3 spots look like\nnothing on the\nreferences"


@pytest.fixture(scope="module")
def original() -> AnnData:
    """A slide that was not measured, with three spots of unknown tissue."""
    slide = predicted_slides()[0]
    slide.X = None
    slide.obs["spahgc_support"] = [0.01, 0.02, 0.049, 0.05, *[0.5] * 46]
    for name, pcc in (("cv_pcc", 0.345), ("cv_pcc_low", -0.001), ("cv_pcc_high", 0.5)):
        slide.var[f"spahgc_{name}"] = pcc
    return slide


@pytest.fixture
def slide(original: AnnData):
    yield original.copy()
    plt.close("all")


def hatched(ax) -> np.ndarray:
    """Places of the hatched spots."""
    found = [each.get_offsets() for each in ax.collections if each.get_hatch()]
    return np.concatenate(found) if found else np.zeros((0, 2))


def test_unknown_spots_are_hatched_where_genes_and_their_spread_are_drawn(slide):
    axes = sp.pl.spatial_genes(slide, "MORPH001", spread=True, show=False)
    for ax in axes:
        assert np.isnan(values(ax)[:3]).all() and np.isfinite(values(ax)[3:]).all()
        assert len(hatched(ax)) == 3
    assert sum(NOTE in words(ax) for ax in axes) == 1
    assert_nothing_overlaps(axes[0].figure)


def test_unknown_spots_are_hatched_where_domains_are_drawn_but_not_in_an_annotation(slide):
    slide.obs["tissue"] = slide.obs["spahgc_domain"]
    domains, label = sp.pl.domains(slide, label="tissue", show=False)
    assert len(hatched(domains)) == 3 and np.isnan(values(domains)[:3]).all() and NOTE in words(domains)
    assert len(hatched(label)) == 0 and np.isfinite(values(label)).all()
    assert_nothing_overlaps(domains.figure)


@pytest.mark.parametrize("draw", [lambda s, **o: sp.pl.spatial_genes(s, "MORPH001", **o), sp.pl.domains])
def test_the_limit_is_an_option_and_none_colours_all(slide, draw):
    (ax,) = draw(slide, fade_below=None, show=False)
    assert len(hatched(ax)) == 0 and np.isfinite(values(ax)).all()
    (ax,) = draw(slide, fade_below=0.03, show=False)
    assert len(hatched(ax)) == 2
    with pytest.raises(ValueError, match="fade_below is 2; support lies between 0 and 1"):
        draw(slide, fade_below=2)


def test_unknown_spots_outside_the_part_that_is_shown_are_not_counted(slide):
    _, y = slide.obsm["spatial"][[0, 1, 2]].T
    below = (0.0, 1e4, float(y.max()) + 80, 1e4)
    (ax,) = sp.pl.spatial_genes(slide, "MORPH001", crop_coord=below, show=False)
    assert not any("nothing on the" in text for text in words(ax))


def test_a_prediction_without_support_is_drawn_as_before(slide):
    del slide.obs["spahgc_support"]
    (ax,) = sp.pl.spatial_genes(slide, "MORPH001", show=False)
    assert len(hatched(ax)) == 0 and np.isfinite(values(ax)).all()


def test_what_was_measured_at_unknown_spots_is_drawn(slide):
    measured = predicted_slides()[0]
    measured.obs["spahgc_support"] = slide.obs["spahgc_support"].to_numpy()
    left, right = sp.pl.spatial_genes(measured, "MORPH001", show=False)
    assert len(hatched(left)) == 0 and len(hatched(right)) == 3


def test_the_title_of_an_unmeasured_gene_says_what_references_promise(slide):
    (ax,) = sp.pl.spatial_genes(slide, "MORPH001", show=False)
    assert ax.get_title() == "MORPH001, predicted\n(PCC held out: 0.34, 0.00 to 0.50)"
    narrow = sp.pl.spatial_genes(slide, ["MORPH001", "MORPH002", "MORPH003"], ncols=3, show=False)
    assert narrow[0].get_title().splitlines()[1:] == ["(PCC held out:", "0.34, 0.00 to 0.50)"]
    assert_nothing_overlaps(narrow[0].figure)


def test_a_measured_gene_keeps_its_own_correlation_in_the_title():
    slide = predicted_slides()[0]
    for name in ("cv_pcc", "cv_pcc_low", "cv_pcc_high"):
        slide.var[f"spahgc_{name}"] = 0.3
    axes = sp.pl.spatial_genes(slide, "MORPH001", show=False)
    assert "held out" not in axes[1].get_title() and "(PCC " in axes[1].get_title()


def test_a_gene_without_a_held_out_correlation_has_a_plain_title(slide):
    slide.var.loc["MORPH001", "spahgc_cv_pcc"] = np.nan
    assert sp.pl.spatial_genes(slide, "MORPH001", show=False)[0].get_title() == "MORPH001, predicted"


# The report


def content_of(slide: AnnData, folder: Path, **settings) -> dict:
    import json
    import re

    text = sp.pl.report(slide, folder / "report.html", **settings).read_text(encoding="utf-8")
    return json.loads(re.search(r'<script[^>]*id="content"[^>]*>(.*?)</script>', text, re.DOTALL)[1])


def test_the_report_says_for_whom_its_numbers_hold(slide, tmp_path):
    slide.uns.setdefault("spahgc", {})["predictions"] = {
        "spahgc": {"method": "spahgc", "trust": {"for": "a new patient"}}
    }
    content = content_of(slide, tmp_path)
    assert content["forWhom"] == "a new patient"
    assert content["summary"][1] == "20 of 20 trusted, for a new patient (expected PCC of at least 0.2)"
    assert any("It holds for a new patient" in note for note in content["notes"])
    rows = {title: value for section in content["provenance"] for title, value in section["rows"]}
    assert rows["The numbers hold for"] == "a new patient"


def test_the_report_names_the_unknown_spots(slide, tmp_path):
    content = content_of(slide, tmp_path)
    assert content["unknown"] == [0, 1, 2]
    assert any("Empty rings are 3 spots" in note for note in content["notes"])
    assert content_of(slide, tmp_path, fade_below=None)["unknown"] == []
    with pytest.raises(ValueError, match="fade_below is -1"):
        content_of(slide, tmp_path, fade_below=-1)
