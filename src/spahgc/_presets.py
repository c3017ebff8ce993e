"""All numbers of a fit in one place, and the named sets of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any


@dataclass(frozen=True)
class Parameters:
    """Parameters of the graph, the network and its training; the defaults are the paper's."""

    n_abundant: int = 0
    """Most abundant genes of each reference that a panel gets besides the variable ones."""
    n_spatial: int = 5
    """Q: neighbours in the plane (TS)."""
    n_cross: int = 7
    """K: reference spots of a target spot (CS)."""
    n_reference: int = 7
    """K: peers of a reference spot (RS)."""
    standardize: bool = False
    """Standardise every dimension of the embedding over the spots of each slide."""
    width: int = 256
    layers: int = 4
    heads: int = 4
    target_hidden: float = 0.8
    """Share of a target's entries that view 1 hides."""
    reference_hidden: float = 0.9
    """Share of a reference's entries that view 1 hides."""
    epochs: int = 200
    """Epochs, or the most of them where ``early_stopping`` chooses."""
    early_stopping: bool = False
    """Choose the number of epochs on a reference held out, then train on all references for that many."""
    learning_rate: float = 1e-4
    weight_decay: float = 1e-4

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers by name."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Parameters:
        """The inverse of :meth:`to_dict`; refuses names it does not know."""
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown:
            raise ValueError(
                f"unknown parameters: {', '.join(unknown)}. Known are: {', '.join(f.name for f in fields(cls))}."
            )
        return replace(cls(), **values)


PRESETS = {
    "paper": Parameters(),
    "default": Parameters(n_abundant=300),
}
"""``"paper"`` is the article to the letter; ``"default"`` is the best that this package knows how to do."""


def find_preset(preset: str | Parameters) -> Parameters:
    """Parameters of a name, or the parameters themselves."""
    if isinstance(preset, Parameters):
        return preset
    if preset not in PRESETS:
        raise ValueError(f'preset="{preset}" is not known. Choose one of {", ".join(PRESETS)}.')
    return PRESETS[preset]
