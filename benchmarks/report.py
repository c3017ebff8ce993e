"""Size of a report page, and the time until a browser shows it.

    python benchmarks/report.py [--genes 300] [--spots 4000] [--output FOLDER]

Simulates a slide with a measurement, a prediction, its spread, support, domains, a graph and patches, writes its page
and opens it in headless Chromium, several times, each in a fresh context.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import spahgc as sp
from browser import chromium, opened
from report_slides import large_slide

N_OPENINGS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--genes", type=int, default=300)
    parser.add_argument("--spots", type=int, default=4000)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        path = (arguments.output or Path(scratch)) / "report.html"
        slide, refs = large_slide(n_spots=arguments.spots, n_genes=arguments.genes)
        start = time.perf_counter()
        sp.pl.report(slide, path, refs=refs)
        print(f"written in {time.perf_counter() - start:.1f} s, {path.stat().st_size / 1e6:.2f} MB")
        seconds = []
        with chromium() as browser:
            for _ in range(N_OPENINGS):
                start = time.perf_counter()
                with opened(browser, path, viewport={"width": 1400, "height": 900}) as report:
                    seconds.append(time.perf_counter() - start)
                    report.assert_quiet()
        shown = ", ".join(f"{second:.2f}" for second in seconds)
        print(f"ready after {shown} s; median {statistics.median(seconds):.2f} s, a new browser context included")


if __name__ == "__main__":
    main()
