"""Sizes of a predicted slide in a file, and the time that writing and reading take, by how it is written.

A table: how the file was written, MB, seconds of the processor for writing and for reading. The slide has as many spots and
genes as a full Visium slide, counts, an embedding, and a prediction with its spread in two dense layers, NaN outside the panel.

    python benchmarks/file_size.py --spots 4992 --genes 36601 --panel 1200
    python benchmarks/file_size.py --spots 346 --genes 15706 --panel 283
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
from scipy.sparse import csr_matrix

import spahgc as sp
from spahgc._files import write_h5ad
from spahgc._keys import Layers, Var

DETECTED = 0.08
"""Share of the genes that are seen in a spot."""
EMBEDDING = 1280
"""Columns of the embedding."""
N_AXES = 20
"""Axes along which predicted genes vary."""
BYTES_PER_MB = 1e6


def predicted_slide(n_spots: int, n_genes: int, n_panel: int) -> ad.AnnData:
    """A slide with a prediction, and no other meaning."""
    rng = np.random.default_rng(0)
    n_seen = int(DETECTED * n_genes)
    columns = np.concatenate([np.sort(rng.integers(0, n_genes, n_seen)) for _ in range(n_spots)]).astype(np.int32)
    counts = (rng.poisson(0.5, len(columns)) + 1).astype(np.float32)
    slide = ad.AnnData(csr_matrix((counts, columns, np.arange(n_spots + 1) * n_seen), shape=(n_spots, n_genes)))
    slide.X.sum_duplicates()
    slide.obsm["spatial"] = rng.uniform(0, 1e4, (n_spots, 2))
    slide.obsm["X_own"] = rng.normal(size=(n_spots, EMBEDDING)).astype(np.float32)
    panel = np.sort(rng.choice(n_genes, n_panel, replace=False))
    values = rng.normal(size=(n_spots, N_AXES)) @ rng.normal(size=(N_AXES, n_panel))
    spread = np.broadcast_to(rng.uniform(0.3, 1, n_panel), values.shape)
    for key, part in (("spahgc", np.log1p(np.exp(values / 5))), (Layers.spread("spahgc"), spread)):
        slide.layers[key] = np.full(slide.shape, np.nan, dtype=np.float32)
        slide.layers[key][:, panel] = part
    slide.var[Var.panel("spahgc")] = np.isin(np.arange(n_genes), panel)
    return slide


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (("spots", 4992), ("genes", 36601), ("panel", 1200)):
        parser.add_argument(f"--{name}", type=int, default=value)
    given = parser.parse_args()
    slide = predicted_slide(given.spots, given.genes, given.panel)
    ways: dict[str, Callable[[Path], object]] = {
        "adata.write_h5ad": slide.write_h5ad,
        'adata.write_h5ad(compression="lzf")': lambda path: slide.write_h5ad(path, compression="lzf"),
        'adata.write_h5ad(compression="gzip")': lambda path: slide.write_h5ad(path, compression="gzip"),
        "the shell": lambda path: write_h5ad(slide, path),
        "the shell, --panel-only": lambda path: write_h5ad(slide[:, slide.var[Var.panel("spahgc")]].copy(), path),
        "sp.get.predicted": lambda path: write_h5ad(sp.get.predicted(slide), path),
    }
    print(f"{given.spots} spots x {given.genes} genes, {given.panel} predicted")
    print(f"{'':<40}{'MB':>8}{'write, s':>10}{'read, s':>10}", flush=True)
    for name, write in ways.items():
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            path, start = Path(folder) / "slide.h5ad", time.process_time()
            write(path)
            written = time.process_time()
            ad.read_h5ad(path)
            read = time.process_time() - written
            size = path.stat().st_size / BYTES_PER_MB
        print(f"{name:<40}{size:>8.1f}{written - start:>10.1f}{read:>10.1f}", flush=True)


if __name__ == "__main__":
    main()
