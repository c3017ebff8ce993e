"""Damaged files are refused in words or read right: a short run of ``benchmarks/fuzz.py``."""

from __future__ import annotations

import importlib.util
from pathlib import Path

_spec = importlib.util.spec_from_file_location("harness", Path(__file__).with_name("harness.py"))
harness = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(harness)


def test_damaged_files_are_refused_in_words_or_read_right() -> None:
    harness.run("fuzz.py", "--mutants", "108", "--seed", "1")
