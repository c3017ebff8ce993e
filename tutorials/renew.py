"""Run the tutorials and keep their outputs: from each text (.md) its notebook (.ipynb).

    python tutorials/renew.py                     # all of them
    python tutorials/renew.py 01 05               # some
    python tutorials/renew.py --text-only         # the text has changed, no code has: take the outputs that are there

The text is what is written by hand. A notebook is made from it, run in a temporary folder, and cleaned: what goes to
stderr is dropped, pictures of tissue are stored as JPEG, and nothing is kept that differs from run to run without
meaning (ids, timings). It takes its place only if nothing in it names a folder of this machine.
"""

from __future__ import annotations

import argparse
import ast
import base64
import io
import os
import re
import sys
import tempfile
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image

HERE = Path(__file__).parent
KERNEL = {
    "display_name": "Python 3",
    "language": "python",
    "name": "python3",
}
FORMATS = "ipynb,md:myst"
DPI = 100
JPEG_QUALITY = 80
JPEG_GAIN = 0.7
"""A picture becomes a JPEG where that is smaller than this share of the PNG: tissue does, curves stay sharp."""
MOST_BYTES = 600_000
TIMEOUT_S = 600
FOREIGN = re.compile(
    r"/(home|root|tmp|work|Users|usr|opt)/|[A-Z]:\\|\bat 0x[0-9a-f]+"
)
"""Folders of a machine and addresses of objects."""


