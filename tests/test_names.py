"""Names: text forms that round-trip, and no name that leaves its folder."""

import contextlib
import functools
import unicodedata

import numpy as np
import pytest
import store_fixtures
from hypothesis import given
from hypothesis import strategies as st
from record_strategies import DEVICES, digests, names, versions
from store_fixtures import AT, HOSTILE_NAMES, NO_TEXT, a_backbone, a_record, snapshot, some_tensors

from hydra_detect.errors import NameInvalidError
from hydra_detect.names import Digest, HeadRef, check_file_name, check_name, one_line, shown, whole_number
from hydra_detect.registry import HeadRegistry
from hydra_detect.storage import backbones, changes, heads, layout, pointers, publishing

store, manager, filled = store_fixtures.store, store_fixtures.manager, store_fixtures.filled

DEEP = functools.reduce(lambda inner, _: [inner], range(100_000), [])  # deeper than Python can print
HOSTILE_FILES = (
    "", ".", "..", "../x", "..\\x", "a/b", "/etc/passwd", "a\\b", "C:x", "x\0", "x\n", "x.", "x ", " x", ".x", "nul",
    "NUL.json", "com1.txt", "x\u202e", "x?", "x*", 'x"', "x|", "<x>", "x" * 101, "\ud800", "aux .txt",
)  # fmt: skip


@given(names, st.none() | versions)
def test_reference_round_trip(name, version):
    """A reference reads back as itself from what it prints."""
    ref = HeadRef(name, version)
    assert HeadRef.parse(str(ref)) == ref
    assert HeadRef.parse(ref) is ref


@given(digests)
def test_digest_round_trip(digest):
    """A digest reads back as itself from what it prints."""
    assert Digest.parse(str(digest)) == digest
    assert digest.hex.startswith(digest.short)


@given(st.text(max_size=70))
def test_whatever_parses_prints_as_it_was(text):
    """A text is refused, or it is the one text form of what it says."""
    for parse in (HeadRef.parse, Digest.parse):
        with contextlib.suppress(NameInvalidError):
            assert str(parse(text)) == text


@given(st.text(max_size=80))
def test_the_name_proposed_would_do(text):
    """Where a refusal proposes another name, that one is allowed."""
    try:
        assert check_name(text) == text
    except NameInvalidError as error:
        if "would do" in error.remedy:
            proposed = error.remedy.split("'")[1]
            assert check_name(proposed) == proposed


def entries(manager, name):
    """Return everything that takes the name of a head, given this one, but for the storage room."""
    registry, tensors = HeadRegistry(manager.store), some_tensors()
    return {
        "check_name": lambda: check_name(name),
        "HeadRef": lambda: HeadRef(name),
        "HeadRef.parse": lambda: HeadRef.parse(name),
        "create": lambda: manager.create(name, tensors, a_record(tensors)),
        "record": lambda: a_record(tensors, backbone_name=name),
        "versions": lambda: manager.versions(name),
        "active": lambda: manager.active(name),
        "promote": lambda: manager.promote(name, 1),
        "rollback": lambda: manager.rollback(name),
        "history": lambda: manager.history(name),
        "compare": lambda: manager.compare(name, 1, 2),
        "pin": lambda: manager.pin(name, 1),
        "unpin": lambda: manager.unpin(name, 1),
        "prune": lambda: manager.prune(name, keep=1),
        "dry run": lambda: manager.prune(name, dry_run=True),
        "registry": lambda: registry[name],
        "info": lambda: registry.info(name),
        "status": lambda: registry.status(name),
        "rename": lambda: registry.rename(name, "strix"),
        "rename to": lambda: registry.rename("owl", name),
        "remove": lambda: registry.remove(name),
    }


def storage_entries(store, name):
    """Return everything in the storage room that takes the name of a head or backbone, given this one."""
    (tensors, backbone), change = a_backbone(), changes.change(pointers.PINNED)

    def lock():
        with store.head(name).changing():
            pass

    return {
        "item": lambda: store.item(layout.HEADS, name),
        "head": lambda: store.head(name),
        "lock": lock,
        "publish": lambda: store.head(name).publish({"x": b""}, created_at=AT),
        "swap": lambda: store.head(name).swap(pointers.NOTHING, {}, change),
        "pointer": lambda: store.head(name).pointer(),
        "manifest": lambda: store.head(name).manifest(1),
        "there": lambda: heads.there(store, name),
        "find": lambda: heads.find(store, name),
        "load": lambda: heads.load(store, name),
        "publish head": lambda: publishing.publish(store, name, a_record(tensors), tensors, attachments={}),
        "backbone": lambda: backbones.find(store, name),
        "publish backbone": lambda: backbones.publish(store, name, backbone, tensors),
    }


@pytest.mark.parametrize("name", [*HOSTILE_NAMES, *NO_TEXT], ids=ascii)
def test_hostile_names_are_refused_everywhere(name, filled, tmp_path):
    """No entry point takes a name that could leave its folder, and nothing on disk changes."""
    before = snapshot(tmp_path)
    for entry in (*entries(filled, name).values(), *storage_entries(filled.store, name).values()):
        with pytest.raises(NameInvalidError, match=r"^cannot "):
            entry()
    assert name not in [*HeadRegistry(filled.store)]
    assert name not in HeadRegistry(filled.store)
    assert snapshot(tmp_path) == before


