"""Surroundings are as wide on a target as on its references, in microns, however densely its spots lie."""

import numpy as np
import pytest
from anndata import AnnData
from scipy.special import j1

import spahgc as sp
from spahgc._spots.pieces import nearest_in_piece
from spahgc._spots.pitch import spot_spacing
from spahgc._spots.plane import nearest_in_plane
from spahgc._spots.scale import LEAST_DISTANCE, Surroundings, neighbours_at, radius_of, spots_around, thinned

PITCH_UM, MPP = 100.0, 0.5
LINE = sp.Parameters(n_axes=4, line=True, epochs=0, n_around=18)
WAVES_UM = (300.0, 900.0)
"""Lengths of the waves of what is seen."""


def square(pitch: float, n: int) -> np.ndarray:
    return pitch * np.stack(np.meshgrid(np.arange(n), np.arange(n)), axis=-1).reshape(-1, 2).astype(float)


def hexagonal(pitch: float, n: int) -> np.ndarray:
    row, col = np.divmod(np.arange(n * n), n)
    return pitch * np.column_stack([col + row % 2 / 2, row * np.sqrt(3) / 2])


def one(xy: np.ndarray) -> np.ndarray:
    return np.full(len(xy), "one")


def middle(xy: np.ndarray) -> int:
    return int(np.argmin(np.linalg.norm(xy - xy.mean(axis=0), axis=1)))


@pytest.mark.parametrize("lay", [square, hexagonal])
def test_neighbours_of_an_array_as_dense_as_the_references_are_counted(lay):
    xy = lay(100.0, 12)
    graph = spots_around(xy, 18, one(xy), {})
    assert (graph != nearest_in_plane(xy, 18, one(xy))[0]).nnz == 0


@pytest.mark.parametrize("lay", [square, hexagonal])
@pytest.mark.parametrize("times", [2, 3, 4])
def test_a_denser_grid_sees_as_far_as_the_references(lay, times):
    xy = lay(PITCH_UM / times, 12 * times)
    graph = spots_around(xy, 18, one(xy), {"one": PITCH_UM})
    row = middle(xy)
    distance = np.linalg.norm(xy[graph[row].indices] - xy[row], axis=1)
    radius = radius_of(18, PITCH_UM)
    assert LEAST_DISTANCE * PITCH_UM <= distance.min() < PITCH_UM
    assert radius - PITCH_UM / times < distance.max() <= radius
    if times < 3:  # all of them: nothing is thinned
        everywhere = np.linalg.norm(xy - xy[row], axis=1)
        assert len(distance) == ((everywhere >= LEAST_DISTANCE * PITCH_UM) & (everywhere <= radius)).sum()


def test_two_rings_of_a_hexagonal_array_are_eighteen_spots_by_either_rule():
    xy = hexagonal(PITCH_UM, 13)
    graph, row = spots_around(xy, 18, one(xy), {"one": PITCH_UM}), middle(hexagonal(PITCH_UM, 13))
    assert set(graph[row].indices) == set(nearest_in_plane(xy, 18)[0][row].indices)


def test_of_a_much_denser_grid_one_spot_of_a_square_stands_for_all():
    xy = square(PITCH_UM / 12, 72)
    chosen = thinned(xy, PITCH_UM)
    assert len(chosen) == 12 * 12
    graph = spots_around(xy, 18, one(xy), {"one": PITCH_UM})
    assert np.diff(graph.indptr).max() < 100
    shuffled = np.random.default_rng(0).permutation(len(xy))
    assert set(map(tuple, xy[shuffled][thinned(xy[shuffled], PITCH_UM)])) == set(map(tuple, xy[chosen]))


def test_a_sparser_array_has_the_four_nearest_where_none_lies_within_the_radius():
    xy = square(3 * PITCH_UM, 8)
    graph, row = spots_around(xy, 18, one(xy), {"one": PITCH_UM}), middle(xy)
    assert set(graph[row].indices) == set(nearest_in_plane(xy, 4)[0][row].indices)


def test_an_array_of_twice_the_pitch_has_the_ring_that_lies_within_the_radius():
    xy = square(2 * PITCH_UM, 9)
    graph, row = spots_around(xy, 18, one(xy), {"one": PITCH_UM}), middle(square(2 * PITCH_UM, 9))
    distance = np.linalg.norm(xy[graph[row].indices] - xy[row], axis=1)
    assert distance.tolist() == [200.0] * 4


def test_two_spots_alone_are_each_others_surroundings():
    xy = np.array([[0.0, 0.0], [900.0, 0.0]])
    assert spots_around(xy, 18, one(xy), {"one": PITCH_UM}).toarray().tolist() == [[0, 1], [1, 0]]


def test_slides_by_radius_and_by_number_stand_side_by_side():
    xy, slide = np.vstack([square(50.0, 8), square(100.0, 8)]), np.repeat(["fine", "plain"], 64)
    graph = spots_around(xy, 18, slide, {"fine": PITCH_UM})
    coarse = graph[64:][:, 64:]
    assert graph.nnz == graph[:64][:, :64].nnz + coarse.nnz
    assert (coarse != nearest_in_plane(xy[64:], 18)[0]).nnz == 0


