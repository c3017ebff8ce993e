"""Every command that a message, a docstring or a page tells to type installs what it promises, wherever the package came from."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import sys
import tomllib
import zipfile
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement

from spahgc import _installation
from spahgc._installation import install_command, update_advice

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = set(PROJECT["optional-dependencies"])
OF_DEVELOPERS = {"tutorials", "test", "docs", "dev"}
SOURCES = sorted((ROOT / "src").rglob("*.py"))
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *(path for path in sorted((ROOT / "docs").rglob("*.md")) if not {"_build", "generated"} & set(path.parts)),
    *sorted((ROOT / "tutorials").glob("*.md")),
]
NAMED = re.compile(r'pip install [^`\n]*?"(?:spahgc|\.)\[([\w,]+)\]"')
BACKEND = """
import os

METADATA = {metadata!r}


def prepare_metadata_for_build_wheel(folder, config_settings=None):
    os.mkdir(os.path.join(folder, "spahgc-0.1.0.dist-info"))
    with open(os.path.join(folder, "spahgc-0.1.0.dist-info", "METADATA"), "w") as file:
        file.write(METADATA)
    return "spahgc-0.1.0.dist-info"


prepare_metadata_for_build_editable = prepare_metadata_for_build_wheel


def build_wheel(*arguments):
    raise RuntimeError("nothing is built to see whether it could be installed")


