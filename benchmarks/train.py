"""Training: where the time of a fold goes, and how far a training step is from its matrix products alone.

    python benchmarks/train.py --data ../shared/data/her2st --threads 1

One slide is held out, the others are the references: the network is trained on them and predicts the slide, once for
each preset. Slides are those of ``benchmarks/accuracy.py``, which tells what the folder holds.

    python benchmarks/train.py --data ../shared/data/her2st --preset default --crowded

times the fold alone, as it is and beside ten processes that never rest, and prints how many times longer it then takes.

    python benchmarks/train.py --growth 10 --growth 40 --preset default --threads 1

fits so many simulated references of 300 spots, and prints the seconds of each phase and how many times those of the first
number they are; ``--data`` is not needed.

Otherwise printed are, for every preset, the seconds of each phase of the fold; the milliseconds of a training step beside its
floor, which is the matrix products of the network's linear maps alone, forward and backward, in the same run; and the
operators that a step spends its time in. Seconds are those of the wall and those of this process on all its threads
(CPU). Where other programs share the machine, only the latter can be compared. All of it runs on the CPU:
``benchmarks/gpu.py`` is for CUDA.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import pkgutil
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch
from _cohorts import Cohort, add_arguments, command, log, made_with, markdown, prepare, read_cohorts
from _products import bare_products, linear_products
from anndata import AnnData

import spahgc as sp
from spahgc import nn
from spahgc._keys import Obs
from spahgc._parameters import PRESETS, Parameters
from spahgc._settings import available_cpus

DEVICE = "cpu"
PHASES = {
    "bank": "spahgc.model:as_bank",
    "axes of appearance": "spahgc._linear.low_rank:ImageAxes.fit",
    "components": "spahgc._linear.node_features:fit_components",
    "line": "spahgc._linear.node_features:ImageRidge.fit",
    "experts held out": "spahgc.model:prove_experts",
    "experts": "spahgc.model:fit_experts",
    "trust": "spahgc.model:trust_of",
    "graphs of the training": "spahgc._training.networks:training_tasks",
    "training": "spahgc._training.networks:train",
    "RS graph of the bank": "spahgc.model:make_rs_graph",
}
"""What is timed as a phase of the fit: its name, and the function that is this phase. What one calls belongs to it."""
PREDICTION, REST = "prediction", "rest"

GROWTH_SPOTS, GROWTH_GENES, GROWTH_DIM = 300, 400, 1_280
"""Spots, genes and columns of the embedding of each simulated reference of ``--growth``."""

N_BUSY = 10
"""Processes that never rest, beside which a crowded fold is timed."""
CROWDED_ROUNDS = 3

FLOOR_PASSES = 7
PROFILED_EPOCHS = 3
N_OPERATORS = 12


@dataclass
class Clock:
    """Seconds of wall and process by phase; a phase within a phase counts for the outer one."""

    wall: dict[str, float] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)
    running: bool = False

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        if self.running:
            yield
            return
        self.running, wall, cpu = True, time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self.running = False
            self.wall[name] = self.wall.get(name, 0.0) + time.perf_counter() - wall
            self.cpu[name] = self.cpu.get(name, 0.0) + time.process_time() - cpu


@dataclass
class Seen:
    """What the training was called with."""

    network: Any = None
    tasks: Any = None
    parameters: Any = None
    steps: int = 0


@dataclass(frozen=True)
class Step:
    """A training step: milliseconds of CPU as trained and of its products alone, and what these count."""

    ms: float
    floor_ms: float
    gflop: float
    products: float


def main() -> None:
    arguments = parse_arguments()
    sp.settings.progress = False
    warm_up()
    numbers = {}
    for name in arguments.preset if arguments.growth else ():
        parts, found = growth(PRESETS[name], arguments)
        print(f"## References of {GROWTH_SPOTS} spots: preset {name}", *parts, sep="\n\n", end="\n\n", flush=True)
        numbers[f"growth, {name}"] = found
    for cohort in () if arguments.growth else read_cohorts(arguments):
        for name in arguments.preset:
            parameters = PRESETS[name]
            if arguments.epochs is not None:
                parameters = replace(parameters, epochs=arguments.epochs)
            log(f"{cohort.name}: {name}")
            time_of = crowded_fold if arguments.crowded else profile_fold
            heading, parts, found = time_of(cohort, name, parameters, arguments)
            print(f"## {heading}", *parts, sep="\n\n", end="\n\n", flush=True)
            numbers[f"{cohort.name}, {name}"] = found
    print(made_with())
    if arguments.json is not None:
        content = {"command": repeat_command(arguments), "made_with": made_with(), "folds": numbers}
        arguments.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--preset", action="append", choices=sorted(PRESETS), help="repeat (default: all)")
    parser.add_argument("--hold-out", metavar="SLIDE", help="the slide that is predicted (default: the first)")
    parser.add_argument("--epochs", type=int, help="of a quick try (default: those of the preset)")
    parser.add_argument("--crowded", action="store_true", help=f"beside {N_BUSY} busy processes, and alone")
    parser.add_argument("--growth", type=int, action="append", metavar="N", help="fit so many references; repeat")
    parser.set_defaults(page=None)
    arguments = parser.parse_args()
    arguments.preset = list(dict.fromkeys(arguments.preset or sorted(PRESETS)))
    if arguments.checkpoint is not None:
        parser.error("--checkpoint: times are measured anew in every run")
    if arguments.epochs is not None and arguments.epochs < 1:
        parser.error(f"--epochs {arguments.epochs}: pass a positive number")
    if arguments.growth and (arguments.data or arguments.embedded or min(arguments.growth) < 2):
        parser.error("--growth simulates its references: pass numbers of at least 2, and no slides")
    arguments.simulated = arguments.simulated or bool(arguments.growth)
    prepare(parser, arguments)
    return arguments


def warm_up() -> None:
    """Pay for imports before anything is timed."""
    tiny = sp.datasets.simulated(n_slides=3, n_patients=1, n_spots=40, n_genes=20)
    for slide in tiny:
        slide.obsm["X_domains"] = slide.obsm["truth_domains"]
    one_epoch = replace(PRESETS["default"], epochs=1)
    sp.tl.predict(tiny[0], tiny[1:], embedding="X_domains", preset=one_epoch, device=DEVICE)


def profile_fold(
    cohort: Cohort, preset: str, parameters: Parameters, arguments: argparse.Namespace
) -> tuple[str, list[str], dict[str, Any]]:
    """Heading, tables and numbers of one fold."""
    slides = {str(slide.obs[Obs.slide].iloc[0]): slide for slide in cohort.slides}
    held_out = arguments.hold_out or next(iter(slides))
    if held_out not in slides:
        raise SystemExit(f"--hold-out {held_out}: the slides are {', '.join(slides)}.")
    target = slides.pop(held_out).copy()
    clock, seen = Clock(), Seen()
    wall, cpu = time.perf_counter(), time.process_time()
    with timed_phases(clock, seen), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        model = sp.SpaHGC.fit(
            slides.values(), genes=cohort.panel, preset=parameters, seed=arguments.seed, device=DEVICE
        )
        with clock.phase(PREDICTION):
            sp.tl.predict(target, model=model, device=DEVICE)
    whole = time.perf_counter() - wall, time.process_time() - cpu
    step = measure_step(clock, seen)
    operators = profile_operators(seen)
    heading = f"Slide {held_out} from {', '.join(slides)}: preset {preset}, {parameters.epochs} epochs"
    parts = [
        markdown(phase_table(clock, whole)),
        markdown(step_table(step)),
        f"Operators of a step, seconds of the wall, by PyTorch's profiler, which takes time itself ({seen.steps} steps "
        "were trained):",
        markdown(operator_table(operators)),
    ]
    numbers = {
        "held_out": held_out,
        "wall_seconds": clock.wall | {"whole": whole[0]},
        "cpu_seconds": clock.cpu | {"whole": whole[1]},
        "steps": seen.steps,
        "step": asdict(step),
        "operators": operators.reset_index().to_dict("records"),
    }
    return heading, parts, numbers


def growth(parameters: Parameters, arguments: argparse.Namespace) -> tuple[list[str], dict[str, Any]]:
    """Table and numbers of fits of more and more references."""
    if arguments.epochs is not None:
        parameters = replace(parameters, epochs=arguments.epochs)
    seconds = {}
    for n in arguments.growth:
        log(f"growth: {n} references")
        slides, clock = growth_slides(n), Clock()
        cpu = time.process_time()
        with timed_phases(clock, Seen()), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            sp.SpaHGC.fit(slides, embedding="X_growth", preset=parameters, seed=arguments.seed, device=DEVICE)
        seconds[n] = clock.cpu | {"whole fit": time.process_time() - cpu}
    table = pd.DataFrame(seconds).rename_axis("phase, CPU s")
    shown = pd.DataFrame(
        {
            f"{n} references": [
                f"{s:.1f} ({s / first:.1f}x)" for s, first in zip(table[n], table.iloc[:, 0], strict=True)
            ]
            for n in table
        },
        index=table.index,
    )
    return [markdown(shown)], {str(n): of_phase for n, of_phase in seconds.items()}


def growth_slides(n: int) -> list[AnnData]:
    """Simulated slides whose embedding follows their domains."""
    slides = sp.datasets.simulated(
        n_slides=n, n_patients=max(1, n // 4), n_spots=GROWTH_SPOTS, n_genes=GROWTH_GENES, seed=0
    )
    rng = np.random.default_rng(0)
    of_domains = rng.normal(size=(slides[0].obsm["truth_domains"].shape[1], GROWTH_DIM))
    for slide in slides:
        noise = rng.normal(size=(slide.n_obs, GROWTH_DIM))
        slide.obsm["X_growth"] = (slide.obsm["truth_domains"] @ of_domains + noise).astype(np.float32)
    return slides


def crowded_fold(
    cohort: Cohort, preset: str, parameters: Parameters, arguments: argparse.Namespace
) -> tuple[str, list[str], dict[str, Any]]:
    """Heading, table and numbers of a fold on the machine as it is, and beside busy processes, in turns."""
    slides = {str(slide.obs[Obs.slide].iloc[0]): slide for slide in cohort.slides}
    held_out = arguments.hold_out or next(iter(slides))
    target, references = slides[held_out], [slide for name, slide in slides.items() if name != held_out]

    def seconds() -> float:
        started = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            sp.tl.predict(
                target, references, genes=cohort.panel, preset=parameters, seed=arguments.seed, device=DEVICE, copy=True
            )
        return time.perf_counter() - started

    raise_threads()
    alone, crowded = [], []
    for _ in range(CROWDED_ROUNDS):
        alone.append(seconds())
        with busy_processes(N_BUSY):
            crowded.append(seconds())
    ratio = statistics.median(crowded) / statistics.median(alone)
    rows = {"alone": alone, f"beside {N_BUSY} busy processes": crowded}
    table = pd.DataFrame(
        {
            name: [f"{s:.1f}" for s in (min(times), statistics.median(times), max(times))]
            for name, times in rows.items()
        },
        index=["least s", "median s", "largest s"],
    )
    heading = f"Slide {held_out} from {len(references)} others: preset {preset}, {parameters.epochs} epochs"
    said = f"{ratio:.1f} times as long, in the median of {CROWDED_ROUNDS} rounds; {available_cpus()} processors."
    return heading, [markdown(table.T.rename_axis("fold")), said], {"alone": alone, "crowded": crowded, "ratio": ratio}


def raise_threads() -> None:
    """Let numba, on which scanpy runs, set the threads of the process, as it does whenever a user calls scanpy before."""
    import numba

    @numba.njit(parallel=True)
    def total(x: Any) -> float:
        out = 0.0
        for i in numba.prange(len(x)):
            out += x[i]
        return out

    total(np.ones(1000))


@contextlib.contextmanager
def busy_processes(n: int) -> Iterator[None]:
    """Processes that never rest, while the block runs."""
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


@contextlib.contextmanager
def timed_phases(clock: Clock, seen: Seen) -> Iterator[None]:
    """Time the phases while they run inside the package, and keep what the training is called with."""

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*positional: Any, **named: Any) -> Any:
            if name == "training":
                seen.network, seen.tasks, seen.parameters = positional
                seen.steps += seen.parameters.epochs * len(seen.tasks)
            with clock.phase(name):
                return function(*positional, **named)

        return run

    with contextlib.ExitStack() as stack:
        for name, place in PHASES.items():
            stack.enter_context(patch(place.replace(":", "."), timed(name, pkgutil.resolve_name(place))))
        yield


def measure_step(clock: Clock, seen: Seen) -> Step:
    """CPU time of a step as it was trained, and of its products, in the median of some passes."""
    network, parameters = copy.deepcopy(seen.network), replace(seen.parameters, epochs=1)
    products = linear_products(network, lambda: nn.train(network, seen.tasks, parameters, rng=np.random.default_rng(0)))
    run, passes = bare_products(products), []
    for _ in range(FLOOR_PASSES + 1):  # the first one warms up
        start = time.process_time()
        run()
        passes.append(time.process_time() - start)
    n = len(seen.tasks)
    return Step(
        ms=1e3 * clock.cpu["training"] / seen.steps,
        floor_ms=1e3 * statistics.median(passes[1:]) / n,
        gflop=sum(product.flop for product in products) / n / 1e9,
        products=len(products) / n,
    )


def profile_operators(seen: Seen) -> pd.DataFrame:
    """Calls and milliseconds of every operator in a step, without what it calls, the longest first."""
    network, parameters = copy.deepcopy(seen.network), replace(seen.parameters, epochs=PROFILED_EPOCHS)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as run:
        nn.train(network, seen.tasks, parameters, rng=np.random.default_rng(0))
    steps = PROFILED_EPOCHS * len(seen.tasks)
    rows = [(e.key, e.count / steps, e.self_cpu_time_total / 1e3 / steps) for e in run.key_averages()]
    table = pd.DataFrame(rows, columns=["operator", "calls", "ms"]).set_index("operator")
    return table.assign(share=table["ms"] / table["ms"].sum()).sort_values("ms", ascending=False)


def phase_table(clock: Clock, whole: tuple[float, float]) -> pd.DataFrame:
    phases = [name for name in (*PHASES, PREDICTION) if name in clock.cpu]
    wall, cpu = ([times[name] for name in phases] for times in (clock.wall, clock.cpu))
    rows = zip(
        [*phases, REST, "whole fold"],
        [*wall, whole[0] - sum(wall), whole[0]],
        [*cpu, whole[1] - sum(cpu), whole[1]],
        strict=True,
    )
    cells = [(name, f"{s:.2f}", f"{c:.2f}", f"{c / whole[1]:.0%}") for name, s, c in rows]
    return pd.DataFrame(cells, columns=["phase", "s", "CPU s", "of CPU"]).set_index("phase")


def step_table(step: Step) -> pd.DataFrame:
    rows = {"as trained": step.ms, f"its {step.products:.0f} matrix products alone (floor)": step.floor_ms}
    cells = [
        (name, f"{ms:.1f}", f"{ms / step.floor_ms:.2f}", f"{step.gflop:.2f}", f"{step.gflop / ms * 1e3:.0f}")
        for name, ms in rows.items()
    ]
    return pd.DataFrame(cells, columns=["training step", "CPU ms", "of floor", "GFLOP", "GFLOP/s"]).set_index(
        "training step"
    )


def operator_table(operators: pd.DataFrame) -> pd.DataFrame:
    shown, others = operators.iloc[:N_OPERATORS], operators.iloc[N_OPERATORS:]
    rows = [*shown.itertuples(), (f"{len(others)} others", *others.sum())]
    cells = [(name, f"{calls:.0f}", f"{ms:.2f}", f"{share:.0%}") for name, calls, ms, share in rows]
    return pd.DataFrame(cells, columns=["operator", "calls", "ms", "of all"]).set_index("operator")


def repeat_command(arguments: argparse.Namespace) -> str:
    more = [word for name in arguments.preset for word in ("--preset", name)]
    for name in ("hold_out", "epochs", "threads"):
        value = getattr(arguments, name)
        more += [f"--{name.replace('_', '-')}", str(value)] if value is not None else []
    more += ["--crowded"] if arguments.crowded else []
    more += [word for n in arguments.growth or () for word in ("--growth", str(n))]
    return command("train.py", arguments, *more)


if __name__ == "__main__":
    main()
