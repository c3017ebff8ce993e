"""What the values of a slide are: counts, their log1p, scaled counts; recognised by what they show, or as the user says."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from anndata import AnnData
from scipy.sparse import csr_matrix

from spahgc._keys import COUNTS_PER_SPOT, UNITS
from spahgc._logging import warn
from spahgc._slides.matrix import as_csr, is_whole, raw_matrix, row_sums
from spahgc._slides.totals import column_totals, remembered_totals

COUNTS, LOG1P, NORMALIZED = "counts", "log1p", "normalized"
"""What ``units=`` may say of measured values. Counts may be corrected ones, which are no whole numbers."""

TRANSFORMED = "transformed"
"""Values that are taken as they are: some are negative, or somebody says so."""

KNOWN_UNITS = (COUNTS, LOG1P, NORMALIZED, TRANSFORMED)

COUNTS_LAYER = "counts"
"""Layer in which users of scanpy keep the counts before they transform ``X``."""

ROW_SUM_TOLERANCE = 1e-2
"""Relative spread of the spots' totals below which ``expm1(X)`` counts as normalised to a constant."""

LARGEST_LOG_VALUE = 30.0
"""No ``log1p`` of a count is larger, so ``expm1`` is not tried above it."""

WHOLE_TOLERANCE = 1e-3
"""Counts by which ``expm1`` of a ``log1p`` in single precision may miss a whole number, beside :data:`WHOLE_PRECISION`."""

WHOLE_PRECISION = 1e-5
"""The same in relation to the count."""

RATIO_TOLERANCE = 1e-3
"""Relative spread, within a spot, of the ratio of its values to its counts below which they are these counts, scaled."""

PROBED_SPOTS = 100
"""Spots, those that have seen most genes, of which the smallest values are compared with a single count."""

MIN_PROBED_SPOTS = 10
"""Fewer spots with different smallest values prove nothing."""

MIN_PROBED_GENES = 5
"""Genes that a spot must have seen to be compared."""

MIN_AGREEING = 0.9
"""Share of these spots that must agree with a common total. Half of it would agree with half of the spots at most."""

MULTIPLE_TOLERANCE = 0.02
"""Counts by which a scaled value, divided by that of a single count, may miss a whole number."""

LARGEST_COMMON_TOTAL = 200_000
"""Counts up to which every common total, in halves, is tried; beyond it only :data:`COUNTS_PER_MILLION`."""

COUNTS_PER_MILLION = 1e6

SINGLE_DECIMALS = 6
"""Decimals to which the values of single counts are compared with each other."""


@dataclass(frozen=True)
class Reading:
    """How the values of a slide are read, found once and then held to."""

    units: str
    """:data:`COUNTS`, :data:`LOG1P`, :data:`NORMALIZED` or :data:`TRANSFORMED`, of the values that :meth:`values` gives."""
    layer: str | None = None
    """Layer that is read; ``None`` is ``X``."""
    log_factor: float = 1.0
    """By which values of another base than e are multiplied before ``expm1``: the natural logarithm of the base."""
    is_log_of_counts: bool = False
    """The layer holds ``log1p`` of whole counts, which :meth:`values` gives back."""
    total: float | None = None
    """Counts to which every spot had been scaled; ``None`` where all genes are there, so that their sum is that total."""

    def values(self, adata: AnnData, label: str) -> csr_matrix:
        """The values as they stand, or the counts of which they are the logarithm; CSR, float64, spots x genes."""
        matrix = raw_matrix(adata, self.layer, label)
        return self._counts(matrix) if self.is_log_of_counts else matrix

    def of_given_counts(self) -> Reading:
        """The same for an object whose ``X`` is what :meth:`values` gave."""
        return replace(self, layer=None, is_log_of_counts=False)

    def linear(self, matrix: csr_matrix) -> csr_matrix:
        """A copy of the values without their logarithm."""
        matrix = matrix.copy()
        if self.units == LOG1P:
            matrix.data = np.expm1(matrix.data * self.log_factor)
        return matrix

    def _counts(self, matrix: csr_matrix) -> csr_matrix:
        matrix.data = np.rint(np.expm1(matrix.data * self.log_factor))
        return matrix


