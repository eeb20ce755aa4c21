"""Hostile names at every entry point: each is refused by one error of ours, and nothing on the disk changes."""

import contextlib
import itertools
import re
import unicodedata
from pathlib import PurePosixPath

import damage
import pytest
from record_strategies import DEVICES
from store_fixtures import AT, HOSTILE_NAMES, NO_TEXT, a_backbone, a_record, rewrite, snapshot, some_tensors

from hydra_detect.cli.commands import run
from hydra_detect.errors import CorruptError, NameInvalidError, StoreError
from hydra_detect.history import history
from hydra_detect.names import HeadRef, check_file_name, check_name
from hydra_detect.registry import HeadRegistry
from hydra_detect.storage import backbones, heads, layout, publishing, renaming, sealed
from hydra_detect.storage.pointers import NOTHING, Change
from hydra_detect.storage.store import Store
from hydra_detect.versions import VersionManager

built, copy = damage.built, damage.copy

DEVICE_NAMES = [
    case(device) + ending
    for device, case, ending in itertools.product(DEVICES, (str.lower, str.upper, str.title), ("", ".txt", ".", " "))
]
CONTROLS = [chr(code) for code in (*range(0x20), *range(0x7F, 0xA0))]
INVISIBLE = [
    chr(code) for code in (*range(0x200B, 0x2010), *range(0x2028, 0x202F), *range(0x2060, 0x206A), 0x61C, 0xAD, 0xFEFF)
]
"""Marks of direction and width, joiners, and breaks of lines and paragraphs."""
SEPARATORS = '/\\:*?"<>|'
FORBIDDEN = [f"{before}{sign}{after}" for sign in SEPARATORS for before, after in (("", "x"), ("x", ""), ("x", "x"))]
CLIMBING = [
    "../" * 8 + "etc/passwd", "..\\" * 8 + "boot.ini", "owl/../../fox", "./owl", "owl/.", "owl//fox", "~/owl",
    "/dev/null", "/proc/self/mem", "file:///etc/passwd", "\\\\.\\C:", "owl\0/../fox", "..\u2215owl/x",
    "..\uff0fowl", "\u2024\u2024/owl",
]  # fmt: skip
DOTTED = ["x.", "x ", " x", ".x", "x. ", ". x", "x...", " ", ".", "..", "\u00a0x", "x\u3000"]
TWINS = [
    "\uff4f\uff57\uff4c", "\u043e\u0461l", "o\u0323wl", "\u24de\u24e6\u24db", "\U0001d428wl", "ow\u2113", "ow\u0131",
    "\u017fwl", "\u212aiwi", "\ufb02ow", "\u00ba", "owl\u00b2", "owl\u0660", "\u1d52wl", "owl\u0301", "\ua7aewl",
]  # fmt: skip
LONG = [letter * size for letter in ("a", "\u00e9") for size in (65, 66, 100, 128, 255, 256, 300, 4096, 100_000)]
NESTED = [[]]
for _ in range(2000):
    NESTED[0] = [NESTED[0]]
NO_TEXTS = [*NO_TEXT, 10**5000, float("nan"), NESTED, PurePosixPath("owl"), bytearray(b"owl"), ..., {"owl"}, HeadRef]

_NAMES = [
    *HOSTILE_NAMES, *DEVICE_NAMES, *(f"o{sign}wl" for sign in (*CONTROLS, *INVISIBLE)), *FORBIDDEN, *CLIMBING,
    *DOTTED, *TWINS, *LONG,
    *(f"{at}owl{version}" for at in ("", "@") for version in ("@00", "@1e3", "@ 1", "@1.", "@@1", "@\u00b2")),
]  # fmt: skip
_FILE_NAMES = [
    "", *DEVICE_NAMES, *(f"o{sign}wl" for sign in (*CONTROLS, *INVISIBLE)), *FORBIDDEN, *CLIMBING, *DOTTED,
    *(name for name in LONG if len(name) > 100), "\ud800", "a\udcff", *(f"{device}.json.bak" for device in DEVICES),
]  # fmt: skip
SURROGATE = re.compile("[\ud800-\udfff]")
NAMES, FILE_NAMES = list(dict.fromkeys(_NAMES)), list(dict.fromkeys(_FILE_NAMES))


