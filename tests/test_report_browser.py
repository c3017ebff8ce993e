"""The report in a real browser: what a reader does with it, with a mouse and without."""

from __future__ import annotations

import csv
import importlib.util
import io
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from anndata import AnnData
from PIL import Image

import spahgc as sp


def helper(name: str) -> Any:
    """Load a neighbour by its path: with ``--import-mode=importlib`` tests cannot import each other."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


browser_helper, report_slides = helper("browser"), helper("report_slides")
DESKTOP = {"width": 1400, "height": 900}
NARROW = {"width": 800, "height": 1000}
EVIL_GENE, EVIL_SLIDE, EVIL_SPOT = "<script>alert(1)</script>", "</script><img src=x onerror=alert(2)>", "\"&'"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with browser_helper.chromium() as running:
        yield running


@pytest.fixture(scope="module")
def slides() -> list[AnnData]:
    return report_slides.finished_slides()


@pytest.fixture(scope="module")
def path(slides: list[AnnData], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sp.pl.report(slides[0].copy(), tmp_path_factory.mktemp("report") / "report.html", refs=slides[1:])


@pytest.fixture
def open_report(browser: Any, path: Path) -> Any:
    """Opens the page, at the size of a desktop if nothing else is said."""

    def opened(file: Path = path, **context: Any) -> AbstractContextManager[Any]:
        return browser_helper.opened(browser, file, **{"viewport": DESKTOP, "color_scheme": "light", **context})

    return opened


def pixels(page: Any, selector: str) -> np.ndarray:
    """What an element looks like, once what was asked for has been drawn."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return np.asarray(Image.open(io.BytesIO(page.locator(selector).screenshot())).convert("RGB"), dtype=int)


def differ(one: np.ndarray, other: np.ndarray) -> float:
    """Share of the pixels that differ visibly."""
    return float((np.abs(one - other).max(axis=-1) > 24).mean())


def centre_of_a_spot(page: Any) -> tuple[float, float]:
    """Where on the screen the spot in the middle lies, found with the keys."""
    page.locator("#map-0").focus()
    page.keyboard.press("Escape")
    page.keyboard.press("ArrowRight")
    ring = page.locator("#map-0 .leaflet-marks-pane path").first.bounding_box()
    return ring["x"] + ring["width"] / 2, ring["y"] + ring["height"] / 2


def test_the_page_opens_without_a_request_or_a_fault(open_report):
    with open_report() as report:
        assert report.page.locator("h1").inner_text() == "Predicted gene expression of P1S1"
        report.assert_quiet()


def test_the_best_gene_its_interval_and_its_map_are_there_on_opening(open_report, slides):
    best = slides[0].var["spahgc_cv_pcc"].idxmax()
    low, high = (slides[0].var[f"spahgc_cv_pcc_{end}"][best] for end in ("low", "high"))
    with open_report() as report:
        page = report.page
        row = page.locator("#gene-rows tr").first
        assert row.locator("th").inner_text() == best
        assert f"{low:.2f} to {high:.2f}" in row.inner_text()
        assert row.get_attribute("aria-current") == "true" and page.locator("#search").input_value() == best
        assert f"95 % interval {low:.2f} to {high:.2f}" in page.locator("#gene-trust").inner_text()
        shown = pixels(page, "#map-1")
        page.locator("#panel-1 input[value=image]").check()
        assert differ(shown, pixels(page, "#map-1")) > 0.02


def test_a_gene_is_found_by_typing_and_the_map_changes(open_report, slides):
    gene = slides[0].var["spahgc_cv_pcc"].idxmin()
    with open_report() as report:
        page = report.page
        before = [pixels(page, f"#map-{panel}") for panel in (0, 1)]
        page.locator("#search").click()
        page.keyboard.type(gene[:-1].lower())
        assert page.locator("#options [role=option]").count() > 1
        page.keyboard.type(gene[-1])
        assert page.locator("#options [aria-selected=true]").inner_text().startswith(gene)
        page.keyboard.press("Enter")
        assert page.locator("#search").input_value() == gene
        assert page.locator("#gene-rows tr[aria-current]").inner_text().startswith(gene)
        for panel in (0, 1):
            assert differ(before[panel], pixels(page, f"#map-{panel}")) > 0.01
        report.assert_quiet()