def test_edges_of_a_denser_slide_lead_as_far_as_those_of_the_references():
    xy = square(PITCH_UM / 4, 40)
    graph, row = nearest_in_piece(xy, 5, step=PITCH_UM), middle(square(PITCH_UM / 4, 40))
    assert graph[row].nnz == 5
    assert np.abs(graph[row].data - PITCH_UM).max() < PITCH_UM / 4
    assert (nearest_in_piece(xy, 5) != nearest_in_piece(xy, 5, step=PITCH_UM / 4)).nnz == 0


def test_edges_of_a_denser_slide_cross_no_gap_between_pieces():
    left, right = square(25.0, 12), square(25.0, 12) + [12 * 25.0 + 40, 0]
    graph = nearest_in_piece(np.vstack([left, right]), 5, step=PITCH_UM)
    assert not graph[:144][:, 144:].nnz
    assert np.diff(graph.indptr).min() > 0


def test_edges_of_a_sparser_slide_are_the_nearest():
    xy = square(2 * PITCH_UM, 9)
    assert (nearest_in_piece(xy, 5, step=PITCH_UM) != nearest_in_piece(xy, 5)).nnz == 0


def test_places_off_the_tissue_have_no_edge():
    xy = square(25.0, 12)
    corner = neighbours_at(xy, 4, PITCH_UM)[0]
    assert sorted(map(tuple, xy[corner.indices])) == [(0.0, 100.0), (100.0, 0.0)]


def test_cells_at_random_are_as_far_apart_as_the_root_of_their_area():
    cells = np.random.default_rng(0).uniform(0, 1000, (2500, 2))
    assert spot_spacing(cells) == pytest.approx(20.0, rel=0.05)
    assert spot_spacing(square(100.0, 9)) == 100.0
    assert spot_spacing(np.zeros((3, 2))) is None


@pytest.mark.parametrize(
    ("spacing", "wanted", "by", "why"),
    [
        (114.0, 100.0, "count", "as dense"),
        (50.0, 100.0, "radius", "denser"),
        (200.0, 100.0, "radius", "sparser"),
        (None, 100.0, "count", "resolution of the slide is not known"),
        (100.0, None, "count", "resolution of the references is not known"),
    ],
)
def test_what_surroundings_are_is_told(spacing, wanted, by, why):
    told = Surroundings.of(spacing, wanted)
    assert told.by == by
    assert why in told.why
    assert ("radius_um" in told.record(18)) == (wanted is not None)


def made(xy_um: np.ndarray, seed: int, *, mpp: float | None = MPP, genes: bool = True) -> AnnData:
    """A slide whose expression follows the mean, over the circle that 18 spots of the references fill, of what is seen."""
    rng = np.random.default_rng(seed)
    way = rng.normal(size=(30, 2))
    waves = way / np.linalg.norm(way, axis=1)[:, None] * 2 * np.pi / rng.uniform(*WAVES_UM, 30)[:, None]
    by_wave = np.cos(xy_um @ waves.T + rng.uniform(0, 2 * np.pi, 30)) / np.sqrt(30)
    reach = np.linalg.norm(waves, axis=1) * radius_of(18, PITCH_UM)
    seen, values = by_wave.sum(axis=1), by_wave @ (2 * j1(reach) / reach)  # the mean of a wave over a disc
    values = values / 0.2
    obsm = {"X_seen": np.column_stack([seen, rng.normal(size=(len(xy_um), 3))]).astype(np.float32)}
    rate = np.exp(np.column_stack([values, -values, *np.zeros((8, len(xy_um)))]) + 3)
    counts = rng.poisson(rate).astype(np.float32) if genes else np.zeros((len(xy_um), 0), np.float32)
    slide = AnnData(counts, obsm=obsm | {"spatial": xy_um / MPP + 500})
    slide.uns = {"spahgc": {"slide_mpp": mpp}} if mpp else {}
    slide.var_names = [f"G{i}" for i in range(slide.n_vars)]
    slide.obs["slide"] = f"s{seed}"
    slide.obs["field"] = values
    return slide


@pytest.fixture(scope="module")
def model() -> sp.SpaHGC:
    refs = [made(hexagonal(PITCH_UM, 16), seed) for seed in (1, 2)]
    return sp.tl.fit(refs, genes="all", embedding="X_seen", preset=LINE, trust=False)


def predicted(model: sp.SpaHGC, slide: AnnData) -> tuple[float, dict]:
    sp.tl.predict(slide, model=model, trust=False)
    told = slide.uns["spahgc"]["predictions"]["spahgc"]["surroundings"]
    first = slide.layers["spahgc"][:, list(slide.var_names).index("G0")]
    return float(np.corrcoef(first, slide.obs["field"])[0, 1]), told


