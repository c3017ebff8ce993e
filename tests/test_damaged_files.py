"""Damaged files speak in our words: which file, what was found, what to do; the reader's own error stays chained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import zarr
from anndata import AnnData
from safetensors.numpy import load_file, save_file

import spahgc as sp
from spahgc import cli
from spahgc._reading import UnreadableError, reading
from spahgc._training.model_files import checksums
from spahgc.tl._cross_validation.checkpoint import FOLD_SCORES, Checkpoint

SAVED = Path(__file__).parent / "saved" / "0.1.0"
REMEDY = "Copy the whole folder of the model again, or fit it again"
EMBEDDING = "X_sim"


@pytest.fixture(params=["default", "paper"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A model in the newest format."""
    sp.SpaHGC.load(SAVED / request.param).save(tmp_path / "model")
    return tmp_path / "model"


def fitted_again(folder: Path) -> None:
    """Let the checksums fit to what somebody has changed."""
    path = folder / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"sha256": checksums(folder)}))


def change_tensors(folder: Path, change) -> None:
    tensors = load_file(folder / "network.safetensors")
    change(tensors)
    save_file(tensors, folder / "network.safetensors")
    fitted_again(folder)


def describe(folder: Path, **changes: object) -> None:
    path = folder / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("name", ["network.safetensors", "bank.h5ad"])
@pytest.mark.parametrize("content", [b"", b"\x80\x04garbage" * 9, b"\xff\xfe" * 100], ids=["empty", "pickle", "noise"])
def test_a_file_of_a_model_that_is_no_such_file_is_named(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    fitted_again(folder)
    with pytest.raises(
        UnreadableError, match=rf'of the model ".*{name}" \(.* bytes\) cannot be read: .*{REMEDY}'
    ) as raised:
        sp.SpaHGC.load(folder)
    assert raised.value.__cause__ is not None


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"{" * 50, b"[" * 100_000], ids=["bytes", "torn", "deep"])
def test_a_description_that_is_no_text_is_named(folder: Path, content: bytes) -> None:
    (folder / "model.json").write_bytes(content)
    with pytest.raises(ValueError, match=r'model.json" is no JSON'):
        sp.SpaHGC.load(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"genes": 3},
        {"genes": [1, 2]},
        {"seed": "zero"},
        {"preset": None},
        {"versions": []},
        {"sha256": []},
        {"history": {"epoch": ["one"], "expression": [0.5]}},
    ],
    ids=str,
)
def test_a_field_of_another_type_is_named(folder: Path, changes: dict) -> None:
    describe(folder, **changes)
    with pytest.raises(ValueError, match=rf'model.json" is damaged \(.*{REMEDY}'):
        sp.SpaHGC.load(folder)


@pytest.mark.parametrize("version", [[3], {"a": 1}, True, 3.5, "3"])
def test_a_format_that_is_no_number_is_refused(folder: Path, version: object) -> None:
    describe(folder, format=version)
    with pytest.raises(ValueError, match="has format .*, this version of spahgc reads"):
        sp.SpaHGC.load(folder)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("layers", 10**9),
        ("layers", -1),
        ("width", 10**12),
        ("width", 0),
        ("heads", 10**9),
        ("n_networks", 10**9),
        ("n_cross", 10**9),
        ("n_reference", -7),
        ("n_spatial", 0),
        ("graph_share", float("nan")),
        ("learning_rate", float("inf")),
        ("epochs", -1),
        ("epochs", 2.5),
        ("line", "yes"),
        ("width", True),
        ("n_components", [2, "x"]),
        ("n_axes", 1e9),
    ],
)
def test_a_parameter_out_of_range_is_refused_before_anything_of_its_size_is_made(folder, name, value) -> None:
    parameters = json.loads((folder / "model.json").read_text())["parameters"]
    describe(folder, parameters=parameters | {name: value})
    with pytest.raises(ValueError, match=f"{REMEDY}|heads"):
        sp.SpaHGC.load(folder)


