"""Which reference spots a prediction listened to: the weights, the table, the figure."""

from __future__ import annotations

from dataclasses import replace

import anndata as ad
import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from PIL import Image
from scipy.sparse import csr_matrix

import spahgc as sp
from spahgc.encoders import Encoder, EncoderRecord
from spahgc.image import cut_patch, open_image
from spahgc.nn import CrossNodeAttention, predict_and_attend, predict_expression
from spahgc.tl import attribution

EMBEDDING = "X_sim"
K = 7
PATCH_PX = 224
TOLERANCE = 1e-5


def predict(target: ad.AnnData, model: sp.SpaHGC, key: str = "spahgc") -> ad.AnnData:
    """The slide, with the prediction of a model."""
    sp.tl.predict(target, model=model, key_added=key)
    return target


@pytest.fixture(scope="module")
def slides() -> list[ad.AnnData]:
    """Three slides with their images; the first is the target."""
    made = sp.datasets.simulated(n_slides=3, n_spots=40, n_genes=40, n_domains=3, seed=1)
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(3, 24))
    for slide in made:
        noise = rng.normal(scale=0.3, size=(slide.n_obs, 24))
        slide.obsm[EMBEDDING] = (np.asarray(slide.obsm["truth_domains"]) @ mixing + noise + 1).astype(np.float32)
        record = {"name": "sim", "dim": 24, "input_px": PATCH_PX, "mpp": "native", "interpolation": "bicubic"}
        slide.uns["spahgc"] = {"embeddings": {EMBEDDING: record}}
    return made


@pytest.fixture(scope="module")
def model(slides, quick) -> sp.SpaHGC:
    return sp.tl.fit(slides[1:], preset=replace(quick, n_networks=2))


@pytest.fixture(scope="module")
def _predicted(slides, model) -> ad.AnnData:
    return predict(slides[0].copy(), model)


@pytest.fixture
def target(_predicted):
    yield _predicted.copy()
    plt.close("all")


@pytest.fixture
def refs(slides) -> list[ad.AnnData]:
    return [slide.copy() for slide in slides[1:]]


def graph_of(model: sp.SpaHGC, target: ad.AnnData):
    """The heterogeneous graph of the target on which the model predicts, and the numbers of its training."""
    features, _ = model.node_features.transform(model._target_spots(target))
    graph = model.graph(features, np.asarray(target.obsm["spatial"], float), model.cross_graph(target), "cpu")
    return graph, model.parameters


# The weights


def cross_attention(*inputs) -> torch.Tensor:
    return predict_and_attend(*inputs)[1]


def test_weights_of_every_layer_and_the_pooling_sum_to_one_at_each_target_spot(target, model):
    graph, settings = graph_of(model, target)
    weights = cross_attention(model.networks[0], graph, settings)
    assert weights.shape == (model.parameters.layers + 1, K * target.n_obs)
    for row in weights:
        sums = torch.zeros(target.n_obs).index_add(0, graph.cs.receiver, row)
        torch.testing.assert_close(sums, torch.ones(target.n_obs))


def test_weights_are_those_that_the_prediction_used(target, model, monkeypatch):
    network = model.networks[0]
    graph, settings = graph_of(model, target)
    weights = cross_attention(network, graph, settings)
    attend, used = CrossNodeAttention.forward, {}

    def spy(self, *inputs):
        attended = attend(self, *inputs)
        used[self] = attended.weights.mean(dim=1)
        return attended

    monkeypatch.setattr(CrossNodeAttention, "forward", spy)
    predict_expression(network, graph, settings)
    parts = [layer.cs.to_target for layer in network.layers] + [network.pooling.attention]
    torch.testing.assert_close(weights, torch.stack([used[part] for part in parts]), rtol=0, atol=0)


def test_listening_leaves_the_prediction_and_the_network_as_they_were(target, model):
    network = model.networks[0]
    graph, settings = graph_of(model, target)
    before = predict_expression(network, graph, settings)
    cross_attention(network, graph, settings)
    torch.testing.assert_close(predict_expression(network, graph, settings), before, rtol=0, atol=0)
    assert not any(module._forward_hooks for module in network.modules())


