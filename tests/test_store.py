"""The store: made and opened safely, written by whom it lets write, and its names."""

import contextlib
import errno
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
import store_fixtures
from store_fixtures import (
    AT,
    WatchedDisk,
    create,
    dead_name,
    failing,
    on_disk,
    point,
    publish,
    rewrite,
    snapshot,
)

from hydra_detect import codec
from hydra_detect.errors import CorruptError, InputError, StoreError
from hydra_detect.registry import HeadRegistry
from hydra_detect.storage import backbones, changes, heads, layout, pointers
from hydra_detect.storage.disk import FAST, FULL, Disk
from hydra_detect.storage.store import Store
from hydra_detect.versions import VersionManager

store, manager, filled = store_fixtures.store, store_fixtures.manager, store_fixtures.filled

IDENTITY = {"format": 1, "min_reader": 1, "min_writer": 1, "store_id": "x"}
NOBODY = """
import os, sys
from hydra_detect.errors import HydraDetectError
from hydra_detect.storage import heads
from hydra_detect.storage.store import Store

os.setgroups([])
os.setgid(65534)
os.setuid(65534)
store = Store.open(sys.argv[1])
for ask in (lambda: heads.there(store, "fox"), lambda: heads.find(store, "lynx@1")):
    try:
        ask()
    except HydraDetectError as error:
        print(type(error).__name__, error.found)
print(store.names("heads"), heads.find(store, "owl").number)
"""


# Making and opening


@pytest.mark.parametrize("folder", ["new", "new/deep/down", "empty"])
def test_create(tmp_path, folder):
    """A missing or empty folder becomes a store that holds its identity alone, and a second time changes nothing."""
    (tmp_path / "empty").mkdir()
    store = Store.create(tmp_path / folder)
    assert sorted(path.name for path in store.root.iterdir()) == ["STORE.json", "tmp"]
    assert list(store.layout.staging.iterdir()) == []
    identity = codec.loads(store.layout.identity.read_bytes(), "it")
    assert {key: identity[key] for key in ("format", "min_reader", "min_writer")} == {
        "format": 1, "min_reader": 1, "min_writer": 1,
    }  # fmt: skip
    before = snapshot(tmp_path)
    assert Store.create(tmp_path / folder).root == Store.open(str(tmp_path / folder)).root == store.root
    assert Store.create(store) is Store.open(store) is store
    assert snapshot(tmp_path) == before


def test_open_of_nothing(tmp_path):
    """A missing folder and a folder that is no store are told apart, and neither is changed."""
    with pytest.raises(StoreError, match="there is no such folder"):
        Store.open(tmp_path / "none")
    with pytest.raises(StoreError, match=r"the folder holds no STORE.json"):
        Store.open(tmp_path)
    assert snapshot(tmp_path) == {}


@pytest.mark.parametrize("name", ["photo.jpg", ".hidden", "STORE.json.bak", "heads"])
def test_create_in_a_foreign_folder(tmp_path, name):
    """A folder that holds other things never becomes a store, and stays as it was."""
    (tmp_path / name).mkdir()
    before = snapshot(tmp_path)
    with pytest.raises(StoreError, match=r"holds other files and no STORE.json") as caught:
        Store.create(tmp_path)
    assert caught.value.remedy == "Name a new or an empty folder."
    assert snapshot(tmp_path) == before


def test_create_at_a_file(tmp_path):
    """A file is no place for a store."""
    (tmp_path / "file").write_bytes(b"x")
    for path in (tmp_path / "file", tmp_path / "file" / "store"):
        with pytest.raises(StoreError, match="make a store at"):
            Store.create(path)
    assert (tmp_path / "file").read_bytes() == b"x"


@pytest.mark.parametrize("step", ["make_folder", "create", "write", "sync", "sync_folder", "link"])
def test_create_on_a_full_disk(tmp_path, step):
    """A store that could not be made, at whatever step, can be made later in the same folder."""
    at, reached = 0, True
    while reached:
        at += 1
        folder = tmp_path / str(at)
        folder.mkdir()
        disk, calls = failing(step, at, errno.ENOSPC)
        with contextlib.suppress(StoreError):
            Store(folder, disk=disk)._establish()
        reached = len(calls) >= at
        assert [path for path in folder.rglob("*") if path.name not in {"tmp", "STORE.json"}] == []
        assert Store.create(folder).names(layout.HEADS) == []
    assert at >= 2


