"""What users get who choose nothing: experts between the tissue's appearance and the transcriptome, among them the graph."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.sparse import csr_matrix

import spahgc as sp
from spahgc import Parameters, SpaHGC
from spahgc._linear.low_rank import ImageAxes
from spahgc._parameters import PRESETS
from spahgc._spots.rows import Spots

EMBEDDING = "X_sim"
CONTEXT = "scales 1,2; levels none; rotations 1"
CLOSE = {"rtol": 1e-4, "atol": 1e-4}
"""Float error of a few training steps in single precision."""


@pytest.fixture(autouse=True)
def _on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sp.settings, "device", "cpu")


@pytest.fixture(scope="module")
def line_only(line_and_graph: Parameters) -> Parameters:
    return replace(line_and_graph, epochs=0)


@pytest.fixture(scope="module")
def model(_cohort: list[AnnData], quick_default: Parameters) -> SpaHGC:
    """A model of three slides that no test may change."""
    return sp.tl.fit(_cohort[1:], preset=quick_default, device="cpu")


def predicted(target: AnnData, refs, **options) -> np.ndarray:
    return sp.tl.predict(target, refs, copy=True, **options).layers["spahgc"]


# The target's own counts, and orders.


def test_the_preset_that_users_get_ignores_the_targets_own_counts(target, refs, quick_default, monkeypatch):
    monkeypatch.setitem(PRESETS, "default", quick_default)
    expected = sp.tl.predict(target, refs, copy=True)
    assert expected.uns["spahgc"]["predictions"]["spahgc"]["preset"] == "default"
    target.X = np.full(target.shape, np.nan, dtype=np.float32)
    target.layers["counts"] = target.X.copy()
    target.obs["domain"] = np.nan
    target.obsm["truth_domains"][:] = np.nan
    actual = sp.tl.predict(target, refs, copy=True)
    assert np.isfinite(expected.layers["spahgc"]).all()
    for layer in ("spahgc", "spahgc_std"):
        np.testing.assert_array_equal(actual.layers[layer], expected.layers[layer])
    for graph in ("spahgc_cs", "spahgc_attention"):
        np.testing.assert_array_equal(actual.obsm[graph].toarray(), expected.obsm[graph].toarray())
    np.testing.assert_array_equal(actual.obs["spahgc_support"], expected.obs["spahgc_support"])


def with_everything_permuted(refs: list[AnnData]) -> list[AnnData]:
    rng = np.random.default_rng(0)
    return [slide[rng.permutation(slide.n_obs), rng.permutation(slide.n_vars)].copy() for slide in refs[::-1]]


def as_one_object(refs: list[AnnData]) -> AnnData:
    return ad.concat(with_everything_permuted(refs), uns_merge="same")


@pytest.mark.parametrize("arrange", [with_everything_permuted, as_one_object, sp.pp.reference_bank])
def test_the_arrangement_of_the_references_does_not_matter(target, refs, model, quick_default, arrange):
    again = sp.tl.fit(arrange(refs), preset=quick_default)
    np.testing.assert_allclose(again.predict(target), model.predict(target), **CLOSE)


def test_permuting_the_spots_permutes_the_prediction(target, model):
    order = np.random.default_rng(0).permutation(target.n_obs)
    np.testing.assert_allclose(model.predict(target[order].copy()), model.predict(target)[order], **CLOSE)


# What is found.


@pytest.mark.parametrize(
    ("construction", "epochs"), [("line_and_graph", 0), ("line_and_graph", 30), ("quick_default", 30)]
)
def test_genes_that_follow_the_morphology_are_found_and_others_are_not(cohort, construction, epochs, request):
    preset, by_slide = replace(request.getfixturevalue(construction), epochs=epochs), []
    for i, target in enumerate(cohort):
        refs = cohort[:i] + cohort[i + 1 :]
        sp.tl.predict(target, refs, genes="all", preset=preset)
        scores = sp.tl.evaluate(target).groupby(target.var["truth_kind"].astype(str))[["pearson", "rmse"]].mean()
        assert scores["pearson"]["morphology"] > 0.6
        sp.tl.predict(target, refs, genes="all", method="mean", key_added="mean")
        of_the_mean = sp.tl.evaluate(target, key="mean")["rmse"][target.var["truth_kind"] == "morphology"].mean()
        assert scores["rmse"]["morphology"] < 0.85 * of_the_mean
        by_slide.append(scores["pearson"])
    # The hidden genes move together, so that their mean on one slide is chance of about .1 to either side.
    mean = pd.concat(by_slide, axis=1).mean(axis=1)
    assert abs(mean["hidden"]) < 0.15 and abs(mean["flat"]) < 0.15


def test_predictions_have_the_mean_of_a_typical_reference(target, refs, model):
    bank = sp.pp.reference_bank(refs, genes=model.genes)
    names = bank.obs["slide"]
    typical = np.mean([bank[names == name].X.toarray().mean(axis=0) for name in names.unique()], axis=0)
    assert np.abs(model.predict(target).mean(axis=0) - typical).max() < 0.25


# A line and a network.


def test_the_share_of_the_network_is_that_of_its_prediction(target, refs, line_and_graph):
    def with_share(share: float, **changes) -> np.ndarray:
        model = sp.tl.fit(refs, preset=replace(line_and_graph, graph_share=share, **changes))
        return model.predict(target)

    line, graph = with_share(0.0), with_share(1.0)
    np.testing.assert_allclose(line, with_share(0.25, epochs=0), rtol=1e-6)
    np.testing.assert_allclose(graph, with_share(0.25, line=False), rtol=1e-6)
    assert np.abs(line - graph).max() > 0.1
    for share in (0.25, 0.7):
        np.testing.assert_allclose(with_share(share), share * graph + (1 - share) * line, rtol=1e-5, atol=1e-5)


def weights_of(folder: Path) -> set[str]:
    """Names of the tensors in the weights file."""
    content = (folder / "network.safetensors").read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return set(header) - {"__metadata__"}


def test_a_line_alone_has_no_network_and_no_attention(target, refs, line_only, tmp_path):
    model = sp.tl.fit(refs, preset=line_only)
    assert model.networks == [] and model.history == []
    model.save(tmp_path / "model")
    assert {name.split(".")[0] for name in weights_of(tmp_path / "model")} == {"node_features", "trust"}
    sp.tl.predict(target, model=SpaHGC.load(tmp_path / "model"))
    np.testing.assert_array_equal(target[:, model.genes].layers["spahgc"], model.predict(target))
    assert "spahgc_cs" in target.obsm and "spahgc_attention" not in target.obsm
    assert target.uns["spahgc"]["predictions"]["spahgc"]["epochs_trained"] == 0


VARIANTS = {
    "line and network": {},
    "line alone": {"epochs": 0},
    "network alone": {"line": False},
    "by slide": {"by_slide": True},
    "genes for components": {"n_components": 0, "weigh_genes": False},
    "one number of components": {"n_components": 5},
    "without surroundings": {"n_around": 0},
    "two networks": {"n_networks": 2},
}


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_a_model_saved_and_loaded_predicts_bit_for_bit_the_same(target, refs, line_and_graph, tmp_path, changes):
    model = sp.tl.fit(refs, preset=replace(line_and_graph, **changes))
    model.save(tmp_path / "model")
    loaded = SpaHGC.load(tmp_path / "model")
    assert loaded.parameters == model.parameters
    assert np.isfinite(model.predict(target)).all()
    np.testing.assert_array_equal(loaded.predict(target), model.predict(target))
    np.testing.assert_array_equal(loaded.cross_graph(target).toarray(), model.cross_graph(target).toarray())
    if model.networks:
        np.testing.assert_array_equal(loaded.attention(target).toarray(), model.attention(target).toarray())


def test_several_numbers_of_components_give_the_mean_of_their_predictions(target, refs, line_only, monkeypatch):
    # One penalty for all, and none in the read-out, whose size would depend on the number of components.
    monkeypatch.setattr("spahgc._linear.ridge.PENALTIES", (0.1,))
    monkeypatch.setattr("spahgc._linear.low_rank.LOADINGS_PENALTY", 0.0)

    def with_components(n: int | tuple[int, ...]) -> np.ndarray:
        return sp.tl.fit(refs, preset=replace(line_only, n_components=n)).predict(target)

    each = [with_components(n) for n in (1, 2, 3)]
    assert np.abs(each[0] - each[2]).max() > 0.05
    np.testing.assert_allclose(with_components((1, 2, 3)), np.mean(each, axis=0), atol=1e-5)
    np.testing.assert_allclose(with_components((3, 1)), np.mean([each[0], each[2]], axis=0), atol=1e-5)


# The map of the tissue.


SLIDES = np.repeat(["a", "b"], [30, 40])


def some_spots(dim: int = 8, seed: int = 0) -> Spots:
    """Two slides whose embedding differs in its mean."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(70, dim)) * rng.uniform(0.5, 2, dim) + (SLIDES == "b")[:, None]
    nothing = np.empty((70, 0), np.float32)
    return Spots(z.astype(np.float32), 100 * rng.random((70, 2)), SLIDES, nothing, csr_matrix(nothing))


