"""Genes on the tissue: their spread, several slides, parts of a slide, what the legend says."""

from __future__ import annotations

import anndata as ad
import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Text
from tests.tissue_figures import assert_nothing_overlaps, bars, name_of, part_of, predicted_slides, spots, values, words

import spahgc as sp
from spahgc._slides.spatialdata import SpotsOnImage
from spahgc.pl._style import shared_limits, shorten, text_colour
from spahgc.pl._tissue import View, tissue_of, tissue_on_image

GENES = ["MORPH001", "FLAT001"]
MPP, SPOT_UM = 0.8, 55


@pytest.fixture(scope="module")
def originals() -> list[ad.AnnData]:
    return predicted_slides()


@pytest.fixture
def slides(originals: list[ad.AnnData]):
    yield [slide.copy() for slide in originals]
    plt.close("all")


@pytest.fixture
def slide(slides: list[ad.AnnData]) -> ad.AnnData:
    return slides[0]


def draw(data, genes=GENES, **settings) -> list:
    """A figure in which spots of low support are drawn as the others."""
    return sp.pl.spatial_genes(data, genes, show=False, **{"fade_below": None, **settings})


# --------------------------------------------------------------------------------------------------------------------
# Spread


def test_spread_has_a_panel_a_colour_map_and_a_bar_of_its_own(slide):
    axes = draw(slide, spread=True)
    assert [ax.get_title() for ax in axes[2::3]] == ["MORPH001, spread", "FLAT001, spread"]
    column = slide.var_names.get_loc("MORPH001")
    np.testing.assert_array_equal(values(axes[2]), slide.layers["spahgc_std"][:, column])
    assert spots(axes[0]).get_cmap().name == spots(axes[1]).get_cmap().name != spots(axes[2]).get_cmap().name
    assert spots(axes[0]).get_clim() == spots(axes[1]).get_clim() != spots(axes[2]).get_clim()
    assert [bar.get_ylabel() for bar in bars(axes)] == ["log1p counts per 10,000"] * 4
    assert_nothing_overlaps(axes[0].figure)


def test_the_callers_limits_leave_the_spread_alone(slide):
    axes = draw(slide, GENES[0], spread=True, vmin=1, vmax=4, spread_cmap="inferno")
    assert spots(axes[0]).get_clim() == (1, 4)
    assert spots(axes[2]).get_clim() == tuple(np.percentile(values(axes[2]).astype(float), [1, 99]))
    assert spots(axes[2]).get_cmap().name == "inferno"


def test_a_missing_spread_is_named(slide):
    del slide.layers["spahgc_std"]
    with pytest.raises(KeyError, match=r'spahgc_std.*not found.*preset="default".*spread=True'):
        draw(slide, spread=True)


# --------------------------------------------------------------------------------------------------------------------
# Several slides


def test_every_slide_has_a_row_a_gene_and_one_scale_with_the_others(slides):
    axes = draw(slides)
    assert len(axes) == 2 * 3 * 2
    for gene, name in enumerate(GENES):
        block = axes[gene * 6 : gene * 6 + 6]
        assert len({spots(ax).get_clim() for ax in block}) == 1
        column = slides[0].var_names.get_loc(name)
        for number, slide in enumerate(slides):
            np.testing.assert_array_equal(values(block[2 * number + 1]), slide.layers["spahgc"][:, column])
        pooled = np.concatenate([values(ax) for ax in block]).astype(float)
        np.testing.assert_allclose(spots(block[0]).get_clim(), np.percentile(pooled, [1, 99]))
    assert spots(axes[0]).get_clim() != spots(axes[6]).get_clim()
    assert len(bars(axes)) == 2
    assert_nothing_overlaps(axes[0].figure)


def test_slides_are_named_beside_their_rows_in_the_callers_order(slides):
    reverse = slides[::-1]
    axes = draw(reverse, GENES[0])
    assert [name for ax in axes[::2] for name in words(ax) if name.startswith("P")] == [name_of(s) for s in reverse]
    assert not any(name_of(slides[0]) in words(ax) for ax in draw(slides[:1], GENES[0]))


def test_a_slide_without_a_measurement_says_so_beside_one_that_has_it(slides):
    slides[1].X = None
    axes = draw(slides[:2], GENES[0])
    assert [ax.get_title().split(" (")[0] for ax in axes] == ["MORPH001, measured", "MORPH001, predicted"] * 2
    assert "not measured" in words(axes[2]) and np.isnan(values(axes[2])).all()
    assert "not measured" not in words(axes[0])
    assert "PCC" not in axes[3].get_title()


