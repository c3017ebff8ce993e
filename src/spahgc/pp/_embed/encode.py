"""One slide through an encoder, batch by batch, from where an earlier run ended."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spahgc._settings import limited_threads, progress_bar
from spahgc.image._brightfield import check_patches
from spahgc.pp._embed.checkpoint import EmbeddingCheckpoint, fingerprint
from spahgc.pp._embed.context import Context
from spahgc.pp._embed.patches import PatchCutter, prefetched_patches
from spahgc.pp._embed.slide_image import SlideImage, opened_image

if TYPE_CHECKING:
    from spahgc.encoders import Encoder
    from spahgc.encoders._layout import Levels

AT_ONCE_ON_CPU = 8
"""Patches that go through a network on a CPU at once, or one for each thread if these are more.

What a network computes in between then stays near the processor: EfficientNet-Lite0 takes 22 ms an image on one core,
28 ms in pieces of 16, 35 ms in pieces of 32, and a fifth of the memory that it takes for 64.
"""


@dataclass(frozen=True)
class EmbeddingConfig:
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
    n_workers
        Threads that cut patches.
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
    n_workers: int
    device: str
    resume: Path | None

    @property
    def n_columns_per_scale(self) -> int:
        """Numbers that one patch makes."""
        return self.encoder.record.dim + self.levels.n_columns


def encode_slide(
    slide: SlideImage, cutter: PatchCutter, config: EmbeddingConfig
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Cut and encode the patches of a slide.

    Returns
    -------
    Features, spots x columns, scale by scale; and which patches were padded, spots x scales.

    Raises
    ------
    UnusableImageError
        If the first patches show that the image cannot be H&E; before any is encoded.
    """
    n_spots, scales, width = len(slide.xy), cutter.scales, config.n_columns_per_scale
    features = np.empty((n_spots, len(scales) * width), dtype=np.float32)
    padded = np.zeros((n_spots, len(scales)), dtype=bool)
    done, checkpoint = np.zeros(n_spots, dtype=bool), None
    with opened_image(slide.source) as image:
        if config.resume is not None:
            inputs = fingerprint(slide, image, cutter, config.encoder, config.context, config.levels)
            checkpoint = EmbeddingCheckpoint(config.resume, slide.name, config.key, inputs)
            done = checkpoint.read(features, padded)
        starts = range(0, n_spots, config.batch_size)
        # The same boundaries as in a run that was not interrupted: rounding differs between sizes of batches.
        batches = [np.flatnonzero(~done[start : start + config.batch_size]) + start for start in starts]
        # All scales of a batch before the next one: they show the same part of the image.
        tasks = [(rows, index) for rows in batches if len(rows) for index in range(len(scales))]
        with (
            limited_threads(inf),  # no pass through an encoder is too small to share
            progress_bar(
                total=padded.size, initial=int(done.sum()) * len(scales), unit="patch", desc=slide.name
            ) as progress,
            prefetched_patches(
                cutter, image, [(rows, scales[index]) for rows, index in tasks], config.n_workers
            ) as patches,
        ):
            for number, ((rows, index), (batch, reach_past)) in enumerate(zip(tasks, patches, strict=True)):
                if number == 0 and cutter.normalizer is None:  # else it was looked at before its colours were changed
                    check_patches(batch, reach_past, f'the image of slide "{slide.name}"')
                padded[rows, index] = reach_past
                # The first output stays upright: it is the embedding without a context.
                features[rows, index * width : (index + 1) * width] = encode_batch(
                    config.encoder,
                    batch,
                    device=config.device,
                    levels=config.levels,
                    rotations=config.context.rotations,
                    turn_output=index > 0,
                )
                progress.update(len(rows))
                if checkpoint is not None and index == len(scales) - 1:
                    checkpoint.write(rows, features[rows], padded[rows])
    return features, padded


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
