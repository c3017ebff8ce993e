"""How this package was installed, and so what has to be typed for more of it."""

from __future__ import annotations

import json
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

NAME = "spahgc"
ORIGIN_FILE = "direct_url.json"
"""Where ``pip`` and its like keep from where a package was installed, if not from an index (PEP 610)."""


def install_command(extra: str) -> str:
    """What to type for an extra, from wherever the package came: a checkout, an archive, a repository, or an index.

    Parameters
    ----------
    extra
        Name of the extra, as in ``pyproject.toml``.

    Returns
    -------
    A command that works in any folder.
    """
    return _command(_origin(), extra)


def update_advice() -> str:
    """How to come to a newer version, as the end of a sentence."""
    checkout = _checkout(_origin())
    if checkout is None:
        return f'run pip install --upgrade "{NAME}"'
    return f'bring "{checkout}" up to date, then run {_command(_origin(), "")}'


def _command(origin: dict[str, Any], extra: str) -> str:
    wanted = f"[{extra}]" if extra else ""
    checkout = _checkout(origin)
    if checkout is not None:
        editable = "-e " if origin["dir_info"].get("editable") else ""
        return f'pip install {editable}"{checkout}{wanted}"'
    source = _source(origin)
    return f'pip install "{NAME}{wanted}"' if source is None else f'pip install "{NAME}{wanted} @ {source}"'


def _checkout(origin: dict[str, Any]) -> Path | None:
    """Folder of the checkout, if the package came from one that is still there."""
    if "dir_info" not in origin:
        return None
    folder = _local(str(origin.get("url", "")))
    return folder if folder is not None and (folder / "pyproject.toml").is_file() else None


def _source(origin: dict[str, Any]) -> str | None:
    """Archive or repository that the package came from, unless it was a file that is gone."""
    url = str(origin.get("url", ""))
    if "vcs_info" in origin:
        told = origin["vcs_info"]
        revision = told.get("requested_revision") or told.get("commit_id")
        return f"{told.get('vcs', 'git')}+{url}" + (f"@{revision}" if revision else "")
    if "archive_info" not in origin:
        return None
    local = _local(url)
    return url if local is None or local.is_file() else None


def _local(url: str) -> Path | None:
    parts = urlsplit(url)
    return Path(url2pathname(parts.path)) if parts.scheme == "file" else None


@cache
def _origin() -> dict[str, Any]:
    """What the installer kept; empty for an index, and for sources that were never installed."""
    try:
        kept = distribution(NAME).read_text(ORIGIN_FILE)
        told = json.loads(kept) if kept else {}
    except (PackageNotFoundError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}
