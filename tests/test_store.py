"""The store: made and opened safely, versions whole or not at all, one pointer, and readers that never write."""

import errno
import os
import shutil
import subprocess
import sys
import threading

import filelock
import pytest
import store_fixtures
from store_fixtures import AT, a_backbone, a_record, create, flip, leftovers, rewrite, snapshot, some_tensors

from hydra_detect import codec
from hydra_detect.errors import ConflictError, CorruptError, NameInvalidError, NotFoundError, StoreError
from hydra_detect.names import Digest
from hydra_detect.storage import artifacts, backbones, files, layout, sealed
from hydra_detect.storage import store as store_module
from hydra_detect.storage.store import Pointer, Store
from hydra_detect.versions import VersionManager

store, manager, filled = store_fixtures.store, store_fixtures.manager, store_fixtures.filled

IDENTITY = {"format": 1, "min_reader": 1, "min_writer": 1, "store_id": "x"}
CONTENTS = {"a.bin": b"owl" * 100, "b.json": b"{}", "c": b""}
FULL_DISK = """
import sys
sys.path.insert(0, sys.argv[1])
from store_fixtures import AT, leftovers, limit_file_size
from hydra_detect.errors import StoreError
from hydra_detect.storage import layout
from hydra_detect.storage.store import Store

store = Store.open(sys.argv[2])
limit_file_size(int(sys.argv[3]))
try:
    store.publish(layout.HEADS, "owl", {"big": b"x" * 2000, "small": b"y"}, created_at=AT)
except StoreError as error:
    print(error.facts["errno"], store.numbers(layout.HEADS, "owl"), leftovers(store))
else:
    print("published", store.numbers(layout.HEADS, "owl"), leftovers(store))
"""


def publish(store, name="owl", contents=CONTENTS):
    """Publish a version of a head."""
    return store.publish(layout.HEADS, name, contents, created_at=AT)


def point(store, number, expected, name="owl"):
    """Make a version active."""
    return store.point(layout.HEADS, name, number, expected=expected, at=AT, reason="test")


# Making and opening


@pytest.mark.parametrize("folder", ["new", "new/deep/down", "empty"])
def test_create(tmp_path, folder):
    """A missing or empty folder becomes a store that holds its identity alone, and a second time changes nothing."""
    (tmp_path / "empty").mkdir()
    store = Store.create(tmp_path / folder)
    assert [path.name for path in store.root.iterdir()] == ["STORE.json"]
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


def test_create_on_a_full_disk(tmp_path, monkeypatch):
    """A store that could not be made leaves nothing behind, so that it can be made later."""
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", lambda _descriptor: (_ for _ in ()).throw(OSError(errno.ENOSPC, "disk full")))
        with pytest.raises(StoreError, match="disk full"):
            Store.create(tmp_path)
    assert snapshot(tmp_path) == {}
    assert Store.create(tmp_path).names(layout.HEADS) == []


def test_create_after_a_crash(tmp_path):
    """What a crashed or a present maker of the same store has left so far is no foreign file."""
    (tmp_path / ".STORE-1234").write_bytes(b"half")
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
    assert os.listdir(tmp_path / "store") == ["STORE.json"]  # noqa: PTH208  names alone


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


def test_store_of_a_newer_writer(filled):
    """A store that only newer versions may write is read as ever, and nothing in it changes."""
    rewrite(filled.store.layout.identity, codec.dumps(IDENTITY | {"format": 2, "min_writer": 2}))
    before = snapshot(filled.store.root)
    again = VersionManager(filled.store.root)
    assert again.active("owl").number == 1
    for write in (
        lambda: create(again),
        lambda: again.promote("owl", 2),
        lambda: publish(again.store),
        lambda: point(again.store, 2, 1),
    ):
        with pytest.raises(StoreError, match=r"it needs a writer of format 2 and .* writes 1"):
            write()
    assert snapshot(filled.store.root) == before


# Publishing