def entry_points(store, name):
    """Return all that takes the name of a head or backbone, or a reference, given this one."""
    manager, registry, tensors = VersionManager(store), HeadRegistry(store), some_tensors(9)
    weights, backbone = a_backbone(9)
    record, one = a_record(tensors), {"x": b""}

    def change():
        with store.head(name).changing():
            pass

    return {
        "check_name": lambda: check_name(name), "HeadRef": lambda: HeadRef(name), "parse": lambda: HeadRef.parse(name),
        "record": lambda: a_record(tensors, backbone_name=name),
        "create": lambda: manager.create(name, tensors, record), "versions": lambda: manager.versions(name),
        "active": lambda: manager.active(name), "promote": lambda: manager.promote(name, 1),
        "rollback": lambda: manager.rollback(name), "history": lambda: manager.history(name),
        "compare": lambda: manager.compare(name, 1, 2), "pin": lambda: manager.pin(name, 1),
        "unpin": lambda: manager.unpin(name, 1), "prune": lambda: manager.prune(name),
        "dry run": lambda: manager.prune(name, dry_run=True), "info": lambda: registry.info(name),
        "rename": lambda: registry.rename(name, "fox"), "rename to": lambda: registry.rename("owl", name),
        "remove": lambda: registry.remove(name), "get": lambda: registry[name],
        "find": lambda: heads.find(store, name), "load": lambda: heads.load(store, name),
        "there": lambda: heads.there(store, name), "status": lambda: registry.status(name),
        "remove, dry": lambda: registry.remove(name, dry_run=True), "told": lambda: history(store, name),
        "publish head": lambda: publishing.publish(store, name, record, tensors, attachments={}, actor="x"),
        "rename, below": lambda: renaming.rename(store, name, "fox", actor="x"),
        "remove, below": lambda: renaming.remove(store, name, actor="x"),
        "numbers": lambda: store.head(name).numbers(), "numbers beside": lambda: store.backbone(name).numbers(),
        "find backbone": lambda: backbones.find(store, name),
        "check backbone": lambda: backbones.check_free(store, name, backbone),
        "publish backbone": lambda: backbones.publish(store, name, backbone, weights),
        "publish": lambda: store.head(name).publish(one, created_at=AT),
        "publish beside": lambda: store.backbone(name).publish(one, created_at=AT),
        "pointer": lambda: store.head(name).pointer(),
        "manifest": lambda: store.backbone(name).manifest(1),
        "swap": lambda: store.head(name).swap(NOTHING, {}, Change(what="pinned", at=AT)), "changing": change,
        "confirm": lambda: store.head(name).confirm(), "head": lambda: store.head(name),
        "item": lambda: store.layout.item(layout.HEADS, name), "lock": lambda: store.layout.lock(layout.HEADS, name),
    }  # fmt: skip


def test_hostile_names(copy, tally):
    """No entry point takes a name that could leave its folder or pass for another, and nothing on the disk changes."""
    cases = tally("hostile names x entry points that take a name, each refused")
    root = copy()
    (root.parent / "owl").mkdir()
    store, before = Store.open(root, durability="fast"), snapshot(root.parent)
    for number, name in enumerate([*NAMES, *NO_TEXTS]):
        for point, ask in entry_points(store, name).items():
            with pytest.raises(NameInvalidError, match=r"^cannot ") as caught:
                ask()
            assert len(str(caught.value)) < 500, point
            cases.case(number, point)
        assert name not in HeadRegistry(store)
    assert snapshot(root.parent) == before
    assert len(NAMES) >= 300
    cases.require(300 * 40)


COMMANDS = (
    ("versions", "{}"), ("promote", "{}", "1"), ("rollback", "{}"), ("history", "{}"), ("compare", "{}", "1", "2"),
    ("pin", "{}", "1"), ("unpin", "{}", "1"), ("prune", "{}"), ("rename", "{}", "fox"), ("rename", "owl", "{}"),
    ("remove", "{}", "--yes"), ("remove", "{}", "--dry-run"), ("verify", "--head", "{}"),
    ("merge", "{}", "nowhere.safetensors"), ("predict", "nowhere.png", "--head", "{}"),
    ("split", "nowhere.pth", "--head", "{}"), ("split", "nowhere.pth", "--head", "owl", "--backbone", "{}"),
)  # fmt: skip


def test_hostile_names_on_the_command_line(copy, tally, capsys):
    """No command takes such a name: exit code 2, one sentence on standard error, and nothing on the disk changes."""
    cases = tally("hostile names x commands that take a name, each refused")
    root = copy()
    before = snapshot(root.parent)
    words = [name for name in NAMES if not name.startswith("-") and "\0" not in name and not SURROGATE.search(name)]
    for number, name in enumerate(words):
        for command in COMMANDS:
            code = run([*(word.format(name) if word == "{}" else word for word in command), "--store", str(root)])
            said = capsys.readouterr()
            assert (code, said.out) == (2, ""), (command, name)
            assert said.err.startswith("hydra-detect: ")
            cases.case(number, command)
    assert snapshot(root.parent) == before
    cases.require(300 * len(COMMANDS))


