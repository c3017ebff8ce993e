"""A plain H&E image becomes spots: on tissue and nothing else, on a regular grid, ready for embedding and prediction."""

from __future__ import annotations

import inspect

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image, ImageDraw, ImageFilter
from scipy.spatial import KDTree

import spahgc as sp
from spahgc._parameters import Parameters
from spahgc._slides.resolution import slide_mpp
from spahgc.image import open_image
from spahgc.image._focus import focus
from spahgc.image._grid import covered, lattice
from spahgc.image._tissue import find_tissue

FINE_UM = 0.8
"""Resolution of the simulated slides."""
MPP_UM = 2 * FINE_UM
"""Resolution of the slide that the tests use: reduced, so that they are quick."""
GLASS = (242, 240, 243)
INKS = {
    "blue": (30, 60, 165),
    "light blue": (60, 120, 190),
    "ultramarine": (20, 20, 190),
    "green": (40, 140, 80),
    "dark green": (0, 100, 60),
    "teal": (20, 130, 130),
    "red": (200, 30, 40),
    "bright red": (235, 60, 60),
    "black": (25, 25, 28),
    "faded black": (70, 72, 75),
}


@pytest.fixture(scope="module")
def simulated() -> ad.AnnData:
    """Its tissue spans the image, holds fat and ducts, and has a ragged edge."""
    return sp.datasets.simulated(1, n_patients=1, n_spots=120, n_genes=12)[0]


@pytest.fixture(scope="module")
def fine(simulated) -> np.ndarray:
    """H&E, 0.8 um per pixel, 1.3 x 1.4 mm."""
    (record,) = simulated.uns["spatial"].values()
    return record["images"]["hires"]


@pytest.fixture(scope="module")
def he(fine) -> np.ndarray:
    """The same at 1.6 um per pixel."""
    return np.asarray(Image.fromarray(fine).reduce(2))


