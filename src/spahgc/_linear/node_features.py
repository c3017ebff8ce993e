"""What the nodes of the graph carry, and how what comes out of it becomes expression of the panel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from spahgc._linear.gene_components import Components
from spahgc._linear.image_axes import TissueMap
from spahgc._linear.ridge import Line, fit_line
from spahgc._parameters import Parameters
from spahgc._spots.rows import Rows, blocks_of
from spahgc._spots.spots import Spots
from spahgc._spots.standardize import SlideScale

N_JUDGED = 4
"""Largest components by whose error the penalty is chosen: the smaller ones are mostly noise, and would raise it."""


class Basis(Protocol):
    """Features and expression of the reference spots as nodes carry them.

    Parameters
    ----------
    features
        Image features, spots x d; float32 where they lie in memory.
    expression
        Spots x m, in units of about one standard deviation.
    judged
        What the network's prediction is compared with in training, spots x genes; made where it is read.
    read_out
        From the m numbers that the network predicts to the judged genes; ``None`` where they are the same.
    """

    @property
    def features(self) -> Rows: ...
    @property
    def expression(self) -> np.ndarray: ...
    @property
    def judged(self) -> Rows: ...
    @property
    def read_out(self) -> np.ndarray | None: ...

    def place(self, target: Spots) -> tuple[Rows, np.ndarray | None]:
        """Features of a target's spots, and what a line says of their expression, if there is one."""

    def decode(self, expression: np.ndarray) -> np.ndarray:
        """From spots x m to spots x panel, ``log1p`` counts per 10,000, float32."""


@dataclass(frozen=True)
class PlainBasis:
    """The paper's: embedding as it is, genes in standard deviations over all references.

    So no gene outweighs the others by its mere variance; the released code scales to the range over all slides
    instead, the test slide among them.
    """

    features: Rows
    expression: np.ndarray
    scale: SlideScale
    read_out: None = None

    @classmethod
    def of(cls, spots: Spots) -> PlainBasis:
        """From spots whose embedding is that of the patch."""
        scale = SlideScale.of(spots.y, np.zeros(len(spots)))
        expression = np.empty(spots.y.shape, dtype=np.float32)
        for rows in blocks_of(len(spots)):
            expression[rows] = scale.apply(spots.y[rows])
        return cls(spots.z, expression, scale)

    @property
    def judged(self) -> np.ndarray:
        """The expression itself."""
        return self.expression

    def place(self, target: Spots) -> tuple[Rows, None]:
        """The target's embedding, and nothing."""
        return target.z, None

    def decode(self, expression: np.ndarray) -> np.ndarray:
        """Spots x panel."""
        out = np.empty(expression.shape, dtype=np.float32)
        for rows in blocks_of(len(expression)):
            out[rows] = self.scale.undo(expression[rows])
        return out


