"""An H&E patch around every spot, and what an encoder sees in it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray
from scipy.spatial import KDTree

from spahgc._keys import SPATIAL, UNS, Obs, Obsm, Uns
from spahgc._settings import progress_bar, resolve_device
from spahgc._validate import check_coordinates
from spahgc.image import ImageSource, cut_patch, describe_outside, open_image
from spahgc.image._resample import FILTERS
from spahgc.pp._resolution import SCALE_FACTORS, library, slide_mpp

if TYPE_CHECKING:
    from torch import Tensor, nn

    from spahgc.encoders import Encoder, EncoderRecord

Source = str | os.PathLike[str] | NDArray[Any] | ImageSource
"""Where an image may come from."""

DEFAULT_INTERPOLATION = "bicubic"
"""Filter for encoders whose record names none that exists here."""
MIN_PATCH_PX = 4.0
"""Width in slide pixels below which a patch shows nothing."""
MAX_UPSIZE = 4
"""A patch may be wider than the whole slide up to this many times the encoder's input; more is a wrong unit."""
HIRES_FACTOR = 2
"""How many times larger than the hires image an image must be before mistaken coordinates are looked for."""
OVERLAP = 0.75
"""Neighbouring spots that are closer than this share of their diameter lie on coordinates of another image."""


@dataclass(frozen=True)
class _Slide:
    """A slide that has passed its checks."""

    adata: AnnData
    name: str
    xy: NDArray[np.float64]
    source: Source
    height: int
    width: int
    mpp: float | None


def embed(
    data: AnnData | Sequence[AnnData],
    *,
    encoder: str | tuple[nn.Module, Callable[[Any], Tensor]] | Encoder = "uni",
    image: Source | None = None,
    mpp: float | None = None,
    patch_um: float | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    key_added: str | None = None,
    batch_size: int = 64,
    device: str | None = None,
    copy: bool = False,
) -> AnnData | list[AnnData] | None:
    """Embed the H&E patch around every spot with an image encoder.

    A patch is a square centred on the spot, `input_px * mpp` microns of the encoder's record wide on the tissue,
    whatever the resolution of the slide. What lies outside the image is white.

    Parameters
    ----------
    data
        One slide, with spot centres (x, y) in pixels of the full-resolution image in ``obsm["spatial"]``; or a list
        of slides, which are embedded one after another with the encoder loaded once.
    encoder
        Name of an encoder (:func:`spahgc.encoders.list_encoders`), an own ``(module, transform)``, or an
        :class:`~spahgc.encoders.Encoder`.
    image
        The full-resolution image: path, uint8 array of height x width x 3, or :class:`~spahgc.image.ImageSource`.
        ``None`` takes the file that ``uns["spatial"]`` names, or its hires image where that is the full-resolution one.
    mpp
        Microns per pixel of the slide. ``None`` takes them from the scale factors, the image file, or the pitch of
        Visium's array.
    patch_um
        Width of a patch, microns, instead of the encoder's own.
    checkpoint
        File with the encoder's weights, instead of the published ones.
    key_added
        Key of the embedding in ``obsm``; ``None`` makes ``X_<encoder>``.
    batch_size
        Number of patches that are in memory, and go through the encoder, at once. It does not change the result.
    device
        Torch device; ``None`` takes the setting, or the first accelerator there is.
    copy
        Return a changed copy (a list of them for a list) instead of writing into `data`.

    Returns
    -------
    ``None``, or the copy. Written are, when the slide is complete,

    - ``obsm["X_<encoder>"]``: the embedding, float32, spots x dim;
    - ``obs["spahgc_patch_padded"]``: True where a patch reaches past the image;
    - ``uns["spahgc"]["embeddings"]["X_<encoder>"]``: the encoder record;
    - ``uns["spahgc"]["slide_mpp"]``: microns per pixel of the slide, if known;
    - ``uns["spahgc"]["patch_um"]["X_<encoder>"]``: width of a patch, microns, if known.

    Raises
    ------
    TypeError
        If `data` is no AnnData or list of them, or `image` is no image.
    KeyError
        If ``obsm["spatial"]`` is missing.
    FileNotFoundError
        If the image is missing.
    ValueError
        If no image is known, the resolution is needed but unknown or contradictory, or spots lie outside the image.

    Examples
    --------
    >>> import spahgc as sp
    >>> (slide,) = sp.datasets.simulated(1, n_patients=1, n_spots=40, n_genes=20)
    >>> sp.pp.embed(slide, encoder="efficientnet_lite0")
    >>> slide.obsm["X_efficientnet_lite0"].shape
    (40, 1280)
    """
    from spahgc.encoders import describe_encoder, load_encoder

    adatas = _as_list(data, image)
    _check_numbers(batch_size, mpp, patch_um)
    slides = [_check_slide(adata, image, mpp, index) for index, adata in enumerate(adatas)]
    known = describe_encoder(encoder)
    if known is not None:
        for slide in slides:
            _patch_width_px(slide, known, patch_um)
    device = resolve_device(device)
    loaded = load_encoder(encoder, checkpoint=None if checkpoint is None else os.fspath(checkpoint), device=device)
    record = _record_used(loaded.record, patch_um)
    key = Obsm.embedding(record.name) if key_added is None else key_added
    widths = [_patch_width_px(slide, record, patch_um) for slide in slides]

    results = []
    for slide, width_px in zip(slides, widths, strict=True):
        features, padded = _encode(slide, replace(loaded, record=record), width_px, batch_size, device)
        target = slide.adata.copy() if copy else slide.adata
        _write(target, key, features, padded, record, slide.mpp, width_px)
        results.append(target)
    if not copy:
        return None
    return results[0] if isinstance(data, AnnData) else results


