"""Structure beside correlation: each score against another computation, and against maps whose score is known."""

from __future__ import annotations

import json
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import squidpy as sq
from anndata import AnnData
from scipy.sparse import csr_matrix
from scipy.stats import pearsonr
from skimage.metrics import structural_similarity as skimage_ssim

import spahgc as sp
from spahgc import cli
from spahgc.pl._scores import find_metric
from spahgc.tl._cross_validation.checkpoint import FOLD_SCORES, Checkpoint
from spahgc.tl._cross_validation.scoring import pooled_pearson
from spahgc.tl._gene_sets import gene_sets
from spahgc.tl._structure import gene_correlation
from spahgc.tl._structure.gene_correlation import gene_correlation_agreement
from spahgc.tl._structure.moran import moran_difference, morans_i
from spahgc.tl._structure.neighbours import neighbour_graph
from spahgc.tl._structure.pathways import pathway_agreement
from spahgc.tl._structure.scores import structure_scores
from spahgc.tl._structure.ssim import structural_similarity
from spahgc.tl._structure.variance import variance_ratio

N_ROWS, N_COLUMNS, N_GENES = 12, 15, 9
METHODS = ("ridge", "nearest")


def square(n_rows: int = N_ROWS, n_columns: int = N_COLUMNS, pitch: float = 100.0) -> np.ndarray:
    """Positions of a square array, row after row."""
    y, x = np.divmod(np.arange(n_rows * n_columns), n_columns)
    return np.column_stack([x, y]) * pitch


def hexagonal(n_rows: int = N_ROWS, n_columns: int = N_COLUMNS, pitch: float = 100.0) -> np.ndarray:
    y, x = np.divmod(np.arange(n_rows * n_columns), n_columns)
    return np.column_stack([x + (y % 2) / 2, y * np.sqrt(3) / 2]) * pitch


def scattered(n: int = 150) -> np.ndarray:
    return np.random.default_rng(4).random((n, 2)) * 1000


def maps(xy: np.ndarray, n_genes: int = N_GENES, seed: int = 0) -> np.ndarray:
    """A smooth map with some noise for each gene, all positive, of levels of their own; spots x genes."""
    rng = np.random.default_rng(seed)
    x = xy / xy.max()
    waves = np.stack([np.sin(x @ rng.normal(scale=5, size=2) + rng.random()) for _ in range(n_genes)], axis=1)
    return waves + 2 + rng.random(n_genes) + rng.normal(scale=0.3, size=waves.shape)


def smoothed(values: np.ndarray, near: csr_matrix) -> np.ndarray:
    return (values + near @ values) / (1 + np.asarray(near.sum(axis=1)))


def shuffled(values: np.ndarray, seed: int = 1) -> np.ndarray:
    return values[np.random.default_rng(seed).permutation(len(values))]


@pytest.fixture
def near() -> csr_matrix:
    return neighbour_graph(square())


@pytest.fixture
def measured() -> np.ndarray:
    return maps(square())


# Neighbours.


def joined_by_squidpy(xy: np.ndarray, **how) -> np.ndarray:
    other = AnnData(np.zeros((len(xy), 1)), obsm={"spatial": xy})
    sq.gr.spatial_neighbors(other, **how)
    return other.obsp["spatial_connectivities"].toarray() > 0


def test_neighbours_on_a_hexagonal_array_are_those_of_squidpys_grid():
    expected = joined_by_squidpy(hexagonal(), coord_type="grid", n_neighs=6)
    np.testing.assert_array_equal(neighbour_graph(hexagonal()).toarray() > 0, expected)


def test_neighbours_on_a_square_array_are_the_four_around_a_spot():
    xy = square()
    expected = np.linalg.norm(xy[:, None] - xy[None], axis=2)
    np.testing.assert_array_equal(neighbour_graph(xy).toarray() > 0, (expected > 0) & (expected < 101))


@pytest.mark.parametrize("array", [square, hexagonal])
def test_an_array_is_recognised_whose_spots_are_a_little_off(array):
    xy = array()
    moved = xy + np.random.default_rng(0).uniform(-3, 3, size=xy.shape)
    np.testing.assert_array_equal(neighbour_graph(moved).toarray(), neighbour_graph(xy).toarray())


