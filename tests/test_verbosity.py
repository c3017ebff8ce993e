"""How much is said: scanpy's steps, a logger of logging, and no noise in notebooks."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
import warnings
from collections.abc import Callable
from importlib import reload
from pathlib import Path

import pytest
from anndata import AnnData

import spahgc as sp
from spahgc import _logging
from spahgc._logging import NAME, Verbosity, warn
from spahgc._settings import hint, progress_bar, say, timed

STEPS = ["error", "warning", "info", "hint", "debug"]


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sp.settings, "progress", True)
    before = logging.getLogger(NAME).level
    yield
    logging.getLogger(NAME).setLevel(before)


@pytest.fixture
def console(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """As outside of tests from then on: pytest puts handlers at the root when a test begins."""
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    return lambda: monkeypatch.setattr(logging.getLogger(NAME), "propagate", False)


@pytest.mark.parametrize(("number", "name"), enumerate(STEPS))
def test_a_step_is_set_by_its_name_or_its_number_and_equals_both(number: int, name: str) -> None:
    for wanted in (number, name, Verbosity[name]):
        sp.settings.verbosity = wanted
        assert sp.settings.verbosity == name and sp.settings.verbosity == number
        assert sp.settings.verbosity != STEPS[number - 1]


def test_a_step_of_scanpys_is_taken() -> None:
    import scanpy as sc

    sp.settings.verbosity = sc.settings.verbosity
    assert sp.settings.verbosity == int(sc.settings.verbosity)


@pytest.mark.parametrize("wrong", ["loud", 5, -1, True, None, 2.5])
def test_a_step_that_is_none_is_refused_with_those_that_there_are(wrong: object) -> None:
    with pytest.raises(ValueError, match=r'is not known. Set one of "error" \(0\), "warning" \(1\), "info" \(2\)'):
        sp.settings.verbosity = wrong
    assert sp.settings.verbosity == "info"


def test_a_misspelt_setting_is_not_taken_silently() -> None:
    with pytest.raises(AttributeError, match=r'settings have no "verbostiy".*Did you mean "verbosity"\?'):
        sp.settings.verbostiy = 3
    with pytest.raises(AttributeError, match='settings have no "colour", they are device, progress'):
        sp.settings.colour = "red"


@pytest.mark.parametrize(
    ("step", "lines"),
    [
        ("error", []),
        ("warning", []),
        ("info", ["12 genes predicted", "6 can be trusted"]),
        ("hint", ["12 genes predicted", "6 can be trusted", '--> written: layers["spahgc"]']),
    ],
)
def test_each_step_says_what_belongs_to_it(
    console: Callable[[], None], capsys: pytest.CaptureFixture[str], step: str, lines: list[str]
) -> None:
    console()
    sp.settings.verbosity = step
    say(["12 genes predicted", "6 can be trusted"])
    hint('written: layers["spahgc"]')
    with timed("the training"):
        pass
    assert capsys.readouterr().err.splitlines() == lines


def test_details_are_set_off_and_take_their_time(
    console: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    console()
    sp.settings.verbosity = "debug"
    with timed("the training"):
        pass
    assert capsys.readouterr().err == "    the training took 0.0 s\n"


@pytest.mark.parametrize(("step", "shown"), [("warning", False), ("info", True)])
def test_bars_belong_to_the_step_info(step: str, shown: bool) -> None:
    sp.settings.verbosity, out = step, io.StringIO()
    with progress_bar(total=1, desc="embed", file=out) as bar:
        bar.update()
    assert ("embed" in out.getvalue()) == shown


@pytest.mark.parametrize(("step", "shown"), [("error", 0), ("warning", 1), ("debug", 1)])
def test_warnings_belong_to_the_step_warning(step: str, shown: int) -> None:
    sp.settings.verbosity = step
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        warn("half of the spots are left out", stacklevel=1)
    assert len(found) == shown
    assert all(each.filename == __file__ and each.category is UserWarning for each in found)


def test_a_warning_of_the_package_is_silent_below_its_step_and_names_the_callers_line(target: AnnData, refs) -> None:
    refs[0].X = refs[0].X * 0.5  # no counts any more: corrected ones are assumed
    for step, shown in (("error", 0), ("warning", 1)):
        sp.settings.verbosity = step
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            sp.pp.select_genes(refs)
        assert sum("is taken for" in str(each.message) or "corrected" in str(each.message) for each in found) == shown


def test_a_prediction_with_hints_says_what_it_wrote_and_into_what(
    console: Callable[[], None], capsys: pytest.CaptureFixture[str], target: AnnData, refs: list[AnnData]
) -> None:
    console()
    sp.settings.verbosity = "hint"
    sp.tl.predict(target, refs, method="ridge", key_added="ridge")
    assert capsys.readouterr().err.splitlines()[-1] == '--> written: layers["ridge"], var["ridge_panel"]'
    sp.settings.verbosity = "warning"
    sp.tl.predict(target, refs, method="ridge", key_added="ridge")
    assert capsys.readouterr().err == ""


# --- logging


def test_the_console_is_added_once_and_a_level_that_was_set_stays() -> None:
    logger = logging.getLogger(NAME)
    logger.setLevel(logging.ERROR)
    reload(_logging)
    assert [handler.get_name() for handler in logger.handlers].count(NAME) == 1
    assert logger.level == logging.ERROR and sp.settings.verbosity == "error"


def test_a_programs_own_handler_gets_the_messages_and_the_console_is_silent(
    console: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    console()
    logger, out = logging.getLogger(NAME), io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(logging.Formatter("%(levelname)s:%(name)s:%(message)s"))
    logger.addHandler(handler)
    try:
        say(["100 % of the genes"])
    finally:
        logger.removeHandler(handler)
    assert out.getvalue() == "INFO:spahgc:100 % of the genes\n"
    assert capsys.readouterr().err == ""
    say(["again on the console"])
    assert capsys.readouterr().err == "again on the console\n"


def test_a_handler_of_the_root_gets_the_messages_once(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    say(["12 genes predicted"])
    assert [(each.name, each.levelname, each.message) for each in caplog.records] == [
        (NAME, "INFO", "12 genes predicted")
    ]
    assert capsys.readouterr().err == ""


def test_the_level_of_the_logger_and_the_verbosity_are_one() -> None:
    logging.getLogger(NAME).setLevel(logging.WARNING)
    assert sp.settings.verbosity == "warning"
    sp.settings.verbosity = "debug"
    assert logging.getLogger(NAME).level == logging.DEBUG
    assert logging.getLevelName(_logging.HINT) == "HINT"


def test_other_processes_are_told_the_verbosity() -> None:
    sp.settings.verbosity = "error"
    assert sp.settings.values()["verbosity"] == 0 and sp.settings.values()["device"] is None


def test_an_interactive_session_reads_messages_on_stdout(
    console: Callable[[], None], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    console()
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    say(["12 genes predicted"])
    captured = capsys.readouterr()
    assert captured.out == "12 genes predicted\n" and captured.err == ""


def test_session_info_names_the_package_and_its_version() -> None:
    session_info2 = pytest.importorskip("session_info2")
    code = "import spahgc\nfrom session_info2 import session_info\nprint(session_info())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert session_info2 is not None and f"spahgc\t{sp.__version__}" in done.stdout


# --- notebooks

NOTEBOOK = """
import sys, types, warnings
warnings.simplefilter("always")
sys.modules["ipywidgets"] = None
for name in ("ipykernel", "ipykernel.zmqshell", "IPython"):
    sys.modules[name] = types.ModuleType(name)
sys.modules["IPython"].get_ipython = type("ZMQInteractiveShell", (), {})
import spahgc as sp
from spahgc._settings import progress_bar
with progress_bar(total=1, desc="embed") as bar:
    bar.update()
import tqdm.auto
"""
"""What tqdm looks for in a kernel of Jupyter, without ipywidgets."""


def test_a_notebook_without_ipywidgets_gets_bars_and_no_warning(tmp_path: Path) -> None:
    plain = NOTEBOOK.partition("import spahgc")[0] + "import tqdm.auto\n"
    done = subprocess.run([sys.executable, "-c", plain], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "IProgress not found" in done.stderr  # what is to be left out
    done = subprocess.run([sys.executable, "-c", NOTEBOOK], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "IProgress" not in done.stderr and "Warning" not in done.stderr and "embed: 100%" in done.stderr