def test_publish(store):
    """A published version is listed, proves each of its files, and left nothing in staging."""
    manifest = publish(store)
    assert (manifest.kind, manifest.name, manifest.version, manifest.created_at) == ("heads", "owl", 1, AT)
    assert store.manifest(layout.HEADS, "owl", 1) == manifest
    assert {path: store.read(manifest, path) for path in manifest.files} == CONTENTS
    assert leftovers(store) == []
    assert (store.names(layout.HEADS), store.names(layout.BACKBONES)) == (["owl"], [])
    assert store.pointer(layout.HEADS, "owl") is None


def test_numbers_rise_and_never_come_back(store):
    """Numbers count up past 9 and 999,999, and one whose version is gone is not given out again."""
    assert [publish(store).version for _ in range(11)] == list(range(1, 12))
    item = store.layout.item(layout.HEADS, "owl")
    shutil.rmtree(item.version(11))
    assert publish(store).version == 12
    item.claim(999_999).touch()
    assert [publish(store).version for _ in range(2)] == [1_000_000, 1_000_001]
    assert store.numbers(layout.HEADS, "owl")[-3:] == [12, 1_000_000, 1_000_001]


def test_a_version_without_its_claim(store):
    """Where claims were lost, a published version still keeps its number."""
    first = publish(store)
    shutil.rmtree(store.layout.item(layout.HEADS, "owl").claims)
    second = publish(store)
    assert (first.version, second.version) == (1, 2)
    assert store.manifest(layout.HEADS, "owl", 1) == first


def test_a_number_taken_meanwhile(store, monkeypatch):
    """A number whose folder appears at the last moment is left to the other, and the next one is taken."""
    item = store.layout.item(layout.HEADS, "owl")
    claim = Store._claim

    def late(item):
        number = claim(item)
        if number == 1:
            item.version(1).mkdir()
            (item.version(1) / "theirs").touch()
        return number

    monkeypatch.setattr(Store, "_claim", staticmethod(late))
    manifest = publish(store)
    assert manifest.version == 2
    assert store.manifest(layout.HEADS, "owl", 2) == manifest
    assert [path.name for path in item.version(1).iterdir()] == ["theirs"]


def test_writers_at_the_same_moment(store):
    """Versions published at the same moment have numbers of their own, and all of them are whole."""
    barrier, found = threading.Barrier(4), []

    def work():
        barrier.wait()
        found.extend(publish(store).version for _ in range(5))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == list(range(1, 21)) == store.numbers(layout.HEADS, "owl")
    for number in found:
        manifest = store.manifest(layout.HEADS, "owl", number)
        assert {path: store.read(manifest, path) for path in CONTENTS} == CONTENTS


def failing(function, at, number):
    """Return `function` but for its call number `at`, which writes half and fails, and a list of its calls."""
    calls = []

    def wrapped(*arguments, **options):
        calls.append(arguments)
        if len(calls) == at:
            if function is files_write_new:
                arguments[0].write_bytes(b"half")
            raise OSError(number, os.strerror(number))
        return function(*arguments, **options)

    return wrapped, calls


files_write_new = files.write_new


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("step", ["write_new", "sync_folder", "make_folder"])
def test_publish_is_whole_or_nothing(store, monkeypatch, step, number):
    """Whichever step of publishing fails, no half version is seen, staging is empty, and the next one works."""
    publish(store)
    at, reached = 0, True
    while reached:
        at += 1
        listed = store.numbers(layout.HEADS, "owl")
        wrapped, calls = failing(getattr(files, step), at, number)
        with monkeypatch.context() as patch:
            patch.setattr(files, step, wrapped)
            try:
                publish(store)
            except StoreError as error:
                assert error.facts == {"errno": number}  # noqa: PT017  the last round has no error
            reached = len(calls) >= at
        for version in store.numbers(layout.HEADS, "owl"):
            manifest = store.manifest(layout.HEADS, "owl", version)
            assert {path: store.read(manifest, path) for path in CONTENTS} == CONTENTS
        if step != "sync_folder":  # the sync after the rename fails too late to undo it
            assert len(store.numbers(layout.HEADS, "owl")) == len(listed) + (not reached)
        assert leftovers(store) == []
        assert publish(store).version > max(listed)
    assert at >= {"write_new": 6, "sync_folder": 4, "make_folder": 4}[step]


