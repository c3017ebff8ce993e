"""All numbers of a fit in one place, and the named sets of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np

METHODS = (
    "spahgc",
    "mean",
    "nearest",
    "ridge",
    "ridge_neighbours",
    "ridge_components",
    "kernel",
    "mlp",
    "bleep",
    "deepspot",
    "hest",
    "hest_tuned",
)
"""Methods of a prediction by name: the network, which alone has a graph, then the baselines."""

NETWORK, *BASELINE_NAMES = METHODS

EXPERTS = LINE, KERNEL, KERNEL_OVERALL, PERCEPTRON, PERCEPTRON_OVERALL, GRAPH = (
    "line",
    "kernel",
    "kernel_overall",
    "perceptron",
    "perceptron_overall",
    "graph",
)
"""What a prediction can be averaged of, where ``experts`` of :class:`Parameters` names it."""

PRECISIONS = ("fp32", "bf16", "fp16")
"""Number formats in which a network can be trained."""


@dataclass(frozen=True)
class Parameters:
    """Parameters of the graph, the network and its training; the defaults are the paper's.

    :meth:`preset` starts from the numbers of a preset.
    """

    n_abundant: int = 0
    """Most abundant genes of each reference that a panel gets besides the variable ones."""
    n_spatial: int = 5
    """Q: neighbours in the plane (TS)."""
    n_cross: int = 7
    """K: reference spots of a target spot (CS)."""
    n_reference: int = 7
    """K: peers of a reference spot (RS)."""
    n_retrieved: int = 0
    """Reference spots (CS), in place of ``n_cross``, whose expression makes the network's prediction of a target spot: its
    mean, weighed by attention in a space that is learned for it, with similarity as a bias. All, where the references hold
    fewer. 0: what travels along the edges is states, and ``n_cross`` says from how many spots."""
    standardized: bool = False
    """Standardise every dimension of the plain patch's embedding over the spots of each slide, which takes away what stain
    and scanner add to a whole slide. With ``n_axes``, ``by_slide`` does that."""
    n_axes: int = 0
    """Principal axes of what a spot looks like on its slide, context included. 0: the embedding of the plain patch."""
    n_around: int = 18
    """Nearest spots whose mean appearance is seen too, in ``n_axes`` more axes; 0 for none. Needs ``n_axes``."""
    surroundings_um: float = 0.0
    """Radius of these surroundings, microns: on a slide where ``n_around`` spots fill another one, more or fewer spots are the
    surroundings, and graph and place reckon in the spacing of spots that it means. 0: what they fill on the references, of
    which the median counts."""
    n_components: int | tuple[int, ...] = 0
    """Components of the transcriptome that the nodes carry and the network predicts. 0: the genes of the panel.
    Several numbers: the mean of the predictions from so many components each. Needs ``n_axes``."""
    weigh_genes: bool = False
    """Weigh a gene by its spatial autocorrelation when the components are made. Needs ``n_components``."""
    by_slide: bool = True
    """Standardise what the nodes carry over the spots of each slide, not over those of all references."""
    line: bool = False
    """Average the network's prediction with that of a ridge regression. Needs ``n_axes``."""
    graph_share: float = 0.25
    """Weight of the network beside the line."""
    experts: tuple[str, ...] = ()
    """What the prediction is a weighted average of, with weights that references held out in turn prove: ``"line"``, a ridge
    regression; ``"kernel"``, a kernel ridge regression; ``"perceptron"``, a small network; the same two with ``"_overall"``,
    on features that are standardised over all references and not by slide; ``"graph"``. Empty: line and graph by
    ``graph_share``. Needs ``line``, on whose axes they stand."""
    place: bool = False
    """Lay the references on each other and on the target by their images, where they store one, and let those that lie on the
    target say what they measured there, as far as references held out prove it. Of no effect without ``experts`` and
    ``by_slide``."""
    n_placed: int = 0
    """Spots, on every reference that was laid over a target, to which a target spot is joined by place in the graph, with their
    distance in microns: retrieval then looks at spots that look alike and at spots that lie there. Networks learn both with and
    without, and ``"graph_by_place"`` is what they say with, as far as references held out prove it. 0: place is known to
    kernels alone. Of no effect without ``place``, ``n_retrieved`` and ``"graph"`` among the experts."""
    n_networks: int = 1
    """Networks that are trained from different initial weights; their predictions are averaged."""
    width: int = 256
    layers: int = 4
    """Layers over the graph; 0 leaves retrieval alone, and needs ``n_retrieved``."""
    heads: int = 4
    target_hidden: float = 0.8
    """Share of a target's entries that view 1 hides."""
    reference_hidden: float = 0.9
    """Share of a reference's entries that view 1 hides; of its image features alone with ``n_retrieved``, which reads the
    expression off as it is."""
    alignment: float = 1.0
    """Weight of the two alignment losses; 0 leaves out the view that they align with."""
    epochs: int = 200
    """Epochs of the training; 0 leaves the line alone."""
    learning_rate: float = 1e-4
    weight_decay: float = 1e-4
    step_references: int = 0
    """Reference spots that a step of the training looks at, another sample of them in each; all, where the references hold
    fewer. The time of a step then does not grow with the number of references. 0: all."""
    tasks_per_step: int = 1
    """Slides (or blocks of them) whose gradients are averaged for one step of the training. Of several processes that
    train together each takes its part of them."""
    precision: str = "fp32"
    """Number format in which the network is trained: ``"fp32"``, or ``"bf16"`` or ``"fp16"`` with weights, losses and
    optimiser in fp32. Predictions are made in fp32."""

    def __post_init__(self) -> None:
        if self.n_axes == 0 and (self.line or self.n_components or self.weigh_genes):
            raise ValueError(
                "line=, n_components= and weigh_genes= stand on features that are standardised by slide. Pass n_axes= "
                'as well, or start from the numbers of the default: spahgc.Parameters.preset("default", ...).'
            )
        if self.standardized and self.n_axes:
            raise ValueError(
                "standardized= is for the embedding as it is. With n_axes=, by_slide=True standardises what the nodes carry "
                "over the spots of each slide, and the line does so anyway. Leave standardized= out."
            )
        if not (np.isfinite(self.surroundings_um) and self.surroundings_um >= 0):
            raise ValueError(
                f"surroundings_um={self.surroundings_um} is no radius. Pass microns, or 0 for the references' own."
            )
        if self.surroundings_um and not self.n_around:
            raise ValueError(
                f"surroundings_um={self.surroundings_um:g} and n_around=0 contradict each other. Pass n_around=, or leave "
                "surroundings_um= out."
            )
        self._check_retrieval()
        if self.weigh_genes and not self.n_components:
            raise ValueError("weigh_genes= is for the components of the transcriptome. Pass n_components= as well.")
        if not self.epochs and not self.line:
            raise ValueError("epochs=0 and line=False leave nothing that could predict. Pass one of the two.")
        counts = self.n_components if isinstance(self.n_components, tuple) else (self.n_components or 1,)
        if not counts or not all(isinstance(count, int | np.integer) and count > 0 for count in counts):
            raise ValueError(
                f"n_components={self.n_components} must be a positive number, a tuple of positive numbers, or 0."
            )
        unknown = [name for name in self.experts if name not in EXPERTS]
        if unknown or len(set(self.experts)) < len(self.experts):
            raise ValueError(
                f"experts={self.experts} names one that is not known, or one twice. Known are {', '.join(EXPERTS)}."
            )
        if self.experts and not (self.line and self.n_components):
            raise ValueError(
                "experts= predict components of the transcriptome. Pass line=True and n_components= as well."
            )
        if GRAPH in self.experts and not self.epochs:
            raise ValueError('epochs=0 trains no graph. Leave "graph" out of experts=, or pass epochs=.')
        if not 0 <= self.graph_share <= 1:
            raise ValueError(f"graph_share={self.graph_share} is no share. Pass a number from 0 to 1.")
        if self.n_networks < 1:
            raise ValueError(f"n_networks={self.n_networks} trains nothing. Pass a positive number.")
        if not isinstance(self.tasks_per_step, int | np.integer) or self.tasks_per_step < 1:
            raise ValueError(f"tasks_per_step={self.tasks_per_step!r} makes no step. Pass a positive whole number.")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision={self.precision!r} is not known. Choose one of {', '.join(PRECISIONS)}.")

    def _check_retrieval(self) -> None:
        for name in ("n_retrieved", "n_placed", "step_references"):
            value = getattr(self, name)
            if not isinstance(value, int | np.integer) or value < 0:
                raise ValueError(f"{name}={value!r} must be a whole number of spots, or 0.")
        if not self.layers and not self.n_retrieved:
            raise ValueError("layers=0 leaves a network that looks at no reference. Pass layers= or n_retrieved=.")
        if not self.layers and self.alignment:
            raise ValueError("layers=0 leaves no states that could be aligned. Pass alignment=0 as well.")
        needed = max(self.n_retrieved or self.n_cross, self.n_reference + 1)
        if 0 < self.step_references < needed:
            raise ValueError(
                f"step_references={self.step_references} are too few for {needed} neighbours of a spot. Pass at least so "
                "many, or 0 for all."
            )

    @property
    def n_sources(self) -> int:
        """Reference spots that a target spot attends to (CS), where the references hold so many."""
        return self.n_retrieved or self.n_cross

    @property
    def has_place_edges(self) -> bool:
        """Whether the graph has edges by place, where sections were laid over each other."""
        return bool(self.place and self.by_slide and self.n_placed and self.n_retrieved and GRAPH in self.experts)

    @property
    def expression_hidden(self) -> float:
        """Share of a reference's expression that view 1 hides."""
        return 0.0 if self.n_retrieved else self.reference_hidden

    @classmethod
    def preset(cls, name: str, **changes: Any) -> Parameters:
        """The parameters of a preset, with some of them changed.

        Parameters
        ----------
        name
            ``"default"`` or ``"paper"``.
        **changes
            Fields of this class.

        Examples
        --------
        >>> import spahgc as sp
        >>> sp.Parameters.preset("default", precision="bf16").epochs
        40
        """
        return replace(find_preset(name), **changes)

    def to_dict(self) -> dict[str, object]:
        """Plain numbers, and lists of them, by name."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> Parameters:
        """The inverse of :meth:`to_dict`; refuses names it does not know."""
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown:
            raise ValueError(
                f"unknown parameters: {', '.join(unknown)}. Known are: {', '.join(f.name for f in fields(cls))}."
            )
        changes: dict[str, Any] = {name: _plain(value) for name, value in values.items()}
        return replace(cls(), **changes)


def _plain(value: object) -> object:
    """A list, or the array that a file makes of it, as a tuple."""
    if not isinstance(value, list | tuple | np.ndarray):
        return value
    return tuple(str(item) if isinstance(item, str) else int(item) for item in value)


PRESETS = {
    "paper": Parameters(),
    "default": Parameters(
        n_abundant=300,
        n_axes=128,
        n_components=30,
        weigh_genes=True,
        experts=(KERNEL, KERNEL_OVERALL, PERCEPTRON, PERCEPTRON_OVERALL, GRAPH),
        place=True,
        line=True,
        n_networks=1,
        n_retrieved=50,
        n_placed=19,
        width=128,
        layers=0,
        target_hidden=0.3,
        reference_hidden=0.3,
        alignment=0.0,
        epochs=40,
        learning_rate=1e-3,
        step_references=1000,
    ),
}
"""``"paper"`` is the article to the letter; ``"default"`` is the best that this package knows how to do."""


def find_preset(preset: str | Parameters) -> Parameters:
    """Parameters of a name, or the parameters themselves."""
    if isinstance(preset, Parameters):
        return preset
    if preset not in PRESETS:
        raise ValueError(f'preset="{preset}" is not known. Choose one of {", ".join(PRESETS)}.')
    return PRESETS[preset]
