"""What goes over the wires of the test Hub: requests as they were read, replies, and the ways to say no.

Knows nothing of repositories. A `Refusal` is an answer that the real Hub gives too. A `Surprise` is something that
the real client never sends: it is answered with an error *and* kept, and every test ends by asking for none.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit

KINDS = {
    "json": "application/json",
    "ndjson": "application/x-ndjson",
    "form": "application/x-www-form-urlencoded",
    "lfs": "application/vnd.git-lfs+json",
}
CODES = {"RepoNotFound": 404, "RevisionNotFound": 404, "EntryNotFound": 404, "GatedRepo": 403}
RANGE = re.compile(r"bytes=(\d*)-(\d*)")


@dataclass
class Reply:
    """An answer; `lost` closes the connection without a byte of it, `cut` after so many bytes of the body."""

    status: int = 200
    headers: dict = field(default_factory=dict)
    body: bytes = b""
    lost: bool = False
    cut: int | None = None


@dataclass
class Request:
    """A request that one of the hosts read, with what became of it."""

    host: str
    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    number: int = 0
    status: int | None = None
    faults: list = field(default_factory=list)
    data: object = None

    def __post_init__(self):
        parts = urlsplit(self.target)
        self.path, self.query = parts.path, parse_qs(parts.query, keep_blank_values=True)
        self.headers = {name.lower(): value for name, value in self.headers.items()}
        self.sha256 = hashlib.sha256(self.body).hexdigest()

    def __str__(self):
        """Return the line that a log would have."""
        return f"{self.number}: {self.host} {self.method} {self.target} -> {self.status}"

    def one(self, name, default=None):
        """Return the only value of a query parameter."""
        values = self.query.get(name, [default])
        if len(values) != 1:
            raise Surprise(f"the query parameter {name} came {len(values)} times")
        return values[0]

    def flag(self, name):
        """Return a query parameter that is true or false."""
        text = self.one(name, "false")
        if text not in {"true", "false"}:
            raise Surprise(f"the query parameter {name} is {text!r}, neither true nor false")
        return text == "true"

    def contains(self, text):
        """Return whether the text is anywhere in the request, as it is or percent-encoded."""
        lines = [self.target, unquote(self.target), *(f"{name}: {value}" for name, value in self.headers.items())]
        return any(text in line for line in lines) or text.encode() in self.body


class Refusal(Exception):  # noqa: N818  it is an answer, not a mistake
    """An error that the real Hub answers too."""

    def __init__(self, status, message, *, code=None, **headers):
        super().__init__(message)
        self.status, self.message, self.code, self.headers = status, message, code, headers

    def reply(self):
        """Return it as the Hub words it: in a header, for HEAD, and in the body."""
        headers = {"X-Error-Message": self.message, **self.headers}
        if self.code:
            headers["X-Error-Code"] = self.code
        return answer({"error": self.message}, self.status, headers)


class Surprise(Exception):  # noqa: N818  same
    """Something that no real client sends: never an answer that a test can take for success."""

    def __init__(self, message, status=400):
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Route:
    """One call that a host answers: `call(hub, request, **groups of the pattern)`."""

    method: str
    pattern: str
    call: Callable
    query: frozenset = frozenset()
    body: str | None = None
    host: str = "hub"
    parts: re.Pattern = field(init=False)

    def __post_init__(self):
        object.__setattr__(self, "parts", re.compile(self.pattern))


def answer(data, status=200, headers=None):
    """Return a reply whose body is JSON."""
    return Reply(status, {"Content-Type": "application/json; charset=utf-8", **(headers or {})}, encode(data))


def encode(data):
    """Return JSON as bytes."""
    return json.dumps(data).encode()


def missing(code, message, **headers):
    """Return the refusal for something that is not there."""
    return Refusal(CODES[code], message, code=code, **headers)


def fields(data, required, optional=None):
    """See that a JSON object has the fields that it must have, of the right types, and no others."""
    known = {**required, **(optional or {})}
    if not isinstance(data, dict):
        raise Surprise(f"an object was expected, not {data!r:.80}")
    if absent := sorted(required.keys() - data.keys()):
        raise Surprise(f"fields are missing: {', '.join(absent)}")
    if unknown := sorted(data.keys() - known.keys()):
        raise Surprise(f"fields that no client sends: {', '.join(unknown)}")
    for name, value in data.items():
        if not isinstance(value, known[name]) or (isinstance(value, bool) and bool not in as_types(known[name])):
            raise Surprise(f"the field {name} is {value!r:.80}")
    return data


def as_types(types):
    """Return one or several types as a tuple."""
    return types if isinstance(types, tuple) else (types,)


def read_body(request, kind):
    """Return what the body says, which must be of the kind that the route wants."""
    if kind is None:
        if request.body:
            raise Surprise("a body came where none belongs")
        return None
    if kind == "bytes":
        return request.body
    got = request.headers.get("content-type", "").split(";")[0].strip()
    if got != KINDS[kind]:
        raise Surprise(f"the content type is {got!r}, not {KINDS[kind]!r}")
    try:
        if kind == "form":
            return parse_qs(request.body.decode(), keep_blank_values=True, strict_parsing=True)
        if kind == "ndjson":
            return [json.loads(line) for line in request.body.splitlines()]
        return json.loads(request.body)
    except ValueError as error:
        raise Surprise(f"the body is no {kind}: {error}") from error


def partial(request, body, headers):
    """Return the whole body, or the range that was asked for, or nothing to a client that has it."""
    if "ETag" in headers and request.headers.get("if-none-match") == headers["ETag"]:
        return Reply(304, headers)
    headers = {**headers, "Accept-Ranges": "bytes"}
    wanted = request.headers.get("range")
    if wanted is None:
        return Reply(200, headers, body)
    match = RANGE.fullmatch(wanted)
    if not match or match.groups() == ("", ""):
        raise Surprise(f"a range that no client asks for: {wanted!r}")
    first, last = match.groups()
    start = int(first) if first else max(len(body) - int(last), 0)
    end = min(int(last), len(body) - 1) if first and last else len(body) - 1
    if start > end:
        raise Refusal(416, "The requested range cannot be served", **{"Content-Range": f"bytes */{len(body)}"})
    return Reply(206, {**headers, "Content-Range": f"bytes {start}-{end}/{len(body)}"}, body[start : end + 1])


def page(request, items, size, *, endpoint):
    """Return a page of a list, with the address of the next one as the Hub gives it."""
    start = int(request.one("cursor", "0"))
    reply = answer(items[start : start + size])
    if start + size < len(items):
        rest = [f"{name}={value}" for name, values in request.query.items() for value in values if name != "cursor"]
        query = "&".join([*rest, f"cursor={start + size}"])
        reply.headers["Link"] = f'<{endpoint}{request.path}?{query}>; rel="next"'
    return reply