def test_attention_lies_on_the_edges_of_the_cross_graph(target, model):
    cross = model.cross_graph(target)
    before = cross.copy()
    attention = model.attention(target, cross=cross)
    np.testing.assert_array_equal(cross.data, before.data)
    np.testing.assert_array_equal(attention.indices, cross.indices)
    np.testing.assert_array_equal(attention.indptr, cross.indptr)
    np.testing.assert_allclose(attention.sum(axis=1), 1, rtol=TOLERANCE)
    assert attention.dtype == np.float32
    np.testing.assert_array_equal(model.attention(target).data, attention.data)


def test_attention_is_the_mean_over_the_networks(target, model):
    graph, settings = graph_of(model, target)
    parts = [cross_attention(network, graph, settings).mean(0).numpy() for network in model.networks]
    assert not np.allclose(parts[0], parts[1], atol=1e-6)
    np.testing.assert_allclose(model.attention(target).data, np.mean(parts, axis=0), rtol=TOLERANCE)


def test_a_model_without_networks_has_no_attention(slides):
    model = sp.tl.fit(slides[1:], preset=sp.Parameters(n_axes=8, n_around=0, line=True, epochs=0))
    target = slides[0].copy()
    with pytest.raises(ValueError, match="no network"):
        model.attention(target)
    target.obsm["spahgc_attention"] = csr_matrix((target.n_obs, 3))
    predict(target, model)
    assert "spahgc_attention" not in target.obsm
    with pytest.raises(ValueError, match="0 epochs"):
        attribution(target, 0)


# The table


def test_table_lists_the_retrieved_spots_with_the_cosine_of_their_embeddings(target, refs):
    table = attribution(target, 5)
    by_name = {slide.obs["slide"].iloc[0]: slide for slide in refs}
    own = target.obsm[EMBEDDING][5]
    for row in table.itertuples():
        other = by_name[row.slide][row.spot].obsm[EMBEDDING][0]
        cosine = own @ other / np.linalg.norm(own) / np.linalg.norm(other)
        assert row.similarity == pytest.approx(cosine, abs=TOLERANCE)
    everyone = np.concatenate([slide.obsm[EMBEDDING] for slide in refs])
    cosines = everyone @ own / np.linalg.norm(own) / np.linalg.norm(everyone, axis=1)
    np.testing.assert_allclose(np.sort(table["similarity"]), np.sort(cosines)[-K:], rtol=TOLERANCE)


def test_table_is_in_the_order_of_attention_and_sums_to_one(target, model):
    table = attribution(target, 5)
    assert list(table.columns) == ["rank", "slide", "spot", "similarity", "attention"]
    assert list(table["rank"]) == list(range(1, K + 1))
    assert table["attention"].is_monotonic_decreasing
    assert table["attention"].sum() == pytest.approx(1, abs=TOLERANCE)
    columns = model.bank.obs_names.get_indexer(table["slide"] + ":" + table["spot"])
    np.testing.assert_array_equal(table["attention"], model.attention(target).toarray()[5, columns])


def test_a_spot_is_named_or_counted(target):
    by_name = attribution(target, target.obs_names[5])
    assert by_name.equals(attribution(target, 5))
    assert by_name.equals(attribution(target, np.int64(5)))
    assert not by_name.equals(attribution(target, 6))


def test_slides_get_the_sum_over_their_spots(target):
    spots = attribution(target, 5)
    slides = attribution(target, 5, by="slide")
    assert list(slides.columns) == ["rank", "slide", "n_spots", "similarity", "attention"]
    assert slides["attention"].is_monotonic_decreasing
    assert list(slides["rank"]) == list(range(1, len(slides) + 1))
    assert set(slides["slide"]) == set(spots["slide"])
    for row in slides.itertuples():
        own = spots[spots["slide"] == row.slide]
        assert row.n_spots == len(own)
        assert row.attention == pytest.approx(own["attention"].sum())
        assert row.similarity == pytest.approx(own["similarity"].mean())


def test_names_with_colons_are_taken_apart_at_the_slide(slides, quick):
    target, *refs = (slide.copy() for slide in slides)
    for slide, name in zip(refs, ["a", "a:b"], strict=True):
        slide.obs["slide"] = name
        slide.obs_names = [f"{name}:{i}" for i in range(slide.n_obs)]
    predict(target, sp.tl.fit(refs, preset=quick))
    spots = {slide.obs["slide"].iloc[0]: set(slide.obs_names) for slide in refs}
    rows = [row for spot in range(10) for row in attribution(target, spot).itertuples()]
    assert {row.slide for row in rows} == {"a", "a:b"}
    assert all(row.spot in spots[row.slide] for row in rows)


