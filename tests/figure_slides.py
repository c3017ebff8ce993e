"""Slides made of sines for the pictures that figures are compared with: no random numbers, no training, no model."""

from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.sparse import csr_matrix

import spahgc as sp
from spahgc._keys import SCORES, SPATIAL, UNS, Layers, Obs, Obsm, Obsp, Uns, Var

KEY = "spahgc"
EMBEDDING = "X_made_up"
RECORD = {"name": "made_up", "dim": 4, "input_px": 24, "mpp": "native", "interpolation": "bicubic"}
GENES = [f"GENE{number:02d}" for number in range(1, 37)]
CONSTANT = 20
"""Number of a gene that is the same in all spots, and so has no correlation."""
ROWS, COLUMNS, PITCH_PX = 8, 9, 16
IMAGE_PX, TILE_PX = 160, 16
PITCH_UM = 100.0
N_REFERENCES = 5
"""Reference spots of a target spot."""


def made_up_slide(name: str, phase: float = 0.0) -> AnnData:
    """A slide of 72 spots and 36 genes with its image; `phase` tells slides apart."""
    place = np.arange(ROWS * COLUMNS)
    row, column = place // COLUMNS, place % COLUMNS
    wobble = 0.9 * np.sin(5.0 * place + phase)  # no two distances are the same, so that no neighbour is left to chance
    xy = np.column_stack([14 + PITCH_PX * (column + 0.5 * (row % 2)) + wobble, 14 + 0.87 * PITCH_PX * row - wobble])
    waves = np.sin(0.9 * row[:, None] * (1 + 0.1 * np.arange(len(GENES))) / 2 + 0.7 * column[:, None] + phase)
    abundance = np.geomspace(0.4, 20, len(GENES))
    counts = np.floor(abundance * (1.1 + waves) + 0.5 * (1 + np.sin(3.0 * place))[:, None])
    counts[:, CONSTANT] = 0
    slide = AnnData(csr_matrix(counts.astype(np.float32)), obs=pd.DataFrame(index=[f"{name}-{n}" for n in place]))
    slide.var_names = GENES
    slide.obs[Obs.slide] = name
    slide.obsm[SPATIAL] = xy
    slide.obsm[EMBEDDING] = np.column_stack([waves[:, :3], np.ones(len(place))]).astype(np.float32)
    slide.uns[UNS] = {"embeddings": {EMBEDDING: dict(RECORD)}, "slide_mpp": PITCH_UM / PITCH_PX}
    factors = {"tissue_hires_scalef": 1.0, "spot_diameter_fullres": 0.55 * PITCH_PX}
    slide.uns[SPATIAL] = {name: {"images": {"hires": made_up_image(phase)}, "scalefactors": factors}}
    return slide


def made_up_image(phase: float) -> np.ndarray:
    """Pink and violet tiles, uint8, height x width x 3; few colours make small files."""
    y, x = np.mgrid[:IMAGE_PX, :IMAGE_PX] // TILE_PX
    level = (x + 3 * y + int(10 * phase)) % 5
    return np.stack([235 - 6 * level, 215 - 15 * level, 225 - 5 * level], axis=-1).astype(np.uint8)


