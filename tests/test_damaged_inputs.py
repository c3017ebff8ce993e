"""Archives, gene sets, labels and stores that are damaged, hostile or in the wrong place: an error in our words, or as told."""

from __future__ import annotations

import bz2
import errno
import gzip
import importlib.util
import io
import lzma
import os
import sys
import tarfile
from pathlib import Path
from types import ModuleType

import pytest
from anndata import AnnData

import spahgc as sp
from spahgc._many.stores import image_files, read_made_with, read_slide
from spahgc._reading import UnreadableError
from spahgc.datasets import CohortUnavailableError, _archive
from spahgc.datasets._archive import unpack
from spahgc.tl._gene_sets import read_gmt


def _helper(name: str) -> ModuleType:
    """Load a helper by its path: with ``--import-mode=importlib`` tests cannot import their neighbours."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


cohort_files = _helper("cohort_files")


def archive_of(path: Path, mode: str = "w", **content: bytes) -> Path:
    with tarfile.open(path, mode) as tar:
        for name, data in content.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


# Archives


@pytest.mark.parametrize("pack", [lzma.compress, bz2.compress, gzip.compress])
def test_an_archive_whose_packing_is_damaged_is_deleted_and_explained(tmp_path: Path, pack) -> None:
    whole = bytearray(pack(archive_of(tmp_path / "plain", one=os.urandom(50_000)).read_bytes()))
    whole[len(whole) // 2 : len(whole) // 2 + 40] = bytes(40)
    archive, folder = tmp_path / "archive", tmp_path / "out"
    archive.write_bytes(whole)
    folder.mkdir()
    with pytest.raises(CohortUnavailableError, match=r"cannot be unpacked \(.+\) and was deleted"):
        unpack(archive, folder, lambda name: name)
    assert not archive.exists() and not list(folder.iterdir())


@pytest.mark.parametrize("packed_inside", [True, False])
def test_an_archive_that_would_fill_the_disk_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed_inside: bool
) -> None:
    monkeypatch.setattr(_archive, "MIN_LIMIT_BYTES", 1000)
    zeros, folder = bytes(30_000_000), tmp_path / "out"
    content = gzip.compress(zeros) if packed_inside else zeros
    archive = archive_of(tmp_path / "archive", "w:gz", **{"image.jpg.gz" if packed_inside else "image.jpg": content})
    folder.mkdir()
    with pytest.raises(CohortUnavailableError, match="more than 200 times as large as itself"):
        unpack(archive, folder, lambda name: name.removesuffix(".gz"))
    assert not list(folder.iterdir())


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_of_an_archive_are_left_out(tmp_path: Path, kind: bytes) -> None:
    (tmp_path / "secret").write_text("secret")
    archive, folder = tmp_path / "archive", tmp_path / "out"
    with tarfile.open(archive, "w") as tar:
        member = tarfile.TarInfo("one")
        member.type, member.linkname = kind, "../secret"
        tar.addfile(member)
    folder.mkdir()
    unpack(archive, folder, lambda name: name)
    assert not list(folder.iterdir())


@pytest.mark.parametrize("full", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_and_a_full_quota_are_both_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: int) -> None:
    archive = archive_of(tmp_path / "archive", one=b"content")

    def no_room(*_: object) -> int:
        raise OSError(full, os.strerror(full))

    monkeypatch.setattr(_archive, "_copy", no_room)
    (tmp_path / "out").mkdir()
    with pytest.raises(OSError, match="no room to unpack .*settings.cache_dir"):
        unpack(archive, tmp_path / "out", lambda name: name)
    assert archive.exists(), "nothing is wrong with it"


# Gene sets


def test_a_gene_set_file_is_split_at_ends_of_lines_alone(tmp_path: Path) -> None:
    file = tmp_path / "sets.gmt"
    file.write_bytes("A\tof\u2028two lines\x0bor three\tG1\tG2\r\nB\t\tG3\rC\t\tG4\n".encode())
    table = read_gmt(file)
    assert [*zip(table["source"], table["target"], strict=True)] == [("A", "G1"), ("A", "G2"), ("B", "G3"), ("C", "G4")]


def test_a_gene_set_file_may_begin_with_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "sets.gmt").write_text("A\t\tG1\n")
    assert list(read_gmt("~/sets.gmt")["target"]) == ["G1"]


def test_a_folder_or_a_file_out_of_reach_in_place_of_gene_sets_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FileNotFoundError, match="is a folder. Pass the path of a GMT file"):
        read_gmt(tmp_path)
    (tmp_path / "sets.gmt").write_bytes(gzip.compress(b"A\t\tG1\n"))
    with pytest.raises(ValueError, match="not a text file.*Unpack it first"):
        read_gmt(tmp_path / "sets.gmt")

    def refused(*_: object) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refused)
    with pytest.raises(PermissionError, match="may not be read.*Pass the path of a GMT file"):
        read_gmt(tmp_path / "sets.gmt")


# Labels beside a cohort


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"x\ty\tlabel\none\ttwo\tthree\n", b"x\ty\n1\t2\n"])
def test_damaged_labels_of_a_cohort_are_named(tmp_path: Path, content: bytes) -> None:
    folder = cohort_files.write_her2st(tmp_path / "her2st", ("A1",))
    labels = folder / "data" / "ST-pat" / "lbl" / "A1_labeled_coordinates.tsv"
    labels.parent.mkdir(parents=True, exist_ok=True)
    labels.write_bytes(content)
    with pytest.raises(
        UnreadableError, match=r"the labels .*A1_labeled_coordinates.tsv.*can be read without its labels"
    ):
        sp.datasets.her2st(folder, sections=["A1"])


# Slides and stores of many


@pytest.mark.parametrize("damage", ["cut", "no hdf5", "empty"])
@pytest.mark.parametrize("read", [read_slide, image_files, lambda path: read_made_with(path, "predict")])
def test_a_damaged_slide_is_named_with_the_way_out(tmp_path: Path, cohort: list[AnnData], damage: str, read) -> None:
    path = tmp_path / "slide.h5ad"
    cohort[0].write_h5ad(path)
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[: len(whole) // 2], "no hdf5": b"text", "empty": b""}[damage])
    with pytest.raises(UnreadableError, match=r"the slide .*slide.h5ad.*cannot be read.*Write it again"):
        read(path)


def test_a_store_without_its_metadata_is_named(tmp_path: Path, cohort: list[AnnData]) -> None:
    path = tmp_path / "slide.zarr"
    cohort[0].write_zarr(path)
    for file in path.rglob("*"):
        if file.name in ("zarr.json", ".zgroup", ".zattrs", ".zarray", ".zmetadata"):
            file.write_text("{")
    for read in (read_slide, image_files, lambda path: read_made_with(path, "predict")):
        with pytest.raises((UnreadableError, FileNotFoundError), match=r"the slide .*slide.zarr.*Write it again"):
            read(path)
