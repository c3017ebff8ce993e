"""All commands, in the order in which the help lists them."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from spahgc.cli._compare import compare
from spahgc.cli._cross_validate import cross_validate
from spahgc.cli._demo import demo
from spahgc.cli._doctor import doctor
from spahgc.cli._domains import domains
from spahgc.cli._embed import embed
from spahgc.cli._evaluate import evaluate
from spahgc.cli._export import export
from spahgc.cli._fetch import fetch
from spahgc.cli._fit import fit
from spahgc.cli._output import (
    EXIT_CLOSED_PIPE,
    EXIT_ERROR,
    EXIT_FINDINGS,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_TERMINATED,
    Printed,
)
from spahgc.cli._plot import plot
from spahgc.cli._predict import predict
from spahgc.cli._read import read
from spahgc.cli._regions import regions
from spahgc.cli._registries import cohorts, encoders
from spahgc.cli._report import report
from spahgc.cli._run import run
from spahgc.cli._tile import tile
from spahgc.cli._trusted_genes import trusted_genes

COMMANDS: tuple[Callable[..., Printed], ...] = (
    run,
    read,
    tile,
    embed,
    compare,
    fit,
    predict,
    evaluate,
    cross_validate,
    domains,
    regions,
    trusted_genes,
    plot,
    report,
    export,
    fetch,
    encoders,
    cohorts,
    doctor,
    demo,
)
EXIT_CODES = {
    EXIT_OK: "done",
    EXIT_FINDINGS: "doctor found something that needs mending",
    EXIT_ERROR: "an error; one line on stderr says what is wrong and what to do",
    EXIT_INTERRUPTED: "interrupted (Ctrl-C); nothing half-written is left",
    EXIT_TERMINATED: "ended by SIGTERM (by another signal: 128 and its number); nothing half-written is left",
    EXIT_CLOSED_PIPE: "whoever read the results, such as head, stopped reading",
}
EXAMPLE = "\nExample:\n"
"""Line of a command's docstring below which its example stands."""
KEPT_LINES = "\b\n"
"""Before a paragraph of a help text whose lines are not to be joined."""

app = typer.Typer(
    name="spahgc",
    help="Predict the spatial gene expression of an H&E slide from measured reference slides.",
    epilog=KEPT_LINES + "\n".join(["Exit codes:", *(f"  {code:<4} {text}" for code, text in EXIT_CODES.items())]),
    add_completion=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # the help holds brackets, which rich would take for its own
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from spahgc import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _general(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error; anywhere on the line.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="No progress bars and no notes on stderr; anywhere on the line.")
    ] = False,
) -> None:
    from spahgc import settings
    from spahgc._settings import show_progress_in_lines

    settings.progress = not quiet
    show_progress_in_lines(not sys.stderr.isatty())


def _expanded(value: Any) -> Any:
    """Paths with ``~`` as the home folder, which shells leave as it is in ``--output=~/x``; other values as they are."""
    if isinstance(value, list):
        return [_expanded(item) for item in value]
    if not isinstance(value, Path) or (str(value) and not any(sign in str(value) for sign in "~\0")):
        return value
    from spahgc._validate import user_path  # loads numpy

    return user_path(value)


def _add(function: Callable[..., Printed]) -> None:
    """Make a command of a function that returns what stdout gets."""

    @wraps(function)
    def run(**options: Any) -> None:
        try:
            with redirect_stdout(sys.stderr):  # what other packages print is no result
                printed = function(**{name: _expanded(value) for name, value in options.items()})
        except KeyboardInterrupt as interruption:  # which releases of click and typer treat in several ways
            raise typer.Abort from interruption
        try:
            typer.echo(printed.text)
        except BrokenPipeError as closed:  # the reader, such as head, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(EXIT_CLOSED_PIPE) from closed
        if printed.exit_code:
            raise typer.Exit(printed.exit_code)

    text, _, example = (inspect.getdoc(function) or "").partition(EXAMPLE)
    name = function.__name__.replace("_", "-")
    app.command(name, help=text, epilog=f"{KEPT_LINES}Example:\n{example}")(run)


for _command in COMMANDS:
    _add(_command)


def commands() -> Mapping[str, Any]:
    """Parsers of the commands by name, with their options."""
    return typer.main.get_command(app).commands  # type: ignore[attr-defined]
