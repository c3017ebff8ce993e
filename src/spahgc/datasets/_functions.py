"""The functions of the cohorts. Each says what is its own; what holds for all of them is added to its docstring."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Sequence
from textwrap import fill
from typing import TYPE_CHECKING, TypeVar

from spahgc.datasets._cohort import find_cohort
from spahgc.datasets._load import load

if TYPE_CHECKING:
    from anndata import AnnData

Folder = str | os.PathLike[str]
F = TypeVar("F", bound=Callable[..., object])

LINE_LENGTH = 120
"""Characters of a line in a docstring."""
SHARED = re.sub(r"name\n +Name of the cohort.\n", "", inspect.getdoc(load) or "").partition("\n\n")[2]
"""Parameters, what is returned and errors are those of :func:`load`, without its first."""


def _documented(function: F) -> F:
    """Add the cohort's record, an example, and what is the same for every cohort to the docstring of its function."""
    cohort = find_cohort(function.__name__)
    record = f"Licence: {cohort.licence}. Source: {cohort.source}. Please cite {cohort.citation}. {cohort.note}"
    filled = fill(record.strip(), LINE_LENGTH, break_long_words=False, break_on_hyphens=False)
    example = f'>>> slides = sp.datasets.{cohort.name}(sections=["{cohort.sections[0]}"])  # doctest: +SKIP'
    examples = f"Examples\n--------\n>>> import spahgc as sp\n{example}\n"
    function.__doc__ = "\n\n".join([inspect.getdoc(function) or cohort.title, filled, SHARED, examples])
    return function


@_documented
def cscc(path: Folder | None = None, *, sections: Sequence[str] | None = None) -> list[AnnData]:
    """Cutaneous squamous cell carcinoma, legacy ST: 12 sections of 4 patients (Ji et al. 2020, GSE144240).

    A copy holds ``*P2_ST_rep1_stdata.tsv.gz``, ``*spot*P2_ST_rep1.tsv.gz`` and ``*P2_ST_rep1.jpg`` of every section, with
    GEO's number before the names or not. Slides are as :func:`spahgc.io.st` makes them, patients P2, P5, P9 and P10.
    """
    return load("cscc", path, sections=sections)


@_documented
def her2st(path: Folder | None = None, *, sections: Sequence[str] | None = None) -> list[AnnData]:
    """HER2-positive breast cancer, legacy ST: 36 sections of 8 patients (Andersson et al. 2021).

    A copy is the authors' repository (``data/ST-cnts/A1.tsv.gz``, ``data/ST-imgs/A/A1/*.jpg``,
    ``data/ST-spotfiles/A1_selection.tsv``), or has all files side by side (``A1.tsv.gz``, ``A1_selection.tsv``,
    ``A1.jpg``). Slides are as :func:`spahgc.io.st` makes them, patients A to H. Where the tables are there:
    ``obs["annotation"]``, the pathologist's label (eight sections have one), and ``obs["cluster"]``, the authors'
    expression cluster.
    """
    return load("her2st", path, sections=sections)


@_documented
def alex(path: Folder | None = None, *, sections: Sequence[str] | None = None) -> list[AnnData]:
    """Triple-negative breast cancer, Visium: 4 sections of 4 patients (Wu et al. 2021).

    A copy holds for every section ``CID4465/filtered_count_matrix/`` (matrix.mtx, features.tsv, barcodes.tsv, each .gz or
    not), ``CID4465/spatial/tissue_positions_list.csv``, ``CID4465/image.tif`` at full resolution, and perhaps
    ``CID4465/metadata.csv``. Counts and spots are downloaded; the images have to be put there by hand, and the error that
    says so names page and paths. Slides are as :func:`spahgc.io.visium` makes them, patients called as their section.
    Where the metadata are there: ``obs["annotation"]``, the pathologist's label, and ``obs["subtype"]``.
    """
    return load("alex", path, sections=sections)


