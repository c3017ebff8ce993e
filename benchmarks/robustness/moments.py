"""The moments of a call at which it touches the file system, and what can happen to it at one of them.

An audit hook of Python hears of everything that opens, renames, removes, links or locks, in any thread, just before it is
done. A file that is opened for writing makes a second moment: it is there, and empty.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

EVENTS = (
    "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "os.listdir", "os.scandir",
    "os.chmod", "os.utime", "shutil.copyfile", "shutil.move", "shutil.rmtree", "fcntl.flock", "ctypes.dlsym",
)  # fmt: skip
"""Beside opening. ctypes stands for the one function that changes the places of two folders."""
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT

Action = Callable[[], None]


class Moments:
    """Counts the moments of this process from now on, and does something at one of them.

    Parameters
    ----------
    folder
        Files that are opened elsewhere do not count.
    at
        Number of the moment, from 0; ``None`` counts only.
    action
        What is done then.
    """

    def __init__(self, folder: Path, at: int | None = None, action: Action | None = None) -> None:
        self.folder, self.at, self.action = str(folder), at, action
        self.labels: list[str] = []
        self._lock = threading.RLock()
        self.active = True
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.active or (event != "open" and event not in EVENTS):
            return
        with self._lock:
            if event == "open":
                self._hear_opening(*arguments)
            elif self._concerns(event, arguments):
                self._moment(f"before {event} {self._short(arguments[0])}")

    def _concerns(self, event: str, arguments: tuple[Any, ...]) -> bool:
        """Whether it is about the folder; imports look into others."""
        path = arguments[0]
        if event == "ctypes.dlsym":
            return arguments[1] == "renameat2"
        relative = any(isinstance(each, int) and each > 2 for each in arguments[1:])  # to a descriptor of a folder
        return isinstance(path, int) or relative or os.fsdecode(path).startswith(self.folder)

    def _hear_opening(self, path: Any, mode: Any, flags: int) -> None:
        name = os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else ""
        if not name.startswith(self.folder) or not flags & WRITES:
            return
        self._moment(f"before opening {self._short(name)}")
        self._moment(f"after opening {self._short(name)}", lambda: _open_empty(name, flags))

    def _moment(self, label: str, before: Action | None = None) -> None:
        self.labels.append(label)
        if len(self.labels) - 1 != self.at:
            return
        self.active = False
        if before is not None:
            before()
        if self.action is not None:
            self.action()

    def _short(self, path: Any) -> str:
        return str(path).replace(self.folder, "").lstrip("/")[:100]


def _open_empty(name: str, flags: int) -> None:
    """What opening does, so that what follows happens after it."""
    try:
        os.close(os.open(name, flags & ~os.O_EXCL, 0o666))
    except OSError:
        pass


def kill() -> None:
    """As if the power had gone."""
    os.kill(os.getpid(), signal.SIGKILL)


REMOVALS = ("os.remove", "os.rmdir", "os.scandir", "os.listdir", "shutil.rmtree", "fcntl.flock")


def is_removal(label: str) -> bool:
    """Whether something is looked for, locked or removed at a moment, which no full disk prevents."""
    return any(f"before {event} " in label for event in REMOVALS)


def evenly(n: int, wanted: int) -> list[int]:
    """So many of the numbers below n, each from the middle of one of as many equal parts."""
    return sorted({int((i + 0.5) * n / min(wanted, n)) for i in range(min(wanted, n))})
