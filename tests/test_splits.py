"""What is held out together: patients where they are named, slides where they are not, or splits laid down in files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import spahgc as sp
from spahgc.tl._cross_validation.splits import read_splits

N_BOOTSTRAP = 50


def cross_validate(slides, **arguments):
    return sp.tl.cross_validate(slides, **{"methods": ["ridge"], "n_bootstrap": N_BOOTSTRAP} | arguments)


def name_of(slide) -> str:
    return slide.obs["slide"].iloc[0]


# Without a word.


def test_patients_are_held_out_where_every_slide_names_one(cohort, recwarn):
    found = cross_validate(cohort)
    assert found.record["group_by"] == "patient"
    assert found.record["groups"] == {"P1S1": "P1", "P1S2": "P1", "P2S1": "P2", "P2S2": "P2"}
    pd.testing.assert_frame_equal(found.scores, cross_validate(cohort, group_by="patient").scores)
    assert not [entry for entry in recwarn if "patient" in str(entry.message)]


def no_patients(cohort):
    for slide in cohort:
        del slide.obs["patient"]


def one_patient(cohort):
    for slide in cohort:
        slide.obs["patient"] = "P1"


def unknown_patients(cohort):
    for slide in cohort:
        slide.obs["patient"] = "unknown"


def empty_patients(cohort):
    for slide in cohort:
        slide.obs["patient"] = np.nan


@pytest.mark.parametrize("change", [no_patients, one_patient, unknown_patients, empty_patients])
def test_slides_are_held_out_where_no_two_patients_are_named(cohort, recwarn, change):
    change(cohort)
    found = cross_validate(cohort)
    assert found.record["group_by"] == "slide"
    assert len(set(found.record["groups"].values())) == 4
    assert not [entry for entry in recwarn if "patient" in str(entry.message)]


def one_without(cohort):
    del cohort[2].obs["patient"]


def one_unknown(cohort):
    cohort[2].obs["patient"] = "unknown"


def one_empty(cohort):
    cohort[2].obs["patient"] = ""


def some_spots_without(cohort):
    cohort[2].obs["patient"] = cohort[2].obs["patient"].astype(object).where(np.arange(cohort[2].n_obs) > 3)


def two_in_one(cohort):
    cohort[2].obs["patient"] = ["P1", "P2"] * (cohort[2].n_obs // 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (one_without, 'is not filled in "P1S2", as it is in the other slides: slides are held out one at a time'),
        (one_unknown, 'is not filled in "P1S2"'),
        (one_empty, 'is not filled in "P1S2"'),
        (some_spots_without, 'is not filled in "P1S2"'),
        (two_in_one, 'has several values in "P1S2"'),
    ],
)
def test_patients_that_only_some_slides_name_are_said_to_be_disregarded(cohort, change, message):
    change(cohort)
    with pytest.warns(UserWarning, match=message):
        found = cross_validate(cohort)
    assert found.record["group_by"] == "slide"


def test_slides_are_held_out_when_asked_for_whatever_patients_there_are(cohort, recwarn):
    one_without(cohort)
    found = cross_validate(cohort, group_by="slide")
    assert found.record["group_by"] == "slide" and len(set(found.record["groups"].values())) == 4
    assert not [entry for entry in recwarn if "patient" in str(entry.message)]


# Splits.

SPLITS = {"0": (["P1S1", "P2S1"], ["P1S2"]), "1": (["P1S2"], ["P2S2", "P2S1"])}


def write_splits(folder: Path, splits) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, sides in splits.items():
        for side, slides in zip(("train", "test"), sides, strict=True):
            rows = {
                "sample_id": list(slides),
                "patches_path": [f"patches/{slide}.h5" for slide in slides],
                "expr_path": [f"adata/{slide}.h5ad" for slide in slides],
            }
            pd.DataFrame(rows).to_csv(folder / f"{side}_{name}.csv", index=False)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_splits(tmp_path / "splits", SPLITS)


def test_a_split_says_which_slides_are_learned_from_and_which_are_predicted(cohort, folder):
    with pytest.warns(UserWarning, match='split "0" has slides of the patients "P1" in train and in test'):
        found = cross_validate(cohort, splits=folder)
    by_name = {name_of(slide): slide for slide in cohort}
    assert found.record["group_by"] == "splits"
    assert found.record["groups"] == {"P1S2": "0", "P2S1": "1", "P2S2": "1"}
    assert found.record["splits"]["1"] == {"train": ["P1S2"], "test": ["P2S1", "P2S2"]}
    assert set(found.scores["slide"]) == {"P1S2", "P2S1", "P2S2"}, "P1S1 is in no test and has no score"
    assert list(found.ceiling.columns) == ["P1S2", "P2S1", "P2S2"]
    for train, test in SPLITS.values():
        for name in test:
            predicted = sp.tl.predict(by_name[name], [by_name[other] for other in train], method="ridge", copy=True)
            expected = sp.tl.evaluate(predicted)["pearson"]
            rows = found.scores.query("slide == @name").set_index("gene")["pearson"]
            assert rows.to_dict() == pytest.approx(expected.to_dict(), rel=1e-6)


@pytest.mark.parametrize(
    "splits",
    [
        SPLITS,
        {0: SPLITS["0"], 1: SPLITS["1"]},
        {name: {"train": train, "test": test} for name, (train, test) in SPLITS.items()},
        {name: (tuple(train), pd.Index(test)) for name, (train, test) in SPLITS.items()},
    ],
)
@pytest.mark.filterwarnings("ignore:split .0. has slides")
def test_splits_may_be_a_mapping(cohort, folder, splits):
    expected = cross_validate(cohort, splits=folder).scores
    pd.testing.assert_frame_equal(cross_validate(cohort, splits=splits).scores, expected)


def test_splits_of_groups_give_the_scores_of_the_groups(cohort):
    splits = {"P1": (["P2S1", "P2S2"], ["P1S1", "P1S2"]), "P2": (["P1S1", "P1S2"], ["P2S1", "P2S2"])}
    expected = cross_validate(cohort, group_by="patient").scores
    pd.testing.assert_frame_equal(cross_validate(cohort, splits=splits).scores, expected)


def test_slides_that_no_split_names_have_no_part_in_it(cohort):
    splits = {"a": (["P1S1"], ["P2S1"]), "b": (["P2S1"], ["P1S1"])}
    expected = cross_validate(cohort[:2], splits=splits)
    del cohort[2].obsm["X_sim"]
    pd.testing.assert_frame_equal(cross_validate(cohort, splits=splits).scores, expected.scores)


def test_splits_are_in_the_order_of_their_numbers(tmp_path):
    splits = {str(number): (["A"], [f"B{number}"]) for number in (10, 9, 2, 0)}
    assert [split.name for split in read_splits(write_splits(tmp_path, splits))] == ["0", "2", "9", "10"]


def test_names_that_look_like_numbers_stay_names(tmp_path):
    (split,) = read_splits(write_splits(tmp_path, {"0": (["001", "NA"], ["1e5"])}))
    assert split.train == ("001", "NA") and split.test == ("1e5",)


def test_other_files_of_the_folder_are_not_looked_at(folder):
    (folder / "README.md").write_text("no split")
    (folder / "train_0.csv.bak").write_text("no split")
    assert [split.name for split in read_splits(folder)] == ["0", "1"]


@pytest.mark.filterwarnings("ignore:split .0. has slides")
def test_other_splits_are_another_checkpoint(cohort, tmp_path, folder):
    first = cross_validate(cohort, splits=folder, checkpoint=tmp_path / "folds")
    again = cross_validate(cohort, splits=SPLITS, checkpoint=tmp_path / "folds")
    pd.testing.assert_frame_equal(again.scores, first.scores, check_exact=True)
    with pytest.raises(ValueError, match="other inputs"):
        cross_validate(cohort, splits=SPLITS | {"0": (["P2S1"], ["P1S2"])}, checkpoint=tmp_path / "folds")


@pytest.mark.parametrize(
    ("splits", "error", "message"),
    [
        ({"0": (["P1S1"], ["P1S1", "P2S1"])}, ValueError, 'split "0" has "P1S1" in train and in test'),
        ({"0": (["P1S1"], ["P3S1"])}, ValueError, '1 slides that were not passed: "P3S1". The slides are "P1S1"'),
        ({"0": (["P9"], ["P1S1"]), "1": (["P1S1"], ["P8"])}, ValueError, '2 slides that were not passed: "P8", "P9"'),
        ({"0": ([], ["P1S1"])}, ValueError, 'split "0" has no slide in train'),
        ({"0": (["P1S1"], [])}, ValueError, 'split "0" has no slide in test'),
        ({"0": (["P1S1", "P1S1"], ["P2S1"])}, ValueError, 'names "P1S1" more than once in train'),
        (
            {"0": (["P1S1"], ["P2S1"]), "1": (["P1S2"], ["P2S1"])},
            ValueError,
            'slide "P2S1" is in test of split "0" and of split "1"',
        ),
        ({}, ValueError, "splits= is empty"),
        ({"0": ["P1S1"]}, TypeError, r'split "0" must be \(train, test\)'),
        ({"0": ("P1S1", "P2S1")}, TypeError, r'split "0" must be \(train, test\)'),
        ({"0": "ab"}, TypeError, r'split "0" must be \(train, test\)'),
        ({"0": {"train": ["P1S1"]}}, TypeError, r'split "0" must be \(train, test\)'),
        ([(["P1S1"], ["P2S1"])], TypeError, "must be a folder or a mapping"),
        ("nowhere", FileNotFoundError, 'splits="nowhere" is no folder'),
    ],
)
def test_splits_that_cannot_be_are_refused_before_any_fold(cohort, monkeypatch, splits, error, message):
    monkeypatch.setattr("spahgc.tl._cross_validation.cross_validate.score_folds", lambda *a: pytest.fail("ran"))
    with pytest.raises(error, match=message):
        cross_validate(cohort, splits=splits)


def test_groups_and_splits_are_not_both_taken(cohort):
    with pytest.raises(ValueError, match='both group_by="patient" and splits= were given'):
        cross_validate(cohort, splits=SPLITS, group_by="patient")


def lose_a_partner(folder):
    (folder / "test_1.csv").unlink()


def lose_all(folder):
    for path in folder.iterdir():
        path.unlink()


def other_columns(folder):
    (folder / "train_0.csv").write_text("sample,path\nP1S1,a\n")


def empty_name(folder):
    (folder / "train_0.csv").write_text("sample_id,patches_path\n,a\n")


def empty_file(folder):
    (folder / "train_0.csv").write_text("")


def no_text(folder):
    (folder / "train_0.csv").write_bytes(b"sample_id\n\xff\xfe\x00")


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (lose_a_partner, ValueError, 'lacks the other file of "train_1.csv"'),
        (lose_all, FileNotFoundError, "holds no train_0.csv and test_0.csv"),
        (
            other_columns,
            ValueError,
            r'train_0.csv.*no column "sample_id", which names the slides, but "sample", "path"',
        ),
        (empty_name, ValueError, 'column "sample_id" is empty in 1 of 1 rows'),
        (empty_file, ValueError, "train_0.csv"),
        (no_text, ValueError, "train_0.csv"),
    ],
)
def test_a_folder_that_holds_no_splits_is_refused(folder, spoil, error, message):
    spoil(folder)
    with pytest.raises(error, match=message):
        read_splits(folder)


# From a shell.


def spahgc(*arguments: object):
    from spahgc.cli import app

    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def paths(cohort, tmp_path: Path) -> list[str]:
    found = []
    for slide in cohort:
        path = tmp_path / f"{name_of(slide)}.h5ad"
        slide.write_h5ad(path)
        found += ["--slide", str(path)]
    return found


def test_the_command_holds_out_patients_by_itself_and_says_so(paths, cohort):
    ran = spahgc("cross-validate", *paths, "--method", "ridge", "--json")
    assert ran.exit_code == 0, ran.output
    assert json.loads(ran.stdout)["group_by"] == "patient"
    ran = spahgc("cross-validate", *paths, "--method", "ridge", "--group-by", "slide")
    assert "4 slides, one slide held out at a time" in ran.stdout


def test_the_command_keeps_the_folds_of_a_default_and_of_the_same_choice_once(paths, tmp_path, monkeypatch):
    assert spahgc("cross-validate", *paths, "--method", "ridge", "--output", tmp_path / "out").exit_code == 0
    monkeypatch.setattr(
        "spahgc.tl._cross_validation.folds.run_fold", lambda fold: pytest.fail("a finished fold is computed again")
    )
    ran = spahgc("cross-validate", *paths, "--method", "ridge", "--group-by", "patient", "--output", tmp_path / "out")
    assert ran.exit_code == 0, ran.output


@pytest.mark.filterwarnings("ignore:split .0. has slides")
def test_the_command_reads_splits(paths, cohort, folder, tmp_path):
    ran = spahgc("cross-validate", *paths, "--splits", folder, "--method", "ridge", "--output", tmp_path / "out")
    assert ran.exit_code == 0, ran.output
    assert "3 slides, held out as the splits say" in ran.stdout
    scores = pd.read_csv(tmp_path / "out" / "scores.csv")
    assert set(scores["slide"]) == {"P1S2", "P2S1", "P2S2"}


def test_the_command_refuses_groups_beside_splits(paths, folder):
    ran = spahgc("cross-validate", *paths, "--splits", folder, "--group-by", "slide")
    assert ran.exit_code != 0
