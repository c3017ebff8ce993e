"""Several processes, and several threads, that do the same at the same time: the right result, or an error in our words.

    python benchmarks/races.py --repetitions 50

Two and four processes write one bank, one model, one download, one folder of results, while others read it. Each must end
with what it would have found alone, or with an error of the package; what lies there afterwards must be one of the
results that were possible, whole, without parts or locks beside it. Two threads of one process predict with all methods at
the same time, and must find the very numbers that a single one finds.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Before torch and numba: a forked child must not wait for threads that it does not have.
os.environ |= {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "NUMBA_THREADING_LAYER": "workqueue"}

import pandas as pd
from _cohorts import log, made_with, markdown
from robustness import operations, slides
from robustness.children import Ended, in_child, must_end_well, together
from robustness.operations import OPERATIONS, Operation, file_server, fresh, listing
from robustness.samples import fingerprint

import spahgc as sp
from spahgc._parameters import METHODS

BY_NAME = {operation.name: operation for operation in OPERATIONS}


@dataclass(frozen=True)
class Race:
    """What several processes do at the same time.

    Attributes
    ----------
    name
        As the table of results calls it.
    prepare
        What lies there before.
    task
        What the process of this number does; returns a fingerprint.
    check
        What is wrong with how they ended or with what lies there, ``None`` if nothing.
    """

    name: str
    prepare: Callable[[Path], None]
    task: Callable[[Path, int], Any]
    check: Callable[[Path, list[Ended]], str | None]


# --- the same call, whose result is the same for all


def same_call(operation: Operation) -> Race:
    """All make the same; whoever ends well has the result of one that was alone, and so has the folder."""
    alone: dict[str, Any] = {}

    def learn(work: Path) -> None:
        if not alone:
            ended = in_child(lambda: _alone(operation, work.with_name("alone")), memory=None)
            alone.update(must_end_well(ended, operation.name).value)
        operation.prepare(work)

    def check(work: Path, ended: list[Ended]) -> str | None:
        operation.run(work)  # what one refused because of another, a second call mends
        if operation.state(work) != alone["state"]:
            return "what lies there is not what one alone writes"
        if any(each.error is None and each.value != alone["value"] for each in ended):
            return "one has another result than alone"
        return _others_than(work, alone["listing"])

    return Race(operation.name, learn, lambda work, _: operation.run(work), check)


def _alone(operation: Operation, place: Path) -> dict[str, Any]:
    operation.prepare(fresh(place))
    value = operation.run(place)
    found = {"value": value, "state": operation.state(place), "listing": listing(place)}
    shutil.rmtree(place)
    return found


def _others_than(work: Path, names: list[str]) -> str | None:
    more = sorted(set(listing(work)) ^ set(names))
    return f"left behind or missing: {', '.join(more[:5])}" if more else None


# --- calls that differ, of which one wins


def _winners(ended: list[Ended]) -> list[int]:
    return [number for number, each in enumerate(ended) if each.error is None]


def _check_new_bank(work: Path, ended: list[Ended]) -> str | None:
    winners = _winners(ended)
    if len(winners) != 1:
        return f"{len(winners)} processes say that they made the bank"
    if operations._bank_state(work)["bank"] != ended[winners[0]].value:
        return "the bank is not that of the process that says so"
    return _parts(work)


def _make_bank(work: Path, number: int) -> str:
    slide = slides.embedded()[number]
    genes = list(slide.var_names)[:20]
    return operations.bank_fingerprint(
        sp.pp.reference_bank([slide], embedding=slides.EMBEDDING, genes=genes, path=work / "bank")
    )


def _parts(work: Path) -> str | None:
    """What is written under other names, and stayed."""
    parts = [
        name for name in listing(work) if any(piece.startswith(".") and piece != ".lock" for piece in name.split("/"))
    ]
    return f"left behind: {', '.join(parts[:5])}" if parts else None


def _append_or_read(work: Path, number: int) -> Any:
    """The first two append a slide each, the others read what is there."""
    if number < 2:
        operations.append_to_bank(work, number + 1)
        return None
    return [_spots_by_slide(work) for _ in range(3)]


def _spots_by_slide(work: Path) -> dict[str, str]:
    bank = sp.pp.open_bank(work / "bank").to_memory()
    names = bank.obs["slide"].astype(str).to_numpy()
    found = {}
    for name in sorted(set(names)):
        part = bank[names == name]
        found[name] = fingerprint(part.obs_names, part.X, part.obsm[slides.EMBEDDING])
    return found


@functools.cache
def _right_spots(place: Path) -> dict[str, str]:
    """The spots of a bank of the first three slides that one process wrote."""

    def make() -> dict[str, str]:
        for number in range(3):
            operations.append_to_bank(place, number)
        return _spots_by_slide(place)

    fresh(place)
    return must_end_well(in_child(make, memory=None), "a bank of three slides").value


def _prepare_append(work: Path) -> None:
    _right_spots(work.with_name("right"))
    operations.append_to_bank(work, 0)


def _check_append(work: Path, ended: list[Ended]) -> str | None:
    right, found = _right_spots(work.with_name("right")), _spots_by_slide(work)
    written = (0, *(winner + 1 for winner in _winners(ended[:2])))
    expected = {str(slides.embedded()[number].obs["slide"].iloc[0]) for number in written}
    if set(found) != expected:
        return f"the bank holds {sorted(found)}, and not {sorted(expected)}"
    for state in [found, *(state for each in ended[2:] if each.error is None for state in each.value)]:
        if any(right[name] != value for name, value in state.items()):
            return "spots of a slide are not its own"
    return _parts(work)


def _save_or_load(work: Path, number: int) -> str | None:
    """Even numbers save their own model over the one that lies there, odd ones load and predict."""
    if number % 2 == 0:
        slides.model(number // 2 % 2).save(work / "model", overwrite=True)
        return None
    return operations._model_state(work)["model"]


def _check_models(work: Path, ended: list[Ended]) -> str | None:
    allowed = {fingerprint(slides.model(seed).predict(slides.embedded(1)[0], device="cpu")) for seed in (0, 1)}
    if operations._model_state(work)["model"] not in allowed:
        return "the model is none of those that were saved"
    if any(each.value not in allowed for number, each in enumerate(ended) if number % 2 and each.error is None):
        return "a model was read that nobody saved"
    return _parts(work)


def _save_new(work: Path, number: int) -> None:
    slides.model(number % 2).save(work / "model")


def _check_new_model(work: Path, ended: list[Ended]) -> str | None:
    winners = _winners(ended)
    if len(winners) != 1:
        return f"{len(winners)} processes say that they saved the model"
    expected = fingerprint(slides.model(winners[0] % 2).predict(slides.embedded(1)[0], device="cpu"))
    if operations._model_state(work)["model"] != expected:
        return "the model is not that of the process that says so"
    return _parts(work)


def _overwrite_many(work: Path, number: int) -> str:
    return operations._predict_many(work, seed=number % 2, overwrite=True)


def _check_overwritten(work: Path, ended: list[Ended]) -> str | None:
    found = operations._stores("spahgc")(work)
    for name, value in found.items():
        (target,) = [slide for slide in slides.embedded(2) if slide.obs["slide"].iloc[0] == name]
        allowed = set()
        for seed in (0, 1):
            sp.tl.predict(target, model=slides.model(seed), device="cpu")
            allowed.add(fingerprint(target.layers["spahgc"], target.obs_names, target.X))
        if value not in allowed:
            return f"{name} is neither model's"
    return _parts(work)


# --- one download


def download_race(url: str) -> Race:
    content = operations.download_content()

    def download(work: Path, number: int) -> str:
        from spahgc.datasets._download import Remote, retrieve

        remote = Remote("https://host/data.bin", f"sha256:{hashlib.sha256(content).hexdigest()}", len(content))
        path = retrieve(remote, work / "cache" / "data.bin", page="https://host", mirror=url)
        return hashlib.sha256(path.read_bytes()).hexdigest()

    def check(work: Path, ended: list[Ended]) -> str | None:
        right = hashlib.sha256(content).hexdigest()
        if any(each.value != right for each in ended if each.error is None):
            return "another content"
        if download(work, 0) != right:
            return "another content afterwards"
        return _others_than(work, ["cache", "cache/data.bin"])

    return Race("download", lambda work: None, download, check)


# --- threads


def _predict_all() -> list[str]:
    """What every method predicts."""
    target, *refs = slides.embedded(3)
    found = []
    for method in METHODS:
        sp.tl.predict(
            target,
            refs,
            method=method,
            embedding=slides.EMBEDDING,
            preset=slides.PRESET,
            key_added=method,
            device="cpu",
        )
        found.append(fingerprint(target.layers[method]))
    return found


def threads(n: int) -> str | None:
    """Predict in several threads, and compare with one alone."""
    alone = _predict_all()
    with ThreadPoolExecutor(n) as pool:
        for found in pool.map(lambda _: _predict_all(), range(n)):
            differing = [name for name, value, right in zip(METHODS, found, alone, strict=True) if value != right]
            if differing:
                return f"other numbers in a thread: {', '.join(differing)}"
    return None


def races(url: str) -> list[Race]:
    same = ("embed, resumed", "embed_many", "predict_many", "cross_validate, resumed", "report", "figure over another")
    return [
        Race("bank, new", lambda work: None, _make_bank, _check_new_bank),
        Race("bank, append and read", _prepare_append, _append_or_read, _check_append),
        Race("model, new", lambda work: None, _save_new, _check_new_model),
        Race(
            "model, saved over and loaded",
            lambda work: slides.model(0).save(work / "model"),
            _save_or_load,
            _check_models,
        ),
        Race(
            "predict_many, two models over each other", operations._prepare_models, _overwrite_many, _check_overwritten
        ),
        download_race(url),
        *(same_call(BY_NAME[name]) for name in (*same, "index of a bank") if name in BY_NAME),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=50, help="of each race (default: 50)")
    parser.add_argument("--processes", type=int, nargs="+", default=[2, 4], help="how many at a time (default: 2 4)")
    parser.add_argument("--race", action="append", metavar="NAME", help="those whose name begins so; repeat")
    arguments = parser.parse_args()
    operations.warm()
    rows: dict[str, dict[str, int]] = {}
    failed: list[str] = []
    with tempfile.TemporaryDirectory(prefix="spahgc-races-") as place, file_server.running_files() as server:
        server.content["host/data.bin"] = operations.download_content()
        chosen = [race for race in races(server.url) if race.name.startswith(tuple(arguments.race or [""]))]
        for race in chosen:
            for n in arguments.processes:
                label = f"{race.name}, {n} processes"
                rows[label], problems = run_race(race, n, arguments.repetitions, Path(place) / "work")
                failed += [f"{label}, {problem}" for problem in problems]
                log(f"{label}: {len(problems)} failed of {arguments.repetitions}")
    if arguments.race is None or "threads" in arguments.race:
        label = "predict by all methods, 2 threads"
        rows[label] = {"repetitions": arguments.repetitions, "ended well": 0, "refused in our words": 0, "failed": 0}
        for repetition in range(arguments.repetitions):
            ended = in_child(lambda: threads(2), memory=None)
            problem = ended.value or ended.problem or (ended.error or {}).get("text")
            rows[label]["failed" if problem else "ended well"] += 1
            failed += [f"{label}, repetition {repetition}: {problem}"] if problem else []
    print(markdown(pd.DataFrame.from_dict(rows, orient="index").astype(str).rename_axis("race")))
    print(f"\n{made_with()}")
    for line in failed:
        print(f"FAILED: {line}")
    sys.exit(1 if failed else 0)


def run_race(race: Race, n: int, repetitions: int, work: Path) -> tuple[dict[str, int], list[str]]:
    """How its processes ended, and what was wrong."""
    row = {"repetitions": repetitions, "ended well": 0, "refused in our words": 0}
    problems = []
    for repetition in range(repetitions):
        fresh(work)
        race.prepare(work)  # learns what one alone makes, where that is needed
        ended = together([lambda number=number: race.task(work, number) for number in range(n)])
        problem = next((each.problem for each in ended if each.problem), None)
        row["ended well"] += sum(each.problem is None and each.error is None for each in ended)
        row["refused in our words"] += sum(each.problem is None and each.error is not None for each in ended)
        if problem is None:
            looked = in_child(lambda ended=ended: race.check(work, ended), memory=None)
            problem = looked.value or looked.problem or (looked.error or {}).get("text")
        if problem is not None:
            problems.append(f"repetition {repetition}: {problem}")
            print(f"{race.name}, {n} processes, {problems[-1]}", file=sys.stderr, flush=True)
    return row | {"failed": len(problems)}, problems


if __name__ == "__main__":
    main()