def test_what_is_wrong_with_one_of_several_slides_names_it(slides):
    name = name_of(slides[1])
    slides[1].var["spahgc_panel"] = slides[1].var_names != "FLAT001"
    with pytest.raises(ValueError, match=f'"FLAT001": not in the panel.*slide "{name}"'):
        draw(slides)
    del slides[1].layers["spahgc"]
    with pytest.raises(KeyError, match=f"layer.*not found in slide .*{name}"):
        draw(slides)


def test_slides_that_cannot_stand_in_one_figure_are_refused(slides):
    with pytest.raises(ValueError, match="two of the slides are called"):
        draw([slides[0], slides[0].copy()])
    with pytest.raises(ValueError, match="no slide was given"):
        draw([])
    with pytest.raises(TypeError, match="must be an AnnData, found str"):
        draw("slide.h5ad")
    with pytest.raises(ValueError, match="library_id.*one slide, 3 slides"):
        draw(slides, library_id="x")
    slides[1].uns["spahgc"] = {"predictions": {"spahgc": {"units": "z-scores"}}}
    with pytest.raises(ValueError, match="different units.*z-scores"):
        draw(slides)


def test_given_axes_hold_all_slides(slides):
    grid = plt.subplots(4, 2)[1]
    assert draw(slides[:2], ax=grid) == list(grid.ravel())
    with pytest.raises(ValueError, match=r"8 axes \(2 genes on 2 slides, measured and predicted\), found 2"):
        draw(slides[:2], ax=plt.subplots(1, 2)[1])


# --------------------------------------------------------------------------------------------------------------------
# Parts of a slide


@pytest.mark.parametrize("with_image", [True, False])
def test_a_part_is_cut_out_in_full_resolution_pixels(slide, with_image):
    library = next(iter(slide.uns["spatial"].values()))
    scale = library["scalefactors"]["tissue_hires_scalef"] if with_image else 1.0
    if not with_image:
        library["images"] = {}
    left, right, top, bottom = part = part_of(slide)
    ax = draw(slide, GENES[0], crop_coord=part)[1]
    np.testing.assert_allclose(ax.get_xlim(), (left * scale, right * scale))
    np.testing.assert_allclose(ax.get_ylim(), (bottom * scale, top * scale))
    xy = slide.obsm["spatial"]
    shown = xy[:, 0] - spots(ax)._widths[0] / scale < right  # half of the width is the radius
    np.testing.assert_allclose(spots(ax).get_offsets(), xy[shown] * scale)
    assert 0 < shown.sum() < slide.n_obs


def test_a_part_keeps_colours_and_pcc_of_the_whole(slide):
    whole, part = draw(slide, GENES[0]), draw(slide, GENES[0], crop_coord=part_of(slide))
    assert spots(part[0]).get_clim() == spots(whole[0]).get_clim()
    assert part[1].get_title() == whole[1].get_title()


def test_each_slide_may_have_a_part_of_its_own(slides):
    one = part_of(slides[0])
    axes = draw(slides[:2], GENES[0], crop_coord=[one, None])
    assert len(values(axes[0])) < slides[0].n_obs and len(values(axes[2])) == slides[1].n_obs
    with pytest.raises(ValueError, match="1 parts of 2 slides"):
        draw(slides[:2], crop_coord=[one])


@pytest.mark.parametrize("held_at_once", [10**9, 0])
def test_a_part_of_an_image_lies_under_its_spots(monkeypatch, held_at_once):
    """A mark of the image is found at the spot on it, whether the part is read by itself or cut out of the whole."""
    monkeypatch.setattr("spahgc.pl._tissue.MAX_PART_PIXELS", held_at_once)
    monkeypatch.setattr("spahgc.pl._tissue.MAX_IMAGE_PX", 100)
    monkeypatch.setattr("spahgc.pl._tissue.MAX_THUMBNAIL_PX", 400)
    pixels = np.zeros((800, 1000, 3), dtype=np.uint8)
    pixels[360:400, 600:640] = 255
    xy = np.array([[620.0, 380.0], [700.0, 300.0], [90.0, 80.0]])
    tissue = tissue_on_image(SpotsOnImage(xy, pixels, "he", 0.5, 40.0), 1.0, View(crop=(500, 800, 200, 500)))
    left, right, bottom, top = tissue.extent
    rows, columns = np.nonzero(tissue.image[..., 0] > 127)
    height, width = tissue.image.shape[:2]
    x = left + (columns.mean() + 0.5) / width * (right - left)
    y = top + (rows.mean() + 0.5) / height * (bottom - top)
    microns = 40 * 0.5 / tissue.diameter
    np.testing.assert_allclose(np.array([x, y]) * microns, tissue.xy[0] * microns, atol=1.5)
    assert tissue.microns == pytest.approx(microns)
    assert np.diff(tissue.xlim) * microns == pytest.approx(300 * 0.5)
    np.testing.assert_array_equal(tissue.in_view, [True, True, False])
    assert max(height, width) == 100 or held_at_once == 0


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ((0, 1, 2), "four numbers"),
        ((5, 1, 0, 9), "encloses nothing.*y runs downwards"),
        ((-900, -800, 0, 9), "holds none of the 50 spots, which lie from x="),
        ((0, np.nan, 0, 1), "encloses nothing"),
    ],
)
def test_parts_that_show_nothing_are_refused(slide, part, message):
    with pytest.raises(ValueError, match=message):
        draw(slide, crop_coord=part)


