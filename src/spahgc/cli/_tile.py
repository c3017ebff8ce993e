"""``spahgc tile``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spahgc.cli._choices import choice, layout_names
from spahgc.cli._options import AsJson, Overwrite
from spahgc.cli._output import Printed, result


def tile(
    image: Annotated[Path, typer.Argument(help="H&E image or whole-slide file at full resolution.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The tiles, .h5ad or .zarr.")],
    mpp: Annotated[float | None, typer.Option(help="Microns per pixel; as the file says if left out.")] = None,
    spacing_um: Annotated[float, typer.Option(help="Distance of a tile to the nearest others, microns.")] = 100.0,
    spot_um: Annotated[float | None, typer.Option(help="Diameter of a tile, microns; 0.55 of the spacing.")] = None,
    layout: Annotated[str, choice("hexagonal or square.", layout_names)] = "hexagonal",
    min_tissue: Annotated[float, typer.Option(help="Share of a tile that must be tissue, up to 1.")] = 0.5,
    threshold: Annotated[
        float | None, typer.Option(help="Stain from which on a place is tissue; found if left out.")
    ] = None,
    exclude_pen: Annotated[bool, typer.Option("--exclude-pen/--keep-pen", help="Leave out marker ink.")] = True,
    focus: Annotated[bool, typer.Option("--focus/--no-focus", help="Measure how sharp every tile is.")] = True,
    library_id: Annotated[str | None, typer.Option(help="Name of the slide; the file's if left out.")] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> Printed:
    """Lay a grid of pseudo-spots over the tissue of an image.

    The result is a slide without genes: embed it, then predict it.

    Example:
      spahgc tile case.svs --output case.h5ad --spacing-um 100
    """
    import spahgc as sp
    from spahgc._keys import UNS, Uns
    from spahgc.cli._slide_files import SLIDE_ENDINGS, check_output, write_slide

    check_output(output, SLIDE_ENDINGS, overwrite=overwrite)
    slide = sp.pp.tile(
        image,
        mpp=mpp,
        spacing_um=spacing_um,
        spot_um=spot_um,
        layout=layout,
        min_tissue=min_tissue,
        threshold=threshold,
        exclude_pen=exclude_pen,
        focus=focus,
        library_id=library_id,
    )
    write_slide(slide, output)
    found = {
        "output": output,
        "spots": slide.n_obs,
        "mpp": slide.uns[UNS][Uns.slide_mpp],
        **slide.uns[UNS][Uns.tiles],
    }
    text = f"{output}: {slide.n_obs} tiles on tissue, {spacing_um:g} um apart, {found['mpp']:.3g} um per pixel"
    return result(text, found, as_json)
