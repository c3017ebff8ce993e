"""Every message that the page of symptoms quotes is one that the package says."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FAQ = (ROOT / "docs" / "faq.md").read_text(encoding="utf-8")
QUOTED = re.findall(r"^```text\n(.*?)\n```", FAQ, re.MULTILINE | re.DOTALL)
GAP = "…"
"""Stands on the page for what differs from case to case."""
FIELD = "\0"
"""Stands for the same in a string of the source."""


@cache
def strings() -> tuple[str, ...]:
    """All strings of the package, with a mark for every field of an f-string; docstrings left out."""
    found = []
    for path in (ROOT / "src").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if id(node) in documentation:
                continue
            if isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else FIELD for part in node.values)
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return tuple(found)


def said(message: str) -> bool:
    """Whether a string of the package holds the message, its gaps where that has fields or other words."""
    pieces = [re.escape(piece) for piece in message.split(GAP)]
    pattern = re.compile(f"[^{FIELD}]*{FIELD}.*?".join(pieces), re.DOTALL) if len(pieces) > 1 else re.compile(pieces[0])
    return any(pattern.search(string) for string in strings())


def test_the_page_quotes_messages() -> None:
    assert len(QUOTED) > 30


@pytest.mark.parametrize("message", QUOTED, ids=lambda message: message[:60])
def test_a_quoted_message_is_one_that_the_package_says(message: str) -> None:
    assert said(message)


def test_a_message_that_nobody_says_is_noticed() -> None:
    assert not said("the target is also among the friends: … of its spots stand in …")
    assert not said("the target is also among the references: 3 of its spots")


@pytest.mark.parametrize(
    "symptom",
    [
        "All genes look the same",
        "PCC is near zero",
        "401 from the hub",
        "Out of memory",
        "Patches look blank or shifted",
        "Prediction is NaN for my gene",
        "The layer would be too large",
    ],
)
def test_a_symptom_that_many_meet_has_an_entry(symptom: str) -> None:
    assert f"### {symptom}\n" in FAQ
