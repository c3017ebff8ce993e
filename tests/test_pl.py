"""Measured beside predicted on the tissue: true size, one colour scale, the gene's PCC."""

from __future__ import annotations

import subprocess
import sys
import warnings

import anndata as ad
import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import scanpy as sc
from PIL import Image
from scipy.sparse import csr_matrix, issparse
from scipy.stats import pearsonr

import spahgc as sp
from spahgc.pl._style import RC, rc_context, shared_limits, titles
from spahgc.pl._tissue import round_length, tissue_of

GENES = ["MORPH001", "FLAT001"]
NOISE = 0.3
TOLERANCE = 1e-6


@pytest.fixture(scope="module")
def original() -> ad.AnnData:
    slide = sp.datasets.simulated(n_slides=1, n_patients=1, n_spots=60, n_genes=20, seed=0)[0]
    noise = np.random.default_rng(0).normal(0, NOISE, slide.shape)
    slide.layers["spahgc"] = (slide.layers["truth"] + noise).astype(np.float32)
    slide.var["spahgc_panel"] = True
    return slide


@pytest.fixture
def slide(original: ad.AnnData):
    yield original.copy()
    plt.close("all")


@pytest.fixture
def scanpy_settings():
    # pytest's own way of patching cannot undo properties of a class.
    names = ("autoshow", "figdir", "file_format_figs")
    before = {name: getattr(sc.settings, name) for name in names}
    yield sc.settings
    for name, value in before.items():
        setattr(sc.settings, name, value)


def library(slide: ad.AnnData) -> dict:
    return next(iter(slide.uns["spatial"].values()))


def draw(slide: ad.AnnData, genes=GENES, **settings) -> list:
    return sp.pl.spatial_genes(slide, genes, show=False, **settings)


def spots(ax):
    (collection,) = ax.collections
    return collection


def drawn_diameter(ax) -> float:
    """Diameter of the first circle as it is rendered, in data units."""
    ax.figure.canvas.draw()
    pixels_per_unit = np.hypot(*(ax.transData.transform((1, 0)) - ax.transData.transform((0, 0))))
    # The two transforms take a circle of radius 1 to pixels.
    to_pixels = spots(ax).get_transform().get_matrix() @ spots(ax).get_transforms()[0]
    return 2 * to_pixels[0, 0] / pixels_per_unit


def log_cp10k(slide: ad.AnnData) -> np.ndarray:
    counts = slide.X.toarray() if issparse(slide.X) else slide.X
    return np.log1p(1e4 * counts / counts.sum(1, keepdims=True))


def test_one_row_a_gene_measured_beside_predicted(slide):
    axes = draw(slide)
    assert len(axes) == 4
    assert [ax.get_title().split(" (")[0].split("\n")[0] for ax in axes] == [
        "MORPH001, measured",
        "MORPH001, predicted",
        "FLAT001, measured",
        "FLAT001, predicted",
    ]
    columns = slide.var_names.get_indexer(GENES)
    for row, column in enumerate(columns):
        np.testing.assert_allclose(spots(axes[2 * row]).get_array(), log_cp10k(slide)[:, column], rtol=1e-5)
        np.testing.assert_allclose(spots(axes[2 * row + 1]).get_array(), slide.layers["spahgc"][:, column])


def test_measured_and_predicted_share_the_colour_scale(slide):
    axes = draw(slide)
    for measured, predicted in zip(axes[::2], axes[1::2], strict=True):
        assert spots(measured).get_clim() == spots(predicted).get_clim()
        both = np.concatenate([spots(ax).get_array().filled() for ax in (measured, predicted)])
        np.testing.assert_allclose(spots(measured).get_clim(), np.percentile(both, [1, 99]), rtol=1e-5)
    assert spots(axes[0]).get_clim() != spots(axes[2]).get_clim()


def test_every_row_has_one_colour_bar_with_the_units(slide):
    axes = draw(slide)
    bars = [ax for ax in axes[0].figure.axes if ax not in axes]
    assert [bar.get_ylabel() for bar in bars] == ["log1p counts per 10,000"] * 2
    slide.uns["spahgc"] = {"predictions": {"spahgc": {"units": "z-scores"}}}
    axes = draw(slide, GENES[0])
    assert [ax.get_ylabel() for ax in axes[0].figure.axes if ax not in axes] == ["z-scores"]


def test_the_callers_limits_win(slide):
    for ax in draw(slide, vmin=1, vmax=4, cmap="magma"):
        assert spots(ax).get_clim() == (1, 4)
        assert spots(ax).get_cmap().name == "magma"
    low, high = spots(draw(slide, GENES[0], vmin=0)[0]).get_clim()
    assert low == 0 and high > 0


