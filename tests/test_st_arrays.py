"""The arrays of legacy ST: which one it is, what its pitch says of the resolution, and where nothing is guessed."""

from __future__ import annotations

import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import spahgc as sp

SIDE_PX = 1000
GRID = [(x, y) for x in range(1, 13) for y in range(1, 13)]
BOARD = [(x, y) for x in range(1, 25) for y in range(1, 25) if (x + y) % 2 == 0]
BOARD_PX = np.array([20.0, 22.0])
"""Pixels of one field of the checkerboard: columns and rows differ, as on the measured ones."""
BOARD_PITCH = float(np.hypot(*BOARD_PX))


def written(folder: Path, places: list, step: object, *, selected: object = 1, **columns: object) -> tuple[Path, Path]:
    """Spot table and image of a slide; `step` is the pixels of one column and one row, or the centres themselves."""
    table = pd.DataFrame(places, columns=["x", "y"])
    pixels = step if np.ndim(step) == 2 else np.array(places, float) * np.asarray(step) + 10
    table[["pixel_x", "pixel_y"]] = pixels
    table["selected"] = selected
    table.assign(**columns).to_csv(folder / "spots.tsv", sep="\t", index=False)
    rows, columns_of = np.indices((SIDE_PX, SIDE_PX))
    pixels = np.stack([columns_of % 251, rows % 241, rows * 0], axis=-1).astype(np.uint8)
    Image.fromarray(pixels).save(folder / "slide.png")
    return folder / "spots.tsv", folder / "slide.png"


def record_of(adata: ad.AnnData) -> dict:
    (record,) = adata.uns["spatial"].values()
    return record


def mpp_of(adata: ad.AnnData) -> float:
    return record_of(adata)["scalefactors"]["microns_per_pixel"]


# --- which array it is


def test_neighbours_across_a_checkerboard_are_150_microns_apart(tmp_path):
    adata = sp.io.st(None, *written(tmp_path, BOARD, BOARD_PX))
    assert mpp_of(adata) == pytest.approx(150 / BOARD_PITCH)
    metadata = record_of(adata)["metadata"]
    assert metadata["array"] == "checkerboard, 2k array"
    assert metadata["resolution_from"] == "spot pitch of the array"
    assert metadata["spot_pitch_um"] == pytest.approx(150)


def test_neighbours_on_a_square_grid_are_200_microns_apart(tmp_path):
    adata = sp.io.st(None, *written(tmp_path, GRID, 40.0))
    assert mpp_of(adata) == 200 / 40
    assert record_of(adata)["metadata"]["array"] == "square, 1k array"


def test_the_selected_spots_of_a_checkerboard_may_be_few_and_far_apart(tmp_path):
    chosen = [int(place in [(1, 1), (9, 3), (3, 15)]) for place in BOARD]
    adata = sp.io.st(None, *written(tmp_path, BOARD, BOARD_PX, selected=chosen))
    assert adata.n_obs == 3
    assert mpp_of(adata) == pytest.approx(150 / BOARD_PITCH)
    assert record_of(adata)["metadata"]["n_spots_not_selected"] == len(BOARD) - 3


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("odd_first", [True, False])
def test_a_checkerboard_whose_rows_count_their_own_spots_is_one(tmp_path, axis, odd_first):
    places = np.array(BOARD) if odd_first else np.array([(x, y) for x, y in np.array(BOARD) + [1, 0]])
    counted = places.copy()
    counted[:, axis] = (places[:, axis] + 1) // 2
    adata = sp.io.st(None, *written(tmp_path, counted.tolist(), places * BOARD_PX + 10))
    assert mpp_of(adata) == pytest.approx(150 / BOARD_PITCH)
    assert record_of(adata)["metadata"]["array"] == f"checkerboard, 2k array, {'xy'[axis]} counts spots"
    assert adata.obs[["array_col", "array_row"]].to_numpy().tolist() == counted.tolist(), (
        "places stay those of the table"
    )


