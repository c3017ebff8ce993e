"""Commands from files to files: each writes and prints what the function of its name computes."""

from __future__ import annotations

import json
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
from spahgc._parameters import PRESETS, Parameters


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command."""
    with pytest.raises(SystemExit) as stopped:
        cli.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    code = stopped.value.code
    return (0 if code is None else int(code)), captured.out, captured.err


def result_of(capsys: pytest.CaptureFixture[str], *arguments: object) -> Any:
    """What a command that goes well prints as JSON, with nothing else on stdout."""
    code, out, err = run(capsys, *arguments, "--json")
    assert code == 0, err
    return json.loads(out)


@pytest.fixture
def files(cohort: list[AnnData], tmp_path: Path) -> list[Path]:
    """The slides of the cohort as files."""
    paths = []
    for place, slide in enumerate(cohort):
        paths.append(tmp_path / f"slide{place}.h5ad")
        slide.write_h5ad(paths[-1])
    return paths


@pytest.fixture
def predicted(cohort: list[AnnData], tmp_path: Path) -> Path:
    """The first slide with a prediction, as a file."""
    sp.tl.predict(cohort[0], cohort[1:], method="ridge")
    cohort[0].write_h5ad(tmp_path / "predicted.h5ad")
    return tmp_path / "predicted.h5ad"


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of an encoder that takes milliseconds."""
    import timm
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file(timm.create_model("test_vit", pretrained=False, num_classes=0).state_dict(), path)
    return path


@pytest.fixture
def tiny(weights: Path) -> list[object]:
    """Options that name this encoder."""
    return ["--encoder", "test_vit", "--checkpoint", weights, "--device", "cpu"]


@pytest.fixture(scope="module")
def _plain() -> list[AnnData]:
    return sp.datasets.simulated(n_slides=2, n_patients=1, n_spots=24, n_genes=20)


@pytest.fixture
def plain(_plain: list[AnnData], tmp_path: Path) -> list[Path]:
    """Two slides with pixels and without an embedding."""
    paths = []
    for place, slide in enumerate(_plain):
        paths.append(tmp_path / f"plain{place}.h5ad")
        slide.write_h5ad(paths[-1])
    return paths


def references(paths: list[Path]) -> list[object]:
    return [part for path in paths for part in ("--reference", path)]


# --- embed and tile


def test_embed_writes_what_the_function_computes(
    capsys: pytest.CaptureFixture[str], plain: list[Path], tiny: list[object], weights: Path, tmp_path: Path
) -> None:
    found = result_of(capsys, "embed", plain[0], "--output", tmp_path / "out.h5ad", *tiny, "--key-added", "X_mine")
    expected = ad.read_h5ad(plain[0])
    sp.pp.embed(expected, encoder="test_vit", checkpoint=weights, key_added="X_mine", device="cpu")
    written = ad.read_h5ad(tmp_path / "out.h5ad")
    np.testing.assert_array_equal(written.obsm["X_mine"], expected.obsm["X_mine"])
    assert (found["key"], found["spots"], found["dim"]) == ("X_mine", *expected.obsm["X_mine"].shape)
    assert found["encoder"]["name"] == "test_vit"
    beside = expected.obsm["X_mine_context"]
    np.testing.assert_array_equal(written.obsm["X_mine_context"], beside)
    assert found["columns"] == found["dim"] + beside.shape[1]


def test_embed_says_what_stands_beside_the_encoders_own_numbers(
    capsys: pytest.CaptureFixture[str], plain: list[Path], tiny: list[object], tmp_path: Path
) -> None:
    code, out, err = run(capsys, "embed", plain[0], "--output", tmp_path / "a.h5ad", *tiny)
    assert code == 0, err
    assert 'in obsm["X_test_vit"], and ' in out and 'of their surroundings, in obsm["X_test_vit_context"]' in out
    code, out, err = run(capsys, "embed", plain[0], "--output", tmp_path / "b.h5ad", "--no-context", *tiny)
    assert code == 0 and "surroundings" not in out
    assert "X_test_vit_context" not in ad.read_h5ad(tmp_path / "b.h5ad").obsm


