"""The manifest: what one published version consists of, with the SHA-256 of each of its files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import attrs

from hydra_detect.errors import CorruptError, NameInvalidError, RecordError, listed
from hydra_detect.names import Digest, check_file_name
from hydra_detect.storage import files, sealed

FORMAT = 1
_REMEDY = "Restore the file from a copy, or make it anew."
_KNOWN = frozenset(["format", "kind", "name", "version", "created_at", "actor", "parent", "files"])

Listing = Mapping[str, tuple[int, Digest]]
"""Files of a version by name: size in bytes and SHA-256."""


class Published(Protocol):
    """A version that was published: its manifest, or what was read of it."""

    @property
    def number(self) -> int:
        """Its number."""

    @property
    def files(self) -> Listing:
        """Its files."""


@attrs.frozen(kw_only=True)
class Manifest:
    """What one published version consists of.

    Args:
        kind: "backbones" or "heads".
        name: Of which.
        number: The version's number.
        created_at: When it was published, ISO 8601 in UTC.
        actor: Who published it.
        parent: The version that was active then.
        files: Size in bytes and SHA-256 of each file beside the manifest.
        digest: SHA-256 of the manifest's own sealed text.
        unknown: Fields that a later version of this library wrote.

    """

    kind: str
    name: str
    number: int
    created_at: str
    actor: str
    parent: int | None
    files: Listing
    digest: Digest
    unknown: Mapping[str, Any]


def listing_of(contents: Mapping[str, bytes]) -> Listing:
    """Return size and SHA-256 of each of these contents."""
    return {path: (len(data), files.sha256(data)) for path, data in contents.items()}


def text(
    kind: str,
    name: str,
    number: int,
    *,
    listing: Listing,
    created_at: str,
    actor: str,
    parent: int | None,
    unknown: Mapping[str, Any] | None = None,
) -> bytes:
    """Return the sealed text of a manifest over the files of `listing`; the rest is as in `Manifest`.

    Raises:
        RecordError: If it could not be read again, because it is too large.

    """
    known = {
        "format": FORMAT,
        "kind": kind,
        "name": name,
        "version": number,
        "created_at": created_at,
        "actor": actor,
        "parent": parent,
        "files": {path: [size, str(digest)] for path, (size, digest) in listing.items()},
    }
    data = sealed.seal({**(unknown or {}), **known})
    try:
        parse(data, kind, name, number)
    except CorruptError as error:
        raise RecordError(f"publish {name}@{number}", error.found, "Give fewer files, or shorter texts.") from None
    return data


def parse(data: bytes, kind: str, name: str, number: int) -> Manifest:
    """Read a manifest and see that it speaks of the version in whose folder it lies.

    Raises:
        CorruptError: If it is damaged or belongs elsewhere.
        RecordError: If it has a newer format.

    """
    what = f"the manifest of {name}@{number}"
    document = sealed.unseal(data, what)
    sealed.check_format(document, FORMAT, what)
    place = (document.get("kind"), document.get("name"), document.get("version"))
    if place != (kind, name, number) or type(place[2]) is not int:
        raise CorruptError(
            f"read {what}", "it speaks of another version; the folder was moved or renamed", "Move the folder back."
        )
    parent = document.get("parent")
    return Manifest(
        kind=kind,
        name=name,
        number=number,
        created_at=str(document.get("created_at", "")),
        actor=str(document.get("actor", "")),
        parent=parent if type(parent) is int else None,
        files=_listing(document.get("files"), f"read {what}"),
        digest=files.sha256(data),
        unknown={key: value for key, value in document.items() if key not in _KNOWN},
    )


def _listing(value: Any, asked: str) -> Listing:
    # A stranger can seal too: nothing in here has proved itself but its own wholeness.
    try:
        listing = {check_file_name(path): (size, Digest.parse(digest)) for path, (size, digest) in value.items()}
    except (AttributeError, TypeError, ValueError) as error:
        found = error.found if isinstance(error, NameInvalidError) else str(error)
        raise CorruptError(asked, f"its list of files is malformed ({found})", _REMEDY) from None
    if not all(type(size) is int and size >= 0 for size, _digest in listing.values()):
        raise CorruptError(asked, "its list of files is malformed (a size is no whole number)", _REMEDY)
    return listing


def listed_size(version: Published, path: str, asked: str) -> int:
    """Return the size that a manifest lists for a file.

    Raises:
        CorruptError: If it does not list it.

    """
    if path not in version.files:
        raise CorruptError(asked, f"the manifest lists only {listed(version.files)}", _REMEDY)
    return version.files[path][0]


def check_listed(version: Published, path: str, nbytes: int, digest: Digest, *, asked: str) -> None:
    """See that size and SHA-256 are those that the manifest lists for a file.

    Raises:
        CorruptError: If they differ, or the manifest does not list it.

    """
    size = listed_size(version, path, asked)
    if nbytes != size:
        raise CorruptError(asked, f"it has {nbytes} bytes and the manifest says {size}", _REMEDY)
    expected = version.files[path][1]
    if digest != expected:
        raise CorruptError(asked, f"its SHA-256 is not the {expected.short}... that the manifest says", _REMEDY)
