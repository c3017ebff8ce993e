"""Tables of groups: Loupe Browser reads them as categories, Xenium Explorer as groups of cells."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from spahgc._files import write_text
from spahgc.io._exports.content import disarmed, distinct, output_file, printable, read_groups

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

ENDING = ".csv"
BARCODE = "Barcode"
"""Header of the first column of Loupe's table; that of the second names the category."""
CELL, GROUP, COLOUR = "cell_id", "group", "color"
"""Headers of Xenium Explorer's table."""


def write_loupe(
    data: AnnData | SpatialData,
    path: str | os.PathLike[str],
    *,
    key: str = "spahgc",
    groups: str | None = None,
    table_key: str | None = None,
) -> Path:
    """Write groups of spots as a table that Loupe Browser imports as a category.

    In Loupe open the ``.cloupe`` of the same run, then *Categories > Import CSV*.

    Parameters
    ----------
    data
        A slide, or a SpatialData with its table, whose spots are named by their barcodes.
    path
        The file, ``.csv``; one that is there is replaced.
    key
        Key of the prediction.
    groups
        Column of ``obs``; ``None`` takes ``obs[f"{key}_domain"]``.
    table_key
        Key of the table of a SpatialData; ``None`` takes the only one.

    Returns
    -------
    The path. Written is a comma-separated table of ``Barcode`` and the column of groups, a row a spot that has one. A name
    that a spreadsheet would take for a formula has an apostrophe before it.

    Raises
    ------
    KeyError
        If there is no such column.
    ValueError
        If the path ends otherwise, or the column names no group.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import spahgc as sp
    >>> (slide,) = sp.datasets.simulated(1, n_patients=1, n_spots=40, n_genes=20)
    >>> slide.obs["kind"] = ["tumour", "stroma"] * 20
    >>> path = sp.io.write_loupe(slide, pathlib.Path(tempfile.mkdtemp()) / "kinds.csv", groups="kind")
    >>> path.read_text().splitlines()[0]
    'Barcode,kind'
    """
    file = output_file(path, ENDING)
    found = read_groups(data, key=key, groups=groups, table_key=table_key)
    names = distinct(found.groups.names, spreadsheet=True)
    rows = [(spot, names[code]) for spot, code in zip(found.spots, found.groups.codes, strict=True) if code >= 0]
    return _written(file, (BARCODE, found.groups.column), rows)


def write_xenium_explorer(
    data: AnnData | SpatialData,
    path: str | os.PathLike[str],
    *,
    key: str = "spahgc",
    groups: str | None = None,
    table_key: str | None = None,
) -> Path:
    """Write groups of cells as a table that Xenium Explorer imports.

    In Xenium Explorer open the run, then *Cell groups > Upload*.

    Parameters
    ----------
    data
        A slide of cells, or a SpatialData with its table, whose rows are named by the cells' ids (``aaaaficg-1``).
    path
        The file, ``.csv``; one that is there is replaced.
    key
        Key of the prediction.
    groups
        Column of ``obs``; ``None`` takes ``obs[f"{key}_domain"]``.
    table_key
        Key of the table of a SpatialData; ``None`` takes the only one.

    Returns
    -------
    The path. Written is a comma-separated table of ``cell_id``, ``group`` and ``color`` (``#rrggbb``), a row a cell that
    has a group. A name that a spreadsheet would take for a formula has an apostrophe before it.

    Raises
    ------
    KeyError
        If there is no such column.
    ValueError
        If the path ends otherwise, or the column names no group.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import spahgc as sp
    >>> (slide,) = sp.datasets.simulated(1, n_patients=1, n_spots=40, n_genes=20)
    >>> slide.obs["kind"] = ["tumour", "stroma"] * 20
    >>> path = sp.io.write_xenium_explorer(slide, pathlib.Path(tempfile.mkdtemp()) / "kinds.csv", groups="kind")
    >>> path.read_text().splitlines()[0]
    'cell_id,group,color'
    """
    file = output_file(path, ENDING)
    found = read_groups(data, key=key, groups=groups, table_key=table_key)
    names = distinct(found.groups.names, spreadsheet=True)
    rows = [
        (spot, names[code], found.groups.colours[code])
        for spot, code in zip(found.spots, found.groups.codes, strict=True)
        if code >= 0
    ]
    return _written(file, (CELL, GROUP, COLOUR), rows)


def _written(file: Path, header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Path:
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([disarmed(printable(name)) for name in header])
    for spot, *rest in rows:
        writer.writerow([disarmed(printable(spot)), *rest])
    write_text(file, out.getvalue())
    return file
