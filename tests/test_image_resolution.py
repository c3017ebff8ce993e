"""Resolutions: what files say in all their ways, and numbers that no microscope makes."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

import spahgc as sp
from spahgc._slides.resolution import recorded_mpp, slide_mpp
from spahgc.image import open_image
from spahgc.image._mpp import check_mpp, mpp_from_dpi, mpp_from_tags
from spahgc.image._ome import ome_images

UM_PER_CM = 10_000
PIXELS = np.full((60, 80, 3), (190, 120, 170), np.uint8)


def tagged(path: Path, mpp: float, **options: Any) -> Path:
    """A TIFF whose tags say a resolution, in pixels per centimetre."""
    resolution = (round(UM_PER_CM / mpp), round(UM_PER_CM / mpp))
    tifffile.imwrite(path, PIXELS, photometric="rgb", resolution=resolution, resolutionunit="CENTIMETER", **options)
    return path


def ome(path: Path, **sizes: Any) -> Path:
    tifffile.imwrite(path, PIXELS, photometric="rgb", metadata={"axes": "YXS", **sizes})
    return path


def aperio(path: Path, mpp: str, **options: Any) -> Path:
    text = f"Aperio Image Library v1.0\n80x60 [0,0 80x60] (32x32) JPEG/RGB|AppMag = 20|MPP = {mpp}"
    tifffile.imwrite(path, PIXELS, photometric="rgb", tile=(32, 32), description=text, metadata=None, **options)
    return path


# --- numbers that cannot be


@pytest.mark.parametrize("mpp", [0.05, 0.025, 0.0499, 40.0])
def test_a_resolution_in_tags_that_no_microscope_makes_is_asked_about(tmp_path, mpp):
    path = tagged(tmp_path / "slide.tif", mpp)
    with open_image(path) as image:
        assert image.mpp is None
    with pytest.raises(ValueError, match=rf"not known: its resolution tags say {mpp:g}.* and 0.1 to 20 are plausible"):
        sp.pp.tile(path)


def test_a_resolution_at_the_limits_is_taken(tmp_path):
    for mpp in (0.1, 20.0):
        with open_image(tagged(tmp_path / "slide.tif", mpp)) as image:
            assert image.mpp == pytest.approx(mpp)


def test_ome_and_aperio_resolutions_are_held_to_the_same_range(tmp_path):
    for path in (
        ome(tmp_path / "slide.ome.tif", PhysicalSizeX=0.05, PhysicalSizeY=0.05),
        aperio(tmp_path / "slide.svs", "0.0499"),
    ):
        with open_image(path) as image:
            assert image.mpp is None
        with pytest.raises(ValueError, match=r"not known: (its OME metadata say|MPP in its description says) 0\.0"):
            sp.pp.tile(path)


def test_openslide_properties_are_held_to_the_same_range(tmp_path):
    pytest.importorskip("openslide")
    with open_image(aperio(tmp_path / "slide.svs", "0.0499", compression="jpeg"), reader="openslide") as image:
        assert image.mpp is None and "0.0499" in image.mpp_problem


@pytest.mark.parametrize("mpp", [0.05, 50.0, 1e-7])
def test_an_argument_out_of_range_is_refused_and_named(tmp_path, mpp):
    path = tagged(tmp_path / "slide.tif", 0.5)
    (slide,) = sp.datasets.simulated(1, n_patients=1, n_spots=40, n_genes=20)
    for call in (
        lambda: sp.pp.tile(path, mpp=mpp),
        lambda: sp.io.slide(path, mpp=mpp),
        lambda: sp.io.slide(path, spots=[[20, 20]], mpp=mpp),
        lambda: sp.pp.embed(slide, encoder="efficientnet_lite0", mpp=mpp),
    ):
        with pytest.raises(ValueError, match=rf"mpp={mpp!r} is no resolution of a light microscope: 0.1 to 20"):
            call()


@pytest.mark.parametrize("mpp", ["0.5", True])
def test_an_argument_that_is_no_number_is_refused(mpp):
    with pytest.raises(TypeError, match="microns per pixel"):
        sp.pp.tile(PIXELS, mpp=mpp)


@pytest.mark.parametrize("mpp", [0, -0.5, float("nan"), float("inf"), -float("inf")])
def test_an_argument_that_is_no_length_is_refused(mpp):
    with pytest.raises(ValueError, match="pass a positive number"):
        check_mpp("mpp", mpp)


def test_a_scale_factor_out_of_range_is_refused():
    (slide,) = sp.datasets.simulated(1, n_patients=1, n_spots=40, n_genes=20)
    (record,) = slide.uns["spatial"].values()
    slide.obs = slide.obs[["slide"]]
    for wrong in (0.05, 80.0):
        record["scalefactors"]["microns_per_pixel"] = wrong
        with pytest.raises(ValueError, match=rf"microns_per_pixel says {wrong:g} um per pixel, which is no resolution"):
            slide_mpp(slide)
    slide.uns["spahgc"] = {"slide_mpp": 0.7}
    from spahgc._slides.library import find_library

    assert recorded_mpp(slide, find_library(slide)) == 0.7


def test_the_resolution_of_a_spatialdata_image_and_of_an_own_source_are_held_to_the_range():
    (slide,) = sp.datasets.simulated(1, n_patients=1, n_spots=40, n_genes=20)
    slide.obs = slide.obs[["slide"]]
    slide.uns.clear()
    with pytest.raises(ValueError, match=r"image of the SpatialData says 0\.05 um per pixel"):
        slide_mpp(slide, element_mpp=0.05)
    image = open_image(PIXELS)
    image.mpp = 0.05
    with pytest.raises(ValueError, match=r"image file's resolution says 0\.05"):
        slide_mpp(slide, image=image)
    with pytest.raises(ValueError, match=r"image\.mpp of slide .*=0\.05 is no resolution"):
        sp.pp.tile(image)


@pytest.mark.parametrize(("x", "y"), [((0, 1), (0, 1)), ((1, 0), (1, 0)), ((-5, 1), (5, 1)), ((2**32 - 1, 1), (1, 1))])
def test_tags_of_nonsense_give_no_resolution(x, y):
    found = mpp_from_tags(x, y, 3)
    assert found is None or found.mpp is None


@pytest.mark.parametrize("dpi", [(0, 0), (float("nan"),) * 2, (float("inf"),) * 2, (25_400,), "25400", (-1, -1)])
def test_dots_per_inch_of_nonsense_give_no_resolution(dpi):
    found = mpp_from_dpi(dpi)
    assert found is None or found.mpp is None


def test_pixels_that_are_not_square_are_asked_about(tmp_path):
    tifffile.imwrite(
        tmp_path / "slide.tif", PIXELS, photometric="rgb", resolution=(20_000, 10_000), resolutionunit="CENTIMETER"
    )
    with pytest.raises(ValueError, match=r"say 0\.5 x 1 um per pixel, and pixels must be square"):
        sp.pp.tile(tmp_path / "slide.tif")


@pytest.mark.parametrize("dpi", [72, 96, 300])
def test_dots_per_inch_of_screens_are_named_where_the_resolution_is_missed(tmp_path, dpi):
    Image.fromarray(PIXELS).save(tmp_path / "slide.png", dpi=(dpi, dpi))
    with pytest.raises(ValueError, match="its dots per inch say .* and 0.1 to 20 are plausible"):
        sp.pp.tile(tmp_path / "slide.png")


def test_inches_taken_for_centimetres_beside_another_statement_are_asked_about(tmp_path):
    path = aperio(tmp_path / "slide.svs", "0.5", resolution=(20_000, 20_000), resolutionunit="INCH")
    with open_image(path) as image:
        assert image.mpp is None
        assert image.mpp_problem == "it says both 0.5 and 1.27 um per pixel"


def test_a_default_in_the_tags_does_not_speak_against_the_description(tmp_path):
    path = aperio(tmp_path / "slide.svs", "0.5", resolution=(72, 72), resolutionunit="INCH")
    with open_image(path) as image:
        assert image.mpp == 0.5


def test_given_spots_say_that_a_resolution_was_not_believed(tmp_path):
    with pytest.warns(UserWarning, match="taken as not known: its resolution tags say 0.05"):
        sp.io.slide(tagged(tmp_path / "slide.tif", 0.05), spots=[[20, 20], [50, 30]])


def test_embedding_says_what_the_file_says(tmp_path):
    path = tagged(tmp_path / "slide.tif", 0.05)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        slide = sp.io.slide(path, spots=[[20, 20], [50, 30]])
    with pytest.raises(ValueError, match=r"is not known \(its resolution tags say 0\.05.*Pass mpp="):
        sp.pp.embed(slide, encoder="efficientnet_lite0", patch_um=20)


# --- OME


@pytest.mark.parametrize(
    ("size", "unit"),
    [(0.5, "µm"), (0.5, "\u03bcm"), (0.5, "um"), (500, "nm"), (0.0005, "mm"), (0.00005, "cm"), (0.5, "micrometer")],
)
def test_ome_sizes_are_read_in_every_unit_and_escaped_as_writers_do(tmp_path, size, unit):
    path = ome(
        tmp_path / "slide.ome.tif",
        PhysicalSizeX=size,
        PhysicalSizeY=size,
        PhysicalSizeXUnit=unit,
        PhysicalSizeYUnit=unit,
    )
    with open_image(path) as image:
        assert image.mpp == pytest.approx(0.5)


@pytest.mark.parametrize(
    "attributes",
    [
        'PhysicalSizeX="0.5" PhysicalSizeY="0.5" PhysicalSizeXUnit="&#181;m" PhysicalSizeYUnit="&#181;m"',
        'PhysicalSizeX="0.5" PhysicalSizeY="0.5" PhysicalSizeXUnit="&#xB5;m" PhysicalSizeYUnit="&#xb5;m"',
        "PhysicalSizeX = '0.5' PhysicalSizeY\n='0.5'",
        'PhysicalSizeX="500" PhysicalSizeXUnit="nm" PhysicalSizeY="5.0E-4" PhysicalSizeYUnit="mm"',
    ],
)
def test_ome_metadata_are_parsed_as_xml(attributes):
    xml = f'<?xml version="1.0"?><ome:OME xmlns:ome="http://x"><ome:Image><ome:Pixels {attributes}/></ome:Image></ome:OME>'
    (image,) = ome_images(xml)
    assert image.resolution is not None and image.resolution.mpp == pytest.approx(0.5)


@pytest.mark.parametrize("unit", ["pixel", "reference frame", "furlong", ""])
def test_ome_units_that_are_no_lengths_say_nothing(unit):
    sizes = f'PhysicalSizeX="1" PhysicalSizeY="1" PhysicalSizeXUnit="{unit}" PhysicalSizeYUnit="{unit}"'
    (image,) = ome_images(f"<OME><Image><Pixels {sizes}/></Image></OME>")
    assert image.resolution is None


@pytest.mark.parametrize(
    "xml",
    [
        "<OME><Image><Pixels PhysicalSizeX=",
        "no xml",
        "",
        '<!DOCTYPE x [<!ENTITY a "0.5">]><OME><Image><Pixels PhysicalSizeX="&a;" PhysicalSizeY="&a;"/></Image></OME>',
    ],
)
def test_ome_metadata_that_are_broken_or_define_entities_say_nothing(xml):
    assert ome_images(xml) == []


def test_ome_sizes_of_nonsense_say_nothing():
    for text in ("", "abc", "nan", "0", "-1", "inf"):
        xml = f'<OME><Image><Pixels PhysicalSizeX="{text}" PhysicalSizeY="{text}"/></Image></OME>'
        (image,) = ome_images(xml)
        assert image.resolution is None or image.resolution.mpp is None


# --- ImageJ


@pytest.mark.parametrize(
    ("unit", "per_unit"), [("micron", 2), ("um", 2), ("\\u00B5m", 2), ("nm", 0.002), ("mm", 2000), ("cm", 20_000)]
)
def test_the_unit_of_imagej_is_that_of_the_tags(tmp_path, unit, per_unit):
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, PIXELS, imagej=True, resolution=(per_unit, per_unit), metadata={"unit": unit})
    with open_image(path) as image:
        assert image.mpp == pytest.approx(0.5, rel=1e-4)


def test_pixels_without_a_unit_say_nothing(tmp_path):
    tifffile.imwrite(tmp_path / "slide.tif", PIXELS, imagej=True, resolution=(2, 2), metadata={"unit": "pixel"})
    with open_image(tmp_path / "slide.tif") as image:
        assert image.mpp is None


# --- which image of the file


def write_svs(path: Path, *, macro: tuple[int, int] = (400, 300)) -> Path:
    """A slide of 120 x 90 px with the pictures that scanners put beside it, some larger than itself."""
    slide = np.full((90, 120, 3), (190, 120, 170), np.uint8)
    text = "Aperio Image Library v1.0\n120x90 (32x32) JPEG/RGB|AppMag = 20|MPP = 0.4990"
    with tifffile.TiffWriter(path) as writer:
        writer.write(slide, tile=(32, 32), photometric="rgb", description=text, metadata=None)
        writer.write(slide[::2, ::2], photometric="rgb", description="Aperio\n120x90 -> 60x45", metadata=None)
        for name, size, kind in (("label", (200, 180), 1), ("macro", macro, 9)):
            picture = np.full((*size, 3), 250, np.uint8)
            writer.write(
                picture, photometric="rgb", subfiletype=kind, description=f"Aperio\n{name} {size}", metadata=None
            )
    return path


def test_label_and_macro_larger_than_the_slide_are_not_taken_for_it(tmp_path):
    with open_image(write_svs(tmp_path / "slide.svs")) as image:
        assert (image.width, image.height, image.mpp) == (120, 90, 0.499)
        assert tuple(image.read(0, 0, 1, 1)[0, 0]) == (190, 120, 170)


def test_a_macro_image_of_an_ome_file_is_told_by_its_name(tmp_path):
    path = tmp_path / "slide.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as writer:
        for name, size, mpp in (("macro image", (300, 400), 20.0), ("scan", (60, 80), 0.5), ("label", (200, 200), 9.0)):
            metadata = {"axes": "YXS", "Name": name, "PhysicalSizeX": mpp, "PhysicalSizeY": mpp}
            writer.write(np.full((*size, 3), 200, np.uint8), photometric="rgb", metadata=metadata)
    with open_image(path) as image:
        assert (image.width, image.height, image.mpp) == (80, 60, 0.5)


def test_a_reduced_page_is_not_the_slide_whatever_its_size(tmp_path):
    path = tmp_path / "slide.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(PIXELS, photometric="rgb", metadata=None)
        writer.write(np.zeros((500, 500, 3), np.uint8), photometric="rgb", subfiletype=1, metadata=None)
    with open_image(path) as image:
        assert (image.width, image.height) == (80, 60)


def test_a_file_of_nothing_but_pictures_beside_the_slide_is_refused(tmp_path):
    path = tmp_path / "slide.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as writer:
        for name in ("label", "macro"):
            writer.write(PIXELS, photometric="rgb", metadata={"axes": "YXS", "Name": name})
    with pytest.raises(ValueError, match='all of them lie beside a slide: "label", "macro"'):
        open_image(path)


def test_the_only_image_of_a_file_is_the_slide_whatever_its_name(tmp_path):
    path = tmp_path / "macro.ome.tif"
    tifffile.imwrite(path, PIXELS, photometric="rgb", metadata={"axes": "YXS", "Name": "macro"})
    with open_image(path) as image:
        assert image.width == 80
