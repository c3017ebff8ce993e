"""Children: copies of this process that do one thing under limits, and say through a pipe what came of it.

They are forked, so that they begin with everything imported and every slide in memory. Each is the head of a session, by
which whatever it started itself is found again.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from robustness.errors import describe

TIMEOUT_S = 120.0
"""Seconds without a word from a child after which it counts as hanging; a hundred times what it takes."""
MEMORY_BYTES = 3 * 2**30
"""Address space that a child may take beyond what it begins with."""
ENDING_S = 10.0
"""Seconds in which what a child has started must have ended after it."""

Send = Callable[[dict[str, Any]], None]


class Ended(NamedTuple):
    """What came of a child."""

    messages: list[dict[str, Any]]
    """What it said; the last one holds ``value``, or ``error`` as :func:`robustness.errors.describe` has it."""
    signal: int | None
    """That ended it."""
    hung: bool
    stderr: str
    left: list[str]
    """Processes that it started and that outlived it; they are ended now."""
    code: int | None = None

    @property
    def value(self) -> Any:
        return self.messages[-1].get("value") if self.messages else None

    @property
    def error(self) -> dict[str, Any] | None:
        return self.messages[-1].get("error") if self.messages else None

    @property
    def problem(self) -> str | None:
        """Why this is no end that any child may come to: a crash, a hang, processes left, an error of others."""
        if self.hung:
            return "hangs"
        if self.signal is not None:
            return f"crashed with {signal.Signals(self.signal).name}{_first_frame(self.stderr)}"
        if self.left:
            return f"left processes: {'; '.join(self.left)}"
        if self.error is not None and not self.error["ours"]:
            return f"foreign {self.error['text']} [{self.error['raised']}]"
        return None


class Child:
    """A running child.

    Parameters
    ----------
    function
        What it does. It gets a function that sends a message; what it returns or raises is sent last.
    memory
        Bytes of address space that it may take, ``None`` for any.
    file_size
        Largest file that it may write, bytes, ``None`` for any.
    """

    def __init__(
        self, function: Callable[[Send], Any], *, memory: int | None = MEMORY_BYTES, file_size: int | None = None
    ) -> None:
        receiver, sender = os.pipe()
        self._stderr = os.memfd_create("stderr")
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(receiver)
            _live(function, sender, self._stderr, memory, file_size)
        os.close(sender)
        self._receiver, self._buffer = receiver, b""
        self.messages: list[dict[str, Any]] = []
        self.hung = False

    def receive(self, timeout_s: float = TIMEOUT_S) -> dict[str, Any] | None:
        """The next message; ``None`` when there are no more, also of one that hangs, which is ended."""
        until = time.monotonic() + timeout_s
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([self._receiver], [], [], max(until - time.monotonic(), 0))
            if not ready:
                self.hung = True
                os.killpg(self.pid, signal.SIGKILL)
                return None
            part = os.read(self._receiver, 1 << 16)
            if not part:
                return None
            self._buffer += part
        line, self._buffer = self._buffer.split(b"\n", 1)
        self.messages.append(json.loads(line))
        return self.messages[-1]

    def end(self, timeout_s: float = TIMEOUT_S) -> Ended:
        """Wait until it has ended."""
        while self.receive(timeout_s) is not None:
            pass
        os.close(self._receiver)
        status = os.waitpid(self.pid, 0)[1]
        left = _left_behind(self.pid)
        stderr = os.pread(self._stderr, os.fstat(self._stderr).st_size, 0).decode(errors="replace")
        os.close(self._stderr)
        by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
        return Ended(self.messages, by, self.hung, stderr, left, code)


def together(functions: list[Callable[[], Any]], *, timeout_s: float = TIMEOUT_S) -> list[Ended]:
    """Call several things at the same time, each in a child."""
    gate, opened = os.pipe()

    def waiting(function: Callable[[], Any]) -> Callable[[Send], Any]:
        def run(_: Send) -> Any:
            os.close(opened)
            os.read(gate, 1)  # ends when nobody holds the other side any more
            return function()

        return run

    children = [Child(waiting(function), memory=None) for function in functions]
    os.close(opened)
    os.close(gate)
    return [child.end(timeout_s) for child in children]


def in_child(function: Callable[[], Any], *, timeout_s: float = TIMEOUT_S, **limits: int | None) -> Ended:
    """Call something in a child, and wait for it."""
    return Child(lambda _: function(), **limits).end(timeout_s)


def must_end_well(ended: Ended, label: str) -> Ended:
    """Stop the harness where something fails that nothing disturbed: nothing can be said then."""
    if ended.problem is not None or ended.error is not None or ended.code:
        sys.exit(f"{label} fails without being disturbed: {ended.problem or ended.error}\n{ended.stderr}")
    return ended


def _live(function: Callable[[Send], Any], sender: int, stderr: int, memory: int | None, file_size: int | None) -> None:
    """What a child does; it never returns to the code of its parent."""
    os.setsid()
    devnull = os.open(os.devnull, os.O_RDWR)
    os.dup2(devnull, 0)
    os.dup2(devnull, 1)
    os.dup2(stderr, 2)
    faulthandler.enable()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory is not None:
        limit = address_space() + memory
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    if file_size is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))

    def send(message: dict[str, Any]) -> None:
        os.write(sender, json.dumps(message).encode() + b"\n")

    code = 0
    try:
        send({"value": function(send)})
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        send({"value": None})
    except BaseException as error:  # noqa: BLE001 - the parent judges it
        with contextlib.suppress(OSError):  # the size of files may be limited
            traceback.print_exc()
        send({"error": describe(error)})
    finally:
        sys.stderr.flush()
        os._exit(code)


def _first_frame(stderr: str) -> str:
    """Where Python was when it crashed, as faulthandler says it."""
    frames = [line.strip() for line in stderr.splitlines() if line.startswith("  File ")]
    ours = [line for line in frames if "/spahgc/" in line]
    return f" ({'; '.join(frames[:1] + ours[:1])})" if frames else ""


def address_space() -> int:
    """Bytes of address space of this process."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _left_behind(session: int) -> list[str]:
    """Processes of a session whose head has ended; they get some seconds to end, and are ended then."""
    until = time.monotonic() + ENDING_S
    while (left := _processes_of(session)) and time.monotonic() < until:
        time.sleep(0.02)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    return list(left.values())


def _processes_of(session: int) -> dict[int, str]:
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            # The name in brackets may hold anything; behind it stand state, parent, group and session.
            state, _, _, of_session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(of_session) == session and state != "Z":
                found[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")[:200]
        except OSError:  # it has ended
            continue
    return found
