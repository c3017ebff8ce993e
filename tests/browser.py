"""A headless Chromium for pages: no network, and a record of everything that goes wrong in them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

VARIABLE = "SPAHGC_CHROMIUM"
"""Environment variable with the path of a browser."""
NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
READY = "html[data-ready=true]"
TIMEOUT_MS = 20_000


def find_chromium() -> str:
    """Path of a browser; skips the test where there is none, fails where the variable names none."""
    named = os.environ.get(VARIABLE)
    if named:
        found = shutil.which(named)
        if found is None:
            pytest.fail(f"{VARIABLE} names {named}, which is no program")
        return found
    found = next((path for path in map(shutil.which, NAMES) if path), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is installed, and {VARIABLE} names none")
    return found


@dataclass
class Opened:
    """A page in the browser, and what it did that it must not do."""

    page: Any
    """Playwright's page."""
    requests: list[str] = field(default_factory=list)
    """Addresses that it asked for, beside its own file."""
    faults: list[str] = field(default_factory=list)
    """Errors and warnings of the console, exceptions, and dialogs."""

    def assert_quiet(self) -> None:
        """No request, no error, no dialog."""
        assert self.requests == []
        assert self.faults == []


@contextmanager
def chromium() -> Iterator[Any]:
    """The browser."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = find_chromium()
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Any, path: Path, *, beside: str | None = None, **context: Any) -> Iterator[Opened]:
    """A page that has been opened from its file and says that it is ready.

    Parameters
    ----------
    browser
        From :func:`chromium`.
    path
        The file.
    beside
        Folder beside the file from which it may load pictures.
    context
        Settings of playwright's context, such as ``color_scheme`` or ``viewport``.
    """
    own = path.resolve().as_uri()
    files = None if beside is None else f"{path.resolve().parent.as_uri()}/{beside}/"
    surroundings = browser.new_context(accept_downloads=True, **context)
    surroundings.set_default_timeout(TIMEOUT_MS)
    try:
        seen = Opened(surroundings.new_page())

        def answer(route: Any) -> None:
            if route.request.url == own or (files is not None and route.request.url.startswith(files)):
                route.continue_()
                return
            seen.requests.append(route.request.url)
            route.abort()

        def refuse(dialog: Any) -> None:
            seen.faults.append(f"dialog: {dialog.message}")
            dialog.dismiss()

        # Blobs and data are of the page itself; everything else is stopped and remembered.
        seen.page.route(lambda url: not url.startswith(("blob:", "data:")), answer)
        seen.page.on("dialog", refuse)
        seen.page.on("pageerror", lambda error: seen.faults.append(str(error)))
        seen.page.on(
            "console", lambda line: seen.faults.append(line.text) if line.type in ("error", "warning") else None
        )
        seen.page.goto(own)
        # A selector, for what playwright evaluates in a page of its own accord the page's policy forbids.
        seen.page.locator(READY).wait_for(state="attached")
        yield seen
    finally:
        surroundings.close()