@pytest.mark.data
@pytest.mark.parametrize("section", ["B4", "C2", "C3", "C4"])
def test_a_printed_array_is_recognised_on_real_slides(her2st, section):
    table = pd.read_csv(her2st / f"{section}_selection.tsv", sep="\t")
    graph = neighbour_graph(table[["pixel_x", "pixel_y"]].to_numpy(dtype=float))
    grid = table[["x", "y"]].to_numpy()
    beside = np.abs(grid[:, None] - grid[None]).sum(axis=2) == 1
    found = graph.toarray() > 0
    assert (found & beside).sum() >= 0.95 * beside.sum()
    assert (found & ~beside).sum() <= 0.05 * beside.sum()


def test_an_array_with_holes_stays_an_array():
    xy = hexagonal()
    kept = np.random.default_rng(0).random(len(xy)) < 0.8
    np.testing.assert_array_equal(
        neighbour_graph(xy[kept]).toarray(), neighbour_graph(xy).toarray()[np.ix_(kept, kept)]
    )


def test_neighbours_without_an_array_are_the_six_nearest():
    expected = joined_by_squidpy(scattered(), coord_type="generic", n_neighs=6)
    np.testing.assert_array_equal(neighbour_graph(scattered()).toarray() > 0, expected)


def test_spots_of_two_slides_are_no_neighbours():
    xy, slide = np.tile(square(), (2, 1)), np.repeat(["a", "b"], N_ROWS * N_COLUMNS)
    graph = neighbour_graph(xy, slide).toarray()
    half = len(xy) // 2
    assert not graph[:half, half:].any() and not graph[half:, :half].any()
    np.testing.assert_array_equal(graph[:half, :half], neighbour_graph(square()).toarray())


def test_a_spot_that_is_alone_on_its_slide_has_no_neighbour():
    xy = np.vstack([square(), [[1.0, 2.0]]])
    graph = neighbour_graph(xy, np.append(np.repeat("a", len(xy) - 1), "b"))
    assert graph.shape == (len(xy), len(xy)) and not graph[-1].nnz and not graph[:, -1].nnz


# Ratio of variances.


def test_the_ratio_of_variances_is_that_of_numpy(measured):
    predicted = 0.5 * measured + 7
    expected = [np.var(p) / np.var(m) for p, m in zip(predicted.T, measured.T, strict=True)]
    np.testing.assert_allclose(variance_ratio(predicted, measured), expected)
    np.testing.assert_allclose(expected, 0.25)


def test_a_copy_and_a_shuffled_copy_vary_as_much_and_a_constant_not_at_all(measured):
    np.testing.assert_allclose(variance_ratio(measured, measured), 1)
    np.testing.assert_allclose(variance_ratio(shuffled(measured), measured), 1)
    np.testing.assert_array_equal(variance_ratio(np.full_like(measured, 3), measured), 0)


def test_a_smoothed_copy_is_flatter(measured, near):
    assert (variance_ratio(smoothed(measured, near), measured) < 1).all()


# Moran's I.


@pytest.mark.parametrize("array", [square, hexagonal, scattered])
def test_morans_i_is_that_of_scanpy(array):
    xy = array()
    values, graph = maps(xy), neighbour_graph(xy)
    np.testing.assert_allclose(morans_i(values, graph), sc.metrics.morans_i(graph, values.T), rtol=1e-9)


def test_morans_i_is_that_of_a_loop(near, measured):
    z = measured[:, 0] - measured[:, 0].mean()
    rows, columns = near.nonzero()
    total = sum(z[i] * z[j] for i, j in zip(rows, columns, strict=True))
    expected = len(z) / len(rows) * total / (z**2).sum()
    assert morans_i(measured[:, :1], near)[0] == pytest.approx(expected)


def test_a_copy_clings_together_as_much_a_smoothed_one_more_and_a_shuffled_one_not(measured, near):
    np.testing.assert_array_equal(moran_difference(measured, measured, near), 0)
    assert (moran_difference(smoothed(measured, near), measured, near) > 0.05).all()
    lost = moran_difference(shuffled(measured), measured, near)
    np.testing.assert_allclose(lost, -morans_i(measured, near), atol=0.25)
    assert (lost < 0).all()


def test_level_and_scale_of_a_prediction_do_not_change_morans_i(measured, near):
    np.testing.assert_allclose(moran_difference(3 * measured - 50, measured, near), 0, atol=1e-9)


# Structural similarity.


