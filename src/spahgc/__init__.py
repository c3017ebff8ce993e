"""Spatial gene expression of an H&E slide, predicted from a few measured reference slides."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spahgc._parameters import Parameters
    from spahgc._settings import settings
    from spahgc.model import SpaHGC

__version__ = version("spahgc")

__all__ = [
    "Parameters",
    "SpaHGC",
    "__version__",
    "datasets",
    "encoders",
    "get",
    "image",
    "io",
    "pl",
    "pp",
    "settings",
    "tl",
]

_OBJECTS = {"Parameters": "spahgc._parameters", "SpaHGC": "spahgc.model", "settings": "spahgc._settings"}
_MODULES = {"datasets", "encoders", "get", "image", "io", "pl", "pp", "tl"}


def __getattr__(name: str) -> Any:
    """Load submodules when they are first used, so that ``import spahgc`` costs no torch (PEP 562)."""
    if name in _MODULES:
        return import_module(f"spahgc.{name}")
    if name in _OBJECTS:
        return getattr(import_module(_OBJECTS[name]), name)
    raise AttributeError(f"module 'spahgc' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
