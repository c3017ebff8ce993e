"""A prediction in a slide: the one place where it is written, and where what comes after it reads it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.sparse import issparse

from spahgc._keys import SCORES, STRUCTURE_SCORES, UNITS, UNS, Layers, Obs, Obsm, Uns, Var, Varm
from spahgc._linear.expected import Expected
from spahgc._linear.shared_errors import EDGES, SharedErrors
from spahgc._linear.statistics import moments_of
from spahgc._linear.trust import PATIENT, SECTION
from spahgc._logging import warn
from spahgc._slides.measured_part import MeasuredPart
from spahgc._spots.rows import blocks_of
from spahgc._training.networks import Prediction
from spahgc._validate import check_anndata, quoted
from spahgc.model import SpaHGC


def prediction_record(adata: AnnData, key: str) -> dict[str, Any]:
    """What ``uns`` says of the prediction under a key; empty for a layer from elsewhere."""
    return dict(adata.uns.get(UNS, {}).get(Uns.predictions, {}).get(key, {}))


def predicted_expression(adata: AnnData, key: str) -> tuple[np.ndarray, list[str]]:
    """Prediction of the genes of the panel at the spots that were predicted, and the names of the genes.

    Parameters
    ----------
    adata
        A slide with a prediction in ``layers[key]``. Where ``var[f"{key}_panel"]`` is missing, the panel is every gene
        with a value.
    key
        Key of the prediction.

    Returns
    -------
    Spots x genes, float64, a new array, without the measured spots that were a reference (:func:`reference_spots`); and
    the genes.

    Raises
    ------
    KeyError
        If there is no prediction under this key.
    ValueError
        If no gene was predicted, if values are missing inside the panel, or if all spots are alike: neither a cluster
        nor a pathway can be seen in such a prediction.
    """
    check_anndata(adata, "the slide")
    values, panel = prediction_and_panel(adata, key)
    if not panel.any():
        raise ValueError(f'the panel of layers["{key}"] is empty: no gene was predicted. Run spahgc.tl.predict again.')
    predicted = ~reference_spots(adata, key)
    expression, genes = values[predicted][:, panel].astype(np.float64), [str(gene) for gene in adata.var_names[panel]]
    broken = ~np.isfinite(expression)
    if broken.any():
        raise ValueError(
            f'layers["{key}"] has {int(broken.sum())} NaN or infinite values inside its panel, in the genes '
            f'{quoted(np.asarray(genes)[broken.any(axis=0)])}. Run spahgc.tl.predict again, or correct var["'
            f'{Var.panel(key)}"].'
        )
    if not np.ptp(expression, axis=0).any():
        raise ValueError(
            f'layers["{key}"] is the same in all {len(expression)} spots, so there is nothing to tell them apart '
            '(method="mean" predicts so). Predict with another method.'
        )
    return expression, genes


def prediction_and_panel(adata: AnnData, key: str) -> tuple[np.ndarray, np.ndarray]:
    """The layer of a prediction, dense, and which genes are in its panel: those that ``var`` names, or have a value."""
    if key not in adata.layers:
        raise KeyError(
            f'layers["{key}"] not found, layers are {quoted(adata.layers)}. Run spahgc.tl.predict(adata, refs) first.'
        )
    layer = adata.layers[key]
    values = layer.toarray() if issparse(layer) else np.asarray(layer)
    if Var.panel(key) in adata.var:
        return values, adata.var[Var.panel(key)].to_numpy(dtype=bool)
    return values, ~np.isnan(values).all(axis=0)


def reference_spots(adata: AnnData, key: str) -> np.ndarray:
    """Spots of a slide that were a reference of its own prediction and have no value in it, boolean, one entry a spot."""
    column = adata.obs.get(Obs.measured(key))
    if column is None or column.dtype != bool:
        return np.zeros(adata.n_obs, dtype=bool)
    return column.to_numpy()


def check_new_key(name: str, where: str) -> str:
    """Refuse a name under which h5ad and zarr cannot write."""
    if not name or "/" in name:
        raise ValueError(f'key_added="{name}" cannot name an entry of {where}: it is empty or contains "/".')
    return name


def write_prediction(
    target: AnnData,
    predicted: np.ndarray,
    genes: list[str],
    key: str,
    record: dict[str, Any],
    n_references: np.ndarray | None = None,
) -> None:
    """Write a prediction of a panel into the genes of the target, and its record into ``uns``.

    Parameters
    ----------
    target
        The slide. If it has no genes, it gets those of the panel.
    predicted
        Spots x ``genes``.
    genes
        The panel.
    key
        Name of the layer.
    record
        What is needed to repeat it.
    n_references
        References that measured each gene of the panel; ``None`` where all of them did, of which nothing is written.
    """
    if target.n_vars == 0:
        _give_genes(target, genes)
    columns = target.var_names.get_indexer(genes)
    inside = columns >= 0
    if not inside.all():
        absent = [gene for gene, there in zip(genes, inside, strict=True) if not there]
        warn(
            f"{len(absent)} of {len(genes)} genes of the panel are not among the genes of the target "
            f"({quoted(absent)}); their prediction has no place in it. Predict into a target without genes to keep it.",
            stacklevel=3,
        )
    target.layers[key] = _in_place(predicted, columns, target.shape)
    target.var[Var.panel(key)] = np.isin(np.arange(target.n_vars), columns)
    _forget(target, key)
    if n_references is not None:
        column = np.zeros(target.n_vars, dtype=np.int64)
        column[columns[inside]] = n_references[inside]
        target.var[Var.n_references(key)] = column
    uns = target.uns.setdefault(UNS, {})
    uns[Uns.predictions] = {**uns.get(Uns.predictions, {}), key: record}


def write_measured(target: AnnData, part: MeasuredPart, key: str) -> None:
    """Write which spots of the target were a reference of the prediction under this key, and the record of it."""
    target.obs[Obs.measured(key)] = part.spots
    records = target.uns[UNS][Uns.predictions]
    records[key] = records[key] | {Uns.measured: part.record()}


def write_trust(
    target: AnnData, model: SpaHGC, key: str, prediction: Prediction, case: str, intervals: float | None
) -> None:
    """Write what a model says of the trust that its prediction under this key deserves, if it says anything.

    Parameters
    ----------
    target
        The slide, with the prediction and its record.
    model
        The model.
    key
        Key of the prediction.
    prediction
        The prediction of all spots of the target, and their support; rows of those that were not predicted are NaN.
    case
        What the target is to the references, see :data:`spahgc._linear.trust.CASES`.
    intervals
        Level of the intervals of values; ``None`` for none.
    """
    if model.trust is None:
        return
    genes = target.var_names.get_indexer(model.genes)
    expected, rows = Expected.of(model.trust, case), np.flatnonzero(np.isfinite(prediction.expression).all(axis=1))
    deviations = np.sqrt(moments_of(prediction.expression, rows)[1])
    columns: dict[str, np.ndarray] = dict(
        zip(
            (Var.cv_pcc(key), Var.cv_pcc_low(key), Var.cv_pcc_high(key)),
            expected.pcc(deviations, len(rows)),
            strict=True,
        )
    )
    for name, other in ((Var.cv_pcc_section(key), SECTION), (Var.cv_pcc_patient(key), PATIENT)):
        as_other = expected if (case == PATIENT) == (other == PATIENT) else Expected.of(model.trust, other)
        told = other == PATIENT or as_other.played != PATIENT
        columns[name] = np.tanh(as_other.z(deviations)) if told else np.full(len(genes), np.nan)
    if expected.case.values is not None:
        columns[Var.kind(key)] = expected.case.values.kind
    for name, values in columns.items():
        column = np.full(target.n_vars, np.nan)
        column[genes[genes >= 0]] = values[genes >= 0]
        target.var[name] = column
    support = np.asarray(prediction.support)
    target.obs[Obs.support(key)] = support
    _write_layers(target, key, genes, expected, support, model.units, intervals)
    records = target.uns[UNS][Uns.predictions]
    told_of = expected.record(len(rows)) | ({} if intervals is None else {"intervals": intervals})
    records[key] = records[key] | {Uns.trust: told_of}
    if expected.case.shared is not None:
        write_shared_errors(target, expected.case.shared, genes, key)


def write_shared_errors(target: AnnData, shared: SharedErrors, columns: np.ndarray, key: str) -> None:
    """Write what errors have in common, from which :func:`spahgc.tl.regions` makes intervals.

    Parameters
    ----------
    target
        The slide, whose record of the prediction stands in ``uns``.
    shared
        Of the panel.
    columns
        Place of each gene of the panel among those of the target, -1 for none.
    key
        Key of the prediction.
    """
    inside = columns >= 0
    for name, values in (
        (Varm.error_correlation(key), shared.correlation),
        (Varm.error_loadings(key), shared.loadings),
    ):
        of_genes = np.full((target.n_vars, values.shape[1]), np.nan, dtype=np.float32)
        of_genes[columns[inside]] = values[inside]
        target.varm[name] = of_genes
    record = {"edges": list(EDGES), "covariance": shared.covariance, "freedom": float(shared.freedom.item())}
    records = target.uns[UNS][Uns.predictions]
    records[key] = records[key] | {Uns.shared_errors: record}


def _write_layers(
    target: AnnData,
    key: str,
    genes: np.ndarray,
    expected: Expected,
    support: np.ndarray,
    units: str,
    intervals: float | None,
) -> None:
    """Spread and, if wanted, both ends of an interval of every value, in blocks of spots."""
    predicted, inside = target.layers[key], genes >= 0
    names = [Layers.spread(key), *((Layers.low(key), Layers.high(key)) if intervals is not None else ())]
    layers = {name: np.full(predicted.shape, np.nan, dtype=np.float32) for name in names}
    least = 0.0 if units == UNITS else -np.inf  # the logarithm of one more than a count
    for rows in blocks_of(len(predicted)):
        # What is told of a gene needs its own prediction alone; those that have no place in the target are left out.
        panel = np.zeros((len(predicted[rows]), len(genes)), dtype=np.float32)
        panel[:, inside] = predicted[rows][:, genes[inside]]
        found = {Layers.spread(key): expected.spread(panel, support[rows])}
        if intervals is not None:
            half = expected.half_width(panel, support[rows], intervals)
            found |= {Layers.low(key): np.maximum(panel - half, least), Layers.high(key): panel + half}
        for name, values in found.items():
            layers[name][rows, genes[inside]] = values[:, inside]
    target.layers.update(layers)


def _in_place(predicted: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A prediction of the panel among the genes of the target; itself where these are the panel."""
    if np.array_equal(columns, np.arange(shape[1])) and predicted.dtype == np.float32:
        return predicted
    inside, layer = columns >= 0, np.full(shape, np.nan, dtype=np.float32)
    layer[:, columns[inside]] = predicted[:, inside]
    return layer