def distances(x: np.ndarray) -> np.ndarray:
    return np.linalg.norm(x[:, None] - x[None], axis=2)


@pytest.mark.parametrize("by_slide", [True, False])
def test_the_map_of_the_references_is_theirs_of_size_one(by_slide):
    spots = some_spots()
    tissue, scores = ImageAxes.fit(spots, ((0, 8),), n_axes=5, n_around=4, by_slide=by_slide)
    assert scores.shape == (70, 10)
    assert np.sqrt(np.mean(scores**2)) == pytest.approx(1)
    np.testing.assert_allclose(tissue.transform(spots), scores, atol=1e-10)
    again = ImageAxes.from_arrays({name: np.atleast_1d(part) for name, part in tissue.to_arrays().items()})
    np.testing.assert_array_equal(again.transform(spots), tissue.transform(spots))


@pytest.mark.parametrize("by_slide", [True, False])
def test_blocks_weigh_the_same_however_many_columns_they_have(by_slide):
    spots = some_spots()
    wide = replace(spots, z=np.hstack([np.tile(spots.z[:, :5], 10), spots.z[:, 5:]]))
    options = {"n_axes": 100, "n_around": 4, "by_slide": by_slide}
    _, expected = ImageAxes.fit(spots, ((0, 5), (5, 8)), **options)
    _, actual = ImageAxes.fit(wide, ((0, 50), (50, 53)), **options)
    np.testing.assert_allclose(distances(actual), distances(expected), rtol=1e-5, atol=1e-5)
    _, lopsided = ImageAxes.fit(wide, ((0, 53),), **options)
    assert np.abs(distances(lopsided) - distances(expected)).max() > 0.5


