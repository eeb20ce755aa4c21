"""A small store with some history, and one way to damage it for each thing that a check can find."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from store_fixtures import AT, Stopped, WatchedDisk, create, dead_name, flip, on_disk, rewrite

from hydra_detect.storage import backbones, check, heads, layout, sealed
from hydra_detect.versions import VersionManager

OWL, FOX = "heads/owl", "heads/fox"
STAGING = f"{OWL}/{layout.StoreLayout(Path()).staging}"
HARMLESS = {check.INDEX, check.LEFTOVER, check.UNFINISHED, check.CLAIM, check.FOREIGN}


@pytest.fixture
def rich(filled):
    """Give a store in which `owl` has versions 1 to 4: 2 is active, before it 1 and then 3 were, and 4 is pinned."""
    contract = backbones.find(filled.store, "demo").record.contract
    for seed in (2, 3):
        create(filled, seed=seed, backbone=contract)
    for number in (3, 2):
        filled.promote("owl", number)
    filled.pin("owl", 4, reason="paper")
    filled.promote("fox", 1)
    return filled


@attrs.frozen
class Damage:
    """One way to damage the rich store.

    Args:
        do: Does it, given the manager.
        found: What a full check finds: (what, path) each.
        hidden: Of these, what a quick check does not look at.
        active: The version of `owl` that is active after a repair.
        versions: Its versions after a repair.
        left: What is still found after a repair: the kinds of what cannot be mended, or is left alone.

    """

    do: Callable[[VersionManager], Any]
    found: tuple[tuple[str, str], ...]
    hidden: tuple[str, ...] = ()
    active: int | None = 2
    versions: tuple[int, ...] = (1, 2, 3, 4)
    left: tuple[str, ...] = ()


def at(manager, path):
    """Return the path of something in the store."""
    return manager.store.root / path


def flipped(*paths, place=-1):
    """Damage files by one bit each."""
    return lambda manager: [flip(at(manager, path), place) for path in paths]


def cut(path):
    """Damage a file by taking its last byte."""
    return lambda manager: rewrite(at(manager, path), at(manager, path).read_bytes()[:-1])


def gone(*paths):
    """Take files or folders away."""

    def do(manager):
        for path in paths:
            found = at(manager, path)
            shutil.rmtree(found) if found.is_dir() else found.unlink()

    return do


def made(path, data=b"x"):
    """Put a file where none should be."""

    def do(manager):
        at(manager, path).parent.mkdir(parents=True, exist_ok=True)
        at(manager, path).write_bytes(data)

    return do


def linked(path):
    """Move a file or folder out of the store and put a link in its place."""

    def do(manager):
        outside = manager.store.root.parent / path.replace("/", ".")
        if at(manager, path).exists():
            at(manager, path).rename(outside)
        else:
            outside.mkdir()
        at(manager, path).parent.mkdir(parents=True, exist_ok=True)
        at(manager, path).symlink_to(outside)

    return do


def left_behind(path):
    """Leave something staged behind as a process that was killed does, with a name of fixed letters at its end."""
    return lambda manager: made(f"{path}/{dead_name()}")(manager)  # noqa: PLW0108  a process for each, and not before


def moved(path, target):
    """Move a folder into the place of another one."""

    def do(manager):
        gone(target)(manager)
        at(manager, path).rename(at(manager, target))

    return do


def exchanged(manager):
    """Put a version of the same number from another store in the place of the active one, claims and all."""
    other = VersionManager(type(manager.store).create(manager.store.root.parent / "other"))
    contract = backbones.find(manager.store, "demo").record.contract
    for seed in (7, 8):
        create(other, seed=seed, backbone=contract)
    gone(f"{OWL}/versions/000002")(manager)
    at(other, f"{OWL}/versions/000002").rename(at(manager, f"{OWL}/versions/000002"))


def unfinished(manager):
    """Die between taking version 1 away and deleting it."""

    def die(step, *_arguments):
        if step == "rename":
            raise Stopped

    manager.promote("owl", 3)
    manager.promote("owl", 2)
    with pytest.raises(Stopped):
        VersionManager(on_disk(manager.store, WatchedDisk(die))).prune("owl", keep=1)


def other_weights(manager):
    """Publish a version whose files prove themselves, and whose weights are not those of its record."""
    version = heads.find(manager.store, "owl@4")
    contents = {
        layout.RECORD: manager.store.read(manager.store.head("owl").manifest(4), layout.RECORD),
        layout.TENSORS: manager.store.read(manager.store.head("owl").manifest(3), layout.TENSORS),
    }
    manager.store.head(version.head).publish(contents, created_at=AT)


def other_settings(manager):
    """Publish a version that was made for a backbone of the same weights and other settings."""
    contract = backbones.find(manager.store, "demo").record.contract
    smaller = attrs.evolve(contract.preprocessing, min_size=640)
    create(manager, seed=9, backbone=attrs.evolve(contract, preprocessing=smaller))


def version(number, name=""):
    """Return the path of a version of `owl`, or of a file in it."""
    return f"{OWL}/versions/{number:06}" + (f"/{name}" if name else "")


def pointer(generation):
    """Return the path of a generation of `owl`."""
    return f"{OWL}/pointer/{generation:08}.json"


HEADS_OF_NOTHING = tuple((check.BACKBONE, version(number)) for number in (1, 2, 3, 4))
HEADS_OF_NOTHING = ((check.BACKBONE, f"{FOX}/versions/000001"), *HEADS_OF_NOTHING)
CLAIMS = tuple((check.CLAIM, f"{OWL}/claims/{number:06}") for number in (1, 2, 3, 4))
WEIGHTS = layout.TENSORS
VERSION, POINTER, STATE, PLACE, FOREIGN = check.VERSION, check.POINTER, check.STATE, check.PLACE, check.FOREIGN

VERSIONS = {
    "a flipped bit in the active version": Damage(
        flipped(version(2, WEIGHTS)), ((VERSION, version(2, WEIGHTS)),), (VERSION,), 3, (1, 3, 4)
    ),
    "a flipped bit in the version before": Damage(
        flipped(version(3, WEIGHTS)), ((VERSION, version(3, WEIGHTS)),), (VERSION,), 2, (1, 2, 4)
    ),
    "a flipped bit in the pinned version": Damage(
        flipped(version(4, WEIGHTS)), ((VERSION, version(4, WEIGHTS)),), (VERSION,), 2, (1, 2, 3)
    ),
    "the active version and the one before": Damage(
        flipped(version(2, WEIGHTS), version(3, WEIGHTS)),
        ((VERSION, version(2, WEIGHTS)), (VERSION, version(3, WEIGHTS))), (VERSION,), 1, (1, 4),
    ),
    "all that could be gone back to": Damage(
        flipped(*(version(number, WEIGHTS) for number in (1, 2, 3))),
        tuple((VERSION, version(number, WEIGHTS)) for number in (1, 2, 3)), (VERSION,), None, (4,),
    ),
    "a lost byte": Damage(cut(version(2, WEIGHTS)), ((VERSION, version(2, WEIGHTS)),), (), 3, (1, 3, 4)),
    "lost weights": Damage(gone(version(2, WEIGHTS)), ((VERSION, version(2, WEIGHTS)),), (), 3, (1, 3, 4)),
    "a linked file": Damage(linked(version(2, WEIGHTS)), ((VERSION, version(2, WEIGHTS)),), (), 3, (1, 3, 4)),
    "a damaged record": Damage(
        flipped(version(2, layout.RECORD)), ((VERSION, version(2, layout.RECORD)),), (), 3, (1, 3, 4)
    ),
    "a damaged manifest": Damage(flipped(version(2, layout.MANIFEST)), ((VERSION, version(2)),), (), 3, (1, 3, 4)),
    "a lost manifest": Damage(gone(version(2, layout.MANIFEST)), ((VERSION, version(2)),), (), 3, (1, 3, 4)),
    "an empty version": Damage(
        lambda manager: [gone(version(2))(manager), at(manager, version(2)).mkdir()],
        ((VERSION, version(2)),), (), 3, (1, 3, 4),
    ),
    "a linked version": Damage(linked(version(2)), ((VERSION, version(2)),), (), 3, (1, 3, 4)),
    "a file in the place of a version": Damage(
        lambda manager: [gone(version(2))(manager), made(version(2))(manager)],
        ((VERSION, version(2)),), (), 3, (1, 3, 4),
    ),
    "a version in the place of another": Damage(
        moved(version(4), version(2)),
        ((VERSION, version(2)), (STATE, pointer(4))), (), 3, (1, 3),
    ),
    "a lost version": Damage(gone(version(2)), ((STATE, pointer(4)),), (), 3, (1, 3, 4)),
    "a lost version before": Damage(gone(version(3)), ((STATE, pointer(4)),), (), 2, (1, 2, 4)),
    "a lost pinned version": Damage(gone(version(4)), ((STATE, pointer(4)),), (), 2, (1, 2, 3)),
    "all versions lost": Damage(gone(f"{OWL}/versions"), ((STATE, pointer(4)),) * 3, (), None, ()),
    "an active version that was exchanged": Damage(exchanged, ((STATE, pointer(4)),), (), 3, (1, 2, 3, 4)),
    "a file that nobody listed": Damage(made(version(2, "notes.txt")), ((check.EXTRA, version(2, "notes.txt")),)),
    "a link that nobody listed": Damage(linked(version(2, "original")), ((check.EXTRA, version(2, "original")),)),
}  # fmt: skip

POINTERS = {
    "a damaged newest generation": Damage(flipped(pointer(4), place=30), ((POINTER, pointer(4)),)),
    "the two newest generations": Damage(
        flipped(pointer(4), pointer(3), place=30), ((POINTER, pointer(3)), (POINTER, pointer(4))), (), 3
    ),
    "a damaged older generation": Damage(flipped(pointer(1), place=30), ((POINTER, pointer(1)),)),
    "every generation": Damage(
        flipped(*map(pointer, range(1, 5)), place=30),
        tuple((POINTER, pointer(number)) for number in range(1, 5)), (), None,
    ),
    "an empty generation": Damage(
        lambda manager: rewrite(at(manager, pointer(4)), b""), ((POINTER, pointer(4)),)
    ),
    "a generation of another number": Damage(
        lambda manager: rewrite(at(manager, pointer(4)), at(manager, pointer(3)).read_bytes()),
        ((POINTER, pointer(4)),),
    ),
    "a generation of a stranger": Damage(
        lambda manager: rewrite(at(manager, pointer(4)), sealed.seal({"format": 1, "generation": 4, "event": "won"})),
        ((POINTER, pointer(4)),),
    ),
    "a linked generation": Damage(linked(pointer(4)), ((POINTER, pointer(4)),)),
    "a folder in the place of a generation": Damage(
        lambda manager: [gone(pointer(4))(manager), at(manager, pointer(4)).mkdir()], ((POINTER, pointer(4)),)
    ),
    "a lost generation": Damage(gone(pointer(2)), ((check.GAP, pointer(2)),)),
    "a lost first generation": Damage(gone(pointer(1)), ((check.GAP, pointer(1)),)),
    "a lost and a damaged generation": Damage(
        lambda manager: [gone(pointer(2))(manager), flipped(pointer(4), place=30)(manager)],
        ((POINTER, pointer(4)), (check.GAP, pointer(2))), (), 2,
    ),
    "a damaged generation and a damaged version": Damage(
        flipped(pointer(4), version(2, layout.RECORD), place=30),
        ((VERSION, version(2, layout.RECORD)), (POINTER, pointer(4))), (), 3, (1, 3, 4),
    ),
}  # fmt: skip

PLACES = {
    "claims that are a link": Damage(linked(f"{OWL}/claims"), ((PLACE, f"{OWL}/claims"), *CLAIMS)),
    "a head that is a file": Damage(made("heads/wolf"), ((PLACE, "heads/wolf"),)),
    "a head that is a link": Damage(linked("heads/wolf"), ((PLACE, "heads/wolf"),)),
    "locks that are a link": Damage(linked("locks"), ((PLACE, "locks"),)),
    "a lock that is a link": Damage(linked("locks/heads.owl.lock"), ((PLACE, "locks/heads.owl.lock"),)),
    "a staging folder that is a link": Damage(linked("tmp"), ((PLACE, "tmp"),)),
    "a head's staging folder that is a link": Damage(linked(STAGING), ((PLACE, STAGING),)),
    "a quarantine that is a link": Damage(linked("quarantine"), ((PLACE, "quarantine"),), left=(FOREIGN,)),
    "a head's quarantine that is a file": Damage(made(f"{OWL}/quarantine"), ((PLACE, f"{OWL}/quarantine"),)),
    "a lost claim": Damage(gone(f"{OWL}/claims/000003"), ((check.CLAIM, f"{OWL}/claims/000003"),)),
    "lost claims": Damage(gone(f"{OWL}/claims"), CLAIMS),
    "a damaged index": Damage(made("registry.json", b"{"), ((check.INDEX, "registry.json"),)),
    "an index that is a folder": Damage(made("registry.json/file"), ((check.INDEX, "registry.json"),)),
    "an index that is a link": Damage(linked("registry.json"), ((check.INDEX, "registry.json"),)),
    "a leftover": Damage(left_behind("tmp"), ((check.LEFTOVER, "tmp/*"),)),
    "a leftover of a head": Damage(left_behind(STAGING), ((check.LEFTOVER, f"{STAGING}/*"),)),
    "an unfinished pruning": Damage(unfinished, ((check.UNFINISHED, version(1)),), (), 2, (2, 3, 4)),
    "a file in the store": Damage(made("README"), ((FOREIGN, "README"),), left=(FOREIGN,)),
    "a file in a head": Damage(made(f"{OWL}/README"), ((FOREIGN, f"{OWL}/README"),), left=(FOREIGN,)),
    "a folder among the versions": Damage(
        made(f"{OWL}/versions/7/file"), ((FOREIGN, f"{OWL}/versions/7"),), left=(FOREIGN,)
    ),
    "a file among the generations": Damage(
        made(f"{OWL}/pointer/5.json"), ((FOREIGN, f"{OWL}/pointer/5.json"),), left=(FOREIGN,)
    ),
    "a head of no name": Damage(made("heads/O W L/file"), ((FOREIGN, "heads/O W L"),), left=(FOREIGN,)),
    "a store that everybody may write": Damage(
        lambda manager: manager.store.root.chmod(0o777), ((FOREIGN, "."),), left=(FOREIGN,)
    ),
}  # fmt: skip

BACKBONES = {
    "a lost backbone": Damage(gone("backbones"), HEADS_OF_NOTHING, left=(check.BACKBONE,)),
    "a damaged backbone": Damage(
        flipped(f"backbones/demo/versions/000001/{WEIGHTS}"),
        ((VERSION, f"backbones/demo/versions/000001/{WEIGHTS}"), *HEADS_OF_NOTHING),
        (VERSION, check.BACKBONE), left=(check.BACKBONE,),
    ),
    "a backbone that is a link": Damage(
        linked("backbones/demo"), ((PLACE, "backbones/demo"), *HEADS_OF_NOTHING), left=(check.BACKBONE,)
    ),
    "a head of other settings": Damage(
        other_settings, ((check.BACKBONE, version(5)),), (), 2, (1, 2, 3, 4, 5), left=(check.BACKBONE,)
    ),
}  # fmt: skip

DAMAGES = {**VERSIONS, **POINTERS, **PLACES, **BACKBONES}
assert os.name != "nt"  # links, as they are made here
