"""What each reference spot adds to a prediction, or which of them its graph attended to."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.sparse import csr_matrix, issparse

from spahgc._keys import UNS, Obs, Obsm, Uns
from spahgc._parameters import GRAPH, NETWORK, Parameters
from spahgc._slides.matrix import in_memory
from spahgc._slides.spot_names import spot_position
from spahgc._slides.tables import table_of
from spahgc._training.placed import GRAPH_BY_PLACE
from spahgc._validate import check_anndata, quoted
from spahgc.model import SpaHGC
from spahgc.tl._prediction import reference_spots

if TYPE_CHECKING:
    from spatialdata import SpatialData

    from spahgc._training.contributions import Contributions

BY = ("spot", "slide")
PREDICT = "Run spahgc.tl.predict(adata, refs) "
SAME = 1e-3
"""What a model may say otherwise than the layer that it wrote, on another device, as a share of the value or the gene's mean."""


def attribution(
    adata: AnnData | SpatialData,
    spot: str | int,
    *,
    gene: str | None = None,
    model: SpaHGC | None = None,
    key: str = "spahgc",
    by: Literal["spot", "slide"] = "spot",
    table_key: str | None = None,
) -> pd.DataFrame:
    """List the reference spots, or slides, that a prediction is made of.

    **With a model and a gene**, the table says exactly what every reference spot adds to the prediction of that gene, in
    its units. Line, kernels and retrieval are sums over reference spots of a weight times what the spot expresses (its
    components of the transcriptome): these parts add up. The perceptrons are no such sums, and what they say is one remainder.
    The gene's mean, all contributions and the remainder are the prediction: ``attrs["mean"] + table["contribution"].sum() +
    attrs["remainder"]`` equals ``attrs["prediction"]``. A contribution is negative where a spot speaks for less than the mean:
    it expresses less and looks alike, or expresses more and looks different.

    **Without them**, the table lists the attention of the graph alone, from what the prediction wrote. Retrieval joins a target
    spot to the reference spots of highest cosine similarity; attention then weighs these. The weight is the mean over the
    networks, over their layers and the pooling before the head, and over the heads. It says which reference spots the graph
    attended to, which is no explanation of the values, and the graph is one expert among several: ``attrs["share"]`` is its
    weight in the prediction. Where all weights are near one over the number of retrieved spots, the networks hardly tell
    these apart, and the retrieval is what has chosen.

    Parameters
    ----------
    adata
        A slide with a prediction by the network, AnnData or SpatialData.
    spot
        Name of the target spot in ``obs_names``, or its position from 0.
    gene
        Gene of the panel whose prediction is taken apart. Needs ``model``.
    model
        The model that predicted, from :func:`spahgc.tl.fit` or :meth:`spahgc.SpaHGC.load`. Needs ``gene``.
    key
        Key of the prediction.
    by
        ``"spot"``, or ``"slide"`` for sums over the spots of a reference slide.
    table_key
        Key of the table of a SpatialData; ``None`` takes the only one.

    Returns
    -------
    With a model, one row a reference spot, largest contribution of either sign first:

    - ``rank``: from 1;
    - ``slide``, ``spot``: names of the reference and of its spot;
    - ``contribution``: what it adds, in the units of the prediction; the sum of the columns after it;
    - ``line``, ``kernel``, ``kernel_overall``, ``graph``, ``kernel_plus_place``, ``kernel_times_place``, ``graph_by_place``: what it
      adds through each of these experts, as far as they have a part in the prediction, times the weight of the expert.

    ``attrs`` holds ``spot``, ``gene``, ``units``, ``mean`` (what is predicted whatever the spot looks like), ``remainder``,
    ``prediction``, ``slides`` (sum of the contributions of each reference slide) and ``experts`` (their weights).

    Without a model, one row a retrieved reference spot, largest attention first:

    - ``rank``, ``slide``, ``spot``: as above;
    - ``similarity``: cosine similarity of the features of the two spots;
    - ``attention``: 0 to 1; the column sums to 1.

    ``attrs`` holds ``expert``, which is ``"graph"``, and ``share``, its weight in the prediction.

    By slide, one row a reference slide: ``rank``, ``slide``, ``n_spots`` (how many it has, or how many were retrieved), and
    sums of the same columns; of ``similarity`` the mean. Nothing is written.

    Raises
    ------
    KeyError
        If there is no such spot, gene or prediction, or if what the prediction wrote beside its layer is gone.
    ValueError
        If a baseline made the prediction, if the spot was measured and a reference of it, if ``model`` did not make it or has no
        part that is linear (``preset="paper"``), if ``gene`` or ``model`` comes alone, if without a model no graph had a part in
        it or the graph was overwritten since, or if ``by`` is not known.

    See Also
    --------
    spahgc.pl.attribution : the same as a figure, with the patches.
    spahgc.SpaHGC.contributions : the same of many spots and genes, as arrays.

    Examples
    --------
    >>> import spahgc as sp
    >>> target, *refs = sp.datasets.simulated(n_slides=3, n_spots=40, n_genes=30)
    >>> for slide in [target, *refs]:
    ...     sp.pp.embed(slide, encoder="efficientnet_lite0")
    >>> model = sp.tl.fit(refs, preset=sp.Parameters.preset("default", experts=("kernel", "graph"), epochs=1))
    >>> sp.tl.predict(target, model=model)
    >>> table = sp.tl.attribution(target, target.obs_names[0], gene=model.genes[0], model=model)
    >>> list(table.columns), len(table)
    (['rank', 'slide', 'spot', 'contribution', 'kernel', 'graph'], 80)
    >>> added = table.attrs["mean"] + table["contribution"].sum() + table.attrs["remainder"]
    >>> bool(abs(added - table.attrs["prediction"]) < 1e-4)
    True

    The attention of the graph alone:

    >>> table = sp.tl.attribution(target, target.obs_names[0])
    >>> list(table.columns), len(table), round(float(table["attention"].sum()), 3)
    (['rank', 'slide', 'spot', 'similarity', 'attention'], 50, 1.0)
    """
    if by not in BY:
        raise ValueError(f'by="{by}" is not known. Choose one of {quoted(BY)}.')
    adata = table_of(adata, table_key, "the slide")
    check_anndata(adata, "the slide")
    row = spot_position(adata, spot)
    check_predicted_spot(adata, row, key)
    if model is not None and gene is not None:
        return contribution_table(adata, row, gene, model, key, by)
    if model is not None or gene is not None:
        raise ValueError(
            "gene= and model= belong together: the model says what each reference spot adds to the prediction of a gene. "
            "Pass both, or neither for the attention of the graph alone."
        )
    record = attended_record(adata, key)
    similarity, attention = stored_edges(adata, key, len(record[Uns.bank_spots]))
    slides, spots = reference_names(np.asarray(record[Uns.bank_spots])[similarity[row].indices], record["references"])
    table = pd.DataFrame(
        {"slide": slides, "spot": spots, "similarity": similarity[row].data, "attention": attention[row].data}
    )
    if by == "slide":
        table = table.groupby("slide", as_index=False).agg(
            n_spots=("spot", "size"), similarity=("similarity", "mean"), attention=("attention", "sum")
        )
    table = table.sort_values(["attention", "similarity"], ascending=False, kind="stable", ignore_index=True)
    table.insert(0, "rank", np.arange(1, len(table) + 1))
    table.attrs = {"expert": GRAPH, "share": graph_share(record)}
    return table


