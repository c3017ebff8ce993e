"""``spahgc cross-validate``: of a cohort of the paper, or of slides of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from spahgc.cli._choices import choice, cohort_names, complete_section, encoder_names, preset_names
from spahgc.cli._options import (
    AsJson,
    Checkpoint,
    Device,
    Embedding,
    Genes,
    Methods,
    Seed,
    TableKey,
    UnitsOption,
    chosen_genes,
    refuse,
)
from spahgc.cli._output import Printed, note, result
from spahgc.cli._validation_request import (
    METHODS,
    PAPER_ENCODER,
    PAPER_GROUP,
    PAPER_PRESET,
    SCORE_FILES,
    CohortRequest,
    HestBenchRequest,
    SlidesRequest,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spahgc.cli._validation_of_cohort import CohortOutcome
    from spahgc.cli._validation_of_hest_bench import HestBenchOutcome
    from spahgc.cli._validation_of_slides import SlidesOutcome


def cross_validate(
    cohort: Annotated[
        str | None,
        choice(
            "A cohort: cscc, her2st, alex, visium_bc, hest_... of the paper, spinal_cord, olfactory_bulb.",
            cohort_names,
            closed=False,
        ),
    ] = None,
    slide: Annotated[
        list[Path] | None,
        typer.Option(
            help="Measured slides of your own instead: .h5ad or .zarr, a folder of them, or a pattern in quotes; at least two."
        ),
    ] = None,
    hest_bench: Annotated[
        str | None,
        typer.Option(
            help="A task of the HEST benchmark instead, e.g. IDC, from the copy at --path: its patches, genes and splits, "
            "method hest, beside the figure that it published. Tried on small files of that layout, not on the real ones."
        ),
    ] = None,
    encoder: Annotated[
        str | None,
        choice(
            "Encoder of the patches; uni for a cohort or task if left out. Slides that have an embedding keep it.",
            encoder_names,
            closed=False,
        ),
    ] = None,
    preset: Annotated[
        str | None,
        choice("paper or default; if left out, paper for a cohort and default for slides.", preset_names),
    ] = None,
    path: Annotated[
        Path | None,
        typer.Option(
            help="Folder with a copy of the cohort, which is downloaded if left out, or of the HEST benchmark."
        ),
    ] = None,
    section: Annotated[
        list[str] | None,
        typer.Option(
            help="A section of the cohort, repeat; all that are there if left out.", autocompletion=complete_section
        ),
    ] = None,
    method: Methods = None,
    group_by: Annotated[
        str | None,
        typer.Option(
            help="What is held out together: slide or patient; of slides any column of obs. If left out, slide for a "
            "cohort, as in the paper; of slides the patient, where each names one and there are two, else slide."
        ),
    ] = None,
    splits: Annotated[
        Path | None,
        typer.Option(
            help="Instead of --group-by, with --slide: folder with train_0.csv, test_0.csv, ..., whose column sample_id "
            "names the slides."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Folder for folds and scores, and the slides of a cohort. If left out, COHORT-ENCODER here for a "
            "cohort, hest-bench-TASK-ENCODER for a task, and nothing is kept for slides.",
        ),
    ] = None,
    checkpoint: Checkpoint = None,
    context: Annotated[
        bool | None,
        typer.Option(
            "--context/--no-context",
            help="Surroundings that an embedding shows, as spahgc embed has them; of a cohort none if left out, as in the "
            "paper.",
        ),
    ] = None,
    gene: Genes = None,
    embedding: Embedding = None,
    layer: Annotated[str | None, typer.Option(help="Layer of the slides with their counts; X if left out.")] = None,
    units: UnitsOption = None,
    table_key: TableKey = None,
    jobs: Annotated[int, typer.Option(help="Folds that run at the same time; -1 takes all processors.")] = 1,
    seed: Seed = 0,
    device: Device = None,
    as_json: AsJson = False,
) -> Printed:
    """Predict each measured slide from the others, and score.

    Of a cohort of the paper: downloads it (or takes a copy), embeds it, and prints its row of the paper's table beside
    the paper's figure and the baselines. Of measured slides of your own: prints the mean PCC of every method with its
    interval. Called again with the same output folder, it goes on where it was cut off.

    Example:
      spahgc cross-validate --cohort her2st --encoder uni --preset paper --device cuda
      spahgc cross-validate --slide A.h5ad --slide B.h5ad --slide C.h5ad --output validation
      spahgc cross-validate --hest-bench IDC --path hest-bench --encoder uni
    """
    _check_one(cohort, slide, hest_bench)
    asked = Asked(
        cohort, slide or [], hest_bench, encoder, preset, path, section or [], method or [], group_by, splits, output,
        checkpoint, context, gene, embedding, layer, units, table_key, jobs, seed, device,
    )  # fmt: skip
    validate = _of_task if hest_bench is not None else _of_cohort if cohort is not None else _of_slides
    outcome, written = validate(asked)
    if written is not None:
        note(f"\nWritten to {written}: {', '.join(SCORE_FILES)}")
    return result(outcome.text(), outcome.to_dict(), as_json)


class Asked(NamedTuple):
    """What was asked for, under the names of the options."""

    cohort: str | None
    slide: list[Path]
    hest_bench: str | None
    encoder: str | None
    preset: str | None
    path: Path | None
    section: list[str]
    method: list[str]
    group_by: str | None
    splits: Path | None
    output: Path | None
    checkpoint: Path | None
    context: bool | None
    gene: list[str] | None
    embedding: str | None
    layer: str | None
    units: str | None
    table_key: str | None
    jobs: int
    seed: int
    device: str | None

    def options(self) -> dict[str, Any]:
        """What every request holds."""
        return {
            "checkpoint": self.checkpoint,
            "context": self.context,
            "methods": self.method or METHODS,
            "seed": self.seed,
            "n_jobs": self.jobs,
            "device": self.device,
        }

    def refuse(self, names: Sequence[str], why: str) -> None:
        """Refuse options that were given and have no part in it."""
        refuse({f"--{name.replace('_', '-')}": getattr(self, name) or None for name in names}, why)

    def folder(self, name: str) -> Path:
        """Where results are written: the folder that was named, or one here."""
        return Path(name.replace("/", "_")) if self.output is None else self.output


OF_SLIDES = "gene", "embedding", "layer", "units", "table_key", "splits"
"""Options of slides of one's own alone."""


