"""Package-wide settings."""

from __future__ import annotations

import os
import platform
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tqdm.auto import tqdm


def _default_cache() -> Path:
    import pooch

    return Path(pooch.os_cache("spahgc"))


@dataclass
class Settings:
    """Settings that hold for all calls; change the attributes of ``spahgc.settings``."""

    device: str | None = None
    """Where networks run (``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``); ``None`` takes the first accelerator."""

    progress: bool = True
    """Show progress bars, and a summary of three lines after a prediction."""

    cache_dir: Path = field(default_factory=_default_cache)
    """Folder for downloads."""

    max_dense_gb: float = 2.0
    """Dense arrays, in GB, that a prediction may write into ``layers``, all of its layers together."""

    search: str = "auto"
    """How neighbours are looked for: ``"exact"``, ``"approximate"`` (needs the extra ``faiss``), or ``"auto"``, which is
    exact until that takes minutes. What an approximate search found of the true neighbours is measured and recorded."""

    n_threads: int | None = None
    """Threads with which a training, a search or an embedding computes on the CPU. ``None`` takes what affinity, cgroup
    quota, ``OMP_NUM_THREADS`` and torch's own number leave, and a single one where a step is too small to share: threads
    wait for each other at every step, and on a machine that others use as well they mostly wait. What was set before is
    set again afterwards."""


settings = Settings()

MIN_SHARED_PRODUCTS = 5e8
"""Multiplications of a step below which one thread alone is as fast: some 10 ms of it."""

CGROUP = Path("/sys/fs/cgroup")
"""Where Linux tells how much of its processors a container may use, in two versions."""

_limited: ContextVar[bool] = ContextVar("spahgc_threads_limited", default=False)


class _Limits:
    """What :func:`limited_threads` has to set again: numbers of the process, whichever Python thread changed them."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.holders = 0
        self.torch_threads: int | None = None
        self.first: Any = None


_limits = _Limits()


def available_cpus() -> int:
    """Processors that this process may use: those of its affinity, as far as the quota of its container goes."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(affinity, int(_quota())))


def _quota() -> float:
    """Processors' worth of time that the container grants, infinite where it has no limit."""
    for files in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            quota, period = " ".join((CGROUP / file).read_text(encoding="ascii") for file in files).split()
        except (OSError, ValueError):
            continue
        if quota not in ("max", "-1"):
            return float(quota) / float(period)
    return 2.0**31


def n_threads_for(products: float) -> int:
    """Threads for steps of so many multiplications each: those that are set, or those that are worth their while."""
    if settings.n_threads is not None:
        if not isinstance(settings.n_threads, int) or settings.n_threads < 1:
            raise ValueError(f"settings.n_threads={settings.n_threads!r} must be a positive whole number, or None.")
        return settings.n_threads
    if products < MIN_SHARED_PRODUCTS:
        return 1
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    limits = [available_cpus(), int(asked) if asked.isdigit() else 0]
    if _limits.holders and _limits.torch_threads:
        limits.append(_limits.torch_threads)  # before anything was limited
    elif "torch" in sys.modules:
        limits.append(sys.modules["torch"].get_num_threads())
    return min(limit for limit in limits if limit)


@contextmanager
def limited_threads(products: float) -> Iterator[None]:
    """Compute with :func:`n_threads_for` such steps in torch, BLAS and OpenMP, and set what was set before.

    Numba, on which scanpy runs, raises the number of OpenMP threads of the whole process behind everybody's back; they
    spin while they wait. Within such a block another one changes nothing. Of several Python threads that are within one at
    the same time, each sets again what was set before the first came.
    """
    if _limited.get():
        yield
        return
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    torch = sys.modules.get("torch")  # which need not be loaded for it
    with _limits.lock:
        if not _limits.holders:
            _limits.torch_threads = None if torch is None else torch.get_num_threads()
        n = n_threads_for(products)
        limits = threadpool_limits(limits=n)
        if not _limits.holders:
            _limits.first = limits
        _limits.holders += 1
    token = _limited.set(True)
    try:
        if torch is not None:
            torch.set_num_threads(n)
        yield
    finally:
        _limited.reset(token)
        with _limits.lock:
            _limits.holders -= 1
            # By each that leaves: threadpoolctl lets one Python thread at a time set the threads of OpenBLAS.
            _limits.first.restore_original_limits()
            if torch is not None and _limits.torch_threads is not None:
                torch.set_num_threads(_limits.torch_threads)


