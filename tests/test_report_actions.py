"""What a reader does with the report beyond looking: scale, two genes, regions, annotations, panels, slides, tiles, paper."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import sys
from collections.abc import Iterator
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
MARKERS = ["ERBB2", "MKI67", "KRT5"]
A4_PX = 700
"""Width of what is printed on A4 with the page's margins, CSS pixels."""


@pytest.fixture(scope="module")
def slides() -> list[AnnData]:
    """Target and references with three genes that have other names; a few spots of unknown tissue."""
    slides = report_slides.finished_slides(n_spots=60, n_genes=60)
    for slide in slides:
        slide.var_names = [*MARKERS, *slide.var_names[3:]]
    # Predicted between 2.3 and 2.9, as against a measurement from 0 on.
    flat = slides[0].layers["spahgc"][:, 0]
    slides[0].layers["spahgc"][:, 0] = 2.3 + 0.6 * (flat - flat.min()) / np.ptp(flat)
    slides[0].obs["spahgc_support"] = [*[0.01] * 5, *[0.5] * (slides[0].n_obs - 5)]
    return slides


def square(left: float, top: float, right: float, bottom: float) -> list:
    return [[[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]]


@pytest.fixture(scope="module")
def halves(slides: list[AnnData], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """GeoJSON of the left half, and of the right one with a hole that holds the spot in its middle."""
    xy = slides[0].obsm["spatial"]
    (left, top), (right, bottom), middle = xy.min(axis=0) - 50, xy.max(axis=0) + 50, np.median(xy[:, 0])
    inside = xy[np.abs(xy - [(middle + right) / 2, (top + bottom) / 2]).sum(axis=1).argmin()]
    hole = square(inside[0] - 5, inside[1] - 5, inside[0] + 5, inside[1] + 5)
    shapes = {
        "Tumour": square(left, top, middle + 1, bottom),
        "Stroma": square(middle + 1, top, right, bottom) + hole,
    }
    features = [
        {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": shape}, "properties": {"name": name}}
        for name, shape in shapes.items()
    ]
    path = tmp_path_factory.mktemp("annotations") / "halves.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with browser_helper.chromium() as running:
        yield running


@pytest.fixture(scope="module")
def opened(
    browser: Any, slides: list[AnnData], halves: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    path = tmp_path_factory.mktemp("report") / "report.html"
    net = {"proliferation": ["MKI67", "TOP2A"], "breast": [*MARKERS, str(slides[0].var_names[9])]}
    sp.pl.report(slides[0].copy(), path, annotations=halves, net=net)
    with browser_helper.opened(browser, path, viewport=DESKTOP, color_scheme="light") as report:
        yield report


@pytest.fixture
def report(opened: Any) -> Iterator[Any]:
    """The page as it is on opening; nothing may have gone wrong in it at the end."""
    opened.page.reload()
    opened.page.locator(browser_helper.READY).wait_for(state="attached")
    yield opened
    opened.assert_quiet()


def pixels(page: Any, selector: str) -> np.ndarray:
    """What an element looks like, once what was asked for has been drawn."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return np.asarray(Image.open(io.BytesIO(page.locator(selector).screenshot())).convert("RGB"), dtype=int)


def differ(one: np.ndarray, other: np.ndarray) -> float:
    """Share of the pixels that differ visibly."""
    return float((np.abs(one - other).max(axis=-1) > 24).mean())


def choose(page: Any, name: str, field: str = "#search") -> None:
    page.locator(field).click()
    page.keyboard.type(name)
    page.keyboard.press("Enter")


def saved(page: Any, button: str, path: Path) -> list[dict[str, str]]:
    with page.expect_download() as download:
        page.locator(button).click()
    download.value.save_as(path)
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def ends(page: Any, index: int) -> list[float]:
    """Numbers at the two ends of a legend."""
    first, _, last = page.locator(f"#legend-{index} .scale > span").all_inner_texts()
    return [float(text.strip("≤≥ ").replace("\u2212", "-")) for text in (first, last)]


# Colours


def test_each_map_may_have_a_scale_of_its_own(report, slides):
    page = report.page
    choose(page, "ERBB2")
    assert ends(page, 0) == ends(page, 1)
    before = pixels(page, "#map-1")
    page.locator("#scale").select_option("own")
    known = slides[0][5:, "ERBB2"].layers["spahgc"]
    assert ends(page, 1) == pytest.approx(np.percentile(known, [1, 99]), abs=0.02)
    assert ends(page, 0) != ends(page, 1)
    assert differ(before, pixels(page, "#map-1")) > 0.01


def test_the_contrast_draws_the_ends_of_the_scale_in_and_back(report):
    page = report.page
    low, high = ends(page, 1)
    before = pixels(page, "#map-1")
    page.locator("#least").fill("40")
    page.locator("#most").fill("60")
    assert ends(page, 1) == pytest.approx([low + 0.4 * (high - low), low + 0.6 * (high - low)], abs=0.011)
    assert page.locator("#legend-1 .scale").inner_text().startswith("≤")
    assert differ(before, pixels(page, "#map-1")) > 0.01
    page.locator("#least").fill("100")  # the two ends never meet
    assert ends(page, 1)[0] < ends(page, 1)[1]
    page.locator("#contrast-reset").click()
    assert ends(page, 1) == [low, high] and page.locator("#contrast-reset").is_disabled()
    assert differ(before, pixels(page, "#map-1")) < 0.001


# Names


@pytest.mark.parametrize(
    ("typed", "gene"),
    [("HER2", "ERBB2"), ("ki-67", "MKI67"), ("Ki 67", "MKI67"), ("CK5/6", "KRT5"), ("erbb2", "ERBB2")],
)
def test_a_gene_is_found_by_a_name_of_pathology(report, typed, gene):
    choose(report.page, typed)
    assert report.page.locator("#search").input_value() == gene


def test_a_slip_of_the_pen_is_answered_with_what_was_meant(report):
    page = report.page
    page.locator("#search").click()
    page.keyboard.type("ERBB3X")
    assert "Did you mean:" in page.locator("#options").inner_text()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert page.locator("#search").input_value() == "ERBB2"


def test_a_name_whose_gene_is_not_there_is_explained(report):
    page = report.page
    page.locator("#search").click()
    page.keyboard.type("PD-L1")
    assert page.locator("#options").inner_text() == "PD-L1 is CD274: not on this page."


def test_the_slash_starts_a_new_search_also_after_enter(report):
    page = report.page
    page.keyboard.press("/")
    page.keyboard.type("ERBB2")
    page.keyboard.press("Enter")
    page.keyboard.press("/")
    page.keyboard.type("KRT5")
    page.keyboard.press("Enter")
    assert page.locator("#search").input_value() == "KRT5"


# Two genes


def test_two_genes_stand_side_by_side_in_the_same_layer(report):
    page = report.page
    choose(page, "ERBB2")
    choose(page, "MKI67", "#second")
    titles = [page.locator(f"#legend-{index} .unit").inner_text().split(":")[0] for index in (0, 1)]
    assert titles == ["ERBB2, predicted", "MKI67, predicted"]
    assert differ(pixels(page, "#map-0"), pixels(page, "#map-1")) > 0.01
    assert page.locator("#layers-0 input:checked").input_value() == "predicted"
    page.locator("#second").click()
    page.keyboard.press("Delete")
    page.keyboard.press("Enter")
    assert page.locator("#second").input_value() == "" and page.locator("#pair-tool").is_hidden()
    assert page.locator("#legend-1 .unit").inner_text().startswith("ERBB2")


def test_two_genes_are_blended_with_a_legend_of_their_own(report, tmp_path):
    page = report.page
    choose(page, "ERBB2")
    alone = pixels(page, "#map-1")
    choose(page, "MKI67", "#second")
    page.locator("#pair").select_option("blend")
    assert page.locator("#layers-0 input:checked").input_value() == "measured"
    blended = pixels(page, "#map-1")
    assert differ(alone, blended) > 0.01
    text = page.locator("#legend-1").inner_text()
    assert "ERBB2" in text and "MKI67" in text and "5 spots look like nothing" in text
    choose(page, "KRT5", "#second")
    assert differ(blended, pixels(page, "#map-1")) > 0.005
    with page.expect_download() as download:
        page.locator("#save-picture").click()
    assert download.value.suggested_filename == "P1S1_ERBB2_KRT5.png"


# Regions


def drag(page: Any, places: list[tuple[float, float]]) -> None:
    """Draw on the first map, in shares of its width and height."""
    box = page.locator("#map-0").bounding_box()
    points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in places]
    page.mouse.move(*points[0])
    page.mouse.down()
    for x, y in points[1:]:
        page.mouse.move(x, y, steps=6)
    page.mouse.up()


@pytest.mark.parametrize(
    ("tool", "places"),
    [
        ("rectangle", [(0.1, 0.02), (0.95, 0.98)]),
        ("lasso", [(0.1, 0.02), (0.95, 0.02), (0.95, 0.98), (0.1, 0.98), (0.1, 0.03)]),
    ],
)
def test_a_drawn_region_that_holds_all_spots_has_the_means_of_the_slide(report, slides, tmp_path, tool, places):
    page = report.page
    page.locator(f"#{tool}").click()
    assert page.locator(f"#{tool}").get_attribute("aria-pressed") == "true"
    drag(page, places)
    assert page.locator(f"#{tool}").get_attribute("aria-pressed") == "false"
    assert page.locator("#region-title").inner_text() == f"Region: {tool.capitalize()}"
    assert page.locator("#region-body").inner_text().startswith("60 spots; ")
    assert page.locator("#spot-title").inner_text() == "Chosen spot"  # the release of the mouse chose none
    rows = saved(page, "#save-region-genes", tmp_path / "genes.csv")
    assert len(rows) == slides[0].n_vars
    for row in rows[:9]:
        known = slides[0][5:, row["gene"]].layers["spahgc"]
        assert int(row["n_spots_predicted"]) == 55 and int(row["n_spots_measured"]) == 60
        assert float(row["mean_predicted"]) == pytest.approx(known.mean(), abs=0.02)
        assert float(row["sd_predicted"]) == pytest.approx(known.std(ddof=1), abs=0.02)
        assert row["mean_predicted_elsewhere"] == ""


def test_the_map_moves_again_once_a_region_is_drawn_and_the_region_can_be_let_go(report):
    page = report.page
    page.locator("#rectangle").click()
    drag(page, [(0.3, 0.3), (0.5, 0.6)])
    assert page.locator("#map-1 .region-outline").count() == 2  # dark on light
    before = pixels(page, "#map-1")
    drag(page, [(0.5, 0.5), (0.6, 0.6)])
    assert differ(before, pixels(page, "#map-1")) > 0.01
    page.locator("#clear-region").click()
    assert page.locator("#region").is_hidden()
    assert page.locator(".region-outline").count() == 0 and page.locator("#map-0 .annotation").count() == 4


def test_a_rectangle_is_drawn_without_a_mouse(report):
    page = report.page
    page.locator("#map-0").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("r")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("R")
    assert page.locator("#region-title").inner_text() == "Region: Rectangle"
    n = int(page.locator("#region-body").inner_text().split()[0])
    assert 2 <= n <= 9


# Annotations


def test_annotations_lie_where_they_were_drawn_and_choose_their_spots(report, slides, tmp_path):
    page = report.page
    xy = slides[0].obsm["spatial"]
    middle = np.median(xy[:, 0])
    page.locator("#annotation-names button", has_text="Tumour").click()
    rows = saved(page, "#save-region-spots", tmp_path / "spots.csv")
    expected = slides[0].obs_names[xy[:, 0] < middle + 1]
    assert [row["spot"] for row in rows] == list(expected)
    places = np.array([[float(row["x"]), float(row["y"])] for row in rows])
    np.testing.assert_allclose(places, xy[xy[:, 0] < middle + 1], atol=0.5)
    for row in rows:
        spot = slides[0][row["spot"]]
        is_known = spot.obs["spahgc_support"].iloc[0] >= 0.05
        assert row["looks_like_references"] == str(is_known).lower()
        value = row["predicted_ERBB2"]
        assert (value != "") == is_known
        if is_known:
            assert float(value) == pytest.approx(spot[:, "ERBB2"].layers["spahgc"].item(), abs=0.02)
    page.locator("#annotation-names button", has_text="Stroma").click()
    n_right = int((xy[:, 0] > middle + 1).sum())
    assert page.locator("#region-body").inner_text().startswith(f"{n_right - 1} spots")  # the hole holds one


def test_annotations_can_be_hidden(report):
    page = report.page
    shown = pixels(page, "#map-0")
    page.locator("#annotated").uncheck()
    assert differ(shown, pixels(page, "#map-0")) > 0.002
    page.locator("#annotated").check()
    assert differ(shown, pixels(page, "#map-0")) < 0.001


def test_annotations_of_another_place_are_refused(slides, tmp_path):
    import shapely

    with pytest.raises(ValueError, match="none of the 1 annotations comes near the spots, which lie from x="):
        sp.pl.report(slides[0], tmp_path / "a.html", annotations={"far": shapely.box(1e6, 1e6, 2e6, 2e6)})
    with pytest.raises(TypeError, match="regions holds a int"):
        sp.pl.report(slides[0], tmp_path / "a.html", annotations=3)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        sp.pl.report(slides[0], tmp_path / "a.html", annotations=tmp_path / "nowhere.geojson")


# Panels of markers


def test_a_panel_narrows_the_table_to_its_genes(report, slides):
    page = report.page
    assert page.locator("#sets option").all_inner_texts() == ["all genes", "proliferation (1 of 2)", "breast (4 of 4)"]
    page.locator("#sets").select_option(label="breast (4 of 4)")
    genes = [text.strip() for text in page.locator("#gene-rows th").all_inner_texts()]
    assert set(genes) == {*MARKERS, slides[0].var_names[9]}
    assert page.locator("#search").input_value() == genes[0]  # the most trusted of the panel
    page.locator("#sets").select_option(label="all genes")
    assert page.locator("#gene-rows tr").count() == slides[0].n_vars


def test_genes_of_a_panel_are_kept_before_others(slides, tmp_path, monkeypatch):
    monkeypatch.setattr("spahgc.pl._report._content.MAX_GENES", 3)
    least = slides[0].var["spahgc_cv_pcc"].idxmin()
    page = report_slides.Page(sp.pl.report(slides[0].copy(), tmp_path / "a.html", net={"last": [least]}))
    assert page.content["genes"][-1] == least and len(page.content["genes"]) == 3


def test_sets_without_a_gene_on_the_page_are_left_out_and_said(slides, tmp_path):
    with pytest.warns(UserWarning, match='1 of 2 gene sets have no gene on the page and are left out: "mouse"'):
        sp.pl.report(slides[0], tmp_path / "a.html", net={"mouse": ["Erbb2"], "man": ["ERBB2"]})
    with pytest.raises(ValueError, match="no gene set has a gene on the page.*Check species"):
        sp.pl.report(slides[0], tmp_path / "a.html", net={"mouse": ["Erbb2"]})


# Manners


def test_the_slide_stays_in_view_when_the_window_changes_its_size(report):
    page = report.page

    def seen() -> tuple[float, float]:
        """Left and right edge of the slide's picture within its map, as shares."""
        page.wait_for_timeout(200)
        outer, inner = (page.locator(one).bounding_box() for one in ("#map-0", "#map-0 .slide-picture"))
        return (inner["y"] - outer["y"]) / outer["height"], (inner["y"] + inner["height"] - outer["y"]) / outer[
            "height"
        ]

    top, bottom = seen()
    for size in ({"width": 700, "height": 500}, {"width": 1900, "height": 1100}, DESKTOP):
        page.set_viewport_size(size)
        one, other = seen()
        # The picture reaches beyond the spots; its middle, which is that of the slide, is in the middle.
        assert (one + other) / 2 == pytest.approx((top + bottom) / 2, abs=0.06)
        spots = page.locator("#map-0").bounding_box()
        assert spots["width"] > 100
    assert seen() == pytest.approx((top, bottom), abs=0.02)


def test_the_row_of_the_chosen_gene_is_in_sight(report, slides):
    page = report.page
    last = slides[0].var["spahgc_cv_pcc"].idxmin()

    def is_in_sight() -> bool:
        outer, inner = (page.locator(one).bounding_box() for one in ("#gene-list", "#gene-rows tr[aria-current]"))
        return outer["y"] <= inner["y"] and inner["y"] + inner["height"] <= outer["y"] + outer["height"] + 1

    choose(page, last)
    assert page.locator("#gene-list").evaluate("list => list.scrollHeight > list.clientHeight") and is_in_sight()
    page.locator("#head-gene button").click()
    assert is_in_sight()
    choose(page, slides[0].var["spahgc_cv_pcc"].idxmax())
    assert is_in_sight()


def test_unknown_spots_have_no_predicted_value_to_be_read(report, slides):
    page = report.page
    page.locator("#map-0").focus()
    page.keyboard.press("ArrowLeft")
    for _ in range(200):
        name = page.locator("#readout").inner_text().split(":")[0].removeprefix("Spot ")
        if slides[0].obs.loc[name, "spahgc_support"] < 0.05:
            break
        page.keyboard.press("ArrowUp" if _ % 12 < 11 else "ArrowLeft")
    else:
        pytest.fail("no spot of unknown tissue was met")
    text = page.locator("#readout").inner_text()
    assert "predicted \u2013" in text and "looks like nothing on the references, so its prediction is not shown" in text
    page.keyboard.press("Enter")
    assert "is no explanation" in (body := page.locator("#spot-body").inner_text()) or "no explanation of it" in body


# Paper


def test_on_paper_the_maps_are_a_drawing_that_fits_and_tables_are_whole(report):
    page = report.page
    page.set_viewport_size({"width": A4_PX, "height": 1000})
    page.evaluate("() => { window.dispatchEvent(new Event('beforeprint')); }")
    page.emulate_media(media="print")
    assert page.locator("#maps").is_hidden()
    canvas = page.locator("#sheet canvas").bounding_box()
    assert canvas["x"] >= 0 and canvas["x"] + canvas["width"] <= A4_PX and canvas["height"] > 150
    assert pixels(page, "#sheet canvas").std() > 20
    assert page.evaluate("() => document.documentElement.scrollWidth") <= A4_PX
    for name in ("gene-list", "spot-body"):
        assert page.locator(f"#{name}").evaluate("part => part.scrollHeight <= part.clientHeight + 1")
    for button in ("#save-picture", "#lasso", "#theme"):
        assert page.locator(button).is_hidden()
    page.emulate_media(media="screen")
    page.evaluate("() => { window.dispatchEvent(new Event('afterprint')); }")
    assert page.locator("#maps").is_visible() and page.locator("#sheet canvas").count() == 0
    page.set_viewport_size(DESKTOP)
    assert page.pdf(format="A4").count(b"/Type /Page\n") in (3, 4, 5)


# Several slides


def test_several_slides_are_switched_and_keep_the_gene(browser, slides, tmp_path):
    other = report_slides.finished_slides(n_spots=40, n_genes=60, seed=1)[0]
    other.var_names = slides[0].var_names
    other.obs["slide"] = "Other"
    path = sp.pl.report([slides[0].copy(), other], tmp_path / "two.html")
    with browser_helper.opened(browser, path, viewport=DESKTOP) as report:
        page = report.page
        assert page.locator("#slides option").all_inner_texts() == ["P1S1", "Other"]
        choose(page, "HER2")
        before = pixels(page, "#map-1")
        for name, n in (("Other", 40), ("P1S1", 60), ("Other", 40)):
            page.locator("#slides").select_option(label=name)
            page.locator("h1", has_text=f"of {name}").wait_for()
            page.locator("#map-1 .scale-bar").wait_for()
            assert page.locator("#subtitle").inner_text().startswith(f"{n} spots")
            assert page.locator("#search").input_value() == "ERBB2"
        assert differ(before, pixels(page, "#map-1")) > 0.01
        assert page.locator(".map:visible").count() == 2 and page.locator("#gene-rows tr").count() == 60
        page.locator("#map-0").focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        assert page.locator("#spot-title").inner_text().removeprefix("Spot ") in other.obs_names
        choose(page, "KRT5")
        assert page.locator("#gene-rows tr[aria-current]").inner_text().startswith("KRT5")
        report.assert_quiet()


def test_slides_of_one_name_and_lists_that_do_not_fit_are_refused(slides, tmp_path):
    with pytest.raises(ValueError, match='several slides are called "P1S1"'):
        sp.pl.report([slides[0], slides[0]], tmp_path / "a.html")
    with pytest.raises(
        ValueError, match="annotations must be a list with one entry for each of the 2 slides, found a dict"
    ):
        sp.pl.report([slides[0], slides[1]], tmp_path / "a.html", annotations={"a": None})
    with pytest.raises(ValueError, match="image must be a list with one entry for each of the 2 slides, found 1"):
        sp.pl.report([slides[0], slides[1]], tmp_path / "a.html", image=[None])
    with pytest.raises(ValueError, match="adata is an empty list"):
        sp.pl.report([], tmp_path / "a.html")


# Shapes


def test_squares_and_outlines_are_drawn_as_they_are(browser, slides, tmp_path):
    def looks(slide: AnnData, name: str) -> np.ndarray:
        with browser_helper.opened(browser, sp.pl.report(slide, tmp_path / name), viewport=DESKTOP) as report:
            seen = pixels(report.page, "#map-1")
            with report.page.expect_download():
                report.page.locator("#save-picture").click()
            report.assert_quiet()
        return seen

    def covered(seen: np.ndarray) -> float:
        return float((np.ptp(seen, axis=-1) > 60).mean())

    circles = slides[0].copy()
    circles.obs["spahgc_support"] = 0.5
    del circles.uns["spatial"]
    squares = circles.copy()
    squares.uns["spahgc"]["pooled"] = {"layout": "square"}
    halves = circles.copy()
    xy, width = circles.obsm["spatial"], 40.0
    rings = [place + width * np.array([[-1, -1], [1, -1], [1, 1]]) for place in xy]
    from spahgc._slides.polygons import Polygons

    halves.obsm["polygons"] = Polygons.of_rings(rings).as_matrix()
    round_, square_, triangle = (looks(one, f"{i}.html") for i, one in enumerate((circles, squares, halves)))
    assert covered(square_) / covered(round_) == pytest.approx(4 / np.pi, rel=0.12)
    assert differ(triangle, square_) > 0.01
    content = report_slides.Page(tmp_path / "2.html").content
    assert content["shape"] == {"kind": "outline"}


# Tiles


def test_tiles_show_the_image_at_full_resolution(browser, slides, tmp_path, monkeypatch):
    monkeypatch.setattr("spahgc.pl._report._picture.QUALITIES", ((300, 65),))
    path = sp.pl.report(slides[0].copy(), tmp_path / "folder", tiles=True)
    assert path == tmp_path / "folder" / "index.html"
    content = report_slides.Page(path).content
    with browser_helper.opened(browser, path, beside="tiles", viewport=DESKTOP) as report:
        page = report.page
        page.locator("#opacity").fill("0")
        page.locator("#map-0").focus()
        for _ in range(6):
            page.keyboard.press("+")
        page.wait_for_timeout(300)
        page.locator("#map-0 .leaflet-tile-loaded").first.wait_for()
        sharp = pixels(page, "#map-0")
        page.evaluate("() => document.querySelectorAll('.slide-tile').forEach((one) => one.remove())")
        blurred = pixels(page, "#map-0")
        report.assert_quiet()
    edges = [np.abs(np.diff(seen.mean(axis=-1), axis=1)).mean() for seen in (sharp, blurred)]
    assert edges[0] > 1.1 * edges[1]
    # The same place, only finer.
    assert np.abs(sharp.mean(axis=(0, 1)) - blurred.mean(axis=(0, 1))).max() < 12
    assert content["tiles"]["folder"] == "tiles/0"


def test_a_folder_replaces_an_earlier_report_and_nothing_else(slides, tmp_path):
    target = slides[0].copy()
    sp.pl.report(target, tmp_path / "folder", tiles=True)
    sp.pl.report(target, tmp_path / "folder", tiles=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(FileExistsError, match='holds something else than an earlier report \\("notes.txt"\\)'):
        sp.pl.report(target, tmp_path / "mine", tiles=True)
    with pytest.raises(ValueError, match="tiles=True writes a folder"):
        sp.pl.report(target, tmp_path / "a.html", tiles=True)
    del target.uns["spatial"]
    with pytest.raises(ValueError, match="tiles=True cuts the full-resolution image, and the slide has none"):
        sp.pl.report(target, tmp_path / "none", tiles=True)


# A slide of unknown tissue


def test_a_slide_that_looks_like_nothing_on_the_references_says_so_first(browser, slides, tmp_path):
    plain = slides[0].copy()
    plain.X = None
    plain.obs["spahgc_support"] = 0.01
    with browser_helper.opened(browser, sp.pl.report(plain, tmp_path / "a.html"), viewport=DESKTOP) as report:
        page = report.page
        assert (
            page.locator("#warning").inner_text().startswith("Most of this slide (60 of 60 spots) looks like nothing")
        )
        assert "not for this slide" in page.locator("#gene-trust").inner_text()
        coloured = pixels(page, "#map-0")
        page.locator("#panel-0 input[value=image]").check()
        assert differ(coloured, pixels(page, "#map-0")) < 0.05  # rings alone
        report.assert_quiet()
    report_of = report_slides.Page(sp.pl.report(slides[0].copy(), tmp_path / "b.html")).content
    assert report_of["warning"] is None
