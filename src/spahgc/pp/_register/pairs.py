"""Pairs of pictures laid over each other: each picture is analysed once, each pair searched, refined and judged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from spahgc.pp._register.affine import refine_affine
from spahgc.pp._register.bend import find_bend
from spahgc.pp._register.laying import Bend
from spahgc.pp._register.matching import match_windows
from spahgc.pp._register.picture import Matrix, Picture
from spahgc.pp._register.quality import Agreement, find_agreement, find_overlap
from spahgc.pp._register.remembered import Remembered, digest_of
from spahgc.pp._register.search import SCALES, search_placements
from spahgc.pp._register.structure import N_PROOF, NoTissueError, Structure, find_structure

MIN_QUALITY = 0.125
"""Quality (structure times outline, 0 to 1) below which two sections are not used for each other.

Measured: sections of one block 0.14 to 0.29 (breast, olfactory bulb); of seven pairs of spinal cords of one mouse one with
0.12 to 0.14 and the others, of other levels or cut off, at most 0.10; other patients, mice and tissues at most 0.11. It was
set in view of all of these.
``benchmarks/registration.py --real`` prints them."""
MAX_STRETCH = 1.35
"""Longer over shorter axis of a circle once it was laid over the other section, beyond which no cut can have done it."""
MAX_SCALE = 1.25
"""The same of the size, where both resolutions are known."""
N_CANDIDATES = 8
"""Placements of the search that are refined roughly."""
N_FINALISTS, CLOSE_SCORE = 2, 0.75
"""Of these, how many are refined to the end, and the share of the best one's score that they need: symmetrical tissue fits
nearly as well the wrong way round."""
ROUGH_SPACING_UM, SPACING_UM = 300.0, 200.0
"""Distance of the windows while candidates are compared, and afterwards."""
MIN_GAIN = 0.02
"""Gain in the correlation of the structure from which on a bend is kept."""

SEARCHED, BENT, FAILED = "affine", "affine and bend", "none"
"""Methods."""


@dataclass(frozen=True, eq=False)
class PairRegistration:
    """How one slide lies on another.

    Parameters
    ----------
    matrix
        3 x 3, takes ``(x, y, 1)`` in full-resolution pixels of the moving slide to those of the fixed one.
    quality
        0 to 1; NaN where there is no picture to tell.
    used
        Whether the pair is to be used.
    method
        What the transformation is and where it comes from.
    why
        Why it is not used; empty where it is.
    structure, outline
        The two factors of `quality`.
    bend
        Smooth displacement after the matrix, on a grid in pixels of the fixed slide's full-resolution image.
    """

    matrix: Matrix
    quality: float
    used: bool
    method: str
    why: str = ""
    structure: float = np.nan
    outline: float = np.nan
    bend: Bend | None = None

    def to_fixed(self, xy: NDArray[np.float64]) -> NDArray[np.float64]:
        """Places of the moving slide ``(x, y)``, n x 2, on the fixed one; full-resolution pixels of either."""
        laid = np.asarray(xy, dtype=np.float64) @ self.matrix[:2, :2].T + self.matrix[:2, 2]
        return laid if self.bend is None else self.bend.undone(laid)

    def to_moving(self, xy: NDArray[np.float64]) -> NDArray[np.float64]:
        """The way back: places of the fixed slide on the moving one."""
        places = np.asarray(xy, dtype=np.float64)
        laid = places if self.bend is None else places + self.bend.at(places)
        back = np.linalg.inv(self.matrix)
        return np.asarray(laid @ back[:2, :2].T + back[:2, 2])


REMEMBERED: Remembered[PairRegistration] = Remembered()
"""Pairs that this process has registered."""


def register_pairs(
    pictures: Mapping[str, Picture], pairs: Iterable[tuple[str, str]]
) -> dict[tuple[str, str], PairRegistration]:
    """Lay pictures of sections over each other, pair by pair.

    Each picture is analysed once, and a pair that this process has registered before is remembered. A pair need not be
    registered in both directions: see :meth:`PairRegistration.to_moving`.

    Parameters
    ----------
    pictures
        Pictures by name.
    pairs
        Names ``(fixed, moving)``.

    Returns
    -------
    For each pair how the moving slide lies on the fixed one. A picture without tissue makes pairs that are not used, and
    `why` says so.
    """
    structures: dict[str, Structure | NoTissueError] = {}

    def structure_of(name: str) -> Structure | NoTissueError:
        if name not in structures:
            try:
                structures[name] = find_structure(pictures[name])
            except NoTissueError as error:
                structures[name] = error
        return structures[name]

    pairs = list(pairs)
    digests = {name: digest_of(pictures[name]) for name in {name for pair in pairs for name in pair}}
    found: dict[tuple[str, str], PairRegistration] = {}
    for pair in pairs:
        key = digests[pair[0]], digests[pair[1]]
        known = REMEMBERED.get(key)
        found[pair] = _registered(pair, structure_of, key) if known is None else known
    return found


def _registered(
    pair: tuple[str, str], structure_of: Callable[[str], Structure | NoTissueError], key: tuple[bytes, bytes]
) -> PairRegistration:
    """Lay one section over another and remember how; of a picture without tissue, say so."""
    fixed, moving = map(structure_of, pair)
    if isinstance(fixed, NoTissueError):
        return _blank(pair[0], fixed)
    if isinstance(moving, NoTissueError):
        return _blank(pair[1], moving)
    found = register_structures(fixed, moving)
    REMEMBERED.keep(key, found)
    return found


def _blank(name: str, error: NoTissueError) -> PairRegistration:
    why = f'slide "{name}" cannot be compared: {error}'
    return PairRegistration(np.eye(3), 0.0, False, FAILED, why, 0.0, 0.0)


def register_structures(fixed: Structure, moving: Structure) -> PairRegistration:
    """Lay one section over another."""
    known = fixed.picture.mpp is not None and moving.picture.mpp is not None
    finalists = [_refined(fixed, moving, matrix) for matrix in _rough_matrices(fixed, moving, known)]
    if not finalists:
        return PairRegistration(np.eye(3), 0.0, False, FAILED, "no part of one fits onto the other", 0.0, 0.0)
    possible = [found for found in finalists if not _reason_of_shape(fixed, moving, found.matrix, known)]
    best = max(possible or finalists, key=lambda found: found.agreement.correlation * found.agreement.outline)
    why = _reason_against(fixed, moving, best.matrix, best.agreement, known)
    return PairRegistration(
        matrix=fixed.picture.to_full @ best.matrix @ np.linalg.inv(moving.picture.to_full),
        quality=best.agreement.quality,
        used=not why,
        method=SEARCHED if best.bend is None else BENT,
        why=why,
        structure=best.agreement.structure,
        outline=best.agreement.outline,
        bend=None if best.bend is None else in_full_pixels(best.bend, fixed.picture),
    )


@dataclass(frozen=True, eq=False)
class _Refined:
    """A placement refined to the end, in pixels of the pictures."""

    matrix: Matrix
    bend: Bend | None
    agreement: Agreement


def _refined(fixed: Structure, moving: Structure, matrix: Matrix) -> _Refined:
    """Refine a placement, with a bend where that makes the structure agree better."""
    matrix = refine_affine(fixed, moving, matrix, spacing_um=SPACING_UM, n_rounds=3)
    agreement, bend = find_agreement(fixed, moving, matrix), find_bend(fixed, moving, matrix)
    if bend is None:
        return _Refined(matrix, None, agreement)
    bent = find_agreement(fixed, moving, matrix, bend)
    if bent.correlation < agreement.correlation + MIN_GAIN:
        return _Refined(matrix, None, agreement)
    # A bend gains something on any tissue: half of the proof is what the affine transformation alone shows.
    proof = replace(bent, structure=(agreement.structure + bent.structure) / 2)
    return _Refined(matrix, bend, proof)


def judge_structures(fixed: Structure, moving: Structure, matrix: Matrix) -> Agreement:
    """How well two sections agree under a transformation of full-resolution pixels that was given."""
    return find_agreement(fixed, moving, np.linalg.inv(fixed.picture.to_full) @ matrix @ moving.picture.to_full)


def in_full_pixels(bend: Bend, picture: Picture) -> Bend:
    """A bend on the full-resolution image instead of its picture."""
    x, y = picture.to_full[:2, 2]
    return replace(
        bend,
        displacement=bend.displacement * np.float32(picture.scale),
        spacing=bend.spacing * picture.scale,
        origin=(x, y),
    )


def _rough_matrices(fixed: Structure, moving: Structure, known: bool) -> list[Matrix]:
    """Affine transformations, roughly refined, under which most of the tissue fits best."""
    rough = []
    for placement in search_placements(fixed, moving, scales=(1.0,) if known else SCALES, n_best=N_CANDIDATES):
        matrix = refine_affine(fixed, moving, placement.matrix, spacing_um=ROUGH_SPACING_UM, n_rounds=2)
        rough.append((_fit(fixed, moving, matrix, known), matrix))
    rough.sort(key=lambda pair: -pair[0])
    least = CLOSE_SCORE * rough[0][0] if rough else 0.0
    return [matrix for score, matrix in rough[:N_FINALISTS] if score > 0 and score >= least]


def _fit(fixed: Structure, moving: Structure, matrix: Matrix, known: bool) -> float:
    """Correlation of the structure, times the share of the smaller section that is covered, times the overlap."""
    if _reason_of_shape(fixed, moving, matrix, known):
        return 0.0
    matches = match_windows(
        fixed, moving, matrix, reach_um=2 * fixed.pixel_um, spacing_um=ROUGH_SPACING_UM, n_channels=N_PROOF
    )
    if not len(matches):
        return 0.0
    correlation = float(matches.correlation.clip(0).mean(0).max())
    covered = len(matches) / max(min(_n_windows(fixed), _n_windows(moving)), 1.0)
    return correlation * min(covered, 1.0) * find_overlap(fixed, moving, matrix)


def _n_windows(section: Structure) -> float:
    """Windows that the tissue of a section would have."""
    return float(section.tissue.sum()) * (section.pixel_um / ROUGH_SPACING_UM) ** 2


def _reason_of_shape(fixed: Structure, moving: Structure, matrix: Matrix, known: bool) -> str:
    """Why no section can have been laid like this; empty if it can."""
    stretches = np.linalg.svd(matrix[:2, :2], compute_uv=False) * fixed.pixel_um / moving.pixel_um
    if stretches[0] / stretches[1] > MAX_STRETCH:
        return (
            f"one would have to be stretched {stretches[0] / stretches[1]:.2f} times, and {MAX_STRETCH:g} is the limit"
        )
    size = float(np.sqrt(stretches.prod()))
    if known and max(size, 1 / size) > MAX_SCALE:
        return f"one would have to be scaled {size:.2f} times, though both resolutions are known"
    return ""


def _reason_against(fixed: Structure, moving: Structure, matrix: Matrix, agreement: Agreement, known: bool) -> str:
    """Why a pair is not to be used; empty if it is."""
    shape = _reason_of_shape(fixed, moving, matrix, known)
    if shape or agreement.quality >= MIN_QUALITY:
        return shape
    return (
        f"quality {agreement.quality:.2f} is below {MIN_QUALITY:g} (structure {agreement.structure:.2f}, outline "
        f"{agreement.outline:.2f}): sections of other tissue look like this"
    )
