"""A full disk, a folder that may not be written, a file that vanishes, Ctrl-C and SIGTERM, while something is written.

    python benchmarks/disk.py --moments 8

Every function that writes, and every command of the shell, meets each of these. Afterwards what was there before lies
there unharmed, or the new result whole; nothing half-written and no process is left; a function raises an error of the
package, and a command says one line and ends with its exit code. When the trouble is over, the same call ends well.

A small file system in memory is filled, or made read-only, where this process may mount one; the same errors also come at
chosen moments from where Python touches the file system. Files are limited in size by the system as well (RLIMIT_FSIZE).
"""

from __future__ import annotations

import argparse
import errno
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

# Before torch and numba: a forked child must not wait for threads that it does not have.
os.environ |= {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "NUMBA_THREADING_LAYER": "workqueue"}

import pandas as pd
from _cohorts import made_with, markdown
from robustness.children import Child, Ended, Send, in_child, must_end_well
from robustness.commands import COMMANDS, quick_presets
from robustness.moments import Action, Moments, evenly, is_removal
from robustness.operations import OPERATIONS, Operation, listing, warm

DISK_MB = 48
"""Size of the small file system; a template and a copy fit into it."""
SHARES = (0.0, 0.2, 0.5, 0.8, 0.95)
"""Of what a call needs, that is free on the disk."""
FILE_SIZES = (1_000, 8_000, 40_000)
"""Limits of the size of a file, bytes."""
SECONDS = 120.0
INTERRUPTED, TERMINATED = 130, 143
"""Exit codes of a shell's commands after the signals: 128 and their numbers."""

FULL, LIMITED, READ_ONLY, DENIED, NO_ROOM, VANISHED, INTERRUPT, TERMINATE = (
    "full disk", "limited files", "read-only", "denied", "no room", "vanished", "Ctrl-C", "SIGTERM",
)  # fmt: skip


class Trouble(NamedTuple):
    """What happens to a call."""

    kind: str
    label: str
    around: Callable[[], Any]
    """A context in which the call is made, e.g. with a full disk."""
    at: int | None = None
    """The moment at which `action` is done."""
    action: Action | None = None
    file_size: int | None = None


class Whole(NamedTuple):
    """A call without trouble."""

    before: dict[str, str | None]
    after: dict[str, str | None]
    listing_before: list[str]
    listing_after: list[str]
    listing_settled: list[str]
    moments: list[str]
    n_bytes: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moments", type=int, default=8, help="of each operation at which trouble begins (default: 8)")
    parser.add_argument("--operation", action="append", metavar="NAME", help="those whose name begins so; repeat")
    parser.add_argument("--trouble", action="append", metavar="NAME", help="full disk, Ctrl-C, ...; all if left out")
    arguments = parser.parse_args()
    known = (*OPERATIONS, *COMMANDS)
    chosen = [each for each in known if each.name.startswith(tuple(arguments.operation or [""]))]
    if not chosen:
        sys.exit("\n".join(operation.name for operation in known))
    quick_presets()
    warm()
    rows: dict[str, dict[str, str]] = {}
    failed: list[str] = []
    with tempfile.TemporaryDirectory(prefix="spahgc-disk-") as place, small_disk(Path(place)) as (disk, mounted):
        for operation in chosen:
            rows[operation.name], problems = try_operation(operation, disk, mounted, arguments)
            failed += problems
    print(markdown(pd.DataFrame.from_dict(rows, orient="index").fillna("").rename_axis("operation")))
    print(f"\nEach entry: calls that met the trouble and ended as they should, of all.\n\n{made_with()}")
    for line in failed:
        print(f"FAILED: {line}")
    sys.exit(1 if failed else 0)


@contextmanager
def small_disk(place: Path) -> Iterator[tuple[Path, bool]]:
    """A folder on a small file system of its own, and whether it is one; an ordinary folder where nothing may be mounted."""
    disk = place / "disk"
    disk.mkdir()
    call = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(disk)]
    mounted = shutil.which("mount") is not None and subprocess.run(call, capture_output=True).returncode == 0
    try:
        yield disk, mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(disk)], check=True)


