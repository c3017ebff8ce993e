"""Whole files of every kind that the package reads, how each is read, and what must hold of what was read."""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tifffile
from anndata import AnnData
from PIL import Image
from scipy.sparse import issparse

import spahgc as sp
from robustness import slides
from robustness.mutate import copied, packed
from spahgc.image import PyramidSource

sys.path.append(str(Path(__file__).parents[2] / "tests"))
import cohort_files
import slide_files

RUN = "V1"
"""Name of a run of Space Ranger."""


class Invalid(Exception):
    """What was read is not what such a file may hold."""


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes
    ----------
    name
        As the table of results calls it.
    make
        Writes a whole sample into a folder.
    read
        Reads it as users do, and returns a fingerprint of what was read; raises :class:`Invalid`.
    skip
        Files of the sample, relative to its folder, that belong to another kind.
    finish
        Called after a mutation: brings checksums up to date, so that the checks behind them are reached.
    """

    name: str
    make: Callable[[Path], None]
    read: Callable[[Path], str]
    skip: Callable[[Path], bool] = lambda path: False
    finish: Callable[[Path, np.random.Generator], None] = lambda folder, rng: None


def require(condition: Any, what: str) -> None:
    if not condition:
        raise Invalid(what)


def fingerprint(*parts: Any) -> str:
    """Of arrays, texts and numbers."""
    hashed = hashlib.sha256()
    for part in parts:
        array = part.toarray() if issparse(part) else np.asarray(part)
        hashed.update(f"{array.dtype.kind} {array.shape}".encode())
        hashed.update(repr(array.tolist()).encode() if array.dtype.kind in "OSU" else array.tobytes())
    return hashed.hexdigest()


def checked_slide(adata: AnnData, *, counted: bool = True) -> str:
    """What holds of every slide that a reader returns."""
    require(adata.n_obs > 0, "no spots")
    require(adata.obs_names.is_unique and adata.var_names.is_unique, "repeated names")
    xy = np.asarray(adata.obsm["spatial"])
    require(xy.shape == (adata.n_obs, 2) and np.isfinite(xy).all(), "positions that are none")
    counts: Any = adata.X
    if counted:
        require(counts.shape == adata.shape, "counts of another shape")
        counts = np.asarray(counts.toarray() if issparse(counts) else counts)
        require(np.isfinite(counts).all() and (counts >= 0).all(), "counts that are none")
    (record,) = adata.uns["spatial"].values()
    for name, factor in record["scalefactors"].items():
        require(np.isfinite(np.asarray(factor, dtype=np.float64)).all(), f"scale factor {name} = {factor}")
        require(np.all(np.asarray(factor) > 0), f"scale factor {name} = {factor}")
    for name, pixels in record["images"].items():
        require(pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.size, f"image {name} of shape {pixels.shape}")
        require(pixels.dtype == np.uint8, f"image {name} of {pixels.dtype}")
    mpp = adata.uns.get("spahgc", {}).get("slide_mpp")
    require(mpp is None or (np.isfinite(mpp) and mpp > 0), f"resolution {mpp}")
    pixels = [value for _, value in sorted(record["images"].items())]
    return fingerprint(counts if counted else 0, xy, adata.obs_names, adata.var_names, *pixels)


def checked_prediction(values: np.ndarray, n_spots: int) -> str:
    require(values.ndim == 2 and len(values) == n_spots and values.shape[1] > 0, f"prediction of shape {values.shape}")
    require(np.isfinite(values).all(), "a prediction that is not finite")
    return fingerprint(values)


# --- slides


def _make_visium(folder: Path, *, version: int) -> None:
    slide_files.write_visium(folder / RUN, slides.simulated()[0], version=version)
    (folder / f"{RUN}.tif").unlink()  # an image has a kind of its own
    if version == 1:
        outs = folder / RUN / "outs"
        (outs / "filtered_feature_bc_matrix.h5").unlink()
        names = slide_files.tissue_barcodes(slides.simulated()[0], slide_files.visium_positions(slides.simulated()[0]))
        slide_files.write_mtx(outs / "filtered_feature_bc_matrix", slides.simulated()[0], names)
    _shrink_images(folder)


def _make_hd(folder: Path) -> None:
    slide_files.write_visium_hd(folder / RUN, slides.simulated()[0], bins=(16,))
    (folder / f"{RUN}.tif").unlink()
    (folder / RUN / "outs" / "feature_slice.h5").unlink()
    _shrink_images(folder)


def _shrink_images(folder: Path) -> None:
    """Images of noise of the same size are as good, and nothing but them would be mutated otherwise."""
    for path in (*folder.rglob("*.jpg"), *folder.rglob("*.html")):
        path.unlink()


def _read_visium(folder: Path) -> str:
    return checked_slide(sp.io.visium(folder / RUN))


def _read_hd(folder: Path) -> str:
    return checked_slide(sp.io.visium_hd(folder / RUN, bin_um=16))


def _make_st(folder: Path) -> None:
    cohort_files.write_st(0, folder / "counts.tsv.gz", folder / "spots.tsv", folder / "image.jpg")


def _read_st(folder: Path) -> str:
    return checked_slide(sp.io.st(folder / "counts.tsv.gz", folder / "spots.tsv", folder / "image.jpg"))


def _make_hest(folder: Path) -> None:
    slide_files.write_hest(folder, slides.simulated()[0], "S1")


def _read_hest(folder: Path) -> str:
    return checked_slide(sp.io.hest(folder, "S1"))


def _make_slide(folder: Path) -> None:
    pixels = slide_files.full_image(slides.simulated()[0])
    centimetre = (1e4 / slide_files.MPP,) * 2
    options: dict[str, Any] = {"resolution": centimetre, "resolutionunit": "CENTIMETER", "compression": "deflate"}
    tifffile.imwrite(folder / "slide.tif", pixels, photometric="rgb", tile=(256, 256), **options)


def _read_whole_slide(folder: Path) -> str:
    xy = np.array([[100.0, 100.0], [300.0, 200.0]])
    given = checked_slide(sp.io.slide(folder / "slide.tif", spots=xy, mpp=0.8), counted=False)
    return given + checked_slide(sp.io.slide(folder / "slide.tif"), counted=False)


def _read_tiles(folder: Path) -> str:
    return checked_slide(sp.pp.tile(folder / "slide.tif", mpp=0.8), counted=False)


# --- cells, points and features of others


def _cell_table() -> pd.DataFrame:
    """Places of the spots of a slide as if they were cells."""
    slide = slides.simulated()[0]
    table = pd.DataFrame(slide.obsm["spatial"], columns=["x", "y"], index=[f"c{i}" for i in range(slide.n_obs)])
    return table.assign(area=80.0)


def _cell_polygons(factor: float) -> list[np.ndarray]:
    """An octagon of 10 um around each cell, pixels times a factor."""
    turns = np.linspace(0, 2 * np.pi, 9)
    ring = np.column_stack([np.cos(turns), np.sin(turns)]) * 5 / slide_files.MPP
    return [(xy + ring) * factor for xy in slides.simulated()[0].obsm["spatial"]]


def _geojson(polygons: list[np.ndarray], **named: list[Any]) -> str:
    """A FeatureCollection as QuPath and Space Ranger write it."""
    features = [
        {
            "type": "Feature",
            "properties": {name: values[i] for name, values in named.items()},
            "geometry": {"type": "Polygon", "coordinates": [ring.tolist()]},
        }
        for i, ring in enumerate(polygons)
    ]
    return json.dumps({"type": "FeatureCollection", "features": features})


def _make_xenium(folder: Path) -> None:
    slide, table, microns = slides.simulated()[0], _cell_table(), slide_files.MPP
    (folder / "experiment.xenium").write_text(json.dumps({"pixel_size": microns, "panel_name": "p"}))
    slide_files.write_h5(folder / "cell_feature_matrix.h5", slide, list(table.index))
    cells = pd.DataFrame(
        {"cell_id": table.index, "x_centroid": table["x"] * microns, "y_centroid": table["y"] * microns}
    )
    cells.assign(cell_area=80.0).to_parquet(folder / "cells.parquet")
    rings = _cell_polygons(microns)
    vertices = pd.DataFrame(np.concatenate(rings), columns=["vertex_x", "vertex_y"])
    vertices.insert(0, "cell_id", np.repeat(table.index, [len(ring) for ring in rings]))
    vertices.to_parquet(folder / "cell_boundaries.parquet")
    np.savetxt(folder / "he_imagealignment.csv", np.eye(3), delimiter=",")
    Image.fromarray(slide_files.full_image(slide)).save(folder / "he.png")


def _read_xenium(folder: Path) -> str:
    found = sp.io.xenium(
        folder, image=folder / "he.png", alignment=folder / "he_imagealignment.csv", polygons=True, library_id="S"
    )
    return _checked_cells(found)


def _checked_cells(cells: AnnData) -> str:
    """What holds of slides of cells beside that: areas, and outlines where there are some."""
    if "area_um2" in cells.obs:  # where the resolution is known
        area = cells.obs["area_um2"].to_numpy(np.float64)
        require((np.isnan(area) | (area >= 0)).all(), "an area below 0")
    outlines = cells.obsm["polygons"] if "polygons" in cells.obsm else np.empty(0)
    require(not issparse(outlines) or np.isfinite(outlines.data).all(), "outlines that are not finite")
    return checked_slide(cells) + fingerprint(outlines)


def _make_cells(folder: Path) -> None:
    slide, table = slides.simulated()[0], _cell_table()
    counts = pd.DataFrame(slide.X.toarray().astype(int), index=table.index, columns=slide.var_names)
    counts.rename_axis("cell").to_csv(folder / "counts.csv.gz")
    table.rename_axis("cell").to_csv(folder / "places.csv")
    (folder / "outlines.geojson").write_text(_geojson(_cell_polygons(1.0), cell_id=list(table.index)))
    Image.fromarray(slide_files.full_image(slide)).save(folder / "he.png")


def _read_cells(folder: Path) -> str:
    files = [folder / name for name in ("counts.csv.gz", "places.csv", "he.png")]
    return _checked_cells(sp.io.cells(*files, polygons=folder / "outlines.geojson", mpp=slide_files.MPP))


def _make_segmented(folder: Path) -> None:
    slide = slides.simulated()[0]
    outputs = folder / RUN / "outs" / "segmented_outputs"
    (outputs / "spatial").mkdir(parents=True)
    names = [f"cellid_{i + 1:09d}-1" for i in range(slide.n_obs)]
    slide_files.write_h5(outputs / "filtered_feature_cell_matrix.h5", slide, names, library=RUN)
    slide_files.write_images(outputs / "spatial", slide_files.full_image(slide), microns_per_pixel=slide_files.MPP)
    cells = _geojson(_cell_polygons(1.0), cell_id=list(range(1, slide.n_obs + 1)))
    (outputs / "cell_segmentations.geojson").write_text(cells)
    _shrink_images(folder)


def _read_segmented(folder: Path) -> str:
    return _checked_cells(sp.io.visium_hd(folder / RUN, cells=True, polygons=True))


def _make_points(folder: Path) -> None:
    (folder / "cells.geojson").write_text(_geojson(_cell_polygons(1.0), objectType=["cell"] * slides.N_SPOTS))
    _cell_table().to_csv(folder / "points.csv", index=False)
    Image.fromarray(slide_files.full_image(slides.simulated()[0])).save(folder / "he.png")


def _read_points(folder: Path) -> str:
    found = [
        sp.pp.points(folder / "he.png", folder / name, mpp=slide_files.MPP) for name in ("cells.geojson", "points.csv")
    ]
    return "".join(checked_slide(slide, counted=False) for slide in found)


def _make_regions(folder: Path) -> None:
    slide = slides.simulated()[0]
    corner, side = slide.obsm["spatial"].min(axis=0) - 20, np.ptp(slide.obsm["spatial"], axis=0) / 2 + 20
    square = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]])
    rings = [corner + side * (square + shift) for shift in ([0, 0], [1, 0])]
    (folder / "regions.geojson").write_text(_geojson(rings, name=["left", "right"]))


def _read_regions(folder: Path) -> str:
    spots = sp.pp.pool(slides.simulated()[0], regions=folder / "regions.geojson")
    require(
        (spots.obs["n_pooled"] >= 0).all() and spots.obs["n_pooled"].sum() <= slides.N_SPOTS, "spots added up twice"
    )
    return fingerprint(spots.X, spots.obsm["spatial"], spots.obs_names)


def _make_features(folder: Path) -> None:
    import h5py

    values = np.random.default_rng(0).normal(size=(12, 1024)).astype(np.float32)
    corners = 512 * np.column_stack(np.divmod(np.arange(12), 4))
    attributes = {"patch_size": 256, "patch_size_level0": 512, "level0_magnification": 40, "target_magnification": 20}
    with h5py.File(folder / "case.h5", "w") as file:
        named = {"name": "case", "savetodir": "20x_256px_0px_overlap/features_uni_v1"}
        file.create_dataset("features", data=values).attrs.update(named)
        file.create_dataset("coords", data=corners).attrs.update(attributes | {"overlap": 0})


def _read_features(folder: Path) -> str:
    target = sp.io.features(folder / "case.h5", encoder="uni", mpp=0.25)
    z, xy = np.asarray(target.obsm["X_uni"]), np.asarray(target.obsm["spatial"])
    require(z.shape == (target.n_obs, 1024) and np.isfinite(z).all(), f"features of shape {z.shape}")
    require(xy.shape == (target.n_obs, 2) and np.isfinite(xy).all(), "positions that are none")
    width = target.uns["spahgc"]["patch_um"]["X_uni"]
    require(np.isfinite(width) and width > 0, f"patches {width} um wide")
    return fingerprint(z, xy)


# --- images


def _tissue() -> np.ndarray:
    """Some pixels, not all alike."""
    return np.random.default_rng(0).integers(0, 256, (160, 200, 3), dtype=np.uint8)


def _make_image(name: str, **options: Any) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        tifffile.imwrite(folder / name, _tissue(), photometric="rgb", **options)

    return make


def _make_pyramid(folder: Path) -> None:
    options: dict[str, Any] = {"tile": (64, 64), "photometric": "rgb", "compression": "deflate"}
    with tifffile.TiffWriter(folder / "image.tif") as tiff:
        tiff.write(_tissue(), subifds=1, **options)
        tiff.write(_tissue()[::2, ::2], subfiletype=1, **options)


def _make_ome(folder: Path) -> None:
    options = {"axes": "YXS", "PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.5}
    tifffile.imwrite(folder / "image.ome.tif", _tissue(), photometric="rgb", tile=(64, 64), metadata=options)


def _make_svs(folder: Path) -> None:
    text = "Aperio Image Library v12\r\n200x160 [0,0 200x160] (64x64) J/Q=70|AppMag = 20|MPP = 0.5"
    with tifffile.TiffWriter(folder / "image.svs") as tiff:
        tiff.write(_tissue(), tile=(64, 64), photometric="rgb", compression="jpeg", description=text, metadata=None)
        tiff.write(_tissue()[::4, ::4], photometric="rgb", compression="jpeg", metadata=None)


def _make_raster(name: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        Image.fromarray(_tissue()).save(folder / name)

    return make


def _read_image(folder: Path, reader: Any = None) -> str:
    (path,) = [path for path in folder.iterdir() if not path.name.startswith(".")] or [folder / "image.tif"]
    parts = []
    with sp.image.open_image(path, reader=reader) as image:
        width, height = image.width, image.height
        require(width > 0 and height > 0, f"an image of {width} x {height}")
        require(image.mpp is None or (np.isfinite(image.mpp) and image.mpp > 0), f"resolution {image.mpp}")
        for left, top in ((0, 0), (width // 2, height // 2), (max(width - 40, 0), max(height - 30, 0))):
            w, h = min(40, width - left), min(30, height - top)
            parts.append(image.read(left, top, w, h))
            require(parts[-1].shape == (h, w, 3) and parts[-1].dtype == np.uint8, f"a region of {parts[-1].shape}")
        if isinstance(image, PyramidSource):
            for index, level in enumerate(image.levels):
                w, h = min(20, level.width), min(20, level.height)
                parts.append(image.read_level(index, 0, 0, w, h))
                require(parts[-1].shape == (h, w, 3), f"a region of level {index} of {parts[-1].shape}")
        if width * height < 4e6:
            small, scale = sp.image.thumbnail(image, 64)
            require(small.ndim == 3 and 0 < max(small.shape[:2]) <= 64 and scale > 0, f"a small image {small.shape}")
            parts.append(small)
    return fingerprint(*parts)


# --- models, banks and parts of long runs


def _make_model(folder: Path) -> None:
    slides.model().save(folder / "model")


def _read_model(folder: Path) -> str:
    (target,) = slides.embedded(1)
    model = sp.SpaHGC.load(folder / "model")
    sp.tl.predict(target, model=model, device="cpu")
    support = target.obs["spahgc_support"].to_numpy()
    require(((support >= 0) & (support <= 1)).all(), "a support outside 0 to 1")
    values = np.asarray(target.layers["spahgc"])
    return checked_prediction(values[:, np.asarray(target.var["spahgc_panel"], dtype=bool)], target.n_obs)


def _reseal_model(folder: Path, rng: np.random.Generator) -> None:
    """Checksums of the files as they are now, in most cases."""
    from spahgc._training.model_files import DESCRIPTION_FILE, checksums

    path = folder / "model" / DESCRIPTION_FILE
    if rng.random() < 0.1:
        return
    try:
        description = json.loads(path.read_text())
        description["sha256"] = checksums(folder / "model")
        path.write_text(json.dumps(description))
    except (OSError, ValueError, TypeError, RecursionError):
        pass


def _make_bank(folder: Path) -> None:
    refs = slides.embedded()[1:]
    sp.pp.reference_bank(refs[:2], embedding=slides.EMBEDDING, path=folder / "bank")
    sp.pp.reference_bank(refs[2:], embedding=slides.EMBEDDING, path=folder / "bank", append=True)
    shutil.rmtree(folder / "bank" / "v000001")


def _read_bank(folder: Path) -> str:
    (target,) = slides.embedded(1)
    sp.tl.predict(target, folder / "bank", method="nearest", embedding=slides.EMBEDDING)
    bank = sp.pp.open_bank(folder / "bank").to_memory()
    z = np.asarray(bank.obsm[slides.EMBEDDING])
    require(len(z) == bank.n_obs and np.isfinite(z).all(), "an embedding that is not finite")
    sp.pp.cross_graph(target, bank)
    require(np.isfinite(target.obsm["spahgc_cs"].data).all(), "similarities that are not finite")
    values = np.asarray(target.layers["spahgc"])
    return checked_prediction(values[:, np.asarray(target.var["spahgc_panel"], dtype=bool)], target.n_obs)


def _bank_checked_beside(path: Path) -> bool:
    return path.name == ".lock"


@functools.cache
def _whole_embedding() -> np.ndarray:
    (slide,) = slides.embedded(1)
    sp.pp.embed(slide, encoder=slides.encoder(), batch_size=8, device="cpu")
    return slide.obsm["X_small"]


def _make_embedding(folder: Path) -> None:
    (slide,) = slides.embedded(1)
    sp.pp.embed(slide, encoder=slides.encoder(), batch_size=8, device="cpu", resume=folder / "parts")
    # A run that was stopped: the last batches are missing.
    for path in sorted((folder / "parts").rglob("*.safetensors"))[3:]:
        path.unlink()


def _reseal_embedding(folder: Path, rng: np.random.Generator) -> None:
    """A right checksum over rows that are others, in half of the cases."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file, save_file

    from spahgc.pp._embed.checkpoint import _checksum

    if rng.random() < 0.5:
        return
    for path in (folder / "parts").rglob("*.safetensors"):
        try:
            part = load_file(path)
            part["checksum"] = _checksum(part["rows"], part["features"], part["padded"])
            save_file(part, path)
        except (SafetensorError, KeyError, OSError, ValueError):
            continue