def test_hostile_names_are_enough():
    """There are at least sixty hostile names, the twins of one name in two Unicode forms among them."""
    assert len(set(HOSTILE_NAMES)) >= 60
    assert {unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD")} <= set(HOSTILE_NAMES)
    assert set(HOSTILE_NAMES) & set(DEVICES)


@given(st.text(max_size=12), st.text(max_size=12))
def test_no_two_names_share_a_folder(one, other):
    """Two allowed names that a file system might fold into one are the same name."""
    allowed = []
    for text in (one, other):
        try:
            allowed.append(check_name(text))
        except NameInvalidError as error:
            assert error.facts["name"] == text  # noqa: PT017  both ways are lawful
    folded = {unicodedata.normalize("NFKC", name).casefold().strip(". ") for name in allowed}
    assert len(folded) == len(set(allowed))


@pytest.mark.parametrize(
    "version", [0, -1, True, False, 1.0, "1", 10**9, np.int64(0), np.float64(1), np.bool_(1), np.array([1])], ids=repr
)
def test_versions_are_whole_numbers_from_one(version):
    """A reference to something that is no version number is refused at birth."""
    with pytest.raises(NameInvalidError, match="is no version number"):
        HeadRef("owl", version)


@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.int32, np.array])
def test_versions_may_be_whole_numbers_of_any_kind(kind):
    """A version that numpy counted is the plain number: in the text, in comparisons, and for JSON."""
    ref = HeadRef("owl", kind(7))
    assert ref == HeadRef("owl", 7) == HeadRef.parse("owl@7")
    assert (str(ref), type(ref.version)) == ("owl@7", int)


@pytest.mark.parametrize("value", [True, None, 1.0, "1", [1]])
def test_what_is_no_whole_number_stays_as_it_is(value):
    """Nothing else is taken for a whole number: whoever asked sees what he was given."""
    assert whole_number(value) is value


@pytest.mark.parametrize("ref", ["owl@3", "owl@", "owl@x", HeadRef("owl", 3)], ids=str)
def test_a_reference_in_the_place_of_a_name(ref):
    """Where a head alone can be meant, a reference to a version is refused, and the name in it is proposed."""
    with pytest.raises(NameInvalidError, match=r"as a head name: .* Give the head alone: 'owl'\.$"):
        check_name(ref)


@pytest.mark.parametrize(
    "text", ["", "0" * 64, "sha256:" + "0" * 63, "sha256:" + "A" * 64, "sha256:" + "0" * 64 + "\n", "md5:" + "0" * 64]
)
def test_digests_are_whole(text):
    """A shortened, upper-case or otherwise decorated digest is refused."""
    with pytest.raises(NameInvalidError, match="as a digest"):
        Digest.parse(text)


@pytest.mark.parametrize("value", ["", "0" * 63, "G" * 64, int("1" * 64), None, b"0" * 64])
def test_digests_hold_text(value):
    """Only 64 lower-case hex digits, as text, make a digest."""
    with pytest.raises(NameInvalidError, match="as a SHA-256"):
        Digest(value)


@pytest.mark.parametrize("value", [*NO_TEXT, "owl", "x" * 10_000, "\ud800\x1b[31m", 10**5000, DEEP], ids=lambda _: "")
def test_shown(value):
    """Anything at all can be shown in an error: short, on one line, and in letters that every terminal has."""
    text = shown(value)
    assert text.isascii()
    assert text.isprintable()
    assert len(text) <= 120


class Told:
    """Counts how often it is written out."""

    count = 0

    def __repr__(self):
        Told.count += 1
        return "told"


@pytest.mark.parametrize("shape", [list, tuple, lambda items: dict(enumerate(items)), lambda items: [[items] * 1000]])
def test_little_of_a_large_value_is_written_out(monkeypatch, shape):
    """Of millions of items only the first few are written, however deep in lists they stand."""
    monkeypatch.setattr(Told, "count", 0)
    assert "..." in shown(shape([Told()] * 10_000))
    assert Told.count < 100


@given(st.text(max_size=30))
def test_one_line(text):
    """What somebody wrote is printed on one line that speaks to no terminal; a printable text stays as it is."""
    line = one_line(text)
    assert line.isprintable()
    assert len(line) == len(text)
    assert all(shown in (written, " ") for shown, written in zip(line, text, strict=True))
    assert one_line(line) == line


@pytest.mark.parametrize("name", ["model.safetensors", "original.pth", "original.tar.gz", "a (1).pt", "日本.json", "x"])
def test_file_names(name):
    """An ordinary file name is returned as it is."""
    assert check_file_name(name) == name


@pytest.mark.parametrize("name", [*HOSTILE_FILES, *NO_TEXT], ids=ascii)
def test_hostile_file_names_are_refused(name, filled, tmp_path):
    """No attachment can leave the folder of its version, and nothing is written for one that tries."""
    before = snapshot(tmp_path)
    tensors = some_tensors(9)
    with pytest.raises(NameInvalidError, match="file name is 1 to 100"):
        check_file_name(name)
    if not isinstance(name, list | dict):
        with pytest.raises(NameInvalidError, match="file name is 1 to 100"):
            filled.create("owl", tensors, a_record(tensors), attachments={name: b"x"})
    assert snapshot(tmp_path) == before
