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
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar, cast

import pandas as pd

from spahgc._files import path_digest, remove_leftovers
from spahgc._installation import install_command
from spahgc._keys import UNS, Uns
from spahgc._many.stores import read_made_with, read_slide, slide_paths, write_slide
from spahgc._settings import progress_bar, settings
from spahgc._validate import check_writable_folder, quoted

if TYPE_CHECKING:
    from anndata import AnnData
    from distributed import Client

Sources = Iterable[str | os.PathLike[str]] | Mapping[str, str | os.PathLike[str]]
"""Slides on disk; of a mapping the keys are their names."""

WRITTEN, UP_TO_DATE = "written", "kept"
"""Status of a slide: written by this call, or finished before and made from the same."""
SOURCE = "source"
"""In the record of a file: fingerprint of the slide that it was made from."""
MAX_SHOWN = 3
"""Errors that the last message quotes."""

_operation_lock = threading.Lock()
"""A model or an encoder moves between devices while it works, and torch brings threads of its own."""
_process_cache: dict[str, tuple[str, object]] = {}
"""By kind: fingerprint and object."""

T = TypeVar("T")
Results = Generator[tuple["SlideJob", "JobResult | Exception"], None, None]


class Operation(Protocol):
    """What is done with every slide; it travels to other processes, so that it holds names and paths, no weights."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def made_with(self) -> dict[str, str]:
        """All that determines the result but the slide, as short texts."""

    def linked_files(self, path: Path) -> dict[str, str]:
        """Fingerprints of files that a slide names and that lie elsewhere."""

    def __call__(self, adata: AnnData) -> None:
        """Write the result into the slide."""


@dataclass(frozen=True)
class SlideJob:
    """A slide, and where its result goes."""

    name: str
    source: Path
    output: Path


class JobResult(NamedTuple):
    """What became of a slide, and how long it took."""

    status: str
    """:data:`WRITTEN` or :data:`UP_TO_DATE`."""
    seconds: float


def run_many(
    sources: Sources,
    folder: str | os.PathLike[str],
    operation: Operation,
    *,
    client: Client | None,
    retries: int,
    overwrite: bool,
) -> pd.DataFrame:
    """Do one operation on every slide, and write each result to ``folder/NAME.zarr``, whole or not at all.

    Parameters
    ----------
    sources
        Slides on disk.
    folder
        Folder of the results; of several machines all see it under this path.
    operation
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
    jobs = [SlideJob(name, path, folder / f"{name}.zarr") for name, path in paths.items()]
    _check_outputs(jobs, operation, overwrite)
    run = partial(_run_job, operation=operation, overwrite=overwrite)
    if client is None:
        results = _results_in_process(jobs, run, retries)
    else:
        results = _results_on_cluster(client, jobs, run, operation.name, retries)
    finished: dict[str, JobResult] = {}
    failed: dict[str, Exception] = {}
    try:
        with progress_bar(total=len(jobs), desc=operation.name, unit="slide") as bar:
            for job, result in results:
                if isinstance(result, JobResult):
                    finished[job.name] = result
                else:
                    failed[job.name] = result
                    bar.set_postfix(failed=len(failed), refresh=False)
                bar.update()
    finally:
        results.close()  # cancels what is waiting
        if client is None:
            _process_cache.clear()
    for job in jobs:
        remove_leftovers(job.output)
    if failed:
        raise _all_failures({name: failed[name] for name in paths if name in failed}, len(jobs), folder)
    rows = [(job.name, str(job.output), *finished[job.name]) for job in jobs]
    return pd.DataFrame(rows, columns=["name", "path", "status", "seconds"])


def cached_in_process(kind: str, fingerprint: str, make: Callable[[], T]) -> T:
    """The object of this fingerprint, made once in a process: slide after slide uses the same weights."""
    if _process_cache.get(kind, ("",))[0] != fingerprint:
        _process_cache.pop(kind, None)  # gone before the next one takes memory
        _process_cache[kind] = fingerprint, make()
    return cast(T, _process_cache[kind][1])


