"""The legacy ST reader: what it promises, on a small made-up slide and on a measured one."""

from __future__ import annotations

import gzip
from pathlib import Path

import anndata as ad
import matplotlib
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from PIL import Image
from scipy.sparse import issparse

import spahgc as sp
from spahgc._logging import HINT

matplotlib.use("Agg")

PITCH_PX = 40.0
HEIGHT, WIDTH = 300, 420


class Slide:
    """Files of one slide; tests change a table and write it again."""

    def __init__(self, folder: Path) -> None:
        places = [(x, y) for x in (9, 10, 11) for y in (3, 4)]
        self.spots = pd.DataFrame(
            {
                "x": [x for x, _ in places],
                "y": [y for _, y in places],
                "new_x": [x + 0.02 for x, _ in places],
                "new_y": [y - 0.01 for _, y in places],
                "pixel_x": [x * PITCH_PX - 250.5 for x, _ in places],
                "pixel_y": [y * PITCH_PX - 20.25 for _, y in places],
                "selected": 1,
            }
        )
        # Another order than the spot table, as in the published files.
        names = [f"{x}x{y}" for x, y in places][::-1]
        values = np.random.default_rng(0).poisson(2.0, (len(names), 4))
        self.counts = pd.DataFrame(values, index=names, columns=["ERBB2", "CD74", "ACTB", "MT-CO1"])
        self.folder = folder
        rows, columns = np.indices((HEIGHT, WIDTH))
        pixels = np.stack([columns % 256, rows % 256, rows * 0], axis=-1).astype(np.uint8)
        Image.fromarray(pixels).save(self.image)
        self.write()

    @property
    def image(self) -> Path:
        return self.folder / "S1.png"

    @property
    def paths(self) -> tuple[Path, Path, Path]:
        return self.folder / "S1.tsv.gz", self.folder / "S1_selection.tsv", self.image

    def write(self) -> None:
        self.counts.to_csv(self.paths[0], sep="\t")
        self.spots.to_csv(self.paths[1], sep="\t", index=False)

    def read(self, **kwargs) -> ad.AnnData:
        return sp.io.st(*self.paths, **kwargs)


@pytest.fixture
def slide(tmp_path) -> Slide:
    return Slide(tmp_path)


def test_the_result_has_the_promised_layout(slide):
    adata = slide.read()
    assert issparse(adata.X) and adata.X.format == "csr" and adata.X.dtype == np.float32
    np.testing.assert_array_equal(adata.X.toarray(), slide.counts.to_numpy())
    assert list(adata.obs_names) == list(slide.counts.index)
    assert list(adata.var_names) == list(slide.counts.columns)
    assert (adata.obs["in_tissue"] == 1).all()
    assert adata.obs["slide"].dtype == "category" and set(adata.obs["slide"]) == {"S1"}
    assert adata.obsm["spatial"].dtype == np.float64


def test_coordinates_follow_the_order_of_the_counts_and_x_stays_x(slide):
    adata = slide.read()
    for name, (x_px, y_px), row, column in zip(
        adata.obs_names, adata.obsm["spatial"], adata.obs["array_row"], adata.obs["array_col"], strict=True
    ):
        x, y = (int(part) for part in name.split("x"))
        assert (column, row) == (x, y)
        assert (x_px, y_px) == (x * PITCH_PX - 250.5, y * PITCH_PX - 20.25)


def test_the_scale_comes_from_the_spot_pitch(slide):
    factors = slide.read().uns["spatial"]["S1"]["scalefactors"]
    assert factors["microns_per_pixel"] == pytest.approx(200 / PITCH_PX)
    assert factors["spot_diameter_fullres"] == pytest.approx(PITCH_PX / 2)


def test_the_scale_does_not_need_spots_next_to_each_other(slide):
    slide.spots["selected"] = ((slide.spots["x"] != 10) & (slide.spots["y"] == 3)).astype(int)
    slide.write()
    assert slide.read().uns["spatial"]["S1"]["scalefactors"]["microns_per_pixel"] == pytest.approx(200 / PITCH_PX)