def test_the_names_are_no_doubles():
    """The hostile names hold what they promise: twins in two Unicode forms, every device, every control character."""
    assert {unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD")} <= set(NAMES)
    assert all(unicodedata.normalize("NFKC", twin) != twin or not twin.isascii() for twin in TWINS)
    assert {f"o{chr(code)}wl" for code in range(0x20)} <= set(NAMES)
    assert set(DEVICES) <= set(NAMES)
    assert len(FILE_NAMES) >= 300


def test_hostile_numbers(copy, tally):
    """What is no version number is refused wherever one is taken."""
    cases = tally("what is no version number x entry points that take one, each refused")
    root = copy()
    manager, before = VersionManager(root), snapshot(root)
    asks = (manager.promote, manager.pin, manager.unpin, lambda head, number: manager.compare(head, 1, number))
    numbers = (0, -1, 10**9, 10**5000, True, 1.0, 2.5, "1", None, b"1", [1], float("nan"), NESTED, ...)
    for (place, ask), (which, number) in itertools.product(enumerate(asks), enumerate(numbers)):
        with pytest.raises(NameInvalidError, match=r"^cannot refer to a version of 'owl': "):
            ask("owl", number)
        cases.case(place, which)
    assert without_times(snapshot(root)) == without_times(before)
    cases.require(4 * len(numbers))


def without_times(found):
    """Return what a snapshot says of modes and contents; taking a lock touches its file."""
    return {path: (facts[0], facts[3]) for path, facts in found.items()}


def test_hostile_stores(tmp_path, tally):
    """What cannot be the path of a store is refused, to open and to make, and nothing is written."""
    cases = tally("paths that can be no store x ways to open one, each refused")
    before = snapshot(tmp_path)
    for place, path in enumerate(("a\0b", "\0", "a\ud800b", "x" * 5_000, "/".join(["x" * 200] * 40))):
        for way in (Store.open, Store.create, VersionManager, HeadRegistry):
            with pytest.raises(StoreError, match=r"^cannot (open|make) "):
                way(tmp_path / path)
            cases.case(place, way)
    with pytest.raises(StoreError, match=r"^cannot open the store "):
        Store.find(tmp_path / "a\0b")
    assert snapshot(tmp_path) == before
    cases.require(20)


def test_hostile_file_names(copy, tally):
    """No file can be put beside a version, or be read as listed by a stranger, under a name that could leave it."""
    cases = tally("hostile file names x ways into a version, each refused")
    root = copy()
    store, tensors = Store.open(root, durability="fast"), some_tensors(9)
    manager, record, before = VersionManager(store), a_record(tensors), snapshot(root.parent)
    ways = {
        "check": check_file_name,
        "publish": lambda name: store.head("owl").publish({"a": b"", name: b"x"}, created_at=AT),
        "attach": lambda name: manager.create("owl", tensors, record, attachments={name: b"x"}),
    }
    for number, name in enumerate(FILE_NAMES):
        for way, ask in ways.items():
            with pytest.raises(NameInvalidError, match=r"cannot name a file ") as caught:
                ask(name)
            assert len(str(caught.value)) < 500
            cases.case(number, way)
    assert snapshot(root.parent) == before
    path = store.layout.item(layout.HEADS, "owl").version(6) / layout.MANIFEST
    document = sealed.unseal(path.read_bytes(), "it")
    for number, name in enumerate(name for name in FILE_NAMES if not SURROGATE.search(name)):  # no JSON holds those
        rewrite(path, sealed.seal({**document, "files": {**document["files"], name: [0, "sha256:" + "0" * 64]}}))
        with pytest.raises(CorruptError, match="its list of files is malformed"):
            store.head("owl").manifest(6)
        cases.case(number, "listed")
    cases.require(300 * 4)


@pytest.mark.parametrize("name", [layout.TENSORS, layout.RECORD, layout.MANIFEST, "manifest.json", "MANIFEST.JSON"])
def test_names_of_the_stores_own_files(copy, name):
    """Nothing can be attached under the name of one of a version's own files, in no case of its letters."""
    root = copy()
    tensors, before = some_tensors(9), snapshot(root)
    with pytest.raises(NameInvalidError, match=r"attachments would replace|is the store's own file"):
        VersionManager(root).create("owl", tensors, a_record(tensors), attachments={name: b"x"})
    assert without_times(snapshot(root)) == without_times(before)


def test_folders_of_hostile_names(copy, built, tally):
    """Folders with hostile names that somebody put among the heads are neither heads nor an obstacle to any."""
    cases = tally("folders of hostile names among the heads, each passed over")
    root = copy()
    for name in NAMES:
        if "/" in name or "\0" in name or name in {"", ".", ".."}:  # no name of a folder anywhere
            continue
        with contextlib.suppress(OSError, UnicodeEncodeError):  # too long, or half a surrogate pair
            (root / "heads" / name / "versions" / "000001").mkdir(parents=True)
            cases.case(name)
    registry = HeadRegistry(root)
    assert registry.infos() == built[1]
    assert list(registry) == ["owl"]
    assert VersionManager(root).verify().is_sound
    cases.require(300)
