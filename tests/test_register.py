"""References are laid over a target by their images alone, and sections that do not belong together are refused."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import anndata as ad
import matplotlib

matplotlib.use("agg")

import numpy as np
import pytest
from anndata import AnnData

import spahgc as sp
from spahgc._keys import UNS, Uns
from spahgc.pp._register import pairs
from spahgc.pp._register.pairs import PairRegistration, register_pairs, register_structures
from spahgc.pp._register.picture import Picture, cut_picture
from spahgc.pp._register.record import pairs_of_record, registered_positions
from spahgc.pp._register.remembered import digest_of
from spahgc.pp._register.slides import SlideToRegister, slide_picture
from spahgc.pp._register.structure import find_structure

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from serial_sections import Source, serial_section

MPP = 0.8
HALF_SPOT_UM = 50.0
TURN = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])


def slides(n: int = 4, seed: int = 0) -> list[AnnData]:
    return sp.datasets.simulated(n, n_patients=n, n_spots=300, n_genes=20, seed=seed)


def picture_of(slide: AnnData) -> Picture:
    return slide_picture(SlideToRegister(name_of(slide), slide, slide))


def name_of(slide: AnnData) -> str:
    return str(slide.obs["slide"].iloc[0])


def section_of(slide: AnnData, seed: int, *, mirrored: bool) -> tuple[Picture, np.ndarray, np.ndarray]:
    """A simulated serial section: picture, places on it, and the same places on the slide, full-resolution pixels."""
    picture = picture_of(slide)
    source = Source("", picture.rgb, find_structure(picture).tissue > 0.5, picture.pixel_um)
    section = serial_section(source, np.random.default_rng(seed), mirrored=mirrored)
    before = section.before @ picture.to_full[:2, :2].T + picture.to_full[:2, 2]
    return cut_picture(section.rgb, 1.0, None, mpp=picture.pixel_um), section.after + 0.5, before


def turned(slide: AnnData, name: str) -> AnnData:
    """The slide turned by 180 degrees, image and spots."""
    other = slide.copy()
    library = dict(other.uns["spatial"][name_of(slide)])
    library["images"] = {key: np.rot90(image, 2).copy() for key, image in library["images"].items()}
    height, width = library["images"]["hires"].shape[:2]
    scale = library["scalefactors"]["tissue_hires_scalef"]
    other.uns["spatial"] = {name: library}
    other.obs["slide"] = name
    other.obsm["spatial"] = np.array([width, height]) / scale - slide.obsm["spatial"]
    return other


def registered(target: AnnData) -> dict[str, PairRegistration]:
    return pairs_of_record(target.uns[UNS][Uns.registration])


@pytest.fixture(scope="module")
def cohort() -> list[AnnData]:
    return slides()


def test_serial_sections_are_found_to_half_a_spot(cohort):
    found = {}
    for number in range(6):
        slide = cohort[number % 4]
        section, after, before = section_of(slide, number, mirrored=number % 2 == 0)
        pair = register_structures(find_structure(picture_of(slide)), find_structure(section))
        error = np.sqrt(((pair.to_fixed(after) - before) ** 2).sum(1).mean()) * MPP
        found[number] = pair.used and error <= HALF_SPOT_UM
    assert all(found.values()), found


def test_sections_of_other_slides_are_never_used(cohort):
    pictures = {name_of(slide): picture_of(slide) for slide in cohort}
    sections = {f"section {n}": section_of(cohort[n], n, mirrored=bool(n % 2))[0] for n in range(2)}
    names = list(pictures)
    pairs = [(a, b) for i, a in enumerate(names) for b in names[:i]] + [
        ("section 0", names[2]),
        (names[3], "section 1"),
    ]
    pairs += [("section 0", "section 1"), (names[1], "section 0")]
    for pair in register_pairs({**pictures, **sections}, pairs).values():
        assert not pair.used
        assert "quality" in pair.why or "stretched" in pair.why or "fits" in pair.why or "scaled" in pair.why


def test_a_turned_slide_lies_where_it_came_from(cohort):
    target, other = cohort[0].copy(), turned(cohort[0], "a/b")
    before = target.X.copy()
    sp.pp.register(target, other)
    record = target.uns[UNS][Uns.registration]
    xy = registered_positions(record, "a/b", other.obsm["spatial"])
    assert np.abs(xy - target.obsm["spatial"]).max() * MPP < HALF_SPOT_UM
    assert (target.X != before).nnz == 0


def test_counts_are_not_looked_at(cohort):
    target, other = cohort[0].copy(), turned(cohort[0], "turned")
    sp.pp.register(target, other)
    blank = AnnData(obs=target.obs, obsm=dict(target.obsm), uns={"spatial": target.uns["spatial"]})
    other.X = other.X * 0
    sp.pp.register(blank, other)
    one, two = (slide.uns[UNS][Uns.registration] for slide in (target, blank))
    assert np.array_equal(one["matrix"], two["matrix"])


@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
def test_a_registration_survives_files_whatever_the_names(cohort, tmp_path, kind):
    target, other = cohort[0].copy(), turned(cohort[0], "a/b")
    sp.pp.register(target, other)
    path = tmp_path / f"target.{kind}"
    getattr(target, f"write_{kind}")(path)
    again = getattr(ad, f"read_{kind}")(path)
    xy = other.obsm["spatial"]
    assert np.allclose(registered(again)["a/b"].to_fixed(xy), registered(target)["a/b"].to_fixed(xy))
    assert registered(again)["a/b"].used


def test_the_way_back_is_the_inverse(cohort):
    slide = cohort[1]
    section, after, _ = section_of(slide, 3, mirrored=True)
    pair = register_pairs({"a": picture_of(slide), "b": section}, [("a", "b")])["a", "b"]
    assert pair.bend is not None
    back = pair.to_moving(pair.to_fixed(after))
    assert np.abs(back - after).max() < 1


def test_copy_leaves_the_target_alone(cohort):
    target = cohort[0].copy()
    changed = sp.pp.register(target, turned(target, "turned"), copy=True)
    assert Uns.registration in changed.uns[UNS]
    assert Uns.registration not in target.uns.get(UNS, {})


def test_a_picture_travels_as_a_record(cohort):
    picture = picture_of(cohort[0])
    again = Picture.from_record(picture.to_record())
    assert np.array_equal(again.rgb, picture.rgb) and np.array_equal(again.inside, picture.inside)
    assert again.pixel_um == picture.pixel_um and max(picture.rgb.shape) <= 320


def test_an_unknown_resolution_is_searched(cohort):
    slide = cohort[2]
    picture = picture_of(slide)
    section, after, before = section_of(slide, 5, mirrored=False)
    unknown = Picture(section.rgb, section.inside, section.origin, section.scale)
    pair = register_pairs({"a": picture, "b": unknown}, [("a", "b")])["a", "b"]
    assert pair.used
    assert np.sqrt(((pair.to_fixed(after) - before) ** 2).sum(1).mean()) * MPP <= HALF_SPOT_UM


def test_a_pair_is_registered_once_and_what_comes_of_it_belongs_to_the_caller(cohort, monkeypatch):
    pictures = {"a": picture_of(cohort[0]), "b": picture_of(cohort[1])}
    first = register_pairs(pictures, [("a", "b")])["a", "b"]
    monkeypatch.setattr(pairs, "register_structures", None)
    other = {"x": replace(pictures["a"]), "y": replace(pictures["b"])}  # the same pictures under other names
    again = register_pairs(other, [("x", "y")])["x", "y"]
    assert np.array_equal(first.matrix, again.matrix) and first.quality == again.quality
    again.matrix[:] = 0
    assert np.array_equal(register_pairs(pictures, [("a", "b")])["a", "b"].matrix, first.matrix)


def test_a_picture_that_differs_in_a_pixel_or_in_its_size_is_another_one(cohort):
    picture = picture_of(cohort[0])
    rgb = picture.rgb.copy()
    rgb[0, 0, 0] ^= 1
    others = [replace(picture, rgb=rgb), replace(picture, scale=2 * picture.scale), replace(picture, inside=None)]
    assert len({digest_of(each) for each in [picture, *others]}) == 4


@pytest.mark.parametrize("colour", [(255, 255, 255), (0, 0, 0), (180, 110, 170)])
def test_a_picture_of_one_colour_is_refused_with_the_reason(cohort, colour):
    blank = Picture(np.full((200, 200, 3), colour, dtype=np.uint8), scale=25.0, mpp=MPP)
    pair = register_pairs({"a": picture_of(cohort[0]), "blank": blank}, [("a", "blank")])["a", "blank"]
    assert not pair.used and pair.quality == 0
    assert 'slide "blank" cannot be compared' in pair.why


def test_a_target_without_tissue_is_an_error(cohort):
    target, other = cohort[0].copy(), turned(cohort[0], "turned")
    with pytest.raises(ValueError, match="cannot be registered: its picture shows"):
        sp.pp.register(target, other, image={name_of(target): np.full((4000, 4000, 3), 245, dtype=np.uint8)})


def test_refused_references_are_named_in_a_warning(cohort):
    target = cohort[0].copy()
    with pytest.warns(UserWarning, match='1 of 1 references are not used with "P1S1": "P2S1"'):
        sp.pp.register(target, cohort[1])
    assert target.uns[UNS][Uns.registration]["patient"] == ["different"]


def test_a_given_matrix_is_taken_instead(cohort):
    target, other = cohort[0].copy(), turned(cohort[0], "turned")
    side = other.obsm["spatial"] + target.obsm["spatial"]
    matrix = np.diag([-1.0, -1.0, 1.0])
    matrix[:2, 2] = side[0]
    sp.pp.register(target, other, transforms={"turned": matrix})
    pair = registered(target)["turned"]
    assert pair.used and pair.method == "given matrix" and pair.quality > 0.5
    assert np.allclose(pair.to_fixed(other.obsm["spatial"]), target.obsm["spatial"])


@pytest.mark.parametrize("n_points", [2, 3, 4, 30])
def test_landmarks_are_taken_instead(cohort, n_points):
    target, other = cohort[0].copy(), turned(cohort[0], "turned")
    points = np.random.default_rng(0).choice(target.n_obs, n_points, replace=False)
    pair = other.obsm["spatial"][points], target.obsm["spatial"][points]
    sp.pp.register(target, other, landmarks={"turned": pair})
    assert np.allclose(registered(target)["turned"].to_fixed(other.obsm["spatial"]), target.obsm["spatial"])


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.zeros((3, 3)), "last row"),
        (np.diag([1.0, 0.0, 1.0]), "singular"),
        (np.full((3, 3), np.nan), "not finite"),
        (np.eye(4), r"the shape \(4, 4\)"),
        ("turn it", "holds no numbers"),
        (np.array([[1, 0, 1e7], [0, 1, 0], [0, 0, 1]]), "all its spots outside the target"),
    ],
)
def test_a_bad_matrix_is_refused(cohort, matrix, message):
    with pytest.raises(ValueError, match=message):
        sp.pp.register(cohort[0].copy(), turned(cohort[0], "turned"), transforms={"turned": matrix})


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ((np.zeros((1, 2)), np.zeros((1, 2))), "at least 2 are needed"),
        ((np.zeros((3, 2)), np.ones((4, 2))), "have the shapes"),
        ((np.zeros((3, 2)), np.ones((3, 2))), "all the same point"),
        ((np.outer(np.arange(5), [1, 2]), np.random.default_rng(0).normal(size=(5, 2))), "one line"),
        (np.zeros((3, 2)), "no pair of arrays"),
    ],
)
def test_bad_landmarks_are_refused(cohort, points, message):
    with pytest.raises(ValueError, match=message):
        sp.pp.register(cohort[0].copy(), turned(cohort[0], "turned"), landmarks={"turned": points})


def test_names_of_no_slide_are_refused(cohort):
    for argument in ("transforms", "landmarks", "image"):
        with pytest.raises(KeyError, match=f'{argument}= names "nobody"'):
            sp.pp.register(cohort[0].copy(), turned(cohort[0], "turned"), **{argument: {"nobody": np.eye(3)}})


def test_a_coordinate_system_is_for_spatialdata(cohort):
    with pytest.raises(ValueError, match="is for SpatialData"):
        sp.pp.register(cohort[0].copy(), turned(cohort[0], "turned"), coordinate_system="aligned")


def test_a_slide_without_an_image_asks_for_one(cohort):
    target, other = cohort[0].copy(), turned(cohort[0], "turned")
    image = other.uns["spatial"]["turned"]["images"]["hires"]
    scale = other.uns["spatial"]["turned"]["scalefactors"]["tissue_hires_scalef"]
    del other.uns["spatial"]
    with pytest.raises(ValueError, match='no image is known for slide "turned"'):
        sp.pp.register(target, other)
    full = image.repeat(round(1 / scale), 0).repeat(round(1 / scale), 1)
    sp.pp.register(target, other, image={"turned": full})
    assert registered(target)["turned"].used


def test_a_slide_is_not_its_own_reference(cohort):
    with pytest.raises(ValueError, match='both called "P1S1"'):
        sp.pp.register(cohort[0].copy(), cohort[0])


def test_the_figure_says_what_is_used(cohort):
    target, other = cohort[0].copy(), turned(cohort[0], "turned")
    with pytest.warns(UserWarning, match="not used"):
        sp.pp.register(target, [other, cohort[1]])
    axes = sp.pl.registration(target, [other, cohort[1]], show=False)
    titles = {ax.get_title().split("\n")[0]: ax.get_title() for ax in axes}
    assert "not used" in titles["P2S1"] and "another patient" in titles["P2S1"]
    assert "not used" not in titles["turned"]


def test_the_figure_asks_for_a_registration(cohort):
    with pytest.raises(KeyError, match=r"Run spahgc.pp.register\(target, refs\) first"):
        sp.pl.registration(cohort[0], cohort[1])


def in_spatialdata(slide: AnnData, *, places: bool = True):
    """The slide as a SpatialData; its image is the hires image, and "aligned" puts it where `slide.uns["aligned"]` says."""
    sd = pytest.importorskip("spatialdata")
    geopandas = pytest.importorskip("geopandas")
    from spatialdata.models import Image2DModel, ShapesModel, TableModel
    from spatialdata.transformations import Affine, Identity, Scale, Sequence

    name = name_of(slide)
    library = slide.uns["spatial"][name]
    grow = 1 / library["scalefactors"]["tissue_hires_scalef"]
    to_full = Scale([grow, grow], axes=("x", "y"))
    aligned = Affine(slide.uns["aligned"], input_axes=("x", "y"), output_axes=("x", "y"))
    image = Image2DModel.parse(
        library["images"]["hires"],
        dims=("y", "x", "c"),
        transformations={"global": to_full, "aligned": Sequence([to_full, aligned])},
    )
    xy = slide.obsm["spatial"]
    shapes = geopandas.GeoDataFrame({"geometry": geopandas.points_from_xy(*xy.T), "radius": 30.0})
    table = slide.copy()
    table.uns = {}
    if not places:
        del table.obsm["spatial"]
    table.obs["region"] = np.array(["spots"] * table.n_obs)
    table.obs["region"] = table.obs["region"].astype("category")
    table.obs["instance"] = np.arange(table.n_obs)
    table = TableModel.parse(table, region="spots", region_key="region", instance_key="instance")
    shapes = ShapesModel.parse(shapes, transformations={"global": Identity()})
    return sd.SpatialData(images={"he": image}, shapes={"spots": shapes}, tables={"table": table})


@pytest.fixture
def pair_of_spatialdata(cohort):
    target, other = cohort[0].copy(), turned(cohort[0], "turned")
    back = np.diag([-1.0, -1.0, 1.0])
    back[:2, 2] = (target.obsm["spatial"] + other.obsm["spatial"])[0]
    target.uns["aligned"], other.uns["aligned"] = np.eye(3), back
    return target, other


@pytest.mark.parametrize("places", [True, False])
def test_spatialdata_are_registered_on_their_images(pair_of_spatialdata, places):
    target, other = (in_spatialdata(slide, places=places) for slide in pair_of_spatialdata)
    sp.pp.register(target, other)
    pair = registered(target["table"])["turned"]
    assert pair.used
    xy = pair.to_fixed(other["table"].obsm["spatial"]) if places else None
    if places:
        assert np.abs(xy - target["table"].obsm["spatial"]).max() * MPP < HALF_SPOT_UM


@pytest.mark.parametrize("places", [True, False])
def test_a_coordinate_system_is_taken_instead(pair_of_spatialdata, places):
    from spahgc._slides.split import placed_table

    target, other = (in_spatialdata(slide, places=places) for slide in pair_of_spatialdata)
    sp.pp.register(target, other, coordinate_system="aligned")
    pair = registered(target["table"])["turned"]
    xy = placed_table(other, None, "other").obsm["spatial"]
    assert pair.method == "coordinate system" and pair.quality > 0.5
    assert np.allclose(pair.to_fixed(xy), placed_table(target, None, "target").obsm["spatial"])


def test_a_coordinate_system_that_is_not_there_is_named(pair_of_spatialdata):
    target, other = (in_spatialdata(slide) for slide in pair_of_spatialdata)
    with pytest.raises(KeyError, match='is not in coordinate_system="elsewhere"'):
        sp.pp.register(target, other, coordinate_system="elsewhere")


@pytest.mark.data
def test_sections_of_one_patient_are_used_and_those_of_another_are_not(her2st):
    names = ("C2", "C3", "C4", "B4")
    files = {
        name: (her2st / f"{name}.tsv.gz", her2st / f"{name}_selection.tsv", her2st / f"{name}.jpg") for name in names
    }
    pictures = {name: picture_of(sp.io.st(*paths)) for name, paths in files.items()}
    # Which of the two is laid over the other does not decide.
    pairs = [("C3", "C2"), ("C2", "C4"), ("C4", "C2"), ("B4", "C2"), ("C2", "B4"), ("B4", "C3")]
    for (one, other), pair in register_pairs(pictures, pairs).items():
        assert pair.used == (one[0] == other[0]), (one, other, pair.quality)


@pytest.mark.data
def test_spinal_cords_of_other_mice_are_never_used(her2st):
    import pandas as pd

    from spahgc.image import open_image, thumbnail

    folder = her2st.parent / "als_spinal_cord"
    if not folder.exists():
        pytest.skip("no spinal cords")
    mice = {"CN52_C2_1": 765, "CN52_C2_2": 794, "CN62_E2": 652, "CN63_C1": 652}
    pictures = {}
    for name in mice:
        image = folder / f"{name}.jpg"
        spots = pd.read_csv(folder / f"{name}_selection.tsv", sep="\t")[["pixel_x", "pixel_y"]].to_numpy(float)
        with open_image(image if image.exists() else folder / f"{name[:-2]}.jpg") as opened:
            rgb, scale = thumbnail(opened, 1000)
        pictures[name] = cut_picture(rgb, 1 / scale, spots, mpp=0.69)
    names = list(mice)
    pairs = [(one, other) for i, one in enumerate(names) for other in names[:i]]
    found = register_pairs(pictures, pairs)
    for (one, other), pair in found.items():
        if mice[one] != mice[other]:
            assert not pair.used, (one, other, pair.quality)
    # The two of one mouse and level agree best.
    assert max(found, key=lambda names: found[names].quality) == ("CN63_C1", "CN62_E2")
