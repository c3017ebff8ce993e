"""H&E patches around every spot, and what an encoder sees in them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

from spahgc._keys import SPATIAL, UNS, Obs, Obsm, Uns
from spahgc._settings import progress_bar, resolve_device
from spahgc.image import cut_patch
from spahgc.image._resample import FILTERS
from spahgc.pp._context import Context, as_context, refuse_own_context, with_context
from spahgc.pp._slide_image import SlideImage, Source, check_slide, opened_image

if TYPE_CHECKING:
    from torch import Tensor, nn

    from spahgc.encoders import Encoder, EncoderRecord
    from spahgc.encoders._depths import Levels

DEFAULT_INTERPOLATION = "bicubic"
"""Filter for encoders whose record names none that exists here."""
MIN_PATCH_PX = 4.0
"""Width in slide pixels below which a patch shows nothing."""
MAX_UPSIZE = 4
"""A patch may be wider than the whole slide up to this many times the encoder's input; more is a wrong unit."""


def embed(
    data: AnnData | Sequence[AnnData],
    *,
    encoder: str | tuple[nn.Module, Callable[[Any], Tensor]] | Encoder = "uni",
    image: Source | None = None,
    mpp: float | None = None,
    patch_um: float | None = None,
    context: Context | bool | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    key_added: str | None = None,
    batch_size: int = 64,
    device: str | None = None,
    copy: bool = False,
) -> AnnData | list[AnnData] | None:
    """Embed the H&E patch around every spot with an image encoder.

    A patch is a square centred on the spot, `input_px * mpp` microns of the encoder's record wide on the tissue,
    whatever the resolution of the slide. What lies outside the image is white. With a `context`, wider patches around
    the same centre, intermediate levels of the network and an average over the patch's turns follow in further columns.

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
    context
        ``None`` embeds the patch alone. ``True`` adds the recommended context, a :class:`Context` another one: for
        every scale the encoder's output, then mean and standard deviation over the plane of every intermediate level.
        It takes as many passes through the network as :class:`Context` says, 12 instead of 1 as recommended.
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

    - ``obsm["X_<encoder>"]``: the embedding, float32, spots x dim; with a context spots x
      (scales * (dim + 2 * channels of the levels)), its first dim columns those of the patch alone;
    - ``obs["spahgc_patch_padded"]``: True where a patch reaches past the image;
    - ``obs["spahgc_context_padded"]``: True where one of a spot's patches of several scales does; only if there are;
    - ``uns["spahgc"]["embeddings"]["X_<encoder>"]``: the encoder record; its `context` tells the columns;
    - ``uns["spahgc"]["slide_mpp"]``: microns per pixel of the slide, if known;
    - ``uns["spahgc"]["patch_um"]["X_<encoder>"]``: width of a patch at scale 1, microns, if known.

    Raises
    ------
    TypeError
        If `data` is no AnnData or list of them, `image` is no image, or `context` is no context.
    KeyError
        If ``obsm["spatial"]`` is missing.
    FileNotFoundError
        If the image is missing.
    ValueError
        If no image is known, the resolution is needed but unknown or contradictory, spots lie outside the image, or
        the encoder cannot show the depths of the context or has a context of its own.

    Examples
    --------
    >>> import spahgc as sp
    >>> (slide,) = sp.datasets.simulated(1, n_patients=1, n_spots=40, n_genes=20)
    >>> sp.pp.embed(slide, encoder="efficientnet_lite0")
    >>> slide.obsm["X_efficientnet_lite0"].shape
    (40, 1280)

    With a context, 2 scales of the output and of its last 3 levels (40, 112 and 320 channels):

    >>> context = sp.pp.Context(scales=(1, 2), depths=3, rotations=1)
    >>> sp.pp.embed(slide, encoder="efficientnet_lite0", context=context)
    >>> slide.obsm["X_efficientnet_lite0"].shape
    (40, 4448)
    >>> slide.uns["spahgc"]["embeddings"]["X_efficientnet_lite0"]["context"]
    'scales 1,2; levels 40,112,320; rotations 1'
    """
    from spahgc.encoders import describe_encoder, load_encoder
    from spahgc.encoders._depths import find_levels, refuse_oblong_input

    adatas = _as_list(data, image)
    wanted = as_context(context)
    _check_numbers(batch_size, mpp, patch_um)
    slides = [check_slide(adata, image, mpp, index) for index, adata in enumerate(adatas)]
    known = describe_encoder(encoder)
    if known is not None:
        refuse_own_context(known, wanted)
        for slide in slides:
            _patch_width_px(slide, known, patch_um, wanted)
    device = resolve_device(device)
    loaded = load_encoder(encoder, checkpoint=None if checkpoint is None else os.fspath(checkpoint), device=device)
    refuse_own_context(loaded.record, wanted)
    used = replace(loaded, record=_record_used(loaded.record, patch_um))
    key = Obsm.embedding(used.record.name) if key_added is None else key_added
    widths = [_patch_width_px(slide, used.record, patch_um, wanted) for slide in slides]
    if wanted.rotations > 1:
        refuse_oblong_input(used, device=device)
    levels = find_levels(used, wanted.depths, device=device)
    record = with_context(used.record, wanted, levels.widths)

    results = []
    for slide, width_px in zip(slides, widths, strict=True):
        features, padded = _encode(slide, used, width_px, wanted, levels, batch_size, device)
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