@dataclass(frozen=True)
class LowRankBasis:
    """The default's: axes of the tissue's appearance, components of the transcriptome, and a line between them.

    Parameters
    ----------
    tissue
        From embeddings to what the nodes of the graph carry.
    components
        From the transcriptome to a few numbers, and from them to the panel.
    line
        Ridge regression of the components on a tissue map of its own; ``None`` to leave all to the graph.
    features
        See :class:`Basis`.
    """

    tissue: TissueMap
    components: Components
    line: TissueLine | None
    features: np.ndarray

    @classmethod
    def of(cls, spots: Spots, blocks: tuple[tuple[int, int], ...], parameters: Parameters) -> LowRankBasis:
        """From all reference spots, with embedding, expression and transcriptome."""
        tissue, features = TissueMap.of(
            spots, blocks, n_axes=parameters.n_axes, n_around=parameters.n_around, by_slide=parameters.by_slide
        )
        components = make_components(spots, parameters)
        line = TissueLine.of(spots, blocks, components, parameters) if parameters.line else None
        return cls(tissue, components, line, features)

    @cached_property
    def expression(self) -> np.ndarray:
        """Scores of the components."""
        return self.components.scores / self.components.size

    @property
    def judged(self) -> Rows:
        """Genes of most spatial structure."""
        return self.components.judged

    @property
    def read_out(self) -> np.ndarray:
        """From scores to these genes."""
        return self.components.judged_loadings * self.components.size

    def place(self, target: Spots) -> tuple[np.ndarray, np.ndarray | None]:
        """Where the target's spots lie on the axes, and what the line says of them."""
        said = None if self.line is None else self.line.predict(target) / self.components.size
        return self.tissue(target), said

    def decode(self, expression: np.ndarray) -> np.ndarray:
        """Spots x panel."""
        return self.components.panel(expression * self.components.size)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """All that a prediction needs, by name; what only the training needs is left out."""
        parts = {
            "features": self.features,
            **{f"tissue.{name}": part for name, part in self.tissue.to_arrays().items()},
            "components.scores": self.components.scores,
            "components.loadings": self.components.loadings,
            "components.mean": self.components.scale.mean,
            "components.spread": self.components.scale.spread,
        }
        if self.line is not None:
            parts |= {f"line.{name}": np.asarray(part) for name, part in self.line.line._asdict().items()}
            parts |= {f"line.tissue.{name}": part for name, part in self.line.tissue.to_arrays().items()}
        return {name: np.ascontiguousarray(part) for name, part in parts.items()}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> LowRankBasis:
        """The inverse of :meth:`to_arrays`."""
        scores = arrays["components.scores"]
        components = Components(
            scores,
            arrays["components.loadings"],
            SlideScale(arrays["components.mean"], arrays["components.spread"]),
            judged=np.empty((len(scores), 0), dtype=np.float32),
            judged_loadings=np.empty((scores.shape[1], 0)),
        )
        line = None
        if "line.coefficients" in arrays:
            coefficients, feature_mean, response_mean, penalty = (arrays[f"line.{name}"] for name in Line._fields)
            tissue = TissueMap.from_arrays(arrays_below("line.tissue.", arrays))
            line = TissueLine(tissue, Line(coefficients, feature_mean, response_mean, penalty.item()))
        return cls(TissueMap.from_arrays(arrays_below("tissue.", arrays)), components, line, arrays["features"])


def make_components(spots: Spots, parameters: Parameters) -> Components:
    """The components that the parameters ask for."""
    wanted = parameters.n_components
    if not wanted:
        return Components.of_panel(spots)
    counts = wanted if isinstance(wanted, tuple) else (wanted,)
    return Components.of(spots, max(counts), weigh=parameters.weigh_genes).tapered(counts)


def learn_basis(spots: Spots, blocks: tuple[tuple[int, int], ...], parameters: Parameters) -> Basis:
    """The basis that the parameters ask for."""
    if not parameters.n_axes:
        return PlainBasis.of(spots)
    return LowRankBasis.of(spots, blocks, parameters)


def arrays_below(prefix: str, arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Arrays, or tensors as arrays, whose names begin so, by the rest of their names."""
    return {name.removeprefix(prefix): np.asarray(part) for name, part in arrays.items() if name.startswith(prefix)}


@dataclass(frozen=True)
class TissueLine:
    """Ridge regression of components of the transcriptome on what a spot looks like on its own slide.

    Parameters
    ----------
    tissue
        From embeddings, standardised by slide, to features.
    line
        From features to scores.
    """

    tissue: TissueMap
    line: Line

    @classmethod
    def of(
        cls, spots: Spots, blocks: tuple[tuple[int, int], ...], components: Components, parameters: Parameters
    ) -> TissueLine:
        """From reference spots and their components."""
        tissue, features = TissueMap.of(spots, blocks, n_axes=parameters.n_axes, n_around=parameters.n_around)
        return cls(tissue, fit_line(features, components.scores, spots.slide, n_judged=N_JUDGED))

    def predict(self, spots: Spots) -> np.ndarray:
        """Scores of the components, spots x components."""
        return self.line.predict(self.tissue(spots))
