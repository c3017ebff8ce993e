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
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from spahgc._files import folder_written_whole, is_being_replaced, remove_leftovers, write_hdf5
from spahgc._installation import update_advice
from spahgc._keys import UNS, Obsp, Uns
from spahgc._linear.trust import SECTION
from spahgc._parameters import Parameters
from spahgc._reading import UnreadableError, read_h5ad, reading
from spahgc._training.expert_tensors import broken_experts
from spahgc._training.model_tensors import TRUST, broken_parameters, broken_tensors
from spahgc._validate import quoted
from spahgc.pp._bank.content import broken_bank

if TYPE_CHECKING:
    from anndata import AnnData
    from torch import Tensor

    Description = dict[str, Any]
    Tensors = dict[str, Tensor]
    Migration = Callable[[Description, Tensors], tuple[Description, Tensors]]

FORMAT = 7
"""Version of the folder that :meth:`SpaHGC.save` writes."""
FILES = DESCRIPTION_FILE, WEIGHTS_FILE, BANK_FILE = "model.json", "network.safetensors", "bank.h5ad"
ENTRIES: dict[str, type | tuple[type, ...]] = {
    "sha256": dict,
    "genes": list,
    "parameters": (dict, list),
    "embedding": str,
    "preset": str,
    "seed": int,
    "history": (dict, list),
    "versions": dict,
}
"""What a description of any format must hold, and its type; parameters and history have checks of their own."""
LABEL, REMEDY = "the model", "Copy the whole folder of the model again, or fit it again."
"""How errors of a folder that cannot be read call it, and what they advise."""
MAX_READS, WAIT_S = 100, 0.05
"""How often a folder is read that another process replaces meanwhile, and the seconds to wait where nothing lies there."""

T = TypeVar("T")


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


def _from_3(description: Description, tensors: Tensors) -> tuple[Description, Tensors]:
    """Models that average line and graph by their share, predict from states, and see all references in every step."""
    new = {"experts": [], "n_retrieved": 0, "step_references": 0, "place": False}
    return description | {"parameters": {**description["parameters"], **new}}, tensors


def _from_4(description: Description, tensors: Tensors) -> tuple[Description, Tensors]:
    """Trust that did not tell for whom it holds, mostly a further section of a known patient.

    The support of a spot rests on one distance over all columns.
    """
    weight, blocks = tensors.get(f"{TRUST}support.weight"), f"{TRUST}support.blocks"
    if weight is not None and blocks not in tensors:
        tensors = {**tensors, blocks: torch.tensor([[0, len(weight)]])}
    names = {f"{TRUST}{part}.": f"{TRUST}{SECTION}.{part}." for part in ("correlation", "spread", "shared")}

    def renamed(name: str) -> str:
        before = next((before for before in names if name.startswith(before)), "")
        return names.get(before, "") + name.removeprefix(before)

    return description, {renamed(name): tensor for name, tensor in tensors.items()}


def _from_5(description: Description, tensors: Tensors) -> tuple[Description, Tensors]:
    """Surroundings that were so many neighbours, whatever the pitch."""
    return description | {"parameters": {"surroundings_um": 0.0, **description["parameters"]}}, tensors


def _from_6(description: Description, tensors: Tensors) -> tuple[Description, Tensors]:
    """Graphs without edges by place."""
    return description | {"parameters": {**description["parameters"], "n_placed": 0}}, tensors


