"""The three graphs: against scikit-learn and squidpy, and whatever the order and the number of the spots."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import squidpy as sq
import torch
import zarr
from anndata import AnnData
from scipy.sparse import csr_matrix
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

import spahgc as sp
from spahgc._linear.node_features import LowRankFeatures, PlainFeatures
from spahgc._parameters import Parameters
from spahgc._spots.plane import nearest_in_plane
from spahgc._spots.rows import SlideScale, Spots, leave_one_out, standardize
from spahgc._training.graphs import SlideTask, check_sizes, hetero_graph, spare_rs_graph, training_task
from spahgc.pp._edge_types import EDGE_TYPES, REFERENCE, TARGET, EdgeType, Nodes, build_edges
from spahgc.pp._search.exact import cosine_neighbors
from spahgc.pp._search.neighbors import Neighbors

EMBEDDING = "X_sim"


def points(n: int, dim: int = 6, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)


def slide_of(xy: np.ndarray, names: list[str] | None = None) -> AnnData:
    obs = pd.DataFrame(index=[f"spot{i}" for i in range(len(xy))])
    if names is not None:
        obs["slide"] = pd.Categorical(names)
    rng = np.random.default_rng(0)
    adata = AnnData(rng.poisson(3.0, (len(xy), 4)).astype(np.float32), obs=obs)
    adata.obsm["spatial"] = np.asarray(xy, dtype=float)
    return adata


def lattice(side: int = 6) -> np.ndarray:
    """A square lattice: every spot has equally near neighbours to choose from."""
    return np.stack(np.meshgrid(np.arange(side), np.arange(side)), axis=-1).reshape(-1, 2).astype(float)


def assert_nearest(graph, query: np.ndarray, bank: np.ndarray, k: int, *, exclude_self: bool = False) -> None:
    """The graph is what scikit-learn finds; values are similarities, in float32."""
    search = NearestNeighbors(n_neighbors=k, metric="cosine", algorithm="brute").fit(bank.astype(float))
    distance, found = search.kneighbors(None if exclude_self else query.astype(float))
    order = np.argsort(found, axis=1)
    assert graph.shape == (len(query), len(bank))
    np.testing.assert_array_equal(graph.indices.reshape(-1, k), np.take_along_axis(found, order, axis=1))
    np.testing.assert_allclose(
        graph.data.reshape(-1, k), 1 - np.take_along_axis(distance, order, axis=1), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("block", [1, 3, 16, 40, 41, 4096])
def test_cosine_neighbours_are_those_of_scikit_learn_for_every_block_size(block):
    query, bank = points(23), points(41, seed=1)
    assert_nearest(cosine_neighbors(query, bank, 5, bank_block=block, query_block=block), query, bank, 5)


@pytest.mark.parametrize("block", [1, 7, 41, 4096])
def test_no_spot_is_its_own_cosine_neighbour_when_self_is_excluded(block):
    bank = points(41)
    graph = cosine_neighbors(bank, bank, 5, exclude_self=True, bank_block=block, query_block=block)
    assert graph.diagonal().sum() == 0
    assert_nearest(graph, bank, bank, 5, exclude_self=True)


def test_all_other_spots_are_neighbours_when_k_allows_it():
    bank = points(6)
    graph = cosine_neighbors(bank, bank, 5, exclude_self=True, bank_block=2, query_block=2)
    assert np.isfinite(graph.data).all()
    expected = ~np.eye(6, dtype=bool)
    np.testing.assert_array_equal(graph.indices.reshape(6, 5), np.nonzero(expected)[1].reshape(6, 5))


def test_the_length_of_an_embedding_does_not_matter():
    query, bank = points(10), points(20, seed=1)
    scaled = cosine_neighbors(query * 50, bank * np.arange(1, 21)[:, None], 3)
    plain = cosine_neighbors(query, bank, 3)
    np.testing.assert_array_equal(scaled.indices, plain.indices)
    np.testing.assert_allclose(scaled.data, plain.data, atol=1e-6)


def test_a_row_of_zeros_is_similar_to_nothing():
    query, bank = points(4), points(9, seed=1)
    query[2] = 0
    graph = cosine_neighbors(query, bank, 3)
    np.testing.assert_array_equal(graph[2].data, [0, 0, 0])
    bank[:] = -np.abs(bank)
    bank[5] = 0
    similar = cosine_neighbors(np.abs(points(4)), bank, 1)
    np.testing.assert_array_equal(similar.indices, [5, 5, 5, 5])  # 0 is more than any negative similarity


@pytest.mark.parametrize(("exclude_self", "available"), [(False, 9), (True, 8)])
def test_more_neighbours_than_spots_are_refused(exclude_self, available):
    bank = points(9)
    with pytest.raises(ValueError, match=f"{available + 1} neighbours .* only {available} spots to choose from"):
        cosine_neighbors(bank, bank, available + 1, exclude_self=exclude_self)


def test_cosine_neighbours_never_hold_a_dense_target_by_bank_matrix(monkeypatch):
    sizes = []
    product = torch.mm

    def spy(*args, **kwargs):
        sizes.append(product(*args, **kwargs).numel())
        return product(*args, **kwargs)

    monkeypatch.setattr(torch, "mm", spy)
    graph = cosine_neighbors(points(64), points(96, seed=1), 5, bank_block=16, query_block=16)
    assert len(sizes) == 4 * 6  # the spy was called
    assert max(sizes) <= 16 * 16
    assert graph.nnz == 64 * 5


class OnDisk:
    """Rows that can only be read block by block, as those of a file are."""

    def __init__(self, rows):
        self._rows, self.shape, self.largest = rows.astype(np.float16), rows.shape, 0

    def __getitem__(self, rows):
        assert isinstance(rows, slice)
        part = self._rows[rows]
        self.largest = max(self.largest, len(part))
        return part


def test_a_bank_in_half_precision_is_read_from_disk_block_by_block():
    query, bank = points(30), OnDisk(points(300, seed=1))
    graph = cosine_neighbors(query, bank, 5, bank_block=100)
    assert bank.largest == 100
    assert_nearest(graph, query, bank[:].astype(np.float32), 5)


def test_a_bank_in_a_memory_mapped_file_is_searched_as_it_lies_there(tmp_path):
    query, bank = points(30), points(300, seed=1).astype(np.float16)
    bank.tofile(tmp_path / "bank")
    mapped = np.memmap(tmp_path / "bank", np.float16, mode="r", shape=bank.shape)
    graph = cosine_neighbors(query, mapped, 5, bank_block=100)
    assert_nearest(graph, query, bank.astype(np.float32), 5)
    np.testing.assert_array_equal(mapped, bank)


def test_query_and_bank_may_be_arrays_of_zarr(tmp_path):
    query, bank = points(30), points(300, seed=1)
    arrays = [
        zarr.create_array(tmp_path / name, data=data, chunks=(7, 6))
        for name, data in (("query", query), ("bank", bank))
    ]
    assert_nearest(cosine_neighbors(*arrays, 5, bank_block=100, query_block=11), query, bank, 5)


@pytest.mark.parametrize("held", [1, 60, 10_000])
def test_the_neighbours_do_not_depend_on_how_many_query_spots_are_held(held, monkeypatch):
    monkeypatch.setattr("spahgc.pp._search.exact.MAX_QUERY_NUMBERS", held)
    bank = points(41)
    graph = cosine_neighbors(bank, bank, 5, exclude_self=True, bank_block=16, query_block=4)
    assert graph.diagonal().sum() == 0
    assert_nearest(graph, bank, bank, 5, exclude_self=True)


def test_a_search_leaves_query_and_bank_as_they_are():
    query, bank = points(30), points(300, seed=1)
    before = query.copy(), bank.copy()
    cosine_neighbors(query, bank, 5, bank_block=100)
    np.testing.assert_array_equal(query, before[0])
    np.testing.assert_array_equal(bank, before[1])


def test_a_search_for_no_spot_finds_nothing():
    assert cosine_neighbors(points(30)[:0], points(9), 3).shape == (0, 9)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_neighbours_on_a_cuda_device_are_those_of_scikit_learn():
    query, bank = points(300, dim=64), points(3000, dim=64, seed=1)
    assert_nearest(cosine_neighbors(query, bank, 7, device="cuda", bank_block=512, query_block=128), query, bank, 7)


def test_the_largest_block_is_bounded_whatever_the_slides():
    defaults = cosine_neighbors.__kwdefaults__
    assert defaults["bank_block"] * defaults["query_block"] * 4 < 100e6  # bytes of float32


def _squidpys_graph(slide: AnnData, n_neighbors: int) -> None:
    if hasattr(sq.gr, "spatial_neighbors_knn"):  # the name that squidpy 1.9 keeps
        sq.gr.spatial_neighbors_knn(slide, n_neighs=n_neighbors)
    else:
        sq.gr.spatial_neighbors(slide, coord_type="generic", n_neighs=n_neighbors)


def test_spatial_graph_is_that_of_squidpy_under_its_names():
    ours, theirs = slide_of(100 * points(40, 2)), slide_of(100 * points(40, 2))
    sp.pp.spatial_graph(ours)
    _squidpys_graph(theirs, 5)
    assert set(ours.obsp) == set(theirs.obsp)
    for key in theirs.obsp:
        np.testing.assert_allclose(ours.obsp[key].toarray(), theirs.obsp[key].toarray(), rtol=1e-9, err_msg=key)
    mine, squidpys = ours.uns["spatial_neighbors"], theirs.uns["spatial_neighbors"]
    for key in ("connectivities_key", "distances_key"):
        assert mine[key] == squidpys[key]
    assert mine["params"]["n_neighbors"] == 5


def test_functions_of_squidpy_run_on_the_spatial_graph(cohort):
    slide = cohort[0]
    sp.pp.spatial_graph(slide)
    sq.gr.spatial_autocorr(slide, mode="moran", genes=list(slide.var_names[:3]), n_perms=None, show_progress_bar=False)
    assert np.isfinite(slide.uns["moranI"]["I"]).all()
    sq.gr.nhood_enrichment(slide, cluster_key="domain", n_perms=10, seed=0, show_progress_bar=False)
    counts = slide.uns["domain_nhood_enrichment"]["count"]
    assert counts.sum() == slide.obsp["spatial_connectivities"].nnz == 5 * slide.n_obs


def test_equally_near_spots_are_chosen_whatever_the_order_of_the_spots():
    xy = lattice()
    connectivities, distances = nearest_in_plane(xy, 5)
    order = np.random.default_rng(0).permutation(len(xy))
    moved_connectivities, moved_distances = nearest_in_plane(xy[order], 5)
    np.testing.assert_array_equal(moved_connectivities.toarray(), connectivities.toarray()[np.ix_(order, order)])
    np.testing.assert_array_equal(moved_distances.toarray(), distances.toarray()[np.ix_(order, order)])


def test_spots_of_different_slides_are_never_joined():
    xy = np.repeat(lattice(4), 3, axis=0)  # three slides in the very same places
    names = np.tile(["a", "b", "c"], 16)
    slide = slide_of(xy, list(names))
    sp.pp.spatial_graph(slide)
    graph = slide.obsp["spatial_connectivities"].tocoo()
    np.testing.assert_array_equal(names[graph.row], names[graph.col])
    for name in "abc":
        alone, _ = nearest_in_plane(lattice(4), 5)
        rows = names == name
        np.testing.assert_array_equal(
            slide.obsp["spatial_connectivities"].toarray()[np.ix_(rows, rows)], alone.toarray()
        )


@pytest.mark.parametrize("n_neighbors", [5, 6, 100])
def test_a_slide_with_few_spots_joins_them_all(n_neighbors):
    slide = slide_of(points(6, 2))
    sp.pp.spatial_graph(slide, n_neighbors=n_neighbors)
    np.testing.assert_array_equal(slide.obsp["spatial_connectivities"].toarray(), 1 - np.eye(6))


def test_a_slide_with_one_spot_is_refused_by_name():
    with pytest.raises(ValueError, match='slide "b" has a single spot'):
        sp.pp.spatial_graph(slide_of(points(6, 2), ["a"] * 5 + ["b"]))


def test_no_neighbour_at_all_is_refused():
    with pytest.raises(ValueError, match="n_neighbors must be at least 1, found 0"):
        sp.pp.spatial_graph(slide_of(points(6, 2)), n_neighbors=0)


def test_spatial_graph_writes_into_the_copy_alone_when_asked_for_one():
    slide = slide_of(points(12, 2))
    copied = sp.pp.spatial_graph(slide, copy=True)
    assert not slide.obsp and "spatial_neighbors" not in slide.uns
    assert "spatial_distances" in copied.obsp
    assert sp.pp.spatial_graph(slide) is None


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_coordinates_that_are_not_finite_are_refused_with_their_spots(value):
    slide = slide_of(points(12, 2))
    slide.obsm["spatial"][7, 1] = value
    with pytest.raises(ValueError, match=r'NaN or infinite coordinates in 1 of 12 spots \("spot7"\)'):
        sp.pp.spatial_graph(slide)


def test_missing_coordinates_are_asked_for():
    slide = slide_of(points(12, 2))
    del slide.obsm["spatial"]
    with pytest.raises(KeyError, match="must hold the spot centres"):
        sp.pp.spatial_graph(slide)


def test_coordinates_in_three_dimensions_are_refused():
    slide = slide_of(points(12, 2))
    slide.obsm["spatial"] = np.zeros((12, 3))
    with pytest.raises(ValueError, match=r"must be spots x 2 \(x, y\), found shape \(12, 3\)"):
        sp.pp.spatial_graph(slide)


def test_cross_graph_holds_the_most_similar_spots_over_all_references(cohort):
    target, *refs = cohort
    bank = sp.pp.reference_bank(refs, genes=list(target.var_names))
    sp.pp.cross_graph(target, bank)
    graph = target.obsm["spahgc_cs"]
    assert (graph.format, graph.dtype) == ("csr", np.float32)
    assert_nearest(graph, target.obsm[EMBEDDING], bank.obsm[EMBEDDING], 7)
    slides = bank.obs["slide"].to_numpy()[graph.indices]
    assert set(slides) == {"P2S1", "P1S2", "P2S2"}


def test_cross_graph_copies_and_counts_and_names_as_told(cohort):
    target, *refs = cohort
    bank = sp.pp.reference_bank(refs, genes=list(target.var_names))
    copied = sp.pp.cross_graph(target, bank, n_neighbors=3, key_added="mine", copy=True)
    assert "mine" not in target.obsm
    np.testing.assert_array_equal(np.diff(copied.obsm["mine"].indptr), 3)


def test_cross_graph_refuses_embeddings_of_different_encoders(cohort):
    target, *refs = cohort
    bank = sp.pp.reference_bank(refs, genes=list(target.var_names))
    target.uns["spahgc"]["embeddings"][EMBEDDING]["mpp"] = 0.5
    with pytest.raises(ValueError, match="different encoders .mpp: 0.5 and 'native'"):
        sp.pp.cross_graph(target, bank)


# From arrays to the graph of the network.


def spots_of(*sizes: int, genes: int = 4) -> Spots:
    n = sum(sizes)
    slide = np.repeat([f"slide{i}" for i in range(len(sizes))], sizes)
    y = np.abs(points(n, genes, seed=2))
    return Spots(points(n), 100 * points(n, 2, seed=1), slide, y, csr_matrix(y))


def test_every_slide_plays_the_target_once_and_never_meets_its_own_spots_in_the_bank():
    spots = spots_of(10, 12, 14)
    parts = leave_one_out(spots)
    assert [set(spots.slide[target]) for target, _ in parts] == [{"slide0"}, {"slide1"}, {"slide2"}]
    for target, bank in parts:
        assert sorted([*target, *bank]) == list(range(36))


def test_a_single_slide_is_cut_across_its_longer_side_into_equal_halves():
    xy = np.column_stack([np.repeat([0.0, 1.0], 10), np.tile(np.arange(10.0), 2)])  # longer in y
    spots = Spots.without_expression(points(20), xy)
    (first, second), (second_again, first_again) = leave_one_out(spots)
    assert sorted(first) == sorted(first_again) and sorted(second) == sorted(second_again)
    assert set(xy[first, 1]) == {0, 1, 2, 3, 4}
    assert set(xy[second, 1]) == {5, 6, 7, 8, 9}


def test_halves_stay_equal_where_spots_share_a_coordinate():
    xy = np.column_stack([np.zeros(20), np.r_[np.full(15, 5.0), np.arange(5.0)]])
    target, bank = leave_one_out(Spots.without_expression(points(20), xy))[0]
    assert (len(target), len(bank)) == (10, 10)


def test_sizes_are_checked_for_the_smallest_bank():
    parameters = Parameters(n_cross=7, n_reference=7)
    check_sizes(spots_of(8, 8), parameters)
    check_sizes(spots_of(16), parameters)
    with pytest.raises(ValueError, match="all references but one must hold at least 8 spots"):
        check_sizes(spots_of(8, 7), parameters)
    with pytest.raises(ValueError, match="one reference acts as two halves, and each must hold at least 8 spots"):
        check_sizes(spots_of(15), parameters)


def test_standardising_works_slide_by_slide_and_leaves_a_constant_dimension_at_zero():
    z, slide = points(30), np.repeat(["a", "b"], 15)
    z[slide == "b"] = 7 * z[slide == "b"] + 3
    z[slide == "a", 2] = 4
    out = standardize(z, slide)
    assert out.dtype == np.float32
    for name in "ab":
        expected = StandardScaler().fit_transform(z[slide == name].astype(float))
        np.testing.assert_allclose(out[slide == name], expected, atol=1e-5)
    assert (out[slide == "a", 2] == 0).all()


def test_the_scale_of_all_spots_goes_there_and_back_and_does_not_blow_up_a_constant_gene():
    y = points(50, 4)
    y[:, 1] = 2.5
    scale = SlideScale.fit(y, np.zeros(50))
    scaled = scale.transform(y)
    np.testing.assert_allclose(scaled, StandardScaler().fit_transform(y.astype(float)), atol=1e-5)
    np.testing.assert_allclose(scale.inverse_transform(scaled), y, atol=1e-5)


def test_plain_features_show_the_embedding_as_it_is_and_the_genes_in_standard_deviations():
    spots = spots_of(12, 20)
    node_features = PlainFeatures.fit(spots)
    assert node_features.features is spots.z and node_features.gene_loadings is None
    np.testing.assert_allclose(
        node_features.expression, StandardScaler().fit_transform(spots.y.astype(float)), atol=1e-5
    )
    np.testing.assert_array_equal(node_features.training_target, node_features.expression)
    np.testing.assert_allclose(node_features.decode(node_features.expression), spots.y, atol=1e-5)
    features, line = node_features.transform(spots)
    assert features is spots.z and line is None


def edge_pairs(edges) -> set[tuple[int, int]]:
    return set(zip(edges.source.tolist(), edges.receiver.tolist(), strict=True))


def neighbour_pairs(graph: csr_matrix) -> set[tuple[int, int]]:
    return {(source, spot) for spot in range(graph.shape[0]) for source in graph[spot].indices}


def test_edges_run_from_the_neighbour_to_the_spot_whose_neighbour_it_is():
    spots = spots_of(12, 20)
    target, bank = spots[np.arange(12)], spots[np.arange(12, 32)]
    cross = cosine_neighbors(target.z, bank.z, 3)
    peers = cosine_neighbors(bank.z, bank.z, 4, exclude_self=True)
    nodes = {TARGET: Nodes(target.z, target.xy), REFERENCE: Nodes(bank.z, bank.xy, bank.y)}
    known = {"cs": cross, "rs": peers}
    graph = hetero_graph(nodes, build_edges(nodes, Parameters(n_spatial=2), known=known), "cpu")
    near = NearestNeighbors(n_neighbors=2).fit(target.xy).kneighbors(return_distance=False)
    assert edge_pairs(graph.ts) == {(source, spot) for spot in range(12) for source in near[spot]}
    assert edge_pairs(graph.cs) == neighbour_pairs(cross)
    assert edge_pairs(graph.rs) == neighbour_pairs(peers)
    assert (graph.cs.n_source, graph.cs.n_receiver) == (20, 12)
    for actual, expected in ((graph.target, target.z), (graph.reference, bank.z), (graph.expression, bank.y)):
        assert torch.equal(actual, torch.from_numpy(expected))


LOW_RANK = Parameters(n_axes=4, n_around=3, n_components=2, weigh_genes=True, line=True)


def basis_of(spots: Spots, parameters: Parameters) -> PlainFeatures | LowRankFeatures:
    blocks = ((0, spots.z.shape[1]),)
    return LowRankFeatures.fit(spots, blocks, parameters) if parameters.n_axes else PlainFeatures.fit(spots)


def test_nodes_and_line_speak_of_components_in_units_of_the_largest_and_decode_back():
    spots = spots_of(12, 20, genes=9)
    node_features = basis_of(spots, LOW_RANK)
    assert not 0.8 < node_features.components.size < 1.25
    assert node_features.expression.std(axis=0).max() == pytest.approx(1)
    _, line = node_features.transform(spots)
    for actual, scores in (
        (node_features.expression, node_features.components.scores),
        (line, node_features.ridge.predict(spots)),
    ):
        np.testing.assert_allclose(node_features.decode(actual), node_features.components.decode(scores), rtol=1e-5)


@pytest.mark.parametrize("parameters", [Parameters(), LOW_RANK], ids=["paper", "low rank"])
def test_a_training_task_judges_the_target_and_shows_the_expression_of_the_bank_alone(parameters):
    spots = spots_of(12, 20, genes=9)
    rows, others = np.arange(12), np.arange(12, 32)
    node_features = basis_of(spots, parameters)
    task = training_task(spots, node_features, rows, others, parameters, "cpu")
    assert torch.equal(task.measured, torch.from_numpy(node_features.training_target[rows]))
    np.testing.assert_allclose(task.graph.expression, node_features.expression[others], rtol=1e-6)
    np.testing.assert_allclose(task.graph.target, node_features.features[rows], rtol=1e-6)

    class Poisoned:
        """The node features, had the target's expression never been measured."""

        features, training_target, gene_loadings = (
            node_features.features,
            node_features.training_target,
            node_features.gene_loadings,
        )
        expression = np.where(np.arange(32)[:, None] < 12, np.nan, node_features.expression)

    again = training_task(spots, Poisoned(), rows, others, parameters, "cpu").graph
    for name in ("target", "reference", "expression"):
        assert torch.equal(getattr(again, name), getattr(task.graph, name)), name
    for name in ("ts", "cs", "rs"):
        assert edge_pairs(getattr(again, name)) == edge_pairs(getattr(task.graph, name)), name