def contribution_table(adata: AnnData, row: int, gene: str, model: SpaHGC, key: str, by: str) -> pd.DataFrame:
    """What each reference spot, or slide, adds to the prediction of a gene at a spot; see :func:`attribution`."""
    parts = contributions_of(adata, [row], [gene], model, key)
    slides, spots = reference_names(parts.references, model.references)
    columns = {name: part[0, :, 0].astype(np.float64) for name, part in parts.by_expert.items()}
    table = pd.DataFrame({"slide": slides, "spot": spots, "contribution": sum(columns.values()), **columns})
    by_slide = table.drop(columns="spot").groupby("slide", as_index=False).sum()
    attrs: dict[Hashable, object] = {
        "spot": parts.spots[0],
        "gene": gene,
        "units": model.units,
        "mean": float(parts.mean[0]),
        "remainder": float(parts.remainder[0, 0]),
        "prediction": float(parts.prediction[0, 0]),
        "slides": dict(zip(by_slide["slide"], by_slide["contribution"].tolist(), strict=True)),
        "experts": dict(parts.weights),
    }
    if by == "slide":
        by_slide.insert(1, "n_spots", table.groupby("slide").size().to_numpy())
        table = by_slide
    table = table.sort_values("contribution", key=lambda each: -each.abs(), kind="stable", ignore_index=True)
    table.insert(0, "rank", np.arange(1, len(table) + 1))
    table.attrs = attrs
    return table


