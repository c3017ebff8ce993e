"""A model: the same for the same seed, saved and loaded without loss, and no wiser than the references."""

from __future__ import annotations

import copy
import json
import pickle
import re
import shutil
from dataclasses import replace
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import torch
from anndata import AnnData

import spahgc as sp
from spahgc import SpaHGC
from spahgc._parameters import PRESETS, Parameters, find_preset
from spahgc.pp._search.exact import cosine_neighbors

EMBEDDING = "X_sim"
FILES = {"model.json", "network.safetensors", "bank.h5ad"}


@pytest.fixture(autouse=True)
def _on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sp.settings, "device", "cpu")


@pytest.fixture(scope="module")
def fitted(_cohort: list[AnnData], quick: Parameters) -> SpaHGC:
    """A model of three slides that no test may change."""
    return sp.tl.fit(_cohort[1:], preset=quick, device="cpu")


@pytest.fixture
def saved(fitted: SpaHGC, tmp_path: Path) -> Path:
    fitted.save(tmp_path / "model")
    return tmp_path / "model"


def state(model: SpaHGC) -> dict[str, torch.Tensor]:
    """Weights of all networks."""
    return torch.nn.ModuleList(model.networks).state_dict()


def assert_same_networks(a: SpaHGC, b: SpaHGC) -> None:
    assert len(a.networks) == len(b.networks) > 0
    assert state(a).keys() == state(b).keys()
    for name, weights in state(a).items():
        assert torch.equal(weights, state(b)[name]), name


# Fit.


def test_a_preset_can_be_taken_with_changes():
    changed = Parameters.preset("default", precision="bf16")
    assert changed == replace(PRESETS["default"], precision="bf16")
    with pytest.raises(ValueError, match='preset="best" is not known'):
        Parameters.preset("best")


def test_a_seed_gives_the_same_model_again(refs, target, quick, fitted):
    torch.manual_seed(99)  # the state of torch's own stream plays no part
    again = sp.tl.fit(refs, preset=quick, seed=0)
    assert_same_networks(again, fitted)
    assert again.history == fitted.history
    np.testing.assert_array_equal(again.predict(target), fitted.predict(target))


def test_another_seed_gives_other_numbers(refs, target, quick, fitted):
    other = sp.tl.fit(refs, preset=quick, seed=1)
    assert np.abs(other.predict(target) - fitted.predict(target)).max() > 1e-3
    assert other.history != fitted.history


def test_fitting_leaves_torchs_random_stream_alone(refs, quick):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    sp.tl.fit(refs, preset=replace(quick, epochs=1))
    assert torch.equal(torch.rand(3), expected)


def test_a_model_knows_what_it_was_made_of(refs, fitted, quick):
    assert fitted.references == ["P1S2", "P2S1", "P2S2"]
    assert fitted.genes == sp.pp.select_genes(refs)
    assert fitted.embedding == EMBEDDING
    assert fitted.units == "log1p counts per 10,000"
    assert (fitted.preset, fitted.parameters, fitted.seed) == ("custom", quick, 0)
    assert fitted.versions["spahgc"] == sp.__version__
    assert {"python", "torch", "anndata"} <= set(fitted.versions)
    assert "genes=60, references=['P1S2', 'P2S1', 'P2S2'], spots=210" in repr(fitted)


def test_a_model_trains_for_the_epochs_of_its_preset(fitted, quick):
    assert [record.epoch for record in fitted.history] == list(range(1, quick.epochs + 1))
    assert fitted.history[-1].total < fitted.history[0].total


def test_fit_takes_a_bank_as_well_and_leaves_it_alone(refs, quick, quick_default, fitted):
    bank = sp.pp.reference_bank(refs)
    before = bank.copy()
    model = sp.tl.fit(bank, preset=quick_default)
    np.testing.assert_array_equal(
        bank.obsp["spahgc_rs_connectivities"].toarray(), before.obsp["spahgc_rs_connectivities"].toarray()
    )
    assert model.references == fitted.references
    assert_same_networks(sp.tl.fit(bank, preset=quick), fitted)


def test_fit_cuts_a_bank_to_the_genes_and_the_neighbours_asked_for(refs, target, quick):
    genes = list(refs[0].var_names[10:20])
    few = replace(quick, n_reference=4)
    from_bank = sp.tl.fit(sp.pp.reference_bank(refs), genes=genes, preset=few)
    direct = sp.tl.fit(refs, genes=genes, preset=few)
    assert from_bank.genes == direct.genes == genes
    assert_same_networks(from_bank, direct)
    np.testing.assert_array_equal(from_bank.predict(target), direct.predict(target))


