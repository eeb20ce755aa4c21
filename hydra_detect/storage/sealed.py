"""JSON that proves itself: a document with the SHA-256 of its own canonical text inside.

Manifests and pointers have no other file that could vouch for them. Only the canonical text is accepted, so every
flipped bit is found, those in white space too.
"""

from __future__ import annotations

from typing import Any

from hydra_detect import codec
from hydra_detect.errors import CorruptError, RecordError
from hydra_detect.storage import files

_SEAL = "check"


def seal(document: dict[str, Any]) -> bytes:
    """Return the canonical JSON text of `document` with its digest under `check`."""
    return codec.dumps({**document, _SEAL: str(files.sha256(codec.dumps(document)))})


def unseal(data: bytes, what: str, *, limit: int = codec.MAX_JSON_BYTES) -> dict[str, Any]:
    """Return the document, without its seal.

    Args:
        data: The text.
        what: What it is, for the error.
        limit: How many bytes it may have.

    Raises:
        CorruptError: If the text is not exactly what `seal` wrote.

    """
    document = codec.loads(data, what, limit=limit)
    if not isinstance(document, dict) or seal({k: v for k, v in document.items() if k != _SEAL}) != data:
        raise CorruptError(f"read {what}", "its digest does not match its content", "Restore it from a copy.")
    del document[_SEAL]
    return document


def check_format(document: dict[str, Any], known: int, what: str) -> None:
    """See that a document has the format that this version of the library reads.

    Raises:
        RecordError: If it has a newer one: nothing is damaged, and nothing here can judge it.
        CorruptError: If it has none.

    """
    form = document.get("format")
    if type(form) is int and form > known:
        found = f"its format is {form} and this version of hydra-detect reads {known}"
        raise RecordError(f"read {what}", found, "Upgrade hydra-detect.", format=form)
    if type(form) is not int or form != known:  # True == 1
        raise CorruptError(f"read {what}", f"its format is {form!r:.40}, none that there is", "Restore it from a copy.")
