"""The cells that Space Ranger 4 found on a Visium HD slide: counts a cell, outlines as GeoJSON."""

from __future__ import annotations

import re
from pathlib import Path

from anndata import AnnData

from spahgc._logging import warn
from spahgc._reading import unreadable
from spahgc._slides.polygons import Polygons
from spahgc._validate import quoted
from spahgc.io._cell_slide import Cells, check_outline_size, finish_cells
from spahgc.io._files import folder_content
from spahgc.io._geojson import read_geojson
from spahgc.io._run_files import IMAGE_ENDINGS, IMAGE_STEMS, SCALE_FILE, SPATIAL_FOLDER
from spahgc.io._space_ranger import BIN_SIZE, BINS_FOLDER, SEGMENTED, read_counts, read_images, read_scales
from spahgc.io._write_library import MPP, SPOT_DIAMETER, check_library_id

COUNTS = ("filtered_feature_cell_matrix.h5", "raw_feature_cell_matrix.h5")
OUTLINES = ("cell_segmentations.geojson", "graphclust_annotated_cell_segmentations.geojson")
"""The second holds the same outlines with the colours of clusters."""
CELL_NAME = re.compile(r"cellid_(\d+)-\d+")
"""Name of a cell in the counts; the number is its `cell_id` among the outlines."""
CELL_ID = "cell_id"
REMEDY = "Copy the folder from the run again."


def read_segmented(
    folder: Path,
    *,
    image: Path | None,
    name: str | None,
    default_name: str,
    genome: str | None,
    polygons: bool,
    min_counts: int,
) -> AnnData:
    """Read ``segmented_outputs/``; see :func:`spahgc.io.visium_hd`."""
    segmented = folder / SEGMENTED if (folder / SEGMENTED).is_dir() else folder
    counts_path, outlines_path = (
        _file(segmented, COUNTS, "counts of cells"),
        _file(segmented, OUTLINES, "outlines of cells"),
    )
    spatial = _spatial_folder(segmented, folder)
    images = _image_files(spatial)
    scales = read_scales(spatial / SCALE_FILE, list(images), spots=False)
    mpp = scales.get(MPP)
    if mpp is None and BIN_SIZE in scales and SPOT_DIAMETER in scales:
        mpp = scales[BIN_SIZE] / scales[SPOT_DIAMETER]
    adata, notes, library = read_counts(counts_path, genome)
    outlines = _outlines(outlines_path, adata)
    check_outline_size(outlines, mpp, f'the outlines in "{outlines_path}"')
    if image is None:
        warn(
            "no full-resolution image was named, and the hires image is too coarse to see a cell. Pass image= with the image that "
            "Space Ranger was run on.",
            stacklevel=3,
        )
    cells = Cells(
        adata,
        outlines.centres,
        None if mpp is None else outlines.areas * mpp**2,
        outlines if polygons else None,
        f'the outlines "{outlines_path}"',
        {"reader": "spahgc.io.visium_hd", **notes},
    )
    chosen = check_library_id(name if name is not None else library or default_name)
    return finish_cells(cells, chosen, mpp, image, min_counts=min_counts, images=read_images(images), scales=scales)


def _file(folder: Path, names: tuple[str, ...], label: str) -> Path:
    found = next((folder / name for name in names if (folder / name).is_file()), None)
    if found is None:
        hint = (
            ""
            if folder.name == SEGMENTED
            else f" Cells are found by Space Ranger 4 and later, which keeps them in {SEGMENTED}/."
        )
        raise FileNotFoundError(
            f'no {label} in "{folder}": neither of {quoted(names)} is there, only {folder_content(folder)}.{hint} Copy them from the run, '
            "or read bins with cells=False."
        )
    return found


def _spatial_folder(segmented: Path, run: Path) -> Path:
    """Where the scale factors lie: with the cells, or with the bins, which are on the same image."""
    places = [
        segmented / SPATIAL_FOLDER,
        *sorted((run / BINS_FOLDER).glob(f"*/{SPATIAL_FOLDER}")),
        run / SPATIAL_FOLDER,
    ]
    found = next((place for place in places if (place / SCALE_FILE).is_file()), None)
    if found is None:
        raise FileNotFoundError(
            f'"{segmented / SPATIAL_FOLDER / SCALE_FILE}" is missing, without which nobody knows how wide a pixel is. {REMEDY}'
        )
    return found


def _image_files(folder: Path) -> dict[str, Path]:
    files = {key: [folder / (stem + ending) for ending in IMAGE_ENDINGS] for key, stem in IMAGE_STEMS.items()}
    return {
        key: found for key, paths in files.items() if (found := next((path for path in paths if path.is_file()), None))
    }


def _outlines(path: Path, adata: AnnData) -> Polygons:
    """Outline of every cell of the counts, in their order."""
    numbers = [CELL_NAME.fullmatch(name) for name in adata.obs_names]
    wrong = [name for name, match in zip(adata.obs_names, numbers, strict=True) if match is None]
    if wrong:
        raise ValueError(
            f"{len(wrong)} of {adata.n_obs} barcodes of the counts ({quoted(wrong, 3)}) are no cells, which are called "
            f"cellid_000000012-1. {REMEDY}"
        )
    rings = {}
    for feature in read_geojson(path):
        if "Polygon" not in feature.kind or CELL_ID not in feature.properties:
            raise unreadable(path, "the outlines", f"a {feature.kind} without {CELL_ID} is among them", REMEDY)
        rings[int(feature.properties[CELL_ID])] = feature.outline()
    ids = [int(match[1]) for match in numbers if match is not None]
    missing = [name for name, number in zip(adata.obs_names, ids, strict=True) if number not in rings]
    if missing:
        raise ValueError(
            f'{len(missing)} of {adata.n_obs} cells of the counts ({quoted(missing, 3)}) have no outline in "{path}" ({len(rings)} in all). '
            "Do both belong to the same run?"
        )
    outlines = Polygons.of_rings([rings[number] for number in ids])
    flat = adata.obs_names[outlines.areas == 0]
    if len(flat):
        raise ValueError(f'the outlines of {len(flat)} cells in "{path}" have no area ({quoted(flat, 3)}). {REMEDY}')
    return outlines