@pytest.mark.parametrize("option", ["--context", "--no-context"])
@pytest.mark.parametrize("command", ["predict", "cross-validate"])
def test_a_context_without_an_encoder_is_refused(
    capsys: pytest.CaptureFixture[str], plain: list[Path], tmp_path: Path, command: str, option: str
) -> None:
    slides = ["--slide", plain[0], "--slide", plain[1]]
    if command == "predict":
        slides = ["--target", plain[0], "--reference", plain[1], "--output", tmp_path / "out.h5ad"]
    code, _, err = run(capsys, command, *slides, option)
    assert code != 0 and f"{option} says what an embedding shows" in err and "Pass --encoder" in err


@pytest.mark.parametrize(("given", "wanted"), [("--no-context", None), (None, "--no-context"), ("--context", None)])
def test_a_slide_is_not_embedded_with_another_context_than_its_references(
    capsys: pytest.CaptureFixture[str],
    plain: list[Path],
    tiny: list[object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    given: str | None,
    wanted: str | None,
) -> None:
    name = "efficientnet_lite0"
    slide = ad.read_h5ad(plain[1])
    (library,) = slide.uns["spatial"].values()
    slide = slide[:2].copy()
    context = {"--no-context": False, "--context": True, None: None}[given]
    sp.pp.embed(slide, encoder=name, image=library["images"]["hires"], context=context, device="cpu")
    slide.write_h5ad(tmp_path / "ref.h5ad")
    monkeypatch.setattr(sp.pp, "embed", lambda *_, **__: pytest.fail("the long work began"))
    options = ["--output", tmp_path / "out.h5ad", "--encoder", name, *([wanted] if wanted else [])]
    code, _, err = run(capsys, "predict", "--target", plain[0], "--reference", tmp_path / "ref.h5ad", *options)
    assert code != 0 and "some slides are embedded already, with the context" in err and "--no-context" in err


def test_embed_writes_several_slides_into_a_folder_and_keeps_what_is_finished(
    capsys: pytest.CaptureFixture[str], plain: list[Path], tiny: list[object], tmp_path: Path
) -> None:
    call = ["embed", *plain, "--output", tmp_path / "folder", *tiny]
    assert [row["status"] for row in result_of(capsys, *call)["slides"]] == ["written", "written"]
    assert "X_test_vit" in ad.read_zarr(tmp_path / "folder" / "plain1.zarr").obsm
    assert [row["status"] for row in result_of(capsys, *call)["slides"]] == ["kept", "kept"]


def test_embed_refuses_what_fits_a_single_slide_only(
    capsys: pytest.CaptureFixture[str], plain: list[Path], tmp_path: Path
) -> None:
    code, _, err = run(capsys, "embed", *plain, "--output", tmp_path / "out.h5ad")
    assert code == 2 and "holds one slide, 2 were given" in err
    code, _, err = run(capsys, "embed", *plain, "--output", tmp_path / "folder", "--image", "a.tif")
    assert code == 2 and "--image goes with one slide" in err
    assert not (tmp_path / "folder").exists()


def test_tile_embed_and_predict_lead_from_an_image_to_a_prediction(
    capsys: pytest.CaptureFixture[str], plain: list[Path], tiny: list[object], tmp_path: Path
) -> None:
    pixels = np.full((600, 900, 3), 245, dtype=np.uint8)
    pixels[:, :500] = (180, 110, 170)
    Image.fromarray(pixels).save(tmp_path / "case.png")
    tiles = tmp_path / "tiles.zarr"
    found = result_of(capsys, "tile", tmp_path / "case.png", "--output", tiles, "--mpp", 1, "--layout", "square")
    expected = sp.pp.tile(tmp_path / "case.png", mpp=1.0, layout="square")
    written = ad.read_zarr(tiles)
    np.testing.assert_array_equal(written.obsm["spatial"], expected.obsm["spatial"])
    assert (found["spots"], found["mpp"], found["layout"]) == (expected.n_obs, 1.0, "square")
    embedded = [tmp_path / "case.h5ad", tmp_path / "ref.h5ad"]
    for source, output in zip([tiles, plain[0]], embedded, strict=True):
        assert run(capsys, "--quiet", "embed", source, "--output", output, *tiny)[0] == 0
    call = ["--target", embedded[0], *references(embedded[1:]), "--method", "ridge", "--output", tmp_path / "out.h5ad"]
    assert result_of(capsys, "predict", *call)["spots"] == expected.n_obs


# --- fit, predict, evaluate, report


def test_a_fitted_model_predicts_what_the_functions_predict(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    files: list[Path],
    cohort: list[AnnData],
    quick: Parameters,
    tmp_path: Path,
) -> None:
    monkeypatch.setitem(PRESETS, "default", quick)
    folder, output = tmp_path / "model", tmp_path / "out.h5ad"
    call = ["fit", *references(files[1:]), "--output", folder, "--device", "cpu", "--seed", 3]
    found = result_of(capsys, *call)
    model = sp.tl.fit(cohort[1:], preset=quick, seed=3, device="cpu")
    assert (found["genes"], found["seed"], found["spots"]) == (model.genes, 3, model.bank.n_obs)
    said = result_of(capsys, "predict", "--target", files[0], "--model", folder, "--output", output, "--device", "cpu")
    assert said["genes"] == len(model.genes)
    written = ad.read_h5ad(output)[:, model.genes].layers["spahgc"]
    np.testing.assert_allclose(written, model.predict(cohort[0], device="cpu"), rtol=1e-5)
    code, _, err = run(capsys, *call)
    assert code == 2 and "exists already. Pass --overwrite to replace a model" in err
    assert run(capsys, *call, "--overwrite")[0] == 0


def test_fit_and_predict_take_a_bank_on_disk(
    capsys: pytest.CaptureFixture[str], files: list[Path], cohort: list[AnnData], tmp_path: Path
) -> None:
    bank = tmp_path / "bank.zarr"
    sp.pp.reference_bank(cohort[1:], path=bank)
    output = tmp_path / "out.h5ad"
    call = ["predict", "--target", files[0], "--method", "nearest", "--output", output]
    assert run(capsys, *call, "--bank", bank)[0] == 0
    sp.tl.predict(cohort[0], str(bank), method="nearest")
    np.testing.assert_allclose(ad.read_h5ad(output).layers["spahgc"], cohort[0].layers["spahgc"], rtol=1e-5)
    code, _, err = run(capsys, *call, "--overwrite", "--bank", bank, "--reference", files[1])
    assert code == 2 and "--bank and --reference were both given" in err


def test_evaluate_prints_and_writes_what_the_function_returns(
    capsys: pytest.CaptureFixture[str], predicted: Path, tmp_path: Path
) -> None:
    table = tmp_path / "scores.csv"
    found = result_of(capsys, "evaluate", predicted, "--output", table)
    expected = sp.tl.evaluate(ad.read_h5ad(predicted)).sort_values("pearson", ascending=False, na_position="last")
    assert [row["gene"] for row in found["genes"]] == list(expected.index)
    assert found["summary"]["mean_pearson"] == pytest.approx(expected["pearson"].mean())
    pd.testing.assert_frame_equal(pd.read_csv(table, index_col="gene"), expected)
    code, out, _ = run(capsys, "evaluate", predicted)
    assert code == 0
    assert out.splitlines()[2].split()[:2] == [expected.index[0], f"{expected['pearson'].iloc[0]:.4f}"]
    assert f"mean PCC {expected['pearson'].mean():.4f}" in out.splitlines()[-1]


def test_a_gene_without_a_correlation_is_null_and_not_zero(
    capsys: pytest.CaptureFixture[str], predicted: Path, tmp_path: Path
) -> None:
    slide = ad.read_h5ad(predicted)
    gene = slide.var_names[slide.var["spahgc_panel"]][0]
    values = slide.layers["spahgc"]
    values[:, slide.var_names.get_loc(gene)] = 1
    slide.layers["spahgc"] = values
    slide.write_h5ad(predicted)
    rows = {row["gene"]: row["pearson"] for row in result_of(capsys, "evaluate", predicted)["genes"]}
    assert rows[gene] is None
    assert all(value is not None for name, value in rows.items() if name != gene)


def test_report_hands_everything_to_the_function(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    predicted: Path,
    files: list[Path],
    tmp_path: Path,
) -> None:
    handed: dict[str, Any] = {}

    def report(adata: AnnData, path: Path, **options: Any) -> Path:
        handed.update(options, adata=adata)
        path.write_text("page" * 1000)
        return path

    monkeypatch.setattr(sp.pl, "report", report)
    page = tmp_path / "page.html"
    genes = ["--gene", "MORPH001", "--gene", "FLAT001"]
    options = ["--reference", files[1], "--key", "mine", *genes, "--title", "Case", "--max-mb", 3, "--layer", "counts"]
    found = result_of(capsys, "report", predicted, "--output", page, *options)
    assert found == {"output": str(page), "key": "mine", "mb": 0.004}
    assert handed["adata"].n_obs == 70 and [each.n_obs for each in handed["refs"]] == [70]
    assert {name: handed[name] for name in ("key", "genes", "title", "max_mb", "layer")} == {
        "key": "mine",
        "genes": ["MORPH001", "FLAT001"],
        "title": "Case",
        "max_mb": 3.0,
        "layer": "counts",
    }


def test_report_hands_several_slides_with_what_belongs_to_each(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, predicted: Path, tmp_path: Path
) -> None:
    handed: dict[str, Any] = {}

    def report(adata: list[AnnData], path: Path, **options: Any) -> Path:
        handed.update(options, n=len(adata))
        path.mkdir()
        (path / "index.html").write_text("page")
        return path / "index.html"

    monkeypatch.setattr(sp.pl, "report", report)
    folder, drawn = tmp_path / "pages", ["--annotations", "a.geojson", "--annotations", "b.geojson"]
    options = [*drawn, "--net", "markers.gmt", "--tiles"]
    found = result_of(capsys, "report", predicted, predicted, "--output", folder, *options)
    assert found["output"] == str(folder / "index.html")
    assert handed["n"] == 2 and handed["tiles"] and handed["net"] == Path("markers.gmt") and handed["image"] is None
    assert handed["annotations"] == [Path("a.geojson"), Path("b.geojson")]
    code, _, err = run(capsys, "report", predicted, "--output", folder, "--tiles")
    assert code == 2 and "exists already. Pass --overwrite" in err


def test_report_makes_the_page(capsys: pytest.CaptureFixture[str], predicted: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    code, out, err = run(capsys, "report", predicted, "--output", page)
    assert code == 0, err
    assert out.startswith(f"{page}: ")
    assert "<html" in page.read_text(encoding="utf-8")


# --- cross-validation of slides of one's own


def test_cross_validate_of_slides_prints_what_the_function_computes(
    capsys: pytest.CaptureFixture[str], files: list[Path], cohort: list[AnnData], tmp_path: Path
) -> None:
    slides = [part for path in files for part in ("--slide", path)]
    methods = ["--method", "ridge", "--method", "nearest"]
    call = ["cross-validate", *slides, *methods, "--group-by", "patient", "--output", tmp_path / "out"]
    found = result_of(capsys, *call)
    expected = sp.tl.cross_validate(cohort, group_by="patient", methods=["ridge", "nearest"])
    for method, row in found["methods"].items():
        assert row["pearson"] == pytest.approx(expected.summary.loc[method, "pearson"], abs=1e-6)
    assert found["preset"] == "default"
    assert set(found["per_slide"]["ridge"]) == set(expected.per_slide.columns)
    assert json.loads((tmp_path / "out" / "result.json").read_text()) == found
    assert set(pd.read_csv(tmp_path / "out" / "scores.csv")["method"]) == {"ridge", "nearest"}


def test_cross_validate_of_slides_goes_on_where_it_was_cut_off(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, files: list[Path], tmp_path: Path
) -> None:
    slides = [part for path in files for part in ("--slide", path)]
    call = ["--quiet", "cross-validate", *slides, "--method", "ridge", "--output", tmp_path / "out"]
    code, out, err = run(capsys, *call)
    assert code == 0, err
    monkeypatch.setattr(
        "spahgc.tl._cross_validation.folds.run_fold", lambda fold: pytest.fail("a finished fold is computed again")
    )
    assert run(capsys, *call)[1] == out


def test_slides_without_a_name_are_called_by_their_files(
    capsys: pytest.CaptureFixture[str], files: list[Path], cohort: list[AnnData]
) -> None:
    for path, slide in zip(files, cohort, strict=True):
        del slide.obs["slide"]
        slide.write_h5ad(path)
    slides = [part for path in files[:3] for part in ("--slide", path)]
    assert result_of(capsys, "cross-validate", *slides, "--method", "nearest")["slides"] == [
        "slide0",
        "slide1",
        "slide2",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "none of --cohort and --slide was given"),
        (["--cohort", "her2st", "--slide", "a.h5ad"], "both of --cohort and --slide"),
        (["--slide", "a.h5ad", "--section", "A1"], "--section goes with --cohort"),
        (["--cohort", "her2st", "--gene", "ERBB2"], "--gene goes with --slide"),
        (["--slide", "a.h5ad", "--method", "magic"], "--method magic is not known"),
        (["--slide", "a.h5ad", "--checkpoint", "w"], "Pass --encoder as well"),
        (["--slide", "a.h5ad", "--device", "abacus"], "--device abacus is not available"),
        (["--slide", "absent.h5ad"], "absent.h5ad: there is no such file"),
    ],
)
def test_cross_validate_refuses_what_does_not_go_together(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, "cross-validate", *arguments)
    assert (code, out) == (2, "")
    assert message in err and err.count("\n") == 1
    assert not list(tmp_path.iterdir())


