"""Labels and values of references travel to a slide that has none."""

from __future__ import annotations

import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import spahgc as sp
from spahgc._linear.labels import label_scores, log_loss, mean_of_similar, raised

KEY = "domain"


@pytest.fixture(scope="module")
def _slides() -> list[AnnData]:
    slides = sp.datasets.simulated(n_slides=4, n_patients=2, n_spots=90, n_genes=20, n_domains=3, seed=3)
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(3, 24))
    for slide in slides:
        del slide.uns["spatial"]
        domains = np.asarray(slide.obsm["truth_domains"])
        slide.obsm["X_sim"] = (domains @ mixing + rng.normal(scale=0.3, size=(slide.n_obs, 24)) + 1).astype(np.float32)
        record = {"name": "sim", "revision": "1", "dim": 24, "input_px": 224, "mpp": "native", "context": "patch"}
        slide.uns["spahgc"] = {"embeddings": {"X_sim": record}}
        slide.obs["score"] = domains[:, 0] * 3 + 1
    return slides


@pytest.fixture
def slides(_slides: list[AnnData]) -> list[AnnData]:
    return [slide.copy() for slide in _slides]


def bare(slide: AnnData) -> AnnData:
    """A slide that was not labelled."""
    slide = slide.copy()
    slide.obs = slide.obs[["slide", "patient"]].copy()
    del slide.obsm["truth_domains"]
    return slide


def test_labels_that_follow_the_image_arrive(slides: list[AnnData]) -> None:
    target = bare(slides[0])
    sp.tl.transfer(target, slides[1:], keys=KEY)
    found, truth = target.obs["spahgc_domain"].astype(str), slides[0].obs[KEY].astype(str)
    known = (found != "unknown").to_numpy()
    assert known.mean() > 0.8
    assert (found[known].to_numpy() == truth[known].to_numpy()).mean() > 0.8
    probabilities = target.obsm["spahgc_domain"]
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    record = target.uns["spahgc"]["transfers"]["spahgc_domain"]
    assert record["labels"] == sorted(set(truth))
    best = np.array(record["labels"])[probabilities.argmax(axis=1)]
    assert (best[known] == found[known].to_numpy()).all()
    assert sum(record["weights"].values()) == pytest.approx(1)
    held_out = record["held_out"]
    assert held_out["balanced_accuracy"] > held_out["majority_balanced_accuracy"] + 0.3
    assert held_out["log_loss"] < held_out["majority_log_loss"] - 0.3


def test_the_held_out_scores_are_what_a_new_slide_gets(slides: list[AnnData]) -> None:
    differences = []
    for place, slide in enumerate(slides):
        target = bare(slide)
        sp.tl.transfer(target, slides[:place] + slides[place + 1 :], keys=KEY, min_support=0)
        record = target.uns["spahgc"]["transfers"]["spahgc_domain"]
        codes = slide.obs[KEY].astype(str).map({label: code for code, label in enumerate(record["labels"])}).to_numpy()
        own = label_scores(np.asarray(target.obsm["spahgc_domain"], float), codes)
        differences.append(own["accuracy"] - record["held_out"]["accuracy"])
    assert abs(np.mean(differences)) < 0.1


def test_the_targets_own_labels_and_counts_have_no_part(slides: list[AnnData]) -> None:
    target, changed = bare(slides[0]), slides[0].copy()
    changed.obs[KEY] = "another"
    changed.obs["score"] = np.nan
    changed.X = changed.X * 0
    for each in (target, changed):
        sp.tl.transfer(each, slides[1:], keys=[KEY, "score"])
    np.testing.assert_array_equal(target.obsm["spahgc_domain"], changed.obsm["spahgc_domain"])
    np.testing.assert_array_equal(target.obs["spahgc_score"], changed.obs["spahgc_score"])


def test_values_and_shares_arrive(slides: list[AnnData]) -> None:
    target = bare(slides[0])
    sp.tl.transfer(target, slides[1:], keys=["score", "truth_domains"])
    assert np.corrcoef(target.obs["spahgc_score"], slides[0].obs["score"])[0, 1] > 0.8
    shares, truth = target.obsm["spahgc_truth_domains"], slides[0].obsm["truth_domains"]
    assert shares.min() >= 0
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-5)
    assert np.corrcoef(shares.ravel(), truth.ravel())[0, 1] > 0.8
    records = target.uns["spahgc"]["transfers"]
    assert records["spahgc_truth_domains"]["kind"] == "shares"
    assert records["spahgc_score"]["kind"] == "values"
    assert records["spahgc_score"]["held_out"]["pearson"] > 0.7
    assert "spahgc_score" not in target.obsm


