"""Any model of timm as an encoder."""

from __future__ import annotations

import difflib
from pathlib import Path

# Only the type of the error, which torch raises where it refuses a file.
from pickle import UnpicklingError  # noqa: TID251
from typing import TYPE_CHECKING, Any

from spahgc.encoders._cards import CARDS
from spahgc.encoders._checkpoint import file_revision, load_tensors, read_tensors
from spahgc.encoders._encoder import Encoder
from spahgc.encoders._hub import HUB_URL, EncoderUnavailableError, commit_of, reaching
from spahgc.encoders._record import PATCH_CONTEXT, PRECISION, EncoderRecord, key_name

if TYPE_CHECKING:
    from torch import nn

HUB_PREFIXES = ("hf-hub:", "hf_hub:")
CACHED_FILES = ("model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors", "config.json")
"""Files by which the commit of a repository is found in the cache; timm does not say which one it took."""

CLOSE_MATCHES = 5
UNKNOWN = "unknown"


def from_timm(name: str, checkpoint: Path | None) -> Encoder:
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

    if name.startswith(HUB_PREFIXES):
        repo_id = name.split(":", 1)[1].partition("@")[0]
        page = f"{HUB_URL}/{repo_id}"
    else:
        page = _page(name, needs_weights=checkpoint is None)
    try:
        with reaching(name, page, filename="weights", gated=False):
            module: Any = timm.create_model(name, pretrained=checkpoint is None, num_classes=0)
    except EncoderUnavailableError:
        raise
    except (RuntimeError, KeyError, UnpicklingError) as error:
        raise ValueError(
            f'timm cannot build encoder "{name}" with the weights of {page}: {str(error).strip() or repr(error)}. '
            "Pass another name, or a file that fits: checkpoint=..."
        ) from error
    if checkpoint is None:
        revision = _revision(module.pretrained_cfg, name)
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
    return Encoder(_record(name, revision, module), module)


def _page(name: str, *, needs_weights: bool) -> str:
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


def _revision(config: dict[str, Any], name: str) -> str:
    """Commit of the weights that timm has just loaded, from where they lie in the cache."""
    from huggingface_hub import try_to_load_from_cache

    repo_id, _, wanted = str(config.get("hf_hub_id") or "").partition("@")
    files = [config["hf_hub_filename"]] if config.get("hf_hub_filename") else list(CACHED_FILES)
    for filename in files if repo_id else []:
        path = try_to_load_from_cache(repo_id, filename, revision=wanted or None)
        if isinstance(path, str):
            return commit_of(path)
    return str(config.get("url") or f"{name} {UNKNOWN}")


def _record(name: str, revision: str, module: nn.Module) -> EncoderRecord:
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
        pooling=_pooling(module),
        precision=PRECISION,
        context=PATCH_CONTEXT,
    )


def _pooling(module: nn.Module) -> str:
    """Name of the pooling as timm calls it: a string in transformers, a layer in convolutional networks."""
    for owner in (module, getattr(module, "head", None)):
        pool = getattr(owner, "global_pool", None)
        if isinstance(pool, str) and pool:
            return pool
        if pool is not None:
            return str(getattr(pool, "pool_type", type(pool).__name__))
    return UNKNOWN