def contributions_of(
    adata: AnnData, rows: Sequence[int] | np.ndarray, genes: Sequence[str], model: SpaHGC, key: str
) -> Contributions:
    """Contributions to a prediction that stands in the slide, of spots by position; refuses a model that did not make it."""
    record = network_record(adata, key)
    if not isinstance(model, SpaHGC):
        raise TypeError(f"model= must be a SpaHGC, found {type(model).__name__}. Load one with SpaHGC.load(folder).")
    if Uns.conserve in record:
        raise ValueError(
            f'the prediction "{key}" was made with conserve=: its values were brought to means over areas, and are no sum over reference '
            f"spots. {PREDICT}without conserve=, under another key, and pass that."
        )
    other = f'model= did not make the prediction "{key}"'
    remedy = "Pass the model that did, or predict again with spahgc.tl.predict(adata, model=model)."
    if list(record.get(Uns.bank_spots, model.bank.obs_names)) != list(model.bank.obs_names):
        raise ValueError(f"{other}: its reference spots are others. {remedy}")
    parameters = Parameters.from_dict(record["parameters"]) if "parameters" in record else model.parameters
    if parameters != model.parameters or int(record.get("seed", model.seed)) != model.seed:
        raise ValueError(f"{other}: its parameters or its seed are others. {remedy}")
    # What was retrieved then, so that nothing is searched again; but not where edges by place stand among it.
    searched = Obsm.cross(key) in adata.obsm and Obsm.place(key) not in adata.obsm
    cross = sorted_graph(adata.obsm[Obsm.cross(key)]) if searched else None
    changed = f'the layer or obsm["{Obsm.cross(key)}"] was changed since'
    if cross is not None and cross.shape[1] != model.bank.n_obs:
        raise ValueError(f"{other}, or {changed}. {remedy}")
    place = bool(record.get(Uns.place, {}).get("known", False))
    parts = model.contributions(adata, rows, genes, cross=cross, place=place)
    columns = adata.var_names.get_indexer(genes)
    stored = np.asarray(in_memory(adata.layers[key][rows][:, columns[columns >= 0]]), dtype=np.float64)
    predicted = parts.prediction[:, columns >= 0]
    apart = np.abs(stored - predicted)
    if not (apart <= SAME * np.maximum(np.abs(predicted), np.abs(parts.mean[columns >= 0]))).all():
        raise ValueError(f"{other}, or {changed}: the values are apart by {np.nanmax(apart):.3g}. {remedy}")
    return parts


def graph_share(record: Mapping[str, Any]) -> float:
    """Weight of the graph in a prediction, with place and without, from its record."""
    if Uns.experts in record:
        place = record.get(Uns.place, {})
        weights = place["weights"] if place.get("known", False) else record[Uns.experts]
        return float(weights.get(GRAPH, 0.0)) + float(weights.get(GRAPH_BY_PLACE, 0.0))
    parameters = record.get("parameters", {})
    return float(parameters.get("graph_share", 1.0)) if parameters.get("line", False) else 1.0


def check_predicted_spot(adata: AnnData, row: int, key: str) -> None:
    """Refuse a spot that was a reference of the prediction and not predicted itself."""
    if reference_spots(adata, key)[row]:
        raise ValueError(
            f'spot "{adata.obs_names[row]}" was measured and served as a reference of the prediction "{key}" (obs["'
            f'{Obs.measured(key)}"]), so nothing was predicted there. Choose one of the others.'
        )


