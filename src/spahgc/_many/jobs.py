"""Many slides on disk, one task each: in this process, or in those of a dask cluster."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import pandas as pd

from spahgc._keys import UNS, Uns
from spahgc._many.stores import digest_of, read_made_with, read_slide, remove_parts, slide_paths, write_slide
from spahgc._settings import progress_bar, settings
from spahgc._validate import check_writable_folder, quoted

if TYPE_CHECKING:
    from anndata import AnnData
    from distributed import Client

Sources = Iterable[str | os.PathLike[str]] | Mapping[str, str | os.PathLike[str]]
"""Slides on disk; of a mapping the keys are their names."""

WRITTEN, KEPT = "written", "kept"
"""What became of a slide: written now, or there already and made from the same."""
SOURCE = "source"
"""In the record of a file: fingerprint of the slide that it was made from."""
MAX_SHOWN = 3
"""Errors that the last message quotes."""

_one_at_a_time = threading.Lock()
"""A model or an encoder moves between devices while it works, and torch brings threads of its own."""
_kept: dict[str, tuple[str, Any]] = {}


Results = Generator[tuple["Job", "Outcome | Exception"], None, None]


class Work(Protocol):
    """What is done with every slide; it travels to other processes, so that it holds names and paths, no weights."""

    @property
    def operation(self) -> str:
        """Its name."""

    @property
    def made_with(self) -> dict[str, str]:
        """All that determines the result but the slide, as short texts."""

    def inputs(self, path: Path) -> dict[str, str]:
        """Fingerprints of files that belong to a slide and lie elsewhere."""

    def __call__(self, adata: AnnData) -> None:
        """Write the result into the slide."""


@dataclass(frozen=True)
class Job:
    """A slide, and where its result goes."""

    name: str
    source: Path
    output: Path


class Outcome(NamedTuple):
    """What became of a slide, and how long it took."""

    status: str
    seconds: float


def run_many(
    sources: Sources,
    folder: str | os.PathLike[str],
    work: Work,
    *,
    client: Client | None,
    retries: int,
    overwrite: bool,
) -> pd.DataFrame:
    """Do the work on every slide, and write each result to ``folder/NAME.zarr``, whole or not at all.

    Parameters
    ----------
    sources
        Slides on disk.
    folder
        Folder of the results; of several machines all see it under this path.
    work
        What is done.
    client
        Client of a dask cluster; ``None`` does one slide after another in this process.
    retries
        How often a slide that failed is tried again. A task whose process died is run again in any case.
    overwrite
        Replace results that were made from other slides or with other settings.

    Returns
    -------
    A row a slide: name, path, status, seconds.

    Raises
    ------
    ExceptionGroup
        If slides failed, when all others are finished; it holds the error of each.
    """
    check_client(client)
    if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
        raise ValueError(f"retries={retries!r} is no number of repetitions. Pass 0 or a positive whole number.")
    paths = slide_paths(sources)
    folder = check_writable_folder(Path(folder).expanduser()).resolve()
    jobs = [Job(name, path, folder / f"{name}.zarr") for name, path in paths.items()]
    _check_outputs(jobs, work, overwrite)
    run = partial(_run_job, work=work, overwrite=overwrite)
    results = _results_here(jobs, run, retries) if client is None else _results_of(client, jobs, run, work, retries)
    outcomes: dict[str, Outcome] = {}
    failed: dict[str, Exception] = {}
    try:
        with progress_bar(total=len(jobs), desc=work.operation, unit="slide") as bar:
            for job, outcome in results:
                if isinstance(outcome, Outcome):
                    outcomes[job.name] = outcome
                else:
                    failed[job.name] = outcome
                    bar.set_postfix(failed=len(failed), refresh=False)
                bar.update()
    finally:
        results.close()  # cancels what is waiting
        if client is None:
            _kept.clear()
    remove_parts(folder, (job.output for job in jobs))
    if failed:
        raise _all_failures({name: failed[name] for name in paths if name in failed}, len(jobs), folder)
    rows = [(job.name, str(job.output), *outcomes[job.name]) for job in jobs]
    return pd.DataFrame(rows, columns=["name", "path", "status", "seconds"])


def kept(kind: str, fingerprint: str, make: Callable[[], Any]) -> Any:
    """The object of this fingerprint, made once in a process: slide after slide uses the same weights."""
    if _kept.get(kind, ("",))[0] != fingerprint:
        _kept.pop(kind, None)  # gone before the next one takes memory
        _kept[kind] = fingerprint, make()
    return _kept[kind][1]


def check_client(client: Any) -> None:
    """Refuse what is no client of a cluster."""
    if client is None:
        return
    try:
        from distributed import Client
    except ImportError as error:
        raise ImportError(
            "client= needs dask.distributed, which is not installed. "
            'Run `pip install "spahgc[distributed]"`, or leave client= out.'
        ) from error
    if not isinstance(client, Client):
        raise TypeError(
            f"client= must be a dask.distributed.Client, found {type(client).__name__}. Make one of a cluster or the "
            "address of its scheduler: Client(cluster)."
        )
    if client.asynchronous:
        raise TypeError("client= is asynchronous and cannot be waited for here. Make one without asynchronous=True.")


def _check_outputs(jobs: list[Job], work: Work, overwrite: bool) -> None:
    """Refuse results that stand in the way before any slide is read, as far as that can be told without reading them."""
    if overwrite:
        return
    for job in jobs:
        if job.output.exists():
            there = read_made_with(job.output, work.operation)
            _refuse_other(job, {name: there.get(name) for name in work.made_with}, work.made_with)


def _refuse_other(job: Job, there: Mapping[str, str | None], now: Mapping[str, str]) -> None:
    differing = [name for name in now if there.get(name) != now[name]]
    if differing:
        raise FileExistsError(
            f'"{job.output}" exists and was made from something else ({", ".join(differing)}). Pass overwrite=True to '
            "replace it, or another folder."
        )


def _run_job(job: Job, *, work: Work, overwrite: bool) -> Outcome:
    """Do the work on one slide, unless its result is there."""
    started = time.perf_counter()
    made_with = work.made_with | work.inputs(job.source) | {SOURCE: digest_of(job.source)}
    if job.output.exists():
        there = read_made_with(job.output, work.operation)
        if there == made_with:
            return Outcome(KEPT, time.perf_counter() - started)
        if not overwrite:
            _refuse_other(job, there, made_with)
    adata = read_slide(job.source)
    with _one_at_a_time:
        work(adata)
    entries = dict(adata.uns.get(UNS, {}))
    entries[Uns.made_with] = {**entries.get(Uns.made_with, {}), work.operation: made_with}
    adata.uns[UNS] = entries
    write_slide(adata, job.output)
    return Outcome(WRITTEN, time.perf_counter() - started)


def _results_here(jobs: Sequence[Job], run: Callable[[Job], Outcome], retries: int) -> Results:
    for job in jobs:
        outcome: Outcome | Exception
        for _ in range(retries + 1):
            try:
                outcome = run(job)
                break
            except Exception as error:  # noqa: BLE001 - whatever is wrong with a slide, the others go on
                outcome = error
        yield job, outcome


def _results_of(
    client: Client, jobs: Sequence[Job], run: Callable[[Job], Outcome], work: Work, retries: int
) -> Results:
    from distributed import as_completed

    elsewhere = partial(_run_elsewhere, run=run, values=vars(settings) | {"progress": False}, home=_this_process())
    run_id = f"{time.time_ns():x}"
    waiting = {
        client.submit(
            elsewhere, job, key=f"spahgc-{work.operation}-{job.name}-{run_id}", retries=retries, pure=False
        ): job
        for job in jobs
    }
    try:
        for future in as_completed(list(waiting)):
            error = future.exception()
            outcome = future.result() if error is None else error
            # Let go of it: a result that is held is computed again when the worker that has it dies.
            yield waiting.pop(future), outcome
            future.release()
    finally:  # also on Ctrl-C
        if waiting:
            client.cancel(list(waiting))


def _run_elsewhere(
    job: Job, *, run: Callable[[Job], Outcome], values: dict[str, Any], home: tuple[str, int]
) -> Outcome:
    """Run a job in a process that knows nothing of the settings made in the first one."""
    if _this_process() != home:  # a worker may be a thread of the first one
        for name, value in values.items():
            setattr(settings, name, value)
    return run(job)


def _this_process() -> tuple[str, int]:
    return socket.gethostname(), os.getpid()


def _all_failures(failed: Mapping[str, Exception], total: int, folder: Path) -> ExceptionGroup[Exception]:
    shown = [f'"{name}" ({type(error).__name__}: {_text(error)})' for name, error in list(failed.items())[:MAX_SHOWN]]
    more = f"; and {quoted(list(failed)[MAX_SHOWN:])}" if len(failed) > MAX_SHOWN else ""
    for name, error in failed.items():
        error.add_note(f'slide "{name}"')
    return ExceptionGroup(
        f'{len(failed)} of {total} slides failed: {"; ".join(shown)}{more}. The others lie finished in "{folder}". Call '
        "it again to do those that are missing.",
        list(failed.values()),
    )


def _text(error: Exception) -> str:
    # str() of a KeyError is the repr of its message.
    return str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)


def as_text(values: Mapping[str, Any]) -> str:
    """Values of JSON as one line, whatever their order."""
    return json.dumps(values, sort_keys=True)
