"""Slides on disk that go in, and the zarr stores that come out, whole or not at all."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad

from spahgc._files import folder_written_whole
from spahgc._keys import SPATIAL, UNS, Uns
from spahgc._reading import read_h5ad, read_zarr, reading
from spahgc._validate import user_path

if TYPE_CHECKING:
    from anndata import AnnData

ZARR_FORMAT = 3
"""The same with every version of anndata."""
LABEL = "the slide"
REMEDY = "Write it again with adata.write_h5ad or adata.write_zarr, or leave it out."
ABOUT_TO_CHANGE = "zarr v3 autosharding|Consolidated metadata"
"""What anndata and zarr warn of, an array after another, and the user of this package cannot change."""


def slide_paths(sources: object) -> dict[str, Path]:
    """Absolute paths of slides by name.

    Raises
    ------
    TypeError
        If these are no paths.
    ValueError
        If there are none, if two have one name, if a name cannot be that of a file, or if one is no slide.
    FileNotFoundError
        If one is not there.
    """
    if isinstance(sources, str | os.PathLike | ad.AnnData) or not isinstance(sources, Iterable):
        raise TypeError(
            f"slides are passed as a list of paths, or as a dictionary of them by name, found {type(sources).__name__}. "
            "Write slides that are in memory with adata.write_h5ad first."
        )
    items = list(sources.items()) if isinstance(sources, Mapping) else [(None, source) for source in sources]
    if not items:
        raise ValueError("the list of slides is empty. Pass at least one path.")
    paths: dict[str, Path] = {}
    for given, source in items:
        if not isinstance(source, str | os.PathLike):
            raise TypeError(
                f"a slide must be the path of a .h5ad or .zarr, found {type(source).__name__}. Write slides that are in "
                "memory with adata.write_h5ad first."
            )
        path = Path(os.path.realpath(user_path(source, "a slide")))  # resolve() raises on a link to itself
        name = path.stem if given is None else str(given)
        if not name or name.startswith(".") or "/" in name or "\\" in name:
            raise ValueError(f'"{name}" cannot be the name of a file. Pass other keys of the dictionary.')
        if name in paths:
            raise ValueError(
                f'two slides are called "{name}": "{paths[name]}" and "{path}". Pass a dictionary of paths by name.'
            )
        _check_slide(path)
        paths[name] = path
    return paths


def _check_slide(path: Path) -> None:
    if not path.exists():
        raise FileNotFoundError(f'"{path}": there is no such slide.')
    if path.is_file() and path.suffix != ".h5ad":
        raise ValueError(f'"{path}" is no .h5ad. Pass slides as .h5ad, or as .zarr that adata.write_zarr wrote.')
    if path.is_dir() and not (path / "obs").is_dir():
        tables = path / "tables"
        fix = f"Pass the path of one of its tables in {tables}." if tables.is_dir() else "Pass one that holds obs."
        raise ValueError(f'"{path}" is no AnnData that adata.write_zarr wrote. {fix}')


def read_slide(path: Path) -> AnnData:
    """The slide in memory; the errors are those of :func:`spahgc._reading.reading`."""
    return read_zarr(path, LABEL, REMEDY) if path.is_dir() else read_h5ad(path, LABEL, REMEDY)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The file's root group, of h5py or zarr; only calls of theirs belong into the block."""
    with reading(path, LABEL, REMEDY):
        if path.is_dir():
            import zarr

            yield zarr.open_group(path, mode="r")
        else:
            import h5py

            with h5py.File(path, "r") as file:
                yield file


def image_files(path: Path) -> list[Path]:
    """The image files that ``uns["spatial"]`` of a slide names, as far as they are there."""
    images = []
    with _opened(path) as root:
        libraries = f"uns/{SPATIAL}"
        for library in root[libraries] if libraries in root else ():
            key = f"{libraries}/{library}/metadata/source_image_path"
            if key in root:
                images.append(Path(str(ad.io.read_elem(root[key]))))
    return sorted(image for image in images if image.is_file())


def read_made_with(path: Path, operation: str) -> dict[str, str]:
    """What a result was made from; empty where another program wrote it."""
    key = f"uns/{UNS}/{Uns.made_with}/{operation}"
    with _opened(path) as root:
        return {name: str(value) for name, value in ad.io.read_elem(root[key]).items()} if key in root else {}


def write_slide(adata: AnnData, path: Path, *, overwrite: bool = True) -> None:
    """Write a slide as zarr, whole or not at all; refuses to replace another one where it may not overwrite it."""
    with folder_written_whole(path, overwrite=overwrite) as part, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=ABOUT_TO_CHANGE)
        with ad.settings.override(zarr_write_format=ZARR_FORMAT):
            adata.write_zarr(part)