@pytest.mark.parametrize("size", [0, 1, 500, 1999, 2000, 4096])
def test_publish_on_a_disk_that_is_full(store, size):
    """A version that really does not fit is told as such and leaves nothing; one that fits is published."""
    folder = os.path.dirname(__file__)  # noqa: PTH120  an argument
    run = subprocess.run(
        [sys.executable, "-c", FULL_DISK, folder, str(store.root), str(size)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    fits = size >= 2000
    assert run.stdout.strip() == ("published [1] []" if fits else f"{errno.EFBIG} [] []")
    assert len(publish(store).files) == 3


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_files_of_a_version_are_read_only(store, umask):
    """Files of a version are written once: nobody may write them, and who may read them is up to the umask."""
    before = os.umask(umask)
    try:
        publish(store)
        point(store, 1, 0)
    finally:
        os.umask(before)
    item = store.layout.item(layout.HEADS, "owl")
    modes = {path.name: path.stat().st_mode & 0o777 for path in [*item.version(1).iterdir(), item.pointer(1)]}
    assert modes == dict.fromkeys([*CONTENTS, layout.MANIFEST, item.pointer(1).name], 0o444 & ~umask)
    assert item.version(1).stat().st_mode & 0o777 == 0o777 & ~umask


@pytest.mark.parametrize("path", ["MANIFEST.json", "../a", "/a", "a/b", "", ".."])
def test_contents_stay_in_their_folder(store, tmp_path, path):
    """A file that would lie elsewhere, or replace the manifest, is refused before anything is written."""
    before = snapshot(tmp_path)
    with pytest.raises(NameInvalidError, match=r"^cannot ") as caught:
        publish(store, contents={"fine": b"", path: b"x"})
    assert caught.value.facts == {"name": path}
    assert snapshot(tmp_path) == before


# Pointing


def test_point(store):
    """The pointer says which version is active, which was before, and why; each change is a generation."""
    manifests = [publish(store), publish(store)]
    first = point(store, 2, 0)
    assert first == Pointer(generation=1, active=2, previous=None, manifest=manifests[1].digest, at=AT, reason="test")
    second = point(store, 1, 1)
    assert (second.generation, second.active, second.previous) == (2, 1, 2)
    assert store.pointer(layout.HEADS, "owl") == Store.open(store.root).pointer(layout.HEADS, "owl") == second
    assert leftovers(store) == []


@pytest.mark.parametrize("expected", [0, 2, 5, -1])
def test_point_compares(store, expected):
    """Who expects another generation than there is changes nothing."""
    publish(store)
    point(store, 1, 0)
    before = snapshot(store.root)
    with pytest.raises(ConflictError, match="another process changed the active version"):
        point(store, 1, expected)
    assert snapshot(store.root) == before


def test_point_at_nothing(store):
    """A version that is not there cannot become active; those that are there are named."""
    with pytest.raises(NotFoundError, match=r"has no 'owl'. There is none yet.$"):
        point(store, 1, 0)
    publish(store)
    publish(store)
    with pytest.raises(NotFoundError, match=r"'owl' has no version 3\. There are versions 1, 2\."):
        point(store, 3, 0)
    assert store.pointer(layout.HEADS, "owl") is None


def test_two_writers_expect_the_same(store, monkeypatch):
    """Of two that swap from the same generation exactly one wins, even if both looked before either wrote."""
    publish(store)
    publish(store)
    inside, outcome = threading.Barrier(2), []
    put = files.put_if_absent

    def together(temporary, target):
        inside.wait(timeout=10)
        put(temporary, target)

    monkeypatch.setattr(files, "put_if_absent", together)

    def swap(number):
        try:
            outcome.append(point(store, number, 0).active)
        except ConflictError as error:
            outcome.append(error)

    threads = [threading.Thread(target=swap, args=(number,)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    won = [item for item in outcome if isinstance(item, int)]
    assert (len(outcome), len(won)) == (2, 1)
    assert store.pointer(layout.HEADS, "owl").active == won[0]
    assert leftovers(store) == []


@pytest.mark.parametrize("step", ["write_new", "put_if_absent"])
def test_point_on_a_full_disk(store, monkeypatch, step):
    """A pointer that could not be written leaves the old one, and nothing in staging."""
    publish(store)
    publish(store)
    before = point(store, 1, 0)
    wrapped, calls = failing(getattr(files, step), 1, errno.ENOSPC)
    with monkeypatch.context() as patch:
        patch.setattr(files, step, wrapped)
        with pytest.raises(StoreError, match="Free some space and run it again; nothing was changed"):
            point(store, 2, 1)
    assert len(calls) == 1
    assert store.pointer(layout.HEADS, "owl") == before
    assert leftovers(store) == []
    assert point(store, 2, 1).active == 2


def test_damaged_pointer(store):
    """Every flipped bit and every truncation of the newest pointer is found; it is never taken for another."""
    publish(store)
    point(store, 1, 0)
    path = store.layout.item(layout.HEADS, "owl").pointer(1)
    data = path.read_bytes()
    for place in range(len(data)):
        for broken in (data[:place], data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]):
            rewrite(path, broken)
            with pytest.raises(CorruptError, match="cannot read the pointer of 'owl': "):
                store.pointer(layout.HEADS, "owl")


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 2}, {"generation": 2}, {"generation": "1"}, {"active": "1"}, {"active": None}, {"active": 1.0},
        {"previous": "1"}, {"manifest": "x"}, {"manifest": None}, {"at": 5}, {"reason": None}, {"active": ...},
        {"previous": ...}, {"manifest": ...}, {"format": ...},
    ],
    ids=str,
)  # fmt: skip
def test_pointer_of_a_stranger(store, changes):
    """A pointer whose seal is right and whose content is not is refused as damaged."""
    publish(store)
    point(store, 1, 0)
    path = store.layout.item(layout.HEADS, "owl").pointer(1)
    document = sealed.unseal(path.read_bytes(), "it") | changes
    rewrite(path, sealed.seal({key: value for key, value in document.items() if value is not ...}))
    with pytest.raises(CorruptError, match="cannot read the pointer of 'owl': "):
        store.pointer(layout.HEADS, "owl")


