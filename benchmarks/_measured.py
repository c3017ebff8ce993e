"""Measured cohorts in a folder: found by what their files are, read slide by slide, with the genes to compare on."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import scanpy as sc
from anndata import AnnData
from scipy.sparse import csr_matrix

import spahgc as sp
from spahgc._keys import Obs

PATIENT = "patient"
PANEL_FILE = "panel.txt"
N_PANEL = 100
"""Genes of a panel where a cohort brings none."""
MIN_SHARE = 0.1
"""Share of the spots of every slide in which a gene of the panel is seen, as HEST-Benchmark asks."""

Read = Callable[[], AnnData]


def find_cohorts(folder: Path) -> dict[str, Path]:
    """The folder if it holds the slides of a cohort, else those of its subfolders that do, by name."""
    inside = [path for path in sorted(folder.iterdir()) if path.is_dir()]
    found = {path.name: path for path in [folder, *inside] if _listing(path) is not None}
    if folder.name in found:
        return {folder.name: folder}
    if not found:
        raise SystemExit(
            f'"{folder}" holds no cohort, nor does a folder in it. A cohort is a folder with SLIDE.tsv.gz, '
            "SLIDE_selection.tsv and images; with MOBi.tsv.gz and alignment tables; or with a Space Ranger folder a slide."
        )
    return found


def slides_of(folder: Path) -> dict[str, tuple[Read, bytes]]:
    """How to read each slide of a cohort, and what its files are known by, by name of the slide."""
    listing = _listing(folder)
    if listing is None:
        raise SystemExit(f'"{folder}" holds no slides that these benchmarks can read.')
    return {name: (read, _known_by(folder, name)) for name, read in listing(folder).items()}


def panel_of(folder: Path, slides: list[AnnData]) -> list[str]:
    """The genes of ``panel.txt``; without it those that vary most of all that are seen often on every slide.

    It says on which genes methods are compared, as HEST-Benchmark does; no method sees the counts behind it.
    """
    path = folder / PANEL_FILE
    if path.is_file():
        return path.read_text(encoding="utf-8").split()
    genes = sorted(set.intersection(*(set(slide.var_names) for slide in slides)))
    variances, often = [], np.ones(len(genes), dtype=bool)
    for slide in slides:
        counts = AnnData(csr_matrix(slide[:, genes].X, dtype=np.float32))
        often &= np.asarray((counts.X > 0).mean(axis=0)).ravel() >= MIN_SHARE
        sc.pp.normalize_total(counts, target_sum=1e4)
        sc.pp.log1p(counts)
        variances.append(counts.X.toarray().var(axis=0))
    ranked = pd.Series(np.mean(variances, axis=0), index=genes)[often].sort_values(ascending=False, kind="stable")
    return list(ranked.index[:N_PANEL])


def _listing(folder: Path) -> Callable[[Path], Mapping[str, Read]] | None:
    """What lists the slides of a folder by its files; ``None`` where it is no cohort."""
    if any(folder.glob("alignment_table_*.tsv")):
        return _olfactory_bulb
    names = _selections(folder)
    if names:
        own_images = all((folder / f"{name}.jpg").is_file() for name in names)
        return _legacy if own_images else _spinal_cord
    return _visium if any(folder.glob("*/spatial/tissue_positions*.csv")) else None


def _legacy(folder: Path) -> dict[str, Read]:
    """Slides of legacy Spatial Transcriptomics; the letters that a name begins with are the patient."""

    def read(name: str) -> AnnData:
        slide = sp.io.st(
            folder / f"{name}.tsv.gz", folder / f"{name}_selection.tsv", folder / f"{name}.jpg", library_id=name
        )
        letters = re.match(r"[^\W\d_]+", name)
        slide.obs[PATIENT] = letters[0] if letters else name
        return slide

    return {name: lambda name=name: read(name) for name in _selections(folder)}


def _selections(folder: Path) -> list[str]:
    """Slides of which there is a table of selected spots."""
    return sorted(path.name.removesuffix("_selection.tsv") for path in folder.glob("*_selection.tsv"))


def _spinal_cord(folder: Path) -> dict[str, Read]:
    return {name: lambda name=name: sp.datasets.spinal_cord(folder, sections=[name])[0] for name in _selections(folder)}


def _olfactory_bulb(folder: Path) -> dict[str, Read]:
    paths = folder.glob("alignment_table_*.tsv")
    names = sorted(path.name.removeprefix("alignment_table_").removesuffix(".tsv") for path in paths)
    return {name: lambda name=name: sp.datasets.olfactory_bulb(folder, sections=[name])[0] for name in names}


def _visium(folder: Path) -> dict[str, Read]:
    places = sorted(path.parents[1] for path in folder.glob("*/spatial/tissue_positions*.csv"))
    return {place.name: lambda place=place: sp.io.visium(place, library_id=place.name) for place in places}


def _known_by(folder: Path, name: str) -> bytes:
    """Sizes and times of the files of a slide; a stem without its last part names an image that slides share."""
    stems = (name, name.rsplit("_", 1)[0])
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and _belongs(path, folder, stems)]
    return json.dumps([[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files]).encode()


def _belongs(path: Path, folder: Path, stems: tuple[str, ...]) -> bool:
    first = path.relative_to(folder).parts[0]
    return any(stem in first for stem in stems)


def named(slide: AnnData, name: str) -> AnnData:
    """The slide with its name, and gene names that are unique."""
    slide.obs[Obs.slide] = name
    slide.var_names_make_unique()
    return slide
