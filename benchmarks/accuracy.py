"""Accuracy: every cohort that is found, every method side by side, patients held out where two are named.

    python benchmarks/accuracy.py --data ../shared/data

The folder is that of a cohort, or holds folders that are cohorts (``_measured.py`` says what they look like). Slides are
embedded once, as ``pp.embed`` does by default (three passes through the encoder a spot), and kept on disk; the seconds of
that are printed apart. Finished folds are kept with --checkpoint.

Printed are, over all measured slides, the mean Pearson correlation of each method in each cohort, on how many slides it is
first, and its rank with Friedman's test; then for every cohort the correlation on every slide (log1p counts per 10,000, over
the spots of the held-out slide, mean over the genes of a fixed panel) with its 95 % interval, the share of the noise ceiling,
scores of structure, the pairs of slide and gene without a correlation, and the seconds of the slowest fold; and the default
less every other method, paired over slides and genes. No method sees the counts of the slides that it predicts; what it
chooses, it chooses on the other slides.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from _accuracy_page import DEFAULT, CohortResult, page, section, summary
from _cohorts import Cohort, add_arguments, command, log, made_with, prepare, read_cohorts
from _measured import PATIENT

import spahgc as sp
from spahgc._keys import Obs
from spahgc._parameters import PRESETS
from spahgc.tl._baselines import BASELINES
from spahgc.tl._cross_validation.shuffle import SHUFFLE, SHUFFLE_ALL

METHODS = (*BASELINES, "spahgc:paper", DEFAULT)
SIMULATED_MARGIN = 0.005
"""How far below the best baseline the default may be on a simulated slide, where it would be as good as equal."""


def main() -> None:
    arguments = parse_arguments()
    warm_up()
    results: dict[str, CohortResult] = {}
    failures = []
    for cohort in read_cohorts(arguments):
        log(f"{cohort.name}: {', '.join(arguments.method)}")
        result = run(cohort, arguments)
        results[cohort.name] = result
        print(section(result), end="\n\n", flush=True)
        failures += shortfalls(result) if arguments.check else []
    overview = summary([result for result in results.values() if result.cohort.measured])
    print(*overview, made_with(), sep="\n\n")
    if arguments.json is not None:
        numbers = {name: result.numbers() for name, result in results.items()}
        content = {"command": repeat_command(arguments), "made_with": made_with(), "cohorts": numbers}
        arguments.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    if arguments.page is not None:
        sections = [*overview, *(section(result) for result in results.values())]
        arguments.page.write_text(page(repeat_command(arguments), list(results.values()), sections), encoding="utf-8")
    for failure in failures:
        print(f"fails: {failure}")
    sys.exit(1 if failures else 0)


def run(cohort: Cohort, arguments: argparse.Namespace) -> CohortResult:
    """All methods on one cohort."""
    patients = {str(slide.obs[PATIENT].iloc[0]) for slide in cohort.slides if PATIENT in slide.obs}
    by_patient = arguments.by == PATIENT or (arguments.by is None and len(patients) > 1)
    genes = {"fixed": cohort.panel, "selected": None, "all": "all"}[arguments.panel]
    with fold_folder(arguments.checkpoint, cohort.name) as folder:
        started = time.perf_counter()
        found = sp.tl.cross_validate(
            cohort.slides,
            group_by=PATIENT if by_patient else Obs.slide,
            methods=arguments.method,
            genes=genes,
            seed=arguments.seed,
            null=arguments.null,
            n_jobs=arguments.jobs,
            checkpoint=folder,
        )
        log(f"{cohort.name}: {time.perf_counter() - started:.0f} s")
        return CohortResult(cohort, found, slowest_folds(folder), arguments.panel)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--method", action="append", choices=METHODS, help="a method; repeat (default: all)")
    parser.add_argument("--jobs", type=int, default=1, help="folds at a time, each on one thread (default: 1)")
    parser.add_argument(
        "--by", choices=(PATIENT, Obs.slide), help="what is held out together (default: patients, where two are named)"
    )
    parser.add_argument(
        "--panel",
        choices=("fixed", "selected", "all"),
        default="fixed",
        help="genes: the cohort's panel (default), those that are chosen on the references of each fold, or all that they saw",
    )
    parser.add_argument(
        "--null", choices=(SHUFFLE, SHUFFLE_ALL), help="shuffle the references' counts: all should score about zero"
    )
    parser.add_argument("--page", type=Path, metavar="FILE", help="write the tables as a page of the docs")
    parser.add_argument(
        "--check",
        action="store_true",
        help="exit with 1 unless the default is first on every measured slide, and on every simulated slide at most "
        f"{SIMULATED_MARGIN} below the best baseline",
    )
    arguments = parser.parse_args()
    arguments.method = list(dict.fromkeys(arguments.method or METHODS))
    if arguments.check and (
        arguments.null or DEFAULT not in arguments.method or not set(arguments.method) & {*BASELINES}
    ):
        parser.error(f"--check compares {DEFAULT} with the baselines: pass it without --null, and both among --method")
    prepare(parser, arguments)
    return arguments


def warm_up() -> None:
    """Pay for imports before anything is timed."""
    tiny = sp.datasets.simulated(n_slides=3, n_patients=1, n_spots=40, n_genes=20)
    for slide in tiny:
        slide.obsm["X_domains"] = slide.obsm["truth_domains"]
    methods = [DEFAULT, "ridge", "ridge_components", "nearest"]
    one_epoch = replace(PRESETS["default"], epochs=1)
    with quiet():
        sp.tl.cross_validate(tiny, methods=methods, embedding="X_domains", preset=one_epoch, n_bootstrap=1)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    shown, sp.settings.progress = sp.settings.progress, False
    try:
        yield
    finally:
        sp.settings.progress = shown


@contextlib.contextmanager
def fold_folder(kept: Path | None, cohort: str) -> Iterator[Path]:
    """Where finished folds go, with their seconds: a folder that stays, if one was named."""
    if kept is not None:
        yield kept / cohort
        return
    with tempfile.TemporaryDirectory(prefix="spahgc-accuracy-") as folder:
        yield Path(folder)


def slowest_folds(folder: Path) -> dict[str, float]:
    """Seconds of every method's slowest fold. A summary has their sum; the files of the folds have each."""
    slowest: dict[str, float] = {}
    for path in folder.glob("*.json"):
        fold = json.loads(path.read_text(encoding="utf-8"))
        if "seconds" in fold:  # the file of the inputs has none
            slowest[fold["label"]] = max(fold["seconds"], slowest.get(fold["label"], 0.0))
    return slowest


