"""Patches, thumbnails and centres: what is cut from an image, whatever holds it."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from spahgc.image import cut_patch, describe_outside, open_image, thumbnail

HEIGHT, WIDTH = 90, 130


@pytest.fixture
def pixels() -> np.ndarray:
    """Red counts columns, green counts rows: whoever swaps x and y reads other numbers."""
    rows, columns = np.indices((HEIGHT, WIDTH))
    return np.stack([columns, rows, (rows * 7 + columns * 13) % 251], axis=-1).astype(np.uint8)


def checkerboard(square_px: int, n_squares: int = 40) -> np.ndarray:
    rows, columns = np.indices((n_squares, n_squares))
    board = ((rows + columns) % 2 * 255).astype(np.uint8).repeat(square_px, 0).repeat(square_px, 1)
    return np.repeat(board[:, :, None], 3, axis=2)


def test_a_patch_of_the_same_width_is_copied_exactly(pixels):
    patch, padded = cut_patch(open_image(pixels), (60.2, 40.7), width_px=20, out_px=20, interpolation="bicubic")
    np.testing.assert_array_equal(patch, pixels[31:51, 50:70])
    assert not padded


def test_x_is_the_column_and_y_the_row(pixels):
    patch, _ = cut_patch(open_image(pixels), (100, 30), width_px=10, out_px=10, interpolation="nearest")
    assert patch[0, 0, 0] == 95 and patch[0, 0, 1] == 25
    assert patch[0, 1, 0] == 96 and patch[1, 0, 1] == 26


def test_half_pixels_round_up_everywhere(pixels):
    lefts = [
        int(cut_patch(open_image(pixels), (x, 40), width_px=10, out_px=10)[0][0, 0, 0])
        for x in (20.5, 21.5, 22.5, 23.5)
    ]
    assert np.diff(lefts).tolist() == [1, 1, 1]


@pytest.mark.parametrize("interpolation", ["area", "bilinear", "bicubic", "lanczos", "nearest"])
def test_a_linear_ramp_keeps_its_place_at_any_width(interpolation):
    """The mean of a patch of a ramp is the coordinate of its centre: no filter moves the patch."""
    columns = np.tile(np.arange(200, dtype=np.uint8), (200, 1))
    image = open_image(np.stack([columns, columns.T, columns], axis=-1))
    for width in (31.5, 60.0, 97.25):
        patch, _ = cut_patch(image, (90.25, 110.75), width_px=width, out_px=32, interpolation=interpolation)
        # Pixel i covers [i, i + 1), so that its value stands for i + 1/2.
        assert patch[:, :, 0].mean() + 0.5 == pytest.approx(90.25, abs=0.5), width
        assert patch[:, :, 1].mean() + 0.5 == pytest.approx(110.75, abs=0.5), width


@pytest.mark.parametrize("factor", [2, 3, 5])
@pytest.mark.parametrize("interpolation", ["area", "nearest"])
def test_a_checkerboard_is_right_to_the_pixel_when_shrunk(factor, interpolation):
    small, large = checkerboard(4), checkerboard(4 * factor)
    center = np.array([70.0, 90.0])
    patch, _ = cut_patch(
        open_image(large), center * factor, width_px=32 * factor, out_px=32, interpolation=interpolation
    )
    np.testing.assert_array_equal(patch, small[74:106, 54:86])


@pytest.mark.parametrize("factor", [2, 4])
def test_a_checkerboard_is_right_to_the_pixel_when_enlarged(factor):
    small, large = checkerboard(4), checkerboard(4 * factor)
    patch, _ = cut_patch(open_image(small), (70, 90), width_px=32, out_px=32 * factor, interpolation="nearest")
    top, left = 74 * factor, 54 * factor
    np.testing.assert_array_equal(patch, large[top : top + 32 * factor, left : left + 32 * factor])


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
def test_a_patch_equals_the_crop_of_the_resized_image(interpolation):
    """The margin is large enough: a patch sees the same neighbours as the whole image would."""
    noise = np.random.default_rng(1).integers(0, 255, (300, 300, 3), dtype=np.uint8)
    filters = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    method = filters.get(interpolation, Image.Resampling.LANCZOS)
    whole = np.asarray(Image.fromarray(noise).resize((100, 100), method))
    patch, _ = cut_patch(open_image(noise), (150, 180), width_px=120, out_px=40, interpolation=interpolation)
    assert np.abs(patch.astype(int) - whole[40:80, 30:70]).max() <= 1


def test_what_lies_outside_is_white_and_flagged(pixels):
    patch, padded = cut_patch(open_image(pixels), (2, 50), width_px=20, out_px=20)
    assert padded
    assert (patch[:, :8] == 255).all()
    np.testing.assert_array_equal(patch[:, 8:], pixels[40:60, :12])


def test_a_resampled_patch_is_padded_as_well():
    black = open_image(np.zeros((100, 100, 3), np.uint8))
    patch, padded = cut_patch(black, (100, 50), width_px=40, out_px=20, interpolation="area")
    assert padded
    assert (patch[:, :10] == 0).all() and (patch[:, 10:] == 255).all()


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
def test_a_patch_that_touches_the_border_from_inside_sees_no_white(interpolation):
    black = open_image(np.zeros((100, 100, 3), np.uint8))
    patch, padded = cut_patch(black, (20, 80), width_px=40, out_px=16, interpolation=interpolation)
    assert not padded
    assert (patch == 0).all()


def test_a_patch_beside_the_image_is_all_white(pixels):
    patch, padded = cut_patch(open_image(pixels), (-500, 50), width_px=30, out_px=20)
    assert padded and (patch == 255).all()


def test_an_unknown_filter_is_refused(pixels):
    with pytest.raises(ValueError, match=r'interpolation="random" is not known; pass one of area, bicubic'):
        cut_patch(open_image(pixels), (5, 5), width_px=4, out_px=4, interpolation="random")


@pytest.mark.parametrize("width", [0, -3, np.nan, np.inf])
def test_a_width_that_is_none_is_refused(pixels, width):
    with pytest.raises(ValueError, match="width_px is"):
        cut_patch(open_image(pixels), (5, 5), width_px=width, out_px=4)


def test_a_centre_that_is_not_finite_is_refused(pixels):
    with pytest.raises(ValueError, match="pass finite pixel coordinates"):
        cut_patch(open_image(pixels), (np.nan, 5), width_px=4, out_px=4)


# --- thumbnails and centres


def test_a_thumbnail_has_the_asked_size_and_one_scale():
    image = np.zeros((1003, 407, 3), np.uint8)
    small, scale = thumbnail(open_image(image), 200)
    assert small.shape == (200, int(407 * scale), 3)
    assert scale == 200 / 1003


def test_the_bands_of_a_thumbnail_are_those_of_the_image_resized_at_once():
    image = np.random.default_rng(0).integers(0, 255, (1800, 60, 3), dtype=np.uint8)
    small, _ = thumbnail(open_image(image), 900)
    whole = np.asarray(Image.fromarray(image).resize((30, 900), Image.Resampling.BILINEAR))
    assert np.abs(small.astype(int) - whole).max() <= 1


def test_a_small_image_is_not_enlarged(pixels):
    small, scale = thumbnail(open_image(pixels), 2000)
    assert scale == 1.0
    np.testing.assert_array_equal(small, pixels)
    assert not np.shares_memory(small, pixels)


def test_centres_inside_give_no_message():
    assert describe_outside(np.array([[0.0, 0.0], [50.0, 20.0]]), height=20, width=50) is None


def test_swapped_centres_are_recognised():
    text = describe_outside(np.array([[10.0, 90.0], [5.0, 30.0]]), height=50, width=100)
    assert text is not None
    assert "1 of 2 spot centres" in text and "x and y swapped" in text and "100 px wide and 50 px high" in text
