"""What is said of the package in several files agrees: licence, version, Pythons; the workflows and forms can be read."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
ARTICLE = "2603.22821"
"""The article of the method at arXiv."""


def load(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def workflow(name: str) -> dict[str, Any]:
    found = load(f".github/workflows/{name}.yaml")
    found["on"] = found.pop(True)  # YAML 1.1 reads the key "on" as a boolean
    return found


WORKFLOWS = sorted(path.stem for path in (ROOT / ".github" / "workflows").iterdir())
FORMS = sorted(path.name for path in (ROOT / ".github" / "ISSUE_TEMPLATE").iterdir() if path.name != "config.yml")


def commands(jobs: dict[str, Any]) -> str:
    """Everything that the steps of some jobs run."""
    return "\n".join(step.get("run", "") for job in jobs.values() for step in job.get("steps", []))


# --- the same everywhere


def test_the_licence_is_the_same_everywhere() -> None:
    assert PROJECT["project"]["license"] == "BSD-3-Clause"
    assert load("CITATION.cff")["license"] == "BSD-3-Clause"
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    # The three clauses, and the one that tells it from the two-clause licence.
    assert text.startswith("BSD 3-Clause License") and "Neither the name of the copyright holder" in text


def test_every_licence_text_travels_with_the_package() -> None:
    named = {path for pattern in PROJECT["project"]["license-files"] for path in ROOT.glob(pattern)}
    vendored = set((ROOT / "src").rglob("LICENSE*"))
    assert vendored and named == {ROOT / "LICENSE"} | vendored


def test_the_version_is_the_same_everywhere() -> None:
    version = PROJECT["project"]["version"]
    assert load("CITATION.cff")["version"] == version
    newest = re.search(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest and newest[1] == version


def test_the_pythons_that_are_named_are_those_that_are_tested() -> None:
    front = "Programming Language :: Python :: "
    named = [text.removeprefix(front) for text in PROJECT["project"]["classifiers"] if re.search(r":: 3\.\d+$", text)]
    assert workflow("test")["jobs"]["test"]["strategy"]["matrix"]["python"] == named
    assert PROJECT["project"]["requires-python"] == f">={named[0]}"
    assert PROJECT["tool"]["mypy"]["python_version"] == named[0]


def test_the_citation_names_the_package_and_the_article_and_no_identifier_that_nobody_gave() -> None:
    citation = load("CITATION.cff")
    assert citation["cff-version"] == "1.2.0" and citation["type"] == "software"
    assert {"message", "title", "authors"} <= set(citation), "the format asks for these"
    (article,) = citation["references"]
    assert [identifier["value"] for identifier in article["identifiers"]] == [f"arXiv:{ARTICLE}"]
    assert article["url"].endswith(ARTICLE)
    assert len(article["authors"]) == 4 and all(
        set(each) == {"family-names", "given-names"} for each in article["authors"]
    )
    assert "doi" not in (ROOT / "CITATION.cff").read_text(encoding="utf-8").lower()
    # Readers of the format refuse anchors and aliases.
    assert not re.search(r"[:-] [&*]\w", (ROOT / "CITATION.cff").read_text(encoding="utf-8"))


def test_the_images_of_figures_belong_to_one_minor_release_of_matplotlib() -> None:
    (pinned,) = (text for text in PROJECT["project"]["optional-dependencies"]["test"] if text.startswith("matplotlib"))
    assert re.fullmatch(r"matplotlib==\d+\.\d+\.\*", pinned)


# --- workflows


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_has_jobs_that_run_somewhere_and_rights_that_are_named(name: str) -> None:
    found = workflow(name)
    assert found["jobs"] and found["permissions"] == {"contents": "read"}
    for job in found["jobs"].values():
        called = job.get("uses")
        assert called or (job["runs-on"] and job["steps"])
        if called:
            assert (ROOT / called).is_file(), f"{called} is not there"
        needed = job.get("needs", [])
        assert set([needed] if isinstance(needed, str) else needed) <= set(found["jobs"])


def test_every_change_is_tested_and_built() -> None:
    for name in ("test", "build"):
        assert {"push", "pull_request"} <= set(workflow(name)["on"])


def test_what_the_branch_protection_asks_for_waits_for_all_other_jobs() -> None:
    jobs = workflow("test")["jobs"]
    assert set(jobs["check"]["needs"]) == set(jobs) - {"check"}
    run = commands(jobs)
    for command in (
        "pytest --cov",
        "pytest -m tutorial",
        "ruff check",
        "ruff format --check",
        "mypy",
        "sphinx-build -W -n",
    ):
        assert command in run


def test_a_release_is_built_checked_and_tried_in_an_empty_environment_before_it_is_uploaded() -> None:
    release = workflow("release")
    assert set(release["on"]) == {"push"} and release["on"]["push"] == {"tags": ["v*"]}
    assert release["jobs"]["publish"]["needs"] == "package" and release["jobs"]["package"]["needs"] == "version"
    assert release["jobs"]["package"]["uses"] == "./.github/workflows/package.yaml"
    package = workflow("package")["jobs"]
    assert package["smoke"]["needs"] == "build"
    assert "python -m build" in commands(package) and "twine check --strict" in commands(package)
    assert "python -m venv empty" in commands(package) and "smoke.py" in commands(package)


def test_only_the_upload_may_ask_for_a_token_and_no_password_is_used() -> None:
    for name in WORKFLOWS:
        for title, job in workflow(name)["jobs"].items():
            rights = job.get("permissions", {})
            assert rights == ({"id-token": "write"} if (name, title) == ("release", "publish") else {})
        assert "secrets." not in (ROOT / f".github/workflows/{name}.yaml").read_text(encoding="utf-8")


# --- forms


@pytest.mark.parametrize("name", FORMS)
def test_a_form_asks_for_something_and_has_one_name_a_question(name: str) -> None:
    form = load(f".github/ISSUE_TEMPLATE/{name}")
    assert {"name", "description", "body"} <= set(form)
    names = [entry["id"] for entry in form["body"]]
    assert len(names) == len(set(names)) > 0
    assert all(entry["attributes"]["label"] for entry in form["body"])
    assert any(entry.get("validations", {}).get("required") for entry in form["body"])
