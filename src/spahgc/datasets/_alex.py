"""Triple-negative breast cancer (Wu et al. 2021): Visium tables of Zenodo, and images that only a web page has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData

from spahgc._keys import SPATIAL as SPATIAL_KEY
from spahgc._keys import Obs
from spahgc._reading import reading
from spahgc.datasets._archive import unpack
from spahgc.datasets._cohort import COHORTS, CohortUnavailableError
from spahgc.datasets._download import Remote, retrieve
from spahgc.datasets._find import Files, one_file

ARCHIVES = {
    "filtered_count_matrices.tar.gz": "md5:ea1220f0606c4d4e9307468fb2d5427a",
    "spatial.tar.gz": "md5:29b02ae433d459d19dc52b75a529e8e9",
    "metadata.tar.gz": "md5:1d0b34ead70635c094ac74ac58a88d68",
}
"""Archives of the Zenodo record, with the checksums that it states."""
ARCHIVES_URL = "https://zenodo.org/records/4739739/files"
COUNTS, SPATIAL, METADATA, IMAGE = "filtered_count_matrix", "spatial", "metadata", "image.tif"
SCALE_FILE = "scalefactors_json.json"
SPOT_DIAMETER_UM = 55.0
LAYOUT = (
    f"CID4465/{COUNTS}/ with matrix.mtx, features.tsv and barcodes.tsv (each .gz or not), "
    f"CID4465/{SPATIAL}/tissue_positions_list.csv, CID4465/{IMAGE} (full resolution), and perhaps CID4465/metadata.csv"
)
LABELS = {"Classification": "annotation", "subtype": "subtype"}
"""Columns of the metadata that are kept, and their names in ``obs``: the pathologist's label, and the tumour's type."""


def find(folder: Path, section: str) -> Files:
    """Find the files of a section."""
    matrix = one_file(folder, f"{section}/{COUNTS}/matrix.mtx.gz", f"{section}/{COUNTS}/matrix.mtx")
    return {
        "counts": None if matrix is None else matrix.parent,
        "positions": one_file(folder, f"{section}/{SPATIAL}/tissue_positions*"),
        "image": one_file(folder, f"{section}/{IMAGE}", f"{section}/image.tiff"),
    }


def read(folder: Path, section: str, files: dict[str, Path]) -> AnnData:
    """Read a section, and the pathologist's labels if they lie beside it."""
    from spahgc.io import visium
    from spahgc.io._joined import check_labels

    if (folder / section / SPATIAL / SCALE_FILE).is_file():
        adata = visium(folder / section, counts=COUNTS, image=files["image"], library_id=section)
    else:
        adata = _without_scale_factors(section, files)
    path = one_file(folder, f"{section}/metadata.csv")
    if path is not None:
        with reading(path, "the metadata", "Copy it again, or remove it: the slide can be read without its labels."):
            table = pd.read_csv(path, index_col=0, dtype=str)
        check_labels(int(adata.obs_names.isin(table.index).sum()), adata.n_obs, path)
        table = table.reindex(adata.obs_names)
        for column, name in LABELS.items():
            if column in table:
                adata.obs[name] = pd.Categorical(table[column])
    return adata


def _without_scale_factors(section: str, files: dict[str, Path]) -> AnnData:
    """Read a section whose reduced images were not published: they are made of the image, its scale from the array."""
    from spahgc.image import open_image
    from spahgc.io._space_ranger import PIXEL_COL, PIXEL_ROW, join_positions, pitch_mpp, read_counts, read_positions
    from spahgc.io._visium import PITCH_TOLERANCE, PITCH_UM
    from spahgc.io._write_library import MPP, check_full_image, reduced_images

    positions = read_positions(files["positions"])
    measured, _, _ = read_counts(files["counts"])
    adata, table, left_out = join_positions(measured, positions, (files["counts"], files["positions"]))
    mpp = pitch_mpp(positions, PITCH_UM, PITCH_TOLERANCE)
    if mpp is None:
        raise ValueError(
            f'the positions "{files["positions"]}" are not those of a Visium array (hexagonal, {PITCH_UM:g} um), so that '
            f"the resolution is unknown. Copy the table again, or put {SCALE_FILE} of the run beside it."
        )
    adata.obs = table[[Obs.array_row, Obs.array_col]].astype(np.int64).assign(in_tissue=1)
    adata.obsm[SPATIAL_KEY] = table[[PIXEL_COL, PIXEL_ROW]].to_numpy(np.float64)
    noted = check_full_image(files["image"], adata.obsm[SPATIAL_KEY], files["positions"], {}, {})
    with open_image(files["image"]) as image:
        images, scales = reduced_images(image)
    adata.uns[SPATIAL_KEY] = {
        section: {
            "images": images,
            "scalefactors": {**scales, "spot_diameter_fullres": SPOT_DIAMETER_UM / mpp, MPP: mpp},
            "metadata": {"reader": "spahgc.datasets.alex", **noted, **left_out},
        }
    }
    return adata


def download(folder: Path, sections: list[str], mirror: str | None) -> None:
    """Download counts and spots; the images must be there already."""
    without = [section for section in sections if find(folder, section)["image"] is None]
    if without:
        paths = ", ".join(f'"{folder / section / IMAGE}"' for section in without)
        raise CohortUnavailableError(
            f"the full-resolution images of cohort alex can only be had from a web page. Open {COHORTS['alex'].page}, "
            f"download those of {', '.join(without)}, put them at {paths}, and call again; or pass a complete copy: "
            "path=..."
        )
    for name, checksum in ARCHIVES.items():
        remote = Remote(f"{ARCHIVES_URL}/{name}", checksum)
        archive = retrieve(remote, folder / name, page=COHORTS["alex"].page, mirror=mirror)
        unpack(archive, folder, _destination)


def _destination(member: str) -> str | None:
    """From the archives' folders, one for each kind of file, to a folder for each section."""
    parts = [part for part in member.split("/") if part not in ("", ".")]
    for section in COHORTS["alex"].sections:
        if len(parts) == 3 and parts[1] == f"{section}_{COUNTS}":
            return f"{section}/{COUNTS}/{parts[2]}"
        if len(parts) == 3 and parts[1] == f"{section}_{SPATIAL}":
            return f"{section}/{SPATIAL}/{parts[2]}"
        if parts[-1] == f"{section}_{METADATA}.csv":
            return f"{section}/{METADATA}.csv"
    return None
