"""Cells of Xenium, Visium HD, CosMx and MERSCOPE become slides, on their H&E image."""

from __future__ import annotations

import gzip
import importlib.util
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import shapely
import tifffile
import zarr
from anndata import AnnData
from PIL import Image

import spahgc as sp
from spahgc._slides.polygons import polygons_of

PIXEL_UM = 0.2125
HE_UM = 0.5
CENTRES = ["x_centroid", "y_centroid"]


def _slide_files() -> Any:
    """The helper beside this file; pytest's import mode does not put the folder on the path."""
    spec = importlib.util.spec_from_file_location("slide_files", Path(__file__).with_name("slide_files.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules["slide_files"] = module
    spec.loader.exec_module(module)
    return module


files = _slide_files()


@pytest.fixture(scope="session")
def real_files(her2st: Path) -> Path:
    """Odd files of other makers, beside the measured slides."""
    folder = her2st.parent / "files"
    if not (folder / "xenium_tiny").is_dir():
        pytest.skip(f"no {folder}")
    return folder


@pytest.fixture
def bundle(real_files: Path, tmp_path: Path) -> Path:
    """The tiny bundle, to be changed."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    for name in (
        "experiment.xenium",
        "cells.parquet",
        "cells.csv.gz",
        "cell_feature_matrix.h5",
        "cell_boundaries.parquet",
        "nucleus_boundaries.parquet",
    ):
        (folder / name).write_bytes((real_files / "xenium_tiny" / name).read_bytes())
    return folder


def he_matrix() -> np.ndarray:
    """Pixels of an H&E image of 0.5 um, turned by a quarter and shifted, to pixels of the morphology image."""
    scale = HE_UM / PIXEL_UM
    return np.array([[0.0, scale, 1700.0], [-scale, 0.0, 2000.0], [0.0, 0.0, 1.0]])


def he_image(path: Path, side: int = 1400) -> Path:
    rng = np.random.default_rng(0)
    pixels = np.clip(rng.normal((200, 130, 180), 25, (side, side, 3)), 0, 255).astype(np.uint8)
    tifffile.imwrite(
        path, pixels, photometric="rgb", resolution=(1e4 / HE_UM, 1e4 / HE_UM), resolutionunit="CENTIMETER"
    )
    return path


@pytest.mark.filterwarnings("ignore:no H&E image")
def test_the_tiny_bundle_is_what_spatialdata_io_reads_of_it(real_files: Path) -> None:
    spatialdata_io = pytest.importorskip("spatialdata_io")
    folder = real_files / "xenium_tiny"
    other = spatialdata_io.xenium(
        folder,
        transcripts=False,
        morphology_focus=False,
        morphology_mip=False,
        aligned_images=False,
        cells_labels=False,
        nucleus_labels=False,
    )
    table, cells = other["table"], sp.io.xenium(folder, polygons=True)
    assert list(cells.obs_names) == list(table.obs["cell_id"])
    assert list(cells.var_names) == list(table.var_names)
    assert (cells.X != table.X).nnz == 0
    np.testing.assert_allclose(cells.obsm["spatial"] * PIXEL_UM, table.obsm["spatial"], rtol=1e-9)
    outlines = other["cell_boundaries"].loc[cells.obs_names].geometry
    own = sp.io.shapes(cells).geometry
    np.testing.assert_allclose(own.area * PIXEL_UM**2, outlines.area, rtol=1e-4)
    np.testing.assert_allclose(own.centroid.x * PIXEL_UM, outlines.centroid.x, atol=1e-2)


@pytest.mark.filterwarnings("ignore:no H&E image")
def test_controls_stand_apart_and_every_count_is_somewhere(real_files: Path) -> None:
    folder = real_files / "xenium_tiny"
    cells = sp.io.xenium(folder)
    with h5py.File(folder / "cell_feature_matrix.h5") as file:
        total, kinds = file["matrix/data"][:].sum(), file["matrix/features/feature_type"][:]
    table = pd.read_parquet(folder / "cells.parquet").set_index("cell_id").loc[cells.obs_names]
    assert cells.n_vars == (kinds == b"Gene Expression").sum() == 5006
    assert cells.X.sum() + cells.obsm["controls"].to_numpy().sum() == total
    np.testing.assert_array_equal(np.asarray(cells.X.sum(axis=1)).ravel(), table["transcript_counts"])
    np.testing.assert_array_equal(cells.obsm["controls"]["Unassigned Codeword"], table["unassigned_codeword_counts"])
    names = cells.uns["spahgc"]["controls"]
    assert {kind: len(of_kind) for kind, of_kind in names.items()} == {
        "Deprecated Codeword": 8,
        "Genomic Control": 21,
        "Negative Control Codeword": 609,
        "Negative Control Probe": 40,
        "Unassigned Codeword": 8096,
    }
    np.testing.assert_allclose(cells.obs["area_um2"], table["cell_area"])


@pytest.mark.filterwarnings("ignore:no H&E image")
def test_cells_with_few_counts_are_kept_and_flagged(real_files: Path) -> None:
    cells = sp.io.xenium(real_files / "xenium_tiny", min_counts=10)
    few = np.asarray(cells.X.sum(axis=1)).ravel() < 10
    assert cells.n_obs == 23
    np.testing.assert_array_equal(cells.obs["few_counts"], few)
    assert 0 < few.sum() < 23
    assert not sp.io.xenium(real_files / "xenium_tiny", min_counts=0).obs["few_counts"].any()
    with pytest.raises(ValueError, match="min_counts=-1; pass a whole number"):
        sp.io.xenium(real_files / "xenium_tiny", min_counts=-1)


def test_the_alignment_brings_cells_to_pixels_of_the_he_image(bundle: Path, tmp_path: Path) -> None:
    image, alignment = he_image(tmp_path / "he.tif"), tmp_path / "he_imagealignment.csv"
    np.savetxt(alignment, he_matrix(), delimiter=",")
    cells = sp.io.xenium(bundle, image=image, alignment=alignment, polygons=True)
    xy = np.column_stack([cells.obsm["spatial"], np.ones(cells.n_obs)])
    np.testing.assert_allclose((xy @ he_matrix().T)[:, :2] * PIXEL_UM, cells.obs[CENTRES], rtol=1e-9)
    (record,) = cells.uns["spatial"].values()
    assert record["scalefactors"]["microns_per_pixel"] == pytest.approx(HE_UM)
    assert record["metadata"]["source_image_path"] == str(image)
    # Areas are those of the bundle in any coordinates, but for what simplified outlines leave out.
    areas = polygons_of(cells).areas * HE_UM**2
    assert np.median(np.abs(areas / cells.obs["area_um2"] - 1)) < 0.05
    by_array = sp.io.xenium(bundle, image=image, alignment=he_matrix())
    np.testing.assert_array_equal(by_array.obsm["spatial"], cells.obsm["spatial"])


def test_key_points_give_the_same_place_as_the_matrix(bundle: Path, tmp_path: Path) -> None:
    image, points = he_image(tmp_path / "he.tif"), tmp_path / "keypoints.csv"
    moving = np.random.default_rng(0).uniform(0, 1400, (6, 2))
    fixed = (np.column_stack([moving, np.ones(6)]) @ he_matrix().T)[:, :2]
    table = pd.DataFrame(np.hstack([fixed, moving]), columns=["fixedX", "fixedY", "alignmentX", "alignmentY"])
    table.to_csv(points, index=False)
    cells = sp.io.xenium(bundle, image=image, alignment=points)
    np.testing.assert_allclose(
        cells.obsm["spatial"], sp.io.xenium(bundle, image=image, alignment=he_matrix()).obsm["spatial"], atol=1e-6
    )
    table.iloc[:2].to_csv(points, index=False)
    with pytest.raises(ValueError, match="names 2 key points; 3 that do not lie on a line"):
        sp.io.xenium(bundle, image=image, alignment=points)
    table.sample(frac=1, random_state=1).assign(fixedX=table["fixedX"].to_numpy()).to_csv(points, index=False)
    with pytest.raises(ValueError, match="from where any affine matrix lays them"):
        sp.io.xenium(bundle, image=image, alignment=points)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.eye(2), r"of shape \(2, 2\) .* 3 x 3 finite numbers"),
        (np.full((3, 3), np.nan), "3 x 3 finite numbers"),
        (he_matrix().T, "Is it transposed"),
        (np.diag([1.0, 2.0, 1.0]), "stretches one axis"),
        (np.diag([1.0, 0.0, 1.0]), "stretches one axis"),
    ],
)
def test_a_matrix_that_lays_no_image_over_another_is_refused(
    bundle: Path, tmp_path: Path, matrix: np.ndarray, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        sp.io.xenium(bundle, image=he_image(tmp_path / "he.tif", 64), alignment=matrix)


def test_an_alignment_of_another_slide_is_refused(bundle: Path, tmp_path: Path) -> None:
    image = he_image(tmp_path / "he.tif")
    shifted = he_matrix() + np.array([[0, 0, 9000.0], [0, 0, 0], [0, 0, 0]])
    with pytest.raises(ValueError, match="23 of 23 spot centres lie outside the image.*probably that of another slide"):
        sp.io.xenium(bundle, image=image, alignment=shifted)
    with pytest.raises(ValueError, match=r"0\.2125 um wide, the file says 0\.5 um.*runs the other way"):
        sp.io.xenium(bundle, image=image, alignment=np.eye(3))
    with pytest.raises(ValueError, match="nothing says how it lies on the cells. Pass alignment="):
        sp.io.xenium(bundle, image=image)
    with pytest.raises(ValueError, match="pass that image as image="):
        sp.io.xenium(bundle, alignment=np.eye(3))


@pytest.mark.parametrize("name", ["morphology.ome.tif", "morphology_focus/morphology_focus_0000.ome.tif"])
def test_a_morphology_image_is_no_he_image(real_files: Path, name: str) -> None:
    folder = real_files / "xenium_tiny"
    with pytest.raises(ValueError, match="cannot be the H&E image.*DAPI and other stains that glow"):
        sp.io.xenium(folder, image=folder / name, alignment=np.eye(3))


def test_a_grey_image_of_eight_bits_on_dark_ground_is_no_he_image(bundle: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).poisson(12, (1400, 1400)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "dapi.png")
    with pytest.raises(ValueError, match="is no H&E image"):
        sp.io.xenium(bundle, image=tmp_path / "dapi.png", alignment=he_matrix())


def test_cells_at_the_border_of_the_scan_are_left_out_with_a_warning(bundle: Path, tmp_path: Path) -> None:
    # One cell of 23 is within 5 %.
    cells = sp.io.xenium(bundle, image=he_image(tmp_path / "he.tif"), alignment=he_matrix())
    y = np.sort(cells.obsm["spatial"][:, 1])
    shift = np.eye(3)
    shift[1, 2] = (y[0] + y[1]) / 2
    with pytest.warns(UserWarning, match="1 of 23 cells .* lie off the image"):
        fewer = sp.io.xenium(bundle, image=tmp_path / "he.tif", alignment=he_matrix() @ shift)
    assert fewer.n_obs == 22
    (record,) = fewer.uns["spatial"].values()
    assert record["metadata"]["n_cells_outside_image"] == 1


@pytest.mark.filterwarnings("ignore:no H&E image")
def test_the_zarr_matrix_and_the_packed_table_give_the_same_cells(bundle: Path) -> None:
    whole = sp.io.xenium(bundle)
    with h5py.File(bundle / "cell_feature_matrix.h5") as file:
        matrix = {key: file[f"matrix/{key}"][:] for key in ("data", "indices", "indptr", "barcodes")}
        features = {
            key: [text.decode() for text in file[f"matrix/features/{key}"][:]] for key in ("name", "id", "feature_type")
        }
    from scipy.sparse import csr_matrix

    by_feature = csr_matrix(
        (matrix["data"], matrix["indices"], matrix["indptr"]), shape=(whole.n_obs, len(features["name"]))
    ).tocsc()
    store = zarr.storage.ZipStore(bundle / "cell_feature_matrix.zarr.zip", mode="w")
    group = zarr.open_group(store, mode="w", zarr_format=2).create_group("cell_features")
    digits = {letter: f"{value:x}" for value, letter in enumerate("abcdefghijklmnop")}
    ids = [name.decode().split("-") for name in matrix["barcodes"]]
    names = [[int("".join(digits[letter] for letter in word), 16), int(suffix)] for word, suffix in ids]
    arrays = {"data": by_feature.data, "indices": by_feature.indices, "indptr": by_feature.indptr}
    for key, values in {**arrays, "cell_id": np.array(names, dtype=np.uint32)}.items():
        group.create_array(key, data=values)
    kinds = [
        "gene" if kind == "Gene Expression" else kind.lower().replace(" ", "_") for kind in features["feature_type"]
    ]
    group.attrs.update({"feature_keys": features["name"], "feature_ids": features["id"], "feature_types": kinds})
    store.close()
    for name in ("cell_feature_matrix.h5", "cells.parquet"):
        (bundle / name).unlink()
    other = sp.io.xenium(bundle)
    assert (whole.X != other.X).nnz == 0
    assert list(whole.obs_names) == list(other.obs_names)
    assert list(whole.var_names) == list(other.var_names)
    np.testing.assert_allclose(whole.obsm["spatial"], other.obsm["spatial"])
    pd.testing.assert_frame_equal(whole.obsm["controls"], other.obsm["controls"])


@pytest.mark.filterwarnings("ignore:no H&E image")
def test_names_of_the_first_versions_are_numbers_or_bytes(bundle: Path) -> None:
    (bundle / "cells.csv.gz").unlink()
    table = pd.read_parquet(bundle / "cells.parquet")
    table["cell_id"] = [name.encode() for name in table["cell_id"]]
    table.to_parquet(bundle / "cells.parquet")
    assert sp.io.xenium(bundle).n_obs == 23
    with h5py.File(bundle / "cell_feature_matrix.h5", "r+") as file:
        del file["matrix/barcodes"]
        file["matrix/barcodes"] = np.array([str(number + 1).encode() for number in range(23)])
    table["cell_id"] = np.arange(1, 24)
    table.to_parquet(bundle / "cells.parquet")
    assert list(sp.io.xenium(bundle).obs_names[:2]) == ["1", "2"]


@pytest.mark.filterwarnings("ignore:no H&E image")
def test_what_a_bundle_lacks_is_named(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        sp.io.xenium(tmp_path / "nothing")
    with pytest.raises(ValueError, match="polygons='nuclei'; pass True or \"cell\""):
        sp.io.xenium(bundle, polygons="nuclei")
    (bundle / "cell_boundaries.parquet").unlink()
    with pytest.raises(FileNotFoundError, match="neither cell_boundaries.parquet nor .csv.gz"):
        sp.io.xenium(bundle, polygons=True)
    (bundle / "cell_feature_matrix.h5").unlink()
    with pytest.raises(FileNotFoundError, match="no counts in .* none of cell_feature_matrix.h5"):
        sp.io.xenium(bundle)
    for name in ("cells.parquet", "cells.csv.gz"):
        (bundle / name).unlink()
    with pytest.raises(FileNotFoundError, match="no table of cells"):
        sp.io.xenium(bundle)
    (bundle / "experiment.xenium").write_text('{"pixel_size": 0}')
    with pytest.raises(ValueError, match="has pixel_size 0, not a positive number"):
        sp.io.xenium(bundle)
    (bundle / "experiment.xenium").unlink()
    with pytest.raises(FileNotFoundError, match="has no experiment.xenium"):
        sp.io.xenium(bundle)


@pytest.mark.filterwarnings("ignore:no H&E image")
def test_damaged_tables_are_named(bundle: Path) -> None:
    table = pd.read_parquet(bundle / "cells.parquet")
    table.drop(columns="x_centroid").to_parquet(bundle / "cells.parquet")
    with pytest.raises(ValueError, match='columns "x_centroid" are missing'):
        sp.io.xenium(bundle)
    table.iloc[3:].to_parquet(bundle / "cells.parquet")
    with pytest.raises(ValueError, match="3 of 23 cells of the counts .* are not in"):
        sp.io.xenium(bundle)
    table.assign(x_centroid=np.nan).to_parquet(bundle / "cells.parquet")
    with pytest.raises(ValueError, match="23 of 23 cells have no finite position"):
        sp.io.xenium(bundle)
    table.assign(cell_area=[[1.0]] * len(table)).to_parquet(bundle / "cells.parquet")
    with pytest.raises(ValueError, match='column "cell_area" holds no number for 23 cells'):
        sp.io.xenium(bundle)
    table.to_parquet(bundle / "cells.parquet")
    outlines = pd.read_parquet(bundle / "cell_boundaries.parquet")
    outlines.assign(vertex_y=outlines["vertex_y"].where(outlines.index > 2)).to_parquet(
        bundle / "cell_boundaries.parquet"
    )
    with pytest.raises(ValueError, match="3 of its .* vertices are no finite numbers"):
        sp.io.xenium(bundle, polygons=True)
    (bundle / "cells.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="the cells .* cannot be read"):
        sp.io.xenium(bundle)


@pytest.mark.filterwarnings("ignore:no H&E image")
def test_outlines_are_cut_joined_and_written_with_their_cells(bundle: Path, tmp_path: Path) -> None:
    cells = sp.io.xenium(bundle, polygons=True)
    order = np.random.default_rng(0).permutation(cells.n_obs)
    areas = polygons_of(cells).areas
    np.testing.assert_allclose(polygons_of(cells[order]).areas, areas[order])
    cells.write_h5ad(tmp_path / "cells.h5ad")
    np.testing.assert_allclose(polygons_of(ad.read_h5ad(tmp_path / "cells.h5ad")).areas, areas)
    cells.write_zarr(tmp_path / "cells.zarr")
    np.testing.assert_allclose(polygons_of(ad.read_zarr(tmp_path / "cells.zarr")).areas, areas)
    joined = ad.concat([cells[:5], cells[5:]])
    np.testing.assert_allclose(polygons_of(joined).areas, areas)


@pytest.mark.filterwarnings("ignore:no H&E image")
def test_outlines_go_into_a_spatialdata(bundle: Path) -> None:
    models = pytest.importorskip("spatialdata.models")
    cells = sp.io.xenium(bundle, polygons="nucleus")
    shapes = models.ShapesModel.parse(sp.io.shapes(cells))
    assert list(shapes.index) == list(cells.obs_names)
    # The mask covers whole pixels; the outline goes through the middles of those at its border.
    nuclei = cells.obs["nucleus_area"].to_numpy()
    assert np.median(np.abs(shapes.area.to_numpy() * PIXEL_UM**2 / nuclei - 1)) < 0.15
    del cells.obsm["polygons"]
    with pytest.raises(KeyError, match="Read the slide with polygons=True"):
        sp.io.shapes(cells)


# --- Visium HD


def write_cells(run: Path, slide: AnnData, *, factor: float = 1.0) -> Path:
    """Cells of Space Ranger 4: a square of 10 um around every spot of a slide, coordinates times `factor`."""
    image = files.write_visium_hd(run, slide)
    folder = run / "outs" / "segmented_outputs"
    (folder / "spatial").mkdir(parents=True)
    names = [f"cellid_{number + 7:09d}-1" for number in range(slide.n_obs)]
    files.write_h5(folder / "filtered_feature_cell_matrix.h5", slide, names, library=run.name)
    files.write_images(folder / "spatial", files.full_image(slide), microns_per_pixel=files.MPP)
    half = 5 / files.MPP
    features = [
        {
            "type": "Feature",
            "properties": {"cell_id": number + 7},
            "geometry": shapely.geometry.mapping(
                shapely.box(*(factor * np.array([x - half, y - half, x + half, y + half])))
            ),
        }
        for number, (x, y) in enumerate(slide.obsm["spatial"])
    ]
    # In another order than the counts.
    (folder / "cell_segmentations.geojson").write_text(
        json.dumps({"type": "FeatureCollection", "features": features[::-1]})
    )
    return image


@pytest.fixture(scope="module")
def hd_slide() -> AnnData:
    return sp.datasets.simulated(1, n_patients=1, n_spots=60, n_genes=20, seed=5)[0]


def test_segmented_cells_of_visium_hd_are_read(hd_slide: AnnData, tmp_path: Path) -> None:
    image = write_cells(tmp_path / "run", hd_slide)
    cells = sp.io.visium_hd(tmp_path / "run", cells=True, image=image, polygons=True)
    assert (cells.X != hd_slide.X).nnz == 0
    np.testing.assert_allclose(cells.obsm["spatial"], hd_slide.obsm["spatial"], atol=1e-6)
    np.testing.assert_allclose(cells.obs["area_um2"], 100.0)
    assert sp.io.shapes(cells).area.to_numpy() == pytest.approx(100 / files.MPP**2, rel=1e-4)
    (record,) = cells.uns["spatial"].values()
    assert record["scalefactors"]["microns_per_pixel"] == files.MPP
    assert record["images"]["hires"].shape[2] == 3
    assert "polygons" not in sp.io.visium_hd(tmp_path / "run", cells=True, image=image).obsm


def test_segmented_cells_are_those_of_spatialdata_io(hd_slide: AnnData, tmp_path: Path) -> None:
    visium_hd = pytest.importorskip("spatialdata_io.readers.visium_hd")
    image = write_cells(tmp_path / "run", hd_slide)
    cells = sp.io.visium_hd(tmp_path / "run", cells=True, image=image)
    geojson = tmp_path / "run" / "outs" / "segmented_outputs" / "cell_segmentations.geojson"
    other = visium_hd._extract_geometries_from_geojson(cells, geojson)
    assert list(other.index) == list(cells.obs_names)
    np.testing.assert_allclose(np.column_stack([other.centroid.x, other.centroid.y]), cells.obsm["spatial"])


def test_bad_segmented_outputs_are_named(hd_slide: AnnData, tmp_path: Path) -> None:
    image = write_cells(tmp_path / "run", hd_slide)
    folder = tmp_path / "run" / "outs" / "segmented_outputs"
    with pytest.raises(ValueError, match="polygons=True: bins are squares"):
        sp.io.visium_hd(tmp_path / "run", image=image, polygons=True)
    with pytest.warns(UserWarning, match="the hires image is too coarse to see a cell"):
        sp.io.visium_hd(tmp_path / "run", cells=True)
    whole = (folder / "cell_segmentations.geojson").read_text()
    content = json.loads(whole)
    (folder / "cell_segmentations.geojson").write_text(json.dumps({**content, "features": content["features"][:-4]}))
    with pytest.raises(ValueError, match='4 of 60 cells of the counts .*"cellid_000000007-1".* have no outline'):
        sp.io.visium_hd(tmp_path / "run", cells=True, image=image)
    (folder / "cell_segmentations.geojson").write_text(json.dumps(content["features"][0]["geometry"]))
    with pytest.raises(ValueError, match="it is a bare geometry .Polygon. and no feature"):
        sp.io.visium_hd(tmp_path / "run", cells=True, image=image)
    (folder / "cell_segmentations.geojson").unlink()
    with pytest.raises(FileNotFoundError, match="no outlines of cells"):
        sp.io.visium_hd(tmp_path / "run", cells=True, image=image)
    shutil.rmtree(folder)
    with pytest.raises(FileNotFoundError, match="no counts of cells .* Space Ranger 4"):
        sp.io.visium_hd(tmp_path / "run", cells=True, image=image)


def test_outlines_in_microns_are_told_from_pixels(hd_slide: AnnData, tmp_path: Path) -> None:
    image = write_cells(tmp_path / "run", hd_slide, factor=0.2)
    with pytest.raises(ValueError, match="smaller than any cell.*look like microns"):
        sp.io.visium_hd(tmp_path / "run", cells=True, image=image)


# --- any other platform


@pytest.fixture(scope="module")
def lung(real_files: Path) -> tuple[AnnData, Path]:
    """200 measured cells with their H&E image; its table calls the row x and the column y."""
    return ad.read_h5ad(real_files / "xenium_cells" / "NCBI858.h5ad"), real_files / "xenium_cells" / "NCBI858.jpg"


def test_the_measured_cells_are_read_where_they_are(lung: tuple[AnnData, Path]) -> None:
    measured, image = lung
    cells = sp.io.cells(measured, measured.obs, image, columns=("y_pixel", "x_pixel"), mpp=1.0)
    np.testing.assert_array_equal(cells.X.toarray(), measured.X)
    np.testing.assert_array_equal(cells.obsm["spatial"], measured.obs[["y_pixel", "x_pixel"]])
    with pytest.raises(ValueError, match="With x and y swapped all would be inside.*Pass columns="):
        sp.io.cells(measured, measured.obs, image, columns=("x_pixel", "y_pixel"), mpp=1.0)
    with pytest.raises(ValueError, match="none of the columns of places that are known"):
        sp.io.cells(measured, measured.obs, image, mpp=1.0)


def test_cells_with_x_and_y_swapped_are_told_by_the_tissue(lung: tuple[AnnData, Path], tmp_path: Path) -> None:
    measured, image = lung
    square = np.full((1431, 1431, 3), 240, dtype=np.uint8)
    square[:1249] = np.asarray(Image.open(image))
    Image.fromarray(square).save(tmp_path / "square.png")
    with pytest.warns(UserWarning, match="x and y of the table of cells may have changed places"):
        sp.io.cells(measured, measured.obs, tmp_path / "square.png", columns=("x_pixel", "y_pixel"), mpp=1.0)


def test_the_measured_cells_are_embedded_and_drawn(lung: tuple[AnnData, Path]) -> None:
    measured, image = lung
    cells = sp.io.cells(measured, measured.obs, image, columns=("y_pixel", "x_pixel"), mpp=1.0)[:40].copy()
    sp.pp.embed(cells, encoder="efficientnet_lite0", context=False, allow_upsampling=True)
    assert np.isfinite(cells.obsm["X_efficientnet_lite0"]).all()
    cells.layers["spahgc"] = np.log1p(cells.X.toarray()).astype(np.float32)
    cells.uns["spahgc"]["predictions"] = {"spahgc": {"units": "log1p counts per 10,000"}}
    assert sp.pl.spatial_genes(cells, "STAT1", show=False)


def cosmx(folder: Path, n: int = 30) -> tuple[Path, Path, pd.DataFrame]:
    """Tables of CosMx: two fields, each with counts in no cell."""
    rng = np.random.default_rng(0)
    keys = pd.DataFrame({"fov": np.repeat([1, 2], n // 2), "cell_ID": np.tile(np.arange(1, n // 2 + 1), 2)})
    counts = pd.DataFrame(rng.poisson(2, (n, 4)), columns=["ACTB", "CD74", "NegPrb3", "SystemControl12"])
    outside = pd.DataFrame({"fov": [1, 2], "cell_ID": 0, "ACTB": 99, "CD74": 99, "NegPrb3": 9, "SystemControl12": 9})
    with gzip.open(folder / "S0_exprMat_file.csv.gz", "wt") as file:
        pd.concat([outside, pd.concat([keys, counts], axis=1)]).to_csv(file, index=False)
    places = keys.assign(
        Area=rng.integers(4000, 6000, n),
        CenterX_global_px=rng.uniform(1000, 5000, n),
        CenterY_global_px=rng.uniform(1000, 5000, n),
    )
    places.to_csv(folder / "S0_metadata_file.csv", index=False)
    return folder / "S0_exprMat_file.csv.gz", folder / "S0_metadata_file.csv", pd.concat([places, counts], axis=1)


def test_cosmx_is_read_with_its_fields_and_controls(tmp_path: Path) -> None:
    counts, table, whole = cosmx(tmp_path)
    scale = 0.120280945 / HE_UM
    affine = np.diag([scale, scale, 1.0])
    cells = sp.io.cells(counts, table, he_image(tmp_path / "he.tif"), affine=affine)
    assert list(cells.obs_names[[0, -1]]) == ["1_1", "2_15"]
    assert list(cells.var_names) == ["ACTB", "CD74"]
    np.testing.assert_array_equal(cells.X.toarray(), whole[["ACTB", "CD74"]])
    np.testing.assert_array_equal(cells.obsm["controls"]["Negative Control Probe"], whole["NegPrb3"])
    np.testing.assert_array_equal(cells.obsm["controls"]["System Control"], whole["SystemControl12"])
    np.testing.assert_allclose(cells.obsm["spatial"], whole[["CenterX_global_px", "CenterY_global_px"]] * scale)
    np.testing.assert_allclose(cells.obs["area_um2"], whole["Area"] * 0.120280945**2)
    (record,) = cells.uns["spatial"].values()
    assert record["metadata"]["n_fields_with_counts_in_no_cell"] == 2
    assert record["scalefactors"]["microns_per_pixel"] == pytest.approx(HE_UM)
    with pytest.raises(ValueError, match="are in pixels of 0.1203 um of the platform's own image.*Pass affine="):
        sp.io.cells(counts, table, tmp_path / "he.tif")


def test_merscope_is_read_with_the_matrix_of_a_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = [f"{number}0001" for number in range(20)]
    counts = pd.DataFrame(
        rng.poisson(3, (20, 3)), columns=["Actb", "Cd74", "Blank-12"], index=pd.Index(names, name="cell")
    )
    places = pd.DataFrame({"center_x": rng.uniform(0, 600, 20), "center_y": rng.uniform(0, 600, 20)}, index=names)
    counts.to_csv(tmp_path / "cell_by_gene.csv")
    places.sample(frac=1, random_state=0).to_csv(tmp_path / "cell_metadata.csv")
    np.savetxt(tmp_path / "matrix.csv", [[2, 0, 50], [0, 2, 70], [0, 0, 1]], delimiter=" ")
    cells = sp.io.cells(
        tmp_path / "cell_by_gene.csv",
        tmp_path / "cell_metadata.csv",
        he_image(tmp_path / "he.tif"),
        affine=tmp_path / "matrix.csv",
    )
    assert list(cells.obs_names) == names
    assert list(cells.var_names) == ["Actb", "Cd74"]
    np.testing.assert_allclose(cells.obsm["spatial"], 2 * places[["center_x", "center_y"]] + [50, 70])
    np.testing.assert_array_equal(cells.obsm["controls"]["Blank Codeword"], counts["Blank-12"])
    with pytest.raises(ValueError, match="are in microns, not in pixels of the H&E image. Pass affine="):
        sp.io.cells(counts, places, tmp_path / "he.tif")


def own_cells(n: int = 20) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    rng = np.random.default_rng(1)
    names = [f"c{number}" for number in range(n)]
    places = pd.DataFrame(rng.uniform(50, 1300, (n, 2)), columns=["x", "y"], index=names)
    counts = pd.DataFrame(rng.poisson(3, (n, 2)), columns=["A", "B"], index=names)
    return (
        counts,
        places,
        {name: shapely.Point(*row).buffer(10) for name, row in zip(names, places.to_numpy(), strict=True)},
    )


def test_outlines_of_ones_own_give_areas_and_must_fit_the_centres(tmp_path: Path) -> None:
    geopandas = pytest.importorskip("geopandas")
    image, (counts, places, outlines) = he_image(tmp_path / "he.tif"), own_cells()
    frame = geopandas.GeoDataFrame(geometry=list(outlines.values()), index=list(outlines))[::-1]
    cells = sp.io.cells(counts, places, image, polygons=frame)
    np.testing.assert_allclose(cells.obs["area_um2"], shapely.Point(0, 0).buffer(10).area * HE_UM**2, rtol=1e-6)
    with pytest.raises(ValueError, match="are the outlines in microns and the centres in pixels"):
        sp.io.cells(counts, places, image, polygons=frame.assign(geometry=frame.scale(HE_UM, HE_UM, origin=(0, 0))))
    with pytest.raises(ValueError, match="polygons are in 3-D"):
        sp.io.cells(counts, places, image, polygons=frame.assign(geometry=shapely.force_3d(frame.geometry)))
    with pytest.raises(ValueError, match="has the outline of none of the 20 cells"):
        sp.io.cells(counts, places, image, polygons=frame.reset_index(drop=True))
    with pytest.raises(TypeError, match="polygons is a list; pass a GeoDataFrame"):
        sp.io.cells(counts, places, image, polygons=[1])


def test_bad_tables_of_cells_are_named(tmp_path: Path) -> None:
    image, (counts, places, _) = he_image(tmp_path / "he.tif"), own_cells()
    with pytest.raises(ValueError, match="5 of 20 cells of the counts .* are not in the table"):
        sp.io.cells(counts, places[5:], image)
    with pytest.raises(ValueError, match="1 cells of table occur more than once: c0"):
        sp.io.cells(counts, places.rename(index={"c1": "c0"}), image)
    with pytest.raises(ValueError, match="20 of 20 cells have no finite position"):
        sp.io.cells(counts, places.assign(x=np.nan), image)
    with pytest.raises(TypeError, match="of shape .20, 3.; pass a table.*3-D positions"):
        sp.io.cells(counts, np.zeros((20, 3)), image)
    with pytest.raises(ValueError, match="two axes, not 3-D positions"):
        sp.io.cells(counts, places.assign(z=0), image, columns=("x", "y", "z"))
    with pytest.raises(ValueError, match='columns "B" of the counts hold no numbers'):
        sp.io.cells(counts.assign(B="many"), places, image)
    with pytest.raises(ValueError, match="missing, infinite or negative"):
        sp.io.cells(counts - 5, places, image)
    with pytest.raises(ValueError, match='area="size": the table has no such column'):
        sp.io.cells(counts, places, image, area="size")
    with pytest.raises(FileNotFoundError, match="is not a file"):
        sp.io.cells(counts, tmp_path / "none.csv", image)
