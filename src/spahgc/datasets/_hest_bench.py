"""A task of the HEST benchmark (Jaume et al., NeurIPS 2024), from a copy that the user has.

The layout is that of https://github.com/mahmoodlab/HEST: in the folder of a task ``splits/train_0.csv`` and ``test_0.csv``,
whose columns ``sample_id``, ``patches_path`` and ``expr_path`` name sample and files; ``var_50genes.json`` with the genes;
patches as HDF5, counts as h5ad.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from spahgc._keys import SPATIAL, Obs
from spahgc._reading import read_h5ad, reading, unreadable
from spahgc._validate import quoted, user_path
from spahgc.io._files import read_json

SPLITS, GENES = "splits", "var_50genes.json"
COLUMNS = ("sample_id", "patches_path", "expr_path")
PATCH_UM = 112.0
"""Width of the benchmark's patches: 224 px of 0.5 um."""
IMAGE_KEYS = ("img", "imgs", "images")
BARCODE_KEYS = ("barcode", "barcodes")
"""Names of the data sets of a file of patches, the first that is there."""
PUBLISHED = Path(__file__).with_name("hest_bench_published.csv")
PUBLISHED_DATE, PUBLISHED_SOURCE = "2026-03-04", "README of https://github.com/mahmoodlab/HEST"
"""When the benchmark published the PCCs in that table, and where."""
REMEDY = "Fetch it again from the benchmark's data set."


@dataclass(frozen=True)
class HestBenchTask:
    """A task: which samples there are, and where their files lie.

    Parameters
    ----------
    name
        Name of the task, e.g. ``"IDC"``.
    folder
        Its folder.
    genes
        The genes that are scored.
    files
        Patches and counts of every sample.
    """

    name: str
    folder: Path
    genes: list[str]
    files: dict[str, tuple[Path, Path]]

    @property
    def splits(self) -> Path:
        """Folder of the splits."""
        return self.folder / SPLITS


def read_task(path: str | Path, name: str) -> HestBenchTask:
    """Find the files of a task; none of them but splits and genes is read.

    Raises
    ------
    FileNotFoundError
        If the folder of the task, its splits or a file that they name is missing.
    ValueError
        If a table lacks a column, or the list of genes is none.
    """
    root = user_path(path, "--path")
    folder = root / name
    if not folder.is_dir():
        there = sorted(entry.name for entry in root.iterdir() if (entry / SPLITS).is_dir()) if root.is_dir() else []
        raise FileNotFoundError(f'the folder "{folder}" is not there. Tasks in "{root}" are: {quoted(there, 20)}.')
    return HestBenchTask(name, folder, _genes(folder / GENES), _files(folder))


def _genes(path: Path) -> list[str]:
    genes = dict(read_json(path, "the genes of the task", REMEDY)).get("genes")
    if not isinstance(genes, list) or not genes or not all(isinstance(gene, str) for gene in genes):
        raise unreadable(path, "the genes of the task", 'it holds no list of names under "genes"', REMEDY)
    return genes


def _files(folder: Path) -> dict[str, tuple[Path, Path]]:
    tables = sorted((folder / SPLITS).glob("*.csv"))
    if not tables:
        raise FileNotFoundError(f'no splits found: "{folder / SPLITS}" holds no train_0.csv and test_0.csv.')
    files: dict[str, tuple[Path, Path]] = {}
    for path in tables:
        with reading(path, "the slides of a split", REMEDY):
            table = pd.read_csv(path, dtype=str, keep_default_na=False)
            missing = [column for column in COLUMNS if column not in table]
            if missing:
                raise ValueError(f"it lacks the columns {quoted(missing)}, and has {quoted(table.columns)}")
        for sample, patches, counts in table[[*COLUMNS]].itertuples(index=False):
            found = folder / patches, folder / counts
            if files.setdefault(sample, found) != found:
                raise ValueError(f'the splits in "{folder / SPLITS}" name several files for sample "{sample}".')
    absent = [str(file) for pair in files.values() for file in pair if not file.is_file()]
    if absent:
        raise FileNotFoundError(f"{len(absent)} files that the splits name are missing: {quoted(absent)}. {REMEDY}")
    return files


