"""What the nodes of the graph carry, and how what comes out of it becomes expression of the panel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from spahgc._linear.low_rank import GeneComponents, ImageAxes
from spahgc._linear.ridge import Ridge, fit_ridge
from spahgc._parameters import Parameters
from spahgc._spots.rows import Rows, SlideScale, Spots, blocks_of
from spahgc._spots.unmeasured import MeasuredRows, is_complete, measured_genes, scale_where_measured

N_PENALTY_COMPONENTS = 4
"""Largest components by whose error the penalty is chosen: the smaller ones are mostly noise, and would raise it."""


class NodeFeatures(Protocol):
    """Features and expression of the reference spots as nodes carry them.

    Parameters
    ----------
    features
        Image features, spots x d; float32 where they lie in memory.
    expression
        Spots x m, in units of about one standard deviation.
    training_target
        What the network's prediction is compared with in training, spots x genes; made where it is read.
    gene_loadings
        From the m numbers that the network predicts to the genes of ``training_target``; ``None`` where they are the same.
    """

    @property
    def features(self) -> Rows: ...
    @property
    def expression(self) -> np.ndarray: ...
    @property
    def training_target(self) -> Rows: ...
    @property
    def gene_loadings(self) -> np.ndarray | None: ...

    def transform(self, target: Spots) -> tuple[Rows, np.ndarray | None]:
        """Features of a target's spots, and what a line says of their expression, if there is one."""

    def decode(self, expression: np.ndarray) -> np.ndarray:
        """From spots x m to spots x panel, ``log1p`` counts per 10,000, float32."""


@dataclass(frozen=True)
class PlainFeatures:
    """The paper's: embedding as it is, genes in standard deviations over all references.

    So no gene outweighs the others by its mere variance; the released code scales to the range over all slides
    instead, the test slide among them.

    A gene that a slide did not measure is hidden from the network as the masks hide entries: its nodes carry the gene's mean,
    which is 0 here, so that it adds nothing to a cosine similarity either; and the loss leaves it out.

    Parameters
    ----------
    features, expression, gene_loadings
        See :class:`NodeFeatures`.
    scale
        Mean and spread of every gene over the spots of the slides that measured it.
    judged
        The expression with NaN where it was not measured; ``None`` where all slides measured all genes.
    """

    features: Rows
    expression: np.ndarray
    scale: SlideScale
    gene_loadings: None = None
    judged: Rows | None = None

    @classmethod
    def fit(cls, spots: Spots) -> PlainFeatures:
        """From spots whose embedding is that of the patch."""
        complete = is_complete(spots.y, spots.slide)
        if complete:
            scale = SlideScale.fit(spots.y, np.zeros(len(spots)))
        else:
            scale = scale_where_measured(spots.y, spots.slide)
        expression = np.empty(spots.y.shape, dtype=np.float32)
        for rows in blocks_of(len(spots)):
            expression[rows] = scale.transform(spots.y[rows])
        if complete:
            return cls(spots.z, expression, scale)
        names, measured = measured_genes(spots.y, spots.slide)
        expression[np.isnan(expression)] = 0
        judged = MeasuredRows(expression, np.searchsorted(names, spots.slide), measured)
        return cls(spots.z, expression, scale, judged=judged)

    @property
    def training_target(self) -> Rows:
        """The expression itself, as far as it was measured."""
        return self.expression if self.judged is None else self.judged

    def transform(self, target: Spots) -> tuple[Rows, None]:
        """The target's embedding, and nothing."""
        return target.z, None

    def decode(self, expression: np.ndarray) -> np.ndarray:
        """Spots x panel."""
        out = np.empty(expression.shape, dtype=np.float32)
        for rows in blocks_of(len(expression)):
            out[rows] = self.scale.inverse_transform(expression[rows])
        return out