def _check_one(cohort: str | None, slide: list[Path] | None, hest_bench: str | None) -> None:
    """Refuse none, or more than one, of the things that can be validated."""
    given = [name for name, value in (("--cohort", cohort), ("--slide", slide), ("--hest-bench", hest_bench)) if value]
    if given in ([], ["--cohort", "--slide"]):
        said = "both" if given else "none"
        raise ValueError(f"{said} of --cohort and --slide was given. Pass --cohort NAME, or --slide for each slide.")
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)} were given. Pass one of them.")


def _of_task(asked: Asked) -> tuple[HestBenchOutcome, Path]:
    """A task of the HEST benchmark, and the folder with its results."""
    from spahgc.cli._validation_of_hest_bench import validate_hest_bench

    asked.refuse(("section", "group_by", "context", *OF_SLIDES), "is laid down by the benchmark. Leave it out.")
    if asked.path is None or asked.hest_bench is None:
        raise ValueError("--hest-bench needs --path with a copy of the benchmark's data.")
    request = HestBenchRequest(
        task=asked.hest_bench,
        path=asked.path,
        encoder=asked.encoder or PAPER_ENCODER,
        preset=asked.preset or "default",
        group_by=None,
        **asked.options() | {"methods": asked.method},
    )
    folder = asked.folder(f"hest-bench-{asked.hest_bench}-{request.encoder}")
    return validate_hest_bench(request, folder), folder


def _of_cohort(asked: Asked) -> tuple[CohortOutcome, Path]:
    """A cohort, run as in the paper, and the folder with its results."""
    from spahgc.cli._validation_of_cohort import validate_cohort

    asked.refuse(OF_SLIDES, "goes with --slide; a cohort is run as in the paper. Leave it out.")
    request = CohortRequest(
        cohort=asked.cohort or "",
        path=asked.path,
        sections=asked.section or None,
        encoder=asked.encoder or PAPER_ENCODER,
        preset=asked.preset or PAPER_PRESET,
        group_by=asked.group_by or PAPER_GROUP,
        **asked.options() | {"context": bool(asked.context)},  # of the paper: the patch alone
    )
    folder = asked.folder(f"{asked.cohort}-{request.encoder}")
    return validate_cohort(request, folder), folder


def _of_slides(asked: Asked) -> tuple[SlidesOutcome, Path | None]:
    """Slides of one's own, and the folder with their results, if one was named."""
    from spahgc.cli._slide_files import expand
    from spahgc.cli._validation_of_slides import validate_slides

    asked.refuse(("path", "section"), "goes with --cohort. Leave it out.")
    request = SlidesRequest(
        paths=expand(asked.slide, "--slide"),
        encoder=asked.encoder,
        preset=asked.preset or "default",
        group_by=asked.group_by,
        splits=asked.splits,
        genes=chosen_genes(asked.gene),
        embedding=asked.embedding,
        layer=asked.layer,
        units=asked.units,
        table_key=asked.table_key,
        **asked.options(),
    )
    return validate_slides(request, asked.output), asked.output
