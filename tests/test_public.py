"""Every public name is documented, listed in the reference, tested, and called the way all others are."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

import spahgc as sp

ROOT = Path(__file__).parents[1]
MODULES = sorted(sp._MODULES)
OWN_TESTS = {"test_public.py", "test_package.py"}
"""These walk over all names, which tests none of them."""

SECTION = re.compile(r"^(\w[\w ]*)\n-{3,}$", re.MULTILINE)
PARAMETER = re.compile(r"^(\*{0,2}\w+(?:, \*{0,2}\w+)*)(?: ?:.*)?$", re.MULTILINE)
LISTED = re.compile(r"^ {3,}~?(?:spahgc\.)?((?:\w+\.)*\w+)$", re.MULTILINE)
"""A line of an autosummary, below the package."""


def public_names() -> list[str]:
    """Functions, classes and objects of ``__all__``, as ``tl.predict``; modules are walked through."""
    own = [name for name in sp.__all__ if name not in MODULES and not name.startswith("__")]
    return own + [f"{module}.{name}" for module in MODULES for name in import_module(f"spahgc.{module}").__all__]


def resolved(name: str) -> Any:
    found: Any = sp
    for part in name.split("."):
        found = getattr(found, part)
    return found


NAMES = public_names()
CLASSES = [name for name in NAMES if inspect.isclass(resolved(name))]
FUNCTIONS = [name for name in NAMES if inspect.isroutine(resolved(name))]


def public_methods() -> list[str]:
    """Methods that the public classes define themselves, as ``SpaHGC.save``."""
    return [
        f"{name}.{method}"
        for name in CLASSES
        for method, value in vars(resolved(name)).items()
        if not method.startswith("_") and (inspect.isroutine(value) or isinstance(value, classmethod | staticmethod))
    ]


METHODS = public_methods()


def test_the_walk_finds_the_names_that_everybody_knows() -> None:
    """Rules that find nothing would pass everything below."""
    assert {"tl.predict", "pp.embed", "io.visium", "pl.spatial_genes", "encoders.list"} <= set(FUNCTIONS)
    assert {"SpaHGC", "Parameters", "pp.Context", "tl.CrossValidation"} <= set(CLASSES)
    assert {"SpaHGC.predict", "SpaHGC.save", "SpaHGC.load"} <= set(METHODS)
    assert "settings" in NAMES


@pytest.mark.parametrize("module", MODULES)
def test_the_list_of_a_module_is_sorted_and_complete(module: str) -> None:
    """What a module's ``__init__`` imports from the package is there to be used, so it stands in the list."""
    found = import_module(f"spahgc.{module}")
    assert list(found.__all__) == sorted(set(found.__all__))
    tree = ast.parse(Path(found.__file__).read_text(encoding="utf-8"))
    imported = {alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert {name for name in imported if not name.startswith("_") and name != "annotations"} <= set(found.__all__)


# --- documentation


def sections(documentation: str) -> dict[str, str]:
    """Text of a numpydoc docstring by section; what stands before the first is called ``""``."""
    start, title, found = 0, "", {}
    for match in SECTION.finditer(documentation):
        found[title] = documentation[start : match.start()].strip("\n")
        start, title = match.end(), match[1]
    found[title] = documentation[start:].strip("\n")
    return found


def documented_parameters(documentation: str) -> list[str]:
    """Names in the section of parameters, several on a line told apart."""
    text = sections(documentation).get("Parameters", "")
    return [name.lstrip("*") for line in PARAMETER.findall(text) for name in line.split(", ")]


def parameters(function: Callable[..., Any]) -> list[str]:
    """Names in the signature, without the object that a method belongs to."""
    return [name for name in inspect.signature(function).parameters if name not in {"self", "cls"}]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_documents_the_parameters_of_its_signature(name: str) -> None:
    documentation = inspect.getdoc(resolved(name))
    assert documentation, f"spahgc.{name} has no docstring"
    assert documented_parameters(documentation) == parameters(resolved(name))


@pytest.mark.parametrize("name", METHODS)
def test_a_method_documents_its_parameters_or_says_where_they_are_documented(name: str) -> None:
    documentation = inspect.getdoc(resolved(name))
    assert documentation, f"spahgc.{name} has no docstring"
    if "Parameters" in sections(documentation):
        assert documented_parameters(documentation) == parameters(resolved(name))
    elif parameters(resolved(name)):
        named = re.search(r":(func|meth|class):`", documentation) or all(
            re.search(rf"`{parameter}`|\b{parameter}\b", documentation) for parameter in parameters(resolved(name))
        )
        assert named, f"spahgc.{name} says nothing of {parameters(resolved(name))}"


@pytest.mark.parametrize("name", [*FUNCTIONS, *METHODS])
def test_the_first_paragraph_is_one_line(name: str) -> None:
    summary = sections(inspect.getdoc(resolved(name)) or "")[""].split("\n\n")[0].strip()
    assert summary and "\n" not in summary, f"spahgc.{name}: {summary!r}"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_that_returns_something_says_what(name: str) -> None:
    returned = inspect.signature(resolved(name)).return_annotation
    assert returned is not inspect.Signature.empty, f"the signature of spahgc.{name} does not say what it returns"
    if returned not in {None, "None"}:
        found = sections(inspect.getdoc(resolved(name)) or "")
        # A question or a noun that is all there is to say needs no section: "Name of ...", "The ..., or ``None`` if ...".
        assert "Returns" in found or name in SAID_IN_THE_FIRST_LINE, f"spahgc.{name} has no section Returns"


SAID_IN_THE_FIRST_LINE = {"image.describe_outside"}
"""Functions whose only line names what they return."""


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_that_raises_says_what(name: str) -> None:
    function = inspect.unwrap(resolved(name))
    if raises(function):
        assert "Raises" in sections(inspect.getdoc(function) or ""), f"spahgc.{name} has no section Raises"


def raises(function: Callable[..., Any]) -> bool:
    """Whether a ``raise`` stands in the function itself; what it calls is not looked at."""
    return any(isinstance(node, ast.Raise) for node in ast.walk(ast.parse(dedent(inspect.getsource(function)))))


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_documents_every_field(name: str) -> None:
    found = resolved(name)
    assert inspect.getdoc(found), f"spahgc.{name} has no docstring"
    if is_dataclass(found):
        said = documented_fields(found)
        assert [
            entry.name for entry in fields(found) if entry.name not in said and not entry.name.startswith("_")
        ] == []


def documented_fields(kind: type) -> set[str]:
    """Fields named in the class's docstring or followed by a docstring of their own; a group of lines shares one."""
    text = inspect.getdoc(kind) or ""
    found = {name for line in PARAMETER.findall("\n".join(sections(text).values())) for name in line.split(", ")}
    (body,) = (node for node in ast.walk(ast.parse(dedent(inspect.getsource(kind)))) if is_class(node, kind))
    waiting: list[str] = []
    for node in body.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            waiting.append(node.target.id)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            found |= set(waiting)
            waiting = []
    return found


def is_class(node: ast.AST, kind: type) -> bool:
    return isinstance(node, ast.ClassDef) and node.name == kind.__name__


def listed_in_the_reference() -> set[str]:
    """Names in the tables from which the pages of the reference are made."""
    pages = sorted((ROOT / "docs" / "reference").rglob("*.md"))
    assert pages, "docs/reference/ has no pages"
    blocks = (
        block for page in pages for block in re.findall(r"```[^\n]*\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)
    )
    return {name for block in blocks if "autosummary::" in block for name in LISTED.findall(block)}


def test_every_public_name_is_in_the_reference() -> None:
    assert set(NAMES) - listed_in_the_reference() == set()


def test_the_reference_lists_public_names_only() -> None:
    assert listed_in_the_reference() - set(NAMES) == set()


# --- tests


@cache
def tested_names() -> dict[str, set[str]]:
    """Names of the package that the tests use, as ``tl.predict``, and the files that do."""
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / "tests").glob("*.py")):
        if path.name not in OWN_TESTS:
            for name in used_names(ast.parse(path.read_text(encoding="utf-8"))):
                found.setdefault(name, set()).add(path.name)
    return found


