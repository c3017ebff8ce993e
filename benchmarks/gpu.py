"""What one GPU does: images embedded a second, training steps, retrieval, prediction and the kernel regression, each with its floor.

    python benchmarks/gpu.py                # on CUDA, some minutes
    python benchmarks/gpu.py --cpu          # the same in small, to see that it runs

It needs torch, torch-geometric, timm, array-api-compat and numpy, and neither an installation of the package nor what else that depends
on: it loads the modules that it measures from src/. All data are random numbers of a fixed seed, and so are the weights.

Every figure is that of the package's own functions, from arrays in the memory of the host to arrays there where these
functions work like that. Its floor is what cannot be left out, in the same run and the same number format, on data that
lie on the GPU already: the bare network for images, the matrix products of all linear maps for the graph network, the
product of query and bank for the retrieval, products, decompositions and solutions for the kernel regression. Peak memory is what torch held allocated on the GPU at most, data included.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import platform
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _products import bare_products, linear_products

SOURCE = Path(__file__).resolve().parents[1] / "src" / "spahgc"
HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
KEPT_DTYPE = torch.float32
PATCH_PX = 224
BYTES_PER_GB = 1e9
MIN_SECONDS, MAX_RUNS = 1.0, 50
"""A figure is the mean over runs that take so long together, at most so many, after one that warms up."""


class Neighbors:
    """Stands in for scipy's CSR matrix where scipy is not installed: the retrieval puts its result there, no more."""

    def __init__(self, parts: tuple[np.ndarray, np.ndarray, np.ndarray], shape: tuple[int, int]) -> None:
        self.data, self.indices, self.indptr = parts
        self.shape = shape


def load_bare() -> None:
    """Make the modules that are measured importable, without all that the package's ``__init__`` files import."""
    for name in ("spahgc", "spahgc.pp", "spahgc.encoders", "spahgc._linear"):
        package = types.ModuleType(name)
        package.__path__ = [str(SOURCE.joinpath(*name.split(".")[1:]))]
        sys.modules[name] = package
    if importlib.util.find_spec("scipy") is None:
        sparse = types.ModuleType("scipy.sparse")
        sparse.csr_matrix, sparse.issparse = Neighbors, lambda _: False  # type: ignore[attr-defined]
        spatial = types.ModuleType("scipy.spatial")
        sparse.diags = spatial.KDTree = None  # type: ignore[attr-defined]  # imported beside, and not called
        sys.modules |= {"scipy": types.ModuleType("scipy"), "scipy.sparse": sparse, "scipy.spatial": spatial}


load_bare()

from spahgc import nn  # noqa: E402
from spahgc._linear.kernel import MAX_GROUPS, PENALTIES, KernelRidge, fit_kernel_ridge  # noqa: E402
from spahgc._parameters import PRESETS, Parameters  # noqa: E402
from spahgc.encoders._encoder import Encoder  # noqa: E402
from spahgc.encoders._record import EncoderRecord  # noqa: E402
from spahgc.pp._search.exact import cosine_neighbors  # noqa: E402


@dataclass(frozen=True)
class Sizes:
    """How large everything is."""

    networks: tuple[str, ...]
    precisions: tuple[str, ...]
    batches: tuple[int, ...]
    slides: tuple[int, ...]
    """Spots of the references of the small training: three of the four measured slides."""
    large: int
    """Spots of each of two slides of the large training, and of the target that is predicted."""
    block: int
    query: int
    bank: int
    exact: int
    """Reference spots of an exact kernel regression, and below those of one through landmarks."""
    many: int
    landmarks: int


FULL = Sizes(
    networks=("tf_efficientnet_lite0", "vit_large_patch16_224"),
    precisions=("fp32", "bf16", "fp16"),
    batches=(64, 256),
    slides=(283, 180, 184),
    large=50_000,
    block=8_192,
    query=20_000,
    bank=200_000,
    exact=3_000,
    many=50_000,
    landmarks=1_500,
)
TINY = Sizes(
    networks=("tf_efficientnet_lite0", "vit_tiny_patch16_224"),
    precisions=("fp32", "bf16"),
    batches=(2,),
    slides=(40, 30, 20),
    large=400,
    block=128,
    query=300,
    bank=2_000,
    exact=150,
    many=400,
    landmarks=60,
)
RETRIEVAL_DIM, RETRIEVAL_K, QUERY_BLOCK = 1024, 7, 2048
KERNEL_FEATURES, KERNEL_RESPONSES, KERNEL_SLIDES, KERNEL_BLOCK = 256, 30, 5, 4096


