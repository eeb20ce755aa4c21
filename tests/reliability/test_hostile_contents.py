"""Wrong contents in files that prove themselves: refused on the way in, and by whoever loads what came another way.

What a record or a manifest says is read by every promotion. Weights are proven finite, and the record's own, when they
are published and whenever they are loaded; a promotion proves that they are, byte for byte, what was published.
"""

import itertools
import json
import re

import damage
import numpy as np
import pytest
from store_fixtures import AT, a_backbone, a_record, some_tensors

from hydra_detect import codec
from hydra_detect.errors import CorruptError, HydraDetectError, RecordError
from hydra_detect.registry import HeadRegistry
from hydra_detect.storage import artifacts, findings, heads, layout, manifests, sealed
from hydra_detect.storage.check import Checker
from hydra_detect.storage.repair import repair
from hydra_detect.storage.store import Store
from hydra_detect.tensors import ITEM_BYTES, RawTensor, tensors_digest
from hydra_detect.versions import VersionManager

built, copy = damage.built, damage.copy

NUMBER = 7  # of the version that a stranger brings; the store has 1 to 6
PATTERNS = {
    "F64": {"NaN": 0x7FF8 << 48, "signalling NaN": (0x7FF0 << 48) + 1, "negative NaN": 0xFFF8 << 48,
            "Inf": 0x7FF0 << 48, "-Inf": 0xFFF0 << 48},
    "F32": {"NaN": 0x7FC00000, "signalling NaN": 0x7F800001, "negative NaN": 0xFFFFFFFF, "Inf": 0x7F800000,
            "-Inf": 0xFF800000},
    "F16": {"NaN": 0x7E00, "signalling NaN": 0x7C01, "negative NaN": 0xFFFF, "Inf": 0x7C00, "-Inf": 0xFC00},
    "BF16": {"NaN": 0x7FC0, "signalling NaN": 0x7F81, "negative NaN": 0xFFFF, "Inf": 0x7F80, "-Inf": 0xFF80},
}  # fmt: skip
PLACES = (0, 499, 999)
NOT_THERE = r"the manifest lists only|record\.json does not exist"
LEGAL = {
    "F64": (1, 0x7FEF << 48, 1 << 63), "F32": (1, 0x7F7FFFFF, 1 << 31), "F16": (1, 0x7BFF, 1 << 15),
    "BF16": (1, 0x7F7F, 1 << 15),
}  # fmt: skip
"""Of each dtype the smallest number there is, the largest, and minus zero."""


def a_tensor(dtype, bits, place=None):
    """Return a thousand numbers, all of them or the one at `place` of these bits."""
    data = bytearray(1000 * ITEM_BYTES[dtype]) if place is not None else bytearray()
    pattern = bits.to_bytes(ITEM_BYTES[dtype], "little")
    if place is None:
        data = bytearray(pattern * 1000)
    else:
        data[place * len(pattern) : (place + 1) * len(pattern)] = pattern
    return RawTensor(dtype, (10, 100), bytes(data))


def not_finite():
    """Yield tensors with one element that is no number, by name."""
    for dtype, patterns in PATTERNS.items():
        for (name, bits), place in itertools.product(patterns.items(), PLACES):
            yield f"{dtype} {name} at {place}", {**some_tensors(), "box.extra": a_tensor(dtype, bits, place)}


def not_those_of_the_record():
    """Yield tensors that are not those of `some_tensors`, by what is wrong with them."""
    tensors = some_tensors()
    weight, count = tensors["box.weight"], tensors["box.count"]
    floats = np.frombuffer(weight.data, dtype="<f4")
    yield "one more", {**tensors, "more": weight}
    yield "an empty one more", {**tensors, "more": RawTensor("F32", (0,), b"")}
    yield "one missing", {"box.weight": weight}
    yield "one renamed", {"box.weigth": weight, "box.count": count}
    yield "names swapped", {"box.count": weight, "box.weight": count}
    yield "prefix", {f"module.{name}": tensor for name, tensor in tensors.items()}
    yield "other letters", {name.upper(): tensor for name, tensor in tensors.items()}
    yield "flat", {**tensors, "box.weight": RawTensor("F32", (6,), weight.data)}
    yield "transposed", {**tensors, "box.weight": RawTensor("F32", (3, 2), weight.data)}
    yield "one axis more", {**tensors, "box.weight": RawTensor("F32", (1, 2, 3), weight.data)}
    yield "scalar as list", {**tensors, "box.count": RawTensor("I64", (1,), count.data)}
    yield "same bits as whole numbers", {**tensors, "box.weight": RawTensor("I32", (2, 3), weight.data)}
    yield "same numbers as doubles", {**tensors, "box.weight": RawTensor.of(floats.astype("f8").reshape(2, 3))}
    yield "other byte order", {**tensors, "box.weight": RawTensor("F32", (2, 3), floats.byteswap().tobytes())}
    yield "last bit", {**tensors, "box.weight": RawTensor("F32", (2, 3), weight.data[:-4] + b"\1\0\0\0")}
    yield "minus zero", {**tensors, "box.count": RawTensor("I64", (), b"\0" * 7 + b"\x80")}


