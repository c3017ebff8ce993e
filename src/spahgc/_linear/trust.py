"""References held out in turn, and what they tell: which genes can be trusted, by how much a value is off, which tissue is known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace

import numpy as np

from spahgc._linear.forecast import GeneForecast, ValueForecast
from spahgc._linear.held_out import NEVER, folds_of, folds_of_sections
from spahgc._linear.node_features import ImageRidge, arrays_with_prefix, fit_components
from spahgc._linear.shared_errors import SharedErrors
from spahgc._linear.spread import Spread
from spahgc._linear.statistics import MAX_PCC, pearson
from spahgc._logging import warn
from spahgc._parameters import Parameters
from spahgc._spots.rows import Rows, SomeColumns, SomeRows, Spots, dense, slide_or_half
from spahgc._spots.support import Support
from spahgc._spots.unmeasured import MeasuredRows, measured_genes

CASES = SECTION, PLACED, PATIENT = "section", "placed", "patient"
"""What a target may be: a further section of a patient who is among the references, the same where a reference lies on it, or
a slide of a new patient."""

NORMAL_95 = 1.959964
"""Standard errors to either side of a mean that are its 95 % interval."""


@dataclass(frozen=True)
class Correlation:
    """PCC of every gene over references held out in turn; NaN where no reference has one, or one alone measured it.

    Parameters
    ----------
    pcc, low, high
        Mean and 95 % interval of the mean, a number a gene.
    """

    pcc: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def fit(cls, measured: Rows, predicted: np.ndarray, slide: np.ndarray) -> Correlation:
        """From held-out predictions.

        Fisher's z of every slide, of standard error ``1 / sqrt(n - 3)``, averaged with random effects (DerSimonian and
        Laird 1986): what the slides differ by more than that widens the interval. A slide on which the gene is constant
        says nothing of it. Spots that lie side by side are not independent, and few slides tell little of how slides
        differ, so the interval is rather too narrow.

        Parameters
        ----------
        measured, predicted
            Spots x genes.
        slide
            Name of each spot's slide.
        """
        parts = [np.flatnonzero(slide == name) for name in np.unique(slide)]
        pcc = np.array([pearson(measured, predicted, rows) for rows in parts])
        precision = np.array([max(len(rows) - 3, 0) for rows in parts], dtype=np.float64)[:, None]
        mean, error = _random_effects(np.arctanh(np.clip(pcc, -MAX_PCC, MAX_PCC)), precision)
        return cls(*(np.tanh(mean + side * NORMAL_95 * error) for side in (0, -1, 1)))


@dataclass(frozen=True)
class Compared:
    """What held-out predictions can be compared with.

    Parameters
    ----------
    rows
        Spots of slides that were held out and measured a gene that others did too.
    genes
        Which genes are compared on any slide, boolean; ``None`` for all.
    measured, predicted
        Of these spots and genes; both NaN where one of them is.
    """

    rows: np.ndarray
    genes: np.ndarray | None
    measured: Rows
    predicted: np.ndarray

    @classmethod
    def of(cls, measured: Rows, predicted: np.ndarray, slide: np.ndarray) -> Compared:
        """From all spots and genes; parameters as in :meth:`Case.fit`."""
        names, compared = cls._genes(measured, predicted, slide)
        if not compared.any():
            raise ValueError("no gene was measured by a reference held out and by one of the others.")
        rows = np.flatnonzero(np.isin(slide, names[compared.any(axis=1)]))
        if len(rows) < len(predicted):
            measured, predicted, slide = SomeRows(measured, rows), predicted[rows], slide[rows]
        if compared[compared.any(axis=1)].all():
            return cls(rows, None, measured, predicted)
        genes = np.asarray(compared.any(axis=0))
        number, compared = np.searchsorted(names, slide), compared[:, genes]
        measured, predicted = SomeColumns(measured, np.flatnonzero(genes)), predicted[:, genes]
        predicted = MeasuredRows(predicted, number, compared)[:]
        return cls(rows, genes, MeasuredRows(measured, number, compared), predicted)

    @classmethod
    def is_possible(cls, measured: Rows, predicted: np.ndarray, slide: np.ndarray) -> bool:
        """Whether there is anything to compare."""
        return bool(cls._genes(measured, predicted, slide)[1].any())

    @staticmethod
    def _genes(measured: Rows, predicted: np.ndarray, slide: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Names of the slides, and which genes are compared on each, slides x genes."""
        names, known = measured_genes(measured, slide)
        return names, known & measured_genes(predicted, slide)[1]


