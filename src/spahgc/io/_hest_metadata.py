"""What HEST says of a sample: a JSON file for each, and one table for all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from spahgc._validate import quoted

REPOSITORY = "MahmoodLab/hest"
METADATA, TABLE = "metadata/{}.json", "HEST_v*.csv"
RESOLUTIONS = ("pixel_size_um_estimated", "pixel_size_um_embedded")
"""Microns per pixel: what HEST measured on the spots, and what the image file says."""


def where_to_fetch(root: Path, file: str) -> str:
    """Say how a file of the data set is fetched."""
    return (
        f"Accept the terms on https://huggingface.co/datasets/{REPOSITORY}, log in with hf auth login, and run "
        f'hf download {REPOSITORY} {file} --repo-type dataset --local-dir "{os.fspath(root)}"'
    )


def read_metadata(root: Path, sample_id: str, table: Path | None) -> dict[str, Any]:
    """Read what is known of a sample.

    Parameters
    ----------
    root
        The folder of the data set.
    sample_id
        Name of the sample.
    table
        HEST's table of all samples; ``None`` takes the newest in `root`.

    Returns
    -------
    Text, numbers and yes or no by HEST's own names; what HEST left empty is not there.

    Raises
    ------
    FileNotFoundError
        If there is neither the file of the sample nor a table.
    ValueError
        If one is damaged, or neither knows the sample.
    """
    file = root / METADATA.format(sample_id)
    tables = [table] if table is not None else sorted(root.glob(TABLE))[-1:]
    if not file.is_file() and not tables:
        raise FileNotFoundError(
            f'the metadata of sample "{sample_id}" are missing: neither "{file}" nor a table {TABLE} is there. '
            f"{where_to_fetch(root, METADATA.format(sample_id))}"
        )
    known = _from_table(tables[0], sample_id) if tables else {}
    if file.is_file():
        known |= _from_file(file)
    if not known:
        raise ValueError(
            f'"{tables[0]}" does not know the sample "{sample_id}". Check the name. '
            f"{where_to_fetch(root, METADATA.format(sample_id))}"
        )
    return known


def sample_mpp(known: dict[str, Any], sample_id: str) -> float:
    """Microns per pixel of a sample's image.

    Raises
    ------
    ValueError
        If the metadata do not tell.
    """
    for key in RESOLUTIONS:
        try:
            mpp = float(known.get(key, np.nan))
        except ValueError:
            continue
        if np.isfinite(mpp) and mpp > 0:
            return mpp
    raise ValueError(
        f'the metadata of sample "{sample_id}" have no {" or ".join(RESOLUTIONS)} that is a positive number; they have '
        f"{quoted(known)}. Fetch them again."
    )


def _from_file(path: Path) -> dict[str, Any]:
    try:
        entries = json.loads(path.read_bytes())
        return _filled(entries.items())
    except (ValueError, AttributeError) as error:
        raise ValueError(
            f'the metadata "{path}" ({path.stat().st_size:,} bytes) cannot be read: {error}. Fetch them again.'
        ) from error


def _from_table(path: Path, sample_id: str) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f'metadata: "{path}" is not a file. Check the path.')
    try:
        table = pd.read_csv(path, dtype={"id": str, "patient": str})
    except (OSError, ValueError) as error:  # pandas' own errors are among these
        raise ValueError(f'the table "{path}" cannot be read: {error}. Fetch it again.') from error
    if "id" not in table:
        raise ValueError(f'the table "{path}" has no column "id"; it has {quoted(table.columns)}. Fetch it again.')
    rows = table[table["id"] == sample_id]
    return _filled(rows.iloc[0].items()) if len(rows) else {}


def _filled(entries: Any) -> dict[str, Any]:
    """Keep what says something and survives in ``uns``."""
    known: dict[str, Any] = {}
    for key, value in entries:
        plain = value.item() if isinstance(value, np.generic) else value
        if isinstance(plain, str | bool | int) or (isinstance(plain, float) and np.isfinite(plain)):
            known[str(key)] = plain
    return {key: value for key, value in known.items() if value != ""}
