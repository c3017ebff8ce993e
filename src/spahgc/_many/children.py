"""Processes that this one starts, and that must not outlive it."""

from __future__ import annotations

import os
import threading
import time

POLL_S = 0.5
"""Seconds between two looks at whether the process that started this one is still there."""


def end_with(parent: int) -> None:
    """End this process when the one that started it has ended, however that came about.

    A process that is killed can end none of its own, and theirs would wait for work for good. A thread looks for it: the
    signal that Linux offers (``PR_SET_PDEATHSIG``) comes already when the *thread* ends that started the process.

    Parameters
    ----------
    parent
        Its number.
    """
    threading.Thread(target=_watch, args=(parent,), name="spahgc-end-with-parent", daemon=True).start()


def _watch(parent: int) -> None:
    # An orphan has another parent. On Windows it keeps the number of the one that has gone, and nothing is noticed.
    while os.getppid() == parent:
        time.sleep(POLL_S)
    os._exit(1)
