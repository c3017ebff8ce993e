"""What the package writes says nothing of who wrote it: no login, no path, no name of a user."""

from __future__ import annotations

import base64
import importlib.util
import json
import logging
import os
import re
import subprocess
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anndata as ad
import h5py
import matplotlib
import numpy as np
import pandas as pd
import pytest
import zarr
from PIL import Image, PngImagePlugin
from safetensors.numpy import save_file

import spahgc as sp

TOKEN = "hf_ThisLoginMustNeverBeWrittenAnywhere"
USER = "jane_doe"
SECTIONS = ("A1", "B1", "C1")
KEY = "X_tiny"
IMAGE_PATH = re.compile(r"uns/spatial/[^/]+/metadata/source_image_path")
"""Where squidpy expects the path of a slide's image: the one place at which a path may stand."""
ZARR_METADATA = {"zarr.json", ".zattrs", ".zarray", ".zgroup", ".zmetadata"}
"""Of formats 3 and 2; all other files of a store are chunks of arrays."""
RUN_TIMEOUT_S = 300


# --- looking for words in files of every kind


@dataclass(frozen=True)
class Piece:
    """Content of a file, decoded, and where in the file it stands."""

    where: str
    content: bytes

    @property
    def may_hold_a_path(self) -> bool:
        return IMAGE_PATH.fullmatch(self.where) is not None


def as_bytes(value: Any) -> bytes:
    """Texts as they are written, numbers as they lie in memory."""
    array = np.asarray(value)
    if array.dtype.kind not in "OSUT":
        return array.tobytes()
    return "\n".join(item.decode() if isinstance(item, bytes) else str(item) for item in array.ravel()).encode()


def h5_pieces(path: Path) -> Iterator[Piece]:
    nodes: list[tuple[str, Any]] = []
    with h5py.File(path) as file:
        file.visititems(lambda name, node: nodes.append((name, node)))
        for where, node in [("", file), *nodes]:
            yield from (Piece(f"{where}@{name}", as_bytes(value)) for name, value in node.attrs.items())
            yield Piece(where, as_bytes(node[()]) if isinstance(node, h5py.Dataset) else b"")
    # And all the rest of the file, what was overwritten included.
    content = path.read_bytes()
    for where, node in h5_image_paths(path):
        content = content.replace(node, b"")
        assert node, where
    yield Piece("(bytes)", content)


def h5_image_paths(path: Path) -> list[tuple[str, bytes]]:
    """The values at the place of the exception."""
    with h5py.File(path) as file:
        names: list[str] = []
        file.visit(names.append)
        return [(name, as_bytes(file[name][()])) for name in names if IMAGE_PATH.fullmatch(name)]


def zarr_pieces(path: Path) -> Iterator[Piece]:
    group = zarr.open_group(path, mode="r")
    for where, node in [("", group), *group.members(max_depth=None)]:
        yield Piece(f"{where}@", json.dumps(dict(node.attrs), ensure_ascii=False).encode())
        yield Piece(where, as_bytes(node[...]) if isinstance(node, zarr.Array) else b"")
    for file in path.rglob("*"):
        if file.name in ZARR_METADATA:
            yield Piece(f"{file.relative_to(path)} (bytes)", file.read_bytes())


def png_pieces(path: Path) -> Iterator[Piece]:
    with Image.open(path) as image:
        image.load()  # texts may stand behind the pixels
        yield from (Piece(str(name), as_bytes(str(value))) for name, value in image.info.items())
    yield Piece("(bytes)", path.read_bytes())


def plain_pieces(path: Path) -> Iterator[Piece]:
    yield Piece("(bytes)", path.read_bytes())


READERS = {
    ".h5ad": h5_pieces,
    ".zarr": zarr_pieces,
    ".png": png_pieces,
    ".json": plain_pieces,
    ".csv": plain_pieces,
    ".safetensors": plain_pieces,
}
"""How to look into what the package writes; a file of another kind fails the test."""


def stores(folder: Path) -> list[Path]:
    """Files below a folder, and zarr stores as one."""
    found = []
    for path in sorted(folder.rglob("*")):
        inside = any(parent.suffix == ".zarr" for parent in path.relative_to(folder).parents)
        if path.suffix == ".zarr" or (path.is_file() and not inside):
            found.append(path)
    return found


