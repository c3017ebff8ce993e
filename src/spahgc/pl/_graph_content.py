"""What a figure of the graph shows, collected before anything is drawn."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import pandas as pd
from anndata import AnnData

from spahgc._keys import Obs
from spahgc._references import bank_embedding
from spahgc.pl._graph_edges import (
    bank_slides,
    cross_edges,
    pairs_of,
    peer_edges,
    plane_graph,
    reference_name,
)
from spahgc.pl._graph_figure import Home, Place, Plane, Star
from spahgc.pl._graph_frames import home_tissue, reference_tissue, short
from spahgc.pl._patches import (
    AS_SCANNED,
    cut_patches,
    found_image,
    patch_lines,
    reference_patches,
    reference_slides,
    slide_image,
    stain_note,
)
from spahgc.pl._tissue import Tissue
from spahgc.pp._bank import is_bank
from spahgc.pp._slide_image import SlideImage, Source
from spahgc.tl._predicted import prediction_record


@dataclass(frozen=True)
class Request:
    """What is asked for, checked."""

    data: Any
    adata: AnnData
    refs: Any
    kinds: list[str]
    position: int | None
    key: str
    bank: AnnData | None
    n: int
    image: Source | None
    patch_um: float | None
    where: dict[str, str | None]

    @property
    def row(self) -> int:
        """Position of the spot, where the kind needs one; that one was named has been checked."""
        return cast(int, self.position)


def parts_of(request: Request) -> list[Plane | Star]:
    """Collect all that is drawn; after it nothing can fail."""
    if is_bank(request.adata):
        return [_peers(request, request.adata, request.row)]
    # Edges first: what is missing is told before an image is opened.
    plane = plane_graph(request.adata) if "TS" in request.kinds else None
    edges = None
    if "CS" in request.kinds:
        edges = cross_edges(request.adata, request.row, request.key, request.bank)
    tissue = home_tissue(request.data, request.adata, request.where)
    drawn = None if plane is None else _plane(request, plane, tissue)
    if edges is None:
        return [] if drawn is None else [drawn]
    parts: list[Plane | Star] = [replace(_cross(request, edges, tissue), plane=drawn)]
    if "RS" in request.kinds and request.bank is not None:
        first = edges.iloc[0]
        row = int(request.bank.obs_names.get_indexer([f"{first['slide']}:{first['spot']}"])[0])
        parts.append(_peers(request, request.bank, row))
    return parts


def _plane(request: Request, edges: Any, tissue: Tissue) -> Plane:
    pairs = pairs_of(edges)
    row = request.position
    counts = np.unique(np.diff(edges.indptr))
    each = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    words = f"TS: {each} neighbours a spot"
    if tissue.microns is not None and len(pairs):
        lengths = np.linalg.norm(np.subtract(*tissue.xy[pairs].transpose(1, 0, 2)), axis=1) * tissue.microns
        words += f"\nmedian distance {np.median(lengths):.0f} µm"
    neighbors = np.empty(0, dtype=np.int64) if row is None else edges[row].indices
    return Plane(tissue=tissue, pairs=pairs, position=row, neighbors=neighbors, title=words)


def _cross(request: Request, edges: pd.DataFrame, tissue: Tissue) -> Star:
    """The star of a target spot."""
    adata, row = request.adata, request.row
    record = prediction_record(adata, request.key)
    embedding = str(record["embedding"]) if request.bank is None else bank_embedding(request.bank)
    names = [str(name) for name in record["references"]] if request.bank is None else bank_slides(request.bank)
    image = _target_image(request)
    patch = None if image is None else cut_patches(image, [row], embedding, request.patch_um)[0]
    lines = ["target spot", short(str(adata.obs_names[row]))]
    if image is not None:
        lines += patch_lines(image, embedding, request.patch_um)
    own = f"target {short(str(adata.obs[Obs.slide].iloc[0]))}" if Obs.slide in adata.obs else "target"
    slides = reference_slides(request.refs, names, request.where["table_key"])
    home = Home((own, "\n".join(lines)), tissue, row, patch)
    return _star(request, home, edges, slides, names, embedding)


def _peers(request: Request, bank: AnnData, row: int) -> Star:
    """The star of a reference spot."""
    edges = peer_edges(bank, row)
    embedding = bank_embedding(bank)
    slide, spot = reference_name(bank, row)
    names = bank_slides(bank)
    slides = reference_slides(request.refs, names, request.where["table_key"], "the bank")
    own = pd.DataFrame({"slide": [slide], "spot": [spot]})
    (patch,) = reference_patches(own, slides, embedding, request.patch_um)
    tissue, position = None, 0
    if slide in slides:
        tissue = reference_tissue(*slides[slide])
        position = int(slides[slide][1].obs_names.get_loc(spot))
    titles = f"reference {short(slide)}", f"reference spot\n{short(spot)}"
    return _star(request, Home(titles, tissue, position, patch), edges, slides, names, embedding)


def _star(
    request: Request,
    home: Home,
    edges: pd.DataFrame,
    slides: dict[str, tuple[Any, AnnData]],
    references: list[str],
    embedding: str,
) -> Star:
    """A spot with the first of its edges, and what is known of their ends."""
    edges = edges.head(request.n)
    patches = reference_patches(edges, slides, embedding, request.patch_um)
    notes = [stain_note(slides[name][1], embedding) if name in slides else "" for name in edges["slide"]]
    return Star(
        home=home,
        edges=edges,
        patches=patches,
        notes=[
            note if note == AS_SCANNED and drawn is not None else "" for note, drawn in zip(notes, patches, strict=True)
        ],
        places=[_place(str(name), rows, slides) for name, rows in edges.groupby("slide", sort=False)],
        references=references,
    )


def _place(name: str, rows: pd.DataFrame, slides: dict[str, tuple[Any, AnnData]]) -> Place:
    ranks = [int(rank) for rank in rows["rank"]]
    if name not in slides:
        return Place(name, None, np.empty(0, dtype=np.int64), ranks)
    data, table = slides[name]
    return Place(name, reference_tissue(data, table), table.obs_names.get_indexer(rows["spot"]), ranks)


def _target_image(request: Request) -> SlideImage | None:
    """The image of the target, where one is known."""
    if request.image is not None or any(request.where[name] for name in ("image_key", "coordinate_system")):
        return slide_image(request.data, request.adata, request.image, request.where)
    return found_image(request.data, request.adata, "the target")
