"""``spahgc export``: a file for each program, from a slide on disk."""

from __future__ import annotations

import json
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import spahgc as sp
from spahgc import cli


@pytest.fixture(scope="module")
def predicted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    (slide,) = sp.datasets.simulated(1, n_patients=1, n_spots=40, n_genes=20)
    slide.layers["spahgc"] = slide.layers["truth"].astype(np.float32)
    slide.obs["spahgc_domain"] = pd.Categorical(["0", "1"] * 20)
    path = tmp_path_factory.mktemp("slides") / "predicted.h5ad"
    slide.write_h5ad(path)
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stopped:
        cli.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return int(stopped.value.code or 0), captured.out, captured.err


@pytest.mark.parametrize(
    ("program", "name"),
    [("qupath", "a.geojson"), ("tissuumaps", "maps"), ("loupe", "a.csv"), ("xenium", "b.csv"), ("cellxgene", "a.h5ad")],
)
def test_each_program_gets_its_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, predicted: Path, program: str, name: str
) -> None:
    code, out, err = run(capsys, "export", predicted, "--to", program, "--output", tmp_path / name, "--json")
    assert (code, err) == (0, "")
    assert Path(json.loads(out)["output"]).is_file()
    code, _, err = run(capsys, "export", predicted, "--to", program, "-o", tmp_path / name)
    assert code == 2 and "exists already. Pass --overwrite to replace it" in err
    assert run(capsys, "export", predicted, "--to", program, "-o", tmp_path / name, "--overwrite")[0] == 0


def test_chosen_genes_and_groups_are_written(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, predicted: Path
) -> None:
    path = tmp_path / "a.geojson"
    run(capsys, "export", predicted, "--to", "qupath", "-o", path, "--gene", "FLAT001", "--groups", "in_tissue")
    features = json.loads(path.read_text("utf-8"))["features"]
    assert list(features[0]["properties"]["measurements"]) == ["FLAT001"]
    assert features[0]["properties"]["classification"]["name"] == "1"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "loupe", "-o", "a.csv", "--gene", "A"], "--gene has no meaning with --to loupe"),
        (["--to", "qupath", "-o", "a.csv"], "must end in .geojson or .json"),
        (["--to", "qupath", "-o", "a.geojson", "--image", "a.svs"], "--image goes with --to tissuumaps"),
        (["--to", "imagej", "-o", "a"], "--to imagej is not known. Choose one of qupath, tissuumaps"),
    ],
)
def test_what_has_no_meaning_is_refused_before_the_slide_is_read(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, "export", "absent.h5ad", *arguments)
    assert code == 2 and message in err


def test_the_table_of_domains_is_that_of_the_slide(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, predicted: Path
) -> None:
    run(capsys, "export", predicted, "--to", "loupe", "-o", tmp_path / "a.csv")
    table = pd.read_csv(tmp_path / "a.csv", dtype=str)
    assert table["spahgc_domain"].to_list() == ["0", "1"] * 20
    assert list(table["Barcode"]) == list(ad.read_h5ad(predicted).obs_names)
