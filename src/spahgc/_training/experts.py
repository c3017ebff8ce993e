"""The experts of a prediction, each trained on the references, and the weights that references held out prove."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from scipy.sparse import csr_matrix

from spahgc._linear.held_out import NEVER, Fold, folds_of, groups_of, hold_out_folds
from spahgc._linear.kernel import KernelRidge, fit_kernel_ridge
from spahgc._linear.low_rank import GeneComponents, ImageAxes
from spahgc._linear.node_features import LowRankFeatures, arrays_with_prefix
from spahgc._linear.ridge import fit_ridge
from spahgc._linear.weights import PLACED_SHRINKAGE, prove_weights
from spahgc._parameters import EXPERTS, GRAPH, KERNEL, KERNEL_OVERALL, LINE, PERCEPTRON, PERCEPTRON_OVERALL, Parameters
from spahgc._settings import progress_bar
from spahgc._spots.rows import Spots, slide_or_half
from spahgc._training.graphs import hetero_graph, needed_references, search_device
from spahgc._training.networks import predict_networks, train_networks
from spahgc._training.perceptron import PerceptronExpert, fit_perceptron, new_perceptron
from spahgc._training.placed import (
    GRAPH_BY_PLACE,
    PLACE_EXPERTS,
    PLACE_KERNELS,
    Laid,
    learns_places,
    placed_scores,
    places_on,
    unproven_weights,
)
from spahgc.pp._bank.references import make_rs_graph
from spahgc.pp._edge_types import CS, PLACE, REFERENCE, RS, TARGET, Nodes, build_edges, n_neighbors

if TYPE_CHECKING:
    from spahgc._linear.node_features import NodeFeatures
    from spahgc._spots.rows import Rows
    from spahgc.nn import HeteroGraph
    from spahgc.pp._register.lays import Lays

N_PENALTY_COMPONENTS = 4
"""Largest components by whose error the penalty of the line is chosen: smaller ones are mostly noise, and would raise it."""


SEE_OVERALL = (KERNEL_OVERALL, PERCEPTRON_OVERALL)
"""Experts that see features standardised over all references; the others see them standardised by slide."""

UNSEEN_PATIENT_SHARE = 0.5
"""Weight of ``"kernel_overall"`` for a new patient where the references are of one, beside what sections of that one prove: they
do not tell how patients differ. Found on spinal cords, each mouse predicted from the sections of another one
(``benchmarks/NOTES.md``)."""


def unproven_shares(experts: Sequence[str]) -> dict[str, float]:
    """Weights where a single reference leaves nothing to hold out: equal shares of what sees features by slide.

    Two halves of one slide are more alike than two slides, and what is standardised over all references is there the same as
    by slide. On spinal cords, olfactory bulbs and kidney organoids, each slide predicted from a single other one, equal shares of
    these were ahead of weights that the halves prove (``benchmarks/NOTES.md``).
    """
    heard = [name for name in experts if name not in SEE_OVERALL] or list(experts)
    return {name: 1 / len(heard) if name in heard else 0.0 for name in experts}


def unseen_patient_weights(weights: Mapping[str, float]) -> dict[str, float]:
    """Weights for a new patient from those that sections of a single patient prove; the same without ``"kernel_overall"``."""
    if KERNEL_OVERALL not in weights:
        return dict(weights)
    constant = UNSEEN_PATIENT_SHARE
    return {name: (1 - constant) * weight + constant * (name == KERNEL_OVERALL) for name, weight in weights.items()}


class Expert(Protocol):
    """What says something of spots by what they look like."""

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Scores of the components, spots x components, of spots x features."""


@dataclass(frozen=True)
class Views:
    """What experts see of some spots, and their surroundings, on principal axes; spots x features, float32.

    Parameters
    ----------
    by_slide
        Standardised over the spots of each slide.
    overall
        Standardised over the spots of all references; ``None`` where no expert looks at it.
    """

    by_slide: np.ndarray
    overall: np.ndarray | None

    def of(self, expert: str) -> np.ndarray:
        """The view of an expert."""
        if expert not in SEE_OVERALL:
            return self.by_slide
        if self.overall is None:
            raise ValueError(
                f'expert "{expert}" sees features that are standardised over all references, and there are none.'
            )
        return self.overall


