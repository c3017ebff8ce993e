"""Means over regions: their intervals hold the measured means, which intervals of independent spots do not."""

from __future__ import annotations

import json
from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import shapely
import shapely.geometry
from anndata import AnnData
from scipy.spatial.distance import pdist

import spahgc as sp
from spahgc._linear.shared_errors import EDGES, Pairs, SharedErrors
from spahgc._parameters import PRESETS
from spahgc.tl import _regions

EMBEDDING = "X_domains"
NORMAL_90 = 1.645


def with_look(slide: AnnData, rng: np.random.Generator) -> AnnData:
    """An embedding that knows the domains, with noise."""
    mixing = np.random.default_rng(7).normal(size=(3, 24))
    look = np.asarray(slide.obsm["truth_domains"]) @ mixing + rng.normal(scale=0.3, size=(slide.n_obs, 24)) + 1
    slide.obsm[EMBEDDING] = look.astype(np.float32)
    slide.uns.pop("spatial")
    return slide


def predicted_slide(seed: int, n_spots: int = 120) -> AnnData:
    rng = np.random.default_rng(seed)
    slides = sp.datasets.simulated(n_slides=5, n_patients=5, n_spots=n_spots, n_genes=60, n_domains=3, seed=seed)
    target, *refs = [with_look(slide, rng) for slide in slides]
    preset = replace(PRESETS["default"], experts=("kernel", "kernel_overall"), epochs=0, place=False)
    sp.tl.predict(target, refs, genes="all", embedding=EMBEDDING, preset=preset)
    return target


@pytest.fixture(scope="module")
def originals() -> list[AnnData]:
    return [predicted_slide(seed) for seed in range(4)]


@pytest.fixture
def slide(originals: list[AnnData]) -> AnnData:
    return originals[0].copy()


def measured(slide: AnnData) -> pd.DataFrame:
    counts = slide.X.toarray()
    return pd.DataFrame(np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4), slide.obs_names, slide.var_names)


def sets_of(slide: AnnData) -> dict[str, list[str]]:
    return {kind: list(slide.var_names[slide.var["truth_kind"] == kind][:8]) for kind in ("morphology", "flat")}


def test_nine_of_ten_intervals_hold_the_measured_mean_and_those_of_independent_spots_do_not(originals):
    held = {"gene": [], "pathway": []}
    naive = []
    for original in originals:
        slide = original.copy()
        sets, truth = sets_of(slide), measured(slide)
        table = sp.tl.regions(slide, by="domain", net=sets)
        spread = pd.DataFrame(slide.layers["spahgc_std"], slide.obs_names, slide.var_names)
        for row in table.itertuples():
            inside, genes = (slide.obs["domain"] == row.region).to_numpy(), sets.get(row.feature, [row.feature])
            mean = truth.loc[inside, genes].to_numpy().mean()
            held[row.kind].append(row.low <= mean <= row.high)
            if row.kind == "gene":
                half = NORMAL_90 * np.sqrt(np.square(spread.loc[inside, row.feature]).mean() / inside.sum())
                naive.append(abs(mean - row.mean) <= half)
    assert 0.85 <= np.mean(held["gene"]) <= 0.98
    assert np.mean(held["pathway"]) >= 0.85
    assert np.mean(naive) < 0.5


def test_a_mean_is_that_of_the_prediction_over_the_spots_of_the_region(slide):
    table = sp.tl.regions(slide, by="domain", genes=["MORPH001"]).set_index("region")
    values = pd.Series(slide[:, "MORPH001"].layers["spahgc"].ravel(), slide.obs_names)
    expected = values.groupby(slide.obs["domain"], observed=True).mean()
    np.testing.assert_allclose(table["mean"], expected[table.index], rtol=1e-5)
    assert table["n_spots"].to_dict() == slide.obs["domain"].value_counts().to_dict()