def test_the_images_are_small_and_the_original_is_named(slide):
    large = np.full((2500, 3000, 3), 200, np.uint8)
    Image.fromarray(large).save(slide.image)
    record = slide.read().uns["spatial"]["S1"]
    assert record["images"]["hires"].shape == (1666, 2000, 3)
    assert record["images"]["lowres"].shape == (499, 600, 3)
    assert record["scalefactors"]["tissue_hires_scalef"] == pytest.approx(2000 / 3000)
    assert record["scalefactors"]["tissue_lowres_scalef"] == pytest.approx(600 / 3000)
    assert record["metadata"]["source_image_path"] == str(slide.image.absolute())
    assert (record["metadata"]["image_height_px"], record["metadata"]["image_width_px"]) == (2500, 3000)


def test_the_image_path_is_absolute(slide, monkeypatch):
    monkeypatch.chdir(slide.folder)
    adata = sp.io.st("S1.tsv.gz", "S1_selection.tsv", "S1.png")
    assert adata.uns["spatial"]["S1"]["metadata"]["source_image_path"] == str(slide.image.absolute())


def test_the_slide_may_be_named(slide):
    adata = slide.read(library_id="patient 7")
    assert list(adata.uns["spatial"]) == ["patient 7"]
    assert set(adata.obs["slide"]) == {"patient 7"}


@pytest.mark.parametrize("name", ["", "patient/7"])
def test_a_name_that_is_no_key_is_refused(slide, name):
    with pytest.raises(ValueError, match="library_id"):
        slide.read(library_id=name)


def test_a_slide_without_counts_has_spots_and_no_genes(slide, tmp_path):
    adata = sp.io.st(None, *slide.paths[1:])
    assert adata.shape == (6, 0)
    assert list(adata.obs_names) == [f"{x}x{y}" for x, y in slide.spots[["x", "y"]].to_numpy()]
    adata.write_h5ad(tmp_path / "slide.h5ad")
    assert ad.read_h5ad(tmp_path / "slide.h5ad").shape == (6, 0)


def test_spots_that_were_not_selected_are_left_out_and_counted(slide):
    slide.spots.loc[0, "selected"] = 0
    slide.write()
    adata = slide.read()
    assert "9x3" not in adata.obs_names
    assert adata.uns["spatial"]["S1"]["metadata"]["n_spots_not_selected"] == 1


def test_a_spot_that_is_not_selected_may_lie_anywhere(slide):
    slide.spots.loc[0, ["pixel_x", "selected"]] = [np.nan, 0]
    slide.write()
    assert slide.read().n_obs == 5


def test_spots_in_one_table_only_are_left_out_counted_and_logged(slide, caplog):
    slide.counts = slide.counts.rename(index={"11x4": "30x30"})
    slide.write()
    with caplog.at_level(HINT, logger="spahgc"), pytest.warns(UserWarning, match="share 5 spots, of 6 with counts"):
        metadata = slide.read().uns["spatial"]["S1"]["metadata"]
    assert metadata["n_counts_without_spot"] == 1
    assert metadata["n_spots_without_counts"] == 1
    assert "'n_counts_without_spot': 1" in caplog.text


def test_a_table_without_the_column_selected_is_read(slide):
    slide.spots = slide.spots.drop(columns="selected")
    slide.write()
    assert slide.read().n_obs == 6


def test_comma_separated_tables_give_the_same(slide):
    expected = slide.read()
    counts, spots = slide.folder / "S1.csv", slide.folder / "spots.csv"
    slide.counts.to_csv(counts)
    slide.spots.to_csv(spots, index=False)
    adata = sp.io.st(counts, spots, slide.image)
    assert (adata.X != expected.X).nnz == 0
    np.testing.assert_array_equal(adata.obsm["spatial"], expected.obsm["spatial"])


def test_a_table_written_by_r_gives_the_same(slide):
    """R leaves out the name of the column that holds the row names."""
    expected = slide.read()
    lines = slide.counts.to_csv(sep="\t").splitlines()
    with gzip.open(slide.paths[0], "wt") as file:
        file.write("\n".join([lines[0].lstrip("\t"), *lines[1:]]))
    adata = slide.read()
    assert list(adata.var_names) == list(expected.var_names)
    assert (adata.X != expected.X).nnz == 0


