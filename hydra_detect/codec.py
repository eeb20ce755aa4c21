"""Records as JSON: one canonical text, one converter, unknown fields kept.

`decode(encode(x)) == x`, and equal records give equal bytes. A field that this version does not know (written by a
later one of the same major schema) is kept under `unknown` and written back where it was. A newer major schema,
NaN, duplicate keys, deep nesting and oversized files are refused before anything is believed.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, get_args, get_origin

import attrs
import cattrs

from hydra_detect.errors import CorruptError, HydraDetectError, RecordError
from hydra_detect.names import Digest, shown

SCHEMA = 1
"""Major version of every record this library writes."""

MAX_JSON_BYTES = 1 << 20
MAX_LIST_BYTES = 64 << 20
"""Of a record that names every sample, class or epoch: 200,000 samples take it."""
_DEEPEST = 64
_MOST_MARKS = 1 << 20  # no state that we write comes near
_LONGEST_SIZE = 18

# OverflowError: a whole number of 400 digits is no float.
_MALFORMED = (cattrs.BaseValidationError, ValueError, TypeError, KeyError, OverflowError)

T = TypeVar("T")


@attrs.frozen(kw_only=True)
class Record:
    """Base of everything written as JSON: carries the fields this version does not know."""

    unknown: Mapping[str, Any] = attrs.field(factory=dict, repr=False)


def dumps(value: Any) -> bytes:
    """Return the canonical JSON text: sorted keys, one-space indent, UTF-8, one newline at the end.

    Raises:
        RecordError: For NaN, infinity, half a surrogate pair or a type that JSON has not.

    """
    try:
        text = json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, TypeError) as error:
        remedy = "Use plain values, and leave out figures that could not be measured."
        raise RecordError("write a record", str(error)[:200], remedy) from None
    return text + b"\n"


def digest_of(value: Any) -> Digest:
    """Return the SHA-256 of the canonical text of plain values: equal facts, equal digests."""
    return Digest(hashlib.sha256(dumps(value)).hexdigest())


def loads(
    data: bytes | memoryview,
    what: str,
    *,
    has_only_sizes: bool = False,
    limit: int = MAX_JSON_BYTES,
    most_marks: int = _MOST_MARKS,
) -> Any:
    """Read JSON that may come from a stranger.

    Args:
        data: The text.
        what: What it is, for the error.
        has_only_sizes: Refuse each number that is no whole number of at most 18 digits, before it costs anything.
        limit: How many bytes it may have.
        most_marks: How many commas and opening brackets: what a parse costs is counted in these.

    Raises:
        CorruptError: If it is larger than that, is no JSON, has a key twice, nests deeper than 64, or holds what
            `dumps` could not write again: NaN, a number beyond every float, half a surrogate pair.

    """
    asked = f"read {what}"
    remedy = "Restore the file from a copy; nothing was changed."
    if len(data) > limit:
        raise CorruptError(asked, f"it is {len(data)} bytes, more than the {limit} that it may have", remedy)
    data = bytes(data)
    if sum(data.count(mark) for mark in (b",", b"[", b"{")) > most_marks:
        raise CorruptError(asked, f"it has more than {most_marks} commas and brackets", remedy)
    try:
        text = data.decode()
        value = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
            parse_int=_size if has_only_sizes else None,
            parse_float=_no_size if has_only_sizes else None,
        )
        if not has_only_sizes or "\\u" in text:
            json.dumps(value, ensure_ascii=False, allow_nan=False).encode()  # 1e999 and "\ud800" pass for JSON
    except (ValueError, RecursionError) as error:
        raise CorruptError(asked, f"it is no valid JSON ({str(error)[:200]})", remedy) from None
    if _depth(value) > _DEEPEST:
        raise CorruptError(asked, f"it nests deeper than {_DEEPEST}", remedy)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        message = "a key stands twice in one object"
        raise ValueError(message)
    return found


def _no_constant(text: str) -> Any:
    message = f"{text} is not JSON"
    raise ValueError(message)


def _no_size(text: str) -> Any:
    message = f"{text:.40} is no size"
    raise ValueError(message)


def _size(text: str) -> Any:
    return int(text) if len(text) <= _LONGEST_SIZE else _no_size(text)


def _inside(container: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return container.values() if isinstance(container, dict) else container


def _depth(value: Any) -> int:
    deepest, level = 0, [value]
    while level:
        deepest += 1
        containers = [item for item in level if type(item) in {dict, list}]
        level = list(itertools.chain.from_iterable(map(_inside, containers)))
    return deepest


def encode(record: Record, *, limit: int = MAX_JSON_BYTES) -> bytes:
    """Return a record as canonical JSON, its schema version included: what is written can be read.

    Args:
        record: What is written.
        limit: How many bytes it may have.

    Raises:
        RecordError: If a value is of the wrong kind, or the whole is larger than a record may be.

    """
    data = dumps({"schema": SCHEMA, **to_dict(record)})
    what = "a record that is about to be written"
    try:
        decode(type(record), data, what, limit=limit)
    except CorruptError as error:  # nothing is damaged: it is too large
        raise RecordError(f"write {type(record).__name__}", error.found, "Shorten its texts.") from None
    return data


def decode(kind: type[T], data: bytes | memoryview, what: str, *, limit: int = MAX_JSON_BYTES) -> T:
    """Read a record back.

    Args:
        kind: Its class.
        data: The text.
        what: What it is, for the error.
        limit: How many bytes it may have.

    Raises:
        CorruptError: If the bytes are no JSON object.
        RecordError: If the schema is newer, or a field is missing or of the wrong kind; the path is named.

    """
    value = loads(data, what, limit=limit, most_marks=max(limit, _MOST_MARKS))
    if not isinstance(value, dict):
        raise CorruptError(f"read {what}", "it is no JSON object", "Restore the file from a copy.")
    schema = value.pop("schema", None)
    if type(schema) is not int or schema < 1:
        raise RecordError(f"read {what}", f"its schema is {shown(schema)}, no number from 1", "Restore it from a copy.")
    if schema > SCHEMA:
        raise RecordError(
            f"read {what}",
            f"it has schema {shown(schema)} and this version of hydra-detect reads up to {SCHEMA}",
            "Upgrade hydra-detect.",
            schema=schema,
        )
    return from_dict(kind, value, what)


def from_dict(kind: type[T], value: Mapping[str, Any], what: str) -> T:
    """Build a record from plain values.

    Raises:
        RecordError: Naming the path of the first field that is missing or of the wrong kind.

    """
    try:
        return _CONVERTER.structure(value, kind)
    except _MALFORMED as error:
        problem = _first_problem(error)
        raise RecordError(f"read {what}", problem, "Restore the file from a copy, or make it anew.") from None


def to_dict(record: Any) -> Any:
    """Return a record as plain JSON values, without its schema version."""
    return _CONVERTER.unstructure(record)


def _first_problem(error: BaseException) -> str:
    if isinstance(error, cattrs.BaseValidationError):
        return str(cattrs.transform_error(error)[0])[:400]
    if isinstance(error, HydraDetectError):
        return f"{error.asked}: {error.found}"[:400]
    # The validators of attrs give the field and all its settings after the sentence.
    text = str(error.args[0]) if isinstance(error, ValueError) and error.args else f"{type(error).__name__}: {error}"
    return text[:400]


def _strict(kind: Any) -> Any:
    def check(value: Any, _kind: Any) -> Any:
        # bool is an int in Python and 1.0 == 1: neither may slip in for a count.
        if type(value) is kind or (kind is float and type(value) is int):
            return kind(value)
        message = f"expected {kind.__name__}, found {shown(value)}"
        raise TypeError(message)

    return check


def _structure_tuple(value: Any, kind: Any) -> Any:
    # cattrs would take any iterable: a text for its letters, an object for its keys.
    if type(value) is not list:
        message = f"expected a list, found {shown(value)}"
        raise TypeError(message)
    kinds = get_args(kind)
    if kinds[-1] is Ellipsis:
        kinds = kinds[:1] * len(value)
    return tuple(_CONVERTER.structure(item, inner) for item, inner in zip(value, kinds, strict=True))


def _structure_mapping(value: Any, kind: Any) -> Any:
    if not isinstance(value, dict):
        message = f"expected an object, found {shown(value)}"
        raise TypeError(message)
    inner = get_args(kind)[1]
    return {key: _CONVERTER.structure(item, inner) for key, item in value.items()}


def _structure_record(value: Any, kind: Any) -> Any:
    if not isinstance(value, dict):
        message = f"expected an object, found {shown(value)}"
        raise TypeError(message)
    fields = _fields(kind)
    known, problems = {}, []
    for name, field in fields.items():
        if name in value:
            try:
                known[name] = _CONVERTER.structure(value[name], field.type)
            except _MALFORMED as error:
                problems.append(f"{name}: {_first_problem(error)}")
        elif field.default is attrs.NOTHING:
            problems.append(f"{name}: missing")
    if problems:
        raise ValueError("; ".join(problems))
    return kind(**known, unknown={name: item for name, item in value.items() if name not in fields})


@functools.cache
def _fields(kind: Any) -> dict[str, Any]:
    """Return the fields of a record that have a place of their own, by name."""
    return {field.name: field for field in attrs.fields(attrs.resolve_types(kind)) if field.name != "unknown"}


def _unstructure_record(record: Record) -> dict[str, Any]:
    kind: Any = type(record)
    own = {name: _CONVERTER.unstructure(getattr(record, name)) for name in _fields(kind)}
    return {**record.unknown, **own}


def _make_converter() -> cattrs.Converter:
    converter = cattrs.Converter(unstruct_collection_overrides={tuple: list})
    for kind in (int, float, str, bool):
        converter.register_structure_hook(kind, _strict(kind))
    converter.register_structure_hook(Digest, lambda value, _kind: Digest.parse(_strict(str)(value, str)))
    converter.register_unstructure_hook(Digest, str)
    converter.register_structure_hook_func(_comes_from(tuple), _structure_tuple)
    converter.register_structure_hook_func(_comes_from(Mapping), _structure_mapping)
    converter.register_structure_hook_func(_is_record, _structure_record)
    converter.register_unstructure_hook_func(_is_record, _unstructure_record)
    return converter


def _comes_from(origin: Any) -> Any:
    return lambda kind: get_origin(kind) is origin


def _is_record(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Record)


_CONVERTER = _make_converter()
