"""Stores in the states that an operation can meet, the operations, and what must hold after any of them was cut off."""

import contextlib
import functools
import hashlib
import os
import shutil
from pathlib import Path

from store_fixtures import a_backbone, a_record, flip, some_tensors

from hydra_detect.errors import ConflictError, NotFoundError
from hydra_detect.history import CREATED, history
from hydra_detect.records import CompactForm
from hydra_detect.registry import HeadRegistry
from hydra_detect.storage import backbones, findings, heads, layout, owners, pointers, recovery
from hydra_detect.storage.disk import Disk
from hydra_detect.storage.store import Store
from hydra_detect.versions import VersionManager

BACKBONE, BACKBONE_RECORD = a_backbone()
OWL = ("heads", "owl")
NAMES = ("fox", "owl", "strix")
"""Of all heads that the operations make."""
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108  folders are made in it with mkdtemp
NOTE = "note.txt"
TWO_STEPS = frozenset(["rename", "publish a backbone"])
"""Operations with two commit points: between them the second may still be missing, and that is said."""
NEW = 99
"""The seed of what an operation creates."""


def manager_of(root, disk=None):
    """Open the manager of a store, with a disk of the test's own."""
    store = Store.open(root)
    store.disk = disk or Disk()
    return VersionManager(store, actor="test")


@functools.cache
def head_of(seed):
    """Return tensors and record of a head on the backbone."""
    tensors = some_tensors(seed)
    return tensors, a_record(tensors, backbone=BACKBONE_RECORD.contract)


def create(manager, seed, head="owl"):
    """Publish a version, with a file beside it."""
    return manager.create(head, *head_of(seed), attachments={NOTE: b"%d" % seed})


def lean(manager, head="owl", place=0, *, seed=NEW):
    """Publish a compact version of the fox that leans on one of a head: the oldest, which retention would take."""
    numbers, tensors = heads.there(manager.store, head).numbers(), some_tensors(seed)
    owl = heads.find(manager.store, f"{head}@{numbers[place % len(numbers)]}")
    form = CompactForm(reference=owl.record.tensors, reference_ref=str(owl.ref), ranks={"fc6": 8})
    return manager.create("fox", tensors, a_record(tensors, backbone=BACKBONE_RECORD.contract, compact=form))


# Operations: each takes a manager.


def _publish_backbone(manager):
    tensors, record = a_backbone(7)
    return backbones.publish(manager.store, "other", record, tensors)


def _newest(manager):
    return [1, *manager.store.head("owl").numbers()][-1]


def _oldest(manager):
    return [*manager.store.head("owl").numbers(), 1][0]


def _last(manager):
    """Return the last head by name: the new one, while a head is renamed and when it was."""
    return ["owl", *manager.store.names(layout.HEADS)][-1]


def _pinned(manager):
    return (manager.store.head("owl").pointer().pinned or (1,))[0]


OPERATIONS = {
    "create": lambda manager: create(manager, NEW),
    "create first of its name": lambda manager: create(manager, NEW, "fox"),
    "promote newest": lambda manager: manager.promote("owl", _newest(manager)),
    "promote first": lambda manager: manager.promote("owl", _oldest(manager)),
    "promote the active": lambda manager: manager.promote(_last(manager), manager.active(_last(manager)).number),
    "roll back": lambda manager: manager.rollback("owl"),
    "pin": lambda manager: manager.pin("owl", _newest(manager), reason="test"),
    "pin again": lambda manager: manager.pin("owl", _pinned(manager), reason="paper"),
    "unpin": lambda manager: manager.unpin("owl", _pinned(manager)),
    "prune": lambda manager: manager.prune("owl", keep=2),
    "rename": lambda manager: HeadRegistry(manager.store).rename("owl", "strix"),
    "remove": lambda manager: HeadRegistry(manager.store).remove("owl"),
    "publish a backbone": _publish_backbone,
    "publish the backbone again": lambda manager: backbones.publish(manager.store, "demo", BACKBONE_RECORD, BACKBONE),
    "list": lambda manager: HeadRegistry(manager.store).infos(),
    "repair": lambda manager: manager.repair(),
}

# Prior states: each is built on the one it names.


def _versions(manager, count):
    for seed in range(count):
        create(manager, seed)


def _promoted(manager):
    for number in (1, 2, 6, 3):
        manager.promote("owl", number)


def _damage_active(manager):
    number = manager.store.head("owl").pointer().active
    flip(manager.store.head("owl").place.version(number) / layout.TENSORS)


def _damage_pointer(manager):
    place = manager.store.head("owl").place
    flip(place.pointer(place.pointer_generations()[-1]), place=20)