# --- the registries


def test_encoders_prints_the_registry(capsys: pytest.CaptureFixture[str]) -> None:
    table = sp.encoders.list()
    found = result_of(capsys, "encoders")
    assert [row["name"] for row in found] == list(table["name"])
    assert found[0]["mean"] == list(table["mean"].iloc[0])
    of_table = table.set_index("name")["mpp"]
    assert [row["mpp"] for row in found if row["name"] == "efficientnet_lite0"] == [of_table["efficientnet_lite0"]]
    lines = run(capsys, "encoders")[1].splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(table["name"])
    assert "MahmoodLab/UNI" in lines[1]


def test_cohorts_prints_the_registry(capsys: pytest.CaptureFixture[str]) -> None:
    table = sp.datasets.cohorts()
    found = result_of(capsys, "cohorts")
    assert [row["name"] for row in found] == list(table.index)
    reported = table["paper_pcc"].astype(object).where(table["paper_pcc"].notna(), None)
    assert {row["name"]: row["paper_pcc"] for row in found} == reported.to_dict()
    lines = run(capsys, "cohorts")[1].splitlines()
    assert "HER2-positive breast cancer" in lines[2] and "0.2786" in lines[2]
    assert "unknown" in lines[-1]


# --- files


@pytest.mark.parametrize(
    "call",
    [
        ["embed", "absent.h5ad"],
        ["tile", "absent.png"],
        ["predict", "--target", "absent.h5ad"],
        ["report", "absent.h5ad"],
        ["evaluate", "absent.h5ad"],
        ["fit", "--reference", "absent.h5ad"],
    ],
    ids=lambda call: call[0],
)
def test_an_output_that_exists_is_refused_before_anything_is_read(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, call: list[str]
) -> None:
    ending = {"report": "html", "evaluate": "csv"}.get(call[0], "h5ad")
    output = tmp_path / f"there.{ending}"
    output.write_bytes(b"work of a week")
    code, _, err = run(capsys, *call, "--output", output)
    assert code == 2 and "exists already" in err and "--overwrite" in err
    assert output.read_bytes() == b"work of a week"


