"""Two processes against one: a training under torchrun, and predictions on the workers of a cluster.

    OMP_NUM_THREADS=1 python benchmarks/distributed.py

Slides are random numbers with a structure in the plane. Every process has one thread, and everything runs on the CPU.
The floor of two processes is half the time of one, which a machine with two free cores could reach if nothing were
computed twice and nothing exchanged. Printed beside the times is whether the results agree: losses of the two gloo processes with
those of one, files of the cluster with those of the serial run, byte for byte. Exit code 1 if they do not. Under two minutes.
"""

# ruff: noqa: E402 - threads and paths have to be set before the imports

from __future__ import annotations

import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when the first parallel runtime is loaded
os.environ.setdefault("MKL_NUM_THREADS", "1")
# This file bears the name of a package, which is imported below and must not be looked for beside it.
sys.path = [folder for folder in sys.path if os.path.realpath(folder) != os.path.dirname(os.path.realpath(__file__))]

import argparse
import json
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import torch
from anndata import AnnData
from distributed import Client, LocalCluster
from scipy.sparse import csr_matrix

import spahgc as sp

TOLERANCE = 1e-5
"""By how much a loss may differ between one process and two, which add in another order."""
PITCH_PX = 100.0
PROCESSES = 2
RESULT = "result.json"


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(1)
    sp.settings.progress = False
    if arguments.rank_of is not None:
        measure_training(arguments.rank_of)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_slides(folder, arguments)
        trained, losses_agree = compare_training(folder)
        predicted, files_agree = compare_predictions(folder)
    print(f"training: {arguments.references} references of {arguments.spots} spots, {PROCESSES} slides a step\n")
    print(table(trained))
    print(f"\nprediction: {arguments.targets} slides of {arguments.target_spots} spots\n")
    print(table(predicted))
    if not (losses_agree and files_agree):
        sys.exit("results differ")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--references", type=int, default=4, help="reference slides")
    parser.add_argument("--spots", type=int, default=500, help="spots of a reference")
    parser.add_argument("--targets", type=int, default=6, help="slides to predict")
    parser.add_argument("--target-spots", type=int, default=2000, help="spots of a slide to predict")
    parser.add_argument("--genes", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--rank-of", type=Path, help=argparse.SUPPRESS)  # a process that torchrun started
    return parser.parse_args()


def write_slides(folder: Path, arguments: argparse.Namespace) -> None:
    sizes = [
        ("references", arguments.references, arguments.spots),
        ("targets", arguments.targets, arguments.target_spots),
    ]
    for kind, count, spots in sizes:
        (folder / kind).mkdir()
        for number in range(count):
            slide = random_slide(f"{kind}-{number}", spots, arguments.genes if kind == "references" else 0)
            slide.write_h5ad(folder / kind / f"{kind}-{number}.h5ad")
    parameters = sp.Parameters(
        n_abundant=10**6, width=128, layers=2, epochs=arguments.epochs, learning_rate=1e-3, tasks_per_step=PROCESSES
    )
    (folder / "parameters.json").write_text(json.dumps(parameters.to_dict()))


def random_slide(name: str, n_spots: int, n_genes: int, dim: int = 256) -> AnnData:
    """Waves in the plane, seen by embedding and genes alike."""
    rng = np.random.default_rng(list(name.encode()))
    side = int(np.ceil(np.sqrt(n_spots)))
    xy = np.argwhere(np.ones((side, side)))[:n_spots] * PITCH_PX
    waves = np.sin(xy @ rng.normal(scale=0.01, size=(2, 8)) + rng.uniform(0, 6, 8))
    shared = np.random.default_rng(0)
    z = waves @ shared.normal(size=(8, dim)) + rng.normal(size=(n_spots, dim))
    loadings = shared.normal(scale=0.5, size=(8, n_genes))
    counts = csr_matrix(rng.poisson(np.exp(waves @ loadings)).astype(np.float32)) if n_genes else None
    slide = AnnData(
        counts, obsm={"X_random": z.astype(np.float32), "spatial": xy}, shape=None if n_genes else (n_spots, 0)
    )
    slide.obs["slide"] = name
    slide.uns["spahgc"] = {"embeddings": {"X_random": {"name": "random", "dim": dim}}}
    return slide


def measure_training(folder: Path) -> None:
    """Train, alone or as one of several processes, and leave losses and seconds in the folder."""
    parameters = sp.Parameters.from_dict(json.loads((folder / "parameters.json").read_text()))
    refs = [ad.read_h5ad(path) for path in sorted((folder / "references").iterdir())]
    # Once before, so that neither time holds what a process does only once.
    sp.tl.fit(refs, genes="all", preset=replace(parameters, epochs=1), device="cpu")
    started = time.perf_counter()
    model = sp.tl.fit(refs, genes="all", preset=parameters, device="cpu")
    seconds = time.perf_counter() - started
    rank, count = (os.environ.get(name, default) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1")))
    if rank == "0":
        losses = [list(record.to_dict().values()) for record in model.history]
        (folder / f"{count}-{RESULT}").write_text(json.dumps({"seconds": seconds, "losses": losses}))
        if count == "1":
            model.save(folder / "model")


def compare_training(folder: Path) -> tuple[list[list[Any]], bool]:
    results = {}
    for count in (1, PROCESSES):
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)] if count > 1 else []
        subprocess.run([sys.executable, *launcher, __file__, "--rank-of", str(folder)], check=True)
        results[count] = json.loads((folder / f"{count}-{RESULT}").read_text())
    alone, together = (np.array(results[count]["losses"]) for count in (1, PROCESSES))
    difference = float(np.abs(alone - together).max())
    one, two = (results[count]["seconds"] for count in (1, PROCESSES))
    return [
        ["one process", one, "", ""],
        ["two gloo processes", two, one / PROCESSES, f"losses differ by {difference:.1e} at most"],
    ], difference <= TOLERANCE


def compare_predictions(folder: Path) -> tuple[list[list[Any]], bool]:
    targets = sorted((folder / "targets").iterdir())
    options = {"targets": targets, "model": folder / "model", "device": "cpu"}
    warm_worker(options)
    started = time.perf_counter()
    sp.tl.predict_many(**options, folder=folder / "serial")
    serial = time.perf_counter() - started
    started = time.perf_counter()
    with (
        LocalCluster(n_workers=PROCESSES, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        client.run(warm_worker, options)
        ready = time.perf_counter() - started
        started = time.perf_counter()
        sp.tl.predict_many(**options, folder=folder / "cluster", client=client)
        parallel = time.perf_counter() - started
    same = content(folder / "serial") == content(folder / "cluster")
    return [
        ["one after another", serial, "", ""],
        ["start of two workers, first slide of each", ready, "", ""],
        ["two workers", parallel, serial / PROCESSES, f"files {'the same' if same else 'differ'}, byte for byte"],
    ], same


def warm_worker(options: dict[str, Any]) -> None:
    """Predict a slide, since the first one of a process takes the time of imports and compilations too."""
    with tempfile.TemporaryDirectory() as folder:
        sp.tl.predict_many(**options | {"targets": options["targets"][:1], "folder": folder})


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def table(rows: list[list[Any]]) -> str:
    lines = ["|  | s | floor, s | agreement |", "|---|---|---|---|"]
    for label, seconds, floor, agreement in rows:
        shown = f"{floor:.1f}" if isinstance(floor, float) else floor
        lines.append(f"| {label} | {seconds:.1f} | {shown} | {agreement} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
