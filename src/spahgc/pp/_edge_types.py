"""The types of edges, each registered once: what it joins, how its neighbours are found, where they are kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from spahgc._keys import Obsm, Obsp
from spahgc._spots.pieces import nearest_in_piece
from spahgc._spots.same_place import nearest_on_each
from spahgc.pp._bank.references import make_rs_graph
from spahgc.pp._search.neighbors import Neighbors, search_neighbors

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from spahgc._parameters import Parameters
    from spahgc._spots.rows import Rows

TARGET, REFERENCE = "target", "reference"
"""Types of nodes."""


def _unknown() -> np.ndarray:
    return np.empty((0, 0), dtype=np.float32)


@dataclass(frozen=True)
class Nodes:
    """Nodes of one type, as far as edges are built from them; what is not known of them is empty.

    Parameters
    ----------
    features
        Image features, nodes x dim.
    xy
        Centres, nodes x 2, pixels.
    expression
        What they carry of their expression, nodes x m; that of a target is never known.
    slide
        Name of each node's slide; empty where all are of one.
    step
        Of nodes that lie denser or sparser than the references: how far these lie apart, in pixels.
    place
        Where they lie in the frame of the target, nodes x 2, microns, NaN where nobody knows; ``None`` where slides were not laid
        over each other.
    reach
        Of nodes with a place, the distance beyond which others do not lie at the same place, microns.
    """

    features: Rows = field(default_factory=_unknown)
    xy: np.ndarray = field(default_factory=_unknown)
    expression: Rows = field(default_factory=_unknown)
    slide: np.ndarray | None = None
    step: float | None = None
    place: np.ndarray | None = None
    reach: float = np.inf


@dataclass(frozen=True)
class EdgeType:
    """A type of edges.

    Parameters
    ----------
    name
        Under which a :class:`spahgc.nn.HeteroGraph` holds them.
    source, receiver
        Types of the nodes that are looked at, and of those that look.
    n_neighbors
        Name of the parameter that says how many sources a receiver has.
    build
        Finds them: from source nodes, receiving nodes, their number of neighbours and a torch device to the graph, receiving
        nodes x source nodes, whose rows receive from their columns, and how it was found.
    slot, key, made_by
        Where the object of the receiving nodes keeps the graph: ``"obsp"`` or ``"obsm"``, the key, and what writes it; empty for
        edges that are made only where they are needed.
    """

    name: str
    source: str
    receiver: str
    n_neighbors: str
    build: Callable[[Nodes, Nodes, int, str], Neighbors]
    slot: str = ""
    key: str = ""
    made_by: str = ""


def _nearest_in_piece(source: Nodes, receiver: Nodes, n_neighbors: int, device: str) -> Neighbors:
    return Neighbors(nearest_in_piece(receiver.xy, n_neighbors, receiver.slide, receiver.step), {})


def _most_similar(source: Nodes, receiver: Nodes, n_neighbors: int, device: str) -> Neighbors:
    return search_neighbors(receiver.features, source.features, n_neighbors, device=device)


def _peers(source: Nodes, receiver: Nodes, n_neighbors: int, device: str) -> Neighbors:
    return Neighbors(make_rs_graph(receiver.features, receiver.expression, n_neighbors), {})


def _at_the_same_place(source: Nodes, receiver: Nodes, n_neighbors: int, device: str) -> Neighbors:
    if source.place is None or receiver.place is None:
        raise ValueError("nodes without a place have no edges by place. Lay their slides over each other first.")
    return Neighbors(nearest_on_each(receiver.place, source.place, source.slide, n_neighbors, receiver.reach), {})


MADE_BY = "spahgc.pp.spatial_graph(target)", "spahgc.pp.cross_graph(target, bank)", "spahgc.pp.reference_bank(refs)"
TS = EdgeType("ts", TARGET, TARGET, "n_spatial", _nearest_in_piece, "obsp", Obsp.spatial_distances, MADE_BY[0])
"""Target slice: the nearest spots of the same piece of tissue, on a slide that is denser than its references those at their
spacing; values are distances in pixels."""
CS = EdgeType("cs", REFERENCE, TARGET, "n_sources", _most_similar, "obsm", Obsm.cross_graph, MADE_BY[1])
"""Cross slice: the reference spots of highest cosine similarity of the features."""
RS = EdgeType("rs", REFERENCE, REFERENCE, "n_reference", _peers, "obsp", Obsp.reference_connectivities, MADE_BY[2])
"""Reference slice: the peers of highest cosine similarity of features and expression together."""

PLACE = EdgeType("ps", REFERENCE, TARGET, "n_placed", _at_the_same_place)
"""Same place: the nearest reference spots of every reference that was laid over the target by its image; values are distances in
microns."""

EDGE_TYPES = {edge_type.name: edge_type for edge_type in (TS, CS, RS, PLACE)}
"""All of them, by name."""


def build_edges(
    nodes: Mapping[str, Nodes],
    parameters: Parameters,
    *,
    known: Mapping[str, csr_matrix] | None = None,
    device: str = "cpu",
) -> dict[str, csr_matrix]:
    """Graphs of all types of edges between some nodes that the network runs along, by name.

    A network without layers runs along CS edges, and along those by place where nodes have one; the others are made only if they
    are known.

    Parameters
    ----------
    nodes
        Of either type.
    parameters
        How many neighbours a node has.
    known
        Graphs that need not be built, by name.
    device
        Torch device of the search.
    """
    graphs = dict(known or {})
    for name, kind in EDGE_TYPES.items():
        source = nodes[kind.source]
        wanted = source.place is not None if kind is PLACE else parameters.layers or kind is CS
        if name not in graphs and wanted:
            graphs[name] = kind.build(source, nodes[kind.receiver], n_neighbors(kind, source, parameters), device).graph
    return graphs


def n_neighbors(kind: EdgeType, source: Nodes, parameters: Parameters) -> int:
    """Sources of a receiver; with ``n_retrieved`` a target spot has all reference spots where they are fewer."""
    wanted: int = getattr(parameters, kind.n_neighbors)
    return min(wanted, source.features.shape[0]) if kind is CS and parameters.n_retrieved else wanted
