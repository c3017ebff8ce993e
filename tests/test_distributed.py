"""Several processes that train one network, and many slides on the workers of a cluster."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
import torch
from anndata import AnnData

import spahgc as sp
from spahgc._many import jobs as _many
from spahgc._parameters import Parameters
from spahgc._settings import LAUNCHED, launched
from spahgc._training import processes as _processes
from spahgc._training.networks import new_network
from spahgc.nn import Task, train
from spahgc.pp._search.exact import cosine_neighbors
from spahgc.tl import _predict_many

TOLERANCE = 1e-5
"""By how much a loss may differ between one process and two, which add in another order."""

WEIGHT_DECAY = 0.1
"""So much that the size of a gradient matters: to Adam alone twice a gradient is the same as once."""

RANK_SCRIPT = """
import json, os, sys
from dataclasses import replace
from pathlib import Path
import anndata as ad
import spahgc as sp

folder = Path(sys.argv[1])
sp.settings.progress = False
refs = [ad.read_h5ad(path) for path in sorted(folder.glob("*.h5ad"))]
quick = sp.Parameters(**json.loads((folder / "parameters.json").read_text()))
rank = int(os.environ["RANK"])
found = {}
for per_step in (2, 3):
    model = sp.tl.fit(refs, preset=replace(quick, tasks_per_step=per_step), device="cpu")
    weights = [part.tolist() for part in model.networks[0].parameters()]
    found[per_step] = {"losses": [record.to_dict() for record in model.history], "weights": weights}
try:
    sp.tl.fit(refs[rank:], preset=quick, device="cpu")
except ValueError as error:
    found["refused"] = str(error)
(folder / f"rank{rank}.json").write_text(json.dumps(found))
"""


# ---------------------------------------------------------------------------------------------------------- training


@pytest.fixture(scope="module")
def ranks(_cohort: list[AnnData], quick: Parameters, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What two gloo processes found that torchrun started: training on three slides, two or three of them a step."""
    pytest.importorskip("accelerate")
    folder = tmp_path_factory.mktemp("ranks")
    for place, slide in enumerate(_cohort[1:]):
        slide.write_h5ad(folder / f"{place}.h5ad")
    (folder / "parameters.json").write_text(json.dumps(replace(quick, weight_decay=WEIGHT_DECAY).to_dict()))
    script = folder / "rank.py"
    script.write_text(RANK_SCRIPT)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    ran = subprocess.run(
        [*torchrun, str(script), str(folder)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]


def losses_of(records: list[dict[str, float]]) -> np.ndarray:
    return np.array([[*record.values()] for record in records])


@pytest.mark.parametrize("per_step", [2, 3])
def test_two_processes_give_the_losses_of_one(
    ranks: list[dict[str, Any]], refs: list[AnnData], quick: Parameters, per_step: int
) -> None:
    parameters = replace(quick, weight_decay=WEIGHT_DECAY, tasks_per_step=per_step)
    alone = sp.tl.fit(refs, preset=parameters, device="cpu")
    expected = losses_of([record.to_dict() for record in alone.history])
    for found in ranks:
        np.testing.assert_allclose(losses_of(found[str(per_step)]["losses"]), expected, atol=TOLERANCE, rtol=0)


def test_all_processes_return_the_same_model(ranks: list[dict[str, Any]]) -> None:
    for per_step in ("2", "3"):
        assert ranks[0][per_step] == ranks[1][per_step]


def test_processes_that_were_given_different_references_all_stop(ranks: list[dict[str, Any]]) -> None:
    for found in ranks:
        assert "1 of 2 processes were given references that differ" in found["refused"]


def test_a_step_takes_the_mean_gradient_of_its_slides(refs: list[AnnData], quick: Parameters) -> None:
    model = sp.tl.fit(refs, preset=replace(quick, epochs=1), device="cpu")
    features, expression = model.node_features.features, model.node_features.expression
    cross = cosine_neighbors(features[:40], features, quick.n_cross)
    graph = model.graph(features[:40], np.asarray(model.bank.obsm["spatial"])[:40], cross, "cpu")
    task = Task(graph, torch.as_tensor(expression[:40], dtype=torch.float32))
    histories = []
    for tasks, per_step in ([task], 1), ([task] * 3, 3):
        torch.manual_seed(0)
        network = new_network(features.shape[1], expression.shape[1], quick)
        nothing_hidden = Parameters(
            epochs=5,
            learning_rate=1e-3,
            weight_decay=WEIGHT_DECAY,
            target_hidden=0.0,
            reference_hidden=0.0,
            tasks_per_step=per_step,
        )
        records = train(network, tasks, nothing_hidden, rng=np.random.default_rng(0))
        histories.append([record.total for record in records])
    np.testing.assert_allclose(histories[1], histories[0], atol=TOLERANCE)


def test_half_precision_trains_nearly_as_full_precision_does(refs: list[AnnData], quick: Parameters) -> None:
    losses = {
        precision: sp.tl.fit(refs, preset=replace(quick, precision=precision), device="cpu").history[-1].total
        for precision in ("fp32", "bf16")
    }
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.02)
    assert losses["bf16"] != losses["fp32"]


