"""Fixtures that several test files share."""

from __future__ import annotations

import os
import sys
from dataclasses import replace

# Read when the first parallel runtime is loaded. The tests' networks are too small to share out, and threads that spin
# while they wait for each other bring a machine that is busy elsewhere nearly to a halt.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import numpy as np
import pytest
from anndata import AnnData

import spahgc as sp
from spahgc._parameters import EXPERTS, PRESETS, Parameters

EMBEDDING = "X_sim"
LONG_FILES = (
    "test_docs_howto.py",
    "test_readme.py",
    "test_register.py",
    "test_ended_processes.py",
    "test_distributed.py",
    "test_cli_ways.py",
    "test_killed.py",
    "test_races.py",
    "test_fuzz.py",
    "test_full_disk.py",
    "test_contributions.py",
    "test_trust_cases.py",
    "test_her2st.py",
    "test_place.py",
    "test_saving.py",
    "test_damaged_matrices.py",
    "test_cli.py",
    "test_cli_commands.py",
    "test_privacy.py",
)
"""Files of 20 seconds and more, whatever the number of their tests. Begun last, one of them would keep a single process busy."""
RECORD = {
    "name": "sim",
    "revision": "1",
    "dim": 24,
    "input_px": 224,
    "mpp": "native",
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "interpolation": "bicubic",
    "pooling": "none",
    "precision": "fp32",
    "context": "patch",
}


def pytest_configure(config: pytest.Config) -> None:
    """Let pytest-xdist take files in the order of the collection instead of that of their numbers of tests."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that take longest first; all others stay in their order."""
    place = {name: number for number, name in enumerate(LONG_FILES)}
    items.sort(key=lambda item: place.get(item.path.name, len(LONG_FILES)))


@pytest.fixture(autouse=True)
def _quiet() -> None:
    sp.settings.progress = False


@pytest.fixture(autouse=True)
def _as_from_an_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages name commands for where the package came from, which differs by machine."""
    monkeypatch.setattr("spahgc._installation._origin", dict)


@pytest.fixture(autouse=True)
def _as_many_threads_as_were_asked_for() -> None:
    """Numba, which scanpy and squidpy run on, sets torch's threads to its own number."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


@pytest.fixture(autouse=True)
def _no_figures_of_the_tests_before() -> None:
    """Which tests a process ran before is chance; what they left open would be counted."""
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture(scope="session")
def her2st() -> Path:
    """Folder of the measured slides; skips where there is none, fails where there must be one."""
    named = os.environ.get("SPAHGC_TEST_DATA")
    root = Path(named) if named else Path(__file__).parents[2] / "shared" / "data"
    folder = root / "her2st"
    if not folder.is_dir():
        message = f"no measured slides in {root}; set SPAHGC_TEST_DATA to the folder that holds her2st/"
        if os.environ.get("SPAHGC_REQUIRE_DATA") == "1":
            pytest.fail(message)
        pytest.skip(message)
    return folder


def add_embedding(slide: AnnData, *, seed: int = 0) -> AnnData:
    """An embedding that knows the tissue domains and nothing else, as a good encoder would, and quickly."""
    rng = np.random.default_rng(
        [seed, slide.n_obs, len(slide.obs["slide"].iloc[0]), ord(slide.obs["slide"].iloc[0][-1])]
    )
    domains = np.asarray(slide.obsm["truth_domains"])
    mixing = np.random.default_rng(seed).normal(size=(domains.shape[1], RECORD["dim"]))
    noise = rng.normal(scale=0.3, size=(slide.n_obs, RECORD["dim"]))
    slide.obsm[EMBEDDING] = (domains @ mixing + noise + 1).astype(np.float32)
    slide.uns["spahgc"] = {"embeddings": {EMBEDDING: dict(RECORD)}}
    return slide


@pytest.fixture(scope="session")
def _cohort() -> list[AnnData]:
    slides = sp.datasets.simulated(n_slides=4, n_patients=2, n_spots=70, n_genes=60, n_domains=3, seed=3)
    for slide in slides:  # the pixels are not needed here, and copies of them cost time
        del slide.uns["spatial"]
    return [add_embedding(slide) for slide in slides]


@pytest.fixture
def cohort(_cohort: list[AnnData]) -> list[AnnData]:
    """Four small simulated slides of two patients with an embedding in ``obsm["X_sim"]``; a fresh copy for each test."""
    return [slide.copy() for slide in _cohort]


@pytest.fixture(scope="session")
def quick() -> Parameters:
    """A network that trains in a second."""
    return Parameters(width=32, layers=2, heads=2, epochs=4, learning_rate=1e-3)


@pytest.fixture(scope="session")
def quick_default() -> Parameters:
    """The default with a smaller network, hardly any training, and without the experts that take seconds."""
    return replace(PRESETS["default"], experts=("kernel", "kernel_overall", "graph"), width=32, epochs=3)


@pytest.fixture(scope="session")
def every_expert() -> Parameters:
    """The default with all experts that there are, and hardly any training of the graph."""
    return replace(PRESETS["default"], experts=EXPERTS, width=32, epochs=3)


@pytest.fixture(scope="session")
def line_and_graph() -> Parameters:
    """A line and a small network that sends states along the edges, averaged by a fixed share."""
    return replace(
        PRESETS["default"],
        n_components=(2, 3, 4, 5, 6, 8, 12, 20),
        by_slide=False,
        experts=(),
        n_retrieved=0,
        width=32,
        layers=2,
        target_hidden=0.8,
        reference_hidden=0.9,
        epochs=3,
        step_references=0,
    )


@pytest.fixture
def target(cohort: list[AnnData]) -> AnnData:
    """Slide P1S1."""
    return cohort[0]


@pytest.fixture
def refs(cohort: list[AnnData]) -> list[AnnData]:
    """Slides P2S1, P1S2 and P2S2."""
    return cohort[1:]
