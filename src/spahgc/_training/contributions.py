"""What every reference spot adds to a prediction: exact parts that add up, and a remainder of what is not linear."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.sparse import csr_matrix

from spahgc._linear.dual import kernel_dual, ridge_dual
from spahgc._linear.kernel import Kernel, KernelRidge, arc_cosine
from spahgc._linear.node_features import LowRankFeatures, PlainFeatures
from spahgc._parameters import EXPERTS, GRAPH, LINE, Parameters
from spahgc._training.experts import SEE_OVERALL, Experts, Views, place_edges, target_graph
from spahgc._training.graphs import retrieved_edges
from spahgc._training.networks import predict_networks, retrieve_networks
from spahgc._training.perceptron import PerceptronExpert
from spahgc._training.placed import GRAPH_BY_PLACE, PLACE_EXPERTS, Laid, PlacedExpert

if TYPE_CHECKING:
    from spahgc._linear.node_features import ImageRidge, NodeFeatures
    from spahgc._linear.ridge import Ridge
    from spahgc._spots.rows import Rows, Spots
    from spahgc.nn import SpaHGCNetwork

TOLERANCE = 1e-4
"""What parts and prediction may differ by, as a share of the gene's value or of its spread, whichever is more."""

BLOCK_NUMBERS = 2**23
"""Target spots times reference spots times genes that are computed at a time, 67 MB."""


@dataclass(frozen=True)
class Contributions:
    """What reference spots add to the predictions of some spots and genes, in the units of the prediction.

    ``mean + total.sum(axis=1) + remainder`` is ``prediction``, to float error.

    Parameters
    ----------
    spots, genes
        Names of the target's spots and of the genes.
    references
        Names of the reference spots, as the bank has them: ``slide:spot``.
    reference_slides
        Name of the slide of each.
    by_expert
        What a reference spot adds through each expert that is linear in the references, times the weight of that expert:
        spots x references x genes, float32.
    mean
        What is predicted of a gene whatever a spot looks like, genes: its mean on a typical slide of the references, and
        the offset that the graph has learned.
    remainder
        What the experts that are not linear in the references say, times their weights, spots x genes; 0 where there are
        none.
    prediction
        What the model predicts, spots x genes.
    weights
        Weight of each expert; their sum is 1.
    """

    spots: list[str]
    genes: list[str]
    references: list[str]
    reference_slides: np.ndarray
    by_expert: Mapping[str, np.ndarray]
    mean: np.ndarray
    remainder: np.ndarray
    prediction: np.ndarray
    weights: Mapping[str, float]

    @property
    def total(self) -> np.ndarray:
        """Sum over the experts, spots x references x genes."""
        return np.sum(list(self.by_expert.values()), axis=0)

    @property
    def by_slide(self) -> dict[str, np.ndarray]:
        """Sum over the spots of each reference slide, spots x genes."""
        total = self.total.astype(np.float64)
        return {
            str(name): total[:, self.reference_slides == name].sum(axis=1) for name in np.unique(self.reference_slides)
        }


@dataclass(frozen=True)
class Trained:
    """The parts of a model that a prediction comes from.

    Parameters
    ----------
    nodes
        What the nodes carry.
    networks
        The trained networks.
    experts
        What is averaged; ``None`` where the parameters name no experts.
    parameters
        All numbers of the fit.
    placed
        Kernels of place that were fitted for the target; empty where no reference lies on it.
    laid
        Where target and references lie, for the edges of the graph by place; ``None`` without these.
    new_patient
        Whether the target is of no patient of the references.
    bank
        Reads the spots of the references, with the columns of their embedding that are looked at.
    rs_graph
        Reads the graph among the references.
    """

    nodes: NodeFeatures
    networks: Sequence[SpaHGCNetwork]
    experts: Experts | None
    parameters: Parameters
    placed: Mapping[str, PlacedExpert]
    laid: Laid | None
    new_patient: bool
    bank: Callable[[], Spots]
    rs_graph: Callable[[], csr_matrix]

    @property
    def weights(self) -> dict[str, float]:
        """Of what is averaged."""
        if self.experts is not None:
            weights = self.experts.weights_for(placed=bool(self.placed), new_patient=self.new_patient)
            return {name: weights[name] for name in (*EXPERTS, *PLACE_EXPERTS) if weights.get(name)}
        share = self.parameters.graph_share if self.networks else 0.0
        if not self.parameters.line:
            share = 1.0
        return {name: weight for name, weight in ((LINE, 1 - share), (GRAPH, share)) if weight}

    @property
    def line(self) -> ImageRidge:
        """The line, on whose axes the experts stand."""
        if not isinstance(self.nodes, LowRankFeatures) or self.nodes.ridge is None:
            raise ValueError("the model averages experts, and has no line. Fit it again.")
        return self.nodes.ridge

    def expert(self, name: str) -> Ridge | KernelRidge | PerceptronExpert:
        """An expert that sees a view of a spot, or where it lies as well."""
        if name in self.placed:
            return self.placed[name].fitted
        if name == LINE or self.experts is None:
            return self.line.ridge
        return self.experts.fitted[name]

    def kernel(self, name: str) -> Kernel:
        """The kernel of an expert that has one."""
        return self.placed[name].kernel if name in self.placed else arc_cosine

    @property
    def linear(self) -> list[str]:
        """Those experts with a weight that are linear in what the references express, at least in part."""
        fitted = {} if self.experts is None else self.experts.fitted
        retrieves = bool(self.parameters.n_retrieved)
        return [
            name
            for name in self.weights
            if (retrieves if name in (GRAPH, GRAPH_BY_PLACE) else not isinstance(fitted.get(name), PerceptronExpert))
        ]