def test_the_search_follows_the_pattern_of_a_combobox(open_report):
    with open_report() as report:
        page = report.page
        field, options = page.locator("#search"), page.locator("#options")
        shown = field.input_value()
        assert field.get_attribute("role") == "combobox" and options.get_attribute("role") == "listbox"
        page.keyboard.press("/")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowDown")
        assert field.get_attribute("aria-expanded") == "true"
        active = page.locator(f"#{field.get_attribute('aria-activedescendant')}")
        assert active.get_attribute("aria-selected") == "true"
        page.keyboard.press("Escape")
        assert options.is_hidden() and field.get_attribute("aria-expanded") == "false"
        assert field.input_value() == shown
        page.keyboard.press("ControlOrMeta+A")
        page.keyboard.type("no such gene")
        assert "No gene of this page" in options.inner_text()
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        assert field.input_value() == shown


def test_measured_and_predicted_move_and_point_together(open_report):
    with open_report() as report:
        page = report.page
        x, y = centre_of_a_spot(page)
        left, right = (page.locator(f"#map-{panel}").bounding_box() for panel in (0, 1))
        page.mouse.move(x, y)
        rings = [page.locator(f"#map-{panel} .leaflet-marks-pane path").first.bounding_box() for panel in (0, 1)]
        assert rings[1]["x"] - right["x"] == pytest.approx(rings[0]["x"] - left["x"], abs=1)
        assert (
            "measured" in page.locator("#readout").inner_text() and "predicted" in page.locator("#readout").inner_text()
        )
        assert page.locator("#map-1 .cross").count() == 1 and page.locator("#map-0 .cross").count() == 0
        bars = [page.locator(f"#map-{panel} .scale-bar").inner_text() for panel in (0, 1)]
        page.mouse.wheel(0, -600)
        page.wait_for_timeout(300)
        after = [page.locator(f"#map-{panel} .scale-bar").inner_text() for panel in (0, 1)]
        assert bars[0] == bars[1] and after[0] == after[1] and after != bars
        report.assert_quiet()


def test_a_click_on_a_spot_shows_its_values_and_its_reference_patches(open_report, slides):
    with open_report() as report:
        page = report.page
        page.mouse.click(*centre_of_a_spot(page))
        spot = page.locator("#spot-title").inner_text().removeprefix("Spot ")
        table = sp.tl.attribution(slides[0], spot)
        cards = page.locator(".cards li:not(.own)")
        assert cards.count() == len(table)
        for card, row in zip(cards.all(), table.itertuples(), strict=True):
            text = card.inner_text()
            assert row.slide in text and row.spot in text
            assert f"attention {row.attention:.2f}" in text and f"similarity {row.similarity:.2f}" in text
        for patch in page.locator(".cards img").all():
            assert patch.evaluate("image => image.decode().then(() => image.naturalWidth)") > 60
        assert pixels(page, ".cards canvas").std() > 5
        report.assert_quiet()


def test_the_page_works_without_a_mouse(open_report):
    with open_report() as report:
        page = report.page
        page.locator("#map-0").focus()
        page.keyboard.press("ArrowRight")
        first = page.locator("#readout").inner_text()
        page.keyboard.press("ArrowRight")
        second = page.locator("#readout").inner_text()
        assert first.startswith("Spot ") and second.startswith("Spot ") and first != second
        assert page.locator("#announcement").inner_text().split(":")[0] == second.split(":")[0]
        page.keyboard.press("Enter")
        assert page.locator("#spot-title").inner_text() == second.split(":")[0]
        before = page.locator("#search").input_value()
        page.locator("#gene-rows button[tabindex='0']").focus()
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        assert page.locator("#search").input_value() != before
        page.locator("#layers-0 input:checked").focus()
        page.keyboard.press("ArrowRight")
        assert page.locator("#layers-0 input:checked").input_value() == "predicted"
        report.assert_quiet()


