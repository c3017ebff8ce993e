"""Patches that somebody else cut, through an encoder."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray
from PIL import Image

from spahgc._keys import UNS, Obsm, Uns
from spahgc._settings import limited_threads, progress_bar
from spahgc.encoders._layout import NO_LEVELS
from spahgc.encoders._record import key_name
from spahgc.image._resample import FILTERS
from spahgc.pp._embed.encode import encode_batch
from spahgc.pp._embed.patches import record_used

if TYPE_CHECKING:
    from spahgc.encoders import Encoder


def embed_patches(
    adata: AnnData, batches: Iterable[NDArray[np.uint8]], *, encoder: Encoder, patch_um: float, device: str, label: str
) -> str:
    """Embed given patches, one a spot and in the order of the spots, and return the key of the embedding.

    Parameters
    ----------
    adata
        The slide, into which embedding and record are written.
    batches
        Patches, n x side x side x 3, uint8. Where the encoder takes another side, they are resized by its own filter: it
        sees the tissue of the patch, whatever width its publishers cut.
    encoder
        A loaded encoder.
    patch_um
        Width of the patches, microns.
    device
        Torch device.
    label
        How the progress bar calls the slide.

    Raises
    ------
    ValueError
        If there are more or fewer patches than spots.
    """
    used = replace(encoder, record=record_used(encoder.record, patch_um, ""))
    key = Obsm.embedding(key_name(used.record.name))
    features = []
    with limited_threads(inf), progress_bar(total=adata.n_obs, unit="patch", desc=label) as bar:
        for batch in batches:
            patches = _resized(batch, used.record.input_px, used.record.interpolation)
            features.append(
                encode_batch(used, patches, device=device, levels=NO_LEVELS, rotations=1, turn_output=False)
            )
            bar.update(len(batch))
    n_patches = sum(map(len, features))
    if n_patches != adata.n_obs:
        raise ValueError(f"{label} has {adata.n_obs} spots and {n_patches} patches. Each spot needs one.")
    adata.obsm[key] = np.concatenate(features)
    entries = dict(adata.uns.get(UNS, {}))
    entries[Uns.embeddings] = {**entries.get(Uns.embeddings, {}), key: used.record.to_uns()}
    entries[Uns.patch_um] = {**entries.get(Uns.patch_um, {}), key: float(patch_um)}
    adata.uns[UNS] = entries
    return key


def _resized(patches: NDArray[np.uint8], side: int, interpolation: str) -> NDArray[np.uint8]:
    if patches.shape[1:3] == (side, side):
        return patches
    filter_ = FILTERS[interpolation]
    return np.stack([np.asarray(Image.fromarray(patch).resize((side, side), filter_)) for patch in patches])