def test_a_rare_gene_still_spans_its_range():
    rare = np.zeros(1000)
    rare[3] = 2.0
    assert shared_limits([rare, rare], None, None) == (0.0, 2.0, "neither")
    assert shared_limits([np.full(5, 3.0)], None, None) == (3.0, 4.0, "neither")
    assert shared_limits([np.arange(5.0)], 1, 3) == (1.0, 3.0, "both")


@pytest.mark.parametrize("resolution", ["hires", "lowres", "none"])
def test_spots_have_their_true_diameter_in_data_units(slide, resolution):
    factors = library(slide)["scalefactors"]
    if resolution == "lowres":
        del library(slide)["images"]["hires"]
    if resolution == "none":
        library(slide)["images"] = {}
    scale = 1.0 if resolution == "none" else factors[f"tissue_{resolution}_scalef"]
    ax = draw(slide, GENES[0])[0]
    assert drawn_diameter(ax) == pytest.approx(factors["spot_diameter_fullres"] * scale, rel=TOLERANCE)
    np.testing.assert_allclose(spots(ax).get_offsets(), slide.obsm["spatial"] * scale)
    ax.set_xlim(0, 100)
    assert drawn_diameter(ax) == pytest.approx(factors["spot_diameter_fullres"] * scale, rel=TOLERANCE)
    plain = drawn_diameter(draw(slide, GENES[0])[0])
    assert drawn_diameter(draw(slide, GENES[0], size=1.5)[0]) == pytest.approx(1.5 * plain, rel=TOLERANCE)


def test_unknown_diameter_follows_the_distance_of_neighbours(slide):
    del library(slide)["scalefactors"]["spot_diameter_fullres"]
    # The simulated grid is Visium's: 100 um at 0.8 um a pixel.
    assert tissue_of(slide, None, 1.0).diameter == pytest.approx(0.55 * 125, rel=1e-3)
    with pytest.raises(ValueError, match="spot_diameter_fullres"):
        draw(slide[:1], GENES[0])


@pytest.mark.parametrize("resolution", ["hires", "lowres"])
def test_image_and_spots_lie_on_each_other(slide, resolution):
    images = library(slide)["images"]
    if resolution == "lowres":
        del images["hires"]
    scale = library(slide)["scalefactors"][f"tissue_{resolution}_scalef"]
    picture = images[resolution]
    # A coloured full-resolution square, whose place in the figure is then looked up.
    x0, y0, side = 400, 480, 80
    picture[:] = 255
    picture[round(y0 * scale) : round((y0 + side) * scale), round(x0 * scale) : round((x0 + side) * scale)] = (
        255,
        0,
        0,
    )
    (shown,) = draw(slide, GENES[0])[0].images
    left, right, bottom, top = shown.get_extent()
    pixels = np.asarray(shown.get_array())
    rows, columns = np.nonzero(pixels[..., 1] == 0)
    assert rows.size
    x = left + (columns.mean() + 0.5) / pixels.shape[1] * (right - left)
    y = top + (rows.mean() + 0.5) / pixels.shape[0] * (bottom - top)
    # Coordinates name pixel centres, so the middle of pixels 400 to 479 is 439.5.
    np.testing.assert_allclose((x / scale, y / scale), (x0 + side / 2 - 0.5, y0 + side / 2 - 0.5), atol=0.01)


def test_large_images_are_thinned_but_keep_their_place(slide, monkeypatch):
    whole = draw(slide, GENES[0])[0].images[0]
    monkeypatch.setattr("spahgc.pl._tissue.MAX_IMAGE_PX", 300)
    thinned = draw(slide, GENES[0])[0].images[0]
    assert max(thinned.get_array().shape) <= 300
    assert thinned.get_array().dtype == np.uint8
    step = np.ceil(max(whole.get_array().shape) / 300)
    np.testing.assert_allclose(thinned.get_extent(), whole.get_extent(), atol=step)
    assert thinned.get_array().mean() == pytest.approx(whole.get_array().mean(), abs=1)


def test_y_runs_downwards_and_the_view_is_cut_to_the_spots(slide):
    ax = draw(slide, GENES[0])[0]
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    xy = slide.obsm["spatial"]
    assert bottom > top
    assert left < xy[:, 0].min() < xy[:, 0].max() < right
    assert top < xy[:, 1].min() < xy[:, 1].max() < bottom
    assert right - left < 1.3 * np.ptp(xy[:, 0])
    assert ax.get_aspect() == 1