def used_names(tree: ast.Module) -> Iterator[str]:
    """Public paths of what a file imports from the package, and of the attributes that it looks up there."""
    short = {"sp": "", "spahgc": ""}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "spahgc":
            # The file that a name is imported from may be private: spahgc.tl._evaluate holds spahgc.tl.evaluate.
            front = [part for part in (node.module or "").split(".")[1:] if not part.startswith("_")][:1]
            for alias in node.names:
                path = ".".join([*front, alias.name])
                short[alias.asname or alias.name] = path
                yield path
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and (path := dotted(node)) is not None:
            first, _, rest = path.partition(".")
            if first in short:
                yield f"{short[first]}.{rest}".lstrip(".")
        elif isinstance(node, ast.Call) and dotted(node.func) == "getattr" and isinstance(node.args[1], ast.Name):
            # getattr(sp.datasets, name): the names are texts of the same file.
            first, _, rest = (dotted(node.args[0]) or "").partition(".")
            if first in short and rest in MODULES:
                yield from (f"{rest}.{text}" for text in texts)


def dotted(node: ast.expr) -> str | None:
    """``a.b.c`` of an expression that is nothing else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (front := dotted(node.value)) is not None:
        return f"{front}.{node.attr}"
    return None


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_is_used_by_a_test(name: str) -> None:
    files = tested_names().get(name, set()) or tested_names().get(name.split(".")[-1], set())
    assert files, f"no file in tests/ uses spahgc.{name}"


def test_a_name_that_is_only_written_about_is_not_used() -> None:
    tree = ast.parse('"""sp.tl.nothing"""\nimport spahgc as sp\n# sp.tl.less\nsp.tl.something(1)')
    assert set(used_names(tree)) == {"tl", "tl.something"}
    by_text = ast.parse('for name in ["some"]:\n    getattr(sp.pl, name)')
    assert set(used_names(by_text)) == {"pl", "pl.some"}


# --- signatures

SEVERAL_POSITIONAL = {
    "image.cut_patch": "an image and a place on it",
    "image.thumbnail": "an image and a size",
    "io.cells": "counts, places and image of the cells",
    "io.hest": "HEST's folder and the sample in it",
    "io.st": "a slide of legacy ST is three files",
    "io.write_cellxgene": "what is written, and where",
    "io.write_geojson": "what is written, and where",
    "io.write_loupe": "what is written, and where",
    "io.write_tissuumaps": "what is written, and where",
    "io.write_vitessce": "what is written, and where",
    "io.write_xenium_explorer": "what is written, and where",
    "pl.attribution": "a slide, one of its spots, and the references that have the patches",
    "pl.graph": "edges go from the slide to its references",
    "pl.registration": "the slide and the references that lie on it",
    "pl.report": "what is written, and where",
    "pl.spatial_genes": "as scanpy.pl.spatial: the slide and what is coloured",
    "pp.cross_graph": "edges go from the slide to the bank",
    "pp.embed_many": "where from and where to",
    "pp.hetero_data": "a graph of two node types: the slide and the bank",
    "pp.points": "an image and the points on it",
    "pp.choose_references": "the slide and the candidates to be its references",
    "pp.compare": "the slide and the references that it is compared with",
    "pp.register": "the slide and the references that are laid over it",
    "pp.use_embedding": "a slide and one of its keys",
    "tl.attribution": "a slide and one of its spots",
    "tl.cell_types": "the slide and the signatures of its types",
    "tl.enrich": "a slide and the gene sets, as in decoupler",
    "tl.predict": "the slide and the references it is predicted from",
    "tl.transfer": "the slide and the references whose labels it gets",
    "tl.predict_many": "where from and where to",
}
"""Functions with more than one positional argument, and why it is read well without its name."""


@pytest.mark.parametrize("name", FUNCTIONS)
def test_all_but_the_first_argument_are_keyword_only(name: str) -> None:
    kinds = [parameter.kind for parameter in inspect.signature(resolved(name)).parameters.values()]
    positional = sum(
        kind in {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD} for kind in kinds
    )
    assert inspect.Parameter.VAR_POSITIONAL not in kinds, f"spahgc.{name} takes any number of arguments"
    assert (positional > 1) == (name in SEVERAL_POSITIONAL), f"spahgc.{name} has {positional} positional arguments"
    assert positional == len(kinds) or kinds[positional] is not inspect.Parameter.POSITIONAL_OR_KEYWORD


def test_every_exception_from_the_rule_is_a_function_that_exists() -> None:
    assert set(SEVERAL_POSITIONAL) <= set(FUNCTIONS)
