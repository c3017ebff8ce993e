"""Whether the tensors of a saved model are those that its description and its bank ask for."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from spahgc._linear.conformal import GRID
from spahgc._linear.shared_errors import EDGES
from spahgc._linear.trust import CASES, PATIENT, SECTION
from spahgc._parameters import Parameters
from spahgc._spots.pitch import PITCH_UM
from spahgc._training.networks import empty_network, new_network

if TYPE_CHECKING:
    from torch import Tensor

    from spahgc.nn import SpaHGCNetwork

NODE_FEATURES, NETWORKS, TRUST, EXPERTS = "node_features.", "networks.", "trust.", "experts."
"""First parts of the names of tensors in the weights file."""

_AXES = r"(?:node_features\.(?:ridge\.)?image_axes|experts\.axes)\."
MEANS = {f"correlation.{name}" for name in ("pcc", "low", "high")} | {
    f"spread.{name}" for name in ("variance", "level", "slope")
}
"""What is told of each case in a model of any version."""
FORECASTS = {f"genes.{name}" for name in ("z", "spread", "coefficients", "between", "residuals")} | {
    f"values.{name}" for name in ("kind", "support_slope", "support_level", "scores")
}
"""What is told besides since references are held out in the cases of a target; all of it or nothing."""

SHARED = {f"shared.{name}" for name in ("correlation", "loadings", "covariance", "freedom")}
"""What tells of errors that spots and genes share; all of it or nothing."""
SUPPORT = {"anchors", "centre", "weight", "blocks", "distances"}
"""What tells of the support of spots."""

_CASE = r"trust\.(section|placed|patient)\."
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
    rf"{_CASE}(correlation\.(pcc|low|high)|spread\.(variance|level|slope))": ("genes",),
    rf"{_CASE}(genes\.(z|spread)|values\.kind)": ("genes",),
    rf"{_CASE}genes\.coefficients": (3,),
    rf"{_CASE}(genes\.between|values\.support_(slope|level))": (1,),
    rf"{_CASE}genes\.residuals": ("any", 1, len(GRID)),
    rf"{_CASE}values\.scores": ("any", "any", len(GRID)),
    rf"{_CASE}shared\.correlation": ("genes", len(EDGES) + 1),
    rf"{_CASE}shared\.freedom": (1,),
    **{rf"trust\.{case}\.shared\.loadings": ("genes", f"patterns of {case}") for case in CASES},
    **{
        rf"trust\.{case}\.shared\.covariance": (len(EDGES) + 2, f"patterns of {case}", f"patterns of {case}")
        for case in CASES
    },
    r"trust\.support\.(anchors|distances)": ("anchors",),
    r"trust\.support\.(centre|weight)": ("dim",),
    r"trust\.support\.blocks": ("any", 2),
    r"experts\.(weights|placed|new_patient)\.\w+": (1,),
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
WHOLE_NUMBERS = r".*\.(blocks|n_around|anchors|kind)"
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
    return _broken_axes(arrays, sizes) or _broken_trust(arrays)


def _broken_trust(arrays: Mapping[str, np.ndarray]) -> str | None:
    """What is wrong with trust, beyond the shapes of its tensors, if something is."""
    parts = {name.removeprefix(TRUST).partition(".")[0] for name in arrays if name.startswith(TRUST)}
    if not parts:
        return None
    if "support" not in parts or not parts & {SECTION, PATIENT}:
        return "trust in a section or in a new patient, or the support of spots, is missing"
    lacking = {name for name in SUPPORT if f"{TRUST}support.{name}" not in arrays}
    if lacking:
        return f'"{TRUST}support.{min(lacking)}" is missing'
    for case in sorted(parts - {"support"}):
        of_case = f"{TRUST}{case}."
        found = {name.removeprefix(of_case) for name in arrays if name.startswith(of_case)}
        lacking = MEANS - found
        for together in (FORECASTS, SHARED):
            lacking |= together - found if found & together else set()
        if lacking:
            return f'"{of_case}{min(lacking)}" is missing'
        kinds = arrays.get(f"{of_case}values.kind")
        if kinds is not None and kinds.max(initial=0) >= arrays[f"{of_case}values.scores"].shape[1]:
            return f'"{of_case}values.kind" reaches to {kinds.max()} of {arrays[f"{of_case}values.scores"].shape[1]}'
    return None


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
    compared = arrays.get(f"{TRUST}support.blocks")
    if compared is not None and ((compared[:, 0] >= compared[:, 1]).any() or compared.max(initial=0) > sizes["dim"]):
        return f'"{TRUST}support.blocks" do not lie within {sizes["dim"]} columns'
    anchors = arrays.get(f"{TRUST}support.anchors")
    if anchors is not None and anchors.max(initial=0) >= sizes["spots"]:
        return f'"{TRUST}support.anchors" reach to spot {anchors.max()} of {sizes["spots"]}'
    return None


def make_networks(
    tensors: Mapping[str, Tensor], parameters: Parameters, feature_dim: int, outputs: int, *, knows_place: bool = False
) -> list[SpaHGCNetwork]:
    """The networks of a file, with its weights; those that know place have a height and a range of nearness besides.

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
    pitch_um = PITCH_UM if knows_place else None  # the range that was learned takes its place
    with torch.device("meta"):
        sketch = torch.nn.ModuleList(
            new_network(feature_dim, outputs, parameters, pitch_um=pitch_um) for _ in range(count)
        )
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
    networks = [empty_network(feature_dim, outputs, parameters, pitch_um=pitch_um) for _ in range(count)]
    torch.nn.ModuleList(networks).load_state_dict(stored)
    return networks