def test_tissue_that_no_reference_shows_is_unknown(slides: list[AnnData]) -> None:
    target = bare(slides[0])
    strange = np.arange(target.n_obs) < 15
    target.obsm["X_sim"][strange] += np.random.default_rng(1).normal(0, 30, (15, 24)).astype(np.float32)
    sp.tl.transfer(target, slides[1:], keys=KEY)
    unknown = (target.obs["spahgc_domain"] == "unknown").to_numpy()
    assert unknown[strange].all()
    assert unknown[~strange].mean() < 0.3
    support = target.obs["spahgc_domain_support"].to_numpy()
    np.testing.assert_array_equal(unknown, support < 0.05)
    assert target.uns["spahgc"]["transfers"]["spahgc_domain"]["n_unknown"] == unknown.sum()
    sp.tl.transfer(target, slides[1:], keys=KEY, min_support=0)
    assert not (target.obs["spahgc_domain"] == "unknown").any()


def test_spots_without_a_label_and_off_the_tissue_are_left_out(slides: list[AnnData]) -> None:
    refs = [slide.copy() for slide in slides[1:]]
    for slide in refs:
        labels = slide.obs[KEY].astype(object)
        labels.iloc[:10] = None
        slide.obs[KEY] = labels
    target = bare(slides[0])
    sp.tl.transfer(target, refs, keys=KEY)
    assert target.uns["spahgc"]["transfers"]["spahgc_domain"]["n_reference_spots"] == 3 * 80
    target = bare(slides[0])
    target.obs["in_tissue"] = [0] * 5 + [1] * (target.n_obs - 5)
    with pytest.warns(UserWarning, match="5 of 90 spots of the target lie off the tissue"):
        sp.tl.transfer(target, refs, keys=KEY)
    assert target.obs["spahgc_domain"].isna().sum() == 5
    assert np.isnan(target.obsm["spahgc_domain"][:5]).all()
    assert np.isfinite(target.obsm["spahgc_domain"][5:]).all()


def test_one_reference_and_booleans_will_do(slides: list[AnnData]) -> None:
    slides[1].obs["is_tumour"] = slides[1].obs[KEY] == "tumour"
    target = bare(slides[0])
    sp.tl.transfer(target, slides[1], keys="is_tumour", min_support=0)
    found = target.obs["spahgc_is_tumour"].astype(str).to_numpy() == "True"
    assert (found == (slides[0].obs[KEY] == "tumour").to_numpy()).mean() > 0.7


def test_a_copy_leaves_the_target_alone_and_files_keep_all(slides: list[AnnData], tmp_path: Path) -> None:
    target = bare(slides[0])
    target.obs["keep"] = 1
    new = sp.tl.transfer(target, slides[1:], keys=KEY, key_added="mine", copy=True)
    assert "mine_domain" in new.obs
    assert "mine_domain" not in target.obs
    assert "transfers" not in target.uns["spahgc"]
    new.write_h5ad(tmp_path / "new.h5ad")
    new.write_zarr(tmp_path / "new.zarr")
    for read in (ad.read_h5ad(tmp_path / "new.h5ad"), ad.read_zarr(tmp_path / "new.zarr")):
        np.testing.assert_array_equal(read.obsm["mine_domain"], new.obsm["mine_domain"])
        assert list(read.uns["spahgc"]["transfers"]["mine_domain"]["labels"]) == sorted(
            set(slides[0].obs[KEY].astype(str))
        )


def test_the_order_of_references_does_not_matter(slides: list[AnnData]) -> None:
    one = sp.tl.transfer(bare(slides[0]), slides[1:], keys=KEY, copy=True)
    other = sp.tl.transfer(bare(slides[0]), slides[:0:-1], keys=KEY, copy=True)
    np.testing.assert_array_equal(one.obsm["spahgc_domain"], other.obsm["spahgc_domain"])