@pytest.mark.parametrize("pitch", [50.0, 25.0])
def test_a_denser_target_is_predicted_right(model, pitch):
    xy = hexagonal(pitch, int(1500 / pitch))
    by_radius, told = predicted(model, made(xy, 5, genes=False))
    by_count, unknown = predicted(model, made(xy, 5, mpp=None, genes=False))
    assert (told["by"], unknown["by"]) == ("radius", "count")
    assert told["radius_um"] == pytest.approx(radius_of(18, PITCH_UM))
    assert told["spacing_um"] == pytest.approx(pitch)
    assert by_radius > max(by_count, 0.8)


def test_a_target_of_the_references_spacing_is_predicted_as_before_whether_or_not_microns_are_known(model):
    xy = hexagonal(1.1 * PITCH_UM, 14)
    known, unknown = made(xy, 6, genes=False), made(xy, 6, mpp=None, genes=False)
    assert predicted(model, known)[1]["why"].startswith("spots lie as dense")
    assert "not known" in predicted(model, unknown)[1]["why"]
    assert np.array_equal(known.layers["spahgc"], unknown.layers["spahgc"])


def test_a_model_remembers_the_microns_of_its_references(model, tmp_path):
    model.save(tmp_path / "model")
    slide = made(hexagonal(50.0, 20), 7, genes=False)
    expected = model.predict(slide)
    assert np.array_equal(sp.SpaHGC.load(tmp_path / "model").predict(slide), expected)


def test_a_bank_on_disk_remembers_the_microns_of_slides_that_were_appended(tmp_path):
    from spahgc.pp._bank.references import bank_mpp

    known = ((1, 0.5), (2, None), (3, 0.25))
    first, second, third = (made(hexagonal(PITCH_UM, 8), seed, mpp=mpp) for seed, mpp in known)
    sp.pp.reference_bank([first, second], embedding="X_seen", path=tmp_path / "bank")
    bank = sp.pp.reference_bank([third], path=tmp_path / "bank", append=True)
    assert bank_mpp(bank) == {"s1": 0.5, "s3": 0.25}


def test_a_reference_of_another_spacing_counts_within_the_radius_of_most(model):
    from spahgc._training.graphs import bank_spots

    refs = [made(hexagonal(pitch, 12), seed) for seed, pitch in ((1, 100.0), (2, 100.0), (3, 50.0))]
    spots = bank_spots(sp.pp.reference_bank(refs, genes=["G0", "G1"], embedding="X_seen"))
    assert spots.steps == {"s3": pytest.approx(PITCH_UM / MPP)}
    assert bank_spots(model.bank).steps == {}


@pytest.mark.parametrize("method", ["ridge_neighbours", "deepspot"])
def test_baselines_that_look_around_say_how_far(method, monkeypatch):
    refs = [made(hexagonal(PITCH_UM, 9), seed) for seed in (1, 2)]
    slide = made(hexagonal(50.0, 12), 3, genes=False)
    if method == "deepspot":
        monkeypatch.setattr("spahgc.tl._baselines.deepspot.MAX_EPOCHS", 1)
    sp.tl.predict(slide, refs, genes="all", embedding="X_seen", method=method)
    told = slide.uns["spahgc"]["predictions"]["spahgc"]["surroundings"]
    assert (told["by"], told["n_around"]) == ("radius", 6)


def test_a_radius_can_be_asked_for(model):
    refs = [made(hexagonal(PITCH_UM, 16), seed) for seed in (1, 2)]
    own, wide = (
        sp.Parameters(n_axes=4, line=True, epochs=0, surroundings_um=radius)
        for radius in (radius_of(18, PITCH_UM), 400.0)
    )
    slide = made(hexagonal(PITCH_UM, 14), 4, genes=False)
    same = sp.tl.fit(refs, genes="all", embedding="X_seen", preset=own, trust=False)
    assert np.array_equal(same.predict(slide), model.predict(slide))
    other = sp.tl.fit(refs, genes="all", embedding="X_seen", preset=wide, trust=False)
    told = predicted(other, slide)[1]
    assert told["by"] == "radius"
    assert told["radius_um"] == pytest.approx(400.0)


def test_a_radius_without_microns_is_refused():
    refs = [made(hexagonal(PITCH_UM, 9), seed, mpp=mpp) for seed, mpp in ((1, MPP), (2, None))]
    asked = sp.Parameters(n_axes=4, line=True, epochs=0, surroundings_um=250.0)
    with pytest.raises(
        ValueError, match='surroundings_um=250 are microns, and the resolution of reference "s2" is not known'
    ):
        sp.tl.fit(refs, genes="all", embedding="X_seen", preset=asked, trust=False)
    fitted = sp.tl.fit(refs[:1], genes="all", embedding="X_seen", preset=asked, trust=False)
    with pytest.raises(ValueError, match="resolution of the target is not known"):
        fitted.predict(made(hexagonal(50.0, 9), 3, mpp=None, genes=False))


@pytest.mark.parametrize("radius", [-1.0, np.nan, np.inf])
def test_a_radius_that_is_none_is_refused(radius):
    with pytest.raises(ValueError, match="is no radius"):
        sp.Parameters(n_axes=4, surroundings_um=radius)


def test_a_radius_without_surroundings_is_refused():
    with pytest.raises(ValueError, match="n_around=0 contradict"):
        sp.Parameters(n_axes=4, n_around=0, surroundings_um=200.0)
