"""The kernel regression where its device is: arrays of numpy, tensors of torch, and what passes the device on."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from anndata import AnnData

import spahgc as sp
from spahgc import Parameters
from spahgc._linear import on_device
from spahgc._linear.kernel import PENALTIES, KernelRidge, arc_cosine, decompose, fit_kernel_ridge, held_out
from spahgc._linear.on_device import RowsOnDevice, as_numpy, rows_on
from spahgc._linear.place import (
    PLUS_RANGE,
    TIMES_RANGE,
    TIMES_WEIGHT,
    Places,
    look_plus_place,
    look_times_place,
)

SLIDE = np.repeat(list("abcdefg"), [30, 45, 35, 25, 30, 40, 35])
N, SIZE = len(SLIDE), 8.0
TENSORS = "cpu:0"
"""A device that is the CPU, and whose name tells in these tests that tensors are wanted."""
CLOSE = {"rtol": 1e-8, "atol": 1e-8}
"""Float error of another library's decomposition, in double precision."""
WAYS = pytest.mark.parametrize("landmarks", [None, 90], ids=["exact", "landmarks"])
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Devices that were asked for; on ``TENSORS`` it is tensors that compute, as on CUDA."""
    devices: set[str] = set()

    def recorded(device: str) -> bool:
        devices.add(device)
        return device == TENSORS

    monkeypatch.setattr(on_device, "uses_tensors", recorded)
    return devices


def some_spots() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features of seven slides, one spot of them without any; responses that follow them along a bend; other spots."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, 8)).astype(np.float32)
    x[5] = 0
    y = np.abs(x @ rng.normal(size=(8, 4))) + 0.3 * rng.normal(size=(N, 4))
    return x, y - y.mean(axis=0), rng.normal(size=(60, 8)).astype(np.float32)


def some_places(x: np.ndarray, new: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same with places beside: every third slide lies where the other spots lie, the others in frames of their own."""
    rng = np.random.default_rng(1)
    frame = np.unique(SLIDE, return_inverse=True)[1] % 3
    known = Places(rng.uniform(0, 9, size=(N, 2)), frame)
    return known.beside(x), Places(rng.uniform(0, 9, size=(len(new), 2)), np.zeros(len(new), dtype=int)).beside(new)


KERNELS = {"look": arc_cosine, "plus": look_plus_place(SIZE), "times": look_times_place(SIZE)}
EVERY_KERNEL = pytest.mark.parametrize("name", list(KERNELS))


