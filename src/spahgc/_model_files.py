"""The files of a saved model: what belongs to one, and whether they fit together."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from spahgc._validate import listing

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
        raise ValueError(f'"{folder / DESCRIPTION_FILE}" is incomplete: it lacks {listing(sorted(missing))}.')
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
