"""Mouse olfactory bulb on 2k arrays: the example that the repository of STUtility holds."""

from __future__ import annotations

from pathlib import Path

from anndata import AnnData

from spahgc._keys import SPATIAL
from spahgc.datasets._find import Files, one_file
from spahgc.datasets._github import Repository

REPOSITORY = Repository("olfactory_bulb", "jbergenstrahle/STUtility")
FOLDERS = ("inst/extdata/counts/", "")
"""Where the repository has them; or a copy of that folder itself."""
LAYOUT = (
    "inst/extdata/counts/MOB1.tsv, inst/extdata/counts/alignment_table_MOB1.tsv and inst/extdata/counts/MOB1.jpg as in the "
    "repository, or these files in one folder (tables .gz or not)"
)
MAX_IMAGE_MM = 20.0
"""Width that an image of an array of 6.5 mm may show; the published ones show 9.

The repository has had tables of several versions of its images: with one of another size, all spots lie in a corner."""


def _paths(section: str) -> dict[str, list[str]]:
    """Where the files of a section are, by what they are."""
    names = {
        "counts": (f"{section}.tsv", f"{section}.tsv.gz"),
        "spots": (f"alignment_table_{section}.tsv", f"alignment_table_{section}.tsv.gz"),
        "image": (f"{section}.jpg",),
    }
    return {label: [f"{folder}{name}" for folder in FOLDERS for name in each] for label, each in names.items()}


def find(folder: Path, section: str) -> Files:
    """Find the files of a section."""
    return {label: one_file(folder, *paths) for label, paths in _paths(section).items()}


def read(folder: Path, section: str, files: dict[str, Path]) -> AnnData:
    """Read a section."""
    from spahgc.io import st
    from spahgc.io._write_library import MPP

    adata = st(files["counts"], files["spots"], files["image"], library_id=section)
    record = adata.uns[SPATIAL][section]
    shown_mm = record["metadata"]["image_width_px"] * record["scalefactors"][MPP] / 1000
    if shown_mm > MAX_IMAGE_MM:
        raise ValueError(
            f'the alignment table "{files["spots"]}" is of a smaller version of the image "{files["image"]}", which would be '
            f"{shown_mm:.0f} mm wide by its spots, and at most {MAX_IMAGE_MM:g} mm are plausible. Copy table and image from "
            "the same state of the repository."
        )
    return adata


def download(folder: Path, sections: list[str], mirror: str | None) -> None:
    """Download the files of some sections, each checked against the repository's own checksum."""
    entries = REPOSITORY.entries(mirror)
    paths = [
        REPOSITORY.first_of(patterns, entries, section, label)
        for section in sections
        for label, patterns in _paths(section).items()
    ]
    REPOSITORY.download(paths, entries, folder, mirror)
