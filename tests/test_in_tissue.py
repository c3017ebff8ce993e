"""Spots off the tissue: left out of references, kept and empty in a target."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.sparse import csr_matrix, issparse

import spahgc as sp

N_GLASS = 15


def with_glass(slide: AnnData) -> AnnData:
    """The slide with spots of white glass beside it, whose counts are ambient and whose patches look alike."""
    rng = np.random.default_rng(1)
    ambient = np.asarray(slide.X.mean(axis=0)).ravel()
    glass = AnnData(
        csr_matrix(rng.poisson(np.broadcast_to(ambient * 0.02, (N_GLASS, slide.n_vars))).astype(np.float32)),
        obs=pd.DataFrame(
            {"in_tissue": 0, "slide": slide.obs["slide"].iloc[0]}, index=[f"g{i}" for i in range(N_GLASS)]
        ),
        var=slide.var,
        obsm={
            "spatial": slide.obsm["spatial"].max(axis=0) + 50 * rng.random((N_GLASS, 2)),
            "X_sim": (10 + rng.normal(0, 0.01, (N_GLASS, slide.obsm["X_sim"].shape[1]))).astype(np.float32),
        },
    )
    import anndata as ad

    joined = ad.concat([slide, glass], join="outer", uns_merge="first")
    joined.obs["in_tissue"] = joined.obs["in_tissue"].astype(int)
    return joined[np.random.default_rng(2).permutation(joined.n_obs)].copy()


SPELLINGS = {
    "int": lambda column: column,
    "bool": lambda column: column.astype(bool),
    "float": lambda column: column.astype(float),
    "text": lambda column: column.astype(str),
    "True": lambda column: column.astype(bool).astype(str),
    "category": lambda column: column.astype("category"),
    "category of text": lambda column: column.astype(str).astype("category"),
    "nullable": lambda column: column.astype("boolean"),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_spots_off_the_tissue_are_left_out_of_a_bank_and_that_is_said(refs, spelling):
    genes = list(refs[0].var_names[:12])
    expected = sp.pp.reference_bank(refs, genes=genes)
    dirty = [with_glass(slide) for slide in refs]
    for slide in dirty:
        slide.obs["in_tissue"] = SPELLINGS[spelling](slide.obs["in_tissue"])
    with pytest.warns(
        UserWarning, match='15 of 85 spots of reference "P2S1" lie off the tissue .*left out of the references'
    ):
        bank = sp.pp.reference_bank(dirty, genes=genes)
    assert list(bank.obs_names) == list(expected.obs_names)
    np.testing.assert_array_equal(bank.X.toarray(), expected.X.toarray())


def test_every_way_to_take_references_leaves_them_out(target, refs, quick_default):
    dirty = [with_glass(slide) for slide in refs]
    genes = sp.pp.select_genes(refs, n_top=20)
    for method in ("ridge", "nearest", "mean", "ridge_components"):
        expected = sp.tl.predict(target, refs, method=method, copy=True).layers["spahgc"]
        with pytest.warns(UserWarning, match="lie off the tissue"):
            found = sp.tl.predict(target, dirty, method=method, copy=True).layers["spahgc"]
        np.testing.assert_array_equal(found, expected)
    with pytest.warns(UserWarning, match="lie off the tissue"):
        assert sp.pp.select_genes(dirty, n_top=20) == genes
    with pytest.warns(UserWarning, match="lie off the tissue"):
        assert sp.tl.fit(dirty, preset=quick_default).bank.n_obs == sum(slide.n_obs for slide in refs)


def test_cross_validation_and_its_ceilings_are_those_of_the_tissue(refs):
    options = {"methods": ["ridge"], "n_bootstrap": 10}
    expected = sp.tl.cross_validate(refs, **options)
    with pytest.warns(UserWarning, match="lie off the tissue .*left out of the slides"):
        found = sp.tl.cross_validate([with_glass(slide) for slide in refs], **options)
    columns = ["pearson", "rmse"]
    np.testing.assert_allclose(found.scores[columns], expected.scores[columns], atol=1e-5)
    assert (found.scores["n"] == expected.scores["n"]).all()


# Of a target.


@pytest.mark.parametrize("method", ["ridge", "ridge_neighbours", "spahgc"])
def test_a_target_keeps_its_rows_and_glass_changes_nothing_on_the_tissue(target, refs, method, quick_default):
    dirty = with_glass(target)
    inside = dirty.obs["in_tissue"] == 1
    clean = dirty[inside].copy()
    sp.tl.predict(clean, refs, method=method, preset=quick_default)
    with pytest.warns(
        UserWarning, match=r"15 of 85 spots of the target lie off the tissue .* are not predicted.*\.copy\(\)"
    ):
        sp.tl.predict(dirty, refs, method=method, preset=quick_default)
    assert dirty.n_obs == 85
    np.testing.assert_array_equal(dirty.layers["spahgc"][inside], clean.layers["spahgc"])
    assert np.isnan(dirty.layers["spahgc"][~inside]).all()
    if method == "spahgc":
        for key in ("spahgc_cs", "spahgc_attention"):
            assert (dirty.obsm[key][inside.to_numpy()] != clean.obsm[key]).nnz == 0
            assert issparse(dirty.obsm[key]) and dirty.obsm[key][~inside.to_numpy()].nnz == 0
        assert dirty.obs["spahgc_support"][~inside].isna().all()
        assert np.isnan(dirty.layers["spahgc_std"][~inside]).all()


def test_a_model_says_the_same_of_a_target_with_glass(target, refs, quick_default):
    model = sp.tl.fit(refs, preset=quick_default)
    dirty = with_glass(target)
    inside = (dirty.obs["in_tissue"] == 1).to_numpy()
    clean = dirty[inside].copy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cross = model.cross_graph(dirty)
        for found in (model.predict(dirty), model.predict(dirty, cross=cross), model.predict_in_full(dirty).expression):
            np.testing.assert_array_equal(found[inside], model.predict(clean))
            assert np.isnan(found[~inside]).all()
        assert (model.attention(dirty)[inside] != model.attention(clean)).nnz == 0
        np.testing.assert_array_equal(model.support(dirty)[inside], model.support(clean))


def test_an_evaluation_leaves_out_spots_off_the_tissue(target, refs):
    dirty = with_glass(target)
    with pytest.warns(UserWarning, match="are not predicted"):
        sp.tl.predict(dirty, refs, method="ridge")
    clean = dirty[dirty.obs["in_tissue"] == 1].copy()
    expected = sp.tl.evaluate(clean)
    with pytest.warns(UserWarning, match="15 of 85 spots of the slide lie off the tissue .*left out of the evaluation"):
        found = sp.tl.evaluate(dirty)
    pd.testing.assert_frame_equal(found, expected)


def test_a_figure_draws_a_prediction_with_spots_off_the_tissue(target, refs):
    dirty = with_glass(target)
    with pytest.warns(UserWarning, match="are not predicted"):
        sp.tl.predict(dirty, refs, method="ridge")
    gene = dirty.var_names[0]
    clean = dirty[dirty.obs["in_tissue"] == 1].copy()
    titles = [
        [ax.get_title() for ax in np.ravel(sp.pl.spatial_genes(slide, [gene], show=False))] for slide in (dirty, clean)
    ]
    assert titles[0] == titles[1]


# What the column may not hold.


@pytest.mark.parametrize("value", ["maybe", np.nan, 0.5])
def test_a_column_that_says_neither_yes_nor_no_is_refused(refs, value):
    refs[0].obs["in_tissue"] = refs[0].obs["in_tissue"].astype(object)
    refs[0].obs.loc[refs[0].obs_names[:3], "in_tissue"] = value
    with pytest.raises(ValueError, match='obs."in_tissue". of reference "P2S1" holds .* in 3 of 70 spots'):
        sp.pp.reference_bank(refs)


def test_a_slide_without_tissue_is_refused(target, refs):
    target.obs["in_tissue"] = 0
    with pytest.raises(ValueError, match="no spot of the target lies on the tissue"):
        sp.tl.predict(target, refs, method="ridge")


def test_the_column_of_hest_is_not_looked_at(refs):
    for slide in refs:
        slide.obs["in_tissue"] = 0
        slide.uns["hest"] = {"id": "A"}
    assert sp.pp.reference_bank(refs).n_obs == 210
