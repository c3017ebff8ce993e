"""References that were measured in different genes: how their expression gets onto one scale, and what is said of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from spahgc._files import digest
from spahgc._keys import COUNTS_PER_SPOT
from spahgc._logging import warn
from spahgc._slides.measured import MeasuredSlide
from spahgc._slides.totals import MAX_MISSING_SHARE
from spahgc._slides.units import TRANSFORMED
from spahgc._validate import quoted


@dataclass(frozen=True)
class UnionScale:
    """What the expression of each reference is divided by, so that the genes that all share are on one scale.

    A spot's counts are scaled by its total over the genes of its own platform. A panel of 300 genes has a total of these
    alone, so that a gene of it has many times the share that it has of a whole transcriptome. The genes that all references
    share tell how many times: they hold a share of the counts of each platform, and the platform on which that share is the
    smallest has counted the most besides. Values of the others are divided by their share over that smallest one, before the
    logarithm, so that all are counts per 10,000 of that platform. References of the same genes are divided by the same
    number, which is 1 where all were measured in the same.

    Parameters
    ----------
    share
        The smallest share of the shared genes.
    factors
        What the expression of each reference is divided by.
    panels
        Fingerprint of the genes that each was measured in.
    """

    share: float
    factors: Mapping[str, float]
    panels: Mapping[str, str]

    @classmethod
    def fit(cls, slides: Mapping[str, MeasuredSlide], shared: Sequence[str]) -> UnionScale:
        """From measured slides, and genes that all of them measured.

        Raises
        ------
        ValueError
            If these genes have no counts on a slide.
        """
        panels = {name: _fingerprint(slide) for name, slide in slides.items()}
        shares = _shares(slides, panels, shared)
        smallest = min(shares.values())
        if len({frozenset(slide.var_names) for slide in slides.values()}) == 1:
            return cls(smallest, dict.fromkeys(panels, 1.0), panels)
        _check_shares(shares, panels, len(shared))
        return cls(smallest, {name: shares[panel] / smallest for name, panel in panels.items()}, panels)

    def with_slides(self, slides: Mapping[str, MeasuredSlide], shared: Sequence[str]) -> UnionScale:
        """The same with further slides, which do not change what was there."""
        panels = {name: _fingerprint(slide) for name, slide in slides.items()}
        known = {panel: self.factors[name] for name, panel in self.panels.items()}
        new = {name: slide for name, slide in slides.items() if panels[name] not in known}
        shares = _shares(new, panels, shared)
        _check_shares({**shares, "": self.share}, {**panels, "the bank": ""}, len(shared))
        known |= {panel: share / self.share for panel, share in shares.items()}
        factors = {name: known[panel] for name, panel in panels.items()}
        return UnionScale(self.share, {**self.factors, **factors}, {**self.panels, **panels})

    def record(self, slides: Sequence[str]) -> dict[str, Any]:
        """In types that ``uns`` can hold, by the numbers of the slides."""
        return {
            "share": float(self.share),
            "factors": {f"{i}": float(self.factors[name]) for i, name in enumerate(slides)},
            "panels": {f"{i}": self.panels[name] for i, name in enumerate(slides)},
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any], slides: Sequence[str]) -> UnionScale:
        """The inverse of :meth:`record`."""
        factors = {slides[int(i)]: float(factor) for i, factor in record["factors"].items()}
        return cls(float(record["share"]), factors, {slides[int(i)]: str(x) for i, x in record["panels"].items()})


def divided(expression: csr_matrix, factor: float) -> csr_matrix:
    """``log1p`` expression, CSR, divided by a number before the logarithm; itself where that is 1."""
    if factor == 1:
        return expression
    data = np.log1p(np.expm1(expression.data.astype(np.float64)) / factor).astype(expression.dtype)
    return csr_matrix((data, expression.indices, expression.indptr), shape=expression.shape)


def warn_of_scale(slides: Mapping[str, MeasuredSlide], scale: UnionScale) -> None:
    """Say which references rest on totals over other genes, and what was made of that."""
    widest = min(scale.factors, key=lambda name: scale.factors[name])
    by_panel: dict[str, list[str]] = {}
    for name in slides:
        by_panel.setdefault(scale.panels[name], []).append(name)
    for names in by_panel.values():
        factor = scale.factors[names[0]]
        if abs(1 - 1 / factor) <= MAX_MISSING_SHARE:
            continue
        warn(
            f"totals of spots rest on {len(slides[names[0]].var_names)} genes on {quoted(names)}, and on more counts on "
            f'"{widest}": the genes that all references share have {factor:.2g} times the share there. Their expression was '
            f'divided by {factor:.2g}, so that all are counts per 10,000 of "{widest}".',
            stacklevel=4,
        )


def _fingerprint(slide: MeasuredSlide) -> str:
    """Of the genes over which a slide's totals are taken, as far as that is known."""
    genes = digest(*(name.encode() for name in sorted(map(str, slide.var_names))))
    return genes if slide.totals is None else f"{genes} of known totals"


def _shares(slides: Mapping[str, MeasuredSlide], panels: Mapping[str, str], shared: Sequence[str]) -> dict[str, float]:
    """Share of the counts that some genes have on the slides of each panel, the mean over their spots with counts."""
    if any(slide.units_of_counts == TRANSFORMED for slide in slides.values()):
        return {panels[name]: 1.0 for name in slides}  # values that are taken as they are have no totals
    sums: dict[str, np.ndarray] = {}
    for name, slide in slides.items():
        expression = slide.expression()[:, slide.var_names.get_indexer(list(shared))]
        counts = np.expm1(expression.data, dtype=np.float64).sum() / COUNTS_PER_SPOT
        sums[panels[name]] = sums.get(panels[name], np.zeros(2)) + [counts, slide.measured.sum()]
    return {panel: float(total / max(n, 1)) for panel, (total, n) in sums.items()}


def _check_shares(shares: Mapping[str, float], panels: Mapping[str, str], n_shared: int) -> None:
    without = [name for name, panel in panels.items() if shares.get(panel) == 0]
    if without:
        raise ValueError(
            f"{quoted(without)} have no counts in the {n_shared} genes that all references share, so that their expression "
            "cannot be brought onto one scale. Leave them out, or check their counts."
        )