def check_units(units: str | None) -> None:
    """Refuse a word that ``units=`` does not know."""
    if units is not None and units not in KNOWN_UNITS:
        raise ValueError(
            f'units="{units}" is not known. Pass "{COUNTS}" for counts, whole or corrected, "{LOG1P}" for log1p of '
            f'counts that were scaled to a total, "{NORMALIZED}" for scaled counts without the logarithm, '
            f'"{TRANSFORMED}" for values that are taken as they are, or leave it out.'
        )


def find_reading(adata: AnnData, layer: str | None, units: str | None, label: str) -> tuple[csr_matrix, Reading]:
    """The values of a slide, and what they are; what is assumed is said in a warning.

    Parameters
    ----------
    adata
        The slide.
    layer
        Layer of the values; ``None`` takes ``X``.
    units
        What they are: one of :data:`KNOWN_UNITS`, or ``None`` to find out.
    label
        How messages call the slide.

    Returns
    -------
    What :meth:`Reading.values` gives, and the reading.

    Raises
    ------
    ValueError
        If values are NaN or infinite, if nothing tells what they are, or if they cannot be what ``units`` says.
    """
    check_units(units)
    matrix = raw_matrix(adata, layer, label)
    plain = Reading(COUNTS, layer, _log_factor(adata))
    if units is not None:
        reading = _as_said(adata, matrix, plain, units, label)
    elif not matrix.nnz or is_whole(matrix):
        reading = plain
    elif matrix.data.min() < 0:
        reading = replace(plain, units=TRANSFORMED)
        _warn(
            f"{label} has negative values, so it does not hold counts. Assumed: expression that is already transformed, "
            f"taken as it is; predictions will be in its units, not in {UNITS}. Pass layer= with the counts if you "
            "have them."
        )
    else:
        reading = _recognised(adata, matrix, plain, label)
    if reading.layer != layer:
        matrix = raw_matrix(adata, reading.layer, label)
    return reading._counts(matrix) if reading.is_log_of_counts else matrix, reading


def _log_factor(adata: AnnData) -> float:
    """Natural logarithm of the base that ``scanpy.pp.log1p`` noted, 1 for base e."""
    noted = adata.uns.get("log1p")
    base = noted.get("base") if isinstance(noted, dict) or hasattr(noted, "get") else None
    return 1.0 if base is None else float(np.log(float(np.asarray(base).item())))


def _as_said(adata: AnnData, matrix: csr_matrix, plain: Reading, units: str, label: str) -> Reading:
    """The reading that ``units=`` asks for; refuses values that cannot be that."""
    if units == TRANSFORMED:
        return replace(plain, units=TRANSFORMED)
    if matrix.nnz and matrix.data.min() < 0:
        raise ValueError(f"{label} has negative values, which are no {units}. Pass layer= with its counts.")
    if units == COUNTS or not matrix.nnz:
        return plain
    if units == NORMALIZED:
        return replace(plain, units=NORMALIZED, total=_total_as_said(adata, matrix, label))
    largest = float(matrix.data.max()) * plain.log_factor
    if largest > LARGEST_LOG_VALUE:
        raise ValueError(
            f"{label} has values up to {matrix.data.max():,.6g}, and no log1p is larger than {LARGEST_LOG_VALUE:g}. Pass "
            f'units="{COUNTS}" or units="{NORMALIZED}" if that is what they are.'
        )
    linear = replace(plain, units=LOG1P).linear(matrix)
    if _nearly_whole(linear):
        return replace(plain, is_log_of_counts=True)
    return replace(plain, units=LOG1P, total=_total_as_said(adata, linear, label))