def test_a_network_on_components_is_judged_by_the_genes_that_are_read_off_them():
    spots = spots_of(12, 20, genes=9)
    node_features = basis_of(spots, LOW_RANK)
    task = training_task(spots, node_features, np.arange(12), np.arange(12, 32), LOW_RANK, "cpu")
    assert task.graph.expression.shape == (20, 2)
    assert task.gene_loadings.shape == (2, task.measured.shape[1]) == (2, 9)
    read = task.graph.expression @ task.gene_loadings
    np.testing.assert_allclose(
        read, node_features.components.scores[12:] @ node_features.components.training_loadings, atol=1e-5
    )
    assert np.corrcoef(read.numpy().ravel(), node_features.training_target[12:].ravel())[0, 1] > 0.4


def test_a_training_task_of_the_paper_has_no_read_out():
    spots = spots_of(12, 20)
    node_features = PlainFeatures.fit(spots)
    assert (
        training_task(spots, node_features, np.arange(12), np.arange(12, 32), Parameters(), "cpu").gene_loadings is None
    )


@pytest.mark.parametrize("parameters", [Parameters(), LOW_RANK], ids=["paper", "low rank"])
def test_neighbours_of_a_training_task_are_those_that_the_nodes_carry(parameters):
    spots = spots_of(12, 20, genes=9)
    node_features = basis_of(spots, parameters)
    graph = training_task(spots, node_features, np.arange(12), np.arange(12, 32), parameters, "cpu").graph
    features, expression = node_features.features[12:], node_features.expression[12:]
    both = np.hstack([features, expression])
    assert edge_pairs(graph.cs) == neighbour_pairs(cosine_neighbors(node_features.features[:12], features, 7))
    assert edge_pairs(graph.rs) == neighbour_pairs(cosine_neighbors(both, both, 7, exclude_self=True))


