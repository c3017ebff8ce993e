"""What a caller may choose of figures: colour scales, size, resolution, style; names and numbers that stay apart."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")

import numpy as np
import pytest
from anndata import AnnData
from matplotlib import pyplot as plt
from PIL import Image

import spahgc as sp
from spahgc.pl._labels import _cross, _runs_through, label_points
from spahgc.pl._scores import plain_numbers


@pytest.fixture(scope="module")
def simulated() -> list[AnnData]:
    slides = sp.datasets.simulated(2, n_patients=2, n_spots=60, n_genes=20, seed=4)
    for slide in slides:
        # A prediction that varies less than what was measured, as most do.
        slide.layers["spahgc"] = (2.3 + 0.1 * slide.layers["truth"]).astype(np.float32)
        slide.layers["spahgc_std"] = np.full(slide.shape, 0.2, dtype=np.float32)
    return slides


def limits(ax: Any) -> tuple[float, float]:
    return next(spots.get_clim() for spots in ax.collections if spots.get_array() is not None)


def test_maps_share_a_scale_or_have_their_own(simulated: list[AnnData]) -> None:
    measured, predicted = sp.pl.spatial_genes(simulated[0], "MORPH001", show=False)
    assert limits(measured) == limits(predicted)
    measured, predicted = sp.pl.spatial_genes(simulated[0], "MORPH001", scale="own", show=False)
    values = simulated[0][:, "MORPH001"].layers["spahgc"]
    assert limits(predicted) == pytest.approx(tuple(np.percentile(values.astype(float), (1, 99))))
    assert limits(measured)[1] - limits(measured)[0] > 2 * (limits(predicted)[1] - limits(predicted)[0])


def test_with_own_scales_every_map_has_a_colour_bar_also_of_several_slides(simulated: list[AnnData]) -> None:
    figure = sp.pl.spatial_genes(
        simulated, ["MORPH001", "FLAT001"], scale="own", spread=True, show=False, return_fig=True
    )
    maps = [ax for ax in figure.axes if ax.get_title()]
    assert len(maps) == 12 and len(figure.axes) == 24
    assert limits(maps[1]) != limits(maps[4])  # the same gene, predicted, on two slides
    shared = sp.pl.spatial_genes(simulated, ["MORPH001", "FLAT001"], spread=True, show=False, return_fig=True)
    assert len(shared.axes) == 12 + 4


def test_limits_of_the_caller_hold_in_own_scales(simulated: list[AnnData]) -> None:
    axes = sp.pl.spatial_genes(simulated[0], "MORPH001", scale="own", vmin=0.0, vmax=3.0, show=False)
    assert [limits(ax) for ax in axes] == [(0.0, 3.0), (0.0, 3.0)]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"scale": "each"}, 'scale="each" is not known; pass "shared" or "own"'),
        ({"figsize": 7}, "figsize=7; pass width and height in inches"),
        ({"figsize": (7, 0)}, "both above 0"),
        ({"dpi": -1}, "dpi is -1; pass a positive number of dots per inch"),
    ],
)
def test_a_choice_that_is_none_is_refused(simulated: list[AnnData], given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sp.pl.spatial_genes(simulated[0], "MORPH001", show=False, **given)


def test_size_and_resolution_are_those_of_the_file(simulated: list[AnnData], tmp_path: Path) -> None:
    sp.pl.spatial_genes(simulated[0], "MORPH001", figsize=(6, 3), dpi=50, show=False, save=tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").size == (300, 150)
    sp.pl.spatial_genes(simulated[0], "MORPH001", figsize=(6, 3), show=False, save=tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").size == (1800, 900)
    figure = sp.pl.spatial_genes(simulated[0], "MORPH001", dpi=50, show=False, return_fig=True)
    assert figure.dpi == 50


def test_twelve_genes_are_drawn_in_three_columns(simulated: list[AnnData]) -> None:
    genes = list(simulated[0].var_names[:12])
    figure = sp.pl.spatial_genes(simulated[0], genes, ncols=3, show=False, return_fig=True)
    maps = [ax for ax in figure.axes if ax.get_title()]
    assert len(maps) == 24
    figure.canvas.draw()
    assert min(ax.get_position(original=True).width * figure.get_size_inches()[0] for ax in maps) > 0.7
    wide = sp.pl.spatial_genes(simulated[0], genes[:5], ncols=5, figsize=(14, 3), show=False, return_fig=True)
    assert wide.get_size_inches().tolist() == [14, 3]


def test_twelve_genes_that_need_more_than_a_page_get_panels_in_which_spots_are_seen(simulated: list[AnnData]) -> None:
    genes = list(simulated[0].var_names[:12])
    figure = sp.pl.spatial_genes(simulated[0], genes, ncols=3, show=False, return_fig=True)
    figure.canvas.draw()
    maps = [ax for ax in figure.axes if ax.get_title()]
    assert min(ax.get_position(original=True).width * figure.get_size_inches()[0] for ax in maps) > 1.0
    assert figure.get_size_inches()[0] <= 10.0
    two = sp.pl.spatial_genes(simulated[0], genes[:2], ncols=2, show=False, return_fig=True)
    assert two.get_size_inches()[0] == 6.9, "what fits a page stays as wide as a page"


@pytest.mark.parametrize("gene", ["ENSMUSG00000019874.11", "MORPH001", "A very long name of a feature"])
def test_titles_do_not_leave_the_figure(simulated: list[AnnData], gene: str) -> None:
    slide = simulated[0].copy()
    slide.var_names = [gene, *slide.var_names[1:]]
    figure = sp.pl.spatial_genes(slide, gene, show=False, return_fig=True)
    figure.canvas.draw()
    width = figure.bbox.width
    boxes = [ax.title.get_window_extent() for ax in figure.axes if ax.get_title()]
    assert all(box.x0 >= 0 and box.x1 <= width for box in boxes)
    assert not [1 for one, other in combinations(boxes, 2) if one.overlaps(other)]


@pytest.mark.parametrize(("low", "high"), [(0.0008, 9.0), (0.02, 0.3), (0.5, 80.0), (1e-5, 100.0)])
def test_numbers_of_a_logarithmic_axis_stand_beside_each_other(low: float, high: float) -> None:
    figure, ax = plt.subplots(figsize=(3.35, 2.6))
    ax.set_xscale("log")
    plain_numbers(ax.xaxis)
    ax.set_xlim(low, high)
    figure.canvas.draw()
    boxes = [label.get_window_extent() for label in ax.get_xticklabels() if label.get_text()]
    shown = [box for box, tick in zip(boxes, ax.get_xticks(), strict=True) if low <= tick <= high]
    assert len(shown) >= 2
    assert not [1 for one, other in combinations(shown, 2) if one.overlaps(other)]
    plt.close(figure)


def test_lines_to_names_neither_cross_nor_run_through_names() -> None:
    rng = np.random.default_rng(3)
    points = rng.uniform(0.2, 0.8, size=(12, 2))
    figure, ax = plt.subplots(figsize=(5, 4))
    ax.set(xlim=(0, 1), ylim=(0, 1))
    figure.canvas.draw()
    label_points(ax, points, [f"GENE{i}" for i in range(12)], points)
    figure.canvas.draw()
    from matplotlib.text import Text

    at = ax.transData.transform(points)
    boxes = [Text.get_window_extent(text) for text in ax.texts]
    middles = [np.array([(box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2]) for box in boxes]
    lines = list(zip(at, middles, strict=True))
    assert not [1 for one, other in combinations(lines, 2) if _cross(*one, *other)]
    assert not [
        (i, j)
        for i, line in enumerate(lines)
        for j, box in enumerate(boxes)
        if i != j and _runs_through(*line, (box.x0, box.y0, box.x1, box.y1))
    ]
    plt.close(figure)


def test_a_line_within_a_box_and_one_beside_it_are_told_apart() -> None:
    box = (1.0, 1.0, 2.0, 2.0)
    assert _runs_through(np.array([0.0, 0.0]), np.array([3.0, 3.0]), box)
    assert _runs_through(np.array([1.5, 0.0]), np.array([1.5, 3.0]), box)
    assert not _runs_through(np.array([0.0, 0.0]), np.array([3.0, 0.5]), box)
    assert not _runs_through(np.array([0.0, 0.0]), np.array([0.9, 0.9]), box)
    assert not _runs_through(np.array([2.5, 0.0]), np.array([2.5, 3.0]), box)


def test_the_tissue_has_a_margin(simulated: list[AnnData]) -> None:
    (ax, *_) = sp.pl.spatial_genes(simulated[0], "MORPH001", show=False)
    (library,) = simulated[0].uns["spatial"].values()
    scale = library["scalefactors"]["tissue_hires_scalef"]
    xy, radius = simulated[0].obsm["spatial"] * scale, library["scalefactors"]["spot_diameter_fullres"] * scale / 2
    left, right = ax.get_xlim()
    bottom, top = ax.get_ylim()
    room = 0.03 * np.ptp(xy, axis=0).max()
    assert left < xy[:, 0].min() - radius - room and right > xy[:, 0].max() + radius + room
    assert top < xy[:, 1].min() - radius - room and bottom > xy[:, 1].max() + radius + room


def test_the_style_is_taken_on_request_alone(simulated: list[AnnData]) -> None:
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.use("agg")
        before = dict(matplotlib.rcParams)
        sp.pl.spatial_genes(simulated[0], "MORPH001", show=False)
        assert matplotlib.rcParams["axes.titlesize"] == before["axes.titlesize"]
        sp.pl.set_style()
        assert matplotlib.rcParams["axes.titlesize"] == 8.5 and matplotlib.rcParams["pdf.fonttype"] == 42


def test_edges_that_are_short_are_thin_and_leave_the_tissue_to_be_seen():
    from matplotlib import pyplot as plt

    from spahgc.pl._graph_figure import EDGE_PT, _share_of_width

    _, ax = plt.subplots(figsize=(3, 3))
    ax.set_xlim(0, 1000)
    near, far = (np.array([[[0.0, 0.0], [length, 0.0]]]) for length in (2.0, 100.0))
    assert _share_of_width(ax, far) == 1.0 and _share_of_width(ax, near[:0]) == 1.0
    assert 0 < _share_of_width(ax, near) < 0.2
    assert EDGE_PT * _share_of_width(ax, near) < EDGE_PT * _share_of_width(ax, 2 * near)
    plt.close("all")