def test_without_an_image_the_spots_stand_alone(slide):
    del slide.uns["spatial"]
    ax = draw(slide, GENES[0])[0]
    assert not ax.images and not ax.artists
    assert ax.get_ylim()[0] > ax.get_ylim()[1]


def test_scale_bar_is_drawn_once_where_the_scale_is_known(slide):
    axes = draw(slide)
    assert [len(ax.artists) for ax in axes] == [0, 0, 1, 0]
    del library(slide)["scalefactors"]["microns_per_pixel"]
    assert not any(ax.artists for ax in draw(slide))
    slide.uns["spahgc"] = {"slide_mpp": 0.8}
    assert [len(ax.artists) for ax in draw(slide)] == [0, 0, 1, 0]


@pytest.mark.parametrize(("longest", "length"), [(1, 1), (9.9, 5), (480, 200), (500, 500), (2400, 2000)])
def test_scale_bar_has_a_round_length(longest, length):
    assert round_length(longest) == length


@pytest.mark.parametrize("x", ["none", "zeros", "no values", "nan"])
def test_predicted_alone_where_nothing_was_measured(slide, x):
    if x == "none":
        slide.X = None
    elif x == "zeros":
        slide.X = np.zeros(slide.shape, dtype=np.float32)
    elif x == "no values":
        slide.X = csr_matrix(slide.shape, dtype=np.float32)
    else:
        slide.X = np.full(slide.shape, np.nan, dtype=np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        axes = draw(slide)
    assert [ax.get_title() for ax in axes] == ["MORPH001, predicted", "FLAT001, predicted"]


def test_some_nan_in_x_are_reported(slide):
    slide.X = slide.X.toarray()
    slide.X[0, 0] = np.nan
    with pytest.warns(UserWarning, match="1 NaN among 1200 values"):
        assert len(draw(slide)) == 2


def test_counts_may_lie_in_a_layer(slide):
    expected = [ax.get_title() for ax in draw(slide)]
    slide.layers["counts"] = slide.X.copy()
    slide.X = None
    assert [ax.get_title() for ax in draw(slide, layer="counts")] == expected


def test_pcc_in_the_title_is_scipys(slide):
    column = slide.var_names.get_loc("MORPH001")
    expected = pearsonr(log_cp10k(slide)[:, column], slide.layers["spahgc"][:, column]).statistic
    assert f"PCC {expected:.2f}" in draw(slide, "MORPH001")[1].get_title()


def test_spots_without_a_count_stay_blank_and_out_of_the_pcc(slide):
    counts = slide.X.toarray()
    counts[:5] = 0
    slide.X = counts
    measured, predicted = draw(slide, "MORPH001")
    np.testing.assert_array_equal(np.ma.getmaskarray(spots(measured).get_array()), np.arange(60) < 5)
    assert not np.ma.getmaskarray(spots(predicted).get_array()).any()
    column = slide.var_names.get_loc("MORPH001")
    expected = pearsonr(log_cp10k(slide[5:])[:, column], slide.layers["spahgc"][5:, column]).statistic
    assert f"PCC {expected:.2f}" in predicted.get_title()


def test_pcc_of_evaluate_is_taken_where_it_has_run(slide):
    slide.var["spahgc_pearson"] = np.linspace(-0.5, 0.5, slide.n_vars)
    assert "PCC -0.50" in draw(slide, slide.var_names[0])[1].get_title()


def test_a_constant_gene_has_no_pcc(slide):
    slide.layers["spahgc"][:, 0] = 1.0
    assert "(PCC not defined: constant)" in draw(slide, slide.var_names[0])[1].get_title()


def test_titles_break_alike_in_all_rows():
    pair = ("measured", "predicted")
    rows = titles(["A", "ENSG00000141736"], [0.1, 0.2], kinds=pair)
    assert rows == [
        ["A, measured", "A, predicted\n(PCC 0.10)"],
        ["ENSG00000141736, measured", "ENSG00000141736, predicted\n(PCC 0.20)"],
    ]
    assert titles(["A"], [0.1], kinds=pair) == [["A, measured", "A, predicted (PCC 0.10)"]]
    assert titles(["A"], [-0.001], kinds=["predicted"]) == [["A, predicted (PCC 0.00)"]]
    assert titles(["A"], [None], kinds=[*pair, "spread"]) == [["A, measured", "A, predicted", "A, spread"]]


def test_titles_above_narrow_panels_break_after_the_gene_and_shorten_long_names():
    (row,) = titles(["ENSG00000141736"], [0.1], kinds=["measured", "predicted"], width=1.0)
    assert row == ["ENSG0…41736,\nmeasured", "ENSG0…41736,\npredicted\n(PCC 0.10)"]


def test_nothing_overlaps_in_the_figure(slide):
    axes = draw(slide, [*GENES, "HIDDEN001"])
    figure = axes[0].figure
    figure.canvas.draw()
    boxes = [ax.get_tightbbox() for ax in figure.axes]
    for index, box in enumerate(boxes):
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1
        assert not any(box.overlaps(other) for other in boxes[index + 1 :])


def test_given_axes_are_drawn_on(slide):
    figure, grid = plt.subplots(2, 2)
    assert sp.pl.spatial_genes(slide, GENES, ax=grid) == list(grid.ravel())
    assert sp.pl.spatial_genes(slide, GENES[0], ax=list(plt.subplots(1, 2)[1]), show=True) is not None
    slide.X = None
    ax = plt.subplots()[1]
    assert sp.pl.spatial_genes(slide, GENES[0], ax=ax) == [ax]
    part = plt.figure().subfigures(1, 2)[0].subplots()
    assert sp.pl.spatial_genes(slide, GENES[0], ax=part, return_fig=True) is plt.gcf()


def test_given_axes_are_never_shown(slide, monkeypatch):
    monkeypatch.setattr(plt, "show", lambda: pytest.fail("shown"))
    assert len(sp.pl.spatial_genes(slide, GENES, ax=plt.subplots(2, 2)[1], show=True)) == 4


def test_wrong_axes_are_refused(slide):
    with pytest.raises(ValueError, match=r"4 axes \(2 genes, measured and predicted\), found 1.*subplots\(2, 2\)"):
        draw(slide, ax=plt.subplots()[1])
    with pytest.raises(TypeError, match='matplotlib Axes.*"str"'):
        draw(slide, GENES[0], ax=["left", "right"])
    with pytest.raises(ValueError, match="several figures"):
        draw(slide, GENES[0], ax=[plt.subplots()[1], plt.subplots()[1]])
    slide.X = None
    with pytest.raises(ValueError, match="2 axes.*predicted alone.*found 4"):
        draw(slide, ax=plt.subplots(2, 2)[1])


def test_shown_figures_return_nothing_and_others_their_axes(slide, monkeypatch, scanpy_settings):
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(True))
    assert sp.pl.spatial_genes(slide, GENES, show=True) is None
    assert shown == [True]
    # The backend of the tests has no screen.
    assert len(sp.pl.spatial_genes(slide, GENES)) == 4
    assert shown == [True]
    monkeypatch.setattr(matplotlib, "get_backend", lambda: "module://matplotlib_inline.backend_inline")
    assert sp.pl.spatial_genes(slide, GENES) is None
    scanpy_settings.autoshow = False
    assert len(sp.pl.spatial_genes(slide, GENES)) == 4
    assert shown == [True, True]


