"""Finer than the references: values of points much closer than spots, whose mean over a spot's area is the spot's own prediction."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

from spahgc._keys import UNITS, UNS, Layers, Uns
from spahgc._linear.expected import Expected
from spahgc._linear.within_spot import slopes_between_spots, variance_within
from spahgc._spots.areas import Areas
from spahgc._spots.pitch import SPOT_OF_PITCH, spot_spacing
from spahgc._spots.rows import Spots, blocks_of
from spahgc._training.graphs import bank_spots
from spahgc._training.networks import Prediction
from spahgc.model import SpaHGC, predict_spots
from spahgc.pp._bank.references import bank_mpp
from spahgc.pp._bank.scale import wanted_spacing

FINEST_OF_SPOT = 0.6
"""Spacing of a target's points, in diameters of a spot, up to which they are finer than it: an area then holds two and more."""
MOST_OF_PITCH = 1.05
"""Diameter of a spot over the distance of neighbours, at most: bins lie side by side, and arrays are not exact."""
LEAST_AREAS = 10
"""Areas that a target must hold: what the model sees is standardised over them."""


@dataclass(frozen=True, eq=False)
class Finer:
    """Areas of the size of a spot over a target that is finer than its references.

    Parameters
    ----------
    areas
        On the spots of the target that are predicted.
    spacing_um
        Of the target's points, microns.
    diameter_um, pitch_um
        Of the areas, microns: those of the references' spots.
    within
        Variance of a point's value around the mean of its area, of every gene of the references; ``None`` where no spread is told.
    """

    areas: Areas
    spacing_um: float
    diameter_um: float
    pitch_um: float
    within: NDArray[np.float64] | None

    @classmethod
    def of(cls, spots: Spots, bank: AnnData, conserve: bool | float, *, told: bool) -> Finer:
        """Lay areas over a target.

        Parameters
        ----------
        spots
            Of the target.
        bank
            The references.
        conserve
            ``True``, or the diameter of the references' spots, microns.
        told
            Whether a spread is told, which is then to be widened.

        Raises
        ------
        ValueError
            If resolutions are not known, the target is not finer than the references, or it or they are too small.
        """
        pitch, spacing = wanted_spacing(bank), spot_spacing(spots.xy)
        if pitch is None or spots.mpp is None or spacing is None:
            whose = "the references" if pitch is None else "the target"
            raise ValueError(
                f"conserve= compares sizes in microns, and the resolution of {whose} is not known. Write the microns per pixel "
                'into uns["spahgc"]["slide_mpp"], as spahgc.pp.embed(..., mpp=) does, or leave conserve= out.'
            )
        diameter, spacing_um = SPOT_OF_PITCH * pitch if conserve is True else float(conserve), spacing * spots.mpp
        if diameter > MOST_OF_PITCH * pitch:
            raise ValueError(
                f"conserve={diameter:g} is the diameter of the references' spots in microns, and they lie {pitch:.4g} um apart, so "
                "that they would overlap. Pass a diameter of at most that, or True."
            )
        if spacing_um > FINEST_OF_SPOT * diameter:
            raise ValueError(
                f"the target is not finer than the references: its points lie {spacing_um:.4g} um apart, and a spot of the "
                f"references is {diameter:.4g} um wide (they lie {pitch:.4g} um apart). conserve= needs points at most "
                f"{FINEST_OF_SPOT * diameter:.4g} um apart, such as spahgc.pp.tile(image, spacing_um={diameter / 2:.3g}) lays them. "
                "Lay them closer, or leave conserve= out."
            )
        areas = Areas.over(spots.xy, diameter / spots.mpp, pitch / spots.mpp)
        if len(areas.centres) < LEAST_AREAS:
            raise ValueError(
                f"the target holds {len(areas.centres)} areas of the size of a spot, and conserve= needs at least {LEAST_AREAS} of "
                "them. Pass points over more of the tissue, or leave conserve= out."
            )
        within = variance_within(slopes_of_bank(bank), diameter, spacing_um) if told else None
        return cls(areas, spacing_um, diameter, pitch, within)

    def spots(self, spots: Spots) -> Spots:
        """The areas as spots of the target: at their centres, with the mean embedding of their points."""
        n, means = len(self.areas.centres), self.areas.means
        z = np.asarray(spots.z)
        return replace(
            spots,
            z=(means @ z).astype(z.dtype, copy=False),
            xy=self.areas.centres,
            slide=np.full(n, spots.slide[0]),
            y=spots.y[:n],
            transcriptome=spots.transcriptome[:n],
        )

    def conserve(
        self, values: NDArray[np.floating], of_areas: NDArray[np.floating], units: str
    ) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Values of the points whose means are those of the areas, points x genes; and by how much they are off, areas x genes.

        Parameters
        ----------
        values
            What is predicted of the points, points x genes.
        of_areas
            What is predicted of the areas, areas x genes.
        units
            Of both.
        """
        least = 0.0 if units == UNITS else -np.inf  # the logarithm of one more than a count
        wanted = np.maximum(of_areas, least)
        smooth = self.areas.smoothed(np.asarray(values, dtype=np.float32))
        found = np.asarray(self.areas.conserved(smooth, wanted, least), dtype=np.float32)
        apart = np.asarray(self.areas.means @ found - wanted, dtype=np.float64)
        return found, apart


@dataclass(frozen=True, eq=False)
class Conserved:
    """What a prediction of a finer target came to.

    Parameters
    ----------
    finer
        The areas.
    of_areas
        What is predicted of them, areas x genes.
    support
        Of the areas; ``None`` where nothing says so.
    apart
        Mean of the points less that, areas x genes.
    """

    finer: Finer
    of_areas: NDArray[np.floating]
    support: NDArray[np.floating] | None
    apart: NDArray[np.float64]

    def record(self) -> dict[str, Any]:
        """For ``uns``, without spreads."""
        return {
            "spacing_um": float(self.finer.spacing_um),
            "diameter_um": float(self.finer.diameter_um),
            "pitch_um": float(self.finer.pitch_um),
            "n_areas": len(self.of_areas),
            "mean_deviation": float(np.abs(self.apart).mean()),
            "max_deviation": float(np.abs(self.apart).max()),
        }


def check_conserve(conserve: bool | float, measured: str | None) -> None:
    """Refuse what is no diameter, and a target of which a part was measured."""
    if conserve is False:
        return
    is_number = isinstance(conserve, int | float | np.number) and not isinstance(conserve, bool | np.bool_)
    if conserve is not True and not (is_number and np.isfinite(conserve) and conserve > 0):
        raise ValueError(
            f"conserve={conserve!r} is neither True nor False nor the diameter of the references' spots in microns. Pass one of them."
        )
    if measured is not None:
        raise ValueError(
            "conserve= is for a target that is finer than its references, and measured= makes references of the target's own points, "
            "which are as fine. Leave one of the two out."
        )


def finer_target(spots: Spots, bank: AnnData, conserve: bool | float, *, told: bool) -> Finer | None:
    """Areas over a target, see :meth:`Finer.of`; ``None`` where they are not wanted."""
    return None if conserve is False else Finer.of(spots, bank, conserve, told=told)


def slopes_of_bank(bank: AnnData) -> NDArray[np.float64]:
    """How expression changes between the spots of the references, see :func:`slopes_between_spots`."""
    spots = bank_spots(bank, dense=False)
    return slopes_between_spots(spots.y, spots.xy, spots.slide, bank_mpp(bank))


def conserve_record(conserved: Conserved | None) -> dict[str, Any]:
    """The entry of the record of a prediction, if there is one."""
    return {} if conserved is None else {Uns.conserve: conserved.record()}


def conserved_prediction(
    model: SpaHGC, spots: Spots, prediction: Prediction, finer: Finer, device: str | None, *, support: bool
) -> tuple[Prediction, Conserved]:
    """A model's prediction of fine points with the means of its prediction of the areas; support is the lesser of both."""
    of_areas = predict_spots(model, finer.spots(spots), device=device, support=support)
    values, apart = finer.conserve(prediction.expression, of_areas.expression, model.units)
    covered = prediction.support
    if covered is not None and of_areas.support is not None:
        covered = np.fmin(covered, finer.areas.spread_out(of_areas.support)).astype(covered.dtype)
    return replace(prediction, expression=values, support=covered), Conserved(
        finer, of_areas.expression, of_areas.support, apart
    )


