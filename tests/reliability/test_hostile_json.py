"""JSON bombs before every reader: each is refused by an error of ours, soon, and none keeps heads from being listed."""

import hashlib
import itertools
import json
import os
import time

import damage
import pytest
from damage import ACTIVE, IDENTITY, INDEX, NEWEST
from store_fixtures import rewrite

from hydra_detect.errors import HydraDetectError
from hydra_detect.formats.lines import from_json
from hydra_detect.registry import HeadRegistry
from hydra_detect.storage import artifacts, backbones, heads, layout, pointers, sealed
from hydra_detect.storage.store import Store
from hydra_detect.versions import VersionManager

built, copy = damage.built, damage.copy

FIRST = "heads/owl/versions/000001/MANIFEST.json"  # of version 1, which True equals in Python
LIMIT = 1 << 20
SLOWEST = 1.0 * (5 if os.environ.get("CI") else 1)
"""Seconds of processor time for one bomb before one reader; a whole MiB is parsed, written again and compared."""


SEAL_BYTES = 100


def filled(before, unit, after, size=LIMIT):
    """Return a text of nearly so many bytes, with room for a seal."""
    return before + unit * ((size - len(before) - len(after) - SEAL_BYTES) // len(unit)) + after


BOMBS = {
    "nothing": b"", "a blank": b" ", "a NUL": b"\0", "NULs": bytes(5000), "a line break": b"\n",
    "no UTF-8": b'{"a": "\xff"}', "half a character": b'{"a": "\xc3"}', "overlong": b'{"a": "\xc0\x80"}',
    "UTF-16": '{"a": 1}'.encode("utf-16"), "UTF-32": '{"a": 1}'.encode("utf-32"), "UTF-7": b"+AHs-",
    "byte order mark": b"\xef\xbb\xbf{}", "a surrogate in UTF-8": b'{"a": "\xed\xa0\x80"}',
    "half a pair": b'{"a": "\\ud800"}', "pair the wrong way round": b'{"a": "\\udc00\\ud800"}',
    "half a pair as key": b'{"\\udead": 1}', "null": b"null", "true": b"true", "a number": b"1", "a text": b'"owl"',
    "a list": b"[]", "list of objects": b"[{}]", "two documents": b"{}{}", "two lines": b"{}\n{}",
    "something behind": b"{} owl", "a comment": b"{} // owl", "a comma at the end": b'{"a": 1,}',
    "single quotes": b"{'a': 1}", "bare key": b"{a: 1}", "number as key": b"{1: 1}", "no value": b'{"a":}',
    "cut in a key": b'{"form', "cut in a value": b'{"format": 1, "kind": "he', "cut before the end": b'{"a": 1',
    "NaN": b'{"a": NaN}', "Infinity": b'{"a": Infinity}', "minus Infinity": b'{"a": [-Infinity]}',
    "beyond every float": b'{"a": 1e999}', "far below": b'{"a": -1e999}', "leading zero": b'{"a": 01}',
    "plus": b'{"a": +1}', "hexadecimal": b'{"a": 0x10}', "point alone": b'{"a": .5}', "raw tab": b'{"a": "\t"}',
    "bad escape": b'{"a": "\\x41"}', "a key twice": b'{"format": 1, "format": 1}',
    "a key twice, once escaped": b'{"a": 1, "\\u0061": 2}', "a key twice, deep": b'{"a": [{"b": 1, "b": 1}]}',
    "deep lists": b"[" * 200_000, "deep objects": b'{"a":' * 200_000,
    "deep and closed": b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    "deep enough for Python": b'{"a":' + b"[" * 900 + b"]" * 900 + b"}",
    "deeper than 64": b'{"a":' + b"[" * 64 + b"]" * 64 + b"}", "a million digits": b'{"a": ' + b"9" * 1_000_000 + b"}",
    "5,000 digits": b'{"a": -' + b"9" * 5_000 + b"}", "many lists": filled(b"[", b"[],", b"[]]"),
    "long numbers": filled(b'{"a": [', b"9" * 4_000 + b",", b"0]}"),
    "long fractions": filled(b'{"a": [', b"1.2345678901234567e-300,", b"0]}"),
    "many objects": filled(b'{"a": [', b"{},", b"{}]}"), "many numbers": filled(b'{"a": [', b"0,", b"0]}"),
    "many keys": b"{" + b",".join(b'"%x":0' % number for number in range(100_000)) + b"}",
    "a long text": filled(b'{"a": "', b"x", b'"}'), "a long key": filled(b'{"', b"x", b'": 1}'),
    "long escapes": filled(b'{"a": "', b"\\u0000", b'"}'), "blanks": filled(b"{", b" ", b"}"),
    "open text": filled(b'{"a": "', b"x", b""), "backslashes": filled(b'{"a": "', b"\\", b""),
    "one byte too many": filled(b'{"a": "', b"x", b'"}') + b" " * (SEAL_BYTES + 1),
    "64 MiB of blanks": b" " * (64 << 20),
    "a pickle": b"\x80\x04\x95\x0b\0\0\0\0\0\0\0\x8c\x07builtin\x94.", "gzip": b"\x1f\x8b\x08" + bytes(40),
    "a page": b"<!DOCTYPE html><html><body>404</body></html>", "YAML": b"format: 1\nkind: heads\n",
}  # fmt: skip


def by_hand(text):
    """Return a text with a seal over itself that is right, as a stranger could make it; None where it can hold none."""
    if not (text.startswith(b"{") and text.endswith(b"}") and len(text) > 2):
        return None
    before, after = text[:-1] + b",\n", b"}"
    seal = hashlib.sha256(before + after).hexdigest().encode()
    return before + b' "check": "sha256:' + seal + b'"\n' + after


def listed_as_record(root, text):
    """Make a text the record of a version, with a manifest that is right about it."""
    folder = root / ACTIVE
    rewrite(folder / layout.RECORD, text)
    document = sealed.unseal((folder / layout.MANIFEST).read_bytes(), "it")
    listing = {**document["files"], layout.RECORD: [len(text), f"sha256:{hashlib.sha256(text).hexdigest()}"]}
    rewrite(folder / layout.MANIFEST, sealed.seal({**document, "files": listing}))


def in_header(root, text):
    """Return what reads a text as the header of a safetensors file."""
    return lambda: artifacts.decode_tensors(len(text).to_bytes(8, "little") + text, str(root))


READERS = {
    "STORE.json": lambda root, text: (rewrite(root / IDENTITY, text), lambda: Store.open(root))[1],
    "record": lambda root, text: (listed_as_record(root, text), lambda: heads.find(Store.open(root), "owl@2"))[1],
    "manifest": lambda root, text: (rewrite(root / ACTIVE / layout.MANIFEST, text), lambda: HeadRegistry(root)["owl"])[
        1
    ],
    "sealed manifest": lambda root, text: READERS["manifest"](root, by_hand(text)),
    "detections": lambda _root, text: lambda: from_json(text.decode(errors="replace")),
    "pointer": lambda root, text: (rewrite(root / NEWEST, text), lambda: VersionManager(root).active("owl"))[1],
    "sealed pointer": lambda root, text: READERS["pointer"](root, by_hand(text)),
    "tensors": in_header,
}
"""Ways to put a text before a reader; each returns what then reads it."""


def test_bombs(copy, tally):
    """No reader of JSON takes a bomb, or fails by another error than ours, or takes long over it."""
    cases = tally("JSON bombs x readers of JSON, each refused")
    root, longest = copy(), (0.0, "")
    store_of_old = {path: (root / path).read_bytes() for path in (IDENTITY, NEWEST, f"{ACTIVE}/{layout.MANIFEST}")}
    for reader, (name, text) in itertools.product(READERS, BOMBS.items()):
        if reader == "tensors" and name in {"blanks", "nothing"}:  # a header may be padded; without one nothing is read
            continue
        if reader.startswith("sealed") and by_hand(text) is None:  # as without a seal
            continue
        for path, data in store_of_old.items():
            rewrite(root / path, data)
        read = READERS[reader](root, text)
        started = time.thread_time()
        with pytest.raises(HydraDetectError, match=r"^cannot ") as caught:
            read()
        longest = max(longest, (time.thread_time() - started, f"{name} as {reader}"))
        assert len(str(caught.value)) < 1500, name
        cases.case(reader, name)
    cases.what += f" (slowest {longest[0] * 1000:.0f} ms: {longest[1]})"
    assert longest[0] < SLOWEST
    assert len(BOMBS) >= 60
    cases.require(60 * 6 + 30 * 2)


WHOLE = {
    "many lists": (b"[", b"[],", b"[]]"), "many objects": (b'{"a": [', b"{},", b"{}]}"),
    "many numbers": (b'{"a": [', b"0,", b"0]}"), "long numbers": (b'{"a": [', b"9" * 4_000 + b",", b"0]}"),
    "long fractions": (b'{"a": [', b"1.2345678901234567e-300,", b"0]}"), "blanks": (b"{", b" ", b"}"),
    "a long text": (b'{"a": "', b"x", b'"}'), "long escapes": (b'{"a": "', b"\\u0000", b'"}'),
    "open text": (b'{"a": "', b"x", b""), "backslashes": (b'{"a": "', b"\\", b""),
    "long keys": (b"{", b'"' + b"x" * 9_000 + b'": 1,', b'"y": 1}'),
}  # fmt: skip


def test_bombs_of_the_size_of_a_state(copy, tally):
    """A state may be larger than other documents; a bomb of that size is refused in seconds, and by a check too."""
    cases = tally("JSON bombs of 16 MiB in place of a state, each refused")
    root, longest = copy(), (0.0, "")
    for bomb, parts in WHOLE.items():
        text = filled(*parts, size=pointers.MAX_BYTES)
        for put in (text, by_hand(text)):
            if put is None or len(put) > pointers.MAX_BYTES:  # as without a seal
                continue
            rewrite(root / NEWEST, put)
            started = time.thread_time()
            with pytest.raises(HydraDetectError, match=r"^cannot ") as caught:
                VersionManager(root).active("owl")
            longest = max(longest, (time.thread_time() - started, bomb))
            assert len(str(caught.value)) < 1500, bomb
            cases.case(bomb, put is text)
        if bomb in {"many lists", "long escapes"}:
            assert [finding.path for finding in VersionManager(root).verify(depth="quick").findings] == [NEWEST], bomb
    cases.what += f" (slowest {longest[0] * 1000:.0f} ms: {longest[1]})"
    assert longest[0] < 16 * SLOWEST  # for 16 times as much
    cases.require(len(WHOLE))


@pytest.mark.parametrize("file", ["record.json", "MANIFEST.json"])
def test_bombs_as_a_backbone(copy, tally, file):
    """What is said of a backbone is read like what is said of a head; and whoever checks the store finds it."""
    cases = tally(f"JSON bombs in place of a backbone's {file}, each refused and found")
    root = copy()
    path = root / "backbones/demo/versions/000001" / file
    for name, text in BOMBS.items():
        rewrite(path, text)
        with pytest.raises(HydraDetectError, match=r"^cannot "):
            backbones.find(Store.open(root), "demo")
        report = VersionManager(root).verify(depth="quick")
        assert [finding.number for finding in report.findings if finding.kind == layout.BACKBONES] == [1], name
        cases.case(name)
    cases.require(60)


NO_NUMBERS = (True, False, 1.0, -1.0, 0.5, "1", "", -1, [], [1], {}, {"1": 1}, "x" * 900_000)
NO_NUMBER_FROM_1 = (*NO_NUMBERS, 0)
NO_TEXTS = (None, True, 1, 1.5, [], ["x"], {}, {"x": "x"})
NO_LISTS = (None, True, 1, "", "12", {}, {"1": 1}, [None], [True], [1.5], ["1"], [[]], [[1]], [-1], [{}])
FORGED_POINTERS = {
    "format": (*NO_NUMBER_FROM_1, None, 2, 10**30), "generation": (*NO_NUMBER_FROM_1, None, 5, 7, 10**30),
    "of": (*NO_TEXTS, "", "heads/fox", "backbones/owl", "../owl", "owl"),
    "active": (*NO_NUMBER_FROM_1, 1, 3, 99, 10**9, 10**30, None),
    "manifest": (*NO_TEXTS, "", "0" * 64, "sha256:" + "0" * 63, "sha256:" + "0" * 64, "md5:" + "0" * 64),
    "earlier": (*NO_LISTS, [0]), "gone": (*NO_LISTS, [0]), "high": (*NO_NUMBERS, None),
    "pins": (*NO_LISTS, [{"version": 0}], [{"version": True}], [{"version": 1, "reason": 1}], [{"reason": "x"}]),
    "change": (None, True, 1, "", "x", [], {}, {"what": "promoted"}),
}  # fmt: skip
FORGED_CHANGES = {
    "what": (*NO_TEXTS, "", "Promoted", "x"), "version": NO_NUMBER_FROM_1,
    "manifest": (*(text for text in NO_TEXTS if text is not None), "", "0" * 64, "sha256:" + "0" * 63),
    "taken": (*NO_LISTS, [{"actor": "x"}], [{"version": 0}], [{"version": 1, "at": 1, "manifest": ""}]),
    "lost": (*NO_LISTS, [[1, 2, 3]], [["1", 2]], [[True, 2]], [[1.0, 2]]),
    "other": NO_TEXTS, "at": NO_TEXTS, "actor": NO_TEXTS, "reason": NO_TEXTS,
}  # fmt: skip
LISTED = "sha256:" + "0" * 64
FORGED_MANIFESTS = {
    "format": (*NO_NUMBER_FROM_1, None, 2, 10**30), "version": (*NO_NUMBER_FROM_1, None, 2, 3, 10**30),
    "kind": (*NO_TEXTS, "", "backbones", "Heads"), "name": (*NO_TEXTS, "", "fox", "Owl", "../owl"),
    "files": (
        *NO_LISTS, {"record.json": None}, {"record.json": []}, {"record.json": [1]}, {"record.json": [1, "x"]},
        {"record.json": ["1", LISTED]}, {"record.json": [-1, LISTED]}, {"record.json": [True, LISTED]},
        {"record.json": [1.0, LISTED]}, {"record.json": [1, LISTED, 1]}, {"record.json": [1, [LISTED]]},
        {"record.json": {"1": LISTED}}, {"record.json": LISTED}, {"../record.json": [1, LISTED]},
        {"record.json": [10**30, LISTED]}, {"a": [1, LISTED]}, {f"{number}": [0, LISTED] for number in range(9_000)},
    ),
}  # fmt: skip


def forged(original, changes):
    """Yield a sealed document for each field that is given another value, and for each that is left out."""
    document = sealed.unseal(original, "it")
    for field, values in changes.items():
        yield f"no {field}", sealed.seal({key: value for key, value in document.items() if key != field})
        for value in values:
            yield f"{field} {value!r:.60}", sealed.seal({**document, field: value})


@pytest.mark.parametrize(("path", "changes"), [(NEWEST, FORGED_POINTERS), (FIRST, FORGED_MANIFESTS)])
def test_forged(copy, tally, path, changes):
    """A seal that is right makes no nonsense true: not True for 1, no text for a number, no file of another place."""
    cases = tally(f"documents sealed by a stranger in place of {path}, each refused")
    root = copy()
    lenient = {"no earlier", "no gone", "no high", "no pins"}  # these have a default
    for name, text in forged((root / path).read_bytes(), changes):
        if name in lenient and path == NEWEST:
            continue
        rewrite(root / path, text)
        with pytest.raises(HydraDetectError, match=r"^cannot ") as caught:
            HeadRegistry(root)["owl" if path == NEWEST else "owl@1"]
        assert len(str(caught.value)) < 1500, name
        cases.case(name)
    cases.require(60)


def test_forged_changes(copy, tally):
    """Nor does it make any nonsense true of what is said to have happened."""
    cases = tally("generations of the pointer sealed by a stranger that tell nonsense, each refused")
    root = copy()
    document = sealed.unseal((root / NEWEST).read_bytes(), "it")
    for field, values in FORGED_CHANGES.items():
        for value in values:
            rewrite(root / NEWEST, sealed.seal({**document, "change": {**document["change"], field: value}}))
            with pytest.raises(HydraDetectError, match=r"^cannot ") as caught:
                HeadRegistry(root)["owl"]
            assert len(str(caught.value)) < 1500, (field, value)
            cases.case(field, repr(value))
    cases.require(80)


def index_with(document, **changes):
    """Return a sealed index whose one entry says something else in its summary."""
    entry = document["heads"]["owl"]
    return sealed.seal({**document, "heads": {"owl": {**entry, "summary": {**entry["summary"], **changes}}}})


def test_bombs_as_index(copy, built, tally):
    """No bomb in the place of the derived index, sealed or not, changes what is said of the heads."""
    cases = tally("JSON bombs as index of the heads, none believed")
    root, truth = copy(), built[1]
    document = sealed.unseal((root / INDEX).read_bytes(), "it")
    fields = ("head", "active", "versions", "class_names", "backbone", "backbone_digest", "nbytes", "created_at")
    texts = {
        **BOMBS, **{f"sealed {name}": by_hand(text) for name, text in BOMBS.items() if by_hand(text)},
        **{f"heads {value!r:.40}": sealed.seal({**document, "heads": value}) for value in NO_LISTS},
        **{f"entry {value!r:.40}": sealed.seal({**document, "heads": {"owl": value}}) for value in NO_LISTS},
        **{f"format {value!r:.40}": sealed.seal({**document, "format": value}) for value in (None, 2, "1")},
        **{f"{field} as object": index_with(document, **{field: {"x": [1]}}) for field in fields},
        **{f"{field} as fraction": index_with(document, **{field: 0.5}) for field in fields},
        **{f"{field} as true": index_with(document, **{field: True}) for field in fields},
    }  # fmt: skip
    for name, text in texts.items():
        rewrite(root / INDEX, text)
        assert HeadRegistry(root).infos() == truth, name
        cases.case(name)
    assert json.loads((root / INDEX).read_bytes())["heads"].keys() == {"owl"}
    cases.require(150)