@pytest.mark.parametrize("seed", range(3))
def test_an_irregular_selection_of_the_square_grid_is_recognised(tmp_path, seed):
    rng = np.random.default_rng(seed)
    places = [GRID[i] for i in rng.choice(len(GRID), 30, replace=False)]
    pixels = (np.array(places) + rng.uniform(-0.15, 0.15, (30, 2))) * 40 + 20
    adata = sp.io.st(None, *written(tmp_path, places, pixels))
    assert record_of(adata)["metadata"]["array"] == "square, 1k array"
    assert mpp_of(adata) == pytest.approx(200 / 40, rel=0.05)


def test_an_array_that_lies_turned_in_the_image_is_recognised(tmp_path):
    turn = np.radians(30)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    pixels = (np.array(BOARD) - 12) * 20 @ rotation.T + 500
    adata = sp.io.st(None, *written(tmp_path, BOARD, pixels))
    assert mpp_of(adata) == pytest.approx(150 / (20 * np.sqrt(2)))


def test_a_spot_on_a_field_of_the_other_colour_changes_nothing(tmp_path):
    adata = sp.io.st(None, *written(tmp_path, [*BOARD, (8, 9)], BOARD_PX))
    assert mpp_of(adata) == pytest.approx(150 / BOARD_PITCH)


def test_the_diameter_of_spots_is_stated_where_it_is_known(tmp_path):
    square = record_of(sp.io.st(None, *written(tmp_path, GRID, 40.0)))
    assert square["metadata"]["spot_diameter_um"] == 100
    assert square["scalefactors"]["spot_diameter_fullres"] == 20
    board = record_of(sp.io.st(None, *written(tmp_path, BOARD, BOARD_PX)))
    assert "spot_diameter_um" not in board["metadata"]
    assert board["metadata"]["spot_diameter"] == "unknown, drawn as half the pitch"
    assert board["scalefactors"]["spot_diameter_fullres"] == pytest.approx(BOARD_PITCH / 2)


# --- where nothing is guessed

HEXAGON = [(2 * x + y % 2, y) for x in range(10) for y in range(10)]
NOT_RECOGNISED = {
    "two spots": ([(9, 3), (11, 3)], 40.0, "its 2 spots stand on fields of one colour .* none beside another"),
    "one line": ([(x, 3) for x in range(1, 12)], 40.0, "its 11 spots lie on one line"),
    "a diagonal": ([(i, i) for i in range(1, 12)], 40.0, "its 11 spots lie on one line"),
    "few on one colour": ([(1, 1), (2, 2), (3, 1), (2, 4)], 40.0, "its 4 spots stand on fields of one colour"),
    "every second column and row": (
        [(x, y) for x in (1, 3, 5, 7) for y in (1, 3, 5)],
        40.0,
        "its 12 spots .* none beside another",
    ),
    "hexagonal": (HEXAGON, [20.0, 34.6], "one column further is 20 px and one row 34.6 px, at an angle of 90 degrees"),
    "sheared": (GRID, np.array(GRID) @ [[30.0, 0.0], [15.0, 30.0]] + 10, "one column .* at an angle of 63 degrees"),
    "a board and more": (
        [*BOARD, *[(x, 1) for x in range(2, 25, 2)], (2, 3), (4, 3), (6, 3)],
        20.0,
        "5% of its 303 spots",
    ),
    "scattered": (GRID, np.random.default_rng(0).uniform(0, 900, (len(GRID), 2)), "one column further|pitches away"),
}


@pytest.mark.parametrize("case", NOT_RECOGNISED)
def test_an_array_that_is_neither_is_not_guessed(tmp_path, case, monkeypatch):
    places, step, found = NOT_RECOGNISED[case]
    table, image = written(tmp_path, places, step)
    monkeypatch.setattr("spahgc.io._st.read_counts", lambda *_: pytest.fail("the counts were read first"))
    with pytest.raises(ValueError, match=f"not recognised: {found}.*") as caught:
        sp.io.st(table, table, image)
    assert "Pass spot_pitch_um=" in str(caught.value) and "or mpp=" in str(caught.value)
    adata = sp.io.st(None, table, image, mpp=0.7)
    assert mpp_of(adata) == 0.7
    metadata = record_of(adata)["metadata"]
    assert (metadata["array"], metadata["resolution_from"]) == ("not recognised", "mpp=")
    assert record_of(adata)["scalefactors"]["spot_diameter_fullres"] > 0