@dataclass(frozen=True)
class Nodes:
    """What the nodes of a preset's graph carry on slides of the fixed panel, embedded by EfficientNet-Lite0."""

    features: int
    expression: int
    training_target: int
    """Genes that outputs are compared with; 0 where the outputs are these genes."""


NODES = {"paper": Nodes(1280, 85, 0), "default": Nodes(256, 20, 300)}


def main() -> None:
    arguments = parse_arguments()
    if not arguments.cpu and not torch.cuda.is_available():
        raise SystemExit("no CUDA device: pass --cpu to try the script in small.")
    device, sizes = ("cpu", TINY) if arguments.cpu else ("cuda", FULL)
    print(f"# {describe(device)}", end="\n\n", flush=True)
    tables = {}
    for name in arguments.part or PARTS:
        print(f"## {name.capitalize()}", end="\n\n", flush=True)
        tables[name] = []
        for row in PARTS[name](sizes, device):
            if not tables[name]:
                print(f"| {' | '.join(row)} |", "|" + "---|" * len(row), sep="\n")
            print(f"| {' | '.join(shown(value) for value in row.values())} |", flush=True)
            tables[name].append(row)
        print(flush=True)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"device": describe(device), "tables": tables}, indent=1) + "\n")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu", action="store_true", help="a tiny version on the CPU; its figures mean nothing")
    parser.add_argument("--part", action="append", choices=PARTS, help="repeat (default: all)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers here")
    return parser.parse_args()


def describe(device: str) -> str:
    """Device, driver and versions in one line."""
    packages = []
    for name in ("torch", "torch-geometric", "timm", "array-api-compat", "numpy"):
        try:
            packages.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            packages.append(f"no {name}")
    if device == "cpu":
        return f"CPU, {torch.get_num_threads()} threads; {', '.join(packages)}"
    cuda = f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
    tf32 = (
        f"TF32 in products: {torch.backends.cuda.matmul.allow_tf32}, in convolutions: {torch.backends.cudnn.allow_tf32}"
    )
    host = f"host {platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
    return f"{torch.cuda.get_device_name()}, driver {driver()}; {cuda}; {', '.join(packages)}; {tf32}; {host}"


def driver() -> str:
    """Version of the driver, if its own tool says it."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0].strip()
    except (OSError, subprocess.CalledProcessError, IndexError):
        return "unknown"


def seconds(run: Callable[[], Any], device: str) -> tuple[float, float | None]:
    """Mean seconds of a run, and peak memory of the device in GB (``None`` on the CPU)."""
    run()
    synchronize(device)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    runs, start = 0, time.perf_counter()
    while runs == 0 or (runs < MAX_RUNS and time.perf_counter() - start < MIN_SECONDS):
        run()
        synchronize(device)
        runs += 1
    each = (time.perf_counter() - start) / runs
    return each, torch.cuda.max_memory_allocated() / BYTES_PER_GB if device == "cuda" else None


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def shown(value: Any) -> str:
    """A cell: three figures are enough."""
    if not isinstance(value, float):
        return "-" if value is None else str(value)
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def embedding(sizes: Sizes, device: str) -> Iterator[dict[str, Any]]:
    """Images a second through :meth:`Encoder.encode`, uint8 on the host to float32 there, and the bare network's."""
    import timm

    rng = np.random.default_rng(0)
    for name in sizes.networks:
        torch.manual_seed(0)
        module = timm.create_model(name, num_classes=0).eval().to(device)
        for layout in (torch.contiguous_format, torch.channels_last):
            module.to(memory_format=layout)
            for precision in sizes.precisions:
                record = random_record(name, module.num_features, precision)
                for batch in sizes.batches:
                    patches = rng.integers(0, 256, (batch, PATCH_PX, PATCH_PX, 3), dtype=np.uint8)
                    yield embedding_row(Encoder(record, module), patches, layout, device)


