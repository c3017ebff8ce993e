"""Points finer than the references' spots: means over areas of their size are kept, and the spread widens with the step down."""

import numpy as np
import pytest
from anndata import AnnData

import spahgc as sp
from spahgc._linear.within_spot import MEAN_DISTANCE, slopes_between_spots, variance_within
from spahgc._spots.areas import Areas

PRESET = sp.Parameters.preset("default", experts=("line", "kernel"), place=False)
MPP, PITCH_UM, SPACING_UM = 0.8, 100.0, 25.0


def square(pitch: float, n: int) -> np.ndarray:
    return pitch * np.stack(np.meshgrid(np.arange(n), np.arange(n)), axis=-1).reshape(-1, 2).astype(float)


def seen(slide: AnnData, xy: np.ndarray) -> np.ndarray:
    """What an encoder may see: the shares of the domains in a spot, with noise of its own."""
    noise = np.random.default_rng(len(xy)).normal(0, 0.05, (len(xy), 5))
    truth = slide.uns["truth"]["field"]
    cells = np.clip((xy / 8).astype(int), 0, np.array(truth.shape[:0:-1]) - 1)
    return (truth[:, cells[:, 1], cells[:, 0]].T + noise).astype(np.float32)


@pytest.fixture(scope="module")
def slides() -> list[AnnData]:
    made = sp.datasets.simulated(3, n_patients=1, n_spots=100, n_genes=30, seed=7)
    for slide in made:
        slide.obsm["X_seen"] = seen(slide, slide.obsm["spatial"])
    return made


@pytest.fixture(scope="module")
def grid(slides: list[AnnData]) -> AnnData:
    """Points 25 um apart over the first slide, which has spots of 55 um 100 um apart."""
    target = slides[0]
    spots = target.obsm["spatial"]
    xy = spots.min(axis=0) + square(SPACING_UM / MPP, 60)
    near = np.linalg.norm(xy[:, None] - spots[None], axis=2).min(axis=1) < 75 / MPP
    points = AnnData(obs={"patient": ["P1"] * int(near.sum())}, uns={"spatial": target.uns["spatial"]})
    points.obsm["spatial"] = xy[near]
    points.obsm["X_seen"] = seen(target, xy[near])
    points.uns["spahgc"] = {"slide_mpp": MPP}
    return points


@pytest.fixture(scope="module")
def model(slides: list[AnnData]) -> sp.SpaHGC:
    return sp.tl.fit(slides[1:], genes="all", embedding="X_seen", preset=PRESET)


@pytest.fixture(scope="module")
def conserved(grid: AnnData, model: sp.SpaHGC) -> AnnData:
    points = grid.copy()
    sp.tl.predict(points, model=model, key_added="plain", intervals=0.9)
    sp.tl.predict(points, model=model, conserve=True, intervals=0.9)
    return points


def areas_of(points: AnnData) -> Areas:
    record = points.uns["spahgc"]["predictions"]["spahgc"]["conserve"]
    return Areas.over(points.obsm["spatial"], record["diameter_um"] / MPP, record["pitch_um"] / MPP)


def test_means_over_areas_are_what_is_predicted_of_spots_there(conserved, grid, model):
    areas = areas_of(conserved)
    as_spots = AnnData(obs={"patient": ["P1"] * len(areas.centres)}, uns=grid.uns)
    as_spots.obsm["spatial"], as_spots.obsm["X_seen"] = areas.centres, (areas.means @ grid.obsm["X_seen"])
    sp.tl.predict(as_spots, model=model)
    means = areas.means @ conserved.layers["spahgc"].astype(float)
    assert np.abs(means - as_spots.layers["spahgc"]).max() < 1e-4
    plain = areas.means @ conserved.layers["plain"].astype(float)
    assert np.abs(plain - as_spots.layers["spahgc"]).max() > 0.01  # without it they are something else


def test_means_over_spots_that_lie_elsewhere_stay_within_the_spread(conserved, slides, model):
    spots = slides[0].copy()
    sp.tl.predict(spots, model=model)
    xy, at = conserved.obsm["spatial"], spots.obsm["spatial"]
    inside = [np.flatnonzero(np.linalg.norm(xy - place, axis=1) <= 55 / MPP / 2) for place in at]
    full = [i for i, points in enumerate(inside) if len(points) >= 3]
    assert len(full) > 90
    said, at_spots, spread = (
        slide.to_df(key)[model.genes].to_numpy()
        for slide, key in ((conserved, "spahgc"), (spots, "spahgc"), (spots, "spahgc_std"))
    )
    means = np.array([said[inside[i]].mean(axis=0) for i in full])
    apart = np.abs(means - at_spots[full]) / spread[full]
    assert apart.mean() < 0.2
    assert np.quantile(apart, 0.99) < 1