def places_of(path: Path, words: list[str]) -> list[str]:
    """Where one of the words stands in a file or store, but for paths where they may stand."""
    found = []
    for piece in READERS[path.suffix](path):
        for word in words:
            is_login = word == TOKEN
            in_content = word.encode() in piece.content and (is_login or not piece.may_hold_a_path)
            if in_content or word in piece.where:
                found.append(f"{path.name}: {piece.where}: {word}")
    return found


# --- a run that writes all that the package can write


def write_all(home: Path) -> None:
    """What the process does that is watched: everything in the user's own folder, with a login for the hub."""
    import timm
    import torch

    from spahgc import cli

    logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
    logging.getLogger("numba").setLevel(logging.WARNING)  # writes down every instruction that it compiles
    torch.manual_seed(0)
    save_file(
        {name: part.numpy() for name, part in timm.create_model("test_vit", num_classes=0).state_dict().items()},
        home / "model.safetensors",
    )
    half = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bicubic", "pooling": "class token"}
    sp.encoders.register(
        "tiny", timm_name="test_vit", timm_kwargs={"num_classes": 0}, hub_id="lab/tiny", gated=True,
        dim=64, input_px=160, mpp=2.0, **half,
    )  # fmt: skip
    small = sp.Parameters(n_axes=3, line=True, width=16, layers=1, heads=2, epochs=1)
    out = home / "results"
    out.mkdir()

    slides = sp.datasets.her2st(home / "her2st")
    sp.pp.embed(slides, encoder="tiny", resume=out / "parts")
    target, *refs = slides
    for slide in refs:
        slide.write_h5ad(out / f"{slide.obs['slide'].iloc[0]}.h5ad")
    sp.pp.reference_bank(refs).write_h5ad(out / "bank.h5ad")
    sp.tl.fit(refs, preset=small).save(out / "model")
    sp.tl.predict(target, model=sp.SpaHGC.load(out / "model"))
    sp.tl.evaluate(target)
    sp.tl.domains(target, n_domains=2)
    target.write_h5ad(out / "target.h5ad", compression="gzip")
    target.write_zarr(out / "target.zarr")
    sp.tl.cross_validate(slides, methods=["nearest"], checkpoint=out / "folds")
    genes = list(target.var_names[target.var["spahgc_panel"]][:2])
    sp.pl.spatial_genes(target, genes, show=False, save=out / "genes.png")

    pixels = np.full((600, 800, 3), 245, dtype=np.uint8)
    pixels[:, :400] = (180, 110, 170)
    Image.fromarray(pixels).save(home / "case.png")
    sp.pp.tile(home / "case.png", mpp=1.0).write_h5ad(out / "tiles.h5ad")
    sp.io.slide(home / "case.png", spots=[[100, 100], [300, 200]], mpp=1.0).write_zarr(out / "slide.zarr")

    files = ["--target", out / "A1.h5ad", "--reference", out / "B1.h5ad", "--reference", out / "C1.h5ad"]
    sp.datasets.her2st(home / "her2st", sections=["A1"])[0].write_h5ad(out / "A1.h5ad")
    command(cli, "predict", *files, "--output", out / "no.h5ad", "--encoder", "uni")  # refused: nobody granted access
    command(cli, "predict", *files, "--output", out / "cli.h5ad", "--encoder", "tiny", "--method", "ridge")
    command(
        cli, "cross-validate", "--cohort", "her2st", "--path", home / "her2st", "--encoder", "tiny",
        "--method", "nearest", "--output", out / "cohort",
    )  # fmt: skip


def command(cli: Any, *arguments: object) -> None:
    try:
        cli.main([str(argument) for argument in arguments])
    except SystemExit as stopped:
        print("exit code", stopped.code or 0, file=sys.stderr)


@dataclass(frozen=True)
class Watched:
    """What the run left behind."""

    root: Path
    said: str
    logins: list[str]

    @property
    def home(self) -> Path:
        return self.root / "home" / USER

    @property
    def results(self) -> Path:
        return self.home / "results"

    @property
    def personal(self) -> list[str]:
        """Words that say who ran it, and where."""
        return [USER, str(self.root), sys.prefix, str(Path(sp.__file__).parent), str(Path(__file__).parent)]


