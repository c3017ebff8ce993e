"""Tensors of published weights files under the names that a network has for them, one function for each kind of file.

A card names its function as `rename`. It gets the tensors of the file and those of the network, and returns the tensors of
the file under the network's names; a tensor that it does not know keeps its name, and is refused when weights are loaded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from spahgc.encoders._card import Rename

Tensors = dict[str, "Tensor"]

HF_EMBEDDINGS = {
    "embeddings.cls_token": "cls_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.register_tokens": "reg_token",
    "embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
    "embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
    "layernorm.weight": "norm.weight",
    "layernorm.bias": "norm.bias",
}
HF_BLOCK = re.compile(r"encoder\.layer\.(\d+)\.(.+)\.([^.]+)")
HF_QKV = {f"attention.attention.{part}": index for index, part in enumerate(("query", "key", "value"))}
HF_VIT_LAYERS = {
    "attention.output.dense": "attn.proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
}
HF_DINO_LAYERS = {
    "attention.output.dense": "attn.proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
    "mlp.weights_in": "mlp.fc1",
    "mlp.weights_out": "mlp.fc2",
    "norm1": "norm1",
    "norm2": "norm2",
    "layer_scale1": "ls1",
    "layer_scale2": "ls2",
}
HF_PARAMETERS = {"lambda1": "gamma"}
HF_UNUSED = ("pooler.", "embeddings.mask_token", "classifier.")
"""Tensors of transformers' models that no embedding depends on."""

HF_PREFIX = re.compile(r"^(vit|dinov2|dinov2_with_registers)\.")

CONCH_POOL = {
    "attn_pool_contrast.query": "pool.query",
    "attn_pool_contrast.ln_q.weight": "pool.norm_query.weight",
    "attn_pool_contrast.ln_q.bias": "pool.norm_query.bias",
    "attn_pool_contrast.ln_k.weight": "pool.norm_tokens.weight",
    "attn_pool_contrast.ln_k.bias": "pool.norm_tokens.bias",
    "attn_pool_contrast.attn.q_proj_weight": "pool.to_query.weight",
    "attn_pool_contrast.attn.k_proj_weight": "pool.to_key.weight",
    "attn_pool_contrast.attn.v_proj_weight": "pool.to_value.weight",
    "attn_pool_contrast.attn.out_proj.weight": "pool.to_output.weight",
    "attn_pool_contrast.attn.out_proj.bias": "pool.to_output.bias",
    "attn_pool_contrast.to_q.weight": "pool.to_query.weight",
    "attn_pool_contrast.to_out.weight": "pool.to_output.weight",
    "ln_contrast.weight": "pool.norm.weight",
    "ln_contrast.bias": "pool.norm.bias",
}
"""The pool of both releases; what they pack into one tensor is taken apart below."""

CONCH_BIAS = "attn_pool_contrast.attn.in_proj_bias"
CONCH_KEY_VALUE = "attn_pool_contrast.to_kv.weight"
CONCH_PARTS = ("trunk.", "attn_pool_contrast.", "ln_contrast.")

COMPUTED = ("relative_position_index", "attn_mask")
"""Ends of the names of what a Swin computes when it is built; older files hold it all the same."""

SWIN_DOWNSAMPLE = re.compile(r"^layers\.(\d+)\.downsample\.")


def rename_tensors(stored: Mapping[str, Tensor], expected: Mapping[str, Tensor], rename: Rename) -> Tensors:
    """Rename the tensors of a file, without those that are computed; a file with the network's names stays as it is."""
    tensors = {key: value for key, value in stored.items() if not key.endswith(COMPUTED)}
    return tensors if expected.keys() <= tensors.keys() else rename(tensors, expected)