def test_a_pitch_that_is_passed_is_that_of_nearest_neighbours(tmp_path):
    hexagonal = sp.io.st(None, *written(tmp_path, HEXAGON, [20.0, 20 * np.sqrt(3)]), spot_pitch_um=100)
    assert mpp_of(hexagonal) == pytest.approx(100 / 40)
    assert record_of(hexagonal)["metadata"]["resolution_from"] == "spot_pitch_um="
    board = sp.io.st(None, *written(tmp_path, BOARD, BOARD_PX), spot_pitch_um=141.4)
    assert mpp_of(board) == pytest.approx(141.4 / BOARD_PITCH)
    square = sp.io.st(None, *written(tmp_path, GRID, 40.0), spot_pitch_um=150.0)
    assert mpp_of(square) == 150 / 40
    assert record_of(square)["metadata"]["spot_pitch_um"] == pytest.approx(150)


def test_a_pitch_needs_two_neighbours(tmp_path):
    files = written(tmp_path, [(9, 3), (11, 3)], 40.0)
    with pytest.raises(ValueError, match="no two spots .* are neighbours .* spot_pitch_um=200 .* Pass mpp="):
        sp.io.st(None, *files, spot_pitch_um=200)


@pytest.mark.parametrize("pitch", [0, -150.0, np.nan, np.inf, "150", True])
def test_a_pitch_that_is_none_is_refused(tmp_path, pitch):
    with pytest.raises(
        ValueError, match="is no distance of spots. Pass microns .* 200 for the 1k array and 150 for the 2k"
    ):
        sp.io.st(None, *written(tmp_path, GRID, 40.0), spot_pitch_um=pitch)


def test_a_pitch_in_millimetres_is_noticed(tmp_path):
    with pytest.raises(ValueError, match=r"spot_pitch_um=0.2 over 40 px, mpp=0.005 is no resolution"):
        sp.io.st(None, *written(tmp_path, GRID, 40.0), spot_pitch_um=0.2)


def test_two_resolutions_are_one_too_many(tmp_path):
    with pytest.raises(ValueError, match="spot_pitch_um= and mpp= were both passed"):
        sp.io.st(None, *written(tmp_path, GRID, 40.0), spot_pitch_um=200, mpp=5)


