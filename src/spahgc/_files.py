"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from anndata import AnnData


def write_h5ad(adata: AnnData, path: str | Path) -> None:
    """Write an AnnData under another name beside its place, and move it there when it is complete."""
    path = Path(path)
    handle, part = tempfile.mkstemp(prefix=f".{path.name}-", suffix=".part", dir=path.parent)
    os.close(handle)
    try:
        adata.write_h5ad(part)
        Path(part).chmod(0o644)
        Path(part).replace(path)
    finally:
        Path(part).unlink(missing_ok=True)