def test_create_syncs_all_that_leads_to_it(tmp_path):
    """A store's folder, and those above it, are durable before it is one, also where all were there already."""
    (tmp_path / "store").mkdir()
    taken = []

    def look(step, path, *_arguments):
        if step in {"sync_folder", "link"}:
            taken.append((step, path))

    Store(tmp_path / "store", disk=WatchedDisk(look))._establish()
    (place,) = [place for place, (step, _path) in enumerate(taken) if step == "link"]
    synced = [path for _step, path in taken[:place]]
    assert {tmp_path / "store", *(tmp_path / "store").parents} == set(synced)
    assert taken[place + 1 :] == [("sync_folder", tmp_path / "store")]


@pytest.mark.parametrize(("durability", "waits"), [(FULL, True), (FAST, False)])
def test_durability(tmp_path, monkeypatch, durability, waits):
    """With full durability a change waits for the disk, with fast it does not; either way it is there."""
    synced = []
    monkeypatch.setattr("os.fsync", synced.append)
    store = Store.create(tmp_path / "store", durability=durability)
    assert store.disk == Store.open(store.root, durability=durability).disk == Disk(durability)
    publish(store)
    point(store, 1, 0)
    assert bool(synced) == waits
    assert Store.open(store.root).head("owl").pointer().active == 1
    assert Store.open(store.root).disk == Store.create(store.root).disk == Disk(FULL)


@pytest.mark.parametrize("durability", ["none", "", "FULL", True, 0, 1, ["full"]], ids=repr)
@pytest.mark.parametrize("way", [Store.open, Store.create, Store.find])
def test_a_durability_that_there_is_not(tmp_path, way, durability):
    """A durability that there is not is refused with those that there are, before anything is made."""
    store = Store.create(tmp_path / "store")
    for root in (store, store.root, tmp_path / "new"):
        with pytest.raises(InputError, match=r"cannot open a store: durability is .*\. Choose from full, fast\.$"):
            way(root, durability=durability)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("way", [Store.open, Store.create, Store.find])
def test_a_store_keeps_its_durability(tmp_path, way):
    """A store that is open is returned as it is; one with another durability than is asked for is no answer."""
    store = Store.create(tmp_path / "store", durability=FAST)
    assert way(store) is way(store, durability=FAST) is store
    with pytest.raises(InputError, match="it is open already, with durability 'fast'") as caught:
        way(store, durability=FULL)
    assert caught.value.remedy == "Open its path anew."
    assert way(store.root, durability=FULL).disk == Disk(FULL)


def test_create_after_a_crash(tmp_path):
    """What a crashed or a present maker of the same store has left so far is no foreign file."""
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp" / dead_name()).write_bytes(b"half")
    assert Store.create(tmp_path).names(layout.HEADS) == []


def test_many_make_the_same_store(tmp_path):
    """Of several that make a store at the same moment all get the same one."""
    barrier, found, problems = threading.Barrier(6), [], []

    def make():
        barrier.wait()
        try:
            found.append(Store.create(tmp_path / "store").layout.identity.read_bytes())
        except StoreError as error:
            problems.append(error)

    threads = [threading.Thread(target=make) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (problems, len(found), len(set(found))) == ([], 6, 1)
    assert sorted(os.listdir(tmp_path / "store")) == ["STORE.json", "tmp"]  # noqa: PTH208  names alone
    assert list((tmp_path / "store" / "tmp").iterdir()) == []


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{", b"[]", b"1", b"{}", b'{"min_reader": 1}', b'{"min_reader": "1", "min_writer": 1}',
        b'{"min_reader": true, "min_writer": 1}', b'{"min_reader": 1.0, "min_writer": 1}', b"\0" * 100,
        b'{"min_reader": 1, "min_reader": 1, "min_writer": 1}', b'{"min_reader": 1, "min_writer": null}',
        b" " * (1 << 20) + b"{}",
    ],
    ids=lambda data: ascii(data[:40]),
)  # fmt: skip
def test_damaged_identity(tmp_path, data):
    """A damaged STORE.json is told as damage, and is not mended by writing over it."""
    (tmp_path / "STORE.json").write_bytes(data)
    before = snapshot(tmp_path)
    for way in (Store.open, Store.create):
        with pytest.raises(CorruptError, match=r"STORE\.json"):
            way(tmp_path)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("kind", ["folder", "fifo", "link"])