def test_the_fine_truth_is_told_no_worse_than_without(conserved, slides, model):
    truth = sp.datasets.simulated_truth(slides[0], points=conserved.obsm["spatial"], diameter_um=SPACING_UM)
    follows = slides[0].var_names[slides[0].var["truth_kind"] == "morphology"]

    def correlation(key):
        said = conserved.to_df(key)
        return np.mean([np.corrcoef(said[gene], truth[gene])[0, 1] for gene in follows])

    assert correlation("spahgc") > correlation("plain")


def test_the_record_says_sizes_and_deviations(conserved):
    record = conserved.uns["spahgc"]["predictions"]["spahgc"]["conserve"]
    assert record["spacing_um"] == pytest.approx(SPACING_UM)
    assert record["diameter_um"] == pytest.approx(55, rel=1e-3)
    assert record["n_areas"] == len(areas_of(conserved).centres)
    assert 0 <= record["mean_deviation_in_spreads"] <= record["max_deviation_in_spreads"] < 1e-3
    assert record["widened"] > 1
    assert "conserve" not in conserved.uns["spahgc"]["predictions"]["plain"]


def test_spread_and_intervals_widen_alike_and_support_falls(conserved, grid, model):
    below = grid.copy()
    sp.tl.predict(below, model=model, conserve=100.0, intervals=0.9)  # the larger the spot, the longer the step down
    wider = below.uns["spahgc"]["predictions"]["spahgc"]["conserve"]["widened"]
    assert wider > conserved.uns["spahgc"]["predictions"]["spahgc"]["conserve"]["widened"]
    value, std = conserved.layers["spahgc"], conserved.layers["spahgc_std"]
    half = conserved.layers["spahgc_high"] - value
    before = (conserved.layers["plain_high"] - conserved.layers["plain"]) / conserved.layers["plain_std"]
    np.testing.assert_allclose(half / std, before, rtol=1e-3)  # intervals keep their width in spreads
    np.testing.assert_allclose(conserved.layers["spahgc_low"], np.maximum(value - half, 0), atol=1e-4)
    assert (conserved.obs["spahgc_support"] <= conserved.obs["plain_support"] + 1e-6).all()
    assert (conserved.obs["spahgc_support"] < conserved.obs["plain_support"] - 1e-6).any()


def test_the_variance_within_a_spot_is_found_from_spots_alone():
    rng, n, scale = np.random.default_rng(0), 40, 400.0
    # A field whose covariance falls exponentially, on a raster of 10 um, by its spectrum on a torus.
    side = 1024
    lag = np.minimum(np.arange(side), side - np.arange(side)) * 10.0
    covariance = np.exp(-np.hypot(lag[:, None], lag[None]) / scale)
    power = np.sqrt(np.maximum(np.fft.fft2(covariance).real, 0))
    field = np.fft.ifft2(power * np.fft.fft2(rng.standard_normal((side, side)))).real
    place = square(10.0, n)  # spots 100 um apart, as rows and columns of the raster
    counts = rng.normal(0, 1.0, (len(place), 1))  # noise of counting, which must not count
    values = field[place[:, 1].astype(int), place[:, 0].astype(int)][:, None] + counts
    slope = slopes_between_spots(values, place, np.full(len(place), "A"), {"A": 10.0})
    assert slope[0] == pytest.approx(1 / scale, rel=0.5)
    assert variance_within(slope, 55.0, 25.0)[0] == pytest.approx(slope[0] * MEAN_DISTANCE * 30)
    assert variance_within(slope, 55.0, 55.0)[0] == 0
    # The mean distance of two points of a disc, by drawing them.
    drawn = rng.uniform(-1, 1, (2, 40_000, 2))
    inside = (np.linalg.norm(drawn, axis=2) <= 1).all(axis=0)
    assert np.linalg.norm(drawn[0] - drawn[1], axis=1)[inside].mean() / 2 == pytest.approx(MEAN_DISTANCE, rel=0.02)