def read_sample(task: HestBenchTask, sample: str) -> AnnData:
    """A sample: the spots that have a patch, in the order of the patches, and all genes.

    Returns
    -------
    ``X``: ``log1p`` of the counts, which are not scaled: what the benchmark predicts; CSR, float32. ``obs["slide"]``, and
    ``obsm["spatial"]``, spot centres (x, y), pixels.

    Raises
    ------
    ValueError
        If patches and counts are not of the same spots, a gene of the task is missing, or values are no counts.
    """
    patches, path = task.files[sample]
    with _patch_file(patches) as file:
        barcodes = _barcodes(file, patches)
    counts = read_h5ad(path, "the counts of the sample", REMEDY)
    label = f'sample "{sample}"'
    lost = [barcode for barcode in barcodes if barcode not in counts.obs_names]
    if lost or not counts.obs_names.is_unique or len(set(barcodes)) < len(barcodes):
        what = f"{quoted(lost)} have a patch and no counts" if lost else "some are named twice"
        raise ValueError(f'spots of {label} cannot be matched: {what} ("{patches}", "{path}"). {REMEDY}')
    missing = [gene for gene in task.genes if gene not in counts.var_names]
    if missing:
        raise ValueError(f'{label} lacks {len(missing)} genes of {GENES}: {quoted(missing)} ("{path}"). {REMEDY}')
    if SPATIAL not in counts.obsm:
        raise ValueError(f'{label} has no obsm["{SPATIAL}"] with spot centres ("{path}"). {REMEDY}')
    rows = counts.obs_names.get_indexer(barcodes)
    values = csr_matrix(counts.X, dtype=np.float64)[rows]
    if not np.isfinite(values.data).all() or (values.nnz and values.data.min() < 0):
        raise ValueError(f'{label} holds values that are no counts, negative or not finite ("{path}"). {REMEDY}')
    values.data = np.log1p(values.data)
    slide = AnnData(
        values.astype(np.float32), obs=pd.DataFrame(index=pd.Index(barcodes)), var=pd.DataFrame(index=counts.var_names)
    )
    slide.var_names_make_unique()
    slide.obs[Obs.slide] = sample
    slide.obsm[SPATIAL] = np.array(counts.obsm[SPATIAL], dtype=np.float64)[rows]
    return slide


def read_patches(task: HestBenchTask, sample: str, batch_size: int) -> Iterator[NDArray[np.uint8]]:
    """The patches of a sample as the benchmark cut them, batch after batch, uint8, n x height x width x 3."""
    path = task.files[sample][0]
    with _patch_file(path) as file:
        images = _data_set(file, IMAGE_KEYS, path)
        if images.ndim != 4 or images.shape[1] != images.shape[2] or images.shape[3] != 3 or images.dtype != np.uint8:
            problem = f"its patches have shape {images.shape} and type {images.dtype}, not n x side x side x 3, uint8"
            raise unreadable(path, "the patches of the sample", problem, REMEDY)
        for start in range(0, len(images), batch_size):
            with reading(path, "the patches of the sample", REMEDY):
                batch = np.asarray(images[start : start + batch_size])
            yield batch


def _patch_file(path: Path) -> Any:
    import h5py

    with reading(path, "the patches of the sample", REMEDY):
        return h5py.File(path, "r")


def _data_set(file: Any, names: tuple[str, ...], path: Path) -> Any:
    for name in names:
        if name in file and hasattr(file[name], "shape"):
            return file[name]
    raise unreadable(path, "the patches of the sample", f"it holds none of {quoted(names)} but {quoted(file)}", REMEDY)


def _barcodes(file: Any, path: Path) -> list[str]:
    with reading(path, "the patches of the sample", REMEDY):
        found = np.ravel(np.asarray(_data_set(file, BARCODE_KEYS, path)))
        names = [name.decode() if isinstance(name, bytes) else str(name) for name in found]
        n_patches = len(_data_set(file, IMAGE_KEYS, path))
        if len(names) != n_patches:
            raise ValueError(f"it holds {n_patches} patches and {len(names)} barcodes")
    return names


def published_pcc(encoder: str, task: str) -> float | None:
    """Mean PCC that the benchmark published for an encoder, by the name that it has here; ``None`` where it did not."""
    table = pd.read_csv(PUBLISHED, comment="#").dropna(subset=["encoder"]).set_index("encoder")
    return float(table[task].to_dict()[encoder]) if encoder in table.index and task in table else None