@dataclass(frozen=True)
class Experts:
    """Trained experts beside line and graph, and the weights of all.

    Parameters
    ----------
    fitted
        Those that see a view of a spot, by name; one whose weights are zero is not among them.
    weights
        Of every expert; their sum is 1.
    axes
        To features that are standardised over all references; ``None`` where no expert looks at them.
    placed
        Weights of all experts, those of place among them, for a target on which a reference lies.
    new_patient
        Weights for a target that is of no patient of the references, where these name theirs.
    """

    fitted: Mapping[str, KernelRidge | PerceptronExpert]
    weights: Mapping[str, float]
    axes: ImageAxes | None
    placed: Mapping[str, float]
    new_patient: Mapping[str, float]

    def views(self, spots: Spots, by_slide: np.ndarray) -> Views:
        """What the experts see of a target's spots, of which features by slide are known."""
        return Views(by_slide, None if self.axes is None else self.axes.transform(spots))

    def uses(self, expert: str) -> bool:
        """Whether an expert has any weight."""
        return any(weights.get(expert, 0.0) > 0 for weights in (self.weights, self.placed, self.new_patient))

    @property
    def knows_place(self) -> bool:
        """Whether the networks of the graph were trained with edges by place."""
        return GRAPH_BY_PLACE in self.placed

    @property
    def has_networks(self) -> bool:
        """Whether the graph says anything that counts."""
        return self.uses(GRAPH) or self.uses(GRAPH_BY_PLACE)

    def weights_for(self, *, placed: bool, new_patient: bool) -> Mapping[str, float]:
        """Weights for a target: that a reference lies on it tells more than of whom it is."""
        return self.placed if placed else self.new_patient if new_patient else self.weights

    def blend(
        self, views: Views, known: Mapping[str, np.ndarray], weights: Mapping[str, float], device: str = "cpu"
    ) -> np.ndarray:
        """Weighted sum of what all experts say, spots x components; line, graph and experts of place are ``known``."""
        said = {
            name: expert_scores(part, views.of(name), device) for name, part in self.fitted.items() if weights.get(name)
        }
        return weighted_sum(weights, said | dict(known))

    def to_arrays(self, features: np.ndarray) -> dict[str, np.ndarray]:
        """Plain arrays by name, without the features of the nodes where a kernel has these as its landmarks."""
        arrays = {f"weights.{name}": np.array(weight) for name, weight in self.weights.items()}
        arrays |= {f"placed.{name}": np.array(weight) for name, weight in self.placed.items()}
        arrays |= {f"new_patient.{name}": np.array(weight) for name, weight in self.new_patient.items()}
        for name, expert in self.fitted.items():
            arrays |= {f"{name}.{part}": array for part, array in _arrays_of(expert).items() if array is not features}
        if self.axes is not None:
            arrays |= {f"axes.{name}": array for name, array in self.axes.to_arrays().items()}
        return {name: np.ascontiguousarray(array) for name, array in arrays.items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], features: np.ndarray) -> Experts:
        """The inverse of :meth:`to_arrays`."""
        weights = {name: weight.item() for name, weight in arrays_with_prefix("weights.", arrays).items()}
        fitted: dict[str, KernelRidge | PerceptronExpert] = {}
        for name in weights:
            parts = arrays_with_prefix(f"{name}.", arrays)
            if parts:
                is_network = name in (PERCEPTRON, PERCEPTRON_OVERALL)
                fitted[name] = _perceptron_of(parts) if is_network else KernelRidge(**{"landmarks": features, **parts})
        axes = arrays_with_prefix("axes.", arrays)
        placed, new_patient = (
            {name: weight.item() for name, weight in arrays_with_prefix(prefix, arrays).items()}
            for prefix in ("placed.", "new_patient.")
        )
        return cls(fitted, weights, ImageAxes.from_arrays(axes) if axes else None, placed, new_patient or weights)


def expert_scores(expert: Expert, x: np.ndarray, device: str) -> np.ndarray:
    """What a trained expert says of spots x features, on the device if it is a kernel; others are on the CPU."""
    return expert.predict(x, device=device) if isinstance(expert, KernelRidge) else expert.predict(x)


