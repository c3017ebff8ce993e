"""The cohorts of the paper: their files in small, and downloads from a server that fails in all the ways there are."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import io
import json
import shutil
import sys
import tarfile
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import tifffile

import spahgc as sp
from spahgc.datasets import CohortUnavailableError
from spahgc.datasets._archive import unpack
from spahgc.datasets._cohort import COHORTS, UNKNOWN, find_cohort
from spahgc.datasets._download import RETRIES, Remote, git_checksum, retrieve
from spahgc.datasets._hest import reaching_hest

TOKEN = "hf_" + "s3cr3t" * 5
HOST = "host.org"
URL = f"https://{HOST}/a/file.bin"
CONTENT = np.random.default_rng(0).bytes(3_000_000)
LISTING = "api.github.com/repos/almaan/her2st/git/trees/master?recursive=1"
RAW = "raw.githubusercontent.com/almaan/her2st/master"


def _helper(name: str) -> Any:
    """Load a helper by its path: with ``--import-mode=importlib`` tests cannot import their neighbours."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


cohort_files, file_server = _helper("cohort_files"), _helper("file_server")
hub_server, slide_files = _helper("hub_server"), _helper("slide_files")


@pytest.fixture
def server() -> Iterator[Any]:
    with file_server.running_files() as files:
        yield files


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of its own for each test, and no waiting between attempts."""
    import pooch.core

    monkeypatch.setattr(sp.settings, "cache_dir", tmp_path / "cache")
    monkeypatch.setattr(pooch.core, "time", types.SimpleNamespace(sleep=lambda seconds: None))


@pytest.fixture(scope="module")
def slides() -> list[ad.AnnData]:
    return sp.datasets.simulated(3, n_patients=3, n_spots=24, n_genes=20, seed=1)


# The records


def test_the_table_has_the_sections_patients_and_figures_of_the_paper() -> None:
    table = sp.datasets.cohorts()
    assert dict(table["sections"]) == {
        "cscc": 12,
        "her2st": 36,
        "alex": 4,
        "visium_bc": 3,
        "hest_lymph_node": 4,
        "hest_pancreas1": 4,
        "hest_pancreas2": 3,
        "spinal_cord": 10,
        "olfactory_bulb": 4,
    }
    assert table.loc["her2st", "patients"] == 8 and table.loc["cscc", "patients"] == 4
    unknown = ["hest_pancreas1", "hest_pancreas2", "olfactory_bulb"]
    assert list(table.index[table["patients"].isna()]) == unknown, "nobody knows their patients"
    assert list(table["paper_pcc"].dropna()) == [0.3879, 0.2786, 0.1719, 0.2008, 0.3502, 0.2448, 0.4136]
    assert list(table.index[table["paper_pcc"].isna()]) == ["spinal_cord", "olfactory_bulb"]
    assert (table[["title", "platform", "source", "licence", "citation"]] != "").all(axis=None)


def test_every_cohort_is_a_function_of_its_name() -> None:
    for name in COHORTS:
        assert getattr(sp.datasets, name).__name__ == name


@pytest.mark.parametrize("name", COHORTS)
def test_the_documentation_of_a_cohort_holds_its_record(name: str) -> None:
    cohort, documentation = COHORTS[name], getattr(sp.datasets, name).__doc__
    said = " ".join(documentation.split())
    for part in (cohort.citation, cohort.licence, cohort.source, cohort.note, f'sections=["{cohort.sections[0]}"]'):
        assert part in said
    assert f": {len(cohort.sections)} s" in documentation.splitlines()[0]
    assert "{" not in documentation and max(map(len, documentation.splitlines())) <= 120


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match='there is no cohort "her2". Choose from cscc, her2st'):
        find_cohort("her2")
    with pytest.raises(ValueError, match=r'sections "Z9" are not in cohort her2st. It has A1, A2'):
        sp.datasets.her2st("anywhere", sections=["A1", "Z9"])
    with pytest.raises(TypeError, match=r'Pass \["A1"\]'):
        sp.datasets.her2st("anywhere", sections="A1")
    with pytest.raises(ValueError, match="more than once"):
        sp.datasets.her2st("anywhere", sections=["A1", "A1"])


# Copies that are there


def check_slide(adata: ad.AnnData, cohort: str, section: str, patient: str, tmp_path: Path) -> None:
    """What every slide of a cohort carries, also when it comes back from a file."""
    adata.write_h5ad(tmp_path / "slide.h5ad")
    adata.write_zarr(tmp_path / "slide.zarr")
    for slide in (adata, ad.read_h5ad(tmp_path / "slide.h5ad"), ad.read_zarr(tmp_path / "slide.zarr")):
        assert set(slide.obs["slide"]) == {section}
        assert set(slide.obs["patient"]) == {patient}
        record = {key: str(value) for key, value in slide.uns["spahgc"]["cohort"].items()}
        assert record == COHORTS[cohort].to_uns()
        assert str(tmp_path) not in json.dumps(record)
        assert list(slide.uns["spatial"]) == [section]


@pytest.mark.parametrize("start", ["", "data"])
def test_her2st_reads_the_authors_repository(tmp_path: Path, start: str) -> None:
    folder = cohort_files.write_her2st(tmp_path / "copy", ("A1", "B2"))
    if start:  # without the labels of the pathologist
        shutil.rmtree(folder / "data" / "ST-pat")
    with pytest.warns(UserWarning, match="2 of the 36 sections of cohort her2st are in .*: A1, B2"):
        first, second = sp.datasets.her2st(folder)
    check_slide(second, "her2st", "B2", "B", tmp_path)
    assert first.shape == (35, 30)
    counts, spots, _ = cohort_files.st_tables(0)
    assert np.array_equal(first.X.toarray(), counts.loc[first.obs_names].to_numpy())
    assert np.allclose(first.obsm["spatial"], spots[["pixel_x", "pixel_y"]].to_numpy()[1:])
    assert "annotation" not in second.obs
    if not start:
        assert list(first.obs["annotation"].astype(str)[:2]) == ["adipose tissue"] * 2
        assert first.obs["annotation"].isna().sum() == 1


def test_her2st_reads_files_side_by_side(tmp_path: Path) -> None:
    for seed, name in enumerate(("C2", "C3")):
        cohort_files.write_st(
            seed, tmp_path / f"{name}.tsv.gz", tmp_path / f"{name}_selection.tsv", tmp_path / f"{name}.jpg"
        )
    (slide,) = sp.datasets.her2st(tmp_path, sections=["C3"])
    assert set(slide.obs["slide"]) == {"C3"} and set(slide.obs["patient"]) == {"C"}


def test_a_section_that_lacks_a_file_is_named_and_not_passed_over(tmp_path: Path) -> None:
    folder = cohort_files.write_her2st(tmp_path, ("A1", "B2"))
    next(folder.glob("data/ST-imgs/B/B2/*.jpg")).unlink()
    with pytest.raises(FileNotFoundError, match='section "B2" of cohort her2st lacks image .* data/ST-imgs/A/A1'):
        sp.datasets.her2st(folder)
    with pytest.raises(FileNotFoundError, match='section "C1" of cohort her2st lacks counts, spots, image'):
        sp.datasets.her2st(folder, sections=["C1"])
    assert len(sp.datasets.her2st(folder, sections=["A1"])) == 1


def test_a_folder_of_something_else_says_what_was_expected(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(FileNotFoundError, match='no section of cohort her2st .* holds "notes.txt". Expected is'):
        sp.datasets.her2st(tmp_path)
    with pytest.raises(FileNotFoundError, match="is no folder"):
        sp.datasets.her2st(tmp_path / "absent")


def test_two_images_of_a_section_are_refused(tmp_path: Path) -> None:
    folder = cohort_files.write_her2st(tmp_path, ("A1",))
    image = next(folder.glob("data/ST-imgs/A/A1/*.jpg"))
    shutil.copy(image, image.with_name("other.jpg"))
    with pytest.raises(ValueError, match="2 files that fit .*A1.*jpg"):
        sp.datasets.her2st(folder, sections=["A1"])


def test_cscc_reads_what_geo_packed(tmp_path: Path) -> None:
    folder = cohort_files.write_cscc(tmp_path / "copy", ("P2_ST_rep1", "P10_ST_rep3"))
    first, second = sp.datasets.cscc(folder, sections=["P2_ST_rep1", "P10_ST_rep3"])
    check_slide(first, "cscc", "P2_ST_rep1", "P2", tmp_path)
    assert set(second.obs["patient"]) == {"P10"}
    assert first.shape == (35, 30)


def test_cscc_images_that_are_packed_are_missing_and_the_message_says_how_to_unpack_them(tmp_path: Path) -> None:
    folder = cohort_files.write_cscc(tmp_path, ("P2_ST_rep1",), packed_images=True)
    with pytest.raises(FileNotFoundError, match="lacks image .*gunzip"):
        sp.datasets.cscc(folder, sections=["P2_ST_rep1"])


def write_alex(folder: Path, slide: ad.AnnData, *, scale_factors: bool) -> pd.DataFrame:
    """One section in the layout of the published archives, with the image beside it."""
    positions = slide_files.visium_positions(slide)
    names = slide_files.tissue_barcodes(slide, positions)
    (folder / "spatial").mkdir(parents=True)
    positions.to_csv(folder / "spatial" / "tissue_positions_list.csv", index=False, header=False)
    if scale_factors:
        slide_files.write_images(folder / "spatial", slide_files.full_image(slide))
    slide_files.write_mtx(folder / "filtered_count_matrix", slide, names, packed=False, columns=1)
    tifffile.imwrite(folder / "image.tif", slide_files.full_image(slide), photometric="rgb", tile=(256, 256))
    metadata = pd.DataFrame({"subtype": "TNBC", "Classification": "Stroma"}, index=names[:-1])
    metadata.to_csv(folder / "metadata.csv")
    return metadata


@pytest.mark.parametrize("scale_factors", [True, False])
def test_alex_reads_the_published_tables_with_the_image(
    tmp_path: Path, slides: list[ad.AnnData], scale_factors: bool
) -> None:
    write_alex(tmp_path / "copy" / "CID4465", slides[0], scale_factors=scale_factors)
    (slide,) = sp.datasets.alex(tmp_path / "copy", sections=["CID4465"])
    check_slide(slide, "alex", "CID4465", "CID4465", tmp_path)
    assert (slide.X != slides[0].X).nnz == 0
    assert np.allclose(slide.obsm["spatial"], slides[0].obsm["spatial"], atol=1)
    assert slide.obs["annotation"].isna().sum() == 1 and set(slide.obs["subtype"].dropna()) == {"TNBC"}
    factors = slide.uns["spatial"]["CID4465"]["scalefactors"]
    assert factors["microns_per_pixel"] == pytest.approx(slide_files.MPP, rel=0.02)
    assert factors["spot_diameter_fullres"] > 0 and factors["tissue_hires_scalef"] > 0
    if not scale_factors:  # what was made in their place is enough
        sp.pp.embed(slide, encoder="test_vit", checkpoint=tiny_weights(tmp_path))
        assert slide.obsm["X_test_vit"].shape == (24, 64)


def test_visium_bc_reads_space_rangers_output_with_the_image(tmp_path: Path, slides: list[ad.AnnData]) -> None:
    for slide, section in zip(slides, ("block1", "FFPE"), strict=False):
        write_visium_bc(tmp_path, slide, section)
    with pytest.warns(UserWarning, match="2 of the 3 sections"):
        first, last = sp.datasets.visium_bc(tmp_path)
    check_slide(last, "visium_bc", "FFPE", "FFPE", tmp_path)
    assert set(first.obs["patient"]) == {"Block A"}
    assert first.n_obs == 24


def write_visium_bc(folder: Path, slide: ad.AnnData, section: str) -> None:
    image = slide_files.write_visium(folder / "run", slide, version=1)
    shutil.move(folder / "run" / "outs", folder / section)
    shutil.move(image, folder / section / "image.tif")
    shutil.rmtree(folder / "run")


@pytest.mark.parametrize(
    ("name", "sample", "patient"),
    [("hest_lymph_node", "NCBI681", "8"), ("hest_pancreas1", "NCBI570", UNKNOWN), ("hest_pancreas2", "TENX116", "Jo")],
)
def test_hest_samples_carry_their_patient(
    tmp_path: Path, slides: list[ad.AnnData], name: str, sample: str, patient: str
) -> None:
    stated = {"Jo": "Jo", "8": "Patient 8", UNKNOWN: None}[patient]
    slide_files.write_hest(tmp_path, slides[0], sample, patient=stated)
    with pytest.warns(UserWarning, match="1 of the"):
        (slide,) = getattr(sp.datasets, name)(tmp_path)
    check_slide(slide, name, sample, patient, tmp_path)


def tiny_weights(folder: Path) -> Path:
    """Weights of an encoder that takes milliseconds."""
    import timm
    from safetensors.torch import save_file

    path = folder / "tiny.safetensors"
    save_file(timm.create_model("test_vit", pretrained=False, num_classes=0).state_dict(), path)
    return path


@pytest.mark.data
def test_her2st_reads_the_measured_slides(her2st: Path) -> None:
    (slide,) = sp.datasets.her2st(her2st, sections=["C2"])
    assert slide.n_obs == 187 and set(slide.obs["patient"]) == {"C"}
    assert slide.obs["cluster"].notna().sum() == 185, "the authors left two spots out"
    assert np.median(np.asarray(slide.X.sum(axis=1))) == 8508


# Downloads


def test_a_file_arrives_whole(server: Any, tmp_path: Path) -> None:
    server.content[f"{HOST}/a/file.bin"] = CONTENT
    path = tmp_path / "folder" / "file.bin"
    assert retrieve(Remote(URL), path, page="P", mirror=server.url) == path
    assert path.read_bytes() == CONTENT
    assert {entry.name for entry in path.parent.iterdir()} == {"file.bin", ".file.bin.sha256"}
    retrieve(Remote(URL), path, page="P", mirror=server.url)
    assert server.requests == [f"{HOST}/a/file.bin"], "it is not downloaded twice"


def test_a_connection_that_is_cut_is_continued_where_it_ended(server: Any, tmp_path: Path) -> None:
    server.content[f"{HOST}/a/file.bin"] = CONTENT
    server.failures = ["cut", "500", "cut"]
    path = retrieve(Remote(URL), tmp_path / "file.bin", page="P", mirror=server.url)
    assert path.read_bytes() == CONTENT
    begins = [int(entry.split("bytes=")[1][:-1]) for entry in server.requests if "bytes=" in entry]
    assert len(begins) == 3 and 0 < begins[0] == begins[1] < begins[2] < len(CONTENT)


def test_a_later_call_continues_what_an_earlier_one_left(server: Any, tmp_path: Path) -> None:
    server.content[f"{HOST}/a/file.bin"] = CONTENT
    server.failures = ["cut", *["503"] * RETRIES]
    with pytest.raises(CohortUnavailableError, match=r"status 503. What can be done:\n- Call again: .*0\.00[12] GB"):
        retrieve(Remote(URL), tmp_path / "file.bin", page="P", mirror=server.url)
    assert not (tmp_path / "file.bin").exists(), "no part of a file stands in its place"
    retrieve(Remote(URL), tmp_path / "file.bin", page="P", mirror=server.url)
    assert "bytes=" in server.requests[-1]
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_parts_of_two_versions_are_never_joined(server: Any, tmp_path: Path) -> None:
    server.content[f"{HOST}/a/file.bin"] = CONTENT
    server.failures = ["cut", *["503"] * RETRIES]
    with pytest.raises(CohortUnavailableError):
        retrieve(Remote(URL), tmp_path / "file.bin", page="P", mirror=server.url)
    server.content[f"{HOST}/a/file.bin"] = CONTENT[::-1]
    retrieve(Remote(URL), tmp_path / "file.bin", page="P", mirror=server.url)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("missing", ["ranges", "versions"])
def test_servers_without_ranges_or_versions_are_asked_for_all_again(server: Any, tmp_path: Path, missing: str) -> None:
    setattr(server, missing, False)
    server.content[f"{HOST}/a/file.bin"] = CONTENT
    server.failures = ["cut"]
    retrieve(Remote(URL), tmp_path / "file.bin", page="P", mirror=server.url)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("kind", ["md5", "sha256", "git", "size"])
def test_another_content_than_the_known_one_never_takes_its_place(server: Any, tmp_path: Path, kind: str) -> None:
    (tmp_path / "right").write_bytes(CONTENT)
    known = {
        "md5": Remote(URL, f"md5:{hashlib.md5(CONTENT).hexdigest()}"),
        "sha256": Remote(URL, f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"),
        "git": Remote(URL, git_checksum(tmp_path / "right"), len(CONTENT)),
        "size": Remote(URL, None, len(CONTENT)),
    }[kind]
    server.content[f"{HOST}/a/file.bin"] = CONTENT[:-1] + (b"?" if kind != "size" else b"")
    with pytest.raises(CohortUnavailableError, match="arrived 4 times with another content .* Open PAGE"):
        retrieve(known, tmp_path / "file.bin", page="PAGE", mirror=server.url)
    assert [entry.name for entry in tmp_path.iterdir()] == ["right"]
    server.content[f"{HOST}/a/file.bin"] = CONTENT
    retrieve(known, tmp_path / "file.bin", page="PAGE", mirror=server.url)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_the_checksum_is_that_of_git(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"hello\n")
    assert git_checksum(tmp_path / "file") == "git:ce013625030ba8dba906f756967f9e9ca394464a"


@pytest.mark.parametrize(
    ("status", "why"), [("403", "access is refused"), ("410", "was removed"), ("", "no such file")]
)
def test_an_answer_that_is_final_is_not_asked_for_again(server: Any, tmp_path: Path, status: str, why: str) -> None:
    server.failures = [status] if status else []
    with pytest.raises(CohortUnavailableError, match=f"{why}.*path="):
        retrieve(Remote(URL), tmp_path / "file.bin", page="P", mirror=server.url)
    assert len(server.requests) == 1


def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CohortUnavailableError, match="127.0.0.1:9/host.org.* could not be downloaded: ConnectionError"):
        retrieve(Remote(URL), tmp_path / "file.bin", page="P", mirror="http://127.0.0.1:9")


def test_a_full_disk_is_noticed_before_it_is_full(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.content[f"{HOST}/a/file.bin"] = CONTENT
    monkeypatch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(free=1000))
    with pytest.raises(OSError, match=r"no room for .*0.00 GB are needed.*settings.cache_dir"):
        retrieve(Remote(URL), tmp_path / "file.bin", page="P", mirror=server.url)


def serve_her2st(server: Any, copy: Path) -> None:
    """The repository's files, and GitHub's listing of them."""
    tree = [{"path": "data", "type": "tree", "sha": "0" * 40}]
    for path in sorted(copy.rglob("*")):
        if path.is_file():
            name = path.relative_to(copy).as_posix()
            server.content[f"{RAW}/{name}"] = path.read_bytes()
            sha = git_checksum(path).removeprefix("git:")
            tree.append({"path": name, "type": "blob", "sha": sha, "size": path.stat().st_size})
    server.content[LISTING] = json.dumps({"sha": "1" * 40, "tree": tree, "truncated": False}).encode()


def test_her2st_is_fetched_file_by_file_and_read_from_the_cache(server: Any, tmp_path: Path) -> None:
    copy = cohort_files.write_her2st(tmp_path / "copy", ("A1", "B2"))
    serve_her2st(server, copy)
    server.failures = ["", "", "cut"]
    folder = sp.datasets.fetch("her2st", sections=["A1", "B2"], mirror=server.url)
    assert folder == sp.settings.cache_dir / "cohorts" / "her2st"
    names = {path.relative_to(copy): path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    assert {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()} == names
    server.requests.clear()
    slides = sp.datasets.her2st(sections=["A1", "B2"])  # no mirror: what is there needs no network
    assert [slide.obs["slide"].iloc[0] for slide in slides] == ["A1", "B2"]
    assert not server.requests


def test_only_what_is_missing_is_fetched(server: Any, tmp_path: Path) -> None:
    serve_her2st(server, cohort_files.write_her2st(tmp_path / "copy", ("A1", "B2")))
    folder = sp.datasets.fetch("her2st", sections=["A1"], mirror=server.url)
    assert not list(folder.rglob("B2*"))
    server.requests.clear()
    sp.datasets.fetch("her2st", sections=["A1", "B2"], mirror=server.url)
    assert len(server.requests) == 4 and not any("A1" in name for name in server.requests)


def test_a_repository_without_the_image_and_a_listing_that_is_none_are_explained(server: Any, tmp_path: Path) -> None:
    copy = cohort_files.write_her2st(tmp_path / "copy", ("A1",))
    next(copy.glob("data/ST-imgs/A/A1/*.jpg")).unlink()
    serve_her2st(server, copy)
    with pytest.raises(CohortUnavailableError, match='no image of section "A1" any more'):
        sp.datasets.fetch("her2st", sections=["A1"], mirror=server.url)
    server.content[LISTING] = b"<html>Please log in to the hotel's network</html>"
    with pytest.raises(CohortUnavailableError, match="answers with a web page.*proxy"):
        sp.datasets.fetch("her2st", sections=["A1"], mirror=server.url)


def tar_of(folder: Path, mode: str, top: str = "") -> bytes:
    """An archive of a folder, in memory."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                tar.add(path, arcname=f"{top}{path.relative_to(folder).as_posix()}")
    return buffer.getvalue()