def test_a_tensor_that_is_not_finite_is_refused(folder: Path) -> None:
    def change(tensors: dict[str, np.ndarray]) -> None:
        tensors["networks.0.head.bias"][0] = np.nan

    change_tensors(folder, change)
    with pytest.raises(UnreadableError, match=f'"networks.0.head.bias" has NaN or infinite numbers.*{REMEDY}'):
        sp.SpaHGC.load(folder)


@pytest.mark.parametrize("kind", ["missing", "more", "shape", "type"])
def test_tensors_of_the_networks_that_do_not_fit_are_named(folder: Path, kind: str) -> None:
    def change(tensors: dict[str, np.ndarray]) -> None:
        name = "networks.0.head.weight"
        if kind == "missing":
            del tensors[name]
        elif kind == "more":
            tensors["networks.7.head.weight"] = tensors[name]
        elif kind == "shape":
            tensors[name] = tensors[name][:-1].copy()
        else:
            tensors[name] = tensors[name].astype(np.int32)

    change_tensors(folder, change)
    with pytest.raises(UnreadableError, match=rf"networks\..*head.weight.*{REMEDY}"):
        sp.SpaHGC.load(folder)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("node_features.features", np.zeros((3, 48), np.float32)),
        ("node_features.components.loadings", np.zeros((20, 7))),
        ("node_features.components.mean", np.full(30, np.inf)),
        ("node_features.image_axes.axes.0", np.zeros((24, 3))),
        ("node_features.image_axes.n_around", np.array([-1])),
        ("node_features.image_axes.blocks", np.array([[0, 10**9]])),
        ("node_features.image_axes.size", np.zeros(1)),
        ("node_features.ridge.coefficients", np.zeros((5, 5, 5))),
        ("trust.support.anchors", np.full(80, 10**9)),
        ("trust.section.spread.level", np.zeros(3)),
        ("something.else", np.zeros(3)),
    ],
)
def test_what_the_nodes_carry_must_fit_to_the_bank(tmp_path: Path, name: str, value: np.ndarray) -> None:
    sp.SpaHGC.load(SAVED / "default").save(tmp_path / "model")
    change_tensors(tmp_path / "model", lambda tensors: tensors.update({name: value}))
    with pytest.raises(UnreadableError, match=f'"{name}|axes" are.*{REMEDY}'):
        sp.SpaHGC.load(tmp_path / "model")


@pytest.mark.parametrize(
    "prefix",
    [
        "node_features.components.scores",
        "trust.section.correlation",
        "trust.support.blocks",
        "node_features.image_axes.mean",
    ],
)
def test_what_a_model_lacks_is_named(tmp_path: Path, prefix: str) -> None:
    sp.SpaHGC.load(SAVED / "default").save(tmp_path / "model")

    def change(tensors: dict[str, np.ndarray]) -> None:
        for name in [name for name in tensors if name.startswith(prefix)]:
            del tensors[name]

    change_tensors(tmp_path / "model", change)
    with pytest.raises(UnreadableError, match=f'the model ".*model" .* cannot be read: .*{REMEDY}'):
        sp.SpaHGC.load(tmp_path / "model")


@pytest.mark.parametrize("name", ["trust.section.shared.freedom", "trust.section.values.kind", "trust.support.centre"])
def test_trust_that_is_saved_in_part_is_named(tmp_path: Path, name: str) -> None:
    refs = sp.datasets.simulated(n_slides=2, n_patients=1, n_spots=40, n_genes=20, n_domains=3)
    for slide in refs:
        slide.obsm["X_domains"] = slide.obsm["truth_domains"]
    linear = sp.Parameters(n_axes=3, line=True, epochs=0)
    sp.tl.fit(refs, genes="all", embedding="X_domains", preset=linear).save(tmp_path / "model")
    change_tensors(tmp_path / "model", lambda tensors: tensors.pop(name))
    with pytest.raises(UnreadableError, match=f'"{name}" is missing.*{REMEDY}'):
        sp.SpaHGC.load(tmp_path / "model")


