"""``spahgc cross-validate``: of a cohort of the paper, or of slides of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    given = [name for name, value in (("--cohort", cohort), ("--slide", slide), ("--hest-bench", hest_bench)) if value]
    if given in ([], ["--cohort", "--slide"]):
        said = "both" if given else "none"
        raise ValueError(f"{said} of --cohort and --slide was given. Pass --cohort NAME, or --slide for each slide.")
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)} were given. Pass one of them.")
    options: dict[str, Any] = {
        "checkpoint": checkpoint,
        "context": context,
        "methods": method or METHODS,
        "seed": seed,
        "n_jobs": jobs,
        "device": device,
    }
    outcome: CohortOutcome | SlidesOutcome | HestBenchOutcome
    if hest_bench is not None:
        from spahgc.cli._validation_of_hest_bench import validate_hest_bench

        refuse(
            {
                "--section": section,
                "--group-by": group_by,
                "--splits": splits,
                "--context": context,
                "--gene": gene,
                "--embedding": embedding,
                "--layer": layer,
                "--units": units,
                "--table-key": table_key,
            },
            "is laid down by the benchmark. Leave it out.",
        )
        if path is None:
            raise ValueError("--hest-bench needs --path with a copy of the benchmark's data.")
        options["methods"] = method or []
        of_task = HestBenchRequest(
            task=hest_bench,
            path=path,
            encoder=encoder or PAPER_ENCODER,
            preset=preset or "default",
            group_by=None,
            **options,
        )
        output = Path(f"hest-bench-{hest_bench}-{of_task.encoder}".replace("/", "_")) if output is None else output
        outcome = validate_hest_bench(of_task, output)
    elif cohort is not None:
        from spahgc.cli._validation_of_cohort import validate_cohort

        refuse(
            {
                "--gene": gene,
                "--embedding": embedding,
                "--layer": layer,
                "--units": units,
                "--table-key": table_key,
                "--splits": splits,
            },
            "goes with --slide; a cohort is run as in the paper. Leave it out.",
        )
        options["context"] = bool(context)  # of the paper: the patch alone
        request = CohortRequest(
            cohort=cohort,
            path=path,
            sections=section or None,
            encoder=encoder or PAPER_ENCODER,
            preset=preset or PAPER_PRESET,
            group_by=group_by or PAPER_GROUP,
            **options,
        )
        output = Path(f"{cohort}-{request.encoder}".replace("/", "_")) if output is None else output
        outcome = validate_cohort(request, output)
    else:
        from spahgc.cli._slide_files import expand
        from spahgc.cli._validation_of_slides import validate_slides

        refuse({"--path": path, "--section": section}, "goes with --cohort. Leave it out.")
        of_slides = SlidesRequest(
            paths=expand(slide or [], "--slide"),
            encoder=encoder,
            preset=preset or "default",
            group_by=group_by,
            splits=splits,
            genes=chosen_genes(gene),
            embedding=embedding,
            layer=layer,
            units=units,
            table_key=table_key,
            **options,
        )
        outcome = validate_slides(of_slides, output)
    if output is not None:
        note(f"\nWritten to {output}: {', '.join(SCORE_FILES)}")
    return result(outcome.text(), outcome.to_dict(), as_json)
