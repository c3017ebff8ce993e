"""The small open cohorts: the layouts of their repositories, what is left out, and downloads from GitHub."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import spahgc as sp
from spahgc import cli
from spahgc.datasets import CohortUnavailableError
from spahgc.datasets._cohort import COHORTS, UNKNOWN
from spahgc.datasets._download import git_checksum
from spahgc.datasets._spinal_cord import MICE

CORD, BULB = ("CN51_C2_1", "CN51_C2_2", "CN62_E2"), ("MOB1", "MOB3")
REPOSITORIES = {
    "spinal_cord": "BiomedicalMachineLearning/Spacell",
    "olfactory_bulb": "jbergenstrahle/STUtility",
}


def _helper(name: str) -> Any:
    """Load a helper by its path: with ``--import-mode=importlib`` tests cannot import their neighbours."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


cohort_files, file_server = _helper("cohort_files"), _helper("file_server")


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


@pytest.fixture
def cord(tmp_path: Path) -> Path:
    return cohort_files.write_spinal_cord(tmp_path / "copy", CORD)


@pytest.fixture
def bulb(tmp_path: Path) -> Path:
    return cohort_files.write_olfactory_bulb(tmp_path / "copy", BULB)


def library(slide: ad.AnnData) -> dict[str, Any]:
    (record,) = slide.uns["spatial"].values()
    return record


def counts_file(folder: Path, section: str) -> Path:
    return folder / "dataset" / "cm" / f"{section}_stdata_aligned_counts_IDs.txt"


# --- the records


def test_every_mouse_of_the_spinal_cord_is_described() -> None:
    cohort = COHORTS["spinal_cord"]
    assert set(cohort.patients.values()) == set(MICE) and cohort.n_patients == 5
    assert cohort.patients["CN51_C2_1"] == "765" and cohort.patients["CN51_C2_2"] == "794"
    assert MICE["652"] == ("SOD1-G93A", "p100", "male")


def test_cohorts_that_the_paper_does_not_have_have_no_figure_of_it() -> None:
    for name in REPOSITORIES:
        assert COHORTS[name].paper_pcc is None and COHORTS[name].licence == "MIT"
        assert "Not in the paper" in COHORTS[name].note
    assert set(COHORTS["olfactory_bulb"].patients.values()) == {UNKNOWN}


# --- the spinal cord


def test_the_repository_of_the_spinal_cord_is_read_without_a_spot_table(cord: Path, tmp_path: Path) -> None:
    first, second, third = sp.datasets.spinal_cord(cord, sections=CORD)
    table = pd.read_csv(counts_file(cord, "CN51_C2_1"), sep="\t", index_col=0)
    places = np.array([[float(part) for part in name.split("x")] for name in table.index])
    assert np.allclose(first.obsm["spatial"], (places - 1) * [640 / 32, 680 / 34])
    assert list(first.obs_names) == [f"{x:.0f}x{y:.0f}" for x, y in places]
    assert np.array_equal(first.X.toarray(), table[["Nefl", "Mbp", "Gfap"]].to_numpy())
    assert library(first)["metadata"]["array"] == "square, 1k array"
    assert library(first)["scalefactors"]["microns_per_pixel"] == pytest.approx(200 / 20, rel=0.1)
    assert [set(slide.obs["patient"]) for slide in (first, second, third)] == [{"765"}, {"794"}, {"652"}]
    assert [slide.obs["genotype"].iloc[0] for slide in (first, second)] == ["wild type", "SOD1-G93A"]
    assert set(third.obs["age"]) == {"p100"} and set(third.obs["sex"]) == {"male"}
    assert {Path(library(slide)["metadata"]["source_image_path"]).name for slide in (first, second)} == {
        "CN51_C2_HE.jpg"
    }
    first.write_h5ad(tmp_path / "slide.h5ad")
    again = ad.read_h5ad(tmp_path / "slide.h5ad")
    assert dict(again.uns["spahgc"]["cohort"]) == COHORTS["spinal_cord"].to_uns()
    assert set(again.obs["slide"]) == {"CN51_C2_1"} and list(again.uns["spatial"]) == ["CN51_C2_1"]


