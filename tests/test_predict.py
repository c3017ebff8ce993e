"""A prediction: from the image alone, the same in whatever order things come, written where it should be."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.sparse import csr_matrix, issparse

import spahgc as sp
from spahgc import SpaHGC
from spahgc._parameters import Parameters
from spahgc.pp._genes import selected_genes

EMBEDDING = "X_sim"
CLOSE = {"rtol": 1e-4, "atol": 1e-4}
"""Float error of a few hundred training steps in single precision."""


@pytest.fixture(autouse=True)
def _on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sp.settings, "device", "cpu")


@pytest.fixture
def panel(refs: list[AnnData]) -> list[str]:
    return list(refs[0].var_names[::3])


@pytest.fixture(scope="module")
def model(_cohort: list[AnnData], quick: Parameters) -> SpaHGC:
    """A model of three slides and every third gene that no test may change."""
    return sp.tl.fit(_cohort[1:], genes=list(_cohort[1].var_names[::3]), preset=quick, device="cpu")


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails the test if a network is trained."""
    monkeypatch.setattr("spahgc.model.train_networks", lambda *a, **k: pytest.fail("trained before it was refused"))


def predicted(target: AnnData, refs=None, **options) -> np.ndarray:
    return sp.tl.predict(target, refs, copy=True, **options).layers["spahgc"]


def shuffled(slide: AnnData, seed: int) -> AnnData:
    return slide[np.random.default_rng(seed).permutation(slide.n_obs)].copy()


def fingerprint(adata: AnnData) -> str:
    digest = hashlib.sha256()
    matrix = adata.X
    for part in (matrix.data, matrix.indices, matrix.indptr) if issparse(matrix) else (matrix,):
        digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()


def image_only(slide: AnnData) -> AnnData:
    """The slide as somebody has it who has measured nothing."""
    return AnnData(
        obs=pd.DataFrame(index=slide.obs_names),
        obsm={key: slide.obsm[key].copy() for key in (EMBEDDING, "spatial")},
        uns={"spahgc": {"embeddings": dict(slide.uns["spahgc"]["embeddings"])}},
    )


# The target's own counts.


@pytest.mark.parametrize("selected", [False, True])
def test_prediction_ignores_the_targets_own_counts(target, refs, panel, quick, selected):
    options = {"preset": quick, "genes": None if selected else panel}
    expected = predicted(target, refs, **options)
    assert np.isfinite(expected).any()
    target.layers["counts"] = np.full(target.shape, np.nan)
    target.X = np.full(target.shape, np.nan, dtype=np.float32)
    target.obs["domain"] = np.nan
    target.obsm["truth_domains"][:] = np.nan
    np.testing.assert_array_equal(predicted(target, refs, **options), expected)


@pytest.mark.parametrize("method", ["ridge", "nearest", "mean"])
def test_baselines_ignore_the_targets_own_counts(target, refs, method):
    expected = predicted(target, refs, method=method)
    target.X = np.full(target.shape, np.nan, dtype=np.float32)
    np.testing.assert_array_equal(predicted(target, refs, method=method), expected)


def test_the_panel_is_selected_without_the_target(target, refs, quick, monkeypatch):
    monkeypatch.setitem(selected_genes.__kwdefaults__, "n_top", 30)
    expected = sp.pp.select_genes(refs, n_top=30)
    target.X = target.X[:, np.random.default_rng(0).permutation(target.n_vars)]
    sp.tl.predict(target, refs, preset=replace(quick, epochs=1))
    assert sorted(target.var_names[target.var["spahgc_panel"]]) == expected
    assert len(expected) < target.n_vars


def test_a_target_without_genes_gets_the_same_prediction_for_the_genes_of_the_panel(target, refs, panel, quick):
    expected = sp.tl.predict(target, refs, genes=panel, preset=quick, copy=True)[:, panel].layers["spahgc"]
    image = image_only(target)
    sp.tl.predict(image, refs, genes=panel, preset=quick)
    assert list(image.var_names) == panel
    assert image.var["spahgc_panel"].all()
    np.testing.assert_array_equal(image.layers["spahgc"], expected)
    assert {EMBEDDING, "spatial", "spahgc_cs", "spahgc_attention"} <= set(image.obsm)
    assert list(image.obs_names) == list(target.obs_names)