@pytest.mark.parametrize("form", ["h5ad", "zarr"])
def test_the_result_survives_writing(slide, tmp_path, form):
    adata = slide.read()
    path = tmp_path / f"slide.{form}"
    if form == "h5ad":
        adata.write_h5ad(path)
        again = ad.read_h5ad(path)
    else:
        adata.write_zarr(path)
        again = ad.read_zarr(path)
    assert (again.X != adata.X).nnz == 0
    record, expected = again.uns["spatial"]["S1"], adata.uns["spatial"]["S1"]
    np.testing.assert_array_equal(record["images"]["hires"], expected["images"]["hires"])
    assert record["scalefactors"] == expected["scalefactors"]
    assert record["metadata"] == expected["metadata"]


def test_scanpy_and_squidpy_draw_it_without_further_arguments(slide):
    import squidpy as sq
    from matplotlib import pyplot as plt

    adata = slide.read()
    try:
        for color in (None, "ERBB2"):
            sc.pl.spatial(adata, color=color, show=False)
            sq.pl.spatial_scatter(adata, color=color)
        drawn = [axis for number in plt.get_fignums() for axis in plt.figure(number).axes if axis.images]
        assert len(drawn) == 4  # the tissue image, twice with each package
        for axis in drawn:
            assert axis.collections, "no spots on the tissue"
    finally:
        plt.close("all")


# --- bad inputs


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_missing_file_is_named(slide, missing):
    paths = list(slide.paths)
    paths[missing] = slide.folder / "absent.file"
    with pytest.raises(FileNotFoundError, match=r"absent\.file"):
        sp.io.st(*paths)


def test_a_missing_column_is_named(slide):
    slide.spots = slide.spots.drop(columns="pixel_y")
    slide.write()
    with pytest.raises(ValueError, match="has no column pixel_y; it has x, y, new_x"):
        slide.read()


def test_tables_of_different_slides_are_refused(slide):
    slide.counts.index = [f"{100 + i}x1" for i in range(6)]
    slide.write()
    with pytest.raises(ValueError, match="no spot stands both in the counts.*same slide"):
        slide.read()


def test_repeated_genes_are_refused_with_a_way_out(slide):
    slide.counts.columns = ["ERBB2", "CD74", "ERBB2", "ACTB"]
    slide.write()
    with pytest.raises(ValueError, match="1 genes in the counts.*more than once: ERBB2.*groupby"):
        slide.read()


def test_repeated_spots_in_the_counts_are_refused(slide):
    slide.counts = pd.concat([slide.counts, slide.counts.iloc[:1]])
    slide.write()
    with pytest.raises(ValueError, match="1 spots in the counts.*more than once: 11x4"):
        slide.read()


def test_repeated_spots_in_the_spot_table_are_refused(slide):
    slide.spots = pd.concat([slide.spots, slide.spots.iloc[:1]])
    slide.write()
    with pytest.raises(ValueError, match="1 spots in the spot table.*more than once: 9x3"):
        slide.read()


@pytest.mark.parametrize("value", [np.nan, np.inf, "here"])
def test_coordinates_that_are_not_finite_are_refused(slide, value):
    slide.spots["pixel_x"] = slide.spots["pixel_x"].astype(object)
    slide.spots.loc[2, "pixel_x"] = value
    slide.write()
    with pytest.raises(ValueError, match="1 of 6 spots .* not finite"):
        slide.read()


def test_adjusted_array_positions_are_refused(slide):
    slide.spots["x"] = slide.spots["new_x"]
    slide.write()
    with pytest.raises(ValueError, match="not whole numbers"):
        slide.read()


def test_a_table_without_any_selected_spot_is_refused(slide):
    slide.spots["selected"] = 0
    slide.write()
    with pytest.raises(ValueError, match="no spot left"):
        slide.read()