def test_the_mean_of_a_pathway_is_the_weighted_mean_of_its_genes(slide):
    net = {
        "even": ["MORPH001", "FLAT001"],
        "mostly one": {"MORPH001": 3.0, "FLAT001": 1.0},
        "against": {"MORPH001": 1.0, "FLAT001": -1.0},
    }
    table = sp.tl.regions(slide, by="domain", genes=["MORPH001", "FLAT001"], net=net, min_genes=2)
    one = table[table["region"] == "tumour"].set_index("feature")["mean"]
    assert one["even"] == pytest.approx((one["MORPH001"] + one["FLAT001"]) / 2)
    assert one["mostly one"] == pytest.approx(0.75 * one["MORPH001"] + 0.25 * one["FLAT001"])
    assert one["against"] == pytest.approx((one["MORPH001"] - one["FLAT001"]) / 2)


def test_effective_spots_follow_the_formula(slide):
    table = sp.tl.regions(slide, by="domain", genes=["MORPH001"])
    correlation = slide[:, "MORPH001"].varm["spahgc_error_correlation"].ravel()
    xy = slide.obsm["spatial"]
    everything = pdist(xy)
    for row in table.itertuples():
        inside = (slide.obs["domain"] == row.region).to_numpy()
        distance = pdist(xy[inside]) / everything.min()
        rho = correlation[np.searchsorted(EDGES, distance, side="left")].mean()
        n = inside.sum()
        assert row.n_effective == pytest.approx(n / (1 + (n - 1) * rho), rel=1e-3)


def test_no_region_is_worth_more_spots_than_it_has_and_a_single_spot_is_worth_one(slide):
    slide.obs["part"] = ["one", *["rest"] * (slide.n_obs - 1)]
    table = sp.tl.regions(slide, by="part").set_index("region")
    assert (table["n_effective"] <= table["n_spots"] + 1e-9).all()
    np.testing.assert_allclose(table.loc["one", "n_effective"], 1.0)


def test_a_higher_level_has_wider_intervals_about_the_same_mean(slide):
    narrow, wide = (sp.tl.regions(slide, by="domain", level=level) for level in (0.5, 0.95))
    np.testing.assert_array_equal(narrow["mean"], wide["mean"])
    assert (wide["high"] > narrow["high"]).all() and (wide["low"] >= 0).all()


def test_counts_of_the_slide_have_no_part_in_it(slide):
    before = sp.tl.regions(slide, by="domain")
    slide.X = np.ones(slide.shape, np.float32)
    pd.testing.assert_frame_equal(sp.tl.regions(slide, by="domain"), before)


def test_domain_is_the_column_of_that_name_or_else_the_predicted_domains(slide):
    sp.tl.domains(slide, n_domains=3)
    assert set(sp.tl.regions(slide, by="domain")["region"]) == set(slide.obs["domain"])
    del slide.obs["domain"]
    assert set(sp.tl.regions(slide)["region"]) == {"0", "1", "2"}
    assert slide.uns["spahgc"]["regions"]["spahgc"]["by"] == "spahgc_domain"


def test_spots_without_a_region_or_a_prediction_are_left_out(slide):
    slide.obs["part"] = pd.Series(["a"] * 40 + ["b"] * 40 + [""] * 20 + [None] * 20, slide.obs_names)
    slide.layers["spahgc"][:10] = np.nan
    table = sp.tl.regions(slide, by="part", genes=["MORPH001"]).set_index("region")
    assert table["n_spots"].to_dict() == {"a": 30, "b": 40}
    assert np.isfinite(table[["mean", "low", "high", "n_effective"]].to_numpy()).all()


def test_spots_that_look_like_nothing_are_counted(slide):
    slide.obs["spahgc_support"] = [0.01, *[0.5] * (slide.n_obs - 1)]
    table = sp.tl.regions(slide, by="domain", genes=["MORPH001"]).set_index("region")
    assert table["n_unknown"].sum() == 1 == table.loc[slide.obs["domain"].iloc[0], "n_unknown"]