def ssim_of_a_loop(p: np.ndarray, m: np.ndarray, near: csr_matrix) -> float:
    c1, c2 = (0.01 * np.ptp(m)) ** 2, (0.03 * np.ptp(m)) ** 2
    values = []
    for spot in range(len(p)):
        around = np.append(near[spot].indices, spot)
        if len(around) == 1:
            continue
        a, b = p[around], m[around]
        covariance = np.mean((a - a.mean()) * (b - b.mean()))
        level = (2 * a.mean() * b.mean() + c1) / (a.mean() ** 2 + b.mean() ** 2 + c1)
        values.append(level * (2 * covariance + c2) / (a.var() + b.var() + c2))
    return float(np.mean(values))


@pytest.mark.parametrize("array", [square, hexagonal, scattered])
def test_structural_similarity_is_that_of_a_loop(array):
    xy = array()
    measured, predicted, graph = maps(xy), maps(xy, seed=1), neighbour_graph(xy)
    expected = [ssim_of_a_loop(p, m, graph) for p, m in zip(predicted.T, measured.T, strict=True)]
    np.testing.assert_allclose(structural_similarity(predicted, measured, graph), expected, rtol=1e-9)


def test_structural_similarity_on_windows_of_three_by_three_is_that_of_scikit_image():
    xy = square()
    measured, predicted = maps(xy), maps(xy, seed=1) * 0.3 + maps(xy) * 0.7
    distance = np.linalg.norm(xy[:, None] - xy[None], axis=2)
    inside = ((xy > xy.min(axis=0)) & (xy < xy.max(axis=0))).all(axis=1)  # where the window is whole
    windows = csr_matrix(((distance > 0) & (distance < 142) & inside[:, None]).astype(float))
    expected = []
    for p, m in zip(predicted.T, measured.T, strict=True):
        images = (values.reshape(N_ROWS, N_COLUMNS) for values in (m, p))
        _, full = skimage_ssim(*images, win_size=3, data_range=np.ptp(m), use_sample_covariance=False, full=True)
        expected.append(full[1:-1, 1:-1].mean())
    np.testing.assert_allclose(structural_similarity(predicted, measured, windows), expected, rtol=1e-9)


def test_a_copy_is_the_same_map_and_all_that_is_done_to_it_makes_it_less_so(measured, near):
    np.testing.assert_allclose(structural_similarity(measured, measured, near), 1)
    smooth = structural_similarity(smoothed(measured, near), measured, near)
    shuffle = structural_similarity(shuffled(measured), measured, near)
    constant = structural_similarity(np.broadcast_to(measured.mean(axis=0), measured.shape), measured, near)
    assert (shuffle < smooth).all() and (smooth < 1).all()
    assert (constant < smooth).all() and (constant > -0.01).all()


def test_structural_similarity_sees_a_level_that_a_correlation_does_not(measured, near):
    assert (structural_similarity(measured + 5, measured, near) < 0.95).all()


def test_structural_similarity_keeps_small_variances_beside_a_large_level(near):
    measured, predicted = maps(square()) * 1e-3 + 1e4, maps(square(), seed=1) * 1e-3 + 1e4
    expected = [ssim_of_a_loop(p, m, near) for p, m in zip(predicted.T, measured.T, strict=True)]
    np.testing.assert_allclose(structural_similarity(predicted, measured, near), expected, rtol=1e-4)


# Gene-gene correlations.


def agreement_of_numpy(predicted: np.ndarray, measured: np.ndarray) -> float:
    above = np.triu_indices(predicted.shape[1], 1)
    return pearsonr(*(np.corrcoef(side, rowvar=False)[above] for side in (predicted, measured))).statistic


@pytest.mark.parametrize("block", [2, 5, 500])
def test_the_agreement_of_gene_gene_correlations_is_that_of_numpy(measured, monkeypatch, block):
    monkeypatch.setattr(gene_correlation, "BLOCK_GENES", block)
    predicted = measured + maps(square(), seed=2)
    found, n_genes = gene_correlation_agreement(predicted, measured)
    assert n_genes == N_GENES
    assert found == pytest.approx(agreement_of_numpy(predicted, measured))


def test_a_copy_and_a_copy_whose_spots_are_shuffled_keep_the_genes_together(measured):
    assert gene_correlation_agreement(measured, measured)[0] == pytest.approx(1)
    assert gene_correlation_agreement(shuffled(measured), measured)[0] == pytest.approx(1)


