"""Frozen features: the same values whether they are computed, kept, or computed again."""

import logging
import os
import resource
import subprocess
import sys
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from store_fixtures import flip
from training_fixtures import CLASSES, SELECT, TALL, TRAIN, backbone, cache, shape_picture, shape_sample

from hydra_detect.detections import GroundTruth
from hydra_detect.environment import CACHE_VARIABLE
from hydra_detect.errors import InputError, StoreError
from hydra_detect.nets.backbones import Backbone
from hydra_detect.nets.state import raw_tensors
from hydra_detect.storage.owners import staging_name
from hydra_detect.training.config import VIEWS
from hydra_detect.training.features import Encoded, FrozenFeatures, default_cache, stack
from hydra_detect.training.source import truth_of
from hydra_detect.training.views import see

SAMPLE = TRAIN[0]


def features(folder, *, limit=100_000_000, dtype="float16", of=None):
    """Return the tiny backbone's features, kept in a folder; each call stands for a new process."""
    return FrozenFeatures(of or backbone(), cache(folder, limit), dtype=dtype)


def equal(one, other):
    """Whether two encodings are equal in every bit."""
    facts = all(getattr(one, name) == getattr(other, name) for name in ("size", "padded_size", "original_size"))
    maps = [one.maps.keys() == other.maps.keys(), *(torch.equal(one.maps[n], other.maps[n]) for n in one.maps)]
    return facts and all(maps)


def kept(folder):
    """Return the feature files of a cache."""
    return sorted((folder / "features").glob("*.features"))