def test_an_edge_type_that_is_registered_is_in_the_graphs_of_training_and_prediction(monkeypatch):
    def farthest(source, receiver, n_neighbors, device):
        return Neighbors(cosine_neighbors(receiver.features, -np.asarray(source.features), n_neighbors), {})

    far = EdgeType("far", REFERENCE, TARGET, "n_spatial", farthest)
    monkeypatch.setitem(EDGE_TYPES, "far", far)
    spots = spots_of(12, 20)
    node_features = PlainFeatures.fit(spots)
    rows, others, parameters = np.arange(12), np.arange(12, 32), Parameters(n_spatial=2, n_cross=3, layers=1)
    graph = training_task(spots, node_features, rows, others, parameters, "cpu").graph
    assert list(graph.edges) == ["ts", "cs", "rs", "far"]
    expected = cosine_neighbors(node_features.features[rows], -node_features.features[others], 2)
    assert edge_pairs(graph.edges["far"]) == neighbour_pairs(expected)

    peers = spare_rs_graph(node_features, parameters)
    block = SlideTask.of(spots, node_features, rows, others, peers, parameters, "cpu").task(np.arange(4)).graph
    for edges, features in ((block.edges["far"], graph.reference), (block.cs, graph.reference)):
        assert edges.n_source == len(block.reference) <= len(features)
    own = block.edges["far"].receiver < 4
    seen = block.reference[block.edges["far"].source[own]]
    assert torch.equal(seen, graph.reference[graph.edges["far"].source[graph.edges["far"].receiver < 4]])
