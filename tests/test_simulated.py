"""The simulated cohort: deterministic, in the promised layout, and as true as it says."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import scanpy as sc
from scipy.sparse import issparse
from scipy.stats import f as f_distribution

from spahgc.datasets import simulated

N_SPOTS = 80
N_GENES = 60
DEPTH = 4000.0
DISPERSION = 0.1
PATCH_PX = 112
SPOT_PX = 68


@pytest.fixture(scope="module")
def cohort() -> list[ad.AnnData]:
    return simulated(4, n_spots=N_SPOTS, n_genes=N_GENES, depth=DEPTH, dispersion=DISPERSION, seed=1)


def small(n_slides: int = 1, **settings) -> list[ad.AnnData]:
    settings = {"n_patients": 1, "n_spots": 20, "n_genes": 10, **settings}
    return simulated(n_slides, **settings)


def name(slide: ad.AnnData) -> str:
    return str(slide.obs["slide"].iloc[0])


def picture(slide: ad.AnnData) -> np.ndarray:
    return slide.uns["spatial"][name(slide)]["images"]["hires"]


def patch(slide: ad.AnnData, spot: int, side: int = PATCH_PX) -> np.ndarray:
    x, y = np.rint(slide.obsm["spatial"][spot]).astype(int)
    return picture(slide)[y - side // 2 : y + side // 2, x - side // 2 : x + side // 2].astype(float)


def purest(slide: ad.AnnData, domain: str, count: int = 3) -> np.ndarray:
    column = list(slide.uns["truth"]["domains"]).index(domain)
    return np.argsort(slide.obsm["truth_domains"][:, column])[-count:]


def log_cp10k(slide: ad.AnnData) -> np.ndarray:
    counts = slide.X.toarray()
    return np.log1p(1e4 * counts / counts.sum(1, keepdims=True))


def columns(slide: ad.AnnData, kind: str) -> np.ndarray:
    return np.flatnonzero(slide.var["truth_kind"] == kind)


def explained(values: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """R2, by gene, of a linear regression on the domain shares (which sum to one, so hold the intercept)."""
    fitted = shares @ np.linalg.lstsq(shares, values, rcond=None)[0]
    return 1 - ((values - fitted) ** 2).sum(0) / ((values - values.mean(0)) ** 2).sum(0)


def assert_same(one: ad.AnnData, other: ad.AnnData) -> None:
    assert (one.X != other.X).nnz == 0
    assert one.obs.equals(other.obs)
    assert one.var.equals(other.var)
    for key in ("spatial", "truth_domains"):
        np.testing.assert_array_equal(one.obsm[key], other.obsm[key])
    np.testing.assert_array_equal(one.layers["truth"], other.layers["truth"])
    np.testing.assert_array_equal(picture(one), picture(other))


def test_same_seed_gives_the_same_slides():
    for one, other in zip(small(2, seed=3), small(2, seed=3), strict=True):
        assert_same(one, other)


def test_another_seed_gives_other_slides():
    (one,), (other,) = small(seed=3), small(seed=4)
    assert (one.X != other.X).nnz > 0
    assert picture(one).shape != picture(other).shape or (picture(one) != picture(other)).any()


def test_a_longer_cohort_keeps_its_first_slides():
    for one, other in zip(small(2, n_patients=2), small(4, n_patients=2)[:2], strict=True):
        assert_same(one, other)


def test_more_patients_leave_the_first_patient_as_it_was():
    assert_same(small(1)[0], small(2, n_patients=2)[0])


def test_the_image_does_not_depend_on_the_genes():
    np.testing.assert_array_equal(picture(small(n_genes=10)[0]), picture(small(n_genes=30)[0]))


def test_slides_of_one_patient_differ_in_their_field(cohort):
    first, second = cohort[0], cohort[2]
    assert not np.allclose(first.obsm["truth_domains"], second.obsm["truth_domains"], atol=0.1)


def test_slides_go_to_the_patients_in_turn(cohort):
    assert [name(slide) for slide in cohort] == ["P1S1", "P2S1", "P1S2", "P2S2"]
    assert [slide.obs["patient"].iloc[0] for slide in cohort] == ["P1", "P2", "P1", "P2"]


def test_each_slide_has_the_promised_layout(cohort):
    for slide in cohort:
        assert slide.shape == (N_SPOTS, N_GENES)
        assert issparse(slide.X) and slide.X.format == "csr" and slide.X.dtype == np.float32
        assert slide.obsm["spatial"].dtype == np.float64 and slide.obsm["spatial"].shape == (N_SPOTS, 2)
        assert slide.obsm["truth_domains"].dtype == np.float32 and slide.obsm["truth_domains"].shape == (N_SPOTS, 5)
        assert slide.layers["truth"].dtype == np.float32
        assert (slide.obs["in_tissue"] == 1).all()
        assert {str(slide.obs[column].dtype) for column in ("slide", "patient", "domain")} == {"category"}
        assert str(slide.var["truth_kind"].dtype) == "category"


def test_spot_names_are_unique_over_the_cohort(cohort):
    names = np.concatenate([slide.obs_names for slide in cohort])
    assert len(set(names)) == len(names)
    row, col = cohort[0].obs[["array_row", "array_col"]].iloc[0]
    assert cohort[0].obs_names[0] == f"P1S1_{row:03d}x{col:03d}"


def test_genes_are_half_morphology_a_fifth_hidden_and_the_rest_flat(cohort):
    assert cohort[0].var["truth_kind"].value_counts().to_dict() == {"morphology": 30, "hidden": 12, "flat": 18}
    assert {"MORPH001", "HIDDEN001", "FLAT001"} <= set(cohort[0].var_names)


def test_spots_lie_on_a_visium_grid(cohort):
    for slide in cohort:
        row, col = slide.obs["array_row"].to_numpy(), slide.obs["array_col"].to_numpy()
        assert ((row + col) % 2 == 0).all() and row.min() >= 0 and col.min() >= 0
        # Pitch 100 um at 0.8 um per pixel: 125 px between neighbours, half of it per column step.
        grid = np.column_stack([col * 62.5, row * 125 * np.sqrt(3) / 2])
        offset = slide.obsm["spatial"] - grid
        np.testing.assert_allclose(offset, np.broadcast_to(offset[0], offset.shape), atol=0.01)


def test_a_patch_of_224_px_around_every_spot_is_inside_the_image(cohort):
    for slide in cohort:
        height, width = picture(slide).shape[:2]
        assert slide.obsm["spatial"].min() >= 112
        assert (slide.obsm["spatial"] <= np.array([width, height]) - 112).all()


def test_domain_shares_sum_to_one_and_name_the_largest(cohort):
    for slide in cohort:
        shares = slide.obsm["truth_domains"]
        np.testing.assert_allclose(shares.sum(1), 1, atol=1e-5)
        assert (slide.uns["truth"]["domains"][shares.argmax(1)] == slide.obs["domain"].to_numpy()).all()
        assert set(slide.obs["domain"]) == set(slide.uns["truth"]["domains"])


@pytest.mark.parametrize("n_domains", [2, 3, 4])
def test_fewer_domains_take_the_first_names(n_domains):
    (slide,) = small(n_domains=n_domains)
    assert list(slide.uns["truth"]["domains"]) == ["tumour", "stroma", "fat", "lymphocytes"][:n_domains]
    assert slide.obsm["truth_domains"].shape == (20, n_domains)


def test_counts_are_whole_numbers(cohort):
    for slide in cohort:
        assert (slide.X.data == np.rint(slide.X.data)).all() and slide.X.data.min() > 0


def test_the_mean_total_is_the_depth(cohort):
    totals = np.concatenate([np.asarray(slide.X.sum(1)).ravel() for slide in cohort])
    # 320 spots of log-normal depth with sd 0.3: the mean has a standard error of 2 %.
    assert totals.mean() == pytest.approx(DEPTH, rel=0.07)
    assert totals.std() > 0.2 * DEPTH


@pytest.mark.parametrize("dispersion", [0.0, 0.1, 0.5])
def test_counts_have_the_dispersion_asked_for(dispersion):
    (slide,) = small(n_spots=80, n_genes=60, dispersion=dispersion, depth=20_000.0)
    mean = np.expm1(slide.layers["truth"]) / 1e4 * slide.obs["truth_depth"].to_numpy()[:, None]
    excess = (slide.X.toarray() - mean) ** 2 - mean
    assert np.mean(excess / mean**2) == pytest.approx(dispersion, rel=0.12, abs=0.005)


def test_truth_is_the_expected_composition(cohort):
    for slide in cohort:
        np.testing.assert_allclose(np.expm1(slide.layers["truth"]).sum(1), 1e4, rtol=1e-4)


def test_truth_follows_from_the_stored_loadings():
    (slide,) = small(n_spots=40, n_genes=20)
    truth, genes = slide.uns["truth"], columns(slide, "morphology")
    log_mean = truth["baseline"] + truth["batch"] + slide.obsm["truth_domains"] @ truth["loadings"].T
    ours, stored = log_mean[:, genes], np.log(np.expm1(slide.layers["truth"][:, genes]))
    # Equal up to the spot's softmax constant.
    difference = stored - ours
    np.testing.assert_allclose(difference, np.broadcast_to(difference[:, :1], difference.shape), atol=1e-3)


def test_counts_of_morphology_genes_correlate_with_the_truth(cohort):
    for slide in cohort:
        counts, truth = log_cp10k(slide), slide.layers["truth"]
        pcc = [np.corrcoef(counts[:, gene], truth[:, gene])[0, 1] for gene in columns(slide, "morphology")]
        assert np.median(pcc) > 0.7


def test_morphology_genes_are_explained_by_the_domains(cohort):
    for slide in cohort:
        genes = columns(slide, "morphology")
        assert explained(slide.layers["truth"][:, genes], slide.obsm["truth_domains"]).min() > 0.8


def test_hidden_genes_vary_but_are_not_explained_by_the_domains(cohort):
    for slide in cohort:
        truth = slide.layers["truth"][:, columns(slide, "hidden")]
        assert truth.std(0).min() > 0.3
        assert np.median(explained(truth, slide.obsm["truth_domains"])) < 0.1


def test_hidden_genes_follow_the_hidden_field(cohort):
    for slide in cohort:
        truth = slide.layers["truth"][:, columns(slide, "hidden")]
        pcc = [np.corrcoef(gene, slide.obs["truth_hidden"])[0, 1] for gene in truth.T]
        assert np.median(np.abs(pcc)) > 0.8


def test_flat_genes_are_flat_within_a_slide(cohort):
    for slide in cohort:
        assert slide.layers["truth"][:, columns(slide, "flat")].std(0).max() < 1e-5


def test_counts_of_flat_genes_do_not_follow_the_domains(cohort):
    free, spots = 4, N_SPOTS
    for slide in cohort:
        r2 = explained(log_cp10k(slide)[:, columns(slide, "flat")], slide.obsm["truth_domains"])
        p_values = f_distribution.sf(r2 / free / ((1 - r2) / (spots - free - 1)), free, spots - free - 1)
        assert p_values.min() > 0.05 / (len(cohort) * len(r2))


def test_batch_is_shared_within_and_differs_between_patients(cohort):
    flat = columns(cohort[0], "flat")
    first, other_patient, same_patient, _ = (slide.layers["truth"][0, flat] for slide in cohort)
    np.testing.assert_allclose(first, same_patient, atol=1e-5)
    assert (first - other_patient).std() > 0.2


def test_without_batch_effect_flat_genes_agree_between_patients():
    one, other = small(2, n_patients=2, batch_effect=0.0)
    flat = columns(one, "flat")
    np.testing.assert_allclose(one.layers["truth"][0, flat], other.layers["truth"][0, flat], atol=1e-5)


def test_background_is_bright_and_tissue_is_pink_to_purple(cohort):
    for slide in cohort:
        image = picture(slide).astype(float)
        corner = image[:20, :20].mean((0, 1))
        stroma = np.mean([patch(slide, spot).mean((0, 1)) for spot in purest(slide, "stroma")], axis=0)
        assert corner.min() > 215
        # Green is absorbed most by both dyes; collagen is pink, so red stays brightest.
        assert stroma[1] < stroma[2] < stroma[0] < corner[0]


def test_domains_look_different(cohort):
    for slide in cohort:
        # Colour of each pure domain, from the regression of all spots' colours on their shares.
        colours = np.array([patch(slide, spot, SPOT_PX).mean((0, 1)) for spot in range(N_SPOTS)])
        tumour, stroma, fat, lymphocytes, _ = np.linalg.lstsq(slide.obsm["truth_domains"], colours, rcond=None)[0]
        assert fat.mean() > stroma.mean() + 20
        assert stroma.mean() > tumour.mean() + 5
        # Red over blue: eosin against haematoxylin. Between lymphocytes there is hardly any pink cytoplasm.
        assert stroma[0] - stroma[2] > tumour[0] - tumour[2] + 8
        assert tumour[0] - tumour[2] > lymphocytes[0] - lymphocytes[2] + 8


def test_the_image_shows_the_field_under_the_spots(cohort):
    # Fat is the emptiest tissue, so the bright share of a spot follows its share of fat (lumens are bright as well).
    bright = [(patch(slide, spot, SPOT_PX).min(-1) > 200).mean() for slide in cohort for spot in range(N_SPOTS)]
    fat = np.concatenate([slide.obsm["truth_domains"][:, 2] for slide in cohort])
    assert np.corrcoef(bright, fat)[0, 1] > 0.75


def test_the_image_bears_no_trace_of_the_hidden_field(cohort):
    # Brightness of the patch and its contrast, given the domains; 320 spots, so |r| of 0.2 is 3.5 standard errors.
    left, hidden = [], []
    for slide in cohort:
        grey = np.array([[patch(slide, spot).mean(), patch(slide, spot).std()] for spot in range(N_SPOTS)])
        shares = slide.obsm["truth_domains"]
        rest = grey - shares @ np.linalg.lstsq(shares, grey, rcond=None)[0]
        left.append(rest / rest.std(0))
        hidden.append(slide.obs["truth_hidden"].to_numpy())
    for look in np.concatenate(left).T:
        assert abs(np.corrcoef(look, np.concatenate(hidden))[0, 1]) < 0.2


def test_stain_differs_between_patients_more_than_within():
    slides = small(6, n_patients=3, n_spots=40, stain_effect=0.3)
    colour = np.array([[patch(s, spot).mean((0, 1)) for spot in purest(s, "stroma", 5)] for s in slides]).mean(1)
    patients = np.array([s.obs["patient"].iloc[0] for s in slides])
    means = np.array([colour[patients == patient].mean(0) for patient in np.unique(patients)])
    within = np.sqrt(np.mean([colour[patients == patient].var(0) for patient in np.unique(patients)]))
    assert means.std(0).mean() > 1.5 * within


def test_without_stain_effect_all_patients_are_stained_alike():
    one, other = small(2, n_patients=2, stain_effect=0.0)
    for part in ("haematoxylin", "eosin", "white"):
        np.testing.assert_array_equal(one.uns["truth"]["stain"][part], other.uns["truth"]["stain"][part])


@pytest.mark.parametrize("form", ["h5ad", "zarr"])
def test_a_slide_survives_writing_and_reading(tmp_path, form):
    (slide,) = small()
    path = tmp_path / f"slide.{form}"
    getattr(slide, f"write_{form}")(path)
    back = getattr(ad, f"read_{form}")(path)
    assert (slide.X != back.X).nnz == 0
    np.testing.assert_array_equal(picture(slide), picture(back))
    np.testing.assert_array_equal(slide.obsm["truth_domains"], back.obsm["truth_domains"])
    assert list(back.uns["truth"]["domains"]) == list(slide.uns["truth"]["domains"])
    np.testing.assert_array_equal(slide.uns["truth"]["loadings"], back.uns["truth"]["loadings"])
    assert back.uns["truth"]["seed"] == 0
    assert list(back.obs["domain"]) == list(slide.obs["domain"])


def test_images_and_scale_factors_agree(cohort):
    slide = cohort[0]
    record = slide.uns["spatial"][name(slide)]
    hires, lowres, factors = record["images"]["hires"], record["images"]["lowres"], record["scalefactors"]
    assert hires.dtype == lowres.dtype == np.uint8
    assert factors["tissue_hires_scalef"] == 1.0
    np.testing.assert_allclose(np.array(lowres.shape[:2]) / hires.shape[:2], factors["tissue_lowres_scalef"])
    assert factors["spot_diameter_fullres"] * factors["microns_per_pixel"] == pytest.approx(55)


def test_scanpy_plots_a_slide():
    import matplotlib

    matplotlib.use("Agg")
    (slide,) = small()
    for key in ("hires", "lowres"):
        axes = sc.pl.spatial(slide, color="domain", img_key=key, show=False)
        assert len(axes[0].images) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_slides": 0}, "n_slides is 0; pass at least 1"),
        ({"n_slides": 1, "n_patients": 2}, "n_patients of at most 1"),
        ({"n_spots": 5}, "n_spots is 5; pass at least 20"),
        ({"n_spots": 30.5}, "n_spots is 30.5; pass a whole number"),
        ({"n_genes": 3}, "n_genes is 3; pass at least 10"),
        ({"n_domains": 1}, "n_domains is 1; pass 2 to 5"),
        ({"n_domains": 6}, "n_domains is 6; pass 2 to 5"),
        ({"depth": 0.0}, "depth is 0.0; pass a positive number"),
        ({"dispersion": -1.0}, "dispersion is -1.0; pass a number of at least 0"),
        ({"batch_effect": float("nan")}, "batch_effect is nan"),
        ({"stain_effect": -0.1}, "stain_effect is -0.1"),
        ({"seed": -1}, "seed is -1; pass at least 0"),
    ],
)
def test_impossible_arguments_are_refused_with_a_way_out(settings, message):
    with pytest.raises(ValueError, match=message):
        simulated(**settings)
