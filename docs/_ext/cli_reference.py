"""The directive ``cli-reference``: every command with its options, made from the command line itself by every build."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from sphinx.util.docutils import SphinxDirective

CODE = re.compile(r"(?<![`\w-])(--[a-z][a-z-]*|\w+\[\"[^\"]*\"\]|sp\.[\w.]+(?:\([^)]*\))?|\.(?:h5ad|zarr|csv|html)\b)")
"""What the help says of options, keys, functions and endings, which a page sets as code."""
EXAMPLE = "Example:"


def as_code(text: str) -> str:
    """A help text in Markdown."""
    return CODE.sub(r"`\1`", " ".join(text.split()))


def paragraphs(text: str) -> Iterator[str]:
    """Paragraphs of a help text in Markdown."""
    for block in text.split("\n\n"):
        yield as_code(block)


def usage(name: str, command: Any) -> str:
    """The command as it is typed, what it cannot do without written out."""
    words = [f"spahgc {name}"]
    for each in command.params:
        if each.param_type_name == "argument":
            words.append(f"{_value(each)}{' ...' if each.nargs == -1 else ''}")
        elif each.required:
            words.append(f"{each.opts[0]} {_value(each)}")
    return " ".join([*words, "[OPTIONS]"])


def _value(param: Any) -> str:
    return (param.metavar or param.name).upper()


def row(param: Any) -> str:
    """An argument or option as a row of a table."""
    names = [_value(param)] if param.param_type_name == "argument" else [*param.opts, *param.secondary_opts]
    repeated = ", can be repeated" if param.multiple else ""
    cells = [", ".join(f"`{name}`" for name in names) + repeated, as_code(param.help or ""), default(param, names)]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def default(param: Any, names: list[str]) -> str:
    """What holds where an option is left out."""
    if param.required:
        return "required"
    if isinstance(param.default, bool):
        return f"`{names[0] if param.default else names[-1]}`" if param.secondary_opts else ""
    if param.default is None:
        return ""
    return f"`{param.default:g}`" if isinstance(param.default, float) else f"`{param.default}`"


def section(name: str, command: Any) -> Iterator[str]:
    """A command as a section of a page."""
    yield from (f"## spahgc {name}", "")
    yield from ("```text", usage(name, command), "```", "")
    for text in paragraphs(command.help):
        yield from (text, "")
    example = command.epilog.partition(EXAMPLE)[2].strip("\n").splitlines()
    yield from ("```bash", *(line.strip() for line in example), "```", "")
    yield from ("| option | meaning | default |", "|---|---|---|", *map(row, command.params), "")


def markdown(app: Any) -> str:
    """All commands of a typer application."""
    import typer

    group = typer.main.get_command(app)
    lines = [line for name, command in group.commands.items() for line in section(name, command)]
    return "\n".join(lines)


def exit_codes(codes: dict[int, str]) -> str:
    """The exit codes as a table."""
    return "\n".join(["| code | meaning |", "|---|---|", *(f"| {code} | {text} |" for code, text in codes.items())])


class CliReference(SphinxDirective):
    """``cli-reference commands`` or ``cli-reference exit-codes``."""

    required_arguments = 1

    def run(self):
        from spahgc.cli import EXIT_CODES, app

        if self.arguments[0] == "exit-codes":
            return self.parse_text_to_nodes(exit_codes(EXIT_CODES))
        if self.arguments[0] == "commands":
            return self.parse_text_to_nodes(markdown(app), allow_section_headings=True)
        raise self.error(f'cli-reference knows "commands" and "exit-codes", not "{self.arguments[0]}".')


def setup(app):
    app.add_directive("cli-reference", CliReference)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