def test_genes_that_are_shuffled_each_for_itself_lose_each_other():
    measured = maps(square(), n_genes=40)
    rng = np.random.default_rng(0)
    assert abs(gene_correlation_agreement(rng.permuted(measured, axis=0), measured)[0]) < 0.15


def test_constant_genes_have_no_pairs(measured):
    predicted = measured.copy()
    predicted[:, 0], measured[:, 1] = 3, 0
    found, n_genes = gene_correlation_agreement(predicted, measured)
    assert n_genes == N_GENES - 2 and found == pytest.approx(1)
    predicted[:, :7] = 1
    found, n_genes = gene_correlation_agreement(predicted, measured)
    assert np.isnan(found) and n_genes == 2


def test_of_many_genes_those_of_highest_measured_variance_are_taken(measured, monkeypatch):
    monkeypatch.setattr(gene_correlation, "MAX_GENES", 4)
    predicted = maps(square(), seed=2)
    chosen = np.argsort(-measured.var(axis=0))[:4]
    found, n_genes = gene_correlation_agreement(predicted, measured)
    assert n_genes == 4
    assert found == pytest.approx(agreement_of_numpy(predicted[:, chosen], measured[:, chosen]))


# Pathways.

GENES = [f"G{i}" for i in range(12)]


def pathways(**weights) -> pd.DataFrame:
    rows = [("FIRST", gene) for gene in GENES[:6]] + [("SECOND", gene) for gene in GENES[4:]]
    rows += [("SMALL", gene) for gene in GENES[:4]] + [("ELSEWHERE", f"X{i}") for i in range(8)]
    return gene_sets(pd.DataFrame(rows, columns=["source", "target"]).assign(**weights))


def z_scores(values: np.ndarray) -> np.ndarray:
    return (values - values.mean(axis=0)) / values.std(axis=0)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_agreement_of_pathways_is_that_of_mean_z_scores(weighted):
    measured, predicted = maps(square(), 12), maps(square(), 12) + maps(square(), 12, seed=1)
    net = pathways(**({"weight": np.arange(1, len(pathways()) + 1)} if weighted else {}))
    found = pathway_agreement(predicted, measured, GENES, net)
    assert list(found.index) == ["FIRST", "SECOND", "SMALL", "ELSEWHERE"]
    for name in ("FIRST", "SECOND"):
        rows = net[net["source"] == name]
        columns = [GENES.index(gene) for gene in rows["target"]]
        score = [
            np.average(z_scores(side)[:, columns], axis=1, weights=rows["weight"]) for side in (predicted, measured)
        ]
        assert found.loc[name, "pearson"] == pytest.approx(pearsonr(*score).statistic), name
    assert found["n_genes"].to_list() == [6, 8, 4, 0]
    assert found["n_genes_in_set"].to_list() == [6, 8, 4, 8]


def test_a_pathway_of_few_genes_or_of_constant_ones_is_undefined():
    measured = maps(square(), 12)
    found = pathway_agreement(measured, measured, GENES, pathways())
    assert found["pearson"].to_list() == pytest.approx([1, 1, np.nan, np.nan], nan_ok=True)
    predicted = measured.copy()
    predicted[:, :2] = 1
    found = pathway_agreement(predicted, measured, GENES, pathways())
    assert found.loc["FIRST", "n_genes"] == 4 and np.isnan(found.loc["FIRST", "pearson"])


def test_a_turned_prediction_turns_its_pathways():
    measured = maps(square(), 12)
    assert pathway_agreement(-measured, measured, GENES, pathways()).loc["SECOND", "pearson"] == pytest.approx(-1)


# Undefined, and together.


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("side", ["predicted", "measured"])
def test_a_constant_gene_is_undefined_where_it_has_to_be_and_disturbs_no_other(measured, near, side):
    predicted = measured + maps(square(), seed=3)
    names = [f"G{i}" for i in range(N_GENES)]
    before = structure_scores(predicted, measured, names, near)
    (predicted if side == "predicted" else measured)[:, 4] = 0
    after = structure_scores(predicted, measured, names, near)
    pd.testing.assert_frame_equal(after.drop(index="G4"), before.drop(index="G4"))
    gene = after.loc["G4"]
    assert np.isnan(gene["moran_difference"])
    if side == "predicted":
        assert gene["variance_ratio"] == 0 and np.isfinite(gene["ssim"])
    else:
        assert np.isnan(gene["variance_ratio"]) and np.isnan(gene["ssim"])


