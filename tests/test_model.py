"""A model: the same for the same seed, saved and loaded without loss, and no wiser than the references."""

from __future__ import annotations

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
from spahgc import SpaHGC, _training
from spahgc._graph_data import bank_spots
from spahgc._presets import PRESETS, Parameters, find_preset
from spahgc._spots import Spots
from spahgc._training import choose_epochs

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
    return model.network.state_dict()


def assert_same_network(a: SpaHGC, b: SpaHGC) -> None:
    assert state(a).keys() == state(b).keys()
    for name, weights in state(a).items():
        assert torch.equal(weights, state(b)[name]), name


# Fit.


def test_a_seed_gives_the_same_model_again(refs, target, quick, fitted):
    torch.manual_seed(99)  # the state of torch's own stream plays no part
    again = sp.tl.fit(refs, preset=quick, seed=0)
    assert_same_network(again, fitted)
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


def test_fit_takes_a_bank_as_well(refs, target, quick, fitted):
    bank = sp.pp.reference_bank(refs)
    before = bank.copy()
    model = sp.tl.fit(bank, preset=replace(quick, standardize=True))
    np.testing.assert_array_equal(
        bank.obsp["spahgc_rs_connectivities"].toarray(), before.obsp["spahgc_rs_connectivities"].toarray()
    )
    assert model.references == fitted.references
    assert_same_network(sp.tl.fit(bank, preset=quick), fitted)


def test_fit_cuts_a_bank_to_the_genes_and_the_neighbours_asked_for(refs, target, quick):
    genes = list(refs[0].var_names[10:20])
    few = replace(quick, n_reference=4)
    from_bank = sp.tl.fit(sp.pp.reference_bank(refs), genes=genes, preset=few)
    direct = sp.tl.fit(refs, genes=genes, preset=few)
    assert from_bank.genes == direct.genes == genes
    assert_same_network(from_bank, direct)
    np.testing.assert_array_equal(from_bank.predict(target), direct.predict(target))


def test_a_bank_of_another_embedding_is_refused(refs, quick):
    with pytest.raises(ValueError, match='the bank was made with embedding="X_sim", embedding="X_uni" was asked for'):
        sp.tl.fit(sp.pp.reference_bank(refs), embedding="X_uni", preset=quick)


def test_one_reference_alone_is_enough(target, refs, quick):
    model = sp.tl.fit(refs[0], preset=quick)
    assert model.references == ["P2S1"]
    assert np.isfinite(model.predict(target)).all()
    assert_same_network(sp.tl.fit([refs[0]], preset=quick), model)


def test_one_reference_too_small_for_two_halves_is_refused(refs, quick):
    with pytest.raises(ValueError, match="one reference acts as two halves, and each must hold at least 8 spots"):
        sp.tl.fit(refs[0][:15].copy(), preset=quick)
    assert len(sp.tl.fit(refs[0][:16].copy(), preset=quick).history) == quick.epochs


@pytest.mark.parametrize("sizes", [(16,), (30,), (9, 9)])
def test_references_large_enough_to_train_on_are_large_enough_for_early_stopping(refs, quick, sizes):
    small = [slide[:size].copy() for slide, size in zip(refs, sizes, strict=False)]
    try:
        model = sp.tl.fit(small, preset=replace(quick, early_stopping=True))
    except ValueError as error:  # or the refusal says what is too small for what
        assert "the references are too small" in str(error)
    else:
        assert 1 <= len(model.history) <= quick.epochs


def test_an_unknown_preset_is_refused(refs):
    with pytest.raises(ValueError, match='preset="best" is not known. Choose one of paper, default'):
        sp.tl.fit(refs, preset="best")


def test_an_unavailable_device_is_refused_before_anything_is_computed(refs, quick, monkeypatch):
    monkeypatch.setattr("spahgc.model.train_network", lambda *a, **k: pytest.fail("trained"))
    with pytest.raises(ValueError, match='device="cuda:99" is not available here .*Pass device="cpu"'):
        sp.tl.fit(refs, preset=quick, device="cuda:99")


def test_the_device_of_the_settings_is_used(refs, quick, monkeypatch):
    monkeypatch.setattr(sp.settings, "device", "cuda:99")
    with pytest.raises(ValueError, match='device="cuda:99" is not available here'):
        sp.tl.fit(refs, preset=quick)


def test_the_preset_of_the_paper_is_its_table_to_the_letter():
    assert PRESETS["paper"] == Parameters(
        n_spatial=5,
        n_cross=7,
        n_reference=7,
        standardize=False,
        width=256,
        layers=4,
        heads=4,
        target_hidden=0.8,
        reference_hidden=0.9,
        epochs=200,
        early_stopping=False,
        learning_rate=1e-4,
        weight_decay=1e-4,
    )
    assert find_preset("paper") is PRESETS["paper"]


# Early stopping.


