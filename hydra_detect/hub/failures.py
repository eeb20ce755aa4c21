"""Errors of the Hub's client, and of the network below it, in our words. No token is ever in one."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from hydra_detect.errors import HubError, HydraDetectError, InputError, NotFoundError, StoreError
from hydra_detect.names import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

CONFLICT, OUTDATED = 409, 412
"""HTTP's words for a name that is taken or a branch that others write to, and for one that has moved on."""

NO_FILE = "EntryNotFoundError"
"""What `facts["kind"]` of an error is where a repository is there and has no such file."""

_TOO_MANY, _SERVER = 429, 500
_TRANSPORTS = {"httpx", "httpx2", "httpcore", "httpcore2"}
_LOG_IN = "Log in with 'hf auth login', or set HF_TOKEN to a token that may do this."
_LATER = "See whether the network and the Hub are up, then run it again: it goes on where it was."
_PAGE = "See its page for what it has."
_MOST_TOLD, _MOST_LOOKED_AT = 200, 64 << 10

_KNOWN = {
    "LocalEntryNotFoundError": (HubError, "there was no answer, however often the client asked", _LATER),
    "OfflineModeIsEnabled": (
        HubError,
        "the client was told to ask nobody (HF_HUB_OFFLINE)",
        "Pull it once while that is not set: a release or commit that was pulled asks nobody again.",
    ),
    "GatedRepoError": (
        HubError,
        "whoever reads it has to be let in first",
        f"Ask for access on its page. {_LOG_IN}",
    ),
    "RepositoryNotFoundError": (
        NotFoundError,
        "there is no such repository, or none that this login may see",
        f"Check its name. {_LOG_IN}",
    ),
    "RevisionNotFoundError": (NotFoundError, "it has no such tag, branch or commit", _PAGE),
    NO_FILE: (NotFoundError, "it has no such file or folder", _PAGE),
}
"""By the client's own name of an error: ours, what was found, what to do. Of kinds of one another the narrow one first.

A gated repository is one of those that are not found.
"""


@contextlib.contextmanager
def told(asked: str) -> Iterator[None]:
    """Turn an error of the client, or of the network below it, into one of ours."""
    try:
        yield
    except HydraDetectError:
        raise
    except Exception as error:
        ours = _ours(asked, error)
        if ours is None:
            raise
        raise ours from None


def _ours(asked: str, error: Exception) -> HydraDetectError | None:
    """Return an error of the client as one of ours; None for one that neither it nor the network raises."""
    known = _known(asked, error) or _of_the_network(asked, error)
    if known:
        return known
    if isinstance(error, OSError) and error.errno is not None:
        found = f"{error.strerror or error}{f' ({error.filename})' if error.filename else ''}"
        return StoreError(asked, found, "See to the file system, and run it again.", errno=error.errno)
    if not isinstance(error, OSError | RuntimeError | ValueError | LookupError | TypeError | AttributeError):
        return None
    found = f"it answered what cannot be read ({type(error).__name__})"  # the client reads answers without looking
    return HubError(asked, found, _LATER, status=None, is_uncertain=True)


def _known(asked: str, error: Exception) -> HydraDetectError | None:
    """Return an error that the client has a name for."""
    from huggingface_hub import errors

    for name, (kind, found, remedy) in _KNOWN.items():
        if isinstance(error, getattr(errors, name)):
            return kind(asked, found, remedy, kind=name)
    if isinstance(error, errors.HFValidationError):
        return InputError(asked, one_line(str(error))[:_MOST_TOLD].rstrip("."), "Write names as on the Hub.")
    return None


def _of_the_network(asked: str, error: BaseException | None) -> HubError | None:
    """Return what an error says of the Hub or the way to it; None if it is of neither. An upload wraps its own."""
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(error, HfHubHTTPError):
        status = int(error.response.status_code)
        found = f"it answered {status}{said(str(error.server_message or ''))}"
        uncertain = status >= _SERVER or status == _TOO_MANY
        remedy = _LATER if uncertain or status in {CONFLICT, OUTDATED} else _LOG_IN
        return HubError(asked, found, remedy, status=status, is_uncertain=uncertain)
    root = type(error).__module__.partition(".")[0]
    if root in _TRANSPORTS or isinstance(error, ConnectionError | TimeoutError):
        return HubError(asked, f"there was no answer ({type(error).__name__})", _LATER, status=None, is_uncertain=True)
    return _of_the_network(asked, error.__cause__) if isinstance(error, RuntimeError) else None


def said(text: str) -> str:
    """Return what the Hub itself says, in one short line behind a colon; our token, if it repeats that, is left out."""
    from huggingface_hub import get_token

    text, token = text[:_MOST_LOOKED_AT], get_token()
    told = one_line(text.replace(token, "***") if token else text)[:_MOST_TOLD]
    return f": {told}" if told else ""
