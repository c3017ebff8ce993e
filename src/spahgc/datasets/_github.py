"""Files of a GitHub repository, each checked against the checksum that git gave it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from spahgc._settings import progress_bar
from spahgc.datasets._cohort import COHORTS, CohortUnavailableError
from spahgc.datasets._download import GIT, Remote, retrieve

LISTING = "listing.json"
Entries = Mapping[str, Mapping[str, object]]
"""What the listing says of each file, by path."""


@dataclass(frozen=True)
class Repository:
    """A repository that holds a cohort.

    Parameters
    ----------
    cohort
        Name of the cohort.
    name
        Owner and repository.
    ref
        Branch, or ``HEAD`` for the branch that is shown first.
    """

    cohort: str
    name: str
    ref: str = "HEAD"

    @property
    def page(self) -> str:
        """Web page on which the files can be found by hand."""
        return COHORTS[self.cohort].page

    @property
    def listing_url(self) -> str:
        """Names, sizes and checksums of all files."""
        return f"https://api.github.com/repos/{self.name}/git/trees/{self.ref}?recursive=1"

    def file_url(self, path: str) -> str:
        """Address of a file."""
        return f"https://raw.githubusercontent.com/{self.name}/{self.ref}/{path}"

    def entries(self, mirror: str | None) -> Entries:
        """Ask for the files that there are.

        Raises
        ------
        CohortUnavailableError
            If the answer is no listing.
        """
        # Anew for every call, since an earlier one may be out of date.
        with tempfile.TemporaryDirectory(prefix="spahgc-") as scratch:
            path = retrieve(Remote(self.listing_url), Path(scratch) / LISTING, page=self.page, mirror=mirror)
            try:
                content = json.loads(path.read_text(encoding="utf-8"))
                return {entry["path"]: entry for entry in content["tree"] if entry["type"] == "blob"}
            except (ValueError, KeyError, TypeError) as error:
                raise CohortUnavailableError(
                    f"{self.listing_url} does not answer with a listing of files ({error!r}). Is there a proxy in between? "
                    f"Download by hand from {self.page} and pass the folder: path=..."
                ) from error

    def download(self, paths: Iterable[str], entries: Entries, folder: Path, mirror: str | None) -> None:
        """Download files into a folder, under the paths that they have in the repository."""
        wanted = list(dict.fromkeys(paths))
        with progress_bar(total=len(wanted), desc=self.cohort, unit="file") as bar:
            for path in wanted:
                remote = Remote(self.file_url(path), f"{GIT}{entries[path]['sha']}", int(str(entries[path]["size"])))
                retrieve(remote, folder / path, page=self.page, mirror=mirror)
                bar.update()

    def first_of(self, patterns: Iterable[str], entries: Entries, section: str, label: str) -> str:
        """Path of the file that fits the first pattern that any file fits.

        Raises
        ------
        CohortUnavailableError
            If none fits any.
        """
        tried = list(patterns)
        for pattern in tried:
            fitting = sorted(path for path in entries if fnmatch(path, pattern))
            if fitting:
                return fitting[0]
        raise CohortUnavailableError(
            f'the repository {self.name} has no {label} of section "{section}" any more ({" or ".join(tried)}). Leave the '
            f"section out with sections=..., open {self.page}, or pass a copy that you have: path=..."
        )