def network_record(adata: AnnData, key: str) -> Mapping[str, Any]:
    """Record of a prediction by the network; refuses one by a baseline."""
    records = adata.uns.get(UNS, {}).get(Uns.predictions, {})
    if key not in records:
        raise KeyError(
            f'uns["{UNS}"]["{Uns.predictions}"]["{key}"] not found, predictions are: {quoted(records)}. '
            f"{PREDICT}first, or pass key= with one that is there."
        )
    record: Mapping[str, Any] = records[key]
    method = str(record.get("method", ""))
    if method != NETWORK:
        raise ValueError(
            f'the prediction "{key}" was made with method="{method}", which has no graph: no reference spot can be '
            f'named. {PREDICT}with method="{NETWORK}".'
        )
    return record


def attended_record(adata: AnnData, key: str) -> Mapping[str, Any]:
    """The same; refuses one without a graph."""
    record = network_record(adata, key)
    if not graph_share(record):
        raise ValueError(
            f'the references gave the graph no weight in the prediction "{key}", so no attention is part of it. Pass gene= '
            "and model=: the other experts say what each reference spot adds."
        )
    if not int(record.get("epochs_trained", 1)):
        raise ValueError(
            f'the prediction "{key}" comes from a model that was trained for 0 epochs: a line predicts from the image '
            "alone, and no attention is part of it. Pass gene= and model= for what each reference spot adds, or predict "
            "with a preset of more epochs."
        )
    missing = [f'obsm["{name}"]' for name in (Obsm.cross(key), Obsm.attention(key)) if name not in adata.obsm]
    if missing or Uns.bank_spots not in record:
        lacking = missing or [f'uns["{UNS}"]["{Uns.predictions}"]["{key}"]["{Uns.bank_spots}"]']
        raise KeyError(
            f"{' and '.join(lacking)} not found: an earlier version made the prediction, or they were removed. "
            f"{PREDICT}again."
        )
    return record


def stored_edges(adata: AnnData, key: str, n_bank: int) -> tuple[csr_matrix, csr_matrix]:
    """Similarity and attention of the same edges, target spots x bank spots."""
    names = Obsm.cross(key), Obsm.attention(key)
    similarity, attention = (sorted_graph(adata.obsm[name]) for name in names)
    same = (
        similarity.shape == attention.shape == (adata.n_obs, n_bank)
        and np.array_equal(similarity.indptr, attention.indptr)
        and np.array_equal(similarity.indices, attention.indices)
    )
    if not same:
        raise ValueError(
            f'obsm["{names[0]}"] and obsm["{names[1]}"] do not have the same edges to the {n_bank} reference spots of '
            f"the prediction: one was written by something else since, such as spahgc.pp.cross_graph. {PREDICT}again."
        )
    return similarity, attention


def sorted_graph(matrix: Any) -> csr_matrix:
    """CSR with the columns of a row in order, also of a matrix that lies on disk."""
    matrix = in_memory(matrix)
    if not issparse(matrix):
        raise ValueError(f"the graph is no sparse matrix but {type(matrix).__name__}. {PREDICT}again.")
    ordered = csr_matrix(matrix)
    return ordered if ordered.has_sorted_indices else ordered.sorted_indices()


def reference_names(names: Sequence[str] | np.ndarray, references: Sequence[str]) -> tuple[list[str], list[str]]:
    """Slide and spot of names ``slide:spot``; either may hold colons, so the slides' names decide."""
    longest_first = sorted((str(reference) for reference in references), key=len, reverse=True)
    slides = [next((slide for slide in longest_first if str(name).startswith(f"{slide}:")), "") for name in names]
    unknown = [name for name, slide in zip(names, slides, strict=True) if not slide]
    if unknown:
        raise ValueError(
            f"{quoted(unknown)}: not among the references {quoted(longest_first)}, since the spots of the bank were "
            f"renamed. {PREDICT}with a bank as spahgc.pp.reference_bank returns it."
        )
    return slides, [str(name)[len(slide) + 1 :] for name, slide in zip(names, slides, strict=True)]
