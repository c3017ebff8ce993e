"""Domains: what is planted is found, from the prediction and from nothing else."""

from __future__ import annotations

import sys
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.sparse import csr_matrix
from sklearn.metrics import adjusted_rand_score

import spahgc as sp
from spahgc.tl._domains import domains

BOTH = pytest.mark.parametrize("n_domains", [3, None], ids=["kmeans", "leiden"])


@pytest.fixture(scope="module")
def _slide() -> AnnData:
    (slide,) = sp.datasets.simulated(n_slides=1, n_patients=1, n_spots=150, n_genes=60, n_domains=3, seed=3)
    del slide.uns["spatial"]
    return slide


@pytest.fixture
def slide(_slide: AnnData) -> AnnData:
    """A slide whose true expression of the genes that follow the tissue stands for a prediction."""
    slide = _slide.copy()
    panel = (slide.var["truth_kind"] == "morphology").to_numpy()
    predicted = slide.layers["truth"].copy()
    predicted[:, ~panel] = np.nan
    slide.layers["oracle"], slide.var["oracle_panel"] = predicted, panel
    return slide


def record(slide: AnnData, name: str = "oracle") -> dict[str, Any]:
    return slide.uns["spahgc"]["domains"][name]


def assert_same(slide: AnnData, other: AnnData) -> None:
    pd.testing.assert_frame_equal(slide.obs, other.obs)
    pd.testing.assert_frame_equal(slide.var, other.var)
    for part in ("layers", "obsm", "obsp"):
        assert list(getattr(slide, part)) == list(getattr(other, part)), part
    for name, kept in {"X": other.X, **other.layers, **other.obsm, **other.obsp}.items():
        now = slide.X if name == "X" else next(p[name] for p in (slide.layers, slide.obsm, slide.obsp) if name in p)
        np.testing.assert_array_equal(csr_matrix(now).toarray(), csr_matrix(kept).toarray(), err_msg=name)
    assert repr(dict(slide.uns)) == repr(dict(other.uns))


@BOTH
def test_domains_recover_the_tissue_far_better_than_shuffled_labels_do(slide, n_domains):
    domains(slide, key="oracle", n_domains=n_domains, resolution=0.5, label="domain")
    slide.obs["shuffled"] = np.random.default_rng(0).permutation(slide.obs["domain"].astype(str))
    found = record(slide)["adjusted_rand_index"]
    domains(slide, key="oracle", n_domains=n_domains, resolution=0.5, label="shuffled")
    by_chance = record(slide)["adjusted_rand_index"]
    assert found > (0.4 if n_domains is None else 0.9)  # Leiden finds finer ones than the three there are
    assert abs(by_chance) < 0.1


@BOTH
def test_the_order_of_the_spots_changes_no_domain(slide, n_domains):
    # Nothing but noise: there are many divisions about as good, and any dependence on the order picks another one.
    slide.layers["noise"] = np.random.default_rng(0).normal(size=slide.shape)
    shuffled = slide[np.random.default_rng(1).permutation(slide.n_obs)].copy()
    for each in (slide, shuffled):
        domains(each, key="noise", n_domains=n_domains)
    assert adjusted_rand_score(slide.obs["noise_domain"], shuffled.obs["noise_domain"].loc[slide.obs_names]) == 1


@BOTH
def test_two_runs_with_one_seed_agree(slide, n_domains):
    first, second = (domains(slide, key="oracle", n_domains=n_domains, seed=4, copy=True) for _ in range(2))
    pd.testing.assert_series_equal(first.obs["oracle_domain"], second.obs["oracle_domain"])


@pytest.mark.parametrize("n_domains", [2, 5])
def test_exactly_as_many_domains_as_asked_for_ordered_by_size(slide, n_domains):
    domains(slide, key="oracle", n_domains=n_domains)
    found = slide.obs["oracle_domain"]
    assert list(found.cat.categories) == [str(name) for name in range(n_domains)]
    sizes = found.value_counts().reindex(found.cat.categories).to_numpy()
    assert (np.diff(sizes) <= 0).all() and sizes.sum() == slide.n_obs and sizes[-1] > 0
    assert record(slide)["n_domains"] == n_domains


def test_a_larger_resolution_finds_more_domains(slide):
    numbers = []
    for resolution in (0.3, 3.0):
        domains(slide, key="oracle", resolution=resolution)
        numbers.append(record(slide)["n_domains"])
    assert numbers[0] < numbers[1]


@BOTH
def test_the_label_has_no_influence_on_the_domains(slide, n_domains):
    domains(slide, key="oracle", n_domains=n_domains)
    without = slide.obs["oracle_domain"].copy()
    domains(slide, key="oracle", n_domains=n_domains, label="domain")
    pd.testing.assert_series_equal(slide.obs["oracle_domain"], without)


@BOTH
def test_neither_counts_nor_genes_outside_the_panel_have_influence(slide, n_domains):
    domains(slide, key="oracle", n_domains=n_domains)
    poisoned = slide.copy()
    poisoned.X = csr_matrix(np.full(slide.shape, np.nan))
    poisoned.layers["oracle"][:, ~slide.var["oracle_panel"]] = 1e6 * np.random.default_rng(0).normal(
        size=(slide.n_obs, (~slide.var["oracle_panel"]).sum())
    )
    del poisoned.obsm["spatial"]
    domains(poisoned, key="oracle", n_domains=n_domains)
    pd.testing.assert_series_equal(poisoned.obs["oracle_domain"], slide.obs["oracle_domain"])


