"""Patches of target and reference spots, as the encoder saw them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pandas as pd
from anndata import AnnData

from spahgc._keys import SPATIAL, UNS, Uns
from spahgc._logging import warn
from spahgc._slides.resolution import noted_mpp
from spahgc._slides.spatialdata import spots_on_image
from spahgc._slides.split import located_slides, placed_tables
from spahgc._slides.stored import stored_slides
from spahgc._validate import check_anndata, encoder_records, quoted
from spahgc.encoders._record import NATIVE_MPP
from spahgc.image._resample import FILTERS
from spahgc.pl._figure_slides import as_list
from spahgc.pl._tissue import SpatialKeys, has_image
from spahgc.pp._bank.references import is_bank
from spahgc.pp._embed.patches import DEFAULT_INTERPOLATION, PatchCutter
from spahgc.pp._embed.slide_image import SlideImage, Source, check_slide, find_source, opened_image
from spahgc.pp._embed.stain import METHODS, StainNormalizer

if TYPE_CHECKING:
    from spatialdata import SpatialData

    References: TypeAlias = Mapping[str, tuple[AnnData | SpatialData, AnnData]]

DRAWN_PX = 224
"""Side of a drawn patch where no encoder record names its input."""
AS_SCANNED = "as scanned"
"""Note at patches whose stain was changed for the encoder in a way that cannot be repeated here."""


def reference_slides(
    refs: AnnData | SpatialData | Iterable[AnnData | SpatialData] | None,
    names: Sequence[str],
    table_key: str | None,
    of: str = "the prediction",
) -> References:
    """The references that were handed over, by name: object and table; refuses those of another prediction or bank."""
    if refs is None:
        return {}
    refs = stored_slides(refs, "reference")
    if is_bank(refs):
        raise ValueError("refs is a bank, which holds no images. Pass the slides from which it was made.")
    items = as_list(refs)
    located = located_slides(placed_tables(items, table_key, "reference"))
    slides = {name: (items[i], table) for name, (i, table) in located.items()}
    if not set(slides) & {str(name) for name in names}:
        raise ValueError(
            f"none of refs is a reference of {of}: they are called {quoted(slides)}, its references "
            f"{quoted(names)}. Pass the slides of which {of} was made."
        )
    return slides


def slide_image(data: AnnData | SpatialData, table: AnnData, image: Source | None, keys: SpatialKeys) -> SlideImage:
    """A slide with its image: the one that was passed, that of the SpatialData, or the one that the table names."""
    if image is not None or not has_image(data):
        return check_slide(table, image, noted_mpp(table), 0)
    spots = spots_on_image(data, table, image_key=keys.image_key, coordinate_system=keys.coordinate_system)
    return check_slide(table, None, None, 0, spots=spots)


def find_image(data: AnnData | SpatialData, table: AnnData, label: str) -> SlideImage | None:
    """The same where an image is welcome but need not be there; ``None`` with a warning without one."""
    try:
        # What is wrong with an image that was found is an error, below.
        spots = spots_on_image(data, table) if has_image(data) else None
        source = find_source(table, label) if spots is None else None
    except (FileNotFoundError, ValueError):
        warn(
            f"no full-resolution image of {label} was found, so its patches stay empty. Write its path "
            f'into adata.uns["{SPATIAL}"][slide]["metadata"]["source_image_path"], or add the image to its SpatialData.',
            stacklevel=5,
        )
        return None
    return check_slide(table, source, noted_mpp(table) if spots is None else None, 0, spots=spots)


def cut_patches(
    slide: SlideImage, positions: Sequence[int] | np.ndarray, embedding: str, patch_um: float | None
) -> list[np.ndarray]:
    """Cut the patches of some spots as the encoder saw them, with the stain that it saw where that can be repeated."""
    record = encoder_records(slide.adata).get(embedding, {})
    interpolation = str(record.get("interpolation"))
    cutter = PatchCutter(
        xy=slide.xy,
        width_px=patch_width_px(slide, embedding, patch_um),
        out_px=int(record.get("input_px", DRAWN_PX)),
        interpolation=interpolation if interpolation in FILTERS else DEFAULT_INTERPOLATION,
        normalizer=_stain(slide.adata, embedding),
    )
    with opened_image(slide.source) as image:
        return list(cutter.cut(image, np.asarray(positions, dtype=np.int64))[0])


def patch_width_um(slide: SlideImage, embedding: str, patch_um: float | None) -> float | None:
    """Width of a patch in microns, where the resolution of the slide is known."""
    return None if slide.mpp is None else patch_width_px(slide, embedding, patch_um) * slide.mpp


def patch_lines(slide: SlideImage, embedding: str, patch_um: float | None) -> list[str]:
    """Lines that tell a patch's width, where it is known in microns, and its stain, where that was changed."""
    width, note = patch_width_um(slide, embedding, patch_um), stain_note(slide.adata, embedding)
    return [*([] if width is None else [f"{width:.0f} µm wide"]), *([note] if note else [])]


