"""Features that are already there: slides that other tools have embedded become targets."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from spahgc._keys import PATCH_CONTEXT, SPATIAL, UNS, Obs, Obsm, Uns
from spahgc._reading import read_h5ad
from spahgc._validate import check_coordinates, check_unique, embedding_matrix, quoted, user_path
from spahgc.encoders import EncoderRecord, describe_encoder
from spahgc.encoders._record import key_name
from spahgc.image import open_image
from spahgc.image._mpp import check_mpp
from spahgc.image._resample import FILTERS
from spahgc.io._patch_features import HEST_BENCH, PatchFeatures, read_h5_features, read_wsidata
from spahgc.io._slide import slide
from spahgc.io._tiles import check_microns, slide_without_genes
from spahgc.io._write_library import library_name

H5_ENDINGS, STORE_ENDING = (".h5", ".hdf5"), ".zarr"
SAME_WIDTH = 0.05
"""Relative difference up to which a width in microns that is named agrees with pixels times resolution: a nominal resolution
(0.5 um for 20x) is off by that much, and no more."""
WIDTH_DECIMALS = 2
"""Of a width that follows from pixels and resolution, microns: slides of one scanner have the same."""
INTERPOLATION = "bicubic"
"""How patches are resized for encoders whose card names a filter that is not ours, as :func:`spahgc.pp.embed` does."""
OF_OTHER_TOOLS = {
    "uni_v1": "uni",
    "uni_v2": "uni2_h",
    "uni2": "uni2_h",
    "uni2h": "uni2_h",
    "conch_v1": "conch",
    "conch_v15": "conch_v1_5",
    "conch_v1.5": "conch_v1_5",
    "hoptimus0": "h_optimus_0",
    "hoptimus1": "h_optimus_1",
    "h_optimus_0": "h_optimus_0",
    "h_optimus_1": "h_optimus_1",
    "hibou_b": "hibou_b",
    "hibou_l": "hibou_l",
    "midnight12k": "midnight",
    "phikonv2": "phikon_v2",
    "prov_gigapath": "gigapath",
}
"""Encoders by the names that TRIDENT, LazySlide and the HEST benchmark have for them; others are called as here."""


def features(
    path: str | os.PathLike[str],
    *,
    encoder: str | None = None,
    mpp: float | None = None,
    patch_um: float | None = None,
    patch_px: float | None = None,
    spots: AnnData | pd.DataFrame | str | os.PathLike[str] | None = None,
    image: str | os.PathLike[str] | None = None,
    record: Mapping[str, object] | None = None,
    key: str | None = None,
    library_id: str | None = None,
) -> AnnData:
    """Make a target of a slide that TRIDENT, LazySlide or the HEST benchmark has embedded.

    Nothing is embedded again. References that were embedded with the same encoder at the same width, the patch alone, predict
    it at once: ``sp.pp.embed(refs, encoder="uni", patch_um=128, context=False)``.

    Parameters
    ----------
    path
        The file: of TRIDENT (or CLAM) ``.h5`` with ``features`` and ``coords``; of LazySlide the SpatialData of ``wsidata``,
        ``.zarr``; of the HEST benchmark ``.h5`` with ``embeddings`` and ``barcodes``.
    encoder
        The encoder, as this package calls it, or any other name. ``None`` takes the one that the file names: by the folder
        ``features_<encoder>`` that TRIDENT notes in it, the table of LazySlide, or the folder of the HEST benchmark.
    mpp
        Microns per pixel of the slide at full resolution; ``None`` takes what the file or `image` says.
    patch_um
        Width of a patch, microns, e.g. 128 for 256 pixels at 0.5 um. ``None`` takes it from the file: of LazySlide its tiles,
        of TRIDENT pixels times `mpp`, of the HEST benchmark 112 um.
    patch_px
        Width of a patch, pixels of the slide at full resolution; ``None`` takes the file's.
    spots
        Where the spots of the HEST benchmark lie, whose file names barcodes alone: the sample's AnnData, its ``.h5ad``, or a
        table with the columns x and y and the barcodes as index; pixels of the slide at full resolution.
    image
        The slide, for its resolution, for pictures in figures and the report.
    record
        What is known of the encoder better than here: fields of the record, as :func:`spahgc.pp.use_embedding` has them.
    key
        Table of a SpatialData with the features; ``None`` takes the only one.
    library_id
        Name of the slide; ``None`` takes the file's without its ending.

    Returns
    -------
    Patches x 0 genes, in the order of the file:

    - ``obsm["X_<encoder>"]``: the features, float32, patches x dim;
    - ``obsm["spatial"]``: centres (x, y) of the patches, float64, pixels of the slide at full resolution;
    - ``uns["spahgc"]["embeddings"]["X_<encoder>"]``: the encoder record. Of an encoder that this package knows, what no file
      says (weights, normalisation, precision) is taken to be as published;
    - ``uns["spahgc"]["patch_um"]["X_<encoder>"]``: width of a patch, microns; ``uns["spahgc"]["slide_mpp"]``, if known;
    - ``uns["spahgc"]["features"]["X_<encoder>"]``: ``tool``, ``file``, ``patch_px``, and ``assumed``, the fields of the record
      that no file says;
    - ``uns["spatial"]``: pictures and scale, with an `image`.

    Raises
    ------
    FileNotFoundError
        If there is no such file or image.
    ImportError
        If a SpatialData is read and ``spatialdata`` is not there: ``pip install "spahgc[spatialdata]"``.
    KeyError
        If there is no such table, or spots have no place.
    ValueError
        If the file is damaged or of another kind, encoder, width or places are not known or contradict what the file says,
        or the features are not those of the encoder: another number of columns, NaN, all the same.

    See Also
    --------
    spahgc.pp.use_embedding : the same for features that are in memory.

    Examples
    --------
    >>> import spahgc as sp
    >>> target = sp.io.features("20x_256px_0px_overlap/features_uni_v1/case_7.h5", mpp=0.25)  # doctest: +SKIP
    >>> sp.pp.embed(refs, encoder="uni", patch_um=128, context=False)  # doctest: +SKIP
    >>> sp.tl.predict(target, refs)  # doctest: +SKIP
    """
    file = user_path(path, "path")
    check_mpp("mpp", mpp)
    check_microns("patch_um", patch_um)
    if patch_px is not None and not (np.isfinite(patch_px) and patch_px > 0):
        raise ValueError(f"patch_px={patch_px!r}; pass a positive number of pixels")
    found = _read(file, key)
    name = library_name(library_id, file)
    image_path = None if image is None else user_path(image, "image").absolute()
    resolution = _resolution(found, mpp, image_path, file)
    width_px = _agreed(found.patch_px, patch_px, "patch_px", file)
    names, xy = _places(found, width_px, spots, file)
    described = _record(found, encoder, record, file)
    width_um = _width_um(found, patch_um, width_px, resolution, file)
    adata = _target(xy, names, name, image_path, resolution)
    of_record = _with_width(described, width_um, record, found.input_px)
    embedding = Obsm.embedding(key_name(str(of_record["name"])))
    adata.obsm[embedding] = found.values
    label = f'"{file}"'
    embedding_matrix(adata, embedding, label, record=of_record)
    _check_dim(of_record, found.values.shape[1], file)
    _write(adata, embedding, of_record, found, file, width_px, width_um, resolution, record)
    return adata


def _read(file: Path, key: str | None) -> PatchFeatures:
    if not file.exists():
        raise FileNotFoundError(f'path: "{file}" is not there. Check the path.')
    if file.suffix == STORE_ENDING and file.is_dir():
        return read_wsidata(file, key)
    if file.is_dir() or file.suffix not in H5_ENDINGS:
        raise ValueError(
            f'"{file}" is no file of features: pass a .h5 of TRIDENT, CLAM or the HEST benchmark, or the .zarr of a '
            "SpatialData of wsidata."
        )
    return read_h5_features(file)


def _resolution(found: PatchFeatures, mpp: float | None, image: Path | None, file: Path) -> float | None:
    """Microns per pixel: the argument, the file, the image."""
    said = _agreed(found.mpp, mpp, "mpp", file)
    if said is None and image is not None:
        with open_image(image) as opened:
            said = opened.mpp
    return said


def _agreed(said: float | None, given: float | None, name: str, file: Path) -> float | None:
    """What the file says, else the argument; refuses two that contradict each other."""
    if said is None or given is None:
        return given if said is None else said
    if abs(said / given - 1) > SAME_WIDTH:
        raise ValueError(f'{name}={given:g}, but "{file}" says {said:g}. Leave {name}= out, or pass the right one.')
    return given


def _places(
    found: PatchFeatures, width_px: float | None, spots: Any, file: Path
) -> tuple[list[str], NDArray[np.float64]]:
    """Names and centres of the patches."""
    n = len(found.values)
    if found.barcodes is None:
        if spots is not None:
            raise ValueError(
                f'spots= places barcodes, and "{file}" has none: it has the places of its patches. Leave it out.'
            )
        if found.corners is None or width_px is None:
            raise ValueError(
                f'the width of the patches of "{file}" is not known, which their centres need: the file does not say it. Pass '
                "patch_px= with pixels of the slide at full resolution, e.g. 512 for patches of 256 pixels at 20x of a slide "
                "that was scanned at 40x."
            )
        if len(found.corners) != n:
            raise ValueError(f'"{file}" holds {n} rows of features and {len(found.corners)} places. Copy it again.')
        return [f"patch_{i}" for i in range(n)], found.corners + width_px / 2
    if len(found.barcodes) != n:
        raise ValueError(f'"{file}" holds {n} rows of features and {len(found.barcodes)} barcodes. Copy it again.')
    check_unique(pd.Index(found.barcodes), f'barcodes of "{file}"', "h5py's first index of each")
    table = _spot_places(spots, file)
    rows = table.index.get_indexer(pd.Index(found.barcodes))
    if (rows < 0).any():
        lost = [barcode for barcode, row in zip(found.barcodes, rows, strict=True) if row < 0]
        raise KeyError(
            f'{len(lost)} of {n} barcodes of "{file}" have no place in spots=: {quoted(lost)}; its names look like '
            f"{quoted(table.index[:3])}. Do both belong to the same sample?"
        )
    return found.barcodes, table[["x", "y"]].to_numpy(np.float64)[rows]


def _spot_places(spots: Any, file: Path) -> pd.DataFrame:
    if spots is None:
        raise ValueError(
            f'"{file}" names barcodes and not where they lie. Pass spots= with the sample\'s AnnData or its .h5ad, whose '
            'obsm["spatial"] says it, or a table with the columns x and y.'
        )
    if isinstance(spots, str | os.PathLike):
        spots = read_h5ad(user_path(spots, "spots"), "spots", "Pass the sample's .h5ad.")
    if isinstance(spots, AnnData):
        spots = pd.DataFrame(check_coordinates(spots, "spots="), columns=["x", "y"], index=spots.obs_names)
    if not isinstance(spots, pd.DataFrame) or not {"x", "y"} <= set(spots.columns):
        raise ValueError("spots= must be an AnnData, the path of a .h5ad, or a table with the columns x and y.")
    table = spots.set_axis(spots.index.astype(str), axis=0)
    check_unique(table.index, "spots=: names (the index)", "spots.reset_index(drop=True)")
    return table


def _record(
    found: PatchFeatures, encoder: str | None, given: Mapping[str, object] | None, file: Path
) -> EncoderRecord | dict[str, object]:
    """Record of the encoder as far as it is known without the width of a patch."""
    said = None if found.encoder is None else _our_name(found.encoder)
    if said is not None and found.tool == HEST_BENCH and describe_encoder(said) is None:
        said = None  # any folder may hold its files
    asked = None if encoder is None else _our_name(encoder)
    if asked is not None and said is not None and found.tool != HEST_BENCH and asked != said:
        raise ValueError(
            f'encoder="{encoder}", but "{file}" names "{found.encoder}". Leave encoder= out, or pass the file of the other one.'
        )
    name = asked or said
    if given is not None and "name" in given:
        name = str(given["name"])
    if not name:
        raise ValueError(f'"{file}" does not say which encoder made it. Pass encoder=, e.g. encoder="uni".')
    known = describe_encoder(name)
    if known is None:
        return {"name": name}
    return known if known.interpolation in FILTERS else replace(known, interpolation=INTERPOLATION)


def _our_name(name: str) -> str:
    """The name that this package has for an encoder; another one as it is."""
    plain = name.strip().lower().replace("-", "_").replace("/", "_")
    for candidate in (OF_OTHER_TOOLS.get(plain), plain):
        if candidate is not None and describe_encoder(candidate) is not None:
            return candidate
    return name


def _width_um(
    found: PatchFeatures,
    given: float | None,
    width_px: float | None,
    mpp: float | None,
    file: Path,
) -> float:
    """Width of a patch, microns: as named, by the file, by pixels and resolution."""
    by_pixels = None if width_px is None or mpp is None else round(width_px * mpp, WIDTH_DECIMALS)
    for other, source in ((by_pixels, "pixels times microns per pixel make"), (found.patch_um, "the file says")):
        if given is not None and other is not None and abs(other / given - 1) > SAME_WIDTH:
            raise ValueError(
                f'patch_um={given:g}, but {source} {other:g} for the patches of "{file}". Leave patch_um= out, or correct mpp=.'
            )
    width = next((each for each in (given, found.patch_um, by_pixels) if each is not None), None)
    if width is None:
        raise ValueError(
            f'the width of the patches of "{file}" in microns is not known: they are {width_px:g} pixels wide, and the resolution '
            "of the slide is not known. Pass mpp= with the microns per pixel of the slide, image= with the slide, or patch_um=."
        )
    return float(width)


def _with_width(
    described: EncoderRecord | dict[str, object],
    width_um: float,
    given: Mapping[str, object] | None,
    input_px: int | None,
) -> dict[str, object]:
    """The record in types that survive a file; what is named counts before what is known of the encoder."""
    if isinstance(described, EncoderRecord):
        written = replace(described, mpp=width_um / described.input_px, context=PATCH_CONTEXT).to_uns()
    else:
        pixels = int(str((given or {}).get("input_px", input_px or round(width_um))))
        written = {**described, "input_px": pixels, "mpp": width_um / pixels, "context": PATCH_CONTEXT}
    unknown = [name for name in given or {} if name not in {field.name for field in fields(EncoderRecord)}]
    if unknown:
        raise ValueError(f"record= has the unknown fields {quoted(unknown)}.")
    return written | dict(given or {})


def _check_dim(record: dict[str, object], n_columns: int, file: Path) -> None:
    dim = record.setdefault("dim", n_columns)
    if dim != n_columns:
        raise ValueError(
            f'"{file}" holds {n_columns} columns, but {record["name"]} makes {dim}: they are of another encoder, or of another '
            "pooling of it. Pass encoder= with the right one; for a variant of your own pass another name and record= with what "
            "is known of it."
        )


def _target(xy: NDArray[np.float64], names: list[str], name: str, image: Path | None, mpp: float | None) -> AnnData:
    if image is not None:
        table = pd.DataFrame(xy, columns=["x", "y"], index=names)
        return slide(image, spots=table, mpp=mpp, library_id=name)
    adata = slide_without_genes(xy, names, {})
    check_coordinates(adata, f'slide "{name}"')
    adata.obs[Obs.slide] = pd.Categorical([name] * adata.n_obs)
    adata.obsm[SPATIAL] = np.ascontiguousarray(xy, dtype=np.float64)
    return adata


def _write(
    adata: AnnData,
    key: str,
    record: dict[str, object],
    found: PatchFeatures,
    file: Path,
    width_px: float | None,
    width_um: float,
    mpp: float | None,
    given: Mapping[str, object] | None,
) -> None:
    said = {"name", "dim", "context", "mpp", *(given or {})}
    source: dict[str, object] = {
        "tool": found.tool,
        "file": str(file.absolute()),
        "assumed": [name for name in record if name not in said],
    }
    entries: dict[str, Any] = {**adata.uns.get(UNS, {}), Uns.embeddings: {key: record}}
    entries[Uns.features] = {key: source if width_px is None else source | {"patch_px": float(width_px)}}
    entries[Uns.patch_um] = {key: width_um}
    if mpp is not None:
        entries[Uns.slide_mpp] = float(mpp)
    adata.uns[UNS] = entries
