"""Slides that are named by their paths, where a function takes slides: read, and called by their files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anndata import AnnData

from spahgc._installation import install_command
from spahgc._keys import SPATIAL, Obs
from spahgc._reading import broken_matrix, read_h5ad, read_zarr, reading, unreadable
from spahgc._slides.tables import ATTRS, is_spatialdata
from spahgc._validate import quoted, user_path

if TYPE_CHECKING:
    from spatialdata import SpatialData

FILE, STORE = ".h5ad", ".zarr"
ELEMENTS = ("tables", "images", "labels", "points", "shapes")
"""Folders of a SpatialData on disk."""
NAMES_PATTERN = "*?["
"""Characters of a pattern."""
FILE_REMEDY = "Write it again with adata.write_h5ad."
STORE_REMEDY = "Write it again with adata.write_zarr or sdata.write."


def stored_slides(items: Any, label: str) -> Any:
    """Slides in the place of their paths; what is no path passes through.

    Parameters
    ----------
    items
        A slide, a path, or several of them. A path is that of a ``.h5ad``, of a ``.zarr`` of AnnData or SpatialData, of a
        folder that holds such, or a pattern ("refs/*.h5ad"). One that stands alone and names none of these passes
        through: it may be that of a bank.
    label
        Role of the slides in messages, e.g. ``"reference"``.

    Returns
    -------
    Slides in memory, the pixels of a SpatialData on disk. A slide that says nothing of its name is called by its file.

    Raises
    ------
    FileNotFoundError
        If there is nothing at a path, or nothing fits a pattern.
    ValueError
        If a file is no slide, or a list holds the path of a bank.
    UnreadableError
        If a slide is damaged.
    """
    if isinstance(items, str | os.PathLike):
        path = user_path(items, f"the path of a {label}")
        if not _names_slides(path):
            return items
        found = [_read(each, label) for each in _members(path, label)]
        return found[0] if len(found) == 1 else found  # which may be a bank in a file
    if isinstance(items, AnnData | bytes | dict) or is_spatialdata(items) or not isinstance(items, Iterable):
        return items
    slides: list[Any] = []
    for item in items:
        if isinstance(item, str | os.PathLike):
            slides += [_read(each, label) for each in _members(user_path(item, f"the path of a {label}"), label)]
        else:
            slides.append(item)
    return slides


def _names_slides(path: Path) -> bool:
    """Whether a path that stands alone is meant for slides; otherwise it is left to whoever opens banks."""
    if path.is_dir():
        return _kind(path) is not None or bool(_inside(path))
    return path.is_file() or path.suffix == FILE or _is_pattern(path)


def _is_pattern(path: Path) -> bool:
    return not path.exists() and any(sign in str(path) for sign in NAMES_PATTERN)


def _members(path: Path, label: str) -> list[Path]:
    """The slides that a path names."""
    if _is_pattern(path):
        found = sorted(map(Path, glob(str(path))))
        if not found:
            raise FileNotFoundError(f'{label} "{path}": no file fits this pattern.')
        return found
    if not path.exists():
        raise FileNotFoundError(f'{label} "{path}": there is no such file. Pass the path of a {FILE} or {STORE}.')
    return [path] if path.is_file() or _kind(path) is not None else _inside(path) or [path]


def _inside(folder: Path) -> list[Path]:
    """Slides in a folder that is no store itself."""
    if (folder / "zarr.json").is_file() or (folder / ".zgroup").is_file():
        return []
    return sorted(each for each in folder.iterdir() if each.suffix in (FILE, STORE) and not each.name.startswith("."))


def _kind(folder: Path) -> type[AnnData] | str | None:
    """What a folder was written by."""
    if (folder / "obs").is_dir():
        return AnnData
    is_store = (folder / "zarr.json").is_file() or (folder / ".zgroup").is_file()
    return "SpatialData" if is_store and any((folder / name).is_dir() for name in ELEMENTS) else None


def _read(path: Path, label: str) -> AnnData | SpatialData:
    called = f"the {label}"
    if path.is_file():
        if path.suffix != FILE:
            raise ValueError(
                f'{label} "{path}" is no slide: it ends in "{path.suffix}". Pass a {FILE} or a {STORE}, or read it with '
                "one of the functions of spahgc.io."
            )
        return _named(read_h5ad(path, called, FILE_REMEDY), path)
    kind = _kind(path)
    if kind is AnnData:
        return _named(read_zarr(path, called, STORE_REMEDY), path)
    if kind is None:
        raise ValueError(
            f'{label} "{path}" is a folder, and no slide that adata.write_zarr or sdata.write wrote. Pass a {FILE} or a '
            f"{STORE}; a bank of references is passed alone, not in a list."
        )
    return _read_spatialdata(path, called)


def _read_spatialdata(path: Path, label: str) -> SpatialData:
    try:
        import spatialdata
    except ImportError as error:
        raise ImportError(
            f'"{path}" is a SpatialData, and spatialdata is not installed. Run {install_command("spatialdata")}.'
        ) from error
    with reading(path, label, STORE_REMEDY):
        sdata = spatialdata.read_zarr(path)
    for name, table in sdata.tables.items():
        problem = broken_matrix(table)
        if problem is not None:
            raise unreadable(path, label, f"of the table {quoted([name])}, {problem}", STORE_REMEDY)
    return sdata


def _named(adata: AnnData, path: Path) -> AnnData:
    """A slide with a name: its own, or that of its file."""
    has_name = Obs.slide in adata.obs or "library_id" in adata.obs or adata.uns.get(SPATIAL) or adata.uns.get(ATTRS)
    if not has_name:
        adata.obs[Obs.slide] = path.stem
    return adata
