"""What each reference spot adds to a prediction: parts that add up to it, and what happens without those that add most."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import anndata as ad
import numpy as np
import pytest
from anndata import AnnData
from scipy.stats import spearmanr

import spahgc as sp
from spahgc import Parameters, SpaHGC
from spahgc._linear.kernel import fit_kernel_ridge
from spahgc._training import experts as experts_module
from spahgc._training.contributions import Contributions
from spahgc.tl import attribution

TOLERANCE = 1e-4
LINEAR = ("line", "kernel", "kernel_overall", "graph")


@pytest.fixture(autouse=True)
def _on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sp.settings, "device", "cpu")


@pytest.fixture(scope="module")
def linear(quick_default: Parameters) -> Parameters:
    """Without perceptrons."""
    return replace(quick_default, experts=LINEAR)


@pytest.fixture(scope="module")
def all_experts(_cohort, every_expert) -> SpaHGC:
    return sp.tl.fit([slide.copy() for slide in _cohort[1:]], preset=every_expert)


@pytest.fixture(scope="module")
def model(_cohort, linear) -> SpaHGC:
    return sp.tl.fit([slide.copy() for slide in _cohort[1:]], preset=linear)


def added(parts: Contributions) -> np.ndarray:
    return parts.mean + parts.total.sum(axis=1, dtype=float) + parts.remainder


def told_by_spots(model: SpaHGC) -> list[str]:
    """Experts of a model with a weight whose predictions are sums over reference spots."""
    return [name for name in LINEAR if model.experts.weights.get(name)]


def check_adds_up(model: SpaHGC, target: AnnData) -> Contributions:
    parts = model.contributions(target)
    expected = model.predict(target)
    np.testing.assert_allclose(added(parts), expected, atol=TOLERANCE)
    np.testing.assert_allclose(parts.prediction, expected, atol=TOLERANCE)
    return parts


def test_contributions_mean_and_remainder_add_up_to_the_prediction_of_all_experts(all_experts, target, tmp_path):
    parts = check_adds_up(all_experts, target)
    assert list(parts.by_expert) == told_by_spots(all_experts)
    assert {"perceptron", "perceptron_overall"} & set(parts.weights)
    assert np.abs(parts.remainder).max() > 0.01
    all_experts.save(tmp_path / "model")
    again = check_adds_up(SpaHGC.load(tmp_path / "model"), target)
    np.testing.assert_allclose(again.total, parts.total, atol=TOLERANCE)


def test_without_perceptrons_nothing_remains(model, target):
    parts = check_adds_up(model, target)
    assert set(parts.by_expert) == set(LINEAR)
    assert (parts.remainder == 0).all()


VARIANTS = {
    "line and graph": {"experts": ()},
    "line alone": {"experts": (), "epochs": 0},
    "graph alone": {"experts": ("graph",)},
    "two networks": {"experts": ("graph", "kernel"), "n_networks": 2},
    "standardised over all references": {"experts": LINEAR, "by_slide": False},
    "every reference retrieved": {"experts": LINEAR, "n_retrieved": 1000},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_linear_prediction_is_taken_apart_without_a_rest(variant, quick_default, target, refs, tmp_path):
    model = sp.tl.fit(refs, preset=replace(quick_default, place=False, **VARIANTS[variant]))
    assert (check_adds_up(model, target).remainder == 0).all()
    model.save(tmp_path / "model")
    assert (check_adds_up(SpaHGC.load(tmp_path / "model"), target).remainder == 0).all()


def test_retrieval_of_genes_themselves_is_taken_apart(target, refs):
    parameters = Parameters(width=32, layers=0, heads=2, epochs=2, n_retrieved=20, alignment=0)
    parts = check_adds_up(sp.tl.fit(refs, preset=parameters), target)
    assert set(parts.by_expert) == {"graph"}
    assert ((parts.total != 0).any(axis=2).sum(axis=1) <= 20).all()


def test_what_layers_make_of_a_spots_own_state_remains(quick_default, target, refs):
    parameters = replace(quick_default, experts=(), place=False, layers=1)
    assert np.abs(check_adds_up(sp.tl.fit(refs, preset=parameters), target).remainder).max() > 1e-3


def test_contributions_through_landmarks_are_those_of_all_spots(linear, target, refs, tmp_path, monkeypatch):
    through = partial(fit_kernel_ridge, max_exact=100, n_landmarks=60)
    monkeypatch.setattr(experts_module, "fit_kernel_ridge", through)
    model = sp.tl.fit(refs, preset=linear)
    assert len(model.experts.fitted["kernel"].landmarks) < model.bank.n_obs
    parts = check_adds_up(model, target)
    assert (np.abs(parts.by_expert["kernel"]).sum(axis=(0, 2)) > 0).all()
    model.save(tmp_path / "model")
    again = check_adds_up(SpaHGC.load(tmp_path / "model"), target)
    np.testing.assert_allclose(again.total, parts.total, atol=TOLERANCE)


def test_some_spots_and_genes_are_those_of_all(model, target):
    everything = model.contributions(target)
    genes = [model.genes[7], model.genes[2]]
    some = model.contributions(target, [9, target.obs_names[4]], genes)
    assert some.spots == list(target.obs_names[[9, 4]]) and some.genes == genes
    np.testing.assert_allclose(some.total, everything.total[[9, 4]][:, :, [7, 2]], atol=TOLERANCE)
    assert some.references == list(model.bank.obs_names)


def test_spots_off_the_tissue_are_refused_and_have_no_part(model, target):
    target.obs["in_tissue"] = 1
    target.obs.iloc[3, target.obs.columns.get_loc("in_tissue")] = 0
    with pytest.warns(UserWarning, match="off the tissue"):
        parts, expected = model.contributions(target, [2, 4]), model.predict(target)
    np.testing.assert_allclose(added(parts), expected[[2, 4]], atol=TOLERANCE)
    with (
        pytest.warns(UserWarning, match="off the tissue"),
        pytest.raises(ValueError, match=r"lie off the tissue .* nothing was predicted there"),
    ):
        model.contributions(target, [3])


def test_an_unknown_gene_or_spot_and_too_many_of_them_are_refused(model, target, monkeypatch):
    with pytest.raises(KeyError, match=r'"nothing" not found in the panel of the model'):
        model.contributions(target, genes=["nothing"])
    with pytest.raises(KeyError, match="spot 70 not found"):
        model.contributions(target, [70])
    with pytest.raises(ValueError, match=r"spots= is empty"):
        model.contributions(target, [])
    with pytest.raises(ValueError, match=r"cross= must be 70 target spots"):
        model.contributions(target, cross=model.cross_graph(target)[:5])
    monkeypatch.setattr(sp.settings, "max_dense_gb", 1e-6)
    with pytest.raises(ValueError, match=r"the contributions of 210 reference spots .* Pass fewer spots= or genes="):
        model.contributions(target)


def test_a_network_without_retrieval_has_no_parts(target, refs, quick):
    model = sp.tl.fit(refs, preset=quick)
    with pytest.raises(ValueError, match=r"no part of this model .* is linear in what the references express"):
        model.contributions(target)
    sp.tl.predict(target, model=model)
    with pytest.raises(ValueError, match="no part of this model"):
        attribution(target, 0, gene=model.genes[0], model=model)
    assert attribution(target, 0).attrs == {"expert": "graph", "share": 1.0}


def test_references_that_were_changed_after_the_fit_are_noticed(linear, target, refs):
    model = sp.tl.fit(refs, preset=linear)
    model.node_features.components.scores[:50] += 1
    with pytest.raises(ValueError, match="are no longer those on which it was fitted"):
        model.contributions(target)


# Without the spots that add most


def follow_morphology(model: SpaHGC, n: int) -> list[str]:
    """The genes that the image tells best, on references held out."""
    return [model.genes[i] for i in np.argsort(-np.nan_to_num(model.trust.correlation.pcc))[:n]]


def without(slides: list[AnnData], gone: set[str]) -> list[AnnData]:
    kept = []
    for slide in slides:
        name = slide.obs["slide"].iloc[0]
        kept.append(slide[[f"{name}:{spot}" not in gone for spot in slide.obs_names]].copy())
    return kept


def order_of_changes(model: SpaHGC, target: AnnData, refs: list[AnnData], parameters: Parameters, gene: str) -> float:
    """Spearman correlation, over 20 spots, of what the ten spots that add most add, and of what is lost without them."""
    spots = np.random.default_rng(0).choice(target.n_obs, 20, replace=False)
    parts = model.contributions(target, spots, [gene])
    names, said, changed = np.array(parts.references), [], []
    for i, spot in enumerate(spots):
        most = np.argsort(-np.abs(parts.total[i, :, 0]))[:10]
        less = sp.tl.fit(without(refs, set(names[most])), genes=model.genes, preset=parameters, trust=False)
        predicted = less.predict(target)[spot, less.genes.index(gene)]
        said.append(-parts.total[i, most, 0].sum())
        changed.append(predicted - parts.prediction[i, 0])
    return float(spearmanr(said, changed).statistic)


@pytest.mark.parametrize(("experts", "n_genes"), [(("kernel",), 2), (("line", "kernel"), 1)])
def test_without_the_ten_spots_that_add_most_the_prediction_changes_as_their_contributions_say(
    experts, n_genes, quick_default, target, refs
):
    parameters = replace(quick_default, experts=experts, place=False)
    model = sp.tl.fit(refs, preset=parameters)
    order = [order_of_changes(model, target, refs, parameters, gene) for gene in follow_morphology(model, n_genes)]
    assert np.mean(order) > 0.8


# The table


@pytest.fixture
def predicted(target, all_experts) -> AnnData:
    sp.tl.predict(target, model=all_experts)
    return target


def test_table_ranks_reference_spots_by_what_they_add(predicted, all_experts):
    gene = all_experts.genes[3]
    table = attribution(predicted, 5, gene=gene, model=all_experts)
    told = told_by_spots(all_experts)
    assert list(table.columns) == ["rank", "slide", "spot", "contribution", *told]
    assert len(table) == all_experts.bank.n_obs
    assert table["contribution"].abs().is_monotonic_decreasing and list(table["rank"][:2]) == [1, 2]
    np.testing.assert_allclose(table[told].sum(axis=1), table["contribution"])
    said = table.attrs
    assert said["mean"] + table["contribution"].sum() + said["remainder"] == pytest.approx(
        predicted[predicted.obs_names[5], gene].layers["spahgc"].item(), abs=TOLERANCE
    )
    assert said["prediction"] == pytest.approx(
        said["mean"] + sum(said["slides"].values()) + said["remainder"], abs=TOLERANCE
    )
    assert said["remainder"] != 0 and said["spot"] == predicted.obs_names[5] and said["gene"] == gene


def test_slides_add_what_their_spots_add(predicted, all_experts):
    gene = all_experts.genes[3]
    spots = attribution(predicted, 5, gene=gene, model=all_experts)
    slides = attribution(predicted, 5, gene=gene, model=all_experts, by="slide")
    assert list(slides.columns[:4]) == ["rank", "slide", "n_spots", "contribution"]
    sums = spots.groupby("slide")["contribution"].sum()
    np.testing.assert_allclose(slides["contribution"], sums[slides["slide"]], atol=1e-9)
    assert list(slides["n_spots"]) == [70, 70, 70]
    assert spots.attrs["slides"] == pytest.approx(dict(zip(slides["slide"], slides["contribution"], strict=True)))


def test_attention_alone_says_its_share(predicted, all_experts):
    table = attribution(predicted, 5)
    assert list(table.columns) == ["rank", "slide", "spot", "similarity", "attention"]
    assert table.attrs == {"expert": "graph", "share": pytest.approx(all_experts.experts.weights["graph"])}


def test_a_graph_without_weight_is_no_attention_to_show(target, refs, quick_default):
    parameters = replace(quick_default, experts=("kernel",), place=False)
    model = sp.tl.fit(refs, preset=parameters)
    sp.tl.predict(target, model=model)
    with pytest.raises(ValueError, match=r"gave the graph no weight .* Pass gene= and model="):
        attribution(target, 0)
    assert len(attribution(target, 0, gene=model.genes[0], model=model)) == 210


def test_another_model_and_a_changed_graph_are_refused(predicted, all_experts, model, refs, linear):
    gene = model.genes[0]
    with pytest.raises(ValueError, match=r'model= did not make the prediction "spahgc": its parameters or its seed'):
        attribution(predicted, 5, gene=gene, model=model)
    of_two = sp.tl.fit(refs[:2], preset=linear)
    with pytest.raises(ValueError, match="its reference spots are others"):
        attribution(predicted, 5, gene=gene, model=of_two)
    layer = predicted.layers["spahgc"].copy()
    predicted.layers["spahgc"] += 0.1
    with pytest.raises(ValueError, match=r"the layer or .* was changed since: the values are apart by 0\.1"):
        attribution(predicted, 5, gene=gene, model=all_experts)
    predicted.layers["spahgc"] = layer
    predicted.obsm["spahgc_cs"] = predicted.obsm["spahgc_cs"][:, :5]
    with pytest.raises(ValueError, match=r'obsm\["spahgc_cs"\] was changed since'):
        attribution(predicted, 5, gene=gene, model=all_experts)


def test_a_gene_needs_a_model_and_a_model_a_gene(predicted, all_experts):
    for given in ({"gene": all_experts.genes[0]}, {"model": all_experts}):
        with pytest.raises(ValueError, match="gene= and model= belong together"):
            attribution(predicted, 5, **given)
    with pytest.raises(KeyError, match="not found in the panel of the model"):
        attribution(predicted, 5, gene="nothing", model=all_experts)
    with pytest.raises(TypeError, match="model= must be a SpaHGC, found str"):
        attribution(predicted, 5, gene=all_experts.genes[0], model="model")


def test_a_table_of_a_slide_from_a_file_and_a_model_from_a_folder_is_the_same(predicted, all_experts, tmp_path):
    gene = all_experts.genes[3]
    expected = attribution(predicted, 5, gene=gene, model=all_experts)
    predicted.write_h5ad(tmp_path / "target.h5ad")
    all_experts.save(tmp_path / "model")
    actual = attribution(
        ad.read_h5ad(tmp_path / "target.h5ad"), 5, gene=gene, model=SpaHGC.load(tmp_path / "model")
    ).set_index(["slide", "spot"])
    actual = actual.loc[list(zip(expected["slide"], expected["spot"], strict=True))]
    np.testing.assert_allclose(actual["contribution"], expected["contribution"], atol=TOLERANCE)


# Where references lie on the target


def test_what_references_measured_at_the_place_is_taken_apart_too(linear):
    target, *refs = same_place()
    model = sp.tl.fit(refs, embedding="X_blind", preset=replace(linear, experts=("kernel", "graph")))
    sp.tl.predict(target, model=model)
    assert target.uns["spahgc"]["predictions"]["spahgc"]["place"]["known"]
    parts = check_adds_up(model, target)
    assert set(parts.by_expert) & {"kernel_plus_place", "kernel_times_place"}
    assert (parts.remainder == 0).all()
    table = attribution(target, 5, gene=model.genes[0], model=model)
    assert table.attrs["prediction"] == pytest.approx(parts.prediction[5, 0], abs=TOLERANCE)
    sp.tl.predict(target, model=model, place=False)
    blind = attribution(target, 5, gene=model.genes[0], model=model)
    assert set(blind.attrs["experts"]) <= {"kernel", "graph"}


def same_place() -> list[AnnData]:
    """Sections of the same tissue, each with counts of its own."""
    base = sp.datasets.simulated(1, n_patients=1, n_spots=150, n_genes=40, seed=5)[0]
    slides, rng = [], np.random.default_rng(0)
    for i in range(3):
        slide = base.copy()
        (library,) = slide.uns["spatial"]
        slide.uns["spatial"] = {f"S{i}": slide.uns["spatial"].pop(library)}
        slide.obs["slide"] = f"S{i}"
        slide.obsm["X_blind"] = rng.normal(size=(slide.n_obs, 12)).astype(np.float32)
        slide.X = rng.poisson(slide.X.toarray()).astype(np.float32)
        slides.append(slide)
    return slides