def test_ambiguous_features_are_no_genes_and_count_nowhere(cord: Path) -> None:
    (slide,) = sp.datasets.spinal_cord(cord, sections=["CN62_E2"])
    assert list(slide.var_names) == ["Nefl", "Mbp", "Gfap"]
    assert library(slide)["metadata"]["n_features_left_out"] == 2
    assert library(slide)["metadata"]["features_left_out"].startswith("__ambiguous")
    assert np.array_equal(slide.obs["spahgc_total_counts"], np.asarray(slide.X.sum(axis=1)).ravel())


@pytest.mark.parametrize("top", ["SpaCell/dataset", "."])
def test_the_folders_of_the_spinal_cord_may_lie_elsewhere(tmp_path: Path, top: str) -> None:
    folder = cohort_files.write_spinal_cord(tmp_path / "other", CORD, top=top)
    assert len(sp.datasets.spinal_cord(folder, sections=CORD)) == 3


def flat_spinal_cord(cord: Path, folder: Path) -> Path:
    """The same slides with a spot table each, all files side by side."""
    folder.mkdir()
    for section in CORD:
        counts = pd.read_csv(counts_file(cord, section), sep="\t", index_col=0)
        places = np.array([[float(part) for part in name.split("x")] for name in counts.index])
        table = pd.DataFrame(places.round().astype(int), columns=["x", "y"])
        table[["new_x", "new_y"]] = places
        table[["pixel_x", "pixel_y"]] = (places - 1) * 20
        table.assign(selected=1).to_csv(folder / f"{section}_selection.tsv", sep="\t", index=False)
        counts.index = [f"{x}x{y}" for x, y in places.round().astype(int)]
        counts.to_csv(folder / f"{section}.tsv.gz", sep="\t")
        array = "_".join(section.split("_")[:2])
        shutil.copy(cord / "dataset" / "image" / f"{array}_HE.jpg", folder / f"{array}.jpg")
    return folder


def test_files_side_by_side_give_the_same_slides(cord: Path, tmp_path: Path) -> None:
    flat = flat_spinal_cord(cord, tmp_path / "flat")
    for one, other in zip(
        sp.datasets.spinal_cord(cord, sections=CORD), sp.datasets.spinal_cord(flat, sections=CORD), strict=True
    ):
        assert (one.X != other.X).nnz == 0 and list(one.obs_names) == list(other.obs_names)
        assert np.allclose(one.obsm["spatial"], other.obsm["spatial"])
        assert list(one.var_names) == list(other.var_names)
        pd.testing.assert_frame_equal(one.obs, other.obs)


def test_an_image_that_two_pieces_share_does_not_make_the_other_piece_missing(cord: Path) -> None:
    counts_file(cord, "CN51_C2_2").unlink()
    with pytest.warns(UserWarning, match="2 of the 10 sections of cohort spinal_cord are in .*: CN51_C2_1, CN62_E2"):
        assert len(sp.datasets.spinal_cord(cord)) == 2


def test_a_section_without_its_image_or_table_is_named(cord: Path, tmp_path: Path) -> None:
    flat = flat_spinal_cord(cord, tmp_path / "flat")
    (flat / "CN62_E2_selection.tsv").unlink()
    with pytest.raises(FileNotFoundError, match='section "CN62_E2" of cohort spinal_cord lacks spots'):
        sp.datasets.spinal_cord(flat)
    (cord / "dataset" / "image" / "CN62_E2_HE.jpg").unlink()
    with pytest.raises(FileNotFoundError, match='"CN62_E2" of cohort spinal_cord lacks image .* dataset/cm/CN51'):
        sp.datasets.spinal_cord(cord)


def test_spots_beyond_the_rim_of_the_image_are_left_out_and_said(cord: Path) -> None:
    path = counts_file(cord, "CN62_E2")
    table = pd.read_csv(path, sep="\t", index_col=0)
    table.loc["33.04x20.01"] = 1
    table.loc["12.01x0.96"] = 1
    table.to_csv(path, sep="\t")
    with pytest.warns(UserWarning, match=r"2 of 38 spots .* \(33.04x20.01, 12.01x0.96\) lie beyond the rim"):
        (slide,) = sp.datasets.spinal_cord(cord, sections=["CN62_E2"])
    assert slide.n_obs == 36 and library(slide)["metadata"]["n_spots_not_selected"] == 2