def inputs_of(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Known spots, their responses and other spots as a kernel takes them."""
    x, y, new = some_spots()
    return (x, y, new) if name == "look" else (*(known := some_places(x, new))[:1], y, known[1])


def fitted(name: str, landmarks: int | None, device: str, *, tensors: bool = False) -> KernelRidge:
    x, y, _ = inputs_of(name)
    how = {} if landmarks is None else {"max_exact": 0, "n_landmarks": landmarks}
    given = (torch.from_numpy(x), torch.from_numpy(y)) if tensors else (x, y)
    return fit_kernel_ridge(*given, SLIDE, kernel=KERNELS[name], device=device, **how)


def assert_same_fit(actual: KernelRidge, expected: KernelRidge) -> None:
    np.testing.assert_array_equal(actual.penalties, expected.penalties)
    np.testing.assert_array_equal(actual.landmarks, expected.landmarks)
    np.testing.assert_allclose(actual.slopes, expected.slopes, **CLOSE)
    np.testing.assert_allclose(actual.coefficients, expected.coefficients, **CLOSE)
    for part in vars(actual).values():
        assert type(part) is np.ndarray


# What numpy computes, by formulas written down here.


def angles(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The kernel of equation 3 of Cho and Saul 2009, a pair at a time."""
    out = np.zeros((len(a), len(b)))
    for i, one in enumerate(a.astype(float)):
        for j, other in enumerate(b.astype(float)):
            length = np.sqrt(one @ one) * np.sqrt(other @ other)
            if length > 0:
                theta = np.arccos(min(max(one @ other / length, -1), 1))
                out[i, j] = length * (np.sin(theta) + (np.pi - theta) * np.cos(theta)) / np.pi
    return out


def nearness(a: np.ndarray, b: np.ndarray, reach: float) -> np.ndarray:
    distance = np.linalg.norm(a[:, None, -3:-1] - b[None, :, -3:-1], axis=2)
    return np.exp(-(distance**2) / (2 * reach**2)) * (a[:, None, -1] == b[None, :, -1])


def test_the_kernel_is_that_of_the_formula():
    x, _, new = some_spots()
    np.testing.assert_allclose(arc_cosine(x[:20], new), angles(x[:20], new), rtol=1e-12, atol=1e-12)


def test_the_kernels_of_place_are_those_of_the_formula():
    known, seen = some_places(*some_spots()[::2])
    known, look = known[:40], angles(known[:40, :-3], seen[:, :-3]) / SIZE
    plus, times = (
        look + nearness(known, seen, PLUS_RANGE),
        look * (1 + TIMES_WEIGHT * nearness(known, seen, TIMES_RANGE)),
    )
    np.testing.assert_allclose(look_plus_place(SIZE)(known, seen), plus, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(look_times_place(SIZE)(known, seen), times, rtol=1e-12, atol=1e-12)


@EVERY_KERNEL
def test_a_fit_on_the_cpu_is_the_ridge_regression_whose_left_out_error_is_least(name):
    x, y, new = inputs_of(name)
    between, groups = KERNELS[name](x, x), np.array_split(np.unique(SLIDE), 5)
    said = np.empty((len(PENALTIES), *y.shape))
    for group in groups:
        out = np.isin(SLIDE, group)
        known = between[np.ix_(~out, ~out)]
        for i, penalty in enumerate(PENALTIES):
            penalised = known + penalty * np.diag(known).mean() * np.eye(len(known))
            said[i, out] = between[np.ix_(out, ~out)] @ np.linalg.solve(penalised, y[~out])
    best = np.square(y - said).sum(axis=1).argmin(axis=0)
    chosen = np.stack([said[i, :, column] for column, i in enumerate(best)], axis=1)
    slopes = np.clip((y * chosen).sum(axis=0) / np.square(chosen).sum(axis=0), 0, 1.5)
    coefficients = np.empty_like(y)
    for column, i in enumerate(best):
        penalised = between + PENALTIES[i] * np.diag(between).mean() * np.eye(N)
        coefficients[:, column] = slopes[column] * np.linalg.solve(penalised, y[:, column])
    found = fitted(name, None, "cpu")
    np.testing.assert_array_equal(found.penalties, np.array(PENALTIES)[best])
    np.testing.assert_allclose(found.slopes, slopes, **CLOSE)
    np.testing.assert_allclose(found.coefficients, coefficients, **CLOSE)
    np.testing.assert_allclose(found.predict(new, KERNELS[name]), KERNELS[name](new, x) @ coefficients, **CLOSE)


# Tensors.


@EVERY_KERNEL
def test_a_kernel_of_tensors_is_a_tensor_of_the_same_numbers(name):
    x, _, new = inputs_of(name)
    found = KERNELS[name](torch.from_numpy(x), torch.from_numpy(new))
    assert isinstance(found, torch.Tensor) and found.dtype == torch.float64
    np.testing.assert_allclose(found.numpy(), KERNELS[name](x, new), rtol=1e-12, atol=1e-12)


@EVERY_KERNEL
def test_what_is_said_of_slides_held_out_is_the_same_of_tensors(name):
    x, y, _ = inputs_of(name)
    expected = held_out(decompose(x, y, KERNELS[name]), y, SLIDE)
    x, y = torch.from_numpy(x), torch.from_numpy(y)
    found = held_out(decompose(x, y, KERNELS[name]), y, SLIDE)
    for (rows, parts), (wanted_rows, wanted) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(rows, wanted_rows)
        assert len(parts) == len(wanted) == len(PENALTIES)
        for part, other in zip(parts, wanted, strict=True):
            np.testing.assert_allclose(part.numpy(), other, **CLOSE)


@WAYS
@EVERY_KERNEL
def test_a_fit_of_tensors_is_that_of_arrays_and_what_is_kept_of_it_are_arrays(name, landmarks):
    assert_same_fit(fitted(name, landmarks, "cpu", tensors=True), fitted(name, landmarks, "cpu"))


@WAYS
@EVERY_KERNEL
def test_fit_and_prediction_on_a_device_of_tensors_are_those_of_numpy(asked, monkeypatch, name, landmarks):
    monkeypatch.setattr("spahgc._spots.rows.ROW_BLOCK", 37)
    new, kernel, kinds = inputs_of(name)[2], KERNELS[name], set()

    def recorded(a, b):
        kinds.update([(type(a), type(b))])
        return kernel(a, b)

    expected = fitted(name, landmarks, "cpu")
    monkeypatch.setitem(KERNELS, name, recorded)
    found = fitted(name, landmarks, TENSORS)
    assert_same_fit(found, expected)
    np.testing.assert_allclose(found.predict(new, recorded, device=TENSORS), expected.predict(new, kernel), **CLOSE)
    assert kinds == {(torch.Tensor, torch.Tensor)}


def test_responses_of_single_precision_are_computed_with_in_double(asked):
    x, y, _ = some_spots()
    found = fit_kernel_ridge(x, y.astype(np.float32), SLIDE, device=TENSORS)
    assert_same_fit(found, fit_kernel_ridge(x, y.astype(np.float32), SLIDE))
    np.testing.assert_allclose(found.coefficients, fit_kernel_ridge(x, y, SLIDE).coefficients, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("device", ["cpu", TENSORS])
def test_spots_that_all_look_the_same_are_predicted_by_zero_without_a_warning(asked, device):
    _, y, _ = some_spots()
    for max_exact in (0, N):
        found = fit_kernel_ridge(np.zeros((N, 4)), y, SLIDE, max_exact=max_exact, n_landmarks=30, device=device)
        assert (found.predict(np.ones((3, 4)), device=device) == 0).all()


# What lies where.


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_a_device_without_double_precision_leaves_arrays_as_they_are(device):
    x = np.ones((3, 2))
    assert rows_on(x, device) is x and on_device.on_device(x, device) is x and as_numpy(x) is x
    assert on_device.uses_tensors("cuda:1") and not on_device.uses_tensors(device)


def test_a_device_holds_a_block_of_the_spots_and_the_memory_of_the_host_all_of_them(asked, monkeypatch):
    monkeypatch.setattr("spahgc._spots.rows.ROW_BLOCK", 16)
    x, y, new = some_spots()
    largest = 0

    def recorded(a, b):
        nonlocal largest
        if len(a) != len(b):  # and not that between the landmarks
            largest = max(largest, len(a))
        return arc_cosine(a, b)

    found = fit_kernel_ridge(x, y, SLIDE, kernel=recorded, max_exact=0, n_landmarks=50, device=TENSORS)
    found.predict(new, recorded, device=TENSORS)
    assert largest == 16
    rows = rows_on(x, TENSORS)
    assert isinstance(rows, RowsOnDevice) and rows.rows is x and rows.shape == x.shape and len(rows) == N


@WAYS
def test_an_exact_fit_keeps_the_features_that_it_was_given(asked, landmarks):
    x, y, _ = some_spots()
    for device in ("cpu", TENSORS):
        how = {} if landmarks is None else {"max_exact": 0, "n_landmarks": landmarks}
        kept = fit_kernel_ridge(x, y, SLIDE, device=device, **how).landmarks
        assert (kept is x) == (landmarks is None)  # a saved model holds them once


def test_a_fit_on_the_cpu_loads_no_torch():
    code = (
        "import sys, numpy as np; from spahgc._linear.kernel import fit_kernel_ridge; "
        "x = np.random.default_rng(0).normal(size=(12, 3)); "
        "fit_kernel_ridge(x, x[:, :1], np.repeat(['a', 'b'], 6), device='cpu').predict(x); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# Who passes the device on.


@pytest.fixture
def kernels(quick_default: Parameters) -> Parameters:
    return replace(quick_default, experts=("kernel", "kernel_overall"))


def test_fit_and_prediction_compute_their_kernels_on_the_device(asked, cohort: list[AnnData], kernels):
    target, *refs = cohort
    model = sp.tl.fit(refs, preset=kernels, device=TENSORS)
    assert asked == {TENSORS}
    expected = sp.tl.fit([slide.copy() for slide in refs], preset=kernels, device="cpu")
    assert model.experts.weights == pytest.approx(expected.experts.weights, abs=1e-6)
    wanted = expected.predict(target, device="cpu")
    asked.clear()
    np.testing.assert_allclose(model.predict(target, device=TENSORS), wanted, rtol=1e-5, atol=1e-5)
    assert asked == {TENSORS}
    asked.clear()
    parts = model.contributions(target, spots=[0, 1], genes=model.genes[:2], device=TENSORS)
    assert asked == {TENSORS}
    np.testing.assert_allclose(parts.prediction, wanted[:2, :2], rtol=1e-5, atol=1e-5)


def test_the_method_kernel_computes_on_the_device(asked, cohort: list[AnnData]):
    target, *refs = cohort
    on_cpu = sp.tl.predict(target, refs, method="kernel", device="cpu", copy=True)
    asked.clear()
    found = sp.tl.predict(target, refs, method="kernel", device=TENSORS, copy=True)
    assert asked == {TENSORS}
    np.testing.assert_allclose(found.layers["spahgc"], on_cpu.layers["spahgc"], rtol=1e-5, atol=1e-5)


def test_a_cross_validation_computes_its_kernels_on_the_device(asked, cohort: list[AnnData]):
    sp.tl.cross_validate(cohort, methods=["kernel"], device=TENSORS, n_bootstrap=10)
    assert asked == {TENSORS}


# On a GPU.


@needs_cuda
@WAYS
@EVERY_KERNEL
def test_fit_and_prediction_on_a_cuda_device_are_those_of_the_cpu(name, landmarks):
    new, expected, found = inputs_of(name)[2], fitted(name, landmarks, "cpu"), fitted(name, landmarks, "cuda")
    assert_same_fit(found, expected)
    said = found.predict(new, KERNELS[name], device="cuda")
    np.testing.assert_allclose(said, expected.predict(new, KERNELS[name]), **CLOSE)
    np.testing.assert_array_equal(said, found.predict(new, KERNELS[name], device="cuda"))


@needs_cuda
def test_a_prediction_of_many_spots_takes_no_more_of_a_cuda_device_than_one_of_a_block():
    x, y, _ = some_spots()
    found, peaks = fit_kernel_ridge(x, y, SLIDE, device="cuda"), []
    for n in (4_096, 80_000):
        seen = np.random.default_rng(0).normal(size=(n, x.shape[1])).astype(np.float32)
        torch.cuda.reset_peak_memory_stats()
        found.predict(seen, device="cuda")
        peaks.append(torch.cuda.max_memory_allocated())
    assert peaks[1] < 1.5 * peaks[0]


@needs_cuda
def test_a_model_whose_kernels_were_fitted_on_a_cuda_device_predicts_what_that_of_the_cpu_does(
    cohort: list[AnnData], kernels
):
    target, *refs = cohort
    expected = sp.tl.fit([slide.copy() for slide in refs], preset=kernels, device="cpu").predict(target, device="cpu")
    model = sp.tl.fit(refs, preset=kernels, device="cuda")
    for device in ("cuda", "cpu"):
        np.testing.assert_allclose(model.predict(target, device=device), expected, rtol=1e-4, atol=1e-4)