def test_standardising_by_slide_removes_what_a_scanner_adds_to_a_slide_and_pooling_does_not():
    spots = some_spots()
    rng = np.random.default_rng(5)
    added = np.where((SLIDES == "b")[:, None], rng.uniform(0.3, 3, 8) * spots.z + rng.normal(size=8), spots.z)
    other = replace(spots, z=added.astype(np.float32))
    for by_slide in (True, False):
        _, before = ImageAxes.fit(spots, ((0, 8),), n_axes=8, n_around=4, by_slide=by_slide)
        _, after = ImageAxes.fit(other, ((0, 8),), n_axes=8, n_around=4, by_slide=by_slide)
        change = np.abs(distances(after) - distances(before)).max()
        assert change < 1e-4 if by_slide else change > 0.1


def scanned_otherwise(slide: AnnData) -> None:
    slide.obsm[EMBEDDING] = 3 * slide.obsm[EMBEDDING] + 1


@pytest.mark.parametrize("which", ["target", "a reference"])
def test_the_line_does_not_see_what_a_scanner_adds_to_a_slide(target, refs, line_only, which):
    expected = predicted(target, refs, preset=line_only)
    scanned_otherwise(target if which == "target" else refs[1])
    np.testing.assert_allclose(predicted(target, refs, preset=line_only), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("by_slide", [True, False])
def test_the_network_sees_how_slides_differ_unless_they_are_standardised_by_themselves(
    target, refs, line_and_graph, by_slide
):
    preset = replace(line_and_graph, by_slide=by_slide, line=False)
    expected = predicted(target, refs, preset=preset)
    scanned_otherwise(target)
    change = np.abs(predicted(target, refs, preset=preset) - expected).max()
    assert change < 1e-3 if by_slide else change > 0.05


# Embeddings with a context.


def with_context(slide: AnnData, seed: int) -> AnnData:
    """The slide with as many columns of garbage behind its embedding, and a record that tells of them."""
    slide = slide.copy()
    z = slide.obsm[EMBEDDING]
    garbage = 50 * np.random.default_rng(seed).normal(size=z.shape)
    slide.obsm[EMBEDDING] = np.hstack([z, garbage]).astype(np.float32)
    slide.uns["spahgc"]["embeddings"][EMBEDDING]["context"] = CONTEXT
    return slide


def test_the_paper_looks_at_the_plain_columns_of_an_embedding_alone(target, refs, quick, quick_default, tmp_path):
    wide_target, *wide_refs = (with_context(slide, seed) for seed, slide in enumerate([target, *refs]))
    paper = replace(PRESETS["paper"], width=quick.width, layers=2, epochs=2)
    plain, wide = sp.tl.fit(refs, preset=paper), sp.tl.fit(wide_refs, preset=paper)
    np.testing.assert_array_equal(wide.predict(wide_target), plain.predict(target))
    np.testing.assert_array_equal(wide.cross_graph(wide_target).toarray(), plain.cross_graph(target).toarray())
    wide.save(tmp_path / "model")
    np.testing.assert_array_equal(SpaHGC.load(tmp_path / "model").predict(wide_target), plain.predict(target))
    seen = predicted(wide_target, wide_refs, preset=quick_default) - predicted(target, refs, preset=quick_default)
    assert np.abs(seen).max() > 0.05  # the default looks at all of them


def test_an_embedding_that_does_not_fit_its_record_is_refused(refs, quick_default):
    for slide in refs:
        slide.uns["spahgc"]["embeddings"][EMBEDDING]["context"] = CONTEXT
    with pytest.raises(KeyError, match=f'"{EMBEDDING}_context".*not found.*Run spahgc.pp.embed again, or copy both'):
        sp.tl.fit(refs, preset=quick_default)
    for slide in refs:
        slide.obsm[f"{EMBEDDING}_context"] = np.ones((slide.n_obs, 10), np.float32)
    with pytest.raises(ValueError, match="tells of 48 columns .* but the embedding has 34. Run spahgc.pp.embed again"):
        sp.tl.fit(refs, preset=quick_default)


# Which genes.


@pytest.mark.parametrize("n_seen", [2, 3])
def test_all_genes_are_those_seen_in_one_percent_of_the_reference_spots(target, refs, line_only, n_seen):
    rare = refs[0].var_names[7]
    for place, slide in enumerate(refs):
        counts = slide.X.toarray()
        counts[:, 7] = 0
        counts[: n_seen if place == 0 else 0, 7] = 4
        slide.X = csr_matrix(counts)
    sp.tl.predict(target, refs, genes="all", preset=line_only)
    expected = (target.var_names != rare) | (n_seen >= 0.01 * 210)
    np.testing.assert_array_equal(target.var["spahgc_panel"], expected)
    np.testing.assert_array_equal(np.isfinite(target.layers["spahgc"]).all(axis=0), expected)


@pytest.mark.parametrize("construction", ["line_only", "line_and_graph", "quick_default"])
def test_a_gene_is_predicted_the_same_whatever_other_genes_are(target, refs, construction, request):
    preset, few = request.getfixturevalue(construction), list(refs[0].var_names[[3, 30, 50]])
    every = sp.tl.predict(target, refs, genes="all", preset=preset, copy=True)
    panel = sp.tl.predict(target, refs, genes=few, preset=preset, copy=True)
    assert every.var["spahgc_panel"].all() and panel.var["spahgc_panel"].sum() == 3
    np.testing.assert_allclose(every[:, few].layers["spahgc"], panel[:, few].layers["spahgc"], rtol=1e-5, atol=1e-5)


def test_a_bank_has_no_genes_but_those_of_its_panel(refs, line_only):
    panel = list(refs[0].var_names[:5])
    assert sp.tl.fit(sp.pp.reference_bank(refs, genes=panel), genes="all", preset=line_only).genes == panel


@pytest.mark.parametrize("method", ["spahgc", "ridge"])
def test_a_misspelt_choice_of_genes_is_refused(target, refs, method):
    refused = (
        'genes="al" is not known. Pass a list of genes, "all", "union" for references of different platforms, or None'
    )
    with pytest.raises(ValueError, match=refused):
        sp.tl.predict(target, refs, genes="al", method=method)
    with pytest.raises(ValueError, match='genes="al" is not known'):
        sp.tl.fit(sp.pp.reference_bank(refs), genes="al")


# Parameters.


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"line": True}, "stand on features that are standardised by slide. Pass n_axes= as well"),
        ({"n_components": 5}, "stand on features that are standardised by slide. Pass n_axes= as well"),
        ({"n_axes": 8, "weigh_genes": True}, "weigh_genes= is for the components .* Pass n_components= as well"),
        ({"epochs": 0}, "epochs=0 and line=False leave nothing that could predict. Pass one of the two"),
        ({"n_axes": 8, "n_components": (0, 2)}, r"n_components=\(0, 2\) must be a positive number, a tuple of"),
        ({"n_axes": 8, "n_components": ()}, r"n_components=\(\) must be a positive number"),
        ({"n_axes": 8, "n_components": -1}, "n_components=-1 must be a positive number"),
        ({"n_axes": 8, "n_components": [2, 3]}, r"n_components=\[2, 3\] must be a positive number, a tuple of"),
        ({"n_networks": 0}, "n_networks=0 trains nothing. Pass a positive number"),
        ({"graph_share": 1.5}, "graph_share=1.5 is no share. Pass a number from 0 to 1"),
    ],
)
def test_parameters_that_make_no_model_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Parameters(**values)


