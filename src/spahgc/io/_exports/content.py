"""What is written of a slide, whatever the format: places, predicted genes, groups of spots, and how they are called."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy.sparse import issparse

from spahgc._keys import UNITS, UNS, Obs, Uns, Var
from spahgc._logging import warn
from spahgc._slides.categories import categories_of, category_colours, stored_colours
from spahgc._slides.library import Library, check_one_slide, find_library
from spahgc._slides.resolution import recorded_mpp
from spahgc._slides.spatialdata import spots_on_image
from spahgc._slides.split import placed_table
from spahgc._slides.tables import is_spatialdata, table_of
from spahgc._spots.pitch import SPOT_OF_PITCH, spot_pitch
from spahgc._validate import (
    check_anndata,
    check_coordinates,
    check_genes,
    check_writable_file,
    check_writable_folder,
    quoted,
    user_path,
)

if TYPE_CHECKING:
    from spatialdata import SpatialData

LONE_SPOT_PX = 100.0
"""Diameter of a spot without neighbours whose size is not known."""
BIN_SIZE, DIAMETER = "bin_size_um", "spot_diameter_fullres"
"""Scale factors of a library: the side of a square bin, which round spots do not have, and the diameter in pixels."""
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")
"""Characters with which a spreadsheet takes a text for a formula."""


UNNAMED = "unnamed"


@dataclass(frozen=True, eq=False)
class Groups:
    """A column of ``obs`` that tells spots apart."""

    column: str
    names: list[str]
    codes: NDArray[np.int64]
    """Number of each spot's group, -1 for none."""
    colours: list[str]
    """``#rrggbb`` of each."""

    @property
    def categorical(self) -> Any:
        """The same as pandas has it, missing for none."""
        return pd.Categorical.from_codes(self.codes, pd.Index(distinct(self.names)))


@dataclass(frozen=True, eq=False)
class Content:
    """A slide, as other programs are shown it."""

    name: str
    table: AnnData
    library: Library | None
    xy: NDArray[np.float64]
    """Spot centres (x, y), pixels of the full-resolution image."""
    diameter: float
    """Of a spot, or side of a square bin, in these pixels."""
    square: bool
    mpp: float | None
    genes: list[str]
    values: NDArray[np.float32]
    """Spots x genes, NaN where a spot was not predicted."""
    units: str
    groups: Groups | None
    key: str

    @property
    def spots(self) -> list[str]:
        """Names of the spots."""
        return [str(name) for name in self.table.obs_names]

    @property
    def support(self) -> NDArray[np.float64] | None:
        """How well the references cover each spot, 0 to 1, where the prediction says so."""
        column = self.table.obs.get(Obs.support(self.key))
        return None if column is None else column.to_numpy(np.float64)


def read_content(
    data: AnnData | SpatialData,
    *,
    key: str,
    genes: str | Sequence[str] | None,
    groups: str | None,
    table_key: str | None,
    most_genes: int | None = None,
) -> Content:
    """Gather what is written of a slide.

    Parameters
    ----------
    data
        The slide.
    key
        Key of the prediction.
    genes
        Genes of its panel; ``None`` takes all of it.
    groups
        Column of ``obs``; ``None`` takes the domains of the prediction, where there are some.
    table_key
        Key of the table of a SpatialData.
    most_genes
        Of the panel that many are written where none are named, the most trusted first; ``None`` for all.
    """
    table = placed_table(data, table_key, "the slide")
    check_anndata(table, "the slide")
    check_one_slide(table)
    library = find_library(table)
    xy, diameter, mpp = _places(data, table, library, table_key)
    chosen = _chosen_genes(table, key, genes, most_genes)
    return Content(
        name=_name(table, library),
        table=table,
        library=library,
        xy=xy,
        diameter=diameter,
        square=library is not None and BIN_SIZE in library.scale_factors,
        mpp=mpp,
        genes=chosen,
        values=_values(table, key, chosen),
        units=str(_record(table, key).get("units", UNITS)),
        groups=_groups(table, key, groups),
        key=key,
    )


def predicted_spots(content: Content) -> Content:
    """The spots in which all genes were predicted, for programs that would draw what is unknown as a value.

    Raises
    ------
    ValueError
        If there are none.
    """
    kept = np.flatnonzero(np.isfinite(content.values).all(axis=1))
    if len(kept) == 0:
        raise ValueError(f'layers["{content.key}"] has no spot in which all genes were predicted. Pass fewer genes=.')
    groups = None if content.groups is None else replace(content.groups, codes=content.groups.codes[kept])
    values, xy = content.values[kept], content.xy[kept]
    return replace(content, table=content.table[kept], xy=xy, values=values, groups=groups)


def _places(
    data: AnnData | SpatialData, table: AnnData, library: Library | None, table_key: str | None
) -> tuple[NDArray[np.float64], float, float | None]:
    """Centres in pixels of the image, diameter of a spot and microns per pixel."""
    if is_spatialdata(data) and data.images:
        spots = spots_on_image(data, table_of(data, table_key, "the slide"))
        known, mpp, xy = spots.diameter_px, spots.mpp, spots.xy
    else:
        xy = check_coordinates(table, "the slide")
        known = None if library is None else library.scale_factors.get(DIAMETER)
        mpp = recorded_mpp(table, library)
    return xy, _diameter(xy) if known is None or not known > 0 else float(known), mpp


def _diameter(xy: NDArray[np.float64]) -> float:
    pitch = spot_pitch(xy)
    return LONE_SPOT_PX if pitch is None else SPOT_OF_PITCH * pitch


def _name(table: AnnData, library: Library | None) -> str:
    if Obs.slide in table.obs:
        return str(table.obs[Obs.slide].iloc[0])
    return "slide" if library is None else library.name