def test_names_that_are_no_places_are_refused(cord: Path) -> None:
    path = counts_file(cord, "CN62_E2")
    table = pd.read_csv(path, sep="\t", index_col=0)
    table.rename(index={table.index[0]: "spot one"}).to_csv(path, sep="\t")
    with pytest.raises(ValueError, match="1 of 36 spots .* not finite numbers"):
        sp.datasets.spinal_cord(cord, sections=["CN62_E2"])


# --- the olfactory bulb


def test_the_repository_of_the_olfactory_bulb_is_read(bulb: Path, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="2 of the 4 sections"):
        first, second = sp.datasets.olfactory_bulb(bulb)
    assert library(first)["metadata"]["array"] == "checkerboard, 2k array"
    assert library(first)["scalefactors"]["microns_per_pixel"] == pytest.approx(150 / np.hypot(21.7, 24.1), rel=0.01)
    assert first.n_obs == 61 and library(first)["metadata"]["n_spots_not_selected"] == 139
    assert first.var_names[0] == "ENSMUSG00000064330.1", "an id keeps its version"
    assert set(second.obs["patient"]) == {UNKNOWN} and set(second.obs["slide"]) == {"MOB3"}
    second.write_zarr(tmp_path / "slide.zarr")
    record = {key: str(value) for key, value in ad.read_zarr(tmp_path / "slide.zarr").uns["spahgc"]["cohort"].items()}
    assert record == COHORTS["olfactory_bulb"].to_uns()