@pytest.mark.filterwarnings("error")
def test_spots_without_neighbours_leave_nothing_to_compare(measured):
    nobody = csr_matrix((len(measured), len(measured)))
    assert np.isnan(moran_difference(measured, measured, nobody)).all()
    assert np.isnan(structural_similarity(measured, measured, nobody)).all()


# Through the public functions.


@pytest.fixture
def slide(cohort: list[AnnData]) -> AnnData:
    target, *refs = cohort
    sp.tl.predict(target, refs, method="ridge")
    return target


def net_of(slide: AnnData) -> pd.DataFrame:
    genes = slide.var_names[slide.var["spahgc_panel"]]
    return pd.DataFrame({"source": ["UP"] * 8 + ["DOWN"] * 6, "target": [*genes[:8], *genes[6:12]]})


def test_an_evaluation_writes_the_structure_of_every_gene(slide):
    scores = sp.tl.evaluate(slide)
    inside = slide.var["spahgc_panel"].to_numpy()
    log = slide.copy()
    sc.pp.normalize_total(log, target_sum=1e4)
    sc.pp.log1p(log)
    measured, predicted = log.X.toarray()[:, inside], slide.layers["spahgc"][:, inside].astype(float)
    graph = neighbour_graph(slide.obsm["spatial"])
    expected = {
        "variance_ratio": predicted.var(axis=0) / measured.astype(float).var(axis=0),
        "moran_difference": sc.metrics.morans_i(graph, predicted.T)
        - sc.metrics.morans_i(graph, measured.T.astype(float)),
        "ssim": [ssim_of_a_loop(p, m, graph) for p, m in zip(predicted.T, measured.T.astype(float), strict=True)],
    }
    for name, values in expected.items():
        np.testing.assert_allclose(scores[name], values, rtol=1e-4, atol=1e-5, err_msg=name)
        np.testing.assert_array_equal(slide.var[f"spahgc_{name}"][inside], scores[name])
        assert slide.var[f"spahgc_{name}"][~inside].isna().all()


def test_a_flat_map_has_the_correlation_of_a_right_one_and_not_its_variance(cohort):
    slide = cohort[0]
    slide.layers["right"] = slide.layers["truth"].astype(np.float32)
    middle = slide.layers["truth"].mean(axis=0)
    slide.layers["flat"] = (middle + 0.1 * (slide.layers["truth"] - middle)).astype(np.float32)
    right, flat = (sp.tl.evaluate(slide, key=key) for key in ("right", "flat"))
    np.testing.assert_allclose(flat["pearson"], right["pearson"], atol=1e-4)
    np.testing.assert_allclose(flat["variance_ratio"], 0.01 * right["variance_ratio"], rtol=1e-3)


def test_a_sparse_prediction_has_the_structure_of_a_dense_one(slide):
    expected = sp.tl.evaluate(slide)
    slide.layers["sparse"] = csr_matrix(np.nan_to_num(slide.layers["spahgc"]))
    slide.var["sparse_panel"] = slide.var["spahgc_panel"]
    pd.testing.assert_frame_equal(sp.tl.evaluate(slide, key="sparse"), expected)


def test_without_positions_what_needs_them_is_undefined_and_said(slide):
    expected = sp.tl.evaluate(slide)
    del slide.obsm["spatial"]
    with pytest.warns(UserWarning, match=r'obsm\["spatial"\] not found in the slide: moran_difference and ssim'):
        scores = sp.tl.evaluate(slide)
    assert scores["moran_difference"].isna().all() and scores["ssim"].isna().all()
    kept = expected.columns.drop(["moran_difference", "ssim"])
    pd.testing.assert_frame_equal(scores[kept], expected[kept])


@pytest.mark.parametrize("write", ["write_h5ad", "write_zarr"])
def test_pathways_are_compared_and_survive_a_file(slide, tmp_path, write):
    sp.tl.evaluate(slide, gene_sets=net_of(slide))
    getattr(slide, write)(tmp_path / "slide")
    back = (ad.read_h5ad if write == "write_h5ad" else ad.read_zarr)(tmp_path / "slide")
    for adata in (slide, back):
        summary = adata.uns["spahgc"]["evaluations"]["spahgc"]
        assert list(summary["pathways"].index) == ["UP", "DOWN"]
        assert summary["pathway_correlation"] == pytest.approx(summary["pathways"]["pearson"].mean())
        assert list(summary["pathways"]["n_genes"]) == [8, 6]