def test_a_copy_of_a_target_without_genes_is_filled_and_the_target_is_not(target, model):
    image = image_only(target)
    filled = sp.tl.predict(image, model=model, copy=True)
    assert image.shape == (target.n_obs, 0) and "predictions" not in image.uns["spahgc"]
    np.testing.assert_array_equal(filled.layers["spahgc"], model.predict(target))


def test_a_target_without_genes_keeps_what_it_carries(target, model):
    image = image_only(target)
    sp.pp.spatial_graph(image)
    image.obs["mine"] = 1
    image.uns["mine"] = "note"
    sp.tl.predict(image, model=model)
    assert "mine" in image.obs and image.uns["mine"] == "note"
    assert "spatial_connectivities" in image.obsp


def test_a_target_without_genes_is_predicted_twice(target, model):
    image = image_only(target)
    sp.tl.predict(image, model=model)
    first = image.layers["spahgc"].copy()
    sp.tl.predict(image, model=model)
    np.testing.assert_array_equal(image.layers["spahgc"], first)


# Orders.


def test_permuting_the_spots_permutes_the_prediction(target, model):
    order = np.random.default_rng(0).permutation(target.n_obs)
    np.testing.assert_allclose(model.predict(target[order].copy()), model.predict(target)[order], **CLOSE)


def test_the_names_of_the_spots_do_not_matter(target, model):
    expected = model.predict(target)
    target.obs_names = [f"spot{i}" for i in np.random.default_rng(0).permutation(target.n_obs)]
    np.testing.assert_array_equal(model.predict(target), expected)


def test_the_order_of_the_targets_genes_does_not_matter(target, model):
    expected = sp.tl.predict(target, model=model, copy=True)
    order = np.random.default_rng(0).permutation(target.n_vars)
    other = sp.tl.predict(target[:, order].copy(), model=model, copy=True)
    np.testing.assert_array_equal(other.layers["spahgc"], expected.layers["spahgc"][:, order])


def in_another_order(refs: list[AnnData]) -> list[AnnData]:
    return refs[::-1]


def with_spots_permuted(refs: list[AnnData]) -> list[AnnData]:
    return [shuffled(slide, seed) for seed, slide in enumerate(refs)]


def with_genes_permuted(refs: list[AnnData]) -> list[AnnData]:
    return [slide[:, np.random.default_rng(seed).permutation(slide.n_vars)].copy() for seed, slide in enumerate(refs)]


def as_one_object(refs: list[AnnData]) -> AnnData:
    return ad.concat(refs, uns_merge="same")


def as_one_object_permuted(refs: list[AnnData]) -> AnnData:
    return shuffled(as_one_object(refs), 7)


def as_a_tuple_of_views(refs: list[AnnData]) -> tuple[AnnData, ...]:
    return tuple(slide[:] for slide in refs)


@pytest.mark.parametrize(
    "arrange",
    [
        in_another_order,
        with_spots_permuted,
        with_genes_permuted,
        as_one_object,
        as_one_object_permuted,
        as_a_tuple_of_views,
        iter,
        sp.pp.reference_bank,
    ],
)
def test_the_arrangement_of_the_references_does_not_matter(target, refs, quick, arrange):
    expected = predicted(target, refs, preset=quick)
    np.testing.assert_allclose(predicted(target, arrange(refs), preset=quick), expected, **CLOSE)


@pytest.mark.parametrize("method", ["ridge", "nearest", "mean"])
def test_the_arrangement_of_the_references_does_not_matter_to_baselines(target, refs, method):
    expected = predicted(target, refs, method=method)
    arranged = as_one_object_permuted(with_genes_permuted(refs))
    np.testing.assert_allclose(predicted(target, arranged, method=method), expected, **CLOSE)


def test_two_predictions_of_one_model_are_identical(target, model):
    np.testing.assert_array_equal(model.predict(target), model.predict(target))


