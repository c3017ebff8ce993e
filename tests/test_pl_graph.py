"""The figure of the graph: which edges it draws, to which spots, and what it says where something is missing."""

from __future__ import annotations

import anndata as ad
import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.patches import ConnectionPatch

import spahgc as sp
from spahgc.image import cut_patch, open_image
from spahgc.pl._labels import spread_labels
from spahgc.pl._spot_panels import COLOURS, TARGET_COLOUR

EMBEDDING = "X_sim"
K, Q = 7, 5
PATCH_PX = 96
SPOT = 5


@pytest.fixture(scope="module")
def slides() -> list[ad.AnnData]:
    """Three slides with their images; the first is the target."""
    made = sp.datasets.simulated(n_slides=3, n_spots=40, n_genes=40, n_domains=3, seed=1)
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(3, 24))
    record = {"name": "sim", "dim": 24, "input_px": PATCH_PX, "mpp": "native", "interpolation": "bicubic"}
    for slide in made:
        noise = rng.normal(scale=0.3, size=(slide.n_obs, 24))
        slide.obsm[EMBEDDING] = (np.asarray(slide.obsm["truth_domains"]) @ mixing + noise + 1).astype(np.float32)
        slide.uns["spahgc"] = {"embeddings": {EMBEDDING: dict(record)}}
    sp.pp.spatial_graph(made[0])
    sp.pp.cross_graph(made[0], sp.pp.reference_bank(made[1:]))
    return made


@pytest.fixture(scope="module")
def _bank(slides) -> ad.AnnData:
    return sp.pp.reference_bank(slides[1:])


@pytest.fixture
def bank(_bank) -> ad.AnnData:
    return _bank.copy()


@pytest.fixture
def target(slides):
    yield slides[0].copy()
    plt.close("all")


@pytest.fixture
def refs(slides) -> list[ad.AnnData]:
    return [slide.copy() for slide in slides[1:]]


def name_of(slide: ad.AnnData) -> str:
    return str(slide.obs["slide"].iloc[0])


def draw(*args, **settings) -> list:
    return sp.pl.graph(*args, show=False, **settings)


def thin_lines(ax) -> LineCollection:
    return next(one for one in ax.collections if isinstance(one, LineCollection))


def own_lines(ax) -> LineCollection:
    return [one for one in ax.collections if isinstance(one, LineCollection)][-1]


def edges_of(figure) -> list[ConnectionPatch]:
    return list(figure.findobj(ConnectionPatch))


def pixels(ax) -> np.ndarray:
    (image,) = ax.get_images()
    return np.asarray(image.get_array())


def patch_of(slide: ad.AnnData, spot: str) -> np.ndarray:
    (library,) = slide.uns["spatial"].values()
    center = slide.obsm["spatial"][slide.obs_names.get_loc(spot)]
    return cut_patch(open_image(library["images"]["hires"]), center, width_px=PATCH_PX, out_px=PATCH_PX)[0]


def texts(ax) -> list[str]:
    return [text.get_text() for text in ax.texts]


def best_peers(bank: ad.AnnData, features: np.ndarray, own: np.ndarray, n: int) -> list[str]:
    """Names of the reference spots of highest cosine, worked out without the package."""
    cosines = features @ own / np.linalg.norm(own) / np.linalg.norm(features, axis=1)
    return list(bank.obs_names[np.argsort(-cosines, kind="stable")[:n]])


def ends(frames) -> list[str]:
    """The names ``slide:spot`` below patches."""
    lines = [ax.get_xlabel().split("\n") for ax in frames]
    return [f"{slide.split('. ', 1)[1]}:{spot}" for slide, spot, _ in lines]


# TS


def test_every_pair_of_neighbours_is_one_line_between_their_spots(target):
    (ax,) = draw(target)
    xy = np.asarray(target.obsm["spatial"])  # tissue_hires_scalef is 1
    graph = target.obsp["spatial_connectivities"].toarray() > 0
    expected = {frozenset({tuple(xy[i]), tuple(xy[j])}) for i, j in zip(*np.nonzero(graph), strict=True)}
    drawn = [frozenset(map(tuple, segment)) for segment in thin_lines(ax).get_segments()]
    assert len(drawn) == len(expected)
    assert set(drawn) == expected
    assert ax.get_title().startswith(f"TS: {Q} neighbours a spot\nmedian distance ")
    assert ax.get_images()