def check_client(client: object) -> None:
    """Refuse what is no client of a cluster."""
    if client is None:
        return
    try:
        from distributed import Client
    except ImportError as error:
        raise ImportError(
            "client= needs dask.distributed, which is not installed. "
            f"Run `{install_command('distributed')}`, or leave client= out."
        ) from error
    if not isinstance(client, Client):
        raise TypeError(
            f"client= must be a dask.distributed.Client, found {type(client).__name__}. Make one of a cluster or the "
            "address of its scheduler: Client(cluster)."
        )
    if client.asynchronous:
        raise TypeError("client= is asynchronous and cannot be waited for here. Make one without asynchronous=True.")


def _check_outputs(jobs: list[SlideJob], operation: Operation, overwrite: bool) -> None:
    """Refuse results that stand in the way before any slide is read, as far as that can be told without reading them."""
    if overwrite:
        return
    for job in jobs:
        if job.output.exists():
            _refuse_other(job, read_made_with(job.output, operation.name), operation.made_with)


def _refuse_other(job: SlideJob, recorded: Mapping[str, str], expected: Mapping[str, str]) -> None:
    differing = [name for name in expected if recorded.get(name) != expected[name]]
    if differing:
        raise FileExistsError(
            f'"{job.output}" exists and was made from something else ({", ".join(differing)}). Pass overwrite=True to '
            "replace it, or another folder."
        )


def _run_job(job: SlideJob, *, operation: Operation, overwrite: bool) -> JobResult:
    """Do the operation on one slide, unless its result is up to date."""
    started = time.perf_counter()
    made_with = operation.made_with | operation.linked_files(job.source) | {SOURCE: path_digest(job.source)}
    if job.output.exists():
        recorded = read_made_with(job.output, operation.name)
        if recorded == made_with:
            return JobResult(UP_TO_DATE, time.perf_counter() - started)
        if not overwrite:
            _refuse_other(job, recorded, made_with)
    adata = read_slide(job.source)
    with _operation_lock:
        operation(adata)
    entries = dict(adata.uns.get(UNS, {}))
    entries[Uns.made_with] = {**entries.get(Uns.made_with, {}), operation.name: made_with}
    adata.uns[UNS] = entries
    status = WRITTEN
    try:
        write_slide(adata, job.output, overwrite=overwrite)
    except FileExistsError:  # another process does the same slides, and was faster
        _refuse_other(job, read_made_with(job.output, operation.name), made_with)
        status = UP_TO_DATE
    return JobResult(status, time.perf_counter() - started)


def _results_in_process(jobs: Sequence[SlideJob], run: Callable[[SlideJob], JobResult], retries: int) -> Results:
    for job in jobs:
        result: JobResult | Exception
        for _ in range(retries + 1):
            try:
                result = run(job)
                break
            except Exception as error:  # noqa: BLE001 - whatever is wrong with a slide, the others go on
                result = error
        yield job, result


def _results_on_cluster(
    client: Client, jobs: Sequence[SlideJob], run: Callable[[SlideJob], JobResult], name: str, retries: int
) -> Results:
    from distributed import as_completed

    values = settings.values() | {"progress": False}
    on_worker = partial(_run_on_worker, run=run, values=values, caller=_process_id())
    run_id = f"{time.time_ns():x}"
    pending = {
        client.submit(on_worker, job, key=f"spahgc-{name}-{job.name}-{run_id}", retries=retries, pure=False): job
        for job in jobs
    }
    try:
        for future in as_completed(list(pending)):
            error = future.exception()
            result = future.result() if error is None else error
            # Let go of it: a result that is held is computed again when the worker that has it dies.
            yield pending.pop(future), result
            future.release()
    finally:  # also on Ctrl-C
        if pending:
            client.cancel(list(pending))


def _run_on_worker(
    job: SlideJob, *, run: Callable[[SlideJob], JobResult], values: Mapping[str, object], caller: tuple[str, int]
) -> JobResult:
    """Run a job in a process that knows nothing of the settings made in the caller's."""
    if _process_id() != caller:  # a worker may be a thread of the caller's process
        for name, value in values.items():
            setattr(settings, name, value)
    return run(job)


def _process_id() -> tuple[str, int]:
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


def as_text(values: Mapping[str, object]) -> str:
    """Values of JSON as one line, whatever their order."""
    return json.dumps(values, sort_keys=True)
