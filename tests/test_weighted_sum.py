"""What experts say is added up one after the other, to the last bit as all at once."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from spahgc._training.experts import EXPERTS, weighted_sum

NAMES = ("line", "kernel", "kernel_overall", "perceptron", "perceptron_overall", "graph")


def answers(n_spots: int, dtype: type = np.float64) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    weights = dict(zip(NAMES, rng.dirichlet(np.ones(len(NAMES))).tolist(), strict=True))
    return weights, {name: rng.normal(size=(n_spots, 30)).astype(dtype) for name in NAMES}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_sum_is_that_of_all_products_to_the_last_bit(dtype: type) -> None:
    weights, said = answers(200, dtype)
    before = {name: values.copy() for name, values in said.items()}
    found = weighted_sum(weights, said)
    at_once = np.sum([weights[name] * said[name] for name in EXPERTS if name in weights], axis=0)
    np.testing.assert_array_equal(found, at_once)
    for name, values in before.items():
        np.testing.assert_array_equal(said[name], values)


def test_an_expert_without_a_weight_has_no_part_and_need_not_have_spoken() -> None:
    weights, said = answers(20)
    weights["graph"] = 0.0
    del said["graph"]
    assert np.isfinite(weighted_sum(weights, said)).all()


def test_a_large_slide_needs_room_for_two_products_and_not_for_all() -> None:
    weights, said = answers(20_000)
    one = said["line"].nbytes
    tracemalloc.start()
    weighted_sum(weights, said)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.5 * one