def _damage_much(manager):
    """Do a bit of everything: a lost generation, a file too many, a lost claim, a damaged note, and a dead leftover."""
    place = manager.store.head("owl").place
    place.pointer(2).unlink()
    (place.version(1) / "stranger.bin").write_bytes(b"stranger")
    place.claim(6).unlink()
    flip(place.version(5) / NOTE)
    (place.staging / f"{owners._here()}.99999999.1.{'0' * 32}").write_bytes(b"half a")


STATES = {
    "empty": (None, lambda _manager: None),
    "one version": ("empty", lambda manager: _versions(manager, 1)),
    "one active": ("one version", lambda manager: manager.promote("owl", 1)),
    "two, rolled back": (
        "one active",
        lambda manager: (create(manager, 1), manager.promote("owl", 2), manager.rollback("owl")),
    ),
    "six, none active": ("empty", lambda manager: _versions(manager, 6)),
    "six, promoted": ("six, none active", _promoted),
    "six, pinned": ("six, promoted", lambda manager: manager.pin("owl", 4, reason="paper")),
    "pruned": ("six, promoted", lambda manager: manager.prune("owl", keep=1)),
    "listed": ("six, promoted", lambda manager: HeadRegistry(manager.store).infos()),
    "damaged version": ("six, promoted", _damage_active),
    "damaged pointer": ("six, pinned", _damage_pointer),
    "much damaged": ("six, pinned", _damage_much),
}
DAMAGED = frozenset(["damaged version", "damaged pointer", "much damaged"])


def path_of(folder, state):
    """Return where a state is built."""
    return Path(folder) / state.replace(" ", "-").replace(",", "")


def build_states(folder, names=STATES):
    """Build a store in each state below `folder`; return their paths by name."""
    built = {}
    for name in names:
        origin, change = STATES[name]
        root = path_of(folder, name)
        if origin is None:
            Store.create(root)
            backbones.publish(Store.open(root), "demo", BACKBONE_RECORD, BACKBONE)
        else:
            shutil.copytree(built[origin], root)
        change(manager_of(root, Disk("fast")))
        built[name] = root
    return built


def applies(operation, state):
    """Whether an operation can do anything in a state; damaged stores are for repairs."""
    if state in DAMAGED or operation == "repair":
        return state in DAMAGED and operation in {"repair", "create", "list"}
    return True


def linked(root, target):
    """Return a copy of a store whose files are links to the original's: nothing may ever write into one."""
    shutil.rmtree(target, ignore_errors=True)
    ignored = shutil.ignore_patterns("locks")
    return Path(shutil.copytree(root, target, symlinks=True, copy_function=os.link, ignore=ignored))


# What must hold

WAITING = frozenset([findings.LEFTOVER, findings.UNFINISHED, findings.UNUSED, findings.CLAIM])
"""What a stop may leave behind, until somebody writes there, or repairs."""


def facts(root, *, with_history=True):
    """Return everything that the interface says of a store, weights and history included, times and digests not."""
    store, found = Store.open(root), {}
    if with_history:
        stories = {name: story(store, name) for name in NAMES if store.head(name).place.root.is_dir()}
        found = {f"history of {name}": told for name, told in stories.items() if any(told)}
    for name in store.names(layout.HEADS):
        state = store.head(name).pointer()
        weights = {number: read(store, name, number) for number in store.head(name).numbers()}
        if state.active is not None:
            assert heads.find(store, name).number == state.active
        pins = tuple((pin.version, pin.reason) for pin in state.pins)
        found[name] = (state.active, state.earlier, pins, weights)
    for name in store.names(layout.BACKBONES):
        try:
            stored = backbones.find(store, name)
        except NotFoundError:  # published, and not yet made the one of its name: as good as not there
            continue
        weights = backbones.tensors(store, stored)["box.weight"]
        found[f"backbone {name}"] = (str(stored.record.contract.digest), bytes(weights.data))
    return found


def read(store, name, number):
    """Return a version as a reader gets it, checked: digest, weights, and what lies beside them.

    The same bytes in the same place, which the tests meet thousands of times, are read once.
    """
    own = (name, number, everything_in(store.head(name).place.version(number)))
    if own not in _READ:
        version, tensors = heads.load(store, f"{name}@{number}")
        files = sorted({*version.files} - {layout.TENSORS, layout.RECORD})
        beside = tuple((file, store.head(name).read(version, file)) for file in files)
        _READ[own] = str(version.record.tensors), bytes(tensors["box.weight"].data), beside
    return _READ[own]


_READ = {}


def everything_in(folder):
    """Return the digest of a folder's files: their names, kinds and bytes."""
    digest = hashlib.sha256()
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        kept = Path(entry).read_bytes() if entry.is_file() else b""
        digest.update(repr((entry.name, entry.stat(follow_symlinks=False).st_mode, len(kept))).encode() + kept)
    return digest.digest()


