"""The patches of a slide: how wide they are, so that each shows as much tissue on every slide, and how they are cut.

They are cut by threads while the encoder is at work on those before. Decoding and resizing leave Python's lock alone, as
the encoder does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import inf
from threading import Event
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from spahgc._settings import available_cpus, n_threads_for
from spahgc.image import ImageSource, cut_patch
from spahgc.image._resample import FILTERS
from spahgc.pp._embed.context import Context, scales_on_slide
from spahgc.pp._embed.slide_image import SlideImage
from spahgc.pp._embed.stain import StainNormalizer

if TYPE_CHECKING:
    from spahgc.encoders import EncoderRecord

DEFAULT_INTERPOLATION = "bicubic"
"""Filter for encoders whose record names none that exists here."""
MIN_PATCH_PX = 4.0
"""Width in slide pixels below which a patch shows nothing."""
MAX_UPSIZE = 4
"""A patch may be wider than the whole slide up to this many times the encoder's input; more is a wrong unit."""
PATCHES_PER_TASK = 8
"""Patches that a worker cuts in one go: neighbours, which lie on the same tiles of the image."""
MAX_DEFAULT_WORKERS = 8
"""A tenth of the work on a patch holds Python's lock, so that more workers than this wait for each other."""

Cut: TypeAlias = tuple[NDArray[np.int64], float, tuple[float, float]]
"""Rows of the spots of a batch, the scale of its patches, and (x, y) by which they lie off the centres, pixels of the image."""

CENTRED = (0.0, 0.0)
"""A patch lies around the centre of its spot."""

PatchBatch: TypeAlias = tuple[NDArray[np.uint8], NDArray[np.bool_]]
"""Patches, n x side x side x 3, and whether each of them reaches past the image and was padded."""


def record_used(record: EncoderRecord, patch_um: float | None, stain: str) -> EncoderRecord:
    """Enter into the record what this call does otherwise than the encoder's publishers."""
    if record.interpolation not in FILTERS:
        record = replace(record, interpolation=DEFAULT_INTERPOLATION)
    return replace(record, mpp=needed_mpp(record, patch_um), stain=stain)


def needed_mpp(record: EncoderRecord, patch_um: float | None) -> float | None:
    """Microns per pixel of the encoder's input; ``None`` where it takes the slide's own resolution."""
    return record.mpp if patch_um is None else float(patch_um) / record.input_px


def patch_widths(
    slide: SlideImage, record: EncoderRecord, patch_um: float | None, context: Context
) -> tuple[float, tuple[float, ...]]:
    """Width of the encoder's own patch in pixels of the slide, and those of all patches as multiples of it.

    Wider ones may reach past the slide as far as they like.

    Raises
    ------
    ValueError
        If the resolution of the slide is needed but not known, or if the width makes no sense on this slide.
    """
    width = float(record.input_px * slide.scale)
    if patch_um is not None or record.mpp is not None:
        width_um = float(patch_um) if patch_um is not None else record.input_px * float(record.mpp or 0)
        if slide.mpp is None:
            problem = "" if slide.mpp_problem is None else f" ({slide.mpp_problem})"
            raise ValueError(
                f'the resolution of slide "{slide.name}" is not known{problem}, but a patch has to be {width_um:g} um wide '
                f"(encoder {record.name}). Pass mpp= with the microns per pixel of the full-resolution image, e.g. "
                "mpp=0.5."
            )
        width = width_um / slide.mpp
        widest = max(slide.height, slide.width, MAX_UPSIZE * record.input_px)
        if not MIN_PATCH_PX <= width <= widest:
            raise ValueError(
                f'a patch of {width_um:g} um is {width:.4g} px wide on slide "{slide.name}" ({slide.width} x '
                f"{slide.height} px, {slide.mpp:.4g} um per pixel). Is that resolution right? Pass mpp= with microns per "
                "pixel of the full-resolution image."
            )
    scales = scales_on_slide(context, None if slide.mpp is None else width * slide.mpp, f'slide "{slide.name}"')
    narrowest = min(scales)
    if width * narrowest < MIN_PATCH_PX:
        raise ValueError(
            f'at scale {narrowest:g} of the context a patch is {width * narrowest:.3g} px wide on slide "{slide.name}", '
            f"less than the {MIN_PATCH_PX:g} px that show anything. Pass scales of at least {MIN_PATCH_PX / width:.3g}."
        )
    return width, scales


