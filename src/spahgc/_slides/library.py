"""The entry of ``uns["spatial"]`` that belongs to a slide: its reduced images, their scales, and where the full one lies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spahgc._keys import SPATIAL, Obs
from spahgc._validate import quoted

if TYPE_CHECKING:
    from anndata import AnnData

LIBRARY_COLUMNS = (Obs.slide, Obs.library)
"""Columns of ``obs`` that may name the library of a slide."""
HIRES_SCALE = "tissue_hires_scalef"
"""Scale factor: pixels of the hires image for one of the full-resolution image."""


@dataclass(frozen=True)
class Library:
    """A library of ``uns["spatial"]``."""

    name: str
    record: Mapping[str, Any]
    """`images`, `scalefactors` and `metadata`, as Space Ranger, scanpy and squidpy lay them out; any may be missing."""

    @property
    def scale_factors(self) -> Mapping[str, float]:
        """Scale factors by name."""
        return self.record.get("scalefactors", {})

    @property
    def hires(self) -> NDArray[np.generic] | None:
        """The hires image."""
        return self.record.get("images", {}).get("hires")

    @property
    def hires_scale(self) -> float | None:
        """Pixels of the hires image for one of the full-resolution image."""
        scale = self.scale_factors.get(HIRES_SCALE)
        return None if scale is None else float(scale)

    @property
    def has_scaled_hires(self) -> bool:
        """Whether there is a hires image together with its scale."""
        return self.hires is not None and self.hires_scale is not None

    @property
    def image_path(self) -> str | None:
        """Path of the full-resolution image, where one is named."""
        return str(self.record.get("metadata", {}).get("source_image_path") or "") or None


def find_library(adata: AnnData, library_id: str | None = None) -> Library | None:
    """Find the library of a slide: the one asked for, the only one, or the one that ``obs`` names.

    Parameters
    ----------
    adata
        One slide.
    library_id
        Name of the library; ``None`` takes the only one, or of several the one that ``obs["slide"]`` or
        ``obs["library_id"]`` names for all spots.

    Returns
    -------
    The library, or ``None`` where ``uns["spatial"]`` holds none.

    Raises
    ------
    KeyError
        If there is no library of the name asked for.
    ValueError
        If the object holds the spots of several slides, or several libraries of which ``obs`` names none.
    """
    check_one_slide(adata)
    records = adata.uns.get(SPATIAL)
    records = records if isinstance(records, Mapping) else {}
    if library_id is not None:
        if library_id not in records:
            raise KeyError(
                f'library_id="{library_id}" not found in uns["{SPATIAL}"], its libraries are: {quoted(records)}. '
                "Pass one of these, or leave it out."
            )
        return Library(library_id, records[library_id])
    if not records:
        return None
    candidates = [names[0] for names in (_names(adata, column) for column in LIBRARY_COLUMNS) if len(names) == 1]
    if len(records) == 1:
        candidates = list(records)
    chosen = next((name for name in candidates if name in records), None)
    if chosen is None:
        raise ValueError(
            f'uns["{SPATIAL}"] holds {len(records)} slides ({quoted(records)}), and obs does not say which one this is. '
            f'Keep one of them, write its name into adata.obs["{Obs.slide}"], or pass library_id= where a function takes '
            "it."
        )
    return Library(str(chosen), records[chosen])


def check_one_slide(adata: AnnData) -> None:
    """Refuse an object that holds the spots of several slides.

    Raises
    ------
    ValueError
        If ``obs["slide"]``, or ``obs["library_id"]`` where there is none, names several.
    """
    column = Obs.slide if Obs.slide in adata.obs else Obs.library
    names = _names(adata, column)
    if len(names) > 1:
        raise ValueError(
            f'the object holds the spots of several slides: obs["{column}"] names {len(names)} slides '
            f"({quoted(names)}), but an image belongs to one. Pass a list of single slides, or one of them: "
            f'adata[adata.obs["{column}"] == "{names[0]}"].copy().'
        )


def _names(adata: AnnData, column: str) -> list[str]:
    """What a column of ``obs`` names; nothing without the column."""
    return [str(name) for name in adata.obs[column].dropna().unique()] if column in adata.obs else []
