"""The command line: results on stdout, one line for an error, exit codes."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from PIL import Image

import spahgc as sp
from spahgc import cli
from spahgc._parameters import PRESETS


def _cohort_files() -> Any:
    """Load the helper by its path: with ``--import-mode=importlib`` tests cannot import their neighbours."""
    spec = importlib.util.spec_from_file_location("cohort_files", Path(__file__).with_name("cohort_files.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules["cohort_files"] = module
    spec.loader.exec_module(module)
    return module


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command."""
    with pytest.raises(SystemExit) as stopped:
        cli.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    code = stopped.value.code
    return (0 if code is None else int(code)), captured.out, captured.err


@pytest.fixture
def files(cohort: list[AnnData], tmp_path: Path) -> list[Path]:
    """The slides of the cohort as files."""
    paths = []
    for place, slide in enumerate(cohort):
        paths.append(tmp_path / f"slide{place}.h5ad")
        slide.write_h5ad(paths[-1])
    return paths


def test_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--version") == (0, f"{sp.__version__}\n", "")


def test_demo_writes_slide_scores_figure_and_report_and_says_what_comes_next(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, quick_default: sp.Parameters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PRESETS, "default", quick_default)
    folder = tmp_path / "demo"
    code, out, err = run(capsys, "--quiet", "demo", "--output", folder, "--spots", 24, "--device", "cpu")
    assert code == 0, err
    scores = pd.read_csv(folder / "scores.csv", index_col="method")
    assert list(scores.index) == ["spahgc", "ridge", "nearest", "mean"]
    for method in scores.index:
        assert method in out
    assert scores.loc["mean", "undefined"] == scores.loc["mean", "genes"]
    target = ad.read_h5ad(folder / "target.h5ad")
    assert np.isfinite(target.layers["spahgc"][:, target.var["spahgc_panel"]]).all()
    with Image.open(folder / "spatial_genes.png") as figure:
        assert np.asarray(figure.convert("RGB")).std() > 10  # something is drawn
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.lstrip().lower().startswith("<!doctype html")
    *_, report, title, first, second, third = out.strip().splitlines()
    assert (report, title) == (f"Report: {folder / 'report.html'}", "Next:")
    assert first.startswith(f"- Open {folder / 'report.html'} in a browser")
    assert "spahgc read visium" in second and "spahgc run" in third
    assert {path.name for path in folder.iterdir()} == {"target.h5ad", "scores.csv", "spatial_genes.png", "report.html"}


def test_commands_that_the_demo_names_can_be_given(tmp_path: Path) -> None:
    import typer

    from spahgc.cli._app import app
    from spahgc.cli._arguments import spread
    from spahgc.cli._demo import NEXT

    commands = typer.main.get_command(app)
    named = [step.partition(": ")[2].split() for step in NEXT if ": spahgc " in step]
    assert len(NEXT) == 3 and [words[:2] for words in named] == [["spahgc", "read"], ["spahgc", "run"]]
    for _, name, *rest in named:
        for path in ("A.h5ad", "B.h5ad", "IMAGE.tif", "SLIDE.svs"):
            rest = [str(tmp_path / path) if word == path else word for word in rest]
            (tmp_path / path).touch()
        rest = spread([name, *rest], commands.commands)[1:]
        context = commands.commands[name].make_context(name, rest, resilient_parsing=False)  # refuses unknown options
        assert context.info_name == name


def test_the_demo_is_of_several_patients_that_differ_in_stain() -> None:
    from spahgc.cli._demo import N_PATIENTS, N_SLIDES, STAIN_EFFECT

    assert N_PATIENTS >= 3 and N_SLIDES > N_PATIENTS and STAIN_EFFECT > 0.2


