"""Distances of a bank and its targets in microns: at which spacing neighbours count, and on which slides by a radius."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from spahgc._keys import SPATIAL, Obs
from spahgc._spots.rows import Spots
from spahgc._spots.scale import Microns, Surroundings, spacing_of, spacings_um, steps_of
from spahgc.pp._bank.references import bank_mpp

if TYPE_CHECKING:
    from anndata import AnnData

    from spahgc._parameters import Parameters

TARGET = "the target"


def wanted_spacing(bank: AnnData, parameters: Parameters | None = None) -> float | None:
    """The spacing at which the neighbours of a spot count, microns; ``None`` where no resolution is known.

    It is that of the typical reference, the median, or what the parameters ask for.
    """
    if parameters is not None and parameters.surroundings_um:
        return spacing_of(parameters.n_around, parameters.surroundings_um)
    xy, slide = np.asarray(bank.obsm[SPATIAL]), bank.obs[Obs.slide].astype(str).to_numpy()
    known = [spacing for spacing in spacings_um(xy, slide, bank_mpp(bank)).values() if spacing is not None]
    return float(np.median(known)) if known else None


def references_in_microns(spots: Spots, bank: AnnData, parameters: Parameters | None = None) -> Spots:
    """The spots of a bank, with those of its slides whose neighbours count by a radius.

    Raises
    ------
    ValueError
        If a radius is asked for in microns and the resolution of a reference is not known.
    """
    mpp = bank_mpp(bank)
    if parameters is not None and parameters.surroundings_um:
        unknown = sorted({str(name) for name in spots.slide} - set(mpp))
        if unknown:
            _refuse_unknown(f'reference "{unknown[0]}"', parameters.surroundings_um)
    return replace(spots, steps=steps_of(spots.xy, spots.slide, mpp, wanted_spacing(bank, parameters))[0])


def target_in_microns(spots: Spots, bank: AnnData, parameters: Parameters | None = None) -> tuple[Spots, Surroundings]:
    """A target's spots, which know whether their neighbours count by a radius, and what is told of it."""
    name = str(spots.slide[0])
    mpp = {} if spots.mpp is None else {name: spots.mpp}
    if parameters is not None and parameters.surroundings_um and not mpp:
        _refuse_unknown(TARGET, parameters.surroundings_um)
    steps, told = steps_of(spots.xy, spots.slide, mpp, wanted_spacing(bank, parameters))
    return replace(spots, steps=steps), told[name]


def microns_of_references(bank: AnnData) -> Microns:
    """How long a pixel is on every reference; where nobody knows it, spots lie as far apart as on the typical one."""
    xy, slide = np.asarray(bank.obsm[SPATIAL]), bank.obs[Obs.slide].astype(str).to_numpy()
    return Microns.of(xy, slide, bank_mpp(bank), wanted_spacing(bank))


def microns_of_target(spots: Spots, bank: AnnData) -> Microns:
    """The same of a target, whose spots bear its name."""
    known = {} if spots.mpp is None else {str(spots.slide[0]): spots.mpp}
    return Microns.of(spots.xy, spots.slide, known, wanted_spacing(bank))


def _refuse_unknown(whose: str, radius_um: float) -> None:
    raise ValueError(
        f"surroundings_um={radius_um:g} are microns, and the resolution of {whose} is not known. Write its microns per pixel "
        'into uns["spahgc"]["slide_mpp"], as spahgc.pp.embed(..., mpp=) does, or leave surroundings_um= out.'
    )
