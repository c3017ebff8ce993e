"""``spahgc cross-validate``: of a cohort of the paper, or of slides of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spahgc.cli._completion import cohort_names, encoder_names, preset_names, section_names
from spahgc.cli._options import (
    AsJson,
    Checkpoint,
    Device,
    Embedding,
    Genes,
    Methods,
    Seed,
    TableKey,
    chosen_genes,
    refuse,
)
from spahgc.cli._requests import METHODS, PAPER_ENCODER, PAPER_PRESET, SCORE_FILES, CohortRequest, SlidesRequest
from spahgc.cli._show import Printed, note, result


def cross_validate(
    cohort: Annotated[
        str | None,
        typer.Option(
            help="A cohort of the paper: cscc, her2st, alex, visium_bc, hest_...", autocompletion=cohort_names
        ),
    ] = None,
    slide: Annotated[
        list[Path] | None, typer.Option(help="A measured slide of your own instead, .h5ad or .zarr; at least two.")
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            help="Encoder of the patches; uni for a cohort if left out. Slides that have an embedding keep it.",
            autocompletion=encoder_names,
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="paper or default; if left out, paper for a cohort and default for slides.",
            autocompletion=preset_names,
        ),
    ] = None,
    path: Annotated[
        Path | None, typer.Option(help="Folder with a copy of the cohort; it is downloaded if left out.")
    ] = None,
    section: Annotated[
        list[str] | None,
        typer.Option(
            help="A section of the cohort, repeat; all that are there if left out.", autocompletion=section_names
        ),
    ] = None,
    method: Methods = None,
    group_by: Annotated[
        str, typer.Option(help="What is held out together: slide or patient; of slides any column of obs.")
    ] = "slide",
    output: Annotated[
        Path | None,
        typer.Option(
            help="Folder for folds and scores, and the slides of a cohort. If left out, COHORT-ENCODER here for a "
            "cohort, and nothing is kept for slides."
        ),
    ] = None,
    checkpoint: Checkpoint = None,
    context: Annotated[
        bool, typer.Option(help="Embed several patch sizes and depths, which the paper does not.")
    ] = False,
    gene: Genes = None,
    embedding: Embedding = None,
    layer: Annotated[str | None, typer.Option(help="Layer of the slides with their counts; X if left out.")] = None,
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
    """
    if (cohort is None) == (not slide):
        found = "none" if cohort is None else "both"
        raise ValueError(f"{found} of --cohort and --slide was given. Pass --cohort NAME, or --slide for each slide.")
    if cohort is not None:
        refuse(
            {"--gene": gene, "--embedding": embedding, "--layer": layer, "--table-key": table_key},
            "goes with --slide; a cohort is run as in the paper. Leave it out.",
        )
        asked = CohortRequest(
            cohort=cohort,
            path=path,
            sections=section or None,
            encoder=encoder or PAPER_ENCODER,
            checkpoint=checkpoint,
            context=context,
            methods=method or METHODS,
            preset=preset or PAPER_PRESET,
            group_by=group_by,
            seed=seed,
            n_jobs=jobs,
            device=device,
        )
        return _of_cohort(asked, output, as_json)
    refuse({"--path": path, "--section": section}, "goes with --cohort. Leave it out.")
    of_slides = SlidesRequest(
        paths=slide or [],
        encoder=encoder,
        checkpoint=checkpoint,
        context=context,
        methods=method or METHODS,
        preset=preset or "default",
        group_by=group_by,
        genes=chosen_genes(gene),
        embedding=embedding,
        layer=layer,
        table_key=table_key,
        seed=seed,
        n_jobs=jobs,
        device=device,
    )
    return _of_slides(of_slides, output, as_json)


def _of_cohort(asked: CohortRequest, output: Path | None, as_json: bool) -> Printed:
    from spahgc.cli._validate_cohort import validate_cohort

    folder = Path(f"{asked.cohort}-{asked.encoder}".replace("/", "_")) if output is None else output
    outcome = validate_cohort(asked, folder)
    note(f"\nWritten to {folder}: {', '.join(SCORE_FILES)}")
    return result(outcome.text(), outcome.to_dict(), as_json)


def _of_slides(asked: SlidesRequest, output: Path | None, as_json: bool) -> Printed:
    from spahgc.cli._validate_slides import validate_slides

    outcome = validate_slides(asked, output)
    if output is not None:
        note(f"\nWritten to {output}: {', '.join(SCORE_FILES)}")
    return result(outcome.text(), outcome.to_dict(), as_json)
