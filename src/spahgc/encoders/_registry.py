"""The encoders that are known by name."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from spahgc._validate import user_path
from spahgc.encoders._card import BuiltIn, EncoderCard, HubFile, LocalFile, PackageFile, Weights, package_revision
from spahgc.encoders._cards import CARDS
from spahgc.encoders._encoder import Encoder
from spahgc.encoders._record import PRECISIONS, EncoderRecord, key_name

if TYPE_CHECKING:
    from torch import nn

TABLE_FIELDS = (
    "licence",
    "gated",
    "commercial_use",
    "input_px",
    "mpp",
    "dim",
    "mean",
    "std",
    "interpolation",
    "pooling",
    "precision",
)
"""Fields of a card that become columns of the list as they are."""

REQUIRED = ("dim", "input_px", "mean", "std", "interpolation", "pooling")
"""What has to be given for an encoder that is not based on another one, beside where its network comes from."""

NOT_STATED = "not stated"
N_CHANNELS = 3


def takes_any_resolution(record: EncoderRecord) -> bool:
    """Whether the network of a record never saw tissue, and no resolution is its own."""
    card = CARDS.get(record.name)
    return card is not None and card.any_resolution


def describe_encoder(encoder: object) -> EncoderRecord | None:
    """Return the record of an encoder without loading its weights.

    Parameters
    ----------
    encoder
        Name of an encoder, an :class:`Encoder`, or what else :func:`load_encoder` takes.

    Returns
    -------
    The record; None for what is only known once it is loaded (timm names, own modules). The revision of weights on the
    hub is the one that would be asked for; a loaded encoder's record names the commit.

    Examples
    --------
    >>> from spahgc.encoders import describe_encoder
    >>> describe_encoder("uni").dim
    1024
    """
    if isinstance(encoder, str):
        card = CARDS.get(encoder)
        return None if card is None else card.record(_known_revision(card.weights))
    return encoder.record if isinstance(encoder, Encoder) else None


def _known_revision(weights: Weights) -> str:
    """What is known of the revision of weights before they are read."""
    if isinstance(weights, HubFile):
        return weights.revision
    return package_revision(weights.distribution) if isinstance(weights, PackageFile) else str(weights)


def list_encoders() -> pd.DataFrame:
    """List the encoders that are known by name, one a row. Its public name is ``spahgc.encoders.list``.

    Returns
    -------
    Data frame with the columns ``name``, ``hub_id`` (empty: not on the hub), ``revision``, ``licence``, ``gated``,
    ``commercial_use``, ``input_px`` (pixels), ``mpp`` (microns per pixel; NaN: any), ``dim``, ``mean``, ``std``,
    ``interpolation``, ``pooling``, ``precision`` (the authors'; here fp32 unless asked otherwise), ``weights`` (where
    they come from), ``citation`` and ``verified`` (what was checked without the authors' server).

    Examples
    --------
    >>> import spahgc as sp
    >>> sp.encoders.list().set_index("name").loc["uni", "hub_id"]
    'MahmoodLab/UNI'
    """
    rows = [
        {
            "name": card.name,
            "hub_id": card.hub_id or "",
            "revision": _known_revision(card.weights),
            **{name: getattr(card, name) for name in TABLE_FIELDS},
            "weights": str(card.weights),
            "citation": card.citation,
            "verified": card.verified,
        }
        for card in CARDS.values()
    ]
    return pd.DataFrame(rows).astype({"mpp": float})


def register(
    name: str,
    *,
    base: str | None = None,
    timm_name: str | None = None,
    timm_kwargs: Mapping[str, object] | None = None,
    factory: Callable[[], nn.Module] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    hub_id: str | None = None,
    filename: str = "model.safetensors",
    revision: str = "main",
    dim: int | None = None,
    input_px: int | None = None,
    mpp: float | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    interpolation: str | None = None,
    pooling: str | None = None,
    precision: str | None = None,
    licence: str | None = None,
    gated: bool | None = None,
    commercial_use: bool | None = None,
    citation: str | None = None,
    overwrite: bool = False,
) -> None:
    """Add an encoder of one's own under a name, for this process.

    The name then works wherever one does: ``pp.embed(slide, encoder=name)``, :func:`load_encoder`, :func:`list`.

    Parameters
    ----------
    name
        Name of the encoder; the embedding goes into ``obsm["X_<name>"]``.
    base
        A name of :func:`list` whose card is taken where nothing else is said, e.g. to run it with weights of one's own.
    timm_name, timm_kwargs
        Architecture in timm and the arguments to build it with, ``num_classes=0`` among them.
    factory
        Instead of `timm_name`: builds the network, normalised batch x 3 x `input_px` x `input_px` to batch x `dim`. It
        does its own pooling. Without `checkpoint` and `hub_id` it is taken with the weights that it comes with.
    checkpoint
        File with the weights: safetensors, or a PyTorch file of plain tensors.
    hub_id, filename, revision
        Repository, weights file and revision on the Hugging Face hub, instead of `checkpoint`.
    dim
        Length of the embedding.
    input_px
        Side of a patch, pixels.
    mpp
        Microns per pixel of a patch; ``None``: the base's, or any.
    mean, std
        Mean and standard deviation of the channels (red, green, blue; 0 to 1).
    interpolation
        How a patch is resized: ``"bilinear"``, ``"bicubic"``, ...
    pooling
        How the network's output becomes one vector. Of a transformer of timm ``"class token"``, ``"mean of patch
        tokens"`` and ``"class token and mean of patch tokens"`` are done here; any other text describes what the
        network does by itself.
    precision
        Number format in which its authors run it. It runs in fp32 unless :func:`load_encoder` is asked otherwise.
    licence, gated, commercial_use, citation
        Terms and paper, for the list.
    overwrite
        Replace an encoder that has this name already.

    Raises
    ------
    KeyError
        If there is no encoder `base`.
    ValueError
        If the name is taken or cannot stand in a key, or if something is missing, contradictory or no such number.

    Examples
    --------
    UNI's architecture with weights that were trained further, and Midnight without the mean of its patches:

    >>> import spahgc as sp
    >>> sp.encoders.register("my_uni", base="uni", checkpoint="my_uni.safetensors")
    >>> sp.encoders.register("midnight_class", base="midnight", pooling="class token", dim=1536)
    >>> sp.encoders.describe_encoder("midnight_class").dim
    1536
    """
    _check_name(name, overwrite=overwrite)
    given = {
        "timm_name": timm_name,
        "timm_kwargs": None if timm_kwargs is None else dict(timm_kwargs),
        "factory": factory,
        "dim": dim,
        "input_px": input_px,
        "mpp": mpp,
        "mean": None if mean is None else tuple(map(float, mean)),
        "std": None if std is None else tuple(map(float, std)),
        "interpolation": interpolation,
        "pooling": pooling,
        "precision": precision,
        "licence": licence,
        "gated": gated,
        "commercial_use": commercial_use,
        "citation": citation,
    }
    given = {key: value for key, value in given.items() if value is not None}
    if timm_name is not None and factory is not None:
        raise ValueError(f'encoder "{name}" has timm_name= and factory=; pass one of them')
    weights = _weights(name, checkpoint, hub_id, filename, revision)
    card = _new_card(name, given, weights) if base is None else _changed_card(name, base, given, weights)
    _check_numbers(card)
    CARDS[name] = card


def _check_name(name: str, *, overwrite: bool) -> None:
    """Refuse a name that is taken, or that cannot stand in a key of AnnData."""
    if not name or key_name(name) != name:
        raise ValueError(
            f'"{name}" cannot name an encoder, since it becomes part of a key. Use letters, digits, "_", "-" and ".", '
            f'e.g. "{key_name(name) or "my_encoder"}".'
        )
    if name in CARDS and not overwrite:
        raise ValueError(f'there is an encoder "{name}" already. Pass another name, or overwrite=True.')


def _weights(
    name: str, checkpoint: str | os.PathLike[str] | None, hub_id: str | None, filename: str, revision: str
) -> Weights | None:
    """Where the weights lie, if that was given."""
    if checkpoint is not None and hub_id is not None:
        raise ValueError(f'encoder "{name}" has checkpoint= and hub_id=; pass one of them')
    if checkpoint is not None:
        return LocalFile(user_path(checkpoint, "checkpoint="))
    return None if hub_id is None else HubFile(hub_id, filename, revision)


def _new_card(name: str, given: Mapping[str, Any], weights: Weights | None) -> EncoderCard:
    """Make the card of an encoder that is based on no other."""
    missing = [key for key in REQUIRED if key not in given]
    if "timm_name" not in given and "factory" not in given:
        missing.insert(0, "timm_name or factory")
    if weights is None and "factory" not in given:
        missing.append("checkpoint or hub_id")
    if missing:
        raise ValueError(f'encoder "{name}" lacks {", ".join(missing)}. Pass them, or base= with a similar encoder.')
    stated = {"licence": NOT_STATED, "citation": NOT_STATED, "gated": False, "commercial_use": False, "mpp": None}
    return EncoderCard(
        **{"timm_name": "", **stated, **given},
        name=name,
        weights=BuiltIn() if weights is None else weights,
        verified="registered by the user",
    )


def _changed_card(name: str, base: str, given: Mapping[str, Any], weights: Weights | None) -> EncoderCard:
    """Make the card of an encoder from that of another one."""
    if base not in CARDS:
        raise KeyError(f'there is no encoder "{base}" to base "{name}" on; there are {", ".join(CARDS)}')
    changes = dict(given)
    if "timm_kwargs" in given:
        changes["layers"] = dict
    if "pooling" in given and given["pooling"] != CARDS[base].pooling:
        changes["head"] = None
    if "factory" in given:
        # Nothing that is known of the base's file holds for another network.
        changes |= {"timm_name": "", "timm_kwargs": {}, "layers": dict, "head": None, "rename": None}
        changes["classifier_classes"] = 0
        weights = BuiltIn() if weights is None else weights
    elif "timm_name" in given and weights is None:
        raise ValueError(f'encoder "{name}" has another architecture than "{base}". Pass its checkpoint= or hub_id=.')
    if weights is not None:
        changes["weights"] = weights
    return replace(CARDS[base], **changes, name=name, verified=f'registered by the user, based on "{base}"')


def _check_numbers(card: EncoderCard) -> None:
    """Refuse what is no size, no normalisation or no precision."""
    for key, value in (("dim", card.dim), ("input_px", card.input_px)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f'{key} of encoder "{card.name}" is {value!r}; pass a whole number of at least 1')
    if card.mpp is not None and not card.mpp > 0:
        raise ValueError(f'mpp of encoder "{card.name}" is {card.mpp!r}; pass microns per pixel, or None for any')
    for key, values in (("mean", card.mean), ("std", card.std)):
        if len(values) != N_CHANNELS:
            raise ValueError(f'{key} of encoder "{card.name}" has {len(values)} numbers; pass red, green and blue')
    if not all(value > 0 for value in card.std):
        raise ValueError(f'std of encoder "{card.name}" is {card.std}; pass positive numbers')
    if card.precision not in PRECISIONS:
        raise ValueError(
            f'precision of encoder "{card.name}" is {card.precision!r}; pass one of {", ".join(PRECISIONS)}'
        )
