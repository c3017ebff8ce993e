"""Labels and values of references for a slide that has none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, issparse

from spahgc._keys import UNKNOWN, UNS, Obs, Uns
from spahgc._linear.kernel import even_rows
from spahgc._linear.labels import (
    VALUE_EXPERTS,
    as_probabilities,
    blend_labels,
    label_scores,
    prove_labels,
    prove_values,
    say_values,
)
from spahgc._linear.low_rank import ImageAxes
from spahgc._linear.trust import Support
from spahgc._logging import warn
from spahgc._parameters import PRESETS
from spahgc._settings import limited_threads
from spahgc._slides.measured import padded_around, padded_spots
from spahgc._slides.patients import patients_of
from spahgc._slides.resolution import known_mpp
from spahgc._slides.split import placed_table, placed_tables, shared_spots, split_slides
from spahgc._slides.tables import with_table
from spahgc._slides.tissue import TissueRows, spots_on_tissue
from spahgc._spots.rows import Spots, in_float, slide_or_half
from spahgc._spots.scale import spacings_um, steps_of
from spahgc._validate import (
    check_anndata,
    check_coordinates,
    check_same_encoder,
    embedding_matrix,
    encoder_records,
    find_embedding,
    quoted,
)
from spahgc.encoders._layout import context_blocks
from spahgc.pp._bank.references import check_target_apart, target_look, target_spots
from spahgc.pp._register.picture import Picture
from spahgc.pp._register.slides import stored_picture
from spahgc.tl._placed_labels import Placing
from spahgc.tl._trust_record import LOW_SUPPORT

if TYPE_CHECKING:
    from spatialdata import SpatialData

MAX_SPOTS = 20_000
"""Labelled reference spots, evenly from each slide, of which the experts learn: with more they would only take longer."""
MAX_LABELS = 200
"""Labels of a key; more are names of spots."""
MIN_OF_LABEL = 2
"""Spots that a label needs."""
SUM_OF_SHARES = 1e-3
"""How far rows may sum to something else than 1 and still be shares."""


@dataclass(frozen=True, eq=False)
class References:
    """Spots of all references, without expression."""

    spots: Spots
    tables: Mapping[str, AnnData]
    """Slides by name, spots on the tissue alone, in the order of the spots."""
    blocks: tuple[tuple[int, int], ...]
    patients: Mapping[str, str]
    """Patient of each slide, or its own name where none is named."""
    pictures: Mapping[str, Picture]
    """Of the slides that store an image, by name: by them sections are laid over each other."""

    @property
    def groups(self) -> np.ndarray:
        """What is held out together: patients where two are named, else slides, else halves of the only one."""
        by_patient = np.array([self.patients[str(name)] for name in self.spots.slide])
        return by_patient if len(np.unique(by_patient)) > 1 else slide_or_half(self.spots)


def transfer(
    target: AnnData | SpatialData,
    refs: AnnData | SpatialData | Iterable[AnnData | SpatialData],
    *,
    keys: str | Sequence[str],
    embedding: str | None = None,
    key_added: str = "spahgc",
    min_support: float = LOW_SUPPORT,
    place: bool = True,
    table_key: str | None = None,
    copy: bool = False,
) -> AnnData | SpatialData | None:
    """Bring what references have in ``obs`` or ``obsm`` to a slide that only has an image.

    Labels (cell types, an annotation of a pathologist, clusters) and values (scores, proportions of a deconvolution) travel by
    what spots and their surroundings look like, over the same standardised image axes as :func:`predict` sees. Three experts
    say each label: a line (logistic regression), a kernel, and the most similar reference spots (edges); each reference, or patient
    where two are named, is held out in turn, and the weights that make its labels most likely are taken. Where references lie on the
    target and on each other, as the images that slides store or :func:`spahgc.pp.register` tell, the two kernels of look and place of
    :func:`predict` are experts as well. Each reference section is then held out by itself, and those that another one lies on prove
    the weights. Nothing of the target beside its embedding, image and positions has a part in it.

    Parameters
    ----------
    target
        The slide, embedded as the references are.
    refs
        One or more slides that have the keys. Spots without a label, and those off the tissue, are left out.
    keys
        Columns of ``obs`` (text, categories or booleans are labels, numbers are values) or entries of ``obsm`` (values; rows
        of at least 0 that sum to 1 are shares, and stay such).
    embedding
        Key of the embedding; ``None`` takes the only one.
    key_added
        What the names of results begin with.
    min_support
        Support below which a label is ``"unknown"``, 0 to 1; 0 labels every spot.
    place
        Let references that lie on the target tell labels by place as well. ``False`` leaves it out.
    table_key
        Key of the table of a SpatialData; ``None`` takes the only one.
    copy
        Return a changed copy instead of writing into the target.

    Returns
    -------
    ``None``, or the changed copy. Written are, for each key:

    - labels: ``obs["spahgc_<key>"]``, categorical, and ``obsm["spahgc_<key>"]``, probabilities, spots x labels, float32;
    - values: the same keys of ``obs`` or of ``obsm`` as in the references, with that beginning, float32;
    - ``obs["spahgc_<key>_support"]``: how well the references cover what the spot looks like, 0 to 1;
    - ``uns["spahgc"]["transfers"]["spahgc_<key>"]``: ``kind``, ``labels`` (the columns), ``references``, ``n_reference_spots``,
      ``weights``, ``place`` (quality of each registered pair, and whether it is ``used``; not where none is), and ``held_out``: of labels ``accuracy``, ``balanced_accuracy``, ``log_loss`` and ``calibration_error`` on
      references held out, and the same of the most frequent label (``majority_...``); of values the mean ``pearson``.

    Rows of spots off the tissue are NaN.

    Raises
    ------
    KeyError
        If an embedding, positions or a key are missing.
    ValueError
        If embeddings differ, the target is among the references, or a key has fewer than two labels, too many, or values that
        are not finite.

    Warns
    -----
    UserWarning
        If patients have different labels, or labels are plain numbers and the references of several patients, so that nobody
        knows whether one name means one thing; or if references held out are labelled no better than by the most frequent
        label.

    See Also
    --------
    spahgc.tl.predict : predicts expression.
    spahgc.tl.domains : clusters of predicted expression, without any labels.

    Examples
    --------
    >>> import spahgc as sp
    >>> sp.tl.transfer(target, refs, keys="cell_type")  # doctest: +SKIP
    >>> target.obs["spahgc_cell_type"].value_counts()  # doctest: +SKIP
    """
    wanted = _check_arguments(keys, key_added, min_support)
    data, target = target, placed_table(target, table_key, "the target", write=not copy)
    check_anndata(target, "the target")
    slides = split_slides(placed_tables(refs, table_key, "reference"))
    key = find_embedding(next(iter(slides.values())), embedding, "the references")
    rows = TissueRows.of(target, "the target")
    shown = rows.only(target)
    spots = target_spots(shown, key)
    known = _references(slides, key, wanted)
    _check_target(shown, spots, known, key)
    read = {name: _read(known, name) for name in wanted}
    for name, value in read.items():
        _warn_of_names(name, value, known)

    with limited_threads(float(np.prod(known.spots.z.shape))):
        preset = PRESETS["default"]
        around, spots = _in_microns(known, spots)
        axes, x = ImageAxes.fit(around, known.blocks, n_axes=preset.n_axes, n_around=preset.n_around)
        seen = axes.transform(spots)
        support = Support.fit(known.spots, known.blocks)(spots.z, known.spots.z)
        placing = Placing.of(spots, known.pictures, known.patients, list(known.tables)) if place else None
        said = {name: _transferred(value, x, known, seen, placing) for name, value in read.items()}
    target = target.copy() if copy else target
    for name, (values, record) in said.items():
        if "labels" in record:
            _warn_of_chance(name, record)
        _write(
            target, f"{key_added}_{name}", values, support, rows, min_support, record | {"embedding": key}, read[name]
        )
    return with_table(data, target, table_key) if copy else None


@dataclass(frozen=True, eq=False)
class Value:
    """What the references have under a key."""

    codes: NDArray[np.int64] | None
    """Number of each spot's label, -1 without one; ``None`` where there are values."""
    labels: list[str]
    values: NDArray[np.float64] | None
    """Spots x columns, NaN where nothing is known."""
    is_obs: bool
    are_shares: bool = False


