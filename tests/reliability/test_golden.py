"""The golden store: what a released format looks like on disk is read for ever, and today's writer still writes it.

`tests/golden/format-1` was written by `golden_store.make`. Once a format is released its folder is never written
again: whoever changes what is written adds a golden of another name, and the old one goes on being read.
"""

import shutil
from pathlib import Path

import pytest
from golden_store import backbone, files_of, full_record, make, weights
from store_fixtures import create, snapshot

from hydra_detect.errors import ConflictError, NotFoundError
from hydra_detect.registry import HeadRegistry
from hydra_detect.storage import backbones, heads, identity, layout, manifests, pointers
from hydra_detect.storage.store import Store
from hydra_detect.versions import VersionManager

GOLDEN = Path(__file__).parents[1] / "golden" / "format-1"
HISTORY = GOLDEN.with_suffix(".history")

STATES = {
    "fox": (None, (), (), ()),
    "hawk": (None, (), (), (1,)),
    "lynx": (1, (), (), (1,)),
    "owl": (5, (1, 2), (1,), (1, 2, 4, 5)),
    "red-fox": (2, (1,), (), (1, 2)),
    "wolf": (None, (), (), ()),
}
"""By head: active, earlier, pinned, versions."""

SEEDS = {"hawk": 40, "lynx": 30, "owl": 0, "red-fox": 10}
"""Version n of a head holds the weights of this seed plus n."""

DIGESTS = {
    "hawk@1": "sha256:b9226b21d0eac5645fcf450a28d6c17703f065a3a843d60321a140ccadae5db5",
    "lynx@1": "sha256:2a9af6f5d314af4aef6ba8b2b5d0d4383eb6ca758e4675a0f2c77e28fc044c7b",
    "owl@1": "sha256:9a46564f9c99f0b227cba77a3974a3f53928ed924f479ac679444593cc20fe7d",
    "owl@2": "sha256:5b53ec597e492a12db9dc07dd3eb7e9f37b9ca6e7de05767284e259ea6993a75",
    "owl@4": "sha256:e3a532a80954f74e4a7c3381156862d0556ce199849dc6d406ebbeeddb4ebb6d",
    "owl@5": "sha256:ce5650e10eb273b33505dbca1bca161e921fd416d692ea3487e0e9a2b181c77b",
    "red-fox@1": "sha256:13ebdaa4488ca6fc50ecf69761e3e80adcab7be24564acb05a3549fa78a8b3fa",
    "red-fox@2": "sha256:537368ebcfe4e6db1bafb5ab28604c90a72fcb6e8fabe698d6eba8fb15e694eb",
}
"""Canonical digests of the weights: they depend on no file format."""


def test_every_format_has_a_golden_store():
    """There is a golden store of each format that this version reads, and of no other."""
    newest = max(pointers.FORMAT, manifests.FORMAT, identity.FORMAT)
    stores = {path.name for path in GOLDEN.parent.iterdir() if path.is_dir()}
    assert stores == {f"format-{number}" for number in range(1, newest + 1)}


def told(manager):
    """Return the history of all heads as text."""
    return "".join(f"{event}\n" for head in STATES for event in manager.history(head))


@pytest.fixture(scope="module", autouse=True)
def updated(request):
    """Make the golden store anew if that was asked for."""
    if request.config.getoption("--update-goldens"):
        shutil.rmtree(GOLDEN, ignore_errors=True)
        with pytest.MonkeyPatch.context() as fixed:
            make(GOLDEN, fixed)
        HISTORY.write_text(told(VersionManager(GOLDEN)), encoding="utf-8")


@pytest.fixture
def manager(tmp_path):
    """Give the manager of a copy of the golden store, as git gives it to people: no empty folders, usual modes."""
    root = shutil.copytree(GOLDEN, tmp_path / "store", copy_function=shutil.copyfile)
    return VersionManager(Store.open(root, durability="fast"), actor="test")


def test_it_is_what_is_written_today(tmp_path, monkeypatch):
    """The same operations at the same times give the same files today, byte for byte."""
    make(tmp_path / "store", monkeypatch)
    assert files_of(tmp_path / "store") == files_of(GOLDEN)