def _as_list(data: Any, image: Source | None) -> list[AnnData]:
    """Make a list of slides of what was passed."""
    several = isinstance(data, list | tuple)
    adatas = list(data) if several else [data]
    wrong = next((item for item in adatas if not isinstance(item, AnnData)), None)
    if wrong is not None:
        kind = type(wrong).__name__
        hint = ' Pass its table and its image, e.g. embed(sdata.tables["table"], image=...).'
        raise TypeError(
            f"embed takes an AnnData or a list of them, found {kind}."
            f"{hint if kind == 'SpatialData' else ' Pass one AnnData for each slide.'}"
        )
    if not adatas:
        raise ValueError("the list of slides is empty. Pass at least one AnnData.")
    if several and image is not None:
        raise ValueError(
            "image= goes with one slide, but a list was passed. Embed the slides one by one, or write each path into "
            f'adata.uns["{SPATIAL}"][slide]["metadata"]["source_image_path"].'
        )
    return adatas


def _check_numbers(batch_size: int, mpp: float | None, patch_um: float | None) -> None:
    """Refuse numbers that are no sizes."""
    if isinstance(batch_size, bool) or not isinstance(batch_size, int | np.integer) or batch_size < 1:
        raise ValueError(f"batch_size is {batch_size!r}; pass a whole number of at least 1")
    for name, value in (("mpp", mpp), ("patch_um", patch_um)):
        if value is not None and not (np.isfinite(value) and value > 0):
            raise ValueError(f"{name} is {value!r}; pass a positive number of microns")