def try_operation(
    operation: Operation, disk: Path, mounted: bool, arguments: argparse.Namespace
) -> tuple[dict[str, str], list[str]]:
    """How one operation takes every trouble."""
    template, work = disk.with_name("template"), disk / "work"
    shutil.rmtree(template, ignore_errors=True)
    template.mkdir()
    must_end_well(in_child(lambda: operation.prepare(template), memory=None), f"{operation.name}: preparing")
    whole = without_trouble(operation, template, work)
    counts: dict[str, list[int]] = {}
    problems = []
    for trouble in troubles(operation, whole, disk, mounted, arguments.moments):
        if arguments.trouble is not None and trouble.kind not in arguments.trouble:
            continue
        problem = try_trouble(operation, trouble, whole, template, work)
        good, tried = counts.get(trouble.kind, [0, 0])
        counts[trouble.kind] = [good + (problem is None), tried + 1]
        if problem is not None:
            problems.append(f"{operation.name}, {trouble.label}: {problem}")
            print(problems[-1], file=sys.stderr, flush=True)
    return {kind: f"{good} of {n}" for kind, (good, n) in counts.items()}, problems


def copied(template: Path, work: Path) -> None:
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(template, work, symlinks=True)


def without_trouble(operation: Operation, template: Path, work: Path) -> Whole:
    copied(template, work)
    before = must_end_well(in_child(lambda: operation.state(work), memory=None), operation.name).value
    names, taken = listing(work), _taken(work)

    def count() -> list[str]:
        moments = Moments(work)
        try:
            operation.run(work)
        except SystemExit as end:
            if end.code:
                raise
        moments.active = False
        return moments.labels

    moments = must_end_well(in_child(count, memory=None), operation.name).value
    after = must_end_well(in_child(lambda: operation.state(work), memory=None), operation.name).value
    listing_after, n_bytes = listing(work), max(_taken(work) - taken, 200_000)
    must_end_well(in_child(lambda: operation.settle(work), memory=None), f"{operation.name}: settling")
    return Whole(before, after, names, listing_after, listing(work), moments, n_bytes)