def test_nothing_kept_yet(tmp_path):
    """A cache in a folder that does not exist has nothing, and makes no folder by being asked."""
    empty = cache(tmp_path)
    assert empty.get("0" * 64) is None
    assert (empty.hits, empty.misses, empty.refused) == (0, 1, 0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_the_same_from_the_cache_and_from_the_backbone(tmp_path, dtype):
    """Features are float32 values that the kept dtype holds, from a first pass, from memory, from disk, or unkept."""
    first = features(tmp_path, dtype=dtype)
    computed = first.of(SAMPLE)
    assert all(level.dtype == torch.float32 and level.abs().max() > 0 for level in computed.maps.values())
    again, later = first.of(SAMPLE), features(tmp_path, dtype=dtype).of(SAMPLE)
    unkept = features(tmp_path / "none", dtype=dtype, limit=0)
    fresh = first.fresh(first.pixels(SAMPLE))
    assert all(equal(computed, other) for other in (again, later, unkept.of(SAMPLE), fresh))
    assert (first.passes, first.cache.hits, unkept.cache.refused) == (2, 1, 1)
    exact = first.run(first.pixels(SAMPLE))
    rounded = {name: level.half().float() if dtype == "float16" else level for name, level in exact.maps.items()}
    assert equal(computed, attrs.evolve(exact, maps=rounded))
    assert equal(computed, exact) == (dtype == "float32")


def test_they_are_what_a_detector_computes(tmp_path):
    """The encoding of a picture is what the backbone makes of it, with its sizes before and after padding."""
    sample = shape_sample("tall", size=TALL)
    encoded = features(tmp_path, dtype="float32").of(sample)
    prepared = backbone().prepare(torch.from_numpy(sample.picture).permute(2, 0, 1) / 255)
    own = backbone()([prepared])
    assert all(torch.equal(encoded.maps[name], level) for name, level in own.maps.items())
    assert (encoded.size, encoded.padded_size, encoded.original_size) == ((64, 48), (64, 48), (64, 48))


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_is_the_picture_turned_by_hand(tmp_path, view):
    """The features of a view equal those of a sample whose picture was turned before."""
    encoded = features(tmp_path).of(SAMPLE, view)
    pixels = torch.from_numpy(SAMPLE.picture).permute(2, 0, 1)
    turned = see(view, pixels, torch.zeros(0, 4))[0].permute(1, 2, 0).contiguous().numpy()
    other = attrs.evolve(SAMPLE, picture=turned, truth=GroundTruth([], [], turned.shape[:2]))
    assert equal(encoded, features(tmp_path / "other").of(other))


def test_what_a_file_is_kept_under(tmp_path):
    """Another picture, view, dtype or backbone has a file of its own; other labels and another id do not."""
    base = features(tmp_path)
    base.of(SAMPLE)
    relabelled = attrs.evolve(
        SAMPLE, id="renamed", truth=GroundTruth([(1, 2, 3, 4)], ["square"], SAMPLE.truth.image_size)
    )
    base.of(relabelled)
    assert (len(kept(tmp_path)), base.passes) == (1, 1)
    base.of(SAMPLE, "hflip")
    base.of(SELECT[0])
    features(tmp_path, dtype="float32").of(SAMPLE)
    contract = backbone().contract
    coarser = attrs.evolve(contract, preprocessing=attrs.evolve(contract.preprocessing, min_size=32))
    features(tmp_path, of=Backbone(coarser, raw_tensors(backbone().network.state_dict()))).of(SAMPLE)
    assert len(kept(tmp_path)) == 5


def test_a_file_with_the_same_picture_is_another(tmp_path):
    """A picture is known by its bytes: a file of it is computed once, wherever it lies."""
    base, paths = features(tmp_path), [tmp_path / "a.png", tmp_path / "b.png"]
    for path in paths:
        Image.fromarray(SAMPLE.picture).save(path)
        assert equal(base.of(attrs.evolve(SAMPLE, picture=str(path))), base.of(SAMPLE))
    assert (len(kept(tmp_path)), base.passes) == (2, 2)


@pytest.mark.parametrize("damage", ["flipped", "truncated", "emptied", "another", "no file"])
def test_a_damaged_file_is_said_deleted_and_computed_again(tmp_path, caplog, damage):
    """Whatever happened to a file, a later process says so, computes again, and gets the same."""
    right = features(tmp_path).of(SAMPLE)
    (path,) = kept(tmp_path)
    if damage == "flipped":
        flip(path, -100)
    elif damage == "no file":
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes({"truncated": path.read_bytes()[:-1], "emptied": b"", "another": b"no tensors"}[damage])
    later = features(tmp_path)
    if damage == "no file":  # what is no file of ours is not deleted either
        with caplog.at_level(logging.WARNING), pytest.raises(StoreError, match="keep features"):
            later.of(SAMPLE)
    else:
        with caplog.at_level(logging.WARNING):
            assert equal(later.of(SAMPLE), right)
        assert (later.passes, later.cache.misses) == (1, 1)
        assert equal(features(tmp_path).cache.get(path.stem), later.cache.get(path.stem))
    assert f"the feature file {path} cannot be used" in caplog.text


def test_a_damaged_file_goes_even_if_there_is_no_room(tmp_path):
    """What cannot be used is deleted, not only written over."""
    features(tmp_path).of(SAMPLE)
    (path,) = kept(tmp_path)
    flip(path, -100)
    features(tmp_path, limit=0).of(SAMPLE)
    assert kept(tmp_path) == []


@given(st.data())
def test_no_bit_of_a_file_changes_unnoticed(tmp_path_factory, data):
    """Whichever bit is flipped, of the maps, their names or sizes: the file is refused, or says the same."""
    folder = tmp_path_factory.getbasetemp() / "bits"
    right = features(folder).of(SAMPLE)
    (path,) = kept(folder)
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    place = data.draw(st.integers(0, header - 1) | st.integers(0, len(whole) - 1))
    flip(path, place, data.draw(st.integers(0, 7)))
    found = cache(folder).get(path.stem)
    path.write_bytes(whole)
    assert found is None or equal(attrs.evolve(found, maps={n: m.float() for n, m in found.maps.items()}), right)


def test_the_bound_is_kept_and_the_rest_computed_each_time(tmp_path):
    """Beyond its bound a cache keeps nothing more; what it has not is computed again, and equal."""
    everything = features(tmp_path / "all")
    right = [everything.of(sample) for sample in TRAIN]
    one = sum(level.numel() * 2 for level in right[0].maps.values())  # float16, without the file's header
    small = features(tmp_path / "small", limit=4 * one)
    for _round in range(2):
        assert all(equal(small.of(sample), wanted) for sample, wanted in zip(TRAIN, right, strict=True))
        assert len(kept(tmp_path / "small")) == 3
        assert sum(path.stat().st_size for path in kept(tmp_path / "small")) <= small.cache.limit
    tight = features(tmp_path / "tight", limit=one + 100)
    tight.of(SAMPLE)
    assert kept(tmp_path / "tight") == []  # a file has a header too
    assert (small.cache.hits, small.passes, small.cache.refused) == (3, len(TRAIN) + 5, 5)


def test_others_make_room_the_longest_unused_first_and_own_files_never(tmp_path):
    """What earlier trainings left goes, the longest unused first; a training never deletes what it uses itself."""
    earlier = features(tmp_path)
    for sample in TRAIN[:4]:
        earlier.of(sample)
    for age, path in enumerate(kept(tmp_path)):
        os.utime(path, (1000 - age, 1000 - age))
    newest, oldest = kept(tmp_path)[:2], kept(tmp_path)[3]
    used = next(sample for sample in TRAIN[:4] if named(tmp_path, sample) == oldest)
    later = features(tmp_path, limit=4 * oldest.stat().st_size + 5000)
    later.of(used)  # the later training's own from now on
    later.of(TRAIN[4])
    assert set(kept(tmp_path)) == {*newest, oldest, named(tmp_path, TRAIN[4])}
    for sample in TRAIN[5:]:
        later.of(sample)
    assert set(kept(tmp_path)) == {named(tmp_path, sample) for sample in (used, TRAIN[4], TRAIN[5], TRAIN[6])}
    assert later.cache.refused == 1


def test_use_counts_whoever_used(tmp_path):
    """A file that another training read lately is not the longest unused, whenever it was written."""
    earlier = features(tmp_path)
    for sample in TRAIN[:2]:
        earlier.of(sample)
    first, second = (named(tmp_path, sample) for sample in TRAIN[:2])
    os.utime(first, (1000, 1000))
    os.utime(second, (2000, 2000))
    features(tmp_path).of(TRAIN[0])
    features(tmp_path, limit=2 * first.stat().st_size + 5000).of(TRAIN[2])
    assert set(kept(tmp_path)) == {first, named(tmp_path, TRAIN[2])}


def named(folder, sample):
    """Return the file that keeps the plain features of a sample."""
    aside = folder / "named" / sample.id
    features(aside).of(sample)
    return folder / "features" / kept(aside)[0].name


TINY = Encoded(
    maps={"0": torch.zeros(1, 1, 40, 40)}, size=(64, 64), padded_size=(64, 64), original_size=(64, 64)
)  # more than a header in bytes
TINY_BYTES = 6700  # about what its file has


@pytest.mark.parametrize("others", [0, 300])
def test_a_folder_of_many_files_is_listed_seldom(tmp_path, monkeypatch, others):
    """However many files are kept, make room or are refused, the folder is listed a few times only."""
    earlier = cache(tmp_path)
    for number in range(others):
        earlier.put(f"earlier-{number}", TINY)
    listings, glob = [], Path.glob
    monkeypatch.setattr(Path, "glob", lambda folder, pattern: listings.append(folder) or glob(folder, pattern))
    small = cache(tmp_path, 200 * TINY_BYTES)
    for _epoch in range(2):
        for number in range(300):
            if small.get(f"{number}") is None:
                small.put(f"{number}", TINY)
    assert 90 < small.refused < 110
    assert sum(path.stat().st_size for path in kept(tmp_path)) <= small.limit
    assert len(listings) <= 17


def test_caches_that_share_a_folder_pass_the_limit_by_little(tmp_path):
    """What another process writes is seen before a sixteenth of the limit was written, and makes room."""
    limit = 64 * TINY_BYTES
    both, most = [cache(tmp_path, limit), cache(tmp_path, limit)], 0
    for number in range(60):
        for place, one in enumerate(both):
            one.put(f"{place}-{number}", TINY)
        most = max(most, sum(path.stat().st_size for path in kept(tmp_path)))
    assert 0.9 * limit < most <= limit * (1 + 2 / 16)


def test_a_file_that_is_used_after_the_listing_waits_its_turn_again(tmp_path):
    """Between two listings, too, the longest unused goes first, whoever used the others."""
    earlier = cache(tmp_path)
    for age in range(40):
        earlier.put(f"earlier-{age}", TINY)
        os.utime(tmp_path / "features" / f"earlier-{age}.features", (1000 + age, 1000 + age))
    later = cache(tmp_path, 40 * TINY_BYTES)
    later.put("first", TINY)
    gone = 40 - sum("earlier" in path.name for path in kept(tmp_path))
    used, next_one = f"earlier-{gone}", tmp_path / "features" / f"earlier-{gone + 1}.features"
    assert cache(tmp_path).get(used) is not None  # by another process
    later.put("second", TINY)
    assert (earlier.get(used) is not None, next_one.exists()) == (True, False)


def test_what_somebody_deletes_makes_room(tmp_path):
    """A cache that is full of its own files keeps one again that was deleted, once it has asked for it."""
    full = cache(tmp_path, 3 * TINY_BYTES + 4096)
    for key in ("a", "b", "c", "d"):
        full.put(key, TINY)
    assert ([path.stem for path in kept(tmp_path)], full.refused) == (["a", "b", "c"], 1)
    (tmp_path / "features" / "b.features").unlink()
    assert full.get("b") is None
    full.put("b", TINY)
    assert [path.stem for path in kept(tmp_path)] == ["a", "b", "c"]


@pytest.mark.parametrize("limit", [0, 1000])
def test_what_cannot_be_kept_anyway_costs_others_nothing(tmp_path, limit):
    """A cache that is too small for a single file deletes nothing of what others keep."""
    features(tmp_path).of(SAMPLE)
    before = kept(tmp_path)
    other = features(tmp_path, limit=limit)
    other.of(TRAIN[1])
    assert (kept(tmp_path), other.cache.refused) == (before, 1)


def test_what_a_killed_process_left_is_cleared_away(tmp_path):
    """Half a file of a process that is gone is deleted; that of one still at work, and anybody else's, is not."""
    folder = tmp_path / "features"
    folder.mkdir()
    here, _pid, began, rest = staging_name().split(".")
    gone, alive, notes = (folder / name for name in (f"{here}.999999999.{began}.{rest}", staging_name(), "notes.txt"))
    for path in (gone, alive, notes):
        path.touch()
    features(tmp_path).of(SAMPLE)
    assert (gone.exists(), alive.exists(), notes.exists(), len(kept(tmp_path))) == (False, True, True, 1)


def test_a_disk_that_refuses(tmp_path):
    """A full disk, or a file where the folder would be, is an error that says what to do, and leaves nothing behind."""
    (tmp_path / "features").write_text("")
    with pytest.raises(StoreError, match="keep features in") as caught:
        features(tmp_path).of(SAMPLE)
    assert caught.value.remedy == (
        "Name another folder (--cache, HYDRA_DETECT_CACHE or Tools.cache), or set cache_bytes to 0."
    )
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # as on a full disk; Python ignores the signal for it
    try:
        with pytest.raises(StoreError, match="keep features in"):
            features(tmp_path / "full").of(SAMPLE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list((tmp_path / "full" / "features").iterdir()) == []


SHARED = """
import sys; sys.path.insert(0, sys.argv[1])
from pathlib import Path
from test_features import churn
print("ready", flush=True)
sys.stdin.readline()
print(churn(Path(sys.argv[2])))
"""


def churn(folder):
    """Ask two small caches in turn for all samples, so that each makes room in the other's; return how many differ."""
    right = [features(folder / "none", limit=0).of(sample) for sample in TRAIN]
    limit = 3 * sum(level.numel() * 2 for level in right[0].maps.values()) + 20_000
    wrong = 0
    for _round in range(6):
        small = features(folder, limit=limit)
        wrong += sum(not equal(small.of(s), wanted) for s, wanted in zip(TRAIN, right, strict=True))
    return wrong


def test_two_processes_share_a_folder(tmp_path):
    """Two processes that read, write and evict in one folder at once see nothing but right values."""
    command = [sys.executable, "-c", SHARED, str(Path(__file__).parent), str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "ready\n"
        other.stdin.write("go\n")
        other.stdin.flush()
        assert churn(tmp_path) == 0
        assert other.stdout.read() == "0\n"
    assert other.returncode == 0
    assert {path.suffix for path in (tmp_path / "features").iterdir()} == {".features"}


def test_pictures_that_cannot_be_used(tmp_path):
    """A file that is gone, or of another size than its labels say, is refused before anything is kept."""
    missing = attrs.evolve(SAMPLE, picture=str(tmp_path / "gone.png"))
    with pytest.raises(InputError, match="No such file"):
        features(tmp_path).of(missing)
    with pytest.raises(InputError, match="it is 64 x 48 and was labelled at 48 x 64"):
        features(tmp_path).of(attrs.evolve(SAMPLE, picture=shape_picture([], TALL)))
    assert kept(tmp_path) == []


def test_a_stack_is_a_batch_of_the_backbone(tmp_path):
    """Pictures of one padded size stacked are what the backbone makes of them as a batch."""
    encoder = features(tmp_path, dtype="float32")
    # Wide enough that all are padded to the same square.
    chosen = [shape_sample(f"a{width}", size=(48, width), seed=width) for width in (50, 58, 64)]
    stacked = stack([encoder.of(sample) for sample in chosen])
    prepared = [backbone().prepare(encoder.pixels(sample)) for sample in chosen]
    together = backbone()(prepared)
    for name, level in together.maps.items():
        assert torch.allclose(stacked.maps[name], level, rtol=1e-4, atol=1e-5)
    assert stacked.images.image_sizes == together.images.image_sizes == [(48, 50), (48, 58), (48, 64)]
    assert stacked.images.tensors.shape[-2:] == together.images.tensors.shape[-2:]
    assert len(stacked.images.tensors) == 3
    assert stacked.original_sizes == together.original_sizes


def test_where_they_are_kept(monkeypatch, tmp_path):
    """Features are kept below $HYDRA_DETECT_CACHE, else in the cache folder at home."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    assert default_cache() == tmp_path / "features"
    monkeypatch.setenv(CACHE_VARIABLE, "")
    assert default_cache() == Path.home() / ".cache" / "hydra-detect" / "features"


def test_truth_as_tensors():
    """Labels count from 1 in the order of the classes; a background has none, and boxes stay four wide."""
    boxes, labels = truth_of(shape_sample("empty"), {"disc": 1})
    assert (boxes.shape, labels.shape, labels.dtype) == ((0, 4), (0,), torch.int64)
    both = shape_sample("both", ("square", 1, 2, 9, 8), ("disc", 20, 10, 40, 30))
    boxes, labels = truth_of(both, {name: number for number, name in enumerate(CLASSES, start=1)})
    assert labels.tolist() == [2, 1]
    assert np.array_equal(boxes.numpy(), both.truth.boxes)