@dataclass(frozen=True)
class ReadOut:
    """From scores of components (or genes in standard deviations) to some genes of the panel."""

    scores: np.ndarray
    """Of the reference spots, spots x components, in the units of the line and the kernels."""
    loadings: np.ndarray
    """Components x genes, in the units of the prediction."""
    mean: np.ndarray
    size: float
    """What the networks' scores are multiplied by."""
    spread: np.ndarray

    @classmethod
    def of(cls, nodes: NodeFeatures, genes: np.ndarray) -> ReadOut:
        """Of the genes with these positions in the panel."""
        if isinstance(nodes, LowRankFeatures):
            known, scale = nodes.components, nodes.components.scale
            loadings = known.loadings[:, genes] * scale.spread[genes]
            return cls(known.scores, loadings, scale.mean[genes], known.size, scale.spread[genes])
        if isinstance(nodes, PlainFeatures):
            spread = nodes.scale.spread[genes]
            loadings = np.zeros((nodes.expression.shape[1], len(genes)))
            loadings[genes, np.arange(len(genes))] = spread
            return cls(nodes.expression, loadings, nodes.scale.mean[genes], 1.0, spread)
        raise TypeError(f"the nodes carry {type(nodes).__name__}, which cannot be read off.")


@dataclass(frozen=True)
class Parts:
    """What the spots in question are made of, before it has names; see :class:`Contributions`."""

    by_expert: dict[str, np.ndarray]
    mean: np.ndarray
    remainder: np.ndarray
    prediction: np.ndarray


def parts_of(
    model: Trained, target: Spots, rows: np.ndarray, genes: np.ndarray, cross: csr_matrix, device: str
) -> Parts:
    """Take the prediction of some spots and genes apart.

    Parameters
    ----------
    model
        The parts of the model.
    target
        All spots of the target: by them it is standardised.
    rows, genes
        Positions of the spots among these, and of the genes in the panel.
    cross
        CS graph of the target, all its spots x reference spots.
    device
        Torch device of the networks and of what kernels say; the weights of which this is a sum are found on the CPU.

    Raises
    ------
    ValueError
        If the parts do not add up to the prediction, since the references were changed after the fit.
    """
    read_out, seen = ReadOut.of(model.nodes, genes), Seen(model, target, rows)
    by_expert: dict[str, np.ndarray] = {}
    mean = read_out.mean.copy()
    remainder, said = np.zeros((len(rows), len(genes))), np.zeros((len(rows), len(genes)))
    for name, weight in model.weights.items():
        weighed = replace(read_out, loadings=weight * read_out.loadings)
        if name in (GRAPH, GRAPH_BY_PLACE):
            of_graph = _of_graph(seen, cross, model.laid if name == GRAPH_BY_PLACE else None, weighed, device)
            said += of_graph.said
            remainder += of_graph.remainder
            if of_graph.parts is not None:
                mean += of_graph.offset
                by_expert[name] = of_graph.parts
            continue
        expert, x, kernel = model.expert(name), seen.target(name), model.kernel(name)
        scores = expert.predict(x, kernel, device=device) if isinstance(expert, KernelRidge) else expert.predict(x)
        of_expert = scores @ weighed.loadings
        said += of_expert
        if isinstance(expert, PerceptronExpert):
            remainder += of_expert
        else:
            by_expert[name] = _of_linear(expert, seen.references(name), x, weighed, kernel)
    parts = Parts(by_expert, mean, remainder, read_out.mean + said)
    _check_sum(parts, read_out.spread)
    return parts


