"""The references, among many, that look most like a target."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData

from spahgc._slides.measured import padded_around, padded_spots
from spahgc._slides.split import located_slides, placed_table, placed_tables, shared_spots
from spahgc._slides.stored import stored_slides
from spahgc._slides.tables import is_spatialdata
from spahgc._spots.rows import Spots
from spahgc._validate import check_coordinates, check_same_encoder, find_embedding
from spahgc.encoders._layout import context_blocks
from spahgc.pp._bank.identity import Look
from spahgc.pp._bank.references import check_target_apart, is_bank, target_look
from spahgc.pp._compare.embedding import RANGE_QUANTILE, Compared, spread_evenly
from spahgc.pp._compare.slides import embedding_of, on_tissue

if TYPE_CHECKING:
    from spatialdata import SpatialData

N_REFERENCES = 5
"""References that are chosen where nothing else is said."""
N_CANDIDATE_SPOTS = 200
"""Spots of a candidate that are compared with, evenly in their order: the same of each, so that none is near for its size."""
MAX_CANDIDATE_SPOTS = 20_000
"""Spots of all candidates together that are held; of more than 100 candidates fewer each are compared."""
MIN_CANDIDATE_SPOTS = 20
"""Spots of a candidate that are compared with however many candidates there are."""


def choose_references(
    target: AnnData | SpatialData,
    candidates: Iterable[AnnData | SpatialData],
    *,
    n: int = N_REFERENCES,
    embedding: str | None = None,
    table_key: str | None = None,
) -> tuple[list[AnnData], pd.DataFrame]:
    """Choose the slides that look most like a target, to be its references.

    No count is read, neither of the target nor of the candidates: chosen is by the embedding alone.

    Parameters
    ----------
    target
        The slide that is to be predicted, AnnData or SpatialData, with an embedding and ``obsm["spatial"]``.
    candidates
        Measured slides with the same embedding, AnnData or SpatialData. An object that holds several is taken apart.
    n
        How many to choose; all of them where there are no more.
    embedding
        Key of the embedding in ``obsm``; ``None`` takes the only one there is.
    table_key
        Key of the table of every SpatialData among them; ``None`` takes the only one.

    Returns
    -------
    The chosen slides, the nearest first, as :func:`spahgc.tl.predict` takes them; and a table of all candidates, the nearest
    first, with

    - ``distance``: median over the target's spots of their distance to the candidate, in median distances between the candidates;
    - ``within``: share of the target's spots within the range of the candidate's others: no further from it than 95 % of the
      spots of all candidates are from other slides, 0 to 1;
    - ``chosen``: whether it is among the ``n`` nearest;
    - ``reason``: the same in words.

    Raises
    ------
    KeyError
        If an embedding or positions are missing.
    TypeError
        If ``candidates`` is a bank, whose slides stay together.
    ValueError
        If ``n`` is no positive whole number, embeddings were made in different ways, or the target is among the candidates.

    See Also
    --------
    spahgc.tl.predict : with ``n_references=`` chooses and predicts in one step, and writes down what was chosen.
    spahgc.pp.compare : how target and references differ.

    Examples
    --------
    >>> import spahgc as sp
    >>> target, *candidates = sp.datasets.simulated(n_slides=5, n_spots=40, n_genes=20)
    >>> for slide in [target, *candidates]:
    ...     slide.obsm["X_domains"] = slide.obsm["truth_domains"]
    >>> refs, table = sp.pp.choose_references(target, candidates, n=2, embedding="X_domains")
    >>> len(refs), int(table["chosen"].sum())
    (2, 2)
    """
    check_number(n, "n=")
    candidates = stored_slides(candidates, "candidate")
    if is_bank(candidates) or isinstance(candidates, str):
        raise TypeError(
            "the candidates are a bank of references, whose slides stay together. Pass the slides themselves as a list."
        )
    target = placed_table(target, table_key, "the target")
    items: Any = [candidates] if isinstance(candidates, AnnData) or is_spatialdata(candidates) else candidates
    slides = {name: slide for name, (_, slide) in located_slides(placed_tables(items, table_key, "candidate")).items()}
    key = find_embedding(next(iter(slides.values())), embedding, "the candidates")
    shown = on_tissue(target, "the target")
    centres = check_coordinates(shown, "the target")
    z, record = embedding_of(shown, key, "the target")
    samples = _samples(slides, Spots.without_expression(z, centres), key, record)
    blocks = [(block.start, block.stop) for block in context_blocks(record, z.shape[1])]
    table = _table(z, samples, blocks, int(n))
    chosen = [slides[str(name)] for name in table.index[table["chosen"]]]
    _check_apart(shown, z, key, record, {str(name): slides[str(name)] for name in table.index[table["chosen"]]})
    return chosen, table


def check_number(n: object, label: str) -> None:
    """Refuse what is no number of references."""
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
        raise ValueError(f"{label}{n!r} is no number of references. Pass a whole number of at least 1.")


def _samples(slides: dict[str, AnnData], target: Spots, key: str, record: Any) -> Spots:
    """As many spots of every candidate; their counts are not read."""
    part = int(np.clip(MAX_CANDIDATE_SPOTS // len(slides), MIN_CANDIDATE_SPOTS, N_CANDIDATE_SPOTS))
    z, xy, names = [], [], []
    for name, slide in slides.items():
        label = f'candidate "{name}"'
        slide = on_tissue(slide, label)
        own, found = embedding_of(slide, key, label)
        check_same_encoder(dict(found), dict(record), key, label, "the target")
        if own.shape[1] != target.z.shape[1]:
            raise ValueError(
                f'obsm["{key}"] has {own.shape[1]} columns in {label} and {target.z.shape[1]} in the target. Embed all slides with the '
                "same encoder."
            )
        centres = check_coordinates(slide, label)
        shared = shared_spots(target.xy, target.z, centres, own)
        if len(shared):
            raise ValueError(
                f'the target is also among the references: {len(shared)} of its spots stand in "{name}". Their own '
                "expression would reach their prediction. Leave that slide out of the references."
            )
        chosen = spread_evenly(len(own), part)
        z.append(own[chosen])
        xy.append(centres[chosen])
        names.append(np.full(len(chosen), name))
    spots = Spots.without_expression(np.concatenate(z), np.concatenate(xy))
    return replace(spots, slide=np.concatenate(names))


def _table(z: np.ndarray, samples: Spots, blocks: list[tuple[int, int]], n: int) -> pd.DataFrame:
    """Distance of the target to every candidate, the nearest first, and which are chosen."""
    space = Compared.of(samples, blocks)
    target, reach = space.placed(z), float(np.quantile(space.own, RANGE_QUANTILE))
    rows = {}
    for name in space.names:
        of_it = (samples.z[samples.slide == name] - space.centre) * space.weight
        distances = space.distances(target, of_it)
        rows[name] = {"distance": float(np.median(distances)), "within": float((distances <= reach).mean())}
    table = pd.DataFrame.from_dict(rows, orient="index").sort_values("distance", kind="stable")
    table.index.name = "reference"
    table["chosen"] = np.arange(len(table)) < n
    table["reason"] = [
        f"number {place} of {len(table)} by look: {row.distance:.2f} away, {row.within:.0%} of the target's spots within reach"
        for place, row in enumerate(table.itertuples(), 1)
    ]
    return table


def _check_apart(target: AnnData, z: np.ndarray, key: str, record: Any, chosen: dict[str, AnnData]) -> None:
    """Refuse the target among those that were chosen, to which it is nearest of all."""
    spots = Spots.without_expression(z, check_coordinates(target, "the target"))
    looks: dict[str, Look] = {}
    for name, slide in chosen.items():
        own, found = embedding_of(slide, key, f'candidate "{name}"')
        others = Spots.without_expression(own, check_coordinates(slide, f'candidate "{name}"'))
        looks[name] = target_look(others, found, padded_spots(slide), padded_around(slide))
    check_target_apart(target_look(spots, record, padded_spots(target), padded_around(target)), looks)
