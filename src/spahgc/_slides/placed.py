"""Slides as the package works on them: tables of a SpatialData that know where their spots lie."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from anndata import AnnData

from spahgc._keys import SPATIAL, Obs
from spahgc._slides.spatialdata import spots_in_plane
from spahgc._slides.tables import annotation, is_spatialdata, region_labels, table_of, tables_of
from spahgc._validate import quoted

if TYPE_CHECKING:
    from spatialdata import SpatialData


def placed_table(data: AnnData | SpatialData, table_key: str | None, label: str, *, write: bool = False) -> AnnData:
    """The table of one slide, with ``obsm["spatial"]``.

    Parameters
    ----------
    data
        An AnnData, which passes through, or a SpatialData. Where the table of the latter has no ``obsm["spatial"]``,
        the centres of the shapes that it annotates take its place, in pixels of the image if there is one.
    table_key
        Key of the table; ``None`` takes the only one.
    label
        How messages call the object.
    write
        Write the centres into the table. Otherwise it stays as it is, and a shallow copy is returned that has them.

    Raises
    ------
    ValueError
        If the table annotates several elements, which are slides of their own, and ``obs["slide"]`` does not say
        otherwise.
    """
    table = table_of(data, table_key, label)
    if not is_spatialdata(data):
        return table
    annotated = annotation(table)
    if annotated is not None and len(annotated.regions) > 1 and Obs.slide not in table.obs:
        raise ValueError(
            f"the table of {label} annotates several elements ({quoted(annotated.regions)}), each of which is a slide "
            f'of its own. Take one at a time: sdata.subset(["{annotated.regions[0]}", *sdata.images]).'
        )
    return _with_centres(table, data, write=write)


def placed_slides(data: AnnData | SpatialData, table_key: str | None, label: str, *, write: bool = False) -> AnnData:
    """The same of a table that may hold several slides, told apart by ``obs["slide"]`` or by what it annotates."""
    return _with_centres(table_of(data, table_key, label), data, write=write)


def placed_tables(
    items: AnnData | SpatialData | Iterable[AnnData | SpatialData], table_key: str | None, label: str
) -> AnnData | Iterable[AnnData]:
    """The same of a list of slides; the objects are not changed. What is no list passes through."""
    if is_spatialdata(items):
        items = [items]
    if isinstance(items, AnnData | str | bytes | dict) or not hasattr(items, "__iter__"):
        return items
    items = list(items)
    tables = tables_of(items, table_key, label)
    return [_with_centres(table, item, write=False) for item, table in zip(items, tables, strict=True)]


def _with_centres(table: AnnData, data: AnnData | SpatialData, *, write: bool) -> AnnData:
    """A table that has ``obsm["spatial"]``, taken from its SpatialData where it has none."""
    if not is_spatialdata(data) or SPATIAL in table.obsm:
        return table
    xy = _centres(data, table)
    if not write:
        table = AnnData(
            table.X,
            obs=table.obs,
            var=table.var,
            uns=dict(table.uns),
            raw=table.raw,
            **{name: dict(getattr(table, name)) for name in ("obsm", "layers", "obsp", "varm", "varp")},
        )
    table.obsm[SPATIAL] = xy
    return table


def _centres(sdata: SpatialData, table: AnnData) -> np.ndarray:
    """Centres of all spots, those of each region on its own image."""
    regions = region_labels(table)
    if regions is None:
        return spots_in_plane(sdata, table)
    xy = np.empty((table.n_obs, 2))
    for name in np.unique(regions):
        xy[regions == name] = spots_in_plane(sdata, table[regions == name])
    return xy
