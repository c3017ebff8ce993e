"""Figure and report of what reference spots add to a prediction."""

from __future__ import annotations

import base64
import importlib.util
import json
import re
import sys
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")

import numpy as np
import pytest
from anndata import AnnData

import spahgc as sp
from spahgc import Parameters, SpaHGC
from spahgc.tl import attribution

EMBEDDING = "X_sim"
PATCH_PX = 224


def helper(name: str) -> Any:
    """Load a neighbour by its path: with ``--import-mode=importlib`` tests cannot import each other."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@pytest.fixture(scope="module")
def slides() -> list[AnnData]:
    """Three slides with their images; the first is the target."""
    made = sp.datasets.simulated(n_slides=3, n_spots=40, n_genes=40, n_domains=3, seed=1)
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(3, 24))
    for slide in made:
        noise = rng.normal(scale=0.3, size=(slide.n_obs, 24))
        slide.obsm[EMBEDDING] = (np.asarray(slide.obsm["truth_domains"]) @ mixing + noise + 1).astype(np.float32)
        record = {"name": "sim", "dim": 24, "input_px": PATCH_PX, "mpp": "native", "interpolation": "bicubic"}
        slide.uns["spahgc"] = {"embeddings": {EMBEDDING: record}}
    return made


@pytest.fixture(scope="module")
def model(slides: list[AnnData], quick_default: Parameters) -> SpaHGC:
    preset = replace(quick_default, experts=("kernel", "kernel_overall", "perceptron", "graph"), place=False)
    return sp.tl.fit([slide.copy() for slide in slides[1:]], preset=preset, device="cpu")


@pytest.fixture(scope="module")
def target(slides: list[AnnData], model: SpaHGC) -> AnnData:
    predicted = slides[0].copy()
    sp.tl.predict(predicted, model=model, device="cpu")
    return predicted


def texts(ax: Any) -> list[str]:
    return [text.get_text() for text in ax.texts]


def test_bars_and_the_mean_are_the_prediction(target, slides, model):
    gene = model.genes[4]
    _, _, bars, *frames = sp.pl.attribution(target, 5, slides[1:], gene=gene, model=model, n=4, show=False)
    table = attribution(target, 5, gene=gene, model=model)
    widths = [bar.get_width() for bar in bars.patches]
    assert table.attrs["mean"] + sum(widths) == pytest.approx(table.attrs["prediction"], abs=1e-4)
    slides_first = [*attribution(target, 5, gene=gene, model=model, by="slide")["contribution"]]
    np.testing.assert_allclose(widths, [*slides_first, table.attrs["remainder"]], atol=1e-6)
    assert texts(bars)[-1] == f"other {table.attrs['remainder']:+.2f}"
    assert bars.get_title() == f"{gene} {table.attrs['prediction']:.2f}\n= mean {table.attrs['mean']:.2f} and"
    for ax, row in zip(frames, table.itertuples(), strict=False):
        assert ax.get_title() == f"{row.rank}. {row.slide}\n{row.spot}\nadds {row.contribution:+.3f}"
        assert ax.get_images()


def test_without_anything_left_over_no_bar_says_so(target, slides, quick_default):
    refs = [slide.copy() for slide in slides[1:]]
    linear = sp.tl.fit(refs, preset=replace(quick_default, experts=("kernel",), place=False), device="cpu")
    fresh = slides[0].copy()
    sp.tl.predict(fresh, model=linear, device="cpu")
    bars = sp.pl.attribution(fresh, 5, gene=linear.genes[0], model=linear, n=1, show=False)[2]
    assert len(bars.patches) == 2 and not any("other" in text for text in texts(bars))


# The report


class Page:
    """What a written page holds."""

    def __init__(self, path: Path) -> None:
        self.text = path.read_text(encoding="utf-8")
        (content,) = re.findall(r'<script[^>]*id="content"[^>]*>(.*?)</script>', self.text, re.S)
        self.content = json.loads(content)

    def array(self, name: str) -> np.ndarray:
        (tag, text) = re.findall(rf'<script([^>]*id="block-{name}"[^>]*)>(.*?)</script>', self.text, re.S)[0]
        (kind,) = re.findall(r'data-kind="(\w+)"', tag)
        return np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype=f"<{kind}")


@pytest.fixture(scope="module")
def path(target: AnnData, slides: list[AnnData], model: SpaHGC, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    return sp.pl.report(target.copy(), folder / "report.html", refs=slides[1:], model=model)


def test_the_page_holds_what_the_table_says(path, target, model):
    page, n = Page(path), target.n_obs
    found, spots = page.content["added"], page.content["retrieved"]
    assert found["genes"] == list(range(10)) and found["slides"] == model.references
    adding = page.array("adding").reshape(10, n, found["k"])
    values, sums = page.array("added").reshape(adding.shape), page.array("sums").reshape(10, n, -1)
    rest = page.array("rest").reshape(10, n)
    for place, spot in ((0, 5), (7, 30)):
        table = attribution(target, spot, gene=page.content["genes"][place], model=model)
        np.testing.assert_allclose(values[place, spot], table["contribution"].head(found["k"]), rtol=1e-3)
        names = [(spots["slides"][spots["slideOf"][row]], spots["names"][row]) for row in adding[place, spot]]
        assert names == list(zip(table["slide"], table["spot"], strict=True))[: found["k"]]
        added = [table.attrs["slides"][slide] for slide in found["slides"]]
        np.testing.assert_allclose(sums[place, spot], added, atol=1e-5)
        assert rest[place, spot] == pytest.approx(table.attrs["remainder"], abs=1e-5)
        assert found["mean"][place] == pytest.approx(table.attrs["mean"], rel=1e-4)


def test_attention_is_still_there_for_the_other_genes(path, target):
    page = Page(path)
    spots, k = page.content["retrieved"], page.content["retrieved"]["k"]
    edges = page.array("edges").reshape(-1, k)[5]
    table = attribution(target, 5)
    names = [(spots["slides"][spots["slideOf"][row]], spots["names"][row]) for row in edges if row >= 0]
    assert names == list(zip(table["slide"], table["spot"], strict=True))


def test_without_a_model_the_page_holds_no_sums(target, tmp_path):
    page = Page(sp.pl.report(target.copy(), tmp_path / "report.html"))
    assert page.content["added"] is None and 'id="block-sums"' not in page.text


def test_a_model_without_a_graph_fills_the_page_alone(slides, quick_default, tmp_path):
    refs = [slide.copy() for slide in slides[1:]]
    kernel = sp.tl.fit(refs, preset=replace(quick_default, experts=("kernel",), place=False), device="cpu")
    fresh = slides[0].copy()
    sp.tl.predict(fresh, model=kernel, device="cpu")
    page = Page(sp.pl.report(fresh, tmp_path / "report.html", refs=refs, model=kernel))
    assert page.content["retrieved"]["k"] == 0 and page.content["added"]["k"] == 6
    assert min(page.content["retrieved"]["patchBytes"]) > 0


def test_another_model_is_refused_by_the_page(slides, target, quick_default, tmp_path):
    refs = [slide.copy() for slide in slides[1:]]
    other = sp.tl.fit(refs, preset=replace(quick_default, experts=("kernel",), place=False), device="cpu")
    with pytest.raises(ValueError, match="model= did not make the prediction"):
        sp.pl.report(target.copy(), tmp_path / "report.html", model=other)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with helper("browser").chromium() as running:
        yield running


def test_a_chosen_spot_shows_its_prediction_as_a_sum(browser, path, target, model):
    with sys.modules["browser"].opened(browser, path, viewport={"width": 1400, "height": 900}) as report:
        page = report.page
        page.locator("#map-0").focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        spot = page.locator("#spot-title").inner_text().removeprefix("Spot ")
        gene = Page(path).content["genes"][0]
        table = attribution(target, spot, gene=gene, model=model)
        said = page.locator("#spot-body").inner_text().replace("\u2212", "-")
        attrs = table.attrs
        assert f"Predicted {attrs['prediction']:.2f} = mean {attrs['mean']:.2f}" in said
        for slide, value in attrs["slides"].items():
            assert f"{value:+.2f} {slide}" in said
        cards = page.locator(".cards li:not(.own)")
        assert cards.count() == 6
        for card, row in zip(cards.all(), table.itertuples(), strict=False):
            text = card.inner_text().replace("\u2212", "-")
            assert row.spot in text and f"adds {row.contribution:+.2f}" in text
        report.assert_quiet()
