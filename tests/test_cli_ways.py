"""The way of somebody without Python: files of an instrument, patterns of references, one command from image to report."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from shapely.geometry import shape

import spahgc as sp
from spahgc import cli
from spahgc._settings import progress_bar, show_progress_in_lines
from spahgc.cli._app import commands
from spahgc.cli._arguments import spread
from spahgc.cli._output import EXIT_ERROR
from spahgc.cli._words import Options, in_words_of_the_shell

from . import slide_files


@pytest.fixture(autouse=True)
def _bars_as_before() -> Any:
    yield
    show_progress_in_lines(False)


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stopped:
        cli.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return int(stopped.value.code or 0), captured.out, captured.err


def json_of(capsys: pytest.CaptureFixture[str], *arguments: object) -> Any:
    code, out, err = run(capsys, *arguments, "--json")
    assert code == 0, err
    return json.loads(out)


@pytest.fixture
def files(cohort: list[AnnData], tmp_path: Path) -> list[Path]:
    """The slides of the cohort as files of a folder."""
    (tmp_path / "refs").mkdir()
    paths = [tmp_path / "refs" / f"slide{place}.h5ad" for place in range(len(cohort))]
    for slide, path in zip(cohort, paths, strict=True):
        slide.write_h5ad(path)
    return paths


# --- read


def test_a_visium_folder_is_read_as_by_its_function(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (slide,) = sp.datasets.simulated(1, n_patients=1, n_spots=50, n_genes=20)
    folder = tmp_path / "run_7"
    slide_files.write_visium(folder, slide)
    found = json_of(capsys, "read", "visium", folder, "-o", tmp_path / "A.h5ad", "--patient", "P1")
    written, expected = ad.read_h5ad(tmp_path / "A.h5ad"), sp.io.visium(folder)
    assert list(written.obs_names) == list(expected.obs_names) and found["spots"] == expected.n_obs
    assert set(written.obs["patient"]) == {"P1"}


@pytest.mark.data
def test_a_legacy_slide_is_read_from_its_three_files(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, her2st: Path
) -> None:
    three = [her2st / name for name in ("C2.tsv.gz", "C2_selection.tsv", "C2.jpg")]
    found = json_of(capsys, "read", "st", *three, "-o", tmp_path / "C2.h5ad", "--library-id", "section C2")
    assert found["spots"] == 187 and found["slide"] == "section C2"


def test_features_of_another_tool_are_read(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "features_uni_v1" / "case.h5"
    path.parent.mkdir()
    with h5py.File(path, "w") as file:
        file["features"] = np.random.default_rng(0).normal(size=(9, 1024)).astype(np.float32)
        coords = file.create_dataset("coords", data=np.arange(18).reshape(9, 2) * 512)
        coords.attrs["patch_size_level0"] = 512
    json_of(capsys, "read", "features", path, "--mpp", "0.25", "-o", tmp_path / "case.h5ad")
    assert ad.read_h5ad(tmp_path / "case.h5ad").obsm["X_uni"].shape == (9, 1024)
    code, _, err = run(capsys, "read", "features", path, "-o", tmp_path / "b.h5ad")
    assert (
        code == 2
        and "Pass --mpp with the microns per pixel of the slide, --image with the slide, or --patch-um." in err
    )


def test_an_image_is_read_at_spots_of_a_table(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from PIL import Image

    pixels = np.random.default_rng(0).integers(120, 200, size=(300, 400, 3), dtype=np.uint8)
    pixels[..., 1] //= 2
    Image.fromarray(pixels).save(tmp_path / "case.png")
    pd.DataFrame({"x": [100, 200], "y": [50, 150]}, index=["a", "b"]).to_csv(tmp_path / "spots.csv")
    json_of(capsys, "read", "slide", tmp_path / "case.png", "--spots", tmp_path / "spots.csv", "--mpp", "1", "-o",
            tmp_path / "case.h5ad")  # fmt: skip
    slide = ad.read_h5ad(tmp_path / "case.h5ad")
    assert list(slide.obs_names) == ["a", "b"] and slide.obsm["spatial"].tolist() == [[100, 50], [200, 150]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["st", "counts.tsv"], "spahgc read st takes COUNTS SPOTS IMAGE, 1 were given: counts.tsv"),
        (["cosmx", "folder"], "cosmx is not known. Choose one of visium, hd, st, hest"),
        (["visium", "folder", "--bin-um", "8"], "--bin-um has no meaning for visium"),
        (["hest", "folder", "A", "--mpp", "0.5", "--genome", "GRCh38"], "--mpp and --genome has no meaning for hest"),
    ],
)
def test_what_a_reader_does_not_take_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str], message: str
) -> None:
    code, _, err = run(capsys, "read", *arguments, "-o", tmp_path / "a.h5ad")
    assert code == 2 and message in err and err.count("\n") == 1


# --- fetch


def test_a_cohort_is_fetched_as_slides(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*, sections: list[str] | None) -> list[AnnData]:
        slides = sp.datasets.simulated(2, n_patients=1, n_spots=30, n_genes=20)
        return slides if sections is None else slides[: len(sections)]

    monkeypatch.setattr(sp.datasets, "spinal_cord", load)
    found = json_of(capsys, "fetch", "spinal_cord", "-o", tmp_path / "slides", "--section", "CN51_C2_1")
    assert [Path(path).name for path in found["slides"]] == ["P1S1.h5ad"]
    before = (tmp_path / "slides" / "P1S1.h5ad").stat().st_mtime_ns
    json_of(capsys, "fetch", "spinal_cord", "-o", tmp_path / "slides")
    assert (tmp_path / "slides" / "P1S1.h5ad").stat().st_mtime_ns == before
    assert (tmp_path / "slides" / "P1S2.h5ad").is_file()
    code, _, err = run(capsys, "fetch", "nowhere")
    assert code == 2 and "nowhere is not known. Choose one of" in err


# --- several references


@pytest.mark.parametrize("way", ["pattern", "folder", "unquoted"])
def test_references_may_be_a_pattern_a_folder_or_several_files(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, files: list[Path], way: str
) -> None:
    ways: dict[str, list[object]] = {
        "pattern": [tmp_path / "refs" / "*.h5ad"],
        "folder": [tmp_path / "refs"],
        "unquoted": files[1:],
    }
    out = tmp_path / "out.h5ad"
    code, _, err = run(
        capsys, "predict", "--target", files[0], "--reference", *ways[way], "--method", "ridge", "-o", out
    )
    assert code == 0, err
    names = ad.read_h5ad(out).uns["spahgc"]["predictions"]["spahgc"]["references"]
    assert [str(name) for name in names] == ["P1S2", "P2S1", "P2S2"]
    assert ("holds the target" in err) == (way != "unquoted")


def test_a_target_that_is_named_as_its_own_reference_is_not_left_out_silently(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, files: list[Path]
) -> None:
    code, _, err = run(
        capsys,
        "predict",
        "--target",
        files[0],
        "--reference",
        files[0],
        files[1],
        "--method",
        "ridge",
        "-o",
        tmp_path / "o.h5ad",
    )
    assert code == 2 and "P1S1" in err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("nothing/*.h5ad", "no file fits this pattern"),
        ("empty", "is a folder without a slide: no .h5ad and no .zarr lies in it"),
    ],
)
def test_references_that_are_not_there_are_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, files: list[Path], given: str, message: str
) -> None:
    (tmp_path / "empty").mkdir()
    code, _, err = run(
        capsys, "predict", "--target", files[0], "--reference", tmp_path / given, "-o", tmp_path / "o.h5ad"
    )
    assert code == 2 and message in err


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("fit --reference A B -o M", "fit --reference A --reference B -o M"),
        ("report O --reference A B --output r", "report O --reference A --reference B --output r"),
        ("report --reference A O --output r", "report --reference A O --output r"),
        ("report --reference A B O --output r", "report --reference A --reference B O --output r"),
        ("predict --gene X Y --target T --quiet", "predict --gene X --gene Y --target T --quiet"),
        ("export O --to qupath -o f", "export O --to qupath -o f"),
        ("fit --reference A -- B C", "fit --reference A -- B C"),
        ("nothing --reference A B", "nothing --reference A B"),
        ("--debug fit --reference A B", "--debug fit --reference A --reference B"),
    ],
)
def test_an_option_that_may_be_repeated_takes_several_values(line: str, expected: str) -> None:
    assert spread(line.split(), commands()) == expected.split()


# --- plot and domains


@pytest.fixture
def predicted(cohort: list[AnnData], tmp_path: Path) -> Path:
    sp.tl.predict(cohort[0], cohort[1:], method="ridge")
    cohort[0].write_h5ad(tmp_path / "predicted.h5ad")
    return tmp_path / "predicted.h5ad"


def test_domains_are_those_of_the_function(capsys: pytest.CaptureFixture[str], tmp_path: Path, predicted: Path) -> None:
    found = json_of(capsys, "domains", predicted, "--n-domains", "3", "-o", tmp_path / "out.h5ad")
    expected = ad.read_h5ad(predicted)
    sp.tl.domains(expected, n_domains=3)
    written = ad.read_h5ad(tmp_path / "out.h5ad")
    assert written.obs["spahgc_domain"].to_list() == expected.obs["spahgc_domain"].to_list()
    assert found["spots"] == expected.obs["spahgc_domain"].value_counts().to_dict()


@pytest.fixture
def trusted(cohort: list[AnnData], tmp_path: Path, quick_default: sp.Parameters) -> Path:
    """A slide with a prediction that says what it is worth."""
    sp.tl.predict(cohort[0], cohort[1:], preset=quick_default)
    cohort[0].write_h5ad(tmp_path / "trusted.h5ad")
    return tmp_path / "trusted.h5ad"


def test_regions_are_those_of_the_function(capsys: pytest.CaptureFixture[str], tmp_path: Path, trusted: Path) -> None:
    gene = sp.tl.trusted_genes(ad.read_h5ad(trusted))[0]
    found = json_of(capsys, "regions", trusted, "--by", "domain", "--gene", gene, "-o", tmp_path / "regions.csv")
    expected = sp.tl.regions(ad.read_h5ad(trusted), by="domain", genes=[gene])
    written = pd.read_csv(tmp_path / "regions.csv")
    np.testing.assert_allclose(written[["mean", "low", "high"]], expected[["mean", "low", "high"]])
    assert [row["region"] for row in found["regions"]] == expected["region"].to_list()


def test_regions_that_are_no_column_and_a_table_that_is_none_are_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, trusted: Path
) -> None:
    code, _, err = run(capsys, "regions", trusted, "--by", "nothing", "-o", tmp_path / "regions.csv")
    assert code == EXIT_ERROR and "nothing" in err and not (tmp_path / "regions.csv").exists()
    code, _, err = run(capsys, "regions", trusted, "-o", tmp_path / "regions.xlsx")
    assert code == EXIT_ERROR and ".csv" in err


def test_trusted_genes_are_those_of_the_function(capsys: pytest.CaptureFixture[str], trusted: Path) -> None:
    slide = ad.read_h5ad(trusted)
    for fdr in (None, 0.1):
        options = () if fdr is None else ("--fdr", fdr)
        expected = sp.tl.trusted_genes(slide, fdr=fdr, min_pcc=0.3)
        found = json_of(capsys, "trusted-genes", trusted, "--min-pcc", "0.3", *options)
        assert found["genes"] == expected and found["n_genes"] == len(expected)
    _, out, _ = run(capsys, "trusted-genes", trusted)
    assert out.split() == sp.tl.trusted_genes(slide)


def test_a_baseline_says_no_gene_that_can_be_trusted(capsys: pytest.CaptureFixture[str], predicted: Path) -> None:
    code, _, err = run(capsys, "trusted-genes", predicted)
    assert code == EXIT_ERROR and "comes from a baseline" in err


@pytest.mark.parametrize("kind", ["genes", "domains"])
def test_a_figure_is_drawn_into_a_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, predicted: Path, kind: str
) -> None:
    slide = ad.read_h5ad(predicted)
    sp.tl.domains(slide, n_domains=2)
    slide.write_h5ad(predicted)
    found = json_of(capsys, "plot", predicted, "--kind", kind, "-o", tmp_path / "a.png")
    assert Path(found["output"]).read_bytes().startswith(b"\x89PNG")
    assert len(found["genes"]) == (3 if kind == "genes" else 0)
    code, _, err = run(capsys, "plot", predicted, "--kind", kind, "-o", tmp_path / "a.png")
    assert code == 2 and "Pass --overwrite" in err


def test_a_figure_of_domains_takes_no_genes(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, predicted: Path
) -> None:
    code, _, err = run(capsys, "plot", predicted, "--kind", "domains", "--gene", "A", "-o", tmp_path / "a.png")
    assert code == 2 and "--gene goes with --kind genes" in err


# --- words


@pytest.mark.parametrize(
    ("command", "message", "said"),
    [
        ("tile", "Pass mpp= with its microns, e.g. mpp=0.5.", "Pass --mpp with its microns, e.g. --mpp 0.5."),
        (
            "predict",
            'obsm["X_uni"] not found. Run spahgc.pp.embed(adata, encoder="uni") first.',
            "obsm/X_uni not found. Run `spahgc embed --encoder uni` first.",
        ),
        ("evaluate", "Run spahgc.tl.predict(adata, refs) first.", "Run `spahgc predict` first."),
        (
            "embed",
            "or allow_upsampling=True to go on, or context=False",
            "or --allow-upsampling to go on, or --no-context",
        ),
        ("predict", "Pass genes= with fewer, or refs=.", "Pass --gene with fewer, or --reference."),
        ("report", "Pass patch_um=", "Pass --patch-um (of spahgc read)"),
        ("predict", 'write it into adata.obs["a"] and uns["b"]["c"]', "write it into obs/a and uns/b/c"),
        ("fit", "Run adata.var_names_make_unique() first.", "Run AnnData's var_names_make_unique first."),
        (
            "fit",
            'no such file: "/data/run=3/a==b.h5ad", T=3 K, 1<=2',
            'no such file: "/data/run=3/a==b.h5ad", T=3 K, 1<=2',
        ),
        ("fit", "Run spahgc.pp.spatial_graph(adata) first.", "Run the Python function spahgc.pp.spatial_graph first."),
    ],
)
def test_messages_speak_the_words_of_the_shell(command: str, message: str, said: str) -> None:
    assert in_words_of_the_shell(message, Options(commands(), command)) == said


PYTHON = re.compile(r"\b[a-z_]+=(?=[\s.,;)]|$)|\bspahgc\.(?:pp|tl|io|pl)\.(?!\w+ first)|\[\"|True\b|adata\.|sp\.\w+\.")


def test_no_message_of_the_source_speaks_python_in_the_shell() -> None:
    """Messages as they stand in the source, with the arguments, calls and keys that they name."""
    import ast

    options = Options(commands(), "predict")
    left = []
    for path in sorted(Path(sp.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
                parts = [each.value for each in ast.walk(node.exc.args[0]) if isinstance(each, ast.Constant)]
                text = "".join(part for part in parts if isinstance(part, str))
                said = in_words_of_the_shell(text, options)
                left += [
                    f"{path.name}: {said}" for found in [re.search(r"\bPass [a-z]\w*=(?=[\s.,;)])", said)] if found
                ]
    assert left == []


def test_an_image_is_told_to_be_tiled_and_a_folder_to_be_read(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    image = tmp_path / "B4.jpg"
    image.write_bytes(b"")
    code, _, err = run(capsys, "embed", image, "-o", tmp_path / "out.h5ad")
    assert code == 2 and f"is an image, and a slide with spots is needed. Run `spahgc tile {image} --output" in err
    (slide,) = sp.datasets.simulated(1, n_patients=1, n_spots=50, n_genes=20)
    slide_files.write_visium(tmp_path / "run_7", slide)
    code, _, err = run(capsys, "predict", "--target", tmp_path / "run_7", "-o", tmp_path / "out.h5ad")
    assert code == 2 and f"Run `spahgc read visium {tmp_path / 'run_7'} --output NAME.h5ad` first" in err


def test_the_encoder_of_the_shell_works_without_a_network(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from spahgc.encoders._cards import CARDS

    default = next(param.default for param in commands()["embed"].params if param.name == "encoder")
    assert default == "efficientnet_lite0" and not CARDS[default].gated


# --- progress


def test_with_a_pipe_progress_is_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sp.settings, "progress", True)
    monkeypatch.setattr("spahgc._settings.LINE_EVERY_S", 0.05)
    show_progress_in_lines(True)
    out = io.StringIO()
    with progress_bar(total=4, desc="embed", unit="slide", file=out) as bar:
        for _ in range(4):
            time.sleep(0.06)
            bar.update()
    with progress_bar(total=1, desc="gone", leave=False, file=out) as bar:
        bar.update()
    text = out.getvalue()
    assert "\r" not in text and "\x1b" not in text
    lines = [line for line in text.splitlines() if line]
    assert lines[0].startswith("embed:   0%") and "embed: 100%" in text and "gone:   0%" in text


def test_between_two_lines_lie_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sp.settings, "progress", True)
    show_progress_in_lines(True)
    out = io.StringIO()
    with progress_bar(total=1000, desc="fast", file=out) as bar:
        assert bar.mininterval == 10
        for _ in range(1000):
            bar.update()
    assert len([line for line in out.getvalue().splitlines() if line]) == 2


def test_a_prediction_says_something_before_it_loads_anything(tmp_path: Path) -> None:
    probe = (
        "import sys\nfrom spahgc.cli import main\nimport spahgc.cli._predict as p\nseen = []\n"
        "p.note = lambda text: (seen.append(text), print(text, 'torch' in sys.modules, 'anndata' in sys.modules), sys.exit())\n"
        "main(['predict', '--target', 'T.h5ad', '--reference', 'A.h5ad', '-o', 'O.h5ad'])"
    )
    (tmp_path / "T.h5ad").touch()
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert "Reading T.h5ad and what it is predicted from ... False False" in done.stdout + done.stderr


# --- run


@pytest.fixture
def case(tmp_path: Path) -> Path:
    """A plain image of tissue, and a folder of measured slides."""
    from PIL import Image

    slides = sp.datasets.simulated(3, n_patients=3, n_spots=24, n_genes=30, seed=1)
    (library,) = slides[0].uns["spatial"].values()
    Image.fromarray(library["images"]["hires"]).save(tmp_path / "case.png")
    (tmp_path / "refs").mkdir()
    for slide in slides[1:]:
        slide.write_h5ad(tmp_path / "refs" / f"{slide.obs['slide'].iloc[0]}.h5ad")
    return tmp_path / "case.png"


def fast(tmp_path: Path, *more: object) -> list[object]:
    return ["--reference", tmp_path / "refs" / "*.h5ad", "-o", tmp_path / "out", "--mpp", "0.8", "--no-context",
            "--method", "ridge", "--device", "cpu", *more]  # fmt: skip


def test_one_command_leads_from_an_image_to_a_report_and_a_qupath_file(
    capsys: pytest.CaptureFixture[str], case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = json_of(capsys, "run", case, *fast(tmp_path, "--n-domains", "2"))
    assert set(found["files"]) == {"prediction", "report", "qupath"}
    predicted = ad.read_h5ad(found["files"]["prediction"])
    features = json.loads(Path(found["files"]["qupath"]).read_text("utf-8"))["features"]
    assert [each["properties"]["objectType"] for each in features].count("detection") == predicted.n_obs
    assert [each["properties"]["objectType"] for each in features].count("annotation") == 2
    assert "<html" in Path(found["files"]["report"]).read_text("utf-8")[:500].lower()

    monkeypatch.setattr(sp.pp, "tile", lambda *_, **__: pytest.fail("tiled again"))
    monkeypatch.setattr(sp.tl, "predict", lambda *_, **__: pytest.fail("predicted again"))
    monkeypatch.setattr(sp.pl, "report", lambda *_, **__: pytest.fail("written again"))
    assert json_of(capsys, "run", case, *fast(tmp_path, "--n-domains", "2")) == found


def test_what_other_options_change_is_done_again_and_the_rest_is_kept(
    capsys: pytest.CaptureFixture[str], case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = json_of(capsys, "run", case, *fast(tmp_path))
    before = ad.read_h5ad(found["files"]["prediction"]).layers["spahgc"].copy()
    monkeypatch.setattr(sp.pp, "tile", lambda *_, **__: pytest.fail("tiled again"))
    json_of(capsys, "run", case, *fast(tmp_path, "--method", "nearest", "--export", "cellxgene"))
    after = ad.read_h5ad(found["files"]["prediction"]).layers["spahgc"]
    assert not np.array_equal(before, after)
    assert (tmp_path / "out" / "case_cellxgene.h5ad").is_file()


def test_a_run_takes_its_defaults_from_a_file_and_the_line_counts_first(
    capsys: pytest.CaptureFixture[str], case: Path, tmp_path: Path
) -> None:
    config = tmp_path / "lab.yaml"
    config.write_text("method: nearest\nmpp: 0.8\ncontext: false\nexport: [qupath, cellxgene]\ndevice: cpu\n")
    found = json_of(
        capsys,
        "run",
        case,
        "--reference",
        tmp_path / "refs",
        "-o",
        tmp_path / "out",
        "--config",
        config,
        "--method",
        "ridge",
    )
    assert set(found["files"]) == {"prediction", "report", "qupath", "cellxgene"}
    record = ad.read_h5ad(found["files"]["prediction"]).uns["spahgc"]["predictions"]["spahgc"]
    assert record["method"] == "ridge"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("encodr: uni\n", "names encodr, which spahgc run has no option for"),
        ("- a\n", "holds no options with values"),
        ("a: [", "cannot be read"),
    ],
)
def test_a_file_of_defaults_that_is_none_is_refused(
    capsys: pytest.CaptureFixture[str], case: Path, tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "lab.yaml").write_text(text)
    code, _, err = run(capsys, "run", case, *fast(tmp_path, "--config", tmp_path / "lab.yaml"))
    assert code == 2 and message in err
    assert not (tmp_path / "out").exists()


def test_a_run_reads_folders_of_visium_as_references(
    capsys: pytest.CaptureFixture[str], case: Path, tmp_path: Path
) -> None:
    folders = []
    for place, slide in enumerate(sp.datasets.simulated(2, n_patients=2, n_spots=24, n_genes=30, seed=5)):
        folders.append(tmp_path / f"run_{place}")
        slide_files.write_visium(folders[-1], slide)
    arguments = ["-o", tmp_path / "out", "--mpp", "0.8", "--no-context", "--method", "ridge", "--device", "cpu"]
    found = json_of(capsys, "run", case, "--reference", *folders, *arguments)
    record = ad.read_h5ad(found["files"]["prediction"]).uns["spahgc"]["predictions"]["spahgc"]
    assert [str(name) for name in record["references"]] == ["run_0", "run_1"]


@pytest.mark.parametrize("reference", [[], ["absent.h5ad"]])
def test_a_run_without_references_does_nothing(
    capsys: pytest.CaptureFixture[str], case: Path, tmp_path: Path, reference: list[str]
) -> None:
    given = [part for name in reference for part in ("--reference", tmp_path / name)]
    code, _, err = run(capsys, "run", case, *given, "-o", tmp_path / "out")
    assert code == 2 and ("no reference was given" in err or "there is no such file" in err)


def test_a_folder_that_holds_something_else_is_left_alone(
    capsys: pytest.CaptureFixture[str], case: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    code, _, err = run(capsys, "run", case, *fast(tmp_path))
    assert code == 2 and "holds something else, and is left alone" in err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


@pytest.mark.data
def test_the_way_of_an_assistant_from_a_real_slide(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, her2st: Path
) -> None:
    """A scanner's slide and four measured sections: one command, or four, to a report and a file for QuPath."""
    image, case = her2st.parent / "files" / "slides" / "CMU-1-Small-Region.svs", tmp_path / "case.svs"
    shutil.copy(image, case)
    names = ("B4", "C2", "C3", "C4")
    for name in names:
        three = [her2st / part for part in (f"{name}.tsv.gz", f"{name}_selection.tsv", f"{name}.jpg")]
        json_of(capsys, "read", "st", *three, "-o", tmp_path / "refs" / f"{name}.h5ad")
    refs = tmp_path / "embedded"
    json_of(capsys, "embed", *sorted((tmp_path / "refs").iterdir()), "-o", refs, "--no-context", "--device", "cpu")
    chosen = ["--method", "ridge", "--gene", "ERBB2", "--gene", "CD74", "--device", "cpu"]

    one = json_of(
        capsys, "run", case, "--reference", refs, "-o", tmp_path / "out", "--no-context", "--spacing-um", "150", *chosen
    )["files"]
    assert os.path.isfile(tmp_path / "out" / "run.json")

    tiles, out = tmp_path / "case.h5ad", tmp_path / "predicted.h5ad"
    page, qupath = tmp_path / "report.html", tmp_path / "case.geojson"
    json_of(capsys, "tile", case, "-o", tiles, "--spacing-um", "150")
    json_of(
        capsys, "predict", "--target", tiles, "--reference", refs, "-o", out, "--encoder", "efficientnet_lite0",
        "--no-context", "--no-trust", *chosen,
    )  # fmt: skip
    json_of(capsys, "report", out, "-o", page, "--reference", refs)
    json_of(capsys, "export", out, "--to", "qupath", "-o", qupath)

    predicted = ad.read_h5ad(out)
    np.testing.assert_array_equal(predicted.layers["spahgc"], ad.read_h5ad(one["prediction"]).layers["spahgc"])
    record = predicted.uns["spahgc"]["predictions"]["spahgc"]
    assert [str(name) for name in record["references"]] == list(names) and predicted.n_obs > 25
    for path in (Path(one["qupath"]), qupath):
        features = json.loads(path.read_text("utf-8"))["features"]
        centres = [np.asarray(shape(each["geometry"]).centroid.coords[0]) for each in features]
        np.testing.assert_allclose(centres, predicted.obsm["spatial"], atol=1.0)  # pixels
        assert set(features[0]["properties"]["measurements"]) >= {"ERBB2", "CD74"}
    for path in (Path(one["report"]), page):
        assert path.stat().st_size > 10_000 and "<html" in path.read_text("utf-8")[:500].lower()