def neighbour(name: str) -> Any:
    """A helper beside this file; pytest's import mode does not put the folder on the path."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    root = tmp_path_factory.mktemp("machine")
    home = root / "home" / USER
    neighbour("cohort_files").write_her2st(home / "her2st", SECTIONS)
    hub_server = neighbour("hub_server")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environment |= {"HOME": str(home), "USER": USER, "LOGNAME": USER, "MPLBACKEND": "agg", "no_proxy": "*"}
    environment["MPLCONFIGDIR"] = matplotlib.get_cachedir()  # the list of fonts takes long to make
    with hub_server.running_hub() as hub:
        hub.repos = {
            "lab/tiny": hub_server.Repo({"model.safetensors": home / "model.safetensors"}, gated=True, granted=True),
            "MahmoodLab/UNI": hub_server.Repo({}, gated=True),
        }
        environment |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(home / ".cache" / "huggingface"), "HF_TOKEN": TOKEN}
        done = subprocess.run(
            [sys.executable, __file__, str(home)],
            env=environment, cwd=home, capture_output=True, text=True, timeout=RUN_TIMEOUT_S,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return Watched(root, done.stdout + done.stderr, hub.logins)


def test_the_run_logged_in_and_wrote_files_of_every_kind(watched: Watched) -> None:
    """Nothing below says much if this does not hold."""
    assert set(watched.logins) == {f"Bearer {TOKEN}"}
    assert re.findall(r"exit code (\d)", watched.said) == ["2", "0", "0"]
    assert "has not been granted access" in watched.said and "DEBUG:" in watched.said
    written = {path.relative_to(watched.results).as_posix() for path in stores(watched.results)}
    assert {
        "bank.h5ad", "target.h5ad", "target.zarr", "slide.zarr", "tiles.h5ad", "genes.png", "cli.h5ad",
        "model/model.json", "model/network.safetensors", "model/bank.h5ad", "folds/inputs.json",
        "cohort/result.json", "cohort/scores.csv", "cohort/slides/A1.h5ad",
    } <= written  # fmt: skip
    assert {Path(name).suffix for name in written} == set(READERS), "a kind of file that nobody here looks into"
    assert len(list((watched.results / "parts").glob("*/*.safetensors"))) == len(SECTIONS)


def test_the_login_is_in_no_file(watched: Watched) -> None:
    places = [place for path in stores(watched.results) for place in places_of(path, [TOKEN])]
    everywhere = [path for path in watched.root.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]
    assert not places and not everywhere, [*places, *everywhere]


def test_the_login_is_in_nothing_that_was_printed_or_logged(watched: Watched) -> None:
    assert TOKEN not in watched.said
    assert "Bearer" not in watched.said


def test_no_path_and_no_name_of_the_user_is_in_anything_but_the_path_of_the_image(watched: Watched) -> None:
    places = [place for path in stores(watched.results) for place in places_of(path, watched.personal)]
    assert not places, "\n".join(places)
    names = [path.relative_to(watched.results).as_posix() for path in watched.results.rglob("*")]
    assert not [name for name in names if USER in name]


def test_a_model_and_a_bank_hold_no_path_at_all(watched: Watched) -> None:
    """Not even that of the image."""
    for path in (watched.results / "bank.h5ad", watched.results / "model" / "bank.h5ad"):
        assert not h5_image_paths(path)
        assert "spatial" not in ad.read_h5ad(path).uns
    for path in stores(watched.results / "model"):
        content = path.read_bytes()
        assert not [word for word in watched.personal if word.encode() in content]


def test_slides_do_name_their_image(watched: Watched) -> None:
    """Otherwise the exception made above would hide nothing, and was not tried."""
    for section in SECTIONS[1:]:
        ((_, path),) = h5_image_paths(watched.results / f"{section}.h5ad")
        assert Path(path.decode()).is_file() and USER in path.decode()


def test_the_password_of_a_mirror_is_in_no_file_and_no_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A download that broke off leaves a note on where it came from."""
    import pooch.core

    from spahgc.datasets import CohortUnavailableError
    from spahgc.datasets._download import RETRIES, Remote, retrieve

    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(pooch.core, "time", SimpleNamespace(sleep=lambda seconds: None))
    file, remote = tmp_path / "file.bin", Remote("https://host.org/file.bin")
    with neighbour("file_server").running_files() as server:
        server.content["host.org/file.bin"] = bytes(1_000_000)
        server.failures = ["cut", *["503"] * RETRIES]
        mirror = server.url.replace("://", f"://{USER}:{TOKEN}@")
        with pytest.raises(CohortUnavailableError) as broken:
            retrieve(remote, file, page="P", mirror=mirror)
        notes = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
        assert len(notes) == 2, "there is no part and no note"
        assert retrieve(remote, file, page="P", mirror=mirror).stat().st_size == 1_000_000
        assert "bytes=" in server.requests[-1], "the part was not recognised"
        server.failures = ["403"]
        with pytest.raises(CohortUnavailableError) as refused:
            retrieve(remote, tmp_path / "other.bin", page="P", mirror=mirror)
    login = base64.b64encode(f"{USER}:{TOKEN}".encode()).decode()
    assert set(server.logins) == {f"Basic {login}"} and len(server.logins) == len(server.requests)
    said = "".join([*traceback.format_exception(broken.value), *traceback.format_exception(refused.value), caplog.text])
    assert TOKEN not in said and login not in said
    assert not [note for note in notes if TOKEN.encode() in note or USER.encode() in note]