def test_a_resolution_that_the_array_contradicts_is_said(tmp_path):
    files = written(tmp_path, GRID, 40.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert mpp_of(sp.io.st(None, *files, mpp=4.9)) == 4.9
    with pytest.warns(UserWarning, match="mpp=0.5 was passed, but spots .* lie 40 px apart, which gives 5 .* is taken"):
        assert mpp_of(sp.io.st(None, *files, mpp=0.5)) == 0.5


def test_a_slide_of_one_spot_is_read_with_its_resolution(tmp_path):
    files = written(tmp_path, [(9, 3)], 40.0)
    with pytest.raises(ValueError, match="leaves one spot"):
        sp.io.st(None, *files)
    assert sp.io.st(None, *files, mpp=0.7).n_obs == 1


# --- spots named by measured places


def counts_of(folder: Path, names: list[str]) -> Path:
    values = np.arange(len(names) * 2).reshape(-1, 2) + 1
    pd.DataFrame(values, index=names, columns=["ENSMUSG00000064339.1", "Nefl"]).to_csv(folder / "counts.tsv", sep="\t")
    return folder / "counts.tsv"


def measured(places: list, seed: int = 0) -> np.ndarray:
    return np.round(np.array(places) + np.random.default_rng(seed).uniform(-0.3, 0.3, (len(places), 2)), 3)


@pytest.mark.parametrize("digits", [3, 2, 1])
def test_counts_named_by_measured_places_find_their_spots(tmp_path, digits):
    real = measured(GRID)
    table, image = written(tmp_path, GRID, 40.0, new_x=real[:, 0], new_y=real[:, 1])
    order = np.random.default_rng(1).permutation(len(GRID))
    counts = counts_of(tmp_path, [f"{x:.{digits}f}x{y:.{digits}f}" for x, y in real[order]])
    adata = sp.io.st(counts, table, image)
    assert list(adata.obs_names) == [f"{GRID[i][0]}x{GRID[i][1]}" for i in order]
    assert np.array_equal(adata.X.toarray()[:, 0], np.arange(len(GRID)) * 2 + 1)
    assert np.allclose(adata.obsm["spatial"], np.array(GRID)[order] * 40 + 10)


def test_measured_names_without_trailing_zeros_and_whole_ones_among_them_are_the_same_places(tmp_path):
    places = [(x, y) for x in (4, 5, 6) for y in (11, 12)]
    real = np.array([[4.0, 11.0], [4.1, 12.25], [5.084, 11.23], [5.0, 12.0], [6.02, 11.1], [6.1, 12.0]])
    table, image = written(tmp_path, places, 40.0, new_x=real[:, 0], new_y=real[:, 1])
    counts = counts_of(tmp_path, ["4x11", "4.1x12.25", "5.084x11.23", "5x12", "6.02x11.1", "6.1x12"])
    assert list(sp.io.st(counts, table, image).obs_names) == [f"{x}x{y}" for x, y in places]


def test_measured_names_are_rounded_where_the_table_has_whole_places_alone(tmp_path):
    table, image = written(tmp_path, GRID, 40.0)
    adata = sp.io.st(counts_of(tmp_path, [f"{x}x{y}" for x, y in measured(GRID)]), table, image)
    assert list(adata.obs_names) == [f"{x}x{y}" for x, y in GRID]


def test_rounded_names_beside_measured_places_find_their_spots(tmp_path):
    real = measured(GRID)
    table, image = written(tmp_path, GRID, 40.0, new_x=real[:, 0], new_y=real[:, 1])
    adata = sp.io.st(counts_of(tmp_path, [f"{x}x{y}" for x, y in GRID]), table, image)
    assert list(adata.obs_names) == [f"{x}x{y}" for x, y in GRID]


def test_a_table_with_measured_places_alone_is_read(tmp_path):
    real = measured(GRID)
    table, image = written(tmp_path, GRID, 40.0, new_x=real[:, 0], new_y=real[:, 1])
    pd.read_csv(table, sep="\t").drop(columns=["x", "y"]).to_csv(table, sep="\t", index=False)
    adata = sp.io.st(counts_of(tmp_path, [f"{x}x{y}" for x, y in real]), table, image)
    assert list(adata.obs_names) == [f"{x}x{y}" for x, y in GRID]


def test_counts_of_spots_that_are_not_selected_are_known_by_measured_names_too(tmp_path):
    real = measured(GRID)
    chosen = [int(x <= 6) for x, _ in GRID]
    table, image = written(tmp_path, GRID, 40.0, new_x=real[:, 0], new_y=real[:, 1], selected=chosen)
    counts = counts_of(tmp_path, [f"{x}x{y}" for x, y in real])
    values = pd.read_csv(counts, sep="\t", index_col=0)
    values.iloc[np.array(chosen) == 1] *= 100
    values.to_csv(counts, sep="\t")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert sp.io.st(counts, table, image).n_obs == sum(chosen)


def test_measured_names_of_another_section_are_refused(tmp_path):
    real, other = measured(GRID), measured(GRID, seed=1)
    table, image = written(tmp_path, GRID, 40.0, new_x=real[:, 0], new_y=real[:, 1])
    with pytest.raises(ValueError, match=r"of 144 with counts and 144 in the table.*probably tables of two sections"):
        sp.io.st(counts_of(tmp_path, [f"{x}x{y}" for x, y in other]), table, image)


def test_a_name_halfway_between_two_spots_is_given_to_neither(tmp_path):
    table, image = written(tmp_path, GRID, 40.0)
    names = [f"{x}x{y}" for x, y in measured(GRID)]
    names[0] = "1.5x1.02"
    adata = sp.io.st(counts_of(tmp_path, names), table, image)
    assert adata.n_obs == len(GRID) - 1 and "1x1" not in adata.obs_names
    assert record_of(adata)["metadata"]["n_counts_without_spot"] == 1


def test_two_names_of_one_spot_are_refused(tmp_path):
    table, image = written(tmp_path, GRID, 40.0)
    names = [f"{x}x{y}" for x, y in measured(GRID)]
    names[1] = "1.02x1.04"
    with pytest.raises(ValueError, match=r"1.02x1.04 of the counts .* stand for one spot"):
        sp.io.st(counts_of(tmp_path, names), table, image)


def test_transposed_counts_with_measured_names_are_refused(tmp_path):
    table, image = written(tmp_path, GRID, 40.0)
    counts = counts_of(tmp_path, [f"{x}x{y}" for x, y in measured(GRID)])
    pd.read_csv(counts, sep="\t", index_col=0).T.to_csv(counts, sep="\t")
    with pytest.raises(ValueError, match="transposed table"):
        sp.io.st(counts, table, image)


def test_gene_ids_keep_their_version(tmp_path):
    table, image = written(tmp_path, GRID, 40.0)
    adata = sp.io.st(counts_of(tmp_path, [f"{x}x{y}" for x, y in GRID]), table, image)
    assert list(adata.var_names) == ["ENSMUSG00000064339.1", "Nefl"]


def test_the_record_of_the_array_survives_writing(tmp_path):
    adata = sp.io.st(None, *written(tmp_path, BOARD, BOARD_PX))
    adata.write_h5ad(tmp_path / "slide.h5ad")
    adata.write_zarr(tmp_path / "slide.zarr")
    for again in (ad.read_h5ad(tmp_path / "slide.h5ad"), ad.read_zarr(tmp_path / "slide.zarr")):
        assert record_of(again)["metadata"] == record_of(adata)["metadata"]


# --- measured slides


@pytest.mark.data
@pytest.mark.parametrize("section", [1, 2, 3, 4])
def test_the_measured_olfactory_bulb_is_on_a_checkerboard(her2st, section):
    folder = her2st.parent / "mob_st"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    files = (f"MOB{section}.tsv.gz", f"alignment_table_MOB{section}.tsv", f"MOB{section}.jpg")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adata = sp.io.st(*(folder / name for name in files))
    assert 4.55 < mpp_of(adata) < 4.7, "it was 8.7 by the pitch of the 1k array"
    assert adata.n_obs == {1: 379, 2: 407, 3: 438, 4: 403}[section]
    assert adata.var_names.str.fullmatch(r"ENSMUSG\d+\.\d+").all()


@pytest.mark.data
@pytest.mark.parametrize("digits", [None, 3])
def test_a_measured_spinal_cord_is_read_by_either_kind_of_names(her2st, tmp_path, digits):
    folder = her2st.parent / "als_spinal_cord"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    counts, spots = folder / "CN62_E2.tsv.gz", folder / "CN62_E2_selection.tsv"
    if digits:  # as the repository names them
        table = pd.read_csv(spots, sep="\t")
        names = {f"{row.x:.0f}x{row.y:.0f}": f"{row.new_x}x{row.new_y}" for row in table.itertuples()}
        counts = tmp_path / "counts.tsv"
        pd.read_csv(folder / "CN62_E2.tsv.gz", sep="\t", index_col=0).rename(index=names).to_csv(counts, sep="\t")
    adata = sp.io.st(counts, spots, folder / "CN62_E2.jpg")
    assert adata.n_obs == 91
    assert mpp_of(adata) == pytest.approx(0.69, abs=0.005)
    assert (adata.obs_names == [f"{x}x{y}" for x, y in adata.obs[["array_col", "array_row"]].to_numpy()]).all()