build_editable = build_wheel
"""


def metadata() -> str:
    """What an index says of the package, without what it needs: pip has nowhere to fetch that from here."""
    lines = ["Metadata-Version: 2.4", f"Name: {PROJECT['name']}", "Version: 0.1.0"]
    return "\n".join([*lines, *(f"Provides-Extra: {extra}" for extra in sorted(EXTRAS)), ""])


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that pip takes for the package, made in no time; its name has a space, as folders of users have."""
    folder = tmp_path_factory.mktemp("my work") / "spahgc"
    folder.mkdir()
    (folder / "backend.py").write_text(BACKEND.format(metadata=metadata()))
    (folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    return folder


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("index")
    with zipfile.ZipFile(folder / "spahgc-0.1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("spahgc-0.1.0.dist-info/METADATA", metadata())
        wheel.writestr("spahgc-0.1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("spahgc-0.1.0.dist-info/RECORD", "")
    return folder


def came_from(monkeypatch: pytest.MonkeyPatch, **origin: object) -> None:
    monkeypatch.setattr(_installation, "_origin", lambda: origin)


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def typed(commands: list[str], index: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run commands ``pip install ...`` as one, without a network, up to where files would be written."""
    words = [shlex.split(command) for command in commands]
    assert all(each[:2] == ["pip", "install"] for each in words), commands
    wanted = list(dict.fromkeys(" ".join(each[2:]) if each[2] == "-e" else each[2] for each in words))
    arguments = [part for each in wanted for part in (["-e", each[3:]] if each.startswith("-e ") else [each])]
    options = ["--dry-run", "--ignore-installed", "--no-index", "--find-links", str(index), "--no-build-isolation"]
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", *options, *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def hinted() -> dict[str, set[str]]:
    """Extras that messages name, by file of the sources."""
    found: dict[str, set[str]] = {}
    for path in SOURCES:
        if "install_command" not in path.read_text(encoding="utf-8"):
            continue
        tree = parsed(path)
        constants = {
            node.targets[0].id: node.value.value
            for node in tree.body
            if isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and isinstance(node.value, ast.Constant)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "install_command":
                (argument,) = node.args
                if isinstance(argument, ast.Constant):
                    found.setdefault(path.name, set()).add(argument.value)
                elif isinstance(argument, ast.Name) and argument.id in constants:
                    found.setdefault(path.name, set()).add(constants[argument.id])
    return found


def test_messages_name_extras_that_the_package_has() -> None:
    extras = set().union(*hinted().values())
    assert extras <= EXTRAS
    assert EXTRAS - OF_DEVELOPERS <= extras, "an extra of users that no message tells of"


def test_messages_ask_one_function_for_what_is_to_be_typed() -> None:
    """A command that stands in a message as it is would be right for one of the ways in which the package is installed."""
    fixed = []
    for path in SOURCES:
        if path.name == "_installation.py" or "install" not in path.read_text(encoding="utf-8"):
            continue
        tree = parsed(path)
        prose = {
            id(node.value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        }
        fixed += [
            f"{path.name}: {node.value}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant)
            and id(node) not in prose
            and re.search(r"install.*spahgc", str(node.value))
        ]
    assert fixed == []


def test_docstrings_and_pages_name_extras_that_the_package_has() -> None:
    named = {
        (path.relative_to(ROOT).as_posix(), extra)
        for path in [*SOURCES, *PAGES]
        for found in NAMED.findall(path.read_text(encoding="utf-8"))
        for extra in found.split(",")
    }
    assert len(named) > 20
    assert {place for place in named if place[1] not in EXTRAS} == set()


def test_from_an_index_every_hint_is_taken_by_pip(index: Path, tmp_path: Path) -> None:
    """One for an extra that is not there is told from the others."""
    assert install_command("wsi") == 'pip install "spahgc[wsi]"'
    done = typed([install_command(extra) for extra in [*sorted(EXTRAS), "everything"]], index, tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.findall(r"does not provide the extra '([^']+)'", done.stderr) == ["everything"]
    assert "Would install spahgc-0.1.0" in done.stdout


@pytest.mark.parametrize("editable", [False, True])
def test_from_a_checkout_every_hint_is_taken_by_pip_in_any_folder(
    checkout: Path, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, editable: bool
) -> None:
    came_from(monkeypatch, url=checkout.as_uri(), dir_info={"editable": True} if editable else {})
    command = install_command(",".join(sorted(EXTRAS)))
    assert command.startswith(f'pip install {"-e " if editable else ""}"{checkout}[')
    done = typed([command], index, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "does not provide the extra" not in done.stderr
    assert "Would install spahgc-0.1.0" in done.stdout


def test_from_a_wheel_a_hint_names_the_wheel(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (wheel,) = index.iterdir()
    came_from(monkeypatch, url=wheel.as_uri(), archive_info={"hashes": {}})
    command = install_command("hd")
    assert command == f'pip install "spahgc[hd] @ {wheel.as_uri()}"'
    wanted = Requirement(shlex.split(command)[-1])
    assert (wanted.name, wanted.extras, wanted.url) == ("spahgc", {"hd"}, wheel.as_uri())


def test_from_a_wheel_or_a_checkout_that_is_gone_a_hint_names_the_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    came_from(monkeypatch, url=(tmp_path / "gone.whl").as_uri(), archive_info={})
    assert install_command("hd") == 'pip install "spahgc[hd]"'
    came_from(monkeypatch, url=(tmp_path / "gone").as_uri(), dir_info={})
    assert install_command("hd") == 'pip install "spahgc[hd]"'


def test_from_a_repository_a_hint_names_it_with_its_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "https://example.org/spahgc.git"
    came_from(monkeypatch, url=url, vcs_info={"vcs": "git", "requested_revision": "v0.1", "commit_id": "c0ffee"})
    (wanted,) = shlex.split(install_command("wsi"))[2:]
    assert wanted == f"spahgc[wsi] @ git+{url}@v0.1"
    assert Requirement(wanted).extras == {"wsi"}


def test_an_update_from_a_checkout_begins_with_the_checkout(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert update_advice() == 'run pip install --upgrade "spahgc"'
    came_from(monkeypatch, url=checkout.as_uri(), dir_info={})
    assert update_advice() == f'bring "{checkout}" up to date, then run pip install "{checkout}"'


@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        (None, {}),
        ("", {}),
        ("no JSON", {}),
        ("[]", {}),
        (json.dumps({"url": "file:///a", "dir_info": {}}), {"url": "file:///a", "dir_info": {}}),
    ],
)
def test_what_the_installer_kept_is_read_whatever_it_is(
    kept: str | None, expected: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # of the fixture that stands for an index
    monkeypatch.setattr(_installation, "distribution", lambda name: SimpleNamespace(read_text=lambda file: kept))
    _installation._origin.cache_clear()
    assert _installation._origin() == expected
    _installation._origin.cache_clear()
