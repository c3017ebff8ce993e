"""Dropout that draws from a generator of one's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor


class Dropout(nn.Module):
    """Dropout whose masks come from a generator that it is given; torch's own knows that of the process alone.

    Parameters
    ----------
    p
        Share of the numbers that is hidden in training.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.generator: torch.Generator | None = None
        """Where the masks come from; ``None`` is the generator of the process."""

    def forward(self, x: Tensor) -> Tensor:
        """The numbers that are not hidden, scaled up; all of them after training."""
        if not self.training or not self.p:
            return x
        return x * torch.empty_like(x).bernoulli_(1 - self.p, generator=self.generator).div_(1 - self.p)