def change_bank(folder: Path, change) -> None:
    import anndata as ad

    bank = ad.read_h5ad(folder / "bank.h5ad")
    bank = change(bank) or bank
    bank.write_h5ad(folder / "bank.h5ad")
    fitted_again(folder)


def _set(kind: str, name: str, value):
    def change(bank: AnnData) -> None:
        getattr(bank, kind)[name] = value(getattr(bank, kind)[name])

    return change


def _nan(values: np.ndarray) -> np.ndarray:
    values = np.array(values)
    values[0, 0] = np.nan
    return values


def _record(name: str, value: object):
    def change(bank: AnnData) -> None:
        bank.uns["spahgc"]["bank"][name] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("obsm", EMBEDDING, _nan), 'obsm."X_sim".* has NaN'),
        (_set("obsm", "spatial", _nan), 'obsm."spatial".* has NaN'),
        (_set("obsm", "spatial", lambda xy: xy[:, :1]), 'obsm."spatial".* has shape'),
        (_record("embedding", "X_other"), "expected are .* spots x dim"),
        (_record("n_neighbors", "seven"), 'its record has no int under "n_neighbors"'),
        (_record("slides", "one"), 'its record has no list under "slides"'),
        (lambda bank: bank.uns["spahgc"].pop("bank"), "it has no record of a bank"),
        (lambda bank: setattr(bank, "obs_names", ["spot"] * bank.n_obs), "names of spots occur more than once"),
    ],
)
def test_the_bank_of_a_model_is_looked_at(folder: Path, change, message: str) -> None:
    change_bank(folder, lambda bank: (change(bank), None)[1])
    with pytest.raises(UnreadableError, match=f"of bank.h5ad, .*{message}"):
        sp.SpaHGC.load(folder)


def test_genes_that_occur_twice_are_refused(folder: Path) -> None:
    def change(bank: AnnData) -> None:
        bank.var_names = [bank.var_names[0], bank.var_names[0], *bank.var_names[2:]]

    change_bank(folder, change)
    genes = json.loads((folder / "model.json").read_text())["genes"]
    describe(folder, genes=[genes[0], genes[0], *genes[2:]])
    with pytest.raises(UnreadableError, match="names of genes occur more than once"):
        sp.SpaHGC.load(folder)


# Banks on disk.


@pytest.fixture
def bank(refs: list[AnnData], tmp_path: Path) -> Path:
    sp.pp.reference_bank(refs, path=tmp_path / "bank.zarr")
    return tmp_path / "bank.zarr"


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b"[1]", b'{"attributes": 3}', b'{"attributes": {"spahgc_bank": 7}}']
)
def test_a_manifest_that_cannot_be_read_is_named(bank: Path, content: bytes) -> None:
    (bank / "zarr.json").write_bytes(content)
    with pytest.raises(
        ValueError, match=r'the bank of references ".*bank.zarr" \(a folder\) cannot be read: .*write the bank'
    ):
        sp.pp.open_bank(bank)


@pytest.mark.parametrize("version", ["../../elsewhere", "v000009", "", None, 3])
def test_a_manifest_names_a_version_within_the_bank(bank: Path, version: object) -> None:
    manifest = json.loads((bank / "zarr.json").read_text())
    manifest["attributes"]["spahgc_bank"]["version"] = version
    (bank / "zarr.json").write_text(json.dumps(manifest))
    with pytest.raises(UnreadableError, match="its valid version is called .*, which is not there"):
        sp.pp.open_bank(bank)


@pytest.mark.parametrize(
    "gone",
    ["X", "obs", "var/zarr.json", "uns", "obsm/X_sim", "obsm/spatial/c", "X/indptr", "zarr.json", "obs/slide/codes/c"],
)
def test_a_bank_that_lacks_a_part_is_named(bank: Path, gone: str) -> None:
    path = bank / "v000001" / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises((ValueError, FileNotFoundError), match='the bank of references ".*bank.zarr"'):
        sp.pp.open_bank(bank)