# --------------------------------------------------------------------------------------------------------------------
# Legend and page


def test_legend_says_how_wide_a_spot_is(slide):
    ax = draw(slide, GENES[0])[0]
    assert f"spot {SPOT_UM} µm" in words(ax)
    assert f"spot {SPOT_UM} µm, drawn × 2" in words(draw(slide, GENES[0], size=2)[0])


def test_a_guessed_diameter_is_not_given_as_known(slide):
    del next(iter(slide.uns["spatial"].values()))["scalefactors"]["spot_diameter_fullres"]
    ax = draw(slide, GENES[0])[0]
    assert len(ax.artists) == 1 and not any("spot" in word for word in words(ax))


def test_scale_bar_is_as_long_as_it_says(slide):
    ax = draw(slide, GENES[0])[0]
    ax.figure.canvas.draw()
    legend = ax.artists[0]
    (line,) = legend.findobj(matplotlib.lines.Line2D)
    (label,) = {text.get_text() for text in legend.findobj(Text)} - {f"spot {SPOT_UM} µm"}
    scale = next(iter(slide.uns["spatial"].values()))["scalefactors"]["tissue_hires_scalef"]
    assert label == f"{np.ptp(line.get_xdata()) / scale * MPP:g} µm"


def test_scale_bar_is_left_out_where_the_scale_is_unknown(slide):
    del next(iter(slide.uns["spatial"].values()))["scalefactors"]["microns_per_pixel"]
    assert not any(ax.artists for ax in draw(slide))


def test_genes_stand_side_by_side(slide):
    genes = list(slide.var_names[:3])
    axes = draw(slide, genes, ncols=2)
    assert [ax.get_title().split(",")[0] for ax in axes[::2]] == genes
    places = [ax.get_subplotspec() for ax in axes]
    assert [(p.rowspan.start, p.colspan.start) for p in places] == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1)]
    assert [len(ax.artists) for ax in axes] == [0, 0, 0, 0, 1, 0]
    assert_nothing_overlaps(axes[0].figure)
    with pytest.raises(ValueError, match="ncols=5 leaves 0.* inches"):
        draw(slide, slide.var_names[:5], ncols=5)
    with pytest.raises(ValueError, match="ncols is 0"):
        draw(slide, ncols=0)


def test_more_panels_than_a_page_holds_are_refused_with_the_number_that_fits(slides):
    genes = list(slides[0].var_names[:13])
    with pytest.raises(ValueError, match=r"13 genes on 3 slides make 78 panels.*holds 72.*genes\[i : i \+ 12\]"):
        draw(slides, genes)
    assert not plt.get_fignums()


def test_text_is_seen_on_a_dark_figure(slide):
    figure, grid = plt.subplots(1, 2, facecolor="black")
    axes = draw(slide, GENES[0], ax=grid)
    written = [
        axes[0].title,
        *[text for text in axes[0].findobj(Text) if "µm" in text.get_text()],
        bars(axes)[0].yaxis.label,
    ]
    assert [text.get_color() for text in written] == ["white"] * 4
    # The picture fades into white, not into black.
    assert [to_hex(patch.get_facecolor()) for patch in axes[0].patches] == ["#ffffff"]
    assert not draw(slide, GENES[0])[0].patches
    with plt.style.context("dark_background"):
        assert text_colour(draw(slide, GENES[0])[0]) == "#ffffff"


def test_values_that_are_all_missing_have_limits():
    assert shared_limits([np.full(3, np.nan)], None, None) == (0.0, 1.0, "neither")


def test_long_names_lose_their_middle():
    assert shorten("short", 7) == "short"
    assert shorten("abcdefghij", 7) == "abc…hij"
    assert shorten("abcdefghij", 6) == "abc…ij"


def test_a_diameter_in_microns_is_that_of_the_slide(slide):
    tissue = tissue_of(slide, None, 2.0)
    assert tissue.spot_um == pytest.approx(SPOT_UM)
    assert tissue.magnified == 2
