"""Several slides as one argument: lists, single objects, and objects that hold several slides."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from anndata import AnnData

from spahgc._keys import SPATIAL, Obs
from spahgc._validate import check_anndata, check_coordinates, listing


def split_slides(data: AnnData | Iterable[AnnData], what: str = "reference") -> dict[str, AnnData]:
    """Name every slide, in an order that does not depend on how the slides were handed over.

    Parameters
    ----------
    data
        One AnnData or several. An object whose ``obs["slide"]`` names several slides is taken apart.
    what
        Role of the slides in messages.

    Returns
    -------
    Slides by name, names sorted. A slide is named by ``obs["slide"]``, else by its only library in
    ``uns["spatial"]``, else by its place in the list.
    """
    objects: list[Any] = [data] if isinstance(data, AnnData) else _as_list(data, what)
    if not objects:
        raise ValueError(f"no {what} was given. Pass at least one measured slide.")
    slides: dict[str, AnnData] = {}
    for place, adata in enumerate(objects):
        check_anndata(adata, f"{what} number {place + 1}")
        for name, slide in _slides_of(adata, place, what):
            if name in slides:
                raise ValueError(
                    f'two of the {what}s are called "{name}". Give each its own name: '
                    f'adata.obs["{Obs.slide}"] = "..."; and pass no slide twice.'
                )
            slides[name] = slide
    return dict(sorted(slides.items()))


def _as_list(data: Any, what: str) -> list[Any]:
    if isinstance(data, Iterable) and not isinstance(data, (str, bytes, dict)):
        return list(data)
    raise TypeError(f"the {what}s must be an AnnData or a list of them, found {type(data).__name__}.")


def _slides_of(adata: AnnData, place: int, what: str) -> list[tuple[str, AnnData]]:
    if Obs.slide in adata.obs:
        column = adata.obs[Obs.slide]
        if column.isna().any():
            raise ValueError(
                f'obs["{Obs.slide}"] of {what} number {place + 1} is empty for {int(column.isna().sum())} of '
                f"{adata.n_obs} spots. Name the slide of every spot."
            )
        labels = column.astype(str).to_numpy()
        names = np.unique(labels)
        if len(names) == 1:
            return [(str(names[0]), adata)]
        return [(str(name), adata[labels == name]) for name in names]
    libraries = list(adata.uns.get(SPATIAL, {}))
    return [(str(libraries[0]) if len(libraries) == 1 else f"slide {place + 1}", adata)]


def canonical_order(adata: AnnData) -> np.ndarray:
    """Order of the spots by name, so that results do not depend on the order in which spots are stored."""
    return np.argsort(adata.obs_names.to_numpy().astype(str), kind="stable")


def check_target_is_new(target: AnnData, slides: dict[str, AnnData], embedding: str) -> None:
    """Refuse a target that is also among the references: its own expression would reach its prediction."""
    mine = _fingerprint(target, embedding)
    for name, slide in slides.items():
        if slide is target or (slide.n_obs == target.n_obs and np.array_equal(mine, _fingerprint(slide, embedding))):
            raise ValueError(
                f'the target is also among the references, as "{name}". Its own expression would reach its '
                f"prediction. Leave it out of the references: {listing(slides)}."
            )


def _fingerprint(adata: AnnData, embedding: str) -> np.ndarray:
    """Positions and embeddings in an order of their own."""
    columns = np.column_stack([check_coordinates(adata, "the slide"), np.asarray(adata.obsm[embedding])])
    return columns[np.lexsort(columns[:, :2].T)]
