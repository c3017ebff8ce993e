"""What the benchmarks share: their slides, embedded once and kept on disk, their options, and how they show tables.

All methods stand on the same embedding: ``efficientnet_lite0`` with the recommended context, whose first columns are
those of the plain patch.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

import spahgc as sp
from spahgc._files import digest, write_h5ad
from spahgc._keys import SPATIAL, Obs
from spahgc._settings import resolve_device, versions
from spahgc._validate import check_writable_folder, quoted

ENCODER = "efficientnet_lite0"
CONTEXT = sp.pp.Context()
CACHE = Path.home() / ".cache" / "spahgc-benchmarks"
PATIENT = "patient"
MEASURED = "measured"
CAVEAT = (
    "The settings of the default are one set for all slides and were found with the four slides B4, C2, C3 and C4 of the\n"
    "HER2-positive cohort in view, in part by references held out of three training slides at a time, in part by the score\n"
    "on the slide held out (`benchmarks/NOTES.md`). On these slides the default looks better than it will on others."
)
"""What has to be said wherever results on the measured slides are shown."""

SIMULATED: dict[str, dict[str, Any]] = {
    "simulated_11": {
        "seed": 11, "n_slides": 4, "n_patients": 2, "n_spots": 200, "n_genes": 150, "n_domains": 5,
        "batch_effect": 0.3, "stain_effect": 0.2,
    },
    "simulated_12": {
        "seed": 12, "n_slides": 3, "n_patients": 3, "n_spots": 120, "n_genes": 100, "n_domains": 3,
        "batch_effect": 0.6, "stain_effect": 0.4,
    },
    "simulated_13": {
        "seed": 13, "n_slides": 5, "n_patients": 2, "n_spots": 150, "n_genes": 120, "n_domains": 4,
        "batch_effect": 0.1, "stain_effect": 0.1,
    },
}  # fmt: skip
"""Arguments of :func:`spahgc.datasets.simulated` by name of the cohort."""


@dataclass(frozen=True, eq=False)
class Cohort:
    """Embedded slides, and the genes on which methods are compared on them."""

    name: str
    slides: list[AnnData]
    panel: list[str]

    @property
    def measured(self) -> bool:
        """Whether a tissue and not a simulation stands behind the counts."""
        return self.name == MEASURED

    @property
    def title(self) -> str:
        """Name, slides and genes in one line."""
        names = [str(slide.obs[Obs.slide].iloc[0]) for slide in self.slides]
        if self.measured:
            return f"Measured slides {', '.join(names)}: {len(self.panel)} genes of a fixed panel"
        settings = ", ".join(f"{name}={value}" for name, value in SIMULATED[self.name].items())
        return f"Simulated slides {', '.join(names)}: all {len(self.panel)} genes, {settings}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that say which slides are taken, and where results go."""
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="folder of measured slides, and panel.txt")
    parser.add_argument(
        "--embedded",
        type=Path,
        metavar="FOLDER",
        help="folder of measured slides that are embedded already, in place of those of --data: SLIDE.h5ad, counts in "
        "X, one embedding with its record; panel.txt is read here, or from --data if there is none",
    )
    parser.add_argument("--simulated", action="store_true", help="three simulated cohorts of fixed seeds")
    parser.add_argument("--slide", action="append", help="a measured slide; repeat (default: all that are found)")
    parser.add_argument(
        "--cache", type=Path, default=CACHE, metavar="FOLDER", help=f"where embedded slides are kept (default: {CACHE})"
    )
    parser.add_argument(
        "--checkpoint", type=Path, metavar="FOLDER", help="keep finished folds here, and go on from them"
    )
    parser.add_argument("--seed", type=int, default=0, help="of trainings and resamples (default: 0)")
    parser.add_argument("--threads", type=int, help="threads of torch and BLAS (default: theirs)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers here")