@pytest.mark.parametrize("form", ["h5ad", "zarr"])
def test_the_table_and_what_it_is_made_from_survive_a_file(slide, tmp_path, form):
    table = sp.tl.regions(slide, by="domain", net=sets_of(slide))
    path = tmp_path / f"slide.{form}"
    getattr(slide, f"write_{form}")(path)
    again = getattr(ad, f"read_{form}")(path)
    stored = again.uns["spahgc"]["regions"]["spahgc"]["table"]
    np.testing.assert_allclose(stored["mean"].to_numpy(), table["mean"])
    pd.testing.assert_frame_equal(sp.tl.regions(again, by="domain", net=sets_of(slide)), table, check_dtype=False)


def test_for_whom_it_holds_is_kept_where_the_prediction_says_it(slide):
    slide.uns["spahgc"]["predictions"]["spahgc"]["trust"] = {"for": "a new patient"}
    sp.tl.regions(slide, by="domain")
    assert slide.uns["spahgc"]["regions"]["spahgc"]["for_whom"] == "a new patient"


def test_a_new_prediction_takes_the_regions_of_the_old_one_away(slide, originals):
    sp.tl.regions(slide, by="domain")
    other = originals[1].copy()
    sp.tl.predict(slide, [other], method="ridge", genes="all", embedding=EMBEDDING)
    assert "spahgc" not in slide.uns["spahgc"]["regions"]
    assert "spahgc_error_correlation" not in slide.varm


def test_what_no_interval_can_be_made_of_is_refused(slide, originals):
    with pytest.raises(KeyError, match=r'layers\["other"\] not found'):
        sp.tl.regions(slide, key="other", by="domain")
    with pytest.raises(KeyError, match=r"histology.*not found.*Pass by= with one of its columns"):
        sp.tl.regions(slide, by="histology")
    with pytest.raises(ValueError, match="level=90 is no share"):
        sp.tl.regions(slide, by="domain", level=90)
    slide.obs["empty"] = [None] * slide.n_obs
    with pytest.raises(ValueError, match="NaN or empty in all 120 spots"):
        sp.tl.regions(slide, by="empty")
    slide.var.loc["FLAT001", "spahgc_panel"] = False
    with pytest.raises(ValueError, match='"?FLAT001"?: not in the panel'):
        sp.tl.regions(slide, by="domain", genes="FLAT001")
    sp.tl.predict(slide, [originals[1].copy()], method="ridge", genes="all", embedding=EMBEDDING, key_added="ridge")
    with pytest.raises(KeyError, match="says nothing of its errors"):
        sp.tl.regions(slide, key="ridge", by="domain")


def test_pathways_with_too_few_genes_are_named_or_refused(slide):
    net = {"small": ["MORPH001", "absent"]} | sets_of(slide)
    with pytest.warns(UserWarning, match=r"1 of 3 pathways \(.*small.*\) have fewer than min_genes=5"):
        table = sp.tl.regions(slide, by="domain", net=net)
    assert set(table["feature"][table["kind"] == "pathway"]) == {"morphology", "flat"}
    with pytest.raises(ValueError, match="no pathway has min_genes=5"):
        sp.tl.regions(slide, by="domain", net={"small": ["MORPH001", "absent"]})


@pytest.mark.parametrize(
    ("net", "message"),
    [
        ({"A": "EPCAM"}, r'net\["A"\] is \'EPCAM\'; pass a list of genes'),
        ({"A": []}, r'net\["A"\] holds no gene'),
        ({"A": 3}, "pass a list"),
    ],
)
def test_a_dictionary_that_is_no_set_of_genes_is_refused(slide, net, message):
    with pytest.raises((TypeError, ValueError), match=message):
        sp.tl.regions(slide, by="domain", net=net)


