"""Cells on their H&E image become a slide: what all readers of cells check and write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from spahgc._keys import SPATIAL, Obs, Obsm
from spahgc._logging import warn
from spahgc._slides.matrix import row_sums
from spahgc._slides.orientation import gain_by_swapping
from spahgc._slides.polygons import Polygons
from spahgc._validate import quoted
from spahgc.image import ImageSource, describe_outside, open_image
from spahgc.image._brightfield import check_brightfield
from spahgc.image._damage import UnusableImageError
from spahgc.image._mpp import check_mpp
from spahgc.image._source import Pixels
from spahgc.io._write_library import SPOT_DIAMETER, check_full_image, reduced_images, write_library

MIN_COUNTS = 10
"""Counts of a cell below which it is flagged, as tutorials of Xenium filter."""
MAX_OUTSIDE = 0.05
"""Share of cells that may lie off the image, as at the border of a scan; more means another image or alignment."""
MAX_DISAGREEMENT = 1.5
"""Factor between what an alignment and an image file say of the resolution above which one of them must be wrong."""
MIN_SWAPPED_GAIN = 0.4
"""Standard deviations of the picture's darkness by which cells must lie better on the tissue with x and y swapped to be told of."""
MIN_CELLS_TO_TELL = 100
"""Cells from which on the picture can tell whether x and y were swapped; fewer lie on dark places by chance."""
CELL_UM = 10.0
"""Diameter at which cells are drawn whose area is not known, microns."""
SMALLEST_CELL_UM = 2.5
"""Median diameter of outlines, microns, below which they are no cells and no nuclei: small lymphocytes have 6, their nuclei 5.

Outlines in microns that are taken for pixels come out narrower by the microns per pixel, a quarter to a half."""
LARGEST_CELL_UM = 200.0
"""Median diameter of outlines, microns, above which they are no cells."""


@dataclass(frozen=True, eq=False)
class Cells:
    """Cells as they were read, their places in pixels of the full-resolution image."""

    adata: AnnData
    """Counts of genes and ``obs``."""
    xy: NDArray[np.float64]
    area_um2: NDArray[np.float64] | None
    """Areas, square microns; ``None``: not known."""
    polygons: Polygons | None
    """Outlines, as many as cells; ``None``: not asked for, or not known."""
    where: str
    """What messages call the positions."""
    metadata: dict[str, object] = field(default_factory=dict)


def finish_cells(
    cells: Cells,
    name: str,
    mpp: float | None,
    image_path: Path | None,
    *,
    min_counts: int,
    images: Mapping[str, Pixels] | None = None,
    scales: Mapping[str, float] | None = None,
) -> AnnData:
    """Check cells against their image, and write the slide.

    Parameters
    ----------
    cells
        The cells.
    name
        Name of the slide.
    mpp
        Microns per pixel of the image, as the positions tell; ``None`` takes what the file says.
    image_path
        The H&E image.
    min_counts
        Cells with fewer counts are flagged.
    images, scales
        Reduced images and scale factors, where the run has them.

    Raises
    ------
    ValueError
        If the image is no H&E, cells lie outside it, or the resolutions contradict each other.
    """
    images, scales = dict(images or {}), dict(scales or {})
    inside = np.ones(len(cells.xy), dtype=bool)
    image_metadata: dict[str, str | int] = {}
    check_finite(cells.xy, cells.adata.obs_names, cells.where)
    if image_path is not None:
        with _opened(image_path) as image:
            mpp = _agreed_mpp(mpp, image, image_path)
            inside = _on_image(cells, image, image_path)
            if not images:
                images, made = reduced_images(image)
                check_brightfield(images["hires"], f'the image "{image_path}"')
                scales |= made
        image_metadata = check_full_image(image_path, cells.xy[inside], Path(cells.where), images, scales)
    check_mpp("mpp", mpp)
    adata = cells.adata if inside.all() else cells.adata[inside].copy()
    adata.obsm[SPATIAL] = cells.xy[inside]
    adata.obs[Obs.few_counts] = row_sums(adata.X) < min_counts
    if cells.area_um2 is not None:
        adata.obs[Obs.area] = cells.area_um2[inside]
    if cells.polygons is not None:
        adata.obsm[Obsm.polygons] = cells.polygons[inside].as_matrix()
    scales[SPOT_DIAMETER] = _diameter_px(None if cells.area_um2 is None else cells.area_um2[inside], mpp)
    _warn_of_transposed(adata.obsm[SPATIAL], images, scales, cells.where)
    metadata = {
        **cells.metadata,
        **image_metadata,
        "n_cells_outside_image": int((~inside).sum()),
        "min_counts": int(min_counts),
        "n_cells_with_few_counts": int(adata.obs[Obs.few_counts].sum()),
    }
    write_library(adata, name, images, scales, metadata, mpp=mpp)
    return adata


