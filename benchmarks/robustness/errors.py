"""Whose error it is: the package's own, raised on purpose and with words, or one that slipped through."""

from __future__ import annotations

import dis
from pathlib import Path
from types import TracebackType
from typing import Any

import spahgc

SOURCE = str(Path(spahgc.__file__).parent)
RAISE = dis.opmap["RAISE_VARARGS"]


def is_ours(error: BaseException) -> bool:
    """Whether a raise statement of the package made it, and it says something; of a group, each of its members too.

    A mistake such as an index out of range has its last frame in the package as well, but at another instruction.
    """
    if isinstance(error, BaseExceptionGroup):
        return all(map(is_ours, error.exceptions))
    last = _last(error.__traceback__)
    if last is None or not last.tb_frame.f_code.co_filename.startswith(SOURCE):
        return False
    return last.tb_frame.f_code.co_code[last.tb_lasti] == RAISE and bool(str(error).strip())


def describe(error: BaseException) -> dict[str, Any]:
    """Kind, words and place of an error, and whose it is."""
    culprit = error
    while isinstance(culprit, BaseExceptionGroup):  # the first member that is not ours, if there is one
        culprit = next((each for each in culprit.exceptions if not is_ours(each)), culprit.exceptions[0])
    last = _last(culprit.__traceback__)
    raised = "" if last is None else f"{_short(last.tb_frame.f_code.co_filename)}:{last.tb_lineno}"
    text = " ".join(f"{type(culprit).__name__}: {culprit}".split())
    return {"type": type(error).__name__, "ours": is_ours(error), "raised": raised, "text": text[:400]}


def _last(trace: TracebackType | None) -> TracebackType | None:
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace


def _short(file: str) -> str:
    return str(Path(*Path(file).parts[-3:]))
