"""What was passed to an embedding: slides, and arguments that must fit to each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from anndata import AnnData

from spahgc._keys import SPATIAL
from spahgc._slides.spatialdata import SpotsOnImage, spots_on_image
from spahgc._slides.tables import is_spatialdata, table_of
from spahgc.image._mpp import check_mpp
from spahgc.pp._embed.slide_image import ImageRequirements, SlideImage, Source, check_slide

if TYPE_CHECKING:
    from spatialdata import SpatialData


@dataclass(frozen=True)
class InputSlide:
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

    data: AnnData | SpatialData
    table: AnnData
    spots: SpotsOnImage | None

    def check(self, image: Source | None, mpp: float | None, index: int, requirements: ImageRequirements) -> SlideImage:
        """Give the slide with its image, after all checks that need no encoder."""
        return check_slide(self.table, image, mpp, index, spots=self.spots, requirements=requirements)


def input_slides(
    data: AnnData | SpatialData | Sequence[AnnData | SpatialData],
    image: Source | None,
    *,
    table_key: str | None,
    image_key: str | None,
    coordinate_system: str | None,
) -> list[InputSlide]:
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
    keys = {"image_key": image_key, "coordinate_system": coordinate_system}
    passed = [f"{name}=" for name, value in keys.items() if value is not None]
    if passed and not any(is_spatialdata(item) for item in items):
        raise ValueError(
            f"{' and '.join(passed)} choose within a SpatialData, but {type(items[0]).__name__} was passed."
        )
    if passed and image is not None:
        raise ValueError(
            f"{' and '.join(passed)} choose an image of the SpatialData, and image= is another one: pass one."
        )
    slides = []
    for number, item in enumerate(items, 1):
        table = table_of(item, table_key, f"slide number {number}")
        in_spatialdata = image is None and is_spatialdata(item) and table.n_obs > 0
        slides.append(InputSlide(item, table, spots_on_image(item, table, **keys) if in_spatialdata else None))
    return slides


def check_numbers(batch_size: int, n_workers: int | None, mpp: float | None, patch_um: float | None) -> None:
    """Refuse numbers that are no counts or sizes."""
    for name, count in (("batch_size", batch_size), ("n_workers", n_workers)):
        if name == "n_workers" and count is None:
            continue
        if isinstance(count, bool) or not isinstance(count, int | np.integer) or count < 1:
            raise ValueError(f"{name} is {count!r}; pass a whole number of at least 1")
    check_mpp("mpp", mpp)
    if patch_um is not None and not (np.isfinite(patch_um) and patch_um > 0):
        raise ValueError(f"patch_um is {patch_um!r}; pass a positive number of microns")