def test_a_bank_of_another_embedding_is_refused(refs, quick):
    with pytest.raises(ValueError, match='the bank was made with embedding="X_sim", embedding="X_uni" was asked for'):
        sp.tl.fit(sp.pp.reference_bank(refs), embedding="X_uni", preset=quick)


def test_one_reference_alone_is_enough(target, refs, quick):
    model = sp.tl.fit(refs[0], preset=quick)
    assert model.references == ["P2S1"]
    assert np.isfinite(model.predict(target)).all()
    assert_same_networks(sp.tl.fit([refs[0]], preset=quick), model)


def test_one_reference_too_small_for_two_halves_is_refused(refs, quick):
    with pytest.raises(ValueError, match="one reference acts as two halves, and each must hold at least 8 spots"):
        sp.tl.fit(refs[0][:15].copy(), preset=quick)
    assert len(sp.tl.fit(refs[0][:16].copy(), preset=quick).history) == quick.epochs


def test_an_unknown_preset_is_refused(refs):
    with pytest.raises(ValueError, match='preset="best" is not known. Choose one of paper, default'):
        sp.tl.fit(refs, preset="best")


def test_an_unavailable_device_is_refused_before_anything_is_computed(refs, quick, monkeypatch):
    monkeypatch.setattr("spahgc.model.train_networks", lambda *a, **k: pytest.fail("trained"))
    with pytest.raises(ValueError, match='device="cuda:99" is not available here .*Pass device="cpu"'):
        sp.tl.fit(refs, preset=quick, device="cuda:99")


def test_the_device_of_the_settings_is_used(refs, quick, monkeypatch):
    monkeypatch.setattr(sp.settings, "device", "cuda:99")
    with pytest.raises(ValueError, match='device="cuda:99" is not available here'):
        sp.tl.fit(refs, preset=quick)


def test_the_preset_of_the_paper_is_its_table_to_the_letter():
    assert PRESETS["paper"] == Parameters(
        n_abundant=0,
        n_spatial=5,
        n_cross=7,
        n_reference=7,
        n_axes=0,
        n_components=0,
        weigh_genes=False,
        line=False,
        n_networks=1,
        width=256,
        layers=4,
        heads=4,
        target_hidden=0.8,
        reference_hidden=0.9,
        alignment=1.0,
        epochs=200,
        learning_rate=1e-4,
        weight_decay=1e-4,
    )
    assert find_preset("paper") is PRESETS["paper"]


@pytest.mark.parametrize("preset", ["quick", "quick_default"])
def test_a_model_predicts_on_the_peers_that_its_nodes_had_in_training(refs, preset, request):
    parameters = replace(request.getfixturevalue(preset), epochs=1)
    model = sp.tl.fit(refs, preset=parameters)
    carried = np.hstack([model.node_features.features, model.node_features.expression])
    expected = cosine_neighbors(carried, carried, parameters.n_reference, exclude_self=True)
    assert (model.bank.obsp["spahgc_rs_connectivities"] != expected).nnz == 0


def test_an_embedding_standardised_by_slide_forgets_what_a_scanner_adds(target, refs, quick, tmp_path):
    parameters = replace(quick, standardized=True)
    model = sp.tl.fit(refs, preset=parameters)
    changed = target.copy()
    changed.obsm["X_sim"] = changed.obsm["X_sim"] * 3 + 5
    np.testing.assert_allclose(model.predict(changed), model.predict(target), atol=1e-4)
    plain = sp.tl.fit(refs, preset=quick)
    assert np.abs(plain.predict(changed) - plain.predict(target)).max() > 0.01
    model.save(tmp_path / "model")
    loaded = SpaHGC.load(tmp_path / "model")
    assert loaded.parameters.standardized
    np.testing.assert_array_equal(loaded.predict(target), model.predict(target))


def test_standardising_an_embedding_that_axes_are_made_of_is_refused():
    with pytest.raises(ValueError, match="Leave standardized= out"):
        replace(PRESETS["default"], standardized=True)


# Several networks.