def test_a_prediction_from_references_is_that_of_the_model_they_give(target, refs, panel, quick, model):
    expected = model.predict(target)
    sp.tl.predict(target, refs, genes=panel, preset=quick, seed=0)
    np.testing.assert_array_equal(target[:, panel].layers["spahgc"], expected)


def test_another_seed_gives_another_prediction(target, refs, panel, quick):
    first, second = (predicted(target, refs, genes=panel, preset=quick, seed=seed) for seed in (0, 1))
    assert np.nanmax(np.abs(first - second)) > 1e-3


def test_one_reference_alone_gives_a_prediction(target, refs, panel, quick):
    sp.tl.predict(target, refs[0], genes=panel, preset=quick)
    assert np.isfinite(target[:, panel].layers["spahgc"]).all()
    assert target.uns["spahgc"]["predictions"]["spahgc"]["references"] == ["P2S1"]


# What is written.


def test_predictions_are_float32_and_nan_outside_the_panel(target, model, panel):
    sp.tl.predict(target, model=model)
    layer = target.layers["spahgc"]
    assert isinstance(layer, np.ndarray) and layer.dtype == np.float32 and layer.shape == target.shape
    inside = target.var_names.isin(panel)
    assert np.isfinite(layer[:, inside]).all()
    assert np.isnan(layer[:, ~inside]).all()
    assert target.var["spahgc_panel"].dtype == bool
    np.testing.assert_array_equal(target.var["spahgc_panel"], inside)
    np.testing.assert_array_equal(layer[:, target.var_names.get_indexer(model.genes)], model.predict(target))


def test_predictions_are_in_the_units_of_the_references(target, refs, panel, quick):
    measured = sp.pp.reference_bank(refs, genes=panel).X.toarray()
    sp.tl.predict(target, refs, genes=panel, preset=replace(quick, epochs=30))
    mean = target[:, panel].layers["spahgc"].mean(axis=0)
    assert np.abs(mean - measured.mean(axis=0)).max() < 1.0
    assert np.corrcoef(mean, measured.mean(axis=0))[0, 1] > 0.9


def test_the_record_holds_all_that_is_needed_to_repeat_a_prediction(target, model, panel, quick):
    sp.tl.predict(target, model=model)
    record = target.uns["spahgc"]["predictions"]["spahgc"]
    assert record["units"] == "log1p counts per 10,000"
    assert record["genes"] == panel
    assert record["references"] == ["P1S2", "P2S1", "P2S2"]
    assert record["embedding"] == EMBEDDING
    assert record["encoder"] == target.uns["spahgc"]["embeddings"][EMBEDDING]
    assert (record["seed"], record["method"], record["preset"], record["device"]) == (0, "spahgc", "custom", "cpu")
    assert record["parameters"] == quick.to_dict()
    assert record["epochs_trained"] == quick.epochs
    assert record["versions"]["spahgc"] == sp.__version__
    assert {"python", "torch", "numpy", "anndata"} <= set(record["versions"])


def test_a_prediction_is_repeated_from_its_record(target, refs, model):
    sp.tl.predict(target, model=model)
    record = target.uns["spahgc"]["predictions"]["spahgc"]
    chosen = [slide for slide in refs if slide.obs["slide"].iloc[0] in record["references"]]
    again = predicted(
        target,
        chosen,
        genes=record["genes"],
        embedding=record["embedding"],
        preset=Parameters.from_dict(record["parameters"]),
        seed=record["seed"],
        device=record["device"],
        method=record["method"],
    )
    np.testing.assert_array_equal(again, target.layers["spahgc"])


def test_the_cross_graph_is_written_with_k_neighbours_for_every_spot(target, model):
    sp.tl.predict(target, model=model)
    graph = target.obsm["spahgc_cs"]
    assert graph.format == "csr"
    assert graph.shape == (target.n_obs, model.bank.n_obs)
    np.testing.assert_array_equal(np.diff(graph.indptr), 7)
    expected = sp.pp.cross_graph(target, model.bank, copy=True).obsm["spahgc_cs"]
    np.testing.assert_array_equal(graph.toarray(), expected.toarray())


