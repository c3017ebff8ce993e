"""Points denser than patches: points a second of ``pp.embed(dense=True)`` beside one pass a point, and what each way is worth.

    OMP_NUM_THREADS=1 python benchmarks/dense.py FOLDER/her2st --target C2 --reference C3 --reference C4

Speed: a grid of ``--spacing`` um on the target, EfficientNet-Lite0 on the CPU, the patch alone. One pass a point is timed on the
first ``--timed`` points, which lie side by side, tiles on the whole grid. The time is that of the process (CPU seconds, all
threads, reading included), of which other programs take little away.

Accuracy: references and target embedded in the same way; the target predicted at its measured spots, or on a grid and pooled
over the circle of each measured spot (``pp.pool``: means of the predicted values). Only points
in these circles are embedded; ``--everywhere`` takes all of the tissue, which takes a multiple of the time. Mean over the
genes of panel.txt of Pearson's correlation with the measurement, over the spots that hold a point of the grid. Nothing of the
target's counts reaches a prediction.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
from _cohorts import CACHE, ENCODER, log, made_with, markdown
from _fine_grids import pooled, predicted, score
from _measured import named, panel_of, slides_of
from anndata import AnnData
from PIL import Image
from scipy.spatial import KDTree

import spahgc as sp

Image.MAX_IMAGE_PIXELS = None
KEY = "X_efficientnet_lite0"
COARSE_UM = 50
"""Spacing of the coarser grid. No grid is laid for several patches a spot, which are a grid themselves."""
ONE, DENSE, SEVERAL = "one pass a point", "`dense=True`", "`samples={}`"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "cohort", type=Path, help="folder with SLIDE.jpg, SLIDE.tsv.gz, SLIDE_selection.tsv and panel.txt"
    )
    parser.add_argument("--target", required=True)
    parser.add_argument("--reference", action="append", required=True, help="repeat")
    parser.add_argument("--spacing", type=float, default=20.0, help="of the fine grid, um (default: 20)")
    parser.add_argument("--timed", type=int, default=512, help="points of one pass each that are timed (default: 512)")
    parser.add_argument("--samples", type=int, default=7, help="patches a spot (default: 7)")
    parser.add_argument(
        "--everywhere", action="store_true", help="embed all points of the grid, not those in spots alone"
    )
    parser.add_argument("--no-grids", action="store_true", help="predict at the measured spots alone")
    parser.add_argument("--no-speed", action="store_true", help="time nothing")
    parser.add_argument("--method", default="kernel", help="of tl.predict (default: kernel)")
    parser.add_argument("--context", action="store_true", help="with the default context instead of the patch alone")
    parser.add_argument("--speed-only", action="store_true", help="predict nothing")
    parser.add_argument("--cache", type=Path, default=CACHE / "dense", help="where embeddings are kept")
    arguments = parser.parse_args()
    sp.settings.progress = False
    warnings.filterwarnings("ignore", message="the folder .* of resume=")  # of the other ways
    readers = slides_of(arguments.cohort)
    names = [arguments.target, *arguments.reference]
    target, *references = [named(readers[name][0](), name) for name in names]
    encoder = sp.encoders.load_encoder(ENCODER, device="cpu")

    def embedded(slide: AnnData, label: str, **options: Any) -> AnnData:
        log(f"{label}: {slide.n_obs} points, {options}")
        context = None if arguments.context else False
        folder = arguments.cache / label.replace(" ", "-")
        return sp.pp.embed(slide, encoder=encoder, context=context, device="cpu", resume=folder, copy=True, **options)

    grids = {spacing: grid_of(target, spacing) for spacing in {COARSE_UM, arguments.spacing}}
    print(f"{made_with()}\n", flush=True)
    if not arguments.no_speed:
        print(f"{markdown(speed(grids[arguments.spacing], encoder, arguments))}\n", flush=True)
    if arguments.speed_only:
        return
    if not arguments.everywhere:
        grids = {spacing: within_spots(grid, target) for spacing, grid in grids.items()}
    ways = {ONE: {}, DENSE: {"dense": True}, SEVERAL.format(arguments.samples): {"samples": arguments.samples}}
    grids_of = dict.fromkeys((ONE, DENSE), sorted(grids, reverse=True))
    panel, rows = panel_of(arguments.cohort, [target, *references]), []
    for way, options in ways.items():
        refs = [embedded(slide, slide.obs["slide"].iloc[0], **options) for slide in references]
        row: dict[str, str] = {"way": way}
        at_spots = predicted(embedded(target, arguments.target, **options), refs, panel, method=arguments.method)
        row["at the spots"] = f"{score(at_spots.to_df('spahgc')[panel], target, panel):.4f}"
        for spacing in [] if arguments.no_grids else grids_of.get(way, []):
            grid = embedded(grids[spacing], f"{arguments.target} {spacing:g} um", **options)
            found = pooled(predicted(grid, refs, panel, method=arguments.method), target, panel)
            row[f"grid of {spacing:g} um, pooled"] = f"{score(found, target, panel):.4f}"
        rows.append(row)
        print(markdown(pd.DataFrame(rows).set_index("way").fillna("not run")), flush=True)


def grid_of(target: AnnData, spacing: float) -> AnnData:
    """A grid over the tissue of a slide's image."""
    (record,) = target.uns["spatial"].values()
    mpp = record["scalefactors"]["microns_per_pixel"]
    return sp.pp.tile(record["metadata"]["source_image_path"], spacing_um=spacing, mpp=mpp, focus=False)


def within_spots(grid: AnnData, target: AnnData) -> AnnData:
    """The points of a grid that lie in the circle of a measured spot."""
    (record,) = target.uns["spatial"].values()
    away = KDTree(target.obsm["spatial"]).query(grid.obsm["spatial"])[0]
    return grid[away <= record["scalefactors"]["spot_diameter_fullres"] / 2].copy()


def speed(grid: AnnData, encoder: Any, arguments: argparse.Namespace) -> pd.DataFrame:
    """Points a second of both ways."""
    context = None if arguments.context else False
    ways = {ONE: (grid[: arguments.timed].copy(), {}), DENSE: (grid, {"dense": True})}
    rows, rates = [], []
    for _, options in ways.values():  # imports, and memory that is asked for once
        sp.pp.embed(grid[:16].copy(), encoder=encoder, context=context, device="cpu", **options)
    for way, (slide, options) in ways.items():
        log(f"{way}: {slide.n_obs} points")
        started, wall = time.process_time(), time.perf_counter()
        found = sp.pp.embed(slide, encoder=encoder, context=context, device="cpu", copy=True, **options)
        seconds = time.process_time() - started
        rates.append(slide.n_obs / seconds)
        tiles = found.uns["spahgc"].get("areas", {}).get(KEY, {}).get("n_tiles", slide.n_obs)
        rows.append(
            {
                "way": way,
                "points": f"{slide.n_obs:,}",
                "places of the encoder": f"{tiles:,}",
                "points a CPU second": f"{rates[-1]:.0f}",
                "points a second of the clock": f"{slide.n_obs / (time.perf_counter() - wall):.0f}",
                "times": f"{rates[-1] / rates[0]:.1f}",
            }
        )
    return pd.DataFrame(rows).set_index("way")


if __name__ == "__main__":
    main()