@_documented
def visium_bc(path: Folder | None = None, *, sections: Sequence[str] | None = None) -> list[AnnData]:
    """Breast cancer, Visium: 3 sections of 10x Genomics, ``block1``, ``block2`` and ``FFPE``.

    A copy holds for every section ``block1/filtered_feature_bc_matrix.h5``, ``block1/spatial/`` and ``block1/image.tif``
    at full resolution; they are downloaded from 10x Genomics. Slides are as :func:`spahgc.io.visium` makes them;
    ``block1`` and ``block2`` are cut from one block and count as one patient.
    """
    return load("visium_bc", path, sections=sections)


@_documented
def hest_lymph_node(path: Folder | None = None, *, sections: Sequence[str] | None = None) -> list[AnnData]:
    """Lymph node, Visium: 4 samples of 4 patients of HEST-1k.

    A copy is that of HEST-1k, or of these samples of it: ``st/NCBI681.h5ad``, ``wsis/NCBI681.tif`` and
    ``metadata/NCBI681.json``. The Hugging Face hub, where they are downloaded from, is gated: request access on the page
    of the data set, and log in with ``hf auth login``. Slides are as :func:`spahgc.io.hest` makes them, patients 3, 6, 7
    and 8.
    """
    return load("hest_lymph_node", path, sections=sections)


@_documented
def hest_pancreas1(path: Folder | None = None, *, sections: Sequence[str] | None = None) -> list[AnnData]:
    """Pancreatic cancer, Visium: 4 samples of HEST-1k.

    Copy, download and slides are as those of :func:`spahgc.datasets.hest_lymph_node`, patients ``"unknown"`` unless the
    file says them.
    """
    return load("hest_pancreas1", path, sections=sections)


@_documented
def hest_pancreas2(path: Folder | None = None, *, sections: Sequence[str] | None = None) -> list[AnnData]:
    """Pancreatic cancer, Xenium aggregated to spots: 3 samples of HEST-1k.

    Copy, download and slides are as those of :func:`spahgc.datasets.hest_lymph_node`, patients ``"unknown"`` unless the
    file says them.
    """
    return load("hest_pancreas2", path, sections=sections)


@_documented
def spinal_cord(path: Folder | None = None, *, sections: Sequence[str] | None = None) -> list[AnnData]:
    """Spinal cord of healthy and ALS mice, legacy ST: 10 sections of 5 mice (Maniatis et al. 2019).

    A copy is the repository (``dataset/cm/CN51_C2_1_stdata_aligned_counts_IDs.txt``,
    ``dataset/image/CN51_C2_HE.jpg``), or has all files side by side (``CN51_C2_1.tsv.gz``,
    ``CN51_C2_1_selection.tsv``, ``CN51_C2.jpg``). Two pieces may share an array: ``CN51_C2_1`` and ``CN51_C2_2``.
    Slides are as :func:`spahgc.io.st` makes them; in the repository, whose counts are named by measured places
    (``5.907x2.103``), centres are ``(x - 1) * width / 32`` and ``(y - 1) * height / 34``. Genes are symbols.
    Features ``__ambiguous...``, reads that fit several genes (0.8 % of the counts), are no genes and left out; how
    many says the ``metadata`` of ``uns["spatial"]``. The patient is the mouse; ``obs["genotype"]`` (``wild type``
    or ``SOD1-G93A``), ``obs["age"]`` (``p70``: days after birth) and ``obs["sex"]`` are its own.
    """
    return load("spinal_cord", path, sections=sections)


@_documented
def olfactory_bulb(path: Folder | None = None, *, sections: Sequence[str] | None = None) -> list[AnnData]:
    """Mouse olfactory bulb, legacy ST on 2k arrays: 4 sections, ``MOB1`` to ``MOB4``.

    A copy is the repository (``inst/extdata/counts/MOB1.tsv``, ``inst/extdata/counts/alignment_table_MOB1.tsv``,
    ``inst/extdata/counts/MOB1.jpg``), or has these files side by side, tables packed or not. Slides are as
    :func:`spahgc.io.st` makes them: spots under tissue (``selected``) alone, neighbours 150 um apart, 4.6 um per
    pixel: coarser than what encoders of pathology were trained on. Genes are Ensembl ids with their version, as in
    the source.
    """
    return load("olfactory_bulb", path, sections=sections)
