"""Sparse matrices whose index arrays lie: refused in our words before compiled code follows them out of the array."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pytest
import zarr
from anndata import AnnData
from scipy.sparse import bsr_matrix, coo_matrix, csc_matrix, csr_matrix, lil_matrix

import spahgc as sp
from spahgc._reading import broken_matrix, broken_sparse, check_sparse, read_h5ad, read_zarr
from spahgc._slides.matrix import raw_matrix
from spahgc._slides.measured import log_expression

EMBEDDING = "X_sim"
DAMAGES = {
    "an index beyond the columns": ("indices", 10**6, "indices from"),
    "a negative index": ("indices", -5, "indices from"),
    "pointers that do not ascend": ("indptr", 10**6, "its pointers do not ascend|entries are announced"),
}


def matrix() -> csr_matrix:
    return csr_matrix(np.arange(20.0).reshape(4, 5) % 3)


def damaged(part: str, value: int) -> csr_matrix:
    broken = matrix()
    getattr(broken, part)[2] = value
    return broken


@pytest.mark.parametrize(("part", "value", "message"), DAMAGES.values(), ids=list(DAMAGES))
def test_a_matrix_whose_indices_lie_is_told_from_a_whole_one(part: str, value: int, message: str) -> None:
    assert broken_sparse(matrix()) is None
    problem = broken_sparse(damaged(part, value))
    assert problem is not None
    with pytest.raises(ValueError, match=f"X of the slide is a damaged sparse matrix: .*({message})"):
        raw_matrix(AnnData(damaged(part, value)), None, "the slide")


def by_columns() -> csc_matrix:
    broken = csc_matrix(matrix())
    broken.indices[0] = 4
    return broken


def by_coordinates() -> coo_matrix:
    broken = coo_matrix(matrix())
    broken.row[0] = 400
    return broken


def of_blocks() -> bsr_matrix:
    broken = bsr_matrix(np.ones((4, 6)), blocksize=(2, 3))
    broken.indices[0] = 2
    return broken


def of_lists() -> lil_matrix:
    broken = lil_matrix(matrix())
    broken.rows[0][0] = 500
    return broken


def of_fractions() -> csr_matrix:
    broken = matrix()
    broken.indices = broken.indices.astype(np.float64)
    return broken


def announcing_too_much() -> csr_matrix:
    broken = matrix()
    broken.data = broken.data[:-1]
    return broken


def of_another_shape() -> csr_matrix:
    broken = matrix()
    broken._shape = (9, 5)
    return broken


def unsigned_and_descending() -> csr_matrix:
    broken = matrix()
    broken.indptr = broken.indptr.astype(np.uint32)
    broken.indptr[1] = 2**31
    return broken


@pytest.mark.parametrize(
    "make",
    [
        by_columns,
        by_coordinates,
        of_blocks,
        of_lists,
        of_fractions,
        announcing_too_much,
        of_another_shape,
        unsigned_and_descending,
    ],
)
def test_every_format_of_a_matrix_is_looked_at(make) -> None:
    assert broken_sparse(make()) is not None
    with pytest.raises(ValueError, match="the graph is a damaged sparse matrix"):
        check_sparse(make(), "the graph")


@pytest.mark.parametrize("kind", ["csr", "csc", "coo", "bsr", "lil", "dok", "dia"])
def test_whole_matrices_of_every_format_pass(kind: str) -> None:
    assert broken_sparse(matrix().asformat(kind)) is None
    assert broken_sparse(csr_matrix((0, 5)).asformat(kind)) is None
    assert broken_sparse(np.zeros((2, 2))) is None


def test_a_count_in_two_entries_is_one_count() -> None:
    """The logarithm of a sum is not the sum of logarithms."""
    whole = csr_matrix(np.array([[6.0, 2.0], [1.0, 3.0]]))
    halves = csr_matrix((np.array([2.0, 4, 2, 1, 3]), np.array([0, 0, 1, 0, 1]), np.array([0, 3, 5])), shape=(2, 2))
    np.testing.assert_array_equal(log_expression(AnnData(halves)).toarray(), log_expression(AnnData(whole)).toarray())
    assert halves.nnz == 5  # the user's own is not changed


def test_columns_in_any_order_are_left_in_it() -> None:
    unsorted = csr_matrix((np.array([2.0, 6.0]), np.array([1, 0]), np.array([0, 2])), shape=(1, 2))
    np.testing.assert_array_equal(raw_matrix(AnnData(unsorted), None, "the slide").indices, [1, 0])


@pytest.mark.parametrize("place", ["layers", "obsm", "obsp", "varm", "varp", "raw", "uns"])
def test_matrices_are_looked_at_wherever_they_lie(place: str) -> None:
    square = csr_matrix(np.eye(4))
    square.indices[0] = 99
    adata = AnnData(np.ones((4, 4), np.float32))
    if place == "raw":
        adata.raw = AnnData(square)
    elif place == "uns":
        adata.uns["deep"] = {"graph": square}
    else:
        getattr(adata, place)["graph"] = square
    assert "is damaged: indices from" in str(broken_matrix(adata))
    adata = AnnData(np.ones((4, 4), np.float32))
    assert broken_matrix(adata) is None


# Files. What reads them runs in a process of its own, since the old way out was a segmentation fault.


def in_a_process(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def overwrite(path: Path, name: str, value: int, where: int = -1) -> None:
    """Change an entry of an array of a file or a zarr."""
    root = zarr.open_group(path, mode="r+") if path.is_dir() else h5py.File(path, "r+")
    array = root[name]
    values = array[...]
    values[where] = value
    array[...] = values
    if not path.is_dir():
        root.close()


SHELL = """
import os, sys
from spahgc import cli, io, tl  # once for all of them