def weighted_sum(weights: Mapping[str, float], said: Mapping[str, np.ndarray]) -> np.ndarray:
    """Sum of what experts with a weight say, times their weights; in one order, so that it is the same to the last bit."""
    first, *others = [name for name in (*EXPERTS, *PLACE_EXPERTS) if weights.get(name)]
    total = weights[first] * said[first]
    for name in others:  # one after the other: of large slides not all products have room at once
        total += weights[name] * said[name]
    return total


def _arrays_of(expert: KernelRidge | PerceptronExpert) -> dict[str, np.ndarray]:
    if isinstance(expert, PerceptronExpert):
        state = {name: part.numpy() for name, part in expert.network.state_dict().items()}
        return {"size": np.array(expert.size), **state}
    return {name: getattr(expert, name) for name in ("landmarks", "coefficients", "penalties", "slopes")}


def _perceptron_of(parts: dict[str, np.ndarray]) -> PerceptronExpert:
    size = parts.pop("size").item()
    state = {name: torch.from_numpy(np.array(part)) for name, part in parts.items()}
    first, *_, last = (part for part in state.values() if part.dim() == 2)
    with torch.device("meta"):
        network = new_perceptron(first.shape[1], last.shape[0])
    network = network.to_empty(device="cpu")
    network.load_state_dict(state)
    return PerceptronExpert(network.eval(), size)


@dataclass(frozen=True)
class Answers:
    """What experts say of references held out, each from the others of its fold.

    Parameters
    ----------
    said
        Scores of the spots, spots x components, by name of each expert that was asked; 0 where it said nothing.
    truth
        Scores that they have on the components of their fold.
    placed
        Spots of slides on which another one lies that is not held out with them, boolean.
    folds
        Number of each spot's fold, ``NEVER`` for those that were not held out.
    components
        Of each fold, without what was held out.
    is_single
        Whether the folds are two halves of one slide, which prove no weights.
    """

    said: Mapping[str, np.ndarray]
    truth: np.ndarray
    placed: np.ndarray
    folds: np.ndarray
    components: tuple[GeneComponents, ...]
    is_single: bool

    def weights(self, experts: Sequence[str], rows: np.ndarray) -> dict[str, float]:
        """Weights of experts that some spots prove, or equal shares where there is a single reference."""
        if self.is_single:
            return unproven_shares(experts)
        return prove_weights({name: self.said[name][rows] for name in experts}, self.truth[rows])

    def weights_by_place(self, rows: np.ndarray, weights: Mapping[str, float]) -> dict[str, float]:
        """The same of all experts, those of place among them; from ``weights`` where no slide lies on another one."""
        rows = rows[self.placed[rows]]
        if not len(rows):
            return unproven_weights(weights)
        return prove_weights(
            {name: part[rows] for name, part in self.said.items()}, self.truth[rows], shrinkage=PLACED_SHRINKAGE
        )

    def panel(self, weights_of: Callable[[np.ndarray], Mapping[str, float]]) -> np.ndarray:
        """What the weighted experts predict of every spot, spots x panel, float32; NaN where it was not held out.

        Parameters
        ----------
        weights_of
            Weights of the experts for the spots of a fold.
        """
        n_genes = self.components[0].loadings.shape[1]
        panel = np.full((len(self.folds), n_genes), np.nan, dtype=np.float32)
        for fold, known in enumerate(self.components):
            rows = np.flatnonzero(self.folds == fold)
            said = {name: part[rows, : known.scores.shape[1]] for name, part in self.said.items()}
            panel[rows] = known.panel(weighted_sum(weights_of(rows), said))
        return panel


