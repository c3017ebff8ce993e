"""The command line: results on stdout, one line for an error, exit codes."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from PIL import Image

import spahgc as sp
from spahgc import cli


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


def test_demo_writes_slide_scores_and_figure(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
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


def test_an_error_of_a_function_reads_as_the_function_says_it(
    capsys: pytest.CaptureFixture[str], files: list[Path], tmp_path: Path
) -> None:
    code, _, err = run(capsys, "predict", "--target", files[0], "--output", tmp_path / "out.h5ad")
    assert code == 2
    assert "no reference was given. Pass refs=" in err
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
    code, _, err = run(capsys, "predict", "--target", broken, "--reference", broken, "--output", tmp_path / "o.h5ad")
    assert code == 2
    assert "broken.h5ad cannot be read as .h5ad" in err
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

    def broken(self: AnnData, name: str) -> None:
        Path(name).write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(AnnData, "write_h5ad", broken)
    with pytest.raises(OSError, match="no space left"):
        write_h5ad(cohort[1], path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["slide.h5ad"]