MIGRATIONS: dict[int, Migration] = {2: _from_2, 3: _from_3, 4: _from_4, 5: _from_5, 6: _from_6}
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
    with reading(path, "the description of a model", REMEDY):
        content = path.read_bytes()
    try:
        description = json.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise ValueError(f'"{path}" is no JSON ({error}): it was not written by spahgc.') from error
    if not isinstance(description, dict):
        raise ValueError(f'"{path}" does not describe a model: it was not written by spahgc.')
    version = description.get("format")
    known = isinstance(version, int) and not isinstance(version, bool)
    if not known or (version != FORMAT and version not in MIGRATIONS):
        is_newer = isinstance(version, int) and version > FORMAT
        way_out = (
            f"A newer version of spahgc wrote it: {update_advice()}."
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
    wrong = [name for name, kind in ENTRIES.items() if not isinstance(description[name], kind)]
    genes = [] if "genes" in wrong else description["genes"]
    if wrong or not all(isinstance(gene, str) for gene in genes):
        raise _damaged(folder, f"of another type than they should be are {quoted(wrong or ['genes'])}")
    return description


def _damaged(folder: Path, problem: object) -> ValueError:
    return UnreadableError(f'"{folder / DESCRIPTION_FILE}" is damaged ({problem}). {REMEDY}')


def _migrated(folder: Path, description: Description, tensors: Tensors) -> tuple[Description, Tensors]:
    """Both in the newest format."""
    try:
        for version in range(description["format"], FORMAT):
            description, tensors = MIGRATIONS[version](description, tensors)
        _check_history(description["history"])
        _check_parameters(description["parameters"])
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise _damaged(folder, error) from error
    return description | {"format": FORMAT}, tensors


def _check_history(history: dict[str, list[float]]) -> None:
    """A number of every term for every epoch; which terms there are is the affair of the version that trained."""
    lengths = {name: len(values) for name, values in history.items()}
    if not all(isinstance(value, int | float) for values in history.values() for value in values):
        raise ValueError("history: some losses are no numbers")
    if not all(value >= 1 and float(value).is_integer() for value in history.get("epoch", [])):
        raise ValueError("history: some epochs are no whole numbers from 1 on")
    if history and ("epoch" not in history or len(set(lengths.values())) > 1):
        raise ValueError(f"history: epochs or terms are missing, found are {lengths}")


def _check_parameters(parameters: dict[str, object]) -> None:
    missing = [field.name for field in fields(Parameters) if field.name not in parameters]
    if missing:
        raise ValueError(f"parameters: {quoted(missing)} missing")
    Parameters.from_dict(parameters)
    problem = broken_parameters(parameters)
    if problem is not None:
        raise ValueError(f"parameters: {problem}")


def is_model_folder(folder: Path) -> bool:
    """Whether the folder holds a saved model and nothing else, so that it may be replaced."""
    return _read_in_one_piece(folder, _is_model_folder)


def _is_model_folder(folder: Path) -> bool:
    try:
        if {path.name for path in folder.iterdir()} != set(FILES):
            return False
        read_description(folder)
    except (OSError, ValueError):
        return False
    return True


def check_model_folder(folder: Path, label: str, option: str, *, overwrite: bool) -> None:
    """Refuse a folder in which something lies that a model must not replace.

    Parameters
    ----------
    folder
        Where a model is to be saved.
    label
        How messages call it.
    option
        What says that a model is replaced, as a caller writes it.
    overwrite
        Whether it was said.

    Raises
    ------
    FileExistsError
        If something lies there, and it is no model, or nobody said that a model is replaced.
    """
    if not folder.exists() or (overwrite and is_model_folder(folder)) or not folder.exists():
        return
    if overwrite:
        raise FileExistsError(
            f"{label} exists already and holds something else than a model, or more: it is not replaced. Pass another "
            "folder, or remove it."
        )
    raise FileExistsError(
        f"{label} exists already. Pass {option} to replace a model and nothing else, or another folder."
    )


def write_folder(folder: Path, tensors: Tensors, bank: AnnData, description: Description, *, overwrite: bool) -> None:
    """Write a model, all or nothing; the errors are those of :meth:`SpaHGC.save`."""
    from safetensors.torch import save_file

    check_model_folder(folder, f'"{folder}"', "overwrite=True", overwrite=overwrite)
    n_bytes = sum(part.nbytes for part in tensors.values()) + bank.__sizeof__()
    with folder_written_whole(folder, overwrite=overwrite, n_bytes=n_bytes) as part:
        save_file(_apart(tensors), part / WEIGHTS_FILE)
        write_hdf5(bank, part / BANK_FILE)
        description = description | {"sha256": checksums(part)}
        (part / DESCRIPTION_FILE).write_text(json.dumps(description, indent=1), encoding="utf-8")


def _apart(tensors: Tensors) -> Tensors:
    """Tensors that share no memory, as their file wants it; those that did are copied."""
    found, seen = dict(tensors), set()
    for name, part in tensors.items():
        place = part.untyped_storage().data_ptr()
        if place in seen:
            found[name] = part.clone()
        seen.add(place)
    return found


def read_folder(folder: Path) -> tuple[Tensors, AnnData, Description]:
    """Read what :func:`write_folder` wrote, in the newest format; the errors are those of :meth:`SpaHGC.load`.

    All files are those of one model, also while another process replaces it.
    """
    return _read_in_one_piece(folder, _read_folder)


def _read_in_one_piece(folder: Path, read: Callable[[Path], T]) -> T:
    """What is read of a folder while it is not replaced; once more where it was."""
    target = Path(os.path.realpath(folder))
    for _ in range(MAX_READS):
        before, found, problem = _identity(folder), None, None
        try:
            found = (read(folder),)
        except (OSError, ValueError) as error:
            problem = error
        if is_being_replaced(target):
            with suppress(OSError):
                remove_leftovers(target)  # what a killed process has taken away gets its name back
            time.sleep(WAIT_S)
        elif _identity(folder) == before:
            if problem is not None:
                raise problem
            if found is not None:
                return found[0]
    raise BlockingIOError(f'"{folder}" is replaced all the time. Wait until other processes have saved their models.')


def _identity(folder: Path) -> tuple[tuple[int, ...] | None, ...]:
    """What differs between a folder and another one that has its name later."""
    return tuple(_identity_of(path) for path in (folder, *(folder / name for name in FILES)))


def _identity_of(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


def _read_folder(folder: Path) -> tuple[Tensors, AnnData, Description]:
    from safetensors.torch import load_file

    with reading(folder, LABEL, REMEDY):
        missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f'"{folder}" is no saved model: {quoted(missing)} not found there. Pass the folder that model.save wrote.'
        )
    description = _description_as_written(folder)
    with reading(folder, LABEL, REMEDY):
        found = checksums(folder)
    if description["sha256"] != found:
        raise ValueError(
            f'the files in "{folder}" do not fit together: not all are those that {DESCRIPTION_FILE} was written '
            "with. Copy the whole folder of the model again."
        )
    bank = read_h5ad(folder / BANK_FILE, "the bank of the model", REMEDY)
    if list(bank.var_names) != description["genes"]:
        raise ValueError(f'the files in "{folder}" do not fit together: their genes differ. Save the model again.')
    with reading(folder / WEIGHTS_FILE, "the weights of the model", REMEDY):
        tensors = load_file(folder / WEIGHTS_FILE)
    description, tensors = _migrated(folder, description, tensors)
    with reading(folder, LABEL, REMEDY):
        _check_content(tensors, bank, description)
    return tensors, bank, description


def _check_content(tensors: Tensors, bank: AnnData, description: Description) -> None:
    """Refuse a bank and tensors that do not fit to each other, whatever their checksums say."""
    problem = broken_bank(bank)
    if problem is not None:
        raise ValueError(f"of {BANK_FILE}, {problem}")
    if Obsp.reference_connectivities not in bank.obsp:
        raise ValueError(f'{BANK_FILE} has no obsp["{Obsp.reference_connectivities}"], the graph of the references')
    embedding, parameters = description["embedding"], description["parameters"]
    if embedding not in bank.obsm or bank.uns[UNS][Uns.bank]["embedding"] != embedding:
        raise ValueError(f'{BANK_FILE} was made of another embedding than "{embedding}"')
    too_many = [name for name in ("n_cross", "n_reference") if parameters[name] > bank.n_obs]
    if too_many:
        raise ValueError(f"{too_many[0]} = {parameters[too_many[0]]} is more than the {bank.n_obs} spots of the bank")
    problem = broken_tensors(tensors, n_spots=bank.n_obs, n_genes=bank.n_vars, dim=bank.obsm[embedding].shape[1])
    problem = problem or broken_experts(tensors, parameters["experts"])
    if problem is not None:
        raise ValueError(f"of {WEIGHTS_FILE}, {problem}")
