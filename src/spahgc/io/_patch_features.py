"""Embeddings of patches in files of other tools: TRIDENT and CLAM, LazySlide (wsidata), the HEST benchmark."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spahgc._installation import install_command
from spahgc._reading import reading, unreadable
from spahgc._validate import quoted

if TYPE_CHECKING:
    from spatialdata import SpatialData

TRIDENT, LAZYSLIDE, HEST_BENCH = "TRIDENT", "LazySlide", "the HEST benchmark"
REMEDY = "Copy it again from where it was made, or embed the slide anew."
FEATURES, COORDS = "features", "coords"
"""Data sets of a file of TRIDENT or CLAM; attributes of the second say how wide a patch is."""
EMBEDDINGS, BARCODES = ("embeddings",), ("barcodes", "barcode")
"""Data sets of a file of the HEST benchmark."""
LEVEL_0, AT_LEVEL = "patch_size_level0", "patch_size"
"""Attributes: width of a patch, pixels of the slide, and of the level it was read from."""
FOLDER_OF_FEATURES = re.compile(r"(?:slide_)?features_(?P<encoder>.+)")
"""How TRIDENT calls the folder of its features, which names the encoder."""
HEST_BENCH_PX, HEST_BENCH_UM = 224, 112.0
"""The benchmark cuts the same patches for all encoders: so many pixels, 0.5 um each."""
TILE_SPEC, SLIDE_PROPERTIES = "tile_spec", "slide_properties"
"""Attributes of a SpatialData of wsidata."""


@dataclass(frozen=True, eq=False)
class PatchFeatures:
    """What a file says; ``None`` is what it does not."""

    tool: str
    values: NDArray[np.float32]
    """Patches x columns."""
    corners: NDArray[np.float64] | None = None
    """Upper left corner (x, y) of each patch, pixels of the full-resolution image."""
    barcodes: list[str] | None = None
    patch_px: float | None = None
    """Width of a patch in these pixels."""
    mpp: float | None = None
    """Microns per such pixel."""
    patch_um: float | None = None
    input_px: int | None = None
    """Width of a patch, pixels, before the encoder's own transformation."""
    encoder: str | None = None


def read_h5_features(path: Path) -> PatchFeatures:
    """Read a file of TRIDENT, CLAM or the HEST benchmark."""
    import h5py

    with reading(path, "the features", REMEDY), h5py.File(path, "r") as file:
        names = list(file)
        content = {name: np.asarray(file[name]) for name in names if isinstance(file[name], h5py.Dataset)}
        attributes = {name: dict(file[name].attrs) for name in content}
    found = next((name for name in EMBEDDINGS if name in content), None)
    if FEATURES in content and COORDS in content:
        return _of_trident(path, content, attributes)
    if found is None:
        raise unreadable(
            path,
            "the features",
            f'it holds {quoted(names)}, and neither "{FEATURES}" and "{COORDS}" (TRIDENT) nor "{EMBEDDINGS[0]}" and '
            f'"{BARCODES[0]}" (the HEST benchmark)',
            "Pass a file with the features of patches, not one of their places or pixels.",
        )
    named = next((name for name in BARCODES if name in content), None)
    if named is None:
        raise unreadable(path, "the features", f'it holds {quoted(names)} and no "{BARCODES[0]}"', REMEDY)
    barcodes = [name.decode() if isinstance(name, bytes) else str(name) for name in np.ravel(content[named])]
    return PatchFeatures(
        HEST_BENCH,
        _matrix(path, content[found]),
        barcodes=barcodes,
        patch_um=HEST_BENCH_UM,
        input_px=HEST_BENCH_PX,
        encoder=path.absolute().parent.name or None,
    )


def _of_trident(
    path: Path, content: Mapping[str, NDArray[Any]], attributes: Mapping[str, Mapping[str, Any]]
) -> PatchFeatures:
    corners, said = content[COORDS], attributes[COORDS]
    if corners.ndim == 3 and corners.shape[0] == 1:  # a batch of one slide
        corners = corners[0]
    if corners.ndim != 2 or corners.shape[1] != 2 or corners.dtype.kind not in "iuf":
        raise unreadable(path, "the features", f'"{COORDS}" has shape {corners.shape} and type {corners.dtype}', REMEDY)
    matrix = _matrix(path, content[FEATURES])
    with reading(path, "the features", f'Attributes of "{COORDS}" are no numbers. {REMEDY}'):
        patch_px, input_px = _patch_px(said), int(said[AT_LEVEL]) if AT_LEVEL in said else None
    return PatchFeatures(
        TRIDENT,
        matrix,
        corners=corners.astype(np.float64),
        patch_px=patch_px,
        input_px=input_px,
        encoder=_encoder_of_folder(attributes[FEATURES], path),
    )