def test_cscc_is_unpacked_from_geos_archive(server: Any, tmp_path: Path) -> None:
    sections = tuple(COHORTS["cscc"].sections)
    copy = cohort_files.write_cscc(tmp_path / "copy", sections, packed_images=True)
    (copy / "GSM4284400_other_sample_stdata.tsv.gz").write_bytes(b"of another platform")
    path = "ftp.ncbi.nlm.nih.gov/geo/series/GSE144nnn/GSE144240/suppl/GSE144240_RAW.tar"
    server.content[path] = tar_of(copy, "w")
    server.failures = ["cut"]
    folder = sp.datasets.fetch("cscc", sections=["P5_ST_rep2"], mirror=server.url)
    kept = [path for path in folder.iterdir() if not path.name.startswith(".")]
    assert len(kept) == 3 * len(sections), "neither the archive nor other samples are kept"
    server.requests.clear()
    slides = sp.datasets.cscc()
    assert [slide.obs["slide"].iloc[0] for slide in slides] == list(sections)
    assert not server.requests


def test_alex_asks_for_the_images_before_anything_is_downloaded(
    server: Any, tmp_path: Path, slides: list[ad.AnnData], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CohortUnavailableError, match=r"Open https://doi.org/10.48610/4fb74a9.*CID4465.image.tif"):
        sp.datasets.fetch("alex", sections=["CID4465"], mirror=server.url)
    assert not server.requests
    folder = sp.settings.cache_dir / "cohorts" / "alex" / "CID4465"
    copy = tmp_path / "copy"
    write_alex(copy, slides[0], scale_factors=True)
    folder.mkdir(parents=True)
    shutil.move(copy / "image.tif", folder / "image.tif")
    kinds = {
        "filtered_count_matrices": ("filtered_count_matrix", "filtered_count_matrix"),
        "spatial": ("spatial", "spatial"),
    }
    from spahgc.datasets import _alex

    archives = {
        f"{kind}.tar.gz": tar_of(copy / sub, "w:gz", top=f"{kind}/CID4465_{name}/")
        for kind, (sub, name) in kinds.items()
    }
    (tmp_path / "metadata").mkdir()
    shutil.copy(copy / "metadata.csv", tmp_path / "metadata" / "CID4465_metadata.csv")
    archives["metadata.tar.gz"] = tar_of(tmp_path / "metadata", "w:gz", top="metadata/")
    assert list(archives) == list(_alex.ARCHIVES)
    for name, content in archives.items():
        server.content[f"zenodo.org/records/4739739/files/{name}"] = content
    with pytest.raises(CohortUnavailableError, match="another content"):
        sp.datasets.fetch("alex", sections=["CID4465"], mirror=server.url)
    known = {name: f"md5:{hashlib.md5(content).hexdigest()}" for name, content in archives.items()}
    monkeypatch.setattr(_alex, "ARCHIVES", known)
    sp.datasets.fetch("alex", sections=["CID4465"], mirror=server.url)
    (slide,) = sp.datasets.alex(sections=["CID4465"])
    assert slide.n_obs == 24 and "annotation" in slide.obs