def test_the_edges_of_the_chosen_spot_stand_out(target):
    (ax,) = draw(target, spot=target.obs_names[SPOT])
    xy = np.asarray(target.obsm["spatial"])
    own = own_lines(ax).get_segments()
    assert to_hex(own_lines(ax).get_colors()[0]) == TARGET_COLOUR.lower()
    np.testing.assert_allclose([segment[0] for segment in own], np.broadcast_to(xy[SPOT], (Q, 2)))
    nearest = np.argsort(np.linalg.norm(xy - xy[SPOT], axis=1))[1 : Q + 1]
    assert {tuple(segment[1]) for segment in own} == {tuple(place) for place in xy[nearest]}


def test_a_slide_without_the_spatial_graph_is_sent_to_make_it(target):
    del target.obsp["spatial_connectivities"]
    with pytest.raises(KeyError, match=r"Run spahgc\.pp\.spatial_graph\(adata\) first"):
        draw(target)


def test_a_slide_without_a_picture_shows_its_spots_below_the_edges(target):
    del target.uns["spatial"]
    (ax,) = draw(target)
    assert not ax.get_images()
    assert not ax.collections[0].get_array().mask.any()
    assert len(thin_lines(ax).get_segments()) > target.n_obs


# CS


def test_cross_edges_lead_to_the_most_similar_reference_spots_in_order(target, refs, bank):
    frames = draw(target, refs, kind="CS", spot=SPOT, bank=bank)[2 : 2 + K]
    expected = best_peers(bank, bank.obsm[EMBEDDING], target.obsm[EMBEDDING][SPOT], K)
    assert ends(frames) == expected
    own = target.obsm[EMBEDDING][SPOT]
    for ax, name in zip(frames, expected, strict=True):
        other = bank[name].obsm[EMBEDDING][0]
        cosine = own @ other / np.linalg.norm(own) / np.linalg.norm(other)
        assert ax.get_xlabel().split("\n")[2] == f"cosine {cosine:.3f}"


def test_patches_are_the_pixels_of_the_spots_in_the_colour_of_their_slide(target, refs, bank):
    _, own, *rest = draw(target, refs, kind="CS", spot=SPOT, bank=bank)
    np.testing.assert_array_equal(pixels(own), patch_of(target, target.obs_names[SPOT]))
    by_name = {name_of(slide): slide for slide in refs}
    colours = dict(zip(bank.uns["spahgc"]["bank"]["slides"], COLOURS, strict=False))
    for ax, end in zip(rest[:K], ends(rest[:K]), strict=True):
        slide, spot = end.split(":")
        np.testing.assert_array_equal(pixels(ax), patch_of(by_name[slide], spot))
        assert to_hex(ax.spines["left"].get_edgecolor()) == colours[slide].lower()


def test_dots_mark_the_places_of_the_spots_on_their_slides(target, refs, bank):
    axes = draw(target, refs, kind="CS", spot=SPOT, bank=bank)
    frames, places = axes[2 : 2 + K], axes[2 + K :]
    by_name = {name_of(slide): slide for slide in refs}
    names = ends(frames)
    assert [ax.get_title() for ax in places] == list(dict.fromkeys(end.split(":")[0] for end in names))
    for ax in places:
        slide = by_name[ax.get_title()]
        expected = [end.split(":")[1] for end in names if end.startswith(f"{ax.get_title()}:")]
        np.testing.assert_allclose(ax.collections[-1].get_offsets(), slide[expected].obsm["spatial"])
        numbers = {str(rank) for rank, end in enumerate(names, 1) if end.startswith(f"{ax.get_title()}:")}
        assert numbers <= set(texts(ax))


def test_a_line_leads_from_the_spot_to_every_patch_of_the_first_row(target, refs, bank):
    figure = sp.pl.graph(target, refs, kind="CS", spot=SPOT, bank=bank, return_fig=True)
    own, frames = figure.axes[1], figure.axes[2 : 2 + K]
    figure.canvas.draw()
    lines = [edge.get_transform().transform(edge.get_path().vertices) for edge in edges_of(figure)]
    assert len(lines) == K
    for line, ax in zip(lines, frames, strict=True):
        np.testing.assert_allclose(line[0], own.transAxes.transform((0.5, 0)), atol=1)
        np.testing.assert_allclose(line[-1], ax.transAxes.transform((0.5, 1)), atol=1)