def test_a_dictionary_a_table_and_a_gmt_file_are_the_same_pathways(slide, tmp_path):
    net = sets_of(slide)
    rows = [(name, gene) for name, genes in net.items() for gene in genes]
    file = tmp_path / "sets.gmt"
    file.write_text("".join(f"{name}\t\t" + "\t".join(genes) + "\n" for name, genes in net.items()))
    tables = [
        sp.tl.regions(slide, by="domain", net=each)
        for each in (net, pd.DataFrame(rows, columns=["source", "target"]), file)
    ]
    pd.testing.assert_frame_equal(tables[0], tables[1])
    pd.testing.assert_frame_equal(tables[0], tables[2])


def test_a_large_region_is_compared_through_some_of_its_spots(slide, monkeypatch):
    exact = sp.tl.regions(slide, by="slide")
    monkeypatch.setattr(_regions, "MAX_PAIRED_SPOTS", 60)
    some = sp.tl.regions(slide, by="slide")
    np.testing.assert_allclose(some["n_effective"], exact["n_effective"], rtol=0.1)


# Errors of references


def grid(side: int = 20) -> np.ndarray:
    return np.stack(np.meshgrid(np.arange(side), np.arange(side)), axis=-1).reshape(-1, 2).astype(float)


def fitted(errors: np.ndarray, slide: np.ndarray, xy: np.ndarray, group: np.ndarray | None = None) -> SharedErrors:
    rng = np.random.default_rng(1)
    predicted = np.ones(errors.shape, np.float32) + rng.normal(scale=1e-3, size=errors.shape).astype(np.float32)
    return SharedErrors.fit(predicted + errors.astype(np.float32), predicted, np.ones_like, xy, slide, group)


def test_errors_of_independent_spots_share_nothing():
    rng, xy, slide = np.random.default_rng(0), np.tile(grid(), (4, 1)), np.repeat(list("abcd"), 400)
    shared = fitted(rng.normal(size=(1600, 30)), slide, xy)
    assert shared.correlation.max() < 0.05


def test_what_a_whole_slide_is_off_by_is_shared_at_any_distance():
    rng, xy, slide = np.random.default_rng(0), np.tile(grid(), (8, 1)), np.repeat(list("abcdefgh"), 400)
    offsets = np.repeat(rng.normal(size=(8, 60)), 400, axis=0)
    shared = fitted(offsets + rng.normal(size=offsets.shape), slide, xy)
    np.testing.assert_allclose(shared.correlation.mean(axis=0), 0.5, atol=0.08)


def test_errors_of_neighbours_alone_are_shared_nearby_and_not_far_away():
    from scipy.ndimage import gaussian_filter

    rng, xy, slide = np.random.default_rng(0), np.tile(grid(), (4, 1)), np.repeat(list("abcd"), 400)
    maps = gaussian_filter(rng.normal(size=(4, 20, 20, 40)), (0, 1.5, 1.5, 0), mode="wrap").reshape(1600, 40)
    shared = fitted(maps / maps.std(), slide, xy).correlation.mean(axis=0)
    assert shared[0] > 0.7 and (np.diff(shared[:4]) < 0).all() and shared[-1] < 0.1


def test_sections_of_a_patient_held_out_together_have_the_freedom_of_one_group():
    rng, xy, slide = np.random.default_rng(0), np.tile(grid(), (4, 1)), np.repeat(list("abcd"), 400)
    errors = np.repeat(np.array([3.0, 3.0, 0.1, 0.1]), 400)[:, None] + rng.normal(size=(1600, 30))
    patients = np.repeat(["p", "q"], 800)
    assert fitted(errors, slide, xy).freedom.item() == 4
    assert fitted(errors, slide, xy, patients).freedom.item() == 2


