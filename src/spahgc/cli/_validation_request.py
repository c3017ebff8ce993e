"""What a cross-validation is asked to run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PAPER_ENCODER, PAPER_PRESET, PAPER_GROUP = "uni", "paper", "slide"
"""With what the paper's figures were reached."""
METHODS = ("spahgc", "ridge", "nearest")
SCORE_FILES = ("result.json", "scores.csv", "per_slide.csv")


@dataclass(frozen=True, kw_only=True)
class ValidationRequest:
    """What both kinds of cross-validation are asked.

    Parameters
    ----------
    encoder, checkpoint, context
        With what slides are embedded, as :func:`spahgc.pp.embed` has them; ``encoder=None`` embeds none.
    methods, preset, group_by, seed, n_jobs, device
        As :func:`spahgc.tl.cross_validate` has them.
    """

    encoder: str | None
    checkpoint: Path | None
    context: bool | None
    methods: Sequence[str]
    preset: str
    group_by: str | None
    seed: int
    n_jobs: int
    device: str | None


@dataclass(frozen=True, kw_only=True)
class CohortRequest(ValidationRequest):
    """A cohort of the paper.

    Parameters
    ----------
    cohort
        Name of the cohort.
    path
        A copy of it; ``None`` downloads it.
    sections
        The sections; ``None`` takes all that are there.
    """

    encoder: str
    context: bool
    group_by: str
    cohort: str
    path: Path | None
    sections: Sequence[str] | None


@dataclass(frozen=True, kw_only=True)
class SlidesRequest(ValidationRequest):
    """Measured slides of the user, of which those without an embedding are embedded.

    Parameters
    ----------
    paths
        The slides on disk.
    splits, genes, embedding, layer, units, table_key
        As :func:`spahgc.tl.cross_validate` has them.
    """

    paths: Sequence[Path]
    splits: Path | None
    genes: list[str] | str | None
    embedding: str | None
    layer: str | None
    units: str | None
    table_key: str | None


@dataclass(frozen=True, kw_only=True)
class HestBenchRequest(ValidationRequest):
    """A task of the HEST benchmark.

    Parameters
    ----------
    task
        Name of the task.
    path
        A copy of the benchmark's data.
    """

    encoder: str
    task: str
    path: Path
