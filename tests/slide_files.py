"""Writes slides as Space Ranger and HEST lay them out, from a simulated one."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import tifffile
from anndata import AnnData
from PIL import Image
from scipy.io import mmwrite
from scipy.sparse import csc_matrix, csr_matrix, hstack

MPP = 0.8
"""Resolution of the simulated slides."""
HIRES_SCALE, LOWRES_SCALE = 0.25, 0.125
HEADER = ["barcode", "in_tissue", "array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres"]
PROTEIN = "CD3E_antibody"


def full_image(slide: AnnData) -> np.ndarray:
    """The image at full resolution, cut so that every reduction of it is exact."""
    (record,) = slide.uns["spatial"].values()
    pixels = record["images"]["hires"]
    return pixels[: pixels.shape[0] // 8 * 8, : pixels.shape[1] // 8 * 8]


def reduced(pixels: np.ndarray, scale: float) -> np.ndarray:
    size = (round(pixels.shape[1] * scale), round(pixels.shape[0] * scale))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))


def barcodes(n: int) -> list[str]:
    """Names as 10x gives them; they do not sort as the array does."""
    letters = np.random.default_rng(1).permuted(np.array(list("ACGT") * 4))
    return ["".join(np.roll(letters, i % 16)) + f"{i:04d}-1" for i in np.random.default_rng(2).permutation(n)]


def visium_positions(slide: AnnData) -> pd.DataFrame:
    """All spots of the array, also those outside the tissue, in the order of rows and columns."""
    grid = slide.obs[["array_row", "array_col"]].to_numpy()
    design = np.column_stack([grid, np.ones(len(grid))])
    coefficients = np.linalg.lstsq(design, slide.obsm["spatial"], rcond=None)[0]
    rows, cols = grid.max(axis=0) + 2
    places = np.array([(row, col) for row in range(rows) for col in range(cols) if (row + col) % 2 == 0])
    xy = np.column_stack([places, np.ones(len(places))]) @ coefficients
    under = {tuple(place) for place in grid}
    table = pd.DataFrame(
        {
            "barcode": barcodes(len(places)),
            "in_tissue": [int(tuple(place) in under) for place in places],
            "array_row": places[:, 0],
            "array_col": places[:, 1],
            "pxl_row_in_fullres": xy[:, 1].round().astype(int),
            "pxl_col_in_fullres": xy[:, 0].round().astype(int),
        }
    )
    return table


def tissue_barcodes(slide: AnnData, positions: pd.DataFrame) -> list[str]:
    """The barcode of every spot of the slide."""
    by_place = positions.set_index(["array_row", "array_col"])["barcode"]
    return [by_place[row, col] for row, col in slide.obs[["array_row", "array_col"]].to_numpy()]


def write_h5(path: Path, slide: AnnData, names: list[str], *, library: str = "V1_lib", protein: bool = False) -> None:
    """Counts in the 10x layout, version 3: features x barcodes, the barcodes sorted."""
    order = np.argsort(names)
    counts = csr_matrix(slide.X)[order]
    genes, kinds = list(slide.var_names), ["Gene Expression"] * slide.n_vars
    if protein:
        counts = csr_matrix(hstack([counts, np.full((len(names), 1), 7)]))
        genes, kinds = [*genes, PROTEIN], [*kinds, "Antibody Capture"]
    matrix = csc_matrix(counts.T.astype(np.int32))
    with h5py.File(path, "w") as file:
        file.attrs["chemistry_description"] = "Spatial 3' v1"
        file.attrs["filetype"] = "matrix"
        file.attrs["library_ids"] = np.array([library.encode()])
        file.attrs["original_gem_groups"] = np.array([1])
        file.attrs["software_version"] = "spaceranger-3.1.2"
        file.attrs["version"] = 2
        group = file.create_group("matrix")
        group["barcodes"] = np.array([names[i].encode() for i in order])
        group["data"], group["indices"], group["indptr"] = matrix.data, matrix.indices.astype(np.int64), matrix.indptr
        group["shape"] = np.array(matrix.shape, dtype=np.int32)
        features = group.create_group("features")
        features["_all_tag_keys"] = np.array([b"genome"])
        features["feature_type"] = np.array([kind.encode() for kind in kinds])
        features["genome"] = np.array([b"GRCh38"] * len(genes))
        features["id"] = np.array([f"ENSG{i:011d}".encode() for i in range(len(genes))])
        features["name"] = np.array([gene.encode() for gene in genes])


def write_mtx(folder: Path, slide: AnnData, names: list[str], *, packed: bool = True, columns: int = 3) -> None:
    """Counts as three tables."""
    folder.mkdir()
    ids = [f"ENSG{i:011d}" for i in range(slide.n_vars)]
    features = pd.DataFrame({0: ids, 1: list(slide.var_names), 2: "Gene Expression"})
    if columns == 1:
        features = features[[1]]
    texts = {
        "features.tsv": features.to_csv(sep="\t", header=False, index=False).encode(),
        "barcodes.tsv": ("\n".join(names) + "\n").encode(),
    }
    mmwrite(folder / "matrix.mtx", csr_matrix(slide.X).T.astype(np.int32))
    texts["matrix.mtx"] = (folder / "matrix.mtx").read_bytes()
    for name, text in texts.items():
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(text))
            (folder / name).unlink(missing_ok=True)
        else:
            (folder / name).write_bytes(text)


def write_images(spatial: Path, pixels: np.ndarray, **scales: float) -> None:
    """Reduced images and their scale factors."""
    Image.fromarray(reduced(pixels, HIRES_SCALE)).save(spatial / "tissue_hires_image.png")
    Image.fromarray(reduced(pixels, LOWRES_SCALE)).save(spatial / "tissue_lowres_image.png")
    entries = {
        "tissue_hires_scalef": HIRES_SCALE,
        "tissue_lowres_scalef": LOWRES_SCALE,
        "fiducial_diameter_fullres": 144.0 / MPP,
        "spot_diameter_fullres": 65.0 / MPP,
        **scales,
    }
    (spatial / "scalefactors_json.json").write_text(json.dumps(entries))


def write_visium(run: Path, slide: AnnData, *, version: int = 2, cytassist: bool = False) -> Path:
    """A run of Space Ranger 1 to 4 on a Visium slide; returns the path of its full-resolution image beside it."""
    spatial = run / "outs" / "spatial"
    spatial.mkdir(parents=True)
    positions = visium_positions(slide)
    if version == 1:
        positions.to_csv(spatial / "tissue_positions_list.csv", index=False, header=False)
    else:
        positions.to_csv(spatial / "tissue_positions.csv", index=False)
    names = tissue_barcodes(slide, positions)
    write_h5(run / "outs" / "filtered_feature_bc_matrix.h5", slide, names, library=run.name, protein=cytassist)
    write_images(spatial, full_image(slide))
    for extra in ("aligned_fiducials.jpg", "detected_tissue_image.jpg"):
        Image.new("RGB", (8, 8)).save(spatial / extra)
    if cytassist:
        tifffile.imwrite(spatial / "cytassist_image.tiff", np.full((30, 30, 3), 200, np.uint8), photometric="rgb")
        Image.new("RGB", (8, 8)).save(spatial / "aligned_tissue_image.jpg")
    (run / "outs" / "web_summary.html").write_text("<html></html>")
    path = run.parent / f"{run.name}.tif"
    tifffile.imwrite(path, full_image(slide), photometric="rgb", tile=(256, 256))
    return path


def hd_positions(slide: AnnData, bin_um: int) -> pd.DataFrame:
    """All bins of the array; the bin on which a spot of the slide is centred is under tissue."""
    height, width = full_image(slide).shape[:2]
    side = bin_um / MPP
    rows, cols = (axis.ravel() for axis in np.indices((int(height // side), int(width // side))))
    table = pd.DataFrame(
        {
            "barcode": [f"s_{bin_um:03d}um_{row:05d}_{col:05d}-1" for row, col in zip(rows, cols, strict=True)],
            "in_tissue": 0,
            "array_row": rows,
            "array_col": cols,
            "pxl_row_in_fullres": (rows + 0.5) * side,
            "pxl_col_in_fullres": (cols + 0.5) * side,
        }
    )
    table.loc[table["barcode"].isin(hd_barcodes(slide, bin_um)), "in_tissue"] = 1
    return table


def hd_barcodes(slide: AnnData, bin_um: int) -> list[str]:
    """The bin on which each spot of the slide is centred."""
    place = (slide.obsm["spatial"] * MPP / bin_um).astype(int)
    return [f"s_{bin_um:03d}um_{row:05d}_{col:05d}-1" for col, row in place]


def write_visium_hd(run: Path, slide: AnnData, bins: tuple[int, ...] = (8, 16)) -> Path:
    """A run of Space Ranger 3 or 4 on a Visium HD slide; returns the path of its full-resolution image beside it."""
    outs = run / "outs"
    for bin_um in bins:
        folder = outs / "binned_outputs" / f"square_{bin_um:03d}um"
        (folder / "spatial").mkdir(parents=True)
        write_h5(folder / "filtered_feature_bc_matrix.h5", slide, hd_barcodes(slide, bin_um), library=run.name)
        hd_positions(slide, bin_um).to_parquet(folder / "spatial" / "tissue_positions.parquet", index=False)
        scales = {"bin_size_um": float(bin_um), "microns_per_pixel": MPP, "spot_diameter_fullres": bin_um / MPP}
        write_images(folder / "spatial", full_image(slide), **scales, regist_target_img_scalef=0.5)
    (outs / "spatial").mkdir()
    Image.new("RGB", (8, 8)).save(outs / "spatial" / "aligned_fiducials.jpg")
    layout = json.dumps({"file_format": "1.0", "transform": np.eye(3).tolist()})
    matrices = dict.fromkeys(
        (f"{a}_colrow_to_{b}_colrow" for a, b in (("cytassist", "spot"), ("microscope", "spot"))), np.eye(3).tolist()
    ) | dict.fromkeys(
        (f"{a}_colrow_to_{b}_colrow" for a, b in (("spot", "cytassist"), ("spot", "microscope"))), np.eye(3).tolist()
    )
    with h5py.File(outs / "feature_slice.h5", "w") as file:
        file.attrs["metadata_json"] = json.dumps({"hd_layout_json": layout, "transform_matrices": matrices})
    path = run.parent / f"{run.name}.tif"
    tifffile.imwrite(path, full_image(slide), photometric="rgb", tile=(256, 256))
    return path


def write_hest(root: Path, slide: AnnData, sample: str, **metadata: Any) -> None:
    """One sample of HEST-1k: counts, pyramidal image, metadata."""
    for folder in ("st", "wsis", "metadata"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    pixels, xy = full_image(slide), slide.obsm["spatial"]
    obs = pd.DataFrame(
        {
            "in_tissue": True,
            "pxl_col_in_fullres": xy[:, 0],
            "pxl_row_in_fullres": xy[:, 1],
            "array_col": slide.obs["array_col"].to_numpy(),
            "array_row": slide.obs["array_row"].to_numpy(),
            "total_counts": np.asarray(slide.X.sum(axis=1)).ravel(),
        },
        index=barcodes(slide.n_obs),
    )
    var = pd.DataFrame({"mito": False}, index=list(slide.var_names))
    counts = AnnData(slide.X.astype(np.float64), obs=obs, var=var)
    counts.obsm["spatial"] = np.round(xy).astype(np.int64)
    counts.uns["spatial"] = {
        "ST": {
            "images": {"downscaled_fullres": reduced(pixels, HIRES_SCALE)},
            "scalefactors": {"spot_diameter_fullres": 55 / MPP, "tissue_downscaled_fullres_scalef": HIRES_SCALE},
        }
    }
    counts.write_h5ad(root / "st" / f"{sample}.h5ad")
    known = {
        "id": sample,
        "patient": "Patient 7",
        "organ": "Lymph node",
        "disease_state": "Cancer",
        "oncotree_code": None,
        "species": "Homo sapiens",
        "st_technology": "Visium",
        "pixel_size_um_embedded": float("nan"),
        "pixel_size_um_estimated": MPP,
        "inter_spot_dist": 100.0,
        "spot_diameter": 55.0,
        "spots_under_tissue": slide.n_obs,
        "license": "CC BY 4.0",
        **metadata,
    }
    (root / "metadata" / f"{sample}.json").write_text(json.dumps(known))
    with tifffile.TiffWriter(root / "wsis" / f"{sample}.tif") as tiff:
        options = {"tile": (256, 256), "photometric": "rgb", "resolutionunit": "CENTIMETER"}
        tiff.write(pixels, subifds=0, resolution=(1e4 / MPP, 1e4 / MPP), **options)
        tiff.write(reduced(pixels, 0.5), subfiletype=1, resolution=(5e3 / MPP, 5e3 / MPP), **options)
