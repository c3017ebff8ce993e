"""What is to be expected of a target: for whom the numbers of the references hold, and what is assumed where they do not tell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtri

from spahgc._linear.forecast import ValueForecast, noise_of
from spahgc._linear.trust import PATIENT, PLACED, SECTION, Case, Trust

LEVEL = 0.95
"""Level of the interval of a gene's correlation that is written beside it."""

UNSEEN_SPREAD = 1.15
"""How many times as far values are off on a group of which nothing is known as on those held out together; a group is a section
of a known patient, or a patient."""

UNSEEN_SECTION_PCC, UNSEEN_PATIENT_PCC = 1.15, 1.5
"""The same of the residuals of Fisher's z."""

NEW_PATIENT_SPREAD = 1.4
"""How many times as far values are off on a new patient, where the references are of one, as on sections of that patient held
out. Chosen with breast and spinal cord in view, so that at least three quarters of their values lie in intervals of 90 %; measured by
``python benchmarks/trust.py --data FOLDER --constants``."""

NEW_PATIENT_SIGNAL, NEW_PATIENT_Z = 0.6, 0.17
"""Fisher's z on a new patient then, as a share of the gene's signal (:class:`~spahgc._linear.forecast.GeneForecast`), and the
standard deviation by which it is off beyond what the number of spots explains; chosen on the same slides. What a gene
reached on sections of the one patient told nothing beyond its signal."""

SHARES = np.linspace(0.0025, 0.9975, 200)
"""Probabilities at which a record tells what Fisher's z is off by at most."""

INTERVAL_LEVELS = np.append(np.linspace(0.1, 0.95, 18), 0.99)
"""Levels of intervals of which a record tells the width."""

PLAYED = {SECTION: (SECTION, PATIENT), PLACED: (PLACED, SECTION, PATIENT), PATIENT: (PATIENT, SECTION)}
"""Of each case, those in which references may have been held out for it, the best first."""

FOR_WHOM = {SECTION: "a further section of a known patient", PATIENT: "a new patient"}
ESTIMATED = "new patient, estimated from other cohorts"
"""What is said where the references are of one patient, or name none, and nobody can know."""
EARLIER = "a further reference held out; the model is of an earlier version, which did not tell patients apart"


@dataclass(frozen=True)
class Expected:
    """What is to be expected of a target.

    Parameters
    ----------
    case
        What the references say.
    wanted, played
        Which case the target is, and in which the references were held out.
    """

    case: Case
    wanted: str
    played: str

    @classmethod
    def of(cls, trust: Trust, wanted: str) -> Expected:
        """Of a target that is such a case, from the nearest one that the references can play."""
        played = next(name for name in PLAYED[wanted] if name in trust.cases)
        return cls(trust.cases[played], wanted, played)

    @property
    def estimated(self) -> bool:
        """Whether the numbers are those of sections of known patients, widened by what patients differ by elsewhere."""
        return self.wanted == PATIENT != self.played

    @property
    def for_whom(self) -> str:
        """In words."""
        if self.case.genes is None:
            return EARLIER
        if self.estimated:
            return ESTIMATED
        return FOR_WHOM[PATIENT if self.played == PATIENT else SECTION]

    def z(self, deviations: np.ndarray) -> np.ndarray:
        """Fisher's z of every gene on a target over which so much is predicted, see :class:`GeneForecast`."""
        if self.case.genes is None:
            return np.arctanh(self.case.correlation.pcc)
        if self.estimated:
            return NEW_PATIENT_SIGNAL * self.case.genes.signal(deviations)
        return self.case.genes.expected(deviations)

    def pcc(self, deviations: np.ndarray, n_spots: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """PCC of every gene on a target, and its interval.

        Parameters
        ----------
        deviations
            Standard deviation of every gene's prediction over the target.
        n_spots
            Spots of the target.
        """
        genes, known = self.case.genes, self.case.correlation
        if genes is None:
            return known.pcc, known.low, known.high
        z = self.z(deviations)
        low, high = (self._residual((1 + side * LEVEL) / 2, n_spots) for side in (-1, 1))
        # What is expected lies inside, also where the references were all better or worse than each other promised.
        return np.tanh(z), np.tanh(z + min(low, 0.0)), np.tanh(z + max(high, 0.0))

    def _residual(self, share: float, n_spots: int) -> float:
        """What Fisher's z is off by at most, with this probability."""
        genes = self.case.genes
        if genes is None or self.estimated:
            return float(ndtri(share) * np.hypot(NEW_PATIENT_Z, noise_of(n_spots)))
        of_share = genes.residuals.quantile(share, unseen=self._unseen_pcc)[0]
        return float(of_share * genes.deviation(n_spots))

    @property
    def _unseen_pcc(self) -> float:
        return UNSEEN_PATIENT_PCC if self.played == PATIENT else UNSEEN_SECTION_PCC

    def spread(self, predicted: np.ndarray, support: np.ndarray) -> np.ndarray:
        """Standard deviation of what values may be off by, spots x genes, float32.

        Parameters
        ----------
        predicted
            Spots x genes.
        support
            Of the spots.
        """
        spread, values = self.case.spread(predicted), self.case.values
        if values is None:
            return spread
        return (spread * (self._widened(values) * values.growth(support))[:, None]).astype(np.float32)

    def _widened(self, values: ValueForecast) -> float:
        """What the spread on groups held out is multiplied by, for one that was not."""
        n = values.scores.n_groups
        return float(np.sqrt((n + UNSEEN_SPREAD**2) / (n + 1)) * (NEW_PATIENT_SPREAD if self.estimated else 1.0))

    def half_width(self, predicted: np.ndarray, support: np.ndarray, level: float) -> np.ndarray:
        """Half width of an interval of values, spots x genes, float32.

        Parameters
        ----------
        predicted, support
            See :meth:`spread`.
        level
            Share of values that are to be inside.

        Raises
        ------
        ValueError
            If the model is of an earlier version, which knows standard deviations alone.
        """
        values = self.case.values
        if values is None:
            raise ValueError(
                "intervals= needs references that were held out as they are now, and the model is of an earlier version. "
                "Fit it again, or leave intervals= out."
            )
        factor = NEW_PATIENT_SPREAD if self.estimated else 1.0
        widths = values.widths(level, unseen=UNSEEN_SPREAD, factor=factor)
        return (self.case.spread(predicted) * values.growth(support)[:, None] * widths).astype(np.float32)

    def record(self, n_spots: int) -> dict[str, Any]:
        """For whom the numbers hold and on how many groups they rest, in types that ``uns`` can hold."""
        genes = self.case.genes
        told = {"for": self.for_whom, "case": self.wanted, "held_out": self.played, "estimated": self.estimated}
        if genes is None:
            return told
        residuals = np.array([self._residual(share, n_spots) for share in SHARES])
        return told | {
            "n_groups": genes.residuals.n_groups,
            "level": LEVEL,
            "z_residuals": residuals,
            "interval_levels": INTERVAL_LEVELS,
            "interval_widths": self._interval_widths(),
        }

    def _interval_widths(self) -> np.ndarray:
        """Half widths of intervals in the spreads that are written, levels x kinds of genes."""
        values = self.case.values
        if values is None:
            return np.empty((len(INTERVAL_LEVELS), 0))
        factor = (NEW_PATIENT_SPREAD if self.estimated else 1.0) / self._widened(values)
        return np.array([values.scores.quantile(x, unseen=UNSEEN_SPREAD, factor=factor) for x in INTERVAL_LEVELS])
