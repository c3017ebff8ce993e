"""What all commands share: help, general options, JSON, completion, exit codes, and how quickly they start."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from spahgc import cli
from spahgc.cli._output import EXIT_ERROR, plain

COMMANDS = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
NAMES = [
    "run", "read", "tile", "embed", "compare", "fit", "predict", "evaluate", "cross-validate", "domains", "regions",
    "trusted-genes", "plot", "report", "export", "fetch", "encoders", "cohorts", "doctor", "demo",
]  # fmt: skip
TERMINAL = 80


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command."""
    with pytest.raises(SystemExit) as stopped:
        cli.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    code = stopped.value.code
    return (0 if code is None else int(code)), captured.out, captured.err


def completed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, line: str) -> list[str]:
    """What a bash offers at the end of a line."""
    words = shlex.split(line)
    monkeypatch.setenv("_SPAHGC_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(words) if line.endswith(" ") else len(words) - 1))
    return run(capsys)[1].split()


def test_the_commands_stand_in_the_order_of_the_work() -> None:
    assert list(COMMANDS) == NAMES


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_the_general_help_names_all_commands_and_exit_codes(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    code, out, err = run(capsys, *arguments)
    assert (code, err) == (0, "")
    summaries = {
        line.split()[0]: line for line in out.splitlines() if line.startswith("  ") and line.split()[0] in NAMES
    }
    assert list(summaries) == NAMES
    assert not [line for line in summaries.values() if line.endswith("...")], "a summary does not fit its line"
    for number, meaning in cli.EXIT_CODES.items():
        assert any(line.split() == [str(number), *meaning.split()] for line in out.splitlines())


@pytest.mark.parametrize("name", NAMES)
def test_the_help_of_a_command_shows_an_example_that_its_options_allow(
    capsys: pytest.CaptureFixture[str], name: str
) -> None:
    code, out, _ = run(capsys, name, "--help")
    assert code == 0
    examples = [line.strip() for line in out.partition("Example:\n")[2].splitlines() if line.strip()]
    assert examples
    for example in examples:
        program, command, *arguments = shlex.split(example)
        assert (program, command) == ("spahgc", name)
        context = COMMANDS[name].make_context(name, arguments)  # refuses what it does not know
        assert context.params


@pytest.mark.parametrize("name", NAMES)
def test_every_command_can_print_json_and_every_option_says_what_it_is(name: str) -> None:
    flags = {flag for param in COMMANDS[name].params for flag in param.opts}
    assert "--json" in flags
    silent = [param.name for param in COMMANDS[name].params if not (param.help or "").strip()]
    assert not silent


@pytest.mark.parametrize("line", [["--quiet", "--debug", "cohorts"], ["cohorts", "--debug", "--quiet"]])
def test_general_options_may_stand_anywhere(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, line: list[str]
) -> None:
    import spahgc as sp

    monkeypatch.setattr(sp.settings, "progress", True)
    assert run(capsys, *line)[0] == 0
    assert sp.settings.progress is False
    with pytest.raises(FileNotFoundError, match="absent"):
        cli.main(["evaluate", "absent.h5ad", "--debug"])


def test_what_other_packages_print_is_no_result(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import spahgc as sp

    listed = sp.datasets.cohorts()

    def chatty() -> Any:
        print("INFO this is printed by somebody else")
        return listed

    monkeypatch.setattr(sp.datasets, "cohorts", chatty)
    code, out, err = run(capsys, "cohorts", "--json")
    assert code == 0 and len(json.loads(out)) == len(listed)
    assert "somebody else" in err


def test_json_knows_neither_nan_nor_numpy_nor_paths() -> None:
    values = {"a": np.float32(0.5), "b": [float("nan"), np.int64(3)], "c": Path("x"), 4: np.array([1.0, np.inf])}
    assert plain(values) == {"a": 0.5, "b": [None, 3], "c": "x", "4": [1.0, None]}


def test_an_interruption_has_its_own_exit_code(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import spahgc as sp

    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sp.datasets, "cohorts", interrupted)
    assert run(capsys, "cohorts") == (130, "", "spahgc: interrupted\n")


def test_a_reader_that_stops_reading_is_no_error() -> None:
    import signal

    assert cli.EXIT_CODES[128 + signal.SIGPIPE]
    process = subprocess.Popen(
        [sys.executable, "-c", "from spahgc.cli import main; main(['cohorts', '--json'])"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 128 + signal.SIGPIPE


# --- completion


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("spahgc cr", ["cross-validate"]),
        ("spahgc embed a.h5ad --encoder uni", ["uni", "uni2_h"]),
        ("spahgc predict --method ridge_", ["ridge_neighbours", "ridge_components"]),
        ("spahgc predict --preset ", ["paper", "default"]),
        ("spahgc cross-validate --cohort her", ["her2st"]),
        ("spahgc cross-validate --cohort her2st --section H", ["H1", "H2", "H3"]),
        ("spahgc doctor --encoder efficientnet", ["efficientnet_lite0"]),
        ("spahgc embed a.h5ad --stain m", ["macenko"]),
        ("spahgc tile a.svs --layout s", ["square"]),
        ("spahgc fit --device c", ["cpu", "cuda"]),
    ],
)
def test_the_shell_completes_commands_and_names(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, line: str, expected: list[str]
) -> None:
    assert completed(capsys, monkeypatch, line) == expected


def test_the_names_that_are_completed_are_those_that_the_functions_know(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from spahgc.datasets._cohort import COHORTS
    from spahgc.encoders._cards import CARDS
    from spahgc.image._grid import LAYOUTS
    from spahgc.pp._embed.stain import METHODS as STAINS
    from spahgc.tl._baselines import BASELINES
    from spahgc.tl._predict import NETWORK

    for line, names in {
        "predict --method": [NETWORK, *BASELINES],
        "cross-validate --method": [NETWORK, *BASELINES],
        "cross-validate --cohort": list(COHORTS),
        "embed --encoder": list(CARDS),
        "embed --stain": list(STAINS),
        "tile --layout": list(LAYOUTS),
    }.items():
        assert completed(capsys, monkeypatch, f"spahgc {line} ") == names


@pytest.mark.parametrize(
    "line", ["predict --method ", "cross-validate --cohort ", "embed --encoder ", "embed --stain "]
)
def test_completing_a_name_does_not_load_torch(line: str) -> None:
    words = ["spahgc", *line.split()]
    environment = os.environ | {
        "_SPAHGC_COMPLETE": "complete_bash",
        "COMP_WORDS": f"spahgc {line}",
        "COMP_CWORD": str(len(words)),
    }
    done = subprocess.run([sys.executable, "-c", PROBE], env=environment, capture_output=True, text=True, check=True)
    assert {"torch", "timm"}.isdisjoint(done.stdout.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "--target", "a", "--output", "b", "--method", "magic"], "--method magic is not known"),
        (["fit", "--output", "b", "--preset", "magic"], "--preset magic is not known. Choose one of paper, default."),
        (["embed", "a", "--output", "b", "--stain", "blue"], "--stain blue is not known. Choose one of macenko,"),
        (["tile", "a", "--output", "b", "--layout", "round"], "--layout round is not known. Choose one of hexagonal,"),
    ],
)
def test_a_name_that_no_registry_has_is_refused_with_those_that_it_has(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (EXIT_ERROR, "")
    assert message in err and err.count("\n") == 1


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_can_be_shown(shell: str) -> None:
    environment = os.environ | {"_SPAHGC_COMPLETE": f"source_{shell}"}
    code = "from spahgc.cli import main; main([])"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "_SPAHGC_COMPLETE" in done.stdout


# --- what an answer loads, which is what makes its seconds

PROBE = """
import contextlib, io, sys
from spahgc.cli import main
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
    main(sys.argv[1:])
print(*sorted({"torch", "timm", "numpy", "pandas", "anndata", "scanpy", "matplotlib"} & set(sys.modules)))
"""


@pytest.mark.parametrize("arguments", [["--help"], ["cross-validate", "--help"], ["--version"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    call = [sys.executable, "-c", PROBE, *arguments]
    assert subprocess.run(call, capture_output=True, text=True, check=True).stdout.split() == []