def test_every_prediction_writes_the_graph_that_it_used_under_its_own_key(target, refs, model, quick):
    sp.tl.predict(target, model=model)
    first = target.obsm["spahgc_cs"].copy()
    sp.tl.predict(target, refs[1:], preset=replace(quick, n_cross=3, epochs=1), key_added="second")
    np.testing.assert_array_equal(target.obsm["spahgc_cs"].toarray(), first.toarray())
    np.testing.assert_array_equal(np.diff(target.obsm["second_cs"].indptr), 3)
    for key, n_bank in (("spahgc", 210), ("second", 140)):
        cross, attention = target.obsm[f"{key}_cs"], target.obsm[f"{key}_attention"]
        assert cross.shape == attention.shape == (target.n_obs, n_bank)
        np.testing.assert_array_equal(cross.indices, attention.indices)
        np.testing.assert_allclose(attention.sum(axis=1), 1, rtol=1e-5)
        assert len(target.uns["spahgc"]["predictions"][key]["bank_spots"]) == n_bank


def test_a_copy_leaves_the_original_untouched(target, model):
    before = target.copy()
    copied = sp.tl.predict(target, model=model, copy=True)
    assert "spahgc" in copied.layers
    assert set(target.layers) == set(before.layers) and set(target.obsm) == set(before.obsm)
    assert list(target.var) == list(before.var) and target.uns["spahgc"] == before.uns["spahgc"]
    assert sp.tl.predict(target, model=model) is None
    assert "spahgc" in target.layers


@pytest.mark.parametrize("method", ["spahgc", "ridge"])
def test_counts_are_never_modified(target, refs, quick, method):
    before = [fingerprint(slide) for slide in (target, *refs)]
    sp.tl.predict(target, refs, preset=quick, method=method)
    sp.tl.evaluate(target)
    assert [fingerprint(slide) for slide in (target, *refs)] == before


def test_references_are_not_written_to(target, refs, quick):
    before = [slide.copy() for slide in refs]
    sp.tl.predict(target, refs, preset=quick)
    for slide, old in zip(refs, before, strict=True):
        for part in ("obs", "var", "obsm", "obsp", "layers", "uns"):
            assert set(getattr(slide, part)) == set(getattr(old, part)), part
        assert slide.uns["spahgc"] == old.uns["spahgc"]


def test_a_view_as_target_is_written_to(target, model, panel):
    view = target[:, panel]
    with pytest.warns(ad.ImplicitModificationWarning):
        sp.tl.predict(view, model=model)
    np.testing.assert_array_equal(view.layers["spahgc"], model.predict(target))
    assert "spahgc" not in target.layers and "predictions" not in target.uns["spahgc"]


def test_predictions_under_two_keys_live_side_by_side(target, refs, panel, model):
    sp.tl.predict(target, model=model)
    network = target.layers["spahgc"].copy()
    sp.tl.predict(target, refs, genes=panel[:5], method="ridge", key_added="ridge")
    np.testing.assert_array_equal(target.layers["spahgc"], network)
    assert target.var["ridge_panel"].sum() == 5
    records = target.uns["spahgc"]["predictions"]
    assert (records["spahgc"]["method"], records["ridge"]["method"]) == ("spahgc", "ridge")
    assert records["ridge"]["genes"] == panel[:5]
    assert set(target.uns["spahgc"]["embeddings"]) == {EMBEDDING}


def test_a_new_prediction_forgets_what_was_said_of_the_old_one(target, refs, panel, model):
    sp.tl.predict(target, model=model)
    sp.tl.predict(target, model=model, key_added="kept")
    for key in ("spahgc", "kept"):
        sp.tl.evaluate(target, key=key)
    sp.tl.predict(target, refs, genes=panel, method="ridge")
    assert not {f"spahgc_{score}" for score in ("pearson", "spearman", "rmse", "mae")} & set(target.var)
    assert set(target.uns["spahgc"]["evaluations"]) == {"kept"}
    assert "kept_pearson" in target.var


