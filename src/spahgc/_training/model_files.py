"""The files of a saved model: writing them, reading them, migrating older ones, and whether they fit together.

A change of what :meth:`SpaHGC.save` writes makes a new format. Raise :data:`FORMAT`, and add to :data:`MIGRATIONS`, under
the number of the format before, a function that turns its description and tensors into those of the new one: it gets
fresh dictionaries and returns them changed. A parameter that is new belongs into its ``"parameters"``, with the value under
which models of that time were trained. Older formats then pass through all migrations from theirs on, in memory: files stay
as they are until the model is saved again. Store a model of the format before in ``tests/saved``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad

from spahgc._files import folder_written_whole
from spahgc._parameters import Parameters
from spahgc._validate import quoted

if TYPE_CHECKING:
    from anndata import AnnData
    from torch import Tensor

    Description = dict[str, Any]
    Tensors = dict[str, Tensor]
    Migration = Callable[[Description, Tensors], tuple[Description, Tensors]]

FORMAT = 3
"""Version of the folder that :meth:`SpaHGC.save` writes."""
DESCRIPTION_FILE, WEIGHTS_FILE, BANK_FILE = "model.json", "network.safetensors", "bank.h5ad"
ENTRIES = ("sha256", "genes", "parameters", "embedding", "preset", "seed", "history", "versions")
"""What a description of any format must hold."""


def _from_2(description: Description, tensors: Tensors) -> tuple[Description, Tensors]:
    """History by epoch to history by term; tensors under the names of the classes that hold them."""
    epochs = description["history"]
    history = {name: [epoch[name] for epoch in epochs] for name in epochs[0]} if epochs else {}
    names = {
        "basis.line.tissue.": "node_features.ridge.image_axes.",
        "basis.line.": "node_features.ridge.",
        "basis.tissue.": "node_features.image_axes.",
        "basis.": "node_features.",
    }

    def renamed(name: str) -> str:
        before = next((before for before in names if name.startswith(before)), "")
        return names.get(before, "") + name.removeprefix(before)

    return description | {"history": history}, {renamed(name): tensor for name, tensor in tensors.items()}


MIGRATIONS: dict[int, Migration] = {2: _from_2}
"""From each older format that is read to the one after it."""


def checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of the files beside the description."""
    sums = {}
    for name in (WEIGHTS_FILE, BANK_FILE):
        with (folder / name).open("rb") as file:
            sums[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return sums


def read_description(folder: Path) -> Description:
    """The description of a saved model in the newest format; refuses what is none."""
    return _migrated(folder, _description_as_written(folder), {})[0]


def _description_as_written(folder: Path) -> Description:
    path = folder / DESCRIPTION_FILE
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f'"{path}" is no JSON ({error}): it was not written by spahgc.') from error
    if not isinstance(description, dict):
        raise ValueError(f'"{path}" does not describe a model: it was not written by spahgc.')
    version = description.get("format")
    if version != FORMAT and version not in MIGRATIONS:
        is_newer = isinstance(version, int) and version > FORMAT
        way_out = (
            'A newer version of spahgc wrote it: run pip install -U "spahgc".'
            if is_newer
            else "Install the version that wrote it, or fit the model again."
        )
        readable = ", ".join(map(str, sorted(MIGRATIONS)))
        raise ValueError(
            f'"{folder}" has format {version!r}, this version of spahgc reads format {readable} and {FORMAT}. {way_out}'
        )
    missing = set(ENTRIES) - set(description)
    if missing:
        raise ValueError(f'"{path}" is incomplete: it lacks {quoted(sorted(missing))}.')
    return description


def _migrated(folder: Path, description: Description, tensors: Tensors) -> tuple[Description, Tensors]:
    """Both in the newest format."""
    try:
        for version in range(description["format"], FORMAT):
            description, tensors = MIGRATIONS[version](description, tensors)
        _check_history(description["history"])
        _check_parameters(description["parameters"])
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f'"{folder / DESCRIPTION_FILE}" is damaged ({error}). Copy the whole folder of the model again, or fit it again.'
        ) from error
    return description | {"format": FORMAT}, tensors


def _check_history(history: dict[str, list[float]]) -> None:
    """A number of every term for every epoch; which terms there are is the affair of the version that trained."""
    lengths = {name: len(values) for name, values in history.items()}
    if history and ("epoch" not in history or len(set(lengths.values())) > 1):
        raise ValueError(f"history: epochs or terms are missing, found are {lengths}")


def _check_parameters(parameters: dict[str, object]) -> None:
    missing = [field.name for field in fields(Parameters) if field.name not in parameters]
    if missing:
        raise ValueError(f"parameters: {quoted(missing)} missing")
    Parameters.from_dict(parameters)


def is_model_folder(folder: Path) -> bool:
    """Whether the folder holds a saved model and nothing else, so that it may be replaced."""
    if not folder.is_dir() or {path.name for path in folder.iterdir()} != {DESCRIPTION_FILE, WEIGHTS_FILE, BANK_FILE}:
        return False
    try:
        read_description(folder)
    except ValueError:
        return False
    return True


def write_folder(folder: Path, tensors: Tensors, bank: AnnData, description: Description, *, overwrite: bool) -> None:
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


def read_folder(folder: Path) -> tuple[Tensors, AnnData, Description]:
    """Read what :func:`write_folder` wrote, in the newest format; the errors are those of :meth:`SpaHGC.load`."""
    from safetensors.torch import load_file

    missing = [name for name in (DESCRIPTION_FILE, WEIGHTS_FILE, BANK_FILE) if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(f'"{folder}" is no saved model: {quoted(missing)} not found there.')
    description = _description_as_written(folder)
    if description["sha256"] != checksums(folder):
        raise ValueError(
            f'the files in "{folder}" do not fit together: not all are those that {DESCRIPTION_FILE} was written '
            "with. Copy the whole folder of the model again."
        )
    bank = ad.read_h5ad(folder / BANK_FILE)
    if list(bank.var_names) != description["genes"]:
        raise ValueError(f'the files in "{folder}" do not fit together: their genes differ. Save the model again.')
    description, tensors = _migrated(folder, description, load_file(folder / WEIGHTS_FILE))
    return tensors, bank, description
