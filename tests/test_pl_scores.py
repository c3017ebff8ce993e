"""Figures of numbers: what is drawn is what was computed, what is not defined is counted, and nothing is written."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import anndata as ad
import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.text import Text
from scipy.sparse import csr_matrix
from tests.conftest import EMBEDDING

import spahgc as sp
from spahgc._keys import SCORES, Layers, Uns, Var
from spahgc.pl._gene_scores import _description
from spahgc.pl._labels import label_points, spread_labels
from spahgc.pl._scores import find_metric
from spahgc.pl._trust import ValuesWithSpread, coverage_by_level, error_by_spread, share_by_expected
from spahgc.tl._cross_validation.cross_validate import CrossValidation

LINEAR = sp.Parameters(n_axes=8, line=True, epochs=0)
N_PANEL = 40


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def original(_cohort: list[AnnData]) -> AnnData:
    """A slide predicted by the line, which says how far it can be trusted, and by the mean, which has no correlation."""
    target, *refs = [slide.copy() for slide in _cohort]
    genes = list(target.var_names[:N_PANEL])
    sp.tl.predict(target, refs, preset=LINEAR, genes=genes)
    for method in ("ridge", "mean"):
        sp.tl.predict(target, refs, method=method, genes=genes, key_added=method)
    for key in ("spahgc", "ridge", "mean"):
        sp.tl.evaluate(target, key=key)
    return target


@pytest.fixture
def slide(original: AnnData) -> AnnData:
    return original.copy()


@pytest.fixture(scope="module")
def result(_cohort: list[AnnData]) -> CrossValidation:
    return sp.tl.cross_validate(_cohort, methods=["ridge", "nearest"], embedding=EMBEDDING, n_bootstrap=10)


@pytest.fixture(scope="module")
def fitted(_cohort: list[AnnData], quick: sp.Parameters) -> sp.SpaHGC:
    return sp.tl.fit(_cohort[1:], preset=quick)


def table(values: dict[str, float]) -> pd.DataFrame:
    return pd.DataFrame({"pearson": values}).rename_axis("gene")


def points(ax, group: int = 0) -> np.ndarray:
    """Centres of the points of one scatter of the axes, in the order in which they were drawn."""
    from matplotlib.collections import PathCollection

    return np.asarray([part for part in ax.collections if isinstance(part, PathCollection)][group].get_offsets())


def written(ax) -> list[str]:
    return [text.get_text().strip() for text in ax.texts]


def below(ax) -> list[str]:
    """What stands below the violins."""
    return [label.get_text() for label in ax.get_xticklabels()]


def uns_of(slide: AnnData) -> dict:
    return slide.uns["spahgc"]["predictions"]["spahgc"]


# Scores of genes.


def test_every_gene_with_a_score_is_a_point_at_its_score(slide):
    ax = sp.pl.gene_scores(slide, show=False)
    scores = slide.var["spahgc_pearson"].dropna()
    np.testing.assert_allclose(np.sort(points(ax)[:, 1]), np.sort(scores))


def test_best_and_worst_genes_are_named(slide):
    ax = sp.pl.gene_scores(slide, n_label=2, show=False)
    ordered = slide.var["spahgc_pearson"].dropna().sort_values().index
    assert set(written(ax)) == {*ordered[:2], *ordered[-2:]}
    assert written(sp.pl.gene_scores(slide, n_label=0, show=False)) == []


def test_median_stands_below_the_violin_and_is_drawn(slide):
    ax = sp.pl.gene_scores(slide, show=False)
    median = slide.var["spahgc_pearson"].median()
    assert f"median {median:.2f}" in below(ax)[0]
    heights = [part.get_segments()[0][0, 1] for part in ax.collections if hasattr(part, "get_segments")]
    assert heights == [pytest.approx(median)]


def test_gene_without_a_correlation_is_counted_and_not_drawn():
    ax = sp.pl.gene_scores(table({"A": 0.1, "B": np.nan, "C": 0.3, "D": 0.5}), show=False)
    assert below(ax) == ["prediction\nmedian 0.30\n3 genes\n1 undefined"]
    assert len(points(ax)) == 3


def test_method_without_any_correlation_keeps_its_place(slide):
    ax = sp.pl.gene_scores(slide, key=["mean", "ridge"], show=False)
    assert below(ax)[0] == f"mean\n0 genes\n{N_PANEL} undefined"
    assert below(ax)[1].startswith("ridge\nmedian")


def test_score_of_a_gene_over_several_slides_is_the_mean_of_those_that_are_defined(result):
    ax = sp.pl.gene_scores(result, methods=["nearest"], show=False)
    own = result.scores[result.scores["method"] == "nearest"]
    expected = own.groupby("gene")["pearson"].mean().dropna()
    np.testing.assert_allclose(np.sort(points(ax)[:, 1]), np.sort(expected))
    assert ax.get_ylabel() == "PCC with the measurement\nmean over 4 slides"


@pytest.mark.parametrize("shape", ["result", "table", "by name"])
def test_scores_come_as_a_result_a_table_or_tables_by_name(result, shape):
    scores = {
        "result": result,
        "table": result.scores,
        "by name": dict(iter(result.scores.groupby("method", sort=False))),
    }[shape]
    ax = sp.pl.gene_scores(scores, show=False)
    assert [label.split("\n")[0] for label in below(ax)] == ["ridge", "nearest"]


def test_methods_are_drawn_in_the_order_asked_for(result):
    ax = sp.pl.gene_scores(result, methods=["nearest", "ridge"], metric="rmse", show=False)
    assert [label.split("\n")[0] for label in below(ax)] == ["nearest", "ridge"]
    assert ax.get_ylabel().startswith("RMSE (log1p counts per 10,000)")


def test_line_at_zero_belongs_to_correlations_alone():
    scores = pd.DataFrame({"pearson": [-0.1, 0.2, 0.3], "rmse": [0.1, 0.2, 0.3]}, index=list("ABC"))
    at_zero = {
        metric: any(
            np.allclose(line.get_ydata(), 0)
            for line in sp.pl.gene_scores(scores, metric=metric, n_label=0, show=False).lines
        )
        for metric in ("pearson", "rmse")
    }
    assert at_zero == {"pearson": True, "rmse": False}


@pytest.mark.parametrize("values", [{"A": 0.4}, {"A": 0.4, "B": 0.5}, {"A": 0.4, "B": 0.4, "C": 0.4, "D": 0.4}])
def test_few_or_equal_scores_are_drawn_without_a_violin(values):
    ax = sp.pl.gene_scores(table(values), show=False)
    assert len(points(ax)) == len(values)


def test_names_of_a_method_do_not_overlap():
    close = {f"GENE{i:02d}": 0.3 + 1e-4 * i for i in range(40)}
    ax = sp.pl.gene_scores(table(close), n_label=6, show=False)
    ax.figure.draw_without_rendering()
    extents = [text.get_window_extent() for text in ax.texts]
    assert len(extents) == 12
    assert not any(a.y0 < b.y1 - 1 and b.y0 < a.y1 - 1 for a, b in combinations(extents, 2))


def test_scores_that_are_not_there_are_refused(slide, result):
    with pytest.raises(
        KeyError, match=r'var\["spahgc_pearson"\] not found.*Run spahgc.tl.evaluate\(adata, key="spahgc"\)'
    ):
        slide.var = slide.var.drop(columns="spahgc_pearson")
        sp.pl.gene_scores(slide)
    with pytest.raises(KeyError, match=r'layer "other" not found in the slide, layers are: .*"mean"'):
        sp.pl.gene_scores(slide, key="other")
    with pytest.raises(KeyError, match=r'column "mae" not found in the scores of "ridge", columns are: .*"rmse"'):
        sp.pl.gene_scores(result, metric="mae")
    with pytest.raises(ValueError, match=r'methods "mlp" not found, there are: "ridge", "nearest"'):
        sp.pl.gene_scores(result, methods=["mlp"])
    with pytest.raises(ValueError, match=r'metric="r2" is not known. Choose one of pearson'):
        sp.pl.gene_scores(result, metric="r2")
    with pytest.raises(ValueError, match="there is no gene to draw"):
        sp.pl.gene_scores({})
    with pytest.raises(TypeError, match=r'scores holds "a", which are no tables'):
        sp.pl.gene_scores({"a": [0.1, 0.2]})
    with pytest.raises(TypeError, match=r'Pass \["ridge"\]'):
        sp.pl.gene_scores(result, methods="ridge")
    with pytest.raises(ValueError, match="n_label is -1"):
        sp.pl.gene_scores(result, n_label=-1)


# Scores against abundance.


def log_means(slide: AnnData) -> np.ndarray:
    counts = slide.X.toarray().astype(float)
    seen = counts.sum(axis=1) > 0
    return np.log1p(1e4 * counts[seen] / counts[seen].sum(axis=1, keepdims=True)).mean(axis=0)


def test_every_gene_is_drawn_at_its_abundance_and_score(slide):
    ax = sp.pl.score_vs_abundance(slide, show=False)
    expected = np.column_stack([log_means(slide), slide.var["spahgc_pearson"]])[:N_PANEL]
    expected = expected[np.isfinite(expected[:, 1])]
    np.testing.assert_allclose(points(ax), expected, rtol=1e-5)


def test_spots_without_counts_do_not_change_the_abundance(slide):
    before = points(sp.pl.score_vs_abundance(slide, show=False))
    empty = slide[:5].copy()
    empty.X = empty.X * 0
    empty.obs_names = [f"empty{i}" for i in range(5)]
    more = ad.concat([slide, empty], merge="first", uns_merge="first")
    np.testing.assert_allclose(points(sp.pl.score_vs_abundance(more, show=False)), before, rtol=1e-6)


def test_genes_that_are_undefined_or_never_seen_are_counted(slide):
    counts = slide.X.toarray()
    counts[:, 0] = 0  # no counts of the first gene
    slide.X = counts
    sp.tl.evaluate(slide)
    n = int(slide.var["spahgc_pearson"].notna().sum())
    title = sp.pl.score_vs_abundance(slide, show=False).get_title()
    assert title.startswith(f"{n} genes, {N_PANEL - n} undefined\nline: median")
    title = sp.pl.score_vs_abundance(slide, metric="rmse", show=False).get_title()
    assert title.startswith(f"{N_PANEL - 1} genes, 1 never seen\n")


def test_best_and_worst_genes_are_named_against_abundance(slide):
    ax = sp.pl.score_vs_abundance(slide, n_label=1, show=False)
    ordered = slide.var["spahgc_pearson"].dropna().sort_values().index
    assert set(written(ax)) == {ordered[0], ordered[-1]}


def test_prediction_without_any_score_is_refused(slide):
    with pytest.raises(ValueError, match=r'none of the 40 genes of the prediction "mean" has a score "pearson"'):
        sp.pl.score_vs_abundance(slide, key="mean")


def test_slide_that_was_not_measured_cannot_be_drawn_against_abundance(slide):
    slide.X = None
    for draw in (sp.pl.score_vs_abundance, sp.pl.trust):
        with pytest.raises(ValueError, match="the slide has no X"):
            draw(slide)
    slide.X = np.zeros(slide.shape)
    for draw in (sp.pl.score_vs_abundance, sp.pl.trust):
        with pytest.raises(ValueError, match="the slide holds no counts: nothing was measured on it"):
            draw(slide)


def test_scores_and_losses_are_drawn_without_the_layer_of_the_prediction(trained):
    expected = points(sp.pl.gene_scores(trained, show=False)), points(sp.pl.score_vs_abundance(trained, show=False))
    del trained.layers["spahgc"]
    found = points(sp.pl.gene_scores(trained, show=False)), points(sp.pl.score_vs_abundance(trained, show=False))
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])
    assert sp.pl.history(trained, show=False).lines


# Trust.


def test_expected_stands_against_achieved_with_its_interval(slide):
    ax, _ = sp.pl.trust(slide, show=False)
    columns = slide.var[[Var.cv_pcc("spahgc"), Var.score("spahgc", "pearson")]].dropna().to_numpy()
    np.testing.assert_allclose(points(ax), columns)
    bars = np.array([bar for part in ax.collections if hasattr(part, "get_segments") for bar in part.get_segments()])
    low, high = slide.var[Var.cv_pcc_low("spahgc")], slide.var[Var.cv_pcc_high("spahgc")]
    both = slide.var[[Var.cv_pcc("spahgc"), Var.score("spahgc", "pearson")]].notna().all(axis=1)
    np.testing.assert_allclose(bars[:, :, 0], np.column_stack([low[both], high[both]]))


def test_genes_furthest_from_the_diagonal_are_named(slide):
    ax, _ = sp.pl.trust(slide, n_label=1, show=False)
    surplus = (slide.var[Var.score("spahgc", "pearson")] - slide.var[Var.cv_pcc("spahgc")]).dropna().sort_values()
    assert set(written(ax)) == {surplus.index[0], surplus.index[-1]}


def test_both_axes_of_a_panel_have_one_range(slide):
    for ax in sp.pl.trust(slide, show=False):
        assert ax.get_xlim() == ax.get_ylim()


def made_up(factor: float, n_spots: int = 300, n_genes: int = 40) -> ValuesWithSpread:
    """Normal errors that are `factor` times as large as the spread says."""
    rng = np.random.default_rng(0)
    spread = rng.uniform(0.5, 2.0, size=(n_spots, n_genes))
    measured = rng.normal(size=spread.shape) * spread * factor
    return ValuesWithSpread(csr_matrix(measured), np.zeros_like(spread), spread, np.arange(n_spots), np.arange(n_genes))


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_error_by_spread_is_as_large_as_it_was_made(factor):
    spread, error = error_by_spread(made_up(factor)).T
    np.testing.assert_allclose(error / spread, factor, rtol=0.1)
    assert len(spread) == 12 and (np.diff(spread) > 0).all()


def test_share_within_so_many_spreads_is_that_of_normal_errors_where_they_are_normal():
    expected, found = share_by_expected(made_up(1.0)).T
    np.testing.assert_allclose(found, expected, atol=0.02)
    assert (share_by_expected(made_up(2.0))[:, 1] < expected - 0.02).all()


def test_groups_of_equal_spread_become_one():
    values = replace(made_up(1.0), spread=np.full((300, 40), 0.7))
    assert error_by_spread(values).shape == (1, 2)


def test_second_panel_shows_the_errors_of_the_prediction_itself(slide):
    layer = np.log1p(1e4 * slide.X.toarray() / slide.X.toarray().sum(axis=1, keepdims=True))[:, :N_PANEL]
    error = layer - slide.layers["spahgc"][:, :N_PANEL]
    spread = slide.layers[Layers.spread("spahgc")][:, :N_PANEL]
    _, ax = sp.pl.trust(slide, calibration="error", show=False)
    x, y = ax.lines[0].get_data()
    # Groups are of equal number, so that the mean of their squares is that of all.
    assert np.mean(np.square(x)) == pytest.approx(np.mean(np.square(spread)), rel=0.01)
    assert np.mean(np.square(y)) == pytest.approx(np.mean(np.square(error)), rel=0.01)


def test_second_panel_shows_shares_on_request(slide):
    _, ax = sp.pl.trust(slide, calibration="share", show=False)
    assert ax.get_ylabel() == "share of measured values"
    assert (np.diff(ax.lines[0].get_ydata()) >= 0).all()


def test_second_panel_shows_how_many_values_lie_in_their_intervals(slide):
    _, ax = sp.pl.trust(slide, show=False)
    assert ax.get_ylabel() == "share of measured values inside"
    level, share = ax.lines[0].get_data()
    assert (np.diff(share) >= 0).all() and share[-1] > 0.9
    assert len(level) == 19 and len(ax.collections) == 1


def test_coverage_is_the_level_where_intervals_are_right_and_has_an_interval_over_spots():
    from scipy.special import ndtri

    levels = np.array([0.5, 0.9])
    widths = np.repeat(ndtri((1 + levels) / 2)[:, None], 40, axis=1)
    level, share, low, high = coverage_by_level(made_up(1.0), levels, widths).T
    np.testing.assert_allclose(share, level, atol=0.02)
    assert (low < share).all() and (share < high).all() and (high - low < 0.05).all()
    assert (coverage_by_level(made_up(2.0), levels, widths)[:, 3] < levels).all()


def test_the_title_says_for_whom_was_promised_and_how_many_trusted_genes_kept_it(slide):
    ax, _ = sp.pl.trust(slide, show=False)
    _, whom, hits = ax.get_title().split("\n")
    assert whom == slide.uns["spahgc"]["predictions"]["spahgc"]["trust"]["for"]
    assert "trusted gene" in hits or hits == "no gene is trusted"


def test_the_prediction_of_an_earlier_version_shows_errors_and_no_coverage(slide):
    del slide.uns["spahgc"]["predictions"]["spahgc"]["trust"]
    genes, values = sp.pl.trust(slide, show=False)
    assert values.get_ylabel() == "root mean square error" and "\n" not in genes.get_title()
    with pytest.raises(KeyError, match='calibration="coverage" needs intervals'):
        sp.pl.trust(slide, calibration="coverage")


def test_prediction_that_says_nothing_of_trust_is_refused(slide):
    with pytest.raises(KeyError, match=r'var\["ridge_cv_pcc"\].*the prediction "ridge" says nothing of trust'):
        sp.pl.trust(slide, key="ridge")
    with pytest.raises(ValueError, match='calibration="z" is not known. Choose one of error, share, coverage'):
        sp.pl.trust(slide, calibration="z")
    slide.var = slide.var.drop(columns="spahgc_pearson")
    with pytest.raises(KeyError, match=r"Run spahgc.tl.evaluate\(adata, key=\"spahgc\"\) first"):
        sp.pl.trust(slide)


# History.


def drawn(ax) -> dict[str, np.ndarray]:
    """Drawn losses by the label of their line, epochs and values."""
    return {line.get_label(): np.array(line.get_data()) for line in ax.lines}


def test_history_draws_every_term_of_every_epoch(fitted):
    lines = drawn(sp.pl.history(fitted, show=False))
    assert list(lines) == ["total", "expression", "alignment, target", "alignment, references"]
    np.testing.assert_array_equal(lines["total"][0], [record.epoch for record in fitted.history])
    np.testing.assert_allclose(lines["total"][1], [record.total for record in fitted.history])
    np.testing.assert_allclose(lines["expression"][1], [record.terms["expression"] for record in fitted.history])
    np.testing.assert_allclose(
        lines["alignment, target"][1], [record.terms["align_target"] for record in fitted.history]
    )


def test_history_of_a_prediction_is_that_of_its_model_and_survives_files(fitted, target, tmp_path):
    sp.tl.predict(target, model=fitted)
    target.write_h5ad(tmp_path / "target.h5ad")
    target.write_zarr(tmp_path / "target.zarr")
    fitted.save(tmp_path / "model")
    expected = drawn(sp.pl.history(fitted, show=False))
    for again in (
        target,
        ad.read_h5ad(tmp_path / "target.h5ad"),
        ad.read_zarr(tmp_path / "target.zarr"),
        sp.SpaHGC.load(tmp_path / "model"),
    ):
        lines = drawn(sp.pl.history(again, show=False))
        assert list(lines) == list(expected)
        for name, line in lines.items():
            np.testing.assert_array_equal(line, expected[name])


def test_term_without_a_weight_is_not_drawn(fitted, target):
    sp.tl.predict(target, model=fitted)
    losses = uns_of(target)[Uns.losses]
    losses["align_target"] = losses["align_reference"] = [0.0] * len(losses["epoch"])
    ax = sp.pl.history(target, show=False)
    assert list(drawn(ax)) == ["expression"] and ax.get_legend() is None
    assert ax.get_ylabel() == "expression loss"


def test_network_that_stopped_before_the_others_ends_where_it_stopped(fitted, target, quick):
    sp.tl.predict(target, model=fitted)
    losses = uns_of(target)[Uns.losses]
    for name, values in losses.items():  # a second network of two epochs
        losses[name] = [*values, *values[:2]]
    ax = sp.pl.history(target, show=False)
    own = [line.get_xdata() for line in ax.lines][:2]
    assert [list(epochs) for epochs in own] == [[1, 2, 3, 4], [1, 2]]
    assert ax.get_legend().get_title().get_text() == "2 networks, 1 stopped before epoch 4 (×)"
    np.testing.assert_allclose(
        points(ax, 0), [[2, losses["expression"][1] + losses["align_target"][1] + losses["align_reference"][1]]]
    )


def test_losses_can_stand_on_a_logarithmic_axis(fitted):
    assert sp.pl.history(fitted, log=True, show=False).get_yscale() == "log"
    assert sp.pl.history(fitted, show=False).get_yscale() == "linear"


def test_history_draws_a_term_that_it_has_no_name_for(fitted, monkeypatch):
    records = [replace(record, terms={**record.terms, "sharpness": 0.5}) for record in fitted.history]
    monkeypatch.setattr(fitted, "history", records)
    lines = drawn(sp.pl.history(fitted, show=False))
    np.testing.assert_allclose(lines["sharpness"][1], 0.5)
    np.testing.assert_allclose(lines["total"][1], [record.total for record in records])


def test_prediction_without_a_training_has_no_history(slide):
    with pytest.raises(ValueError, match=r'the prediction "spahgc" has no network \(epochs=0\)'):
        sp.pl.history(slide)
    with pytest.raises(KeyError, match='losses not found in the record of the prediction "ridge"'):
        sp.pl.history(slide, key="ridge")
    with pytest.raises(KeyError, match='layer "other" not found'):
        sp.pl.history(slide, key="other")


# What all of them share.

DRAW = {
    "gene_scores": lambda slide, **settings: sp.pl.gene_scores(slide, **settings),
    "score_vs_abundance": lambda slide, **settings: sp.pl.score_vs_abundance(slide, **settings),
    "trust": lambda slide, **settings: sp.pl.trust(slide, **settings),
    "history": lambda slide, **settings: sp.pl.history(slide, **settings),
}


@pytest.fixture
def trained(slide: AnnData, fitted: sp.SpaHGC) -> AnnData:
    """The slide of the line, with the record of a model that has been trained."""
    uns_of(slide)[Uns.losses] = fitted.record()[Uns.losses]
    uns_of(slide)["epochs_trained"] = len(fitted.history)
    return slide


@pytest.mark.parametrize("name", DRAW)
def test_figure_is_returned_or_saved_as_asked(trained, tmp_path, name):
    figure = DRAW[name](trained, return_fig=True)
    assert isinstance(figure, matplotlib.figure.Figure)
    path = tmp_path / f"{name}.png"
    DRAW[name](trained, save=path, show=False)
    assert path.stat().st_size > 5_000
    with pytest.raises(FileNotFoundError, match="the folder .* does not exist"):
        DRAW[name](trained, save=tmp_path / "none" / "a.png")


@pytest.mark.parametrize("name", DRAW)
def test_given_axes_are_drawn_on_and_their_figure_stays_open(trained, name):
    n_panels = 2 if name == "trust" else 1
    figure, axes = plt.subplots(1, n_panels, squeeze=False)
    back = DRAW[name](trained, ax=axes[0] if n_panels > 1 else axes[0, 0])
    assert np.ravel(back).tolist() == axes[0].tolist()
    assert plt.fignum_exists(figure.number)
    with pytest.raises(ValueError, match=f"ax must hold {n_panels} axes"):
        DRAW[name](trained, ax=plt.subplots(1, 3)[1])
    with pytest.raises(TypeError, match="ax must be matplotlib Axes"):
        DRAW[name](trained, ax="here")


@pytest.mark.parametrize("name", DRAW)
def test_drawing_writes_nothing_into_the_slide(trained, name):
    before = trained.copy()
    DRAW[name](trained, show=False)
    pd.testing.assert_frame_equal(trained.var, before.var)
    pd.testing.assert_frame_equal(trained.obs, before.obs)
    assert set(trained.layers) == set(before.layers) and set(trained.obsm) == set(before.obsm)
    assert str(trained.uns["spahgc"]) == str(before.uns["spahgc"])


@pytest.mark.parametrize("name", DRAW)
def test_rc_of_the_caller_is_left_as_it_was(trained, name):
    before = dict(plt.rcParams)
    DRAW[name](trained, show=False)
    assert dict(plt.rcParams) == before


def test_figures_take_the_table_of_a_spatialdata(trained):
    spatialdata = pytest.importorskip("spatialdata")
    sdata = spatialdata.SpatialData(tables={"spots": trained, "other": trained.copy()})
    for draw in DRAW.values():
        axes = draw(sdata, table_key="spots", show=False)
        expected = draw(trained, show=False)
        assert np.ravel(axes)[0].get_title() == np.ravel(expected)[0].get_title()
        with pytest.raises(ValueError, match="table_key="):
            draw(sdata, show=False)


# Names beside points.


def test_names_are_moved_apart_as_little_as_possible():
    np.testing.assert_allclose(spread_labels(np.array([0.0, 0.1, 5.0]), 1.0, -10, 10), [-0.45, 0.55, 5.0])
    np.testing.assert_allclose(spread_labels(np.array([9.8, 9.9, 10.0]), 1.0, 0, 10), [8.0, 9.0, 10.0])
    np.testing.assert_allclose(spread_labels(np.array([0.0, 1.0, 2.0]), 0.5, -10, 10), [0.0, 1.0, 2.0])


def test_names_in_a_scatter_cover_neither_each_other_nor_leave_the_axes():
    rng = np.random.default_rng(0)
    crowd = rng.normal(0.5, 0.02, size=(12, 2))
    _, ax = plt.subplots(figsize=(3, 3))
    ax.set(xlim=(0, 1), ylim=(0, 1))
    ax.figure.draw_without_rendering()
    label_points(ax, crowd, [f"GENE{i}" for i in range(12)], crowd)
    ax.figure.draw_without_rendering()
    extents = [Text.get_window_extent(text) for text in ax.texts]  # without the lines to the points
    frame = ax.get_window_extent()
    assert not any(a.overlaps(b) for a, b in combinations(extents, 2))
    assert all(frame.x0 <= e.x0 and e.x1 <= frame.x1 and frame.y0 <= e.y0 and e.y1 <= frame.y1 for e in extents)


@pytest.mark.parametrize(
    ("name", "lines"),
    [("ridge_components", ["ridge_", "components"]), ("a_b", ["a_b"]), ("with spaces too", ["with spaces", "too"])],
)
def test_long_names_of_methods_are_broken_where_their_words_end(name, lines):
    assert _description(name, pd.Series([0.5])).splitlines()[:-2] == lines


@pytest.mark.parametrize("score", SCORES)
def test_every_score_of_an_evaluation_can_be_drawn_and_names_its_units(score):
    metric = find_metric(score, units="counts")
    assert metric.higher_is_better == ("counts" not in metric.label)
