"""Everything that writes, killed at its moments: afterwards the old or the new lies there, and a second call ends well.

    python benchmarks/killed.py --moments 60 --timers 20

A call is killed (SIGKILL) just before it opens, renames, removes, links or locks a file, and just after it has opened one
for writing, at moments spaced evenly over all of these; and, since libraries write without Python's knowledge, at random
times. Then a reader must find what was there before or what the call writes, whole. The same call again must end well with
the very numbers of a call that nothing disturbed, and leave the same files behind: no part, no lock, nothing temporary.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

# Before torch and numba: a forked child must not wait for threads that it does not have.
os.environ |= {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "NUMBA_THREADING_LAYER": "workqueue"}

import pandas as pd
from _cohorts import made_with, markdown
from robustness.children import Child, Send, in_child, must_end_well
from robustness.moments import Moments, evenly, kill
from robustness.operations import OPERATIONS, Operation, fresh, listing, warm

MEMORY = 8 * 2**30
"""Bytes of address space of a child; nothing here is a bomb."""

OLD, PARTLY, NEW, BROKEN = "old found", "part is new", "new found", "neither"


class Undisturbed(NamedTuple):
    """A call that nothing disturbed."""

    before: dict[str, str | None]
    after: dict[str, str | None]
    value: str
    listing: list[str]
    moments: list[str]
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moments", type=int, default=60, help="of each operation at which it is killed (default: 60)")
    parser.add_argument("--timers", type=int, default=20, help="random times, in addition (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="of the random times (default: 0)")
    parser.add_argument("--operation", action="append", metavar="NAME", help="those whose name begins so; repeat")
    parser.add_argument("--only", type=int, metavar="NUMBER", help="this moment of each operation alone")
    arguments = parser.parse_args()
    chosen = [each for each in OPERATIONS if each.name.startswith(tuple(arguments.operation or [""]))]
    if not chosen:
        sys.exit("\n".join(operation.name for operation in OPERATIONS))
    warm()
    rows, failed = {}, []
    with tempfile.TemporaryDirectory(prefix="spahgc-killed-") as place:
        for operation in chosen:
            row, problems = try_operation(operation, Path(place), arguments)
            rows[operation.name] = row
            failed += [f"{operation.name}, {problem}" for problem in problems]
    print(markdown(pd.DataFrame.from_dict(rows, orient="index").astype(str).rename_axis("operation")))
    print(f"\n{made_with()}")
    for line in failed:
        print(f"FAILED: {line}")
    sys.exit(1 if failed else 0)


def try_operation(operation: Operation, place: Path, arguments: argparse.Namespace) -> tuple[dict[str, int], list[str]]:
    """How often it was killed, what was found, and what was wrong."""
    template, work = fresh(place / "template"), place / "work"
    must_end_well(in_child(lambda: operation.prepare(template), memory=MEMORY), f"{operation.name}: preparing")
    whole = undisturbed(operation, template, work)
    kills: list[tuple[str, Callable[[], None]]] = []
    numbers = evenly(len(whole.moments), arguments.moments) if arguments.only is None else [arguments.only]
    for number in numbers:
        kills.append((f"moment {number}, {whole.moments[number]}", _killer(operation, work, number)))
    rng = random.Random(arguments.seed)
    for number in range(arguments.timers if arguments.only is None else 0):
        after_s = rng.uniform(0, whole.seconds)
        kills.append((f"timer {number}, after {after_s:.4f} s", _timed(operation, work, after_s)))
    row = {"moments": len(whole.moments), "killed": 0, "ended first": 0, OLD: 0, PARTLY: 0, NEW: 0, BROKEN: 0}
    problems = []
    for label, call in kills:
        _reset(work, template)
        ended = in_child(call, memory=MEMORY)
        row["killed" if ended.signal is not None else "ended first"] += 1
        found, problem = _look_and_run_again(operation, work, whole)
        row[found] += 1
        if problem is not None:
            problems.append(f"{label}: {problem}")
            print(f"{operation.name}, {problems[-1]}", file=sys.stderr, flush=True)
    return row | {"failed": len(problems)}, problems


def undisturbed(operation: Operation, template: Path, work: Path) -> Undisturbed:
    """Run it once, and count its moments."""
    _reset(work, template)

    def run() -> dict[str, Any]:
        before = operation.state(work)
        moments = Moments(work)
        started = time.perf_counter()
        value = operation.run(work)
        seconds = time.perf_counter() - started
        moments.active = False
        after = operation.state(work)
        operation.settle(work)
        return Undisturbed(before, after, value, listing(work), moments.labels, seconds)._asdict()

    return Undisturbed(**must_end_well(in_child(run, memory=MEMORY), operation.name).value)


def _reset(work: Path, template: Path) -> None:
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(template, work, symlinks=True)


def _killer(operation: Operation, work: Path, number: int) -> Callable[[], None]:
    def run() -> None:
        Moments(work, number, kill)
        operation.run(work)

    return run


def _timed(operation: Operation, work: Path, after_s: float) -> Callable[[], None]:
    def run() -> None:
        signal.setitimer(signal.ITIMER_REAL, max(after_s, 1e-6))  # nobody handles it, so that it kills
        operation.run(work)

    return run


def _look_and_run_again(operation: Operation, work: Path, whole: Undisturbed) -> tuple[str, str | None]:
    """What lies there now, and what is wrong with it or with a second call."""

    def look_and_run_again(send: Send) -> dict[str, Any]:
        send({"found": operation.state(work)})
        value = operation.run(work)
        state = operation.state(work)
        operation.settle(work)
        return {"value": value, "state": state, "listing": listing(work)}

    ended = Child(look_and_run_again, memory=MEMORY).end()
    wrong = ended.problem or (ended.error or {}).get("text")
    if not ended.messages or "found" not in ended.messages[0]:
        return BROKEN, f"what lies there cannot be read: {wrong}"
    state = ended.messages[0]["found"]
    others = [name for name in state if state[name] not in (whole.before.get(name), whole.after.get(name))]
    others += [name for name in whole.before if name not in state]
    if others:
        return BROKEN, f"neither the old nor the new lies there: {', '.join(others)}"
    found = OLD if state == whole.before else NEW if state == whole.after else PARTLY
    if wrong is not None:
        return found, f"the second call fails: {wrong}"
    if ended.value["value"] != whole.value or ended.value["state"] != whole.after:
        return found, "the second call has another result"
    more = sorted(set(ended.value["listing"]) ^ set(whole.listing))
    return found, f"left behind or missing after the second call: {', '.join(more[:5])}" if more else None


if __name__ == "__main__":
    main()