def read_text(path: Path) -> NotebookNode:
    """Notebook without outputs; its cells are called by their places, so that a diff shows what has changed."""
    notebook = jupytext.read(path)
    for place, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{place:02d}"
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    notebook.metadata = NotebookNode(
        {
            "jupytext": {"formats": FORMATS},
            "kernelspec": KERNEL,
            "language_info": {"name": "python"},
        }
    )
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def execute(notebook: NotebookNode, folder: Path) -> NotebookNode:
    """Run all cells in a folder; raises at the first error."""
    client = NotebookClient(
        notebook,
        timeout=TIMEOUT_S,
        kernel_name=KERNEL["name"],
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute()
    notebook.metadata["language_info"] = NotebookNode({"name": "python"})
    return notebook


def cleaned(notebook: NotebookNode) -> NotebookNode:
    """Outputs as they are kept."""
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        cell.metadata.pop("execution", None)
        cell.outputs = [
            output
            for output in cell.outputs
            if output.get("name") != "stderr"
        ]
        for output in cell.outputs:
            data = output.get("data", {})
            if "image/png" in data:
                kind, picture = _smaller(data.pop("image/png"))
                data[kind], data["text/plain"] = (
                    picture,
                    "<Figure>",
                )  # its size in pixels says nothing
            if (
                "text/html" in data
            ):  # pandas names the parts of a styled table at random
                data["text/html"] = re.sub(
                    r"T_[0-9a-f]{5}",
                    f"T_{cell['id'][-2:]}",
                    data["text/html"],
                )
            if ".Styler" in data.get("text/plain", ""):
                data["text/plain"] = "<table>"
    return notebook


def _smaller(picture: str) -> tuple[str, str]:
    """Media type and content, in base64, of a PNG that may be better off as a JPEG."""
    with Image.open(io.BytesIO(base64.b64decode(picture))) as image:
        flat = Image.alpha_composite(
            Image.new("RGBA", image.size, "white"), image.convert("RGBA")
        ).convert("RGB")
    png, jpeg = io.BytesIO(), io.BytesIO()
    flat.save(png, "png", optimize=True)
    flat.save(
        jpeg, "jpeg", quality=JPEG_QUALITY, subsampling=0, optimize=True
    )
    is_smaller = len(jpeg.getvalue()) < JPEG_GAIN * len(png.getvalue())
    kind, content = (
        ("image/jpeg", jpeg) if is_smaller else ("image/png", png)
    )
    return kind, base64.b64encode(content.getvalue()).decode()


def with_outputs_of(notebook: NotebookNode, old: Path) -> NotebookNode:
    """The outputs of a notebook whose code is the same, but for its layout.

    Raises
    ------
    ValueError
        If code has changed since.
    """
    kept = [
        cell
        for cell in nbformat.read(old, as_version=4).cells
        if cell.cell_type == "code"
    ]
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if [_meaning(cell.source) for cell in kept] != [
        _meaning(cell.source) for cell in code
    ]:
        raise ValueError(
            f"the code of {old.name} has changed since it was run. Leave --text-only out."
        )
    for cell, before in zip(code, kept, strict=True):
        cell.outputs, cell.execution_count = (
            before.outputs,
            before.execution_count,
        )
    return notebook


def _meaning(code: str) -> str:
    """What stays the same where only comments and line breaks differ; magics begin with a percent sign."""
    lines = code.splitlines()
    magics = [line for line in lines if line.startswith("%")]
    return ast.dump(
        ast.parse(
            "\n".join(line for line in lines if not line.startswith("%"))
        )
    ) + "".join(magics)


def faults(notebook: NotebookNode, n_bytes: int) -> list[str]:
    """What a notebook must not be kept with."""
    found = []
    for cell in (
        cell for cell in notebook.cells if cell.cell_type == "code"
    ):
        for output in cell.outputs:
            if output.output_type == "error":
                found.append(f"{cell['id']} ends with {output.ename}")
            if output.get("name") == "stderr":
                found.append(
                    f"{cell['id']} holds what was written to stderr"
                )
            texts = [
                output.get("text", ""),
                *(
                    v
                    for k, v in output.get("data", {}).items()
                    if k.startswith("text/")
                ),
            ]
            found += [
                f"{cell['id']} holds {match[0]!r}"
                for text in texts
                if (match := FOREIGN.search(text))
            ]
    if n_bytes > MOST_BYTES:
        found.append(f"{n_bytes} bytes, at most {MOST_BYTES} are kept")
    return found


def renew(path: Path, text_only: bool) -> None:
    """Make the notebook of a text."""
    begun, target = time.perf_counter(), path.with_suffix(".ipynb")
    notebook = read_text(path)
    if text_only:
        notebook = with_outputs_of(notebook, target)
    else:
        with tempfile.TemporaryDirectory() as folder:
            notebook = cleaned(execute(notebook, Path(folder)))
    nbformat.validate(notebook)
    written = nbformat.writes(notebook) + "\n"
    problems = faults(notebook, len(written.encode()))
    if problems:
        raise SystemExit(
            f"{target.name} is left as it was: {'; '.join(problems)}."
        )
    target.write_text(written, encoding="utf-8")
    print(
        f"{target.name}: {len(written) / 1e3:.0f} kB, {time.perf_counter() - begun:.0f} s",
        file=sys.stderr,
    )


def main() -> None:
    """Renew the tutorials that the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "number",
        nargs="*",
        help="how the name begins, such as 02; left out: all",
    )
    parser.add_argument(
        "--text-only",
        action="store_true",
        help="keep the outputs, where no code has changed",
    )
    arguments = parser.parse_args()
    texts = sorted(
        path
        for path in HERE.glob("[0-9]*.md")
        if path.name.startswith(tuple(arguments.number or "0"))
    )
    if not texts:
        parser.error(
            f"no tutorial begins with {' or '.join(arguments.number)}"
        )
    with tempfile.TemporaryDirectory() as settings:
        # The kernel reads these: figures are drawn inline, at this resolution.
        (Path(settings) / "matplotlibrc").write_text(f"figure.dpi: {DPI}\n")
        os.environ["MATPLOTLIBRC"] = settings
        os.environ.pop("MPLBACKEND", None)
        for path in texts:
            renew(path, arguments.text_only)


if __name__ == "__main__":
    main()
