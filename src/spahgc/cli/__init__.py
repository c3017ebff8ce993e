"""Command line. Results go to stdout; progress, warnings and messages to stderr."""

from spahgc.cli._app import EXIT_CODES, app
from spahgc.cli._main import main

__all__ = ["EXIT_CODES", "app", "main"]
