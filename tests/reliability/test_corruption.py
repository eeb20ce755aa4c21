"""Corruption of bytes: every flipped bit, every length, in every kind of artifact, is found by whoever reads it."""

import os
import random
import re

import damage
import numpy as np
import pytest
from damage import ACTIVE, IDENTITY, INDEX, NEWEST, OLDER
from store_fixtures import a_record, with_backbone

from hydra_detect.errors import CorruptError
from hydra_detect.registry import HeadRegistry
from hydra_detect.storage import artifacts, heads, layout
from hydra_detect.storage.store import Store
from hydra_detect.tensors import RawTensor
from hydra_detect.versions import VersionManager

built = damage.built

BACKBONE = "backbones/demo/versions/000001"
FLIPPED = (
    *(f"{ACTIVE}/{name}" for name in (layout.RECORD, layout.MANIFEST, layout.TENSORS, layout.PARITY)),
    NEWEST, "backbones/demo/pointer/00000001.json", f"{BACKBONE}/{layout.TENSORS}",
)  # fmt: skip
MORE_OF_THE_SAME = (OLDER, f"{BACKBONE}/{layout.RECORD}", f"{BACKBONE}/{layout.MANIFEST}")
EXTENSIONS = tuple(unit * size for unit in (b"\0", b" ", b"\n", b"\xff") for size in (1, 8, 4096))
UNREAD = re.compile(rb'"format": 1|"store_id": "[^"]*"')
"""What STORE.json says and this version does not read: the number of its own format, and a name for people."""
VERIFIED_EVERY = 400
REAL_SIZE = 58_000_000


def test_every_bit(built, tally, exhaustive):
    """A flipped bit in any artifact is found by reading it, wherever it is, and by a check."""
    store, cases = built[0].store, tally("single bits flipped in artifacts, each found")
    for path in (*FLIPPED, *MORE_OF_THE_SAME) if exhaustive else FLIPPED:
        place = store.root / path
        data = place.read_bytes()
        place.chmod(0o644)
        for bit, broken in damage.broken_by_a_bit(data):
            place.write_bytes(broken)
            assert damage.is_found(store, path), f"bit {bit} of {path} went unseen"
            assert bit % VERIFIED_EVERY or damage.is_reported(store.root), f"bit {bit} of {path} passed the check"
            cases.case(path, bit)
        place.write_bytes(data)
        assert not damage.is_found(store, path)
    assert not damage.is_reported(store.root)
    cases.require(20_000)


def test_every_length(built, tally):
    """An artifact cut to any length, and one with bytes behind its end, is found by reading it and by a check."""
    store, cases = built[0].store, tally("artifacts cut short at every length or extended, each found")
    for path in (*FLIPPED, *MORE_OF_THE_SAME):
        place = store.root / path
        data = place.read_bytes()
        place.chmod(0o644)
        broken = [*(data[:size] for size in range(len(data))), *(data + extension for extension in EXTENSIONS)]
        for number, text in enumerate(broken):
            place.write_bytes(text)
            assert damage.is_found(store, path), f"{path} of {len(text)} bytes instead of {len(data)} went unseen"
            assert number % VERIFIED_EVERY or damage.is_reported(store.root), f"{path} of {len(text)} bytes passed"
            cases.case(path, number)
        place.write_bytes(data)
        assert not damage.is_found(store, path)
    assert not damage.is_reported(store.root)
    cases.require(5_000)


def test_identity(built, tally):
    """Damage to STORE.json is refused at opening or at writing, unless it is in words that this version never reads."""
    store, cases = built[0].store, tally("bits flipped in STORE.json, and its lengths, each refused")
    path = store.root / IDENTITY
    data = path.read_bytes()
    unread = {place for found in UNREAD.finditer(data) for place in range(*found.span())}
    silent = set()
    for bit, broken in damage.broken_by_a_bit(data):
        path.write_bytes(broken)
        if damage.is_found(store, IDENTITY):
            cases.case("flip", bit)
        else:
            silent.add(bit // 8)
    assert silent <= unread
    lengths = [*(data[:size] for size in range(len(data) - 1)), *(data + text for text in EXTENSIONS if text.strip())]
    for number, text in enumerate(lengths):  # without its last byte, a line break, or with blanks, it is the same JSON
        path.write_bytes(text)
        assert damage.is_found(store, IDENTITY), f"STORE.json of {len(text)} bytes was accepted"
        cases.case("length", number)
    path.write_bytes(data)
    assert not damage.is_found(store, IDENTITY)
    cases.require(500)


def test_index(built, tally):
    """The index of heads is never believed when it is damaged: what it would say is read from the heads."""
    manager, truth = built
    store, cases = (
        manager.store,
        tally("bits flipped in the derived index, and its lengths: the heads stay as they are"),
    )
    registry, path = HeadRegistry(store), store.root / INDEX
    data = path.read_bytes()
    broken = [*(text for _bit, text in damage.broken_by_a_bit(data)), *(data[:size] for size in range(len(data)))]
    broken += [data + extension for extension in EXTENSIONS]
    for number, text in enumerate(broken):
        path.write_bytes(text)
        assert number % VERIFIED_EVERY or damage.is_reported(store.root)
        assert registry.infos() == truth, f"damage {number} of the index was believed"
        cases.case(number)
    assert path.read_bytes() == data
    cases.require(5_000)


@pytest.fixture(scope="module")
def whale():
    """Give a store with one version of `whale`, as large as a real head."""
    with damage.quick_folder() as folder:
        manager = VersionManager(with_backbone(Store.create(folder / "store", durability="fast")))
        numbers = np.random.default_rng(0).standard_normal(REAL_SIZE // 4, dtype=np.float32)
        tensors = {"box.weight": RawTensor.of(numbers.reshape(-1, 500))}
        manager.create("whale", tensors, a_record(tensors))
        yield manager.store


def test_a_head_of_real_size(whale, tally):
    """A single bit flipped anywhere in a head of 58 MB is found whenever it is read."""
    source, cases = random.Random(58), tally("single bits flipped in a head of 58 MB, each found")  # noqa: S311
    path = whale.head("whale").place.version(1) / layout.TENSORS
    path.chmod(0o644)
    for bit in sorted(source.sample(range(8 * path.stat().st_size), 200)):
        with path.open("r+b") as file:
            byte = os.pread(file.fileno(), 1, bit // 8)
            os.pwrite(file.fileno(), bytes([byte[0] ^ 1 << bit % 8]), bit // 8)
            with pytest.raises(CorruptError, match=r"cannot read model.safetensors of whale@1: its SHA-256 is not"):
                heads.load(whale, "whale@1")
            os.pwrite(file.fileno(), byte, bit // 8)
        cases.case(bit)
    assert heads.load(whale, "whale@1")[0].nbytes > REAL_SIZE
    cases.require(200)


def test_a_file_beyond_every_limit(whale):
    """A file larger than an artifact may be is refused before it is read, by its size alone."""
    path = whale.head("whale").place.version(1) / layout.TENSORS
    size = path.stat().st_size
    path.chmod(0o644)
    os.truncate(path, artifacts.MAX_TENSORS_BYTES + 1)  # a hole: it takes no memory and no disk
    with pytest.raises(CorruptError, match=f"has {artifacts.MAX_TENSORS_BYTES + 1} bytes, the limit is"):
        heads.load(whale, "whale@1")
    os.truncate(path, size)
    assert heads.load(whale, "whale@1")[0].number == 1
