"""Names that a shell completes. Pressing Tab must not load torch."""

from __future__ import annotations

from collections.abc import Iterable

import typer

METHODS = ("spahgc", "mean", "nearest", "ridge", "ridge_neighbours", "ridge_components", "mlp", "bleep")
"""Methods of a prediction: those of :func:`spahgc.tl.predict`, which are not imported for it."""
STAINS = ("macenko", "reinhard")
LAYOUTS = ("hexagonal", "square")


def _beginning(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def encoder_names(incomplete: str) -> list[str]:
    """Registered encoders."""
    from spahgc.encoders._cards import CARDS

    return _beginning(CARDS, incomplete)


def cohort_names(incomplete: str) -> list[str]:
    """Cohorts of the paper."""
    from spahgc.datasets._cohort import COHORTS

    return _beginning(COHORTS, incomplete)


def section_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Sections of the cohort that the line names already."""
    from spahgc.datasets._cohort import COHORTS

    cohort = COHORTS.get(str(ctx.params.get("cohort")))
    return [] if cohort is None else _beginning(cohort.sections, incomplete)


def method_names(incomplete: str) -> list[str]:
    """Methods of a prediction."""
    return _beginning(METHODS, incomplete)


def preset_names(incomplete: str) -> list[str]:
    """Presets of the parameters."""
    from spahgc._parameters import PRESETS

    return _beginning(PRESETS, incomplete)


def devices(incomplete: str) -> list[str]:
    """Kinds of devices; which are there is known to torch alone."""
    return _beginning(("cpu", "cuda", "mps"), incomplete)


def stain_names(incomplete: str) -> list[str]:
    """Normalisations of the stain."""
    return _beginning(STAINS, incomplete)


def layout_names(incomplete: str) -> list[str]:
    """Layouts of tiles."""
    return _beginning(LAYOUTS, incomplete)
