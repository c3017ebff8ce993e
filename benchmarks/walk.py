"""The way of one call through the package: files entered, crossings between files, and conversions of a slide.

    python benchmarks/walk.py

Four simulated slides are made, one is predicted from the others, a model is fitted, and two methods are cross-validated, each
under ``sys.setprofile``. Networks are trained for three epochs: every epoch enters the same doors again. A file is entered when one of its functions is called; a crossing is a call from a function of one
file of the package to a function of another. Comprehensions and the bodies of classes are no functions.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pandas as pd
from _cohorts import markdown

import spahgc as sp

ROOT = str(Path(sp.__file__).parent)
INNER = ("<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>", "<lambda>", "<module>")
CONVERSIONS = (
    "embedding_matrix",
    "raw_matrix",
    "log_expression",
    "split_slides",
    "as_bank",
    "reference_bank",
    "variable_genes",
)
"""Functions that read, convert or check a whole slide, or several."""


class Walk:
    """What is called while it is followed."""

    def __init__(self) -> None:
        self.files: set[str] = set()
        self.crossings: Counter[tuple[str, str]] = Counter()
        self.calls: Counter[str] = Counter()

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        if event != "call" or not frame.f_code.co_filename.startswith(ROOT) or frame.f_code.co_name in INNER:
            return
        file = frame.f_code.co_filename
        self.files.add(file)
        self.calls[frame.f_code.co_name.lstrip("_")] += 1
        caller = frame.f_back
        while caller is not None and caller.f_code.co_name in INNER and caller.f_code.co_filename.startswith(ROOT):
            caller = caller.f_back
        if caller is not None and caller.f_code.co_filename.startswith(ROOT) and caller.f_code.co_filename != file:
            self.crossings[caller.f_code.co_filename, file] += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers here")
    parser.add_argument("--epochs", type=int, default=3, help="of a training (default: 3)")
    parser.add_argument("--pairs", type=int, default=0, metavar="N", help="list the N busiest pairs of files as well")
    arguments = parser.parse_args()
    sp.settings.progress = False
    slides = simulated_slides()
    target, *references = slides
    preset = sp.Parameters.preset("default", epochs=arguments.epochs)
    calls: dict[str, Callable[[], Any]] = {
        "predict": lambda: sp.tl.predict(target, references, preset=preset, device="cpu", copy=True),
        "fit": lambda: sp.tl.fit(references, preset=preset, device="cpu"),
        "cross_validate": lambda: sp.tl.cross_validate(slides, preset=preset, methods=("spahgc", "ridge")),
    }
    calls["predict"]()  # what is imported on the way is not part of it
    walks = {name: follow(call) for name, call in calls.items()}
    print(markdown(table(walks)))
    for name, walk in walks.items():
        for (source, receiver), n in walk.crossings.most_common(arguments.pairs):
            print(f"{name}: {short(source)} -> {short(receiver)}: {n}")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({name: numbers(walk) for name, walk in walks.items()}, indent=1) + "\n")


def simulated_slides() -> list[Any]:
    """Four slides of two patients, with an embedding that knows the domains of the tissue."""
    slides = sp.datasets.simulated(n_slides=4, n_patients=2, n_spots=120, n_genes=1200, n_domains=4, seed=3)
    for slide in slides:
        del slide.uns["spatial"]
        noise = np.random.default_rng(slide.n_obs).normal(scale=0.3, size=(slide.n_obs, 24))
        mixing = np.random.default_rng(0).normal(size=(slide.obsm["truth_domains"].shape[1], 24))
        slide.obsm["X_sim"] = (slide.obsm["truth_domains"] @ mixing + noise).astype(np.float32)
        sp.pp.use_embedding(slide, "X_sim", record={"name": "sim"})
    return list(slides)


def follow(call: Callable[[], Any]) -> Walk:
    """Call it, and note every function of the package that is called."""
    walk = Walk()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sys.setprofile(walk)
        try:
            call()
        finally:
            sys.setprofile(None)
    return walk


def short(file: str) -> str:
    return str(Path(file).relative_to(ROOT))


def numbers(walk: Walk) -> dict[str, int]:
    counted = {name: walk.calls[name] for name in CONVERSIONS}
    return {"files": len(walk.files), "crossings": walk.crossings.total()} | counted


def table(walks: dict[str, Walk]) -> pd.DataFrame:
    rows = {name: numbers(walk) for name, walk in walks.items()}
    return pd.DataFrame.from_dict(rows, orient="index").astype(str).rename_axis("call")


if __name__ == "__main__":
    main()