def prepare(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Notice what is wrong with the options before any long work, and set the threads."""
    if not (arguments.data or arguments.embedded or arguments.simulated):
        parser.error("no slides: pass --data FOLDER, --embedded FOLDER or --simulated")
    if arguments.slide and not (arguments.data or arguments.embedded):
        parser.error("--slide names measured slides: pass --data or --embedded as well")
    for path in (arguments.json, arguments.page):
        if path is not None:
            check_writable_folder(path.absolute().parent)
    if arguments.threads is not None:
        if arguments.threads < 1:
            parser.error(f"--threads {arguments.threads}: pass a positive number")
        sp.settings.n_threads = arguments.threads
        torch.set_num_threads(arguments.threads)
        threadpool_limits(limits=arguments.threads)


def read_cohorts(arguments: argparse.Namespace) -> Iterator[Cohort]:
    """The cohorts that were asked for, each embedded when its turn comes; the measured one first."""
    if arguments.data or arguments.embedded:
        panel = _panel(arguments)
        yield Cohort(MEASURED, _measured_slides(arguments), panel)
    for name in SIMULATED if arguments.simulated else ():
        slides = _simulated_slides(name, arguments.cache)
        # All genes, and not those that follow the morphology: of a real slide nobody knows which these are.
        yield Cohort(name, slides, list(slides[0].var_names))


def _panel(arguments: argparse.Namespace) -> list[str]:
    folders = [folder for folder in (arguments.embedded, arguments.data) if folder is not None]
    found = [folder / "panel.txt" for folder in folders if (folder / "panel.txt").is_file()]
    if not found:
        raise SystemExit(
            f"no panel.txt in {quoted(folders)}. Write the genes to compare on into it, one a line; all of them must "
            "be measured on every slide."
        )
    return found[0].read_text(encoding="utf-8").split()


def _measured_slides(arguments: argparse.Namespace) -> list[AnnData]:
    if arguments.embedded is not None:
        folder, paths = arguments.embedded, {path.stem: path for path in arguments.embedded.glob("*.h5ad")}
        names = _chosen(arguments.slide, sorted(paths), folder)
        slides = [anndata.read_h5ad(paths[name]) for name in names]
    else:
        folder = arguments.data
        found = [path.name.removesuffix(".tsv.gz") for path in folder.glob("*.tsv.gz")]
        names = _chosen(arguments.slide, sorted(name for name in found if (folder / f"{name}.jpg").is_file()), folder)
        slides = [_measured_slide(folder, name, arguments.cache) for name in names]
    for name, slide in zip(names, slides, strict=True):
        slide.obs[Obs.slide] = name
        if PATIENT not in slide.obs:
            slide.obs[PATIENT] = _patient(name)
    return slides


def _chosen(wanted: list[str] | None, found: list[str], folder: Path) -> list[str]:
    missing = [name for name in wanted or [] if name not in found]
    if missing or len(wanted or found) < 2:
        label = f"slides {quoted(missing)} not found" if missing else "fewer than two slides to compare on"
        raise SystemExit(f'{label}: "{folder}" holds {quoted(found)}.')
    return list(wanted or found)


def _patient(slide: str) -> str:
    """The letters that a slide's name begins with: sections of the HER2-positive cohort are called C2, C3, ..."""
    letters = re.match(r"[^\W\d_]+", slide)
    return letters[0] if letters else slide


def _measured_slide(folder: Path, name: str, cache: Path) -> AnnData:
    files = (folder / f"{name}.tsv.gz", folder / f"{name}_selection.tsv", folder / f"{name}.jpg")
    sizes = [[path.stat().st_size, path.stat().st_mtime_ns] for path in files]
    return _embedded(name, json.dumps(sizes).encode(), cache, lambda: sp.io.st(*files, library_id=name))


def _simulated_slides(name: str, cache: Path) -> list[AnnData]:
    log(f"{name}: simulating")
    slides = []
    for slide in sp.datasets.simulated(**SIMULATED[name]):
        (library,) = slide.uns[SPATIAL]
        counts = csr_matrix(slide.X)
        parts = [slide.uns[SPATIAL][library]["images"]["hires"], slide.obsm[SPATIAL], counts.data, counts.indices]
        content = digest(*(np.ascontiguousarray(part).tobytes() for part in parts)).encode()
        slides.append(_embedded(f"{name}-{library}", content, cache, lambda slide=slide: slide))
    return slides


def _embedded(name: str, content: bytes, cache: Path, make: Callable[[], AnnData]) -> AnnData:
    """The slide with its embedding, from the cache if it was embedded there in the same way.

    The key holds what the slide was made from, the encoder's record, the context and the package's version. Whoever
    changes how patches are cut or encoded within a version deletes the folder.
    """
    record = sp.encoders.describe_encoder(ENCODER)
    assert record is not None
    how = json.dumps([record.to_uns(), str(CONTEXT), sp.__version__], sort_keys=True).encode()
    path = check_writable_folder(cache) / f"{name}-{digest(content, how)}.h5ad"
    if path.is_file():
        log(f"{name}: read from {path}")
        return anndata.read_h5ad(path)
    log(f"{name}: embedding")
    slide = make()
    sp.pp.embed(slide, encoder=ENCODER, context=CONTEXT)
    del slide.uns[SPATIAL]  # the images, which nothing needs from here on
    write_h5ad(slide, path)
    return slide


def log(message: str) -> None:
    """Tell how far it is, beside the tables and not among them."""
    print(message, file=sys.stderr, flush=True)


def decimals(value: float) -> str:
    """A correlation as it is printed; what is undefined is a dash."""
    return "-" if np.isnan(value) else f"{round(value, 3) + 0.0:.3f}"  # no minus before a zero


def interval(low: float, high: float) -> str:
    """An interval as it is printed."""
    return "-" if np.isnan(low) else f"{decimals(low)} to {decimals(high)}"


def markdown(table: pd.DataFrame) -> str:
    """A table whose entries are text already, as Markdown, columns aligned."""
    cells = [[str(table.index.name), *table.columns], *([str(cell) for cell in row] for row in table.itertuples())]
    widths = [max(len(line[place]) for line in cells) for place in range(len(cells[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in cells
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of a table for JSON; what is undefined is null."""
    return json.loads(table.to_json(orient="records", double_precision=15))


def command(script: str, arguments: argparse.Namespace, *more: str) -> str:
    """The command that repeats a run, without anybody's folders."""
    words = ["python", f"benchmarks/{script}"]
    words += [word for name in ("data", "embedded") if getattr(arguments, name) for word in (f"--{name}", "FOLDER")]
    words += ["--simulated"] if arguments.simulated else []
    words += [word for slide in arguments.slide or () for word in ("--slide", slide)]
    words += ["--seed", str(arguments.seed), *more]
    return shlex.join(words)


def made_with() -> str:
    """Versions, device and threads in one line."""
    packages = ", ".join(f"{name} {number}" for name, number in versions().items())
    return f"{packages}; device {resolve_device(None)}, threads of torch: {torch.get_num_threads()}"
