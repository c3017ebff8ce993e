"""HER2-positive breast cancer (Andersson et al. 2021): the authors' repository, file by file."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from anndata import AnnData

from spahgc._keys import Obs
from spahgc._reading import reading
from spahgc.datasets._find import Files, one_file
from spahgc.datasets._github import Entries, Repository

REPOSITORY = Repository("her2st", "almaan/her2st", "master")
LAYOUT = (
    "data/ST-cnts/A1.tsv.gz, data/ST-spotfiles/A1_selection.tsv and data/ST-imgs/A/A1/*.jpg as in the authors' "
    "repository, or A1.tsv.gz, A1_selection.tsv and A1.jpg in one folder"
)
LABELS_REMEDY = "Copy it again, or remove it: the slide can be read without its labels."
ANNOTATION, CLUSTER = "annotation", "cluster"
"""Columns of ``obs``: label of the pathologist, expression cluster of the authors."""


def _repository_paths(section: str) -> dict[str, str]:
    """Where the repository has the files of a section, by what they are."""
    return {
        "counts": f"data/ST-cnts/{section}.tsv.gz",
        "spots": f"data/ST-spotfiles/{section}_selection.tsv",
        "image": f"data/ST-imgs/{section[0]}/{section}/*.jpg",
        ANNOTATION: f"data/ST-pat/lbl/{section}_labeled_coordinates.tsv",
        CLUSTER: f"res/ST-cluster/lbl/{section}-cluster-annotation.tsv.gz",
    }


def find(folder: Path, section: str) -> Files:
    """Find the files of a section, in the repository's layout or all in one folder."""
    paths = _repository_paths(section)
    counts, spots = paths["counts"], paths["spots"]
    return {
        "counts": one_file(folder, counts, counts.removesuffix(".gz"), f"{section}.tsv.gz", f"{section}.tsv"),
        "spots": one_file(folder, spots, Path(spots).name),
        "image": one_file(folder, paths["image"], f"{section}.jpg"),
    }


def read(folder: Path, section: str, files: dict[str, Path]) -> AnnData:
    """Read a section, and the labels that lie beside it."""
    from spahgc.io import st

    adata = st(files["counts"], files["spots"], files["image"], library_id=section)
    paths = _repository_paths(section)
    for column in (ANNOTATION, CLUSTER):
        path = one_file(folder, paths[column], Path(paths[column]).name)
        if path is not None:
            adata.obs[column] = _labels(path, adata)
    return adata


def _labels(path: Path, adata: AnnData) -> pd.Categorical:
    """Labels of the spots; the table names a spot by its position on the array, to a fraction of a step."""
    from spahgc.io._joined import check_labels

    with reading(path, "the labels", LABELS_REMEDY):
        # A label may be called NA.
        table = pd.read_csv(path, sep="\t", converters={"label": str}).dropna(subset=["x", "y"])
        positions = table[["x", "y"]].round().astype(int)
        labels = pd.Series(table["label"].astype(str).to_numpy(), pd.MultiIndex.from_frame(positions))
    labels = labels[~labels.index.duplicated()]
    spots = pd.MultiIndex.from_frame(adata.obs[[Obs.array_col, Obs.array_row]])
    check_labels(int(spots.isin(labels.index).sum()), len(spots), path)
    return pd.Categorical(labels.reindex(spots))


def download(folder: Path, sections: list[str], mirror: str | None) -> None:
    """Download the files of some sections, each checked against the repository's own checksum."""
    entries = REPOSITORY.entries(mirror)
    paths = [path for section in sections for path in _listed_paths(section, entries)]
    REPOSITORY.download(paths, entries, folder, mirror)


def _listed_paths(section: str, entries: Entries) -> list[str]:
    """The files of a section that the repository has: how images are called follows no rule; labels some sections have."""
    found: list[str] = []
    for label, pattern in _repository_paths(section).items():
        if label in (ANNOTATION, CLUSTER):
            found += [path for path in entries if path == pattern]
        else:
            found.append(REPOSITORY.first_of([pattern], entries, section, label))
    return found
