"""A full disk, Ctrl-C and more while something is written: a short run of ``benchmarks/disk.py``."""

from __future__ import annotations

import importlib.util
from pathlib import Path

_spec = importlib.util.spec_from_file_location("harness", Path(__file__).with_name("harness.py"))
harness = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(harness)


OPERATIONS = ("SpaHGC.save over", "spahgc evaluate")


def test_a_full_disk_and_signals_leave_nothing_half_written_and_are_told_in_words() -> None:
    harness.run("disk.py", "--moments", "1", *(word for name in OPERATIONS for word in ("--operation", name)))
