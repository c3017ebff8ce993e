"""The README's examples are run as they are printed."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import tifffile

import spahgc as sp

README = Path(__file__).parents[1] / "README.md"
MPP = 2.0
"""Microns per pixel that the file says it has; the encoder takes any."""


def block(name: str) -> str:
    """The code between the README's two markers of that name."""
    found = re.search(rf"<!-- {name} -->\n```python\n(.*?)```\n<!-- /{name} -->", README.read_text("utf-8"), re.DOTALL)
    assert found, f"README.md has no python block between <!-- {name} --> and <!-- /{name} -->"
    return found[1]


def write_svs(path: Path, pixels: np.ndarray) -> None:
    """A tiled JPEG pyramid with Aperio's description."""
    with tifffile.TiffWriter(path, bigtiff=False) as file:
        for factor in (1, 2):
            height, width = pixels.shape[:2]
            text = f"Aperio Image Library v12\n{width}x{height} |AppMag = 10|MPP = {MPP}"
            level = pixels[::factor, ::factor]
            file.write(
                level, tile=(256, 256), compression="jpeg", photometric="rgb", description=text if factor == 1 else None,
                metadata=None, subfiletype=int(factor > 1),
            )  # fmt: skip


@pytest.fixture
def case(tmp_path, monkeypatch):
    """Measured references, and a folder with case.svs."""
    target, *refs = sp.datasets.simulated(n_slides=3, n_patients=1, n_spots=40, n_genes=30, seed=1)
    (library,) = target.uns["spatial"]
    write_svs(tmp_path / "case.svs", target.uns["spatial"][library]["images"]["hires"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sp.settings, "device", "cpu")
    return refs


def test_a_plain_slide_is_tiled_embedded_predicted_and_drawn_as_the_readme_says(case):
    mpl.use("Agg")
    names = {"sp": sp, "refs": case}
    exec(block("plain-slide"), names)
    target = names["target"]
    assert target.n_obs > 10
    assert target.n_vars == target.layers["spahgc"].shape[1] > 0
    assert np.isfinite(target.layers["spahgc"]).all()
    assert (target.obs["tissue_fraction"] >= 0.5).all()
