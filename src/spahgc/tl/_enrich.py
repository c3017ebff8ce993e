"""Pathways in the predicted expression: a score for each spot, and whether the pathway stands out from the panel."""

from __future__ import annotations

import importlib.util
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData

from spahgc._keys import UNS, Obsm, Uns
from spahgc._logging import warn
from spahgc._settings import progress_bar, versions
from spahgc._slides.tables import table_of, with_table
from spahgc._validate import quoted
from spahgc.tl._gene_sets import SOURCE, TARGET, WEIGHT, Net, gene_sets
from spahgc.tl._prediction import check_new_key, predicted_expression, reference_spots

if TYPE_CHECKING:
    from spatialdata import SpatialData

ULM, MLM, ZSCORE = METHODS = ("ulm", "mlm", "zscore")

CHUNK_VALUES = 5_000_000
"""Scores of permuted pathways that are held at a time (40 MB)."""

TIE = 1e-9
"""Relative difference below which a permuted statistic counts as equal: the same sum in another order."""

SPREAD = 1e-12
"""Standard deviation over the genes, relative to the largest value, below which a spot has no spread at all."""


def enrich(
    adata: AnnData | SpatialData,
    net: Net,
    *,
    key: str = "spahgc",
    method: str = ULM,
    center: bool = True,
    min_genes: int = 5,
    n_permutations: int = 1000,
    seed: int = 0,
    key_added: str | None = None,
    table_key: str | None = None,
    copy: bool = False,
) -> AnnData | SpatialData | None:
    """Score pathways in every spot of a slide by its predicted expression, and test which of them stand out.

    The scores are those of `decoupler <https://decoupler.readthedocs.io>`_ on the genes of the panel; it is installed
    by ``pip install "spahgc[enrich]"``. Nothing is downloaded: the gene sets are the user's.

    Parameters
    ----------
    adata
        A slide with a prediction in ``layers[key]``, or a SpatialData with such a table. Its counts are not looked at.
    net
        Path of a GMT file; a dictionary of pathways, each a list of genes or a dictionary of their weights; or a table with a row
        for each gene of each pathway: ``source``, ``target`` and, if there is one, ``weight``.
    key
        Key of the prediction.
    method
        A method of decoupler: ``"ulm"`` (t value of the pathway's weights in a regression of the spot's expression,
        a pathway at a time), ``"mlm"`` (the same with all pathways at once) or ``"zscore"``.
    center
        Subtract each gene's mean over the spots first. A score then says whether the pathway is above or below its own
        average over the slide; without it mostly whether its genes are high or low ones.
    min_genes
        Pathways with fewer genes in the panel are left out.
    n_permutations
        Permutations of the null distribution; the smallest p value is ``1 / (1 + n_permutations)``.
    seed
        Seed of the permutations.
    key_added
        Key in ``obsm``; ``None`` takes ``f"{key}_enrichment"``.
    table_key
        Key of the table of a SpatialData; ``None`` takes the only one.
    copy
        Return a changed copy instead of writing into ``adata``; of a SpatialData a new one that shares all but the
        table.

    Returns
    -------
    ``None``, or the copy. Written are

    - ``obsm["spahgc_enrichment"]``: table of spots x pathways, the scores;
    - ``uns["spahgc"]["enrichment"]["spahgc"]``: method, parameters, seed, ``left_out`` (pathways with too few genes in
      the panel), and ``table`` with a row a pathway: ``n_genes`` (in the panel), ``n_genes_in_set``, ``variance`` (of
      the score over the spots), ``null_variance`` (its mean over the permutations), ``p_value``, ``q_value``. With
      ``key_added`` the record goes by that name.

    Raises
    ------
    FileNotFoundError
        If there is no such gene-set file.
    KeyError
        If there is no prediction under this key.
    ValueError
        If the gene sets are malformed, if no pathway has ``min_genes`` genes in the panel, or if a number is out of its
        range.
    ImportError
        If decoupler is not installed.

    Notes
    -----
    The null hypothesis is that the genes of a pathway are any genes of the panel. Names of genes are permuted among the
    panel, so that every pathway keeps its size, its weights and its overlap with the others, and the expression keeps
    the correlation of its genes; the scores are computed anew. The statistic is the variance of the score over the
    spots: large where the genes of a pathway rise and fall together on the tissue, small where they go their own ways
    and cancel. It is one-sided, ``p = (1 + number of permutations with at least the observed variance) /
    (1 + n_permutations)``, and ``q`` is adjusted over the pathways after Benjamini and Hochberg. A panel was chosen for
    its variable genes: a pathway is compared with these, not with the genome, and a p value says nothing about whether
    the prediction is right.

    With ``"ulm"``, 4,000 spots x 300 genes x 50 pathways x 1,000 permutations take about a quarter of a minute on one
    core; the time grows with the product of the four. The other methods call decoupler once for each permutation, and
    take ten to twenty times as long.

    Examples
    --------
    >>> import pandas as pd
    >>> import spahgc as sp
    >>> (slide,) = sp.datasets.simulated(n_slides=1, n_patients=1, n_spots=40, n_genes=20)
    >>> slide.layers["oracle"] = slide.layers["truth"]
    >>> slide.var["oracle_panel"] = True
    >>> net = pd.DataFrame({"source": "MARKERS", "target": slide.var_names[:6]})
    >>> sp.tl.enrich(slide, net, key="oracle", n_permutations=100)
    >>> slide.obsm["oracle_enrichment"].shape
    (40, 1)
    """
    _require_decoupler()
    _check_arguments(method, min_genes, n_permutations, seed)
    written = check_new_key(Obsm.enrichment(key) if key_added is None else key_added, "obsm")
    data, adata = adata, table_of(adata, table_key, "the slide")
    expression, genes = predicted_expression(adata, key)
    if center:
        expression -= expression.mean(axis=0)
    predicted = ~reference_spots(adata, key)
    _check_spread(expression, adata[predicted], center)
    net = gene_sets(net)
    weights, sizes, left_out = _weight_matrix(net, genes, min_genes)
    if method == MLM:
        _check_independent(weights)

    scores = _scores(expression, weights, method)
    observed = scores.var(axis=0)
    null = _null_variances(expression, weights, method, n_permutations, seed)
    table = _table(observed, null, weights, sizes)
    record: dict[str, Any] = {
        "key": key,
        "obsm": written,
        "method": method,
        "center": bool(center),
        "min_genes": int(min_genes),
        "n_permutations": int(n_permutations),
        "n_genes": len(genes),
        "seed": int(seed),
        "left_out": left_out,
        "table": table,
        "versions": versions() | {"decoupler": version("decoupler")},
    }
    adata = adata.copy() if copy else adata
    of_all = np.full((adata.n_obs, scores.shape[1]), np.nan)
    of_all[predicted] = scores
    adata.obsm[written] = pd.DataFrame(of_all, index=adata.obs_names, columns=list(weights.columns))
    uns = adata.uns.setdefault(UNS, {})
    uns[Uns.enrichment] = {**uns.get(Uns.enrichment, {}), key if key_added is None else key_added: record}
    return with_table(data, adata, table_key) if copy else None