def test_pathways_come_from_a_gmt_file_on_the_command_line_too(slide, tmp_path, capsys):
    net = net_of(slide)
    lines = ["\t".join([name, "", *part["target"]]) for name, part in net.groupby("source")]
    (tmp_path / "sets.gmt").write_text("\n".join(lines))
    slide.write_h5ad(tmp_path / "slide.h5ad")
    sp.tl.evaluate(slide, gene_sets=net)
    call = ["evaluate", str(tmp_path / "slide.h5ad"), "--gene-sets", str(tmp_path / "sets.gmt"), "--json"]
    with pytest.raises(SystemExit) as stopped:
        cli.main(call)
    assert not stopped.value.code
    found = json.loads(capsys.readouterr().out)
    expected = slide.uns["spahgc"]["evaluations"]["spahgc"]
    assert found["summary"]["pathway_correlation"] == pytest.approx(expected["pathway_correlation"], rel=1e-5)
    assert {row["pathway"] for row in found["pathways"]} == {"UP", "DOWN"}


def test_gene_sets_of_other_genes_are_refused_before_anything_is_computed(slide, cohort, monkeypatch):
    other = pd.DataFrame({"source": "A", "target": [f"ENSG{i}" for i in range(9)]})
    with pytest.raises(ValueError, match='no pathway of gene_sets= has 5 genes among the .* of the panel of "spahgc"'):
        sp.tl.evaluate(slide, gene_sets=other)
    assert "spahgc_pearson" not in slide.var
    with pytest.raises(FileNotFoundError, match="gene-set file .* does not exist"):
        sp.tl.evaluate(slide, gene_sets=Path("absent.gmt"))
    monkeypatch.setattr("spahgc.tl._cross_validation.cross_validate.score_folds", lambda *a: pytest.fail("ran"))
    with pytest.raises(ValueError, match="no pathway .* of the genes that all slides share"):
        sp.tl.cross_validate(cohort, methods=METHODS, gene_sets=other)


def test_a_new_prediction_forgets_the_structure_of_the_old_one(slide, cohort):
    sp.tl.evaluate(slide)
    sp.tl.predict(slide, cohort[1:], method="nearest")
    assert not {"spahgc_variance_ratio", "spahgc_moran_difference", "spahgc_ssim"} & set(slide.var)


@pytest.mark.parametrize(("metric", "line"), [("variance_ratio", 1.0), ("moran_difference", 0.0), ("ssim", 0.0)])
def test_structure_can_be_drawn_with_the_line_that_belongs_to_it(slide, metric, line):
    scores = sp.tl.evaluate(slide)
    ax = sp.pl.gene_scores(slide, metric=metric, show=False)
    assert find_metric(metric).label in ax.get_ylabel()
    lines = [
        each.get_ydata()[0] for each in ax.lines if len(set(each.get_ydata())) == 1 and each.get_linestyle() != "-"
    ]
    assert lines == ([line] if ax.get_ylim()[0] < line < ax.get_ylim()[1] else [])
    offsets = np.concatenate([np.asarray(part.get_offsets()) for part in ax.collections if len(part.get_offsets()) > 1])
    np.testing.assert_allclose(np.sort(np.unique(offsets[:, 1])), np.sort(scores[metric].dropna().unique()), rtol=1e-6)


# In a cross-validation.


@pytest.fixture(scope="module")
def by_patient(_cohort):
    return sp.tl.cross_validate([s.copy() for s in _cohort], group_by="patient", methods=METHODS, n_bootstrap=50)


def of_ridge(table: pd.DataFrame, slide: AnnData) -> pd.DataFrame:
    return table[(table["method"] == "ridge") & (table["slide"] == slide.obs["slide"].iloc[0])]


def genes_on(scores: pd.DataFrame, slide: AnnData) -> set[str]:
    return set(scores.loc[scores["slide"] == slide.obs["slide"].iloc[0], "gene"])


