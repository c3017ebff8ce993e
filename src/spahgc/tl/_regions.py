"""Means of genes and pathways over regions of a slide, with intervals that know what neighbouring spots share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData

from spahgc._keys import UNITS, UNS, Layers, Obs, Uns, Varm
from spahgc._linear.shared_errors import pitch_of
from spahgc._logging import warn
from spahgc._slides.split import check_single_slide
from spahgc._slides.tables import table_of
from spahgc._spots.known import mean_where_known
from spahgc._validate import check_anndata, check_coordinates, check_genes, quoted
from spahgc.tl._drawn_regions import drawing_name, drawn_regions, is_drawn
from spahgc.tl._gene_sets import SOURCE, TARGET, WEIGHT, Net, gene_sets
from spahgc.tl._prediction import check_new_key, prediction_and_panel, prediction_record, reference_spots
from spahgc.tl._trust_record import LOW_SUPPORT, told_for

if TYPE_CHECKING:
    from spatialdata import SpatialData

SLIDE = "the slide"
"""How messages call it."""
DOMAIN = "domain"
"""What ``by`` calls the clusters of :func:`spahgc.tl.domains`."""
GENE, PATHWAY = "gene", "pathway"
MIN_GENES = 5
"""Genes that a pathway must have in the panel: the default of :func:`spahgc.tl.enrich`."""
MAX_PAIRED_SPOTS = 2_000
"""Spots of a region whose distances from each other are looked at; of a larger one so many at random, seed 0."""


def regions(
    adata: AnnData | SpatialData,
    *,
    by: Any = DOMAIN,
    key: str = "spahgc",
    genes: Sequence[str] | str | None = None,
    net: Net | None = None,
    min_genes: int = MIN_GENES,
    level: float = 0.9,
    key_added: str | None = None,
    table_key: str | None = None,
) -> pd.DataFrame:
    """Mean prediction of genes and pathways over regions, with intervals for the mean that would be measured there.

    A region's mean is predicted far better than a spot, but not as well as if its spots were independent: neighbours are off
    in the same direction, and a slide as a whole is. How much of that there is comes from references held out; the slide's
    own counts are not looked at.

    Parameters
    ----------
    adata
        A slide with a prediction of :func:`spahgc.tl.predict`, AnnData or SpatialData.
    by
        Column of ``obs`` that names the region of every spot: an annotation, or clusters. ``"domain"`` is that column if there
        is one, else the domains of :func:`spahgc.tl.domains` on this prediction. Spots without a name (NaN or empty) belong to
        no region. Or regions that somebody drew, in pixels of the full-resolution image: the path of GeoJSON, as QuPath exports
        its annotations, a GeoDataFrame, or polygons of shapely by name or in a list. A spot belongs to the region in which its
        centre lies, to the smallest of several.
    key
        Key of the prediction.
    genes
        Genes of the table; ``None`` takes the panel.
    net
        Pathways: path of a GMT file, a dictionary of lists of genes, or a table, as :func:`spahgc.tl.enrich` takes them. The
        mean of a pathway is that of its genes in the panel, weighted where there are weights.
    min_genes
        Pathways with fewer genes in the panel are left out, with a warning.
    level
        Share of intervals that should hold the measured mean, between 0 and 1.
    key_added
        Name of the table in ``uns``; ``None`` takes that of the prediction.
    table_key
        Key of the table of a SpatialData; ``None`` takes the only one.

    Returns
    -------
    One row a region and gene or pathway, regions in the order of their categories:

    - ``region``, ``feature``, ``kind`` (``"gene"`` or ``"pathway"``), ``n_genes`` (of the panel, behind the mean);
    - ``n_spots`` (that were predicted), ``n_unknown`` (of these, with a support below 0.05: they look like nothing on the
      references), ``n_effective`` (independent spots that would tell as much);
    - ``mean``, ``low``, ``high``: in the units of the prediction, ``log1p`` counts per 10,000.

    It is also written into ``uns["spahgc"]["regions"]["spahgc"]``: ``table``, ``by``, ``level`` and, where it is known,
    ``for_whom``, for which kind of target the intervals hold.

    Raises
    ------
    FileNotFoundError
        If there is no such file of gene sets or regions.
    KeyError
        If there is no prediction under this key, if it says nothing of its errors (a baseline, ``preset="paper"``,
        ``trust=False`` or an earlier version made it), or if there is no such column or gene.
    ValueError
        If no spot has a region or lies in one, a gene is outside the panel, ``level`` is no share, or no pathway has enough genes.

    See Also
    --------
    spahgc.tl.domains : regions where nobody named any.
    spahgc.tl.enrich : pathways spot by spot.

    Notes
    -----
    With ``s`` the root mean square spread of a gene over the ``n`` spots of a region and ``rho`` the mean correlation of its
    errors over all pairs of these spots, the variance of the mean's error is ``s^2 (1 + (n - 1) rho) / n``, as if there were
    ``n_effective = n / (1 + (n - 1) rho)`` independent spots: the design effect of Kish (Survey Sampling, 1965), with spots as
    the members of a cluster; Griffith (Annals of the Association of American Geographers 95, 2005) has the same for maps. The
    correlation is that of residuals of references held out over their spread, not centred, by distance in spot pitches (up to
    1.5, 2.5, 4, 6 and 9, and beyond): what pairs far apart share is what the whole slide is off by, and bounds
    ``n_effective`` by ``1 / rho`` however large a region is. It is shrunk towards genes of the same level; negative
    correlations count as none. Distances are counted in pitches of the references: of a grid that is finer or coarser in microns,
    where resolutions are known. Errors of spots of a finer grid count as alike as those of neighbouring reference spots, which
    is less than they are.

    Errors of genes of a pathway are correlated as well: their covariance, at one spot and by distance, is that on 20 patterns
    of the residuals; where it is negative in sum, the genes count as independent.

    Half the width of the interval is a quantile of Student's t times the standard error. Its degrees of freedom are those of
    what whole slides are off by (the number of references held out, or more where these were off by similar amounts) over the
    squared share that this has in the variance (Satterthwaite 1946). ``low`` is not below 0 where no value can be.

    Where the prediction is for a new patient, estimated from other cohorts, the spread is widened, but what spots share is that of
    sections of known patients: intervals of large regions may then be too narrow.

    Examples
    --------
    >>> import spahgc as sp
    >>> slide, *refs = sp.datasets.simulated(n_slides=3, n_spots=60, n_genes=30, n_domains=3)
    >>> for one in [slide, *refs]:
    ...     one.obsm["X_domains"] = one.obsm["truth_domains"]
    >>> linear = sp.Parameters(n_axes=3, line=True, epochs=0)
    >>> sp.tl.predict(slide, refs, genes="all", embedding="X_domains", preset=linear)
    >>> table = sp.tl.regions(
    ...     slide, by="domain", genes=["MORPH001"], net={"markers": ["MORPH001", "MORPH002"]}, min_genes=2
    ... )
    >>> table[["region", "feature", "kind"]].to_numpy()[:2].tolist()
    [['tumour', 'MORPH001', 'gene'], ['tumour', 'markers', 'pathway']]
    >>> bool((table["n_effective"] <= table["n_spots"]).all())
    True
    """
    if not 0 < level < 1:
        raise ValueError(f"level={level} is no share of intervals. Pass a number between 0 and 1, such as 0.9.")
    name = check_new_key(key if key_added is None else key_added, 'uns["spahgc"]["regions"]')
    adata = table_of(adata, table_key, SLIDE)
    check_anndata(adata, SLIDE)
    errors = _errors(adata, key)
    values, panel = prediction_and_panel(adata, key)
    xy = check_coordinates(adata, SLIDE)
    column, region = (drawing_name(by), drawn_regions(by, xy)) if is_drawn(by) else _regions_of(adata, by, key)
    features = _features(adata, panel, key, genes, net, min_genes)
    check_single_slide(adata, SLIDE)
    predicted = np.isfinite(values[:, panel]).all(axis=1) & ~reference_spots(adata, key)
    spread, pitch = np.asarray(adata.layers[Layers.spread(key)]), pitch_of(xy) * _references_over_own(adata, key)
    support = adata.obs.get(Obs.support(key), pd.Series(np.nan, index=adata.obs_names)).to_numpy(dtype=np.float64)
    tables, empty = [], []
    for place, label in enumerate(region.categories):
        rows = np.flatnonzero((region.codes == place) & predicted)
        if not len(rows):
            empty.append(str(label))
            continue
        root = np.sqrt(mean_where_known(np.square(spread[rows].astype(np.float64))))
        table = _interval(features, errors, values[rows].mean(axis=0, dtype=np.float64), root, xy[rows] / pitch, level)
        table.insert(0, "region", str(label))
        table.insert(4, "n_spots", len(rows))
        table.insert(5, "n_unknown", int((support[rows] < LOW_SUPPORT).sum()))
        tables.append(table)
    _say_empty(empty, len(region.categories), column)
    found = pd.concat(tables, ignore_index=True)
    if str(prediction_record(adata, key).get("units", UNITS)) == UNITS and not features.any_negative:
        found["low"] = found["low"].clip(lower=np.minimum(found["mean"], 0))
    record: dict[str, Any] = {"key": key, "by": column, "level": float(level), "table": found}
    for_whom = told_for(adata, key)
    record |= {} if for_whom is None else {Uns.for_whom: for_whom}
    uns = adata.uns.setdefault(UNS, {})
    uns[Uns.regions] = {**uns.get(Uns.regions, {}), name: record}
    return found.copy()


def _references_over_own(adata: AnnData, key: str) -> float:
    """Spacing of the references over that of the slide, where they differ and both are known; 1 elsewhere."""
    told = prediction_record(adata, key).get(Uns.surroundings, {})
    return float(told["references_um"]) / float(told["spacing_um"]) if str(told.get("by")) == "radius" else 1.0


@dataclass(frozen=True)
class _Errors:
    """What errors have in common, by gene of the slide; see :class:`spahgc._linear.shared_errors.SharedErrors`."""

    edges: np.ndarray
    correlation: np.ndarray
    loadings: np.ndarray
    covariance: np.ndarray
    freedom: float


@dataclass(frozen=True)
class _Features:
    """Genes and pathways as weights that sum to 1 in absolute value.

    Parameters
    ----------
    names, kinds, n_genes
        One each.
    columns
        Genes of the slide that any of them has.
    weights
        Features x these genes.
    """

    names: list[str]
    kinds: list[str]
    n_genes: np.ndarray
    columns: np.ndarray
    weights: Any

    @property
    def any_negative(self) -> bool:
        """Whether a mean may be below 0."""
        return bool((self.weights.data < 0).any())


def _errors(adata: AnnData, key: str) -> _Errors:
    if key not in adata.layers:
        prediction_and_panel(adata, key)  # which says so
    record = prediction_record(adata, key).get(Uns.shared_errors)
    names = Varm.error_correlation(key), Varm.error_loadings(key)
    missing = [f'varm["{name}"]' for name in names if name not in adata.varm]
    missing += [] if Layers.spread(key) in adata.layers else [f'layers["{Layers.spread(key)}"]']
    if record is None or missing:
        found = ", ".join(missing) or f'the entry "{Uns.shared_errors}" of the record of the prediction'
        raise KeyError(
            f'{found} not found: the prediction "{key}" says nothing of its errors, so that no interval can be made. A baseline, '
            'preset="paper", trust=False or an earlier version made it. Run spahgc.tl.predict(adata, refs) with method="spahgc" and '
            'preset="default".'
        )
    correlation, loadings = (np.asarray(adata.varm[name], dtype=np.float64) for name in names)
    covariance = np.asarray(record["covariance"], dtype=np.float64)
    return _Errors(
        np.asarray(record["edges"], dtype=np.float64), correlation, loadings, covariance, float(record["freedom"])
    )


def _regions_of(adata: AnnData, by: str, key: str) -> tuple[str, pd.Categorical]:
    """The column of ``obs`` that was meant, and the region of every spot; missing where it is NaN or blank."""
    column = Obs.domain(key) if by == DOMAIN and by not in adata.obs else by
    if column not in adata.obs:
        way_out = (
            f'Run spahgc.tl.domains(adata, key="{key}") first' if by == DOMAIN else "Pass by= with one of its columns"
        )
        raise KeyError(f'obs["{column}"] not found, obs has {quoted(adata.obs)}. {way_out}.')
    values = adata.obs[column]
    blank = values.isna() | (values.astype(str).str.strip() == "")
    if blank.all():
        raise ValueError(f'obs["{column}"] is NaN or empty in all {adata.n_obs} spots: there is no region.')
    return column, pd.Categorical(values.where(~blank)).remove_unused_categories()


def _features(
    adata: AnnData, panel: np.ndarray, key: str, genes: Sequence[str] | str | None, net: Net | None, min_genes: int
) -> _Features:
    """Genes, and then pathways with enough genes in the panel."""
    from scipy.sparse import csr_matrix

    of_panel = [str(gene) for gene in adata.var_names[panel]]
    if genes is None:
        names = of_panel
    else:
        names = check_genes([genes] if isinstance(genes, str) else list(genes), adata.var_names, SLIDE)
        outside = [gene for gene in names if gene not in set(of_panel)]
        if outside:
            raise ValueError(
                f'{quoted(outside)}: not in the panel of the prediction "{key}", which holds {len(of_panel)} genes: '
                f"{quoted(of_panel)}. Predict with genes=[...] that names it."
            )
    sets = pd.DataFrame({SOURCE: names, TARGET: names, WEIGHT: 1.0})
    pathways = [] if net is None else _pathways(gene_sets(net), of_panel, min_genes)
    tables = [sets, *(table for _, table in pathways)]
    columns = np.unique(adata.var_names.get_indexer(np.concatenate([table[TARGET] for table in tables])))
    position = pd.Series(np.arange(len(columns)), index=adata.var_names[columns])
    n_genes = np.array([1] * len(names) + [len(table) for _, table in pathways])
    shares = [np.asarray(table[WEIGHT] / table[WEIGHT].abs().sum(), dtype=np.float64) for _, table in pathways]
    entries: Any = (
        np.concatenate([np.ones(len(names)), *shares]),
        (
            np.repeat(np.arange(len(n_genes)), n_genes),
            position.loc[np.concatenate([table[TARGET] for table in tables])].to_numpy(),
        ),
    )
    return _Features(
        [*names, *(name for name, _ in pathways)],
        [GENE] * len(names) + [PATHWAY] * len(pathways),
        n_genes,
        columns,
        csr_matrix(entries, shape=(len(n_genes), len(columns))),
    )


def _pathways(net: pd.DataFrame, genes: list[str], min_genes: int) -> list[tuple[str, pd.DataFrame]]:
    """Name and genes in the panel of each pathway that has enough of them."""
    if isinstance(min_genes, bool) or not isinstance(min_genes, int | np.integer) or min_genes < 1:
        raise ValueError(f"min_genes is {min_genes!r}; pass a whole number of at least 1.")
    inside = {str(name): part[part[TARGET].isin(genes)] for name, part in net.groupby(SOURCE, sort=False)}
    few = [name for name, part in inside.items() if len(part) < min_genes]
    if len(few) == len(inside):
        best = max(inside, key=lambda name: len(inside[name]))
        raise ValueError(
            f'no pathway has min_genes={min_genes} of the {len(genes)} genes of the panel: the best is "{best}" with '
            f"{len(inside[best])}. The panel looks like {quoted(genes, 3)}, the pathways' genes like "
            f"{quoted(pd.unique(net[TARGET]), 3)}. Check species and kind of gene names, or lower min_genes."
        )
    if few:
        warn(
            f"{len(few)} of {len(inside)} pathways ({quoted(few)}) have fewer than min_genes={min_genes} genes in the panel and "
            "are left out.",
            stacklevel=4,
        )
    return [(name, part) for name, part in inside.items() if len(part) >= min_genes]


def _interval(
    features: _Features, errors: _Errors, mean: np.ndarray, spread: np.ndarray, places: np.ndarray, level: float
) -> pd.DataFrame:
    """Means of a region and their intervals, a row a feature.

    Parameters
    ----------
    features, errors
        What is averaged, and what errors have in common.
    mean, spread
        Of every gene of the slide over the region: mean of the prediction, root mean square of its spread.
    places
        Spot centres, spots x 2, in spot pitches.
    """
    from scipy.stats import t

    shares = pair_shares(places, errors.edges)
    of_spot, by_class = _covariances(features, errors, spread)
    n = len(places)
    variance = of_spot / n + (1 - 1 / n) * shares @ by_class
    # What pairs far apart share, all pairs share.
    of_slide = np.minimum(by_class[-1] / np.maximum(variance, np.finfo(float).tiny), 1.0)
    freedom = errors.freedom / np.maximum(np.square(of_slide), np.finfo(float).eps)
    half = t.ppf((1 + level) / 2, freedom) * np.sqrt(variance)
    centre = features.weights @ mean[features.columns]
    return pd.DataFrame(
        {
            "feature": features.names,
            "kind": features.kinds,
            "n_genes": features.n_genes,
            "n_effective": np.where(variance > 0, of_spot / np.where(variance > 0, variance, 1.0), n),
            "mean": centre,
            "low": centre - half,
            "high": centre + half,
        }
    )


def _covariances(features: _Features, errors: _Errors, spread: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Variance of each feature's error at a spot, and covariance at two spots, classes of distance x features."""
    weights = features.weights.multiply(spread[features.columns][None]).tocsr()
    squares, loadings = weights.multiply(weights).tocsr(), errors.loadings[features.columns]
    of_genes = squares @ np.column_stack([np.ones(len(loadings)), errors.correlation[features.columns]])
    scores = weights @ loadings
    found = np.empty((len(errors.covariance), len(features.names)))
    for i, covariance in enumerate(errors.covariance):
        each = np.einsum("gp,pq,gq->g", loadings, covariance, loadings, optimize=True)
        several = np.einsum("fp,pq,fq->f", scores, covariance, scores, optimize=True) - squares @ each
        found[i] = of_genes[:, i] + np.where(features.n_genes > 1, np.maximum(several, 0.0), 0.0)
    return found[0], found[1:]


def pair_shares(places: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Share of the pairs of spots in each class of distance; all 0 for a single spot."""
    from scipy.spatial.distance import pdist

    if len(places) > MAX_PAIRED_SPOTS:
        places = places[np.random.default_rng(0).choice(len(places), MAX_PAIRED_SPOTS, replace=False)]
    counts = np.bincount(np.searchsorted(edges, pdist(places), side="left"), minlength=len(edges) + 1)
    return counts / max(counts.sum(), 1)


def _say_empty(empty: list[str], n_regions: int, column: str) -> None:
    if len(empty) == n_regions:
        raise ValueError(f'obs["{column}"] names no spot that was predicted: there is no mean.')
    if empty:
        warn(
            f'{len(empty)} regions of obs["{column}"] ({quoted(empty)}) hold no spot that was predicted and are left out.',
            stacklevel=3,
        )
