"""Enrichment: decoupler's scores, an honest null, and gene sets as users have them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import anndata as ad
import decoupler
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.sparse import csr_matrix
from scipy.stats import false_discovery_control, kstest

import spahgc as sp
from spahgc.tl._decoupler import scores as _scores
from spahgc.tl._enrich import _null_variances, enrich
from spahgc.tl._gene_sets import gene_sets, read_gmt


@pytest.fixture(scope="module")
def _slide() -> AnnData:
    (slide,) = sp.datasets.simulated(n_slides=1, n_patients=1, n_spots=80, n_genes=60, n_domains=3, seed=3)
    del slide.uns["spatial"]
    return slide


@pytest.fixture
def slide(_slide: AnnData) -> AnnData:
    """A slide whose true expression stands for a prediction, the last five genes left out."""
    slide = _slide.copy()
    panel = np.arange(slide.n_vars) < slide.n_vars - 5
    predicted = slide.layers["truth"].copy()
    predicted[:, ~panel] = np.nan
    slide.layers["oracle"], slide.var["oracle_panel"] = predicted, panel
    return slide


def panel(slide: AnnData) -> list[str]:
    return list(slide.var_names[slide.var["oracle_panel"]])


def markers(slide: AnnData, domain: int = 0) -> list[str]:
    """The genes that mark a domain of the tissue."""
    highest = slide.uns["truth"]["loadings"].argmax(axis=1)
    return list(slide.var_names[(slide.var["truth_kind"] == "morphology").to_numpy() & (highest == domain)])


def as_net(sets: dict[str, list[str]]) -> pd.DataFrame:
    return pd.DataFrame([(name, gene) for name, genes in sets.items() for gene in genes], columns=["source", "target"])


def random_sets(slide: AnnData, n: int, size: int = 8) -> dict[str, list[str]]:
    rng = np.random.default_rng(7)
    return {f"RANDOM{i}": list(rng.choice(panel(slide), size, replace=False)) for i in range(n)}


def record(slide: AnnData, name: str = "oracle") -> dict[str, Any]:
    return slide.uns["spahgc"]["enrichment"][name]


def assert_same(slide: AnnData, other: AnnData) -> None:
    pd.testing.assert_frame_equal(slide.obs, other.obs)
    pd.testing.assert_frame_equal(slide.var, other.var)
    for part in ("layers", "obsm", "obsp"):
        assert list(getattr(slide, part)) == list(getattr(other, part)), part
    for name, kept in {"X": other.X, **other.layers, **other.obsm, **other.obsp}.items():
        now = slide.X if name == "X" else next(p[name] for p in (slide.layers, slide.obsm, slide.obsp) if name in p)
        np.testing.assert_array_equal(csr_matrix(now).toarray(), csr_matrix(kept).toarray(), err_msg=name)
    assert repr(dict(slide.uns)) == repr(dict(other.uns))


def test_a_planted_pathway_stands_out_and_random_ones_do_not(slide):
    net = as_net({"PLANTED": markers(slide)} | random_sets(slide, 200))
    enrich(slide, net, key="oracle", n_permutations=200)
    table = record(slide)["table"]
    assert table.loc["PLANTED", "p_value"] == 1 / 201
    assert table.loc["PLANTED", "variance"] > 3 * table.loc["PLANTED", "null_variance"]
    random = table.drop(index="PLANTED")["p_value"]
    assert kstest(random, "uniform").pvalue > 0.01
    np.testing.assert_allclose(table["q_value"], false_discovery_control(table["p_value"]))


def test_a_planted_pathway_is_high_where_its_domain_is(slide):
    enrich(slide, as_net({f"D{i}": markers(slide, i) for i in range(3)}), key="oracle", n_permutations=10)
    scores, shares = slide.obsm["oracle_enrichment"].to_numpy(), slide.obsm["truth_domains"]
    correlation = np.corrcoef(scores.T, shares.T)[:3, 3:]
    assert (correlation.argmax(axis=1) == [0, 1, 2]).all() and np.diag(correlation).min() > 0.7


@pytest.mark.parametrize("method", ["ulm", "mlm", "zscore"])
@pytest.mark.parametrize("center", [True, False])
def test_scores_are_those_of_decoupler_on_the_panel(slide, method, center):
    net = as_net({"PLANTED": markers(slide)} | random_sets(slide, 4))
    net["weight"] = np.random.default_rng(0).normal(size=len(net))
    enrich(slide, net, key="oracle", method=method, center=center, n_permutations=2)
    expression = pd.DataFrame(slide[:, panel(slide)].layers["oracle"], slide.obs_names, panel(slide)).astype(float)
    if center:
        expression -= expression.mean()
    expected, _ = getattr(decoupler.mt, method)(expression, net, empty=False)
    written = slide.obsm["oracle_enrichment"]
    assert list(written.columns) == list(net["source"].unique())
    pd.testing.assert_frame_equal(written, expected[written.columns], check_names=False)


@pytest.mark.parametrize("method", ["ulm", "mlm", "zscore"])
def test_a_permutation_is_decouplers_score_with_the_genes_renamed(slide, method):
    rng = np.random.default_rng(1)
    expression = rng.normal(size=(30, 40))
    weights = pd.DataFrame((rng.random((40, 3)) < 0.3) * rng.normal(size=(40, 3)), columns=["A", "B", "C"])
    null = _null_variances(expression, weights, method, n_permutations=4, seed=9)
    order = np.random.default_rng(9)
    for variances in null:
        renamed = pd.DataFrame(weights.to_numpy()[order.permutation(40)], columns=weights.columns)
        np.testing.assert_allclose(variances, _scores(expression, renamed, method).var(axis=0), rtol=1e-9)


def test_permutations_do_not_depend_on_how_many_are_held_at_a_time(slide, monkeypatch):
    net = as_net(random_sets(slide, 5))
    whole, pieces = slide, slide.copy()
    enrich(whole, net, key="oracle", n_permutations=50)
    monkeypatch.setattr("spahgc.tl._enrich.CHUNK_VALUES", 1)
    enrich(pieces, net, key="oracle", n_permutations=50)
    pd.testing.assert_frame_equal(record(whole)["table"], record(pieces)["table"])


def test_neither_counts_nor_genes_outside_the_panel_have_influence(slide):
    net = as_net({"PLANTED": markers(slide), "OUTSIDE": [*panel(slide)[:6], *slide.var_names[-5:]]})
    poisoned = slide.copy()
    poisoned.X = csr_matrix(np.full(slide.shape, np.nan))
    poisoned.layers["oracle"][:, ~slide.var["oracle_panel"]] = 1e6
    for each in (slide, poisoned):
        enrich(each, net, key="oracle", n_permutations=20)
    pd.testing.assert_frame_equal(poisoned.obsm["oracle_enrichment"], slide.obsm["oracle_enrichment"])
    pd.testing.assert_frame_equal(record(poisoned)["table"], record(slide)["table"])
    assert record(slide)["table"].loc["OUTSIDE", ["n_genes", "n_genes_in_set"]].tolist() == [6, 11]


def test_a_gene_that_is_zero_everywhere_still_belongs_to_the_panel(slide):
    net = as_net({"PLANTED": markers(slide)})
    slide.layers["oracle"][:, 30] = 0.0
    enrich(slide, net, key="oracle", n_permutations=5)
    with_zero = slide.obsm["oracle_enrichment"].copy()
    slide.layers["oracle"][:, 30] = 5.0  # the same, once centred
    enrich(slide, net, key="oracle", n_permutations=5)
    pd.testing.assert_frame_equal(slide.obsm["oracle_enrichment"], with_zero)


def test_the_seed_repeats_the_permutations_and_another_one_changes_them(slide):
    net = as_net(random_sets(slide, 5))
    tables = []
    for seed in (1, 1, 2):
        enrich(slide, net, key="oracle", n_permutations=50, seed=seed)
        tables.append(record(slide)["table"])
    pd.testing.assert_frame_equal(tables[0], tables[1])
    assert (tables[0]["null_variance"] != tables[2]["null_variance"]).all()
    assert (tables[0]["variance"] == tables[2]["variance"]).all()


def test_nothing_else_of_the_object_is_touched(slide):
    net = as_net(random_sets(slide, 2))
    before, net_before = slide.copy(), net.copy()
    enrich(slide, net, key="oracle", n_permutations=5)
    pd.testing.assert_frame_equal(net, net_before)
    del slide.obsm["oracle_enrichment"]
    assert list(slide.uns.pop("spahgc")) == ["enrichment"]
    assert_same(slide, before)


def test_key_added_names_the_scores_and_the_record_and_leaves_the_first_ones(slide):
    enrich(slide, as_net(random_sets(slide, 2)), key="oracle", n_permutations=5)
    enrich(slide, as_net(random_sets(slide, 4)), key="oracle", n_permutations=5, key_added="hallmarks")
    assert slide.obsm["oracle_enrichment"].shape == (80, 2) and slide.obsm["hallmarks"].shape == (80, 4)
    assert len(record(slide)["table"]) == 2 and len(record(slide, "hallmarks")["table"]) == 4


def test_copy_returns_a_changed_copy_and_leaves_the_object(slide):
    copied = enrich(slide, as_net(random_sets(slide, 2)), key="oracle", n_permutations=5, copy=True)
    assert "oracle_enrichment" in copied.obsm and "oracle_enrichment" not in slide.obsm and "spahgc" not in slide.uns


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_enrichment_survives_a_file(slide, suffix, tmp_path):
    sets = random_sets(slide, 2) | {"TP53/MDM2": panel(slide)[:6]}
    with pytest.warns(UserWarning, match='"/" in the names of 1 pathways') as caught:
        enrich(slide, as_net(sets), key="oracle", n_permutations=5)
    assert caught[0].filename == __file__
    getattr(slide, f"write_{suffix}")(tmp_path / f"slide.{suffix}")
    back = getattr(ad, f"read_{suffix}")(tmp_path / f"slide.{suffix}")
    assert list(back.obsm["oracle_enrichment"].columns) == ["RANDOM0", "RANDOM1", "TP53_MDM2"]
    pd.testing.assert_frame_equal(back.obsm["oracle_enrichment"], slide.obsm["oracle_enrichment"])
    pd.testing.assert_frame_equal(record(back)["table"], record(slide)["table"])


def test_a_gmt_file_and_the_same_table_give_the_same(slide, tmp_path):
    sets = random_sets(slide, 3)
    file = tmp_path / "sets.gmt"
    file.write_text("".join(f"{name}\thttp://x\t" + "\t".join(genes) + "\n" for name, genes in sets.items()))
    other = slide.copy()
    enrich(slide, as_net(sets), key="oracle", n_permutations=5)
    enrich(other, file, key="oracle", n_permutations=5)
    pd.testing.assert_frame_equal(other.obsm["oracle_enrichment"], slide.obsm["oracle_enrichment"])


def test_a_gmt_file_is_split_at_tabs_alone(tmp_path):
    file = tmp_path / "sets.gmt"
    file.write_text("IL2 signalling\t\tA\tB\tA\t\nAPOPTOSIS\tgenes of cell death\tC\tHLA A\n\n")
    rows = list(read_gmt(file).itertuples(index=False, name=None))
    assert rows == [("IL2 signalling", "A"), ("IL2 signalling", "B"), ("APOPTOSIS", "C"), ("APOPTOSIS", "HLA A")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"A\tx\tG1\nB,x,G1,G2\n", 'line 2 of ".*" is no line of a GMT file.*found 1 fields, "B,x,G1,G2"'),
        (b"A\tx\n", "line 1 .*at least one gene"),
        (b"A\tx\tG1\nA\tx\tG2\n", '"A" in line 1 and again in line 2'),
        (b"\n", "holds no pathway"),
        (b"\x1f\x8b\x08\xff", "is not a text file"),
    ],
)
def test_a_malformed_gmt_file_is_named_with_its_line(tmp_path, content, message):
    file = tmp_path / "sets.gmt"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_gmt(file)


def test_a_missing_gmt_file_is_named(slide):
    with pytest.raises(FileNotFoundError, match=r'"nowhere\.gmt" does not exist'):
        enrich(slide, "nowhere.gmt", key="oracle")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.gmt"):
        enrich(slide, Path("nowhere.gmt"), key="oracle")


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (pd.DataFrame({"pathway": ["A"], "target": ["G"]}), 'no column "source"; its columns are "pathway", "target"'),
        (pd.DataFrame({"source": [], "target": []}), "net has no rows"),
        (pd.DataFrame({"source": ["A", None], "target": ["G", "G"]}), 'missing values: 1 in "source"'),
        (pd.DataFrame({"source": ["A"], "target": ["G"], "weight": ["up"]}), 'finite numbers, found "up"'),
        (pd.DataFrame({"source": ["A", "A"], "target": ["G", "G"]}), '1 rows .* already stands .*"A: G"'),
        (pd.DataFrame({"source": ["A/B", "A_B"], "target": ["G", "H"]}), '"A/B" would fall together'),
    ],
)
def test_a_malformed_net_is_refused_and_described(net, message):
    with pytest.raises(ValueError, match=message):
        gene_sets(net)


def test_a_net_that_is_no_table_is_refused():
    with pytest.raises(TypeError, match="found list"):
        gene_sets(["G"])


def test_a_dictionary_is_a_net_with_or_without_weights():
    found = gene_sets({"A": ["G", "H"], "B": {"G": 2.0}})
    assert found.to_numpy().tolist() == [["A", "G", 1.0], ["A", "H", 1.0], ["B", "G", 2.0]]


def test_genes_of_weight_zero_do_not_count_as_members(slide):
    net = as_net({"A": panel(slide)[:6], "B": panel(slide)[:8]}).assign(weight=1.0)
    net.loc[[0, 1], "weight"] = 0.0
    enrich(slide, net, key="oracle", n_permutations=5)
    assert list(record(slide)["table"].index) == ["B"]
    assert record(slide)["left_out"] == ["A"]


def test_when_no_pathway_has_enough_genes_the_best_is_named(slide):
    genes = panel(slide)
    net = as_net({"SMALL": genes[:3], "ELSEWHERE": [*genes[:2], "ENSG1", "ENSG2", "ENSG3"]})
    with pytest.raises(ValueError, match='min_genes=5 of the 55 genes .* the best is "SMALL" with 3 of its 3'):
        enrich(slide, net, key="oracle")


def test_a_pathway_that_holds_the_whole_panel_is_left_out_with_a_warning(slide):
    net = as_net({"ALL": panel(slide)} | random_sets(slide, 1))
    with pytest.warns(UserWarning, match='1 pathways \\("ALL"\\) hold the whole panel') as caught:
        enrich(slide, net, key="oracle", n_permutations=5)
    assert caught[0].filename == __file__
    assert record(slide)["left_out"] == ["ALL"]
    with pytest.raises(ValueError, match="hold the whole panel of 55 genes"):
        enrich(slide, as_net({"ALL": panel(slide)}), key="oracle")


def test_mlm_refuses_pathways_that_depend_on_each_other(slide):
    genes = panel(slide)
    with pytest.raises(ValueError, match="fits 2 pathways at once to 55 genes, of which at most 1"):
        enrich(slide, as_net({"A": genes[:6], "TWIN": genes[:6]}), key="oracle", method="mlm")


def test_a_missing_prediction_is_named(slide):
    with pytest.raises(KeyError, match=r'layers\["spahgc"\] not found, layers are "truth", "oracle"'):
        enrich(slide, as_net(random_sets(slide, 1)))


@pytest.mark.parametrize("center", [True, False])
def test_a_spot_without_spread_over_the_genes_is_named(slide, center):
    layer = slide.layers["oracle"].astype(np.float64)
    # The mean of the other spots is, with this one among them, the mean of all.
    layer[4] = np.delete(layer, 4, axis=0).mean(axis=0) if center else 1.0
    slide.layers["oracle"] = layer
    with pytest.raises(ValueError, match=f'1 of 80 spots \\("{slide.obs_names[4]}"\\).*center={not center}'):
        enrich(slide, as_net(random_sets(slide, 1)), key="oracle", center=center)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "gsea"}, 'method="gsea" is not known. Choose one of ulm, mlm, zscore'),
        ({"n_permutations": 0}, "n_permutations is 0; pass a whole number of at least 1"),
        ({"min_genes": 2.5}, "min_genes is 2.5; pass a whole number"),
        ({"key_added": ""}, "cannot name an entry of obsm"),
    ],
)
def test_arguments_out_of_range_are_refused(slide, arguments, message):
    with pytest.raises(ValueError, match=message):
        enrich(slide, as_net(random_sets(slide, 1)), key="oracle", **arguments)


def test_without_decoupler_the_extra_is_named(slide, monkeypatch):
    monkeypatch.setitem(sys.modules, "decoupler", None)
    with pytest.raises(ImportError, match=r"spahgc\[enrich\]"):
        enrich(slide, as_net(random_sets(slide, 1)), key="oracle")