def _check_arguments(keys: str | Sequence[str], key_added: str, min_support: float) -> list[str]:
    wanted = [keys] if isinstance(keys, str) else [str(key) for key in keys]
    if not wanted:
        raise ValueError("keys is empty. Pass the names of columns of obs, or of entries of obsm, of the references.")
    if len(set(wanted)) < len(wanted):
        raise ValueError(f"keys names {quoted(sorted({k for k in wanted if wanted.count(k) > 1}))} more than once.")
    if not key_added or "/" in key_added:
        raise ValueError(f'key_added="{key_added}" cannot begin a name: it is empty or contains "/".')
    if not 0 <= min_support <= 1:
        raise ValueError(f"min_support={min_support!r}; support lies between 0 and 1, so pass a number between them.")
    return wanted


def _references(slides: Mapping[str, AnnData], key: str, wanted: Sequence[str]) -> References:
    """Embedding and positions of the references, read and checked; the first one's record is that of all."""
    missing = {
        name: [each for each in wanted if each not in slide.obs and each not in slide.obsm]
        for name, slide in slides.items()
    }
    for name, lacking in missing.items():
        if lacking:
            found = [*slides[name].obs.columns, *slides[name].obsm]
            raise KeyError(
                f'{quoted(lacking)} not found in obs or obsm of reference "{name}", which have {quoted(found, 10)}.'
            )
    first = next(iter(slides))
    record = encoder_records(slides[first]).get(key, {})
    parts, tables, patients, pictures = [], {}, {}, {}
    for name, slide in slides.items():
        label = f'reference "{name}"'
        check_same_encoder(encoder_records(slide).get(key, {}), record, key, label, f'reference "{first}"')
        on_tissue = spots_on_tissue(slide, label)
        table = slide if on_tissue is None else slide[on_tissue]
        parts.append((np.asarray(in_float(embedding_matrix(table, key, label))), check_coordinates(table, label), name))
        tables[name] = table
        picture = stored_picture(table, parts[-1][1], label)
        if picture is not None:
            pictures[name] = picture
        own = patients_of(slide)
        patients[name] = next(iter(own)) if len(own) == 1 else f"slide {name}"
    widths = {part[0].shape[1] for part in parts}
    if len(widths) > 1:
        raise ValueError(
            f'obsm["{key}"] has {sorted(widths)} columns in the references. Embed all slides with the same encoder.'
        )
    z: np.ndarray = np.vstack([part[0] for part in parts])
    xy = np.vstack([part[1] for part in parts])
    slide_of = np.repeat([part[2] for part in parts], [len(part[1]) for part in parts])
    nothing = np.empty((len(xy), 0), dtype=np.float32)
    blocks = tuple((block.start, block.stop) for block in context_blocks(record, z.shape[1]))
    return References(Spots(z, xy, slide_of, nothing, csr_matrix(nothing)), tables, blocks, patients, pictures)


