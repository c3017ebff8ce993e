"""How a target differs from its references, as a table, before anything is predicted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData

from spahgc._keys import SPATIAL, Obs
from spahgc._slides.split import located_slides, placed_table, placed_tables
from spahgc._slides.tables import is_spatialdata
from spahgc._spots.rows import Spots, as_rows
from spahgc._validate import check_anndata, check_coordinates, check_same_encoder, encoder_records, find_embedding
from spahgc.encoders._layout import context_blocks
from spahgc.pp._bank.references import bank_embedding, bank_pictures, is_bank, open_references
from spahgc.pp._compare.embedding import MAX_REFERENCE_SPOTS, Compared, spread_evenly
from spahgc.pp._compare.limits import advice, large
from spahgc.pp._compare.slides import SlideLook, embedding_of, on_tissue

if TYPE_CHECKING:
    from spatialdata import SpatialData

ALL = "all references"
"""Name of the row that speaks of all references together."""
MIN_SPOTS_OF_A_REFERENCE = 20
"""Spots of a reference that are read however many references there are."""


def compare(
    target: AnnData | SpatialData,
    refs: AnnData | SpatialData | Iterable[AnnData | SpatialData] | str | Path,
    *,
    embedding: str | None = None,
    table_key: str | None = None,
) -> pd.DataFrame:
    """Compare the look of a target with that of its references, before anything is predicted.

    No count is read, neither of the target nor of the references.

    Parameters
    ----------
    target
        The slide that is to be predicted, AnnData or SpatialData, with an embedding and ``obsm["spatial"]``.
    refs
        Slides with the same embedding, or their paths, or a bank of them, or the path of a bank on disk.
    embedding
        Key of the embedding in ``obsm``; ``None`` takes the only one there is.
    table_key
        Key of the table of every SpatialData among them; ``None`` takes the only one.

    Returns
    -------
    A row for each reference and one, ``"all references"``, for all of them together. Values are of the target against the
    reference; those of the last row say how far the target lies outside the range of the references, and are 0 (factors 1)
    inside.

    - ``stain_angle``: larger one of the angles between their haematoxylins and between their eosins, degrees, by Macenko's
      method on a picture of at least 20 um a pixel;
    - ``optical_density``: difference of the mean optical density (natural logarithm) of tissue; above 0 the target is darker;
    - ``brightness``: difference of the mean brightness of tissue, of 255;
    - ``sharpness``: factor between the variances of the Laplacian at 1 um per pixel (medians over spots); below 1 the target is
      more blurred. Read from ``obs["focus"]`` or from the full image;
    - ``resolution``: factor between the microns per pixel of the images from which patches were cut; above 1 the target is coarser;
    - ``distance``: distance of the means of the embeddings, over the median of such distances among the references; it is not
      judged, since the same tissues in other shares make it large too;
    - ``beyond``: share of the target's spots that lie further from the reference than 95 % of the spots of the other references
      do, 0 to 1;
    - ``further``: probability that a spot of the target lies further from the reference than a spot of another reference, 0 to 1;
    - ``p_value``: of the one-sided Mann-Whitney U test of the same (:func:`scipy.stats.mannwhitneyu`). Spots that lie side by
      side are alike, so that it is too small, and nothing is judged by it;
    - ``large``: what differs much, in words, by the limits in ``spahgc.pp._compare.limits``; empty where nothing does;
    - ``advice``: what can be done about it.

    What is not known is NaN: colours without an image, sharpness without the full one, of a bank sharpness, and ``distance`` to
    a single reference, of which nobody knows how slides differ.

    Raises
    ------
    KeyError
        If an embedding or positions are missing.
    ValueError
        If there are no references, or if embeddings were made in different ways.

    See Also
    --------
    spahgc.pl.drift : draws the table.
    spahgc.pp.choose_references : the references that look most like the target.

    Notes
    -----
    Distances are to the fifth-nearest spot in every block of the embedding, each dimension over its standard deviation within
    the references and each block over its median distance between them; the geometric mean over blocks counts. A single
    reference acts as two halves. At most 500 spots of the target and 1,000 of the references are compared.
    Mann and Whitney, Annals of Mathematical Statistics 18, 1947.

    Examples
    --------
    >>> import spahgc as sp
    >>> target, *refs = sp.datasets.simulated(n_slides=3, n_spots=40, n_genes=20)
    >>> for slide in [target, *refs]:
    ...     slide.obsm["X_domains"] = slide.obsm["truth_domains"]
    >>> table = sp.pp.compare(target, refs, embedding="X_domains")
    >>> list(table.index)
    ['P1S2', 'P2S1', 'all references']
    >>> bool(table["beyond"].between(0, 1).all())
    True
    """
    holder, target = target, placed_table(target, table_key, "the target")
    check_anndata(target, "the target")
    spots, looks, record, key = _references(refs, embedding, table_key)
    shown = on_tissue(target, "the target")
    check_coordinates(shown, "the target")
    z, own_record = embedding_of(shown, key, "the target")
    check_same_encoder(dict(own_record), dict(record), key, "the target", "the references")
    if z.shape[1] != spots.z.shape[1]:
        raise ValueError(
            f'obsm["{key}"] has {z.shape[1]} columns in the target and {spots.z.shape[1]} in the references. '
            "Embed all slides with the same encoder."
        )
    return comparison(z, SlideLook.of(shown, holder, "target", "the target", key), spots, looks, record)


def compare_with_bank(spots: Spots, bank: AnnData) -> pd.DataFrame:
    """The same of spots of a target that were read already, and a bank; sharpness and the images of patches are not looked at."""
    key, pictures = bank_embedding(bank), bank_pictures(bank)
    looks = {name: SlideLook.of_picture(picture) for name, picture in pictures.items()}
    record = encoder_records(bank).get(key, {})
    return comparison(spots.z, SlideLook.of_picture(spots.picture), spots_of_bank(bank), looks, record)


def comparison(
    z: Any, look: SlideLook, references: Spots, looks: Mapping[str, SlideLook], record: Mapping[str, Any]
) -> pd.DataFrame:
    """The table of :func:`compare`.

    Parameters
    ----------
    z
        Embedding of the target, spots x dim.
    look
        What else is known of it.
    references
        Spots of all references.
    looks
        What else is known of each, by name.
    record
        Encoder record of the embedding.
    """
    blocks = [(block.start, block.stop) for block in context_blocks(record, z.shape[1])]
    each, together = Compared.of(references, blocks).differences(z)
    rows = {name: _of_images(look, looks.get(name, SlideLook())) | found._asdict() for name, found in each.items()}
    rows[ALL] = _outside(list(rows.values())) | together._asdict()
    table = pd.DataFrame.from_dict(rows, orient="index")
    found = [large(row) for row in rows.values()]
    table["large"] = [", ".join(words) for words in found]
    table["advice"] = [advice(words) for words in found]
    table.index.name = "reference"
    return table


def _of_images(target: SlideLook, reference: SlideLook) -> dict[str, float]:
    """What images tell, of a target and a reference."""
    one, other, unknown = target.colour, reference.colour, float("nan")
    colours = {"stain_angle": unknown, "optical_density": unknown, "brightness": unknown}
    if one is not None and other is not None:
        density = float(one.density.mean() - other.density.mean())
        colours = {
            "stain_angle": one.angle(other),
            "optical_density": density,
            "brightness": one.brightness - other.brightness,
        }
    return colours | {
        "sharpness": _ratio(target.sharpness, reference.sharpness),
        "resolution": _ratio(target.mpp, reference.mpp),
    }


def _ratio(a: float, b: float) -> float:
    return a / b if a > 0 and b > 0 else float("nan")


def _outside(rows: list[dict[str, float]]) -> dict[str, float]:
    """How far a target lies outside the range of its references; 0, or the factor 1, inside."""
    differences = {
        name: _least([row[name] for row in rows]) for name in ("stain_angle", "optical_density", "brightness")
    }
    factors = {name: float(np.exp(_least(np.log([row[name] for row in rows])))) for name in ("sharpness", "resolution")}
    return differences | factors


def _least(differences: list[float] | np.ndarray) -> float:
    """The one nearest to 0 of differences of one sign, 0 if they have both signs, NaN where none is known."""
    known = np.asarray(differences)[np.isfinite(differences)]
    if not len(known):
        return float("nan")
    return 0.0 if known.min() < 0 < known.max() else float(known[np.argmin(np.abs(known))])


def spots_of_bank(bank: AnnData) -> Spots:
    """Embedding, positions and slides of the spots of a bank, and none of their counts."""
    spots = Spots.without_expression(as_rows(bank.obsm[bank_embedding(bank)]), np.asarray(bank.obsm[SPATIAL]))
    return replace(spots, slide=bank.obs[Obs.slide].astype(str).to_numpy())


def _references(
    refs: Any, embedding: str | None, table_key: str | None
) -> tuple[Spots, dict[str, SlideLook], Mapping[str, Any], str]:
    """Some spots of every reference, what else is known of each, the record of their embedding, and its key."""
    refs = open_references(refs)
    if is_bank(refs):
        key = bank_embedding(refs)
        if embedding not in (None, key):
            raise ValueError(f'the bank was made with embedding="{key}", embedding="{embedding}" was asked for.')
        looks = {name: SlideLook.of_picture(picture) for name, picture in bank_pictures(refs).items()}
        return spots_of_bank(refs), looks, encoder_records(refs).get(key, {}), key
    items = [refs] if isinstance(refs, AnnData) or is_spatialdata(refs) else refs
    items = list(items) if isinstance(items, Iterable) and not isinstance(items, str | bytes | dict) else items
    slides = located_slides(placed_tables(items, table_key, "reference"))
    key = find_embedding(next(iter(slides.values()))[1], embedding, "the references")
    looks, parts, record = {}, [], None
    n_spots = max(MAX_REFERENCE_SPOTS // len(slides), MIN_SPOTS_OF_A_REFERENCE)
    for name, (place, slide) in slides.items():
        label = f'reference "{name}"'
        slide = on_tissue(slide, label)
        z, found = embedding_of(slide, key, label)
        if record is None:
            record, first = found, (z.shape[1], label)
        check_same_encoder(dict(found), dict(record), key, label, first[1])
        if z.shape[1] != first[0]:
            raise ValueError(
                f'obsm["{key}"] has {z.shape[1]} columns in {label} and {first[0]} in {first[1]}. Embed all slides with '
                "the same encoder."
            )
        chosen = spread_evenly(len(z), n_spots)
        looks[name] = SlideLook.of(slide, items[place], name, label, key)
        parts.append((z[chosen], check_coordinates(slide, label)[chosen], np.full(len(chosen), name)))
    z, xy, names = (np.concatenate([part[i] for part in parts]) for i in range(3))
    return replace(Spots.without_expression(z, xy), slide=names), looks, record or {}, key
