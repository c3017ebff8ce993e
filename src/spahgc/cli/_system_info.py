"""What this machine offers: packages, devices, memory, folders, the hub, and which encoders can be loaded here."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from spahgc.cli._encoder_status import EncoderState, Hub, hub_and_encoders

if TYPE_CHECKING:
    from packaging.requirements import Requirement

NO_EXTRAS_OF_USERS = ("dev", "docs", "test")


@dataclass(frozen=True)
class Package:
    """A requirement, and what is installed of it."""

    name: str
    needs: str
    version: str | None
    fits: bool


@dataclass(frozen=True)
class Extra:
    """An optional part of the installation."""

    name: str
    packages: list[Package]

    @property
    def present(self) -> bool:
        """Whether all of its packages are there."""
        return all(package.fits for package in self.packages)


@dataclass(frozen=True)
class Device:
    """An accelerator; memory in bytes, ``None`` where it is not told."""

    name: str
    model: str
    memory: int | None = None
    free: int | None = None


@dataclass(frozen=True)
class Compute:
    """What torch computes on."""

    chosen: str | None
    """Device that is taken where none is named; ``None`` where torch, or the device of the settings, is not there."""
    devices: list[Device] = field(default_factory=list)
    threads: int | None = None
    cuda_build: bool = False
    """Whether the installed torch can use NVIDIA devices at all."""
    nvidia_driver: bool = False
    error: str | None = None


@dataclass(frozen=True)
class Memory:
    """Main memory in bytes, within the limit of the job where there is one."""

    total: int | None
    free: int | None


@dataclass(frozen=True)
class Folder:
    """A folder that files are downloaded into."""

    path: Path
    writable: bool
    free: int | None


@dataclass(frozen=True)
class SystemInfo:
    """Versions, hardware, folders and encoders, as this machine has them."""

    version: str
    python: str
    system: str
    processors: int
    packages: list[Package]
    extras: list[Extra]
    compute: Compute
    memory: Memory
    cache: Folder
    hub_cache: Folder
    hub: Hub
    encoders: list[EncoderState]


def system_info(encoders: Sequence[str] | None = None, *, device: str | None = None) -> SystemInfo:
    """Look at this machine, in seconds; nothing is downloaded or written.

    Parameters
    ----------
    encoders
        Names of the encoders to look for; ``None`` takes all that are registered.
    device
        Device that is to be used; ``None`` takes the setting, or the first accelerator there is.

    Returns
    -------
    What is installed, and what works.

    Raises
    ------
    ValueError
        If there is no encoder of a name.
    """
    from huggingface_hub import constants

    from spahgc import __version__
    from spahgc._settings import settings
    from spahgc._validate import quoted
    from spahgc.encoders._cards import CARDS

    unknown = [name for name in encoders or () if name not in CARDS]
    if unknown:
        raise ValueError(f"there is no encoder {quoted(unknown)}. Choose from {', '.join(CARDS)}.")
    packages, extras = requirements()
    hub, states = hub_and_encoders([CARDS[name] for name in encoders or CARDS])
    return SystemInfo(
        version=__version__,
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        processors=processors(),
        packages=packages,
        extras=extras,
        compute=compute(device),
        memory=memory(),
        cache=folder(settings.cache_dir),
        hub_cache=folder(Path(constants.HF_HUB_CACHE)),
        hub=hub,
        encoders=states,
    )


def requirements() -> tuple[list[Package], list[Extra]]:
    """What the package needs, and its extras, as its own metadata have them."""
    from packaging.requirements import Requirement

    needed: list[Package] = []
    extras: dict[str, list[Package]] = {
        name: []
        for name in metadata.metadata("spahgc").get_all("Provides-Extra") or []
        if name not in NO_EXTRAS_OF_USERS
    }
    for text in metadata.requires("spahgc") or []:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            needed.append(_package(requirement))
            continue
        for name, packages in extras.items():
            if requirement.marker.evaluate({"extra": name}):
                packages.append(_package(requirement))
    return needed, [Extra(name, packages) for name, packages in extras.items()]


def _package(requirement: Requirement) -> Package:
    try:
        installed = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return Package(requirement.name, str(requirement.specifier), None, False)
    fits = requirement.specifier.contains(installed, prereleases=True)
    return Package(requirement.name, str(requirement.specifier), installed, fits)


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def compute(device: str | None) -> Compute:
    """What torch finds."""
    driver = shutil.which("nvidia-smi") is not None
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a library that it is linked to is missing
        return Compute(None, nvidia_driver=driver, error=str(error).splitlines()[0])
    from spahgc._settings import resolve_device

    chosen, problem = None, None
    try:
        chosen = resolve_device(device)
    except ValueError as error:
        problem = str(error)
    devices = [_cuda_device(place) for place in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    if torch.backends.mps.is_available():
        devices.append(Device("mps", platform.processor() or "Apple GPU"))
    return Compute(chosen, devices, torch.get_num_threads(), torch.version.cuda is not None, driver, problem)


def _cuda_device(place: int) -> Device:
    import torch

    properties = torch.cuda.get_device_properties(place)
    try:
        free = int(torch.cuda.mem_get_info(place)[0])
    except RuntimeError:  # somebody else has it to himself
        free = None
    return Device(f"cuda:{place}", properties.name, int(properties.total_memory), free)


def memory() -> Memory:
    """Main memory: the machine's, or what is left of the limit of a container or job."""
    total = free = None
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if (lines := _text(Path("/proc/meminfo"))) is not None:
        kib = dict(line.split(":", 1) for line in lines.splitlines())
        free = int(kib["MemAvailable"].split()[0]) * 1024
    for limit, used in cgroup_limits():
        total = limit if total is None else min(total, limit)
        free = limit - used if free is None else min(free, limit - used)
    return Memory(total, free)


