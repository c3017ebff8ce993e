"""Support and domains on the tissue, and what all figures of the tissue have in common."""

from __future__ import annotations

import anndata as ad
import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex
from tests.tissue_figures import assert_nothing_overlaps, bars, name_of, part_of, predicted_slides, spots, values

import spahgc as sp
from spahgc._slides.categories import CATEGORY_COLOURS, category_colours


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


# --------------------------------------------------------------------------------------------------------------------
# Support


def test_support_is_drawn_from_0_to_1(slide):
    (ax,) = sp.pl.support(slide, show=False)
    np.testing.assert_array_equal(values(ax), slide.obs["spahgc_support"])
    assert spots(ax).get_clim() == (0, 1)
    assert [bar.get_ylabel() for bar in bars([ax])] == ["support by the references"]
    assert ax.get_title() == "" and len(ax.artists) == 1
    (ax,) = sp.pl.support(slide, vmin=None, vmax=0.5, cmap="magma", show=False)
    assert 0 < spots(ax).get_clim()[0] < 0.1 and spots(ax).get_clim()[1] == 0.5
    assert spots(ax).get_cmap().name == "magma"


def test_spots_below_the_threshold_are_ringed_and_counted(slide):
    (ax,) = sp.pl.support(slide, threshold=0.2, show=False)
    below = (slide.obs["spahgc_support"] < 0.2).to_numpy()
    _, rings = ax.collections
    np.testing.assert_allclose(rings.get_offsets(), spots(ax).get_offsets()[below])
    assert ax.get_title() == f"{below.sum()} of 50 spots below 0.2"
    assert len(rings.get_facecolor()) == 0


def test_support_of_several_slides_has_one_scale_and_their_names(slides):
    axes = sp.pl.support(slides, threshold=0.1, vmin=None, vmax=None, show=False)
    assert [ax.get_title().split("\n")[0] for ax in axes] == [name_of(slide) for slide in slides]
    assert len({spots(ax).get_clim() for ax in axes}) == 1 == len(bars(axes))
    assert_nothing_overlaps(axes[0].figure)


def test_support_that_is_not_there_is_named(slide):
    with pytest.raises(ValueError, match="threshold is 2"):
        sp.pl.support(slide, threshold=2)
    with pytest.raises(ValueError, match=r"1 axes \(one for each of 1 slides\), found 2"):
        sp.pl.support(slide, ax=plt.subplots(1, 2)[1])
    with pytest.raises(KeyError, match=r'ridge_support.*not found in the slide.*preset="default"'):
        sp.pl.support(slide, key="ridge")


# --------------------------------------------------------------------------------------------------------------------
# Domains


def drawn_colours(ax) -> np.ndarray:
    collection = spots(ax)
    collection.update_scalarmappable()
    return np.array([to_hex(colour) for colour in collection.get_facecolor()])


def legend(ax) -> dict[str, str]:
    box = ax.get_legend()
    dots = [to_hex(handle.get_markerfacecolor()) for handle in box.legend_handles]
    return dict(zip([text.get_text() for text in box.get_texts()], dots, strict=True))


def test_every_domain_has_a_colour_and_a_name(slide):
    (ax,) = sp.pl.domains(slide, fade_below=None, show=False)
    assert legend(ax) == {str(n): CATEGORY_COLOURS[n].lower() for n in range(3)}
    expected = [legend(ax)[domain] for domain in slide.obs["spahgc_domain"]]
    np.testing.assert_array_equal(drawn_colours(ax), expected)
    assert ax.get_title() == "predicted domains"


def test_an_annotation_has_the_colours_of_the_domains_that_share_its_spots(slide):
    swapped = slide.obs["spahgc_domain"].astype(str).replace({"0": "stroma", "1": "tumour", "2": "fat"})
    swapped.iloc[:4] = ["tumour", "", None, "other"]
    slide.obs["tissue"] = swapped
    domains, label = sp.pl.domains(slide, label="tissue", fade_below=None, show=False)
    assert [legend(label)[name] for name in ("stroma", "tumour", "fat")] == [legend(domains)[n] for n in "012"]
    assert legend(label)["other"] not in legend(domains).values()
    assert len(values(label)) == slide.n_obs and np.isnan(values(label)).sum() == 2
    assert label.get_title() == "tissue"
    assert_nothing_overlaps(label.figure)


def test_agreement_is_written_above_the_label_that_it_belongs_to(slide):
    sp.tl.domains(slide, n_domains=3, label="domain")
    expected = slide.uns["spahgc"]["domains"]["spahgc"]["adjusted_rand_index"]
    assert f"(adjusted Rand index {expected:.2f})" in sp.pl.domains(slide, label="domain", show=False)[1].get_title()
    slide.obs["other"] = slide.obs["domain"]
    assert sp.pl.domains(slide, label="other", show=False)[1].get_title() == "other"


def test_colours_of_scanpy_and_of_the_caller_win(slide):
    slide.uns["spahgc_domain_colors"] = ["#111111", "#222222", "#333333"]
    assert list(legend(sp.pl.domains(slide, show=False)[0]).values()) == ["#111111", "#222222", "#333333"]
    colours = ["#aa0000", "#00aa00", "#0000aa"]
    assert list(legend(sp.pl.domains(slide, palette=colours, show=False)[0]).values()) == colours
    with pytest.raises(ValueError, match="at least 3 colours"):
        sp.pl.domains(slide, palette=colours[:2])


def test_clusters_with_numbers_keep_their_names_where_some_are_missing(slide):
    slide.obs["cluster"] = [np.nan, *[1.0, 2.0] * 24, 2.0]
    assert list(legend(sp.pl.domains(slide, column="cluster", show=False)[0])) == ["1", "2"]


def test_many_categories_have_different_colours():
    for n in (8, 9, 28, 60):
        assert len(set(category_colours(n))) == n
    with pytest.raises(ValueError, match="103 categories cannot be told apart"):
        category_colours(103)


def test_what_has_no_domains_is_refused(slides):
    with pytest.raises(ValueError, match="3 slides have nothing in common"):
        sp.pl.domains(slides)
    with pytest.raises(KeyError, match=r"ridge_domain.*not found.*spahgc.tl.domains"):
        sp.pl.domains(slides[0], key="ridge")
    with pytest.raises(KeyError, match="histology.*not found"):
        sp.pl.domains(slides[0], label="histology")
    slides[0].obs["empty"] = [None] * slides[0].n_obs
    with pytest.raises(ValueError, match="NaN or empty in all 50 spots"):
        sp.pl.domains(slides[0], label="empty")


# --------------------------------------------------------------------------------------------------------------------
# What all figures have in common

FIGURES = {
    "spatial_genes": lambda data, **settings: sp.pl.spatial_genes(data, "MORPH001", **settings),
    "support": sp.pl.support,
    "domains": sp.pl.domains,
}


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_saved_returned_and_leave_the_slide_alone(slide, tmp_path, name):
    before, settings = slide.copy(), dict(matplotlib.rcParams)
    assert isinstance(FIGURES[name](slide, return_fig=True), plt.Figure)
    FIGURES[name](slide, show=False, save=tmp_path / "figure.pdf")
    assert (tmp_path / "figure.pdf").read_bytes().startswith(b"%PDF")
    assert slide.obs.equals(before.obs) and set(slide.uns) == set(before.uns)
    assert dict(matplotlib.rcParams) == settings
    part = FIGURES[name](slide, crop_coord=part_of(slide), show=False)
    assert len(values(part[0])) < slide.n_obs
    with pytest.raises(ValueError, match="size must be above 0"):
        FIGURES[name](slide, size=0)