# Reading


@pytest.mark.parametrize("path", ["a.bin", "b.json", layout.MANIFEST])
@pytest.mark.parametrize("damage", ["flip", "cut", "grow", "missing", "link", "folder", "fifo"])
def test_damage_is_found(store, tmp_path, path, damage):
    """A flipped bit, a lost or added byte, a missing file, and what is no file are found when it is read."""
    manifest = publish(store)
    target = store.layout.item(layout.HEADS, "owl").version(1) / path
    data = target.read_bytes()
    (tmp_path / "copy").write_bytes(data)
    target.chmod(0o644)
    if damage == "flip":
        flip(target)
    elif damage in {"cut", "grow"}:
        rewrite(target, data[:-1] if damage == "cut" else data + b"\0")
    else:
        target.unlink()
        make = {"link": lambda: target.symlink_to(tmp_path / "copy"), "folder": target.mkdir}
        make.get(damage, lambda: os.mkfifo(target) if damage == "fifo" else None)()
    kind = NotFoundError if damage == "missing" else CorruptError
    with pytest.raises(kind, match="cannot read "):
        store.read(store.manifest(layout.HEADS, "owl", 1), path)
    if path != layout.MANIFEST:
        with pytest.raises(kind, match=f"cannot read {path} of owl@1"):
            store.read(manifest, path)