@pytest.mark.parametrize("write", ["write_h5ad", "write_zarr"])
@pytest.mark.parametrize("bare", [False, True])
def test_every_output_survives_a_file(target, refs, model, panel, tmp_path, write, bare):
    slide = image_only(target) if bare else target
    sp.pp.spatial_graph(slide)
    sp.tl.predict(slide, model=model)
    sp.tl.predict(slide, refs, genes=panel, method="ridge", key_added="ridge")
    if not bare:
        sp.tl.evaluate(slide)
    getattr(slide, write)(tmp_path / "slide")
    back = (ad.read_h5ad if write == "write_h5ad" else ad.read_zarr)(tmp_path / "slide")
    for key in ("spahgc", "ridge"):
        np.testing.assert_array_equal(back.layers[key], slide.layers[key])
        old, new = (adata.uns["spahgc"]["predictions"][key] for adata in (slide, back))
        assert set(new) == set(old)
        assert list(new["genes"]) == old["genes"] and list(new["references"]) == old["references"]
        assert new["units"] == old["units"] and new["versions"] == old["versions"]
    assert new.get("parameters") == old.get("parameters")
    for graph in ("spahgc_cs", "spahgc_attention"):
        np.testing.assert_array_equal(back.obsm[graph].toarray(), slide.obsm[graph].toarray())
    np.testing.assert_array_equal(back.obsp["spatial_distances"].toarray(), slide.obsp["spatial_distances"].toarray())
    assert set(back.var) == set(slide.var)
    if not bare:
        assert back.uns["spahgc"]["evaluations"]["spahgc"] == pytest.approx(
            slide.uns["spahgc"]["evaluations"]["spahgc"]
        )
    again = sp.tl.predict(back, model=model, copy=True)  # and the slide that was read is as good as the one written
    np.testing.assert_array_equal(again.layers["spahgc"], slide.layers["spahgc"])


# Bad input.


def test_no_reference_at_all_is_refused(target):
    with pytest.raises(ValueError, match="no reference was given. Pass refs= with measured slides, or model="):
        sp.tl.predict(target)
    with pytest.raises(ValueError, match="no reference was given. Pass at least one measured slide"):
        sp.tl.predict(target, [])


def test_references_and_a_model_at_once_are_refused(target, refs, model):
    with pytest.raises(ValueError, match="both refs= and model= were given.*pass one of the two"):
        sp.tl.predict(target, refs, model=model)


def test_a_model_of_the_wrong_type_is_refused(target):
    with pytest.raises(TypeError, match=r"model= must be a SpaHGC, found str. Load one with SpaHGC.load\(folder\)"):
        sp.tl.predict(target, model="my_model")


def test_a_model_with_another_method_is_refused(target, model):
    with pytest.raises(ValueError, match='a model predicts with method="spahgc"; pass refs= to use method="ridge"'):
        sp.tl.predict(target, model=model, method="ridge")


def test_an_unknown_method_is_refused(target, refs):
    with pytest.raises(ValueError, match='method="lasso" is not known. Choose one of spahgc, mean, nearest, ridge'):
        sp.tl.predict(target, refs, method="lasso")


def test_an_unknown_preset_is_refused(target, refs):
    with pytest.raises(ValueError, match='preset="fast" is not known. Choose one of paper, default'):
        sp.tl.predict(target, refs, preset="fast")


@pytest.mark.parametrize("key", ["", "mine/now"])
def test_a_key_that_no_file_could_hold_is_refused(target, refs, key):
    with pytest.raises(ValueError, match=f'key_added="{key}" cannot name a layer'):
        sp.tl.predict(target, refs, key_added=key)


@pytest.mark.parametrize("wrong", [None, "slide.h5ad", np.zeros((3, 3))])
def test_a_target_of_the_wrong_type_is_refused(refs, wrong):
    with pytest.raises(TypeError, match="the target must be an AnnData, found"):
        sp.tl.predict(wrong, refs)


