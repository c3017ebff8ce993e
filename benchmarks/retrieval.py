"""Retrieval: the exact search beside the bare product, and the approximate one beside the exact one.

    python benchmarks/retrieval.py --folder SCRATCH       # 4 GB on disk, kept for the next run; half an hour on two cores
    python benchmarks/retrieval.py --small                # a minute; too small for its figures to mean anything

1. 20,000 spots against a bank of 200,000 in memory, 1,024 numbers each: the search, and before and after it in the same
   process the floor, which is the bare float32 matrix product through torch in blocks of the same size.
2. 5,000 spots against a bank of 2,000,000 on disk, in half precision: making the index, the exact search of all 5,000,
   and the approximate one, which includes the measurement of its own recall and the reading of the index. The recall in
   the table is that of all 5,000 spots, beside the one that the search itself reports from a sample.

Every phase runs in a process of its own, whose largest resident size is its peak. The bank is made of spots that resemble
embeddings of tissue, not of independent numbers, among which there are no neighbours to speak of: 1,000 clusters
(kinds of tissue) of very unequal size, whose centres follow a spectrum in which the variance of the i-th axis falls as 1/i
(45 % of the variance); within each cluster 32 directions of its own with the same spectrum (35 %); a shift of each slide
(5 %); noise in all directions (15 %). A slide of 5,000 spots shows 60 of the clusters. The spots that are looked for come
from further slides.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

K = 7
CLUSTERS, SHOWN, RANK = 1_000, 60, 32
CENTRE, WITHIN, SHIFT, NOISE = 0.45, 0.35, 0.05, 0.15
"""Shares of the variance."""
SLIDE = 5_000
"""Spots of a slide."""
BYTES_PER_GB = 1e9
MAX_RATIO, MAX_ABOVE_GB = 1.5, 2.0
MIN_RECALL, MIN_FASTER, MAX_PEAK_GB = 0.95, 10.0, 6.0


@dataclass(frozen=True)
class Sizes:
    """Spots that are looked for, spots of the bank, and numbers of a spot."""

    dim: int = 1024
    memory_query: int = 20_000
    memory_bank: int = 200_000
    disk_query: int = 5_000
    disk_bank: int = 2_000_000


SMALL = Sizes(dim=256, memory_query=2_000, memory_bank=20_000, disk_query=500, disk_bank=50_000)


class Tissue:
    """Makes slides; see the top of this file."""

    def __init__(self, dim: int) -> None:
        import torch

        self.random = torch.Generator().manual_seed(0)
        spectrum = torch.arange(1, dim + 1).float() ** -0.5
        spectrum /= spectrum.norm()
        turn = torch.linalg.qr(self._normal(dim, dim))[0]
        self.axes = spectrum[:, None] * turn
        self.centres = CENTRE**0.5 * self._normal(CLUSTERS, dim) @ self.axes
        self.within = (WITHIN / RANK) ** 0.5 * (self._normal(CLUSTERS * RANK, dim) @ self.axes).view(
            CLUSTERS, RANK, dim
        )
        self.common = torch.rand(CLUSTERS, generator=self.random) ** 3 + 0.01
        self.dim = dim

    def _normal(self, *shape: int) -> Any:
        import torch

        return torch.randn(*shape, generator=self.random)

    def slide(self, n: int) -> Any:
        """Embedding of the spots of a slide that was not there before, n x dim, float32."""
        import torch

        shown = torch.multinomial(self.common, SHOWN, generator=self.random)
        cluster = shown[torch.multinomial(self.common[shown], n, replacement=True, generator=self.random)]
        z = (NOISE / self.dim) ** 0.5 * self._normal(n, self.dim)
        z += self.centres[cluster] + SHIFT**0.5 * self._normal(1, self.dim) @ self.axes
        for each in shown.tolist():
            rows = (cluster == each).nonzero().squeeze(1)
            z[rows] += self._normal(len(rows), RANK) @ self.within[each]
        return z

    def slides(self, n: int) -> Any:
        """So many spots, slide after slide."""
        return (self.slide(min(SLIDE, n - start)) for start in range(0, n, SLIDE))


def resident() -> int:
    """Bytes that this process holds now, or where the system does not tell, the most that it has held."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return peak()
    return pages * os.sysconf("SC_PAGE_SIZE")