def test_overlays_have_legends_of_their_own(open_report, slides):
    with open_report() as report:
        page = report.page
        seen = []
        for layer, words in (
            ("spread", "standard deviation"),
            ("support", "how well the references"),
            ("domains", "("),
        ):
            page.locator(f"#panel-1 input[value={layer}]").check()
            page.locator("#legend-1", has_text=words).wait_for()
            seen.append(pixels(page, "#map-1"))
        assert differ(seen[0], seen[1]) > 0.01 and differ(seen[1], seen[2]) > 0.01
        names = slides[0].obs["spahgc_domain"].cat.categories
        assert page.locator("#legend-1 .class").count() == len(names)
        report.assert_quiet()


def test_opacity_and_palette_change_the_map(open_report):
    with open_report() as report:
        page = report.page
        before = pixels(page, "#map-1")
        page.locator("#palette").select_option("magma")
        other = pixels(page, "#map-1")
        assert differ(before, other) > 0.01
        page.locator("#opacity").fill("0")
        assert differ(other, pixels(page, "#map-1")) > 0.01


def test_the_table_sorts_by_any_column(open_report, slides):
    with open_report() as report:
        page = report.page
        page.locator("#head-gene button").click()
        names = page.locator("#gene-rows th").all_inner_texts()
        assert names == sorted(slides[0].var_names)
        assert page.locator("#head-gene").get_attribute("aria-sort") == "ascending"
        page.locator("#head-achieved button").click()
        achieved = page.locator("#gene-rows td.number").all_inner_texts()
        numbers = [float(text.replace("\u2212", "-")) for text in achieved if text != "\u2013"]
        assert numbers == sorted(numbers, reverse=True) and len(numbers) > 1


def test_the_picture_is_saved_as_a_png_of_what_is_seen(open_report, tmp_path):
    with open_report() as report:
        page = report.page
        with page.expect_download() as download:
            page.locator("#save-picture").click()
        download.value.save_as(tmp_path / "saved.png")
        gene = page.locator("#search").input_value()
        assert download.value.suggested_filename == f"P1S1_{gene}.png"
        saved = Image.open(tmp_path / "saved.png")
        assert saved.format == "PNG" and saved.width > 1200
        values = np.asarray(saved.convert("RGB"), dtype=int)
        assert (values.min(axis=-1) < 200).mean() > 0.2  # tissue, spots and letters on white
        coloured = np.ptp(values, axis=-1) > 120  # tissue is pale, the ends of viridis are not
        half = values.shape[1] // 2
        assert coloured[:, :half].mean() > 0.005 and coloured[:, half:].mean() > 0.005
        report.assert_quiet()