def test_return_fig_returns_the_figure(slide):
    figure = sp.pl.spatial_genes(slide, GENES, return_fig=True)
    assert isinstance(figure, plt.Figure)
    assert len(figure.axes) == 6


def test_saves_a_file_and_closes_the_figure(slide, tmp_path):
    before = plt.get_fignums()
    axes = draw(slide, GENES[0], save=tmp_path / "genes.png")
    with Image.open(tmp_path / "genes.png") as picture:
        picture.load()
        assert min(picture.size) > 300
    assert len(axes) == 2
    assert plt.get_fignums() == before
    draw(slide, GENES[0], save=str(tmp_path / "genes.pdf"))
    assert (tmp_path / "genes.pdf").read_bytes().startswith(b"%PDF")


def test_save_true_writes_into_scanpys_folder(slide, tmp_path, scanpy_settings):
    scanpy_settings.figdir = tmp_path
    scanpy_settings.file_format_figs = "png"
    draw(slide, GENES[0], save=True)
    assert [path.suffix for path in tmp_path.iterdir()] == [".png"]


def test_an_impossible_file_fails_before_drawing(slide, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileNotFoundError, match="absent.*does not exist"):
        draw(slide, save=tmp_path / "absent" / "genes.png")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        draw(slide, save=tmp_path / "file" / "genes.png")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        draw(slide, save=tmp_path)
    with pytest.raises(ValueError, match='cannot be written as "docx"'):
        draw(slide, save=tmp_path / "genes.docx")
    assert not plt.get_fignums()