@dataclass(frozen=True)
class Proof:
    """What references held out in turn say of the experts.

    Parameters
    ----------
    weights
        See :class:`Experts`.
    answers
        What the experts said of every reference without having seen it.
    views
        What the experts see of the references.
    axes, placed, new_patient
        See :class:`Experts`.
    lays
        How the references lie on each other; ``None`` where place has no part in it.
    by_patient
        What the experts said of patients held out as a whole; ``None`` where the references do not name two.
    """

    weights: dict[str, float]
    answers: Answers
    views: Views
    axes: ImageAxes | None
    placed: dict[str, float]
    new_patient: dict[str, float]
    lays: Lays | None
    by_patient: Answers | None

    def uses(self, expert: str) -> bool:
        """Whether an expert has any weight."""
        return any(weights.get(expert, 0.0) > 0 for weights in (self.weights, self.placed, self.new_patient))

    @property
    def has_networks(self) -> bool:
        """Whether the graph says anything that counts."""
        return self.uses(GRAPH) or self.uses(GRAPH_BY_PLACE)

    @property
    def lays_of_graph(self) -> Lays | None:
        """How the references lie on each other, if the graph was asked by place; as it was trained then it is trained in the end."""
        return self.lays if GRAPH_BY_PLACE in self.placed else None

    def weights_without(self, rows: np.ndarray, *, placed: bool = False, new_patient: bool = False) -> dict[str, float]:
        """Weights that the references prove without some spots, whose own residuals then choose nothing."""
        answers = self.by_patient if new_patient and self.by_patient is not None else self.answers
        others = np.setdiff1d(np.flatnonzero(answers.folds != NEVER), rows)
        weights = answers.weights(list(self.weights), others)
        return answers.weights_by_place(others, weights) if placed else weights

    @property
    def panel(self) -> np.ndarray:
        """What the experts predict of every reference without having seen it, spots x panel, float32."""
        return self.answers.panel(self.weights_without)


def prove_experts(
    spots: Spots,
    blocks: tuple[tuple[int, int], ...],
    node_features: LowRankFeatures,
    parameters: Parameters,
    *,
    patients: np.ndarray | None,
    lays: Lays | None = None,
    seed: int,
    device: str,
) -> Proof:
    """Train all experts without each group of references in turn, and weigh them by what they say of it.

    Parameters
    ----------
    spots
        Spots of all references.
    blocks
        Columns of the embedding that belong together.
    node_features
        Axes and components of all references. Their expression has no part in the axes, which the folds share; each fold
        has components of its own.
    parameters
        Which experts there are, and how they are trained.
    patients
        Patient of every spot, if each slide names one: what is held out together, unless sections lie on each other.
    lays
        How the references lie on each other; ``None`` where place has no part in it.
    seed
        Of networks.
    device
        Torch device of the graph and the kernels.
    """
    views, axes = views_of(spots, blocks, node_features, parameters)
    # What place is worth shows where a section of the same block stays among the others.
    on_each_other = lays is not None and any(pair.used for pair in lays.pairs.values())
    folds = folds_of(groups_of(spots, None if on_each_other else patients))
    heard = [name for name in parameters.experts if not _is_single(spots) or unproven_shares(parameters.experts)[name]]

    def ask(folds: np.ndarray, lays: Lays | None) -> Answers:
        return ask_experts(heard, folds, spots, views, node_features, parameters, lays=lays, seed=seed, device=device)

    answers, everything = ask(folds, lays), np.arange(len(spots))
    weights = answers.weights(parameters.experts, everything)
    placed = {} if lays is None else answers.weights_by_place(everything, weights)
    by_patient, new_patient = None, weights
    if patients is not None and len(np.unique(patients)) > 1:
        by_patient = ask(folds_of(patients), None) if on_each_other else answers
        new_patient = by_patient.weights(parameters.experts, everything)
    elif patients is not None and not answers.is_single:
        new_patient = unseen_patient_weights(weights)
    return Proof(weights, answers, views, axes, placed, new_patient, lays, by_patient)


