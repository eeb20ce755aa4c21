"""JSON that proves itself: a document with the SHA-256 of the rest of its own text inside.

Manifests and pointers have no other file that could vouch for them. The digest is over bytes, not over what they say,
so every flipped bit is found, those in white space too.
"""

from __future__ import annotations

import re
from typing import Any

from hydra_detect import codec
from hydra_detect.errors import CorruptError, RecordError
from hydra_detect.names import shown
from hydra_detect.storage import files

_SEAL = "check"
_LINE = re.compile(rb'(?m)^ "check": "[^"\n]*",?\n')
"""The line of the seal in the text of `codec.dumps`, which gives each key of a document a line, one blank deep."""


def seal(document: dict[str, Any]) -> bytes:
    """Return the canonical JSON text of `document` with the digest of its other lines under `check`."""
    text = codec.dumps({**document, _SEAL: ""})
    return _LINE.sub(lambda line: line[0].replace(b'""', f'"{_digest(text)}"'.encode()), text)


def unseal(data: bytes, what: str, *, limit: int = codec.MAX_JSON_BYTES) -> dict[str, Any]:
    """Return the document, without its seal.

    Args:
        data: The text.
        what: What it is, for the error.
        limit: How many bytes it may have.

    Raises:
        CorruptError: If a byte of the text is another than when it was sealed.

    """
    document = codec.loads(data, what, limit=limit)
    if not isinstance(document, dict) or _SEAL not in document or document[_SEAL] != _digest(data):
        raise CorruptError(f"read {what}", "its digest does not match its content", "Restore it from a copy.")
    del document[_SEAL]
    return document


def _digest(text: bytes) -> str | None:
    """Return the digest of a text without the line of its seal; None if it has no such line."""
    line = _LINE.search(text)
    return str(files.sha256(text[: line.start()] + text[line.end() :])) if line else None


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
        found = f"its format is {shown(form)}, none that there is"
        raise CorruptError(f"read {what}", found, "Restore it from a copy.")
