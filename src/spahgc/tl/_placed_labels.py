"""Labels and values that travel by place: from references that lie on the target, told by images, as expression does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from spahgc._spots.rows import Spots
from spahgc._training.placed import placed_scores, places_on
from spahgc.pp._register.lays import Lays, free_name, lays_of_references, lays_of_target
from spahgc.pp._register.picture import Picture

Doubles = NDArray[np.float64]
ToAnswers = Callable[[Doubles], Doubles]
"""From what an expert of place says, spots x columns, to probabilities or values."""


@dataclass(frozen=True, eq=False)
class Placing:
    """How references lie on the target and on each other.

    Parameters
    ----------
    target
        Its spots, under a name that no reference has.
    on_target, among_references
        Registered pairs.
    """

    target: Spots
    on_target: Lays
    among_references: Lays

    @classmethod
    def of(
        cls, target: Spots, references: Mapping[str, Picture], patients: Mapping[str, str], slides: list[str]
    ) -> Placing | None:
        """By the pictures that slides store and what was registered before; ``None`` where no reference lies on the target.

        Parameters
        ----------
        target
            Its spots, with picture and registrations.
        references
            Pictures by name of the reference.
        patients
            Of the references.
        slides
            Names of all references.
        """
        if target.picture is None and not target.registration:
            return None
        name = free_name("target", slides)
        on_target = lays_of_target(name, target.picture, references, target.registration)
        if not any(pair.used for pair in on_target.pairs.values()):
            return None
        placed = replace(target, slide=np.full(len(target), name))
        return cls(placed, on_target, lays_of_references(references, patients))

    def answers(
        self, x: np.ndarray, y: Doubles, known: Spots, seen: np.ndarray, finish: ToAnswers
    ) -> tuple[dict[str, Doubles], dict[str, Doubles]] | None:
        """What the experts of place say of the target, and of each reference held out; ``None`` where that cannot be proven.

        Parameters
        ----------
        x, y
            Features of the reference spots, and what they have (labels as columns of 0 and 1).
        known
            The spots.
        seen
            Features of the target's spots.
        finish
            Brings what is said into the form of the other experts.

        Returns
        -------
        By name of the expert, spots x columns: of the target, and of the references, NaN where no other one lies on them.
        """
        proof: dict[str, Doubles] = {}
        for name in np.unique(known.slide):
            rows, others = np.flatnonzero(known.slide == name), np.flatnonzero(known.slide != name)
            held_out = Spots.without_expression(x[rows], known.xy[rows], str(name))
            for expert, said in _said(x, y, known, others, held_out, x[rows], self.among_references).items():
                proof.setdefault(expert, np.full(y.shape, np.nan))[rows] = finish(said)
        of_target = _said(x, y, known, np.arange(len(x)), self.target, seen, self.on_target) if proof else {}
        return ({expert: finish(said) for expert, said in of_target.items()}, proof) if of_target else None


def _said(
    x: np.ndarray, y: Doubles, known: Spots, rows: NDArray[np.intp], spots: Spots, seen: np.ndarray, lays: Lays
) -> dict[str, Doubles]:
    """What the experts of place say of some spots from some references; nothing where none of these lies on them."""
    if not len(rows):
        return {}
    others = Spots.without_expression(x[rows], known.xy[rows])
    others = replace(others, slide=known.slide[rows])
    found = places_on(spots, others, lays)
    if found is None:
        return {}
    mean = y[rows].mean(axis=0)
    said = placed_scores(seen, found[0], x[rows], found[1], y[rows] - mean, others)
    return {expert: np.asarray(mean + part, dtype=np.float64) for expert, part in said.items()}
