"""Networks whose maps can be computed by hand: what a cell of the map shows is the mean colour of its part of the patch."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import torch
from torch import nn

from spahgc.encoders import Encoder, EncoderRecord

SIDE = 32
CELLS = 8
NAME = "maps"
KEY = f"X_{NAME}"
MPP = 4.0
"""Microns per pixel of the slides: wide patches stay small."""


class Maps(nn.Module):
    """Mean colours of 8 x 8 cells, averaged; two levels, of 16 x 16 and 8 x 8 cells. It counts the patches that it is given."""

    def __init__(self, kept_as: str = "channels first") -> None:
        super().__init__()
        self.kept_as, self.n_patches = kept_as, 0
        self.num_prefix_tokens = 2 if kept_as == "tokens" else 0

    def forward(self, x):
        return self.forward_head(self.forward_intermediates(x)[0])

    def forward_intermediates(self, x, indices=None):
        self.n_patches += len(x)
        levels = [nn.functional.adaptive_avg_pool2d(x, cells) for cells in (2 * CELLS, CELLS)]
        last = levels[-1]
        if self.kept_as == "tokens":
            tokens = last.flatten(2).transpose(1, 2)
            last = torch.cat([torch.full_like(tokens[:, :2], 9.0), tokens], dim=1)
        elif self.kept_as == "channels last":
            last = last.permute(0, 2, 3, 1)
        elif self.kept_as == "flat":
            last = last.flatten(1)
        return last, levels if indices is None else [levels[index] for index in indices]

    def forward_head(self, features):
        if self.kept_as == "tokens":
            return features[:, self.num_prefix_tokens :].mean(1)
        if self.kept_as == "flat":
            return features.unflatten(1, (3, -1)).mean(2)
        return features.mean((1, 2)) if self.kept_as == "channels last" else features.mean((2, 3))


def record(name: str = NAME, mpp: float | None = None, context: str = "patch", side: int = SIDE) -> EncoderRecord:
    return EncoderRecord(name, "1", 3, side, mpp, (0.0,) * 3, (1.0,) * 3, "area", "mean", "fp32", context)


def maps(kept_as: str = "channels first", **fields) -> Encoder:
    return Encoder(record(**fields), Maps(kept_as))


def ramp(height: int = 400, width: int = 600) -> np.ndarray:
    """Red says where a pixel lies across, green where it lies down."""
    pixels = np.empty((height, width, 3))
    pixels[..., 0] = 30 + 200 * (np.arange(width) + 0.5) / width
    pixels[..., 1] = 30 + 200 * ((np.arange(height) + 0.5) / height)[:, None]
    pixels[..., 2] = 150
    return pixels.round().astype(np.uint8)


def colour_at(xy: np.ndarray, height: int = 400, width: int = 600) -> np.ndarray:
    """What the ramp shows at places, as the network sees it."""
    x, y = np.asarray(xy, dtype=float).T
    return np.column_stack([30 + 200 * x / width, 30 + 200 * y / height, np.full(len(x), 150.0)]) / 255


def points(xy, diameter_px: float | None = 4.0, mpp: float = MPP, name: str = "S") -> ad.AnnData:
    """A slide of points without an image."""
    xy = np.asarray(xy, dtype=float)
    factors = {} if diameter_px is None else {"spot_diameter_fullres": diameter_px}
    return ad.AnnData(
        np.zeros((len(xy), 0), np.float32),
        obs=pd.DataFrame({"slide": name}, index=[f"p{i}" for i in range(len(xy))]),
        obsm={"spatial": xy},
        uns={"spatial": {name: {"images": {}, "scalefactors": factors}}, "spahgc": {"slide_mpp": mpp}},
    )


def grid(spacing: float, left: float = 100, top: float = 100, columns: int = 20, rows: int = 20) -> np.ndarray:
    """A square grid of points."""
    x, y = np.meshgrid(left + spacing * np.arange(columns), top + spacing * np.arange(rows))
    return np.column_stack([x.ravel(), y.ravel()])
