"""Mouse spinal cord (Maniatis et al. 2019): sections of the public archive that the repository of SpaCell holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData

from spahgc._logging import warn
from spahgc.datasets._cohort import COHORTS
from spahgc.datasets._find import Files, one_file
from spahgc.datasets._github import Repository

if TYPE_CHECKING:
    from spahgc.io._st_tables import Counts, Spots

REPOSITORY = Repository("spinal_cord", "BiomedicalMachineLearning/Spacell")
FOLDERS = ("dataset/", "SpaCell/dataset/", "")
"""Where the repository has had them, one after the other; or a copy of such a folder itself."""
LAYOUT = (
    "dataset/cm/CN51_C2_1_stdata_aligned_counts_IDs.txt and dataset/image/CN51_C2_HE.jpg as in the repository, or "
    "CN51_C2_1.tsv.gz, CN51_C2_1_selection.tsv and CN51_C2.jpg in one folder"
)
ARRAY_STEPS = (32, 34)
"""Steps from the first column (row) of the array to the last one, which the images are cut to."""
NO_GENES = "__ambiguous"
"""Beginning of the names of features that count reads which fit several genes."""
MICE = {
    "635": ("wild type", "p120", "female"),
    "652": ("SOD1-G93A", "p100", "male"),
    "664": ("SOD1-G93A", "p120", "male"),
    "765": ("wild type", "p70", "female"),
    "794": ("SOD1-G93A", "p70", "female"),
}
"""Genotype, age in days after birth, and sex, by the mouse, as the table of samples of PRJNA481056 says."""
MOUSE_COLUMNS = ("genotype", "age", "sex")
"""Columns of ``obs`` that hold them."""


def _array(section: str) -> str:
    """Name of the array, whose image two pieces may share: without the number of the piece."""
    return "_".join(section.split("_")[:2])


def _counts_paths(section: str) -> list[str]:
    return [f"{folder}cm/{section}_stdata_aligned_counts_IDs.txt" for folder in FOLDERS]


def _image_paths(section: str) -> list[str]:
    return [f"{folder}image/{_array(section)}_HE.jpg" for folder in FOLDERS]


def find(folder: Path, section: str) -> Files:
    """Find the files of a section, in the repository's layout or all in one folder.

    An image alone is none of the section: another piece may share it.
    """
    counts = one_file(folder, *_counts_paths(section))
    if counts is not None:
        return {"counts": counts, "image": one_file(folder, *_image_paths(section))}
    counts = one_file(folder, f"{section}.tsv.gz", f"{section}.tsv")
    spots = one_file(folder, f"{section}_selection.tsv", f"{section}_selection.tsv.gz")
    if counts is None and spots is None:
        return {"counts": None, "image": None}
    return {"counts": counts, "spots": spots, "image": one_file(folder, f"{_array(section)}.jpg")}


def read(folder: Path, section: str, files: dict[str, Path]) -> AnnData:
    """Read a section; what is known of the mouse goes into ``obs``."""
    from spahgc.io._st import st_layout, st_slide
    from spahgc.io._st_array import check_recognised
    from spahgc.io._st_tables import read_counts, read_spots

    counts = read_counts(files["counts"])
    genes = counts.without_genes(NO_GENES)
    spots = read_spots(files["spots"]) if "spots" in files else _spots_of_names(counts, files["image"])
    layout = st_layout(spots)
    check_recognised(layout, spots.label, given=False)
    left_out: dict[str, str | int] = {
        "n_features_left_out": len(counts.genes) - len(genes.genes),
        "features_left_out": f"{NO_GENES}...: reads that fit several genes",
    }
    reader = f"spahgc.datasets.{REPOSITORY.cohort}"
    adata = st_slide(genes, spots, layout, files["image"], section, reader=reader, record=left_out)
    mouse = COHORTS[REPOSITORY.cohort].patients[section]
    for column, value in zip(MOUSE_COLUMNS, MICE[mouse], strict=True):
        adata.obs[column] = pd.Categorical([value] * adata.n_obs)
    return adata


def _spots_of_names(counts: Counts, image_path: Path) -> Spots:
    """Places of the spots by the names of the counts: the image shows the array from its first spot to its last one."""
    from spahgc.image import open_image
    from spahgc.io._files import listed
    from spahgc.io._st_names import MEASURED, places_of
    from spahgc.io._st_tables import PIXELS, PLACE, SELECTED, spots_of

    places = places_of(counts.spots)
    with open_image(image_path) as image:
        size = (image.width, image.height)
    pixels = (places - 1) * size / ARRAY_STEPS
    table = pd.DataFrame({**dict(zip(MEASURED, places.T, strict=True)), **dict(zip(PIXELS, pixels.T, strict=True))})
    table[PLACE] = table[MEASURED].round()
    outside = np.asarray(((pixels < 0) | (pixels >= size)).any(axis=1))
    table[SELECTED] = (~outside).astype(int)
    if outside.any():
        warn(
            f'{outside.sum()} of {len(outside)} spots of "{counts.label}" ({listed(counts.spots.to_numpy()[outside])}) lie beyond the rim '
            f'of the image "{image_path}", and are left out.',
            stacklevel=2,
        )
    return spots_of(table, counts.label)


def download(folder: Path, sections: list[str], mirror: str | None) -> None:
    """Download the files of some sections, each checked against the repository's own checksum."""
    entries = REPOSITORY.entries(mirror)
    paths = []
    for section in sections:
        paths.append(REPOSITORY.first_of(_counts_paths(section), entries, section, "counts"))
        paths.append(REPOSITORY.first_of(_image_paths(section), entries, section, "image"))
    REPOSITORY.download(paths, entries, folder, mirror)
