"""Options whose values are known by name: the registries are asked for the names once a value, or a Tab, is there."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import typer


def choice(help: str, names: Callable[[], Iterable[str]], *, closed: bool = True) -> Any:
    """An option that a shell completes.

    Parameters
    ----------
    help
        Help text.
    names
        Returns the names that are known. It is not called before one is needed, so that the help loads no registry.
    closed
        Whether other values are refused, before the command runs.
    """

    def complete(incomplete: str) -> list[str]:
        return _beginning(names(), incomplete)

    def check(ctx: typer.Context, param: typer.CallbackParam, value: str | None) -> str | None:
        if value is None or ctx.resilient_parsing or value in (known := list(names())):
            return value
        raise ValueError(f"{param.opts[0]} {value} is not known. Choose one of {', '.join(known)}.")

    return typer.Option(help=help, autocompletion=complete, callback=check if closed else None)


def _beginning(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def encoder_names() -> Iterable[str]:
    """Registered encoders; other values are names of timm."""
    from spahgc.encoders._cards import CARDS

    return CARDS


def cohort_names() -> Iterable[str]:
    """Cohorts of the paper."""
    from spahgc.datasets._cohort import COHORTS

    return COHORTS


def complete_section(ctx: typer.Context, incomplete: str) -> list[str]:
    """Sections of the cohort that the line names already."""
    from spahgc.datasets._cohort import COHORTS

    cohort = COHORTS.get(str(ctx.params.get("cohort")))
    return [] if cohort is None else _beginning(cohort.sections, incomplete)


def method_names() -> Iterable[str]:
    """Methods of a prediction."""
    from spahgc._parameters import METHODS

    return METHODS


def preset_names() -> Iterable[str]:
    """Presets of the parameters."""
    from spahgc._parameters import PRESETS

    return PRESETS


def device_kinds() -> Iterable[str]:
    """Kinds of devices; which are there is known to torch alone."""
    return ("cpu", "cuda", "mps")


def stain_names() -> Iterable[str]:
    """Normalisations of the stain."""
    from spahgc.pp._embed.stain import METHODS

    return METHODS


def layout_names() -> Iterable[str]:
    """Layouts of tiles."""
    from spahgc.image._grid import LAYOUTS

    return LAYOUTS
