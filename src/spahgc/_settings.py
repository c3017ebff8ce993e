"""Package-wide settings."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tqdm.auto import tqdm


def _default_cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "spahgc"


@dataclass
class Settings:
    """Settings that hold for all calls; change the attributes of ``spahgc.settings``."""

    device: str | None = None
    """Where networks run (``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``); ``None`` takes the first accelerator."""

    progress: bool = True
    """Show progress bars."""

    cache_dir: Path = field(default_factory=_default_cache)
    """Folder for downloads."""

    max_dense_gb: float = 2.0
    """Dense arrays, in GB, that a prediction may write into ``layers``, all of its layers together."""

    search: str = "auto"
    """How neighbours are looked for: ``"exact"``, ``"approximate"`` (needs the extra ``faiss``), or ``"auto"``, which is
    exact until that takes minutes. What an approximate search found of the true neighbours is measured and recorded."""


settings = Settings()

CGROUP = Path("/sys/fs/cgroup")
"""Where Linux tells how much of its processors a container may use, in two versions."""


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


def progress_bar(**options: Any) -> tqdm:
    """A bar of :mod:`tqdm`, silent where ``settings.progress`` is false."""
    from tqdm.auto import tqdm

    return tqdm(disable=not settings.progress, **options)


PACKAGES = ("spahgc", "anndata", "numpy", "scipy", "scanpy", "torch", "torch-geometric")


def versions() -> dict[str, str]:
    """Installed versions by package, and that of Python."""
    return {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}
