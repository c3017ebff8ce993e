"""What was handed over to be embedded, slide by slide, and numbers that are no sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from anndata import AnnData

from spahgc._keys import SPATIAL
from spahgc._tables import is_spatialdata, table_of
from spahgc.pp._slide_image import SlideImage, Source, Wanted, check_slide
from spahgc.pp._spatialdata import SpotsOnImage, spots_on_image


@dataclass(frozen=True)
class Given:
    """A slide as it was handed over.

    Parameters
    ----------
    data
        AnnData or SpatialData.
    table
        Its table: the AnnData itself, or the one inside of the SpatialData.
    spots
        Where the spots of a SpatialData lie on its image; ``None`` for an AnnData, or where an image was passed.
    """

    data: Any
    table: AnnData
    spots: SpotsOnImage | None

    def checked(self, image: Source | None, mpp: float | None, index: int, wanted: Wanted) -> SlideImage:
        """The slide with its image, after all checks that need no encoder."""
        return check_slide(self.table, image, mpp, index, spots=self.spots, wanted=wanted)


def given_slides(
    data: Any,
    image: Source | None,
    *,
    table_key: str | None,
    image_key: str | None,
    coordinate_system: str | None,
) -> list[Given]:
    """Make a list of slides of what was passed.

    Raises
    ------
    TypeError
        If it holds something else than AnnData and SpatialData.
    ValueError
        If it is empty, or if arguments do not fit to each other.
    """
    several = isinstance(data, list | tuple)
    items = list(data) if several else [data]
    wrong = next((item for item in items if not isinstance(item, AnnData) and not is_spatialdata(item)), None)
    if wrong is not None:
        raise TypeError(
            f"embed takes an AnnData, a SpatialData or a list of them, found {type(wrong).__name__}. Pass one object for "
            "each slide."
        )
    if not items:
        raise ValueError("the list of slides is empty. Pass at least one AnnData or SpatialData.")
    if several and image is not None:
        raise ValueError(
            "image= goes with one slide, but a list was passed. Embed the slides one by one, or write each path into "
            f'adata.uns["{SPATIAL}"][slide]["metadata"]["source_image_path"].'
        )
    within = {"image_key": image_key, "coordinate_system": coordinate_system}
    named = [f"{name}=" for name, value in within.items() if value is not None]
    if named and not any(is_spatialdata(item) for item in items):
        raise ValueError(
            f"{' and '.join(named)} choose within a SpatialData, but {type(items[0]).__name__} was passed."
        )
    if named and image is not None:
        raise ValueError(
            f"{' and '.join(named)} choose an image of the SpatialData, and image= is another one: pass one."
        )
    return [_given(item, image, table_key, f"slide number {place + 1}", within) for place, item in enumerate(items)]


def _given(item: Any, image: Source | None, table_key: str | None, what: str, within: dict[str, str | None]) -> Given:
    table = table_of(item, table_key, what)
    if image is not None or not is_spatialdata(item) or table.n_obs == 0:
        return Given(item, table, None)
    return Given(item, table, spots_on_image(item, table, **within))


def check_numbers(batch_size: int, mpp: float | None, patch_um: float | None) -> None:
    """Refuse numbers that are no sizes."""
    if isinstance(batch_size, bool) or not isinstance(batch_size, int | np.integer) or batch_size < 1:
        raise ValueError(f"batch_size is {batch_size!r}; pass a whole number of at least 1")
    for name, value in (("mpp", mpp), ("patch_um", patch_um)):
        if value is not None and not (np.isfinite(value) and value > 0):
            raise ValueError(f"{name} is {value!r}; pass a positive number of microns")
