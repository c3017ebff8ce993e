"""Tables of SpatialData objects, where a function of the package takes one in place of an AnnData."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import AnnData

from spahgc._validate import quoted

if TYPE_CHECKING:
    from spatialdata import SpatialData

ATTRS = "spatialdata_attrs"
"""``uns`` of a table: which elements it annotates, and by which columns of ``obs``."""


@dataclass(frozen=True)
class Annotation:
    """What a table annotates."""

    regions: list[str]
    """Names of the elements that rows of the table stand for, in the order of first occurrence."""
    region_key: str
    """Column of ``obs`` that names the element of a row."""
    instance_key: str
    """Column of ``obs`` that names the instance within the element."""


def is_spatialdata(data: Any) -> bool:
    """Whether this is a SpatialData object; spatialdata itself is not imported for the answer."""
    # Whoever holds such an object has imported the package already.
    kind = getattr(sys.modules.get("spatialdata"), "SpatialData", None)
    return kind is not None and isinstance(data, kind)


def table_of(data: Any, table_key: str | None, label: str) -> AnnData:
    """The table of a SpatialData object: the object itself, so that what is written lands in the SpatialData.

    Parameters
    ----------
    data
        An AnnData or SpatialData. Anything but a SpatialData passes through, for the caller's own checks.
    table_key
        Key of the table; ``None`` takes the only one. Without effect on an AnnData.
    label
        How messages call the object.

    Raises
    ------
    KeyError
        If there is no such table.
    ValueError
        If there is no table at all, or if there are several and none is named.
    """
    if not is_spatialdata(data):
        return data  # what is no AnnData is refused by check_anndata
    return data.tables[_key_of(data, table_key, label)]


def tables_of(items: Any, table_key: str | None, label: str) -> Any:
    """The same of a list: its tables; a single SpatialData becomes a list of one, other objects pass through."""
    if is_spatialdata(items):
        return [table_of(items, table_key, label)]
    if isinstance(items, AnnData | str | bytes | dict) or not isinstance(items, Iterable):
        return items
    return [table_of(item, table_key, f"{label} number {place + 1}") for place, item in enumerate(items)]


def with_table(data: Any, table: AnnData, table_key: str | None) -> Any:
    """What ``copy=True`` returns: the changed table, or for a SpatialData a new one that holds it.

    Parameters
    ----------
    data
        What the user passed; it is not changed. A new SpatialData shares its images, labels, points, shapes and other
        tables, and belongs to no file.
    table
        The changed copy of its table.
    table_key
        Key of the table; ``None`` is the only one.
    """
    if not is_spatialdata(data):
        return table
    from spatialdata import SpatialData

    return SpatialData(
        images=dict(data.images),
        labels=dict(data.labels),
        points=dict(data.points),
        shapes=dict(data.shapes),
        tables={**data.tables, _key_of(data, table_key, "the object"): table},
        attrs=data.attrs,
    )


def annotation(table: AnnData) -> Annotation | None:
    """What a table of a SpatialData annotates; ``None`` if it says nothing of that.

    Raises
    ------
    KeyError
        If a column is missing that it names.
    """
    attrs = table.uns.get(ATTRS)
    if not attrs or attrs.get("region") is None:
        return None
    keys = [str(attrs[name]) for name in ("region_key", "instance_key")]
    missing = [key for key in keys if key not in table.obs]
    if missing:
        raise KeyError(
            f'uns["{ATTRS}"] names the columns {quoted(missing)} of obs, which has {quoted(table.obs.columns)}. Put '
            "them back, or parse the table again with spatialdata.models.TableModel.parse."
        )
    return Annotation([str(name) for name in table.obs[keys[0]].unique()], *keys)


def region_labels(table: AnnData) -> np.ndarray | None:
    """Name of the region of every spot of a table that annotates several of them, else ``None``."""
    annotated = annotation(table)
    if annotated is None or len(annotated.regions) < 2:
        return None
    return table.obs[annotated.region_key].astype(str).to_numpy()


def _key_of(sdata: SpatialData, table_key: str | None, label: str) -> str:
    keys = list(sdata.tables)
    if not keys:
        raise ValueError(
            f"{label} is a SpatialData without a table, its elements are {quoted(_element_names(sdata))}. Add one: "
            'sdata.tables["table"] = spatialdata.models.TableModel.parse(adata, region=..., region_key=..., '
            "instance_key=...)."
        )
    if table_key is not None:
        if table_key not in keys:
            raise KeyError(f'table_key="{table_key}" not found in {label}, its tables are {quoted(keys)}.')
        return table_key
    if len(keys) > 1:
        raise ValueError(
            f"{label} is a SpatialData with several tables: {quoted(keys)}. Say which one with table_key=."
        )
    return str(keys[0])


def _element_names(sdata: SpatialData) -> list[str]:
    return [str(name) for _, name, _ in sdata.gen_spatial_elements()]
