"""Weights of experts, as references held out prove them."""

from __future__ import annotations

import numpy as np
import pytest

from spahgc._linear.weights import MIN_SHARE, prove_weights


@pytest.fixture
def truth() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(5000, 4))


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(5000, 4))


def test_weights_add_up_to_one_and_none_is_negative(truth):
    found = prove_weights({"a": truth + noise(1), "b": 0.1 * truth, "c": noise(2), "d": -truth}, truth)
    assert sum(found.values()) == pytest.approx(1, abs=1e-12)
    assert list(found) == ["a", "b", "c", "d"]
    assert all(weight == 0 or weight >= MIN_SHARE for weight in found.values())
    assert found["d"] == 0 < found["a"]


def test_a_single_expert_gets_all(truth):
    assert prove_weights({"a": noise(1)}, truth) == {"a": 1.0}


def test_experts_that_say_the_same_get_the_same(truth):
    said = truth + noise(1)
    found = prove_weights({"a": said, "b": said.copy(), "c": said.copy()}, truth)
    np.testing.assert_allclose(list(found.values()), 1 / 3)


def test_equally_good_experts_get_nearly_equal_shares(truth):
    found = prove_weights({str(i): truth + noise(i) for i in range(1, 5)}, truth)
    np.testing.assert_allclose(list(found.values()), 1 / 4, atol=0.02)


def test_an_expert_that_knows_all_gets_most(truth):
    assert prove_weights({"good": truth, "bad": noise(1)}, truth)["good"] > 0.85


def test_an_expert_of_loud_noise_gets_nothing(truth):
    assert prove_weights({"good": truth + 0.5 * noise(1), "bad": 3 * noise(2)}, truth) == {"good": 1.0, "bad": 0.0}


def test_those_that_are_left_share_what_the_one_left_out_had(truth):
    said = {"a": truth + noise(1), "b": truth + 2 * noise(2)}
    with_noise = prove_weights(said | {"c": 9 * noise(3)}, truth)
    assert with_noise == {**prove_weights(said, truth), "c": 0.0}


def test_the_better_expert_gets_more(truth):
    found = prove_weights({"better": truth + 0.5 * noise(1), "worse": truth + 1.5 * noise(2)}, truth)
    assert found["better"] > 2 * found["worse"] > 0


def test_experts_that_say_nothing_at_all_share_equally(truth):
    silent = np.zeros_like(truth)
    assert prove_weights({"a": silent, "b": silent}, truth) == {"a": 0.5, "b": 0.5}


def test_units_of_the_scores_do_not_matter(truth):
    said = {"a": truth + noise(1), "b": 0.5 * truth + 0.1 * noise(2)}
    found = prove_weights({name: 1e-3 * part for name, part in said.items()}, 1e-3 * truth)
    np.testing.assert_allclose(list(found.values()), list(prove_weights(said, truth).values()))
