"""How well small windows of one section fit onto another, at every shift within reach: the ground of refinement and quality."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy import fft, ndimage

from spahgc.pp._register.laying import Bend, lay
from spahgc.pp._register.picture import Matrix
from spahgc.pp._register.structure import Floats, Structure

WINDOW_UM = 280.0
"""Half the side of a window: a gland or a layer with its surroundings."""
MIN_OVERLAP = 0.5
"""Share of a window that is tissue of both sections, at least."""
MIN_OVERLAP_OF_EDGE = 0.25
"""The same where the edge of the tissue is compared as well."""
MIN_COVER = 0.4
"""Share of that overlap that a shift must keep to be compared."""
MIN_VARIANCE = 0.02
"""Variance of the structure in a window, of 1 nearby, below which a window counts as this."""
MAX_REACH_PX, MAX_WINDOW_PX = 24, 28
"""Limits in pixels, where the resolution is not known and the guess is off."""


@dataclass(frozen=True, eq=False)
class Matches:
    """Windows of the fixed section, and how they fit at every shift of the moving one."""

    places: NDArray[np.int64]
    """Centres (x, y) on the fixed picture, windows x 2."""
    correlation: Floats
    """Windows x shifts in y x shifts in x; mean over the channels, -1 where too little tissue is compared."""
    pixel_um: float

    def __len__(self) -> int:
        return len(self.places)

    @property
    def reach(self) -> int:
        """Largest shift in pixels."""
        return self.correlation.shape[1] // 2

    @property
    def best(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Shift (x, y) of each window at which it fits best, pixels, and the correlation there."""
        width = self.correlation.shape[2]
        flat = self.correlation.reshape(len(self), -1)
        place = flat.argmax(1)
        shift = np.column_stack([place % width, place // width]) - self.reach
        return shift.astype(np.float64), flat.max(1).astype(np.float64)


def match_windows(
    fixed: Structure,
    moving: Structure,
    matrix: Matrix,
    bend: Bend | None = None,
    *,
    reach_um: float,
    spacing_um: float,
    outline: bool = False,
    n_channels: int | None = None,
) -> Matches:
    """Correlate windows of the fixed section with the moving one, laid over it by `matrix`.

    Parameters
    ----------
    fixed, moving
        The sections.
    matrix
        From pixels of the moving picture to those of the fixed one.
    bend
        What bends it there.
    reach_um
        Largest shift.
    spacing_um
        Distance of the windows.
    outline
        Add the correlation of the tissues' edges, where there is one in a window, to that of what is inside.
    n_channels
        How many channels of the structure are compared; ``None`` for all.
    """
    um = fixed.pixel_um
    half = int(np.clip(round(WINDOW_UM / um), 3, MAX_WINDOW_PX))
    reach = int(np.clip(round(reach_um / um), 2, MAX_REACH_PX))
    spacing = max(2, round(spacing_um / um))
    height, width = fixed.tissue.shape
    laid = lay([moving.tissue, moving.known, moving.outline, *moving.bands[:n_channels]], matrix, (height, width), bend)
    tissue = laid[0].clip(0, 1)
    rows, columns = (axis.ravel() for axis in np.mgrid[spacing // 2 : height : spacing, spacing // 2 : width : spacing])
    overlap = ndimage.uniform_filter(fixed.tissue * tissue, 2 * half + 1, mode="constant")
    enough = overlap[rows, columns] > (MIN_OVERLAP_OF_EDGE if outline else MIN_OVERLAP)
    rows, columns = rows[enough], columns[enough]
    places = np.column_stack([columns, rows])
    n_shifts = 2 * reach + 1
    if not len(places):
        return Matches(places, np.zeros((0, n_shifts, n_shifts), dtype=np.float32), um)
    windows = _Windows((rows, columns), half, reach)
    correlation = windows.correlate(fixed.bands[:n_channels], laid[3:], fixed.tissue, tissue)
    if outline:
        correlation += windows.correlate(fixed.outline[None], laid[2:3], fixed.known, laid[1].clip(0, 1)).clip(-1, 1)
    return Matches(places, correlation, um)


@dataclass(frozen=True, eq=False)
class _Windows:
    """Windows around some centres, and the shifts at which they are compared."""

    centres: tuple[NDArray[np.int64], NDArray[np.int64]]
    """Rows and columns."""
    half: int
    reach: int

    @property
    def side(self) -> int:
        """Of the Fourier transform, pixels."""
        return int(fft.next_fast_len(2 * (self.half + self.reach) + 1, real=True))

    def cut(self, image: Floats, margin: int) -> Floats:
        """Windows of an image, windows x rows x columns."""
        return sliding_window_view(np.pad(image, margin), (2 * margin + 1, 2 * margin + 1))[self.centres]

    def spectrum(self, windows: Floats) -> NDArray[np.complex64]:
        """Fourier transform of each; the rows beyond the window are zero, and are not transformed one by one."""
        rows = fft.rfft(windows, self.side, axis=2)
        return fft.fft(rows, self.side, axis=1, overwrite_x=True)

    def sums(self, product: NDArray[np.complex64]) -> Floats:
        """Sums of products at every shift; rows of shifts out of reach are not transformed back."""
        n_shifts = 2 * self.reach + 1
        rows = fft.ifft(product, axis=1, norm="forward")[:, :n_shifts]
        found = fft.irfft(rows, self.side, axis=2, norm="forward")[:, :, :n_shifts]
        return found * np.float32(1 / self.side**2)

    def correlate(self, here: Floats, there: Floats, mask_here: Floats, mask_there: Floats) -> Floats:
        """Masked, weighted correlation at every shift, mean over the channels; -1 where too little is compared."""
        cut, spectrum, sums = self.cut, self.spectrum, self.sums
        far = self.half + self.reach
        profile = np.hanning(2 * self.half + 3)[1:-1]
        weights = cut(mask_here, self.half) * np.outer(profile, profile).astype(np.float32)
        weights_seen, mask_seen = np.conj(spectrum(weights)), spectrum(cut(mask_there, far))
        total = sums(mask_seen * weights_seen) + 1e-3
        correlation = np.zeros_like(total)
        for fixed, moving in zip(here, there, strict=True):
            a, b = cut(fixed, self.half), cut(moving * mask_there, far)
            weighted, b_seen = np.conj(spectrum(a * weights)), spectrum(b)
            mean_a, mean_b = sums(mask_seen * weighted) / total, sums(b_seen * weights_seen) / total
            square_a = sums(mask_seen * np.conj(spectrum(a * a * weights))) / total
            square_b = sums(spectrum(b * b) * weights_seen) / total
            variance_a = np.maximum(square_a - mean_a**2, MIN_VARIANCE)
            variance_b = np.maximum(square_b - mean_b**2, MIN_VARIANCE)
            correlation += (sums(b_seen * weighted) / total - mean_a * mean_b) / np.sqrt(variance_a * variance_b)
        correlation /= len(here)
        correlation[total < MIN_COVER * total.max((1, 2), keepdims=True)] = -1
        return correlation
