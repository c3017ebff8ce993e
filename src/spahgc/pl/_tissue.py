"""One panel: spots in their true size on the picture of the tissue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard

import numpy as np

from spahgc._slides.library import find_library
from spahgc._slides.polygons import Polygons
from spahgc._slides.resolution import recorded_mpp
from spahgc._slides.spatialdata import SpotsOnImage, spots_on_image
from spahgc._slides.split import placed_table
from spahgc._slides.tables import is_spatialdata, table_of
from spahgc._validate import check_coordinates
from spahgc.image import ImageSource, open_image, thumbnail
from spahgc.image._resample import resample
from spahgc.pl._footprint import CIRCLES, Footprint, draw_shapes, footprint_of
from spahgc.pl._library import best_image, positive, spot_diameter
from spahgc.pl._style import TEXT_PT, on_dark, text_colour

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.collections import Collection
    from matplotlib.colors import Colormap, Normalize
    from matplotlib.image import AxesImage
    from spatialdata import SpatialData

Crop: TypeAlias = tuple[float, float, float, float]
"""Left, right, top and bottom edge of a part of a slide, in full-resolution pixels."""

MARGIN = 0.04
"""Room around the outermost spots, as a share of the longer side of their bounding box."""
MAX_IMAGE_PX = 2000
"""Longest side of the drawn picture; more pixels than print shows would only make drawing slow and files large."""
MAX_THUMBNAIL_PX = 2 * MAX_IMAGE_PX
"""Longest side of the picture of a whole slide that is read where only a part of it is shown."""
MAX_PART_PIXELS = 32 * 10**6
"""Pixels of the full resolution that are held at once to draw a part of a slide."""
PIXEL_CENTRE = 0.5
"""A picture's coordinates name the centres of pixels, those of SpatialData their corners."""
SCALE_BAR_SHARE = 0.3
"""Longest scale bar, as a share of the panel's width."""
SCALE_BAR_PT = 1.8
"""Thickness of the scale bar, points."""
RING_COLOUR, RING_PT = "#D55E00", 1.0
"""Colour and width in points of a ring around a spot."""
LEGEND_GAP_PT = 8.0
"""Distance of the size of a spot from the scale bar, points."""
UM_PER_MM = 1000.0


@dataclass(frozen=True)
class SpatialKeys:
    """Where a slide has its table, its image and their common coordinates; ``None`` takes the only one there is."""

    table_key: str | None = None
    image_key: str | None = None
    coordinate_system: str | None = None
    library_id: str | None = None

    @property
    def choose_image(self) -> bool:
        """Whether an image of a SpatialData is asked for."""
        return self.image_key is not None or self.coordinate_system is not None


@dataclass(frozen=True)
class View:
    """What is shown of a slide."""

    crop: Crop | None = None
    """The part to show; ``None`` shows all spots."""
    detail: float = 1.0
    """Share of the pixels along the picture's longest side that are kept: many panels need fewer."""


WHOLE = View()


@dataclass(frozen=True)
class Tissue:
    """All that the panels of one slide share. Lengths are in pixels of the image, of full resolution without one."""

    xy: np.ndarray
    """Spot centres, spots x 2."""
    diameter: float
    xlim: tuple[float, float]
    ylim: tuple[float, float]
    """Ranges that are shown; y runs downwards."""
    image: np.ndarray | None
    extent: tuple[float, float, float, float]
    """Left, right, bottom and top edge of the image's cut-out."""
    microns: float | None
    """Microns a pixel, where known."""
    spot_um: float | None = None
    """True diameter of a spot in microns, where known."""
    magnified: float = 1.0
    """By how much the spots are drawn larger than they are."""
    footprint: Footprint = CIRCLES
    """Shape of the spots."""

    @property
    def in_view(self) -> np.ndarray:
        """Which spots lie within the ranges that are shown, at least in part."""
        room = self.diameter / 2
        x, y = self.xy.T
        bottom, top = self.ylim
        return (x > self.xlim[0] - room) & (x < self.xlim[1] + room) & (y > top - room) & (y < bottom + room)

    @property
    def aspect(self) -> float:
        """Height over width."""
        return abs(self.ylim[0] - self.ylim[1]) / (self.xlim[1] - self.xlim[0])


def has_image(data: AnnData | SpatialData) -> TypeGuard[SpatialData]:
    """Whether this is a SpatialData with an image of its own."""
    return is_spatialdata(data) and bool(getattr(data, "images", None))