def stain_note(table: AnnData, embedding: str) -> str:
    """What a figure says of the stain of a slide's patches; empty where the encoder saw them as they are.

    Of a normalisation by the package's own methods the slide's estimates stand in ``uns``, and the patches are drawn
    with it. A function of the user's is not kept, nor is what another tool did: then they are drawn as scanned.
    """
    name = str(encoder_records(table).get(embedding, {}).get("stain", "") or "")
    if not name:
        return ""
    return AS_SCANNED if _stain(table, embedding) is None else f"stain: {name}"


def _stain(table: AnnData, embedding: str) -> StainNormalizer | None:
    """The normalisation that a slide's patches went through; ``None`` without one, or if it cannot be repeated."""
    estimates = dict(table.uns.get(UNS, {}).get(Uns.stain, {}).get(embedding, {}))
    method = METHODS.get(str(estimates.pop("method", "")))
    return None if method is None else method(**{name: np.asarray(value) for name, value in estimates.items()})


def reference_patches(
    references: pd.DataFrame, slides: References, embedding: str, patch_um: float | None
) -> list[np.ndarray | None]:
    """Patch of every reference spot, ``None`` where there is no image; a slide is opened once.

    Parameters
    ----------
    references
        Names in the columns ``slide`` and ``spot``, and an index from 0.
    slides
        From :func:`reference_slides`.
    embedding
        Key of the embedding.
    patch_um
        Width of the patches, microns; ``None`` takes that of the embedding.
    """
    patches: list[np.ndarray | None] = [None] * len(references)
    for name, rows in references.groupby("slide", sort=False):
        if name not in slides:
            continue
        data, slide = slides[str(name)]
        check_anndata(slide, f'reference "{name}"')
        missing = [spot for spot in rows["spot"] if spot not in slide.obs_names]
        if missing:
            raise KeyError(
                f'{quoted(missing)} not found in reference "{name}", whose spots are {quoted(slide.obs_names)}. '
                "Pass the slides as they were when the graph was made."
            )
        image = find_image(data, slide, f'reference "{name}"')
        if image is None:
            continue
        cut = cut_patches(image, slide.obs_names.get_indexer(rows["spot"]), embedding, patch_um)
        for i, patch in zip(rows.index, cut, strict=True):
            patches[i] = patch
    return patches


def unrepeated_stains(
    references: pd.DataFrame, patches: Sequence[np.ndarray | None], slides: References, embedding: str
) -> list[str]:
    """A note for every patch that is drawn with another stain than the encoder saw; empty for all others."""
    return [
        AS_SCANNED if patch is not None and stain_note(slides[name][1], embedding) == AS_SCANNED else ""
        for name, patch in zip(references["slide"], patches, strict=True)
    ]


def patch_width_px(slide: SlideImage, embedding: str, patch_um: float | None) -> float:
    """Width of a patch in pixels of the slide: the caller's, that of the embedding, or that of its record."""
    record = encoder_records(slide.adata).get(embedding, {})
    width_um = patch_um
    if width_um is None:
        width_um = slide.adata.uns.get(UNS, {}).get(Uns.patch_um, {}).get(embedding)
    if width_um is None and {"input_px", "mpp"} <= set(record):
        if str(record["mpp"]) == NATIVE_MPP:
            return float(record["input_px"])
        width_um = float(record["input_px"]) * float(record["mpp"])
    if width_um is None:
        raise ValueError(
            f'the width of the patches of obsm["{embedding}"] is not known on slide "{slide.name}": '
            f'uns["{UNS}"]["{Uns.patch_um}"] and the encoder record do not say it. Pass patch_um= with microns.'
        )
    if slide.mpp is None:
        raise ValueError(
            f'the resolution of slide "{slide.name}" is not known, but its patches are {float(width_um):g} um wide. '
            f'Write the microns per pixel of its full-resolution image into adata.uns["{UNS}"]["{Uns.slide_mpp}"].'
        )
    return float(width_um) / slide.mpp
