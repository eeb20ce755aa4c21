"""A disk that is full: files that may not grow beyond each size, and a small file system with each amount of room."""

import contextlib
import errno
import os
import shutil
import subprocess
from functools import partial

import numpy as np
import pytest
import worlds
from children import result_of
from store_fixtures import a_record, limit_file_size

from hydra_detect.storage import findings
from hydra_detect.storage.disk import Disk
from hydra_detect.tensors import RawTensor

KIB = 1024
PAGE = 4 * KIB
ROOMIEST = 64  # pages or files: more than any operation needs
OPERATIONS = (
    "create", "create first of its name", "promote newest", "roll back", "pin", "prune", "rename", "remove",
    "publish a backbone",
)  # fmt: skip


@pytest.fixture(scope="module")
def states(tmp_path_factory):
    """A store in each prior state."""
    return worlds.build_states(tmp_path_factory.mktemp("states"))


def a_head_of(kib):
    """Return tensors of this size, and their record."""
    values = np.arange(kib * KIB // 4, dtype=np.float32)
    tensors = {"box.weight": RawTensor.of(values)}
    return tensors, a_record(tensors, backbone=worlds.BACKBONE_RECORD.contract)


def staged(root):
    """Return what lies in the staging folders of a store."""
    return sorted(str(path) for folder in root.rglob("tmp") for path in folder.iterdir())


def check_refused(root, before, result, *, number):
    """See that an operation said what was wrong, changed nothing, left nothing behind, and that the store goes on."""
    assert result["end"] == "error", result.get("text")
    assert "StoreError" in result["kinds"], result["kinds"]
    assert result["errno"] == number, result["text"]
    assert os.strerror(number) in result["text"]
    assert worlds.facts(root) == before
    assert staged(root) == []
    begun = {findings.UNUSED} if "so far the backbone" in result["text"] else set()
    assert {finding.what for finding in worlds.manager_of(root).verify().findings} == begun


def try_sizes(root, work, sizes):
    """Do some work with files limited to each of these sizes; yield size and result until it is done."""

    def limited(size):
        limit_file_size(size)
        work(worlds.manager_of(root, Disk("fast")))

    for size in sizes:
        yield size, result_of(partial(limited, size))


def publish_weights(manager):
    """Publish a head whose weights are its largest file."""
    manager.create("owl", *a_head_of(70))


def publish_many_files(manager):
    """Publish a head whose manifest is its largest file: by then it has a number."""
    manager.create("owl", *worlds.head_of(1), attachments={f"{number:03}-{'x' * 60}.json": b"" for number in range(80)})


def promote_at_length(manager):
    """Promote for a reason that is as long as one may be."""
    manager.promote("owl", 5, reason="because " * 124)


@pytest.mark.parametrize(
    ("work", "step", "least"), [(publish_weights, KIB, 70), (publish_many_files, 256, 40), (promote_at_length, 32, 40)]
)
def test_file_that_may_not_grow(work, step, least, states, tmp_path, tally):
    """Wherever a file hits the limit, the operation fails with EFBIG, changes nothing, leaves nothing behind."""
    cases = tally(f"sizes at which the largest file does not fit: {work.__name__}")
    root = shutil.copytree(states["six, promoted"], tmp_path / "store")
    before = worlds.facts(root)
    for size, result in try_sizes(root, work, range(0, 1 << 20, step)):
        if result["end"] == "done":
            break
        check_refused(root, before, result, number=errno.EFBIG)
        cases.case(size)
    assert worlds.facts(root) != before
    worlds.check_goes_on(root, worlds.highest(worlds.facts(root)))
    cases.require(least)


@pytest.fixture
def small_disk(tmp_path):
    """A file system in memory of 64 pages and 400 files."""
    place = tmp_path / "small"
    place.mkdir()
    if not hasattr(os, "geteuid") or os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("only root can mount a file system that is small enough to fill")
    options = f"size={64 * PAGE},nr_inodes=400"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"mounting a small file system is refused: {mounted.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", place], check=True)


def fill_pages(folder, room):
    """Fill a file system but for some pages."""
    free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize // PAGE
    (folder / "filler").write_bytes(bytes((free - room) * PAGE))


def fill_files(folder, room):
    """Use up the files that a file system can hold but for some; the folder that holds them is one too."""
    (folder / "filler").mkdir()
    with contextlib.suppress(OSError):
        for number in range(1000):
            (folder / "filler" / str(number)).touch()
    for number in range(room):
        (folder / "filler" / str(number)).unlink()


def empty(folder):
    """Make room again."""
    filler = folder / "filler"
    shutil.rmtree(filler) if filler.is_dir() else filler.unlink()


@pytest.mark.parametrize("fill", [fill_pages, fill_files])
def test_full_file_system(fill, small_disk, states, tally):
    """With too little room an operation fails with ENOSPC and the old state stays; with room again, it goes on.

    A renaming that got as far as its new name leaves both names, and the same renaming then finishes it.
    """
    cases = tally(f"amounts of room that are too small: {fill.__name__.replace('_', ' ')}")
    for operation in OPERATIONS:
        state = "two, rolled back" if operation in {"rename", "remove"} else "six, promoted"
        after = None
        for room in range(ROOMIEST):
            root = shutil.copytree(states[state], small_disk / "store")
            before = worlds.facts(root)
            fill(small_disk, room)
            result = result_of(partial(perform, operation, root))
            if result["end"] == "done":
                after = worlds.facts(root)
            else:
                check_no_room(root, operation, before, result)
                cases.case(operation, room)
            empty(small_disk)
            if result["end"] == "error":
                assert perform(operation, root) is None, "with room it succeeds"
                worlds.check_goes_on(root, max(worlds.highest(before), worlds.highest(worlds.facts(root))))
            shutil.rmtree(root)
            if after:
                break
        assert after, f"{operation} did not succeed with {ROOMIEST}"
    cases.require(15)


def perform(operation, root):
    """Run an operation."""
    worlds.OPERATIONS[operation](worlds.manager_of(root, Disk()))


def check_no_room(root, operation, before, result):
    """See that an operation on a full disk failed as promised."""
    now = worlds.facts(root)
    if operation == "rename" and now != before:
        told = now["history of strix"]
        assert now == {**before, "strix": before["owl"], "history of strix": told}
        assert told[1][:-1] == before["history of owl"][1]
        assert "nothing was changed" not in result["text"]
        check_refused(root, now, result, number=errno.ENOSPC)
    else:
        check_refused(root, before, result, number=errno.ENOSPC)
