"""What README and documentation show of the package exists, and the calls they show can be made."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

import spahgc as sp


def _docs_pages() -> Any:
    """The helper beside this file; pytest's import mode does not put the folder on the path."""
    spec = importlib.util.spec_from_file_location("docs_pages", Path(__file__).with_name("docs_pages.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules["docs_pages"] = module
    spec.loader.exec_module(module)
    return module


docs = _docs_pages()
NAMES = {"sp", "spahgc"}
"""Under which the pages call the package."""

BLOCK = re.compile(r"^```([^`\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
ROLE = re.compile(r"\{(?:func|class|meth|attr)\}`~?(spahgc\.[A-Za-z_.]+)`")
LISTED = re.compile(r"^   ((?:\w+\.)?\w+)$", re.MULTILINE)
"""A line of an autosummary, below the package."""
OPTION = re.compile(r"--[a-z][a-z-]+")
COMMAND = re.compile(r"\bspahgc ((?:--\w+ )*[a-z][a-z-]+)([^`\n]*)")
GENERAL = {"--help", "--debug", "--quiet", "--version"}
"""Options before any command; ``--debug`` anywhere."""


@dataclass(frozen=True)
class Mention:
    """A name of the package on a page, and the call of it, if it is called."""

    page: str
    name: str
    call: ast.Call | None = None

    def __str__(self) -> str:
        return f"{self.page}: {self.name if self.call is None else ast.unparse(self.call)}"


def dotted(node: ast.expr) -> str | None:
    """``a.b.c`` of an expression that is nothing else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (front := dotted(node.value)) is not None:
        return f"{front}.{node.attr}"
    return None


def mentions_in(code: str, page: str) -> Iterator[Mention]:
    """Names of the package in Python code, the longest of each chain, calls first."""
    tree = ast.parse(dedent(code))
    parts = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    parts |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        call = node if isinstance(node, ast.Call) else None
        if call is None and id(node) in parts:
            continue  # counted with what it is a part of
        name = dotted(node.func if call else node) if isinstance(node, ast.expr) else None
        if name is not None and name.split(".")[0] in NAMES and "." in name:
            yield Mention(page, name, call)


def mentions_on(path: Path) -> Iterator[Mention]:
    text, page = docs.text_of(path), docs.name_of(path)
    for kind, block in BLOCK.findall(text):
        if kind == "python":
            yield from mentions_in(block, page)
        elif "autosummary::" in block:
            yield from (Mention(page, f"spahgc.{name}") for name in LISTED.findall(block))
    prose = BLOCK.sub("", text)
    yield from (Mention(page, name) for name in ROLE.findall(prose))
    for span in INLINE.findall(prose):
        if not span.endswith("*") and re.match(r"(sp|spahgc)\.\w|.*\b(sp|spahgc)\.\w+\.\w+\(", span):
            yield from mentions_in(span, page)


def resolved(name: str) -> Any:
    """The object that a name stands for; AttributeError where there is none."""
    found: Any = sp
    for part in name.split(".")[1:]:
        found = getattr(found, part)
    return found


MENTIONS = [mention for path in docs.PAGES for mention in mentions_on(path)]


def test_the_pages_are_read() -> None:
    """Rules that find nothing would pass everything below."""
    found = {mention.name for mention in MENTIONS}
    assert {"sp.pp.embed", "sp.io.visium_hd", "sp.datasets.fetch", "spahgc.image.ImageSource"} <= found
    assert sum(mention.call is not None for mention in MENTIONS) > 40
    assert {mention.page for mention in MENTIONS} >= {
        "README.md", "howto/visium.md", "reference/api.md", "reference/cohorts.md", "reference/encoders.md",
    }  # fmt: skip


@pytest.mark.parametrize("page", map(docs.name_of, docs.PAGES))
def test_every_name_that_a_page_mentions_exists_and_is_public(page: str) -> None:
    missing = []
    for mention in MENTIONS:
        if mention.page != page:
            continue
        try:
            resolved(mention.name)
        except AttributeError:
            missing.append(str(mention))
            continue
        _, first, *rest = mention.name.split(".")
        if rest and first in sp._MODULES and rest[0] not in import_module(f"spahgc.{first}").__all__:
            missing.append(f"{mention} is not public")
    assert not missing, missing


PASSED_ON = {"sp.pp.embed_many": "sp.pp.embed", "sp.Parameters.preset": "sp.Parameters"}
"""Functions whose further keywords are those of another one, or the fields of a class."""


def call_error(mention: Mention) -> str | None:
    """Why the call that a page shows cannot be made; an ellipsis stands for all that is left out."""
    assert mention.call is not None
    signature = inspect.signature(resolved(mention.name))
    shown = [argument for argument in mention.call.args if not _is_ellipsis(argument)]
    keywords = {keyword.arg: None for keyword in mention.call.keywords if keyword.arg is not None}
    partly = len(shown) < len(mention.call.args) or any(isinstance(argument, ast.Starred) for argument in shown)
    bind = signature.bind_partial if partly else signature.bind
    try:
        bind(*(None for argument in shown if not isinstance(argument, ast.Starred)), **keywords)
    except TypeError as error:
        return f"{mention}: {error}"
    # A function that takes any keyword would let every misspelt one pass.
    known = set(signature.parameters)
    if mention.name in PASSED_ON:
        known |= set(inspect.signature(resolved(PASSED_ON[mention.name])).parameters)
    return None if set(keywords) <= known else f"{mention}: not in the signature {signature}"


def _is_ellipsis(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is ...


@pytest.mark.parametrize("page", map(docs.name_of, docs.PAGES))
def test_every_call_that_a_page_shows_fits_the_signature(page: str) -> None:
    calls = [mention for mention in MENTIONS if mention.page == page and mention.call is not None]
    errors = [error for error in map(call_error, calls) if error]
    assert not errors, errors


@pytest.mark.parametrize(
    ("code", "wrong"),
    [
        ("sp.pp.embed(adata, encoder='uni', context=True)", False),
        ("sp.pp.Context(...)", False),
        ("sp.pp.embed(adata, encodr='uni')", True),
        ("sp.pp.embed(adata, 'uni')", True),
        ("sp.io.st(counts, spots)", True),
    ],
)
def test_a_call_that_cannot_be_made_is_noticed(code: str, wrong: bool) -> None:
    (mention,) = mentions_in(code, "here")
    assert (call_error(mention) is not None) == wrong


def test_every_command_that_a_page_shows_has_these_options() -> None:
    import typer

    from spahgc.cli import app

    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    options = {name: {flag for each in command.params for flag in each.opts} for name, command in commands.items()}
    seen, unknown = set(), []
    for path in docs.PAGES:
        for command, rest in COMMAND.findall(docs.text_of(path).replace("\\\n", " ")):
            name = command.split()[-1]
            if name not in commands:
                continue  # prose: "spahgc is ..."
            seen.add(name)
            wrong = set(OPTION.findall(rest)) - options[name] - GENERAL
            unknown += [f"{docs.name_of(path)}: spahgc {name} {option}" for option in sorted(wrong)]
    assert seen == set(commands), "a command is shown nowhere"
    assert not unknown, unknown