def story(store, name):
    """Return what the history says of a head: which versions were created, and what happened then, in order.

    A digest is that of the same version whenever it is spoken of.
    """
    events, digests = history(store, name), {}
    for event in events:
        for number, digest in zip(event.versions, event.digests, strict=True):
            if digest:  # an unpinning, which a damaged version must not prevent, names none
                assert digests.setdefault((event.head, number), digest) == digest, f"another digest in {event}"
    created = sorted((event.head, *event.versions, event.actor) for event in events if event.what == CREATED)
    happened = [
        (event.what, event.head, event.versions, event.other, event.active, event.actor, event.reason)
        for event in events
        if event.what != CREATED
    ]
    return tuple(created), tuple(happened)


def recover(root, disk):
    """Do what every writer does before its own work, at every backbone and head that there may be."""
    store = Store.open(root)
    store.disk = disk
    for item in (*map(store.head, NAMES), store.backbone("demo"), store.backbone("other")):
        recovery.recover(item)


def outcome(root, operation):
    """Run an operation to its end; return what it gives or raises."""
    try:
        return OPERATIONS[operation](manager_of(root, Disk("fast")))
    except (NotFoundError, ConflictError) as error:  # nothing to go back to; pinned
        return error


def check_sense(operation, before, after):
    """See that an operation that ended did what its name says: otherwise old and new state could be equally wrong."""
    old, new = before.get("owl"), after.get("owl")
    check_told(operation, before.get("history of owl", ((), ())), after.get("history of owl", ((), ())), new)
    if operation == "create":
        added = set(new[3]) - set(old[3] if old else ())
        assert len(added) == 1, f"{len(added)} versions were added"
        assert new[3][added.pop()][0] == str(head_of(NEW)[1].tensors)
    elif operation == "create first of its name":
        assert "fox" in after
        assert [weights[0] for weights in after["fox"][3].values()] == [str(head_of(NEW)[1].tensors)]
    elif operation in {"promote newest", "promote first"} and old:
        assert new[0] == (max if operation == "promote newest" else min)(old[3])
    elif operation == "roll back" and old and old[1]:
        assert (new[0], new[1]) == (old[1][-1], old[1][:-1])
    elif operation == "rename" and old and not old[2]:
        assert after.get("strix") == old
        assert new is None
    elif operation == "remove" and old and not old[2]:
        assert new is None
    elif operation == "publish a backbone":
        assert len([name for name in after if name.startswith("backbone")]) == 2


TOLD = {
    "promote newest": (pointers.PROMOTED, ""), "promote first": (pointers.PROMOTED, ""),
    "roll back": (pointers.ROLLED_BACK, ""), "pin": (pointers.PINNED, "test"), "pin again": (pointers.PINNED, "paper"),
    "unpin": (pointers.UNPINNED, ""), "prune": (pointers.PRUNED, ""), "rename": (pointers.RENAMED, ""),
    "remove": (pointers.REMOVED, ""),
}  # fmt: skip
"""What an operation is called in the history, with its reason; the others change no state."""


def check_told(operation, before, after, new):
    """See that what an operation did, if it did anything, was added to the history of the head, and nothing else."""
    added = after[1][len(before[1]) :]
    assert after[1][: len(before[1])] == before[1], "the history was rewritten"
    assert set(before[0]) <= set(after[0]), "a creation is forgotten"
    assert len(added) <= (operation in TOLD), f"{operation} is told as {added}"
    for what, head, _versions, _other, active, _actor, reason in added:
        assert ((what, reason), head) == (TOLD[operation], "owl"), f"{operation} is told as {what}: {reason}"
        assert active == (new[0] if new else None), f"{operation} is told to have made {active} the active one"


def allowed(operation, before, after):
    """Return the states that an operation may be cut off in: the old world or the new one."""
    states = [before, after]
    if operation == "rename" and "strix" in after:
        # The one operation of two steps: for a moment both names have the head.
        created, happened = after["history of strix"]
        told = (created, tuple(event for event in happened if event[:2] != (pointers.RENAMED, "owl")))
        states.append({**before, "strix": after["strix"], "history of strix": told})
    return states


def check_world(root, operation, before, after, *, acknowledged):
    """See that a store, as it was found after a stop, is in the old or the new state, and in the new if that was said.

    Returns:
        The facts as they are.

    Raises:
        AssertionError: If not, or if the store cannot be read.

    """
    now = facts(root)
    if acknowledged:
        assert now == after, f"acknowledged, and not there: {now} instead of {after}"
    else:
        assert now in allowed(operation, before, after), f"{now} is neither {before} nor {after}"
    return now