tl.predict, io.visium
for path in sys.argv[1:]:
    if not os.fork():
        os.dup2(os.open(f"{path}.stderr", os.O_CREAT | os.O_WRONLY), 2)
        cli.main(["predict", "--target", path, "--reference", path, "--output", f"{path}.predicted.h5ad"])
    print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
"""
ELSEWHERE = [(value, ending) for value in (10**8, -(10**8)) for ending in (".h5ad", ".zarr")]


@pytest.fixture(scope="module")
def pointing_elsewhere(_cohort, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, str], tuple[Path, int]]:
    """Slides with an index that points elsewhere, each with the status of a process of the shell that predicted it."""
    folder, slide = tmp_path_factory.mktemp("elsewhere"), _cohort[1].copy()
    slide.X = csr_matrix(slide.X)
    paths = []
    for value, ending in ELSEWHERE:
        paths.append(folder / f"slide{value}{ending}")
        (slide.write_h5ad if ending == ".h5ad" else slide.write_zarr)(paths[-1])
        overwrite(paths[-1], "X/indices", value)
    statuses = in_a_process(SHELL, *paths).stdout.split()
    return {key: (path, int(status)) for key, path, status in zip(ELSEWHERE, paths, statuses, strict=True)}


@pytest.mark.parametrize(("value", "ending"), ELSEWHERE)
def test_the_shell_refuses_a_slide_whose_counts_point_elsewhere(pointing_elsewhere, value: int, ending: str) -> None:
    path, status = pointing_elsewhere[value, ending]
    said = Path(f"{path}.stderr").read_text()
    assert status == 2, said
    assert "cannot be read: the sparse matrix X is damaged: indices from" in said
    with pytest.raises(ValueError, match="the sparse matrix X is damaged"):
        (read_h5ad if ending == ".h5ad" else read_zarr)(path, "the slide", "Copy it again.")


FIT = """
import sys, anndata
import spahgc as sp
adata = anndata.read_h5ad(sys.argv[1])
try:
    sp.pp.reference_bank([adata])
except ValueError as error:
    print(error)
"""


def test_a_slide_that_the_user_has_read_is_refused_before_its_counts_are_followed(refs, tmp_path: Path) -> None:
    slide = refs[0].copy()
    slide.X = csr_matrix(slide.X)
    slide.write_h5ad(tmp_path / "slide.h5ad")
    overwrite(tmp_path / "slide.h5ad", "X/indices", 2**31 - 1, where=0)
    done = in_a_process(FIT, tmp_path / "slide.h5ad")
    assert done.returncode == 0 and "X of reference" in done.stdout and "damaged sparse matrix" in done.stdout


OPEN = """
import sys
import spahgc as sp
try:
    bank = sp.pp.open_bank(sys.argv[1])
    bank.to_memory()
except ValueError as error:
    print(error)
