"""From what a page shows to its text, within the size that was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from anndata import AnnData
from scipy.spatial import cKDTree

from spahgc._slides.categories import category_colours
from spahgc.pl._report._added import Added
from spahgc.pl._report._content import Content
from spahgc.pl._report._pack import TEXT_PER_BYTE, Block, Codes, bytes_block, number_block, plain, quantised
from spahgc.pl._report._page import page
from spahgc.pl._report._picture import Picture, Pixels, fitted
from spahgc.pl._report._provenance import origin, reading_notes, sections, subtitle
from spahgc.pl._report._retrieved import Patches, Retrieved, fitted_patches
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


def build(sources: Sources, max_mb: float) -> str:
    """Make a page of at most so many megabytes.

    Raises
    ------
    ValueError
        If the numbers alone take more, or leave no room for the coarsest picture.
    """
    numbers = number_blocks(sources.content, sources.retrieved, sources.added)
    description = _description(sources, numbers)
    plain_page = page(sources.title, description, list(numbers.values()))
    room = max_mb * BYTES_PER_MB - len(plain_page.encode()) - NOTE_BYTES
    room -= LENGTH_BYTES * len(sources.patches or [])
    if room < 0:
        raise ValueError(_too_large(sources.content, len(plain_page), max_mb))
    budget = int(room / TEXT_PER_BYTE)
    picture = None
    if sources.pixels is not None:
        picture = fitted(sources.pixels, int(budget * (PICTURE_SHARE if sources.patches else 1)))
        if picture is None:
            raise ValueError(_too_large(sources.content, len(plain_page), max_mb, "the picture of the slide"))
        budget -= len(picture.jpeg)
    patches = fitted_patches(sources.patches, budget) if sources.patches else None
    blocks = list(numbers.values())
    blocks += [bytes_block("picture", picture.jpeg)] if picture is not None else []
    blocks += [bytes_block("patches", b"".join(patches.jpegs))] if patches is not None else []
    return page(sources.title, description | _pictures(description, picture, patches), blocks)


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
    return blocks


def _layers(content: Content) -> dict[str, Codes]:
    layers = {"measured": content.measured, "predicted": content.predicted, "spread": content.spread}
    return {name: quantised(values) for name, values in layers.items() if values is not None}


def _description(sources: Sources, numbers: Mapping[str, Block]) -> dict[str, Any]:
    """What the scripts read, as far as it does not hang on how much room there is."""
    content, record = sources.content, prediction_record(sources.adata, sources.content.key)
    tissue, trust = content.tissue, content.trust
    left, right = tissue.xlim
    bottom, top = tissue.ylim
    layers: dict[str, Any] = {
        name: {"low": codes.low.tolist(), "high": codes.high.tolist()} for name, codes in _layers(content).items()
    }
    if content.spread is not None:
        layers["spread"]["limits"] = [_limits([column]) for column in content.spread.T]
    panels = [layer for layer in (content.measured, content.predicted) if layer is not None]
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
        "notes": reading_notes(content, record),
        "provenance": sections(sources.adata, content, record),
    }


def _pictures(description: Mapping[str, Any], picture: Picture | None, patches: Patches | None) -> dict[str, Any]:
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


def _limits(panels: list[np.ndarray]) -> list[float | bool]:
    low, high, extend = shared_limits(panels, None, None)
    return [low, high, extend in ("min", "both"), extend in ("max", "both")]


def _domains(content: Content) -> dict[str, object] | None:
    if content.domains is None:
        return None
    names = [str(name) for name in content.domains.categories]
    counts = np.bincount(content.domains.codes[content.domains.codes >= 0], minlength=len(names))
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


def _too_large(content: Content, n_bytes: int, max_mb: float, label: str = "") -> str:
    size = f"{n_bytes / BYTES_PER_MB:.1f} MB"
    numbers = f"the numbers of {len(content.genes):,} genes x {len(content.spots):,} spots take {size}"
    if label:
        numbers += f" and leave no room for {label}"
    return (
        f"max_mb={max_mb:g} is too small: {numbers}. Show fewer genes with genes=[...], a part of the slide, or raise "
        "max_mb."
    )
