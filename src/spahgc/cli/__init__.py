"""Command line. Results go to stdout; progress, warnings and messages to stderr.

A file a command, thin over the functions of the same name, which are imported when the command runs: help and completion
load nothing heavy. May import everything.
"""

from spahgc.cli._app import EXIT_CODES, app
from spahgc.cli._main import main

__all__ = ["EXIT_CODES", "app", "main"]