def test_parameters_of_the_training_survive_their_way_through_a_file(quick: Parameters) -> None:
    chosen = replace(quick, tasks_per_step=4, precision="bf16")
    assert Parameters.from_dict(json.loads(json.dumps(chosen.to_dict()))) == chosen


@pytest.mark.parametrize(("name", "value"), [("tasks_per_step", 0), ("tasks_per_step", 1.5), ("precision", "fp8")])
def test_numbers_that_train_nothing_are_refused(quick: Parameters, name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        replace(quick, **{name: value})


def test_a_process_that_was_started_alone_joins_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in LAUNCHED:
        monkeypatch.setenv(name, "1")  # torchrun with one process
    assert not launched()


def test_several_processes_without_accelerate_are_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in LAUNCHED:
        monkeypatch.setenv(name, "2")
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(ImportError, match=r"pip install \"spahgc\[distributed\]\""):
        _processes.joined_processes("cpu")


def test_processes_without_work_are_warned_of() -> None:
    with pytest.warns(UserWarning, match=r"2 of 4 processes have nothing to do.*tasks_per_step=4"):
        _processes.warn_of_idle(_processes.ProcessGroup(0, 4, "cpu"), tasks_per_step=2, n_tasks=3)


# -------------------------------------------------------------------------------------------------------- many slides


@contextmanager
def forked_from(context: Any, modules: list[str]) -> Iterator[None]:
    """Processes of the context find these modules loaded; afterwards, as before, what dask asks for."""
    context.set_forkserver_preload(modules)
    yield
    context.set_forkserver_preload(["distributed"])


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """Two workers, each a process of one thread; they are forked off a process that has loaded the libraries once."""
    distributed = pytest.importorskip("distributed")
    import dask
    from distributed.utils import get_mp_context

    with (
        dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}),
        forked_from(get_mp_context(), ["distributed", "torch", "anndata", "spahgc.tl._predict_many"]),
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def disk(_cohort: list[AnnData], quick: Parameters, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a saved model and four small targets."""
    folder = tmp_path_factory.mktemp("disk")
    sp.tl.fit(_cohort[:2], preset=replace(quick, epochs=1), device="cpu").save(folder / "model")
    for place, slide in enumerate(_cohort[2:]):
        lean(slide).write_h5ad(folder / f"whole{place}.h5ad")
        lean(slide[:40]).write_h5ad(folder / f"part{place}.h5ad")
    return folder


def lean(slide: AnnData) -> AnnData:
    """What a prediction needs of a slide: every array that is written takes its time, whatever its size."""
    return AnnData(obs=slide.obs[["slide"]], obsm=dict(slide.obsm), uns={"spahgc": slide.uns["spahgc"]})


@pytest.fixture
def predict_many(disk: Path) -> Callable[..., Any]:
    targets = [disk / "part0.h5ad", disk / "whole1.h5ad"]
    return lambda folder, **options: sp.tl.predict_many(
        **{"targets": targets, "folder": folder, "model": disk / "model", "device": "cpu"} | options
    )


def content(folder: Path) -> dict[str, bytes]:
    """All files below a folder, hidden ones among them."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_cluster_writes_the_files_of_the_serial_run_though_a_worker_dies(
    client: Any, predict_many: Callable[..., Any], disk: Path, tmp_path: Path
) -> None:
    def arm(marker: str) -> None:
        """Let the first worker that has all but written a second slide die over it."""
        import os
        import signal

        from anndata import AnnData

        real, slides = AnnData.write_zarr, []

        def dying(*arguments: Any, **options: Any) -> None:
            slides.append(1)
            real(*arguments, **options)
            if len(slides) == 2 and not os.path.exists(marker):
                with open(marker, "w") as file:
                    file.write(str(os.getpid()))
                os.kill(os.getpid(), signal.SIGKILL)

        AnnData.write_zarr = dying

    marker = tmp_path / "died"
    client.run(arm, str(marker))
    before = set(client.run(os.getpid).values())
    targets = sorted(disk.glob("*.h5ad"))
    table = predict_many(tmp_path / "cluster", targets=targets, client=client)
    predict_many(tmp_path / "serial", targets=targets)

    assert int(marker.read_text()) in before
    assert list(table["status"]) == ["written"] * 4
    there = content(tmp_path / "cluster")
    assert len({name.split("/")[0] for name in there}) == 4  # and no part of what the dead one was writing
    assert there == content(tmp_path / "serial")


