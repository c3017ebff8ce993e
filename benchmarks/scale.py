"""Time and peak memory of a prediction, of a fit and of a figure against the number of spots of one slide.

    python benchmarks/scale.py                                   # 5,000, 50,000 and 500,000 spots; hours, 8 GB
    python benchmarks/scale.py --spots 5000 20000 --threads 1

Embeddings are given: 1,024 numbers a spot, made from smooth fields over the tissue, as are the counts of 200 genes,
the panel; drawn is one gene, measured and predicted, into a PNG file. Every number comes from a fresh process, whose largest resident size is its peak; that counts the
embedding, the counts and all libraries. Beside each time stands a floor: the matrix products alone that it cannot do
without, in the same process. Beside each peak stands what was there before the call.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

SPOTS = (5_000, 50_000, 500_000)
DIM, N_FIELDS, N_GENES = 1024, 12, 200
REFERENCE_SPOTS = 2_000
"""Spots of each of the two references of a prediction."""
FIELD_SPOTS = 15.0
"""Length over which the tissue changes, in spots: a larger slide shows more tissue, not the same one in finer spots."""
NOISE = 0.5
BLOCK = 8_192
KEY = "X_given"
BYTES_PER_GB = 1e9
KIB = 1024


def peak_gb() -> float:
    """Largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIB / BYTES_PER_GB


