"""The size of the house: lines of code without docstrings and comments, and what its signatures leave open.

    python benchmarks/house.py

Printed are, for the package and each of its rooms, the files, the lines that hold code (no blank lines, comments or
docstrings; a statement of several lines counts each), how often ``Any`` stands in the signature of a function, and the
``assert`` statements.
"""

from __future__ import annotations

import argparse
import ast
import io
import tokenize
from collections import Counter, defaultdict
from pathlib import Path

import pandas as pd
from _cohorts import markdown

SOURCE = Path(__file__).parents[1] / "src" / "spahgc"
NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=SOURCE, help="another state of the package (default: this one)")
    parser.add_argument("--files", action="store_true", help="list the files whose signatures hold Any as well")
    arguments = parser.parse_args()
    rooms: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for path in sorted(arguments.source.rglob("*.py")):
        room, found = path.relative_to(arguments.source).parts[0].removesuffix(".py"), measure(path)
        rooms[room] += found
        rooms["(all)"] += found
        if arguments.files and found["Any"]:
            print(f"{path.relative_to(arguments.source)}: {found['Any']}")
    table = pd.DataFrame.from_dict(rooms, orient="index").fillna(0).astype(int).sort_index()
    print(markdown(table.astype(str).rename_axis("room")))


def measure(path: Path) -> Counter[str]:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return Counter(
        files=1,
        lines=len(code_lines(text, tree)),
        Any=sum(mentions_of_any(function) for function in functions),
        asserts=sum(isinstance(node, ast.Assert) for node in ast.walk(tree)),
    )


def code_lines(text: str, tree: ast.Module) -> set[int]:
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(tree):  # docstrings of modules, classes, functions, and of constants and fields
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return lines


def mentions_of_any(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    arguments = function.args
    listed = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    annotations = [argument.annotation for argument in listed if argument is not None]
    return sum(
        isinstance(node, ast.Name) and node.id == "Any"
        for annotation in (*annotations, function.returns)
        if annotation is not None
        for node in ast.walk(annotation)
    )


if __name__ == "__main__":
    main()