def test_the_gene_table_is_saved_as_csv(open_report, slides, tmp_path):
    with open_report() as report:
        with report.page.expect_download() as download:
            report.page.locator("#save-table").click()
        download.value.save_as(tmp_path / "genes.csv")
    with (tmp_path / "genes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == slides[0].n_vars
    for row in rows[:5]:
        gene = slides[0].var.loc[row["gene"]]
        assert float(row["held_out_pcc"]) == pytest.approx(gene["spahgc_cv_pcc"], rel=1e-4)
        assert float(row["held_out_pcc_high"]) == pytest.approx(gene["spahgc_cv_pcc_high"], rel=1e-4)


def test_names_that_look_like_markup_do_no_harm(open_report, slides, tmp_path):
    target, *refs = (slide.copy() for slide in slides)
    names = [EVIL_GENE, EVIL_SPOT, "=1+1", *target.var_names[3:]]
    for slide in (target, *refs):
        slide.var_names = names
    target.var["spahgc_cv_pcc"] = np.linspace(0.9, 0.1, target.n_vars)
    target.obs["slide"] = EVIL_SLIDE
    target.obs_names = [f"{EVIL_SPOT}{number}" for number in range(target.n_obs)]
    target.obs["spahgc_domain"] = target.obs["spahgc_domain"].cat.rename_categories(lambda name: EVIL_SLIDE + name)
    path = sp.pl.report(target, tmp_path / "evil.html", refs=refs)
    with open_report(path) as report:
        page = report.page
        assert page.locator("h1").inner_text() == f"Predicted gene expression of {EVIL_SLIDE}"
        assert page.locator("#search").input_value() == EVIL_GENE
        page.locator("#search").click()
        page.keyboard.type("<scr")
        assert page.locator("#options li").first.locator("span").inner_text() == EVIL_GENE
        page.keyboard.press("Enter")
        page.locator("#panel-1 input[value=domains]").check()
        page.mouse.click(*centre_of_a_spot(page))
        assert EVIL_SPOT in page.locator("#spot-title").inner_text()
        for button in ("#save-picture", "#save-table"):
            with page.expect_download() as download:
                page.locator(button).click()
            download.value.save_as(tmp_path / "saved")
            assert not set('<>"/') & set(download.value.suggested_filename)
        with (tmp_path / "saved").open(newline="") as file:
            genes = [row["gene"] for row in csv.DictReader(file)]
        assert genes[:3] == [EVIL_GENE, EVIL_SPOT, "'=1+1"]
        assert page.locator("img:not(.patch):not(.slide-picture), script:not([type]):not(:empty)").count() == 2
        report.assert_quiet()


def test_light_and_dark_follow_the_system_and_the_button(open_report):
    def ground(page: Any) -> float:
        return float(pixels(page, "body")[2:6, 2:6].mean())

    for scheme, is_dark in (("light", False), ("dark", True)):
        with open_report(color_scheme=scheme) as report:
            page = report.page
            assert (ground(page) < 80) == is_dark
            assert page.locator("#theme").inner_text() == ("Light mode" if is_dark else "Dark mode")
            page.locator("#theme").click()
            assert (ground(page) < 80) != is_dark


def test_nothing_is_cut_off_on_a_narrow_screen(open_report):
    with open_report(viewport=NARROW) as report:
        page = report.page
        page.mouse.click(*centre_of_a_spot(page))
        assert page.evaluate("() => document.documentElement.scrollWidth") <= NARROW["width"]
        for selector in ("#map-0", "#map-1", "#search", "#gene-list", "#spot-body"):
            box = page.locator(selector).bounding_box()
            assert box["x"] >= 0 and box["x"] + box["width"] <= NARROW["width"]


def test_a_slide_with_a_prediction_alone_has_one_map(open_report, slides, tmp_path):
    target = AnnData(var=slides[0].var[[]], obs=slides[0].obs[[]])
    target.obsm["spatial"] = slides[0].obsm["spatial"]
    target.layers["spahgc"] = slides[0].layers["spahgc"]
    with open_report(sp.pl.report(target, tmp_path / "bare.html")) as report:
        page = report.page
        assert page.locator(".map:visible").count() == 1 and page.locator("thead th").count() == 1
        page.mouse.click(*centre_of_a_spot(page))
        assert page.locator("#spot-title").inner_text().startswith("Spot ")
        with page.expect_download():
            page.locator("#save-picture").click()
        report.assert_quiet()


def test_a_screen_reader_meets_names_for_everything_that_it_can_use(open_report):
    with open_report() as report:
        tree = report.page.locator("body").aria_snapshot()
        for words in (
            'combobox "Gene"',
            'radio "Measured"',
            'slider "Opacity',
            'columnheader "Gene',
            'button "Zoom in"',
        ):
            assert words in tree
        assert 'application "Map: ' in tree
        assert all(text.strip() for text in report.page.locator("button:not([aria-label])").all_inner_texts())


def test_a_plain_slide_opens_on_support_with_unknown_spots_as_rings(open_report, slides, tmp_path):
    plain = slides[0].copy()
    plain.X = None
    plain.obs["spahgc_support"] = [*[0.01] * 20, *[0.5] * (plain.n_obs - 20)]
    with open_report(sp.pl.report(plain, tmp_path / "coloured.html", fade_below=None)) as report:
        coloured = [pixels(report.page, f"#map-{index}") for index in (0, 1)]
    with open_report(sp.pl.report(plain, tmp_path / "plain.html")) as report:
        page = report.page
        assert page.locator('#layers-1 input[value="support"]').is_checked()
        assert page.locator("#legend-0 .rings").inner_text() == "20 spots look like nothing on the references"
        assert page.locator("#legend-1 .rings").count() == 0
        assert page.locator("#summary li").count() == 3
        rings = [pixels(page, f"#map-{index}") for index in (0, 1)]
        report.assert_quiet()
    assert differ(coloured[1], rings[1]) < 0.001
    assert differ(coloured[0], rings[0]) > 0.01