@dataclass(frozen=True)
class LowRankFeatures:
    """The default's: axes of the tissue's appearance, components of the transcriptome, and a line between them.

    Parameters
    ----------
    image_axes
        From embeddings to what the nodes of the graph carry.
    components
        From the transcriptome to a few numbers, and from them to the panel.
    ridge
        Ridge regression of the components on image axes of its own; ``None`` to leave all to the graph.
    features
        See :class:`NodeFeatures`.
    """

    image_axes: ImageAxes
    components: GeneComponents
    ridge: ImageRidge | None
    features: np.ndarray

    @classmethod
    def fit(cls, spots: Spots, blocks: tuple[tuple[int, int], ...], parameters: Parameters) -> LowRankFeatures:
        """From all reference spots, with embedding, expression and transcriptome."""
        image_axes, features = ImageAxes.fit(
            spots, blocks, n_axes=parameters.n_axes, n_around=parameters.n_around, by_slide=parameters.by_slide
        )
        components = fit_components(spots, parameters)
        seen = (image_axes, features) if parameters.by_slide else None
        ridge = ImageRidge.fit(spots, blocks, components, parameters, seen) if parameters.line else None
        return cls(image_axes, components, ridge, features)

    @cached_property
    def expression(self) -> np.ndarray:
        """Scores of the components."""
        return self.components.scores / self.components.size

    @property
    def training_target(self) -> Rows:
        """Genes of most spatial structure."""
        return self.components.training_target

    @property
    def gene_loadings(self) -> np.ndarray:
        """From scores to these genes."""
        return self.components.training_loadings * self.components.size

    def transform(self, target: Spots) -> tuple[np.ndarray, np.ndarray | None]:
        """Where the target's spots lie on the axes, and what the line says of them."""
        predicted = None if self.ridge is None else self.ridge.predict(target) / self.components.size
        return self.image_axes.transform(target), predicted

    def decode(self, expression: np.ndarray) -> np.ndarray:
        """Spots x panel."""
        return self.components.panel(expression * self.components.size)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """All that a prediction needs, by name; what only the training needs is left out."""
        parts = {
            "features": self.features,
            **{f"image_axes.{name}": part for name, part in self.image_axes.to_arrays().items()},
            "components.scores": self.components.scores,
            "components.loadings": self.components.loadings,
            "components.mean": self.components.scale.mean,
            "components.spread": self.components.scale.spread,
        }
        if self.ridge is not None:
            parts |= {f"ridge.{name}": np.asarray(part) for name, part in self.ridge.ridge._asdict().items()}
            if self.ridge.image_axes is not self.image_axes:
                parts |= {f"ridge.image_axes.{name}": part for name, part in self.ridge.image_axes.to_arrays().items()}
        return {name: np.ascontiguousarray(part) for name, part in parts.items()}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> LowRankFeatures:
        """The inverse of :meth:`to_arrays`."""
        scores = arrays["components.scores"]
        components = GeneComponents(
            scores,
            arrays["components.loadings"],
            SlideScale(arrays["components.mean"], arrays["components.spread"]),
            training_target=np.empty((len(scores), 0), dtype=np.float32),
            training_loadings=np.empty((scores.shape[1], 0)),
        )
        image_axes = ImageAxes.from_arrays(arrays_with_prefix("image_axes.", arrays))
        ridge = None
        if "ridge.coefficients" in arrays:
            coefficients, feature_mean, response_mean, penalty = (arrays[f"ridge.{name}"] for name in Ridge._fields)
            own = arrays_with_prefix("ridge.image_axes.", arrays)
            of_ridge = ImageAxes.from_arrays(own) if own else image_axes
            ridge = ImageRidge(of_ridge, Ridge(coefficients, feature_mean, response_mean, penalty.item()))
        return cls(image_axes, components, ridge, arrays["features"])


def fit_components(spots: Spots, parameters: Parameters) -> GeneComponents:
    """The components that the parameters ask for."""
    wanted = parameters.n_components
    if not wanted:
        return GeneComponents.fit_panel(spots)
    counts = wanted if isinstance(wanted, tuple) else (wanted,)
    return GeneComponents.fit(spots, max(counts), weigh=parameters.weigh_genes).tapered(counts)


def fit_node_features(spots: Spots, blocks: tuple[tuple[int, int], ...], parameters: Parameters) -> NodeFeatures:
    """The node features that the parameters ask for."""
    if not parameters.n_axes:
        return PlainFeatures.fit(spots)
    return LowRankFeatures.fit(spots, blocks, parameters)


def check_can_mask(parameters: Parameters) -> None:
    """Refuse parameters under which a gene that some references did not measure would be taken for one that is not expressed."""
    if parameters.n_components or not (parameters.n_axes or parameters.n_retrieved):
        return
    name = f"n_retrieved={parameters.n_retrieved}" if parameters.n_retrieved else f"n_axes={parameters.n_axes}"
    raise ValueError(
        f"genes that only some of the references measured cannot be predicted with n_components=0 and {name}: every gene would "
        "be a component of its own, and references that did not measure it would count as ones that do not express it. Pass "
        'n_components=30, as preset="default" has it, preset="paper", or leave genes="union" out.'
    )


def arrays_with_prefix(prefix: str, arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Arrays, or tensors as arrays, whose names begin so, by the rest of their names."""
    return {name.removeprefix(prefix): np.asarray(part) for name, part in arrays.items() if name.startswith(prefix)}


@dataclass(frozen=True)
class ImageRidge:
    """Ridge regression of components of the transcriptome on what a spot looks like on its own slide.

    Parameters
    ----------
    image_axes
        From embeddings, standardised by slide, to features.
    ridge
        From features to scores.
    features
        Of the reference spots, spots x features; empty in a model that was loaded.
    """

    image_axes: ImageAxes
    ridge: Ridge
    features: np.ndarray = field(default_factory=lambda: np.empty((0, 0), dtype=np.float32))

    @classmethod
    def fit(
        cls,
        spots: Spots,
        blocks: tuple[tuple[int, int], ...],
        components: GeneComponents,
        parameters: Parameters,
        seen: tuple[ImageAxes, np.ndarray] | None = None,
    ) -> ImageRidge:
        """From reference spots and their components; axes by slide and the spots' features on them may be known."""
        if seen is None:
            seen = ImageAxes.fit(spots, blocks, n_axes=parameters.n_axes, n_around=parameters.n_around)
        image_axes, features = seen
        ridge = fit_ridge(features, components.scores, spots.slide, n_scored=N_PENALTY_COMPONENTS)
        return cls(image_axes, ridge, features)

    def predict(self, spots: Spots) -> np.ndarray:
        """Scores of the components, spots x components."""
        return self.ridge.predict(self.image_axes.transform(spots))