def _patch_px(said: Mapping[str, Any]) -> float | None:
    """Width of a patch at level 0: as it stands there, or by the magnifications or the level of which it was read."""
    if LEVEL_0 in said:
        return float(said[LEVEL_0])
    if AT_LEVEL not in said:
        return None
    own, wanted = said.get("level0_magnification"), said.get("target_magnification")
    if own is not None and wanted is not None:
        return float(said[AT_LEVEL]) * float(own) / float(wanted)
    downsample = np.ravel(said.get("downsample", 1.0 if said.get("patch_level") == 0 else np.nan))
    return float(said[AT_LEVEL] * downsample[0]) if np.isfinite(downsample[0]) else None


def _encoder_of_folder(said: Mapping[str, Any], path: Path) -> str | None:
    """Encoder by the attribute of a file, or by the name of the folder in which TRIDENT wrote it."""
    for name in ("encoder", "patch_encoder", "model_name"):
        if name in said:
            return _text(said[name])
    for folder in (Path(_text(said["savetodir"])).name if "savetodir" in said else "", path.parent.name):
        match = FOLDER_OF_FEATURES.fullmatch(folder)
        if match:
            return match["encoder"]
    return None


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def read_wsidata(path: Path, key: str | None) -> PatchFeatures:
    """Read the features that LazySlide wrote into a SpatialData of wsidata."""
    try:
        import spatialdata
    except ImportError as error:
        raise ImportError(
            f'"{path}" is a SpatialData, and spatialdata is not installed. Run {install_command("spatialdata")}.'
        ) from error
    with reading(path, "the features", REMEDY):
        sdata = spatialdata.read_zarr(path)
    return of_wsidata(sdata, key, path)


def of_wsidata(sdata: SpatialData, key: str | None, path: Path) -> PatchFeatures:
    """The same of an object that is read; `path` is what messages call it."""
    from spahgc._slides.spatialdata import spots_of_shapes
    from spahgc._slides.tables import annotation

    specs = dict(sdata.attrs.get(TILE_SPEC, {}))
    annotated = {name: annotation(table) for name, table in sdata.tables.items()}
    features = [
        name
        for name, about in annotated.items()
        if about is not None and len(about.regions) == 1 and about.regions[0] in specs
    ]
    if key is None and len(features) != 1:
        problem = f"{len(features)} of its tables are features of tiles ({quoted(features)}; tables are {quoted(sdata.tables)})"
        raise unreadable(path, "the features", problem, "Say with key= which table is meant.")
    key = features[0] if key is None else key
    about = annotated.get(key)
    if key not in features or about is None:
        raise KeyError(f'key="{key}" is no table of features in "{path}", those are {quoted(features)}.')
    table, tiles = sdata.tables[key], about.regions[0]
    spec, slide = dict(specs[tiles]), dict(sdata.attrs.get(SLIDE_PROPERTIES, {}))
    xy = spots_of_shapes(sdata, table)
    with reading(path, "the features", f"Numbers of its {TILE_SPEC} or {SLIDE_PROPERTIES} are none. {REMEDY}"):
        patch_px, mpp = _base_width(spec), None if slide.get("mpp") is None else float(slide["mpp"])
        patch_um = None if spec.get("mpp") is None else float(spec["mpp"]) * float(spec["width"])
        input_px = int(spec["width"]) if "width" in spec else None
    return PatchFeatures(
        LAZYSLIDE,
        _matrix(path, np.asarray(table.X.toarray() if hasattr(table.X, "toarray") else table.X)),
        corners=None if patch_px is None else xy - patch_px / 2,
        patch_px=patch_px,
        mpp=mpp,
        patch_um=patch_um,
        input_px=input_px,
        encoder=key.removesuffix(f"_{tiles}"),
    )


def _base_width(spec: Mapping[str, Any]) -> float | None:
    """Width of a tile in pixels of level 0, as present and past versions have it."""
    if "base_downsample" in spec:
        return float(int(spec["width"] * spec["base_downsample"]))
    if "raw_width" in spec:
        return float(spec["raw_width"])
    return float(spec["width"]) * float(spec.get("downsample", 1.0)) if "width" in spec else None


def _matrix(path: Path, values: NDArray[Any]) -> NDArray[np.float32]:
    if values.ndim == 3 and values.shape[0] == 1:
        values = values[0]
    if values.ndim != 2 or values.dtype.kind not in "iuf":
        raise unreadable(
            path,
            "the features",
            f"they have shape {values.shape} and type {values.dtype}, not patches x columns of numbers",
            "Features of whole slides are none of patches: pass the file that they were made from.",
        )
    return values.astype(np.float32)