def slide_tissue(data: AnnData | SpatialData, keys: SpatialKeys, *, size: float = 1.0, view: View = WHOLE) -> Tissue:
    """Tissue of an AnnData, or of a SpatialData: that of its image unless a library of the table is asked for.

    Parameters
    ----------
    data
        A slide.
    keys
        Where its table and its image are.
    size
        Factor on the spots' diameter.
    view
        What is shown of it.
    """
    if keys.choose_image and not is_spatialdata(data):
        raise ValueError(f"image_key= and coordinate_system= choose within a SpatialData, found {type(data).__name__}.")
    if keys.choose_image and keys.library_id is not None:
        raise ValueError("library_id= asks for the picture in the table, image_key= for an image beside it: pass one.")
    if keys.library_id is None and (has_image(data) or keys.choose_image):
        table = table_of(data, keys.table_key, "the slide")
        spots = spots_on_image(data, table, image_key=keys.image_key, coordinate_system=keys.coordinate_system)
        return tissue_on_image(spots, size, view)
    return tissue_of(placed_table(data, keys.table_key, "the slide"), keys.library_id, size, view)


def check_crop(crop: Sequence[float]) -> Crop:
    """The part of a slide that is to be shown; refuses what encloses nothing."""
    try:
        left, right, top, bottom = (float(edge) for edge in crop)
    except (TypeError, ValueError) as error:
        raise ValueError(f"crop_coord must be four numbers (left, right, top, bottom), found {crop!r}.") from error
    if not (np.isfinite([left, right, top, bottom]).all() and left < right and top < bottom):
        raise ValueError(
            f"crop_coord=({left:g}, {right:g}, {top:g}, {bottom:g}) encloses nothing. Pass (left, right, top, bottom) in "
            "full-resolution pixels, left below right and top below bottom, since y runs downwards."
        )
    return left, right, top, bottom


def tissue_of(adata: AnnData, library_id: str | None, size: float, view: View = WHOLE) -> Tissue:
    """Find image, scale and spot size of a slide.

    Parameters
    ----------
    adata
        A slide.
    library_id
        Entry of ``uns["spatial"]``; ``None`` takes the only one, or the one that ``obs`` names.
    size
        Factor on the spots' diameter.
    view
        What is shown of it.
    """
    xy = check_coordinates(adata, "the slide")
    library = find_library(adata, library_id)
    factors = {} if library is None else library.scale_factors
    image, scale = best_image({} if library is None else library.record, factors)
    known = positive(factors.get("spot_diameter_fullres"))
    geometry = Geometry(spot_diameter(factors, xy), known is not None, scale, recorded_mpp(adata, library), size)
    footprint = footprint_of(adata, {} if library is None else library.record, xy, scale)
    return replace(_tissue(xy, image, geometry, view), footprint=footprint)


def tissue_on_image(spots: SpotsOnImage, size: float, view: View = WHOLE) -> Tissue:
    """The same of spots on an image of a SpatialData, of which a small version is read.

    Parameters
    ----------
    spots
        The spots and their image.
    size
        Factor on the spots' diameter.
    view
        What is shown of it.
    """
    with open_image(spots.image) as image:
        small, scale, (left, top) = _picture(image, spots.xy, view.crop)
    known = positive(spots.diameter_px) is not None
    diameter = spot_diameter({"spot_diameter_fullres": spots.diameter_px}, spots.xy)
    origin = (left + PIXEL_CENTRE, top + PIXEL_CENTRE)
    drawn = _tissue(spots.xy, small, Geometry(diameter, known, scale, spots.mpp, size, origin), view)
    outlines = spots.outlines
    if outlines is None:
        return drawn
    moved = Polygons((outlines.vertices - origin) * scale, outlines.starts)
    return replace(drawn, footprint=Footprint(moved))


def _picture(image: ImageSource, xy: np.ndarray, crop: Crop | None) -> tuple[np.ndarray, float, tuple[int, int]]:
    """A small version of an image, its pixels per pixel of the large one, and where it begins in that."""
    shown = max(float(np.ptp(xy, axis=0).max()), 1.0)
    if crop is not None:
        (left, right, top, bottom), shown = crop, max(crop[1] - crop[0], crop[3] - crop[2])
        x0, x1 = max(int(np.floor(left)), 0), min(int(np.ceil(right)), image.width)
        y0, y1 = max(int(np.floor(top)), 0), min(int(np.ceil(bottom)), image.height)
        # A part is read by itself, as fine as print can show; one that fills the memory comes from the whole.
        if x0 < x1 and y0 < y1 and (x1 - x0) * (y1 - y0) <= MAX_PART_PIXELS:
            scale = min(1.0, MAX_IMAGE_PX / max(x1 - x0, y1 - y0))
            width, height = (max(1, int(side * scale)) for side in (x1 - x0, y1 - y0))
            box = (float(x0), float(y0), x0 + width / scale, y0 + height / scale)
            return resample(image, box, (width, height), "bilinear"), scale, (x0, y0)
    longest = min(MAX_IMAGE_PX * max(image.height, image.width) / shown, MAX_THUMBNAIL_PX)
    return *thumbnail(image, max(int(longest), MAX_IMAGE_PX)), (0, 0)