@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
def test_table_survives_a_file(target, tmp_path, kind):
    path = tmp_path / f"target.{kind}"
    getattr(target, f"write_{kind}")(path)
    back = getattr(ad, f"read_{kind}")(path)
    assert attribution(back, 5).equals(attribution(target, 5))


def test_spots_keep_their_rows_in_a_part_of_the_slide(target):
    part = target[[9, 5, 2]].copy()
    assert attribution(part, 1).equals(attribution(target, 5))


def test_every_prediction_has_its_own_graph(target, slides, quick):
    before = attribution(target, 5)
    predict(target, sp.tl.fit(slides[2:], preset=quick), "other")
    assert set(attribution(target, 5, key="other")["slide"]) == {slides[2].obs["slide"].iloc[0]}
    assert attribution(target, 5).equals(before)


def test_unknown_spots_and_ways_to_list_are_refused(target):
    with pytest.raises(KeyError, match='"nowhere" not found in the slide'):
        attribution(target, "nowhere")
    with pytest.raises(KeyError, match="spot 40 not found: the slide has 40 spots, 0 to 39"):
        attribution(target, 40)
    with pytest.raises(TypeError, match="a name or a position, found float"):
        attribution(target, 1.5)
    with pytest.raises(ValueError, match='Choose one of "spot", "slide"'):
        attribution(target, 5, by="patient")


def test_predictions_without_a_graph_are_refused(slides, target):
    fresh = slides[0].copy()
    with pytest.raises(KeyError, match=r"predictions are: none\. Run spahgc\.tl\.predict"):
        attribution(fresh, 0)
    sp.tl.predict(target, slides[1:], method="nearest")  # in the place of the network's
    with pytest.raises(ValueError, match='method="nearest", which has no graph'):
        attribution(target, 0)


def test_a_graph_that_is_gone_or_was_overwritten_is_refused(target, model):
    without = target.copy()
    del without.obsm["spahgc_attention"]
    with pytest.raises(KeyError, match="spahgc_attention.*not found: an earlier version"):
        attribution(without, 0)
    sp.pp.cross_graph(target, model.bank, n_neighbors=3)
    with pytest.raises(ValueError, match="do not have the same edges"):
        attribution(target, 0)


# The figure


def image_of(slide: ad.AnnData) -> np.ndarray:
    (library,) = slide.uns["spatial"].values()
    return library["images"]["hires"]


def patch_of(slide: ad.AnnData, spot: str, width_px: float = PATCH_PX) -> np.ndarray:
    center = slide.obsm["spatial"][slide.obs_names.get_loc(spot)]
    return cut_patch(open_image(image_of(slide)), center, width_px=width_px, out_px=PATCH_PX)[0]


def pixels(ax) -> np.ndarray:
    (image,) = ax.get_images()
    return np.asarray(image.get_array())


def texts(ax) -> list[str]:
    return [text.get_text() for text in ax.texts]


def draw(target: ad.AnnData, spot: int = 5, refs=None, **settings) -> list:
    return sp.pl.attribution(target, spot, refs, show=False, **settings)


def test_figure_shows_the_very_pixels_of_the_spots_in_the_order_of_attention(target, refs):
    _, own, _, *frames = draw(target, refs=refs)
    np.testing.assert_array_equal(pixels(own), patch_of(target, target.obs_names[5]))
    table = attribution(target, 5).head(6)
    by_name = {slide.obs["slide"].iloc[0]: slide for slide in refs}
    assert len(frames) == 6
    for ax, row in zip(frames, table.itertuples(), strict=True):
        np.testing.assert_array_equal(pixels(ax), patch_of(by_name[row.slide], row.spot))
        assert ax.get_title() == (
            f"{row.rank}. {row.slide}\nattention {row.attention:.3f}\nsimilarity {row.similarity:.2f}"
        )


def test_ring_lies_on_the_spot(target, refs):
    place = draw(target, refs=refs)[0]
    rings = [collection for collection in place.collections if len(collection.get_offsets()) == 1]
    assert len(rings) == 2  # the colour on white
    for ring in rings:
        np.testing.assert_allclose(ring.get_offsets()[0], target.obsm["spatial"][5])  # tissue_hires_scalef is 1


