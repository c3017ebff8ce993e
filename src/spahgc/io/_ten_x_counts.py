"""Counts as Space Ranger writes them: an HDF5 file, or a folder of three tables."""

from __future__ import annotations

import gzip
import warnings
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.io import mmread
from scipy.sparse import csr_matrix

from spahgc._validate import quoted
from spahgc.io._st_tables import refuse_repeated

FILTERED, RAW = "filtered_feature_bc_matrix", "raw_feature_bc_matrix"
FILE_NOTES = ("chemistry_description", "software_version")
"""Attributes of the HDF5 file that scanpy and squidpy keep too."""
GENE_EXPRESSION = "Gene Expression"


def find_counts(folder: Path, counts: str | None) -> Path:
    """Find the counts of a run.

    Parameters
    ----------
    folder
        The folder that holds the matrices.
    counts
        Name of the file or folder in it; ``None`` looks for the filtered matrix, whose name may carry a prefix.

    Raises
    ------
    FileNotFoundError
        If it is not there.
    ValueError
        If there are several.
    """
    if counts is not None:
        if (folder / counts).exists():
            return folder / counts
        raise FileNotFoundError(f'counts="{counts}" is not in "{folder}", which holds {_names(folder)}.')
    # The file is faster to read than the folder beside it, which holds the same.
    for pattern in (f"{FILTERED}.h5", f"*_{FILTERED}.h5", FILTERED):
        found = sorted(folder.glob(pattern))
        if len(found) > 1:
            raise ValueError(
                f'"{folder}" holds {len(found)} filtered matrices: {quoted(file.name for file in found)}. '
                "Say which one with counts=."
            )
        if found:
            return found[0]
    raw = next((name for name in (f"{RAW}.h5", RAW) if (folder / name).exists()), None)
    way_out = "Copy it from the run."
    if raw is not None:
        way_out = f'Copy it from the run, or pass counts="{raw}", of which the spots under tissue are kept.'
    raise FileNotFoundError(
        f'no counts in "{folder}": neither {FILTERED}.h5 nor the folder {FILTERED} is there, only {_names(folder)}. '
        f"{way_out}"
    )


def read_counts(path: Path) -> tuple[AnnData, dict[str, str], str | None]:
    """Read counts of gene expression; what else was measured (antibodies, guides) is left out.

    Returns
    -------
    Spots x genes (CSR, float32; gene names made unique, identifiers in ``var["gene_ids"]``), notes of the file
    (chemistry, software version), and the name of the library, if the file tells it.

    Raises
    ------
    ValueError
        If the file is damaged or holds something else.
    """
    try:
        with warnings.catch_warnings():
            # Gene names that occur twice are dealt with below.
            warnings.filterwarnings("ignore", message="Variable names are not unique")
            adata = _read_folder(path) if path.is_dir() else _read_file(path)
        notes, name = ({}, None) if path.is_dir() else _file_notes(path)
    except MemoryError:
        raise
    except Exception as error:
        # scanpy raises a bare Exception where a part is missing.
        size = "a folder" if path.is_dir() else f"{path.stat().st_size:,} bytes"
        raise ValueError(
            f'the counts "{path}" ({size}) cannot be read: {error}. They are damaged, were not copied to their end, or '
            "are no feature-barcode matrix of Space Ranger; copy them again."
        ) from error
    if not adata.n_obs or not adata.n_vars:
        raise ValueError(f'the counts "{path}" hold {adata.n_obs} spots and {adata.n_vars} genes. Pass another matrix.')
    refuse_repeated(adata.obs_names, f'barcodes in the counts "{path}"', "Copy the matrix again.")
    adata.X = csr_matrix(adata.X, dtype=np.float32)
    adata.var_names_make_unique()
    return adata, notes, name


def _read_file(path: Path) -> AnnData:
    import scanpy as sc

    return sc.read_10x_h5(path, gex_only=True)


def _file_notes(path: Path) -> tuple[dict[str, str], str | None]:
    """Attributes of the HDF5 file: chemistry, version, library."""
    with h5py.File(path, "r") as file:
        notes = {key: _text(file.attrs[key]) for key in FILE_NOTES if key in file.attrs}
        names = np.atleast_1d(file.attrs.get("library_ids", []))
    return notes, _text(names[0]) if len(names) else None


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _read_folder(folder: Path) -> AnnData:
    """Read the three tables; scanpy reads them as Space Ranger writes them."""
    import scanpy as sc

    features = _table(folder, "features", "genes")
    if (folder / "genes.tsv").is_file() or (features.name == "features.tsv.gz" and _n_columns(features) > 2):
        return sc.read_10x_mtx(folder, gex_only=True)
    # Published copies are often unpacked, or name the genes in one column.
    matrix = csr_matrix(mmread(_table(folder, "matrix")).T)
    genes = pd.read_csv(features, sep="\t", header=None, dtype=str, keep_default_na=False)
    barcodes = pd.read_csv(_table(folder, "barcodes"), sep="\t", header=None, dtype=str)
    names = genes[min(1, genes.shape[1] - 1)]
    var = pd.DataFrame({"gene_ids": genes[0].to_numpy()}, index=pd.Index(names.to_numpy(), name=None))
    if genes.shape[1] > 2:
        var["feature_types"] = genes[2].to_numpy()
    adata = AnnData(matrix.astype(np.float32), obs=pd.DataFrame(index=barcodes[0].to_numpy()), var=var)
    return adata[:, var["feature_types"] == GENE_EXPRESSION].copy() if "feature_types" in var else adata


def _table(folder: Path, *names: str) -> Path:
    """Find one of the tables, packed or not."""
    ending = ".mtx" if "matrix" in names else ".tsv"
    wanted = [f"{name}{ending}{packed}" for name in names for packed in (".gz", "")]
    found = next((folder / name for name in wanted if (folder / name).is_file()), None)
    if found is None:
        raise FileNotFoundError(f'none of {quoted(wanted)} is in "{folder}", which holds {_names(folder)}')
    return found


def _n_columns(path: Path) -> int:
    with gzip.open(path, "rt") as file:
        return file.readline().count("\t") + 1


def _names(folder: Path) -> str:
    """What a folder holds, for messages."""
    return quoted(sorted(item.name for item in folder.iterdir()))
