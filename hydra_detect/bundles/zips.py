"""Zip files of one form alone: files stored as they are, one after the other, then their directory, and nothing else.

Any program unpacks them. Written and read here and not by `zipfile`, because one form is easy to be sure of: equal
contents give equal bytes, today and later; and of a file from a stranger every byte is either content or just what
`pack` would write. So nothing is ever decompressed, no two files overlap, no name stands twice or differs between file
and directory, nothing hides before, between or behind. (The form is that of PKWARE's APPNOTE.TXT, 4.3 and 4.4.)
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

from hydra_detect.errors import CorruptError
from hydra_detect.names import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

_FILE, _ENTRY, _END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
_MADE_BY_UNIX = struct.pack("<H", 3 << 8 | 20)
_MODE = 0o100644 << 16  # a regular file that its owner may write and all may read
_FACTS = struct.Struct("<HHHHHIIIHH")
_PLAIN = (20, 0, 0, 0, 1 << 5 | 1)  # any unzip program, no flags, not compressed, midnight, 1 January 1980
MOST_BYTES = (1 << 32) - (1 << 20)
"""Most bytes that the files of a zip file of this form have together: its places are numbers of 32 bits."""

_REMEDY = "Get it anew; one that another program packed can be unpacked, and the folder be loaded."


def pack(contents: Mapping[str, bytes]) -> bytes:
    """Return files as the bytes of a zip file.

    Args:
        contents: Files by name: ASCII, parts separated by slashes; together no more than `MOST_BYTES`.

    """
    pieces, entries, place = [], [], 0
    for name, data in sorted(contents.items()):
        head = _head(name, data)
        pieces += [head, data]
        entries.append((head, place))
        place += len(head) + len(data)
    return b"".join([*pieces, _directory(entries, place)])


def unpack(data: bytes, *, limits: Mapping[str, int], asked: str) -> dict[str, bytes]:
    """Return the files of a zip file that `pack` wrote.

    Args:
        data: The zip file.
        limits: The names that may stand in it, and how many bytes each may have.
        asked: What is being done, for the error.

    Raises:
        CorruptError: If it is any other file: another name, a name twice, a file that is too large, compressed,
            damaged or cut off, or a byte that belongs to none.

    """
    found: dict[str, bytes] = {}
    entries, place = [], 0
    while data.startswith(_FILE, place):
        begin = place + len(_FILE)
        if len(data) < begin + _FACTS.size:
            raise _corrupt(asked, "it is cut off")
        *plain, _checksum, size, _unpacked, length, _extra = _FACTS.unpack_from(data, begin)
        start = begin + _FACTS.size + length
        name = data[begin + _FACTS.size : start].decode("ascii", "backslashreplace")
        if name not in limits:
            raise _corrupt(asked, f"it holds what no bundle holds: {shown(name)}")
        if name in found:
            raise _corrupt(asked, f"it holds {name} twice")
        if tuple(plain) != _PLAIN:
            raise _corrupt(asked, f"{name} is compressed, or packed by another program")
        if size > limits[name]:
            raise _corrupt(asked, f"{name} has {size} bytes, the limit is {limits[name]}")
        if start + size > len(data):
            raise _corrupt(asked, f"{name} has {size} bytes, and {len(data) - start} are left: it is cut off")
        content = data[start : start + size]
        head = _head(name, content)
        if data[place:start] != head:
            raise _corrupt(asked, f"{name} is damaged: its checksum or size is another")
        found[name] = content
        entries.append((head, place))
        place = start + size
    if data[place:] != _directory(entries, place):
        raise _corrupt(asked, "its files are not followed by just their directory: it is cut off, damaged or no bundle")
    return found


def _head(name: str, data: bytes) -> bytes:
    """Return what stands before the content of a file."""
    facts = _FACTS.pack(*_PLAIN, zlib.crc32(data), len(data), len(data), len(name), 0)
    return _FILE + facts + name.encode("ascii")


def _directory(entries: list[tuple[bytes, int]], place: int) -> bytes:
    """Return what stands behind the last file: for each what stood before it, and where; then where this begins."""
    cut = len(_FILE) + _FACTS.size
    lines = b"".join(
        _ENTRY + _MADE_BY_UNIX + head[len(_FILE) : cut] + struct.pack("<HHHII", 0, 0, 0, _MODE, where) + head[cut:]
        for head, where in entries
    )
    return lines + _END + struct.pack("<HHHHIIH", 0, 0, len(entries), len(entries), len(lines), place, 0)


def _corrupt(asked: str, found: str) -> CorruptError:
    return CorruptError(asked, found, _REMEDY)
