"""A patch is right to the pixel, whatever holds the image, at any resolution and for odd and even sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from spahgc.image import cut_patch, open_image

MPPS = (0.23, 0.3, 0.5, 0.73)
"""Microns a pixel of the slide."""
ENCODER_MPP, ENCODER_PX = 0.5, 64
"""A patch is 32 um wide."""
SQUARE_UM = (14.0, 9.0)
"""Width and height of a rectangle of the board: x and y are told apart."""
CORNER_UM = (56.0, 36.0)
"""Where four rectangles meet; the one at its lower right is white."""
SIZES = {"odd": (477, 391), "even": (476, 392)}
"""Width and height of the image, pixels."""
RAMP_PER_UM = (0.6, 1.3)
"""How steeply green rises along x, and blue along y."""


def board(width: int, height: int, mpp: float) -> np.ndarray:
    """Red is a board of rectangles, green a ramp along x, blue a steeper one along y."""
    x, y = (np.arange(width) + 0.5) * mpp, (np.arange(height) + 0.5) * mpp
    squares = (np.floor(y / SQUARE_UM[1])[:, None] + np.floor(x / SQUARE_UM[0])[None, :]) % 2 == 0
    pixels = np.empty((height, width, 3))
    pixels[..., 0] = np.where(squares, 255, 0)
    pixels[..., 1] = (x * RAMP_PER_UM[0])[None, :]
    pixels[..., 2] = (y * RAMP_PER_UM[1])[:, None]
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def block_mean(pixels: np.ndarray, factor: int) -> np.ndarray:
    """One level of a pyramid as scanners make it: whole blocks, the rest is dropped."""
    height, width = (side // factor for side in pixels.shape[:2])
    blocks = pixels[: height * factor, : width * factor].reshape(height, factor, width, factor, 3)
    return np.rint(blocks.mean(axis=(1, 3))).astype(np.uint8)


def write_pyramid(path: Path, pixels: np.ndarray, factors: tuple[int, ...] = ()) -> Path:
    """A tiled, losslessly compressed TIFF, which tifffile and openslide read."""
    options: dict[str, Any] = {"tile": (64, 64), "photometric": "rgb", "compression": "zlib", "metadata": None}
    with tifffile.TiffWriter(path) as writer:
        writer.write(pixels, **options)
        for factor in factors:
            writer.write(block_mean(pixels, factor), subfiletype=1, **options)
    return path


def sources(pixels: np.ndarray, folder: Path) -> dict[str, Any]:
    """The same pixels in every form that is read; opened."""
    dask = pytest.importorskip("dask.array")
    models = pytest.importorskip("spatialdata.models")
    pytest.importorskip("openslide")
    first = np.ascontiguousarray(np.moveaxis(pixels, -1, 0))
    path = write_pyramid(folder / "slide.tif", pixels)
    strips = folder / "strips.tif"
    tifffile.imwrite(strips, pixels, photometric="rgb")
    return {
        "array": open_image(pixels),
        "array, channels first": open_image(first),
        "TIFF, tiles": open_image(path),
        "TIFF, strips": open_image(strips),
        "openslide": open_image(path, reader="openslide"),
        "dask": open_image(dask.from_array(pixels, chunks=(100, 70, 3))),
        "dask, channels first": open_image(dask.from_array(first, chunks=(1, 100, 70))),
        "SpatialData": open_image(models.Image2DModel.parse(first, dims=("c", "y", "x"), chunks=(3, 90, 110))),
        "SpatialData, in memory": open_image(models.Image2DModel.parse(first, dims=("c", "y", "x"))),
    }


def cut(image: Any, center_um: tuple[float, float], mpp: float, interpolation: str = "area") -> np.ndarray:
    center = (center_um[0] / mpp, center_um[1] / mpp)
    width_px = ENCODER_PX * ENCODER_MPP / mpp
    patch, padded = cut_patch(image, center, width_px=width_px, out_px=ENCODER_PX, interpolation=interpolation)
    assert not padded
    return patch


def assert_in_place(patch: np.ndarray, center_um: tuple[float, float], *, blur_px: int, label: str) -> None:
    """The four rectangles around the centre and the two ramps lie where they must, to a fraction of a pixel."""
    middle = ENCODER_PX // 2
    reach = int(min(SQUARE_UM) / ENCODER_MPP)
    before, after = slice(middle - reach + blur_px, middle - blur_px), slice(middle + blur_px, middle + reach - blur_px)
    for rows, columns, value in [(before, before, 255), (before, after, 0), (after, before, 0), (after, after, 255)]:
        assert (patch[rows, columns, 0] == value).all(), f"{label}: the rectangles are shifted"
    for axis, channel in ((0, 1), (1, 2)):
        found_um = patch[..., channel].mean() / RAMP_PER_UM[axis]
        assert found_um == pytest.approx(center_um[axis], abs=0.3 * ENCODER_MPP), f"{label}: {'xy'[axis]} is shifted"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mpp", MPPS)
def test_every_source_gives_the_same_patch_and_it_is_in_place(tmp_path, mpp, size):
    opened = sources(board(*SIZES[size], mpp), tmp_path)
    for interpolation in ("area", "bicubic"):
        expected = cut(opened["array"], CORNER_UM, mpp, interpolation)
        for label, image in opened.items():
            patch = cut(image, CORNER_UM, mpp, interpolation)
            np.testing.assert_array_equal(patch, expected, err_msg=f"{label}, {interpolation}")
    assert_in_place(cut(opened["array"], CORNER_UM, mpp), CORNER_UM, blur_px=2, label=f"{mpp} um a pixel")
    for image in opened.values():
        image.close()


@pytest.mark.parametrize("mpp", MPPS)
def test_x_and_y_are_not_swapped(tmp_path, mpp):
    """Mirrored at the diagonal, the patch is another one; a reader that swaps the axes would give that one."""
    pixels = board(*SIZES["odd"], mpp)
    turned = open_image(np.ascontiguousarray(pixels.transpose(1, 0, 2)))
    patch = cut(turned, (CORNER_UM[1], CORNER_UM[0]), mpp)
    for label, image in sources(pixels, tmp_path).items():
        found = cut(image, CORNER_UM, mpp)
        np.testing.assert_array_equal(found, patch.transpose(1, 0, 2), err_msg=label)
        assert np.abs(found.astype(int) - patch).max() > 200, label
        image.close()


def texture(width: int, height: int) -> np.ndarray:
    """Blobs of some 12 px, different everywhere: a shift by one pixel shows."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (height // 12, width // 12, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("size", [(955, 783), (954, 784), (957, 781), (1000, 803)])