def _check_slide(adata: AnnData, image: Source | None, mpp: float | None, index: int) -> _Slide:
    """Check one slide; of its image only the header is read."""
    found = library(adata)
    name = found[0] if found is not None else _slide_name(adata, index)
    what = f'slide "{name}"'
    if adata.n_obs == 0:
        raise ValueError(f"{what} has no spots to embed. Check the filter that was applied to it.")
    if Obs.slide in adata.obs and adata.obs[Obs.slide].nunique() > 1:
        raise ValueError(
            f'obs["{Obs.slide}"] names {adata.obs[Obs.slide].nunique()} slides, but an image belongs to one. Pass a '
            f'list: [adata[adata.obs["{Obs.slide}"] == s].copy() for s in adata.obs["{Obs.slide}"].unique()].'
        )
    xy = check_coordinates(adata, what)
    source = _find_source(adata, what) if image is None else image
    with _opened(source) as opened:
        height, width = opened.height, opened.width
        outside = describe_outside(xy, height=height, width=width)
        if outside is not None:
            raise ValueError(f"{what}: {outside}{_hires_image_hint(adata, height, width)}")
        _refuse_hires_coordinates(adata, xy, max(height, width), what)
        resolution = slide_mpp(adata, mpp=mpp, image=opened)
    return _Slide(adata, name, xy, source, height, width, resolution)


def _slide_name(adata: AnnData, index: int) -> str:
    """Name for messages and the progress bar."""
    return str(adata.obs[Obs.slide].iloc[0]) if Obs.slide in adata.obs and adata.n_obs else str(index)


def _opened(source: Source) -> AbstractContextManager[ImageSource]:
    """Open an image; one that the caller opened stays open."""
    image = open_image(source)
    return nullcontext(image) if image is source else image


def _find_source(adata: AnnData, what: str) -> Source:
    """Take the image that ``uns["spatial"]`` names or holds."""
    found = library(adata)
    record = {} if found is None else found[1]
    path = record.get("metadata", {}).get("source_image_path")
    if path:
        if not os.path.exists(str(path)):
            raise FileNotFoundError(
                f'the image of {what} is not where uns["{SPATIAL}"] says: "{path}" does not exist. '
                "Pass image= with the path of the full-resolution image."
            )
        return str(path)
    hires = record.get("images", {}).get("hires")
    scale = record.get(SCALE_FACTORS, {}).get("tissue_hires_scalef")
    if hires is not None and scale is not None and float(scale) == 1.0:
        return np.asarray(hires)
    detail = "names no image file"
    if hires is not None:
        detail += f" and holds a hires image that is reduced (tissue_hires_scalef {scale})"
    raise ValueError(
        f'no full-resolution image is known for {what}: uns["{SPATIAL}"] {detail}. '
        "Pass image= with its path (JPEG, PNG, TIFF) or a uint8 array of height x width x 3."
    )


def _hires_size(adata: AnnData) -> tuple[int, int, float] | None:
    """Height, width and scale factor of a hires image that is smaller than the full-resolution one."""
    found = library(adata)
    hires = None if found is None else found[1].get("images", {}).get("hires")
    scale = None if found is None else found[1].get(SCALE_FACTORS, {}).get("tissue_hires_scalef")
    if hires is None or scale is None or float(scale) >= 1.0:
        return None
    height, width = np.shape(hires)[:2]
    return height, width, float(scale)


def _hires_image_hint(adata: AnnData, height: int, width: int) -> str:
    """Say so if the image that was passed is the hires image."""
    hires = _hires_size(adata)
    if hires is None or hires[:2] != (height, width):
        return ""
    return f" The image has the size of the hires image (tissue_hires_scalef {hires[2]:.4g}): pass the full-size one."


def _refuse_hires_coordinates(adata: AnnData, xy: NDArray[np.float64], longest: int, what: str) -> None:
    """Refuse coordinates that are pixels of the hires image while the image is the full-resolution one."""
    hires = _hires_size(adata)
    if hires is None or longest < HIRES_FACTOR * max(hires[:2]) or len(xy) < 2:
        return
    height, width, scale = hires
    if describe_outside(xy, height=height, width=width) is not None:
        return
    # A subset of the slide may lie in this corner by right; then its spots do not overlap and it does not fill it.
    found = library(adata)
    diameter = None if found is None else found[1].get(SCALE_FACTORS, {}).get("spot_diameter_fullres")
    if diameter is not None:
        mistaken = float(np.median(KDTree(xy).query(xy, k=2)[0][:, 1])) < OVERLAP * float(diameter)
    else:
        mistaken = bool((np.ptp(xy, axis=0) > np.array([width, height]) / 2).all())
    if mistaken:
        raise ValueError(
            f'{what}: the coordinates in obsm["{SPATIAL}"] look like pixels of the hires image ({width} x {height} px), '
            f"not of the full-resolution one ({longest} px on its longest side). "
            f"Divide them by tissue_hires_scalef ({scale:.4g})."
        )


