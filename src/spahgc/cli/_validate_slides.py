"""Slides of the user, each predicted from the others: ``spahgc cross-validate --slide``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spahgc._keys import SPATIAL, Obs
from spahgc._slides.tables import is_spatialdata, table_of
from spahgc._validate import check_writable_folder
from spahgc.cli._files import embed_missing, read_slide
from spahgc.cli._requests import SlidesRequest
from spahgc.cli._scores import SUMMARY_COLUMNS, check_methods, of_each_slide, scores_for_json, table_text, write_scores

if TYPE_CHECKING:
    from spahgc.tl import CrossValidation

FOLDS = "folds"


@dataclass(frozen=True)
class SlidesOutcome:
    """What came out: the request and the scores."""

    request: SlidesRequest
    validation: CrossValidation

    def text(self) -> str:
        """For a terminal."""
        asked = self.request
        table = self.validation.summary[list(SUMMARY_COLUMNS)].rename(columns=SUMMARY_COLUMNS)
        lines = [
            f"{len(self.slides)} slides, one {asked.group_by} held out at a time, preset {asked.preset}",
            "",
            table_text(table.rename_axis("method")),
            "",
            *of_each_slide(self.validation),
        ]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """For a program."""
        asked = self.request
        return {
            "slides": self.slides,
            "preset": asked.preset,
            "group_by": asked.group_by,
            "seed": asked.seed,
            **scores_for_json(self.validation),
        }

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
    from spahgc.tl import cross_validate

    check_methods(request.methods, request.preset)
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
    validation = cross_validate(
        slides,
        group_by=request.group_by,
        methods=list(request.methods),
        genes=request.genes,
        embedding=request.embedding,
        layer=request.layer,
        preset=request.preset,
        seed=request.seed,
        n_jobs=request.n_jobs,
        checkpoint=None if folder is None else folder / FOLDS / _folds_name(request),
        device=request.device,
        table_key=request.table_key,
    )
    outcome = SlidesOutcome(request, validation)
    if folder is not None:
        write_scores(folder, validation, outcome.to_dict())
    return outcome


def _named(slide: Any, path: Path, table_key: str | None) -> Any:
    """A slide that says nothing of its name is called by its file."""
    table = table_of(slide, table_key, f"--slide {path}")
    if Obs.slide not in table.obs and len(table.uns.get(SPATIAL, {})) != 1 and not is_spatialdata(slide):
        table.obs[Obs.slide] = path.stem
    return slide


def _folds_name(request: SlidesRequest) -> str:
    """Folder of the finished folds: another one for other slides, another seed or other genes."""
    from spahgc._files import digest

    names = sorted(str(path.resolve()) for path in request.paths)
    chosen = [request.encoder, request.embedding, request.layer, request.genes, request.preset, request.seed]
    return f"{request.group_by}-{digest(json.dumps([names, *chosen]).encode())}"
