"""Which encoders can be loaded here: weights in the cache, in packages, or on the hub, which is asked for them."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from spahgc.encoders._card import EncoderCard, HubFile

HUB_TIMEOUT_S = 4.0
"""Longest wait for the first answer of the hub, and again for all the others together."""
NOT_A_HUB = "the answer does not come from a Hugging Face hub; check proxy, firewall and HF_ENDPOINT"
UNANSWERED = "the hub did not answer in time"

CACHED, INSTALLED, LOCAL, DOWNLOAD = "cached", "installed", "local", "download"
GATED, OFFLINE, UNREACHABLE, MISSING = "gated", "offline", "unreachable", "missing"
LOADABLE = (CACHED, INSTALLED, LOCAL, DOWNLOAD)
"""States of weights with which an encoder can be loaded."""


@dataclass(frozen=True)
class Hub:
    """The Hugging Face hub as it is set up here; of a login only whether there is one."""

    endpoint: str
    offline: bool
    logged_in: bool
    reachable: bool | None
    """``None`` where it was not asked."""
    reason: str | None = None


@dataclass(frozen=True)
class EncoderState:
    """Whether the weights of an encoder can be had here."""

    name: str
    state: str
    detail: str
    page: str | None = None
    gated: bool = False
    size: int | None = None
    """Bytes that would be downloaded."""

    @property
    def loadable(self) -> bool:
        """Whether it can be loaded."""
        return self.state in LOADABLE

    @property
    def advice(self) -> str:
        """What to do about weights that cannot be loaded."""
        if self.state == GATED:
            return f"request access on {self.page}, then run `hf auth login`"
        if self.state == OFFLINE:
            return "load it once with the network and HF_HUB_OFFLINE unset, or pass a file with checkpoint="
        if self.state == UNREACHABLE:
            return "try again later, or pass a file with checkpoint="
        return "" if self.loadable else "install that package anew, or pass a file with checkpoint="


class Answer(NamedTuple):
    """State of weights by the answer to a request, and whether a hub gave that answer."""

    state: EncoderState
    from_hub: bool


def hub_and_encoders(cards: Iterable[EncoderCard]) -> tuple[Hub, list[EncoderState]]:
    """What can be loaded here. The hub is asked about weights that are not here, and about any if all are."""
    from huggingface_hub import constants, get_token

    from spahgc.encoders._cards import CARDS

    cards = list(cards)
    local = {card.name: _local_state(card) for card in cards}
    missing = [card for card in cards if local[card.name] is None]
    offline = bool(constants.HF_HUB_OFFLINE)
    reachable, reason = None, None
    states: dict[str, EncoderState] = {}
    if offline:
        states = {card.name: _state(card, OFFLINE, "not in the cache, and offline mode is on") for card in missing}
    else:
        first = missing[0] if missing else next(card for card in CARDS.values() if card.hub_id)
        answer = _ask_all([first])[first.name]
        reachable = answer.from_hub
        if reachable:
            others = _ask_all(missing[1:])
            states = {first.name: answer.state} | {name: other.state for name, other in others.items()}
        else:  # nor would the others be answered
            reason = answer.state.detail
            states = {card.name: _state(card, UNREACHABLE, reason) for card in missing}
    hub = Hub(_without_login(constants.ENDPOINT), offline, get_token() is not None, reachable, reason)
    return hub, [local[card.name] or states[card.name] for card in cards]


def _without_login(address: str) -> str:
    """An address without the name and password that may stand in it."""
    parts = urlsplit(address)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _state(card: EncoderCard, state: str, detail: str, size: int | None = None) -> EncoderState:
    from spahgc.encoders._hub import HUB_URL

    page = f"{HUB_URL}/{card.hub_id}" if card.hub_id else None
    return EncoderState(card.name, state, detail, page, card.gated, size)


def _local_state(card: EncoderCard) -> EncoderState | None:
    """State of weights that need no hub; ``None`` for those that do."""
    from huggingface_hub import try_to_load_from_cache

    from spahgc.encoders._card import BuiltIn, HubFile, LocalFile

    weights = card.weights
    if isinstance(weights, HubFile):
        cached = try_to_load_from_cache(weights.repo_id, weights.filename, revision=weights.revision)
        exists = isinstance(cached, str) and Path(cached).is_file()
        return _state(card, CACHED, "in the cache of the hub") if exists else None
    if isinstance(weights, BuiltIn):
        return _state(card, LOCAL, str(weights))
    if isinstance(weights, LocalFile):
        exists = weights.path.is_file()
        return _state(
            card, *((LOCAL, "a file on this machine") if exists else (MISSING, f"there is no {weights.path}"))
        )
    try:
        exists = Path(weights.locate()).is_file()
    except ImportError:
        exists = False
    if exists:
        return _state(card, INSTALLED, f"comes with the package {weights.distribution}")
    return _state(card, MISSING, f"the package {weights.distribution} is not there, or not as a whole")


def _ask(card: EncoderCard, weights: HubFile) -> Answer:
    """Ask the hub for the head of a weights file, which tells what would become of a download."""
    from huggingface_hub import get_hf_file_metadata, get_token, hf_hub_url

    from spahgc.encoders._hub import error_chain, http_status, is_gated, load_failures, short_reason

    failures: tuple[type[Exception], ...] = (*load_failures(), RuntimeError)
    address = hf_hub_url(weights.repo_id, weights.filename, revision=weights.revision)
    try:
        head = get_hf_file_metadata(address, token=get_token(), timeout=HUB_TIMEOUT_S)
    except failures as error:
        chain = error_chain(error)
        from_hub = any(http_status(link) is not None for link in chain)
        return Answer(_state(card, GATED if is_gated(chain) else UNREACHABLE, short_reason(chain)), from_hub)
    if head.commit_hash is None:
        return Answer(_state(card, UNREACHABLE, NOT_A_HUB), False)
    return Answer(_state(card, DOWNLOAD, "would be downloaded", head.size), True)


def _ask_all(cards: list[EncoderCard]) -> dict[str, Answer]:
    """Ask for all at the same time; what has not come in time is not waited for."""
    from spahgc.encoders._card import HubFile

    coming = {card.name: _started(card, card.weights) for card in cards if isinstance(card.weights, HubFile)}
    wait(coming.values(), timeout=HUB_TIMEOUT_S)
    late = {card.name: Answer(_state(card, UNREACHABLE, UNANSWERED), False) for card in cards}
    return {name: answer.result() if answer.done() else late[name] for name, answer in coming.items()}


def _started(card: EncoderCard, weights: HubFile) -> Future[Answer]:
    """The request in a thread that does not keep the process alive: looking up a name knows no timeout."""
    answer: Future[Answer] = Future()

    def run() -> None:
        try:
            answer.set_result(_ask(card, weights))
        except Exception as error:  # noqa: BLE001 - raised by whoever asks for the result
            answer.set_exception(error)

    Thread(target=run, daemon=True).start()
    return answer
