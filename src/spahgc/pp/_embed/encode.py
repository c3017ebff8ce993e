"""One slide through an encoder, batch by batch, from where an earlier run ended."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spahgc._settings import limited_threads, progress_bar
from spahgc.encoders._areas import Areas, encode_areas
from spahgc.image._brightfield import check_patches
from spahgc.pp._embed.checkpoint import EmbeddingCheckpoint, fingerprint
from spahgc.pp._embed.columns import Columns
from spahgc.pp._embed.context import Context
from spahgc.pp._embed.patches import PatchCutter, prefetched_patches
from spahgc.pp._embed.reading_order import reading_order
from spahgc.pp._embed.samples import Look, looks_of
from spahgc.pp._embed.slide_image import SlideImage, opened_image
from spahgc.pp._embed.spot_areas import SpotAreas
from spahgc.pp._embed.tiles import Tiles

if TYPE_CHECKING:
    from spahgc.encoders import Encoder, EncoderRecord
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
    samples
        Patches of the encoder's own width within a spot.
    map_channels
        Channels of the last map, where spots share tiles; ``None`` where each has patches of its own.
    batch_size
        Spots, or tiles, whose patches go through the encoder at once.
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
    samples: int
    map_channels: int | None
    batch_size: int
    n_workers: int
    device: str
    resume: Path | None

    @property
    def n_columns_per_scale(self) -> int:
        """Numbers that one patch makes."""
        return self.encoder.record.dim + self.levels.n_columns

    @property
    def n_columns_of_areas(self) -> int:
        """Numbers that stand before those of the patches."""
        return 0 if self.map_channels is None else self.map_channels + sum(self.levels.widths)

    @property
    def record(self) -> EncoderRecord:
        """The record of the embedding, whose `dim` are its own columns."""
        record = self.encoder.record
        return record if self.map_channels is None else replace(record, dim=self.map_channels)


@dataclass(frozen=True, eq=False)
class SlidePatches:
    """What is cut of a slide, and for whom.

    Parameters
    ----------
    slide
        The slide.
    cutter
        How patches are cut: around spots, or around the middle of tiles.
    areas
        Areas of the spots, where they matter.
    tiles
        The tiles that spots share, if they do.
    """

    slide: SlideImage
    cutter: PatchCutter
    areas: SpotAreas | None = None
    tiles: Tiles | None = None

    def spots_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The spots that patches show."""
        return rows if self.tiles is None else self.tiles.points_of(rows)

    def for_spots(self, rows: NDArray[np.int64], values: NDArray[Any]) -> NDArray[Any]:
        """What was found of patches, for the spots that they show."""
        return values if self.tiles is None else np.repeat(values, self.tiles.n_points[rows], axis=0)

    def all_done(self, done: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Patches that are not needed any more, since all of their spots are done."""
        return done if self.tiles is None else self.tiles.all_done(done)


def encode_slide(patches_of: SlidePatches, config: EmbeddingConfig) -> tuple[Columns, NDArray[np.bool_]]:
    """Cut and encode the patches of a slide.

    Returns
    -------
    Features, spots x columns, scale by scale; and which patches were padded, spots x scales.

    Raises
    ------
    UnusableImageError
        If the first patches show that the image cannot be H&E; before any is encoded.
    """
    slide, cutter = patches_of.slide, patches_of.cutter
    n_spots, scales = len(slide.xy), cutter.scales
    lead, width = config.n_columns_of_areas, config.n_columns_per_scale
    features = Columns(n_spots, config.record.dim, lead + len(scales) * width)
    padded = np.zeros((n_spots, len(scales)), dtype=bool)
    done, checkpoint = np.zeros(n_spots, dtype=bool), None
    diameter_px = 0.0 if patches_of.areas is None else patches_of.areas.diameter_px
    looks = looks_of(scales, config.samples, diameter_px)
    with opened_image(slide.source) as image:
        if config.resume is not None:
            encoder = replace(config.encoder, record=config.record)
            inputs = fingerprint(slide, image, cutter, encoder, config.context, config.levels, patches_of.areas)
            checkpoint = EmbeddingCheckpoint(config.resume, slide.name, config.key, inputs)
            done = checkpoint.read(features, padded)
        needless = patches_of.all_done(done)
        order = reading_order(cutter.xy, cutter.width_px)
        # The same boundaries as in a run that was not interrupted: rounding differs between sizes of batches.
        batches = [order[start : start + config.batch_size] for start in range(0, len(order), config.batch_size)]
        batches = [rows[~needless[rows]] for rows in batches]
        # All patches of a batch before the next one: they show the same part of the image.
        tasks = [(rows, look) for rows in batches if len(rows) for look in looks]
        with (
            limited_threads(inf),  # no pass through an encoder is too small to share
            progress_bar(total=n_spots, initial=int(done.sum()), unit="point", desc=slide.name) as progress,
            prefetched_patches(
                cutter, image, [(rows, look.scale, look.offset_px) for rows, look in tasks], config.n_workers
            ) as patches,
        ):
            for number, ((rows, look), (batch, reach_past)) in enumerate(zip(tasks, patches, strict=True)):
                if number == 0 and cutter.normalizer is None:  # else it was looked at before its colours were changed
                    check_patches(batch, reach_past, f'the image of slide "{slide.name}"')
                spots = patches_of.spots_of(rows)
                padded[spots, look.block] |= patches_of.for_spots(rows, reach_past)
                start, values = _encoded(patches_of, rows, look, batch, config)
                if look.share < 1:
                    values = values * np.float32(look.share)
                    if not look.is_first:
                        values += features.rows(spots)[:, start : start + width]
                features.put(spots, start, values)
                if look.is_last:
                    progress.update(len(spots) - int(done[spots].sum()))
                    if checkpoint is not None:
                        checkpoint.write(spots, features.rows(spots), padded[spots])
    return features, padded


def _encoded(
    patches_of: SlidePatches, rows: NDArray[np.int64], look: Look, batch: NDArray[np.uint8], config: EmbeddingConfig
) -> tuple[int, NDArray[np.float32]]:
    """What the encoder makes of a batch, for the spots that it shows, and the first column of it."""
    if look.block == 0 and patches_of.tiles is not None and patches_of.areas is not None:
        areas = patches_of.tiles.areas(rows, patches_of.areas)
        return 0, _encode_tiles(config.encoder, batch, areas, device=config.device, levels=config.levels)
    values = encode_batch(
        config.encoder,
        batch,
        device=config.device,
        levels=config.levels,
        rotations=config.context.rotations,
        turn_output=look.block > 0,  # the first output stays upright: it is the embedding without a context
    )
    return config.n_columns_of_areas + look.block * config.n_columns_per_scale, patches_of.for_spots(rows, values)


def _encode_tiles(
    encoder: Encoder, tiles: NDArray[np.uint8], areas: Areas, *, device: str, levels: Levels
) -> NDArray[np.float32]:
    """What the encoder makes of the areas in a batch of tiles, on a CPU in pieces."""
    at_once = _at_once(device, len(tiles))
    return np.concatenate(
        [
            encode_areas(
                encoder,
                tiles[start : start + at_once],
                areas.of_tiles(start, start + at_once),
                device=device,
                levels=levels,
            )
            for start in range(0, len(tiles), at_once)
        ]
    )


def _at_once(device: str, n_patches: int) -> int:
    """Patches that go through a network at once."""
    import torch

    return max(AT_ONCE_ON_CPU, torch.get_num_threads()) if device == "cpu" else n_patches


def encode_batch(
    encoder: Encoder, patches: NDArray[np.uint8], *, device: str, levels: Levels, rotations: int, turn_output: bool
) -> NDArray[np.float32]:
    """What the encoder makes of a batch, on a CPU in pieces."""
    at_once = _at_once(device, len(patches))
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
