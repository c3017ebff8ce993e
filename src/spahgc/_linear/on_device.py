"""Numbers of the regressions with a kernel where they are computed with: arrays of numpy, or tensors on a CUDA device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import is_numpy_array

from spahgc._spots.rows import Rows

Array = Any
"""An array of numpy or a tensor of torch. What is done with either is named as in the array API standard."""


def uses_tensors(device: str) -> bool:
    """Whether a device computes with tensors: CUDA, whose double precision is that of the CPU.

    On ``"mps"``, which has no double precision, and on ``"cpu"`` it is numpy that computes.
    """
    return device.startswith("cuda")


def on_device(array: Array, device: str) -> Array:
    """A copy of the array on a CUDA device, in its own precision; the array itself where numpy computes, or if it is a tensor."""
    if not uses_tensors(device) or not is_numpy_array(array):
        return array
    import torch

    return torch.tensor(np.ascontiguousarray(array), device=device)


def as_numpy(array: Array) -> np.ndarray:
    """An array of numpy, wherever the numbers lie; itself if it is one."""
    return array if is_numpy_array(array) else array.cpu().numpy()


@dataclass(frozen=True)
class RowsOnDevice:
    """Spots x dim in the memory of the host, of which those rows are put on a device that are asked for.

    So a device holds a block of them at a time, however many spots there are.

    Parameters
    ----------
    rows
        The array.
    device
        Torch device.
    """

    rows: Rows
    device: str

    @property
    def shape(self) -> tuple[int, ...]:
        return self.rows.shape

    def __len__(self) -> int:
        return self.rows.shape[0]

    def __getitem__(self, rows: slice | np.ndarray) -> Array:
        return on_device(self.rows[rows], self.device)


def rows_on(rows: Rows, device: str) -> Array:
    """The same rows, each on the device once it is asked for; themselves where numpy computes."""
    return RowsOnDevice(rows, device) if uses_tensors(device) else rows
