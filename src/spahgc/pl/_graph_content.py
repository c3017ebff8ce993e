"""What a figure of the graph shows, collected before anything is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.sparse import csr_matrix, triu

from spahgc._keys import UNS, Obs, Obsm, Obsp, Uns
from spahgc._validate import quoted
from spahgc.pl._graph_figure import Home, Place, Plane, Star, home_tissue, reference_tissue, short
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
from spahgc.pp._bank.build import is_bank
from spahgc.pp._bank.references import bank_embedding
from spahgc.pp._embed.slide_image import SlideImage, Source
from spahgc.tl._attribution import reference_names, sorted_graph, stored_edges
from spahgc.tl._prediction import prediction_record

MAKE_CROSS = "Run spahgc.tl.predict(adata, refs), or spahgc.pp.cross_graph(adata, bank), first."


def plane_graph(adata: AnnData) -> csr_matrix:
    """TS: stored values at ``(i, j)`` where spot j is a neighbour of spot i."""
    if Obsp.spatial_connectivities not in adata.obsp:
        raise KeyError(
            f'obsp["{Obsp.spatial_connectivities}"] not found in the slide, obsp has {quoted(adata.obsp)}. '
            "Run spahgc.pp.spatial_graph(adata) first."
        )
    graph = csr_matrix(sorted_graph(adata.obsp[Obsp.spatial_connectivities]), copy=True)
    graph.setdiag(0)
    graph.eliminate_zeros()
    return graph


def pairs_of(graph: csr_matrix) -> np.ndarray:
    """Joined spots, pairs x 2; those that are neighbours of each other stand there once."""
    return np.column_stack(triu(abs(graph) + abs(graph).T, k=1).nonzero())


def cross_edges(adata: AnnData, row: int, key: str, bank: AnnData | None) -> pd.DataFrame:
    """CS: reference spots of a target spot; columns ``rank``, ``slide``, ``spot``, ``similarity``, best first.

    Parameters
    ----------
    adata
        The target.
    row
        The spot.
    key
        Key of the prediction, or of a graph that was made on its own, without its ending ``_cs``.
    bank
        Names the columns of the graph; ``None`` takes the record of the prediction.
    """
    name = Obsm.cross(key)
    if name not in adata.obsm:
        raise KeyError(f'obsm["{name}"] not found in the slide, obsm has {quoted(adata.obsm)}. {MAKE_CROSS}')
    graph = sorted_graph(adata.obsm[name])
    names, slides = (
        _names_of_prediction(adata, key) if bank is None else (bank.obs_names.to_numpy(str), bank_slides(bank))
    )
    if graph.shape != (adata.n_obs, len(names)):
        by = f'the prediction "{key}" names' if bank is None else "the bank holds"
        raise ValueError(
            f'obsm["{name}"] has {graph.shape[1]} columns, but {by} {len(names)} reference spots: the graph was made '
            "with another bank. Pass bank= with the one that spahgc.pp.cross_graph was given, or predict again."
        )
    return _edge_table(graph[row], names, slides)


def peer_edges(bank: AnnData, row: int) -> pd.DataFrame:
    """RS: peers of a reference spot; columns as those of :func:`cross_edges`."""
    if Obsp.reference_connectivities not in bank.obsp:
        raise KeyError(
            f'obsp["{Obsp.reference_connectivities}"] not found in the bank, obsp has {quoted(bank.obsp)}: it was '
            "made without peers, or is too large for them. Run spahgc.pp.reference_bank(refs) first."
        )
    graph = sorted_graph(bank.obsp[Obsp.reference_connectivities])
    return _edge_table(graph[row], bank.obs_names.to_numpy(str), bank_slides(bank))


def reference_name(bank: AnnData, row: int) -> tuple[str, str]:
    """Names of the slide and the spot of a row of the bank."""
    (slide,), (spot,) = reference_names([str(bank.obs_names[row])], bank_slides(bank))
    return slide, spot


def bank_slides(bank: AnnData) -> list[str]:
    """Names of the slides of a bank."""
    return [str(name) for name in bank.uns[UNS][Uns.bank]["slides"]]


def _names_of_prediction(adata: AnnData, key: str) -> tuple[np.ndarray, list[str]]:
    """Names of the columns of a prediction's CS graph, and of its references."""
    record = prediction_record(adata, key)
    if Uns.bank_spots not in record:
        raise ValueError(
            f'nothing names the reference spots of obsm["{Obsm.cross(key)}"]: no prediction "{key}" by the network is '
            f'recorded in uns["{UNS}"]. Pass bank= with the bank that spahgc.pp.cross_graph was given.'
        )
    names = np.asarray(record[Uns.bank_spots], dtype=str)
    if Obsm.attention(key) in adata.obsm:
        # A graph that was made on its own since has taken this place, and its columns may be of another bank.
        stored_edges(adata, key, len(names))
    return names, [str(name) for name in record["references"]]


def _edge_table(edges: csr_matrix, names: np.ndarray, slides: Sequence[str]) -> pd.DataFrame:
    """Edges of one spot as a table, the most similar first."""
    slide, spot = reference_names(names[edges.indices], slides)
    table = pd.DataFrame({"slide": slide, "spot": spot, "similarity": edges.data})
    table = table.sort_values("similarity", ascending=False, kind="stable", ignore_index=True)
    table.insert(0, "rank", np.arange(1, len(table) + 1))
    return table


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
        return [_rs_graph_of_bank(request, request.adata, request.row)]
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
        parts.append(_rs_graph_of_bank(request, request.bank, row))
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


def _rs_graph_of_bank(request: Request, bank: AnnData, row: int) -> Star:
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