def test_bars_are_the_weights_of_the_slides_in_the_colour_of_their_frames(target, refs):
    _, _, bars, *frames = draw(target, refs=refs)
    slides = attribution(target, 5, by="slide")
    np.testing.assert_allclose([bar.get_width() for bar in bars.patches], slides["attention"], rtol=TOLERANCE)
    assert texts(bars) == [f"{row.slide} {row.attention:.2f}" for row in slides.itertuples()]
    colours = {
        row.slide: to_hex(bar.get_facecolor()) for row, bar in zip(slides.itertuples(), bars.patches, strict=True)
    }
    assert len(set(colours.values())) == len(slides)
    for ax, slide in zip(frames, attribution(target, 5)["slide"], strict=False):
        assert to_hex(ax.spines["left"].get_edgecolor()) == colours[slide]


def test_patches_are_as_wide_as_they_were_embedded_or_as_asked(target, refs):
    mpp = next(iter(target.uns["spatial"].values()))["scalefactors"]["microns_per_pixel"]
    asked = draw(target, refs=refs, patch_um=100.0, n=1)
    np.testing.assert_array_equal(pixels(asked[1]), patch_of(target, target.obs_names[5], 100 / mpp))
    target.uns["spahgc"] |= {"patch_um": {EMBEDDING: 50.0}, "slide_mpp": mpp}
    np.testing.assert_array_equal(pixels(draw(target, n=1)[1]), patch_of(target, target.obs_names[5], 50 / mpp))
    del target.uns["spahgc"]["embeddings"], target.uns["spahgc"]["patch_um"]
    with pytest.raises(ValueError, match="width of the patches .* is not known.*Pass patch_um="):
        draw(target)


