"""``spahgc fetch``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spahgc.cli._choices import cohort_names, complete_section
from spahgc.cli._options import AsJson, Overwrite
from spahgc.cli._output import Printed, note, result


def complete_cohort(incomplete: str) -> list[str]:
    """Cohorts that begin so."""
    return [name for name in cohort_names() if name.startswith(incomplete)]


def fetch(
    cohort: Annotated[str, typer.Argument(help="A cohort, see spahgc cohorts.", autocompletion=complete_cohort)],
    section: Annotated[
        list[str] | None,
        typer.Option(help="Sections to fetch; all if left out.", autocompletion=complete_section),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Folder that gets SECTION.h5ad of each; if left out, files are only downloaded."
        ),
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> Printed:
    """Download a cohort, and make slides of its sections.

    What is there already is not downloaded again.

    Example:
      spahgc fetch spinal_cord -o slides
      spahgc fetch her2st --section C1 --section C2
    """
    import spahgc as sp
    from spahgc._files import write_h5ad
    from spahgc._keys import Obs
    from spahgc._validate import check_writable_folder
    from spahgc.cli._slide_files import FILE

    if cohort not in (names := list(cohort_names())):
        raise ValueError(f"{cohort} is not known. Choose one of {', '.join(names)}.")
    folder = None if output is None else check_writable_folder(output)
    if folder is None:
        where = sp.datasets.fetch(cohort, sections=section or None)
        return result(f"{where}: {cohort}", {"cohort": cohort, "folder": where}, as_json)
    written = []
    for slide in getattr(sp.datasets, cohort)(sections=section or None):
        path = folder / f"{slide.obs[Obs.slide].iloc[0]}{FILE}"
        if path.exists() and not overwrite:
            note(f"{path} is there and kept")
        else:
            write_h5ad(slide, path)
        written.append(path)
    return result("\n".join(map(str, written)), {"cohort": cohort, "folder": folder, "slides": written}, as_json)