def test_only_listed_files_are_read(store):
    """A file or link that someone added to a version is not read, and harms nothing."""
    manifest = publish(store)
    folder = store.layout.item(layout.HEADS, "owl").version(1)
    (folder / "evil").write_bytes(b"x")
    (folder / "link").symlink_to("/etc/passwd")
    for path in ("evil", "link"):
        with (
            pytest.raises(CorruptError, match="the manifest lists only")
            if path == "evil"
            else pytest.raises(CorruptError, match="is no regular file")
        ):
            store.read(manifest, path)
    assert store.read(manifest, "a.bin") == CONTENTS["a.bin"]


def test_a_version_in_the_place_of_another(store):
    """A version that was moved into the folder of another one is found."""
    publish(store)
    publish(store, contents={"a.bin": b"other"})
    item = store.layout.item(layout.HEADS, "owl")
    shutil.rmtree(item.version(1))
    item.version(2).rename(item.version(1))
    with pytest.raises(CorruptError, match="it speaks of another version"):
        store.manifest(layout.HEADS, "owl", 1)


def test_read_tensors(filled):
    """Weights are checked against their record's digest, and for NaN, although every file proves itself."""
    store = filled.store
    version = filled.get("owl@1")
    manifest = store.manifest(layout.HEADS, "owl", 1)
    data = store.read(manifest, layout.TENSORS)
    assert artifacts.decode_weights(data, version.record.tensors, "it") == dict(sorted(some_tensors().items()))
    with pytest.raises(CorruptError, match="their digest is not the one in the record"):
        artifacts.decode_weights(data, Digest("0" * 64), "it")
    tensors = {"a": artifacts.RawTensor("F32", (1,), b"\0\0\xc0\x7f")}
    bad = publish(store, "bad", {layout.TENSORS: artifacts.encode_tensors(tensors)})
    with pytest.raises(CorruptError, match="NaN or infinity in 1 of 1 tensors: a"):
        artifacts.decode_weights(store.read(bad, layout.TENSORS), Digest("0" * 64), "it")


def test_reading_never_writes(filled):
    """Opening a store and reading all of it changes no byte, no time and no name."""
    before = snapshot(filled.store.root)
    again = Store.open(filled.store.root)
    reader = VersionManager(again)
    for name in again.names(layout.HEADS):
        for version in reader.versions(name):
            reader.tensors(version)
        again.pointer(layout.HEADS, name)
    for name in backbones.names(again):
        backbones.tensors(again, backbones.find(again, name))
    with pytest.raises(NotFoundError, match="no such head"):
        reader.get("zebra")
    assert snapshot(filled.store.root) == before


def test_names_ignore_what_is_not_ours(filled):
    """Files, foreign folders and heads without a version are not listed."""
    heads = filled.store.layout.kind(layout.HEADS)
    (heads / "README.txt").touch()
    (heads / "zebra").touch()
    for folder in ("Owl", "con", ".git", "a b", "empty", "wolf/claims", "lynx/versions", "bear/versions/tmp"):
        (heads / folder).mkdir(parents=True)
    assert filled.store.names(layout.HEADS) == ["fox", "owl"]
    assert filled.store.names(layout.BACKBONES) == ["demo"]


# Locks


def test_lock_is_held_by_one(store, monkeypatch):
    """Who cannot get a lock in time is told which file it is; when it is free again, all is well."""
    monkeypatch.setattr(store_module, "_LOCK_SECONDS", 0.05)
    path = store.layout.lock(layout.HEADS, "owl")
    got = []

    def try_it():
        try:
            with store.lock(layout.HEADS, "owl"):
                got.append("locked")
        except ConflictError as error:
            got.append(error)

    with store.lock(layout.HEADS, "owl"), store.lock(layout.HEADS, "fox"):
        thread = threading.Thread(target=try_it)
        thread.start()
        thread.join()
    assert isinstance(got[0], ConflictError)
    assert f"another process has held {path} for 0 s" in str(got[0])
    try_it()
    assert got[1] == "locked"
    assert path.is_file()


