"""Weights files: read without running code from them, and fitted to a network only where every tensor fits."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path

# Only the type of the error, which torch raises where it refuses a file.
from pickle import UnpicklingError  # noqa: TID251
from typing import TYPE_CHECKING

from spahgc._reading import UnreadableError, reading

if TYPE_CHECKING:
    from torch import Tensor, nn

DIGEST_DIGITS = 12
"""Hexadecimal digits of a SHA-256 that a revision shows."""

SHOWN_KEYS = 3
"""Tensors that an error names before it only counts."""

LABEL, REMEDY = "the weights file", "Download it again."
"""How errors of a file that cannot be read call it, and what they advise."""

WRAPPERS = ("state_dict", "model")
"""Entries under which training scripts put the weights beside other things."""

SAFETENSORS = ".safetensors"


def check_file(path: Path) -> None:
    """Refuse a path at which no file lies."""
    if path.is_dir():
        raise FileNotFoundError(f'checkpoint="{path}" is a folder. Name the weights file inside of it.')
    if not path.is_file():
        raise FileNotFoundError(f'checkpoint="{path}" does not exist. Check the path to the weights file.')


def file_revision(path: Path) -> str:
    """Revision of a local weights file: ``local:`` and the start of its SHA-256."""
    with reading(path, LABEL, REMEDY), path.open("rb") as file:
        return f"local:{hashlib.file_digest(file, 'sha256').hexdigest()[:DIGEST_DIGITS]}"


def module_revision(module: nn.Module) -> str:
    """Revision of a module that the user built: ``user:`` and the start of the SHA-256 of its tensors."""
    import torch

    digest = hashlib.sha256()
    for key, value in module.state_dict().items():
        if isinstance(value, torch.Tensor):
            digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
            # Bytes, since numpy knows no bfloat16; flat, since a tensor without dimensions cannot be viewed as bytes.
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return f"user:{digest.hexdigest()[:DIGEST_DIGITS]}"


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a weights file: safetensors, or what torch reads without unpickling objects.

    Raises
    ------
    ValueError
        If the file is damaged, holds pickled objects, or holds no named tensors.
    """
    content = _read_safetensors(path) if path.suffix == SAFETENSORS else _read_torch(path)
    return _named_tensors(content, path)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    with reading(path, LABEL, REMEDY):
        try:
            return load_file(path, device="cpu")
        except SafetensorError as error:
            raise UnreadableError(
                f"{path} is not a complete safetensors file ({_first_line(error)}). Download it again."
            ) from error


def _read_torch(path: Path) -> object:
    import torch

    with reading(path, LABEL, REMEDY):
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except UnpicklingError as error:
            raise UnreadableError(
                f"{path} is damaged, or holds pickled objects beside tensors. Pickles are refused, since reading one runs "
                "whatever code is in it. Where you trust the file, convert it once: "
                'state = torch.load("file.pth", weights_only=False), then safetensors.torch.save_file(state, '
                '"file.safetensors") with state reduced to its dict of tensors, and pass the new file.'
            ) from error
        except (OSError, ImportError):
            raise
        except Exception as error:  # whatever the unpickler stumbles over
            raise UnreadableError(
                f"{path} is not a complete PyTorch file ({_first_line(error)}). Download it again."
            ) from error


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__


def _named_tensors(content: object, path: Path) -> dict[str, Tensor]:
    """Take the dict of tensors out of what a training script saved."""
    import torch

    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in content.items()
    ):
        raise ValueError(
            f"{path} holds a {type(content).__name__} that is not a plain dict of tensors. "
            "Save the network's state_dict() and pass that file."
        )
    return dict(content)


def load_tensors(
    module: nn.Module, stored: Mapping[str, Tensor], *, path: Path, network: str, optional: Collection[str] = ()
) -> None:
    """Load tensors into a network, if and only if names and shapes are the same.

    Parameters
    ----------
    module
        The network; its own tensors may be on the meta device. Numbers are converted to its types.
    stored
        Tensors of the file, by name.
    path, network
        The file and the architecture, for the error.
    optional
        Prefixes of tensors that may be in the file although the network has no place for them (its classifier).

    Raises
    ------
    ValueError
        If a tensor is missing, unexpected, or of another shape.
    """
    expected = module.state_dict()
    tensors = {key: value for key, value in stored.items() if key in expected or not key.startswith(tuple(optional))}
    missing = [key for key in expected if key not in tensors]
    unexpected = [key for key in tensors if key not in expected]
    reshaped = [
        f"{key} {tuple(tensors[key].shape)} instead of {tuple(wanted.shape)}"
        for key, wanted in expected.items()
        if key in tensors and tensors[key].shape != wanted.shape
    ]
    groups = {"missing": missing, "unexpected": unexpected, "of another shape": reshaped}
    if any(groups.values()):
        parts = "; ".join(f"{label}: {_some(keys)}" for label, keys in groups.items() if keys)
        raise ValueError(
            f"{path} does not hold the weights of {network} ({len(expected)} tensors expected, {len(stored)} found). "
            f"Tensors {parts}. Pass the file made for this encoder, or name the encoder that the file belongs to."
        )
    # Copies, since safetensors may hand out the mapped file itself, which somebody may overwrite.
    copies = {key: value.to(expected[key].dtype, copy=True) for key, value in tensors.items()}
    module.load_state_dict(copies, assign=True)


def _some(keys: list[str]) -> str:
    """Name the first keys and count the rest."""
    rest = len(keys) - SHOWN_KEYS
    return ", ".join(keys[:SHOWN_KEYS]) + (f" and {rest} more" if rest > 0 else "")
