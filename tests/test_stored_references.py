"""References named by their paths: files, stores, folders and patterns."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
from anndata import AnnData

import spahgc as sp


@pytest.fixture
def folder(refs: list[AnnData], tmp_path: Path) -> Path:
    """Two references as files and one as a store."""
    (tmp_path / "refs").mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for slide in refs[:2]:
            slide.write_h5ad(tmp_path / "refs" / f"{slide.obs['slide'].iloc[0]}.h5ad")
        refs[2].write_zarr(tmp_path / "refs" / "third.zarr")
    return tmp_path / "refs"


WAYS: dict[str, Callable[[Path, list[AnnData]], Any]] = {
    "a folder": lambda folder, refs: folder,
    "a folder, as text": lambda folder, refs: str(folder),
    "a pattern": lambda folder, refs: str(folder / "*"),
    "a list of paths": lambda folder, refs: sorted(folder.iterdir()),
    "patterns and a path": lambda folder, refs: (str(folder / "*.h5ad"), folder / "third.zarr"),
    "paths and a slide": lambda folder, refs: [folder / "*.h5ad", refs[2]],
    "an iterator": lambda folder, refs: iter(sorted(folder.iterdir())),
}


@pytest.mark.parametrize("way", WAYS)
def test_paths_of_references_predict_what_the_references_predict(
    target: AnnData, refs: list[AnnData], folder: Path, way: str
) -> None:
    expected = sp.tl.predict(target, refs, method="ridge", copy=True)
    found = sp.tl.predict(target, WAYS[way](folder, refs), method="ridge", copy=True)
    np.testing.assert_array_equal(found.layers["spahgc"], expected.layers["spahgc"])
    record = found.uns["spahgc"]["predictions"]["spahgc"]
    assert list(record["references"]) == ["P1S2", "P2S1", "P2S2"]


def test_a_single_file_is_a_reference(target: AnnData, refs: list[AnnData], folder: Path) -> None:
    expected = sp.tl.predict(target, refs[0], method="nearest", copy=True).layers["spahgc"]
    found = sp.tl.predict(target, folder / "P2S1.h5ad", method="nearest", copy=True).layers["spahgc"]
    np.testing.assert_array_equal(found, expected)


def test_banks_genes_and_models_come_from_paths_as_well(
    refs: list[AnnData], folder: Path, quick: sp.Parameters
) -> None:
    bank = sp.pp.reference_bank(refs)
    np.testing.assert_array_equal(sp.pp.reference_bank(folder).X.toarray(), bank.X.toarray())
    assert sp.pp.select_genes(folder / "*.h5ad") == sp.pp.select_genes(refs[:2])
    assert sp.tl.fit(str(folder / "*"), preset=quick).genes == list(bank.var_names)


def test_a_number_of_references_is_chosen_among_those_of_a_folder(
    target: AnnData, refs: list[AnnData], folder: Path
) -> None:
    expected = sp.tl.predict(target, refs, n_references=2, method="ridge", copy=True)
    found = sp.tl.predict(target, folder, n_references=2, method="ridge", copy=True)
    np.testing.assert_array_equal(found.layers["spahgc"], expected.layers["spahgc"])


def test_a_bank_is_still_taken_by_its_path(target: AnnData, refs: list[AnnData], tmp_path: Path) -> None:
    sp.pp.reference_bank(refs, path=tmp_path / "bank.zarr", peers=False)
    sp.tl.predict(target, tmp_path / "bank.zarr", method="nearest")
    assert np.isfinite(target.layers["spahgc"]).any()
    with pytest.raises(ValueError, match="a bank of references is passed alone, not in a list"):
        sp.tl.predict(target, [tmp_path / "bank.zarr"], method="nearest")
    with pytest.raises(ValueError, match="n_references= chooses among slides"):
        sp.tl.predict(target, tmp_path / "bank.zarr", n_references=2)


def test_a_bank_in_a_file_is_a_bank(target: AnnData, refs: list[AnnData], tmp_path: Path) -> None:
    bank = sp.pp.reference_bank(refs)
    bank.write_h5ad(tmp_path / "bank.h5ad")
    expected = sp.tl.predict(target, bank, method="nearest", copy=True).layers["spahgc"]
    sp.tl.predict(target, tmp_path / "bank.h5ad", method="nearest")
    np.testing.assert_array_equal(target.layers["spahgc"], expected)


def test_a_slide_without_a_name_is_called_by_its_file(target: AnnData, refs: list[AnnData], tmp_path: Path) -> None:
    for name, slide in zip(("left", "right"), refs, strict=False):
        del slide.obs["slide"]
        slide.write_h5ad(tmp_path / f"{name}.h5ad")
    sp.tl.predict(target, tmp_path, method="nearest")
    assert list(target.uns["spahgc"]["predictions"]["spahgc"]["references"]) == ["left", "right"]


@pytest.mark.filterwarnings("ignore")
def test_a_spatialdata_on_disk_is_a_reference(target: AnnData, refs: list[AnnData], tmp_path: Path) -> None:
    spatialdata = pytest.importorskip("spatialdata")
    table = spatialdata.models.TableModel.parse(refs[0].copy())
    spatialdata.SpatialData(tables={"table": table}).write(tmp_path / "a.zarr")
    expected = sp.tl.predict(target, refs[0], method="nearest", copy=True).layers["spahgc"]
    sp.tl.predict(target, [tmp_path / "a.zarr"], method="nearest")
    np.testing.assert_array_equal(target.layers["spahgc"], expected)


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("refs_of", "error", "message"),
    [
        (lambda folder: folder / "absent.h5ad", FileNotFoundError, 'reference ".*absent.h5ad": there is no such file'),
        (lambda folder: [folder / "absent.zarr"], FileNotFoundError, 'reference ".*absent.zarr": there is no such file'),
        (lambda folder: str(folder / "*.loom"), FileNotFoundError, "no file fits this pattern"),
        (lambda folder: write(folder / "a.csv", b"x"), ValueError, 'is no slide: it ends in ".csv". Pass a .h5ad'),
        (lambda folder: [write(folder / "B4.jpg", b"x")], ValueError, 'is no slide: it ends in ".jpg".*spahgc.io'),
        (lambda folder: write(folder / "a.h5ad", b"x"), ValueError, 'the reference ".*a.h5ad" .* cannot be read'),
        (lambda folder: [folder], ValueError, "is a folder, and no slide that"),
        (lambda folder: folder, FileNotFoundError, "is no bank of references"),
        (lambda folder: [""], ValueError, "the path of a reference='' names nothing"),
    ],
    ids=["file", "store", "pattern", "table", "image", "damaged", "folder in a list", "empty folder", "nothing"],
)  # fmt: skip
def test_a_path_that_is_no_reference_is_named_with_the_way_out(
    target: AnnData, tmp_path: Path, refs_of: Callable[[Path], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        sp.tl.predict(target, refs_of(tmp_path), method="mean")
    assert "spahgc" not in target.layers


def test_the_target_among_the_files_is_refused(target: AnnData, folder: Path) -> None:
    target.write_h5ad(folder / "P1S1.h5ad")
    with pytest.raises(ValueError, match="target"):
        sp.tl.predict(ad.read_h5ad(folder / "P1S1.h5ad"), folder, method="mean")
