"""Which region of a drawing every spot lies in: annotations of QuPath, or polygons."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from spahgc._validate import quoted
from spahgc.pp._pool.regions import read_regions

DRAWN = (".geojson", ".json")
"""Endings of files that hold regions."""


def is_drawn(by: Any) -> bool:
    """Whether regions are those of a drawing, and not a column of ``obs``."""
    return not isinstance(by, str) or by.lower().endswith(DRAWN)


def drawing_name(by: Any) -> str:
    """How a record calls a drawing."""
    return os.fspath(by) if isinstance(by, str | os.PathLike) else "polygons"


def drawn_regions(by: Any, xy: NDArray[np.floating]) -> pd.Categorical:
    """The region of every spot, by its centre; missing outside all of them.

    A spot in several regions, one drawn within the other, belongs to the smallest.

    Parameters
    ----------
    by
        What :func:`spahgc.pp.pool` takes as ``regions``.
    xy
        Centres (x, y) in pixels of the full-resolution image, as regions are drawn.

    Raises
    ------
    ValueError
        If no spot lies in any of them.
    """
    import shapely

    geometries, names = read_regions(by)
    region = np.full(len(xy), -1, dtype=np.int64)
    for number in sorted(range(len(names)), key=lambda number: -geometries[number].area):
        region[shapely.intersects_xy(geometries[number], xy[:, 0], xy[:, 1])] = number
    if (region < 0).all():
        low_x, low_y, high_x, high_y = shapely.total_bounds(np.array(geometries, dtype=object))
        raise ValueError(
            f"no spot lies in {quoted(names)}: regions reach from ({low_x:.0f}, {low_y:.0f}) to ({high_x:.0f}, {high_y:.0f}), spots "
            f"from ({xy[:, 0].min():.0f}, {xy[:, 1].min():.0f}) to ({xy[:, 0].max():.0f}, {xy[:, 1].max():.0f}). Pass regions that "
            "were drawn on this slide, in pixels of its full-resolution image."
        )
    return pd.Categorical([None if number < 0 else names[number] for number in region], categories=names)
