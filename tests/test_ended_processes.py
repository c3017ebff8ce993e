"""A program that is ended leaves no process behind and nothing half-written, however it is ended."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from anndata import AnnData

import spahgc as sp

psutil = pytest.importorskip("psutil")

DEADLINE_S = 150
"""After which a process counts as hung."""
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")

CROSS_VALIDATE = """
import sys
from pathlib import Path
import anndata as ad
import spahgc as sp

sp.settings.progress = False
slides = [ad.read_h5ad(path) for path in sorted(Path(sys.argv[1]).glob("*.h5ad"))]
preset = sp.Parameters(width=16, layers=1, heads=2, epochs=10**7)
sp.tl.cross_validate(slides, methods={"long": {"preset": preset, "device": "cpu"}}, n_jobs=2)
"""


@pytest.fixture
def folder(tmp_path: Path, cohort: list[AnnData]) -> Path:
    for number, slide in enumerate(cohort):
        slide.write_h5ad(tmp_path / f"{number}.h5ad")
    return tmp_path


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts programs; whatever of them is left at the end of a test is ended."""
    started: list[subprocess.Popen[str]] = []

    def run(*command: object) -> subprocess.Popen[str]:
        started.append(
            subprocess.Popen(
                [sys.executable, *map(str, command)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                preexec_fn=_hear_signals,
            )
        )
        return started[-1]

    yield run
    for process in started:
        if process.poll() is None:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            process.kill()
        process.communicate()


def _hear_signals() -> None:
    """What runs in the background, or under nohup, hands down that these are ignored."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def busy_children(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Processes of the pool that compute; the one that only tracks resources is not among them."""
    wait_for(lambda: process.poll() is not None or len(_computing(process.pid)) == 2)
    assert process.poll() is None, process.communicate()
    return psutil.Process(process.pid).children(recursive=True)


def _computing(pid: int) -> list[psutil.Process]:
    try:
        children = psutil.Process(pid).children(recursive=True)
        return [each for each in children if len(each.threads()) > 1 and sum(each.cpu_times()[:2]) > 2]
    except psutil.NoSuchProcess:
        return []


def gone(children: list[psutil.Process]) -> bool:
    return not [each for each in children if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_a_cross_validation_that_is_ended_leaves_no_process_behind(start, folder: Path, number: signal.Signals) -> None:
    process = start("-c", CROSS_VALIDATE, folder)
    children = busy_children(process)
    process.send_signal(number)
    process.wait(DEADLINE_S)
    assert process.returncode != 0
    wait_for(lambda: gone(children))


def test_an_error_in_the_caller_ends_the_folds_that_run(start, folder: Path) -> None:
    """The first fold is scored, which fails, while the others would compute for hours."""
    code = CROSS_VALIDATE.replace('"device": "cpu"}}', '"device": "cpu"}, "short": {"method": "mean"}}').replace(
        "sp.tl.cross_validate(",
        "from spahgc.tl._cross_validation import folds\nfolds.score_fold = lambda *_: 1 / 0\nsp.tl.cross_validate(",
    )
    process = start("-c", code, folder)
    _, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 1 and "ZeroDivisionError" in err


ORPHAN = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", '''
import os, time
from spahgc._many.children import end_with
end_with(os.getppid())
print("ready", flush=True)
time.sleep(3600)
'''], stdout=subprocess.PIPE, text=True)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(3600)
"""


def test_a_process_ends_with_the_one_that_started_it(start) -> None:
    process = start("-c", ORPHAN)
    child = psutil.Process(int(process.stdout.readline()))
    process.kill()
    process.wait(DEADLINE_S)
    wait_for(lambda: gone([child]))


WATCHED = """
import os, time
from spahgc._many.children import POLL_S, end_with
end_with(os.getppid())
time.sleep(3 * POLL_S)
print("alive")
"""


def test_the_watch_ends_nothing_while_the_parent_lives(start) -> None:
    process = start("-c", WATCHED)
    out, _ = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0 and out == "alive\n"


# The command line


@pytest.mark.parametrize(
    ("number", "code", "line"),
    [
        (signal.SIGTERM, 143, "spahgc: ended by SIGTERM\n"),
        (signal.SIGHUP, 129, "spahgc: ended by SIGHUP\n"),
        (signal.SIGINT, 130, "spahgc: interrupted\n"),
    ],
)
def test_a_command_that_is_ended_says_so_in_one_line_and_leaves_no_part(
    start, tmp_path: Path, number: signal.Signals, code: int, line: str
) -> None:
    script = f"""
import sys, time
from pathlib import Path
import spahgc as sp
from spahgc._files import folder_written_whole, written_whole

def cohorts():
    with written_whole(Path({str(tmp_path)!r}) / "file") as part, folder_written_whole(Path({str(tmp_path)!r}) / "store"):
        part.write_text("half")
        Path({str(tmp_path)!r}, "ready").touch()
        time.sleep(3600)

sp.datasets.cohorts = cohorts
from spahgc.cli import main
main(["cohorts"])
"""
    process = start("-c", script)
    wait_for(lambda: (tmp_path / "ready").exists())
    process.send_signal(number)
    _, err = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, err) == (code, line)
    assert [path.name for path in tmp_path.iterdir()] == ["ready"]


def test_a_command_under_nohup_goes_on_after_the_terminal_has_closed(start, tmp_path: Path) -> None:
    script = """
import os, signal, sys
from pathlib import Path
signal.signal(signal.SIGHUP, signal.SIG_IGN)  # what nohup does
import spahgc as sp
real = sp.datasets.cohorts

def cohorts():
    os.kill(os.getpid(), signal.SIGHUP)
    return real()

sp.datasets.cohorts = cohorts
from spahgc.cli import main
main(["cohorts"])
"""
    process = start("-c", script)
    out, err = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, err) == (0, "") and "her2st" in out


def test_the_command_line_leaves_the_handlers_of_its_caller_alone(capsys: pytest.CaptureFixture[str]) -> None:
    from spahgc.cli import main

    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)]
    with pytest.raises(SystemExit):
        main(["cohorts"])
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)] == before


# Two processes that write the same

MANY = """
import os, sys, warnings
from pathlib import Path
import spahgc as sp

warnings.simplefilter("ignore")
sp.settings.progress = False
folder, model, overwrite = sys.argv[1:]
sp.SpaHGC.load(model)  # with all libraries, which takes longer than the rest
first = os.fork() == 0
paths = sorted(Path(folder).glob("*.h5ad"))
for _ in range(3):
    table = sp.tl.predict_many(paths, Path(folder) / "out", model=model, device="cpu", overwrite=overwrite == "yes")
    assert set(table["status"]) <= {"written", "kept"}
if not first:
    sys.exit(os.wait()[1] != 0)
"""


@pytest.mark.parametrize("overwrite", ["no", "yes"])
def test_two_processes_that_predict_the_same_slides_into_one_folder_both_finish(
    start, folder: Path, cohort: list[AnnData], quick, overwrite: str
) -> None:
    import anndata as ad

    model = folder / "model"
    sp.tl.fit(cohort[2:], preset=quick, device="cpu").save(model)
    for number in (2, 3):
        (folder / f"{number}.h5ad").unlink()
    process = start("-c", MANY, folder, model, overwrite)
    _, err = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, err) == (0, "")
    assert {path.name for path in (folder / "out").iterdir()} == {"0.zarr", "1.zarr"}, "no part is left"
    for number in range(2):
        assert "spahgc" in ad.read_zarr(folder / "out" / f"{number}.zarr").layers
