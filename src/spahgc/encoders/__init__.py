"""Image encoders: which there are, what each needs, and how one is loaded. Importing this loads no torch.

``_cards.py`` is the one list of them. ``_load.py`` makes a network of a card, ``_networks.py`` and ``_rename.py`` have what
timm lacks, ``_record.py`` and ``_layout.py`` what is said of an embedding and its columns. May import the files at the root.
"""

from spahgc.encoders._encoder import Encoder
from spahgc.encoders._hub import EncoderUnavailableError
from spahgc.encoders._load import load_encoder
from spahgc.encoders._record import EncoderRecord
from spahgc.encoders._registry import describe_encoder, list_encoders, register

list = list_encoders  # the name of `spahgc.encoders.list`; nothing below needs the builtin

__all__ = [
    "Encoder",
    "EncoderRecord",
    "EncoderUnavailableError",
    "describe_encoder",
    "list",
    "list_encoders",
    "load_encoder",
    "register",
]
