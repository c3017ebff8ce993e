"""A bank on disk: the numbers of one in memory, never half-written, never loaded as a whole."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import anndata as ad
import numpy as np
import pytest
import zarr
from anndata import AnnData
from scipy.sparse import csr_matrix

import spahgc as sp
from spahgc._spots.rows import StoredRows, stored_rows
from spahgc._training.graphs import bank_spots
from spahgc.pp._bank import references as _bank
from spahgc.pp._bank import store as _bank_store
from spahgc.pp._bank.store import append_rows, appended_bank, in_half, new_rows
from spahgc.pp._search.exact import cosine_neighbors

EMBEDDING = "X_sim"
TRANSCRIPTOME = "spahgc_transcriptome"
GRAPH = "spahgc_rs_connectivities"


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    """So that a small bank has several."""
    monkeypatch.setattr(_bank_store, "BANK_BLOCK", 32)
    monkeypatch.setattr(_bank_store, "CHUNK_ENTRIES", 500)


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "bank.zarr"


@pytest.fixture
def panel(refs) -> list[str]:
    return list(refs[0].var_names[::4])


@pytest.fixture
def by_name(refs) -> list[AnnData]:
    """References in the order of their names, which is that of a bank."""
    return sorted(refs, key=lambda slide: slide.obs["slide"].iloc[0])


def rounded(slides: list[AnnData]) -> list[AnnData]:
    """Slides whose embedding went through half precision."""
    slides = [slide.copy() for slide in slides]
    for slide in slides:
        slide.obsm[EMBEDDING] = slide.obsm[EMBEDDING].astype(np.float16).astype(np.float32)
    return slides


def assert_same_bank(stored: AnnData, bank: AnnData) -> None:
    stored = stored.to_memory()
    assert list(stored.obs_names) == list(bank.obs_names)
    assert list(stored.var_names) == list(bank.var_names)
    assert list(stored.obs["slide"]) == list(bank.obs["slide"])
    np.testing.assert_array_equal(stored.X.toarray(), bank.X.toarray())
    np.testing.assert_array_equal(stored.obsm[EMBEDDING], bank.obsm[EMBEDDING])
    np.testing.assert_array_equal(stored.obsm["spatial"], bank.obsm["spatial"])
    np.testing.assert_array_equal(stored.obsm[TRANSCRIPTOME].toarray(), bank.obsm[TRANSCRIPTOME].toarray())
    np.testing.assert_array_equal(stored.obsp[GRAPH].indices, bank.obsp[GRAPH].indices)
    np.testing.assert_allclose(stored.obsp[GRAPH].data, bank.obsp[GRAPH].data, atol=1e-6)
    assert stored.uns["spahgc"]["bank"] == bank.uns["spahgc"]["bank"]
    assert set(stored.uns["spahgc"]["embeddings"]) == set(bank.uns["spahgc"]["embeddings"])


def contents(path: Path) -> dict[str, bytes]:
    """Every file of a bank but the lock."""
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file() and file.name != ".lock"
    }


# What it holds.


def test_a_bank_on_disk_is_that_in_memory_of_embeddings_in_half_precision(refs, panel, path):
    stored = sp.pp.reference_bank(refs, genes=panel, path=path)
    assert stored.obsm[EMBEDDING].dtype == np.float16
    assert_same_bank(stored, sp.pp.reference_bank(rounded(refs), genes=panel))
    assert_same_bank(sp.pp.open_bank(str(path)), sp.pp.reference_bank(rounded(refs), genes=panel))


def test_slide_by_slide_is_the_same_as_all_at_once(by_name, panel, path):
    made = {"genes": panel, "n_transcriptome": 40, "n_neighbors": 5}
    sp.pp.reference_bank(by_name[0], path=path, **made)
    for slide in by_name[1:]:
        stored = sp.pp.reference_bank(slide, path=path, append=True)
    expected = sp.pp.reference_bank(rounded(by_name), **made)
    covered = stored.uns["spahgc"]["bank"]["transcriptome"]
    assert covered == sp.pp.reference_bank(by_name[0], **made).uns["spahgc"]["bank"]["transcriptome"]
    columns = [slide.var_names.get_indexer(covered) for slide in by_name]
    log = [sp.pp.reference_bank(slide, genes=list(slide.var_names)).X for slide in by_name]
    everything = np.vstack([part.toarray()[:, genes] for part, genes in zip(log, columns, strict=True)])
    expected.obsm[TRANSCRIPTOME] = csr_matrix(everything)  # that of the first slide is kept
    expected.uns["spahgc"]["bank"]["transcriptome"] = covered
    assert_same_bank(stored, expected)


def test_a_bank_carries_its_encoder_record(refs, panel, path):
    record = sp.pp.reference_bank(refs, genes=panel, path=path).uns["spahgc"]["embeddings"][EMBEDDING]
    expected = refs[0].uns["spahgc"]["embeddings"][EMBEDDING]
    assert record == expected and isinstance(record["mean"], list)


def test_a_version_of_the_bank_is_an_anndata_in_zarr(refs, panel, path):
    sp.pp.reference_bank(refs, genes=panel, path=path)
    version = zarr.open_group(path, mode="r").attrs["spahgc_bank"]["version"]
    read = ad.read_zarr(path / version)
    assert read.shape == (210, len(panel))
    assert read.obsm[EMBEDDING].dtype == np.float16


def test_opening_a_bank_reads_neither_embedding_nor_expression(refs, panel, path):
    sp.pp.reference_bank(refs, genes=panel, path=path)
    for array in (f"obsm/{EMBEDDING}", "X/data", f"obsm/{TRANSCRIPTOME}/data"):
        shutil.rmtree(path / "v000001" / array / "c")
    bank = sp.pp.open_bank(path)
    assert bank.shape == bank.X.shape == (210, len(panel))
    assert bank.obsm[EMBEDDING].shape == (210, 24)
    assert bank.obsm[TRANSCRIPTOME].shape == (210, 60)


@pytest.mark.parametrize("largest", [2**31 - 1, 3000], ids=["32 bits", "64 bits"])
def test_the_index_arrays_of_expression_are_of_one_type(by_name, panel, path, monkeypatch, largest):
    monkeypatch.setattr(_bank_store, "MAX_SHORT_INDEX", largest)
    sp.pp.reference_bank(by_name[0], genes=panel, path=path)
    for slide in by_name[1:]:
        stored = sp.pp.reference_bank(slide, path=path, append=True)
    expected = sp.pp.reference_bank(rounded(by_name), genes=panel)
    np.testing.assert_array_equal(stored[30:180].X.toarray(), expected[30:180].X.toarray())
    for part in (stored.to_memory(), stored[30:180].to_memory()):
        for name, matrix in {"X": part.X, TRANSCRIPTOME: part.obsm[TRANSCRIPTOME]}.items():
            assert matrix.indices.dtype == matrix.indptr.dtype, name
            assert part.n_obs < 210 or matrix.indices.dtype == (np.int64 if largest == 3000 else np.int32), name
            assert matrix.sum() == pytest.approx(matrix.toarray().sum(), rel=1e-5)
    assert_same_bank(sp.pp.open_bank(path)[:, panel].to_memory(), expected[:, panel])


def test_a_large_bank_carries_no_graph(by_name, panel, path, monkeypatch):
    monkeypatch.setattr(_bank, "MAX_RS_SPOTS", 150)
    assert GRAPH in sp.pp.reference_bank(by_name[:2], genes=panel, path=path).obsp
    assert GRAPH not in sp.pp.reference_bank(by_name[2], path=path, append=True).obsp


# What is made of it.


@pytest.mark.parametrize("parameters", ["quick", "quick_default"])
def test_predictions_from_disk_are_those_from_memory(target, refs, panel, path, parameters, request, tmp_path):
    preset = request.getfixturevalue(parameters)
    expected = sp.tl.predict(target, rounded(refs), genes=panel, preset=preset, copy=True)
    sp.pp.reference_bank(refs, genes=panel, path=path)
    predicted = sp.tl.predict(target, str(path), preset=preset, copy=True)
    np.testing.assert_allclose(predicted.layers["spahgc"], expected.layers["spahgc"], atol=1e-5)
    np.testing.assert_array_equal(predicted.obsm["spahgc_cs"].indices, expected.obsm["spahgc_cs"].indices)
    if "spahgc_support" in expected.obs:
        np.testing.assert_allclose(predicted.obs["spahgc_support"], expected.obs["spahgc_support"], atol=1e-6)
    model = sp.tl.fit(sp.pp.open_bank(path), preset=preset)
    model.save(tmp_path / "model")
    for again in (model, sp.SpaHGC.load(tmp_path / "model")):
        inside = expected.var["spahgc_panel"].to_numpy()
        np.testing.assert_allclose(again.predict(target), expected.layers["spahgc"][:, inside], atol=1e-5)


def test_a_baseline_learns_from_a_bank_on_disk(target, refs, panel, path):
    sp.pp.reference_bank(refs, genes=panel, path=path)
    sp.tl.predict(target, path, method="ridge", key_added="disk")
    sp.tl.predict(target, rounded(refs), genes=panel, method="ridge", key_added="memory")
    np.testing.assert_allclose(target.layers["disk"], target.layers["memory"], atol=1e-5)


def test_some_genes_of_a_bank_are_predicted_from_it(target, refs, panel, path, quick):
    sp.pp.reference_bank(refs, genes=panel, path=path)
    assert sp.tl.fit(path, genes=panel[3:6], preset=quick).genes == panel[3:6]


@pytest.mark.parametrize("parameters", ["quick", "quick_default"])
def test_the_embedding_of_a_bank_is_never_loaded_as_a_whole(
    target, refs, panel, path, parameters, request, monkeypatch
):
    sp.pp.reference_bank(refs, genes=panel, path=path)

    def refuse(self, dtype=None, copy=None):
        raise AssertionError("the whole embedding was asked for")

    monkeypatch.setattr(StoredRows, "__array__", refuse)
    monkeypatch.setattr(zarr.Array, "__array__", refuse)
    monkeypatch.setattr("spahgc._training.graphs.SMALL_BANK", 0)  # up to it, all spots are nodes of every graph
    sp.tl.predict(target, path, preset=request.getfixturevalue(parameters))
    assert isinstance(bank_spots(sp.pp.open_bank(path)).z, StoredRows)


def test_cross_graph_reads_a_bank_on_disk_in_blocks(target, refs, panel, path, monkeypatch):
    sp.pp.reference_bank(refs, genes=panel, path=path)
    sizes, read = [], StoredRows.__getitem__

    def spy(self, rows):
        part = read(self, rows)
        assert part.dtype == np.float16
        sizes.append(len(part))
        return part

    monkeypatch.setattr(StoredRows, "__getitem__", spy)
    monkeypatch.setitem(cosine_neighbors.__kwdefaults__, "bank_block", 50)
    sp.pp.cross_graph(target, sp.pp.open_bank(path))
    assert max(sizes) == 50 and sum(sizes) == 210
    expected = target.copy()
    sp.pp.cross_graph(expected, sp.pp.reference_bank(rounded(refs), genes=panel))
    np.testing.assert_array_equal(target.obsm["spahgc_cs"].indices, expected.obsm["spahgc_cs"].indices)


def test_a_target_that_is_among_the_references_on_disk_is_refused(refs, panel, path, quick):
    sp.pp.reference_bank(refs, genes=panel, path=path)
    with pytest.raises(ValueError, match='the target is also among the references: 70 of its spots stand in "P1S2"'):
        sp.tl.predict(refs[1], path, preset=quick)


# Half-written.


@pytest.mark.parametrize("step", ["add", "finish", "commit"])
def test_an_append_that_fails_leaves_the_bank_as_it_was(by_name, panel, path, step, monkeypatch):
    sp.pp.reference_bank(by_name[0], genes=panel, path=path)
    before = contents(path)

    def fail(*args, **kwargs):
        raise KeyboardInterrupt

    where = {"add": (_bank_store, "append_rows"), "finish": (_bank_store.Version, "finish")}
    with monkeypatch.context() as patched:
        patched.setattr(*where.get(step, (_bank_store, "_commit")), fail)
        with pytest.raises(KeyboardInterrupt):
            sp.pp.reference_bank(by_name[1:], path=path, append=True)
    assert contents(path) == before
    assert sp.pp.reference_bank(by_name[1:], path=path, append=True).n_obs == 210


KILLED = """
    import os, sys
    import anndata as ad
    import spahgc as sp
    from spahgc.pp._bank import store as _bank_store

    _bank_store._commit = lambda *_: os._exit(9)  # the process is gone: nothing is tidied up
    slides = [ad.read_h5ad(file) for file in sys.argv[2:]]
    sp.pp.reference_bank(slides, path=sys.argv[1], append=os.path.exists(sys.argv[1]))