def _of_linear(
    expert: Ridge | KernelRidge, known: np.ndarray, x: np.ndarray, read_out: ReadOut, kernel: Kernel
) -> np.ndarray:
    """Parts of a line or a kernel, spots x references x genes, float32; a block of spots at a time."""
    n_known, n_genes = len(known), read_out.loadings.shape[1]
    parts = np.zeros((len(x), n_known, n_genes), dtype=np.float32)
    step = max(1, BLOCK_NUMBERS // (n_known * n_genes))
    for rows in (slice(start, start + step) for start in range(0, len(x), step)):
        seen = x[rows]
        dual = (
            kernel_dual(expert, known, seen, kernel)
            if isinstance(expert, KernelRidge)
            else ridge_dual(expert, known, seen)
        )
        for responses, slopes, weights in dual:
            of_known = (read_out.scores[:, responses] * slopes) @ read_out.loadings[responses]
            parts[rows] += weights[:, :, None] * of_known
    return parts


class Seen:
    """What experts see of the spots in question, and of the references; made where it is asked for.

    Parameters
    ----------
    model
        The parts of the model.
    spots
        All spots of the target.
    rows
        Those in question.
    """

    def __init__(self, model: Trained, spots: Spots, rows: np.ndarray) -> None:
        self.model, self.spots, self.rows = model, spots, rows
        self._of_references: dict[bool, np.ndarray] = {}

    @cached_property
    def carried(self) -> Rows:
        """What the nodes of all target spots carry."""
        nodes = self.model.nodes
        if isinstance(nodes, LowRankFeatures):
            return nodes.image_axes.transform(self.spots)  # and not what the line says of them
        return nodes.transform(self.spots)[0]

    @cached_property
    def _views(self) -> Views:
        of_line = self.model.line.image_axes
        by_slide = np.asarray(self.carried) if self.model.parameters.by_slide else of_line.transform(self.spots)
        experts = self.model.experts
        return Views(by_slide, None) if experts is None else experts.views(self.spots, by_slide)

    def target(self, expert: str) -> np.ndarray:
        """What an expert sees of the spots in question."""
        if expert in self.model.placed:
            return self.model.placed[expert].seen[self.rows]
        return self._views.of(expert)[self.rows]

    def references(self, expert: str) -> np.ndarray:
        """What it saw of the reference spots, on which it was fitted."""
        if expert in self.model.placed:
            return self.model.placed[expert].known
        overall = expert in SEE_OVERALL
        if overall not in self._of_references:
            self._of_references[overall] = self._overall_references(expert) if overall else self._references_by_slide()
        return self._of_references[overall]

    def _overall_references(self, expert: str) -> np.ndarray:
        fitted, n_known = self.model.expert(expert), len(self.model.nodes.expression)
        if isinstance(fitted, KernelRidge) and len(fitted.landmarks) == n_known:
            return fitted.landmarks
        if self.model.experts is None or self.model.experts.axes is None:
            raise ValueError(
                f'expert "{expert}" sees features that are standardised over all references, and there are none.'
            )
        return self.model.experts.axes.transform(self.model.bank())

    def _references_by_slide(self) -> np.ndarray:
        if self.model.parameters.by_slide:
            return np.asarray(self.model.nodes.features[:])
        line = self.model.line
        return line.features if len(line.features) else line.image_axes.transform(self.model.bank())


class GraphParts(NamedTuple):
    """What the graph adds; without retrieval it is all remainder."""

    parts: np.ndarray | None
    offset: np.ndarray
    remainder: np.ndarray
    said: np.ndarray


def _of_graph(seen: Seen, cross: csr_matrix, laid: Laid | None, read_out: ReadOut, device: str) -> GraphParts:
    """Parts of retrieval, spots x references x genes: attention times what a reference spot expresses; with ``laid`` by place."""
    model, rows = seen.model, seen.rows
    parameters, layers = model.parameters, model.parameters.layers
    # Without layers a spot depends on no other one of its slide.
    chosen = np.arange(len(seen.spots)) if layers else rows
    known = model.nodes.features, model.nodes.expression
    laid = None if laid is None else laid.part(chosen, np.arange(len(known[1])))
    graph = target_graph(
        *known,
        seen.carried[chosen],
        seen.spots.xy[chosen],
        cross[chosen],
        model.rs_graph(),
        parameters,
        device,
        laid=laid,
    )
    edges = cross[chosen] if laid is None else retrieved_edges(cross[chosen], place_edges(laid, parameters))
    outputs, _ = predict_networks(model.networks, graph, seen.spots.xy[chosen], parameters, device)
    loadings = read_out.size * read_out.loadings
    place = rows if layers else np.arange(len(rows))
    said = outputs[place] @ loadings
    offset = np.zeros(loadings.shape[1])
    if not parameters.n_retrieved:
        return GraphParts(None, offset, said, said)
    factors, shift = retrieve_networks(model.networks, graph, parameters, device)
    parts = np.zeros((len(rows), len(known[1]), loadings.shape[1]), dtype=np.float32)
    for i, row in enumerate(place):
        inside = slice(edges.indptr[row], edges.indptr[row + 1])
        sources = edges.indices[inside]
        parts[i, sources] = (factors[inside] * known[1][sources]) @ loadings
    offset = shift @ loadings
    # What layers make of a target's own state is not linear in what a reference spot expresses.
    remainder = said - offset - parts.sum(axis=1, dtype=np.float64) if layers else np.zeros_like(said)
    return GraphParts(parts, offset, remainder, said)


def _check_sum(parts: Parts, spread: np.ndarray) -> None:
    added = parts.mean + parts.remainder + sum(part.sum(axis=1, dtype=np.float64) for part in parts.by_expert.values())
    apart = np.abs(added - parts.prediction)
    allowed = TOLERANCE * np.maximum(np.abs(parts.prediction), spread)
    if not (apart <= allowed).all():
        raise ValueError(
            f"the contributions of the reference spots add up to the prediction but for {np.nanmax(apart):.3g}: bank or "
            "features of the model are no longer those on which it was fitted. Fit or load it again."
        )
