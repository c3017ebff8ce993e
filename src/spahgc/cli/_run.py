"""``spahgc run``: from a slide and its references to a report, in one go that can be gone on with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spahgc.cli._choices import choice, encoder_names, method_names
from spahgc.cli._config import config_option
from spahgc.cli._export import FORMATS, format_names
from spahgc.cli._options import OFFLINE_ENCODER, AsJson, Checkpoint, Context, Device, Genes, Preset, Seed, chosen_genes
from spahgc.cli._output import Printed, note, result


def run(
    slide: Annotated[
        Path, typer.Argument(help="An image, a folder of Space Ranger or Xenium, or a slide, .h5ad or .zarr.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of all results, from which a run goes on.")],
    reference: Annotated[
        list[Path] | None,
        typer.Option(help="Measured slides: .h5ad, .zarr, run folders, a folder of them, or a pattern in quotes."),
    ] = None,
    encoder: Annotated[
        str | None,
        choice(
            f"Encoder of the patches; that of the references, or {OFFLINE_ENCODER}, if left out.",
            encoder_names,
            closed=False,
        ),
    ] = None,
    checkpoint: Checkpoint = None,
    context: Context = None,
    image: Annotated[Path | None, typer.Option(help="Full-resolution image of a slide that was measured.")] = None,
    mpp: Annotated[float | None, typer.Option(help="Microns per pixel of the image; as it says if left out.")] = None,
    spacing_um: Annotated[float, typer.Option(help="Distance of the tiles of an image, microns.")] = 100.0,
    method: Annotated[str, choice("spahgc, or a baseline.", method_names)] = "spahgc",
    gene: Genes = None,
    preset: Preset = "default",
    n_domains: Annotated[
        int | None, typer.Option(help="Cluster the spots into so many domains; none if left out.")
    ] = None,
    export: Annotated[
        list[str] | None,
        typer.Option(help="Programs that get a file: qupath, tissuumaps, cellxgene, ...; qupath if left out."),
    ] = None,
    config: Annotated[Path | None, config_option()] = None,
    seed: Seed = 0,
    device: Device = None,
    as_json: AsJson = False,
) -> Printed:
    """Predict a slide: from the image to a report.

    It tiles or reads, embeds, predicts, and writes a report and a file for QuPath. Called again with the same folder it
    goes on where it was stopped, and does again what other options change.

    Example:
      spahgc run case.svs --reference "refs/*.h5ad" -o case
      spahgc run case.svs --reference refs -o case --encoder uni --n-domains 5
    """
    if slide.exists():
        note(f"Predicting {slide} ...")  # what comes next loads for seconds
    from spahgc.cli._run_steps import RunOptions, run_steps

    programs = export or ["qupath"]
    unknown = [name for name in programs if name not in FORMATS]
    if unknown:
        raise ValueError(f"--export {unknown[0]} is not known. Choose one of {', '.join(format_names())}.")
    options = RunOptions(
        encoder=encoder,
        checkpoint=checkpoint,
        context=context,
        image=image,
        mpp=mpp,
        spacing_um=spacing_um,
        method=method,
        genes=chosen_genes(gene),
        preset=preset,
        n_domains=n_domains,
        exports=tuple(programs),
        seed=seed,
        device=device,
    )
    files = run_steps(slide, list(reference or []), output, options)
    text = "\n".join(f"{what:<10} {path}" for what, path in files.items())
    return result(text, {"folder": output, "files": files}, as_json)