def _forget(target: AnnData, key: str) -> None:
    """Drop what was said of an earlier prediction under this key: its evaluation, trust, domains, pathways, cell types and regions."""
    columns = [Var.score(key, name) for name in (*SCORES, *STRUCTURE_SCORES)]
    columns += [Var.cv_pcc(key), Var.cv_pcc_low(key), Var.cv_pcc_high(key)]
    columns += [Var.cv_pcc_section(key), Var.cv_pcc_patient(key), Var.kind(key), Var.n_references(key)]
    target.var = target.var.drop(columns=[column for column in columns if column in target.var])
    of_spots = (Obs.support(key), Obs.domain(key), Obs.measured(key), Obs.cell_types(key))
    target.obs = target.obs.drop(columns=[column for column in of_spots if column in target.obs])
    for layer in (Layers.spread(key), Layers.low(key), Layers.high(key)):
        target.layers.pop(layer, None)
    graphs = (Obsm.cross(key), Obsm.place(key), Obsm.attention(key))
    for name in (*graphs, Obsm.enrichment(key), Obs.cell_types(key)):
        target.obsm.pop(name, None)
    for name in (Varm.error_correlation(key), Varm.error_loadings(key)):
        target.varm.pop(name, None)
    for entry in (Uns.evaluations, Uns.domains, Uns.enrichment, Uns.regions):
        target.uns.get(UNS, {}).get(entry, {}).pop(key, None)
    target.uns.get(UNS, {}).get(Uns.cell_types, {}).pop(Obs.cell_types(key), None)