@pytest.mark.parametrize("damage", ["gone", "truncated", "empty", "infinite"])
def test_an_embedding_on_disk_that_is_damaged_is_named_before_it_predicts(bank: Path, target, damage: str) -> None:
    chunk = bank / "v000001" / "obsm" / EMBEDDING / "c" / "0" / "0"
    if damage == "gone":
        chunk.unlink()
    elif damage == "infinite":
        array = zarr.open_array(bank / "v000001" / "obsm" / EMBEDDING, mode="r+")
        array[3, 2] = np.inf
    else:
        chunk.write_bytes(chunk.read_bytes()[:-48] if damage == "truncated" else b"")
    with pytest.raises((ValueError, FileNotFoundError), match='the embedding of a bank ".*X_sim".* cannot be read'):
        sp.tl.predict(target, bank, method="ridge")


@pytest.mark.parametrize("ending", [".h5ad", ".zarr"])
def test_the_path_of_a_slide_is_no_bank_and_is_a_reference(refs, target, tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"slide{ending}"
    (refs[0].write_h5ad if ending == ".h5ad" else refs[0].write_zarr)(path)
    sp.tl.predict(target, path, method="mean")  # where references are asked for, a slide is taken
    assert np.isfinite(target.layers["spahgc"]).any()
    if ending == ".zarr" and not (path / "zarr.json").exists():
        (path / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    with pytest.raises(ValueError, match=rf'pass its path as a reference: refs=".*slide{ending}"'):
        sp.pp.open_bank(path)


# Others.


def test_a_missing_package_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    with pytest.raises(ImportError, match="no module"), reading(tmp_path, "the counts", "Copy them again."):
        raise ImportError("no module")
    monkeypatch.setitem(sys.modules, "scanpy", None)
    from spahgc.io._space_ranger import read_counts

    with h5py.File(tmp_path / "matrix.h5", "w") as file:
        file.create_group("matrix")
    with pytest.raises(ImportError, match="scanpy"):
        read_counts(tmp_path / "matrix.h5")


FOLD_INPUTS = {"seed": 0, "slides": {"a": {"group": "a"}, "b": {"group": "b"}}}


def fold_scores(**columns) -> pd.DataFrame:
    """A row of a fold's table, and what is written over it."""
    row = {"slide": ["a"], "gene": ["NA"], **dict.fromkeys(FOLD_SCORES, [0.5]), "spearman": [np.nan], "n": [3]}
    return pd.DataFrame(row | columns)


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({"slide": ["b"]}, 'slides that are not of group "a": "b"'),
        ({"slide": ["never seen"]}, 'slides that are not of group "a": "never seen"'),
        ({name: [value] * 2 for name, value in fold_scores().iloc[0].items()}, "a gene of a slide more than once"),
        ({"gene": ["2147483648"]}, 'genes that slide "a" does not have: "2147483648"'),
        ({"pearson": [1.5]}, "a correlation outside -1 to 1"),
        ({"spearman": [-3.0]}, "a correlation outside -1 to 1"),
        ({"rmse": [-0.1]}, "a negative error"),
        ({"n": [0]}, "numbers of spots from 0 to 0"),
        ({"n": [2**31]}, "numbers of spots from 2,147,483,648"),
    ],
)
def test_a_fold_whose_checksum_fits_is_looked_into(tmp_path: Path, columns: dict, problem: str) -> None:
    checkpoint = Checkpoint(tmp_path, FOLD_INPUTS, {"ridge": {}})
    checkpoint.write("ridge", "a", fold_scores(**columns), 1.0, None)
    with pytest.raises(ValueError, match=f"cannot be read: .*{problem}.*Delete .* to compute this fold again"):
        checkpoint.read("ridge", "a", {"a": {"NA"}, "b": {"NA"}})


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]"])
def test_a_folder_of_folds_that_cannot_be_read_is_named(tmp_path: Path, content: bytes) -> None:
    Checkpoint(tmp_path, FOLD_INPUTS, {})
    (tmp_path / "inputs.json").write_bytes(content)
    with pytest.raises(ValueError, match="cannot be read: .*Pass another folder|holds folds of other inputs"):
        Checkpoint(tmp_path, FOLD_INPUTS, {})


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", b'{"method": {}, "sha256": 3}'])
def test_a_fold_that_cannot_be_read_is_named(tmp_path: Path, content: bytes) -> None:
    checkpoint = Checkpoint(tmp_path, FOLD_INPUTS, {"ridge": {}})
    scores = fold_scores()
    checkpoint.write("ridge", "a", scores, 1.0, None)
    found, _ = checkpoint.read("ridge", "a", {"a": {"NA"}, "b": {"NA"}})
    pd.testing.assert_frame_equal(found, scores)
    path = next(path for path in tmp_path.glob("*.json") if path.name != "inputs.json")
    path.write_bytes(content)
    with pytest.raises(ValueError, match="cannot be read: .*Delete .* to compute this fold again"):
        checkpoint.read("ridge", "a", {"a": {"NA"}, "b": {"NA"}})


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
@pytest.mark.parametrize("content", [b"", b"\x80\x04\x95garbage\xff\xfe", b"\xff\xfe" * 50, b"PK\x03\x04" + b"\0" * 50])
def test_weights_that_cannot_be_read_are_named(tmp_path: Path, name: str, content: bytes) -> None:
    from spahgc.encoders._checkpoint import read_tensors

    (tmp_path / name).write_bytes(content)
    with pytest.raises(
        ValueError, match=f"{name}.* (is not a complete|is damaged, or holds pickled objects|cannot be read)"
    ):
        read_tensors(tmp_path / name)