def test_unknown_parameters_are_refused_by_name():
    with pytest.raises(ValueError, match="unknown parameters: early_stopping, standardize. Known are: n_abundant, "):
        Parameters.from_dict({"standardize": True, "early_stopping": True, "epochs": 3})


@pytest.mark.parametrize(("kind", "n_components"), [("h5ad", (2, 3)), ("h5ad", (4,)), ("h5ad", 4), ("zarr", (2, 3))])
def test_parameters_come_back_from_the_record_of_a_prediction(
    target, refs, quick_default, tmp_path, kind, n_components
):
    preset = replace(quick_default, n_components=n_components, epochs=1)
    sp.tl.predict(target, refs, preset=preset)
    getattr(target, f"write_{kind}")(tmp_path / "slide")
    record = getattr(ad, f"read_{kind}")(tmp_path / "slide").uns["spahgc"]["predictions"]["spahgc"]
    read = Parameters.from_dict(record["parameters"])
    assert read == preset and hash(read) == hash(preset)
    again = sp.tl.fit(refs, genes=list(record["genes"]), preset=read, seed=int(record["seed"]))
    np.testing.assert_array_equal(again.predict(target), target[:, again.genes].layers["spahgc"])
    again.save(tmp_path / "model")
    assert SpaHGC.load(tmp_path / "model").parameters == preset


