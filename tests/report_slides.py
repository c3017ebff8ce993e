"""Slides with everything that a report can show, made without any training, and pages taken apart."""

from __future__ import annotations

import base64
import json
import zlib
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.sparse import csr_matrix

import spahgc as sp
from spahgc.pl._report._pack import MISSING, STEPS

EMBEDDING = "X_sim"
K = 7
PATCH_PX = 64
KINDS = {"u1": np.uint8, "i2": np.int16, "i4": np.int32, "f4": np.float32}


def finished_slides(n_spots: int = 60, n_genes: int = 20, *, n_refs: int = 2, seed: int = 0) -> list[AnnData]:
    """A target with prediction, spread, trust, support, domains, graph and scores, and then its references."""
    target, *refs = sp.datasets.simulated(1 + n_refs, n_spots=n_spots, n_genes=n_genes, n_domains=3, seed=seed)
    record = {
        "name": "sim",
        "revision": "1",
        "dim": 8,
        "input_px": PATCH_PX,
        "mpp": "native",
        "interpolation": "bicubic",
    }
    for slide in (target, *refs):
        slide.obsm[EMBEDDING] = np.zeros((slide.n_obs, 8), np.float32)
        slide.uns["spahgc"] = {"embeddings": {EMBEDDING: dict(record)}}
    add_prediction(target, refs, record, np.random.default_rng(seed))
    sp.tl.evaluate(target)
    return [target, *refs]


def add_prediction(target: AnnData, refs: list[AnnData], record: dict, rng: np.random.Generator) -> None:
    """What `spahgc.tl.predict` and `spahgc.tl.domains` write."""
    shape = target.shape
    target.layers["spahgc"] = (target.layers["truth"] + rng.normal(scale=0.3, size=shape)).astype(np.float32)
    target.layers["spahgc_std"] = rng.uniform(0.2, 1.0, shape).astype(np.float32)
    target.var["spahgc_panel"] = True
    pcc = rng.permutation(np.linspace(-0.1, 0.8, target.n_vars))
    for column, values in (("", pcc), ("_low", pcc - 0.1), ("_high", pcc + 0.08)):
        target.var[f"spahgc_cv_pcc{column}"] = values
    target.obs["spahgc_support"] = rng.uniform(size=target.n_obs)
    domains = np.asarray(target.obsm["truth_domains"]).argmax(axis=1).astype(str)
    target.obs["spahgc_domain"] = pd.Categorical(domains)
    bank = [f"{slide.obs['slide'].iloc[0]}:{spot}" for slide in refs for spot in slide.obs_names]
    columns = np.concatenate([rng.choice(len(bank), K, replace=False) for _ in range(target.n_obs)])
    rows = np.repeat(np.arange(target.n_obs), K)
    similarity = rng.uniform(0.5, 1.0, len(rows))
    attention = rng.dirichlet(np.ones(K), target.n_obs).ravel()
    for key, values in (("spahgc_cs", similarity), ("spahgc_attention", attention)):
        matrix = csr_matrix((values.astype(np.float32), (rows, columns)), shape=(target.n_obs, len(bank)))
        matrix.sort_indices()
        target.obsm[key] = matrix
    target.uns["spahgc"]["predictions"] = {
        "spahgc": {
            "method": "spahgc",
            "preset": "default",
            "references": [str(slide.obs["slide"].iloc[0]) for slide in refs],
            "genes": list(target.var_names),
            "units": "log1p counts per 10,000",
            "embedding": EMBEDDING,
            "encoder": dict(record),
            "parameters": {"width": 32, "layers": 2},
            "epochs_trained": 4,
            "seed": 0,
            "versions": {"spahgc": "0.1.0", "python": "3.12.0"},
            "bank_spots": bank,
        }
    }


def large_slide(n_spots: int = 4000, n_genes: int = 300) -> tuple[AnnData, list[AnnData]]:
    """A slide as large as a report should bear, with its references."""
    target, *refs = finished_slides(n_spots, n_genes)
    return target, refs


class Page(HTMLParser):
    """The parts of a page as a browser reads them."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.text = path.read_text("utf-8")
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inside: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.is_inside = False
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.is_inside = tag in ("script", "style", "title", "h1")
        if self.is_inside:
            self.inside.append((tag, dict(attrs), []))

    def handle_endtag(self, tag: str) -> None:
        self.is_inside = False

    def handle_data(self, data: str) -> None:
        if self.is_inside:
            self.inside[-1][2].append(data)

    def blocks(self, tag: str, kind: str | None = None) -> list[str]:
        """Contents of the scripts of a type, or of all elements of another kind."""
        return ["".join(parts) for name, attrs, parts in self.inside if name == tag and attrs.get("type") == kind]

    @property
    def content(self) -> dict:
        (text,) = self.blocks("script", "application/json")
        return json.loads(text)

    def array(self, name: str) -> np.ndarray:
        """A block of numbers."""
        ((attrs, parts),) = [(a, d) for _, a, d in self.inside if a.get("id") == f"block-{name}"]
        packed = base64.b64decode("".join(parts))
        return np.frombuffer(
            zlib.decompress(packed) if attrs["data-packed"] == "deflate" else packed, KINDS[attrs["data-kind"]]
        )

    def layer(self, name: str) -> np.ndarray:
        """Values of a layer, spots x genes, as the page's scripts read them."""
        content = self.content
        codes = self.array(name).reshape(len(content["genes"]), content["nSpots"]).astype(float)
        low, high = (np.array(content["layers"][name][end])[:, None] for end in ("low", "high"))
        return np.where(codes == MISSING, np.nan, low + codes * (high - low) / STEPS).T
