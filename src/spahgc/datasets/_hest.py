"""Cohorts that are samples of HEST-1k, a gated data set of the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from anndata import AnnData

from spahgc._settings import progress_bar
from spahgc.datasets._cohort import CohortUnavailableError
from spahgc.datasets._find import Files, one_file
from spahgc.datasets._hub import reaching_hest

REPOSITORY = "MahmoodLab/hest"
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
            wanted = {"metadata": f"metadata/{section}.json", "counts": f"st/{section}.h5ad"}
            wanted["image"] = f"wsis/{section}.tif"  # the largest of them last
            found = find(folder, section)
            for label, name in wanted.items():
                if found[label] is None:
                    with reaching_hest(name):
                        hf_hub_download(REPOSITORY, name, repo_type="dataset", local_dir=folder)
            bar.update()
