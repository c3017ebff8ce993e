"""``spahgc report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spahgc.cli._options import AsJson, Key, Overwrite, TableKey, UnitsOption
from spahgc.cli._output import Printed, result

PAGE_ENDINGS = (".html", ".htm")
BYTES_PER_MB = 1e6


def report(
    slides: Annotated[
        list[Path],
        typer.Argument(
            metavar="SLIDE...", help="Slides with a prediction, .h5ad or .zarr; between several the page switches."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The page, .html; with --tiles a folder.")],
    reference: Annotated[
        list[Path] | None,
        typer.Option(help="References of the prediction, whose patches the page shows: files, a folder, or a pattern."),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(help="Folder of the model that predicted; the page then says what reference spots add."),
    ] = None,
    key: Key = "spahgc",
    gene: Annotated[
        list[str] | None, typer.Option(help="A gene of the page, repeat; those of the prediction if left out.")
    ] = None,
    title: Annotated[str | None, typer.Option(help="Title of the page; the slide's name if left out.")] = None,
    layer: Annotated[str | None, typer.Option(help="Layer with the measured counts; X if left out.")] = None,
    units: UnitsOption = None,
    image: Annotated[
        list[Path] | None,
        typer.Option(
            help="Full-resolution image; the one that the slide names if left out. Repeat, one for each slide."
        ),
    ] = None,
    annotations: Annotated[
        list[Path] | None,
        typer.Option(help="GeoJSON of regions to draw over the maps. Repeat, one for each slide."),
    ] = None,
    net: Annotated[
        Path | None, typer.Option(help="Marker panels, a GMT file: the gene table can be narrowed to one.")
    ] = None,
    tiles: Annotated[
        bool,
        typer.Option(
            help="Write a folder with the image in full resolution beside the page, so that nuclei are sharp."
        ),
    ] = False,
    max_mb: Annotated[float, typer.Option(help="Largest size of the page, MB.")] = 12.0,
    table_key: TableKey = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> Printed:
    """Make a page of a prediction to look at in a browser.

    It is one file (with --tiles a folder), which asks no network for anything.

    Example:
      spahgc report OUT.h5ad --output report.html --reference C2.h5ad --reference C3.h5ad
    """
    import spahgc as sp
    from spahgc.cli._slide_files import check_output, read_references, read_slide

    if not tiles:
        check_output(output, PAGE_ENDINGS, overwrite=overwrite)
    elif output.exists() and not overwrite:
        raise FileExistsError(f"--output {output} exists already. Pass --overwrite to replace it, or another name.")
    data = [read_slide(slide, "slide") for slide in slides]
    refs = read_references(reference, None)
    written = sp.pl.report(
        data[0] if len(data) == 1 else data,
        output,
        refs=refs,
        model=None if model is None else sp.SpaHGC.load(model),
        key=key,
        genes=gene,
        title=title,
        layer=layer,
        units=units,
        image=_one_or_all(image),
        annotations=_one_or_all(annotations),
        net=net,
        tiles=tiles,
        table_key=table_key,
        max_mb=max_mb,
    )
    size_mb = written.stat().st_size / BYTES_PER_MB
    return result(f"{written}: {size_mb:.1f} MB", {"output": written, "key": key, "mb": size_mb}, as_json)


def _one_or_all(paths: list[Path] | None) -> Path | list[Path] | None:
    return paths[0] if paths is not None and len(paths) == 1 else paths
