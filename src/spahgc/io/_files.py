"""Files of a slide: those that must be there, packed or not, and what they hold that must not occur twice."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import ItemsView, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from spahgc._reading import reading
from spahgc._validate import quoted, user_path

SHOWN_NAMES = 5
"""Names that a list of names in an error shows."""
GZIP_SIGNATURE = b"\x1f\x8b"
"""First bytes of a packed file. Browsers unpack what they load and leave the name, so that the name does not tell."""


def existing_file(path: str | os.PathLike[str], label: str) -> Path:
    """Return the path of a file that is there.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    """
    file = user_path(path, label)
    if not file.is_file():
        kind = "a folder" if file.is_dir() else "nothing"
        raise FileNotFoundError(f'{label}: "{file}" is not a file ({kind} is there). Check the path.')
    return file


def folder_content(folder: Path) -> str:
    """What a folder holds, for messages."""
    return quoted(sorted(item.name for item in folder.iterdir()))


def is_packed(path: Path) -> bool:
    """Whether the content of a file is that of gzip, whatever its name says."""
    with path.open("rb") as file:
        return file.read(len(GZIP_SIGNATURE)) == GZIP_SIGNATURE


def read_bytes(path: Path) -> bytes:
    """The content of a file, unpacked."""
    content = path.read_bytes()
    return gzip.decompress(content) if content.startswith(GZIP_SIGNATURE) else content


def read_text(path: Path) -> str:
    """The text of a file, unpacked, without a byte order mark."""
    return read_bytes(path).decode("utf-8-sig")


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """A file for readers that know no gzip: the path itself, or an unpacked copy that is gone afterwards."""
    if not is_packed(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name.removesuffix(".gz")
        with gzip.open(path, "rb") as source, copy.open("wb") as target:
            shutil.copyfileobj(source, target)
        yield copy


def read_json(path: Path, label: str, remedy: str) -> ItemsView[str, object]:
    """Read the entries of a JSON object, packed or not; the errors are those of :func:`spahgc._reading.reading`."""
    with reading(path, label, remedy):
        content = json.loads(read_bytes(path))
        if not isinstance(content, dict):
            raise TypeError(f"an object of names and values is needed, found {type(content).__name__}")
        return content.items()


def refuse_repeated(names: pd.Index, label: str, remedy: str) -> None:
    """Refuse names that occur more than once.

    Raises
    ------
    ValueError
        If there are such names.
    """
    if not names.is_unique:
        repeated = [name for name, count in Counter(names).items() if count > 1]
        raise ValueError(f"{len(repeated)} {label} occur more than once: {listed(repeated)}. {remedy}")


def listed(names: Iterable[object]) -> str:
    """List the first few names, without quotes."""
    items = [str(name) for name in names]
    return ", ".join(items[:SHOWN_NAMES]) + (f", ... ({len(items)} in all)" if len(items) > SHOWN_NAMES else "")
