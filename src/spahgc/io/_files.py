"""Files of a slide: those that must be there, and errors of those that cannot be read."""

from __future__ import annotations

import json
import os
import zlib
from collections import Counter
from collections.abc import ItemsView, Iterable
from pathlib import Path

import pandas as pd

from spahgc._validate import quoted, user_path

READING_ERRORS = (OSError, EOFError, zlib.error, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError)
"""What pandas and gzip raise where a table is damaged."""
SHOWN_NAMES = 5
"""Names that a list of names in an error shows."""


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


def first_match(folder: Path, patterns: Iterable[str], label: str, remedy: str) -> Path | None:
    """Return what the first fitting pattern finds in a folder; ``None`` where none fits.

    Raises
    ------
    ValueError
        If that pattern finds several; `label` says of what, `remedy` what to do.
    """
    for pattern in patterns:
        matches = sorted(folder.glob(pattern))
        if len(matches) > 1:
            names = quoted(file.name for file in matches)
            raise ValueError(f'"{folder}" holds {len(matches)} {label}: {names}. {remedy}')
        if matches:
            return matches[0]
    return None


def folder_content(folder: Path) -> str:
    """What a folder holds, for messages."""
    return quoted(sorted(item.name for item in folder.iterdir()))


def unreadable(label: str, path: Path, error: Exception, remedy: str) -> ValueError:
    """Make the error of a file that is damaged or of another format."""
    size = "a folder" if path.is_dir() else f"{path.stat().st_size:,} bytes"
    return ValueError(f'{label} "{path}" ({size}) cannot be read: {error}. {remedy}')


def read_json(path: Path, label: str, remedy: str) -> ItemsView[str, object]:
    """Read the entries of a JSON object.

    Raises
    ------
    ValueError
        If the file is damaged or holds something else.
    """
    try:
        return json.loads(path.read_bytes()).items()
    except (ValueError, AttributeError) as error:
        raise unreadable(label, path, error, remedy) from error


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