def _in_microns(known: References, target: Spots) -> tuple[Spots, Spots]:
    """Spots of references and target, which know where neighbours count by a radius: the references' own, in the median."""
    found = {name: known_mpp(table) for name, table in known.tables.items()}
    mpp = {name: value for name, value in found.items() if value is not None}
    spots = known.spots
    own = [spacing for spacing in spacings_um(spots.xy, spots.slide, mpp).values() if spacing is not None]
    wanted = float(np.median(own)) if own else None
    of_target = {} if target.mpp is None else {str(target.slide[0]): target.mpp}
    return (
        replace(spots, steps=steps_of(spots.xy, spots.slide, mpp, wanted)[0]),
        replace(target, steps=steps_of(target.xy, target.slide, of_target, wanted)[0]),
    )


def _check_target(shown: AnnData, spots: Spots, known: References, key: str) -> None:
    """Refuse a target of another encoder, or that is among the references."""
    first = next(iter(known.tables.values()))
    record = encoder_records(shown).get(key, {})
    check_same_encoder(record, encoder_records(first).get(key, {}), key, "the target", "the references")
    z = np.asarray(spots.z)
    if z.shape[1] != known.spots.z.shape[1]:
        raise ValueError(
            f'obsm["{key}"] has {z.shape[1]} columns in the target and {known.spots.z.shape[1]} in the references. Embed all slides '
            "with the same encoder."
        )
    looks = {}
    for name, table in known.tables.items():
        rows = np.flatnonzero(known.spots.slide == name)
        if len(shared_spots(spots.xy, z, known.spots.xy[rows], known.spots.z[rows])):
            raise ValueError(
                f'the target is also among the references, as "{name}": its own labels would reach it. Leave that slide out.'
            )
        part = Spots.without_expression(known.spots.z[rows], known.spots.xy[rows], name)
        looks[name] = target_look(part, record, padded_spots(table), padded_around(table))
    check_target_apart(target_look(spots, record, padded_spots(shown), padded_around(shown)), looks)