def test_pairs_are_counted_once_in_each_direction_and_within_a_kind_of_tissue():
    xy, kind = grid(6), np.repeat([0, 1], 18)
    pairs, values = Pairs.of(xy, kind), np.random.default_rng(0).normal(size=(36, 2)).astype(np.float32)
    distance = np.linalg.norm(xy[:, None] - xy[None], axis=-1)
    classes = np.searchsorted(EDGES, distance, side="left")
    for place, found in enumerate(pairs.products(values)):
        chosen = (classes == place) & (kind[:, None] == kind[None]) & ~np.eye(36, dtype=bool)
        if not chosen.any():
            assert np.isnan(found).all()
            continue
        expected = np.einsum("ic,jc,ij->c", values, values, chosen) / chosen.sum()
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_what_errors_share_is_saved_with_a_model_and_absent_from_an_older_one(slide, originals, tmp_path):
    refs = [original.copy() for original in originals[1:3]]
    for number, ref in enumerate(refs):
        ref.obs["slide"] = f"ref {number}"
    preset = replace(PRESETS["default"], experts=("kernel",), epochs=0, place=False)
    model = sp.tl.fit(refs, genes="all", embedding=EMBEDDING, preset=preset)
    model.save(tmp_path / "model")
    again = sp.SpaHGC.load(tmp_path / "model")
    np.testing.assert_array_equal(again.trust.shared.correlation, model.trust.shared.correlation)
    sp.tl.predict(slide, model=again)
    assert len(sp.tl.regions(slide, by="domain", genes=["MORPH001"])) == 3
    arrays = {name: x for name, x in model.trust.to_arrays().items() if ".shared." not in name}
    older = type(model.trust).from_arrays(arrays)
    assert older.shared is None
    model.trust = older
    sp.tl.predict(slide, model=model)
    with pytest.raises(KeyError, match="an earlier version made it"):
        sp.tl.regions(slide, by="domain")


# Regions that somebody drew


def boxes(slide: AnnData) -> dict[str, shapely.Polygon]:
    """A box around the left half of the slide, and a small one within it."""
    low, high = slide.obsm["spatial"].min(axis=0), slide.obsm["spatial"].max(axis=0)
    middle = (low + high) / 2
    return {
        "left": shapely.box(low[0] - 1, low[1] - 1, middle[0], high[1] + 1),
        "corner": shapely.box(low[0] - 1, low[1] - 1, (low[0] + middle[0]) / 2, middle[1]),
    }


def test_annotations_of_qupath_give_what_a_column_of_the_same_spots_gives(slide, tmp_path):
    drawn = boxes(slide)
    features = [
        {
            "type": "Feature",
            "geometry": shapely.geometry.mapping(polygon),
            "properties": {"objectType": "annotation", "classification": {"name": name}},
        }
        for name, polygon in drawn.items()
    ]
    path = tmp_path / "annotations.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    x, y = slide.obsm["spatial"].T
    left, corner = (shapely.contains_xy(drawn[name], x, y) for name in ("left", "corner"))
    assert corner.any() and (left & ~corner).any() and not left.all()
    slide.obs["mine"] = pd.Categorical(np.where(corner, "corner", np.where(left, "left", None)), ["left", "corner"])
    expected = sp.tl.regions(slide, by="mine", genes=["MORPH001"])
    for by in (path, str(path), drawn):
        pd.testing.assert_frame_equal(sp.tl.regions(slide, by=by, genes=["MORPH001"]), expected)
    assert slide.uns["spahgc"]["regions"]["spahgc"]["by"] == "polygons"


def test_regions_of_another_slide_and_files_that_are_not_there_are_refused(slide, tmp_path):
    far = {"far": shapely.box(1e6, 1e6, 2e6, 2e6)}
    with pytest.raises(ValueError, match=r'no spot lies in "far": regions reach from \(1000000, 1000000\)'):
        sp.tl.regions(slide, by=far)
    with pytest.raises(FileNotFoundError, match="absent.geojson"):
        sp.tl.regions(slide, by=tmp_path / "absent.geojson")
