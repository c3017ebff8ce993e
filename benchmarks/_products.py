"""The floor of a network on a graph: the matrix products of its linear maps, and nothing else. Needs torch alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch


class Product(NamedTuple):
    """A product of two matrices, rows x inner and inner x columns."""

    rows: int
    inner: int
    columns: int

    @property
    def flop(self) -> int:
        return 2 * self.rows * self.inner * self.columns


def linear_products(network: torch.nn.Module, run: Callable[[], Any]) -> list[Product]:
    """Products of all linear maps of a network while something runs: the outputs, and of each output whose gradient is
    asked for the derivatives of the weights, and of the inputs if they have one."""
    products: list[Product] = []

    def listen(linear: torch.nn.Linear, inputs: tuple[torch.Tensor], _: torch.Tensor) -> None:
        rows, wide, narrow = inputs[0].shape[0], linear.in_features, linear.out_features
        products.append(Product(rows, wide, narrow))
        if torch.is_grad_enabled():
            products.append(Product(narrow, rows, wide))
            if inputs[0].requires_grad:
                products.append(Product(rows, narrow, wide))

    hooks = [p.register_forward_hook(listen) for p in network.modules() if isinstance(p, torch.nn.Linear)]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return products


def bare_products(
    products: Sequence[Product], device: str = "cpu", dtype: torch.dtype = torch.float32
) -> Callable[[], None]:
    """What runs all of them once, on random matrices of these shapes."""
    matrices: dict[tuple[int, int], torch.Tensor] = {}

    def matrix(*shape: int) -> torch.Tensor:  # a product of the same shape may find its matrices in the cache
        if shape not in matrices:
            matrices[shape] = torch.randn(shape, device=device).to(dtype)
        return matrices[shape]

    pairs = [(matrix(p.rows, p.inner), matrix(p.inner, p.columns)) for p in products]

    def run() -> None:
        for left, right in pairs:
            torch.mm(left, right)

    return run
