"""A prediction as the weighted average of experts: what each of them sees, what proves its weight, and its file."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
from anndata import AnnData
from safetensors.numpy import load_file, save_file
from scipy.sparse import csr_matrix

import spahgc as sp
from spahgc import Parameters, SpaHGC
from spahgc._linear.held_out import hold_out_each
from spahgc._linear.node_features import fit_node_features
from spahgc._parameters import EXPERTS, PRESETS
from spahgc._reading import UnreadableError
from spahgc._spots.rows import Spots
from spahgc._training import experts as _experts
from spahgc._training.experts import prove_experts
from spahgc._training.graphs import bank_spots
from spahgc._training.model_files import checksums
from spahgc.pp._bank.references import as_bank, embedding_blocks

EMBEDDING = "X_sim"
CLOSE = {"rtol": 1e-4, "atol": 1e-4}
"""Float error of a few training steps in single precision."""
QUICK = tuple(name for name in EXPERTS if "perceptron" not in name)
"""Experts that are trained in no time."""


@pytest.fixture(autouse=True)
def _on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sp.settings, "device", "cpu")


@pytest.fixture(scope="module")
def model(_cohort: list[AnnData], every_expert: Parameters) -> SpaHGC:
    """A model of three slides, of all experts, that no test may change."""
    return sp.tl.fit(_cohort[1:], preset=every_expert, device="cpu")


@pytest.fixture
def folder(model: SpaHGC, tmp_path: Path) -> Path:
    model.save(tmp_path / "model")
    return tmp_path / "model"


# Which experts.


def test_the_default_averages_all_experts_but_the_line():
    assert set(PRESETS["default"].experts) == set(EXPERTS) - {"line"}
    assert PRESETS["paper"].experts == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"experts": ("forest",)},
            r"experts=\('forest',\) names one that is not known, or one twice. Known are line, ker",
        ),
        ({"experts": ("kernel", "line", "kernel")}, "names one that is not known, or one twice"),
        ({"epochs": 0}, 'epochs=0 trains no graph. Leave "graph" out of experts=, or pass epochs='),
        ({"line": False}, "experts= predict components of the transcriptome. Pass line=True and n_components= as well"),
        ({"n_components": 0, "weigh_genes": False}, "experts= predict components of the transcriptome. Pass line=True"),
    ],
)
def test_experts_that_make_no_model_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Parameters.preset("default", **changes)


def test_the_line_as_the_only_expert_is_the_line(target, refs, quick_default):
    expert = sp.tl.fit(refs, preset=replace(quick_default, experts=("line",)))
    line = sp.tl.fit(refs, preset=replace(quick_default, experts=(), epochs=0))
    assert expert.networks == [] and expert.history == []
    np.testing.assert_allclose(expert.predict(target), line.predict(target), rtol=1e-6, atol=1e-6)


def test_the_prediction_is_the_weighted_mean_of_what_each_expert_says_alone(target, refs, quick_default):
    blend = sp.tl.fit(refs, preset=replace(quick_default, experts=QUICK))
    assert all(blend.experts.uses(name) for name in QUICK)
    alone = {name: sp.tl.fit(refs, preset=replace(quick_default, experts=(name,))).predict(target) for name in QUICK}
    expected = np.sum([blend.experts.weights[name] * said for name, said in alone.items()], axis=0)
    np.testing.assert_allclose(blend.predict(target), expected, **CLOSE)
    assert max(np.abs(said - expected).max() for said in alone.values()) > 0.1


def test_weights_add_up_to_one_and_stand_in_the_record(target, model, tmp_path):
    weights = model.experts.weights
    assert list(weights) == list(EXPERTS)
    assert sum(weights.values()) == pytest.approx(1) and min(weights.values()) >= 0
    sp.tl.predict(target, model=model)
    target.write_h5ad(tmp_path / "slide.h5ad")
    record = ad.read_h5ad(tmp_path / "slide.h5ad").uns["spahgc"]["predictions"]["spahgc"]
    assert {name: float(weight) for name, weight in record["experts"].items()} == weights


def test_a_model_without_experts_names_none_in_its_record(target, refs, line_and_graph):
    sp.tl.predict(target, refs, preset=line_and_graph)
    assert "experts" not in target.uns["spahgc"]["predictions"]["spahgc"]


def test_what_earns_nothing_is_neither_trained_nor_stored(target, refs, quick_default, tmp_path, monkeypatch):
    preset = replace(quick_default, experts=("kernel", "kernel_overall", "graph"))
    monkeypatch.setattr(_experts, "prove_weights", lambda said, _: dict(zip(said, (1.0, 0.0, 0.0), strict=True)))
    model = sp.tl.fit(refs, preset=preset)
    assert model.networks == [] and list(model.experts.fitted) == ["kernel"]
    model.save(tmp_path / "model")
    names = set(load_file(tmp_path / "model" / "network.safetensors"))
    assert not any(name.startswith(("networks.", "experts.kernel_overall.")) for name in names)
    loaded = SpaHGC.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict(target), model.predict(target))
    with pytest.raises(
        ValueError, match='the graph is not among its experts, or earned no weight .*experts=."graph",.'
    ):
        loaded.attention(target)
    sp.tl.predict(target, model=loaded)
    assert "spahgc_cs" in target.obsm and "spahgc_attention" not in target.obsm


# What the target and the order of things may change: nothing.


def test_the_targets_own_counts_change_nothing(target, model):
    expected = model.predict(target)
    target.X = np.full(target.shape, np.nan, dtype=np.float32)
    target.obsm["truth_domains"][:] = np.nan
    assert np.isfinite(expected).all()
    np.testing.assert_array_equal(model.predict(target), expected)


def test_the_order_of_references_and_spots_does_not_matter(target, refs, model, every_expert):
    rng = np.random.default_rng(0)
    permuted = [slide[rng.permutation(slide.n_obs), rng.permutation(slide.n_vars)].copy() for slide in refs[::-1]]
    again = sp.tl.fit(permuted, preset=every_expert)
    np.testing.assert_allclose(list(again.experts.weights.values()), list(model.experts.weights.values()), atol=1e-4)
    np.testing.assert_allclose(again.predict(target), model.predict(target), **CLOSE)


def test_permuting_the_spots_of_the_target_permutes_the_prediction(target, model):
    order = np.random.default_rng(0).permutation(target.n_obs)
    np.testing.assert_allclose(model.predict(target[order].copy()), model.predict(target)[order], **CLOSE)


def test_the_order_in_which_experts_are_named_changes_rounding_alone(target, refs, quick_default):
    one, other = (sp.tl.fit(refs, preset=replace(quick_default, experts=experts)) for experts in (QUICK, QUICK[::-1]))
    np.testing.assert_allclose(one.predict(target), other.predict(target), rtol=1e-5, atol=1e-5)


# References held out.


def proof_spots(slides: list[AnnData], parameters: Parameters) -> tuple[Spots, tuple[tuple[int, int], ...]]:
    """Spots and blocks of slides as a fit sees them, with all genes as the panel."""
    bank = as_bank(slides, genes="all", embedding=EMBEDDING, layer=None, parameters=parameters)
    return bank_spots(bank), embedding_blocks(bank)


def held_out_panel(
    spots: Spots, blocks: tuple[tuple[int, int], ...], parameters: Parameters, patients: np.ndarray | None = None
) -> np.ndarray:
    """What the experts say of each reference without having seen its expression."""
    nodes = fit_node_features(spots, blocks, parameters)
    return prove_experts(spots, blocks, nodes, parameters, patients=patients, seed=0, device="cpu").panel


def expressed_otherwise(spots: Spots, which: np.ndarray) -> Spots:
    """The spots with another order of spots and genes, and other numbers, in some of them."""
    rng, y, transcriptome = np.random.default_rng(0), spots.y.copy(), spots.transcriptome.toarray()
    for values in (y, transcriptome):
        values[which] = rng.permuted(values[which], axis=0)[:, rng.permutation(values.shape[1])] + 1
    return replace(spots, y=y, transcriptome=csr_matrix(transcriptome))


@pytest.mark.parametrize("expert", EXPERTS)
def test_held_out_prediction_ignores_the_references_own_expression(cohort, quick_default, expert):
    parameters = replace(quick_default, experts=(expert,))
    spots, blocks = proof_spots(cohort, parameters)
    own = spots.slide == "P1S1"
    before = held_out_panel(spots, blocks, parameters)
    after = held_out_panel(expressed_otherwise(spots, own), blocks, parameters)
    np.testing.assert_array_equal(before[own], after[own])
    assert not np.allclose(before[~own], after[~own])


def test_slides_of_a_patient_are_held_out_together(cohort, quick_default):
    parameters = replace(quick_default, experts=("kernel",))
    spots, blocks = proof_spots(cohort, parameters)
    patients = np.array([name[:2] for name in spots.slide])
    own, changed = patients == "P1", spots.slide == "P1S2"
    before = held_out_panel(spots, blocks, parameters, patients)
    after = held_out_panel(expressed_otherwise(spots, changed), blocks, parameters, patients)
    np.testing.assert_array_equal(before[own], after[own])
    assert not np.allclose(before[~own], after[~own])


def test_many_references_are_held_out_in_five_groups_and_each_spot_once(cohort, quick_default):
    spots, _ = proof_spots(cohort, quick_default)
    names = np.array([f"slide {i % 7}" for i in range(len(spots))])
    folds = list(hold_out_each(replace(spots, slide=names), quick_default, names))
    assert len(folds) == 5
    np.testing.assert_array_equal(np.sort(np.concatenate([fold.rows for fold in folds])), np.arange(len(spots)))
    for fold in folds:
        np.testing.assert_array_equal(np.sort(np.concatenate([fold.rows, fold.others])), np.arange(len(spots)))


def test_the_truth_of_a_fold_is_the_expression_on_the_components_of_the_others(cohort, quick_default):
    spots, _ = proof_spots(cohort, quick_default)
    fold = next(iter(hold_out_each(spots, quick_default, spots.slide)))
    assert fold.truth.shape == (len(fold.rows), fold.components.scores.shape[1])
    np.testing.assert_allclose(fold.components.scores_of(fold.spots), fold.components.scores, rtol=1e-4, atol=1e-4)
    # The components tell most of what differs between the spots held out, too.
    spread = fold.truth.std(axis=0)
    assert spread[0] > 0.3 * fold.components.scores[:, 0].std() and spread[0] > spread[-1]


def test_a_fold_may_have_more_components_than_all_references(cohort, quick_default):
    parameters = replace(quick_default, experts=("kernel", "graph"))
    spots, blocks = proof_spots(cohort, parameters)
    rng = np.random.default_rng(0)
    # Without order in space, about half of the genes have no weight, other ones in each fold.
    noise = replace(spots, transcriptome=csr_matrix(rng.permuted(spots.transcriptome.toarray()[:, :20], axis=0)))
    n_of_all = fit_node_features(noise, blocks, parameters).components.scores.shape[1]
    folds = hold_out_each(noise, parameters, noise.slide)
    assert max(fold.components.scores.shape[1] for fold in folds) > n_of_all
    assert np.isfinite(held_out_panel(noise, blocks, parameters)).all()


def test_spread_and_pcc_come_from_the_experts_and_not_from_a_line(target, refs, quick_default):
    models = [sp.tl.fit(refs, preset=replace(quick_default, experts=experts)) for experts in (("line",), ("kernel",))]
    assert not np.allclose(*(model.trust.correlation.pcc for model in models), equal_nan=True)


@pytest.mark.parametrize("n_spots", [70, 16])
def test_one_reference_is_enough_for_all_experts(target, refs, every_expert, n_spots):
    sp.tl.predict(target, [refs[0][:n_spots].copy()], preset=every_expert)
    assert np.isfinite(target.layers["spahgc"][:, target.var["spahgc_panel"]]).all()


# Files.


def test_a_model_saved_and_loaded_predicts_bit_for_bit_the_same(target, model, folder):
    loaded = SpaHGC.load(folder)
    assert loaded.parameters == model.parameters and loaded.experts.weights == model.experts.weights
    np.testing.assert_array_equal(loaded.predict(target), model.predict(target))
    np.testing.assert_array_equal(loaded.attention(target).toarray(), model.attention(target).toarray())
    loaded.save(folder.parent / "again")
    np.testing.assert_array_equal(SpaHGC.load(folder.parent / "again").predict(target), model.predict(target))


@pytest.mark.parametrize(
    "experts", [("line",), ("graph", "kernel"), ("kernel_overall",), ("perceptron_overall", "line")]
)
def test_a_model_of_some_experts_saved_and_loaded_predicts_the_same(target, refs, quick_default, tmp_path, experts):
    model = sp.tl.fit(refs, preset=replace(quick_default, experts=experts, by_slide=len(experts) > 1))
    model.save(tmp_path / "model")
    loaded = SpaHGC.load(tmp_path / "model")
    assert loaded.parameters.experts == experts
    np.testing.assert_array_equal(loaded.predict(target), model.predict(target))


def change_tensors(folder: Path, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    tensors = load_file(folder / "network.safetensors")
    change(tensors)
    save_file(tensors, folder / "network.safetensors")
    path = folder / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"sha256": checksums(folder)}))


@pytest.mark.parametrize(
    ("name", "change", "found"),
    [
        (
            "kernel_overall.landmarks",
            lambda part: part[:-1],
            '"experts.kernel_overall.coefficients" is|"experts.kernel_overall.landmarks" is',
        ),
        ("kernel_overall.landmarks", lambda part: part[:, :-1], 'the expert "kernel_overall" has "landmarks" of 210 x'),
        ("kernel.coefficients", lambda part: part[:, :-1], '"experts.kernel.penalties" is 30, expected is 29'),
        (
            "kernel.coefficients",
            lambda part: np.nan * part,
            '"experts.kernel.coefficients" has NaN or infinite numbers',
        ),
        ("kernel.slopes", lambda _: None, 'the expert "kernel" has no "slopes"'),
        (
            "kernel_overall.landmarks",
            lambda part: np.inf * part,
            '"experts.kernel_overall.landmarks" has NaN or infinite',
        ),
        ("kernel_overall.landmarks", lambda part: part[:, :-1], 'the expert "kernel_overall" has "landmarks" of 210 x'),
        ("perceptron.0.weight", lambda _: None, 'the expert "perceptron" has no "0.weight"'),
        ("perceptron.0.weight", lambda part: part[:, :-1], 'the expert "perceptron" has "0.weight" of 256 x'),
        ("perceptron.3.bias", lambda part: np.nan * part, '"experts.perceptron.3.bias" has NaN or infinite numbers'),
        ("perceptron.6.weight", lambda part: part[:-1], 'the expert "perceptron" has "6.weight" of'),
        ("perceptron.size", lambda part: 0 * part, '"experts.perceptron.size" is 0, expected is a positive number'),
        (
            "perceptron_overall.size",
            lambda part: -part,
            '"experts.perceptron_overall.size" is -.*, expected is a positive',
        ),
        ("perceptron_overall.size", lambda _: None, 'the expert "perceptron_overall" has no "size"'),
        ("axes.size", lambda part: 0 * part, '"experts.axes.size" is 0, expected is a positive number'),
        ("axes.axes.1", lambda _: None, '"experts.axes.axes" are of 1 views of a spot'),
        ("weights.kernel", lambda _: None, 'of the expert "kernel" only the parameters are there'),
        (
            "weights.kernel",
            lambda part: part + 0.5,
            "the weights of the experts are .*, expected are numbers from 0 on whose",
        ),
        ("weights.kernel", lambda part: np.nan * part, '"experts.weights.kernel" has NaN or infinite numbers'),
        (
            "weights.line",
            lambda part: -1 - part,
            "the weights of the experts are .*, expected are numbers from 0 on whose",
        ),
    ],
)
def test_an_expert_that_is_damaged_is_named(folder, name, change, found):
    def damage(tensors: dict[str, np.ndarray]) -> None:
        changed = change(tensors.pop(f"experts.{name}"))
        if changed is not None:
            tensors[f"experts.{name}"] = np.ascontiguousarray(changed)

    change_tensors(folder, damage)
    with pytest.raises(UnreadableError, match=f"({found}).*Copy the whole folder of the model again, or fit it again"):
        SpaHGC.load(folder)


def test_an_expert_that_the_parameters_do_not_name_is_refused(folder):
    path = folder / "model.json"
    description = json.loads(path.read_text())
    description["parameters"]["experts"] = ["kernel", "graph"]
    path.write_text(json.dumps(description))
    with pytest.raises(UnreadableError, match='of the expert "kernel_overall" only the weights are there'):
        SpaHGC.load(folder)


@pytest.mark.parametrize("experts", [["forest"], "kernel", [3], None])
def test_experts_of_a_file_that_are_none_are_refused(folder, experts):
    path = folder / "model.json"
    description = json.loads(path.read_text())
    description["parameters"]["experts"] = experts
    path.write_text(json.dumps(description))
    with pytest.raises(ValueError, match="Copy the whole folder of the model again, or fit it again"):
        SpaHGC.load(folder)


# A single reference, of which nothing can be held out


def test_a_single_reference_gives_equal_shares_to_what_sees_features_by_slide(cohort, every_expert):
    target, reference, other = cohort[:3]
    sp.tl.predict(target, reference, preset=every_expert)
    record = target.uns["spahgc"]["predictions"]["spahgc"]
    by_slide = {"line", "kernel", "perceptron", "graph"}
    assert {name for name, weight in record["experts"].items() if weight} == by_slide
    assert [record["experts"][name] for name in sorted(by_slide)] == pytest.approx([0.25] * 4)
    assert record["experts_proven"] is False
    sp.tl.predict(target, [reference, other], preset=replace(every_expert, experts=QUICK), key_added="two")
    assert target.uns["spahgc"]["predictions"]["two"]["experts_proven"] is True


def test_a_single_reference_is_heard_by_what_is_left_where_nothing_sees_features_by_slide(cohort, every_expert):
    preset = replace(every_expert, experts=("kernel_overall",))
    assert sp.tl.fit(cohort[1], preset=preset).experts.weights == {"kernel_overall": 1.0}


def test_halves_of_a_single_reference_still_tell_the_spread(cohort, every_expert):
    trust = sp.tl.fit(cohort[1], preset=replace(every_expert, experts=QUICK)).trust
    assert np.isfinite(trust.correlation.pcc).any()