def _read_embedding(folder: Path) -> str:
    (slide,) = slides.embedded(1)
    sp.pp.embed(slide, encoder=slides.encoder(), batch_size=8, device="cpu", resume=folder / "parts")
    z = slide.obsm["X_small"]
    require(z.shape == _whole_embedding().shape and np.isfinite(z).all(), f"an embedding of shape {z.shape}")
    return fingerprint(z)


def _cross_validation(folder: Path | None) -> pd.DataFrame:
    found = sp.tl.cross_validate(
        slides.embedded(3),
        group_by="slide",
        methods=["ridge", "nearest"],
        embedding=slides.EMBEDDING,
        n_bootstrap=5,
        checkpoint=folder,
    )
    return found.scores


def _make_folds(folder: Path) -> None:
    _cross_validation(folder / "folds")
    for path in sorted((folder / "folds").glob("ridge*"))[:2]:
        path.unlink()


def _reseal_folds(folder: Path, rng: np.random.Generator) -> None:
    """Checksums of the tables as they are now, in most cases."""
    if rng.random() < 0.2:
        return
    for path in (folder / "folds").glob("*.json"):
        try:
            record = json.loads(path.read_text())
            record["sha256"] = hashlib.sha256(path.with_suffix(".csv").read_bytes()).hexdigest()
            path.write_text(json.dumps(record))
        except (OSError, ValueError, TypeError, RecursionError):
            continue


