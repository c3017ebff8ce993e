"""Options that several commands share: one name, one meaning, one help text, one way of completing them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spahgc.cli._choices import choice, device_kinds, encoder_names, method_names, preset_names

OFFLINE_ENCODER = "efficientnet_lite0"
"""Its weights come with the installation: what works on the first day, without a network and without asking for access."""
Device = Annotated[
    str | None, choice("cpu, cuda, cuda:1 or mps; the first accelerator if left out.", device_kinds, closed=False)
]
Seed = Annotated[int, typer.Option(help="Seed of everything that is drawn.")]
Group = Annotated[
    str | None, typer.Option(help='Column of obs that names the patient, in the place of obs["patient"].')
]
Trust = Annotated[
    bool,
    typer.Option("--trust/--no-trust", help="Say how far and for whom a prediction can be believed; off saves time."),
]
Preset = Annotated[str, choice("paper or default.", preset_names)]
Encoder = Annotated[str, choice("Encoder of the patches, see spahgc encoders.", encoder_names, closed=False)]
MissingEncoder = Annotated[
    str | None,
    choice("Embed the slides that have no embedding with this encoder first.", encoder_names, closed=False),
]
Checkpoint = Annotated[Path | None, typer.Option(help="File with the encoder's weights.")]
Context = Annotated[
    bool | None,
    typer.Option(
        "--context/--no-context",
        help="Surroundings that an embedding shows: all, 12 passes through the encoder a spot, or none, 1 pass; if left out "
        "those that pay, 3 passes.",
    ),
]
MissingContext = Annotated[
    bool | None,
    typer.Option(
        "--context/--no-context",
        help="With --encoder: surroundings that an embedding shows, as spahgc embed has them.",
    ),
]
Embedding = Annotated[str | None, typer.Option(help="Key of the embedding in obsm.")]
References = Annotated[
    list[Path] | None,
    typer.Option(help="Measured slides: .h5ad or .zarr, one or several, a folder of them, or a pattern in quotes."),
]
Bank = Annotated[
    Path | None, typer.Option(help="A bank of references on disk (sp.pp.reference_bank), instead of --reference.")
]
UnitsOption = Annotated[
    str | None,
    typer.Option(
        "--units",
        help="What the values are: counts, log1p, normalized, or transformed to be taken as they are; found out if left out.",
    ),
]
ReferenceLayer = Annotated[str | None, typer.Option(help="Layer of the references with their counts; X if left out.")]
Genes = Annotated[
    list[str] | None,
    typer.Option(
        "--gene",
        "--genes",
        help="A gene of the panel, repeat; or all; or union, for references of different platforms. Selected if left out.",
    ),
]
Key = Annotated[str, typer.Option(help="Key of the prediction.")]
TableKey = Annotated[
    str | None, typer.Option(help="Table of every SpatialData among the slides; the only one if left out.")
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace the output if it exists, also where it is the input itself.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Methods = Annotated[
    list[str] | None,
    # Open, since a method may have its preset with it: spahgc:paper.
    choice("A method to compare, repeat; spahgc, ridge and nearest if left out.", method_names, closed=False),
]


def chosen_genes(genes: list[str] | None) -> list[str] | str | None:
    """What the functions take as ``genes=``."""
    from spahgc.pp._genes import ALL_GENES, UNION_GENES

    return genes[0] if genes in ([ALL_GENES], [UNION_GENES]) else genes


def refuse(given: dict[str, object], why: str) -> None:
    """Refuse options that have no meaning beside others.

    Parameters
    ----------
    given
        Values by the name of their option; those that are set are refused.
    why
        The rest of the message.
    """
    names = [name for name, value in given.items() if value not in (None, False, [])]
    if names:
        raise ValueError(f"{' and '.join(names)} {why}")