def _require_decoupler() -> None:
    if importlib.util.find_spec("decoupler") is None:
        raise ImportError('pathways are scored by decoupler, which is not installed. Run pip install "spahgc[enrich]".')


def _check_arguments(method: str, min_genes: int, n_permutations: int, seed: int) -> None:
    if method not in METHODS:
        raise ValueError(f'method="{method}" is not known. Choose one of {", ".join(METHODS)}.')
    least = {"min_genes": (min_genes, 1), "n_permutations": (n_permutations, 1), "seed": (seed, 0)}
    for name, (value, smallest) in least.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < smallest:
            raise ValueError(f"{name} is {value!r}; pass a whole number of at least {smallest}.")


def _check_spread(expression: np.ndarray, adata: AnnData, center: bool) -> None:
    """Refuse spots that no regression over the genes can be made of."""
    flat = expression.std(axis=1) <= SPREAD * np.abs(expression).max()
    if flat.any():
        found = "lie at the mean of the slide in all genes" if center else "have the same value in all genes"
        raise ValueError(
            f"{int(flat.sum())} of {adata.n_obs} spots ({quoted(adata.obs_names[flat])}) {found}, so that no pathway "
            f"can be above another. Remove these spots, or pass center={not center}."
        )


def _weight_matrix(net: pd.DataFrame, genes: list[str], min_genes: int) -> tuple[pd.DataFrame, pd.Series, list[str]]:
    """Weights of the panel's genes in the pathways that can be scored, genes x pathways in the order of the net.

    Also the number of genes of every pathway, inside the panel or not, and the pathways with too few inside.
    """
    sizes = net.groupby(SOURCE, sort=False).size()
    inside = net[net[TARGET].isin(genes)]
    counts = inside.groupby(SOURCE, sort=False).size().reindex(sizes.index, fill_value=0)
    kept = list(counts.index[counts >= min_genes])
    if not kept:
        best = str(counts.idxmax())
        raise ValueError(
            f'no pathway has min_genes={min_genes} of the {len(genes)} genes of the panel: the best is "{best}" with '
            f"{counts[best]} of its {sizes[best]}. The panel looks like {quoted(genes, 3)}, the pathways' genes like "
            f"{quoted(pd.unique(net[TARGET]), 3)}. Check species and kind of gene names, or lower min_genes."
        )
    weights = inside.pivot(index=TARGET, columns=SOURCE, values=WEIGHT).reindex(index=genes, columns=kept).fillna(0.0)
    whole = np.ptp(weights.to_numpy(), axis=0) == 0
    if whole.all():
        raise ValueError(
            f"all pathways that can be scored ({quoted(kept)}) hold the whole panel of {len(genes)} genes at one "
            "weight, so that no gene is outside to compare with. Predict more genes, or pass smaller pathways."
        )
    if whole.any():
        warn(
            f"{int(whole.sum())} pathways ({quoted(weights.columns[whole])}) hold the whole panel at one weight and are "
            "left out: no gene is outside to compare with.",
            stacklevel=3,
        )
    weights = weights.loc[:, ~whole]
    return weights, sizes[weights.columns], [name for name in sizes.index if name not in set(weights.columns)]


