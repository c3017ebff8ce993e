"""Models and banks that earlier versions wrote: they are read, and predict what they predicted then.

``saved/VERSION`` holds what that version wrote of three simulated slides of 40 spots with an embedding of 24 numbers: a model
of the default (width 16, 3 epochs), one of the paper's preset (width 16, 2 layers and heads, 3 epochs), a bank on disk, and in
``target.npz`` embedding and centres of the third slide with the predictions that this version made of it.
"""

from __future__ import annotations

import json
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from safetensors.numpy import load_file

import spahgc as sp
from spahgc._spots.rows import stored_rows
from spahgc._training.model_files import FORMAT
from spahgc.pp._bank import formats, store

EMBEDDING = "X_sim"
SAVED = Path(__file__).parent / "saved"
VERSIONS = sorted(path.name for path in SAVED.iterdir())
CLOSE = {"rtol": 1e-4, "atol": 1e-5}
"""Rounding of another processor, on numbers between 0 and 8."""

pytestmark = pytest.mark.parametrize("version", VERSIONS)


@pytest.fixture
def expected(version: str) -> dict[str, np.ndarray]:
    with np.load(SAVED / version / "target.npz") as arrays:
        return dict(arrays)


@pytest.fixture
def slide(expected: dict[str, np.ndarray], cohort: list[AnnData]) -> AnnData:
    """The target as it was given to that version: embedding and centres."""
    z, xy = expected["z"], expected["xy"]
    return AnnData(
        obs=pd.DataFrame(index=[f"spot {i}" for i in range(len(z))]),
        obsm={EMBEDDING: z, "spatial": xy},
        uns={"spahgc": {"embeddings": dict(cohort[0].uns["spahgc"]["embeddings"])}},
    )


@pytest.fixture
def bank(version: str, tmp_path: Path) -> Path:
    with tarfile.open(SAVED / version / "bank.tar.gz") as archive:
        archive.extractall(tmp_path, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))  # 3.11.4
    return tmp_path / "bank.zarr"


@pytest.mark.parametrize("name", ["default", "paper"])
def test_a_model_predicts_what_it_predicted_when_it_was_saved(version, name, slide, expected):
    model = sp.SpaHGC.load(SAVED / version / name)
    np.testing.assert_allclose(model.predict(slide, device="cpu"), expected[f"{name}.expression"], **CLOSE)
    np.testing.assert_allclose(model.attention(slide, device="cpu").toarray(), expected[f"{name}.attention"], **CLOSE)


def test_a_model_says_of_trust_what_it_said_when_it_was_saved(version, slide, expected):
    model = sp.SpaHGC.load(SAVED / version / "default")
    predicted = sp.tl.predict(slide, model=model, device="cpu", copy=True)
    np.testing.assert_allclose(predicted.layers["spahgc_std"], expected["default.spread"], **CLOSE)
    np.testing.assert_allclose(predicted.obs["spahgc_support"], expected["default.support"], **CLOSE)
    np.testing.assert_allclose(predicted.var["spahgc_cv_pcc"], expected["default.cv_pcc"], **CLOSE)


@pytest.mark.parametrize("name", ["default", "paper"])
def test_a_model_that_is_saved_again_is_written_in_the_newest_format(version, name, slide, expected, tmp_path):
    sp.SpaHGC.load(SAVED / version / name).save(tmp_path / "again")
    model = sp.SpaHGC.load(tmp_path / "again")
    np.testing.assert_allclose(model.predict(slide, device="cpu"), expected[f"{name}.expression"], **CLOSE)


