"""The line of a shell before it is parsed: options that take several values, which patterns such as ``*.h5ad`` become."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def command_name(arguments: list[str]) -> str | None:
    """The command of a line, if it names one."""
    return next((each for each in arguments if not each.startswith("-")), None)


def spread(arguments: list[str], commands: Mapping[str, Any]) -> list[str]:
    """Repeat an option that may be repeated before each of its values, so that ``--reference refs/*.h5ad`` works unquoted.

    A value that the command needs as an argument of its own, and that stands nowhere else, stays one: that of
    ``report --reference A.h5ad OUT.h5ad``.

    Parameters
    ----------
    arguments
        The line, the command among its first words.
    commands
        Parsers of the commands by name, of which the parameters are read.
    """
    name = command_name(arguments)
    if name is None or name not in commands:
        return arguments
    begin = arguments.index(name) + 1
    params = commands[name].params
    takes_value = {flag for param in params if not getattr(param, "is_flag", False) for flag in param.opts}
    repeated = {flag for param in params if getattr(param, "multiple", False) for flag in param.opts}
    needed = sum(param.required for param in params if param.param_type_name == "argument")
    spread_out, extra, rest = list(arguments[:begin]), [], arguments[begin:]
    place, standing = 0, 0
    while place < len(rest):
        word = rest[place]
        if word == "--":
            standing += len(rest) - place - 1
            break
        spread_out.append(word)
        place += 1
        if not word.startswith("-"):
            standing += 1
        elif word in takes_value and place < len(rest):
            spread_out.append(rest[place])
            place += 1
            while word in repeated and place < len(rest) and not rest[place].startswith("-"):
                extra.append(len(spread_out))
                spread_out += [word, rest[place]]
                place += 1
    # The last of these are arguments where the command has too few.
    for index in reversed(extra[len(extra) - max(0, needed - standing) :] if needed > standing else []):
        del spread_out[index]
    return spread_out + rest[place:]
