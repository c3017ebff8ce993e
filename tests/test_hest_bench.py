"""A task of the HEST benchmark, on small files of exactly its structure."""

from __future__ import annotations

import json
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from typer.testing import CliRunner

import spahgc as sp
from spahgc.datasets import _hest_bench
from spahgc.datasets._hest_bench import published_pcc, read_patches, read_sample, read_task
from spahgc.image import cut_patch, open_image

ENCODER, KEY = "efficientnet_lite0", "X_efficientnet_lite0"
SPLITS = {"0": (["S2", "S3"], ["S1"]), "1": (["S1"], ["S2", "S3"])}
N_GENES = 8


@pytest.fixture(scope="module")
def _copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three samples: patches of 224 px in another order than the counts, one spot without a patch."""
    root = tmp_path_factory.mktemp("hest-bench")
    task = root / "IDC"
    for name in ("splits", "adata", "patches"):
        (task / name).mkdir(parents=True)
    slides = sp.datasets.simulated(n_slides=3, n_patients=3, n_spots=30, n_genes=20, n_domains=3, seed=5)
    for number, slide in enumerate(slides, start=1):
        image = open_image(slide.uns["spatial"][slide.obs["slide"].iloc[0]]["images"]["hires"])
        order = np.random.default_rng(number).permutation(slide.n_obs)[:-1]
        patches = [cut_patch(image, slide.obsm["spatial"][spot], width_px=140, out_px=224)[0] for spot in order]
        with h5py.File(task / "patches" / f"S{number}.h5", "w") as file:
            file["img"] = np.stack(patches)
            file["coords"] = slide.obsm["spatial"][order].astype(int)
            file["barcode"] = np.array([[slide.obs_names[spot].encode()] for spot in order])
        counts = ad.AnnData(
            slide.X.copy(), obs=pd.DataFrame(index=slide.obs_names), var=pd.DataFrame(index=slide.var_names)
        )
        counts.obsm["spatial"] = slide.obsm["spatial"]
        counts.write_h5ad(task / "adata" / f"S{number}.h5ad")
    (task / "var_50genes.json").write_text(json.dumps({"genes": list(slides[0].var_names[:N_GENES])}))
    for name, sides in SPLITS.items():
        for side, samples in zip(("train", "test"), sides, strict=True):
            rows = [(sample, f"patches/{sample}.h5", f"adata/{sample}.h5ad") for sample in samples]
            table = pd.DataFrame(rows, columns=["sample_id", "patches_path", "expr_path"])
            table.to_csv(task / "splits" / f"{side}_{name}.csv", index=False)
    return root


@pytest.fixture
def copy(_copy: Path, tmp_path: Path) -> Path:
    """A copy of one's own to spoil."""
    import shutil

    return Path(shutil.copytree(_copy, tmp_path / "copy"))


def spahgc(*arguments: object):
    from spahgc.cli import app

    return CliRunner().invoke(app, ["cross-validate", *(str(argument) for argument in arguments)])


@pytest.fixture(scope="module")
def _ran(_copy: Path, tmp_path_factory: pytest.TempPathFactory):
    out = tmp_path_factory.mktemp("out")
    ran = spahgc(
        "--hest-bench", "IDC", "--path", _copy, "--encoder", ENCODER, "--method", "nearest", "--output", out,
        "--device", "cpu", "--json",
    )  # fmt: skip
    assert ran.exit_code == 0, ran.output
    return ran, out


def benchmark_by_hand(copy: Path, embeddings: dict[str, np.ndarray]) -> list[float]:
    """The benchmark's own protocol, from the files alone: mean PCC of every split."""
    task = copy / "IDC"
    genes = json.loads((task / "var_50genes.json").read_text())["genes"]

    def part(samples):
        x, y = [], []
        for sample in samples:
            with h5py.File(task / "patches" / f"{sample}.h5") as file:
                barcodes = [name.decode() for name in np.ravel(file["barcode"][:])]
            x.append(embeddings[sample])
            y.append(np.log1p(ad.read_h5ad(task / "adata" / f"{sample}.h5ad")[barcodes, genes].to_df().to_numpy()))
        return np.vstack(x).astype(float), np.vstack(y)

    means = []
    for train, test in SPLITS.values():
        (x, y), (x_test, y_test) = part(train), part(test)
        steps = make_pipeline(StandardScaler(), PCA(min(256, len(x) - 1)))
        x, x_test = steps.fit_transform(x), steps.transform(x_test)
        line = Ridge(100 / (x.shape[1] * y.shape[1]), fit_intercept=False, solver="lsqr", tol=1e-12, max_iter=10_000)
        predicted = line.fit(x, y).predict(x_test)
        means.append(np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(predicted.T, y_test.T, strict=True)]))
    return means