def test_the_input_is_replaced_only_when_that_is_said(
    capsys: pytest.CaptureFixture[str], files: list[Path], tmp_path: Path
) -> None:
    call = ["predict", "--target", files[0], *references(files[1:]), "--method", "nearest", "--output", files[0]]
    before = files[0].read_bytes()
    assert run(capsys, *call)[0] == 2
    assert files[0].read_bytes() == before
    assert run(capsys, *call, "--overwrite")[0] == 0
    assert "spahgc" in ad.read_h5ad(files[0]).layers


def test_a_folder_that_is_no_slide_is_never_replaced(
    capsys: pytest.CaptureFixture[str], files: list[Path], tmp_path: Path
) -> None:
    output = tmp_path / "thesis.zarr"
    output.mkdir()
    (output / "thesis.tex").write_text("all of it")
    call = ["predict", "--target", files[0], *references(files[1:]), "--method", "nearest", "--output", output]
    code, _, err = run(capsys, *call, "--overwrite")
    assert code == 2 and "holds something else, and is not replaced" in err
    assert (output / "thesis.tex").read_text() == "all of it"


def test_the_ending_decides_the_format(capsys: pytest.CaptureFixture[str], files: list[Path], tmp_path: Path) -> None:
    stored, back = tmp_path / "out.zarr", tmp_path / "out.h5ad"
    call = [*references(files[1:]), "--method", "nearest"]
    assert run(capsys, "predict", "--target", files[0], *call, "--output", stored)[0] == 0
    assert run(capsys, "predict", "--target", stored, *call, "--output", back)[0] == 0
    np.testing.assert_array_equal(ad.read_zarr(stored).layers["spahgc"], ad.read_h5ad(back).layers["spahgc"])
    code, _, err = run(capsys, "predict", "--target", files[0], *call, "--output", tmp_path / "out.csv")
    assert code == 2 and "must end in .h5ad or .zarr" in err