def _read_folds(folder: Path) -> str:
    scores = _cross_validation(folder / "folds")
    for column in ("pearson", "spearman"):
        values = scores[column].to_numpy(np.float64)
        require((np.isnan(values) | (np.abs(values) <= 1 + 1e-9)).all(), f"a {column} outside -1 to 1")
    rmse = scores["rmse"].to_numpy(np.float64)
    require((np.isnan(rmse) | ((rmse >= 0) & np.isfinite(rmse))).all(), "an rmse that is none")
    require(not scores.duplicated(["method", "slide", "gene"]).any(), "a gene of a slide scored twice")
    require((scores["n"] > 0).all(), "a score of no spots")
    columns = ["method", "slide", "gene", "pearson", "rmse"]
    return fingerprint(*(scores.sort_values(columns[:3])[column].to_numpy() for column in columns))


def _make_store(folder: Path) -> None:
    (slide,) = slides.embedded(1)
    slide.write_h5ad(folder / "P1S1.h5ad")


def _make_zarr_store(folder: Path) -> None:
    from spahgc._many.stores import write_slide

    (slide,) = slides.embedded(1)
    del slide.uns["spatial"], slide.obsm["truth_domains"]
    write_slide(slide, folder / "P1S1.zarr")


def _read_store(folder: Path) -> str:
    """Predicted as one of many."""
    (path,) = list(folder.glob("P1S1.*")) or [folder / "P1S1.h5ad"]
    out = folder / "out"
    (result,) = sp.tl.predict_many([path], out, model=_saved_model(), retries=0)["path"]
    adata = slides.read_store(Path(result))
    values = np.asarray(adata.layers["spahgc"])
    return checked_prediction(values[:, np.asarray(adata.var["spahgc_panel"], dtype=bool)], adata.n_obs)


