"""Cell types of spots and cells: scores of signatures, and the label of the highest."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData

from spahgc._keys import UNKNOWN, UNS, Obs, Uns
from spahgc._settings import versions
from spahgc._slides.measured import log_expression
from spahgc._slides.tables import is_spatialdata, table_of, with_table
from spahgc._slides.tissue import spots_on_tissue, warn_of_glass
from spahgc._spots.rows import blocks_of
from spahgc._validate import check_anndata, quoted
from spahgc.tl._decoupler import METHODS, MLM, ULM, check_independent, require_decoupler, scores, weight_matrix
from spahgc.tl._gene_sets import TARGET, Net, gene_sets
from spahgc.tl._prediction import check_new_key, prediction_and_panel, reference_spots
from spahgc.tl._trust_record import LOW_SUPPORT, unknown_spots
from spahgc.tl._trusted import trusted_genes
from spahgc.tl._type_profiles import type_profiles

if TYPE_CHECKING:
    from spatialdata import SpatialData

MEASURED = "measured"
"""What names begin with where measured values were scored."""
MIN_SCORE = 1.65
"""Score that a label needs: of a t or z value, which scores are, one of twenty is larger where the genes say nothing."""
SPREAD = 1e-12
"""Standard deviation over the genes, relative to the largest value, below which a spot has no spread at all."""


def cell_types(
    adata: AnnData | SpatialData,
    signatures: Net | AnnData,
    *,
    groupby: str | None = None,
    key: str | None = "spahgc",
    layer: str | None = None,
    units: str | None = None,
    trusted: bool = False,
    method: str = ULM,
    center: bool = True,
    min_genes: int = 5,
    min_score: float = MIN_SCORE,
    min_support: float = LOW_SUPPORT,
    key_added: str | None = None,
    table_key: str | None = None,
    copy: bool = False,
) -> AnnData | SpatialData | None:
    """Score cell types in every spot or cell by its predicted or measured expression, and label it by the highest score.

    The scores are those of `decoupler <https://decoupler.readthedocs.io>`_; it is installed by ``pip install "spahgc[enrich]"``.
    Nothing is downloaded: the signatures are the user's, or come from single cells that somebody annotated.

    Parameters
    ----------
    adata
        A slide with a prediction in ``layers[key]``, or a measured one with ``key=None``; or a SpatialData with such a table.
    signatures
        Marker genes of each type: path of a GMT file; a dictionary of lists of genes, or of dictionaries of their weights; or a
        table with a row for each gene of each type, ``source``, ``target`` and, if there is one, ``weight``. Or an AnnData of
        annotated single cells: the weight of a gene in a type is then the mean of the type's cells less the mean over the types.
    groupby
        Column of ``obs`` of these single cells that names their type.
    key
        Key of the prediction; ``None`` scores what was measured on the slide.
    layer
        Layer with the measured counts; ``None`` takes ``X``. For ``key=None`` alone, as is `units`.
    units
        What the measured values are, as in :func:`spahgc.tl.predict`; ``None`` finds out.
    trusted
        Take only the genes of :func:`spahgc.tl.trusted_genes`, at its defaults.
    method
        A method of decoupler: ``"ulm"`` (t value of the signature's weights in a regression of the spot's expression, a type at a
        time), ``"mlm"`` (the same with all types at once) or ``"zscore"``.
    center
        Subtract each gene's mean over the spots first. A score then says whether a type is more present than it is on average on
        this slide; without it mostly whether its genes are high or low ones.
    min_genes
        Types with fewer genes on the slide are left out.
    min_score
        Score that a label needs; below it a spot is ``"unknown"``.
    min_support
        Support of the prediction below which a label is ``"unknown"``, 0 to 1; 0 looks at none. Without effect on measured
        values, and where the prediction says nothing of support.
    key_added
        What the names of results are; ``None`` takes ``f"{key}_cell_types"``, and ``"measured_cell_types"`` for ``key=None``.
    table_key
        Key of the table of a SpatialData; ``None`` takes the only one.
    copy
        Return a changed copy instead of writing into ``adata``; of a SpatialData a new one that shares all but the table.

    Returns
    -------
    ``None``, or the copy. Written are

    - ``obs["spahgc_cell_types"]``: categorical, the type of the highest score, or ``"unknown"``; missing in spots that were not
      predicted: off the tissue, or measured ones that were a reference;
    - ``obsm["spahgc_cell_types"]``: table of spots x types, the scores; NaN where there is no expression to score;
    - ``uns["spahgc"]["cell_types"]["spahgc_cell_types"]``: ``key``, ``method``, parameters, ``n_genes`` that were there,
      ``n_genes_of_type``, ``left_out`` (types with too few genes), ``n_unknown``, how many of these for their support
      (``n_low_support``) and their score (``n_low_score``), and of single cells how many stand behind each type.

    Raises
    ------
    FileNotFoundError
        If there is no such file of signatures.
    KeyError
        If there is no prediction under this key, no such column of the single cells, or, with ``trusted``, nothing is known of
        trust.
    ValueError
        If signatures are malformed, no type has ``min_genes`` genes on the slide, or a number is out of its range.
    ImportError
        If decoupler is not installed.

    Warns
    -----
    UserWarning
        If types are left out since they have too few genes or too few cells.

    See Also
    --------
    spahgc.tl.transfer : labels of annotated slides by what their spots look like.
    spahgc.tl.enrich : pathways, with a test of which stand out.

    Notes
    -----
    A label names what a spot shows more of than the slide does on average. A spot of Visium holds several cells; its label is
    the type that stands out, not the only one. Nothing of a prediction is known beyond its genes: types whose markers were not
    predicted well get labels that mean little, and ``trusted=True`` leaves such genes out.

    Examples
    --------
    >>> import spahgc as sp
    >>> (slide,) = sp.datasets.simulated(n_slides=1, n_patients=1, n_spots=40, n_genes=40, n_domains=2)
    >>> highest = slide.uns["truth"]["loadings"].argmax(axis=1)
    >>> marks = slide.var["truth_kind"] == "morphology"
    >>> markers = {name: list(slide.var_names[marks & (highest == i)]) for i, name in enumerate(["tumour", "stroma"])}
    >>> sp.tl.cell_types(slide, markers, key=None)
    >>> list(slide.obsm["measured_cell_types"])
    ['tumour', 'stroma']
    """
    require_decoupler()
    _check_arguments(key, layer, units, trusted, method, min_genes, min_score, min_support)
    written = check_new_key(Obs.cell_types(MEASURED if key is None else key) if key_added is None else key_added, "obs")
    data, adata = adata, table_of(adata, table_key, "the slide")
    check_anndata(adata, "the slide")
    shown = _measured(adata, layer, units) if key is None else _predicted(adata, key, trusted)
    net, of_reference = _signatures(signatures, groupby, shown.genes)
    weights, _, left_out = weight_matrix(net, shown.genes, min_genes, kinds=("type", "types"))
    if UNKNOWN in weights.columns:
        raise ValueError(f'a type is called "{UNKNOWN}", which is the label of spots that look like none. Rename it.')
    if method == MLM:
        check_independent(weights)
    if of_reference is not None:
        # Between genes that the slide and the single cells share: of others nothing is known.
        shared = weights.index.isin(net[TARGET])
        shown, weights = shown.only(shared), weights[shared]
    found = shown.scores(weights, method, center)
    low = unknown_spots(adata, key, min_support) if key is not None else np.zeros(adata.n_obs, dtype=bool)
    labels, counts = _labels(found, list(weights.columns), shown.rows, low, min_score, adata.n_obs)
    record: dict[str, Any] = {
        "key": MEASURED if key is None else key,
        "method": method,
        "center": bool(center),
        "trusted": bool(trusted),
        "min_genes": int(min_genes),
        "min_score": float(min_score),
        "min_support": float(min_support),
        "n_genes": len(weights),
        "n_genes_of_type": {str(name): int((weights[name] != 0).sum()) for name in weights},
        "left_out": left_out,
        **counts,
        **({} if of_reference is None else {"reference": of_reference}),
        "versions": versions() | {"decoupler": version("decoupler")},
    }
    adata = adata.copy() if copy else adata
    everywhere = np.full((adata.n_obs, weights.shape[1]), np.nan)
    everywhere[shown.rows] = found
    adata.obsm[written] = pd.DataFrame(everywhere, index=adata.obs_names, columns=list(weights.columns))
    adata.obs[written] = labels
    uns = adata.uns.setdefault(UNS, {})
    uns[Uns.cell_types] = {**uns.get(Uns.cell_types, {}), written: record}
    return with_table(data, adata, table_key) if copy else None


@dataclass(frozen=True, eq=False)
class Shown:
    """Expression of spots that can be scored, read in blocks.

    Parameters
    ----------
    rows
        Numbers of these spots on the slide.
    genes
        Names of the columns.
    values
        Spots x genes, an array or CSR.
    """

    rows: np.ndarray
    genes: list[str]
    values: Any

    def only(self, genes: np.ndarray) -> Shown:
        """With some of the genes."""
        return Shown(
            self.rows, [name for name, kept in zip(self.genes, genes, strict=True) if kept], self.values[:, genes]
        )

    def scores(self, weights: pd.DataFrame, method: str, center: bool) -> np.ndarray:
        """Scores, spots x types; NaN where a spot has the same value in all genes."""
        found = np.empty((len(self.rows), weights.shape[1]))
        mean = np.asarray(self.values.mean(axis=0, dtype=np.float64)).ravel() if center else 0.0
        for rows in blocks_of(len(self.rows)):
            block = self.values[rows]
            dense = np.asarray(block.toarray() if hasattr(block, "toarray") else block, dtype=np.float64)
            empty = np.ptp(dense, axis=1) == 0
            dense = dense - mean
            flat = empty | (dense.std(axis=1) <= SPREAD * max(float(np.abs(dense).max()), SPREAD))
            found[rows] = np.nan
            if not flat.all():
                found[np.arange(rows.start, min(rows.stop, len(found)))[~flat]] = scores(dense[~flat], weights, method)
        return found


def _measured(adata: AnnData, layer: str | None, units: str | None) -> Shown:
    """What was measured on the tissue, log1p counts per 10,000."""
    on_tissue = spots_on_tissue(adata, "the slide")
    expression = log_expression(adata, layer=layer, units=units, label="the slide")
    rows = np.arange(adata.n_obs)
    if on_tissue is not None:
        warn_of_glass(on_tissue, "the slide", "get no cell type")
        rows, expression = rows[on_tissue], expression[on_tissue]
    if not expression.nnz:
        raise ValueError(
            "the slide has no counts at all: there is nothing to score. Pass layer= with its counts, or key= with a prediction."
        )
    return Shown(rows, [str(gene) for gene in adata.var_names], expression)


def _predicted(adata: AnnData, key: str, trusted: bool) -> Shown:
    """A prediction at the spots that have one."""
    values, panel = prediction_and_panel(adata, key)
    if trusted:
        genes = trusted_genes(adata, key=key)
        if not genes:
            raise ValueError(
                f'no gene of layers["{key}"] can be trusted, so there is nothing to score. Pass trusted=False to score all {int(panel.sum())} '
                "genes of the panel all the same."
            )
        panel = panel & adata.var_names.isin(genes)
    if not panel.any():
        raise ValueError(f'the panel of layers["{key}"] is empty: no gene was predicted. Run spahgc.tl.predict again.')
    inside = values[:, panel]
    nothing = np.isnan(inside).all(axis=1) | reference_spots(adata, key)
    inside = inside[~nothing]
    if not len(inside) or not np.isfinite(inside).all():
        raise ValueError(
            f'layers["{key}"] has {int((~np.isfinite(inside)).sum())} NaN or infinite values inside its panel at {len(inside)} predicted '
            "spots. Run spahgc.tl.predict again."
        )
    return Shown(np.flatnonzero(~nothing), [str(gene) for gene in adata.var_names[panel]], inside)


def _signatures(
    signatures: Net | AnnData, groupby: str | None, genes: list[str]
) -> tuple[pd.DataFrame, dict[str, Any] | None]:
    """Weights of genes in types, and what is known of the single cells that they come from, if they do."""
    if is_spatialdata(signatures):
        raise TypeError("signatures are a SpatialData; pass its table, an AnnData of annotated cells, with groupby=.")
    if not isinstance(signatures, AnnData):
        if groupby is not None:
            raise ValueError(
                f'groupby="{groupby}" names a column of annotated single cells, and the signatures are no AnnData. Leave it out.'
            )
        return gene_sets(signatures), None
    if groupby is None:
        raise ValueError(
            f"the signatures are an AnnData of single cells; pass groupby= with the column of obs that names their type: it has "
            f"{quoted(signatures.obs)}."
        )
    net, used = type_profiles(signatures, groupby, genes, UNKNOWN)
    return gene_sets(net), used


def _labels(
    found: np.ndarray, types: list[str], rows: np.ndarray, low_support: np.ndarray, min_score: float, n_spots: int
) -> tuple[pd.Categorical, dict[str, int]]:
    """Label of every spot of the slide, and how many are unknown and why."""
    best = np.where(np.isnan(found), -np.inf, found)
    low_score = best.max(axis=1) < min_score
    chosen = np.asarray(types, dtype=object)[best.argmax(axis=1)]
    chosen[low_score | low_support[rows]] = UNKNOWN
    everywhere = np.full(n_spots, None, dtype=object)
    everywhere[rows] = chosen
    counts = {
        "n_unknown": int((chosen == UNKNOWN).sum()),
        "n_low_support": int(low_support[rows].sum()),
        "n_low_score": int(low_score.sum()),
    }
    return pd.Categorical(everywhere, categories=[*types, UNKNOWN]), counts


def _check_arguments(
    key: str | None,
    layer: str | None,
    units: str | None,
    trusted: bool,
    method: str,
    min_genes: int,
    min_score: float,
    min_support: float,
) -> None:
    if method not in METHODS:
        raise ValueError(f'method="{method}" is not known. Choose one of {", ".join(METHODS)}.')
    if key is not None and (layer is not None or units is not None):
        raise ValueError(
            f'layer= and units= are of what was measured, and key="{key}" names a prediction. Pass key=None to score the measured values.'
        )
    if key is None and trusted:
        raise ValueError(
            "trusted=True is said of predicted genes, and key=None scores the measured ones. Leave it out."
        )
    if isinstance(min_genes, bool) or not isinstance(min_genes, int | np.integer) or min_genes < 1:
        raise ValueError(f"min_genes is {min_genes!r}; pass a whole number of at least 1.")
    if not np.isfinite(min_score):
        raise ValueError(f"min_score is {min_score!r}; pass a finite number, 0 for any score above nothing.")
    if not 0 <= min_support <= 1:
        raise ValueError(f"min_support={min_support!r}; support lies between 0 and 1, so pass a number between them.")
