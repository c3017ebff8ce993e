"""How a target and its references differ in look, which references are chosen, and what a prediction says of it."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.ndimage import gaussian_filter
from scipy.stats import mannwhitneyu
from tests.conftest import EMBEDDING

import spahgc as sp
from spahgc import cli
from spahgc._keys import SPATIAL
from spahgc.pp._compare import limits
from spahgc.pp._compare.compare import ALL, compare_with_bank
from spahgc.pp._compare.embedding import Compared

mpl.use("Agg")

LINEAR = sp.Parameters(n_axes=8, n_components=4, line=True, epochs=0)


def poisoned(slide: AnnData) -> AnnData:
    """The slide with counts that nobody may read."""
    slide = slide.copy()
    slide.X = np.full(slide.shape, np.nan, dtype=np.float32)
    return slide


@pytest.fixture(scope="module")
def _pictured() -> list[AnnData]:
    slides = sp.datasets.simulated(4, n_patients=2, n_spots=40, n_genes=20, n_domains=3, stain_effect=0.0, seed=5)
    for slide in slides:
        slide.obsm["X_domains"] = slide.obsm["truth_domains"].astype(np.float32)
    return slides


@pytest.fixture
def pictured(_pictured: list[AnnData]) -> list[AnnData]:
    """Four slides of one stain with their images, which are both the hires and the full one."""
    return [slide.copy() for slide in _pictured]


def repainted(slide: AnnData, change) -> AnnData:
    """The slide with another image."""
    images = slide.uns[SPATIAL][slide.obs["slide"].iloc[0]]["images"]
    images["hires"] = np.clip(np.rint(change(images["hires"].astype(np.float64))), 0, 255).astype(np.uint8)
    images.pop("lowres", None)
    return slide


def table_of(target: AnnData, refs: list[AnnData]) -> pd.DataFrame:
    return sp.pp.compare(target, refs, embedding="X_domains")


# The table.


def test_every_reference_has_a_row_and_all_together_the_last(pictured: list[AnnData]):
    table = table_of(pictured[0], pictured[1:])
    assert list(table.index) == ["P1S2", "P2S1", "P2S2", ALL]
    assert list(table.columns) == [
        "stain_angle", "optical_density", "brightness", "sharpness", "resolution", "distance", "beyond", "further", "p_value",
        "large", "advice",
    ]  # fmt: skip
    assert table.drop(columns=["large", "advice"]).notna().all(axis=None)


def test_slides_of_one_stain_and_tissue_differ_little(pictured: list[AnnData]):
    table = table_of(pictured[0], pictured[1:])
    assert table.loc[ALL, "large"] == "" and table.loc[ALL, "advice"] == ""
    assert table["stain_angle"].max() < 5
    np.testing.assert_allclose(table["resolution"], 1)
    assert table.loc[ALL, "beyond"] < 0.2


def test_no_count_of_target_and_references_is_read(pictured: list[AnnData]):
    target, *refs = pictured
    pd.testing.assert_frame_equal(table_of(poisoned(target), [poisoned(ref) for ref in refs]), table_of(target, refs))


def test_the_slides_are_not_changed(pictured: list[AnnData]):
    before = [slide.copy() for slide in pictured]
    table_of(pictured[0], pictured[1:])
    for slide, old in zip(pictured, before, strict=True):
        assert set(slide.uns) == set(old.uns) and list(slide.obs) == list(old.obs)
        assert (slide.X != old.X).nnz == 0


def test_the_order_of_the_references_does_not_matter(pictured: list[AnnData]):
    target, *refs = pictured
    pd.testing.assert_frame_equal(table_of(target, refs[::-1]), table_of(target, refs))


def test_another_stain_is_seen_and_stain_normalisation_advised(pictured: list[AnnData]):
    target, *refs = pictured
    table = table_of(repainted(target, lambda image: image[..., [1, 0, 2]]), refs)  # red and green changed places
    assert table.loc[ALL, "stain_angle"] > limits.LARGE_STAIN_ANGLE
    assert "stain" in table.loc[ALL, "large"]
    assert 'stain_normalization="macenko"' in table.loc[ALL, "advice"]


def test_a_darker_slide_has_the_higher_optical_density_and_the_lower_brightness(pictured: list[AnnData]):
    target, *refs = pictured
    dark = table_of(repainted(target.copy(), lambda image: image * 0.5), refs).loc[ALL]
    pale = table_of(repainted(target.copy(), lambda image: 255 - (255 - image) * 0.7), refs).loc[ALL]
    assert dark["optical_density"] > limits.LARGE_DENSITY and dark["brightness"] < -limits.LARGE_BRIGHTNESS
    assert "stain" in dark["large"] and "brightness" in dark["large"]
    assert pale["optical_density"] < 0 < pale["brightness"]


def test_a_blurred_slide_is_told_by_its_sharpness(pictured: list[AnnData]):
    target, *refs = pictured
    table = table_of(repainted(target, lambda image: gaussian_filter(image, (3, 3, 0))), refs)
    assert (table["sharpness"] < 1 / limits.LARGE_SHARPNESS).all()
    assert "scan the blurred slide again" in table.loc[ALL, "advice"]


def test_sharpness_of_tiles_is_that_of_their_column(pictured: list[AnnData]):
    target, *refs = pictured
    for slide, value in ((target, 300.0), *((ref, 100.0) for ref in refs)):
        slide.obs["focus"] = value
    np.testing.assert_allclose(table_of(target, refs)["sharpness"], 3)


def test_another_resolution_of_the_patches_is_a_factor(pictured: list[AnnData]):
    target, *refs = pictured
    for slide, mpp in ((target, 4.0), *((ref, 0.5) for ref in refs)):
        slide.uns["spahgc"] = {"patch_image": {"X_domains": {"mpp": mpp}}}
    table = table_of(target, refs)
    np.testing.assert_allclose(table["resolution"], 8)
    assert "resolution" in table.loc[ALL, "large"] and "mpp=" in table.loc[ALL, "advice"]


def test_a_target_within_the_range_of_its_references_differs_from_all_by_nothing(pictured: list[AnnData]):
    target, dark, pale, _ = pictured
    refs = [repainted(dark, lambda image: image * 0.8), repainted(pale, lambda image: 255 - (255 - image) * 0.8)]
    table = table_of(target, refs)
    assert table["optical_density"].iloc[:2].min() < 0 < table["optical_density"].iloc[:2].max()
    assert table.loc[ALL, "optical_density"] == 0 and table.loc[ALL, "brightness"] == 0


def test_slides_without_an_image_are_compared_by_their_embedding_alone(cohort: list[AnnData]):
    table = sp.pp.compare(cohort[0], cohort[1:])
    assert table[["stain_angle", "optical_density", "brightness", "sharpness"]].isna().all(axis=None)
    assert table[["distance", "beyond", "further"]].notna().all(axis=None)
    assert table.loc[ALL, "large"] == ""


def test_an_image_that_is_gone_is_said_and_left_out(pictured: list[AnnData]):
    target, *refs = pictured
    library = target.uns[SPATIAL]["P1S1"]
    library["images"], library["metadata"] = {}, {"source_image_path": "/nowhere/slide.tif"}
    with pytest.warns(UserWarning, match="the colours of the target are not compared"):
        table = table_of(target, refs)
    assert table["stain_angle"].isna().all() and table["sharpness"].isna().all()


# The embedding.


def test_an_unknown_tissue_lies_beyond_the_references(cohort: list[AnnData]):
    target, *refs = cohort
    target.obsm[EMBEDDING] = target.obsm[EMBEDDING] + 4
    table = sp.pp.compare(target, refs)
    row = table.loc[ALL]
    assert row["beyond"] > 0.95 and row["further"] > 0.95 and row["p_value"] < 1e-6
    assert row["distance"] > 2
    assert row["large"] == "embedding" and "choose_references" in row["advice"]


def test_the_test_is_that_of_scipy_and_its_statistic_a_probability(cohort: list[AnnData]):
    target, *refs = cohort
    bank = sp.pp.reference_bank(refs, genes=list(target.var_names))
    from spahgc.pp._compare.compare import spots_of_bank

    space = Compared.of(spots_of_bank(bank), ((0, 24),))
    _, together = space.differences(target.obsm[EMBEDDING])
    distances = space.distances(space.placed(target.obsm[EMBEDDING]), space.known)
    expected = mannwhitneyu(distances, space.own, alternative="greater")
    assert together.p_value == expected.pvalue
    pairs = (distances[:, None] > space.own).mean() + (distances[:, None] == space.own).mean() / 2
    np.testing.assert_allclose(together.further, pairs)


def test_of_a_single_reference_nobody_knows_how_slides_differ(cohort: list[AnnData]):
    table = sp.pp.compare(cohort[0], cohort[1])
    assert len(table) == 2 and table["distance"].isna().all() and table["beyond"].notna().all()


def test_a_bank_tells_what_its_slides_tell(pictured: list[AnnData], tmp_path: Path):
    target, *refs = pictured
    of_slides = table_of(target, refs)
    bank = sp.pp.reference_bank(refs, genes=list(target.var_names), embedding="X_domains")
    of_bank = sp.pp.compare(target, bank)
    columns = ["stain_angle", "optical_density", "brightness", "resolution"]
    pd.testing.assert_frame_equal(of_bank[columns], of_slides[columns])
    np.testing.assert_allclose(of_bank["distance"], of_slides["distance"], rtol=1e-4)
    assert of_bank["sharpness"].isna().all()
    sp.pp.reference_bank(refs, genes=list(target.var_names), embedding="X_domains", path=tmp_path / "bank.zarr")
    stored = sp.pp.compare(target, tmp_path / "bank.zarr")
    np.testing.assert_allclose(stored["beyond"], of_bank["beyond"], atol=0.05)


def test_spots_off_the_tissue_have_no_part(cohort: list[AnnData]):
    target, *refs = cohort
    without = sp.pp.compare(target[5:].copy(), refs)
    target.obs["in_tissue"] = [0] * 5 + [1] * (target.n_obs - 5)
    target.obsm[EMBEDDING][:5] = 1000
    with pytest.warns(UserWarning, match="5 of 70 spots of the target lie off the tissue"):
        with_glass = sp.pp.compare(target, refs)
    pd.testing.assert_frame_equal(with_glass, without)


def test_embeddings_of_another_encoder_are_refused(cohort: list[AnnData]):
    target, *refs = cohort
    target.uns["spahgc"]["embeddings"][EMBEDDING]["revision"] = "2"
    with pytest.raises(ValueError, match="revision"):
        sp.pp.compare(target, refs)


def test_an_embedding_of_another_width_is_refused(cohort: list[AnnData]):
    target, *refs = cohort
    for slide in cohort:
        del slide.uns["spahgc"]
    target.obsm[EMBEDDING] = target.obsm[EMBEDDING][:, :20]
    with pytest.raises(ValueError, match="20 columns in the target and 24 in the references"):
        sp.pp.compare(target, refs, embedding=EMBEDDING)


def test_no_reference_is_refused(cohort: list[AnnData]):
    with pytest.raises(ValueError, match="no reference was given"):
        sp.pp.compare(cohort[0], [])


# The choice.


def test_the_nearest_slides_by_look_are_chosen(cohort: list[AnnData]):
    target, near, far, further = cohort
    far.obsm[EMBEDDING] += 2
    further.obsm[EMBEDDING] += 6
    refs, table = sp.pp.choose_references(target, [further, far, near], n=2)
    names = [slide.obs["slide"].iloc[0] for slide in (near, far, further)]
    assert list(table.index) == names and list(table["chosen"]) == [True, True, False]
    assert [ref.obs["slide"].iloc[0] for ref in refs] == names[:2]
    assert table["distance"].is_monotonic_increasing
    assert table["reason"].iloc[0].startswith("number 1 of 3 by look")


def test_the_choice_reads_no_count(cohort: list[AnnData]):
    target, *candidates = cohort
    _, expected = sp.pp.choose_references(target, candidates, n=1)
    refs, table = sp.pp.choose_references(poisoned(target), [poisoned(slide) for slide in candidates], n=1)
    pd.testing.assert_frame_equal(table, expected)
    assert len(refs) == 1


def test_all_candidates_are_taken_where_there_are_no_more(cohort: list[AnnData]):
    refs, table = sp.pp.choose_references(cohort[0], cohort[1:], n=9)
    assert len(refs) == 3 and table["chosen"].all()


@pytest.mark.parametrize("n", [0, -1, 1.5, True])
def test_what_is_no_number_of_references_is_refused(cohort: list[AnnData], n: object):
    with pytest.raises(ValueError, match="is no number of references. Pass a whole number of at least 1"):
        sp.pp.choose_references(cohort[0], cohort[1:], n=n)
    with pytest.raises(ValueError, match="n_references=.* is no number of references"):
        sp.tl.predict(cohort[0], cohort[1:], n_references=n)


def test_the_target_among_the_candidates_is_refused(cohort: list[AnnData]):
    with pytest.raises(ValueError, match="the target is also among the references"):
        sp.pp.choose_references(cohort[0], [slide.copy() for slide in cohort], n=2)


def test_a_bank_is_no_list_of_candidates(cohort: list[AnnData]):
    bank = sp.pp.reference_bank(cohort[1:], genes=list(cohort[0].var_names))
    with pytest.raises(TypeError, match="the candidates are a bank of references, whose slides stay together"):
        sp.pp.choose_references(cohort[0], bank)
    with pytest.raises(ValueError, match="n_references= chooses among slides"):
        sp.tl.predict(cohort[0], bank, n_references=2)


# The prediction.


def predict(target: AnnData, refs: object, **options: object) -> AnnData:
    return sp.tl.predict(target, refs, genes="all", preset=LINEAR, copy=True, **options)


def test_a_prediction_with_chosen_references_is_that_of_these_references(cohort: list[AnnData]):
    target, *candidates = cohort
    candidates[0].obsm[EMBEDDING] += 3
    chosen = predict(target, candidates, n_references=2)
    np.testing.assert_array_equal(chosen.layers["spahgc"], predict(target, candidates[1:]).layers["spahgc"])
    record = chosen.uns["spahgc"]["predictions"]["spahgc"]["chosen_references"]
    assert sorted(record["reference"][:2]) == sorted(slide.obs["slide"].iloc[0] for slide in candidates[1:])
    assert record["chosen"] == [True, True, False]
    assert record["reason"][0].startswith("number 1 of 3 by look")


@pytest.mark.parametrize("method", ["spahgc", "ridge"])
def test_large_drift_is_said_in_one_line_and_written_down(cohort: list[AnnData], method: str):
    target, *refs = cohort
    target.obsm[EMBEDDING] += 4
    with pytest.warns(
        UserWarning, match="the target does not look like its references: .* of its spots look stranger"
    ) as said:
        predicted = predict(poisoned(target), refs, method=method)
    message = next(str(one.message) for one in said if "does not look like" in str(one.message))
    assert "\n" not in message and "choose_references" in message
    drift = predicted.uns["spahgc"]["predictions"]["spahgc"]["drift"]
    assert drift["large"] == ["embedding"] and drift["beyond"] > 0.9


def test_a_target_like_its_references_is_predicted_without_a_word(cohort: list[AnnData]):
    target, *refs = cohort
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        predicted = predict(target, refs)
    assert not [one for one in said if "does not look like" in str(one.message)]
    assert predicted.uns["spahgc"]["predictions"]["spahgc"]["drift"]["large"] == []


def test_a_model_tells_drift_as_its_references_do(cohort: list[AnnData]):
    target, *refs = cohort
    model = sp.tl.fit(refs, genes="all", preset=LINEAR)
    by_model = sp.tl.predict(target, model=model, copy=True).uns["spahgc"]["predictions"]["spahgc"]["drift"]
    by_refs = predict(target, refs).uns["spahgc"]["predictions"]["spahgc"]["drift"]
    assert str(by_model) == str(by_refs)  # NaN among them


def test_drift_and_choice_survive_the_file(cohort: list[AnnData], tmp_path: Path):
    import anndata

    predicted = predict(cohort[0], cohort[1:], n_references=2)
    predicted.write_h5ad(tmp_path / "slide.h5ad")
    record = anndata.read_h5ad(tmp_path / "slide.h5ad").uns["spahgc"]["predictions"]["spahgc"]
    assert list(record["chosen_references"]["reference"]) == list(
        predicted.uns["spahgc"]["predictions"]["spahgc"]["chosen_references"]["reference"]
    )
    assert record["drift"]["beyond"] == predicted.uns["spahgc"]["predictions"]["spahgc"]["drift"]["beyond"]


def test_the_word_choose_is_answered_with_what_to_pass(cohort: list[AnnData]):
    with pytest.raises(ValueError, match="n_references= with how many to take"):
        sp.tl.predict(cohort[0], "choose")


def test_the_stain_of_a_prediction_is_that_of_the_pictures(pictured: list[AnnData]):
    target, *refs = pictured
    bank = sp.pp.reference_bank(refs, genes=list(target.var_names), embedding="X_domains")
    from spahgc.pp._bank.references import target_spots

    of_prediction = compare_with_bank(target_spots(target, "X_domains"), bank)
    columns = ["stain_angle", "optical_density", "brightness", "beyond"]
    pd.testing.assert_frame_equal(of_prediction[columns], sp.pp.compare(target, bank)[columns])


# The figure.


def test_the_figure_draws_the_numbers_of_the_table_and_marks_what_is_large(cohort: list[AnnData]):
    target, *refs = cohort
    target.obsm[EMBEDDING] += 4
    table = sp.pp.compare(target, refs)
    axes = sp.pl.drift(table, show=False)
    assert [ax.get_xlabel() for ax in axes] == ["resolution, factor", "distance of means", "spots beyond"]
    (points,) = axes[-1].collections
    np.testing.assert_allclose(points.get_offsets()[:, 0], table["beyond"])
    assert {tuple(colour) for colour in points.get_facecolors()} == {mpl.colors.to_rgba("#c44e52")}
    assert [label.get_text() for label in axes[0].get_yticklabels()] == list(table.index)


def test_a_figure_of_something_else_is_refused(cohort: list[AnnData], tmp_path: Path):
    with pytest.raises(TypeError, match="drift draws the table"):
        sp.pl.drift(cohort[0])
    with pytest.raises(KeyError, match="columns .* not found in the table"):
        sp.pl.drift(pd.DataFrame({"a": [1]}))
    sp.pl.drift(sp.pp.compare(cohort[0], cohort[1:]), save=tmp_path / "drift.png")
    assert (tmp_path / "drift.png").stat().st_size > 1000


# The shell.


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stopped:
        cli.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return int(stopped.value.code or 0), captured.out, captured.err


def test_the_command_prints_and_writes_the_table(
    cohort: list[AnnData], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    for number, slide in enumerate(cohort):
        slide.write_h5ad(tmp_path / f"{number}.h5ad")
    words = ["compare", "--target", tmp_path / "0.h5ad"]
    words += [word for number in (1, 2, 3) for word in ("--reference", tmp_path / f"{number}.h5ad")]
    code, out, _ = run(capsys, *words, "--output", tmp_path / "look.csv")
    assert code == 0 and "all references: nothing differs much" in out
    expected = sp.pp.compare(cohort[0], cohort[1:])
    written = pd.read_csv(tmp_path / "look.csv", index_col=0)
    np.testing.assert_allclose(written["beyond"], expected["beyond"])
    code, out, _ = run(capsys, *words, "--json")
    rows = json.loads(out)["references"]
    assert [row["reference"] for row in rows] == list(expected.index)
    assert rows[0]["stain_angle"] is None and abs(rows[0]["beyond"] - expected["beyond"].iloc[0]) < 1e-5


def test_the_command_needs_references(cohort: list[AnnData], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    cohort[0].write_h5ad(tmp_path / "0.h5ad")
    code, _, err = run(capsys, "compare", "--target", tmp_path / "0.h5ad")
    assert code == 2 and "no reference was given. Pass --reference" in err


def test_the_command_chooses_references(cohort: list[AnnData], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for number, slide in enumerate(cohort):
        slide.write_h5ad(tmp_path / f"{number}.h5ad")
    words = ["predict", "--target", tmp_path / "0.h5ad", "--method", "mean", "--gene", "all"]
    words += [word for number in (1, 2, 3) for word in ("--reference", tmp_path / f"{number}.h5ad")]
    code, _, err = run(capsys, *words, "--n-references", 2, "--output", tmp_path / "out.h5ad")
    assert code == 0, err
    import anndata

    record = anndata.read_h5ad(tmp_path / "out.h5ad").uns["spahgc"]["predictions"]["spahgc"]
    assert len(record["references"]) == 2 and len(record["chosen_references"]["reference"]) == 3
