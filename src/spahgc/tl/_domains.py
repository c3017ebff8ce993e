"""Tissue domains: clusters of spots by their predicted expression."""

from __future__ import annotations

import importlib.util
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData

from spahgc._installation import install_command
from spahgc._keys import UNS, Obs, Uns
from spahgc._settings import hint, versions
from spahgc._slides.tables import table_of, with_table
from spahgc._validate import quoted
from spahgc.tl._prediction import check_new_key, predicted_expression, reference_spots

if TYPE_CHECKING:
    from spatialdata import SpatialData

KMEANS, LEIDEN = "kmeans", "leiden"

N_STARTS = 20
"""Starts of k-means, of which the best is kept; with a single one the result would hang on the seed."""

UNTIL_STABLE = -1
"""Leiden iterates until nothing moves any more."""


def domains(
    adata: AnnData | SpatialData,
    *,
    key: str = "spahgc",
    n_domains: int | None = None,
    resolution: float = 1.0,
    n_components: int = 20,
    n_neighbors: int = 15,
    label: str | None = None,
    key_added: str | None = None,
    seed: int = 0,
    table_key: str | None = None,
    copy: bool = False,
) -> AnnData | SpatialData | None:
    """Cluster the spots of a slide by their predicted expression.

    The genes of the panel are centred and reduced to principal components. With ``n_domains`` k-means divides the spots
    into exactly that many clusters; without it Leiden finds their number from the graph of nearest neighbours. Neither
    the counts of the slide, nor positions, nor the label are looked at.

    Parameters
    ----------
    adata
        A slide with a prediction in ``layers[key]``; or a SpatialData with such a table.
    key
        Key of the prediction.
    n_domains
        Number of clusters; ``None`` leaves it to Leiden, which needs ``pip install "spahgc[domains]"``.
    resolution
        Resolution of Leiden: a larger one finds more clusters. Without effect where ``n_domains`` is given.
    n_components
        Principal components, at most; no more than genes of the panel or spots less one.
    n_neighbors
        Neighbours of a spot in Leiden's graph. Without effect where ``n_domains`` is given.
    label
        Column of ``obs`` with an annotation to compare with, such as a pathologist's. Spots without one (NaN or empty)
        are left out of the comparison.
    key_added
        Column of ``obs`` to write; ``None`` takes ``f"{key}_domain"``.
    seed
        Seed of the clustering.
    table_key
        Key of the table of a SpatialData; ``None`` takes the only one.
    copy
        Return a changed copy instead of writing into ``adata``; of a SpatialData a new one that shares all but the
        table.

    Returns
    -------
    ``None``, or the copy. Written are

    - ``obs["spahgc_domain"]``: categorical, ``"0"`` is the largest domain, ``"1"`` the next, and so on; missing in measured
      spots that were a reference of the prediction;
    - ``uns["spahgc"]["domains"]["spahgc"]``: method, parameters, seed, number of domains and, where a label was named,
      the adjusted Rand index against it (``adjusted_rand_index``: 1 where both divide the spots alike, around 0 where
      they agree by chance) and how many spots it rests on. With ``key_added`` the record goes by that name.

    Two runs with one seed agree, and the order of the spots has no influence.

    Raises
    ------
    KeyError
        If there is no prediction under this key, or no such label.
    ValueError
        If a number is out of its range, if all spots are predicted alike, or if no spot has a label.
    ImportError
        If Leiden is asked for and ``igraph`` is not installed.

    Examples
    --------
    >>> import spahgc as sp
    >>> (slide,) = sp.datasets.simulated(n_slides=1, n_patients=1, n_spots=40, n_genes=20)
    >>> slide.layers["oracle"] = slide.layers["truth"]
    >>> slide.var["oracle_panel"] = True
    >>> sp.tl.domains(slide, key="oracle", n_domains=3, label="domain")
    >>> list(slide.obs["oracle_domain"].cat.categories)
    ['0', '1', '2']
    """
    written = check_new_key(Obs.domain(key) if key_added is None else key_added, "obs")
    data, adata = adata, table_of(adata, table_key, "the slide")
    expression, genes = predicted_expression(adata, key)
    predicted = ~reference_spots(adata, key)
    annotation = None if label is None else _annotation(adata[predicted], label, written)
    # What a seeded start does depends on the order of its rows. In an order that follows from their contents alone the
    # same spots give the same domains, however the object is sorted.
    order = _canonical_order(expression)
    ordered = expression[order]
    _check_numbers(ordered, n_domains, resolution, n_components, n_neighbors, seed)
    method = LEIDEN if n_domains is None else KMEANS
    if method == LEIDEN:
        _require_igraph()
    components = _principal_components(ordered, n_components, seed)
    clusters = np.empty(len(expression), dtype=np.int64)
    if n_domains is None:
        clusters[order] = _largest_first(_leiden(components, n_neighbors, resolution, seed))
    else:
        clusters[order] = _largest_first(_kmeans(components, n_domains, seed))
    record: dict[str, Any] = {
        "key": key,
        "obs": written,
        "method": method,
        "n_domains": int(clusters.max()) + 1,
        "n_genes": len(genes),
        "n_components": components.shape[1],
        "seed": int(seed),
        "versions": versions() | {"scikit-learn": version("scikit-learn")},
    }
    if method == LEIDEN:
        record |= {"resolution": float(resolution), "n_neighbors": int(n_neighbors)}
    if annotation is not None:
        record |= {"label": label} | _agreement(clusters, annotation)
    adata = adata.copy() if copy else adata
    names = [str(number) for number in range(record["n_domains"])]
    of_spots = np.full(adata.n_obs, None, dtype=object)
    of_spots[predicted] = clusters.astype(str)
    adata.obs[written] = pd.Categorical(of_spots, categories=names)
    uns = adata.uns.setdefault(UNS, {})
    uns[Uns.domains] = {**uns.get(Uns.domains, {}), key if key_added is None else key_added: record}
    hint(f'written: obs["{written}"]')
    return with_table(data, adata, table_key) if copy else None


