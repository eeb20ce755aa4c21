"""A small store with some history, and the ways to damage it."""

import os
import shutil
from pathlib import Path

import attrs
import pytest
from store_fixtures import (
    AT,
    Stopped,
    WatchedDisk,
    a_backbone,
    a_record,
    create,
    dead_name,
    flip,
    on_disk,
    rewrite,
    some_tensors,
)

from hydra_detect import codec
from hydra_detect.storage import artifacts, backbones, layout, sealed
from hydra_detect.versions import VersionManager

OWL, FOX = "heads/owl", "heads/fox"
STAGING = f"{OWL}/{layout.StoreLayout(Path()).staging}"


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


def smuggled(manager, tensors, record):
    """Publish a version of `owl` with files of one's own: each of them proves itself, whatever it says."""
    contents = {layout.TENSORS: artifacts.encode_tensors(tensors), layout.RECORD: record}
    return manager.store.head("owl").publish(contents, created_at=AT)


def other_weights(manager):
    """Publish a version whose weights are not those of its record."""
    return smuggled(manager, some_tensors(2), codec.encode(a_record(some_tensors(3))))


def other_settings(manager):
    """Publish a version that was made for a backbone of the same weights and other settings."""
    contract = backbones.find(manager.store, "demo").record.contract
    smaller = attrs.evolve(contract, preprocessing=attrs.evolve(contract.preprocessing, min_size=640))
    return smuggled(manager, some_tensors(9), codec.encode(a_record(some_tensors(9), backbone=smaller)))


def unknown_value(manager):
    """Publish a version whose record has a value that this library does not know, and the schema that it does."""
    record = codec.to_dict(a_record(some_tensors(9)))
    record["settings"]["box_head"] = "transformer"
    return smuggled(manager, some_tensors(9), codec.dumps({"schema": 1, **record}))


def newer_schema(manager):
    """Publish a version whose record has the schema of a later version of the library."""
    return smuggled(manager, some_tensors(9), codec.dumps({"schema": 2, **codec.to_dict(a_record(some_tensors(9)))}))


def reworded(path, change=None, **state):
    """Change what a sealed file says, the change in it or what stands beside it, and seal it again."""

    def do(manager):
        document = {**sealed.unseal(at(manager, path).read_bytes(), "it"), **state}
        if change:
            document["change"] |= change
        rewrite(at(manager, path), sealed.seal(document))

    return do


def cut_off(manager):
    """Die between publishing a second backbone and making it the one of its name."""

    def die(step, _path, *target):
        if step == "link" and target[0].parent.name == "pointer":
            raise Stopped

    tensors, record = a_backbone(1)
    with pytest.raises(Stopped):
        backbones.publish(on_disk(manager.store, WatchedDisk(die)), "second", record, tensors)


def version(number, name=""):
    """Return the path of a version of `owl`, or of a file in it."""
    return f"{OWL}/versions/{number:06}" + (f"/{name}" if name else "")


def pointer(generation):
    """Return the path of a generation of `owl`."""
    return f"{OWL}/pointer/{generation:08}.json"


assert os.name != "nt"  # links, as they are made here