@pytest.mark.parametrize("kind", ["TIFF", "openslide", "SpatialData"])
def test_a_patch_from_a_coarser_level_lies_where_that_of_the_array_does(tmp_path, kind, size):
    """No centre one pixel of the full resolution away gives a patch of the array that is more like it."""
    pixels = texture(*size)
    if kind == "SpatialData":
        models = pytest.importorskip("spatialdata.models")
        first = np.ascontiguousarray(np.moveaxis(pixels, -1, 0))
        element = models.Image2DModel.parse(first, dims=("c", "y", "x"), scale_factors=[2, 2], chunks=(3, 256, 256))
        image = open_image(element)
    else:
        path = write_pyramid(tmp_path / "slide.tif", pixels, (2, 4))
        image = open_image(path, reader="openslide" if kind == "openslide" else "tifffile")
    array = open_image(pixels)
    assert len(image.levels) == 3
    with image:
        assert_no_shift_fits_better(image, array, size)


def assert_no_shift_fits_better(image: Any, array: Any, size: tuple[int, int]) -> None:
    for width_px in (150.0, 270.0):  # levels 1 and 2
        for center in ((200.0, 180.0), (size[0] - 180.0, size[1] - 160.0)):
            patch = cut_patch(image, center, width_px=width_px, out_px=64)[0].astype(int)
            differences = {
                (x, y): np.abs(
                    patch - cut_patch(array, (center[0] + x, center[1] + y), width_px=width_px, out_px=64)[0]
                ).mean()
                for x in (-1, 0, 1)
                for y in (-1, 0, 1)
            }
            assert min(differences, key=lambda shift: differences[shift]) == (0, 0), (width_px, center, differences)
            assert 0 < differences[0, 0] < 5, "read from a level, and nearly the same"


