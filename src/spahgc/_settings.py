"""Package-wide settings."""

from __future__ import annotations

import os
import platform
import sys
import threading
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spahgc._logging import HINT, Verbosity, logger, says, set_verbosity, verbosity

if TYPE_CHECKING:
    from tqdm.auto import tqdm


def _load_bars() -> None:
    """Load :mod:`tqdm` without its warning that a notebook lacks ipywidgets: it draws its bars as text then.

    Here, since pooch loads it as well, and before another package does whose warning would be taken for one of ours.
    """
    from tqdm import TqdmWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TqdmWarning)
        import_module("tqdm.auto")


def _default_cache() -> Path:
    _load_bars()
    import pooch

    return Path(pooch.os_cache("spahgc"))


@dataclass
class Settings:
    """Settings that hold for all calls; change the attributes of ``spahgc.settings``."""

    device: str | None = None
    """Where networks run (``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``); ``None`` takes the first accelerator."""

    progress: bool = True
    """Show progress bars, and a summary of three lines after a prediction, as far as ``verbosity`` has them."""

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

    @property
    def verbosity(self) -> Verbosity:
        """How much is said, in scanpy's steps.

        ``"error"`` (0): errors alone. ``"warning"`` (1): and warnings. ``"info"`` (2, the default): and progress bars, and
        three lines after a prediction. ``"hint"`` (3): and what was read and selected, and under which keys results
        were written. ``"debug"`` (4): and how long it took, and where it was computed.

        It is the level of the logger ``"spahgc"`` of :mod:`logging`, which writes on stdout in an interactive session, as
        scanpy's does, and on stderr otherwise; or, once a program has given it or the root logger a handler, there alone.
        """
        return verbosity()

    @verbosity.setter
    def verbosity(self, wanted: Verbosity | str | int) -> None:
        set_verbosity(wanted)

    def __setattr__(self, name: str, value: Any) -> None:
        if not hasattr(type(self), name) and name not in _NAMES:
            near = get_close_matches(name, [*_NAMES, "verbosity"], n=1)
            hint = f' Did you mean "{near[0]}"?' if near else ""
            raise AttributeError(f'settings have no "{name}", they are {", ".join([*_NAMES, "verbosity"])}.{hint}')
        super().__setattr__(name, value)

    def values(self) -> dict[str, Any]:
        """All of them by name, for another process to set."""
        return {name: getattr(self, name) for name in _NAMES} | {"verbosity": int(self.verbosity)}


_NAMES = tuple(field.name for field in fields(Settings))

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
        self._found: tuple[int, Any] | None = None

    def controller(self) -> Any:
        """The libraries with threads that are loaded; looked for again once more modules were imported."""
        from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

        n_modules = len(sys.modules)
        if self._found is None or self._found[0] != n_modules:
            self._found = n_modules, ThreadpoolController()
        return self._found[1]


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
    torch = sys.modules.get("torch")  # which need not be loaded for it
    with _limits.lock:
        if not _limits.holders:
            _limits.torch_threads = None if torch is None else torch.get_num_threads()
        n = n_threads_for(products)
        limits = _limits.controller().limit(limits=n)
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
    """A bar of :mod:`tqdm`, silent where ``settings.progress`` is false or ``settings.verbosity`` below ``"info"``."""
    if _in_lines:
        every = {"mininterval": LINE_EVERY_S, "maxinterval": LINE_EVERY_S}
        return _line_class()(disable=not shows_progress(), **{**options, **every, "ascii": True})
    return _bar_class()(disable=not shows_progress(), **options)


def shows_progress() -> bool:
    """Whether bars and lines are wanted."""
    return settings.progress and says(Verbosity.info)


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
    """Tell whoever called, one message a line, unless ``settings.progress`` is false or ``settings.verbosity`` below ``"info"``."""
    if settings.progress and not _silent.get():
        for line in lines:
            logger.info("%s", line)


def hint(text: str) -> None:
    """Tell what was written where, with ``settings.verbosity`` of ``"hint"``."""
    if not _silent.get():
        logger.log(HINT, "%s", text)


def hint_written(adata: Any, key: str) -> None:
    """Tell which keys of an AnnData are called so or begin so."""
    found = [
        f'{part}["{name}"]'
        for part in ("layers", "obs", "var", "obsm", "varm", "obsp")
        for name in getattr(adata, part)
        if name == key or str(name).startswith(f"{key}_")
    ]
    hint(f"written: {', '.join(found)}")


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Tell how long such a block took, with ``settings.verbosity`` of ``"debug"``."""
    start = time.monotonic()
    yield
    if not _silent.get():
        logger.debug("%s took %.1f s", what, time.monotonic() - start)


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