LAUNCHED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun and ``accelerate launch`` tell every process that they start."""


def launched() -> bool:
    """Whether torchrun or ``accelerate launch`` started this process and others with it."""
    return all(name in os.environ for name in LAUNCHED) and int(os.environ["WORLD_SIZE"]) > 1


def resolve_device(device: str | None) -> str:
    """Name of the torch device to be used: the argument, the setting, or the first accelerator there is.

    Raises
    ------
    ValueError
        If the named device is not available here.
    """
    import torch

    wanted = device or settings.device
    if wanted is None:
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(0, device=wanted)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f'device="{wanted}" is not available here ({str(error).splitlines()[0]}). '
            'Pass device="cpu", or leave it out to take the first accelerator there is.'
        ) from error
    return wanted


LINE_EVERY_S = 10.0
"""Seconds between two lines of progress where it is written to a file or a pipe."""

_in_lines = False


def show_progress_in_lines(wanted: bool) -> None:
    """Write progress line by line from now on, as suits a file, instead of writing over what stands there."""
    global _in_lines
    _in_lines = wanted


def progress_bar(**options: Any) -> tqdm:
    """A bar of :mod:`tqdm`, silent where ``settings.progress`` is false."""
    if _in_lines:
        every = {"mininterval": LINE_EVERY_S, "maxinterval": LINE_EVERY_S}
        return _line_class()(disable=not settings.progress, **{**options, **every, "ascii": True})
    return _bar_class()(disable=not settings.progress, **options)


@cache
def _bar_class() -> type[tqdm]:
    """Bars of :mod:`tqdm` as suit where they are drawn."""
    from tqdm.auto import tqdm

    return _with_own_lock(tqdm)


@cache
def _line_class() -> type[tqdm]:
    """Bars that are lines: one when they begin, one every ten seconds, one in the end."""
    from tqdm.std import tqdm

    class Lines(tqdm):
        def display(self, msg: str | None = None, pos: int | None = None) -> bool:  # type: ignore[override]
            """Write a line; what tqdm does to take a bar away is left out."""
            if msg == "":
                return False
            # A bar that is closed ends its line by itself.
            self.fp.write(f"{self if msg is None else msg}" + ("" if self.disable else "\n"))
            self.fp.flush()
            return True

        @staticmethod
        def status_printer(file: Any) -> Any:
            """Nothing is written over."""
            return lambda text: None

        def moveto(self, n: int) -> None:
            """No line is gone back to."""

    return _with_own_lock(Lines)


def _with_own_lock(base: Any) -> type[tqdm]:
    """Bars with a lock of this process alone.

    That of tqdm is shared with the processes that are forked from this one: where one of them is killed while it holds it, all
    others would wait for it forever, also with bars that are silent.
    """

    class Bar(base):
        pass

    Bar.set_lock(threading.RLock())
    if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
        os.register_at_fork(after_in_child=lambda: Bar.set_lock(threading.RLock()))
    return Bar


_silent: ContextVar[bool] = ContextVar("spahgc_silent", default=False)


def say(lines: Iterable[str]) -> None:
    """Print lines for whoever called, unless ``settings.progress`` is false.

    As scanpy does, on stdout in an interactive session and on stderr otherwise.
    """
    if settings.progress and not _silent.get():
        interactive = hasattr(sys, "ps1") or "ipykernel" in sys.modules
        print(*lines, sep="\n", file=sys.stdout if interactive else sys.stderr)


@contextmanager
def silence() -> Iterator[None]:
    """Nothing is said within such a block: the caller says it in its own words, or there are too many slides."""
    token = _silent.set(True)
    try:
        yield
    finally:
        _silent.reset(token)


PACKAGES = ("spahgc", "anndata", "numpy", "scipy", "scanpy", "torch", "torch-geometric")


def versions() -> dict[str, str]:
    """Installed versions by package, and that of Python."""
    return {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}
