"""Several pieces of tissue on one slide: no edge leads across the gap, and a lonely spot is predicted all the same."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.sparse.csgraph import connected_components

import spahgc as sp
from spahgc._spots.pieces import MAX_STRAY_SHARE, describe_pieces, nearest_in_piece, tissue_pieces
from spahgc._spots.plane import nearest_in_plane


def hexagons(n_cols: int, n_rows: int, at: tuple[float, float] = (0, 0), pitch: float = 100.0) -> np.ndarray:
    row, col = np.divmod(np.arange(n_cols * n_rows), n_cols)
    return np.column_stack([col + 0.5 * (row % 2), row * np.sqrt(0.75)]) * pitch + np.asarray(at)


def squares(n: int, at: tuple[float, float] = (0, 0), pitch: float = 100.0) -> np.ndarray:
    row, col = np.divmod(np.arange(n * n), n)
    return np.column_stack([col, row]) * pitch + np.asarray(at)


def cells(n: int, at: tuple[float, float] = (0, 0), side: float = 500.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((n, 2)) * side + np.asarray(at)


def joins(graph, pieces: np.ndarray) -> int:
    edges = graph.tocoo()
    return int((pieces[edges.row] != pieces[edges.col]).sum())


def two(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.vstack([first, second]), np.repeat([0, 1], [len(first), len(second)])


GAPS = {
    "the second ring of a hexagonal array": two(hexagons(4, 6), hexagons(4, 6, at=(500, 0))),
    "a wide gap": two(hexagons(4, 4), hexagons(3, 3, at=(1500, 40))),
    "a square array": two(squares(4), squares(3, at=(500, 0))),
    "a square array turned by 45 degrees": tuple(
        part if part.ndim == 1 else part @ np.array([[1, 1], [-1, 1]]) / np.sqrt(2)
        for part in two(squares(4), squares(3, at=(500, 0)))
    ),
    "a printed array, a little off": tuple(
        part if part.ndim == 1 else part + np.random.default_rng(0).normal(0, 4, part.shape)
        for part in two(squares(5), squares(4, at=(700, 0)))
    ),
    "cells": two(cells(200), cells(100, at=(1500, 0), seed=1)),
    "cells, dense and sparse": two(cells(300, side=200), cells(100, at=(1500, 0), side=300, seed=1)),
    "microns": two(hexagons(4, 4, pitch=0.1), hexagons(3, 3, at=(1.5, 0), pitch=0.1)),
    "a piece of two": two(hexagons(5, 5), hexagons(2, 1, at=(900, 0))),
}


@pytest.mark.parametrize("kind", list(GAPS))
def test_no_edge_leads_across_a_gap(kind):
    xy, piece = GAPS[kind]
    assert joins(nearest_in_piece(xy, 5), piece) == 0
    np.testing.assert_array_equal(tissue_pieces(xy), piece)
    slide = AnnData(np.ones((len(xy), 1), np.float32), obsm={"spatial": xy})
    sp.pp.spatial_graph(slide)
    assert joins(slide.obsp["spatial_connectivities"], piece) == joins(slide.obsp["spatial_distances"], piece) == 0


def test_a_spot_has_the_nearest_of_its_own_piece_where_those_of_another_are_nearer():
    comb = np.array([[x, 0] for x in range(0, 1200, 100)], float)  # a row: the fifth neighbour is 3 pitches away
    xy, piece = two(comb, comb + [0, 200])
    graph = nearest_in_piece(xy, 5)
    np.testing.assert_array_equal(np.diff(graph.indptr), 5)
    assert joins(graph, piece) == 0
    assert joins(nearest_in_plane(xy, 5)[1], piece) > 0


WHOLE = {
    "hexagonal array": hexagons(8, 8),
    "square array": squares(8),
    "touching at a corner": np.vstack([squares(4), squares(4, at=(400, 400))]),
    "a hole": np.delete(hexagons(9, 9), [30, 31, 39, 40, 41, 48, 49], axis=0),
    "cells": cells(3000, side=1000),
    "every other spot drawn at random": hexagons(30, 30)[np.random.default_rng(0).random(900) < 0.3],
    "two spots": np.array([[0.0, 0], [5, 0]]),
    "three spots, one far": np.array([[0.0, 0], [1, 0], [9, 0]]),
    "spots in one place": np.zeros((7, 2)),
}


@pytest.mark.parametrize("kind", list(WHOLE))
def test_tissue_in_one_piece_has_the_graph_of_the_nearest_spots_bit_for_bit(kind):
    xy = WHOLE[kind]
    found, expected = nearest_in_piece(xy, 5), nearest_in_plane(xy, 5)[1]
    for part in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(found, part), getattr(expected, part))


def test_spots_that_are_alone_have_no_neighbour_and_are_counted():
    xy = np.vstack([hexagons(6, 6), [[2000, 0], [2000, 900]]])
    slide = AnnData(np.ones((38, 1), np.float32), obsm={"spatial": xy})
    sp.pp.spatial_graph(slide)
    counts = np.diff(slide.obsp["spatial_connectivities"].indptr)
    assert (counts[:36] == 5).all() and (counts[36:] == 0).all()
    assert slide.uns["spatial_neighbors"]["spahgc"] == describe_pieces(xy) == {"n_pieces": 3, "n_isolated": 2}


def test_more_strays_than_the_limit_are_spots_left_out_and_no_pieces():
    lonely = np.column_stack([np.zeros(40), 1000 + 500.0 * np.arange(40)])
    n_few = int(36 * MAX_STRAY_SHARE / (1 - MAX_STRAY_SHARE))
    assert describe_pieces(np.vstack([hexagons(6, 6), lonely[:n_few]])) == {"n_pieces": n_few + 1, "n_isolated": n_few}
    assert describe_pieces(np.vstack([hexagons(6, 6), lonely]))["n_pieces"] == 1


def test_slides_are_cut_into_pieces_each_by_its_own_pitch():
    fine, coarse = two(hexagons(4, 4, pitch=10), hexagons(4, 4, at=(200, 0), pitch=10))[0], hexagons(4, 4, pitch=1000)
    slide = np.repeat(["fine", "coarse"], [len(fine), len(coarse)])
    pieces = tissue_pieces(np.vstack([fine, coarse]), slide)
    assert [len(set(pieces[slide == name])) for name in ("fine", "coarse")] == [2, 1]
    assert set(pieces) == {0, 1, 2}


def test_a_graph_across_pieces_does_not_depend_on_the_order_of_the_spots():
    xy, _ = GAPS["a wide gap"]
    order = np.random.default_rng(0).permutation(len(xy))
    np.testing.assert_array_equal(
        nearest_in_piece(xy[order], 5).toarray(), nearest_in_piece(xy, 5).toarray()[np.ix_(order, order)]
    )


def with_a_lonely_spot(slide: AnnData) -> AnnData:
    """The slide, its last spot far away."""
    moved = slide.copy()
    moved.obsm["spatial"][-1] = 2000 + moved.obsm["spatial"].max(axis=0)
    return moved


@pytest.mark.parametrize("parameters", ["quick_default", "quick"])
def test_a_lonely_spot_is_predicted_and_the_record_says_that_it_has_no_neighbour(cohort, parameters, request):
    target, first, second, _ = cohort
    target = with_a_lonely_spot(target)
    sp.tl.predict(target, [first, with_a_lonely_spot(second)], preset=request.getfixturevalue(parameters))
    panel = target.var["spahgc_panel"].to_numpy()
    assert np.isfinite(target.layers["spahgc"][:, panel]).all()
    assert target.uns["spahgc"]["predictions"]["spahgc"]["pieces"] == {"n_pieces": 2, "n_isolated": 1}
    sp.pp.spatial_graph(target)
    sp.pl.graph(target, show=False)


def test_another_piece_has_no_part_in_what_a_network_says_of_a_spot():
    xy, piece = GAPS["a wide gap"]
    graph = nearest_in_piece(xy, 5)
    reached = connected_components(graph, directed=False)[1]
    assert not set(reached[piece == 0]) & set(reached[piece == 1])


@pytest.mark.data
@pytest.mark.parametrize(("area", "suffix"), [("B1", 1), ("C1", 2), ("D1", 3)])
def test_organoids_are_not_joined(area, suffix, her2st):
    organoids = her2st.parent / "kidney_organoid"
    slide = sp.io.visium(organoids / area)
    table = pd.read_csv(organoids / "organoid_selection.txt", sep=r"\s+")["organoid"]
    organoid = table.reindex([f"{spot}_{suffix}" for spot in slide.obs_names]).to_numpy()
    sp.pp.spatial_graph(slide)
    edges = slide.obsp["spatial_connectivities"].tocoo()
    known = pd.notna(organoid)
    across = known[edges.row] & known[edges.col] & (organoid[edges.row] != organoid[edges.col])
    assert not across.any()
    component = connected_components(slide.obsp["spatial_connectivities"], directed=False)[1]
    named = pd.crosstab(component[known], organoid[known].astype(str))
    assert ((named > 0).sum(axis=1) == 1).all()
    assert slide.uns["spatial_neighbors"]["spahgc"]["n_isolated"] > 0
