"""Every figure looks as it did when somebody last looked at it: each is compared with a picture, pixel by pixel.

The pictures lie in `tests/baseline`. A figure that was changed on purpose gets a new one with

    SPAHGC_WRITE_BASELINE=1 pytest tests/test_figures.py

which skips all comparisons. Look at every picture that git calls changed before it is committed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from anndata import AnnData
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont
from matplotlib.testing.compare import compare_images
from tests.figure_slides import (
    GENES,
    KEY,
    change_scores,
    linked_slides,
    made_up_image,
    scores_by_method,
)

import spahgc as sp
from spahgc._keys import SPATIAL, UNS, Layers, Obs, Obsm, Uns, Var

BASELINE = Path(__file__).parent / "baseline"
WRITE = "SPAHGC_WRITE_BASELINE"
MATPLOTLIB = "3.11"
"""Release that drew the pictures; another one sets text differently."""
TOLERANCE = 1.0
"""Root mean square difference of the pixels, 0 to 255, up to which pictures are the same."""
DPI = 56
MAX_BYTES = 40_000
STYLE = {"font.family": "DejaVu Sans", "text.hinting": "none", "axes.formatter.use_locale": False}
"""The font that comes with matplotlib, without hints of the system."""
WITHOUT_PICTURE = {"report", "set_style"}
"""Functions of `pl` that make no figure."""


class Slides(NamedTuple):
    target: AnnData
    refs: list[AnnData]


class Case(NamedTuple):
    """A figure, and a change of its slides that must be seen in it."""

    draw: Callable[[Slides], Figure]
    change: Callable[[Slides], None]


def change_image(slides: Slides) -> None:
    """Another image under the spots."""
    slides.target.uns[SPATIAL]["P1S1"]["images"]["hires"] = made_up_image(1.1)


def change_prediction(slides: Slides) -> None:
    """Other values in the spots of one row."""
    values = slides.target.layers[KEY].copy()
    values[9:18] += 1.0
    slides.target.layers[KEY] = values


def change_spread(slides: Slides) -> None:
    slides.target.layers[Layers.spread(KEY)] = slides.target.layers[Layers.spread(KEY)] * 1.1


def change_losses(slides: Slides) -> None:
    losses = slides.target.uns[UNS][Uns.predictions][KEY][Uns.losses]
    losses["expression"] = [1.05 * loss for loss in losses["expression"]]


def change_edges(slides: Slides) -> None:
    """The same weights in another order."""
    for name in (Obsm.cross(KEY), Obsm.attention(KEY)):
        slides.target.obsm[name].data = slides.target.obsm[name].data[::-1].copy()


def move_a_spot(slides: Slides) -> None:
    slides.target.obsm[SPATIAL][40] += 6.0


def second_of(slides: Slides) -> AnnData:
    """A slide of the same spots that was not measured."""
    other = slides.target.copy()
    other.uns[SPATIAL] = {"P3": other.uns[SPATIAL]["P1S1"]}
    other.obs[Obs.slide] = "P3"
    other.X = None
    other.var = other.var[[Var.panel(KEY)]]
    return other


def of_target(change: Callable[[AnnData], None]) -> Callable[[Slides], None]:
    return lambda slides: change(slides.target)


def set_obs(column: str, values: np.ndarray) -> Callable[[Slides], None]:
    def change(slides: Slides) -> None:
        slides.target.obs[column] = values

    return change


SPOT = 30
CROP, STRIP = (20, 110, 20, 110), (10, 130, 20, 80)


def registered(slides: Slides) -> AnnData:
    """The target with two references laid over it by hand."""
    shifts = ([[1, 0, 3], [0, 1, 2], [0, 0, 1]], [[0.96, -0.28, 30], [0.28, 0.96, -15], [0, 0, 1]])
    names = [slide.obs[Obs.slide].iloc[0] for slide in slides.refs[:2]]
    sp.pp.register(slides.target, slides.refs[:2], transforms=dict(zip(names, shifts, strict=True)))
    record = slides.target.uns[UNS][Uns.registration]
    record["quality"], record["used"] = np.array([0.31, 0.09]), np.array([True, False])
    return slides.target


def looks(slide: AnnData) -> np.ndarray:
    """An embedding that says nothing."""
    return np.random.default_rng(slide.n_obs).normal(size=(slide.n_obs, 6)).astype(np.float32)


def with_looks(slides: Slides) -> tuple[AnnData, list[AnnData]]:
    for slide in (slides.target, *slides.refs):
        if "X_look" not in slide.obsm:
            slide.obsm["X_look"] = looks(slide)
    return slides.target, slides.refs


CASES = {
    "spatial_genes": Case(lambda s: sp.pl.spatial_genes(s.target, GENES[12], return_fig=True), change_prediction),
    "spatial_genes-spread": Case(
        lambda s: sp.pl.spatial_genes(s.target, GENES[12], spread=True, crop_coord=CROP, return_fig=True), change_image
    ),
    "spatial_genes-slides": Case(
        lambda s: sp.pl.spatial_genes([s.target, second_of(s)], GENES[21], crop_coord=STRIP, return_fig=True),
        change_prediction,
    ),
    "gene_scores": Case(
        lambda s: sp.pl.gene_scores(
            scores_by_method() | {"target": s.target.var.rename(columns={Var.score(KEY, "pearson"): "pearson"})},
            return_fig=True,
        ),
        of_target(change_scores),
    ),
    "gene_scores-rmse": Case(
        lambda s: sp.pl.gene_scores(s.target, metric="rmse", n_label=2, return_fig=True), of_target(change_scores)
    ),
    "score_vs_abundance": Case(lambda s: sp.pl.score_vs_abundance(s.target, return_fig=True), of_target(change_scores)),
    "trust": Case(lambda s: sp.pl.trust(s.target, return_fig=True), of_target(change_scores)),
    "trust-share": Case(lambda s: sp.pl.trust(s.target, calibration="share", return_fig=True), change_spread),
    "history": Case(lambda s: sp.pl.history(s.target, return_fig=True), change_losses),
    "support": Case(
        lambda s: sp.pl.support(s.target, threshold=0.3, return_fig=True),
        set_obs(Obs.support(KEY), np.linspace(1.0, 0.0, 72)),
    ),
    "domains": Case(
        lambda s: sp.pl.domains(s.target, label="label", return_fig=True),
        set_obs("label", np.repeat(["fat", "tumour"], 36)),
    ),
    "graph": Case(
        lambda s: sp.pl.graph(s.target, s.refs, kind=["TS", "CS"], spot=SPOT, n=3, return_fig=True), change_edges
    ),
    "graph-TS": Case(lambda s: sp.pl.graph(s.target, kind="TS", return_fig=True), move_a_spot),
    "registration": Case(
        lambda s: sp.pl.registration(registered(s), s.refs[:2], return_fig=True),
        lambda s: s.refs[0].obsm.update({SPATIAL: s.refs[0].obsm[SPATIAL] * 0.9}),
    ),
    "drift": Case(
        lambda s: sp.pl.drift(sp.pp.compare(*with_looks(s), embedding="X_look"), return_fig=True),
        lambda s: s.target.obsm.update({"X_look": looks(s.target) + 2}),
    ),
    "attribution": Case(lambda s: sp.pl.attribution(s.target, SPOT, s.refs, n=4, return_fig=True), change_edges),
}


@pytest.fixture(scope="module", autouse=True)
def _right_matplotlib() -> None:
    if not matplotlib.__version__.startswith(f"{MATPLOTLIB}."):
        pytest.fail(
            f"the pictures in {BASELINE.name} were drawn by matplotlib {MATPLOTLIB}, found {matplotlib.__version__}. "
            f"Install matplotlib=={MATPLOTLIB}.*, or draw them anew with {WRITE}=1 and change MATPLOTLIB in this file."
        )
    font = Path(findfont("DejaVu Sans", fallback_to_default=False))
    if Path(matplotlib.get_data_path()) not in font.parents:
        pytest.fail(
            f"text is set in {font}, not in the font that comes with matplotlib. Run `fc-cache -f` or remove it."
        )


@pytest.fixture(scope="module")
def _slides() -> Slides:
    return Slides(*linked_slides())


@pytest.fixture
def slides(_slides: Slides) -> Slides:
    return Slides(_slides.target.copy(), [slide.copy() for slide in _slides.refs])


def picture(case: Case, slides: Slides, path: Path) -> Path:
    with matplotlib.style.context(["default", STYLE]):
        figure = case.draw(slides)
        figure.savefig(path, dpi=DPI, metadata={"Software": None})
    plt.close("all")
    return path


@pytest.mark.parametrize("name", CASES)
def test_figure_looks_as_it_did(slides, tmp_path, name):
    expected = BASELINE / f"{name}.png"
    if os.environ.get(WRITE) == "1":
        BASELINE.mkdir(exist_ok=True)
        picture(CASES[name], slides, expected)
        pytest.skip(f"{expected.name} was written anew: look at it")
    assert expected.is_file(), f"{expected} is missing: draw it with {WRITE}=1"
    drawn = picture(CASES[name], slides, tmp_path / f"{name}.png")
    difference = compare_images(expected, drawn, TOLERANCE)
    assert difference is None, difference


@pytest.mark.parametrize("name", CASES)
def test_change_of_what_is_drawn_is_seen(slides, tmp_path, name):
    CASES[name].change(slides)
    drawn = picture(CASES[name], slides, tmp_path / f"{name}.png")
    expected = BASELINE / f"{name}.png"
    other_size = plt.imread(drawn).shape != plt.imread(expected).shape
    assert other_size or compare_images(expected, drawn, TOLERANCE) is not None


def test_style_of_the_caller_does_not_reach_the_comparison(slides, tmp_path):
    with matplotlib.rc_context({"lines.linewidth": 5, "font.family": "monospace", "figure.dpi": 31}):
        drawn = picture(CASES["history"], slides, tmp_path / "history.png")
    assert compare_images(BASELINE / "history.png", drawn, TOLERANCE) is None


def test_every_figure_function_has_a_picture_and_every_picture_a_figure():
    drawn = {name.partition("-")[0] for name in CASES}
    assert drawn == set(sp.pl.__all__) - WITHOUT_PICTURE
    assert {path.stem for path in BASELINE.glob("*.png")} == set(CASES)


def test_pictures_are_small():
    sizes = {path.name: path.stat().st_size for path in BASELINE.glob("*.png")}
    assert {name: size for name, size in sizes.items() if size > MAX_BYTES} == {}
