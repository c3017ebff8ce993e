"""Cohorts that are samples of HEST-1k, a gated data set of the Hugging Face hub."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from anndata import AnnData

from spahgc._settings import progress_bar
from spahgc.datasets._cohort import CohortUnavailableError
from spahgc.datasets._find import Files, one_file
from spahgc.encoders._hub import HUB_URL, hub_failures_as

REPOSITORY = "MahmoodLab/hest"
PAGE = f"{HUB_URL}/datasets/{REPOSITORY}"
TABLE = "HEST_v*.csv"
LAYOUT = f"st/NCBI681.h5ad, wsis/NCBI681.tif, and metadata/NCBI681.json or the table {TABLE}"


def find(folder: Path, section: str) -> Files:
    """Find the files of a sample."""
    counts, image = one_file(folder, f"st/{section}.h5ad"), one_file(folder, f"wsis/{section}.tif")
    metadata = one_file(folder, f"metadata/{section}.json")
    if metadata is None and (counts or image):
        metadata = max(folder.glob(TABLE), default=None)  # one table for all samples does as well
    return {"counts": counts, "image": image, "metadata": metadata}


def read(folder: Path, section: str, files: dict[str, Path]) -> AnnData:
    """Read a sample."""
    from spahgc.io import hest

    return hest(folder, section)


def download(folder: Path, sections: list[str], mirror: str | None) -> None:
    """Download what is missing of some samples; the hub's own client continues files that broke off."""
    if mirror is not None:
        raise CohortUnavailableError(
            "HEST-1k comes from the Hugging Face hub, whose mirrors are named by the environment variable HF_ENDPOINT. "
            "Set it before Python starts, and leave mirror= out."
        )
    from huggingface_hub import hf_hub_download

    with progress_bar(total=len(sections), desc="HEST-1k", unit="sample") as bar:
        for section in sections:
            names = {"metadata": f"metadata/{section}.json", "counts": f"st/{section}.h5ad"}
            names["image"] = f"wsis/{section}.tif"  # the largest of them last
            files = find(folder, section)
            for label, name in names.items():
                if files[label] is None:
                    with reaching_hest(name):
                        hf_hub_download(REPOSITORY, name, repo_type="dataset", local_dir=folder)
            bar.update()


def reaching_hest(filename: str) -> AbstractContextManager[None]:
    """Turn a failure to download a file inside of the block into one :class:`CohortUnavailableError`."""

    def unavailable(reason: str, is_refused: bool) -> Exception:
        return CohortUnavailableError(
            f"{filename} of HEST-1k is not available: {reason}. What can be done:\n"
            f"- Open {PAGE} and request access there (the data are gated), log in on this machine with "
            "`hf auth login`, and call again; what has been downloaded is kept.\n"
            "- Or pass a copy that you have: path=..."
        )

    return hub_failures_as(unavailable, also=(RuntimeError,))
