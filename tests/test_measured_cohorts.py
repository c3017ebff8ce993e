"""Cohorts that the benchmarks find in a folder, and the genes on which methods are compared."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.sparse import csr_matrix

spec = importlib.util.spec_from_file_location("_measured", Path(__file__).parents[1] / "benchmarks" / "_measured.py")
measured = importlib.util.module_from_spec(spec)
spec.loader.exec_module(measured)

DATA = Path(os.environ.get("SPAHGC_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


def touched(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def slide(counts: np.ndarray, genes: list[str]) -> AnnData:
    return AnnData(csr_matrix(counts.astype(np.float32)), var=pd.DataFrame(index=genes))


def test_a_folder_is_a_cohort_by_its_files(tmp_path: Path) -> None:
    touched(tmp_path / "legacy", "A1.tsv.gz", "A1_selection.tsv", "A1.jpg", "A2.tsv.gz", "A2_selection.tsv", "A2.jpg")
    touched(tmp_path / "cord", "S_1.tsv.gz", "S_1_selection.tsv", "S_2.tsv.gz", "S_2_selection.tsv", "S.jpg")
    touched(tmp_path / "bulb", "MOB1.tsv.gz", "alignment_table_MOB1.tsv", "MOB1.jpg")
    touched(tmp_path / "visium", "V1/spatial/tissue_positions_list.csv", "V2/spatial/tissue_positions.csv")
    touched(tmp_path / "others", "readme.txt", "slides/one.svs")
    found = measured.find_cohorts(tmp_path)
    assert sorted(found) == ["bulb", "cord", "legacy", "visium"]
    names = {cohort: sorted(measured.slides_of(folder)) for cohort, folder in found.items()}
    assert names == {"bulb": ["MOB1"], "cord": ["S_1", "S_2"], "legacy": ["A1", "A2"], "visium": ["V1", "V2"]}
    assert list(measured.find_cohorts(tmp_path / "cord")) == ["cord"]


def test_a_folder_without_a_cohort_is_refused(tmp_path: Path) -> None:
    touched(tmp_path, "readme.txt", "slides/one.svs")
    with pytest.raises(SystemExit, match="holds no cohort, nor does a folder in it"):
        measured.find_cohorts(tmp_path)


def test_slides_that_share_an_image_are_known_by_it(tmp_path: Path) -> None:
    touched(tmp_path, "S_1.tsv.gz", "S_1_selection.tsv", "S_2.tsv.gz", "S_2_selection.tsv", "S.jpg", "T_1.tsv.gz")
    before = measured.slides_of(tmp_path)["S_1"][1]
    os.utime(tmp_path / "T_1.tsv.gz", (0, 0))
    assert measured.slides_of(tmp_path)["S_1"][1] == before
    os.utime(tmp_path / "S.jpg", (0, 0))
    assert measured.slides_of(tmp_path)["S_1"][1] != before


def test_the_panel_is_the_cohorts_own_or_what_varies_most_and_is_seen_often(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    genes = ["flat", "varies", "rare", "somewhere"]
    rows = [np.full(50, 20), rng.choice([0, 60], 50), np.r_[400, 400, np.zeros(48)], rng.choice([0, 60], 50)]
    counts = np.column_stack(rows)
    slides = [slide(counts, genes), slide(counts[::-1][:, :3], genes[:3])]
    assert measured.panel_of(tmp_path, slides) == ["varies", "flat"]
    (tmp_path / "panel.txt").write_text("rare\nflat\n")
    assert measured.panel_of(tmp_path, slides) == ["rare", "flat"]


@pytest.mark.skipif(not (DATA / "her2st").is_dir(), reason="the real slides are not here: set SPAHGC_TEST_DATA")
def test_the_real_cohorts_are_found() -> None:
    found = measured.find_cohorts(DATA)
    assert {"her2st", "als_spinal_cord", "mob_st", "kidney_organoid"} <= set(found)
    assert len(measured.slides_of(found["als_spinal_cord"])) == 8