def bring(root, contents, number=NUMBER, *, place=None, **changes):
    """Put a version into a store as a stranger could: every digest in its manifest is right, but for `changes`."""
    kind, name = place or (layout.HEADS, "owl")
    listing = manifests.listing_of(contents)
    text = manifests.text(kind, name, number, listing=listing, created_at=AT, actor="stranger", parent=None)
    if changes:
        text = sealed.seal({**sealed.unseal(text, "it"), **changes})
    folder = root / "heads" / "owl" / "versions" / f"{NUMBER:06}"
    folder.mkdir()
    for path, data in {**contents, layout.MANIFEST: text}.items():
        (folder / path).write_bytes(data)


def contents(tensors, record=None):
    """Return the files of a version with these tensors and a record that fits them, or that record."""
    text = codec.encode(a_record(tensors, backbone=a_backbone()[1].contract)) if record is None else record
    return {layout.TENSORS: artifacts.encode_tensors(tensors), layout.RECORD: text}


def pointers_of(root):
    """Return all that says which version is active, byte for byte."""
    return {path.name: path.read_bytes() for path in (root / "heads" / "owl" / "pointer").iterdir()}


def check_refused(root, what):
    """See that the version that was brought becomes active in no way, and that what is active stays so."""
    before, manager = pointers_of(root), VersionManager(Store.open(root, durability="fast"))
    with pytest.raises(HydraDetectError, match=r"^cannot "):
        manager.promote("owl", NUMBER)
    assert pointers_of(root) == before, what
    assert manager.active("owl").number == 2
    check_unusable(manager, what)


def check_unusable(manager, what):
    """See that nobody loads what was brought, active or not, and that a check says so, and that it is whole."""
    with pytest.raises(HydraDetectError, match=r"^cannot "):
        heads.load(manager.store, f"owl@{NUMBER}")
    report = deep(manager).run()  # networks apart: these are none
    assert not report.is_sound, what
    assert {finding.number for finding in report.findings if not finding.is_harmless} == {NUMBER}, what


def deep(manager):
    """Return what looks into everything but whether networks can be built."""
    return Checker(manager.store, depth="deep")


def check_weights_refused(root, what):
    """See that weights that are no good are loaded by nobody, promoted or not, and that a rollback is all it takes."""
    manager = VersionManager(Store.open(root, durability="fast"))
    check_unusable(manager, what)
    manager.promote("owl", NUMBER)
    check_unusable(manager, what)
    with pytest.raises(HydraDetectError, match=r"^cannot "):
        heads.load(manager.store, "owl")
    (finding,) = [one for one in repair(manager.store, deep(manager)).findings if not one.is_harmless]
    assert finding.severity == "unusable", what
    assert manager.rollback("owl").number == 2
    assert heads.load(manager.store, "owl")[0].number == 2


def changed(**changes):
    """Return the text of a good record with other values; fields of the settings as `settings__name`."""
    document = json.loads(contents(some_tensors())[layout.RECORD])
    for path, value in changes.items():
        place = document
        *upper, last = path.split("__")
        for name in upper:
            place = place[name]
        if value is ...:
            del place[last]
        else:
            place[last] = value
    return json.dumps(document).encode()