"""


@pytest.mark.parametrize("name", ["X", "obsm/spahgc_transcriptome", "obsp/spahgc_rs_connectivities"])
@pytest.mark.parametrize(("part", "where"), [("indices", 0), ("indptr", 3)])
def test_a_bank_on_disk_whose_matrices_point_elsewhere_is_refused(
    refs, tmp_path: Path, name: str, part: str, where: int
) -> None:
    sp.pp.reference_bank(refs, path=tmp_path / "bank.zarr")
    overwrite(tmp_path / "bank.zarr" / "v000001", f"{name}/{part}", 2**30, where=where)
    done = in_a_process(OPEN, tmp_path / "bank.zarr")
    assert done.returncode == 0, done.stderr
    assert "is damaged" in done.stdout or "is a damaged sparse matrix" in done.stdout, done


def test_a_bank_on_disk_that_points_elsewhere_is_refused_by_a_prediction(refs, target, tmp_path: Path) -> None:
    sp.pp.reference_bank(refs, path=tmp_path / "bank.zarr")
    overwrite(tmp_path / "bank.zarr" / "v000001", "X/indices", 2**30, where=0)
    with pytest.raises(ValueError, match="damaged sparse matrix: indices from"):
        sp.tl.predict(target, tmp_path / "bank.zarr", method="ridge")


def test_a_graph_that_was_read_back_damaged_is_not_drawn(refs, target, quick) -> None:
    sp.tl.predict(target, refs, preset=quick)
    target.obsm["spahgc_cs"].indices[0] = 2**30
    with pytest.raises(ValueError, match="damaged sparse matrix: indices from"):
        sp.tl.attribution(target, target.obs_names[0])
    sp.pp.spatial_graph(target)
    target.obsp["spatial_distances"].indices[0] = 2**30
    sp.pp.cross_graph(target, sp.pp.reference_bank(refs))
    with pytest.raises(ValueError, match="damaged sparse matrix: indices from"):
        sp.pp.hetero_data(target, sp.pp.reference_bank(refs))


def test_a_cs_graph_that_is_handed_over_is_looked_at(refs, target, quick) -> None:
    model = sp.tl.fit(refs, preset=quick)
    cross = model.cross_graph(target)
    cross.indices[0] = 2**30
    with pytest.raises(ValueError, match="cross= is a damaged sparse matrix"):
        model.predict(target, cross=cross)


@pytest.mark.parametrize("gene", ["gex", "old"])
def test_counts_of_space_ranger_that_point_elsewhere_are_refused(tmp_path: Path, gene: str) -> None:
    from spahgc.io._space_ranger import read_counts

    path = tmp_path / "filtered_feature_bc_matrix.h5"
    counts = csc_matrix(np.ones((3, 4), np.int32))
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix" if gene == "gex" else "GRCh38")
        for name, values in {"data": counts.data, "indices": counts.indices, "indptr": counts.indptr}.items():
            group[name] = values
        group["indices"][0] = 2**30
        group["shape"] = counts.shape
        group["barcodes"] = np.array([b"AAAC-1", b"AAAG-1", b"AAAT-1", b"AACC-1"])
        names = np.array([b"g1", b"g2", b"g3"])
        if gene == "old":
            group["genes"] = group["gene_names"] = names
        else:
            for name in ("id", "name", "feature_type", "genome"):
                group[f"features/{name}"] = names
    with pytest.raises(ValueError, match="is damaged: indices from 0 to 1,073,741,824 in 3 columns"):
        read_counts(path)


def test_a_damaged_bank_of_a_model_is_refused(refs, quick, tmp_path: Path) -> None:
    import json

    from spahgc._training.model_files import checksums

    model = sp.tl.fit(refs, preset=quick)
    model.save(tmp_path / "model")
    overwrite(tmp_path / "model" / "bank.h5ad", "X/indices", 2**30)
    description = json.loads((tmp_path / "model" / "model.json").read_text())
    description["sha256"] = checksums(tmp_path / "model")
    (tmp_path / "model" / "model.json").write_text(json.dumps(description))
    with pytest.raises(ValueError, match="the bank of the model .* cannot be read: the sparse matrix X is damaged"):
        sp.SpaHGC.load(tmp_path / "model")


def test_files_without_damage_are_read_as_before(refs, tmp_path: Path) -> None:
    refs[0].write_h5ad(tmp_path / "slide.h5ad")
    found = read_h5ad(tmp_path / "slide.h5ad", "the slide", "Copy it again.")
    assert found.shape == ad.read_h5ad(tmp_path / "slide.h5ad").shape
