"""From a bank of references to the graphs on which the network learns and predicts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from spahgc._keys import SPATIAL, UNS, Obs, Uns
from spahgc.pp._bank import similar_peers
from spahgc.pp._neighbors import cosine_neighbors
from spahgc.pp._spatial_graph import nearest_in_plane

if TYPE_CHECKING:
    from anndata import AnnData
    from scipy.sparse import csr_matrix
    from torch import Tensor

    from spahgc._presets import Parameters
    from spahgc.nn import Edges, HeteroGraph, Task

MIN_SPREAD = 1e-6
"""What varies less than this is centred, not scaled."""


@dataclass(frozen=True)
class Spots:
    """Arrays of some spots: embedding (spots x dim), centres (spots x 2), slide, expression (spots x genes).

    A target that is to be predicted has an expression of no genes: what was measured on it has no place here.
    """

    z: np.ndarray
    xy: np.ndarray
    slide: np.ndarray
    y: np.ndarray

    def __getitem__(self, chosen: np.ndarray) -> Spots:
        return Spots(self.z[chosen], self.xy[chosen], self.slide[chosen], self.y[chosen])

    def __len__(self) -> int:
        return len(self.z)


@dataclass(frozen=True)
class GeneScale:
    """Mean and standard deviation of every gene over reference spots.

    The network sees and predicts standardised genes, so that no gene outweighs the others by its mere variance; the
    released code scales to the range over all slides instead, the test slide among them.
    """

    mean: np.ndarray
    spread: np.ndarray

    @classmethod
    def of(cls, y: np.ndarray) -> GeneScale:
        """The scale of some spots, spots x genes."""
        spread = y.std(axis=0, dtype=np.float64)
        return cls(y.mean(axis=0, dtype=np.float64), np.where(spread < MIN_SPREAD, 1.0, spread))

    def apply(self, y: np.ndarray) -> np.ndarray:
        """From ``log1p`` counts per 10,000 to standard deviations, float32."""
        return ((y - self.mean) / self.spread).astype(np.float32)

    def undo(self, y: np.ndarray) -> np.ndarray:
        """The inverse of :meth:`apply`, float32."""
        return (y * self.spread + self.mean).astype(np.float32)


def bank_spots(bank: AnnData, parameters: Parameters) -> Spots:
    """The spots of the bank, their embedding standardised where the parameters say so."""
    key = bank.uns[UNS][Uns.bank]["embedding"]
    slide = bank.obs[Obs.slide].astype(str).to_numpy()
    z = np.asarray(bank.obsm[key], dtype=np.float32)
    z = standardize(z, slide) if parameters.standardize else z
    return Spots(z, np.asarray(bank.obsm[SPATIAL]), slide, bank.X.toarray())


def target_spots(z: np.ndarray, xy: np.ndarray, parameters: Parameters) -> Spots:
    """The spots of a target, from its embedding (spots x dim) and centres (spots x 2)."""
    slide = np.full(len(z), "target")
    z = standardize(z, slide) if parameters.standardize else z
    return Spots(z, xy, slide, np.empty((len(z), 0), dtype=np.float32))


def standardize(z: np.ndarray, slide: np.ndarray) -> np.ndarray:
    """Every dimension to mean 0 and standard deviation 1 over the spots of each slide, float32."""
    out = np.empty_like(z, dtype=np.float32)
    for name in np.unique(slide):
        rows = slide == name
        part = z[rows].astype(np.float64)
        spread = part.std(axis=0)
        out[rows] = (part - part.mean(axis=0)) / np.where(spread < MIN_SPREAD, 1.0, spread)
    return out


def roles(spots: Spots) -> list[tuple[np.ndarray, np.ndarray]]:
    """Who plays the target and who is its bank, each slide in turn, as index arrays.

    A single slide is cut at the median of its longer side, and its halves act as two slides.
    """
    members = spots.slide
    if len(np.unique(members)) == 1:
        axis = int(np.argmax(np.ptp(spots.xy, axis=0)))
        # Ranks, not a threshold: the halves are equal also where many spots share the median coordinate.
        rank = np.argsort(np.lexsort((spots.xy[:, 1 - axis], spots.xy[:, axis])))
        members = np.where(rank < len(rank) // 2, "first half", "second half")
    return [(np.flatnonzero(members == name), np.flatnonzero(members != name)) for name in np.unique(members)]


def check_sizes(spots: Spots, parameters: Parameters) -> None:
    """Refuse references too small for the graph before anything is computed."""
    needed = max(parameters.n_cross, parameters.n_reference + 1)
    if parameters.early_stopping and len(spots):
        _, kept = roles(spots)[-1]
        check_sizes(spots[kept], replace(parameters, early_stopping=False))
    for target, bank in roles(spots):
        if len(bank) < needed or len(target) < 2:
            alone = len(np.unique(spots.slide)) == 1
            detail = "one reference acts as two halves, and each" if alone else "all references but one"
            raise ValueError(
                f"the references are too small: {detail} must hold at least {needed} spots for K = "
                f"{parameters.n_cross} (CS) and K = {parameters.n_reference} (RS) neighbours, found {len(bank)}. "
                'Pass larger or more references, or preset="paper", which holds none out to choose the epochs.'
            )


def training_task(
    spots: Spots, target: np.ndarray, bank: np.ndarray, scale: GeneScale, parameters: Parameters, device: str
) -> Task:
    """One slide in the role of the target, given the indices of its spots and of those of its bank."""
    from spahgc.nn import Task

    playing, others = spots[target], spots[bank]
    cross = cosine_neighbors(playing.z, others.z, parameters.n_cross)
    peers = similar_peers(others.z, others.y, parameters.n_reference)
    graph = spot_graph(playing, others, cross, peers, scale, parameters, device)
    return Task(graph, as_tensor(scale.apply(playing.y), device))


def spot_graph(
    target: Spots,
    bank: Spots,
    cross: csr_matrix,
    peers: csr_matrix,
    scale: GeneScale,
    parameters: Parameters,
    device: str,
) -> HeteroGraph:
    """Graph of a target and a bank with their CS and RS graphs; nothing measured on the target enters."""
    from spahgc.nn import HeteroGraph

    near, _ = nearest_in_plane(target.xy, parameters.n_spatial)
    return HeteroGraph(
        as_tensor(target.z, device),
        as_tensor(bank.z, device),
        as_tensor(scale.apply(bank.y), device),
        ts=_edges(near, device),
        cs=_edges(cross, device),
        rs=_edges(peers, device),
    )


def _edges(graph: csr_matrix, device: str) -> Edges:
    """A row of the matrix receives from its columns."""
    import torch

    from spahgc.nn import Edges

    coo = graph.tocoo()
    source, receiver = (torch.from_numpy(index.astype(np.int64)).to(device) for index in (coo.col, coo.row))
    return Edges(source, receiver, n_source=graph.shape[1], n_receiver=graph.shape[0])


def as_tensor(x: np.ndarray, device: str) -> Tensor:
    """The array on the device, float32."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32)).to(device)
