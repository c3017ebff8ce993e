"""The Python of the how-to pages runs as it is printed, on small simulated slides in the place of the reader's own."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import tifffile
from anndata import AnnData

import spahgc as sp
from spahgc._parameters import PRESETS
from spahgc.encoders._cards import CARDS

mpl.use("Agg")

FOLDER = Path(__file__).parents[1] / "docs" / "howto"
BLOCK = re.compile(r"(?:^<!-- not run: (.+?) -->\n)?^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
RUN_ELSEWHERE = {"index.md", "shell.md", "report.md"}
"""Without Python, or run by the tests of the report."""
GENES = ("ERBB2", "CD74")
"""The genes that the pages name."""
ENCODER_KEY = "X_efficientnet_lite0"


def _slide_files() -> Any:
    """The helper beside this file; pytest's import mode does not put the folder on the path."""
    spec = importlib.util.spec_from_file_location("slide_files", Path(__file__).with_name("slide_files.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules["slide_files"] = module
    spec.loader.exec_module(module)
    return module


files = _slide_files()


def run(page: str, *, n_blocks: int | None = None, **given: Any) -> dict[str, Any]:
    """The names of a page after its blocks, or the first of them, have run one after the other."""
    names: dict[str, Any] = {"sp": sp, **given}
    for reason, code in BLOCK.findall((FOLDER / page).read_text(encoding="utf-8"))[:n_blocks]:
        if not reason:
            exec(compile(code, page, "exec"), names)
    return names


@pytest.fixture(scope="module")
def _slides() -> list[AnnData]:
    slides = sp.datasets.simulated(3, n_patients=3, n_spots=20, n_genes=20, n_domains=2, seed=1)
    for slide in slides:
        slide.var_names = [*GENES, *slide.var_names[len(GENES) :]]
    return slides


@pytest.fixture
def slides(
    _slides: list[AnnData], tmp_path: Path, quick_default: sp.Parameters, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[AnnData]]:
    """A target and two references; the working folder is an empty one, and the default trains for three epochs."""
    from matplotlib import pyplot as plt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sp.settings, "device", "cpu")
    monkeypatch.setitem(PRESETS, "default", quick_default)
    yield [slide.copy() for slide in _slides]
    plt.close("all")


def check(predicted: AnnData, key: str = "spahgc") -> None:
    """A prediction is there, finite inside its panel, and differs from spot to spot."""
    values = predicted.layers[key][:, predicted.var[f"{key}_panel"]]
    assert values.shape[1] > 0 and np.isfinite(values).all() and np.ptp(values, axis=0).max() > 0


def test_every_page_is_run_or_says_what_it_needs() -> None:
    for page in FOLDER.glob("*.md"):
        if page.name in RUN_ELSEWHERE:
            continue
        text = page.read_text(encoding="utf-8")
        blocks = BLOCK.findall(text)
        assert len(blocks) == text.count("\n```python\n"), page.name
        assert any(not reason for reason, _ in blocks), f"{page.name}: nothing of it runs"
        assert f'"{page.name}"' in Path(__file__).read_text(encoding="utf-8"), f"{page.name}: no test runs it"


def test_a_visium_run_is_predicted(slides: list[AnnData]) -> None:
    for name, slide in zip(["target", "ref_1", "ref_2"], slides, strict=True):
        files.write_visium(Path(name), slide)
    names = run("visium.md")
    check(names["target"])
    check(names["target"], "again")
    np.testing.assert_allclose(names["target"].layers["again"], names["target"].layers["spahgc"], atol=1e-5)
    assert set(names["scores"].index) >= set(GENES)
    assert Path("genes.png").stat().st_size > 0 and Path("predicted.h5ad").exists()


def test_sections_are_laid_over_each_other() -> None:
    target, *refs = sp.datasets.simulated(3, n_patients=3, n_spots=100, n_genes=20)
    with pytest.warns(UserWarning, match="2 of 2 references are not used"):
        run("serial_sections.md", target=target, refs=refs)
    assert target.uns["spahgc"]["registration"]["references"] == ["P2S1", "P3S1"]


def test_cells_are_added_up_and_labelled(slides: list[AnnData]) -> None:
    pytest.importorskip("decoupler")
    (cells,) = sp.datasets.simulated(1, n_patients=1, n_spots=24, n_genes=20, cells=True)
    cells = cells[:: cells.n_obs // 90].copy()
    cells.var_names = [
        *("ERBB2", "KRT8", "EPCAM", "KRT18", "MUC1", "CD3E", "CD2", "CD8A", "IL7R", "CD4", "CD74"), *cells.var_names[11:]
    ]  # fmt: skip
    target, *refs = slides
    for slide in slides:
        slide.obs["cell_type"] = slide.obs["domain"]
        sp.pp.embed(slide, encoder="efficientnet_lite0", context=False)
    del target.obs["cell_type"]
    names = run("cells.md", cells=cells, target=target, refs=refs)
    assert names["tiles"].X.sum() == cells.X.sum() > names["spots"].X.sum()
    assert target.obs["spahgc_cell_type"].notna().all()
    assert list(cells.obsm["measured_cell_types"]) == ["tumour", "T cell"]
    check(cells[~cells.obs["was_measured"]])
    assert Path("cells.html").exists()


def test_target_and_references_are_compared(slides: list[AnnData]) -> None:
    target, *refs = slides
    sp.pp.embed(slides, encoder="efficientnet_lite0")
    names = run("other_look.md", target=target, refs=refs)
    assert list(names["table"].index)[-1] == "all references" and names["why"]["chosen"].all()
    check(target)


def test_a_plain_slide_is_predicted(slides: list[AnnData]) -> None:
    target, *refs = slides
    tifffile.imwrite(
        "case.svs", files.full_image(target), photometric="rgb", tile=(256, 256), resolutionunit="CENTIMETER",
        resolution=(1e4 / files.MPP, 1e4 / files.MPP),
    )  # fmt: skip
    table = pd.DataFrame(target.obsm["spatial"], columns=["x", "y"])
    tiled = run("plain_slide.md", refs=refs, table=table)
    assert tiled["target"].n_obs == len(table), "the last block reads the spots of the table"
    assert tiled["target"].n_vars == 0


def test_the_rest_of_a_slide_is_predicted(
    quick_default: sp.Parameters, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sp.settings, "device", "cpu")
    monkeypatch.setitem(PRESETS, "default", quick_default)
    target, *refs = sp.datasets.simulated(2, n_patients=2, n_spots=60, n_genes=20, n_domains=2, seed=1)
    for slide in (target, *refs):
        slide.var_names = [*GENES, *slide.var_names[len(GENES) :]]
    names = run("measured_in_part.md", target=target, refs=refs)
    measured = target.obs["was_measured"].to_numpy()
    check(target[~measured])
    assert np.isnan(target.layers["spahgc"][measured]).all()
    assert names["scores"].attrs["n_spots_reference"] == measured.sum() >= 20


def test_a_spatialdata_is_predicted(slides: list[AnnData]) -> None:
    sd = pytest.importorskip("spatialdata")
    from geopandas import GeoDataFrame, points_from_xy
    from spatialdata.models import Image2DModel, ShapesModel, TableModel

    for name, slide in zip(["target", "ref_1", "ref_2"], slides, strict=True):
        shapes = ShapesModel.parse(GeoDataFrame({"geometry": points_from_xy(*slide.obsm["spatial"].T), "radius": 30.0}))
        table = AnnData(slide.X, obs=slide.obs[["slide"]].copy(), var=slide.var[[]].copy())
        table.obs["region"] = pd.Categorical(["spots"] * table.n_obs)
        table.obs["instance"] = np.arange(table.n_obs)
        table = TableModel.parse(table, region="spots", region_key="region", instance_key="instance")
        image = Image2DModel.parse(files.full_image(slide), dims=("y", "x", "c"))
        sd.SpatialData(images={"he": image}, shapes={"spots": shapes}, tables={"table": table}).write(f"{name}.zarr")
    names = run("spatialdata.md")
    check(names["target"].tables["table"])
    assert "spahgc" in sd.read_zarr("target.zarr").tables["table"].layers, "the table was not written back"


@pytest.fixture
def _no_registration_stays() -> Iterator[None]:
    before = dict(CARDS)
    yield
    CARDS.clear()
    CARDS.update(before)


@pytest.mark.usefixtures("_no_registration_stays")
def test_an_own_encoder_embeds(slides: list[AnnData]) -> None:
    target, *refs = slides
    run("own_encoder.md", target=target, refs=refs)
    check(target)
    assert target.uns["spahgc"]["embeddings"]["X_theirs"]["name"] == "theirs"
    assert target.uns["spahgc"]["predictions"]["spahgc"]["embedding"] == "X_theirs"
    assert target.uns["spahgc"]["patch_um"]["X_mine"] == pytest.approx(64)


def test_many_slides_are_embedded_and_predicted(slides: list[AnnData]) -> None:
    Path("slides").mkdir()
    for name, slide in zip(["target", "ref_1", "ref_2"], slides, strict=True):
        slide.write_h5ad(f"slides/{name}.h5ad")
    import anndata as ad

    names = run("cluster.md")
    predicted = ad.read_zarr("predicted/target.zarr")
    check(predicted)
    assert ENCODER_KEY in predicted.obsm
    assert list(names["table"]["status"]) == ["written"]


def test_what_comes_after_a_prediction(
    target: AnnData, refs: list[AnnData], quick_default: sp.Parameters, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The block with this package's own functions; that with scanpy and squidpy is run in test_interop.py."""
    pytest.importorskip("decoupler")
    monkeypatch.chdir(tmp_path)
    sp.tl.predict(target, refs, preset=quick_default)
    genes = list(target.var_names[target.var["spahgc_panel"]])
    lines = ["\t".join([f"PATHWAY_{start}", "-", *genes[start : start + 8]]) for start in (0, 8)]
    Path("hallmark.gmt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    run("onwards.md", n_blocks=1, target=target)
    assert target.obs["spahgc_domain"].nunique() == 4
    assert target.obsm["spahgc_enrichment"].shape == (target.n_obs, 2)


def test_the_encoders_that_ask_for_nothing_are_listed() -> None:
    free = run("gated_weights.md")["free"]
    assert "efficientnet_lite0" in set(free["name"]) and "uni" not in set(free["name"])


def test_own_methods_are_scored(slides: list[AnnData]) -> None:
    result = run("benchmark_my_method.md")["result"]
    assert list(result.summary.index) == ["trees", "hest"]
    assert result.record["group_by"] == "splits" and result.summary["pearson"].notna().all()
