"""Command line. Results go to stdout, progress and messages to stderr."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

EXIT_ERROR = 2
EXIT_INTERRUPTED = 130

app = typer.Typer(
    name="spahgc",
    help="Predict the spatial gene expression of an H&E slide from measured reference slides.",
    add_completion=True,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 or mps; the first accelerator if left out.")]
Seed = Annotated[int, typer.Option(help="Seed of everything that is drawn.")]
Preset = Annotated[str, typer.Option(help="paper or default.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        from spahgc import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars.")] = False,
) -> None:
    from spahgc import settings

    settings.progress = not quiet


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Folder for the slide, the scores and the figures.")],
    preset: Preset = "default",
    spots: Annotated[int, typer.Option(min=20, help="Spots of a slide.")] = 200,
    seed: Seed = 0,
    device: Device = None,
) -> None:
    """Run the main job on a simulated cohort: embed, train, predict, evaluate, draw. Needs no network.

    Example: spahgc demo --output demo
    """
    from spahgc._demo import run_demo

    table = run_demo(output, preset=preset, n_spots=spots, seed=seed, device=device)
    typer.echo(table.to_string(float_format=lambda value: f"{value:.3f}"))
    written = ", ".join(sorted(path.name for path in output.iterdir()))
    typer.echo(f"\nWritten to {output}: {written}", err=True)


@app.command()
def predict(
    target: Annotated[Path, typer.Option(help="The slide to predict, .h5ad, with an embedding.")],
    output: Annotated[Path, typer.Option(help="The slide with its prediction, .h5ad.")],
    reference: Annotated[list[Path] | None, typer.Option(help="A measured slide, .h5ad; repeat for several.")] = None,
    model: Annotated[Path | None, typer.Option(help="Folder of a saved model, instead of references.")] = None,
    method: Annotated[
        str, typer.Option(help="spahgc, or a baseline: ridge_components, bleep, mlp, ridge, ...")
    ] = "spahgc",
    gene: Annotated[
        list[str] | None, typer.Option(help="A gene of the panel, repeat; or all. Selected if left out.")
    ] = None,
    embedding: Annotated[str | None, typer.Option(help="Key of the embedding in obsm.")] = None,
    encoder: Annotated[
        str | None, typer.Option(help="Embed the slides that have no embedding with this encoder first.")
    ] = None,
    context: Annotated[
        bool,
        typer.Option(help="With --encoder: embed several patch sizes and depths; 12 times the work, more accurate."),
    ] = False,
    layer: Annotated[str | None, typer.Option(help="Layer of the references with their counts; X if left out.")] = None,
    preset: Preset = "default",
    key_added: Annotated[str, typer.Option(help="Name of the layer that is written.")] = "spahgc",
    seed: Seed = 0,
    device: Device = None,
) -> None:
    """Predict the expression of a slide from its H&E embedding and measured reference slides.

    Example: spahgc predict --target T.h5ad --reference A.h5ad --reference B.h5ad --output OUT.h5ad
    """
    import spahgc as sp
    from spahgc._files import write_h5ad
    from spahgc._references import ALL_GENES
    from spahgc._validate import check_writable_folder

    check_writable_folder(output.parent)
    trained = sp.SpaHGC.load(model) if model is not None else None
    slide = _read(target, "--target")
    refs = [_read(path, "--reference") for path in reference or []]
    if encoder is not None:
        missing = [each for each in [slide, *refs] if not _is_embedded(each)]
        sp.pp.embed(missing, encoder=encoder, context=context, device=device)
    sp.tl.predict(
        slide,
        refs or None,
        model=trained,
        method=method,
        genes=ALL_GENES if gene == [ALL_GENES] else gene,
        embedding=embedding,
        layer=layer,
        preset=preset,
        key_added=key_added,
        seed=seed,
        device=device,
    )
    write_h5ad(slide, output)
    n_genes = int(slide.var[f"{key_added}_panel"].sum())
    typer.echo(f'{output}: {n_genes} genes predicted at {slide.n_obs} spots, in layers["{key_added}"]')


@app.command("cross-validate")
def cross_validate(
    cohort: Annotated[str, typer.Option(help="A cohort of the paper: cscc, her2st, alex, visium_bc, hest_...")],
    encoder: Annotated[str, typer.Option(help="Encoder of the patches.")] = "uni",
    preset: Annotated[str, typer.Option(help="paper or default.")] = "paper",
    path: Annotated[
        Path | None, typer.Option(help="Folder with a copy of the cohort; it is downloaded if left out.")
    ] = None,
    section: Annotated[
        list[str] | None, typer.Option(help="A section of the cohort, repeat; all that are there if left out.")
    ] = None,
    method: Annotated[
        list[str] | None, typer.Option(help="A method to compare, repeat; spahgc, ridge and nearest if left out.")
    ] = None,
    group_by: Annotated[str, typer.Option(help="What is held out together: slide or patient.")] = "slide",
    output: Annotated[
        Path | None, typer.Option(help="Folder for slides, folds and scores; COHORT-ENCODER here if left out.")
    ] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="File with the encoder's weights.")] = None,
    context: Annotated[
        bool, typer.Option(help="Embed several patch sizes and depths, which the paper does not.")
    ] = False,
    jobs: Annotated[int, typer.Option(help="Folds that run at the same time; -1 takes all processors.")] = 1,
    seed: Seed = 0,
    device: Device = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Run a cohort of the paper and print its row of the paper's table, beside the paper's figure and baselines.

    Downloads the cohort (or takes a copy), embeds it, and holds out every slide in turn. Called again with the same
    output folder, it goes on where it was cut off.

    Example: spahgc cross-validate --cohort her2st --encoder uni --preset paper --device cuda
    """
    from spahgc._cli_cross_validate import Request, cross_validate_cohort

    request = Request(
        cohort=cohort,
        path=path,
        sections=section or None,
        encoder=encoder,
        checkpoint=checkpoint,
        context=context,
        methods=method or Request.methods,
        preset=preset,
        group_by=group_by,
        seed=seed,
        n_jobs=jobs,
        device=device,
    )
    folder = Path(f"{cohort}-{encoder}".replace("/", "_")) if output is None else output
    outcome = cross_validate_cohort(request, folder)
    typer.echo(json.dumps(outcome.to_dict(), indent=1) if as_json else outcome.text())
    typer.echo(f"\nWritten to {folder}: result.json, scores.csv, per_slide.csv", err=True)


