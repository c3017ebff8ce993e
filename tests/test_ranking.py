"""Ranks of methods over slides, against the worked example of the article that the test is taken from."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2

spec = importlib.util.spec_from_file_location("_ranking", Path(__file__).parents[1] / "benchmarks" / "_ranking.py")
ranking = importlib.util.module_from_spec(spec)
spec.loader.exec_module(ranking)
rank_methods = ranking.rank_methods

# Accuracies of four learners on fourteen data sets: Demšar, JMLR 7 (2006), table 6.
C45 = (0.763, 0.599, 0.954, 0.628, 0.882, 0.936, 0.661, 0.583, 0.775, 1.000, 0.940, 0.619, 0.972, 0.957)
C45_M = (0.768, 0.591, 0.971, 0.661, 0.888, 0.931, 0.668, 0.583, 0.838, 1.000, 0.962, 0.666, 0.981, 0.978)
C45_CF = (0.771, 0.590, 0.968, 0.654, 0.886, 0.916, 0.609, 0.563, 0.866, 1.000, 0.965, 0.614, 0.9751, 0.946)
C45_BOTH = (0.798, 0.569, 0.967, 0.657, 0.898, 0.931, 0.685, 0.625, 0.875, 1.000, 0.962, 0.669, 0.975, 0.970)


@pytest.fixture
def learners() -> pd.DataFrame:
    return pd.DataFrame([C45, C45_M, C45_CF, C45_BOTH], index=["plain", "m", "cf", "both"])


def test_ranks_and_critical_difference_are_those_of_the_article(learners):
    found = rank_methods(learners)
    assert found.table["rank"].round(3).to_dict() == {"both": 1.964, "m": 2.0, "cf": 2.893, "plain": 3.143}
    assert found.critical_difference == pytest.approx(1.25, abs=0.005)
    statistic = 12 * 14 / (4 * 5) * (np.square(found.table["rank"]).sum() - 4 * 5**2 / 4)
    assert statistic == pytest.approx(9.28, abs=0.01)
    assert 0.01 < found.p < chi2.sf(statistic, 3), "ties, which the article leaves aside, make it smaller"
    assert found.n_slides == 14


def test_first_and_within_count_slides():
    table = rank_methods(pd.DataFrame({"s": [0.5, 0.497, 0.4], "t": [0.2, 0.2, 0.1]}, index=["a", "b", "c"])).table
    assert table["first"].to_dict() == {"a": 2, "b": 1, "c": 0}
    assert table["within"].to_dict() == {"a": 2, "b": 2, "c": 0}


def test_what_has_no_score_is_last_or_left_out(learners):
    scores = pd.concat([learners, pd.DataFrame([[np.nan] * 14], index=["constant"])])
    scores.loc["both", 0] = np.nan
    found = rank_methods(scores)
    assert found.left_out == ["constant"] and "constant" not in found.table.index
    assert found.table.loc["both", "rank"] == pytest.approx(1.964 + 3 / 14, abs=0.001)


def test_two_methods_are_not_ranked(learners):
    with pytest.raises(ValueError, match="2 methods on 14 slides"):
        rank_methods(learners.iloc[:2])