@pytest.fixture(scope="module")
def twins(_cohort: list[AnnData], quick: Parameters) -> SpaHGC:
    """A model of two networks that no test may change."""
    return sp.tl.fit(_cohort[1:], preset=replace(quick, n_networks=2), device="cpu")


def one_of(model: SpaHGC, network: int) -> SpaHGC:
    """The model with one of its networks alone."""
    alone = copy.copy(model)
    alone.networks = [model.networks[network]]
    return alone


def test_a_model_of_two_networks_predicts_the_mean_of_theirs(twins, target):
    parts = [one_of(twins, network).predict(target) for network in (0, 1)]
    assert np.abs(parts[0] - parts[1]).max() > 1e-3
    np.testing.assert_allclose(twins.predict(target), np.mean(parts, axis=0), rtol=1e-5, atol=1e-5)


def test_the_first_of_several_networks_is_the_one_that_would_be_alone(twins, fitted, target):
    assert_same_networks(one_of(twins, 0), fitted)
    assert twins.history[: len(fitted.history)] == fitted.history
    assert len(twins.history) == 2 * len(fitted.history)


def test_a_saved_model_of_two_networks_keeps_its_numbers(twins, target, tmp_path):
    twins.save(tmp_path / "model")
    loaded = SpaHGC.load(tmp_path / "model")
    assert_same_networks(loaded, twins)
    np.testing.assert_array_equal(loaded.predict(target), twins.predict(target))


# What is found, and what is not.


@pytest.fixture(scope="module")
def scores_by_kind(_cohort: list[AnnData]) -> dict[str, list[float]]:
    """Mean correlation of each kind of gene, one value a slide left out."""
    settings = Parameters(width=64, layers=2, heads=2, epochs=40, learning_rate=2e-3)
    scores: dict[str, list[float]] = {"morphology": [], "hidden": [], "flat": []}
    for place, slide in enumerate(_cohort):
        target = slide.copy()
        others = [other for other in _cohort if other is not slide]
        sp.tl.predict(target, others, genes=list(target.var_names), preset=settings, device="cpu")
        table = sp.tl.evaluate(target)
        for kind, part in table.groupby(target.var["truth_kind"].astype(str)):
            scores[kind].append(part["pearson"].mean())
        assert len(scores["flat"]) == place + 1
    return scores


def test_genes_that_follow_the_morphology_are_found(scores_by_kind):
    assert min(scores_by_kind["morphology"]) > 0.6, scores_by_kind


@pytest.mark.parametrize("kind", ["hidden", "flat"])
def test_genes_that_do_not_show_in_the_image_are_not_found(scores_by_kind, kind):
    assert abs(np.mean(scores_by_kind[kind])) < 0.15, scores_by_kind


# Save and load.


def test_a_loaded_model_predicts_bit_for_bit_what_the_saved_one_does(fitted, saved, target):
    loaded = SpaHGC.load(saved)
    np.testing.assert_array_equal(loaded.predict(target), fitted.predict(target))
    assert_same_networks(loaded, fitted)


def test_a_loaded_model_knows_all_that_the_saved_one_does(fitted, saved):
    loaded = SpaHGC.load(str(saved))
    for name in ("genes", "references", "embedding", "units", "parameters", "preset", "seed", "history", "versions"):
        assert getattr(loaded, name) == getattr(fitted, name), name
    assert repr(loaded) == repr(fitted)
    ours, theirs = loaded.record(), fitted.record()
    for record in (ours, theirs):  # lists come back from h5ad as arrays
        record["encoder"] = {key: np.asarray(value).tolist() for key, value in record["encoder"].items()}
    assert ours == theirs


def test_a_model_saved_loaded_and_saved_again_stays_the_same(fitted, saved, tmp_path, target):
    SpaHGC.load(saved).save(tmp_path / "again")
    ours, theirs = (json.loads((folder / "model.json").read_text()) for folder in (tmp_path / "again", saved))
    assert ours.pop("sha256").keys() == theirs.pop("sha256").keys()  # HDF5 stamps the time into the bank
    assert ours == theirs
    np.testing.assert_array_equal(SpaHGC.load(tmp_path / "again").predict(target), fitted.predict(target))