def _read(known: References, key: str) -> Value:
    """A key of all references; a column of ``obs`` goes before an entry of ``obsm``."""
    if all(key in table.obs for table in known.tables.values()):
        column = pd.concat([table.obs[key].astype(object) for table in known.tables.values()])
        kinds = [table.obs[key] for table in known.tables.values()]
        if all(pd.api.types.is_numeric_dtype(one) and not pd.api.types.is_bool_dtype(one) for one in kinds):
            return _values(column.to_numpy(dtype=np.float64, na_value=np.nan)[:, None], key, is_obs=True)
        return _labels(column, key)
    arrays = [_array(table, key, name) for name, table in known.tables.items()]
    widths = {array.shape[1] for array in arrays}
    if len(widths) > 1:
        raise ValueError(
            f'obsm["{key}"] has {sorted(widths)} columns in the references. They must be the same, in one order.'
        )
    return _values(np.vstack(arrays), key, is_obs=False)


def _array(table: AnnData, key: str, name: str) -> NDArray[np.float64]:
    if key not in table.obsm:
        raise KeyError(
            f'"{key}" stands in obs of some references and in obsm of others; in obsm of reference "{name}" it does not.'
        )
    values: Any = table.obsm[key]
    values = values.toarray() if issparse(values) else values
    array = values.to_numpy(np.float64) if isinstance(values, pd.DataFrame) else np.asarray(values, dtype=np.float64)
    return array[:, None] if array.ndim == 1 else array


def _labels(column: pd.Series, key: str) -> Value:
    text = column.where(column.notna(), None).map(lambda value: None if value is None else str(value))
    names = sorted(set(text.dropna()))
    if len(names) < MIN_OF_LABEL or len(names) > MAX_LABELS:
        raise ValueError(
            f'obs["{key}"] of the references has {len(names)} different labels ({quoted(names)}); 2 to {MAX_LABELS} can be told apart.'
        )
    numbers = {name: code for code, name in enumerate(names)}
    codes = np.array([-1 if value is None else numbers[value] for value in text], dtype=np.int64)
    return Value(codes, names, None, is_obs=True)


def _values(values: NDArray[np.float64], key: str, *, is_obs: bool) -> Value:
    if np.isinf(values).any():
        raise ValueError(f'"{key}" of the references holds infinite values. Correct them, or make them NaN.')
    given = ~np.isnan(values).any(axis=1)
    if given.sum() < MIN_OF_LABEL:
        raise ValueError(f'"{key}" of the references has values in {int(given.sum())} spots. Two at least are needed.')
    some = values[given]
    shares = some.shape[1] > 1 and bool(some.min() >= 0 and np.abs(some.sum(axis=1) - 1).max() <= SUM_OF_SHARES)
    return Value(None, [], values, is_obs, shares)


def _warn_of_names(key: str, value: Value, known: References) -> None:
    """Say what is not known of labels of several patients: names that some lack, and numbers."""
    if value.codes is None:
        return
    by_patient: dict[str, set[str]] = {}
    for name in known.tables:
        own = value.codes[(known.spots.slide == name) & (value.codes >= 0)]
        by_patient.setdefault(known.patients[name], set()).update(value.labels[code] for code in np.unique(own))
    if len(by_patient) < 2:
        return
    lacking = {label for label in value.labels if any(label not in names for names in by_patient.values())}
    if lacking:
        warn(
            f'labels of obs["{key}"] differ between patients (or slides that name none): {quoted(sorted(lacking))} do not occur in all '
            f"of {quoted(by_patient)}. They are taken as they are called; rename those that mean the same.",
            stacklevel=3,
        )
    if all(label.lstrip("-").isdigit() for label in value.labels) and _named_patients(known) > 1:
        warn(
            f'labels of obs["{key}"] are plain numbers, and the references are of several patients. Clusters are numbered anew on each '
            "slide: if one number does not mean the same everywhere, rename them, or pass references of one patient.",
            stacklevel=3,
        )


def _named_patients(known: References) -> int:
    return len({patient for table in known.tables.values() for patient in patients_of(table)})