def check_newest(root):
    """See that the newest version is there, whole, and the one that `create` publishes, however damaged the rest is."""
    store = Store.open(root)
    number = store.head("owl").numbers()[-1]
    assert heads.load(store, f"owl@{number}")[0].record.tensors == head_of(NEW)[1].tensors, "acknowledged, and lost"


def check_goes_on(root, known):
    """See that a store can be worked with, and what was left behind is cleared away.

    Args:
        root: The store.
        known: The highest version number that was ever seen.

    """
    recovered, manager = linked(root, root.with_name("recovered")), manager_of(root, Disk("fast"))
    recover(recovered, Disk("fast"))
    assert facts(recovered) == facts(root), "recovery changed what there was"
    shutil.rmtree(recovered)
    version = create(manager, 1000)
    assert version.number > known, f"number {version.number} was used before"
    before = manager.store.head("owl").pointer().active
    manager.promote("owl", version.number)
    if before:
        assert manager.rollback("owl").number == before
        manager.promote("owl", version.number)
    manager.prune("owl", keep=1)
    assert manager.active("owl") == version
    for folder in (manager.store.layout.staging, manager.store.head("owl").place.staging):
        assert not folder.is_dir() or not list(folder.iterdir()), f"left behind in {folder}"
    infos = HeadRegistry(manager.store).infos()
    assert infos == [HeadRegistry(manager.store).info(info.head) for info in infos]
    report = manager.verify()
    if report.findings:  # what was left at another head, or a claim that was lost, waits for a repair
        assert {finding.what for finding in report.findings} <= WAITING, str(report)
        if findings.UNUSED in {finding.what for finding in report.findings}:
            _publish_backbone(manager)
        report = manager.repair()
    assert not report.findings, str(report)


def check_acknowledged(now, operation, told, around):
    """See that what an operation acknowledged has lasted, whatever else was lost.

    Args:
        now: What the store says after the loss.
        operation: The operation.
        told: What it returned.
        around: What the store may have said while another process was killed in it, and last what it said in the end.

    """
    live = around[-1]
    if operation in {"create", "publish a backbone", "publish the backbone again"}:  # which say nothing of other things
        check_between(now, told, around)
        key = getattr(told, "head", None) or f"backbone {told.name}"
        if operation == "create":
            assert now[key][3][told.number] == live[key][3][told.number], f"{told} is lost"
        else:
            assert now[key] == live[key], f"{key} is lost"
    elif getattr(told, "head", "owl") != "owl":  # of a renamed one: nothing is said of the old name
        assert now.get(told.head) == live[told.head], f"{told} is lost"
    else:
        mine = {name: found for name, found in now.items() if not name.startswith("backbone ")}
        assert mine == {name: found for name, found in live.items() if name in mine or not name.startswith("backbone ")}


def check_between(now, told, around):
    """See that what a store says, but for what an operation adds, it said at some time: see `check_acknowledged`."""
    left = without(now, told)
    assert left in [without(world, told) for world in around], f"{left} is no state that there was"


def without(found, told):
    """Return what `facts` returned, without one version or backbone."""
    if not hasattr(told, "number"):
        return {name: facts for name, facts in found.items() if name != f"backbone {told.name}"}
    left = {}
    for name, facts in found.items():
        if name == f"history of {told.head}":
            created = tuple(one for one in facts[0] if one[:2] != (told.head, told.number))
            if created or facts[1]:
                left[name] = (created, facts[1])
            continue
        if name != told.head:
            left[name] = facts
            continue
        versions = {number: weights for number, weights in facts[3].items() if number != told.number}
        if versions:
            left[name] = (*facts[:3], versions)
    return left


@contextlib.contextmanager
def mortal():
    """Let what is staged meanwhile be called as by a process that is dead then: the next writer clears it away."""
    name, is_abandoned, own = owners.staging_name, owners.is_abandoned, set()

    def mortal_name():
        here, _process, _began, rest = name().split(".")
        own.add(f"{here}.99999999.1.{rest}")
        return f"{here}.99999999.1.{rest}"

    owners.staging_name = mortal_name
    owners.is_abandoned = lambda path: path.name not in own and is_abandoned(path)
    try:
        yield
    finally:
        owners.staging_name, owners.is_abandoned = name, is_abandoned


EVIDENCE = {"damaged version": 1, "damaged pointer": 1, "much damaged": 2}
"""How many things a repair of each damaged state sets aside."""


def check_evidence(root, state):
    """See that what was damaged is kept, once."""
    kept = [path.name for path in (root / "heads/owl/quarantine").iterdir()]
    assert len(kept) == EVIDENCE[state], f"set aside: {kept}"


def highest(found):
    """Return the highest version number of `owl` in what `facts` returned."""
    return max([0, *(found["owl"][3] if "owl" in found else ())])