def test_names_that_differ_between_patients_are_told(slides: list[AnnData]) -> None:
    refs = [slide.copy() for slide in slides[1:]]
    for slide in refs:
        if slide.obs["patient"].iloc[0] == "P2":
            slide.obs[KEY] = slide.obs[KEY].astype(str).replace({"tumour": "carcinoma"})
    with pytest.warns(
        UserWarning, match='differ between patients .*"carcinoma", "tumour" do not occur in all of "P1", "P2"'
    ):
        sp.tl.transfer(bare(slides[0]), refs, keys=KEY)


def test_numbered_clusters_of_several_patients_are_told(slides: list[AnnData]) -> None:
    refs = [slide.copy() for slide in slides[1:]]
    for slide in refs:
        slide.obs[KEY] = slide.obs[KEY].cat.codes.astype(str)
    with pytest.warns(UserWarning, match="are plain numbers, and the references are of several patients"):
        sp.tl.transfer(bare(slides[0]), refs, keys=KEY)
    same = [slide for slide in refs if slide.obs["patient"].iloc[0] == "P2"]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        sp.tl.transfer(bare(slides[0]), same, keys=KEY)


def test_labels_that_follow_nothing_are_told(slides: list[AnnData]) -> None:
    rng = np.random.default_rng(0)
    for slide in slides:
        slide.obs["chance"] = rng.choice(["a", "b", "c"], slide.n_obs)
    with pytest.warns(UserWarning, match="is told no better than by the most frequent label"):
        sp.tl.transfer(bare(slides[0]), slides[1:], keys="chance")


def test_bad_transfers_are_named(slides: list[AnnData]) -> None:
    target, refs = bare(slides[0]), slides[1:]
    with pytest.raises(KeyError, match='"cell_type" not found in obs or obsm of reference "P1S2"'):
        sp.tl.transfer(target, refs, keys="cell_type")
    with pytest.raises(ValueError, match="keys is empty"):
        sp.tl.transfer(target, refs, keys=[])
    with pytest.raises(ValueError, match='keys names "domain" more than once'):
        sp.tl.transfer(target, refs, keys=[KEY, KEY])
    with pytest.raises(ValueError, match="min_support=2; support lies between 0 and 1"):
        sp.tl.transfer(target, refs, keys=KEY, min_support=2)
    with pytest.raises(ValueError, match="the target is also among the references"):
        sp.tl.transfer(slides[0].copy(), slides, keys=KEY)
    refs[0].obs["one"] = refs[1].obs["one"] = refs[2].obs["one"] = "same"
    with pytest.raises(ValueError, match="has 1 different labels .*2 to 200 can be told apart"):
        sp.tl.transfer(target, refs, keys="one")
    refs[0].obs["score"] = np.inf
    with pytest.raises(ValueError, match='"score" of the references holds infinite values'):
        sp.tl.transfer(target, refs, keys="score")
    refs[0].obsm["truth_domains"] = refs[0].obsm["truth_domains"][:, :2]
    with pytest.raises(ValueError, match=r"has \[2, 3\] columns in the references"):
        sp.tl.transfer(target, refs, keys="truth_domains")
    del target.obsm["X_sim"]
    with pytest.raises(KeyError, match="X_sim"):
        sp.tl.transfer(target, refs, keys=KEY)


