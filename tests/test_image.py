"""Images: the same pixels from every kind of source, patches that are right to the pixel, errors that name the fix."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from spahgc.image import ImageSource, cut_patch, describe_outside, open_image, thumbnail

HEIGHT, WIDTH = 90, 130
UM_PER_CM = 10_000


@pytest.fixture
def pixels() -> np.ndarray:
    """Red counts columns, green counts rows: whoever swaps x and y reads other numbers."""
    rows, columns = np.indices((HEIGHT, WIDTH))
    return np.stack([columns, rows, (rows * 7 + columns * 13) % 251], axis=-1).astype(np.uint8)


def checkerboard(square_px: int, n_squares: int = 40) -> np.ndarray:
    rows, columns = np.indices((n_squares, n_squares))
    board = ((rows + columns) % 2 * 255).astype(np.uint8).repeat(square_px, 0).repeat(square_px, 1)
    return np.repeat(board[:, :, None], 3, axis=2)


def write_tiff(path: Path, pixels: np.ndarray, **kwargs) -> Path:
    tifffile.imwrite(path, pixels, photometric="rgb", **kwargs)
    return path


TIFF_KINDS = {
    "uncompressed": {},
    "tiled": {"tile": (32, 32), "compression": "zlib"},
    "strips": {"rowsperstrip": 16, "compression": "lzw"},
    "planar": {"planarconfig": "separate", "tile": (32, 32), "compression": "zlib"},
    "bigtiff": {"bigtiff": True, "tile": (64, 64)},
}


@pytest.mark.parametrize("kind", TIFF_KINDS)
def test_a_tiff_gives_the_pixels_of_the_array(tmp_path, pixels, kind):
    stored = np.moveaxis(pixels, -1, 0) if kind == "planar" else pixels
    path = write_tiff(tmp_path / "slide.tif", stored, **TIFF_KINDS[kind])
    with open_image(path) as image:
        assert (image.height, image.width) == (HEIGHT, WIDTH)
        np.testing.assert_array_equal(image.read(17, 40, 60, 33), pixels[40:73, 17:77])
        np.testing.assert_array_equal(image.read(0, 0, WIDTH, HEIGHT), pixels)


@pytest.mark.parametrize("name", ["slide.png", "slide.bmp"])
def test_a_raster_file_gives_the_pixels_of_the_array(tmp_path, pixels, name):
    Image.fromarray(pixels).save(tmp_path / name)
    with open_image(tmp_path / name) as image:
        assert (image.height, image.width) == (HEIGHT, WIDTH)
        np.testing.assert_array_equal(image.read(17, 40, 60, 33), pixels[40:73, 17:77])


def test_a_jpeg_gives_what_pil_decodes(tmp_path, pixels):
    path = tmp_path / "slide.jpg"
    Image.fromarray(pixels).save(path)
    with open_image(str(path)) as image:
        np.testing.assert_array_equal(image.read(10, 20, 30, 40), np.asarray(Image.open(path))[20:60, 10:40])


def test_the_content_decides_on_the_format_not_the_name(tmp_path, pixels):
    path = write_tiff(tmp_path / "slide.jpg", pixels)
    with open_image(path) as image:
        np.testing.assert_array_equal(image.read(1, 2, 3, 4), pixels[2:6, 1:4])


def test_the_largest_level_of_a_pyramid_is_read(tmp_path, pixels):
    path = tmp_path / "slide.ome.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(pixels, subifds=1, tile=(32, 32), photometric="rgb")
        writer.write(pixels[::2, ::2], subfiletype=1, tile=(32, 32), photometric="rgb")
    with open_image(path) as image:
        np.testing.assert_array_equal(image.read(64, 32, 50, 40), pixels[32:72, 64:114])


def test_the_largest_image_of_a_file_is_read(tmp_path, pixels):
    path = tmp_path / "slide.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(pixels[::5, ::5], photometric="rgb")
        writer.write(pixels, photometric="rgb")
    with open_image(path) as image:
        assert (image.height, image.width) == (HEIGHT, WIDTH)


def test_a_tiled_tiff_is_opened_tile_by_tile(tmp_path):
    path = write_tiff(tmp_path / "slide.tif", np.zeros((512, 512, 3), np.uint8), tile=(64, 64), compression="zlib")
    with open_image(path) as image:
        image.read(0, 0, 1, 1)
        assert image._data.chunks[:2] == (64, 64), "opened in chunks of one tile"


def test_an_array_is_not_copied_and_a_region_is(pixels):
    image = open_image(pixels)
    region = image.read(0, 0, 5, 5)
    region[:] = 0
    assert pixels[4, 4, 0] == 4
    pixels[0, 0] = 99
    assert image.read(0, 0, 1, 1)[0, 0, 0] == 99


def test_greyscale_is_repeated(pixels):
    grey = pixels[:, :, 0]
    np.testing.assert_array_equal(open_image(grey).read(3, 4, 5, 6), np.repeat(grey[4:10, 3:8, None], 3, axis=2))


@pytest.mark.parametrize("kind", ["array", "png", "tiff"])
def test_transparent_pixels_become_white(tmp_path, pixels, kind):
    alpha = np.full((HEIGHT, WIDTH, 1), 255, np.uint8)
    alpha[:10] = 0
    rgba = np.concatenate([pixels, alpha], axis=2)
    source = rgba
    if kind == "png":
        source = tmp_path / "slide.png"
        Image.fromarray(rgba).save(source)
    elif kind == "tiff":
        source = write_tiff(tmp_path / "slide.tif", rgba, extrasamples=["unassalpha"])
    with open_image(source) as image:
        assert (image.read(0, 0, WIDTH, 10) == 255).all()
        np.testing.assert_array_equal(image.read(0, 10, WIDTH, 10), pixels[10:20])


def test_an_image_source_of_ones_own_comes_back_as_it_is(pixels):
    image = open_image(pixels)
    assert isinstance(image, ImageSource)
    assert open_image(image) is image


@pytest.mark.parametrize(("unit", "per_unit"), [("CENTIMETER", 20_000), ("INCH", 50_800)])
def test_resolution_tags_become_microns_per_pixel(tmp_path, pixels, unit, per_unit):
    path = write_tiff(tmp_path / "slide.tif", pixels, resolution=(per_unit, per_unit), resolutionunit=unit)
    with open_image(path) as image:
        assert image.mpp == pytest.approx(0.5)


@pytest.mark.parametrize("dpi", [72, 96, 300])
def test_dpi_of_photography_are_not_a_resolution(tmp_path, pixels, dpi):
    tiff = write_tiff(tmp_path / "slide.tif", pixels, resolution=(dpi, dpi), resolutionunit="INCH")
    Image.fromarray(pixels).save(tmp_path / "slide.jpg", dpi=(dpi, dpi))
    for path in (tiff, tmp_path / "slide.jpg"):
        with open_image(path) as image:
            assert image.mpp is None, path


def test_resolutions_that_differ_by_axis_are_not_used(tmp_path, pixels):
    path = write_tiff(tmp_path / "slide.tif", pixels, resolution=(20_000, 10_000), resolutionunit="CENTIMETER")
    with open_image(path) as image:
        assert image.mpp is None


def test_dpi_of_a_microscope_are_a_resolution_in_png(tmp_path, pixels):
    Image.fromarray(pixels).save(tmp_path / "slide.png", dpi=(25_400, 25_400))
    with open_image(tmp_path / "slide.png") as image:
        assert image.mpp == pytest.approx(1.0, rel=1e-3)


def test_ome_metadata_become_microns_per_pixel(tmp_path, pixels):
    metadata = {"axes": "YXS", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25, "PhysicalSizeXUnit": "µm"}
    path = write_tiff(tmp_path / "slide.ome.tif", pixels, metadata=metadata)
    with open_image(path) as image:
        assert image.mpp == pytest.approx(0.25)


def test_aperio_description_becomes_microns_per_pixel(tmp_path, pixels):
    path = tmp_path / "slide.svs"
    text = "Aperio Image Library v1.0\n130x90 [0,0 130x90] (32x32) JPEG/RGB|AppMag = 20|MPP = 0.4990"
    write_tiff(path, pixels, tile=(32, 32), description=text, metadata=None)
    with open_image(path) as image:
        assert image.mpp == pytest.approx(0.499)


def test_slides_larger_than_pils_limit_open_and_the_limit_stays(tmp_path, pixels, monkeypatch):
    Image.fromarray(pixels).save(tmp_path / "slide.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with open_image(tmp_path / "slide.png") as image:
        np.testing.assert_array_equal(image.read(0, 0, WIDTH, HEIGHT), pixels)
    assert Image.MAX_IMAGE_PIXELS == 100


def test_pils_limit_is_restored_after_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    (tmp_path / "slide.png").write_bytes(b"no image at all")
    with pytest.raises(ValueError, match="is not an image that can be read"):
        open_image(tmp_path / "slide.png")
    assert Image.MAX_IMAGE_PIXELS == 100


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.jpg.* does not exist"):
        open_image(tmp_path / "absent.jpg")


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is a folder, not an image"):
        open_image(tmp_path)


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "slide.jpg").touch()
    with pytest.raises(ValueError, match="is empty"):
        open_image(tmp_path / "slide.jpg")


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_truncated_raster_file_is_refused(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    path = tmp_path / f"slide.{suffix}"
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with (
        pytest.raises(ValueError, match=rf"slide\.{suffix}.* cannot be decoded.*copy or download it again"),
        open_image(path) as image,
    ):
        image.read(0, 0, 1, 1)


@pytest.mark.parametrize("kind", TIFF_KINDS)
def test_a_truncated_tiff_is_refused_when_it_is_opened(tmp_path, kind):
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    stored = np.moveaxis(noise, -1, 0) if kind == "planar" else noise
    path = write_tiff(tmp_path / "slide.tif", stored, **TIFF_KINDS[kind])
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(ValueError, match=r"slide\.tif.* cannot be read.*copy or download it again"):
        open_image(path)


def test_a_tiff_header_without_a_tiff_is_refused(tmp_path):
    (tmp_path / "slide.tif").write_bytes(b"II*\x00" + b"nonsense" * 4)
    with pytest.raises(ValueError, match="cannot be read"):
        open_image(tmp_path / "slide.tif")


def test_sixteen_bits_are_refused(tmp_path, pixels):
    path = write_tiff(tmp_path / "slide.tif", pixels.astype(np.uint16) * 256)
    with pytest.raises(ValueError, match=r"data type uint16, but uint8.*is needed"):
        open_image(path)
    Image.fromarray(pixels[:, :, 0].astype(np.uint16)).save(tmp_path / "slide.png")
    with pytest.raises(ValueError, match='mode "I;16"'):
        open_image(tmp_path / "slide.png")


def test_a_stack_of_images_is_refused(tmp_path, pixels):
    path = write_tiff(tmp_path / "stack.tif", np.stack([pixels] * 3))
    with pytest.raises(ValueError, match="one RGB image is needed"):
        open_image(path)


def test_fluorescence_channels_are_refused(tmp_path):
    path = tmp_path / "slide.ome.tif"
    tifffile.imwrite(path, np.zeros((5, 40, 40), np.uint8), metadata={"axes": "CYX"}, photometric="minisblack")
    with pytest.raises(ValueError, match="one RGB image is needed"):
        open_image(path)


def test_floats_are_refused_with_the_conversion(pixels):
    with pytest.raises(ValueError, match=r"float64, but uint8.*\* 255"):
        open_image(pixels / 255)


def test_channels_first_are_refused_with_the_conversion(pixels):
    with pytest.raises(ValueError, match="moveaxis"):
        open_image(np.moveaxis(pixels, -1, 0).copy())


def test_an_array_without_pixels_is_refused():
    with pytest.raises(ValueError, match="holds no pixels"):
        open_image(np.zeros((0, 5, 3), np.uint8))


def test_other_types_are_refused():
    with pytest.raises(TypeError, match="is of type int"):
        open_image(3)  # type: ignore[arg-type]


@pytest.mark.parametrize("region", [(-1, 0, 5, 5), (0, 0, WIDTH + 1, 5), (0, HEIGHT - 4, 5, 5), (0, 0, 0, 5)])
def test_a_region_outside_the_image_is_refused(pixels, region):
    with pytest.raises(ValueError, match=f"not inside the image of {WIDTH} x {HEIGHT} px"):
        open_image(pixels).read(*region)


@pytest.mark.parametrize("name", ["slide.png", "slide.tif"])
def test_a_closed_image_says_so(tmp_path, pixels, name):
    if name == "slide.tif":
        write_tiff(tmp_path / name, pixels)
    else:
        Image.fromarray(pixels).save(tmp_path / name)
    with open_image(tmp_path / name) as image:
        image.read(0, 0, 1, 1)
    with pytest.raises(ValueError, match="is closed"):
        image.read(0, 0, 1, 1)


# --- patches


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
