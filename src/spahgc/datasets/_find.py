"""The files of a section in a copy of a cohort."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from anndata import AnnData

from spahgc._validate import quoted
from spahgc.datasets._cohort import Cohort

Files = dict[str, Path | None]
"""Files that a section cannot be read without, by what they are; ``None`` for one that is not there."""


class Layout(Protocol):
    """What the module of a cohort offers."""

    LAYOUT: str
    """The files of a section in words, for messages."""

    def find(self, folder: Path, section: str) -> Files:
        """Find the files of a section."""

    def read(self, folder: Path, section: str, files: dict[str, Path]) -> AnnData:
        """Read a section whose files are all there."""

    def download(self, folder: Path, sections: list[str], mirror: str | None) -> None:
        """Download sections that are not complete, in the layout that :meth:`find` knows."""


def one_file(folder: Path, *patterns: str) -> Path | None:
    """The file that fits the first pattern that any file fits.

    Raises
    ------
    ValueError
        If several files fit that pattern.
    """
    for pattern in patterns:
        # A download that is under way has a name that begins with a dot.
        fitting = sorted(path for path in folder.glob(pattern) if not path.name.startswith("."))
        if len(fitting) > 1:
            raise ValueError(
                f'"{folder}" holds {len(fitting)} files that fit "{pattern}": {quoted(path.name for path in fitting)}. '
                "Leave one of them there."
            )
        if fitting:
            return fitting[0]
    return None


def is_complete(layout: Layout, folder: Path, section: str) -> bool:
    """Whether a section can be read."""
    return None not in layout.find(folder, section).values()


def sections_in(layout: Layout, cohort: Cohort, folder: Path) -> list[str]:
    """Sections of which anything is there, so that one that lacks a file is noticed and not passed over.

    Raises
    ------
    FileNotFoundError
        If there is none.
    """
    sections = [name for name in cohort.sections if any(layout.find(folder, name).values())]
    if not sections:
        held = quoted(sorted(item.name for item in folder.iterdir()))
        raise FileNotFoundError(
            f'no section of cohort {cohort.name} in "{folder}", which holds {held}. Expected is, for each of '
            f"{quoted(cohort.sections)}: {layout.LAYOUT}."
        )
    return sections


def complete_files(layout: Layout, cohort: Cohort, folder: Path, section: str) -> dict[str, Path]:
    """The files of a section.

    Raises
    ------
    FileNotFoundError
        If one is missing.
    """
    files = layout.find(folder, section)
    missing = [label for label, path in files.items() if path is None]
    if missing:
        raise FileNotFoundError(
            f'section "{section}" of cohort {cohort.name} lacks {", ".join(missing)} in "{folder}". '
            f"Expected is: {layout.LAYOUT}."
        )
    return {label: path for label, path in files.items() if path is not None}
