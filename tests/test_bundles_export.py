"""Exporting: a bundle is whole or not there at all, and of what is damaged there is none."""

import errno

import attrs
import bundle_fixtures
import numpy as np
import pytest
import store_damage
import store_fixtures
from bundle_fixtures import BESIDE, FILES, FORMS, slip_in
from store_damage import exchanged
from store_fixtures import (
    Stopped,
    WatchedDisk,
    a_backbone,
    a_record,
    failing,
    flip,
    leftovers,
    on_disk,
    snapshot,
    some_tensors,
    stopping,
)

from hydra_detect.bundles import zips
from hydra_detect.bundles.bundle import load_bundle
from hydra_detect.bundles.export import export_bundle
from hydra_detect.errors import ConflictError, CorruptError, IncompatibleError, InputError, NameInvalidError, StoreError
from hydra_detect.storage import files, layout
from hydra_detect.tensors import RawTensor, tensors_digest

store, manager, filled = store_fixtures.store, store_fixtures.manager, store_fixtures.filled
owls, place, rich = bundle_fixtures.owls, bundle_fixtures.place, store_damage.rich
STEPS_OF = {
    "owl.zip": ("create", "write", "sync", "link", "sync_folder"),
    "owl": ("make_folder", "create", "write", "sync", "sync_folder", "rename"),
}


# Whole, or not at all


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("there", ["file", "folder", "empty folder", "link"])
def test_an_existing_path_is_refused(owls, place, form, there):
    """Whatever stands at the path is left as it is."""
    path = place / form
    if there == "file":
        path.write_bytes(b"mine")
    elif there == "link":
        path.symlink_to(place / "nowhere")
    else:
        (path / "mine" if there == "folder" else path).mkdir(parents=True)
    before = snapshot(place)
    with pytest.raises(ConflictError, match="something stands there already"):
        export_bundle(owls.store, "owl", path)
    assert snapshot(place) == before


