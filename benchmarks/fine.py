"""Finer than the spots: what is predicted on a grid, pooled over the circle of each measured spot, beside a prediction at the spots.

    python benchmarks/fine.py --data FOLDER/her2st

Each section is the target once, predicted by ``tl.predict`` from the measured spots of all others, with the patch alone and with
the default context: at its own spots, and on grids of 100 and 50 um over the tissue (with the context on the coarser one alone,
unless ``--all``), of which the predicted values are averaged over each spot's circle; on the grid of 50 um also with ``conserve=``. Spots
that hold no point of a grid are left out of all columns. Mean over the genes of the panel of Pearson's correlation with the measurement. Settings are those of the
default; nothing was chosen by these numbers, but the cohort is one of those on which the default was found.

    python benchmarks/fine.py --simulated

Simulated slides, whose expression is known everywhere: three seeds, a slide predicted from three others (spots of 55 um, 100 um
apart) at its spots and on a grid of 25 um, by line and kernel on the patch alone. See ``_fine_simulated.py``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
from _cohorts import add_arguments, command, log, made_with, markdown, prepare, read_cohorts
from _fine_grids import DEFAULT, PLAIN, fine_grid, plain_columns_alone, pooled, predicted, score
from _fine_simulated import on_simulated
from _measured import PATIENT, panel_of
from anndata import AnnData

import spahgc as sp

METHODS = ("spahgc", "kernel")
SPACINGS = {PLAIN: (100.0, 50.0), DEFAULT: (100.0,)}
AT_SPOTS, MEAN = "at the spots", "mean"
SPOT_UM = 100.0
"""Width of a spot of the legacy arrays; points further apart than about half of it are not finer."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--method", action="append", help=f"repeat (default: {', '.join(METHODS)})")
    parser.add_argument("--all", action="store_true", help="the grid of 50 um with the default context as well")
    parser.set_defaults(page=None)
    arguments = parser.parse_args()
    if arguments.simulated:
        sp.settings.progress = False
        print(f"{markdown(on_simulated())}\n\npython benchmarks/fine.py --simulated\n\n{made_with()}")
        return
    prepare(parser, arguments)
    sp.settings.progress = False
    (cohort,) = read_cohorts(arguments)
    folder, rows = Path(arguments.data), []
    panel = panel_of(folder, cohort.slides)
    for context in (PLAIN, DEFAULT):
        slides = [plain_columns_alone(slide) if context == PLAIN else slide for slide in cohort.slides]
        spacings = (100.0, 50.0) if arguments.all else SPACINGS[context]
        for number, target in enumerate(slides):
            grids = {um: grid_of(folder, target, um, context, arguments.cache) for um in spacings}
            others = slides[:number] + slides[number + 1 :]
            for method in arguments.method or METHODS:
                rows.append({"what is seen": context, "method": method, "slide": name_of(target)})
                rows[-1] |= scores(target, others, grids, panel, method)
                log(str(rows[-1]))
    table = pd.DataFrame(rows)
    means = table.groupby(["what is seen", "method"], sort=False).mean(numeric_only=True).reset_index()
    table = pd.concat([table, means.assign(slide=MEAN)])
    print(markdown(table.set_index("what is seen").round(4).fillna("not run")))
    print(f"\n{command('fine.py', arguments)}\n\n{made_with()}")


def name_of(slide: AnnData) -> str:
    return str(slide.obs["slide"].iloc[0])


def grid_of(folder: Path, target: AnnData, spacing: float, context: str, cache: Path) -> AnnData:
    """A grid over the target's tissue, of its patient."""
    grid = fine_grid(folder, name_of(target), spacing, context, cache)
    grid.obs["slide"] = name_of(target)
    if PATIENT in target.obs:
        grid.obs[PATIENT] = str(target.obs[PATIENT].iloc[0])
    return grid


def scores(
    target: AnnData, others: list[AnnData], grids: dict[float, AnnData], panel: list[str], method: str
) -> dict[str, float]:
    """At the spots and of each grid."""
    at_spots = predicted(target, others, panel, method=method).to_df("spahgc")[panel]
    means = {
        f"grid of {um:g} um": pooled(predicted(grid, others, panel, method=method), target, panel)
        for um, grid in grids.items()
    }
    means |= {
        f"grid of {um:g} um, conserve": pooled(
            predicted(grid, others, panel, method=method, conserve=SPOT_UM), target, panel
        )
        for um, grid in grids.items()
        if um <= SPOT_UM / 2
    }
    for found in means.values():
        at_spots = at_spots.where(found.notna().all(axis=1), axis=0)
    known = at_spots.notna().all(axis=1)
    ways = {AT_SPOTS: at_spots} | {name: found.where(known, axis=0) for name, found in means.items()}
    return {name: score(found, target, panel) for name, found in ways.items()}


if __name__ == "__main__":
    main()
