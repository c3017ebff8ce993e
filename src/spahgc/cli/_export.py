"""``spahgc export``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from spahgc.cli._choices import choice
from spahgc.cli._options import AsJson, Key, Overwrite, TableKey, refuse
from spahgc.cli._output import Printed, result

FORMATS = {
    "qupath": ("write_geojson", (".geojson", ".json")),
    "tissuumaps": ("write_tissuumaps", ()),
    "vitessce": ("write_vitessce", ()),
    "loupe": ("write_loupe", (".csv",)),
    "xenium": ("write_xenium_explorer", (".csv",)),
    "cellxgene": ("write_cellxgene", (".h5ad",)),
}
"""Function of :mod:`spahgc.io` and endings of its file, none of what is a folder, by the name of the program."""
GROUPS_ALONE = ("loupe", "xenium")
"""Programs that are told groups and no genes."""


def format_names() -> Iterable[str]:
    """Programs that files are written for."""
    return FORMATS


def export(
    slide: Annotated[Path, typer.Argument(help="A slide with a prediction, .h5ad or .zarr.")],
    to: Annotated[str, choice("The program: qupath, tissuumaps, vitessce, loupe, xenium or cellxgene.", format_names)],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="The file: .geojson, .csv, .h5ad; a folder for tissuumaps and vitessce."),
    ],
    key: Key = "spahgc",
    gene: Annotated[
        list[str] | None, typer.Option(help="A gene to write, repeat; those of the prediction if left out.")
    ] = None,
    groups: Annotated[
        str | None, typer.Option(help="Column of obs that groups the spots; the domains if left out.")
    ] = None,
    image: Annotated[
        Path | None, typer.Option(help="With tissuumaps: the full-resolution image, which the project links.")
    ] = None,
    table_key: TableKey = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> Printed:
    """Write a prediction for another program.

    QuPath gets spots with measurements and domains as annotations, Loupe Browser and Xenium Explorer get tables of groups.

    Example:
      spahgc export OUT.h5ad --to qupath --output OUT.geojson
      spahgc export OUT.h5ad --to loupe --output domains.csv --groups spahgc_domain
    """
    import spahgc as sp
    from spahgc.cli._slide_files import check_output, read_slide

    function, endings = FORMATS[to]
    if endings:
        check_output(output, endings, overwrite=overwrite)
    elif output.exists() and not overwrite:
        raise FileExistsError(f"--output {output} exists already. Pass --overwrite to replace it, or another name.")
    if to in GROUPS_ALONE:
        refuse({"--gene": gene}, f"has no meaning with --to {to}, which is told groups alone. Leave it out.")
    if to != "tissuumaps":
        refuse({"--image": image}, "goes with --to tissuumaps. Leave it out.")
    options: dict[str, Any] = {"key": key, "groups": groups, "table_key": table_key}
    options |= {} if to in GROUPS_ALONE else {"genes": gene or None}
    options |= {} if endings else {"overwrite": overwrite}
    options |= {} if image is None else {"image": image}
    written = getattr(sp.io, function)(read_slide(slide, "slide"), output, **options)
    return result(f"{written}: for {to}", {"output": written, "to": to}, as_json)
