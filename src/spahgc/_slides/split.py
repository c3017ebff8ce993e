"""What a user passes as slides, taken apart: lists, objects that hold several slides, tables placed on their image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData

from spahgc._keys import SPATIAL, Obs
from spahgc._slides.several import library_names
from spahgc._slides.several import slide_labels as named_slides
from spahgc._slides.spatialdata import spots_in_plane
from spahgc._slides.stored import stored_slides
from spahgc._slides.tables import annotation, is_spatialdata, region_labels, table_of, tables_of
from spahgc._validate import check_anndata, quoted

if TYPE_CHECKING:
    from spatialdata import SpatialData

BLOCK_PAIRS = 8192
"""Pairs of spots at the same place whose embeddings are compared at a time."""


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
    """The same of a list of slides or of their paths; the objects are not changed. What is neither passes through."""
    items = stored_slides(items, label)
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


def split_slides(data: AnnData | Iterable[AnnData], label: str = "reference") -> dict[str, AnnData]:
    """Name every slide, in an order that does not depend on how the slides were handed over.

    Parameters
    ----------
    data
        One AnnData or several. An object whose ``obs["slide"]`` names several slides is taken apart; where there is no
        such column, so is a table of a SpatialData that annotates several elements, or an object with several in
        ``obs["library_id"]``.
    label
        Role of the slides in messages.

    Returns
    -------
    Slides by name, names sorted. A slide is named by ``obs["slide"]``, else by its only library in
    ``uns["spatial"]``, else by the element of a SpatialData that it annotates if no other slide annotates one of the
    same name, else by its place in the list.
    """
    return {name: slide for name, (_, slide) in located_slides(data, label).items()}


def located_slides(data: AnnData | Iterable[AnnData], label: str = "reference") -> dict[str, tuple[int, AnnData]]:
    """The same, each slide with the place in the list of the object that holds it."""
    objects: list[Any] = [data] if isinstance(data, AnnData) else _as_list(data, label)
    if not objects:
        raise ValueError(f"no {label} was given. Pass at least one measured slide.")
    for place, adata in enumerate(objects):
        check_anndata(adata, f"{label} number {place + 1}")
    names = [_region_name(adata) for adata in objects]
    regions = Counter(names)
    slides: dict[str, tuple[int, AnnData]] = {}
    for place, adata in enumerate(objects):
        region = names[place]
        fallback = region if region is not None and regions[region] == 1 else f"slide {place + 1}"
        for name, slide in _slides_of(adata, place, label, fallback):
            if name in slides:
                raise ValueError(
                    f'two of the {label}s are called "{name}". Give each its own name: '
                    f'adata.obs["{Obs.slide}"] = "..."; and pass no slide twice.'
                )
            slides[name] = place, slide
    return dict(sorted(slides.items()))


def _as_list(data: Any, label: str) -> list[Any]:
    if isinstance(data, Iterable) and not isinstance(data, (str, bytes, dict)):
        return list(data)
    raise TypeError(
        f"the {label}s must be an AnnData or a list of them, found {type(data).__name__}. A SpatialData that holds them "
        "as tables will do as well."
    )


def _region_name(adata: AnnData) -> str | None:
    """Element of a SpatialData that a table annotates, if it is a single one."""
    annotated = annotation(adata)
    return annotated.regions[0] if annotated is not None and len(annotated.regions) == 1 else None


def _slides_of(adata: AnnData, place: int, label: str, fallback: str) -> list[tuple[str, AnnData]]:
    labels = slide_labels(adata, f"{label} number {place + 1}")
    if labels is not None:
        names = np.unique(labels)
        if len(names) == 1:
            return [(str(names[0]), adata)]
        return [(str(name), adata[labels == name]) for name in names]
    libraries = library_names(adata)
    return [(libraries[0] if len(libraries) == 1 else fallback, adata)]


def slide_labels(adata: AnnData, label: str) -> np.ndarray | None:
    """Name of the slide of every spot; ``None`` for a single slide that no column names.

    By ``obs["slide"]``, else by the several elements that a table annotates, else by ``obs["library_id"]``.

    Raises
    ------
    ValueError
        If the object holds several slides that none of these tells apart.
    """
    regions = None if Obs.slide in adata.obs else region_labels(adata)
    return named_slides(adata, label) if regions is None else regions


def check_single_slide(adata: AnnData, label: str) -> None:
    """Refuse an object that holds several slides, where one is predicted: neighbours and scales are those of a slide."""
    labels = slide_labels(adata, label)
    names: list[str] = [] if labels is None else sorted(set(labels))
    if len(names) > 1:
        column = next((name for name in (Obs.slide, Obs.library) if name in adata.obs), None)
        one = f'adata[adata.obs["{column}"] == "{names[0]}"].copy()' if column else "sdata.subset"
        raise ValueError(
            f"{label} holds {len(names)} slides ({quoted(names)}), whose spots would be neighbours of each other. Predict "
            f"one at a time: {one}."
        )


def canonical_order(xy: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Order of the spots of a slide by place, so that results do not depend on how spots are stored or called.

    Parameters
    ----------
    xy
        Centres, spots x 2.
    z
        Embedding, spots x dim; its first two numbers decide between spots at the same place.
    """
    return np.lexsort([*z[:, :2].T[::-1], xy[:, 1], xy[:, 0]])


def shared_spots(xy: np.ndarray, z: Any, other_xy: np.ndarray, other_z: Any) -> np.ndarray:
    """Which of the other spots are among the first: same place, same embedding. Indices, ascending.

    Of both embeddings, which may lie on disk, only the rows of spots at the same place are read, in blocks. Where some spots
    at the same place differ, a look that several of the others have, such as that of white glass, proves nothing of them.
    """
    if not np.isin(as_complex(other_xy), as_complex(xy)).any():
        return np.empty(0, dtype=np.int64)
    mine = pd.DataFrame(xy, columns=["x", "y"]).reset_index(names="mine")
    other = pd.DataFrame(other_xy, columns=["x", "y"]).reset_index(names="other")
    pairs = mine.merge(other, on=["x", "y"])[["mine", "other"]].to_numpy()
    shared, looks = [np.empty(0, dtype=np.int64)], []
    for start in range(0, len(pairs), BLOCK_PAIRS):
        mine_rows, other_rows = pairs[start : start + BLOCK_PAIRS].T
        known = np.asarray(z[mine_rows])
        agree = (known == other_z[other_rows]).all(axis=1)
        shared.append(other_rows[agree])
        looks += [hash(row.tobytes()) for row in known[agree]]
    indices, repeated = np.concatenate(shared), pd.Series(looks, dtype=np.int64).duplicated(keep=False).to_numpy()
    one_look = len(looks) > 1 and len(set(looks)) == 1
    if one_look or len(indices) < len(pairs):
        indices = indices[~repeated]
    return np.unique(indices)


def as_complex(xy: np.ndarray) -> np.ndarray:
    """Points of the plane as complex numbers, of which a shift, turn and scale is one line."""
    return np.asarray(xy[:, 0] + 1j * xy[:, 1])