def _taken(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def troubles(operation: Operation, whole: Whole, disk: Path, mounted: bool, n: int) -> Iterator[Trouble]:
    """All that can happen to an operation."""
    nothing = _nothing
    if mounted:
        for share in SHARES:
            room = int(share * whole.n_bytes)
            yield Trouble(FULL, f"{FULL}, {room:,} bytes free", lambda room=room: filled(disk, room))
        yield Trouble(READ_ONLY, READ_ONLY, lambda: remounted_read_only(disk))
    for size in FILE_SIZES:
        yield Trouble(LIMITED, f"{LIMITED} of {size:,} bytes", nothing, file_size=size)
    for number in evenly(len(whole.moments), n):
        for kind, code in ((INTERRUPT, signal.SIGINT), (TERMINATE, signal.SIGTERM)):
            label = f"{kind} at moment {number}, {whole.moments[number]}"
            yield Trouble(kind, label, nothing, number, lambda code=code: _signal(code))
    writing = [number for number, label in enumerate(whole.moments) if not is_removal(label)]
    for number in (writing[place] for place in evenly(len(writing), n)):
        for kind, code in ((DENIED, errno.EACCES), (NO_ROOM, errno.ENOSPC)):
            label = f"{kind} at moment {number}, {whole.moments[number]}"
            yield Trouble(kind, label, nothing, number, lambda code=code: _raise(code))
    for name in operation.inputs:
        for number in (-1, 0, len(whole.moments) // 3):
            yield Trouble(
                VANISHED, f"{name} {VANISHED} at moment {number}", nothing, number, lambda name=name: _remove(name)
            )


def try_trouble(operation: Operation, trouble: Trouble, whole: Whole, template: Path, work: Path) -> str | None:
    """What is wrong with how the operation took it, ``None`` if nothing."""
    copied(template, work)

    def run() -> Any:
        os.chdir(work)
        if trouble.at is not None and trouble.at < 0 and trouble.action is not None:
            trouble.action()
        elif trouble.action is not None:
            Moments(work, trouble.at, trouble.action)
        return operation.run(work)

    with trouble.around():
        ended = in_child(run, timeout_s=SECONDS, memory=None, file_size=trouble.file_size)
    vanished = [name for name in operation.inputs if not (work / name).exists()]
    for name in vanished:
        shutil.copyfile(template / name, work / name)
    return _wrong_end(operation, trouble, ended) or _wrong_afterwards(operation, trouble, whole, work, ended)


def _wrong_end(operation: Operation, trouble: Trouble, ended: Ended) -> str | None:
    """Whether it ended in another way than the trouble asks for."""
    if ended.hung or ended.left:
        return ended.problem
    if operation in COMMANDS:
        return _wrong_words(trouble, ended)
    if trouble.kind == TERMINATE:  # a function is in the hands of whoever called it
        return None if ended.signal in (signal.SIGTERM, None) else ended.problem
    if trouble.kind == INTERRUPT and ended.error is not None:
        return None if ended.error["type"] == "KeyboardInterrupt" else f"raised {ended.error['text']}"
    return ended.problem


def _wrong_words(trouble: Trouble, ended: Ended) -> str | None:
    """Whether a command said something else than one line, or ended with another exit code."""
    lines = [line for line in ended.stderr.splitlines() if not line.startswith("spahgc: warning")]
    allowed = {INTERRUPT: (INTERRUPTED, 0), TERMINATE: (TERMINATED, 0)}.get(trouble.kind, (2, 0))
    if ended.signal is not None:
        return f"{ended.problem}, without a word"
    if ended.code not in allowed:
        return f"exit code {ended.code}, and not {allowed[0]}: {ended.stderr[-300:]!r}"
    if ended.code and (len(lines) != 1 or not lines[0].startswith("spahgc: ")):
        return f"said {len(lines)} lines: {ended.stderr[-300:]!r}"
    return None


def _wrong_afterwards(operation: Operation, trouble: Trouble, whole: Whole, work: Path, first: Ended) -> str | None:
    """Whether something is half-written or left behind, or the same call fails when the trouble is over."""

    def look_and_run_again(send: Send) -> dict[str, Any]:
        send({"found": operation.state(work), "listing": listing(work)})
        code: Any = 0
        try:
            operation.run(work)
        except SystemExit as end:
            code = end.code or 0
        state = operation.state(work)
        operation.settle(work)
        return {"code": code, "state": state, "listing": listing(work)}

    ended = Child(look_and_run_again, memory=None).end(SECONDS)
    wrong = ended.problem or (ended.error or {}).get("text")
    if not ended.messages or "found" not in ended.messages[0]:
        return f"what lies there cannot be read: {wrong}"
    found = ended.messages[0]["found"]
    for name in {*whole.before, *found}:
        if found.get(name) not in (whole.before.get(name), whole.after.get(name)):
            return f"neither the old nor the new lies there: {name}"
    more = {*ended.messages[0]["listing"]} - {*whole.listing_before, *whole.listing_after}
    more = {name for name in more if not name.startswith(operation.kept or ("\n",))}
    if more and not _left_for_the_next(trouble, first):
        return f"left behind: {', '.join(sorted(more)[:5])}"
    if wrong is not None or ended.value["code"]:
        return f"the second call fails: {wrong or ended.stderr[-300:]}"
    if ended.value["state"] != whole.after:
        return "the second call has another result"
    more = {*ended.value["listing"]} ^ {*whole.listing_settled}
    return f"left behind or missing after the second call: {', '.join(sorted(more)[:5])}" if more else None


def _left_for_the_next(trouble: Trouble, first: Ended) -> bool:
    """Whether a part may stay until the next call: after a signal that killed, or one that came while it was removed."""
    killed = trouble.kind == TERMINATE and first.signal is not None
    return killed or (trouble.kind in (INTERRUPT, TERMINATE) and is_removal(trouble.label))


# --- troubles


@contextmanager
def _nothing() -> Iterator[None]:
    yield


@contextmanager
def filled(disk: Path, room: int) -> Iterator[None]:
    """The disk with so many bytes free."""
    filler = disk / "filler"
    state = os.statvfs(disk)
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(state.f_bavail * state.f_frsize - room, 1))
    try:
        yield
    finally:
        filler.unlink()


@contextmanager
def remounted_read_only(disk: Path) -> Iterator[None]:
    """The disk read-only."""
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    try:
        yield
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)


def _raise(number: int) -> None:
    raise OSError(number, os.strerror(number))


def _signal(number: int) -> None:
    os.kill(os.getpid(), number)


def _remove(name: str) -> None:
    """The child stands in the folder."""
    os.unlink(name)


if __name__ == "__main__":
    main()