def ask_experts(
    experts: Sequence[str],
    folds: np.ndarray,
    spots: Spots,
    views: Views,
    node_features: LowRankFeatures,
    parameters: Parameters,
    *,
    lays: Lays | None,
    seed: int,
    device: str,
) -> Answers:
    """Train experts without each fold in turn, and let them predict it.

    Parameters
    ----------
    experts
        Their names, without those of place, which are asked where ``lays`` says how the references lie on each other.
    folds
        Number of each spot's fold; ``NEVER`` for those that always stay among the others.
    spots, node_features, parameters, lays, seed, device
        See :func:`prove_experts`.
    views
        What the experts see of the references.
    """
    wanted = parameters.n_components
    shape = len(spots), max(wanted) if isinstance(wanted, tuple) else wanted
    laid_out = lays if lays is not None and GRAPH in experts and learns_places(spots.slide, folds, lays) else None
    by_place = () if lays is None else PLACE_KERNELS if laid_out is None else PLACE_EXPERTS
    names = [*experts, *by_place]
    said, truth, placed = {name: np.zeros(shape) for name in names}, np.zeros(shape), np.zeros(len(spots), dtype=bool)
    components = []
    with progress_bar(total=None, desc="references held out", unit="fold") as bar:
        for fold in hold_out_folds(spots, parameters, folds):
            cells = np.ix_(fold.rows, np.arange(fold.truth.shape[1]))  # few spots have fewer components
            truth[cells] = fold.truth
            for name in experts:
                found = _held_out_scores(name, fold, spots, views, node_features, parameters, laid_out, seed, device)
                for asked, scores in found.items():
                    said[asked][cells] = scores
            if lays is not None:
                _say_by_place(said, placed, fold, spots, views.by_slide, lays, device)
            components.append(fold.components)
            bar.update()
    return Answers(said, truth, placed, folds, tuple(components), _is_single(spots))


def _is_single(spots: Spots) -> bool:
    return len(np.unique(spots.slide)) == 1


def _say_by_place(
    said: dict[str, np.ndarray],
    placed: np.ndarray,
    fold: Fold,
    spots: Spots,
    features: np.ndarray,
    lays: Lays,
    device: str,
) -> None:
    """Let the experts of place say something of each slide that is held out and on which another one lies."""
    for name in np.unique(spots.slide[fold.rows]):
        rows = fold.rows[spots.slide[fold.rows] == name]
        held_out = Spots.without_expression(features[rows], spots.xy[rows], str(name))
        found = places_on(held_out, fold.spots, lays)
        if found is None:
            continue
        xy, places = found
        known = features[fold.others], places, fold.components.scores, fold.spots
        for expert, scores in placed_scores(features[rows], xy, *known, device).items():
            said[expert][np.ix_(rows, np.arange(scores.shape[1]))] = scores
        placed[rows] = True


def _held_out_scores(
    name: str,
    fold: Fold,
    spots: Spots,
    views: Views,
    node_features: LowRankFeatures,
    parameters: Parameters,
    lays: Lays | None,
    seed: int,
    device: str,
) -> dict[str, np.ndarray]:
    """What an expert that learned from the others says of the spots that are held out; the graph with ``lays`` by place too."""
    if name == GRAPH:
        return _graph_held_out(fold, spots, node_features, parameters, lays, seed, device)
    seen = views.of(name)
    expert = fit_expert(name, seen[fold.others], fold.components, fold.spots, seed, device)
    return {name: expert_scores(expert, seen[fold.rows], device)}


def fit_expert(name: str, x: np.ndarray, components: Any, spots: Spots, seed: int, device: str) -> Any:
    """Train an expert that sees a view of a spot; ``components`` hold the scores of the spots."""
    slide = slide_or_half(spots)
    if name == LINE:
        return fit_ridge(x, components.scores, slide, n_scored=N_PENALTY_COMPONENTS)
    if name in (PERCEPTRON, PERCEPTRON_OVERALL):
        return fit_perceptron(x, components, spots, seed)
    if name in (KERNEL, KERNEL_OVERALL):
        return fit_kernel_ridge(x, components.scores, slide, device=device)
    raise ValueError(f'no expert is called "{name}".')


def views_of(
    spots: Spots, blocks: tuple[tuple[int, int], ...], node_features: LowRankFeatures, parameters: Parameters
) -> tuple[Views, ImageAxes | None]:
    """What experts see of the references, and the axes of what is standardised over all of them, if one looks at that."""
    if node_features.ridge is None:
        raise ValueError("experts stand on the axes of a line. Pass line=True.")
    by_slide = node_features.ridge.features
    if not set(parameters.experts) & set(SEE_OVERALL):
        return Views(by_slide, None), None
    axes, overall = ImageAxes.fit(spots, blocks, n_axes=parameters.n_axes, n_around=parameters.n_around, by_slide=False)
    return Views(by_slide, overall), axes


