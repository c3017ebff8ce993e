"""References as the targets that they could be: a further section of a known patient, with and without place, or a new patient."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spahgc._linear.held_out import NEVER, folds_of_sections
from spahgc._linear.trust import PATIENT, PLACED, SECTION
from spahgc._parameters import GRAPH
from spahgc._spots.rows import slide_or_half
from spahgc._training.experts import Answers, Proof, ask_experts
from spahgc._training.placed import GRAPH_BY_PLACE

if TYPE_CHECKING:
    from spahgc._linear.node_features import LowRankFeatures
    from spahgc._parameters import Parameters
    from spahgc._spots.rows import Spots

MIN_SECTIONS = 2
"""Sections that must have been held out with another one of their patient among the others, for what is proven to be taken."""


@dataclass(frozen=True)
class Cases:
    """What the weighted experts say of references held out, a case at a time, since each is an array of the panel.

    Parameters
    ----------
    proof
        What proved the weights; its answers serve the case of which they are.
    spots, node_features, parameters, seed, device
        As :func:`~spahgc._training.experts.prove_experts` was given them.
    patients
        Patient of every spot, if each slide names one.
    """

    proof: Proof
    spots: Spots
    node_features: LowRankFeatures
    parameters: Parameters
    patients: np.ndarray | None
    seed: int
    device: str

    def __iter__(self) -> Iterator[tuple[str, np.ndarray]]:
        """Name of each case that the references can play, and what is predicted of them, spots x panel.

        Spots that were not held out are NaN. The weights for a fold are those that the other references prove: what a slide
        is off by does not choose how it is predicted.
        """
        of_sections = self._sections()
        if of_sections is not None:
            answers, taken = of_sections
            yield SECTION, _only(answers.panel(self.proof.weights_without), taken)
            placed = taken & answers.placed
            if placed.any() and (answers is self.proof.answers or self._all_asked(answers, placed)):
                yield PLACED, _only(answers.panel(self._placed_without), placed)
            del answers, of_sections
        if self.proof.by_patient is not None:
            yield PATIENT, self.proof.by_patient.panel(self._new_patient_without)

    def _sections(self) -> tuple[Answers, np.ndarray] | None:
        """Answers for sections of which another one of the patient stayed, and which spots these are."""
        proven, slide = self.proof.answers, slide_or_half(self.spots)
        patients = np.full(len(slide), "") if self.patients is None else self.patients
        taken = np.zeros(len(slide), dtype=bool)
        for fold in range(len(proven.components)):
            inside = proven.folds == fold
            taken |= inside & np.isin(patients, patients[~inside])
        if len(np.unique(slide[taken])) >= MIN_SECTIONS:
            return proven, taken
        folds = folds_of_sections(slide, patients)
        return None if (folds == NEVER).all() else (self._ask(folds), folds != NEVER)

    def _ask(self, folds: np.ndarray) -> Answers:
        """Let those experts that have a weight for one of them predict other folds."""
        proof, used = self.proof, set[str]()
        for fold in range(folds.max() + 1):
            rows = np.flatnonzero(folds == fold)
            for placed in (False, *([True] if proof.lays is not None else [])):
                used |= {name for name, weight in proof.weights_without(rows, placed=placed).items() if weight > 0}
        used |= {GRAPH} if GRAPH_BY_PLACE in used else set()
        experts = [name for name in proof.weights if name in used]
        answers = ask_experts(
            experts,
            folds,
            self.spots,
            proof.views,
            self.node_features,
            self.parameters,
            lays=proof.lays,
            seed=self.seed,
            device=self.device,
        )
        return answers

    def _all_asked(self, answers: Answers, placed: np.ndarray) -> bool:
        """Whether every expert with a weight by place was asked; not the graph, where what was left does not lie on itself."""
        used = {
            name
            for fold in np.unique(answers.folds[placed])
            for name, weight in self._placed_without(np.flatnonzero(answers.folds == fold)).items()
            if weight > 0
        }
        return used <= set(answers.said)

    def _new_patient_without(self, rows: np.ndarray) -> dict[str, float]:
        return self.proof.weights_without(rows, new_patient=True)

    def _placed_without(self, rows: np.ndarray) -> dict[str, float]:
        return self.proof.weights_without(rows, placed=True)


def _only(panel: np.ndarray, rows: np.ndarray) -> np.ndarray:
    panel[~rows] = np.nan
    return panel
