"""Complementary masks: what one view hides, the other shows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from torch import Tensor

    from spahgc.nn._edges import HeteroGraph


def complementary_masks(like: Tensor, hidden: float, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Draw two masks of zeros and ones with ``mask_1 + mask_2 == 1`` everywhere.

    Parameters
    ----------
    like
        Features to be masked; the masks take its shape, dtype and device.
    hidden
        Probability, 0 to 1, that an entry is hidden in view 1 (and so is kept in view 2).
    rng
        Source of randomness: NumPy's, so that a seed draws the same masks on every device (and three times as fast as
        torch draws them on a CPU).

    Returns
    -------
    The masks of view 1 and of view 2.
    """
    shown = torch.from_numpy(rng.random(like.shape, dtype=np.float32) >= hidden).to(like)
    return shown, 1 - shown


def masked_views(
    graph: HeteroGraph, target_hidden: float, reference_hidden: float, rng: np.random.Generator
) -> Iterator[HeteroGraph]:
    """Two views of one graph, one after the other: same edges, complementary entries of image features and expression.

    All masks are drawn with the first view; the second is made only where it is asked for.
    """
    shares = {"target": target_hidden, "reference": reference_hidden, "expression": reference_hidden}
    masks = {name: complementary_masks(getattr(graph, name), hidden, rng) for name, hidden in shares.items()}
    for view in range(2):
        yield replace(graph, **{name: getattr(graph, name) * both[view] for name, both in masks.items()})


def expected_view(graph: HeteroGraph, target_hidden: float, reference_hidden: float) -> HeteroGraph:
    """View 1 as it is on average over all masks: every entry times the probability that it is kept.

    The network learned to predict from view 1. Its expectation is to it what unmasked features are to a network
    trained with dropout: nothing is hidden, nothing is random, and sums keep the size that the weights know.
    """
    hidden = {"target": target_hidden, "reference": reference_hidden, "expression": reference_hidden}
    return replace(graph, hidden=hidden)
