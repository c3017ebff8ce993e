"""Cohorts as lists of slides: from a copy that is there, or downloaded first."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

from spahgc._logging import warn
from spahgc._settings import settings
from spahgc._validate import check_writable_folder
from spahgc.datasets._cohort import CohortUnavailableError, find_cohort
from spahgc.datasets._find import Layout, complete_files, is_complete, sections_in
from spahgc.datasets._turns import working_folder

if TYPE_CHECKING:
    from anndata import AnnData

FOLDER = "cohorts"
"""Folder of the downloads within the cache."""
COHORT = "cohort"
"""What processes that download sections of the same cohort take turns with."""


def fetch(name: str, *, sections: Sequence[str] | None = None, mirror: str | None = None) -> Path:
    """Download a cohort into the cache folder; what is there already is not downloaded again.

    Parameters
    ----------
    name
        Name of the cohort, see :func:`spahgc.datasets.cohorts`.
    sections
        The sections to download; ``None`` takes all. Where the source is one archive, all are downloaded.
    mirror
        Address of a server that stands in for the source: ``https://host/a`` is asked for as ``<mirror>/host/a``. For
        HEST-1k set the environment variable ``HF_ENDPOINT`` instead.

    Returns
    -------
    The folder, ``<spahgc.settings.cache_dir>/cohorts/<name>``. The function of that name reads it.

    Raises
    ------
    spahgc.datasets.CohortUnavailableError
        If a file cannot be had: no network, no access, or it is not there any more. The message says what to do.
    OSError
        If the folder cannot be written, or has no room.
    ValueError
        If the cohort or a section is not known.

    Notes
    -----
    A download that broke off is continued by the next call. A file takes its place when it is whole: when it has the
    length that the server announced, and the checksum, where the source states one. Of processes that want the same
    cohort one downloads, and the others wait for it.

    Examples
    --------
    >>> import spahgc as sp
    >>> folder = sp.datasets.fetch("her2st", sections=["C2", "C3"])  # doctest: +SKIP
    """
    cohort = find_cohort(name)
    wanted = cohort.check_sections(sections)
    layout = layout_of(name)
    folder = Path(settings.cache_dir).expanduser() / FOLDER / name
    if not [section for section in wanted if not is_complete(layout, folder, section)]:
        return folder  # also in a cache that nobody may write
    check_writable_folder(folder)
    with working_folder(folder / COHORT):  # archives are unpacked and removed: one process at a time
        missing = [section for section in wanted if not is_complete(layout, folder, section)]
        if missing:
            layout.download(folder, missing, mirror)
    incomplete = [section for section in missing if not is_complete(layout, folder, section)]
    if incomplete:
        raise CohortUnavailableError(
            f"the download of cohort {name} has ended, but {', '.join(incomplete)} is not complete: the source holds other "
            f"files than it did ({layout.LAYOUT}). Open {cohort.page}, or pass a copy that you have: path=..."
        )
    return folder


def load(
    name: str, path: str | os.PathLike[str] | None = None, *, sections: Sequence[str] | None = None
) -> list[AnnData]:
    """Read a cohort, from a copy or from the cache folder; all cohorts' functions come down to this, and share its docs.

    Parameters
    ----------
    name
        Name of the cohort.
    path
        Folder with a copy, in the layout of the cohort. ``None`` takes the cache folder and downloads what is missing
        (:func:`spahgc.datasets.fetch`).
    sections
        Names of the sections to read; ``None`` takes all that are there.

    Returns
    -------
    One slide a section, with ``obs["slide"]``, ``obs["patient"]``, and citation, licence and source in
    ``uns["spahgc"]["cohort"]``.

    Raises
    ------
    FileNotFoundError
        If the folder, or a file of a section, is missing.
    spahgc.datasets.CohortUnavailableError
        If the cohort cannot be downloaded.
    ValueError
        If a section is not known, or a file is damaged.
    """
    cohort = find_cohort(name)
    wanted = cohort.check_sections(sections)
    layout = layout_of(name)
    folder = fetch(name, sections=wanted) if path is None else Path(path).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f'path="{folder}" is no folder. Pass the folder that holds the copy of cohort {name}.')
    if sections is None:
        wanted = available(name, folder)
        if len(wanted) < len(cohort.sections):
            warn(
                f'{len(wanted)} of the {len(cohort.sections)} sections of cohort {name} are in "{folder}": '
                f"{', '.join(wanted)}.",
                stacklevel=3,
            )
    files = {section: complete_files(layout, cohort, folder, section) for section in wanted}
    return [cohort.annotate(layout.read(folder, section, of_section), section) for section, of_section in files.items()]


def available(name: str, path: str | os.PathLike[str]) -> list[str]:
    """Sections that a copy holds.

    Raises
    ------
    FileNotFoundError
        If there is none, or if one lacks a file.
    """
    cohort, layout, folder = find_cohort(name), layout_of(name), Path(path).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f'path="{folder}" is no folder. Pass the folder that holds the copy of cohort {name}.')
    sections = sections_in(layout, cohort, folder)
    for section in sections:
        complete_files(layout, cohort, folder, section)
    return sections


def layout_of(name: str) -> Layout:
    """The module that knows the files of a cohort."""
    module = "_hest" if name.startswith("hest_") else f"_{name}"
    return cast(Layout, import_module(f"spahgc.datasets.{module}"))