def test_a_saved_model_is_safetensors_and_json_and_the_bank(fitted, saved):
    assert {path.name for path in saved.iterdir()} == FILES
    assert {path.name for path in saved.parent.iterdir()} == {"model"}  # nothing half-written stays behind
    weights = (saved / "network.safetensors").read_bytes()
    header = json.loads(weights[8 : 8 + int.from_bytes(weights[:8], "little")])
    assert set(header) - {"__metadata__"} == {f"networks.{name}" for name in state(fitted)}
    assert json.loads((saved / "model.json").read_text())["genes"] == fitted.genes
    assert ad.read_h5ad(saved / "bank.h5ad").shape == fitted.bank.shape


def test_no_pickle_is_written_or_read(fitted, target, tmp_path, monkeypatch):
    for module, names in (
        (pickle, ("dump", "dumps", "load", "loads", "Pickler", "Unpickler")),
        (torch, ("save", "load")),
    ):
        for name in names:
            monkeypatch.setattr(module, name, lambda *a, **k: pytest.fail("pickle was used"))
    fitted.save(tmp_path / "model")
    assert SpaHGC.load(tmp_path / "model").genes == fitted.genes


def test_a_saved_model_names_no_path_of_this_machine(refs, quick, tmp_path):
    for slide in refs:
        slide.uns["spatial"] = {
            slide.obs["slide"].iloc[0]: {"images": {}, "metadata": {"source_image_path": str(tmp_path / "slide.tif")}}
        }
        slide.uns["spahgc"]["folder"] = str(tmp_path)
    sp.tl.fit(refs, preset=replace(quick, epochs=1)).save(tmp_path / "model")
    for path in (tmp_path / "model").iterdir():
        content = path.read_bytes()
        for secret in (str(tmp_path), str(Path.home()), str(Path.cwd())):
            assert secret.encode() not in content, (path.name, secret)


def test_saving_twice_needs_a_word(fitted, saved, refs, quick):
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    with pytest.raises(FileExistsError, match="exists already. Pass overwrite=True to replace a model"):
        fitted.save(saved)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before
    other = sp.tl.fit(refs[:2], preset=quick)
    other.save(saved, overwrite=True)
    assert SpaHGC.load(saved).references == ["P1S2", "P2S1"]
    assert {path.name for path in saved.iterdir()} == FILES


def test_overwriting_where_nothing_is_saves_as_usual(fitted, tmp_path):
    fitted.save(tmp_path / "deep" / "model", overwrite=True)
    assert SpaHGC.load(tmp_path / "deep" / "model").genes == fitted.genes


@pytest.mark.parametrize("content", ["notes.txt", "model.json"])
def test_overwriting_never_destroys_a_folder_that_is_no_model(fitted, tmp_path, content):
    precious = tmp_path / "work"
    precious.mkdir()
    (precious / content).write_text("{}")
    (precious / "data.csv").write_text("years of work")
    with pytest.raises(FileExistsError, match="exists already"):
        fitted.save(precious, overwrite=True)
    assert (precious / "data.csv").read_text() == "years of work"
    assert (precious / content).read_text() == "{}"


def test_overwriting_keeps_what_somebody_put_beside_a_model(fitted, saved):
    (saved / "data.csv").write_text("years of work")
    try:
        fitted.save(saved, overwrite=True)
    except FileExistsError:
        pass
    assert (saved / "data.csv").read_text() == "years of work"


def test_overwriting_never_destroys_a_file(fitted, tmp_path):
    (tmp_path / "file").write_text("years of work")
    with pytest.raises(FileExistsError, match="exists already"):
        fitted.save(tmp_path / "file", overwrite=True)
    assert (tmp_path / "file").read_text() == "years of work"


def test_a_save_that_fails_leaves_the_old_model_and_nothing_else(fitted, saved, monkeypatch):
    before = {path.name: path.read_bytes() for path in saved.iterdir()}

    def fail(*args, **options):
        raise OSError("disk full")

    monkeypatch.setattr("spahgc._training.model_files.write_hdf5", fail)
    with pytest.raises(OSError, match="disk full"):
        fitted.save(saved, overwrite=True)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before
    assert {path.name for path in saved.parent.iterdir()} == {"model"}


def test_a_folder_that_cannot_be_made_is_reported(fitted, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match='model" cannot be written .*Pass another folder'):
        fitted.save(tmp_path / "file" / "model")


def test_loading_from_nowhere_is_reported(tmp_path):
    with pytest.raises(FileNotFoundError, match='is no saved model: "model.json", "network.safetensors", "bank.h5ad"'):
        SpaHGC.load(tmp_path / "nowhere")


