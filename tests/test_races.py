"""Processes and threads at the same time: a short run of ``benchmarks/races.py``."""

from __future__ import annotations

import importlib.util
from pathlib import Path

_spec = importlib.util.spec_from_file_location("harness", Path(__file__).with_name("harness.py"))
harness = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(harness)


RACES = ("bank, new", "bank, append", "model, saved over", "predict_many, two", "download", "threads")


def test_processes_and_threads_at_the_same_time_find_the_right_result_or_an_error_in_words() -> None:
    named = (word for name in RACES for word in ("--race", name))
    harness.run("races.py", "--repetitions", "1", "--processes", "2", *named)