def _annotation(adata: AnnData, label: str, written: str) -> pd.Series:
    """The label of every spot as a string; missing where it is NaN or blank."""
    if label not in adata.obs:
        raise KeyError(f'obs["{label}"] not found, obs has {quoted(adata.obs)}. Pass label= with one of its columns.')
    if label == written:
        raise ValueError(f'label="{label}" is the column that is about to be written. Pass another key_added=.')
    column = adata.obs[label]
    names = column.astype(str).str.strip()
    names = names.where(column.notna() & (names != ""))
    if names.isna().all():
        raise ValueError(
            f'obs["{label}"] is NaN or empty in all {adata.n_obs} spots: there is nothing to compare with.'
        )
    return names


def _check_numbers(
    ordered: np.ndarray,
    n_domains: int | None,
    resolution: float,
    n_components: int,
    n_neighbors: int,
    seed: int,
) -> None:
    n_distinct = 1 + int(np.any(ordered[1:] != ordered[:-1], axis=1).sum())
    ranges: list[tuple[str, int, int, float]] = [
        ("n_components", n_components, 1, np.inf),
        ("seed", seed, 0, 2**32 - 1),
    ]
    if n_domains is None:
        ranges.append(("n_neighbors", n_neighbors, 2, len(ordered) - 1))
        if not (np.isfinite(resolution) and resolution > 0):
            raise ValueError(f"resolution is {resolution}; pass a positive number.")
    else:
        ranges.append(("n_domains", n_domains, 2, n_distinct))
    for name, value, least, most in ranges:
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or not least <= value <= most:
            limit = f"of at least {least}" if most == np.inf else f"from {least} to {most}"
            raise ValueError(
                f"{name} is {value!r}; pass a whole number {limit} (the slide has {len(ordered)} spots, {n_distinct} "
                "of them predicted differently)."
            )


def _require_igraph() -> None:
    if importlib.util.find_spec("igraph") is None:
        raise ImportError(
            "without n_domains= the number of domains is found by Leiden, which needs igraph. Run "
            f"{install_command('domains')}, or pass n_domains=."
        )


def _canonical_order(expression: np.ndarray) -> np.ndarray:
    """Order of the rows that depends on their contents alone: by their bytes, which is arbitrary but quick."""
    # Adding zero turns -0.0 into 0.0, so that equal rows have equal bytes.
    rows = np.ascontiguousarray(expression + 0.0)
    return np.argsort(rows.view(np.dtype((np.void, rows.itemsize * rows.shape[1]))).ravel(), kind="stable")


def _principal_components(expression: np.ndarray, n_components: int, seed: int) -> np.ndarray:
    from sklearn.decomposition import PCA

    most = min(n_components, expression.shape[0] - 1, expression.shape[1])
    return np.asarray(PCA(n_components=most, random_state=seed).fit_transform(expression))


def _kmeans(components: np.ndarray, n_domains: int, seed: int) -> np.ndarray:
    from sklearn.cluster import KMeans

    return np.asarray(KMeans(n_clusters=n_domains, n_init=N_STARTS, random_state=seed).fit_predict(components))


def _leiden(components: np.ndarray, n_neighbors: int, resolution: float, seed: int) -> np.ndarray:
    import scanpy as sc

    # An object of its own: whatever graph and components the user has made stay as they are.
    scratch = AnnData(components.astype(np.float32))
    sc.pp.neighbors(scratch, n_neighbors=n_neighbors, use_rep="X", random_state=seed)
    sc.tl.leiden(
        scratch,
        resolution=resolution,
        random_state=seed,
        flavor="igraph",
        directed=False,
        n_iterations=UNTIL_STABLE,
    )
    return scratch.obs["leiden"].to_numpy().astype(np.int64)


def _largest_first(clusters: np.ndarray) -> np.ndarray:
    """Number the clusters from 0 on by falling size; equal ones in the order in which they come."""
    names, first, sizes = np.unique(clusters, return_index=True, return_counts=True)
    ranks = np.empty(len(names), dtype=np.int64)
    ranks[np.lexsort((first, -sizes))] = np.arange(len(names))
    return ranks[np.searchsorted(names, clusters)]


def _agreement(clusters: np.ndarray, annotation: pd.Series) -> dict[str, float | int]:
    from sklearn.metrics import adjusted_rand_score

    labelled = annotation.notna().to_numpy()
    return {
        "adjusted_rand_index": float(adjusted_rand_score(annotation[labelled], clusters[labelled])),
        "n_spots_labelled": int(labelled.sum()),
    }
