"""From the arguments of a shell to an exit code."""

from __future__ import annotations

import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer

from spahgc.cli._app import app, commands
from spahgc.cli._arguments import command_name, spread
from spahgc.cli._output import EXIT_BY_SIGNAL, EXIT_ERROR, EXIT_INTERRUPTED
from spahgc.cli._words import Options, in_words_of_the_shell

ANYWHERE = ("--debug", "--quiet")
"""Options of all commands, which may stand before the command or after it."""


ENDING = ("SIGTERM", "SIGHUP")
"""Signals that ask a program to end, beside that of Ctrl-C; Windows has the first alone."""


class Ended(BaseException):
    """A signal has asked the program to end; no error, so that nothing goes on after it."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(number.name)
        self.signal = number


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; an error is one line on stderr and exit code 2, a traceback only with ``--debug``."""
    arguments = _general_first(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments[: len(ANYWHERE)]
    options = Options(commands(), command_name(arguments))
    arguments = spread(arguments, options.commands)

    def show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        # Deprecations of other packages are no business of somebody at a command line.
        if not issubclass(category, (DeprecationWarning, FutureWarning, SyntaxWarning)):
            said = in_words_of_the_shell(" ".join(str(message).split()), options)
            typer.echo(f"spahgc: warning: {said}", err=True)

    try:
        with _signals_as_errors(), warnings.catch_warnings():  # gives the way of showing them back afterwards
            if not debug:
                warnings.showwarning = show_warning
            sys.exit(app(arguments, prog_name="spahgc", standalone_mode=False))
    except Ended as ended:
        typer.echo(f"spahgc: ended by {ended.signal.name}", err=True)
        sys.exit(EXIT_BY_SIGNAL + ended.signal)
    except (KeyboardInterrupt, typer.Abort):
        typer.echo("spahgc: interrupted", err=True)
        sys.exit(EXIT_INTERRUPTED)
    except Exception as error:
        if debug:
            raise
        typer.echo(f"spahgc: {in_words_of_the_shell(_one_line(error), options)}", err=True)
        sys.exit(EXIT_ERROR)


@contextmanager
def _signals_as_errors() -> Iterator[None]:
    """Let signals that end the program do so by way of an error, so that parts of files and processes go with it.

    One that is ignored, as SIGHUP is under nohup, stays ignored, and one that the caller handles stays the caller's.
    """

    def end(number: int, _: object) -> None:
        raise Ended(signal.Signals(number))

    found = [getattr(signal, name) for name in ENDING if hasattr(signal, name)]
    in_main_thread = threading.current_thread() is threading.main_thread()
    ours = [each for each in found if in_main_thread and signal.getsignal(each) is signal.SIG_DFL]
    for each in ours:
        signal.signal(each, end)
    try:
        yield
    finally:
        for each in ours:
            signal.signal(each, signal.SIG_DFL)


def _general_first(arguments: list[str]) -> list[str]:
    """The arguments with the options of all commands before the command; a call for help where there is no command."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    general = [name for name in ANYWHERE if name in arguments[:end]]
    others = [each for each in arguments[:end] if each not in ANYWHERE] + arguments[end:]
    return [*general, *(others or ["--help"])]


def _one_line(error: Exception) -> str:
    text = error.format_message() if hasattr(error, "format_message") else None
    if text is not None:  # of the parser, which knows the command that it was busy with
        context = getattr(error, "ctx", None)
        text = f"{text.rstrip('.')}. See `{context.command_path if context else 'spahgc'} --help`."
    else:
        # str() of a KeyError is the repr of its message.
        text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return " ".join(text.split()) or type(error).__name__
