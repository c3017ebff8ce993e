"""What a call of ``embed`` asks for, and what it means for slides, an encoder and patches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spahgc._keys import PATCH_CONTEXT, Obsm
from spahgc._validate import check_key_of_embedding
from spahgc.image._brightfield import check_brightfield, sample_around
from spahgc.pp._embed.context import PATCH_ALONE, Context, context_for, with_context
from spahgc.pp._embed.encode import EmbeddingConfig, SlidePatches
from spahgc.pp._embed.inputs import InputSlide
from spahgc.pp._embed.patches import PatchCutter, default_workers, needed_mpp, patch_widths, record_used
from spahgc.pp._embed.samples import sampling_text
from spahgc.pp._embed.slide_image import ImageRequirements, SlideImage, Source, opened_image
from spahgc.pp._embed.spot_areas import SpotAreas, areas_of_spots
from spahgc.pp._embed.stain import PatchFunction, StainNormalizer, fit_stain, stain_name
from spahgc.pp._embed.tiles import SAMPLING, Tiles

if TYPE_CHECKING:
    from spahgc.encoders import Encoder, EncoderRecord


@dataclass(frozen=True)
class Asked:
    """What a call asks for, under the names of its arguments; numbers were checked.

    Raises
    ------
    TypeError, ValueError
        If they do not go together.
    """

    image: Source | None
    mpp: float | None
    context: Context | None
    dense: bool
    samples: int
    key_added: str | None
    patch_um: float | None
    allow_upsampling: bool
    stain_normalization: str | PatchFunction | None
    batch_size: int
    n_workers: int | None

    def __post_init__(self) -> None:
        if not isinstance(self.dense, bool | np.bool_):
            raise TypeError(
                f"dense is {self.dense!r}; pass True for tiles that points share, or False for a patch a point"
            )
        if self.dense and self.samples > 1:
            raise ValueError(
                f"dense=True looks at all of a point's area already, and samples={self.samples} was asked for as well. Pass "
                "one of them."
            )
        if self.dense and self.context is not None and self.context.rotations > 1:
            raise ValueError(
                f"dense=True takes a tile as it lies, and a context of {self.context.rotations} turns was asked for. Pass "
                "context=Context(scales=(1, 2, 4), rotations=1), or leave context= out."
            )
        stain_name(self.stain_normalization)

    def images(self, inputs: Sequence[InputSlide], record: EncoderRecord | None) -> list[SlideImage]:
        """The image of every slide, checked for an encoder; for any where its record is not known yet."""
        from spahgc.encoders._registry import takes_any_resolution

        requirements = ImageRequirements()
        if record is not None:
            needed = needed_mpp(record, self.patch_um)
            requirements = ImageRequirements(needed, self.allow_upsampling, takes_any_resolution(record))
        return [each.check(self.image, self.mpp, index, requirements) for index, each in enumerate(inputs)]

    def areas(self, inputs: Sequence[InputSlide], slides: Sequence[SlideImage]) -> list[SpotAreas | None]:
        """Areas of the spots of every slide, where they matter."""
        matter = self.dense or self.samples > 1
        return [areas_of_spots(*pair) if matter else None for pair in zip(inputs, slides, strict=True)]

    def key(self, record: EncoderRecord) -> str:
        """Key of the embedding."""
        return Obsm.embedding(record.name) if self.key_added is None else self.key_added

    def check(self, inputs: Sequence[InputSlide], slides: Sequence[SlideImage], record: EncoderRecord) -> None:
        """Refuse an encoder whose context, key or patches do not fit what is asked for or what a slide holds."""
        planned = context_for(record, self.context)
        if self.dense and record.context != PATCH_CONTEXT:
            raise ValueError(
                f'encoder "{record.name}" has a context of its own ("{record.context}"), and dense=True would show another '
                "one. Leave dense= out."
            )
        with_context = self.dense or planned != PATCH_ALONE
        for each, slide in zip(inputs, slides, strict=True):
            of_slide = f'slide "{slide.name}"'
            check_key_of_embedding(each.table, self.key(record), of_slide, with_context=with_context)
        for slide in slides:
            patch_widths(slide, record, self.patch_um, planned)

    def config(self, loaded: Encoder, device: str, folder: Path | None) -> EmbeddingConfig:
        """What is the same for all slides, with the encoder that was loaded."""
        from spahgc.encoders._areas import find_map
        from spahgc.encoders._levels import find_levels, levels_if_any, refuse_oblong_input

        planned = context_for(loaded.record, self.context)
        used = replace(loaded, record=record_used(loaded.record, self.patch_um, stain_name(self.stain_normalization)))
        if planned.rotations > 1:
            refuse_oblong_input(used, device=device)
        choose_levels = levels_if_any if self.context is None else find_levels
        levels = choose_levels(used, planned.depths, device=device)
        channels = find_map(used, levels, device=device) if self.dense else None
        written = with_context(used.record, planned, levels.widths, shared_tiles=self.dense)
        used = replace(used, record=replace(written, sampling=SAMPLING if self.dense else sampling_text(self.samples)))
        n_workers = default_workers(device) if self.n_workers is None else int(self.n_workers)
        key, batch_size = self.key(used.record), int(self.batch_size)
        return EmbeddingConfig(
            used, planned, levels, key, self.samples, channels, batch_size, n_workers, device, folder
        )

    def patches(self, slide: SlideImage, areas: SpotAreas | None, config: EmbeddingConfig) -> SlidePatches:
        """What is cut of a slide."""
        record = config.encoder.record
        width, scales = patch_widths(slide, record, self.patch_um, config.context)
        tiles = Tiles.around(slide.xy, width, slide.mpp) if self.dense else None
        centres = slide.xy if tiles is None else tiles.centres
        normalizer = self._normalizer(slide)
        cutter = PatchCutter(centres, width, record.input_px, record.interpolation, scales, normalizer)
        return SlidePatches(slide, cutter, areas, tiles)

    def _normalizer(self, slide: SlideImage) -> StainNormalizer | None:
        """What the patches of a slide need to look as if it had been stained as all others."""
        method = self.stain_normalization
        if method is None:
            return None
        with opened_image(slide.source) as image:
            check_brightfield(sample_around(image, slide.xy), f'the image of slide "{slide.name}"')
            return fit_stain(method, image, f'slide "{slide.name}"')
