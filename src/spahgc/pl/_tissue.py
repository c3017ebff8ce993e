"""One panel: spots in their true size on the picture of the tissue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.spatial import cKDTree

from spahgc._keys import SPATIAL, UNS, Obs, Uns
from spahgc._tables import is_spatialdata, table_of
from spahgc._validate import check_coordinates, listing
from spahgc.image import open_image, thumbnail
from spahgc.pp._places import placed_table
from spahgc.pp._spatialdata import SpotsOnImage, spots_on_image

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.collections import EllipseCollection
    from matplotlib.colors import Colormap, Normalize

RESOLUTIONS = ("hires", "lowres")
"""Images of a library, the preferred one first."""
DIAMETER_OF_PITCH = 0.55
"""Spot diameter over the distance of neighbours where the diameter is unknown: 55 um of 100 um, as in Visium."""
MARGIN = 0.04
"""Room around the outermost spots, as a share of the longer side of their bounding box."""
MAX_IMAGE_PX = 2000
"""Longest side of the drawn picture; more pixels than print shows would only make drawing slow and files large."""
MAX_THUMBNAIL_PX = 2 * MAX_IMAGE_PX
"""Longest side of the picture of a whole slide that is read where only a part of it is shown."""
PIXEL_CENTRE = 0.5
"""A picture's coordinates name the centres of pixels, those of SpatialData their corners."""
MAX_VECTOR_SPOTS = 5000
"""More spots than this become pixels in vector files, which no viewer would open otherwise."""
SCALE_BAR_SHARE = 0.3
"""Longest scale bar, as a share of the panel's width."""
SCALE_BAR_HEIGHT = 0.01
"""Thickness of the scale bar, as a share of the panel's width."""
UM_PER_MM = 1000.0


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

    @property
    def aspect(self) -> float:
        """Height over width."""
        return abs(self.ylim[0] - self.ylim[1]) / (self.xlim[1] - self.xlim[0])


def slide_tissue(
    data: Any,
    *,
    table_key: str | None,
    image_key: str | None,
    coordinate_system: str | None,
    library_id: str | None,
    size: float,
) -> Tissue:
    """Tissue of an AnnData, or of a SpatialData: that of its image unless a library of the table is asked for."""
    named = image_key is not None or coordinate_system is not None
    if named and not is_spatialdata(data):
        raise ValueError(f"image_key= and coordinate_system= choose within a SpatialData, found {type(data).__name__}.")
    if named and library_id is not None:
        raise ValueError("library_id= asks for the picture in the table, image_key= for an image beside it: pass one.")
    if not is_spatialdata(data) or library_id is not None or not (data.images or named):
        return tissue_of(placed_table(data, table_key, "the slide"), library_id, size)
    table = table_of(data, table_key, "the slide")
    return tissue_on_image(spots_on_image(data, table, image_key=image_key, coordinate_system=coordinate_system), size)


def tissue_of(adata: AnnData, library_id: str | None, size: float) -> Tissue:
    """Find image, scale and spot size of a slide.

    Parameters
    ----------
    adata
        A slide.
    library_id
        Entry of ``uns["spatial"]``; ``None`` takes the only one, or the one that ``obs["slide"]`` names.
    size
        Factor on the spots' diameter.
    """
    xy = check_coordinates(adata, "the slide")
    library = _library(adata, library_id)
    factors = library.get("scalefactors", {})
    image, scale = _image(library, factors)
    return _tissue(xy, _diameter(factors, xy), image, scale, _microns(adata, factors), size)


def tissue_on_image(spots: SpotsOnImage, size: float) -> Tissue:
    """The same of spots on an image of a SpatialData, of which a small version is read.

    Parameters
    ----------
    spots
        The spots and their image.
    size
        Factor on the spots' diameter.
    """
    with open_image(spots.image) as image:
        shown = max(float(np.ptp(spots.xy, axis=0).max()), 1.0)
        longest = min(MAX_IMAGE_PX * max(image.height, image.width) / shown, MAX_THUMBNAIL_PX)
        small, scale = thumbnail(image, max(int(longest), MAX_IMAGE_PX))
    diameter = _diameter({"spot_diameter_fullres": spots.diameter_px}, spots.xy)
    return _tissue(spots.xy - PIXEL_CENTRE, diameter, small, scale, spots.mpp, size)