def test_both_presets_are_the_same_as_plain_numbers():
    for preset in PRESETS.values():
        assert Parameters.from_dict(json.loads(json.dumps(preset.to_dict()))) == preset


# Few references, and small ones.


@pytest.mark.parametrize("n_refs", [1, 2])
@pytest.mark.parametrize("n_spots", [70, 16])
def test_one_or_two_references_are_enough(target, refs, quick_default, n_refs, n_spots):
    sp.tl.predict(target, [slide[:n_spots].copy() for slide in refs[:n_refs]], preset=quick_default)
    assert np.isfinite(target.layers["spahgc"][:, target.var["spahgc_panel"]]).all()
    assert len(target.uns["spahgc"]["predictions"]["spahgc"]["references"]) == n_refs


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((15,), "the references are too small: one reference acts as two halves, and each must hold at least 8 spots"),
        ((7, 70), 'reference "P2S1" has 7 spots with counts, too few for 7 neighbours of a spot. Leave it out, or ask'),
    ],
)
def test_references_too_small_for_the_graph_are_refused(target, refs, quick_default, monkeypatch, sizes, message):
    monkeypatch.setattr("spahgc.model.train_networks", lambda *a, **k: pytest.fail("trained before it was refused"))
    small = [slide[:size].copy() for slide, size in zip(refs, sizes, strict=False)]
    with pytest.raises(ValueError, match=message):
        sp.tl.predict(target, small, preset=quick_default)


def test_a_target_of_two_spots_is_predicted(target, model):
    assert np.isfinite(model.predict(target[:2].copy())).all()
