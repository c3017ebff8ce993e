"""Defaults of a command's options from a YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

REMEDY = "Write options and values, one a line, such as `encoder: uni`."


def config_option() -> Any:
    """An option whose file gives defaults; what stands on the line counts before it."""
    return typer.Option(
        "--config",
        is_eager=True,
        callback=_take_defaults,
        help="A YAML file with defaults of these options, such as `encoder: uni`; the line counts before it.",
    )


def _take_defaults(ctx: typer.Context, value: Path | None) -> Path | None:
    if value is None or ctx.resilient_parsing:
        return value
    path = value.expanduser()
    given = _read(path)
    known = {flag.lstrip("-"): param for param in ctx.command.params for flag in param.opts if flag.startswith("--")}
    known |= {param.name: param for param in ctx.command.params if param.param_type_name == "option" and param.name}
    unknown = [name for name in given if name not in known or known[name].name == "config"]
    if unknown:
        raise ValueError(
            f"--config {path} names {', '.join(unknown)}, which spahgc {ctx.info_name} has no option for. Choose from "
            f"{', '.join(sorted(name for name in known if '_' not in name and name != 'config'))}."
        )
    defaults: dict[str, Any] = {}
    for name, entry in given.items():
        param = known[name]
        listed = [str(each) for each in entry] if isinstance(entry, list) else entry
        if param.multiple and not isinstance(listed, list):
            listed = [str(listed)]
        defaults[str(param.name)] = listed
    ctx.default_map = {**(ctx.default_map or {}), **defaults}
    return value


def _read(path: Path) -> dict[str, Any]:
    import yaml

    from spahgc._reading import reading

    with reading(path, "--config", REMEDY):
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
            raise ValueError("it holds no options with values")
    return {name: entry for name, entry in content.items() if entry is not None}