def test_the_demo_as_json_names_its_report(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = pd.DataFrame({"genes": [3]}, index=pd.Index(["spahgc"], name="method"))
    monkeypatch.setattr("spahgc.cli._demo.run_demo", lambda *_, **__: table)
    code, out, err = run(capsys, "--quiet", "demo", "--output", tmp_path, "--json")
    assert code == 0, err
    told = json.loads(out)
    assert told["report"] == str(tmp_path / "report.html") and len(told["next"]) == 3
    assert told["methods"] == [{"method": "spahgc", "genes": 3}]


def test_predict_writes_what_the_function_computes(
    capsys: pytest.CaptureFixture[str], files: list[Path], cohort: list[AnnData], tmp_path: Path
) -> None:
    output = tmp_path / "out.h5ad"
    references = [part for path in files[1:] for part in ("--reference", path)]
    code, out, err = run(
        capsys, "--quiet", "predict", "--target", files[0], *references, "--output", output, "--method", "nearest"
    )
    assert code == 0, err
    assert str(output) in out
    sp.tl.predict(cohort[0], cohort[1:], method="nearest")
    np.testing.assert_allclose(ad.read_h5ad(output).layers["spahgc"], cohort[0].layers["spahgc"], rtol=1e-6)


@pytest.mark.parametrize(("genes", "expected"), [(["all"], 60), (["FLAT001", "MORPH002"], 2)])
def test_predict_takes_genes_one_by_one_or_all(
    capsys: pytest.CaptureFixture[str], files: list[Path], tmp_path: Path, genes: list[str], expected: int
) -> None:
    output = tmp_path / "out.h5ad"
    asked = [part for gene in genes for part in ("--gene", gene)]
    arguments = ["--target", files[0], "--reference", files[1], "--output", output, "--method", "nearest"]
    code, out, err = run(capsys, "--quiet", "predict", *arguments, *asked)
    assert code == 0, err
    assert f"{expected} genes predicted at 70 spots" in out
    panel = ad.read_h5ad(output).var["spahgc_panel"]
    assert panel.sum() == expected
    assert genes == ["all"] or set(panel.index[panel]) == set(genes)


def test_predict_takes_a_saved_model(
    capsys: pytest.CaptureFixture[str], files: list[Path], cohort: list[AnnData], quick: object, tmp_path: Path
) -> None:
    model = sp.tl.fit(cohort[1:], preset=quick, device="cpu")
    model.save(tmp_path / "model")
    output = tmp_path / "out.h5ad"
    code, _, err = run(
        capsys, "predict", "--target", files[0], "--model", tmp_path / "model", "--output", output, "--device", "cpu"
    )
    assert code == 0, err
    written = ad.read_h5ad(output)
    np.testing.assert_array_equal(written[:, model.genes].layers["spahgc"], model.predict(cohort[0], device="cpu"))


def test_predict_embeds_slides_that_have_no_embedding(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    slides = sp.datasets.simulated(n_slides=2, n_patients=1, n_spots=24, n_genes=20)
    for place, slide in enumerate(slides):
        slide.write_h5ad(tmp_path / f"{place}.h5ad")
    output = tmp_path / "out.h5ad"
    arguments = ["--target", tmp_path / "0.h5ad", "--reference", tmp_path / "1.h5ad", "--output", output]
    code, _, err = run(
        capsys, "--quiet", "predict", *arguments, "--encoder", "efficientnet_lite0", "--method", "nearest"
    )
    assert code == 0, err
    assert "X_efficientnet_lite0" in ad.read_h5ad(output).obsm


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "--target", "absent.h5ad", "--reference", "a.h5ad", "--output", "o.h5ad"], "absent.h5ad"),
        (["predict", "--target", "absent.h5ad"], "--output"),
        (["demo"], "--output"),
        (["nonsense"], "nonsense"),
        (["predict", "--nonsense"], "--nonsense"),
    ],
)
def test_an_error_is_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    code, out, err = run(capsys, *arguments)
    assert code == 2
    assert out == ""
    assert err.startswith("spahgc: ")
    assert message in err
    assert err.count("\n") == 1
    assert "Traceback" not in err


def test_an_error_of_a_function_reads_in_the_words_of_the_shell(
    capsys: pytest.CaptureFixture[str], files: list[Path], tmp_path: Path
) -> None:
    code, _, err = run(capsys, "predict", "--target", files[0], "--output", tmp_path / "out.h5ad")
    assert code == 2
    assert "no reference was given. Pass --reference" in err
    code, _, err = run(
        capsys, "predict", "--target", files[0], "--reference", files[0], "--output", tmp_path / "out.h5ad"
    )
    assert code == 2
    assert "also among the references" in err
    assert not (tmp_path / "out.h5ad").exists()