def _tissue(xy: np.ndarray, diameter: float, image: Any, scale: float, microns: float | None, size: float) -> Tissue:
    """What is shown of an image, in its pixels; `xy`, `diameter` and `microns` are those of the full resolution."""
    diameter = diameter * scale
    xy = xy * scale
    room = diameter * max(size, 1.0) / 2 + MARGIN * float(np.ptp(xy, axis=0).max())
    (left, top), (right, bottom) = xy.min(axis=0) - room, xy.max(axis=0) + room
    cut, extent = None, (0.0, 0.0, 0.0, 0.0)
    if image is not None:
        cut, extent = _cut_out(image, (float(left), float(right)), (float(top), float(bottom)), scale)
    return Tissue(
        xy=xy,
        diameter=diameter * size,
        xlim=(float(left), float(right)),
        ylim=(float(bottom), float(top)),
        image=cut,
        extent=extent,
        microns=None if microns is None else microns / scale,
    )


def _library(adata: AnnData, library_id: str | None) -> Mapping[str, Any]:
    libraries = adata.uns.get(SPATIAL, {})
    slides = [str(name) for name in adata.obs[Obs.slide].dropna().unique()] if Obs.slide in adata.obs else []
    if len(slides) > 1:
        raise ValueError(
            f'the object holds the spots of several slides, obs["{Obs.slide}"] has {listing(slides)}. Draw one at a '
            f'time: adata[adata.obs["{Obs.slide}"] == "{slides[0]}"].'
        )
    if library_id is not None:
        if library_id not in libraries:
            raise KeyError(
                f'library_id="{library_id}" not found in uns["{SPATIAL}"], its libraries are: {listing(libraries)}. '
                "Pass one of these, or leave it out."
            )
        return dict(libraries[library_id])
    if len(libraries) > 1:
        if slides and slides[0] in libraries:
            return dict(libraries[slides[0]])
        raise ValueError(
            f'uns["{SPATIAL}"] holds several libraries: {listing(libraries)}. Say which one with library_id=.'
        )
    return dict(next(iter(libraries.values()), {}))


def _image(library: Mapping[str, Any], factors: Mapping[str, Any]) -> tuple[Any, float]:
    """The best image there is, and its pixels per pixel of full resolution; without an image ``None`` and 1."""
    images = library.get("images", {})
    for resolution in RESOLUTIONS:
        if resolution in images:
            name = f"tissue_{resolution}_scalef"
            if name not in factors:
                raise KeyError(
                    f'scale factor "{name}" of the image "{resolution}" not found in uns["{SPATIAL}"], scale factors '
                    f"are: {listing(factors)}. Write it there (image pixels per full-resolution pixel), or remove the "
                    "image to draw the spots alone."
                )
            return images[resolution], float(factors[name])
    return None, 1.0


def _diameter(factors: Mapping[str, Any], xy: np.ndarray) -> float:
    """Diameter of a spot in full-resolution pixels."""
    known = _positive(factors.get("spot_diameter_fullres"))
    if known is not None:
        return known
    nearest = cKDTree(xy).query(xy, k=2)[0][:, 1]
    pitch = float(np.median(nearest))
    if not np.isfinite(pitch) or pitch <= 0:
        raise ValueError(
            f"the size of the spots is unknown: there is no scale factor spot_diameter_fullres, and {len(xy)} spots at "
            f"{len(np.unique(xy, axis=0))} places do not tell it. Write the diameter in full-resolution pixels into "
            f'uns["{SPATIAL}"][library]["scalefactors"]["spot_diameter_fullres"].'
        )
    return DIAMETER_OF_PITCH * pitch


