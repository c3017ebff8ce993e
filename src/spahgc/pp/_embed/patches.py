"""The patches of a slide, cut in a thread of their own while the encoder is at work on those before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event

import numpy as np
from numpy.typing import NDArray

from spahgc.image import ImageSource, cut_patch
from spahgc.pp._embed.stain import Stain

Cut = tuple[NDArray[np.uint8], NDArray[np.bool_]]
"""Patches, n x side x side x 3, and whether each of them reaches past the image and was padded."""
Job = tuple[NDArray[np.int64], float]
"""Spots whose patches are wanted, and the scale of these patches."""


@dataclass(frozen=True)
class Cutter:
    """How the patches of a slide are cut.

    Parameters
    ----------
    xy
        Spot centres, spots x 2, pixels of the image.
    width_px
        Width of a patch of scale 1, pixels of the image.
    side
        Width of a patch that the encoder gets, pixels.
    interpolation
        Filter by which it is resized.
    recolour
        What is done to the colours of a patch; ``None`` for nothing.
    """

    xy: NDArray[np.float64]
    width_px: float
    side: int
    interpolation: str
    recolour: Stain | None = None

    def cut(self, image: ImageSource, job: Job, stopped: Event | None = None) -> Cut:
        """Cut some patches; those that are left when `stopped` is set are not wanted any more, and stay empty."""
        rows, scale = job
        patches = np.empty((len(rows), self.side, self.side, 3), dtype=np.uint8)
        padded = np.zeros(len(rows), dtype=bool)
        for place, row in enumerate(rows):
            if stopped is not None and stopped.is_set():
                break
            patch, padded[place] = cut_patch(
                image,
                self.xy[row],
                width_px=self.width_px * scale,
                out_px=self.side,
                interpolation=self.interpolation,
            )
            patches[place] = patch if self.recolour is None else self.recolour(patch)
        return patches, padded


@contextmanager
def cut_ahead(cutter: Cutter, image: ImageSource, jobs: Sequence[Job]) -> Iterator[Iterator[Cut]]:
    """Patches of one job after the other, those of the next one cut while the caller is busy with the last.

    Decoding and resizing leave Python's lock alone, as the encoder does. An error of the thread reaches the caller where
    it asks for the patches; and when the caller leaves, for whatever reason, the thread ends before the image is closed.
    """
    stopped = Event()
    pool = ThreadPoolExecutor(1, thread_name_prefix="spahgc-patches")

    def submit(job: Job) -> Future[Cut]:
        return pool.submit(cutter.cut, image, job, stopped)

    def in_turn() -> Iterator[Cut]:
        waiting: Future[Cut] | None = None
        for job in jobs:
            following = submit(job)
            if waiting is not None:
                yield waiting.result()
            waiting = following
        if waiting is not None:
            yield waiting.result()

    try:
        yield in_turn()
    finally:
        stopped.set()
        pool.shutdown(wait=True, cancel_futures=True)
