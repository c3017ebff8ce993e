"""How many threads compute: what the machine leaves, one where a step is small, and afterwards what was set before."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info

import spahgc as sp
from spahgc import _settings
from spahgc._settings import available_cpus, limited_threads, n_threads_for

LARGE, SMALL = 1e12, 1e3
"""Multiplications of a step that is worth sharing, and of one that is not."""


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine of eight processors, with a container's files in a folder of the test's own."""
    monkeypatch.setattr(_settings.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(_settings, "CGROUP", tmp_path)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return tmp_path


def test_affinity_says_how_many_processors_there_are(machine):
    assert available_cpus() == 8


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "250000 100000\n"}, 2),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ({"cpu.max": "what is this"}, 8),
    ],
)
def test_the_quota_of_a_container_is_respected(machine, files, expected):
    for name, content in files.items():
        (machine / name).parent.mkdir(exist_ok=True)
        (machine / name).write_text(content)
    assert available_cpus() == expected


def test_a_small_step_is_not_shared(machine):
    assert n_threads_for(SMALL) == 1
    assert n_threads_for(LARGE) == 8


def test_what_was_asked_of_openmp_and_of_torch_is_respected(machine, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert n_threads_for(LARGE) == 3
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert n_threads_for(LARGE) == 2


@pytest.mark.parametrize("products", [SMALL, LARGE])
def test_the_setting_decides_where_it_is_made(machine, monkeypatch, products):
    monkeypatch.setattr(sp.settings, "n_threads", 5)
    assert n_threads_for(products) == 5


@pytest.mark.parametrize("wrong", [0, -1, 2.0, "two"])
def test_a_setting_that_is_no_number_of_threads_is_refused(monkeypatch, wrong):
    monkeypatch.setattr(sp.settings, "n_threads", wrong)
    with pytest.raises(ValueError, match="settings.n_threads=.* must be a positive whole number, or None"):
        n_threads_for(LARGE)


def pools():
    return {pool["filepath"]: pool["num_threads"] for pool in threadpool_info()}


def test_all_pools_are_limited_and_what_was_set_is_set_again(monkeypatch):
    monkeypatch.setattr(sp.settings, "n_threads", 2)
    before, torch_before = pools(), torch.get_num_threads()
    with limited_threads(LARGE):
        assert set(pools().values()) == {2}
        assert torch.get_num_threads() == 2
        monkeypatch.setattr(sp.settings, "n_threads", 1)
        with limited_threads(LARGE):  # the outer one decides
            assert torch.get_num_threads() == 2
    assert (pools(), torch.get_num_threads()) == (before, torch_before)


def test_what_was_set_is_set_again_after_an_error():
    before = pools(), torch.get_num_threads()
    with pytest.raises(KeyboardInterrupt), limited_threads(SMALL):
        raise KeyboardInterrupt
    assert (pools(), torch.get_num_threads()) == before
    with limited_threads(SMALL):  # and the next one limits again
        assert torch.get_num_threads() == 1


def test_threads_of_python_limit_each_for_itself():
    seen = []

    def work():
        with limited_threads(SMALL):
            seen.append(torch.get_num_threads())

    with limited_threads(SMALL):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert seen == [1]


def test_threads_of_python_that_overlap_leave_what_was_set_before_the_first(monkeypatch):
    before = pools(), torch.get_num_threads()
    monkeypatch.setattr(sp.settings, "n_threads", before[1] + 1)
    inside, go_on = threading.Event(), threading.Event()

    def work():
        with limited_threads(LARGE):
            inside.set()
            go_on.wait()

    thread = threading.Thread(target=work)
    with limited_threads(LARGE):
        thread.start()
        inside.wait()
    go_on.set()  # the one that came second leaves last
    thread.join()
    assert pools() == before[0]
    seen = []
    thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert [*seen, torch.get_num_threads()] == [before[1]] * 2


@pytest.mark.parametrize("method", ["spahgc", "ridge", "mlp"])
def test_a_prediction_runs_under_the_setting_whatever_numba_has_set(target, refs, quick_default, method, monkeypatch):
    """Numba raises the number of threads of the process; a training that inherits it waits for them at every step."""
    seen: set[int] = set()
    linear = torch.nn.functional.linear
    svd = np.linalg.eigh
    monkeypatch.setattr(
        torch.nn.functional, "linear", lambda *inputs: seen.add(torch.get_num_threads()) or linear(*inputs)
    )
    monkeypatch.setattr(
        np.linalg, "eigh", lambda *inputs: seen.update(p["num_threads"] for p in threadpool_info()) or svd(*inputs)
    )
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        sp.tl.predict(target, refs, preset=quick_default, method=method, device="cpu")
        assert seen == {1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