def test_values_stay_at_their_lower_bound_and_the_points_around_make_up_for_it():
    xy = square(25.0, 24)
    areas = Areas.over(xy, 55.0, 100.0)
    rng = np.random.default_rng(0)
    values = rng.exponential(0.3, (len(xy), 2))
    wanted = np.maximum(areas.means @ values - 0.25, 0.02)
    found = areas.conserved(values, wanted, 0.0)
    assert found.min() >= 0
    assert (found == 0).any()  # some would have been below it
    assert np.abs(areas.means @ found - wanted).max() < 1e-3


def test_the_correction_is_smooth_and_adds_no_noise():
    xy = square(25.0, 24)
    areas = Areas.over(xy, 55.0, 100.0)
    values = np.random.default_rng(0).normal(size=(len(xy), 1))
    changed = areas.conserved(values, areas.means @ values + 1.0, -np.inf) - values
    assert changed.min() > 0.7 and changed.max() < 1.3  # a constant difference is made up for by nearly a constant


def test_a_baseline_conserves_without_a_spread(grid, slides):
    points = grid.copy()
    sp.tl.predict(points, slides[1:], genes="all", embedding="X_seen", method="ridge", conserve=True)
    record = points.uns["spahgc"]["predictions"]["spahgc"]["conserve"]
    assert record["max_deviation"] < 1e-4
    assert "widened" not in record and "spahgc_std" not in points.layers


def test_points_off_the_tissue_stay_empty(grid, model):
    points = grid.copy()
    points.obs["in_tissue"] = np.arange(points.n_obs) % 50 != 0
    with pytest.warns(UserWarning, match="off the tissue"):
        sp.tl.predict(points, model=model, conserve=True)
    empty = np.isnan(points.layers["spahgc"]).all(axis=1)
    assert (empty == ~points.obs["in_tissue"].to_numpy()).all()
    assert (np.isnan(points.layers["spahgc_std"]).all(axis=1) == empty).all()


def test_a_target_as_coarse_as_its_references_is_refused(slides, model):
    with pytest.raises(ValueError, match=r"not finer than the references: its points lie 100 um apart.*spacing_um=27"):
        sp.tl.predict(slides[0].copy(), model=model, conserve=True)


@pytest.mark.parametrize("given", ["yes", -1.0, np.nan, 0, None])
def test_what_is_no_diameter_is_refused(grid, model, given):
    with pytest.raises(ValueError, match="neither True nor False nor the diameter"):
        sp.tl.predict(grid.copy(), model=model, conserve=given)


def test_overlapping_spots_are_refused(grid, model):
    with pytest.raises(ValueError, match=r"they lie 100 um apart, so that they would overlap"):
        sp.tl.predict(grid.copy(), model=model, conserve=120.0)


def test_an_unknown_resolution_is_refused(grid, model):
    points = grid.copy()
    del points.uns["spahgc"], points.uns["spatial"]
    with pytest.raises(ValueError, match="the resolution of the target is not known"):
        sp.tl.predict(points, model=model, conserve=True)


def test_too_small_a_target_is_refused(grid, model):
    points = grid[np.linalg.norm(grid.obsm["spatial"] - grid.obsm["spatial"].mean(axis=0), axis=1) < 120].copy()
    with pytest.raises(ValueError, match="areas of the size of a spot, and conserve= needs at least 10"):
        sp.tl.predict(points, model=model, conserve=True)


def test_a_target_that_was_measured_in_part_is_refused(grid, slides):
    with pytest.raises(ValueError, match="measured= makes references of the target's own points"):
        sp.tl.predict(grid.copy(), slides[1:], measured="patient", conserve=True)


def test_attribution_says_why_it_cannot_take_such_values_apart(conserved, model):
    with pytest.raises(ValueError, match="was made with conserve="):
        sp.tl.attribution(conserved, conserved.obs_names[0], gene=model.genes[0], model=model)


def test_the_report_says_what_fine_values_cannot_show(conserved, tmp_path):
    points = conserved.copy()
    points.obs_names = [f"p{i}" for i in range(points.n_obs)]
    sp.pl.report(points, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "They do not show single cells" in page
    assert "points 25 um apart" in page


def test_it_survives_writing(conserved, tmp_path):
    import anndata

    conserved.write_h5ad(tmp_path / "a.h5ad")
    read = anndata.read_h5ad(tmp_path / "a.h5ad").uns["spahgc"]["predictions"]["spahgc"]["conserve"]
    assert read == conserved.uns["spahgc"]["predictions"]["spahgc"]["conserve"]