def random_record(name: str, dim: int, precision: str) -> EncoderRecord:
    pixels: dict[str, Any] = {"input_px": PATCH_PX, "mpp": None, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    how = {"interpolation": "bilinear", "pooling": "timm", "precision": precision, "context": "patch"}
    return EncoderRecord(name=name, revision="random", dim=dim, **pixels, **how)


def embedding_row(encoder: Encoder, patches: np.ndarray, layout: torch.memory_format, device: str) -> dict[str, Any]:
    inputs = torch.randn(len(patches), 3, PATCH_PX, PATCH_PX, device=device).contiguous(memory_format=layout)
    half = HALF.get(encoder.record.precision)

    def bare() -> torch.Tensor:
        with torch.inference_mode(), torch.autocast(device, dtype=half, enabled=half is not None):
            return encoder.module(inputs)

    floor, _ = seconds(bare, device)
    taken, peak = seconds(lambda: encoder.encode(patches, device=device), device)
    return {
        "network": encoder.record.name,
        "layout": "channels last" if layout == torch.channels_last else "as loaded",
        "precision": encoder.record.precision,
        "batch": len(patches),
        "images/s": len(patches) / taken,
        "bare network": len(patches) / floor,
        "share": f"{floor / taken:.0%}",
        "peak GB": peak,
    }


def retrieval(sizes: Sizes, device: str) -> Iterator[dict[str, Any]]:
    """Exact retrieval from arrays on the host, and the product of both on the device, block by block."""
    rng = np.random.default_rng(0)
    for kind in (np.float32, np.float16):
        query = rng.standard_normal((sizes.query, RETRIEVAL_DIM), dtype=np.float32)
        bank = rng.standard_normal((sizes.bank, RETRIEVAL_DIM), dtype=np.float32).astype(kind)
        taken, peak = seconds(lambda q=query, b=bank: cosine_neighbors(q, b, RETRIEVAL_K, device=device), device)
        on_device = torch.from_numpy(query).to(device), torch.from_numpy(bank).to(device).float().T
        out = torch.empty(QUERY_BLOCK, sizes.bank, device=device)

        def bare(pair: tuple[torch.Tensor, torch.Tensor] = on_device, out: torch.Tensor = out) -> None:
            for rows in pair[0].split(QUERY_BLOCK):
                torch.mm(rows, pair[1], out=out[: len(rows)])

        floor, _ = seconds(bare, device)
        copied, _ = seconds(lambda b=bank: torch.from_numpy(b).to(device), device)
        del on_device, out, bare
        yield {
            "query x bank": f"{sizes.query} x {sizes.bank} x {RETRIEVAL_DIM}",
            "bank on the host": np.dtype(kind).name,
            "s": taken,
            "product alone": floor,
            "of floor": taken / floor,
            "copy of the bank": copied,
            "peak GB": peak,
        }


def training(sizes: Sizes, device: str) -> Iterator[dict[str, Any]]:
    """Milliseconds of a training step, masks and optimiser included, and of its products."""
    for name in PRESETS:
        for slides in (sizes.slides, (sizes.large,) * 2):
            tasks = [synthetic_task(NODES[name], PRESETS[name], spots, sum(slides) - spots, device) for spots in slides]
            for precision in ("fp32", "bf16"):
                yield training_row(name, slides, tasks, precision, device)


def training_row(
    name: str, slides: tuple[int, ...], tasks: list[nn.Task], precision: str, device: str
) -> dict[str, Any]:
    network = new_network(NODES[name], PRESETS[name], device)
    parameters = replace(PRESETS[name], epochs=1, precision=precision)
    rng = np.random.default_rng(0)

    def epoch() -> None:
        nn.train(network, tasks, parameters, rng=rng)

    products = linear_products(network, epoch)
    taken, peak = seconds(epoch, device)
    floor, _ = seconds(bare_products(products, device, HALF.get(precision, KEPT_DTYPE)), device)
    return {
        "preset": name,
        "spots of the slides": ", ".join(str(spots) for spots in slides),
        "precision": precision,
        "ms a step": 1e3 * taken / len(tasks),
        "products alone": 1e3 * floor / len(tasks),
        "of floor": taken / floor,
        "peak GB": peak,
    }


def prediction(sizes: Sizes, device: str) -> Iterator[dict[str, Any]]:
    """Milliseconds of a prediction from a graph on the device, whole and in blocks; and how far off the CPU's it is."""
    for name in PRESETS:
        parameters = PRESETS[name]
        small, large = min(sizes.slides), sizes.large
        network = new_network(NODES[name], parameters, device)
        for spots in (small, large):
            graph = synthetic_task(NODES[name], parameters, spots, sum(sizes.slides), device).graph
            blocks = list(torch.arange(spots, device=device).split(sizes.block))
            ways: dict[str, Callable[[], torch.Tensor]] = {
                "whole": lambda n=network, g=graph, p=parameters: nn.predict_expression(n, g, p),
                "in blocks": lambda n=network, g=graph, p=parameters, b=blocks: nn.predict_and_attend(n, g, p, b)[0],
            }
            products = linear_products(network, ways["whole"])
            floor, _ = seconds(bare_products(products, device), device)
            alone = synthetic_task(NODES[name], parameters, spots, sum(sizes.slides), "cpu").graph
            wanted = nn.predict_expression(network.cpu(), alone, parameters)
            network.to(device)
            for way, run in ways.items():
                taken, peak = seconds(run, device)
                yield {
                    "preset": name,
                    "spots": spots,
                    "way": way,
                    "ms": 1e3 * taken,
                    "products alone": 1e3 * floor,
                    "of floor": taken / floor,
                    "us a spot": 1e6 * taken / spots,
                    "off the CPU's by": f"{(run().cpu() - wanted).abs().max() / wanted.abs().max():.1e}",
                    "peak GB": peak,
                }


def kernel(sizes: Sizes, device: str) -> Iterator[dict[str, Any]]:
    """Seconds of a kernel regression and of its prediction, from arrays on the host, on the device and on the CPU."""
    rng = np.random.default_rng(0)
    for spots, landmarks in ((sizes.exact, None), (sizes.many, sizes.landmarks)):
        x = rng.standard_normal((spots, KERNEL_FEATURES), dtype=np.float32)
        bend = np.abs(x @ rng.standard_normal((KERNEL_FEATURES, KERNEL_RESPONSES), dtype=np.float32))
        y = (bend - bend.mean(axis=0)).astype(np.float64)
        slide = np.arange(spots) % KERNEL_SLIDES
        seen = rng.standard_normal((sizes.large, KERNEL_FEATURES), dtype=np.float32)
        how = {} if landmarks is None else {"max_exact": 0, "n_landmarks": landmarks}

        def fit(
            where: str, x: np.ndarray = x, y: np.ndarray = y, slide: np.ndarray = slide, how: Any = how
        ) -> KernelRidge:
            return fit_kernel_ridge(x, y, slide, device=where, **how)

        on_cpu = fit("cpu")
        kept = len(on_cpu.landmarks)

        def predict(where: str, fitted: KernelRidge = on_cpu, seen: np.ndarray = seen) -> np.ndarray:
            return fitted.predict(seen, device=where)

        off_fit = relative(fit(device).coefficients, on_cpu.coefficients)
        what = "exact" if landmarks is None else "landmarks"
        floor = kernel_floor(spots, kept, device, exact=landmarks is None)
        yield kernel_row(f"fit, {what}", spots, kept, fit, floor, off_fit, device)
        off = relative(predict(device), predict("cpu"))
        yield kernel_row(
            f"prediction, {what}", len(seen), kept, predict, kernel_products(len(seen), kept, device), off, device
        )


def kernel_row(
    what: str,
    spots: int,
    landmarks: int,
    run: Callable[[str], Any],
    floor: Callable[[], Any],
    off: float,
    device: str,
) -> dict[str, Any]:
    taken, peak = seconds(lambda: run(device), device)
    on_cpu = taken if device == "cpu" else seconds(lambda: run("cpu"), "cpu")[0]
    bare, _ = seconds(floor, device)
    return {
        "what": what,
        "spots x landmarks": f"{spots} x {landmarks}",
        "s": taken,
        "s on the CPU": on_cpu,
        "times as fast": on_cpu / taken,
        "floor": bare,
        "of floor": taken / bare,
        "off the CPU's by": f"{off:.1e}",
        "peak GB": peak,
    }


def relative(found: np.ndarray, wanted: np.ndarray) -> float:
    """Largest difference as a share of the largest number."""
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def doubles(*shape: int, device: str) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, device=device, generator=torch.Generator(device).manual_seed(0))


