"""Whether the tensors of a saved model are those that its description and its bank ask for."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from spahgc._linear.shared_errors import EDGES
from spahgc._parameters import Parameters
from spahgc._training.networks import empty_network, new_network

if TYPE_CHECKING:
    from torch import Tensor

    from spahgc.nn import SpaHGCNetwork

NODE_FEATURES, NETWORKS, TRUST, EXPERTS = "node_features.", "networks.", "trust.", "experts."
"""First parts of the names of tensors in the weights file."""

_AXES = r"(?:node_features\.(?:ridge\.)?image_axes|experts\.axes)\."
SHAPES: dict[str, tuple[str | int, ...]] = {
    r"node_features\.features": ("spots", "features"),
    r"node_features\.components\.scores": ("spots", "components"),
    r"node_features\.components\.loadings": ("components", "genes"),
    r"node_features\.components\.(mean|spread)": ("genes",),
    r"node_features\.ridge\.coefficients": ("line features", "components"),
    r"node_features\.ridge\.feature_mean": ("line features",),
    r"node_features\.ridge\.response_mean": ("components",),
    r"node_features\.ridge\.penalty": (1,),
    rf"{_AXES}(mean\.[01]|scale\.mean|scale\.spread)": ("dim",),
    rf"{_AXES}axes\.[01]": ("dim", "any"),
    rf"{_AXES}blocks": ("any", 2),
    rf"{_AXES}(n_around|size)": (1,),
    r"trust\.(correlation\.(pcc|low|high)|spread\.(variance|level|slope))": ("genes",),
    r"trust\.support\.(anchors|distances)": ("anchors",),
    r"trust\.support\.(centre|weight)": ("dim",),
    r"trust\.shared\.correlation": ("genes", len(EDGES) + 1),
    r"trust\.shared\.loadings": ("genes", "patterns of error"),
    r"trust\.shared\.covariance": (len(EDGES) + 2, "patterns of error", "patterns of error"),
    r"trust\.shared\.freedom": (1,),
    r"experts\.(weights|placed)\.\w+": (1,),
    r"experts\.kernel\.landmarks": ("landmarks", "any"),
    r"experts\.kernel\.coefficients": ("landmarks", "components"),
    r"experts\.kernel_overall\.landmarks": ("landmarks overall", "any"),
    r"experts\.kernel_overall\.coefficients": ("landmarks overall", "components"),
    r"experts\.kernel(_overall)?\.(penalties|slopes)": ("components",),
    r"experts\.perceptron(_overall)?\.size": (1,),
    r"experts\.perceptron(_overall)?\.\d\.weight": ("any", "any"),
    r"experts\.perceptron(_overall)?\.\d\.bias": ("any",),
}
"""Names of the tensors beside those of the networks, and their shapes; equal words are equal numbers, "any" is any."""
WHOLE_NUMBERS = r".*\.(blocks|n_around|anchors)"
"""Tensors of whole numbers; all others hold fractions."""
MAY_BE_NAN = r"trust\."
"""Tensors in which NaN stands for what no reference could tell."""

POSITIVE = ("n_spatial", "n_cross", "n_reference", "n_networks", "width", "heads", "tasks_per_step")
"""Parameters that are whole numbers of at least 1; other numbers are at least 0."""


def broken_parameters(values: Mapping[str, object]) -> str | None:
    """What is wrong with types or ranges of the parameters of a file, if something is; all of them must be there."""
    for name, default in Parameters().to_dict().items():
        value = values[name]
        kinds: Any = int | float if isinstance(default, float) else type(default)
        if name == "experts":
            kinds, parts = str, value if isinstance(value, list) else [value]
        elif name == "n_components" and isinstance(value, list):
            parts = value
        else:
            parts = [value]
        for part in parts:
            if not isinstance(part, kinds) or (isinstance(part, bool) and not isinstance(default, bool)):
                return f"{name} = {value!r} should be of type {type(default).__name__}"
            if isinstance(part, int | float) and not (math.isfinite(part) and part >= (name in POSITIVE)):
                return f"{name} = {value!r} is out of range"
    return None


def broken_tensors(tensors: Mapping[str, Tensor], *, n_spots: int, n_genes: int, dim: int) -> str | None:
    """What is wrong with the tensors beside those of the networks, if something is.

    Parameters
    ----------
    tensors
        By name, all of a file.
    n_spots, n_genes, dim
        Of the bank: spots, genes of the panel, columns of the embedding.
    """
    sizes = {"spots": n_spots, "genes": n_genes, "dim": dim}
    arrays = {name: part.numpy() for name, part in tensors.items() if not name.startswith(NETWORKS)}
    for name, array in arrays.items():
        expected = next((shape for pattern, shape in SHAPES.items() if re.fullmatch(pattern, name)), None)
        if expected is None:
            return f'it holds "{name}", which no model has'
        shape = array.shape or (1,)
        fits = len(shape) == len(expected) and all(
            word == "any" or size == (word if isinstance(word, int) else sizes.setdefault(word, size))
            for word, size in zip(expected, shape, strict=True)
        )
        if not fits:
            wanted = " x ".join(f"{sizes.get(str(word), word)}" for word in expected)
            return f'"{name}" is {" x ".join(map(str, shape))}, expected is {wanted}'
        problem = _broken_values(name, array)
        if problem is not None:
            return f'"{name}" {problem}'
    return _broken_axes(arrays, sizes)


def _broken_values(name: str, array: np.ndarray) -> str | None:
    whole = re.fullmatch(WHOLE_NUMBERS, name) is not None
    if array.dtype.kind != ("i" if whole else "f"):
        return f"holds numbers of type {array.dtype}"
    if np.isinf(array).any() or (np.isnan(array).any() and not re.match(MAY_BE_NAN, name)):
        return "has NaN or infinite numbers"
    if whole and array.size and array.min() < 0:
        return "has negative numbers"
    if name.endswith(".size") and array.item() <= 0:
        return f"is {array.item():g}, expected is a positive number"
    return None


def _broken_axes(arrays: Mapping[str, np.ndarray], sizes: Mapping[str, int]) -> str | None:
    """What is wrong between tensors, beyond their shapes, if something is."""
    for prefix, total in (
        (f"{NODE_FEATURES}image_axes.", "features"),
        (f"{NODE_FEATURES}ridge.image_axes.", "line features"),
        (f"{EXPERTS}axes.", "overall features"),
    ):
        if f"{prefix}n_around" not in arrays:
            continue
        views = [name for name in arrays if name.startswith(f"{prefix}axes.")]
        if len(views) != 1 + (arrays[f"{prefix}n_around"].item() > 0):
            return (
                f'"{prefix}axes" are of {len(views)} views of a spot, n_around is {arrays[f"{prefix}n_around"].item()}'
            )
        lacking = [name for name in views if f"{prefix}mean.{name.removeprefix(f'{prefix}axes.')}" not in arrays]
        if lacking:
            return f'the mean to "{lacking[0]}" is missing'
        n_axes = sum(arrays[name].shape[1] for name in views)
        if n_axes != sizes.get(total, n_axes):
            return f'"{prefix}axes" are {n_axes}, expected are {sizes[total]}'
        blocks = arrays[f"{prefix}blocks"]
        if (blocks[:, 0] > blocks[:, 1]).any() or blocks.max(initial=0) > sizes["dim"]:
            return f'"{prefix}blocks" do not lie within {sizes["dim"]} columns'
    kernel = f"{EXPERTS}kernel."
    if f"{kernel}coefficients" in arrays and f"{kernel}landmarks" not in arrays:  # they are the features of all spots
        found = len(arrays[f"{kernel}coefficients"])
        if found != sizes["spots"]:
            return f'"{kernel}coefficients" are of {found} spots, expected are {sizes["spots"]}'
    anchors = arrays.get(f"{TRUST}support.anchors")
    if anchors is not None and anchors.max(initial=0) >= sizes["spots"]:
        return f'"{TRUST}support.anchors" reach to spot {anchors.max()} of {sizes["spots"]}'
    return None


def make_networks(
    tensors: Mapping[str, Tensor], parameters: Parameters, feature_dim: int, outputs: int
) -> list[SpaHGCNetwork]:
    """The networks of a file, with its weights.

    Nothing of the size that the parameters ask for is made before the file has shown that it holds as much.

    Raises
    ------
    ValueError
        If weights are missing, of another shape, or not finite.
    """
    stored = {name.removeprefix(NETWORKS): part for name, part in tensors.items() if name.startswith(NETWORKS)}
    count = parameters.n_networks if parameters.epochs else 0
    widest = max((size for part in stored.values() for size in part.shape), default=0)
    if count and (count * parameters.layers > len(stored) or max(parameters.width, parameters.heads) > widest):
        raise ValueError(
            f"{count} networks of {parameters.layers} layers, width {parameters.width} and {parameters.heads} heads are "
            f"announced, {len(stored)} tensors of at most {widest} rows or columns are there"
        )
    with torch.device("meta"):
        sketch = torch.nn.ModuleList(new_network(feature_dim, outputs, parameters) for _ in range(count))
    expected = {name: tuple(part.shape) for name, part in sketch.state_dict().items()}
    found = {name: tuple(part.shape) for name, part in stored.items()}
    differing = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
    if differing:
        name = differing[0]
        raise ValueError(
            f'{len(differing)} tensors of the networks differ, such as "{NETWORKS}{name}": {found.get(name, "nothing")} is there, '
            f"{expected.get(name, 'nothing')} is expected"
        )
    broken = [name for name, part in stored.items() if not (part.is_floating_point() and part.isfinite().all())]
    if broken:
        raise ValueError(f'"{NETWORKS}{broken[0]}" has NaN or infinite numbers, or whole ones')
    networks = [empty_network(feature_dim, outputs, parameters) for _ in range(count)]
    torch.nn.ModuleList(networks).load_state_dict(stored)
    return networks
