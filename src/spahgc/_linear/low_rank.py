"""Low-rank views: a few axes of what spots look like on their slide, and a few components of what they express."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from spahgc._spots.rows import (
    MIN_SPREAD,
    NeighbourMeanRows,
    Rows,
    SlideScale,
    Spots,
    StandardizedRows,
    Views,
    blocks_of,
    dense,
    mean_and_std,
    mean_of,
    principal_axes,
    project,
    scores_on_axes,
    spatial_autocorrelation,
    standardize,
    sum_of_squared_scores,
)
from spahgc._spots.unmeasured import patterns

AROUND_WEIGHT = 0.5
"""Weight of the surroundings beside the spot itself, whose expression is in question."""

LOADINGS_PENALTY = 1e-3
"""Ridge penalty of the read-out, as a share of the mean sum of squares of a component's scores."""

N_TRAINING_GENES = 300
"""Genes of the transcriptome on which the loss of a network on components is computed."""


@dataclass(frozen=True)
class ImageAxes:
    """Principal axes of the references' appearance, onto which every other slide is projected.

    Either every dimension of the embedding is standardised over the spots of its own slide, which takes away what stain
    and scanner add to a whole slide, and with it how slides differ in tissue; or over the spots of all references, which
    keeps both. The blocks of an embedding with context then weigh the same however many dimensions they have. The
    mean over the nearest spots of a slide is the appearance of the surroundings, with axes of its own.

    Parameters
    ----------
    means, axes
        Of the spots themselves and, if wanted, of the surroundings: dim, and dim x axes.
    blocks
        Columns of the embedding that belong together, as ``(start, stop)``.
    n_around
        Nearest spots that are the surroundings; 0 for none.
    size
        Root mean square of the references' numbers, by which all are divided.
    scale
        Mean and spread of every dimension over all references; ``None`` where slides are standardised by themselves.
    """

    means: tuple[np.ndarray, ...]
    axes: tuple[np.ndarray, ...]
    blocks: tuple[tuple[int, int], ...]
    n_around: int
    size: float
    scale: SlideScale | None

    @classmethod
    def fit(
        cls, spots: Spots, blocks: tuple[tuple[int, int], ...], *, n_axes: int, n_around: int, by_slide: bool = True
    ) -> tuple[ImageAxes, np.ndarray]:
        """Axes of some reference spots, and where these spots lie on them (spots x axes, float32)."""
        scale = None if by_slide else mean_and_std(spots.z, np.arange(len(spots.xy)))
        views = _views(spots, blocks, n_around, scale)
        parts: tuple[Rows, ...] = views
        means = tuple(mean_of(part) for part in parts)
        axes = tuple(principal_axes(part, n_axes, mean) for part, mean in zip(parts, means, strict=True))
        squares = sum_of_squared_scores(views, means, axes)
        size = float(np.sqrt(squares / len(spots.xy) / sum(part.shape[1] for part in axes))) or 1.0
        image_axes = cls(means, axes, blocks, n_around, size, scale)
        return image_axes, scores_on_axes(views, means, axes, size)

    def transform(self, spots: Spots) -> np.ndarray:
        """Spots x axes, float32. Slides must be complete where they are standardised by themselves."""
        views = _views(spots, self.blocks, self.n_around, self.scale)
        return scores_on_axes(views, self.means, self.axes, self.size)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """All that it is made of, by name."""
        scale = {} if self.scale is None else {"scale.mean": self.scale.mean, "scale.spread": self.scale.spread}
        return scale | {
            **{f"mean.{i}": mean for i, mean in enumerate(self.means)},
            **{f"axes.{i}": axes for i, axes in enumerate(self.axes)},
            "blocks": np.array(self.blocks),
            "n_around": np.array(self.n_around),
            "size": np.array(self.size),
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> ImageAxes:
        """The inverse of :meth:`to_arrays`."""
        views = range(sum(name.startswith("mean.") for name in arrays))
        return cls(
            tuple(arrays[f"mean.{i}"] for i in views),
            tuple(arrays[f"axes.{i}"] for i in views),
            tuple((int(start), int(stop)) for start, stop in arrays["blocks"]),
            arrays["n_around"].item(),
            arrays["size"].item(),
            SlideScale(arrays["scale.mean"], arrays["scale.spread"]) if "scale.mean" in arrays else None,
        )


def _views(spots: Spots, blocks: tuple[tuple[int, int], ...], n_around: int, scale: SlideScale | None) -> Views:
    """The spots as they look on their slide and, if wanted, their surroundings."""
    own = StandardizedRows.fit(spots.z, spots.slide, blocks, scale)
    if not n_around:
        return (own,)
    return own, NeighbourMeanRows.fit(own, spots.xy, spots.slide, n_around, AROUND_WEIGHT, spots.steps)


@dataclass(frozen=True)
class GeneComponents:
    """Principal components of the references' transcriptome, and the line from them to the panel.

    Every gene is standardised over the spots of each slide first, so that neither depth nor other differences between
    whole slides make a component. What the noise of single genes adds to a spot stays out of the components.

    The genes of the transcriptome are those that all references measured. A gene of the panel that only some of them did is
    read off by what these say; one that none of the spots at hand measured is NaN.

    Parameters
    ----------
    scores
        Scores of the reference spots, spots x components, float64.
    loadings
        Components x panel genes, standard deviations of a gene per unit of the score.
    scale
        Mean and standard deviation of a panel gene on a typical slide, ``log1p`` counts per 10,000.
    training_target
        The genes of most spatial structure, standardised by slide, spots x at most 300, float32; dense where read.
    training_loadings
        The same as ``loadings`` for these genes.
    axes
        From the transcriptome, standardised by slide, to the scores, genes x components; ``None`` where the components are
        genes of the panel, and in a model that was loaded.
    """

    scores: np.ndarray
    loadings: np.ndarray
    scale: SlideScale
    training_target: Rows
    training_loadings: np.ndarray
    axes: np.ndarray | None = None

    @classmethod
    def fit(cls, spots: Spots, n: int, *, weigh: bool = False) -> GeneComponents:
        """At most ``n`` components of some spots.

        Parameters
        ----------
        spots
            Reference spots, with expression of panel and transcriptome; a panel gene may stand in both or not.
        n
            Components; fewer where the transcriptome has no more.
        weigh
            Multiply every gene by its :func:`spatial_autocorrelation` first: what differs between a spot and its
            neighbours without any order, as noise does, then has less of a say.

        Raises
        ------
        ValueError
            If the spots carry no transcriptome.
        """
        if 0 in spots.transcriptome.shape:
            raise ValueError(
                f"the transcriptome of the references is {spots.transcriptome.shape[0]} spots x "
                f"{spots.transcriptome.shape[1]} genes, so it has no components. Make the bank with "
                "spahgc.pp.reference_bank(refs)."
            )
        # Dense in blocks only: two thousand genes of half a million spots are 4 GB.
        genes = StandardizedRows.fit(dense(spots.transcriptome), spots.slide)
        structure = spatial_autocorrelation(genes, spots.xy, spots.slide)
        chosen = np.sort(np.argsort(-structure, kind="stable")[:N_TRAINING_GENES])
        # Where no gene has any structure, all weights would be zero.
        weighted = replace(genes, weight=structure.astype(np.float32)) if weigh and structure.any() else genes
        axes = principal_axes(weighted, n)
        scores = project(weighted, np.zeros(weighted.shape[1]), axes)
        training_target = genes.some(chosen)
        return cls(
            scores,
            loadings_where_measured(scores, StandardizedRows.fit(spots.y, spots.slide), spots.slide),
            SlideScale.fit(spots.y, spots.slide),
            training_target,
            loadings_of(scores, training_target),
            weighted.weight[:, None] * axes,
        )

    @classmethod
    def fit_panel(cls, spots: Spots) -> GeneComponents:
        """Every gene of the panel as a component of its own, standardised by slide."""
        y = standardize(spots.y, spots.slide)
        itself = np.eye(y.shape[1])
        scale = SlideScale.fit(spots.y, spots.slide)
        return cls(y.astype(np.float64), itself, scale, y, itself)

    @cached_property
    def size(self) -> float:
        """Standard deviation of the largest component."""
        return float(self.scores.std(axis=0).max()) or 1.0

    def tapered(self, counts: tuple[int, ...]) -> GeneComponents:
        """What is read off them is then the mean over reading off the first of them, for each of the counts.

        How many components to trust is not known; later ones, which fewer of the counts include, weigh less.
        """
        included = np.mean([np.arange(len(self.loadings)) < count for count in counts], axis=0)
        return replace(self, loadings=included[:, None] * self.loadings)

    def scores_of(self, spots: Spots) -> np.ndarray:
        """Scores of other spots that were measured, spots x components, float64; their slides must be complete."""
        if self.axes is None:
            raise ValueError("these components are no longer joined to a transcriptome. Fit them again.")
        genes = StandardizedRows.fit(dense(spots.transcriptome), spots.slide)
        return project(genes, np.zeros(genes.shape[1]), self.axes)

    def decode(self, scores: np.ndarray) -> np.ndarray:
        """The panel at spots of these scores (spots x components), spots x panel, ``log1p`` counts per 10,000."""
        return self.scale.inverse_transform(scores @ self.loadings)

    def panel(self, scores: np.ndarray) -> np.ndarray:
        """The same in blocks of spots, float32."""
        out = np.empty((len(scores), self.loadings.shape[1]), dtype=np.float32)
        for rows in blocks_of(len(scores)):
            out[rows] = self.decode(scores[rows])
        return out


def loadings_of(scores: np.ndarray, y: Rows) -> np.ndarray:
    """Least squares of ``y`` on the scores, with a penalty too small to matter where the scores vary."""
    products = scores.T @ scores
    penalty = max(LOADINGS_PENALTY * np.trace(products) / len(products), MIN_SPREAD)
    with_y = sum(scores[rows].T @ y[rows] for rows in blocks_of(len(scores)))
    return np.linalg.solve(products + penalty * np.eye(len(products)), with_y)


def loadings_where_measured(scores: np.ndarray, y: Rows, slide: np.ndarray) -> np.ndarray:
    """:func:`loadings_of` by groups of genes that the same slides measured, each over the spots of these slides.

    Parameters
    ----------
    scores
        Spots x components.
    y
        Spots x genes, standardised by slide; NaN on slides that did not measure a gene.
    slide
        Name of each spot's slide.

    Returns
    -------
    Components x genes; 0 for a gene that no slide measured.
    """
    groups = patterns(y, slide)
    if len(groups) == 1 and (len(groups[0].rows), len(groups[0].genes)) == y.shape:
        return loadings_of(scores, y)
    loadings = np.zeros((scores.shape[1], y.shape[1]))
    for group in groups:
        loadings[:, group.genes] = loadings_of(scores[group.rows], group.of(y))
    return loadings