def _transferred(
    value: Value, x: np.ndarray, known: References, seen: np.ndarray, placing: Placing | None
) -> tuple[NDArray[np.float64], dict[str, Any]]:
    """Probabilities or values of the target's spots, and what is recorded."""
    given = value.codes >= 0 if value.codes is not None else ~np.isnan(np.asarray(value.values)).any(axis=1)
    rows = np.flatnonzero(given)
    if len(rows) > MAX_SPOTS:
        rows = rows[even_rows(known.spots.slide[rows], MAX_SPOTS)]
    groups = known.groups[rows]
    if len(np.unique(groups)) < 2:
        # Labels on one reference alone: halves of that.
        part = Spots.without_expression(x[rows], known.spots.xy[rows], "one")
        groups = slide_or_half(part)
    record: dict[str, Any] = {"references": list(known.tables), "n_reference_spots": len(rows)}
    spots = known.spots.part(rows)
    if value.codes is None:
        y = np.asarray(value.values)[rows]
        placed = None if placing is None else placing.answers(x[rows], y, spots, seen, np.asarray)
        by_place, proof_by_place = placed or ({}, {})
        if placing is not None and placed is not None:
            groups, record = spots.slide, record | {"place": placing.on_target.record()}
        weights, held_out, told = prove_values(x[rows], y, groups, proof_by_place)
        answers = by_place | {name: say_values(name, x[rows], y, groups, seen) for name in VALUE_EXPERTS}
        said, y = np.asarray(sum(weights[name] * part for name, part in answers.items())), y[told]
        if value.are_shares:
            said = np.clip(said, 0, None)
            said /= np.maximum(said.sum(axis=1, keepdims=True), np.finfo(float).tiny)
        pearson = [float(np.corrcoef(y[:, i], held_out[:, i])[0, 1]) for i in range(y.shape[1]) if np.ptp(y[:, i]) > 0]
        held = {"pearson": float(np.mean(pearson)) if pearson else float("nan")}
        return said, record | {"kind": "shares" if value.are_shares else "values", "weights": weights, "held_out": held}
    codes, n = value.codes[rows], len(value.labels)
    one_hot = np.eye(n)[codes]
    finish = partial(_label_answers, codes=codes, n_labels=n)
    placed = None if placing is None else placing.answers(x[rows], one_hot, spots, seen, finish)
    by_place, proof_by_place = placed or ({}, {})
    if placing is not None and placed is not None:
        groups, record = spots.slide, record | {"place": placing.on_target.record()}
    proof = prove_labels(x[rows], codes, n, groups, proof_by_place)
    scores = label_scores(proof.held_out, codes[proof.told])
    frequency = one_hot.mean(axis=0)
    majority = label_scores(np.tile(frequency, (len(proof.told), 1)), codes[proof.told])
    said = blend_labels(proof, x[rows], codes, n, groups, seen, by_place)
    return said, record | {
        "kind": "labels",
        "labels": list(value.labels),
        "weights": proof.weights,
        "power": proof.power,
        "held_out": scores | {f"majority_{name}": score for name, score in majority.items()},
    }


def _label_answers(said: NDArray[np.float64], codes: NDArray[np.int64], n_labels: int) -> NDArray[np.float64]:
    """Probabilities of what an expert of place says."""
    return as_probabilities(np.clip(said, 0, None), codes, n_labels)


def _warn_of_chance(key: str, record: Mapping[str, Any]) -> None:
    held = record["held_out"]
    if held["log_loss"] >= held["majority_log_loss"]:
        warn(
            f'obs["{key}"] of references held out is told no better than by the most frequent label (log loss {held["log_loss"]:.2f} and '
            f"{held['majority_log_loss']:.2f}): what the spots look like says nothing of it, or one name means different things.",
            stacklevel=3,
        )


def _write(
    target: AnnData,
    name: str,
    values: NDArray[np.float64],
    support: NDArray[np.float64],
    rows: TissueRows,
    min_support: float,
    record: dict[str, Any],
    value: Value,
) -> None:
    everywhere = rows.in_place(values.astype(np.float32))
    target.obs[Obs.support(name)] = rows.in_place(support.astype(np.float32))
    if value.codes is not None:
        target.obsm[name] = everywhere
        chosen = np.array([*value.labels], dtype=object)[values.argmax(axis=1)]
        chosen[support < min_support] = UNKNOWN
        whole = np.full(target.n_obs, None, dtype=object)
        whole[slice(None) if rows.on_tissue is None else rows.on_tissue] = chosen
        target.obs[name] = pd.Categorical(whole, categories=list(dict.fromkeys([*value.labels, UNKNOWN])))
        record |= {"min_support": float(min_support), "n_unknown": int((support < min_support).sum())}
    elif value.is_obs:
        target.obs[name] = everywhere[:, 0]
    else:
        target.obsm[name] = everywhere
    entries = dict(target.uns.get(UNS, {}))
    entries[Uns.transfers] = {**entries.get(Uns.transfers, {}), name: record}
    target.uns[UNS] = entries