def test_a_cross_validation_has_the_structure_that_an_evaluation_finds(by_patient, cohort):
    for slide in cohort:
        others = [other for other in cohort if other.obs["patient"].iloc[0] != slide.obs["patient"].iloc[0]]
        predicted = sp.tl.predict(slide, others, method="ridge", copy=True)
        expected = sp.tl.evaluate(predicted)
        rows = of_ridge(by_patient.scores, slide).set_index("gene")
        for score in ("variance_ratio", "moran_difference", "ssim"):
            np.testing.assert_allclose(rows.loc[expected.index, score], expected[score], rtol=1e-6, err_msg=score)
        of_slide = of_ridge(by_patient.slides, slide).iloc[0]
        summary = predicted.uns["spahgc"]["evaluations"]["spahgc"]
        assert of_slide["gene_correlation"] == pytest.approx(summary["gene_correlation"])
        assert of_slide["pearson"] == pytest.approx(summary["mean_pearson"])
        assert np.isnan(of_slide["pathway_correlation"])


def test_pooled_correlations_are_those_over_the_spots_of_all_slides_held_out(by_patient, cohort):
    for patient in ("P1", "P2"):
        held_out = [s for s in cohort if s.obs["slide"].iloc[0].startswith(patient)]
        others = [s for s in cohort if not s.obs["slide"].iloc[0].startswith(patient)]
        predictions = [sp.tl.predict(s, others, method="ridge", copy=True) for s in held_out]
        log = [s.copy() for s in held_out]
        for each in log:
            sc.pp.normalize_total(each, target_sum=1e4)
            sc.pp.log1p(each)
        pooled = by_patient.pooled.query("method == 'ridge'")
        pooled = pooled[pooled["group"] == held_out[0].obs["patient"].iloc[0]]
        assert len(pooled) == pooled["gene"].nunique()
        for gene, found in pooled.set_index("gene")["pearson"].items():
            p = np.concatenate([s[:, gene].layers["spahgc"].ravel() for s in predictions])
            m = np.concatenate([s[:, gene].X.toarray().ravel() for s in log])
            if np.ptp(m) > 0:
                assert found == pytest.approx(pearsonr(p, m).statistic, abs=1e-5), gene


def test_means_over_slides_and_pooled_means_stand_beside_each_other_in_the_summary(by_patient):
    summary, slides = by_patient.summary, by_patient.slides
    assert summary.loc["ridge", "pearson"] == pytest.approx(by_patient.per_slide.loc["ridge"].mean())
    pooled = by_patient.pooled.query("method == 'ridge'").groupby("group")["pearson"].mean().mean()
    assert summary.loc["ridge", "pearson_pooled"] == pytest.approx(pooled)
    assert summary.loc["ridge", "pearson_pooled"] != pytest.approx(summary.loc["ridge", "pearson"])
    ratios = by_patient.scores.query("method == 'ridge'").groupby("slide")["variance_ratio"].median().mean()
    assert summary.loc["ridge", "variance_ratio"] == pytest.approx(ratios)
    expected = slides.query("method == 'ridge'")["gene_correlation"].mean()
    assert summary.loc["ridge", "gene_correlation"] == pytest.approx(expected)


def test_of_a_group_of_one_slide_the_pooled_correlation_is_that_of_the_slide(cohort):
    scores = sp.tl.cross_validate(cohort, group_by="slide", methods=["ridge"], n_bootstrap=50).scores
    np.testing.assert_allclose(scores["pearson_pooled"], scores["pearson"])


def test_a_gene_that_a_slide_lacks_is_pooled_over_the_others():
    rng = np.random.default_rng(0)
    p, m = (pd.DataFrame(rng.normal(size=(20, 2)), columns=["A", "B"]) for _ in range(2))
    found = pooled_pearson([(p, m), (p[["A"]] + 1, m[["A"]] + 1)])
    both = [np.concatenate([side["A"], side["A"] + 1]) for side in (p, m)]
    assert found["A"] == pytest.approx(pearsonr(*both).statistic)
    assert found["B"] == pytest.approx(pearsonr(p["B"], m["B"]).statistic)


