"""Which image of a SpatialData is taken, and commands that our messages quote: they are run as they stand."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

spatialdata = pytest.importorskip("spatialdata")

from spatialdata.models import Image2DModel, Labels2DModel, PointsModel, ShapesModel, TableModel  # noqa: E402
from spatialdata.transformations import Identity, Scale  # noqa: E402

from spahgc._slides.spatialdata import spots_on_image  # noqa: E402

N = 12
XY = np.column_stack([np.tile([15.0, 35.0, 55.0, 75.0], 3), np.repeat([15.0, 35.0, 55.0], 4)])
HE = np.full((80, 100, 3), (190, 120, 170), np.uint8)


def table(region: str = "spots", instances=None) -> AnnData:
    adata = AnnData(np.ones((N, 2), np.float32), obs=pd.DataFrame(index=[f"s{i}" for i in range(N)]))
    adata.obs["where"], adata.obs["which"] = region, np.arange(N) if instances is None else instances
    return TableModel.parse(adata, region=region, region_key="where", instance_key="which")


def image(pixels: np.ndarray, *, scale: float = 1.0, **options):
    to_global = Scale([scale, scale], axes=("x", "y")) if scale != 1.0 else Identity()
    dims = ("y", "x", "c") if pixels.ndim == 3 else ("y", "x")
    if pixels.ndim == 2:
        pixels, dims = pixels[None], ("c", "y", "x")
    return Image2DModel.parse(pixels, dims=dims, transformations={"global": to_global}, **options)


def sdata_of(images, *, adata=None, **elements):
    shapes = elements.pop("shapes", {"spots": ShapesModel.parse(XY, geometry=0, radius=5.0)})
    return spatialdata.SpatialData(
        images=images, shapes=shapes, tables={"table": table() if adata is None else adata}, **elements
    )


# --- one of several images


FOCUS = {
    "16 bits": np.zeros((160, 200), np.uint16),
    "16 bits, four stains": np.zeros((160, 200, 4), np.uint16),
    "8 bits, five stains": np.zeros((160, 200, 5), np.uint8),
    "8 bits, one stain": np.zeros((160, 200), np.uint8),
    "floats": np.zeros((160, 200), np.float32),
}


@pytest.mark.parametrize("name", FOCUS)
def test_fluorescence_beside_the_h_and_e_does_not_stop_the_choice_and_is_named(name):
    sdata = sdata_of({"he_image": image(HE), "morphology_focus": image(FOCUS[name], scale=0.5)})
    with pytest.warns(
        UserWarning, match=r'left out .*image_key= names one: "morphology_focus": .*(data type|shape|channel)'
    ):
        found = spots_on_image(sdata, sdata["table"])
    assert found.image_key == "he_image"
    np.testing.assert_allclose(found.xy, XY)


def test_the_named_image_is_taken_without_a_word_about_others(recwarn):
    sdata = sdata_of({"he_image": image(HE), "morphology_focus": image(FOCUS["16 bits"], scale=0.5)})
    assert spots_on_image(sdata, sdata["table"], image_key="he_image").image_key == "he_image"
    assert not [warning for warning in recwarn if "left out" in str(warning.message)]


def test_where_no_image_can_be_h_and_e_all_are_named_with_their_reasons():
    sdata = sdata_of({"a": image(FOCUS["16 bits"]), "b": image(FOCUS["8 bits, five stains"])})
    with pytest.raises(ValueError, match=r'no image of the SpatialData can be H&E. "a": .*uint16.*"b": .*shape'):
        spots_on_image(sdata, sdata["table"])


def test_the_only_image_may_be_grey_and_an_unreadable_only_one_says_why():
    sdata = sdata_of({"a": image(np.full((80, 100), 200, np.uint8))})
    assert spots_on_image(sdata, sdata["table"]).image_key == "a"
    sdata = sdata_of({"a": image(FOCUS["16 bits"])})
    with pytest.raises(ValueError, match='image "a" of the SpatialData cannot be read: .*uint16'):
        spots_on_image(sdata, sdata["table"])


def test_two_images_in_colours_that_differ_are_still_asked_about():
    other = image(np.full((90, 70, 3), 200, np.uint8))
    sdata = sdata_of({"a": image(HE), "b": other, "focus": image(FOCUS["16 bits"])})
    with (
        pytest.warns(UserWarning, match='"focus"'),
        pytest.raises(ValueError, match='several images .*: "a", "b". .*image_key='),
    ):
        spots_on_image(sdata, sdata["table"])


# --- commands as they stand in messages


def message_of(sdata, adata) -> str:
    with pytest.raises((ValueError, KeyError)) as error:
        spots_on_image(sdata, adata)
    return str(error.value)


def quoted_command(message: str, pattern: str) -> str:
    found = re.search(pattern, message)
    assert found is not None, message
    return found[0]


@pytest.mark.parametrize("kind", ["points", "labels"])
def test_the_commands_that_make_circles_work(kind):
    if kind == "points":
        frame = pd.DataFrame({"x": XY[:, 0], "y": XY[:, 1]})
        elements = {"points": {"cells": PointsModel.parse(frame, coordinates={"x": "x", "y": "y"})}}
        adata = table("cells")
    else:
        labels = np.zeros((80, 100), np.int32)
        for number, (x, y) in enumerate(XY.astype(int), 1):
            labels[y - 3 : y + 3, x - 3 : x + 3] = number
        elements = {"labels": {"cells": Labels2DModel.parse(labels, dims=("y", "x"))}}
        adata = table("cells", np.arange(1, N + 1))
    sdata = sdata_of({"he": image(HE)}, adata=adata, shapes={}, **elements)
    message = message_of(sdata, sdata["table"])
    circles = quoted_command(message, r"sdata\.shapes\[.*?\] = spatialdata\.to_circles\(.*?\]( *, radius=\.\.\.)?\)")
    assign = quoted_command(message, r'table\.obs\[.*?\] = ".*?"')
    parse = quoted_command(message, r"spatialdata\.models\.TableModel\.parse\(.*?\)")
    names = {"sdata": sdata, "spatialdata": spatialdata, "table": sdata["table"]}
    for command in (circles.replace("...", "5.0"), assign, parse):
        exec(command, names)
    np.testing.assert_allclose(spots_on_image(sdata, sdata["table"]).xy, XY, atol=0.51)


def test_the_command_that_keeps_spots_with_a_shape_works_for_a_table_of_any_name():
    instances = np.arange(N)
    instances[-2:] = [98, 99]
    sdata = sdata_of({"he": image(HE)}, adata=table(instances=instances))
    sdata.tables["other"] = sdata.tables["table"].copy()
    del sdata.tables["table"]
    message = message_of(sdata, sdata["other"])
    command = quoted_command(message, r"sdata\[table_name\] = spatialdata\.match_table_to_element\(.*?\)")
    exec(command, {"sdata": sdata, "spatialdata": spatialdata, "table_name": "other"})
    assert sdata["other"].n_obs == N - 2
    np.testing.assert_allclose(spots_on_image(sdata, sdata["other"]).xy, XY[:-2])


def test_the_command_that_takes_one_slide_of_several_works():
    adata = table()
    adata.obs["where"] = pd.Categorical(["spots"] * 6 + ["others"] * 6)
    adata.uns["spatialdata_attrs"]["region"] = ["spots", "others"]
    shapes = {name: ShapesModel.parse(XY, geometry=0, radius=5.0) for name in ("spots", "others")}
    sdata = sdata_of({"he": image(HE)}, adata=adata, shapes=shapes)
    command = quoted_command(message_of(sdata, sdata["table"]), r"sdata\.subset\(.*?\]\)")
    one = eval(command, {"sdata": sdata})
    assert spots_on_image(one, one["table"]).xy.shape == (6, 2)


def test_the_command_that_adds_an_image_works():
    sdata = sdata_of({})
    command = quoted_command(
        message_of(sdata, sdata["table"]), r"sdata\.images\[.*?\] = .*?\.parse\(.*?\)(?=\.$|\. |$)"
    )
    names = {"sdata": sdata, "spatialdata": spatialdata, "pixels": HE, "where": {"global": Identity()}}
    exec(command.replace("transformations=...", "transformations=where"), names)
    assert spots_on_image(sdata, sdata["table"]).image_key == "he"


def test_the_command_that_lets_a_table_annotate_works():
    sdata = sdata_of({"he": image(HE)})
    adata = AnnData(np.ones((N, 2), np.float32), obs=pd.DataFrame({"where": "spots", "which": np.arange(N)}))
    adata.obs_names = [f"s{i}" for i in range(N)]
    command = quoted_command(message_of(sdata, adata), r"spatialdata\.models\.TableModel\.parse\(.*?\)")
    for name, value in (("region", "spots"), ("region_key", "where"), ("instance_key", "which")):
        command = command.replace(f"{name}=...", f'{name}="{value}"')
    annotated = eval(command, {"spatialdata": spatialdata, "adata": adata})
    np.testing.assert_allclose(spots_on_image(sdata, annotated).xy, XY)


def test_the_function_that_messages_name_for_transformations_is_there():
    from spahgc._slides.spatialdata import SET_TRANSFORMATION

    assert callable(eval(SET_TRANSFORMATION, {"spatialdata": __import__("spatialdata.transformations")}))


def test_the_commands_for_axes_of_an_image_work():
    xarray = pytest.importorskip("xarray")
    from spahgc.image import open_image

    volume = xarray.DataArray(np.stack([HE] * 2).transpose(3, 0, 1, 2), dims=("c", "z", "row", "x"))
    with pytest.raises(ValueError, match="has axes") as error:
        open_image(volume)
    names = {"image": volume}
    for pattern in (r'image\.rename\(\{"row": "y"\}\)', r"image\.isel\(z=0\)"):
        names["image"] = eval(quoted_command(str(error.value), pattern), names)
    np.testing.assert_array_equal(open_image(names["image"]).read(0, 0, 100, 80), HE)


def test_the_conversions_of_other_data_types_work():
    from spahgc.image import open_image

    for pixels, pattern in (
        (HE / 255, r"\(image \* 255\)\.round\(\)\.astype\('uint8'\)"),
        (HE.astype(np.float32), r"image\.round\(\)\.astype\('uint8'\)"),
        (HE.astype(np.uint16) * 257, r"\(image / 65535 \* 255\)\.round\(\)\.astype\('uint8'\)"),
        (HE.astype(np.int64), r"image\.astype\('uint8'\)"),
    ):
        with pytest.raises(ValueError, match="has data type") as error:
            open_image(pixels)
        converted = eval(quoted_command(str(error.value), pattern), {"image": pixels})
        np.testing.assert_array_equal(open_image(converted).read(0, 0, 100, 80), HE)