@pytest.mark.parametrize("name", ["default", "paper"])
def test_a_model_of_an_older_format_is_migrated_in_memory_alone(version, name, tmp_path):
    folder = shutil.copytree(SAVED / version / name, tmp_path / name)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    model = sp.SpaHGC.load(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert json.loads(before["model.json"])["format"] < FORMAT
    model.save(tmp_path / "again")
    description = json.loads((tmp_path / "again" / "model.json").read_text())
    assert description["format"] == FORMAT
    assert description["history"]["epoch"] == [1, 2, 3]
    names = set(load_file(tmp_path / "again" / "network.safetensors"))
    assert {name.partition(".")[0] for name in names} <= {"node_features", "networks", "trust"}
    assert ("node_features.ridge.image_axes.axes.0" in names) == (name == "default")


def test_the_support_of_an_older_model_is_one_distance_over_all_columns(version, expected):
    model = sp.SpaHGC.load(SAVED / version / "default")
    np.testing.assert_array_equal(model.trust.support.blocks, [[0, expected["z"].shape[1]]])
    assert model.trust.shared is None


def test_a_bank_predicts_what_it_predicted_when_it_was_written(version, bank, slide, expected):
    ridge = sp.tl.predict(slide, bank, method="ridge", copy=True)
    np.testing.assert_allclose(ridge.layers["spahgc"], expected["bank.ridge"], **CLOSE)


def test_a_bank_trains_the_model_that_it_trained_when_it_was_written(version, bank, slide, expected, line_and_graph):
    parameters = replace(line_and_graph, width=16)
    predicted = sp.tl.predict(slide, bank, preset=parameters, device="cpu", copy=True)
    np.testing.assert_allclose(predicted.layers["spahgc"], expected["bank.expression"], **CLOSE)


def test_a_bank_that_an_earlier_version_wrote_comes_into_memory_whole(version, bank):
    stored = sp.pp.open_bank(bank)
    in_memory = stored.to_memory()
    for matrix in (in_memory.X, in_memory.obsm["spahgc_transcriptome"]):
        assert matrix.indices.dtype == matrix.indptr.dtype
        assert matrix.sum() == pytest.approx(matrix.toarray().sum(), rel=1e-5)
    np.testing.assert_array_equal(in_memory.X.toarray(), stored.X[:].toarray())
    assert in_memory.obsm[EMBEDDING].shape == (stored.n_obs, 24)


@pytest.fixture
def more(bank: Path, cohort: list[AnnData]) -> AnnData:
    """A slide that can be added to the bank."""
    genes = list(sp.pp.open_bank(bank).uns["spahgc"]["bank"]["transcriptome"])
    slide = cohort[0][:, : len(genes)].copy()
    slide.var_names = genes
    slide.obs["slide"] = "added"
    return slide


def test_a_slide_can_be_added_to_a_bank(version, bank, more):
    before = sp.pp.open_bank(bank)
    with pytest.raises(KeyError, match="genes of the new references"):
        sp.pp.reference_bank([more[:, :5].copy()], path=bank, append=True)
    grown = sp.pp.reference_bank([more], path=bank, append=True)
    assert grown.n_obs == before.n_obs + more.n_obs
    assert list(grown.uns["spahgc"]["bank"]["slides"])[-1] == "added"


def test_a_bank_that_has_grown_is_of_the_newest_format_and_holds_what_it_held(version, bank, more):
    before = sp.pp.open_bank(bank)
    assert formats.current_version(bank).format < formats.FORMAT
    grown = sp.pp.reference_bank([more], path=bank, append=True)
    assert formats.current_version(bank).format == formats.FORMAT
    # What was opened before goes on, and the new version has the same rows, digests (which name the index) and spots.
    digests = [stored_rows(opened.obsm[EMBEDDING]).digests for opened in (before, grown)]
    assert digests[1][: len(digests[0])] == digests[0] and len(digests[1]) == len(digests[0]) + 1
    before, grown = before.to_memory(), grown[: before.n_obs].to_memory()
    np.testing.assert_array_equal(grown.obsm[EMBEDDING], before.obsm[EMBEDDING])
    np.testing.assert_array_equal(grown.obsm["spatial"], before.obsm["spatial"])
    np.testing.assert_array_equal(grown.X.toarray(), before.X.toarray())
    for name in ("obs", "var"):
        assert list(getattr(grown, name).index) == list(getattr(before, name).index)
    assert list(grown.obs["slide"]) == list(before.obs["slide"])
    parts = [opened.obsm["spahgc_transcriptome"].toarray() for opened in (before, grown)]
    np.testing.assert_array_equal(*parts)


@pytest.mark.parametrize("step", ["append_rows", "_commit"])
def test_a_bank_that_could_not_grow_is_of_the_format_that_it_was(version, bank, more, step, monkeypatch):
    def contents() -> dict[str, bytes]:
        files = (file for file in bank.rglob("*") if file.is_file() and file.name != ".lock")
        return {str(file): file.read_bytes() for file in files}

    def fail(*_):
        raise KeyboardInterrupt

    before = contents()
    with monkeypatch.context() as patched:
        patched.setattr(store, step, fail)
        with pytest.raises(KeyboardInterrupt):
            sp.pp.reference_bank([more], path=bank, append=True)
    assert contents() == before