def test_a_target_without_the_embedding_is_told_how_to_get_it(target, refs, untrained):
    del target.obsm[EMBEDDING]
    with pytest.raises(KeyError, match=r'obsm\["X_sim"\] not found in the target.*Run spahgc.pp.embed'):
        sp.tl.predict(target, refs)


def test_a_target_without_the_embedding_of_the_model_is_told_how_to_get_it(target, model):
    del target.obsm[EMBEDDING]
    with pytest.raises(KeyError, match=r'obsm\["X_sim"\] not found in the target.*Run spahgc.pp.embed'):
        sp.tl.predict(target, model=model)
    with pytest.raises(KeyError, match=r'obsm\["X_sim"\] not found in the target'):
        model.predict(target)


def test_a_reference_without_the_embedding_is_named(target, refs, untrained):
    del refs[0].obsm[EMBEDDING]
    with pytest.raises(KeyError, match=r'obsm\["X_sim"\] not found in reference "P2S1".*Run spahgc.pp.embed'):
        sp.tl.predict(target, refs)


@pytest.mark.parametrize(("field", "value"), [("mpp", 0.5), ("interpolation", "area"), ("std", [1.0, 1.0, 1.0])])
def test_a_target_of_another_encoder_is_refused_and_the_field_is_named(target, refs, untrained, field, value):
    target.uns["spahgc"]["embeddings"][EMBEDDING][field] = value
    match = rf"the target and of the references come from different encoders \({field}: "
    with pytest.raises(ValueError, match=match):
        sp.tl.predict(target, refs)


def test_a_target_of_another_encoder_than_the_model_is_refused(target, model):
    target.uns["spahgc"]["embeddings"][EMBEDDING]["revision"] = "2"
    with pytest.raises(ValueError, match=r"different encoders \(revision: '2' and '1'\)"):
        model.predict(target)


def test_a_target_whose_embedding_has_another_width_is_refused(target, refs, untrained):
    target.obsm[EMBEDDING] = target.obsm[EMBEDDING][:, :9]
    with pytest.raises(ValueError, match="has 9 columns in the target and 24 in the references"):
        sp.tl.predict(target, refs)


def test_one_of_several_embeddings_must_be_named(target, refs, panel, quick):
    for slide in (target, *refs):
        slide.obsm["X_two"] = slide.obsm[EMBEDDING][:, :6]
        slide.uns["spahgc"]["embeddings"]["X_two"] = {"name": "two"}
    with pytest.raises(ValueError, match='several embeddings: "X_sim", "X_two". Say which one with embedding='):
        sp.tl.predict(target, refs, preset=quick)
    sp.tl.predict(target, refs, genes=panel, preset=quick, embedding="X_two")
    assert target.uns["spahgc"]["predictions"]["spahgc"]["embedding"] == "X_two"


def test_an_embedding_of_ones_own_without_a_record_works_when_it_is_named(target, refs, panel, quick):
    for slide in (target, *refs):
        slide.obsm["X_mine"] = slide.obsm[EMBEDDING][:, :6]
    sp.tl.predict(target, refs, genes=panel, preset=quick, embedding="X_mine")
    assert target.uns["spahgc"]["predictions"]["spahgc"]["encoder"] == {}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_target_with_coordinates_that_are_not_finite_is_refused(target, refs, untrained, value):
    target.obsm["spatial"][2, 0] = value
    with pytest.raises(ValueError, match="of the target has NaN or infinite coordinates in 1 of 70 spots"):
        sp.tl.predict(target, refs)


def test_a_target_with_nan_in_its_embedding_is_refused(target, refs, untrained):
    target.obsm[EMBEDDING][2, 0] = np.nan
    with pytest.raises(ValueError, match="of the target has NaN or infinite numbers in 1 of 70 spots"):
        sp.tl.predict(target, refs)


def test_a_target_with_a_single_spot_is_refused(target, refs, model, untrained):
    with pytest.raises(ValueError, match="the target has a single spot: it has no neighbour in the plane"):
        sp.tl.predict(target[:1].copy(), refs)
    with pytest.raises(ValueError, match="the target has a single spot"):
        sp.tl.predict(target[:1].copy(), model=model)