def test_a_prediction_names_its_own_reference_spots(target, refs, bank):
    sp.tl.predict(target, refs, preset=sp.Parameters(width=16, layers=1, heads=2, epochs=1))
    frames = draw(target, refs, kind="CS", spot=SPOT)[2 : 2 + K]
    listed = sp.tl.attribution(target, SPOT).sort_values("similarity", ascending=False, kind="stable")
    assert set(ends(frames)) == set(listed["slide"] + ":" + listed["spot"])
    sp.pp.cross_graph(target, bank, n_neighbors=3)  # in the place of the prediction's
    with pytest.raises(ValueError, match="do not have the same edges"):
        draw(target, refs, kind="CS", spot=SPOT)
    assert len(ends(draw(target, refs, kind="CS", spot=SPOT, bank=bank)[2:5])) == 3


def test_a_graph_that_nothing_names_asks_for_its_bank(target, refs, bank):
    with pytest.raises(ValueError, match=r"nothing names the reference spots .* Pass bank="):
        draw(target, refs, kind="CS", spot=SPOT)
    with pytest.raises(ValueError, match=r"has 80 columns, but the bank holds 40"):
        draw(target, refs, kind="CS", spot=SPOT, bank=sp.pp.reference_bank(refs[:1]))
    del target.obsm["spahgc_cs"]
    with pytest.raises(KeyError, match=r'obsm\["spahgc_cs"\] not found .* spahgc\.pp\.cross_graph'):
        draw(target, refs, kind="CS", spot=SPOT, bank=bank)


def test_without_references_names_and_similarities_stand_at_empty_frames(target, refs, bank):
    full = draw(target, refs, kind="CS", spot=SPOT, bank=bank)
    bare = draw(target, kind="CS", spot=SPOT, bank=bank)
    assert [ax.get_xlabel() for ax in bare] == [ax.get_xlabel() for ax in full]
    assert bare[1].get_images()
    for ax in bare[2:]:
        assert texts(ax) == ["no image"] and not ax.get_images()


def test_slides_without_images_leave_frames_that_say_so(target, refs, bank):
    for slide in [target, *refs]:
        del slide.uns["spatial"]
    with pytest.warns(UserWarning, match="no full-resolution image of"):
        axes = draw(target, refs, kind="CS", spot=SPOT, bank=bank)
    assert all(texts(ax) == ["no image"] for ax in axes[1 : 2 + K])
    assert all(len(ax.collections[0].get_offsets()) == 40 for ax in axes[2 + K :])  # places are known all the same


def test_no_more_edges_are_drawn_than_asked_for(target, refs, bank):
    axes = draw(target, refs, kind="CS", spot=SPOT, bank=bank, n=2)
    assert ends(axes[2:4]) == best_peers(bank, bank.obsm[EMBEDDING], target.obsm[EMBEDDING][SPOT], 2)
    sp.pp.cross_graph(target, bank, n_neighbors=9)
    figure = sp.pl.graph(target, refs, kind="CS", spot=SPOT, bank=bank, n=9, return_fig=True)
    figure.canvas.draw()
    first, second = figure.axes[2], figure.axes[9]
    assert second.get_window_extent().y1 < first.get_window_extent().y0
    assert len(edges_of(figure)) == K


# RS


def test_peers_of_a_reference_spot_look_and_express_alike(bank, refs):
    frames = draw(bank, refs, kind="RS", spot=SPOT)[2 : 2 + K]
    features = np.hstack([bank.obsm[EMBEDDING], bank.X.toarray()])
    others = np.delete(np.arange(bank.n_obs), SPOT)
    assert ends(frames) == best_peers(bank[others], features[others], features[SPOT], K)


def test_the_ring_lies_on_the_reference_spot(bank, refs):
    tissue, own, *_ = draw(bank, refs, kind="RS", spot=bank.obs_names[SPOT])
    slide, spot = bank.obs_names[SPOT].split(":")
    (home,) = (one for one in refs if name_of(one) == slide)
    np.testing.assert_array_equal(pixels(own), patch_of(home, spot))
    np.testing.assert_allclose(tissue.collections[-1].get_offsets()[0], home[spot].obsm["spatial"][0])
    assert tissue.get_title() == f"reference {slide}"


def test_a_bank_alone_is_drawn_with_names_only(bank):
    axes = draw(bank, kind="RS", spot=0, n=3)
    assert all("no image" in texts(ax) for ax in axes)
    assert len(ends(axes[2:5])) == 3
    del bank.obsp["spahgc_rs_connectivities"]
    with pytest.raises(KeyError, match="made without peers"):
        draw(bank, kind="RS", spot=0)