def test_an_index_that_is_damaged_is_made_anew(bank: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("faiss")
    from spahgc._spots.rows import stored_rows
    from spahgc.pp._search import approximate

    rows = stored_rows(sp.pp.open_bank(bank).obsm[EMBEDDING])
    approximate.index_cache.clear()
    assert len(approximate.index_cache.get(rows)) == 210
    path = next((bank / "index").iterdir())
    for content in (b"", b"garbage" * 100, path.read_bytes()[:200]):
        path.write_bytes(content)
        approximate.index_cache.clear()
        caplog.clear()
        assert len(approximate.index_cache.get(rows)) == 210
        assert "cannot be read" in caplog.text and "It is made anew" in caplog.text
    approximate.index_cache.clear()


@pytest.mark.parametrize("ending", [".h5ad", ".zarr"])
def test_the_shell_names_an_encoding_that_it_does_not_know(refs, tmp_path: Path, ending: str, capsys) -> None:
    import h5py

    path = tmp_path / f"slide{ending}"
    (refs[0].write_h5ad if ending == ".h5ad" else refs[0].write_zarr)(path)
    root = zarr.open_group(path, mode="r+") if ending == ".zarr" else h5py.File(path, "r+")
    root["obsm"]["spatial"].attrs["encoding-type"] = "something-new"
    if ending == ".h5ad":
        root.close()
    (path / ".zmetadata").unlink() if ending == ".zarr" else None  # a copy of what was changed
    with pytest.raises(SystemExit, match="2"):
        cli.main(["evaluate", str(path)])
    err = capsys.readouterr().err
    assert f'slide{ending}"' in err and "cannot be read: " in err and err.count("\n") == 1


@pytest.mark.parametrize("part", ["X/data", "X/indices", "obsm/spahgc_transcriptome/data"])
def test_files_of_a_bank_that_are_gone_are_no_zeros(bank: Path, target, part: str) -> None:
    shutil.rmtree(bank / "v000001" / part / "c")
    with pytest.raises(UnreadableError, match="files of .* are gone"):
        sp.tl.predict(target, bank)