def among(values: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Values of some genes, a row each, among all: NaN for the others, or 0 where the values are whole numbers."""
    nothing = 0 if values.dtype.kind in "iu" else np.nan
    out = np.full((len(inside), *values.shape[1:]), nothing, dtype=values.dtype)
    out[inside] = values
    return out


@dataclass(frozen=True)
class Case:
    """What references that played one kind of target say of trust.

    Parameters
    ----------
    correlation
        Of every gene over these references.
    spread
        Of every predicted value.
    genes, values
        What is expected of a new slide; ``None`` in a model of an earlier version, which knows means alone.
    shared
        What spots and genes have in common of their errors; ``None`` in a model of an earlier version, which says nothing of it.
    """

    correlation: Correlation
    spread: Spread
    genes: GeneForecast | None = None
    values: ValueForecast | None = None
    shared: SharedErrors | None = None

    @classmethod
    def fit(
        cls,
        measured: Rows,
        predicted: np.ndarray,
        xy: np.ndarray,
        slide: np.ndarray,
        group: np.ndarray,
        support: np.ndarray,
    ) -> Case:
        """From held-out predictions.

        Parameters
        ----------
        measured, predicted
            Spots x genes, ``log1p`` counts per 10,000; spots of which ``predicted`` is NaN were not held out. What a slide did
            not measure is NaN in ``measured``, what none of the others did in ``predicted``: that slide says nothing of it.
        xy
            Spot centres, spots x 2, pixels.
        slide, group
            Name of each spot's slide, and of what was held out together.
        support
            Of every spot by the other slides; NaN where it was not computed.

        Returns
        -------
        The case; genes of which no slide says anything are NaN in it.

        Raises
        ------
        ValueError
            If these are all genes.
        """
        compared = Compared.of(measured, predicted, slide)
        rows = compared.rows
        if len(rows) < len(predicted):
            xy, slide, group, support = xy[rows], slide[rows], group[rows], support[rows]
        measured, predicted = compared.measured, compared.predicted
        spread = Spread.fit(measured, predicted, slide)
        found = cls(
            Correlation.fit(measured, predicted, slide),
            spread,
            GeneForecast.fit(measured, predicted, slide, group),
            ValueForecast.fit(measured, predicted, spread, slide, group, support),
            SharedErrors.fit(measured, predicted, spread, xy, slide, group),
        )
        return found if compared.genes is None else found.among(compared.genes)

    def among(self, proven: np.ndarray) -> Case:
        """The same among more genes, of which nothing is known; ``proven`` says of each whether it is one of these."""
        correlation = Correlation(*(among(getattr(self.correlation, name), proven) for name in ("pcc", "low", "high")))
        spread = Spread(*(among(getattr(self.spread, name), proven) for name in ("variance", "level", "slope")))
        genes, values, shared = self.genes, self.values, self.shared
        if genes is not None:
            genes = replace(genes, z=among(genes.z, proven), spread=among(genes.spread, proven))
        if values is not None:
            values = replace(values, kind=among(values.kind, proven))
        if shared is not None:
            arrays = {name: among(getattr(shared, name), proven) for name in ("correlation", "loadings")}
            shared = replace(shared, **arrays)
        return Case(correlation, spread, genes, values, shared)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Plain arrays by name."""
        arrays = {
            f"{name}.{field.name}": np.ascontiguousarray(getattr(part, field.name))
            for name, part in (("correlation", self.correlation), ("spread", self.spread))
            for field in fields(part)
        }
        for name in ("genes", "values", "shared"):
            part = getattr(self, name)
            arrays |= {} if part is None else {f"{name}.{n}": x for n, x in part.to_arrays().items()}
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Case:
        """The inverse of :meth:`to_arrays`."""
        genes, values, shared = (arrays_with_prefix(f"{name}.", arrays) for name in ("genes", "values", "shared"))
        return cls(
            Correlation(**arrays_with_prefix("correlation.", arrays)),
            Spread(**arrays_with_prefix("spread.", arrays)),
            GeneForecast.from_arrays(genes) if genes else None,
            ValueForecast.from_arrays(values) if values else None,
            SharedErrors.from_arrays(shared) if shared else None,
        )


@dataclass(frozen=True)
class Trust:
    """All that the references say of the trust that a prediction deserves; nothing here has seen a target.

    Parameters
    ----------
    cases
        Of each kind of target that the references can play, by name, see :data:`CASES`; the section, or else the patient, is
        always among them.
    support
        Of every spot.
    """

    cases: Mapping[str, Case]
    support: Support

    @property
    def correlation(self) -> Correlation:
        """Of every gene of the panel, for a further section of a known patient where the references tell."""
        return self._first.correlation

    @property
    def spread(self) -> Spread:
        """Of every predicted value, likewise."""
        return self._first.spread

    @property
    def shared(self) -> SharedErrors | None:
        """What spots and genes have in common of their errors, likewise."""
        return self._first.shared

    @property
    def _first(self) -> Case:
        return self.cases[SECTION if SECTION in self.cases else PATIENT]

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Plain arrays by name."""
        arrays = {f"{case}.{n}": x for case, part in self.cases.items() for n, x in part.to_arrays().items()}
        of_support = {field.name: np.ascontiguousarray(getattr(self.support, field.name)) for field in fields(Support)}
        return arrays | {f"support.{name}": x for name, x in of_support.items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Trust:
        """The inverse of :meth:`to_arrays`."""
        parts = {case: arrays_with_prefix(f"{case}.", arrays) for case in CASES}
        cases = {case: Case.from_arrays(part) for case, part in parts.items() if part}
        return cls(cases, Support(**arrays_with_prefix("support.", arrays)))


def held_out_trust(
    spots: Spots, blocks: tuple[tuple[int, int], ...], parameters: Parameters, patients: np.ndarray | None = None
) -> Trust | None:
    """Trust in the predictions of a model of these references; see :func:`held_out_predictions`.

    Parameters
    ----------
    spots
        Spots of all references, with embedding, expression and transcriptome.
    blocks
        Columns of the embedding that belong together, as ``(start, stop)``.
    parameters
        Those of the fit.
    patients
        Patient of every spot, if each slide names one.
    """
    slide = slide_or_half(spots)
    if patients is None or len(np.unique(patients)) < 2:
        plans = {SECTION: folds_of(slide)}
    else:
        plans = {SECTION: folds_of_sections(slide, patients), PATIENT: folds_of(patients)}
    cases = (
        (name, held_out_predictions(spots, blocks, parameters, folds))
        for name, folds in plans.items()
        if (folds != NEVER).any()
    )
    return trust_of(spots, blocks, cases, patients)


def trust_of(
    spots: Spots,
    blocks: tuple[tuple[int, int], ...],
    cases: Iterable[tuple[str, np.ndarray]],
    patients: np.ndarray | None,
) -> Trust | None:
    """Trust that predictions of references held out show; ``None``, with a warning, where no gene is of two references.

    Parameters
    ----------
    spots, blocks, patients
        See :func:`held_out_trust`.
    cases
        Name of each case, and what is predicted of the references as that, spots x panel, ``log1p`` units; NaN where they
        were not held out.
    """
    slide = slide_or_half(spots)
    support, of_references = Support.with_references(spots, blocks)
    measured, found = dense(spots.y), {}
    for name, predicted in cases:
        group = patients if name == PATIENT and patients is not None else slide
        if Compared.is_possible(measured, predicted, slide):
            found[name] = Case.fit(measured, predicted, spots.xy, slide, group, of_references)
    if SECTION not in found and PATIENT not in found:
        warn(
            "nothing is told of trust: no gene of the panel was measured by two references of which one can be held out. Add "
            "references of one platform, or of another patient.",
            stacklevel=3,
        )
        return None
    return Trust(found, support)


def held_out_predictions(
    spots: Spots, blocks: tuple[tuple[int, int], ...], parameters: Parameters, folds: np.ndarray | None = None
) -> np.ndarray:
    """What the line says of every reference without having seen it, spots x panel, ``log1p`` units, float32.

    Axes of appearance, components, read-out and line are all fitted again without the slide that is held out, so that
    nothing of its expression reaches its prediction. The networks are not trained again, which would multiply the time
    of a fit by the number of references: this is the trust that the linear part of a model deserves, and where the
    networks take part in a prediction without being one of its experts, they may have made it better or worse. A single
    slide acts as two halves.

    Parameters
    ----------
    spots, blocks, parameters
        See :func:`held_out_trust`.
    folds
        Number of each spot's fold; ``NEVER`` for those that are not held out, which are NaN. ``None``: one for each slide,
        in five groups where there are more.

    Raises
    ------
    ValueError
        If the parameters are those of a model without principal axes, which has no linear part.
    """
    if not parameters.n_axes:
        raise ValueError(
            "n_axes=0 makes a model without a linear part, whose trust cannot be told without training it again for "
            'each reference. Use preset="default", or parameters with n_axes=.'
        )
    folds = folds_of(slide_or_half(spots)) if folds is None else folds
    predicted = np.full(spots.y.shape, np.nan, dtype=np.float32)
    for fold in range(folds.max() + 1):
        rows, known = np.flatnonzero(folds == fold), spots.part(np.flatnonzero(folds != fold))
        unseen = Spots.without_expression(SomeRows(spots.z, rows), spots.xy[rows])
        unseen = replace(unseen, slide=spots.slide[rows], steps=spots.steps)
        components = fit_components(known, parameters)
        ridge = ImageRidge.fit(known, blocks, components, parameters)
        predicted[rows] = components.panel(ridge.predict(unseen))
    return predicted


def _random_effects(z: np.ndarray, precision: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean over slides and its standard error, a number a gene; NaN where no slide has a value.

    Parameters
    ----------
    z
        Slides x genes, NaN where a slide has no value.
    precision
        Inverse variance of the slides' values, slides x 1.
    """
    defined = ~np.isnan(z)
    z, weight = np.where(defined, z, 0.0), np.where(defined, precision, 0.0)
    n, total = (weight > 0).sum(axis=0), weight.sum(axis=0)
    mean = _ratio((weight * z).sum(axis=0), total)
    excess = (weight * np.square(z - mean)).sum(axis=0) - (n - 1)
    between = np.maximum(_ratio(excess, total - _ratio(np.square(weight).sum(axis=0), total)), 0.0)
    between = np.where(n > 1, between, 0.0)  # one slide does not tell how slides differ
    weight = weight / (1 + weight * between)
    return _ratio((weight * z).sum(axis=0), weight.sum(axis=0)), np.sqrt(_ratio(np.ones(len(n)), weight.sum(axis=0)))


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator > 0)
