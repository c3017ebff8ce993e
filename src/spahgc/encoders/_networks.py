"""Networks from cards: the parts that timm does not bring, and what makes one vector of a network's output.

Loads torch when it is imported, so it is imported where an encoder is loaded and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import timm
import torch
from torch import Tensor, nn

from spahgc._random import drawing_from
from spahgc.encoders._card import CLASS_AND_MEAN, CLASS_TOKEN, MEAN_TOKEN, THIRD_STAGE, EncoderCard

TOKEN_POOLINGS = (CLASS_TOKEN, CLASS_AND_MEAN, MEAN_TOKEN)
"""Poolings of transformers that are done here where the network does not do them itself."""

SEED = 0
"""Of initial weights, which the published ones replace."""
POOL_HEADS = 8
STEM_STRIDE = 4
STAGES_KEPT = 4
"""Levels of a ResNet up to its third stage; the stem is the first."""


class ConvStem(nn.Module):
    """CTransPath's way from pixels to patches of 4 x 4: two strided convolutions, then one over the channels."""

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        embed_dim: int = 96,
        norm_layer: Callable[[int], nn.Module] | None = None,
        **_: object,
    ) -> None:
        super().__init__()
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        self.grid_size = (height // STEM_STRIDE, width // STEM_STRIDE)
        narrow, middle = embed_dim // 8, embed_dim // 4
        self.proj = nn.Sequential(
            nn.Conv2d(3, narrow, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(narrow),
            nn.ReLU(),
            nn.Conv2d(narrow, middle, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(middle),
            nn.ReLU(),
            nn.Conv2d(middle, embed_dim, 1),
        )
        self.norm = nn.Identity() if norm_layer is None else norm_layer(embed_dim)

    def forward(self, images: Tensor) -> Tensor:
        """Batch x 3 x height x width in, batch x rows x columns x channels out."""
        return self.norm(self.proj(images).permute(0, 2, 3, 1))


def pool_tokens(tokens: Tensor, pooling: str, n_prefix: int) -> Tensor:
    """Make one vector of the tokens of a transformer.

    Parameters
    ----------
    tokens
        Batch x tokens x channels: the class token, then the registers, then the patches.
    pooling
        One of :data:`TOKEN_POOLINGS`.
    n_prefix
        How many tokens are no patches.

    Returns
    -------
    Batch x channels; batch x (2 * channels) for the class token beside the mean of the patches.
    """
    if pooling == CLASS_TOKEN:
        return tokens[:, 0]
    mean = tokens[:, n_prefix:].mean(1)
    return mean if pooling == MEAN_TOKEN else torch.cat([tokens[:, 0], mean], dim=1)


class Headed(nn.Module):
    """A timm network with another head, and with its intermediate levels as timm shows them."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network: Any = network  # timm's networks have methods that torch's Module does not declare

    def forward(self, images: Tensor) -> Tensor:
        """Batch x 3 x height x width in, batch x dim out."""
        return self.forward_head(self.network.forward_features(images))

    def forward_head(self, features: Tensor) -> Tensor:
        """Make one vector a patch of the network's features."""
        raise NotImplementedError

    def forward_intermediates(self, images: Tensor, indices: list[int] | None = None) -> tuple[Tensor, list[Tensor]]:
        """The network's features, and its intermediate levels."""
        return self.network.forward_intermediates(images, indices=indices)


class TokenPooled(Headed):
    """A vision transformer whose tokens are pooled here."""

    def __init__(self, network: nn.Module, pooling: str) -> None:
        super().__init__(network)
        self.pooling = pooling

    def forward_head(self, features: Tensor) -> Tensor:
        """Batch x tokens x channels in, batch x dim out."""
        return pool_tokens(features, self.pooling, self.network.num_prefix_tokens)


class AttentionPool(nn.Module):
    """CONCH's pooling: one learned query attends to all tokens."""

    def __init__(self, channels: int, dim: int, *, bias: bool) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(1, dim))
        self.norm_query, self.norm_tokens = nn.LayerNorm(dim), nn.LayerNorm(channels)
        self.to_query = nn.Linear(dim, dim, bias=bias)
        self.to_key, self.to_value = nn.Linear(channels, dim, bias=bias), nn.Linear(channels, dim, bias=bias)
        self.to_output = nn.Linear(dim, dim, bias=bias)
        self.norm = nn.LayerNorm(dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Batch x tokens x channels in, batch x dim out."""
        tokens = self.norm_tokens(tokens)
        query = self.to_query(self.norm_query(self.query)).expand(len(tokens), 1, -1)
        query, key, value = (
            part.unflatten(2, (POOL_HEADS, -1)).transpose(1, 2)
            for part in (query, self.to_key(tokens), self.to_value(tokens))
        )
        pooled = nn.functional.scaled_dot_product_attention(query, key, value)
        return self.norm(self.to_output(pooled.transpose(1, 2).flatten(2)[:, 0]))


class AttentionPooled(Headed):
    """A vision transformer with CONCH's pooling."""

    def __init__(self, network: nn.Module, dim: int, *, bias: bool) -> None:
        super().__init__(network)
        self.pool = AttentionPool(self.network.embed_dim, dim, bias=bias)

    def forward_head(self, features: Tensor) -> Tensor:
        """Batch x tokens x channels in, batch x dim out."""
        return self.pool(features)


class ThirdStage(Headed):
    """A ResNet up to its third stage, averaged over the plane."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        network.layer4, network.fc = nn.Identity(), nn.Identity()

    def forward_head(self, features: Tensor) -> Tensor:
        """Batch x channels x height x width in, batch x channels out."""
        return features.mean((2, 3))

    def forward_intermediates(self, images: Tensor, indices: list[int] | None = None) -> tuple[Tensor, list[Tensor]]:
        """The features, and the levels up to the third stage."""
        return self.network.forward_intermediates(images, indices=indices or list(range(STAGES_KEPT)))


def build_network(card: EncoderCard) -> nn.Module:
    """Build the network of a card, where possible without drawing weights: for a ViT-L that alone takes 7 s."""
    with drawing_from(SEED):
        return _build(card)


def _build(card: EncoderCard) -> nn.Module:
    if card.factory is not None:
        return card.factory()
    kwargs: dict[str, Any] = {**card.timm_kwargs, **card.layers()}
    if card.classifier_classes:
        kwargs["num_classes"] = card.classifier_classes
    try:
        with torch.device("meta"):
            module = _build_from_timm(card, kwargs)
    except (RuntimeError, NotImplementedError):
        pass  # some releases of timm compute with tensors while they build
    else:
        # What a weights file does not hold has to be computed by building in earnest.
        if {name for name, _ in module.named_buffers()} <= module.state_dict().keys():
            return module
    return _build_from_timm(card, kwargs)


def _build_from_timm(card: EncoderCard, kwargs: dict[str, Any]) -> nn.Module:
    if not timm.is_model(card.timm_name):
        raise ValueError(
            f'encoder "{card.name}" names the architecture "{card.timm_name}", which timm {timm.__version__} does not '
            "know. Register it with one of timm.list_models()."
        )
    network = timm.create_model(card.timm_name, pretrained=False, **kwargs)
    return network if card.head is None else card.head(network, card.dim)


def pool_output(card: EncoderCard, network: nn.Module) -> nn.Module:
    """Give a network with its weights the pooling that its card names; whatever else it is called is the network's."""
    if card.pooling == THIRD_STAGE:
        return ThirdStage(network)
    if card.classifier_classes:
        timm_network: Any = network
        timm_network.reset_classifier(0)
    if card.pooling not in TOKEN_POOLINGS or card.factory is not None:
        return network
    if not hasattr(network, "num_prefix_tokens"):
        raise ValueError(
            f'encoder "{card.name}" cannot be pooled by its {card.pooling}: {type(network).__name__} has no tokens. '
            f"Name another pooling, for instance the network's own."
        )
    if card.pooling == CLASS_TOKEN and getattr(network, "global_pool", None) == "token":
        return network
    return TokenPooled(network, card.pooling)