def _read(path: Path, option: str) -> Any:
    import anndata as ad

    if not path.is_file():
        raise FileNotFoundError(f"{option} {path}: there is no such file.")
    try:
        return ad.read_h5ad(path)
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(
            f"{option} {path} cannot be read as .h5ad ({error}). Write it with adata.write_h5ad."
        ) from error


def _is_embedded(adata: Any) -> bool:
    from spahgc._validate import encoder_records

    return any(key in adata.obsm for key in encoder_records(adata))


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; an error is one line on stderr and exit code 2, a traceback only with ``--debug``."""
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments  # wherever it stands on the line
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        with warnings.catch_warnings():  # gives the way of showing them back afterwards
            if not debug:
                warnings.showwarning = _show_warning
            sys.exit(app(arguments, prog_name="spahgc", standalone_mode=False))
    except (KeyboardInterrupt, typer.Abort):  # click turns the one into the other
        typer.echo("spahgc: interrupted", err=True)
        sys.exit(EXIT_INTERRUPTED)
    except Exception as error:
        if debug:
            raise
        typer.echo(f"spahgc: {_one_line(error)}", err=True)
        sys.exit(EXIT_ERROR)


def _one_line(error: Exception) -> str:
    text = error.format_message() if hasattr(error, "format_message") else None
    if text is None:
        # str() of a KeyError is the repr of its message.
        text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return " ".join(text.split()) or type(error).__name__


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    # Deprecations of other packages are no business of somebody at a command line.
    if not issubclass(category, (DeprecationWarning, FutureWarning, SyntaxWarning)):
        typer.echo(f"spahgc: warning: {' '.join(str(message).split())}", err=True)