@pytest.mark.parametrize("form", FORMS)
def test_what_cannot_be_named(owls, place, form):
    """A folder that is not there is not made, and what is no reference to a head is not looked for."""
    with pytest.raises(StoreError, match=r"cannot export owl to .*: No such file or directory"):
        export_bundle(owls.store, "owl", place / "none" / form)
    with pytest.raises(NameInvalidError, match=r"use '\.\./owl' as a head name"):
        export_bundle(owls.store, "../owl", place / form)
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("form", FORMS)
def test_a_path_that_is_taken_meanwhile(owls, place, form):
    """Another one who puts something there in the meantime keeps it."""
    path = place / form

    def look(step, *arguments):
        if step in {"link", "rename"} and path in arguments:
            path.mkdir()
            (path / "mine").touch()

    with pytest.raises(ConflictError, match="something stands there already"):
        export_bundle(on_disk(owls.store, WatchedDisk(look)), "owl", path)
    assert [entry.name for entry in place.rglob("*")] == [form, "mine"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize(("form", "step"), [(form, step) for form in FORMS for step in STEPS_OF[form]])
def test_a_full_disk(owls, place, form, step, number):
    """Whichever step fails, nothing is left behind; but for the last, after which the whole bundle is there."""
    at, reached, before = 0, True, snapshot(owls.store.root)
    while reached:
        at += 1
        path, remedy = place / str(at) / form, ""
        path.parent.mkdir()
        disk, calls = failing(step, at, number)
        try:
            export_bundle(on_disk(owls.store, disk), "owl", path)
        except StoreError as error:
            assert error.facts == {"errno": number}  # noqa: PT017  the last round has no error
            remedy = error.remedy
        reached = len(calls) >= at
        if reached and remedy != files.UNCERTAIN:
            assert list(path.parent.iterdir()) == []
        else:
            assert [entry.name for entry in path.parent.iterdir()] == [form]
            assert load_bundle(path).version == 3
    assert at > 1
    assert snapshot(owls.store.root) == before


def test_a_folder_is_on_the_disk_before_it_has_its_name(owls, place):
    """Each file and each folder is synced before the rename, and the folder around it after that."""
    steps = []
    disk = WatchedDisk(lambda step, *arguments: steps.append((step, *arguments)))
    export_bundle(on_disk(owls.store, disk), "owl", place / "owl")
    named = [step for step, *_arguments in steps].index("rename")
    aside = steps[named][1]
    assert steps[named][2] == place / "owl"
    assert [step for step, *_arguments in steps[:named]].count("sync") == len(FILES) + 3  # files, folders
    synced = {path for step, path, *_rest in steps[:named] if step == "sync_folder"}
    assert synced == {aside, aside / "head", aside / "backbone"}
    assert ("sync_folder", place) in steps[named:]


@pytest.mark.parametrize("form", FORMS)
def test_stopped_at_any_step(owls, place, form):
    """Wherever the process dies, a bundle of that name is whole, or there is none."""
    at, stopped = 0, True
    while stopped:
        at, stopped = at + 1, False
        path = place / str(at) / form
        path.parent.mkdir()
        try:
            export_bundle(on_disk(owls.store, stopping(at)[0]), "owl", path)
        except Stopped:
            stopped = True
        assert not path.exists() or load_bundle(path).version == 3
    assert at > 5
    assert path.exists()


# What is never exported


@pytest.mark.parametrize("form", FORMS)
def test_a_damaged_version_is_not_exported(owls, place, form):
    """One bit in any file of the version or of its backbone, and there is no bundle."""
    folders = [
        owls.store.layout.item(layout.HEADS, "owl").version(3),
        owls.store.layout.item(layout.BACKBONES, "demo").version(1),
    ]
    taken = [path for folder in folders for path in folder.iterdir() if path.name != "original.pth"]
    assert len(taken) == len(BESIDE) + 6
    for path in taken:
        flip(path, place=len(path.read_bytes()) // 2)
        for ref in ("owl", "owl@3"):
            with pytest.raises((CorruptError, IncompatibleError), match="cannot "):
                export_bundle(owls.store, ref, place / form)
        flip(path, place=len(path.read_bytes()) // 2)
        assert list(place.iterdir()) == []
    assert export_bundle(owls.store, "owl", place / form).origin.number == 3


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", [layout.HEADS, layout.BACKBONES])
def test_weights_that_are_not_finite_are_not_exported(store, place, kind, bad):
    """NaN and infinity that got into a store past its gate, every digest right, do not get out of it in a bundle."""
    tensors = {"w": RawTensor.of(np.array([1, bad], dtype=np.float32))}
    sound, record = a_backbone()
    if kind == layout.BACKBONES:
        record = attrs.evolve(record, contract=attrs.evolve(record.contract, digest=tensors_digest(tensors)))
    weights = {layout.HEADS: some_tensors(), layout.BACKBONES: sound} | {kind: tensors}
    records = {layout.BACKBONES: record, layout.HEADS: a_record(weights[layout.HEADS], backbone=record.contract)}
    for each, name in ((layout.BACKBONES, "demo"), (layout.HEADS, "owl")):
        slip_in(store.item(each, name), weights[each], records[each])
    with pytest.raises(CorruptError, match="NaN or infinity in 1 of 1 tensors: w"):
        export_bundle(store, "owl", place / "owl.zip")
    assert list(place.iterdir()) == []


def test_a_version_without_its_backbone_is_not_exported(store, place):
    """A head whose backbone the store does not have stays where it is."""
    slip_in(store.head("owl"), some_tensors(), a_record(some_tensors()))
    with pytest.raises(IncompatibleError, match=r"cannot export owl@1 to .*: it has none"):
        export_bundle(store, "owl@1", place / "owl")
    assert list(place.iterdir()) == []
    assert leftovers(store) == []


def test_a_version_in_the_place_of_another_is_not_exported(rich, place):
    """A version that is whole, and not the one that the history speaks of, is none to give away."""
    exchanged(rich)
    for ref in ("owl", "owl@2"):
        with pytest.raises(CorruptError, match=r"version 2 is not the one|its manifest has another digest"):
            export_bundle(rich.store, ref, place / "owl.zip")
    assert list(place.iterdir()) == []


def test_what_no_zip_file_of_this_form_holds(owls, place, monkeypatch):
    """More bytes than a plain zip file can count are refused as a zip file, before anything is written."""
    monkeypatch.setattr(zips, "MOST_BYTES", 1000)
    with pytest.raises(InputError, match=r"has \d+ bytes, and a zip file of the plain form holds 1000") as caught:
        export_bundle(owls.store, "owl", place / "owl.zip")
    assert "Export a folder" in caught.value.remedy
    assert list(place.iterdir()) == []
    assert load_bundle(export_bundle(owls.store, "owl", place / "owl").path).head == "owl"