@dataclass(frozen=True)
class Geometry:
    """What the sizes in a figure follow from."""

    diameter: float
    """Of a spot, full-resolution pixels."""
    diameter_is_known: bool
    """Not guessed from the distance of neighbours."""
    scale: float
    """Pixels of the picture per pixel of full resolution."""
    mpp: float | None
    """Microns per pixel of full resolution, where known."""
    size: float
    """Factor on the spots' diameter."""
    origin: tuple[float, float] = (0.0, 0.0)
    """Where the picture begins, full-resolution pixels."""


def _tissue(xy: np.ndarray, image: np.ndarray | None, geometry: Geometry, view: View) -> Tissue:
    """What is shown of a picture, in its pixels; `xy` and `view` are those of the full resolution."""
    scale, mpp, diameter = geometry.scale, geometry.mpp, geometry.diameter * geometry.scale
    x, y = geometry.origin
    edges = view.crop or _limits(xy, geometry)
    left, right, top, bottom = (float((edge - start) * scale) for edge, start in zip(edges, (x, x, y, y), strict=True))
    cut, extent = None, (0.0, 0.0, 0.0, 0.0)
    if image is not None:
        cut, extent = _cut_out(image, (left, right), (top, bottom), scale, int(MAX_IMAGE_PX * view.detail))
    tissue = Tissue(
        xy=(xy - geometry.origin) * scale,
        diameter=diameter * geometry.size,
        xlim=(left, right),
        ylim=(bottom, top),
        image=cut,
        extent=extent,
        microns=None if mpp is None else mpp / scale,
        spot_um=geometry.diameter * mpp if mpp is not None and geometry.diameter_is_known else None,
        magnified=geometry.size,
    )
    if not tissue.in_view.any():
        (x0, y0), (x1, y1) = xy.min(axis=0), xy.max(axis=0)
        raise ValueError(
            f"crop_coord={view.crop} holds none of the {len(xy)} spots, which lie from x={x0:g} to {x1:g} and from y={y0:g} "
            f"to {y1:g}. Pass (left, right, top, bottom) in full-resolution pixels."
        )
    return tissue


def _limits(xy: np.ndarray, geometry: Geometry) -> Crop:
    """The part that holds all spots and some room around them."""
    room = geometry.diameter * max(geometry.size, 1.0) / 2 + MARGIN * float(np.ptp(xy, axis=0).max())
    (left, top), (right, bottom) = xy.min(axis=0) - room, xy.max(axis=0) + room
    return left, right, top, bottom