def peak() -> int:
    """Most bytes that this process has held."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class Watch:
    """Seconds that a block of code takes, and what it holds at most above what was there before."""

    def __enter__(self) -> Watch:
        self.before = self.most = resident()
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._look)
        self.thread.start()
        self.start = time.perf_counter()
        return self

    def _look(self) -> None:
        while not self.ended.wait(0.01):
            self.most = max(self.most, resident())

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self.start
        self.most = max(self.most, resident())
        self.ended.set()
        self.thread.join()
        self.above = (self.most - self.before) / BYTES_PER_GB


def bare_product(query: Any, bank: Any) -> float:
    """Seconds of the product alone, in the blocks of the search."""
    import torch

    from spahgc.pp._search.exact import BANK_BLOCK, QUERY_BLOCK

    query, bank = torch.from_numpy(query), torch.from_numpy(bank)
    out = torch.empty(QUERY_BLOCK * BANK_BLOCK)
    start = time.perf_counter()
    for block in bank.split(BANK_BLOCK):
        for part in query.split(QUERY_BLOCK):
            torch.mm(part, block.T, out=out[: len(part) * len(block)].view(len(part), len(block)))
    return time.perf_counter() - start


def in_memory(sizes: Sizes, folder: Path) -> dict[str, Any]:
    import numpy as np

    from spahgc.pp._search.exact import cosine_neighbors

    tissue, arrays = Tissue(sizes.dim), []
    for n in (sizes.memory_query, sizes.memory_bank):
        array, start = np.empty((n, sizes.dim), np.float32), 0
        for slide in tissue.slides(n):
            array[start : start + len(slide)] = slide.numpy()
            start += len(slide)
        arrays.append(array)
    query, bank = arrays
    cosine_neighbors(query[:100], bank[:10_000], K)
    before = bare_product(query, bank)
    with Watch() as watch:
        cosine_neighbors(query, bank, K)
    return {"before": before, "seconds": watch.seconds, "after": bare_product(query, bank), "above": watch.above}


def write_bank(sizes: Sizes, folder: Path) -> dict[str, Any]:
    """The bank as :func:`spahgc.pp.reference_bank` keeps its embedding, and the spots that are looked for."""
    import numpy as np
    import zarr

    from spahgc.pp._bank.store import append_rows, new_rows

    shutil.rmtree(folder, ignore_errors=True)
    tissue, start = Tissue(sizes.dim), time.perf_counter()
    array = new_rows(zarr.open_group(folder, mode="w", zarr_format=3), "z", sizes.dim)
    for slide in tissue.slides(sizes.disk_bank):
        append_rows(array, slide.half().numpy())
    np.save(folder / "query.npy", np.concatenate([slide.numpy() for slide in tissue.slides(sizes.disk_query)]))
    (folder / "sizes.json").write_text(json.dumps(asdict(sizes)))
    return {"seconds": time.perf_counter() - start}


def opened(folder: Path) -> Any:
    from spahgc._spots.rows import StoredRows

    return StoredRows(folder / "z", bank_folder=folder)


def build(sizes: Sizes, folder: Path) -> dict[str, Any]:
    from spahgc.pp._search.approximate import INDEX_FOLDER, index_cache

    shutil.rmtree(folder / INDEX_FOLDER, ignore_errors=True)
    rows, start = opened(folder), time.perf_counter()
    index = index_cache.get(rows)
    taken = time.perf_counter() - start
    size = sum(file.stat().st_size for file in (folder / INDEX_FOLDER).iterdir()) / BYTES_PER_GB
    return {"seconds": taken, "lists": index.n_lists, "gb": size}


def search(sizes: Sizes, folder: Path, how: str) -> dict[str, Any]:
    """All spots, by one of the two searches; the neighbours are left in the folder."""
    import numpy as np

    import spahgc as sp
    from spahgc.pp._search.neighbors import search_neighbors

    sp.settings.search = how
    query, rows = np.load(folder / "query.npy"), opened(folder)
    start = time.perf_counter()
    neighbors = search_neighbors(query, rows, K)
    taken = time.perf_counter() - start
    np.savez(
        folder / f"{how}.npz",
        columns=neighbors.graph.indices.reshape(-1, K),
        values=neighbors.graph.data.reshape(-1, K),
    )
    return {"seconds": taken, "record": neighbors.record}


PHASES = {
    "memory": in_memory,
    "write": write_bank,
    "build": build,
    "exact": lambda sizes, folder: search(sizes, folder, "exact"),
    "approximate": lambda sizes, folder: search(sizes, folder, "approximate"),
}


def recall_of_all(folder: Path) -> float:
    """Share of the true neighbours, or of others as similar as the last of them, among those that were found."""
    import numpy as np

    exact, approximate = (np.load(folder / f"{how}.npz") for how in ("exact", "approximate"))
    least = exact["values"].min(axis=1, keepdims=True)
    return float((approximate["values"] >= least - 1e-6).mean())


def run(phase: str, arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """A phase in a process of its own; its figures, and its largest resident size."""
    threads = {f"{name}_NUM_THREADS": str(arguments.threads) for name in ("OMP", "MKL", "OPENBLAS")}
    options = ["--threads", str(arguments.threads), "--folder", str(folder), "--child", phase]
    command = [sys.executable, __file__, *options, *(["--small"] if arguments.small else [])]
    print(f"{phase} ...", file=sys.stderr, flush=True)
    done = subprocess.run(command, env={**os.environ, **threads}, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def child(arguments: argparse.Namespace, sizes: Sizes) -> None:
    import torch

    torch.set_num_threads(arguments.threads)
    figures = PHASES[arguments.child](sizes, Path(arguments.folder))
    print(json.dumps(figures | {"peak": peak() / BYTES_PER_GB}))


def goal_text(holds: bool, goal: str, small: bool) -> str:
    return f"{goal} (not judged)" if small else f"{goal}: {'holds' if holds else 'DOES NOT HOLD'}"


def report_memory(sizes: Sizes, got: dict[str, Any], small: bool) -> None:
    floor = min(got["before"], got["after"])
    ratio = got["seconds"] / floor
    print(f"\n{sizes.memory_query:,} spots, bank of {sizes.memory_bank:,} in memory, {sizes.dim:,} numbers, top {K}\n")
    print("| what | seconds | to the floor | GB above the inputs | goal |\n|---|---|---|---|---|")
    print(f"| bare product, before | {got['before']:.1f} | | | |")
    print(f"| bare product, after | {got['after']:.1f} | | | |")
    goals = (
        goal_text(ratio <= MAX_RATIO, f"<= {MAX_RATIO}", small),
        goal_text(got["above"] <= MAX_ABOVE_GB, f"<= {MAX_ABOVE_GB:.0f} GB", small),
    )
    print(f"| exact search | {got['seconds']:.1f} | {ratio:.2f} | {got['above']:.2f} | {'; '.join(goals)} |")


def report_disk(sizes: Sizes, got: dict[str, dict[str, Any]], recall: float, small: bool) -> None:
    exact, approximate, record = got["exact"], got["approximate"], got["approximate"]["record"]
    faster, most = (
        exact["seconds"] / approximate["seconds"],
        max(exact["peak"], approximate["peak"], got["build"]["peak"]),
    )
    print(f"\n{sizes.disk_query:,} spots, bank of {sizes.disk_bank:,} on disk, {sizes.dim:,} numbers, top {K}\n")
    print("| what | seconds | peak GB | recall | goal |\n|---|---|---|---|---|")
    if "write" in got:
        print(f"| making and writing the bank | {got['write']['seconds']:.0f} | {got['write']['peak']:.2f} | | |")
    built = f"{got['build']['lists']:,} lists, {got['build']['gb']:.2f} GB on disk"
    print(f"| building the index ({built}) | {got['build']['seconds']:.0f} | {got['build']['peak']:.2f} | | |")
    print(f"| exact search | {exact['seconds']:.1f} | {exact['peak']:.2f} | 1 | |")
    goals = goal_text(recall >= MIN_RECALL, f"recall >= {MIN_RECALL}", small)
    print(f"| approximate search | {approximate['seconds']:.1f} | {approximate['peak']:.2f} | {recall:.3f} | {goals} |")
    if record["search"] != "approximate":
        print("\nThe approximate search was given up: its recall on the sample was too low.")
        return
    print(
        f"\nThe approximate search is {faster:.1f} times as fast ({goal_text(faster >= MIN_FASTER, f'>= {MIN_FASTER:.0f}', small)}); "
        f"peak of index and searches {most:.2f} GB ({goal_text(most <= MAX_PEAK_GB, f'<= {MAX_PEAK_GB:.0f} GB', small)}). It "
        f"reports a recall of {record['recall']:.3f} on {record['recall_queries']} of the spots, with {record['probes']} of "
        f"{record['lists']:,} lists and {record['candidates']} candidates."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", help="where the bank is made and kept; a temporary folder where it is left out")
    parser.add_argument("--small", action="store_true", help="a quick look whether it runs")
    parser.add_argument("--what", nargs="+", choices=["memory", "disk"], default=["memory", "disk"])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--child", choices=list(PHASES), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sizes = SMALL if arguments.small else Sizes()
    if arguments.child:
        child(arguments, sizes)
        return
    print(
        f"{arguments.threads} threads" + (", SMALL: for the script alone, its figures mean nothing" * arguments.small)
    )
    if "memory" in arguments.what:
        report_memory(sizes, run("memory", arguments, Path()), arguments.small)
    if "disk" in arguments.what:
        with tempfile.TemporaryDirectory() as home:
            folder = Path(arguments.folder or home) / f"bank_{sizes.disk_bank}_{sizes.dim}"
            there = folder / "sizes.json"
            made = there.is_file() and json.loads(there.read_text()) == asdict(sizes)
            phases = ("build", "exact", "approximate") if made else ("write", "build", "exact", "approximate")
            folder.parent.mkdir(parents=True, exist_ok=True)
            got = {phase: run(phase, arguments, folder) for phase in phases}
            report_disk(sizes, got, recall_of_all(folder), arguments.small)


if __name__ == "__main__":
    main()
