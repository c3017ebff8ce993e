"""Other packages go on from a prediction, and start one: squidpy and scanpy read it, LazySlide's tables go in."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from sklearn.metrics import adjusted_rand_score

import spahgc as sp

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
pytest.importorskip("squidpy")
pytest.importorskip("igraph")

PAGE = Path(__file__).parents[1] / "docs" / "howto" / "onwards.md"
GENE = "ERBB2"
"""The gene that the page draws."""
N_GENES, N_SPOTS, DIM = 30, 80, 16
KEY = "X_virchow2"
RECORD = {"name": "virchow2", "input_px": 224, "mpp": 0.5, "pooling": "class token"}
"""What is known of an embedding that another package made."""


def features(slide: AnnData) -> np.ndarray:
    """What an encoder would see that knows the tissue."""
    domains = np.asarray(slide.obsm["truth_domains"])
    mixing = np.random.default_rng(0).normal(size=(domains.shape[1], DIM))
    noise = np.random.default_rng(slide.n_obs + ord(str(slide.obs["slide"].iloc[0])[1])).normal(
        size=(len(domains), DIM)
    )
    return (domains @ mixing + 0.3 * noise + 1).astype(np.float32)


def tile_table(slide: AnnData, *, seed: int = 0) -> AnnData:
    """A table as LazySlide keeps it: a row a tile in an order of its own, the features in X, no gene and no spot."""
    order = np.random.default_rng(seed).permutation(slide.n_obs)
    obs = pd.DataFrame(
        {"tile_id": order, "library_id": pd.Categorical(["tiles"] * len(order))}, index=order.astype(str)
    )
    table = AnnData(features(slide)[order], obs=obs)
    table.uns["spatialdata_attrs"] = {"region": "tiles", "region_key": "library_id", "instance_key": "tile_id"}
    return table


def take_over(slide: AnnData, table: AnnData, **record: Any) -> None:
    """What a user does with such a table: rows in the order of the spots, and a word on where they are from."""
    slide.obsm[KEY] = np.asarray(table.X)[np.argsort(table.obs["tile_id"].to_numpy())]
    sp.pp.use_embedding(slide, KEY, record=RECORD | record)


@pytest.fixture(scope="module")
def measured() -> list[AnnData]:
    """Three slides with an image and no embedding."""
    slides = sp.datasets.simulated(3, n_patients=3, n_spots=N_SPOTS, n_genes=60, n_domains=3, seed=3)
    for slide in slides:
        slide.var_names = [GENE, *slide.var_names[1:]]
    return slides


@pytest.fixture
def slides(measured: list[AnnData]) -> list[AnnData]:
    return [slide.copy() for slide in measured]


@pytest.fixture(scope="module")
def target(measured: list[AnnData], quick: sp.Parameters) -> AnnData:
    """A slide with the prediction that all tests of this module look at."""
    sp.settings.progress = False
    target, *refs = (slide.copy() for slide in measured)
    for slide in [target, *refs]:
        take_over(slide, tile_table(slide))
    sp.tl.predict(target, refs, genes=list(target.var_names[:N_GENES]), preset=quick)
    return target


@pytest.fixture(scope="module")
def shown(target: AnnData) -> SimpleNamespace:
    """What the code on the page, as it stands there, makes of the prediction."""
    from matplotlib import pyplot as plt

    section = PAGE.read_text(encoding="utf-8").split("## And on from there")[1].split("\n## ")[0]
    (code,) = re.findall(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {"sp": sp, "target": target.copy()}
    plt.close("all")
    exec(compile(code, str(PAGE), "exec"), names)
    figure = plt.gcf()
    yield SimpleNamespace(predicted=names["predicted"], figure=figure)
    plt.close(figure)


def moran(values: np.ndarray, connectivities: Any) -> float:
    """Moran's I of one gene, every spot's neighbours weighing one together."""
    weights = connectivities.toarray()
    weights = weights / weights.sum(axis=1, keepdims=True)
    centred = values - values.mean()
    return float(centred @ weights @ centred / (centred @ centred) * len(values) / weights.sum())


def test_squidpy_finds_the_neighbours_of_a_prediction(shown: SimpleNamespace, target: AnnData) -> None:
    theirs, parameters = shown.predicted.obsp["spatial_connectivities"], shown.predicted.uns["spatial_neighbors"]
    assert parameters["connectivities_key"] == "spatial_connectivities"
    xy, (rows, columns) = target.obsm["spatial"], theirs.nonzero()
    assert set(range(N_SPOTS)) == set(rows)
    pitch = np.linalg.norm(xy[:, None] - xy[None], axis=2)[~np.eye(N_SPOTS, dtype=bool)].min()
    assert np.median(np.linalg.norm(xy[rows] - xy[columns], axis=1)) < 1.2 * pitch, "neighbours lie apart"


def test_squidpy_computes_morans_i_of_the_prediction(shown: SimpleNamespace, target: AnnData) -> None:
    found = shown.predicted.uns["moranI"]["I"]
    assert set(found.index) == set(target.var_names[:N_GENES])
    for gene in found.index[:3]:
        expected = moran(target[:, gene].layers["spahgc"].ravel(), shown.predicted.obsp["spatial_connectivities"])
        assert found[gene] == pytest.approx(expected, abs=1e-4)
    follows = found[target.var.loc[found.index, "truth_kind"] == "morphology"]
    assert follows.median() > 0.2, "genes that follow the tissue have no pattern on it"


def test_squidpy_takes_the_layer_and_the_packages_own_graph_as_they_are(
    target: AnnData, shown: SimpleNamespace
) -> None:
    import squidpy as sq

    slide = target.copy()
    sp.pp.spatial_graph(slide, n_neighbors=6)
    sq.gr.spatial_autocorr(slide, mode="moran", layer="spahgc", genes=[GENE], show_progress_bar=False)
    expected = moran(target[:, GENE].layers["spahgc"].ravel(), slide.obsp["spatial_connectivities"])
    assert slide.uns["moranI"].loc[GENE, "I"] == pytest.approx(expected, abs=1e-4)


def test_scanpy_clusters_a_prediction_into_the_tissues(shown: SimpleNamespace) -> None:
    clusters = shown.predicted.obs["leiden"]
    assert 2 <= clusters.nunique() < 10
    assert {"connectivities", "distances"} <= set(shown.predicted.obsp)
    agreement = adjusted_rand_score(shown.predicted.obs["domain"], clusters)
    assert agreement > 0.25, f"clusters have nothing to do with the tissue: adjusted Rand index {agreement:.2f}"


def test_squidpy_draws_the_prediction_on_the_tissue(shown: SimpleNamespace, target: AnnData) -> None:
    axes = {ax.get_title(): ax for ax in shown.figure.axes}
    assert {GENE, "leiden"} <= set(axes)
    (image,), (spots,) = axes[GENE].get_images(), axes[GENE].collections
    assert np.ptp(np.asarray(image.get_array())) > 0, "the tissue is not drawn"
    drawn = np.asarray(spots.get_array())
    np.testing.assert_allclose(drawn, target[:, GENE].layers["spahgc"].ravel(), rtol=1e-6)
    scale = next(iter(target.uns["spatial"].values()))["scalefactors"]["tissue_hires_scalef"]
    boxes = [path.get_extents() for path in spots.get_paths()]
    places = np.array([[(box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2] for box in boxes])
    np.testing.assert_allclose(places, target.obsm["spatial"] * scale, atol=0.5)


# --- embeddings that another package computed


def test_features_of_another_package_predict_as_the_same_numbers_of_ours_do(
    slides: list[AnnData], target: AnnData, quick: sp.Parameters
) -> None:
    """The numbers decide, not who computed them; the tiles' own order does not matter."""
    own, *refs = slides
    for slide in slides:
        slide.obsm["X_own"] = features(slide)
        slide.uns["spahgc"] = {"embeddings": {"X_own": {"name": "own", "dim": DIM, "context": "patch"}}}
    sp.tl.predict(own, refs, genes=list(own.var_names[:N_GENES]), preset=quick)
    np.testing.assert_array_equal(own.layers["spahgc"], target.layers["spahgc"])


