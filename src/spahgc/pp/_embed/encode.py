"""One slide through an encoder, batch by batch, from where an earlier run ended."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spahgc._settings import progress_bar
from spahgc.pp._embed.checkpoint import EmbeddingCheckpoint, fingerprint
from spahgc.pp._embed.context import Context
from spahgc.pp._embed.patches import Cutter, cut_ahead
from spahgc.pp._embed.slide_image import SlideImage, opened_image

if TYPE_CHECKING:
    from spahgc.encoders import Encoder
    from spahgc.encoders._layout import Levels
    from spahgc.image import ImageSource

AT_ONCE_ON_CPU = 8
"""Patches that go through a network on a CPU at once, or one for each thread if these are more.

What a network computes in between then stays near the processor: EfficientNet-Lite0 takes 22 ms an image on one core,
28 ms in pieces of 16, 35 ms in pieces of 32, and a fifth of the memory that it takes for 64.
"""


@dataclass(frozen=True)
class Run:
    """What is the same for all slides of a call.

    Parameters
    ----------
    encoder
        The encoder, with the record of this call.
    context, levels
        What its columns show beside its output for the patch itself.
    key
        Key of the embedding.
    batch_size
        Spots whose patches go through the encoder at once.
    device
        Torch device.
    resume
        Folder in which finished batches are kept; ``None`` keeps none.
    """

    encoder: Encoder
    context: Context
    levels: Levels
    key: str
    batch_size: int
    device: str
    resume: Path | None

    @property
    def columns_of_scale(self) -> int:
        """Numbers that one patch makes."""
        return self.encoder.record.dim + self.levels.n_columns


def encode_slide(slide: SlideImage, cutter: Cutter, run: Run) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Cut and encode the patches of a slide.

    Returns
    -------
    Features, spots x columns, scale by scale; and which patches were padded, spots x scales.
    """
    n_spots, scales = len(slide.xy), run.context.scales
    features = np.empty((n_spots, len(scales) * run.columns_of_scale), dtype=np.float32)
    padded = np.zeros((n_spots, len(scales)), dtype=bool)
    done = np.zeros(n_spots, dtype=bool)
    with opened_image(slide.source) as image:
        parts = None if run.resume is None else _parts(slide, image, cutter, run, run.resume)
        if parts is not None:
            done = parts.read(features, padded)
        starts = range(0, n_spots, run.batch_size)
        # The same boundaries as in a run that was not interrupted: rounding differs between sizes of batches.
        batches = [np.flatnonzero(~done[start : start + run.batch_size]) + start for start in starts]
        _encode(slide.name, image, cutter, run, [rows for rows in batches if len(rows)], features, padded, parts)
    return features, padded


def _parts(slide: SlideImage, image: ImageSource, cutter: Cutter, run: Run, root: Path) -> EmbeddingCheckpoint:
    made_with = fingerprint(slide, image, cutter, run.encoder, run.context, run.levels)
    return EmbeddingCheckpoint(root, slide.name, run.key, made_with)


def _encode(
    name: str,
    image: ImageSource,
    cutter: Cutter,
    run: Run,
    batches: list[NDArray[np.int64]],
    features: NDArray[np.float32],
    padded: NDArray[np.bool_],
    parts: EmbeddingCheckpoint | None,
) -> None:
    """Fill in the rows of some batches."""
    scales = run.context.scales
    # All scales of a batch before the next one: they show the same part of the image.
    jobs = [(rows, scale) for rows in batches for scale in scales]
    finished = len(features) - sum(len(rows) for rows in batches)
    with (
        progress_bar(total=padded.size, initial=finished * len(scales), unit="patch", desc=name) as progress,
        cut_ahead(cutter, image, jobs) as cuts,
    ):
        for number, (patches, reach_past) in enumerate(cuts):
            rows, place = jobs[number][0], number % len(scales)
            padded[rows, place] = reach_past
            columns = slice(place * run.columns_of_scale, (place + 1) * run.columns_of_scale)
            # The first output stays upright: it is the embedding without a context.
            features[rows, columns] = encode_batch(
                run.encoder,
                patches,
                device=run.device,
                levels=run.levels,
                rotations=run.context.rotations,
                turn_output=place > 0,
            )
            progress.update(len(rows))
            if parts is not None and place == len(scales) - 1:
                parts.write(rows, features[rows], padded[rows])


def encode_batch(
    encoder: Encoder, patches: NDArray[np.uint8], *, device: str, levels: Levels, rotations: int, turn_output: bool
) -> NDArray[np.float32]:
    """What the encoder makes of a batch, on a CPU in pieces."""
    import torch

    at_once = max(AT_ONCE_ON_CPU, torch.get_num_threads()) if device == "cpu" else len(patches)
    pieces = [
        encoder.encode(
            patches[start : start + at_once],
            device=device,
            levels=levels,
            rotations=rotations,
            turn_output=turn_output,
        )
        for start in range(0, len(patches), at_once)
    ]
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