def test_a_target_with_fewer_spots_than_neighbours_is_predicted(target, model):
    assert np.isfinite(model.predict(target[:2].copy())).all()


def test_a_target_with_a_gene_named_twice_is_refused(target, refs, untrained):
    target.var_names = [target.var_names[1], *target.var_names[1:]]
    with pytest.raises(ValueError, match=r"the target: gene names are not unique.*var_names_make_unique\(\)"):
        sp.tl.predict(target, refs)


def test_a_target_with_a_spot_named_twice_is_refused(target, refs, untrained):
    target.obs_names = [target.obs_names[1], *target.obs_names[1:]]
    with pytest.raises(ValueError, match=r"the target: spot names are not unique.*obs_names_make_unique\(\)"):
        sp.tl.predict(target, refs)


LEAK = 'also among the references: .* stand in "P1S1". Their own expression would reach their prediction'


@pytest.mark.parametrize("method", ["spahgc", "ridge"])
def test_a_target_among_its_references_is_refused(target, refs, untrained, method):
    with pytest.raises(ValueError, match=LEAK):
        sp.tl.predict(target, [*refs, target], method=method)


def test_a_copy_of_the_target_among_its_references_is_refused(target, refs, untrained):
    with pytest.raises(ValueError, match=LEAK):
        sp.tl.predict(target, [*refs, target.copy()])


def test_the_target_under_another_name_among_its_references_is_refused(target, refs, untrained):
    disguised = target.copy()
    disguised.obs["slide"] = "somebody else"
    disguised.obs_names = [f"spot{i}" for i in range(disguised.n_obs)]
    with pytest.raises(ValueError, match='also among the references: .* stand in "somebody else"'):
        sp.tl.predict(target, [*refs, disguised])


def test_the_targets_spots_in_another_order_among_its_references_are_refused(target, refs, untrained):
    with pytest.raises(ValueError, match=LEAK):
        sp.tl.predict(target, [*refs, shuffled(target, 1)])


def test_the_target_inside_a_concatenated_object_of_references_is_refused(target, refs, untrained):
    with pytest.raises(ValueError, match=LEAK):
        sp.tl.predict(target, ad.concat([*refs, target], uns_merge="same"))


def test_the_target_without_its_empty_spots_among_its_references_is_refused(target, refs, untrained):
    with pytest.raises(ValueError, match="the target is also among the references"):
        sp.tl.predict(target, [*refs, target[2:].copy()])


@pytest.mark.parametrize("method", ["spahgc", "ridge"])
def test_a_target_inside_a_bank_is_refused(target, refs, panel, untrained, method):
    with pytest.raises(ValueError, match="the target is also among the references"):
        sp.tl.predict(target, sp.pp.reference_bank([*refs, target], genes=panel), method=method)


def test_a_target_that_the_model_was_trained_on_is_refused(refs, model):
    with pytest.raises(ValueError, match="the target is also among the references"):
        sp.tl.predict(refs[0], model=model)


def test_references_without_a_gene_in_common_are_refused(target, refs, untrained):
    refs[1].var_names = [f"ENSG{i}" for i in range(refs[1].n_vars)]
    with pytest.raises(ValueError, match="the references have no gene in common"):
        sp.tl.predict(target, refs)


def test_counts_with_nan_in_a_reference_are_refused(target, refs, untrained):
    refs[1].X[0, 0] = np.nan
    with pytest.raises(ValueError, match='X of reference "P1S2" has 1 NaN or infinite values'):
        sp.tl.predict(target, refs)


def test_references_with_fewer_spots_than_neighbours_are_refused(target, refs, panel, untrained):
    with pytest.raises(ValueError, match='reference "P2S1" has 6 spots with counts, too few for 7 neighbours'):
        sp.tl.predict(target, [refs[0][:6].copy(), *refs[1:]], genes=panel)


def test_genes_that_are_not_there_are_refused(target, refs, untrained):
    with pytest.raises(KeyError, match="1 of 1 genes not found in the genes that all references share"):
        sp.tl.predict(target, refs, genes=["ERBB2"])


