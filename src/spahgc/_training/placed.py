"""Experts of place: what reference spots say of the spots on which they lie, where sections were laid over each other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from spahgc._linear.kernel import Kernel, KernelRidge, fit_kernel_ridge
from spahgc._linear.place import Places, look_plus_place, look_times_place
from spahgc._spots.pitch import spot_pitch
from spahgc._spots.rows import slide_or_half
from spahgc.pp._edge_types import REFERENCE, TARGET

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from spahgc._spots.rows import Spots
    from spahgc.pp._edge_types import Nodes
    from spahgc.pp._register.lays import Lays

PLUS, TIMES = PLACE_KERNELS = "kernel_plus_place", "kernel_times_place"
"""Kernel ridge regressions on likeness plus nearness, and on likeness that counts more at the same place."""

GRAPH_BY_PLACE = "graph_by_place"
"""What the graph says along its edges by place and those to spots that look alike."""

PLACE_EXPERTS = (*PLACE_KERNELS, GRAPH_BY_PLACE)

PLACE_REACH = 3.0
"""Distance of neighbouring spots, times this, beyond which two spots are not at the same place and no edge joins them."""

_KERNELS = {PLUS: look_plus_place, TIMES: look_times_place}

UNPROVEN_SHARES = {PLUS: 0.3, TIMES: 0.1}
"""Their shares where no two references lie on each other, so that nothing can be held out: about what four sections of an
olfactory bulb and three of a breast tumour prove, and less than either."""


def places_on(target: Spots, known: Spots, lays: Lays) -> tuple[np.ndarray, Places] | None:
    """Places of a slide's spots and of references, in the frame of the slide; ``None`` where no reference lies on it.

    Parameters
    ----------
    target
        The slide; of a target that was measured in part, its measured part lies where it is. One that is denser or sparser than
        its references has their spacing as its unit of distance.
    known
        Spots of the references.
    lays
        How the slides lie on each other.
    """
    pitch = next(iter(target.steps.values()), None) or spot_pitch(target.xy)
    if pitch is None:
        return None
    xy, frame = np.zeros((len(known), 2)), np.zeros(len(known), dtype=np.int64)
    for i, (rows, laid) in enumerate(_laid_on(target, known, lays)):
        if laid is None:
            own = known.xy[rows]
            xy[rows], frame[rows] = own / (spot_pitch(own) or pitch), i + 1
        else:
            xy[rows] = laid / pitch
    places = Places(xy, frame)
    return (target.xy / pitch, places) if places.known else None


def _laid_on(target: Spots, known: Spots, lays: Lays) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Spots of each reference by number, and their places on the slide in its pixels; ``None`` where it does not lie on it."""
    for reference in np.unique(known.slide):
        rows = np.flatnonzero(known.slide == reference)
        own = known.xy[rows]
        yield rows, own if reference == target.own_reference else lays.laid(str(target.slide[0]), str(reference), own)


@dataclass(frozen=True)
class Laid:
    """Where the spots of a slide and of references lie in the frame of the slide, as the edges by place are built from them.

    Parameters
    ----------
    target
        Places of the slide's spots, spots x 2, microns.
    references
        The same of the references, NaN where one could not be laid on the slide.
    slide
        Name of the slide of each reference spot.
    reach
        Distance beyond which spots are not at the same place, microns.
    """

    target: np.ndarray
    references: np.ndarray
    slide: np.ndarray
    reach: float

    @classmethod
    def of(cls, target: Spots, known: Spots, lays: Lays) -> Laid | None:
        """From a slide and references; ``None`` where none lies on it, or nothing is reckoned in microns."""
        mpp = None if lays.microns is None else lays.microns.mpp.get(str(target.slide[0]))
        if lays.microns is None or mpp is None:
            return None
        xy = np.full((len(known), 2), np.nan)
        for rows, laid in _laid_on(target, known, lays):
            if laid is not None:
                xy[rows] = laid * mpp
        if np.isnan(xy).all():
            return None
        return cls(target.xy * mpp, xy, known.slide, PLACE_REACH * lays.microns.pitch_um)

    def part(self, target: np.ndarray, references: np.ndarray) -> Laid:
        """Of some spots on either side, by number."""
        return replace(
            self, target=self.target[target], references=self.references[references], slide=self.slide[references]
        )

    def beside(self, nodes: Mapping[str, Nodes]) -> dict[str, Nodes]:
        """Nodes of the same spots, with their places."""
        target = replace(nodes[TARGET], place=self.target, reach=self.reach)
        return {TARGET: target, REFERENCE: replace(nodes[REFERENCE], place=self.references, slide=self.slide)}


