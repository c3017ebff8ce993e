"""SpatialData in and out: where its spots lie on the image, and that every function works on it as on an AnnData."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import spahgc as sp
from spahgc._slides.spatialdata import spots_on_image
from spahgc._slides.tables import is_spatialdata, table_of, with_table
from spahgc.image import open_image
from spahgc.pl._tissue import tissue_on_image

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
sd = pytest.importorskip("spatialdata")
geopandas = pytest.importorskip("geopandas")
shapely = pytest.importorskip("shapely")

from spatialdata.models import Image2DModel, ShapesModel, TableModel  # noqa: E402
from spatialdata.transformations import (  # noqa: E402
    Affine,
    Identity,
    MapAxis,
    Scale,
    Sequence,
    Translation,
    set_transformation,
)

SIZE = 120
"""Width of the small images, pixels; they are half as high again."""
RADIUS = 4.0


def affine(matrix: list[list[float]]) -> Affine:
    return Affine(np.array([*matrix, [0, 0, 1]], dtype=float), input_axes=("x", "y"), output_axes=("x", "y"))


def apply(transformation, xy: np.ndarray) -> np.ndarray:
    matrix = transformation.to_affine_matrix(("x", "y"), ("x", "y"))
    return xy @ matrix[:2, :2].T + matrix[:2, 2]


def circles(xy: np.ndarray, names, *, radius: float = RADIUS, **to_systems):
    shapes = geopandas.GeoDataFrame(
        {"geometry": geopandas.points_from_xy(*xy.T), "radius": float(radius)}, index=pd.Index(names)
    )
    return ShapesModel.parse(shapes, transformations=to_systems or {"global": Identity()})


def image(pixels: np.ndarray, *, scales: list[int] | None = None, **to_systems):
    return Image2DModel.parse(
        pixels, dims=("y", "x", "c"), scale_factors=scales, transformations=to_systems or {"global": Identity()}
    )


def annotating(adata: AnnData, region: str = "spots") -> AnnData:
    """The slide as a table whose rows stand for shapes of one name."""
    adata = adata.copy()
    adata.obs["region"] = pd.Categorical([region] * adata.n_obs)
    adata.obs["instance"] = np.arange(adata.n_obs)
    return TableModel.parse(adata, region=region, region_key="region", instance_key="instance")


def as_spatialdata(slide: AnnData, *, with_image: bool = True, places: bool = True, region: str = "spots"):
    """A slide of the cohort as a SpatialData: circles in reverse order, and a multi-scale image below them."""
    xy = np.asarray(slide.obsm["spatial"], dtype=float)
    table = annotating(slide, region)
    if not places:
        del table.obsm["spatial"]
    width, height = (np.ceil(xy.max(axis=0)) + 100).astype(int)
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[..., 0] = 200
    shapes = circles(xy[::-1], np.arange(len(xy))[::-1], radius=30)
    images = {"he": image(pixels, scales=[2, 2])} if with_image else {}
    return sd.SpatialData(images=images, shapes={region: shapes}, tables={"table": table})


@pytest.fixture(scope="session")
def small() -> sp.Parameters:
    """A model with all its parts, trained in no time."""
    return sp.Parameters(n_axes=3, line=True, width=16, layers=1, heads=2, epochs=1)


@pytest.fixture
def centres() -> np.ndarray:
    """Centres of pixels, no two in one row or column, and none on the diagonal."""
    rng = np.random.default_rng(0)
    x, y = rng.permutation(SIZE)[:12], SIZE // 2 + rng.permutation(SIZE)[:12]
    return np.column_stack([x, y]) + 0.5


@pytest.fixture
def marked(centres: np.ndarray) -> np.ndarray:
    """An image on which the pixel below spot i has colour i + 1."""
    pixels = np.zeros((SIZE * 3 // 2, SIZE, 3), dtype=np.uint8)
    columns, rows = np.floor(centres).astype(int).T
    pixels[rows, columns] = np.arange(1, len(centres) + 1)[:, None]
    return pixels


@pytest.fixture
def spots(centres: np.ndarray) -> AnnData:
    return annotating(AnnData(np.ones((len(centres), 2), dtype=np.float32)))


TRANSFORMATIONS = {
    "identity": Identity(),
    "scale": Scale([3.0, 0.5], axes=("x", "y")),
    "translation": Translation([40.0, -7.0], axes=("x", "y")),
    "rotation": affine([[0, -1, 500], [1, 0, 20]]),
    "affine": affine([[1.2, 0.3, 11], [-0.4, 0.9, -5]]),
    "swapped axes": MapAxis({"x": "y", "y": "x"}),
    "sequence": Sequence([Scale([2.0, 2.0], axes=("x", "y")), affine([[0, 1, 3], [-1, 0, 400]])]),
}


@pytest.mark.parametrize("scales", [None, [2, 2]], ids=["one scale", "three scales"])
@pytest.mark.parametrize("of_shapes", ["identity", "rotation"])
@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_centres_are_found_through_the_transformations(name, of_shapes, scales, centres, marked, spots):
    to_system, own = TRANSFORMATIONS[name], TRANSFORMATIONS[of_shapes]
    in_system = apply(to_system, centres)
    in_shapes = apply(own.inverse(), in_system)
    sdata = sd.SpatialData(
        images={"he": image(marked, scales=scales, aligned=to_system)},
        shapes={"spots": circles(in_shapes, np.arange(len(centres)), aligned=own)},
        tables={"table": spots},
    )
    found = spots_on_image(sdata, sdata["table"])
    np.testing.assert_allclose(found.xy, centres, atol=1e-9)
    with open_image(found.image) as opened:
        below = [opened.read(int(x), int(y), 1, 1)[0, 0, 0] for x, y in found.xy]
    assert below == list(range(1, len(centres) + 1))


def test_diameter_is_in_pixels_of_the_image(centres, marked, spots):
    sdata = sd.SpatialData(
        images={"he": image(marked, **{"global": Scale([0.5, 0.5], axes=("x", "y"))})},
        shapes={"spots": circles(centres * 0.5, np.arange(len(centres)), radius=3)},
        tables={"table": spots},
    )
    assert spots_on_image(sdata, spots).diameter_px == pytest.approx(12)


def test_spots_are_joined_by_their_names_and_not_by_their_order(centres, marked, spots):
    order = np.random.default_rng(1).permutation(len(centres))
    sdata = sd.SpatialData(
        images={"he": image(marked)},
        shapes={"spots": circles(centres[order], order)},
        tables={"table": spots},
    )
    np.testing.assert_allclose(spots_on_image(sdata, spots).xy, centres)
    np.testing.assert_allclose(spots_on_image(sdata, spots[4:9]).xy, centres[4:9])


def test_squares_count_by_their_centroids(centres, marked, spots):
    squares = geopandas.GeoDataFrame({"geometry": [shapely.box(x - 2, y - 2, x + 2, y + 2) for x, y in centres]})
    sdata = sd.SpatialData(
        images={"he": image(marked)}, shapes={"spots": ShapesModel.parse(squares)}, tables={"table": spots}
    )
    found = spots_on_image(sdata, spots)
    np.testing.assert_allclose(found.xy, centres)
    assert found.diameter_px == pytest.approx(4 * np.sqrt(4 / np.pi))


def visium_like(centres, marked, spots):
    """As spatialdata-io makes it: full-resolution image, hires and lowres, and a coordinate system for each."""
    down = {name: Scale([factor, factor], axes=("x", "y")) for name, factor in (("hires", 0.5), ("lowres", 0.25))}
    images = {"v_full_image": image(marked, scales=[2], v=Identity())}
    for name, scale in down.items():
        step = round(1 / scale.scale[0])
        to_systems = {f"v_{name}": Identity(), "v": scale.inverse()}
        images[f"v_{name}_image"] = image(marked[::step, ::step], **to_systems)
    ways = {"v": Identity(), "v_hires": down["hires"], "v_lowres": down["lowres"]}
    return sd.SpatialData(
        images=images, shapes={"spots": circles(centres, range(len(centres)), **ways)}, tables={"table": spots}
    )


def test_the_finest_of_several_images_of_one_slide_is_taken(centres, marked, spots):
    sdata = visium_like(centres, marked, spots)
    found = spots_on_image(sdata, spots)
    assert found.image_key == "v_full_image"
    np.testing.assert_allclose(found.xy, centres)
    assert spots_on_image(sdata, spots, coordinate_system="v_hires").image_key == "v_hires_image"
    named = spots_on_image(sdata, spots, image_key="v_lowres_image")
    np.testing.assert_allclose(named.xy, centres / 4)
    del sdata.images["v_full_image"]
    assert spots_on_image(sdata, spots).image_key == "v_hires_image"


def test_several_coordinate_systems_that_agree_need_no_name(centres, marked, spots):
    sdata = visium_like(centres, marked, spots)
    found = spots_on_image(sdata, spots, image_key="v_hires_image")  # it stands in "v" and "v_hires"
    np.testing.assert_allclose(found.xy, centres / 2)


def test_several_coordinate_systems_that_differ_are_asked_about(centres, marked, spots):
    sdata = visium_like(centres, marked, spots)
    set_transformation(sdata["spots"], Translation([9.0, 0.0], axes=("x", "y")), "v_hires")
    with pytest.raises(ValueError, match=r'"v_hires" and "v" put the spots .* coordinate_system=: "v_hires", "v"'):
        spots_on_image(sdata, spots, image_key="v_hires_image")
    found = spots_on_image(sdata, spots, image_key="v_hires_image", coordinate_system="v")
    np.testing.assert_allclose(found.xy, centres / 2)


@pytest.mark.parametrize("other", ["twin", "elsewhere"])
def test_several_images_that_cannot_be_told_apart_are_asked_about(other, centres, marked, spots):
    sdata = visium_like(centres, marked, spots)
    away = Identity() if other == "twin" else Sequence([Scale([0.1, 0.1], axes=("x", "y")), Translation([5], ("x",))])
    sdata["stain"] = image(marked, v=away)
    with pytest.raises(ValueError, match=r'several images .*"v_full_image", .*"stain".*image_key='):
        spots_on_image(sdata, spots)
    assert spots_on_image(sdata, spots, image_key="v_full_image").image_key == "v_full_image"


def test_microns_are_known_by_a_coordinate_system_in_microns(centres, marked, spots):
    sdata = visium_like(centres, marked, spots)
    assert spots_on_image(sdata, spots).mpp is None
    set_transformation(sdata["v_full_image"], Scale([0.3, 0.3], axes=("x", "y")), "microns")
    assert spots_on_image(sdata, spots).mpp == pytest.approx(0.3)


def test_recorded_microns_belong_to_the_finest_image(centres, marked, spots):
    spots.uns["spahgc"] = {"slide_mpp": 0.3}
    sdata = visium_like(centres, marked, spots)
    assert spots_on_image(sdata, spots).mpp == 0.3
    assert spots_on_image(sdata, spots, image_key="v_full_image").mpp == 0.3
    assert spots_on_image(sdata, spots, image_key="v_hires_image").mpp is None


def test_a_spatialdata_without_image_is_refused(centres, spots):
    sdata = sd.SpatialData(shapes={"spots": circles(centres, range(len(centres)))}, tables={"table": spots})
    with pytest.raises(ValueError, match="the SpatialData has no image"):
        spots_on_image(sdata, spots)


def test_names_that_are_not_there_are_refused(centres, marked, spots):
    sdata = visium_like(centres, marked, spots)
    with pytest.raises(KeyError, match=r'image_key="he" not found .*v_full_image'):
        spots_on_image(sdata, spots, image_key="he")
    with pytest.raises(KeyError, match=r'coordinate_system="global" not found .*v_hires'):
        spots_on_image(sdata, spots, coordinate_system="global")
    set_transformation(sdata["v_full_image"], Identity(), "own")
    with pytest.raises(KeyError, match=r'shapes "spots" have no transformation to coordinate_system="own"'):
        spots_on_image(sdata, spots, coordinate_system="own")


def test_shapes_and_image_without_a_common_coordinate_system_are_refused(centres, marked, spots):
    sdata = sd.SpatialData(
        images={"he": image(marked, histology=Identity())},
        shapes={"spots": circles(centres, range(len(centres)), array=Identity())},
        tables={"table": spots},
    )
    with pytest.raises(ValueError, match=r'share no coordinate system: .* "array", images are "he" in "histology"'):
        spots_on_image(sdata, spots)


def test_a_transformation_without_inverse_is_refused(centres, marked, spots):
    flat = Affine(np.array([[1, 0, 0], [0, 0, 0], [0, 0, 1]]), input_axes=("x", "y"), output_axes=("x", "y"))
    sdata = sd.SpatialData(
        images={"he": image(marked, **{"global": flat})},
        shapes={"spots": circles(centres, range(len(centres)))},
        tables={"table": spots},
    )
    with pytest.raises(ValueError, match='image "he" to "global" has no inverse'):
        spots_on_image(sdata, spots)


def test_a_table_that_annotates_nothing_is_refused(centres, marked, spots):
    sdata = visium_like(centres, marked, spots)
    sdata["loose"] = AnnData(np.ones((3, 2), dtype=np.float32))
    with pytest.raises(ValueError, match=r'annotates nothing, .*shapes: "spots".*TableModel\.parse'):
        spots_on_image(sdata, sdata["loose"])


def test_spots_without_a_shape_are_refused(centres, marked, spots):
    sdata = visium_like(centres, marked, spots)
    with_images = dict(sdata.images)
    fewer = sd.SpatialData(images=with_images, shapes={"spots": sdata["spots"].iloc[:9]}, tables={"table": spots})
    with pytest.raises(KeyError, match=r'3 of 12 spots of the table are not in shapes "spots".*"9", "10", "11"'):
        spots_on_image(fewer, spots)
    named = sdata["spots"].set_axis([f"spot {i}" for i in range(len(centres))])
    strings = sd.SpatialData(images=with_images, shapes={"spots": named}, tables={"table": spots})
    with pytest.raises(KeyError, match=r"12 of 12 spots .*\(int64\).*spot 0"):
        spots_on_image(strings, spots)


@pytest.mark.filterwarnings("ignore:The table is annotating")
def test_a_table_of_shapes_that_are_not_there_is_refused(centres, marked, spots):
    sdata = visium_like(centres, marked, spots)
    del sdata.shapes["spots"]
    sdata["cells"] = circles(centres, range(len(centres)))
    with pytest.raises(KeyError, match=r'annotates "spots", which is not in the SpatialData: its shapes are "cells'):
        spots_on_image(sdata, spots)


def test_an_image_of_another_data_type_is_refused(centres, marked, spots):
    sdata = sd.SpatialData(
        images={"he": image(marked.astype(np.uint16), scales=[2])},
        shapes={"spots": circles(centres, range(len(centres)))},
        tables={"table": spots},
    )
    with pytest.raises(ValueError, match=r'image "he" of the SpatialData cannot be read: .*uint16'):
        spots_on_image(sdata, spots)


# --------------------------------------------------------------------------------------------------------------------
# Tables


def test_the_table_is_the_object_itself(target):
    sdata = as_spatialdata(target, with_image=False)
    assert table_of(sdata, None, "the slide") is sdata.tables["table"]
    assert table_of(target, "any", "the slide") is target
    assert is_spatialdata(sdata)
    assert not is_spatialdata(target)


def test_several_tables_are_asked_about(target):
    sdata = as_spatialdata(target, with_image=False)
    sdata["bins"] = annotating(target)
    for function in (sp.pp.spatial_graph, sp.tl.evaluate, sp.tl.trusted_genes):
        with pytest.raises(ValueError, match=r'several tables: "table", "bins"\. Say which one with table_key='):
            function(sdata)
    sp.pp.spatial_graph(sdata, table_key="bins")
    assert "spatial_connectivities" in sdata["bins"].obsp
    assert "spatial_connectivities" not in sdata["table"].obsp
    with pytest.raises(KeyError, match=r'table_key="cells" not found in the slide, its tables are "table'):
        sp.pp.spatial_graph(sdata, table_key="cells")


def test_a_spatialdata_without_table_is_refused(target):
    sdata = as_spatialdata(target, with_image=False)
    del sdata.tables["table"]
    with pytest.raises(ValueError, match='the target is a SpatialData without a table, its elements are "spots"'):
        sp.tl.predict(sdata, [])


def test_a_copy_shares_all_but_the_table(target):
    sdata = as_spatialdata(target)
    sdata["other"] = annotating(target)
    new = sp.pp.spatial_graph(sdata, table_key="table", copy=True)
    assert "spatial_connectivities" in new["table"].obsp
    assert "spatial_connectivities" not in sdata["table"].obsp
    assert new["spots"] is sdata["spots"]
    assert new["he"] is sdata["he"]
    assert new["other"] is sdata["other"]
    assert list(with_table(sdata, target, "other").tables) == ["table", "other"]


PATHS = {"tile", "points", "open_bank", "embed_many", "predict_many", "drift", "set_style"}
"""Functions that take an image, files or a table of numbers, and no slide in memory."""
PUBLIC = {
    f"{module.__name__}.{name}": getattr(module, name)
    for module in (sp.pp, sp.tl, sp.pl)
    for name in module.__all__
    if inspect.isfunction(getattr(module, name)) and name not in PATHS
} | {
    f"SpaHGC.{name}": getattr(sp.SpaHGC, name)
    for name in ("fit", "predict", "predict_in_full", "cross_graph", "attention", "support")
}


@pytest.mark.parametrize("name", PUBLIC)
def test_every_function_takes_the_key_of_a_table(name):
    parameter = inspect.signature(PUBLIC[name]).parameters.get("table_key")
    assert parameter is not None
    assert parameter.default is None
    assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
    first = next(one for one in inspect.signature(PUBLIC[name]).parameters.values() if one.name != "self")
    assert "SpatialData" in str(first.annotation)


# --------------------------------------------------------------------------------------------------------------------
# Functions


def test_prediction_on_spatialdata_equals_that_on_anndata(target, refs, small):
    sdata, others = as_spatialdata(target), [as_spatialdata(ref) for ref in refs]
    sp.tl.predict(sdata, others, preset=small)
    sp.tl.predict(target, refs, preset=small)
    table = sdata.tables["table"]
    for key in ("spahgc", "spahgc_std"):
        np.testing.assert_array_equal(table.layers[key], target.layers[key])
    for key in ("spahgc_cs", "spahgc_attention"):
        np.testing.assert_array_equal(table.obsm[key].toarray(), target.obsm[key].toarray())
    pd.testing.assert_frame_equal(table.var, target.var)
    ours, theirs = (one.uns["spahgc"]["predictions"]["spahgc"] for one in (table, target))
    assert ours["references"] == theirs["references"]
    pd.testing.assert_frame_equal(sp.tl.evaluate(sdata), sp.tl.evaluate(target))
    assert sp.tl.trusted_genes(sdata) == sp.tl.trusted_genes(target)
    spot = target.obs_names[3]
    pd.testing.assert_frame_equal(sp.tl.attribution(sdata, spot), sp.tl.attribution(target, spot))
    sp.tl.domains(sdata, n_domains=3)
    sp.tl.domains(target, n_domains=3)
    assert list(table.obs["spahgc_domain"]) == list(target.obs["spahgc_domain"])


def test_anndata_and_spatialdata_may_be_mixed(target, refs, quick):
    mixed = [as_spatialdata(refs[0], with_image=False), *refs[1:]]
    sp.tl.predict(target, mixed, method="ridge")
    again = sp.tl.predict(as_spatialdata(target, with_image=False), refs, method="ridge", copy=True)
    np.testing.assert_array_equal(again["table"].layers["spahgc"], target.layers["spahgc"])


def test_references_are_taken_as_anndata_or_spatialdata(refs, quick):
    others = [as_spatialdata(ref, with_image=False, places=False) for ref in refs]
    assert sp.pp.select_genes(others) == sp.pp.select_genes(refs)
    ours, theirs = sp.pp.reference_bank(others), sp.pp.reference_bank(refs)
    assert list(ours.obs_names) == list(theirs.obs_names)
    np.testing.assert_allclose(ours.obsm["spatial"], theirs.obsm["spatial"])
    assert sp.tl.fit(others, preset=quick).references == sp.tl.fit(refs, preset=quick).references
    assert not any("spatial" in other["table"].obsm for other in others)  # references are not changed
    ours, theirs = (sp.tl.cross_validate(slides, methods=["mean"]) for slides in (others, refs))
    pd.testing.assert_frame_equal(ours.scores, theirs.scores)


def test_a_model_predicts_a_spatialdata_and_writes_nothing(target, refs, quick):
    model = sp.SpaHGC.fit([as_spatialdata(ref, with_image=False) for ref in refs], preset=quick)
    sdata = as_spatialdata(target, with_image=False, places=False)
    np.testing.assert_array_equal(model.predict(sdata), model.predict(target))
    assert (model.attention(sdata) != model.attention(target)).nnz == 0
    assert "spatial" not in sdata["table"].obsm


def test_missing_places_are_those_on_the_image_and_are_written(target, refs):
    sdata = as_spatialdata(target, places=False)
    set_transformation(sdata["spots"], Scale([0.5, 0.5], axes=("x", "y")), "global")
    sp.tl.predict(sdata, refs, method="nearest")
    np.testing.assert_allclose(sdata["table"].obsm["spatial"], target.obsm["spatial"] * 0.5)
    without = as_spatialdata(target, places=False, with_image=False)
    sp.pp.spatial_graph(without)
    np.testing.assert_allclose(without["table"].obsm["spatial"], target.obsm["spatial"])
    copied = as_spatialdata(target, places=False)
    new = sp.pp.spatial_graph(copied, copy=True)
    assert "spatial" in new["table"].obsm
    assert "spatial" not in copied["table"].obsm


def test_places_that_are_there_stay(target):
    sdata = as_spatialdata(target)
    sdata["table"].obsm["spatial"] = target.obsm["spatial"] * 2.0
    sp.pp.spatial_graph(sdata)
    np.testing.assert_array_equal(sdata["table"].obsm["spatial"], target.obsm["spatial"] * 2.0)


def test_a_copy_keeps_all_that_the_table_holds(target):
    sdata = as_spatialdata(target, places=False)
    table = sdata["table"]
    table.raw = table.copy()
    table.obsp["mine"] = np.eye(table.n_obs)
    table.varm["loadings"] = np.ones((table.n_vars, 2))
    new = sp.pp.spatial_graph(sdata, copy=True)["table"]
    assert new.raw is not None
    assert {"mine", "spatial_connectivities"} <= set(new.obsp)
    assert "loadings" in new.varm


def two_slides(one: AnnData, other: AnnData):
    """Two slides in one SpatialData, with one table."""
    import anndata

    both = anndata.concat([one, other], index_unique="-", uns_merge="same")
    both.obs["region"] = pd.Categorical(["A"] * one.n_obs + ["B"] * other.n_obs)
    both.obs["instance"] = np.concatenate([np.arange(one.n_obs), np.arange(other.n_obs)])
    del both.obs["slide"], both.obsm["spatial"]
    table = TableModel.parse(both, region=["A", "B"], region_key="region", instance_key="instance")
    shapes = {
        name: circles(np.asarray(slide.obsm["spatial"], float), np.arange(slide.n_obs))
        for name, slide in (("A", one), ("B", other))
    }
    return sd.SpatialData(shapes=shapes, tables={"table": table})


def test_two_slides_in_one_table_are_told_apart_by_what_they_annotate(refs):
    sdata = two_slides(refs[0], refs[1])
    bank = sp.pp.reference_bank(sdata)
    assert list(bank.obs["slide"].cat.categories) == ["A", "B"]
    sp.pp.spatial_graph(sdata)
    first = sdata["table"].obs["region"].to_numpy() == "A"
    graph = sdata["table"].obsp["spatial_connectivities"]
    assert graph[first][:, first].nnz
    assert graph[first][:, ~first].nnz == 0
    np.testing.assert_allclose(sdata["table"].obsm["spatial"][first], refs[0].obsm["spatial"])


def test_one_slide_of_two_is_predicted_at_a_time(target, refs):
    sdata = two_slides(target, refs[0])
    with pytest.raises(ValueError, match=r'several elements \("A", "B"\).*sdata\.subset\(\["A"'):
        sp.tl.predict(sdata, refs[1:], method="nearest")
    only = sdata.subset(["A"])
    sp.tl.predict(only, refs[1:], method="nearest")
    sp.tl.predict(target, refs[1:], method="nearest")
    np.testing.assert_array_equal(only["table"].layers["spahgc"], target.layers["spahgc"])


def test_references_are_named_by_what_they_annotate_if_that_tells_them_apart(refs):
    for ref in refs:
        del ref.obs["slide"]
    named = [as_spatialdata(ref, with_image=False, region=f"section_{i}") for i, ref in enumerate(refs)]
    assert sp.pp.reference_bank(named).uns["spahgc"]["bank"]["slides"] == ["section_0", "section_1", "section_2"]
    alike = [as_spatialdata(ref, with_image=False) for ref in refs]
    assert sp.pp.reference_bank(alike).uns["spahgc"]["bank"]["slides"] == ["slide 1", "slide 2", "slide 3"]


def test_pathways_of_a_spatialdata_land_in_its_table(target):
    pytest.importorskip("decoupler")
    target.layers["oracle"] = target.layers["truth"]
    target.var["oracle_panel"] = True
    sdata = as_spatialdata(target, with_image=False)
    net = pd.DataFrame({"source": "MARKERS", "target": target.var_names[:6]})
    sp.tl.enrich(sdata, net, key="oracle", n_permutations=20)
    assert sdata["table"].obsm["oracle_enrichment"].shape == (target.n_obs, 1)


# --------------------------------------------------------------------------------------------------------------------
# Disk and figures


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_written_spatialdata_is_read_back_and_worked_on(target, refs, small, tmp_path: Path):
    sdata = as_spatialdata(target)
    sp.tl.predict(sdata, refs, preset=small)
    sp.tl.domains(sdata, n_domains=3)
    sp.tl.evaluate(sdata)
    sp.pp.spatial_graph(sdata)
    sdata.write(tmp_path / "slide.zarr")
    back = sd.read_zarr(tmp_path / "slide.zarr")
    np.testing.assert_array_equal(back["table"].layers["spahgc"], sdata["table"].layers["spahgc"])
    record = back["table"].uns["spahgc"]["predictions"]["spahgc"]
    assert list(record["references"]) == ["P1S2", "P2S1", "P2S2"]
    assert len(sp.tl.attribution(back, 0)) == 7

    sp.tl.predict(back, refs, method="ridge", key_added="line")
    (axes,) = [sp.pl.spatial_genes(back, sp.tl.trusted_genes(back, min_pcc=-1)[:1], show=False)]
    assert axes
    back.delete_element_from_disk("table")  # spatialdata replaces no element in place
    back.write_element("table")
    again = sd.read_zarr(tmp_path / "slide.zarr")
    assert {"spahgc", "line"} <= set(again["table"].layers)
    again.write(tmp_path / "copy.zarr")
    assert set(sd.read_zarr(tmp_path / "copy.zarr")["table"].layers) == set(again["table"].layers)


def test_figure_shows_the_image_of_the_spatialdata(target):
    from matplotlib import pyplot as plt

    sdata = as_spatialdata(target)
    xy = np.asarray(target.obsm["spatial"])
    sdata["table"].obsm["spatial"] = np.zeros_like(xy)  # the shapes count
    sdata["table"].layers["spahgc"] = target.layers["truth"].astype(np.float32)
    ax = sp.pl.spatial_genes(sdata, target.var_names[0], show=False)[0]
    (picture,), (spots,) = ax.get_images(), ax.collections
    np.testing.assert_allclose(spots.get_offsets(), xy - 0.5)
    np.testing.assert_allclose(spots._widths, 30)  # half of the diameter
    assert (np.asarray(picture.get_array())[..., 0] == 200).all()
    with pytest.raises(ValueError, match="choose within a SpatialData, found AnnData"):
        sp.pl.spatial_genes(sdata["table"], target.var_names[0], image_key="he", show=False)
    plt.close("all")


def test_spots_stay_on_their_tissue_where_the_image_is_reduced(target, monkeypatch):
    """The red half of the image ends at the same spots, whatever its scale in the figure."""
    monkeypatch.setattr("spahgc.pl._tissue.MAX_IMAGE_PX", 150)
    monkeypatch.setattr("spahgc.pl._tissue.MAX_THUMBNAIL_PX", 300)
    xy = np.asarray(target.obsm["spatial"], dtype=float)
    sdata = as_spatialdata(target)
    pixels = np.moveaxis(sdata["he"]["scale0"]["image"].to_numpy(), 0, -1).copy()
    edge = int(np.median(xy[:, 0])) + 20
    pixels[:, edge:] = 0
    sdata["he"] = image(pixels, scales=[2, 2])
    tissue = tissue_on_image(spots_on_image(sdata, sdata["table"]), 1.0)
    left, right, _, _ = tissue.extent
    bright = tissue.image[tissue.image.shape[0] // 2, :, 0] > 100
    scale = tissue.diameter / 60
    assert scale < 0.3
    assert left + (right - left) * bright.mean() == pytest.approx((edge - 0.5) * scale, abs=1)
    np.testing.assert_allclose(tissue.xy, (xy - 0.5) * scale)


def test_attribution_is_drawn_from_the_images(target, refs, quick):
    from matplotlib import pyplot as plt

    sdata, others = as_spatialdata(target), [as_spatialdata(ref) for ref in refs]
    sp.tl.predict(sdata, others, preset=quick)
    axes = sp.pl.attribution(sdata, 5, others, n=2, show=False)
    assert len(axes) == 5
    for ax in (axes[1], *axes[3:]):
        assert (np.asarray(ax.get_images()[0].get_array())[..., 0] >= 200).all()
    plt.close("all")


def test_spatialdata_plot_draws_the_prediction(target, refs):
    pytest.importorskip("spatialdata_plot")
    from matplotlib import pyplot as plt

    sdata = as_spatialdata(target)
    sp.tl.predict(sdata, refs, method="ridge")
    gene = target.var_names[sdata["table"].var["spahgc_panel"].to_numpy()][0]
    figure, ax = plt.subplots()
    sdata.pl.render_images("he").pl.render_shapes("spots", color=gene, table_layer="spahgc").pl.show(ax=ax)
    (drawn,) = ax.collections
    boxes = [path.get_extents() for path in drawn.get_paths()]
    drawn_at = np.array([[(box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2] for box in boxes])
    nearest = np.linalg.norm(drawn_at[:, None] - np.asarray(target.obsm["spatial"])[None], axis=2).argmin(axis=1)
    values = sdata["table"][:, gene].layers["spahgc"].ravel()
    assert sorted(nearest) == list(range(target.n_obs))
    expected = matplotlib.colormaps["viridis"](drawn.norm(values[nearest]))
    np.testing.assert_allclose(drawn.get_facecolor()[:, :3], expected[:, :3], atol=1e-6)
    plt.close(figure)