def test_the_prediction_says_whose_features_it_was_made_of(target: AnnData) -> None:
    record = target.uns["spahgc"]["predictions"]["spahgc"]
    assert record["embedding"] == KEY
    assert record["encoder"] == RECORD | {"dim": DIM, "context": "patch"}


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [("mpp", 0.25, r"mpp: 0\.25 and 0\.5"), ("name", "virchow", "name"), ("pooling", "mean", "pooling")],
)
def test_features_with_differing_records_are_never_mixed(
    slides: list[AnnData], quick: sp.Parameters, field: str, value: Any, said: str
) -> None:
    target, *refs = slides
    for slide in refs:
        take_over(slide, tile_table(slide))
    take_over(target, tile_table(target), **{field: value})
    with pytest.raises(ValueError, match=f"different encoders.*{said}"):
        sp.tl.predict(target, refs, preset=quick)
    assert "spahgc" not in target.layers


def test_features_without_a_word_on_where_they_are_from_are_not_mixed_with_those_that_have_it(
    slides: list[AnnData], quick: sp.Parameters
) -> None:
    target, *refs = slides
    for slide in slides:
        take_over(slide, tile_table(slide))
    del target.uns["spahgc"]
    with pytest.raises((KeyError, ValueError), match="record|encoder"):
        sp.tl.predict(target, refs, preset=quick)
