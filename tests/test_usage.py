"""Usage: what takes the disk, byte for byte, whatever else happens in the store meanwhile."""

import errno
import json
import os
from pathlib import Path

import pytest
import store_damage
import store_fixtures
from store_damage import OWL, STAGING, at
from store_fixtures import WatchedDisk, dead_name, flip, on_disk, snapshot

from hydra_detect.errors import StoreError
from hydra_detect.registry import HeadRegistry
from hydra_detect.storage import layout
from hydra_detect.storage.usage import usage
from hydra_detect.versions import VersionManager

store, manager, filled = store_fixtures.store, store_fixtures.manager, store_fixtures.filled
rich = store_damage.rich


def nbytes(folder):
    """Return the bytes of the files below a folder."""
    return sum(len(facts[3]) for facts in snapshot(folder).values())


def by_name(store):
    """Return the usage of each item by its name."""
    return {item.name: item for item in usage(store).items}


def test_an_empty_store(store):
    """A store without heads takes what says that it is one, and is not written to."""
    before, size = snapshot(store.root), nbytes(store.root)
    assert (usage(store).items, usage(store).others, usage(store).total) == ((), size, size)
    assert snapshot(store.root) == before


def test_every_version_is_counted(rich):
    """Backbones come first, then heads by name, with the bytes of versions, manifest included, and what is active."""
    found = usage(rich.store)
    assert [(item.kind, item.name, item.active, list(item.versions)) for item in found.items] == [
        ("backbones", "demo", 1, [1]), ("heads", "fox", 1, [1]), ("heads", "owl", 2, [1, 2, 3, 4]),
    ]  # fmt: skip
    for item in found.items:
        where = rich.store.layout.item(item.kind, item.name)
        assert item.versions == {number: nbytes(where.version(number)) for number in item.versions}
        assert item.history == nbytes(where.claims) + nbytes(where.pointers) > 0
        assert item.total == nbytes(where.versions) + item.history
        assert (item.staging, item.quarantine) == (0, 0)
    (at(rich, f"{OWL}/versions") / "stranger").write_bytes(b"x" * 77)
    others = usage(rich.store).others
    assert others == found.others + 77 == rich.store.layout.identity.stat().st_size + 77
    assert usage(rich.store).total == nbytes(rich.store.root)


def test_what_is_staged_and_what_was_set_aside(rich):
    """What is being written, or was left behind, and what a repair set aside are counted on their own."""
    staged = at(rich, STAGING) / dead_name()
    (staged / "deep").mkdir(parents=True)
    (staged / "deep" / "file").write_bytes(b"x" * 1000)
    (staged / "file").write_bytes(b"x" * 234)
    assert by_name(rich.store)["owl"].staging == 1234
    flip(at(rich, f"{OWL}/versions/000003/{layout.TENSORS}"))
    size = nbytes(at(rich, f"{OWL}/versions/000003"))
    rich.repair()
    owl = by_name(rich.store)["owl"]
    assert (list(owl.versions), owl.staging, owl.quarantine) == ([1, 2, 4], 0, size)
    assert owl.total == nbytes(at(rich, f"{OWL}/versions")) + nbytes(at(rich, f"{OWL}/pointer")) + size


def test_a_head_of_which_nothing_but_damage_is_left(filled):
    """A head whose versions were all set aside takes as much of the disk as before, and is listed for it."""
    size = nbytes(at(filled, "heads/fox/versions"))
    flip(at(filled, f"heads/fox/versions/000001/{layout.TENSORS}"))
    filled.repair()
    fox = by_name(filled.store)["fox"]
    assert (fox.active, fox.versions, fox.quarantine) == (None, {}, size)


def test_removed_heads_take_their_history(rich):
    """A head that was removed or renamed away has nothing on the disk but its history, and is listed for that."""
    HeadRegistry(rich.store).remove("fox")
    rich.unpin("owl", 4)
    HeadRegistry(rich.store).rename("owl", "strix")
    found = by_name(rich.store)
    assert list(found) == ["demo", "fox", "owl", "strix"]
    for name in ("fox", "owl"):
        assert (found[name].active, found[name].versions) == (None, {})
        assert found[name].total == found[name].history == nbytes(at(rich, f"heads/{name}/pointer")) > 0
    assert list(found["strix"].versions) == [1, 2, 3, 4]


