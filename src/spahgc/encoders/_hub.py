"""Weights from the Hugging Face hub, and one clear error for all the ways in which its files cannot be reached."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spahgc.encoders._card import HubFile

HUB_URL = "https://huggingface.co"
OFFLINE_ENCODER = "efficientnet_lite0"
TOKEN = re.compile(r"hf_[A-Za-z0-9]{8,}|Bearer\s+[^\s'\"]+")
"""What looks like a login token in the text of an error."""

UNAUTHORISED, FORBIDDEN = 401, 403

# The names of httpx and requests: huggingface_hub changed from one to the other, and neither is a dependency of ours.
BROKEN_OFF = {"RemoteProtocolError", "ReadError", "ChunkedEncodingError", "IncompleteRead", "ContentDecodingError"}
UNREACHABLE = {"ConnectError", "ConnectionError", "NetworkError", "ProxyError", "SSLError", "URLError", "gaierror"}


class EncoderUnavailableError(RuntimeError):
    """The weights of an encoder cannot be reached; the message says why, and what can be done."""


def download(source: HubFile, *, encoder: str, gated: bool) -> tuple[Path, str]:
    """Return the path of a file of the hub in the local cache, and its commit; downloads it if need be.

    Raises
    ------
    EncoderUnavailableError
        If the file is not in the cache and cannot be had from the hub.
    """
    from huggingface_hub import hf_hub_download

    page = f"{HUB_URL}/{source.repo_id}"
    # Older releases of hf_xet, the hub's storage backend, raise plain RuntimeError.
    with reaching(encoder, page, filename=source.filename, gated=gated, also=(RuntimeError,)):
        path = hf_hub_download(source.repo_id, source.filename, revision=source.revision)
    return Path(path), commit_of(path)


def commit_of(path: str | Path) -> str:
    """Commit of a file in the hub's cache, ``.../snapshots/<commit>/<file>``."""
    parts = Path(path).parts
    return parts[parts.index("snapshots") + 1] if "snapshots" in parts[:-1] else "unknown"


def reaching(
    encoder: str, page: str, *, filename: str, gated: bool, also: tuple[type[Exception], ...] = ()
) -> AbstractContextManager[None]:
    """Turn all failures to reach weights inside of the block into one :class:`EncoderUnavailableError`.

    Parameters
    ----------
    encoder
        Name of the encoder, for the message.
    page
        Page that the user is sent to.
    filename
        The weights file, for the message.
    gated
        True where access has to be requested.
    also
        More types of errors that mean that weights were not reached.
    """

    def unavailable(reason: str, is_refused: bool) -> Exception:
        return EncoderUnavailableError(_advice(encoder, page, filename, gated or is_refused, reason))

    return hub_failures_as(unavailable, also)


@contextmanager
def hub_failures_as(
    unavailable: Callable[[str, bool], Exception], also: tuple[type[Exception], ...] = ()
) -> Iterator[None]:
    """Turn all failures to reach a file of the hub inside of the block into one error that says why.

    Parameters
    ----------
    unavailable
        Makes the error of the reason in words, and of whether the hub said that access has to be requested.
    also
        More types of errors that mean that the file was not reached.
    """
    try:
        yield
    except (*load_failures(), *also) as error:
        chain = error_chain(error)
        # The HTTP libraries quote a malformed login header; such an error must not be shown along.
        names_token = any(TOKEN.search(str(link)) for link in chain)
        raise unavailable(short_reason(chain), is_gated(chain)) from (None if names_token else error)


def load_failures() -> tuple[type[Exception], ...]:
    """Types of errors with which huggingface_hub and the HTTP library below it report a failure."""
    from huggingface_hub import errors

    # OSError covers all of requests; httpx has a root of its own, the other base of HfHubHTTPError.
    roots = tuple(
        base for base in errors.HfHubHTTPError.__mro__ if base.__name__ == "HTTPError" and issubclass(base, Exception)
    )
    xet = getattr(errors, "XetDownloadError", None)  # not in the oldest releases
    return (OSError, errors.EntryNotFoundError, *roots, *([xet] if xet else []))


def error_chain(error: BaseException) -> list[BaseException]:
    """List an error and what caused it, outermost first."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    return chain


def http_status(error: BaseException) -> int | None:
    """HTTP status of an answer that became an error."""
    return getattr(getattr(error, "response", None), "status_code", None)


def is_gated(chain: list[BaseException]) -> bool:
    from huggingface_hub.errors import GatedRepoError

    return any(isinstance(link, GatedRepoError) for link in chain)


def short_reason(chain: list[BaseException]) -> str:
    """Say in words what happened, from the answer of the hub or else from the state of the network."""
    for explain in (_answer, _network):
        for link in chain:
            reason = explain(link)
            if reason:
                return reason
    # The cause stands innermost; huggingface_hub's own words around it only guess.
    detail = TOKEN.sub("<token>", str(chain[0])).strip().splitlines()
    return f"{type(chain[0]).__name__}: {detail[0]}" if detail else type(chain[0]).__name__


def _answer(error: BaseException) -> str | None:
    """Explain an error that the hub answered with."""
    from huggingface_hub import errors

    status = http_status(error)
    if isinstance(error, errors.GatedRepoError):
        if status == FORBIDDEN:
            return "the repository is gated, and the account that is logged in has not been granted access"
        return "the repository is gated, and nobody is logged in (or the login is no longer valid)"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "the hub knows no such repository, or does not show it to this account"
    if isinstance(error, errors.RevisionNotFoundError):
        return "the repository has no such revision"
    if isinstance(error, errors.EntryNotFoundError) and not isinstance(error, errors.LocalEntryNotFoundError):
        return "the repository has no such file"
    if isinstance(error, errors.OfflineModeIsEnabled):
        return "offline mode is on (HF_HUB_OFFLINE), and there is no complete copy in the local cache"
    if isinstance(error, errors.FileMetadataError):
        return "the answer does not come from a Hugging Face hub; check proxy, firewall and HF_ENDPOINT"
    if status == UNAUTHORISED:
        return "the hub refused the login (401)"
    return None if status is None else f"the hub answered with status {status}"


def _network(error: BaseException) -> str | None:
    """Explain an error of the network."""
    from huggingface_hub import constants

    names = {kind.__name__ for kind in type(error).__mro__}
    if any("Timeout" in name for name in names):
        return f"{constants.ENDPOINT} did not answer in time"
    if names & BROKEN_OFF or "consistency check failed" in str(error).lower():
        return "the download broke off before the file was complete; calling again starts it anew"
    if names & UNREACHABLE:
        return f"{constants.ENDPOINT} cannot be reached from this machine"
    return None


def _advice(encoder: str, page: str, filename: str, gated: bool, reason: str) -> str:
    """Write the message of an :class:`EncoderUnavailableError`."""
    request = " and request access there (the weights are gated)" if gated else ""
    return "\n".join(
        [
            f'The weights of encoder "{encoder}" ({filename}) are not available: {reason}. What can be done:',
            f"- Open {page}{request}, log in on this machine with `hf auth login`, and call again.",
            f'- Or download the weights elsewhere and pass the file: checkpoint="path/to/{Path(filename).name}".',
            f'- Or use the encoder that needs no download: encoder="{OFFLINE_ENCODER}".',
        ]
    )
