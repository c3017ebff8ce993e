"""Runs a harness of ``benchmarks/`` in a process of its own, as somebody does by hand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
TIMEOUT_S = 600
"""Far beyond what a short run takes, also where several others run beside it."""


def run(script: str, *arguments: str) -> None:
    """Fail with what the harness says of each mutant or moment that went wrong."""
    if sys.platform != "linux":
        pytest.skip("the harnesses fork, and look into /proc")
    source = str(Path(__file__).parents[1] / "src")
    paths = os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / script), *arguments],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    if done.returncode:
        failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED: ")]
        pytest.fail("\n".join([f"{script} {' '.join(arguments)}", *failed]) if failed else done.stdout + done.stderr)
