"""Accuracy on measured slides: each slide predicted from all others, every method in one run.

    python benchmarks/accuracy.py --data ../shared/data/her2st --preset paper

The folder holds SLIDE.tsv.gz (counts), SLIDE_selection.tsv (spots), SLIDE.jpg (image) for every slide, and panel.txt, the
genes to compare on. Printed is the mean Pearson correlation over genes (log1p counts per 10,000, over the spots of the
held-out slide), the mean over slides, and the seconds of a fold with the embedding excluded. No method sees the counts
of the slide that it predicts; what it chooses, it chooses on the other slides.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from anndata import AnnData

import spahgc as sp

ENCODER = "efficientnet_lite0"
BASELINES = ("mean", "nearest", "ridge")


def read_slides(folder: Path, names: Sequence[str]) -> dict[str, AnnData]:
    slides = {}
    for name in names:
        parts = (folder / f"{name}.tsv.gz", folder / f"{name}_selection.tsv", folder / f"{name}.jpg")
        slides[name] = sp.io.st(*parts, library_id=name)
    sp.pp.embed(list(slides.values()), encoder=ENCODER)
    return slides


def score_fold(
    slides: dict[str, AnnData], name: str, panel: list[str], label: str, seed: int
) -> tuple[pd.Series, float]:
    """PCC of every gene on one held-out slide, and the seconds of training and prediction."""
    references = [slide for other, slide in slides.items() if other != name]
    baseline = label in BASELINES
    started = time.perf_counter()
    predicted = sp.tl.predict(
        slides[name],
        references,
        genes=panel,
        method=label if baseline else "spahgc",
        preset="paper" if baseline else label.removeprefix("spahgc "),
        seed=seed,
        copy=True,
    )
    seconds = time.perf_counter() - started
    return sp.tl.evaluate(predicted)["pearson"], seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the slides and panel.txt")
    parser.add_argument("--preset", action="append", help="paper or default; repeat for both (default: both)")
    parser.add_argument("--slide", action="append", help="a slide; repeat (default: all that have counts)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    found = [path.name.removesuffix(".tsv.gz") for path in arguments.data.glob("*.tsv.gz")]
    names = arguments.slide or sorted(name for name in found if (arguments.data / f"{name}.jpg").is_file())
    panel = (arguments.data / "panel.txt").read_text().split()
    labels = [*BASELINES, *(f"spahgc {preset}" for preset in arguments.preset or ("paper", "default"))]

    slides = read_slides(arguments.data, names)
    warm_up(slides, panel)
    rows = []
    for label in labels:
        scores, seconds = zip(*(score_fold(slides, name, panel, label, arguments.seed) for name in names), strict=True)
        means = {name: score.mean() for name, score in zip(names, scores, strict=True)}
        undefined = sum(int(score.isna().sum()) for score in scores)
        mean = pd.Series(means).mean(skipna=False)
        rows.append({"method": label, **means, "mean": mean, "undefined": undefined, "s a fold": max(seconds)})
    print(
        f"{len(panel)} genes, encoder {ENCODER}, seed {arguments.seed}; torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads, Python {platform.python_version()}; slowest fold in the last column"
    )
    print(pd.DataFrame(rows).set_index("method").to_string(float_format=lambda value: f"{value:.3f}"))


def warm_up(slides: dict[str, AnnData], panel: list[str]) -> None:
    """Pay for imports before anything is timed."""
    target, *references = slides.values()
    for method in ("ridge", "nearest"):
        sp.tl.predict(target, references, genes=panel[:2], method=method, copy=True)


if __name__ == "__main__":
    main()