def test_identity_that_is_no_file(tmp_path, kind):
    """A STORE.json that is no regular file makes no store."""
    path = tmp_path / "STORE.json"
    {"folder": path.mkdir, "fifo": lambda: os.mkfifo(path), "link": lambda: path.symlink_to("/dev/null")}[kind]()
    with pytest.raises(CorruptError, match="is no regular file"):
        Store.open(tmp_path)


def test_store_of_a_newer_reader(filled):
    """A store that only newer versions may read is not read, and nothing in it changes."""
    rewrite(filled.store.layout.identity, codec.dumps(IDENTITY | {"format": 7, "min_reader": 7, "min_writer": 7}))
    before = snapshot(filled.store.root)
    for way in (Store.open, Store.create):
        with pytest.raises(StoreError, match=r"it needs a reader of format 7 and .* reads 1") as caught:
            way(filled.store.root)
        assert caught.value.facts == {"format": 7}
    assert snapshot(filled.store.root) == before


def newer_writer(store):
    """Let a store demand a newer writer, as a newer version that came to share it may do; return what is there."""
    rewrite(store.layout.identity, codec.dumps(IDENTITY | {"format": 2, "min_writer": 2}))
    return snapshot(store.root)


def writing(manager):
    """Return every way of writing to a store, and what stands for nothing to do among them."""
    store, registry = manager.store, HeadRegistry(manager.store)
    owl, change = store.head("owl"), changes.change(pointers.PINNED)
    demo, tensors = backbones.find(store, "demo"), backbones.tensors(store, backbones.find(store, "demo"))

    def lock():
        with owl.changing():
            pass

    return {
        "create": lambda: create(manager),
        "promote": lambda: manager.promote("owl", 2),
        "promote the active": lambda: manager.promote("owl", 1),
        "roll back": lambda: manager.rollback("owl"),
        "pin": lambda: manager.pin("owl", 1),
        "unpin": lambda: manager.unpin("owl", 1),
        "prune": lambda: manager.prune("owl", keep=1),
        "prune nothing": lambda: manager.prune("owl", keep=9),
        "repair": manager.repair,
        "rename": lambda: registry.rename("owl", "strix"),
        "remove": lambda: registry.remove("owl"),
        "publish": lambda: owl.publish({"x": b""}, created_at=AT),
        "swap": lambda: owl.swap(owl.pointer(), {}, change),
        "lock": lock,
        "backbone": lambda: backbones.publish(store, "demo", demo.record, tensors),
    }


@pytest.fixture
def promoted(filled):
    """Give the manager of the filled store, with something to roll back to."""
    filled.promote("owl", 2)
    filled.promote("owl", 1)
    return filled


def test_store_of_a_newer_writer(promoted):
    """A store that only newer versions may write is read as ever, and nothing in it changes."""
    before = newer_writer(promoted.store)
    again = VersionManager(promoted.store.root)
    assert again.active("owl").number == 1
    for write in writing(again).values():
        with pytest.raises(StoreError, match=r"it needs a writer of format 2 and .* writes 1") as caught:
            write()
        assert (caught.value.remedy, caught.value.facts["format"]) == ("Upgrade hydra-detect; nothing was changed.", 2)
    assert snapshot(promoted.store.root) == before


def test_a_newer_writer_that_comes_while_the_store_is_open(promoted):
    """Whoever has a store open does not write to it any more once it demands a newer writer; reading goes on."""
    ways = writing(promoted)
    before = newer_writer(promoted.store)
    for write in ways.values():
        with pytest.raises(StoreError, match=r"it needs a writer of format 2 and .* writes 1"):
            write()
    assert promoted.active("owl").number == 1
    assert [info.head for info in HeadRegistry(promoted.store).infos()] == ["fox", "owl"]
    assert snapshot(promoted.store.root) == before


def test_a_newer_writer_that_comes_while_a_version_is_written(filled):
    """A version that was begun before is not put in its place by a version of this library that may not write."""

    def look(step, *_arguments):
        if step == "write":
            newer_writer(filled.store)

    with pytest.raises(StoreError, match="it needs a writer of format 2"):
        publish(on_disk(filled.store, WatchedDisk(look)))
    assert filled.store.head("owl").numbers() == [1, 2]
    assert list(filled.store.head("owl").place.staging.iterdir()) == []