WRONG_RECORDS = {
    "nothing": b"", "a list": b"[]", "no JSON": b"{", "empty": b"{}",
    **{f"schema {value!r}": changed(schema=value) for value in (2, 0, -1, True, 1.0, "1", None, ...)},
    **{f"kind {value!r}": changed(kind=value) for value in ("backbone", "Head", None, 1)},
    **{
        f"no {field}": changed(**{field: ...})
        for field in ("tensors", "backbone", "backbone_name", "settings", "class_names", "settings__label_count")
    },
    **{f"{value!r} labels": changed(settings__label_count=value) for value in (2, 4, 1, 0, -1, 10_001, True, 3.0, "3")},
    **{
        f"classes {value!r:.30}": changed(class_names=value)
        for value in ([], ["owl"], ["owl", ""], ["owl", "a\nb"], ["owl", 5], "ab", ["owl", "x" * 201], ["a", "b", "c"])
    },
    **{f"tensors {value!r:.20}": changed(tensors=value) for value in ("", "0" * 64, 1, None, "sha256:" + "0" * 64)},
    **{f"backbone {value!r}": changed(backbone_name=value) for value in ("", "../demo", "Demo", None, "con")},
    **{
        f"backbone's {field}": changed(**{f"backbone__{field}": value})
        for field, value in (("digest", "x"), ("architecture", {}), ("levels", []), ("preprocessing__std", [0.0]))
    },
    **{f"threshold {value!r}": changed(settings__score_threshold=value) for value in (2, -0.5, None, "0.5", True)},
    **{
        f"anchors {value!r:.20}": changed(settings__anchor_sizes=value)
        for value in ([], [[32]], [[32], [64, 32]], [[0], [64]], [[-1], [64]], [["32"], [64]], [32, 64])
    },
    "a backbone's record": codec.encode(a_backbone()[1]),
}  # fmt: skip
OTHER_WEIGHTS = f"tensors {'sha256:' + '0' * 64!r:.20}"
"""The one of these records that is possible by itself: only the weights tell that it is not theirs."""
WRONG_MANIFESTS = {
    "of another name": {"place": (layout.HEADS, "fox")}, "of a backbone": {"place": (layout.BACKBONES, "owl")},
    "of an earlier version": {"number": 2}, "of a later version": {"number": 8}, "of a later format": {"format": 2},
    "of no version": {"version": None}, "without a list": {"files": None}, "of an empty list": {"files": {}},
    **{
        f"that lists {name}": {"files": {**artifacts_of, **more}}
        for name, artifacts_of, more in (
            ("no record", {}, {layout.TENSORS: [1, "sha256:" + "0" * 64]}),
            ("a missing file", {}, {"gone.bin": [1, "sha256:" + "0" * 64]}),
            ("a file elsewhere", {}, {"../000002/record.json": [1, "sha256:" + "0" * 64]}),
        )
    },
}  # fmt: skip


def test_wrong_numbers(copy, tally):
    """NaN and infinity in any dtype and place are refused at creation, and loaded by nobody if a stranger brings it."""
    cases = tally("versions with a number that is none, refused at creation and at loading")
    for name, tensors in not_finite():
        root = copy()
        manager = VersionManager(Store.open(root, durability="fast"))
        with pytest.raises(CorruptError, match=r"NaN or infinity in 1 of 3 tensors: box\.extra"):
            manager.create("owl", tensors, a_record(tensors))
        bring(root, contents(tensors))
        assert [version.number for version in manager.versions("owl")] == [1, 2, 5, 6, NUMBER]
        check_weights_refused(root, name)
        cases.case(name)
    cases.require(60)


def test_wrong_tensors(copy, tally):
    """Tensors that are not those of the record are refused at creation, and loaded by nobody."""
    cases = tally("versions with tensors that are not those of the record, refused likewise")
    record = contents(some_tensors())[layout.RECORD]
    for name, tensors in not_those_of_the_record():
        root = copy()
        manager = VersionManager(Store.open(root, durability="fast"))
        with pytest.raises(CorruptError, match="the record names tensors"):
            manager.create("owl", tensors, a_record(some_tensors()))
        bring(root, contents(tensors, record))
        check_weights_refused(root, name)
        cases.case(name)
    cases.require(16)


def test_wrong_record(copy, tally):
    """A record that says what cannot be, or is of something else, keeps its version from becoming active."""
    cases = tally("versions with a record that says what cannot be, refused at promotion and at loading")
    for name, text in WRONG_RECORDS.items():
        assert text != contents(some_tensors())[layout.RECORD], name
        root = copy()
        bring(root, {**contents(some_tensors()), layout.RECORD: text})
        if name == OTHER_WEIGHTS:
            check_weights_refused(root, name)
        else:
            check_refused(root, name)
        cases.case(text)
    cases.require(60)


