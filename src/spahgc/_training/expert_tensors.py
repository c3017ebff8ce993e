"""Whether the experts of a saved model are those that its parameters name, whole, and of the size that its axes ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from spahgc._parameters import GRAPH, KERNEL, LINE, PERCEPTRON, PERCEPTRON_OVERALL
from spahgc._training.experts import SEE_OVERALL
from spahgc._training.model_tensors import EXPERTS, NODE_FEATURES
from spahgc._training.perceptron import new_perceptron
from spahgc._training.placed import GRAPH_BY_PLACE, PLACE_EXPERTS, PLACE_KERNELS

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS, PLACED, NEW_PATIENT = f"{EXPERTS}weights.", f"{EXPERTS}placed.", f"{EXPERTS}new_patient."
KERNEL_PARTS = ("landmarks", "coefficients", "penalties", "slopes")
MAX_SUM_ERROR = 1e-6
"""Of the weights, whose sum is 1."""


def broken_experts(tensors: Mapping[str, Tensor], experts: Sequence[str]) -> str | None:
    """What is wrong with the experts, if something is; the shapes of single tensors were looked at before.

    Parameters
    ----------
    tensors
        By name, all of a file.
    experts
        What the parameters name.
    """
    weights = {name.removeprefix(WEIGHTS): float(part) for name, part in tensors.items() if name.startswith(WEIGHTS)}
    differing = sorted({*weights} ^ {*experts})
    if differing:
        where = "weights are there" if differing[0] in weights else "parameters are there"
        return f'of the expert "{differing[0]}" only the {where}'
    if experts and not (min(weights.values()) >= 0 and abs(sum(weights.values()) - 1) <= MAX_SUM_ERROR):
        return f"the weights of the experts are {weights}, expected are numbers from 0 on whose sum is 1"
    placed = {name.removeprefix(PLACED): float(part) for name, part in tensors.items() if name.startswith(PLACED)}
    of_place = PLACE_EXPERTS if GRAPH_BY_PLACE in placed and GRAPH in experts else PLACE_KERNELS
    if placed and {*placed} != {*experts, *of_place}:
        return f"the weights by place are of {sorted(placed)}, expected are {sorted([*experts, *of_place])}"
    if placed and not (min(placed.values()) >= 0 and abs(sum(placed.values()) - 1) <= MAX_SUM_ERROR):
        return f"the weights by place are {placed}, expected are numbers from 0 on whose sum is 1"
    new = {
        name.removeprefix(NEW_PATIENT): float(part) for name, part in tensors.items() if name.startswith(NEW_PATIENT)
    }
    if new and {*new} != {*experts}:
        return f"the weights for a new patient are of {sorted(new)}, expected are {sorted(experts)}"
    if new and not (min(new.values()) >= 0 and abs(sum(new.values()) - 1) <= MAX_SUM_ERROR):
        return f"the weights for a new patient are {new}, expected are numbers from 0 on whose sum is 1"
    for name in experts:
        unused = not any(found.get(name) for found in (weights, placed, new))
        problem = None if name in (LINE, GRAPH) or unused else _broken_expert(name, tensors)
        if problem is not None:
            return f'the expert "{name}" {problem}'
    return None


def _broken_expert(name: str, tensors: Mapping[str, Tensor]) -> str | None:
    """What is wrong with one that sees a view of a spot, if something is."""
    prefix = f"{EXPERTS}{name}."
    parts = {part.removeprefix(prefix): tensor for part, tensor in tensors.items() if part.startswith(prefix)}
    own = f"{NODE_FEATURES}ridge.image_axes.axes."  # where they are not those of the nodes
    by_slide = own if any(axis.startswith(own) for axis in tensors) else f"{NODE_FEATURES}image_axes.axes."
    axes = f"{EXPERTS}axes.axes." if name in SEE_OVERALL else by_slide
    inputs = sum(part.shape[1] for axis, part in tensors.items() if axis.startswith(axes))
    if name in (PERCEPTRON, PERCEPTRON_OVERALL):
        outputs = tensors[f"{NODE_FEATURES}components.loadings"].shape[0]
        with torch.device("meta"):
            state = new_perceptron(inputs, outputs).state_dict()
        expected = {"size": None} | {part: tuple(tensor.shape) for part, tensor in state.items()}
    else:
        expected = dict.fromkeys(KERNEL_PARTS) | {"landmarks": (len(parts.get("landmarks", ())), inputs)}
        if name == KERNEL and "landmarks" not in parts:  # they are the features of the nodes
            del expected["landmarks"]
    differing = sorted({*parts} ^ {*expected})
    if differing:
        return f'{"has no" if differing[0] in expected else "should have no"} "{differing[0]}"'
    for part, shape in expected.items():
        if shape is not None and tuple(parts[part].shape) != shape:
            found, wanted = (" x ".join(map(str, size)) for size in (parts[part].shape, shape))
            return f'has "{part}" of {found}, expected is {wanted}'
    return None