def cgroup_limits(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> list[tuple[int, int]]:
    """Limits of memory (cgroup 2) that this process lives under, each with what is used of it; bytes."""
    inside = next((line[3:] for line in (_text(own) or "").splitlines() if line.startswith("0::")), None)
    if inside is None:
        return []
    group_folder = root / inside.strip("/")
    limits = []
    for group in [group_folder, *group_folder.parents]:
        limit, used = (_text(group / f"memory.{name}") for name in ("max", "current"))
        if limit is not None and used is not None and limit.strip() != "max":
            limits.append((int(limit), int(used)))
        if group == root:
            break
    return limits


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return None


def folder(path: Path) -> Folder:
    """Whether a folder can be written, or made where it is not there; nothing is left behind."""
    existing = next(each for each in [path.absolute(), *path.absolute().parents] if each.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            writable = True
    except OSError:
        writable = False
    return Folder(path, writable, shutil.disk_usage(existing).free)


def problems(info: SystemInfo, *, encoders: Sequence[str] | None = None) -> list[str]:
    """What keeps the package from working here, each with what to do about it.

    Parameters
    ----------
    info
        What :func:`system_info` returned.
    encoders
        Encoders that must be loadable; of the others nobody is reminded.
    """
    found = [
        f"{package.name} {package.version or 'is not installed'}, needed is {package.needs}: "
        f'run `pip install "{package.name}{package.needs}"`'
        for package in info.packages
        if not package.fits
    ]
    if info.compute.error is not None:
        found.append(info.compute.error)
    if not info.cache.writable:
        found.append(f"{info.cache.path} cannot be written: set XDG_CACHE_HOME, or spahgc.settings.cache_dir")
    if not info.hub_cache.writable:
        found.append(f"{info.hub_cache.path} cannot be written: set HF_HOME to another folder")
    wanted = [state for state in info.encoders if state.name in (encoders or ()) and not state.loadable]
    return found + [f"encoder {state.name}: {state.detail}; {state.advice}" for state in wanted]
