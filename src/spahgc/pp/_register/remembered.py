"""Pairs that this process has registered before: of the same two pictures nothing else would be found."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from copy import deepcopy
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from spahgc.pp._register.picture import Picture

Found = TypeVar("Found")

MAX_PAIRS = 1_000
"""Pairs that are kept, those that were asked for last; each takes some kilobytes."""


def digest_of(picture: Picture) -> bytes:
    """What tells a picture from others: its pixels, and where and how large they are on the slide."""
    hashed = hashlib.blake2b(digest_size=16)
    numbers = picture.origin, picture.scale, picture.mpp, picture.pitch_px, picture.rgb.shape
    hashed.update(repr(numbers).encode())
    hashed.update(picture.rgb.tobytes())
    hashed.update(b"" if picture.inside is None else picture.inside.tobytes())
    return hashed.digest()


class Remembered(Generic[Found]):
    """What was found of pairs, by the digests of ``(fixed, moving)``. Any Python thread may ask; the answer is the caller's own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pairs: OrderedDict[tuple[bytes, bytes], Found] = OrderedDict()

    def get(self, key: tuple[bytes, bytes]) -> Found | None:
        """A copy of what was found of a pair; ``None`` where it was not registered, or long ago."""
        with self._lock:
            if key not in self._pairs:
                return None
            self._pairs.move_to_end(key)
            return deepcopy(self._pairs[key])

    def keep(self, key: tuple[bytes, bytes], pair: Found) -> None:
        """Keep a copy of what was found."""
        with self._lock:
            self._pairs[key] = deepcopy(pair)
            while len(self._pairs) > MAX_PAIRS:
                self._pairs.popitem(last=False)

    def forget(self) -> None:
        """Keep nothing any longer."""
        with self._lock:
            self._pairs.clear()