def _microns(adata: AnnData, factors: Mapping[str, Any]) -> float | None:
    """Microns per full-resolution pixel, where known."""
    known = _positive(factors.get("microns_per_pixel"))
    return known if known is not None else _positive(adata.uns.get(UNS, {}).get(Uns.slide_mpp))


def _positive(value: Any) -> float | None:
    if value is None or np.ndim(value) != 0:
        return None
    number = float(value)
    return number if np.isfinite(number) and number > 0 else None


def _cut_out(
    image: Any, xlim: tuple[float, float], ylim: tuple[float, float], scale: float
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
    step = int(np.ceil(max(x1 - x0, y1 - y0) / MAX_IMAGE_PX))
    x1, y1 = x0 + (x1 - x0) // step * step or x1, y0 + (y1 - y0) // step * step or y1
    cut = np.asarray(image[y0:y1, x0:x1])
    if step > 1 and min(cut.shape[:2]) >= step:
        blocks = cut.reshape(cut.shape[0] // step, step, cut.shape[1] // step, step, *cut.shape[2:])
        cut = blocks.mean(axis=(1, 3), dtype=np.float32).astype(cut.dtype)
    return cut, (x0 - shift, x1 - shift, y1 - shift, y0 - shift)


def draw_tissue(
    ax: Axes, tissue: Tissue, values: np.ndarray, *, cmap: str | Colormap, norm: Normalize, img_alpha: float
) -> EllipseCollection:
    """Draw the picture, and every spot in its true size in the colour of its value.

    Parameters
    ----------
    ax
        Where to draw.
    tissue
        Picture and spots.
    values
        One a spot; a spot with NaN is left out, so that the tissue is seen.
    cmap, norm
        Colours and their scale.
    img_alpha
        Opacity of the picture.
    """
    from matplotlib.collections import EllipseCollection

    if tissue.image is not None:
        ax.imshow(tissue.image, cmap="gray", alpha=img_alpha, extent=tissue.extent, aspect="equal")
    n_spots = len(tissue.xy)
    # Sizes in data units, so that spots keep their size on the tissue at any zoom.
    spots = EllipseCollection(
        widths=np.full(n_spots, tissue.diameter),
        heights=np.full(n_spots, tissue.diameter),
        angles=np.zeros(n_spots),
        units="xy",
        offsets=tissue.xy,
        offset_transform=ax.transData,
        array=np.ma.masked_invalid(values),
        cmap=cmap,
        norm=norm,
        linewidths=0,
        rasterized=n_spots > MAX_VECTOR_SPOTS,
    )
    ax.add_collection(spots, autolim=False)
    ax.set(xlim=tissue.xlim, ylim=tissue.ylim, aspect="equal")
    ax.set_axis_off()
    return spots


def draw_scale_bar(ax: Axes, tissue: Tissue) -> None:
    """Draw a scale bar below the panel, where it hides no spot; nothing where the scale is unknown."""
    if tissue.microns is None:
        return
    from matplotlib.font_manager import FontProperties
    from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar  # type: ignore[import-untyped]

    from spahgc.pl._style import TEXT_PT

    width = tissue.xlim[1] - tissue.xlim[0]
    length = round_length(SCALE_BAR_SHARE * width * tissue.microns)
    bar = AnchoredSizeBar(
        ax.transData,
        length / tissue.microns,
        f"{length / UM_PER_MM:g} mm" if length >= UM_PER_MM else f"{length:g} µm",
        loc="upper left",
        pad=0.2,
        borderpad=0,
        sep=2,
        frameon=False,
        size_vertical=SCALE_BAR_HEIGHT * width,
        fontproperties=FontProperties(size=TEXT_PT),
        bbox_to_anchor=(0, 0),
        bbox_transform=ax.transAxes,
    )
    ax.add_artist(bar)


def round_length(longest: float) -> float:
    """The largest of 1, 2 and 5 times a power of ten that is not longer."""
    power = 10.0 ** np.floor(np.log10(longest))
    return float(max(digit * power for digit in (1, 2, 5) if digit * power <= longest))
