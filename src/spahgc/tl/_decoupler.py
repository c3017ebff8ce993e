"""Scores of gene sets by decoupler: what it is given, and what it gives back."""

from __future__ import annotations

import importlib.util

import numpy as np
import pandas as pd

from spahgc._installation import install_command
from spahgc._logging import warn
from spahgc._validate import quoted
from spahgc.tl._gene_sets import SOURCE, TARGET, WEIGHT

ULM, MLM, ZSCORE = METHODS = ("ulm", "mlm", "zscore")


def require_decoupler() -> None:
    """Name the extra where the package is missing."""
    if importlib.util.find_spec("decoupler") is None:
        raise ImportError(
            f"gene sets are scored by decoupler, which is not installed. Run {install_command('enrich')}."
        )


def weight_matrix(
    net: pd.DataFrame, genes: list[str], min_genes: int, *, kinds: tuple[str, str] = ("pathway", "pathways")
) -> tuple[pd.DataFrame, pd.Series, list[str]]:
    """Weights of the panel's genes in the pathways that can be scored, genes x pathways in the order of the net.

    Also the number of genes of every pathway, inside the panel or not, and the pathways with too few inside. `kinds` is how messages
    call one of them and several.
    """
    one, several = kinds
    sizes = net.groupby(SOURCE, sort=False).size()
    inside = net[net[TARGET].isin(genes)]
    counts = inside.groupby(SOURCE, sort=False).size().reindex(sizes.index, fill_value=0)
    kept = list(counts.index[counts >= min_genes])
    if not kept:
        best = str(counts.idxmax())
        raise ValueError(
            f'no {one} has min_genes={min_genes} of the {len(genes)} genes of the panel: the best is "{best}" with '
            f"{counts[best]} of its {sizes[best]}. The panel looks like {quoted(genes, 3)}, the {several}' genes like "
            f"{quoted(pd.unique(net[TARGET]), 3)}. Check species and kind of gene names, or lower min_genes."
        )
    weights = inside.pivot(index=TARGET, columns=SOURCE, values=WEIGHT).reindex(index=genes, columns=kept).fillna(0.0)
    whole = np.ptp(weights.to_numpy(), axis=0) == 0
    if whole.all():
        raise ValueError(
            f"all {several} that can be scored ({quoted(kept)}) hold the whole panel of {len(genes)} genes at one "
            f"weight, so that no gene is outside to compare with. Predict more genes, or pass smaller {several}."
        )
    if whole.any():
        warn(
            f"{int(whole.sum())} {several} ({quoted(weights.columns[whole])}) hold the whole panel at one weight and are "
            "left out: no gene is outside to compare with.",
            stacklevel=3,
        )
    weights = weights.loc[:, ~whole]
    return weights, sizes[weights.columns], [name for name in sizes.index if name not in set(weights.columns)]


def check_independent(weights: pd.DataFrame) -> None:
    """Refuse pathways that no regression on all of them at once can tell apart."""
    n_genes, n_pathways = weights.shape
    rank = np.linalg.matrix_rank(np.column_stack([np.ones(n_genes), weights.to_numpy()]))
    if rank <= n_pathways or n_genes <= n_pathways + 1:
        raise ValueError(
            f'method="{MLM}" fits {n_pathways} pathways at once to {n_genes} genes, of which at most {rank - 1} are '
            f'independent of each other in this panel. Remove redundant ones, or use method="{ULM}".'
        )


def scores(expression: np.ndarray, weights: pd.DataFrame, method: str) -> np.ndarray:
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
    found, _ = getattr(decoupler.mt, method)(pd.DataFrame(expression, columns=genes), net, tmin=1, empty=False)
    return np.asarray(found[pathways], dtype=np.float64)
