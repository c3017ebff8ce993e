"""What a figure of the graph shows, collected before anything is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.sparse import csr_matrix, triu

from spahgc._keys import UNS, Obs, Obsm, Obsp, Uns
from spahgc._validate import quoted
from spahgc.pl._patches import (
    cut_patches,
    find_image,
    patch_lines,
    reference_patches,
    reference_slides,
    slide_image,
    unrepeated_stains,
)
from spahgc.pl._spot_panels import reference_tissue, short_name, target_tissue
from spahgc.pl._tissue import SpatialKeys, Tissue
from spahgc.pp._bank.references import bank_embedding, is_bank
from spahgc.pp._embed.slide_image import SlideImage, Source
from spahgc.tl._attribution import check_predicted_spot, reference_names, sorted_graph, stored_edges
from spahgc.tl._prediction import prediction_record

if TYPE_CHECKING:
    from collections.abc import Iterable

    from spatialdata import SpatialData

    from spahgc.pl._patches import References

MAKE_CROSS = "Run spahgc.tl.predict(adata, refs), or spahgc.pp.cross_graph(adata, bank), first."


@dataclass(frozen=True)
class SpatialGraph:
    """TS edges."""

    tissue: Tissue
    pairs: np.ndarray
    """Joined spots, pairs x 2."""
    position: int | None
    """The spot in question, and its neighbours."""
    neighbors: np.ndarray
    title: str

    @property
    def n_axes(self) -> int:
        """How many axes it takes."""
        return 1


@dataclass(frozen=True)
class ReferenceSlide:
    """A reference slide and where on it the edges end."""

    name: str
    tissue: Tissue | None
    """``None`` where the slide was not handed over."""
    positions: np.ndarray
    ranks: list[int]


@dataclass(frozen=True)
class CentreSpot:
    """The spot in question, on its own slide."""

    titles: tuple[str, str]
    """Above the tissue and above the patch."""
    tissue: Tissue | None
    """``None`` where its slide was not handed over."""
    position: int
    patch: np.ndarray | None


@dataclass(frozen=True)
class EgoGraph:
    """A spot and those to which its edges lead."""

    centre: CentreSpot
    edges: pd.DataFrame
    """Columns ``rank``, ``slide``, ``spot``, ``similarity``."""
    patches: list[np.ndarray | None]
    notes: list[str]
    """On the stain of each patch; mostly empty."""
    slides: list[ReferenceSlide]
    references: list[str]
    """Names of all references, also of those to which no edge leads."""
    spatial: SpatialGraph | None = None
    """TS edges on the same tissue."""

    @property
    def n_axes(self) -> int:
        """How many axes it takes."""
        return 2 + len(self.edges) + len(self.slides)


@dataclass(frozen=True)
class GraphRequest:
    """What is asked for, checked."""

    data: AnnData | SpatialData
    adata: AnnData
    """Its table, with the places of the spots."""
    refs: AnnData | SpatialData | Iterable[AnnData | SpatialData] | None
    kinds: list[str]
    position: int | None
    key: str
    bank: AnnData | None
    n: int
    image: Source | None
    patch_um: float | None
    spatial_keys: SpatialKeys

    @property
    def row(self) -> int:
        """Position of the spot, where the kind needs one."""
        if self.position is None:
            raise ValueError(f"kind={self.kinds!r} needs spot=, the name of a spot or its position, such as spot=0.")
        return self.position


def graph_panels(request: GraphRequest) -> list[SpatialGraph | EgoGraph]:
    """Collect all that is drawn; after it nothing can fail."""
    if is_bank(request.adata):
        return [_reference_graph(request, request.adata, request.row)]
    # Edges first: what is missing is told before an image is opened.
    spatial = spatial_edges(request.adata) if "TS" in request.kinds else None
    edges = None
    if "CS" in request.kinds:
        edges = cross_edges(request.adata, request.row, request.key, request.bank)
    tissue = target_tissue(request.data, request.adata, request.spatial_keys)
    drawn = None if spatial is None else _spatial_graph(request, spatial, tissue)
    if edges is None:
        return [] if drawn is None else [drawn]
    parts: list[SpatialGraph | EgoGraph] = [replace(_target_graph(request, edges, tissue), spatial=drawn)]
    if "RS" in request.kinds and request.bank is not None:
        first = edges.iloc[0]
        row = int(request.bank.obs_names.get_indexer([f"{first['slide']}:{first['spot']}"])[0])
        parts.append(_reference_graph(request, request.bank, row))
    return parts


def _spatial_graph(request: GraphRequest, edges: csr_matrix, tissue: Tissue) -> SpatialGraph:
    pairs = edge_pairs(edges)
    row = request.position
    counts = np.unique(np.diff(edges.indptr))
    each = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    title = f"TS: {each} neighbours a spot"
    if tissue.microns is not None and len(pairs):
        lengths = np.linalg.norm(np.subtract(*tissue.xy[pairs].transpose(1, 0, 2)), axis=1) * tissue.microns
        title += f"\nmedian distance {np.median(lengths):.0f} µm"
    neighbors = np.empty(0, dtype=np.int64) if row is None else edges[row].indices
    return SpatialGraph(tissue=tissue, pairs=pairs, position=row, neighbors=neighbors, title=title)


def _target_graph(request: GraphRequest, edges: pd.DataFrame, tissue: Tissue) -> EgoGraph:
    """The graph of a target spot."""
    adata, row = request.adata, request.row
    record = prediction_record(adata, request.key)
    embedding = str(record["embedding"]) if request.bank is None else bank_embedding(request.bank)
    names = [str(name) for name in record["references"]] if request.bank is None else bank_slides(request.bank)
    image = _target_image(request)
    patch = None if image is None else cut_patches(image, [row], embedding, request.patch_um)[0]
    lines = ["target spot", short_name(str(adata.obs_names[row]))]
    if image is not None:
        lines += patch_lines(image, embedding, request.patch_um)
    name = f"target {short_name(str(adata.obs[Obs.slide].iloc[0]))}" if Obs.slide in adata.obs else "target"
    slides = reference_slides(request.refs, names, request.spatial_keys.table_key)
    centre = CentreSpot((name, "\n".join(lines)), tissue, row, patch)
    return _ego_graph(request, centre, edges, slides, names, embedding)


def _reference_graph(request: GraphRequest, bank: AnnData, row: int) -> EgoGraph:
    """The graph of a reference spot."""
    edges = peer_edges(bank, row)
    embedding = bank_embedding(bank)
    slide, spot = reference_name(bank, row)
    names = bank_slides(bank)
    slides = reference_slides(request.refs, names, request.spatial_keys.table_key, "the bank")
    centre = pd.DataFrame({"slide": [slide], "spot": [spot]})
    (patch,) = reference_patches(centre, slides, embedding, request.patch_um)
    tissue, position = None, 0
    if slide in slides:
        tissue = reference_tissue(*slides[slide])
        position = int(slides[slide][1].obs_names.get_loc(spot))
    titles = f"reference {short_name(slide)}", f"reference spot\n{short_name(spot)}"
    return _ego_graph(request, CentreSpot(titles, tissue, position, patch), edges, slides, names, embedding)


def _ego_graph(
    request: GraphRequest,
    centre: CentreSpot,
    edges: pd.DataFrame,
    slides: References,
    references: list[str],
    embedding: str,
) -> EgoGraph:
    """A spot with the first of its edges, and what is known of their ends."""
    edges = edges.head(request.n)
    patches = reference_patches(edges, slides, embedding, request.patch_um)
    return EgoGraph(
        centre=centre,
        edges=edges,
        patches=patches,
        notes=unrepeated_stains(edges, patches, slides, embedding),
        slides=[_reference_slide(str(name), rows, slides) for name, rows in edges.groupby("slide", sort=False)],
        references=references,
    )


def _reference_slide(name: str, rows: pd.DataFrame, slides: References) -> ReferenceSlide:
    ranks = [int(rank) for rank in rows["rank"]]
    if name not in slides:
        return ReferenceSlide(name, None, np.empty(0, dtype=np.int64), ranks)
    data, table = slides[name]
    return ReferenceSlide(name, reference_tissue(data, table), table.obs_names.get_indexer(rows["spot"]), ranks)


def _target_image(request: GraphRequest) -> SlideImage | None:
    """The image of the target, where one is known."""
    if request.image is not None or request.spatial_keys.choose_image:
        return slide_image(request.data, request.adata, request.image, request.spatial_keys)
    return find_image(request.data, request.adata, "the target")


def spatial_edges(adata: AnnData) -> csr_matrix:
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


def edge_pairs(graph: csr_matrix) -> np.ndarray:
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
    if bank is None:
        check_predicted_spot(adata, row, key)
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
