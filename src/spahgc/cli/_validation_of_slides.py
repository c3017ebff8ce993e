"""Slides of the user, each predicted from the others: ``spahgc cross-validate --slide``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from spahgc._keys import SPATIAL, Obs
from spahgc._slides.tables import is_spatialdata, table_of
from spahgc._validate import check_writable_folder
from spahgc.cli._slide_files import embed_missing, read_slide
from spahgc.cli._validation_request import SlidesRequest
from spahgc.cli._validation_scores import (
    FOLDS,
    check_methods,
    folds_name,
    score_lines,
    scores_for_json,
    summary_table,
    write_scores,
)

if TYPE_CHECKING:
    from spahgc.cli._slide_files import Slide
    from spahgc.tl import CrossValidation


@dataclass(frozen=True)
class SlidesOutcome:
    """What came out: the request and the scores."""

    request: SlidesRequest
    validation: CrossValidation

    def text(self) -> str:
        """For a terminal."""
        held_out = "held out as the splits say" if self.request.splits else f"one {self.group_by} held out at a time"
        lines = [
            f"{len(self.slides)} slides, {held_out}, preset {self.request.preset}",
            "",
            *score_lines(summary_table(self.validation), self.validation),
        ]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, object]:
        """For a program."""
        request = self.request
        return {
            "slides": self.slides,
            "preset": request.preset,
            "group_by": self.group_by,
            "seed": request.seed,
            **scores_for_json(self.validation),
        }

    @property
    def group_by(self) -> str:
        """What was held out together."""
        return str(self.validation.record["group_by"])

    @property
    def slides(self) -> list[str]:
        """Names of the slides."""
        return [str(name) for name in self.validation.record["groups"]]


def validate_slides(request: SlidesRequest, output: Path | None) -> SlidesOutcome:
    """Hold out each of the slides, or groups of them, in turn.

    Parameters
    ----------
    request
        What is to be run.
    output
        Folder for the finished folds and the scores; ``None`` keeps nothing. What a call that was cut off has left
        there is used again.
    """
    from spahgc._settings import resolve_device
    from spahgc._slides.split import placed_tables, split_slides
    from spahgc.tl import cross_validate
    from spahgc.tl._cross_validation.splits import find_group_by, read_splits

    check_methods(request.methods, request.preset)
    if request.splits is not None and request.group_by is not None:
        raise ValueError("both --group-by and --splits were given. Pass one of the two.")
    splits = None if request.splits is None else read_splits(request.splits)
    if request.checkpoint is not None and request.encoder is None:
        raise ValueError("--checkpoint holds the weights of an encoder. Pass --encoder as well.")
    resolve_device(request.device)
    folder = None if output is None else check_writable_folder(output)
    slides = [_named(read_slide(path, "--slide"), path, request.table_key) for path in request.paths]
    embed_missing(
        slides,
        request.encoder,
        request.table_key,
        checkpoint=request.checkpoint,
        context=request.context,
        device=request.device,
    )
    names = sorted(os.path.realpath(path) for path in request.paths)
    chosen = (request.encoder, request.embedding, request.layer, request.genes, request.preset, request.seed)
    units = (request.units,) if request.units else ()
    # What an embedding that is made here shows; of those that are there the folds know by themselves.
    context = () if request.encoder is None else (f"context {request.context}",)
    if splits is None:
        by = request.group_by or find_group_by(split_slides(placed_tables(slides, request.table_key, "slide"), "slide"))
        folds = folds_name(by, names, *chosen, *units, *context)
    else:
        by = None
        of_splits = [[split.name, split.train, split.test] for split in splits]
        folds = folds_name("splits", names, *chosen, *units, *context, of_splits)
    validation = cross_validate(
        slides,
        group_by=by,
        splits=request.splits,
        methods=list(request.methods),
        genes=request.genes,
        embedding=request.embedding,
        layer=request.layer,
        units=request.units,
        preset=request.preset,
        seed=request.seed,
        n_jobs=request.n_jobs,
        checkpoint=None if folder is None else folder / FOLDS / folds,
        device=request.device,
        table_key=request.table_key,
    )
    outcome = SlidesOutcome(request, validation)
    if folder is not None:
        write_scores(folder, validation, outcome.to_dict())
    return outcome


def _named(slide: Slide, path: Path, table_key: str | None) -> Slide:
    """A slide that says nothing of its name is called by its file."""
    table = table_of(slide, table_key, f"--slide {path}")
    if Obs.slide not in table.obs and len(table.uns.get(SPATIAL, {})) != 1 and not is_spatialdata(slide):
        table.obs[Obs.slide] = path.stem
    return slide