def test_a_folder_that_cannot_be_written_stops_before_anything_is_read(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    code, _, err = run(capsys, "demo", "--output", tmp_path / "file" / "folder")
    assert code == 2
    assert "cannot be written" in err
    code, _, err = run(
        capsys, "predict", "--target", "absent.h5ad", "--output", tmp_path / "file" / "folder" / "out.h5ad"
    )
    assert code == 2
    assert "cannot be written" in err


def test_a_file_that_is_no_h5ad_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    broken = tmp_path / "broken.h5ad"
    broken.write_bytes(b"not a slide")
    code, _, err = run(
        capsys, "predict", "--quiet", "--target", broken, "--reference", broken, "--output", tmp_path / "o.h5ad"
    )
    assert code == 2
    assert 'broken.h5ad" (11 bytes) cannot be read' in err and "Write it with AnnData's write_h5ad" in err
    assert err.count("\n") == 1


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent"):
        cli.main(["predict", "--debug", "--target", "absent.h5ad", "--output", str(tmp_path / "o.h5ad")])


def test_a_failed_write_leaves_no_part_of_a_file(
    cohort: list[AnnData], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from spahgc._files import write_h5ad

    path = tmp_path / "slide.h5ad"
    write_h5ad(cohort[0], path)
    before = path.read_bytes()

    def broken(adata: AnnData, part: Path) -> None:
        part.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr("spahgc._files.write_hdf5", broken)
    with pytest.raises(OSError, match="no space left"):
        write_h5ad(cohort[1], path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["slide.h5ad"]


SECTIONS = ("A1", "A2", "B1")


@pytest.fixture(scope="module")
def her2st_copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three small sections of two patients, laid out as the authors' repository."""
    return _cohort_files().write_her2st(tmp_path_factory.mktemp("her2st"), SECTIONS)


@pytest.fixture(scope="module")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of an encoder that takes milliseconds."""
    import timm
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file(timm.create_model("test_vit", pretrained=False, num_classes=0).state_dict(), path)
    return path


@pytest.fixture
def cohort_arguments(her2st_copy: Path, tiny_weights: Path, tmp_path: Path) -> list[object]:
    options = ["--path", her2st_copy, "--encoder", "test_vit", "--checkpoint", tiny_weights, "--device", "cpu"]
    methods = ["--method", "ridge", "--method", "nearest"]
    return ["--quiet", "cross-validate", "--cohort", "her2st", *options, *methods, "--output", tmp_path / "out"]


def test_cross_validate_prints_the_papers_figure_beside_the_methods(
    capsys: pytest.CaptureFixture[str], cohort_arguments: list[object], tmp_path: Path
) -> None:
    code, out, err = run(capsys, *cohort_arguments)
    assert code == 0, err
    table, of_slides = out.split("mean PCC of each slide")
    lines = {line.split("  ")[0]: line for line in table.splitlines()}
    assert all(f"\n{name} " in of_slides for name in SECTIONS)
    assert "0.2786" in lines["SpaHGC, reported"]
    assert "3 of 36 sections" in out and "encoder test_vit instead of uni" in out
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    for method in ("ridge", "nearest"):
        assert f"{result['methods'][method]['pearson']:.4f}" in lines[method]
    assert result["paper_pcc"] == 0.2786
    scores = pd.read_csv(tmp_path / "out" / "scores.csv")
    assert set(scores["slide"]) == set(SECTIONS) and set(scores["method"]) == {"ridge", "nearest"}
    assert str(tmp_path) not in (tmp_path / "out" / "result.json").read_text()


def test_cross_validate_computes_what_the_functions_compute(
    capsys: pytest.CaptureFixture[str], cohort_arguments: list[object], her2st_copy: Path, tiny_weights: Path
) -> None:
    code, out, err = run(capsys, *cohort_arguments, "--json", "--group-by", "patient")
    assert code == 0, err
    found = json.loads(out)
    slides = sp.datasets.her2st(her2st_copy, sections=SECTIONS)
    sp.pp.embed(slides, encoder="test_vit", checkpoint=tiny_weights, context=False, device="cpu")  # as in the paper
    expected = sp.tl.cross_validate(slides, group_by="patient", methods=["ridge", "nearest"], preset="paper")
    for method, row in found["methods"].items():
        assert row["pearson"] == pytest.approx(expected.summary.loc[method, "pearson"], abs=1e-5)
    assert found["sections"] == list(SECTIONS)


def test_cross_validate_goes_on_where_it_was_cut_off(
    capsys: pytest.CaptureFixture[str], cohort_arguments: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded: list[str] = []
    embed = sp.pp.embed

    def counted(slide: AnnData, **options: Any) -> None:
        name = str(slide.obs["slide"].iloc[0])
        if len(embedded) == 2:
            embedded.clear()
            raise KeyboardInterrupt
        embedded.append(name)
        embed(slide, **options)

    monkeypatch.setattr(sp.pp, "embed", counted)
    assert run(capsys, *cohort_arguments)[0] == 130
    assert sorted(path.name for path in (tmp_path / "out" / "slides").iterdir()) == ["A1.h5ad", "A2.h5ad"]
    code, out, err = run(capsys, *cohort_arguments)
    assert code == 0, err
    assert embedded == ["B1"]
    monkeypatch.setattr(
        "spahgc.tl._cross_validation.folds.run_fold", lambda fold: pytest.fail("a finished fold is computed again")
    )
    assert run(capsys, *cohort_arguments)[1] == out, "a third call reads everything back"
    assert embedded == ["B1"]


def test_cross_validate_embeds_again_what_another_encoder_made_or_nobody_can_read(
    capsys: pytest.CaptureFixture[str], cohort_arguments: list[object], tmp_path: Path
) -> None:
    code, out, err = run(capsys, *cohort_arguments)
    assert code == 0, err
    folder = tmp_path / "out" / "slides"
    other = ad.read_h5ad(folder / "A1.h5ad")
    other.obsm["X_test_vit"] += np.random.default_rng(0).normal(size=other.obsm["X_test_vit"].shape).astype("float32")
    other.uns["spahgc"]["embeddings"]["X_test_vit"]["revision"] = "local:0123456789ab"
    other.write_h5ad(folder / "A1.h5ad")
    (folder / "B1.h5ad").write_bytes(b"half a file")
    assert run(capsys, *cohort_arguments)[1] == out
    assert len({str(ad.read_h5ad(path).uns["spahgc"]["embeddings"]["X_test_vit"]) for path in folder.iterdir()}) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cohort", "her2"], 'there is no cohort "her2"'),
        (["--cohort", "her2st", "--section", "Z1"], 'sections "Z1" are not in cohort her2st'),
        (["--cohort", "her2st", "--section", "A1"], "are of one slide: none is left to learn from"),
        (["--cohort", "her2st", "--section", "A1", "--section", "A2", "--group-by", "patient"], "of one patient"),
        (["--cohort", "hest_pancreas1", "--group-by", "patient"], "does not say which patients"),
        (["--cohort", "her2st", "--group-by", "colour"], "--group-by colour is not known"),
        (["--cohort", "her2st", "--method", "magic"], "--method magic is not known"),
        (["--cohort", "her2st", "--preset", "magic"], "--preset magic is not known. Choose one of paper, default"),
        (["--cohort", "her2st", "--method", "spahgc:magic"], "--preset magic is not known"),
        (["--cohort", "her2st", "--path", "absent"], "is no folder"),
        ([], "--cohort"),
    ],
)
def test_cross_validate_refuses_before_anything_is_downloaded_or_written(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, "cross-validate", "--encoder", "efficientnet_lite0", *arguments)
    assert code == 2 and out == ""
    assert message in err and err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_cross_validate_asks_for_the_weights_before_the_cohort(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sp.datasets, "fetch", lambda *_, **__: pytest.fail("gigabytes were asked for first"))
    code, _, err = run(
        capsys, "cross-validate", "--cohort", "cscc", "--checkpoint", "absent.safetensors", "--output", tmp_path / "out"
    )
    assert code == 2 and "absent.safetensors" in err