"""


def test_a_process_that_is_killed_half_way_leaves_the_bank_as_it_was(by_name, panel, path, tmp_path):
    sp.pp.reference_bank(by_name[0], genes=panel, path=path)
    before = contents(path)
    by_name[1].write_h5ad(tmp_path / "slide.h5ad")
    code = [sys.executable, "-c", textwrap.dedent(KILLED), str(path), str(tmp_path / "slide.h5ad")]
    environment = os.environ | {"PYTHONPATH": str(Path(sp.__file__).parents[1])}
    assert subprocess.run(code, env=environment, check=False).returncode == 9
    left = contents(path)
    assert len(left) > len(before)  # it has left something behind, which is in nobody's way
    assert {name: left[name] for name in before} == before
    assert_same_bank(sp.pp.open_bank(path), sp.pp.reference_bank(rounded(by_name[:1]), genes=panel))
    assert sp.pp.reference_bank(by_name[1:], path=path, append=True).n_obs == 210
    assert len(list(path.glob("v*"))) == 2


def test_a_bank_that_could_not_be_finished_leaves_nothing(refs, panel, path, monkeypatch):
    refs[2].obsm[EMBEDDING] *= 1e6
    with pytest.raises(ValueError, match="does not fit into half precision"):
        sp.pp.reference_bank(refs, genes=panel, path=path)
    assert list(path.parent.iterdir()) == []


# Several processes.


def test_an_opened_bank_stays_what_it_was_while_it_is_appended_to(by_name, panel, path):
    bank = sp.pp.reference_bank(by_name[0], genes=panel, path=path)
    rows, expected = stored_rows(bank.obsm[EMBEDDING]), by_name[0].obsm[EMBEDDING].astype(np.float16)
    sp.pp.reference_bank(by_name[1], path=path, append=True)
    assert_same_bank(bank, sp.pp.reference_bank(rounded(by_name[:1]), genes=panel))
    sp.pp.reference_bank(by_name[2], path=path, append=True)
    assert rows.shape == (70, 24)
    np.testing.assert_array_equal(np.sort(rows[:], axis=0), np.sort(expected.astype(np.float32), axis=0))


def test_versions_share_what_they_have_in_common(by_name, panel, path):
    sp.pp.reference_bank(by_name[0], genes=panel, path=path)  # 70 spots: two chunks that are full, one that is not
    sp.pp.reference_bank(by_name[1], path=path, append=True)
    chunks = [path / version / "obsm" / EMBEDDING / "c" for version in ("v000001", "v000002")]
    shared = [chunks[0].joinpath(str(i), "0").samefile(chunks[1].joinpath(str(i), "0")) for i in range(3)]
    assert shared == [True, True, False]


def test_versions_are_copied_where_files_cannot_be_shared(by_name, panel, path, monkeypatch):
    def refuse(*_):
        raise OSError("no hard links here")

    monkeypatch.setattr(_bank_store, "os", SimpleNamespace(link=refuse, walk=os.walk))
    sp.pp.reference_bank(by_name[:2], genes=panel, path=path)
    stored = sp.pp.reference_bank(by_name[2], path=path, append=True)
    assert_same_bank(stored, sp.pp.reference_bank(rounded(by_name), genes=panel))


def test_a_file_of_the_last_version_that_may_not_be_copied_is_said_of_the_bank(by_name, panel, path, monkeypatch):
    sp.pp.reference_bank(by_name[:2], genes=panel, path=path)

    def refuse(source, target):
        raise PermissionError(13, "Permission denied", target)

    with monkeypatch.context() as patch:
        patch.setattr(_bank_store.shutil, "copyfile", refuse)
        with pytest.raises(
            PermissionError, match=rf'^.*"{path}" cannot be written \(Permission denied\). The bank is what'
        ):
            sp.pp.reference_bank(by_name[2], path=path, append=True)
    assert sp.pp.open_bank(path).n_obs == by_name[0].n_obs + by_name[1].n_obs
    assert sorted(folder.name for folder in path.glob("v*")) == ["v000001"]


def test_two_processes_do_not_append_at_the_same_time(by_name, panel, path):
    sp.pp.reference_bank(by_name[0], genes=panel, path=path)
    with pytest.raises(RuntimeError, match="another process is appending to .*bank.zarr"), appended_bank(path):
        sp.pp.reference_bank(by_name[1], path=path, append=True)
    assert sp.pp.reference_bank(by_name[1], path=path, append=True).n_obs == 140


def test_a_bank_that_cannot_be_written_cannot_be_appended_to_but_opened(by_name, panel, path, monkeypatch):
    sp.pp.reference_bank(by_name[0], genes=panel, path=path)

    def refuse(self, **_):
        raise PermissionError(13, "Permission denied", self.lock_file)

    monkeypatch.setattr(_bank_store.FileLock, "acquire", refuse)
    refuse_append(path, by_name[1], "bank.zarr.* cannot be written .*Permission denied.* copy of it", PermissionError)
    assert sp.pp.open_bank(path).n_obs == 70


def test_rows_that_were_opened_give_others_although_the_bank_has_moved_on(by_name, panel, path):
    rows = stored_rows(sp.pp.reference_bank(by_name[0], genes=panel, path=path).obsm[EMBEDDING])
    expected = rows[:]
    for slide in by_name[1:]:
        sp.pp.reference_bank(slide, path=path, append=True)
    assert not rows.folder.exists()
    np.testing.assert_array_equal(rows.first_columns(9)[:], expected[:, :9])
    half = rows.astype(np.float16)[:]
    assert half.dtype == np.float16
    np.testing.assert_array_equal(half, expected)


def test_an_opened_bank_travels_to_another_process(refs, panel, path):
    bank = sp.pp.reference_bank(refs, genes=panel, path=path)
    rows = stored_rows(bank.obsm[EMBEDDING])
    assert len(pickle.dumps(rows)) < 1000 < rows[:].nbytes
    assert pickle.loads(pickle.dumps(rows.astype(np.float16)))[:].dtype == np.float16
    again = pickle.loads(pickle.dumps(rows.first_columns(9)))
    assert again.bank_folder == path
    np.testing.assert_array_equal(again[:], rows[:][:, :9])


# What it refuses.


def refuse_append(path: Path, slides, match: str, error: type[Exception] = ValueError, **options) -> None:
    before = contents(path)
    with pytest.raises(error, match=match):
        sp.pp.reference_bank(slides, path=path, append=True, **options)
    assert contents(path) == before


def test_a_slide_is_not_appended_twice(refs, panel, path):
    sp.pp.reference_bank(refs, genes=panel, path=path)
    refuse_append(path, refs[0], '"P2S1" are in the bank already')


def test_slides_that_do_not_fit_to_a_bank_are_not_appended(by_name, panel, path):
    sp.pp.reference_bank(by_name[:2], genes=panel, path=path)
    slide = by_name[2].copy()
    refuse_append(path, slide, 'made with embedding="X_sim"', embedding="X_other")
    refuse_append(path, slide, "genes= differs from the panel of the bank", genes=panel[1:])
    refuse_append(path, slide, "made with n_neighbors=7, found 3", n_neighbors=3)
    refuse_append(path, slide[:, 1:].copy(), "genes not found in the genes of the new references", KeyError)
    slide.uns["spahgc"]["embeddings"][EMBEDDING]["revision"] = "2"
    refuse_append(path, slide, r"come from different encoders \(revision: '2' and '1'\)")
    slide = by_name[2].copy()
    slide.obsm[EMBEDDING] = slide.obsm[EMBEDDING][:, :9]
    refuse_append(path, slide, "has 9 columns in .* and 24 in the bank")
    slide = by_name[2].copy()
    slide.X = slide.X.toarray() - 1.0
    with pytest.warns(UserWarning, match="negative values"):
        refuse_append(path, slide, '"P2S2" hold negative values')


def test_a_bank_is_not_written_over_what_is_there(refs, panel, path):
    path.mkdir()
    with pytest.raises(FileExistsError, match="exists already. Pass append=True"):
        sp.pp.reference_bank(refs, genes=panel, path=path)


def test_a_folder_that_holds_no_bank_is_refused(refs, path, quick):
    for use in (sp.pp.open_bank, sp.tl.fit, lambda path: sp.pp.reference_bank(refs, path=path, append=True)):
        with pytest.raises(FileNotFoundError, match=r"bank.zarr\" is no bank of references. Write one with"):
            use(path)
    zarr.open_group(path, mode="w", zarr_format=3)
    with pytest.raises(ValueError, match="holds no bank of references; this version of spahgc reads banks of format 1"):
        sp.pp.open_bank(path)


def test_a_bank_of_a_newer_format_asks_for_an_update(refs, panel, path):
    sp.pp.reference_bank(refs, genes=panel, path=path)
    manifest = path / "zarr.json"
    manifest.write_text(manifest.read_text().replace('"format": 2', '"format": 3'))
    match = (
        r"holds a bank of format 3; .* reads banks of format 1 or 2, .* wrote it: run pip install --upgrade \"spahgc\"."
    )
    for use in (sp.pp.open_bank, lambda path: sp.pp.reference_bank(refs, path=path, append=True)):
        before = contents(path)
        with pytest.raises(ValueError, match=match):
            use(path)
        assert contents(path) == before


def test_appending_needs_a_path(refs):
    with pytest.raises(ValueError, match="append=True needs path="):
        sp.pp.reference_bank(refs, append=True)


@pytest.mark.parametrize("scale", [1e6, 1e-9])
def test_numbers_out_of_the_range_of_half_precision_are_refused(scale):
    z = np.random.default_rng(0).normal(size=(20, 8)).astype(np.float32)
    np.testing.assert_allclose(in_half(z, "z"), z, rtol=1e-3)
    z[3] *= scale
    with pytest.raises(ValueError, match="z does not fit into half precision.* in 1 of 20 spots. Scale the embedding"):
        in_half(z, "z")


# The rows of an array on disk.


@pytest.fixture
def numbers() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(100, 6)).astype(np.float16)


@pytest.fixture
def rows(numbers, tmp_path) -> StoredRows:
    array = new_rows(zarr.open_group(tmp_path, mode="w", zarr_format=3), "z", 6)
    for part in np.array_split(numbers, 3):
        append_rows(array, part)
    return StoredRows(tmp_path / "z")


@pytest.mark.parametrize(
    "chosen",
    [
        slice(None),
        slice(31, 33),
        slice(5, 95),
        slice(90, 200),
        slice(40, 40),
        slice(80, 10),
        slice(3, 90, 7),
        np.array([99, 0, 32, 31, 32]),
        np.array([[1, 70], [64, 3]]),
        np.array([-1, 5]),
        np.array([], dtype=np.int64),
        np.arange(100) % 3 == 0,
    ],
    ids=str,
)
def test_rows_on_disk_are_those_of_the_array(rows, numbers, chosen):
    assert rows.shape == (100, 6) and len(rows) == 100
    assert rows[chosen].dtype == np.float32
    np.testing.assert_array_equal(rows[chosen], numbers[chosen])
    np.testing.assert_array_equal(rows.first_columns(4)[chosen], numbers[chosen][..., :4])


def test_a_row_that_is_not_there_is_an_error(rows):
    with pytest.raises(IndexError, match="rows 5 to 100 were asked for, there are 100"):
        rows[np.array([5, 100])]


def test_rows_on_disk_become_an_array_when_one_is_asked_for(rows, numbers):
    np.testing.assert_array_equal(np.asarray(rows), numbers.astype(np.float32))
    assert np.asarray(rows, dtype=np.float64).dtype == np.float64


def test_every_write_leaves_a_digest_of_all_that_is_there(rows, numbers, tmp_path):
    assert [n for n, _ in rows.digests] == [34, 67, 100]
    other = new_rows(zarr.open_group(tmp_path / "other", mode="w", zarr_format=3), "z", 6)
    changed = numbers.copy()
    changed[0, 0] += 1
    for part in np.array_split(changed, 3):
        append_rows(other, part)
    digests = StoredRows(tmp_path / "other" / "z").digests
    assert not {digest for _, digest in digests} & {digest for _, digest in rows.digests}


def test_a_compressed_array_cannot_be_mapped(tmp_path):
    zarr.create_array(tmp_path / "z", data=np.zeros((10, 4), np.float16))
    with pytest.raises(ValueError, match="is compressed, or its rows are cut"):
        StoredRows(tmp_path / "z")
