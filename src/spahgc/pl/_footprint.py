"""What a spot, bin or cell covers on the tissue, and how many of them are drawn: circles, squares, outlines, or pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spahgc._keys import UNS, Obs, Uns
from spahgc._slides.polygons import Polygons, polygons_of

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.collections import Collection
    from matplotlib.image import AxesImage

MAX_VECTOR_SPOTS = 5000
"""More spots than this become pixels in vector files, which no viewer would open otherwise."""
MAX_SHAPES = 200_000
"""More spots than this within the view are drawn as pixels as wide as a spot, with the mean of what lies in each: matplotlib
takes 4 to 10 s for so many shapes of 500,000, and print shows no shape of that size."""
MAX_RASTER_PX = 3000
"""Longest side of that raster: more pixels than print shows."""
CORNERS = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
"""A square of side 1."""


@dataclass(frozen=True, eq=False)
class Footprint:
    """The shape of the spots of a slide; circles where there is neither an outline nor an angle."""

    outlines: Polygons | None = None
    """Outlines in the coordinates of the figure, a row a spot; a spot without one is a circle."""
    angle: float | None = None
    """Squares, turned by so many radians; ``None``: no squares."""


CIRCLES = Footprint()


def footprint_of(adata: AnnData, library: Mapping[str, Any], xy: NDArray[np.float64], scale: float) -> Footprint:
    """The shape of the spots of an AnnData: outlines, squares of Visium HD and of pooled tiles, or circles.

    Parameters
    ----------
    adata
        The slide.
    library
        Its entry of ``uns["spatial"]``.
    xy
        Centres, pixels of the full-resolution image.
    scale
        Pixels of the figure's picture for one of the full-resolution image.
    """
    outlines = polygons_of(adata)
    if outlines is not None and outlines.known.any():
        return Footprint(Polygons(outlines.vertices * scale, outlines.starts))
    pooled = adata.uns.get(UNS, {}).get(Uns.pooled, {})
    if str(pooled.get("layout", "")) == "square" and "diameter_um" not in pooled:
        return Footprint(angle=0.0)
    if "bin_um" in library.get("metadata", {}):
        return Footprint(angle=_array_angle(adata, xy))
    return CIRCLES


def _array_angle(adata: AnnData, xy: NDArray[np.float64]) -> float:
    """Direction of the rows of an array in the image, radians; 0 where the array is not known."""
    if Obs.array_row not in adata.obs or Obs.array_col not in adata.obs or len(xy) < len(CORNERS):
        return 0.0
    grid = adata.obs[[Obs.array_col, Obs.array_row]].to_numpy(np.float64)
    design = np.column_stack([grid, np.ones(len(grid))])
    if not np.isfinite(design).all() or np.linalg.matrix_rank(design) < design.shape[1]:
        return 0.0
    column = np.linalg.lstsq(design, xy, rcond=None)[0][0]
    return float(np.arctan2(column[1], column[0]))


def draw_shapes(
    ax: Axes,
    xy: NDArray[np.float64],
    diameter: float,
    footprint: Footprint,
    chosen: NDArray[np.bool_],
    *,
    magnified: float = 1.0,
    array: Any = None,
    **style: Any,
) -> Collection | AxesImage:
    """Draw some spots in their true shape and size.

    Parameters
    ----------
    ax
        Where.
    xy
        Centres of all spots, in the coordinates of the axes.
    diameter
        Of circles, and side of squares, drawn as large as they shall be.
    footprint
        Their shape.
    chosen
        True for those that are drawn.
    magnified
        By how much outlines are drawn larger than they are.
    array
        Values of the chosen spots that become colours with ``cmap`` and ``norm``; ``None``: `style` says the colours.
    style
        Of matplotlib's collections.
    """
    from matplotlib.collections import EllipseCollection, PolyCollection

    n = int(chosen.sum())
    if n > MAX_SHAPES:
        return _draw_pixels(ax, xy[chosen], diameter, array, style)
    common: dict[str, Any] = {"rasterized": n > MAX_VECTOR_SPOTS, **style}
    if array is not None:
        common["array"] = array
    shapes = _vertices(xy, diameter, footprint, chosen, magnified)
    if shapes is not None:
        drawn: Collection = PolyCollection(shapes, **common)
    else:
        # Sizes in data units, so that spots keep their size on the tissue at any zoom.
        drawn = EllipseCollection(
            widths=np.full(n, diameter),
            heights=np.full(n, diameter),
            angles=np.zeros(n),
            units="xy",
            offsets=xy[chosen],
            offset_transform=ax.transData,
            **common,
        )
    ax.add_collection(drawn, autolim=False)
    return drawn


def _vertices(
    xy: NDArray[np.float64], diameter: float, footprint: Footprint, chosen: NDArray[np.bool_], magnified: float
) -> Any:
    """Vertices of the chosen spots, ``None`` where they are circles."""
    centres = xy[chosen]
    if footprint.outlines is not None:
        outlines = footprint.outlines[chosen]
        turns = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        circle = diameter / 2 * np.column_stack([np.cos(turns), np.sin(turns)])
        rings = outlines.rings()
        return [
            centre + magnified * (ring - centre) if known else centre + circle
            for ring, known, centre in zip(rings, outlines.known, centres, strict=True)
        ]
    if footprint.angle is None:
        return None
    cos, sin = np.cos(footprint.angle), np.sin(footprint.angle)
    return centres[:, None] + diameter * CORNERS @ np.array([[cos, sin], [-sin, cos]])


def _draw_pixels(ax: Axes, xy: NDArray[np.float64], diameter: float, array: Any, style: dict[str, Any]) -> AxesImage:
    """Draw very many spots as pixels that are as wide as a spot, or as print shows."""
    from matplotlib.colors import ListedColormap, Normalize

    (left, top), (right, bottom) = xy.min(axis=0) - diameter / 2, xy.max(axis=0) + diameter / 2
    side = max(diameter, (right - left) / MAX_RASTER_PX, (bottom - top) / MAX_RASTER_PX)
    width, height = (max(1, int(np.ceil(length / side))) for length in (right - left, bottom - top))
    columns, rows = np.floor((xy - [left, top]) / side).astype(np.int64).T
    place = np.minimum(rows, height - 1) * width + np.minimum(columns, width - 1)
    values = np.ones(len(xy)) if array is None else np.ma.filled(np.ma.masked_invalid(array).astype(np.float64), np.nan)
    known = np.isfinite(values)
    sums = np.bincount(place[known], values[known], minlength=width * height)
    counts = np.bincount(place[known], minlength=width * height)
    raster = np.ma.masked_where(counts == 0, sums / np.maximum(counts, 1)).reshape(height, width)
    extent = (left, left + width * side, top + height * side, top)
    colours: dict[str, Any] = {key: style[key] for key in ("cmap", "norm") if key in style}
    if array is None:
        face = style.get("facecolors", "none")
        colours = {
            "cmap": ListedColormap([style.get("edgecolors", "none") if face == "none" else face]),
            "norm": Normalize(0, 2),
        }
    return ax.imshow(raster, extent=extent, interpolation="nearest", aspect="equal", zorder=1, **colours)