def fit_experts(proof: Proof, spots: Spots, node_features: NodeFeatures, seed: int, device: str = "cpu") -> Experts:
    """Train on all references those experts beside line and graph that earned a weight."""
    if not isinstance(node_features, LowRankFeatures):
        raise TypeError(f"experts predict components, found {type(node_features).__name__}.")
    views = proof.views
    apart = (LINE, GRAPH, *PLACE_EXPERTS)
    names = [name for name in {**proof.weights, **proof.placed} if proof.uses(name) and name not in apart]
    known = node_features.components, spots, seed, device
    fitted = {name: fit_expert(name, views.of(name), *known) for name in names}
    return Experts(fitted, proof.weights, proof.axes, proof.placed, proof.new_patient)


def _graph_held_out(
    fold: Fold,
    spots: Spots,
    node_features: LowRankFeatures,
    parameters: Parameters,
    lays: Lays | None,
    seed: int,
    device: str,
) -> dict[str, np.ndarray]:
    """What a graph of the others says of the spots that are held out; with ``lays`` what it says by place as well.

    By place nothing is said, 0, of a slide on which no other one lies.
    """
    carried = node_features.features
    nodes = LowRankFeatures(node_features.image_axes, fold.components, None, carried[fold.others])
    networks, _ = train_networks(fold.spots, nodes, parameters, seed=seed, device=device, lays=lays)
    peers = make_rs_graph(nodes.features, nodes.expression, parameters.n_reference) if parameters.layers else None
    bank, size = Nodes(nodes.features), nodes.components.size
    wanted = n_neighbors(CS, bank, parameters)

    def scores(rows: np.ndarray, laid: Laid | None) -> np.ndarray:
        features, xy = carried[rows], spots.xy[rows]
        cross = CS.build(bank, Nodes(features), wanted, search_device(device)).graph
        carries = nodes.features, nodes.expression, features, xy, cross, peers
        graph = target_graph(*carries, parameters, device, step=spots.step_of(rows), laid=laid)
        return predict_networks(networks, graph, xy, parameters, device)[0] * size

    said = {GRAPH: scores(fold.rows, None)}
    if lays is not None:
        said[GRAPH_BY_PLACE] = np.zeros_like(said[GRAPH])
        for name in np.unique(spots.slide[fold.rows]):
            inside = spots.slide[fold.rows] == name
            rows = fold.rows[inside]
            held_out = Spots.without_expression(carried[rows], spots.xy[rows], str(name))
            laid = Laid.of(held_out, fold.spots, lays)
            if laid is not None:
                said[GRAPH_BY_PLACE][inside] = scores(rows, laid)
    return said


def target_graph(
    reference_features: Rows,
    expression: np.ndarray,
    features: Rows,
    xy: np.ndarray,
    cross: csr_matrix,
    reference_graph: csr_matrix | None,
    parameters: Parameters,
    device: str,
    *,
    step: float | None = None,
    laid: Laid | None = None,
) -> HeteroGraph:
    """Graph of a target with what it needs of the references, on a device; ``step`` as in :class:`Nodes`.

    With ``laid`` it has edges by place.
    """
    known = {CS.name: cross} | ({} if reference_graph is None else {RS.name: csr_matrix(reference_graph)})
    nodes = {TARGET: Nodes(features, xy, step=step), REFERENCE: Nodes(reference_features, expression=expression)}
    nodes = nodes if laid is None else laid.beside(nodes)
    graphs = build_edges(nodes, parameters, known=known)
    return hetero_graph(*needed_references(nodes, graphs, parameters.layers), device)


def place_edges(laid: Laid, parameters: Parameters) -> csr_matrix:
    """Edges by place of a target: target spots x reference spots, CSR, microns."""
    nodes = laid.beside({TARGET: Nodes(), REFERENCE: Nodes()})
    return PLACE.build(nodes[REFERENCE], nodes[TARGET], parameters.n_placed, "cpu").graph
