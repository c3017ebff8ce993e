"""A regular grid of pseudo-spots on the tissue of a slide that was not measured."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from spahgc._keys import SPATIAL, UNS, Obs, Uns
from spahgc._settings import progress_bar
from spahgc._spots.pitch import SPOT_OF_PITCH
from spahgc.image import ImageSource, open_image, thumbnail
from spahgc.image._brightfield import check_brightfield
from spahgc.image._focus import focus
from spahgc.image._grid import LAYOUTS, covered, lattice
from spahgc.image._mpp import check_mpp
from spahgc.image._source import Pixels
from spahgc.image._tissue import THRESHOLD_RANGE, Tissue, find_tissue
from spahgc.io._write_library import HIRES_PX, LOWRES_PX, SPOT_DIAMETER, write_library

THUMBNAIL_PX = 3000
"""Longest side of the small image from which everything else is made."""
MASK_UM = 4.0
"""Finest resolution at which tissue is looked for, microns per pixel; more would only take time."""


@dataclass(frozen=True)
class TileOptions:
    """How a slide is tiled: see :func:`spahgc.pp.tile`."""

    spacing_um: float = 100.0
    spot_um: float | None = None
    layout: str = "hexagonal"
    min_tissue: float = 0.5
    threshold: float | None = None
    exclude_pen: bool = True
    focus: bool = True

    def __post_init__(self) -> None:
        for name in ("spacing_um", "spot_um"):
            check_microns(name, getattr(self, name))
        if self.spot_um is not None and self.spot_um > self.spacing_um:
            raise ValueError(
                f"spot_um={self.spot_um:g} is more than spacing_um={self.spacing_um:g}: spots would overlap. "
                "Pass a smaller spot_um, or a larger spacing_um."
            )
        if self.layout not in LAYOUTS:
            raise ValueError(f'layout="{self.layout}" is not known; pass one of {", ".join(LAYOUTS)}')
        if not 0 < self.min_tissue <= 1:
            raise ValueError(f"min_tissue={self.min_tissue!r}; pass a share of a spot's area above 0 and up to 1")
        if self.threshold is not None and not (np.isfinite(self.threshold) and self.threshold > 0):
            raise ValueError(
                f"threshold={self.threshold!r}; pass an optical density above 0 ({THRESHOLD_RANGE[0]} to "
                f"{THRESHOLD_RANGE[1]} are usual), or None for Otsu's"
            )

    @property
    def diameter_um(self) -> float:
        """Diameter of a spot, microns."""
        return self.spacing_um * SPOT_OF_PITCH if self.spot_um is None else self.spot_um


def check_microns(name: str, value: float | None) -> None:
    """Refuse a number that is no length in microns; ``None`` passes."""
    if value is not None and not (np.isfinite(value) and value > 0):
        raise ValueError(f"{name}={value!r}; pass a positive number of microns")


def known_mpp(image: ImageSource, mpp: float | None, label: str) -> float:
    """Microns per pixel: the argument, else what the image says; refuses to guess."""
    check_mpp("mpp", mpp)
    resolution = image.mpp if mpp is None else mpp
    if resolution is None:
        reason = getattr(image, "mpp_problem", None) or "the image does not say it"
        raise ValueError(
            f"the resolution of {label} ({image.width} x {image.height} px) is not known: {reason}. "
            "Pass mpp= with its microns per pixel, e.g. mpp=0.5 for a usual 20x scan, 0.25 for 40x."
        )
    check_mpp(f"image.mpp of {label}", resolution)
    return float(resolution)


def tiled(image: ImageSource, name: str, path: Path | None, mpp: float, options: TileOptions) -> AnnData:
    """Make the AnnData of a tiled slide; what it holds is described in :func:`spahgc.pp.tile`."""
    spacing_px, diameter_px = options.spacing_um / mpp, options.diameter_um / mpp
    # Before the image is read, which takes long: a spacing that cannot be meant is refused here.
    grid = lattice(image.height, image.width, spacing_px=spacing_px, layout=options.layout)
    small, scale = thumbnail(image, THUMBNAIL_PX)
    check_brightfield(small, f'slide "{name}"')
    tissue, mask_scale = _tissue(small, scale, mpp, options)
    if not tissue.mask.any():
        raise ValueError(_no_tissue(name, tissue, mpp, options))
    share = covered(tissue.mask, mask_scale, grid.xy, diameter_px)
    enough = share >= options.min_tissue
    if not enough.any():
        raise ValueError(
            f'no spot of slide "{name}" fits on its tissue: {tissue.share:.2%} of the image is tissue, but none of the '
            f"{len(grid)} spots, {options.diameter_um:g} um wide and {options.spacing_um:g} um apart at {mpp:.4g} um per "
            f"pixel, is covered by at least {options.min_tissue:g} of its area (the best by {share.max(initial=0):.2f}). "
            "Pass a smaller spacing_um or min_tissue, or check mpp."
        )
    grid, share = grid[enough], share[enough]
    names = [f"tile_{row}_{col}" for row, col in zip(grid.row, grid.col, strict=True)]
    columns: dict[Hashable, np.ndarray] = {Obs.array_row: grid.row, Obs.array_col: grid.col, Obs.tissue_fraction: share}
    adata = slide_without_genes(grid.xy, names, columns)
    write_tiled_library(adata, name, small, scale, image, path, diameter_px, mpp)
    if options.focus:
        adata.obs[Obs.focus] = _focus(image, grid.xy, options.diameter_um, mpp, name)
    adata.uns[UNS] = {
        Uns.slide_mpp: mpp,
        Uns.tiles: {
            "layout": options.layout,
            "spacing_um": float(options.spacing_um),
            "spot_um": float(options.diameter_um),
            "min_tissue": float(options.min_tissue),
            "threshold": tissue.threshold,
            "threshold_by": "otsu" if options.threshold is None else "argument",
            "otsu": tissue.otsu,
            "tissue_share": tissue.share,
            "pen_excluded": bool(options.exclude_pen),
            "pen_share": tissue.pen_share,
            "glass_rgb": tissue.glass,
            "mask_mpp": mpp / mask_scale,
        },
    }
    return adata


def slide_without_genes(xy: NDArray[np.float64], names: list[str], columns: Mapping[Hashable, np.ndarray]) -> AnnData:
    """Spots x 0 genes, with columns for ``obs``."""
    obs = pd.DataFrame(dict(columns), index=pd.Index(names, dtype=object))
    adata = AnnData(csr_matrix((len(xy), 0), dtype=np.float32), obs=obs)
    adata.obsm[SPATIAL] = xy
    return adata


def write_tiled_library(
    adata: AnnData,
    name: str,
    small: Pixels,
    scale: float,
    image: ImageSource,
    path: Path | None,
    diameter_px: float,
    mpp: float | None,
) -> None:
    """Write the library of a slide from its small image; without a path the large one must be given again."""
    with open_image(small) as small_image:
        hires, hires_scale = thumbnail(small_image, HIRES_PX)
        lowres, lowres_scale = thumbnail(small_image, LOWRES_PX)
    scales = {
        "tissue_hires_scalef": scale * hires_scale,
        "tissue_lowres_scalef": scale * lowres_scale,
        SPOT_DIAMETER: float(diameter_px),
    }
    source = {} if path is None else {"source_image_path": str(path)}
    metadata = {**source, "image_height_px": image.height, "image_width_px": image.width}
    write_library(adata, name, {"hires": hires, "lowres": lowres}, scales, metadata, mpp=mpp)


def _tissue(small: Pixels, scale: float, mpp: float, options: TileOptions) -> tuple[Tissue, float]:
    """Find the tissue, and the mask's pixels per pixel of the slide."""
    finest_px = max(1, int(np.ceil(max(small.shape[:2]) * mpp / scale / MASK_UM)))
    with open_image(small) as small_image:
        smaller, factor = thumbnail(small_image, finest_px)
    scale *= factor
    tissue = find_tissue(smaller, mpp=mpp / scale, threshold=options.threshold, exclude_pen=options.exclude_pen)
    return tissue, scale


def _no_tissue(name: str, tissue: Tissue, mpp: float, options: TileOptions) -> str:
    origin = "as given" if options.threshold is not None else f"Otsu's would be {tissue.otsu:.3f}"
    pen = f" {tissue.pen_share:.2%} of it is marker ink (exclude_pen=False keeps it)." if tissue.pen_share else ""
    return (
        f'no tissue was found on slide "{name}": {tissue.stained_share:.2%} of the image is stained above the threshold '
        f"{tissue.threshold:.3f} ({origin}), in pieces too small to be tissue at {mpp:.4g} um per pixel.{pen} Is this the "
        "H&E image, and is mpp right? Pass a lower threshold= for a pale stain, or positions of your own: "
        "spahgc.io.slide(path, spots=...)."
    )


def _focus(image: ImageSource, xy: NDArray[np.float64], width_um: float, mpp: float, name: str) -> NDArray[np.float64]:
    """Focus of every spot."""
    with progress_bar(total=len(xy), unit="tile", desc=f"{name}: focus") as progress:
        values = np.empty(len(xy))
        for index, center in enumerate(xy):
            values[index] = focus(image, center, width_um=width_um, mpp=mpp)
            progress.update()
    return values
