"""The functions of the cohorts: one each, all alike."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from spahgc.datasets._load import load

if TYPE_CHECKING:
    from anndata import AnnData

Folder = str | os.PathLike[str]


def cscc(path: Folder | None = None, *, sections: Sequence[str] | None = None) -> list[AnnData]:
    """Cutaneous squamous cell carcinoma, legacy ST: 12 sections of 4 patients (Ji et al. 2020, GSE144240).

    Parameters
    ----------
    path
        Folder with a copy: ``*P2_ST_rep1_stdata.tsv.gz``, ``*spot*P2_ST_rep1.tsv.gz`` and ``*P2_ST_rep1.jpg`` of every
        section, with GEO's number before the names or not. ``None`` takes the cache folder, and downloads what is
        missing (:func:`spahgc.datasets.fetch`).
    sections
        Sections to read, such as ``["P2_ST_rep1"]``; ``None`` takes all that are there.

    Returns
    -------
    One slide a section as :func:`spahgc.io.st` makes it, with ``obs["slide"]``, ``obs["patient"]`` (P2, P5, P9, P10),
    and citation, licence and source in ``uns["spahgc"]["cohort"]``.

    Raises
    ------
    FileNotFoundError
        If the folder, or a file of a section, is missing.
    spahgc.datasets.CohortUnavailableError
        If the cohort cannot be downloaded.
    ValueError
        If a section is not known, or a file is damaged.

    Examples
    --------
    >>> import spahgc as sp
    >>> slides = sp.datasets.cscc(sections=["P2_ST_rep1", "P5_ST_rep1"])  # doctest: +SKIP
    """
    return load("cscc", path, sections=sections)


def her2st(path: Folder | None = None, *, sections: Sequence[str] | None = None) -> list[AnnData]:
    """HER2-positive breast cancer, legacy ST: 36 sections of 8 patients (Andersson et al. 2021).

    Parameters
    ----------
    path
        Folder with a copy of the authors' repository (``data/ST-cnts/A1.tsv.gz``, ``data/ST-imgs/A/A1/*.jpg``,
        ``data/ST-spotfiles/A1_selection.tsv``), or with all files side by side (``A1.tsv.gz``, ``A1_selection.tsv``,
        ``A1.jpg``). ``None`` takes the cache folder, and downloads what is missing (:func:`spahgc.datasets.fetch`).
    sections
        Sections to read, such as ``["A1", "B1"]``; ``None`` takes all that are there.

    Returns
    -------
    One slide a section as :func:`spahgc.io.st` makes it, with ``obs["slide"]``, ``obs["patient"]`` (A to H), and
    citation, licence and source in ``uns["spahgc"]["cohort"]``. Where the tables are there: ``obs["annotation"]``, the
    pathologist's label (eight sections have one), and ``obs["cluster"]``, the authors' expression cluster.

    Raises
    ------
    FileNotFoundError
        If the folder, or a file of a section, is missing.
    spahgc.datasets.CohortUnavailableError
        If the cohort cannot be downloaded.
    ValueError
        If a section is not known, or a file is damaged.

    Examples
    --------
    >>> import spahgc as sp
    >>> slides = sp.datasets.her2st("copies/her2st", sections=["C2", "C3"])  # doctest: +SKIP
    """
    return load("her2st", path, sections=sections)


def alex(path: Folder | None = None, *, sections: Sequence[str] | None = None) -> list[AnnData]:
    """Triple-negative breast cancer, Visium: 4 sections of 4 patients (Wu et al. 2021).

    Parameters
    ----------
    path
        Folder with a copy: for every section ``CID4465/filtered_count_matrix/`` (matrix.mtx, features.tsv,
        barcodes.tsv, each .gz or not), ``CID4465/spatial/tissue_positions_list.csv``, ``CID4465/image.tif`` at full
        resolution, and perhaps ``CID4465/metadata.csv``. ``None`` takes the cache folder and downloads counts and
        spots; the images have to be put there by hand, and the error that says so names page and paths.
    sections
        Sections to read, such as ``["CID4465"]``; ``None`` takes all that are there.

    Returns
    -------
    One slide a section as :func:`spahgc.io.visium` makes it, with ``obs["slide"]``, ``obs["patient"]`` (the section's
    name), and citation, licence and source in ``uns["spahgc"]["cohort"]``. Where the metadata are there:
    ``obs["annotation"]``, the pathologist's label, and ``obs["subtype"]``.

    Raises
    ------
    FileNotFoundError
        If the folder, or a file of a section, is missing.
    spahgc.datasets.CohortUnavailableError
        If the cohort cannot be downloaded.
    ValueError
        If a section is not known, or a file is damaged.

    Examples
    --------
    >>> import spahgc as sp
    >>> slides = sp.datasets.alex("copies/alex")  # doctest: +SKIP
    """
    return load("alex", path, sections=sections)


def visium_bc(path: Folder | None = None, *, sections: Sequence[str] | None = None) -> list[AnnData]:
    """Breast cancer, Visium: 3 sections of 10x Genomics, ``block1``, ``block2`` and ``FFPE``.

    Parameters
    ----------
    path
        Folder with a copy: for every section ``block1/filtered_feature_bc_matrix.h5``, ``block1/spatial/`` and
        ``block1/image.tif`` at full resolution. ``None`` takes the cache folder, and downloads what is missing
        (:func:`spahgc.datasets.fetch`) from 10x Genomics.
    sections
        Sections to read; ``None`` takes all that are there.

    Returns
    -------
    One slide a section as :func:`spahgc.io.visium` makes it, with ``obs["slide"]``, ``obs["patient"]`` (``block1`` and
    ``block2`` are cut from one block and count as one patient), and citation, licence and source in
    ``uns["spahgc"]["cohort"]``.

    Raises
    ------
    FileNotFoundError
        If the folder, or a file of a section, is missing.
    spahgc.datasets.CohortUnavailableError
        If the cohort cannot be downloaded.
    ValueError
        If a section is not known, or a file is damaged.

    Examples
    --------
    >>> import spahgc as sp
    >>> slides = sp.datasets.visium_bc(sections=["block1", "FFPE"])  # doctest: +SKIP
    """
    return load("visium_bc", path, sections=sections)


def hest_lymph_node(path: Folder | None = None, *, sections: Sequence[str] | None = None) -> list[AnnData]:
    """Lymph node, Visium: 4 samples of 4 patients of HEST-1k.

    Parameters
    ----------
    path
        Folder with a copy of HEST-1k, or of these samples of it: ``st/NCBI681.h5ad``, ``wsis/NCBI681.tif`` and
        ``metadata/NCBI681.json``. ``None`` takes the cache folder, and downloads what is missing from the Hugging Face
        hub (gated: request access on the page of the data set, and log in with ``hf auth login``).
    sections
        Samples to read, such as ``["NCBI681"]``; ``None`` takes all that are there.

    Returns
    -------
    One slide a sample as :func:`spahgc.io.hest` makes it, with ``obs["slide"]``, ``obs["patient"]`` (3, 6, 7, 8),
    and citation, licence and source in ``uns["spahgc"]["cohort"]``.

    Raises
    ------
    FileNotFoundError
        If the folder, or a file of a sample, is missing.
    spahgc.datasets.CohortUnavailableError
        If the cohort cannot be downloaded.
    ValueError
        If a sample is not known, or a file is damaged.

    Examples
    --------
    >>> import spahgc as sp
    >>> slides = sp.datasets.hest_lymph_node("copies/hest")  # doctest: +SKIP
    """
    return load("hest_lymph_node", path, sections=sections)


def hest_pancreas1(path: Folder | None = None, *, sections: Sequence[str] | None = None) -> list[AnnData]:
    """Pancreatic cancer, Visium: 4 samples of HEST-1k.

    Parameters
    ----------
    path
        Folder with a copy of HEST-1k, or of these samples of it: ``st/NCBI569.h5ad``, ``wsis/NCBI569.tif`` and
        ``metadata/NCBI569.json``. ``None`` takes the cache folder, and downloads what is missing from the Hugging Face
        hub (gated: request access on the page of the data set, and log in with ``hf auth login``).
    sections
        Samples to read, such as ``["NCBI569"]``; ``None`` takes all that are there.

    Returns
    -------
    One slide a sample as :func:`spahgc.io.hest` makes it, with ``obs["slide"]``, ``obs["patient"]`` (``"unknown"`` unless the file says it),
    and citation, licence and source in ``uns["spahgc"]["cohort"]``.

    Raises
    ------
    FileNotFoundError
        If the folder, or a file of a sample, is missing.
    spahgc.datasets.CohortUnavailableError
        If the cohort cannot be downloaded.
    ValueError
        If a sample is not known, or a file is damaged.

    Examples
    --------
    >>> import spahgc as sp
    >>> slides = sp.datasets.hest_pancreas1("copies/hest")  # doctest: +SKIP
    """
    return load("hest_pancreas1", path, sections=sections)


def hest_pancreas2(path: Folder | None = None, *, sections: Sequence[str] | None = None) -> list[AnnData]:
    """Pancreatic cancer, Xenium aggregated to spots: 3 samples of HEST-1k.

    Parameters
    ----------
    path
        Folder with a copy of HEST-1k, or of these samples of it: ``st/TENX116.h5ad``, ``wsis/TENX116.tif`` and
        ``metadata/TENX116.json``. ``None`` takes the cache folder, and downloads what is missing from the Hugging Face
        hub (gated: request access on the page of the data set, and log in with ``hf auth login``).
    sections
        Samples to read, such as ``["TENX116"]``; ``None`` takes all that are there.

    Returns
    -------
    One slide a sample as :func:`spahgc.io.hest` makes it, with ``obs["slide"]``, ``obs["patient"]`` (``"unknown"`` unless the file says it),
    and citation, licence and source in ``uns["spahgc"]["cohort"]``.

    Raises
    ------
    FileNotFoundError
        If the folder, or a file of a sample, is missing.
    spahgc.datasets.CohortUnavailableError
        If the cohort cannot be downloaded.
    ValueError
        If a sample is not known, or a file is damaged.

    Examples
    --------
    >>> import spahgc as sp
    >>> slides = sp.datasets.hest_pancreas2("copies/hest")  # doctest: +SKIP
    """
    return load("hest_pancreas2", path, sections=sections)