def test_its_state(manager):
    """Active, earlier, pinned and present versions of each head are as they were left."""
    store = manager.store
    for head, (active, earlier, pinned, numbers) in STATES.items():
        state = store.head(head).pointer()
        assert (state.active, state.earlier, state.pinned) == (active, earlier, pinned), head
        assert tuple(store.head(head).numbers()) == numbers, head
        if active:
            assert manager.active(head).number == active
    infos = {info.head: (info.active, info.versions) for info in HeadRegistry(store).infos()}
    assert infos == {head: (active, numbers) for head, (active, _, _, numbers) in STATES.items() if numbers}
    assert HeadRegistry(store).fitting(backbone()[1].contract) == ["lynx", "owl", "red-fox"]


def test_its_index(manager, monkeypatch):
    """The index that was written then is current: heads are listed from it without a look at their versions."""
    monkeypatch.delattr(HeadRegistry, "info")
    assert [(info.head, info.active) for info in HeadRegistry(manager.store).infos()] == [
        (head, active) for head, (active, _, _, numbers) in STATES.items() if numbers
    ]


def test_its_history(manager):
    """Every event is told as it was: when, what, to which versions, by whom, why, with which manifest."""
    assert told(manager) == HISTORY.read_text(encoding="utf-8")
    assert told(manager).count("\n") == 35


def test_its_weights(manager):
    """Weights of every dtype, shape and name read back bit for bit, of heads and backbone, and have their digests."""
    for ref, digest in DIGESTS.items():
        version, tensors = heads.load(manager.store, ref)
        assert str(version.record.tensors) == digest, ref
        assert tensors == weights(SEEDS[version.head] + version.number), ref
    assert {f"{head}@{number}" for head, state in STATES.items() for number in state[3]} == set(DIGESTS)
    stored = backbones.find(manager.store, "demo")
    assert backbones.tensors(manager.store, stored) == backbone()[0]


def test_its_records(manager):
    """A record in which every field says something, and that of the backbone, read back equal."""
    version = heads.find(manager.store, "owl@1")
    assert version.record == full_record(weights(1))
    assert not version.record.unknown
    manifest = manager.store.head("owl").manifest(1)
    assert manager.store.head("owl").read(manifest, layout.PARITY) == b'{"equal": true}\n'
    assert backbones.find(manager.store, "demo").record == backbone()[1]


@pytest.mark.parametrize("depth", ["quick", "full"])
def test_it_is_sound(manager, depth):
    """A check finds nothing at all, not even a note."""
    report = manager.verify(depth=depth)
    assert report.findings == ()
    assert report.versions == len(DIGESTS) + 1


def test_reading_it_changes_nothing(manager):
    """Opening, listing, loading, checking, comparing and telling its history leave every file as it was."""
    before = snapshot(manager.store.root)
    for look in (test_its_state, test_its_history, test_its_weights, test_its_records):
        look(manager)
    manager.verify()
    manager.compare("owl", 1, 5)
    manager.prune("owl", keep=1, dry_run=True)
    assert snapshot(manager.store.root) == before


def test_it_can_be_worked_with(manager):
    """Versions are created, promoted, rolled back, pruned, renamed and removed in it as in a new store."""
    assert create(manager, "owl", 6, backbone=backbone()[1].contract).number == 6
    manager.promote("owl", 6)
    assert [manager.rollback("owl").number for _ in range(3)] == [5, 2, 1]
    with pytest.raises(NotFoundError, match="that was active before version 1"):
        manager.rollback("owl")
    assert sorted(manager.prune("owl", keep=1).removed) == [2, 4, 5]
    with pytest.raises(ConflictError, match="a paper cites it"):
        HeadRegistry(manager.store).rename("owl", "strix")
    for reason in ("a paper cites it", "the web site shows it"):
        manager.unpin("owl", 1, pinned_for=reason)
    HeadRegistry(manager.store).rename("owl", "strix")
    HeadRegistry(manager.store).remove("strix")
    with pytest.raises(ConflictError, match="the name 'fox' is in use, or was"):
        HeadRegistry(manager.store).rename("lynx", "fox")
    for head, number in (("wolf", 2), ("fox", 3), ("lynx", 3)):
        assert create(manager, head, 7, backbone=backbone()[1].contract).number == number
    assert manager.verify().findings == ()


def test_it_can_be_damaged_and_repaired(manager):
    """Without its claims and its index, which are derived, nothing is lost, and a repair brings them back."""
    manager.store.layout.index.unlink()
    shutil.rmtree(manager.store.layout.item(layout.HEADS, "owl").claims)
    report = manager.repair()
    assert report.is_sound
    assert len(report.mended) == 4
    test_its_state(manager)
    assert create(manager, "owl", 6, backbone=backbone()[1].contract).number == 6
