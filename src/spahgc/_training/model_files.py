"""The files of a saved model: writing them, reading them, and whether they fit together."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad

from spahgc._files import folder_written_whole
from spahgc._validate import quoted

if TYPE_CHECKING:
    from anndata import AnnData
    from torch import Tensor

FORMAT = 2
"""Version of the folder that :meth:`SpaHGC.save` writes."""
DESCRIPTION_FILE, WEIGHTS_FILE, BANK_FILE = "model.json", "network.safetensors", "bank.h5ad"


def checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of the files beside the description."""
    sums = {}
    for name in (WEIGHTS_FILE, BANK_FILE):
        with (folder / name).open("rb") as file:
            sums[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return sums


def read_description(folder: Path) -> dict[str, Any]:
    """The description of a saved model; refuses what is none."""
    try:
        description = json.loads((folder / DESCRIPTION_FILE).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f'"{folder / DESCRIPTION_FILE}" is no JSON ({error}): it was not written by spahgc.'
        ) from error
    if not isinstance(description, dict):
        raise ValueError(f'"{folder / DESCRIPTION_FILE}" does not describe a model: it was not written by spahgc.')
    if description.get("format") != FORMAT:
        raise ValueError(
            f'"{folder}" has format {description.get("format")!r}, this version of spahgc reads format {FORMAT}. '
            "Install the version that wrote it, or fit the model again."
        )
    missing = {"sha256", "genes", "parameters", "embedding", "preset", "seed", "history", "versions"} - set(description)
    if missing:
        raise ValueError(f'"{folder / DESCRIPTION_FILE}" is incomplete: it lacks {quoted(sorted(missing))}.')
    return description


def is_model_folder(folder: Path) -> bool:
    """Whether the folder holds a saved model and nothing else, so that it may be replaced."""
    if not folder.is_dir() or {path.name for path in folder.iterdir()} != {DESCRIPTION_FILE, WEIGHTS_FILE, BANK_FILE}:
        return False
    try:
        read_description(folder)
    except ValueError:
        return False
    return True


def write_folder(
    folder: Path, tensors: dict[str, Tensor], bank: AnnData, description: dict[str, Any], *, overwrite: bool
) -> None:
    """Write a model, all or nothing; the errors are those of :meth:`SpaHGC.save`."""
    from safetensors.torch import save_file

    if folder.exists() and not (overwrite and is_model_folder(folder)):
        raise FileExistsError(
            f'"{folder}" exists already. Pass overwrite=True to replace a model and nothing else, or another folder.'
        )
    with folder_written_whole(folder, overwrite=overwrite) as part:
        save_file(tensors, part / WEIGHTS_FILE)
        bank.write_h5ad(part / BANK_FILE)
        description = description | {"sha256": checksums(part)}
        (part / DESCRIPTION_FILE).write_text(json.dumps(description, indent=1), encoding="utf-8")


def read_folder(folder: Path) -> tuple[dict[str, Tensor], AnnData, dict[str, Any]]:
    """Read what :func:`write_folder` wrote; the errors are those of :meth:`SpaHGC.load`."""
    from safetensors.torch import load_file

    missing = [name for name in (DESCRIPTION_FILE, WEIGHTS_FILE, BANK_FILE) if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(f'"{folder}" is no saved model: {quoted(missing)} not found there.')
    description = read_description(folder)
    if description["sha256"] != checksums(folder):
        raise ValueError(
            f'the files in "{folder}" do not fit together: not all are those that {DESCRIPTION_FILE} was written '
            "with. Copy the whole folder of the model again."
        )
    bank = ad.read_h5ad(folder / BANK_FILE)
    if list(bank.var_names) != description["genes"]:
        raise ValueError(f'the files in "{folder}" do not fit together: their genes differ. Save the model again.')
    return load_file(folder / WEIGHTS_FILE), bank, description