def test_errors_under_a_lock_are_not_those_of_the_lock(store):
    """What fails under a lock passes through as it is, and the lock is free again."""

    def work(error):
        with store.lock(layout.HEADS, "owl"):
            raise error

    with pytest.raises(FileNotFoundError, match="lost"):
        work(FileNotFoundError("lost"))
    with pytest.raises(filelock.Timeout, match="other"):
        work(filelock.Timeout("other"))
    with filelock.FileLock(store.layout.lock(layout.HEADS, "owl"), timeout=0) as lock:
        assert lock.is_locked


def test_lock_that_is_a_link(store, tmp_path):
    """A lock that someone replaced by a link is not followed."""
    path = store.layout.lock(layout.HEADS, "owl")
    path.parent.mkdir()
    (tmp_path / "precious").write_bytes(b"x")
    path.symlink_to(tmp_path / "precious")
    with pytest.raises(StoreError, match="cannot lock 'owl'"), store.lock(layout.HEADS, "owl"):
        pass
    assert (tmp_path / "precious").read_bytes() == b"x"


# Backbones


def test_backbone(store):
    """A backbone is published once, found by name, and an equal one is the one that is there."""
    tensors, record = a_backbone()
    assert backbones.names(store) == []
    first = backbones.publish(store, "demo", record, tensors)
    assert first.is_new
    before = snapshot(store.root / "backbones")
    again = backbones.publish(store, "demo", record, tensors)
    assert not again.is_new
    assert (again.record, again.manifest) == (record, first.manifest)
    assert snapshot(store.root / "backbones") == before
    found = backbones.find(store, "demo")
    assert backbones.tensors(store, found) == dict(sorted(tensors.items()))
    assert found.nbytes == len(artifacts.encode_tensors(tensors))


def test_backbone_name_of_another(store):
    """A name belongs to one backbone for ever: another one is refused with what differs."""
    tensors, record = a_backbone()
    backbones.publish(store, "demo", record, tensors)
    others, other = a_backbone(seed=1)
    before = snapshot(store.root / "backbones")
    with pytest.raises(ConflictError, match=r"that name belongs to another one .*digest is") as caught:
        backbones.publish(store, "demo", other, others)
    assert len(caught.value.facts["differences"]) == 1
    assert snapshot(store.root / "backbones") == before
    assert backbones.publish(store, "demo-2", other, others).is_new


def test_backbone_that_is_not_there(filled):
    """A miss says which names come near, as one sentence."""
    with pytest.raises(NotFoundError, match=r"no such backbone\. Did you mean 'demo'\?$"):
        backbones.find(filled.store, "demos")


def test_backbone_that_is_damaged(filled):
    """A backbone whose record or weights changed on disk is refused."""
    folder = filled.store.layout.item(layout.BACKBONES, "demo").version(1)
    found = backbones.find(filled.store, "demo")
    flip(folder / layout.TENSORS)
    with pytest.raises(CorruptError, match="its SHA-256 is not"):
        backbones.tensors(filled.store, found)
    flip(folder / layout.RECORD)
    with pytest.raises(CorruptError, match="its SHA-256 is not"):
        backbones.find(filled.store, "demo")


def test_record_of_another_kind_in_the_place(store):
    """A backbone whose record is a head's is refused by the codec."""
    tensors = some_tensors()
    contents = {layout.RECORD: codec.encode(a_record(tensors))}
    store.publish(layout.BACKBONES, "demo", contents, created_at=AT)
    store.point(layout.BACKBONES, "demo", 1, expected=0, at=AT, reason="")
    with pytest.raises(ValueError, match="cannot read the record of backbone 'demo'"):
        backbones.find(store, "demo")