def kernel_products(spots: int, landmarks: int, device: str) -> Callable[[], None]:
    """The products of a prediction: of features, and of the kernel and its coefficients, a block of spots at a time."""
    x, known = (doubles(n, KERNEL_FEATURES, device=device) for n in (KERNEL_BLOCK, landmarks))
    coefficients = doubles(landmarks, KERNEL_RESPONSES, device=device)

    def run() -> None:
        for start in range(0, spots, KERNEL_BLOCK):
            (x[: spots - start] @ known.T) @ coefficients

    return run


def kernel_floor(spots: int, landmarks: int, device: str, *, exact: bool) -> Callable[[], None]:
    """Decompositions, products and solutions of a fit, on random numbers that lie on the device."""
    group = spots // MAX_GROUPS
    square, rows = doubles(landmarks, landmarks, device=device), doubles(group, landmarks, device=device)
    between = square @ square.T

    def run_exact() -> None:
        torch.linalg.eigh(between)
        for _ in range(MAX_GROUPS * len(PENALTIES)):
            missed = torch.eye(group, dtype=torch.float64, device=device) * landmarks + rows @ rows.T
            torch.linalg.solve(missed, rows[:, :KERNEL_RESPONSES])

    def run_through_landmarks() -> None:
        for _ in range(MAX_GROUPS + 2):  # of the landmarks, of all groups, and of all but each
            torch.linalg.eigh(between)
        for start in range(0, spots, KERNEL_BLOCK):
            scores = rows[: min(KERNEL_BLOCK, spots - start)] @ square
            scores.T @ scores
            rows[: min(KERNEL_BLOCK, spots - start)] @ square[:, : KERNEL_RESPONSES * len(PENALTIES)]

    return run_exact if exact else run_through_landmarks