def test_the_files_of_the_bulb_may_lie_side_by_side_and_packed(bulb: Path, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    shutil.copytree(bulb / "inst" / "extdata" / "counts", flat)
    for path in list(flat.glob("*.tsv")):
        pd.read_csv(path, sep="\t").rename(columns={"Unnamed: 0": ""}).to_csv(f"{path}.gz", sep="\t", index=False)
        path.unlink()
    for one, other in zip(
        sp.datasets.olfactory_bulb(bulb, sections=BULB), sp.datasets.olfactory_bulb(flat, sections=BULB), strict=True
    ):
        assert (one.X != other.X).nnz == 0 and np.array_equal(one.obsm["spatial"], other.obsm["spatial"])


def test_a_table_of_a_smaller_version_of_the_image_is_refused(bulb: Path) -> None:
    path = bulb / "inst" / "extdata" / "counts" / "alignment_table_MOB1.tsv"
    table = pd.read_csv(path, sep="\t")
    table[["pixel_x", "pixel_y"]] /= 10
    table.to_csv(path, sep="\t", index=False)
    with pytest.raises(ValueError, match="is of a smaller version of the image .* 23 mm wide .* at most 20 mm"):
        sp.datasets.olfactory_bulb(bulb, sections=["MOB1"])


def test_the_table_of_another_section_of_the_bulb_is_noticed(bulb: Path) -> None:
    folder = bulb / "inst" / "extdata" / "counts"
    table = pd.read_csv(folder / "alignment_table_MOB1.tsv", sep="\t")
    table["selected"] = ((table["x"] < 8) & (table["y"] < 8) | (table["x"] > 17)).astype(int)
    table.to_csv(folder / "alignment_table_MOB1.tsv", sep="\t", index=False)
    with pytest.warns(UserWarning, match="have no more counts .* Do both belong to the same slide"):
        sp.datasets.olfactory_bulb(bulb, sections=["MOB1"])


# --- downloads


def serve(server: Any, name: str, copy: Path) -> None:
    """The repository's files, and GitHub's listing of them."""
    repository = REPOSITORIES[name]
    tree: list[dict[str, Any]] = [{"path": "R", "type": "tree", "sha": "0" * 40}]
    for path in sorted(copy.rglob("*")):
        if path.is_file():
            inside = path.relative_to(copy).as_posix()
            server.content[f"raw.githubusercontent.com/{repository}/HEAD/{inside}"] = path.read_bytes()
            sha = git_checksum(path).removeprefix("git:")
            tree.append({"path": inside, "type": "blob", "sha": sha, "size": path.stat().st_size})
    listing = json.dumps({"sha": "1" * 40, "tree": tree, "truncated": False}).encode()
    server.content[f"api.github.com/repos/{repository}/git/trees/HEAD?recursive=1"] = listing


@pytest.mark.parametrize(("name", "sections", "n_files"), [("spinal_cord", CORD, 5), ("olfactory_bulb", BULB, 6)])
def test_an_open_cohort_is_fetched_once_and_read_from_the_cache(
    server: Any, tmp_path: Path, name: str, sections: tuple[str, ...], n_files: int
) -> None:
    copy = getattr(cohort_files, f"write_{name}")(tmp_path / "copy", sections)
    serve(server, name, copy)
    server.failures = ["", "cut", "503"]
    folder = sp.datasets.fetch(name, sections=sections, mirror=server.url)
    assert len([path for path in server.requests if "bytes=" not in path]) >= n_files + 1
    files = {path.relative_to(copy): path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    assert len(files) == n_files
    assert {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()} == files
    server.requests.clear()
    slides = getattr(sp.datasets, name)(sections=sections)
    assert [slide.obs["slide"].iloc[0] for slide in slides] == list(sections)
    assert not server.requests, "what is there needs no network"


def test_the_older_place_of_the_files_is_found_in_the_listing(server: Any, tmp_path: Path) -> None:
    copy = cohort_files.write_spinal_cord(tmp_path / "copy", CORD[:1])
    cohort_files.write_spinal_cord(copy, CORD[2:], top="SpaCell/dataset")
    serve(server, "spinal_cord", copy)
    folder = sp.datasets.fetch("spinal_cord", sections=[CORD[0], CORD[2]], mirror=server.url)
    assert (folder / "SpaCell" / "dataset" / "image" / "CN62_E2_HE.jpg").is_file()
    assert len(sp.datasets.spinal_cord(sections=[CORD[0], CORD[2]])) == 2


@pytest.mark.parametrize(
    ("name", "gone", "label"),
    [
        ("spinal_cord", "dataset/cm/CN62_E2_stdata_aligned_counts_IDs.txt", "counts"),
        ("spinal_cord", "dataset/image/CN62_E2_HE.jpg", "image"),
        ("olfactory_bulb", "inst/extdata/counts/alignment_table_MOB3.tsv", "spots"),
    ],
)
def test_a_file_that_the_repository_has_lost_is_named_before_anything_is_downloaded(
    server: Any, tmp_path: Path, name: str, gone: str, label: str
) -> None:
    sections = {"spinal_cord": CORD, "olfactory_bulb": BULB}[name]
    copy = getattr(cohort_files, f"write_{name}")(tmp_path / "copy", sections)
    (copy / gone).unlink()
    serve(server, name, copy)
    expected = (
        f'{REPOSITORIES[name]} has no {label} of section "{sections[-1]}" any more .*sections=.*github.com.*path='
    )
    with pytest.raises(CohortUnavailableError, match=expected):
        sp.datasets.fetch(name, sections=sections, mirror=server.url)
    assert len(server.requests) == 1
    assert sp.datasets.fetch(name, sections=sections[:1], mirror=server.url).is_dir()


@pytest.mark.parametrize("name", REPOSITORIES)
def test_another_content_than_that_of_the_listing_never_takes_its_place(server: Any, tmp_path: Path, name: str) -> None:
    sections = {"spinal_cord": CORD, "olfactory_bulb": BULB}[name][:1]
    copy = getattr(cohort_files, f"write_{name}")(tmp_path / "copy", sections)
    serve(server, name, copy)
    path = next(path for path in server.content if path.endswith(".jpg"))
    server.content[path] = server.content[path][:-1] + b"?"
    with pytest.raises(CohortUnavailableError, match="another content than the one that is known"):
        sp.datasets.fetch(name, sections=sections, mirror=server.url)
    assert not list((tmp_path / "cache").rglob("*.jpg"))


@pytest.mark.parametrize("name", REPOSITORIES)
def test_a_listing_that_is_none_and_too_many_requests_are_explained(server: Any, name: str) -> None:
    listing = f"api.github.com/repos/{REPOSITORIES[name]}/git/trees/HEAD?recursive=1"
    server.content[listing] = b'{"message": "Not Found"}'
    with pytest.raises(CohortUnavailableError, match=r"does not answer with a listing of files .* path="):
        sp.datasets.fetch(name, mirror=server.url)
    server.failures = ["403"]
    with pytest.raises(
        CohortUnavailableError, match="status 403: access is refused; GitHub says so as well when too many"
    ):
        sp.datasets.fetch(name, mirror=server.url)


# --- the command line


def test_a_cohort_that_the_paper_does_not_have_is_scored_without_its_figure(
    cord: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import timm
    from safetensors.torch import save_file

    weights = tmp_path / "tiny.safetensors"
    save_file(timm.create_model("test_vit", pretrained=False, num_classes=0).state_dict(), weights)
    options = [
        "--path",
        cord,
        "--encoder",
        "test_vit",
        "--checkpoint",
        weights,
        "--device",
        "cpu",
        "--method",
        "nearest",
    ]
    call = ["--quiet", "cross-validate", "--cohort", "spinal_cord", *options, "--output", tmp_path / "out"]
    with pytest.raises(SystemExit) as ended, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cli.main([str(word) for word in [*call, "--group-by", "patient"]])
    out, error = capsys.readouterr()
    assert ended.value.code in (0, None), error
    assert "nearest" in out and "3 of 10 sections" in out
    assert "reported" not in out and "paper's setting" not in out
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["paper_pcc"] is None and result["differences"] == []


# --- measured slides


def measured(her2st: Path, name: str) -> Path:
    folder = her2st.parent / name
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    return folder


@pytest.mark.data
def test_the_measured_spinal_cord_is_read_as_published(her2st: Path) -> None:
    folder = measured(her2st, "als_spinal_cord")
    with pytest.warns(UserWarning, match="8 of the 10 sections"):
        slides = {slide.obs["slide"].iloc[0]: slide for slide in sp.datasets.spinal_cord(folder)}
    assert {name: slide.n_obs for name, slide in slides.items()} == {
        "CN51_C2_1": 40,
        "CN51_C2_2": 38,
        "CN52_C2_1": 80,
        "CN52_C2_2": 60,
        "L6CN51_E1_2": 34,
        "CN62_E2": 91,
        "CN63_C1": 97,
        "CN63_E2": 99,
    }
    for slide in slides.values():
        assert 0.67 < library(slide)["scalefactors"]["microns_per_pixel"] < 0.7
        assert not slide.var_names.str.startswith("__").any()
    assert {slide.obs["patient"].iloc[0] for slide in slides.values()} == {"765", "794", "652"}


@pytest.mark.data
def test_a_measured_section_gives_the_same_in_the_layout_of_the_repository(her2st: Path, tmp_path: Path) -> None:
    folder = measured(her2st, "als_spinal_cord")
    (tmp_path / "cm").mkdir()
    (tmp_path / "image").mkdir()
    spots = pd.read_csv(folder / "CN51_C2_2_selection.tsv", sep="\t")
    names = {f"{row.x:.0f}x{row.y:.0f}": f"{row.new_x:g}x{row.new_y:g}" for row in spots.itertuples()}
    counts = pd.read_csv(folder / "CN51_C2_2.tsv.gz", sep="\t", index_col=0).rename(index=names)
    counts.to_csv(tmp_path / "cm" / "CN51_C2_2_stdata_aligned_counts_IDs.txt", sep="\t")
    (tmp_path / "image" / "CN51_C2_HE.jpg").symlink_to(folder / "CN51_C2.jpg")
    (one,) = sp.datasets.spinal_cord(folder, sections=["CN51_C2_2"])
    (other,) = sp.datasets.spinal_cord(tmp_path, sections=["CN51_C2_2"])
    assert (one.X != other.X).nnz == 0 and list(one.obs_names) == list(other.obs_names)
    assert np.allclose(one.obsm["spatial"], other.obsm["spatial"], atol=0.01)


@pytest.mark.data
def test_the_measured_olfactory_bulb_is_read_as_published(her2st: Path) -> None:
    slides = sp.datasets.olfactory_bulb(measured(her2st, "mob_st"))
    assert [slide.shape for slide in slides] == [(379, 1000), (407, 1000), (438, 1000), (403, 1000)]
    assert all(4.55 < library(slide)["scalefactors"]["microns_per_pixel"] < 4.7 for slide in slides)
