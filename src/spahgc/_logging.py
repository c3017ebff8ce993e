"""Messages: the logger ``spahgc``, how much it says, and where that can be read."""

from __future__ import annotations

import logging
import sys
import warnings
from enum import IntEnum

NAME = "spahgc"
"""Of the logger, by which a program can have it as it wants."""
HINT = (logging.INFO + logging.DEBUG) // 2
"""Level between info and debug, which scanpy has as well."""


class Verbosity(IntEnum):
    """How much is said, in scanpy's five steps; each is equal to its name and to its number."""

    error = 0
    """Errors alone, which are raised: no progress, no lines, none of the package's warnings."""
    warning = 1
    """Warnings of what was assumed, guessed or left out."""
    info = 2
    """And progress bars, and what a prediction is worth."""
    hint = 3
    """And what was read and selected, and under which keys results were written."""
    debug = 4
    """And how long it took, and where it was computed."""

    def __eq__(self, other: object) -> bool:
        return self.name == other if isinstance(other, str) else int(self) == other

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = IntEnum.__hash__

    @property
    def level(self) -> int:
        """The level of :mod:`logging`."""
        return _LEVELS[int(self)]


_LEVELS = (logging.ERROR, logging.WARNING, logging.INFO, HINT, logging.DEBUG)

logger = logging.getLogger(NAME)


def verbosity() -> Verbosity:
    """How much the logger says, whoever has set its level."""
    level = logger.getEffectiveLevel()
    return next((step for step in Verbosity if step.level <= level), Verbosity.debug)


def set_verbosity(wanted: Verbosity | str | int) -> None:
    """Set how much is said: a name of :class:`Verbosity`, or its number.

    Raises
    ------
    ValueError
        If it is neither.
    """
    names = [step.name for step in Verbosity]
    # Steps of scanpy's are numbers as well.
    number = names.index(wanted) if isinstance(wanted, str) and wanted in names else wanted
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < len(names):
        steps = ", ".join(f'"{name}" ({place})' for place, name in enumerate(names))
        raise ValueError(f"settings.verbosity={wanted!r} is not known. Set one of {steps}.")
    logger.setLevel(_LEVELS[int(number)])


def says(step: Verbosity) -> bool:
    """Whether messages of that kind are wanted."""
    return logger.isEnabledFor(step.level)


def warn(message: str, category: type[Warning] = UserWarning, *, stacklevel: int = 1) -> None:
    """:func:`warnings.warn`, silent where ``settings.verbosity`` is ``"error"``.

    Parameters
    ----------
    message
        What was assumed, guessed or left out.
    category
        Kind of the warning.
    stacklevel
        Which caller it is said to come from, counted as :func:`warnings.warn` does.
    """
    if says(Verbosity.warning):
        warnings.warn(message, category, stacklevel=stacklevel + 1)


class _Console(logging.Handler):
    """Where messages are read as long as nobody has said where: as scanpy, on stdout in an interactive session, else on stderr.

    It steps back where the logger or the root logger has a handler that a program gave it.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Write a message, unless another handler does."""
        others = [*logger.handlers, *(logging.getLogger().handlers if logger.propagate else [])]
        if any(handler is not self for handler in others):
            return
        interactive = hasattr(sys, "ps1") or "ipykernel" in sys.modules
        try:  # the streams of the moment: notebooks and tests exchange them
            print(self.format(record), file=sys.stdout if interactive else sys.stderr, flush=True)
        except Exception:  # noqa: BLE001 - as handlers of logging do
            self.handleError(record)


class _Format(logging.Formatter):
    """As scanpy writes them: a message as it is, hints and details below it, errors and warnings with their level."""

    def format(self, record: logging.LogRecord) -> str:
        """A line of a message."""
        marks = {logging.INFO: "", HINT: "--> ", logging.DEBUG: "    "}
        return marks.get(record.levelno, f"{record.levelname}: ") + super().format(record)


def _set_up() -> None:
    """Give the logger a level and a console of its own: once, and what a program has set already stays."""
    logging.addLevelName(HINT, "HINT")
    if logger.level == logging.NOTSET:
        logger.setLevel(Verbosity.info.level)
    if not any(handler.get_name() == NAME for handler in logger.handlers):
        console = _Console()
        console.set_name(NAME)
        console.setFormatter(_Format())
        logger.addHandler(console)


_set_up()