def test_pathways_of_a_cross_validation_are_those_of_an_evaluation(cohort):
    target, *others = cohort
    genes = list(target.var_names[:12])
    net = pd.DataFrame({"source": "UP", "target": genes[:9]})
    result = sp.tl.cross_validate(
        cohort, group_by="slide", methods=["ridge"], genes=genes, gene_sets=net, n_bootstrap=50
    )
    sp.tl.predict(target, others, genes=genes, method="ridge")
    sp.tl.evaluate(target, gene_sets=net)
    expected = target.uns["spahgc"]["evaluations"]["spahgc"]["pathway_correlation"]
    found = result.slides.set_index("slide").loc[target.obs["slide"].iloc[0], "pathway_correlation"]
    assert found == pytest.approx(expected)
    assert result.summary.loc["ridge", "pathway_correlation"] == pytest.approx(
        result.slides["pathway_correlation"].mean()
    )


def test_an_interrupted_run_keeps_its_structure_and_other_gene_sets_are_another_run(cohort, tmp_path):
    arguments = {
        "methods": ["ridge"],
        "n_bootstrap": 50,
        "checkpoint": tmp_path,
        "genes": list(cohort[0].var_names[:12]),
    }
    net = pd.DataFrame({"source": "UP", "target": cohort[0].var_names[:9]})
    first = sp.tl.cross_validate(cohort, gene_sets=net, **arguments)
    again = sp.tl.cross_validate(cohort, gene_sets=net, **arguments)
    pd.testing.assert_frame_equal(again.scores, first.scores, check_exact=True)
    with pytest.raises(ValueError, match="other inputs.*gene_sets"):
        sp.tl.cross_validate(cohort, **arguments)


def test_folds_of_before_there_was_structure_are_not_taken_for_folds_with_it(cohort, tmp_path):
    arguments = {"methods": ["nearest"], "n_bootstrap": 50, "checkpoint": tmp_path}
    sp.tl.cross_validate(cohort, **arguments)
    inputs = json.loads((tmp_path / "inputs.json").read_text())
    del inputs["scores"], inputs["gene_sets"]  # as they were written then
    (tmp_path / "inputs.json").write_text(json.dumps(inputs))
    with pytest.raises(ValueError, match="holds folds of other inputs .*scores: None there"):
        sp.tl.cross_validate(cohort, **arguments)


def test_undefined_structure_survives_a_checkpoint(tmp_path):
    store = Checkpoint(tmp_path, {"slides": {"NA": {"group": "g"}}}, {"a": {}})
    scores = pd.DataFrame({"slide": ["NA"], "gene": ["nan"], **{name: [np.nan] for name in FOLD_SCORES}, "n": [3]})
    store.write("a", "g", scores, 1.0, None)
    pd.testing.assert_frame_equal(store.read("a", "g", {"NA": {"nan"}})[0], scores)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("ssim", 1.01, "a correlation outside -1 to 1"),
        ("gene_correlation", -1.5, "a correlation outside -1 to 1"),
        ("pearson_pooled", np.inf, "a correlation outside -1 to 1"),
        ("variance_ratio", -0.1, "negative error or ratio of variances"),
    ],
)
def test_impossible_scores_of_structure_are_refused(tmp_path, name, value, message):
    store = Checkpoint(tmp_path, {"slides": {"s": {"group": "g"}}}, {"a": {}})
    scores = pd.DataFrame({"slide": ["s"], "gene": ["x"], **{name: [0.5] for name in FOLD_SCORES}, "n": [3]})
    store.write("a", "g", scores, 1.0, None)
    assert len(store.read("a", "g", {"s": {"x"}})[0]) == 1
    store.write("a", "g", scores.assign(**{name: value}), 1.0, None)
    with pytest.raises(ValueError, match=message):
        store.read("a", "g", {"s": {"x"}})


# Which genes are scored.


def test_genes_are_a_list_or_chosen_on_the_references_or_all_that_these_have_seen(cohort):
    genes = list(cohort[0].var_names[:7])
    common = {"methods": ["nearest"], "n_bootstrap": 50}
    scored = {
        kind: sp.tl.cross_validate(cohort, genes=choice, **common).scores
        for kind, choice in {"list": genes, "selected": None, "all": "all"}.items()
    }
    assert set(scored["list"]["gene"]) == set(genes)
    for slide in cohort:
        others = [other for other in cohort if other is not slide]
        seen = np.vstack([(other.X.toarray() > 0) for other in others]).mean(axis=0) >= 0.01
        assert genes_on(scored["all"], slide) == set(slide.var_names[seen])
        chosen = sp.pp.select_genes(others, n_abundant=sp.Parameters.preset("default").n_abundant)
        assert genes_on(scored["selected"], slide) == set(chosen)