@pytest.mark.parametrize("kind", ["TIFF", "SpatialData"])
def test_the_border_that_a_level_lacks_is_tissue_not_padding(tmp_path, kind):
    """1,003 px make 250 blocks of 4; the three columns beside them stand in no coarser level, and are not white."""
    pixels = np.full((403, 1003, 3), 90, np.uint8)
    if kind == "SpatialData":
        models = pytest.importorskip("spatialdata.models")
        image = open_image(models.Image2DModel.parse(pixels, dims=("y", "x", "c"), scale_factors=[2, 2]))
    else:
        image = open_image(write_pyramid(tmp_path / "slide.tif", pixels, (2, 4)))
    with image:
        for center in ((1003 - 64, 403 - 64), (64, 64)):
            patch, padded = cut_patch(image, center, width_px=128, out_px=32)
            assert not padded and (patch == 90).all()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mpp", MPPS)
def test_spots_of_a_spatialdata_with_a_transformation_get_the_patch_of_the_array(mpp, size):
    """Spots in microns, the image scaled, turned by 90 degrees and moved: the pixels below a spot are the same."""
    spatialdata = pytest.importorskip("spatialdata")
    from anndata import AnnData
    from spatialdata.models import Image2DModel, ShapesModel, TableModel
    from spatialdata.transformations import Affine, Identity

    from spahgc._slides.spatialdata import spots_on_image

    pixels = board(*SIZES[size], mpp)
    # x_um = -mpp * y_px + 500, y_um = mpp * x_px + 20
    to_um = np.array([[0.0, -mpp, 500.0], [mpp, 0.0, 20.0], [0.0, 0.0, 1.0]])
    centers = np.array([[CORNER_UM[0] / mpp, CORNER_UM[1] / mpp], [200.25, 140.75]])
    spots = np.column_stack([centers, np.ones(2)]) @ to_um.T
    image = Image2DModel.parse(
        np.moveaxis(pixels, -1, 0),
        dims=("c", "y", "x"),
        transformations={"um": Affine(to_um, input_axes=("x", "y"), output_axes=("x", "y"))},
    )
    shapes = ShapesModel.parse(spots[:, :2], geometry=0, radius=27.5, transformations={"um": Identity()})
    table = AnnData(np.zeros((2, 1), np.float32))
    table.obs["region"], table.obs["spot"] = "spots", shapes.index.to_numpy()
    table.obs["region"] = table.obs["region"].astype("category")
    table = TableModel.parse(table, region="spots", region_key="region", instance_key="spot")
    sdata = spatialdata.SpatialData(images={"he": image}, shapes={"spots": shapes}, tables={"table": table})

    found = spots_on_image(sdata, sdata["table"], coordinate_system="um")

    np.testing.assert_allclose(found.xy, centers, atol=1e-6)
    opened = open_image(found.image)
    for center, known in zip(found.xy, centers, strict=True):
        width_px = ENCODER_PX * ENCODER_MPP / mpp
        patch = cut_patch(opened, center, width_px=width_px, out_px=ENCODER_PX)[0]
        expected = cut_patch(open_image(pixels), known, width_px=width_px, out_px=ENCODER_PX)[0]
        # The centre went through a matrix and back: its last digits may round a pixel differently.
        assert np.abs(patch.astype(int) - expected).max() <= 1