def test_a_missing_prediction_is_named(slide):
    with pytest.raises(KeyError, match=r'layer \\?"ridge\\?" not found.*"truth", "spahgc".*spahgc.tl.predict'):
        draw(slide, key="ridge")
    with pytest.raises(KeyError, match="layer.*raw.*not found"):
        draw(slide, layer="raw")


def test_genes_that_cannot_be_drawn_are_named(slide):
    with pytest.raises(KeyError, match='1 of 2 genes not found.*"ERBB2"'):
        draw(slide, ["MORPH001", "ERBB2"])
    with pytest.raises(ValueError, match="genes is empty"):
        draw(slide, [])
    slide.var["spahgc_panel"] = slide.var_names != "FLAT001"
    slide.layers["spahgc"][:, slide.var_names == "FLAT001"] = np.nan
    with pytest.raises(ValueError, match='"FLAT001": not in the panel.*19 genes: "MORPH001"'):
        draw(slide)
    del slide.var["spahgc_panel"]
    with pytest.raises(ValueError, match='"FLAT001": not in the panel.*19 genes: "MORPH001"'):
        draw(slide)
    assert len(draw(slide, "MORPH001")) == 2


def test_missing_coordinates_are_named(slide):
    del slide.obsm["spatial"]
    with pytest.raises(KeyError, match="spatial.*not found"):
        draw(slide)


def test_libraries_are_told_apart(slide):
    name = next(iter(slide.uns["spatial"]))
    slide.uns["spatial"]["other"] = {}
    assert draw(slide)[0].images
    assert not draw(slide, library_id="other")[0].images
    with pytest.raises(KeyError, match="third.*not found"):
        draw(slide, library_id="third")
    del slide.obs["slide"]
    with pytest.raises(ValueError, match=f'"{name}", "other".*library_id='):
        draw(slide)
    slide.obs["slide"] = ["A", "B"] * (slide.n_obs // 2)
    with pytest.raises(ValueError, match="several slides"):
        draw(slide)


def test_an_image_without_its_scale_is_refused(slide):
    del library(slide)["scalefactors"]["tissue_hires_scalef"]
    with pytest.raises(KeyError, match="tissue_hires_scalef"):
        draw(slide)


@pytest.mark.parametrize("settings", [{"vmin": 2, "vmax": 1}, {"size": 0}, {"img_alpha": 2}])
def test_impossible_settings_are_refused(slide, settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        draw(slide, **settings)


def test_nothing_is_written_into_the_object(slide):
    before = slide.copy()
    draw(slide)
    assert (slide.X != before.X).nnz == 0
    np.testing.assert_array_equal(slide.layers["spahgc"], before.layers["spahgc"])
    np.testing.assert_array_equal(slide.obsm["spatial"], before.obsm["spatial"])
    for part in ("obs", "var"):
        assert getattr(slide, part).equals(getattr(before, part))
    for part in ("uns", "obsm", "layers"):
        assert set(getattr(slide, part)) == set(getattr(before, part))


def test_settings_of_matplotlib_stay(slide, tmp_path):
    before = dict(matplotlib.rcParams)
    draw(slide, save=tmp_path / "genes.png")
    assert dict(matplotlib.rcParams) == before


def test_a_view_draws_its_own_spots(slide):
    view = slide[::2]
    ax = draw(view, "MORPH001")[0]
    assert view.is_view
    np.testing.assert_allclose(spots(ax).get_offsets(), slide.obsm["spatial"][::2])


def test_a_backed_slide_is_drawn(slide, tmp_path):
    expected = spots(draw(slide, GENES[0])[0]).get_array()
    slide.write_h5ad(tmp_path / "slide.h5ad")
    backed = ad.read_h5ad(tmp_path / "slide.h5ad", backed="r")
    np.testing.assert_allclose(spots(draw(backed, GENES[0])[0]).get_array(), expected)


def test_importing_the_figures_loads_no_pyplot():
    code = "import sys, spahgc.pl; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("fails", [False, True])
def test_a_backend_that_is_loaded_by_a_figure_stays_interactive(monkeypatch, fails):
    monkeypatch.setitem(matplotlib.rcParams, "interactive", False)
    try:
        with rc_context(RC):
            matplotlib.interactive(True)  # what the backend of a notebook does when the first figure loads it
            if fails:
                raise RuntimeError
    except RuntimeError:
        pass
    assert matplotlib.is_interactive()
    assert matplotlib.rcParams["font.size"] == matplotlib.rcParamsDefault["font.size"]
