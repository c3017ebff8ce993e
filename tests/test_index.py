"""The approximate search: how much it finds, that it says so, and when it is not used."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import spahgc as sp
from spahgc._spots.rows import StoredRows
from spahgc.pp._bank.store import append_rows, new_rows
from spahgc.pp._search import approximate as _approximate
from spahgc.pp._search import neighbors as _search
from spahgc.pp._search.approximate import Index, index_cache
from spahgc.pp._search.exact import cosine_neighbors
from spahgc.pp._search.neighbors import search_neighbors

K = 7


def embeddings(n: int, *, dim: int = 24, clusters: int = 40, seed: int = 0) -> np.ndarray:
    """Spots around the same centres, whatever the seed."""
    centres = np.random.default_rng(7).normal(size=(clusters, dim))
    rng = np.random.default_rng(seed)
    return (centres[rng.integers(clusters, size=n)] + rng.normal(scale=0.4, size=(n, dim))).astype(np.float32)


@pytest.fixture
def bank() -> np.ndarray:
    return embeddings(4000)


@pytest.fixture
def query() -> np.ndarray:
    return embeddings(300, seed=1)


@pytest.fixture(autouse=True)
def _no_index_is_kept():
    index_cache.clear()


@pytest.fixture
def approximate(monkeypatch):
    pytest.importorskip("faiss")
    monkeypatch.setattr(sp.settings, "search", "approximate")


@pytest.fixture
def no_faiss(monkeypatch):
    monkeypatch.setattr(_search, "faiss_or_none", lambda: None)
    monkeypatch.setattr("spahgc.pp._search.approximate.faiss_or_none", lambda: None)


@pytest.fixture
def builds(monkeypatch) -> list[int]:
    """Sizes of the banks of which an index was made."""
    sizes, build = [], Index.build

    def spy(rows, **options):
        sizes.append(rows.shape[0])
        return build(rows, **options)

    monkeypatch.setattr(Index, "build", spy)
    return sizes


def share_found(graph, exact) -> float:
    """Share of the true edges that the graph has as well."""
    return float(((graph != 0).multiply(exact != 0)).sum() / exact.nnz)


def test_most_of_the_true_neighbours_are_found_and_the_record_says_how_many(query, bank, approximate, monkeypatch):
    monkeypatch.setattr(_approximate, "RECALL_QUERIES", len(query))
    found = search_neighbors(query, bank, K)
    true = share_found(found.graph, cosine_neighbors(query, bank, K))
    assert true >= 0.95
    assert found.record["search"] == "approximate"
    assert found.record["recall"] == pytest.approx(true, abs=2e-3)
    assert (found.record["recall_queries"], found.record["recall_bank"]) == (len(query), len(bank))
    assert found.record["probes"] < found.record["lists"]  # it has not looked everywhere


def test_the_recall_is_measured_on_a_sample_of_the_query_spots(query, bank, approximate, monkeypatch):
    monkeypatch.setattr(_approximate, "RECALL_QUERIES", 50)
    compared = []

    def spy(sample, part, *args, **kwargs):
        compared.append((len(sample), part.shape[0]))
        return cosine_neighbors(sample, part, *args, **kwargs)

    monkeypatch.setattr(_approximate, "cosine_neighbors", spy)
    assert search_neighbors(query, bank, K).record["recall_queries"] == 50
    assert compared == [(50, 4000)]


@pytest.mark.parametrize("lost", [0.0, 0.03, 0.2, 1.0])
@pytest.mark.parametrize("part", [4000, 500])
def test_the_recall_of_a_part_of_the_bank_is_that_of_all_of_it(bank, monkeypatch, part, lost):
    for name, value in {"RECALL_QUERIES": 2000, "RECALL_BANK_SIZE": part, "RECALL_BANK_RUN": 10}.items():
        monkeypatch.setattr(_approximate, name, value)
    query, rng = embeddings(2000, seed=1), np.random.default_rng(0)
    sample = _approximate.RecallSample.draw(query, bank, K, False, "cpu")
    assert sample.n_bank == part
    values, columns = _approximate.top_k_of_graph(cosine_neighbors(query, bank, 60), None, 60)
    order = np.argsort(rng.random(columns.shape) < lost, axis=1, kind="stable")[:, :K]  # the first seven not lost
    found = [np.take_along_axis(array, order, axis=1) for array in (values, columns)]
    if lost == 1:
        found = [array[:, -K:] for array in (values, columns)]
    true = (found[1][:, :, None] == columns[:, None, :K]).any(axis=2).mean()
    assert sample.recall(*found) == pytest.approx(true, abs=1e-3 if part == 4000 else 0.02)


def test_the_part_of_a_bank_is_an_eighth_of_all_its_runs():
    rows = _approximate._recall_rows(2_000_000)
    assert len(rows) == pytest.approx(250_000, rel=0.01)
    assert (np.diff(rows) > 0).all()
    assert np.diff(rows[::1024]).max() < 16 * 1024 and rows[-1] < 2_000_000
    np.testing.assert_array_equal(_approximate._recall_rows(1000), np.arange(1000))


def test_similarities_to_the_neighbours_are_exact(query, bank, approximate):
    graph = search_neighbors(query, bank, K).graph
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (query, bank)]
    rows, columns = graph.tocoo().coords
    assert (graph.format, graph.dtype, graph.shape) == ("csr", np.float32, (300, 4000))
    np.testing.assert_array_equal(np.diff(graph.indptr), K)
    assert (np.diff(graph.indices.reshape(-1, K), axis=1) > 0).all()
    np.testing.assert_allclose(graph.data, (unit[0][rows] * unit[1][columns]).sum(axis=1), atol=1e-6)


def test_no_spot_is_its_own_approximate_neighbour_when_self_is_excluded(bank, approximate):
    bank[11] = bank[12] = bank[13]  # twins may be neighbours of each other
    found = search_neighbors(bank, bank, K, exclude_self=True)
    assert found.graph.diagonal().sum() == 0
    assert {12, 13} <= set(found.graph[11].indices)
    assert share_found(found.graph, cosine_neighbors(bank, bank, K, exclude_self=True)) >= 0.95


def test_wide_embeddings_are_compared_on_their_principal_axes(approximate):
    bank, query = embeddings(3000, dim=300), embeddings(200, dim=300, seed=1)
    index = Index.build(bank)
    assert (index._lists.d, index._index.d, len(index)) == (256, 300, 3000)
    found = search_neighbors(query, bank, K)
    assert share_found(found.graph, cosine_neighbors(query, bank, K)) >= 0.95


def test_more_lists_are_looked_through_where_too_few_neighbours_are_found(query, bank, approximate, monkeypatch):
    monkeypatch.setattr(_approximate, "FIRST_PROBES", 1)
    monkeypatch.setattr(_approximate, "MAX_PROBED_SHARE", 1)
    noise = (
        np.random.default_rng(0).normal(size=(4000, 24)).astype(np.float32)
    )  # no clusters, so that lists cut anywhere
    found = search_neighbors(noise[:200] + 0.1, noise, K)
    assert found.record["probes"] > 1
    assert found.record["recall"] >= 0.95


def test_a_search_that_finds_too_little_is_given_up_with_a_message(query, bank, approximate, monkeypatch):
    def nonsense(self, queries, n, *, n_probes):
        return np.random.default_rng(0).integers(len(bank), size=(len(queries), n))

    monkeypatch.setattr(Index, "candidates", nonsense)
    with pytest.warns(
        UserWarning, match="finds fewer than 95% of the neighbours in this bank. The search goes on exact"
    ):
        found = search_neighbors(query, bank, K)
    assert found.record == {"search": "exact"}
    assert (found.graph != cosine_neighbors(query, bank, K)).nnz == 0


def test_spots_with_too_few_candidates_are_searched_exactly(query, bank, approximate, monkeypatch):
    candidates = Index.candidates

    def hardly_any(self, queries, n, *, n_probes):
        found = candidates(self, queries, n, n_probes=n_probes).copy()
        found[np.isclose(queries[:, 0], query[5, 0]), K - 1 :] = -1  # one fewer than are asked for
        return found

    monkeypatch.setattr(Index, "candidates", hardly_any)
    found = search_neighbors(query, bank, K)
    exact = cosine_neighbors(query, bank, K)
    np.testing.assert_array_equal(found.graph[5].indices, exact[5].indices)
    np.testing.assert_allclose(found.graph[5].data, exact[5].data, atol=1e-6)


def test_a_small_search_is_exact_and_makes_no_index(query, bank, builds):
    found = search_neighbors(query, bank, K)
    assert found.record == {"search": "exact"} and builds == []
    assert (found.graph != cosine_neighbors(query, bank, K)).nnz == 0


def test_a_search_beyond_the_documented_size_is_approximate(query, bank, builds, monkeypatch):
    pytest.importorskip("faiss")
    products = len(query) * len(bank) * bank.shape[1]
    monkeypatch.setattr(_search, "MAX_EXACT_PRODUCTS", products)
    assert search_neighbors(query, bank, K).record["search"] == "exact"
    monkeypatch.setattr(_search, "MAX_EXACT_PRODUCTS", products - 1)
    assert search_neighbors(query, bank, K).record["search"] == "approximate"
    monkeypatch.setattr(sp.settings, "search", "exact")
    assert search_neighbors(query, bank, K).record["search"] == "exact"
    assert builds == [4000]


def test_the_documented_size_lies_between_a_large_bank_in_memory_and_one_of_millions():
    assert 20_000 * 200_000 * 1024 <= _search.MAX_EXACT_PRODUCTS < 5_000 * 2_000_000 * 1024


def test_a_large_search_without_faiss_goes_on_exactly_and_names_the_extra(query, bank, no_faiss, monkeypatch):
    monkeypatch.setattr(_search, "MAX_EXACT_PRODUCTS", 0)
    with pytest.warns(UserWarning, match=r'300 spots .* 4000.*pip install "spahgc\[faiss\]".*goes on exactly'):
        found = search_neighbors(query, bank, K)
    assert (found.graph != cosine_neighbors(query, bank, K)).nnz == 0


def test_a_small_search_says_nothing_of_a_missing_faiss(query, bank, no_faiss):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        search_neighbors(query, bank, K)


def test_an_approximate_search_that_was_asked_for_needs_faiss(query, bank, no_faiss, monkeypatch):
    monkeypatch.setattr(sp.settings, "search", "approximate")
    with pytest.raises(ImportError, match=r'pip install "spahgc\[faiss\]".*settings.search = "exact"'):
        search_neighbors(query, bank, K)


def test_an_unknown_search_is_refused(query, bank, monkeypatch):
    monkeypatch.setattr(sp.settings, "search", "fast")
    with pytest.raises(ValueError, match='settings.search="fast" is not known. Choose one of auto, exact, approximate'):
        search_neighbors(query, bank, K)


def test_faiss_runs_on_as_many_threads_as_torch(bank, approximate):
    import faiss
    import torch

    faiss.omp_set_num_threads(torch.get_num_threads() + 1)
    Index.build(bank)
    assert faiss.omp_get_max_threads() == torch.get_num_threads()


def test_an_index_in_memory_serves_the_next_slide_until_the_bank_is_changed(query, bank, approximate, builds):
    search_neighbors(query, bank, K)
    search_neighbors(query[:150], bank, K)
    assert builds == [4000]
    bank += 1
    search_neighbors(query, bank, K)
    search_neighbors(query, bank.copy(), K)
    assert builds == [4000] * 3


def test_an_index_in_memory_goes_with_its_bank(query, approximate):
    search_neighbors(query, embeddings(4000), K)
    assert index_cache.index is None


# Beside a bank on disk.


@pytest.fixture
def rows(tmp_path, bank):
    """Function that writes the first so many spots to disk, or adds those that are not there yet, and opens them."""
    import zarr

    array = new_rows(zarr.open_group(tmp_path, mode="w", zarr_format=3), "z", bank.shape[1])

    def first(n: int, **options) -> StoredRows:
        append_rows(array, bank[array.shape[0] : n].astype(np.float16))
        return StoredRows(tmp_path / "z", bank_folder=tmp_path, **options)

    return first


def test_an_index_lies_beside_the_bank_and_is_used_again(query, rows, approximate, builds, tmp_path):
    first = search_neighbors(query, rows(4000), K).graph
    assert len(list((tmp_path / "index").iterdir())) == 1
    index_cache.clear()  # as in another process
    again = search_neighbors(query, rows(4000), K).graph
    assert builds == [4000]
    assert (first != again).nnz == 0


def test_an_index_is_extended_when_the_bank_has_grown(query, bank, rows, approximate, builds, tmp_path):
    search_neighbors(query, rows(3000), K)
    [before] = (tmp_path / "index").iterdir()
    for _ in range(2):
        index_cache.clear()
        graph = search_neighbors(query, rows(4000), K).graph
        assert (graph.indices >= 3000).any()
        assert share_found(graph, cosine_neighbors(query, bank.astype(np.float16), K)) >= 0.95
    assert builds == [3000]
    [after] = (tmp_path / "index").iterdir()
    assert after != before


def test_the_index_of_the_first_columns_is_another_one(rows, approximate, builds, tmp_path):
    for n in (24, 16):
        search_neighbors(embeddings(200, seed=1)[:, :n], rows(4000, n_columns=n), K)
    assert len(builds) == len(list((tmp_path / "index").iterdir())) == 2


def test_a_bank_that_cannot_be_written_is_searched_all_the_same(query, rows, approximate, monkeypatch, caplog):
    def refuse(self, path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Index, "save", refuse)
    assert search_neighbors(query, rows(4000), K).record["search"] == "approximate"
    assert "the index is not kept" in caplog.text


# In the functions that search.


def test_a_bank_says_how_its_graph_was_found(refs, approximate):
    bank = sp.pp.reference_bank(refs)
    assert bank.uns["spahgc"]["bank"]["search"]["recall"] >= 0.95
    sp.settings.search = "exact"
    exact = sp.pp.reference_bank(refs)
    assert "search" not in exact.uns["spahgc"]["bank"]
    graphs = [adata.obsp["spahgc_rs_connectivities"] for adata in (bank, exact)]
    assert share_found(*graphs) >= 0.95


def test_a_cross_graph_says_how_it_was_found(target, refs, approximate, tmp_path):
    bank = sp.pp.reference_bank(refs)
    sp.pp.cross_graph(target, bank)
    record = target.uns["spahgc"]["search"]["spahgc_cs"]
    assert record["search"] == "approximate" and record["recall"] >= 0.95
    sp.settings.search = "exact"
    sp.pp.cross_graph(target, bank, key_added="mine")
    assert target.uns["spahgc"]["search"]["mine"] == {"search": "exact"}
    target.write_h5ad(tmp_path / "target.h5ad")


def test_a_prediction_says_how_its_neighbours_were_found(target, refs, quick, approximate):
    sp.tl.predict(target, refs, preset=quick)
    assert target.uns["spahgc"]["predictions"]["spahgc"]["cs_search"]["recall"] >= 0.95
