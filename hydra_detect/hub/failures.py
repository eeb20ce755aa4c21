"""Errors of the Hub's client, and of the network below it, in our words. No token is ever in one."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from hydra_detect.errors import HubError, HydraDetectError, InputError, NotFoundError
from hydra_detect.names import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

CONFLICT, OUTDATED = 409, 412
"""HTTP's words for a name that is taken, and for a branch that has moved on."""

_TOO_MANY, _SERVER = 429, 500
_TRANSPORTS = {"httpx", "httpx2", "httpcore", "httpcore2"}
_LOG_IN = "Log in with 'hf auth login', or set HF_TOKEN to a token that may do this."
_LATER = "See whether the network and the Hub are up, then run it again: it goes on where it was."
_MOST_TOLD = 200


@contextlib.contextmanager
def told(asked: str) -> Iterator[None]:
    """Turn an error of the client, or of the network below it, into one of ours."""
    from huggingface_hub import errors

    try:
        yield
    except HydraDetectError:
        raise
    except errors.OfflineModeIsEnabled:
        remedy = "Pull it once while HF_HUB_OFFLINE is not set: a release or commit that was pulled asks nobody again."
        raise HubError(asked, "the client was told to ask nobody (HF_HUB_OFFLINE)", remedy) from None
    except errors.HFValidationError as error:
        raise InputError(asked, one_line(str(error))[:_MOST_TOLD], "Write names as on the Hub.") from None
    except errors.GatedRepoError:
        remedy = f"Ask for access on its page. {_LOG_IN}"
        raise HubError(asked, "whoever reads it has to be let in first", remedy, status=403) from None
    except errors.RepositoryNotFoundError:
        found = "there is no such repository, or none that this login may see"
        raise NotFoundError(asked, found, f"Check its name. {_LOG_IN}") from None
    except errors.RevisionNotFoundError:
        raise NotFoundError(asked, "it has no such tag, branch or commit", "See its page for what it has.") from None
    except errors.EntryNotFoundError:
        raise NotFoundError(asked, "it has no such file or folder", "See its page for what it has.") from None
    except Exception as error:
        ours = _of_the_network(asked, error)
        if ours is None:
            raise
        raise ours from None


def _of_the_network(asked: str, error: BaseException | None) -> HubError | None:
    """Return what an error says of the Hub or the way to it; None if it is of neither. An upload wraps its own."""
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(error, HfHubHTTPError):
        status = int(error.response.status_code)
        found = f"it answered {status}{_message(error)}"
        uncertain = status >= _SERVER or status == _TOO_MANY
        remedy = _LATER if uncertain or status in {CONFLICT, OUTDATED} else _LOG_IN
        return HubError(asked, found, remedy, status=status, is_uncertain=uncertain)
    root = type(error).__module__.partition(".")[0]
    if root in _TRANSPORTS or isinstance(error, ConnectionError | TimeoutError):
        return HubError(asked, f"there was no answer ({type(error).__name__})", _LATER, status=None, is_uncertain=True)
    return _of_the_network(asked, error.__cause__) if isinstance(error, RuntimeError) else None


def _message(error: Any) -> str:
    """Return what the Hub itself says, in one short line; were it to repeat our token, that would be left out."""
    from huggingface_hub import get_token

    said, token = str(error.server_message or ""), get_token()
    said = one_line(said.replace(token, "***") if token else said)[:_MOST_TOLD]
    return f": {said}" if said else ""
