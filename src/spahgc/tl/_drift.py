"""What is said of a target that does not look like its references, when it is predicted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from anndata import AnnData

from spahgc._keys import Uns
from spahgc._logging import warn
from spahgc._spots.rows import Spots
from spahgc.pp._compare.compare import ALL, compare_with_bank
from spahgc.pp._compare.limits import BRIGHTNESS, EMBEDDING, RESOLUTION, STAIN

WORDS = {
    EMBEDDING: "{beyond:.0%} of its spots look stranger than nearly all of theirs",
    STAIN: "its stain is another one ({stain_angle:.0f} degrees, optical density {optical_density:+.2f})",
    BRIGHTNESS: "its brightness is {brightness:+.0f} of 255",
    RESOLUTION: "its pixels are {resolution:.2g} times as wide",
}
"""What is said of each difference that is large."""


def look_of_target(spots: Spots, bank: AnnData) -> dict[str, Any]:
    """Entry of the record of a prediction: how the target differs from its references; a warning where that is much.

    Parameters
    ----------
    spots
        Those of the target, without expression.
    bank
        The references; none of their counts is read.

    Warns
    -----
    UserWarning
        One line, where a difference is large (:mod:`spahgc.pp._compare.limits`).
    """
    row = {str(name): value for name, value in compare_with_bank(spots, bank).loc[[ALL]].iloc[0].items()}
    found = [word for word in str(row["large"]).split(", ") if word]
    if found:
        warn(sentence(row, found), stacklevel=3)
    numbers = {name: float(value) for name, value in row.items() if name not in ("large", "advice")}
    return {Uns.drift: {**numbers, "large": found, "advice": str(row["advice"])}}


def sentence(row: Mapping[str, Any], found: list[str]) -> str:
    """One line on what differs much, and what can be done."""
    parts = "; ".join(WORDS[what].format(**row) for what in sorted(found, key=list(WORDS).index) if what in WORDS)
    return (
        f"the target does not look like its references: {parts}. Its prediction may be off by more than it says. What can be "
        f"done: {row['advice']}. spahgc.pp.compare(target, refs) shows how they differ."
    )
