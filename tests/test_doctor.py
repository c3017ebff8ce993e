"""What ``spahgc doctor`` says of a machine is what the machine does."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from typing import Any

import huggingface_hub.constants as hub_constants
import pytest

import spahgc as sp
from spahgc import cli
from spahgc.cli import _encoder_status, _system_info
from spahgc.cli._system_info import Compute, Device, cgroup_limits, folder, problems, system_info
from spahgc.encoders import EncoderUnavailableError
from spahgc.encoders._cards import CARDS

TOKEN = "hf_neverToBeShown0123456789"
FILE = "model.safetensors"
TINY = {
    "timm_name": "test_vit",
    "timm_kwargs": {"num_classes": 0},
    "dim": 64,
    "input_px": 160,
    "mean": (0.5,) * 3,
    "std": (0.5,) * 3,
    "interpolation": "bicubic",
    "pooling": "class token",
}
ENCODERS = ("open", "locked", "granted", "unknown", "down")


def _hub_server() -> Any:
    """Load the helper by its path: with ``--import-mode=importlib`` tests cannot import their neighbours."""
    spec = importlib.util.spec_from_file_location("hub_server", Path(__file__).with_name("hub_server.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules["hub_server"] = module
    spec.loader.exec_module(module)
    return module


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command."""
    with pytest.raises(SystemExit) as stopped:
        cli.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    code = stopped.value.code
    return (0 if code is None else int(code)), captured.out, captured.err


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import timm
    from safetensors.torch import save_file

    path = tmp_path_factory.mktemp("weights") / FILE
    save_file(timm.create_model("test_vit", pretrained=False, num_classes=0).state_dict(), path)
    return path


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Make a hub of an address, with an empty cache and nobody logged in."""

    def point(url: str, *, offline: bool = False) -> None:
        monkeypatch.setattr(hub_constants, "ENDPOINT", url)
        template = url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(hub_constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", offline)

    monkeypatch.setattr(hub_constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(hub_constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(sp.settings, "cache_dir", tmp_path / "cache")
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "*")
    return point


@pytest.fixture
def registered() -> Iterator[None]:
    """Small encoders of every kind of repository."""
    before = dict(CARDS)
    for name in ENCODERS:
        sp.encoders.register(name, hub_id=f"lab/{name}", filename=FILE, gated=name in ("locked", "granted"), **TINY)
    yield
    CARDS.clear()
    CARDS.update(before)


@pytest.fixture
def hub(weights: Path, at: Any, registered: None) -> Iterator[Any]:
    server = _hub_server()
    with server.running_hub() as running:
        running.repos = {
            "lab/open": server.Repo({FILE: weights}),
            "lab/locked": server.Repo({FILE: weights}, gated=True),
            "lab/granted": server.Repo({FILE: weights}, gated=True, granted=True),
            "lab/down": server.Repo({FILE: weights}, status=503),
        }
        at(running.url)
        yield running


def states(names: tuple[str, ...] = ENCODERS) -> dict[str, str]:
    return {each.name: each.state for each in system_info(names).encoders}


def test_the_state_of_an_encoder_is_what_loading_it_meets(
    hub: Any, monkeypatch: pytest.MonkeyPatch, weights: Path
) -> None:
    expected = {
        "open": "download",
        "locked": "gated",
        "granted": "gated",
        "unknown": "unreachable",
        "down": "unreachable",
    }
    assert states() == expected
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    facts = system_info(ENCODERS)
    assert {each.name: each.state for each in facts.encoders} == expected | {"granted": "download"}
    assert facts.hub.reachable and facts.hub.logged_in
    for each in facts.encoders:
        if each.loadable:
            assert each.size == weights.stat().st_size
            sp.encoders.load_encoder(each.name)
        elif each.name != "down":  # which would be asked again and again
            with pytest.raises(EncoderUnavailableError, match="not available"):
                sp.encoders.load_encoder(each.name)
    assert states(("open", "granted")) == {"open": "cached", "granted": "cached"}


def test_looking_downloads_nothing(hub: Any, tmp_path: Path) -> None:
    system_info(ENCODERS)
    assert hub.requests and not [request for request in hub.requests if not request.startswith("HEAD ")]
    assert not (tmp_path / "hub").exists() and not (tmp_path / "cache").exists()


def test_offline_mode_asks_nobody_and_finds_what_is_cached(hub: Any, at: Any) -> None:
    sp.encoders.load_encoder("open")
    at(hub.url, offline=True)
    hub.requests.clear()
    facts = system_info(("open", "locked", "efficientnet_lite0"))
    assert [each.state for each in facts.encoders] == ["cached", "offline", "installed"]
    assert facts.hub.offline and facts.hub.reachable is None
    assert not hub.requests


def test_a_hub_that_cannot_be_reached_is_not_asked_for_every_encoder(
    at: Any, registered: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, ask = [], _encoder_status._ask
    monkeypatch.setattr(_encoder_status, "_ask", lambda card, weights: asked.append(card.name) or ask(card, weights))
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        at(f"http://127.0.0.1:{taken.getsockname()[1]}")
        facts = system_info()
    assert len(asked) == 1
    assert facts.hub.reachable is False and "cannot be reached" in str(facts.hub.reason)
    loadable = [each.name for each in facts.encoders if each.loadable]
    assert loadable == ["efficientnet_lite0"]
    assert len(facts.encoders) == len(CARDS)


def test_a_hub_that_says_nothing_is_not_waited_for(at: Any, registered: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_encoder_status, "HUB_TIMEOUT_S", 0.3)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        at(f"http://127.0.0.1:{silent.getsockname()[1]}")
        facts = system_info(("open",))  # would never come back if it waited for an answer
    assert facts.hub.reachable is False and "in time" in facts.encoders[0].detail


def test_what_is_not_a_hub_is_told_from_one(at: Any, registered: None) -> None:
    from http.server import BaseHTTPRequestHandler, HTTPServer
    from threading import Thread

    class Portal(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    server = HTTPServer(("127.0.0.1", 0), Portal)
    Thread(target=server.serve_forever, daemon=True).start()
    at(f"http://127.0.0.1:{server.server_address[1]}")
    facts = system_info(("open",))
    server.shutdown()
    server.server_close()
    assert facts.hub.reachable is False and "does not come from a Hugging Face hub" in facts.encoders[0].detail


def test_words_say_what_to_do_and_never_the_login(
    hub: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [part for name in ENCODERS for part in ("--encoder", name)]
    code, out, err = run(capsys, "doctor", *asked)
    assert code == 1, err
    assert "request access on its page, then run `hf auth login`" in out
    assert "https://huggingface.co/lab/locked" in out
    assert "nobody is logged in" in out and hub.url in out
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(hub_constants, "ENDPOINT", hub.url.replace("//", f"//me:{TOKEN}@"))
    for form in ([], ["--json"]):
        code, out, err = run(capsys, "doctor", "--encoder", "open", *form)
        assert code == 0, err
        assert TOKEN not in out + err
    assert json.loads(out)["hub"] == {
        "endpoint": hub.url,
        "offline": False,
        "logged_in": True,
        "reachable": True,
        "reason": None,
    }
    assert any(TOKEN in login for login in hub.logins), "the login must be used for the question"


def test_exit_code_is_1_only_for_what_was_asked_for(at: Any, capsys: pytest.CaptureFixture[str]) -> None:
    at("http://127.0.0.1:9", offline=True)
    assert run(capsys, "doctor")[0] == 0
    assert run(capsys, "doctor", "--encoder", "efficientnet_lite0")[0] == 0
    code, out, _ = run(capsys, "doctor", "--encoder", "uni", "--json")
    found = json.loads(out)
    assert code == 1
    assert len(found["problems"]) == 1 and "encoder uni: not in the cache" in found["problems"][0]
    assert [each["loadable"] for each in found["encoders"]] == [False]
    code, out, err = run(capsys, "doctor", "--encoder", "unii")
    assert (code, out) == (2, "") and 'there is no encoder "unii"' in err


def test_a_device_that_is_not_there_needs_mending(at: Any, capsys: pytest.CaptureFixture[str]) -> None:
    at("http://127.0.0.1:9", offline=True)
    code, out, _ = run(capsys, "doctor", "--encoder", "efficientnet_lite0", "--device", "cuda:99")
    assert code == 1
    assert 'device="cuda:99" is not available here' in out and "To mend (1)" in out


def test_this_installation_has_what_it_needs(at: Any) -> None:
    at("http://127.0.0.1:9", offline=True)
    facts = system_info(("efficientnet_lite0",))
    assert {"torch", "anndata", "scanpy", "timm", "huggingface-hub"} <= {package.name for package in facts.packages}
    assert all(package.fits for package in facts.packages) and problems(facts) == []


def test_packages_are_held_against_what_the_package_needs(
    at: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    at("http://127.0.0.1:9", offline=True)
    needs = [
        "timm>=1.0.9",
        "torch>=2.4",
        'tomli; python_version < "3"',
        'openslide-python>=1.4; extra == "wsi"',
        'pyarrow>=15; extra == "hd"',
        'pytest>=8.3; extra == "test"',
    ]
    extras = Message()
    for name in ("wsi", "hd", "test"):
        extras["Provides-Extra"] = name
    real = _system_info.metadata.version
    versions = {"timm": "0.1", "torch": "2.9.0+cu128", "pyarrow": "21.0.0"}

    def version(name: str) -> str:
        if name not in versions:
            raise _system_info.metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(_system_info.metadata, "requires", lambda _: needs)
    monkeypatch.setattr(_system_info.metadata, "metadata", lambda _: extras)
    monkeypatch.setattr(_system_info.metadata, "version", version)
    found, of_users = _system_info.requirements()
    assert [(each.name, each.version, each.fits) for each in found] == [
        ("timm", "0.1", False),
        ("torch", "2.9.0+cu128", True),
    ]
    assert [(each.name, each.present) for each in of_users] == [("wsi", False), ("hd", True)]
    monkeypatch.setattr(_system_info.metadata, "version", real)
    monkeypatch.setattr(_system_info, "requirements", lambda: (found, of_users))
    code, out, _ = run(capsys, "doctor", "--encoder", "efficientnet_lite0")
    assert code == 1
    assert 'timm 0.1, needed is >=1.0.9: run `pip install "timm>=1.0.9"`' in out
    assert 'extra wsi: without openslide-python; `pip install "spahgc[wsi]"`' in out
    assert "extras: hd" in out


def test_a_folder_that_cannot_be_made_needs_mending(
    at: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    at("http://127.0.0.1:9", offline=True)
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(sp.settings, "cache_dir", tmp_path / "file" / "cache")
    code, out, _ = run(capsys, "doctor", "--encoder", "efficientnet_lite0")
    assert code == 1
    assert f"{tmp_path / 'file' / 'cache'} cannot be written: set XDG_CACHE_HOME" in out
    assert folder(tmp_path / "new" / "folder").writable
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_memory_is_what_a_job_may_use(tmp_path: Path) -> None:
    own = tmp_path / "cgroup"
    own.write_text("0::/jobs/7\n")
    for group, limit, used in (("jobs", "max", "900"), ("jobs/7", "4000", "1000")):
        (tmp_path / "root" / group).mkdir(parents=True)
        (tmp_path / "root" / group / "memory.max").write_text(f"{limit}\n")
        (tmp_path / "root" / group / "memory.current").write_text(f"{used}\n")
    assert cgroup_limits(tmp_path / "root", own) == [(4000, 1000)]
    own.write_text("4:memory:/old\n")
    assert cgroup_limits(tmp_path / "root", own) == []
    found = _system_info.memory()
    assert found.total is None or found.free is None or 0 < found.free <= found.total


def test_accelerators_are_named_with_their_memory() -> None:
    from spahgc.cli._doctor import _compute

    cards = [Device("cuda:0", "H100", 80 * 10**9, 60 * 10**9), Device("cuda:1", "H100", 80 * 10**9)]
    rows = list(_compute(Compute("cuda", cards, 8, cuda_build=True), processors=4))
    assert ("ok", "cuda:0: H100, 60.0 GB of 80.0 GB free") in rows
    assert ("ok", "cuda:1: H100, unknown of 80.0 GB free") in rows
    assert ("ok", "device that is used: cuda; 4 processors, 8 threads of torch") in rows
    assert any("set OMP_NUM_THREADS=4" in text for _, text in rows)
    wrong_build = list(_compute(Compute("cpu", [], 1, cuda_build=False, nvidia_driver=True), processors=1))
    assert any(mark == "note" and "built without CUDA" in text for mark, text in wrong_build)


def test_it_works_with_the_settings_of_a_shell(hub: Any, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "HF_TOKEN": TOKEN, "no_proxy": "*"}
    code = "from spahgc.cli import main; main(['doctor', '--json'])"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["hub"]["reachable"] and found["hub"]["logged_in"]
    assert {each["name"]: each["state"] for each in found["encoders"]}["uni"] == "unreachable"  # not on this hub
    assert TOKEN not in done.stdout + done.stderr
