"""Visium HD slides: bins of 2, 8, 16 um, or of another size, or the cells that Space Ranger found, on one image."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData

from spahgc._keys import Obs
from spahgc._validate import quoted
from spahgc.io._cell_slide import MIN_COUNTS, check_min_counts
from spahgc.io._files import existing_file
from spahgc.io._segmented import SEGMENTED, read_segmented
from spahgc.io._space_ranger import BIN_SIZE, BINS_FOLDER, OUTS, finish_slide, read_slide, run_folder
from spahgc.io._write_library import MPP, SPOT_DIAMETER

BIN_FOLDER = re.compile(r"square_(\d{3,})um")
BIN_BARCODE = r"s_(\d+)um_(\d+)_(\d+)-\d+"
"""Name of a bin: its side in microns, its row and its column on the array."""
IMAGE_FILES = ("microscope_image/*", "tissue_image.*", "*_tissue_image.*")
"""Where published data sets keep the full-resolution image, beside the outputs."""
SAME_BIN_UM = 1e-3
"""Rounding by which the side of a bin may differ from the one asked for."""


def visium_hd(
    path: str | os.PathLike[str],
    *,
    bin_um: int = 8,
    cells: bool = False,
    image: str | os.PathLike[str] | None = None,
    polygons: bool = False,
    min_counts: int = MIN_COUNTS,
    library_id: str | None = None,
    genome: str | None = None,
) -> AnnData:
    """Read the bins of one size, or the cells, of a Visium HD slide from the output of Space Ranger 3 or 4.

    Parameters
    ----------
    path
        Folder of the run, its ``outs/``, or ``binned_outputs/``, which holds ``square_002um``, ``square_008um``, ...
    bin_um
        Side of a bin, microns: 2, 8, 16, or what the run was told to make; without effect with `cells`.
    cells
        Read the cells that Space Ranger 4 found by their nuclei (``segmented_outputs/``) instead of bins.
    image
        The full-resolution image that Space Ranger was run on; ``None`` takes the one that was published with the
        outputs, in ``microscope_image/`` or as ``tissue_image.*``, if there is one.
    polygons
        Of cells: keep the outlines in ``obsm["polygons"]``.
    min_counts
        Of cells: those with fewer counts are flagged in ``obs["few_counts"]``; none is left out for it.
    library_id
        Name of the slide; ``None`` takes the one that the counts carry, or the name of the folder.
    genome
        Name of the genome whose genes are kept, where the counts were mapped to several at once (``"GRCh38"``). ``None``
        takes the one of at least 95 % of the counts.

    Returns
    -------
    The bins under tissue, with the same entries as :func:`visium` gives the spots. ``spot_diameter_fullres`` is the
    side of a bin, `microns_per_pixel` is what Space Ranger says, and `metadata` notes the size of the bins, `bin_um`.
    With `cells`, the cells as :func:`xenium` describes them, their centres being those of the outlines.

    Raises
    ------
    ImportError
        If pyarrow is missing, which reads the positions: ``pip install "spahgc[hd]"``.
    FileNotFoundError
        If the folder, bins of this size, the cells, or one of the files is missing.
    ValueError
        If a file is damaged, cells have no outline, outlines are those of no cells, barcodes have no position or name other bins, positions are not finite, `image` is not the
        image that the positions belong to, or of several genomes none has 95 % of the counts and none is named.

    Examples
    --------
    >>> import spahgc as sp
    >>> adata = sp.io.visium_hd("Visium_HD_Human_Colon_Cancer", bin_um=16, image="tissue.btf")  # doctest: +SKIP
    """
    folder = run_folder(path)
    if cells:
        found = _published_image(folder) if image is None else existing_file(image, "image")
        return read_segmented(
            folder,
            image=found,
            name=library_id,
            default_name=_run_name(folder),
            genome=genome,
            polygons=polygons,
            min_counts=check_min_counts(min_counts),
        )
    if polygons:
        raise ValueError("polygons=True: bins are squares. Pass cells=True as well, or leave it out.")
    bins = _bins(folder)
    if bin_um not in bins:
        sizes = ", ".join(f"{size}" for size in sorted(bins))
        raise FileNotFoundError(
            f'no bins of {bin_um} um in "{folder}": there are bins of {sizes} um. Pass one of these as bin_um.'
        )
    slide = read_slide(
        bins[bin_um],
        counts=None,
        image=_published_image(folder) if image is None else image,
        library_id=library_id,
        default_name=_run_name(folder),
        reader="spahgc.io.visium_hd",
        genome=genome,
    )
    size = slide.scales.get(BIN_SIZE, float(bin_um))
    if abs(size - bin_um) > SAME_BIN_UM:
        raise ValueError(
            f'the scale factors in "{bins[bin_um]}" are those of bins of {size:g} um. Copy the folder from the run again.'
        )
    _check_barcodes(slide.adata, bin_um, bins[bin_um])
    slide = replace(slide, metadata={**slide.metadata, "bin_um": int(bin_um)})
    return finish_slide(slide, slide.scales.get(MPP, size / slide.scales[SPOT_DIAMETER]))


def _check_barcodes(adata: AnnData, bin_um: int, folder: Path) -> None:
    """Refuse barcodes that are not those of bins of this size at these places of the array."""
    parts = adata.obs_names.to_series().str.extract(f"^{BIN_BARCODE}$", expand=True)
    here = np.column_stack([np.full(adata.n_obs, bin_um), adata.obs[[Obs.array_row, Obs.array_col]]])
    wrong = (parts.apply(pd.to_numeric, errors="coerce").to_numpy() != here).any(axis=1)
    if wrong.any():
        raise ValueError(
            f'{int(wrong.sum())} of {adata.n_obs} barcodes in "{folder}" ({quoted(adata.obs_names[wrong], 3)}) do not name the '
            f"bins of {bin_um} um at which the table of positions has them, as s_{bin_um:03d}um_00012_00034-1 names row 12 and "
            "column 34. Counts and positions belong to different runs; copy both from one."
        )


def _bins(folder: Path) -> dict[int, Path]:
    """Find the folders of bins by the size of the bins."""
    parent = folder / BINS_FOLDER if (folder / BINS_FOLDER).is_dir() else folder
    folders = {item.name: item for item in parent.iterdir() if item.is_dir()}
    bins = {int(match[1]): item for name, item in folders.items() if (match := BIN_FOLDER.fullmatch(name))}
    if not bins:
        hint = " It looks like a Visium run without bins: read it with spahgc.io.visium."
        raise FileNotFoundError(
            f'no bins in "{folder}": neither {BINS_FOLDER}/ nor square_008um/ or the like is there. Pass the folder of a '
            f"Visium HD run.{hint if (folder / 'spatial').is_dir() else ''}"
        )
    return bins


def _published_image(folder: Path) -> Path | None:
    """Find the image that was published with the outputs."""
    for parent in (folder, folder.parent):
        named = [file for pattern in IMAGE_FILES for file in parent.glob(pattern)]
        files = sorted(file for file in named if file.is_file() and not file.name.startswith("."))
        if len(files) == 1:
            return files[0]
        if files:
            raise ValueError(
                f'"{parent}" holds {len(files)} images: {quoted(file.name for file in files)}. Say with image= which one '
                "is the full-resolution one."
            )
    return None


def _run_name(folder: Path) -> str:
    """Name of the run: the nearest folder that is not one of Space Ranger's own."""
    path = folder.absolute()
    return next((part.name for part in (path, *path.parents) if part.name not in {OUTS, BINS_FOLDER, SEGMENTED}), "")
