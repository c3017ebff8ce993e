"""Small slides, an encoder and a model, made once; whoever changes a slide takes a copy."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

import anndata as ad
import numpy as np
import torch
from anndata import AnnData
from torch import nn

import spahgc as sp
from spahgc._training import perceptron
from spahgc.encoders import Encoder, EncoderRecord

EMBEDDING = "X_sim"
N_SPOTS, N_GENES, SIDE_PX = 36, 24, 256
PRESET = sp.Parameters.preset("default", width=16, layers=2, heads=2, epochs=2)
"""The default with a network that trains in no time."""
perceptron.SETTINGS = replace(perceptron.SETTINGS, epochs=2)  # and so do the perceptrons beside it
RECORD = EncoderRecord("small", "1", 8, 32, None, (0.5,) * 3, (0.2,) * 3, "bicubic", "mean", "fp32", "patch")


@functools.cache
def simulated() -> tuple[AnnData, ...]:
    """Four simulated slides of two patients, with pixels as the simulation draws them."""
    return tuple(sp.datasets.simulated(n_slides=4, n_patients=2, n_spots=N_SPOTS, n_genes=N_GENES, n_domains=3, seed=3))


@functools.cache
def _embedded() -> tuple[AnnData, ...]:
    slides = []
    for number, slide in enumerate(simulated()):
        slide = slide.copy()
        rng = np.random.default_rng(number)
        (library,) = slide.uns["spatial"]
        pixels = rng.integers(0, 256, (SIDE_PX // 8, SIDE_PX // 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
        scales = {"tissue_hires_scalef": 1.0, "spot_diameter_fullres": 12.0}
        slide.uns["spatial"] = {library: {"images": {"hires": pixels}, "scalefactors": scales}}
        xy = slide.obsm["spatial"]
        slide.obsm["spatial"] = 10 + (xy - xy.min(axis=0)) / np.ptp(xy, axis=0).max() * (SIDE_PX - 20)
        domains = np.asarray(slide.obsm["truth_domains"])
        mixing = np.random.default_rng(0).normal(size=(domains.shape[1], 12))
        slide.obsm[EMBEDDING] = (domains @ mixing + rng.normal(scale=0.3, size=(len(domains), 12)) + 1).astype("f4")
        sp.pp.use_embedding(slide, EMBEDDING, record={"name": "sim"})
        slides.append(slide)
    return tuple(slides)


def embedded(n: int = 4) -> list[AnnData]:
    """Copies of the first few slides, with an embedding that knows the tissue, and with few pixels."""
    return [slide.copy() for slide in _embedded()[:n]]


class _Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Conv2d(3, 8, 5, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


@functools.cache
def encoder() -> Encoder:
    """A network of one layer."""
    return Encoder(RECORD, _Small().eval())


@functools.cache
def model(seed: int = 0) -> sp.SpaHGC:
    """A model of the last two slides."""
    return sp.tl.fit(embedded()[2:], preset=PRESET, seed=seed, embedding=EMBEDDING, device="cpu")


def write_slides(folder: Path, n: int = 2) -> list[Path]:
    """The first few slides as files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for slide in embedded(n):
        paths.append(folder / f"{slide.obs['slide'].iloc[0]}.h5ad")
        slide.write_h5ad(paths[-1])
    return paths


def read_store(path: Path) -> AnnData:
    """A slide that was written as zarr."""
    return ad.read_zarr(path)


def quiet() -> None:
    """One thread, no progress bars, no warnings: a child that was forked from a parent with more of them may hang."""
    import warnings

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    sp.settings.progress = False
    sp.settings.device = "cpu"