def new_network(nodes: Nodes, parameters: Parameters, device: str) -> nn.SpaHGCNetwork:
    torch.manual_seed(0)
    size = {"width": parameters.width, "layers": parameters.layers, "heads": parameters.heads}
    retrieval = bool(parameters.n_retrieved)
    return nn.SpaHGCNetwork(nodes.features, nodes.expression, **size, retrieval=retrieval).to(device)


def synthetic_task(nodes: Nodes, parameters: Parameters, spots: int, bank: int, device: str) -> nn.Task:
    """A slide of spots on a square grid, and a bank of which each spot retrieves any; the same on every device."""
    rng = np.random.default_rng([spots, bank])

    def numbers(*shape: int) -> torch.Tensor:
        return torch.from_numpy(rng.standard_normal(shape, dtype=np.float32)).to(device)

    side = int(spots**0.5)
    steps = np.array([1, -1, side, -side, side + 1, side - 1])[: parameters.n_spatial]
    near = (np.arange(spots)[:, None] + steps) % spots
    cross = rng.integers(0, bank, (spots, min(parameters.n_sources, bank)))
    peers = rng.integers(0, bank, (bank, parameters.n_reference))
    graph = nn.HeteroGraph(
        numbers(spots, nodes.features),
        numbers(bank, nodes.features),
        numbers(bank, nodes.expression),
        {
            "ts": edges(near, spots, device),
            "cs": edges(cross, bank, device, numbers(cross.size)),
            "rs": edges(peers, bank, device),
        },
    )
    gene_loadings = numbers(nodes.expression, nodes.training_target) if nodes.training_target else None
    return nn.Task(graph, numbers(spots, nodes.training_target or nodes.expression), gene_loadings)


def edges(sources: np.ndarray, n_source: int, device: str, similarity: torch.Tensor | None = None) -> nn.Edges:
    """From the sources of every receiver, receivers x degree; how alike their ends are is a number an edge."""
    receiver = np.repeat(np.arange(len(sources)), sources.shape[1])
    ends = (torch.from_numpy(end.astype(np.int64)).to(device) for end in (np.sort(sources, axis=1).ravel(), receiver))
    return nn.Edges(*ends, n_source, len(sources), similarity=similarity)


PARTS: dict[str, Callable[[Sizes, str], Iterator[dict[str, Any]]]] = {
    "embedding": embedding,
    "retrieval": retrieval,
    "training": training,
    "prediction": prediction,
    "kernel": kernel,
}


if __name__ == "__main__":
    main()
