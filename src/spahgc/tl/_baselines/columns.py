"""Which columns of an embedding a baseline sees: all of them, the encoder's own, or these and the spot's parts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from spahgc.encoders._record import plain_embedding

PLAIN = ("hest", "hest_tuned", "deepspot")
"""Methods that see the encoder's output for the patch itself, its first `dim` columns, as their articles do."""
WITH_PARTS = ("deepspot",)
"""Of them those that see the parts of a spot as well, where the embedding has them."""
_SUBSPOTS = re.compile(r"subspots ([1-9][0-9]*)")
"""Context of an embedding whose further columns are the encoder's output for so many parts of the patch."""


def seen_columns(method: str, z: np.ndarray, record: Mapping[str, Any]) -> np.ndarray:
    """What a method sees of an embedding.

    Parameters
    ----------
    method
        Its name.
    z
        Spots x columns.
    record
        Encoder record. A context ``"subspots 9"`` says that the first `dim` columns are followed by 9 times `dim`, the
        output for nine parts of the patch.

    Returns
    -------
    Spots x columns; spots x (1 + parts) x dim for a method that sees parts, where there are some.

    Raises
    ------
    ValueError
        If the record tells of other parts than there are columns.
    """
    if method not in PLAIN:
        return z
    found = _SUBSPOTS.fullmatch(str(record.get("context", "")))
    if found is None or method not in WITH_PARTS:
        return plain_embedding(z, record)
    n_sets, dim = 1 + int(found[1]), int(record["dim"])
    if z.shape[1] != n_sets * dim:
        raise ValueError(
            f'the record of the embedding tells of {n_sets * dim} columns (dim {dim}, context "{found[0]}"), but the '
            f"embedding has {z.shape[1]}. Put the spot's own columns first, then those of its parts, and correct dim or "
            "context with spahgc.pp.use_embedding."
        )
    return z.reshape(len(z), n_sets, dim)