def _record_used(record: EncoderRecord, patch_um: float | None) -> EncoderRecord:
    """Enter into the record what this call does otherwise than the encoder's publishers."""
    if record.interpolation not in FILTERS:
        record = replace(record, interpolation=DEFAULT_INTERPOLATION)
    return record if patch_um is None else replace(record, mpp=float(patch_um) / record.input_px)


def _patch_width_px(slide: SlideImage, record: EncoderRecord, patch_um: float | None, context: Context) -> float:
    """Width of the patch of scale 1 in pixels of the slide; wider ones may reach past the slide as far as they like."""
    narrowest = min(context.scales)
    if patch_um is None and record.mpp is None:
        _refuse_narrow(record.input_px, narrowest, slide.name)
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
    _refuse_narrow(width, narrowest, slide.name)
    return width


def _refuse_narrow(width_px: float, scale: float, name: str) -> None:
    """Refuse a context whose narrowest patch shows nothing."""
    if width_px * scale < MIN_PATCH_PX:
        raise ValueError(
            f'at scale {scale:g} of the context a patch is {width_px * scale:.3g} px wide on slide "{name}", less than '
            f"the {MIN_PATCH_PX:g} px that show anything. Pass scales of at least {MIN_PATCH_PX / width_px:.3g}."
        )


def _encode(
    slide: SlideImage,
    encoder: Encoder,
    width_px: float,
    context: Context,
    levels: Levels,
    batch_size: int,
    device: str,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Cut and encode the patches of a slide, batch by batch.

    Returns
    -------
    Features, spots x columns, scale by scale; and which patches were padded, spots x scales.
    """
    side, n_spots, n_scales = encoder.record.input_px, len(slide.xy), len(context.scales)
    of_scale = encoder.record.dim + levels.n_columns
    features = np.empty((n_spots, n_scales * of_scale), dtype=np.float32)
    padded = np.zeros((n_spots, n_scales), dtype=bool)
    progress = progress_bar(total=n_spots * n_scales, unit="patch", desc=slide.name)
    with opened_image(slide.source) as image, progress:
        for start in range(0, n_spots, batch_size):
            centers = slide.xy[start : start + batch_size]
            # All scales of a batch before the next one: they show the same part of the image.
            for place, scale in enumerate(context.scales):
                patches = np.empty((len(centers), side, side, 3), dtype=np.uint8)
                for row, center in enumerate(centers):
                    patches[row], padded[start + row, place] = cut_patch(
                        image,
                        center,
                        width_px=width_px * scale,
                        out_px=side,
                        interpolation=encoder.record.interpolation,
                    )
                # The first output stays upright: it is the embedding without a context.
                features[start : start + len(centers), place * of_scale : (place + 1) * of_scale] = encoder.encode(
                    patches, device=device, levels=levels, rotations=context.rotations, turn_output=place > 0
                )
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
    adata.obs[Obs.patch_padded] = padded[:, 0]
    if padded.shape[1] > 1:
        adata.obs[Obs.context_padded] = padded.any(axis=1)
    adata.uns[UNS] = entries