@BOTH
def test_nothing_else_of_the_object_is_touched(slide, n_domains):
    slide.obsm["X_pca"] = np.arange(2.0 * slide.n_obs).reshape(-1, 2)
    slide.uns["neighbors"] = {"params": {"mine": 1}}
    slide.obsp["connectivities"] = csr_matrix(np.eye(slide.n_obs))
    before = slide.copy()
    domains(slide, key="oracle", n_domains=n_domains)
    assert set(slide.obs) - set(before.obs) == {"oracle_domain"}
    assert list(slide.uns.pop("spahgc")) == ["domains"]
    slide.obs = slide.obs.drop(columns="oracle_domain")
    assert_same(slide, before)


def test_spots_without_a_label_are_left_out_of_the_comparison(slide):
    slide.obs["partly"] = slide.obs["domain"].astype(str)
    slide.obs.loc[slide.obs_names[:30], "partly"] = np.nan
    slide.obs.loc[slide.obs_names[30:50], "partly"] = " "
    domains(slide, key="oracle", n_domains=3, label="partly")
    expected = adjusted_rand_score(slide.obs["domain"][50:], slide.obs["oracle_domain"][50:])
    assert record(slide)["n_spots_labelled"] == slide.n_obs - 50
    assert record(slide)["adjusted_rand_index"] == expected


def test_key_added_names_the_column_and_the_record_and_leaves_the_first_ones(slide):
    domains(slide, key="oracle", n_domains=2)
    domains(slide, key="oracle", n_domains=4, key_added="four")
    assert slide.obs["oracle_domain"].nunique() == 2 and slide.obs["four"].nunique() == 4
    assert record(slide)["n_domains"] == 2
    assert record(slide, "four")["n_domains"] == 4 and record(slide, "four")["key"] == "oracle"


def test_copy_returns_a_changed_copy_and_leaves_the_object(slide):
    copied = domains(slide, key="oracle", n_domains=3, copy=True)
    assert "oracle_domain" in copied.obs and "oracle_domain" not in slide.obs and "spahgc" not in slide.uns
    assert domains(slide, key="oracle", n_domains=3) is None


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
@BOTH
def test_domains_survive_a_file(slide, n_domains, suffix, tmp_path):
    domains(slide, key="oracle", n_domains=n_domains, label="domain")
    getattr(slide, f"write_{suffix}")(tmp_path / f"slide.{suffix}")
    back = getattr(ad, f"read_{suffix}")(tmp_path / f"slide.{suffix}")
    pd.testing.assert_series_equal(back.obs["oracle_domain"], slide.obs["oracle_domain"])
    assert record(back)["adjusted_rand_index"] == record(slide)["adjusted_rand_index"]


def test_a_missing_prediction_is_named(slide):
    with pytest.raises(KeyError, match=r'layers\["spahgc"\] not found, layers are "truth", "oracle"'):
        domains(slide)


def test_missing_values_inside_the_panel_are_named(slide):
    gene = slide.var_names[slide.var["oracle_panel"]][4]
    slide.layers["oracle"][3, slide.var_names.get_loc(gene)] = np.nan
    with pytest.raises(ValueError, match=f'1 NaN or infinite values inside its panel, in the genes "{gene}"'):
        domains(slide, key="oracle", n_domains=3)


def test_a_prediction_that_is_the_same_everywhere_has_no_domains(slide):
    slide.layers["oracle"] = np.tile(slide.layers["oracle"][:1], (slide.n_obs, 1))
    with pytest.raises(ValueError, match="the same in all 150 spots"):
        domains(slide, key="oracle", n_domains=3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_domains": 1}, "n_domains is 1; pass a whole number from 2 to 150"),
        ({"n_domains": 151}, "n_domains is 151; pass a whole number from 2 to 150"),
        ({"n_domains": 3.0}, "n_domains is 3.0; pass a whole number"),
        ({"n_neighbors": 150}, "n_neighbors is 150; pass a whole number from 2 to 149"),
        ({"n_components": 0}, "n_components is 0; pass a whole number of at least 1"),
        ({"resolution": 0.0}, "resolution is 0.0; pass a positive number"),
        ({"key_added": "a/b"}, 'key_added="a/b" cannot name an entry of obs'),
        ({"label": "domain", "key_added": "domain"}, "is the column that is about to be written"),
    ],
)
def test_arguments_out_of_range_are_refused(slide, arguments, message):
    with pytest.raises(ValueError, match=message):
        domains(slide, key="oracle", **arguments)


def test_no_more_domains_than_spots_that_differ(slide):
    slide.layers["oracle"] = slide.layers["oracle"][np.arange(slide.n_obs) % 10]
    with pytest.raises(ValueError, match="from 2 to 10 .*10 of them predicted differently"):
        domains(slide, key="oracle", n_domains=11)
    domains(slide, key="oracle", n_domains=10)
    assert record(slide)["n_domains"] == 10


def test_an_unknown_or_empty_label_is_refused_before_any_work(slide):
    with pytest.raises(KeyError, match=r'obs\["pathologist"\] not found'):
        domains(slide, key="oracle", n_domains=3, label="pathologist")
    slide.obs["blank"] = ""
    with pytest.raises(ValueError, match=r'obs\["blank"\] is NaN or empty in all 150 spots'):
        domains(slide, key="oracle", n_domains=3, label="blank")
    assert "oracle_domain" not in slide.obs


def test_leiden_without_igraph_names_the_extra_and_kmeans_goes_on(slide, monkeypatch):
    monkeypatch.setitem(sys.modules, "igraph", None)
    with pytest.raises(ImportError, match=r"spahgc\[domains\]"):
        domains(slide, key="oracle")
    domains(slide, key="oracle", n_domains=3)
    assert slide.obs["oracle_domain"].nunique() == 3