def test_visium_bc_is_fetched_from_10x(server: Any, tmp_path: Path, slides: list[ad.AnnData]) -> None:
    write_visium_bc(tmp_path, slides[0], "FFPE")
    stem = (
        "cf.10xgenomics.com/samples/spatial-exp/1.3.0/Visium_FFPE_Human_Breast_Cancer/Visium_FFPE_Human_Breast_Cancer"
    )
    copy = tmp_path / "FFPE"
    for name in ("filtered_feature_bc_matrix.h5", "image.tif"):
        server.content[f"{stem}_{name}"] = (copy / name).read_bytes()
    server.content[f"{stem}_spatial.tar.gz"] = tar_of(copy / "spatial", "w:gz", top="spatial/")
    sp.datasets.fetch("visium_bc", sections=["FFPE"], mirror=server.url)
    (slide,) = sp.datasets.visium_bc(sections=["FFPE"])
    assert slide.n_obs == 24
    assert len(server.requests) == 3


def test_members_that_would_leave_the_folder_are_refused(tmp_path: Path) -> None:
    archive = tmp_path / "evil.tar"
    with tarfile.open(archive, "w") as tar:
        member = tarfile.TarInfo("../../outside.txt")
        member.size = 4
        tar.addfile(member, io.BytesIO(b"evil"))
    (tmp_path / "folder").mkdir()
    with pytest.raises(CohortUnavailableError, match="cannot be unpacked"):
        unpack(archive, tmp_path / "folder", lambda name: name)
    assert not list(tmp_path.parent.glob("outside.txt"))
    assert not list((tmp_path / "folder").iterdir())


