"""From what a page shows to its text, within the size that was asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from anndata import AnnData
from scipy.spatial import cKDTree

from spahgc._slides.categories import category_colours
from spahgc.pl._report._added import Added
from spahgc.pl._report._annotations import Annotation
from spahgc.pl._report._content import Content
from spahgc.pl._report._pack import TEXT_PER_BYTE, Block, Codes, bytes_block, number_block, plain, quantised
from spahgc.pl._report._page import page
from spahgc.pl._report._picture import Picture, Pixels, fitted
from spahgc.pl._report._placing import Placing
from spahgc.pl._report._provenance import origin, reading_notes, sections, subtitle, warning
from spahgc.pl._report._retrieved import Patches, Retrieved, fitted_patches
from spahgc.pl._report._sets import GeneSet
from spahgc.pl._report._tiles import SIDE, Tiles
from spahgc.pl._spot_panels import COLOURS
from spahgc.pl._style import EXPRESSION_CMAP, SPREAD_CMAP, SUPPORT_CMAP, shared_limits
from spahgc.pl._tissue import Tissue
from spahgc.tl._prediction import prediction_record

BYTES_PER_MB = 1_000_000
PICTURE_SHARE = 0.5
"""Share of the room beside the numbers that the picture may take where there are patches as well."""
NOTE_BYTES = 2_000
LENGTH_BYTES = 7
"""Room for what is said of the pictures once they are there: notes, and the length of each patch."""


@dataclass(frozen=True)
class Sources:
    """All of which a page is made."""

    adata: AnnData
    content: Content
    title: str
    retrieved: Retrieved | None
    patches: list[np.ndarray | None] | None
    """``None`` where no reference slide was handed over."""
    pixels: Pixels | None
    patch_width: float | None
    """Width of a patch in units of the tissue."""
    added: Added | None = None
    """``None`` where no model was handed over."""
    placing: Placing | None = None
    annotations: list[Annotation] = field(default_factory=list)
    sets: list[GeneSet] = field(default_factory=list)
    tiles: Tiles | None = None
    """``None`` where the page is to be one file."""


def build(slides: Sequence[Sources], max_mb: float) -> str:
    """Make a page of at most so many megabytes; what room there is the slides share evenly.

    Raises
    ------
    ValueError
        If the numbers alone take more, or leave no room for the coarsest picture.
    """
    numbers = [number_blocks(one.content, one.retrieved, one.added) for one in slides]
    descriptions = [_description(one) for one in slides]
    blocks = [list(own.values()) for own in numbers]
    has_files = any(one.tiles is not None for one in slides)
    n_bytes = len(page(slides[0].title, descriptions, blocks, has_files=has_files).encode())
    room = max_mb * BYTES_PER_MB - n_bytes
    room -= sum(NOTE_BYTES + LENGTH_BYTES * len(one.patches or []) for one in slides)
    contents = [one.content for one in slides]
    if room < 0:
        raise ValueError(_too_large(contents, n_bytes, max_mb))
    budget = int(room / TEXT_PER_BYTE / len(slides))
    for place, one in enumerate(slides):
        pictures = _pictures(one, budget)
        if pictures is None:
            raise ValueError(_too_large(contents, n_bytes, max_mb, "the picture of the slide"))
        picture, patches = pictures
        blocks[place] += [bytes_block("picture", picture.jpeg)] if picture is not None else []
        blocks[place] += [bytes_block("patches", b"".join(patches.jpegs))] if patches is not None else []
        descriptions[place] |= _said_of_pictures(descriptions[place], picture, patches)
    return page(slides[0].title, descriptions, blocks, has_files=has_files)


def _pictures(sources: Sources, budget: int) -> tuple[Picture | None, Patches | None] | None:
    """Picture and patches of a slide in so many bytes; nothing if even the coarsest picture does not fit."""
    picture = None
    if sources.pixels is not None:
        picture = fitted(sources.pixels, int(budget * (PICTURE_SHARE if sources.patches else 1)))
        if picture is None:
            return None
        budget -= len(picture.jpeg)
    return picture, fitted_patches(sources.patches, budget) if sources.patches else None


def number_blocks(content: Content, retrieved: Retrieved | None, added: Added | None = None) -> dict[str, Block]:
    """All arrays of numbers by name."""
    blocks = {"places": number_block("places", content.tissue.xy.astype(np.float32))}
    for name, codes in _layers(content).items():
        blocks[name] = number_block(name, codes.codes)
    if content.support is not None:
        blocks["support"] = number_block("support", content.support.astype(np.float32))
    if content.domains is not None:
        blocks["domains"] = number_block("domains", np.asarray(content.domains.codes, dtype=np.int16))
    if retrieved is not None:
        arrays = {"edges": retrieved.edges, "similarity": retrieved.similarity, "attention": retrieved.attention}
        blocks |= {name: number_block(name, values) for name, values in arrays.items()}
    if added is not None:
        arrays = {"adding": added.references, "added": added.values, "sums": added.sums, "rest": added.rest}
        blocks |= {name: number_block(name, values) for name, values in arrays.items()}
    outlines = content.tissue.footprint.outlines
    if outlines is not None:
        blocks["vertices"] = number_block("vertices", outlines.vertices.astype(np.float32))
        blocks["starts"] = number_block("starts", outlines.starts.astype(np.int32))
    return blocks


def _layers(content: Content) -> dict[str, Codes]:
    layers = {"measured": content.measured, "predicted": content.predicted, "spread": content.spread}
    return {name: quantised(values) for name, values in layers.items() if values is not None}


def _description(sources: Sources) -> dict[str, Any]:
    """What the scripts read, as far as it does not hang on how much room there is."""
    content, record = sources.content, prediction_record(sources.adata, sources.content.key)
    tissue, trust = content.tissue, content.trust
    left, right = tissue.xlim
    bottom, top = tissue.ylim
    layers: dict[str, Any] = {
        name: {"low": codes.low.tolist(), "high": codes.high.tolist()} for name, codes in _layers(content).items()
    }
    shown = _shown_values(content)
    for name, values in shown.items():
        layers[name]["limits"] = [_limits([column]) for column in values.T]
    panels = [shown[name] for name in ("measured", "predicted") if name in shown]
    return {
        "title": sources.title,
        "slide": content.slide,
        "subtitle": subtitle(content, record),
        "summary": content.said.lines(),
        "forWhom": content.said.for_whom,
        "unknown": np.flatnonzero(content.unknown).tolist(),
        "origin": origin(record),
        "units": content.units,
        "nSpots": len(content.spots),
        "spots": content.spots,
        "genes": content.genes,
        "layers": layers,
        "limits": [_limits([panel[:, gene] for panel in panels]) for gene in range(len(content.genes))],
        "trust": None if trust is None else {name: plain(trust[name]) for name in ("pcc", "low", "high")},
        "achieved": None if content.achieved is None else plain(content.achieved),
        "hasSupport": content.support is not None,
        "domains": _domains(content),
        "retrieved": _references(sources.retrieved),
        "added": _added(sources.added),
        "palettes": _palettes(),
        "slideColours": list(COLOURS),
        "view": {"left": left, "top": top, "right": right, "bottom": bottom},
        "diameter": tissue.diameter,
        "pitch": _pitch(tissue),
        "microns": tissue.microns,
        "patchWidth": sources.patch_width,
        "picture": None,
        "shape": _shape(tissue),
        "toPixels": _to_pixels(sources.placing),
        "warning": warning(content),
        "annotations": [asdict(one) for one in sources.annotations],
        "sets": [asdict(one) for one in sources.sets],
        "tiles": _tiles(sources.tiles),
        "notes": reading_notes(content, record) + _note_of_tiles(sources.tiles),
        "provenance": sections(sources.adata, content, record),
    }


def _said_of_pictures(
    description: Mapping[str, Any], picture: Picture | None, patches: Patches | None
) -> dict[str, Any]:
    """What the page says of the pictures, in the place of what stood there before they were made."""
    entries: dict[str, Any] = {"notes": list(description["notes"])}
    if picture is not None:
        entries["picture"] = dict(zip(("left", "top", "right", "bottom"), picture.extent, strict=True))
        entries["notes"].append(
            f"The picture of the slide is kept at {picture.size[0]:,} x {picture.size[1]:,} pixels."
        )
    if patches is not None:
        lengths = [len(jpeg) for jpeg in patches.jpegs]
        entries["retrieved"] = description["retrieved"] | {"patchBytes": lengths, "note": _patch_note(patches)}
    return entries


def _shown_values(content: Content) -> dict[str, np.ndarray]:
    """Values that the maps show, from which the colour scales follow: nothing of spots that are drawn as rings."""
    layers = {"measured": content.measured, "predicted": content.predicted, "spread": content.spread}
    hidden = content.unknown[:, None]
    # A slide of which nothing is known keeps its scale, which no spot uses.
    mask = hidden.any() and not hidden.all()
    return {
        name: np.where(hidden, np.nan, values) if mask and name != "measured" else values
        for name, values in layers.items()
        if values is not None
    }


def _shape(tissue: Tissue) -> dict[str, object]:
    """What a spot covers."""
    footprint = tissue.footprint
    if footprint.outlines is not None:
        return {"kind": "outline"}
    return {"kind": "circle"} if footprint.angle is None else {"kind": "square", "angle": footprint.angle}


def _to_pixels(placing: Placing | None) -> dict[str, float]:
    """Places of the page as pixels of the full-resolution image; as they are where that is not known."""
    if placing is None:
        return {"scale": 1.0, "x": 0.0, "y": 0.0}
    x, y = (float(value) for value in placing.shift)
    return {"scale": placing.pixels_per_unit, "x": x, "y": y}


def _tiles(tiles: Tiles | None) -> dict[str, object] | None:
    if tiles is None:
        return None
    bounds = dict(zip(("left", "top", "right", "bottom"), tiles.bounds, strict=True))
    return {"folder": tiles.folder, "side": SIDE, "least": tiles.least, "most": tiles.most, "bounds": bounds}


def _note_of_tiles(tiles: Tiles | None) -> list[str]:
    if tiles is None:
        return []
    coarser = tiles.pixels_per_tile_pixel
    return [
        "Seen from near, the slide comes from tiles in the folder beside this page, one pixel of which stands for "
        f"{coarser:.2g} of the full-resolution image. Hand the whole folder on."
    ]


def _limits(panels: list[np.ndarray]) -> list[float | bool]:
    low, high, extend = shared_limits(panels, None, None)
    return [low, high, extend in ("min", "both"), extend in ("max", "both")]


def _domains(content: Content) -> dict[str, object] | None:
    if content.domains is None:
        return None
    names = [str(name) for name in content.domains.categories]
    # The map shows no domain of spots that look like nothing on the references, so they are not counted.
    shown = content.domains.codes[(content.domains.codes >= 0) & ~content.unknown]
    counts = np.bincount(shown, minlength=len(names))
    return {"names": names, "colours": category_colours(len(names)), "counts": counts.tolist()}


def _references(retrieved: Retrieved | None) -> dict[str, object] | None:
    """The reference spots by number, as the page says it without patches."""
    if retrieved is None:
        return None
    slides = list(dict.fromkeys(retrieved.references["slide"]))
    number = {slide: i for i, slide in enumerate(slides)}
    return {
        "k": retrieved.edges.shape[1],
        "slides": slides,
        "slideOf": [number[slide] for slide in retrieved.references["slide"]],
        "names": list(retrieved.references["spot"]),
        "patchBytes": [0] * len(retrieved.references),
        "note": "Reference spots to which the graph attended, most attention first. Attention is no explanation of the "
        "values. The page was written without the reference slides, so there are no patches.",
    }


def _added(added: Added | None) -> dict[str, object] | None:
    if added is None:
        return None
    return {
        "genes": added.genes,
        "k": added.references.shape[2],
        "slides": added.slides,
        "mean": plain(np.array(added.mean)),
        "note": "Reference spots that add most to this prediction, in its units, of either sign; many more add less. The sums "
        "of the slides, the mean of the gene and what cannot be told by reference spots make the prediction.",
    }


def _patch_note(patches: Patches) -> str:
    note = (
        "Reference spots to which the graph attended, most attention first. Attention is no explanation of the values. "
    )
    n = len(patches.jpegs)
    if patches.n_kept == n:
        return note + f"Patches are kept {patches.side} pixels wide."
    return note + (
        f"Patches of {patches.n_kept:,} of {n:,} reference spots are kept, {patches.side} pixels wide: those of most "
        "attention, as far as there are images and the page has room."
    )


def _pitch(tissue: Tissue) -> float:
    """Median distance of a spot to its nearest neighbour; the diameter where there is no other."""
    if len(tissue.xy) < 2:
        return tissue.diameter
    return float(np.median(cKDTree(tissue.xy).query(tissue.xy, k=2)[0][:, 1])) or tissue.diameter


def _palettes() -> dict[str, str]:
    """Colours of the scales, 256 each, as hexadecimal digits one after the other."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    names = (EXPRESSION_CMAP, SPREAD_CMAP, SUPPORT_CMAP)
    return {name: "".join(to_hex(colour)[1:] for colour in colormaps[name](np.arange(256))) for name in names}


def _too_large(contents: Sequence[Content], n_bytes: int, max_mb: float, label: str = "") -> str:
    size = f"{n_bytes / BYTES_PER_MB:.1f} MB"
    of = " and ".join(f"{len(one.genes):,} genes x {len(one.spots):,} spots" for one in contents)
    numbers = f"the numbers of {of} take {size}"
    if label:
        numbers += f" and leave no room for {label}"
    return (
        f"max_mb={max_mb:g} is too small: {numbers}. Show fewer genes with genes=[...], a part of the slide, or raise "
        "max_mb."
    )
