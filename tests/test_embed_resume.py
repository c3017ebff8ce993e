"""Runs that were stopped: they go on where they were killed, twice nothing is computed, and the numbers are the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import tifffile
import torch
from torch import nn

import spahgc as sp
from spahgc._validate import embedding_matrix
from spahgc.encoders import Encoder, EncoderRecord
from spahgc.pp import Context

embed_patch = partial(sp.pp.embed, context=False)
"""The patch alone, which is what these tests are about; what stands beside it by default: test_context.py."""

KEY = "X_small"
BATCH = 8
N_SPOTS = 44
RECORD = EncoderRecord("small", "1", 12, 32, None, (0.5,) * 3, (0.2,) * 3, "bicubic", "mean", "fp32", "patch")


class Small(nn.Module):
    """A convolutional network that writes down how many patches it is given, and hangs before a batch if it is told to."""

    def __init__(self, log: Path | None = None, hang_at: int | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(
            nn.Conv2d(3, 6, 5, 2), nn.ReLU(), nn.Conv2d(6, 12, 5, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        self.log, self.hang_at, self.calls = log, hang_at, 0

    def forward(self, x):
        if self.calls == self.hang_at:
            self.log.with_name("hangs").touch()
            time.sleep(60)
        self.calls += 1
        if self.log is not None:
            with self.log.open("a") as file:
                file.write(f"{len(x)}\n")
        return self.net(x)


def encoder(log: Path | None = None, **options) -> Encoder:
    return Encoder(RECORD, Small(log, **options))


def slide(name: str = "S", seed: int = 0, n: int = N_SPOTS) -> ad.AnnData:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    spatial = {name: {"images": {"hires": pixels}, "scalefactors": {"tissue_hires_scalef": 1.0}}}
    return ad.AnnData(
        np.ones((n, 2), np.float32), obsm={"spatial": rng.uniform(10, [310, 230], (n, 2))}, uns={"spatial": spatial}
    )


def embed(data, folder, log=None, **options):
    return embed_patch(data, encoder=encoder(log), **{"batch_size": BATCH, "resume": folder, "device": "cpu"} | options)


def columns(adata: ad.AnnData) -> np.ndarray:
    """All that the embedding shows."""
    return embedding_matrix(adata, KEY, "the slide")


def counted(log: Path) -> list[int]:
    return [int(line) for line in log.read_text().split()] if log.exists() else []


def parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/spots-*"))


@pytest.fixture
def log(tmp_path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "parts"


@pytest.fixture
def first_run(folder) -> ad.AnnData:
    adata = slide()
    embed(adata, folder)
    return adata


def killed_run(folder: Path) -> None:
    """What the process that is killed does: two slides, and it hangs before the third batch of the second."""
    network = encoder(folder.parent / "log", hang_at=-(-N_SPOTS // BATCH) + 2)
    slides = [slide("first", 1), slide("second", 2)]
    embed_patch(slides, encoder=network, batch_size=BATCH, resume=folder, device="cpu")


def test_a_run_that_is_killed_goes_on_computes_no_spot_twice_and_gives_the_same_bits(folder, log):
    process = subprocess.Popen([sys.executable, __file__, str(folder)])
    try:
        while not (folder.parent / "hangs").exists():
            assert process.poll() is None, "the run ended before it got to where it hangs"
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    finally:
        process.kill()
    before = counted(log)
    assert sum(before) == N_SPOTS + 2 * BATCH

    slides = [slide("first", 1), slide("second", 2)]
    embed(slides, folder, log)
    assert sum(counted(log)) == 2 * N_SPOTS
    for found, expected in zip(slides, [slide("first", 1), slide("second", 2)], strict=True):
        embed_patch(expected, encoder=encoder(), batch_size=BATCH, device="cpu")
        np.testing.assert_array_equal(columns(found), columns(expected))
        assert found.obs.equals(expected.obs)
        assert found.uns["spahgc"]["embeddings"] == expected.uns["spahgc"]["embeddings"]


def test_a_finished_run_computes_nothing_again(first_run, folder, log):
    again = slide()
    embed(again, folder, log)
    assert counted(log) == []
    np.testing.assert_array_equal(columns(again), columns(first_run))
    assert again.obs["spahgc_patch_padded"].equals(first_run.obs["spahgc_patch_padded"])


def test_only_what_is_missing_is_computed_in_the_same_batches(first_run, folder, log):
    parts(folder)[1].unlink()
    parts(folder)[-1].unlink()
    again = slide()
    embed(again, folder, log)
    assert counted(log) == [BATCH, N_SPOTS % BATCH]
    np.testing.assert_array_equal(columns(again), columns(first_run))


def test_another_batch_size_takes_what_is_there(first_run, folder, log):
    parts(folder)[2].unlink()
    again = slide()
    embed(again, folder, log, batch_size=BATCH * 2 + 3)
    assert sum(counted(log)) == BATCH
    np.testing.assert_allclose(columns(again), columns(first_run), atol=1e-5)


def test_all_scales_of_a_context_are_kept(folder, log):
    first, again = slide(), slide()
    context = Context(scales=(1, 2), depths=0, rotations=4)
    embed(first, folder, context=context)
    parts(folder)[0].unlink()
    embed(again, folder, log, context=context)
    # One pass for the patch itself, which stays upright, and four for the wider one.
    assert counted(log) == [BATCH] * 5
    np.testing.assert_array_equal(columns(again), columns(first))
    np.testing.assert_array_equal(again.obs["spahgc_context_padded"], first.obs["spahgc_context_padded"])


def other_pixels(adata):
    adata.uns["spatial"]["S"]["images"]["hires"][100, 100] ^= 1


def moved(adata):
    adata.obsm["spatial"][5] += 0.5


def reordered(adata):
    adata.obsm["spatial"] = adata.obsm["spatial"][::-1].copy()


def darker(patch):
    return patch // 2


@pytest.mark.parametrize(
    ("change", "options"),
    [
        (other_pixels, {}),
        (moved, {}),
        (reordered, {}),
        (None, {"encoder": Encoder(replace(RECORD, revision="2"), Small())}),
        (None, {"encoder": Encoder(replace(RECORD, mean=(0.4,) * 3), Small())}),
        (None, {"mpp": 0.5, "patch_um": 20}),
        (None, {"context": Context(scales=(1,), depths=0, rotations=4)}),
        (None, {"context": Context(scales=(1, 2), depths=0, rotations=1)}),
        (None, {"stain_normalization": "reinhard"}),
        (None, {"stain_normalization": darker}),
    ],
    ids=["pixel", "moved", "order", "weights", "normalisation", "width", "same", "context", "reinhard", "function"],
)
@pytest.mark.filterwarnings("ignore:the folder")
def test_what_was_made_with_other_inputs_is_not_taken(first_run, folder, change, options):
    adata, alone = slide(), slide()
    for one in (adata, alone):
        if change is not None:
            change(one)
    options = {"encoder": encoder(), "batch_size": BATCH, "device": "cpu"} | options
    same = options.get("context") == Context(scales=(1,), depths=0, rotations=4)
    before = len(parts(folder))
    embed_patch(adata, resume=folder, **options)
    assert (len(parts(folder)) == before) is same
    embed_patch(alone, **options)
    np.testing.assert_array_equal(columns(adata), columns(alone))


@pytest.mark.filterwarnings("ignore:the folder")
def test_a_transform_of_the_users_is_part_of_the_inputs(folder, log):
    def pair(shift):
        return Small(log), lambda image: torch.from_numpy(np.array(image)).permute(2, 0, 1)[:, ::7, ::7] / 255 + shift

    for shift, calls in ((0.0, 1), (0.0, 0), (0.5, 1)):
        log.unlink(missing_ok=True)
        adata = slide(n=5)
        embed_patch(adata, encoder=pair(shift), resume=folder, device="cpu", mpp=1.0, patch_um=30)
        # A module of the user's sees one blank patch when it is loaded.
        assert counted(log) == [1] + [5] * calls


def test_parts_that_cannot_be_used_are_told_with_what_differs(first_run, folder):
    with pytest.warns(
        UserWarning, match=r'"S_X-small_\w+" of resume= holds parts of slide "S".*\(patch_width_px, encoder'
    ):
        embed(slide(), folder, mpp=0.5, patch_um=20)


def test_other_slides_and_encoders_share_the_folder_without_a_word(first_run, folder, recwarn):
    embed(slide("S", seed=9), folder)
    embed(slide(), folder, key_added="X_other")
    assert not [warning for warning in recwarn if issubclass(warning.category, UserWarning)]
    assert len({path.parent for path in parts(folder)}) == 3


@pytest.mark.parametrize("damage", [lambda data: data[:100], lambda data: data[:-1] + bytes([data[-1] ^ 1])])
def test_a_damaged_part_is_told_and_computed_again(first_run, folder, log, damage):
    part = parts(folder)[1]
    part.write_bytes(damage(part.read_bytes()))
    again = slide()
    with pytest.warns(UserWarning, match="is damaged .*; its spots are computed again") as warned:
        embed(again, folder, log)
    assert warned[0].filename == __file__
    assert counted(log) == [BATCH]
    np.testing.assert_array_equal(columns(again), columns(first_run))


def test_a_file_that_was_moved_is_the_same_image(tmp_path, folder, log):
    pixels = slide().uns["spatial"]["S"]["images"]["hires"]
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        tifffile.imwrite(tmp_path / name / "slide.tif", pixels, photometric="rgb", tile=(64, 64))
    embed(slide(), folder, image=tmp_path / "here" / "slide.tif")
    embed(slide(), folder, log, image=tmp_path / "there" / "slide.tif")
    assert counted(log) == []
    pixels[70, 70] ^= 1
    tifffile.imwrite(tmp_path / "there" / "slide.tif", pixels, photometric="rgb", tile=(64, 64))
    with pytest.warns(UserWarning, match=r"other inputs \(image\b"):
        embed(slide(), folder, log, image=tmp_path / "there" / "slide.tif")
    assert sum(counted(log)) == N_SPOTS


def test_no_path_is_written(tmp_path, folder):
    adata = slide()
    tifffile.imwrite(tmp_path / "slide.tif", adata.uns["spatial"]["S"]["images"]["hires"], photometric="rgb")
    embed(adata, folder, image=tmp_path / "slide.tif", stain_normalization=darker)
    texts = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    texts.append(json.dumps(adata.uns["spahgc"], default=str).encode())
    assert len(texts) == 2 + -(-N_SPOTS // BATCH)
    for text in texts:
        assert str(tmp_path).encode() not in text and b"slide.tif" not in text


def test_a_folder_that_cannot_be_written_is_refused_before_the_encoder_is_loaded(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="cannot be written"):
        embed_patch(slide(), encoder="efficientnet_lite0", mpp=0.7, resume=tmp_path / "file", device="cpu")


# --- the thread that cuts


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("spahgc")]


@pytest.mark.parametrize("n_workers", [1, 3])
def test_patches_are_cut_while_the_encoder_is_at_work(n_workers):
    cut, seen = [], []

    image = WithLog(cut)
    network = Small()
    adata = slide(n=24)

    def forward(x):
        time.sleep(0.2)
        seen.append(len(cut))
        return torch.zeros(len(x), 12)

    network.forward = forward
    embed_patch(adata, encoder=Encoder(RECORD, network), image=image, batch_size=8, n_workers=n_workers, device="cpu")
    # At the end of a batch the next one has been cut, and no more than that.
    compared = image.log.count("MainThread")  # with the small picture of the slide, before anything is cut
    assert [n - compared for n in seen] == [16, 24, 24]


class WithLog:
    """A white image that writes down which regions were read, and fails at one of them."""

    height, width, mpp = 240, 320, None

    def __init__(self, log: list, fail_at: int | None = None) -> None:
        self.log, self.fail_at = log, fail_at
        self.closed = False

    def read(self, left, top, width, height):
        assert not self.closed
        if self.fail_at is not None and len(self.log) >= self.fail_at:
            raise OSError("the disk is gone")
        self.log.append(threading.current_thread().name)
        return np.full((height, width, 3), 255, np.uint8)

    def close(self):
        self.closed = True

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


@pytest.mark.parametrize("n_workers", [1, 3])
def test_an_error_of_a_thread_arrives_with_its_message_and_leaves_nothing_behind(n_workers):
    image = WithLog([], fail_at=20)
    adata = slide(n=24)
    with pytest.raises(OSError, match="the disk is gone"):
        embed_patch(adata, encoder=encoder(), image=image, batch_size=8, n_workers=n_workers, device="cpu")
    assert KEY not in adata.obsm and "spahgc" not in adata.uns
    assert threads() == []


@pytest.mark.parametrize("n_workers", [1, 3])
def test_an_interrupt_stops_the_threads_before_their_next_patches(n_workers):
    class Slow(WithLog):
        def read(self, *region):
            time.sleep(0.01)
            return super().read(*region)

    network, image = Small(), Slow([])

    def forward(x):
        raise KeyboardInterrupt

    network.forward = forward
    with pytest.raises(KeyboardInterrupt):
        embed_patch(
            slide(n=200),
            encoder=Encoder(RECORD, network),
            image=image,
            batch_size=50,
            n_workers=n_workers,
            device="cpu",
        )
    # The first batch, and little of the second.
    cut = [thread for thread in image.log if thread != "MainThread"]  # which compares the small picture of the slide
    assert 50 <= len(cut) < 90
    assert set(cut) == {f"spahgc-patches_{number}" for number in range(n_workers)}
    assert threads() == []


if __name__ == "__main__":
    killed_run(Path(sys.argv[1]))
