"""What a registration leaves in ``uns`` of the target, in types that survive h5ad and zarr, and how it is read again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spahgc._validate import quoted
from spahgc.pp._register.laying import Bend
from spahgc.pp._register.pairs import MIN_QUALITY, PairRegistration

SAME, DIFFERENT, UNKNOWN = "same", "different", "unknown"
"""What ``obs["patient"]`` of target and reference says."""


def registration_record(
    target: str, pairs: Mapping[str, PairRegistration], patients: Mapping[str, str]
) -> dict[str, Any]:
    """Record of a registration.

    Names stand in a list and not as keys, since a name may hold a slash, which would open a group in a file.

    Parameters
    ----------
    target
        Name of the target, whose frame it is.
    pairs
        How each reference lies on it.
    patients
        For each reference whether it is of the target's patient.
    """
    found = list(pairs.values())
    return {
        "target": target,
        "references": list(pairs),
        "matrix": np.stack([pair.matrix for pair in found]),
        "quality": np.array([pair.quality for pair in found]),
        "structure": np.array([pair.structure for pair in found]),
        "outline": np.array([pair.outline for pair in found]),
        "used": np.array([pair.used for pair in found]),
        "method": [pair.method for pair in found],
        "why": [pair.why for pair in found],
        "patient": [patients[name] for name in pairs],
        "min_quality": MIN_QUALITY,
        "bend": {
            str(place): {
                "displacement": pair.bend.displacement,
                "spacing": float(pair.bend.spacing),
                "origin": np.asarray(pair.bend.origin, dtype=np.float64),
            }
            for place, pair in enumerate(found)
            if pair.bend is not None
        },
    }


def pairs_of_record(record: Mapping[str, Any]) -> dict[str, PairRegistration]:
    """How each reference lies on the target, by the name of the reference."""
    bends = record.get("bend", {})
    pairs = {}
    for place, name in enumerate(record["references"]):
        bend = bends.get(str(place))
        pairs[str(name)] = PairRegistration(
            matrix=np.asarray(record["matrix"], dtype=np.float64)[place],
            quality=float(record["quality"][place]),
            used=bool(record["used"][place]),
            method=str(record["method"][place]),
            why=str(record["why"][place]),
            structure=float(record["structure"][place]),
            outline=float(record["outline"][place]),
            bend=None if bend is None else _bend(bend),
        )
    return pairs


def _bend(record: Mapping[str, Any]) -> Bend:
    x, y = (float(value) for value in record["origin"])
    return Bend(np.asarray(record["displacement"], dtype=np.float32), float(record["spacing"]), (x, y))


def registered_positions(record: Mapping[str, Any], reference: str, xy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Places of a reference in the frame of the target.

    Parameters
    ----------
    record
        ``uns["spahgc"]["registration"]`` of the target.
    reference
        Name of the reference.
    xy
        Places ``(x, y)`` on it, n x 2, full-resolution pixels of the reference.

    Returns
    -------
    The same places in full-resolution pixels of the target, n x 2.

    Raises
    ------
    KeyError
        If the reference was not registered.
    """
    pairs = pairs_of_record(record)
    if reference not in pairs:
        raise KeyError(
            f'reference "{reference}" was not registered, only {quoted(pairs)} were. Run spahgc.pp.register with it.'
        )
    return pairs[reference].to_fixed(xy)
