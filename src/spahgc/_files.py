"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from anndata import AnnData


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A file of another name beside the path, which takes its place when all has gone well and is gone otherwise."""
    handle, part = tempfile.mkstemp(prefix=f".{path.name}-", suffix=".part", dir=path.parent)
    os.close(handle)
    try:
        yield Path(part)
        Path(part).chmod(0o644)
        Path(part).replace(path)
    finally:
        Path(part).unlink(missing_ok=True)


def write_h5ad(adata: AnnData, path: str | Path) -> None:
    """Write an AnnData whole or not at all."""
    with written_whole(Path(path)) as part:
        adata.write_h5ad(part)


def write_text(path: Path, text: str) -> None:
    """Write a text whole or not at all, its line ends as they are."""
    with written_whole(path) as part:
        part.write_text(text, encoding="utf-8", newline="")
