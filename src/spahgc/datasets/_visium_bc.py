"""Three breast cancer sections of 10x Genomics: Space Ranger's output and the full-resolution images."""

from __future__ import annotations

from pathlib import Path

from anndata import AnnData

from spahgc._settings import progress_bar
from spahgc.datasets._archive import unpack
from spahgc.datasets._cohort import COHORTS
from spahgc.datasets._download import Remote, retrieve
from spahgc.datasets._find import Files, one_file

SAMPLES_URL = "https://cf.10xgenomics.com/samples/spatial-exp"
SAMPLES = {
    "block1": "1.1.0/V1_Breast_Cancer_Block_A_Section_1",
    "block2": "1.1.0/V1_Breast_Cancer_Block_A_Section_2",
    "FFPE": "1.3.0/Visium_FFPE_Human_Breast_Cancer",
}
"""Version of the pipeline and name of the sample, by section."""
COUNTS, SPATIAL, IMAGE = "filtered_feature_bc_matrix.h5", "spatial", "image.tif"
LAYOUT = f"block1/{COUNTS}, block1/{SPATIAL}/ (with tissue_positions_list.csv) and block1/{IMAGE} (full resolution)"


def find(folder: Path, section: str) -> Files:
    """Find the files of a section."""
    return {
        "counts": one_file(folder, f"{section}/{COUNTS}", f"{section}/*_{COUNTS}"),
        "positions": one_file(folder, f"{section}/{SPATIAL}/tissue_positions*"),
        "image": one_file(folder, f"{section}/{IMAGE}", f"{section}/*_{IMAGE}"),
    }


def read(folder: Path, section: str, files: dict[str, Path]) -> AnnData:
    """Read a section."""
    from spahgc.io import visium

    return visium(folder / section, image=files["image"], library_id=section)


def download(folder: Path, sections: list[str], mirror: str | None) -> None:
    """Download what is missing of some sections."""
    page = COHORTS["visium_bc"].page
    with progress_bar(total=len(sections), desc="visium_bc", unit="section") as bar:
        for section in sections:
            files, target = find(folder, section), folder / section
            sample = SAMPLES[section]
            stem = f"{SAMPLES_URL}/{sample}/{sample.rsplit('/', 1)[1]}"
            if files["counts"] is None:
                retrieve(Remote(f"{stem}_{COUNTS}"), target / COUNTS, page=page, mirror=mirror)
            if files["positions"] is None:
                remote = Remote(f"{stem}_{SPATIAL}.tar.gz")
                archive = retrieve(remote, target / f"{SPATIAL}.tar.gz", page=page, mirror=mirror)
                unpack(archive, target, _destination)
            if files["image"] is None:
                retrieve(Remote(f"{stem}_{IMAGE}"), target / IMAGE, page=page, mirror=mirror)
            bar.update()


def _destination(member: str) -> str | None:
    parts = [part for part in member.split("/") if part not in ("", ".")]
    return f"{SPATIAL}/{parts[-1]}" if SPATIAL in parts[:-1] else None