def _warn_of_transposed(
    xy: NDArray[np.float64], images: Mapping[str, Pixels], scales: Mapping[str, float], where: str
) -> None:
    """Say so if cells lie clearly better on the tissue with x and y swapped; there is no array that would prove it."""
    if "hires" not in images or len(xy) < MIN_CELLS_TO_TELL:
        return
    gain = gain_by_swapping(open_image(images["hires"]), xy * scales["tissue_hires_scalef"])
    if gain is not None and gain > MIN_SWAPPED_GAIN:
        warn(
            f"x and y of {where} may have changed places: with them swapped the cells lie better on the tissue of the image, by {gain:.2f} "
            "standard deviations of its darkness. x is the column of the image and y its row; look at them with spahgc.pl, and swap them "
            "if they lie beside the tissue.",
            stacklevel=4,
        )


def check_finite(xy: NDArray[np.float64], names: pd.Index, where: str) -> None:
    """Refuse positions that are no numbers."""
    broken = np.asarray(~np.isfinite(xy).all(axis=1))
    if broken.any():
        raise ValueError(
            f"{int(broken.sum())} of {len(xy)} cells have no finite position in {where} ({quoted(names[broken])}). Remove them, or "
            "give them a position."
        )


def check_min_counts(min_counts: object) -> int:
    """A number of counts, 0 or more."""
    if isinstance(min_counts, bool) or not isinstance(min_counts, int | np.integer) or min_counts < 0:
        raise ValueError(f"min_counts={min_counts!r}; pass a whole number of counts of 0 or more")
    return int(min_counts)


def check_outline_size(polygons: Polygons, mpp: float | None, label: str, *, largest: bool = True) -> None:
    """Refuse outlines whose size is that of no cell, as where microns are taken for pixels.

    Parameters
    ----------
    polygons
        The outlines, pixels.
    mpp
        Microns per pixel; ``None``: not known, and nothing is checked.
    label
        How messages call them.
    largest
        Whether they may not be larger than cells either.

    Raises
    ------
    ValueError
        If the median of their diameters is below 2.5 or above 200 um.
    """
    areas = polygons.areas[polygons.known]
    if mpp is None or not len(areas):
        return
    pixels = float(np.median(2 * np.sqrt(areas / np.pi)))
    if pixels * mpp < SMALLEST_CELL_UM:
        raise ValueError(
            f"{label} are {pixels * mpp:.2g} um wide (median; {pixels:.3g} px of {mpp:.4g} um), smaller than any cell. Their "
            f"coordinates look like microns, in which they would be {pixels:.3g} um wide: divide them by {mpp:.4g}, since pixels of the "
            "full-resolution image are needed; or the resolution is wrong."
        )
    if largest and pixels * mpp > LARGEST_CELL_UM:
        raise ValueError(
            f"{label} are {pixels * mpp:.4g} um wide (median; {pixels:.4g} px of {mpp:.4g} um), larger than any cell. Are they "
            "regions, or is the resolution wrong?"
        )


def _opened(path: Path) -> ImageSource:
    try:
        return open_image(path)
    except UnusableImageError as error:
        raise ValueError(
            f'the image "{path}" cannot be the H&E image: {error} The morphology images of a run (DAPI and other stains that '
            "glow) are none; the H&E image was scanned apart and has three colours."
        ) from error


def _agreed_mpp(mpp: float | None, image: ImageSource, path: Path) -> float | None:
    if mpp is None or image.mpp is None:
        return image.mpp if mpp is None else mpp
    if max(mpp / image.mpp, image.mpp / mpp) > MAX_DISAGREEMENT:
        raise ValueError(
            f'the positions of the cells make a pixel of "{path}" {mpp:.4g} um wide, the file says {image.mpp:.4g} um. The alignment '
            "is that of another image, or of a reduced one, or runs the other way. Pass the one that was made with this file."
        )
    return mpp


def _on_image(cells: Cells, image: ImageSource, path: Path) -> NDArray[np.bool_]:
    """Which cells lie on the image; refuses an image, or an alignment, that leaves out more than some."""
    x, y = cells.xy.T
    inside = (x >= 0) & (y >= 0) & (x <= image.width) & (y <= image.height)
    if inside.all():
        return inside
    outside = describe_outside(cells.xy, height=image.height, width=image.width)
    if (~inside).mean() > MAX_OUTSIDE:
        swapped = bool(((y >= 0) & (x >= 0) & (y <= image.width) & (x <= image.height)).all())
        hint = (
            "Pass columns=(x, y) in that order."
            if swapped
            else ("The alignment (or affine matrix) is probably that of another slide, or runs the other way.")
        )
        raise ValueError(f'{cells.where} and the image "{path}": {outside} {hint}')
    warn(
        f'{int((~inside).sum())} of {len(inside)} cells of {cells.where} lie off the image "{path}" and are left out.',
        stacklevel=4,
    )
    return inside


def _diameter_px(area_um2: NDArray[np.float64] | None, mpp: float | None) -> float:
    """Diameter of a circle of the median area, pixels."""
    known = np.empty(0) if area_um2 is None else area_um2[np.isfinite(area_um2) & (area_um2 > 0)]
    diameter_um = CELL_UM if not len(known) else float(2 * np.sqrt(np.median(known) / np.pi))
    return diameter_um / (1.0 if mpp is None else mpp)