def rename_by_order(stored: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> Tensors:
    """Give tensors the names of a network that lists the same tensors in the same order.

    Raises
    ------
    ValueError
        If number or shapes of the tensors differ.
    """
    if len(stored) != len(expected):
        raise ValueError(f"it has {len(stored)} tensors, expected {len(expected)}. Pass the file made for it.")
    for position, ((old, tensor), (new, wanted)) in enumerate(zip(stored.items(), expected.items(), strict=True)):
        if tensor.shape != wanted.shape:
            raise ValueError(
                f"tensor {position} ({old}) has shape {tuple(tensor.shape)}, expected {tuple(wanted.shape)} ({new}). "
                "Pass the file made for it."
            )
    return dict(zip(expected, stored.values(), strict=True))


def rename_transformers_vit(stored: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> Tensors:
    """ViT of transformers."""
    return _from_transformers(stored, expected, HF_VIT_LAYERS)


def rename_transformers_dinov2(stored: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> Tensors:
    """DINOv2 of transformers, with or without registers, with plain or gated linear units."""
    return _from_transformers(stored, expected, HF_DINO_LAYERS)


def _from_transformers(
    stored: Mapping[str, Tensor], expected: Mapping[str, Tensor], layers: Mapping[str, str]
) -> Tensors:
    """Name the tensors of a vision transformer as timm does, and put query, key and value into one tensor."""
    import torch

    tensors: Tensors = {}
    packed: dict[str, dict[int, Tensor]] = {}
    for key, value in stored.items():
        name = HF_PREFIX.sub("", key)
        if name.startswith(HF_UNUSED):
            continue
        block = HF_BLOCK.fullmatch(name)
        if block is None:
            tensors[HF_EMBEDDINGS.get(name, key)] = value
            continue
        number, layer, parameter = block.groups()
        if layer in HF_QKV:
            packed.setdefault(f"blocks.{number}.attn.qkv.{parameter}", {})[HF_QKV[layer]] = value
        elif layer in layers:
            tensors[f"blocks.{number}.{layers[layer]}.{HF_PARAMETERS.get(parameter, parameter)}"] = value
        else:
            tensors[key] = value
    for name, parts in packed.items():
        tensors[name] = torch.cat([parts[index] for index in sorted(parts)])
    return _positions_as_expected(tensors, expected)


def _positions_as_expected(tensors: Tensors, expected: Mapping[str, Tensor]) -> Tensors:
    """Bring the positions to the network's grid, and add the class token's to the token where timm has none for it."""
    if "pos_embed" not in tensors or "cls_token" not in tensors:
        return tensors
    of_class, of_patches = tensors["pos_embed"][:, :1], tensors["pos_embed"][:, 1:]
    wanted = expected["pos_embed"].shape[1]
    separate = "reg_token" in expected
    n_patches = wanted if separate else wanted - 1
    of_patches = _resampled(of_patches, n_patches)
    if separate:
        return tensors | {"cls_token": tensors["cls_token"] + of_class, "pos_embed": of_patches}
    import torch

    return tensors | {"pos_embed": torch.cat([of_class, of_patches], dim=1)}


def _resampled(positions: Tensor, n_patches: int, scale: float | None = None) -> Tensor:
    """Positions of a square grid on another one, bicubic and without smoothing, as the publishers' code does it.

    Parameters
    ----------
    positions
        1 x patches x channels.
    n_patches
        Patches wanted; what is no square is left as it is, for the check that follows.
    scale
        Step between the grids; ``None`` takes the ratio of their sides.
    """
    from torch.nn.functional import interpolate

    side, wanted = round(positions.shape[1] ** 0.5), round(n_patches**0.5)
    if side == wanted or side**2 != positions.shape[1] or wanted**2 != n_patches:
        return positions
    plane = positions.float().transpose(1, 2).unflatten(2, (side, side))
    if scale is None:
        plane = interpolate(plane, size=(wanted, wanted), mode="bicubic")
    else:
        plane = interpolate(plane, scale_factor=(scale, scale), mode="bicubic")
    return plane.flatten(2).transpose(1, 2)


def rename_conch(stored: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> Tensors:
    """The image tower of CONCH; the towers of text, and the pool and projection for them, are left out."""
    tensors: Tensors = {}
    for key, value in stored.items():
        name = key.removeprefix("visual.")
        if name == CONCH_BIAS:
            for part, bias in zip(("query", "key", "value"), value.chunk(3), strict=True):
                tensors[f"pool.to_{part}.bias"] = bias
        elif name == CONCH_KEY_VALUE:
            tensors["pool.to_key.weight"], tensors["pool.to_value.weight"] = value.chunk(2)
        elif name.startswith(CONCH_PARTS):
            tensors[CONCH_POOL.get(name, name.replace("trunk.", "network.", 1))] = value
    return tensors or dict(stored)


def rename_conch_v1_5(stored: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> Tensors:
    """The image tower of CONCH v1.5, whose positions are those of 224 pixels.

    Its code steps over them by the side of the new grid plus a tenth, a guard of DINO's against rounding.
    """
    import torch

    tensors = rename_conch(stored, expected)
    positions = tensors.get("network.pos_embed")
    wanted = expected["network.pos_embed"].shape[1] - 1
    if positions is None or positions.shape[1] - 1 == wanted:
        return tensors
    side = (positions.shape[1] - 1) ** 0.5
    of_patches = _resampled(positions[:, 1:], wanted, scale=(wanted**0.5 + 0.1) / side)
    return tensors | {"network.pos_embed": torch.cat([positions[:, :1], of_patches], dim=1)}


def rename_swin(stored: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> Tensors:
    """Swin of older timm, which joined patches at the end of a stage where today's joins them at the next one's start."""
    if not any(key.startswith("layers.0.downsample.") for key in stored):
        return dict(stored)
    return {
        SWIN_DOWNSAMPLE.sub(lambda match: f"layers.{int(match[1]) + 1}.downsample.", key): value
        for key, value in stored.items()
    }