# Names


def test_items_of_a_store(store):
    """A store gives each backbone and head by its name, whether there is one or not."""
    assert store.head("owl") == store.item(layout.HEADS, "owl")
    assert store.backbone("owl") == store.item(layout.BACKBONES, "owl")
    assert (store.head("owl").kind, store.backbone("owl").kind) == ("heads", "backbones")
    assert repr(store) == f"Store({str(store.root)!r})"


def test_names_ignore_what_is_not_ours(filled):
    """Files, foreign folders and heads without a version are not listed."""
    heads = filled.store.layout.kind(layout.HEADS)
    (heads / "README.txt").touch()
    (heads / "zebra").touch()
    for folder in ("Owl", "con", ".git", "a b", "empty", "wolf/claims", "lynx/versions", "bear/versions/tmp"):
        (heads / folder).mkdir(parents=True)
    assert filled.store.names(layout.HEADS) == ["fox", "owl"]
    assert filled.store.names(layout.BACKBONES) == ["demo"]


def test_names_of_nothing(store):
    """A store to which nothing was ever written has no names."""
    assert store.names(layout.HEADS) == store.names(layout.BACKBONES) == []


def closed(monkeypatch, folder, number=errno.EACCES):
    """Let the system refuse to list a folder."""
    listed = os.listdir

    def refuse(path):
        if Path(path) == folder:
            raise OSError(number, os.strerror(number), str(path))
        return listed(path)

    monkeypatch.setattr(os, "listdir", refuse)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_a_head_that_may_not_be_listed_is_named(filled, monkeypatch, number):
    """A head whose versions the system refuses to list is there: it hides no other, and who asks for it hears why."""
    closed(monkeypatch, filled.store.head("fox").place.versions, number)
    assert filled.store.names(layout.HEADS) == heads.names(filled.store) == ["fox", "owl"]
    assert heads.find(filled.store, "owl").number == 1
    with pytest.raises(StoreError, match=f"cannot list .*fox/versions: {os.strerror(number)}") as caught:
        heads.there(filled.store, "fox")
    assert caught.value.remedy == "See to the file system, and whether you have the right to read there."
    (fox, owl) = HeadRegistry(filled.store).infos()
    assert (fox.problem.startswith(os.strerror(number)), owl.problem) == (True, "")


def test_heads_that_may_not_be_listed_at_all(filled, monkeypatch):
    """A store whose heads the system refuses to list is not taken for one without heads."""
    closed(monkeypatch, filled.store.layout.kind(layout.HEADS))
    with pytest.raises(StoreError, match=r"cannot list the heads of Store\('.*'\): Permission denied") as caught:
        filled.store.names(layout.HEADS)
    assert caught.value.remedy == "See to the file system, and whether you have the right to read there."
    assert filled.store.names(layout.BACKBONES) == ["demo"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_somebody_else_may_not_look_into_a_head(filled):
    """A user who may not look into a head sees that it is there, and reads what he may."""
    with tempfile.TemporaryDirectory() as folder:  # whose parents let everybody through, unlike those of tmp_path
        Path(folder).chmod(0o755)
        root = shutil.copytree(filled.store.root, Path(folder) / "store")
        (root / "heads" / "fox").chmod(0o700)
        shutil.copytree(root / "heads" / "owl", root / "heads" / "lynx")
        (root / "heads" / "lynx" / "versions").chmod(0o744)
        run = subprocess.run([sys.executable, "-c", NOBODY, str(root)], capture_output=True, text=True, check=False)
    *refusals, said = run.stdout.splitlines()
    assert said == "['fox', 'lynx', 'owl'] 1", run.stderr
    assert [refusal.partition(" (")[0] for refusal in refusals] == ["StoreError Permission denied"] * 2


def test_a_relative_path_in_a_folder_that_is_gone(tmp_path, monkeypatch):
    """Where the working folder was deleted, a relative path leads nowhere: that is told like any other refusal."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    (tmp_path / "work").rmdir()
    for make in (Store.open, Store.create):
        with pytest.raises(StoreError, match="cannot open the store 'store': No such file or directory"):
            make("store")
