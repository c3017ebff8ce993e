"""``spahgc doctor``: the state of this machine in words."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from spahgc._installation import install_command
from spahgc.cli._choices import choice, encoder_names
from spahgc.cli._encoder_status import GATED
from spahgc.cli._options import AsJson, Device
from spahgc.cli._output import EXIT_FINDINGS, EXIT_OK, Printed, result

if TYPE_CHECKING:
    from spahgc.cli._encoder_status import EncoderState, Hub
    from spahgc.cli._system_info import Compute, Extra, Folder, Memory, SystemInfo

SHOWN_PACKAGES = ("torch", "torch-geometric", "timm", "anndata", "scanpy", "huggingface-hub")
BYTES_PER_GB = 1e9
LITTLE_SPACE_GB = 5
"""Less than what one of the large encoders takes."""
FINE, NOTE, MEND = "ok", "note", "MEND"
NAMES_WIDTH = 90


def doctor(
    encoder: Annotated[
        list[str] | None,
        choice(
            "An encoder that must be loadable here, repeat; all are listed if left out.", encoder_names, closed=False
        ),
    ] = None,
    device: Device = None,
    as_json: AsJson = False,
) -> Printed:
    """See what works on this machine, and what to mend.

    It looks at packages, device, memory, folders, the hub, and which encoders can be loaded here. Nothing is
    downloaded. Exit code 1 where something needs mending: a package of the wrong version, a device or a folder that
    cannot be used, or an encoder named with --encoder that cannot be loaded. What is only worth knowing is marked as a
    note. A login for the hub is looked for, and never shown.

    Example:
      spahgc doctor
      spahgc doctor --encoder uni --device cuda
    """
    from spahgc.cli._system_info import problems, system_info

    info = system_info(encoder or None, device=device)
    to_mend = problems(info, encoders=encoder)
    values = asdict(info) | {
        "extras": [asdict(extra) | {"present": extra.present} for extra in info.extras],
        "encoders": [asdict(state) | {"loadable": state.loadable} for state in info.encoders],
        "problems": to_mend,
    }
    return result("\n".join(_lines(info, to_mend)), values, as_json, exit_code=EXIT_FINDINGS if to_mend else EXIT_OK)


def _lines(info: SystemInfo, problems: list[str]) -> Iterator[str]:
    yield f"spahgc {info.version}, Python {info.python}, {info.system}"
    sections = {
        "packages": _packages(info),
        "machine": [*_compute(info.compute, info.processors), _memory(info.memory)],
        "folders": [_folder("downloads", info.cache), _folder("weights", info.hub_cache)],
        "hub": list(_hub(info.hub)),
        "encoders": list(_encoders(info)),
    }
    for title, rows in sections.items():
        yield f"\n{title}"
        width = max(len(mark) for mark, _ in rows)
        yield from (f"  {mark:<{width}}  {text}" for mark, text in rows)
    yield ""
    if problems:
        yield f"To mend ({len(problems)}):"
        yield from (f"- {problem}" for problem in problems)
    else:
        yield "Nothing needs mending."


def _packages(info: SystemInfo) -> list[tuple[str, str]]:
    wrong = [package for package in info.packages if not package.fits]
    shown = [package for package in info.packages if package.name in SHOWN_PACKAGES and package.fits]
    shown.sort(key=lambda package: SHOWN_PACKAGES.index(package.name))
    rows = [(FINE, ", ".join(f"{package.name} {package.version}" for package in shown))]
    rows += [(MEND, f"{each.name} {each.version or 'is missing'}, needs {each.needs}") for each in wrong]
    present = [extra.name for extra in info.extras if extra.present]
    rows += [(FINE, f"extras: {', '.join(present)}")] if present else []
    return rows + [_absent(extra) for extra in info.extras if not extra.present]


def _absent(extra: Extra) -> tuple[str, str]:
    lacking = ", ".join(package.name for package in extra.packages if not package.fits)
    return NOTE, f"extra {extra.name}: without {lacking}; `{install_command(extra.name)}`"


def _compute(compute: Compute, processors: int) -> Iterator[tuple[str, str]]:
    if compute.error is not None:
        yield MEND, compute.error.split(" (")[0]
    for device in compute.devices:
        size = "" if device.memory is None else f", {_gb(device.free)} of {_gb(device.memory)} free"
        yield FINE, f"{device.name}: {device.model}{size}"
    if not compute.devices and compute.nvidia_driver and not compute.cuda_build:
        yield NOTE, "there is an NVIDIA driver, but this torch was built without CUDA: see https://pytorch.org"
    elif not compute.devices:
        yield NOTE, "no accelerator: networks run on the processor"
    if compute.chosen is not None:
        threads = f"{_count(compute.threads or 0, 'thread')} of torch"
        yield FINE, f"device that is used: {compute.chosen}; {_count(processors, 'processor')}, {threads}"
    if compute.threads is not None and compute.threads > processors:
        yield NOTE, f"more threads than processors slow each other down: set OMP_NUM_THREADS={processors}"


def _count(number: int, label: str) -> str:
    return f"{number} {label}" if number == 1 else f"{number} {label}s"


def _memory(memory: Memory) -> tuple[str, str]:
    return FINE, f"memory: {_gb(memory.free)} of {_gb(memory.total)} free"


def _folder(label: str, folder: Folder) -> tuple[str, str]:
    place = _short(folder.path)
    if not folder.writable:
        return MEND, f"{label}: {place} cannot be written"
    little = folder.free is not None and folder.free < LITTLE_SPACE_GB * BYTES_PER_GB
    return NOTE if little else FINE, f"{label}: {place}, {_gb(folder.free)} free"


def _short(path: Path) -> str:
    """The path without the name of the user, who may post this."""
    return f"~/{path.relative_to(Path.home())}" if path.is_relative_to(Path.home()) else str(path)


def _hub(hub: Hub) -> Iterator[tuple[str, str]]:
    if hub.offline:
        yield NOTE, f"{hub.endpoint}: offline mode is on (HF_HUB_OFFLINE), it was not asked"
    elif hub.reachable:
        yield FINE, f"{hub.endpoint} answers"
    else:
        yield NOTE, f"{hub.endpoint}: {hub.reason}. Without network set HF_HUB_OFFLINE=1, which saves the waiting."
    if hub.logged_in:
        yield FINE, "a login was found"
    else:
        yield NOTE, "nobody is logged in: gated weights need `hf auth login`"


def _encoders(info: SystemInfo) -> Iterator[tuple[str, str]]:
    """Encoders in the same state share a heading."""
    groups: dict[tuple[str, str], list[EncoderState]] = {}
    for each in info.encoders:
        groups.setdefault((each.state, each.detail), []).append(each)
    for (state, detail), members in sorted(groups.items(), key=lambda item: not item[1][0].loadable):
        gated = state == GATED
        todo = "; request access on its page, then run `hf auth login`" if gated else members[0].advice
        yield state, f"{detail}{'; ' if todo and not gated else ''}{todo}"
        names = [f"{each.name}{'' if each.size is None else f' ({_gb(each.size)})'}" for each in members]
        if gated:
            width = max(map(len, names))
            yield from (("", f"  {name:<{width}}  {each.page}") for name, each in zip(names, members, strict=True))
        else:
            yield from (("", f"  {line}") for line in textwrap.wrap(", ".join(names), NAMES_WIDTH))


def _gb(size: int | None) -> str:
    return "unknown" if size is None else f"{size / BYTES_PER_GB:.1f} GB"
