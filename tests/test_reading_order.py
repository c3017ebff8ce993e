"""Half a million points: patches that overlap are read once, the result is held once, and progress counts points."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile

import spahgc as sp
from spahgc.image import _tiff
from spahgc.pp._embed import encode, reading_order
from spahgc.pp._embed.columns import Columns

from .map_networks import KEY, grid, maps, points, ramp

TILE_PX = 64


@pytest.fixture(autouse=True)
def on_cpu(monkeypatch) -> None:
    monkeypatch.setattr(sp.settings, "device", "cpu")
    monkeypatch.setattr(sp.settings, "progress", False)


@pytest.fixture(scope="module")
def slide_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("slide") / "slide.tif"
    tifffile.imwrite(path, ramp(1024, 1024), tile=(TILE_PX, TILE_PX), compression="zlib", photometric="rgb")
    return path


@pytest.fixture
def decoded(monkeypatch) -> list[object]:
    """Tiles of a file in the order in which they are decoded; few of them are kept, as of a large slide."""
    seen: list[object] = []

    class Counting(_tiff.BlockCache):
        def get(self, key, load):
            def counted():
                seen.append(key)
                return load()

            return super().get(key, counted)

    monkeypatch.setattr(_tiff, "BlockCache", Counting)
    monkeypatch.setattr(_tiff, "CACHE_BYTES", 36 * TILE_PX**2 * 3)
    monkeypatch.setattr(reading_order, "BLOCK_PX", 4 * TILE_PX)
    return seen


def shuffled() -> np.ndarray:
    xy = grid(10.0, left=40, top=40, columns=94, rows=94)
    return xy[np.random.default_rng(0).permutation(len(xy))]


@pytest.mark.parametrize("dense", [False, True])
def test_patches_that_overlap_are_read_once_whatever_the_order_of_the_points(slide_file, decoded, dense):
    slide = points(shuffled()[:: 1 if dense else 4])
    sp.pp.embed(slide, encoder=maps(), image=slide_file, context=False, dense=dense, n_workers=1)
    n_tiles = (1024 // TILE_PX) ** 2
    assert len(set(decoded)) > 0.9 * n_tiles
    at_borders = 1.6
    """Tiles on the borders of two squares, of 4 tiles here and of 8 on a slide, are read for both."""
    assert len(decoded) < at_borders * n_tiles


def test_their_own_order_would_have_read_them_many_times(slide_file, decoded, monkeypatch):
    monkeypatch.setattr(encode, "reading_order", lambda xy, width_px: np.arange(len(xy)))
    sp.pp.embed(points(shuffled()[::4]), encoder=maps(), image=slide_file, context=False, n_workers=1)
    assert len(decoded) > 5 * (1024 // TILE_PX) ** 2


def test_the_order_of_reading_changes_no_number_and_no_row(slide_file):
    xy = grid(10.0, columns=40, rows=40)
    order = np.random.default_rng(0).permutation(len(xy))
    there, here = (
        sp.pp.embed(points(places), encoder=maps(), image=slide_file, context=False, copy=True)
        for places in (xy, xy[order])
    )
    np.testing.assert_allclose(here.obsm[KEY], there.obsm[KEY][order], atol=1e-6)


def test_spots_that_lie_apart_keep_their_order():
    xy = shuffled() * 3
    np.testing.assert_array_equal(reading_order.reading_order(xy, 50.0), np.arange(len(xy)))
    np.testing.assert_array_equal(reading_order.reading_order(xy[:1], 50.0), [0])


def test_few_points_keep_their_order():
    few = shuffled()[: reading_order.MANY]
    np.testing.assert_array_equal(reading_order.reading_order(few, 500.0), np.arange(len(few)))


def test_every_patch_is_read_and_neighbours_follow_each_other():
    xy = shuffled()
    order = reading_order.reading_order(xy * 10, 400.0)
    assert sorted(order) == list(range(len(xy)))
    steps = np.hypot(*np.diff(xy[order] * 10, axis=0).T)
    assert steps.max() < 2.5 * reading_order.BLOCK_PX
    assert np.median(steps) == pytest.approx(100)


@pytest.mark.parametrize(
    "options", [{}, {"context": sp.pp.Context(scales=(1, 2), rotations=1)}, {"samples": 4}, {"dense": True}]
)
def test_progress_counts_points(monkeypatch, options):
    bars = []

    class Bar:
        def __init__(self, **given):
            self.given, self.done = given, given["initial"]
            bars.append(self)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def update(self, n):
            self.done += n

    monkeypatch.setattr(encode, "progress_bar", Bar)
    slide = points(grid(10.0, columns=9, rows=9))
    sp.pp.embed(slide, encoder=maps(), image=ramp(), batch_size=8, **{"context": False} | options)
    (bar,) = bars
    assert bar.given["total"] == bar.done == slide.n_obs
    assert bar.given["unit"] == "point"


def test_a_run_that_goes_on_shows_what_is_done_already(monkeypatch, tmp_path):
    slide = points(grid(10.0, columns=9, rows=9))
    sp.pp.embed(slide, encoder=maps(), image=ramp(), context=False, resume=tmp_path, batch_size=8)
    next(tmp_path.glob("*/spots-*")).unlink()
    given = {}
    real = encode.progress_bar
    monkeypatch.setattr(encode, "progress_bar", lambda **options: given.update(options) or real(**options))
    sp.pp.embed(slide, encoder=maps(), image=ramp(), context=False, resume=tmp_path, batch_size=8)
    assert given["initial"] in (slide.n_obs - 8, slide.n_obs - 1)


def test_the_numbers_of_an_embedding_are_in_memory_once(monkeypatch):
    columns = 6_000

    class Wide(type(maps().module)):
        def forward_head(self, features):
            return features.mean((2, 3)).repeat(1, columns // 3)

    encoder = replace(maps(), module=Wide(), record=replace(maps().record, dim=columns))
    slide = points(grid(10.0, columns=60, rows=20, left=2, top=2))
    size = slide.n_obs * 2 * columns * 4
    tracemalloc.start()
    sp.pp.embed(slide, encoder=encoder, image=ramp(), context=sp.pp.Context(scales=(1, 2), depths=0, rotations=1))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert slide.obsm[KEY].nbytes + slide.obsm[f"{KEY}_context"].nbytes == size
    assert peak < 1.3 * size


def test_columns_are_put_on_either_side_of_the_border_and_across_it():
    whole, found = np.zeros((5, 7), np.float32), Columns(5, 3, 7)
    found.put(np.arange(5), 0, whole)
    rows, rng = np.array([4, 1]), np.random.default_rng(0)
    for start, width in ((0, 2), (2, 3), (3, 1), (5, 2), (0, 7)):
        values = rng.random((2, width), dtype=np.float32)
        whole[rows, start : start + width] = values
        found.put(rows, start, values)
        np.testing.assert_array_equal(found.rows(np.arange(5)), whole)
    assert found.shape == whole.shape
