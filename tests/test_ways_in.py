"""Whatever a slide came from, the same three calls embed, predict and draw it."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from anndata import AnnData
from torch import nn

import spahgc as sp
from spahgc.encoders import Encoder, EncoderRecord

matplotlib.use("Agg")

RECORD = EncoderRecord("small", "1", 12, 32, 2.0, (0.5,) * 3, (0.2,) * 3, "bicubic", "mean", "fp32", "patch")


def helper(name: str) -> Any:
    """A helper beside this file; pytest's import mode does not put the folder on the path."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


cohort_files, slide_files = helper("cohort_files"), helper("slide_files")


def encoder() -> Encoder:
    """Looks at patches of 64 um, and takes no time."""
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 6, 5, 2), nn.ReLU(), nn.Conv2d(6, 12, 5, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return Encoder(RECORD, nn.Sequential(*layers))


@pytest.fixture(scope="module")
def slides() -> list[AnnData]:
    return sp.datasets.simulated(3, n_patients=3, n_spots=30, n_genes=20, seed=1)


# --- the ways: each makes a target and references


def space_ranger(version: int, cytassist: bool = False) -> Callable[..., tuple[Any, list[Any]]]:
    def way(folder: Path, slides: list[AnnData]) -> tuple[Any, list[Any]]:
        image = slide_files.write_visium(folder / "run", slides[0], version=version, cytassist=cytassist)
        return sp.io.visium(folder / "run", image=image), slides[1:]

    return way


def legacy_st(folder: Path, slides: list[AnnData]) -> tuple[Any, list[Any]]:
    read = []
    for seed in range(3):
        files = [folder / f"S{seed}{end}" for end in (".tsv.gz", "_selection.tsv", ".jpg")]
        cohort_files.write_st(seed, *files)
        read.append(sp.io.st(*files))
    return read[0], read[1:]


def cohort(folder: Path, slides: list[AnnData]) -> tuple[Any, list[Any]]:
    target, *refs = sp.datasets.cscc(
        cohort_files.write_cscc(folder, ("P2_ST_rep1", "P2_ST_rep2", "P5_ST_rep1")),
        sections=["P2_ST_rep1", "P2_ST_rep2", "P5_ST_rep1"],
    )
    return target, refs


def whole_slide_with_spots(folder: Path, slides: list[AnnData]) -> tuple[Any, list[Any]]:
    tifffile.imwrite(folder / "case.tif", slide_files.full_image(slides[0]), photometric="rgb", tile=(256, 256))
    spots = pd.DataFrame(slides[0].obsm["spatial"], columns=["x", "y"], index=slides[0].obs_names)
    return sp.io.slide(folder / "case.tif", spots=spots, mpp=slide_files.MPP), slides[1:]


def spatialdata_from_disk(folder: Path, slides: list[AnnData]) -> tuple[Any, list[Any]]:
    """Circles in units of their own, which a transformation brings to the image; the table has no places."""
    sd = pytest.importorskip("spatialdata")
    geopandas = pytest.importorskip("geopandas")
    from spatialdata.models import Image2DModel, ShapesModel, TableModel
    from spatialdata.transformations import Identity, Scale

    places, factor = np.asarray(slides[0].obsm["spatial"]), 4.0
    frame = geopandas.GeoDataFrame({"geometry": geopandas.points_from_xy(*places.T / factor), "radius": 8.0})
    shapes = ShapesModel.parse(frame, transformations={"global": Scale([factor, factor], axes=("x", "y"))})
    image = Image2DModel.parse(
        slide_files.full_image(slides[0]),
        dims=("y", "x", "c"),
        scale_factors=[2],
        transformations={"global": Identity()},
    )
    table = AnnData(slides[0].X.copy(), obs=pd.DataFrame(index=slides[0].obs_names), var=slides[0].var[[]].copy())
    table.obs["region"] = pd.Categorical(["spots"] * table.n_obs)
    table.obs["instance"] = np.arange(table.n_obs)
    table.uns["spahgc"] = {"slide_mpp": slide_files.MPP}
    table = TableModel.parse(table, region="spots", region_key="region", instance_key="instance")
    sdata = sd.SpatialData(images={"he": image}, shapes={"spots": shapes}, tables={"table": table})
    sdata.write(folder / "slide.zarr")
    return sd.read_zarr(folder / "slide.zarr"), slides[1:]


def spatialdata_of_space_ranger(folder: Path, slides: list[AnnData]) -> tuple[Any, list[Any]]:
    spatialdata_io = pytest.importorskip("spatialdata_io")
    image = slide_files.write_visium(folder / "run", slides[0], version=2)
    return spatialdata_io.visium(folder / "run" / "outs", dataset_id="run", fullres_image_file=image), slides[1:]


WAYS = {
    "Space Ranger 1": space_ranger(1),
    "Space Ranger 2, CytAssist": space_ranger(2, cytassist=True),
    "Space Ranger 3": space_ranger(3),
    "legacy ST": legacy_st,
    "a cohort": cohort,
    "whole slide, spots of one's own": whole_slide_with_spots,
    "SpatialData, from disk": spatialdata_from_disk,
    "SpatialData, made by spatialdata-io": spatialdata_of_space_ranger,
}


@pytest.mark.filterwarnings("ignore::UserWarning:spatialdata")
@pytest.mark.parametrize("way", WAYS)
def test_the_same_calls_embed_predict_and_draw_a_slide(tmp_path: Path, slides, quick: sp.Parameters, way: str) -> None:
    from matplotlib import pyplot as plt

    target, refs = WAYS[way](tmp_path, [slide.copy() for slide in slides])
    genes = list(refs[0].var_names[:4])

    sp.pp.embed([target, *refs], encoder=encoder(), device="cpu")
    sp.tl.predict(target, refs, genes=genes, preset=quick, device="cpu")
    axes = sp.pl.spatial_genes(target, genes[:1], show=False, save=tmp_path / "genes.png")

    table = target if isinstance(target, AnnData) else target["table"]
    predicted = table[:, genes].layers["spahgc"]
    assert predicted.shape == (table.n_obs, 4) and table.n_obs >= 30
    assert np.isfinite(predicted).all() and np.ptp(predicted, axis=0).min() > 0
    assert not table.obs["spahgc_patch_padded"].all(), "every patch reaches past the image"
    assert len(axes) >= 1 and (tmp_path / "genes.png").stat().st_size > 10_000
    plt.close("all")


@pytest.mark.parametrize("way", ["Space Ranger 1", "whole slide, spots of one's own", "SpatialData, from disk"])
def test_a_slide_has_the_same_embedding_whatever_it_came_from(tmp_path: Path, slides, way: str) -> None:
    """The same pixels at the same places: only positions that were rounded in a file may differ by a pixel."""
    expected = slides[0].copy()
    sp.pp.embed(expected, encoder=encoder(), device="cpu")
    target, _ = WAYS[way](tmp_path, [slide.copy() for slide in slides])
    sp.pp.embed(target, encoder=encoder(), device="cpu")
    table = target if isinstance(target, AnnData) else target["table"]
    near = np.linalg.norm(expected.obsm["spatial"][:, None] - table.obsm["spatial"][None], axis=2)
    found = table.obsm["X_small"][near.argmin(axis=1)]
    assert near.min(axis=1).max() < 1, "spots lie elsewhere"
    spread = expected.obsm["X_small"].std(axis=0).mean()
    assert np.abs(found - expected.obsm["X_small"]).mean() < 0.1 * spread