def test_wrong_manifest(copy, tally):
    """A manifest of another place, or one that does not list what there is, keeps its version from becoming active."""
    cases = tally("versions with a manifest of another place or of other files, refused likewise")
    for name, changes in WRONG_MANIFESTS.items():
        root = copy()
        bring(root, contents(some_tensors()), **changes)
        check_refused(root, name)
        cases.case(name)
    cases.require(10)


def test_another_version_in_the_place_of_the_active_one(copy):
    """A whole version that was put where the promoted one stood is not active, and no renaming makes it so."""
    root = copy()
    manager = VersionManager(root)
    manager.unpin("owl", 5)
    bring(root, contents(some_tensors(3)), 2)
    versions = root / "heads" / "owl" / "versions"
    damage.gone(versions / "000002")
    (versions / f"{NUMBER:06}").rename(versions / "000002")
    assert heads.load(manager.store, "owl@2")[0].actor == "stranger"
    for ask in (manager.active, lambda head: heads.load(manager.store, head)):
        with pytest.raises(CorruptError, match="is not the one that was promoted"):
            ask("owl")
    with pytest.raises(CorruptError, match="is not the one that was promoted"):
        HeadRegistry(root).rename("owl", "strix")
    assert not (root / "heads" / "strix").exists()
    assert [finding.what for finding in manager.verify().findings] == [findings.VERSION]
    assert manager.repair().is_sound
    assert manager.active("owl").number == 1


@pytest.mark.parametrize("missing", [layout.TENSORS, layout.RECORD])
def test_a_head_without_its_files(copy, built, missing):
    """A head whose only version lists no weights, or no record, is shown with its problem and hides no other."""
    root = copy()
    whole = contents(some_tensors())
    del whole[missing]
    listing = manifests.listing_of(whole)
    text = manifests.text(layout.HEADS, "fox", 1, listing=listing, created_at=AT, actor="stranger", parent=None)
    folder = root / "heads" / "fox" / "versions" / "000001"
    folder.mkdir(parents=True)
    for path, data in {**whole, layout.MANIFEST: text}.items():
        (folder / path).write_bytes(data)
    registry, manager = HeadRegistry(root), VersionManager(root)
    fox, owl = registry.infos()
    assert re.search(NOT_THERE, fox.problem)
    assert [owl] == built[1]
    for ask in (registry.info, manager.versions, lambda head: registry[f"{head}@1"]):
        with pytest.raises(HydraDetectError, match=NOT_THERE):
            ask("fox")
    assert [finding.name for finding in manager.verify().findings if not finding.is_harmless] == ["fox"]


def test_no_tensors(copy):
    """A head without any tensors is refused at creation, and so is one with names that are no texts."""
    root = copy()
    manager, before = VersionManager(root), pointers_of(root)
    empty = a_record({})
    with pytest.raises(RecordError, match="cannot create a version of 'owl': it has no tensors"):
        manager.create("owl", {}, empty)
    for name in (5, None, b"a", ("a",)):
        with pytest.raises(RecordError, match="a tensor has a name that is no text"):
            manager.create("owl", {name: np.zeros(1, dtype=np.float32)}, empty)
    for name in ("\ud800", "__metadata__"):
        with pytest.raises(RecordError, match="cannot store these tensors"):
            manager.create("owl", {name: np.zeros(1, dtype=np.float32)}, empty)
    assert [version.number for version in manager.versions("owl")] == [1, 2, 5, 6]
    assert pointers_of(root) == before


@pytest.mark.parametrize("dtype", LEGAL)
def test_odd_numbers_are_legal(copy, dtype):
    """Nothing but the smallest, the largest or minus zero is odd but lawful, and becomes active like any other."""
    root = copy()
    manager = VersionManager(Store.open(root, durability="fast"))
    for bits in LEGAL[dtype]:
        tensors = {"box.weight": a_tensor(dtype, bits), "box.other": a_tensor(dtype, bits, 5)}
        version = manager.create("owl", tensors, a_record(tensors, backbone=a_backbone()[1].contract))
        assert manager.promote("owl", version.number).record.tensors == tensors_digest(tensors)
    assert deep(manager).run().is_sound


def test_what_a_stranger_brings_can_be_right(copy):
    """The same hand that brings the wrong versions of this file can bring a right one, which becomes active."""
    root = copy()
    bring(root, contents(some_tensors()))
    manager = VersionManager(root)
    assert manager.promote("owl", NUMBER).actor == "stranger"
    assert heads.load(manager.store, "owl")[1] == dict(sorted(some_tensors().items()))
    assert deep(manager).run().is_sound