def test_versions_that_are_not_deleted_yet(rich):
    """A version that was taken away takes the disk until its files are deleted, and is counted for as long."""
    size = nbytes(at(rich, f"{OWL}/versions/000001"))

    def hold(step, path, *_arguments):
        if step == "rename" and path.name == "000001":
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    report = VersionManager(on_disk(rich.store, WatchedDisk(hold))).prune("owl", keep=1)
    assert report.waiting == (1,)
    owl = by_name(rich.store)["owl"]
    assert (list(owl.versions), owl.versions[1]) == ([1, 2, 3, 4], size)
    rich.pin("owl", 2)
    assert list(by_name(rich.store)["owl"].versions) == [2, 3, 4]


def test_a_store_that_may_not_be_listed(rich, monkeypatch):
    """What the system refuses to list is not measured as nothing: that is told, with a remedy for reading."""
    listed = os.listdir

    def refuse(path):
        if path == rich.store.layout.kind(layout.HEADS):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return listed(path)

    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(StoreError, match=r"cannot list .*/heads: Permission denied\. See to the file system, and"):
        usage(rich.store)


def test_damage_hinders_no_measuring(rich, tmp_path):
    """A damaged pointer, a link and a stranger's folder are measured around; what links lead to is not counted."""
    (tmp_path / "large").write_bytes(b"x" * 100_000)
    before = usage(rich.store).total
    flip(at(rich, f"{OWL}/pointer/00000004.json"), 30)
    at(rich, f"{OWL}/versions/000002/link").symlink_to(tmp_path / "large")
    at(rich, f"{OWL}/versions/000002/folder").symlink_to(tmp_path)
    at(rich, "heads/O W L").mkdir()
    at(rich, "heads/wolf").write_bytes(b"x")
    found = by_name(rich.store)
    assert sorted(found) == ["demo", "fox", "owl"]
    assert found["owl"].active is None
    assert before <= usage(rich.store).total < before + 1000


@pytest.mark.parametrize("doomed", ["000003", "staged", "deep"])
def test_what_vanishes_meanwhile_counts_nothing(rich, monkeypatch, tmp_path, doomed):
    """A folder that another process deletes while it is measured is no error, and the rest is counted."""
    staged = at(rich, STAGING) / "staged" / "deep"
    staged.mkdir(parents=True)
    (staged / "file").write_bytes(b"x" * 1000)
    kept = nbytes(at(rich, f"{OWL}/versions/000004"))
    scan = os.scandir

    def take_first(path="."):
        if Path(path).name == doomed and Path(path).exists():
            Path(path).rename(tmp_path / doomed)
        return scan(path)

    monkeypatch.setattr(os, "scandir", take_first)
    owl = by_name(rich.store)["owl"]
    assert owl.versions[4] == kept
    assert (tmp_path / doomed).is_dir()
    assert (owl.versions[3] == 0) == (doomed == "000003")
    assert (owl.staging == 0) == (doomed != "000003")


def test_what_belongs_to_no_head(rich):
    """What is staged or set aside in the store's own folders is counted with the store."""
    for folder, size in ((rich.store.layout.staging, 100), (rich.store.layout.quarantine, 23)):
        folder.mkdir(exist_ok=True)
        (folder / "file").write_bytes(b"x" * size)
    found = usage(rich.store)
    assert (found.staging, found.quarantine) == (100, 23)
    assert found.total == sum(item.total for item in found.items) + 123 + found.others == nbytes(rich.store.root)


def test_for_programs(rich):
    """For programs usage is plain JSON values with the sum of it; versions are a list, so that numbers stay numbers."""
    found = usage(rich.store)
    plain = json.loads(json.dumps(found.to_dict()))
    assert (plain["total"], plain["staging"], plain["quarantine"]) == (found.total, 0, 0)
    demo, owl = plain["items"][0], plain["items"][2]
    assert demo == {
        "kind": "backbones", "name": "demo", "active": 1, "staging": 0, "quarantine": 0,
        "versions": [{"version": 1, "nbytes": found.items[0].versions[1]}],
        "history": found.items[0].history, "total": found.items[0].total,
    }  # fmt: skip
    assert [version["version"] for version in owl["versions"]] == [1, 2, 3, 4]