def _total_as_said(adata: AnnData, linear: csr_matrix, label: str) -> float | None:
    """Counts to which the spots were scaled: what the values show, else those of the package, which is said."""
    if _constant_totals(linear):
        return None
    total = _shown_total(adata, linear)
    if total is None:
        total = COUNTS_PER_SPOT
        _warn(
            f"{label}: nothing tells to which total its counts were scaled. Assumed: {COUNTS_PER_SPOT:,.0f}. Pass layer= "
            "with its counts if that is wrong."
        )
    return total


def _recognised(adata: AnnData, matrix: csr_matrix, plain: Reading, label: str) -> Reading:
    """What fractional values are, by what they show; each guess is said."""
    as_log = replace(plain, units=LOG1P)
    linear = as_log.linear(matrix) if matrix.data.max() * plain.log_factor <= LARGEST_LOG_VALUE else None
    if _constant_totals(matrix):
        _say(label, f"counts scaled to a constant total; rescaled to {UNITS}")
        return replace(plain, units=NORMALIZED)
    if linear is None:
        total = _shown_total(adata, matrix)
        if total is None:
            _say(label, f"corrected counts; normalised to {UNITS} as counts are")
            return plain
        _say(label, f"some genes of counts scaled to {total:,.6g} in all genes; rescaled to {UNITS}")
        return replace(plain, units=NORMALIZED, total=total)
    if _constant_totals(linear):
        _say(label, f"log1p of counts scaled to a constant total; rescaled to {UNITS}")
        return as_log
    if _nearly_whole(linear):
        _say(label, f"log1p of counts, which were never scaled; scaled to {UNITS}")
        return replace(plain, is_log_of_counts=True)
    for values, units in ((linear, LOG1P), (matrix, NORMALIZED)):
        total = _shown_total(adata, values)
        if total is not None:
            what = "log1p of counts" if units == LOG1P else "counts"
            _say(label, f"some genes of {what} scaled to {total:,.6g} in all genes; rescaled to {UNITS}")
            return replace(plain, units=units, total=total)
    if len(_values_of_single_counts(matrix)[0]):  # no logarithm: those of 1, 2 and 3 counts are no multiples
        _say(label, f"corrected counts; normalised to {UNITS} as counts are")
        return plain
    if plain.layer != COUNTS_LAYER and _are_counts_of(adata, linear, matrix):
        _say(label, f'values made of the counts in layers["{COUNTS_LAYER}"], which are taken in their place')
        return Reading(COUNTS, COUNTS_LAYER)
    raise ValueError(_undecided(adata, plain.layer, label))


def _undecided(adata: AnnData, layer: str | None, label: str) -> str:
    where = "X" if layer is None else f'layer "{layer}"'
    noted = (
        'uns["log1p"] says that a logarithm was taken, not to which total the counts had been scaled before'
        if "log1p" in adata.uns
        else "they may be corrected counts or a logarithm"
    )
    return (
        f"{where} of {label} does not hold whole numbers, and nothing tells what its values are: {noted}. Pass layer= with "
        f'the counts, or say what they are: units="{COUNTS}" (corrected counts), units="{LOG1P}" (log1p of counts per '
        f'10,000) or units="{NORMALIZED}" (counts per 10,000).'
    )


