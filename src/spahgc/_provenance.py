"""What is needed to repeat a result: versions of the packages that made it."""

from __future__ import annotations

import platform
from importlib.metadata import version

PACKAGES = ("spahgc", "anndata", "numpy", "scipy", "scanpy", "torch", "torch-geometric")


def versions() -> dict[str, str]:
    """Installed versions by package, and that of Python."""
    return {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}