def test_the_scores_are_those_of_scikit_learn() -> None:
    from sklearn import metrics

    rng = np.random.default_rng(0)
    codes, said = rng.integers(0, 4, 200), rng.dirichlet(np.ones(4), 200)
    scores = label_scores(said, codes)
    assert scores["log_loss"] == pytest.approx(metrics.log_loss(codes, said))
    assert scores["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(codes, said.argmax(axis=1)))
    assert scores["accuracy"] == pytest.approx(metrics.accuracy_score(codes, said.argmax(axis=1)))
    assert log_loss(np.eye(4)[codes], codes) == pytest.approx(0)
    np.testing.assert_allclose(raised(said, 1.0), said)


def test_similar_spots_are_those_of_highest_cosine() -> None:
    rng = np.random.default_rng(0)
    x, y, seen = rng.normal(size=(100, 5)), rng.normal(size=(100, 2)), rng.normal(size=(7, 5))
    cosine = (seen / np.linalg.norm(seen, axis=1, keepdims=True)) @ (x / np.linalg.norm(x, axis=1, keepdims=True)).T
    expected = np.stack([y[np.argsort(-row)[:30]].mean(axis=0) for row in cosine])
    np.testing.assert_allclose(mean_of_similar(seen, x, y), expected)


def test_clusters_of_measured_sections_are_told_better_than_by_the_most_frequent(her2st: Path) -> None:
    slides = []
    for name in ("C2", "C3", "C4"):
        slide = sp.io.st(
            her2st / f"{name}.tsv.gz", her2st / f"{name}_selection.tsv", her2st / f"{name}.jpg", library_id=name
        )
        slide = slide[::2].copy()
        table = pd.read_csv(her2st / f"{name}-cluster-annotation.tsv.gz", sep="\t")
        labels = {
            f"{x:g}x{y:g}": str(label) for x, y, label in zip(table["x"], table["y"], table["label"], strict=True)
        }
        slide.obs["cluster"] = pd.Series(
            [labels.get(spot) for spot in slide.obs_names], index=slide.obs_names, dtype=object
        )
        sp.pp.embed(slide, encoder="efficientnet_lite0", context=False)
        slides.append(slide)
    target = slides[0].copy()
    del target.obs["cluster"]
    sp.tl.transfer(target, slides[1:], keys="cluster", min_support=0)
    record = target.uns["spahgc"]["transfers"]["spahgc_cluster"]
    truth = slides[0].obs["cluster"]
    codes = truth.dropna().map({label: code for code, label in enumerate(record["labels"])}).to_numpy(np.int64)
    own = label_scores(np.asarray(target.obsm["spahgc_cluster"], float)[truth.notna()], codes)
    majority = np.bincount(codes).max() / len(codes)
    assert own["accuracy"] > majority + 0.1
    assert own["balanced_accuracy"] > 1 / len(record["labels"]) + 0.1


def lying_on_each_other() -> list[AnnData]:
    """Three sections of one block, with its image, whose embedding shows nothing: place alone tells their labels."""
    base = sp.datasets.simulated(1, n_patients=1, n_spots=150, n_genes=20, n_domains=3, seed=5)[0]
    (library,) = base.uns["spatial"]
    sections = []
    for number in range(3):
        rng = np.random.default_rng(number)
        slide = base.copy()
        slide.uns["spatial"] = {f"S{number}": base.uns["spatial"][library]}
        slide.obs["slide"] = f"S{number}"
        slide.obsm = {"spatial": base.obsm["spatial"], "X_blind": rng.normal(size=(150, 12)).astype(np.float32)}
        slide.obs["score"] = np.asarray(base.obsm["truth_domains"])[:, 0]
        sections.append(slide)
    return sections


def test_labels_and_values_arrive_by_place_where_sections_lie_on_each_other() -> None:
    target, *refs = lying_on_each_other()
    truth, score = target.obs["domain"].astype(str).to_numpy(), target.obs["score"].to_numpy()
    blank = target.copy()
    blank.obs = blank.obs[["slide", "patient"]].copy()
    sp.tl.transfer(blank, refs, keys=["domain", "score"], embedding="X_blind", min_support=0)
    record = blank.uns["spahgc"]["transfers"]["spahgc_domain"]
    assert sum(record["weights"][name] for name in ("kernel_plus_place", "kernel_times_place")) > 0.5
    assert all(record["place"]["used"])
    assert (blank.obs["spahgc_domain"].astype(str) == truth).mean() > 0.75
    assert record["held_out"]["accuracy"] > 0.75
    assert np.corrcoef(blank.obs["spahgc_score"], score)[0, 1] > 0.8

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sp.tl.transfer(blank, refs, keys="domain", embedding="X_blind", min_support=0, place=False)
    assert (blank.obs["spahgc_domain"].astype(str) == truth).mean() < 0.6  # the embedding tells nothing
    assert "place" not in blank.uns["spahgc"]["transfers"]["spahgc_domain"]


def test_place_is_not_used_where_nothing_can_prove_it() -> None:
    target, ref, _ = lying_on_each_other()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sp.tl.transfer(target, ref, keys="domain", embedding="X_blind", key_added="one")
    record = target.uns["spahgc"]["transfers"]["one_domain"]
    assert set(record["weights"]) == {"line", "kernel", "edges"}
    assert "place" not in record
