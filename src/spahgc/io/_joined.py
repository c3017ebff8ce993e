"""What two tables of one slide must share: counts of another sample, or positions of another slide, do not pass."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from spahgc._logging import warn

MAX_OFF_TISSUE = 0.1
"""Share of the spots of a filtered matrix that may lie off the tissue, as spots that were taken out by hand do.

Space Ranger's filtered matrix has none. Every capture area has the same barcodes, so that the counts of another sample find
a position each; those whose tissue lies elsewhere are off this one."""
MAX_WITHOUT_COUNTS = 0.1
"""Share of the spots under tissue without counts, or of the counts without a spot, above which a warning says so."""
MIN_SHARED = 0.8
"""Share of the spots of the smaller of two tables of an ST slide that the other one must know.

Measured slides share all, or 0.99; tables of neighbouring sections shared up to 0.68."""
MIN_LABELLED = 0.7
"""Share of the spots that a table of labels must know; a published one that leaves out spots knows 0.78."""
MIN_SPOTS = 30
"""Spots on and off the tissue from which on their counts are compared."""
MIN_HIGHER = 0.6
"""Share of pairs of a spot under tissue and one beside it of which the first must have more counts; chance gives 0.5."""


def check_off_tissue(n_off: int, n_spots: int, counts: object, positions: object) -> None:
    """Judge how many spots of a filtered matrix the positions put off the tissue.

    Raises
    ------
    ValueError
        If it is more than a tenth.

    Warns
    -----
    UserWarning
        If there are some.
    """
    if not n_off:
        return
    found = (
        f'{n_off} of {n_spots} spots of the filtered counts "{counts}" lie off the tissue in "{positions}" (in_tissue is 0), '
        "but Space Ranger's filtered counts hold spots under tissue alone"
    )
    if n_off > MAX_OFF_TISSUE * n_spots:
        raise ValueError(
            f"{found}. Barcodes are the same on every slide: these are probably the counts of another sample. Pass the "
            'folder of one run. If the counts were not filtered, their name must say "raw".'
        )
    warn(f"{found}. They are left out. Do both belong to the same run?", stacklevel=4)


def check_without_counts(n_without: int, n_under_tissue: int, counts: object, positions: object) -> None:
    """Say so if many spots under tissue have no counts."""
    if n_without > MAX_WITHOUT_COUNTS * n_under_tissue:
        warn(
            f'{n_without} of {n_under_tissue} spots under tissue in "{positions}" are not in the counts "{counts}", and are '
            "left out. Are the counts a part of the run's, or those of another one?",
            stacklevel=4,
        )


def check_shared(n_shared: int, n_counts: int, n_spots: int, counts: object, spots: object) -> None:
    """Judge how many spots the counts and the spot table of an ST slide share.

    Either may hold spots that the other has not: spots off the tissue, or without counts. Tables of two sections each
    hold some.

    Raises
    ------
    ValueError
        If less than 0.8 of the smaller one is shared.

    Warns
    -----
    UserWarning
        If less than 0.9 of one of them is shared.
    """
    found = (
        f'the counts "{counts}" and the spot table "{spots}" share {n_shared} spots, of {n_counts} with counts and {n_spots} '
        "in the table"
    )
    if n_shared < MIN_SHARED * min(n_counts, n_spots):
        raise ValueError(
            f"{found}. Tables of one slide share at least {MIN_SHARED:.0%} of the smaller one: these are probably tables of "
            "two sections. Pass those of one."
        )
    if n_shared < (1 - MAX_WITHOUT_COUNTS) * max(n_counts, n_spots):
        warn(f"{found}. The others are left out. Do both belong to the same section?", stacklevel=4)


def check_counts_on_tissue(totals: ArrayLike, under_tissue: ArrayLike, counts: object, positions: object) -> None:
    """Say so if spots under tissue have no more counts than those beside it, which are measured in unfiltered tables.

    Parameters
    ----------
    totals
        Counts of each spot.
    under_tissue
        Which of them lie under tissue.
    counts, positions
        What messages call the two tables.
    """
    from scipy.stats import mannwhitneyu

    values, chosen = np.asarray(totals, dtype=np.float64).ravel(), np.asarray(under_tissue, dtype=bool)
    on, off = values[chosen], values[~chosen]
    if min(len(on), len(off)) < MIN_SPOTS:
        return
    higher = float(mannwhitneyu(on, off).statistic) / (len(on) * len(off))
    if higher < MIN_HIGHER:
        warn(
            f'spots under tissue in "{positions}" have no more counts in "{counts}" than those beside it: a spot under '
            f"tissue has the higher count in {higher:.0%} of all pairs. Do both belong to the same slide?",
            stacklevel=4,
        )


def check_labels(n_known: int, n_spots: int, labels: object) -> None:
    """Say so if a table of labels knows less than 0.7 of the spots of a slide."""
    if n_known < MIN_LABELLED * n_spots:
        warn(
            f'the labels "{labels}" know {n_known} of {n_spots} spots of the slide; the others have none. Do they belong to '
            "the same section?",
            stacklevel=4,
        )
