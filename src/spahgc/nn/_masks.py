"""Complementary masks: what one view hides, the other shows."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from torch import Tensor

    from spahgc.nn._graph import HeteroGraph


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
    kept = torch.from_numpy(rng.random(like.shape, dtype=np.float32) >= hidden).to(like)
    return kept, 1 - kept


def masked_views(
    graph: HeteroGraph, target_hidden: float, reference_hidden: float, rng: np.random.Generator
) -> tuple[HeteroGraph, HeteroGraph]:
    """Two views of one graph: same edges, complementary entries of image features and expression."""
    target = complementary_masks(graph.target, target_hidden, rng)
    reference = complementary_masks(graph.reference, reference_hidden, rng)
    expression = complementary_masks(graph.expression, reference_hidden, rng)
    view_1, view_2 = (
        replace(graph, target=graph.target * t, reference=graph.reference * r, expression=graph.expression * e)
        for t, r, e in zip(target, reference, expression, strict=True)
    )
    return view_1, view_2


def expected_view(graph: HeteroGraph, target_hidden: float, reference_hidden: float) -> HeteroGraph:
    """View 1 as it is on average over all masks: every entry times the probability that it is kept.

    The network learned to predict from view 1. Its expectation is to it what unmasked features are to a network
    trained with dropout: nothing is hidden, nothing is random, and sums keep the size that the weights know.
    """
    return replace(
        graph,
        target=expected(graph.target, target_hidden),
        reference=expected(graph.reference, reference_hidden),
        expression=expected(graph.expression, reference_hidden),
    )


def expected(features: Tensor, hidden: float) -> Tensor:
    """Mean of some features over all masks that hide an entry with this probability."""
    return features * (1 - hidden)