@pytest.mark.parametrize("damage", ["truncated", "not an archive", "bad gzip inside"])
def test_a_damaged_archive_is_deleted_so_that_the_next_call_fetches_it_again(tmp_path: Path, damage: str) -> None:
    (tmp_path / "in").mkdir()
    content = b"no gzip" if damage == "bad gzip inside" else gzip.compress(CONTENT[:200_000])
    (tmp_path / "in" / "image.jpg.gz").write_bytes(content)
    archive, folder = tmp_path / "a.tar.gz", tmp_path / "out"
    whole = tar_of(tmp_path / "in", "w:gz")
    archive.write_bytes(
        {"truncated": whole[: len(whole) // 2], "not an archive": b"<html>", "bad gzip inside": whole}[damage]
    )
    folder.mkdir()
    with pytest.raises(CohortUnavailableError, match="cannot be unpacked .* was deleted"):
        unpack(archive, folder, lambda name: name.removesuffix(".gz"))
    assert not archive.exists()
    assert not list(folder.iterdir()), "no part of a file is left"


# HEST-1k


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    from huggingface_hub import constants
    from huggingface_hub.utils import _http

    monkeypatch.setattr(_http, "time", types.SimpleNamespace(**vars(time) | {"sleep": lambda seconds: None}))
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE
    with hub_server.running_hub() as running:
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template.replace(constants.ENDPOINT, running.url))
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
        yield running


def serve_hest(hub: Any, copy: Path, **options: Any) -> None:
    """The server knows models; a data set is a repository whose name begins otherwise."""
    files = {f"main/{path.relative_to(copy).as_posix()}": path for path in copy.rglob("*") if path.is_file()}
    hub.repos["datasets/MahmoodLab"] = hub_server.Repo(files, **options)


def test_hest_samples_are_fetched_with_the_login_that_the_hub_keeps(
    hub: Any, tmp_path: Path, slides: list[ad.AnnData], monkeypatch: pytest.MonkeyPatch
) -> None:
    slide_files.write_hest(tmp_path / "copy", slides[0], "NCBI681")
    serve_hest(hub, tmp_path / "copy", gated=True, granted=True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    folder = sp.datasets.fetch("hest_lymph_node", sections=["NCBI681"])
    hub.requests.clear()
    (slide,) = sp.datasets.hest_lymph_node(sections=["NCBI681"])
    assert set(slide.obs["patient"]) == {"8"}
    assert not hub.requests, "what is there needs no network"
    assert not [path for path in folder.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("401", "nobody is logged in"),
        ("403", "has not been granted access"),
        ("404", "has no such file"),
        ("503", "answered with status 503"),
        ("closed", "broke off"),
    ],
)
def test_hest_out_of_reach_names_the_page_to_open(
    hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, reason: str
) -> None:
    (tmp_path / "copy" / "metadata").mkdir(parents=True)
    if case != "404":
        (tmp_path / "copy" / "metadata" / "NCBI681.json").write_bytes(b"{}" * 1000)
    options = {
        "401": {"gated": True},
        "403": {"gated": True},
        "404": {},
        "503": {"status": 503},
        "closed": {"download": "closed"},
    }[case]
    serve_hest(hub, tmp_path / "copy", **options)
    if case == "closed":
        from huggingface_hub import file_download

        monkeypatch.setattr(
            file_download, "time", types.SimpleNamespace(**vars(time) | {"sleep": lambda seconds: None})
        )
    if case == "403":
        monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(CohortUnavailableError) as caught:
        sp.datasets.fetch("hest_lymph_node", sections=["NCBI681"])
    message = str(caught.value)
    assert reason in message
    for part in ("https://huggingface.co/datasets/MahmoodLab/hest", "request access", "hf auth login", "path="):
        assert part in message
    assert TOKEN not in message


def test_an_error_that_quotes_the_login_is_not_shown() -> None:
    with pytest.raises(CohortUnavailableError) as caught, reaching_hest("st/X.h5ad"):
        raise OSError(f"Illegal header value b'Bearer {TOKEN}'")
    assert TOKEN not in str(caught.value)
    assert caught.value.__cause__ is None


def test_hest_has_mirrors_of_its_own() -> None:
    with pytest.raises(CohortUnavailableError, match="HF_ENDPOINT"):
        sp.datasets.fetch("hest_pancreas1", mirror="http://127.0.0.1:9")