class Clock:
    """Seconds since it was made, of the wall and of this process's threads together."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def read(self, name: str) -> dict[str, float]:
        return {name: time.perf_counter() - self.wall, f"{name} cpu": time.process_time() - self.cpu}


def make_slide(n: int, seed: int, *, counts: bool) -> Any:
    """A slide whose embedding, and counts if wanted, follow the same smooth fields."""
    import numpy as np
    import pandas as pd
    from anndata import AnnData
    from scipy.sparse import csr_matrix, vstack

    shared, own = np.random.default_rng(0), np.random.default_rng([1, seed])
    waves = shared.normal(size=(2, 4 * N_FIELDS)) / FIELD_SPOTS
    phases, mixing = 2 * np.pi * shared.random(4 * N_FIELDS), shared.normal(size=(4 * N_FIELDS, N_FIELDS)) / 2
    to_embedding = shared.normal(size=(N_FIELDS, DIM)).astype(np.float32)
    to_genes, level = 0.5 * shared.normal(size=(N_FIELDS, N_GENES)), shared.normal(-2, 1, N_GENES)
    side = int(np.ceil(np.sqrt(n)))
    place = np.column_stack(np.divmod(np.arange(n), side)) + own.uniform(-0.2, 0.2, (n, 2))
    z, parts = np.empty((n, DIM), np.float32), []
    for start in range(0, n, BLOCK):
        rows = slice(start, start + BLOCK)
        fields = np.tanh(np.sin((place[rows] + 1000 * seed) @ waves + phases) @ mixing)
        z[rows] = fields.astype(np.float32) @ to_embedding
        z[rows] += NOISE * own.standard_normal((len(fields), DIM), dtype=np.float32)
        if counts:
            parts.append(csr_matrix(own.poisson(np.exp(fields @ to_genes + level)).astype(np.float32)))
    names = [f"gene{i}" for i in range(N_GENES if counts else 0)]
    slide = AnnData(
        vstack(parts, format="csr") if counts else None,
        obs=pd.DataFrame({"slide": f"slide{seed}"}, index=[str(i) for i in range(n)]),
        var=pd.DataFrame(index=names),
    )
    slide.obsm[KEY], slide.obsm["spatial"] = z, 100 * place
    return slide


def products(z: Any, width: int, n_compared: tuple[tuple[int, int], ...]) -> dict[str, float]:
    """Seconds of the bare float32 products: onto axes twice, and with the spots that are compared (dim, how many)."""
    import torch

    axes = torch.randn(z.shape[1], 2 * width)
    others = [torch.randn(dim, many) for dim, many in n_compared]
    clock = Clock()
    for start in range(0, len(z), BLOCK):
        block = torch.from_numpy(z[start : start + BLOCK])
        block @ axes
        for other in others:
            block[:, : len(other)] @ other
    return clock.read("floor")


def predict(n: int, folder: Path, device: str) -> dict[str, float]:
    import spahgc as sp
    from spahgc._spots.support import MAX_ANCHORS

    model = sp.SpaHGC.load(folder)
    # The first call loads libraries: once, whatever the size.
    sp.tl.predict(make_slide(500, 3, counts=False), model=model, device=device)
    slide = make_slide(n, 4, counts=False)
    before, clock = peak_gb(), Clock()
    sp.tl.predict(slide, model=model, device=device)
    taken, peak = clock.read("seconds"), peak_gb()
    width = model.node_features.features.shape[1]
    floor = products(slide.obsm[KEY], width, ((width, model.bank.n_obs), (DIM, min(MAX_ANCHORS, model.bank.n_obs))))
    return {**taken, **floor, "before": before, "peak": peak}


def fit(n: int, device: str, epochs: int | None) -> dict[str, float]:
    import spahgc as sp
    from spahgc._parameters import PRESETS

    panel = [f"gene{i}" for i in range(N_GENES)]
    slide = make_slide(n, 4, counts=True)
    before, clock = peak_gb(), Clock()
    preset = replace(PRESETS["default"], epochs=epochs or PRESETS["default"].epochs)
    model = sp.tl.fit(slide, genes=panel, embedding=KEY, device=device, preset=preset)
    taken, peak = clock.read("seconds"), peak_gb()
    floor = products(slide.obsm[KEY], model.node_features.features.shape[1], ())
    return {**taken, **floor, "before": before, "peak": peak}


def figure(n: int) -> dict[str, float]:
    import numpy as np

    import spahgc as sp

    slide = make_slide(n, 4, counts=True)
    slide.layers["spahgc"] = np.log1p(np.asarray(slide.X.todense(), dtype=np.float32))
    slide.var["spahgc_panel"] = True
    del slide.obsm[KEY]
    record = {"units": "log1p counts per 10,000", "genes": [str(gene) for gene in slide.var_names]}
    slide.uns["spahgc"] = {"predictions": {"spahgc": record}}
    with tempfile.TemporaryDirectory() as home:
        # The first call loads libraries: once, whatever the size.
        sp.pl.spatial_genes(slide[:500].copy(), slide.var_names[0], save=Path(home) / "first.png")
        before, clock = peak_gb(), Clock()
        sp.pl.spatial_genes(slide, slide.var_names[0], save=Path(home) / "genes.png")
        taken = clock.read("seconds")
    return {**taken, "floor": 0.0, "before": before, "peak": peak_gb()}


def make_model(folder: Path, device: str) -> None:
    import spahgc as sp

    refs = [make_slide(REFERENCE_SPOTS, seed, counts=True) for seed in (1, 2)]
    sp.tl.fit(refs, genes=[f"gene{i}" for i in range(N_GENES)], embedding=KEY, device=device).save(folder)


def child(arguments: argparse.Namespace) -> None:
    """One figure, in a process of its own."""
    import torch

    import spahgc as sp

    sp.settings.progress = False
    torch.set_num_threads(arguments.threads)
    label, n, folder = arguments.child.split(",")
    if label == "model":
        make_model(Path(folder), arguments.device)
        return
    if label == "predict":
        print(json.dumps(predict(int(n), Path(folder), arguments.device)))
    elif label == "figure":
        print(json.dumps(figure(int(n))))
    else:
        print(json.dumps(fit(int(n), arguments.device, arguments.epochs)))


def measure(label: str, n: int, folder: str, arguments: argparse.Namespace) -> dict[str, float]:
    threads = {f"{name}_NUM_THREADS": str(arguments.threads) for name in ("OMP", "MKL", "OPENBLAS")}
    options = ["--threads", str(arguments.threads), "--device", arguments.device, "--child", f"{label},{n},{folder}"]
    options += ["--epochs", str(arguments.epochs)] if arguments.epochs else []
    done = subprocess.run(
        [sys.executable, __file__, *options],
        env={**os.environ, **threads},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1]) if done.stdout else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spots", type=int, nargs="+", default=list(SPOTS))
    parser.add_argument("--what", nargs="+", choices=["predict", "fit", "figure"], default=["predict", "fit"])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--epochs", type=int, help="of a fit; those of the default preset where it is left out")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments)
        return
    print(
        f"one slide, embedding of {DIM} numbers, panel of {N_GENES} genes; {arguments.threads} threads, "
        f"device {arguments.device}"
    )
    print(
        "| what | spots | seconds | us a spot | CPU us a spot | to the smallest | floor, us a spot | GB before | peak GB |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as home:
        folder = str(Path(home) / "model")
        if "predict" in arguments.what:
            measure("model", 0, folder, arguments)
        for label in arguments.what:
            smallest = None
            for n in sorted(arguments.spots):
                got = measure(label, n, folder, arguments)
                wall, cpu, floor = (1e6 * got[name] / n for name in ("seconds", "seconds cpu", "floor"))
                smallest = smallest or wall
                print(
                    f"| {label} | {n:,} | {got['seconds']:.1f} | {wall:.0f} | {cpu:.0f} | {wall / smallest:.2f} | "
                    f"{floor:.0f} | {got['before']:.2f} | {got['peak']:.2f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
