"""``spahgc embed``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from spahgc.cli._choices import choice, stain_names
from spahgc.cli._options import (
    OFFLINE_ENCODER,
    AsJson,
    Checkpoint,
    Context,
    Device,
    Encoder,
    Overwrite,
    TableKey,
    refuse,
)
from spahgc.cli._output import Printed, records, result


def embed(
    slides: Annotated[list[Path], typer.Argument(help="A slide, .h5ad or .zarr, or several of them.", metavar="SLIDE")],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="The slide with its embedding, .h5ad or .zarr; or a folder, which gets NAME.zarr of each.",
        ),
    ],
    encoder: Encoder = OFFLINE_ENCODER,
    checkpoint: Checkpoint = None,
    image: Annotated[
        Path | None, typer.Option(help="Full-resolution image; the one that the slide names if left out.")
    ] = None,
    mpp: Annotated[float | None, typer.Option(help="Microns per pixel; as slide and image say if left out.")] = None,
    patch_um: Annotated[
        float | None, typer.Option(help="Width of a patch, microns; the encoder's if left out.")
    ] = None,
    context: Context = None,
    dense: Annotated[
        bool, typer.Option("--dense", help="Points that lie denser than patches share tiles; references need the same.")
    ] = False,
    samples: Annotated[int, typer.Option(help="Patches within a spot: 1, or from 4 on its centre and a ring.")] = 1,
    stain: Annotated[str | None, choice("Normalise the stain: macenko or reinhard.", stain_names)] = None,
    key_added: Annotated[str | None, typer.Option(help="Key in obsm; X_ENCODER if left out.")] = None,
    batch_size: Annotated[int, typer.Option(help="Patches that are in memory at once.")] = 64,
    n_workers: Annotated[
        int | None, typer.Option(help="Threads that cut patches; those that the encoder leaves if left out.")
    ] = None,
    allow_upsampling: Annotated[
        bool, typer.Option("--allow-upsampling", help="Go on with a hires image that is too coarse.")
    ] = False,
    resume: Annotated[
        Path | None, typer.Option(help="Folder of finished batches, from which a run that was stopped goes on.")
    ] = None,
    table_key: TableKey = None,
    image_key: Annotated[str | None, typer.Option(help="Image of a SpatialData; the only one if left out.")] = None,
    coordinate_system: Annotated[
        str | None, typer.Option(help="Coordinate system in which spots and image of a SpatialData meet.")
    ] = None,
    device: Device = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> Printed:
    """Embed the H&E patch around every spot of a slide.

    One slide is written to a file. Where the output is a folder, each slide is written to NAME.zarr within it; called
    again, slides that are finished are kept. A slide names its image, or --image does. The encoder that is taken if none is
    named comes with the installation; those of pathology see more, and most of them ask for access first.

    Example:
      spahgc embed C2.h5ad --output C2-embedded.h5ad --encoder efficientnet_lite0
      spahgc embed C2.h5ad C3.h5ad C4.h5ad --output embedded --encoder uni
    """
    from spahgc.cli._slide_files import SLIDE_ENDINGS

    options = {
        "encoder": encoder,
        "checkpoint": checkpoint,
        "mpp": mpp,
        "patch_um": patch_um,
        "context": context,
        "dense": dense,
        "samples": samples,
        "stain_normalization": stain,
        "key_added": key_added,
        "batch_size": batch_size,
        "n_workers": n_workers,
        "allow_upsampling": allow_upsampling,
        "resume": resume,
        "device": device,
    }
    of_one = {"image": image, "table_key": table_key, "image_key": image_key, "coordinate_system": coordinate_system}
    if output.suffix in SLIDE_ENDINGS:
        if len(slides) > 1:
            raise ValueError(f"--output {output} holds one slide, {len(slides)} were given. Pass a folder.")
        return _one(slides[0], output, options | of_one, overwrite, as_json)
    refuse(
        {f"--{name.replace('_', '-')}": value for name, value in of_one.items()},
        "goes with one slide: let --output end in .h5ad or .zarr.",
    )
    return _many(slides, output, options, overwrite, as_json)


def _one(path: Path, output: Path, options: dict[str, Any], overwrite: bool, as_json: bool) -> Printed:
    import spahgc as sp
    from spahgc._keys import Obsm
    from spahgc._slides.tables import table_of
    from spahgc._validate import encoder_records, has_context
    from spahgc.cli._slide_files import SLIDE_ENDINGS, check_container, check_output, read_slide, write_slide
    from spahgc.encoders._record import key_name

    check_output(output, SLIDE_ENDINGS, overwrite=overwrite)
    slide = read_slide(path, "slide")
    check_container(slide, output)
    sp.pp.embed(slide, **options)
    write_slide(slide, output)
    table = table_of(slide, options["table_key"], "the slide")
    key = options["key_added"] or Obsm.embedding(key_name(options["encoder"]))
    n_spots, dim = table.obsm[key].shape
    beside = Obsm.context(key)
    columns = dim + (table.obsm[beside].shape[1] if has_context(encoder_records(table)[key]) else 0)
    text = f'{output}: {n_spots} spots embedded, {dim} numbers each, in obsm["{key}"]'
    if columns > dim:
        text += f', and {columns - dim} of their surroundings, in obsm["{beside}"]'
    values = {
        "output": output,
        "key": key,
        "spots": n_spots,
        "dim": dim,
        "columns": columns,
        "encoder": encoder_records(table)[key],
    }
    return result(text, values, as_json)


def _many(slides: list[Path], folder: Path, options: dict[str, Any], overwrite: bool, as_json: bool) -> Printed:
    import spahgc as sp

    table = sp.pp.embed_many(slides, folder, overwrite=overwrite, **options)
    text = table.to_string(index=False, float_format=lambda seconds: f"{seconds:.1f}")
    return result(text, {"folder": folder, "slides": records(table)}, as_json)
