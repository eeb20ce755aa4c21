"""Names and references: parse, print, and keep every path inside its folder.

A head or backbone name becomes a folder name on every file system, a tag on the Hub and a word on a command line,
so one narrow alphabet serves all: lower-case letters, digits, `-` and `_`, at most 64, first a letter or digit.
Two names can then never differ by case alone. For each text form holds `parse(str(x)) == x`.
"""

from __future__ import annotations

import operator
import re
import reprlib
from typing import TYPE_CHECKING, Any, Self, TypeVar

import attrs

from hydra_detect.errors import InputError, NameInvalidError

if TYPE_CHECKING:
    from collections.abc import Iterable

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
# Windows opens a device, not a file, under these names, with any extension and in any folder.
_WINDOWS_DEVICES = frozenset(
    ["con", "prn", "aux", "nul", *(f"{port}{digit}" for port in ("com", "lpt") for digit in range(10))]
)
_FILE_NAME_FORBIDS = frozenset('/\\:*?"<>|')
_LONGEST_FILE_NAME = 100
_VERSIONS_END = 1_000_000_000
_SHOWN = 80

T = TypeVar("T")


class _Short(reprlib.Repr):
    """Writes the first few items of lists and mappings: a stranger's may have millions, in lists within lists."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxstring = self.maxlong = self.maxother = _SHOWN


def shown(value: object) -> str:
    """Return anything as a short text for an error, whatever it is and however large."""
    if isinstance(value, str | bytes):
        text = ascii(value[: _SHOWN + 1])
        return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(value)} characters)"
    try:
        text = _Short().repr(value).encode("ascii", "backslashreplace").decode()
    except (ValueError, RecursionError):  # a whole number of 5,000 digits; lists a thousand deep
        return f"<{type(value).__name__}>"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def one_line(text: str) -> str:
    """Return a text that somebody else wrote so that it can neither break a line nor speak to a terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def check_name(value: str, kind: str = "head") -> str:
    """Return `value` if it may name a head or backbone.

    Raises:
        NameInvalidError: With the rule, and a name near to it that would be allowed.

    """
    if isinstance(value, str) and _NAME.fullmatch(value) and value not in _WINDOWS_DEVICES:
        return value
    raise NameInvalidError(
        f"use {shown(value)} as a {kind} name",
        "a name is 1 to 64 characters of a-z, 0-9, '-' and '_', begins with a letter or digit, "
        "and is no device name of Windows",
        _advice(value),
        name=value,
    )


def _advice(value: object) -> str:
    text = str(value) if isinstance(value, str | HeadRef) else ""
    name = text.partition("@")[0]
    if "@" in text and _NAME.fullmatch(name):
        return f"Give the head alone: '{name}'."
    folded = re.sub(r"[^a-z0-9_-]+", "-", text.lower()).strip("-_")[:64].rstrip("-_")
    hint = f"; '{folded}' would do" if folded and folded not in _WINDOWS_DEVICES else ""
    return f"Choose another name{hint}."


def check_file_name(value: str) -> str:
    """Return `value` if it may name a file inside a version: one part of a path, on every file system.

    Raises:
        NameInvalidError: If it could leave its folder, or means something else on another system.

    """
    if (
        isinstance(value, str)
        and 0 < len(value) <= _LONGEST_FILE_NAME
        and value.isprintable()
        and not _FILE_NAME_FORBIDS.intersection(value)
        and value.strip(". ") == value
        and value.partition(".")[0].rstrip().lower() not in _WINDOWS_DEVICES
    ):
        return value
    raise NameInvalidError(
        f"name a file {shown(value)}",
        f"a file name is 1 to {_LONGEST_FILE_NAME} printable characters, neither begins nor ends with a dot or space, "
        "holds none of " + " ".join(sorted(_FILE_NAME_FORBIDS)) + ", and is no device name of Windows",
        "Choose another name.",
        name=value,
    )