def _record_used(record: EncoderRecord, patch_um: float | None) -> EncoderRecord:
    """Enter into the record what this call does otherwise than the encoder's publishers."""
    if record.interpolation not in FILTERS:
        record = replace(record, interpolation=DEFAULT_INTERPOLATION)
    return record if patch_um is None else replace(record, mpp=float(patch_um) / record.input_px)


def _patch_width_px(slide: _Slide, record: EncoderRecord, patch_um: float | None) -> float:
    """Width of a patch in pixels of the slide."""
    if patch_um is None and record.mpp is None:
        return float(record.input_px)
    wanted_um = float(patch_um) if patch_um is not None else record.input_px * float(record.mpp or 0)
    if slide.mpp is None:
        raise ValueError(
            f'the resolution of slide "{slide.name}" is not known, but a patch has to be {wanted_um:g} um wide '
            f"(encoder {record.name}). Pass mpp= with the microns per pixel of the full-resolution image, e.g. mpp=0.5."
        )
    width = wanted_um / slide.mpp
    widest = max(slide.height, slide.width, MAX_UPSIZE * record.input_px)
    if not MIN_PATCH_PX <= width <= widest:
        raise ValueError(
            f'a patch of {wanted_um:g} um is {width:.4g} px wide on slide "{slide.name}" ({slide.width} x '
            f"{slide.height} px, {slide.mpp:.4g} um per pixel). Is that resolution right? Pass mpp= with microns per "
            "pixel of the full-resolution image."
        )
    return width


def _encode(
    slide: _Slide, encoder: Encoder, width_px: float, batch_size: int, device: str
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Cut and encode the patches of a slide, batch by batch: spots x dim, and which spots were padded."""
    side, n_spots = encoder.record.input_px, len(slide.xy)
    features = np.empty((n_spots, encoder.record.dim), dtype=np.float32)
    padded = np.zeros(n_spots, dtype=bool)
    progress = progress_bar(total=n_spots, unit="spot", desc=slide.name)
    with _opened(slide.source) as image, progress:
        for start in range(0, n_spots, batch_size):
            centers = slide.xy[start : start + batch_size]
            patches = np.empty((len(centers), side, side, 3), dtype=np.uint8)
            for row, center in enumerate(centers):
                patches[row], padded[start + row] = cut_patch(
                    image, center, width_px=width_px, out_px=side, interpolation=encoder.record.interpolation
                )
            features[start : start + len(centers)] = encoder.encode(patches, device=device)
            progress.update(len(centers))
    return features, padded


def _write(
    adata: AnnData,
    key: str,
    features: NDArray[np.float32],
    padded: NDArray[np.bool_],
    record: EncoderRecord,
    mpp: float | None,
    width_px: float,
) -> None:
    """Write the embedding and its record."""
    entries = dict(adata.uns.get(UNS, {}))
    entries[Uns.embeddings] = {**entries.get(Uns.embeddings, {}), key: record.to_uns()}
    patch_um = {name: value for name, value in entries.get(Uns.patch_um, {}).items() if name != key}
    if mpp is not None:
        entries[Uns.slide_mpp] = float(mpp)
        patch_um[key] = float(width_px * mpp)
    entries[Uns.patch_um] = patch_um
    adata.obsm[key] = features
    adata.obs[Obs.patch_padded] = padded
    adata.uns[UNS] = entries
