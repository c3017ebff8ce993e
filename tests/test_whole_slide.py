"""Whole slides: pyramidal files written from an H&E image, read region by region; bad files say what is wrong."""

from __future__ import annotations

import threading
import time
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

import spahgc as sp
from spahgc.image import ImageSource, Level, PyramidSource, cut_patch, open_image, thumbnail
from spahgc.image._levels import make_levels

MPP = 0.5
TILE = 128
FACTORS = (2, 4)
JPEG_QUALITY = 90
JPEG_MEAN_TOLERANCE = 3.0
"""Mean absolute difference, of 255, that quality 90 with halved chroma may make on H&E."""
LEVEL_MEAN_TOLERANCE = 4.5
"""The same between a patch from a lossless level (block means, rounded) and one from the full resolution."""


@pytest.fixture(scope="module")
def simulated_tissue() -> np.ndarray:
    (slide,) = sp.datasets.simulated(n_slides=1, n_patients=1, n_spots=60, n_genes=10, seed=1)
    image = next(iter(slide.uns["spatial"].values()))["images"]["hires"]
    return np.ascontiguousarray(image[100:1001, 100:1107])


@pytest.fixture(scope="module")
def measured_tissue(her2st: Path) -> np.ndarray:
    with open_image(her2st / "C2.jpg") as image:
        return image.read(4000, 4200, 1007, 901)


@pytest.fixture(params=["simulated", pytest.param("measured", marks=pytest.mark.data)])
def tissue(request: pytest.FixtureRequest) -> np.ndarray:
    """H&E of odd height and width."""
    return request.getfixturevalue(f"{request.param}_tissue")


def block_mean(pixels: np.ndarray, factor: int) -> np.ndarray:
    height, width = (side // factor for side in pixels.shape[:2])
    blocks = pixels[: height * factor, : width * factor].reshape(height, factor, width, factor, 3)
    return np.rint(blocks.mean(axis=(1, 3))).astype(np.uint8)


def write_pyramid(path: Path, pixels: np.ndarray, *, jpeg: bool, ome: bool = False) -> Path:
    """A pyramid of three levels: a plain chain of directories, or an OME-TIFF with SubIFDs."""
    options: dict[str, Any] = {"tile": (TILE, TILE), "photometric": "rgb", "compression": "zlib"}
    if jpeg:
        options |= {"compression": "jpeg", "compressionargs": {"level": JPEG_QUALITY}}
    first: dict[str, Any] = {"metadata": None, "resolution": (1e4 / MPP,) * 2, "resolutionunit": "CENTIMETER"}
    if ome:
        sizes = {"PhysicalSizeX": MPP, "PhysicalSizeY": MPP, "PhysicalSizeXUnit": "µm", "PhysicalSizeYUnit": "µm"}
        first = {"metadata": {"axes": "YXS", **sizes}, "subifds": len(FACTORS)}
    with tifffile.TiffWriter(path, ome=ome) as writer:
        writer.write(pixels, **options, **first)
        for factor in FACTORS:
            writer.write(block_mean(pixels, factor), subfiletype=1, metadata=None, **options)
    return path


FILES: dict[str, dict[str, Any]] = {
    "tiled TIFF": {"jpeg": False},
    "tiled TIFF, JPEG": {"jpeg": True},
    "OME-TIFF": {"jpeg": False, "ome": True},
    "OME-TIFF, JPEG": {"jpeg": True, "ome": True},
    "openslide": {"jpeg": False},
    "openslide, JPEG": {"jpeg": True},
}


def opened(kind: str, folder: Path, pixels: np.ndarray) -> PyramidSource:
    """Write the pixels as such a file and open it."""
    options = FILES[kind]
    path = write_pyramid(folder / ("slide.ome.tif" if options.get("ome") else "slide.tif"), pixels, **options)
    if kind.startswith("openslide"):
        pytest.importorskip("openslide")
        return open_image(path, reader="openslide")
    return open_image(path)


def mean_difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(int) - other).mean())


CENTERS = [(200.3, 160.9), (503.5, 450.5), (800.0, 700.0), (5.0, 890.0)]