def test_the_number_is_that_of_the_benchmarks_protocol(_copy, _ran):
    from spahgc.encoders import load_encoder

    encoder = load_encoder(ENCODER, device="cpu")
    task, side = read_task(_copy, "IDC"), encoder.record.input_px
    embeddings = {}
    for sample in task.files:
        patches = np.concatenate(list(read_patches(task, sample, 7)))
        assert patches.shape == (29, 224, 224, 3) and side == 224
        embeddings[sample] = encoder.encode(patches, device="cpu")
    ran, out = _ran
    found = json.loads(ran.stdout)
    assert found["methods"]["hest"]["pearson_pooled"] == pytest.approx(
        np.mean(benchmark_by_hand(_copy, embeddings)), abs=2e-3
    )
    assert list(found["methods"]) == ["hest", "nearest"] and found["methods"]["hest"]["n_genes"] == N_GENES
    assert found["published"]["pcc"] is None and found["task"] == "IDC"
    scores = pd.read_csv(out / "scores.csv")
    assert set(scores["slide"]) == {"S1", "S2", "S3"}


def test_the_published_figure_stands_beside_ours(_copy, _ran, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "spahgc.tl._cross_validation.folds.run_fold", lambda fold: pytest.fail("a finished fold is computed again")
    )
    table = tmp_path / "published.csv"
    table.write_text(f"# when and where\nmodel,encoder,IDC\nSome,{ENCODER},0.4321\nOther,,0.1\n")
    monkeypatch.setattr(_hest_bench, "PUBLISHED", table)
    ran = spahgc(
        "--hest-bench", "IDC", "--path", _copy, "--encoder", ENCODER, "--method", "nearest", "--output", _ran[1],
        "--device", "cpu",
    )  # fmt: skip
    assert ran.exit_code == 0, ran.output
    lines = ran.stdout.splitlines()
    assert lines[0] == f"HEST benchmark, task IDC: 3 slides, 2 splits, {N_GENES} genes, encoder {ENCODER}"
    assert any(line.split() == ["hest,", "published", "2026-03-04", "0.4321"] for line in lines), ran.stdout
    assert "README of https://github.com/mahmoodlab/HEST" in ran.stdout


def test_without_a_published_figure_that_is_said(_copy, _ran):
    ran = spahgc(
        "--hest-bench", "IDC", "--path", _copy, "--encoder", ENCODER, "--method", "nearest", "--output", _ran[1],
        "--device", "cpu",
    )  # fmt: skip
    assert f"published no figure of encoder {ENCODER} for this task that is known here" in ran.stdout


@pytest.mark.parametrize(
    ("encoder", "task", "expected"),
    [("uni", "IDC", 0.5890), ("h_optimus_0", "LYMPH_IDC", 0.2591), ("resnet50", "Average", 0.3252), ("uni", "HCC", None),
     ("efficientnet_lite0", "IDC", None)],
)  # fmt: skip
def test_what_was_published_is_known_by_the_names_of_our_encoders(encoder, task, expected):
    assert published_pcc(encoder, task) == expected


def test_every_published_encoder_exists_and_every_average_is_that_of_its_tasks():
    table = pd.read_csv(_hest_bench.PUBLISHED, comment="#")
    assert len(table) == 26
    assert set(table["encoder"].dropna()) <= set(sp.encoders.list()["name"])
    assert table["encoder"].dropna().is_unique
    np.testing.assert_allclose(table.iloc[:, 3:].mean(axis=1), table["Average"], atol=2e-4)


def test_spots_are_those_with_a_patch_in_the_order_of_the_patches(copy):
    task = read_task(copy, "IDC")
    slide = read_sample(task, "S1")
    with h5py.File(task.files["S1"][0]) as file:
        assert list(slide.obs_names) == [name.decode() for name in np.ravel(file["barcode"][:])]
    source = ad.read_h5ad(task.files["S1"][1])[slide.obs_names]
    np.testing.assert_allclose(slide.X.toarray(), np.log1p(source.X.toarray()), rtol=1e-6)
    np.testing.assert_array_equal(slide.obsm["spatial"], source.obsm["spatial"])


def test_other_names_of_images_and_barcodes_are_read(copy):
    task = read_task(copy, "IDC")
    expected = read_sample(task, "S1")
    with h5py.File(task.files["S1"][0], "r+") as file:
        file.move("img", "imgs")
        file.move("barcode", "barcodes")
    np.testing.assert_array_equal(read_sample(task, "S1").X.toarray(), expected.X.toarray())
    assert sum(map(len, read_patches(task, "S1", 10))) == 29


