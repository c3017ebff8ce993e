"""One clear error for all the ways in which the files of HEST-1k cannot be reached."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from spahgc.datasets._cohort import CohortUnavailableError

PAGE = "https://huggingface.co/datasets/MahmoodLab/hest"
TOKEN = re.compile(r"hf_[A-Za-z0-9]{8,}|Bearer\s+[^\s'\"]+")
"""What looks like a login token in the text of an error."""
FORBIDDEN = 403


@contextmanager
def reaching_hest(filename: str) -> Iterator[None]:
    """Turn a failure to download a file inside of the block into one :class:`CohortUnavailableError`."""
    from huggingface_hub import errors

    # OSError covers all of requests; httpx, which newer releases use, has a root of its own below HfHubHTTPError.
    failures: tuple[type[Exception], ...] = (OSError, RuntimeError, errors.EntryNotFoundError) + tuple(
        base for base in errors.HfHubHTTPError.__mro__ if base.__name__ == "HTTPError" and issubclass(base, Exception)
    )
    try:
        yield
    except failures as error:
        chain = list(_chain(error))
        message = (
            f"{filename} of HEST-1k is not available: {_reason(chain)}. What can be done:\n"
            f"- Open {PAGE} and request access there (the data are gated), log in on this machine with "
            "`hf auth login`, and call again; what has been downloaded is kept.\n"
            "- Or pass a copy that you have: path=..."
        )
        # The HTTP libraries quote a malformed login header; such an error must not be shown along.
        names_token = any(TOKEN.search(str(link)) for link in chain)
        raise CohortUnavailableError(message) from (None if names_token else error)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and what caused it, outermost first."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        yield link
        seen.add(id(link))
        link = link.__cause__ or link.__context__


def _reason(chain: list[BaseException]) -> str:
    """Say in words what happened."""
    from huggingface_hub import constants, errors

    statuses = [getattr(getattr(link, "response", None), "status_code", None) for link in chain]
    status = next((each for each in statuses if each is not None), None)
    if _any(chain, errors.GatedRepoError):
        if status == FORBIDDEN:
            return "the account that is logged in has not been granted access"
        return "nobody is logged in (or the login is no longer valid)"
    if _any(chain, errors.OfflineModeIsEnabled):
        return "offline mode is on (HF_HUB_OFFLINE)"
    if _any(chain, errors.RepositoryNotFoundError):
        return "the hub does not show the data set to this account"
    if _any(chain, errors.EntryNotFoundError) and not _any(chain, errors.LocalEntryNotFoundError):
        return "the data set has no such file"
    if status is not None:
        return f"the hub answered with status {status}"
    if isinstance(chain[0], OSError) and chain[0].strerror:
        return str(chain[0])  # of the disk, not of the network
    detail = TOKEN.sub("<token>", str(chain[-1])).strip().splitlines()
    text = f"{type(chain[-1]).__name__}: {detail[0]}" if detail else type(chain[-1]).__name__
    return f"{constants.ENDPOINT} cannot be reached, or the download broke off ({text})"


def _any(chain: list[BaseException], kind: type[BaseException]) -> bool:
    return any(isinstance(link, kind) for link in chain)