@dataclass(frozen=True)
class PatchCutter:
    """How the patches of a slide are cut.

    Parameters
    ----------
    xy
        Spot centres, spots x 2, pixels of the image.
    width_px
        Width of a patch of scale 1, pixels of the image.
    out_px
        Width of a patch that the encoder gets, pixels.
    interpolation
        Filter by which it is resized.
    scales
        Widths of all patches of a spot, multiples of the first.
    normalizer
        What is done to the colours of a patch; ``None`` for nothing.
    """

    xy: NDArray[np.float64]
    width_px: float
    out_px: int
    interpolation: str
    scales: tuple[float, ...] = (1.0,)
    normalizer: StainNormalizer | None = None

    def cut(self, image: ImageSource, rows: NDArray[np.int64], scale: float = 1.0) -> PatchBatch:
        """Cut the patches of some spots, `scale` times as wide as those of scale 1."""
        batch = self.empty(len(rows))
        self.cut_into(batch, slice(None), image, (rows, scale, CENTRED), Event())
        return batch

    def empty(self, n: int) -> PatchBatch:
        """Room for some patches."""
        return np.empty((n, self.out_px, self.out_px, 3), dtype=np.uint8), np.zeros(n, dtype=bool)

    def cut_into(self, batch: PatchBatch, part: slice, image: ImageSource, cut: Cut, stopped: Event) -> None:
        """Fill a part of a batch; what is left when `stopped` is set stays empty."""
        patches, padded = batch
        rows, scale, offset = cut
        for index in range(len(rows))[part]:
            if stopped.is_set():
                return
            patch, padded[index] = cut_patch(
                image,
                self.xy[rows[index]] + offset,
                width_px=self.width_px * scale,
                out_px=self.out_px,
                interpolation=self.interpolation,
            )
            patches[index] = patch if self.normalizer is None else self.normalizer(patch)


@contextmanager
def prefetched_patches(
    cutter: PatchCutter, image: ImageSource, batches: Iterable[Cut], n_workers: int
) -> Iterator[Iterator[PatchBatch]]:
    """Patches of one batch after the other, those of the next one cut while the caller is busy with the last.

    Threads share a batch, so that no more than three are in memory and the patches are the same whatever their number.
    An error reaches the caller where it asks for the patches, that of the first spot if there are several; and when the
    caller leaves, for whatever reason, the threads end before the image is closed.

    Parameters
    ----------
    cutter
        How patches are cut.
    image
        The image; its ``read`` is called from all threads.
    batches
        What is cut, a batch each.
    n_workers
        Number of threads.
    """
    stopped = Event()
    pool = ThreadPoolExecutor(n_workers, thread_name_prefix="spahgc-patches")

    def submit(cut: Cut) -> tuple[PatchBatch, list[Future[None]]]:
        n_patches = len(cut[0])
        batch = cutter.empty(n_patches)
        parts = [slice(start, start + PATCHES_PER_TASK) for start in range(0, n_patches, PATCHES_PER_TASK)]
        return batch, [pool.submit(cutter.cut_into, batch, part, image, cut, stopped) for part in parts]

    def in_order() -> Iterator[PatchBatch]:
        pending: deque[tuple[PatchBatch, list[Future[None]]]] = deque()
        for cut in batches:
            pending.append(submit(cut))
            if len(pending) > 1:
                yield _finished(*pending.popleft())
        while pending:
            yield _finished(*pending.popleft())

    try:
        yield in_order()
    finally:
        stopped.set()
        pool.shutdown(wait=True, cancel_futures=True)


def _finished(batch: PatchBatch, tasks: list[Future[None]]) -> PatchBatch:
    for task in tasks:
        task.result()
    return batch


def default_workers(device: str) -> int:
    """Threads that cut patches: as many as there are processors that the encoder leaves, at least one."""
    left = available_cpus() - (n_threads_for(inf) if device == "cpu" else 0)
    return min(max(1, left), MAX_DEFAULT_WORKERS)