# --- the search finds what there is to find


def slide(text: str = "") -> ad.AnnData:
    adata = ad.AnnData(np.ones((3, 2), np.float32), obs=pd.DataFrame(index=["a", "b", "c"]))
    adata.uns["spahgc"] = {"note": text or "-"}
    adata.uns["spatial"] = {"S1": {"metadata": {"source_image_path": f"/home/{USER}/S1.tif"}}}
    return adata


def in_uns(path: Path, text: str) -> None:
    adata = slide(text)
    write(adata, path)


def in_obs(path: Path, text: str) -> None:
    adata = slide()
    adata.obs["source"] = pd.Categorical([text] * 3)
    write(adata, path)


def in_a_list(path: Path, text: str) -> None:
    adata = slide()
    adata.uns["spahgc"]["sources"] = ["S1", text]
    write(adata, path)


def in_a_key(path: Path, text: str) -> None:
    adata = slide()
    adata.uns["spahgc"][text.replace("/", "|")] = 1
    write(adata, path)


def in_bytes(path: Path, text: str) -> None:
    adata = slide()
    adata.uns["spahgc"]["pixels"] = np.frombuffer(text.encode(), dtype=np.uint8)
    write(adata, path)


def beside_the_image(path: Path, text: str) -> None:
    adata = slide()
    adata.uns["spatial"]["S1"]["metadata"]["folder"] = text
    write(adata, path)


def in_metadata(path: Path, text: str) -> None:
    save_file({"x": np.ones(2)}, path, metadata={"from": text})


def in_text(path: Path, text: str) -> None:
    path.write_text(json.dumps({"nested": [{"from": text}]}))


def in_a_comment(path: Path, text: str) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", text * 20, zip=True)
    Image.new("RGB", (4, 4)).save(path, pnginfo=info)


def write(adata: ad.AnnData, path: Path) -> None:
    adata.write_zarr(path) if path.suffix == ".zarr" else adata.write_h5ad(path, compression="gzip")


ANNDATA = [(kind, plant) for kind in (".h5ad", ".zarr") for plant in (in_uns, in_obs, in_a_list, in_bytes, in_a_key)]


@pytest.mark.parametrize(
    ("kind", "plant"),
    [
        *ANNDATA,
        (".h5ad", beside_the_image),
        (".zarr", beside_the_image),
        (".safetensors", in_metadata),
        (".json", in_text),
        (".csv", in_text),
        (".png", in_a_comment),
    ],
)
def test_the_search_finds_what_was_planted(tmp_path: Path, kind: str, plant: Any) -> None:
    plant(tmp_path / f"file{kind}", f"/home/{USER}/{TOKEN}.tif")
    found = places_of(tmp_path / f"file{kind}", [TOKEN, USER])
    assert {word for word in (TOKEN, USER) for place in found if place.endswith(word)} == {TOKEN, USER}, found


@pytest.mark.parametrize("kind", READERS)
def test_the_search_finds_nothing_where_nothing_is(tmp_path: Path, kind: str) -> None:
    plant = {".safetensors": in_metadata, ".json": in_text, ".csv": in_text, ".png": in_a_comment}.get(kind, in_uns)
    plant(tmp_path / f"file{kind}", "nothing")
    assert not places_of(tmp_path / f"file{kind}", [TOKEN, USER, str(tmp_path)])


@pytest.mark.parametrize("kind", [".h5ad", ".zarr"])
def test_a_login_is_found_even_where_a_path_may_stand(tmp_path: Path, kind: str) -> None:
    adata = slide()
    adata.uns["spatial"]["S1"]["metadata"]["source_image_path"] = f"https://{TOKEN}@host/S1.tif"
    write(adata, tmp_path / f"slide{kind}")
    assert places_of(tmp_path / f"slide{kind}", [TOKEN])


if __name__ == "__main__":
    sp.settings.progress, sp.settings.device = True, "cpu"
    write_all(Path(sys.argv[1]))
