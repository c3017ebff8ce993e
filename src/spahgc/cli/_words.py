"""Messages of functions in the words of the shell: options for arguments, commands for functions, paths for keys."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

COMMAND_OF = {
    "io.slide": "spahgc tile",
    "io.st": "spahgc read st",
    "io.hest": "spahgc read hest",
    "io.visium": "spahgc read visium",
    "io.visium_hd": "spahgc read hd",
    "io.xenium": "spahgc read xenium",
    "io.features": "spahgc read features",
    "pp.embed_many": "spahgc embed",
    "tl.predict_many": "spahgc predict",
    "pl.spatial_genes": "spahgc plot",
    "datasets.cohorts": "spahgc cohorts",
    "encoders.list": "spahgc encoders",
    "encoders.list_encoders": "spahgc encoders",
}
"""Commands that are not called as their function."""
ALIASES = {
    "genes": "gene",
    "refs": "reference",
    "references": "reference",
    "sections": "section",
    "methods": "method",
    "slides": "slide",
    "stain_normalization": "stain",
    "path": "output",
}
"""Options that are not called as their argument."""
VALUES = r'"[^"]*"|\'[^\']*\'|\[[^\]]*\]|\([^)]*\)|[\w.+-]*\w|\.\.\.'
"""What may stand behind the sign of an argument."""
CALL = re.compile(
    r"`?\b(?:spahgc|sp)\.(?P<name>(?:pp|tl|pl|io|datasets|encoders)\.\w+)(?P<given>\((?:[^()]|\([^()]*\))*\))?`?"
)
ARGUMENT = re.compile(rf"(?<![\w.\-\[\"/(?&])(?P<name>[a-z]\w*)=(?P<value>{VALUES})?(?![=\w])")
IN_CALL = re.compile(rf"(?P<name>[a-z]\w*)=(?P<value>{VALUES})")
NAMED = re.compile(r"`spahgc ([\w-]+)")
KEY = re.compile(
    r'(?:\b(?:adata|sdata|target|table|data)\.)?\b(?P<part>obs|var|obsm|varm|obsp|layers|uns|tables)(?P<keys>(?:\["[^"\]]*"\])+)'
)
IS = re.compile(r"^(?P<name>[a-z]+_\w+) is (?=\S+;)")
"""Beginning of a message that says what an argument is."""
SAVED = re.compile(r"\bmodel\.save\b")
METHOD = re.compile(r"\b(?P<kind>adata|sdata)\.(?P<name>\w+)(?:\(\))?")
KINDS = {"adata": "AnnData", "sdata": "SpatialData"}
"""What an object is called whose method a message names."""


class Options:
    """Flags of all commands, to find one by the name of an argument."""

    def __init__(self, commands: Mapping[str, Any], command: str | None, named: str | None = None) -> None:
        self.commands, self.command, self.named = commands, command, named

    def beside(self, before: str) -> Options:
        """The same for an argument behind the name of a command, whose options it may be meant for."""
        named = NAMED.findall(before)
        return Options(self.commands, self.command, named[-1]) if named else self

    def flag(self, argument: str, value: str | None) -> str | None:
        """How the shell passes an argument: in this command, the one that was just named, or the first that knows it.

        ``None`` where none does.

        ``run`` knows the options of the others, and is asked last: a message speaks of a single step, and mostly of a prediction.
        """
        for command in (self.command, self.named):
            own = self._in(command, argument, value)
            if own is not None:
                return own
        for name in sorted(self.commands, key=lambda name: (name == "run", name != "predict")):
            found = self._in(name, argument, value)
            if found is not None:
                return f"{found} (of spahgc {name})"
        return None

    def _in(self, command: str | None, argument: str, value: str | None) -> str | None:
        params = getattr(self.commands.get(command or ""), "params", [])
        known = {param.name: param for param in params}
        for name in (argument, ALIASES.get(argument)):
            param = known.get(name)
            if param is None or not param.opts or not param.opts[0].startswith("--"):
                continue
            if getattr(param, "is_flag", False):
                off = param.secondary_opts[0] if param.secondary_opts and value == "False" else None
                return off or param.opts[0]
            plain = _plain(value)
            return param.opts[0] if plain is None else f"{param.opts[0]} {plain}"
        return None


def in_words_of_the_shell(text: str, options: Options) -> str:
    """A message as somebody at a command line understands it.

    Parameters
    ----------
    text
        The message, e.g. ``'obsm["X_uni"] not found. Run spahgc.pp.embed(adata, encoder="uni") first.'``
    options
        Where arguments become options.

    Returns
    -------
    The same with ``spahgc embed --encoder uni`` for a call, ``--mpp`` for ``mpp=``, ``obsm/X_uni`` for a key: the path at
    which it stands in the file. An argument that no command has loses its sign.
    """
    text = IS.sub(lambda match: f"{options.flag(match['name'], None) or match['name']} is ", text)
    text = CALL.sub(lambda match: _command(match, options), text)
    text = KEY.sub(lambda match: "/".join([match["part"], *re.findall(r'\["([^"\]]*)"\]', match["keys"])]), text)
    text = ARGUMENT.sub(lambda match: _option(match, options.beside(match.string[: match.start()])), text)
    text = SAVED.sub("`spahgc fit --output`", text)
    return METHOD.sub(lambda match: f"{KINDS[match['kind']]}'s {match['name']}", text)


def _command(match: re.Match[str], options: Options) -> str:
    function = match["name"].rpartition(".")[2].replace("_", "-")
    command = COMMAND_OF.get(match["name"]) or (f"spahgc {function}" if function in options.commands else None)
    if command is None:
        return f"the Python function spahgc.{match['name']}"
    within = (
        Options({}, None)
        if command.split()[1] not in options.commands
        else Options(options.commands, command.split()[1])
    )
    given = [(each["name"], each["value"]) for each in IN_CALL.finditer(match["given"] or "")]
    flags = [within._in(within.command, name, value) for name, value in given]
    return " ".join([f"`{command}", *(flag for flag in flags if flag is not None)]) + "`"


def _option(match: re.Match[str], options: Options) -> str:
    flag = options.flag(match["name"], match["value"])
    if flag is not None:
        return flag
    value = _plain(match["value"])
    return match["name"] if value is None else f"{match['name']} {value}"


def _plain(value: str | None) -> str | None:
    """A value as it is typed: without quotes; ``None`` for none."""
    if value is None or value in ("...", "True", "False", "None"):
        return None
    return value.strip("\"'[]()").replace('", "', " ") or None