def test_early_stopping_trains_for_as_many_epochs_as_were_chosen(refs, quick, monkeypatch):
    chosen = []

    def spy(*args, **options):
        chosen.append(choose_epochs(*args, **options))
        return chosen[-1]

    monkeypatch.setattr(_training, "choose_epochs", spy)
    model = sp.tl.fit(refs, preset=replace(quick, epochs=6, early_stopping=True))
    assert len(chosen) == 1
    assert len(model.history) == chosen[0] <= 6
    assert model.record()["epochs_trained"] == chosen[0]
    plain = sp.tl.fit(refs, preset=replace(quick, epochs=chosen[0]))
    assert_same_network(model, plain)


def test_early_stopping_sees_the_references_and_never_the_target(target, refs, quick, monkeypatch):
    seen: list[Spots] = []

    def spy(spots, *args, **options):
        seen.append(spots)
        return choose_epochs(spots, *args, **options)

    monkeypatch.setattr(_training, "choose_epochs", spy)
    sp.tl.predict(target, refs, preset=replace(quick, early_stopping=True))
    (spots,) = seen
    assert set(spots.slide) == {"P1S2", "P2S1", "P2S2"}
    assert not {tuple(row) for row in spots.z} & {tuple(row) for row in target.obsm[EMBEDDING]}


def test_early_stopping_trains_without_the_reference_it_scores(refs, quick, monkeypatch):
    known: list[Spots] = []
    train = _training._train

    def spy(spots, *args, **options):
        known.append(spots)
        return train(spots, *args, **options)

    monkeypatch.setattr(_training, "_train", spy)
    spots = bank_spots(sp.pp.reference_bank(refs), quick)
    choose_epochs(spots, quick, seed=0, device="cpu")
    (trained_on,) = known
    assert set(trained_on.slide) == {"P1S2", "P2S1"}


def test_early_stopping_does_not_see_the_counts_held_out_but_to_score_them(refs, quick, monkeypatch):
    predicted = []

    def spy(network, graph, settings):
        predicted.append(real(network, graph, settings))
        return predicted[-1]

    real = sp.nn.predict_expression
    monkeypatch.setattr("spahgc.nn.predict_expression", spy)
    spots = bank_spots(sp.pp.reference_bank(refs), quick)
    choose_epochs(spots, quick, seed=0, device="cpu")
    noise = np.random.default_rng(0).random(spots.y.shape, dtype=np.float32)
    other = replace(spots, y=np.where((spots.slide == "P2S2")[:, None], 9 * noise, spots.y))
    choose_epochs(other, quick, seed=0, device="cpu")
    assert len(predicted) == 2 * quick.epochs
    for first, second in zip(predicted[: quick.epochs], predicted[quick.epochs :], strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize(("scores", "best"), [([0.1, 0.4, 0.3, 0.2], 2), ([0.1, 0.2, 0.3, 0.4], 4), ([0.4] * 4, 1)])
def test_the_epoch_of_the_best_score_on_the_reference_held_out_is_chosen(refs, quick, monkeypatch, scores, best):
    script = iter(scores)
    monkeypatch.setattr("spahgc.nn.gene_correlations", lambda *a: torch.tensor([next(script)]))
    spots = bank_spots(sp.pp.reference_bank(refs), quick)
    assert choose_epochs(spots, quick, seed=0, device="cpu") == best


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
    assert_same_network(loaded, fitted)


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


def test_a_saved_standardising_model_keeps_its_numbers(refs, target, quick, tmp_path):
    model = sp.tl.fit(refs, preset=replace(quick, standardize=True))
    model.save(tmp_path / "model")
    np.testing.assert_array_equal(SpaHGC.load(tmp_path / "model").predict(target), model.predict(target))


def test_a_saved_model_is_safetensors_and_json_and_the_bank(fitted, saved):
    assert {path.name for path in saved.iterdir()} == FILES
    assert {path.name for path in saved.parent.iterdir()} == {"model"}  # nothing half-written stays behind
    weights = (saved / "network.safetensors").read_bytes()
    header = json.loads(weights[8 : 8 + int.from_bytes(weights[:8], "little")])
    assert set(header) - {"__metadata__"} == set(state(fitted))
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

    monkeypatch.setattr(AnnData, "write_h5ad", fail)
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


@pytest.mark.parametrize("version", [None, 0, 2, "1.0"])
def test_loading_another_format_is_refused(saved, version):
    describe(saved, format=version)
    with pytest.raises(ValueError, match=f"has format {version!r}, this version of spahgc reads format 1"):
        SpaHGC.load(saved)


def test_loading_an_unknown_parameter_is_refused(saved, quick):
    describe(saved, parameters=quick.to_dict() | {"momentum": 0.9})
    with pytest.raises(ValueError, match="unknown parameters: momentum. Known are: n_abundant, "):
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
