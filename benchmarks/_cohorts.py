"""What the benchmarks share: their slides, embedded once and kept on disk, their options, and how they show tables.

All methods stand on the same embedding, that of ``efficientnet_lite0`` with what ``pp.embed`` looks at by default; the
encoder's own columns are those of the plain patch.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import torch
from _measured import find_cohorts, named, panel_of, slides_of
from anndata import AnnData
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

import spahgc as sp
from spahgc._files import digest, write_h5ad
from spahgc._keys import SPATIAL
from spahgc._settings import resolve_device, versions
from spahgc._validate import check_writable_folder, quoted
from spahgc.pp._embed.context import DEFAULT_CONTEXT

ENCODER = "efficientnet_lite0"
CACHE = Path.home() / ".cache" / "spahgc-benchmarks"
KEPT_IMAGE = "hires"
"""The only image of an embedded slide that is kept."""
EMBEDDING_SECONDS = "seconds_of_embedding"
"""``uns`` of an embedded slide: what its embedding took."""
CAVEAT = (
    "The settings of the default are one set for all slides. They were found with the slides of `her2st`, `als_spinal_cord`,\n"
    "`mob_st` and `kidney_organoid` in view, in part by references held out, in part by the score on the slide held out; so was\n"
    "what `pp.embed` looks at by default (`benchmarks/NOTES.md`). On slides that were in view a method looks better than it\n"
    "will on others."
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
    measured: bool = False
    """Whether a tissue and not a simulation stands behind the counts."""

    @property
    def label(self) -> str:
        """Name, of a simulated one with its settings."""
        if self.measured:
            return self.name
        return f"{self.name} ({', '.join(f'{name}={value}' for name, value in SIMULATED[self.name].items())})"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that say which slides are taken, and where results go."""
    parser.add_argument(
        "--data", type=Path, metavar="FOLDER", help="folder of a measured cohort, or of folders that are cohorts"
    )
    parser.add_argument(
        "--cohort", action="append", metavar="NAME", help="a cohort of --data; repeat (default: all that are found)"
    )
    parser.add_argument(
        "--embedded",
        type=Path,
        metavar="FOLDER",
        help="folder of a measured cohort that is embedded already, in place of --data: SLIDE.h5ad, counts in X, one "
        "embedding with its record; and panel.txt, if there is one",
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
    if arguments.data and arguments.embedded:
        parser.error("--data and --embedded both name measured slides: pass one of them")
    if arguments.slide and not (arguments.data or arguments.embedded):
        parser.error("--slide names measured slides: pass --data or --embedded as well")
    if arguments.cohort and not arguments.data:
        parser.error("--cohort names a cohort of --data, which is missing")
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
    """The cohorts that were asked for, each embedded when its turn comes; the measured ones first."""
    if arguments.data or arguments.embedded:
        yield from _measured_cohorts(arguments)
    for name in SIMULATED if arguments.simulated else ():
        slides = _simulated_slides(name, arguments.cache)
        # All genes, and not those that follow the morphology: of a real slide nobody knows which these are.
        yield Cohort(name, slides, list(slides[0].var_names))


def _measured_cohorts(arguments: argparse.Namespace) -> Iterator[Cohort]:
    """Every cohort of the folder of data, or the one of a folder of embedded slides."""
    if arguments.embedded is not None:
        paths = {path.stem: path for path in arguments.embedded.glob("*.h5ad")}
        names = _chosen(arguments.slide, sorted(paths), arguments.embedded)
        slides = [named(anndata.read_h5ad(paths[name]), name) for name in names]
        yield Cohort(arguments.embedded.name, slides, panel_of(arguments.embedded, slides), measured=True)
        return
    cohorts = find_cohorts(arguments.data)
    missing = [name for name in arguments.cohort or [] if name not in cohorts]
    if missing:
        raise SystemExit(f'cohorts {quoted(missing)} not found: "{arguments.data}" holds {quoted(cohorts)}.')
    for cohort, folder in cohorts.items():
        if arguments.cohort and cohort not in arguments.cohort:
            continue
        found = slides_of(folder)
        names = _chosen(arguments.slide, list(found), folder)
        slides = [named(_embedded(name, found[name][1], arguments.cache, found[name][0]), name) for name in names]
        yield Cohort(cohort, slides, panel_of(folder, slides), measured=True)


def _chosen(wanted: list[str] | None, found: list[str], folder: Path) -> list[str]:
    missing = [name for name in wanted or [] if name not in found]
    if missing or len(wanted or found) < 2:
        label = f"slides {quoted(missing)} not found" if missing else "fewer than two slides to compare on"
        raise SystemExit(f'{label}: "{folder}" holds {quoted(found)}.')
    return list(wanted or found)


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

    The key holds what the slide was made from, the encoder's record, the default context and the package's version.
    Whoever changes how patches are cut or encoded within a version deletes the folder.
    """
    record = sp.encoders.describe_encoder(ENCODER)
    assert record is not None
    how = json.dumps([record.to_uns(), str(DEFAULT_CONTEXT), sp.__version__, KEPT_IMAGE], sort_keys=True).encode()
    path = check_writable_folder(cache) / f"{name}-{digest(content, how)}.h5ad"
    if path.is_file():
        log(f"{name}: read from {path}")
        return anndata.read_h5ad(path)
    log(f"{name}: embedding")
    slide = make()
    started = time.perf_counter()
    sp.pp.embed(slide, encoder=ENCODER, resume=cache / "parts")
    slide.uns[EMBEDDING_SECONDS] = time.perf_counter() - started
    log(f"{name}: embedded in {slide.uns[EMBEDDING_SECONDS]:.0f} s")
    for library in slide.uns.get(SPATIAL, {}).values():  # by it sections are laid over each other
        library["images"] = {KEPT_IMAGE: library["images"][KEPT_IMAGE]}
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
    words += [word for name in arguments.cohort or () for word in ("--cohort", name)]
    words += ["--simulated"] if arguments.simulated else []
    words += [word for slide in arguments.slide or () for word in ("--slide", slide)]
    words += ["--seed", str(arguments.seed), *more]
    return shlex.join(words)


def made_with() -> str:
    """Versions, device and threads in one line."""
    packages = ", ".join(f"{name} {number}" for name, number in versions().items())
    return f"{packages}; device {resolve_device(None)}, threads of torch: {torch.get_num_threads()}"
