"""Images: the same pixels from every kind of source, and errors that name the fix."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from spahgc.image import ImageSource, open_image

HEIGHT, WIDTH = 90, 130
UM_PER_CM = 10_000


@pytest.fixture
def pixels() -> np.ndarray:
    """Red counts columns, green counts rows: whoever swaps x and y reads other numbers."""
    rows, columns = np.indices((HEIGHT, WIDTH))
    return np.stack([columns, rows, (rows * 7 + columns * 13) % 251], axis=-1).astype(np.uint8)


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
        pytest.raises(ValueError, match=rf"slide\.{suffix}.* cannot be read.*copy or download it again"),
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


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_channels_may_come_first_where_the_shape_leaves_no_doubt(pixels, channels):
    last = np.concatenate([pixels, np.full((HEIGHT, WIDTH, 1), 255, np.uint8)], axis=2)[:, :, :channels]
    expected = open_image(last).read(17, 40, 60, 33)
    np.testing.assert_array_equal(open_image(np.moveaxis(last, -1, 0)).read(17, 40, 60, 33), expected)


def test_a_narrow_image_with_channels_last_is_not_turned():
    """3 x 50 x 3 could be either; height x width x channels is what an array means where nothing speaks against it."""
    image = open_image(np.zeros((3, 50, 3), np.uint8))
    assert (image.height, image.width) == (3, 50)


@pytest.mark.parametrize("shape", [(5, 50, 60), (50, 60, 2), (50,), (2, 50, 60, 3)])
def test_shapes_that_are_no_image_are_refused(shape):
    with pytest.raises(ValueError, match="but height x width x 3"):
        open_image(np.zeros(shape, np.uint8))


def test_an_array_without_pixels_is_refused():
    with pytest.raises(ValueError, match="holds no pixels"):
        open_image(np.zeros((0, 5, 3), np.uint8))


def test_other_types_are_refused():
    with pytest.raises(TypeError, match="is of type int"):
        open_image(3)


def test_a_reader_that_does_not_exist_is_refused(tmp_path, pixels):
    with pytest.raises(ValueError, match=r'reader="cucim" is not known; pass "tifffile", "openslide"'):
        open_image(write_tiff(tmp_path / "slide.tif", pixels), reader="cucim")  # type: ignore[arg-type]


def test_a_reader_for_an_array_is_refused(pixels):
    with pytest.raises(ValueError, match="is for files, but image is of type ndarray"):
        open_image(pixels, reader="tifffile")


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
