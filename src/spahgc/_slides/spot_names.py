"""Where spots stand on their slide that are given by name, or by position."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from anndata import AnnData

from spahgc._keys import Obs
from spahgc._slides.tissue import TissueRows
from spahgc._validate import quoted


def spot_position(adata: AnnData, spot: str | int) -> int:
    """Position of a spot that is given by its name, or by this position."""
    if isinstance(spot, int | np.integer) and not isinstance(spot, bool):
        if not 0 <= spot < adata.n_obs:
            raise KeyError(f"spot {spot} not found: the slide has {adata.n_obs} spots, 0 to {adata.n_obs - 1}.")
        return int(spot)
    if not isinstance(spot, str):
        raise TypeError(f"spot must be a name or a position, found {type(spot).__name__}.")
    if spot not in adata.obs_names:
        raise KeyError(
            f'spot "{spot}" not found in the slide, its spots are {quoted(adata.obs_names)}. Pass one of these names, '
            "or a position as a number."
        )
    return int(adata.obs_names.get_loc(spot))


def positions_on_tissue(
    adata: AnnData, spots: Sequence[str | int] | np.ndarray | None, tissue: TissueRows
) -> tuple[list[str], np.ndarray]:
    """Names of some spots, of all on the tissue if ``None``, and their positions among those on the tissue.

    Raises
    ------
    KeyError
        If there is no such spot.
    ValueError
        If one of them lies off the tissue, or there are none.
    """
    inside = np.ones(adata.n_obs, dtype=bool) if tissue.on_tissue is None else tissue.on_tissue
    given = [spots] if isinstance(spots, str | int | np.integer) else spots
    rows = (
        np.flatnonzero(inside) if given is None else np.array([spot_position(adata, spot) for spot in given], dtype=int)
    )
    names = [str(name) for name in adata.obs_names[rows]]
    if not len(rows):
        raise ValueError("spots= is empty. Pass names or positions of spots, or None for all.")
    if not inside[rows].all():
        outside = [name for name, known in zip(names, inside[rows], strict=True) if not known]
        raise ValueError(
            f'spots {quoted(outside)} lie off the tissue (obs["{Obs.in_tissue}"]), so nothing was predicted there. Choose '
            "others."
        )
    return names, np.cumsum(inside)[rows] - 1