def _give_genes(target: AnnData, genes: list[str]) -> None:
    # The width of an AnnData is fixed when it is made, so that one object can only be refilled by making it anew.
    filled = AnnData(
        obs=target.obs,
        var=pd.DataFrame(index=pd.Index(genes, name=target.var_names.name)),
        obsm=dict(target.obsm),
        obsp=dict(target.obsp),
        uns=target.uns,
    )
    target._init_as_actual(filled)


def write_attention(target: AnnData, model: SpaHGC, prediction: Prediction, key: str) -> None:
    """Write the edges of a prediction and the attention on them, once its record stands in ``uns``.

    Parameters
    ----------
    target
        The slide.
    model
        The model that predicted.
    prediction
        What it predicts of the target. A model without networks has no attention, and a target without a place no edges by
        place; none are left from before either.
    key
        Key of the prediction.
    """
    target.obsm[Obsm.cross(key)] = prediction.cross
    others = {Obsm.attention(key): prediction.attention, Obsm.place(key): prediction.by_place}
    for name, graph in others.items():
        if graph is not None:
            target.obsm[name] = graph
        else:
            target.obsm.pop(name, None)
    records = target.uns[UNS][Uns.predictions]
    records[key] = records[key] | {Uns.bank_spots: [str(name) for name in model.bank.obs_names]}
