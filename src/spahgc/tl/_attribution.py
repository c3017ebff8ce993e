"""Which reference spots a prediction attended to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.sparse import csr_matrix, issparse

from spahgc._keys import UNS, Obs, Obsm, Uns
from spahgc._parameters import NETWORK
from spahgc._slides.matrix import in_memory
from spahgc._slides.spot_names import spot_position
from spahgc._slides.tables import table_of
from spahgc._validate import check_anndata, quoted
from spahgc.tl._prediction import reference_spots

if TYPE_CHECKING:
    from spatialdata import SpatialData


BY = ("spot", "slide")
PREDICT = "Run spahgc.tl.predict(adata, refs) "


def attribution(
    adata: AnnData | SpatialData,
    spot: str | int,
    *,
    key: str = "spahgc",
    by: Literal["spot", "slide"] = "spot",
    table_key: str | None = None,
) -> pd.DataFrame:
    """List the reference spots, or slides, to which the prediction of a spot attended.

    Retrieval joins a target spot to the reference spots of highest cosine similarity; attention then weighs these. The
    weight is the mean over the networks, over their layers and the pooling before the head, and over the heads.

    The weights say which reference spots the graph attended to, and attention is no explanation of the values. In
    ``preset="default"`` moreover a linear path from the image carries most of the prediction; the graph adds to it.
    Where all weights are near one over the number of retrieved spots, the networks hardly tell these apart, and the
    retrieval is what has chosen.

    Parameters
    ----------
    adata
        A slide with a prediction by the network, AnnData or SpatialData.
    spot
        Name of the target spot in ``obs_names``, or its position from 0.
    key
        Key of the prediction.
    by
        ``"spot"``, or ``"slide"`` for sums over the spots of a reference slide.
    table_key
        Key of the table of a SpatialData; ``None`` takes the only one.

    Returns
    -------
    By spot, one row a retrieved reference spot, largest attention first:

    - ``rank``: from 1;
    - ``slide``, ``spot``: names of the reference and of its spot;
    - ``similarity``: cosine similarity of the features of the two spots;
    - ``attention``: 0 to 1; the column sums to 1.

    By slide, one row a reference slide with a retrieved spot: ``rank``, ``slide``, ``n_spots`` (how many were
    retrieved), ``similarity`` (their mean), ``attention`` (their sum). Nothing is written.

    Raises
    ------
    KeyError
        If there is no such spot or prediction, or if what the prediction wrote beside its layer is gone.
    ValueError
        If a baseline made the prediction, if the spot was measured and a reference of it, if the model was trained for 0 epochs (its line looks at no reference spot),
        if the graph was overwritten since, or if ``by`` is not known.

    See Also
    --------
    spahgc.pl.attribution : the same as a figure, with the patches.

    Examples
    --------
    >>> import spahgc as sp
    >>> target, *refs = sp.datasets.simulated(n_slides=3, n_spots=40, n_genes=30)
    >>> for slide in [target, *refs]:
    ...     sp.pp.embed(slide, encoder="efficientnet_lite0")
    >>> sp.tl.predict(target, refs, preset=sp.Parameters(width=16, layers=1, heads=2, epochs=1))
    >>> table = sp.tl.attribution(target, target.obs_names[0])
    >>> list(table.columns), len(table), round(float(table["attention"].sum()), 3)
    (['rank', 'slide', 'spot', 'similarity', 'attention'], 7, 1.0)
    """
    if by not in BY:
        raise ValueError(f'by="{by}" is not known. Choose one of {quoted(BY)}.')
    adata = table_of(adata, table_key, "the slide")
    check_anndata(adata, "the slide")
    row = spot_position(adata, spot)
    check_predicted_spot(adata, row, key)
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
    return table


def check_predicted_spot(adata: AnnData, row: int, key: str) -> None:
    """Refuse a spot that was a reference of the prediction and not predicted itself."""
    if reference_spots(adata, key)[row]:
        raise ValueError(
            f'spot "{adata.obs_names[row]}" was measured and served as a reference of the prediction "{key}" (obs["'
            f'{Obs.measured(key)}"]), so nothing was predicted there. Choose one of the others.'
        )


def attended_record(adata: AnnData, key: str) -> Mapping[str, Any]:
    """Record of a prediction by the network; refuses one without a graph."""
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
    if not int(record.get("epochs_trained", 1)):
        raise ValueError(
            f'the prediction "{key}" comes from a model that was trained for 0 epochs: a line predicts from the image '
            "alone, and no reference spot has a weight in it. Predict with a preset of more epochs."
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