def _record(table: AnnData, key: str) -> dict[str, Any]:
    return dict(table.uns.get(UNS, {}).get(Uns.predictions, {}).get(key, {}))


def _chosen_genes(table: AnnData, key: str, genes: str | Sequence[str] | None, most: int | None) -> list[str]:
    if key not in table.layers:
        raise KeyError(
            f'layers["{key}"] not found in the slide, layers are {quoted(table.layers)}. Run spahgc.tl.predict(adata, refs) '
            "first, or pass key= with the name of its prediction."
        )
    if Var.panel(key) in table.var:
        panel = table.var_names[table.var[Var.panel(key)].to_numpy(bool)]
    else:
        layer = table.layers[key]
        known = np.ones(table.n_vars, bool) if issparse(layer) else ~np.isnan(np.asarray(layer)).all(axis=0)
        panel = table.var_names[known]
    if genes is not None:
        return check_genes([genes] if isinstance(genes, str) else list(genes), panel, f'the panel of layers["{key}"]')
    if len(panel) == 0:
        raise ValueError(f'the panel of layers["{key}"] is empty: no gene was predicted. Run spahgc.tl.predict again.')
    if most is None or len(panel) <= most:
        return [str(gene) for gene in panel]
    trust = table.var.get(Var.cv_pcc(key))
    if trust is not None:
        panel = trust[panel].sort_values(ascending=False, kind="stable", na_position="last").index
    warn(
        f"{most} of {len(panel)} predicted genes are written, "
        f"{'those of the highest ' + Var.cv_pcc(key) if trust is not None else 'the first ones'}: more would be too many for "
        "the program that reads them. Pass genes= to name others or more.",
        stacklevel=4,
    )
    return [str(gene) for gene in panel[:most]]


def _values(table: AnnData, key: str, genes: list[str]) -> NDArray[np.float32]:
    layer = table.layers[key][:, table.var_names.get_indexer(genes)]
    return np.asarray(layer.toarray() if issparse(layer) else layer, dtype=np.float32)


def _groups(table: AnnData, key: str, column: str | None) -> Groups | None:
    if column is None:
        column = Obs.domain(key)
        if column not in table.obs:
            return None
    if column not in table.obs:
        raise KeyError(
            f'obs["{column}"] not found in the slide, obs has {quoted(table.obs.columns)}. Run spahgc.tl.domains first, or '
            "pass groups= with a column that is there."
        )
    names, codes = categories_of(table, column)
    return Groups(column, names, codes, stored_colours(table, column, len(names)) or category_colours(len(names)))


@dataclass(frozen=True, eq=False)
class GroupedSpots:
    """All that a table of groups holds."""

    spots: list[str]
    groups: Groups


def read_groups(data: AnnData | SpatialData, *, key: str, groups: str | None, table_key: str | None) -> GroupedSpots:
    """The groups of a slide, for formats that hold nothing else: neither places nor a prediction are needed."""
    table = table_of(data, table_key, "the slide")
    check_anndata(table, "the slide")
    check_one_slide(table)
    found = _groups(table, key, groups)
    if found is None:
        raise KeyError(
            f'no groups are there to write: obs["{Obs.domain(key)}"] not found. Run spahgc.tl.domains first, or pass groups= '
            "with a column of obs."
        )
    return GroupedSpots([str(name) for name in table.obs_names], found)


def distinct(
    names: Sequence[str],
    *,
    forbidden: Mapping[str, str] = MappingProxyType({}),
    reserved: Sequence[str] = (),
    spreadsheet: bool = False,
) -> list[str]:
    """Names without characters that a format gives a meaning of its own; two that become the same are numbered.

    A name of which nothing can be seen becomes "unnamed".

    Parameters
    ----------
    names
        The names, each once.
    forbidden
        What takes the place of each such character.
    reserved
        Names that something else has already.
    spreadsheet
        Whether none may be a formula of a spreadsheet.
    """
    table, taken, found = str.maketrans(dict(forbidden)), {*names, *reserved}, []
    for name in names:
        plain = printable(name).translate(table)
        plain = plain if plain.strip() else UNNAMED
        plain = disarmed(plain) if spreadsheet else plain
        candidate, number = plain, 2
        while candidate in taken and (candidate != name or candidate in reserved):
            candidate, number = f"{plain} ({number})", number + 1
        taken.add(candidate)
        found.append(candidate)
    return found


def printable(name: str) -> str:
    """A name on one line, without characters that cannot be seen or, as half of a pair, written."""
    text = "".join(" " if character.isspace() else character for character in str(name))
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


def disarmed(text: str) -> str:
    """A text that no spreadsheet takes for a formula: an apostrophe stands before it where it would."""
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


def new_folder(path: str | os.PathLike[str], *, overwrite: bool) -> Path:
    """The path of a folder that can be written; refuses one that is there, unless it may be replaced."""
    folder = user_path(path, "path")
    if os.path.lexists(folder) and not overwrite:
        raise FileExistsError(f'path="{folder}" exists already. Pass overwrite=True to replace it, or another path.')
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f'path="{folder}" is no folder. Pass another path.')
    check_writable_folder(folder.parent)
    return folder


def output_file(path: str | os.PathLike[str], ending: str | tuple[str, ...]) -> Path:
    """The path of a file that can be written; refuses another ending."""
    file = user_path(path, "path")
    endings = (ending,) if isinstance(ending, str) else ending
    if not file.name.lower().endswith(endings):
        raise ValueError(f'path="{file}" must end in {" or ".join(endings)}.')
    check_writable_file(file, f'path="{file}"')
    return file
