"""Grids of points over measured slides, finer than their spots: embedded once and kept on disk, predicted, and pooled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
from _cohorts import ENCODER, log
from _measured import slides_of
from anndata import AnnData

import spahgc as sp
from spahgc._files import digest, write_h5ad
from spahgc._keys import SPATIAL
from spahgc._slides.resolution import slide_mpp
from spahgc._validate import check_writable_folder, encoder_records, find_embedding

PLAIN, DEFAULT = "plain", "default"
"""What is looked at: the patch alone, or what ``pp.embed`` looks at by default."""


def fine_grid(folder: Path, slide: str, spacing_um: float, context: str, cache: Path) -> AnnData:
    """Points on a grid over the tissue of a slide of a legacy cohort, with their embedding.

    Parameters
    ----------
    folder
        Folder of the cohort.
    slide
        Name of the slide.
    spacing_um
        Distance of neighbouring points, microns.
    context
        :data:`PLAIN` or :data:`DEFAULT`.
    cache
        Folder where embedded grids are kept.
    """
    read, known_by = slides_of(folder)[slide]
    record = sp.encoders.describe_encoder(ENCODER)
    assert record is not None
    how = json.dumps([record.to_uns(), spacing_um, context, sp.__version__], sort_keys=True).encode()
    path = check_writable_folder(cache) / f"{slide}-{spacing_um:g}um-{context}-{digest(known_by, how)}.h5ad"
    if path.is_file():
        return anndata.read_h5ad(path)
    log(f"{slide}: a grid of {spacing_um:g} um, {context}")
    measured = read()
    grid = sp.pp.tile(folder / f"{slide}.jpg", mpp=slide_mpp(measured), spacing_um=spacing_um, focus=False)
    log(f"{slide}: {grid.n_obs} points")
    sp.pp.embed(grid, encoder=ENCODER, context=None if context == DEFAULT else False, resume=cache / "parts")
    grid.uns[SPATIAL] = measured.uns[SPATIAL]
    write_h5ad(grid, path)
    return grid


def plain_columns_alone(slide: AnnData) -> AnnData:
    """A copy of an embedded slide with the encoder's output for the plain patch and nothing else."""
    key = find_embedding(slide, None, "the slide")
    record = encoder_records(slide)[key]
    plain = slide.copy()
    plain.obsm[key] = slide.obsm[key][:, : int(record["dim"])].copy()
    plain.uns["spahgc"]["embeddings"][key] = record | {"context": "patch"}
    return plain


def predicted(target: AnnData, refs: list[AnnData], panel: list[str], **options: Any) -> AnnData:
    """The target with a prediction, without its counts; ``options`` are those of ``tl.predict``."""
    columns = [name for name in ("slide", "patient") if name in target.obs]
    blind = AnnData(obs=target.obs[columns], obsm=dict(target.obsm), uns=target.uns)
    return sp.tl.predict(blind, refs, genes=panel, trust=False, copy=True, **options)


def pooled(points: AnnData, target: AnnData, panel: list[str]) -> pd.DataFrame:
    """Mean of what is predicted for the points in each measured spot; NaN without a point."""
    of_points = points.to_df("spahgc")[panel]
    lowest = of_points.min()  # sums are of what is not negative
    values = AnnData(of_points - lowest, obsm={"spatial": points.obsm["spatial"]}, uns=points.uns)
    spots = sp.pp.pool(values, spots=target, units="counts")
    with np.errstate(invalid="ignore", divide="ignore"):
        means = spots.X.toarray() / spots.obs["n_pooled"].to_numpy()[:, None]
    return pd.DataFrame(means, index=target.obs_names, columns=panel) + lowest


def score(found: pd.DataFrame, target: AnnData, panel: list[str]) -> float:
    """Mean over genes of Pearson's correlation with the measurement."""
    counts = target[:, panel].X.toarray()
    totals = target.obs["spahgc_total_counts"].to_numpy()[:, None]
    measured = np.log1p(counts / totals * 1e4)
    known = found.notna().all(axis=1).to_numpy()
    pairs = zip(found.to_numpy()[known].T, measured[known].T, strict=True)
    return float(np.mean([np.corrcoef(one, other)[0, 1] for one, other in pairs]))
