"""How all slides of a prediction lie on each other, as far as their pictures tell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spahgc._settings import progress_bar
from spahgc._spots.scale import Microns
from spahgc.pp._register.pairs import PairRegistration, register_pairs
from spahgc.pp._register.picture import Picture

MAX_ALL_PAIRS = 6
"""References up to which all pairs of them are registered; a pair takes 2 s."""
N_NEXT = 3
"""Of more references, how many that follow in the order of patients and names each of them is registered with, so that the
work grows with their number and not with its square."""


@dataclass(frozen=True)
class Lays:
    """Registered pairs of slides.

    Parameters
    ----------
    pairs
        By names ``(fixed, moving)``.
    microns
        How long a pixel of each slide is; ``None`` where nothing is reckoned in microns.
    """

    pairs: Mapping[tuple[str, str], PairRegistration] = field(default_factory=dict)
    microns: Microns | None = None

    def joins(self, fixed: str, moving: str) -> bool:
        """Whether one slide lies on another, in either direction."""
        return any(
            pair is not None and pair.used
            for pair in (self.pairs.get((fixed, moving)), self.pairs.get((moving, fixed)))
        )

    def laid(self, fixed: str, moving: str, xy: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """Places of one slide on another, full-resolution pixels of either; ``None`` where the pair is not used."""
        there, back = self.pairs.get((fixed, moving)), self.pairs.get((moving, fixed))
        if there is not None and there.used:
            return there.to_fixed(xy)
        if back is not None and back.used:
            return back.to_moving(xy)
        return None

    def record(self) -> dict[str, Any]:
        """Quality of every pair and whether it is used, as lists that ``uns`` can hold."""
        names = list(self.pairs)
        return {
            "fixed": [fixed for fixed, _ in names],
            "moving": [moving for _, moving in names],
            "quality": [float(self.pairs[pair].quality) for pair in names],
            "used": [bool(self.pairs[pair].used) for pair in names],
        }


def lays_of_references(pictures: Mapping[str, Picture], patients: Mapping[str, str]) -> Lays:
    """Register references with each other: all pairs of a few, of many each with those next to it.

    Parameters
    ----------
    pictures
        By name of the reference.
    patients
        Patient of each, as far as they are named; pairs of two patients are left out where there are many references.
    """
    names = sorted(pictures, key=lambda name: (patients.get(name, ""), name))
    if len(names) <= MAX_ALL_PAIRS:
        pairs = list(combinations(names, 2))
    else:
        followers = [(name, other) for i, name in enumerate(names) for other in names[i + 1 : i + 1 + N_NEXT]]
        pairs = [pair for pair in followers if len({patients.get(name, "") for name in pair}) == 1]
    return _registered(pictures, pairs)


def lays_of_target(
    name: str,
    picture: Picture | None,
    references: Mapping[str, Picture],
    given: Mapping[str, PairRegistration] | None = None,
) -> Lays:
    """Register a target with every reference for which nothing is given; without a picture what is given is all."""
    known = {(name, reference): pair for reference, pair in (given or {}).items()}
    if picture is None:
        return Lays(known)
    searched = [(name, other) for other in references if (name, other) not in known]
    return Lays({**known, **_registered({**references, name: picture}, searched).pairs})


def free_name(name: str, taken: Iterable[str]) -> str:
    """A name that none of those taken is."""
    taken = set(taken)
    while name in taken:
        name += "'"
    return name


def _registered(pictures: Mapping[str, Picture], pairs: list[tuple[str, str]]) -> Lays:
    found: dict[tuple[str, str], PairRegistration] = {}
    with progress_bar(total=len(pairs), desc="registration", unit="pair") as bar:
        for fixed in dict.fromkeys(first for first, _ in pairs):
            of_fixed = [pair for pair in pairs if pair[0] == fixed]
            found |= register_pairs(pictures, of_fixed)
            bar.update(len(of_fixed))
    return Lays(found)
