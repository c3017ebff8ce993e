"""Files that were damaged in every way: each is read in a process of its own, and must be refused in words or be right.

    python benchmarks/fuzz.py --mutants 5000 --seed 0

Every kind of file gets its share of the mutants: flipped, cut, doubled and inserted bytes, and, within the format, other
values, types, shapes and sizes, missing and additional entries, indices out of range, links to nowhere. Checksums are
brought up to date in most of them, so that what lies behind is reached. A mutant follows from seed, kind and number, so
that one that failed is made again by ``--kind NAME --only NUMBER``, and stays with ``--keep FOLDER``.

Allowed is an error that the package itself raised with words, or a result that such a file may have. A crash, a hang,
memory beyond 3 GB, an error of another package, an invalid result or a file outside the mutant's folder fails.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
import zlib
from collections import Counter
from pathlib import Path
from typing import NamedTuple

# Before torch and numba: a forked child must not wait for threads that it does not have.
os.environ |= {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "NUMBA_THREADING_LAYER": "workqueue"}

import numpy as np
import pandas as pd
from _cohorts import made_with, markdown
from robustness import samples, slides
from robustness.children import Child, Send
from robustness.errors import describe
from robustness.mutate import copied, mutate
from robustness.samples import KINDS, Invalid, Kind

PER_CHILD = 400
"""Mutants after which a child is replaced by a fresh one."""
HANG_S = 60.0
"""Seconds after which a mutant counts as hanging; each takes a fraction of one."""

REFUSED, UNCHANGED, VALID = "refused in our words", "read unchanged", "read with a valid result"
CRASH, HANG, FOREIGN, INVALID, OUTSIDE = "crash", "hang", "foreign exception", "invalid result", "file outside"
ALLOWED = (REFUSED, UNCHANGED, VALID)
FAILURES = (CRASH, HANG, FOREIGN, INVALID, OUTSIDE)


class Mutant(NamedTuple):
    """What became of one."""

    kind: str
    number: int
    change: str
    outcome: str
    details: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutants", type=int, default=1000, help="of all kinds together (default: 1000)")
    parser.add_argument("--seed", type=int, default=0, help="what the mutants follow from (default: 0)")
    parser.add_argument(
        "--kind", action="append", metavar="NAME", help="kinds whose name begins so; repeat for several"
    )
    parser.add_argument("--only", type=int, metavar="NUMBER", help="this mutant of each kind alone")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="leave the mutants that failed here")
    parser.add_argument("--list", action="store_true", help="list the kinds, and stop")
    arguments = parser.parse_args()
    kinds = [kind for kind in KINDS if arguments.kind is None or kind.name.startswith(tuple(arguments.kind))]
    if arguments.list or not kinds:
        sys.exit("\n".join(kind.name for kind in KINDS))
    slides.quiet()
    per_kind = max(arguments.mutants // len(kinds), 1)
    numbers = range(per_kind) if arguments.only is None else [arguments.only]
    mutants: list[Mutant] = []
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="spahgc-fuzz-") as place:
        for kind in kinds:
            started = time.perf_counter()
            mutants += fuzz(kind, list(numbers), arguments.seed, Path(place), arguments.keep)
            seconds[kind.name] = time.perf_counter() - started
    print(markdown(table(mutants, seconds)))
    print(f"\n{made_with()}")
    failed = [mutant for mutant in mutants if mutant.outcome in FAILURES]
    print("\n".join(map(_line, failed)))
    sys.exit(1 if failed else 0)


def _line(mutant: Mutant) -> str:
    return f"FAILED: {mutant.kind}, mutant {mutant.number} ({mutant.change}): {mutant.outcome}: {mutant.details}"


def fuzz(kind: Kind, numbers: list[int], seed: int, place: Path, keep: Path | None) -> list[Mutant]:
    """Mutants of one kind, as many in a child as it survives."""
    arena = place / f"{zlib.crc32(kind.name.encode()):08x}"
    arena.mkdir()
    whole = samples.make_sample(kind, place / f"{arena.name}-sample")
    found: list[Mutant] = []
    while len(found) < len(numbers):
        batch = numbers[len(found) : len(found) + PER_CHILD]
        found += _one_child(kind, batch, seed, arena, place / f"{arena.name}-sample", whole, keep)
    return found


def _one_child(
    kind: Kind, numbers: list[int], seed: int, arena: Path, sample: Path, whole: str, keep: Path | None
) -> list[Mutant]:
    """Mutants until the child ends; the one that ended it is the last."""
    shutil.rmtree(arena)
    arena.mkdir()
    child = Child(lambda send: _try_all(send, kind, numbers, seed, arena, sample, whole))
    found: list[Mutant] = []
    change = "?"
    while len(found) < len(numbers):
        message = child.receive(HANG_S)
        if message is None or "error" in message:
            end = child.end()
            if end.error is not None:  # everything that a reader raises is caught: it is a mistake of this harness
                sys.exit(f"{kind.name}, mutant {numbers[len(found)]}: {end.stderr}")
            details = end.problem or "the process ended"
            found.append(Mutant(kind.name, numbers[len(found)], change, HANG if end.hung else CRASH, details))
            _note_failure(found[-1], arena, keep)
            return found
        if "change" in message:
            change = message["change"]
        elif "outcome" in message:
            found.append(Mutant(kind.name, numbers[len(found)], change, message["outcome"], message["details"]))
            if message["outcome"] in FAILURES:
                _note_failure(found[-1], arena, keep)
    child.end()
    return found


def _note_failure(mutant: Mutant, arena: Path, keep: Path | None) -> None:
    print(_line(mutant), file=sys.stderr, flush=True)
    if keep is None:
        return
    slug = "".join(letter if letter.isalnum() else "-" for letter in mutant.kind)
    target = keep / f"{slug}-{mutant.number}"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(arena / f"mutant-{mutant.number}", target, symlinks=True)


def _try_all(send: Send, kind: Kind, numbers: list[int], seed: int, arena: Path, sample: Path, whole: str) -> None:
    """In the child: make each mutant, read it, and say what came of it."""
    for name in ("home", "tmp"):
        (arena / name).mkdir()
    os.environ |= {"HOME": str(arena / "home"), "TMPDIR": str(arena / "tmp")}
    tempfile.tempdir = None
    os.chdir(arena / "home")
    for number in numbers:
        rng = np.random.default_rng([seed, zlib.crc32(kind.name.encode()), number])
        folder = arena / f"mutant-{number}"
        copied(sample, folder)
        change = mutate(folder, rng, skip=kind.skip)
        kind.finish(folder, rng)
        send({"change": change})
        before = _outside(arena, folder)
        outcome, details = _try(kind, folder, whole)
        new = sorted(_outside(arena, folder) - before)
        if new:
            outcome, details = OUTSIDE, ", ".join(new)
        send({"outcome": outcome, "details": details})
        if outcome in ALLOWED:
            shutil.rmtree(folder)


def _try(kind: Kind, folder: Path, whole: str) -> tuple[str, str]:
    try:
        read = kind.read(folder)
    except Invalid as invalid:
        return INVALID, str(invalid)
    except Exception as error:  # noqa: BLE001 - whose it is, is the question
        described = describe(error)
        return REFUSED if described["ours"] else FOREIGN, f"{described['text']} [{described['raised']}]"
    return (UNCHANGED, "") if read == whole else (VALID, "")


def _outside(arena: Path, folder: Path) -> set[str]:
    """What lies around the folder of a mutant, with sizes."""
    around = [path for path in (*arena.iterdir(), *arena.parent.iterdir()) if not path.name.startswith("mutant-")]
    paths = [*around, *(path for name in ("home", "tmp") for path in (arena / name).rglob("*"))]
    return {
        f"{path.relative_to(arena.parent)} {path.lstat().st_size if path.is_file() else 'folder'}" for path in paths
    }


def table(mutants: list[Mutant], seconds: dict[str, float]) -> pd.DataFrame:
    """A row a kind: how many mutants ended how."""
    counts = {name: Counter(each.outcome for each in mutants if each.kind == name) for name in seconds}
    counts["all"] = Counter(each.outcome for each in mutants)
    rows = {
        name: {"mutants": str(count.total())} | {outcome: str(count[outcome]) for outcome in (*ALLOWED, *FAILURES)}
        for name, count in counts.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("kind of file")


if __name__ == "__main__":
    main()
