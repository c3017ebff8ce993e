"""Cutaneous squamous cell carcinoma (Ji et al. 2020): one archive of GEO."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from anndata import AnnData

from spahgc.datasets._archive import unpack
from spahgc.datasets._cohort import COHORTS
from spahgc.datasets._download import Remote, retrieve
from spahgc.datasets._find import Files, one_file

ARCHIVE_URL = "https://ftp.ncbi.nlm.nih.gov/geo/series/GSE144nnn/GSE144240/suppl/GSE144240_RAW.tar"
LAYOUT = (
    "*P2_ST_rep1_stdata.tsv[.gz], *spot*P2_ST_rep1.tsv[.gz] and *P2_ST_rep1.jpg in one folder (images that GEO packed "
    "as .jpg.gz have to be unpacked with gunzip)"
)
FILE = re.compile(r"(?:.*[_-])?(P\d+_ST_rep\d+)(_stdata\.tsv|\.tsv|\.jpg)(\.gz)?")
"""Section, kind of file, packing; before it stand GEO's number of the sample and, for spots, what the table is."""


def find(folder: Path, section: str) -> Files:
    """Find the files of a section."""
    # The character before the section's name keeps P2 from being found in P12.
    before = ("", "*[_-]")
    tables = ("tsv", "tsv.gz")
    return {
        "counts": one_file(folder, *(f"{start}{section}_stdata.{end}" for start in before for end in tables)),
        "spots": one_file(folder, *(f"*spot*[_-]{section}.{end}" for end in tables)),
        "image": one_file(folder, *(f"{start}{section}.jpg" for start in before)),
    }


def read(folder: Path, section: str, files: dict[str, Path]) -> AnnData:
    """Read a section."""
    from spahgc.io import st

    return st(files["counts"], files["spots"], files["image"], library_id=section)


def download(folder: Path, sections: list[str], mirror: str | None) -> None:
    """Download the archive, which has all sections, and unpack them."""
    cohort = COHORTS["cscc"]
    archive = folder / ARCHIVE_URL.rsplit("/", 1)[1]
    unpack(
        retrieve(Remote(ARCHIVE_URL), archive, page=cohort.page, mirror=mirror),
        folder,
        lambda name: _destination(name, set(cohort.sections)),
    )


def _destination(member: str, sections: set[str]) -> str | None:
    name = PurePosixPath(member).name
    match = FILE.fullmatch(name)
    if match is None or match[1] not in sections:
        return None
    return name.removesuffix(".gz") if match[2] == ".jpg" else name