@functools.cache
def _saved_model() -> Path:
    import atexit
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="spahgc-fuzz-model-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    slides.model().save(folder / "model")
    return folder / "model"


# --- gene sets and archives


def _make_gene_sets(name: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        genes = list(slides.embedded(1)[0].var_names)
        sets = {f"set {i}": genes[i : i + 8] for i in range(4)}
        if name.endswith(".gmt"):
            lines = ["\t".join([title, "a word", *members]) for title, members in sets.items()]
            (folder / name).write_text("\n".join(lines) + "\n")
        else:
            rows = [(title, gene, 1.0) for title, members in sets.items() for gene in members]
            pd.DataFrame(rows, columns=["source", "target", "weight"]).to_csv(folder / name, index=False)

    return make


@functools.cache
def _predicted() -> AnnData:
    (target,) = slides.embedded(1)
    sp.tl.predict(target, model=slides.model(), device="cpu")
    return target


def _read_gene_sets(folder: Path) -> str:
    path = next(folder.iterdir(), folder / "sets.gmt")
    net: Any = path
    if path.suffix == ".csv":
        try:
            net = pd.read_csv(path)
        except Exception:  # noqa: BLE001 - the user's own call of pandas
            return "not read by pandas"
    adata = _predicted().copy()
    sp.tl.enrich(adata, net, n_permutations=20, min_genes=3)
    scores = adata.obsm[next(key for key in adata.obsm if "enrich" in key or "ulm" in key)]
    values = np.asarray(scores, dtype=np.float64)
    require(len(values) == adata.n_obs and values.shape[1] > 0 and np.isfinite(values).all(), "scores that are none")
    return fingerprint(values)


def _make_archive(folder: Path) -> None:
    import io
    import tarfile

    with tarfile.open(folder / "files.tar", "w") as tar:
        for name in ("GSM1_A1_counts.tsv.gz", "GSM2_A2_counts.tsv.gz", "deep/image.jpg"):
            content = packed(name.encode() * 50) if name.endswith(".gz") else name.encode() * 50
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def _read_archive(folder: Path) -> str:
    from spahgc.datasets._archive import unpack

    unpack(folder / "files.tar", folder / "out", lambda name: name.removesuffix(".gz"))
    files = sorted(path for path in (folder / "out").rglob("*") if path.is_file())
    require(all(path.resolve().is_relative_to((folder / "out").resolve()) for path in files), "a file elsewhere")
    return fingerprint(*(f"{path.relative_to(folder)} {path.read_bytes()!r}" for path in files))


def _only(*endings: str) -> Callable[[Path], bool]:
    """Skip the files of other endings."""
    return lambda path: not path.name.endswith(endings)


KINDS = (
    Kind("Visium, .h5 and .csv", lambda folder: _make_visium(folder, version=2), _read_visium),
    Kind("Visium, matrix.mtx.gz", lambda folder: _make_visium(folder, version=1), _read_visium),
    Kind("Visium HD, .parquet", _make_hd, _read_hd),
    Kind("Spatial Transcriptomics, .tsv", _make_st, _read_st),
    Kind("HEST, .h5ad and .json", _make_hest, _read_hest, skip=_only(".h5ad", ".json")),
    Kind("Xenium, .h5 and .parquet", _make_xenium, _read_xenium, skip=_only(".xenium", ".h5", ".parquet", ".csv")),
    Kind("cells of a table, .csv and GeoJSON", _make_cells, _read_cells, skip=_only(".gz", ".csv", ".geojson")),
    Kind("Visium HD, segmented cells", _make_segmented, _read_segmented, skip=_only(".h5", ".json", ".geojson")),
    Kind("points, GeoJSON and .csv", _make_points, _read_points, skip=_only(".geojson", ".csv")),
    Kind("regions, GeoJSON", _make_regions, _read_regions),
    Kind("features of TRIDENT, .h5", _make_features, _read_features),
    Kind("whole slide, given spots and grid", _make_slide, _read_whole_slide),
    Kind("whole slide, tiles", _make_slide, _read_tiles),
    Kind("image, TIFF in tiles", _make_image("image.tif", tile=(64, 64)), _read_image),
    Kind(
        "image, TIFF in tiles of deflate", _make_image("image.tif", tile=(64, 64), compression="deflate"), _read_image
    ),
    Kind("image, TIFF in strips", _make_image("image.tif", rowsperstrip=16), _read_image),
    Kind("image, TIFF in strips of LZW", _make_image("image.tif", rowsperstrip=16, compression="lzw"), _read_image),
    Kind(
        "image, BigTIFF of JPEG", _make_image("image.tif", tile=(64, 64), compression="jpeg", bigtiff=True), _read_image
    ),
    Kind("image, pyramid", _make_pyramid, _read_image),
    Kind("image, OME-TIFF", _make_ome, _read_image),
    Kind("image, SVS", _make_svs, _read_image),
    Kind("image, SVS by openslide", _make_svs, lambda folder: _read_image(folder, "openslide")),
    Kind("image, JPEG", _make_raster("image.jpg"), _read_image),
    Kind("image, PNG", _make_raster("image.png"), _read_image),
    Kind("model folder", _make_model, _read_model, finish=_reseal_model),
    Kind("bank on disk", _make_bank, _read_bank, skip=_bank_checked_beside),
    Kind("parts of an embedding", _make_embedding, _read_embedding, finish=_reseal_embedding),
    Kind("folds of a cross-validation", _make_folds, _read_folds, finish=_reseal_folds),
    Kind("slide, .h5ad", _make_store, _read_store),
    Kind("slide, .zarr", _make_zarr_store, _read_store),
    Kind("gene sets, GMT", _make_gene_sets("sets.gmt"), _read_gene_sets),
    Kind("gene sets, CSV", _make_gene_sets("sets.csv"), _read_gene_sets),
    Kind("archive, tar", _make_archive, _read_archive),
)


def make_sample(kind: Kind, folder: Path) -> str:
    """Write a whole sample, and return the fingerprint of what is read from a copy of it."""
    folder.mkdir(parents=True)
    kind.make(folder)
    copy = folder.with_name(f"{folder.name}-copy")
    copied(folder, copy)
    try:
        return kind.read(copy)
    finally:
        shutil.rmtree(copy)
