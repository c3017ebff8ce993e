"""Slides that seem predicted, and what can be read off a figure of them."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
from matplotlib.text import Text

import spahgc as sp

PIXEL = 1.0


def predicted_slides() -> list[ad.AnnData]:
    """Three slides with all that a prediction writes; each further one is predicted higher."""
    slides = sp.datasets.simulated(n_slides=3, n_patients=3, n_spots=50, n_genes=20, seed=0)
    for number, slide in enumerate(slides):
        rng = np.random.default_rng(number)
        predicted = slide.layers["truth"] + rng.normal(0, 0.3, slide.shape) + number
        slide.layers["spahgc"] = predicted.astype(np.float32)
        slide.layers["spahgc_std"] = rng.uniform(0.2, 0.4 + number, slide.shape).astype(np.float32)
        slide.var["spahgc_panel"] = True
        slide.obs["spahgc_support"] = np.linspace(0.01, 0.9, slide.n_obs)
        slide.obs["spahgc_domain"] = pd.Categorical([str(place % 3) for place in range(slide.n_obs)])
    return slides


def spots(ax):
    """The circles of the spots."""
    return ax.collections[0]


def values(ax) -> np.ndarray:
    """What their colours stand for."""
    return spots(ax).get_array().filled(np.nan)


def bars(axes: list) -> list:
    """The colour bars beside some panels."""
    return [ax for ax in axes[0].figure.axes if ax not in axes]


def words(ax) -> list[str]:
    """Everything that is written on or beside a panel, without its title."""
    return [text.get_text() for text in ax.findobj(Text) if text.get_text() and text is not ax.title]


def name_of(slide: ad.AnnData) -> str:
    """Name of a slide."""
    return str(slide.obs["slide"].iloc[0])


def assert_nothing_overlaps(figure) -> None:
    """All axes with their texts lie within the figure and apart from each other."""
    figure.canvas.draw()
    boxes = [ax.get_tightbbox() for ax in figure.axes]
    for index, box in enumerate(boxes):
        assert figure.bbox.x0 - PIXEL <= box.x0 and box.x1 <= figure.bbox.x1 + PIXEL
        assert figure.bbox.y0 - PIXEL <= box.y0 and box.y1 <= figure.bbox.y1 + PIXEL
        assert not any(box.overlaps(other) for other in boxes[index + 1 :])


def part_of(slide: ad.AnnData) -> tuple[float, float, float, float]:
    """The left half, in full-resolution pixels."""
    x, y = slide.obsm["spatial"].T
    return float(x.min()) - 30, float(np.median(x)), float(y.min()) - 40, float(y.max()) + 50