def _check_independent(weights: pd.DataFrame) -> None:
    n_genes, n_pathways = weights.shape
    rank = np.linalg.matrix_rank(np.column_stack([np.ones(n_genes), weights.to_numpy()]))
    if rank <= n_pathways or n_genes <= n_pathways + 1:
        raise ValueError(
            f'method="{MLM}" fits {n_pathways} pathways at once to {n_genes} genes, of which at most {rank - 1} are '
            f'independent of each other in this panel. Remove redundant ones, or use method="{ULM}".'
        )


def _scores(expression: np.ndarray, weights: pd.DataFrame, method: str) -> np.ndarray:
    """Scores of decoupler, spots x pathways in the order of ``weights``."""
    import decoupler

    # Numbers for names: decoupler sorts them, and must not trip over how the user's are spelt.
    gene, pathway = np.nonzero(weights.to_numpy())
    genes = [f"g{number}" for number in range(len(weights))]
    pathways = [f"p{number}" for number in range(weights.shape[1])]
    net = pd.DataFrame(
        {
            SOURCE: np.asarray(pathways)[pathway],
            TARGET: np.asarray(genes)[gene],
            WEIGHT: weights.to_numpy()[gene, pathway],
        }
    )
    # empty=False: a gene that is zero everywhere belongs to the panel as any other does.
    scores, _ = getattr(decoupler.mt, method)(pd.DataFrame(expression, columns=genes), net, tmin=1, empty=False)
    return np.asarray(scores[pathways], dtype=np.float64)


def _null_variances(
    expression: np.ndarray, weights: pd.DataFrame, method: str, n_permutations: int, seed: int
) -> np.ndarray:
    """Variances of the scores over the spots, permutations x pathways, with the genes' names permuted."""
    rng = np.random.default_rng(seed)
    n_genes, n_pathways = weights.shape
    at_once = max(1, CHUNK_VALUES // (max(expression.shape) * n_pathways)) if method == ULM else 1
    units = _unit_rows(expression) if method == ULM else expression
    values = weights.to_numpy()
    null = []
    with progress_bar(total=n_permutations, desc="permutations") as bar:
        for start in range(0, n_permutations, at_once):
            size = min(at_once, n_permutations - start)
            permuted = np.stack([values[rng.permutation(n_genes)] for _ in range(size)], axis=1)
            if method == ULM:
                scores = _ulm(units, permuted.reshape(n_genes, -1))
            else:
                scores = _scores(units, pd.DataFrame(permuted[:, 0], columns=weights.columns), method)
            null.append(scores.var(axis=0).reshape(size, n_pathways))
            bar.update(size)
    return np.concatenate(null)


def _unit_rows(values: np.ndarray) -> np.ndarray:
    """Rows over their length, about their mean; a row of equal values becomes 0 and correlates with nothing."""
    centred = values - values.mean(axis=1, keepdims=True)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    return centred / np.where(length > 0, length, 1.0)


def _ulm(units: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Decoupler's ulm without its p values, which would take most of the time of a permutation.

    Parameters
    ----------
    units
        Expression, spots x genes, every row of mean 0 and length 1.
    weights
        Genes x pathways.
    """
    scores = units @ _unit_rows(weights.T).T
    # t = r sqrt(df / (1 - r^2)), in place: these are the largest arrays there are.
    rest = np.square(scores)
    np.subtract(1.0, rest, out=rest)
    np.maximum(rest, np.finfo(np.float64).eps, out=rest)
    np.divide(len(weights) - 2, rest, out=rest)
    scores *= np.sqrt(rest, out=rest)
    return scores


def _table(observed: np.ndarray, null: np.ndarray, weights: pd.DataFrame, sizes: pd.Series) -> pd.DataFrame:
    from scipy.stats import false_discovery_control

    p = (1 + (null >= observed * (1 - TIE)).sum(axis=0)) / (1 + len(null))
    return pd.DataFrame(
        {
            "n_genes": (weights != 0).sum(axis=0).to_numpy(),
            "n_genes_in_set": sizes.to_numpy(),
            "variance": observed,
            "null_variance": null.mean(axis=0),
            "p_value": p,
            "q_value": false_discovery_control(p),
        },
        index=pd.Index(list(weights.columns), name="pathway"),
    )