@pytest.mark.parametrize("kind", FILES)
def test_patches_at_full_resolution_equal_those_of_the_array(tmp_path, tissue, kind):
    with opened(kind, tmp_path, tissue) as image:
        assert (image.width, image.height) == (tissue.shape[1], tissue.shape[0])
        assert image.mpp == pytest.approx(MPP, rel=1e-4)
        for center in CENTERS:
            for width_px in (96.0, 131.7):
                options: dict[str, Any] = {"width_px": width_px, "out_px": 96}
                patch, padded = cut_patch(image, center, **options)
                expected, expected_padded = cut_patch(open_image(tissue), center, **options)
                assert padded == expected_padded
                if FILES[kind]["jpeg"]:
                    assert mean_difference(patch, expected) < JPEG_MEAN_TOLERANCE
                else:
                    np.testing.assert_array_equal(patch, expected)


@pytest.mark.parametrize("kind", FILES)
def test_patches_from_coarser_levels_are_those_of_the_array(tmp_path, tissue, kind):
    tolerance = JPEG_MEAN_TOLERANCE + LEVEL_MEAN_TOLERANCE if FILES[kind]["jpeg"] else LEVEL_MEAN_TOLERANCE
    with opened(kind, tmp_path, tissue) as image:
        assert [(level.scale_x, level.scale_y) for level in image.levels] == [(1, 1), (2, 2), (4, 4)]
        for center in CENTERS:
            for width_px in (170.0, 300.0):
                options: dict[str, Any] = {"width_px": width_px, "out_px": 64}
                patch, padded = cut_patch(image, center, **options)
                expected, expected_padded = cut_patch(open_image(tissue), center, **options)
                assert padded == expected_padded
                assert mean_difference(patch, expected) < tolerance, (center, width_px)
                for x, y in ((3, 0), (-3, 0), (0, 3), (0, -3)):
                    shifted = cut_patch(open_image(tissue), (center[0] + x, center[1] + y), **options)[0]
                    assert mean_difference(patch, expected) < mean_difference(patch, shifted)


@pytest.mark.parametrize("kind", FILES)
def test_thumbnails_are_those_of_the_array(tmp_path, tissue, kind):
    with opened(kind, tmp_path, tissue) as image:
        small, scale = thumbnail(image, 200)
    expected, expected_scale = thumbnail(open_image(tissue), 200)
    assert scale == expected_scale and small.shape == expected.shape
    assert mean_difference(small, expected) < LEVEL_MEAN_TOLERANCE + JPEG_MEAN_TOLERANCE * FILES[kind]["jpeg"]


# --- which level, and what is touched


