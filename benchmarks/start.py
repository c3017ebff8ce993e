"""Starting: seconds until the package is imported and the command line has answered.

    python benchmarks/start.py

Each is a process of its own, run several times; printed are the least and the median seconds, and what of the heavy
packages it loaded.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys

import pandas as pd
from _cohorts import made_with, markdown

STARTS = {
    "import spahgc": "import spahgc",
    "spahgc.pp": "import spahgc; spahgc.pp",
    "spahgc.tl": "import spahgc; spahgc.tl",
    "spahgc.pl": "import spahgc; spahgc.pl",
    "spahgc --help": "from spahgc.cli import main; sys.argv[1:] = ['--help']; main()",
    "spahgc cross-validate --help": (
        "from spahgc.cli import main; sys.argv[1:] = ['cross-validate', '--help']; main()"
    ),
}
PROBE = """
import contextlib, io, sys, time
started = time.perf_counter()
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
    {start}
seconds = time.perf_counter() - started
print(seconds, *sorted({{"torch", "timm", "scanpy", "anndata", "pandas", "matplotlib"}} & set(sys.modules)))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="processes of each (default: 5)")
    rounds = parser.parse_args().rounds
    rows = {}
    for name, start in STARTS.items():
        call = [sys.executable, "-c", PROBE.format(start=start)]
        runs = [subprocess.run(call, capture_output=True, text=True, check=True).stdout.split() for _ in range(rounds)]
        seconds = [float(run[0]) for run in runs]
        rows[name] = {
            "least s": f"{min(seconds):.2f}",
            "median s": f"{statistics.median(seconds):.2f}",
            "loads": ", ".join(runs[0][1:]),
        }
    print(markdown(pd.DataFrame.from_dict(rows, orient="index").rename_axis("start")), made_with(), sep="\n\n")


if __name__ == "__main__":
    main()
