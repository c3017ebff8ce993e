"""Accuracy: each slide predicted from all others, every method side by side.

    python benchmarks/accuracy.py --data ../shared/data/her2st --simulated

The folder holds SLIDE.tsv.gz (counts), SLIDE_selection.tsv (spots), SLIDE.jpg (image) for every slide, and panel.txt, the
genes to compare on. Slides are embedded once (twelve passes through the encoder a spot: minutes) and kept on disk.

Printed are, for every cohort, the mean Pearson correlation over genes (log1p counts per 10,000, over the spots of the
held-out slide) and over slides with its 95 % interval, the share of the noise ceiling, the pairs of slide and gene
without a correlation, and the seconds of the slowest fold, embedding excluded; then the default less every other method,
paired over slides and genes. No method sees the counts of the slide that it predicts; what it chooses, it chooses on the
other slides.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from _cohorts import (
    CAVEAT,
    PATIENT,
    Cohort,
    add_arguments,
    command,
    decimals,
    interval,
    log,
    made_with,
    markdown,
    prepare,
    read_cohorts,
    records,
)

import spahgc as sp
from spahgc._keys import Obs
from spahgc._parameters import PRESETS
from spahgc.tl._baselines import BASELINES
from spahgc.tl._cross_validation.cross_validate import CrossValidation
from spahgc.tl._cross_validation.shuffle import SHUFFLE, SHUFFLE_ALL
from spahgc.tl._cross_validation.statistics import POOLED

DEFAULT = "spahgc"
METHODS = (*BASELINES, "spahgc:paper", DEFAULT)
SIMULATED_MARGIN = 0.005
"""How far below the best baseline the default may be on a simulated slide, where it would be as good as equal."""


def main() -> None:
    arguments = parse_arguments()
    warm_up()
    sections, numbers, failures = [], {}, []
    for cohort in read_cohorts(arguments):
        log(f"{cohort.name}: {', '.join(arguments.method)}")
        with fold_folder(arguments.checkpoint, cohort.name) as folder:
            result = sp.tl.cross_validate(
                cohort.slides,
                group_by=PATIENT if arguments.patient else Obs.slide,
                methods=arguments.method,
                genes=cohort.panel,
                seed=arguments.seed,
                null=arguments.null,
                checkpoint=folder,
            )
            seconds = slowest_folds(folder)
        sections.append(section(cohort, result, seconds))
        print(sections[-1], end="\n\n", flush=True)
        numbers[cohort.name] = all_numbers(result, seconds)
        failures += shortfalls(cohort, result.per_slide) if arguments.check else []
    print(made_with())
    if arguments.json is not None:
        content = {"command": repeat_command(arguments), "made_with": made_with(), "cohorts": numbers}
        arguments.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    if arguments.page is not None:
        arguments.page.write_text(page(arguments, sections), encoding="utf-8")
    for failure in failures:
        print(f"fails: {failure}")
    sys.exit(1 if failures else 0)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--method", action="append", choices=METHODS, help="a method; repeat (default: all)")
    parser.add_argument(
        "--patient",
        action="store_true",
        help='hold out all slides of a patient together: obs["patient"], or the letters that a slide\'s name begins with',
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


def section(cohort: Cohort, result: CrossValidation, seconds: dict[str, float]) -> str:
    """Both tables of a cohort, with their headings."""
    held_out = "patient" if result.record["group_by"] == PATIENT else "slide"
    shuffled = f"; references shuffled ({result.record['null']})" if result.record["null"] else ""
    parts = [
        f"## {cohort.title}",
        f"One {held_out} held out at a time, seed {result.record['seed']}{shuffled}.",
        markdown(accuracy_table(result, seconds)),
    ]
    compared = against_default(result.comparisons)
    if len(compared):
        shown = pd.DataFrame(
            {
                "difference": compared["difference"].map(decimals),
                "95 % interval": [interval(*ends) for ends in zip(compared["low"], compared["high"], strict=True)],
                "p": ["-" if np.isnan(p) else f"{p:.1e}" for p in compared["p"]],
                "pairs": compared["n"].astype(str),
            }
        ).rename_axis(f"{DEFAULT} less")
        parts += [markdown(shown), *best_baseline(result, compared)]
    return "\n\n".join(parts)


def accuracy_table(result: CrossValidation, seconds: dict[str, float]) -> pd.DataFrame:
    summary = result.summary
    table = result.per_slide.map(decimals)
    table["mean"] = summary["pearson"].map(decimals)
    table["95 % interval"] = [interval(*ends) for ends in zip(summary["low"], summary["high"], strict=True)]
    table["of ceiling"] = summary["ceiling_share"].map(decimals)
    table["undefined"] = summary["n_undefined"].astype(str)
    table["s a fold"] = [f"{seconds[method]:.1f}" for method in summary.index]
    return table


def against_default(comparisons: pd.DataFrame) -> pd.DataFrame:
    """The default less every other method over all slides, a row a method; empty where the default did not run."""
    pooled = comparisons[comparisons["slide"] == POOLED]
    first = pooled[pooled["method"] == DEFAULT].rename(columns={"other": "less"})
    second = pooled[pooled["other"] == DEFAULT].rename(columns={"method": "less", "low": "high", "high": "low"})
    turned = second.assign(difference=-second["difference"], low=-second["low"], high=-second["high"])
    columns = ["less", "difference", "low", "high", "p", "n"]
    return pd.concat([turned[columns], first[columns]]).set_index("less")


def best_baseline(result: CrossValidation, compared: pd.DataFrame) -> list[str]:
    """A line on the baseline of the highest mean, if one ran and has a correlation."""
    means = result.summary["pearson"].loc[[name for name in result.summary.index if name in BASELINES]].dropna()
    if means.empty:
        return []
    best = str(means.idxmax())
    return [
        f"Best baseline: {best}, {means[best]:.3f}; {DEFAULT} {result.summary['pearson'][DEFAULT]:.3f}, Wilcoxon's "
        f"signed-rank p = {compared['p'][best]:.1e} over {compared['n'][best]} pairs of slide and gene (genes move "
        "together, so that p is too small; the interval is drawn over slides and genes)."
    ]


def shortfalls(cohort: Cohort, per_slide: pd.DataFrame) -> list[str]:
    """Slides on which the default is not where it should be; a method without any correlation is below all others."""
    per_slide = per_slide.fillna(-np.inf)
    rivals = per_slide.drop(index=DEFAULT)
    if not cohort.measured:
        rivals = rivals.loc[[name for name in rivals.index if name in BASELINES]]
    failures = []
    for slide in per_slide.columns:
        best, reached = str(rivals[slide].idxmax()), per_slide.loc[DEFAULT, slide]
        wanted = rivals.loc[best, slide]
        if not (reached > wanted if cohort.measured else reached >= wanted - SIMULATED_MARGIN):
            failures.append(f"{cohort.name}, {slide}: {DEFAULT} {reached:.4f}, {best} {wanted:.4f}")
    return failures


def all_numbers(result: CrossValidation, seconds: dict[str, float]) -> dict[str, Any]:
    return {
        "record": result.record,
        "per_slide": records(result.per_slide.reset_index()),
        "summary": records(result.summary.reset_index()),
        "slowest_fold_seconds": seconds,
        "comparisons": records(result.comparisons),
        "scores": records(result.scores),
    }


def repeat_command(arguments: argparse.Namespace) -> str:
    more = (
        [word for method in arguments.method for word in ("--method", method)]
        if len(arguments.method) < len(METHODS)
        else []
    )
    more += ["--patient"] if arguments.patient else []
    more += ["--null", arguments.null] if arguments.null else []
    more += ["--threads", str(arguments.threads)] if arguments.threads else []
    return command("accuracy.py", arguments, *more)


def page(arguments: argparse.Namespace, sections: list[str]) -> str:
    measured = f"\n{CAVEAT}\n" if arguments.data or arguments.embedded else ""
    title = "Benchmarks" if measured else "Benchmarks: simulated cohorts"
    return f"""# {title}

Every method predicts slides that it never saw from all others. All are given the same embedding: EfficientNet-Lite0
(ImageNet weights) with the recommended context, of which `preset="paper"` sees the columns of the plain patch alone. PCC
is the Pearson correlation of a gene over the spots of the held-out slide, `log1p` counts per 10,000; the mean over genes,
then over slides. Its interval is a bootstrap over slides and genes. "Of ceiling" is the share of what the noise of the
counts leaves within reach; "undefined" counts pairs of slide and gene without a correlation, which no mean contains; "s a
fold" is the slowest fold in seconds, embedding excluded.
{measured}
This page is written by

```
{repeat_command(arguments)}
```

with {made_with()}.

{chr(10).join(part + chr(10) for part in sections)}"""


if __name__ == "__main__":
    main()
