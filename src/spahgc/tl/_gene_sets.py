"""Gene sets as the user has them: a GMT file, or a table of pathways and their genes."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from spahgc._logging import warn
from spahgc._reading import reading
from spahgc._validate import quoted, user_path

SOURCE, TARGET, WEIGHT = "source", "target", "weight"
"""Columns of a network, named as decoupler names them: pathway, gene, weight of the gene in the pathway."""

Net: TypeAlias = str | PathLike[str] | pd.DataFrame | Mapping[str, Any]
"""Gene sets as the user has them."""

GMT_FIELDS_BEFORE_GENES = 2
"""A line of a GMT file begins with the name and a description."""


def gene_sets(net: Net) -> pd.DataFrame:
    """A network with the columns ``source``, ``target`` and ``weight``, checked.

    Parameters
    ----------
    net
        Path of a GMT file; a dictionary of pathways, each a list of genes or a dictionary of their weights; or a table with a
        row for each gene of each pathway: ``source``, ``target`` and, if there is one, ``weight``.

    Returns
    -------
    A new table. Genes of weight 0 are left out; ``"/"`` in the name of a pathway, which no file of AnnData can hold, is
    replaced by ``"_"``, with a warning.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    TypeError
        If it is neither a path nor a dictionary nor a table.
    ValueError
        If columns are missing, values are missing, a weight is no number, or a gene stands in a pathway twice.
    """
    if isinstance(net, str | PathLike):
        table = read_gmt(net)
    elif isinstance(net, pd.DataFrame):
        table = net
    elif isinstance(net, Mapping):
        table = _of_dictionary(net)
    else:
        raise TypeError(
            f"net must be the path of a GMT file, a dictionary of lists of genes, or a DataFrame with the columns source and "
            f"target, found {type(net).__name__}."
        )
    table = _checked(table)
    return _names_that_can_be_written(table)


def _of_dictionary(net: Mapping[str, Any]) -> pd.DataFrame:
    """A table of a dictionary of pathways, each a list of genes or a dictionary of their weights."""
    rows = []
    for name, genes in net.items():
        if isinstance(genes, str) or not hasattr(genes, "__iter__"):
            raise TypeError(
                f'net["{name}"] is {genes!r}; pass a list of genes, such as {{"{name}": ["EPCAM", "KRT8"]}}, or a dictionary of '
                "their weights."
            )
        weights = genes if isinstance(genes, Mapping) else dict.fromkeys(genes, 1.0)
        if not weights:
            raise ValueError(f'net["{name}"] holds no gene. Leave it out, or name its genes.')
        rows += [(str(name), str(gene), weight) for gene, weight in weights.items()]
    return pd.DataFrame(rows, columns=[SOURCE, TARGET, WEIGHT])


def read_gmt(path: str | PathLike[str]) -> pd.DataFrame:
    """Read a GMT file: a line a pathway, ``name <tab> description <tab> gene <tab> gene ...``.

    The fields are split at tabs alone. Names and descriptions may hold blanks, and a description may be empty, as they
    are in Enrichr's files; a reader that splits at any blank takes words of the description for genes there, and the
    first gene for the description.
    """
    file = user_path(path, "net")
    if not file.is_file():
        found = "is a folder" if file.is_dir() else "does not exist"
        raise FileNotFoundError(f'the gene-set file "{file}" {found}. Pass the path of a GMT file.')
    try:
        with reading(file, "the gene-set file", "Pass the path of a GMT file that you may read."):
            content = file.read_bytes()
        # At ends of lines alone: splitlines() also splits at characters that may stand in a description.
        lines = content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f'"{file}" is not a text file, so no GMT file. Unpack it first if it is packed.') from error
    rows: list[tuple[str, str]] = []
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        fields = [field.strip() for field in line.split("\t")]
        name, genes = fields[0], list(dict.fromkeys(filter(None, fields[GMT_FIELDS_BEFORE_GENES:])))
        if not name or not genes:
            raise ValueError(
                f'line {number} of "{file}" is no line of a GMT file: expected name, description and at least one gene '
                f"with tabs between them, found {len(fields)} fields, {quoted(field[:40] for field in fields)}."
            )
        if name in seen:
            raise ValueError(
                f'"{file}" has the pathway "{name}" in line {seen[name]} and again in line {number}. Rename one of them.'
            )
        seen[name] = number
        rows += [(name, gene) for gene in genes]
    if not rows:
        raise ValueError(f'"{file}" holds no pathway. Pass the path of a GMT file.')
    return pd.DataFrame(rows, columns=[SOURCE, TARGET])


def _checked(table: pd.DataFrame) -> pd.DataFrame:
    missing = [name for name in (SOURCE, TARGET) if name not in table.columns]
    if missing:
        raise ValueError(
            f"net has no column {quoted(missing)}; its columns are {quoted(table.columns)}. It needs source (the "
            'pathway) and target (the gene), and may have weight: net.rename(columns={"...": "source", ...}).'
        )
    if not len(table):
        raise ValueError("net has no rows. Pass at least one pathway and its genes.")
    names = [SOURCE, TARGET, WEIGHT] if WEIGHT in table.columns else [SOURCE, TARGET]
    holes = table[names].isna().sum()
    if holes.any():
        counts = ", ".join(f'{int(n)} in "{name}"' for name, n in holes.items() if n)
        raise ValueError(f"net has missing values: {counts}. Remove these rows with net.dropna().")
    weights = _weights(table[WEIGHT]) if WEIGHT in table.columns else np.ones(len(table))
    checked = pd.DataFrame(
        {SOURCE: table[SOURCE].astype(str).to_numpy(), TARGET: table[TARGET].astype(str).to_numpy(), WEIGHT: weights}
    )
    repeated = checked.duplicated(subset=[SOURCE, TARGET])
    if repeated.any():
        examples = (f"{row.source}: {row.target}" for row in checked[repeated].itertuples())
        raise ValueError(
            f"net has {int(repeated.sum())} rows whose gene already stands in that pathway: {quoted(examples)}. "
            'Run net.drop_duplicates(["source", "target"]) first.'
        )
    return checked[checked[WEIGHT] != 0].reset_index(drop=True)


def _weights(column: Any) -> np.ndarray:
    weights = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64)
    broken = ~np.isfinite(weights)
    if broken.any():
        raise ValueError(
            f'the column "weight" of net must hold finite numbers, found {quoted(column[broken])}. Correct it, or drop '
            "the column to weigh all genes alike."
        )
    return weights


def _names_that_can_be_written(table: pd.DataFrame) -> pd.DataFrame:
    """Names without ``"/"``, which divides groups in h5ad and zarr."""
    names = pd.unique(table[SOURCE])
    slashed = [name for name in names if "/" in name]
    if not slashed:
        return table
    renamed = table.assign(source=table[SOURCE].str.replace("/", "_", regex=False))
    if renamed[SOURCE].nunique() < len(names):
        raise ValueError(
            f'pathway names may not contain "/" (h5ad and zarr cannot write it), and with "_" in its place some of '
            f"{quoted(slashed)} would fall together. Rename them."
        )
    warn(
        f'"/" in the names of {len(slashed)} pathways ({quoted(slashed)}) is replaced by "_": h5ad and zarr cannot '
        "write it.",
        stacklevel=4,
    )
    return renamed
