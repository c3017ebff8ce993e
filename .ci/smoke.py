"""Check an installed spahgc from outside its checkout: import, files, command line, main job, figure, report.

    python .ci/smoke.py [--version 0.1.0] [--checkout FOLDER]

Run it with the Python of the environment to be checked. It needs the package and what it requires, no pytest, no
network, and a minute. Every check that fails raises, with what was expected and what was found.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from importlib.metadata import files, version
from importlib.resources import files as resources
from pathlib import Path

HEAVY = {"torch", "timm", "torch_geometric", "sklearn", "scanpy", "anndata", "matplotlib"}
REPORT_FOLDER = "pl/_report"
SUFFIXES_OF_THE_REPORT = {".html", ".css", ".js"}
N_SPOTS = 30
"""Of a slide of the demo: enough for every step, and a few seconds."""
MIN_FIGURE_BYTES = 20_000
"""An empty figure of that size is smaller."""

PROBE = """
import json, sys, time
started = time.perf_counter()
import spahgc
seconds = time.perf_counter() - started
found = {"file": spahgc.__file__, "version": spahgc.__version__, "seconds": seconds, "loaded": list(sys.modules)}
print(json.dumps(found))
"""


def expect(holds: bool, message: str) -> None:
    """Fail with the message; an assert would vanish under ``python -O``."""
    if not holds:
        raise SystemExit(f"smoke: {message}")


def spahgc(*arguments: str, folder: Path) -> str:
    """What the command line prints; fails with all it said where its exit status is not 0."""
    command = Path(sysconfig.get_path("scripts")) / "spahgc"
    expect(command.is_file(), f"the installation made no command {command}")
    run = subprocess.run([command, *arguments], cwd=folder, capture_output=True, text=True)
    expect(run.returncode == 0, f"spahgc {' '.join(arguments)} ended with {run.returncode}:\n{run.stdout}{run.stderr}")
    return run.stdout


def check_import(folder: Path, expected: str | None, checkout: Path | None) -> None:
    """The package is the installed one, of the expected version, and loads nothing heavy."""
    probes = []
    for _ in range(3):  # the best of three: the first compiles, and a machine that is busy elsewhere is not measured
        run = subprocess.run([sys.executable, "-c", PROBE], cwd=folder, capture_output=True, text=True)
        expect(run.returncode == 0, f"import spahgc failed:\n{run.stderr}")
        probes.append(json.loads(run.stdout))
    found = probes[0]
    place = Path(found["file"]).resolve()
    if checkout is not None:
        expect(not place.is_relative_to(checkout / "src"), f"{place} is the checkout's, not the installed package")
    expect(found["version"] == version("spahgc"), f"__version__ {found['version']}, metadata {version('spahgc')}")
    if expected is not None:
        expect(found["version"] == expected, f"version {found['version']}, expected {expected}")
    heavy = sorted(HEAVY & set(found["loaded"]))
    expect(not heavy, f"import spahgc loads {', '.join(heavy)}")
    seconds = min(probe["seconds"] for probe in probes)
    print(f"smoke: spahgc {found['version']} from {place.parent}, imported in {seconds:.3f} s")


def check_files(checkout: Path | None) -> None:
    """Types, licence, and the page, style, script and library of the report are installed with the code."""
    if checkout is not None:
        sources = [
            path.relative_to(checkout / "src") for path in (checkout / "src" / "spahgc").rglob("*") if path.is_file()
        ]
        wanted = {str(path) for path in sources if path.suffix != ".pyc"}
        expect(bool(wanted), f"{checkout} is no checkout: it has no src/spahgc")
        missing = sorted(wanted - {str(file) for file in files("spahgc") or [] if Path(str(file.locate())).is_file()})
        expect(not missing, f"not installed: {', '.join(missing)}")
    expect((resources("spahgc") / "py.typed").is_file(), "py.typed is missing")
    installed = [str(file) for file in files("spahgc") or []]
    expect(any(".dist-info" in name and "LICENSE" in name for name in installed), "the licence is missing")
    report = [name for name in installed if name.startswith(f"spahgc/{REPORT_FOLDER}/")]
    missing = SUFFIXES_OF_THE_REPORT - {Path(name).suffix for name in report}
    expect(not missing, f"the report has no {', '.join(sorted(missing))} in spahgc/{REPORT_FOLDER}: {report}")
    vendored = [name for name in report if "/vendor/" in name]
    expect(any("LICENSE" in name for name in vendored), f"a vendored library has no licence beside it: {vendored}")
    print(f"smoke: {len(installed)} files installed, {len(report)} of them of the report")


def check_main_job(folder: Path) -> None:
    """The command of the README makes a slide, scores, a figure with something on it, and a report."""
    expect("predict" in spahgc("--help", folder=folder), "spahgc --help does not name the command predict")
    started = time.perf_counter()
    spahgc("--quiet", "demo", "--output", "demo", "--spots", str(N_SPOTS), "--device", "cpu", folder=folder)
    for name in ("target.h5ad", "scores.csv", "spatial_genes.png", "report.html"):
        expect((folder / "demo" / name).is_file(), f"spahgc demo wrote no {name}")
    check_figure(folder / "demo" / "spatial_genes.png")
    spahgc("--quiet", "report", "demo/target.h5ad", "--output", "report.html", folder=folder)
    page = (folder / "report.html").read_text(encoding="utf-8")
    expect(page.lstrip().lower().startswith("<!doctype html"), "spahgc report wrote no HTML page")
    print(f"smoke: demo and report took {time.perf_counter() - started:.0f} s")


def check_figure(path: Path) -> None:
    """A picture that shows something: neither small nor of one colour."""
    from PIL import Image

    with Image.open(path) as image:
        colours = image.convert("RGB").getcolors(maxcolors=2**24) or []
    expect(path.stat().st_size > MIN_FIGURE_BYTES, f"{path.name} has {path.stat().st_size} bytes only")
    expect(len(colours) > 100, f"{path.name} has {len(colours)} colours only")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", help="that the package must have")
    parser.add_argument(
        "--checkout",
        type=Path,
        help="that the package was built from: it has all its files, and is not imported from it",
    )
    arguments = parser.parse_args()
    for name in ("PYTHONPATH", "PYTHONHOME"):  # would let another copy of the package in
        os.environ.pop(name, None)
    os.environ["MPLBACKEND"] = "agg"
    checkout = None if arguments.checkout is None else arguments.checkout.resolve()
    with tempfile.TemporaryDirectory() as folder:
        check_import(Path(folder), arguments.version, checkout)
        check_files(checkout)
        check_main_job(Path(folder))
    print("smoke: passed")


if __name__ == "__main__":
    main()
