"""H&E patches around every spot, and what an encoder sees in them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

from spahgc._keys import SPATIAL, UNS, Obs, Obsm, Uns
from spahgc._settings import hint_written, resolve_device
from spahgc._slides.tables import with_table
from spahgc._slides.totals import remember_library_sizes
from spahgc._validate import check_writable_folder, encoder_records, has_context
from spahgc.pp._embed.asked import Asked
from spahgc.pp._embed.columns import Columns
from spahgc.pp._embed.context import Context, as_context
from spahgc.pp._embed.encode import EmbeddingConfig, SlidePatches, encode_slide
from spahgc.pp._embed.enlarged import describe_image, warn_of_enlarged
from spahgc.pp._embed.inputs import check_numbers, input_slides
from spahgc.pp._embed.samples import check_samples
from spahgc.pp._embed.slide_image import Source
from spahgc.pp._embed.stain import PatchFunction

if TYPE_CHECKING:
    from PIL.Image import Image
    from spatialdata import SpatialData
    from torch import Tensor, nn

    from spahgc.encoders import Encoder


def embed(
    data: AnnData | SpatialData | Sequence[AnnData | SpatialData],
    *,
    encoder: str | tuple[nn.Module, Callable[[Image], Tensor]] | Encoder = "uni",
    image: Source | None = None,
    mpp: float | None = None,
    patch_um: float | None = None,
    context: Context | bool | None = None,
    dense: bool = False,
    samples: int = 1,
    stain_normalization: str | PatchFunction | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    key_added: str | None = None,
    batch_size: int = 64,
    n_workers: int | None = None,
    device: str | None = None,
    allow_upsampling: bool = False,
    resume: str | os.PathLike[str] | None = None,
    table_key: str | None = None,
    image_key: str | None = None,
    coordinate_system: str | None = None,
    copy: bool = False,
) -> AnnData | SpatialData | list[AnnData | SpatialData] | None:
    """Embed the H&E patch around every spot with an image encoder.

    A patch is a square centred on the spot, `input_px * mpp` microns of the encoder's record wide on the tissue,
    whatever the resolution of the slide. What lies outside the image is white. Beside the encoder's output for it stand,
    under a key of their own, what it makes of wider patches around the same centre and its intermediate levels, which are
    worth more than any method (``docs/speed.md``). Whoever is handed the key of the embedding takes both.

    Parameters
    ----------
    data
        One slide: an AnnData with spot centres (x, y) in pixels of the full-resolution image in ``obsm["spatial"]``,
        or a SpatialData whose table annotates shapes; or a list of slides, which are embedded one after another with
        the encoder loaded once.
    encoder
        Name of an encoder (:func:`spahgc.encoders.list_encoders`), an own ``(module, transform)``, or an
        :class:`~spahgc.encoders.Encoder`.
    image
        The full-resolution image: path, uint8 array of height x width x 3, or :class:`~spahgc.image.ImageSource`.
        ``None`` takes the image of the SpatialData, or the file that ``uns["spatial"]`` names. Where none is named it
        takes the hires image, if its pixels are as fine as the encoder's.
    mpp
        Microns per pixel of the slide. ``None`` takes them from the SpatialData, the scale factors, the image file, or
        the pitch of Visium's array.
    patch_um
        Width of a patch, microns, instead of the encoder's own.
    context
        What an embedding shows beside the encoder's output for the patch. ``None``: patches of 448 and 1,344 um, and for
        each the intermediate levels of networks that show them, 3 passes through the network a spot; nothing, for an
        encoder with a context of its own. ``False``: nothing. ``True``: patches of twice and four times the width, levels,
        and an average over four turns, 12 passes. A :class:`Context`: what it says.
    dense
        For points that lie denser than patches, such as cells or a grid of 20 um: they share tiles as wide as a patch
        and 64 um apart (0.4 to 0.6 of their width), and one pass of the encoder serves all points of a tile. A point
        gets the mean over its area, by bilinear interpolation, of the network's last map (the patch tokens of a
        transformer) and of the levels of the context; beside it stands all that is known of its tile, with the wider
        patches around the tile's middle. The area is the outline in ``obsm["polygons"]``, where there is one, else the
        circle of the spot's diameter. References need the same: where spots lie farther apart than tiles, each has a
        tile around itself. What it costs in accuracy stands in ``docs/howto/cells.md``.
    samples
        Patches of the encoder's own width within a spot, whose numbers are averaged: 1, or from 4 on its centre and a ring
        at two thirds of its radius, at a pass each. What it is worth stands in ``docs/speed.md``.
    stain_normalization
        ``None`` leaves the colours of the patches as they were scanned. ``"macenko"`` exchanges a slide's haematoxylin
        and eosin for those of a published reference, ``"reinhard"`` moves the mean and spread of its colours to those
        of one; both are estimated once a slide, from the tissue of a small image of it. Or a function that makes of
        a patch (uint8, height x width x 3) one of the same shape; its name is what tells embeddings apart.
    checkpoint
        File with the encoder's weights, instead of the published ones.
    key_added
        Key of the embedding in ``obsm``; ``None`` makes ``X_<encoder>``.
    batch_size
        Number of patches that are in memory, and go through the encoder, at once; while it works those of the next batch
        are cut. A CPU gets 8 at a time, or one for each of its threads, which is faster and takes less memory. It changes
        the result by rounding only.
    n_workers
        Threads that cut patches, which changes no number; three batches are in memory at most. ``None`` takes the
        processors that this process may use less those of an encoder that runs on the CPU, at least 1 and at most 8.
        An own ``image`` is read by several threads at once, an own function of `stain_normalization` gets one patch at
        a time.
    device
        Torch device; ``None`` takes the setting, or the first accelerator there is.
    allow_upsampling
        Go on where only the hires image is there and too coarse for the encoder; its patches are enlarged. Cells are not
        seen then; what such an embedding is worth stands in ``docs/howto/visium.md``. An encoder that was trained on
        photographs (``efficientnet_lite0``) goes on without, and says so.
    resume
        Folder in which every finished batch is kept. A run that was stopped, even killed, goes on from there when it is
        called again with the same inputs: no spot is computed twice, and the result is the same. What was made from
        other inputs is not taken. It holds as much as the embeddings; delete it when they are saved. ``None`` keeps
        nothing.
    table_key, image_key, coordinate_system
        Which table and image of a SpatialData are meant, and in which coordinate system spots and image meet. Needed
        only where there are several.
    copy
        Return a changed copy (a list of them for a list) instead of writing into `data`. A copy of a SpatialData shares
        all but its table.

    Returns
    -------
    ``None``, or the copy. Written are, when the slide is complete, into the AnnData or the table of the SpatialData

    - ``obsm["X_<encoder>"]``: the encoder's output for the patch, float32, spots x dim;
    - ``obsm["X_<encoder>_context"]``: what an embedding shows beside it, float32, spots x
      (patches * (dim + 2 * channels of the levels) - dim); only with a context;
    - ``obs["spahgc_patch_padded"]``: True where a patch reaches past the image;
    - ``obs["spahgc_context_padded"]``: True where one of a spot's patches of several widths does; only if there are;
    - ``obsm["spatial"]`` of a SpatialData's table, where it is missing: spot centres (x, y), pixels of its image;
    - ``uns["spahgc"]["embeddings"]["X_<encoder>"]``: the encoder record; its `context` tells the columns, and its
      `stain` names the normalisation where there was one;
    - ``uns["spahgc"]["slide_mpp"]``: microns per pixel of the slide, if known; of a SpatialData also
      ``"slide_image"``, the key of the image that they belong to;
    - ``obsm["X_<encoder>"]`` with `dense`: means of the last map over the area, spots x its channels; and beside, means of
      the levels, then output, levels and wider patches of the tile, spots x (channels of the levels + patches * (dim + 2 *
      channels of the levels));
    - ``uns["spahgc"]["areas"]["X_<encoder>"]`` with `dense` or `samples`: ``diameter_px`` of the circle of a spot,
      ``n_outlines``, spots whose outline was taken instead, and ``n_tiles``;
    - ``uns["spahgc"]["patch_um"]["X_<encoder>"]``: width of a patch at scale 1, microns, if known;
    - ``uns["spahgc"]["patch_image"]["X_<encoder>"]``: what the patches were cut from: ``image``, in words, ``enlarged``,
      how many times for the narrowest patch (below 1: reduced), and ``mpp``, its microns per pixel, if known;
    - ``uns["spahgc"]["stain"]["X_<encoder>"]``: what was estimated of the slide's stain, if it was normalised.

    Raises
    ------
    TypeError
        If `data` is no AnnData, SpatialData or list of them, `image` is no image, `context` is no context, or
        `stain_normalization` is neither a name nor a function.
    KeyError
        If ``obsm["spatial"]`` is missing, or a table, an image or a coordinate system of a SpatialData.
    FileNotFoundError
        If the image is missing.
    ValueError
        If no image is known or only one that is too coarse, the resolution is needed but unknown or contradictory,
        spots lie outside the image, the key is taken by a part of another embedding, the image cannot be H&E (what lies around its first spots is black, grey and dark,
        or lacks the light of one colour, as fluorescence does), the encoder cannot show the depths of the context or has
        a context of its own, a slide's stains cannot be told, or the encoder shows no map for `dense`.
    OSError
        If the folder of `resume` cannot be written.

    Warns
    -----
    UserWarning
        If an image is enlarged more than twice for the narrowest patch.

    Examples
    --------
    >>> import spahgc as sp
    >>> (slide,) = sp.datasets.simulated(1, n_patients=1, n_spots=40, n_genes=20)
    >>> sp.pp.embed(slide, encoder="efficientnet_lite0")
    >>> slide.obsm["X_efficientnet_lite0"].shape, slide.obsm["X_efficientnet_lite0_context"].shape
    ((40, 1280), (40, 5632))

    Another context, 2 scales of the output and of its last 3 levels (40, 112 and 320 channels):

    >>> context = sp.pp.Context(scales=(1, 2), depths=3, rotations=1)
    >>> sp.pp.embed(slide, encoder="efficientnet_lite0", context=context)
    >>> slide.obsm["X_efficientnet_lite0"].shape, slide.obsm["X_efficientnet_lite0_context"].shape
    ((40, 1280), (40, 3168))
    >>> slide.uns["spahgc"]["embeddings"]["X_efficientnet_lite0"]["context"]
    'scales 1,2; levels 40,112,320; rotations 1'
    """
    from spahgc.encoders import describe_encoder, load_encoder

    inputs = input_slides(data, image, table_key=table_key, image_key=image_key, coordinate_system=coordinate_system)
    requested = None if context is None else as_context(context)
    check_numbers(batch_size, n_workers, mpp, patch_um)
    asked = Asked(
        image, mpp, requested, dense, check_samples(samples), key_added, patch_um, allow_upsampling, stain_normalization,
        batch_size, n_workers,
    )  # fmt: skip
    record = describe_encoder(encoder)
    slides = asked.images(inputs, record)
    areas = asked.areas(inputs, slides)
    if record is not None:
        asked.check(inputs, slides, record)
    folder = None if resume is None else check_writable_folder(resume)
    device = resolve_device(device)
    loaded = load_encoder(encoder, checkpoint=None if checkpoint is None else os.fspath(checkpoint), device=device)
    if record is None:  # what it needs of an image is only known now
        slides = asked.images(inputs, loaded.record)
    asked.check(inputs, slides, loaded.record)
    config = asked.config(loaded, device, folder)
    patches = [asked.patches(*pair, config) for pair in zip(slides, areas, strict=True)]
    for of_slide in patches:
        warn_of_enlarged(of_slide.slide, of_slide.cutter)

    results = []
    for each, of_slide in zip(inputs, patches, strict=True):
        features, padded = encode_slide(of_slide, config)
        table = each.table.copy() if copy else each.table
        if each.spots is not None and SPATIAL not in table.obsm:
            table.obsm[SPATIAL] = of_slide.slide.xy
        _write(table, features, padded, of_slide, config, None if each.spots is None else each.spots.image_key)
        hint_written(table, config.key)
        if copy:
            results.append(with_table(each.data, table, table_key))
    if not copy:
        return None
    return results if isinstance(data, list | tuple) else results[0]


def _describe_areas(patches: SlidePatches) -> dict[str, float | int] | None:
    """What the slide keeps of the areas of its spots, where they mattered."""
    if patches.areas is None:
        return None
    return patches.areas.to_uns() | ({} if patches.tiles is None else {"n_tiles": len(patches.tiles)})


def _write(
    adata: AnnData,
    features: Columns,
    padded: NDArray[np.bool_],
    patches: SlidePatches,
    config: EmbeddingConfig,
    image_key: str | None,
) -> None:
    """Write the embedding, its record, and what is known of the slide now."""
    key, slide, cutter = config.key, patches.slide, patches.cutter
    before = encoder_records(adata).get(key, {})
    entries = {name: value for name, value in adata.uns.get(UNS, {}).items() if name != Uns.slide_image}
    entries[Uns.embeddings] = {**entries.get(Uns.embeddings, {}), key: config.record.to_uns()}
    of_key = {
        Uns.areas: _describe_areas(patches),
        Uns.patch_um: None if slide.mpp is None else float(cutter.width_px * slide.mpp),
        Uns.patch_image: describe_image(slide, cutter),
        Uns.stain: None if cutter.normalizer is None else cutter.normalizer.to_uns(),
    }
    for name, value in of_key.items():
        others = {other: known for other, known in entries.get(name, {}).items() if other != key}
        entries[name] = others if value is None else {**others, key: value}
    for name in (Uns.areas, Uns.stain):
        if not entries[name]:
            del entries[name]
    if slide.slide_mpp is not None:
        entries[Uns.slide_mpp] = float(slide.slide_mpp)
        if image_key is not None:
            entries[Uns.slide_image] = image_key
    adata.obsm[key] = features.own
    if features.beside.shape[1]:
        adata.obsm[Obsm.context(key)] = features.beside
    elif has_context(before) and Obsm.context(key) in adata.obsm:  # of an earlier embedding under the same key
        del adata.obsm[Obsm.context(key)]
    adata.obs[Obs.patch_padded] = padded[:, 0]
    if padded.shape[1] > 1:
        adata.obs[Obs.context_padded] = padded.any(axis=1)
    elif Obs.context_padded in adata.obs and not any(map(has_context, entries[Uns.embeddings].values())):
        del adata.obs[Obs.context_padded]  # nothing is there any more of which it tells
    adata.uns[UNS] = entries
    remember_library_sizes(adata)