def predicted_slide() -> AnnData:
    """A target with a prediction, its spread, what was expected of it, its evaluation, support, domains and losses."""
    slide = made_up_slide("P1S1")
    place, gene = np.arange(slide.n_obs)[:, None], np.arange(slide.n_vars)[None]
    measured = np.log1p(1e4 * slide.X.toarray() / slide.X.toarray().sum(axis=1, keepdims=True))
    mean = measured.mean(axis=0)
    error = (0.2 + 0.05 * gene) * np.sin(7.3 * place + 2.1 * gene)
    slide.layers[KEY] = (mean + 0.6 * (measured - mean) + error).astype(np.float32)
    slide.layers[Layers.spread(KEY)] = (0.3 + 0.04 * gene + 0.1 * np.abs(np.sin(1.7 * place))).astype(np.float32)
    slide.var[Var.panel(KEY)] = True
    sp.tl.evaluate(slide)
    expected = slide.var[Var.score(KEY, "pearson")].to_numpy() * 0.8 + 0.1 * np.cos(np.arange(slide.n_vars))
    for name, side in ((Var.cv_pcc(KEY), 0.0), (Var.cv_pcc_low(KEY), -0.08), (Var.cv_pcc_high(KEY), 0.08)):
        slide.var[name] = expected + side
    slide.obs[Obs.support(KEY)] = np.linspace(0.0, 1.0, slide.n_obs) ** 0.5
    thirds = np.floor(3 * np.arange(slide.n_obs) / slide.n_obs).astype(int)
    slide.obs[Obs.domain(KEY)] = pd.Categorical(thirds.astype(str))
    slide.obs["label"] = pd.Categorical(np.where(thirds == 2, "stroma", np.where(thirds == 1, "tumour", "fat")))
    slide.uns[UNS][Uns.predictions] = {KEY: {"parameters": {"epochs": 20}, Uns.losses: losses()}}
    return slide


def losses() -> dict[str, list[float]]:
    """Of two networks, the second of which stopped early."""
    epoch = np.array([*range(1, 21), *range(1, 14)])
    network = np.array([0.0] * 20 + [0.1] * 13)
    terms = {
        "expression": 1 + np.exp(-epoch / 8) + network,
        "align_target": 0.5 * np.exp(-epoch / 15) + network,
        "align_reference": 0.3 * np.exp(-epoch / 10) + network,
    }
    return {"epoch": epoch.tolist()} | {name: values.tolist() for name, values in terms.items()}


def scores_by_method() -> dict[str, pd.DataFrame]:
    """Scores of 60 genes by three methods; one of them has none for two genes."""
    place = np.arange(60)
    tables = {
        name: pd.DataFrame(
            {"pearson": level + 0.25 * np.sin(1.3 * place + level)}, index=[f"GENE{n:02d}" for n in place]
        )
        for name, level in (("spahgc", 0.4), ("ridge", 0.3), ("nearest", 0.15))
    }
    tables["nearest"].iloc[:2] = np.nan
    return tables


def linked_slides() -> tuple[AnnData, list[AnnData]]:
    """A target with TS and CS edges and attention, and the two references to which they lead."""
    target = predicted_slide()
    refs = [made_up_slide("P1S2", 0.8), made_up_slide("P2S1", 2.2)]
    names = [f"{slide.obs[Obs.slide].iloc[0]}:{spot}" for slide in refs for spot in slide.obs_names]
    record = {"method": "spahgc", "references": ["P1S2", "P2S1"], "embedding": EMBEDDING, Uns.bank_spots: names}
    target.uns[UNS][Uns.predictions][KEY] |= record
    rank = np.arange(N_REFERENCES)
    columns = [np.sort((17 * spot + 31 * rank) % len(names)) for spot in range(target.n_obs)]
    starts = N_REFERENCES * np.arange(target.n_obs + 1)

    def edges(weights: np.ndarray) -> csr_matrix:
        values = np.tile(weights, target.n_obs).astype(np.float32)
        return csr_matrix((values, np.concatenate(columns), starts), shape=(target.n_obs, len(names)))

    target.obsm[Obsm.cross(KEY)] = edges(0.95 - 0.03 * rank)
    target.obsm[Obsm.attention(KEY)] = edges(np.array([0.12, 0.34, 0.2, 0.26, 0.08]))
    sp.pp.spatial_graph(target)
    assert Obsp.spatial_connectivities in target.obsp
    return target, refs


def change_scores(slide: AnnData) -> None:
    """A tenth more for one gene, in every score that an evaluation wrote."""
    for name in SCORES:
        column = slide.var[Var.score(KEY, name)].to_numpy().copy()
        column[5] += 0.1
        slide.var[Var.score(KEY, name)] = column
