"""Progress bars: of this process alone."""

from __future__ import annotations

import threading

from tqdm.auto import tqdm

from spahgc._settings import progress_bar

LONG_S = 60.0
"""Seconds after which a thread is taken to wait forever."""


def test_a_bar_does_not_wait_for_a_process_that_was_killed_while_it_held_tqdms_lock():
    def draw() -> None:
        with progress_bar(total=1) as bar:
            bar.update()

    lock = tqdm.get_lock()
    lock.acquire()  # shared with forked processes; one that is killed never lets go of it
    try:
        thread = threading.Thread(target=draw, daemon=True)
        thread.start()
        thread.join(LONG_S)
        assert not thread.is_alive()
    finally:
        lock.release()
