"""The examples in the docstrings of the main job run as they stand, and print what stands below them."""

from __future__ import annotations

import doctest
import inspect
from typing import Any

import pytest

import spahgc as sp

MAIN_JOB = (sp.tl.predict, sp.tl.fit, sp.pp.reference_bank, sp.pp.open_bank, sp.pp.cross_graph, sp.pp.select_genes)


@pytest.mark.parametrize("function", MAIN_JOB, ids=lambda function: function.__name__)
def test_the_examples_of_the_main_job_run_as_they_stand(function: Any) -> None:
    (test,) = doctest.DocTestFinder(recurse=False).find(function, function.__name__, globs={})
    assert len(test.examples) > 3
    runner, said = doctest.DocTestRunner(verbose=False), []
    failed, _ = runner.run(test, out=said.append)
    assert failed == 0, "".join(said)


@pytest.mark.parametrize("room", ["pl", "pp", "tl"])
def test_public_functions_show_an_example(room: str) -> None:
    module = getattr(sp, room)
    functions = {name: getattr(module, name) for name in module.__all__ if inspect.isfunction(getattr(module, name))}
    assert len(functions) > 5
    assert [name for name, each in functions.items() if ">>>" not in (each.__doc__ or "")] == []