def test_a_folder_that_is_no_slide_is_no_input(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, err = run(capsys, "evaluate", tmp_path)
    assert code == 2 and "is a folder, and no slide that" in err


# --- SpatialData


@pytest.fixture
def stores(cohort: list[AnnData], tmp_path: Path) -> list[Path]:
    """Two of the slides as SpatialData of two tables with pixels."""
    spatialdata = pytest.importorskip("spatialdata")
    from spatialdata.models import Image2DModel, TableModel

    paths = []
    for place, slide in enumerate(cohort[:2]):
        pixels = np.full((3, 32, 32), place, dtype=np.uint8)
        tables = {"spots": TableModel.parse(slide), "cells": TableModel.parse(slide[:5].copy())}
        sdata = spatialdata.SpatialData(images={"image": Image2DModel.parse(pixels)}, tables=tables)
        paths.append(tmp_path / f"slide{place}-sdata.zarr")
        sdata.write(paths[-1])
    return paths


@pytest.mark.filterwarnings("ignore")
def test_a_spatialdata_comes_out_whole_with_the_prediction_in_its_table(
    capsys: pytest.CaptureFixture[str], stores: list[Path], cohort: list[AnnData], tmp_path: Path
) -> None:
    import spatialdata

    call = ["predict", *references(stores[1:]), "--method", "nearest", "--table-key", "spots"]
    output = tmp_path / "out.zarr"
    assert result_of(capsys, *call, "--target", stores[0], "--output", output)["spots"] == 70
    sp.tl.predict(cohort[0], cohort[1:2], method="nearest")
    for target in (output, stores[0]):
        written = spatialdata.read_zarr(target)
        assert set(written.tables) == {"spots", "cells"} and written["image"].shape == (3, 32, 32)
        assert np.asarray(written["image"]).max() == 0
        np.testing.assert_allclose(written["spots"].layers["spahgc"], cohort[0].layers["spahgc"], rtol=1e-6)
        # The second time over its own input, whose pixels have not been read when it is written.
        assert run(capsys, *call, "--target", stores[0], "--output", stores[0], "--overwrite")[0] == 0
    assert not list(tmp_path.glob(".*.part"))


@pytest.mark.filterwarnings("ignore")
def test_a_spatialdata_is_not_forced_into_a_file_or_a_table(
    capsys: pytest.CaptureFixture[str], stores: list[Path], tmp_path: Path
) -> None:
    call = ["predict", "--target", stores[0], *references(stores[1:]), "--method", "nearest"]
    code, _, err = run(capsys, *call, "--output", tmp_path / "out.h5ad")
    assert code == 2 and "a SpatialData is written as .zarr" in err
    code, _, err = run(capsys, *call, "--output", tmp_path / "out.zarr")
    assert code == 2 and "several tables" in err


@pytest.mark.filterwarnings("ignore")
def test_a_spatialdata_that_cannot_be_written_leaves_the_old_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, stores: list[Path], tmp_path: Path
) -> None:
    import spatialdata

    def broken(self: Any, path: Path, **_: Any) -> None:
        path.mkdir()
        raise OSError("no space left on device")

    before = sorted(path.relative_to(stores[0]) for path in stores[0].rglob("*"))
    monkeypatch.setattr(spatialdata.SpatialData, "write", broken)
    call = ["predict", "--target", stores[0], *references(stores[1:]), "--method", "nearest", "--table-key", "spots"]
    code, _, err = run(capsys, *call, "--output", stores[0], "--overwrite")
    assert code == 2 and "no space left" in err
    assert sorted(path.relative_to(stores[0]) for path in stores[0].rglob("*")) == before
    assert not list(tmp_path.glob(".*.part"))