def shortfalls(result: CohortResult) -> list[str]:
    """Slides on which the default is not where it should be; a method without any correlation is below all others."""
    per_slide = result.found.per_slide.fillna(-np.inf)
    rivals = per_slide.drop(index=DEFAULT)
    measured = result.cohort.measured
    if not measured:
        rivals = rivals.loc[[name for name in rivals.index if name in BASELINES]]
    failures = []
    for slide in per_slide.columns:
        best, reached = str(rivals[slide].idxmax()), per_slide.loc[DEFAULT, slide]
        wanted = rivals.loc[best, slide]
        if not (reached > wanted if measured else reached >= wanted - SIMULATED_MARGIN):
            failures.append(f"{result.cohort.name}, {slide}: {DEFAULT} {reached:.4f}, {best} {wanted:.4f}")
    return failures


def repeat_command(arguments: argparse.Namespace) -> str:
    more = (
        [word for method in arguments.method for word in ("--method", method)]
        if len(arguments.method) < len(METHODS)
        else []
    )
    more += ["--by", arguments.by] if arguments.by else []
    more += ["--panel", arguments.panel] if arguments.panel != "fixed" else []
    more += ["--null", arguments.null] if arguments.null else []
    more += ["--jobs", str(arguments.jobs)] if arguments.jobs != 1 else []
    more += ["--threads", str(arguments.threads)] if arguments.threads else []
    return command("accuracy.py", arguments, *more)


if __name__ == "__main__":
    main()
