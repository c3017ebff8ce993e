"""The same numbers: predictions stored in one state of the code, compared with those of another.

    python benchmarks/same_numbers.py --store FOLDER --data ../shared/data/her2st
    python benchmarks/same_numbers.py --compare FOLDER --data ../shared/data/her2st

Every slide is predicted from all others by the default, the paper's preset and every baseline: the slides of one simulated
cohort and, with --data, the measured ones. The first command writes one array a method and slide into the folder; the second
predicts again and prints the largest difference of each method, in log1p counts per 10,000. It fails where one is larger than
--tolerance. Both need the same machine and the same number of threads: another order of sums is another rounding, and a
training of a few hundred steps makes it visible.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from _cohorts import SIMULATED, add_arguments, log, made_with, markdown, prepare, read_cohorts
from anndata import AnnData

import spahgc as sp

COHORT = "simulated_12"
"""The simulated cohort: three slides of 120 spots."""

BASELINES = ("mean", "nearest", "ridge", "ridge_neighbours", "ridge_components", "mlp", "bleep")
METHODS = {
    "default": {"preset": "default"},
    "paper": {"preset": "paper"},
    **{name: {"method": name} for name in BASELINES},
}


def main() -> None:
    arguments = parse_arguments()
    sp.settings.progress = False
    folder = arguments.store or arguments.compare
    worst: dict[str, dict[str, float]] = {}
    for name, method, values in predictions(arguments):
        path = folder / f"{name}-{method}.npy"
        if arguments.store is not None:
            np.save(path, values)
            continue
        stored = np.load(path)
        if stored.shape != values.shape:
            raise SystemExit(f"{path}: stored are {stored.shape}, predicted {values.shape}.")
        cohort = worst.setdefault(method, {})
        key = "simulated" if name.startswith("simulated") else "measured"
        cohort[key] = max(cohort.get(key, 0.0), float(np.nanmax(np.abs(stored - values))))
        if (np.isnan(stored) != np.isnan(values)).any():
            cohort[key] = np.inf
    if arguments.compare is not None:
        table = pd.DataFrame.from_dict(worst, orient="index").map("{:.1e}".format).rename_axis("largest difference")
        print(markdown(table), made_with(), sep="\n\n")
        if not all(value <= arguments.tolerance for row in worst.values() for value in row.values()):
            sys.exit(f"some differ by more than {arguments.tolerance:g}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    label = parser.add_mutually_exclusive_group(required=True)
    label.add_argument("--store", type=Path, metavar="FOLDER", help="write the predictions here")
    label.add_argument("--compare", type=Path, metavar="FOLDER", help="compare with those that lie here")
    parser.add_argument("--method", action="append", choices=sorted(METHODS), help="repeat (default: all)")
    parser.add_argument("--tolerance", type=float, default=1e-6, help="largest difference (default: 1e-6)")
    parser.set_defaults(page=None)
    arguments = parser.parse_args()
    arguments.simulated = True
    prepare(parser, arguments)
    if arguments.store is not None:
        arguments.store.mkdir(parents=True, exist_ok=True)
    return arguments


def predictions(arguments: argparse.Namespace) -> Iterator[tuple[str, str, np.ndarray]]:
    """Names of slide and method, and the prediction, spots x panel, of every slide by every method."""
    for cohort in read_cohorts(arguments):
        if cohort.name in SIMULATED and cohort.name != COHORT:
            continue
        slides = {str(slide.obs["slide"].iloc[0]): slide for slide in cohort.slides}
        for held_out, target in slides.items():
            references = [slide for name, slide in slides.items() if name != held_out]
            for method in arguments.method or METHODS:
                log(f"{cohort.name}, {held_out}: {method}")
                yield (
                    f"{cohort.name}-{held_out}",
                    method,
                    predict(target, references, cohort.panel, method, arguments.seed),
                )


def predict(target: AnnData, references: list[AnnData], panel: list[str], method: str, seed: int) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        predicted = sp.tl.predict(
            target, references, genes=panel, seed=seed, device="cpu", copy=True, **METHODS[method]
        )
    return predicted[:, panel].layers["spahgc"]


if __name__ == "__main__":
    main()