def test_a_bank_on_disk_is_drawn_as_one_in_memory(bank, refs, tmp_path):
    stored = sp.pp.reference_bank(refs, path=tmp_path / "bank.zarr")
    frames = draw(stored, refs, kind="RS", spot=SPOT)[2 : 2 + K]
    assert ends(frames) == ends(draw(bank, refs, kind="RS", spot=SPOT)[2 : 2 + K])


# Together


def test_all_kinds_meet_at_the_most_similar_reference_spot(target, refs, bank):
    axes = draw(target, refs, kind=["TS", "CS", "RS"], spot=SPOT, bank=bank)
    assert len(thin_lines(axes[0]).get_segments()) > target.n_obs
    first = ends(axes[2:3])[0]
    alone = draw(bank, refs, kind="RS", spot=first)
    joined = axes[-len(alone) :]
    assert [ax.get_xlabel() for ax in joined] == [ax.get_xlabel() for ax in alone]
    assert joined[1].get_title() == f"reference spot\n{first.split(':')[1]}"


def test_kinds_that_do_not_fit_the_object_are_refused(target, refs, bank):
    with pytest.raises(ValueError, match=r"'XS'; pass one of"):
        draw(target, kind="XS")
    with pytest.raises(ValueError, match="each once"):
        draw(target, kind=["TS", "TS"])
    with pytest.raises(ValueError, match="needs a target slide, and this is a bank"):
        draw(bank, kind="CS", spot=0)
    with pytest.raises(ValueError, match="this is no bank of references"):
        draw(target, kind="RS", spot=0)
    with pytest.raises(ValueError, match="needs spot="):
        draw(target, kind="CS", bank=bank)
    with pytest.raises(KeyError, match='"nowhere" not found'):
        draw(target, spot="nowhere")
    with pytest.raises(ValueError, match="must be what spahgc.pp.reference_bank"):
        draw(target, kind="CS", spot=0, bank=refs[0])
    with pytest.raises(ValueError, match="none of refs is a reference of the bank"):
        draw(bank, [target], kind="RS", spot=0)


def test_figure_goes_where_it_is_sent_and_nothing_is_written(target, refs, bank, tmp_path):
    keys = sorted(target.obsm), sorted(target.obsp), sorted(target.uns)
    path = tmp_path / "graph.pdf"
    assert sp.pl.graph(target, refs, kind=["TS", "CS"], spot=0, bank=bank, save=path, return_fig=True) is not None
    assert path.stat().st_size > 0
    assert keys == (sorted(target.obsm), sorted(target.obsp), sorted(target.uns))
    with pytest.raises(FileNotFoundError, match="does not exist"):
        draw(target, save=tmp_path / "nowhere" / "x.png")


def test_axes_of_the_caller_are_drawn_on(target, refs, bank):
    given = plt.subplots()[1]
    assert draw(target, ax=given) == [given]
    needed = len(draw(target, refs, kind="CS", spot=SPOT, bank=bank))
    row = plt.subplots(1, needed)[1]
    assert draw(target, refs, kind="CS", spot=SPOT, bank=bank, ax=row) == list(row)
    with pytest.raises(ValueError, match=rf"ax must hold {needed} axes .*{K} reference spots.* found 1"):
        draw(target, refs, kind="CS", spot=SPOT, bank=bank, ax=given)


def test_spatialdata_is_drawn_as_its_table(target, refs, bank):
    spatialdata = pytest.importorskip("spatialdata")
    (expected,) = draw(target, spot=SPOT)
    (ax,) = draw(spatialdata.SpatialData(tables={"table": target}), spot=SPOT)
    np.testing.assert_allclose(thin_lines(ax).get_segments(), thin_lines(expected).get_segments())


def test_numbers_are_spread_in_their_order_and_stay_within():
    heights = np.array([0.02, 0.5, 0.5, 0.98, 0.99])
    placed = spread_labels(heights, 0.12, 0, 1)
    assert (np.diff(placed) >= 0.12 - 1e-9).all()
    assert placed.max() <= 1 and placed.min() >= 0
    np.testing.assert_allclose(spread_labels(np.array([0.1, 0.5, 0.9]), 0.12, 0, 1), [0.1, 0.5, 0.9])
    crowded = spread_labels(np.linspace(0.9, 1, 40), 0.12, 0, 1)
    assert crowded.min() >= -1e-9 and crowded.max() <= 1 + 1e-9