def whole_number(value: Any) -> Any:
    """Return a whole number of any kind as Python's own; anything else, True and False too, as it is."""
    try:
        return value if isinstance(value, bool) else operator.index(value)
    except TypeError:
        return value


@attrs.frozen
class HeadRef:
    """One head, or one version of it: `owl` is whatever is active, `owl@3` is version 3."""

    name: str = attrs.field(validator=lambda _i, _a, value: check_name(value) and None)
    version: int | None = attrs.field(default=None, converter=whole_number)

    @version.validator
    def _check(self, _attribute: object, value: int | None) -> None:
        if value is not None and not (type(value) is int and 0 < value < _VERSIONS_END):
            raise NameInvalidError(
                f"refer to a version of {self.name!r}",
                f"{shown(value)} is no version number",
                "Give the version as a whole number from 1.",
                name=value,
            )

    def __str__(self) -> str:
        """Return the form that `parse` reads."""
        return self.name if self.version is None else f"{self.name}@{self.version}"

    @classmethod
    def parse(cls, text: str | HeadRef) -> HeadRef:
        """Read `name` or `name@version`.

        Raises:
            NameInvalidError: If the name is not allowed or the version is no positive whole number.

        """
        if isinstance(text, HeadRef):
            return text
        name, at, number = text.partition("@") if isinstance(text, str) else (text, "", "")
        if at and not re.fullmatch(r"[1-9][0-9]{0,8}", number, re.ASCII):
            raise NameInvalidError(
                f"read {shown(text)} as a head reference",
                f"{shown(number)} is no version number",
                "Write the version as a whole number from 1, as in 'owl@3'.",
                name=text,
            )
        return cls(check_name(name), int(number) if at else None)


def listed_refs(heads: Iterable[T]) -> list[T]:
    """Return references as a list.

    Raises:
        InputError: If it is one reference, and no list.

    """
    if isinstance(heads, str) or not hasattr(heads, "__iter__"):
        raise InputError(
            f"load heads {heads!s}", "heads is one reference, not a list", f"Write heads=[{str(heads)!r}]."
        )
    return list(heads)


def one_version_each(heads: Iterable[str | HeadRef]) -> list[HeadRef]:
    """Return references, each once.

    Raises:
        NameInvalidError: If one is none.
        InputError: If one head is named in two versions, or it is one reference, and no list.

    """
    refs = list(dict.fromkeys(HeadRef.parse(ref) for ref in listed_refs(heads)))
    for place, ref in enumerate(refs):
        if any(other.name == ref.name for other in refs[:place]):
            raise InputError(
                f"load {ref}",
                f"{ref.name!r} is named twice, with and without a version or with two",
                "Name each head once.",
            )
    return refs


@attrs.frozen
class Digest:
    """A full SHA-256: prints as `sha256:` and 64 hex digits."""

    hex: str = attrs.field()

    @hex.validator
    def _check(self, _attribute: object, value: str) -> None:
        if not isinstance(value, str) or not _DIGEST.fullmatch(f"sha256:{value}"):
            raise NameInvalidError(
                f"read {shown(value)} as a SHA-256",
                "it is not 64 lower-case hex digits",
                "Give the whole digest; a shortened one proves too little.",
            )

    def __str__(self) -> str:
        """Return the form that `parse` reads."""
        return f"sha256:{self.hex}"

    @property
    def short(self) -> str:
        """The first 12 hex digits, for people; never compared."""
        return self.hex[:12]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `sha256:` and 64 hex digits.

        Raises:
            NameInvalidError: For anything else.

        """
        if not isinstance(text, str) or not _DIGEST.fullmatch(text):
            raise NameInvalidError(
                f"read {shown(text)} as a digest",
                "it is not 'sha256:' and 64 lower-case hex digits",
                "Give the whole digest; a shortened one proves too little.",
            )
        return cls(text.removeprefix("sha256:"))
