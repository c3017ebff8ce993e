"""What a report must never hold or do: markup from names, addresses, paths, patients, programs of others."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from anndata import AnnData
from PIL import Image

import spahgc as sp


def helper(name: str) -> Any:
    """Load a neighbour by its path: with ``--import-mode=importlib`` tests cannot import each other."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


helpers = helper("report_slides")
finished_slides, Page = helpers.finished_slides, helpers.Page
PARTS = Path(sp.pl._report.__file__).parent / "page"
EVIL = [
    '<script>alert("1")</script>',
    "\"&'",
    "</script><img src=x onerror=alert(1)>",
    "a\u2028b",
    "=cmd|' /C calc'!A0",
]
VENDORED = {
    "leaflet.js": "db49d009c841f5ca34a888c96511ae936fd9f5533e90d8b2c4d57596f4e5641a",
    "leaflet.css": "a7837102824184820dfa198d1ebcd109ff6d0ff9a2672a074b9a1b4d147d04c6",
}


@pytest.fixture(scope="module")
def _slides() -> list[AnnData]:
    return finished_slides()


@pytest.fixture
def target(_slides: list[AnnData]) -> AnnData:
    return _slides[0].copy()


@pytest.fixture
def refs(_slides: list[AnnData]) -> list[AnnData]:
    return [slide.copy() for slide in _slides[1:]]


def written(slide: AnnData, folder: Path, **settings) -> Any:
    return Page(sp.pl.report(slide, folder / "report.html", **settings))


@pytest.fixture
def evil(target: AnnData, refs: list[AnnData]) -> tuple[AnnData, list[AnnData]]:
    """Slides whose every name tries to get out of its place."""
    names = list(target.var_names)
    for slide in (target, *refs):
        slide.var_names = [*EVIL, *names[len(EVIL) :]]
    target.obs_names = [*EVIL, *list(target.obs_names)[len(EVIL) :]]
    target.obs["slide"] = EVIL[2]
    target.obs["patient"] = "Jane Doe <script>alert(2)</script>"
    target.obs["spahgc_domain"] = target.obs["spahgc_domain"].cat.rename_categories(lambda name: f"{name}{EVIL[0]}")
    record = target.uns["spahgc"]["predictions"]["spahgc"]
    renamed = dict(zip(record["references"], EVIL[:2], strict=True))
    for slide in refs:
        slide.obs["slide"] = renamed[slide.obs["slide"].iloc[0]]
    record["bank_spots"] = [f"{renamed[name.split(':')[0]]}:{name.split(':')[1]}" for name in record["bank_spots"]]
    record["references"] = list(renamed.values())
    return target, refs


def test_names_stay_text(evil, tmp_path):
    target, refs = evil
    page = written(target, tmp_path, refs=refs, title=EVIL[2])
    plain = {"script", "style", "title", "meta", "link", "html", "head", "body"}
    assert [tag for tag, attrs in page.tags if tag == "img" or any(name.startswith("on") for name in attrs)] == []
    executed = [attrs for tag, attrs in page.tags if tag == "script" and attrs.get("type") is None]
    assert len(executed) == 2 and plain <= {tag for tag, _ in page.tags}
    content = page.content
    assert set(EVIL) <= set(content["genes"]) and set(EVIL) <= set(content["spots"])
    assert content["slide"] == EVIL[2] and set(EVIL[:2]) == set(content["retrieved"]["slides"])
    assert page.blocks("title") == page.blocks("h1") == [EVIL[2]]
    (raw,) = re.findall(r'id="content">(.*?)</script>', page.text)
    assert not set("<>&\u2028\u2029") & set(raw)


def test_the_policy_names_the_hashes_of_exactly_what_runs(target, refs, tmp_path):
    page = written(target, tmp_path, refs=refs)
    (policy,) = [attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy"]
    rules = {rule.split()[0]: rule.split()[1:] for rule in policy.split("; ")}
    hashed = {
        tag: [f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in texts]
        for tag, texts in (("script", page.blocks("script")), ("style", page.blocks("style")))
    }
    assert rules["default-src"] == ["'none'"] and "connect-src" not in rules
    assert rules["script-src"] == hashed["script"] and len(hashed["script"]) == 2
    assert rules["style-src"] == hashed["style"] and len(hashed["style"]) == 1
    assert rules["img-src"] == ["data:", "blob:"]
    assert not any(attrs.get("style") for _, attrs in page.tags)


def test_the_page_names_no_address_that_a_browser_would_load(target, refs, tmp_path):
    page = written(target, tmp_path, refs=refs)
    for tag, attrs in page.tags:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            assert (attrs.get(name) or "").startswith(("#", "data:")) or attrs.get(name) is None, (tag, attrs)
    assert not re.search(r"url\((?!#)|@import", page.blocks("style")[0])
    scripts = "".join(page.blocks("script"))
    assert "sourceMappingURL" not in scripts
    assert not re.search(r"\b(fetch|XMLHttpRequest|WebSocket|EventSource|sendBeacon|importScripts)\b", scripts)


def test_the_pages_own_scripts_write_text_and_no_markup():
    files = sorted((PARTS / "js").glob("*.js"))
    assert len(files) > 10
    for file in files:
        text = file.read_text()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", text), (
            file
        )
        assert text.count("\n") < 300, file


def test_paths_patients_and_other_columns_stay_out(target, refs, tmp_path):
    (library,) = target.uns["spatial"].values()
    image = tmp_path / "jane_doe" / "private.png"
    image.parent.mkdir()
    Image.fromarray(library["images"]["hires"]).save(image)
    library["metadata"] = {"source_image_path": str(image), "operator": "jane_doe"}
    target.obs["patient"] = "jane_doe_patient"
    target.obs["note"] = "secret_note"
    target.uns["spahgc"]["predictions"]["spahgc"]["folder"] = "/home/jane_doe/models"
    target.uns["spahgc"]["made_with"] = {"path": "/home/jane_doe"}
    text = written(target, tmp_path, refs=refs).text
    for word in ("jane_doe", "secret_note", str(tmp_path), "/home/", "private.png"):
        assert word not in text


def test_the_vendored_library_is_the_published_one_with_its_licence():
    folder = PARTS / "vendor" / "leaflet"
    for name, expected in VENDORED.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == expected
        assert expected in (folder / "README.md").read_text()
    assert "BSD 2-Clause" in (folder / "LICENSE").read_text()