def _cut_out(
    image: np.ndarray, xlim: tuple[float, float], ylim: tuple[float, float], scale: float, longest: int
) -> tuple[np.ndarray | None, tuple[float, float, float, float]]:
    """The shown part of the image, thinned to what print can show, and its edges (left, right, bottom, top).

    Coordinates name centres of full-resolution pixels, so image pixel k reaches from ``k - scale / 2`` to
    ``k + 1 - scale / 2`` in the coordinates of the spots.
    """
    height, width = image.shape[:2]
    shift = scale / 2
    x0, x1 = max(int(np.floor(xlim[0] + shift)), 0), min(int(np.ceil(xlim[1] + shift)), width)
    y0, y1 = max(int(np.floor(ylim[0] + shift)), 0), min(int(np.ceil(ylim[1] + shift)), height)
    if x0 >= x1 or y0 >= y1:
        return None, (0.0, 0.0, 0.0, 0.0)
    # Blocks have to be whole; what they cut off at the far edge is less than one drawn pixel.
    step = int(np.ceil(max(x1 - x0, y1 - y0) / longest))
    x1, y1 = x0 + (x1 - x0) // step * step or x1, y0 + (y1 - y0) // step * step or y1
    cut = np.asarray(image[y0:y1, x0:x1])
    if step > 1 and min(cut.shape[:2]) >= step:
        blocks = cut.reshape(cut.shape[0] // step, step, cut.shape[1] // step, step, *cut.shape[2:])
        cut = blocks.mean(axis=(1, 3), dtype=np.float32).astype(cut.dtype)
    return cut, (x0 - shift, x1 - shift, y1 - shift, y0 - shift)


def draw_tissue(
    ax: Axes, tissue: Tissue, values: np.ndarray, *, cmap: str | Colormap, norm: Normalize, img_alpha: float
) -> Collection | AxesImage:
    """Draw the picture, and every spot in its true size in the colour of its value.

    Parameters
    ----------
    ax
        Where to draw.
    tissue
        Picture and spots.
    values
        One a spot; a spot with NaN is left out, so that the tissue is seen, and so are those outside the view.
    cmap, norm
        Colours and their scale.
    img_alpha
        Opacity of the picture.
    """
    from matplotlib.patches import Rectangle

    if tissue.image is not None:
        if img_alpha < 1 and on_dark(ax):
            # A faint picture fades into white, as on paper, not into the darkness behind it.
            left, right, bottom, top = tissue.extent
            ax.add_patch(Rectangle((left, top), right - left, bottom - top, facecolor="white", zorder=-1))
        ax.imshow(tissue.image, cmap="gray", alpha=img_alpha, extent=tissue.extent, aspect="equal")
    shown = np.ma.masked_invalid(np.asarray(values)[tissue.in_view])
    spots = _shapes(ax, tissue, tissue.in_view, array=shown, cmap=cmap, norm=norm, linewidths=0)
    ax.set(xlim=tissue.xlim, ylim=tissue.ylim, aspect="equal")
    ax.set_axis_off()
    return spots


def draw_rings(ax: Axes, tissue: Tissue, ringed: np.ndarray) -> None:
    """Draw a ring around some spots of a panel; `ringed` is True for these."""
    _shapes(ax, tissue, ringed & tissue.in_view, facecolors="none", edgecolors=RING_COLOUR, linewidths=RING_PT)


def draw_filled(ax: Axes, tissue: Tissue, chosen: np.ndarray, **style: Any) -> None:
    """Draw some spots of a panel in a style of their own, over those that have a value; `chosen` is True for these."""
    _shapes(ax, tissue, chosen & tissue.in_view, **style)


def _shapes(ax: Axes, tissue: Tissue, chosen: np.ndarray, **style: Any) -> Collection | AxesImage:
    """Draw some spots in their true size and shape."""
    return draw_shapes(ax, tissue.xy, tissue.diameter, tissue.footprint, chosen, magnified=tissue.magnified, **style)


def draw_note(ax: Axes, text: str) -> None:
    """Write into the middle of a panel why it shows no spots."""
    box = {"facecolor": "white", "edgecolor": "none", "boxstyle": "round", "alpha": 0.8}
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", color="black", bbox=box)


def draw_scale_bar(ax: Axes, tissue: Tissue, *, spot: bool = False) -> None:
    """Draw a scale bar below the panel, where it hides no spot; nothing where the scale is unknown.

    Parameters
    ----------
    ax
        The panel.
    tissue
        What it shows.
    spot
        Say beside the bar how wide a spot is, where that is known.
    """
    if tissue.microns is None:
        return
    from matplotlib.lines import Line2D
    from matplotlib.offsetbox import AnchoredOffsetbox, AuxTransformBox, HPacker, TextArea, VPacker

    width = tissue.xlim[1] - tissue.xlim[0]
    length = round_length(SCALE_BAR_SHARE * width * tissue.microns)
    text = {"size": TEXT_PT, "color": text_colour(ax)}
    bar = AuxTransformBox(ax.transData)
    ends = [0, length / tissue.microns]
    bar.add_artist(Line2D(ends, [0, 0], linewidth=SCALE_BAR_PT, color=text_colour(ax), solid_capstyle="butt"))
    below = f"{length / UM_PER_MM:g} mm" if length >= UM_PER_MM else f"{length:g} µm"
    parts: list[Artist] = [VPacker(children=[bar, TextArea(below, textprops=text)], align="center", pad=0, sep=2)]
    if spot and tissue.spot_um is not None:
        parts.append(TextArea(_spot_size(tissue.spot_um, tissue.magnified), textprops=text))
    legend = HPacker(children=parts, align="bottom", pad=0, sep=LEGEND_GAP_PT)
    ax.add_artist(
        AnchoredOffsetbox(
            "upper left",
            child=legend,
            pad=0.2,
            borderpad=0,
            frameon=False,
            bbox_to_anchor=(0, 0),
            bbox_transform=ax.transAxes,
        )
    )


def _spot_size(spot_um: float, magnified: float) -> str:
    drawn = "" if magnified == 1 else f", drawn × {magnified:g}"
    return f"spot {spot_um:.3g} µm{drawn}"


def round_length(longest: float) -> float:
    """The largest of 1, 2 and 5 times a power of ten that is not longer."""
    power = 10.0 ** np.floor(np.log10(longest))
    return float(max(digit * power for digit in (1, 2, 5) if digit * power <= longest))