class Watching(torch.nn.Module):
    """An encoder that keeps the patches it sees, and gives their mean colours."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[torch.Tensor] = []

    def forward(self, x):
        self.seen.append(x.clone())
        return torch.nn.functional.adaptive_avg_pool2d(x, 4).flatten(1)


def halved(patch: np.ndarray) -> np.ndarray:
    return patch // 2


def embedded_as(slides, stain) -> tuple[list[ad.AnnData], list[np.ndarray]]:
    """Fresh slides embedded with a stain normalisation, and for each the patches that the encoder saw."""
    fields = ("watching", "1", 48, 32, None, (0.0,) * 3, (1.0,) * 3, "area", "mean", "fp32", "patch")
    fresh, seen = [slide.copy() for slide in slides], []
    for slide in fresh:
        del slide.obsm[EMBEDDING], slide.uns["spahgc"]
        module = Watching()
        sp.pp.embed(slide, encoder=Encoder(EncoderRecord(*fields), module), stain_normalization=stain, device="cpu")
        patches = torch.cat(module.seen)[: slide.n_obs]
        seen.append(np.rint(patches.numpy().transpose(0, 2, 3, 1) * 255).astype(np.uint8))
    return fresh, seen


@pytest.mark.parametrize("stain", ["macenko", "reinhard"])
def test_patches_of_normalised_stain_are_those_that_the_encoder_saw(slides, quick, stain, tmp_path):
    (target, *refs), (seen, *others) = embedded_as(slides, stain)
    predict(target, sp.tl.fit(refs, preset=quick))
    target.write_h5ad(tmp_path / "target.h5ad")
    target = ad.read_h5ad(tmp_path / "target.h5ad")
    _, own, _, *frames = draw(target, refs=refs)
    np.testing.assert_array_equal(pixels(own), seen[5])
    assert (seen[5] != patches_as_scanned(target)[5]).any()
    assert own.get_title().endswith(f"stain: {stain}")
    by_name = {slide.obs["slide"].iloc[0]: (slide, patches) for slide, patches in zip(refs, others, strict=True)}
    for ax, row in zip(frames, attribution(target, 5).itertuples(), strict=False):
        slide, patches = by_name[row.slide]
        np.testing.assert_array_equal(pixels(ax), patches[slide.obs_names.get_loc(row.spot)])
        assert "as scanned" not in ax.get_title()


def patches_as_scanned(slide: ad.AnnData) -> list[np.ndarray]:
    image = open_image(image_of(slide))
    centers = slide.obsm["spatial"]
    return [cut_patch(image, center, width_px=32, out_px=32, interpolation="area")[0] for center in centers]


def test_patches_of_a_normalisation_that_is_not_kept_are_called_as_scanned(slides, quick):
    (target, *refs), (seen, *_) = embedded_as(slides, halved)
    predict(target, sp.tl.fit(refs, preset=quick))
    _, own, _, *frames = draw(target, refs=refs)
    np.testing.assert_array_equal(pixels(own), patches_as_scanned(target)[5])
    assert (pixels(own) != seen[5]).any()
    assert all(ax.get_title().endswith("\nas scanned") for ax in [own, *frames])


def test_patches_that_were_not_normalised_say_nothing_of_a_stain(target, refs):
    _, own, _, *frames = draw(target, refs=refs)
    assert not any("stain" in ax.get_title() or "scanned" in ax.get_title() for ax in [own, *frames])


def test_references_without_an_image_leave_frames_that_say_so(target, refs, recwarn):
    frames = draw(target)[3:]
    assert not recwarn
    assert all(texts(ax) == ["no image"] and not ax.get_images() for ax in frames)
    names = attribution(target, 5)["slide"].head(6)
    blind = names.iloc[0]
    for slide in refs:
        if slide.obs["slide"].iloc[0] == blind:
            del slide.uns["spatial"]
    with pytest.warns(UserWarning, match=f'no full-resolution image of reference "{blind}"'):
        frames = draw(target, refs=refs)[3:]
    assert [texts(ax) == ["no image"] for ax in frames] == [name == blind for name in names]
    assert [bool(ax.get_images()) for ax in frames] == [name != blind for name in names]


def test_image_of_the_target_is_needed_and_may_be_passed(target, refs, tmp_path):
    image, expected = image_of(target), patch_of(target, target.obs_names[5])
    del target.uns["spatial"]
    with pytest.raises(ValueError, match="no full-resolution image is known"):
        draw(target, refs=refs)
    np.testing.assert_array_equal(pixels(draw(target, refs=refs, image=image, n=1)[1]), expected)
    Image.fromarray(image).save(tmp_path / "image.png")
    axes = draw(target, refs=refs, image=tmp_path / "image.png", n=1)
    np.testing.assert_array_equal(pixels(axes[1]), expected)
    assert not axes[0].get_images()  # the spots alone: uns names no picture of the tissue
    assert not axes[0].collections[0].get_array().mask.any()


def test_references_of_another_prediction_are_refused(target, refs, model):
    with pytest.raises(ValueError, match="a bank, which holds no images"):
        draw(target, refs=model.bank)
    with pytest.raises(ValueError, match="none of refs is a reference of the prediction"):
        draw(target, refs=target)
    first = attribution(target, 5).iloc[0]
    lost = [slide[slide.obs_names != first["spot"]].copy() for slide in refs]
    with pytest.raises(KeyError, match=f'"{first["spot"]}" not found in reference "{first["slide"]}"'):
        draw(target, refs=lost)


def test_no_more_references_are_drawn_than_were_retrieved(target, refs):
    assert len(draw(target, refs=refs, n=50)) == 3 + K
    assert len(draw(target, refs=refs, n=1)) == 4
    with pytest.raises(ValueError, match="n is 0; pass a whole number"):
        draw(target, refs=refs, n=0)


def test_figure_goes_where_it_is_sent_and_the_slide_stays_as_it_was(target, refs, tmp_path):
    before = {name: matrix.copy() for name, matrix in target.obsm.items()}, sorted(target.uns["spahgc"])
    path = tmp_path / "attribution.png"
    assert sp.pl.attribution(target, 5, refs, n=2, save=path, return_fig=True) is not None
    assert path.stat().st_size > 0
    assert set(before[0]) == set(target.obsm)
    assert before[1] == sorted(target.uns["spahgc"])
    with pytest.raises(FileNotFoundError, match="does not exist"):
        draw(target, refs=refs, save=tmp_path / "nowhere" / "x.png")


def test_axes_of_the_caller_are_drawn_on(target, refs):
    given = plt.subplots(1, 5)[1]
    assert draw(target, refs=refs, n=2, ax=given) == list(given)
    with pytest.raises(ValueError, match=r"ax must hold 6 axes .* found 5"):
        draw(target, refs=refs, n=3, ax=given)