def no_task(copy):
    (copy / "IDC").rename(copy / "PRAD")


def no_splits(copy):
    for path in (copy / "IDC" / "splits").iterdir():
        path.unlink()


def no_patches(copy):
    (copy / "IDC" / "patches" / "S2.h5").unlink()


def no_genes(copy):
    (copy / "IDC" / "var_50genes.json").write_text('{"names": []}')


def other_columns(copy):
    (copy / "IDC" / "splits" / "train_0.csv").write_text("sample_id,path\nS1,a\n")


def unknown_gene(copy):
    (copy / "IDC" / "var_50genes.json").write_text('{"genes": ["BRCA9"]}')


def no_images(copy):
    with h5py.File(copy / "IDC" / "patches" / "S1.h5", "r+") as file:
        del file["img"]


def grey_images(copy):
    with h5py.File(copy / "IDC" / "patches" / "S1.h5", "r+") as file:
        images = file["img"][:, :, :, 0]
        del file["img"]
        file["img"] = images


def damaged_file(copy):
    path = copy / "IDC" / "patches" / "S1.h5"
    path.write_bytes(path.read_bytes()[:1000])


def other_barcodes(copy):
    with h5py.File(copy / "IDC" / "patches" / "S1.h5", "r+") as file:
        file["barcode"][0] = [b"nobody"]


def fewer_barcodes(copy):
    with h5py.File(copy / "IDC" / "patches" / "S1.h5", "r+") as file:
        barcodes = file["barcode"][1:]
        del file["barcode"]
        file["barcode"] = barcodes


def negative_counts(copy):
    path = copy / "IDC" / "adata" / "S1.h5ad"
    counts = ad.read_h5ad(path)
    counts.X = csr_matrix(-counts.X.toarray())
    counts.write_h5ad(path)


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (no_task, FileNotFoundError, 'IDC" is not there. Tasks in ".*" are: "PRAD"'),
        (no_splits, FileNotFoundError, "holds no train_0.csv and test_0.csv"),
        (no_patches, FileNotFoundError, r"1 files that the splits name are missing: .*S2.h5"),
        (no_genes, ValueError, 'no list of names under "genes"'),
        (other_columns, ValueError, 'lacks the columns "patches_path", "expr_path"'),
        (unknown_gene, ValueError, 'lacks 1 genes of var_50genes.json: "BRCA9"'),
        (no_images, ValueError, 'holds none of "img", "imgs", "images" but "barcode", "coords"'),
        (grey_images, ValueError, "not n x side x side x 3"),
        (damaged_file, ValueError, r"patches of the sample.*S1.h5"),
        (other_barcodes, ValueError, 'spots of sample "S1" cannot be matched: "nobody" have a patch and no counts'),
        (fewer_barcodes, ValueError, "29 patches and 28 barcodes"),
        (negative_counts, ValueError, "values that are no counts"),
    ],
)
def test_a_copy_that_is_damaged_is_refused_in_words(copy, spoil, error, message):
    spoil(copy)
    with pytest.raises(error, match=message):
        task = read_task(copy, "IDC")
        for sample in task.files:
            read_sample(task, sample)
            list(read_patches(task, sample, 100))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--hest-bench", "IDC"], "--hest-bench needs --path"),
        (["--hest-bench", "IDC", "--cohort", "her2st"], "--cohort and --hest-bench were given"),
        (["--hest-bench", "IDC", "--slide", "a.h5ad"], "--slide and --hest-bench were given"),
        (["--hest-bench", "IDC", "--path", "a", "--group-by", "slide"], "--group-by is laid down by the benchmark"),
        (["--hest-bench", "IDC", "--path", "a", "--gene", "A", "--units", "counts"], "--gene and --units"),
        (["--hest-bench", "IDC", "--path", "a", "--method", "lasso"], "--method lasso is not known"),
    ],
)
def test_options_that_the_benchmark_decides_are_refused(arguments, message):
    ran = spahgc(*arguments)
    assert ran.exit_code != 0
    assert message in str(ran.exception)


@pytest.mark.parametrize("units", ["transformed"])
def test_values_may_be_taken_as_they_are(cohort, units):
    target, *refs = cohort
    for slide in refs:
        slide.X = csr_matrix(np.log1p(slide.X.toarray()))
    genes = list(target.var_names[:5])
    sp.tl.predict(target, refs, method="mean", genes=genes, units=units)
    expected = np.vstack([slide[:, genes].X.toarray() for slide in refs]).mean(axis=0)
    np.testing.assert_allclose(target[:, genes].layers["spahgc"][0], expected, rtol=1e-5)
    assert target.uns["spahgc"]["predictions"]["spahgc"]["units"] == "as given"
