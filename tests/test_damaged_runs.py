"""Damaged files of a slide: every one is refused in our words, none stops the process, none gives wrong numbers."""

from __future__ import annotations

import gzip
import importlib.util
import json
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest

import spahgc as sp


def _slide_files() -> Any:
    spec = importlib.util.spec_from_file_location("slide_files", Path(__file__).with_name("slide_files.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules["slide_files"] = module
    spec.loader.exec_module(module)
    return module


files = _slide_files()
OURS = r"cannot be read: .*(copy them again|[Cc]opy it again|[Cc]opy the file again|[Ff]etch it again|[Ff]etch them again|Pass a)"
H5, SCALES = "outs/filtered_feature_bc_matrix.h5", "outs/spatial/scalefactors_json.json"


@pytest.fixture(scope="module")
def slides() -> list[ad.AnnData]:
    return sp.datasets.simulated(1, n_patients=1, n_spots=24, n_genes=20, seed=1)


@pytest.fixture(scope="module")
def _written(slides, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    files.write_visium(root / "V2", slides[0], cytassist=True)
    files.write_hest(root / "hest", slides[0], "S1")
    return root


@pytest.fixture
def run(_written, tmp_path) -> Path:
    return Path(shutil.copytree(_written / "V2", tmp_path / "V2"))


@pytest.fixture
def hest(_written, tmp_path) -> Path:
    return Path(shutil.copytree(_written / "hest", tmp_path / "hest"))


def _replace(file: h5py.File, name: str, values: Any) -> None:
    del file[f"matrix/{name}"]
    if values is not None:
        file[f"matrix/{name}"] = values


def _at(values: np.ndarray, index: int, value: Any) -> np.ndarray:
    values = values.copy()
    values[index] = value
    return values


DAMAGES = {
    "an index outside the shape": ("indices", lambda v: _at(v, 5, 10**6)),
    "an index far outside the shape": ("indices", lambda v: _at(v, 5, 2**40)),
    "a negative index": ("indices", lambda v: _at(v, 5, -1)),
    "indices with fractions": ("indices", lambda v: v + 0.5),
    "indices cut off": ("indices", lambda v: v[:-7]),
    "indices as text": ("indices", lambda v: np.array([b"x"] * len(v))),
    "pointers that do not ascend": ("indptr", lambda v: _at(v, 3, v[-1])),
    "a negative pointer": ("indptr", lambda v: _at(v, 3, -5)),
    "a first pointer above 0": ("indptr", lambda v: _at(v, 0, 1)),
    "pointers past the entries": ("indptr", lambda v: _at(v, -1, v[-1] + 1000)),
    "pointers cut off": ("indptr", lambda v: v[:-2]),
    "a shape of fewer genes": ("shape", lambda v: _at(v, 0, 3)),
    "a shape of more genes": ("shape", lambda v: _at(v, 0, 10**6)),
    "a shape of fewer spots": ("shape", lambda v: _at(v, 1, 3)),
    "a negative shape": ("shape", lambda v: -v),
    "a shape of one number": ("shape", lambda v: v[:1]),
    "values cut off": ("data", lambda v: v[:-7]),
    "a value that is NaN": ("data", lambda v: _at(v.astype(np.float32), 5, np.nan)),
    "a negative value": ("data", lambda v: _at(v, 5, -3)),
    "an infinite value": ("data", lambda v: _at(v.astype(np.float32), 5, np.inf)),
    "values as text": ("data", lambda v: np.array([b"x"] * len(v))),
    "no values": ("data", lambda v: None),
    "fewer barcodes": ("barcodes", lambda v: v[:-3]),
    "barcodes that are no text": ("barcodes", lambda v: np.array([b"\xff\xfe" * 4] * len(v))),
    "no barcodes": ("barcodes", lambda v: None),
    "fewer names of genes": ("features/name", lambda v: v[:-3]),
    "no kinds of features": ("features/feature_type", lambda v: None),
    "names of genes that are no text": ("features/name", lambda v: np.array([b"\xff\xfe"] * len(v))),
}
READ = """
import sys, warnings
import spahgc as sp
for path in sys.argv[1:]:
    try:
        adata = sp.io.visium(path)
        print("READ", adata.shape)
    except ValueError as error:
        print("REFUSED", str(error).replace(chr(10), " "))
    except Exception as error:
        print("OTHER", type(error).__name__, error)
"""


def test_damaged_counts_are_refused_before_compiled_code_touches_them(_written, tmp_path):
    paths = []
    for number, (name, change) in enumerate(DAMAGES.values()):
        run = Path(shutil.copytree(_written / "V2", tmp_path / f"R{number}"))
        with h5py.File(run / H5, "a") as file:
            _replace(file, name, change(file[f"matrix/{name}"][()]))
        paths.append(str(run))
    # A process of its own: what this is about would end it.
    done = subprocess.run(
        [sys.executable, "-c", READ, *paths], capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answers = dict(zip(DAMAGES, done.stdout.splitlines(), strict=True))
    wrong = {
        damage: answer
        for damage, answer in answers.items()
        if not (answer.startswith("REFUSED the counts") and "cannot be read" in answer and "copy them again" in answer)
    }
    assert not wrong


@pytest.mark.parametrize(
    "key", ["spot_diameter_fullres", "tissue_hires_scalef", "microns_per_pixel", "fiducial_diameter_fullres"]
)
@pytest.mark.parametrize("value", ["0.25", "NaN", [0.25], None, True, float("nan"), float("inf"), -1, 0, {"a": 1}])
def test_scale_factors_that_are_no_positive_numbers_are_refused(key, value, run):
    entries = json.loads((run / SCALES).read_text())
    (run / SCALES).write_text(json.dumps({**entries, key: value}))
    with pytest.raises(
        ValueError, match=f'scale factors .* lack "{key}", or have no positive number there.*Copy the file'
    ):
        sp.io.visium(run)


@pytest.mark.parametrize(
    "content", [b"", b"[1, 2]", b"3", b"null", b'{"a": ', b"\xff\xfe\x00", b'"text"', b"\x1f\x8b\x08\x00"]
)
def test_scale_factors_that_are_no_object_are_refused(content, run):
    (run / SCALES).write_bytes(content)
    with pytest.raises(
        ValueError, match=r"the scale factors .* cannot be read: .*They must be numbers by name, as JSON"
    ):
        sp.io.visium(run)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\xff", b'a,"b\n', b"\x1f\x8b\x08\x00\x00", b"\x00" * 100])
def test_positions_that_are_no_table_are_refused(content, run):
    (run / "outs/spatial/tissue_positions.csv").write_bytes(content)
    with pytest.raises(ValueError, match=r"the positions .*(cannot be read|have no column|name no spot)"):
        sp.io.visium(run)


def test_packed_files_that_end_too_early_are_refused(run):
    for name in ("tissue_positions.csv", "tissue_hires_image.png", "scalefactors_json.json"):
        path = run / "outs/spatial" / name
        whole = path.read_bytes()
        packed = gzip.compress(np.random.default_rng(0).bytes(2000) + whole)
        path.write_bytes(packed[: len(packed) // 2])
        with pytest.raises(ValueError, match=OURS):
            sp.io.visium(run)
        path.write_bytes(whole)


def _tables(run: Path, slides) -> Path:
    (run / H5).unlink()
    folder = run / "outs/filtered_feature_bc_matrix"
    files.write_mtx(
        folder, slides[0], files.tissue_barcodes(slides[0], files.visium_positions(slides[0])), packed=False
    )
    return folder


MTX = "%%MatrixMarket matrix coordinate integer general\n"


@pytest.mark.parametrize(
    "content",
    [
        "",
        MTX,
        MTX + "20 24\n",
        MTX + "20 24 2\n1 1 1\n",
        MTX + "20 24 1\n21 1 1\n",
        MTX + "20 24 1\n1 0 1\n",
        MTX + "20 24 1\n1 1 x\n",
        MTX + "5 24 1\n1 1 1\n",
        MTX + "20 5 1\n1 1 1\n",
        MTX + "20 24 1\n1 1 -1\n",
        MTX.replace("integer", "real") + "20 24 1\n1 1 nan\n",
        "\x00\x01\x02",
    ],
)
def test_a_damaged_matrix_of_text_is_refused(content, run, slides):
    (_tables(run, slides) / "matrix.mtx").write_text(content)
    with pytest.raises(ValueError, match=OURS):
        sp.io.visium(run)


@pytest.mark.parametrize("name", ["features.tsv", "barcodes.tsv"])
@pytest.mark.parametrize("content", [b"", b"\xff\xfe\xff", b"a\n", b"\x1f\x8b\x08\x00\x00"])
def test_damaged_names_of_genes_or_spots_are_refused(name, content, run, slides):
    (_tables(run, slides) / name).write_bytes(content)
    with pytest.raises(ValueError, match=OURS):
        sp.io.visium(run)


# HEST.


def test_repeated_gene_names_of_hest_are_made_unique_without_a_word(hest):
    path = hest / "st/S1.h5ad"
    adata = ad.read_h5ad(path)
    names = list(adata.var_names)
    adata.var_names = [names[1], *names[1:]]
    adata.write_h5ad(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read = sp.io.hest(hest, "S1")
    assert list(read.var_names[:2]) == [names[1], f"{names[1]}-1"]


@pytest.mark.parametrize("key", ["indices", "indptr"])
def test_damaged_counts_of_hest_are_refused(key, hest):
    with h5py.File(hest / "st/S1.h5ad", "a") as file:
        file[f"X/{key}"][2] = 10**6
    with pytest.raises(ValueError, match=OURS):
        sp.io.hest(hest, "S1")


@pytest.mark.parametrize("value", [np.nan, -1.0])
def test_values_of_hest_that_are_no_counts_are_refused(value, hest):
    with h5py.File(hest / "st/S1.h5ad", "a") as file:
        file["X/data"][2] = value
    with pytest.raises(ValueError, match="X holds text, or missing, infinite or negative numbers"):
        sp.io.hest(hest, "S1")


@pytest.mark.parametrize("value", [True, "none", [1], -1, None])
def test_a_resolution_of_hest_that_is_no_number_is_refused(value, hest):
    path = hest / "metadata/S1.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "pixel_size_um_estimated": value}))
    with pytest.raises(ValueError, match="that is a positive number"):
        sp.io.hest(hest, "S1")


@pytest.mark.parametrize("content", [b"", b"[1]", b"\xff\xfe"])
def test_metadata_of_hest_that_are_no_object_are_refused(content, hest):
    (hest / "metadata/S1.json").write_bytes(content)
    with pytest.raises(ValueError, match=OURS):
        sp.io.hest(hest, "S1")


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\xff", b"\x1f\x8b\x08\x00\x00"])
def test_a_table_of_hest_that_is_none_is_refused(content, hest):
    (hest / "metadata/S1.json").unlink()
    (hest / "HEST_v1.csv").write_bytes(content)
    with pytest.raises(ValueError, match=OURS):
        sp.io.hest(hest, "S1")


@pytest.mark.parametrize("positions", ["one column", "text"])
def test_positions_of_hest_that_are_none_are_refused(positions, hest):
    path = hest / "st/S1.h5ad"
    adata = ad.read_h5ad(path)
    if positions == "text":
        adata.obsm["spatial"] = pd.DataFrame({"x": "a", "y": "b"}, index=adata.obs_names)
    else:
        adata.obsm["spatial"] = adata.obsm["spatial"][:, :1]
    adata.write_h5ad(path)
    with pytest.raises(ValueError, match="the positions in .* cannot be read"):
        sp.io.hest(hest, "S1")


# Legacy ST.


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\xff\x00", b"\x1f\x8b\x08\x00\x00", b"\x1f\x8b" + b"\x00" * 40, b"\x00" * 64]
)
def test_tables_of_a_legacy_slide_that_are_none_are_refused(which, content, tmp_path):
    from PIL import Image

    paths = [tmp_path / "c.tsv", tmp_path / "s.tsv", tmp_path / "i.png"]
    pd.DataFrame(np.ones((3, 2), int), index=["1x1", "1x2", "2x1"], columns=["A", "NA"]).to_csv(paths[0], sep="\t")
    spots = pd.DataFrame({"x": [1, 1, 2], "y": [1, 2, 1], "pixel_x": [10, 10, 20], "pixel_y": [10, 20, 10]})
    spots.to_csv(paths[1], sep="\t", index=False)
    Image.new("RGB", (40, 40)).save(paths[2])
    assert list(sp.io.st(*paths).var_names) == ["A", "NA"]
    paths[which].write_bytes(content)
    with pytest.raises(ValueError, match=f'"{paths[which]}"'):
        sp.io.st(*paths)
