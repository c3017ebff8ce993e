"""Patches that several threads cut: the same numbers, the same errors, whatever the number of threads."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import tifffile
from PIL import Image
from torch import nn

import spahgc as sp
from spahgc._validate import embedding_matrix
from spahgc.encoders import Encoder, EncoderRecord
from spahgc.pp import Context
from spahgc.pp._embed import patches
from spahgc.pp._embed.patches import PATCHES_PER_TASK, default_workers

KEY = "X_pixels"
SIDE = 16
RECORD = EncoderRecord(
    "pixels", "1", 3 * SIDE**2, SIDE, None, (0.0,) * 3, (1.0,) * 3, "bicubic", "mean", "fp32", "patch"
)


class Pixels(nn.Module):
    """Shows the pixels themselves, so that one that differs is seen."""

    def forward(self, x):
        return x.flatten(1)


ENCODER = Encoder(RECORD, Pixels())


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    (slide,) = sp.datasets.simulated(1, n_patients=1, n_spots=60, n_genes=12)
    return np.ascontiguousarray(next(iter(slide.uns["spatial"].values()))["images"]["hires"])


def spots(pixels: np.ndarray, n: int = 90) -> ad.AnnData:
    height, width = pixels.shape[:2]
    xy = np.random.default_rng(0).uniform(0, [width, height], (n, 2))
    return ad.AnnData(np.zeros((n, 0), np.float32), obsm={"spatial": xy})


def embed(adata: ad.AnnData, image, **options) -> np.ndarray:
    options = {"context": Context(scales=(1, 2.5), depths=0, rotations=1), "batch_size": 40, "device": "cpu"} | options
    sp.pp.embed(adata, encoder=ENCODER, image=image, **options)
    return embedding_matrix(adata, KEY, "the slide")


def image_of(kind: str, pixels: np.ndarray, folder: Path):
    path = folder / f"slide.{kind}"
    if kind == "png":
        Image.fromarray(pixels).save(path)
    elif kind == "tiled.tif":
        tifffile.imwrite(path, pixels, tile=(32, 32), compression="jpeg", photometric="rgb")
    elif kind == "planes.tif":  # read through zarr
        tifffile.imwrite(path, np.moveaxis(pixels, -1, 0), tile=(32, 32), planarconfig="separate", photometric="rgb")
    elif kind == "pyramid.tif":
        with tifffile.TiffWriter(path) as file:
            file.write(pixels, subifds=1, tile=(32, 32), photometric="rgb")
            file.write(pixels[::2, ::2], subfiletype=1, tile=(32, 32), photometric="rgb")
    elif kind == "dask":
        import dask.array

        return dask.array.from_array(pixels, chunks=(50, 70, 3))
    else:
        return pixels
    return path


@pytest.mark.parametrize("kind", ["array", "dask", "png", "tiled.tif", "planes.tif", "pyramid.tif"])
def test_any_number_of_workers_gives_the_same_bits(pixels, tmp_path, kind):
    image = image_of(kind, pixels, tmp_path)
    one, several = spots(pixels), spots(pixels)
    expected = embed(one, image, n_workers=1)
    assert np.ptp(expected) > 0 and one.obs["spahgc_context_padded"].any()
    np.testing.assert_array_equal(embed(several, image, n_workers=4), expected)
    assert several.obs.equals(one.obs)


@pytest.mark.parametrize("stain", ["macenko", "reinhard"])
def test_stains_are_normalised_alike_by_any_number_of_workers(pixels, stain):
    one, several = (
        embed(spots(pixels), pixels, stain_normalization=stain, n_workers=n_workers) for n_workers in (1, 4)
    )
    np.testing.assert_array_equal(one, several)


def test_several_threads_share_a_batch(pixels):
    class Meeting:
        """An image whose first two readers wait for each other."""

        height, width, mpp = 100, 100, None

        def __init__(self) -> None:
            self.barrier = threading.Barrier(2, timeout=60)
            self.met = threading.Event()

        def read(self, left, top, width, height):
            if not self.met.is_set():
                self.barrier.wait()
                self.met.set()
            return np.full((height, width, 3), 200, np.uint8)

        def close(self): ...
        def __enter__(self): ...
        def __exit__(self, *_): ...

    adata = spots(np.zeros((100, 100, 3), np.uint8), 2 * PATCHES_PER_TASK)
    embed(adata, Meeting(), n_workers=2, batch_size=2 * PATCHES_PER_TASK, context=False)
    assert KEY in adata.obsm


def test_of_several_errors_that_of_the_first_spot_arrives(pixels):
    class Broken:
        """An image whose left column fails late, and whose right column fails at once."""

        height, width, mpp = 100, 200, None

        def read(self, left, top, width, height):
            if left < 100:
                time.sleep(0.2)
                raise OSError("the left is broken")
            raise OSError("the right is broken")

        def close(self): ...
        def __enter__(self): ...
        def __exit__(self, *_): ...

    adata = spots(np.zeros((100, 200, 3), np.uint8), 4 * PATCHES_PER_TASK)
    adata.obsm["spatial"] = np.where(np.arange(adata.n_obs)[:, None] < PATCHES_PER_TASK, [50.0, 50.0], [150.0, 50.0])
    with pytest.raises(OSError, match="the left"):
        embed(adata, Broken(), n_workers=4, context=False)
    assert KEY not in adata.obsm


def test_a_function_of_the_users_gets_one_patch_at_a_time(pixels):
    busy = threading.Lock()

    def fade(patch):
        assert busy.acquire(blocking=False), "two patches at once"
        time.sleep(0.001)
        busy.release()
        return patch // 2 + 127

    embed(spots(pixels), pixels, stain_normalization=fade, n_workers=4)


def test_workers_are_the_processors_that_the_encoder_leaves(monkeypatch):
    monkeypatch.setattr(patches, "available_cpus", lambda: 6)
    monkeypatch.setattr(sp.settings, "n_threads", 2)
    assert (default_workers("cpu"), default_workers("cuda")) == (4, 6)
    monkeypatch.setattr(sp.settings, "n_threads", 6)
    assert default_workers("cpu") == 1
    monkeypatch.setattr(patches, "available_cpus", lambda: 200)
    assert default_workers("cuda") == patches.MAX_DEFAULT_WORKERS


@pytest.mark.parametrize("n_workers", [0, -1, 1.5, True])
def test_a_number_of_workers_that_is_none_is_refused(pixels, n_workers):
    with pytest.raises(ValueError, match="n_workers is .* at least 1"):
        embed(spots(pixels), pixels, n_workers=n_workers)


def test_slides_embedded_by_one_worker_are_kept_when_several_are_asked_for(pixels, tmp_path):
    adata = spots(pixels)
    adata.uns["spatial"] = {"S": {"images": {"hires": pixels}, "scalefactors": {"tissue_hires_scalef": 1.0}}}
    adata.write_h5ad(tmp_path / "S.h5ad")
    statuses = [
        sp.pp.embed_many(
            [tmp_path / "S.h5ad"],
            tmp_path / "embedded",
            encoder=ENCODER,
            context=False,
            n_workers=n_workers,
            device="cpu",
        )["status"].item()
        for n_workers in (1, 3)
    ]
    assert statuses == ["written", "kept"]