def test_a_target_with_none_of_the_genes_is_refused(target, refs, model, untrained):
    target.var_names = [f"ENSG{i}" for i in range(target.n_vars)]
    match = "the target has none of the 20 genes of the panel.*or a target without genes"
    with pytest.raises(ValueError, match=match):
        sp.tl.predict(target, model=model)
    with pytest.raises(ValueError, match="the target has none of the 60 genes of the panel"):
        sp.tl.predict(target, refs)


def test_a_target_with_some_of_the_genes_gets_those_and_a_warning(target, model, panel):
    part = target[:, ~target.var_names.isin(panel[:3])].copy()
    with pytest.warns(
        UserWarning, match=f"3 of 20 genes of the panel are not among the genes of the target .*{panel[0]}"
    ):
        sp.tl.predict(part, model=model)
    assert part.var["spahgc_panel"].sum() == 17
    expected = model.predict(target)[:, 3:]
    np.testing.assert_array_equal(part[:, panel[3:]].layers["spahgc"], expected)


def test_a_prediction_too_large_for_memory_is_refused_before_training(target, refs, panel, untrained, monkeypatch):
    monkeypatch.setattr(sp.settings, "max_dense_gb", 1e-6)
    match = r"70 spots x 60 genes, dense. Predict into the panel alone with target\[:, genes\].copy\(\)"
    with pytest.raises(ValueError, match=match):
        sp.tl.predict(target, refs, genes=panel)


def test_a_prediction_too_large_for_memory_fits_into_the_panel_alone(target, model, monkeypatch):
    monkeypatch.setattr(sp.settings, "max_dense_gb", 70 * 30 * 4 / 1e9)
    with pytest.raises(ValueError, match=re.escape("raise spahgc.settings.max_dense_gb, now 8.4e-06")):
        sp.tl.predict(target, model=model)
    small = target[:, model.genes].copy()
    sp.tl.predict(small, model=model)
    assert np.isfinite(small.layers["spahgc"]).all()


def test_a_target_without_genes_counts_those_of_the_panel_against_memory(target, model, monkeypatch):
    monkeypatch.setattr(sp.settings, "max_dense_gb", 70 * 19 * 4 / 1e9)
    with pytest.raises(ValueError, match="70 spots x 20 genes, dense"):
        sp.tl.predict(image_only(target), model=model)


def test_an_unavailable_device_is_refused(target, refs, model, untrained):
    for source in ({"refs": refs}, {"model": model}):
        with pytest.raises(ValueError, match='device="cuda:99" is not available here'):
            sp.tl.predict(target, device="cuda:99", **source)


def test_a_refused_call_writes_nothing(target, refs, untrained):
    before = target.copy()
    with pytest.raises(KeyError):
        sp.tl.predict(target, refs, genes=["ERBB2"])
    for part in ("obs", "var", "obsm", "obsp", "layers", "uns"):
        assert set(getattr(target, part)) == set(getattr(before, part)), part
    assert target.uns["spahgc"] == before.uns["spahgc"]


def test_zero_count_spots_of_the_target_are_predicted(target, model):
    counts = target.X.toarray()
    counts[:5] = 0
    expected = model.predict(target)
    target.X = csr_matrix(counts)
    np.testing.assert_array_equal(model.predict(target), expected)


def test_a_bank_of_another_embedding_is_told_before_the_target_is_looked_at(target, refs, quick):
    bank = sp.pp.reference_bank(refs)
    target.obsm["X_new"] = target.obsm.pop(EMBEDDING)
    with pytest.raises(ValueError, match='the bank was made with embedding="X_sim", embedding="X_new" was asked for'):
        sp.tl.predict(target, bank, embedding="X_new", preset=quick)


def test_references_in_a_dictionary_are_refused(refs, quick):
    with pytest.raises(TypeError, match="must be an AnnData or a list of them, found dict"):
        sp.tl.fit({"a": refs[0], "b": refs[1]}, preset=quick)
