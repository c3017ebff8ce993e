"""Random numbers come from generators of the package's own: a seed holds beside other threads, and nobody's stream moves."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import spahgc as sp
from spahgc import _random
from spahgc._parameters import METHODS
from spahgc._random import drawing_from
from spahgc.nn._dropout import Dropout

PRESET = sp.Parameters(layers=1, width=16, heads=2, epochs=3, n_networks=1)
DEADLINE_S = 60
"""After which a thread counts as hung."""
BOTH_TRAINED = ["mlp", "bleep", "spahgc"]


@pytest.fixture
def slides(cohort):
    return cohort


@pytest.fixture(autouse=True)
def _few_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sp.settings, "progress", False)
    for method in ("mlp", "bleep"):
        monkeypatch.setattr(f"spahgc.tl._baselines.{method}.MAX_EPOCHS", 6)


def predicted(slides, method: str, seed: int) -> np.ndarray:
    options = {"preset": PRESET} if method == "spahgc" else {}
    made = sp.tl.predict(slides[0], slides[1:], method=method, seed=seed, device="cpu", copy=True, **options)
    return made.layers["spahgc"]


def states() -> dict[str, object]:
    kind, keys, *position = np.random.get_state()  # noqa: NPY002 - the state of the process is meant
    return {
        "torch": torch.get_rng_state().tolist(),
        "numpy": (kind, keys.tolist(), *position),
        "random": random.getstate(),
    }


@contextmanager
def somebody_who_draws() -> Iterator[None]:
    """Another thread of the process that draws from all global generators and sets their seeds."""
    stop = threading.Event()

    def draw() -> None:
        while not stop.wait(1e-4):
            torch.manual_seed(3)
            torch.rand(5), np.random.rand(5), random.random()  # noqa: NPY002

    thread = threading.Thread(target=draw)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def at_the_same_time(*calls: Callable[[], np.ndarray]) -> list[np.ndarray]:
    """Results of calls that begin together, each in a thread of its own."""
    results: dict[int, np.ndarray] = {}
    start = threading.Barrier(len(calls), timeout=DEADLINE_S)

    def run(number: int) -> None:
        start.wait()
        results[number] = calls[number]()

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert len(results) == len(calls)
    return [results[number] for number in range(len(calls))]


@pytest.mark.parametrize("method", BOTH_TRAINED)
def test_a_seed_holds_while_another_thread_draws(slides, method):
    alone = predicted(slides, method, 7)
    with somebody_who_draws():
        beside = predicted(slides, method, 7)
    np.testing.assert_array_equal(beside, alone)


@pytest.mark.parametrize("methods", [("mlp", "mlp"), ("bleep", "mlp"), ("spahgc", "spahgc"), ("spahgc", "bleep")])
def test_two_threads_predict_what_each_predicts_alone(slides, methods):
    alone = [predicted(slides, method, seed) for seed, method in enumerate(methods)]
    calls = [lambda seed=seed, method=method: predicted(slides, method, seed) for seed, method in enumerate(methods)]
    for together, expected in zip(at_the_same_time(*calls), alone, strict=True):
        np.testing.assert_array_equal(together, expected)


def test_two_threads_predict_with_one_model(slides):
    model = sp.tl.fit(slides[2:], preset=PRESET, device="cpu")
    alone = [model.predict(slide) for slide in slides[:2]]
    calls = [lambda slide=slide: model.predict(slide) for slide in slides[:2]]
    for together, expected in zip(at_the_same_time(*calls), alone, strict=True):
        np.testing.assert_array_equal(together, expected)


@pytest.mark.parametrize("method", METHODS)
def test_a_prediction_leaves_all_global_generators_alone(slides, method):
    before = states()
    predicted(slides, method, 1)
    assert states() == before


def test_fit_save_and_load_leave_all_global_generators_alone(slides, tmp_path):
    before = states()
    sp.tl.fit(slides[1:], preset=PRESET, device="cpu").save(tmp_path / "model")
    assert states() == before
    sp.SpaHGC.load(tmp_path / "model")
    assert states() == before


def test_a_cross_validation_leaves_all_global_generators_alone(slides):
    before = states()
    sp.tl.cross_validate(slides, methods=["mlp", "mean"], n_bootstrap=20)
    assert states() == before


def test_embedding_leaves_all_global_generators_alone():
    (slide,) = sp.datasets.simulated(n_slides=1, n_patients=1, n_spots=20, n_genes=60, seed=4)
    before = states()
    sp.pp.embed(slide, encoder="efficientnet_lite0", device="cpu", batch_size=6)
    assert states() == before


def test_a_model_of_timm_is_built_without_the_global_generators(tmp_path):
    import timm
    from safetensors.torch import save_file

    file = tmp_path / "resnet10t.safetensors"
    save_file(timm.create_model("resnet10t", num_classes=0).state_dict(), file)
    before = states()
    sp.encoders.load_encoder("resnet10t", checkpoint=file)
    assert states() == before


@pytest.mark.parametrize("function", ["domains_kmeans", "domains_leiden", "simulated", "enrich"])
def test_other_steps_leave_all_global_generators_alone(slides, function):
    sample = slides[0].copy()
    sp.tl.predict(sample, slides[1:], method="ridge")
    before = states()
    if function == "simulated":
        sp.datasets.simulated(n_slides=1, n_patients=1, n_spots=60, n_genes=60)
    elif function == "enrich":
        pytest.importorskip("decoupler")
        import pandas as pd

        net = pd.DataFrame({"source": "a", "target": sample.var_names[:20]})
        sp.tl.enrich(sample, net)
    else:
        kind = function.removeprefix("domains_")
        if kind == "leiden":
            pytest.importorskip("igraph")
        sp.tl.domains(sample, n_domains=None if kind == "leiden" else 3)
    assert states() == before


@pytest.mark.parametrize("size", [(3, 2), (64, 1), (500, 300)])
def test_drawing_from_a_seed_builds_what_a_global_seed_builds(size):
    parts = [nn.Linear, lambda a, b: nn.Conv1d(a, b, 3), lambda a, b: nn.Embedding(a, b), lambda a, b: nn.GRU(a, b)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        expected = [part(*size).state_dict() for part in parts]
    before = torch.get_rng_state()
    with drawing_from(11):
        built = [part(*size).state_dict() for part in parts]
    assert torch.equal(torch.get_rng_state(), before)
    for one, other in zip(built, expected, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in other)


@pytest.mark.parametrize("name", [*_random.FILLS, *_random.DRAWS])
def test_every_function_that_draws_is_handed_the_generator(name):
    calls = {
        "geometric_": (0.5,),
        "rand": (4,),
        "randn": (4,),
        "randint": (9, (4,)),
        "randperm": (9,),
        "normal": (torch.zeros(4), torch.ones(4)),
        "bernoulli": (torch.full((4,), 0.5),),
        "multinomial": (torch.ones(4), 2),
    }
    arguments = calls.get(name, ())

    def draw() -> torch.Tensor:
        if name.endswith("_"):
            return getattr(torch.zeros(9), name)(*arguments)
        return getattr(torch, name)(*arguments)

    before = torch.get_rng_state()
    with drawing_from(2):
        first = draw()
    with drawing_from(2):
        assert torch.equal(draw(), first)
    assert torch.equal(torch.get_rng_state(), before)


def test_what_was_given_a_generator_keeps_it():
    own = torch.Generator().manual_seed(1)
    with drawing_from(2):
        drawn = torch.rand(3, generator=own)
    assert torch.equal(drawn, torch.rand(3, generator=torch.Generator().manual_seed(1)))


def test_dropout_hides_what_torch_hides_at_the_same_seed():
    x = torch.arange(1.0, 2001.0).reshape(50, 40).requires_grad_()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        expected = F.dropout(x, 0.3)
    part = Dropout(0.3)
    part.generator = torch.Generator().manual_seed(5)
    assert torch.equal(part(x), expected)
    assert not torch.equal(part(x), part(x))
    assert torch.equal(part.eval()(x), x)