def conserved_baseline(
    say: Callable[[Spots], np.ndarray], spots: Spots, predicted: np.ndarray, finer: Finer, units: str
) -> tuple[np.ndarray, Conserved]:
    """The same of a baseline, which a function makes of spots; it says nothing of support."""
    of_areas = say(finer.spots(spots))
    values, apart = finer.conserve(predicted, of_areas, units)
    return values, Conserved(finer, of_areas, None, apart)


def widen_spread(target: AnnData, model: SpaHGC, key: str, conserved: Conserved, case: str) -> None:
    """Widen spread and intervals that stand in the target for the step down in scale, and record deviations in spreads.

    Parameters
    ----------
    target
        The slide, with the prediction and its trust.
    model
        The model that predicted.
    key
        Key of the prediction.
    conserved
        What the prediction came to.
    case
        What the target is to the references.
    """
    within = conserved.finer.within
    if model.trust is None or within is None:
        return
    columns = target.var_names.get_indexer(model.genes)
    inside = columns >= 0
    ratio = _widen_layers(target, key, within[inside], columns[inside], model.units)
    of_areas = Expected.of(model.trust, case).spread(conserved.of_areas, np.asarray(conserved.support))
    in_spreads = np.abs(conserved.apart) / of_areas
    _add_to_record(
        target,
        key,
        {
            "mean_deviation_in_spreads": float(in_spreads.mean()),
            "max_deviation_in_spreads": float(in_spreads.max()),
            "widened": ratio,
        },
    )


def _widen_layers(
    target: AnnData, key: str, within: NDArray[np.float64], columns: NDArray[np.intp], units: str
) -> float:
    """Spread, and both ends of intervals in proportion; by how many times in the mean."""
    spread, least = target.layers[Layers.spread(key)], 0.0 if units == UNITS else -np.inf
    low, high = (target.layers.get(name) for name in (Layers.low(key), Layers.high(key)))
    ratios = []
    for rows in blocks_of(target.n_obs):
        before = spread[rows, :][:, columns].astype(np.float64)
        after = np.sqrt(before**2 + within)
        spread[rows, columns] = after
        ratios.append((after / before)[np.isfinite(before).all(axis=1)])
        if low is not None and high is not None:
            value = target.layers[key][rows, :][:, columns].astype(np.float64)
            half = (high[rows, :][:, columns] - value) * after / before
            low[rows, columns], high[rows, columns] = np.maximum(value - half, least), value + half
    return float(np.concatenate(ratios).mean())


def _add_to_record(target: AnnData, key: str, entries: Mapping[str, Any]) -> None:
    records = target.uns[UNS][Uns.predictions]
    records[key] = records[key] | {Uns.conserve: {**records[key].get(Uns.conserve, {}), **entries}}