def test_a_cluster_embeds_with_an_encoder_that_every_worker_makes(client: Any, tmp_path: Path) -> None:
    def make() -> Any:
        import torch
        from PIL import Image

        class Colour(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.weights = torch.nn.Parameter(torch.eye(3))

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x.mean(dim=(2, 3)) @ self.weights

        def transform(image: Image.Image) -> torch.Tensor:
            return torch.from_numpy(np.asarray(image, dtype=np.float32).copy()).permute(2, 0, 1) / 255

        return Colour(), transform

    paths = {}
    for slide in sp.datasets.simulated(n_slides=2, n_patients=1, n_spots=20, n_genes=20, n_domains=2):
        name = slide.obs["slide"].iloc[0]
        del slide.uns["truth"]
        slide.write_h5ad(tmp_path / f"{name}.h5ad")
        paths[f"slide {name}"] = tmp_path / f"{name}.h5ad"
    for folder, through in ("serial", None), ("cluster", client):
        sp.pp.embed_many(paths, tmp_path / folder, encoder=make, client=through, device="cpu", mpp=0.8)
    written = ad.read_zarr(tmp_path / "cluster" / "slide P1S1.zarr")
    assert written.obsm["X_colour"].shape == (20, 3)
    assert content(tmp_path / "cluster") == content(tmp_path / "serial")


def test_ctrl_c_cancels_what_is_waiting(
    client: Any, predict_many: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted:
        def __enter__(self) -> Interrupted:
            return self

        def __exit__(self, *_: object) -> None: ...

        def update(self) -> None:
            raise KeyboardInterrupt

    cancelled: list[Any] = []
    real = client.cancel
    monkeypatch.setattr(client, "cancel", lambda futures: (cancelled.extend(futures), real(futures)))
    monkeypatch.setattr(_many, "progress_bar", lambda **_: Interrupted())
    with pytest.raises(KeyboardInterrupt):
        predict_many(tmp_path / "out", client=client)
    assert len(cancelled) == 1
    assert all(future.status == "cancelled" for future in cancelled)


def test_what_is_finished_is_kept(predict_many: Callable[..., Any], tmp_path: Path) -> None:
    predict_many(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    (tmp_path / "part0.zarr").rename(tmp_path / "elsewhere")
    table = predict_many(tmp_path)
    assert dict(zip(table["name"], table["status"], strict=True)) == {"part0": "written", "whole1": "kept"}
    assert all(path.stat().st_mtime_ns == then for path, then in before.items() if "whole1.zarr" in path.parts)


def test_the_written_slide_holds_what_predict_writes(
    predict_many: Callable[..., Any], disk: Path, tmp_path: Path
) -> None:
    predict_many(tmp_path, targets=[disk / "whole0.h5ad"])
    target = ad.read_h5ad(disk / "whole0.h5ad")
    sp.tl.predict(target, model=sp.SpaHGC.load(disk / "model"), device="cpu")
    written = ad.read_zarr(tmp_path / "whole0.zarr")
    np.testing.assert_array_equal(written.layers["spahgc"], target.layers["spahgc"])
    assert set(written.uns["spahgc"]["made_with"]["predict"]) == {"model", "key_added", "source"}


def test_results_of_another_model_are_refused_before_a_slide_is_read(
    predict_many: Callable[..., Any], disk: Path, tmp_path: Path
) -> None:
    predict_many(tmp_path, targets=[disk / "part0.h5ad"])
    before = content(tmp_path)
    other = tmp_path.parent / f"{tmp_path.name}-model"
    shutil.copytree(disk / "model", other)
    description = json.loads((other / "model.json").read_text())
    (other / "model.json").write_text(json.dumps(description | {"seed": 7}))
    with pytest.raises(FileExistsError, match=r"made from something else \(model\).*overwrite=True"):
        predict_many(tmp_path, model=other)  # part0, and whole1 which is not there yet
    assert content(tmp_path) == before
    table = predict_many(tmp_path, targets=[disk / "part0.h5ad"], model=other, overwrite=True)
    assert list(table["status"]) == ["written"]
    assert ad.read_zarr(tmp_path / "part0.zarr").uns["spahgc"]["predictions"]["spahgc"]["seed"] == 7


def test_a_slide_that_changed_since_is_refused(
    predict_many: Callable[..., Any], cohort: list[AnnData], tmp_path: Path
) -> None:
    path = tmp_path / "slide.h5ad"
    lean(cohort[2]).write_h5ad(path)
    predict_many(tmp_path / "out", targets=[path])
    lean(cohort[2][:50]).write_h5ad(path)
    with pytest.raises(ExceptionGroup) as caught:
        predict_many(tmp_path / "out", targets=[path], retries=0)
    assert caught.group_contains(FileExistsError, match=r"something else \(source\)")
    predict_many(tmp_path / "out", targets=[path], overwrite=True)
    assert ad.read_zarr(tmp_path / "out" / "slide.zarr").n_obs == 50


def test_a_slide_that_fails_does_not_stop_the_others(
    predict_many: Callable[..., Any], disk: Path, cohort: list[AnnData], tmp_path: Path
) -> None:
    bad = tmp_path / "bad.h5ad"
    del cohort[3].obsm["X_sim"]
    lean(cohort[3]).write_h5ad(bad)
    with pytest.raises(
        ExceptionGroup, match=r'1 of 2 slides failed: "bad" \(KeyError: obsm\["X_sim"\] not found'
    ) as it:
        predict_many(tmp_path / "out", targets=[bad, disk / "whole0.h5ad"])
    assert it.value.exceptions[0].__notes__ == ['slide "bad"']
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["whole0.zarr"]


@pytest.mark.parametrize(("retries", "fine"), [(0, False), (2, True)])
def test_a_failed_slide_is_tried_again(
    predict_many: Callable[..., Any],
    disk: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    retries: int,
    fine: bool,
) -> None:
    real, calls = _predict_many.predict, []

    def failing(*arguments: Any, **options: Any) -> None:
        calls.append(1)
        if len(calls) < 3:
            raise OSError("the disk is away")
        real(*arguments, **options)

    monkeypatch.setattr(_predict_many, "predict", failing)
    targets = [disk / "part0.h5ad"]
    if fine:
        assert list(predict_many(tmp_path, targets=targets, retries=retries)["status"]) == ["written"]
    else:
        with pytest.raises(ExceptionGroup, match="the disk is away"):
            predict_many(tmp_path, targets=targets, retries=retries)
    assert len(calls) == (3 if fine else 1)


def test_an_image_that_changed_is_no_longer_the_same_slide(tmp_path: Path) -> None:
    from spahgc.pp._embed.many import Embedding

    path, image = tmp_path / "slide.h5ad", tmp_path / "image.png"
    uns = {"spatial": {"A": {"metadata": {"source_image_path": str(image)}}}}
    AnnData(np.zeros((2, 2), dtype=np.float32), uns=uns).write_h5ad(path)
    operation = Embedding("uni", None, None, {}, {})
    image.write_bytes(b"one")
    before = operation.linked_files(path)
    image.write_bytes(b"two")
    assert operation.linked_files(path) != before


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"targets": []}, ValueError, "list of slides is empty"),
        ({"targets": "slide.h5ad"}, TypeError, "list of paths"),
        ({"targets": ["gone.h5ad"]}, FileNotFoundError, "no such slide"),
        ({"targets": {"a/b": "gone.h5ad"}}, ValueError, "name of a file"),
        ({"client": "tcp://node:8786"}, TypeError, "must be a dask.distributed.Client"),
        ({"model": "gone"}, FileNotFoundError, "no saved model"),
        ({"retries": -1}, ValueError, "retries=-1"),
        ({"key_added": "a/b"}, ValueError, "cannot name a layer"),
    ],
)
def test_arguments_that_cannot_work_are_refused(
    predict_many: Callable[..., Any], tmp_path: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        predict_many(tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_two_slides_of_one_name_need_names(predict_many: Callable[..., Any], disk: Path, tmp_path: Path) -> None:
    (tmp_path / "part0.h5ad").write_bytes((disk / "part0.h5ad").read_bytes())
    with pytest.raises(ValueError, match='two slides are called "part0"'):
        predict_many(tmp_path / "out", targets=[disk / "part0.h5ad", tmp_path / "part0.h5ad"])


def test_embed_many_knows_the_arguments_of_embed(disk: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r'no arguments "contxt".*stain_normalization'):
        sp.pp.embed_many([disk / "part0.h5ad"], tmp_path / "out", contxt=True)
