"""The body of one file, through the session of the Hub's client: no more of it than was listed, none of it on a disk.

The client's own downloads are named by what the Hub answers, and may be as large as it likes; a stranger's are not.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import io
    from collections.abc import Mapping

_MOST_OF_AN_ERROR = 64 << 10


def receive(held: io.BytesIO, url: str, *, most: int, agent: Mapping[str, str]) -> None:
    """Receive a file behind what is held of it already, until it is whole or a little longer than it may be.

    A connection that breaks leaves what came: called again, this goes on from there, or, where the Hub begins anew, so.

    Args:
        held: What came of it so far, at its end.
        url: Its address.
        most: How many bytes it may have.
        agent: Name and version of who asks, for the client's headers.

    """
    from huggingface_hub import constants, get_session
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # theirs

    if 0 < most <= held.tell():
        return  # it broke off behind the last byte
    own = {"Accept-Encoding": "identity"}
    if held.tell():
        own["Range"] = f"bytes={held.tell()}-"
    headers = build_hf_headers(**agent, headers=own)
    seconds = constants.HF_HUB_DOWNLOAD_TIMEOUT  # of silence
    with get_session().stream("GET", url, headers=headers, follow_redirects=True, timeout=seconds) as response:
        _raise_for_status(response)
        if response.status_code != HTTPStatus.PARTIAL_CONTENT:
            held.seek(0)
            held.truncate()
        for chunk in response.iter_raw():  # as it came: what somebody compressed could become of any size
            held.write(chunk)
            if held.tell() > most:
                break


def _raise_for_status(response: Any) -> None:
    """Raise the client's error for a status that is one, from no more of its body than a person would read."""
    from huggingface_hub.utils import hf_raise_for_status  # type: ignore[attr-defined]  # theirs

    if response.status_code < HTTPStatus.BAD_REQUEST:
        return
    body, is_packed = b"", "content-encoding" in response.headers
    for chunk in () if is_packed else response.iter_raw():
        body = (body + chunk)[:_MOST_OF_AN_ERROR]
        if len(body) == _MOST_OF_AN_ERROR:
            break
    told = {name: value for name, value in response.headers.items() if name.lower() not in _OF_THE_BODY}
    hf_raise_for_status(type(response)(response.status_code, headers=told, content=body, request=response.request))


_OF_THE_BODY = {"content-encoding", "content-length", "transfer-encoding"}
"""Headers of a body that is read and decoded by now."""