def _shown_total(adata: AnnData, linear: csr_matrix) -> float | None:
    """Counts to which all spots were scaled before genes were taken away; ``None`` if the values do not show it."""
    spots, singles = _values_of_single_counts(linear)
    if len(np.unique(singles.round(SINGLE_DECIMALS))) < MIN_PROBED_SPOTS:
        return None
    for known in (remembered_totals(adata), column_totals(adata)):
        if known is not None:
            scaled = singles * known[spots]
            total = float(np.median(scaled))
            if np.mean(np.abs(scaled - total) <= RATIO_TOLERANCE * total) >= MIN_AGREEING:
                return total
    at_least = row_sums(linear[spots]) / singles
    halves = np.arange(1, 2 * LARGEST_COMMON_TOTAL + 1) / 2
    few = max(1, len(spots) // MIN_PROBED_SPOTS)
    candidates = halves[_agreeing(halves, singles[::few], at_least[::few]) >= MIN_AGREEING]
    candidates = np.append(candidates, COUNTS_PER_MILLION)
    agreeing = candidates[_agreeing(candidates, singles, at_least) >= MIN_AGREEING]
    return float(agreeing[0]) if len(agreeing) else None


def _agreeing(totals: np.ndarray, singles: np.ndarray, at_least: np.ndarray) -> np.ndarray:
    """Share of the spots that held a whole number of counts, no fewer than they show, if scaled to each of the totals."""
    share = np.zeros(len(totals))
    for single, least in zip(singles, at_least, strict=True):
        counts = totals / single
        share += (np.abs(counts - np.rint(counts)) <= MULTIPLE_TOLERANCE) & (counts >= least - MULTIPLE_TOLERANCE)
    return share / len(singles)


def _values_of_single_counts(linear: csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    """Spots whose values are whole multiples of their smallest one, and that one, which is then that of a single count."""
    n_seen = np.diff(linear.indptr)
    spots, singles = [], []
    for spot in np.argsort(-n_seen, kind="stable")[:PROBED_SPOTS]:
        values = linear.data[linear.indptr[spot] : linear.indptr[spot + 1]]
        values = values[values > 0]
        if len(values) < MIN_PROBED_GENES:
            break
        multiples = np.rint(values / values.min())
        # All values together give that of a single count more exactly than the smallest does.
        single = float(values @ multiples / (multiples @ multiples))
        if (np.abs(values / single - multiples) <= MULTIPLE_TOLERANCE).all():
            spots.append(spot)
            singles.append(single)
    probed = min(PROBED_SPOTS, int((n_seen >= MIN_PROBED_GENES).sum()))
    if len(spots) < max(MIN_PROBED_SPOTS, MIN_AGREEING * probed):
        return np.empty(0, dtype=np.int64), np.empty(0)
    return np.array(spots), np.array(singles)


def _are_counts_of(adata: AnnData, *transformed: csr_matrix) -> bool:
    """Whether the counts layer holds whole numbers of which one of the matrices is a multiple in every spot."""
    if COUNTS_LAYER not in adata.layers:
        return False
    counts = as_csr(adata.layers[COUNTS_LAYER])
    return is_whole(counts) and any(_is_scaled(matrix, counts) for matrix in transformed)


def _is_scaled(matrix: csr_matrix, counts: csr_matrix) -> bool:
    matrix = matrix.copy()
    for each in (matrix, counts):
        each.eliminate_zeros()
        each.sort_indices()
    if not (np.array_equal(matrix.indptr, counts.indptr) and np.array_equal(matrix.indices, counts.indices)):
        return False
    seen = np.diff(counts.indptr) > 0
    ratio = matrix.data / counts.data
    starts = counts.indptr[:-1][seen]
    low, high = np.minimum.reduceat(ratio, starts), np.maximum.reduceat(ratio, starts)
    return bool((high - low <= RATIO_TOLERANCE * high).all())


def _nearly_whole(linear: csr_matrix) -> bool:
    """Whether ``expm1`` gave whole numbers, as far as single precision can tell."""
    values = linear.data[linear.data != 0]  # what is nearly nothing is not a count of nothing
    whole = np.rint(values)
    return bool(np.all(np.abs(values - whole) <= WHOLE_TOLERANCE + WHOLE_PRECISION * whole) and np.all(whole != 0))


def _constant_totals(matrix: csr_matrix) -> bool:
    totals = row_sums(matrix)
    totals = totals[totals > 0]
    return bool(totals.std() <= ROW_SUM_TOLERANCE * totals.mean())


def _say(label: str, assumed: str) -> None:
    _warn(
        f"{label} does not hold whole numbers. Assumed: {assumed}. Pass layer= with the counts, or units=, if that is "
        "wrong."
    )


def _warn(message: str) -> None:
    warn(message, stacklevel=2)