def lie_on_each_other(slides: np.ndarray, lays: Lays) -> bool:
    """Whether of some slides, by the name of each spot's, any lies on another one."""
    names = {str(name) for name in np.unique(slides)}
    return any(pair.used and set(ends) <= names for ends, pair in lays.pairs.items())


def learns_places(slides: np.ndarray, folds: np.ndarray, lays: Lays) -> bool:
    """Whether the graph can be asked by place of all slides that are held out and on which another one lies.

    Without each fold, some of the other slides have to lie on each other: elsewhere nothing says what a distance is worth.

    Parameters
    ----------
    slides
        Name of each spot's slide.
    folds
        Number of each spot's fold.
    lays
        How the slides lie on each other.
    """
    if lays.microns is None or not lie_on_each_other(slides, lays):
        return False
    asked = False
    for fold in range(folds.max() + 1):
        held_out, others = np.unique(slides[folds == fold]), np.unique(slides[folds != fold])
        if any(lays.joins(str(name), str(other)) for name in held_out for other in others):
            if not lie_on_each_other(others, lays):
                return False
            asked = True
    return asked


@dataclass(frozen=True)
class PlacedExpert:
    """An expert of place that was fitted for a slide.

    Parameters
    ----------
    fitted, kernel
        The regression and its kernel.
    known, seen
        Features and places side by side, of the references and of the slide's spots.
    """

    fitted: KernelRidge
    kernel: Kernel
    known: np.ndarray
    seen: np.ndarray


def fit_placed(
    x: np.ndarray,
    xy: np.ndarray,
    known_x: np.ndarray,
    places: Places,
    scores: np.ndarray,
    known: Spots,
    device: str = "cpu",
) -> dict[str, PlacedExpert]:
    """The experts of place of some spots.

    Parameters
    ----------
    x, xy
        Features of the spots, and their places.
    known_x, places, scores
        Features, places and scores of the references.
    known
        The references.
    device
        Torch device; one other than CUDA computes on the CPU.
    """
    slide, size = slide_or_half(known), float(np.square(known_x, dtype=np.float64).sum(axis=1).mean()) or 1.0
    seen, there = Places(xy, np.zeros(len(xy), dtype=np.int64)).beside(x), places.beside(known_x)
    kernels = {name: make(size) for name, make in _KERNELS.items()}
    return {
        name: PlacedExpert(fit_kernel_ridge(there, scores, slide, kernel=kernel, device=device), kernel, there, seen)
        for name, kernel in kernels.items()
    }


def placed_scores(
    x: np.ndarray,
    xy: np.ndarray,
    known_x: np.ndarray,
    places: Places,
    scores: np.ndarray,
    known: Spots,
    device: str = "cpu",
) -> dict[str, np.ndarray]:
    """What each expert of place says of some spots, spots x components; parameters as in :func:`fit_placed`."""
    experts = fit_placed(x, xy, known_x, places, scores, known, device)
    return {name: expert.fitted.predict(expert.seen, expert.kernel, device=device) for name, expert in experts.items()}


def unproven_weights(weights: Mapping[str, float]) -> dict[str, float]:
    """Weights of all experts where place is known and could not be proven."""
    left = 1 - sum(UNPROVEN_SHARES.values())
    return {**{name: left * weight for name, weight in weights.items()}, **UNPROVEN_SHARES}