@pytest.fixture(scope="module")
def two_pieces(he) -> np.ndarray:
    """The left half of that slide, empty glass on the right."""
    image = he.copy()
    image[:, he.shape[1] // 2 :] = glass(he.shape[0], he.shape[1] - he.shape[1] // 2)
    return image


def glass(height: int, width: int, *, colour=GLASS, sd: float = 2.0, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(scale=sd, size=(height, width, 3))
    return np.clip(np.rint(np.asarray(colour) + noise), 0, 255).astype(np.uint8)


def draw_stroke(image: np.ndarray, points, colour, *, width_um: float = 400.0) -> tuple[np.ndarray, np.ndarray]:
    """A stroke with the soft border that a scanner shows, and where it is."""
    layer = Image.new("L", (image.shape[1], image.shape[0]))
    ImageDraw.Draw(layer).line(points, fill=255, width=int(width_um / MPP_UM))
    alpha = np.asarray(layer.filter(ImageFilter.GaussianBlur(3)))[..., None] / 255
    return np.rint(image * (1 - alpha) + np.asarray(colour) * alpha).astype(np.uint8), np.asarray(layer) > 0


def on(mask: np.ndarray, adata: ad.AnnData) -> np.ndarray:
    x, y = np.floor(adata.obsm["spatial"]).astype(int).T
    return mask[y, x]


def tiles_record(adata: ad.AnnData) -> dict:
    return adata.uns["spahgc"]["tiles"]


def write_svs(path, pixels: np.ndarray, mpp: float | None = MPP_UM) -> str:
    """A pyramid as Aperio writes it: tiled JPEG, the resolution in the description, reduced levels behind it."""
    height, width = pixels.shape[:2]
    text = f"Aperio Image Library v12.0\n{width}x{height} [0,0 {width}x{height}] (256x256) JPEG/RGB Q=90|AppMag = 10"
    text += f"|MPP = {mpp}" if mpp else ""
    options = {"tile": (256, 256), "photometric": "rgb", "compression": "jpeg", "metadata": None}
    with tifffile.TiffWriter(path) as writer:
        writer.write(pixels, description=text, compressionargs={"level": 92}, **options)
        for step in (2, 4):
            reduced = np.asarray(Image.fromarray(pixels).reduce(step))
            writer.write(reduced, subfiletype=1, compressionargs={"level": 92}, description=text, **options)
    return str(path)


# --- the whole path


def test_a_whole_slide_file_is_tiled_embedded_predicted_and_drawn(tmp_path, quick: Parameters) -> None:
    slides = sp.datasets.simulated(3, n_patients=3, n_spots=40, n_genes=30, n_domains=3)
    plain, *refs = (slide[:20].copy() for slide in slides)
    (record,) = plain.uns["spatial"].values()
    path = write_svs(tmp_path / "case_7.svs", record["images"]["hires"], FINE_UM)

    target = sp.pp.tile(path, spacing_um=150)
    sp.pp.embed([target, *refs], encoder="efficientnet_lite0", device="cpu")
    genes = list(refs[0].var_names[:6])
    sp.tl.predict(target, refs, genes=genes, preset=quick, device="cpu")
    axes = sp.pl.spatial_genes(target, genes[:2], show=False, save=tmp_path / "genes.png")

    assert list(target.var_names) == genes
    assert target.n_obs > 12
    assert np.isfinite(target.layers["spahgc"]).all()
    assert np.ptp(target.layers["spahgc"], axis=0).min() > 0, "a gene has one value everywhere"
    assert target.uns["spahgc"]["slide_mpp"] == pytest.approx(FINE_UM)
    assert len(axes) == 2 and (tmp_path / "genes.png").stat().st_size > 10_000
    plt.close("all")
    target.write_h5ad(tmp_path / "target.h5ad")
    read = ad.read_h5ad(tmp_path / "target.h5ad")
    assert read.uns["spahgc"]["tiles"]["spacing_um"] == 150
    np.testing.assert_array_equal(read.layers["spahgc"], target.layers["spahgc"])


def test_tiles_survive_zarr_before_anything_is_predicted(tmp_path, he) -> None:
    tiles = sp.pp.tile(he, mpp=MPP_UM, focus=False)
    tiles.write_zarr(tmp_path / "tiles.zarr")
    read = ad.read_zarr(tmp_path / "tiles.zarr")
    assert read.shape == tiles.shape and tiles_record(read)["layout"] == "hexagonal"
    np.testing.assert_array_equal(read.obsm["spatial"], tiles.obsm["spatial"])


# --- what is written


def test_the_result_has_the_promised_layout(tmp_path, he) -> None:
    path = write_svs(tmp_path / "case_7.svs", he)
    tiles = sp.pp.tile(path)
    assert tiles.n_vars == 0 and tiles.n_obs > 50
    assert list(tiles.obs) == ["array_row", "array_col", "tissue_fraction", "slide", "focus"]
    assert tiles.obs["tissue_fraction"].between(0.5, 1).all()
    assert tiles.obs_names.is_unique
    assert set(tiles.obs["slide"]) == {"case_7"} == set(tiles.uns["spatial"])
    record = tiles.uns["spatial"]["case_7"]
    assert record["metadata"]["source_image_path"] == path
    assert record["scalefactors"]["spot_diameter_fullres"] == pytest.approx(55 / MPP_UM)
    assert record["images"]["hires"].shape == (*he.shape[:2], 3), "an image of up to 2,000 px is kept whole"
    assert max(record["images"]["lowres"].shape) == 600
    assert tiles.uns["spahgc"]["slide_mpp"] == pytest.approx(MPP_UM)
    used = tiles_record(tiles)
    assert used["threshold"] == used["otsu"] and 0.03 <= used["threshold"] <= 0.12
    assert 0.3 < used["tissue_share"] < 0.9 and used["pen_share"] == 0
    assert used["glass_rgb"] == pytest.approx([242, 241, 240], abs=4)
    assert str(tmp_path) not in str(tiles.uns["spahgc"]), "the path has one place"


def test_the_hires_image_of_a_large_slide_is_reduced_and_fits_the_spots(he) -> None:
    large = np.asarray(Image.fromarray(he).resize((3 * he.shape[1], 3 * he.shape[0])))
    tiles = sp.pp.tile(large, mpp=MPP_UM / 3, spacing_um=200, focus=False)
    (record,) = tiles.uns["spatial"].values()
    hires, scale = record["images"]["hires"], record["scalefactors"]["tissue_hires_scalef"]
    assert max(hires.shape) == 2000 and scale == pytest.approx(2000 / large.shape[0])
    assert record["scalefactors"]["tissue_lowres_scalef"] == pytest.approx(600 / large.shape[0])
    x, y = np.floor(tiles.obsm["spatial"] * scale).astype(int).T
    assert (x < hires.shape[1]).all() and (y < hires.shape[0]).all()


def test_the_same_image_gives_the_same_tiles_as_file_array_or_source(tmp_path, he) -> None:
    Image.fromarray(he).save(tmp_path / "slide.png")
    source = open_image(he)
    first = sp.pp.tile(he, mpp=MPP_UM)
    for image in (he, source, tmp_path / "slide.png"):
        again = sp.pp.tile(image, mpp=MPP_UM, library_id="slide")
        pd.testing.assert_frame_equal(again.obs, first.obs)
        np.testing.assert_array_equal(again.obsm["spatial"], first.obsm["spatial"])
        assert tiles_record(again) == tiles_record(first)
    assert source.read(0, 0, 1, 1).shape == (1, 1, 3), "an image that the caller opened stays open"


def test_an_image_of_a_spatialdata_is_tiled(he) -> None:
    models = pytest.importorskip("spatialdata.models")
    first = sp.pp.tile(he, mpp=MPP_UM)
    for scales in (None, [2]):
        element = models.Image2DModel.parse(np.moveaxis(he, -1, 0), dims=("c", "y", "x"), scale_factors=scales)
        tiles = sp.pp.tile(element, mpp=MPP_UM)
        np.testing.assert_array_equal(tiles.obsm["spatial"], first.obsm["spatial"])
        assert "source_image_path" not in tiles.uns["spatial"]["slide"]["metadata"]


def test_an_array_too_large_to_be_kept_has_to_be_passed_to_embed(he) -> None:
    large = np.asarray(Image.fromarray(he).resize((3 * he.shape[1], 3 * he.shape[0])))
    tiles = sp.pp.tile(large, mpp=MPP_UM / 3, spacing_um=400, focus=False)
    with pytest.raises(ValueError, match="Pass image="):
        sp.pp.embed(tiles, encoder="uni", patch_um=80)
    with pytest.warns(UserWarning, match="Pass image="):
        sp.pp.embed(tiles[:2].copy(), encoder="efficientnet_lite0", patch_um=80, context=False)


# --- the grid


@pytest.mark.parametrize(("layout", "n_neighbours"), [("hexagonal", 6), ("square", 4)])
@pytest.mark.parametrize("spacing_um", [60.0, 100.0])
def test_neighbours_are_one_spacing_apart(he, layout, n_neighbours, spacing_um) -> None:
    tiles = sp.pp.tile(he, mpp=MPP_UM, spacing_um=spacing_um, layout=layout, focus=False)
    xy = tiles.obsm["spatial"] * MPP_UM
    tree = KDTree(xy)
    assert tree.query(xy, k=2)[0][:, 1].min() == pytest.approx(spacing_um)
    assert max(map(len, tree.query_ball_point(xy, spacing_um * 1.01))) == n_neighbours + 1


@pytest.mark.parametrize("layout", ["hexagonal", "square"])
def test_array_indices_are_those_of_the_positions(he, layout) -> None:
    tiles = sp.pp.tile(he, mpp=MPP_UM, layout=layout, focus=False)
    row, col = tiles.obs["array_row"].to_numpy(), tiles.obs["array_col"].to_numpy()
    step = np.array([50.0, 50.0 * np.sqrt(3)] if layout == "hexagonal" else [100.0, 100.0]) / MPP_UM
    np.testing.assert_allclose(tiles.obsm["spatial"], np.column_stack([col, row]) * step + 50 / MPP_UM)
    assert not pd.Series(list(zip(row, col, strict=True))).duplicated().any()
    if layout == "hexagonal":
        assert ((row + col) % 2 == 1).all()


@pytest.mark.parametrize("spacing_um", [50.0, 100.0, 200.0])
def test_the_grid_is_not_taken_for_visiums_array(two_pieces, spacing_um) -> None:
    tiles = sp.pp.tile(two_pieces, mpp=MPP_UM, spacing_um=spacing_um, min_tissue=0.1, focus=False)
    assert tiles.n_obs > 12
    assert slide_mpp(tiles) == MPP_UM
    with open_image(two_pieces) as image:
        assert slide_mpp(tiles, image=image) == MPP_UM
    for record in tiles.uns["spatial"].values():
        del record["scalefactors"]["microns_per_pixel"]
    del tiles.uns["spahgc"]
    assert slide_mpp(tiles) is None, "nothing tells, and no pitch was made up"


def test_a_spots_share_of_tissue_is_that_of_its_circle() -> None:
    mask = np.zeros((100, 200), dtype=bool)
    mask[:, :100] = True
    centers = np.array([[50.0, 50], [100, 50], [150, 50], [0, 50], [110, 50]]) * 4
    # 10 of a radius of 20 past the edge: the segment of a circle.
    segment = (np.arccos(0.5) - 0.5 * np.sqrt(0.75)) / np.pi
    np.testing.assert_allclose(covered(mask, 0.25, centers, 160.0), [1, 0.5, 0, 0.5, segment], atol=0.02)


def test_spots_are_kept_from_the_asked_share_on(two_pieces) -> None:
    counts = []
    for share in (0.05, 0.5, 1.0):
        tiles = sp.pp.tile(two_pieces, mpp=MPP_UM, min_tissue=share, focus=False)
        assert tiles.obs["tissue_fraction"].min() >= share
        counts.append(tiles.n_obs)
    assert counts[0] > counts[1] > counts[2]


def test_the_number_of_positions_has_a_limit() -> None:
    with pytest.raises(ValueError, match="10,000,000 are the limit"):
        lattice(50_000, 50_000, spacing_px=5.0)


# --- tissue


def test_spots_lie_on_tissue_and_on_all_of_it(simulated, he) -> None:
    tiles = sp.pp.tile(he, mpp=MPP_UM, spacing_um=50, focus=False)
    reached = KDTree(tiles.obsm["spatial"] * MPP_UM).query(simulated.obsm["spatial"] * FINE_UM)[0]
    assert (reached < 50).mean() > 0.95, "measured spots have a tile beside them"
    coloured = np.ptp(he.astype(int), axis=-1) > 12
    beside = KDTree(np.argwhere(coloured)[::7][:, ::-1] + 0.5).query(tiles.obsm["spatial"])[0]
    assert (beside * MPP_UM).max() < 90, "the widest fat cells and ducts reach so far, the glass outside does not count"


@pytest.mark.data
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("name", ["B4", "C2"])
def test_the_tissue_of_a_measured_slide_is_found(her2st, name) -> None:
    """B4 lies on lilac glass, half of it is fat, and eosin has bled into the glass beside both."""
    spots = pd.read_csv(her2st / f"{name}_selection.tsv", sep="\t")
    xy = spots.loc[spots["selected"] == 1, ["pixel_x", "pixel_y"]].to_numpy()
    with Image.open(her2st / f"{name}.jpg") as image:
        height = image.height
        image.draft("RGB", (image.width // 8, height // 8))
        small = np.asarray(image.convert("RGB"))
    scale = small.shape[0] / height
    found = find_tissue(small, mpp=0.69 / scale)
    assert (covered(found.mask, scale, xy, 145.0) >= 0.5).mean() > 0.95, "the spots that were measured"
    pitch_um2 = 200.0**2
    assert found.mask.sum() * (0.69 / scale) ** 2 < 1.15 * len(xy) * pitch_um2, "and hardly more than these"
    assert found.pen_share == 0


@pytest.mark.parametrize("ink", INKS)
def test_no_spot_lies_on_a_pen_stroke_and_tissue_beside_it_is_kept(two_pieces, ink) -> None:
    height, width = two_pieces.shape[:2]
    # Down through the glass, and across the tissue.
    marked, beside = draw_stroke(two_pieces, [(width * 0.75, 0), (width * 0.8, height)], INKS[ink])
    marked, across = draw_stroke(marked, [(0, height * 0.5), (width * 0.4, height * 0.5)], INKS[ink])
    clean = sp.pp.tile(two_pieces, mpp=MPP_UM, focus=False)
    tiles = sp.pp.tile(marked, mpp=MPP_UM, focus=False)
    assert not on(beside | across, tiles).any()
    assert tiles.obsm["spatial"][:, 0].max() < width * 0.55, "nothing is left of the stroke on the glass"
    near = np.asarray(Image.fromarray(across).filter(ImageFilter.MaxFilter(3)))
    distance = KDTree(np.argwhere(near)[::50][:, ::-1]).query(clean.obsm["spatial"])[0] * MPP_UM
    away = set(clean.obs_names[distance > 150])
    assert len(away) > 10 and len(away & set(tiles.obs_names)) >= 0.95 * len(away)
    assert tiles_record(tiles)["pen_share"] > 0.2


def test_without_exclusion_pen_strokes_are_stained(two_pieces) -> None:
    height, width = two_pieces.shape[:2]
    marked, stroke = draw_stroke(two_pieces, [(width * 0.75, 0), (width * 0.75, height)], INKS["green"])
    assert on(stroke, sp.pp.tile(marked, mpp=MPP_UM, exclude_pen=False, focus=False)).any()


def test_scattered_red_cells_are_no_pen(he) -> None:
    bleeding = he.copy()
    cells = np.random.default_rng(0).integers(2, [he.shape[0] - 2, he.shape[1] - 2], size=(3000, 2))
    for row, col in cells:
        bleeding[row - 2 : row + 2, col - 2 : col + 2] = INKS["red"]
    assert find_tissue(bleeding, mpp=MPP_UM).pen_share == 0


def test_small_holes_are_filled_and_large_ones_are_not() -> None:
    image = np.full((500, 500, 3), GLASS, dtype=np.uint8)
    image[50:450, 50:450] = (190, 110, 170)
    image[100:150, 100:150] = GLASS  # 200 um
    image[250:400, 250:400] = GLASS  # 600 um
    mask = find_tissue(image, mpp=4.0).mask
    assert mask[125, 125] and not mask[325, 325] and not mask[20, 20]


def test_tissue_ends_where_it_ends(two_pieces) -> None:
    mask = find_tissue(two_pieces, mpp=MPP_UM).mask
    ends = mask.shape[1] - np.argmax(mask[:, ::-1], axis=1)
    off_um = (ends[mask.any(axis=1)] - two_pieces.shape[1] // 2) * MPP_UM
    assert abs(np.median(off_um)) < 15 and np.quantile(off_um, 0.95) < 30


def test_specks_are_left_out() -> None:
    image = np.full((500, 500, 3), GLASS, dtype=np.uint8)
    image[50:250, 50:250] = (190, 110, 170)
    image[400:420, 400:420] = (190, 110, 170)  # 80 um
    mask = find_tissue(image, mpp=4.0).mask
    assert mask[150, 150] and not mask[350:].any()
    assert find_tissue(image, mpp=16.0).mask[410, 410], "the same pixels are 320 um wide on a coarser slide"


def test_grey_shadows_and_dust_are_no_tissue(two_pieces) -> None:
    dirty = two_pieces.copy()
    height, width = dirty.shape[:2]
    dirty[: height // 2, width * 3 // 4 :] = glass(height // 2, width - width * 3 // 4, colour=(150, 149, 151))
    assert not (sp.pp.tile(dirty, mpp=MPP_UM, focus=False).obsm["spatial"][:, 0] > width * 0.6).any()


def test_an_even_smear_of_eosin_is_no_tissue(two_pieces) -> None:
    dirty = two_pieces.copy()
    height, width = dirty.shape[:2]
    slope = np.linspace(0, 1, width - width * 5 // 8)[:, None]
    smear = np.asarray(GLASS) * (1 - slope) + np.array([240, 218, 235]) * slope
    dirty[:, width * 5 // 8 :] = np.rint(smear)
    assert not (sp.pp.tile(dirty, mpp=MPP_UM, focus=False).obsm["spatial"][:, 0] > width * 0.6).any()


def test_tinted_glass_is_glass(two_pieces) -> None:
    tinted = np.rint(two_pieces * np.array([0.91, 0.87, 0.93])).astype(np.uint8)
    tiles, clean = (sp.pp.tile(image, mpp=MPP_UM, focus=False) for image in (tinted, two_pieces))
    assert tiles.obsm["spatial"][:, 0].max() == clean.obsm["spatial"][:, 0].max()
    assert abs(tiles.n_obs - clean.n_obs) <= 0.05 * clean.n_obs


def test_an_image_full_of_tissue_is_tiled_altogether(he) -> None:
    inner = he[450:650, 425:575]
    tiles = sp.pp.tile(np.tile(inner, (3, 4, 1)), mpp=MPP_UM, focus=False)
    assert tiles_record(tiles)["tissue_share"] > 0.97


def test_a_threshold_of_ones_own_is_used(two_pieces) -> None:
    low, high = (sp.pp.tile(two_pieces, mpp=MPP_UM, threshold=t, focus=False) for t in (0.05, 0.2))
    assert low.n_obs > high.n_obs
    assert tiles_record(high)["threshold"] == 0.2 and tiles_record(high)["threshold_by"] == "argument"
    assert tiles_record(high)["otsu"] == tiles_record(low)["otsu"] != 0.2


# --- focus


def test_blur_lowers_the_focus_of_every_spot(fine) -> None:
    blurred = np.asarray(Image.fromarray(fine).filter(ImageFilter.GaussianBlur(3)))
    sharp, soft = (sp.pp.tile(image, mpp=FINE_UM, spacing_um=150) for image in (fine, blurred))
    both = sharp.obs_names.intersection(soft.obs_names)
    assert (sharp.obs.loc[both, "focus"] > soft.obs.loc[both, "focus"]).mean() > 0.98
    assert sharp.obs["focus"].median() > 10 * soft.obs["focus"].median()


def test_focus_hardly_depends_on_the_resolution_of_the_slide(fine) -> None:
    finer = np.asarray(Image.fromarray(fine[600:1000, 400:800]).resize((1600, 1600), Image.Resampling.BICUBIC))
    with open_image(fine[600:1000, 400:800]) as coarse_image, open_image(finer) as fine_image:
        coarse = focus(coarse_image, (200, 200), width_um=100, mpp=FINE_UM)
        assert focus(fine_image, (800, 800), width_um=100, mpp=FINE_UM / 4) == pytest.approx(coarse, rel=0.2)


def test_focus_is_the_variance_of_the_laplacian() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (40, 40)).astype(np.uint8)
    patch = grey[10:30, 10:30].astype(float)
    laplacian = sum(np.roll(patch, step, axis) for step in (1, -1) for axis in (0, 1)) - 4 * patch
    with open_image(grey) as image:
        assert focus(image, (20, 20), width_um=20, mpp=1.0) == pytest.approx(laplacian[1:-1, 1:-1].var(), rel=1e-4)


def test_focus_can_be_left_out(he) -> None:
    assert "focus" not in sp.pp.tile(he, mpp=MPP_UM, focus=False).obs


# --- the reader


def test_a_slide_is_read_as_its_tiles(tmp_path, he) -> None:
    path = write_svs(tmp_path / "case_7.svs", he)
    tiles, read = sp.pp.tile(path, spacing_um=150), sp.io.slide(path, spacing_um=150)
    pd.testing.assert_frame_equal(read.obs, tiles.obs)
    assert tiles_record(read) == tiles_record(tiles)


def test_reader_and_tile_take_the_same_arguments() -> None:
    reader, tile = (inspect.signature(function).parameters for function in (sp.io.slide, sp.pp.tile))
    shared = {name: parameter.default for name, parameter in tile.items() if name != "image"}
    assert shared == {name: parameter.default for name, parameter in reader.items() if name not in ("path", "spots")}


def test_given_spots_are_taken_in_their_order_with_their_names(tmp_path, he) -> None:
    path = write_svs(tmp_path / "case_7.svs", he)
    table = pd.DataFrame({"y": [300.5, 200], "x": [100, 700], "region": ["rim", "core"]}, index=["b", "a"])
    slide = sp.io.slide(path, spots=table)
    assert list(slide.obs_names) == ["b", "a"] and list(slide.obs["region"]) == ["rim", "core"]
    np.testing.assert_array_equal(slide.obsm["spatial"], [[100, 300.5], [700, 200]])
    assert slide.n_vars == 0 and slide.uns["spahgc"]["slide_mpp"] == pytest.approx(MPP_UM)
    assert slide.uns["spatial"]["case_7"]["metadata"]["source_image_path"] == path
    array = sp.io.slide(path, spots=table[["x", "y"]].to_numpy(), spot_um=80)
    np.testing.assert_array_equal(array.obsm["spatial"], slide.obsm["spatial"])
    assert array.uns["spatial"]["case_7"]["scalefactors"]["spot_diameter_fullres"] == pytest.approx(80 / MPP_UM)


def test_given_spots_need_no_resolution(tmp_path, he) -> None:
    path = write_svs(tmp_path / "slide.svs", he, mpp=None)
    slide = sp.io.slide(path, spots=[[100, 100], [200, 100], [300, 100]])
    assert "spahgc" not in slide.uns
    assert slide.uns["spatial"]["slide"]["scalefactors"]["spot_diameter_fullres"] == pytest.approx(55)


@pytest.mark.parametrize(
    ("spots", "message"),
    [
        (pd.DataFrame({"row": [1], "col": [2]}), 'no column "x", "y"; its columns are "row", "col"'),
        (np.zeros((3, 3)), r"shape \(3, 3\)"),
        (np.zeros((0, 2)), "no rows"),
        ([[5, 5], [np.nan, 5]], 'no finite x and y \\("spot_1"\\)'),
        (pd.DataFrame({"x": [1, 2], "y": [1, 2]}, index=["a", "a"]), '"a" occur more than once'),
        ([[100, 5000]], "outside the image"),
    ],
)
def test_spots_that_are_none_are_refused(tmp_path, he, spots, message) -> None:
    with pytest.raises(ValueError, match=message):
        sp.io.slide(write_svs(tmp_path / "slide.svs", he[:600, :600]), spots=spots)


# --- errors


def test_an_unknown_resolution_is_refused(tmp_path, he) -> None:
    with pytest.raises(ValueError, match=r"resolution of slide \"slide\" \(808 x 856 px\) is not known.*mpp="):
        sp.pp.tile(he)
    with pytest.raises(ValueError, match="is not known"):
        sp.io.slide(write_svs(tmp_path / "slide.svs", he[:300, :300], mpp=None))


def test_the_argument_wins_over_the_file(tmp_path, he) -> None:
    tiles = sp.pp.tile(write_svs(tmp_path / "slide.svs", he), mpp=1.0, focus=False)
    assert tiles.uns["spahgc"]["slide_mpp"] == 1.0 == slide_mpp(tiles)


@pytest.mark.parametrize("sd", [0.0, 2.0, 6.0])
def test_empty_glass_is_refused_and_what_was_found_is_said(sd) -> None:
    with pytest.raises(ValueError, match=r"no tissue was found.*threshold 0\.0\d\d.*lower threshold="):
        sp.pp.tile(glass(800, 900, sd=sd), mpp=2.0)


def test_a_slide_of_nothing_but_ink_says_so(two_pieces) -> None:
    with pytest.raises(ValueError, match="is marker ink"):
        sp.pp.tile(draw_stroke(glass(1000, 1000), [(500, 0), (500, 1000)], INKS["blue"])[0], mpp=MPP_UM)


def test_a_grid_that_no_tissue_fits_is_refused(two_pieces) -> None:
    with pytest.raises(ValueError, match="none of the .* spots.*smaller spacing_um or min_tissue"):
        sp.pp.tile(two_pieces, mpp=MPP_UM, spacing_um=1300, spot_um=1300, min_tissue=1.0)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"mpp": 0}, "mpp=0"),
        ({"mpp": np.nan}, "mpp=nan"),
        ({"spacing_um": -1.0}, "spacing_um=-1.0"),
        ({"spot_um": 120.0}, "spots would overlap"),
        ({"layout": "triangular"}, "hexagonal, square"),
        ({"min_tissue": 0.0}, "min_tissue=0.0"),
        ({"min_tissue": 50}, "min_tissue=50"),
        ({"threshold": 0}, "threshold=0"),
        ({"library_id": "a/b"}, "no slash"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(he, argument, message) -> None:
    with pytest.raises(ValueError, match=message):
        sp.pp.tile(he, **{"mpp": MPP_UM, **argument})


def test_other_types_are_refused(he) -> None:
    with pytest.raises(TypeError, match="image is of type int"):
        sp.pp.tile(7, mpp=0.5)
    with pytest.raises(TypeError, match=r"spahgc\.pp\.tile"):
        sp.io.slide(he, mpp=0.5)


def test_a_missing_file_is_named(tmp_path) -> None:
    for read in (sp.pp.tile, sp.io.slide):
        with pytest.raises(FileNotFoundError, match=r"absent\.svs"):
            read(tmp_path / "absent.svs", mpp=0.5)
