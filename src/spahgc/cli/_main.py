"""From the arguments of a shell to an exit code."""

from __future__ import annotations

import sys
import warnings
from typing import Any

import typer

from spahgc.cli._app import app
from spahgc.cli._output import EXIT_ERROR, EXIT_INTERRUPTED

ANYWHERE = ("--debug", "--quiet")
"""Options of all commands, which may stand before the command or after it."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; an error is one line on stderr and exit code 2, a traceback only with ``--debug``."""
    arguments = _general_first(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments[: len(ANYWHERE)]
    try:
        with warnings.catch_warnings():  # gives the way of showing them back afterwards
            if not debug:
                warnings.showwarning = _show_warning
            sys.exit(app(arguments, prog_name="spahgc", standalone_mode=False))
    except (KeyboardInterrupt, typer.Abort):
        typer.echo("spahgc: interrupted", err=True)
        sys.exit(EXIT_INTERRUPTED)
    except Exception as error:
        if debug:
            raise
        typer.echo(f"spahgc: {_one_line(error)}", err=True)
        sys.exit(EXIT_ERROR)


def _general_first(arguments: list[str]) -> list[str]:
    """The arguments with the options of all commands before the command; a call for help where there is no command."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    general = [name for name in ANYWHERE if name in arguments[:end]]
    others = [each for each in arguments[:end] if each not in ANYWHERE] + arguments[end:]
    return [*general, *(others or ["--help"])]


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