def test_the_coarsest_level_that_is_fine_enough_is_read(simulated_tissue):
    class Counting:
        """An image of one's own with levels."""

        mpp = None
        height, width = simulated_tissue.shape[:2]
        levels = make_levels([(width, height), (width // 2, height // 2), (width // 4, height // 4), (62, 56)])

        def __init__(self) -> None:
            self.used: list[int] = []

        def read(self, left: int, top: int, width: int, height: int) -> np.ndarray:
            return self.read_level(0, left, top, width, height)

        def read_level(self, level: int, left: int, top: int, width: int, height: int) -> np.ndarray:
            self.used.append(level)
            return np.zeros((height, width, 3), np.uint8)

        def close(self) -> None: ...
        def __enter__(self) -> Counting:
            return self

        def __exit__(self, *_: object) -> None: ...

    image = Counting()
    assert isinstance(open_image(image), PyramidSource)
    for times in (0.5, 1.0, 1.99, 2.0, 3.9, 4.0, 15.0, 16.0, 20.0):
        cut_patch(image, (500, 450), width_px=20 * times, out_px=20)
    assert image.used == [0, 0, 0, 1, 1, 2, 2, 3, 3]


def test_an_image_source_of_ones_own_needs_no_levels(simulated_tissue):
    class Plain:
        mpp = None
        height, width = simulated_tissue.shape[:2]

        def read(self, left: int, top: int, width: int, height: int) -> np.ndarray:
            return simulated_tissue[top : top + height, left : left + width]

        def close(self) -> None: ...
        def __enter__(self) -> Plain:
            return self

        def __exit__(self, *_: object) -> None: ...

    image = open_image(Plain())
    assert isinstance(image, ImageSource) and not isinstance(image, PyramidSource)
    options: dict[str, Any] = {"width_px": 400, "out_px": 40}
    expected = cut_patch(open_image(simulated_tissue), (500, 450), **options)[0]
    np.testing.assert_array_equal(cut_patch(image, (500, 450), **options)[0], expected)


@pytest.mark.parametrize(
    ("size", "scale"),
    [((500, 400), (2, 2)), ((501, 401), (2, 2)), ((250, 200), (4, 4)), ((600, 480), (1001 / 600, 801 / 480))],
)
def test_levels_of_whole_blocks_have_a_whole_scale_and_others_the_quotient(size, scale):
    level = make_levels([(1001, 801), size])[1]
    assert (level.scale_x, level.scale_y) == pytest.approx(scale)
    assert (level.left, level.top) == (0, 0)


def test_blocks_that_are_cut_at_the_start_move_the_level():
    assert make_levels([(1003, 802), (250, 200)], cut_at_start=True)[1] == Level(250, 200, 4.0, 4.0, 3.0, 2.0)


def test_only_the_tiles_below_a_region_are_touched(tmp_path, simulated_tissue):
    """All other tiles are overwritten with nonsense: a reader that decodes one of them fails or shows it."""
    path = write_pyramid(tmp_path / "slide.tif", simulated_tissue, jpeg=False)
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        columns = -(-simulated_tissue.shape[1] // TILE)
        needed = {row * columns + column for row in (2, 3) for column in (1, 2)}
        spoilt = [
            (page.dataoffsets[i], page.databytecounts[i]) for i in range(len(page.dataoffsets)) if i not in needed
        ]
    with path.open("r+b") as handle:
        for start, length in spoilt:
            handle.seek(start)
            handle.write(b"\xff" * length)
    with open_image(path) as image:
        region = image.read(TILE + 5, 2 * TILE + 3, 2 * TILE - 10, 2 * TILE - 10)
        expected = simulated_tissue[2 * TILE + 3 : 4 * TILE - 7, TILE + 5 : 3 * TILE - 5]
        np.testing.assert_array_equal(region, expected)
        with pytest.raises(ValueError, match=r"slide\.tif.* cannot be read.*copy or download it again"):
            image.read(0, 0, 5, 5)


def test_only_the_chunks_below_a_region_are_computed_and_only_once(simulated_tissue):
    dask = pytest.importorskip("dask.array")
    computed: list[tuple[int, int]] = []

    def chunk(pixels: np.ndarray, block_info: Any = None) -> np.ndarray:
        computed.append(tuple(block_info[0]["chunk-location"][1:]))
        return pixels

    first = np.moveaxis(simulated_tissue, -1, 0)
    lazy = dask.from_array(first, chunks=(3, 100, 130)).map_blocks(
        chunk, dtype=np.uint8, meta=np.empty((0, 0, 0), "u1")
    )
    image = open_image(lazy)
    assert computed == []
    for _ in range(2):
        np.testing.assert_array_equal(image.read(140, 210, 200, 80), simulated_tissue[210:290, 140:340])
    assert sorted(computed) == [(2, 1), (2, 2)]


def test_threads_that_need_the_same_chunk_wait_for_it_instead_of_computing_it_again():
    dask = pytest.importorskip("dask.array")
    computed: list[int] = []

    def slowly(pixels: np.ndarray) -> np.ndarray:
        computed.append(1)
        time.sleep(0.1)
        return pixels

    lazy = dask.zeros((64, 64, 3), dtype=np.uint8).map_blocks(slowly, dtype=np.uint8, meta=np.empty((0, 0, 0), "u1"))
    image = open_image(lazy)
    with ThreadPoolExecutor(4) as pool:
        regions = list(pool.map(lambda x: image.read(x, 0, 8, 8), range(4)))
    assert len(computed) == 1 and all((region == 0).all() for region in regions)


def test_of_a_chunk_that_is_too_large_to_keep_a_region_is_asked_for(monkeypatch, simulated_tissue):
    dask = pytest.importorskip("dask.array")
    monkeypatch.setattr("spahgc.image._dask.CACHE_BYTES", 10_000)
    for lazy in (dask.from_array(simulated_tissue, chunks=-1), dask.from_array(simulated_tissue[:, :, 0], chunks=-1)):
        expected = open_image(lazy.compute()).read(140, 210, 200, 80)
        np.testing.assert_array_equal(open_image(lazy).read(140, 210, 200, 80), expected)


def test_a_sparse_slide_of_ten_gigapixels_is_read_in_little_memory(tmp_path):
    """100,000 x 100,000 px with four tiles written: the rest is white, and a patch costs a few tiles of memory."""
    side, tile = 100_000, 512
    per_row = -(-side // tile)
    present = {row * per_row + column for row in (90, 91) for column in (40, 41)}
    written = np.random.default_rng(0).integers(0, 200, (tile, tile, 3), dtype=np.uint8)
    encoded = zlib.compress(written.tobytes(), 1)
    path = tmp_path / "slide.tif"
    tifffile.imwrite(
        path,
        (encoded if index in present else b"" for index in range(per_row**2)),
        shape=(side, side, 3),
        dtype=np.uint8,
        tile=(tile, tile),
        photometric="rgb",
        compression="zlib",
        bigtiff=True,
    )
    tracemalloc.start()
    with open_image(path) as image:
        for x in range(40 * tile - 300, 42 * tile + 300, 200):
            patch, _ = cut_patch(image, (x, 91 * tile), width_px=896, out_px=224)
        corner = image.read(41 * tile - 8, 91 * tile - 8, 16, 16)
        empty = image.read(0, 0, 896, 896)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(corner[:8, :8], written[-8:, -8:])
    np.testing.assert_array_equal(corner[8:, 8:], written[:8, :8])
    assert (empty == 255).all()
    assert peak < 60 * 2**20, f"{peak / 2**20:.0f} MiB"


@pytest.mark.parametrize("kind", ["array", "tiles", "planes", "strips", "PNG", "openslide", "dask"])
def test_several_threads_may_read_at_once(tmp_path, simulated_tissue, kind):
    pixels = simulated_tissue[:500, :600]
    path = tmp_path / ("slide.png" if kind == "PNG" else "slide.tif")
    options: dict[str, Any] = {"photometric": "rgb", "compression": "zlib"}
    source: Any = path
    if kind == "array":
        source = pixels
    elif kind == "dask":
        source = pytest.importorskip("dask.array").from_array(pixels, chunks=(64, 64, 3))
    elif kind == "PNG":
        Image.fromarray(pixels).save(path)
    elif kind == "planes":
        tifffile.imwrite(path, np.moveaxis(pixels, -1, 0), planarconfig="separate", tile=(64, 64), **options)
    elif kind == "strips":
        tifffile.imwrite(path, pixels, rowsperstrip=16, **options)
    else:
        tifffile.imwrite(path, pixels, tile=(64, 64), **options)
    if kind == "openslide":
        pytest.importorskip("openslide")
    image = open_image(source, reader="openslide") if kind == "openslide" else open_image(source)
    rng = np.random.default_rng(0)
    places = np.column_stack([rng.integers(0, 500, 60), rng.integers(0, 400, 60)]).tolist()
    together = threading.Barrier(6)

    def read(worker: int) -> bool:
        together.wait(timeout=20)
        return all(
            np.array_equal(image.read(x, y, 90, 80), pixels[y : y + 80, x : x + 90]) for x, y in places[worker::6]
        )

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(read, range(6)))
    image.close()


# --- SpatialData elements


def test_an_image_with_other_axes_is_refused():
    xarray = pytest.importorskip("xarray")
    volume = xarray.DataArray(np.zeros((3, 2, 8, 8), np.uint8), dims=("c", "z", "y", "x"))
    with pytest.raises(ValueError, match=r"has axes c, z, y, x, but y and x.*isel"):
        open_image(volume)


def test_the_axes_of_an_xarray_count_by_name_not_by_place(simulated_tissue):
    xarray = pytest.importorskip("xarray")
    image = open_image(xarray.DataArray(simulated_tissue.transpose(1, 2, 0), dims=("x", "c", "y")))
    np.testing.assert_array_equal(image.read(30, 20, 50, 40), simulated_tissue[20:60, 30:80])


def test_a_tree_without_an_image_is_refused():
    xarray = pytest.importorskip("xarray")
    with pytest.raises(ValueError, match="has no scales"):
        open_image(xarray.DataTree())


def test_a_whole_spatialdata_is_refused_with_the_way_out():
    spatialdata = pytest.importorskip("spatialdata")
    with pytest.raises(TypeError, match=r"sdata\.images\[name\]"):
        open_image(spatialdata.SpatialData())


def test_floats_in_a_dask_array_are_refused_with_the_conversion():
    dask = pytest.importorskip("dask.array")
    with pytest.raises(ValueError, match=r"float64, but uint8.*\* 255"):
        open_image(dask.zeros((30, 40, 3)))