@pytest.mark.parametrize("missing", sorted(FILES))
def test_loading_names_the_file_that_is_missing(saved, missing):
    (saved / missing).unlink()
    with pytest.raises(FileNotFoundError, match=f'is no saved model: "{missing}" not found there'):
        SpaHGC.load(saved)


def describe(folder: Path, **changes) -> None:
    """Change entries of a saved description; one that is ``None`` is removed."""
    path = folder / "model.json"
    description = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in description.items() if value is not None}))


@pytest.mark.parametrize("version", [None, 0, 1, "2.0"])
def test_loading_another_format_is_refused(saved, version):
    describe(saved, format=version)
    with pytest.raises(
        ValueError, match=f"has format {version!r}, this version of spahgc reads format 2, 3, 4, 5, 6 and 7. Install"
    ):
        SpaHGC.load(saved)


def test_loading_a_newer_format_says_to_update(saved):
    describe(saved, format=8)
    with pytest.raises(
        ValueError,
        match='has format 8, this version .* reads format 2, 3, 4, 5, 6 and 7. .*pip install --upgrade "spahgc"',
    ):
        SpaHGC.load(saved)


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("parameters", {"epochs": 3}),
        ("parameters", ["epochs"]),
        ("history", {"epoch": [1, 2], "expression": [0.5]}),
        ("history", {"expression": [0.5]}),
        ("history", [1.0, 2.0]),
    ],
    ids=["missing parameters", "no parameters", "epochs without loss", "no epochs", "no history"],
)
def test_loading_a_damaged_description_says_what_is_damaged(saved, entry, value):
    describe(saved, **{entry: value})
    with pytest.raises(ValueError, match=r'model.json" is damaged \(.*Copy the whole folder of the model again'):
        SpaHGC.load(saved)


def test_loading_a_parameter_of_the_wrong_type_is_refused(saved, quick):
    describe(saved, parameters=quick.to_dict() | {"n_networks": "two"})
    with pytest.raises(ValueError, match="is damaged"):
        SpaHGC.load(saved)


def test_a_history_with_terms_of_another_version_is_read_by_name(saved, fitted):
    history = {"epoch": [1, 2], "expression": [0.5, 0.25], "sharpness": [0.25, 0.125]}
    describe(saved, history=history)
    model = SpaHGC.load(saved)
    assert [record.terms["sharpness"] for record in model.history] == [0.25, 0.125]
    assert [record.total for record in model.history] == [0.75, 0.375]


@pytest.mark.parametrize("name", ["momentum", "early_stopping", "standardize"])
def test_loading_an_unknown_parameter_is_refused(saved, quick, name):
    describe(saved, parameters=quick.to_dict() | {name: True})
    with pytest.raises(ValueError, match=f"unknown parameters: {name}. Known are: n_abundant, "):
        SpaHGC.load(saved)


def test_loading_genes_that_do_not_fit_the_bank_is_refused(saved, fitted):
    describe(saved, genes=fitted.genes[::-1])
    with pytest.raises(ValueError, match="do not fit together: their genes differ"):
        SpaHGC.load(saved)


@pytest.mark.parametrize("swapped", sorted(FILES - {"bank.h5ad"}))
def test_loading_files_of_two_models_is_refused(saved, refs, quick, tmp_path, swapped):
    sp.tl.fit(refs, preset=replace(quick, width=16, epochs=1)).save(tmp_path / "other")
    shutil.copy(tmp_path / "other" / swapped, saved / swapped)
    with pytest.raises(ValueError, match="do not fit together"):
        SpaHGC.load(saved)


def test_loading_the_bank_of_another_embedding_is_refused(saved, refs, quick, tmp_path):
    for slide in refs:
        slide.obsm["X_other"] = slide.obsm[EMBEDDING][:, :9]
    sp.tl.fit(refs, embedding="X_other", preset=replace(quick, epochs=1)).save(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "bank.h5ad", saved / "bank.h5ad")
    with pytest.raises(ValueError, match="do not fit together"):
        SpaHGC.load(saved)


@pytest.mark.parametrize("content", ["[1, 2]", '"model"', "not json"])
def test_loading_a_foreign_description_is_refused(saved, content):
    (saved / "model.json").write_text(content)
    with pytest.raises(ValueError, match=re.escape(str(saved))):
        SpaHGC.load(saved)