def test_centres_outside_the_image_are_refused(slide):
    slide.spots["pixel_x"] += WIDTH
    slide.write()
    with pytest.raises(ValueError, match=r"6 of 6 spot centres lie outside.*420 px wide and 300 px high"):
        slide.read()


def test_swapped_coordinates_are_recognised(slide):
    slide.spots["pixel_x"] += 200.0
    slide.spots = slide.spots.rename(columns={"pixel_x": "pixel_y", "pixel_y": "pixel_x"})
    slide.write()
    with pytest.raises(ValueError, match="x and y swapped"):
        slide.read()


def test_a_truncated_image_is_refused(slide):
    noise = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    Image.fromarray(noise).save(slide.image)
    slide.image.write_bytes(slide.image.read_bytes()[:100_000])
    with pytest.raises(ValueError, match=r"S1\.png.*cannot be read"):
        slide.read()


def test_tables_are_checked_before_the_image_is_decoded(slide, monkeypatch):
    def never(*_):
        raise AssertionError("the image was decoded")

    monkeypatch.setattr("spahgc.image._raster.RasterImage._decode", never)
    slide.spots["pixel_y"] += HEIGHT
    slide.write()
    with pytest.raises(ValueError, match="outside the image"):
        slide.read()


def test_a_truncated_table_is_refused(slide):
    slide.counts = pd.DataFrame(
        np.random.default_rng(0).poisson(50, (6, 3000)), slide.counts.index, [f"G{i}" for i in range(3000)]
    )
    slide.write()
    path = slide.paths[0]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"S1\.tsv\.gz.* cannot be read"):
        slide.read()


def test_an_empty_table_is_refused(slide):
    slide.paths[1].write_text("")
    with pytest.raises(ValueError, match="spot table"):
        slide.read()


def test_transposed_counts_are_refused(slide):
    slide.counts = slide.counts.T
    slide.write()
    with pytest.raises(ValueError, match="transposed table"):
        slide.read()


def test_text_among_the_counts_is_refused(slide):
    slide.counts = slide.counts.astype(object)
    slide.counts.iloc[1, 2] = "many"
    slide.write()
    with pytest.raises(ValueError, match='1 columns .* hold text, the first of them "ACTB"'):
        slide.read()


@pytest.mark.parametrize("value", [-1, np.nan])
def test_values_that_are_no_counts_are_refused(slide, value):
    slide.counts = slide.counts.astype(float)
    slide.counts.iloc[1, 2] = value
    slide.write()
    with pytest.raises(ValueError, match="missing, infinite or negative; the first is .* gene ACTB"):
        slide.read()


def test_a_single_spot_has_no_scale(slide):
    slide.spots = slide.spots.iloc[:1]
    slide.write()
    with pytest.raises(ValueError, match="leaves one spot"):
        slide.read()


def test_spots_at_one_place_have_no_scale(slide):
    slide.spots[["pixel_x", "pixel_y"]] = 50.0
    slide.write()
    with pytest.raises(ValueError, match="same pixel_x and pixel_y"):
        slide.read()


# --- a measured slide


@pytest.mark.data
def test_a_measured_slide_is_read_as_published(her2st):
    adata = sp.io.st(her2st / "C2.tsv.gz", her2st / "C2_selection.tsv", her2st / "C2.jpg")
    assert adata.n_obs == 187
    assert np.median(np.asarray(adata.X.sum(1))) == 8508
    assert 0.6 < adata.uns["spatial"]["C2"]["scalefactors"]["microns_per_pixel"] < 0.8
    assert adata.uns["spatial"]["C2"]["images"]["hires"].shape == (2000, 1871, 3)


@pytest.mark.data
def test_spots_of_a_measured_slide_lie_on_tissue(her2st):
    adata = sp.io.st(None, her2st / "B4_selection.tsv", her2st / "B4.jpg")
    record = adata.uns["spatial"]["B4"]
    brightness = record["images"]["hires"].mean(axis=2)
    x, y = (adata.obsm["spatial"] * record["scalefactors"]["tissue_hires_scalef"]).astype(int).T
    assert brightness[y, x].mean() < brightness.mean() - 10
