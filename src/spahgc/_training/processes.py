"""Processes that train together: the one place that knows accelerate."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from spahgc._installation import install_command
from spahgc._logging import warn

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

SAME = 1e-3
"""Share of the largest by which the same numbers may differ between processes, which may run on different machines."""


@dataclass(frozen=True)
class ProcessGroup:
    """A process among those that train together.

    Parameters
    ----------
    rank
        Its number, from 0.
    count
        How many there are.
    device
        Where it computes.
    """

    rank: int
    count: int
    device: str

    def total(self, tensor: Tensor) -> Tensor:
        """Sum over all processes; every one of them has to call it, and gets the same numbers."""
        from accelerate.utils import reduce

        return reduce(tensor, reduction="sum")

    def first(self, tensor: Tensor) -> Tensor:
        """The tensor of the first process."""
        from accelerate.utils import broadcast

        return broadcast(tensor.clone(), from_process=0)

    def check_same(self, numbers: np.ndarray, label: str) -> None:
        """Refuse, in all processes, to go on where one of them has been given something else than the first.

        Parameters
        ----------
        numbers
            What has to be the same, of the same shape in all processes.
        label
            How the message calls it.
        """
        own = torch.as_tensor(numbers, dtype=torch.float64, device=self.device)
        first = self.first(own)
        differs = (own - first).abs().max() > SAME * first.abs().max()
        n_differing = int(self.total(differs.double()))
        if n_differing:
            raise ValueError(
                f"{n_differing} of {self.count} processes were given {label} that differ from those of the first. Let "
                "every process run the same script on the same data."
            )


def joined_processes(device: str) -> ProcessGroup:
    """The processes that were started together with this one, where there are such.

    Parameters
    ----------
    device
        Where the caller would compute: ``"cpu"``, or ``"cuda"`` for the accelerator that is this process's own.

    Raises
    ------
    ImportError
        If accelerate is not installed.
    ValueError
        If the device is not this process's own, or the processes have been joined in another way.
    """
    state = _partial_state(cpu=device == "cpu")
    expected = int(os.environ["WORLD_SIZE"])
    if state.num_processes != expected or state.device.type != device.partition(":")[0]:
        raise ValueError(
            f'{expected} processes were started together, but on device="{device}" accelerate joins '
            f'{state.num_processes} of them, on "{state.device}". Pass device="cpu" in all processes, or start them on '
            "machines with a GPU for each; and make no accelerate.Accelerator for another device before."
        )
    own = str(state.device)
    if ":" in device and device != own:
        raise ValueError(
            f'device="{device}" was asked for in process {state.process_index} of {expected}, whose own is "{own}". '
            "Leave device= out: every process takes its own."
        )
    return ProcessGroup(state.process_index, state.num_processes, own)


def warn_of_idle(processes: ProcessGroup, tasks_per_step: int, n_tasks: int) -> None:
    """Say so where there are more processes than slides to share out."""
    busy = min(tasks_per_step, n_tasks, processes.count)
    if processes.rank == 0 and busy < processes.count:
        warn(
            f"{processes.count - busy} of {processes.count} processes have nothing to do: a step takes "
            f"{min(tasks_per_step, n_tasks)} of {n_tasks} slides or blocks. Pass parameters with tasks_per_step="
            f"{processes.count} or a multiple of it, or start fewer processes.",
            stacklevel=2,
        )


def _partial_state(*, cpu: bool) -> Any:
    # Not an Accelerator: that holds a precision for the life of the process, and every fit may have its own.
    try:
        from accelerate import PartialState
    except ImportError as error:
        raise ImportError(
            "several processes were started together, and training in them needs accelerate, which is not installed. "
            f"Run `{install_command('distributed')}`, or start one process."
        ) from error
    return PartialState(cpu=cpu)
