"""Random numbers of torch from a generator of the caller's own, also where a library draws from the process's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

FILLS = ("uniform_", "normal_", "bernoulli_", "random_", "exponential_", "geometric_", "log_normal_", "cauchy_")
"""Methods that fill a tensor with random numbers."""
DRAWS = ("rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial")
"""Functions that return random numbers."""
INITIALISERS = ("uniform_", "normal_", "kaiming_uniform_")
"""Functions of ``torch.nn.init`` that a mode sees as a whole; it sees the others by what they call."""

_DRAWING: frozenset[Callable[..., Any]] = frozenset(
    [getattr(torch.Tensor, name) for name in FILLS]
    + [getattr(torch, name) for name in DRAWS]
    + [getattr(torch.nn.init, name) for name in INITIALISERS]
)


class _DrawFrom(TorchFunctionMode):
    """Hands a generator to every function that draws on the CPU and was given none."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self._generator = generator

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options = dict(kwargs or {})
        if func in _DRAWING and options.get("generator") is None and _on_cpu(args, options):
            options["generator"] = self._generator
        return func(*args, **options)


def _on_cpu(args: tuple[Any, ...], options: Mapping[str, Any]) -> bool:
    tensors = [each for each in (*args, *options.values()) if isinstance(each, torch.Tensor)]
    device = tensors[0].device if tensors else torch.device(options.get("device") or torch.get_default_device())
    return device.type == "cpu"


@contextmanager
def drawing_from(seed: int) -> Iterator[torch.Generator]:
    """Let torch draw on the CPU, in this Python thread, from a generator of this seed and not from that of the process.

    The numbers are those that the process's generator gives after ``torch.manual_seed(seed)``. To seed that one, and set
    it again afterwards, is not the same thing: other Python threads draw from it in the meantime, and so do the layers
    that they build.

    Parameters
    ----------
    seed
        Of the generator.

    Yields
    ------
    The generator, to be handed to what draws later.

    Examples
    --------
    >>> import torch
    >>> from spahgc._random import drawing_from
    >>> with drawing_from(0):
    ...     one = torch.nn.Linear(2, 2)
    >>> with drawing_from(0):
    ...     other = torch.nn.Linear(2, 2)
    >>> bool((one.weight == other.weight).all())
    True
    """
    generator = torch.Generator().manual_seed(seed)
    with _DrawFrom(generator):
        yield generator
