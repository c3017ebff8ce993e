"""A killed process leaves the old or the new: a short run of ``benchmarks/killed.py``."""

from __future__ import annotations

import importlib.util
from pathlib import Path

_spec = importlib.util.spec_from_file_location("harness", Path(__file__).with_name("harness.py"))
harness = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(harness)


OPERATIONS = ("embed, resumed", "SpaHGC.save over", "reference_bank, append", "cross_validate", "report over")


def test_a_killed_process_leaves_the_old_or_the_new_and_the_next_call_ends_well() -> None:
    named = (word for name in OPERATIONS for word in ("--operation", name))
    harness.run("killed.py", "--moments", "1", "--timers", "0", *named)
